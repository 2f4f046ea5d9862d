"""Sets of permutations that differ from each other in many places."""

from __future__ import annotations

import functools
import itertools
import math

import torch
from torch import Tensor

_BITS_OF_TOTAL = 24


def distant_permutations(tiles: int, count: int) -> Tensor:
    """``count`` permutations of 0, …, tiles − 1, chosen one by one for large Hamming distances: ``(count, tiles)``.

    The first one is the identity. Each next one has the largest distance from the nearest of those chosen; among
    equals, the largest sum of distances from all of them, by which Noroozi, Favaro 2016
    (https://arxiv.org/abs/1603.09246) choose; among equals, it is the first in lexicographic order. The set is a
    function of the two numbers alone.

    Raises:
        ValueError: there are fewer permutations.

    >>> distant_permutations(3, 3)
    tensor([[0, 1, 2],
            [1, 2, 0],
            [2, 0, 1]])
    """
    if not 1 <= count <= math.factorial(tiles):
        raise ValueError(f"{tiles} tiles have {math.factorial(tiles):,} permutations; {count:,} were requested")
    return torch.tensor(_chosen(tiles, count))


@functools.lru_cache(maxsize=8)
def _chosen(tiles: int, count: int) -> tuple[tuple[int, ...], ...]:
    every = bytearray(itertools.chain.from_iterable(itertools.permutations(range(tiles))))
    columns = torch.frombuffer(every, dtype=torch.uint8).view(-1, tiles).T.contiguous()  # (tiles, tiles!)
    nearest = torch.full(columns.shape[1:], tiles, dtype=torch.uint8)
    total = torch.zeros(columns.shape[1:], dtype=torch.int32)
    found: list[tuple[int, ...]] = []
    for _ in range(count):
        worth = (nearest.int() << _BITS_OF_TOTAL) + total
        farthest = int((worth == worth.max()).nonzero()[0])
        found.append(tuple(columns[:, farthest].tolist()))
        distance = torch.zeros_like(nearest)
        for column, value in zip(columns, found[-1], strict=True):
            distance += (column != value).view(torch.uint8)
        nearest = torch.minimum(nearest, distance)
        total += distance
    return tuple(found)
