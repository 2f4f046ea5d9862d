"""Hashes of the content of rows: they determine the split of a row, and detect changed data.

A row of words w_1 … w_D has the hash f(Σ_d a_d w_d mod 2⁶⁴), with fixed random odd numbers a_d and the finaliser f of
SplitMix64 (Steele, Lea, Flood 2014). Two rows that differ in one word never have the same sum; other rows collide only
by chance. The hash does not depend on other rows, their number or order, or on versions of libraries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unsup.core.errors import InputError

Words = NDArray[np.uint64]

_SEED = 0x5851F42D4C957F2D
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORDS_AT_ONCE = 2**16  # so that the working set stays in the cache of the processor


def scrambled(numbers: Words) -> Words:
    """The finaliser of SplitMix64 for each number."""
    with np.errstate(over="ignore"):
        key = numbers * np.uint64(_GOLDEN)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(_MIX_1)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(_MIX_2)
        return np.asarray(key ^ (key >> np.uint64(31)))


def row_hashes(values: NDArray[Any], lengths: NDArray[np.int64] | None = None) -> Words:
    """The hash of every row of numbers ``(N, ...)``: uint64 ``(N,)``.

    Integers are hashed as int64 and fractions as float64, independent of their type, and −0 as 0. All NaN are equal.

    Args:
        values: numbers to hash.
        lengths: lengths of the rows ``(N,)``; entries beyond them are padding, which is ignored.

    >>> x = np.array([[1, 2], [3, 4], [1, 2]])
    >>> (row_hashes(x) == row_hashes(x.astype(np.uint8))).tolist(), len(set(row_hashes(x).tolist()))
    ([True, True, True], 2)
    """
    flat = values.reshape(len(values), -1) if values.size else np.zeros((len(values), 0))
    factors = _factors(flat.shape[1])
    found = np.empty(len(flat), np.uint64)
    step = max(1, _WORDS_AT_ONCE // max(1, flat.shape[1]))
    per_entry = flat.shape[1] // values.shape[1] if lengths is not None else 1
    for start in range(0, len(flat), step):
        part = slice(start, start + step)
        own = words(flat[part])
        if lengths is not None:
            own = np.where(np.arange(flat.shape[1]) < per_entry * lengths[part, None], own, np.uint64(0))
        found[part] = np.einsum("nd,d->n", own, factors)
    if lengths is not None:
        found += lengths.astype(np.uint64) * np.uint64(_GOLDEN)
    return scrambled(found ^ np.uint64(_SEED))


def column_hashes(columns: Iterable[Words], n: int, count: int) -> Words:
    """`row_hashes` of ``count`` columns of words ``(n,)`` from an iterator."""
    found = np.zeros(n, np.uint64)
    with np.errstate(over="ignore"):
        for factor, column in zip(_factors(count), columns, strict=True):
            found += column * factor
    return scrambled(found ^ np.uint64(_SEED))


def words(values: NDArray[Any]) -> Words:
    """Numbers as words for hashing, of the same shape."""
    if values.dtype.kind == "f":
        plain = values.astype(np.float64) + 0.0
        missing = np.isnan(plain)
        if missing.any():
            plain[missing] = np.nan
        found = plain.view(np.uint64)
        # Round numbers have only upper bits, and the lower bits of a product depend only on lower bits.
        found ^= found >> np.uint64(32)
        found *= np.uint64(_MIX_1)
        found ^= found >> np.uint64(29)
        return found
    found = values.astype(np.int64).view(np.uint64)
    if values.dtype.kind == "i" or values.dtype.itemsize == 8:
        found ^= found >> np.uint64(32)
    return found


def cell_word(cell: str) -> int:
    """A cell of a table as a word for hashing: a finite number by value, independent of its notation, else its text.

    >>> cell_word("1.0") == cell_word("1"), cell_word("cat") == cell_word("dog")
    (True, False)
    """
    try:
        value = np.array([float(cell)])
    except ValueError:
        return bytes_hash(cell.encode("utf-8", "surrogatepass"))
    return int(words(value)[0]) if np.isfinite(value[0]) else bytes_hash(cell.lower().encode())


def bytes_hash(content: bytes | memoryview) -> int:
    """A 64-bit hash of bytes."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=_SEED.to_bytes(8, "little")).digest(), "little")


def copy_hashes(hashes: Words, ties: Words | None = None) -> Words:
    """Hashes that are different for equal rows: the first keeps its hash, the others have one of it and their number.

    They do not depend on the order of the rows. A further copy changes the hash of no other, if it is the last by ties.

    Args:
        hashes: hashes of all rows ``(N,)``.
        ties: as in `by_content`.

    >>> found = copy_hashes(np.array([7, 5, 7, 7], np.uint64))
    >>> found[:2].tolist(), len(set(found.tolist()))
    ([7, 5], 4)
    """
    order = np.argsort(hashes, kind="stable") if ties is None else np.lexsort((ties, hashes))
    ordered, place = hashes[order], np.arange(len(hashes))
    first = np.ones(len(hashes), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    number = (place - np.maximum.accumulate(np.where(first, place, 0))).astype(np.uint64)
    found = np.empty_like(hashes)
    found[order] = np.where(first, ordered, scrambled(ordered ^ scrambled(number)))
    return found


def by_content(
    hashes: Words, ties: Words | None, shares: tuple[int, int], *, owner: str
) -> tuple[NDArray[np.int64], tuple[int, int, int]]:
    """The order that sorts rows into train, validation and test, and the sizes of the splits.

    A row is in the test split if its hash is below that share of 2⁶⁴, in validation if it is below the next share, else
    in training, independent of other rows. Within a split, rows are sorted by hash. Only if a split would be empty, the
    distinct rows with the lowest hashes are assigned: one to test, the next to validation.

    Args:
        hashes: hashes of all rows ``(N,)``.
        ties: keys that order rows with equal hashes, ``(N,)``; None if such rows are identical.
        shares: percentages of validation and test; with a share of 0, the split is empty.
        owner: name for the error.

    Raises:
        InputError: too few distinct rows.
    """
    n = len(hashes)
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    new = np.ones(n, np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    starts = np.append(np.flatnonzero(new), n)
    different = len(starts) - 1
    parts = 1 + sum(share > 0 for share in shares)
    if different < parts:
        alike = "" if different == n else f", {different} of them distinct"
        raise InputError(f"{owner} has {n} example{'s' * (n != 1)}{alike}; at least {parts} are needed to split it")
    if ties is not None and different < n:
        order = np.lexsort((ties, hashes))
    validation, test = shares
    first = ordered[starts[:-1]]
    below = [int(np.searchsorted(first, np.uint64(share * 2**64 // 100))) for share in (test, test + validation)]
    for_test = min(max(below[0], 1), different - parts + 1) if test else 0
    aside = min(max(below[1], for_test + 1), different - 1) if validation else for_test
    a, b = int(starts[for_test]), int(starts[aside])
    return np.concatenate([order[b:], order[a:b], order[:a]]), (n - b, b - a, a)


def _factors(count: int) -> Words:
    numbers = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(_SEED)
    return scrambled(numbers) | np.uint64(1)
