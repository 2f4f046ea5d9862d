"""What came of a comparison: its records, tables and page, written from measured runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unsup.contest.measured import SCORES
from unsup.core.commands import flags
from unsup.core.escapes import command_line
from unsup.core.likelihood import SIGN
from unsup.core.model import LearnsByCounting
from unsup.core.registry import model_class, row
from unsup.core.storage import write_inside
from unsup.data.catalog import EXAMPLE_OPTIONS
from unsup.evaluate.bench import Bench, finite
from unsup.evaluate.ranking import leader, places
from unsup.evaluate.records import Contestant, Measures, Results, Status
from unsup.report.contest import write_comparison_page
from unsup.report.export import write_csv
from unsup.report.verdict import summary
from unsup.train.progress import Snapshot
from unsup.train.runs import Run, environment

_LONGER = 30  # minutes, in the advice


@dataclass(frozen=True)
class Moment:
    """What a contest tells while it runs.

    Attributes:
        name: of the contestant, with its seed where there are several.
        stage: ``training``, what is being measured, ``done`` or ``failed``.
        snapshot: of training.
        note: the outcome or the reason.
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
) -> Results:
    """The records, tables and page of contestants that have been measured on ``bench``."""
    data = bench.data
    scores = {c["name"]: [_scores(folder, m) for m in c["runs"] if m["likelihood"]] for c in found}
    stands = places(found, {k: v for k, v in scores.items() if v})
    baselines = bench.baselines
    thing = {"image": "image", "sequence": "sequence", "video": "video"}.get(data.event.layout or "", "row")
    results: Results = {
        "format": 1,
        "title": Path(data.name or "arrays").name,
        "command": command,
        "data": data.to_json(),
        "about": data.describe(),
        "minutes": minutes,
        "seconds": round(seconds, 1),
        "seeds": sorted({m["seed"] for c in found for m in c["runs"]}),
        "plan": plan,
        "anomalies": bench.anomalies_are,
        "examples": len(bench.test),
        "samples": bench.measuring.samples,
        "baselines": baselines,
        "contestants": list(found),
        "places": stands,
        "summary": summary(found, stands, baselines, thing),
        "next": _next(found, stands, folder, data_argument, data.options),
        "pictures": bench.pictures(folder),
        "environment": environment(),
    }
    write_inside(folder / "results.json", json.dumps(finite(results), indent=1, allow_nan=False).encode())
    write_csv(folder, results)
    write_comparison_page(folder)
    return results


def relative(found: Measures, run: Run, into: Path, folder: Path) -> Measures:
    """The measures with the run's folder and that of its pictures, as they are seen from ``folder``."""
    return {**found, "run": os.path.relpath(run.path, folder), "folder": os.path.relpath(into, folder)}


def _scores(folder: Path, m: Measures) -> Any:
    with np.load(folder / m.get("folder", m["run"]) / SCORES) as file:
        return file["log_prob"]


def figure(m: Measures) -> str:
    """The one figure of a run that a line has room for."""
    if m["likelihood"] is not None:
        return f"{SIGN[m['likelihood']['kind']]} {m['likelihood']['bits_per_dim']:.4f} bits/dim"
    if m["quality"] is not None:
        return f"FID {m['quality']['scores']['fid']['value']:.3g}"
    return ""


def _next(
    found: Sequence[Contestant], stands: Any, folder: Path, data_argument: Sequence[str], reading: Mapping[str, Any]
) -> list[dict[str, str]]:
    """What to run now: more time for the winner, or for all where it needs none; draws; scores of other examples."""
    winner = leader(stands)
    if winner is None:
        return []
    best = next(c for c in found if c["name"] == winner)
    run = os.path.normpath(folder / best["runs"][0]["run"])
    data, *data_flags = data_argument
    lasting = {k: v for k, v in best["training"].items() if k not in ("patience", "validation_limit")}
    if issubclass(model_class(best["model"]), LearnsByCounting):
        what = "give all of them more time"
        words = ["unsup", "compare", data, *data_flags, *flags({"minutes": 2 * _LONGER}), "-o", f"{folder.name}-longer"]
    else:
        what = f"train {best['name']} for longer"
        words = ["unsup", "fit", data, best["model"], "-o", f"{best['model']}-longer", *data_flags]
        words += [*flags({"minutes": _LONGER}), *flags(lasting), *flags(best["options"], "model.")]
    advice = [(what, words)]
    able = row(best["model"]).abilities
    if "sample" in able:
        advice.append(("draw from it", ["unsup", "sample", run, "-n", "64", "-o", "samples.npy"]))
    if "score" in able:
        own = flags({k: v for k, v in reading.items() if k in EXAMPLE_OPTIONS})
        advice.append(("score your own examples", ["unsup", "score", run, "FILE", *own, "-o", "scores.csv"]))
    lifelike = next(iter(stands.get("fid", {})), best["name"])
    if lifelike != best["name"]:
        other = next(c for c in found if c["name"] == lifelike)
        path = os.path.normpath(folder / other["runs"][0]["run"])
        what = f"draw from {lifelike}, the most lifelike"
        advice.append((what, ["unsup", "sample", path, "-n", "64", "-o", "lifelike.npy"]))
    return [{"what": what, "command": command_line(words)} for what, words in advice]
