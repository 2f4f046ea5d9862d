"""The data of a run: loaded again, and compared with the training data. Only this module decides about changes.

The digest of a run covers the content of all its splits (`Data.digest`) and the names of classes and columns. It does
not depend on the location of the data, nor on the order of rows in a file that is split by content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.data.source import Data

_FORM = "2:"  # version of digests, increased if the splitting or hashing of rows changes


def digest_of(data: Data, beside: str = "") -> str:
    """The recorded digest of data: content, names of classes and columns, words, and the strings in ``beside``."""
    words = () if data.form is None else data.form.meaning
    meaning = json.dumps([data.digest, data.labels, data.columns, beside, *([words] if words else [])])
    return f"{_FORM}{hashlib.blake2b(meaning.encode(), digest_size=16).hexdigest()}"


def data_of_run(
    folder: Path, config: Mapping[str, Any], *, changed_data: bool = False, moved: str | None = None
) -> tuple[Data, bool]:
    """Load the training data of the run in a folder again; also return whether it has changed.

    Args:
        folder: the run folder.
        config: the content of its ``config.json``.
        changed_data: use the current data.
        moved: the present name or path of the data, if it has moved.

    Raises:
        InputError: the run has no data, the data cannot be read, or its content or shape has changed.
    """
    from unsup.data.load import load_data

    record = config.get("data")
    if record is None:
        raise InputError(
            f"{folder} does not record its data (the model was trained on arrays in memory, or saved without its run); "
            "pass the data explicitly, or encode examples with unsup encode, whose .npz file is data too"
        )
    if not isinstance(record, dict) or not isinstance(record.get("options"), dict) or "name" not in record:
        raise InputError(f"{folder / 'config.json'} is damaged (it has no data); restore it")
    if "name_or_path" in record["options"]:
        raise InputError(f"{folder / 'config.json'} is damaged (data.options has data again); restore it")
    try:
        data = load_data(record["name"] if moved is None else moved, **record["options"])
    except InputError as error:
        raise InputError(
            f"the data of {folder} cannot be read: {error}; if it has moved, pass its new path: --data PATH, or "
            "unsup fit PATH --resume (open_run(..., data=PATH))"
        ) from error
    changed = has_changed(folder, config, data, changed_data=changed_data)
    if changed:
        own = Event.from_json(config["model"]["event"])
        if own.shape != data.event.shape:
            raise InputError(
                f"{data.name} has {data.event} now, but {folder} was trained on {own}; start a new run "
                "in another folder (-o FOLDER)"
            )
        labels = config.get("labels")
        if labels and tuple(labels) != data.labels:
            raise InputError(
                f"{data.name} has other classes now than {folder} was trained on, so their numbers have a different "
                "meaning; restore their names, or start a new run in another folder (-o FOLDER)"
            )
    return data, changed


def has_changed(folder: Path, config: Mapping[str, Any], data: Data, *, changed_data: bool = False) -> bool:
    """Whether ``data`` has changed since the run in a folder was trained.

    Raises:
        InputError: it has, and ``changed_data`` is False.
    """
    now, name = digest_of(data), data.name or "this data"
    return differs(folder, config.get("digest"), now, name, changed_data=changed_data)


def differs(folder: Path, recorded: Any, now: str, name: str, *, changed_data: bool) -> bool:
    """Whether the digest of a folder differs from that of the data.

    Raises:
        InputError: they differ, and ``changed_data`` is False.
    """
    if recorded == now:
        return False
    if changed_data:
        return True
    otherwise = "or continue with the changed data: --changed-data (changed_data=True)"
    if not isinstance(recorded, str) or not recorded.startswith(_FORM):
        raise InputError(
            f"{folder} is from an older version, which split data differently: its training data may include "
            f"test examples of {name}; start a new run in another folder (-o FOLDER), {otherwise}"
        )
    raise InputError(
        f"{name} has changed since {folder} was started: its examples, or names of its classes or columns, differ; "
        f"restore it, start a new run in another folder (-o FOLDER), {otherwise}"
    )
