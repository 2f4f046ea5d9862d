"""Tensors on disk: safetensors and JSON only, written atomically, checked when read."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from unsup.core.config import plain
from unsup.core.errors import InputError, TrainingError
from unsup.core.event import Event
from unsup.core.parallel import process_rank

if TYPE_CHECKING:
    from unsup.core.model import Model

FORMAT = "unsup-1"
"""Of the container: safetensors with a record and a digest."""
LAYOUT = 2
"""Of what a model or run folder records, counted up when older folders cannot be read any more."""
MODEL_PREFIX = "model."
_log = logging.getLogger(__name__)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` holds either all of it or what it held before.

    Of several processes only the first one writes.

    Raises:
        TrainingError: the disk is full, or the folder missing or not to be written; ``path`` is left as it was.
    """
    if process_rank() > 0:
        return
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):  # a read-only folder has none
            temporary.unlink(missing_ok=True)
        raise TrainingError(
            f"cannot write {path} ({len(content):,} bytes): {error.strerror}; what was there before is kept; "
            f"{mend(error, path)}"
        ) from error


def mend(error: OSError, path: Path) -> str:
    """What to do about ``error``, which writing ``path`` met.

    >>> mend(PermissionError(errno.EACCES, "Permission denied"), Path("runs/a/eval.json"))
    'runs/a may not be written; change that or choose another folder'
    """
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"{path.parent} may not be written; change that or choose another folder"
        case errno.ENOENT | errno.ENOTDIR:
            return f"there is no folder {path.parent}; make it or choose another one"
        case _:
            return "free some space or choose another folder"


@contextmanager
def held_alone(folder: Path, command: str) -> Iterator[None]:
    """Keep a second process out of ``folder``.

    Args:
        command: that works in it, for the message.

    Raises:
        InputError: another process holds it, or it may not be written.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"another {command} is at work in {folder}; wait for it, stop it, or choose another folder (-o NAME)"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot lock {folder} for {command}: {error.strerror or error}; {mend(error, folder / '.lock')}"
        ) from error
    try:
        yield
    finally:
        lock.release()


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors and a JSON record as one safetensors file with a digest of both."""
    # A tensor that shares memory with another (tied weights) is written as its own copy.
    own = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    text = json.dumps(record, sort_keys=True)
    metadata = {"format": FORMAT, "record": text, "digest": _digest(own, text)}
    write_atomically(path, serialise(own, metadata=metadata))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        InputError: the file is missing, damaged, or not ours.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path} is damaged or no safetensors file ({error}); restore it or use another checkpoint"
        ) from error
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path} was not written by unsup; expected format {FORMAT!r}, found {metadata.get('format')!r}"
        )
    record = metadata.get("record", "")
    if metadata.get("digest") != _digest(tensors, record):
        raise InputError(
            f"{path} is damaged (its content does not match its digest); restore it or use another checkpoint"
        )
    return tensors, json.loads(record)


def peek_record(path: str | Path) -> dict[str, Any]:
    """The record alone of what `save_tensors` wrote, which is quick; it is not held against the digest.

    Raises:
        InputError: the file is missing, or damaged so that there is none to read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})["record"])
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is missing or damaged ({error}); restore it") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} is damaged (its record is no object); restore it")
    return record


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def load_state(model: Model, tensors: Mapping[str, Tensor], origin: str | Path) -> None:
    """Put ``tensors`` into ``model``, in the precision they have, or say that they belong to another model."""
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(tensors)) or [k for k in own if own[k].shape != tensors[k].shape]
    if wrong:
        raise InputError(
            f"{origin} belongs to another model than this {type(model).__name__}: {len(wrong)} tensors differ, "
            f"first {wrong[0]!r}; load it with the configuration it was trained with"
        )
    learned = {tensors[name].dtype for name, p in model.named_parameters() if p.is_floating_point()}
    if len(learned) == 1:
        model.to(learned.pop())  # buffers that are not saved follow the parameters
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in tensors and tensor.is_floating_point():
            tensor.data = tensor.data.to(tensors[name].dtype)
    model.load_state_dict(dict(tensors))


def model_record(model: Model) -> dict[str, Any]:
    """What is needed to build the model again: its registry name, event and configuration."""
    from unsup.core.registry import name_of

    return {
        "layout": LAYOUT,
        "model": name_of(type(model)),
        "event": model.event.to_json(),
        "config": plain(model.config),
    }


def save_model(model: Model, folder: str | Path) -> None:
    """Write a model as ``config.json``, ``model.safetensors`` and ``README.md``."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}; choose another one") from error
    record = model_record(model)
    save_tensors(folder / "model.safetensors", model.state_dict(), record)
    write_atomically(folder / "config.json", json.dumps(record, indent=2).encode())
    write_atomically(folder / "README.md", _card(model, record).encode())


