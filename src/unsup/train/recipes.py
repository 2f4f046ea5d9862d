"""Recipes: what to train, on what, how, and the published figure it is held against.

A recipe is a TOML file::

    summary = "MADE on statically binarised MNIST"
    data = "binarized-mnist"
    seeds = [0]
    importance_samples = 1

    [[run]]
    model = "made"
    options = { hidden = [500] }
    training = { epochs = 30 }
    published = "88.40 nats (Germain et al. 2015)"

Each ``[[run]]`` is trained and scored on the test split once for each seed. Results are appended to a ``.jsonl`` file,
from which the results table is written anew; nothing in the table is written by hand.
"""

from __future__ import annotations

import json
import re
import statistics
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unsup.core.config import check_value
from unsup.core.errors import InputError, nearest
from unsup.core.registry import create
from unsup.core.storage import write_atomically
from unsup.data import load_data
from unsup.evaluate.likelihood import evaluate_likelihood
from unsup.report.page import write_page
from unsup.train.progress import ProgressMode
from unsup.train.runs import Run, environment
from unsup.train.trainer import fit

_SHIPPED = Path(__file__).parent.parent / "recipes"


@dataclass(frozen=True)
class RecipeRun:
    """One model of a recipe. ``label`` tells it apart in the table where a model appears twice."""

    model: str
    label: str = ""
    preset: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    published: str = ""

    @property
    def name(self) -> str:
        return self.label or self.model


@dataclass(frozen=True)
class Recipe:
    """A TOML file, read."""

    name: str
    summary: str
    data: str
    seeds: tuple[int, ...]
    run: tuple[RecipeRun, ...]
    data_options: dict[str, Any] = field(default_factory=dict)
    importance_samples: int = 1


def shipped() -> dict[str, Path]:
    """The recipes that come with the library, by name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.toml"))}


def read_recipe(name_or_path: str) -> Recipe:
    """A shipped recipe by name, or one of your own by the path of its TOML file.

    Raises:
        InputError: there is none, or it is not a recipe.
    """
    path = Path(name_or_path) if name_or_path.endswith(".toml") else shipped().get(name_or_path)
    if path is None or not path.is_file():
        raise InputError(f"there is no recipe {name_or_path!r}{nearest(name_or_path, shipped())}")
    try:
        record = tomllib.loads(path.read_text())
        runs = tuple(RecipeRun(**r) for r in record.pop("run"))
        seeds = check_value("seeds", record.pop("seeds"), tuple[int, ...])
        return Recipe(name=path.stem, run=runs, seeds=seeds, **record)
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no recipe: {error}; see src/unsup/recipes for examples") from error


def reproduce(
    recipe: Recipe,
    *,
    runs: Path,
    results: Path,
    progress: ProgressMode = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Train and score every run of ``recipe``, going on with unfinished run folders under ``runs``.

    Returns the new result records, which are also appended to ``results`` (``.md``, with a ``.jsonl`` beside it).
    """
    data = load_data(recipe.data, **recipe.data_options)
    new = []
    for seed in recipe.seeds:
        for run in recipe.run:
            say(f"{recipe.name}: {run.name}, seed {seed}")
            folder = runs / recipe.name / f"{re.sub('[^a-z0-9]+', '-', run.name.lower())}-{seed}"
            record = _one(recipe, run, seed, data, folder, progress)
            append_result(record, results)
            found = record["likelihood"]
            say(f"{recipe.name}: {run.name}, seed {seed}: {found['nats']:.3f} nats ({found['kind']})")
            new.append(record)
    return new


def _one(recipe: Recipe, run: RecipeRun, seed: int, data: Any, folder: Path, progress: ProgressMode) -> dict[str, Any]:
    model = create(run.model, data.event, preset=run.preset, seed=seed, **run.options)
    started = Run(folder).exists
    fitted = fit(model, data, out=folder, resume=started, progress=progress, **run.training, seed=seed)
    if fitted.interrupted:
        raise KeyboardInterrupt
    found = evaluate_likelihood(model, data.test.x, samples=recipe.importance_samples, seed=seed)
    record = {
        "recipe": recipe.name,
        "model": run.name,
        "data": recipe.data,
        "seed": seed,
        "likelihood": found.to_json(),
        "published": run.published,
        "parameters": model.parameter_count,
        "steps": fitted.steps,
        "minutes": round(fitted.seconds / 60, 2),
        "environment": environment(),
        "command": f"unsup reproduce {recipe.name}",
    }
    Run(folder).write_json("eval.json", {**record, "split": "test"})
    write_page(folder)
    return record


def append_result(record: dict[str, Any], results: Path) -> None:
    """Add one record to the ``.jsonl`` beside ``results`` and write the table anew."""
    log = results.with_suffix(".jsonl")
    lines = log.read_text().splitlines() if log.is_file() else []
    lines.append(json.dumps(record, ensure_ascii=False))
    write_atomically(log, ("\n".join(lines) + "\n").encode())
    write_atomically(results, results_table(json.loads(line) for line in lines).encode())


def results_table(records: Iterable[dict[str, Any]]) -> str:
    """The results page: one row for each model of each recipe, over its seeds, from the newest record of each seed."""
    groups: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["recipe"], record["model"]), {})[record["seed"]] = record
    header = ("data", "model", "test nats", "bits/dim", "kind", "published", "seeds", "steps", "minutes", "command")
    rows = []
    for (_, model), by_seed in sorted(groups.items()):
        newest = list(by_seed.values())
        last = newest[-1]
        found = last["likelihood"]
        kind = found["kind"] + (f", {found['samples']:,} samples" if found["samples"] > 1 else "")
        rows.append(
            (
                last["data"],
                model,
                _figure([r["likelihood"]["nats"] for r in newest], found["standard_error"], 2),
                _figure([r["likelihood"]["bits_per_dim"] for r in newest], None, 4),
                kind,
                last["published"] or "–",
                " ".join(map(str, sorted(by_seed))),
                f"{last['steps']:,}",
                f"{statistics.fmean(r['minutes'] for r in newest):.1f}",
                f"`{last['command']}`",
            )
        )
    machines = sorted({r["environment"]["machine"] for g in groups.values() for r in g.values()})
    lines = [
        "# Results",
        "",
        "Written by `unsup reproduce` from the records in `RESULTS.jsonl`; do not edit. Negative log-likelihood of "
        "the test split, lower is better: `exact`, or `bound` (the truth is no higher). With one seed ± is the "
        "standard error over test examples; with several, the standard deviation over seeds. Minutes are of training, "
        "validation included.",
        "",
        f"Machines: {'; '.join(machines)}.",
        "",
        f"| {' | '.join(header)} |",
        f"|{' --- |' * len(header)}",
        *(f"| {' | '.join(r)} |" for r in rows),
        "",
    ]
    return "\n".join(lines)


def _figure(values: list[float], standard_error: float | None, digits: int) -> str:
    if len(values) > 1:
        return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"
    tail = "" if standard_error is None else f" ± {standard_error:.{digits}f}"
    return f"{values[0]:.{digits}f}{tail}"
