"""The run folder: the only interface between the trainer, the command line and the report.

``config.json`` · ``about.json`` (what its page tells of the data) · ``graph.json`` (of a model with a graph) ·
``events.jsonl`` (one line a log point) · ``checkpoints/last.safetensors`` and ``best.safetensors`` · ``samples/*.png``
· ``pictures.safetensors`` (what these take their scale from) · ``eval.json`` · ``env.json`` · ``report.html`` ·
``README.md``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

import torch
from torch import Tensor

from unsup.core import machine
from unsup.core.commands import path_word
from unsup.core.config import Weight, Whole, check_value, plain
from unsup.core.errors import InputError, TrainingError
from unsup.core.escapes import command_line
from unsup.core.likelihood import Likelihood
from unsup.core.logbook import read_log
from unsup.core.model import Model
from unsup.core.reading import checked, read_json, read_text
from unsup.core.storage import (
    LOCK,
    RECORD,
    DataRecord,
    ModelRecord,
    asked,
    build_model,
    check_config,
    check_layout,
    held_alone,
    load_model,
    load_tensors,
    make_way,
    mend,
    read_checkpoint_record,
    read_record,
    save_tensors,
    set_aside,
    write_inside,
    write_over,
)
from unsup.core.targets import folder_target, make_folder
from unsup.data.form import Form, form_from_json
from unsup.data.missing import Gaps
from unsup.data.source import Split
from unsup.evaluate.records import Evaluation, Evaluations, finite, merged, read_evaluations
from unsup.pictures.gallery import Drawn, Gallery
from unsup.train.settings import Settings

if TYPE_CHECKING:
    from unsup.data import Data

_log = logging.getLogger(__name__)


class RunRecord(TypedDict):
    """``config.json``: the configuration of a run."""

    data: DataRecord | None
    digest: NotRequired[str]
    labels: NotRequired[list[str] | None]
    form: NotRequired[dict[str, Any] | None]
    gaps: NotRequired[Gaps]
    model: ModelRecord
    training: Settings


class _ShownRecord(TypedDict):
    """What goes with the examples that pictures take their scale from."""

    columns: tuple[str, ...] | None
    rate: int | None


_SHOWN = "pictures.safetensors"

Ended = Literal["steps", "converged", "patience", "minutes"]
"""The reason for the end of training."""
ENDINGS: dict[Ended, str] = {
    "steps": "completed at {unit} {done}",
    "converged": "converged at {unit} {done}",
    "patience": "out of patience at {unit} {done}",
    "minutes": "time limit reached at {unit} {done}",
}
"""The same in words."""


class BestRecord(TypedDict):
    """The JSON part of ``best``: its step, and its validation."""

    done: Whole
    validator: str
    value: float | None
    validation: Likelihood | None


class LastRecord(TypedDict):
    """The JSON part of ``last``: the state of training. Learning by counting needs the first half."""

    done: Whole
    total: Whole | None
    ended: Ended | None
    best: float | None
    kept: Whole | None
    validator: str
    validation: Likelihood | None
    validated: Whole | None
    stale: Whole
    symptoms: dict[str, str]
    logged: Whole
    events: Whole
    seconds: Weight
    previous: NotRequired[float | None]
    position: NotRequired[Whole]
    validation_took: NotRequired[Weight | None]
    watched: NotRequired[Whole]
    ema_steps: NotRequired[Whole]
    optimizers: NotRequired[dict[str, dict[str, Any]]]
    smoothed: NotRequired[dict[str, float]]


_RECORDED = {"ended", "kept", "validated", "symptoms", "logged", "events"}
"""Fields of ``last`` that earlier versions did not record."""
_BEGUN = {"checkpoints", "samples", ".write-test", "env.json", "about.json", LOCK}
_BEGUN |= {f".{name}.json.tmp" for name in ("env", "about", "config")}
"""Files of a run that was stopped before its configuration was written."""


class Run:
    """A run folder on disk.

    Args:
        path: the folder.
        changed_data: use the current data of the run, even if it has changed since training.
        data: the name or path of the data, if it has moved since training.
        saved: also take the folder of a saved model, which has no data and no training.

    >>> Run("runs/none").exists
    False
    """

    def __init__(
        self, path: str | Path, *, changed_data: bool = False, data: str | None = None, saved: bool = False
    ) -> None:
        self.path, self._changed_data, self._moved, self._saved = Path(path), changed_data, data, saved
        self._noted: set[str] = set()

    @property
    def exists(self) -> bool:
        return (self.path / "config.json").is_file()

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The configuration: data, model, training settings.

        Raises:
            InputError: there is no run, or it is damaged, of an unsupported version, or does not match its
                checkpoints.
        """
        path = self.path / "config.json"
        if not path.is_file():
            raise InputError(f"{self.path} is not a run folder (no config.json); expected one written by unsup fit")
        text = read_text(path)
        record = checked(path, text, dict[str, Any])
        if isinstance(record.get("model"), str) and {"event", "config"} <= record.keys():
            if self._saved:
                return {
                    "data": None,
                    "model": read_record(self.path),
                    "training": plain(dataclasses.asdict(Settings())),
                }
            raise InputError(
                f"{self.path} is a saved model, not a run folder: it does not record data and training; expected a "
                "folder written by unsup fit (sample, score, encode, decode, predict and translate take saved models)"
            )
        missing = [key for key in ("training", "model", "data") if key not in record]
        if missing:
            raise InputError(
                f"{self.path} is not a run folder (config.json has no {missing[0]!r}); expected one of unsup fit"
            )
        found: RunRecord = checked(path, text, RunRecord)
        check_layout(found["model"], self.path)
        check_config(self.path, record)
        return record | {"training": plain(dataclasses.asdict(found["training"]))}

    @classmethod
    def create(
        cls, path: str | Path, config: Mapping[str, Any], about: Mapping[str, Any], *, needed_bytes: int = 0
    ) -> Run:
        """Create a run folder; refuse one that is in use, not writable, or on a full disk.

        Args:
            path: of the folder.
            config: what was asked for, a `RunRecord`.
            about: what the page of the run tells of it, and nothing else reads.
            needed_bytes: on the disk.
        """
        run = cls(path)
        if run.exists:
            raise InputError(f"{path} already has a run; resume it (--resume) or choose another folder (-o FOLDER)")
        folder_target(path)
        foreign = sorted(p.name for p in run.path.iterdir() if p.name not in _BEGUN) if run.path.is_dir() else []
        if foreign:
            raise InputError(
                f"{path} has other files ({foreign[0]}); a run needs an empty folder: choose another (-o FOLDER)"
            )
        try:
            run.make_folders()
            probe = run.path / ".write-test"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise InputError(f"cannot write to {path}: {error.strerror}; choose another folder (-o FOLDER)") from error
        free = shutil.disk_usage(run.path).free
        if free < needed_bytes:
            raise InputError(
                f"{path}: the checkpoints of the run need about {needed_bytes / 1e6:,.0f} MB, but the disk has "
                f"{free / 1e6:,.0f} MB free; free some space or choose another folder (-o FOLDER)"
            )
        with held_alone(run.path, "unsup fit"):
            if run.exists:  # another process was faster
                raise InputError(f"{path} was just created by another run; choose another folder (-o FOLDER)")
            run.write_json("env.json", environment())
            run.write_json("about.json", about)
            run.write_json("config.json", config)
        return run

    def make_folders(self) -> None:
        make_folder(self.path)
        for folder in ("checkpoints", "samples"):
            (self.path / folder).mkdir(exist_ok=True)

    def write_json(self, name: str, record: Mapping[str, Any]) -> None:
        """Write a record; a damaged file in its place is renamed and kept."""
        write_over(self.path / name, json.dumps(record, indent=2).encode())

    def keep_figures(self, found: Iterable[Evaluation]) -> None:
        """Write figures to ``eval.json``; what else it holds stays. A file that is damaged is kept beside it."""
        path = self.path / "eval.json"
        try:
            kept = read_evaluations(path)
        except InputError as error:
            set_aside(path, str(error).removesuffix("; restore it"))
            kept = []
        record: Evaluations = {"format": 2, "results": merged(kept, found)}
        write_inside(path, json.dumps(finite(record), indent=2, allow_nan=False).encode())

    # --- events ---------------------------------------------------------------------------------------------------

    def append_event(self, event: Mapping[str, Any]) -> None:
        path = self.path / "events.jsonl"
        with self._there():
            try:
                with path.open("a") as file:
                    file.write(json.dumps(event) + "\n")
            except OSError as error:
                raise TrainingError(f"cannot write {path}: {error.strerror}; {mend(error, path)}") from error

    def events(self) -> list[dict[str, Any]]:
        """The log points. Damaged lines are skipped and counted in a note, except a last line cut off by a crash."""
        points, wrong = read_log(self.path / "events.jsonl")
        if wrong is not None:
            self._note(wrong)
        return [point.record for point in points]

    def keep_events(self, count: int) -> None:
        """Truncate the log after its first ``count`` lines. A copy of a damaged file is kept."""
        path = self.path / "events.jsonl"
        points, wrong = read_log(path)
        if wrong is not None:
            set_aside(path, wrong)
        kept = b"".join(point.line + b"\n" for point in points if point.number < count)
        if not path.is_file() or path.read_bytes() != kept:
            write_inside(path, kept)

    def _note(self, line: str) -> None:
        """Log once what is wrong with an optional file."""
        if line not in self._noted:
            self._noted.add(line)
            _log.warning("note: %s", line)

    def side_record(self, name: str) -> dict[str, Any]:
        """An optional JSON file (``eval.json``, ``env.json``); empty if it is damaged."""
        path = self.path / name
        if not path.exists():
            return {}
        try:
            found: dict[str, Any] = read_json(path, dict[str, Any])
        except InputError as error:
            self._note(f"{error}; it is ignored")
            return {}
        return found

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def checkpoint(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.safetensors"

    def load_checkpoint(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors and the record of ``last`` or ``best``.

        Raises:
            InputError: it is missing, damaged, or does not have the record of a trainer.
        """
        path = self.checkpoint(name)
        tensors, record = load_tensors(path)
        if name == "last" and not record.keys() >= _RECORDED:
            raise InputError(
                f"{self.path} was trained by an earlier version of unsup, which recorded too little to resume it "
                f"exactly; use its parameters (unsup eval {self.path}), or start a new run elsewhere (-o FOLDER)"
            )
        try:
            check_value("its record", record, LastRecord if name == "last" else BestRecord)
        except InputError as error:
            raise InputError(f"{path} is damaged ({error}); restore it or use another checkpoint") from error
        return tensors, record

    def save_checkpoint(self, name: str, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        with self._there():
            make_way(self.checkpoint(name))
            save_tensors(self.checkpoint(name), tensors, {RECORD: asked(self.config), **record})

    # --- pictures -------------------------------------------------------------------------------------------------

    def save_picture(self, name: str, drawn: Drawn) -> None:
        """Write a picture at the size at which it is looked at: people open these files."""
        with self._there():
            write_inside(self.path / "samples" / name, drawn.enlarged().png)

    def keep_examples(self, shown: Split, data: Data) -> None:
        """Keep some training examples, from which pictures of the run take their scale wherever the data is then."""
        tensors = {"x": shown.x} | ({} if shown.lengths is None else {"lengths": shown.lengths})
        record: _ShownRecord = {"columns": data.columns, "rate": data.rate}
        with self._there():
            make_way(self.path / _SHOWN)
            save_tensors(self.path / _SHOWN, tensors, record)

    def gallery(self, samples: Tensor) -> Gallery:
        """What draws a file of ``samples`` at the scale of the training data.

        A run of an earlier version, or one without that file, has none of it: the scale is then that of the samples.
        """
        event, letters = self.model.event, "" if self.form is None else self.form.letters
        try:
            tensors, record = load_tensors(self.path / _SHOWN)
            found: _ShownRecord = check_value("its record", record, _ShownRecord)
            x, lengths = tensors["x"], tensors.get("lengths")
            return Gallery(
                event, x, lengths=lengths, names=found["columns"], rate=found["rate"], letters=letters, whole=True
            )
        except (InputError, KeyError) as error:
            self._note(f"{error}; the scale of the picture is that of the samples themselves")
            return Gallery(event, samples, letters=letters, whole=True)

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Raise an error if the folder was deleted during training."""
        try:
            yield
        except TrainingError as error:
            if self.path.is_dir():
                raise
            raise TrainingError(
                f"the run folder {self.path} was deleted or moved during training, so nothing more can "
                "be saved; resume it in its new place (--resume -o FOLDER), or start a new run"
            ) from error

    # --- what came of it ------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether training is over, as the last checkpoint records it; nothing else decides."""
        try:
            return read_checkpoint_record(self.checkpoint("last")).get("ended") is not None
        except InputError:  # the error is reported when the run is resumed
            return False

    @property
    def ending(self) -> str:
        """Why and when training ended, in words.

        Raises:
            InputError: it has not ended, or its last checkpoint is damaged.
        """
        _, record = self.load_checkpoint("last")
        if record["ended"] is None:
            raise InputError(f"{self.path} has not finished; resume it (unsup fit --resume -o {self.path})")
        return ENDINGS[record["ended"]].format(unit="step", done=f"{record['done']:,}")

    @property
    def unfinished(self) -> str | None:
        """A sentence if training is not over, as the last checkpoint records it; None for saved models too."""
        try:
            record = read_checkpoint_record(self.checkpoint("last"))
        except InputError:  # a saved model, or an error that is reported where the parameters are read
            return None
        if record.get("ended", "") is not None:
            return None
        done, total = record.get("done"), record.get("total")
        step = f"{done:,}" if total is None else f"{done:,} of {total:,}"
        again = command_line(["unsup", "fit", "--resume", "-o", path_word(self.path)])
        return f"training is not finished: step {step}; {again} goes on"

    @property
    def kept_step(self) -> int | None:
        """The step of the parameters that `model` has, where that is recorded."""
        kept = next((path for path in map(self.checkpoint, ("best", "last")) if path.is_file()), None)
        return None if kept is None else read_checkpoint_record(kept).get("done")

    def new_model(self) -> Model:
        """The model of the run with fresh parameters."""
        return build_model(self.config["model"], seed=self.config["training"]["seed"])

    @functools.cached_property
    def model(self) -> Model:
        """The trained model in evaluation mode: the best on validation; logs a warning if only the last is left."""
        _ = self.config  # gives the right error for a folder that is not a run
        return load_model(self.path)

    @functools.cached_property
    def _data(self) -> tuple[Data, bool]:
        from unsup.data.recorded import data_of_run

        return data_of_run(self.path, self.config, changed_data=self._changed_data, moved=self._moved)

    @property
    def data(self) -> Data:
        """The data the run was trained on, loaded again.

        Raises:
            InputError: the data has no name, or has changed since training.
        """
        return self._data[0]

    @property
    def data_changed(self) -> bool:
        """Whether `data` has changed since the run was trained."""
        return self._data[1]

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes of its data, if they are known."""
        found = self.config.get("labels")
        return None if found is None else tuple(found)

    @functools.cached_property
    def form(self) -> Form | None:
        """How examples of its data are written, if it is known."""
        found = self.config.get("form")
        return None if found is None else form_from_json(found)

    @functools.cached_property
    def gaps(self) -> Gaps:
        """What was done about the missing entries of its data."""
        found: Gaps = check_value("gaps", self.config.get("gaps", {}), Gaps)
        return found


def open_run(path: str | Path, *, changed_data: bool = False, data: str | None = None) -> Run:
    """The run folder at ``path``.

    Args:
        path: of the folder.
        changed_data: use its current data, even if it has changed since training.
        data: the name or path of its data, if it has moved.

    Raises:
        InputError: there is no run.
    """
    run = Run(path, changed_data=changed_data, data=data)
    _ = run.config
    return run


def open_model(path: str | Path) -> Run:
    """The run folder or the saved model at ``path``, for commands that need the model only.

    Raises:
        InputError: there is neither.
    """
    run = Run(path, saved=True)
    _ = run.config
    return run


def environment() -> dict[str, Any]:
    """The environment that a result depends on, besides its configuration."""
    return machine.environment() | {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
