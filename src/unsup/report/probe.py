"""The sentences and the page of ``unsup probe``: figures of codes beside an untrained encoder and raw data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import unsup
from unsup.core.commands import path_word
from unsup.core.errors import InputError
from unsup.core.escapes import command_line
from unsup.core.words import class_word, counted
from unsup.evaluate.exam import Exam
from unsup.evaluate.measures import MEASURES, classes_of
from unsup.evaluate.projection import project
from unsup.evaluate.records import Figure
from unsup.pictures.maps import draw_map
from unsup.report.album import Shown, embedded
from unsup.report.figures import Column, reading, untrained
from unsup.report.pages import Page, footer, render, sections
from unsup.report.words import capital

MOST_POINTS = 2000
"""Points of a map."""
_ONE_DIMENSION, _COLLAPSED = 1.5, -0.1  # a smaller effective rank, a larger uniformity: a collapse, if both hold
_DIMENSIONS = 4  # along fewer ones, a small rank says nothing


def verdicts(figures: Mapping[str, Figure]) -> list[str]:
    """What the figures say: whether each is better or worse than its floors by more than its interval; a collapse."""
    found = []
    floors: dict[str, Callable[[Figure], float | None]] = {
        "the untrained encoder": lambda figure: untrained(figure["detail"]),
        "raw data": lambda figure: figure["floor"],
    }
    for what, floor_of in floors.items():
        said: dict[str, list[str]] = {"better than": [], "within the noise of": [], "worse than": []}
        for key, figure in figures.items():
            floor, row = floor_of(figure), MEASURES[key]
            if floor is None or row.better is None:
                continue
            low, high = figure["interval"] or (figure["value"], figure["value"])
            sign = 1 if row.better == "higher" else -1
            place = ("within the noise of", "better than", "worse than")[sign * ((low > floor) - (high < floor))]
            said[place].append(row.title)
        found += [f"{place} {what}: {'; '.join(titles)}" for place, titles in said.items() if titles]
    rank, uniform = figures.get("effective_rank"), figures.get("uniformity")
    if rank is not None and uniform is not None:
        size = rank["detail"]["features"]
        one_dimension = min(rank["n"] - 1, size) >= _DIMENSIONS and rank["value"] < _ONE_DIMENSION
        if one_dimension and uniform["value"] > _COLLAPSED:
            found.append(
                f"a collapse: nearly all codes have one direction (uniformity {uniform['value']:.3f}), and they vary "
                f"along about one of {size} dimensions (effective rank {rank['value']:.2f})"
            )
    return found


def protocol(exam: Exam, figures: Mapping[str, Figure]) -> list[str]:
    """How the figures were measured, one sentence each."""
    train, test = exam.bench.probed
    known = next((f["detail"] for f in figures.values()), {})
    lines = [
        f"{counted(len(train), 'training example')}, {counted(len(test), 'held-out example')}, "
        f"{counted(known.get('features', 0), 'feature')}; the held-out examples are read once",
        "encoder frozen, in evaluation mode, without augmentation; parameters and buffers unchanged, sha256 "
        f"{exam.digest[:16]}…",
        "untrained: the same encoder with random parameters (one draw), prepared on the training data as by unsup fit",
    ]
    if (one := figures.get("knn_weighted")) is not None:
        found = one["detail"]
        lines.append(f"weighted vote: k = {found['k']}, T = {found['temperature']}; other values give other accuracies")
    if (one := figures.get("few_labels")) is not None:
        labels, least = one["detail"]["labels"], int(classes_of(exam.bench)[0].unique(return_counts=True)[1].min())
        said = f"{counted(labels, 'label')} per class"
        if least < labels:
            said = f"at most {said} (the smallest class has {least})"
        lines.append(f"few labels: {said}, the mean over 5 choices")
    if (one := figures.get("probe")) is not None:
        counts = classes_of(exam.bench)[0].bincount()
        kind = class_word(int(counts.argmax()), exam.bench.data.labels)
        lines.append(f"always the most frequent training class ({kind}): {one['detail']['majority']:.1%}")
    return lines


def probe_page(
    exam: Exam, figures: Mapping[str, Figure], missing: Mapping[str, str], data: str, tuned: Figure | None = None
) -> str:
    """The page as HTML: the table, a map of the codes, and the protocol."""
    heads = [
        *("Measure", exam.name, "95 % interval", "Untrained encoder", "Raw data"),
        {"text": "What it means", "class": "words"},
    ]
    rows = [_row(Column.of(key, MEASURES[key].to_json()), figure) for key, figure in figures.items()]
    if tuned is not None:
        words = "accuracy of encoder and linear classifier trained together; untrained: from random parameters"
        about = {**MEASURES["probe"].to_json(), "title": "fine-tuned", "explanation": words}
        rows.append(_row(Column.of("probe", about), tuned))
    reasons = [(capital(MEASURES[key].title), "", why) for key, why in missing.items()]
    again = command_line(["unsup", "map", path_word(exam.path or "RUN"), "-o", "map.png", "--method", "tsne"])
    pictures = []
    try:
        pictures.append(code_map(exam))
    except InputError as error:
        reasons.append(("Map of the codes", "", str(error)))
    page = Page(
        title=f"Codes of {exam.name} on {data}",
        brand="unsup probe",
        about=f"{exam.bench.data.describe()}; measured on {exam.m.split}",
        summary=tuple(f"{capital(line)}." for line in verdicts(figures)),
        next=(("Draw the codes by t-SNE:", again),),
        sections=sections(
            ("figures", "Figures", [("table", rows, "probe", "Figures of the codes", heads, "plain", True)]),
            ("missing", "Not measured", [("items", reasons)]),
            ("map", "Map of the codes", [("gallery", pictures, "h3")]),
            ("method", "How this was measured", [("items", [capital(line) for line in protocol(exam, figures)])]),
        ),
        footer=footer({"unsup": unsup.__version__}),
    )
    return render(page)


def code_map(exam: Exam) -> Shown:
    """Principal components of the codes of held-out examples, coloured by class.

    Raises:
        InputError: there are fewer than three.
    """
    test, codes, names = exam.bench.probed[1], exam.codes[1], exam.bench.data.labels or ()
    found = project(codes[:MOST_POINTS], "pca")
    label = None if test.label is None else test.label[:MOST_POINTS]
    title = f"codes of {exam.name}"
    drawn = draw_map(found.points, title, found.meaning, axes=found.axes, label=label, names=names)
    return embedded(drawn.png, drawn.alt, capital(title), drawn.caption, drawn.scale, plot=True)


def _row(column: Column, figure: Figure) -> list[Any]:
    found = reading(figure)
    assert found is not None
    beside = [{"text": None if v is None else column.show(v)} for v in (untrained(found.detail), found.floor)]
    value = {"text": column.show(found.value), "figure": True}
    return [column.title, value, column.interval(found), *beside, {"text": capital(column.meaning), "class": ""}]
