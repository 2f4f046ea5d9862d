"""Check that data has everything that a model learns from, and that settings apply, before anything is written."""

from __future__ import annotations

from unsup.core.config import options_of, shown
from unsup.core.errors import InputError
from unsup.core.model import IsConditional, Model
from unsup.data.load import load_data
from unsup.data.source import Data
from unsup.train.settings import BY_GRADIENTS, Settings, make_settings


def check_data(model: Model, data: Data) -> None:
    """Raise `InputError` unless ``data`` has the examples, streams, conditions and labels that the model needs.

    >>> import unsup
    >>> digits, moons = unsup.load_data("digits"), unsup.load_data("moons")
    >>> check_data(unsup.create("made", digits.event, preset="tiny"), moons)
    Traceback (most recent call last):
    unsup.core.errors.InputError: this MADE was built for image of 1×8×8, ordinal(17), but moons has vector of 2, \
    real; create it with event=data.event
    """
    name, owner = data.name or "this data", type(model).__name__
    own, theirs = ((event.shape, event.support, event.open) for event in (model.event, data.event))
    if own != theirs:
        raise InputError(
            f"this {owner} was built for {model.event}, but {name} has {data.event}; create it with event=data.event"
        )
    weight = data.train.weight
    if weight is not None and not bool((weight >= 0).all() & weight.isfinite().all()):
        raise InputError(f"{name} has negative or non-finite weights; expected numbers of at least 0")
    for stream in model.streams:
        if stream not in data.train.streams:
            raise InputError(f"{owner} needs a stream {stream!r}, which {name} does not have; {_stream_mend(stream)}")
    if isinstance(model, IsConditional):
        _check_condition(model, data, name, owner)
    if model.needs_labels and data.train.label is None:
        raise InputError(
            f"{owner} needs labels, but {name} has none; name their column with --label NAME (load_data(..., "
            "label=NAME)), or pass them to from_arrays"
        )
    classes = model.config.get("classes")
    if model.needs_labels and classes is not None and data.labels is not None and classes != len(data.labels):
        count = len(data.labels)
        raise InputError(f"this {owner} has {classes} classes, but {name} has {count}; create it with classes={count}")


def check_settings(model: Model, settings: Settings) -> None:
    """Raise `InputError` if settings of learning by gradients are given for a model that learns by counting.

    >>> import unsup
    >>> model = unsup.create("histogram", unsup.load_data("moons").event)
    >>> check_settings(model, Settings(lr=0.1))
    Traceback (most recent call last):
    unsup.core.errors.InputError: lr=0.1 is a setting of learning by gradients, but this Histogram learns by counting; \
    remove it
    """
    usual = make_settings(model, {})
    for name in BY_GRADIENTS:
        value = getattr(settings, name)
        if value != getattr(usual, name):
            gradients = '; remove it, or create the model with learn="gradient" (--model.learn gradient)'
            raise InputError(
                f"{name}={shown(value)} is a setting of learning by gradients, but this {type(model).__name__} learns "
                f"by counting{gradients if 'learn' in model.config else '; remove it'}"
            )


def _stream_mend(stream: str) -> str:
    if stream in options_of(load_data):
        few = ", or keep the labels of few with --labels N (labels=N)" if stream == "unlabelled" else ""
        return f"name it with --{stream.replace('_', '-')} PATH (load_data(..., {stream}=PATH)){few}"
    return f"add it to the training split: Split(x, streams={{{stream!r}: Split(...)}})"


def _check_condition(model: IsConditional, data: Data, name: str, owner: str) -> None:
    if model.given == data.given:
        if data.given is not None and data.train.given is None:
            raise InputError(f"{name} has conditions, {data.given}, but its training split has none")
        return
    if data.given is None:
        mend = "load data with conditions (load_data(..., given=...)), or create it without given"
        raise InputError(f"this {owner} is conditioned on {model.given}, but {name} has no conditions; {mend}")
    own = "was built without a condition" if model.given is None else f"is conditioned on {model.given}"
    raise InputError(
        f"this {owner} {own}, but {name} is conditioned on {data.given}; create it with given=data.given, or load the "
        "data without given"
    )
