"""What the best parameters of a run are kept by: a measure of validation examples."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unsup.core.errors import InputError, nearest
from unsup.core.likelihood import Likelihood
from unsup.core.model import HasDensity, Model, keyed_generator
from unsup.data.source import Data, Split
from unsup.evaluate.bench import Bench, Measuring
from unsup.evaluate.conditions import is_conditioned
from unsup.evaluate.exam import Exam
from unsup.evaluate.features import choose_extractor
from unsup.evaluate.measures import MEASURES, Measure
from unsup.evaluate.probe import training_rows
from unsup.evaluate.samples import RealFeatures

NEWEST = "newest"
"""Not a measure: the newest parameters are kept."""
_MOST_SAMPLES = 1000
_SAMPLES = 1


@dataclass(frozen=True)
class Judgement:
    """What a validator says of some parameters.

    Attributes:
        value: the number that parameters are compared by; NaN where it cannot be had.
        told: the same for people, with its name or unit, or why it cannot be had.
        event: what the log of the run records.
        likelihood: the whole record, where the number is one.
    """

    value: float
    told: str
    event: Mapping[str, Any]
    likelihood: Likelihood | None = None


Judge = Callable[[Model], Judgement]


@dataclass(frozen=True)
class Validator:
    """A measure on validation examples."""

    measure: Measure

    @property
    def name(self) -> str:
        return self.measure.key

    def prefers(self, value: float, other: float | None) -> bool:
        """Whether ``value`` is better than ``other``, which may be none yet."""
        return other is None or (value < other if self.measure.better == "lower" else value > other)

    def start(self, data: Data, watched: Split, seed: int) -> Judge:
        """What judges a model by the examples ``watched``. What does not change between validations is kept in it."""
        row, bench = self.measure, _Watching(data, watched, seed)

        def judge(model: Model) -> Judgement:
            exam = Exam(bench, model, name=type(model).__name__)
            figures, missing = exam.figures([row.key])
            if missing:
                return Judgement(math.nan, missing[row.key], {})
            value = figures[row.key]["value"]
            if row.key == "likelihood":
                found = exam.likelihood
                event = {"nats": found.nats, "bits_per_dim": found.bits_per_dim, "kind": found.kind}
                return Judgement(value, f"{found.sign} {found.bits_per_dim:.4f} bits/dim", event, found)
            return Judgement(
                value, f"{row.key} {value:.4g}", {"validator": row.key, "value": value, "better": row.better}
            )

        return judge


def validators(model: Model, data: Data) -> dict[str, Validator]:
    """Those that fit a model on data, by name: the measures by which one model can be better than another."""
    fitting = (row for row in MEASURES.values() if row.better is not None and row.purpose != "cost")
    return {row.key: Validator(row) for row in fitting if row.reason_against(model, data, "") is None}


def choose_validator(name: str, model: Model, data: Data) -> Validator | None:
    """The validator called ``name`` for a model on data; None keeps the newest parameters.

    ``auto`` is the model's own (``model.validator``) where it fits, else the likelihood of a model with a density, else
    none.

    Raises:
        InputError: an unknown name, or one that does not fit; those that do are named.

    >>> import unsup
    >>> data = unsup.load_data("digits")
    >>> choose_validator("auto", unsup.create("vae", data.event, preset="tiny"), data).name
    'likelihood'
    """
    fitting = validators(model, data)
    if name == "auto":
        usual = "likelihood" if isinstance(model, HasDensity) else ""
        return fitting.get(model.validator) or fitting.get(usual)
    if name == NEWEST:
        return None
    known = [row.key for row in MEASURES.values() if row.better is not None and row.purpose != "cost"]
    if name not in known:
        raise InputError(f"there is no validator {name!r}{nearest(name, [*known, NEWEST, 'auto'])}")
    if name not in fitting:
        raise InputError(
            f"the validator {name!r} needs {MEASURES[name].needs_in_words}, which {type(model).__name__} on "
            f"{data.name or 'this data'} does not have; those that fit: {', '.join([*fitting, NEWEST])}"
        )
    return fitting[name]


class _Watching(Bench):
    """Validation examples as the held-out ones. Samples are compared with them, and not with training examples."""

    def __init__(self, data: Data, watched: Split, seed: int) -> None:
        self._few, self._pairs = watched, data.validation
        if len(watched) > _MOST_SAMPLES:
            rows = torch.randperm(len(watched), generator=keyed_generator(seed, _SAMPLES))[:_MOST_SAMPLES]
            self._few = watched.take(rows.sort().values)
        measuring = Measuring(samples=len(self._few), seed=seed, split="validation")
        super().__init__(replace(data, validation=watched), measuring)

    @functools.cached_property
    def real(self) -> RealFeatures:
        train = self.data.train.take(slice(0, _MOST_SAMPLES)).x
        extractor = choose_extractor("auto", self.data.event, train)
        return RealFeatures(extractor, extractor(self._few.x), extractor(train))

    @functools.cached_property
    def probed(self) -> Split:
        train = self.data.train.epoch(self.measuring.seed, 0)
        return train.take(training_rows(len(train), seed=self.measuring.seed))

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        return self._pairs.x, self._pairs.streams["domain_b"].x

    def conditions(self, model: Model, n: int) -> Tensor | None:
        """What the validation examples are given, that samples are compared with."""
        return self._few.given if is_conditioned(model) else None
