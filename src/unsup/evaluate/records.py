"""What a comparison writes down: plain JSON records, from which the page, the tables and the summary are made.

A contest is a folder: ``contest.json`` (what was asked for), ``runs/`` (ordinary run folders, each with
``measures.json`` and ``pictures/``), ``pictures/`` (the real data), ``results.json``, ``results.csv`` and
``index.html``.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from unsup.core.config import OrNothing, check_value
from unsup.core.likelihood import Kind

Number = Annotated[float, OrNothing()]
"""A figure; null in the file where it is NaN or infinite."""

Status = Literal["waiting", "unfinished", "failed", "done"]


class Interval(TypedDict):
    """A number with its 95 % interval."""

    value: Number
    interval: tuple[Number, Number]


class Likelihood(TypedDict):
    """``Likelihood.to_json`` of `unsup.core.likelihood`."""

    kind: Kind
    nats: Number
    bits_per_dim: Number
    standard_error: Number
    n: int
    samples: int


class Judged(TypedDict):
    """One score of samples: ``Score.to_json`` of `unsup.evaluate.samples`."""

    value: Number
    interval: tuple[Number, Number]
    floor: Number
    better: Literal["lower", "higher"]


class Quality(TypedDict):
    """``SampleQuality.to_json`` of `unsup.evaluate.samples`, as far as pages need it."""

    scores: dict[str, Judged]
    fake: int
    real: int
    held_out: int
    extractor: dict[str, str]


class Memorisation(TypedDict):
    """Distances from samples to their nearest training examples, beside those of held-out examples.

    ``nearer`` is the chance that a sample lies nearer to the training data than a held-out example does (ties count
    half): ½ for a model that generalises, 1 for one that copies. ``copies`` is the share of samples whose distance is
    below that of 99 % of held-out examples; ``space`` says in what the distances are.
    """

    nearer: Interval
    copies: Number
    space: str
    n: int


class Sampling(TypedDict):
    """How fast samples are drawn: ``per_second`` of ``n`` drawn at once after one draw that is not counted."""

    per_second: Number
    n: int


class Anomaly(TypedDict):
    """How well a score tells anomalies from held-out examples; ``by`` is ``log-likelihood`` or ``energy``."""

    auroc: Interval
    average_precision: Interval
    anomalies: int
    ordinary: int
    by: str


class Probe(TypedDict):
    """Accuracy on held-out examples of a logistic regression on ``features`` numbers, fitted on training examples."""

    accuracy: Interval
    features: int
    n: int


class Calibration(TypedDict):
    """Whether held-out examples are as likely as the model's own draws.

    ``curve`` holds pairs (level, share): the share of held-out examples inside the region of highest density that
    holds ``level`` of the model's draws; equal for a calibrated model. ``error`` is their largest difference.
    """

    error: Interval
    curve: list[tuple[Number, Number]]
    chance: Number
    n: int


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
    """Training: losses by name as (step, value), and validation as (step, bits/dim)."""

    losses: dict[str, list[tuple[Number, Number]]]
    validation: list[tuple[Number, Number]]


class Measures(TypedDict):
    """All that is measured of one run. A measure that a model cannot have is None, and ``missing`` says why.

    ``run`` is the run's folder and ``folder`` where the pictures and scores lie, both from the folder of the page;
    without the one they are in the other.
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
    eval_command: str | None
    samples_command: NotRequired[str | None]
    likelihood: dict[str, Any] | None
    implied_bytes: Interval | None
    quality: dict[str, Any] | None
    memorisation: Memorisation | None
    sampling: Sampling | None
    anomaly: Anomaly | None
    probe: Probe | None
    calibration: Calibration | None
    missing: dict[str, str]
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
    exact likelihood that a bound is already better than, beyond the noise.
    """

    value: Number
    noise: Number
    rank: int
    tied: list[str]
    group: NotRequired[str]
    surpasses: NotRequired[list[str]]


class Baselines(TypedDict):
    """What the figures are held against."""

    stored: list[StoredSize]
    raw_probe: Probe | None
    majority: Number | None


class Results(TypedDict):
    """The whole contest: ``results.json``."""

    format: int
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
    baselines: Baselines
    contestants: list[Contestant]
    places: dict[str, dict[str, Place]]
    summary: list[str]
    next: list[dict[str, str]]
    pictures: dict[str, Picture]
    environment: dict[str, Any]


def checked_measures(record: Any) -> Measures:
    """The measures that a file holds.

    Raises:
        InputError: ``record`` is something else; the field is named.
    """
    found: Measures = check_value("measures", record, Measures)
    check_value("measures.likelihood", found["likelihood"], Likelihood | None)
    check_value("measures.quality", found["quality"], Quality | None)
    return found


def is_below(file: str) -> bool:
    """Whether the name of a picture leads nowhere but below the folder it is seen from.

    >>> is_below("pictures/samples.png"), is_below("../other.png"), is_below("/etc/passwd")
    (True, False, False)
    """
    path = PurePath(file)
    return not path.is_absolute() and ".." not in path.parts
