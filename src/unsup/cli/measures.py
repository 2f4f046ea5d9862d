"""``unsup measures``: the table of measures."""

from __future__ import annotations

from collections.abc import Sequence

from unsup.cli.options import Parser
from unsup.cli.show import table, write, write_json


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup measures",
        description="List all measures: key for --measures, --validator and recipes, better direction, requirements, "
        "baseline (what a figure is compared with) and explanation.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse(arguments)

    from unsup.evaluate.measures import MEASURES

    if options.json:
        write_json({key: {**row.to_json(), "needs": list(row.needs)} for key, row in MEASURES.items()})
        return 0
    cells = [
        (
            *(row.key, row.title, row.better or "–", row.unit or "–", row.needs_in_words or "–", row.floor or "–"),
            row.explanation,
        )
        for row in MEASURES.values()
    ]
    write(*table(("key", "measure", "better", "unit", "needs", "baseline", "explanation"), cells))
    return 0
