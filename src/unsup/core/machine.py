"""A description of this machine, and the number formats and kernels that are fast on it."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

import unsup
from unsup.core.errors import InputError

Precision = Literal["auto", "float32", "bfloat16"]


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is CUDA if available, else the CPU.

    Raises:
        InputError: a name other than ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, or a device that is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (":" in name and not number.isdigit()):
        raise InputError(f"there is no device {name!r}; expected auto, cpu, cuda or cuda:N")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {name!r} is not available (PyTorch finds no CUDA device); use --device cpu")
    return torch.device(name)


def has_fast_bfloat16(device: torch.device) -> bool:
    """CUDA with bfloat16, or a CPU with AMX tiles or the dot products of AVX-512 bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def uses_bfloat16(precision: Precision, device: torch.device, *, allowed: bool) -> bool:
    """Whether training uses bfloat16 autocast."""
    if precision == "auto":
        return allowed and has_fast_bfloat16(device)
    if precision == "bfloat16" and not allowed:
        raise InputError("this model computes in float32 or float64 only; use --precision auto or float32")
    return precision == "bfloat16"


@contextmanager
def fast_cpu(device: torch.device) -> Iterator[None]:
    """Use the faster CPU kernels of this machine for float32 matrix products, if they keep the precision of float32.

    By default PyTorch uses MKL for float32 products. On AMD processors MKL has about half the speed of the AVX-512
    kernels of oneDNN, which ``medium`` precision selects. On processors with AMX, ``medium`` rounds to bfloat16, so it
    is selected only if a test product here is as close to float64 as a float32 product is.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cpu":
        # glibc returns blocks above its threshold to the kernel and page-faults at every new use. Freeing one block of
        # 32 MB, the largest allowed threshold, raises the threshold permanently.
        torch.empty(2**23)
        if _medium_keeps_float32():
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


def machine_kind() -> str:
    """The processor, its cores and fast number formats, e.g. ``"AMD EPYC, 2 cores, AVX-512 bf16"``."""
    name, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().split("\n\n")[0].splitlines() if ":" in line)
        fields = {k.strip(): v.strip() for k, v in fields.items()}
        name, flags = fields.get("model name", name), fields.get("flags", "")
    extra = (
        "AMX"
        if "amx_bf16" in flags
        else "AVX-512 bf16"
        if "avx512_bf16" in flags
        else "AVX2"
        if "avx2" in flags
        else ""
    )
    parts = [name, f"{os.cpu_count()} cores", extra]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(p for p in parts if p)


def environment() -> dict[str, str]:
    """What the last bits of results depend on: versions, processor, instruction set, threads.

    >>> sorted(environment())
    ['instructions', 'machine', 'threads', 'torch', 'unsup']
    """
    return {
        "unsup": unsup.__version__,
        "torch": torch.__version__,
        "machine": machine_kind(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }
