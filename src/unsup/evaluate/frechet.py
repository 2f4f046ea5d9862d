"""The Fréchet distance between two sets of features, each taken as a Gaussian (FID).

    d² = ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)

Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter 2017, https://arxiv.org/abs/1706.08500. With any factors Σᵢ = FᵢFᵢᵀ
the eigenvalues of Σ₁Σ₂ are the squares of the singular values of F₁ᵀF₂, so tr (Σ₁Σ₂)^½ = ‖F₁ᵀF₂‖ₙ (nuclear norm), real
and never negative; no square root of a matrix that is not symmetric is taken. For fewer examples than features the
centred examples themselves are the factor. Covariances are unbiased (n − 1) and float64. The estimate falls as n grows:
compare figures of equal counts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor

from unsup.core.errors import InputError

Array = NDArray[np.float64]
_SMALLEST = (
    1e-10  # of an eigenvalue of Σ₁Σ₂ beside the largest: above it, its root keeps eleven digits of the largest's
)


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean ``(D,)`` and unbiased covariance ``(D, D)`` of ``n`` examples."""

    mean: Array
    covariance: Array
    n: int


def moments(points: Tensor) -> Moments:
    """`Moments` of features ``(N, D)``.

    Raises:
        InputError: fewer than two examples, or values that are not finite.
    """
    x = as_array(points)
    mean = x.mean(0)
    centred = x - mean
    return Moments(mean, centred.T @ centred / (len(x) - 1), len(x))


def frechet_distance(fake: Tensor, real: Tensor) -> float:
    """d² of features ``(N, D)`` and ``(M, D)``, of any floating type.

    Raises:
        InputError: fewer than two examples in a set, another number of features, values that are not finite.

    >>> import torch
    >>> x = torch.randn(100, 3, dtype=torch.float64)
    >>> round(frechet_distance(x + 2, x), 6)  # a shift by v adds ‖v‖²
    12.0
    """
    check_pair(fake, real)
    if min(len(fake), len(real)) > fake.shape[1]:
        return distance_of_moments(moments(fake), moments(real))
    x, y = as_array(fake), as_array(real)
    f, g = (((a - a.mean(0)) / np.sqrt(len(a) - 1)).T for a in (x, y))  # (D, N)
    first, second = (a if a.shape[1] <= a.shape[0] else _root(a @ a.T) for a in (f, g))
    total = float((f**2).sum() + (g**2).sum())
    return _distance(x.mean(0) - y.mean(0), total, _nuclear(first.T @ second))


def distance_of_moments(a: Moments, b: Moments) -> float:
    """d² of two Gaussians."""
    return _distance(
        a.mean - b.mean, float(np.trace(a.covariance) + np.trace(b.covariance)), _trace_root(a.covariance, b.covariance)
    )


def deleted_groups(fake: Tensor, real: Tensor, groups: int) -> list[float]:
    """d² without each of ``groups`` slices of both sets: what a jackknife over groups needs."""
    x, y = as_array(fake), as_array(real)
    centre = y.mean(0)  # sums about a common point lose no digits
    parts = [_sums(a - centre, groups) for a in (x, y)]
    return [distance_of_moments(*(_without(sums, g) for sums in parts)) for g in range(groups)]


def as_array(points: Tensor) -> Array:
    """Features as float64; refuses what has no covariance."""
    x = np.asarray(points.detach().cpu().double().numpy())
    if x.ndim != 2 or len(x) < 2:
        raise InputError(f"features of shape {x.shape} given; expected (N, D) with two examples or more")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).any(1).sum())
        raise InputError(
            f"{bad} of {len(x)} examples have features that are not finite; leave them out, or mend the model"
        )
    return x


def check_pair(fake: Tensor, real: Tensor) -> None:
    """Raise `InputError` unless both are ``(N, D)`` with one D."""
    if fake.ndim != 2 or real.ndim != 2 or fake.shape[1] != real.shape[1]:
        raise InputError(
            f"features of shapes {tuple(fake.shape)} and {tuple(real.shape)} given; expected (N, D) and (M, D)"
        )


def _distance(shift: Array, traces: float, cross: float) -> float:
    return max(float(shift @ shift) + traces - 2 * cross, 0.0)


def _trace_root(a: Array, b: Array) -> float:
    """tr (ab)^½ of two covariances: the roots of the eigenvalues of ab, which are those of a symmetric FᵀbF."""
    try:
        # One symmetric problem, without forming the product; it fails where a has no Cholesky factor F.
        eigenvalues = eigh(b, a, type=2, eigvals_only=True, driver="gv", check_finite=False)
    except np.linalg.LinAlgError:
        return _nuclear(_root(a) @ _root(b))
    if eigenvalues[0] > _SMALLEST * eigenvalues[-1]:
        return float(np.sqrt(eigenvalues).sum())
    return _nuclear(_root(a) @ _root(b))


def _root(a: Array) -> Array:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(a)
    return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)


def _nuclear(a: Array) -> float:
    return float(np.linalg.svd(a, compute_uv=False).sum())


def _sums(x: Array, groups: int) -> list[tuple[int, Array, Array]]:
    """Count, Σ x and Σ xxᵀ of each slice."""
    return [(len(part), part.sum(0), part.T @ part) for part in np.array_split(x, groups)]


def _without(sums: Sequence[tuple[int, Array, Array]], left_out: int) -> Moments:
    n = sum(s[0] for s in sums) - sums[left_out][0]
    first = np.sum([s[1] for s in sums], axis=0) - sums[left_out][1]
    second = np.sum([s[2] for s in sums], axis=0) - sums[left_out][2]
    mean = first / n
    return Moments(mean, (second - n * np.outer(mean, mean)) / (n - 1), n)
