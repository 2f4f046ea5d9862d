"""How the traces in log-determinants are computed: not at all, exactly, or along a random direction.

E[εᵀ A ε] = tr A for a direction ε of random signs (Hutchinson's estimate, in flows since Grathwohl et al. 2019,
https://arxiv.org/abs/1810.01367).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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


def random_signs(x: Tensor, generator: Generator | None) -> Tensor:
    """±1 with equal probability, of the shape of the examples ``(B, *shape)``."""
    return random.uniform(x.shape, generator, like=x).round() * 2 - 1
