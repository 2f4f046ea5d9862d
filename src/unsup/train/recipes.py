"""Recipes: models, data, settings, and published figures for comparison.

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

``measures`` are keys of ``unsup measures``, by default ``["likelihood"]``; ``samples = 2500`` is the number
of samples, and ``examples = 1000`` that of test examples, which are otherwise all of them. An option of the form
``"run:LABEL"`` is the trained model of an earlier run of the recipe, with the same seed.

Each ``[[run]]`` is trained and measured on the test split, once per seed. Results are appended to a ``.jsonl`` file,
from which the results table is generated.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unsup.core.config import check_value
from unsup.core.errors import InputError, nearest
from unsup.core.registry import create
from unsup.data import load_data
from unsup.evaluate.bench import Bench, Measuring
from unsup.evaluate.exam import Exam
from unsup.evaluate.measures import MEASURES, choose_measures
from unsup.report.page import write_page
from unsup.train.progress import ProgressMode
from unsup.train.results import append_result
from unsup.train.runs import Run, environment
from unsup.train.trainer import fit

_EARLIER = "run:"
_SHIPPED = Path(__file__).parent.parent / "recipes"


@dataclass(frozen=True)
class RecipeRun:
    """One model of a recipe. ``label`` is its name in the table, by default that of the model."""

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
    """The content of a TOML file."""

    name: str
    summary: str
    data: str
    seeds: tuple[int, ...]
    run: tuple[RecipeRun, ...]
    data_options: dict[str, Any] = field(default_factory=dict)
    measures: tuple[str, ...] = ("likelihood",)
    importance_samples: int = 1
    samples: int = 10_000
    examples: int | None = None


def shipped() -> dict[str, Path]:
    """The included recipes, by name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.toml"))}


def read_recipe(name_or_path: str) -> Recipe:
    """An included recipe by name, or your own by the path of its TOML file.

    Raises:
        InputError: it does not exist, or is not a recipe.
    """
    path = Path(name_or_path) if name_or_path.endswith(".toml") else shipped().get(name_or_path)
    if path is None or not path.is_file():
        raise InputError(f"there is no recipe {name_or_path!r}{nearest(name_or_path, shipped())}")
    try:
        record = tomllib.loads(path.read_text())
        recipe: Recipe = check_value("recipe", {"name": path.stem} | record, Recipe)
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path} is not a recipe: {error}; see src/unsup/recipes for examples") from error
    choose_measures(",".join(recipe.measures))
    return recipe


def reproduce(
    recipe: Recipe,
    *,
    runs: Path,
    results: Path,
    progress: ProgressMode = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Train and measure every run of ``recipe``; unfinished run folders in ``runs`` are resumed.

    Returns the new result records, which are also appended to the ``.jsonl`` file next to ``results`` (``.md``).
    """
    data = load_data(recipe.data, **recipe.data_options)
    new = []
    for seed in recipe.seeds:
        for run in recipe.run:
            say(f"{recipe.name}: {run.name}, seed {seed}")
            folder = _folder(runs, recipe, run, seed)
            options = {name: _resolved(value, runs, recipe, run, seed) for name, value in run.options.items()}
            record = _one(recipe, replace(run, options=options), seed, data, folder, progress)
            append_result(record, results)
            shown = (f"{MEASURES[k].title} {MEASURES[k].show(v['value'])}" for k, v in record["figures"].items())
            say(f"{recipe.name}: {run.name}, seed {seed}: {', '.join(shown)}")
            new.append(record)
    return new


def _folder(runs: Path, recipe: Recipe, run: RecipeRun, seed: int) -> Path:
    return runs / re.sub(r"^\.+", "-", recipe.name) / f"{re.sub('[^a-z0-9]+', '-', run.name.lower())}-{seed}"


def _resolved(value: Any, runs: Path, recipe: Recipe, run: RecipeRun, seed: int) -> Any:
    """The value of an option; the folder of an earlier run where it names one."""
    if not isinstance(value, str) or not value.startswith(_EARLIER):
        return value
    label = value.removeprefix(_EARLIER)
    for earlier in recipe.run[: recipe.run.index(run)]:
        if earlier.name == label:
            return str(_folder(runs, recipe, earlier, seed))
    earlier_runs = ", ".join(repr(own.name) for own in recipe.run[: recipe.run.index(run)]) or "none"
    raise InputError(f"recipe {recipe.name}, {run.name}: {value!r} is not an earlier run; these are {earlier_runs}")


def _one(recipe: Recipe, run: RecipeRun, seed: int, data: Any, folder: Path, progress: ProgressMode) -> dict[str, Any]:
    model = create(run.model, data, preset=run.preset, seed=seed, **run.options)
    started = Run(folder).exists
    fitted = fit(model, data, out=folder, resume=started, progress=progress, **run.training, seed=seed)
    if fitted.interrupted:
        raise KeyboardInterrupt
    measuring = Measuring(
        examples=recipe.examples, samples=recipe.samples, importance_samples=recipe.importance_samples, seed=seed
    )
    exam = Exam(Bench(data, measuring), model, name=run.model, path=folder, train_seconds=fitted.seconds)
    figures, missing = exam.figures(recipe.measures)
    if missing:
        raise InputError(f"recipe {recipe.name}: {'; '.join(dict.fromkeys(missing.values()))}")
    saved = Run(folder)
    saved.keep_figures(exam.evaluations(figures, step=saved.kept_step, changed_data=False))
    record = {
        "recipe": recipe.name,
        "model": run.name,
        "data": recipe.data,
        "seed": seed,
        "figures": figures,
        "published": run.published,
        "examples": recipe.examples,
        "parameters": model.parameter_count,
        "steps": fitted.steps,
        "minutes": round(fitted.seconds / 60, 2),
        "environment": environment(),
        "command": f"unsup reproduce {recipe.name}",
    }
    write_page(folder)
    return record
