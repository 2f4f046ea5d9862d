"""Sparse attention against dense attention of the same size, for longer and longer sequences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.harness import Measured, Several, interleave
from unsup.nn.attention import Attention
from unsup.nn.causal import Causal
from unsup.nn.sparse_attention import SparseAttention

WIDTH, HEADS = 128, 4
LENGTHS = (1024, 4096, 16384)


def sparse_attention() -> Several:
    """One layer, forward and backward. The dense one is fused: it does not store its n² weights."""
    rows: list[Measured] = []
    memory: list[int] = []
    for n in LENGTHS:
        h = torch.randn(1, n, WIDTH, generator=torch.Generator().manual_seed(0))
        stride = math.isqrt(n)
        strided, fixed = (SparseAttention(WIDTH, HEADS, WIDTH, p, stride, 1) for p in ("strided", "fixed"))
        others = {"dense, fused": _step(Attention(WIDTH, HEADS), h), "fixed pattern": _step(fixed, h)}
        name = f"Sparse attention, {n:,} symbols, strided"
        row = interleave(name, _step(strided, h), others, rounds=3, target="time and memory as n^1.5 at most")
        kept = _kept(strided, h)
        note = f"width {WIDTH}, {HEADS} heads, l = {stride}; {kept / 1e6:.1f} MB kept for gradients"
        if rows:
            before = LENGTHS[len(rows) - 1]
            grown = [math.log(b / a) / math.log(n / before) for a, b in ((rows[-1].ours, row.ours), (memory[-1], kept))]
            dense = math.log(row.theirs["dense, fused"] / rows[-1].theirs["dense, fused"]) / math.log(n / before)
            note += f"; since {before:,}: time as n^{grown[0]:.2f} (dense n^{dense:.2f}), memory as n^{grown[1]:.2f}"
        rows.append(replace(row, note=note))
        memory.append(kept)
    return Several(rows)


def _step(layer: Causal, h: Tensor) -> Callable[[], None]:
    def step() -> None:
        layer(h).sum().backward()

    return step


def _kept(layer: Causal, h: Tensor) -> int:
    """Bytes that are kept for the gradients."""
    storages: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        found = layer(h)
    assert found.grad_fn is not None
    return sum(storages.values())
