"""Bits-back coding of latent-variable models (Townsend, Bird, Barber 2019, https://arxiv.org/abs/1901.04866).

With one stack for all examples, the encoder pops a latent z ~ q(z|x), which decodes bits that are already there, pushes
x under p(x|z), and pushes z under p(z). The decoder does the same backwards and so puts the bits back. An example costs

    log q(z|x) − log p(x|z) − log p(z)

which is on average the negative bound on log p(x) with one sample.

Latents lie in 2^10 bins of equal mass under N(0, 1), so that p(z) is uniform over bins; z is the median of its bin. The
posterior mass of a bin is coded as two digits of 5 bits, the second given the first: 64 masses instead of 1024.

Examples are coded in groups, whose networks are evaluated together. A group first pops the latents of all its examples,
so groups start with a single example and grow with the stack: the initial bits are those of one example. They come from
a hash and are part of the stream; the decoder checks that they are left at the end.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator
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
)
from unsup.core.batch import Batch
from unsup.core.model import CodesLatents, IsConditional, Model

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
    """Asymmetric numeral systems with the posterior, the prior and the likelihood of a model that `CodesLatents`."""

    name, version = "bits back", 1
    capability = CodesLatents

    def __init__(self, model: Model, profile: Profile = "portable") -> None:
        super().__init__(model, profile)
        self.coded = cast(CodesLatents, self.model)
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
        if not isinstance(model, CodesLatents):
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
        runs: list[list[int]] = []
        done, popped, group = 0, math.inf, 1
        while done < len(x):
            if popped < math.inf:  # as many as the stack can pay if the latents of an example cost what they did before
                payable = max(1, int((stack.bits - 33) / (1.05 * popped + 1)))
                group = min(self.most, 1 << (payable.bit_length() - 1))
            while True:
                rows = slice(done, done + group)
                batch = Batch(x[rows], given=None if given is None else given[rows])
                before, noted = stack.bits, notes.size
                try:
                    bins = self._pop_latents(batch, stack, notes, call)
                    break
                except OutOfBits:
                    if group == 1:
                        raise
                    notes.forget(noted)
                    group //= 2
            popped = (before - stack.bits) / len(batch)
            self._push_entries(batch, bins, stack, notes, call)
            stack.push(bins, self._prior())
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
        call = sum(self._calls(rows) for rows in groups)
        parts = []
        for rows in reversed(groups):
            call -= self._calls(rows)
            given = None if classes is None else torch.from_numpy(stack.pop(classes, rows)).long()
            bins = stack.pop(self._prior(), rows * self.coded.latent_event.dims).astype(np.int64)
            x = self._pop_entries(bins, given, rows, stack, notes, call)
            self._push_latents(Batch(x, given=given), bins, stack, notes, call)
            parts.append(x)
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
        self._pop_latents(Batch(x, given=None if given is None else given[:1]), stack, Noting(), 0)
        return 4 * math.ceil((stack.initial_bits - stack.bits) / 32)

    # --- latents ----------------------------------------------------------------------------------------------------

    def _pop_latents(self, batch: Batch, stack: Stack, notes: Rounding, call: int) -> Integers:
        """Bins drawn from q(z|x), ``(B · L,)``. If bits are missing, the stack is left as it was."""
        posterior = self._posterior(batch, notes, call)
        first = stack.pop(posterior.first).astype(np.int64)
        try:
            return first * self.digits + stack.pop(posterior.second(first))
        except OutOfBits:
            stack.push(first, posterior.first)
            raise

    def _push_latents(self, batch: Batch, bins: Integers, stack: Stack, notes: Rounding, call: int) -> None:
        posterior = self._posterior(batch, notes, call)
        first = bins // self.digits
        stack.push(bins % self.digits, posterior.second(first))
        stack.push(first, posterior.first)

    def _posterior(self, batch: Batch, notes: Rounding, call: int) -> _Posterior:
        mean, log_variance = self.coded.posterior(self._beside(batch))
        return _Posterior(mean[: len(batch)], log_variance[: len(batch)], self.digits, notes, call)

    def _beside(self, batch: Batch) -> Batch:
        """The batch with spare examples, which are copies."""
        rows = torch.arange(len(batch) + self.spare) % len(batch)
        return Batch(batch.x[rows], given=None if batch.given is None else batch.given[rows])

    def _prior(self) -> Integers:
        return np.full(self.digits**2, TOTAL // self.digits**2, np.int64)

    def _latents(self, bins: Integers, rows: int) -> Tensor:
        return torch.from_numpy(bin_medians(self.digits**2)[bins]).view(rows, *self.coded.latent_event.shape)

    # --- entries ----------------------------------------------------------------------------------------------------

    def _blocks(self, rows: int) -> list[tuple[Tensor, int]]:
        """Columns whose masses are computed together, with the number of their levels."""
        return [
            (block, levels)
            for levels, columns in self.kinds.items()
            for block in columns.split(max(1, _MOST_ENTRIES // (rows * levels)))
        ]

    def _calls(self, rows: int) -> int:
        """The number of roundings of a group: two digits, and the blocks of entries."""
        return 2 + len(self._blocks(rows))

    def _entries(
        self, bins: Integers, given: Tensor | None, rows: int, notes: Rounding, call: int, backwards: bool
    ) -> Iterator[tuple[Tensor, Integers]]:
        """Blocks of columns with the frequencies of their entries, ``(B · n, levels)``."""
        beside = torch.arange(rows + self.spare) % rows
        latents = self._latents(bins, rows)[beside]
        outputs = self.coded.outputs(latents, None if given is None else given[beside])[:rows]
        blocks = list(enumerate(self._blocks(rows), start=call + 2))
        for number, (columns, levels) in reversed(blocks) if backwards else blocks:
            log_masses = self.coded.log_masses(outputs, columns).double().reshape(-1, levels).numpy()
            if levels == 2:
                odds = bernoulli_grid(np.ascontiguousarray(log_masses[:, 1] - log_masses[:, 0]))
                yield columns, bernoulli_frequencies(notes.settle(number, odds))
            else:
                yield columns, frequencies(notes.settle(number, to_grid(log_masses)))

    def _push_entries(self, batch: Batch, bins: Integers, stack: Stack, notes: Rounding, call: int) -> None:
        levels = batch.x.reshape(len(batch), -1).long() - self.low
        for columns, table in self._entries(bins, batch.given, len(batch), notes, call, backwards=False):
            stack.push(levels[:, columns].reshape(-1).numpy(), table)

    def _pop_entries(
        self, bins: Integers, given: Tensor | None, rows: int, stack: Stack, notes: Rounding, call: int
    ) -> Tensor:
        levels = torch.empty(rows, self.event.dims, dtype=torch.int64)
        for columns, table in self._entries(bins, given, rows, notes, call, backwards=True):
            levels[:, columns] = torch.from_numpy(stack.pop(table)).long().view(rows, -1)
        return (levels + self.low).to(self.event.dtype).view(rows, *self.event.shape)

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
        posterior = self._posterior(Batch(x, given=given), Noting(), 0)
        bins = 97 * np.arange(self.coded.latent_event.dims) % self.digits**2
        found = [posterior.first, posterior.second(bins // self.digits)]
        found += [table for _, table in self._entries(bins, given, 1, Noting(), 0, backwards=False)]
        return b"".join(table.astype("<i8").tobytes() for table in found)


_CLASSES = 2**32 - 1  # names the rounding of p(y)


class _Posterior:
    """Frequencies of the two digits of the bins under q(z|x) = N(mean, exp(log_variance)), ``(B, …)`` each.

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
