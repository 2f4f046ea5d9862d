"""Who takes part in a contest, with which settings, and how the minutes are shared."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import LearnsByCounting
from unsup.core.registry import create, model_class, row

TRAINING_SHARE = 0.65
"""Of the minutes; the rest is for measuring and drawing."""
_ORDER = (
    "histogram",
    "gaussian-mixture",
    "made",
    "pixelcnn",
    "realnvp",
    "vae",
    "gan",
    "rbm",
    "score-matching",
)
"""One or two models a family, those that learn by counting first, since they leave most of their time to the others."""
_SMALL = 10_000  # training examples below which nets of many parameters are regularised
_MOST_OUTPUTS = 50_000  # of MADE's last layer: entries × levels
_LEAST_SECONDS = 10  # of training, below which there is one model a family
_PATIENCE = 8  # of the twenty validations of a run
_EXAMPLES_A_MINUTE, _FEWEST, _MOST = 100, 500, 10_000


@dataclass(frozen=True)
class Entry:
    """A model that takes part, as it is built and trained."""

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    counts: bool = False

    @property
    def family(self) -> str:
        return row(self.model).family

    def to_json(self) -> dict[str, Any]:
        return {"model": self.model, "options": self.options, "training": self.training, "counts": self.counts}


def contestants(
    event: Event, examples: int, models: tuple[str, ...] = (), minutes: float = math.inf
) -> tuple[list[Entry], dict[str, str]]:
    """The models for ``event`` and the budget, and why others of the usual field were left out.

    Args:
        examples: in the training split.
        models: names that the user asked for, in their order; none for the usual field.
        minutes: for each seed. Where they would leave a model less than ten seconds of training, one a family learns.

    Raises:
        InputError: an unknown name, one given twice, a model that asked for cannot take the data, or none can.

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
    for name in models or _ORDER:
        reason = _reason_against(name, event, asked=bool(models))
        if reason is None:
            chosen.append(_entry(name, event, examples))
        else:
            left_out[name] = reason
    if models and left_out:
        name, reason = next(iter(left_out.items()))
        raise InputError(f"{name} {reason}; this data is {event}; leave {name} out of --models")
    if not chosen:
        raise InputError(f"no model takes this data ({event}); unsup models tells what each takes")
    learners = [e for e in chosen if not e.counts]
    each = 60 * TRAINING_SHARE * minutes / max(1, len(learners))
    if not models and each < _LEAST_SECONDS:
        for entry in learners:
            first = next(e for e in learners if e.family == entry.family)
            if entry is not first:
                chosen.remove(entry)
                left_out[entry.model] = f"would leave less than {_LEAST_SECONDS} s for each, and {first.model} is there"
    return sorted(chosen, key=lambda e: not e.counts), left_out


def _reason_against(name: str, event: Event, *, asked: bool) -> str | None:
    if "translate" in row(name).abilities:
        return "learns from two domains, which a comparison has not"
    reason = model_class(name).refusal(event)
    if reason is not None or asked:
        return reason
    levels = max((s.levels for s in event.columns), default=0)
    if name == "made" and event.is_discrete and event.dims * levels > _MOST_OUTPUTS:
        return f"would have {event.dims * levels:,} outputs, one for each level of each entry, and be too slow here"
    if name in ("gan", "score-matching") and event.layout not in ("vector", "image"):
        return "is for vectors and images"
    return None


def _entry(name: str, event: Event, examples: int) -> Entry:
    options, training = _settings(name, event, examples)
    counting = isinstance(model := create(name, event, **options), LearnsByCounting) and model.passes > 0
    if not counting:
        training |= {"patience": _PATIENCE, "validation_limit": 1000}
    return Entry(name, options, training, counting)


def _settings(name: str, event: Event, examples: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options and training settings where the model's own defaults are not the best guess for unknown data."""
    small = examples < _SMALL
    match name:
        case "gaussian-mixture" if event.is_image or event.dims > 64:
            most = max(1, examples // 10)
            return {"covariance": "diagonal", "components": min(80 if event.is_image else 20, most), "floor": 1e-2}, {}
        case "gaussian-mixture":
            return {"components": min(10, max(1, examples // 10)), "floor": 1e-3}, {}
        case "made" if small:
            width = 512 if event.dims > 16 else 128
            options = {"hidden": (width,), "masks": 8, "order": "random", "direct": False, "dropout": 0.3}
            return options, {"weight_decay": 0.1, "ema": 0.99}
        case "realnvp" if event.layout == "vector" and small:
            return {"hidden": (64, 64)}, {"ema": 0.99, "weight_decay": 0.1}
        case "pixelcnn" | "realnvp" | "made":
            return {}, {"ema": 0.99}
        case "vae":
            return {"latent_dim": max(2, min(16, event.dims // 2))} if event.dims <= 64 else {}, {"ema": 0.99}
        case _:
            return {}, {}


def counted(minutes: float | None, available: int) -> int:
    """How many test examples, and samples, are measured: a hundred a minute, from 500 to 10,000.

    >>> counted(20, 10_000), counted(4, 360), counted(None, 10_000)
    (2000, 360, 10000)
    """
    asked = _MOST if minutes is None else min(max(round(_EXAMPLES_A_MINUTE * minutes), _FEWEST), _MOST)
    return min(asked, available)


def in_words(entries: list[Entry], minutes: float, seeds: int) -> str:
    """How the minutes are shared, for people."""
    learners = sum(not e.counts for e in entries)
    split = "" if seeds == 1 else f" among themselves and {seeds} seeds"
    return (
        f"Of {minutes:g} minutes {TRAINING_SHARE:.0%} are for training and the rest for measuring. Models that learn "
        f"by counting go first and take what they need; the {learners} that learn by gradients then share what is left "
        f"of the training time equally{split}. A model that stops gaining on validation ends early and its time is "
        "given to nobody. The parameters with the best validation likelihood are kept; the test split is read "
        "only by the measurements."
    )
