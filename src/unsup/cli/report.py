"""``unsup report RUN…``: one page that compares existing runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unsup.cli.compare import add_purpose, finish, found_anomalies
from unsup.cli.options import Parser, add_changed_data, add_memory
from unsup.core.errors import InputError


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup report",
        description="Measure runs of the same data on its test split and write one page that compares them.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders")
    parser.add_out("folder of the page", metavar="FOLDER", folder=True)
    parser.add_argument(
        "--anomalies", metavar="PATH", help="other data [test examples whose columns are shuffled independently]"
    )
    add_purpose(parser)
    parser.add_argument("--plain", action="store_true", help="plain progress lines even on a terminal")
    add_changed_data(parser)
    add_memory(parser)
    options = parser.parse(arguments)
    if options.out is None:
        raise InputError("there is no folder; pass one with -o FOLDER")

    from unsup.cli.scoreboard import Scoreboard
    from unsup.contest.existing import compare_runs

    with Scoreboard([str(Path(r)) for r in options.runs], plain=options.plain) as board:
        results = compare_runs(
            options.runs,
            Path(options.out),
            found_anomalies(options.anomalies),
            board.tell,
            changed_data=options.changed_data,
            moved=options.data,
            purpose=options.purpose,
        )
    finish(results, Path(options.out))
    return 0
