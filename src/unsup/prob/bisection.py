"""Roots of increasing functions by bisection, for all entries at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_MOST_HALVINGS = 1100  # from the largest number to the smallest


def bisect(too_small: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """The point of every entry where ``too_small`` changes from true to false, between ``low`` and ``high``.

    Intervals are halved until they are as narrow as the precision of the type allows, for all entries at once.
    """
    width = float((high - low).detach().abs().amax()) if low.numel() else 0.0
    precision = torch.finfo(low.dtype).eps
    near = float(torch.maximum(low.abs(), high.abs()).detach().amin()) if low.numel() else 1.0
    halvings = _MOST_HALVINGS
    if width == 0:
        halvings = 0
    elif math.isfinite(width):
        halvings = math.ceil(math.log2(max(width, precision) / (precision * max(near, 1e-3))))
    for _ in range(min(max(halvings, 0) + 2, _MOST_HALVINGS)):
        middle = low + 0.5 * (high - low)
        small = too_small(middle)
        low, high = torch.where(small, middle, low), torch.where(small, high, middle)
    return low + 0.5 * (high - low)
