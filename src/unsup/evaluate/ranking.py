"""Places by each measure, and ties.

Two contestants tie where their difference is within the noise of that difference, 1.96 standard errors. For likelihoods
it is that of the paired differences over the same test examples; for other measures the two are taken as independent,
which makes ties a little too many. With several seeds the spread between seeds is added. Likelihoods are ranked among
those of one kind only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from unsup.evaluate.records import Contestant, Interval, Measures, Place

Z = 1.96
RANKED = ("exact", "bound", "estimate")

Scores = Mapping[str, Sequence[NDArray[np.float64]]]
"""Per-example log-probabilities of the test examples, by contestant, one array a seed."""


@dataclass(frozen=True)
class _Measure:
    better: Literal["lower", "higher"]
    read: Callable[[Measures], tuple[float, float] | None]
    """Value and standard error of one run, or None."""


def _of_interval(record: Interval | None) -> tuple[float, float] | None:
    if record is None or record["value"] is None or None in record["interval"]:
        return None
    low, high = record["interval"]
    return record["value"], (high - low) / (2 * Z)


def _quality(name: str) -> Callable[[Measures], tuple[float, float] | None]:
    return lambda m: _of_interval((m["quality"] or {}).get("scores", {}).get(name))


def _within(outer: str, inner: str) -> Callable[[Any], tuple[float, float] | None]:
    return lambda m: None if m[outer] is None else _of_interval(m[outer][inner])


def _plain(read: Callable[[Measures], float | None]) -> Callable[[Measures], tuple[float, float] | None]:
    def found(m: Measures) -> tuple[float, float] | None:
        value = read(m)
        return None if value is None else (value, 0.0)

    return found


MEASURES: dict[str, _Measure] = {
    "fid": _Measure("lower", _quality("fid")),
    "kid": _Measure("lower", _quality("kid")),
    "precision": _Measure("higher", _quality("precision")),
    "recall": _Measure("higher", _quality("recall")),
    "auroc": _Measure("higher", _within("anomaly", "auroc")),
    "average_precision": _Measure("higher", _within("anomaly", "average_precision")),
    "probe": _Measure("higher", _within("probe", "accuracy")),
    "calibration": _Measure("lower", _within("calibration", "error")),
    "sampling": _Measure("higher", _plain(lambda m: m["sampling"]["per_second"] if m["sampling"] else None)),
    "seconds": _Measure("lower", _plain(lambda m: m["train_seconds"])),
    "parameters": _Measure("lower", _plain(lambda m: float(m["parameters"]))),
}


def places(contestants: Sequence[Contestant], scores: Scores) -> dict[str, dict[str, Place]]:
    """Every contestant's place by every measure that it has: measure → contestant → place."""
    done = [c for c in contestants if c["runs"]]
    found = {"likelihood": _likelihoods(done, scores)}
    for name, measure in MEASURES.items():
        means, widened = {}, {}
        for c in done:
            read = [r for r in map(measure.read, c["runs"]) if r is not None]
            if len(read) == len(c["runs"]):
                values = [v for v, _ in read]
                own = math.sqrt(float(np.mean([e**2 for _, e in read])))  # of the examples, which all seeds share
                means[c["name"]] = float(np.mean(values)), math.hypot(own, _seed_error(values))
                widened[c["name"]] = math.hypot(own, _student(len(values)) * _seed_error(values))
        found[name] = _ranked(means, measure.better, _hypot_of(widened))
    return {k: v for k, v in found.items() if v}


def _hypot_of(noise: Mapping[str, float]) -> Callable[[str, str], float]:
    """The noise of the difference of two, whose own noise is independent."""
    return lambda a, b: math.hypot(noise[a], noise[b])


def _seed_error(values: Sequence[float]) -> float:
    """Standard error of a mean over seeds."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _student(seeds: int) -> float:
    """How many times Student's 95 % interval of a mean over so few is as wide as the normal one."""
    return float(student.ppf(0.975, seeds - 1)) / Z if seeds > 1 else 1.0


def _likelihoods(done: Sequence[Contestant], scores: Scores) -> dict[str, Place]:
    by_kind: dict[str, dict[str, tuple[float, float]]] = {}
    per_example: dict[str, NDArray[np.float64]] = {}
    seed_error: dict[str, float] = {}
    shared: dict[str, float] = {}
    for c in done:
        records = [m["likelihood"] for m in c["runs"]]
        if any(r is None for r in records) or c["name"] not in scores:
            continue
        nats = [r["nats"] for r in records if r is not None]
        name = c["name"]
        own: NDArray[np.float64] = np.mean(scores[name], axis=0)
        seed_error[name] = _seed_error(nats)
        spread = float(own.std(ddof=1)) / math.sqrt(len(own)) if len(own) > 1 else 0.0
        # What a run's own error holds beyond the spread over examples: that of an estimated log Z.
        errors = [r["standard_error"] for r in records if r is not None]
        beyond = max(0.0, float(np.mean(np.square(errors))) - _example_variance(scores[name]))
        shared[name] = math.sqrt(beyond / len(records))
        per_example[name] = own
        noise = math.sqrt(spread**2 + seed_error[name] ** 2 + shared[name] ** 2)
        assert records[0] is not None
        by_kind.setdefault(records[0]["kind"], {})[name] = (float(np.mean(nats)), noise)

    def noise_of(a: str, b: str) -> float:
        difference = per_example[a] - per_example[b]
        paired = float(difference.std(ddof=1)) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
        seeds = sum((_student(len(scores[n])) * seed_error[n]) ** 2 for n in (a, b))
        return math.sqrt(paired**2 + seeds + shared[a] ** 2 + shared[b] ** 2)

    found: dict[str, Place] = {}
    for kind in (k for k in RANKED if k in by_kind):
        for name, place in _ranked(by_kind[kind], "lower", noise_of).items():
            found[name] = {**place, "group": kind}
    for name, (mean, _) in by_kind.get("bound", {}).items():
        exact = by_kind.get("exact", {})
        found[name]["surpasses"] = [n for n in exact if mean + Z * noise_of(name, n) < exact[n][0]]
    return found


def _example_variance(scores: Sequence[NDArray[np.float64]]) -> float:
    return float(np.mean([s.var(ddof=1) / len(s) if len(s) > 1 else 0.0 for s in scores]))


def _ranked(
    means: Mapping[str, tuple[float, float]],
    better: Literal["lower", "higher"],
    noise_of: Callable[[str, str], float],
) -> dict[str, Place]:
    """Rank 1 + how many are better beyond the noise; whom each ties with."""
    sign = 1 if better == "lower" else -1
    found: dict[str, Place] = {}
    for a in sorted(means, key=lambda n: sign * means[n][0]):
        ahead, tied = 0, []
        for b in means:
            if b == a:
                continue
            difference = sign * (means[a][0] - means[b][0])
            if abs(difference) <= Z * noise_of(a, b):
                tied.append(b)
            elif difference > 0:
                ahead += 1
        found[a] = {"value": means[a][0], "noise": means[a][1], "rank": 1 + ahead, "tied": tied}
    return found


def leader(found: Mapping[str, Mapping[str, Place]]) -> str | None:
    """Who to go on with: the best exact likelihood, a bound that is better than it, the best estimate, the best FID."""
    group = found.get("likelihood", {})
    first = next(iter(group), None)
    bound = next((n for n, p in group.items() if p.get("group") == "bound"), None)
    if first is not None and bound is not None and first in group[bound].get("surpasses", []):
        return bound
    return first or next(iter(found.get("fid", {})), None)
