"""``unsup models``: list the models, or describe some of them."""

from __future__ import annotations

from collections.abc import Sequence

from unsup.cli.options import Parser
from unsup.cli.show import table, write, write_json
from unsup.core.registry import names, row
from unsup.core.rows.record import Row


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup models",
        description="List all models: family, abilities, supported data, paper. With names: describe these models.",
    )
    parser.add_argument("names", nargs="*", metavar="MODEL", help="describe this model")
    parser.add_argument("--family", help="list this family only")
    parser.add_argument("--json", action="store_true", help="one JSON list")
    options = parser.parse(arguments)
    if options.names and options.family:
        parser.error("name models, or give --family, not both")
    rows = [row(name) for name in options.names or names(options.family)]
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
    if options.names:
        for number, r in enumerate(rows):
            write(*([""] if number else []), *_described(r))
        return 0
    cells = [
        (r.name, r.family, " ".join(r.abilities), r.events, f"{_first_author(r.paper.authors)} {r.paper.year}")
        for r in rows
    ]
    write(*table(("model", "family", "abilities", "data", "paper"), cells))
    return 0


def _described(r: Row) -> list[str]:
    papers = "; ".join(paper.reference for paper in (r.paper, *r.also))
    return [
        f"{r.name}: {r.summary}",
        f"  family: {r.family}",
        f"  abilities: {', '.join(r.abilities)}",
        f"  data: {r.events}",
        f"  papers: {papers}",
        *(f"  except: {law}: {reason}" for law, reason in r.exceptions.items()),
        f"unsup fit DATA {r.name} --help lists its options, and unsup cite {r.name} is its BibTeX.",
    ]


def _first_author(authors: str) -> str:
    """The surname, with its particles, of the first author.

    >>> _first_author("Aaron van den Oord, Nal Kalchbrenner"), _first_author("Murray Rosenblatt")
    ('van den Oord and others', 'Rosenblatt')
    """
    first, _, others = authors.partition(",")
    words = first.split()
    start = next((i for i, w in enumerate(words) if w.islower()), len(words) - 1)
    return " ".join(words[start:]) + (" and others" if others else "")
