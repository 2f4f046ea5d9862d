"""Linear-Gaussian models y = W z + μ + ε, z ~ N(0, I), ε ~ N(0, Ψ) with a diagonal Ψ. Pure functions on tensors.

The covariance C = W Wᵀ + Ψ is never formed. With G = I + WᵀΨ⁻¹W, which is M × M (Woodbury, and the determinant lemma),

    z | y ~ N(m, G⁻¹),  m = G⁻¹WᵀΨ⁻¹(y − μ),    log|C| = log|Ψ| + log|G|,
    (y − μ)ᵀC⁻¹(y − μ) = (y − μ − W m)ᵀΨ⁻¹(y − μ − W m) + mᵀm,

whose right-hand side is a sum of squares, so that no digits cancel if Ψ is small. For missing entries (NaN), the rows
of W and Ψ are left out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from unsup.core import random
from unsup.prob.distributions import LOG_2PI

_POWERS = 4  # products with the covariance in `leading_directions`
_SPARE = 10  # directions beyond those that are returned


class Posterior(NamedTuple):
    """p(z | y) of rows, whose precisions are shared by all rows with the same entries missing.

    Attributes:
        mean: ``(B, M)``.
        lower: Cholesky factors of the precisions G of P patterns, ``(P, M, M)``.
        pattern: the number of the pattern of each row, ``(B,)``.
        unexplained: y − μ − W m, 0 where it is missing, ``(B, D)``.
        seen: which entries are there, ``(B, D)``; None if all are.
    """

    mean: Tensor
    lower: Tensor
    pattern: Tensor
    unexplained: Tensor
    seen: Tensor | None


def posterior(residual: Tensor, loadings: Tensor, log_noise: Tensor) -> Posterior:
    """p(z | y).

    Args:
        residual: y − μ, NaN where y is missing, ``(B, D)``.
        loadings: W, ``(D, M)``.
        log_noise: log of the diagonal of Ψ, ``(D,)``.
    """
    scaled = loadings * (-log_noise).exp()[:, None]  # Ψ⁻¹W
    one = torch.eye(loadings.shape[1], dtype=loadings.dtype, device=loadings.device)
    gaps = None if bool(residual.detach().sum().isfinite()) else residual.isnan()
    if gaps is None or not bool(gaps.any()):
        lower = torch.linalg.cholesky(one + loadings.T @ scaled)
        mean = residual @ torch.cholesky_solve(scaled.T, lower).T
        pattern = torch.zeros(len(residual), dtype=torch.int64, device=residual.device)
        return Posterior(mean, lower[None], pattern, residual - mean @ loadings.T, None)
    residual = residual.masked_fill(gaps, 0.0)
    kinds, pattern = (~gaps).unique(dim=0, return_inverse=True)
    outer = (loadings[:, :, None] * scaled[:, None, :]).flatten(1)  # (D, M²)
    lower = torch.linalg.cholesky(one + (kinds.to(outer.dtype) @ outer).view(-1, *one.shape))
    mean = torch.cholesky_solve((residual @ scaled).unsqueeze(-1), lower[pattern]).squeeze(-1)
    unexplained = (residual - mean @ loadings.T).masked_fill(gaps, 0.0)
    return Posterior(mean, lower, pattern, unexplained, ~gaps)


def log_prob(residual: Tensor, loadings: Tensor, log_noise: Tensor) -> Tensor:
    """log N(y; μ, W Wᵀ + Ψ) of the entries that are there: ``(B, D)`` → ``(B,)``; arguments as in `posterior`.

    >>> w, log_noise = torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 0.5])
    >>> y = torch.tensor([[0.5, -1.0]])
    >>> dense = torch.distributions.MultivariateNormal(torch.zeros(2), w @ w.T + log_noise.exp().diag())
    >>> bool(torch.isclose(log_prob(y, w, log_noise), dense.log_prob(y)))
    True
    """
    found = posterior(residual, loadings, log_noise)
    squares = found.unexplained.square() @ (-log_noise).exp() + found.mean.square().sum(1)
    log_det = 2 * found.lower.diagonal(dim1=-2, dim2=-1).log().sum(1)[found.pattern]
    if found.seen is None:
        return -0.5 * (squares + log_det + log_noise.sum() + len(log_noise) * LOG_2PI)
    return -0.5 * (squares + log_det + found.seen.to(log_noise.dtype) @ (log_noise + LOG_2PI))


def log_each(residual: Tensor, loadings: Tensor, log_noise: Tensor) -> Tensor:
    """log p(y_d | the other entries that are there), 0 where y_d is missing: ``(B, D)`` → ``(B, D)``.

    With Λ = C⁻¹ that is a Gaussian of variance 1/Λ_dd whose residual is (Λ (y − μ))_d / Λ_dd, where
    Λ (y − μ) = Ψ⁻¹(y − μ − W m) and Λ_dd = (1 − |L⁻¹w_d|² / ψ_d) / ψ_d with G = L Lᵀ.
    """
    found = posterior(residual, loadings, log_noise)
    precise = (-log_noise).exp()
    turned = torch.linalg.solve_triangular(found.lower, loadings.T.expand(len(found.lower), -1, -1), upper=False)
    left = 1 - turned.square().sum(1) * precise  # (P, D)
    # An entry without a row in G has another factor, which is not used.
    own = (precise * left.clamp(min=torch.finfo(left.dtype).tiny))[found.pattern]
    each = 0.5 * (own.log() - LOG_2PI - (found.unexplained * precise).square() / own)
    return each if found.seen is None else each.masked_fill(~found.seen, 0.0)


def fill(residual: Tensor, loadings: Tensor, log_noise: Tensor, generator: torch.Generator | None) -> Tensor:
    """Missing entries (NaN) drawn from their exact conditional distribution, via z: ``(B, D)`` → ``(B, D)``."""
    found = posterior(residual, loadings, log_noise)
    noise = random.normal(found.mean.shape, generator, like=residual).unsqueeze(-1)
    z = found.mean + torch.linalg.solve_triangular(found.lower.mT[found.pattern], noise, upper=True).squeeze(-1)
    drawn = z @ loadings.T + random.normal(residual.shape, generator, like=residual) * (0.5 * log_noise).exp()
    return torch.where(residual.isnan(), drawn, residual)


# --- expectation-maximisation -------------------------------------------------------------------------------------


def expected(
    y: Tensor, means: Tensor, loadings: Tensor, log_noise: Tensor, weight: Tensor, *, each_column: bool
) -> dict[str, Tensor]:
    """The E step: sums of E[z̃ z̃ᵀ] with z̃ = (z, 1), of y z̃ᵀ and of y², over the entries that are there.

    Args:
        y: ``(B, D)``, NaN where missing.
        means: μ, ``(D,)``.
        weight: of each row, ``(B,)``.
        each_column: whether columns have different entries missing, and so sums E[z̃ z̃ᵀ] of their own.

    Returns:
        ``outer`` ``(M + 1, M + 1)``, with ``each_column`` also ``outers`` ``(D, M + 1, M + 1)``; ``cross``
        ``(D, M + 1)``; ``square`` and ``seen``, the weight of the entries that are there, ``(D,)``.
    """
    found = posterior(y - means, loadings, log_noise)
    codes = torch.cat([found.mean, torch.ones_like(weight)[:, None]], 1)
    spread = torch.nn.functional.pad(torch.cholesky_inverse(found.lower), (0, 1, 0, 1))  # (P, M + 1, M + 1)
    shares = weight.new_zeros(len(spread)).index_add_(0, found.pattern, weight)
    outer = (codes * weight[:, None]).T @ codes + torch.tensordot(shares, spread, 1)
    sums = {"outer": outer}
    filled = y
    if each_column:
        own = weight[:, None].expand_as(y) if found.seen is None else weight[:, None] * found.seen
        second = codes[:, :, None] * codes[:, None, :] + spread[found.pattern]
        sums["outers"] = (own.T @ second.flatten(1)).view(-1, *outer.shape)
        sums["seen"] = own.sum(0)
        filled = y.nan_to_num(0.0)
    else:
        sums["seen"] = weight.sum().expand(y.shape[1])
    weighted = filled * weight[:, None]
    return sums | {"cross": weighted.T @ codes, "square": (weighted * filled).sum(0)}


def maximised(
    sums: dict[str, Tensor], means: Tensor, loadings: Tensor, log_noise: Tensor, *, shared: bool, floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The M step: the regression of y on z̃, (w_d, μ_d) = (Σ y z̃ᵀ)(Σ E[z̃ z̃ᵀ])⁻¹, and the mean square of what it leaves.

    The step also fits N(ν, T) to the codes and puts ν and T into μ and W, which changes no likelihood but makes EM
    faster: parameter-expanded EM (Liu, Rubin, Wu 1998, https://doi.org/10.1093/biomet/85.4.755).

    Args:
        sums: of `expected`.
        means, loadings, log_noise: the current parameters, which stay for columns without entries.
        shared: whether all columns have one noise variance.
        floor: the least noise variance.

    Returns:
        means ``(D,)``, loadings ``(D, M)``, log_noise ``(D,)``.
    """
    outers, cross, seen = sums.get("outers", sums["outer"][None]), sums["cross"], sums["seen"]
    there = seen > 0
    one = torch.eye(outers.shape[-1], dtype=outers.dtype, device=outers.device)
    safe = torch.where(there[:, None, None], outers, one) if len(outers) > 1 else outers
    regression = torch.linalg.solve(safe.expand(len(cross), -1, -1), cross.unsqueeze(-1)).squeeze(-1)
    left = sums["square"] - (regression * cross).sum(1)
    noise = left.sum() / seen.sum() if shared else left / torch.where(there, seen, 1.0)
    old = torch.cat([loadings, means[:, None]], 1)
    regression = torch.where(there[:, None], regression, old)
    log_noise = torch.where(there | shared, noise.clamp(min=floor).log().expand_as(log_noise), log_noise)
    loadings, means = regression[:, :-1], regression[:, -1]
    moments = sums["outer"] / sums["outer"][-1, -1]
    centre = moments[-1, :-1]
    spread = torch.linalg.cholesky(moments[:-1, :-1] - centre[:, None] * centre)
    return means + loadings @ centre, in_order(loadings @ spread, shared, log_noise), log_noise


