"""Estimates with 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from scipy.special import expit, logit
from torch import Tensor

from unsup.core.errors import InputError
from unsup.evaluate.records import Figure

Z = 1.959963984540054
"""The 97.5 % point of N(0, 1)."""


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its 95 % interval.

    >>> round(Estimate(0.5, 0.4, 0.6).error, 3)
    0.051
    """

    value: float
    low: float
    high: float

    @classmethod
    def normal(cls, value: float, error: float) -> Estimate:
        """With a normal interval of this standard error."""
        return cls(value, value - Z * error, value + Z * error)

    @property
    def error(self) -> float:
        """The standard error of a normal interval of this width."""
        return (self.high - self.low) / (2 * Z)


def make_figure(
    value: float | Estimate, n: int, *, error: float | None = None, floor: float | None = None, **detail: Any
) -> Figure:
    """A `Figure` of an estimate, or of a number, with a normal interval if it has a standard error.

    >>> make_figure(2.0, 10, error=0.5)["interval"]
    (1.02..., 2.97...)
    """
    interval: tuple[float, float] | None = None
    if isinstance(value, Estimate):
        interval, error, value = (value.low, value.high), value.error, value.value
    elif error is not None:
        interval = value - Z * error, value + Z * error
    return {"value": value, "error": error, "interval": interval, "floor": floor, "n": n, "detail": detail}


def wilson(successes: int, n: int) -> Estimate:
    """The share ``successes / n`` with Wilson's interval (Wilson 1927), which has a positive width at 0 and at 1.

    Raises:
        InputError: not 0 ≤ successes ≤ n, or n < 1.

    >>> wilson(10, 10)
    Estimate(value=1.0, low=0.722..., high=1.0)
    """
    if not 0 <= successes <= n or n < 1:
        raise InputError(f"{successes} of {n} given; expected a count from 0 to n, and n of 1 or more")
    from scipy.stats import binomtest  # slow to import

    interval, value = binomtest(successes, n).proportion_ci(0.95, method="wilson"), successes / n
    return Estimate(value, min(float(interval.low), value), max(float(interval.high), value))


def of_share(share: float, error: float, n: int) -> Estimate:
    """A share with a standard error: the interval is normal in log odds; at 0 and 1 it is Wilson's for ``n``.

    >>> of_share(0.9, 0.1, 10)
    Estimate(value=0.9, low=0.504..., high=0.987...)
    """
    if not 0 < share < 1:
        return wilson(round(share * n), n)
    half = Z * error / (share * (1 - share))
    low, high = (float(expit(logit(share) + shift)) for shift in (-half, half))
    return Estimate(share, min(low, share), max(high, share))


def mann_whitney(higher: Tensor, lower: Tensor) -> Estimate:
    """θ = P(a > b) + ½ P(a = b) of independent values a of ``higher`` ``(N,)`` and b of ``lower`` ``(M,)``.

    This is the area under the ROC curve. With U_a = P(a > b) + ½ P(a = b) over all b, and U_b over all a, its variance
    is DeLong's (DeLong, DeLong, Clarke-Pearson 1988, https://doi.org/10.2307/2531595)

        var θ = var(U_a) / N + var(U_b) / M,

    but not below V(θ), as DeLong's is too small for few values. The interval is normal in log θ / (1 − θ), so that it
    is inside [0, 1] with a coverage of about 95 % or more, also for θ near 0 or 1 (Perme, Manevski 2019, Statistical
    Methods in Medical Research). V is the variance under exponential
    distributions,

        V(θ) = θ(1 − θ) (1 + ((N + M)/2 − 1) ((1 − θ)/(2 − θ) + θ/(1 + θ))) / NM.

    At complete separation, the interval ends at the θ for which V gives a distance of 1.96 deviations (Newcombe 2006,
    part 2, method 5, https://doi.org/10.1002/sim.2324).

    Args:
        higher, lower: real numbers or ±∞.

    Raises:
        InputError: fewer than two values of either, or NaN.

    >>> mann_whitney(torch.tensor([2.0, 3.0, 3.0]), torch.tensor([1.0, 3.0]))
    Estimate(value=0.666..., low=..., high=...)
    """
    a, b = as_values("higher", higher), as_values("lower", lower)
    of_a, of_b = _below(a, b), 1 - _below(b, a)
    theta = float(of_a.mean())
    if theta in (0.0, 1.0):
        end = _far_end(len(a), len(b))
        return Estimate(theta, 1 - end, 1.0) if theta else Estimate(theta, 0.0, end)
    variance = max(float(of_a.var() / len(a) + of_b.var() / len(b)), _exponential(theta, len(a), len(b)))
    return of_share(theta, math.sqrt(variance), len(a) + len(b))


def as_values(name: str, values: Tensor, least: int = 2) -> Tensor:
    """Numbers ``(N,)`` as float64 on the CPU.

    Raises:
        InputError: another shape, fewer than ``least``, or NaN.
    """
    if values.ndim != 1 or len(values) < least:
        raise InputError(f"{name} of shape {tuple(values.shape)} given; expected (N,) with N of {least} or more")
    found = values.detach().cpu().double().contiguous()
    if bad := int(found.isnan().sum()):
        raise InputError(f"{bad} of {len(found)} values of {name} are NaN; remove these examples, or fix the model")
    return found


def _below(a: Tensor, b: Tensor) -> Tensor:
    """The share of b below each a, where ties count half: ``(N,)``, ``(M,)`` → ``(N,)``."""
    ordered = b.sort().values
    strictly, weakly = (torch.searchsorted(ordered, a, right=right) for right in (False, True))
    return (strictly + weakly).double() / (2 * len(b))


def _exponential(theta: float, n: int, m: int) -> float:
    """V(θ) of `mann_whitney`."""
    scale = 1 + ((n + m) / 2 - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    return theta * (1 - theta) * scale / (n * m)


def _far_end(n: int, m: int) -> float:
    """The θ above 0 with a distance of 1.96 deviations to 0: θ² = z² V(θ)."""
    from scipy.optimize import brentq  # slow to import

    return float(brentq(lambda theta: theta - Z * Z * _exponential(theta, n, m) / theta, 1e-12, 1.0))
