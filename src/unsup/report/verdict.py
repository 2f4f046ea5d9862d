"""The summary of a comparison in plain sentences.

Rules: a superlative needs two or more models and a lead beyond the noise; likelihoods of different kinds are
compared only if a bound decides; accuracies and AUROCs are given with chance; samples far better than held-out data,
artificial anomalies and models that failed never lead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unsup.core.words import counted, listed
from unsup.evaluate.estimate import Z
from unsup.evaluate.ranking import Places, better_than_chance, deciding, kind_of, leader, lowest_bound
from unsup.evaluate.records import Contestant, Figure, Measures, Place, Purpose, StoredSize

_SIGN = {"exact": "", "bound": "≤ ", "estimate": "≈ "}
_NOUN = {"exact": "exact likelihood", "bound": "likelihood bound", "estimate": "estimated likelihood"}
_LEADS = {
    "fid": ("has an FID of", "draws the most lifelike samples by FID:", "the most lifelike samples by FID:"),
    "auroc": ("detects anomalies", "detects the anomalies best", "the best detection of the anomalies"),
    "artificial": ("has an AUROC of", "has the highest AUROC,", "the highest AUROC,"),
    "probe": ("predict the classes", "predict the classes best", "the best prediction of the classes"),
    "accuracy": ("predicts the classes", "predicts the classes best", "the best prediction of the classes"),
}
"""Clauses about a leader: without rivals, ahead of them, and tied."""
_COPIES = 0.05  # reported share of copies, 0.01 is expected
_FEW = 100  # fewer test examples are reported
_ENOUGH = 300  # held-out examples for which the share of copies is reliable
_NEARER = 0.6  # reported lower end of the chance to be nearer to training data than held-out data
_REASONS = 2  # named where no model has the measure of the purpose
_OVERRUN = 1.25  # reported overrun, times the minutes


SHORT = "short training: "
"""The start of the note of a run that saw less than its training data once."""


def trained_little(contestant: Contestant) -> list[str]:
    """The remarks on runs of a contestant that were trained for less than a pass over the training data."""
    notes = dict.fromkeys(n for run in contestant["runs"] for n in run["notes"] if n.startswith(SHORT))
    return [note.removeprefix(SHORT) for note in notes]


@dataclass(frozen=True)
class Outcome:
    """The subject of the sentences.

    Attributes:
        places: by measure and contestant.
        purpose: the question of the user, or None.
        examples: number of test examples measured.
        thing: the word for one example: ``image``, ``row``, ``sequence``.
        artificial: whether the anomalies are test examples whose columns are shuffled independently.
        stored: real bytes of the examples.
        minutes: the requested time, or None.
        seconds: the time taken.
    """

    contestants: Sequence[Contestant]
    places: Places
    purpose: Purpose | None = None
    examples: int = _FEW
    thing: str = "row"
    artificial: bool = True
    stored: Sequence[StoredSize] = ()
    minutes: float | None = None
    seconds: float = 0.0

    def runs(self, name: str) -> list[Measures]:
        return next(c for c in self.contestants if c["name"] == name)["runs"]

    def figure(self, name: str, key: str) -> Figure:
        """Of the first run of a contestant."""
        return self.runs(name)[0]["figures"][key]

    @property
    def chosen(self) -> str | None:
        """The contestant to continue with: the leader for the purpose, or by likelihood if that is not known."""
        unknown = self.purpose == "anomalies" and self.artificial
        return (None if unknown else leader(self.places, self.purpose)) or leader(self.places)

    def beyond_chance(self, key: str, chance: float) -> tuple[dict[str, Place], list[str]]:
        """The places of the contestants that are better than chance, with the ties among them.

        Then the others that are not worse than the first of these by more than the noise.
        """
        group = self.places[key]
        names = better_than_chance({n: [m["figures"][key] for m in self.runs(n)] for n in group}, chance)
        found: dict[str, Place] = {
            n: {**group[n], "tied": [t for t in group[n]["tied"] if t in names]} for n in group if n in names
        }
        first = next(iter(found), None)
        if first is None:
            return {}, []
        tied, ahead = group[first]["tied"], group[first]["value"] or 0.0
        return found, [n for n, p in group.items() if n not in names and (n in tied or (p["value"] or 0.0) > ahead)]

    def mean(self, name: str, read: Callable[[Measures], float]) -> float:
        return float(np.mean([read(m) for m in self.runs(name)]))


def summary(outcome: Outcome) -> list[str]:
    """The outcome in sentences; those for the user's purpose come first."""
    if not any(c["runs"] for c in outcome.contestants):
        return _caveats(outcome) or ["No model has been measured yet."]
    sections: dict[Purpose, list[str]] = {
        "density": _density(outcome),
        "samples": _samples(outcome),
        "compression": _compression(outcome),
        "features": _accuracy(outcome, "probe", "The features of", " by a linear probe"),
        "classes": _accuracy(outcome, "accuracy", "", ""),
        "anomalies": _anomalies(outcome),
        "cost": _cost(outcome),
    }
    first = sections.pop(outcome.purpose) or [_nothing(outcome, outcome.purpose)] if outcome.purpose else []
    rest = [line for lines in sections.values() for line in lines]
    return [*first, *rest, *_copies(outcome), *_caveats(outcome)]


