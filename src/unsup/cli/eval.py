"""``unsup eval RUN``: the likelihood of a split, the quality of samples, or any other measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from unsup.cli.options import Parser, add_changed_data, add_memory
from unsup.cli.show import note, note_unfinished, table, write, write_json
from unsup.core.config import AtLeast, Count, Seed
from unsup.core.errors import CapabilityError, InputError, TrainingError
from unsup.core.words import counted

if TYPE_CHECKING:
    from unsup.evaluate.exam import Exam
    from unsup.evaluate.records import Figure
    from unsup.train.progress import Progress
    from unsup.train.runs import Run

_ARROWS = {"lower": " ↓", "higher": " ↑", None: ""}
_UNITS = {
    "likelihood": "example",
    "sampling": "sample",
    "features": "features of example",
    "coding": "coding step",
    "encoding": "code",
}
_SAMPLES = 10_000


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup eval",
        description="Mean negative log-likelihood of a run's test split, in nats and bits/dim; with --samples, FID and "
        "other measures of samples; with --measures, any measures of unsup measures.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--measures", metavar="KEYS", help="measures, e.g. fid,auroc,probe, or all [likelihood]")
    parser.add_argument(
        "--split", choices=("test", "validation", "train"), default="test", help="the examples to measure on [test]"
    )
    parser.add_number(
        "--importance-samples",
        Count,
        "samples per example for a bound, or the effort of an estimate of log Z; more are tighter [1]",
        default=1,
        metavar="K",
    )
    parser.add_number("--examples", Count, "measure on N examples of the split, always the same [all]")
    parser.add_number(
        "--samples",
        Annotated[int, AtLeast(10)],
        f"draw N samples [{_SAMPLES}]; without --measures, measure their quality",
    )
    parser.add_argument(
        "--extractor",
        metavar="NAME",
        help="features for measures of samples: grey, colour, raw, inception [by the data]",
    )
    parser.add_number("--labels", Count, "labels per class for few_labels [10, or all of a smaller class]")
    parser.add_number("--seed", Seed, "of all random numbers [0]", default=0)
    add_changed_data(parser)
    add_memory(parser)
    options = parser.parse(arguments)
    if options.extractor is not None and options.samples is None and options.measures is None:
        raise InputError(
            f"--extractor {options.extractor} is for measures of samples; give --samples N too, e.g. 10000"
        )

    from unsup.core.model import Classifies, HasDensity
    from unsup.evaluate.bench import Bench, Measuring
    from unsup.evaluate.exam import Exam
    from unsup.evaluate.measures import check_labels, choose_measures, possible_measures, sample_measures
    from unsup.evaluate.probe import FEW
    from unsup.train.runs import open_run

    asked = ("likelihood",) if options.measures in (None, "all") else choose_measures(options.measures)
    run = open_run(options.run, changed_data=options.changed_data, data=options.data)
    note_unfinished(run)
    if options.measures == "all":
        asked = possible_measures(run.data)
    elif options.measures is None and options.samples is not None:
        asked = sample_measures(run.data)
    elif options.measures is None and isinstance(run.model, Classifies) and not isinstance(run.model, HasDensity):
        asked = ("accuracy",)
    measuring = Measuring(
        examples=options.examples,
        samples=options.samples or _SAMPLES,
        seed=options.seed,
        split=options.split,
        importance_samples=options.importance_samples,
        extractor=options.extractor or "auto",
        labels=options.labels or FEW,
    )
    events = run.events()
    with Stages(quiet=options.json) as display:
        exam = Exam(
            Bench(run.data, measuring, display.show),
            run.model,
            name=str(run.config["model"]["model"]),
            path=run.path,
            train_seconds=float(events[-1]["seconds"]) if events else None,
            tell=display.show,
        )
        if options.labels is not None and "few_labels" in asked:
            check_labels(exam.bench, options.labels)
        figures, missing = exam.figures(asked)
    if not figures:
        hint = _hint(exam) if asked == ("likelihood",) else ""
        raise CapabilityError("; ".join(dict.fromkeys(missing.values())) + hint)
    if options.json:
        about = {"run": str(run.path), "model": exam.name, "data": run.data.name, "split": options.split}
        write_json(about | {"figures": figures, "missing": missing} | of_changed(run))
    else:
        write(*_lines(exam, figures, missing))
        if run.data_changed:
            write("note: the data has changed since the run was trained")
    keep(run, exam, figures)
    return 0


def _hint(exam: Exam) -> str:
    """What can be measured of a model without a likelihood."""
    from unsup.core.commands import path_word
    from unsup.core.escapes import command_line
    from unsup.core.model import CanEncode, CanSample, HasDensity

    if isinstance(exam.model, HasDensity):
        return ""
    if isinstance(exam.model, CanSample):
        return "; measure its samples with --samples N, e.g. 10000"
    if not isinstance(exam.model, CanEncode):
        return " and no samples"
    run = path_word(exam.path or "RUN")
    without_labels = ["eval", run, "--measures", "uniformity,effective_rank"]
    command = ["probe", run] if exam.bench.test.label is not None else without_labels
    return f" and no samples; examine its codes: {command_line(['unsup', *command])}"


class Stages:
    """Progress lines, one after another: scored examples, samples, features."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._stage: str | None = None
        self._display: Progress | None = None

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._display is not None:
            self._display.__exit__(*error)
            self._display = None

    def show(self, stage: str, done: int, total: int) -> None:
        from unsup.train.progress import Progress

        if not total:  # the start of a measure
            return
        if stage != self._stage:
            self.__exit__(None, None, None)
            self._stage = stage
            self._display = Progress("off" if self.quiet else "auto", unit=_UNITS[stage], start=0).__enter__()
        elif self._display is not None and self._display.due():
            self._display.show(done, total, {})


