"""The page of existing runs."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unsup.contest.measured import measures_of
from unsup.contest.outcome import Compared, Moment, Tell, check_purpose, figure, write_results
from unsup.contest.plan import Asked, Entry, counted
from unsup.core.commands import data_words, flags, path_word
from unsup.core.errors import InputError
from unsup.core.escapes import command_line
from unsup.core.targets import folder_target, make_folder
from unsup.data.recorded import has_changed
from unsup.evaluate.bench import HELD_OUT_CLASS, Bench, Measuring
from unsup.evaluate.records import Purpose, Results
from unsup.report.page import changed_settings, read_run
from unsup.train.runs import Run, open_run


def compare_runs(
    paths: Sequence[str],
    folder: Path,
    anomalies: str | None,
    tell: Tell = lambda m: None,
    *,
    changed_data: bool = False,
    moved: str | None = None,
    purpose: Purpose | None = None,
) -> Results:
    """Measure existing runs of the same data and write a page that compares them.

    Args:
        paths: of the runs.
        folder: the folder of the page.
        anomalies: see `Measuring`.
        tell: called with the progress.
        changed_data: measure on the present data if it has changed; the page reports the change.
        moved: the name or path of the data, if it has moved since training.
        purpose: the order of table, sentences and next commands.

    Raises:
        InputError: a path is not a run or is named twice, the runs have different data, the data has changed, no run
            can be measured for the purpose, or the folder has other files.
    """
    runs = [open_run(p, changed_data=changed_data, data=moved) for p in paths]
    if len({r.path.resolve() for r in runs}) < len(runs):
        raise InputError("a run is named twice; name each once")
    if folder_target(folder).is_dir() and any(folder.iterdir()) and not (folder / "results.json").is_file():
        raise InputError(f"{folder} has other files; choose another folder (-o NAME)")
    if (folder / "contest.json").is_file():
        page = f"unsup compare -o {path_word(folder)} writes its page"
        raise InputError(f"{folder} is a comparison ({page}); choose another folder")
    first = runs[0]
    for run in runs[1:]:
        if run.config["data"] != first.config["data"]:
            ours, theirs = (command_line(data_words(r.config["data"])) for r in (first, run))
            raise InputError(
                f"{first.path} is of {ours} and {run.path} of {theirs}; only runs of the same data with the same "
                "options can be compared"
            )
    if anomalies is not None and anomalies.startswith(HELD_OUT_CLASS):
        held_out = anomalies.removeprefix(HELD_OUT_CLASS)
        if first.data.options.get("without") != held_out:
            trained = "these runs were trained with that class"
            raise InputError(f"--anomalies {anomalies}: {trained}; train them with --without {held_out}")
    started, data = time.monotonic(), first.data
    if purpose is not None:
        check_purpose(purpose, ((str(run.path), run.new_model()) for run in runs), data)
    changed = [str(run.path) for run in runs if has_changed(run.path, run.config, data, changed_data=changed_data)]
    if changed:
        note = f"the data has changed since these runs were trained: {', '.join(changed)}"
        data = replace(data, notes=(*data.notes, note))
    most = counted(None, len(data.test)), min(counted(None, len(data.train)), 2000)
    bench = Bench(data, Measuring(*most, anomalies, seconds=60.0, importance_samples=None))
    make_folder(folder)
    found = []
    for name, group in _by_model(runs).items():
        one = Compared(name, Entry(group[0].config["model"]["model"], *changed_settings(read_run(group[0].path))))
        for run in group:
            shown = str(run.path)
            into = folder / "measured" / hashlib.sha256(os.fsencode(shown)).hexdigest()[:12]
            one.runs.append(measures_of(bench, run, into, lambda stage, n=shown: tell(Moment(n, f"measuring {stage}"))))  # type: ignore[misc]
            tell(Moment(shown, "done", note=figure(one.runs[-1].measures)))
        found.append(one)
    models = dict.fromkeys(one.entry.model for one in found)
    options = flags({"anomalies": anomalies, "for": purpose, "changed-data": bool(changed) or None, "data": moved})
    return write_results(
        folder,
        bench,
        found,
        purpose,
        command=command_line(["unsup", "report", *map(path_word, paths), *options, "-o", path_word(folder)]),
        plan="These runs were trained before, for different times; all were measured in the same way.",
        minutes=None,
        seconds=time.monotonic() - started,
        asked=Asked(data.name or "DATA", dict(data.options), 1.0, tuple(models), anomalies=anomalies),
    )


def _by_model(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ only in their seed are one model; several of one kind are named by their folders."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        training = {k: v for k, v in run.config["training"].items() if k != "seed"}
        groups.setdefault(json.dumps([run.config["model"], training]), []).append(run)
    models = [g[0].config["model"]["model"] for g in groups.values()]
    named = {}
    for group, model in zip(groups.values(), models, strict=True):
        named[model if models.count(model) == 1 else f"{model} ({group[0].path.name})"] = group
    if len(named) < len(groups):
        raise InputError("two of the runs have the same folder name and model; rename one folder")
    return named
