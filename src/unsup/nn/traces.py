"""How the traces in log-determinants are computed: not at all, exactly, or along a random direction.

E[εᵀ A ε] = tr A for a direction ε of random signs (Hutchinson's estimate, in flows since Grathwohl et al. 2019,
https://arxiv.org/abs/1810.01367).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from unsup.core import random

Way = Literal["none", "exact", "random"]


class Probes(NamedTuple):
    """How traces are computed: not at all (the log-determinant is then 0), exactly, or with signs of a generator."""

    way: Way
    generator: Generator | None = None


_EXACT = Probes("exact")
_MOST_ENTRIES = 2**20  # of the directions that pass through a network at once
_PROBES: ContextVar[Probes] = ContextVar("_PROBES", default=_EXACT)


@contextmanager
def traces(way: Way, generator: Generator | None = None) -> Iterator[None]:
    """In this context, traces are not computed, exact, or estimated; elsewhere they are exact."""
    token = _PROBES.set(Probes(way, generator))
    try:
        yield
    finally:
        _PROBES.reset(token)


def current_probes() -> Probes:
    """How traces are computed here."""
    return _PROBES.get()


def unit_vectors(x: Tensor) -> Tensor:
    """All D unit vectors for each example ``(B, *shape)``: ``(B, D, *shape)``."""
    entries = math.prod(x.shape[1:])
    eye = torch.eye(entries, dtype=x.dtype, device=x.device).view(entries, *x.shape[1:])
    return eye.expand(len(x), *eye.shape)


def few_at_once(directions: Tensor) -> tuple[Tensor, ...]:
    """Directions ``(B, k, *shape)`` in parts along k, whose images in a wide layer fit in memory."""
    entries = max(1, directions[:, 0].numel() if directions.shape[1] else 1)
    return directions.split(max(1, _MOST_ENTRIES // entries), 1)


def jacobian(along: Callable[[Tensor], Tensor], x: Tensor, reach: int | None = None) -> Tensor:
    """∂y/∂x ``(B, D, D)`` of a map to examples of the same shape, from its directional derivatives.

    Args:
        along: directions ``(B, k, *shape)`` → derivatives ``(B, k, *shape)``.
        x: ``(B, *shape)``.
        reach: of images: pixels of y depend on those of x at most so far away in each direction. Pixels further apart
            than twice that share a direction. None: unknown.

    >>> x = torch.randn(2, 1, 5, 4)
    >>> kernel = torch.randn(1, 1, 3, 3)
    >>> def along(v: Tensor) -> Tensor:
    ...     return torch.nn.functional.conv2d(v.flatten(0, 1), kernel, padding=1).view_as(v)
    >>> bool((jacobian(along, x, reach=1) == jacobian(along, x)).all())
    True
    """
    if reach is None or x.ndim != 4:
        directions = unit_vectors(x)
        return torch.cat([along(part).flatten(2) for part in few_at_once(directions)], 1).mT
    channels, *sides = x.shape[1:]
    periods = [min(2 * reach + 1, side) for side in sides]
    row, column = (torch.arange(side, device=x.device) for side in sides)
    combs = (
        (torch.arange(periods[0], device=x.device)[:, None] == row % periods[0])[:, None, :, None]
        & (torch.arange(periods[1], device=x.device)[:, None] == column % periods[1])[None, :, None, :]
    ).flatten(0, 1)  # (periods, H, W)
    eye = torch.eye(channels, dtype=x.dtype, device=x.device)
    directions = torch.einsum("cd,khw->ckdhw", eye, combs.to(x.dtype)).flatten(0, 1)
    found = torch.cat([along(part) for part in few_at_once(directions.expand(len(x), *directions.shape))], 1)
    found = found.unflatten(1, (channels, *periods))  # (B, C, periods, C, H, W)
    each = found[:, :, row % periods[0]][:, :, :, column % periods[1]]  # (B, C, H, W, C, H, W), the first of x
    near = [(side[:, None] - side).abs() <= reach for side in (row, column)]
    each = each * (near[0][:, None, :, None] & near[1][None, :, None, :])[None, None, :, :, None]
    return each.flatten(1, 3).flatten(2).mT


def random_signs(x: Tensor, generator: Generator | None) -> Tensor:
    """±1 with equal probability, of the shape of the examples ``(B, *shape)``."""
    return random.uniform(x.shape, generator, like=x).round() * 2 - 1
