"""Numbers of a column as integers, exactly, and the digits by which an integer is coded.

A column becomes whole multiples of the coarsest unit that represents all of its numbers bit for bit: a power of ten,
or a second for dates, which are in days. Other floating-point numbers become the integers that have the same order as
the numbers, so that neighbouring floats are neighbouring integers. If all integers of a column have a common distance,
such as five minutes, they are counted in it. An integer is coded digit by digit from the top. Each digit divides an
interval of the line, and the model gives the masses of its parts, so that numbers of any size take a few digits of at
most 32 values each.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from unsup.coding.entropy import StreamError
from unsup.coding.tables import Floats, Integers
from unsup.core.model import Intervals

Values: TypeAlias = NDArray[Any]
"""Raw values of a column, float32 or float64."""
Offsets: TypeAlias = NDArray[np.uint64]
"""Integers of a column, counted from the lowest one: a column of float64 may need all 64 bits."""
Bools: TypeAlias = NDArray[np.bool_]

_UNITS = (*((10**p, 1) for p in (3, 2, 1)), *((1, 10**p) for p in range(10)), (1, 86_400))
"""Numerators and denominators; seconds of dates, which are in days, come last."""
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_LARGEST = 2**40  # units: their products with numerators are exact in float64
_DIGIT = 5  # bits of a digit, at most: more digits are slower, and so are longer ones
_BACKGROUND = -24 * math.log(2)


class Scale(ABC):
    """A map between floats and integers that keeps the order."""

    @property
    @abstractmethod
    def number(self) -> int:
        """It names the scale in a stream."""

    @property
    @abstractmethod
    def ends(self) -> tuple[int, int]:
        """The lowest and the highest integer."""

    @abstractmethod
    def integers(self, values: Values) -> Integers:
        """The nearest integers, anything for values that have none."""

    @abstractmethod
    def values(self, integers: Integers, dtype: np.dtype[Any]) -> Values:
        """The floats of integers."""

    @abstractmethod
    def edges(self, integers: Integers, step: int) -> Floats:
        """The lower end of the cell of each integer on the line, if integers are ``step`` apart."""

    def fit(self, values: Values) -> tuple[Integers, Bools]:
        """`integers`, and which values they represent bit for bit."""
        found = self.integers(values)
        return found, same_bits(self.values(found, values.dtype), values)


@final
@dataclass(frozen=True)
class Multiples(Scale):
    """Multiples of a / b.

    >>> Multiples(1, 10).fit(np.array([0.5, 0.25, -0.0, np.inf]))[1]
    array([ True, False, False, False])
    """

    a: int
    b: int

    @property
    def number(self) -> int:
        return _UNITS.index((self.a, self.b))

    @property
    def ends(self) -> tuple[int, int]:
        return -_LARGEST, _LARGEST

    def integers(self, values: Values) -> Integers:
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.rint(values.astype(np.float64) * self.b / self.a)
        return np.where(np.abs(scaled) <= _LARGEST, scaled, 0).astype(np.int64)

    def values(self, integers: Integers, dtype: np.dtype[Any]) -> Values:
        return self._scaled(integers.astype(np.float64)).astype(dtype)

    def edges(self, integers: Integers, step: int) -> Floats:
        return self._scaled(integers.astype(np.float64) - step / 2)

    def _scaled(self, units: Floats) -> Floats:
        # a or b is 1, so that this is one operation on exact numbers: IEEE 754 defines every bit of the result.
        return units * self.a / self.b


@final
@dataclass(frozen=True)
class Bits(Scale):
    """All floats of a type. −0.0 comes before 0.0.

    >>> Bits(np.dtype(np.float32)).integers(np.array([-1e-45, -0.0, 0.0, 1e-45], np.float32))
    array([-2, -1,  0,  1])
    """

    dtype: np.dtype[Any]

    @property
    def number(self) -> int:
        return len(_UNITS) + _FLOATS.index(self.dtype)

    @property
    def ends(self) -> tuple[int, int]:
        largest = np.finfo(self.dtype).max
        low, high = self.integers(np.array([-largest, largest], self.dtype)).tolist()
        return low, high

    def integers(self, values: Values) -> Integers:
        with np.errstate(over="ignore", invalid="ignore"):
            own = values.astype(self.dtype)
        return self._flipped(np.where(np.isfinite(own), own, self.dtype.type(0)).view(self._signed)).astype(np.int64)

    def values(self, integers: Integers, dtype: np.dtype[Any]) -> Values:
        return np.asarray(self._flipped(integers.astype(self._signed)).view(self.dtype).astype(dtype))

    def edges(self, integers: Integers, step: int) -> Floats:
        return self.values(integers, np.dtype(np.float64))

    @property
    def _signed(self) -> np.dtype[Any]:
        return np.dtype(f"i{self.dtype.itemsize}")

    def _flipped(self, bits: NDArray[Any]) -> NDArray[Any]:
        """The order of negative floats reversed; its own inverse."""
        return np.where(bits < 0, bits ^ np.iinfo(self._signed).max, bits)


_SCALES: tuple[Scale, ...] = (*(Multiples(a, b) for a, b in _UNITS), *(Bits(dtype) for dtype in _FLOATS))
"""By their numbers in a stream."""
WHOLE = Multiples(1, 1)
_LEAST = float(np.finfo(np.float64).tiny)


def scale_for(values: Values, outside: float = math.inf) -> tuple[Scale, Bools]:
    """The scale on which a column is expected to be shortest, and which of its values it represents.

    A value costs log2 of the range of all values over the width of its cell, as if they were uniform.

    Args:
        outside: bits of a value that it does not represent; infinite: it represents all values.
    """
    best, found = math.inf, None
    for scale in _SCALES:
        integers, fits = scale.fit(values)
        count = int(fits.sum())
        missed = len(values) - count
        cost = missed * outside if missed else 0.0
        if count and cost < best:
            cost += _cost(scale, integers[fits])
        if cost < best or found is None:
            best, found = cost, (scale, fits)
    assert found is not None
    return found


def _cost(scale: Scale, integers: Integers) -> float:
    """Bits of these values of a scale, as if they were uniform between the lowest and the highest one."""
    _, step, count = _counted(integers)
    if not isinstance(scale, Bits):
        return len(integers) * math.log2(count)
    values = scale.values(integers, np.dtype(np.float64))
    with np.errstate(over="ignore"):
        width = np.maximum(np.spacing(np.abs(values).astype(scale.dtype)).astype(np.float64) * step, _LEAST)
        whole = max(float(values.max() - values.min()), _LEAST)
        return float(np.log2(np.maximum(whole / width, 1.0)).sum())


def _counted(integers: Integers) -> tuple[int, int, int]:
    """The lowest one, their common distance, and the number of integers to the highest one at this distance."""
    low = int(integers.min())
    distances = integers.astype(np.uint64) - _unsigned(low)
    step = max(1, int(np.gcd.reduce(distances)))
    return low, step, int(distances.max()) // step + 1


@final
@dataclass(frozen=True)
class Line:
    """The integers ``low``, ``low + step``, … of a scale, ``count`` of them."""

    scale: Scale
    low: int
    step: int
    count: int

    @classmethod
    def of(cls, values: Values) -> Line:
        """The shortest line for all values, which are finite."""
        if not len(values):
            return cls(WHOLE, 0, 1, 1)
        scale, _ = scale_for(values)
        return cls(scale, *_counted(scale.integers(values)))

    def offsets(self, values: Values) -> Offsets:
        """Numbers of values from the lowest one."""
        return (self.scale.integers(values).astype(np.uint64) - _unsigned(self.low)) // np.uint64(self.step)

    def values(self, offsets: Offsets, dtype: np.dtype[Any]) -> Values:
        """The inverse of `offsets`."""
        return self.scale.values(self._integers(offsets), dtype)

    def edges(self, offsets: Offsets) -> Floats:
        """The lower end of the cell of each number on the line."""
        return self.scale.edges(self._integers(offsets), self.step)

    def _integers(self, offsets: Offsets) -> Integers:
        return (offsets * np.uint64(self.step) + _unsigned(self.low)).astype(np.int64)

    @property
    def shifts(self) -> list[tuple[int, int]]:
        """For each digit from the top: the number of bits below it, and its number of values."""
        bits = (self.count - 1).bit_length()
        each = -(-bits // max(1, -(-bits // _DIGIT)))
        found, above = [], self.count
        for shift in reversed(range(0, bits, max(each, 1))):
            found.append((shift, -(-above >> shift)))
            above = 1 << shift
        return found

    def log_masses(self, intervals: Intervals, start: Offsets, shift: int, size: int) -> Floats:
        """log P of the values of a digit, of which 0 begins at ``start``: ``(n, size)``.

        A share of 2^−24 is spread evenly over all integers. It limits what the values cost that a model holds for
        impossible, and no rounding error of their log-probabilities, which are large numbers, reaches the coder.
        """
        last = np.iinfo(np.uint64).max
        room = np.uint64(self.count) - start
        ends = np.array([min(j << shift, int(last)) for j in range(size + 1)], np.uint64)
        cut = np.minimum(ends[None], room[:, None])  # (n, size + 1)
        places = start[:, None] + cut
        edges = self.edges(np.minimum(places, np.uint64(self.count - 1)))
        edges = np.where(places == 0, -np.inf, np.where(places >= np.uint64(self.count), np.inf, edges))
        with np.errstate(divide="ignore"):
            even = np.log(np.diff(cut.astype(np.float64), axis=1)) - math.log(self.count)
        masses = intervals.log_masses(torch.from_numpy(edges)).double().numpy()
        mixed: Floats = np.logaddexp(masses, _BACKGROUND + even)
        return np.where(even == -np.inf, -np.inf, mixed)

    def choose(self, intervals: Intervals, n: int, choose: Callable[[Offsets, int, Floats], Integers]) -> Offsets:
        """Choose one integer for each of ``n`` examples, digit by digit.

        Args:
            choose: called with where the digit 0 begins, the number of bits below the digit, and log P of its values.

        Raises:
            StreamError: an integer beyond the last one was chosen.
        """
        start = np.zeros(n, np.uint64)
        for shift, size in self.shifts:
            digit = choose(start, shift, self.log_masses(intervals, start, shift, size))
            start = start + (digit.astype(np.uint64) << np.uint64(shift))
            if (start >= np.uint64(self.count)).any():
                raise StreamError("a number beyond the largest one of its column; the stream is damaged")
        return start

    def to_bytes(self) -> bytes:
        zigzag = 2 * self.low if self.low >= 0 else -2 * self.low - 1
        return bytes([self.scale.number]) + b"".join(map(whole_number, (zigzag, self.step - 1, self.count - 1)))

    @classmethod
    def split(cls, data: bytes) -> tuple[Line, bytes]:
        """The line at the start of a stream, and the rest.

        Raises:
            StreamError: there is none.
        """
        if not data or data[0] >= len(_SCALES):
            raise StreamError("a column has no known scale; the stream is damaged")
        scale = _SCALES[data[0]]
        zigzag, rest = split_whole_number(data[1:])
        step, rest = split_whole_number(rest)
        count, rest = split_whole_number(rest)
        low = zigzag // 2 if zigzag % 2 == 0 else -(zigzag + 1) // 2
        first, last = scale.ends
        if low < first or low + (step + 1) * count > last or step > last - first:
            raise StreamError("the numbers of a column are out of range; the stream is damaged")
        return cls(scale, low, step + 1, count + 1), rest


def whole_number(value: int) -> bytes:
    """A whole number from 0 in as few bytes as it needs, seven bits each.

    >>> split_whole_number(whole_number(300) + b"more")
    (300, b'more')
    """
    found = bytearray()
    while value >= 128:
        found.append(value % 128 + 128)
        value //= 128
    return bytes(found) + bytes([value])


def split_whole_number(data: bytes) -> tuple[int, bytes]:
    """The whole number, below 2^70, at the start of a stream, and the rest.

    Raises:
        StreamError: there is none.
    """
    value = 0
    for at, byte in enumerate(data[:10]):
        value += (byte & 127) << (7 * at)
        if byte < 128:
            return value, data[at + 1 :]
    raise StreamError("a number without an end; the stream is damaged")


def same_bits(one: Values, other: Values) -> Bools:
    """Which entries of two arrays of one type have the same bits."""
    kind = np.dtype(f"i{one.dtype.itemsize}")
    return np.asarray(one.view(kind) == other.view(kind))


def _unsigned(value: int) -> np.uint64:
    return np.uint64(value % 2**64)
