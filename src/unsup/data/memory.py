"""`from_arrays`: data from arrays in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.data.arrays import check_label, read_arrays, same_units
from unsup.data.catalog import Missing
from unsup.data.conditions import LABEL, by_label
from unsup.data.events import as_event
from unsup.data.examples import Examples, Names, classes, listing
from unsup.data.hashing import row_hashes
from unsup.data.missing import applied, gaps_of, settled
from unsup.data.precision import of_type, precise, some_rows
from unsup.data.source import Data
from unsup.data.streams import joined

_THE_ARRAY = "the array"
_SPLIT = "by a hash of each row"
_SHOWN = 1_000  # entries that are read for a message
_MOST_SYMBOLS = 65_536  # maximum number of symbols or levels of integer sequences


def from_arrays(
    x: ArrayLike | Sequence[ArrayLike],
    label: ArrayLike | None = None,
    *,
    given: ArrayLike | Literal["label"] | None = None,
    lengths: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    unlabelled: ArrayLike | Sequence[ArrayLike] | None = None,
    event: Event | None = None,
    channels: Literal["first", "last"] | None = None,
    missing: Missing = "keep",
) -> Data:
    """Data from arrays (or tensors) in memory, split like a file: 80/10/10 by a hash of each row of ``x``.

    Args:
        x: examples ``(N, ...)``. Floats are real; integers are tables ``(N, D)``, or images ``(N, H, W)`` or
            ``(N, C, H, W)`` with levels 0 … 255, or of 16 bits; they are binary if only 0 and 1 occur. A list of
            arrays ``(T_i,)`` or ``(T_i, C)`` of different lengths gives sequences; their integers (at least 0) are
            symbols. NaN, and masked entries, are missing entries of tables.
        label: classes ``(N,)``, integers or text, or None.
        given: conditions of the examples: ``"label"``, classes ``(N,)``, or an array ``(N, ...)`` that is read
            like ``x``.
        lengths: ``(N,)``, lengths of sequences that are already padded in ``x``.
        weight: weights of the examples in means, ``(N,)``, at least 0.
        unlabelled: additional examples of the same kind, without labels: the stream ``"unlabelled"``.
        event: event of one example, if it should not be inferred from the values.
        channels: the order of the axes of images with four axes: "first" is ``(N, C, H, W)``, "last" is
            ``(N, H, W, C)``; by default, it is found from the shape, and noted if it is not certain.
        missing: what to do with missing entries: ``keep``, ``drop`` their rows, ``impute`` medians, or ``refuse``.

    Raises:
        InputError: non-finite values, values outside the event, or an unsupported shape.

    >>> import numpy as np
    >>> print(from_arrays(np.random.default_rng(0).normal(size=(50, 3))).event)
    vector of 3, real
    >>> print(from_arrays([[0, 1, 2], [2, 1], [0], [1]]).event)
    sequence of up to 3, nominal(3)
    """
    x, label, given, lengths, weight, unlabelled = map(_settled, (x, label, given, lengths, weight, unlabelled))
    found = _read(_together(x, unlabelled), lengths, event, channels)
    n = len(found.x) if unlabelled is None else len(cast("Sequence[Any]", x))
    beside = None
    if unlabelled is not None:
        if lengths is not None:
            raise InputError("lengths= applies to x only; pass x and unlabelled as lists of sequences instead")
        beside = _part(found, slice(n, len(found.x)))
        found = _part(found, slice(0, n))
    found = _with_label(found, label)
    found = _with_given(found, given)
    if weight is not None:
        found = replace(found, weight=_weights(weight, n))
    whole = applied(found, missing, _THE_ARRAY).data(_THE_ARRAY)
    whole = replace(whole, options={} if missing == "keep" else {"missing": missing})
    data = settled(whole, missing, _THE_ARRAY)
    if beside is None:
        return data
    other = applied(beside, missing, "unlabelled").data("unlabelled")
    return joined(data, "unlabelled", settled(other, missing, "unlabelled", gaps_of(whole)))


def _part(found: Examples, rows: slice) -> Examples:
    """Rows that were read, without labels and other fields."""
    taken = found.whole.take(rows)
    assert found.hashes is not None
    return replace(
        found,
        x=taken.examples,
        lengths=taken.lengths,
        hashes=found.hashes[rows],
        names=Names(str, range(rows.stop - rows.start)),
    )


def _settled(values: Any) -> Any:
    """Tensors converted for NumPy: without graph, on the CPU, in a type that NumPy has; other values unchanged."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return values.float() if values.dtype == torch.bfloat16 else values
    if isinstance(values, (list, tuple)) and any(isinstance(v, Tensor) for v in values):
        return [_settled(v) for v in values]
    return values