def in_order(loadings: Tensor, shared: bool, log_noise: Tensor) -> Tensor:
    """W R with the rotation R for which WᵀΨ⁻¹W is diagonal and descending; the largest entry of a column is positive.

    The likelihood does not depend on R.
    """
    scale = torch.ones_like(log_noise) if shared else (0.5 * log_noise).exp()
    u, s, _ = torch.linalg.svd(loadings / scale[:, None], full_matrices=False)
    return scale[:, None] * _signed(u) * s


# --- closed forms, from a covariance ------------------------------------------------------------------------------


def principal(values: Tensor, vectors: Tensor, total: Tensor, components: int, floor: float) -> tuple[Tensor, Tensor]:
    """The maximum of the likelihood with Ψ = σ²I (Tipping, Bishop 1999).

    σ² is the mean of the D − M smallest eigenvalues and W = U_M (Λ_M − σ²I)^½.

    Args:
        values, vectors: the M or more largest eigenvalues of the covariance, descending, and their vectors ``(D, …)``.
        total: the sum of all eigenvalues.
        components: M.
        floor: the least σ².

    Returns:
        loadings ``(D, M)`` and σ² ``()``.
    """
    kept = values[:components]
    noise = ((total - kept.sum()) / (len(vectors) - components)).clamp(min=floor)
    return _signed(vectors[:, :components]) * (kept - noise).clamp(min=0).sqrt(), noise


