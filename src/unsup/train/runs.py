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
from collections.abc import Mapping
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
from unsup.core.storage import check_layout, load_model, save_tensors, write_atomically

if TYPE_CHECKING:
    from unsup.data import Data


_BEGUN = {"checkpoints", "samples", "env.json", ".env.json.tmp", ".config.json.tmp", ".write-test", ".lock"}
"""What a run that was stopped before its configuration was written leaves behind."""


class Run:
    """A run folder on disk.

    Args:
        path: of the folder.
        changed_data: let `data` be what the run's data is now, where that has changed since.

    >>> Run("runs/none").exists
    False
    """

    def __init__(self, path: str | Path, *, changed_data: bool = False) -> None:
        self.path, self._changed_data = Path(path), changed_data

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
            for folder in (run.path, run.path / "checkpoints", run.path / "samples"):
                folder.mkdir(parents=True, exist_ok=True)
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
        run.write_json("env.json", environment())
        run.write_json("config.json", config)
        return run

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
        try:
            with (self.path / "events.jsonl").open("a") as file:
                file.write(json.dumps(event) + "\n")
        except OSError as error:
            raise TrainingError(
                f"cannot write {self.path / 'events.jsonl'}: {error.strerror}; free some space"
            ) from error

    def events(self) -> list[dict[str, Any]]:
        """The log points; a line cut short by a crash is left out."""
        path = self.path / "events.jsonl"
        found = []
        for line in path.read_text().splitlines() if path.is_file() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def drop_events_after(self, step: int) -> None:
        kept = [json.dumps(e) for e in self.events() if e["step"] <= step]
        write_atomically(self.path / "events.jsonl", "".join(line + "\n" for line in kept).encode())

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def checkpoint(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.safetensors"

    def save_checkpoint(self, name: str, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        save_tensors(self.checkpoint(name), tensors, record)

    def save_picture(self, name: str, png: bytes) -> None:
        write_atomically(self.path / "samples" / name, png)

    # --- what came of it ------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        return any("finished" in e for e in self.events())

    def new_model(self) -> Model:
        """The run's model with fresh parameters."""
        record = self.config["model"]
        event = Event.from_json(record["event"])
        return create(record["model"], event, seed=self.config["training"]["seed"], **record["config"])

    @functools.cached_property
    def model(self) -> Model:
        """The trained model in evaluation mode: the best on validation, else the last."""
        _ = self.config  # a folder that holds no run is said to be that
        return load_model(self.path)

    @functools.cached_property
    def _data(self) -> tuple[Data, bool]:
        from unsup.data.recorded import data_of_run

        return data_of_run(self.path, self.config, changed_data=self._changed_data)

    @property
    def data(self) -> Data:
        """The data the run was trained on, loaded again.

        Raises:
            InputError: no name leads to it, or it has changed since.
        """
        return self._data[0]

    @property
    def data_changed(self) -> bool:
        """Whether `data` is other than what the run was trained on."""
        return self._data[1]

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes of its data, where they are known."""
        found = self.config.get("labels")
        return None if found is None else tuple(found)


def open_run(path: str | Path, *, changed_data: bool = False) -> Run:
    """The run folder at ``path``.

    Args:
        path: of the folder.
        changed_data: let its data be what it is now, where it has changed since.

    Raises:
        InputError: there is no run.
    """
    run = Run(path, changed_data=changed_data)
    _ = run.config
    return run


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
