"""Gaussians with missing entries, and Gaussians rounded to cells. Pure functions on tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import log_ndtr

from unsup.prob.distributions import LOG_2PI

_CLIMBS, _STILL = 500, 1e-10  # steps to a mode; of the widest standard deviation
_NARROW = 1 / 32  # standard deviations
_FURTHEST = 1e150  # standard deviations: the square is finite


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


def gaussian_interval_log_prob(edges: Tensor, widths: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log P of the intervals between edges, ascending and possibly infinite, under N(mean, exp(log_std)²).

    A difference of two cumulative probabilities loses digits where an interval is narrow. There it is the mean of the
    densities at the two points m ± h / √12 of Gauss's rule, for a middle m and a width h in standard deviations,

        log P ≈ log h + log ½ (φ(m − h / √12) + φ(m + h / √12)),

    of relative error h⁴ (m⁴ + …) / 4320.

    Args:
        edges: ``(…, m + 1, 1)``.
        widths: their differences, ``(…, m, 1)``: a caller may know them more precisely than by subtraction.
        mean, log_std: ``(…, 1, K)``.

    >>> edges = torch.tensor([-torch.inf, 0.0, 1e-9, torch.inf]).double()[:, None]
    >>> found = gaussian_interval_log_prob(edges, edges.diff(dim=0), torch.zeros(1).double(), torch.zeros(1).double())
    >>> [f"{p:.3g}" for p in found[:, 0].exp().tolist()]
    ['0.5', '3.99e-10', '0.5']
    """
    inverse = (-log_std).exp()
    z = torch.where(edges.isinf(), edges, ((edges - mean) * inverse).clamp(-_FURTHEST, _FURTHEST))
    a, b, h = z[..., :-1, :], z[..., 1:, :], widths * inverse
    narrow = h < _NARROW
    if bool(narrow.all()):
        return _narrow(a, h, widths, log_std)
    # As in `gaussian_cell_log_prob`; an infinite end has its own cumulative probability, 0 or 1.
    mirrored = a + b > 0
    low, high = torch.where(mirrored, -b, a), torch.where(mirrored, -a, b)
    log_high = log_ndtr(high)
    ratio = (log_ndtr(low) - log_high).clamp(max=-torch.finfo(a.dtype).tiny)
    return torch.where(narrow, _narrow(a, h, widths, log_std), log_high + (-torch.expm1(ratio)).log())


def _narrow(a: Tensor, h: Tensor, widths: Tensor, log_std: Tensor) -> Tensor:
    middle, reach = a + h / 2, h / math.sqrt(12)
    slope = (middle * reach).abs()  # log cosh of it is |it| + log(1 + e^(−2 |it|)) − log 2
    height = -0.5 * (middle.square() + reach.square() + LOG_2PI) + slope + torch.log1p((-2 * slope).exp()) - math.log(2)
    return height + widths.clamp(min=torch.finfo(widths.dtype).tiny).log() - log_std


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


def mixture_mode(log_weights: Tensor, means: Tensor, log_std: Tensor) -> Tensor:
    """Where the density Σ_k w_k N(y; μ_k, σ_k²) on the line is highest: ``(n, K)`` each → ``(n,)``.

    Every mode is the limit of x ← Σ_k r_k(x) μ_k / σ_k² / Σ_k r_k(x) / σ_k², with the responsibilities r, from the mean
    of some component (Carreira-Perpiñán 2000, https://doi.org/10.1109/34.888716); the density never falls on the way.

    >>> w = torch.tensor([[0.6, 0.4]]).log()
    >>> mode = mixture_mode(w, torch.tensor([[0.0, 5.0]]), torch.tensor([[0.0, -2.0]]))
    >>> round(mode.item(), 3)
    5.0
    """

    def log_each(x: Tensor) -> Tensor:
        far = (x[..., None] - means[:, None]) * (-log_std[:, None]).exp()
        return (log_weights - log_std)[:, None] - 0.5 * far.square()

    precision, x = (-2 * log_std).exp(), means.clone()  # (n, K)
    still = _STILL * log_std.exp().amax(1, keepdim=True)
    for _ in range(_CLIMBS):
        pull = log_each(x).softmax(2) * precision[:, None]
        nearer = (pull * means[:, None]).sum(2) / pull.sum(2)
        moved = (nearer - x).abs() > still
        x = nearer
        if not bool(moved.any()):
            break
    return x.gather(1, log_each(x).logsumexp(2).argmax(1, keepdim=True)).squeeze(1)
