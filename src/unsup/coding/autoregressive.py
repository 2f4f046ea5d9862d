"""Range coding of examples entry by entry: log p(x) = Σ log p(x_i | x_<i).

Examples are visited in groups, site by site, with one coder for all groups. Encoder and decoder make the same visit, so
that they compute the same masses; these are rounded to a grid, and the encoder notes how it rounded the few that are
next to a boundary, because another machine may round them in the other way.

A discrete entry is one symbol, or two where it has very many levels. A real entry is an integer (`unsup.coding.reals`),
coded digit by digit. Which entries are missing is coded first, column by column, by how often entries of a column are
missing with and without a gap in the column before.

Of examples with an open axis, entries beyond the length are not coded. A model whose examples end codes the end as one
more level; for others the lengths are coded first, as if any were equally likely.

A mixture over orders has no conditionals of its own. Each example is coded in the order under which it is shortest, and
the number of this order first, as if any were equally likely: at most log2 M bits more than under the mixture. If it is
shorter to code all in one order, this order is named once. Examples of one order are visited together.

Where a model splits entries, such as numbers into digits, all of this holds for their parts.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.coding.entropy import QueueDecoder, QueueEncoder, StreamError
from unsup.coding.notes import Noted, Noting, Rounding
from unsup.coding.reals import WHOLE, Bools, Line, Offsets, same_bits, scale_for, split_whole_number, whole_number
from unsup.coding.scheme import Profile, Scheme
from unsup.coding.tables import MAX_SYMBOLS, NEAR, TOTAL, Floats, Grid, Integers, frequencies, to_grid
from unsup.core.batch import Batch
from unsup.core.event import Support
from unsup.core.model import (
    CodesEntries,
    CodesInOrders,
    CodesSplitEntries,
    Conditional,
    Intervals,
    IsConditional,
    Model,
    has_ends,
)
from unsup.core.steps import part_of

_GROUP = struct.Struct("<I")
_MOST_ENTRIES = 2**19  # entries of the examples of a group: bounds the memory of the visit
_MOST_MASSES = 2**24  # log-probabilities of one entry of a group
_MOST = 1024  # examples of a group
_SMALLER = 64  # groups of other versions may be smaller by this factor
_MOST_WITH_GAPS = 256  # each may need matrices of its own
NEAR_REAL = 10 * NEAR  # masses of narrow intervals are less precise than those of levels
_CLASSES = 2**32 - 1  # names the rounding of p(y)
_BLOCK_BITS = 16  # of the lower digit of a level of more than MAX_SYMBOLS


@dataclass(frozen=True)
class Digit:
    """A part of an entry that is coded at once.

    Attributes:
        entry: its number.
        rows: the examples of the chunk, ``(n,)``.
        start: the integers of the entries if the digit is 0, ``(n,)``.
        shift: number of bits below the digit.
        grid: log p of every value of the digit, ``(n, K)``, rounded.
    """

    entry: int
    rows: Integers
    start: Offsets
    shift: int
    grid: Grid


class Entries(Scheme):
    """Abstract: range coding with the conditionals of a model that `CodesEntries`.

    Attributes:
        entries: the event of the examples that are visited.
        orders: number of orders in which an example may be coded.
    """

    def __init__(self, model: Model, profile: Profile = "portable", *, orders: int = 1) -> None:
        super().__init__(model, profile)
        self.entries = self.model.split_event if isinstance(self.model, CodesSplitEntries) else self.event
        self.orders = orders

    @classmethod
    def reason_against(cls, model: Model) -> str | None:
        if not isinstance(model, CodesEntries):
            return "does not factorise into conditionals of single entries"
        if isinstance(model, IsConditional) and model.given is not None and not model.classes:
            return "has a condition that is not a class"
        return model.reason_against_coding()

    def type_for(self, dtype: torch.dtype) -> torch.dtype:
        """Real entries in their own precision, which may be higher than that of the model."""
        wide = not self.event.is_discrete and dtype in (torch.float32, torch.float64)
        return dtype if wide else self.event.dtype

    def takes(self, x: Tensor) -> Tensor:
        """Not: −0.0 and NaN with other bits than usual, and a few numbers that would make their column longer."""
        flat, columns = _flat(x), self.event.columns
        taken = np.ones(len(flat), np.bool_)
        if flat.dtype.kind != "f":
            return torch.from_numpy(taken)
        for column, support in zip(flat.T, columns, strict=True):
            values, gaps = np.ascontiguousarray(column), np.isnan(column)
            usual = np.where(gaps, np.array(np.nan, values.dtype), values)
            if support.is_discrete:
                usual[~gaps] = values[~gaps].astype(np.int64)
            elif not gaps.all():
                taken[~gaps] &= scale_for(values[~gaps], 8.0 * flat[0].nbytes)[1]
            taken &= same_bits(usual, values)
        return torch.from_numpy(taken)

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> bytes:
        coder, order_of = QueueEncoder(), self._shortest_orders(x)
        if self.orders > 1:
            shared = self.orders if (order_of != order_of[0]).any() else order_of[0]
            coder.encode(np.array([shared], np.int32), _equal_frequencies(self.orders + 1))
            if shared == self.orders:
                coder.encode(order_of.astype(np.int32), _equal_frequencies(self.orders))
        sequence = torch.from_numpy(order_of.argsort(kind="stable"))
        x, lengths = x[sequence], None if lengths is None else lengths[sequence]
        classes = self._classes(x, lengths)
        if isinstance(self.model, CodesSplitEntries):
            x = self.model.split_entries(x)
        flat, columns = _flat(x), self.entries.columns
        gaps = np.isnan(flat) if self.event.missing else np.zeros(flat.shape, np.bool_)
        beyond = self._beyond(lengths, len(x))
        gaps = gaps | beyond
        lines, offsets = [], np.zeros(flat.shape, np.uint64)
        for entry, support in enumerate(columns):
            there = ~gaps[:, entry]
            values = flat[there, entry]
            line = _levels(support) if support.is_discrete else Line.of(values)
            offsets[there, entry] = _level(values, support) if support.is_discrete else line.offsets(values)
            lines.append(line)
        if self._ends and lengths is not None:
            rows = np.flatnonzero(beyond.any(1))
            places = beyond[rows].argmax(1)
            offsets[rows, places], gaps[rows, places] = columns[0].levels, False
        size = self._size()
        notes, calls = Noting(), 0
        counts = b"\0" if self.event.open else b""
        if self.event.open and not self._ends and lengths is not None:
            counts = b"\1"
            coder.encode(lengths.cpu().numpy().astype(np.int32), _equal_frequencies(1 + self.event.shape[0]))
        if self.event.missing:
            found = count_gaps(gaps)
            counts += b"".join(map(whole_number, found.flatten().tolist()))
            for gap, table in zip(gaps.T, gap_frequencies(found, gaps), strict=True):
                coder.encode(gap.astype(np.int32), table)
        if classes is not None:
            coder.encode(classes.numpy(), self._class_frequencies(notes))

        def choose(digit: Digit) -> Integers:
            nonlocal calls
            steps = notes.settle(calls, digit.grid)
            chosen = (offsets[digit.rows, digit.entry] - digit.start) >> np.uint64(digit.shift)
            coder.encode(chosen.astype(np.int64), frequencies(steps))
            calls += 1
            return chosen.astype(np.int64)

        groups = list(_groups(order_of, size))
        for number, group in enumerate(groups):
            with part_of(number, len(groups)):
                self._visit(lines, gaps, group, choose, classes)
        header = _GROUP.pack(size) + self._columns(x.dtype, lines) + counts
        return header + notes.to_bytes() + coder.to_bytes()

    def decode(self, coded: bytes, n: int) -> Tensor:
        return self.decode_with_lengths(coded, n)[0]

    def decode_with_lengths(self, coded: bytes, n: int) -> tuple[Tensor, Tensor]:
        """The examples, at their lowest level or 0 beyond their lengths, and these lengths, ``(n,)``."""
        if len(coded) < _GROUP.size:
            raise StreamError(f"a stream of {len(coded)} bytes; it was cut")
        (size,) = _GROUP.unpack_from(coded)
        most = self._size()
        # Much smaller groups would take a time, and larger ones a memory, that nothing else bounds.
        if not size or not most // _SMALLER <= size <= most:
            raise StreamError(f"groups of {size} examples; expected up to {most}: the stream is damaged")
        dtype, lines, rest = self._split_columns(coded[_GROUP.size :])
        has_lengths = False
        if self.event.open:
            if rest[:1] not in (b"\0", b"\1") or (self._ends and rest[:1] == b"\1"):
                raise StreamError("lengths of an unknown kind; the stream is damaged")
            has_lengths, rest = rest[:1] == b"\1", rest[1:]
        counts = []
        for _ in range(2 * self.event.dims if self.event.missing else 0):
            count, rest = split_whole_number(rest)
            counts.append(count)
        notes, rest = Noted.split(rest)
        coder, calls = QueueDecoder(rest), 0
        order_of = np.zeros(n, np.int64)
        if self.orders > 1:
            order_of += coder.decode(_equal_frequencies(self.orders + 1), 1)
            if order_of[0] == self.orders:
                order_of = coder.decode(_equal_frequencies(self.orders), n).astype(np.int64)
        lengths = torch.full((n,), self.event.shape[0])
        if has_lengths:
            lengths = torch.from_numpy(coder.decode(_equal_frequencies(1 + self.event.shape[0]), n).astype(np.int64))
        gaps = self._beyond(lengths, n)
        if counts:
            for entry, table in enumerate(gap_frequencies(checked_counts(counts, n), gaps)):
                gaps[:, entry] = coder.decode(table)

        classes = None
        if self._is_conditional:
            classes = torch.from_numpy(coder.decode(self._class_frequencies(notes), n)).long()

        def choose(digit: Digit) -> Integers:
            nonlocal calls
            steps = notes.settle(calls, digit.grid)
            calls += 1
            return coder.decode(frequencies(steps)).astype(np.int64)

        parts, groups = [], list(_groups(order_of, size))
        for number, group in enumerate(groups):
            with part_of(number, len(groups)):
                parts.append(self._visit(lines, gaps, group, choose, classes))
        coder.finish()
        offsets = np.concatenate(parts)
        if self._ends:
            ended = offsets == self.event.columns[0].levels
            found = np.where(ended.any(1), ended.argmax(1), self.event.dims)
            lengths = torch.from_numpy(found)
            offsets = np.where(self._beyond(lengths, n), np.uint64(0), offsets)
        x = self._assembled(offsets, gaps, lines, dtype)
        if isinstance(self.model, CodesSplitEntries):
            x = self.model.join_entries(x)
        places = torch.from_numpy(order_of.argsort(kind="stable").argsort())
        return x[places], lengths[places]

    def canary(self) -> bytes:
        seen = bytearray()

        def choose(digit: Digit) -> Integers:
            seen.extend(digit.grid.steps.tobytes())
            return np.zeros(len(digit.rows), np.int64)

        lines = [_levels(s) if s.is_discrete else Line(WHOLE, -8, 1, 16) for s in self.entries.columns]
        given = torch.zeros(self.orders, dtype=torch.int64) if self._is_conditional else None
        gaps = np.zeros((self.orders, self.entries.dims), np.bool_)
        for group in _groups(np.arange(self.orders), 1):
            self._visit(lines, gaps, group, choose, given)
        return bytes(seen)

    @property
    def _is_conditional(self) -> bool:
        return isinstance(self.model, IsConditional) and self.model.given is not None

    @property
    def _ends(self) -> bool:
        """Whether the end of an example is one more level of its entries."""
        return has_ends(self.model)

    def _beyond(self, lengths: Tensor | None, n: int) -> Bools:
        """Which entries of ``n`` examples are beyond their lengths, ``(n, D)``."""
        if lengths is None or not self.event.open:
            return np.zeros((n, self.entries.dims), np.bool_)
        each = self.event.dims // self.event.shape[0]
        return np.arange(self.event.dims) >= each * lengths.cpu().numpy()[:, None]

    def _shortest_orders(self, x: Tensor) -> Integers:
        """An order for each example, so that all of them and these numbers are short; any order is correct."""
        if self.orders == 1:
            return np.zeros(len(x), np.int64)
        model = cast(CodesInOrders, self.model)
        with torch.no_grad():
            parts = [model.log_prob_each_order(Batch(part)) for part in x.split(self._size())]
        # Rounded, so that orders that are equally short are chosen alike on all machines.
        each = torch.cat(parts).double().numpy().round(6)
        order_of, shared = each.argmax(1), each.sum(0).round(4)
        if shared.max() >= each.max(1).sum() - len(x) * math.log(self.orders):
            order_of = np.full(len(x), shared.argmax())
        return order_of.astype(np.int64)

    def _classes(self, x: Tensor, lengths: Tensor | None) -> Tensor | None:
        """The class with the largest p(y) p(x|y) of each example; any class is correct, this one is the shortest."""
        if not self._is_conditional:
            return None
        model = cast(IsConditional, self.model)
        with torch.no_grad():
            batch, size = Batch(x, lengths=lengths), self._size()
            parts = [batch.take(slice(start, start + size)) for start in range(0, len(x), size)]
            each = [model.log_prob_each_class(part) for part in parts]
            return (torch.cat(each) + model.log_class_prior()).argmax(1)

    def _class_frequencies(self, notes: Rounding) -> Integers:
        log_prior = cast(IsConditional, self.model).log_class_prior().double().numpy()
        return frequencies(notes.settle(_CLASSES, to_grid(log_prior[None])))[0]

    def _size(self) -> int:
        most = max(1, *(s.levels for s in self.entries.columns))
        limit = _MOST_WITH_GAPS if self.event.missing else _MOST
        return max(1, min(limit, _MOST_ENTRIES // self.entries.dims, _MOST_MASSES // most))

    def _visit(
        self,
        lines: list[Line],
        gaps: Bools,
        group: _Group,
        choose: Callable[[Digit], Integers],
        given: Tensor | None,
    ) -> Offsets:
        """Visit the examples of a group; the integers that were chosen, ``(n, D)``.

        Args:
            gaps: of all examples, as ``given``.
        """
        rows, gaps = group.rows, gaps[group.rows]
        n, found = len(gaps), np.zeros(gaps.shape, np.uint64)
        ended = np.zeros(n, np.bool_)
        beside = np.arange(n + self.spare) % n  # further examples are copies

        def choose_entry(entry: int, conditional: Conditional) -> Tensor:
            if self.spare:
                conditional = conditional[:n] if isinstance(conditional, Tensor) else Some(conditional, beside, n)
            line, there = lines[entry], np.flatnonzero(~(gaps[:, entry] | ended))

            def choose_digit(start: Offsets, shift: int, log_masses: Floats, near: float = NEAR_REAL) -> Integers:
                digits = np.zeros(n, np.int64)
                if len(there):
                    grid = to_grid(log_masses[there], near)
                    digits[there] = choose(Digit(entry, rows.start + there, start[there], shift, grid))
                return digits

            if isinstance(conditional, Intervals):
                own = line.choose(conditional, n, choose_digit)
            else:
                own = choose_level(conditional.double().numpy(), partial(choose_digit, near=NEAR))
            found[:, entry] = own
            if self._ends:
                np.logical_or(ended, own == np.uint64(self.entries.columns[0].levels), out=ended)
            discrete = self.entries.columns[entry].is_discrete
            values = own.astype(np.float64) if discrete else line.values(own, np.dtype(np.float64))
            absent = np.nan if self.event.missing else 0.0  # beyond the length, it does not matter
            return torch.from_numpy(np.where(gaps[:, entry], absent, values)[beside])

        visit = cast(CodesEntries, self.model).visit
        if self.orders > 1:
            visit = partial(cast(CodesInOrders, self.model).visit, order=group.order)
        visit(
            len(beside),
            choose_entry,
            gaps=torch.from_numpy(gaps[beside]) if self.event.missing and gaps.any() else None,
            given=None if given is None else given[rows][beside],
        )
        return found

    def _columns(self, dtype: torch.dtype, lines: list[Line]) -> bytes:
        """The type of real entries, and the line of each."""
        real = [line for line, s in zip(lines, self.entries.columns, strict=True) if not s.is_discrete]
        return bytes([dtype.itemsize] if real else []) + b"".join(line.to_bytes() for line in real)

    def _split_columns(self, data: bytes) -> tuple[torch.dtype, list[Line], bytes]:
        lines, dtype = [], self.entries.dtype
        if not self.event.is_discrete:
            if data[:1] not in (b"\x04", b"\x08"):
                raise StreamError("real numbers of an unknown type; the stream is damaged")
            dtype, data = torch.float32 if data[0] == 4 else torch.float64, data[1:]
        for support in self.entries.columns:
            line, data = (_levels(support), data) if support.is_discrete else Line.split(data)
            lines.append(line)
        return dtype, lines, data

    def _assembled(self, offsets: Offsets, gaps: Bools, lines: list[Line], dtype: torch.dtype) -> Tensor:
        """Raw examples from their offsets ``(n, D)``."""
        x = torch.zeros(offsets.shape, dtype=dtype).numpy()
        for entry, (line, support) in enumerate(zip(lines, self.entries.columns, strict=True)):
            own = offsets[:, entry]
            x[:, entry] = own.astype(np.int64) + support.low if support.is_discrete else line.values(own, x.dtype)
        if gaps.any():
            lowest = self.event.lowest(torch.zeros(0)).flatten().numpy()
            x[gaps] = np.nan if self.event.missing else np.broadcast_to(lowest, x.shape)[gaps]
        return torch.from_numpy(x).view(-1, *self.entries.shape)


@final
class EntryByEntry(Entries):
    """In one order: the first one of a mixture over orders, as earlier versions have coded it."""

    name, version = "entry by entry", 1
    capability = CodesEntries


@final
class InTheBestOrder(Entries):
    """Each example of a mixture over orders in the order under which it is shortest."""

    name, version = "entry by entry in the best order", 1
    capability = CodesInOrders

    def __init__(self, model: Model, profile: Profile = "portable") -> None:
        super().__init__(model, profile, orders=cast(CodesInOrders, model).densities)

    @classmethod
    def reason_against(cls, model: Model) -> str | None:
        if not isinstance(model, CodesInOrders) or model.densities == 1:
            return "is not a mixture over orders"
        return super().reason_against(model)


@dataclass(frozen=True)
class _Group:
    """Examples of one order, which are visited together."""

    order: int
    rows: slice


def _groups(order_of: Integers, size: int) -> Iterator[_Group]:
    """At most ``size`` examples each, of examples sorted by their orders; ``order_of`` may be in any sequence."""
    start = 0
    for order, count in enumerate(np.bincount(order_of).tolist()):
        for first in range(start, start + count, size):
            yield _Group(order, slice(first, min(first + size, start + count)))
        start += count


def _equal_frequencies(symbols: int) -> Integers:
    return TOTAL // symbols + (np.arange(symbols) < TOTAL % symbols).astype(np.int64)


@final
@dataclass(frozen=True)
class Some(Intervals):
    """The first ``n`` of several distributions on the line; the others are at ``rows`` of them."""

    whole: Intervals
    rows: Integers
    n: int

    def log_masses(self, edges: Tensor) -> Tensor:
        return self.whole.log_masses(edges[self.rows])[: self.n]


def choose_level(log_masses: Floats, choose: Callable[[Offsets, int, Floats], Integers]) -> Offsets:
    """Choose a level by log p of each of them, ``(n, levels)``: by two digits if they are many.

    Raises:
        StreamError: a level beyond the last one was chosen.
    """
    n, levels = log_masses.shape
    start = np.zeros(n, np.uint64)
    if levels <= MAX_SYMBOLS:
        return choose(start, 0, log_masses).astype(np.uint64)
    block = 1 << _BLOCK_BITS
    padded = np.pad(log_masses, ((0, 0), (0, -levels % block)), constant_values=-np.inf).reshape(n, -1, block)
    high = choose(start, _BLOCK_BITS, np.logaddexp.reduce(padded, axis=2))
    start = high.astype(np.uint64) << np.uint64(_BLOCK_BITS)
    own = padded[np.arange(n), high]
    found = start + choose(start, 0, own).astype(np.uint64)
    if (found >= np.uint64(levels)).any():
        raise StreamError(f"a level beyond the last of {levels}; the stream is damaged")
    return found


def count_gaps(gaps: Bools) -> Integers:
    """How many entries of each column are missing where the one before is there, and where it is missing: ``(D, 2)``.

    >>> count_gaps(np.array([[True, True], [True, False], [False, False]])).tolist()
    [[2, 0], [0, 1]]
    """
    before = np.concatenate([np.zeros_like(gaps[:, :1]), gaps[:, :-1]], axis=1)
    return np.stack([(gaps & ~before).sum(0), (gaps & before).sum(0)], axis=1)


def mask_bits(x: Tensor) -> float:
    """The bits of a stream of raw examples ``(B, *shape)`` that mark missing entries, NaN.

    >>> mask_bits(torch.tensor([[0.0], [math.nan]])), mask_bits(torch.zeros(2, 0))  # two counts, and a bit for each
    (18.0, 0.0)
    """
    gaps = np.isnan(_flat(x))
    counts = count_gaps(gaps)
    bits = 8.0 * sum(len(whole_number(count)) for count in counts.flatten().tolist())
    for gap, table in zip(gaps.T, gap_frequencies(counts, gaps), strict=True):
        bits -= float(np.log2(table[np.arange(len(gap)), gap.astype(np.int64)] / TOTAL).sum())
    return bits


def checked_counts(counts: list[int], n: int) -> Integers:
    """`count_gaps` of ``n`` examples as read from a stream.

    Raises:
        StreamError: they cannot be.
    """
    before = 0
    for alone, after in zip(counts[::2], counts[1::2], strict=True):
        if alone > n - before or after > before:
            raise StreamError(f"{alone} + {after} of {n} entries are missing; the stream is damaged")
        before = alone + after
    return np.array(counts, np.int64).reshape(-1, 2)


def gap_frequencies(counts: Integers, gaps: Bools) -> Iterator[Integers]:
    """Frequencies of (there, missing) for each column by `count_gaps`: ``(N, 2)`` each.

    Args:
        gaps: which entries are missing, ``(N, D)``; only the columns before that of the frequencies are read.
    """
    before = np.zeros(len(gaps), np.bool_)
    for entry, (alone, after) in enumerate(counts.tolist()):
        missing = int(before.sum())
        shares = [
            min(max(TOTAL * part // max(whole, 1), 1), TOTAL - 1)
            for part, whole in ((alone, len(gaps) - missing), (after, missing))
        ]
        gone = np.where(before, shares[1], shares[0])
        yield np.stack([TOTAL - gone, gone], axis=1).astype(np.int64)
        before = gaps[:, entry]


def _flat(x: Tensor) -> NDArray[Any]:
    return x.flatten(1).numpy()


def _levels(support: Support) -> Line:
    return Line(WHOLE, 0, 1, support.levels)


def _level(values: NDArray[Any], support: Support) -> Offsets:
    return (values.astype(np.int64) - support.low).astype(np.uint64)
