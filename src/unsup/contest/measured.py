"""The measures of a run, kept in a folder with a key of everything that they depend on."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from unsup.contest.commands import fit_command
from unsup.core.commands import flags, path_word
from unsup.core.config import check_value
from unsup.core.deadline import Deadline, OutOfTime
from unsup.core.errors import InputError
from unsup.core.escapes import command_line
from unsup.core.model import CanDecode, CanSample
from unsup.core.reading import read_json
from unsup.core.storage import write_inside, write_over
from unsup.data.recorded import has_changed
from unsup.evaluate.bench import SHOWN, Bench, written
from unsup.evaluate.conditions import is_conditioned
from unsup.evaluate.exam import Exam
from unsup.evaluate.journeys import interpolate, reconstruct
from unsup.evaluate.likelihood import bits_by_dimension
from unsup.evaluate.measures import MEASURES, possible_measures
from unsup.evaluate.records import Curve, Figure, Measures, finite, is_below
from unsup.pictures.gallery import Drawn
from unsup.train.runs import Run, environment

FORMAT = 2
SCORES = "scores.npz"
_CURVE_POINTS = 200
_NOTED = {"ended": "training ended", "lost": "a stopped run was resumed after it had lost"}
_FEW, _SOME, _PATHS, _PATH_STEPS = 16, 500, 6, 9

Tell = Callable[[str], None]


def measures_of(
    bench: Bench, run: Run, into: Path, tell: Tell = lambda stage: None, seconds: float = math.inf
) -> Measures:
    """The measures of ``run``, computed unless the folder ``into`` has them already.

    Args:
        tell: called with the present stage.
        seconds: the time limit.
    """
    found = kept_measures(bench, run, into)
    if found is None:
        into.mkdir(parents=True, exist_ok=True)
        found, scores = _measured(bench, run, into, tell, seconds)
        key = _key(bench, run)
        if scores is not None:
            buffer = io.BytesIO()
            np.savez(buffer, log_prob=scores, key=np.array(key))
            write_inside(into / SCORES, buffer.getvalue())
        text = json.dumps({"key": key, "measures": found}, indent=1, allow_nan=False)
        write_over(into / "measures.json", text.encode())
        found = _with_commands(found, bench, run)
    return found


def _measured(bench: Bench, run: Run, into: Path, tell: Tell, limit: float) -> tuple[Measures, Any]:
    """All measures that are possible on the data, with pictures, and the scores of the test examples."""
    started, events = time.monotonic(), run.events()
    last = events[-1] if events else {"step": 0, "seconds": 0.0}

    def begins(stage: str, done: int, total: int) -> None:
        if not total:
            tell(stage)

    name, seconds = run.config["model"]["model"], float(last["seconds"])
    exam = Exam(bench, run.model, name=name, path=run.path, train_seconds=seconds, seconds=limit, tell=begins)
    figures, missing = exam.figures(possible_measures(bench.data))
    tell("pictures")
    notes = [f"{e['symptom']} at step {e['step']}: {e['advice']}" for e in events if "symptom" in e]
    record: Measures = {
        "run": "",
        "model": name,
        "seed": run.config["training"]["seed"],
        "parameters": run.model.parameter_count,
        "steps": int(last["step"]),
        "train_seconds": seconds,
        "measure_seconds": 0.0,
        "command": "",
        "figures": figures,
        "missing": missing,
        "commands": {},
        "notes": notes + [f"{words} {e[k]}" for e in events for k, words in _NOTED.items() if k in e],
        "curve": _curve(events),
        "pictures": written(into, _pictures(exam, figures)),
        "environment": environment(),
    }
    record["measure_seconds"] = round(time.monotonic() - started, 2)
    return finite(record), exam.scores.numpy() if "likelihood" in figures else None


def kept_measures(bench: Bench, run: Run, into: Path) -> Measures | None:
    """The measures in ``into``, if they are of this run in its present state."""
    path, scores = into / "measures.json", into / SCORES
    if not path.is_file():
        return None
    key = _key(bench, run)
    try:
        kept: dict[str, Any] = read_json(path, dict[str, Any])
        if kept.get("key") != key:
            return None
        found: Measures = check_value("measures", kept.get("measures"), Measures)
    except InputError:
        return None  # it is measured again; the damaged file is set aside
    if not all(is_below(p["file"]) and (into / p["file"]).is_file() for p in found["pictures"].values()):
        return None
    likelihood = found["figures"].get("likelihood")
    if likelihood is not None and not _has_scores(scores, key, likelihood["n"]):
        return None
    return _with_commands(found, bench, run)


def _has_scores(path: Path, key: str, n: int) -> bool:
    """Whether a file has the scores of ``n`` examples under that key."""
    if not path.is_file():
        return False
    try:
        with np.load(path) as file:
            found, log_prob = str(file["key"]), file["log_prob"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error):
        return False  # the file is damaged
    return found == key and log_prob.shape == (n,) and bool(np.isfinite(log_prob).all())


def _with_commands(found: Measures, bench: Bench, run: Run) -> Measures:
    """The measures with the commands, which depend on the path of the run."""
    shown = path_word(run.path)
    changed = has_changed(run.path, run.config, bench.data, changed_data=True)
    more = flags({"changed-data": changed or None})
    commands = {k: _eval_command(k, found["figures"], bench, shown, more) for k in found["figures"]}
    return {
        **found,
        "command": fit_command(run, _another(run.path)),
        "commands": {k: command for k, command in commands.items() if command is not None},
    }


def _another(path: Path) -> str:
    """A new folder next to a run, e.g. ``runs/made-again``."""
    names = (path.with_name(f"{path.name}-again{'' if n == 1 else f'-{n}'}") for n in itertools.count(1))
    return str(next(p for p in names if not p.exists()))


def _eval_command(key: str, figures: dict[str, Figure], bench: Bench, run: str, more: list[str]) -> str | None:
    """The ``unsup eval`` that measures a figure again; None if it would measure another one."""
    row, m = MEASURES.get(key), bench.measuring
    if row is None or row.purpose == "cost" or (row.purpose == "anomalies" and m.anomalies is not None):
        return None
    settings = row.settings(m)
    if "importance_samples" in settings:
        known = figures.get("likelihood")
        settings["importance_samples"] = 1 if known is None else known["detail"]["samples"]
    usual = {"seed": 0, "extractor": "auto", "importance_samples": 1, "examples": len(bench.held_out)}
    words = flags({k: v for k, v in settings.items() if v != usual.get(k)})
    measure = [] if key == "likelihood" else ["--measures", key]
    return command_line(["unsup", "eval", run, *measure, *words, *more])


def _key(bench: Bench, run: Run) -> str:
    """A digest of everything that a run's measures depend on."""
    kept = next((run.checkpoint(n) for n in ("best", "last") if run.checkpoint(n).is_file()), None)
    parameters = "" if kept is None else hashlib.sha256(kept.read_bytes()).hexdigest()
    depends = [FORMAT, sorted(MEASURES), asdict(bench.measuring), bench.digest, parameters, run.config["model"]]
    return hashlib.sha256(json.dumps(depends, default=str).encode()).hexdigest()