def _lines(exam: Exam, figures: dict[str, Figure], missing: dict[str, str]) -> list[str]:
    """The likelihood in one line, the other figures as a table with notes."""
    from unsup.evaluate.measures import MEASURES

    lines, m = [], exam.m
    if "likelihood" in figures:
        lines.append(_likelihood(exam))
    if figures.keys() - {"likelihood"}:
        rows = []
        for row, figure in ((MEASURES[key], figure) for key, figure in figures.items()):
            interval = "" if figure["interval"] is None else " … ".join(map(row.show, figure["interval"]))
            floor = "" if figure["floor"] is None else row.show(figure["floor"])
            unit = f" ({row.unit})" if row.unit and row.unit not in row.title else ""
            rows.append((f"{row.title}{unit}{_ARROWS[row.better]}", row.show(figure["value"]), interval, floor))
        lines += [
            f"{exam.name} on {exam.bench.data.name} ({m.split}), seed {m.seed}; ↓ lower, ↑ higher is better",
            *table(("measure", "value", "95 % interval", "baseline"), rows, right=(1, 2, 3)),
        ]
        floors: dict[str, list[str]] = {}
        for row in (MEASURES[key] for key, figure in figures.items() if figure["floor"] is not None):
            floors.setdefault(row.floor, []).append(row.title)
        lines += [f"baseline of {', '.join(titles)}: {words}" for words, titles in floors.items()]
        untrained = [
            f"{MEASURES[key].title} {MEASURES[key].show(figure['detail']['untrained'])}"
            for key, figure in figures.items()
            if figure["detail"].get("untrained") is not None
        ]
        if untrained:
            lines.append(f"the same encoder with random parameters, not trained: {', '.join(untrained)}")
        details = [figure["detail"] for figure in figures.values()]
        judged = next((d for d in details if "fake" in d), None)
        if judged is not None:
            lines.append(
                f"{judged['fake']:,} samples compared with {judged['real']:,} training examples; baseline of "
                f"{judged['held_out']:,} {m.split} examples; extractor {judged['extractor']}, sha256 "
                f"{judged['sha256'][:16]}…"
            )
            if judged["held_out"] < judged["fake"]:
                first = [
                    f"{row.title} {row.show(figures[key]['detail']['at_floor'])}"
                    for key, row in MEASURES.items()
                    if key in figures and "at_floor" in figures[key]["detail"]
                ]
                lines.append(
                    f"note: the baseline is of fewer examples than samples; as many samples, the first "
                    f"{judged['held_out']:,}, have {', '.join(first)}"
                )
        if (coded := figures.get("coded_bytes")) is not None:
            lines.append(_coded(coded))
        lines += dict.fromkeys(f"note: {d['note']}" for d in details if d.get("note"))
    return lines + [f"note: no {MEASURES[key].title}: {reason}" for key, reason in missing.items()]


def _coded(figure: Figure) -> str:
    """What coded bytes are of, beside what the likelihood implies."""
    found = figure["detail"]
    rest = "the rest " if found["mask_bytes"] else ""
    gap = "" if found["gap"] is None else f", {rest}{100 * found['gap']:+.2f} % from what the likelihood implies"
    mask = f", {found['mask_bytes']:,} of them for empty cells" if found["mask_bytes"] else ""
    return (
        f"coded bytes: {found['bytes']:,} for {counted(figure['n'], 'example')} ({found['bits_per_dim']:.4f} bits/dim)"
        f"{mask}{gap}; a file of {found['file_bytes']:,} bytes without the model, decoded and compared "
        f"({found['seconds']:.1f} s)"
    )


def _likelihood(exam: Exam) -> str:
    from unsup.core.likelihood import parts_in_words
    from unsup.evaluate.conditions import is_conditioned
    from unsup.evaluate.units import bits_by_unit, bits_in_words, context_in_words, context_of

    found, test = exam.likelihood, exam.bench.test
    what = "effort {:,}" if found.kind == "estimate" else "{:,} importance samples"
    samples = f", {what.format(found.samples)}" if found.samples > 1 else ""
    given = ", of p(x | c)" if is_conditioned(exam.model) and test.given is not None else ""
    about = f"{exam.name} on {exam.bench.data.name} ({exam.m.split}, n = {found.n:,})"
    parts = parts_in_words(exam.scored.event, exam.bench.data.columns)
    form = exam.bench.data.form
    units = bits_by_unit(found.nats, exam.scored.event, form, test)
    bits, context = bits_in_words(units, found.bits_per_dim), context_of(exam.scored, test)
    said = ""
    if context is not None:
        entry, whole = "entry" if form is None else form.entry, "document" if exam.scored.event.open else "window"
        said = f"; {context_in_words(context, entry, whole)}"
    return f"{about}: {found.told(parts, bits)} [{found.kind}{given}{samples}]{said}"


def of_changed(run: Run) -> dict[str, Any]:
    """A mark on figures of data that has changed since the run was trained."""
    return {"changed_data": True} if run.data_changed else {}


def keep(run: Run, exam: Exam, figures: dict[str, Figure]) -> None:
    """Write the figures to ``eval.json`` and the page. They are printed already: a failure is only noted."""
    from unsup.report.page import write_page

    try:
        run.keep_figures(exam.evaluations(figures, step=run.kept_step, changed_data=run.data_changed))
    except TrainingError as error:
        note(f"the result is not saved: {error}")
        return
    try:
        write_page(run.path)
    except (InputError, TrainingError) as error:
        note(f"the page of the run is not updated: {error}")
