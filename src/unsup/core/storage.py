"""Tensors on disk: safetensors and JSON only, written atomically, checked when read."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from unsup.core import memory
from unsup.core.config import plain
from unsup.core.errors import InputError, TrainingError
from unsup.core.escapes import markdown, visible
from unsup.core.event import Event, EventRecord
from unsup.core.parallel import process_rank
from unsup.core.reading import checked, difference, parse_json, read_json, read_text
from unsup.core.targets import file_target, make_folder, utf8_path

if TYPE_CHECKING:
    from unsup.core.model import Model

FORMAT = "unsup-1"
"""Version of the container: safetensors with a record and a digest."""
LAYOUT = 2
"""Version of the layout of model and run folders; increased if older folders can no longer be read."""
MODEL_PREFIX = "model."
RECORD = "run"
"""Key in the record of a checkpoint: what ``config.json`` says about the model and its training."""
_PLACES = ("model.safetensors", "checkpoints/best.safetensors", "checkpoints/last.safetensors")
"""Possible locations of the parameters in the folder of a model; the first existing one is used."""
LOCK = ".lock"
"""The lock of a folder, which the system releases if its process is killed. It contains that process."""
_TOLD = 300
"""Maximum length of error messages of safetensors, which may repeat the whole header of a file."""
_log = logging.getLogger(__name__)


class DataRecord(TypedDict):
    """The name and options that load the data of a run again."""

    name: str
    options: dict[str, Any]


class ModelRecord(TypedDict):
    """The information needed to rebuild a model."""

    layout: NotRequired[int]
    model: str
    event: EventRecord
    config: dict[str, Any]


class ModelFile(TypedDict):
    """The part of ``config.json`` about the model, in the folder of a run."""

    model: ModelRecord


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` has either the complete new content or the old content.

    A link is replaced, so that nothing outside the folder is written. With several processes, only the first one
    writes.

    Raises:
        TrainingError: the disk is full, or the folder is missing or not writable; ``path`` is unchanged.
    """
    if process_rank() > 0:
        return
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # a leftover of a crash, or a link, which could lead out of the folder
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):  # the first error is more useful than this one
            temporary.unlink(missing_ok=True)
        raise TrainingError(
            f"cannot write {path} ({len(content):,} bytes): {error.strerror}; the old content is kept; "
            f"{mend(error, path)}"
        ) from error


def write_file(out: str | Path, content: bytes) -> None:
    """Write ``content`` to `file_target`; a missing folder is created.

    Raises:
        InputError: ``out`` cannot be a file, or its folder cannot be created.
        TrainingError: the file cannot be written.
    """
    path = file_target(out)
    make_folder(path.parent)
    write_atomically(path, content)


def write_inside(path: Path, content: bytes) -> None:
    """`write_atomically` a file in a folder of the library, where only regular files are expected."""
    make_way(path)
    write_atomically(path, content)


def write_over(path: Path, content: bytes) -> None:
    """`write_atomically` a JSON record over an older record; anything else in its place is renamed and kept."""
    record_or_aside(path)
    write_atomically(path, content)


def record_or_aside(path: Path) -> dict[str, Any]:
    """The JSON record of a file that is about to be rewritten. A damaged file is renamed; the result is then empty."""
    if not os.path.lexists(path):
        return {}
    try:
        found: dict[str, Any] = read_json(path, dict[str, Any], mend="")
    except InputError as error:
        set_aside(path, str(error).removesuffix("; "))
        return {}
    return found


def make_way(path: Path) -> None:
    """Create the folder of a file; anything else in the place of the folder or file is renamed and kept."""
    if process_rank() > 0:
        return
    if path.parent.exists() and not path.parent.is_dir():
        set_aside(path.parent, f"{path.parent} is not a folder")
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot create {path.parent}: {error.strerror}; choose another folder") from error
    if path.exists() and not path.is_file():  # a checkpoint written to a pipe or a device would be lost
        set_aside(path, f"{path} is not a regular file")


def set_aside(path: Path, reason: str) -> None:
    """Rename a damaged file, or anything else in its place, so that it can be rewritten; log a note.

    Raises:
        TrainingError: the folder cannot be written.
    """
    if process_rank() > 0:
        return
    names = (path.with_name(f"{path.name}.damaged{'' if n == 1 else f'-{n}'}") for n in itertools.count(1))
    other = next(name for name in names if not os.path.lexists(name))
    try:
        path.rename(other)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror}; {reason}") from error
    _log.warning("note: %s; it is renamed to %s and rewritten", reason, other.name)


