"""Models by name: which there are, which fit some data, and how they are built."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from unsup.core.errors import InputError, nearest
from unsup.core.event import Event
from unsup.core.rows import register, rows
from unsup.core.rows.record import Paper, Row

if TYPE_CHECKING:
    from unsup.core.model import Model

__all__ = ["Paper", "Row", "create", "fitting", "load", "model_class", "name_of", "names", "register", "row", "rows"]


def row(name: str) -> Row:
    """The registry row of ``name``; an unknown name is an `InputError` that offers the nearest one."""
    if name not in rows():
        raise InputError(f"there is no model {name!r}{nearest(name, rows())} (unsup models lists them all)")
    return rows()[name]


def names(family: str | None = None) -> tuple[str, ...]:
    """Names of all models, or of one family."""
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
    """The registry row of a model class, or None where it has none."""
    target = f"{cls.__module__}:{cls.__qualname__}"
    return next((found for found in rows().values() if found.target == target), None)


def name_of(cls: type[Model]) -> str:
    """The registry name of a model class."""
    found = row_of(cls)
    if found is None:
        raise InputError(
            f"{cls.__name__} is not in the registry, so it has no name to save it under; add its row (unsup.register)"
        )
    return found.name


def fitting(event: Event) -> tuple[str, ...]:
    """Names of the models that take ``event``."""
    return tuple(n for n in names() if model_class(n).refusal(event) is None)


def load(folder: str) -> Model:
    """The model in a folder written by ``model.save`` or by `unsup.fit` (its best checkpoint), in evaluation mode.

    Raises:
        InputError: there is none, or it is damaged.

    >>> import tempfile, unsup
    >>> folder = tempfile.mkdtemp()
    >>> unsup.create("histogram", unsup.load_data("digits").event).save(folder)
    >>> type(unsup.load(folder)).__name__
    'Histogram'
    """
    from unsup.core.storage import load_model

    return load_model(folder)


def create(name: str, event: Event, *, preset: str | None = None, seed: int = 0, **options: Any) -> Model:
    """Build a model by name.

    Args:
        name: a registry name, e.g. ``"made"``.
        event: what one example is, e.g. ``data.event``.
        preset: ``"tiny"``, ``"paper"``, or None for the default size.
        seed: of the initial parameters. The global generator is left as it was.
        **options: the model's own options, over the preset's.

    Raises:
        InputError: unknown name, preset or option (the nearest is named), an event the model does not take (those
            that take it are named), or a model larger than memory (`unsup.core.memory.limit`).

    >>> import unsup
    >>> data = unsup.load_data("digits")
    >>> unsup.create("made", data.event, hidden=(32,)).config["hidden"]
    (32,)
    """
    import torch

    from unsup.core.building import bounded, check_size
    from unsup.core.random import manual_seed

    cls = model_class(name)
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
