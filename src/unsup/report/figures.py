"""The figures of a comparison, read from its records: one `Column` a measure, one `Figure` a contestant and measure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from unsup.core.likelihood import Likelihood
from unsup.evaluate.records import Contestant, Measures, Place, Results
from unsup.report.svg import decimals, number

Pair = tuple[float, float]
KINDS = ("exact", "bound", "estimate", "unnormalised")
"""Kinds of likelihood in the order the page shows them; contestants without one come last."""


STATUS = {"waiting": "not begun", "unfinished": "under way", "failed": "failed"}
"""What is said of contestants that are not done."""


@dataclass(frozen=True)
class Reading:
    """One run's number, with its 95 % interval where it has one."""

    value: float
    interval: Pair | None = None


@dataclass(frozen=True)
class Figure:
    """One contestant's number: the mean over its runs.

    Attributes:
        interval: of one run its 95 % interval; of several the lowest and the highest run.
    """

    value: float
    seeds: tuple[float, ...]
    interval: Pair | None


@dataclass(frozen=True)
class Column:
    """A measure as the table shows it.

    Attributes:
        key: its name in ``places``.
        better: which way is better; None for a cost, by which nobody wins.
        read: of one run; None where it has none.
        show: the value as people read it.
        floor: what real data get in the samples' place, where that is known.
    """

    key: str
    title: str
    explain: str
    better: Literal["lower", "higher"] | None
    read: Callable[[Measures], Reading | None]
    show: Callable[[float], str]
    floor: Callable[[Results], float | None] = lambda results: None

    def figure(self, contestant: Contestant) -> Figure | None:
        found = [r for r in map(self.read, contestant["runs"]) if r is not None]
        if not found:
            return None
        values = tuple(r.value for r in found)
        span = (min(values), max(values)) if len(found) > 1 else found[0].interval
        return Figure(sum(values) / len(values), values, span)


def finite(value: Any) -> float | None:
    """``value`` as a number, or None where it is none or not finite."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def reading(record: Any, scale: float = 1.0) -> Reading | None:
    """A record with ``value`` and ``interval`` as a `Reading`."""
    value = finite(record["value"]) if record else None
    if value is None:
        return None
    ends = [finite(v) for v in record.get("interval") or ()]
    low, high = ends if len(ends) == 2 else (None, None)
    return Reading(value * scale, None if low is None or high is None else (low * scale, high * scale))


def _field(name: str, part: str | None = None) -> Callable[[Measures], Reading | None]:
    def read(run: Measures) -> Reading | None:
        record: Any = run.get(name)
        return reading(record if part is None or record is None else record[part])

    return read


def _plain(value: Callable[[Measures], Any]) -> Callable[[Measures], Reading | None]:
    def read(run: Measures) -> Reading | None:
        found = finite(value(run))
        return None if found is None else Reading(found)

    return read


def _score(name: str, scale: float = 1.0) -> Callable[[Measures], Reading | None]:
    return lambda run: reading(((run["quality"] or {}).get("scores") or {}).get(name), scale)


def _floor(name: str, scale: float = 1.0) -> Callable[[Results], float | None]:
    def floor(results: Results) -> float | None:
        scores = [
            ((r["quality"] or {}).get("scores") or {}).get(name) for c in results["contestants"] for r in c["runs"]
        ]
        found = [finite(s.get("floor")) for s in scores if s]
        known = [v for v in found if v is not None]
        return sum(known) / len(known) * scale if known else None

    return floor


def _raw_probe(results: Results) -> float | None:
    probe = results["baselines"]["raw_probe"]
    return None if probe is None else finite(probe["accuracy"]["value"])


def _chance(results: Results) -> float | None:
    found = [r["calibration"]["chance"] for c in results["contestants"] for r in c["runs"] if r["calibration"]]
    return finite(found[0]) if found else None


def _nats(run: Measures) -> Reading | None:
    record = run["likelihood"] or {}
    nats, error = finite(record.get("nats")), finite(record.get("standard_error"))
    if nats is None:
        return None
    return Reading(nats, None if error is None else (nats - 1.96 * error, nats + 1.96 * error))


def duration(seconds: float) -> str:
    """A time as people say it.

    >>> duration(0.52), duration(75), duration(4000)
    ('0.52 s', '1 min 15 s', '1 h 06 min')
    """
    if seconds < 59.5:
        return f"{number(seconds, digits=2)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def amount(value: float) -> str:
    """A large count in short.

    >>> amount(950), amount(12_345), amount(2_500_000)
    ('950', '12.3 k', '2.50 M')
    """
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return number(value / (1e3 if unit == " k" else size)) + unit
    return number(value, 0 if value >= 100 or value == int(value) else None)


def interval(figure: Figure, show: Callable[[float], str] = number) -> str:
    """Both ends of a figure's interval with as many places as its value shows; empty where it has none.

    >>> interval(Figure(0.92, (0.92,), (0.9, 0.95))), interval(Figure(0.5, (0.5,), (-1.0, 2.0)))
    ('0.900–0.950', '−1.000 to 2.000')
    >>> interval(Figure(75.0, (70.0, 80.0), (70.0, 80.0)), duration)
    '1 min 10 s – 1 min 20 s'
    """
    if figure.interval is None:
        return ""
    places = decimals(figure.value)
    low, high = (show(v) if show is not number else number(v, places) for v in figure.interval)
    if low == high:
        return ""
    if show is not number:
        return f"{low} – {high}"
    return f"{low} to {high}" if min(figure.interval) < 0 else f"{low}–{high}"


COLUMNS = (
    Column(
        "likelihood",
        "Likelihood",
        "mean negative log-likelihood of a held-out example, lower is better; compared within one kind only",
        "lower",
        _nats,
        number,
    ),
    Column(
        "implied_bytes",
        "Implied bytes",
        "bytes an example would take with a coder as good as the likelihood; implied, no file was written",
        "lower",
        _field("implied_bytes"),
        number,
    ),
    Column(
        "fid",
        "FID",
        "Fréchet distance of features of samples and of training examples, lower is better",
        "lower",
        _score("fid"),
        number,
        _floor("fid"),
    ),
    Column(
        "kid",
        "KID × 10³",
        "kernel distance of the same features times a thousand, lower is better; may fall below 0 by chance",
        "lower",
        _score("kid", 1000),
        number,
        _floor("kid", 1000),
    ),
    Column(
        "precision",
        "Precision",
        "share of samples that look like data, higher is better",
        "higher",
        _score("precision"),
        number,
        _floor("precision"),
    ),
    Column(
        "recall",
        "Recall",
        "share of the data that looks like samples, higher is better",
        "higher",
        _score("recall"),
        number,
        _floor("recall"),
    ),
    Column(
        "memorisation",
        "Nearer to training",
        "chance that a sample lies nearer to the training data than a held-out example does; ½ generalises, 1 copies",
        "lower",
        _field("memorisation", "nearer"),
        number,
        lambda results: 0.5,
    ),
    Column(
        "sampling",
        "Samples / s",
        "samples drawn a second",
        "higher",
        _plain(lambda run: run["sampling"] and run["sampling"]["per_second"]),
        amount,
    ),
    Column("seconds", "Training", "time spent on training", None, _plain(lambda run: run["train_seconds"]), duration),
    Column("parameters", "Parameters", "trained numbers", None, _plain(lambda run: run["parameters"]), amount),
    Column(
        "auroc",
        "Anomaly AUROC",
        "chance that an anomaly scores as less likely than an ordinary example; ½ is guessing, higher is better",
        "higher",
        _field("anomaly", "auroc"),
        number,
        lambda results: 0.5,
    ),
    Column(
        "average_precision",
        "Anomaly AP",
        "average precision of the ranking of anomalies, higher is better",
        "higher",
        _field("anomaly", "average_precision"),
        number,
    ),
    Column(
        "probe",
        "Probe accuracy",
        "accuracy of a logistic regression on the codes, higher is better; the last line has raw data in their place",
        "higher",
        _field("probe", "accuracy"),
        number,
        _raw_probe,
    ),
    Column(
        "calibration",
        "Calibration error",
        "how far shares of held-out examples stray from those of the model's own draws, lower is better",
        "lower",
        _field("calibration", "error"),
        number,
        _chance,
    ),
)


def column(key: str) -> Column:
    return next(c for c in COLUMNS if c.key == key)


def kind(contestant: Contestant) -> str | None:
    """The kind of a contestant's likelihood."""
    found = [r["likelihood"]["kind"] for r in contestant["runs"] if r["likelihood"]]
    return found[0] if found else None


