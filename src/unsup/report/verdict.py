"""The summary of a contest in plain sentences.

Rules: a superlative needs two or more to compare, a lead beyond the noise and a value that real data explain; likelihoods
of different kinds are compared only where a bound decides; an accuracy or AUROC stands beside chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unsup.core.words import counted, listed
from unsup.evaluate.estimate import Z
from unsup.evaluate.ranking import KINDS, Places, deciding, leader
from unsup.evaluate.records import Contestant, Figure, Place, Purpose, StoredSize

_SIGN = {"exact": "", "bound": "≤ ", "estimate": "≈ "}
_NOUN = {"exact": "exact likelihood", "bound": "likelihood bound", "estimate": "estimated likelihood"}
_COPIES = 0.05  # share of copies, 0.01 expected, from which it is said
_FEW = 100  # test examples below which it is said
_ENOUGH = 300  # held-out examples, so that their nearest hundredth is more than a few
_NEARER = 0.6  # lower end of the chance to lie nearer than held-out data from which it is said
_OVERRUN = 1.25  # times the minutes, from which it is said


@dataclass(frozen=True)
class Outcome:
    """What the sentences are about.

    Attributes:
        contestants: with their runs.
        places: by measure and contestant.
        purpose: the question of the user, or None.
        examples: in the test split that were measured.
        thing: what one example is called: ``image``, ``row``, ``sequence``.
        artificial: whether the anomalies are test examples whose columns are shuffled independently.
        stored: real bytes of the examples.
        minutes, seconds: of the contest; how long it took.
    """

    contestants: Sequence[Contestant]
    places: Places
    purpose: Purpose | None = None
    examples: int = _FEW
    thing: str = "row"
    artificial: bool = True
    stored: Sequence[StoredSize] = field(default_factory=list)
    minutes: float | None = None
    seconds: float = 0.0

    def figure(self, name: str, key: str) -> Figure:
        """Of the first run of a contestant."""
        return next(c for c in self.contestants if c["name"] == name)["runs"][0]["figures"][key]

    def mean(self, name: str, read: Any) -> float:
        """Of a number of each run."""
        return float(np.mean([read(m) for c in self.contestants if c["name"] == name for m in c["runs"]]))


def summary(outcome: Outcome) -> list[str]:
    """What came out, in plain sentences; those for the user's purpose come first."""
    said: dict[Purpose, list[str]] = {
        "density": _density(outcome),
        "samples": _samples(outcome),
        "compression": _compression(outcome),
        "features": _features(outcome),
        "classes": _classes(outcome),
        "anomalies": _anomalies(outcome),
        "cost": _cost(outcome),
    }
    if not outcome.artificial:  # else they test less than the others, and come later
        said = {"density": said["density"], "anomalies": said["anomalies"]} | said
    first: list[str] = []
    if outcome.purpose is not None and any(c["runs"] for c in outcome.contestants):
        first = said.pop(outcome.purpose) or [_nothing_for(outcome, outcome.purpose)]
    lines = [*first, *(line for section in said.values() for line in section), *_copies(outcome), *_caveats(outcome)]
    return lines or ["No contestant has been measured yet."]


def _first(group: Mapping[str, Place], alone: str, best: str, tie: str) -> str:
    """The clause about who comes first in a group: alone in it, ahead of the others, or with whom it ties.

    >>> _first({"a": {"value": 1, "noise": 0, "rank": 1, "tied": []}}, "has a score", "has the best score", "")
    'a has a score'
    """
    name, place = next(iter(group.items()))
    if len(group) == 1:
        return f"{name} {alone}"
    return f"{name} {best}" if not place["tied"] else f"{listed([name, *place['tied']])} tie for {tie}"


# --- density ----------------------------------------------------------------------------------------------------------


