"""The figures of a contest from its records: a `Column` for each measure, a `Figure` for a contestant and measure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unsup.core.likelihood import SIGN
from unsup.evaluate.measures import MEASURES
from unsup.evaluate.ranking import deciding, leader
from unsup.evaluate.records import Contestant, Measures, Place, Results
from unsup.report.svg import decimals, number
from unsup.report.words import capital

Pair = tuple[float, float]
KINDS = ("exact", "bound", "estimate", "unnormalised")
"""Kinds of likelihood in the order the page shows them; contestants without one come last."""
STATUS = {"waiting": "not begun", "unfinished": "under way", "failed": "failed"}
"""What is said of contestants that are not done."""
PURPOSES = {
    "density": "Likelihood",
    "samples": "Samples",
    "anomalies": "Anomalies",
    "features": "Features",
    "compression": "Compression",
    "classes": "Classes",
    "cost": "Cost",
}
"""What measures are for, as headings."""
ARROWS = {"lower": "↓ lower is better", "higher": "↑ higher is better"}


@dataclass(frozen=True)
class Figure:
    """A number: of one run, or the mean over the runs of a contestant.

    Attributes:
        seeds: the numbers of the runs.
        interval: of one run its 95 % interval; of several the lowest and the highest run.
        error: the standard error of one run.
        floor: the mean of the floors.
        detail: of the first run.
    """

    value: float
    seeds: tuple[float, ...]
    interval: Pair | None
    error: float | None
    floor: float | None
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A measure as pages show it, from the record of the contest; `show` from the table of measures."""

    key: str
    title: str
    explanation: str
    unit: str
    better: Literal["lower", "higher"] | None
    floor: str
    purpose: str

    @property
    def show(self) -> Callable[[float], str]:
        return shown_by(self.key)

    @property
    def arrow(self) -> str:
        return "" if self.better is None else ARROWS[self.better]

    @property
    def meaning(self) -> str:
        """What it is and which way is better, in words."""
        return self.explanation + (f"; {self.better} is better" if self.better else "")


def shown_by(key: str) -> Callable[[float], str]:
    """How people read the values of a measure, with a true minus."""
    if key not in MEASURES:
        return number
    show = MEASURES[key].show
    return lambda value: show(value).replace("-", "−")


def columns(results: Results) -> list[Column]:
    """The measures that anybody has in the order of the record, but those of the purpose asked for first."""
    runs = [r for c in results["contestants"] for r in c["runs"]]
    names = [n for n in Column.__dataclass_fields__ if n not in ("key", "title")]
    records: dict[str, Any] = {**results["measures"]}
    found = [Column(k, capital(m["title"]), **{n: m[n] for n in names}) for k, m in records.items()]
    measured = [c for c in found if figure_of(runs, c.key)]
    return sorted(measured, key=lambda c: c.purpose != results["for"])


def tables(found: Sequence[Column], most: int = 9) -> list[list[Column]]:
    """Columns in as many tables as it takes for each to fit a desk's screen; those of a purpose stay together."""
    packed: list[list[Column]] = []
    for _, group in itertools.groupby(found, lambda c: c.purpose):
        own = list(group)
        for start in range(0, len(own), most):
            part = own[start : start + most]
            if packed and len(packed[-1]) + len(part) <= most:
                packed[-1] += part
            else:
                packed.append(part)
    return packed


