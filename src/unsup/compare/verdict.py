"""Who won, by how much, and what that is worth: places by each measure, ties, and a summary in plain words.

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

from unsup.compare.records import Baselines, Contestant, Interval, Measures, Place

_Z = 1.96
_SIGN = {"exact": "", "bound": "≤ ", "estimate": "≈ "}
_RANKED = ("exact", "bound", "estimate")
_COPIES = 0.05  # share of copies, 0.01 expected, from which it is said
_FEW = 100  # test examples below which it is said
_ENOUGH = 300  # held-out examples, so that their nearest hundredth is more than a few
_NEARER = 0.6  # lower end of the chance to lie nearer than held-out data from which it is said

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
    return record["value"], (high - low) / (2 * _Z)


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
    return float(student.ppf(0.975, seeds - 1)) / _Z if seeds > 1 else 1.0


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
    for kind in (k for k in _RANKED if k in by_kind):
        for name, place in _ranked(by_kind[kind], "lower", noise_of).items():
            found[name] = {**place, "group": kind}
    for name, (mean, _) in by_kind.get("bound", {}).items():
        exact = by_kind.get("exact", {})
        found[name]["surpasses"] = [n for n in exact if mean + _Z * noise_of(name, n) < exact[n][0]]
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
            if abs(difference) <= _Z * noise_of(a, b):
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


# --- in words -------------------------------------------------------------------------------------------------------


def summary(
    contestants: Sequence[Contestant], found: Mapping[str, Mapping[str, Place]], baselines: Baselines, thing: str
) -> list[str]:
    """What came out, in plain sentences.

    Args:
        thing: what one example is called: ``image``, ``row``, ``sequence``.
    """
    done = {c["name"]: c for c in contestants if c["runs"]}
    counts = [m["likelihood"]["n"] for c in done.values() for m in c["runs"] if m["likelihood"]]
    few = f"There are only {max(counts, default=0)} test examples, so that only large differences can be seen."
    lines = [
        *_said_likelihood(done, found.get("likelihood", {})),
        *_said_samples(done, found),
        *_said_bytes(done, found.get("likelihood", {}), baselines, thing),
        *_said_use(done, found, baselines),
        *_said_cost(done, found, thing),
        *_said_copies(done),
        *([few] if counts and max(counts) < _FEW else []),
    ]
    failed = [c for c in contestants if c["status"] == "failed"]
    lines += [f"{c['name']} failed: {c['reason']}." for c in failed]
    return lines or ["No contestant has been measured yet."]


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _ties(place: Place) -> str:
    return f" It ties with {_names(place['tied'])}: they differ by less than the noise." if place["tied"] else ""


def _bits(contestant: Contestant) -> float:
    return float(np.mean([m["likelihood"]["bits_per_dim"] for m in contestant["runs"] if m["likelihood"]]))


def _first(group: Mapping[str, Place]) -> str:
    """The one that leads, the first listed where several tie for it."""
    return next(iter(group))


def _said_likelihood(done: Mapping[str, Contestant], found: Mapping[str, Place]) -> list[str]:
    lines, leaders = [], {}
    for kind in _RANKED:
        group = {n: p for n, p in found.items() if p.get("group") == kind}
        if not group:
            continue
        first = leaders[kind] = _first(group)
        sign, place = _SIGN[kind], group[first]
        line = f"{first} gives the best {kind} likelihood" if kind != "bound" else f"{first} gives the best bound"
        line += f": {sign}{_bits(done[first]):.3f} bits/dim ({sign}{place['value']:.2f} ± {place['noise']:.2f} nats)"
        beaten = next((n for n in group if n != first and n not in place["tied"]), None)
        if beaten is not None:
            line += f", {group[beaten]['value'] - place['value']:.2f} nats ahead of {beaten}"
        lines.append(line + "." + _ties(place))
    if {"exact", "bound"} <= leaders.keys():
        if leader({"likelihood": found}) == leaders["bound"]:
            # Who is ahead comes first.
            lines.insert(
                0,
                f"{leaders['bound']} models the data best: its bound is lower than every exact likelihood here, beyond "
                "the noise, and a bound can only hide a better model.",
            )
        else:
            lines.append(
                f"An exact value and a bound are not ranked: the bound of {leaders['bound']} is not below the exact "
                f"value of {leaders['exact']} beyond the noise, but what it bounds may be."
            )
    return lines


def _said_samples(done: Mapping[str, Contestant], found: Mapping[str, Mapping[str, Place]]) -> list[str]:
    group = found.get("fid")
    if not group:
        return []
    first = _first(group)
    quality = done[first]["runs"][0]["quality"]
    assert quality is not None
    floor = quality["scores"]["fid"]["floor"]
    count = quality["held_out"]
    few = f" ({count:,} of them only, which raises it)" if count < quality["fake"] else ""
    best = "draws the most lifelike samples by FID" if len(group) > 1 else "draws samples of an FID"
    return [
        f"{first} {best}: {group[first]['value']:.2f}, beside {floor:.2f} for held-out data in their place{few}."
        f"{_ties(group[first])}"
    ]


def _said_bytes(
    done: Mapping[str, Contestant], found: Mapping[str, Place], baselines: Baselines, thing: str
) -> list[str]:
    implied = {n: [m["implied_bytes"]["value"] for m in done[n]["runs"] if m["implied_bytes"]] for n in found}
    best = leader({"likelihood": found})
    if best is None or not implied[best] or not baselines["stored"]:
        return []
    value = float(np.mean(implied[best]))
    kind = {"bound": "at most ", "estimate": "by estimate "}.get(found[best].get("group", ""), "")
    codec = min(baselines["stored"], key=lambda s: s["bytes"])
    return [
        f"The likelihood of {best} implies {kind}{value:.1f} bytes {_a(thing)}, where the smallest real file here, "
        f"{codec['codec']} ({codec['how']}), takes {codec['per_example']:.1f}: implied, since no such file was written."
    ]


def _said_use(
    done: Mapping[str, Contestant], found: Mapping[str, Mapping[str, Place]], baselines: Baselines
) -> list[str]:
    lines = []
    if group := found.get("auroc"):
        first = _first(group)
        place = group[first]
        figure = f"AUROC {place['value']:.3f} (½ is chance)"
        if place["value"] - _Z * place["noise"] <= 0.5:
            lines.append(f"Nobody tells anomalies from the data: {figure} at best.")
        else:
            best = "tells anomalies best" if len(group) > 1 else "tells anomalies from the data"
            lines.append(f"{first} {best}: {figure}.{_ties(place)}")
    if group := found.get("probe"):
        first = _first(group)
        best = "are the best for classes" if len(group) > 1 else "tell classes"
        line = f"The features of {first} {best}: {group[first]['value']:.1%} by a linear probe"
        if baselines["raw_probe"] is not None:
            raw = baselines["raw_probe"]["accuracy"]["value"]
            more = raw > group[first]["value"]
            line += f", where the raw data alone gives {'more, ' if more else ''}{raw:.1%}"
        lines.append(f"{line}.{_ties(group[first])}")
    return lines


def _said_cost(done: Mapping[str, Contestant], found: Mapping[str, Mapping[str, Place]], thing: str) -> list[str]:
    winner = leader(found)
    if winner is None:
        return []
    parameters, seconds = done[winner]["runs"][0]["parameters"], found["seconds"][winner]["value"]
    line = f"What it costs: {winner} has {parameters:,} parameters and trained {seconds:.0f} s"
    if winner in found.get("sampling", {}):
        line += f"; it draws {_rate(found['sampling'][winner]['value'])} {thing}s a second"
        fastest = _first(found["sampling"])
        if fastest != winner:
            line += f", {fastest}, the fastest, {_rate(found['sampling'][fastest]['value'])}"
    return [line + "."]


def _said_copies(done: Mapping[str, Contestant]) -> list[str]:
    lines = []
    for name, contestant in done.items():
        for run in contestant["runs"]:
            near = run["memorisation"]
            held_out = (run["quality"] or {}).get("held_out", 0)
            many = near is not None and near["copies"] > _COPIES and held_out >= _ENOUGH
            if near is not None and (many or near["nearer"]["interval"][0] > _NEARER):
                lines.append(
                    f"{name} may copy its training data: its samples lie nearer to them than held-out data does in "
                    f"{near['nearer']['value']:.0%} of pairs (50 % is expected), {near['copies']:.0%} of them nearer "
                    "than all but 1 % of held-out data."
                )
                break
    return lines


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _a(thing: str) -> str:
    return f"an {thing}" if thing[0] in "aeiou" else f"a {thing}"
