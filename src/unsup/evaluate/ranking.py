"""Ranks by each measure, and ties.

Two contestants tie if their difference is at most 1.96 standard errors of the difference: of the paired differences for
means of the log-likelihood over test examples; otherwise as if independent, which gives slightly too many ties. The
variation between seeds is added. Likelihoods are ranked within one kind, and bounds within one number of importance
samples, as a bound decreases with it.

The floor of a measure of samples is its value for held-out data. If equally many samples are far better, they are
copies, or there are too few held-out examples: the contestant is ranked behind the others, and never leads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from unsup.core.words import counted
from unsup.evaluate.estimate import Z
from unsup.evaluate.measures import MEASURES, Measure
from unsup.evaluate.records import Better, Contestant, Figure, Measures, Place, Purpose

KINDS = ("exact", "bound", "estimate")
_PAIRED = {"likelihood": 1.0, "implied_bytes": 1 / (8 * math.log(2)), "coded_bytes": 1 / (8 * math.log(2))}
"""Measures proportional to the mean of −log p over the test examples (coded bytes nearly), and their factors."""
_BEYOND, _ABSURD = 0.5, 0.98  # share of the floor by which a value is suspiciously, and implausibly, better
_ABOUT_ZERO, _CLEAR = ("kid", "modes_kl"), 3.0  # with a floor near 0, a share of it means nothing: errors are counted
_COPYING = 0.6  # lower end of the chance to lie nearer than held-out data: beyond doubt
_TIMING = 0.1 / (Z * math.sqrt(2))  # relative noise of a speed: those within 10 % tie
_FEW = 100  # held-out examples; with fewer, the floor is inaccurate

Scores = Mapping[str, Sequence[NDArray[np.float64]]]
"""Log-probabilities of the test examples, by contestant, one array per seed."""
Places = Mapping[str, Mapping[str, Place]]
"""Places by measure and contestant, the best first."""


@dataclass(frozen=True)
class _Standing:
    """A contestant by one measure.

    Attributes:
        value: mean over seeds.
        noise: its standard error.
        apart: its part in differences, with Student's quantile over 1.96 for the variation between seeds: the whole
            standard error, or what remains if the differences are paired.
        group: the kind of likelihood, or empty.
        beyond: whether the value is implausible.
        scores: the log-probabilities whose mean is the value, times its factor; zeros for other measures.
    """

    value: float
    noise: float
    apart: float
    group: str
    beyond: bool
    scores: NDArray[np.float64]


def places(contestants: Sequence[Contestant], scores: Scores) -> dict[str, dict[str, Place]]:
    """The places of all contestants that did not fail: measure → contestant → place."""
    found: dict[str, dict[str, Place]] = {}
    for key, measure in MEASURES.items():
        if measure.better is None:
            continue
        stands: dict[str, _Standing] = {}
        for c in (c for c in contestants if c["status"] != "failed" and c["runs"]):
            figures = [m["figures"][key] for m in c["runs"] if key in m["figures"]]
            own = scores.get(c["name"], ()) if key in _PAIRED else ()
            if len(figures) == len(c["runs"]) and (key not in _PAIRED or own):
                beyond = all(_is_beyond(measure, m) for m in c["runs"])
                stands[c["name"]] = _standing(measure, figures, own, beyond=beyond)
        ranked: dict[str, Place] = {}
        for group in sorted({s.group for s in stands.values()}, key=_order):
            ranked |= _ranked({n: s for n, s in stands.items() if s.group == group}, measure.better, group)
        _surpassed(ranked, stands, measure.better)
        if ranked:
            found[key] = ranked
    return found


def _standing(
    measure: Measure, figures: Sequence[Figure], scores: Sequence[NDArray[np.float64]], *, beyond: bool
) -> _Standing:
    value, squares, between, wide = _over_seeds(figures, 0.975)
    wide, group = wide / Z, _group(figures)
    if not scores:
        timing = _TIMING * value if measure.key == "sampling" else 0.0
        noise = math.hypot(math.sqrt(squares), between)
        return _Standing(value, noise, math.hypot(math.sqrt(squares), wide, timing), group, beyond, np.zeros(1))
    factor = _PAIRED[measure.key]
    own = factor * np.mean(scores, axis=0)
    # The part of a run's error that is not the variation over examples: that of an estimated log Z.
    rest = max(0.0, squares - float(np.mean([_error_of_mean(factor * s) ** 2 for s in scores]))) / len(figures)
    noise = math.sqrt(_error_of_mean(own) ** 2 + between**2 + rest)
    return _Standing(value, noise, math.sqrt(rest + wide**2), group, beyond, own)


def better_than_chance(contestants: Mapping[str, Sequence[Figure]], chance: float) -> list[str]:
    """The contestants that are significantly better than chance, each by its figures of all seeds.

    The level 2.5 % is divided by the number of contestants (Bonferroni).
    """
    level, found = 1 - 0.025 / max(len(contestants), 1), []
    for name, figures in contestants.items():
        value, squares, _, wide = _over_seeds(figures, level)
        if value - math.hypot(float(ndtri(level)) * math.sqrt(squares), wide) > chance:
            found.append(name)
    return found


def _over_seeds(figures: Sequence[Figure], level: float) -> tuple[float, float, float, float]:
    """The mean over seeds, and its variance over examples, which all seeds share.

    Then the standard error by the variation between seeds: plain, and times Student's quantile.
    """
    from scipy.stats import t as student  # slow to import

    values = np.asarray([float(f["value"]) for f in figures])
    squares, between = float(np.mean([(f["error"] or 0.0) ** 2 for f in figures])), _error_of_mean(values)
    wide = between * float(student.ppf(level, len(values) - 1)) if len(values) > 1 else 0.0
    return float(np.mean(values)), squares, between, wide


def _group(figures: Sequence[Figure]) -> str:
    """The kind of a likelihood; of a bound of more than one importance sample, also their number."""
    kind, samples = str(figures[0]["detail"].get("kind", "")), min(int(f["detail"].get("samples", 1)) for f in figures)
    return f"{kind} of {counted(samples, 'importance sample')}" if kind == "bound" and samples > 1 else kind


def kind_of(place: Place) -> str:
    """
    >>> kind_of({"value": 1, "noise": 0, "rank": 1, "tied": [], "group": "bound of 50 importance samples"})
    'bound'
    """
    return place.get("group", "").split(" ")[0]


def _order(group: str) -> tuple[int, int]:
    """Kinds in their order; among bounds, those of the most importance samples first."""
    kind, *words = group.split(" ")
    return KINDS.index(kind) if kind else -1, -int(words[1].replace(",", "")) if words else -1


def _is_beyond(measure: Measure, run: Measures) -> bool:
    """Whether a run's samples are far better than held-out data (like copies), or its fit is degenerate."""
    if measure.key in _PAIRED:
        # The likelihood of dequantized data is bounded for every fit; a density is not.
        exact = run["figures"][measure.key]["detail"].get("kind") == "exact"
        return exact and any(note.startswith("degenerate ") for note in run["notes"])
    figures = run["figures"]
    figure, copied = figures[measure.key], figures.get("memorisation")
    detail, floor, value = figure["detail"], figure["floor"], figure["value"]
    nearer = copied["interval"][0] if copied is not None and copied["interval"] is not None else None
    if nearer is None or nearer <= _COPYING:
        value = detail.get("at_floor", value)  # as many samples; copies of a whole training set show only together
    if measure.purpose != "samples" or "samples" not in measure.needs or floor is None or value is None:
        return False
    ahead = (1 if measure.better == "lower" else -1) * (floor - value)
    noise = math.sqrt(2) * (detail.get("floor_error") or figure["error"] or 0.0)
    is_relative = measure.key not in _ABOUT_ZERO
    if ahead <= (max(Z * noise, _BEYOND * abs(floor)) if is_relative else _CLEAR * noise):
        return False
    innocent = nearer is not None and nearer <= 0.5
    few = detail.get("held_out", 0) < _FEW
    return few or not innocent or (is_relative and ahead > _ABSURD * abs(floor))


