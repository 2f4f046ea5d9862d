"""Bits-back coding with any posterior that places noise exactly, and any prior that is a flow or visits its entries.

As `unsup.coding.bitsback`, but latents are fixed-point numbers of 17 bits after the point, on which maps are exact
(`unsup.coding.flows`):

1. Noise ε ~ N(0, I) is popped, and the posterior maps it to z: its scale and shift, entry by entry where it is a
   Gaussian with dependent entries, and the steps of its flow. The maps of `unsup.coding.flows` pop and push bits, so
   that z costs log q(z|x): exactly for affine and autoregressive steps; by local bits-back for planar and Sylvester
   steps, whose noise has a standard deviation of 2^−11.
2. x is pushed under p(x|z).
3. z is pushed under p(z): under N(0, I), through the steps of a flow, or entry by entry under the conditionals
   p(z_d|z_<d) of a model in cells of 2^−12, and its place in the cell.

So each example costs log q(z|x) − log p(x|z) − log p(z), up to rounding, whose mean is the negative bound with one
sample. An example whose latents are beyond the numbers is coded without q: its z is noise, for which it pays and which
it gets back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.coding.bitsback import WithLatents, initial_bytes
from unsup.coding.entropy import Stack, StreamError
from unsup.coding.flows import Modular, NumbersOfBase, Outside, Seen, noise_mask
from unsup.coding.notes import Noting, Rounding
from unsup.coding.reals import Line, Scale, Values
from unsup.coding.scheme import Profile
from unsup.coding.stacked import OnStack
from unsup.coding.tables import Floats, Integers
from unsup.core.batch import Batch
from unsup.core.model import ChooseEntry, CodesEntries, CodesLatents, Model, VisitEntries
from unsup.nn.flow import Flow
from unsup.nn.invertible import Arithmetic, Exact, Smooth
from unsup.nn.posterior import CodesExactLatents

_BITS = 17  # after the point: the precision of smooth steps
_CELL_BITS = 12  # after the point, of the cells of entries that are visited,
_RANGE = 1 << 7  # which are within ±2^7
_PLACE_BITS = _BITS - _CELL_BITS
_NOISE, _PRIOR = ((1 << 32) - k for k in (5, 6))  # roundings of their tables


@final
class LatentsInIntegers(WithLatents):
    """Latents as fixed-point numbers."""

    name, version = "bits back in integers", 1
    capability = CodesLatents

    def __init__(self, model: Model, profile: Profile = "portable") -> None:
        super().__init__(model, profile)
        self.own = cast(CodesExactLatents, self.model)
        self.dims = self.own.latent_event.dims
        with torch.no_grad():
            self.prior = self.own.coded_prior
        for step in self.model.modules():
            if isinstance(step, Smooth):
                step.freeze()
        # of the posterior and of the prior, of a group
        self.maps = self._count_of_posterior(), self._count_of_prior()

    @classmethod
    def reason_against(cls, model: Model) -> str | None:
        reason = super().reason_against(model)
        if reason is None and not isinstance(model, CodesExactLatents):
            return "has latents that are not placed exactly"
        return reason

    def _begin(self, notes: Rounding) -> None:
        dtype = torch.promote_types(self.model.dtype, torch.float32)
        self.arithmetic = Modular(Stack(), notes, _BITS, dtype, self.spare, smooth=True)
        self.noise = NumbersOfBase(torch.special.ndtr, _BITS, _NOISE, notes, drawn=True, short=True)
        cdf = self.prior.exact_cdf if isinstance(self.prior, Flow) else torch.special.ndtr
        self.base = NumbersOfBase(cdf, _BITS, _PRIOR, notes)

    def _count_of_posterior(self) -> int:
        counted, start = _Counted(self.model.dtype), torch.zeros(1, self.dims, dtype=torch.int64)
        given = torch.zeros(1, dtype=torch.int64) if self.conditional else None
        batch = Batch(self.event.lowest(torch.zeros(0, dtype=self.event.dtype))[None], given=given)
        self.own.approximation(batch).exactly(start, counted)
        return counted.calls

    def _count_of_prior(self) -> int:
        if not isinstance(self.prior, Flow):
            return 0
        counted = _Counted(self.model.dtype)
        cast(Exact, self.prior.flow).exactly(torch.zeros(1, self.dims, dtype=torch.int64), counted)
        return 1 + counted.calls

    def _calls(self, rows: int) -> int:
        return self._of_entries(rows) + 2 * (sum(self.maps) + 2) + self.dims * len(_LINE.shifts)

    def _initial_size(self, x: Tensor, given: Tensor | None) -> int:
        size = 64
        notes = Noting()
        self._begin(notes)
        stack = Stack(initial_bytes(size * self.dims + 64))
        batch = Batch(x, given=None if given is None else given[:1])
        try:
            self._pop_latents(batch, stack, 0, plain=False)
        except Outside:
            self._pop_latents(batch, stack := Stack(initial_bytes(size * self.dims + 64)), 0, plain=True)
        return 4 * math.ceil((stack.initial_bits - self._lowest(stack)) / 32)

    def _first(self, rows: int, call: int) -> int:
        """The number of the first map of a group, so that no rounding has the number of another one."""
        return (call + self._of_entries(rows) + 4) // 2

    def _code(self, batch: Batch, stack: Stack, notes: Rounding, call: int, *, plain: bool) -> int:
        latents = self._pop_latents(batch, stack, call, plain)
        lowest = self._lowest(stack)
        self.push_entries(batch.x, self._outputs(latents, batch.given, len(batch)), stack, notes, call + 2)
        self._push_prior(latents, len(batch), stack, notes, call, plain)
        return lowest

    def _restore(
        self, rows: int, given: Tensor | None, stack: Stack, notes: Rounding, call: int, *, plain: bool
    ) -> Tensor:
        latents = self._pop_prior(rows, stack, notes, call, plain)
        x = self.pop_entries(self._outputs(latents, given, rows), rows, stack, notes, call + 2)
        self._push_latents(Batch(x, given=given), latents, stack, call, plain)
        return x

    def _outputs(self, latents: Integers, given: Tensor | None, rows: int) -> Tensor | VisitEntries:
        """The outputs of the model at latents ``(B · L,)``, or a visit of its entries."""
        z = torch.from_numpy(latents * 2.0**-_BITS).view(rows, *self.own.latent_event.shape)
        z, beside = self.with_spare(z), None if given is None else self.with_spare(given)
        if self.own.codes_in_turn:
            return lambda choose: self.own.visit_entries(z, choose, given=beside)
        return self.own.outputs(z, beside)

    def _lowest(self, stack: Stack) -> int:
        """The least bits of the stack since the latents of a group were popped."""
        return min(self.arithmetic.lowest, stack.bits)

    def _pop_latents(self, batch: Batch, stack: Stack, call: int, plain: bool) -> Integers:
        """Latents drawn from q(z|x), ``(B · L,)``."""
        arithmetic, n = self.arithmetic, len(batch)
        arithmetic.stack, arithmetic.lowest = stack, stack.bits
        noise = np.zeros((n, self.dims), np.int64)
        for column, mask in enumerate(self._masks(call, n)):  # together they would need more bits for a moment
            noise[:, column] = self.noise.draw(stack, mask)
            arithmetic.lowest = min(arithmetic.lowest, stack.bits)
        if plain:
            return noise.ravel()
        first = arithmetic.calls = self._first(n, call)
        q = self.own.approximation(self._beside(batch))
        z = q.exactly(torch.from_numpy(noise), arithmetic)
        assert arithmetic.calls == first + self.maps[0]
        return z.numpy().ravel()

    def _push_latents(self, batch: Batch, latents: Integers, stack: Stack, call: int, plain: bool) -> None:
        """The inverse of `_pop_latents`."""
        n, arithmetic = len(batch), self.arithmetic
        if not plain:
            first = self._first(n, call)
            arithmetic.stack, arithmetic.calls = stack, first + self.maps[0]
            q = self.own.approximation(self._beside(batch))
            latents = q.exactly_inverse(torch.from_numpy(latents).view(n, self.dims), arithmetic).numpy().ravel()
            assert arithmetic.calls == first
            if (np.abs(latents + 0.5) > 8 << _BITS).any():
                raise StreamError("noise beyond that of the encoder; the stream is damaged")
        for noise, mask in reversed(list(zip(latents.reshape(n, -1).T, self._masks(call, n), strict=True))):
            self.noise.undraw(stack, np.ascontiguousarray(noise), mask)

    def _masks(self, call: int, n: int) -> Integers:
        """Random numbers for the draws of each latent, ``(L, n)``."""
        return noise_mask(call, n * self.dims).reshape(self.dims, n)

    def _push_prior(self, latents: Integers, rows: int, stack: Stack, notes: Rounding, call: int, plain: bool) -> None:
        """Code latents under p(z)."""
        if isinstance(self.prior, CodesEntries) and not plain:
            stack.push_bits(latents, np.full(latents.shape, _PLACE_BITS))
            offsets = (latents >> _PLACE_BITS).reshape(rows, self.dims) - _LINE.low
            _check((offsets >= 0) & (offsets < _LINE.count))
            self._turns(rows, notes, call).push(self._visit_prior(rows), offsets.astype(np.uint64), stack)
            return
        if isinstance(self.prior, Flow) and not plain:
            arithmetic, first = self.arithmetic, self._first(rows, call) + self.maps[0]
            arithmetic.stack, arithmetic.calls = stack, first
            z = arithmetic.affine(torch.from_numpy(latents).view(rows, self.dims), *_front(self.prior))
            latents = cast(Exact, self.prior.flow).exactly(z, arithmetic).reshape(-1).numpy()
            assert arithmetic.calls == first + self.maps[1]
        self.base.push(stack, latents)

    def _pop_prior(self, rows: int, stack: Stack, notes: Rounding, call: int, plain: bool) -> Integers:
        """The latents that `_push_prior` has coded."""
        if isinstance(self.prior, CodesEntries) and not plain:
            found = self._turns(rows, notes, call).pop(self._visit_prior(rows), self.dims, stack)
            cells = (found.astype(np.int64) + _LINE.low).ravel()
            return (cells << _PLACE_BITS) + stack.pop_bits(np.full(cells.shape, _PLACE_BITS))
        latents = self.base.pop(stack, rows * self.dims)
        if isinstance(self.prior, Flow) and not plain:
            arithmetic, first = self.arithmetic, self._first(rows, call) + self.maps[0]
            arithmetic.stack, arithmetic.calls = stack, first + self.maps[1]
            y = cast(Exact, self.prior.flow).exactly_inverse(torch.from_numpy(latents).view(rows, -1), arithmetic)
            latents = arithmetic.affine_inverse(y, *_front(self.prior)).numpy().ravel()
            assert arithmetic.calls == first
        return latents

    def _turns(self, rows: int, notes: Rounding, call: int) -> OnStack:
        first = 2 * (self._first(rows, call) + sum(self.maps))
        return OnStack(rows, self.spare, notes, first, _LINE)

    def _visit_prior(self, rows: int) -> Callable[[ChooseEntry], None]:
        prior = cast(CodesEntries, self.prior)
        return lambda choose: prior.visit(rows + self.spare, choose)

    def _canary(self, batch: Batch) -> bytes:
        seen = Seen()
        self._begin(seen)
        stack = Stack(initial_bytes(256 * self.dims))
        try:
            latents = self._pop_latents(batch, stack, 0, plain=False)
            self._push_prior(latents, 1, stack, seen, 0, plain=False)
        except Outside:  # of one untypical example
            latents = self._pop_latents(batch, stack, 0, plain=True)
        return bytes(seen.found) + self.entries_seen(self._outputs(latents, batch.given, 1))


@final
class _Counted(Arithmetic):
    """Counts maps as `Modular` does, and changes no number."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.calls = dtype, 0

    def real(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)

    def affine(self, x: Tensor, log_scale: Tensor | None, shift: Tensor | None, where: Tensor | None = None) -> Tensor:
        self.calls += 1
        return x

    def affine_inverse(
        self, y: Tensor, log_scale: Tensor | None, shift: Tensor | None, where: Tensor | None = None
    ) -> Tensor:
        raise NotImplementedError

    def monotone(self, x: Tensor, curve: Callable[[Tensor], Tensor], where: Tensor | None = None) -> Tensor:
        self.calls += 1
        return x

    def monotone_inverse(self, y: Tensor, curve: Callable[[Tensor], Tensor], where: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def smooth(self, x: Tensor, step: Smooth, context: Tensor | None) -> Tensor:
        self.calls += 2 + x[0].numel()  # two for the noise
        return x

    def smooth_inverse(self, y: Tensor, step: Smooth, context: Tensor | None) -> Tensor:
        raise NotImplementedError


@final
@dataclass(frozen=True)
class _Cells(Scale):
    """Cells of width 2^−12, which stand for their middles."""

    @property
    def number(self) -> int:
        raise NotImplementedError  # the line is the same for all models, and in no stream

    @property
    def ends(self) -> tuple[int, int]:
        return -_RANGE << _CELL_BITS, _RANGE << _CELL_BITS

    def integers(self, values: Values) -> Integers:
        return np.floor(values.astype(np.float64) * 2.0**_CELL_BITS).astype(np.int64)

    def values(self, integers: Integers, dtype: np.dtype[Any]) -> Values:
        return ((integers + 0.5) * 2.0**-_CELL_BITS).astype(dtype)

    def edges(self, integers: Integers, step: int) -> Floats:
        return cast(Floats, integers * 2.0**-_CELL_BITS)


_LINE = Line(_Cells(), -_RANGE << _CELL_BITS, 1, 2 * _RANGE << _CELL_BITS)


def _front(prior: Flow) -> tuple[Tensor, Tensor]:
    """Logarithm of the scale and shift of the front of a flow, ``(1, L)`` each."""
    std = prior.front.std.double()[None]
    return -std.log(), -prior.front.mean.double()[None] / std


def _check(good: NDArray[np.bool_]) -> None:
    if not good.all():
        raise Outside(np.flatnonzero(~good.all(1)))
