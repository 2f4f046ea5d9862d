"""The columns of a table in the units of models.

Discrete entries are level numbers from 0, real entries are standardised, and missing entries are NaN. Categories are
never numbers on a line: they are one-hot inputs, and outputs with one number per category.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor, nn

from unsup.core.event import REAL, Event
from unsup.nn.front import ContinuousFront
from unsup.prob.distributions import at_least_float32


def is_table(event: Event) -> bool:
    """Whether entries need outputs of their own: columns of different supports, or missing entries."""
    return event.uniform is None or event.missing


FURTHEST = 1000.0
"""Standard deviations at which real entries count as conditions of others when they are coded. Rounding errors of far
values would otherwise reach the coder."""


class Columns(nn.Module):
    """Raw data ⇄ units: ``(B, *event.shape)`` ⇄ ``(B, D)``.

    Args:
        event: any event; it is flattened.

    >>> from unsup.core.event import Support
    >>> columns = Columns(Event((2,), (Support("ordinal", 5, low=7), REAL), missing=True))
    >>> columns(torch.tensor([[8.0, float("nan")]]))
    tensor([[1., nan]])
    """

    low: Tensor
    real: Tensor
    like: Tensor

    def __init__(self, event: Event) -> None:
        super().__init__()
        self.event = event
        places = [d for d, s in enumerate(event.columns) if not s.is_discrete]
        own = Event((max(len(places), 1),), REAL, precision=event.precision, missing=event.missing)
        self.front = ContinuousFront(own) if places else None
        self.register_buffer("real", torch.tensor(places, dtype=torch.int64), persistent=False)
        self.register_buffer("low", torch.tensor([s.low for s in event.columns]), persistent=False)  # int64: exact
        self.register_buffer("like", torch.zeros(()), persistent=False)  # has the type in which the model computes

    def prepare(self, x: Tensor, *, generator: Generator) -> None:
        """Standardise real columns by training data; missing entries do not count."""
        if self.front is not None:
            self.front.prepare(x.flatten(1)[:, self.real], generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Units of raw data, in the type of the model, but at least float32."""
        self.event.check_shape(x)
        flat, dtype = x.flatten(1), at_least_float32(self.like).dtype
        level = (flat - self.low if flat.is_floating_point() else flat.long() - self.low).to(dtype)
        if self.front is None:
            return level
        return level.index_copy(1, self.real, self.front.middle(flat[:, self.real]).to(dtype))

    def units(self, column: int) -> tuple[Tensor, Tensor]:
        """Centre and spread of a real column in raw units, 0 and 1 of a discrete one, ``()`` each."""
        if self.front is None or self.event.columns[column].is_discrete:
            return torch.zeros_like(self.like), torch.ones_like(self.like)
        return self.front.units(int((self.real == column).nonzero()))

    def near(self, column: int, value: Tensor) -> Tensor:
        """Units of levels or real raw values of one column ``(B,)``, real ones at most `FURTHEST` from 0."""
        centre, spread = self.units(column)
        units = (value - centre) / spread
        return units if self.event.columns[column].is_discrete else units.clamp(-FURTHEST, FURTHEST)

    def raw(self, units: Tensor) -> Tensor:
        """Raw data ``(B, *event.shape)`` of type ``event.dtype``."""
        dtype = self.event.dtype
        x = (units.double().round() + self.low if dtype.is_floating_point else units.long() + self.low).to(dtype)
        if self.front is not None:
            x[:, self.real] = self.front.invert(units[:, self.real]).to(dtype)
        return x.view(-1, *self.event.shape)

    def log_derivatives(self) -> Tensor:
        """log|dy/dx| of each column, 0 for a discrete one: ``(D,)``."""
        dtype = at_least_float32(self.like).dtype
        found = torch.zeros(self.event.dims, dtype=dtype, device=self.like.device)
        return found if self.front is None else found.index_copy(0, self.real, -self.front.std.log().to(dtype))


def observed_moments(units: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column without its missing entries, 0 and 1 if it has none: ``(N, D)``.

    A constant column has a standard deviation of 1.

    >>> [m.tolist() for m in observed_moments(torch.tensor([[0.0, float("nan")], [2.0, float("nan")]]))]
    [[1.0, 0.0], [1.0, 1.0]]
    """
    units = units.double()
    mean = units.nanmean(0).nan_to_num(0.0)
    std = (units - mean).square().nanmean(0).sqrt()
    return mean, torch.where(std > 0, std, torch.ones_like(std))


def patterns(y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows ``(N,)`` of ``(B, D)`` with the same entries missing (NaN), and the numbers of the others, ``(o,)``.

    >>> [(rows.tolist(), seen.tolist()) for rows, seen in patterns(torch.tensor([[1.0, torch.nan], [2.0, 3.0]]))]
    [([0], [0]), ([1], [0, 1])]
    """
    kinds, inverse = (~y.isnan()).unique(dim=0, return_inverse=True)
    order, sizes = inverse.argsort(stable=True), inverse.bincount(minlength=len(kinds)).tolist()
    for seen, rows in zip(kinds, order.split(sizes), strict=True):
        yield rows, seen.nonzero().squeeze(1)
