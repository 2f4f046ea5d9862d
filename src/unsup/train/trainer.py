"""`fit`: one trainer for all models; the model defines its objectives or statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from numpy.typing import ArrayLike

from unsup.core import memory
from unsup.core.errors import InputError, kind_of
from unsup.core.model import LearnsByCounting, Model
from unsup.core.parallel import process_rank
from unsup.data.load import load_data
from unsup.data.source import Data
from unsup.train.base import Fitted
from unsup.train.counting import CountingTrainer
from unsup.train.gradients import GradientTrainer
from unsup.train.progress import Listener, Progress, ProgressMode
from unsup.train.requirements import check_data, check_settings
from unsup.train.settings import Settings, SettingsOptions, make_settings


def fit(
    model: Model,
    data: Data | ArrayLike | str | Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    changed_data: bool = False,
    progress: ProgressMode | Listener = "auto",
    **settings: Unpack[SettingsOptions],
) -> Fitted:
    """Train ``model`` in place on ``data.train`` and validate on ``data.validation``; the test split is only hashed.

    Args:
        model: any model of the registry, or your own `Model`.
        data: the result of `load_data`, or what it takes: an array, a name or a path.
        out: run folder to write, or None to keep everything in memory.
        resume: resume the run in ``out`` from its last checkpoint, bit for bit on the CPU, or from the beginning if it
            has none. A finished run is not changed.
            changed_data: resume even if ``data`` has changed since the start of the run; this is logged.
            progress: ``auto`` (live on a terminal), ``plain``, ``off``, or a function that is called with each
                `Snapshot`.
            **settings: fields of `Settings`; the defaults are ``model.fit_defaults``, then those of `Settings`.

    Returns:
        A `Fitted` record.

    Raises:
        InputError: not a model or not data, unknown or conflicting settings, data without the streams, conditions or
            labels that the model needs, or an unusable folder.
            TrainingError: the loss became NaN, the disk is full or the folder was deleted; the last good checkpoint is
                kept.

    >>> import unsup
    >>> data = unsup.load_data("digits")
    >>> model = unsup.create("made", data.event, preset="tiny", seed=0)
    >>> unsup.fit(model, data, steps=20, progress="off").steps
    20
    """
    if not isinstance(model, Model):
        name = repr(model) if isinstance(model, str) else '"made"'
        given = f"the name {model!r}" if isinstance(model, str) else kind_of(model)
        raise InputError(f"fit was given {given} for the model; expected unsup.fit(unsup.create({name}, data), data)")
    if not isinstance(data, Data):
        data = load_data(data)
    chosen = make_settings(model, settings)
    if resume and out is None:
        raise InputError("resume needs the run folder: pass out=FOLDER")
    check_data(model, data)
    counts = isinstance(model, LearnsByCounting) and model.passes > 0
    if counts and not resume:  # a run of an earlier version may record settings that were ignored
        check_settings(model, chosen)
    with Progress("off" if process_rank() else progress, unit="pass" if counts else "step") as display:
        more = _more_bytes(model, chosen, counts=counts)
        there = memory.limit()
        if more > there:
            display.note(
                f"note: training needs about {memory.said(more)} in addition to the parameters, but "
                f"{memory.said(there)} of memory are available; choose a smaller model, or --optimizer sgd and --ema 0"
            )
        trainer = (CountingTrainer if counts else GradientTrainer)(model, data, chosen, display)
        return trainer.run(Path(out) if out is not None else None, resume, changed_data)


def _more_bytes(model: Model, settings: Settings, *, counts: bool) -> int:
    """The memory that training needs besides the model: best parameters, gradients, optimizer state, an average."""
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    moments = {"adam": 2, "adamax": 2}.get(settings.optimizer, 1)
    return size if counts else size * (2 + moments + (settings.ema > 0))