def principal_log_probs(values: Tensor, total: Tensor, dims: int, floor: float) -> Tensor:
    """The mean log-likelihood at the maximum, for M = 1, 2, … components: eigenvalues ``(K,)`` → ``(K,)``.

    −½ (D log 2π + Σ_{i≤M} log λ_i + (D − M) log σ² + D); it is right if σ² is above the floor, else a lower value.
    """
    number = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device)
    rest = (total - values.cumsum(0)).clamp(min=0) / (dims - number)
    noise = rest.clamp(min=floor)
    each = values.clamp(min=floor).log().cumsum(0) + number
    return -0.5 * (dims * LOG_2PI + each + (dims - number) * (noise.log() + rest / noise))


def leading_directions(y: Tensor, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues of yᵀy / N and their vectors, by subspace iteration on y itself: ``(N, D)``.

    A randomised singular value decomposition (Halko, Martinsson, Tropp 2011, https://arxiv.org/abs/0909.4061); neither
    a D × D nor an N × N matrix is formed.

    Returns:
        descending values ``(K,)``, vectors ``(D, K)``, with K = ``number``, or less if y has fewer rows or columns.
    """
    width = min(number + _SPARE, *y.shape)
    basis = random.normal((y.shape[1], width), generator, like=y)
    for _ in range(_POWERS):
        basis = torch.linalg.qr(y.T @ (y @ basis)).Q
    _, s, v = torch.linalg.svd(y @ basis, full_matrices=False)
    number = min(number, width)
    return (s.square() / len(y))[:number], (basis @ v.T)[:, :number]


class Factored(NamedTuple):
    """Factors of a covariance, see `factorise`.

    Attributes:
        loadings: W, ``(D, M)``.
        log_noise: log of the diagonal of Ψ, ``(D,)``.
        log_probs: the mean log-likelihood before each step, and after the last; it never falls.
        converged: whether the last step gained less than the tolerance.
    """

    loadings: Tensor
    log_noise: Tensor
    log_probs: tuple[float, ...]
    converged: bool


def factorise(
    covariance: Tensor, log_noise: Tensor, components: int, *, floor: float, tolerance: float, iterations: int
) -> Factored:
    """Factor analysis of a covariance S by EM in which W is maximised exactly in every step.

    Given Ψ, the best W is Ψ^½ U_M (Λ_M − I)^½ by the eigenvalues of Ψ^-½ S Ψ^-½ (Jöreskog 1967). There the EM step of Ψ
    is diag(S − W Wᵀ), with a floor.

    Args:
        covariance: S, ``(D, D)``.
        log_noise: the start, ``(D,)``.
        components: M.
        floor: the least noise variance.
        tolerance: steps end when one gains less, in nats per example.
        iterations: the most steps.
    """
    reached: list[float] = []
    own = covariance.diagonal()
    while True:
        scale = (0.5 * log_noise).exp()
        values, vectors = torch.linalg.eigh(covariance / (scale[:, None] * scale))
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)[:, :components]
        kept = values[:components]
        explained = kept.clamp(min=1)
        fit = (explained.log() + kept / explained).sum() + values[components:].sum()
        reached.append(-0.5 * float(len(own) * LOG_2PI + log_noise.sum() + fit))
        loadings = scale[:, None] * _signed(vectors) * (kept - 1).clamp(min=0).sqrt()
        converged = len(reached) > 1 and reached[-1] - reached[-2] < tolerance
        if converged or len(reached) > iterations:
            return Factored(loadings, log_noise, tuple(reached), converged)
        log_noise = (own - loadings.square().sum(1)).clamp(min=floor).log()


def _signed(vectors: Tensor) -> Tensor:
    """Columns whose largest entry is positive."""
    largest = vectors.abs().argmax(0, keepdim=True)
    return vectors * vectors.gather(0, largest).sign()
