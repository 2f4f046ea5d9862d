"""Laws of missing entries, and of categories."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from unsup.core.event import Event
from unsup.core.model import HasDensity, LearnsByCounting, Model
from unsup.testing import grids
from unsup.testing.law import law, require
from unsup.testing.laws.autoregressive import whole
from unsup.testing.laws.densities import is_bound, is_exact
from unsup.testing.subject import Subject, learns_by_counting, log_probs

_MOST_POINTS = 2**19
_FEW = 4
_SAMPLES, _DRAWS = 16, 8  # of a bound
_NODES = 1601


def _takes_gaps(model: Model) -> bool:
    return model.event.missing and (is_exact(model) or is_bound(model))


def _patterns(event: Event) -> Iterator[tuple[list[int], Event]]:
    """Every set of observed entries but none and all, with the event of these alone, if it is small enough to sum."""
    columns = event.columns
    for size in range(1, event.dims):
        for own in itertools.combinations(range(event.dims), size):
            part = Event((size,), tuple(columns[d] for d in own), precision=event.precision)
            if part.is_discrete or (grids.is_integrable(part) and grids.points(part, _NODES) <= _MOST_POINTS):
                yield list(own), part


def _among_gaps(event: Event, own: list[int], values: Tensor) -> Tensor:
    """Examples with the values ``(N, n)`` in the entries ``own``, all others missing."""
    x = torch.full((len(values), event.dims), torch.nan, dtype=torch.float64, device=values.device)
    x[:, own] = values.flatten(1).double()
    return x.view(-1, *event.shape)


@law(
    "missing-normalised",
    "For every set of observed entries, probabilities of these sum (densities integrate) to one; a bound's to at most "
    "one.",
    needs="a likelihood that supports missing entries, and few values or at most 2 real numbers",
    applies=lambda model: _takes_gaps(model) and model.event.dims <= 6,
)
def missing_normalised(subject: Subject) -> None:
    model, event = subject.generic(), subject.model.event
    assert isinstance(model, HasDensity)
    data = whole(event, subject.batch.x)
    for own, part in _patterns(event):
        exact = is_exact(model)
        found = grids.grid(part, data[:, own], _NODES if exact else grids.FIRST_NODES)
        x = _among_gaps(event, own, found.x)
        runs = [
            log_probs(model, x, samples=_SAMPLES, generator=subject.generator(1, r))
            for r in range(1 if exact else _DRAWS)
        ]
        totals = torch.stack([(found.log_weight + log_p).exp().sum() for log_p in runs])
        total = float(totals.mean())
        tolerance = 1e-8 if exact and part.is_discrete else 2e-3  # see the law "normalised"
        if exact:
            require(abs(total - 1) <= tolerance, f"with the entries {own} observed, the total mass is {total:.9g}")
        else:
            error = grids.mean_and_error(totals)[1]
            require(total < 1 + 6 * error + tolerance, f"with the entries {own} observed, the mass is {total:.4f}")


@law(
    "missing-integrated",
    "log p with a missing entry is the logarithm of the sum or integral of p over its values.",
    needs="a likelihood that integrates over missing entries",
    applies=lambda model: _takes_gaps(model) and is_exact(model) and model.marginalises,
)
def missing_integrated(subject: Subject) -> None:
    model, event = subject.generic(), subject.model.event
    assert isinstance(model, HasDensity)
    data = whole(event, subject.batch.x)
    x = subject.batch.x[:_FEW].double()
    for d, support in enumerate(event.columns):
        gap = x.flatten(1).clone()
        gap[:, d] = torch.nan
        found = log_probs(model, gap.view(x.shape))
        values = grids.grid(Event((1,), support), data[:, [d]], 25_601)
        for row, got in zip(gap, found, strict=True):
            line = row.repeat(len(values.x), 1)
            line[:, d] = values.x[:, 0].double()
            total = (values.log_weight + log_probs(model, line.view(-1, *event.shape))).logsumexp(0)
            require(
                abs(float(got - total)) < (1e-8 if support.is_discrete else 1e-3),
                f"log p without entry {d} is {float(got):.6f}, the integral over it is {float(total):.6f}",
            )


@law(
    "categories",
    "The numbers of categories mean nothing: with other numbers a model learns the same.",
    needs="a model that learns by counting, and nominal entries",
    applies=lambda model: (
        learns_by_counting(model) and is_exact(model) and any(s.kind == "nominal" for s in model.event.columns)
    ),
)
def categories(subject: Subject) -> None:
    batch = subject.batch
    other = batch.x.flatten(1).clone()
    for d, support in enumerate(subject.model.event.columns):
        if support.kind == "nominal":
            other[:, d] = torch.where(other[:, d].isnan(), other[:, d], (other[:, d] + 1) % support.levels)
    scores = []
    for x in (batch.x, other.view_as(batch.x)):
        own = replace(batch, x=x)
        model = subject.fresh(own).double().eval()
        assert isinstance(model, LearnsByCounting)
        assert isinstance(model, HasDensity)
        with torch.no_grad():
            for _ in range(3):
                model.maximize(model.statistics(own, generator=subject.generator(1)))
        scores.append(log_probs(model, x))
    worst = float((scores[0] - scores[1]).abs().max())
    require(worst < 1e-8, f"with other numbers for the categories, log p of the same rows changes by {worst:.2g}")
