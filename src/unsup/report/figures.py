"""The figures of a contest from its records: a `Column` for each measure, a `Figure` per contestant and measure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from unsup.core.likelihood import SIGN
from unsup.evaluate.measures import MEASURES
from unsup.evaluate.ranking import deciding, leader
from unsup.evaluate.records import Contestant, Measures, Place, Purpose, Results
from unsup.report.svg import number
from unsup.report.words import capital

Pair = tuple[float, float]
KINDS = ("exact", "bound", "estimate", "unnormalised")
"""Kinds of likelihood in the order of the page; contestants without a likelihood come last."""
STATUS = {"waiting": "not started", "unfinished": "in progress", "failed": "failed"}
"""Labels of contestants that are not done."""
PURPOSES = {purpose: capital(purpose) for purpose in get_args(Purpose)} | {"density": "Likelihood"}
"""Purposes of measures, as headings."""


@dataclass(frozen=True)
class Figure:
    """The value of one run, or the mean over the runs of a contestant.

    Attributes:
        seeds: the values of the runs.
        interval: 95 % of one run; the lowest and the highest of several.
        error: standard error of one run.
        floor: mean of the floors.
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
    """A measure as pages show it: its record in the results, and the format of values from the table of measures."""

    key: str
    title: str
    explanation: str
    unit: str
    better: Literal["lower", "higher"] | None
    floor: str
    purpose: str

    @classmethod
    def of(cls, key: str, record: Mapping[str, Any]) -> Column:
        return cls(key, **{**record, "title": capital(record["title"])})

    def show(self, value: float) -> str:
        """A value for people, with a true minus."""
        return MEASURES[self.key].show(value).replace("-", "−") if self.key in MEASURES else number(value)

    @property
    def arrow(self) -> str:
        return "" if self.better is None else f"{'↓' if self.better == 'lower' else '↑'} {self.better} is better"

    @property
    def meaning(self) -> str:
        """The explanation, and which direction is better."""
        return self.explanation + (f"; {self.better} is better" if self.better else "")

    def headline(self, figure: Figure) -> str:
        """A figure in one line, e.g. ``≤ 124.80 ± 0.62``: likelihoods with their sign and the error of a single run."""
        if self.key != "likelihood":
            return self.show(figure.value)
        error = "" if figure.error is None else f" ± {number(figure.error, 2)}"
        return f"{sign(figure.detail.get('kind'))} {self.show(figure.value)}{error}".strip()

    def interval(self, figure: Figure) -> str:
        """Both ends of the interval; empty if there is none or its ends are equal."""
        if figure.interval is None:
            return ""
        low, high = map(self.show, figure.interval)
        between = " to " if min(figure.interval) < 0 or " " in low + high else "–"
        return "" if low == high else f"{low}{between}{high}"

    def with_interval(self, figure: Figure) -> str:
        ends = self.interval(figure)
        return self.show(figure.value) + (f" ({ends})" if ends else "")


def columns(results: Results) -> list[Column]:
    """The measures that any run has, in the order of the record; those of the requested purpose come first."""
    runs = [r for c in results["contestants"] for r in c["runs"]]
    found = [Column.of(key, record) for key, record in results["measures"].items() if figure_of(runs, key)]
    return sorted(found, key=lambda c: c.purpose != results["for"])


def tables(found: Sequence[Column], most: int = 8) -> list[list[Column]]:
    """Columns in tables of at most ``most``, so that each fits a desktop screen; a purpose is not split if possible."""
    packed: list[list[Column]] = [[]]
    for _, group in itertools.groupby(found, lambda c: c.purpose):
        own = list(group)
        for part in (own[start : start + most] for start in range(0, len(own), most)):
            if len(packed[-1]) + len(part) > most:
                packed.append([])
            packed[-1] += part
    return [table for table in packed if table]


def finite(value: Any) -> float | None:
    """``value`` as a float, or None if it is not a finite number."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def reading(record: Mapping[str, Any] | None) -> Figure | None:
    """A figure from a file; None if it is missing or its value is not finite."""
    if record is None or (value := finite(record["value"])) is None:
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


def figures(results: Results, key: str) -> list[tuple[Contestant, Figure]]:
    """Contestants in order with their figure of a measure, those that have one."""
    return [(c, figure) for c in in_order(results) if (figure := figure_of(c["runs"], key))]


def kind(contestant: Contestant) -> str | None:
    """The kind of a contestant's likelihood."""
    found = figure_of(contestant["runs"], "likelihood")
    return None if found is None else str(found.detail["kind"])


def kind_order(contestant: Contestant) -> int:
    own = kind(contestant)
    return KINDS.index(own) if own in KINDS else len(KINDS)


def sign(kind: Any) -> str:
    """The sign of a kind of likelihood.

    >>> sign("bound")
    '≤'
    """
    return {str(k): v for k, v in SIGN.items()}.get(str(kind), "")


def bits_per_dim(contestant: Contestant, key: str = "likelihood") -> Figure | None:
    """Bits/dim of a measure, with the interval of its nats or bytes in that unit."""
    found = figure_of(contestant["runs"], key)
    bits = None if found is None else finite(found.detail.get("bits_per_dim"))
    if found is None or bits is None or not found.seeds[0]:
        return None
    ratio = bits / found.seeds[0]
    ends = None if found.interval is None or ratio <= 0 else (found.interval[0] * ratio, found.interval[1] * ratio)
    return Figure(found.value * ratio, tuple(v * ratio for v in found.seeds), ends, None, None, found.detail)


def bits_text(contestant: Contestant, key: str = "likelihood") -> str:
    """Bits/dim of a measure with its sign; empty if there is none."""
    bits = bits_per_dim(contestant, key)
    return "" if bits is None else f"{sign(bits.detail.get('kind'))} {number(bits.value, 4)}".strip()


def gap_text(figure: Figure) -> str:
    """How much more than the implied bytes coded ones are; empty if this is not known.

    >>> gap_text(Figure(16.1, (16.1,), None, None, None, {"gap": 0.0123}))
    '1.23 % more than implied'
    """
    gap = finite(figure.detail.get("gap"))
    return "" if gap is None else f"{abs(100 * gap):.2f} % {'less' if gap < 0 else 'more'} than implied"


def untrained(detail: Mapping[str, Any]) -> float | None:
    """The value of the same encoder with random parameters; None if it was not measured.

    >>> untrained({"untrained": 0.5}), untrained({})
    (0.5, None)
    """
    return finite(detail.get("untrained"))


def in_order(results: Results) -> list[Contestant]:
    """Those with measured runs, ranked by the requested purpose, then by likelihood, then by FID."""
    purpose, places = results["for"] if results["for"] in PURPOSES else None, results["places"]
    first = [] if purpose is None else [leader(places, purpose), *places.get(deciding(purpose), {})]
    ranked = [n for n in dict.fromkeys([*first, *places.get("likelihood", {}), *places.get("fid", {})]) if n]
    found = [c for c in results["contestants"] if c["runs"]]
    return sorted(found, key=lambda c: ranked.index(c["name"]) if c["name"] in ranked else len(ranked))


def mark(places: Mapping[str, Mapping[str, Place]], column: Column, name: str) -> str | None:
    """``best``, or ``tie`` for all that no other beats by more than the noise; None for others and without rivals."""
    measured = places.get(column.key, {}) if column.better else {}
    place = measured.get(name)
    if place is None or place["rank"] > 1 or sum(p.get("group") == place.get("group") for p in measured.values()) < 2:
        return None
    return "tie" if place["tied"] else "best"
