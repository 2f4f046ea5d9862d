"""The outcome of a comparison: records, tables and page, written from measured runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unsup.contest.measured import SCORES
from unsup.core.commands import flags, path_word
from unsup.core.escapes import command_line
from unsup.core.likelihood import SIGN
from unsup.core.model import LearnsByCounting
from unsup.core.registry import fitting, model_class, row
from unsup.core.storage import write_inside
from unsup.data.catalog import EXAMPLE_OPTIONS
from unsup.data.source import Data
from unsup.evaluate.bench import Bench
from unsup.evaluate.measures import MEASURES
from unsup.evaluate.ranking import leader, places
from unsup.evaluate.records import Contestant, Measures, Purpose, Results, Status, finite
from unsup.report.contest import write_comparison_page
from unsup.report.export import write_csv
from unsup.report.verdict import Outcome, summary
from unsup.train.progress import Snapshot
from unsup.train.runs import Run, environment

_LONGER = 30  # minutes, in the advice
_THINGS = {"image": "image", "sequence": "sequence", "video": "video"}


@dataclass(frozen=True)
class Moment:
    """The progress of a contestant.

    Attributes:
        name: of the contestant, with its seed if there are several.
        stage: ``training``, ``measuring`` with the measure, ``done`` or ``failed``.
        snapshot: of training.
        note: the outcome, or the reason of a failure.
    """

    name: str
    stage: str
    snapshot: Snapshot | None = None
    note: str = ""


Tell = Callable[[Moment], None]


def contestant(
    name: str,
    model: str,
    options: dict[str, Any],
    training: dict[str, Any],
    status: Status,
    reason: str | None,
    runs: list[Measures],
) -> Contestant:
    known = row(model)
    paper = f"{known.paper.authors.split(',')[0].split()[-1]} {known.paper.year}"
    return {
        "name": name,
        "model": model,
        "family": known.family,
        "paper": paper,
        "options": options,
        "training": training,
        "status": status,
        "reason": reason,
        "runs": runs,
    }


def write_results(
    folder: Path,
    bench: Bench,
    found: Sequence[Contestant],
    *,
    command: str,
    plan: str,
    minutes: float | None,
    seconds: float,
    data_argument: Sequence[str],
    purpose: Purpose | None,
) -> Results:
    """Write the records, tables and page of contestants measured on ``bench``."""
    data = bench.data
    scores = {c["name"]: [_scores(folder, m) for m in c["runs"] if "likelihood" in m["figures"]] for c in found}
    stands = places(found, {k: v for k, v in scores.items() if v})
    baselines = bench.baselines
    outcome = Outcome(
        found,
        stands,
        purpose,
        examples=len(bench.test),
        thing=_THINGS.get(data.event.layout or "", "row"),
        artificial=bench.measuring.anomalies is None,
        stored=baselines["stored"],
        minutes=minutes,
        seconds=seconds,
    )
    results: Results = {
        "format": 2,
        "title": Path(data.name or "arrays").name,
        "command": command,
        "for": purpose,
        "data": data.to_json(),
        "about": data.describe(),
        "minutes": minutes,
        "seconds": round(seconds, 1),
        "seeds": sorted({m["seed"] for c in found for m in c["runs"]}),
        "plan": plan,
        "anomalies": bench.anomalies_are,
        "examples": len(bench.test),
        "samples": bench.measuring.samples,
        "measures": {key: measure.to_json() for key, measure in MEASURES.items()},
        "baselines": baselines,
        "contestants": list(found),
        "places": stands,
        "summary": summary(outcome),
        "next": _next(outcome, folder, data_argument, data),
        "pictures": bench.pictures(folder),
        "environment": environment(),
    }
    write_inside(folder / "results.json", json.dumps(finite(results), indent=1, allow_nan=False).encode())
    write_csv(folder, results)
    write_comparison_page(folder)
    return results


def relative(found: Measures, run: Run, into: Path, folder: Path) -> Measures:
    """The measures with the paths of the run and of its pictures relative to ``folder``."""
    return {**found, "run": os.path.relpath(run.path, folder), "folder": os.path.relpath(into, folder)}


def _scores(folder: Path, m: Measures) -> Any:
    with np.load(folder / m.get("folder", m["run"]) / SCORES) as file:
        return file["log_prob"]


def figure(m: Measures) -> str:
    """The main figure of a run, for the progress line."""
    found = m["figures"].get("likelihood")
    if found is not None:
        return f"{SIGN[found['detail']['kind']]} {found['detail']['bits_per_dim']:.4f} bits/dim"
    return f"FID {m['figures']['fid']['value']:.3g}" if "fid" in m["figures"] else ""


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


def _next(o: Outcome, folder: Path, data_argument: Sequence[str], data: Data) -> list[dict[str, str]]:
    """What to run next with the leader for the purpose, or with the leader by likelihood."""
    steps = [(kind, o.chosen) for kind in _FOLLOWS[o.purpose]]
    lifelike = leader(o.places, "samples")
    if o.purpose is None and lifelike != o.chosen:
        steps.append(("sample", lifelike))
    found = [_step(kind, name, o, folder, data_argument, data) for kind, name in steps if name is not None]
    return [{"what": what, "command": command_line(["unsup", *words])} for what, words in filter(None, found)]


def _step(
    kind: str, name: str, o: Outcome, folder: Path, data_argument: Sequence[str], data: Data
) -> tuple[str, list[str]] | None:
    """A suggestion and its command, or None if it does not apply to the model or the data."""
    best = next(c for c in o.contestants if c["name"] == name)
    model, able, more = best["model"], row(best["model"]).abilities, data_argument[1:]
    if kind in _USES:
        what, words = _USES[kind]
        own = flags({k: v for k, v in data.options.items() if k in EXAMPLE_OPTIONS}) if "FILE" in words else []
        run = path_word(os.path.normpath(folder / best["runs"][0]["run"]))
        return (f"{what} {name}", [kind, run, *words[:1], *own, *words[1:]]) if kind in able else None
    if kind == "classifier":
        classifiers = [n for n in fitting(data.event) if "predict" in row(n).abilities]
        if data.train.label is None or not classifiers or "predict" in able:
            return None
        model, more = classifiers[0], [*more, *flags({"given": "label", "minutes": _LONGER})]
        return "train a classifier", ["fit", data_argument[0], model, *more, "-o", f"{model}-classes"]
    if kind == "anomalies" and (not o.artificial or o.minutes is None):
        return None
    if kind == "anomalies" or issubclass(model_class(model), LearnsByCounting):
        real = {"minutes": o.minutes, "anomalies": "PATH"} if kind == "anomalies" else {"minutes": 2 * _LONGER}
        what = "compare on real anomalies" if kind == "anomalies" else "give all of them more time"
        words = ["compare", data_argument[0], *more, *flags(real | {"for": o.purpose})]
        return what, [*words, "-o", path_word(f"{folder.name}-{kind}")]
    lasting = {k: v for k, v in best["training"].items() if k not in ("patience", "validation_limit")}
    options = [*flags({"minutes": _LONGER} | lasting), *flags(best["options"], "model.")]
    return f"train {name} for longer", ["fit", data_argument[0], model, "-o", f"{model}-longer", *more, *options]
