"""The Fréchet distance between two sets of features, each approximated by a Gaussian (FID).

    d² = ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)

Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter 2017, https://arxiv.org/abs/1706.08500. With any factors Σᵢ = FᵢFᵢᵀ
the eigenvalues of Σ₁Σ₂ are the squares of the singular values of F₁ᵀF₂. So tr (Σ₁Σ₂)^½ = ‖F₁ᵀF₂‖ₙ (nuclear norm), which
is real and not negative, and no square root of an asymmetric matrix is needed. With fewer examples than features, the
centred examples are the factor. Covariances are unbiased (n − 1) and float64. The estimate decreases with n: compare
values of equal counts only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor

from unsup.core.errors import InputError

Array = NDArray[np.float64]
# Smallest eigenvalue of Σ₁Σ₂ relative to the largest for which the square root is accurate to eleven digits of the
# largest root.
_SMALLEST = 1e-10


def frechet_distance(fake: Tensor, real: Tensor) -> float:
    """d² of features ``(N, D)`` and ``(M, D)``, of any floating type.

    Raises:
        InputError: fewer than two examples in a set, different numbers of features, or values that are not finite.

    >>> import torch
    >>> x = torch.randn(100, 3, dtype=torch.float64)
    >>> round(frechet_distance(x + 2, x), 6)  # a shift by v adds ‖v‖²
    12.0
    """
    check_pair(fake, real)
    return distance_of(as_array(fake), as_array(real))


def deleted_groups(fake: Tensor, real: Tensor, groups: int) -> list[float]:
    """d² without each of ``groups`` slices of both sets, for a jackknife over groups.

    Moments of the remaining examples are differences of sums, so that the examples are read once.
    """
    sets = [as_array(points) for points in (fake, real)]
    centre = sets[1].mean(0)  # sums about a common point lose no digits
    parts = [[(len(s), s.sum(0), s.T @ s) for s in np.array_split(x - centre, groups)] for x in sets]
    wholes = [[sum(s[k] for s in sums) for k in range(3)] for sums in parts]

    def moments_without(group: int, which: int) -> tuple[Array, Array]:
        n, first, second = (w - s for w, s in zip(wholes[which], parts[which][group], strict=True))
        mean = first / n
        return mean, (second - n * np.outer(mean, mean)) / (n - 1)

    found = []
    for group in range(groups):
        (mean, a), (other, b) = (moments_without(group, which) for which in (0, 1))
        shift = mean - other
        traces = float(np.trace(a) + np.trace(b))
        found.append(max(float(shift @ shift) + traces - 2 * trace_of_root(a, b), 0.0))
    return found


def distance_of(x: Array, y: Array) -> float:
    """d² of finite features ``(N, D)`` and ``(M, D)``."""
    f, g = ((a - a.mean(0)) / np.sqrt(len(a) - 1) for a in (x, y))
    if min(len(f), len(g)) > f.shape[1]:
        cross = trace_of_root(f.T @ f, g.T @ g)
    else:
        first, second = (a.T if len(a) <= a.shape[1] else _root(a.T @ a) for a in (f, g))
        cross = _nuclear(first.T @ second)
    shift = x.mean(0) - y.mean(0)
    return max(float(shift @ shift) + float((f**2).sum() + (g**2).sum()) - 2 * cross, 0.0)


def trace_of_root(a: Array, b: Array) -> float:
    """tr (ab)^½ of two covariances: the roots of the eigenvalues of ab, which are those of a symmetric FᵀbF."""
    try:
        # One symmetric problem, without forming the product; it fails if a has no Cholesky factor F.
        eigenvalues = eigh(b, a, type=2, eigvals_only=True, driver="gv", check_finite=False)
    except np.linalg.LinAlgError:
        return _nuclear(_root(a) @ _root(b))
    if eigenvalues[0] > _SMALLEST * eigenvalues[-1]:
        return float(np.sqrt(eigenvalues).sum())
    return _nuclear(_root(a) @ _root(b))


def as_array(points: Tensor) -> Array:
    """Features as float64.

    Raises:
        InputError: another shape than ``(N, D)``, fewer than two examples, or values that are not finite.
    """
    x = np.asarray(points.detach().cpu().double().numpy())
    if x.ndim != 2 or len(x) < 2:
        raise InputError(f"features of shape {x.shape} given; expected (N, D) with two examples or more")
    if bad := int((~np.isfinite(x)).any(1).sum()):
        raise InputError(
            f"{bad} of {len(x)} examples have features that are not finite; remove these examples, or fix the model"
        )
    return x


def check_pair(fake: Tensor, real: Tensor) -> None:
    """Raise `InputError` unless both are ``(N, D)`` with one D."""
    if fake.ndim != 2 or real.ndim != 2 or fake.shape[1] != real.shape[1]:
        raise InputError(
            f"features of shapes {tuple(fake.shape)} and {tuple(real.shape)} given; expected (N, D) and (M, D)"
        )


def _root(a: Array) -> Array:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(a)
    return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)


def _nuclear(a: Array) -> float:
    return float(np.linalg.svd(a, compute_uv=False).sum())
