"""Ranges of columns that a few gross values do not decide. Pure functions on tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def usual_range(x: Tensor, widths: float) -> tuple[Tensor, Tensor]:
    """The median of each column of ``(N, D)`` less and plus ``widths`` of its widths; infinite if it has no width.

    The width is that of the middle half of the values, or of the middle 90 % or 98 % if the half is a single value.

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0], [1e6]])
    >>> [float(end) for end in usual_range(x, 10)]
    [-18.0, 22.0]
    """
    ordered, n = x.sort(0).values, len(x)
    width = torch.zeros_like(ordered[0])
    for share in (0.25, 0.05, 0.01):
        cut = int(share * n)
        width = torch.where(width > 0, width, ordered[n - 1 - cut] - ordered[cut])
    reach = torch.where(width > 0, widths * width, math.inf)
    median = ordered[(n - 1) // 2]
    return median - reach, median + reach