def mend(error: OSError, path: Path) -> str:
    """What a user can do about ``error``, which occurred when writing ``path``.

    >>> mend(PermissionError(errno.EACCES, "Permission denied"), Path("runs/a/eval.json"))
    'no write permission for runs/a; change the permission or choose another folder'
    """
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"no write permission for {path.parent}; change the permission or choose another folder"
        case errno.ENOENT | errno.ENOTDIR:
            return f"there is no folder {path.parent}; create it or choose another one"
        case _:
            return "free some space or choose another folder"


@contextmanager
def held_alone(folder: Path, command: str) -> Iterator[None]:
    """Lock ``folder`` against other processes.

    Args:
        command: the command that uses the folder, for the message.

    Raises:
        InputError: another process has locked it, or it is not writable.
    """
    path = folder / LOCK
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"another {command}{_holder(path)} is running in {folder}; wait for it, stop it, or choose another "
            "folder (-o FOLDER)"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot lock {folder} for {command}: {error.strerror or error}; {mend(error, folder / '.lock')}"
        ) from error
    try:
        with suppress(OSError):  # Windows does not write to a locked file, and the folder may be deleted below
            path.write_text(json.dumps({"process": os.getpid(), "host": platform.node()}))
        yield
    finally:
        with suppress(OSError):
            os.truncate(path, 0)
        lock.release()


class _Holder(TypedDict):
    process: int
    host: str


def _holder(path: Path) -> str:
    """The process that has a lock, as it recorded itself; nothing if that cannot be read."""
    try:
        found: _Holder = read_json(path, _Holder)
    except InputError:
        return ""
    there = "" if found["host"] == platform.node() else f" on {found['host']}"
    return f" (process {found['process']}{there})"


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors and a JSON record as one safetensors file with a digest of both."""
    # A tensor that shares memory with another (tied weights) is written as a copy.
    own = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    text = json.dumps(record, sort_keys=True)
    metadata = {"format": FORMAT, "record": text, "digest": _digest(own, text)}
    write_atomically(path, serialise(own, metadata=metadata))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `save_tensors`.

    Raises:
        InputError: the file is missing, damaged, not from unsup, or larger than memory.
    """
    path = Path(path)
    size = path.stat().st_size if path.is_file() else 0
    if size > memory.limit():
        raise InputError(
            f"{path} has {memory.said(size)}, more than the {memory.said(memory.limit())} of memory available; "
            "free memory, or raise --max-memory"
        )
    with _opened(path) as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a mapping
        text = _metadata(path, file).get("record", "")
        if _metadata(path, file).get("digest") != _digest(tensors, text):
            raise InputError(
                f"{path} is damaged (its content does not match its digest); restore it or use another checkpoint"
            )
    return tensors, _record(path, text)


def read_checkpoint_record(path: Path) -> dict[str, Any]:
    """The record of a file of `save_tensors`, without reading its tensors; the digest is not checked.

    Raises:
        InputError: the file is missing, damaged, or not from unsup.
    """
    with _opened(path) as file:
        return _record(path, _metadata(path, file).get("record", ""))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():  # reading a pipe would block
        raise InputError(f"there is no file {path}")
    try:
        with utf8_path(path) as name, safe_open(name, framework="pt") as file:
            yield file
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:_TOLD]
        raise InputError(
            f"{path} is damaged or not a safetensors file ({reason}); restore it or use another checkpoint"
        ) from error


def _metadata(path: Path, file: Any) -> dict[str, str]:
    metadata: dict[str, str] = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path} was not written by unsup; expected format {FORMAT!r}, found {metadata.get('format')!r}"
        )
    return metadata


