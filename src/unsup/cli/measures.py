"""``unsup measures [KEY]``: the table of measures, or all about one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unsup.cli.options import Parser
from unsup.cli.show import table, write, write_json

if TYPE_CHECKING:
    from unsup.evaluate.measures import Measure


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup measures",
        description="List all measures: key for --measures, --validator and recipes, better direction, requirements, "
        "baseline (what a figure is compared with) and explanation. With KEY, explain one of them.",
    )
    parser.add_argument("key", metavar="KEY", nargs="?", help="a measure, or several: fid,kid")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse(arguments)

    from unsup.evaluate.measures import MEASURES, choose_measures

    keys = tuple(MEASURES) if options.key is None else choose_measures(options.key)
    chosen = [MEASURES[key] for key in keys]
    if options.json:
        write_json({row.key: {**row.to_json(), "needs": list(row.needs)} for row in chosen})
        return 0
    if options.key is not None:
        for row in chosen:
            write(f"{row.key}: {row.explanation}", *table(("", ""), _facts(row))[1:])
        return 0
    cells = [
        (
            *(row.key, row.title, row.better or "–", row.unit or "–", row.needs_in_words or "–", row.floor or "–"),
            row.explanation,
        )
        for row in chosen
    ]
    write(*table(("key", "measure", "better", "unit", "needs", "baseline", "explanation"), cells))
    return 0


def _facts(row: Measure) -> list[tuple[str, str]]:
    """The fields of a measure that have a value, with their names."""
    from unsup.pictures.artist import number

    low, high = row.range
    found = {
        "measure": row.title,
        "better": row.better or "neither: a cost, which decides no comparison",
        "unit": row.unit,
        "range": "" if (low, high) == (-math.inf, math.inf) else f"from {number(low)} to {number(high)}",
        "used for": row.purpose,
        "needs": row.needs_in_words,
        "baseline": row.floor,
        "command": f"unsup eval RUN --measures {row.key}",
    }
    return [(f"  {name}", value) for name, value in found.items() if value]
