"""Models by name: list them, find those that support some data, and build them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from unsup.core.config import Seed, check_value, options_of
from unsup.core.errors import InputError, kind_of, nearest
from unsup.core.event import Described, Event
from unsup.core.rows import register, rows
from unsup.core.rows.record import Paper, Row

if TYPE_CHECKING:
    from unsup.core.model import Model

__all__ = ["Paper", "Row", "create", "fitting", "load", "model_class", "name_of", "names", "register", "row", "rows"]


def row(name: str) -> Row:
    """The registry row of ``name``; an unknown name is an `InputError` that suggests the nearest one."""
    if name not in rows():
        raise InputError(f"there is no model {name!r}{nearest(name, rows())} (unsup models lists all models)")
    return rows()[name]


def names(family: str | None = None) -> tuple[str, ...]:
    """Names of all models, or of the models of one family."""
    families = {r.family for r in rows().values()}
    if family is not None and family not in families:
        raise InputError(f"there is no family {family!r}{nearest(family, families)}")
    return tuple(n for n, r in rows().items() if family in (None, r.family))


def model_class(name: str) -> type[Model]:
    """The class behind ``name`` (this imports torch)."""
    module, _, attribute = row(name).target.partition(":")
    found: type[Model] = getattr(importlib.import_module(module), attribute)
    return found


def row_of(cls: type[Model]) -> Row | None:
    """The registry row of a model class, or None if it has none."""
    target = f"{cls.__module__}:{cls.__qualname__}"
    return next((found for found in rows().values() if found.target == target), None)


def name_of(cls: type[Model]) -> str:
    """The registry name of a model class."""
    found = row_of(cls)
    if found is None:
        raise InputError(
            f"{cls.__name__} is not in the registry and has no name to save it under; add its row (unsup.register)"
        )
    return found.name


def fitting(event: Event) -> tuple[str, ...]:
    """Names of the models that support ``event``."""
    return tuple(n for n in names() if model_class(n).refusal(event) is None)


def load(folder: str) -> Model:
    """Load the model in a folder of ``model.save`` or `unsup.fit` (its best checkpoint), in evaluation mode.

    Raises:
        InputError: the folder has no model, or a damaged one.

    >>> import tempfile, unsup
    >>> folder = tempfile.mkdtemp()
    >>> unsup.create("histogram", unsup.load_data("digits").event).save(folder)
    >>> type(unsup.load(folder)).__name__
    'Histogram'
    """
    from unsup.core.storage import load_model

    return load_model(folder)


def create(name: str, event: Event | Described, *, preset: str | None = None, seed: int = 0, **options: Any) -> Model:
    """Build a model by name.

    Args:
        name: a registry name, e.g. ``"made"``.
        event: data, or the description of one example, e.g. ``data.event``. If data has conditions, the model is
            conditioned on them if it can be; a classifier has the classes of its labels.
        preset: ``"tiny"``, ``"paper"``, or None for the default size.
        seed: seed of the initial parameters. The global generator is not changed.
        ***options: options of the model; they override those of the preset.

    Raises:
        InputError: unknown name, preset or option (the message suggests the nearest), an event that the model does not
            support (the message lists models that do), or a model larger than memory (`unsup.core.memory.limit`).

    >>> import unsup
    >>> data = unsup.load_data("digits")
    >>> unsup.create("made", data, hidden=(32,)).config["hidden"]
    (32,)
    """
    import torch

    from unsup.core.building import bounded, check_size
    from unsup.core.model import IsConditional
    from unsup.core.random import manual_seed

    if not isinstance(name, str):
        raise InputError(
            f'create was given {kind_of(name)} for the name of a model; expected unsup.create("made", data)'
        )
    cls = model_class(name)
    if isinstance(event, Described):
        if event.given is not None and issubclass(cls, IsConditional):
            options = {"given": event.given} | options
        if event.labels is not None and cls.needs_labels and "classes" in options_of(cls.__init__):
            options = {"classes": len(event.labels)} | options
        event = event.event
    if not isinstance(event, Event):
        raise InputError(
            f"create was given {kind_of(event)} for the data; expected data or the event of one example: "
            f"unsup.create({name!r}, unsup.load_data(x)) for an array, a name or a path x"
        )
    seed = check_value("seed", seed, Seed)
    check_size(event)
    reason = cls.refusal(event)
    if reason is not None:
        others = ", ".join(fitting(event)) or "none"
        raise InputError(f"{name} {reason}; this data is {event}; models that take it: {others}")
    if preset is not None and preset not in cls.presets:
        raise InputError(f"{name} has no preset {preset!r}{nearest(preset, cls.presets)}")
    chosen = dict(cls.presets[preset]) if preset else {}
    chosen |= options
    with torch.random.fork_rng(devices=[]), bounded(name, chosen):
        manual_seed(torch.default_generator, seed)
        return cls(event, **chosen)
