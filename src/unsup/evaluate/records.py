"""What is written down of runs and contests: plain JSON records, from which pages, tables and summaries are made.

A contest is a folder: ``contest.json`` (what was asked for), ``runs/`` (ordinary run folders, each with
``measures.json`` and ``pictures/``), ``pictures/`` (the real data), ``results.json``, ``results.csv`` and
``index.html``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from unsup.core.config import OrNothing, check_value
from unsup.core.errors import InputError
from unsup.core.reading import read_json

Number = Annotated[float, OrNothing()]
"""A figure; null in the file where it is NaN or infinite."""

Status = Literal["waiting", "unfinished", "failed", "done"]
Better = Literal["lower", "higher"]
SplitName = Literal["test", "validation", "train"]
Purpose = Literal["density", "samples", "anomalies", "features", "compression", "classes", "cost"]
"""What a measure is about; a question that somebody may have."""


class Figure(TypedDict):
    """One number that was measured, the same in every file.

    Attributes:
        value: a finite number.
        error: the standard error, where there is one.
        interval: 95 %, where there is one; it holds the value and lies within the range of the measure.
        floor: the same number of what the measure names as its floor, where there is one.
        n: examples or samples counted.
        detail: what only this measure has.
    """

    value: float
    error: float | None
    interval: tuple[float, float] | None
    floor: float | None
    n: int
    detail: dict[str, Any]


class MeasureRecord(TypedDict):
    """What a page needs to know of a measure: fields of `unsup.evaluate.measures.Measure`."""

    title: str
    explanation: str
    unit: str
    better: Better | None
    floor: str
    purpose: Purpose


class Evaluation(TypedDict):
    """An entry of ``eval.json``: a figure, and what it was measured on.

    ``step`` is that of the parameters, ``settings`` what else the figure depends on (``samples``, ``examples``,
    ``importance_samples``, ``extractor``, ``seed``), ``changed_data`` whether the data has changed since the run was
    trained.
    """

    measure: str
    split: SplitName
    step: int | None
    settings: dict[str, Any]
    seconds: Number
    changed_data: bool
    figure: Figure


class Evaluations(TypedDict):
    """``eval.json``."""

    format: Literal[2]
    results: list[Evaluation]


class StoredSize(TypedDict):
    """Real bytes of the measured examples under one codec; ``how`` says what was put into one file."""

    codec: str
    bytes: int
    per_example: Number
    how: str


class Picture(TypedDict):
    """A PNG beside the record, with what to say of it; ``scale`` screen pixels show one of its own.

    A ``plot`` is ink on white, whose lightness a dark page may invert.
    """

    file: str
    alt: str
    caption: str
    scale: int
    plot: NotRequired[bool]


class Curve(TypedDict):
    """Training: losses by name as (step, value), and validation as (step, nats)."""

    losses: dict[str, list[tuple[Number, Number]]]
    validation: list[tuple[Number, Number]]


class Measures(TypedDict):
    """All that is measured of one run. ``missing`` says of each measure that the run has not why it has not.

    ``run`` is the run's folder and ``folder`` where the pictures and scores lie, both from the folder of the page;
    without the one they are in the other. ``commands`` gives the ``unsup eval`` that measures a figure again.
    """

    run: str
    folder: NotRequired[str]
    model: str
    seed: int
    parameters: int
    steps: int
    train_seconds: Number
    measure_seconds: Number
    command: str
    figures: dict[str, Figure]
    missing: dict[str, str]
    commands: dict[str, str]
    notes: list[str]
    curve: Curve
    pictures: dict[str, Picture]
    environment: dict[str, Any]


class Contestant(TypedDict):
    """One model of the contest with its runs, one a seed."""

    name: str
    model: str
    family: str
    paper: str
    options: dict[str, Any]
    training: dict[str, Any]
    status: Status
    reason: str | None
    runs: list[Measures]


class Place(TypedDict):
    """Where a contestant stands by one measure: its mean over seeds, the noise of that, its rank and whom it ties with.

    Ranks count within ``group`` alone: likelihoods of one kind, or all contestants. ``surpasses`` names those with an
    exact likelihood that a bound is already better than, beyond the noise. ``beyond`` marks a value that is too good
    to be true: samples far better than held-out data, or the likelihood of a degenerate fit. It comes after all others.
    """

    value: Number
    noise: Number
    rank: int
    tied: list[str]
    group: NotRequired[str]
    surpasses: NotRequired[list[str]]
    beyond: NotRequired[bool]


class Baselines(TypedDict):
    """What the figures are compared with besides their floors."""

    stored: list[StoredSize]


_For = TypedDict("_For", {"for": Purpose | None})  # a keyword, which a class cannot have as a field


class Results(_For):
    """The whole contest: ``results.json``. ``measures`` describes each measure that a contestant may have."""

    format: Literal[2]
    title: str
    command: str
    data: dict[str, Any]
    about: str
    minutes: Number | None
    seconds: Number
    seeds: list[int]
    plan: str
    anomalies: str
    examples: int
    samples: int
    measures: dict[str, MeasureRecord]
    baselines: Baselines
    contestants: list[Contestant]
    places: dict[str, dict[str, Place]]
    summary: list[str]
    next: list[dict[str, str]]
    pictures: dict[str, Picture]
    environment: dict[str, Any]


def finite(record: Any) -> Any:
    """The record with None in the place of numbers that JSON has not.

    >>> finite({"a": [1.0, math.nan], "b": (math.inf,)})
    {'a': [1.0, None], 'b': [None]}
    """
    if isinstance(record, dict):
        return {k: finite(v) for k, v in record.items()}
    if isinstance(record, (list, tuple)):
        return [finite(v) for v in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


def checked_measures(record: Any) -> Measures:
    """The measures that a file holds.

    Raises:
        InputError: ``record`` is something else; the field is named.
    """
    found: Measures = check_value("measures", record, Measures)
    return found


def read_evaluations(path: Path) -> list[Evaluation]:
    """The entries of an ``eval.json``; none where there is no such file.

    Raises:
        InputError: it is damaged, or was written by an earlier version.
    """
    if not path.exists():
        return []
    record: dict[str, Any] = read_json(path, dict[str, Any])
    if "format" not in record:
        raise InputError(f"{path} was written by an earlier version of unsup; measure the run again (unsup eval)")
    found: Evaluations = check_value(str(path), record, Evaluations)
    return found["results"]


def merged(kept: Iterable[Evaluation], new: Iterable[Evaluation]) -> list[Evaluation]:
    """All entries; a new one replaces that of the same measure, split and settings, and no other."""

    def place(entry: Evaluation) -> str:
        return json.dumps([entry["measure"], entry["split"], entry["settings"]], sort_keys=True)

    return list({place(entry): entry for entry in (*kept, *new)}.values())


def is_below(file: str) -> bool:
    """Whether the name of a picture leads nowhere but below the folder it is seen from.

    >>> is_below("pictures/samples.png"), is_below("../other.png"), is_below("/etc/passwd")
    (True, False, False)
    """
    path = PurePath(file)
    return not path.is_absolute() and ".." not in path.parts
