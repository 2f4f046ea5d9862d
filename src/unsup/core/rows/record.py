"""The registry entry of a model, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Paper:
    """The publication of a method."""

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
            f"@misc{{{self.key},\n  author = {{{self.authors.replace(', ', ' and ')}}},\n  title = {{{self.title}}},\n"
            f"  year = {{{self.year}}},\n  howpublished = {{{self.venue}}},\n  url = {{{self.link}}}\n}}"
        )


@dataclass(frozen=True)
class Row:
    """One model of the registry.

    Attributes:
        name: name of the model in `create` and on the command line.
        target: ``"module:Class"``.
        family: family of the model, e.g. ``"flows"``.
        summary: one line about the model.
        abilities: commands that it supports (``score``, ``sample``, …).
        events: description of the data that it supports.
        paper: the paper of the method.
        also: other papers, from which its options come.
        exceptions: laws that it does not satisfy, with reasons.
        cases: ``"module:NAME"`` of the tuple of its law cases. None: the cases of its family in
            ``unsup.testing.cases``.
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