def _density(o: Outcome) -> list[str]:
    found = o.places.get("likelihood", {})
    groups = {kind: {n: p for n, p in found.items() if p.get("group") == kind} for kind in KINDS}
    lines = []
    for kind, group in groups.items():
        if not group:
            continue
        name, place = next(iter(group.items()))
        sign, noun = _SIGN[kind], _NOUN[kind]
        bits = o.mean(name, lambda m: m["figures"]["likelihood"]["detail"]["bits_per_dim"])
        who = _first(group, f"has {_a(noun)}", f"has the best {noun}", f"the best {noun}")
        line = f"{who}: {sign}{bits:.3f} bits/dim ({sign}{place['value']:.2f} ± {place['noise']:.2f} nats)"
        behind = next((n for n in group if n != name and n not in place["tied"]), None)
        if place["tied"]:
            line += f" for {name}, and the others differ from it by less than the noise"
        if behind is not None:
            line += f", {group[behind]['value'] - place['value']:.2f} nats ahead of {behind}"
        lines.append(line + ".")
    exact, bound = groups["exact"], groups["bound"]
    if exact and bound:
        name, place = next(iter(bound.items()))
        beaten = place.get("surpasses", [])
        every = "every exact likelihood" if len(exact) > 1 else f"the exact likelihood of {next(iter(exact))}"
        if set(beaten) >= set(exact):
            claim = "models the data best of those with an exact likelihood or a bound" if not place["tied"] else (
                "models the data better than those with an exact likelihood"
            )
            # Who is ahead comes first.
            lines.insert(
                0,
                f"{name} {claim}: its bound is lower than {every} by more than the noise, and its true value is as low "
                "or lower.",
            )
        elif beaten:
            lines.append(f"The bound of {name} is lower than the exact likelihood of {listed(beaten)} by more than the noise.")
        else:
            lines.append(
                f"The bound of {name} is not lower than {every} by more than the noise, so that it is not known which "
                "models the data better."
            )
    return lines


# --- samples ----------------------------------------------------------------------------------------------------------


def _samples(o: Outcome) -> list[str]:
    found = o.places.get("fid", {})
    honest = {n: p for n, p in found.items() if not p.get("beyond")}
    lines = []
    if honest:
        name, place = next(iter(honest.items()))
        figure = o.figure(name, "fid")
        who = _first(
            honest, "draws samples of this FID", "draws the most lifelike samples by FID", "the most lifelike samples by FID"
        )
        held_out, fake = figure["detail"].get("held_out", 0), figure["detail"].get("fake", 0)
        few = f" ({counted(held_out, 'example')} only, which raises it)" if held_out < fake else ""
        beside = "" if figure["floor"] is None else f", where held-out data get {figure['floor']:.2f}{few}"
        own = f"{place['value']:.2f} for {name}" if place["tied"] else f"{place['value']:.2f}"
        lines.append(f"{who}: {own}{beside}.")
    for name, place in found.items():
        if place.get("beyond"):
            figure = o.figure(name, "fid")
            lines.append(
                f"{name} has an FID of {place['value']:.2f}, far below the {figure['floor']:.2f} of held-out data: it "
                f"copies its training data, or {counted(figure['detail'].get('held_out', 0), 'held-out example')} are "
                "too few to compare with; it is not ranked by its samples."
            )
    return lines


def _copies(o: Outcome) -> list[str]:
    lines = []
    for c in o.contestants:
        for run in c["runs"]:
            near = run["figures"].get("memorisation")
            if near is None or near["value"] is None:
                continue
            copies = near["detail"].get("copies") or 0.0
            held_out = run["figures"]["fid"]["detail"].get("held_out", 0) if "fid" in run["figures"] else 0
            low = (near["interval"] or (None, None))[0]
            if (copies > _COPIES and held_out >= _ENOUGH) or (low is not None and low > _NEARER):
                lines.append(
                    f"{c['name']} may copy its training data: its samples are nearer to them than held-out data are in "
                    f"{near['value']:.0%} of pairs (50 % is expected), and {copies:.0%} of them are nearer than all but "
                    "1 % of held-out data."
                )
                break
    return lines


# --- uses -------------------------------------------------------------------------------------------------------------


def _compression(o: Outcome) -> list[str]:
    name = leader(o.places, "compression")
    if name is None:
        return []
    place = o.places["implied_bytes"][name]
    kind = {"bound": "at most ", "estimate": "by estimate "}.get(place.get("group", ""), "")
    line = f"The likelihood of {name} implies {kind}{place['value']:.1f} bytes {_a(o.thing)}"
    if not o.stored:
        return [line + "."]
    codec = min(o.stored, key=lambda s: s["bytes"])
    return [
        f"{line}; the smallest real file here, {codec['codec']} ({codec['how']}), takes {codec['per_example']:.1f}. No "
        "file was written with the model."
    ]


