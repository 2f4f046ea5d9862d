"""Rounding that encoder and decoder agree on, although their floating-point numbers differ in the last bits.

The encoder rounds numbers to integers and notes how it rounded the few that are next to a rounding boundary. The
decoder rounds its own numbers, and follows the notes. Both name each rounding by a number, so that they may round in
different orders.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from typing import final

import numpy as np
from numpy.typing import NDArray

from unsup.coding.entropy import StreamError
from unsup.coding.tables import Grid, Integers, settle

_COUNT, _NOTE = struct.Struct("<I"), struct.Struct("<IIB")
_NOTES = np.dtype([("call", "<u4"), ("at", "<u4"), ("remainder", "u1")])


class Rounding(ABC):
    """Numbers that are rounded in the same way by encoder and decoder."""

    @abstractmethod
    def settle(self, call: int, grid: Grid) -> Integers:
        """The integers of the encoder, of any shape. ``call`` names this rounding, the same in both."""


@final
class Noting(Rounding):
    """The encoder's side.

    >>> import numpy as np
    >>> noting = Noting()
    >>> noting.settle(0, Grid(np.array([[7, 8]]), np.array([1])))
    array([[7, 8]])
    >>> noted, rest = Noted.split(noting.to_bytes() + b"more")
    >>> noted.settle(0, Grid(np.array([[7, 9]]), np.array([1]))), rest
    (array([[7, 8]]), b'more')
    """

    def __init__(self) -> None:
        self._notes = bytearray()

    def settle(self, call: int, grid: Grid) -> Integers:
        for at in grid.near.tolist():
            self._notes.extend(_NOTE.pack(call, at, int(grid.steps.flat[at]) % 4))
        return grid.steps

    def forget(self, size: int) -> None:
        """Drop the notes made after `size` had this value."""
        del self._notes[size:]

    @property
    def size(self) -> int:
        """Bytes of notes so far."""
        return len(self._notes)

    def to_bytes(self) -> bytes:
        """The notes, which start with their number."""
        return _COUNT.pack(len(self._notes) // _NOTE.size) + bytes(self._notes)


@final
class Noted(Rounding):
    """The decoder's side: see `split`."""

    def __init__(self, notes: NDArray[np.void]) -> None:
        order = np.argsort(notes["call"], kind="stable")
        self._calls, self._notes = notes["call"][order], notes[order]

    @classmethod
    def split(cls, coded: bytes) -> tuple[Noted, bytes]:
        """The notes at the start of a stream, and the rest of the stream.

        Raises:
            StreamError: the stream was cut or damaged.
        """
        if len(coded) < _COUNT.size:
            raise StreamError(f"a stream of {len(coded)} bytes; expected {_COUNT.size} or more: it was cut or damaged")
        count = _COUNT.unpack_from(coded)[0]
        start = _COUNT.size + count * _NOTE.size
        if start > len(coded):
            raise StreamError(f"a stream of {len(coded)} bytes with {count} notes of rounding; it was cut or damaged")
        notes = np.frombuffer(coded, _NOTES, count, _COUNT.size)
        if count and notes["remainder"].max() > 3:
            raise StreamError(f"a note of rounding has a remainder of {notes['remainder'].max()}; expected 0 to 3")
        return cls(notes), coded[start:]

    def settle(self, call: int, grid: Grid) -> Integers:
        """Raises StreamError if a note names no entry."""
        first, last = np.searchsorted(self._calls, np.array([call, call + 1], np.int64))
        if first == last:
            return grid.steps
        notes = self._notes[first:last]
        at = notes["at"].astype(np.int64)
        if at.max() >= grid.steps.size:
            raise StreamError("a note of rounding refers to no entry; the stream is damaged")
        return settle(grid.steps, at, notes["remainder"].astype(np.int64))
