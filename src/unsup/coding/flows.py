"""Coding of discrete data with flows, exactly, in integers: bits-back with the noise that a flow adds.

A flow states a density of x + u with uniform noise u. The coder follows its map step by step, with an entropy coder
that is a stack. All numbers are integers h, which stand for the cells [h, h + 1) · 2^−F:

1. A level x_d becomes a number uniform on the image of its cell. The choice is popped from the stack, that is, decoded
   from bits that were coded before, so that the decoder gets these bits back.
2. A map y = x · 2^(c/256) + t, with c and t rounded to integers, multiplies by a ratio M / 2^e of integers. It pops r
   uniform on 0 … M − 1, and pushes the lowest e bits of M x + r. The other bits are y. This is a bijection of (x, r)
   and (y, pushed bits), and costs e − log2 M = −c/256 bits, the log-determinant (Zhang, Kang, Ryder, Li 2021,
   https://arxiv.org/abs/2111.00965, with a ratio whose divisor is a power of two).
3. Other increasing maps are linear between places 2^−7 apart, where they have the values Y_j in steps of 2^−17. On a
   piece with M = Y_{j+1} − Y_j this is a multiplication by M / 2^10, as in 2. Only the two places around a number are
   evaluated; the decoder finds them by bisection. One step is added to each piece, so that none is empty.
4. A step y = f(x) whose Jacobian J is not triangular adds noise: n ~ N(0, σ²I), σ = 2^−11, is popped, and with
   J Jᵀ = L Lᵀ the result is y = f(x) + L n, a map of n as in 2 and a sum of integers. The distance of x from f⁻¹(y),
   again nearly N(0, σ²I), is pushed. The difference is the log-determinant of L (local bits-back: Ho, Lohn, Abbeel
   2019, https://arxiv.org/abs/1905.08500). J changes the length only, so it may be approximate.
5. The result is pushed: its bin under the base, and its place in the bin.

Noise of a variational dequantiser is drawn in place of 1: the base numbers of its flow are popped, go through its steps
and a sigmoid, whose values are numbers of 20 bits, and these lie in the cells. The decoder finds the levels first, and
pushes the base numbers again.

The length is −log2 p(x) as `log_prob` of the flow states it with one draw of the noise, on average. The first examples
are coded without the flow, until the stack has enough bits; then examples are coded in groups, which grow with the
stack. The decoder begins with the last group.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.coding.entropy import OutOfBits, Stack, StreamError
from unsup.coding.notes import Noted, Noting, Rounding
from unsup.coding.scheme import Profile, Scheme
from unsup.coding.tables import (
    PRECISION,
    STEPS_PER_BIT,
    STEPS_PER_NAT,
    TOTAL,
    Floats,
    Grid,
    Integers,
    frequencies,
    powers_of_two,
    to_grid,
    to_steps,
)
from unsup.core.event import Event
from unsup.core.model import IsConditional, IsFlow, Model
from unsup.nn.bijection import Affine, Bijection
from unsup.nn.dequantizer import VariationalDequantizer
from unsup.nn.flow import Flow
from unsup.nn.front import ContinuousFront, UniformDequantizer
from unsup.nn.invertible import Arithmetic, Exact, Invertible, Smooth

_BITS = 12  # F, the bits of a number after the point, or more for data with many levels
_MOST_BITS = 44  # of numbers after the point, so that those of the base fit
_SHIFT_BITS = 12  # bits after the point of a shift
_RATIO_BITS = 8  # M is 2^8 to 2^9
_STEP_BITS = 8  # steps of a scale per bit, 2^8
_FARTHEST = 24 * STEPS_PER_BIT  # scales are 2^−24 to 2^24
_FARTHEST_SHIFT = 1 << 36  # steps, which float64 resolves with the tolerance of the notes
_LIMIT = float(1 << 50)  # of the numbers, so that sums and float64 copies are exact

_PLACE_BITS = 7  # places of an increasing map are 2^−7 apart
_RISE_BITS = 10  # bits of M on a piece of slope 1
_STEEPEST = 1 << 20  # the largest M, which the stack takes
_FAR_PLACE = 16 << _PLACE_BITS  # places, between which the decoder looks first
_LOOKS = 10  # times that it looks further, 16 times as far
_WINDOW = 4  # places whose values encoder and decoder round alike

_NOISE_BITS = 20  # bits of the place in a cell that a flow draws
_NOISE_RANGE = 16  # numbers before the sigmoid are within ±16

_LOCAL_NOISE = 11  # the noise of smooth steps has the standard deviation 2^−11,
_LOCAL_STEP = _LOCAL_NOISE + 6  # and values are rounded to 2^−17; numbers have as many bits after the point, or more
_MOST_DERIVATIVES = 1 << 24  # entries of the Jacobians of a group: bounds memory

_CELL = 32  # least width of a part of a cell
_WIDEST = 1 << 11  # its largest width
_STEEP = 1e-3  # α, below which a logit is too steep at its ends for parts of such widths
_NARROW = 8  # least width of a part before it; the outer ones are wide, and rare
_PARTS = 1 << 8  # least number of parts of [0, 1] before a logit, which are mapped linearly

_BIN_BITS = 6  # 2^6 bins per unit, where the base has its mass
_OCTAVES = 3  # that are divided into as many bins as a unit, beyond ±8

_HEAD, _RUN = struct.Struct("<IHI"), struct.Struct("<BH")
_MOST = 512  # examples of a group
_MOST_ENTRIES = 2**18  # entries of the examples of a group: bounds memory
_MARGIN = 1.05  # of the bits that the examples of a group are expected to need
_RETRIES = 16  # times that a group is coded again without some examples
_DIGIT = 12  # bits of the digit of a level that need not be a power of two
_TABLE = 1 << 22  # largest table of a logit
_BASE, _LOGIT, _FIRST = 0, 1, 1  # roundings: of the base, of the logit, and half of that of the first map
_NOISE, _LOCAL, _RESIDUE = ((1 << 32) - k for k in (1, 2, 3))  # of the bases of noise, and what a smooth step leaves


@final
class FlowInIntegers(Scheme):
    """Bits-back coding of discrete data with a flow whose steps are `Exact`."""

    name, version = "flow in integers", 1
    capability = IsFlow

    def __init__(self, model: Model, profile: Profile = "portable") -> None:
        super().__init__(model, profile)
        self.flow = cast(Flow, self.model)
        self.cells = cast(_Cells, _Cells.of(self.flow.front, _least_bits(self.flow)))
        for step in self.flow.modules():
            if isinstance(step, Smooth):
                step.freeze()

    @classmethod
    def reason_against(cls, model: Model) -> str | None:
        if not isinstance(model, Flow):
            return "is not a flow"
        if not model.event.is_discrete:
            return "has real entries, for which only a density is known"
        if model.event.missing:
            return "has missing entries, which are not coded"
        if isinstance(model, IsConditional) and model.given is not None:
            return "has a condition, which is not coded"
        noise = model.front.dequantizer
        if type(noise) not in (UniformDequantizer, VariationalDequantizer):
            return "has noise that is neither uniform nor of a flow"
        for step in (*model.flow.modules(), *noise.modules()):
            if isinstance(step, Invertible) and not isinstance(step, Exact):
                return (
                    f"has the step {type(step).__name__}, which has no exact form in integers: only steps that are "
                    "Exact, such as Smooth ones, which state their Jacobian, have one"
                )
        if _Cells.of(model.front, _least_bits(model)) is None:
            return "has entries with too many levels, or no finite scale"
        return None

    def encode(self, x: Tensor) -> bytes:
        notes = Noting()
        coder = _Coder(self, Stack(), notes)
        levels, most = self.cells.levels_of(x), _most(self.flow)
        rest, outside = np.arange(len(x)), list[Integers]()
        sizes = list[int]()  # of the groups; 0 is one example without the flow
        while len(rest):
            fits = min(int((coder.stack.bits - coder.stack.initial_bits) / coder.need), most)
            if not fits:
                coder.push_alone(levels, rest[0])
                sizes.append(0)
                rest = rest[1:]
                continue
            group = rest[: 1 << (fits.bit_length() - 1)]
            stack, calls, noted = coder.stack.copy(), coder.arithmetic.calls, notes.size
            try:
                coder.push(levels[group])
            except (OutOfBits, Outside) as error:
                coder.restore(stack, calls)
                notes.forget(noted)
                if isinstance(error, Outside):
                    rows = error.rows if len(outside) < _RETRIES else np.arange(len(group))
                    outside.append(group[rows])
                    rest = np.delete(rest, rows)
                else:
                    coder.need *= 2
                continue
            sizes.append(len(group))
            rest = rest[len(group) :]
        alone = np.sort(np.concatenate(outside)) if outside else np.empty(0, np.int64)
        for place in alone:
            coder.push_alone(levels, place)
        runs = list(_runs(sizes))
        parts = [_HEAD.pack(coder.arithmetic.calls, len(runs), len(alone)), *(_RUN.pack(*run) for run in runs)]
        return b"".join([*parts, alone.astype("<u4").tobytes(), notes.to_bytes(), coder.stack.to_bytes()])

    def decode(self, coded: bytes, n: int) -> Tensor:
        calls, sizes, alone, rest = self._plan(coded, n)
        notes, rest = Noted.split(rest)
        coder = _Coder(self, Stack.from_bytes(rest), notes)
        coder.arithmetic.calls = calls
        levels = np.zeros((n, self.event.dims), np.int64)
        for place in reversed(alone):
            levels[place] = coder.pop_alone(place)
        order = np.delete(np.arange(n), alone)
        try:
            for size in reversed(sizes):
                order, group = np.split(order, [-max(1, size)])
                levels[group] = coder.pop(size) if size else coder.pop_alone(group[0])
        except Outside as error:
            raise StreamError("a number beyond those of the encoder; the stream is damaged") from error
        if coder.arithmetic.calls != _FIRST:
            raise StreamError("another number of maps than were coded; the stream is damaged")
        coder.stack.finish()
        return self.cells.raw(levels, self.event)

    def canary(self) -> bytes:
        seen = Seen()
        coder = _Coder(self, Stack(bytes(16 * self.event.dims)), seen)
        with contextlib.suppress(OutOfBits, Outside):  # of one untypical example
            coder.push(self.cells.levels[None] // 2)
        return bytes(seen.found)

    def _plan(self, coded: bytes, n: int) -> tuple[int, list[int], Integers, bytes]:
        """The number of maps, the sizes of the groups, the examples without the flow, and the rest of the stream."""
        try:
            calls, count, others = _HEAD.unpack_from(coded)
            start = _HEAD.size + count * _RUN.size
            runs = list(_RUN.iter_unpack(coded[_HEAD.size : start]))
            alone = np.frombuffer(coded, "<u4", others, start).astype(np.int64)
        except (struct.error, ValueError) as error:
            raise StreamError(f"a stream of {len(coded)} bytes; it was cut or damaged") from error
        most = _most(self.flow)
        if len(alone) + sum(times * max(1, size) for times, size in runs) != n or any(size > most for _, size in runs):
            raise StreamError(f"groups of other than {n} examples; the stream is damaged")
        if (np.diff(alone) <= 0).any() or (len(alone) and alone[-1] >= n):
            raise StreamError("an example without a place; the stream is damaged")
        sizes = [size for times, size in runs for _ in range(times)]
        return calls, sizes, alone, coded[start + 4 * others :]


class Outside(Exception):
    """Numbers that the integers cannot represent.

    Args:
        rows: the examples of the group that have them, ascending.
    """

    def __init__(self, rows: Integers) -> None:
        super().__init__(rows)
        self.rows = rows


@final
class Seen(Rounding):
    """Keeps what is rounded."""

    def __init__(self) -> None:
        self.found = bytearray()

    def settle(self, call: int, grid: Grid) -> Integers:
        self.found.extend(grid.steps.astype("<i8").tobytes())
        return grid.steps


@final
class _Coder:
    """Groups of examples on a stack.

    Attributes:
        need: bits of the stack for an example, as the last group needed them.
    """

    def __init__(self, scheme: FlowInIntegers, stack: Stack, rounding: Rounding) -> None:
        self.event, self.cells, self.stack = scheme.event, scheme.cells, stack
        steps = scheme.flow.flow
        assert isinstance(steps, Exact)
        self.steps = steps
        self.edges = _Edges(self.cells, rounding)
        self.base = NumbersOfBase(scheme.flow.exact_cdf, self.cells.bits, _BASE, rounding)
        dtype = torch.promote_types(scheme.model.dtype, torch.float32)
        smooth = _is_smooth(scheme.flow)
        self.arithmetic = Modular(stack, rounding, self.cells.bits, dtype, scheme.spare, smooth=smooth)
        local = self.cells.bits - _LOCAL_NOISE if smooth else 0
        self.need = self.event.dims * (self.cells.bits + local + _RATIO_BITS / 2)
        noise = scheme.flow.front.dequantizer
        self.noise = _Noise(noise, self, rounding) if isinstance(noise, VariationalDequantizer) else None

    def restore(self, stack: Stack, calls: int) -> None:
        """Set the stack and the number of maps."""
        self.stack = self.arithmetic.stack = stack
        self.arithmetic.calls = calls

    def push(self, levels: Integers) -> None:
        """Code examples ``(B, D)``.

        Raises:
            OutOfBits, Outside: they cannot be coded; the state is then undefined.
        """
        before = self.arithmetic.lowest = self.stack.bits
        x = self._placed(levels) if self.noise is None else self.noise.push(levels)
        self.arithmetic.lowest = min(self.arithmetic.lowest, self.stack.bits)
        z = self.steps.exactly(torch.from_numpy(x).view(-1, *self.event.shape), self.arithmetic)
        self.base.push(self.stack, z.flatten().numpy())
        self.need = _MARGIN * (before - self.arithmetic.lowest) / len(levels)

    def pop(self, n: int) -> Integers:
        """The levels of ``n`` examples ``(n, D)``.

        Raises:
            StreamError, Outside: they cannot have been coded.
        """
        z = torch.from_numpy(self.base.pop(self.stack, n * self.event.dims)).view(n, -1)
        x = self.steps.exactly_inverse(z, self.arithmetic).reshape(n, -1).numpy()
        place = self.edges.find(x)
        if self.noise is not None:
            return self.noise.pop(x, place)
        start = self.edges(place)
        self.stack.push_uniform((x - start).ravel(), (self.edges(place + 1) - start).ravel())
        parts = np.broadcast_to(self.cells.parts, x.shape)
        self.stack.push_bits(place.ravel(), parts.ravel())
        return place >> parts

    def _placed(self, levels: Integers) -> Integers:
        """Numbers with uniform noise in the cells of levels."""
        parts = np.broadcast_to(self.cells.parts, levels.shape)
        place = (levels << parts) + self.stack.pop_bits(parts.ravel()).reshape(levels.shape)
        start = self.edges(place)
        return start + self.stack.pop_uniform((self.edges(place + 1) - start).ravel()).reshape(levels.shape)

    def push_alone(self, levels: Integers, place: int) -> None:
        """Code one example without the flow, as equally likely levels, in a form that looks random."""
        value = (levels[place] + self._mask(place)) % self.cells.levels
        more, most = self._digits()
        self.stack.push_uniform(value >> more, most)
        self.stack.push_bits(value, more)

    def pop_alone(self, place: int) -> Integers:
        """The levels of an example that `push_alone` has coded, ``(D,)``."""
        more, most = self._digits()
        value = self.stack.pop_bits(more)
        value += self.stack.pop_uniform(most) << more
        if (value >= self.cells.levels).any():
            raise StreamError("a level beyond those of the event; the stream is damaged")
        return (value - self._mask(place)) % self.cells.levels

    def _digits(self) -> tuple[Integers, Integers]:
        """The number of lower bits of a level, and how many values its other bits have."""
        more = np.maximum(_exponent(self.cells.levels.astype(np.float64)) - _DIGIT, 0)
        return more, ((self.cells.levels - 1) >> more) + 1

    def _mask(self, place: int) -> Integers:
        """Random levels: what is popped later as noise should not depend on the example."""
        found = hashlib.shake_128(struct.pack("<Q", place)).digest(8 * len(self.cells.levels))
        return (np.frombuffer(found, "<u8") >> 1).astype(np.int64) % self.cells.levels


@dataclass(frozen=True)
class _Cells:
    """The image of the data under the front of a flow. Arrays are ``(D,)``.

    Attributes:
        low, levels: the lowest level and the number of levels.
        mean, std, alpha: of the front.
        parts: log2 of the number of parts of a cell, which are mapped to numbers linearly.
        bits: F.
    """

    low: Integers
    levels: Integers
    mean: Floats
    std: Floats
    alpha: float | None
    parts: Integers
    bits: int

    @classmethod
    def of(cls, front: ContinuousFront, least: int = _BITS) -> _Cells | None:
        """The cells of a front, for numbers of at least some bits; None if the numbers have too few bits for them."""
        columns, alpha = front.event.columns, front.logit_alpha
        low, levels = (np.array(found, np.int64) for found in zip(*((s.low, s.levels) for s in columns), strict=True))
        mean, std = (t.detach().double().cpu().flatten().numpy() for t in (front.mean, front.std))
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            return None
        parts = np.zeros(levels.shape, np.int64)
        flattest, steepest, farthest = 1.0, 1.0, 1.0  # slopes of v as a function of x / levels, and the largest v
        cell, steep = _CELL, alpha is not None and alpha < _STEEP
        if alpha is not None:
            parts = np.maximum(_exponent((max(_PARTS, 1 / (16 * alpha)) if steep else _PARTS) / levels), 0)
            if int(np.unique(levels << parts).sum()) > _TABLE:
                return None
            flattest, steepest = 4 * (1 - 2 * alpha), (1 - 2 * alpha) / (alpha * (1 - alpha))
            farthest, cell = -math.log(alpha), _NARROW if steep else _CELL
        bits = max(least, int(_exponent(cell * levels.astype(np.float64) * 2.0**parts * std / flattest).max()))
        if bits > _MOST_BITS:
            return None
        if not ((np.abs(mean) + farthest) / std * 2.0**bits < _LIMIT).all():
            return None
        if alpha is not None and steep:
            outer = np.log1p(1 / (alpha * (levels << parts))) / std * 2.0**bits
            return cls(low, levels, mean, std, alpha, parts, bits) if (outer < _STEEPEST).all() else None
        widest = _WIDEST if alpha is None else _WIDEST << (least - _BITS)  # or the table would be large
        parts = np.maximum(parts, _exponent(steepest / (levels * std) * 2.0**bits / widest))
        return cls(low, levels, mean, std, alpha, parts, bits)

    def levels_of(self, x: Tensor) -> Integers:
        """Raw examples as numbers of levels, ``(B, D)``."""
        return x.flatten(1).long().numpy() - self.low

    def raw(self, levels: Integers, event: Event) -> Tensor:
        """The raw examples with these levels."""
        return torch.from_numpy(levels + self.low).view(-1, *event.shape).to(event.dtype)


@final
class _Edges:
    """Where the parts of cells begin, as numbers; part p of level k of an entry is place k · parts + p.

    Only the logit is rounded with notes: the sums, products and quotients of float64 are the same on all machines.
    """

    def __init__(self, cells: _Cells, rounding: Rounding) -> None:
        self.cells = cells
        self.scale = 2.0**cells.bits
        self.places = cells.levels << cells.parts
        self.table, self.start = np.empty(0), np.zeros(self.places.shape, np.int64)
        if cells.alpha is not None:
            kinds, kind = np.unique(self.places, return_inverse=True)
            inside = cells.alpha + (1 - 2 * cells.alpha) * np.concatenate([np.arange(k + 1) / k for k in kinds])
            logit = np.log(inside) - np.log1p(-inside)
            self.table = rounding.settle(_LOGIT, to_steps(logit, self.scale)) / self.scale
            self.start = (np.cumsum(kinds + 1) - (kinds + 1))[kind]

    def __call__(self, place: Integers) -> Integers:
        """The first number of each place, ``(B, D)``, from 0 to all of them."""
        v = place / self.places if self.cells.alpha is None else self.table[self.start + place]
        return np.rint((v - self.cells.mean) / self.cells.std * self.scale).astype(np.int64)

    def find(self, x: Integers) -> Integers:
        """The places of numbers ``(B, D)``, by bisection.

        Raises:
            StreamError: a number is the image of no level.
        """
        low, high = np.zeros(x.shape, np.int64), np.broadcast_to(self.places, x.shape)
        if (x < self(low)).any() or (x >= self(high)).any():
            raise StreamError("a number is the image of no level; the stream is damaged")
        for _ in range(int(self.places.max()).bit_length()):
            middle = (low + high) // 2
            below = self(middle) <= x
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return low


@final
class _Noise:
    """Noise in the cells from a flow that sees the levels.

    A number of 20 bits is drawn for each entry. Its first bits are the part of the cell; the others, of the number h of
    w on this part, become a number of the part by a multiplication, as in maps.
    """

    def __init__(self, dequantizer: VariationalDequantizer, coder: _Coder, rounding: Rounding) -> None:
        self.dequantizer, self.coder = dequantizer, coder
        self.steps = cast(Exact, dequantizer.flow)
        self.base = NumbersOfBase(torch.special.ndtr, coder.cells.bits, _NOISE, rounding, drawn=True)
        self.finest = np.maximum(coder.cells.parts, _NOISE_BITS)

    def push(self, levels: Integers) -> Integers:
        """Levels ``(B, D)`` as numbers with noise, popped from the stack."""
        coder, shape = self.coder, (len(levels), *self.dequantizer.shape)
        drawn = self.base.draw(coder.stack, noise_mask(coder.arithmetic.calls, levels.size))
        coder.arithmetic.lowest = min(coder.arithmetic.lowest, coder.stack.bits)
        s = self.steps.exactly(torch.from_numpy(drawn).view(shape), coder.arithmetic, self._context(levels))
        self._check(s)
        u = coder.arithmetic.bent(s, _squashed, _NOISE_BITS, _NOISE_BITS).reshape(levels.shape).numpy()
        parts, finest = (np.broadcast_to(bits, u.shape) for bits in (coder.cells.parts, self.finest))
        u = (u << (finest - _NOISE_BITS)) + coder.stack.pop_bits((finest - _NOISE_BITS).ravel()).reshape(u.shape)
        left = finest - parts
        place = (levels << parts) + (u >> left)
        start = coder.edges(place)
        width = coder.edges(place + 1) - start
        within = width * (u & ((1 << left) - 1)) + coder.stack.pop_uniform(width.ravel()).reshape(u.shape)
        coder.stack.push_bits(within.ravel(), left.ravel())
        return start + (within >> left)

    def pop(self, x: Integers, place: Integers) -> Integers:
        """The levels of numbers, whose noise is pushed again."""
        coder = self.coder
        parts, finest = (np.broadcast_to(bits, x.shape) for bits in (coder.cells.parts, self.finest))
        left, start = finest - parts, coder.edges(place)
        width = coder.edges(place + 1) - start
        within = ((x - start) << left) + coder.stack.pop_bits(left.ravel()).reshape(x.shape)
        rest, drawn = np.divmod(within, width)
        coder.stack.push_uniform(drawn.ravel(), width.ravel())
        levels = place >> parts
        u = ((place - (levels << parts)) << left) + rest
        coder.stack.push_bits(u.ravel(), (finest - _NOISE_BITS).ravel())
        u >>= finest - _NOISE_BITS
        shape = (len(x), *self.dequantizer.shape)
        s = coder.arithmetic.bent_inverse(torch.from_numpy(u).view(shape), _squashed, _NOISE_BITS, _NOISE_BITS)
        self._check(s)
        found = self.steps.exactly_inverse(s, coder.arithmetic, self._context(levels))
        self.base.undraw(coder.stack, found.flatten().numpy(), noise_mask(coder.arithmetic.calls, levels.size))
        return levels

    def _context(self, levels: Integers) -> Tensor:
        x = self.coder.cells.raw(levels, self.coder.event).to(self.coder.arithmetic.dtype)
        return self.dequantizer.context(self.coder.arithmetic.spared(x))

    def _check(self, s: Tensor) -> None:
        """Raise `Outside` where the sigmoid is not computed."""
        chosen = _Chosen(s, None)
        chosen.check(np.abs(chosen.values + 0.5) < _NOISE_RANGE << self.coder.cells.bits)


def _squashed(s: Tensor) -> Tensor:
    """A sigmoid that leaves one step of 2^−20 for each of the pieces on ±16, which `Modular.bent` adds."""
    pieces = 2 * _NOISE_RANGE * 2.0 ** (_PLACE_BITS - _NOISE_BITS)
    return s.sigmoid() * (1 - pieces) + pieces / 2


@final
class NumbersOfBase:
    """The base on the numbers: bins of 2^bits numbers, of equal width where the mass is, then by octaves.

    Numbers that are drawn are within ±8: those further out would come too often, as no bin has less than 2^−24.

    Args:
        drawn: for `draw` and `undraw`.
        short: frequencies have at most 12 significant bits, so that a place below one costs no more than it should.
    """

    def __init__(
        self,
        cdf: Callable[[Tensor], Tensor],
        bits: int,
        call: int,
        rounding: Rounding,
        *,
        drawn: bool = False,
        short: bool = False,
    ) -> None:
        one = 1 << bits
        edges = [np.arange(0, 8 << _BIN_BITS) << (bits - _BIN_BITS)]
        for octave in range(0 if drawn else int(_LIMIT).bit_length() - bits - 2):
            start, count = 8 * one << octave, 1 << _BIN_BITS if octave < _OCTAVES else 1
            edges.append(start + np.arange(count) * (start // count))
        positive = np.append(np.concatenate(edges), 8 * one if drawn else 2 * start)
        self.start = np.concatenate([-positive[:0:-1], positive[:-1]])
        width = np.diff(positive)
        self.bits = _exponent(np.concatenate([width[::-1], width]).astype(np.float64))
        # The laws are symmetric, and differences of small numbers are exact.
        mass = -np.diff(cdf(-torch.from_numpy(positive / one)).numpy())
        with np.errstate(divide="ignore"):
            grid = to_grid(np.log(np.concatenate([mass[::-1], mass]))[None])
        self.table = frequencies(rounding.settle(call, grid))[0]
        self.low = np.zeros(self.table.shape, np.int64)  # bits of a frequency that are 0
        if short:
            middle = len(self.table) // 2
            self.low = np.maximum(_exponent(self.table + 1.0) - _DIGIT, 0)
            self.table = (self.table >> self.low) << self.low
            self.table[middle] += TOTAL - self.table.sum()
            self.low[middle] = 0

    def push(self, stack: Stack, z: Integers) -> None:
        """Code numbers ``(N,)``."""
        bins = np.searchsorted(self.start, z, side="right") - 1
        stack.push_bits(z - self.start[bins], self.bits[bins])
        stack.push(bins, self.table)

    def pop(self, stack: Stack, count: int) -> Integers:
        """The numbers that `push` has coded."""
        bins = stack.pop(self.table, count)
        return self.start[bins] + stack.pop_bits(self.bits[bins])

    def draw(self, stack: Stack, mask: Integers) -> Integers:
        """`pop` of numbers that do not depend on what the stack holds, if the numbers ``mask`` ``(N,)`` are random."""
        cumulative = np.cumsum(self.table)
        at = (stack.pop_bits(np.full(mask.shape, PRECISION)) + mask) % TOTAL
        bins = np.searchsorted(cumulative, at, side="right")
        place, low = at - cumulative[bins] + self.table[bins], self.low[bins]
        stack.push_uniform(place >> low, self.table[bins] >> low)
        stack.push_bits(place, low)
        return self.start[bins] + stack.pop_bits(self.bits[bins])

    def undraw(self, stack: Stack, z: Integers, mask: Integers) -> None:
        """The inverse of `draw`."""
        bins = np.searchsorted(self.start, z, side="right") - 1
        stack.push_bits(z - self.start[bins], self.bits[bins])
        low = self.low[bins]
        place = stack.pop_bits(low)
        place += stack.pop_uniform(self.table[bins] >> low) << low
        at = np.cumsum(self.table)[bins] - self.table[bins] + place
        stack.push_bits((at - mask) % TOTAL, np.full(mask.shape, PRECISION))


@final
class Modular(Arithmetic):
    """Maps of numbers with a stack: see the module.

    Attributes:
        calls: the number of maps applied and not inverted, plus a constant.
        lowest: the least number of bits of the stack, since it was last set.
    """

    def __init__(
        self,
        stack: Stack,
        rounding: Rounding,
        bits: int,
        dtype: torch.dtype,
        spare: int = 0,
        *,
        smooth: bool = False,
    ) -> None:
        self.stack, self.rounding, self.bits, self.dtype, self.spare = stack, rounding, bits, dtype, spare
        self.calls, self.lowest = _FIRST, stack.bits
        if smooth:
            self.noise = NumbersOfBase(
                torch.special.ndtr, bits - _LOCAL_NOISE, _LOCAL, rounding, drawn=True, short=True
            )
            self.residue = NumbersOfBase(torch.special.ndtr, bits - _LOCAL_NOISE, _RESIDUE, rounding)

    def real(self, x: Tensor) -> Tensor:
        found = (x.double() * 2.0**-self.bits).to(self.dtype)
        return self.spared(found)

    def spared(self, x: Tensor) -> Tensor:
        """Examples with the spare ones."""
        return x[torch.arange(len(x) + self.spare) % len(x)] if self.spare else x

    def affine(self, x: Tensor, log_scale: Tensor | None, shift: Tensor | None, where: Tensor | None = None) -> Tensor:
        chosen = _Chosen(x, where)
        scale, steps = self._settled(self.calls, chosen, log_scale, shift)
        self.calls += 1
        values = chosen.values
        if scale is not None:
            chosen.check(np.abs(values) * np.exp2(scale / STEPS_PER_BIT) < _LIMIT)
            values = self._scaled(values, scale)
        if steps is not None:
            values = values + steps
            chosen.check(np.abs(values) < _LIMIT)
        return chosen.replaced(values)

    def affine_inverse(
        self, y: Tensor, log_scale: Tensor | None, shift: Tensor | None, where: Tensor | None = None
    ) -> Tensor:
        chosen = _Chosen(y, where)
        self.calls -= 1
        if self.calls < _FIRST:
            raise StreamError("fewer maps than were coded; the stream is damaged")
        scale, steps = self._settled(self.calls, chosen, log_scale, shift)
        values = chosen.values
        if steps is not None:
            values = values - steps
        if scale is not None:
            chosen.check(np.abs(values) * np.exp2(-scale / STEPS_PER_BIT) < 4 * _LIMIT)
            values = self._unscaled(values, scale)
        chosen.check(np.abs(values) < 2 * _LIMIT)
        return chosen.replaced(values)

    def monotone(self, x: Tensor, curve: Callable[[Tensor], Tensor], where: Tensor | None = None) -> Tensor:
        return self.bent(x, curve, self.bits, where=where)

    def monotone_inverse(self, y: Tensor, curve: Callable[[Tensor], Tensor], where: Tensor | None = None) -> Tensor:
        return self.bent_inverse(y, curve, self.bits, where=where)

    def bent(
        self,
        x: Tensor,
        curve: Callable[[Tensor], Tensor],
        bits: int,
        step_bits: int = _PLACE_BITS + _RISE_BITS,
        where: Tensor | None = None,
    ) -> Tensor:
        """`monotone`, with values of ``bits`` bits after the point, from knots of ``step_bits``."""
        chosen, width, more = _Chosen(x, where), self.bits - _PLACE_BITS, bits - step_bits
        knots = self._knots(self.calls, chosen, curve, chosen.values >> width, 2, step_bits)
        self.calls += 1
        start, rise = knots[:, 0], knots[:, 1] - knots[:, 0]
        chosen.check((rise >= 1) & (rise <= _STEEPEST))
        chosen.check(np.abs(start) < int(_LIMIT) >> more)
        within = self._multiplied(chosen.values & ((1 << width) - 1), rise, width - more)
        return chosen.replaced((start << more) + within)

    def bent_inverse(
        self,
        y: Tensor,
        curve: Callable[[Tensor], Tensor],
        bits: int,
        step_bits: int = _PLACE_BITS + _RISE_BITS,
        where: Tensor | None = None,
    ) -> Tensor:
        chosen, width, more = _Chosen(y, where), self.bits - _PLACE_BITS, bits - step_bits
        self.calls -= 1
        if self.calls < _FIRST:
            raise StreamError("fewer maps than were coded; the stream is damaged")
        first = self._place(chosen, curve, chosen.values >> more, step_bits) - 1
        knots = self._knots(self.calls, chosen, curve, first, _WINDOW, step_bits)
        own = (knots << more <= chosen.values[:, None]).sum(1) - 1
        chosen.check((own >= 0) & (own < _WINDOW - 1))
        start, stop = (np.take_along_axis(knots, own[:, None] + i, 1)[:, 0] for i in range(2))
        chosen.check((stop - start >= 1) & (stop - start <= _STEEPEST))
        within = self._divided(chosen.values - (start << more), stop - start, width - more)
        values = ((first + own) << width) + within
        chosen.check(np.abs(values) < 2 * _LIMIT)
        return chosen.replaced(values)

    def smooth(self, x: Tensor, step: Smooth, context: Tensor | None) -> Tensor:
        chosen, dims = _Chosen(x, None), x[0].numel()
        centre, log_scale, lower = self._linearised(x, step, context)
        noise = self.noise.draw(self.stack, noise_mask(self.calls, x.numel()))
        self.lowest = min(self.lowest, self.stack.bits)
        scaled = self.affine(torch.from_numpy(noise).view(-1, dims), log_scale, None).numpy()
        shift = centre + (lower @ self._centred(scaled)[..., None])[..., 0]
        y = np.stack([scaled[:, d] + self._rounded(self.calls + d, shift[:, d]) for d in range(dims)], 1)
        chosen.check(np.abs(y).ravel() < _LIMIT)
        found = torch.from_numpy(y).view(x.shape)
        residue = x.flatten(1).numpy() - self._origin(self.calls + dims, found, step, context)
        self.calls += dims + 1
        self.residue.push(self.stack, residue.ravel())
        return found

    def smooth_inverse(self, y: Tensor, step: Smooth, context: Tensor | None) -> Tensor:
        chosen, dims = _Chosen(y, None), y[0].numel()
        self.calls -= dims + 1
        if self.calls <= _FIRST:
            raise StreamError("fewer maps than were coded; the stream is damaged")
        residue = self.residue.pop(self.stack, y.numel())
        x = self._origin(self.calls + dims, y, step, context).ravel() + residue
        chosen.check(np.abs(x) < 2 * _LIMIT)
        found = torch.from_numpy(x).view(y.shape)
        centre, log_scale, lower = self._linearised(found, step, context)
        values = y.flatten(1).numpy()
        scaled = np.zeros(values.shape, np.int64)
        for d in range(dims):
            shift = centre[:, d] + (lower[:, d, :d] * self._centred(scaled[:, :d])).sum(1)
            scaled[:, d] = values[:, d] - self._rounded(self.calls + d, shift)
        noise = self.affine_inverse(torch.from_numpy(scaled), log_scale, None)
        self.noise.undraw(self.stack, noise.flatten().numpy(), noise_mask(self.calls, y.numel()))
        return found

    def _linearised(self, x: Tensor, step: Smooth, context: Tensor | None) -> tuple[Floats, Tensor, Floats]:
        """f(x) ``(B, D)``, the logarithms of the diagonal of L ``(B, D)``, and L with 0 on and 1 / it beside it.

        L v, v = diag(L) n, is then v and a product with what is returned.
        """
        chosen, n, real = _Chosen(x, None), len(x), self.real(x) + 2.0 ** -(self.bits + 1)
        centre = chosen.of(step.value(real, context)).reshape(n, -1)
        jacobian = step.jacobian(real, context)[:n].double()
        good = torch.isfinite(jacobian).flatten(1).all(1).numpy() & np.isfinite(centre).all(1)
        if not good.all():
            raise Outside(np.flatnonzero(~good))
        lower = torch.linalg.qr(jacobian.mT, mode="r").R.mT
        diagonal = lower.diagonal(dim1=1, dim2=2)
        strict: Floats = (lower / diagonal[:, None]).tril(-1).numpy()
        return centre, diagonal.abs().log(), strict

    def _origin(self, call: int, y: Tensor, step: Smooth, context: Tensor | None) -> Integers:
        """f⁻¹(y) as numbers ``(B, D)``."""
        real = self.real(y) + 2.0 ** -(self.bits + 1)
        return self._rounded(call, _Chosen(y, None).of(step.preimage(real, context)).reshape(len(y), -1))

    def _centred(self, numbers: Integers) -> Floats:
        """The middles of the cells of numbers, so that noise and what is left of it have the mean 0."""
        return cast(Floats, (numbers + 0.5) * 2.0**-self.bits)

    def _rounded(self, call: int, values: Floats) -> Integers:
        """Values ``(B, ...)`` as numbers, which encoder and decoder round alike."""
        good = np.abs(values) * 2.0**_LOCAL_STEP < _FARTHEST_SHIFT
        if not good.all():
            raise Outside(np.flatnonzero(~good.reshape(len(values), -1).all(1)))
        steps = self.rounding.settle(2 * call, to_steps(values, 2.0**_LOCAL_STEP))
        return steps << (self.bits - _LOCAL_STEP)

    def _knots(
        self, call: int, chosen: _Chosen, curve: Callable[[Tensor], Tensor], first: Integers, count: int, bits: int
    ) -> Integers:
        """Settled values at ``count`` places from ``first`` on, in steps of 2^−bits, ``(N, count)``.

        The number of a place modulo 4 names it for the rounding, so that windows may be shifted.
        """
        places = first[:, None] + np.arange(count)
        values = np.stack([chosen.along(curve, column) for column in places.T], 1)
        chosen.check(np.abs(values).max(1) * 2.0**bits < _FARTHEST_SHIFT)
        slope = np.abs(np.diff(values, axis=1)).max(1, keepdims=True) * 2.0**_PLACE_BITS
        grid = to_steps(values, 2.0**bits, 1 + slope)
        slots = places % _WINDOW
        steps = np.zeros((len(places), _WINDOW), np.int64)
        np.put_along_axis(steps, slots, grid.steps, 1)
        row, column = np.divmod(grid.near, count)
        settled = self.rounding.settle(2 * call, Grid(steps, row * _WINDOW + slots[row, column]))
        return np.take_along_axis(settled, slots, 1) + places

    def _place(self, chosen: _Chosen, curve: Callable[[Tensor], Tensor], target: Integers, bits: int) -> Integers:
        """The last place whose value is at most ``target`` steps, or one next to it, by bisection."""

        def above(place: Integers) -> NDArray[np.bool_]:
            found: NDArray[np.bool_] = np.rint(chosen.along(curve, place) * 2.0**bits) + place > target
            return found

        low, high = np.full(target.shape, -_FAR_PLACE), np.full(target.shape, _FAR_PLACE)
        for _ in range(_LOOKS):
            far = above(low)
            if not far.any():
                break
            low[far] *= 16
        for _ in range(_LOOKS):
            far = ~above(high)
            if not far.any():
                break
            high[far] *= 16
        for _ in range(int((high - low).max(initial=1)).bit_length()):
            middle = (low + high) >> 1
            beyond = above(middle)
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        return low

    def _multiplied(self, x: Integers, ratio: Integers, down: int) -> Integers:
        """x · M / 2^down of numbers from 0 on."""
        remainder = self.stack.pop_uniform(ratio)
        self.lowest = min(self.lowest, self.stack.bits)
        low = ratio * (x & ((1 << down) - 1)) + remainder
        self.stack.push_bits(low, np.full(x.shape, down))
        return ratio * (x >> down) + (low >> down)

    def _divided(self, y: Integers, ratio: Integers, down: int) -> Integers:
        rest = self.stack.pop_bits(np.full(y.shape, down))
        whole, left = np.divmod(y, ratio)
        low, remainder = np.divmod((left << down) + rest, ratio)
        self.stack.push_uniform(remainder, ratio)
        return (whole << down) + low

    def _scaled(self, x: Integers, scale: Integers) -> Integers:
        ratio, up, down = _ratio(scale)
        remainder = self.stack.pop_uniform(ratio)
        extra = self.stack.pop_bits(up)
        self.lowest = min(self.lowest, self.stack.bits)
        low = ratio * (x & ((1 << down) - 1)) + remainder  # below 2^(9 + 32)
        self.stack.push_bits(low, down)
        return ((ratio * (x >> down) + (low >> down)) << up) + extra

    def _unscaled(self, y: Integers, scale: Integers) -> Integers:
        ratio, up, down = _ratio(scale)
        rest = self.stack.pop_bits(down)
        self.stack.push_bits(y, up)
        whole, left = np.divmod(y >> up, ratio)
        low, remainder = np.divmod((left << down) + rest, ratio)
        self.stack.push_uniform(remainder, ratio)
        return (whole << down) + low

    def _settled(
        self, call: int, chosen: _Chosen, log_scale: Tensor | None, shift: Tensor | None
    ) -> tuple[Integers | None, Integers | None]:
        """Both parameters as integers: the scale in steps of 1/256 bit, the shift as numbers; None is 0."""
        # The limits hold for the integers, on which encoder and decoder agree. NaN and infinity are refused before.
        scale = steps = None
        if log_scale is not None:
            values = chosen.of(log_scale)
            chosen.check(np.abs(values) * STEPS_PER_NAT < 2 * _FARTHEST)
            scale = self.rounding.settle(2 * call, to_steps(values, STEPS_PER_NAT))
            chosen.check(np.abs(scale) <= _FARTHEST)
        if shift is not None:
            values = chosen.of(shift)
            bits = min(self.bits, _SHIFT_BITS)
            chosen.check(np.abs(values) * 2.0**bits < 2 * _FARTHEST_SHIFT)
            steps = self.rounding.settle(2 * call + 1, to_steps(values, 2.0**bits))
            chosen.check(np.abs(steps) <= min(_FARTHEST_SHIFT, int(_LIMIT) >> (self.bits - bits)))
            steps <<= self.bits - bits
        return scale, steps


@final
class _Chosen:
    """Some entries of examples, as vectors.

    Attributes:
        values: the entries.
    """

    def __init__(self, x: Tensor, where: Tensor | None) -> None:
        self.x = x
        self.mask = None if where is None else where.expand(x.shape)
        self.values: Integers = self._flat(x)

    def of(self, parameter: Tensor) -> Floats:
        """The values of a parameter for these entries; those of spare examples are left out."""
        if parameter.ndim == self.x.ndim and len(parameter) > len(self.x):
            parameter = parameter[: len(self.x)]
        return self._flat(parameter.detach().double().expand(self.x.shape))

    def along(self, curve: Callable[[Tensor], Tensor], places: Integers) -> Floats:
        """The values of a map of the whole examples at some places of these entries."""
        at = torch.from_numpy(places * 2.0**-_PLACE_BITS)
        if self.mask is None:
            at = at.view(self.x.shape)
        else:
            at = torch.zeros(self.x.shape, dtype=at.dtype).masked_scatter(self.mask, at)
        return self._flat(curve(at).detach())

    def check(self, good: NDArray[np.bool_]) -> None:
        """Raise `Outside` with the examples of entries that are not good."""
        if not good.all():
            rows = torch.arange(len(self.x)).view(-1, *(1,) * (self.x.ndim - 1)).expand(self.x.shape)
            raise Outside(np.unique(self._flat(rows)[~good]))

    def replaced(self, values: Integers) -> Tensor:
        """The examples with other entries."""
        new = torch.from_numpy(values)
        return new.view(self.x.shape) if self.mask is None else self.x.masked_scatter(self.mask, new)

    def _flat(self, x: Tensor) -> NDArray[Any]:
        return (x.flatten() if self.mask is None else x[self.mask]).numpy()


def noise_mask(call: int, count: int) -> Integers:
    """Random numbers for `NumbersOfBase.draw`: what was pushed last may be untypical."""
    found = hashlib.shake_128(struct.pack("<I", call)).digest(4 * count)
    return np.frombuffer(found, "<u4").astype(np.int64) % TOTAL


def _ratio(scale: Integers) -> tuple[Integers, Integers, Integers]:
    """M, and by how many bits its product is shifted up or down."""
    down = _RATIO_BITS - (scale >> _STEP_BITS)
    return powers_of_two(scale & (STEPS_PER_BIT - 1), _RATIO_BITS), np.maximum(-down, 0), np.maximum(down, 0)


def _least_bits(model: Flow) -> int:
    """The bits that numbers need for the maps of a flow."""
    bends = any(isinstance(m, Bijection) and not isinstance(m, Affine) for m in model.modules())
    return max(_PLACE_BITS + _RISE_BITS if bends else _BITS, _LOCAL_STEP if _is_smooth(model) else 0)


def _exponent(values: Floats) -> Integers:
    """⌈log2 v⌉, exactly."""
    fraction, exponent = np.frexp(values)
    return exponent.astype(np.int64) - (fraction == 0.5)


def _most(model: Flow) -> int:
    """Examples of a group."""
    dims = model.event.dims
    entries = _MOST_DERIVATIVES // dims**2 if _is_smooth(model) else _MOST
    return max(1, min(_MOST, _MOST_ENTRIES // dims, entries))


def _is_smooth(model: Flow) -> bool:
    """Whether a step has a Jacobian that is not triangular."""
    return any(isinstance(m, Smooth) for m in model.modules())


def _runs(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Numbers of successive equal sizes, at most 255, with the size."""
    for size, group in groupby(sizes):
        count = len(list(group))
        while count:
            yield min(count, 255), size
            count -= min(count, 255)
