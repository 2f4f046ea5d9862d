"""NumPy files: ``.npy`` (one file or a folder of shards), ``.npz``, or a folder with ``train.npz`` and ``test.npz``."""

from __future__ import annotations

import functools
import lzma
import math
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from unsup.core import memory
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.data.bounds import check_array_header, check_fits, described, does_not_fit
from unsup.data.catalog import Missing
from unsup.data.examples import SPLITS, Examples, Names, classes, listing, part_names
from unsup.data.hashing import Words, row_hashes
from unsup.data.mapped import Form, Mapped, gathered, opened, too_large
from unsup.data.missing import applied
from unsup.data.precision import beyond_float64, nearer_0, precise, some_rows

Arrays = dict[str, NDArray[Any]]

_BROKEN = (OSError, EOFError, ValueError, AttributeError, MemoryError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)

_X, _LABEL = ("x", "X", "z"), ("label", "labels", "y", "Y")
_PARTS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
_IMAGE_CHANNELS = (1, 3, 4)
_MOST_GREYS = 65_536  # levels of 16-bit pictures; integers of a wider range are real
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
    whole: bool = False
    """Whether the numbers are integers, stored as floats because some are missing."""

    def __len__(self) -> int:
        return sum(map(len, self.arrays))


@dataclass(frozen=True)
class _Range:
    """The minimum and maximum of every entry ``(D,)``, and how many are missing; an entry is NaN if all are missing."""

    low: NDArray[Any]
    high: NDArray[Any]
    missing: int = 0

    def with_(self, other: _Range) -> _Range:
        return _Range(np.fmin(self.low, other.low), np.fmax(self.high, other.high), self.missing + other.missing)


def read_array(
    path: Path,
    *,
    in_memory: bool | None = None,
    channels: Literal["first", "last"] | None = None,
    missing: Missing = "keep",
) -> Examples:
    """One ``.npy`` file: the examples ``(N, ...)``, without labels.

    Args:
        in_memory: whether to read .npy files into memory; by default, those larger than a quarter of the memory stay
            on disk, and rows are read on demand.
        channels: the order of the axes of images with four axes: "first" is (N, C, H, W), "last" is (N, H, W, C); by
            default, it is found from the shape, and noted if it is not certain.
        missing: rows of a table with missing values (NaN), as for CSV.
    """
    return applied(_from_files({"all": [path]}, path, in_memory, channels), missing, str(path))


def read_shards(
    path: Path, *, in_memory: bool | None = None, channels: Literal["first", "last"] | None = None
) -> Examples:
    """A folder of ``.npy`` files, sorted by name, as one array.

    Files whose names start with ``train``, ``validation`` (``valid``, ``val``) or ``test``, followed by numbers, are
    the splits.

    Args:
        in_memory: as for a single file.
        channels: as for a single file.

    Raises:
        InputError: files of different shapes or types, or only some of them named after splits.
    """
    files = sorted(p for p in path.iterdir() if p.suffix.lower() == ".npy" and p.name[0] != "." and p.is_file())
    named = {file: _part_of(file) for file in files}
    parts = {part: [f for f in files if named[f] == part] for part in (*_PARTS, None)}
    if len(parts[None]) == len(files):
        found = _from_files({"all": files}, path, in_memory, channels)
        note = f"the {len(files):,} arrays are joined along their first axis, as {len(found.names):,} examples"
        return replace(found, notes=(*found.notes, note)) if len(files) > 1 else found
    if parts[None] or not parts["train"]:
        other = listing([f.name for f in parts[None]]) or "no train.npy"
        raise InputError(f"{path} has files named after splits, and {other}; name all files after splits, or none")
    return _from_files({part: found for part, found in parts.items() if part and found}, path, in_memory, channels)


def read_file(path: Path, *, channels: Literal["first", "last"] | None = None, missing: Missing = "keep") -> Examples:
    """One ``.npz`` file: ``x`` (or ``z``, codes) and perhaps ``label``, or ``x_train``, ``x_test``, ….

    Args:
        channels: as for a .npy file.
        missing: rows of a table with missing values (NaN), as for CSV.
    """
    arrays = read_npz(path)
    single = _pick(arrays, _X)
    if single is None and len(arrays) == 1:
        (single,) = arrays.values()
    if single is not None:
        return applied(_examples({"all": _Part([single], _pick(arrays, _LABEL))}, path, channels), missing, str(path))
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
    return applied(_examples(parts, path, channels), missing, str(path))


