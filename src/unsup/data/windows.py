"""Windows of equal length from texts and recordings of any length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unsup.core.errors import InputError
from unsup.data.examples import listing

Values = NDArray[Any]


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


def windows_of_all(
    pieces: Sequence[tuple[str, Values]], length: int, origin: str, noun: str, unit: str, rate: float | None = None
) -> tuple[Values, tuple[str, ...], NDArray[np.int64], list[str]]:
    """The windows of several files one after the other.

    Args:
        pieces: name and values ``(T, ...)`` of each file.
        origin: the folder, for errors.
        noun: one file, e.g. ``"recording"``.
        unit: the values in the plural, e.g. ``"samples"``.
        rate: values per second; windows are then named by the time of their start.

    Returns:
        The windows, their names, the number of the file of each, and notes.

    Raises:
        InputError: all files have less than one window.
    """
    if length < 1:
        raise InputError(f"length={length}; expected at least 1")
    long = [i for i, (_, values) in enumerate(pieces) if len(values) >= length]
    if not long:
        raise InputError(f"every {noun} in {origin} is shorter than length={length} {unit}; use a smaller length")
    cut = [windows(pieces[i][1], length, pieces[i][0], unit) for i in long]
    one = unit.removesuffix("s")
    names = tuple(
        f"{pieces[i][0]} {f'{one} {at}' if rate is None else time_of(at, rate, length)}"
        for i, (found, _) in zip(long, cut, strict=True)
        for at in range(0, length * len(found), length)
    )
    owner = np.repeat(np.array(long), [len(found) for found, _ in cut])
    short = [name for name, values in pieces if len(values) < length]
    plural = f"{len(short)} {noun}{'s' * (len(short) != 1)}"
    notes = [f"ignored {plural} shorter than {length} {unit}: {listing(short)}"] if short else []
    left = sum(left for _, left in cut)
    notes += [f"dropped {left:,} {unit} that do not fill a window"] if left else []
    return np.concatenate([found for found, _ in cut]), names, owner, notes
