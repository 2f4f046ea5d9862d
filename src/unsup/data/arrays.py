"""NumPy files: ``.npy`` (one file or a folder of shards), ``.npz``, or a folder with ``train.npz`` and ``test.npz``."""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unsup.core import memory
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.data.bounds import check_array_header, check_fits, described, does_not_fit
from unsup.data.examples import SPLITS, Examples, Names, classes, listing, part_names
from unsup.data.hashing import Words, row_hashes
from unsup.data.mapped import Form, Mapped, gathered, opened, too_large
from unsup.data.precision import beyond_float64, nearer_0, precise, some_rows

Arrays = dict[str, NDArray[Any]]

_BROKEN = (OSError, EOFError, ValueError, AttributeError, MemoryError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)

_X, _LABEL = ("x", "X", "z"), ("label", "labels", "y", "Y")
_PARTS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
_IMAGE_CHANNELS = (1, 3, 4)
_MOST_LEVELS = 256
_BYTES_AT_ONCE = 2**24  # rows of an array that are scanned at a time
_COPIES = 2  # copies of an array in memory: as read, and split
_PER_ROW = 40  # bytes of memory per row on disk: its hash and its position, twice while rows are sorted


@dataclass(frozen=True)
class _Part:
    """Consecutive arrays ``(N, ...)``, perhaps with labels, and their files."""

    arrays: Sequence[NDArray[Any]]
    label: NDArray[Any] | None = None
    files: Sequence[Path] = ()

    def __len__(self) -> int:
        return sum(map(len, self.arrays))


