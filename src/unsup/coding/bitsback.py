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

Posteriors and priors that are not such Gaussians are coded by `unsup.coding.latents`, discrete latents by
`unsup.coding.choices`.

Examples are coded in groups, whose networks are evaluated together. A group first pops the latents of all its examples,
so groups start with a single example and grow with the stack: the initial bits are those of one example. They come from
a hash and are part of the stream; the decoder checks that they are left at the end.
"""

from __future__ import annotations

import hashlib
import math
import struct
from abc import abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from statistics import NormalDist
from typing import ClassVar, cast, final

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
    to_steps,
)
from unsup.core.batch import Batch
from unsup.core.model import (
    CodesByLatents,
    CodesLatents,
    CodesLayers,
    IsConditional,
    LayerCoder,
    Model,
    Moments,
    VisitEntries,
)

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


def mass_table(log_masses: Tensor, notes: Rounding, number: int) -> Integers:
    """The frequencies of rows of log-masses ``(N, levels)``, of which rounding ``number`` is settled."""
    values = log_masses.double().numpy()
    if values.shape[1] == 2:
        odds = bernoulli_grid(np.ascontiguousarray(values[:, 1] - values[:, 0]))
        return bernoulli_frequencies(notes.settle(number, odds))
    return frequencies(notes.settle(number, to_grid(values)))


class WithLatents(Scheme):
    """Abstract: bits-back coding with asymmetric numeral systems, given how a group of examples is coded."""

    capability: ClassVar[type[CodesByLatents]]

    def __init__(self, model: Model, profile: Profile = "portable") -> None:
        super().__init__(model, profile)
        self.coded = cast(CodesByLatents, self.model)
        self.low = torch.tensor([s.low for s in self.event.columns])
        kinds: dict[int, list[int]] = {}
        for d, support in enumerate(self.event.columns):
            kinds.setdefault(support.levels, []).append(d)
        self.kinds = {levels: torch.tensor(columns) for levels, columns in kinds.items()}
        each = max(self._masses_each(), self._masses_of_latents())
        self.most = min(_MOST, 1 << (max(1, _MOST_ENTRIES // each).bit_length() - 1))
        self.conditional = isinstance(model, IsConditional) and model.given is not None

    @classmethod
    def reason_against(cls, model: Model) -> str | None:
        if not isinstance(model, cls.capability):
            return "has no such latents with a posterior"
        if model.event.missing:
            return "has missing entries, which are not coded"
        if not model.event.is_discrete:
            return "has real entries, which are not coded"
        if max(s.levels for s in model.event.columns) > MAX_SYMBOLS:
            return f"has entries of more than {MAX_SYMBOLS:,} levels"
        if isinstance(model, IsConditional) and model.given is not None and not model.classes:
            return "has a condition that is not a class"
        return model.reason_against_bits_back()

    # --- latents, by subclasses ---------------------------------------------------------------------------------------

    @abstractmethod
    def _begin(self, notes: Rounding) -> None:
        """Make the tables that all groups share."""

    @abstractmethod
    def _code(self, batch: Batch, stack: Stack, notes: Rounding, call: int, *, plain: bool) -> int:
        """Push a group, and return the least number of bits that were on the stack.

        Args:
            call: the number of the first rounding of the group, which has `_calls`.
            plain: draw latents from a distribution that does not depend on x, and never fails.

        Raises:
            OutOfBits, Outside: the stack is then undefined.
        """

    @abstractmethod
    def _restore(
        self, rows: int, given: Tensor | None, stack: Stack, notes: Rounding, call: int, *, plain: bool
    ) -> Tensor:
        """The raw examples of a group that `_code` has pushed.

        Raises:
            Outside, StreamError: the stream is damaged.
        """

    @abstractmethod
    def _initial_size(self, x: Tensor, given: Tensor | None) -> int:
        """The bytes, a multiple of 4, that the latents of the first example take."""

    @abstractmethod
    def _calls(self, rows: int) -> int:
        """The number of roundings of a group."""

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
                    lowest = self._code(batch, stack, notes, call, plain=not group)
                    break
                except (OutOfBits, Outside) as error:
                    if group <= 1 and (isinstance(error, OutOfBits) or not group):
                        raise
                    notes.forget(noted)
                    stack = kept
                    group //= 2
            popped = (before - lowest) / len(batch)
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
                parts.append(self._restore(rows, given, stack, notes, call, plain=plain))
            except Outside as error:
                raise StreamError("a latent beyond those of the encoder; the stream is damaged") from error
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
                if left <= 0 or (exponent != _PLAIN and 1 << exponent > self.most):
                    raise StreamError(f"a group of 2^{exponent} with {left} examples left; the stream is damaged")
                groups.append(0 if exponent == _PLAIN else min(left, 1 << exponent))
                left -= max(1, groups[-1])
        if left:
            raise StreamError(f"groups of {n - left} examples in total; expected {n}: the stream is damaged")
        return 4 * words, groups, coded[end:]

    def _most_initial(self, n: int) -> int:
        """Initial bytes are fewer: twice what the latents of all examples can cost."""
        return 4096 + 16 * n * self.coded.latent_count

    def _beside(self, batch: Batch) -> Batch:
        """The batch with spare examples, which are copies."""
        return Batch(self.with_spare(batch.x), given=None if batch.given is None else self.with_spare(batch.given))

    def with_spare(self, each: Tensor) -> Tensor:
        """One row for each example of a group, and copies for the spare ones."""
        return each[torch.arange(len(each) + self.spare) % len(each)]

    # --- entries ----------------------------------------------------------------------------------------------------

    def _blocks(self, rows: int) -> list[tuple[Tensor, int]]:
        """Columns whose masses are computed together, with the number of their levels."""
        return [
            (block, levels)
            for levels, columns in self.kinds.items()
            for block in columns.split(max(1, _MOST_ENTRIES // (rows * levels)))
        ]

    def _of_entries(self, rows: int) -> int:
        """The number of roundings of the entries of a group."""
        return self.event.dims if self.coded.codes_in_turn else len(self._blocks(rows))

    def _masses_of_latents(self) -> int:
        """The same of the latents."""
        return self.coded.latent_count * (DIGITS + 1)

    def _masses_each(self) -> int:
        """Masses of an example that are held at a time."""
        return sum(s.levels for s in self.event.columns) if self.coded.codes_in_turn else max(self.kinds)

    def tables(
        self, outputs: Tensor, rows: int, notes: Rounding, call: int, *, backwards: bool = False
    ) -> Iterator[tuple[Tensor, Integers]]:
        """Blocks of columns with the frequencies of their entries, ``(B · n, levels)``."""
        blocks = list(enumerate(self._blocks(rows), start=call))
        for number, (columns, levels) in reversed(blocks) if backwards else blocks:
            log_masses = self.coded.log_masses(outputs[:rows], columns).reshape(-1, levels)
            yield columns, mass_table(log_masses, notes, number)

    def push_entries(self, x: Tensor, given: Tensor | VisitEntries, stack: Stack, notes: Rounding, call: int) -> None:
        """Code raw examples ``(B, *event.shape)`` given the outputs of a model, or a visit of all entries."""
        levels = x.reshape(len(x), -1).long() - self.low
        if not isinstance(given, Tensor):
            OnStack(len(x), self.spare, notes, call).push(given, levels.numpy().astype(np.uint64), stack)
            return
        for columns, table in self.tables(given, len(x), notes, call):
            stack.push(levels[:, columns].reshape(-1).numpy(), table)

    def pop_entries(self, given: Tensor | VisitEntries, rows: int, stack: Stack, notes: Rounding, call: int) -> Tensor:
        """The raw examples that `push_entries` has coded."""
        if isinstance(given, Tensor):
            levels = torch.empty(rows, self.event.dims, dtype=torch.int64)
            for columns, table in self.tables(given, rows, notes, call, backwards=True):
                levels[:, columns] = torch.from_numpy(stack.pop(table)).long().view(rows, -1)
        else:
            popped = OnStack(rows, self.spare, notes, call).pop(given, self.event.dims, stack)
            levels = torch.from_numpy(popped.astype(np.int64))
        return (levels + self.low).to(self.event.dtype).view(rows, *self.event.shape)

    def entries_seen(self, given: Tensor | VisitEntries) -> bytes:
        """What the coder would use for the entries of one example."""
        if isinstance(given, Tensor):
            return b"".join(table.astype("<i8").tobytes() for _, table in self.tables(given, 1, Noting(), 0))
        seen = Seen()
        OnStack(1, self.spare, seen, 0).push(given, np.zeros((1, self.event.dims), np.uint64), Stack())
        return bytes(seen.found)

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
        return self._canary(Batch(x, given=torch.zeros(1, dtype=torch.int64) if self.conditional else None))

    @abstractmethod
    def _canary(self, batch: Batch) -> bytes:
        """What reaches the coder for one example."""


@final
class BitsBack(WithLatents):
    """Layers of latents with diagonal Gaussians q and p, in bins of equal mass under a Gaussian."""

    name, version = "bits back", 1
    capability = CodesLayers

    def __init__(self, model: Model, profile: Profile = "portable") -> None:
        super().__init__(model, profile)
        self.own = cast(CodesLayers, self.model)
        self.digits, self.layers = DIGITS, len(self.own.layer_sizes)
        self.frames: list[_Frame | None] = []

    @classmethod
    def reason_against(cls, model: Model) -> str | None:
        reason = super().reason_against(model)
        if reason is None and isinstance(model, CodesLatents) and not model.has_standard_latents:
            return "has latents that are not Gaussians of independent entries"
        return reason

    def _begin(self, notes: Rounding) -> None:
        """The fixed frames of all layers; None is N(0, I)."""
        self.frames = []
        for layer, spread in enumerate(self.own.spread()):
            if spread is None:
                self.frames.append(None)
                continue
            mean, log_variance = (own.double().numpy() for own in spread)
            name = _FRAMES - 2 * layer
            exponent = notes.settle(name, to_steps(log_variance / (2 * math.log(2)), 1.0)).clip(-40, 40)
            scale = np.ldexp(1.0, exponent)
            centre = notes.settle(name - 1, to_steps((mean / scale).clip(-1e6, 1e6), 4.0)) / 4 * scale
            self.frames.append((torch.from_numpy(centre), torch.from_numpy(scale)))

    def _initial_size(self, x: Tensor, given: Tensor | None) -> int:
        stack = Stack(initial_bytes(4 * (2 * self.own.latent_count + 2)))  # each digit takes at most 24 bits
        notes = Noting()
        self._begin(notes)
        batch = Batch(x, given=None if given is None else given[:1])
        lowest = self._code(batch, stack, notes, 0, plain=False)
        return 4 * math.ceil((stack.initial_bits - lowest) / 32)

    def _calls(self, rows: int) -> int:
        """Two digits of all posteriors, and of all priors but the last, and the entries."""
        return 4 * self.layers - 2 + self._of_entries(rows)

    def _code(self, batch: Batch, stack: Stack, notes: Rounding, call: int, *, plain: bool) -> int:
        coder = _Coding(self, stack, notes, call, batch)
        self.own.code(self._beside(batch), coder)
        return coder.lowest

    def _restore(
        self, rows: int, given: Tensor | None, stack: Stack, notes: Rounding, call: int, *, plain: bool
    ) -> Tensor:
        if plain:
            raise StreamError("an example that is coded without its posterior; the stream is damaged")
        coder = _Restoring(self, stack, notes, call, rows)
        self.own.restore(rows + self.spare, None if given is None else self.with_spare(given), coder)
        return coder.x

    def prior(self) -> Integers:
        """The frequencies of the bins of a layer whose frame is its prior."""
        return np.full(self.digits**2, TOTAL // self.digits**2, np.int64)

    def of_priors(self, rows: int) -> int:
        """The number of the first rounding of a prior, within those of a group."""
        return 2 * self.layers + self._of_entries(rows)

    def _canary(self, batch: Batch) -> bytes:
        notes = Noting()
        self._begin(notes)
        coder = _Listing(self, Stack(), notes, 0, batch)
        self.own.code(self._beside(batch), coder)
        return bytes(coder.found)


_CLASSES = 2**32 - 1  # names the rounding of p(y)
_FRAMES = _CLASSES - 1  # and, downwards, those of fixed frames
_Frame = tuple[Tensor, Tensor]
"""Centre and scale of the bins of a layer, ``(L,)`` or ``(B, L)`` each."""


class _Walk(LayerCoder):
    """The latents of a group of examples on a stack.

    Attributes:
        lowest: the smallest number of bits that were on the stack.
        of_posteriors, of_entries, of_priors: where the names of their roundings start.
    """

    def __init__(
        self,
        scheme: BitsBack,
        stack: Stack,
        notes: Rounding,
        call: int,
        rows: int,
    ) -> None:
        self.scheme, self.stack, self.notes = scheme, stack, notes
        self.rows, self.lowest = rows, stack.bits
        self.bins: dict[int, Integers] = {}
        self.of_posteriors, self.of_entries = call, call + 2 * scheme.layers
        self.of_priors = call + scheme.of_priors(rows)

    def _frame(self, layer: int, frame: Moments | None) -> _Frame | None:
        return self.scheme.frames[layer] if frame is None else (frame[0].double(), (0.5 * frame[1].double()).exp())

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
        found = self.scheme.with_spare(torch.from_numpy(bin_medians(digits**2)[self.bins[layer]]).view(rows, -1))
        return found if frame is None else frame[0] + frame[1] * found

    def _pop(self, layer: int, under: Moments | None, frame: Moments | None, call: int) -> Tensor:
        own, digits, size = self._frame(layer, frame), self.scheme.digits, self.scheme.own.layer_sizes[layer]
        if under is None:
            self.bins[layer] = self.stack.pop(self.scheme.prior(), self.rows * size).astype(np.int64)
        else:
            table = self._digits(under, own, call + 2 * layer)
            first = self.stack.pop(table.first).astype(np.int64)
            self.bins[layer] = first * digits + self.stack.pop(table.second(first))
        self.lowest = min(self.lowest, self.stack.bits)
        return self._placed(layer, own)

    def _push(self, layer: int, under: Moments | None, frame: Moments | None, call: int) -> None:
        bins, digits = self.bins[layer], self.scheme.digits
        if under is None:
            self.stack.push(bins, self.scheme.prior())
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
        batch: Batch,
    ) -> None:
        super().__init__(scheme, stack, notes, call, len(batch))
        self.x = batch.x

    def pop(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> Tensor:
        return self._pop(layer, under, frame, self.of_posteriors)

    def push(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> None:
        self._push(layer, under, frame, self.of_priors)

    def entries(self, given: Tensor | VisitEntries) -> Tensor:
        self.scheme.push_entries(self.x, given, self.stack, self.notes, self.of_entries)
        return self.x


@final
class _Restoring(_Walk):
    """Pops latents under priors, and entries, and pushes latents under posteriors."""

    x: Tensor

    def pop(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> Tensor:
        return self._pop(layer, under, frame, self.of_priors)

    def push(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> None:
        self._push(layer, under, frame, self.of_posteriors)

    def entries(self, given: Tensor | VisitEntries) -> Tensor:
        self.x = self.scheme.pop_entries(given, self.rows, self.stack, self.notes, self.of_entries)
        return self.scheme.with_spare(self.x)


@final
class _Listing(_Walk):
    """Codes nothing: keeps the frequencies of one example with fixed bins."""

    def __init__(
        self,
        scheme: BitsBack,
        stack: Stack,
        notes: Rounding,
        call: int,
        batch: Batch,
    ) -> None:
        super().__init__(scheme, stack, notes, call, len(batch))
        self.x, self.found = batch.x, bytearray()

    def _list(self, layer: int, under: Moments | None, frame: Moments | None, call: int) -> None:
        if under is not None:
            table = self._digits(under, self._frame(layer, frame), call + 2 * layer)
            for digit in (table.first, table.second(self.bins[layer] // self.scheme.digits)):
                self.found += digit.astype("<i8").tobytes()

    def pop(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> Tensor:
        self.bins[layer] = 97 * np.arange(self.scheme.own.layer_sizes[layer]) % self.scheme.digits**2
        self._list(layer, under, frame, self.of_posteriors)
        return self._placed(layer, self._frame(layer, frame))

    def push(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> None:
        self._list(layer, under, frame, self.of_priors)

    def entries(self, given: Tensor | VisitEntries) -> Tensor:
        self.found += self.scheme.entries_seen(given)
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
def initial_bytes(size: int) -> bytes:
    """Initial bytes. Longer ones differ at the bottom only, so that what is popped from the top stays the same."""
    return hashlib.shake_256(b"initial bits").digest(size)[::-1]
