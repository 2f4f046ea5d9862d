"""What the registry knows of a model, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
        family: what it belongs to, e.g. ``"flows"``.
        summary: one line.
        abilities: what it can do, in words of the command line (``score``, ``sample``, …).
        events: the data it takes, in words.
        paper: the paper whose method it is.
        also: further papers its options come from.
        exceptions: laws it does not keep, each with its reason.
        cases: ``"module:NAME"`` of the tuple of its law cases. None: those of ``unsup.testing.cases`` for its family.
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
    cases: str | None = None
