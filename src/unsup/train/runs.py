"""The run folder: the only contract between the trainer, the command line and the report.

``config.json`` · ``events.jsonl`` (one line a log point) · ``checkpoints/last.safetensors`` and ``best.safetensors`` ·
``samples/*.png`` · ``eval.json`` · ``env.json`` · ``report.html`` · ``README.md``.
"""

from __future__ import annotations

import functools
import json
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import unsup
from unsup.core.errors import InputError, TrainingError
from unsup.core.event import Event
from unsup.core.machine import machine_kind
from unsup.core.model import Model
from unsup.core.registry import create
from unsup.core.storage import (
    check_layout,
    held_alone,
    load_model,
    mend,
    peek_record,
    save_tensors,
    write_atomically,
)

if TYPE_CHECKING:
    from unsup.data import Data


_BEGUN = {"checkpoints", "samples", "env.json", ".env.json.tmp", ".config.json.tmp", ".write-test", ".lock"}
"""What a run that was stopped before its configuration was written leaves behind."""


class Run:
    """A run folder on disk.

    >>> Run("runs/none").exists
    False
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        return (self.path / "config.json").is_file()

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """What was asked for: data, model, training settings.

        Raises:
            InputError: there is no run, or one of a version that cannot be read any more.
        """
        found = self._read("config.json", "training", "model", "data")
        model = found["model"]
        if not isinstance(model, dict) or not {"model", "event", "config"} <= set(model):
            raise InputError(f"{self.path / 'config.json'} is damaged (it names no model); restore it")
        check_layout(model, self.path)
        return found

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any], *, needed_bytes: int = 0) -> Run:
        """Make a new run folder, refusing one that is taken, cannot be written or is on a disk too full for it."""
        run = cls(path)
        if run.exists:
            raise InputError(f"{path} already holds a run; go on with it (--resume) or choose another folder (-o NAME)")
        if run.path.exists() and not run.path.is_dir():
            raise InputError(f"{path} is a file; a run needs a folder (-o NAME)")
        foreign = sorted(p.name for p in run.path.iterdir() if p.name not in _BEGUN) if run.path.is_dir() else []
        if foreign:
            raise InputError(
                f"{path} holds other things ({foreign[0]}); a run needs a folder of its own, choose another (-o NAME)"
            )
        try:
            run.make_folders()
            probe = run.path / ".write-test"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise InputError(f"cannot write to {path}: {error.strerror}; choose another folder (-o NAME)") from error
        free = shutil.disk_usage(run.path).free
        if free < needed_bytes:
            raise InputError(
                f"{path}: the run's checkpoints need about {needed_bytes / 1e6:,.0f} MB and the disk has "
                f"{free / 1e6:,.0f} MB free; free some space or choose another folder (-o NAME)"
            )
        with held_alone(run.path, "unsup fit"):
            if run.exists:  # another process has been faster
                raise InputError(f"{path} has just become another run; choose another folder (-o NAME)")
            run.write_json("env.json", environment())
            run.write_json("config.json", config)
        return run

    def make_folders(self) -> None:
        for folder in (self.path, self.path / "checkpoints", self.path / "samples"):
            folder.mkdir(parents=True, exist_ok=True)

    def write_json(self, name: str, record: Mapping[str, Any]) -> None:
        write_atomically(self.path / name, json.dumps(record, indent=2).encode())

    def _read(self, name: str, *expected: str) -> dict[str, Any]:
        path = self.path / name
        if not path.is_file():
            raise InputError(f"{self.path} holds no run (no {name}); expected a folder written by unsup fit")
        try:
            record = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); restore it") from error
        missing = expected if not isinstance(record, dict) else [key for key in expected if key not in record]
        if missing:
            raise InputError(
                f"{self.path} holds no run ({name} has no {missing[0]!r}); expected a folder written by unsup fit"
            )
        return record

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
        """The log points; a line cut short by a crash is left out."""
        return _events_of(self._lines())

    def keep_events(self, count: int) -> None:
        """Cut the log after its first ``count`` lines, and leave those out that are damaged."""
        lines = self._lines()
        kept = [json.dumps(e).encode() for e in _events_of(lines[:count])]
        if kept != lines:
            write_atomically(self.path / "events.jsonl", b"".join(line + b"\n" for line in kept))

    def _lines(self) -> list[bytes]:
        path = self.path / "events.jsonl"
        return path.read_bytes().splitlines() if path.is_file() else []

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def checkpoint(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.safetensors"

    def save_checkpoint(self, name: str, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        with self._there():
            save_tensors(self.checkpoint(name), tensors, record)

    def save_picture(self, name: str, png: bytes) -> None:
        with self._there():
            write_atomically(self.path / "samples" / name, png)

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Say of a folder that was deleted under a run's feet that it was."""
        try:
            yield
        except TrainingError as error:
            if self.path.is_dir():
                raise
            raise TrainingError(
                f"the run folder {self.path} is gone: it was deleted or moved while training ran, so nothing more can "
                "be saved; go on with it where it is now (--resume -o FOLDER), or train anew"
            ) from error

    # --- what came of it ------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether training is over, as the last checkpoint records it; nothing else decides."""
        try:
            return peek_record(self.checkpoint("last")).get("ended") is not None
        except InputError:  # going on with the run says what is wrong
            return False

    def new_model(self) -> Model:
        """The run's model with fresh parameters."""
        record = self.config["model"]
        event = Event.from_json(record["event"])
        return create(record["model"], event, seed=self.config["training"]["seed"], **record["config"])

    @functools.cached_property
    def model(self) -> Model:
        """The trained model in evaluation mode: the best on validation; a warning tells where only the last is left."""
        _ = self.config  # a folder that holds no run is said to be that
        return load_model(self.path)

    @functools.cached_property
    def data(self) -> Data:
        """The data the run was trained on, loaded again."""
        from unsup.data import load_data

        record = self.config["data"]
        if record is None:
            raise InputError(
                f"{self.path} was trained on arrays in memory, which no name leads back to; give the data by hand"
            )
        return load_data(record["name"], **record["options"])


def open_run(path: str | Path) -> Run:
    """The run folder at ``path``.

    Raises:
        InputError: there is no run.
    """
    run = Run(path)
    _ = run.config
    return run


def _events_of(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def environment() -> dict[str, Any]:
    """What a figure depends on besides its configuration."""
    return {
        "unsup": unsup.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "machine": machine_kind(),
        "threads": torch.get_num_threads(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
