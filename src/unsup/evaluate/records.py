"""Records of runs and contests as JSON. Pages, tables and summaries are made from them.

A contest is a folder: ``contest.json`` (the request), ``runs/`` (run folders, each with ``measures.json`` and
``pictures/``), ``pictures/`` (the real data), ``results.json``, ``results.csv`` and ``index.html``.
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
"""A number; null in the file if it is NaN or infinite."""

Status = Literal["waiting", "unfinished", "failed", "done"]
Better = Literal["lower", "higher"]
SplitName = Literal["test", "validation", "train"]
Purpose = Literal["density", "samples", "anomalies", "features", "compression", "classes", "cost"]
"""The question that a measure answers."""


class Figure(TypedDict):
    """A measured value, the same in every file.

    Attributes:
        value: a finite number.
        error: standard error, if known.
        interval: 95 % interval, if known; it contains the value and is within the range of the measure.
        floor: the value of the floor of the measure, if it has one.
        n: number of examples or samples.
        detail: fields of this measure only.
    """

    value: float
    error: float | None
    interval: tuple[float, float] | None
    floor: float | None
    n: int
    detail: dict[str, Any]


class MeasureRecord(TypedDict):
    """The fields of `unsup.evaluate.measures.Measure` for pages."""

    title: str
    explanation: str
    unit: str
    better: Better | None
    floor: str
    purpose: Purpose


class Evaluation(TypedDict):
    """An entry of ``eval.json``: a figure with its split and settings (``Measure.settings``).

    ``step`` is that of the parameters; ``changed_data`` is whether the data has changed since training.
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
    """Real bytes of the measured examples under one codec; ``how`` describes the files."""

    codec: str
    bytes: int
    per_example: Number
    how: str


class Picture(TypedDict):
    """A PNG file and its texts; see `unsup.pictures.gallery.Drawn`."""

    file: str
    alt: str
    caption: str
    scale: int
    plot: NotRequired[bool]


class Curve(TypedDict):
    """Losses by name as (step, value), and validation as (step, nats)."""

    losses: dict[str, list[tuple[Number, Number]]]
    validation: list[tuple[Number, Number]]


class Measures(TypedDict):
    """The measures of one run; ``missing`` has the reasons for missing measures.

    ``run`` is the run folder and ``folder`` (by default the same) that of pictures and scores, both relative to the
    page. ``commands`` has the ``unsup eval`` commands that reproduce the figures.
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
    """One model of the contest with its runs, one per seed."""

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
    """The place of a contestant by one measure: mean over seeds, its standard error, rank and ties.

    Ranks are within ``group``: likelihoods of one kind (bounds: and of one number of importance samples), or all
    contestants. ``surpasses`` lists contestants with an exact likelihood that is significantly worse than this bound.
    ``beyond`` marks an implausible value: samples far
    better than held-out data, or the likelihood of a degenerate fit. It is ranked last.
    """

    value: Number
    noise: Number
    rank: int
    tied: list[str]
    group: NotRequired[str]
    surpasses: NotRequired[list[str]]
    beyond: NotRequired[bool]


class Baselines(TypedDict):
    """Further values for comparison."""

    stored: list[StoredSize]


_For = TypedDict("_For", {"for": Purpose | None})  # a keyword, which a class cannot have as a field


class Results(_For):
    """The whole contest, ``results.json``; ``measures`` describes each measure of a contestant."""

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
    """The record with None for numbers that JSON does not support.

    >>> finite({"a": [1.0, math.nan], "b": (math.inf,)})
    {'a': [1.0, None], 'b': [None]}
    """
    if isinstance(record, dict):
        return {k: finite(v) for k, v in record.items()}
    if isinstance(record, (list, tuple)):
        return [finite(v) for v in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


def read_evaluations(path: Path) -> list[Evaluation]:
    """The entries of an ``eval.json``; none if the file does not exist.

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
    """All entries; a new one replaces the entry of the same measure, split and settings."""

    def place(entry: Evaluation) -> str:
        return json.dumps([entry["measure"], entry["split"], entry["settings"]], sort_keys=True)

    return list({place(entry): entry for entry in (*kept, *new)}.values())


def is_below(file: str) -> bool:
    """Whether the path of a picture is relative and inside its folder.

    >>> is_below("pictures/samples.png"), is_below("../other.png"), is_below("/etc/passwd")
    (True, False, False)
    """
    path = PurePath(file)
    return not path.is_absolute() and ".." not in path.parts