def _record(path: Path, text: str) -> dict[str, Any]:
    found: dict[str, Any] = checked(path, text, dict[str, Any], mend="restore it or use another checkpoint")
    return found


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def load_state(model: Model, tensors: Mapping[str, Tensor], origin: str | Path) -> None:
    """Load ``tensors`` into ``model`` in their own precision, or raise an error if they belong to another model."""
    own, tensors = model.state_dict(), later_state(model) | _renamed(model, tensors)
    wrong = sorted(set(own) ^ set(tensors)) or [k for k in own if not _alike(own[k], tensors[k])]
    if wrong:
        raise InputError(
            f"{origin} belongs to a different model than this {type(model).__name__}: {len(wrong)} tensors differ, "
            f"first {wrong[0]!r}; load it with the configuration that it was trained with"
        )
    learned = {tensors[name].dtype for name, p in model.named_parameters() if p.is_floating_point()}
    if len(learned) == 1:
        model.to(learned.pop())  # unsaved buffers follow the precision of the parameters
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in tensors and tensor.is_floating_point():
            tensor.data = tensor.data.to(tensors[name].dtype)
    model.load_state_dict(tensors)


def later_state(model: Model) -> dict[str, Tensor]:
    """State that earlier versions did not save, with the values that their files stand for.

    A layer declares it as ``later_state``: the values of its buffers by name.
    """
    own = model.state_dict()
    return {
        key: torch.tensor(value, dtype=own[key].dtype)
        for prefix, module in model.named_modules()
        for name, value in getattr(module, "later_state", {}).items()
        if (key := f"{prefix}.{name}" if prefix else name) in own
    }


