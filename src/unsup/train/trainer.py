"""`fit`: one trainer for every model; it carries out what the model says of who minimises, or counts, what."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from unsup.core import memory
from unsup.core.errors import InputError
from unsup.core.model import LearnsByCounting, Model
from unsup.core.parallel import process_rank
from unsup.data.source import Data
from unsup.train.base import Fitted
from unsup.train.counting import CountingTrainer
from unsup.train.gradients import GradientTrainer
from unsup.train.progress import Listener, Progress, ProgressMode
from unsup.train.requirements import check_data
from unsup.train.settings import Settings, SettingsOptions, make_settings


def fit(
    model: Model,
    data: Data,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    changed_data: bool = False,
    progress: ProgressMode | Listener = "auto",
    **settings: Unpack[SettingsOptions],
) -> Fitted:
    """Train ``model`` in place on ``data.train``, watching ``data.validation``; of test only a digest is taken.

    Args:
        model: any model of the registry, or your own `Model`.
        data: what `load_data` gives.
        out: run folder to write, or None to keep everything in memory.
        resume: go on with the run in ``out`` from its last checkpoint, bit for bit on the CPU; from the beginning where
            it was stopped before the first. A finished run stays as it is.
        changed_data: resume though ``data`` is other than what the run was started on; its events tell so.
        progress: ``auto`` (live on a terminal), ``plain``, ``off``, or a function that is told each `Snapshot`.
        **settings: fields of `Settings`; what is not given comes from ``model.fit_defaults``, then `Settings`.

    Returns:
        A `Fitted` record.

    Raises:
        InputError: no model or no data, settings that do not exist or contradict, data without what the model learns
            from (streams, conditions, labels), a folder that cannot be used.
        TrainingError: the loss became NaN, the disk full or the folder deleted; the last good checkpoint is kept.

    >>> import unsup
    >>> data = unsup.load_data("digits")
    >>> model = unsup.create("made", data.event, preset="tiny", seed=0)
    >>> unsup.fit(model, data, steps=20, progress="off").steps
    20
    """
    if not isinstance(model, Model) or not isinstance(data, Data):
        raise InputError(
            f"fit was given a {type(model).__name__} and a {type(data).__name__}; expected a model and data: "
            'unsup.fit(unsup.create("made", data.event), data)'
        )
    chosen = make_settings(model, settings)
    if resume and out is None:
        raise InputError("resume needs the run folder: give out=FOLDER")
    check_data(model, data)
    counts = isinstance(model, LearnsByCounting) and model.passes > 0
    with Progress("off" if process_rank() else progress, unit="pass" if counts else "step") as display:
        more = _more_bytes(model, chosen, counts=counts)
        there = memory.limit()
        if more > there:
            display.note(
                f"note: training takes about {memory.said(more)} beside the parameters, and {memory.said(there)} of "
                "memory are there; choose a smaller model, or --optimizer sgd and --ema 0"
            )
        trainer = (CountingTrainer if counts else GradientTrainer)(model, data, chosen, display)
        return trainer.run(Path(out) if out is not None else None, resume, changed_data)


def _more_bytes(model: Model, settings: Settings, *, counts: bool) -> int:
    """What training holds beside the model: the best parameters, gradients, the state of the optimizer, an average."""
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    moments = {"adam": 2, "adamax": 2}.get(settings.optimizer, 1)
    return size if counts else size * (2 + moments + (settings.ema > 0))
