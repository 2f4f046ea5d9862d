"""Law cases, and the seeded data for their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.model import Model, keyed_generator
from unsup.core.registry import create, model_class
from unsup.testing.check import MOST_EXAMPLES, Report, check_model
from unsup.testing.subject import Oracle

MIXED = Event((3,), (REAL, Support("ordinal", 4), BINARY))
"""A table of a real, an ordinal and a binary column."""
WORDS = Event((3,), (Support("nominal", 3), REAL, Support("ordinal", 18, low=-4)))
"""A table of categories, of real numbers and of many whole numbers."""
GAPS = replace(WORDS, missing=True)
"""The same with missing entries."""
_MISSING = 0.2  # fraction of entries, independent of each other


@dataclass(frozen=True)
class Case:
    """One model at tiny size.

    Attributes:
        model: its registry name.
        event: event of one example.
        options: options that override the preset ``tiny``.
        classes: number of classes of the labels; 0 for data without labels.
        exceptions: laws that do not hold for this case, with reasons.
        oracle: independent computation of log p(x), ``oracle(model, x, data)``; see the law ``oracle``.
        beside: additional options that are not in the name of the case, since they were part of the preset originally.
    """

    model: str
    event: Event
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 0
    exceptions: Mapping[str, str] = field(default_factory=dict)
    oracle: Oracle | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)

    def build(self, seed: int = 0) -> Model:
        return create(self.model, self.event, preset="tiny", seed=seed, **{**self.beside, **self.options})

    def data(self, seed: int = 0) -> Batch:
        """Examples of the event, with labels, conditions and the additional streams that the model reads."""
        found = examples(self.event, MOST_EXAMPLES, classes=self.classes, seed=seed)
        given = self.options.get("given")
        if found.given is None and given is not None:
            found = replace(found, given=examples(given, MOST_EXAMPLES, seed=seed + 2).x)
        streams = {
            name: examples(self.event, each * MOST_EXAMPLES, seed=seed + number)
            for number, (name, each) in enumerate(model_class(self.model).streams.items(), start=1)
        }
        return replace(found, streams=streams)

    def check(self, *, laws: tuple[str, ...] | None = None, seed: int = 0) -> Report:
        return check_model(
            self.build(seed),
            self.data(seed),
            laws=laws,
            seed=seed,
            exceptions=self.exceptions,
            oracle=self.oracle,
            title=str(self),
        )

    def __str__(self) -> str:
        options = ", ".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.model}({options}) on {self.event}"


def examples(event: Event, n: int, *, classes: int = 0, seed: int = 0) -> Batch:
    """Examples of any event from a seeded distribution with dependent, skewed, bimodal entries.

    Every entry is a mix of two Gaussian factors and a class effect; real entries get their own location and scale,
    discrete entries are binned into levels. Classes, if any, are the labels and the conditions. If entries may be
    missing, a fifth of them is, at random. Lengths of an open axis are random, and the padding is not constant.
    """
    generator = keyed_generator(seed, n)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    dims = event.dims
    factors, label = normal(n, 2), torch.randint(max(classes, 1), (n,), generator=generator)
    y = factors @ normal(2, dims) + factors[:, :1].sign() + 0.5 * normal(n, dims) + normal(max(classes, 1), dims)[label]
    location, scale = normal(dims), (0.5 * normal(dims)).exp()
    columns = []
    for d, support in enumerate(event.columns):
        if support.is_discrete:
            unit = torch.special.ndtr(y[:, d] / y[:, d].std())
            columns.append((unit * support.levels).floor().clamp(max=support.levels - 1) + support.low)
        else:
            columns.append(3 * location[d] + scale[d] * y[:, d])
    x = torch.stack(columns, 1).view(n, *event.shape).to(event.dtype)
    if event.missing:
        x[torch.rand(x.shape, generator=generator) < _MISSING] = torch.nan
    if event.open:
        found = Batch(x, lengths=torch.randint(event.shape[0] + 1, (n,), generator=generator))
        return replace(found, label=label, given=label) if classes else found
    return Batch(x, label, label) if classes else Batch(x)


def vector(dims: int, support: Support = BINARY) -> Event:
    """The event of ``dims`` entries with one support."""
    return Event((dims,), support)


def ordinal(levels: int) -> Support:
    """``levels`` ordered numbers from 0."""
    return Support("ordinal", levels)
