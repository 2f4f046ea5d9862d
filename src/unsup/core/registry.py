"""Which models there are: rows of plain data, read without importing torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unsup.core.errors import InputError, nearest
from unsup.core.event import Event

if TYPE_CHECKING:
    from unsup.core.model import Model


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    key: str
    authors: str
    year: int
    title: str
    venue: str
    link: str

    @property
    def reference(self) -> str:
        return f"{self.authors} ({self.year}). {self.title}. {self.venue}. {self.link}"

    @property
    def bibtex(self) -> str:
        return (
            f"@misc{{{self.key},\n  author = {{{self.authors}}},\n  title = {{{self.title}}},\n"
            f"  year = {{{self.year}}},\n  howpublished = {{{self.venue}}},\n  url = {{{self.link}}}\n}}"
        )


@dataclass(frozen=True)
class Row:
    """One model of the registry.

    Attributes:
        name: what `create` and the command line call it.
        target: ``"module:Class"``.
        family: the folder under ``unsup.families``.
        summary: one line.
        abilities: what it can do, in words of the command line (``score``, ``sample``, …).
        events: the data it takes, in words.
        paper: the paper whose method it is.
        also: further papers its options come from.
        exceptions: laws it does not keep, each with its reason.
    """

    name: str
    target: str
    family: str
    summary: str
    abilities: tuple[str, ...]
    events: str
    paper: Paper
    also: tuple[Paper, ...] = ()
    exceptions: Mapping[str, str] = field(default_factory=dict)


def row(name: str) -> Row:
    """The registry row of ``name``; an unknown name is an `InputError` that offers the nearest one."""
    from unsup.families import ROWS

    if name not in ROWS:
        raise InputError(f"there is no model {name!r}{nearest(name, ROWS)} (unsup models lists them all)")
    return ROWS[name]


def names(family: str | None = None) -> tuple[str, ...]:
    """Names of all models, or of one family."""
    from unsup.families import ROWS

    families = {r.family for r in ROWS.values()}
    if family is not None and family not in families:
        raise InputError(f"there is no family {family!r}{nearest(family, families)}")
    return tuple(n for n, r in ROWS.items() if family in (None, r.family))


def model_class(name: str) -> type[Model]:
    """The class behind ``name`` (this imports torch)."""
    module, _, attribute = row(name).target.partition(":")
    found: type[Model] = getattr(importlib.import_module(module), attribute)
    return found


def name_of(cls: type[Model]) -> str:
    """The registry name of a model class."""
    from unsup.families import ROWS

    target = f"{cls.__module__}:{cls.__qualname__}"
    for name, found in ROWS.items():
        if found.target == target:
            return name
    raise InputError(f"{cls.__name__} is not in the registry, so it has no name to save it under; add its row")


def fitting(event: Event) -> tuple[str, ...]:
    """Names of the models that take ``event``."""
    return tuple(n for n in names() if model_class(n).reason_against(event) is None)


def create(name: str, event: Event, *, preset: str | None = None, seed: int = 0, **options: Any) -> Model:
    """Build a model by name.

    Args:
        name: a registry name, e.g. ``"made"``.
        event: what one example is, e.g. ``data.event``.
        preset: ``"tiny"``, ``"paper"``, or None for the default size.
        seed: of the initial parameters. The global generator is left as it was.
        **options: the model's own options, over the preset's.

    Raises:
        InputError: unknown name, preset or option (the nearest is named), or an event the model does not take
            (those that take it are named).

    >>> import unsup
    >>> data = unsup.load_data("digits")
    >>> unsup.create("made", data.event, hidden=(32,)).config["hidden"]
    (32,)
    """
    import torch

    cls = model_class(name)
    reason = cls.reason_against(event)
    if reason is not None:
        others = ", ".join(fitting(event)) or "none"
        raise InputError(f"{name} {reason}; this data is {event}; models that take it: {others}")
    if preset is not None and preset not in cls.presets:
        raise InputError(f"{name} has no preset {preset!r}{nearest(preset, cls.presets)}")
    chosen = dict(cls.presets[preset]) if preset else {}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return cls(event, **(chosen | options))
