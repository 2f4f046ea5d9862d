"""The outcome of a comparison: records, tables and page, written from measured runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unsup.contest.measured import Measured, new_folder
from unsup.contest.plan import Asked, Entry
from unsup.core.commands import data_words, flags, path_word
from unsup.core.errors import InputError
from unsup.core.escapes import command_line
from unsup.core.likelihood import SIGN
from unsup.core.model import LearnsByCounting, Model
from unsup.core.registry import fitting, model_class, row
from unsup.core.storage import write_inside
from unsup.data.catalog import EXAMPLE_OPTIONS
from unsup.data.source import Data
from unsup.evaluate.bench import Bench
from unsup.evaluate.measures import MEASURES, NEEDS
from unsup.evaluate.ranking import deciding, leader, places
from unsup.evaluate.records import Contestant, Measures, Purpose, Results, Status, finite
from unsup.report.contest import write_comparison_page
from unsup.report.export import write_csv
from unsup.report.verdict import Outcome, summary
from unsup.train.progress import Snapshot
from unsup.train.runs import environment

_LONGER = 30  # minutes, in the advice
_THINGS = {"image": "image", "sequence": "sequence", "video": "video"}


@dataclass(frozen=True)
class Moment:
    """The progress of a model.

    Attributes:
        name: of the model, with its seed if there are several.
        stage: ``training``, ``measuring`` with the measure, ``done`` or ``failed``.
        snapshot: of training.
        note: the outcome, or the reason of a failure.
    """

    name: str
    stage: str
    snapshot: Snapshot | None = None
    note: str = ""


Tell = Callable[[Moment], None]


@dataclass
class Compared:
    """A model of a comparison with its measured runs, one per seed."""

    name: str
    entry: Entry
    runs: list[Measured] = field(default_factory=list)
    status: Status = "done"
    reason: str | None = None

    def record(self, bench: Bench, folder: Path) -> Contestant:
        known = row(self.entry.model)
        return {
            "name": self.name,
            "model": known.name,
            "family": known.family,
            "paper": f"{known.paper.authors.split(',')[0].split()[-1]} {known.paper.year}",
            "options": self.entry.options,
            "training": self.entry.training,
            "status": self.status,
            "reason": self.reason,
            "runs": [run.record(bench, folder) for run in self.runs],
        }


def write_results(
    folder: Path, bench: Bench, compared: Sequence[Compared], purpose: Purpose | None, *, asked: Asked, **about: Any
) -> Results:
    """Write the records, tables and page of models measured on ``bench``.

    Args:
        asked: the comparison that the commands to run next repeat with other settings.
        about: the fields ``command``, ``plan``, ``minutes`` and ``seconds`` of the results.
    """
    data, baselines = bench.data, bench.baselines
    found = [c.record(bench, folder) for c in compared]
    scores = {c.name: [run.scores for run in c.runs if run.scores is not None] for c in compared}
    stands = places(found, {name: own for name, own in scores.items() if own})
    outcome = Outcome(
        found,
        stands,
        purpose,
        examples=len(bench.test),
        thing=_THINGS.get(data.event.layout or "", "row"),
        artificial=bench.measuring.anomalies is None,
        stored=baselines["stored"],
        minutes=about["minutes"],
        seconds=about["seconds"],
    )
    results: Results = {
        "format": 2,
        "title": Path(data.name or "arrays").name,
        "command": about["command"],
        "for": purpose,
        "data": data.to_json(),
        "about": data.describe(),
        "minutes": about["minutes"],
        "seconds": round(about["seconds"], 1),
        "seeds": sorted({m["seed"] for c in found for m in c["runs"]}),
        "plan": about["plan"],
        "anomalies": bench.anomalies_are,
        "examples": len(bench.test),
        "samples": bench.measuring.samples,
        "measures": {key: measure.to_json() for key, measure in MEASURES.items()},
        "baselines": baselines,
        "contestants": found,
        "places": stands,
        "summary": summary(outcome),
        "next": _next(outcome, folder, data, asked),
        "pictures": bench.pictures(folder),
        "environment": environment(),
    }
    write_inside(folder / "results.json", json.dumps(finite(results), indent=1, allow_nan=False).encode())
    write_csv(folder, results)
    write_comparison_page(folder)
    return results


def figure(m: Measures) -> str:
    """The main figure of a run, for the progress line."""
    found = m["figures"].get("likelihood")
    if found is not None:
        return f"{SIGN[found['detail']['kind']]} {found['detail']['bits_per_dim']:.4f} bits/dim"
    return f"FID {m['figures']['fid']['value']:.3g}" if "fid" in m["figures"] else ""


_ABILITIES = {"likelihood": "score", "score": "score", "samples": "sample", "codes": "encode", "classes": "predict"}
"""The abilities of the requirements of measures on models."""


def check_purpose(purpose: Purpose, models: Iterable[tuple[str, Model]], data: Data) -> None:
    """Refuse a purpose whose deciding measure none of the models can have.

    Raises:
        InputError: with the reason, and what to do.
    """
    measure, reasons = MEASURES[deciding(purpose)], []
    for name, model in models:
        reason = measure.reason_against(model, data, name)
        if reason is None:
            return
        reasons.append(reason)
    start = f"--for {purpose} is not possible:"
    for need in map(NEEDS.__getitem__, measure.needs):
        if need.of == "data" and not need.holds(None, data):
            raise InputError(f"{start} {need.without}; choose other data, or another purpose")
    needed = {_ABILITIES[need] for need in measure.needs if need in _ABILITIES}
    able = [name for name in fitting(data.event) if needed <= {*row(name).abilities}]
    add = f"compare such a model, e.g. {able[0]}, or " if able else ""
    if able and purpose == "classes":
        fit = command_line(["unsup", "fit", path_word(data.name or "DATA"), able[0], "--given", "label", "-o", "RUN"])
        add = f"train a classifier ({fit}) and measure it (unsup report RUN), or "
    what = " and ".join(NEEDS[need].words for need in measure.needs if NEEDS[need].of == "model")
    raise InputError(f"{start} it needs {what}; {'; '.join(reasons)}; {add}choose another purpose")


_FOLLOWS: dict[Purpose | None, tuple[str, ...]] = {
    None: ("longer", "sample", "score"),
    "density": ("longer", "score", "sample"),
    "samples": ("sample", "longer"),
    "anomalies": ("anomalies", "score", "longer"),
    "features": ("encode", "longer"),
    "compression": ("longer", "score"),
    "classes": ("predict", "classifier", "longer"),
}
"""What to run next, by purpose."""
_USES = {
    "sample": ("draw samples from", ["-n", "64", "-o", "samples.png"]),
    "score": ("score your own examples with", ["FILE", "-o", "scores.csv"]),
    "encode": ("encode your own examples with", ["FILE", "-o", "codes.npz"]),
    "predict": ("classify your own examples with", ["FILE", "-o", "classes.csv"]),
}
"""Commands that use a run, by the ability that they need."""


def _next(o: Outcome, folder: Path, data: Data, asked: Asked) -> list[dict[str, str]]:
    """What to run next with the leader for the purpose, or with the leader by likelihood."""
    steps = [(kind, o.chosen) for kind in _FOLLOWS[o.purpose]]
    lifelike = leader(o.places, "samples")
    if o.purpose is None and lifelike != o.chosen:
        steps.append(("sample", lifelike))
    found = [_step(kind, name, o, folder, data, asked) for kind, name in steps if name is not None]
    return [{"what": what, "command": command_line(["unsup", *words])} for what, words in filter(None, found)]


def _step(kind: str, name: str, o: Outcome, folder: Path, data: Data, asked: Asked) -> tuple[str, list[str]] | None:
    """A suggestion and its command, or None if it does not apply to the model or the data."""
    best = next(c for c in o.contestants if c["name"] == name)
    model, able, (argument, *more) = (
        best["model"],
        row(best["model"]).abilities,
        data_words({"name": data.name, "options": data.options}),
    )
    if kind in _USES:
        what, words = _USES[kind]
        own = flags({k: v for k, v in data.options.items() if k in EXAMPLE_OPTIONS}) if "FILE" in words else []
        run = path_word(os.path.normpath(folder / best["runs"][0]["run"]))
        return (f"{what} {name}", [kind, run, *words[:1], *own, *words[1:]]) if kind in able else None
    if kind == "classifier":
        classifiers = [n for n in fitting(data.event) if "predict" in row(n).abilities]
        if data.train.label is None or not classifiers or "predict" in able:
            return None
        more += flags({"given": "label", "minutes": _LONGER})
        return "train a classifier", [
            "fit",
            argument,
            classifiers[0],
            *more,
            "-o",
            path_word(new_folder(folder, "classes")),
        ]
    if kind == "anomalies" and (not o.artificial or o.minutes is None):
        return None
    if kind == "anomalies" or issubclass(model_class(model), LearnsByCounting):
        new = Path(new_folder(folder, kind))
        if kind == "anomalies":
            return "compare on real anomalies", replace(asked, anomalies="PATH").words(new, o.purpose)
        longer = replace(asked, minutes=2 * max(_LONGER, asked.minutes))
        return "give all of them more time", longer.words(new, o.purpose)
    lasting = {k: v for k, v in best["training"].items() if k not in ("patience", "validation_limit")}
    options = [*flags({"minutes": _LONGER} | lasting), *flags(best["options"], "model.")]
    out = path_word(new_folder(folder, f"{model}-longer"))
    return f"train {name} for longer", ["fit", argument, model, "-o", out, *more, *options]
