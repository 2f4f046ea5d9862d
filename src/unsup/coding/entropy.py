"""Entropy coders on integer frequencies: a queue (range coding) and a stack (asymmetric numeral systems).

A symbol of frequency f, with the sum of all frequencies 2^24, costs 24 − log2 f bits. The frequencies come from
`unsup.coding.tables`; both coders are those of the library `constriction`.

Its fast categorical model takes floating-point masses m and gives symbol i the interval that starts at

    ⌊(m_0 + … + m_{i−1}) · (2^24 − K) / Σ m⌋ + i.

With m = f − 1 the sum is 2^24 − K, the factor is exactly 1, all partial sums are integers below 2^53, and the interval
is exactly [f_0 + … + f_{i−1}, f_0 + … + f_i). So no rounding happens in the library, in any order of summation.

One call codes many symbols, each with its own frequencies: a decoder of an autoregressive model calls once for each
site, with one row for each item of the chunk. All items share one coder. A coder for each item would not be faster,
since the network is evaluated for all items at once in either case, and would add the end of a stream to each item.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from constriction import stream
from numpy.typing import NDArray

from unsup.coding.errors import CodingError
from unsup.coding.tables import TOTAL, Integers
from unsup.core.errors import InputError

Symbols: TypeAlias = NDArray[np.int32]

_ROWS = stream.model.Categorical(perfect=False)
_UNIFORM = stream.model.Uniform()
_BLOCK = 1 << 15  # entries converted to masses at a time
_DIGIT = 20  # bits that are pushed as one symbol
_FLOOR = 1 << 32  # the state of a stack is at least this as long as it holds what was pushed


class StreamError(CodingError):
    """The coded bytes do not belong to the frequencies with which they were decoded."""


class OutOfBits(StreamError):
    """More was popped from a stack than it holds."""


class QueueEncoder:
    """Range coder, first in first out (Martin 1979).

    Length: at most 64 bits and about 2e-4 bit a symbol above −Σ log2 p.

    >>> import numpy as np
    >>> table = np.array([[2**23, 2**22, 2**22]] * 2)
    >>> encoder = QueueEncoder()
    >>> encoder.encode(np.array([0, 2]), table)
    >>> decoder = QueueDecoder(encoder.to_bytes())
    >>> decoder.decode(table)
    array([0, 2], dtype=int32)
    >>> decoder.finish()
    """

    def __init__(self) -> None:
        self._coder = stream.queue.RangeEncoder()

    def encode(self, symbols: NDArray[np.integer], frequencies: Integers) -> None:
        """Append ``symbols`` ``(N,)`` under ``frequencies`` ``(N, K)``, or ``(K,)`` for all; nothing on an error."""
        chosen = _checked_symbols(symbols, frequencies)
        _check(frequencies)
        if frequencies.shape[-1] == 1:
            return
        if frequencies.ndim == 1:
            self._coder.encode(chosen, _shared(frequencies))
            return
        for rows, masses in _masses(frequencies):
            self._coder.encode(chosen[rows], _ROWS, masses)

    @property
    def bits(self) -> int:
        """The length of `to_bytes` in bits."""
        return int(self._coder.num_bits())

    def to_bytes(self) -> bytes:
        """All that was encoded, in whole words of 32 bits, the most significant byte first.

        An end in bytes would be 2 shorter on average, but `QueueDecoder.finish` could not notice wrong data.
        """
        return bytes(self._coder.get_compressed().astype(">u4").tobytes())


class QueueDecoder:
    """Decoder of what `QueueEncoder` made, in batches of any size.

    A damaged or cut stream decodes to wrong symbols without an error; call `finish` at the end, and compare checksums.

    Raises:
        StreamError: the length is not a multiple of 4 bytes.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) % 4:
            raise StreamError(f"a stream of {len(data)} bytes; expected a multiple of 4: it was cut or damaged")
        self._coder = stream.queue.RangeDecoder(np.frombuffer(data, ">u4").astype(np.uint32))

    def decode(self, frequencies: Integers, count: int | None = None) -> Symbols:
        """The next symbols, one for each row of ``frequencies`` ``(N, K)``, or ``count`` of them under ``(K,)``.

        Raises:
            StreamError: the bytes cannot have been made with these frequencies.
        """
        count = _count(frequencies, count)
        _check(frequencies)
        if frequencies.shape[-1] == 1:
            return np.zeros(count, np.int32)
        try:
            if frequencies.ndim == 1:
                return self._coder.decode(_shared(frequencies), count)
            parts = [self._coder.decode(_ROWS, masses) for _, masses in _masses(frequencies)]
        except (AssertionError, ValueError) as error:
            raise StreamError("the stream is damaged, or was made with other frequencies") from error
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def finish(self) -> None:
        """Check that the stream ends here. About 9 of 10 damaged streams are noticed; a checksum must find the others.

        Raises:
            StreamError: there is more data, or the last word is not the one with which the encoder ends.
        """
        if not self._coder.maybe_exhausted():
            raise StreamError("the stream does not end after the last symbol; it is damaged, or has other frequencies")


