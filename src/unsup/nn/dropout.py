"""Dropout in the networks of flows: in the loss of training, and nowhere else.

A network that drops units is another function for each example and each call. Scores and inverses therefore use the
whole network in both modes of a module; only inside `dropping` units are dropped, as batch statistics are used only
inside `unsup.nn.norm.batch_statistics`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torch import Generator, Tensor, nn

from unsup.core import random


class Drops(NamedTuple):
    """Whether units are dropped, and by which generator."""

    on: bool = False
    generator: Generator | None = None


_NONE = Drops()
_DROPS: ContextVar[Drops] = ContextVar("_DROPS", default=_NONE)


@contextmanager
def dropping(on: bool, generator: Generator | None) -> Iterator[None]:
    """In this context, networks of flows drop units, with noise of ``generator``."""
    token = _DROPS.set(Drops(on, generator))
    try:
        yield
    finally:
        _DROPS.reset(token)


def drops() -> Drops:
    """Those of the context."""
    return _DROPS.get()


class Dropout(nn.Module):
    """A share of the features of each example is set to 0 inside `dropping`, the others are divided by 1 − share."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, h: Tensor) -> Tensor:
        on, generator = drops()
        return random.dropout(h, self.share, generator) if on else h