def kind_order(contestant: Contestant) -> int:
    own = kind(contestant)
    return KINDS.index(own) if own in KINDS else len(KINDS)


def sign(kind: Any) -> str:
    """The sign that goes with a kind of likelihood.

    >>> sign("bound")
    '≤'
    """
    return Likelihood(kind, 0.0, 1, 0.0, 1).sign


def bits_per_dim(contestant: Contestant) -> Figure | None:
    """Bits/dim, with the interval of the nats in that unit."""
    nats = column("likelihood").figure(contestant)
    found = [r["likelihood"] for r in contestant["runs"] if r["likelihood"]]
    bits = [finite(f["bits_per_dim"]) for f in found]
    values = tuple(b for b in bits if b is not None)
    if nats is None or not values:
        return None
    mean = sum(values) / len(values)
    ratio = mean / nats.value if nats.value else 0.0
    ends = None if nats.interval is None else (nats.interval[0] * ratio, nats.interval[1] * ratio)
    return Figure(mean, values, ends if ratio > 0 else None)


def in_order(contestants: list[Contestant]) -> list[Contestant]:
    """Those with measured runs: by kind of likelihood, best first; those without a likelihood by FID."""

    def key(contestant: Contestant) -> tuple[int, float]:
        by = column("likelihood" if kind(contestant) else "fid").figure(contestant)
        return kind_order(contestant), math.inf if by is None else by.value

    return sorted((c for c in contestants if c["runs"]), key=key)


def mark(places: dict[str, dict[str, Place]], column: Column, name: str) -> str | None:
    """``best``, or ``tie`` for all that nobody beats beyond the noise; None for others, and where nobody competes."""
    measured = places.get(column.key, {}) if column.better else {}
    place = measured.get(name)
    if place is None or place["rank"] > 1:
        return None
    if sum(p.get("group") == place.get("group") for p in measured.values()) < 2:
        return None
    return "tie" if place["tied"] else "best"