def read_record(folder: str | Path) -> dict[str, Any]:
    """``model``, ``event`` and ``config`` of the model in a folder of `save_model` or in a run folder.

    Raises:
        InputError: the folder holds no model, a damaged one, or one of a version that cannot be read any more.
    """
    config = Path(folder) / "config.json"
    if not config.is_file():
        raise InputError(
            f"{folder} holds no model (no config.json); expected a folder written by model.save or unsup fit"
        )
    try:
        record = json.loads(config.read_text())
        record = record["model"] if isinstance(record["model"], dict) else record
        found = {"model": record["model"], "event": record["event"], "config": record["config"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{config} is damaged ({error}); restore it") from error
    check_layout(record, folder)
    return found


def check_layout(record: Mapping[str, Any], folder: str | Path) -> None:
    """Raise `InputError` for what another version wrote in a way that this one cannot read."""
    layout = record.get("layout", 1)
    if layout != LAYOUT:
        raise InputError(
            f"{folder} has layout {layout}, and this version of unsup reads layout {LAYOUT}; read it with the version "
            "that wrote it, or train again"
        )


def load_model(folder: str | Path) -> Model:
    """The model in a folder of `save_model`, or the best, else the last one of a run folder, in evaluation mode.

    Raises:
        InputError: the folder holds no model, or a damaged one.
    """
    from unsup.core.registry import create

    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; expected one written by model.save or unsup fit")
    record = read_record(folder)
    places = ("model.safetensors", "checkpoints/best.safetensors", "checkpoints/last.safetensors")
    path = next((folder / place for place in places if (folder / place).is_file()), None)
    if path is None:
        raise InputError(f"{folder} has no checkpoint yet; train it first (unsup fit --resume -o {folder})")
    model = create(record["model"], Event.from_json(record["event"]), **record["config"])
    tensors, about = load_tensors(path)
    if path.name == "last.safetensors" and about.get("kept", about.get("best")) is not None:
        _log.warning(
            "%s: the best parameters are lost (there is no %s); these are the last ones, of step %s",
            *(folder, folder / "checkpoints/best.safetensors", about["done"]),
        )
    if path.parent != folder:
        tensors = {k.removeprefix(MODEL_PREFIX): v for k, v in tensors.items() if k.startswith(MODEL_PREFIX)}
    load_state(model, tensors, path)
    return model.eval()


def _card(model: Model, record: Mapping[str, Any]) -> str:
    from unsup.core.registry import row

    about = row(record["model"])
    options = "\n".join(f"| {k} | {v} |" for k, v in record["config"].items())
    return (
        f"# {about.name}\n\n{about.summary}\n\nData: {model.event}. Parameters: {model.parameter_count:,}.\n\n"
        f"Paper: {about.paper.reference}\n\n| option | value |\n| --- | --- |\n{options}\n\n"
        f'```python\nimport unsup\n\nmodel = unsup.load("{Path("PATH")}")\n```\n'
    )
