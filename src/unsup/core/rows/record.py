"""The registry entry of a model, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from unsup.core.bibtex import entry_text, latex, link_fields, venue_fields


@dataclass(frozen=True)
class Paper:
    """The publication of a method.

    Attributes:
        key: its key in BibTeX.
        authors: full names, separated by commas.
        year: of publication.
        title: as printed.
        venue: a journal with its volume and number, a conference with its year, or another place.
        link: its address.
        entry: its type in BibTeX, if the venue does not tell it: ``incollection`` for a chapter of a
            book, ``book`` for a book, whose venue is the publisher.
    """

    key: str
    authors: str
    year: int
    title: str
    venue: str
    link: str
    entry: str = ""

    @property
    def reference(self) -> str:
        return f"{self.authors} ({self.year}). {self.title}. {self.venue}. {self.link}"

    @property
    def bibtex(self) -> str:
        """The entry for BibTeX. Braces around the title keep its capital letters."""
        entry, place = venue_fields(self.venue, self.entry)
        fields = {"author": latex(self.authors.replace(", ", " and ")), "title": f"{{{latex(self.title)}}}"}
        return entry_text(entry, self.key, fields | place | {"year": str(self.year)} | link_fields(self.link))


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