def _together(x: Any, unlabelled: Any) -> Any:
    """``x`` followed by the unlabelled examples, so that both have the same event."""
    if unlabelled is None:
        return x
    if isinstance(x, (list, tuple)) or isinstance(unlabelled, (list, tuple)):
        return [*x, *unlabelled]
    one, two = np.ma.asanyarray(x), np.ma.asanyarray(unlabelled)
    if one.shape[1:] != two.shape[1:]:
        raise InputError(f"x has examples of shape {one.shape[1:]}, but unlabelled {two.shape[1:]}; expected one shape")
    if not same_units([one.dtype, two.dtype]):
        raise InputError(f"x has type {one.dtype}, but unlabelled {two.dtype}; pass both in one type and unit")
    return np.ma.concatenate([one, two])


def _without_mask(values: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """An array with NaN for its masked entries, and whether it had integers before.

    Raises:
        InputError: masked entries outside a table, or integers that floats do not represent.
    """
    if not isinstance(values, np.ma.MaskedArray):
        return values, False
    plain = np.asarray(values.data)
    mask = np.ma.getmaskarray(values)
    if not mask.any():
        return plain, False
    if plain.ndim != 2 or plain.dtype.kind not in "buif":
        raise InputError(
            f"x is a masked array of shape {plain.shape} and type {plain.dtype} with {int(mask.sum()):,} masked "
            "entries; only entries of a table (N, D) of numbers may be missing: fill them, or remove these examples"
        )
    if plain.dtype.kind == "f":
        return np.where(mask, np.nan, plain), False
    wide = plain.astype(np.float64)
    known = plain[~mask]
    if known.size and not bool((wide[~mask].astype(object) == known.astype(object)).all()):
        raise InputError(
            f"x has masked entries and integers from {known.min()} to {known.max()}, which float64 does not "
            "distinguish; subtract an offset from them, or fill the masked entries"
        )
    return np.where(mask, np.nan, wide), True


def _read(
    x: Any, lengths: ArrayLike | None, event: Event | None, channels: Literal["first", "last"] | None
) -> Examples:
    ragged = isinstance(x, (list, tuple)) and len({np.shape(row)[:1] for row in x}) > 1
    if ragged or lengths is not None or (event is not None and event.open):
        return _sequences(x, lengths, event)
    values = _array(x)
    if values.dtype.kind == "O":
        raise InputError(f"x has entries of {_kinds(values)}; expected numbers (integers or floats) in one array")
    values, whole = _without_mask(values)
    if event is None or values.dtype.kind not in "buif":
        return read_arrays(values, channels=channels, whole=whole)
    read = as_event(torch.tensor(values.astype(_type(values, event))), event, event, _THE_ARRAY)
    return Examples(read, event, Names(str, range(len(read))), split=_SPLIT, hashes=row_hashes(values))


def _array(x: Any) -> NDArray[Any]:
    """``x`` as an array, masked if it or one of its rows is."""
    masked = isinstance(x, np.ma.MaskedArray) or (
        isinstance(x, (list, tuple)) and any(isinstance(row, np.ma.MaskedArray) for row in x)
    )
    return np.ma.asanyarray(x) if masked else np.asarray(x)


def _kinds(values: NDArray[Any]) -> str:
    return listing(sorted({type(value).__name__ for value in values.reshape(-1)[:_SHOWN].tolist()}))


def _sequences(x: Any, lengths: ArrayLike | None, event: Event | None) -> Examples:
    """Sequences of different lengths, padded at their ends with the lowest value."""
    rows, longest = _rows_of(x, lengths)
    entries = np.concatenate(rows)
    if event is None:
        event = _sequence_event(entries, longest)
    kind = _type(entries, event)
    if not event.open or event.shape[1:] != entries.shape[1:] or event.shape[0] < longest:
        raise InputError(f"x has sequences of up to {(longest, *entries.shape[1:])}; expected {event}")
    padded = np.full((len(rows), *event.shape), event.columns[0].low, kind)
    for row, target in zip(rows, padded, strict=True):
        target[: len(row)] = row
    tensor, sizes = torch.from_numpy(padded), torch.tensor([len(row) for row in rows])
    event.check(tensor, sizes)
    hashes = row_hashes(padded, sizes.numpy())
    names = Names(str, range(len(rows)))
    return Examples(of_type(tensor, event), event, names, split=_SPLIT, hashes=hashes, lengths=sizes)


def _type(values: NDArray[Any], event: Event) -> np.dtype[Any]:
    """The type of numbers until they are known to fit ``event``."""
    if values.dtype.kind == "f":
        return np.dtype(np.float64 if values.dtype.itemsize >= 8 else np.float32)
    return np.dtype(np.int64 if event.is_discrete else np.float64)


def _rows_of(x: Any, lengths: ArrayLike | None) -> tuple[list[NDArray[Any]], int]:
    """The sequences, each an array ``(T_i, ...)``, and their maximum length."""
    rows = [_array(row) for row in x]
    if any(np.ma.is_masked(row) for row in rows):
        raise InputError("x has sequences with masked entries; fill them, or cut the sequences there")
    rows = [np.asarray(row) for row in rows]
    shapes = {row.shape[1:] if row.ndim else None for row in rows}
    if len(shapes) != 1 or None in shapes or not all(len(row) for row in rows):
        raise InputError("x has no sequences; expected arrays (T,) or (T, C) with equal C and at least one entry each")
    for kind in sorted({row.dtype.str for row in rows if row.dtype.kind not in "buif"}):
        raise InputError(f"x has sequences of type {np.dtype(kind)}; expected numbers (integers or floats)")
    if not same_units([row.dtype for row in rows]):
        shown = listing(sorted({str(row.dtype) for row in rows}))
        raise InputError(f"x has sequences of different types ({shown}); expected one type and unit")
    longest = max(map(len, rows))
    if lengths is not None:
        given = np.asarray(lengths)
        if given.shape != (len(rows),) or given.dtype.kind not in "iu":
            raise InputError(
                f"lengths have shape {given.shape} and type {given.dtype}; expected ({len(rows)},), integers"
            )
        if given.min() < 1 or any(given > [len(row) for row in rows]):
            raise InputError(f"lengths are from {given.min()} to {given.max()}; expected 1 to {longest}, the size of x")
        rows = [row[:length] for row, length in zip(rows, given.tolist(), strict=True)]
    return rows, longest


def _sequence_event(entries: NDArray[Any], longest: int) -> Event:
    """The event of sequences, from all their entries ``(N, ...)``."""
    event = Event((longest, *entries.shape[1:]), REAL, "sequence", open=True)
    if entries.dtype.kind == "f":
        flat = entries.reshape(len(entries), -1)
        return precise(event, flat[some_rows(*flat.shape)]) if entries.dtype.itemsize >= 8 else event
    low, high = int(entries.min()), int(entries.max())
    if low >= 0 and high <= 1:
        return replace(event, support=BINARY)
    if low >= 0 and entries.ndim == 1 and high < _MOST_SYMBOLS:
        return replace(event, support=Support("nominal", high + 1))
    if high - low < _MOST_SYMBOLS:
        return replace(event, support=Support("ordinal", high - low + 1 if high > low else 2, low))
    return replace(event, precision="float64")


def _with_label(found: Examples, label: ArrayLike | None) -> Examples:
    if label is None:
        return found
    values = _labels(label)
    check_label(values, len(found.x), _THE_ARRAY)
    numbers, names = classes(values, f"the label of {_THE_ARRAY}")
    return replace(found, label=numbers, labels=names)


def _labels(label: Any) -> NDArray[Any]:
    """Labels as an array of one type.

    Raises:
        InputError: they are of several types, or some are missing.
    """
    if np.ma.is_masked(label):
        raise InputError("label has masked entries; remove these examples, or pass them as unlabelled=")
    values = np.asarray(label)
    if values.dtype.kind not in "OUS" or values.ndim != 1:
        return values
    entries = values.tolist() if values.dtype.kind == "O" or isinstance(label, np.ndarray) else list(label)
    if all(isinstance(entry, str) for entry in entries):
        return np.array(entries, dtype=np.str_)
    if all(isinstance(entry, bytes) for entry in entries):
        return np.array(entries)
    if all(isinstance(entry, (int, np.integer)) and not isinstance(entry, bool) for entry in entries):
        return np.array(entries, dtype=object)  # larger than 64 bits
    known = sorted({type(entry).__name__ for entry in entries})
    raise InputError(
        f"label has entries of type {listing(known)}; expected one type, integers or text, and no missing labels"
    )


def _with_given(found: Examples, given: Any) -> Examples:
    if given is None:
        return found
    if isinstance(given, str):
        if given != LABEL or found.label is None:
            raise InputError(f"given={given!r} should be 'label' (for data with labels) or an array")
        return by_label(found, _THE_ARRAY)
    values = np.asarray(given)
    if values.shape[:1] != (len(found.x),):
        raise InputError(
            f"given has shape {values.shape}; expected one condition for each of {len(found.x):,} examples"
        )
    if values.ndim == 1 and values.dtype.kind in "biuUS":
        numbers, names = classes(values, "given")
        alone = found.label is None
        labelled = by_label(replace(found, label=numbers, labels=names), "given")
        note = f"given: the classes {listing(names)}, in this order"
        return (
            labelled if alone else replace(labelled, label=found.label, labels=found.labels, notes=(*found.notes, note))
        )
    read = read_arrays(values[:, None] if values.ndim == 1 else values, origin="given")
    assert isinstance(read.x, Tensor)
    return replace(found, given=read.x.to(read.event.dtype), condition=read.event, notes=(*found.notes, *read.notes))


def _weights(weight: ArrayLike, n: int) -> Tensor:
    values = np.asarray(weight, dtype=np.float64)
    if values.shape != (n,) or not np.isfinite(values).all() or values.min() < 0 or not values.any():
        raise InputError(f"weight has shape {values.shape}; expected ({n},), finite, at least 0 and not all 0")
    return torch.from_numpy(values).to(torch.get_default_dtype())
