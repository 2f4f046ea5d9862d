"""From raw data to network inputs."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import relu

from unsup.core.event import Event, Support
from unsup.nn.front import ContinuousFront

MOST_ONE_HOT_LEVELS = 32
"""Ordinal inputs with more levels are one scaled number in dense networks."""


class Inputs(nn.Module):
    """Raw discrete entries as features: scaled to a range, or one-hot. Between the levels they are interpolated.

    Levels are subtracted before rounding to the type of the model, so that integers far from 0 remain distinct.

    Args:
        event: event with one discrete support for all entries.
        one_hot: one feature per level, or one number. None: one-hot for more than two unordered symbols.
        lowest: scaled value of the first level, 0 or −1; the last level is 1.
    """

    like: Tensor

    def __init__(self, event: Event, *, one_hot: bool | None = None, lowest: Literal[0, -1] = -1) -> None:
        super().__init__()
        support = event.uniform
        assert support is not None
        assert support.is_discrete
        self.event, self.support, self.lowest = event, support, lowest
        self.one_hot = support.kind == "nominal" and support.levels > 2 if one_hot is None else one_hot
        self.each = support.levels if self.one_hot else 1
        self.register_buffer("like", torch.zeros(()), persistent=False)  # has the type in which the model computes

    @property
    def size(self) -> int:
        """Features of a flattened example."""
        return self.event.dims * self.each

    @property
    def channels(self) -> int:
        """Features of one pixel of an image."""
        return self.event.shape[0] * self.each

    def forward(self, x: Tensor) -> Tensor:
        """Raw entries of any shape ``(B, …)`` → ``(B, …, each)``, without the last axis where it would be 1."""
        return self.levels(levels_of(x, self.support, self.like))

    def levels(self, level: Tensor) -> Tensor:
        """The same for levels counted from 0."""
        level = level.to(self.like.dtype)
        if self.one_hot:
            grid = torch.arange(self.each, dtype=level.dtype, device=level.device)
            return relu(1 - (level.unsqueeze(-1) - grid).abs())
        steps = self.support.levels - 1
        return level / steps if self.lowest == 0 else 2 * level / steps - 1

    def flat(self, x: Tensor) -> Tensor:
        """``(B, *event.shape)`` → ``(B, size)``, the features of an entry side by side."""
        return self(x.reshape(len(x), self.event.dims)).flatten(1)

    def image(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, channels, H, W)``, the features of a channel side by side."""
        h: Tensor = self(x)
        return h.movedim(-1, 2).flatten(1, 2) if self.one_hot else h


def levels_of(x: Tensor, support: Support, like: Tensor) -> Tensor:
    """Raw entries counted from the lowest level, in the type of ``like``; integers are subtracted exactly."""
    if support.low and not x.is_floating_point():
        x = x.long() - support.low
    elif support.low:
        x = x - support.low
    return x.to(like.dtype)


class Features(nn.Module):
    """Examples of any event as one vector each, for conditions: one-hot classes, scaled levels, standardised numbers.

    Args:
        event: any event, including scalars.
    """

    def __init__(self, event: Event) -> None:
        super().__init__()
        self.event = event
        support = event.uniform
        discrete = support is not None and support.is_discrete
        one_hot = support is not None and (support.kind == "nominal" or 2 < support.levels <= MOST_ONE_HOT_LEVELS)
        self.inputs = Inputs(event, one_hot=one_hot) if discrete else None
        self.front = None if discrete else ContinuousFront(event)
        self.size = self.inputs.size if self.inputs is not None else math.prod(event.shape)

    def prepare(self, x: Tensor, *, generator: Generator) -> None:
        """Standardise numbers with training data."""
        if self.front is not None:
            self.front.prepare(x, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *event.shape)`` → ``(B, size)``."""
        if self.inputs is not None:
            return self.inputs.flat(x)
        assert self.front is not None
        return self.front.middle(x).reshape(len(x), self.size)
