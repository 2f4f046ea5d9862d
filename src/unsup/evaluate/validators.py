"""Validators: measures on validation examples, by which the best parameters of a run are selected."""

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
from unsup.evaluate.bench import Bench, Measuring, RealFeatures
from unsup.evaluate.conditions import is_conditioned
from unsup.evaluate.exam import Exam
from unsup.evaluate.features import choose_extractor
from unsup.evaluate.measures import MEASURES, Measure
from unsup.evaluate.probe import training_rows

NEWEST = "newest"
"""Keep the newest parameters, without a validator."""
_MOST_SAMPLES = 1000
_SAMPLES = 1


@dataclass(frozen=True)
class Judgement:
    """The value of a validator for some parameters.

    Attributes:
        value: NaN if it could not be computed.
        told: the value as text with its name or unit, or the reason why there is none.
        event: the record for the log of the run.
        likelihood: the whole record, if the validator is the likelihood.
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
        """Whether ``value`` is better than ``other``, if there is one."""
        return other is None or (value < other if self.measure.better == "lower" else value > other)

    def start(self, data: Data, watched: Split, seed: int) -> Judge:
        """A function that evaluates a model on the examples ``watched``; it keeps what all validations share."""
        bench, name = _Watching(data, watched, seed), self.name

        def judge(model: Model) -> Judgement:
            exam = Exam(bench, model)
            figures, missing = exam.figures([name])
            if missing:
                return Judgement(math.nan, missing[name], {})
            value = figures[name]["value"]
            if name != "likelihood":
                event = {"validator": name, "value": value, "better": self.measure.better}
                return Judgement(value, f"{name} {value:.4g}", event)
            found = exam.likelihood
            event = {"nats": found.nats, "bits_per_dim": found.bits_per_dim, "kind": found.kind}
            return Judgement(value, f"{found.sign} {found.bits_per_dim:.4f} bits/dim", event, found)

        return judge


def _known() -> dict[str, Measure]:
    # Coding takes long, and its bytes are the likelihood with a small gap.
    return {
        key: row
        for key, row in MEASURES.items()
        if row.better is not None and row.purpose != "cost" and "coder" not in row.needs
    }


def validators(model: Model, data: Data) -> dict[str, Validator]:
    """The validators for a model on data, by name: all measures with a better direction, except costs and coding."""
    return {key: Validator(row) for key, row in _known().items() if row.reason_against(model, data, "") is None}


def choose_validator(name: str, model: Model, data: Data) -> Validator | None:
    """The validator called ``name`` for a model on data; None to keep the newest parameters.

    ``auto`` is the model's own (``model.validator``) if it is available, else the likelihood of a model with a density,
    else none.

    Raises:
        InputError: an unknown validator, or one that is not available for this model and data.

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
    if name not in _known():
        raise InputError(f"there is no validator {name!r}{nearest(name, [*_known(), NEWEST, 'auto'])}")
    if name not in fitting:
        raise InputError(
            f"the validator {name!r} needs {MEASURES[name].needs_in_words}, which {type(model).__name__} on "
            f"{data.name or 'this data'} does not have; available: {', '.join([*fitting, NEWEST])}"
        )
    return fitting[name]


class _Watching(Bench):
    """Validation examples as the held-out examples; samples are compared with them, not with training examples."""

    intervals = False

    def __init__(self, data: Data, watched: Split, seed: int) -> None:
        self._few, self._pairs = watched, data.validation
        if len(watched) > _MOST_SAMPLES:
            rows = torch.randperm(len(watched), generator=keyed_generator(seed, _SAMPLES))[:_MOST_SAMPLES]
            self._few = watched.take(rows.sort().values)
        measuring = Measuring(samples=len(self._few), seed=seed, split="validation")
        super().__init__(replace(data, validation=watched), measuring)

    @functools.cached_property
    def real(self) -> RealFeatures:
        train = self.complete[0].take(slice(0, _MOST_SAMPLES)).x
        extractor = choose_extractor("auto", self.data.event, train)
        return RealFeatures(extractor, extractor(self.without_gaps(self._few).x), extractor(train))

    @functools.cached_property
    def probed(self) -> tuple[Split, Split]:
        train = self.complete[0].epoch(self.measuring.seed, 0)
        return train.take(training_rows(len(train), seed=self.measuring.seed)), self.without_gaps(self.test)

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        return self._pairs.x, self._pairs.streams["domain_b"].x

    def conditions(self, model: Model, n: int) -> Tensor | None:
        return self._few.given if is_conditioned(model) else None