def read_folder(path: Path, *, channels: Literal["first", "last"] | None = None, missing: Missing = "keep") -> Examples:
    """A folder with ``train.npz`` and optionally ``validation.npz`` and ``test.npz``, with keys x and label.

    Args:
        channels: as for a .npy file.
        missing: rows of a table with missing values (NaN), as for CSV.
    """
    parts = {}
    for part, words in _PARTS.items():
        for file in [path / f"{w}.npz" for w in words if (path / f"{w}.npz").is_file()]:
            arrays = read_npz(file)
            x = _pick(arrays, _X)
            if x is None:
                raise InputError(f"{file} has the arrays {listing(sorted(arrays))}; expected x (and label)")
            parts[part] = _Part([x], _pick(arrays, _LABEL))
    return applied(_examples(parts, path, channels), missing, str(path))


def read_arrays(
    x: NDArray[Any],
    label: NDArray[Any] | None = None,
    *,
    origin: str = "the array",
    channels: Literal["first", "last"] | None = None,
    whole: bool = False,
) -> Examples:
    """Arrays in memory: examples ``(N, ...)`` and perhaps labels ``(N,)``.

    Args:
        whole: whether floats are integers, some of which are missing (NaN).
    """
    return _examples({"all": _Part([x], label, whole=whole)}, origin, channels)


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


def _from_files(
    parts: Mapping[str, Sequence[Path]],
    path: Path,
    in_memory: bool | None,
    channels: Literal["first", "last"] | None,
) -> Examples:
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
    return _examples(read, path, channels, on_disk=on_disk)


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


def _examples(
    parts: Mapping[str, _Part],
    path: Path | str,
    channels: Literal["first", "last"] | None,
    *,
    on_disk: bool = False,
) -> Examples:
    _check_units(parts, path)
    arrays = [array for part in parts.values() for array in part.arrays]
    shape = arrays[0].shape
    last, doubt = _channels_last(shape, channels, path)
    ranges, hashes = [], []
    for name, part in parts.items():
        origin = path if name == "all" else f"{path} ({name})"
        for i, array in enumerate(part.arrays):
            found_range, hashed = _checked(array, part.files[i] if len(part.arrays) > 1 else origin, last=last)
            ranges.append(found_range)
            hashes.append(hashed)
        check_label(part.label, len(part), origin)
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        raise InputError(f"the splits of {path} have examples of different shapes {sorted(shapes)}; expected one shape")
    notes = [doubt] if doubt else []
    n, noted = sum(map(len, arrays)), np.concatenate(hashes)
    event, form = _event(arrays, n, ranges, path, notes, last=last, whole=any(part.whole for part in parts.values()))
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


def _check_units(parts: Mapping[str, _Part], path: Path | str) -> None:
    """Raise `InputError` if only some splits have integers (0 … 255 and 0 … 1, say), or text as labels."""
    for what, found in (
        ("x", {name: part.arrays[0].dtype for name, part in parts.items() if part.arrays[0].dtype.kind in "buif"}),
        ("label", {name: part.label.dtype for name, part in parts.items() if part.label is not None}),
    ):
        if not same_units(list(found.values())):
            shown = ", ".join(f"{kind} in {name}" for name, kind in found.items())
            raise InputError(f"{path}: {what} has different types, {shown}; save all splits in one type and unit")


def same_units(kinds: Sequence[np.dtype[Any]]) -> bool:
    """Whether numbers of these types can be joined: all floats, all integers that fit into one type, or all text.

    >>> same_units([np.dtype("uint8"), np.dtype("int64")]), same_units([np.dtype("uint8"), np.dtype("float32")])
    (True, False)
    """
    text = [kind.kind in "US" for kind in kinds]
    if any(text) or not kinds:
        return all(text)
    real = [kind.kind == "f" for kind in kinds]
    return all(real) or (not any(real) and np.result_type(*kinds).kind != "f")


def _names(parts: Mapping[str, _Part]) -> Sequence[str]:
    sizes = {name: len(part) for name, part in parts.items()}
    return Names(str, range(sizes["all"])) if "all" in sizes else part_names(sizes)


