"""Ranges of columns that a few gross values do not decide. Pure functions on tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def usual_range(x: Tensor, widths: float) -> tuple[Tensor, Tensor]:
    """The median of each column of ``(N, D)`` less and plus ``widths`` of its widths; infinite if it has no width.

    NaN is a missing value.

    The width is that of the middle half of the values, or of the middle 90 % or 98 % if the half is a single value.

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0], [1e6]])
    >>> [float(end) for end in usual_range(x, 10)]
    [-18.0, 22.0]
    """
    ordered, n = in_order(x)
    width = torch.zeros_like(ordered[0])
    for share in (0.25, 0.05, 0.01):
        cut = (share * n).long()
        width = torch.where(width > 0, width, place(ordered, n - 1 - cut) - place(ordered, cut))
    reach = torch.where(width > 0, widths * width, math.inf)
    median = place(ordered, (n - 1) // 2)
    return median - reach, median + reach


def in_order(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each column of ``(N, D)`` in ascending order, and the number of its known values, which come before its NaN."""
    return x.sort(0).values, (~x.isnan()).sum(0)


def place(ordered: Tensor, number: Tensor) -> Tensor:
    """One value of each column: ``(N, D)``, ``(D,)`` → ``(D,)``; 0 for a column without values."""
    return ordered.gather(0, number.clamp(0, len(ordered) - 1)[None])[0].nan_to_num(0.0)
