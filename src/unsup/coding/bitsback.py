"""Bits-back coding of latent-variable models (Townsend, Bird, Barber 2019, https://arxiv.org/abs/1901.04866).

With one stack for all examples, the encoder pops a latent z ~ q(z|x), which decodes bits that are already there, pushes
x under p(x|z), and pushes z under p(z). The decoder does the same backwards and so puts the bits back. An example costs

    log q(z|x) − log p(x|z) − log p(z)

which is on average the negative bound on log p(x) with one sample.

Latents lie in 2^10 bins of equal mass under N(0, 1), so that p(z) is uniform over bins; z is the median of its bin. The
posterior mass of a bin is coded as two digits of 5 bits, the second given the first: 64 masses instead of 1024.

With several layers, the posteriors that are drawn from the top are coded in bins of equal mass under the prior of each
layer given those above (Townsend, Bird, Kunze, Barber 2020, https://arxiv.org/abs/1912.09953). A chain q(z_1|x)
q(z_2|z_1) … is coded recursively: x is pushed before z_2 is popped, z_1 before z_3, so that the initial bits do not
grow with the number of layers (Kingma, Abbeel, Ho 2019, https://arxiv.org/abs/1905.06845). Its lower layers are popped
before their priors are known, and have bins of equal mass under a fixed Gaussian near all samples of the prior, whose
deviation is a power of two.

Examples are coded in groups, whose networks are evaluated together. A group first pops the latents of all its examples,
so groups start with a single example and grow with the stack: the initial bits are those of one example. They come from
a hash and are part of the stream; the decoder checks that they are left at the end.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import cast, final

import numpy as np
import torch
from torch import Tensor

from unsup.coding.entropy import OutOfBits, Stack, StreamError
from unsup.coding.notes import Noted, Noting, Rounding
from unsup.coding.scheme import Profile, Scheme
from unsup.coding.tables import (
    MAX_SYMBOLS,
    NEAR,
    STEPS_PER_BIT,
    TOTAL,
    Integers,
    bernoulli_frequencies,
    bernoulli_grid,
    frequencies,
    to_grid,
    to_steps,
)
from unsup.core.batch import Batch
from unsup.core.model import CodesLayers, IsConditional, LayerCoder, Model, Moments

DIGITS = 32
"""Values of each of the two digits of a bin, a power of two."""

_GRID = 1 << 20  # ends and medians of bins are multiples of 2^−20: no digit of them depends on the platform
_NEAR_Q = 3.2 * NEAR  # a narrow posterior enlarges the rounding errors of its mean
_LOG_VARIANCES = -12.0, 4.0  # limits of those errors: outside, a posterior is narrower than a bin, or wider than p(z)
_MEANS = 100.0
_UNLIKELY = 32 * STEPS_PER_BIT  # below the largest mass of a row, in steps; such digits have the frequency 1
_HEAD, _RUN = struct.Struct("<IH"), struct.Struct("<BB")  # words of initial bits and runs; exponent and length of a run
_MOST = 256  # examples of a group
_MOST_ENTRIES = 1 << 22  # masses that are computed at a time


@final
class BitsBack(Scheme):
    """Asymmetric numeral systems with the posterior, the prior and the likelihood of a model that `CodesLayers`."""

    name, version = "bits back", 1
    capability = CodesLayers

    def __init__(self, model: Model, profile: Profile = "portable") -> None:
        super().__init__(model, profile)
        self.coded = cast(CodesLayers, self.model)
        self.digits = DIGITS
        self.low = torch.tensor([s.low for s in self.event.columns])
        kinds: dict[int, list[int]] = {}
        for d, support in enumerate(self.event.columns):
            kinds.setdefault(support.levels, []).append(d)
        self.kinds = {levels: torch.tensor(columns) for levels, columns in kinds.items()}
        each = max(max(self.kinds), self.coded.latent_event.dims * (DIGITS + 1))
        self.most = min(_MOST, 1 << (max(1, _MOST_ENTRIES // each).bit_length() - 1))
        self.conditional = isinstance(model, IsConditional) and model.given is not None

    @classmethod
    def reason_against(cls, model: Model) -> str | None:
        if not isinstance(model, CodesLayers):
            return "has no latents with a posterior"
        if model.event.missing:
            return "has missing entries, which are not coded"
        if not model.event.is_discrete:
            return "has real entries, which are not coded"
        if max(s.levels for s in model.event.columns) > MAX_SYMBOLS:
            return f"has entries of more than {MAX_SYMBOLS:,} levels"
        if isinstance(model, IsConditional) and model.given is not None and not model.classes:
            return "has a condition that is not a class"
        return model.reason_against_coding()

    def encode(self, x: Tensor) -> bytes:
        given = self._classes(x) if self.conditional else None
        size, more = self._initial_size(x[:1], given), 4
        while True:
            try:
                return self._encode(x, given, size)
            except OutOfBits:  # a single example costs more than is on the stack: start with more initial bits
                size, more = size + more, 2 * more

    def _encode(self, x: Tensor, given: Tensor | None, size: int) -> bytes:
        stack, notes, call = Stack(_initial(size)), Noting(), 0
        classes = self._class_frequencies(notes) if self.conditional else None
        frames = self._frames(notes)
        runs: list[list[int]] = []
        done, popped, group = 0, math.inf, 1
        while done < len(x):
            if popped < math.inf:  # as many as the stack can pay if the latents of an example cost what they did before
                payable = max(1, int((stack.bits - 33) / (1.05 * popped + 1)))
                group = min(self.most, 1 << (payable.bit_length() - 1))
            while True:
                rows = slice(done, done + group)
                batch = Batch(x[rows], given=None if given is None else given[rows])
                before, noted = stack.copy(), notes.size
                try:
                    coder = _Coding(self, stack, notes, call, frames, batch)
                    self.coded.code(self._beside(batch), coder)
                    break
                except OutOfBits:
                    if group == 1:
                        raise
                    stack = before
                    notes.forget(noted)
                    group //= 2
            popped = (before.bits - coder.lowest) / len(batch)
            if classes is not None and batch.given is not None:
                stack.push(batch.given.numpy(), classes)
            if runs and runs[-1][0] == group and runs[-1][1] < 255:
                runs[-1][1] += 1
            else:
                runs.append([group, 1])
            done, call = done + len(batch), call + self._calls(len(batch))
        head = _HEAD.pack(size // 4, len(runs)) + b"".join(_RUN.pack(k.bit_length() - 1, times) for k, times in runs)
        return head + notes.to_bytes() + stack.to_bytes()

    def decode(self, coded: bytes, n: int) -> Tensor:
        size, groups, rest = self._head(coded, n)
        notes, rest = Noted.split(rest)
        stack = Stack.from_bytes(rest, _initial(size))
        classes = self._class_frequencies(notes) if self.conditional else None
        frames = self._frames(notes)
        call = sum(self._calls(rows) for rows in groups)
        parts = []
        for rows in reversed(groups):
            call -= self._calls(rows)
            given = None if classes is None else torch.from_numpy(stack.pop(classes, rows)).long()
            coder = _Restoring(self, stack, notes, call, frames, rows)
            beside = None if given is None else given[torch.arange(rows + self.spare) % rows]
            self.coded.restore(rows + self.spare, beside, coder)
            parts.append(coder.x)
        stack.finish()
        return torch.cat(parts[::-1])

    def _head(self, coded: bytes, n: int) -> tuple[int, list[int], bytes]:
        """The number of initial bytes, the sizes of all groups, and the rest of a stream."""
        if len(coded) < _HEAD.size:
            raise StreamError(f"a stream of {len(coded)} bytes; it was cut")
        words, count = _HEAD.unpack_from(coded)
        start, end = _HEAD.size, _HEAD.size + count * _RUN.size
        if end > len(coded) or 4 * words > self._most_initial(n):
            raise StreamError(f"{count} runs of groups and {4 * words} initial bytes; the stream is damaged")
        groups: list[int] = []
        left = n
        for exponent, times in _RUN.iter_unpack(coded[start:end]):
            for _ in range(times):
                if left <= 0 or 1 << exponent > self.most:
                    raise StreamError(f"a group of {1 << exponent} with {left} examples left; the stream is damaged")
                groups.append(min(left, 1 << exponent))
                left -= groups[-1]
        if left:
            raise StreamError(f"groups of {n - left} examples in total; expected {n}: the stream is damaged")
        return 4 * words, groups, coded[end:]

    def _most_initial(self, n: int) -> int:
        """Initial bytes are fewer: twice what the latents of all examples can cost."""
        return 4096 + 16 * n * self.coded.latent_event.dims

    def _initial_size(self, x: Tensor, given: Tensor | None) -> int:
        """The bytes, a multiple of 4, that the latents of the first example take."""
        stack = Stack(_initial(4 * (2 * self.coded.latent_event.dims + 2)))  # each digit takes at most 24 bits
        batch, notes = Batch(x, given=None if given is None else given[:1]), Noting()
        coder = _Coding(self, stack, notes, 0, self._frames(notes), batch)
        self.coded.code(self._beside(batch), coder)
        return 4 * math.ceil((stack.initial_bits - coder.lowest) / 32)

    # --- latents ----------------------------------------------------------------------------------------------------

    def _frames(self, notes: Rounding) -> list[_Frame | None]:
        """The fixed frames of all layers; None is N(0, I)."""
        found: list[_Frame | None] = []
        for layer, spread in enumerate(self.coded.spread()):
            if spread is None:
                found.append(None)
                continue
            mean, log_variance = (own.double().numpy() for own in spread)
            name = _FRAMES - 2 * layer
            exponent = notes.settle(name, to_steps(log_variance / (2 * math.log(2)), 1.0)).clip(-40, 40)
            scale = np.ldexp(1.0, exponent)
            centre = notes.settle(name - 1, to_steps((mean / scale).clip(-1e6, 1e6), 4.0)) / 4 * scale
            found.append((torch.from_numpy(centre), torch.from_numpy(scale)))
        return found

    def _beside(self, batch: Batch) -> Batch:
        """The batch with spare examples, which are copies."""
        rows = torch.arange(len(batch) + self.spare) % len(batch)
        return Batch(batch.x[rows], given=None if batch.given is None else batch.given[rows])

    def _prior(self) -> Integers:
        return np.full(self.digits**2, TOTAL // self.digits**2, np.int64)

    # --- entries ----------------------------------------------------------------------------------------------------

    def _blocks(self, rows: int) -> list[tuple[Tensor, int]]:
        """Columns whose masses are computed together, with the number of their levels."""
        return [
            (block, levels)
            for levels, columns in self.kinds.items()
            for block in columns.split(max(1, _MOST_ENTRIES // (rows * levels)))
        ]

    def _calls(self, rows: int) -> int:
        """The number of roundings of a group: two digits of all posteriors and priors but the last, and the blocks."""
        return 4 * len(self.coded.layer_sizes) - 2 + len(self._blocks(rows))

    def _tables(
        self, outputs: Tensor, rows: int, notes: Rounding, call: int, backwards: bool
    ) -> Iterator[tuple[Tensor, Integers]]:
        """Blocks of columns with the frequencies of their entries, ``(B · n, levels)``."""
        blocks = list(enumerate(self._blocks(rows), start=call + 2 * len(self.coded.layer_sizes)))
        for number, (columns, levels) in reversed(blocks) if backwards else blocks:
            log_masses = self.coded.log_masses(outputs[:rows], columns).double().reshape(-1, levels).numpy()
            if levels == 2:
                odds = bernoulli_grid(np.ascontiguousarray(log_masses[:, 1] - log_masses[:, 0]))
                yield columns, bernoulli_frequencies(notes.settle(number, odds))
            else:
                yield columns, frequencies(notes.settle(number, to_grid(log_masses)))

    # --- classes ----------------------------------------------------------------------------------------------------

    def _classes(self, x: Tensor) -> Tensor:
        """The class with the largest p(y) p(x|y), by a bound with one draw; any class is correct, this one is short."""
        model, generator = cast(IsConditional, self.model), torch.Generator().manual_seed(0)
        with torch.no_grad():
            each = [model.log_prob_each_class(Batch(part), generator=generator) for part in x.split(self.most)]
        return (torch.cat(each) + model.log_class_prior()).argmax(1)

    def _class_frequencies(self, notes: Rounding) -> Integers:
        log_prior = cast(IsConditional, self.model).log_class_prior().double().numpy()
        return frequencies(notes.settle(_CLASSES, to_grid(log_prior[None])))[0]

    def canary(self) -> bytes:
        x = self.event.lowest(torch.zeros(0, dtype=self.event.dtype))[None]
        given = torch.zeros(1, dtype=torch.int64) if self.conditional else None
        notes = Noting()
        coder = _Listing(self, Stack(), notes, 0, self._frames(notes), Batch(x, given=given))
        self.coded.code(self._beside(Batch(x, given=given)), coder)
        return b"".join(table.astype("<i8").tobytes() for table in coder.tables)


_CLASSES = 2**32 - 1  # names the rounding of p(y)
_FRAMES = _CLASSES - 1  # and, downwards, those of fixed frames
_Frame = tuple[Tensor, Tensor]
"""Centre and scale of the bins of a layer, ``(L,)`` or ``(B, L)`` each."""


class _Walk(LayerCoder):
    """The latents of a group of examples on a stack.

    Attributes:
        lowest: the smallest number of bits that were on the stack.
        of_posteriors, of_priors: where the names of the roundings of Gaussians start; those of entries lie between.
    """

    def __init__(
        self,
        scheme: BitsBack,
        stack: Stack,
        notes: Rounding,
        call: int,
        frames: Sequence[_Frame | None],
        rows: int,
    ) -> None:
        self.scheme, self.stack, self.notes, self.call, self.frames = scheme, stack, notes, call, frames
        self.rows, self.lowest = rows, stack.bits
        self.bins: dict[int, Integers] = {}
        self.of_posteriors = call
        self.of_priors = call + 2 * len(scheme.coded.layer_sizes) + len(scheme._blocks(rows))

    def _frame(self, layer: int, frame: Moments | None) -> _Frame | None:
        return self.frames[layer] if frame is None else (frame[0].double(), (0.5 * frame[1].double()).exp())

    def _digits(self, under: Moments, frame: _Frame | None, call: int) -> _Digits:
        """The Gaussian in units of the frame."""
        mean, log_variance = (own[: self.rows].double() for own in under)
        if frame is not None:
            centre, scale = (own if own.ndim == 1 else own[: self.rows] for own in frame)
            mean, log_variance = (mean - centre) / scale, log_variance - 2 * scale.log()
        return _Digits(mean, log_variance, self.scheme.digits, self.notes, call)

    def _placed(self, layer: int, frame: _Frame | None) -> Tensor:
        """The medians of the bins, with those of spare examples."""
        rows, digits = self.rows, self.scheme.digits
        found = torch.from_numpy(bin_medians(digits**2)[self.bins[layer]]).view(rows, -1)
        found = found[torch.arange(rows + self.scheme.spare) % rows]
        return found if frame is None else frame[0] + frame[1] * found

    def _pop(self, layer: int, under: Moments | None, frame: Moments | None, call: int) -> Tensor:
        own, digits, size = self._frame(layer, frame), self.scheme.digits, self.scheme.coded.layer_sizes[layer]
        if under is None:
            self.bins[layer] = self.stack.pop(self.scheme._prior(), self.rows * size).astype(np.int64)
        else:
            table = self._digits(under, own, call + 2 * layer)
            first = self.stack.pop(table.first).astype(np.int64)
            self.bins[layer] = first * digits + self.stack.pop(table.second(first))
        self.lowest = min(self.lowest, self.stack.bits)
        return self._placed(layer, own)

    def _push(self, layer: int, under: Moments | None, frame: Moments | None, call: int) -> None:
        bins, digits = self.bins[layer], self.scheme.digits
        if under is None:
            self.stack.push(bins, self.scheme._prior())
            return
        table = self._digits(under, self._frame(layer, frame), call + 2 * layer)
        first = bins // digits
        self.stack.push(bins % digits, table.second(first))
        self.stack.push(first, table.first)


@final
class _Coding(_Walk):
    """Pops latents under posteriors, and pushes entries, and latents under priors."""

    def __init__(
        self,
        scheme: BitsBack,
        stack: Stack,
        notes: Rounding,
        call: int,
        frames: Sequence[_Frame | None],
        batch: Batch,
    ) -> None:
        super().__init__(scheme, stack, notes, call, frames, len(batch))
        self.x = batch.x

    def pop(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> Tensor:
        return self._pop(layer, under, frame, self.of_posteriors)

    def push(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> None:
        self._push(layer, under, frame, self.of_priors)

    def entries(self, outputs: Tensor) -> Tensor:
        levels = self.x.reshape(self.rows, -1).long() - self.scheme.low
        for columns, table in self.scheme._tables(outputs, self.rows, self.notes, self.call, backwards=False):
            self.stack.push(levels[:, columns].reshape(-1).numpy(), table)
        return self.x


@final
class _Restoring(_Walk):
    """Pops latents under priors, and entries, and pushes latents under posteriors."""

    x: Tensor

    def pop(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> Tensor:
        return self._pop(layer, under, frame, self.of_priors)

    def push(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> None:
        self._push(layer, under, frame, self.of_posteriors)

    def entries(self, outputs: Tensor) -> Tensor:
        event, rows = self.scheme.event, self.rows
        levels = torch.empty(rows, event.dims, dtype=torch.int64)
        for columns, table in self.scheme._tables(outputs, rows, self.notes, self.call, backwards=True):
            levels[:, columns] = torch.from_numpy(self.stack.pop(table)).long().view(rows, -1)
        self.x = (levels + self.scheme.low).to(event.dtype).view(rows, *event.shape)
        return self.x[torch.arange(rows + self.scheme.spare) % rows]


@final
class _Listing(_Walk):
    """Codes nothing: lists the frequencies of one example with fixed bins."""

    def __init__(
        self,
        scheme: BitsBack,
        stack: Stack,
        notes: Rounding,
        call: int,
        frames: Sequence[_Frame | None],
        batch: Batch,
    ) -> None:
        super().__init__(scheme, stack, notes, call, frames, len(batch))
        self.x, self.tables = batch.x, list[Integers]()

    def _list(self, layer: int, under: Moments | None, frame: Moments | None, call: int) -> None:
        if under is not None:
            table = self._digits(under, self._frame(layer, frame), call + 2 * layer)
            self.tables += [table.first, table.second(self.bins[layer] // self.scheme.digits)]

    def pop(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> Tensor:
        self.bins[layer] = 97 * np.arange(self.scheme.coded.layer_sizes[layer]) % self.scheme.digits**2
        self._list(layer, under, frame, self.of_posteriors)
        return self._placed(layer, self._frame(layer, frame))

    def push(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> None:
        self._list(layer, under, frame, self.of_priors)

    def entries(self, outputs: Tensor) -> Tensor:
        tables = self.scheme._tables(outputs, self.rows, self.notes, self.call, backwards=False)
        self.tables += [table for _, table in tables]
        return self.x


class _Digits:
    """Frequencies of the two digits of the bins under N(mean, exp(log_variance)), in units of the frame, ``(B, L)``.

    Attributes:
        first: of the first digits, ``(B · L, digits)``.
    """

    def __init__(self, mean: Tensor, log_variance: Tensor, digits: int, notes: Rounding, call: int) -> None:
        self._mean = mean.double().reshape(-1, 1).clamp(-_MEANS, _MEANS)
        self._inverse = (-0.5 * log_variance.double().reshape(-1, 1).clamp(*_LOG_VARIANCES)).exp()
        self._ends, self._digits, self._notes, self._call = bin_ends(digits**2), digits, notes, call
        self._steps = self._settled(torch.from_numpy(self._ends[::digits]), call)
        self.first = frequencies(self._steps)

    def second(self, first: Integers) -> Integers:
        """Frequencies of the second digits given the first ones ``(B · L,)``: ``(B · L, digits)``."""
        ends = self._ends[first[:, None] * self._digits + np.arange(self._digits + 1)]
        steps = self._settled(torch.from_numpy(ends), self._call + 1)
        # Far in a tail, where floating-point numbers are inaccurate, any distribution is good enough. This is decided
        # by integers, which are the same everywhere.
        chosen = np.take_along_axis(self._steps, first[:, None], 1)
        return frequencies(np.where(self._steps.max(1, keepdims=True) - chosen > _UNLIKELY, 0, steps))

    def _settled(self, ends: Tensor, call: int) -> Integers:
        log_masses = log_cell_masses((ends - self._mean) * self._inverse).numpy()
        return self._notes.settle(call, to_grid(log_masses, _NEAR_Q))


def log_cell_masses(ends: Tensor) -> Tensor:
    """log(Φ(b) − Φ(a)) of the cells between neighbouring ends: ``(…, K + 1)`` → ``(…, K)``.

    With E(t) = erfcx(t / √2), Φ(−t) = ½ exp(−t²/2) E(t) for t ≥ 0, which neither overflows nor is 0. A cell on one side
    of 0, with |t| from m to n, has the mass ½ exp(−m²/2) (E(m) − exp((m² − n²)/2) E(n)).

    >>> cells = log_cell_masses(torch.tensor([-torch.inf, -1.0, 0.5, 60.0, torch.inf], dtype=torch.float64))
    >>> [round(float(m), 4) for m in cells]
    [-1.841, -0.6296, -1.1759, -1805.0136]
    """
    distance = ends.abs()
    scaled = torch.special.erfcx(distance / math.sqrt(2))
    low, high = distance[..., :-1], distance[..., 1:]
    m, n = torch.minimum(low, high), torch.maximum(low, high)
    at_m, at_n = torch.maximum(scaled[..., :-1], scaled[..., 1:]), torch.minimum(scaled[..., :-1], scaled[..., 1:])
    beside = -0.5 * m.square() + (0.5 * (at_m - (0.5 * (m - n) * (m + n)).exp() * at_n)).log()
    tails = 0.5 * (-0.5 * distance.square()).exp() * scaled
    around = torch.log1p(-tails[..., :-1] - tails[..., 1:])
    return torch.where((ends[..., :-1] < 0) & (ends[..., 1:] > 0), around, beside)


@lru_cache(maxsize=4)
def bin_ends(bins: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The ends of the bins, −∞ to ∞: quantiles of N(0, 1), rounded to multiples of 2^−20."""
    return np.array([-math.inf, *(_rounded(k / bins) for k in range(1, bins)), math.inf])


@lru_cache(maxsize=4)
def bin_medians(bins: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The medians of the bins, rounded to multiples of 2^−20."""
    return np.array([_rounded((2 * k + 1) / (2 * bins)) for k in range(bins)])


def _rounded(probability: float) -> float:
    return round(NormalDist().inv_cdf(probability) * _GRID) / _GRID


@lru_cache(maxsize=8)
def _initial(size: int) -> bytes:
    """Initial bytes. Longer ones differ at the bottom only, so that what is popped from the top stays the same."""
    return hashlib.shake_256(b"initial bits").digest(size)[::-1]
