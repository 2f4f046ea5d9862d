"""Vector quantisation: the nearest vectors of a codebook, and their moving averages. Pure functions on tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_MOST_DISTANCES = 2**22  # distances at a time: bounds the memory


@torch.no_grad()
def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """The number of the nearest vector of a codebook, argmin_k ‖z − e_k‖²; the first of equally near ones.

    The distances are ‖e_k‖² − 2 z · e_k, one matrix product; ‖z‖² changes no argmin. The vector of the codebook
    next to its mean is the origin, so that vectors far from 0 lose no digits, and whole numbers stay whole.

    Args:
        z: vectors ``(…, D)``.
        codebook: ``(K, D)``.

    Returns:
        ``(…)``, int64.

    >>> nearest(torch.tensor([[0.9, 0.0], [0.5, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])).tolist()
    [1, 0]
    """
    origin = codebook[(codebook - codebook.mean(0)).square().sum(1).argmin()]
    codebook = codebook - origin
    norms, rows = codebook.square().sum(1), z.reshape(-1, z.shape[-1]) - origin
    parts = rows.split(max(1, _MOST_DISTANCES // len(codebook)))
    found = torch.cat([torch.addmm(norms, part, codebook.T, alpha=-2).argmin(1) for part in parts])
    return found.view(z.shape[:-1])


def sums_of_codes(z: Tensor, codes: Tensor, size: int, weight: Tensor | None = None) -> Tensor:
    """The number of vectors of each code, and their sum: ``(N, D)``, ``(N,)`` → ``(size, 1 + D)``.

    Args:
        z: vectors.
        codes: the code of each.
        size: number of codes.
        weight: weight of each vector, ``(N,)``; None for 1.
    """
    rows = torch.cat([torch.ones_like(z[:, :1]), z], 1)
    if weight is not None:
        rows = rows * weight.to(rows.dtype)[:, None]
    return rows.new_zeros(size, rows.shape[1]).index_add_(0, codes, rows)


def smoothed_counts(counts: Tensor, smoothing: float) -> Tensor:
    """Counts N_k with Laplace smoothing and the same total: (N_k + ε) / (Σ N + K ε) · Σ N; ``(K,)`` → ``(K,)``."""
    total = counts.sum()
    return (counts + smoothing) / (total + len(counts) * smoothing) * total


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of codes with these counts, from 1 to K; K if there are none: ``(K,)`` → ``()``.

    >>> round(float(perplexity(torch.tensor([3.0, 3.0, 0.0]))), 4)
    2.0
    """
    tiny = torch.finfo(counts.dtype).tiny
    p = (counts + tiny) / (counts + tiny).sum()
    return torch.special.entr(p).sum().exp()


def straight_through(z: Tensor, quantised: Tensor) -> Tensor:
    """``quantised``, exactly, whose gradient is passed to ``z`` instead (Bengio, Léonard, Courville 2013,
    https://arxiv.org/abs/1308.3432).
    """
    found: Tensor = _StraightThrough.apply(z, quantised)
    return found


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, quantised: Tensor) -> Tensor:
        return quantised.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient, None