def _curve(events: list[dict[str, Any]]) -> Curve:
    """Losses at a limited number of points, and all validations."""
    losses: dict[str, list[tuple[float, float]]] = {}
    for event in events:
        for name, value in event.items():
            if name.split("/")[-1] == "loss" and math.isfinite(value):
                losses.setdefault(name, []).append((event["step"], value))
    thinned = {k: v[:: max(1, len(v) // _CURVE_POINTS)] for k, v in losses.items()}
    validation = [(e["step"], e["nats"]) for e in events if math.isfinite(e.get("nats", math.nan))]
    return {"losses": cast(Any, thinned), "validation": cast(Any, validation)}


def _pictures(exam: Exam, figures: dict[str, Figure]) -> dict[str, Drawn | None]:
    """The pictures of a model by name, from what was measured; only codes are computed in addition.

    The time limit is the time left, or a quarter of the whole.
    """
    bench, model, gallery = exam.bench, exam.model, exam.bench.gallery
    test, event = bench.test, bench.data.event
    some = test.take(slice(_FEW if event.is_image else _SOME))  # plots show more than grids

    def samples() -> Drawn | None:
        try:
            shown = exam.samples.x[: SHOWN if event.is_image else len(test)]
        except InputError:
            shown = exam.sampling.shown
        return gallery.examples(shown, f"samples of {exam.name}")

    def neighbours() -> Drawn | None:
        near = exam.memorised
        order = near.distance[:SHOWN].argsort()[:_FEW]
        return gallery.neighbours(exam.samples.x[order], bench.train.x[near.nearest[order]])

    def anomalies() -> Drawn | None:
        ordinary, odd, _ = exam.anomaly_scores
        is_anomaly = torch.arange(len(ordinary) + len(odd)) >= len(ordinary)
        both = torch.cat([test.x, bench.anomalies.to(test.x.dtype)])
        return gallery.anomaly_ranking(both, torch.cat([ordinary, odd]), is_anomaly)

    def bits() -> Drawn | None:
        found = bits_by_dimension(model, some, seed=bench.measuring.seed)
        return None if found is None else gallery.bits(some.x, found)

    drawn: dict[str, Callable[[], Drawn | None]] = {}
    if isinstance(model, CanSample):
        drawn["samples"] = samples
    if "memorisation" in figures:
        drawn["neighbours"] = neighbours
    if "auroc" in figures:
        drawn["anomalies"] = anomalies
    if "likelihood" in figures:
        drawn["most_likely"] = lambda: gallery.extremes(test.x, -exam.scores, most=True)
        drawn["least_likely"] = lambda: gallery.extremes(test.x, -exam.scores, most=False)
    if isinstance(model, CanDecode):
        drawn["reconstructions"] = lambda: gallery.reconstructions(some.x, reconstruct(model, some))
        if len(test) >= 2 * _PATHS and not is_conditioned(model):  # the ends may have different conditions
            ends = test.x[:_PATHS], test.x[_PATHS : 2 * _PATHS]
            drawn["interpolation"] = lambda: gallery.interpolation(interpolate(model, *ends, _PATH_STEPS))
    found: dict[str, Drawn | None] = {}
    limit = Deadline(max(exam.deadline.seconds_left, exam.deadline.seconds / 4), "pictures take too long")
    for name, draw in (drawn | {"bits": bits}).items():
        with suppress(OutOfTime), limit:
            found[name] = draw()
    return found
