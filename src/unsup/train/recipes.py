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

``measure`` may also be ``modes`` (of ring8, grid25 and stacked-mnist), ``samples`` (FID and its like) or
``translation`` (the pixel error against known pairs); ``samples = 2500`` is how many are drawn.

Each ``[[run]]`` is trained and scored on the test split once for each seed. Results are appended to a ``.jsonl`` file,
from which the results table is written anew; nothing in the table is written by hand.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from unsup.core.config import check_value
from unsup.core.errors import InputError, nearest
from unsup.core.model import Model
from unsup.core.registry import create
from unsup.data import load_data
from unsup.data.source import Data
from unsup.evaluate.likelihood import evaluate_likelihood
from unsup.evaluate.quadrature import with_likelihood
from unsup.evaluate.samples import draw_samples, evaluate_samples, known_modes
from unsup.evaluate.translation import translation_error
from unsup.report.page import write_page
from unsup.train.progress import ProgressMode
from unsup.train.results import MEASURES, append_result
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
    measure: str = "likelihood"
    importance_samples: int = 1
    samples: int = 10_000


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
        recipe: Recipe = check_value("recipe", {"name": path.stem} | record, Recipe)
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path} is no recipe: {error}; see src/unsup/recipes for examples") from error
    if recipe.measure not in MEASURES:
        raise InputError(f"{path} measures {recipe.measure!r}{nearest(recipe.measure, MEASURES)}")
    return recipe


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
            folder = runs / re.sub(r"^\.+", "-", recipe.name) / f"{re.sub('[^a-z0-9]+', '-', run.name.lower())}-{seed}"
            record = _one(recipe, run, seed, data, folder, progress)
            append_result(record, results)
            say(f"{recipe.name}: {run.name}, seed {seed}: {_told(record)}")
            new.append(record)
    return new


def _one(recipe: Recipe, run: RecipeRun, seed: int, data: Any, folder: Path, progress: ProgressMode) -> dict[str, Any]:
    model = create(run.model, data.event, preset=run.preset, seed=seed, **run.options)
    started = Run(folder).exists
    fitted = fit(model, data, out=folder, resume=started, progress=progress, **run.training, seed=seed)
    if fitted.interrupted:
        raise KeyboardInterrupt
    record = {
        "recipe": recipe.name,
        "model": run.name,
        "data": recipe.data,
        "seed": seed,
        "measure": recipe.measure,
        **_measure(recipe, model, data, seed),
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


def _measure(recipe: Recipe, model: Model, data: Data, seed: int) -> dict[str, Any]:
    """The part of a record that the recipe is about."""
    match recipe.measure:
        case "modes":
            found, _ = known_modes(data.name, draw_samples(model, recipe.samples, seed=seed))
            true, _ = known_modes(data.name, data.test.x[: recipe.samples])
            if found is None or true is None:
                known = "ring8, grid25 and stacked-mnist"
                raise InputError(f"recipe {recipe.name}: the modes of {data.name} are not known, only those of {known}")
            figures = {"modes": found.modes, "good": found.good, "KL": found.kl}
            return {"figures": figures | {"true good": true.good, "true KL": true.kl}}
        case "samples":
            quality = evaluate_samples(model, data, recipe.samples, seed=seed)
            figures = {name: score.value for name, score in quality.scores.items()}
            return {"figures": figures | {"fid floor": quality["fid"].floor}, "quality": quality.to_json()}
        case "translation":
            if "domain_b" not in data.test.streams or not data.paired:
                raise InputError(f"recipe {recipe.name}: {data.name} has no pairs to measure translations by")
            figures = {}
            other = data.test.streams["domain_b"].x
            ways: tuple[tuple[Literal["a", "b"], Tensor, Tensor], ...] = (
                ("b", data.test.x, other),
                ("a", other, data.test.x),
            )
            for to, x, target in ways:
                error = translation_error(model, x, target, to=to)
                figures |= {f"error to {to}": error.error, f"identity to {to}": error.identity}
                figures |= {f"share to {to}": error.share}
            return {"figures": figures}
        case _:
            scored = with_likelihood(model, data.train.glance)
            likelihood = evaluate_likelihood(scored, data.test, samples=recipe.importance_samples, seed=seed)
            return {"likelihood": likelihood.to_json()}


def _told(record: dict[str, Any]) -> str:
    if "likelihood" in record:
        return f"{record['likelihood']['nats']:.3f} nats ({record['likelihood']['kind']})"
    return ", ".join(f"{name} {value:.4g}" for name, value in record["figures"].items())
