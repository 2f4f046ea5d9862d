"""The data of a run: loaded again, and compared with what the run was trained on. It is decided here alone.

A run's digest is of the content of all its splits (`Data.digest`) and of the names of classes and columns. Neither the
place of the data counts, nor the order of rows in a file that is split by content.
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

_FORM = "2:"  # of digests, counted up when other rows come into splits, or they are hashed otherwise


def digest_of(data: Data, beside: str = "") -> str:
    """The digest of data as it is recorded: of content, names of classes and columns, and what is ``beside``."""
    meaning = json.dumps([data.digest, data.labels, data.columns, beside])
    return f"{_FORM}{hashlib.blake2b(meaning.encode(), digest_size=16).hexdigest()}"


def data_of_run(folder: Path, config: Mapping[str, Any], *, changed_data: bool = False) -> tuple[Data, bool]:
    """The data that the run in a folder was trained on, loaded again, and whether it has changed since.

    Args:
        folder: of the run.
        config: what its ``config.json`` holds.
        changed_data: take the data as it is now.

    Raises:
        InputError: the run names no data, the data cannot be read, or it has changed, or to another shape.
    """
    from unsup.data.load import load_data

    record = config.get("data")
    if record is None:
        raise InputError(
            f"{folder} names no data (its model learned from arrays in memory, or lies there without its run); give "
            "the data by hand, or encode examples with unsup encode, whose .npz is data too"
        )
    if not isinstance(record, dict) or not isinstance(record.get("options"), dict) or "name" not in record:
        raise InputError(f"{folder / 'config.json'} is damaged (it names no data); restore it")
    if "name_or_path" in record["options"]:
        raise InputError(f"{folder / 'config.json'} is damaged (data.options names data again); restore it")
    try:
        data = load_data(record["name"], **record["options"])
    except InputError as error:
        raise InputError(
            f"the data of {folder} cannot be read: {error}; if it has moved, put it back or write its new place into "
            f"{folder / 'config.json'} (data.name)"
        ) from error
    changed = has_changed(folder, config, data, changed_data=changed_data)
    if changed:
        own = Event.from_json(config["model"]["event"])
        if own.shape != data.event.shape:
            raise InputError(
                f"{data.name} holds {data.event} now, and {folder} is of {own}, which does not take that; train anew "
                "in another folder (-o NAME)"
            )
        labels = config.get("labels")
        if labels and tuple(labels) != data.labels:
            raise InputError(
                f"{data.name} has other classes now than {folder} was trained on, so that their numbers mean something "
                "else; restore their names, or train anew in another folder (-o NAME)"
            )
    return data, changed


def has_changed(folder: Path, config: Mapping[str, Any], data: Data, *, changed_data: bool = False) -> bool:
    """Whether ``data`` is other than what the run in a folder was trained on.

    Raises:
        InputError: it is, and ``changed_data`` does not allow that.
    """
    now, name = digest_of(data), data.name or "this data"
    return differs(folder, config.get("digest"), now, name, changed_data=changed_data)


def differs(folder: Path, recorded: Any, now: str, name: str, *, changed_data: bool) -> bool:
    """Whether two digests differ, of what stands in a folder and of the data of that name.

    Raises:
        InputError: they do, and ``changed_data`` does not allow that.
    """
    if recorded == now:
        return False
    if changed_data:
        return True
    otherwise = "or use it as it is with --changed-data (changed_data=True)"
    if not isinstance(recorded, str) or not recorded.startswith(_FORM):
        raise InputError(
            f"{folder} is of an older version, which split data otherwise: what it was trained on may be among the "
            f"test examples of {name} now; start a new run in another folder (-o NAME), {otherwise}"
        )
    raise InputError(
        f"{name} has changed since {folder} was begun: its examples, or names of its classes or columns, differ; "
        f"restore it, start a new run in another folder (-o NAME), {otherwise}"
    )
