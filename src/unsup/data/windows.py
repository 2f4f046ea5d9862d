"""Windows of equal length from texts and recordings of any length."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unsup.core.errors import InputError
from unsup.data.examples import listing

Values = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of several files one after the other.

    Attributes:
        x: the windows ``(N, length, ...)``; beyond their lengths they are 0.
        lengths: the length of each, ``(N,)``; None if all are full.
        names: of the windows.
        owner: the number of the file of each window.
        notes: what was left out.
    """

    x: Values
    lengths: NDArray[np.int64] | None
    names: tuple[str, ...]
    owner: NDArray[np.int64]
    notes: list[str]


def windows(values: Values, length: int, origin: str, unit: str) -> tuple[Values, int]:
    """Consecutive windows ``(N, length, ...)`` of values ``(T, ...)``, and the number of remaining values.

    Raises:
        InputError: ``values`` have less than one window.
    """
    if length < 1:
        raise InputError(f"length={length}; expected at least 1")
    if len(values) < length:
        raise InputError(
            f"{origin} has {len(values)} {unit}, less than one window of length={length}; use a smaller length"
        )
    n = len(values) // length
    return values[: n * length].reshape(n, length, *values.shape[1:]), len(values) - n * length


def time_of(position: int, rate: float, step: int = 1) -> str:
    """The time of a value in seconds, with digits that distinguish values ``step`` apart.

    >>> time_of(412, 4000, 100), time_of(412, 4000)
    ('0.103 s', '0.1030 s')
    """
    return f"{position / rate:.{max(3, math.ceil(math.log10(rate / step)))}f} s"


def cut(
    pieces: Sequence[tuple[str, Values]],
    length: int,
    origin: str,
    noun: str,
    unit: str,
    *,
    rate: float | None = None,
    tail: bool = False,
) -> Windows:
    """Consecutive windows of several files.

    Args:
        pieces: name and values ``(T, ...)`` of each file; a single file may have an empty name.
        origin: the folder or file, for errors.
        noun: one file, e.g. ``"recording"``.
        unit: the values in the plural, e.g. ``"samples"``.
        rate: values per second; windows are then named by the time of their start.
        tail: whether the last window of a file may be shorter than ``length``. Windows then have lengths, and every
            value is in one of them.

    Raises:
        InputError: there is no window.
    """
    if length < 1:
        raise InputError(f"length={length}; expected at least 1")
    least = 1 if tail else length
    used = [i for i, (_, values) in enumerate(pieces) if len(values) >= least]
    if not used:
        if len(pieces) == 1 and not pieces[0][0]:
            have = f"{origin} has {len(pieces[0][1])} {unit}"
            raise InputError(f"{have}, less than one window of length={length}; use a smaller length")
        raise InputError(f"every {noun} in {origin} is shorter than length={length} {unit}; use a smaller length")
    parts, lengths, names, owner, left = [], [], list[str](), [], 0
    one = unit.removesuffix("s")
    for i in used:
        name, values = pieces[i]
        whole = len(values) // length
        found, rest = values[: whole * length].reshape(whole, length, *values.shape[1:]), values[whole * length :]
        size = np.full(whole, length)
        if tail and len(rest):
            padded = np.zeros((1, length, *values.shape[1:]), values.dtype)
            padded[0, : len(rest)] = rest
            found, size = np.concatenate([found, padded]), np.append(size, len(rest))
        else:
            left += len(rest)
        places = range(0, length * len(found), length)
        names += [f"{name} {f'{one} {at}' if rate is None else time_of(at, rate, length)}".lstrip() for at in places]
        parts.append(found)
        lengths.append(size)
        owner.append(np.full(len(found), i))
    short = [name for name, values in pieces if len(values) < least]
    plural = f"{len(short)} {noun}{'s' * (len(short) != 1)}"
    notes = []
    if short:
        what = f"ignored {plural} shorter than {length} {unit}" if not tail else f"ignored {plural} without {unit}"
        notes.append(f"{what}: {listing(short)}")
    notes += [f"dropped {left:,} {unit} that do not fill a window"] if left else []
    sizes = np.concatenate(lengths)
    all_full = bool((sizes == length).all())
    return Windows(np.concatenate(parts), None if all_full else sizes, tuple(names), np.concatenate(owner), notes)


def windows_of_all(
    pieces: Sequence[tuple[str, Values]], length: int, origin: str, noun: str, unit: str, rate: float | None = None
) -> tuple[Values, tuple[str, ...], NDArray[np.int64], list[str]]:
    """The full windows of several files, their names, the number of the file of each, and notes; see `cut`."""
    found = cut(pieces, length, origin, noun, unit, rate=rate)
    return found.x, found.names, found.owner, found.notes


def file_of(name: str) -> str:
    """The file of a window, by its name; empty for a single file.

    >>> file_of("a.txt byte 64"), file_of("character 128"), file_of("a.wav 0.128 s")
    ('a.txt', '', 'a.wav')
    """
    return re.sub(r"(?:^| )(?:(?:byte|character|word) \d+|\d+\.\d+ s)$", "", name)
