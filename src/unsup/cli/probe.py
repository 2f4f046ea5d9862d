"""``unsup probe RUN``: what the codes of a run contain, beside an untrained encoder and raw data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsup.cli.encoded import add_encoded_data, data_of, encoder_of
from unsup.cli.eval import Stages, keep, of_changed
from unsup.cli.options import Parser, add_memory
from unsup.cli.show import table, write, write_json
from unsup.core.config import Count, Positive, Seed
from unsup.core.errors import InputError
from unsup.core.words import counted

if TYPE_CHECKING:
    from unsup.evaluate.records import Figure

_LABELS = "labels per class for the probe with few labels [10, or all of a smaller class]"
_MINUTES = 2.0


def main(arguments: Sequence[str]) -> int:
    options = _parser(arguments).parse(arguments)
    if options.out is not None and Path(options.out).suffix.lower() != ".html":
        raise InputError(f"-o {options.out} should end in .html (a page)")
    if options.minutes is not None and not options.fine_tune:
        raise InputError("--minutes is for --fine-tune; remove it")

    from unsup.core.storage import write_file
    from unsup.evaluate.bench import Bench, Measuring
    from unsup.evaluate.exam import Exam
    from unsup.evaluate.measures import MEASURES, check_labels
    from unsup.evaluate.probe import FEW
    from unsup.report.probe import probe_page, protocol, verdicts

    run = encoder_of(options)
    data = data_of(options, run)
    name, what = str(run.config["model"]["model"]), data.name if options.file is None else options.file
    if data.train.label is None or getattr(data, options.split).label is None:
        raise InputError(
            f"{what or 'this data'} has no labels; pass labelled DATA of the same kind, or measure what needs no "
            "labels: unsup eval RUN --measures uniformity,effective_rank"
        )
    measuring = Measuring(
        examples=options.examples, seed=options.seed, split=options.split, labels=options.labels or FEW
    )
    keys = [key for key, row in MEASURES.items() if row.purpose == "features"]
    with Stages(quiet=options.json) as display:
        exam = Exam(Bench(data, measuring, display.show), run.model, name=name, path=run.path, tell=display.show)
        if options.labels is not None:
            check_labels(exam.bench, options.labels)
        figures, missing = exam.figures(keys)
    about_classes = [key for key in keys if "labels" in MEASURES[key].needs]
    if missing.keys() >= set(about_classes):
        raise InputError("; ".join(dict.fromkeys(missing[key] for key in about_classes)))
    tuned = None
    if options.fine_tune:
        from unsup.train.fine_tuned import fine_tuning

        tuned = fine_tuning(exam, options.minutes or _MINUTES, progress="off" if options.json else "auto")
    if options.json:
        about = {"run": str(run.path), "model": name, "data": what, "split": options.split}
        encoder = {"parameters_sha256": exam.digest, "unchanged": True, "mode": "eval"}
        more = {} if tuned is None else {"fine_tuned": tuned}
        more |= of_changed(run) if options.file is None else {}
        write_json(about | {"encoder": encoder, "figures": figures, "missing": missing} | more)
    else:
        write(
            f"{name} on {Path(str(what)).name} ({options.split}), seed {options.seed}; ↓ lower, ↑ higher is better",
            *_lines(figures, name, tuned),
            *(f"note: no {MEASURES[key].title}: {reason}" for key, reason in missing.items()),
            "",
            *verdicts(figures),
            *protocol(exam, figures),
        )
        for which, count in exam.bench.left_out.items():
            write(f"note: {counted(count, f'{which} example')} with missing entries left out")
        if options.file is None and run.data_changed:
            write("note: the data has changed since the run was trained")
    if options.file is None:
        keep(run, exam, figures)
    if options.out is not None:
        write_file(options.out, probe_page(exam, figures, missing, str(what), tuned).encode())
        if not options.json:
            write("", f"the page is {options.out}")
    return 0


def _parser(arguments: Sequence[str]) -> Parser:
    parser = Parser(
        prog="unsup probe",
        description="Examine the codes of a run: linear probe, nearest codes, few labels, clusters, uniformity and "
        "effective rank, each beside the same encoder with random parameters and raw data.",
    )
    add_encoded_data(parser, arguments)
    parser.add_number("--labels", Count, _LABELS)
    parser.add_argument(
        "--split", choices=("test", "validation"), default="test", help="the held-out examples to measure on [test]"
    )
    parser.add_number("--examples", Count, "measure on N examples of the split, always the same [all]")
    parser.add_number("--seed", Seed, "of all random numbers [0]", default=0)
    parser.add_argument(
        "--fine-tune",
        action="store_true",
        help="also train the encoder and a linear classifier together, from the run and from random parameters",
    )
    parser.add_number("--minutes", Positive, f"of fine-tuning in all [{_MINUTES:g}]", metavar="X")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_out("a page (.html) with the figures and a map of the codes", metavar="FILE")
    add_memory(parser)
    return parser


def _lines(figures: dict[str, Figure], name: str, tuned: Figure | None) -> list[str]:
    """One row per measure: the model with its interval, the untrained encoder, raw data."""
    from unsup.evaluate.measures import MEASURES

    rows: list[tuple[Any, ...]] = []
    for key, figure in figures.items():
        row = MEASURES[key]
        interval = "" if figure["interval"] is None else " … ".join(map(row.show, figure["interval"]))
        beside = (figure["detail"].get("untrained"), figure["floor"])
        arrow = {"lower": " ↓", "higher": " ↑", None: ""}[row.better]
        shown = ("–" if value is None else row.show(value) for value in beside)
        rows.append((f"{row.title}{arrow}", row.show(figure["value"]), interval, *shown))
    if tuned is not None:
        interval = " … ".join(f"{end:.1%}" for end in tuned["interval"] or ())
        rows.append(("fine-tuned ↑", f"{tuned['value']:.1%}", interval, f"{tuned['detail']['untrained']:.1%}", "–"))
    return table(("measure", name, "95 % interval", "untrained", "raw data"), rows, right=(1, 2, 3, 4))
