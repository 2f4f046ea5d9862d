"""`load_data` and `load_examples`: from a name or a path to tensors."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from unsup.core.config import check_value, options_of
from unsup.core.errors import InputError, nearest
from unsup.core.event import Event
from unsup.data import arrays, images, tables, text
from unsup.data.catalog import CATALOG
from unsup.data.source import Data, Examples, Split, hashed_order

Reader = Callable[..., Examples]


def load_data(name_or_path: str | Path, **options: Any) -> Data:
    """Train, validation and test splits of a named data set or of the user's own file or folder.

    A name of the catalogue comes first (write ``./digits`` for a folder of that name). A path may be a folder of images
    (subfolders are labels), of WAV files or with ``train.npz``; ``.npy``, ``.npz``, ``.csv``, ``.csv.gz``,
    ``.parquet``; any other file is read as bytes. Splits are fixed: the official ones, else by a hash of the row
    number.

    Args:
        name_or_path: e.g. ``"digits"``, ``"photos/"``, ``"table.csv"``.
        **options: ``limit`` (use only that many training examples), ``without`` (the name of a class that is left out
            of every split, so that its examples can stand for anomalies), ``domain_b`` (name or path of a second domain
            of the same event, not paired with the first, for models that translate; the options of both are the same)
            and what the data takes: ``resize`` (images); ``label``, ``drop`` (tables); ``length`` (bytes, WAV); ``n``
            (2-D densities, shapes, stripes, markov); ``data_dir``, ``download`` (standard sets).

    Raises:
        InputError: unknown name, path or option (the nearest is named), or data that cannot be used as it is.

    >>> data = load_data("digits")
    >>> data.event
    Event(shape=(1, 8, 8), support=ordinal(17), layout='image')
    >>> data.train.batch(torch.arange(2)).x.shape
    torch.Size([2, 1, 8, 8])
    """
    name, read, path = _reader(name_or_path)
    known = options_of(read) | {
        "limit": (int | None, None),
        "without": (str | None, None),
        "domain_b": (str | Path | None, None),
    }
    chosen = _checked(name, known, options)
    limit, without, second = (chosen.pop(k, None) for k in ("limit", "without", "domain_b"))
    if limit is not None and limit < 1:
        raise InputError(f"{name}: limit={limit} given; expected the number of training examples, 1 or more")
    if chosen.get("data_dir") is not None:
        chosen["data_dir"] = str(Path(chosen["data_dir"]).absolute())
    found = _read(read, path, chosen)
    (train, validation, test), rule = found.splits(name)
    if without is not None:
        left_out = _class_number(name, found.labels, without)
        train, validation, test = (_without(s, left_out) for s in (train, validation, test))
        if not len(train) or not len(validation) or not len(test):
            raise InputError(f"{name} without its class {without!r} leaves a split empty; leave another class out")
    if limit is not None and limit < len(train):
        train = train.take(torch.from_numpy(hashed_order(len(train))[:limit]))
    # What is downloaded once is found in the cache from then on.
    recorded = {k: list(v) if isinstance(v, tuple) else v for k, v in chosen.items() if k != "download"}
    if limit is not None:
        recorded["limit"] = limit
    if without is not None:
        recorded["without"] = without
    paired = found.domain_b is not None
    about = (found.labels, rule, recorded, found.notes, paired, found.columns)
    data = Data(name, found.event, train, validation, test, *about)
    return data if second is None else _with_domain_b(data, second, options)


def _class_number(name: str, labels: tuple[str, ...] | None, wanted: str) -> int:
    if labels is None:
        raise InputError(f"{name} has no labels, so there is no class {wanted!r} to leave out")
    if wanted not in labels:
        raise InputError(f"{name} has no class {wanted!r}{nearest(wanted, labels)}")
    return labels.index(wanted)


def _without(split: Split, number: int) -> Split:
    assert split.label is not None
    return split.take(split.label != number)


def _with_domain_b(data: Data, second: str | Path, options: Mapping[str, Any]) -> Data:
    """``data`` with the splits of ``second`` as its second domain, read with the same options where it has them."""
    name, read, _ = _reader(second)
    known = {*options_of(read), "limit", "without"}
    other = load_data(second, **{k: v for k, v in options.items() if k in known})
    if data.event.is_image and other.event == replace(data.event, shape=(1, *data.event.shape[1:])):
        coloured = (
            replace(s, examples=s.x.expand(-1, *data.event.shape)) for s in (other.train, other.validation, other.test)
        )
        other = _with_splits(replace(other, event=data.event), *coloured)
    if other.event != data.event:
        raise InputError(
            f"domain b, {name}, holds examples of {other.event}, and {data.name} of {data.event}; the two domains need "
            f"one event{_mend(other.event, data.event)}"
        )
    notes = (*data.notes, f"domain b is {name}: {other.describe()}, not paired", *other.notes)
    data = replace(data, options={**data.options, "domain_b": name}, notes=notes, paired=False)
    pairs = ((data.train, other.train), (data.validation, other.validation), (data.test, other.test))
    return _with_splits(data, *(replace(own, streams={"domain_b": others}) for own, others in pairs))


def _with_splits(data: Data, train: Split, validation: Split, test: Split) -> Data:
    return replace(data, train=train, validation=validation, test=test)


def from_arrays(x: ArrayLike, label: ArrayLike | None = None) -> Data:
    """Splits of arrays (or tensors) in memory, made as for a file: 80/10/10 by a hash of the row number.

    Args:
        x: examples ``(N, ...)``. Floats are real; whole numbers are tables ``(N, D)`` or images ``(N, H, W)``,
            ``(N, C, H, W)`` with levels 0 … 255, binary where only 0 and 1 occur.
        label: classes ``(N,)``, whole numbers or words, or None.

    Raises:
        InputError: values that are not finite, or a shape that is none of these.

    >>> import numpy as np
    >>> print(from_arrays(np.random.default_rng(0).normal(size=(50, 3))).event)
    vector of 3, real
    """
    found = arrays.read_arrays(np.asarray(x), None if label is None else np.asarray(label))
    (train, validation, test), rule = found.splits("the array")
    return Data(None, found.event, train, validation, test, found.labels, rule, {}, found.notes)


def load_examples(name_or_path: str | Path, event: Event, **options: Any) -> tuple[Tensor, tuple[str, ...]]:
    """The user's own file, or the test split of a named data set, as raw examples of a given event.

    Args:
        name_or_path: what `load_data` takes, or a single image.
        event: what the examples must be, e.g. ``model.event``.
        **options: those of `load_data`, without ``limit``. Bytes and WAV are cut into windows of the event's length.

    Returns:
        x ``(N, *event.shape)``, in the order of the file, and the name of each row or file.

    Raises:
        InputError: the examples have another shape, or values outside the event's support.

    >>> x, names = load_examples("digits", load_data("digits").event)
    >>> len(x), names[0]
    (360, 'digit 1237')
    """
    name, read, path = _reader(name_or_path, single=True)
    known = options_of(read)
    chosen = _checked(name, known, options)
    if "length" in known and path is not None and len(event.shape) == 1:
        chosen.setdefault("length", event.shape[0])
    found, start = _read(read, path, chosen), 0
    if path is None:
        found, (train, validation, _) = found.arranged(name)
        start = train + validation
    return _as_event(found.x[start:], found.event, event, name), tuple(found.names[start:])


def _as_event(x: Tensor, own: Event, event: Event, name: str) -> Tensor:
    """``x`` as raw data of ``event``, or the error that says what differs."""
    if own.is_image and own.shape[0] == 1 and event.shape == (3, *own.shape[1:]):
        x = x.expand(-1, 3, -1, -1)  # what the image reader does with grey images among coloured ones
    if tuple(x.shape[1:]) != event.shape:
        given = tuple(x.shape[1:])
        raise InputError(f"{name} holds examples of shape {given}; expected {event.shape} ({event}){_mend(own, event)}")
    inside = event.contains(x)
    if not bool(inside.all()):
        first = int((~inside).nonzero()[0])
        raise InputError(
            f"{name}: {int((~inside).sum())} of {len(x)} examples hold values outside {event} (the first is number "
            f"{first}, from 0; values go from {x.min().item():g} to {x.max().item():g}); give raw data in the units of "
            "the training data"
        )
    if event.is_discrete:
        return x.to(event.dtype).contiguous()
    return (x if x.is_floating_point() else x.double()).contiguous()


def _mend(own: Event, event: Event) -> str:
    """How examples of the event ``own`` could be given the shape of ``event``."""
    if own.dims == event.dims:
        return f"; reshape the array to {(-1, *event.shape)}"
    if own.is_image and event.is_image:
        if own.shape[0] != event.shape[0]:
            return f"; convert the images to {event.shape[0]} channel{'s' * (event.shape[0] > 1)}"
        square = event.shape[1] == event.shape[2]
        return f"; give --resize {event.shape[1]} (resize={event.shape[1]})" if square else "; resize the images"
    if own.layout == event.layout == "vector":
        return "; leave columns out with --drop (drop=) or --label (label=)"
    return ""


def _read(read: Reader, path: Path | None, options: Mapping[str, Any]) -> Examples:
    try:
        return read(**options) if path is None else read(path, **options)
    except OSError as error:
        raise InputError(
            f"cannot read {error.filename or path} ({error.strerror}); check that you may read it"
        ) from error


def _checked(name: str, known: Mapping[str, tuple[Any, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    for option in given:
        if option not in known:
            raise InputError(f"{name} has no option {option!r}{nearest(option, known)}")
    checked = {k: check_value(f"{name}: {k}", v, known[k][0]) for k, v in given.items()}
    return {k: v for k, v in checked.items() if v is not None}


def _reader(name_or_path: str | Path, *, single: bool = False) -> tuple[str, Reader, Path | None]:
    """What the data is called, what reads it, and the path to read (None for a named set)."""
    if isinstance(name_or_path, str) and name_or_path in CATALOG:
        module, _, function = CATALOG[name_or_path].target.partition(":")
        return name_or_path, getattr(importlib.import_module(module), function), None
    if not str(name_or_path):
        raise InputError("the name of the data is empty; expected a set (unsup data lists them), a file or a folder")
    path = Path(name_or_path).expanduser().absolute()
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, [*CATALOG, *beside], n=1, cutoff=0.5)
        raise InputError(
            f"there is no data set, file or folder {str(name_or_path)!r}{nearest(path.name, close or CATALOG)} "
            "(unsup data lists the sets)"
        )
    return str(path), _file_reader(path, single), path


def options_taken(name_or_path: str | Path) -> set[str]:
    """The options that data is read with, by name.

    >>> sorted(options_taken("moons"))
    ['n']
    """
    return set(options_of(_reader(name_or_path, single=True)[1]))


def full_name(name_or_path: str | Path) -> str:
    """The name of a set, or the absolute path of a file or folder: what `Data.name` will be.

    Raises:
        InputError: there is no such thing.
    """
    return _reader(name_or_path)[0]


def _file_reader(path: Path, single: bool) -> Reader:
    if path.is_dir():
        if (path / "train.npz").is_file():
            return arrays.read_folder
        return text.read_wav_folder if any(path.glob("*.[wW][aA][vV]")) else images.read_folder
    name = path.name.lower()
    if name.endswith((".npy", ".npz")):
        return arrays.read_file
    if name.endswith((".csv", ".csv.gz", ".tsv")):
        return tables.read_csv
    if name.endswith((".parquet", ".pq")):
        return tables.read_parquet
    if name.endswith(images.SUFFIXES):
        if single:
            return images.read_file
        raise InputError(
            f"{path} is one image; expected a folder of images; put it with others into a folder and give that"
        )
    return text.read_bytes
