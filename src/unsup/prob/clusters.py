"""Initialisation of clustering. Pure functions on tensors."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from unsup.core import random


def kmeans_plus_plus(y: Tensor, count: int, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """Seeds of k-means++: the first uniform, each next with probability proportional to D(y)².

    D is the distance to the nearest seed so far (Arthur, Vassilvitskii 2007, section 2.2,
    https://dl.acm.org/doi/10.5555/1283383.1283494). If every example coincides with a seed, the next is any other
    example.

    Args:
        y: ``(N, D)``, N ≥ ``count``.

    Returns:
        Distinct rows of the seeds ``(count,)``, and the index of the nearest seed of each example ``(N,)``; the nearest
        seed of a seed is itself.

    >>> seeds, nearest = kmeans_plus_plus(torch.tensor([[0.0], [0.1], [9.0]]), 2, generator=Generator().manual_seed(0))
    >>> bool(nearest[0] == nearest[1]), bool(nearest[0] == nearest[2])
    (True, False)
    """
    distance = torch.full((len(y),), torch.inf, dtype=y.dtype, device=y.device)
    nearest = torch.zeros(len(y), dtype=torch.int64, device=y.device)
    free = torch.ones_like(distance)
    seeds = []
    for k in range(count):
        weight = free if k == 0 or not bool((distance > 0).any()) else distance
        cumulative = weight.double().cumsum(0)
        uniform = random.uniform((1,), generator, like=cumulative, axis=None)
        seed = torch.searchsorted(cumulative / cumulative[-1], uniform, right=True)
        seeds.append(seed)
        free[seed] = 0
        to_seed = torch.cdist(y, y[seed], compute_mode="donot_use_mm_for_euclid_dist").squeeze(1).square()
        closer = to_seed < distance
        distance, nearest = torch.where(closer, to_seed, distance), nearest.masked_fill(closer, k)
        nearest[seed] = k
    return torch.cat(seeds), nearest
