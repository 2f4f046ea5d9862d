"""Which devices and number formats this machine is fast at."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from unsup.core.errors import InputError

Precision = Literal["auto", "float32", "bfloat16"]


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {name!r} is not there (PyTorch sees no CUDA); use --device cpu")
    return torch.device(name)


def has_fast_bfloat16(device: torch.device) -> bool:
    """CUDA with bfloat16, or a CPU with AMX tiles. AVX-512 bfloat16 alone does not reliably beat float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def uses_bfloat16(precision: Precision, device: torch.device, *, allowed: bool) -> bool:
    """Whether training runs under bfloat16 autocast."""
    if precision == "auto":
        return allowed and has_fast_bfloat16(device)
    if precision == "bfloat16" and not allowed:
        raise InputError("this model computes in float32 or float64 only; use --precision auto or float32")
    return precision == "bfloat16"


@contextmanager
def fast_float32_matmul(device: torch.device) -> Iterator[None]:
    """Inside, float32 matrix products take the machine's faster CPU kernels where these keep float32's digits.

    PyTorch sends float32 products to MKL by default, which on AMD processors runs at about half the speed of oneDNN's
    AVX-512 kernels; asking for ``medium`` precision selects oneDNN. On processors with AMX the same request rounds to
    bfloat16, so it is made only where a product measured here agrees with float64 as a float32 one does.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cpu" and _medium_keeps_float32():
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@functools.cache
def _medium_keeps_float32() -> bool:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 256, 256, generator=generator)  # positive entries: no cancellation, relative error ~ 1e-7
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = a @ b
    finally:
        torch.set_float32_matmul_precision(before)
    exact = a.double() @ b.double()
    return bool(((found - exact).abs() / exact).max() < 2e-6)
