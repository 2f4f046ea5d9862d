"""Invertible steps that scale, reorder or mix entries with parameters of their own: normalisation and linear maps.

Entries of vectors ``(B, C)`` and channels of images ``(B, C, H, W)`` are treated alike.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from unsup.core.parallel import mean_over_rows
from unsup.nn.invertible import Arithmetic, Exact, Invertible, Rearrangement
from unsup.nn.norm import uses_batch_statistics
from unsup.nn.weight_norm import DataDependent
from unsup.prob.distributions import at_least_float32

_LEAST_DEVIATION = 1e-6
_RIDGE = 1e-4  # added to the variances, in units of those of the entries


class Reverse(Rearrangement):
    """The entries, or channels, in the reverse order."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.flip(1), x.new_zeros(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return y.flip(1)


class Shuffle(Rearrangement):
    """The entries, or channels, in a random order, drawn once."""

    order: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x[:, self.order], x.new_zeros(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return y[:, self.order.argsort()]


class ActNorm(Invertible, Exact, DataDependent):
    """y = exp(s) ⊙ x + b for each channel, which has mean 0 and deviation 1 over the first batch.

    (Kingma, Dhariwal 2018, https://arxiv.org/abs/1807.03039, section 3.1.)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale, self.bias = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.starting:
            std, mean = torch.std_mean(x, _others(x), correction=0)
            scale = std.clamp(min=_LEAST_DEVIATION).reciprocal()
            self.log_scale.copy_(scale.log())
            self.bias.copy_(-mean * scale)
        log_scale, bias = self._over(x)
        log_det = at_least_float32(self.log_scale).sum() * _pixels(x)
        return x * log_scale.exp() + bias, log_det.expand(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        log_scale, bias = self._over(y)
        return (y - bias) * (-log_scale).exp()

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        return arithmetic.affine(x, *self._over(x))

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        return arithmetic.affine_inverse(y, *self._over(y))

    def _over(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The parameters, of a shape that expands to that of ``x``."""
        shape = (1, -1, *[1] * (x.ndim - 2))
        return at_least_float32(self.log_scale).view(shape), at_least_float32(self.bias).view(shape)


class Whitening(Invertible, Exact):
    """y = W (x − m) for vectors ``(B, D)``, with the lower triangular W and m that give y mean 0 and covariance I.

    W is the inverse of the Cholesky factor of the covariance, fixed by `start`: y_i is what is left of x_i after its
    linear regression on x_<i. An autoregressive step after it therefore starts at a Gaussian with that covariance.
    """

    shift: Tensor
    weight: Tensor

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(dims))
        self.register_buffer("weight", torch.eye(dims))

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Set m and W by examples ``(n, D)``, whose entries have deviations of about 1."""
        rows = x.double()
        self.shift.copy_(rows.mean(0))
        centred = rows - rows.mean(0)
        eye = torch.eye(x.shape[1], dtype=rows.dtype, device=x.device)
        # The ridge bounds W where entries are functions of others, or examples are few.
        factor = torch.linalg.cholesky(centred.T @ centred / len(rows) + _RIDGE * eye)
        self.weight.copy_(torch.linalg.solve_triangular(factor, eye, upper=False))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        weight = at_least_float32(self.weight).to(x.dtype)
        log_det = weight.diagonal().log().sum()
        return linear(x - self.shift.to(x.dtype), weight), log_det.expand(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        weight = at_least_float32(self.weight).to(y.dtype)
        x = torch.linalg.solve_triangular(weight, y.T, upper=False, unitriangular=False).T
        return x + self.shift.to(y.dtype)

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        """From the last entry to the first: each is shifted by earlier entries, which have not changed yet."""
        entries = list(x.split(1, 1))
        for i in reversed(range(len(entries))):
            entries[i] = arithmetic.affine(entries[i], *self._told(x[:, :i], arithmetic))
        return torch.cat(entries, 1)

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        x = y.clone()
        for i in range(y.shape[1]):
            x[:, i : i + 1] = arithmetic.affine_inverse(y[:, i : i + 1], *self._told(x[:, :i], arithmetic))
        return x

    def _told(self, earlier: Tensor, arithmetic: Arithmetic) -> tuple[Tensor, Tensor]:
        """The scale and the shift of the entry after some fixed-point numbers, ``(1, 1)`` and ``(B, 1)``."""
        i, weight, mean = earlier.shape[1], self.weight.double(), self.shift.double()
        centred = arithmetic.real(earlier).double() - mean[:i]
        return weight[i, i].log().view(1, 1), (centred @ weight[i, :i] - weight[i, i] * mean[i])[:, None]


class ConditionedScale(Invertible, Exact):
    """y = (x + t) exp(s) for each channel, with t and s linear in the condition: x is Gaussian if y is standard normal.

    It starts as the identity. With it at the end of a flow, the mean and the scale of the base are learned, for each
    condition (the learned top of Glow).

    Args:
        channels: number of entries of vectors, or channels of images.
        context: number of features of the condition.
    """

    def __init__(self, channels: int, context: int = 0) -> None:
        super().__init__()
        self.log_scale, self.shift = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
        self.maps = nn.Linear(context, 2 * channels, bias=False) if context else None
        if self.maps is not None:
            nn.init.zeros_(self.maps.weight)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._told(x, context)
        log_det = log_scale.flatten(1).sum(1) * _pixels(x)
        return (x + shift) * log_scale.exp(), log_det.expand(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        log_scale, shift = self._told(y, context)
        return y * (-log_scale).exp() - shift

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        log_scale, shift = self._told(x, context)
        return arithmetic.affine(x, log_scale, shift * log_scale.exp())

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        log_scale, shift = self._told(y, context)
        return arithmetic.affine_inverse(y, log_scale, shift * log_scale.exp())

    def _told(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_scale, shift = at_least_float32(self.log_scale)[None], at_least_float32(self.shift)[None]
        if self.maps is not None and context is not None:
            more = at_least_float32(self.maps(context.to(self.maps.weight.dtype)))
            log_scale, shift = log_scale + more.chunk(2, 1)[0], shift + more.chunk(2, 1)[1]
        shape = (*log_scale.shape, *[1] * (x.ndim - 2))
        return log_scale.view(shape), shift.view(shape)


class BatchNormalisation(Invertible, Exact):
    """y = (x − μ) / √(σ² + ε) · exp(γ) + β for each entry of vectors (Papamakarios et al. 2017, section 3.4).

    μ and σ² are those of the batch inside `unsup.nn.norm.batch_statistics`, else their running averages.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dims: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.log_scale, self.bias = nn.Parameter(torch.zeros(dims)), nn.Parameter(torch.zeros(dims))
        self.register_buffer("running_mean", torch.zeros(dims))
        self.register_buffer("running_var", torch.ones(dims))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if uses_batch_statistics():
            mean = mean_over_rows(x.mean(0))
            var = mean_over_rows((x - mean).square().mean(0))
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)
            log_scale, shift = self._affine(mean, var)
        else:
            log_scale, shift = self._affine(self.running_mean, self.running_var)
        return x * log_scale.exp() + shift, log_scale.sum().expand(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        log_scale, shift = self._affine(self.running_mean, self.running_var)
        return (y - shift) * (-log_scale).exp()

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        log_scale, shift = self._affine(self.running_mean, self.running_var)
        return arithmetic.affine(x, log_scale[None], shift[None])

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        log_scale, shift = self._affine(self.running_mean, self.running_var)
        return arithmetic.affine_inverse(y, log_scale[None], shift[None])

    def _affine(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        log_scale = at_least_float32(self.log_scale) - 0.5 * (at_least_float32(var) + self.eps).log()
        return log_scale, at_least_float32(self.bias) - at_least_float32(mean) * log_scale.exp()


class Mixing(Invertible, Exact):
    """y = W x for vectors, and for the channels of each pixel (a 1×1 convolution; Glow, section 3.2)."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """W, at least float32."""

    @abstractmethod
    def log_abs_det(self) -> Tensor:
        """log|det W|, ``()``."""

    @abstractmethod
    def solve(self, y: Tensor) -> Tensor:
        """W⁻¹ y of columns ``(C, n)``."""

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """W = P L U: the places of the rows of L U in W, L with ones on its diagonal, and U."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        weight = self.matrix().to(x.dtype)
        y = linear(x, weight) if x.ndim == 2 else conv2d(x, weight[:, :, None, None])
        return y, (self.log_abs_det() * _pixels(x)).to(x.dtype).expand(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        columns = y.transpose(0, 1)
        x = self.solve(columns.flatten(1)).view(columns.shape)
        return x.transpose(0, 1)

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        """U and then L channel by channel: each is scaled and shifted by channels that have not changed yet."""
        places, lower, upper = self.factors()
        channels = list(x.split(1, 1))
        for i in range(len(channels)):
            scale = upper[i, i]
            own = channels[i] if scale > 0 else -channels[i]
            shift = _weighted(upper[i, i + 1 :], channels[i + 1 :], arithmetic)
            channels[i] = arithmetic.affine(own, scale.abs().log().view(_ones(x)), shift)
        for i in reversed(range(1, len(channels))):
            channels[i] = arithmetic.affine(channels[i], None, _weighted(lower[i, :i], channels[:i], arithmetic))
        return torch.cat(channels, 1)[:, places]

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        places, lower, upper = self.factors()
        channels = list(y[:, places.argsort()].split(1, 1))
        for i in range(1, len(channels)):
            shift = _weighted(lower[i, :i], channels[:i], arithmetic)
            channels[i] = arithmetic.affine_inverse(channels[i], None, shift)
        for i in reversed(range(len(channels))):
            scale = upper[i, i]
            shift = _weighted(upper[i, i + 1 :], channels[i + 1 :], arithmetic)
            own = arithmetic.affine_inverse(channels[i], scale.abs().log().view(_ones(y)), shift)
            channels[i] = own if scale > 0 else -own
        return torch.cat(channels, 1)


class PlainMixing(Mixing):
    """W is a parameter, at first a random rotation. Its determinant costs O(C³)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_rotation(channels))

    def matrix(self) -> Tensor:
        return at_least_float32(self.weight)

    def log_abs_det(self) -> Tensor:
        return torch.linalg.slogdet(self.weight.double()).logabsdet

    def solve(self, y: Tensor) -> Tensor:
        return torch.linalg.solve(self.weight.double(), y.double()).to(y.dtype)

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        permutation, lower, upper = torch.linalg.lu(self.weight.double())
        return permutation.argmax(1), lower, upper


class TriangularMixing(Mixing):
    """W = P L (U + diag(s)): L and U are triangular, log|s| a parameter, and P and the signs are fixed (Glow, eq. 10).

    Args:
        channels: C.
        start: W at first: a random ``rotation``, or a random ``permutation``.
    """

    places: Tensor
    sign: Tensor

    def __init__(self, channels: int, *, start: Literal["rotation", "permutation"] = "rotation") -> None:
        super().__init__()
        weight = _rotation(channels) if start == "rotation" else torch.eye(channels)[torch.randperm(channels)]
        permutation, lower, upper = torch.linalg.lu(weight)
        self.register_buffer("places", permutation.argmax(1))
        self.register_buffer("sign", upper.diagonal().sign())
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_scale = nn.Parameter(upper.diagonal().abs().log())

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        lower = at_least_float32(self.lower).tril(-1) + torch.eye(len(self.lower), device=self.lower.device)
        log_scale = at_least_float32(self.log_scale)
        upper = at_least_float32(self.upper).triu(1) + (self.sign.to(log_scale.dtype) * log_scale.exp()).diag()
        return self.places, lower, upper

    def matrix(self) -> Tensor:
        places, lower, upper = self.factors()
        return (lower @ upper)[places]

    def log_abs_det(self) -> Tensor:
        return at_least_float32(self.log_scale).sum()

    def solve(self, y: Tensor) -> Tensor:
        places, lower, upper = (t.to(y.dtype) if t.is_floating_point() else t for t in self.factors())
        z = torch.linalg.solve_triangular(lower, y[places.argsort()], upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, z, upper=True)


def _weighted(weights: Tensor, channels: list[Tensor], arithmetic: Arithmetic) -> Tensor:
    """Σ_j w_j x_j of fixed-point channels; zeros of their shape where there are none."""
    total = torch.zeros((), dtype=torch.float64, device=weights.device)
    for weight, channel in zip(weights, channels, strict=True):
        total = total + weight.double() * arithmetic.real(channel).double()
    return total


def _rotation(channels: int) -> Tensor:
    return torch.linalg.qr(torch.randn(channels, channels)).Q.contiguous()


def _others(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


def _ones(x: Tensor) -> list[int]:
    return [1] * x.ndim


def _pixels(x: Tensor) -> int:
    return x[0, 0].numel() if len(x) else 1
