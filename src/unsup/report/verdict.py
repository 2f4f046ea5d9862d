"""The summary of a contest in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from unsup.evaluate.ranking import RANKED, Z, leader
from unsup.evaluate.records import Baselines, Contestant, Place

_SIGN = {"exact": "", "bound": "≤ ", "estimate": "≈ "}
_COPIES = 0.05  # share of copies, 0.01 expected, from which it is said
_FEW = 100  # test examples below which it is said
_ENOUGH = 300  # held-out examples, so that their nearest hundredth is more than a few
_NEARER = 0.6  # lower end of the chance to lie nearer than held-out data from which it is said


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
    for kind in RANKED:
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
        if place["value"] - Z * place["noise"] <= 0.5:
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
