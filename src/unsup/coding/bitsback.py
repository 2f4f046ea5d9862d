"""Bits-back coding of latent-variable models (Townsend, Bird, Barber 2019, https://arxiv.org/abs/1901.04866).

With one stack for all examples, the encoder pops a latent z ~ q(z|x), which decodes bits that are already there, pushes
x under p(x|z), and pushes z under p(z). The decoder does the same backwards and so puts the bits back. An example costs

    log q(z|x) − log p(x|z) − log p(z)

which is on average the negative bound on log p(x) with one sample.

Latents lie in 2^10 bins of equal mass under N(0, 1), so that p(z) is uniform over bins; z is the median of its bin. The
posterior mass of a bin is coded as two digits of 5 bits, the second given the first: 64 masses instead of 1024.

Other posteriors and priors are coded by `unsup.coding.latents`.

Examples are coded in groups, whose networks are evaluated together. A group first pops the latents of all its examples,
so groups start with a single example and grow with the stack: the initial bits are those of one example. They come from
a hash and are part of the stream; the decoder checks that they are left at the end.
"""

from __future__ import annotations

import hashlib
import math
import struct
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import lru_cache
from statistics import NormalDist
from typing import cast, final

import numpy as np
import torch
from torch import Tensor

from unsup.coding.entropy import OutOfBits, Stack, StreamError
from unsup.coding.flows import Outside, Seen
from unsup.coding.notes import Noted, Noting, Rounding
from unsup.coding.scheme import Profile, Scheme
from unsup.coding.stacked import OnStack
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
from unsup.core.model import ChooseEntry, CodesLatents, IsConditional, Model

DIGITS = 32
"""Values of each of the two digits of a bin, a power of two."""

_GRID = 1 << 20  # ends and medians of bins are multiples of 2^−20: no digit of them depends on the platform
_NEAR_Q = 3.2 * NEAR  # a narrow posterior enlarges the rounding errors of its mean
_LOG_VARIANCES = -12.0, 4.0  # limits of those errors: outside, a posterior is narrower than a bin, or wider than p(z)
_MEANS = 100.0
_UNLIKELY = 32 * STEPS_PER_BIT  # below the largest mass of a row, in steps; such digits have the frequency 1
_PLAIN = 255  # in place of the exponent of an example that is coded without q
_HEAD, _RUN = struct.Struct("<IH"), struct.Struct("<BB")  # words of initial bits and runs; exponent and length of a run
_MOST = 256  # examples of a group
_MOST_ENTRIES = 1 << 22  # masses that are computed at a time


