"""Bijections: monotone maps of entries, whose parameters are outputs of a network.

A coupling computes the outputs from other entries of the example, an autoregressive step from earlier ones.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from unsup.core.parallel import mean_over_rows
from unsup.nn.invertible import Arithmetic
from unsup.nn.norm import uses_batch_statistics
from unsup.prob.bijections import additive, additive_inverse, affine, affine_inverse
from unsup.prob.dense_sigmoid import SigmoidLayer, dense_sigmoid, dense_sigmoid_inverse
from unsup.prob.distributions import LOG_2PI, at_least_float32
from unsup.prob.mixture_cdf import ComponentName, Mixture, log_density, log_tails, normal_quantile, quantile
from unsup.prob.splines import outputs_of, rational_quadratic, rational_quadratic_inverse

_WIDEST = 8.0  # scale of a component, logarithm; the narrowest is as far below
_LEAST_ARGUMENT = -30.0  # of softplus, whose logarithm would have no gradient far below
_SOFTPLUS_ONE = math.log(math.e - 1)  # softplus of it is 1


class Bijection(nn.Module, ABC):
    """Monotone maps of all entries ``(B, C, ...)``, with parameters ``(B, C, ..., outputs_each)`` from a network.

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

    def exactly(
        self,
        x: Tensor,
        outputs: Tensor,
        arithmetic: Arithmetic,
        where: Tensor | None = None,
        *,
        turned: bool = False,
    ) -> Tensor:
        """y of fixed-point numbers; where ``turned``, the x of a y. Spare outputs are left out."""
        return arithmetic.monotone(x, self._curve(outputs[: len(x)], turned), where)

    def exactly_inverse(
        self,
        y: Tensor,
        outputs: Tensor,
        arithmetic: Arithmetic,
        where: Tensor | None = None,
        *,
        turned: bool = False,
    ) -> Tensor:
        """The fixed-point numbers that `exactly` maps to ``y``."""
        return arithmetic.monotone_inverse(y, self._curve(outputs[: len(y)], turned), where)

    def _curve(self, outputs: Tensor, turned: bool) -> Callable[[Tensor], Tensor]:
        told = outputs.double()
        return (lambda at: self.inverse(at, told)) if turned else (lambda at: self(at, told)[0])


