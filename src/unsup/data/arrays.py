"""NumPy files: one ``.npy`` or ``.npz``, or a folder with ``train.npz`` and ``test.npz``."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.data.source import Examples, classes, hashed_order, listing, split_sizes
from unsup.data.tables import column_supports

Arrays = dict[str, NDArray[Any]]

_X, _LABEL = ("x", "X"), ("label", "labels", "y", "Y")
_PARTS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
_IMAGE_CHANNELS = (1, 3, 4)
_MOST_LEVELS = 256


def read_file(path: Path) -> Examples:
    """One ``.npy`` (the examples) or ``.npz`` (``x`` and perhaps ``label``, or ``x_train``, ``x_test``, …)."""
    if path.suffix.lower() == ".npy":
        return _examples({"all": (_read_npy(path), None)}, path)
    arrays = read_npz(path)
    single = _pick(arrays, _X)
    if single is None and len(arrays) == 1:
        (single,) = arrays.values()
    if single is not None:
        return _examples({"all": (single, _pick(arrays, _LABEL))}, path)
    parts = {}
    for part, words in _PARTS.items():
        x = _pick(
            arrays, [f"{k}_{w}" for k in _X for w in words] + [f"{w}_{k}" for k in _X for w in words] + list(words)
        )
        if x is not None:
            parts[part] = (x, _pick(arrays, [f"{k}_{w}" for k in _LABEL for w in words]))
    if "train" not in parts:
        raise InputError(
            f"{path} holds the arrays {listing(sorted(arrays))}; expected x (and label), or x_train, x_test (and "
            "label_train, label_test)"
        )
    return _examples(parts, path)


def read_folder(path: Path) -> Examples:
    """A folder with ``train.npz``, and ``validation.npz`` or ``test.npz`` where there are such; keys x and label."""
    parts = {}
    for part, words in _PARTS.items():
        for file in [path / f"{w}.npz" for w in words if (path / f"{w}.npz").is_file()]:
            arrays = read_npz(file)
            x = _pick(arrays, _X)
            if x is None:
                raise InputError(f"{file} holds the arrays {listing(sorted(arrays))}; expected x (and label)")
            parts[part] = (x, _pick(arrays, _LABEL))
    return _examples(parts, path)


def read_arrays(x: NDArray[Any], label: NDArray[Any] | None) -> Examples:
    """Arrays in memory: examples ``(N, ...)`` and perhaps labels ``(N,)``."""
    return _examples({"all": (x, label)}, "the array")


def read_npz(path: Path) -> Arrays:
    """All arrays of an ``.npz`` file.

    Raises:
        InputError: the file is damaged, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise _unreadable(path, error) from error


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(
        f"{path} holds no numeric arrays ({reason}); write it again with numpy.savez(path, x=x, label=label)"
    )


def _pick(arrays: Arrays, keys: Any) -> NDArray[Any] | None:
    return next((arrays[k] for k in keys if k in arrays), None)


def _examples(parts: dict[str, tuple[NDArray[Any], NDArray[Any] | None]], path: Path | str) -> Examples:
    for part, (values, own) in parts.items():
        _check(values, own, path if part == "all" else f"{path} ({part})")
    shapes = {a.shape[1:] for a, _ in parts.values()}
    if len(shapes) > 1:
        raise InputError(f"the parts of {path} have examples of different shapes {sorted(shapes)}; expected one shape")
    given = [label for _, label in parts.values() if label is not None]
    notes: list[str] = []
    arrays = [a for a, _ in parts.values()]
    x, event = _raw(arrays[0] if len(arrays) == 1 else np.concatenate(arrays), path, notes)
    label, labels = None, None
    if len(given) == len(parts):
        label, labels = classes(np.concatenate(given), f"the label of {path}")
    elif given:
        notes.append("labels are left out, because not every part has them")
    names = tuple(str(i) if part == "all" else f"{part} {i}" for part, (a, _) in parts.items() for i in range(len(a)))
    found = Examples(x, event, names, label, labels, tuple(notes))
    return found if "all" in parts else _official(found, {part: len(a) for part, (a, _) in parts.items()}, path)


