"""Log-densities and entropies of the built-in 2-D sets, from the definitions in `builtin`.

No model can have a smaller mean of −log p(x) than the entropy −E log p(x); the difference is a Kullback–Leibler
divergence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import i0e, logsumexp

from unsup.core.errors import InputError

Array = NDArray[np.float64]

RING_RADIUS, RING_STD = 1.0, 0.01
GRID_STEP, GRID_STD = 2.0, 0.05
CIRCLES, CIRCLE_STD = (0.75, 1.5, 2.25, 3.0), 0.08
MOON_STD, SPIRAL_STD = 0.1, 0.1
ARMS, ARM_STD, ARM_RATE = 5, (0.3, 0.1), 0.25
_NODES = 800  # of quadratures along curves, whose spacing is far below the deviations
_ANGLES = 2000  # of the search for arms
_BLOCK = 500  # examples at once


def log_density(name: str, x: NDArray[Any]) -> Array:
    """log p(x) of a built-in 2-D set, in nats: ``(N, 2)`` → ``(N,)``.

    Circles, Gaussians and squares have closed forms; moons and spirals are integrals along their curves, and the arms
    of the pinwheel a sum over the rotations that lead to x.

    Raises:
        InputError: another name, or points of another shape.

    >>> round(float(log_density("checkerboard", np.array([[1.0, 1.0]]))[0]), 4)
    -3.4657
    """
    if name not in _DENSITIES:
        raise InputError(f"log_density({name!r}): expected one of {', '.join(sorted(_DENSITIES))}")
    points = np.asarray(x, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(f"log_density({name!r}): x has shape {points.shape}; expected (N, 2)")
    with np.errstate(divide="ignore"):
        parts = [_DENSITIES[name](points[i : i + _BLOCK]) for i in range(0, len(points), _BLOCK)]
    return np.concatenate([np.empty(0), *parts])


def entropy(name: str) -> float:
    """−E log p(x) in nats, to about three decimals."""
    return _ENTROPIES[name]


def _about_points(x: Array, means: Array, std: float) -> Array:
    """The mixture of Gaussians of equal weights about ``means`` ``(K, 2)``."""
    squares = ((x[:, None] - means) ** 2).sum(2)
    return np.asarray(logsumexp(-squares / (2 * std**2), 1) - np.log(len(means) * 2 * np.pi * std**2))


def _moons(x: Array) -> Array:
    """Angles are equally spaced on both half circles."""
    angle = np.pi * (np.arange(_NODES) + 0.5) / _NODES
    curves = [np.stack([np.cos(angle), np.sin(angle)], 1), np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)]
    return _about_points(x, np.concatenate(curves), MOON_STD)


def _rings(x: Array) -> Array:
    """A circle of radius R and noise: exp(−(r² + R²) / 2σ²) I₀(rR / σ²) / 2πσ²."""
    r, circles = np.linalg.norm(x, axis=1)[:, None], np.array(CIRCLES)
    ratio = r * circles / CIRCLE_STD**2
    each = -((r - circles) ** 2) / (2 * CIRCLE_STD**2) + np.log(i0e(ratio)) - np.log(2 * np.pi * CIRCLE_STD**2)
    return np.asarray(logsumexp(each, 1) - np.log(len(circles)))


def _ring8(x: Array) -> Array:
    angle = np.pi / 4 * np.arange(8)
    return _about_points(x, RING_RADIUS * np.stack([np.cos(angle), np.sin(angle)], 1), RING_STD)


def _grid25(x: Array) -> Array:
    steps = GRID_STEP * (np.arange(5) - 2.0)
    return _about_points(x, np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2), GRID_STD)


def _checkerboard(x: Array) -> Array:
    square = np.floor(x / 2)
    inside = ((square >= -2) & (square < 2)).all(1) & (square.sum(1) % 2 == 0)
    return np.where(inside, -np.log(32.0), -np.inf)


def _spirals(x: Array) -> Array:
    """Angles are 3π√u with u uniform: equally spaced u on both spirals."""
    angle = 3 * np.pi * np.sqrt((np.arange(_NODES) + 0.5) / _NODES)
    curve = angle[:, None] / 3 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return _about_points(x, np.concatenate([curve, -curve]), SPIRAL_STD)


def _pinwheel(x: Array) -> Array:
    """x = 2 R(θ) a, with a Gaussian about (1, 0) and θ = 2πk/5 + exp(a₁)/4.

    With a = r (cos ψ, sin ψ), the angle of x is ψ + θ, whose derivative by ψ is 1 − r sin ψ exp(r cos ψ) / 4 for each
    k. Its crossings of the angle of x are searched on a grid of ψ and interpolated.
    """
    r, phi = np.linalg.norm(x, axis=1)[:, None] / 2, np.arctan2(x[:, 1], x[:, 0])[:, None]
    psi = np.linspace(-np.pi, np.pi, _ANGLES + 1)
    step = psi[1] - psi[0]
    reached = psi + ARM_RATE * np.exp(r * np.cos(psi)) - phi
    total = np.zeros(len(x))
    for k in range(ARMS):
        turns = (reached + 2 * np.pi * k / ARMS) / (2 * np.pi)
        # Whole turns are crossed between neighbours whose integer parts differ.
        low, high = turns[:, :-1], turns[:, 1:]
        row, place = np.nonzero(np.floor(low) != np.floor(high))
        before, after = low[row, place], high[row, place]
        whole = np.maximum(np.floor(before), np.floor(after))
        found = psi[place] + step * (whole - before) / (after - before)
        radius = r[row, 0]
        slope = np.abs(1 - ARM_RATE * radius * np.sin(found) * np.exp(radius * np.cos(found)))
        a = radius[:, None] * np.stack([np.cos(found), np.sin(found)], 1)
        scaled = (a - np.array([1.0, 0.0])) / np.array(ARM_STD)
        density = np.exp(-0.5 * (scaled**2).sum(1)) / (2 * np.pi * ARM_STD[0] * ARM_STD[1])
        np.add.at(total, row, density / slope)
    return np.asarray(np.log(total / (4 * ARMS)))


_DENSITIES: dict[str, Callable[[Array], Array]] = {
    "moons": _moons,
    "rings": _rings,
    "ring8": _ring8,
    "grid25": _grid25,
    "checkerboard": _checkerboard,
    "pinwheel": _pinwheel,
    "spirals": _spirals,
}
_ENTROPIES = {
    "moons": 1.0076,
    "rings": 2.6232,
    "ring8": -4.2930,
    "grid25": 0.0653,
    "checkerboard": 3.4657,
    "pinwheel": 2.3178,
    "spirals": 2.5406,
}
