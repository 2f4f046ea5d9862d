"""``unsup compare DATA``: which model for my data? Models trained within a time budget and measured, on one page."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unsup.cli.options import DATA_OPTIONS, Parser, add_data, add_memory, chosen
from unsup.cli.show import table, write, write_if_heard
from unsup.core.commands import path_word
from unsup.core.config import Positive, Within
from unsup.core.errors import InputError
from unsup.core.escapes import command_line
from unsup.core.signals import signals_to
from unsup.core.words import counted
from unsup.data.catalog import CODES

if TYPE_CHECKING:
    from unsup.evaluate.records import Results

PURPOSES = ("density", "samples", "anomalies", "features", "compression", "classes")
_MINUTES, _MOST_SEEDS = 20.0, 100
_UNUSED = ("domain_b", "unlabelled", "labels", "label_seed", "given")  # models of p(x) are compared
_KINDS = {"exact": "= exact", "bound": "≤ a bound, which may hide a better model", "estimate": "≈ an estimate"}


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup compare",
        usage="unsup compare DATA -o FOLDER [options]",
        description="Train the models that suit the data for equal times, measure them on the test split, and "
        "write one page: likelihoods, samples, anomalies, features, sizes, speed. Run it again to resume it.",
    )
    parser.add_argument("data", metavar="DATA", nargs="?", help="a data set's name or a path (unsup data)")
    parser.add_out("folder of the runs and the page", metavar="FOLDER", folder=True)
    parser.add_number("--minutes", Positive, f"for the whole comparison [{_MINUTES:g}]", metavar="X")
    parser.add_argument(
        "--models", metavar="NAMES", help="names separated by commas [one or two per family that suit the data]"
    )
    parser.add_number("--seeds", Annotated[int, Within(1, _MOST_SEEDS)], "number of runs of each model [1]")
    parser.add_argument(
        "--anomalies",
        metavar="PATH",
        help="other data, or class:NAME, a class that is left out of training [test examples whose columns are "
        "shuffled independently]",
    )
    add_purpose(parser)
    parser.add_argument("--plain", action="store_true", help="plain progress lines even on a terminal")
    add_data(parser, arguments, skip=_UNUSED)
    add_memory(parser)
    options = parser.parse(arguments)
    if options.out is None:
        raise InputError("there is no folder; pass one with -o FOLDER")

    from unsup.cli.scoreboard import Scoreboard
    from unsup.contest.contest import Contest

    changed = bool(getattr(options, "changed_data", False))
    contest = Contest(Path(options.out), _asked(options), changed_data=changed, purpose=options.purpose)
    write(contest.data.describe())
    for note in contest.data.notes:
        write(note)
    write(f"{', '.join(e.model for e in contest.entries)}; {counted(contest.asked.minutes, 'minute')} in all")
    with Scoreboard(contest.names, plain=options.plain) as board, signals_to(_stop, "SIGTERM", "SIGHUP"):
        try:
            results: Results | None = contest.run(board.tell)
        except KeyboardInterrupt as stop:
            results, number = None, stop.args[0] if stop.args else signal.SIGINT
    if results is None:
        again = command_line(["unsup", "compare", "-o", path_word(options.out)])
        write_if_heard(f"stopped and saved; resume with:  {again}")
        return 128 + int(number)
    finish(results, Path(options.out))
    if not any(c["runs"] for c in results["contestants"]):
        raise InputError("every model failed; the page shows the reasons")
    return 0


def _stop(number: int, frame: object) -> None:
    """SIGTERM and SIGHUP stop the measuring like Ctrl-C."""
    raise KeyboardInterrupt(number)


def add_purpose(parser: Parser) -> None:
    """The flag ``--for``, which orders table, sentences and next commands."""
    parser.add_argument(
        "--for",
        dest="purpose",
        choices=PURPOSES,
        metavar="PURPOSE",
        help=f"purpose of the models: {', '.join(PURPOSES)}; its figures come first [no preference]",
    )


def finish(results: Results, folder: Path) -> None:
    """Print the table with its legend, the outcome, and the path of the page."""
    from unsup.report.export import terminal_table

    header, rows = terminal_table(results)
    write(*table(header, rows, right=range(2, len(header))))
    figures = [
        m["figures"]["likelihood"] for c in results["contestants"] for m in c["runs"] if "likelihood" in m["figures"]
    ]
    kinds = {f["detail"]["kind"] for f in figures}
    said = "; ".join(text for kind, text in _KINDS.items() if kind in kinds)
    about = f"test split, {counted(results['examples'], 'example')}, ± one standard error"
    write(f"{about}{'; ' if said else ''}{said}", "", *(f"- {line}" for line in results["summary"]), "")
    width = max((len(n["what"]) for n in results["next"]), default=0)
    write(*(f"{n['what'] + ':':<{width + 1}}  {n['command']}" for n in results["next"]))
    write("", f"page: {folder / 'index.html'}  ({results['seconds'] / 60:.1f} minutes)")


def found_anomalies(asked: str | None) -> str | None:
    """The source of anomalies: a name, an absolute path (valid in any folder) or a class."""
    from unsup.data.load import full_name
    from unsup.evaluate.bench import HELD_OUT_CLASS

    return asked if asked is None or asked.startswith(HELD_OUT_CLASS) else full_name(asked)


def _asked(options: Any) -> Any:
    """The request, or None if only a folder is given: then its comparison is resumed."""
    from unsup.contest.contest import contest_in
    from unsup.contest.plan import Asked
    from unsup.core.registry import row
    from unsup.data.load import full_name

    data_options = {k: list(v) if isinstance(v, tuple) else v for k, v in chosen(options, DATA_OPTIONS).items()}
    if options.data is None or not options.data.startswith(CODES):
        data_options.pop("changed_data", None)  # an option of the comparison, not of the data
    given = {k: getattr(options, k) for k in ("minutes", "models", "seeds", "anomalies")}
    given = {k: v for k, v in given.items() if v is not None}
    if "models" in given:
        given["models"] = tuple(row(name.strip()).name for name in given["models"].split(",") if name.strip())
        if not given["models"]:
            raise InputError("--models names no model; pass e.g. --models made,realnvp (unsup models lists them)")
    if "anomalies" in given:
        given["anomalies"] = found_anomalies(given["anomalies"])
    if options.data is None:
        if (given or data_options) and contest_in(Path(options.out)) is not None:
            said = ", ".join(f"--{k.replace('_', '-')}" for k in {**given, **data_options})
            raise InputError(f"the comparison in {options.out} is resumed with its own options; remove {said}")
        if given or data_options:
            raise InputError(f"there is no DATA; pass it: unsup compare DATA -o {path_word(options.out)}")
        return None
    before = contest_in(Path(options.out))
    if before is not None:  # options that are not repeated keep their values
        given = {k: getattr(before, k) for k in ("minutes", "models", "seeds", "anomalies")} | given
        data_options = before.data_options | data_options
    return Asked(full_name(options.data), data_options, **({"minutes": _MINUTES} | given))
