"""Steps of vectors that move all entries at once: planar, radial, Sylvester.

Their formulas are in the families' files. Parameters are constrained so that every step is invertible.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from unsup.nn.invertible import Smooth
from unsup.prob.bisection import bisect
from unsup.prob.distributions import at_least_float32
from unsup.prob.smooth_maps import bounded_triangle, invertible_direction, planar, sylvester

_START = math.log(math.e - 1)  # softplus of it is 1
_MARGIN = 1e-6  # at β = −α the determinant would be 0 at the centre


class _Planar(Smooth):
    """y = x + û tanh(wᵀx + b) for vectors ``(B, D)``."""

    @abstractmethod
    def values(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w, û, their product, and b, of all examples or of each."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return planar(x, *self.values(context))

    def jacobian(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        w, u, _, bias = self.values(context)
        slope = 1 - ((x * w).sum(-1) + bias).tanh().square()
        return _eye(x) + slope[:, None, None] * u.unsqueeze(-1) * w.unsqueeze(-2)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """Along w the map is a + wᵀû tanh(a + b), which increases: its root is found by bisection."""
        w, u, product, bias = self.values(context)
        wanted = (y * w).sum(-1)
        reach = product.abs().expand_as(wanted)

        def too_small(a: Tensor) -> Tensor:
            return a + product * (a + bias).tanh() < wanted

        a = bisect(too_small, wanted - reach, wanted + reach)
        return y - (a + bias).tanh()[:, None] * u


class PlanarStep(_Planar):
    """y = x + û tanh(wᵀx + b) for vectors ``(B, D)``; with a condition, b has a term linear in it."""

    def __init__(self, dims: int, context: int = 0) -> None:
        super().__init__()
        w, noise = torch.randn(2, dims)
        self.w = nn.Parameter(w)
        # û is small at first: m is 0 where wᵀu = log(e − 1).
        self.u = nn.Parameter(math.log(math.e - 1) * w / w.square().sum() + 0.01 * noise)
        self.bias = nn.Parameter(torch.zeros(()))
        self.maps = nn.Linear(context, 1, bias=False) if context else None

    def values(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        w, u, bias = (at_least_float32(p) for p in (self.w, self.u, self.bias))
        u, product = invertible_direction(w, u)
        bias = bias[None]
        if self.maps is not None and context is not None:
            bias = bias + at_least_float32(self.maps(context.to(self.maps.weight.dtype)))[:, 0]
        return w, u, product, bias


class PlanarMap(_Planar):
    """A planar step with the parameters of each example: w, û, wᵀû and b of `unsup.prob.smooth_maps.planar`."""

    def __init__(self, *told: Tensor) -> None:
        super().__init__()
        self.told = told

    def values(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        w, u, product, bias = self.told
        return w, u, product, bias


class RadialStep(Smooth):
    """y = x + β (x − c) / (α + ‖x − c‖) for vectors ``(B, D)``; with a condition, c has a term linear in it."""

    def __init__(self, dims: int, context: int = 0) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.randn(dims))
        self.alpha, self.beta = nn.Parameter(torch.tensor(_START)), nn.Parameter(torch.tensor(_START))
        self.maps = nn.Linear(context, dims, bias=False) if context else None

    def values(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """c for each example, α and β."""
        centre = at_least_float32(self.centre)[None]
        if self.maps is not None and context is not None:
            centre = centre + at_least_float32(self.maps(context.to(self.maps.weight.dtype)))
        alpha = softplus(at_least_float32(self.alpha))
        return centre, alpha, softplus(at_least_float32(self.beta)) - alpha * (1 - _MARGIN)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        centre, alpha, beta = self.values(context)
        away = x - centre
        reach = alpha + _norm(away)
        log_det = (x.shape[1] - 1) * (beta / reach).log1p() + (alpha * beta / reach.square()).log1p()
        return x + beta * away / reach[:, None], log_det

    def jacobian(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        centre, alpha, beta = self.values(context)
        away = x - centre
        distance = _norm(away)
        reach = alpha + distance
        bend = beta / (reach.square() * distance)
        own, outer = (1 + beta / reach)[:, None, None] * _eye(x), away[:, :, None] * away[:, None]
        return own - bend[:, None, None] * outer

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The distance from c solves r² + (α + β − R) r − α R = 0, with the distance R of y."""
        centre, alpha, beta = self.values(context)
        away = y - centre
        distance = _norm(away)
        b = alpha + beta - distance
        root = (b.square() + 4 * alpha * distance).sqrt()
        # Without subtraction of nearly equal numbers, for both signs of b.
        r = torch.where(b < 0, (root - b) / 2, 2 * alpha * distance / (root + b).clamp(min=torch.finfo(y.dtype).tiny))
        return centre + away / (1 + beta / (alpha + r))[:, None]