def _renamed(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under their present names.

    A layer declares what earlier versions called otherwise as ``earlier_state``: for the name that its owner had for
    it, its own name and a factor.
    """
    found = dict(tensors)
    for prefix, module in model.named_modules():
        for earlier, (name, factor) in getattr(module, "earlier_state", {}).items():
            owner = prefix.rpartition(".")[0]
            key = f"{owner}.{earlier}" if owner else earlier
            if key in found and f"{prefix}.{name}" not in found:
                found[f"{prefix}.{name}"] = found.pop(key) * factor
    return found


def _alike(own: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape, and are both floating or of the same type."""
    kinds = own.is_floating_point() and other.is_floating_point()
    return own.shape == other.shape and (kinds or own.dtype == other.dtype)


def model_record(model: Model) -> dict[str, Any]:
    """The information needed to rebuild the model: its registry name, event and configuration."""
    from unsup.core.registry import name_of

    return {
        "layout": LAYOUT,
        "model": name_of(type(model)),
        "event": model.event.to_json(),
        "config": plain(model.config),
    }


def save_model(model: Model, folder: str | Path) -> None:
    """Write a model as ``config.json``, ``model.safetensors`` and ``README.md``.

    Raises:
        InputError: the folder is a run folder, whose configuration would be lost, or cannot be created.
    """
    folder = Path(folder)
    if any((folder / place).exists() for place in (*_PLACES[1:], "events.jsonl")):
        raise InputError(f"{folder} is a run folder, which a saved model would overwrite; save to another folder")
    make_folder(folder)
    record = model_record(model)
    save_tensors(folder / "model.safetensors", model.state_dict(), record)
    write_atomically(folder / "config.json", json.dumps(record, indent=2).encode())
    write_atomically(folder / "README.md", _card(model, record).encode())


def read_record(folder: str | Path) -> dict[str, Any]:
    """``model``, ``event`` and ``config`` of the model in a folder of `save_model` or a run folder.

    Raises:
        InputError: the folder has no model, a damaged model, a model of an unsupported version, or a ``config.json``
            that does not match the parameters.
    """
    folder = Path(folder)
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(
            f"{folder} has no model (no config.json); expected a folder written by model.save or unsup fit"
        )
    text = read_text(config)
    whole = checked(config, text, dict[str, Any])
    is_run = isinstance(whole.get("model"), dict)
    record = checked(config, text, ModelFile)["model"] if is_run else checked(config, text, ModelRecord)
    check_layout(record, folder)
    check_config(folder, parse_json(text))
    return {"model": record["model"], "event": record["event"], "config": record["config"]}


def check_config(folder: str | Path, config: Mapping[str, Any]) -> None:
    """Compare ``config.json`` with the records of the checkpoints; neither is assumed to be correct.

    Checkpoints that cannot be read, or were written before the record was introduced, are skipped.

    Raises:
        InputError: they differ; the message names the first different field.
    """
    for place in _PLACES:
        try:
            record = read_checkpoint_record(Path(folder) / place)
        except InputError:
            continue  # reported when its tensors are read
        beside = record if place == _PLACES[0] else record.get(RECORD)
        if not isinstance(beside, dict):
            continue
        ours = config if place == _PLACES[0] else {k: v for k, v in asked(config).items() if k in beside}
        told = difference(ours, beside, ("config.json", place))
        if told is not None:
            raise InputError(
                f"config.json of {folder} does not match {place}: {told}; restore the file that was changed"
            )


def asked(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ``config.json`` that checkpoints repeat: everything except the location of the data."""
    data = config.get("data")
    options = data.get("options") if isinstance(data, dict) else None
    kept = {k: v for k, v in options.items() if k not in _WHEREABOUTS} if isinstance(options, dict) else options
    same = {name: config.get(name) for name in ("model", "training", "labels", "digest", "gaps")}
    return same | {"data": kept}


_WHEREABOUTS = ("data_dir", "unlabelled", "domain_b", "given")


def check_layout(record: Mapping[str, Any], folder: str | Path) -> None:
    """Raise `InputError` for a layout of another version that this version cannot read."""
    layout = record.get("layout", 1)
    if layout != LAYOUT:
        raise InputError(
            f"{folder} has layout {layout}, but this version of unsup reads layout {LAYOUT}; use the version "
            "that wrote it, or train again"
        )


def load_model(folder: str | Path) -> Model:
    """The model of a folder of `save_model`, or the best (else the last) model of a run folder, in evaluation mode.

    Raises:
        InputError: the folder has no model, or a damaged one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; expected one written by model.save or unsup fit")
    record = read_record(folder)
    path = _handed_out(folder)
    tensors, _ = load_tensors(path)
    if path.parent != folder:
        tensors = {k.removeprefix(MODEL_PREFIX): v for k, v in tensors.items() if k.startswith(MODEL_PREFIX)}
    model = build_model(record)
    load_state(model, tensors, path)
    return model.eval()


def _handed_out(folder: Path) -> Path:
    """The file with the parameters of a folder. A note is logged if the best parameters are lost.

    Raises:
        InputError: there is no such file.
    """
    model, best, last = (folder / place for place in _PLACES)
    if model.is_file():
        return model
    if not last.is_file():
        if not best.is_file():
            raise InputError(f"{folder} has no checkpoint yet; train it first (unsup fit --resume -o {folder})")
        return best
    newest = read_checkpoint_record(last)
    if best.is_file():
        if is_handed_out(read_checkpoint_record(best), newest):
            return best
        lost = f"{best} is from another step"
    else:
        lost = f"{best} is missing"
    if newest.get("kept", newest.get("best")) is not None:
        _log.warning(
            "note: %s: the best parameters are lost (%s); using the last parameters, of step %s",
            *(folder, lost, newest.get("done")),
        )
    return last


def is_handed_out(best: Mapping[str, Any], last: Mapping[str, Any]) -> bool:
    """Whether the ``best`` parameters of a run are used, by the records of its two checkpoints.

    While a run is unfinished, a ``best`` of a later step than ``last`` was reached by a process that was killed;
    training will reach it again.
    """
    if "kept" not in last:  # from an earlier version, which did not record it
        return True
    step, kept, done = best.get("done"), last["kept"], last.get("done")
    if step == kept:
        return True
    if last.get("ended") is not None or not isinstance(step, int) or not isinstance(done, int):
        return False
    return step > done or (kept is None and step == done)


def build_model(record: Mapping[str, Any], seed: int = 0) -> Model:
    """The model of a `model_record` with fresh parameters.

    Raises:
        InputError: the model or one of its options does not exist, or the model is larger than memory.
    """
    from unsup.core.registry import create

    config = record["config"]
    for name in ("self", "name", "event", "preset", "seed"):
        if name in config:
            raise InputError(f"{record['model']} has no option {name!r}; restore config.json")
    return create(record["model"], Event.from_json(record["event"]), seed=seed, **config)


def _card(model: Model, record: Mapping[str, Any]) -> str:
    from unsup.core.registry import row

    about = row(record["model"])
    options = "\n".join(f"| {markdown(k)} | {markdown(v)} |" for k, v in record["config"].items())
    return (
        f"# {markdown(about.name)}\n\n{markdown(about.summary)}\n\nData: {markdown(model.event)}. "
        f"Parameters: {model.parameter_count:,}.\n\nPaper: {visible(about.paper.reference)}\n\n"
        f"| option | value |\n| --- | --- |\n{options}\n\n"
        f'```python\nimport unsup\n\nmodel = unsup.load("{Path("PATH")}")\n```\n'
    )
