"""The map from raw data to the input of a continuous model, and its inverse, with the Jacobian."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus

from unsup.core import random
from unsup.core.event import Event
from unsup.prob.distributions import at_least_float32, log_mean_exp

_MOST_ENTRIES = 2**14  # of examples with several noise draws in one pass: small ones cost little more than one
_LOCATION = ("levels", "low", "mean", "std")  # buffers with the precision of the data
_ROUNDING = 1e-8  # of the mean: smaller standard deviations are computed in one careful pass


class Dequantizer(nn.Module, ABC):
    """q(u | x): noise in [0, 1) within the cells of discrete entries."""

    @abstractmethod
    def forward(self, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Raw data ``(B, *shape)``, floating → u of that shape and log q(u | x), ``(B,)`` or ``()``."""


class UniformDequantizer(Dequantizer):
    """u ~ U[0, 1) (Theis, van den Oord, Bethge 2016, https://arxiv.org/abs/1511.01844)."""

    def forward(self, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        return random.uniform(x.shape, generator, like=x), x.new_zeros(())


class ContinuousFront(nn.Module):
    """Dequantise, scale, optionally logit, standardise: raw x ⇄ centred real y, log-determinant included.

    With u ~ U[0, 1) on discrete entries and u = 0 on real ones,
    v = (x − low + u) / K (discrete), v = x (real); then, for discrete entries when ``logit_alpha`` is given,
    v ← logit(α + (1 − 2α) v); y = (v − mean) / std. Uniform dequantisation makes log p(y) + log|det dy/dx| a lower
    bound on the discrete log-likelihood (Theis, van den Oord, Bethge 2016, https://arxiv.org/abs/1511.01844), which
    another ``dequantizer`` makes tighter; the logit is RealNVP's (Dinh, Sohl-Dickstein, Bengio 2017,
    https://arxiv.org/abs/1605.08803).

    Locations and scales keep the precision of the data if the model is cast to another type; y has the type of the
    model.

    Args:
        event: binary, ordinal, real, or a table that mixes them.
        logit_alpha: α of the logit, or None for no logit.
        dequantizer: q(u | x); None is uniform.
    """

    discrete: Tensor
    levels: Tensor
    low: Tensor
    mean: Tensor
    std: Tensor
    like: Tensor

    def __init__(
        self, event: Event, *, logit_alpha: float | None = None, dequantizer: Dequantizer | None = None
    ) -> None:
        super().__init__()
        self.event, self.logit_alpha = event, logit_alpha
        self.dequantizer = dequantizer or UniformDequantizer()
        columns = event.columns
        discrete = torch.tensor([s.is_discrete for s in columns]).view(event.shape)
        self.all_real = not bool(discrete.any())
        self.register_buffer("discrete", discrete, persistent=False)
        self.register_buffer("levels", _column([max(s.levels, 1) for s in columns], event), persistent=False)
        self.register_buffer("low", _column([s.low for s in columns], event), persistent=False)
        self.register_buffer("mean", torch.zeros(event.shape))
        self.register_buffer("std", torch.ones(event.shape))
        self.register_buffer("like", torch.zeros(()), persistent=False)  # has the type in which the model computes
        self._apply(lambda t: t)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        kept = {name: self._buffers[name] for name in _LOCATION}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            now = self._buffers[name]
            assert now is not None
            assert before is not None
            self._buffers[name] = in_precision_of(self.event, before, now)
        return self

    def prepare(self, x: Tensor, *, generator: Generator) -> None:
        """Set ``mean`` and ``std`` of every entry from training data ``(N, *shape)``; a constant entry keeps std 1.

        Missing entries do not count.
        """
        v = self.dequantize(x, generator=generator).double()
        v = v if self.all_real else self._unit(v)[0]
        if self.event.missing:
            mean = v.nanmean(0).nan_to_num(0.0)
            std = (v - mean).square().nanmean(0).sqrt()
        else:
            mean = v.mean(0)
            std = (v - mean).square_().mean(0).sqrt_()  # faster than `Tensor.std` over the first axis
            small = std <= _ROUNDING * mean.abs()
            if bool(small.any()):  # the rounding of the mean would matter: that of a constant must be 0
                std[small] = v[:, small].std(0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, torch.ones_like(std)))

    def dequantize(self, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Raw data with noise added to discrete entries, in float64 if x is, else in the type of the model."""
        return self.noisy(x, generator=generator)[0]

    def noisy(self, x: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """`dequantize`, and log q of the noise, ``(B,)`` or ``()``."""
        x = self.floating(x)
        if self.all_real:
            return x, x.new_zeros(())
        noise, log_q = self.dequantizer(x, generator)
        return x + noise * self.discrete, log_q

    def floating(self, x: Tensor) -> Tensor:
        """Raw data in the type for computing its position."""
        self.event.check_shape(x)
        return x.to(torch.float64 if x.dtype == torch.float64 else self.mean.dtype)

    def middle(self, x: Tensor) -> Tensor:
        """y of raw data, discrete entries at the middle of their cell: ``(B, *shape)`` → the same shape."""
        x = self.floating(x)
        if self.all_real:
            return self._affine(x)
        x = x + 0.5 * self.discrete
        if self.logit_alpha is None:
            return self._affine(x)
        y: Tensor = self(x)[0]
        return y

    def _affine(self, x: Tensor) -> Tensor:
        """y without a logit: one pass over x."""
        y = (x - (self.low + self.levels * self.mean)) / (self.levels * self.std)
        return y.to(self.like.dtype)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Dequantised raw data → (y, log|det dy/dx|): ``(B, *shape)`` → ``(B, *shape)``, ``(B,)``."""
        if self.event.missing:
            return self._missing(x)
        if self.logit_alpha is None or self.all_real:  # a log-determinant of the front alone
            log_det = -(self.levels.log() + self.std.log()).sum()
            return self._affine(x), self._summed(log_det).expand(len(x))
        v, log_det = self._unit(x)
        y = (v - self.mean) / self.std
        log_det = log_det - self.std.log().expand_as(v)
        return y.to(self.like.dtype), self._summed(log_det.flatten(1).sum(1))

    def log_derivatives(self, x: Tensor) -> Tensor:
        """log|dy_d/dx_d| of each entry of dequantised raw data: ``(B, *shape)`` → ``(B, D)``; `forward` sums it."""
        _, log_derivative = self._unit(x)
        log_derivative = log_derivative - self.std.log()
        if self.event.missing:
            log_derivative = log_derivative.masked_fill(x.isnan(), 0.0)
        return self._summed(log_derivative.flatten(1))

    def _missing(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` where entries may be missing: their y is NaN, and they add nothing to the log-determinant."""
        v, _ = self._unit(x)
        return ((v - self.mean) / self.std).to(self.like.dtype), self.log_derivatives(x).sum(1)

    def _summed(self, log_det: Tensor) -> Tensor:
        """Logarithms in the type of the model, but at least float32."""
        return log_det.to(at_least_float32(self.like).dtype)

    def _unit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Everything before standardisation, with the log-derivative of each entry."""
        v = (x - self.low) / self.levels
        log_derivative = -self.levels.log().expand_as(v).to(v.dtype)
        if self.logit_alpha is None or self.all_real:
            return v, log_derivative
        alpha = self.logit_alpha
        # The logit of a real entry is not used; 0.5 keeps the unused branch finite in the backward pass.
        inside = alpha + (1 - 2 * alpha) * torch.where(self.discrete, v, torch.full_like(v, 0.5))
        logit = inside.log() - (-inside).log1p()
        extra = math.log(1 - 2 * alpha) + softplus(logit) + softplus(-logit)
        return torch.where(self.discrete, logit, v), log_derivative + extra * self.discrete

    def units(self, entry: int) -> tuple[Tensor, Tensor]:
        """Centre and spread with y = (x − centre) / spread of one flattened entry, without a logit: ``()`` each."""
        centre, spread = (self.low + self.levels * self.mean).flatten(), (self.levels * self.std).flatten()
        return centre[entry], spread[entry]

    def invert(self, y: Tensor) -> Tensor:
        """The inverse of `forward`: continuous raw data, not yet rounded to the support."""
        v = at_least_float32(y) * self.std + self.mean
        if self.logit_alpha is not None and not self.all_real:
            alpha = self.logit_alpha
            v = torch.where(self.discrete, (v.sigmoid() - alpha) / (1 - 2 * alpha), v)
        return v * self.levels + self.low

    def to_support(self, x: Tensor) -> Tensor:
        """Continuous raw data → raw data: discrete entries are floored and clamped to their levels."""
        if self.all_real:
            return x.to(self.event.dtype)
        top = self.low + self.levels - 1
        return torch.where(self.discrete, torch.minimum(torch.maximum(x.floor(), self.low), top), x).to(
            self.event.dtype
        )


def dequantized_log_prob(
    front: ContinuousFront,
    density: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    samples: int = 1,
    average: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """log p(x) of raw data from a density over y: exact on real data, else a bound that increases with ``samples``.

    log P(x) ≥ E[log (1/S) Σ_s p(y(x + u_s)) |det dy/dx| / q(u_s | x)].

    Args:
        density: log-density of y, ``(s B, *shape)`` → ``(s B,)``: s draws of the noise, each of all examples.
        samples: number S of noise draws per example; ignored for real data, unless the density is an estimate.
        average: E[(1/S) Σ_s log …] instead, which does not increase: for densities with an estimated logarithm, since
            the exponential of an unbiased estimate is too large on average.
    """
    count = 1 if front.all_real and not average else samples
    at_once = max(1, _MOST_ENTRIES // max(1, x.numel()))
    draws = []
    for start in range(0, count, at_once):
        noisy, log_q = zip(
            *(front.noisy(x, generator=generator) for _ in range(min(at_once, count - start))), strict=True
        )
        y, log_det = front(torch.cat(noisy))
        found = density(y) + log_det
        draws += [part - q for part, q in zip(found.split(len(x)) if len(x) else [found], log_q, strict=False)]
    if count == 1:
        return draws[0]
    return torch.stack(draws).mean(0) if average else log_mean_exp(torch.stack(draws), 0)


class LogitFront(ContinuousFront):
    """A front with a logit, whose α is saved with the model.

    Args:
        event: with discrete entries.
        logit_alpha: α.
        earlier_alpha: what files without a record of it stand for; 0 means none.
    """

    def __init__(
        self, event: Event, *, logit_alpha: float, earlier_alpha: float, dequantizer: Dequantizer | None = None
    ) -> None:
        super().__init__(event, logit_alpha=logit_alpha, dequantizer=dequantizer)
        self.later_state = {"_extra_state": earlier_alpha}

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.logit_alpha or 0.0, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.logit_alpha = float(state) or None


def usual_alpha(event: Event) -> float | None:
    """α of the logit: 1e-6 for grey images and 0.05 for colours; None for other events, which have no logit.

    (Papamakarios, Pavlakou, Murray 2017; Chen et al. 2019, in their code.)
    """
    if not (event.is_image and event.is_discrete):
        return None
    return 1e-6 if event.shape[0] == 1 else 0.05


def in_precision_of(event: Event, before: Tensor, now: Tensor) -> Tensor:
    """A buffer in raw units after a cast of the model: it keeps the precision that the data needs."""
    if event.needs_float64:
        return before.to(now.device, torch.float64)
    return before.to(now.device, torch.float32) if now.dtype in (torch.float16, torch.bfloat16) else now


def _column(values: list[int], event: Event) -> Tensor:
    dtype = torch.float64 if event.needs_float64 else torch.get_default_dtype()
    return torch.tensor(values, dtype=dtype).view(event.shape)