class Stack:
    """Asymmetric numeral systems, last in first out (Duda 2013, https://arxiv.org/abs/1311.2540), for bits-back coding.

    `push` and `pop` are inverse to each other, in either order. A stack starts with ``initial`` bytes, which can be
    popped like pushed data; the caller accounts for them. Below them lie 33 bits that can never be popped, the cost of
    a stream. Length in bits: 33, the initial bits and −Σ log2 p of what was pushed and not popped, rounded up to bytes.

    >>> import numpy as np
    >>> table = np.array([[2**23, 2**22, 2**22]] * 2)
    >>> stack = Stack(initial=bytes(8))
    >>> stack.push(np.array([0, 2]), table)
    >>> stack.bits - stack.initial_bits
    3
    >>> stack.pop(table)
    array([0, 2], dtype=int32)
    >>> stack.finish()
    """

    def __init__(self, initial: bytes = b"") -> None:
        self._initial = initial
        self._coder = _ans(bytes(4) + initial + b"\x01")

    @classmethod
    def from_bytes(cls, data: bytes, initial: bytes = b"") -> Stack:
        """The stack whose `to_bytes` is ``data``; ``initial`` is what `finish` expects to find below everything.

        Raises:
            StreamError: no stack has these bytes.
        """
        if len(data) < 5 or data[-1] == 0:
            raise StreamError(f"no stack has these {len(data)} bytes; expected 5 or more with the last not 0")
        stack = cls(initial)
        stack._coder = _ans(data)
        return stack

    def push(self, symbols: NDArray[np.integer], frequencies: Integers) -> None:
        """Put ``symbols`` ``(N,)`` on the stack, the last first, so that `pop` returns them in this order.

        ``frequencies`` are ``(N, K)``, or ``(K,)`` for all. On an error nothing is pushed.
        """
        chosen = _checked_symbols(symbols, frequencies)
        _check(frequencies)
        self._push(chosen, frequencies)

    def pop(self, frequencies: Integers, count: int | None = None) -> Symbols:
        """Take one symbol for each row of ``frequencies`` ``(N, K)``, or ``count`` symbols under ``(K,)``.

        Raises:
            OutOfBits: the stack holds less than that. It is left as it was.
        """
        count = _count(frequencies, count)
        _check(frequencies)
        if frequencies.shape[-1] == 1:
            return np.zeros(count, np.int32)
        if frequencies.ndim == 1:
            popped = self._coder.decode(_shared(frequencies), count)
        else:
            parts = [self._coder.decode(_ROWS, masses) for _, masses in _masses(frequencies)]
            popped = np.concatenate(parts) if parts else np.empty(0, np.int32)
        if self._is_below_floor():
            self._push(popped, frequencies)
            raise self._out_of_bits(count)
        return popped

    def push_uniform(self, symbols: Integers, sizes: Integers) -> None:
        """`push` of symbols from 0 to size − 1, all with the same probability, with a size for each: both ``(N,)``.

        A size is 1 to 2^20. Where it is not a power of two, the last symbol has a slightly larger probability; with
        sizes up to 2^12 this costs at most 1e-4 bit a symbol.
        """
        if symbols.shape != sizes.shape or not ((symbols >= 0) & (symbols < sizes)).all():
            raise InputError(f"{symbols.size} symbols with {sizes.size} sizes; expected as many, symbols below sizes")
        self._push_uniform(symbols, sizes)

    def pop_uniform(self, sizes: Integers) -> Integers:
        """The symbols that `push_uniform` has pushed with the same sizes ``(N,)``.

        Raises:
            OutOfBits: the stack holds less than that. It is left as it was.
        """
        symbols = np.zeros(sizes.shape, np.int64)
        some = sizes > 1  # the coder knows no alphabets of one symbol
        symbols[some] = self._coder.decode(_UNIFORM, _sizes(sizes)[some])
        if self._is_below_floor():
            self._push_uniform(symbols, sizes)
            raise self._out_of_bits(sizes.size)
        return symbols

    def push_bits(self, values: Integers, bits: Integers) -> None:
        """Push the lowest bits of each value, a number of bits for each: both ``(N,)``."""
        for start in range(0, int(bits.max(initial=0)), _DIGIT):
            size = 1 << np.clip(bits - start, 0, _DIGIT)
            self._push_uniform((values >> start) & (size - 1), size)

    def pop_bits(self, bits: Integers) -> Integers:
        """The lowest bits of the values that `push_bits` has pushed with the same numbers of bits ``(N,)``.

        Raises:
            OutOfBits: the stack holds less than that. It is left as it was.
        """
        values, digits = np.zeros(bits.shape, np.int64), list[tuple[Integers, Integers]]()
        for start in reversed(range(0, int(bits.max(initial=0)), _DIGIT)):
            size = 1 << np.clip(bits - start, 0, _DIGIT)
            try:
                digit = self.pop_uniform(size)
            except OutOfBits:
                for popped in reversed(digits):
                    self._push_uniform(*popped)
                raise
            digits.append((digit, size))
            values |= digit << start
        return values

    def copy(self) -> Stack:
        """A stack that is changed independently."""
        other = Stack(self._initial)
        other._coder = self._coder.clone()
        return other

    @property
    def bits(self) -> int:
        """The current length in bits, the initial bits included; `to_bytes` rounds it up to bytes."""
        words, state = self._coder.pos()
        return 32 * int(words) + int(state).bit_length()

    @property
    def initial_bits(self) -> int:
        """`bits` of the stack before anything was pushed or popped."""
        return 33 + 8 * len(self._initial)

    def to_bytes(self) -> bytes:
        """The whole stack; the last byte is the top and is not 0."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes().rstrip(b"\x00"))

    def finish(self) -> None:
        """Check that exactly the initial bytes are left.

        Raises:
            StreamError: something else is left: the data are damaged, or were decoded with other frequencies.
        """
        if self.to_bytes() != bytes(4) + self._initial + b"\x01":
            raise StreamError("the stack does not end with its initial bits; it is damaged, or has other frequencies")

    def _is_below_floor(self) -> bool:
        """Whether more was popped than was there: the coder would continue with symbols that cost nothing.

        The state never grows there, hence one look at the end is enough; and a push is the exact inverse even there.
        """
        return bool(self._coder.pos()[1] < _FLOOR)

    def _out_of_bits(self, count: int) -> OutOfBits:
        return OutOfBits(f"{count} symbols popped from a stack of {self.bits} bits; expected more initial bits")

    def _push_uniform(self, symbols: Integers, sizes: Integers) -> None:
        some = sizes > 1
        self._coder.encode_reverse(symbols[some].astype(np.int32), _UNIFORM, _sizes(sizes)[some])

    def _push(self, symbols: Symbols, frequencies: Integers) -> None:
        if frequencies.shape[-1] == 1:
            return
        if frequencies.ndim == 1:
            self._coder.encode_reverse(symbols, _shared(frequencies))
            return
        for rows, masses in _masses(frequencies, reverse=True):
            self._coder.encode_reverse(symbols[rows], _ROWS, masses)


def _sizes(sizes: Integers) -> Symbols:
    """Sizes of alphabets as the coder takes them; it would end the process on others."""
    if sizes.size and not 1 <= int(sizes.min()) <= int(sizes.max()) <= 1 << _DIGIT:
        raise InputError(f"alphabets of {sizes.min()} to {sizes.max()} symbols; expected 1 to {1 << _DIGIT}")
    return sizes.astype(np.int32)


def _ans(data: bytes) -> Any:
    padded = data + bytes(-len(data) % 4)
    return stream.stack.AnsCoder(np.frombuffer(padded, "<u4").astype(np.uint32))


def _count(frequencies: Integers, count: int | None) -> int:
    if frequencies.ndim == 2 and (count is None or count == len(frequencies)):
        return len(frequencies)
    if frequencies.ndim == 1 and count is not None and count >= 0:
        return count
    raise InputError(
        f"frequencies of shape {frequencies.shape} with count {count}; expected (N, K) alone, or (K,) and a count"
    )


def _checked_symbols(symbols: NDArray[np.integer], frequencies: Integers) -> Symbols:
    """``symbols`` as the coder takes them; otherwise an error before anything is coded."""
    if symbols.ndim != 1 or not np.issubdtype(symbols.dtype, np.integer):
        raise InputError(f"symbols have shape {symbols.shape}, {symbols.dtype}; expected integers of (N,)")
    if frequencies.ndim not in (1, 2) or (frequencies.ndim == 2 and len(frequencies) != len(symbols)):
        raise InputError(
            f"{len(symbols)} symbols with frequencies of {frequencies.shape}; expected ({len(symbols)}, K) or (K,)"
        )
    if symbols.size and not 0 <= int(symbols.min()) <= int(symbols.max()) < frequencies.shape[-1]:
        raise InputError(f"symbols from {symbols.min()} to {symbols.max()}; expected 0 to {frequencies.shape[-1] - 1}")
    return np.ascontiguousarray(symbols, np.int32)


def _check(frequencies: Integers) -> None:
    """Refuse what is not a table, before anything is coded: the library would silently code with another one."""
    if frequencies.dtype != np.int64 or frequencies.shape[-1] == 0:
        raise InputError(f"frequencies are {frequencies.dtype} of {frequencies.shape}; expected int64, K at least 1")
    if frequencies.size and not (frequencies.min() >= 1 and (frequencies.sum(axis=-1) == TOTAL).all()):
        raise InputError(f"frequencies below 1 or with another sum than {TOTAL}; expected those of unsup.coding.tables")


def _masses(frequencies: Integers, reverse: bool = False) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """f − 1 by blocks of rows, so that a large table is not held twice."""
    rows = max(1, _BLOCK // frequencies.shape[1])
    starts = range(0, len(frequencies), rows)
    for start in reversed(starts) if reverse else starts:
        block = slice(start, min(start + rows, len(frequencies)))
        yield block, np.subtract(frequencies[block], 1, dtype=np.float64, order="C")


def _shared(frequencies: Integers) -> Any:
    return stream.model.Categorical(np.subtract(frequencies, 1, dtype=np.float64), perfect=False)