def _official(found: Examples, sizes: dict[str, int], path: Path | str) -> Examples:
    """The parts of the file as splits; validation or test, where missing, is cut from the training rows by a hash."""
    missing = [part for part in _PARTS if part not in sizes]
    shares = [10 if part in missing else 0 for part in ("validation", "test")]
    train = torch.from_numpy(hashed_order(sizes["train"])) if missing else torch.arange(sizes["train"])
    cut = dict(zip(_PARTS, train.split(split_sizes(len(train), *shares, owner=f"{path} (train)")), strict=True))
    start = sizes["train"]
    for part in ("validation", "test"):
        if part in sizes:
            cut[part] = torch.arange(start, start + sizes[part])
            start += sizes[part]
    rule = "the file's own" + (
        f"; a tenth of train is for {' and a tenth for '.join(missing)}, by a hash" if missing else ""
    )
    lengths = (len(cut["train"]), len(cut["validation"]), len(cut["test"]))
    return found.reordered(torch.cat(list(cut.values())), lengths, rule)


def _check(x: NDArray[Any], label: NDArray[Any] | None, origin: Any) -> None:
    if x.dtype.kind not in "buif":
        raise InputError(f"{origin}: x has type {x.dtype}; expected numbers (integers or floats)")
    if x.ndim < 2 or x.size == 0:
        raise InputError(f"{origin}: x has shape {x.shape}; expected (examples, ...) with two axes or more, none empty")
    if label is not None and (label.shape != (len(x),) or label.dtype.kind not in "buifUS"):
        raise InputError(
            f"{origin}: label has shape {label.shape} and type {label.dtype}; expected ({len(x)},), whole numbers "
            "or words"
        )
    if x.dtype.kind == "f":
        bad = ~np.isfinite(x)
        if bad.any():
            row, *rest = (int(i) for i in np.argwhere(bad)[0])
            place = f"column {rest[0]}" if len(rest) == 1 else f"position {tuple(rest)}"
            raise InputError(
                f"{origin}: {int(bad.sum())} values of x are NaN or infinite, the first in row {row}, {place} "
                "(from 0); "
                "fill them, or leave those rows out"
            )


def _raw(x: NDArray[Any], path: Path | str, notes: list[str]) -> tuple[Tensor, Event]:
    """The tensor and event of an array ``(N, ...)`` of numbers."""
    if x.dtype.kind == "b":
        x = x.astype(np.uint8)
    if x.ndim == 4 and x.shape[1] not in _IMAGE_CHANNELS:
        if x.shape[3] not in _IMAGE_CHANNELS:
            raise InputError(
                f"{path}: x has shape {x.shape}; expected images (N, C, H, W) or (N, H, W, C) with 1, 3 or 4 channels C"
            )
        notes.append("images were given as (N, H, W, C) and are held as (N, C, H, W)")
        x = x.transpose(0, 3, 1, 2)
    if x.ndim == 3:
        notes.append("x has three axes and is held as images (N, 1, H, W)")
        x = x[:, None]
    if x.dtype.kind == "f":
        kept = np.ascontiguousarray(x, dtype=np.float64 if x.dtype.itemsize >= 8 else np.float32)
        return torch.from_numpy(kept), Event(x.shape[1:], REAL)
    if x.ndim == 2:
        return _whole_table(x)
    if x.min() < 0 or x.max() > 255:
        raise InputError(
            f"{path}: x has shape {x.shape} and whole numbers from {x.min()} to {x.max()}; expected 0 to 255 (pixels); "
            "convert it to float for real values"
        )
    x = np.ascontiguousarray(x, dtype=np.uint8)  # (N, C, H, W)
    return torch.from_numpy(x), Event(x.shape[1:], BINARY if x.max() <= 1 else Support("ordinal", 256))


def _whole_table(x: NDArray[Any]) -> tuple[Tensor, Event]:
    """Rows of whole numbers: one support for all columns where few levels do, else one a column."""
    low, high = int(x.min()), int(x.max())
    if high - low < _MOST_LEVELS:
        one = BINARY if low >= 0 and high <= 1 else Support("ordinal", max(high - low + 1, 2), low)
        event = Event(x.shape[1:], one)
    else:
        event = Event(x.shape[1:], column_supports(x))
    return torch.from_numpy(x.astype(np.int64)).to(event.dtype if event.is_discrete else torch.float64), event
