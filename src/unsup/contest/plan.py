"""The models of a comparison, their settings, and their shares of the time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unsup.core import words
from unsup.core.commands import data_words, flags, path_word
from unsup.core.config import Count, Positive
from unsup.core.errors import InputError
from unsup.core.escapes import command_line
from unsup.core.event import Event
from unsup.core.model import Colours, LearnsByCounting, Model, Translates
from unsup.core.registry import create, model_class, names, row
from unsup.evaluate.records import Purpose

TRAINING_SHARE = 0.65
"""The share of the minutes for training; the rest is for measuring and drawing."""
_LEAST_SECONDS = 10  # of training; below that, only one model per family is trained
_PATIENCE = 8  # validations without improvement, of twenty in a run
_EXAMPLES_A_MINUTE, _FEWEST, _MOST = 100, 500, 10_000


@dataclass(frozen=True)
class Asked:
    """The request of a comparison."""

    data: str
    data_options: dict[str, Any]
    minutes: Positive
    models: tuple[str, ...] = ()
    seeds: Count = 1
    anomalies: str | None = None

    def words(self, folder: Path, purpose: Purpose | None, *, changed_data: bool = False) -> list[str]:
        """The words after ``unsup`` of the command that makes it in ``folder``."""
        words = ["compare", *data_words({"name": self.data, "options": self.data_options})]
        words += ["--minutes", f"{self.minutes:g}"]
        words += flags({"models": ",".join(self.models) or None, "seeds": self.seeds if self.seeds > 1 else None})
        words += flags({"anomalies": self.anomalies, "for": purpose, "changed-data": changed_data or None})
        return [*words, "-o", path_word(folder)]

    def command(self, folder: Path, purpose: Purpose | None, *, changed_data: bool) -> str:
        return command_line(["unsup", *self.words(folder, purpose, changed_data=changed_data)])


@dataclass(frozen=True)
class Entry:
    """A model of a comparison with its options and its settings of training; ``counts``: it learns by counting."""

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    counts: bool = False

    @property
    def family(self) -> str:
        return row(self.model).family


def contestants(
    event: Event, examples: int, models: tuple[str, ...] = (), minutes: float = math.inf
) -> tuple[list[Entry], dict[str, str]]:
    """The models for ``event`` and the budget, and why other models of the default selection are not included.

    Args:
        examples: in the training split.
        models: names that the user requested, in this order; empty for the default selection.
        minutes: for each seed. If a model would get less than ten seconds of training, only one per family is trained.

    Raises:
        InputError: a name is unknown or given twice, or a requested model, or every model, does not support the data.

    >>> from unsup import Event, Support
    >>> entries, left_out = contestants(Event((2,), Support("real")), 1000)
    >>> [e.model for e in entries][:3], sorted(left_out)
    (['histogram', 'gaussian-mixture', 'made'], ['pixelcnn', 'rbm'])
    """
    if len(set(models)) < len(models):
        twice = next(m for m in models if models.count(m) > 1)
        raise InputError(f"--models names {twice} {models.count(twice)} times; name each model once (--seeds repeats)")
    left_out = {}
    chosen = []
    for name in models or _usual(event, examples):
        try:
            chosen.append(_entry(name, event, examples, asked=bool(models)))
        except _Unfit as error:
            if models:
                raise InputError(f"{name} {error}; this data is {event}; remove {name} from --models") from error
            left_out[name] = str(error)
    if not chosen:
        raise InputError(f"no model supports this data ({event}); unsup models lists what each supports")
    learners = [e for e in chosen if not e.counts]
    each = 60 * TRAINING_SHARE * minutes / max(1, len(learners))
    if not models and each < _LEAST_SECONDS:
        for entry in learners:
            first = next(e for e in learners if e.family == entry.family)
            if entry is not first and _turn(entry.model, event, examples) != 1:
                chosen.remove(entry)
                left_out[entry.model] = (
                    f"with it, each model would have less than {_LEAST_SECONDS} s; {first.model} represents its family"
                )
    return sorted(chosen, key=lambda e: not e.counts), left_out


class _Unfit(Exception):
    """Why a model is not included, in one clause."""


def _turn(name: str, event: Event, examples: int) -> int | None:
    return model_class(name).advice(event, examples).turn


def _needs_two_domains(cls: type[Model]) -> bool:
    return issubclass(cls, Translates) and not issubclass(cls, Colours)


def _usual(event: Event, examples: int) -> list[str]:
    """The default selection: family after family, each in the order of the turns."""
    families = list(dict.fromkeys(row(name).family for name in names()))
    single = [name for name in names() if not _needs_two_domains(model_class(name))]
    turns = {name: _turn(name, event, examples) for name in single}
    usual = [(families.index(row(name).family), turn, name) for name, turn in turns.items() if turn is not None]
    return [name for *_, name in sorted(usual, key=lambda one: one[:2])]


def _entry(name: str, event: Event, examples: int, *, asked: bool) -> Entry:
    cls = model_class(name)
    if _needs_two_domains(cls):
        raise _Unfit("learns from two domains, which a comparison does not have")
    advice = cls.advice(event, examples)
    reason = cls.refusal(event) or (None if asked else advice.against)
    if reason is not None:
        raise _Unfit(reason)
    model = create(name, event, **advice.options)
    if model.streams:
        raise _Unfit(f"learns from further streams ({', '.join(model.streams)}), which a comparison does not have")
    counting = isinstance(model, LearnsByCounting) and model.passes > 0
    training = dict(advice.training)
    if not counting:
        training |= {"patience": _PATIENCE, "validation_limit": 1000}
    return Entry(name, dict(advice.options), training, counting)


def counted(minutes: float | None, available: int) -> int:
    """The number of test examples, and of samples, to measure: a hundred per minute, from 500 to 10,000.

    >>> counted(20, 10_000), counted(4, 360), counted(None, 10_000)
    (2000, 360, 10000)
    """
    asked = _MOST if minutes is None else min(max(round(_EXAMPLES_A_MINUTE * minutes), _FEWEST), _MOST)
    return min(asked, available)


def in_words(entries: list[Entry], minutes: float, seeds: int) -> str:
    """How the time is shared, in sentences."""
    learners = sum(not e.counts for e in entries)
    over = f", over {seeds} seeds" if seeds > 1 else ""
    learn = "model that learns by gradients has" if learners == 1 else "models that learn by gradients share"
    rest = f" The {learners if learners > 1 else 'one'} {learn} the rest of it{' equally' * (learners > 1)}{over}."
    counting = "Models that learn by counting are trained first, each for at most an equal share of it."
    return (
        f"Of {words.counted(minutes, 'minute')} {TRAINING_SHARE:.0%} are for training and the rest for measuring. "
        f"{counting}{rest if learners else ''} "
        "A model that no longer improves on validation stops early, and no other model gets its time. The parameters "
        "with the best validation likelihood are kept; the test split is read by the measurements only."
    )
