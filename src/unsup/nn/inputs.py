"""From raw data to network inputs."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import relu

from unsup.core.event import Event, Support
from unsup.nn.columns import Columns, is_table, observed_moments
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
    def sizes(self) -> tuple[int, ...]:
        """The number of features of each entry."""
        return (self.each,) * self.event.dims

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
            return interpolated(level, self.each)
        steps = self.support.levels - 1
        return level / steps if self.lowest == 0 else 2 * level / steps - 1

    def flat(self, x: Tensor) -> Tensor:
        """``(B, *event.shape)`` → ``(B, size)``, the features of an entry side by side."""
        return self(x.reshape(len(x), self.event.dims)).flatten(1)

    def image(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, channels, H, W)``, the features of a channel side by side."""
        h: Tensor = self(x)
        return h.movedim(-1, 2).flatten(1, 2) if self.one_hot else h


def dense_inputs(event: Event) -> Inputs:
    """Inputs of dense networks: 0 and 1 for two levels, one-hot for symbols and few levels, else scaled numbers."""
    support = event.uniform
    assert support is not None
    ordered = support.kind != "nominal" and support.levels > MOST_ONE_HOT_LEVELS
    return Inputs(event, one_hot=support.levels > 2 and not ordered, lowest=0 if support.levels == 2 else -1)


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
        self.columns = Columns(event) if is_table(event) else None
        self.table = TableInputs(event) if is_table(event) else None
        support = event.uniform if self.table is None else None
        discrete = support is not None and support.is_discrete
        one_hot = support is not None and (support.kind == "nominal" or 2 < support.levels <= MOST_ONE_HOT_LEVELS)
        self.inputs = Inputs(event, one_hot=one_hot) if discrete else None
        self.front = None if discrete or self.table is not None else ContinuousFront(event)
        self.size = self.table.size if self.table is not None else math.prod(event.shape)
        if self.inputs is not None:
            self.size = self.inputs.size

    def prepare(self, x: Tensor, *, generator: Generator) -> None:
        """Standardise numbers with training data."""
        if self.front is not None:
            self.front.prepare(x, generator=generator)
        if self.columns is not None and self.table is not None:
            self.columns.prepare(x, generator=generator)
            self.table.prepare(self.columns(x))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *event.shape)`` → ``(B, size)``."""
        if self.columns is not None and self.table is not None:
            found: Tensor = self.table(self.columns(x))
            return found
        if self.inputs is not None:
            return self.inputs.flat(x)
        assert self.front is not None
        return self.front.middle(x).reshape(len(x), self.size)


class TableInputs(nn.Module):
    """The columns of a table as features: one-hot categories, 0 or 1, and standardised whole and real numbers.

    If entries may be missing, all features of a missing entry are 0, and the last feature of every column is 1 where
    its entry is missing. Between their levels, one-hot features are interpolated.

    Args:
        event: any event; it is flattened.
        indicators: whether there are features of what is missing.

    Attributes:
        sizes: number of features of each column.

    >>> from unsup.core.event import REAL
    >>> inputs = TableInputs(Event((2,), (Support("nominal", 3), REAL), missing=True))
    >>> inputs(torch.tensor([[2.0, float("nan")]])).tolist()
    [[0.0, 0.0, 1.0, 0.0, 0.0, 1.0]]
    """

    centre: Tensor
    spread: Tensor
    places: Tensor
    like: Tensor

    def __init__(self, event: Event, *, indicators: bool = True) -> None:
        super().__init__()
        columns, self.missing, self.indicators = event.columns, event.missing, event.missing and indicators
        self.categories = [s.levels if s.kind == "nominal" and s.levels > 2 else 0 for s in columns]
        self.sizes = tuple(max(k, 1) + self.indicators for k in self.categories)
        self.numbers = [d for d, k in enumerate(self.categories) if not k]
        self.words = {
            k: [d for d, own in enumerate(self.categories) if own == k] for k in sorted({*self.categories} - {0})
        }
        self.whole = [d for d, s in enumerate(columns) if s.kind == "ordinal"]
        # Features are computed kind by kind; their places in the order of columns:
        made = [torch.tensor(self.numbers, dtype=torch.int64)]
        made += [torch.tensor(own).repeat_interleave(k) for k, own in self.words.items()]
        made += [torch.arange(len(columns))] if self.indicators else []
        self.register_buffer("places", torch.cat(made).argsort(stable=True), persistent=False)
        self.register_buffer("centre", torch.zeros(len(columns)))
        self.register_buffer("spread", torch.ones(len(columns)))
        self.register_buffer("like", torch.zeros(()), persistent=False)

    @property
    def size(self) -> int:
        """Number of all features."""
        return sum(self.sizes)

    def prepare(self, units: Tensor) -> None:
        """Standardise whole numbers by the units of training data, ``(N, D)``; real numbers already are."""
        mean, std = observed_moments(units[:, self.whole])
        self.centre[self.whole], self.spread[self.whole] = mean.to(self.centre.dtype), std.to(self.spread.dtype)

    def forward(self, units: Tensor) -> Tensor:
        """Units of `Columns`, ``(B, D)`` → features ``(B, size)``, the columns side by side."""
        gaps = units.isnan()
        units = units.masked_fill(gaps, 0.0)
        numbers = ((units - self.centre) / self.spread)[:, self.numbers]
        found = [numbers.masked_fill(gaps[:, self.numbers], 0.0) if self.missing else numbers]
        for k, own in self.words.items():
            words = interpolated(units[:, own], k)
            found.append((words * ~gaps[:, own, None] if self.missing else words).flatten(1))
        if self.indicators:
            found.append(gaps.to(units.dtype))
        return torch.cat(found, 1)[:, self.places].to(self.like.dtype)

    def at(self, column: int, units: Tensor) -> Tensor:
        """Features of one column: units ``(B,)`` → ``(B, sizes[column])``."""
        k, gaps = self.categories[column], units.isnan()
        units = units.masked_fill(gaps, 0.0)
        found = interpolated(units, k) if k else ((units - self.centre[column]) / self.spread[column]).unsqueeze(-1)
        found = found.to(self.like.dtype)
        if not self.indicators:
            return found
        return torch.cat([found * ~gaps[:, None], gaps[:, None].to(found.dtype)], 1)


def interpolated(level: Tensor, levels: int) -> Tensor:
    """One-hot features of level numbers, linear between the levels: ``(…)`` → ``(…, levels)``."""
    grid = torch.arange(levels, dtype=level.dtype, device=level.device)
    return relu(1 - (level.unsqueeze(-1) - grid).abs())
