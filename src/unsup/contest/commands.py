"""The command lines that produce a run."""

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
    """The ``unsup fit`` that trains ``run`` again into ``folder``, with the steps that fitted its time budget."""
    training = run.config["training"]
    length: dict[str, Any] = {k: training[k] for k in _OF_LENGTH if training[k] is not None}
    if "minutes" in length:  # models that count need no length
        steps = steps_planned(run)
        length = {} if steps is None else {"steps": steps}
    data, *data_flags = data_words(run.config["data"])
    words = ["unsup", "fit", data, run.config["model"]["model"], "-o", path_word(folder), *data_flags, *flags(length)]
    return command_line([*words, *flags(changed_training(run)), *flags(changed_options(run), "model.")])


def changed_options(run: Run) -> dict[str, Any]:
    """The options of the model that differ from its defaults."""
    model = run.config["model"]
    known = options_of(vars(model_class(model["model"]))["__init__"])
    changed = {k: v for k, v in model["config"].items() if k in known and v != plain(known[k][1])}
    return {k: v for k, v in changed.items() if bare(known[k][0]) is not Event}  # the condition follows from the data


def changed_training(run: Run) -> dict[str, Any]:
    """The settings of training, except its length, that differ from the model's defaults."""
    defaults = {f.name: f.default for f in dataclasses.fields(Settings)} | dict(run.new_model().fit_defaults)
    training = {k: v for k, v in run.config["training"].items() if k not in _OF_LENGTH}
    return {k: v for k, v in training.items() if plain(v) != plain(defaults[k])}


def steps_planned(run: Run) -> int | None:
    """The number of steps of a run's schedule, or None if it counts passes or the number is not known yet."""
    if "optimizer" not in run.config["training"] or not run.checkpoint("last").is_file():
        return None
    _, record = load_tensors(run.checkpoint("last"))
    return record["total"] if "position" in record else None
