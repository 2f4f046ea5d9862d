"""Gaussians with missing entries, and Gaussians rounded to cells. Pure functions on tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.special import log_ndtr

from unsup.prob.distributions import LOG_2PI


def marginal_log_prob(residual: Tensor, covariance: Tensor) -> Tensor:
    """log N(residual; 0, Σ_k): ``(K, N, o)``, ``(K, o, o)`` → ``(K, N)``."""
    lower = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(lower, residual.mT, upper=False)
    log_volume = lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * white.square().sum(-2) - log_volume[:, None] - 0.5 * residual.shape[-1] * LOG_2PI


def conditional_moments(residual: Tensor, covariance: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of all entries of a centred Gaussian, given some of them.

    E[y | y_o] = Σ_:o Σ_oo⁻¹ y_o,    Cov[y | y_o] = Σ − Σ_:o Σ_oo⁻¹ Σ_o:

    Args:
        residual: y_o, ``(K, N, o)``.
        covariance: ``(K, D, D)``.
        seen: o, ``(o,)`` indices.

    Returns:
        ``(K, N, D)`` and ``(K, D, D)``.
    """
    across = covariance[:, :, seen]  # (K, D, o)
    lower = torch.linalg.cholesky(across[:, seen])
    gain = torch.cholesky_solve(across.mT, lower).mT  # Σ_:o Σ_oo⁻¹
    mean = residual @ gain.mT
    mean[:, :, seen] = residual
    left = covariance - gain @ across.mT
    left[:, seen] = 0.0
    left[:, :, seen] = 0.0
    return mean, left


def gaussian_cell_log_prob(
    lower: Tensor, upper: Tensor, mean: Tensor, log_std: Tensor, first: Tensor, last: Tensor
) -> Tensor:
    """log P(lower ≤ z < upper) of z ~ N(mean, exp(log_std)²), elementwise.

    The ``first`` cell has no lower end, the ``last`` no upper one.

    >>> ends, zero = torch.tensor([-1.0, 0.0, 1.0, 2.0]), torch.zeros(())
    >>> first, last = torch.tensor([True, False, False]), torch.tensor([False, False, True])
    >>> round(float(gaussian_cell_log_prob(ends[:-1], ends[1:], zero, zero, first, last).exp().sum()), 6)
    1.0
    """
    inverse = (-log_std).exp()
    a, b = (lower - mean) * inverse, (upper - mean) * inverse
    # Φ(b) − Φ(a) in the left tail, where logarithms of Φ are accurate: log Φ(b) + log(1 − Φ(a) / Φ(b)).
    mirrored = a + b > 0
    low, high = torch.where(mirrored, -b, a), torch.where(mirrored, -a, b)
    log_high = log_ndtr(high)
    ratio = (log_ndtr(low) - log_high).clamp(max=-torch.finfo(a.dtype).tiny)
    inside = log_high + (-torch.expm1(ratio)).log()
    return torch.where(first, log_ndtr(b), torch.where(last, log_ndtr(-a), inside))


def cell_moments(
    lower: Tensor, upper: Tensor, mean: Tensor, log_std: Tensor, first: Tensor, last: Tensor
) -> tuple[Tensor, Tensor]:
    """E[u] and E[u²] of u = (z − mean) / std in a cell, see `gaussian_cell_log_prob`: moments of a truncated Gaussian.

    With α, β the ends in units of u and Z the mass: E[u] = (φ(α) − φ(β)) / Z, E[u²] = 1 + (α φ(α) − β φ(β)) / Z.
    """
    inverse = (-log_std).exp()
    a, b = (lower - mean) * inverse, (upper - mean) * inverse
    log_mass = gaussian_cell_log_prob(lower, upper, mean, log_std, first, last)

    def ratio(end: Tensor, absent: Tensor) -> Tensor:
        return (-0.5 * (end.square() + LOG_2PI) - log_mass).exp().masked_fill(absent, 0.0)

    at_a, at_b = ratio(a, first), ratio(b, last)
    # Rounding must not move the mean out of the cell.
    low, high = a.masked_fill(first, -torch.inf), b.masked_fill(last, torch.inf)
    one = torch.maximum(torch.minimum(at_a - at_b, high), low)
    return one, torch.maximum(1 + a * at_a - b * at_b, one.square())
