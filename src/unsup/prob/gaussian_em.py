"""Gaussians by their inverse factors, and expectation-maximisation of a mixture on points that are all in memory.

The choice of components needs hundreds of short fits of a few hundred points, so that every pass is a few operations
on all components in use at once. With r_nk the responsibilities, w the weight of a prior and V its diagonal spread,

    N_k = Σ_n r_nk,  π_k = N_k / N,  μ_k = Σ_n r_nk y_n / N_k,
    Σ_k = (Σ_n r_nk (y_n − μ_k)(y_n − μ_k)ᵀ + w V) / (N_k + w) + floor · I.

The last weight is that of noise, whose density is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from unsup.core.errors import TrainingError
from unsup.prob import distributions as dist

Structure = Literal["full", "diagonal", "tied"]
UNUSED = 1e-9
"""A component of less weight is not used."""
_AT_ONCE = 2**20  # numbers of an intermediate result, which bounds the memory
_TRACE = 10 * torch.finfo(torch.float64).eps  # examples of the noise if it has none, so that its weight is not 0
_NEGLIGIBLE = 1e-20  # a responsibility below this is lost in the rounding of N_k


def log_normals(y: Tensor, means: Tensor, log_diagonal: Tensor, factors: Tensor | None) -> Tensor:
    """log N(y; μ_k, (U_k U_kᵀ)⁻¹), ``(B, D)`` → ``(B, K)``.

    Args:
        means: ``(K, D)``.
        log_diagonal: log of the diagonals of U, ``(K, D)``, or ``(1, D)`` if all components have the same.
        factors: upper-triangular U, ``(K, D, D)`` or ``(1, D, D)``; None if they are diagonal.
    """
    constant = log_diagonal.sum(1) - 0.5 * y.shape[1] * dist.LOG_2PI
    if factors is None:  # one product, of y² and y
        precision = (2 * log_diagonal).exp()
        scaled = precision * means
        slopes = torch.cat([-0.5 * precision.expand_as(means), scaled], 1)
        return torch.addmm(constant - 0.5 * (scaled * means).sum(1), torch.cat([y.square(), y], 1), slopes.T)
    return constant - 0.5 * torch.cat(list(_squares(y, means, factors)), 1)


def _squares(y: Tensor, means: Tensor, factors: Tensor) -> Iterator[Tensor]:
    """|(y − μ_k) U_k|² of some components at a time, ``(B, some)``."""
    shared = (y @ factors[0])[:, None] if len(factors) == 1 else None
    each = max(1, _AT_ONCE // max(1, y.numel()))
    for start in range(0, len(means), each):
        part = slice(start, start + each)
        own = factors if shared is not None else factors[part]
        white = (y @ own.transpose(0, 1).flatten(1)).unflatten(1, own.shape[:2]) if shared is None else shared
        white = white - (means[part, None] @ own)[:, 0]  # (B, some, D)
        yield torch.linalg.vecdot(white, white)


def scatters(y: Tensor, responsibility: Tensor, means: Tensor) -> Tensor:
    """Σ_n r_nk (y_n − μ_k)(y_n − μ_k)ᵀ: ``(N, D)``, ``(N, K)``, ``(K, D)`` → ``(K, D, D)``."""
    if y.numel() * len(means) <= _AT_ONCE:
        centred = y - means[:, None]
        return (centred * responsibility.T[:, :, None]).mT @ centred
    found = []
    for mean, own in zip(means, responsibility.T, strict=True):
        rows = own > _NEGLIGIBLE  # in many dimensions most examples belong to one component only
        centred = y[rows] - mean
        found.append((centred * own[rows, None]).T @ centred)
    return torch.stack(found)


def inverse_factors(covariances: Tensor, floor: float) -> Tensor:
    """Upper-triangular U with (Σ + floor · I)⁻¹ = U Uᵀ: ``(M, D, D)`` → ``(M, D, D)``.

    Raises:
        TrainingError: a matrix is singular.
    """
    identity = torch.eye(covariances.shape[-1], dtype=covariances.dtype, device=covariances.device)
    lower, info = torch.linalg.cholesky_ex(covariances + floor * identity)
    check_positive(info > 0, floor)
    return torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False).mT


def check_positive(singular: Tensor, floor: float) -> None:
    """Refuse a mixture some of whose components are ``singular``, bool ``(K,)``."""
    if bool(singular.any()):
        raise TrainingError(
            f"GaussianMixture: the covariance of component {int(singular.nonzero()[0])} is singular with "
            f"floor={floor:g}; raise floor (1e-6 is usual), ask for fewer components, or covariance='diagonal'"
        )


@dataclass(frozen=True, eq=False)
class Points:
    """The points of a fit, and what is the same in every pass.

    Attributes:
        y: ``(N, D)``.
        noise: its log-density, ``(N, 1)``.
        spread: V, ``(D,)``.
        prior: w.
    """

    y: Tensor
    square: Tensor
    noise: Tensor
    spread: Tensor
    prior: float
    floor: float


@dataclass(frozen=True, eq=False)
class Fitted:
    """A mixture of K Gaussians and noise.

    Attributes:
        slots: numbers of the components, which remain if others are removed, ``(K,)``.
        log_weights: the noise is last, ``(K + 1,)``.
        means, log_diagonal, factors: as in `log_normals`; ``(1, …)`` if tied.
    """

    structure: Structure
    slots: Tensor
    log_weights: Tensor
    means: Tensor
    log_diagonal: Tensor
    factors: Tensor | None

    def only(self, kept: Tensor, log_weights: Tensor) -> Fitted:
        """Some of the components, and the weights of these and of the noise."""
        own: Tensor | slice = slice(None) if self.structure == "tied" else kept
        factors = None if self.factors is None else self.factors[own]
        return replace(
            self,
            slots=self.slots[kept],
            log_weights=log_weights,
            means=self.means[kept],
            log_diagonal=self.log_diagonal[own],
            factors=factors,
        )

    def with_noise(self, component: int) -> Fitted:
        """The mixture in which the examples of ``component`` are noise."""
        kept = torch.arange(len(self.means), device=self.means.device) != component
        others = torch.cat([self.log_weights[:-1][kept], self.log_weights[-1:]])
        noise = self.log_weights[[component, -1]].logsumexp(0) + others.logsumexp(0)
        return self.only(kept, torch.cat([others[:-1], noise[None]]).log_softmax(0))


class Expected(NamedTuple):
    """Responsibilities ``(N, K + 1)``, Σ log p(y), and the same with the logarithm of the prior."""

    responsibility: Tensor
    log_prob: float
    reached: float


def expect(points: Points, fit: Fitted) -> Expected:
    """The E step."""
    joint = torch.cat([log_normals(points.y, fit.means, fit.log_diagonal, fit.factors), points.noise], 1)
    joint += fit.log_weights
    # logsumexp and softmax with one exponential: it is most of the arithmetic
    highest = joint.amax(1, keepdim=True)
    responsibility = (joint - highest).exp_()
    total = responsibility.sum(1, keepdim=True)
    if fit.factors is None:
        trace = ((2 * fit.log_diagonal).exp() @ points.spread).sum()
    else:
        trace = points.spread @ fit.factors.square().sum((0, 2))
    prior = 0.5 * points.prior * (2 * fit.log_diagonal.sum() - trace)
    log_prob, prior = torch.stack([(highest + total.log()).sum(), prior]).tolist()
    return Expected(responsibility.div_(total), log_prob, log_prob + (prior if len(fit.means) else 0.0))


def maximize(points: Points, fit: Fitted, responsibility: Tensor) -> Fitted:
    """The M step; components that have lost their examples are removed."""
    weight = responsibility.sum(0)
    log_weights = ((weight + _TRACE) / len(points.y)).log()
    kept = log_weights[:-1] > math.log(UNUSED)
    if not bool(kept.all()):
        still = torch.cat([kept, kept.new_ones(1)])
        fit, weight, responsibility = fit.only(kept, log_weights[still]), weight[still], responsibility[:, still]
        log_weights = log_weights[still]
    if not len(fit.means):
        return replace(fit, log_weights=log_weights)
    own, count, y, w = responsibility[:, :-1], weight[:-1, None], points.y, points.prior
    means = (own.T @ y) / count
    factors = None
    if fit.structure == "diagonal":
        sums = own.T @ points.square - count * means.square()
        variance = (sums + w * points.spread) / (count + w) + points.floor
        check_positive((variance <= 0).any(1), points.floor)
        log_diagonal = -0.5 * variance.log()
    else:
        if fit.structure == "tied":
            sums = ((y * own.sum(1, keepdim=True)).T @ y - (means * count).T @ means)[None]
            total = count.sum()
        else:
            sums, total = scatters(y, own, means), count[:, :, None]
        factors = inverse_factors((sums + w * points.spread.diag()) / (total + w), points.floor)
        log_diagonal = factors.diagonal(dim1=1, dim2=2).log()
    return replace(fit, log_weights=log_weights, means=means, log_diagonal=log_diagonal, factors=factors)


def climb(
    points: Points, fit: Fitted, passes: int, tolerance: float, found: Expected | None = None
) -> tuple[Fitted, Expected]:
    """EM passes while each raises the mean log-density and the prior by ``tolerance`` or more.

    Args:
        found: the E step of ``fit``, if it is known.
    """
    found = found or expect(points, fit)
    for _ in range(passes):
        before = found.reached
        fit = maximize(points, fit, found.responsibility)
        found = expect(points, fit)
        if found.reached - before < tolerance * len(points.y):
            break
    return fit, found