def _anomalies(o: Outcome) -> list[str]:
    group = o.places.get("auroc")
    if not group:
        return []
    name, place = next(iter(group.items()))
    figure = f"{place['value']:.3f}{f' for {name}' if place['tied'] else ''} (0.5 is chance)"
    chance = place["value"] - Z * place["noise"] <= 0.5
    if not o.artificial:
        if chance:
            return [f"No model detects the anomalies better than chance: the highest AUROC is {figure}, of {name}."]
        who = _first(group, "detects the anomalies", "detects the anomalies best", "the best detection of the anomalies")
        return [f"{who}: AUROC {figure}."]
    who = _first(group, "has an AUROC of", "has the highest AUROC,", "the highest AUROC,")
    if chance:
        who = f"no AUROC is above chance; {name} has"
    line = (
        f"Artificial anomalies, test examples whose columns are shuffled independently, test only whether a model sees "
        f"dependence between columns: {who} {figure}."
    )
    if o.purpose != "anomalies":
        return [line]
    return [
        "It is not known which model detects real anomalies best, since none were given; --anomalies PATH or class:NAME "
        "gives some.",
        line,
    ]


def _features(o: Outcome) -> list[str]:
    return _accuracy(o, "probe", "The features of", "predict the classes", "a linear probe of the features")


def _classes(o: Outcome) -> list[str]:
    return _accuracy(o, "accuracy", "", "predicts the classes", "a classifier")


def _accuracy(o: Outcome, key: str, of: str, does: str, what: str) -> list[str]:
    group = o.places.get(key)
    if not group:
        return []
    name, place = next(iter(group.items()))
    figure = o.figure(name, key)
    majority = figure["detail"].get("majority", figure["floor"] if key == "accuracy" else None)
    if majority is None or majority >= 1:
        return []  # one class, which nothing has to be known for
    beside = f"the most frequent class alone gives {majority:.1%}"
    if key == "probe" and figure["floor"] is not None:
        beside += f", the raw data {figure['floor']:.1%}{', which is more' if figure['floor'] > place['value'] else ''}"
    if place["value"] - Z * place["noise"] <= majority:
        return [f"No model has features or classes that {what} reads better than chance: {place['value']:.1%} at most; {beside}."]
    who = _first(group, does, f"{does} best", "the best prediction of the classes")
    own = f"{place['value']:.1%}{f' for {name}' if place['tied'] else ''}"
    return [f"{of} {who}: {own} by {what}; {beside}.".strip()]


def _cost(o: Outcome) -> list[str]:
    name = leader(o.places, o.purpose) or leader(o.places)
    if name is None:
        return []
    parameters = o.mean(name, lambda m: m["parameters"])
    seconds = o.mean(name, lambda m: m["train_seconds"] or 0.0)
    line = f"Cost of {name}: {counted(round(parameters), 'parameter')}, {counted(round(seconds), 'second')} of training"
    speeds = o.places.get("sampling", {})
    if name in speeds:
        line += f", {_rate(speeds[name]['value'], o.thing)}"
        fastest = next(iter(speeds))
        if fastest != name and name not in speeds[fastest]["tied"]:
            line += f" ({fastest} draws {_rate(speeds[fastest]['value'], o.thing)}, the most)"
    return [line + "."]


# --- what to bear in mind ---------------------------------------------------------------------------------------------


def _nothing_for(o: Outcome, purpose: Purpose) -> str:
    key = deciding(purpose)
    reasons = [m["missing"][key] for c in o.contestants for m in c["runs"] if key in m["missing"]]
    return f"Nothing can be said of {purpose}" + (f": {reasons[0]}." if reasons else ".")


def _caveats(o: Outcome) -> list[str]:
    lines = []
    measured = any(c["runs"] for c in o.contestants)
    if measured and o.examples < _FEW:
        lines.append(f"There are only {counted(o.examples, 'test example')}, so that only large differences can be seen.")
    lines += [f"{c['name']} failed: {c['reason']}." for c in o.contestants if c["status"] == "failed"]
    if o.minutes is not None and o.seconds > _OVERRUN * 60 * o.minutes:
        runs = [(c["name"], m) for c in o.contestants for m in c["runs"]]
        training, measuring = (sum(m[k] or 0.0 for _, m in runs) for k in ("train_seconds", "measure_seconds"))
        line = (
            f"The contest took {counted(float(f'{o.seconds / 60:.3g}'), 'minute')}, more than the {counted(o.minutes, 'minute')} asked "
            f"for: {training:.0f} s of training, {measuring:.0f} s of measuring"
        )
        if runs:
            slow, most = max(runs, key=lambda r: (r[1]["train_seconds"] or 0.0) + (r[1]["measure_seconds"] or 0.0))
            line += f", of which {(most['train_seconds'] or 0) + (most['measure_seconds'] or 0):.0f} s for {slow}"
        lines.append(line + ".")
    return lines


def _rate(value: float, thing: str) -> str:
    return f"{counted(round(value) if value >= 10 else float(f'{value:.2g}'), thing)} a second"


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
