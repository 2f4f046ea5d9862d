"""``unsup outliers DATA``: the most unlikely rows, and the columns responsible."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsup.cli.options import DATA_OPTIONS, Parser, add_data, add_memory, chosen
from unsup.cli.show import table, write
from unsup.core.config import Count, Positive, Seed
from unsup.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from unsup.core.event import Event
    from unsup.data.examples import Examples
    from unsup.data.form import Form
    from unsup.evaluate.outliers import Detector, Outlier
    from unsup.pictures.gallery import Gallery

# Not useful without training splits.
_SKIPPED = ("given", "limit", "without", "unlabelled", "domain_b", "labels", "label_seed", "changed_data")
_KINDS = (".html", ".csv")


def main(arguments: Sequence[str]) -> int:
    options = _parser(arguments).parse(arguments)
    kind = None if options.out is None else Path(options.out).suffix.lower()
    if kind is not None and kind not in _KINDS:
        raise InputError(f"-o {options.out} should end in .html (a page) or .csv (all rows)")

    from unsup.core.storage import write_file
    from unsup.data.load import load_rows
    from unsup.evaluate.outliers import rank
    from unsup.pictures.gallery import Gallery
    from unsup.report.outliers import nats, outlier_page
    from unsup.train.runs import open_model

    gaps = open_model(options.model).gaps if _is_run(options.model) else None
    found = load_rows(options.data, gaps=gaps, **chosen(options, [n for n in DATA_OPTIONS if n not in _SKIPPED]))
    x = found.whole.x
    detector, how = _detector(options, found, x)
    columns = found.columns or _entries(found.event, found.rate, found.form)
    count = len(x) if kind == ".csv" else min(options.top, len(x))
    ranking, scores = rank(detector, x, found.names, columns, top=count)
    write(f"{options.data}: {len(x):,} rows, scored by {how}", "")
    gallery = Gallery(
        found.event, x, names=found.columns, rate=found.rate, letters="" if found.form is None else found.form.letters
    )
    shown = [
        (str(o.rank), str(o.row), o.name, nats(o.score), _told(o, x, gallery, found.form))
        for o in ranking[: options.top]
    ]
    write(*table(("rank", "row", "name", "score, nats", "unlikely because of (+ nats)"), shown, right=(0, 1, 3)))
    if kind == ".csv":
        write_file(options.out, _csv(ranking).encode())
        write("", f"{len(ranking):,} rows, the most unlikely first, in {options.out}")
    elif kind == ".html":
        page = outlier_page(str(options.data), how, ranking, scores, x, gallery, found.form)
        write_file(options.out, page.encode())
        write("", f"the page is {options.out}")
    return 0


def _parser(arguments: Sequence[str]) -> Parser:
    parser = Parser(
        prog="unsup outliers",
        description="Rank all rows of a data set or file by how unlikely they are, anomalies in the data included.",
    )
    parser.add_argument("data", metavar="DATA", help="a data set's name or a path (unsup data)")
    parser.add_argument(
        "--model",
        metavar="NAME_OR_RUN",
        help="score by this model, trained on all rows, or by a run folder [Gaussian mixtures and histograms]",
    )
    parser.add_number("--minutes", Positive, "time to train a named model [its default length]", metavar="X")
    parser.add_number("--top", Count, "rows to show [20]", default=20)
    parser.add_out("a page (.html) of the rows shown, or all rows (.csv)", metavar="FILE")
    parser.add_number("--seed", Seed, "of the fit and of all noise [0]", default=0)
    add_data(parser, arguments, skip=_SKIPPED)
    add_memory(parser)
    return parser


def _detector(options: argparse.Namespace, found: Examples, x: Tensor) -> tuple[Detector, str]:
    """The requested detector, fitted, and its description."""
    from unsup.core.registry import names
    from unsup.evaluate.outliers import MEMBERS, Pool, SingleModel, default_detector, typical_values

    if options.model is None:
        if options.minutes is not None:
            raise InputError("--minutes needs a named model; remove it, or name a model with --model")
        detector = default_detector(found.event, x, seed=options.seed)
        mixtures = f"{MEMBERS} Gaussian mixtures and " if isinstance(detector, Pool) else ""
        return detector, f"{mixtures}a histogram of each column"
    if _is_run(options.model):
        return _of_run(options, found, x)

    from unsup.core.model import HasDensity, HasEnergy
    from unsup.core.registry import create, model_class
    from unsup.data.source import Data, Split
    from unsup.train.trainer import fit

    cls = model_class(options.model)
    if not issubclass(cls, (HasDensity, HasEnergy)):
        able = ", ".join(n for n in names() if issubclass(model_class(n), (HasDensity, HasEnergy)))
        raise InputError(f"{options.model} has neither a density nor an energy; models that do: {able}")
    model = create(options.model, found.event, seed=options.seed)
    rows = Split(x)
    settings: dict[str, Any] = {} if options.minutes is None else {"minutes": options.minutes}
    data = Data(None, found.event, rows, rows, Split(x[:0]), split="all rows")
    fit(model, data, progress="off", seed=options.seed, **settings)
    return SingleModel(model, typical_values(x), options.seed), f"{options.model}, trained on all of them"


def _is_run(model: str | None) -> bool:
    """Whether ``--model`` is a run folder and not the name of a model."""
    from unsup.core.registry import names

    return model is not None and model not in names() and Path(model).is_dir()


def _of_run(options: argparse.Namespace, found: Examples, x: Tensor) -> tuple[Detector, str]:
    """The model of a run."""
    from unsup.data.events import as_event
    from unsup.evaluate.outliers import SingleModel, typical_values
    from unsup.train.runs import open_model

    if options.minutes is not None:
        raise InputError(f"{options.model} is a trained run; remove --minutes")
    model = open_model(options.model).model
    as_event(x, found.event, model.event, str(options.data))
    return SingleModel(model, typical_values(x), options.seed), f"the run {options.model}"


def _entries(event: Event, rate: float | None, form: Form | None) -> tuple[str, ...]:
    """Names for entries without names: numbers from 0, rows of a series, times of sound, or positions of pixels."""
    from unsup.data.columns import TableForm

    if isinstance(form, TableForm) and form.window:
        return tuple(f"{column.name} in row {t + 1}" for t in range(event.shape[0]) for column in form.columns)
    if rate is not None and event.layout == "sequence":
        from unsup.data.windows import time_of

        channels = event.dims // event.shape[0]
        times = [time_of(i, rate) for i in range(event.shape[0])]
        return tuple(t if channels == 1 else f"{t}, channel {c}" for t in times for c in range(channels))
    if not event.is_image:
        return tuple(map(str, range(event.dims)))
    channels, height, width = event.shape
    places = [f"row {i}, column {j}" for i in range(height) for j in range(width)]
    return tuple(p if channels == 1 else f"channel {c}, {p}" for c in range(channels) for p in places)


def _told(outlier: Outlier, x: Tensor, gallery: Gallery, form: Form | None) -> str:
    """The columns responsible; of text, the characters."""
    from unsup.pictures.text import Text
    from unsup.report.outliers import causes, told

    if isinstance(gallery.artist, Text):
        return ", ".join(f"{a}[{b}]{c}{d}" for a, b, c, d in causes(outlier, x[outlier.row], gallery.artist))
    return ", ".join(f"{e.column} = {told(e, form)} (+{e.nats:.1f})" for e in outlier.entries)


def _csv(ranking: Sequence[Outlier]) -> str:
    """All rows, one line each, the most unlikely first."""
    from unsup.core.cells import table_text

    header = ("rank", "row", "name", "score_nats", "columns")
    lines = ((o.rank, o.row, o.name, f"{o.score:.6f}", "; ".join(e.column for e in o.entries)) for o in ranking)
    return table_text([header, *lines])