class Affine(Bijection):
    """Capability: the maps are y = x · exp(log_scale) + shift."""

    def forward(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self.log_scale_and_shift(outputs)
        return additive(x, shift) if log_scale is None else affine(x, log_scale, shift)

    def inverse(self, y: Tensor, outputs: Tensor) -> Tensor:
        log_scale, shift = self.log_scale_and_shift(outputs)
        return additive_inverse(y, shift) if log_scale is None else affine_inverse(y, log_scale, shift)

    def exactly(
        self,
        x: Tensor,
        outputs: Tensor,
        arithmetic: Arithmetic,
        where: Tensor | None = None,
        *,
        turned: bool = False,
    ) -> Tensor:
        return arithmetic.affine(x, *self._exact_parameters(outputs, turned), where)

    def exactly_inverse(
        self,
        y: Tensor,
        outputs: Tensor,
        arithmetic: Arithmetic,
        where: Tensor | None = None,
        *,
        turned: bool = False,
    ) -> Tensor:
        return arithmetic.affine_inverse(y, *self._exact_parameters(outputs, turned), where)

    def _exact_parameters(self, outputs: Tensor, turned: bool) -> tuple[Tensor | None, Tensor]:
        log_scale, shift = self.log_scale_and_shift(outputs)
        if not turned:
            return log_scale, shift
        return (None, -shift) if log_scale is None else (-log_scale, -shift * (-log_scale).exp())

    @abstractmethod
    def log_scale_and_shift(self, outputs: Tensor) -> tuple[Tensor | None, Tensor]:
        """The parameters of every entry, with running averages in place of batch statistics; None for log_scale 0."""


class Additive(Affine):
    """y = x + t (NICE)."""

    outputs_each = 1

    def log_scale_and_shift(self, outputs: Tensor) -> tuple[Tensor | None, Tensor]:
        return None, outputs.squeeze(-1)


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

    def log_scale_and_shift(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        h, t = outputs.unbind(-1)
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


class LogAffine(Affine):
    """y = (x + t) exp(s), with s and t from the network: the conditional Gaussian of a masked autoregressive flow.

    With t = −μ and s = −α it is y = (x − μ) exp(−α) (Papamakarios, Pavlakou, Murray 2017, eq. 4).

    Args:
        bound: s is bound · tanh(h / bound), so that a scale cannot overflow.
    """

    outputs_each = 2

    def __init__(self, bound: float = 8.0) -> None:
        super().__init__()
        self.bound = bound

    def log_scale_and_shift(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._told(outputs)
        return log_scale, shift * log_scale.exp()

    def forward(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """As for all affine maps, with one exponential."""
        log_scale, shift = self._told(outputs)
        return (x + shift) * log_scale.exp(), log_scale

    def inverse(self, y: Tensor, outputs: Tensor) -> Tensor:
        log_scale, shift = self._told(outputs)
        return y * (-log_scale).exp() - shift

    def _told(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        h, t = outputs.unbind(-1)
        return self.bound * (h / self.bound).tanh(), t


class GatedAverage(Affine):
    """y = σ(h + 2) x + (1 − σ(h + 2)) m, with h and m from the network (Kingma et al. 2016, eq. 14)."""

    outputs_each = 2

    def log_scale_and_shift(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        h, m = outputs.unbind(-1)
        return logsigmoid(h + 2), m * (-h - 2).sigmoid()


class SigmoidAffine(Affine):
    """y = (x + t) σ(h + 2), with h and t from the network (Kingma, Dhariwal 2018, as in their code)."""

    outputs_each = 2

    def log_scale_and_shift(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        h, t = outputs.unbind(-1)
        log_scale = logsigmoid(h + 2)
        return log_scale, t * log_scale.exp()


class Spline(Bijection):
    """A rational-quadratic spline of ``bins`` bins on [−bound, bound], the identity elsewhere; see `splines`.

    Args:
        divisor: the outputs for widths and heights are divided by it (the width of the network's last hidden layer,
            square root, in the code of Durkan et al. 2019).
    """

    def __init__(self, bins: int, bound: float, divisor: float = 1.0) -> None:
        super().__init__()
        self.bins, self.bound, self.divisor = bins, bound, divisor
        self.outputs_each = outputs_of(bins)

    def forward(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        return rational_quadratic(x, outputs, self.bound, self.divisor)

    def inverse(self, y: Tensor, outputs: Tensor) -> Tensor:
        return rational_quadratic_inverse(y, outputs, self.bound, self.divisor)


class NormalScores(Bijection):
    """y = Φ⁻¹(F(x)), with F the distribution function of a mixture: x has that mixture if y has N(0, 1).

    Args:
        components: number of components.
        component: their law.
    """

    def __init__(self, components: int, component: ComponentName = "gaussian") -> None:
        super().__init__()
        self.components, self.component, self.outputs_each = components, component, 3 * components
        # Means are spread over ±2: equal components would get equal gradients, and stay equal.
        self.register_buffer("spread", 4 * (torch.arange(components) + 0.5) / components - 2, persistent=False)
        self.narrow = min(0.0, math.log(2 / components))

    spread: Tensor

    def forward(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        mixture = self._told(outputs)
        y = normal_quantile(*log_tails(x, mixture, self.component))
        return y, log_density(x, mixture, self.component) + 0.5 * (y.square() + LOG_2PI)

    def inverse(self, y: Tensor, outputs: Tensor) -> Tensor:
        log_odds = torch.special.log_ndtr(y) - torch.special.log_ndtr(-y)
        return quantile(log_odds, self._told(outputs), self.component)

    def _told(self, outputs: Tensor) -> Mixture:
        logits, mean, h = outputs.chunk(3, -1)
        log_scale = _bounded(h) + self.narrow
        return Mixture(logits.log_softmax(-1), mean + self.spread.to(mean.dtype), log_scale)


class MixtureCdf(Bijection):
    """y = logit F(x) · exp(a) + b, with F the distribution function of a mixture of logistics (Ho et al. 2019, eq. 12).

    Args:
        components: number of logistics.
    """

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components, self.outputs_each = components, 2 + 3 * components

    def forward(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift, mixture = self._told(outputs)
        below, above = log_tails(x, mixture, "logistic")
        y, log_derivative = affine(below - above, log_scale, shift)
        # d logit F / dx = f / (F (1 − F))
        return y, log_derivative + log_density(x, mixture, "logistic") - below - above

    def inverse(self, y: Tensor, outputs: Tensor) -> Tensor:
        log_scale, shift, mixture = self._told(outputs)
        return quantile(affine_inverse(y, log_scale, shift), mixture, "logistic")

    def _told(self, outputs: Tensor) -> tuple[Tensor, Tensor, Mixture]:
        k = self.components
        a, b, logits, mean, log_scale = outputs.split([1, 1, k, k, k], -1)
        return a.squeeze(-1).tanh(), b.squeeze(-1), Mixture(logits.log_softmax(-1), mean, _bounded(log_scale))


class SigmoidMixture(Bijection):
    """y = logit Σ_j w_j σ(a_j x + b_j) with positive weights (the deep sigmoidal flow of Huang et al. 2018, eq. 8).

    It is the logit of the distribution function of a mixture of logistics, with means −b / a and scales 1 / a.

    Args:
        units: number of sigmoids.
    """

    spread: Tensor

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units, self.outputs_each = units, 3 * units
        # Offsets are spread over ±1: equal sigmoids would get equal gradients, and stay equal.
        self.register_buffer("spread", 2 * (torch.arange(units) + 0.5) / units - 1, persistent=False)

    def forward(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        mixture = self._told(outputs)
        below, above = log_tails(x, mixture, "logistic")
        return below - above, log_density(x, mixture, "logistic") - below - above

    def inverse(self, y: Tensor, outputs: Tensor) -> Tensor:
        return quantile(y, self._told(outputs), "logistic")

    def _told(self, outputs: Tensor) -> Mixture:
        logits, a, b = outputs.chunk(3, -1)
        log_a = _log_slope(a)
        return Mixture(logits.log_softmax(-1), -(b + self.spread.to(b.dtype)) * (-log_a).exp(), -log_a)


class DenseSigmoid(Bijection):
    """A deep dense sigmoidal flow: layers of sigmoids, each fully connected to the next (Huang et al. 2018, eq. 9).

    As in the code of the authors, the rows of the matrices u and w are softmaxes of parameters of the layer, plus
    outputs of the network that all rows share; a and b are outputs of the network. Otherwise the number of outputs
    would grow with the square of the number of units.

    Args:
        units: number of sigmoids, and of values between layers.
        layers: number of layers. One layer is `SigmoidMixture`.
    """

    spread: Tensor

    def __init__(self, units: int, layers: int) -> None:
        super().__init__()
        self.units, self.hidden = units, units if units > 1 else 0
        self.sizes = [3 * units, *[3 * units + self.hidden] * (layers - 1)]
        self.outputs_each = sum(self.sizes)
        # Rows differ at first, so that units do not get equal gradients. The first layer has one input: u is 1.
        self.u = nn.ParameterList(torch.randn(units, self.hidden) for _ in self.sizes[1:] if self.hidden)
        self.w = nn.ParameterList(torch.randn(own, units) for own in [*[units] * (layers - 1), 1])
        self.register_buffer("spread", 2 * (torch.arange(units) + 0.5) / units - 1, persistent=False)

    def forward(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        return dense_sigmoid(x, self._told(outputs))

    def inverse(self, y: Tensor, outputs: Tensor) -> Tensor:
        return dense_sigmoid_inverse(y, self._told(outputs))

    def _told(self, outputs: Tensor) -> list[SigmoidLayer]:
        """The parameters of every layer, in the type of the outputs."""
        found, n = [], self.units
        for number, (w, told) in enumerate(zip(self.w, outputs.split(self.sizes, -1), strict=True)):
            logits, a, b, columns = told.split([n, n, n, told.shape[-1] - 3 * n], -1)
            log_w = (w.to(told.dtype) + logits.unsqueeze(-2)).log_softmax(-1)
            log_u = log_w.new_zeros(n, 1)
            if columns.shape[-1]:
                log_u = (self.u[number - 1].to(told.dtype) + columns.unsqueeze(-2)).log_softmax(-1)
            found.append(SigmoidLayer(log_u, _log_slope(a), b + self.spread.to(b.dtype), log_w))
        return found


def _bounded(log_scale: Tensor) -> Tensor:
    """The logarithm of a scale in ±8: an entry far out would make it so large that the map has no inverse."""
    return _WIDEST * (log_scale / _WIDEST).tanh()


def _log_slope(a: Tensor) -> Tensor:
    """log a of a sigmoid from an output of the network, at first 0."""
    return _bounded(softplus((a + _SOFTPLUS_ONE).clamp(min=_LEAST_ARGUMENT)).log())
