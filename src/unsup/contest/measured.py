"""The measures of a run, kept in a folder with a key of all that they depend on."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np

from unsup.contest.commands import fit_command
from unsup.core.errors import InputError
from unsup.core.escapes import command_line
from unsup.core.reading import read_json
from unsup.core.storage import write_inside, write_over
from unsup.evaluate.bench import Bench, finite
from unsup.evaluate.exam import Exam
from unsup.evaluate.records import Measures, checked_measures, is_below
from unsup.train.runs import Run, environment

FORMAT = 1
SCORES = "scores.npz"

Tell = Callable[[str], None]


def measures_of(bench: Bench, run: Run, into: Path, tell: Tell = lambda stage: None) -> Measures:
    """The measures of ``run``, made now unless the folder ``into`` holds them already.

    Args:
        tell: told what is being measured.
    """
    found = kept_measures(bench, run, into)
    if found is None:
        into.mkdir(parents=True, exist_ok=True)
        measured = Exam(bench, run.model, run.config, run.events(), run.path, into, tell)
        record = finite(measured.all() | {"environment": environment()})
        key = _key(bench, run)
        if measured.scores is not None:
            buffer = io.BytesIO()
            np.savez(buffer, log_prob=measured.scores.numpy(), key=np.array(key))
            write_inside(into / SCORES, buffer.getvalue())
        text = json.dumps({"key": key, "measures": record}, indent=1, allow_nan=False)
        write_over(into / "measures.json", text.encode())
        found = record | _commands(bench, record, run)
    return found


def kept_measures(bench: Bench, run: Run, into: Path) -> Measures | None:
    """The measures that ``into`` holds, if they are those of this run as it is now."""
    path, scores = into / "measures.json", into / SCORES
    if not path.is_file():
        return None
    key = _key(bench, run)
    try:
        kept: dict[str, Any] = read_json(path, dict[str, Any])
        if kept.get("key") != key:
            return None
        found = checked_measures(kept.get("measures"))
    except InputError:
        return None  # it is measured again, and what is there is kept beside
    if not all(is_below(p["file"]) and (into / p["file"]).is_file() for p in found["pictures"].values()):
        return None
    likelihood = found["likelihood"]
    if likelihood is not None and not _has_scores(scores, key, likelihood["n"]):
        return None
    record: Any = {**found, **_commands(bench, found, run)}
    return cast(Measures, record)


def _has_scores(path: Path, key: str, n: int) -> bool:
    """Whether a file holds the scores of ``n`` examples under that key."""
    if not path.is_file():
        return False
    try:
        with np.load(path) as file:
            found, log_prob = str(file["key"]), file["log_prob"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error):
        return False  # whatever is damaged in it
    return found == key and log_prob.shape == (n,) and bool(np.isfinite(log_prob).all())


def _commands(bench: Bench, found: Measures, run: Run) -> dict[str, Any]:
    """The fields that depend on where the run lies."""
    shown = str(run.path)
    words = ["unsup", "eval", shown]
    likelihood, quality = found["likelihood"], found["quality"]
    if likelihood is not None:
        words += ["--importance-samples", str(likelihood["samples"])] if likelihood["samples"] > 1 else []
        words += ["--examples", str(likelihood["n"])] if likelihood["n"] < len(bench.data.test) else []
    judged = None if quality is None else command_line(["unsup", "eval", shown, "--samples", str(quality["fake"])])
    return {
        "command": fit_command(run, shown),
        "eval_command": None if likelihood is None else command_line(words),
        "samples_command": judged,
    }


def _key(bench: Bench, run: Run) -> str:
    """What a run's measures depend on: they hold as long as it is the same."""
    kept = next((run.checkpoint(n) for n in ("best", "last") if run.checkpoint(n).is_file()), None)
    parameters = "" if kept is None else hashlib.sha256(kept.read_bytes()).hexdigest()
    depends = [FORMAT, asdict(bench.measuring), bench.digest, parameters, run.config["model"]]
    return hashlib.sha256(json.dumps(depends, default=str).encode()).hexdigest()