@dataclass(frozen=True)
class _Range:
    """The minimum and maximum of every entry ``(D,)``."""

    low: NDArray[Any]
    high: NDArray[Any]

    def with_(self, other: _Range) -> _Range:
        return _Range(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


def read_array(path: Path, *, in_memory: bool | None = None) -> Examples:
    """One ``.npy`` file: the examples ``(N, ...)``, without labels.

    Args:
        in_memory: whether to read .npy files into memory; by default, those larger than a quarter of the memory stay
            on disk, and rows are read on demand.
    """
    return _from_files({"all": [path]}, path, in_memory)


def read_shards(path: Path, *, in_memory: bool | None = None) -> Examples:
    """A folder of ``.npy`` files, sorted by name, as one array.

    Files whose names start with ``train``, ``validation`` (``valid``, ``val``) or ``test``, followed by numbers, are
    the splits.

    Args:
        in_memory: as for a single file.

    Raises:
        InputError: files of different shapes or types, or only some of them named after splits.
    """
    files = sorted(p for p in path.iterdir() if p.suffix.lower() == ".npy" and p.name[0] != "." and p.is_file())
    named = {file: _part_of(file) for file in files}
    parts = {part: [f for f in files if named[f] == part] for part in (*_PARTS, None)}
    if len(parts[None]) == len(files):
        return _from_files({"all": files}, path, in_memory)
    if parts[None] or not parts["train"]:
        other = listing([f.name for f in parts[None]]) or "no train.npy"
        raise InputError(f"{path} has files named after splits, and {other}; name all files after splits, or none")
    return _from_files({part: found for part, found in parts.items() if part and found}, path, in_memory)


def read_file(path: Path) -> Examples:
    """One ``.npz`` file: ``x`` (or ``z``, codes) and perhaps ``label``, or ``x_train``, ``x_test``, …."""
    arrays = read_npz(path)
    single = _pick(arrays, _X)
    if single is None and len(arrays) == 1:
        (single,) = arrays.values()
    if single is not None:
        return _examples({"all": _Part([single], _pick(arrays, _LABEL))}, path)
    parts = {}
    for part, words in _PARTS.items():
        x = _pick(
            arrays, [f"{k}_{w}" for k in _X for w in words] + [f"{w}_{k}" for k in _X for w in words] + list(words)
        )
        if x is not None:
            parts[part] = _Part([x], _pick(arrays, [f"{k}_{w}" for k in _LABEL for w in words]))
    if "train" not in parts:
        raise InputError(
            f"{path} has the arrays {listing(sorted(arrays))}; expected x (and label), or x_train, x_test (and "
            "label_train, label_test)"
        )
    return _examples(parts, path)


def read_folder(path: Path) -> Examples:
    """A folder with ``train.npz`` and optionally ``validation.npz`` and ``test.npz``, with keys x and label."""
    parts = {}
    for part, words in _PARTS.items():
        for file in [path / f"{w}.npz" for w in words if (path / f"{w}.npz").is_file()]:
            arrays = read_npz(file)
            x = _pick(arrays, _X)
            if x is None:
                raise InputError(f"{file} has the arrays {listing(sorted(arrays))}; expected x (and label)")
            parts[part] = _Part([x], _pick(arrays, _LABEL))
    return _examples(parts, path)


def read_arrays(x: NDArray[Any], label: NDArray[Any] | None = None, *, origin: str = "the array") -> Examples:
    """Arrays in memory: examples ``(N, ...)`` and perhaps labels ``(N,)``."""
    return _examples({"all": _Part([x], label)}, origin)


def read_npz(path: Path) -> Arrays:
    """All arrays of an ``.npz`` file.

    Raises:
        InputError: the file is damaged, or contains Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            size = sum(member.file_size for member in members)
            if _COPIES * size <= memory.limit():
                return {member.filename.removesuffix(".npy"): _member(archive, member) for member in members}
    except (*_BROKEN, NotImplementedError, RuntimeError) as error:  # unsupported compression, or a password
        raise _unreadable(path, error) from error
    raise does_not_fit(
        _COPIES * size,
        f"the content of {path}",
        "save it as .npy, which can stay on disk (--no-in-memory), or split it",
    )


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        check_array_header(file, member.file_size)
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _from_files(parts: Mapping[str, Sequence[Path]], path: Path, in_memory: bool | None) -> Examples:
    size = sum(file.stat().st_size for files in parts.values() for file in files)
    on_disk = too_large(size) if in_memory is None else not in_memory
    if not on_disk:
        check_fits(_COPIES * size, str(path), "keep it on disk with --no-in-memory (in_memory=False), or split it")
    read = {part: _Part([_read_npy(file, on_disk) for file in files], None, files) for part, files in parts.items()}
    rows = sum(len(array) for part in read.values() for array in part.arrays)
    check_fits(_PER_ROW * rows, f"the order of the {rows:,} rows of {path}", "split it")
    kinds = {
        (a.shape[1:], a.dtype.str): file.name for p in read.values() for a, file in zip(p.arrays, p.files, strict=True)
    }
    if len(kinds) > 1:
        shown = listing(
            [f"{name} has rows of shape {shape} and type {np.dtype(kind)}" for (shape, kind), name in kinds.items()]
        )
        raise InputError(f"the files in {path} differ: {shown}; expected one shape and one type")
    return _examples(read, path, on_disk=on_disk)


def _read_npy(path: Path, on_disk: bool) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            check_array_header(file, path.stat().st_size)
            file.seek(0)
            return opened(path) if on_disk else np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise _unreadable(path, error) from error
    except MemoryError as error:
        raise InputError(
            f"{path} ({path.stat().st_size / 1e9:,.1f} GB) does not fit into memory; keep it on disk with "
            "--no-in-memory (in_memory=False), or split it"
        ) from error


def _unreadable(path: Path, error: BaseException) -> InputError:
    return InputError(
        f"{path} has no numeric arrays ({described(error)}); save it with numpy.savez(path, x=x, label=label)"
    )


def _part_of(file: Path) -> str | None:
    """The split after which a shard is named: ``train-003.npy``."""
    word = re.fullmatch(r"([a-z]+)(?:[-_.]?\d+)?", file.stem.lower())
    return next((part for part, words in _PARTS.items() if word and word[1] in words), None)


def _pick(arrays: Arrays, keys: Any) -> NDArray[Any] | None:
    return next((arrays[k] for k in keys if k in arrays), None)


def _examples(parts: Mapping[str, _Part], path: Path | str, *, on_disk: bool = False) -> Examples:
    shapes, ranges, hashes = set(), [], []
    for name, part in parts.items():
        origin = path if name == "all" else f"{path} ({name})"
        for i, array in enumerate(part.arrays):
            found_range, hashed = _checked(array, part.files[i] if len(part.arrays) > 1 else origin)
            ranges.append(found_range)
            hashes.append(hashed)
            shapes.add(array.shape[1:])
        check_label(part.label, len(part), origin)
    if len(shapes) > 1:
        raise InputError(f"the splits of {path} have examples of different shapes {sorted(shapes)}; expected one shape")
    arrays = [array for part in parts.values() for array in part.arrays]
    notes: list[str] = []
    n, noted = sum(map(len, arrays)), np.concatenate(hashes)
    event, form = _event(arrays, n, ranges, path, notes)
    if on_disk:
        files = [file for part in parts.values() for file in part.files]
        notes.append("the array stays on disk, and rows are read on demand")
        found = Examples(Mapped(files, form, noted=noted), event, _names(parts))
    else:
        found = Examples(form.tensor(arrays[0] if len(arrays) == 1 else np.concatenate(arrays)), event, _names(parts))
    given = [part.label for part in parts.values() if part.label is not None]
    if len(given) == len(parts):
        label, labels = classes(np.concatenate(given), f"the label of {path}")
        found = replace(found, label=label, labels=labels)
    elif given:
        notes.append("labels are ignored, because not all splits have them")
    own = None if "all" in parts else {name: len(parts[name]) for name in SPLITS if name in parts}
    return replace(found, notes=tuple(notes), own=own, hashes=noted, split="by a hash of each row")


def _names(parts: Mapping[str, _Part]) -> Sequence[str]:
    sizes = {name: len(part) for name, part in parts.items()}
    return Names(str, range(sizes["all"])) if "all" in sizes else part_names(sizes)


def check_label(label: NDArray[Any] | None, n: int, origin: Any) -> None:
    """Raise `InputError` unless ``label`` has one class for each of ``n`` examples."""
    if label is not None and (label.shape != (n,) or label.dtype.kind not in "buifUS"):
        raise InputError(
            f"{origin}: label has shape {label.shape} and type {label.dtype}; expected ({n},), integers or text"
        )


def _checked(x: NDArray[Any], origin: Any) -> tuple[_Range, Words]:
    """The range of each entry of an array ``(N, ...)`` of finite numbers, and the hash of each row, in one pass."""
    if x.dtype.kind not in "buif":
        raise InputError(f"{origin}: x has type {described(x.dtype)}; expected numbers (integers or floats)")
    if x.ndim < 2 or x.size == 0:
        raise InputError(
            f"{origin}: x has shape {x.shape}; expected (examples, ...) with at least two axes, none of them empty"
        )
    step = max(1, _BYTES_AT_ONCE * len(x) // x.nbytes)
    found: _Range | None = None
    hashes = np.empty(len(x), np.uint64)
    for start in range(0, len(x), step):
        rows = np.asarray(x[start : start + step])
        # For images, the order of the channels does not matter.
        hashes[start : start + step] = row_hashes(np.moveaxis(rows, 3, 1) if _channels_last(x.shape) else rows)
        chunk = rows.reshape(len(rows), -1)
        own = _Range(chunk.min(0), chunk.max(0))  # a NaN propagates to both
        found = own if found is None else found.with_(own)
    assert found is not None
    if x.dtype.kind == "f" and not (np.isfinite(found.low).all() and np.isfinite(found.high).all()):
        raise _not_finite(x, step, origin)
    return found, hashes


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Whether arrays ``(N, ...)`` of this shape are images ``(N, H, W, C)``."""
    return len(shape) == 4 and shape[1] not in _IMAGE_CHANNELS and shape[3] in _IMAGE_CHANNELS


def _not_finite(x: NDArray[Any], step: int, origin: Any) -> InputError:
    count, first = 0, None
    for start in range(0, len(x), step):
        bad = ~np.isfinite(x[start : start + step])
        count += int(bad.sum())
        if first is None and bad.any():
            row, *rest = (int(i) for i in np.argwhere(bad)[0])
            first = start + row, rest
    assert first is not None
    row, rest = first
    place = f"column {rest[0]}" if len(rest) == 1 else f"position {tuple(rest)}"
    return InputError(
        f"{origin}: {count} values of x are NaN or infinite, the first in row {row}, {place} (from 0); fill them, or "
        "remove those rows"
    )


def _event(
    arrays: Sequence[NDArray[Any]], n: int, ranges: Sequence[_Range], path: Path | str, notes: list[str]
) -> tuple[Event, Form]:
    """The event of one example, and the conversion of rows of these arrays to examples."""
    dtype, shape, last = arrays[0].dtype, arrays[0].shape[1:], False
    if any(a.dtype != dtype for a in arrays):
        dtype = np.result_type(*arrays)
    if len(shape) == 3 and shape[0] not in _IMAGE_CHANNELS:
        if not _channels_last(arrays[0].shape):
            raise InputError(
                f"{path}: x has shape {(n, *shape)}; expected images (N, C, H, W) or (N, H, W, C) with 1, 3 or 4 "
                "channels C"
            )
        notes.append("images of shape (N, H, W, C) were converted to (N, C, H, W)")
        shape, last = (shape[2], *shape[:2]), True
    if len(shape) == 2:
        notes.append("x has three axes and is read as images (N, 1, H, W)")
        shape = (1, *shape)
    dims = int(np.prod(shape))
    if dtype.kind == "f":
        if dtype.itemsize < 8:
            return Event(shape, REAL), Form(shape, np.dtype(np.float32), last)
        rows = gathered(arrays, some_rows(n, dims)).reshape(-1, dims)
        return precise(Event(shape, REAL), rows), Form(shape, np.dtype(np.float64), last)
    low = np.min([r.low for r in ranges], 0)
    high = np.max([r.high for r in ranges], 0)
    if len(shape) == 1:
        return _whole_table(low, high, gathered(arrays, some_rows(n, dims)), path)
    if low.min() < 0 or high.max() > 255:
        raise InputError(
            f"{path}: x has shape {(n, *shape)} and integers from {low.min()} to {high.max()}; expected 0 to 255 "
            "(pixels); convert it to float for real values"
        )
    support = BINARY if high.max() <= 1 else Support("ordinal", 256)
    return Event(shape, support), Form(shape, np.dtype(np.uint8), last)


def _whole_table(low: NDArray[Any], high: NDArray[Any], rows: NDArray[Any], path: Path | str) -> tuple[Event, Form]:
    """Rows of integers: one support for all columns if it needs few levels, else one per column."""
    lowest, highest = int(low.min()), int(high.max())
    supports = (
        (whole_support(lowest, highest),) * len(low)
        if highest - lowest < _MOST_LEVELS
        else tuple(whole_support(int(a), int(b)) for a, b in zip(low, high, strict=True))
    )
    bad = beyond_float64(rows, supports)
    if bad is not None:
        raise InputError(
            f"{path}: column {bad} has integers from {low[bad]} to {high[bad]}, too far from 0 for float64 to "
            f"distinguish them; {nearer_0(int(low[bad]), int(high[bad]))}"
        )
    event = precise(Event(low.shape, supports), rows)
    kind = {torch.uint8: np.uint8, torch.int64: np.int64}.get(event.dtype, np.float64)
    return event, Form(low.shape, np.dtype(kind))


def whole_support(low: int, high: int) -> Support:
    """The support of integers from ``low`` to ``high``: binary, ordinal, or real if there are many levels."""
    if high - low >= _MOST_LEVELS:
        return REAL
    if low >= 0 and high <= 1:
        return BINARY
    return Support("ordinal", max(high - low + 1, 2), low)
