"""The command lines that lead to a figure, as a person would type them."""

from __future__ import annotations

import dataclasses
from typing import Any

from unsup.core.commands import data_words, flags, path_word
from unsup.core.config import bare, options_of, plain
from unsup.core.escapes import command_line
from unsup.core.event import Event
from unsup.core.registry import model_class
from unsup.core.storage import load_tensors
from unsup.train.runs import Run
from unsup.train.settings import Settings

_OF_LENGTH = ("steps", "epochs", "minutes")


def fit_command(run: Run, folder: str) -> str:
    """The ``unsup fit`` that trains ``run`` again, for the steps that its time budget came to, into ``folder``."""
    training = run.config["training"]
    length: dict[str, Any] = {k: training[k] for k in _OF_LENGTH if training[k] is not None}
    if "minutes" in length:  # models that count take as many passes as they need
        steps = steps_planned(run)
        length = {} if steps is None else {"steps": steps}
    data, *data_flags = data_words(run.config["data"])
    words = ["unsup", "fit", data, run.config["model"]["model"], "-o", path_word(folder), *data_flags, *flags(length)]
    return command_line([*words, *flags(changed_training(run)), *flags(changed_options(run), "model.")])


def changed_options(run: Run) -> dict[str, Any]:
    """The model's options that are not its defaults."""
    model = run.config["model"]
    known = options_of(vars(model_class(model["model"]))["__init__"])
    changed = {k: v for k, v in model["config"].items() if k in known and v != plain(known[k][1])}
    return {k: v for k, v in changed.items() if bare(known[k][0]) is not Event}  # what is given comes with the data


def changed_training(run: Run) -> dict[str, Any]:
    """The settings of training, but for its length, that are not the model's defaults."""
    defaults = {f.name: f.default for f in dataclasses.fields(Settings)} | dict(run.new_model().fit_defaults)
    training = {k: v for k, v in run.config["training"].items() if k not in _OF_LENGTH}
    return {k: v for k, v in training.items() if plain(v) != plain(defaults[k])}


def steps_planned(run: Run) -> int | None:
    """The steps that a run's schedule was laid out for, or None where it counts passes or has not come so far."""
    if "optimizer" not in run.config["training"] or not run.checkpoint("last").is_file():
        return None
    _, record = load_tensors(run.checkpoint("last"))
    return record["total"] if "position" in record else None