def _who(group: Mapping[str, Place], alone: str, best: str, tie: str, near: Sequence[str] = ()) -> str:
    """The clause about the leader: the only one, ahead of the others, or tied; not "best" if others are ``near``.

    >>> _who({"a": {"value": 1, "noise": 0, "rank": 1, "tied": []}}, "has a score", "has the best score", "")
    'a has a score'
    """
    name, place = next(iter(group.items()))
    if place["tied"]:
        return f"{listed([name, *place['tied']])} tie for {tie}"
    return f"{name} {alone if len(group) == 1 or near else best}"


def _near(names: Sequence[str], leader: str) -> str:
    """The addition about contestants that are not better than chance, but within the noise of the leader."""
    if not names:
        return ""
    verb = "is" if len(names) == 1 else "are"
    return f"; {listed(names)} {verb} not better than chance, but not worse than {leader} by more than the noise either"


def _of(name: str, place: Place) -> str:
    """The owner of a figure, if several contestants were named."""
    return f" for {name}" if place["tied"] else ""


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _distance(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


# --- density ----------------------------------------------------------------------------------------------------------


def _density(o: Outcome) -> list[str]:
    found = {n: p for n, p in o.places.get("likelihood", {}).items() if not p.get("beyond")}
    groups = {
        p.get("group", ""): {n: q for n, q in found.items() if q.get("group") == p.get("group")} for p in found.values()
    }
    lines = [
        f"The fit of {n} is degenerate, so it is not ranked by its likelihood."
        for n in o.places.get("likelihood", {})
        if n not in found
    ]
    for label, group in groups.items():
        name, place = next(iter(group.items()))
        kind = kind_of(place)
        sign, noun = _SIGN[kind], _NOUN[kind] + label.removeprefix(kind)
        bits = o.mean(name, lambda m: m["figures"]["likelihood"]["detail"]["bits_per_dim"])
        who = _who(group, f"has {_a(noun)}", f"has the best {noun}", f"the best {noun}")
        line = f"{who}: {sign}{bits:.3f} bits/dim ({sign}{place['value']:.2f} ± {place['noise']:.2f} nats)"
        behind = next((n for n in group if n != name and n not in place["tied"]), None)
        ahead = f", {group[behind]['value'] - place['value']:.2f} nats ahead of {behind}" if behind else ""
        lines.append(f"{line}{_of(name, place)}{ahead}.")
    exact, lowest = groups.get("exact", {}), lowest_bound(found)
    if not exact or lowest is None:
        return lines
    name, place = lowest, found[lowest]
    beaten = [n for n in exact if n in place.get("surpasses", [])]
    every = "every exact likelihood" if len(exact) > 1 else f"the exact likelihood of {next(iter(exact))}"
    if len(beaten) == len(exact):  # who is ahead comes first
        said = "models the data better than the models with exact likelihoods"
        lines.insert(0, f"{name} {said}: even its bound is lower than {every}, by more than the noise.")
    elif beaten:
        lines.append(f"The bound of {name} is lower than the exact likelihood of {listed(beaten)}.")
    else:
        lines.append(
            f"The bound of {name} is not lower than {every} by more than the noise: which of them models the data "
            "better is not known."
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
        who = _who(honest, *_LEADS["fid"])
        held_out, fake = (figure["detail"].get(k, 0) for k in ("held_out", "fake"))
        as_many = figure["detail"].get("at_floor")
        also = "" if as_many is None else f"; as many samples of {name} have {_distance(as_many)}"
        few = f" ({counted(held_out, 'example')} only, which raises it{also})" if held_out < fake else ""
        floor = "" if figure["floor"] is None else f", where held-out data have {_distance(figure['floor'])}{few}"
        lines.append(f"{who} {_distance(place['value'])}{_of(name, place)}{floor}.")
    for name in [n for n in found if n not in honest]:
        figure = o.figure(name, "fid")
        lines.append(
            f"{name} has an FID of {_distance(found[name]['value'])}, far below the {_distance(figure['floor'])} of "
            "held-out data. This is a sign of copied training data or of too few held-out examples "
            f"({figure['detail'].get('held_out')}), so it is not ranked by its samples."
        )
    return lines


def _copies(o: Outcome) -> list[str]:
    lines = {}
    for name, figures in ((c["name"], run["figures"]) for c in o.contestants for run in c["runs"]):
        near = figures.get("memorisation")
        if near is None or near["value"] is None:
            continue
        held_out = figures["fid"]["detail"].get("held_out", 0) if "fid" in figures else 0
        copies, low = near["detail"].get("copies") or 0.0, (near["interval"] or (0.0,))[0] or 0.0
        if (copies > _COPIES and held_out >= _ENOUGH) or low > _NEARER:
            lines[name] = (
                f"{name} may copy its training data: its samples are nearer to it than held-out data are in "
                f"{_percent(near['value'])} of pairs (50 % is expected), and {_percent(copies)} of them are nearer "
                "than all but 1 % of held-out data."
            )
    return list(lines.values())


# --- uses -------------------------------------------------------------------------------------------------------------


def _compression(o: Outcome) -> list[str]:
    name = leader(o.places, "compression")
    if name is None:
        return []
    place = o.places["implied_bytes"][name]
    kind = {"bound": "at most ", "estimate": "by estimate "}.get(kind_of(place), "")
    line = f"The likelihood of {name} implies {kind}{place['value']:.1f} bytes {_a(o.thing)}"
    coded = o.places.get("coded_bytes", {})
    if name in coded:
        line += f"; compressed with it, decoded and compared, it has {coded[name]['value']:.1f}"
        line += f" ({_more(coded[name]['value'], place['value'])})"
    else:
        line += "; no file was written with it"
    first = next(iter(coded), None)
    if first is not None and first != name:
        own = o.places["implied_bytes"][first]
        who = _who(coded, f"codes {_a(o.thing)} in", "needs the fewest:", "the fewest:")
        among = "Of the models that coded the examples, " if len(coded) > 1 else ""
        line += f". {among}{who} {coded[first]['value']:.1f}{_of(first, coded[first])}"
        line += f" ({_more(coded[first]['value'], own['value'])})"
    if o.stored:
        codec = min(o.stored, key=lambda s: s["bytes"])
        line += (
            f". The smallest file of a general codec, {codec['codec']} ({codec['how']}), takes "
            f"{codec['per_example']:.1f}"
        )
    return [line + "."]


def _more(coded: float | None, implied: float | None) -> str:
    """
    >>> _more(10.1, 10.0)
    '1.0 % more than implied'
    """
    share = 100 * ((coded or 0.0) / (implied or math.inf) - 1)
    return f"{abs(share):.1f} % {'less' if share < 0 else 'more'} than implied"


def _anomalies(o: Outcome) -> list[str]:
    group = o.places.get("auroc")
    if not group:
        return []
    better, near = o.beyond_chance("auroc", 0.5)
    chance, group = not better, better or group
    name, place = next(iter(group.items()))
    figure = f"{place['value']:.3f}{_of(name, place)} (0.5 is chance){_near(near, name)}."
    if chance:
        line = f"No model detects the anomalies better than chance: the AUROC of {name} is {place['value']:.3f}"
        line += " (0.5 is chance)."
    else:
        line = f"{_who(group, *_LEADS['auroc'], near)}: AUROC {figure}"
    if not o.artificial:
        return [line]
    if not chance:
        line = f"{_who(group, *_LEADS['artificial'], near)} {figure}"
    caution = (
        "The anomalies are artificial: test examples whose columns are shuffled independently. They test only whether "
        "a model sees dependence between columns; which one detects real anomalies is not known (--anomalies)."
    )
    return [caution, f"On these, {line[0].lower() + line[1:] if chance else line}"]


def _accuracy(o: Outcome, key: str, of: str, by: str) -> list[str]:
    group = o.places.get(key)
    if not group:
        return []
    figure = o.figure(next(iter(group)), key)
    majority, floor = figure["detail"].get("majority", figure["floor"]), figure["floor"]
    if majority is None or majority >= 1:
        return []  # there is only one class
    better, near = o.beyond_chance(key, majority)
    group = better or group
    name, place = next(iter(group.items()))
    beside = f"; the most frequent class alone gives {_percent(majority)}"
    if "majority" in figure["detail"] and floor is not None:
        beside += f", the raw data {_percent(floor)}{_against_raw(o.figure(name, key), place)}"
    if not better:
        return [
            f"No model predicts the classes better than chance: {name} reaches {_percent(place['value'])}{by}{beside}."
        ]
    who = f"{of} {_who(group, *_LEADS[key], near)}".strip()
    return [f"{who}: {_percent(place['value'])}{_of(name, place)}{by}{beside}{_near(near, name)}."]


def _against_raw(figure: Figure, place: Place) -> str:
    """Whether features are worse than the raw data, or not better: the noise is that of both, as if independent."""
    raw, value = figure["floor"] or 0.0, place["value"] or 0.0
    noise = Z * math.hypot(place["noise"] or 0.0, math.sqrt(raw * (1 - raw) / max(figure["n"], 1)))
    if raw - value > noise:
        return ", more than these features"
    return "; these features are not better than the raw data by more than the noise" if value - raw <= noise else ""


def _cost(o: Outcome) -> list[str]:
    name = o.chosen
    if name is None:
        return []
    parameters, seconds = (
        o.mean(name, read) for read in (lambda m: m["parameters"], lambda m: m["train_seconds"] or 0.0)
    )
    # A model that counts has tables and no parameters.
    size = f"{counted(round(parameters), 'parameter')}, " if parameters else ""
    line = f"Cost of {name}: {size}{counted(round(seconds), 'second')} of training"
    speeds = o.places.get("sampling", {})
    if name in speeds:
        line += f", {_rate(speeds[name]['value'], o.thing)}"
        fastest = next(iter(speeds))
        if fastest != name and name not in speeds[fastest]["tied"]:
            line += f" ({fastest} draws {_rate(speeds[fastest]['value'], o.thing)})"
    return [line + "."]


# --- caveats --------------------------------------------------------------------------------------------------------


def _nothing(o: Outcome, purpose: Purpose) -> str:
    """Why there is no sentence for the requested purpose."""
    key = deciding(purpose)
    reasons = {m["missing"][key]: c["name"] for c in o.contestants for m in c["runs"] if key in m["missing"]}
    said = list(reasons)[:_REASONS]
    more = f"; {len(reasons) - len(said)} more" if len(reasons) > len(said) else ""
    return f"{purpose.capitalize()}: nothing was measured" + (f": {'; '.join(said)}{more}." if said else ".")


def _caveats(o: Outcome) -> list[str]:
    runs = [(c["name"], m) for c in o.contestants for m in c["runs"]]
    lines = []
    if runs and o.examples < _FEW:
        lines.append(f"There are only {counted(o.examples, 'test example')}, so only large differences can be seen.")
    ranked = {name for group in o.places.values() for name in group}
    for c in o.contestants:
        if c["name"] in ranked and (short := trained_little(c)):
            lines.append(f"The training of {c['name']} was short: {short[0]}. More minutes may change its place.")
    lines += [f"{c['name']} failed: {str(c['reason']).rstrip('.')}." for c in o.contestants if c["status"] == "failed"]
    if o.minutes is not None and o.seconds > _OVERRUN * 60 * o.minutes:
        training, measuring = (sum(m[k] or 0.0 for _, m in runs) for k in ("train_seconds", "measure_seconds"))
        took = counted(float(f"{o.seconds / 60:.2g}"), "minute")
        lines.append(
            f"The comparison took {took} instead of {counted(o.minutes, 'minute')}: {training:.0f} s of training, "
            f"{measuring:.0f} s of measuring and {max(0.0, o.seconds - training - measuring):.0f} s of other work."
        )
    return lines


def _rate(value: float, thing: str) -> str:
    return f"{counted(round(value) if value >= 10 else float(f'{value:.2g}'), thing)} a second"


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
