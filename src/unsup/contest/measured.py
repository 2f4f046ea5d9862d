"""The measures of a run, kept in a folder with a key of everything that they depend on."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import os
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unsup.core.commands import flags, path_word
from unsup.core.config import check_value
from unsup.core.deadline import Deadline, OutOfTime
from unsup.core.errors import InputError
from unsup.core.escapes import command_line
from unsup.core.model import CanDecode, CanSample, HasLatents, LearnsByCounting
from unsup.core.reading import read_json
from unsup.core.storage import write_inside, write_over
from unsup.core.words import counted
from unsup.data.recorded import has_changed
from unsup.evaluate.bench import SHOWN, Bench, written
from unsup.evaluate.conditions import is_conditioned
from unsup.evaluate.exam import Exam
from unsup.evaluate.journeys import interpolate, reconstruct
from unsup.evaluate.likelihood import bits_by_dimension
from unsup.evaluate.measures import MEASURES, possible_measures
from unsup.evaluate.probe import FEW
from unsup.evaluate.records import Figure, Measures, finite, is_below
from unsup.pictures.gallery import Drawn
from unsup.report.drawn import curves_of
from unsup.report.page import fit_command, read_run
from unsup.report.verdict import SHORT
from unsup.train.runs import Run, environment

FORMAT = 2
_CURVE_POINTS = 200
_NOTED = {"ended": "training ended", "lost": "a stopped run was resumed after it had lost"}
_FEW, _SOME, _PATHS, _PATH_STEPS = 16, 500, 6, 9
_DAMAGED = (InputError, OSError, ValueError, KeyError, EOFError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """A run with its measures.

    Attributes:
        into: the folder of its measures, scores and pictures.
        scores: log p of the test examples, if it has a likelihood.
    """

    run: Run
    into: Path
    measures: Measures
    scores: NDArray[np.float64] | None

    def record(self, bench: Bench, folder: Path) -> Measures:
        """The measures with paths relative to ``folder``, that of the page, and the commands that reproduce them."""
        path = self.run.path
        return {
            **self.measures,
            "run": os.path.relpath(path, folder),
            "folder": os.path.relpath(self.into, folder),
            "command": fit_command(read_run(path), new_folder(folder, f"{path.resolve().name}-again")),
            "commands": self._eval_command(bench),
        }

    def _eval_command(self, bench: Bench) -> dict[str, str]:
        """By measure: the ``unsup eval`` that gives all figures again which do not need the anomalies of this page."""
        m, figures, settings = bench.measuring, self.measures["figures"], dict[str, Any]()
        without = {"cost"} if m.anomalies is None else {"cost", "anomalies"}
        keys = [key for key in figures if key in MEASURES and MEASURES[key].purpose not in without]
        for key in keys:
            settings |= MEASURES[key].settings(m)
        known = figures.get("likelihood")
        settings["importance_samples"] = 1 if known is None else known["detail"]["samples"]
        usual = {
            "seed": 0,
            "extractor": "auto",
            "importance_samples": 1,
            "examples": len(bench.held_out),
            "labels": FEW,
        }
        unusual = {k: v for k, v in settings.items() if v != usual.get(k)}
        changed = has_changed(self.run.path, self.run.config, bench.data, changed_data=True)
        options = flags({"measures": ",".join(keys), **unusual, "changed-data": changed or None})
        return dict.fromkeys(keys, command_line(["unsup", "eval", path_word(self.run.path), *options]))


def new_folder(folder: Path, what: str) -> str:
    """A folder that does not exist yet, next to ``folder``, for a command."""
    name = f"{folder.resolve().name}-{what}"
    names = (os.path.normpath(folder / ".." / (name if n == 1 else f"{name}-{n}")) for n in itertools.count(1))
    return next(path for path in names if not os.path.exists(path))


def measures_of(
    bench: Bench, run: Run, into: Path, tell: Tell = lambda stage: None, seconds: float = math.inf
) -> Measured:
    """The measures of ``run``, computed unless the folder ``into`` has them already.

    Args:
        tell: called with the present stage.
        seconds: the time limit.
    """
    found = kept_measures(bench, run, into)
    if found is None:
        into.mkdir(parents=True, exist_ok=True)
        found, key = _measured(bench, run, into, tell, seconds), _key(bench, run)
        if found.scores is not None:
            buffer = io.BytesIO()
            np.savez(buffer, log_prob=found.scores, key=np.array(key))
            write_inside(into / "scores.npz", buffer.getvalue())
        text = json.dumps({"key": key, "measures": found.measures}, indent=1, allow_nan=False)
        write_over(into / "measures.json", text.encode())
    return found


def kept_measures(bench: Bench, run: Run, into: Path) -> Measured | None:
    """The measures in ``into``, if they are of this run in its present state; damaged ones are measured again."""
    path, scores = into / "measures.json", None
    if not path.is_file() or ((into / "scores.npz").exists() and not (into / "scores.npz").is_file()):
        return None
    key = _key(bench, run)
    try:
        kept: dict[str, Any] = read_json(path, dict[str, Any])
        if kept.get("key") != key:
            return None
        found: Measures = check_value("measures", kept.get("measures"), Measures)
        if likelihood := found["figures"].get("likelihood"):
            with np.load(into / "scores.npz") as file:
                scores, own = file["log_prob"], str(file["key"])
            if own != key or scores.shape != (likelihood["n"],) or not np.isfinite(scores).all():
                return None
    except _DAMAGED:
        return None
    if not all(is_below(p["file"]) and (into / p["file"]).is_file() for p in found["pictures"].values()):
        return None
    return Measured(run, into, found, scores)


def _measured(bench: Bench, run: Run, into: Path, tell: Tell, limit: float) -> Measured:
    """All measures that are possible on the data, with pictures."""
    started, events = time.monotonic(), run.events()
    last = events[-1] if events else {"step": 0, "seconds": 0.0}

    def begins(stage: str, done: int, total: int) -> None:
        if not total:
            tell(stage)

    name, seconds = run.config["model"]["model"], float(last["seconds"])
    exam = Exam(bench, run.model, name=name, path=run.path, train_seconds=seconds, seconds=limit, tell=begins)
    figures, missing = exam.figures(possible_measures(bench.data))
    if into == run.path:  # measured in its own folder, so these are the figures of its own page
        changed = has_changed(run.path, run.config, bench.data, changed_data=True)
        run.keep_figures(exam.evaluations(figures, step=run.kept_step, changed_data=changed))
    tell("pictures")
    notes = [f"{e['symptom']} at step {e['step']}: {e['advice']}" for e in events if "symptom" in e]
    notes += [f"{words} {e[k]}" for e in events for k, words in _NOTED.items() if k in e]
    curves = curves_of(events)
    losses = {k: [p for p in pairs if math.isfinite(p[1])] for k, pairs in curves["losses"].items()}
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
        "notes": notes + _short_training(run, bench, int(last["step"])),
        "curve": {
            "losses": {k: pairs[:: max(1, len(pairs) // _CURVE_POINTS)] for k, pairs in losses.items() if pairs},
            "validation": [p for p in curves["validation"] if math.isfinite(p[1])],
        },
        "pictures": written(into, _pictures(exam, figures)),
        "environment": environment(),
    }
    record["measure_seconds"] = round(time.monotonic() - started, 2)
    return Measured(run, into, finite(record), exam.scores.numpy() if "likelihood" in figures else None)


def _short_training(run: Run, bench: Bench, steps: int) -> list[str]:
    """A note on a run that saw less than its training data once. Models that count make whole passes."""
    if isinstance(run.model, LearnsByCounting) and run.model.passes > 0:
        return []
    passes = steps * run.config["training"]["batch_size"] / len(bench.data.train)
    share = f"{passes:.1g}" if passes < 0.1 else f"{passes:.2f}"
    return [f"{SHORT}{counted(steps, 'step')}, {share} of a pass over the training data"] if passes < 1 else []


def _key(bench: Bench, run: Run) -> str:
    """A digest of everything that a run's measures depend on."""
    kept = next((run.checkpoint(n) for n in ("best", "last") if run.checkpoint(n).is_file()), None)
    parameters = "" if kept is None else hashlib.sha256(kept.read_bytes()).hexdigest()
    depends = [FORMAT, sorted(MEASURES), asdict(bench.measuring), bench.digest, parameters, run.config["model"]]
    return hashlib.sha256(json.dumps(depends, default=str).encode()).hexdigest()


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
        return None if found is None else gallery.bits(some.x, found, lengths=some.lengths)

    drawn: dict[str, Callable[[], Drawn | None]] = {}
    if isinstance(model, CanSample):
        drawn["samples"] = samples
    if "memorisation" in figures:
        drawn["neighbours"] = neighbours
    if "auroc" in figures:
        drawn["anomalies"] = anomalies
    if "likelihood" in figures:
        drawn["most_likely"] = lambda: gallery.extremes(test.x, -exam.scores, most=True, lengths=test.lengths)
        drawn["least_likely"] = lambda: gallery.extremes(test.x, -exam.scores, most=False, lengths=test.lengths)
    if isinstance(model, CanDecode):
        drawn["reconstructions"] = lambda: gallery.reconstructions(some.x, reconstruct(model, some))
        has_paths = not (isinstance(model, HasLatents) and model.latent_event.is_discrete)  # numbers of codes have none
        if (
            has_paths and len(test) >= 2 * _PATHS and not is_conditioned(model)
        ):  # the ends may have different conditions
            ends = test.x[:_PATHS], test.x[_PATHS : 2 * _PATHS]
            drawn["interpolation"] = lambda: gallery.interpolation(interpolate(model, *ends, _PATH_STEPS))
    found: dict[str, Drawn | None] = {}
    limit = Deadline(max(exam.deadline.seconds_left, exam.deadline.seconds / 4), "pictures take too long")
    for name, draw in (drawn | {"bits": bits}).items():
        with suppress(OutOfTime), limit:
            found[name] = draw()
    return found