def _error_of_mean(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _noise(a: _Standing, b: _Standing) -> float:
    """The standard error of the difference of two."""
    return math.hypot(_error_of_mean(a.scores - b.scores), a.apart, b.apart)


def _ranked(stands: Mapping[str, _Standing], better: Better, group: str) -> dict[str, Place]:
    """The rank is 1 + the number of contestants that are significantly better."""
    sign = 1 if better == "lower" else -1
    found: dict[str, Place] = {}
    for a, own in sorted(stands.items(), key=lambda s: (s[1].beyond, sign * s[1].value)):
        ahead = own.beyond * (1 + sum(not other.beyond for other in stands.values()))  # real data is better too
        tied = []
        for b, other in stands.items():
            if b == a or own.beyond != other.beyond:
                continue
            difference = sign * (own.value - other.value)
            if abs(difference) <= Z * _noise(own, other):
                tied.append(b)
            elif difference > 0:
                ahead += 1
        found[a] = {"value": own.value, "noise": own.noise, "rank": 1 + ahead, "tied": tied}
        if group:
            found[a]["group"] = group
        if own.beyond:
            found[a]["beyond"] = True
    return found


def _surpassed(ranked: dict[str, Place], stands: Mapping[str, _Standing], better: Better) -> None:
    """Set for every bound the contestants with significantly worse exact values."""
    sign = 1 if better == "lower" else -1
    exact = [n for n, s in stands.items() if s.group == "exact"]
    for name, own in stands.items():
        if own.group.startswith("bound"):
            ranked[name]["surpasses"] = [
                n for n in exact if sign * (stands[n].value - own.value) > Z * _noise(own, stands[n])
            ]


def lowest_bound(found: Mapping[str, Place]) -> str | None:
    """The contestant with the lowest bound, of any number of importance samples, to compare with exact values."""
    bounds = {n: p["value"] for n, p in found.items() if kind_of(p) == "bound"}
    return min(bounds, key=bounds.__getitem__, default=None)


def deciding(purpose: Purpose) -> str:
    """The measure that decides a purpose: the first of the table.

    >>> deciding("samples"), deciding("features")
    ('fid', 'probe')
    """
    return next(key for key, measure in MEASURES.items() if measure.purpose == purpose)


def leader(found: Places, purpose: Purpose | None = None) -> str | None:
    """The best contestant by the measure that decides the purpose.

    Without a purpose, this is the likelihood, or else FID. Among likelihoods, the best exact one leads, unless a bound
    is better; or else the best bound or estimate.
    """
    for key in ("likelihood", "fid") if purpose is None else (deciding(purpose),):
        group = {n: p for n, p in found.get(key, {}).items() if not p.get("beyond")}
        first = next(iter(group), None)
        bound = lowest_bound(group)
        if first is not None and bound is not None and kind_of(group[first]) == "exact":
            return bound if first in group[bound].get("surpasses", []) else first
        if first is not None:
            return first
    return None