def finite(value: Any) -> float | None:
    """``value`` as a number, or None where it is none or not finite."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def reading(record: Mapping[str, Any] | None) -> Figure | None:
    """A figure as files hold it; None where there is none or its value is not finite."""
    value = None if record is None else finite(record["value"])
    if record is None or value is None:
        return None
    low, high = map(finite, record["interval"] or (None, None))
    ends = None if low is None or high is None else (low, high)
    return Figure(value, (value,), ends, finite(record["error"]), finite(record["floor"]), record["detail"])


def figure_of(runs: Sequence[Measures], key: str) -> Figure | None:
    """The mean over the runs that have one."""
    found = [f for f in (reading(r["figures"].get(key)) for r in runs) if f is not None]
    if len(found) < 2:
        return found[0] if found else None
    values = tuple(f.value for f in found)
    floors = [f.floor for f in found if f.floor is not None]
    floor = sum(floors) / len(floors) if floors else None
    return Figure(sum(values) / len(values), values, (min(values), max(values)), None, floor, found[0].detail)


def kind(contestant: Contestant) -> str | None:
    """The kind of a contestant's likelihood."""
    found = figure_of(contestant["runs"], "likelihood")
    return None if found is None else str(found.detail["kind"])


def kind_order(contestant: Contestant) -> int:
    own = kind(contestant)
    return KINDS.index(own) if own in KINDS else len(KINDS)


def sign(kind: str | None) -> str:
    """The sign that goes with a kind of likelihood.

    >>> sign("bound")
    '≤'
    """
    return SIGN.get(kind, "")  # type: ignore[call-overload]


def bits_per_dim(contestant: Contestant) -> Figure | None:
    """Bits/dim, with the interval of the nats in that unit."""
    nats = figure_of(contestant["runs"], "likelihood")
    bits = None if nats is None else finite(nats.detail.get("bits_per_dim"))
    first = 0.0 if nats is None else nats.seeds[0]
    if nats is None or bits is None or not first:
        return None
    ratio = bits / first
    ends = None if nats.interval is None or ratio <= 0 else (nats.interval[0] * ratio, nats.interval[1] * ratio)
    return Figure(nats.value * ratio, tuple(v * ratio for v in nats.seeds), ends, None, None, nats.detail)


def in_order(results: Results) -> list[Contestant]:
    """Those with measured runs, in the order of their places by the purpose asked for, by likelihood and by FID."""
    purpose, places = results["for"] if results["for"] in PURPOSES else None, results["places"]
    first = [] if purpose is None else [leader(places, purpose), *places.get(deciding(purpose), {})]
    ranked = [n for n in dict.fromkeys([*first, *places.get("likelihood", {}), *places.get("fid", {})]) if n]
    found = [c for c in results["contestants"] if c["runs"]]
    return sorted(found, key=lambda c: ranked.index(c["name"]) if c["name"] in ranked else len(ranked))


def mark(places: Mapping[str, Mapping[str, Place]], column: Column, name: str) -> str | None:
    """``best``, or ``tie`` for all that nobody beats beyond the noise; None for others, and where nobody competes."""
    measured = places.get(column.key, {}) if column.better else {}
    place = measured.get(name)
    if place is None or place["rank"] > 1:
        return None
    if sum(p.get("group") == place.get("group") for p in measured.values()) < 2:
        return None
    return "tie" if place["tied"] else "best"


def interval(figure: Figure, show: Callable[[float], str] = number) -> str:
    """Both ends of a figure's interval; empty where it has none, or one of no width.

    >>> shown = Figure(0.92, (0.92,), (0.9, 0.95), None, None, {})
    >>> interval(shown), interval(Figure(0.5, (0.5,), (-1.0, 2.0), None, None, {}))
    ('0.900–0.950', '−1.000 to 2.000')
    """
    if figure.interval is None:
        return ""
    places = decimals(figure.value)
    low, high = (show(v) if show is not number else number(v, places) for v in figure.interval)
    if low == high:
        return ""
    return f"{low} to {high}" if min(figure.interval) < 0 or " " in low + high else f"{low}–{high}"


def headline(figure: Figure, key: str, show: Callable[[float], str]) -> str:
    """A figure in one line, e.g. ``≤ 124.80 ± 0.62``: a likelihood with its sign, and the error of a single run."""
    said = f"{sign(str(figure.detail.get('kind')))} " if key == "likelihood" else ""
    error = f" ± {number(figure.error, 2)}" if key == "likelihood" and figure.error is not None else ""
    return f"{said}{show(figure.value)}{error}".strip()
