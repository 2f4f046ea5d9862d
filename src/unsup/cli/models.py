"""``unsup models``: list the models."""

from __future__ import annotations

from collections.abc import Sequence

from unsup.cli.options import Parser
from unsup.cli.show import table, write, write_json
from unsup.core.registry import names, row


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="unsup models", description="List all models: family, abilities, supported data, paper.")
    parser.add_argument("--family", help="list this family only")
    parser.add_argument("--json", action="store_true", help="one JSON list")
    options = parser.parse(arguments)
    rows = [row(name) for name in names(options.family)]
    if options.json:
        write_json(
            [
                {
                    "name": r.name,
                    "family": r.family,
                    "summary": r.summary,
                    "abilities": list(r.abilities),
                    "events": r.events,
                    "paper": r.paper.reference,
                    "exceptions": dict(r.exceptions),
                }
                for r in rows
            ]
        )
        return 0
    cells = [
        (r.name, r.family, " ".join(r.abilities), r.events, f"{_first_author(r.paper.authors)} {r.paper.year}")
        for r in rows
    ]
    write(*table(("model", "family", "abilities", "data", "paper"), cells))
    return 0


def _first_author(authors: str) -> str:
    """The surname, with its particles, of the first author.

    >>> _first_author("Aaron van den Oord, Nal Kalchbrenner"), _first_author("Murray Rosenblatt")
    ('van den Oord and others', 'Rosenblatt')
    """
    first, _, others = authors.partition(",")
    words = first.split()
    start = next((i for i, w in enumerate(words) if w.islower()), len(words) - 1)
    return " ".join(words[start:]) + (" and others" if others else "")
