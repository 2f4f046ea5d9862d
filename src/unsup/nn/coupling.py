"""Couplings: one part of an example is transformed entry by entry, with parameters from a network of the other part.

    y_seen = x_seen,  y_moved = b(x_moved; net(x_seen)),  log|det ∂y/∂x| = Σ log b′

(Dinh, Krueger, Bengio 2014, https://arxiv.org/abs/1410.8516). The network is any module, since it is never inverted; b
is a `Bijection`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from unsup.core.parallel import mean_over_rows
from unsup.nn.conditions import joined
from unsup.nn.invertible import Arithmetic, Exact, Invertible
from unsup.nn.norm import uses_batch_statistics
from unsup.nn.split import Partition, Split
from unsup.prob.bijections import additive, additive_inverse, affine, affine_inverse
from unsup.prob.distributions import at_least_float32


class Bijection(nn.Module, ABC):
    """Monotone maps of all entries of ``(B, C, ...)``, with parameters ``(B, outputs_each · C, ...)`` from a network.

    Outputs are blocks along axis 1, each with the shape of the entries.

    Attributes:
        outputs_each: number of network outputs per entry.
    """

    outputs_each: int

    @abstractmethod
    def forward(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """y and log dy/dx of every entry, both of the shape of ``x`` (or a log-derivative that expands to it)."""

    @abstractmethod
    def inverse(self, y: Tensor, outputs: Tensor) -> Tensor:
        """The x that `forward` maps to ``y``."""


class Affine(Bijection):
    """Capability: the maps are y = x · exp(log_scale) + shift."""

    @abstractmethod
    def log_scale_and_shift(self, outputs: Tensor) -> tuple[Tensor | None, Tensor]:
        """The parameters of every entry, with running averages in place of batch statistics; None for log_scale 0."""


class Additive(Affine):
    """y = x + t (NICE)."""

    outputs_each = 1

    def forward(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        return additive(x, outputs)

    def inverse(self, y: Tensor, outputs: Tensor) -> Tensor:
        return additive_inverse(y, outputs)

    def log_scale_and_shift(self, outputs: Tensor) -> tuple[Tensor | None, Tensor]:
        return None, outputs


class BoundedAffine(Affine):
    """y = x exp(s) + t with s = scale · tanh(h + bias), h and t from the network, scale learned (RealNVP).

    Args:
        scale: initial scale.
        channels: number of biases, one per channel of images; 0 for none.
    """

    outputs_each = 2

    def __init__(self, scale: float = 1.0, channels: int = 0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1)) if channels else None

    def forward(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        return affine(x, *self.log_scale_and_shift(outputs))

    def inverse(self, y: Tensor, outputs: Tensor) -> Tensor:
        return affine_inverse(y, *self.log_scale_and_shift(outputs))

    def log_scale_and_shift(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        h, t = outputs.chunk(2, 1)
        return self.scale * (h if self.bias is None else h + self.bias).tanh(), t


class Normalised(Affine):
    """A bijection, followed by batch normalisation of the transformed entries (RealNVP, section 3.7, appendix E).

    y = (b(x) − μ) / √(σ² + ε) for images ``(B, C, H, W)`` adds −½ log(σ² + ε) to each log-derivative, with the same
    μ and σ²: those of each channel in the batch inside `unsup.nn.norm.batch_statistics`, else their
    running averages. The inverse uses the averages. There is no gain and no shift.

    Args:
        mask: ``(1, 1, H, W)``, the transformed entries; None: all.
    """

    running_mean: Tensor
    running_var: Tensor
    mask: Tensor | None

    def __init__(
        self,
        inner: Bijection,
        channels: int,
        mask: Tensor | None = None,
        *,
        momentum: float = 0.1,
        eps: float = 1e-4,
    ) -> None:
        super().__init__()
        self.inner, self.outputs_each = inner, inner.outputs_each
        self.momentum, self.eps = momentum, eps
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("running_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("running_var", torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        y, log_derivative = self.inner(x, outputs)
        mean, var = self._batch_moments(y) if uses_batch_statistics() else self._running_moments()
        var = var + self.eps
        return (y - mean) * var.rsqrt(), log_derivative - 0.5 * var.log()

    def inverse(self, y: Tensor, outputs: Tensor) -> Tensor:
        mean, var = self._running_moments()
        return self.inner.inverse(y * (var + self.eps).sqrt() + mean, outputs)

    def log_scale_and_shift(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Those of an affine bijection, normalised."""
        mean, var = self._running_moments()
        var = var + self.eps
        log_scale, shift = cast(Affine, self.inner).log_scale_and_shift(outputs)
        log_norm = -0.5 * var.log()
        return log_norm if log_scale is None else log_scale + log_norm, (shift - mean) * var.rsqrt()

    def _running_moments(self) -> tuple[Tensor, Tensor]:
        return at_least_float32(self.running_mean), at_least_float32(self.running_var)

    def _batch_moments(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the transformed entries of each channel; also updates the running averages."""
        count = len(y) * (math.prod(y.shape[2:]) if self.mask is None else self.mask.sum())

        def mean_of(entries: Tensor) -> Tensor:
            counted = entries if self.mask is None else entries * self.mask
            return mean_over_rows(counted.sum((0, 2, 3), keepdim=True) / count)

        mean = mean_of(y)
        var = mean_of((y - mean).square())
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)
        return mean, var


class Coupling(Invertible, Exact):
    """One part is transformed with parameters that the conditioner computes from the other.

    >>> from unsup.nn.conditioner import mlp
    >>> from unsup.nn.split import Halves
    >>> coupling = Coupling(Halves(2), mlp(2, (16,), 1), Additive())
    >>> y, log_det = coupling(torch.randn(5, 3))
    >>> y.shape, log_det.shape
    (torch.Size([5, 3]), torch.Size([5]))

    Args:
        split: splits an example into the seen and the transformed part.
        conditioner: maps the seen part to the parameters of the bijection.
    """

    def __init__(self, split: Split, conditioner: nn.Module, bijection: Bijection) -> None:
        super().__init__()
        self.split, self.conditioner, self.bijection = split, conditioner, bijection

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen, moved = self.split.parts(x)
        moved, log_derivative = self.bijection(moved, at_least_float32(self.conditioner(joined(seen, context))))
        return self.split.join(seen, moved), self.split.total(log_derivative)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        seen, moved = self.split.parts(y)
        outputs = at_least_float32(self.conditioner(joined(seen, context)))
        return self.split.join(seen, self.bijection.inverse(moved, outputs))

    def exactly(self, x: Tensor, arithmetic: Arithmetic) -> Tensor:
        seen, moved = self.split.parts(x)
        parameters = _parameters(self.conditioner, self.bijection, arithmetic.real(seen))
        return self.split.join(seen, arithmetic.affine(moved, *parameters, self.split.transformed))

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic) -> Tensor:
        seen, moved = self.split.parts(y)
        parameters = _parameters(self.conditioner, self.bijection, arithmetic.real(seen))
        return self.split.join(seen, arithmetic.affine_inverse(moved, *parameters, self.split.transformed))


class Alternating(Invertible, Exact):
    """Couplings that transform the two parts of one partition alternately, starting with the second.

    The parts are stored separately in all couplings, so that nothing is gathered or joined between them.

    Args:
        couplings: conditioner and bijection of each coupling.
    """

    def __init__(self, split: Partition, couplings: Iterable[tuple[nn.Module, Bijection]]) -> None:
        super().__init__()
        conditioners, bijections = zip(*couplings, strict=True)
        self.split = split
        self.conditioners, self.bijections = nn.ModuleList(conditioners), nn.ModuleList(bijections)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen, moved = self.split.parts(x)
        log_det = x.new_zeros(len(x))
        for conditioner, bijection in self._couplings():
            now, log_derivative = bijection(moved, at_least_float32(conditioner(joined(seen, context))))
            log_det = log_det + self.split.total(log_derivative)
            seen, moved = now, seen
        return self.split.join(*self._in_order(seen, moved)), log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        seen, moved = self._in_order(*self.split.parts(y))
        for conditioner, bijection in reversed(list(self._couplings())):
            outputs = at_least_float32(conditioner(joined(moved, context)))
            seen, moved = moved, bijection.inverse(seen, outputs)
        return self.split.join(seen, moved)

    def exactly(self, x: Tensor, arithmetic: Arithmetic) -> Tensor:
        seen, moved = self.split.parts(x)
        for conditioner, bijection in self._couplings():
            parameters = _parameters(conditioner, bijection, arithmetic.real(seen))
            seen, moved = arithmetic.affine(moved, *parameters), seen
        return self.split.join(*self._in_order(seen, moved))

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic) -> Tensor:
        seen, moved = self._in_order(*self.split.parts(y))
        for conditioner, bijection in reversed(list(self._couplings())):
            parameters = _parameters(conditioner, bijection, arithmetic.real(moved))
            seen, moved = moved, arithmetic.affine_inverse(seen, *parameters)
        return self.split.join(seen, moved)

    def _in_order(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The parts after the last coupling, which an odd number of couplings has swapped."""
        return (second, first) if len(self.bijections) % 2 else (first, second)

    def _couplings(self) -> Iterator[tuple[nn.Module, Bijection]]:
        return zip(self.conditioners, cast(Iterable[Bijection], self.bijections), strict=True)


def _parameters(conditioner: nn.Module, bijection: Bijection, seen: Tensor) -> tuple[Tensor | None, Tensor]:
    return cast(Affine, bijection).log_scale_and_shift(at_least_float32(conditioner(seen)))