def check_label(label: NDArray[Any] | None, n: int, origin: Any) -> None:
    """Raise `InputError` unless ``label`` has one class for each of ``n`` examples."""
    if label is not None and (label.shape != (n,) or label.dtype.kind not in "buifUSO"):
        raise InputError(
            f"{origin}: label has shape {label.shape} and type {label.dtype}; expected ({n},), integers or text"
        )


def _checked(x: NDArray[Any], origin: Any, *, last: bool) -> tuple[_Range, Words]:
    """The range of each entry of an array ``(N, ...)``, and the hash of each row, in one pass.

    A NaN is a missing entry of a table ``(N, D)``; other values must be finite.
    """
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
        hashes[start : start + step] = row_hashes(np.moveaxis(rows, 3, 1) if last else rows)
        chunk = rows.reshape(len(rows), -1)
        own = _Range(chunk.min(0), chunk.max(0))  # a NaN propagates to both
        if x.ndim == 2 and x.dtype.kind == "f" and np.isnan(own.low).any():
            own = _Range(np.fmin.reduce(chunk), np.fmax.reduce(chunk), int(np.isnan(chunk).sum()))
        found = own if found is None else found.with_(own)
    assert found is not None
    if x.dtype.kind == "f":
        if np.isinf(found.low).any() or np.isinf(found.high).any() or (x.ndim > 2 and np.isnan(found.low).any()):
            raise _not_finite(x, step, origin)
        empty = np.flatnonzero(np.isnan(found.low))
        if len(empty):
            raise InputError(
                f"{origin}: every entry of column {empty[0]} is missing (NaN); remove the column"
                + (f", and {len(empty) - 1} others" if len(empty) > 1 else "")
            )
    return found, hashes


def _channels_last(shape: tuple[int, ...], said: Literal["first", "last"] | None, path: Path | str) -> tuple[bool, str]:
    """Whether arrays ``(N, ...)`` of this shape are images ``(N, H, W, C)``, and a note if that is not certain.

    If both orders give 1, 3 or 4 channels, the one whose images are nearer to squares is used, else channels first.
    """
    if len(shape) != 4 or 0 in shape:
        if said is not None:
            raise InputError(
                f"{path}: x has shape {shape}, so channels={said!r} does not apply; expected images with four axes"
            )
        return False, ""
    n, a, b, c = shape
    if said is not None:
        return said == "last", ""
    first, last = a in _IMAGE_CHANNELS, c in _IMAGE_CHANNELS
    if not first and not last:
        raise InputError(
            f"{path}: x has shape {shape}; expected images (N, C, H, W) or (N, H, W, C) with 1, 3 or 4 channels C, or "
            "pass --channels first or last (channels=)"
        )
    if not (first and last):
        return last, "images of shape (N, H, W, C) were converted to (N, C, H, W)" if last else ""
    if b == c and (a != b or a == 1):
        return False, ""  # square images
    turned = abs(math.log(a / b)) < abs(math.log(b / c))
    order, other = ("(N, H, W, C)", "first") if turned else ("(N, C, H, W)", "last")
    size = f"{c} channels of {a}×{b}" if turned else f"{a} channels of {b}×{c}"
    return turned, (
        f"x has shape {(n, a, b, c)} and is read as {order}, {size.replace('1 channels', '1 channel')}; use --channels "
        f"{other} (channels={other!r}) if the channels are {other}"
    )


def _not_finite(x: NDArray[Any], step: int, origin: Any) -> InputError:
    count, first = 0, None
    for start in range(0, len(x), step):
        part = x[start : start + step]
        bad = np.isinf(part) if x.ndim == 2 else ~np.isfinite(part)
        count += int(bad.sum())
        if first is None and bad.any():
            row, *rest = (int(i) for i in np.argwhere(bad)[0])
            first = start + row, rest
    assert first is not None
    row, rest = first
    place = f"column {rest[0]}" if len(rest) == 1 else f"position {tuple(rest)}"
    what = "infinite" if x.ndim == 2 else "NaN or infinite"
    return InputError(
        f"{origin}: {count} values of x are {what}, the first in row {row}, {place} (from 0); fill them, or remove "
        "those rows"
    )