def _norm(x: Tensor) -> Tensor:
    """‖x‖ of rows, with a gradient at 0."""
    return x.square().sum(1).clamp(min=torch.finfo(x.dtype).tiny).sqrt()


class _Sylvester(Smooth):
    """y = x + Q R tanh(R̃ Qᵀx + b) for vectors ``(B, D)``."""

    @abstractmethod
    def values(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Q, R, R̃ and b, of all examples or of each."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return sylvester(x, *self.values(context))

    def jacobian(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        q, outer, inner, bias = self.values(context)
        slope = 1 - (_times(_times(x, q), inner.mT) + bias).tanh().square()
        return _eye(x) + (q @ outer * slope[:, None]) @ (inner @ q.mT)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """Within the span of Q the map is triangular: a bisection for each of its M coordinates, the last one first."""
        q, outer, inner, bias = self.values(context)
        wanted, bias = _times(y, q), bias.expand(len(y), -1)
        v, h = torch.zeros_like(wanted), torch.zeros_like(wanted)
        for i in reversed(range(wanted.shape[1])):
            # The coordinates that are not known yet are 0, and have no weight.
            offset = (v * inner[..., i, :]).sum(-1) + bias[:, i]
            rest = wanted[:, i] - (h * outer[..., i, :]).sum(-1)
            r, s = outer[..., i, i], inner[..., i, i]

            def too_small(
                a: Tensor, offset: Tensor = offset, rest: Tensor = rest, r: Tensor = r, s: Tensor = s
            ) -> Tensor:
                return a + r * (s * a + offset).tanh() < rest

            reach = r.abs().expand_as(rest)
            v[:, i] = bisect(too_small, rest - reach, rest + reach)
            h[:, i] = (s * v[:, i] + offset).tanh()
        return y - _times(_times(h, outer.mT), q.mT)


class SylvesterStep(_Sylvester):
    """y = x + Q R tanh(R̃ Qᵀx + b) for vectors ``(B, D)``; with a condition, b has a term linear in it.

    Args:
        dims: D.
        rank: M, at most D.
        context: number of features of the condition.
    """

    def __init__(self, dims: int, rank: int, context: int = 0) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(dims, rank))
        self.outer, self.inner = (nn.Parameter(0.1 * torch.randn(rank, rank)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(rank))
        self.maps = nn.Linear(context, rank, bias=False) if context else None

    def values(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q = torch.linalg.qr(at_least_float32(self.directions)).Q
        outer, inner = (bounded_triangle(at_least_float32(t)) for t in (self.outer, self.inner))
        bias = at_least_float32(self.bias)[None]
        if self.maps is not None and context is not None:
            bias = bias + at_least_float32(self.maps(context.to(self.maps.weight.dtype)))
        return q, outer, inner, bias


class SylvesterMap(_Sylvester):
    """A Sylvester step with the parameters of each example: Q, R, R̃ and b of `unsup.prob.smooth_maps.sylvester`."""

    def __init__(self, *told: Tensor) -> None:
        super().__init__()
        self.told = told

    def values(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, outer, inner, bias = self.told
        return q, outer, inner, bias


def _times(x: Tensor, matrix: Tensor) -> Tensor:
    """Rows times a matrix, one for all or one for each: ``(B, M)``, ``(…, M, N)`` → ``(B, N)``."""
    return (x.unsqueeze(-2) @ matrix).squeeze(-2)


def _eye(x: Tensor) -> Tensor:
    return torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