class WithLatents(Scheme):
    """Abstract: bits-back coding with asymmetric numeral systems, given how latents are popped and pushed.

    Latents are integers ``(B · L,)``.
    """

    capability = CodesLatents

    def __init__(self, model: Model, profile: Profile = "portable") -> None:
        super().__init__(model, profile)
        self.coded = cast(CodesLatents, self.model)
        self.low = torch.tensor([s.low for s in self.event.columns])
        kinds: dict[int, list[int]] = {}
        for d, support in enumerate(self.event.columns):
            kinds.setdefault(support.levels, []).append(d)
        self.kinds = {levels: torch.tensor(columns) for levels, columns in kinds.items()}
        each = max(self._masses_each(), self.coded.latent_event.dims * (DIGITS + 1))
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

    # --- latents, by subclasses ---------------------------------------------------------------------------------------

    @abstractmethod
    def _begin(self, notes: Rounding) -> None:
        """Make the tables that all groups share."""

    @abstractmethod
    def _pop_latents(self, batch: Batch, stack: Stack, notes: Rounding, call: int, plain: bool = False) -> Integers:
        """Latents drawn from q(z|x); ``plain``: from a distribution that does not depend on x, and never fails.

        Raises:
            OutOfBits, Outside: the stack is then undefined.
        """

    @abstractmethod
    def _push_latents(
        self, batch: Batch, latents: Integers, stack: Stack, notes: Rounding, call: int, plain: bool = False
    ) -> None:
        """The inverse of `_pop_latents`."""

    @abstractmethod
    def _push_prior(
        self, latents: Integers, rows: int, stack: Stack, notes: Rounding, call: int, plain: bool = False
    ) -> None:
        """Code latents of some examples under p(z)."""

    @abstractmethod
    def _pop_prior(self, rows: int, stack: Stack, notes: Rounding, call: int, plain: bool = False) -> Integers:
        """The latents that `_push_prior` has coded."""

    @abstractmethod
    def _latents(self, latents: Integers, rows: int) -> Tensor:
        """The z of integers, ``(rows, *latent_event.shape)``."""

    @abstractmethod
    def _initial_size(self, x: Tensor, given: Tensor | None) -> int:
        """The bytes, a multiple of 4, that the latents of the first example take."""

    def _calls(self, rows: int) -> int:
        """The number of roundings of a group: two for latents, and the blocks of entries."""
        return 2 + (self.event.dims if self._is_sequential else len(self._blocks(rows)))

    def _lowest(self, stack: Stack) -> int:
        """The least bits of the stack since the latents of a group were popped."""
        return stack.bits

    # --- groups -------------------------------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> bytes:
        given = self._classes(x) if self.conditional else None
        size, more = self._initial_size(x[:1], given), 4
        while True:
            try:
                return self._encode(x, given, size)
            except OutOfBits:  # a single example costs more than is on the stack: start with more initial bits
                size, more = size + more, 2 * more

    def _encode(self, x: Tensor, given: Tensor | None, size: int) -> bytes:
        stack, notes, call = Stack(initial_bytes(size)), Noting(), 0
        self._begin(notes)
        classes = self._class_frequencies(notes) if self.conditional else None
        runs: list[list[int]] = []
        done, popped, group = 0, math.inf, 1
        while done < len(x):
            group = max(1, group)
            if popped < math.inf:  # as many as the stack can pay if the latents of an example cost what they did before
                payable = max(1, int((stack.bits - 33) / (1.05 * popped + 1)))
                group = min(self.most, 1 << (payable.bit_length() - 1))
            while True:  # a group of 0 is one example without q
                rows = slice(done, done + max(1, group))
                batch = Batch(x[rows], given=None if given is None else given[rows])
                before, noted, kept = stack.bits, notes.size, stack.copy()
                try:
                    latents = self._pop_latents(batch, stack, notes, call, plain=not group)
                    popped = (before - self._lowest(stack)) / len(batch)
                    self._push_entries(batch, latents, stack, notes, call)
                    self._push_prior(latents, len(batch), stack, notes, call, plain=not group)
                    break
                except (OutOfBits, Outside) as error:
                    if group <= 1 and (isinstance(error, OutOfBits) or not group):
                        raise
                    notes.forget(noted)
                    stack = kept
                    group //= 2
            if classes is not None and batch.given is not None:
                stack.push(batch.given.numpy(), classes)
            if runs and runs[-1][0] == group and runs[-1][1] < 255:
                runs[-1][1] += 1
            else:
                runs.append([group, 1])
            done, call = done + len(batch), call + self._calls(len(batch))
        head = _HEAD.pack(size // 4, len(runs))
        head += b"".join(_RUN.pack(k.bit_length() - 1 if k else _PLAIN, times) for k, times in runs)
        return head + notes.to_bytes() + stack.to_bytes()

    def decode(self, coded: bytes, n: int) -> Tensor:
        size, groups, rest = self._head(coded, n)
        notes, rest = Noted.split(rest)
        stack = Stack.from_bytes(rest, initial_bytes(size))
        self._begin(notes)
        classes = self._class_frequencies(notes) if self.conditional else None
        call = sum(self._calls(max(1, rows)) for rows in groups)
        parts = []
        for group in reversed(groups):
            rows, plain = max(1, group), not group
            call -= self._calls(rows)
            given = None if classes is None else torch.from_numpy(stack.pop(classes, rows)).long()
            try:
                latents = self._pop_prior(rows, stack, notes, call, plain)
                x = self._pop_entries(latents, given, rows, stack, notes, call)
                self._push_latents(Batch(x, given=given), latents, stack, notes, call, plain)
            except Outside as error:
                raise StreamError("a latent beyond those of the encoder; the stream is damaged") from error
            parts.append(x)
        stack.finish()
        return torch.cat(parts[::-1])

    def _head(self, coded: bytes, n: int) -> tuple[int, list[int], bytes]:
        """The number of initial bytes, the sizes of all groups, and the rest of a stream."""
        if len(coded) < _HEAD.size:
            raise StreamError(f"a stream of {len(coded)} bytes; it was cut")
        words, count = _HEAD.unpack_from(coded)
        start, end = _HEAD.size, _HEAD.size + count * _RUN.size
        if end > len(coded) or 4 * words > self._mostinitial_bytes(n):
            raise StreamError(f"{count} runs of groups and {4 * words} initial bytes; the stream is damaged")
        groups: list[int] = []
        left = n
        for exponent, times in _RUN.iter_unpack(coded[start:end]):
            for _ in range(times):
                if left <= 0 or (exponent != _PLAIN and 1 << exponent > self.most):
                    raise StreamError(f"a group of 2^{exponent} with {left} examples left; the stream is damaged")
                groups.append(0 if exponent == _PLAIN else min(left, 1 << exponent))
                left -= max(1, groups[-1])
        if left:
            raise StreamError(f"groups of {n - left} examples in total; expected {n}: the stream is damaged")
        return 4 * words, groups, coded[end:]

    def _mostinitial_bytes(self, n: int) -> int:
        """Initial bytes are fewer: twice what the latents of all examples can cost."""
        return 4096 + 16 * n * self.coded.latent_event.dims

    def _beside(self, batch: Batch) -> Batch:
        """The batch with spare examples, which are copies."""
        rows = torch.arange(len(batch) + self.spare) % len(batch)
        return Batch(batch.x[rows], given=None if batch.given is None else batch.given[rows])

    # --- entries ----------------------------------------------------------------------------------------------------

    def _blocks(self, rows: int) -> list[tuple[Tensor, int]]:
        """Columns whose masses are computed together, with the number of their levels."""
        return [
            (block, levels)
            for levels, columns in self.kinds.items()
            for block in columns.split(max(1, _MOST_ENTRIES // (rows * levels)))
        ]

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
        if self._is_sequential:
            visit = self._visit(bins, batch.given, len(batch))
            OnStack(len(batch), self.spare, notes, call + 2).push(visit, levels.numpy().astype(np.uint64), stack)
            return
        for columns, table in self._entries(bins, batch.given, len(batch), notes, call, backwards=False):
            stack.push(levels[:, columns].reshape(-1).numpy(), table)

    def _pop_entries(
        self, bins: Integers, given: Tensor | None, rows: int, stack: Stack, notes: Rounding, call: int
    ) -> Tensor:
        if self._is_sequential:
            popped = OnStack(rows, self.spare, notes, call + 2).pop(
                self._visit(bins, given, rows), self.event.dims, stack
            )
            levels = torch.from_numpy(popped.astype(np.int64))
        else:
            levels = torch.empty(rows, self.event.dims, dtype=torch.int64)
            for columns, table in self._entries(bins, given, rows, notes, call, backwards=True):
                levels[:, columns] = torch.from_numpy(stack.pop(table)).long().view(rows, -1)
        return (levels + self.low).to(self.event.dtype).view(rows, *self.event.shape)

    @property
    def _is_sequential(self) -> bool:
        """Whether the entries are coded one after the other."""
        return self.coded.codes_in_turn

    def _masses_each(self) -> int:
        """Masses of an example that are held at a time."""
        if self._is_sequential:
            return sum(support.levels for support in self.event.columns)
        return max(self.kinds)

    def _visit(self, bins: Integers, given: Tensor | None, rows: int) -> Callable[[ChooseEntry], None]:
        beside = torch.arange(rows + self.spare) % rows
        z = self._latents(bins, rows)[beside]
        return lambda choose: self.coded.visit_entries(z, choose, given=None if given is None else given[beside])

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
        found, bins = self._canary_of_latents(Batch(x, given=given))
        if self._is_sequential:
            seen = Seen()
            OnStack(1, 0, seen, 0).push(self._visit(bins, given, 1), np.zeros((1, self.event.dims), np.uint64), Stack())
            return b"".join(table.astype("<i8").tobytes() for table in found) + bytes(seen.found)
        found += [table for _, table in self._entries(bins, given, 1, Noting(), 0, backwards=False)]
        return b"".join(table.astype("<i8").tobytes() for table in found)

    @abstractmethod
    def _canary_of_latents(self, batch: Batch) -> tuple[list[Integers], Integers]:
        """Integers that reach the coder for one example, and some latents of it."""


@final
class BitsBack(WithLatents):
    """Latents with a diagonal Gaussian q(z|x) and p(z) = N(0, I) in bins of equal mass under p(z)."""

    name, version = "bits back", 1

    def __init__(self, model: Model, profile: Profile = "portable") -> None:
        super().__init__(model, profile)
        self.digits = DIGITS

    @classmethod
    def reason_against(cls, model: Model) -> str | None:
        reason = super().reason_against(model)
        if reason is None and isinstance(model, CodesLatents) and not model.has_standard_latents:
            return "has latents that are not Gaussians of independent entries"
        return reason

    def _begin(self, notes: Rounding) -> None:
        """The bins are the same for all models."""

    def _initial_size(self, x: Tensor, given: Tensor | None) -> int:
        stack = Stack(initial_bytes(4 * (2 * self.coded.latent_event.dims + 2)))  # each digit takes at most 24 bits
        self._pop_latents(Batch(x, given=None if given is None else given[:1]), stack, Noting(), 0)
        return 4 * math.ceil((stack.initial_bits - stack.bits) / 32)

    def _pop_latents(self, batch: Batch, stack: Stack, notes: Rounding, call: int, plain: bool = False) -> Integers:
        posterior = self._posterior(batch, notes, call)
        first = stack.pop(posterior.first).astype(np.int64)
        return first * self.digits + stack.pop(posterior.second(first))

    def _push_latents(
        self, batch: Batch, latents: Integers, stack: Stack, notes: Rounding, call: int, plain: bool = False
    ) -> None:
        posterior = self._posterior(batch, notes, call)
        first = latents // self.digits
        stack.push(latents % self.digits, posterior.second(first))
        stack.push(first, posterior.first)

    def _push_prior(
        self, latents: Integers, rows: int, stack: Stack, notes: Rounding, call: int, plain: bool = False
    ) -> None:
        stack.push(latents, self._prior())

    def _pop_prior(self, rows: int, stack: Stack, notes: Rounding, call: int, plain: bool = False) -> Integers:
        return stack.pop(self._prior(), rows * self.coded.latent_event.dims).astype(np.int64)

    def _posterior(self, batch: Batch, notes: Rounding, call: int) -> _Posterior:
        mean, log_variance = self.coded.posterior(self._beside(batch))
        return _Posterior(mean[: len(batch)], log_variance[: len(batch)], self.digits, notes, call)

    def _prior(self) -> Integers:
        return np.full(self.digits**2, TOTAL // self.digits**2, np.int64)

    def _latents(self, latents: Integers, rows: int) -> Tensor:
        return torch.from_numpy(bin_medians(self.digits**2)[latents]).view(rows, *self.coded.latent_event.shape)

    def _canary_of_latents(self, batch: Batch) -> tuple[list[Integers], Integers]:
        posterior = self._posterior(batch, Noting(), 0)
        bins = 97 * np.arange(self.coded.latent_event.dims) % self.digits**2
        return [posterior.first, posterior.second(bins // self.digits)], bins


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
def initial_bytes(size: int) -> bytes:
    """Initial bytes. Longer ones differ at the bottom only, so that what is popped from the top stays the same."""
    return hashlib.shake_256(b"initial bits").digest(size)[::-1]