def _event(
    arrays: Sequence[NDArray[Any]],
    n: int,
    ranges: Sequence[_Range],
    path: Path | str,
    notes: list[str],
    *,
    last: bool,
    whole: bool,
) -> tuple[Event, Form]:
    """The event of one example, and the conversion of rows of these arrays to examples."""
    dtype, shape = np.result_type(*arrays), arrays[0].shape[1:]
    if last:
        shape = (shape[2], *shape[:2])
    if len(shape) == 2:
        notes.append("x has three axes and is read as images (N, 1, H, W)")
        shape = (1, *shape)
    dims, missing = int(np.prod(shape)), sum(r.missing for r in ranges)
    if missing:
        notes.append(f"{missing:,} of {n * dims:,} entries are missing (NaN)")
    low = functools.reduce(np.fmin, [r.low for r in ranges])
    high = functools.reduce(np.fmax, [r.high for r in ranges])
    if dtype.kind == "f" and not whole:
        event = Event(shape, REAL, missing=missing > 0)
        if dtype.itemsize < 8:
            return event, Form(shape, np.dtype(np.float32), last)
        rows = gathered(arrays, some_rows(n, dims)).reshape(-1, dims)
        return precise(event, _filled(rows)), Form(shape, np.dtype(np.float64), last)
    if len(shape) == 1:
        return _whole_table(low, high, gathered(arrays, some_rows(n, dims)), path, missing=missing > 0)
    lowest, highest = int(low.min()), int(high.max())
    if lowest >= 0 and highest <= 1:
        return Event(shape, BINARY), Form(shape, np.dtype(np.uint8), last)
    if lowest >= 0 and highest <= 255:
        return Event(shape, Support("ordinal", 256)), Form(shape, np.dtype(np.uint8), last)
    at = 0 if lowest >= 0 else -_MOST_GREYS // 2
    if at <= lowest and highest < at + _MOST_GREYS:
        notes.append(f"integers from {lowest} to {highest} are read as 16-bit levels")
        return Event(shape, Support("ordinal", _MOST_GREYS, at)), Form(shape, np.dtype(np.int64), last)
    bad = beyond_float64(np.array([[low.min()], [high.max()]]), [REAL])
    if bad is not None:
        raise InputError(
            f"{path}: x has integers from {lowest} to {highest}, too far from 0 for float64 to distinguish them; "
            f"{nearer_0(lowest, highest)}"
        )
    notes.append(f"integers from {lowest} to {highest} are more than 16 bits, and read as real numbers")
    rows = gathered(arrays, some_rows(n, dims)).reshape(-1, dims).astype(np.float64)
    return precise(Event(shape, REAL), rows), Form(shape, np.dtype(np.float64), last)


def _filled(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows ``(N, D)`` with the lowest known value of its column in place of missing entries."""
    return np.where(np.isnan(rows), np.nan_to_num(np.fmin.reduce(rows)), rows) if rows.dtype.kind == "f" else rows


def _whole_table(
    low: NDArray[Any], high: NDArray[Any], rows: NDArray[Any], path: Path | str, *, missing: bool
) -> tuple[Event, Form]:
    """Rows of integers: one support for all columns if it needs few levels, else one per column."""
    lowest, highest = int(low.min()), int(high.max())
    supports = (
        (whole_support(lowest, highest),) * len(low)
        if highest - lowest < _MOST_LEVELS
        else tuple(whole_support(int(a), int(b)) for a, b in zip(low, high, strict=True))
    )
    rows = _filled(rows)
    bad = beyond_float64(rows, supports)
    if bad is not None:
        raise InputError(
            f"{path}: column {bad} has integers from {low[bad]} to {high[bad]}, too far from 0 for float64 to "
            f"distinguish them; {nearer_0(int(low[bad]), int(high[bad]))}"
        )
    event = precise(Event(low.shape, supports, missing=missing), rows)
    kinds = {torch.uint8: np.uint8, torch.int64: np.int64, torch.float32: np.float32 if missing else np.float64}
    kind = kinds.get(event.dtype, np.float64)
    return event, Form(low.shape, np.dtype(kind))


def whole_support(low: int, high: int) -> Support:
    """The support of integers from ``low`` to ``high``: binary, ordinal, or real if there are many levels."""
    if high - low >= _MOST_LEVELS:
        return REAL
    if low >= 0 and high <= 1:
        return BINARY
    return Support("ordinal", max(high - low + 1, 2), low)
