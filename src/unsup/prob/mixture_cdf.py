"""Distribution functions of mixtures on the line, elementwise, and their inverses by bisection.

Logarithms of both tails are computed, so that maps to the line keep their precision far out: logit F = log F − log(1 −
F), and Φ⁻¹(F) from the smaller tail.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from unsup.prob.bisection import bisect
from unsup.prob.distributions import LOG_2PI

ComponentName = Literal["logistic", "gaussian"]
_NEWTON = 4  # steps, from a start that is right to a few per cent
_LEAST = -1e30  # whose quantile squared is a float32 number
_FAR = 30.0  # deviations
_TAIL = -5.0  # log-probability below which the quantile is found in the logarithm


class Mixture(NamedTuple):
    """Components ``(..., K)`` of the mixture of every entry.

    Attributes:
        log_weight: normalised.
        mean: locations.
        log_scale: logarithms of the scales.
    """

    log_weight: Tensor
    mean: Tensor
    log_scale: Tensor

    def standard(self, x: Tensor) -> Tensor:
        """x in the units of every component, ``(..., K)``."""
        return (x.unsqueeze(-1) - self.mean) * (-self.log_scale).exp()


def log_density(x: Tensor, mixture: Mixture, component: ComponentName) -> Tensor:
    """log f(x) of every entry."""
    z = mixture.standard(x)
    if component == "logistic":
        own = logsigmoid(z) + logsigmoid(-z)
    else:
        own = -0.5 * (z.square() + LOG_2PI)
    return (mixture.log_weight - mixture.log_scale + own).logsumexp(-1)


def log_tails(x: Tensor, mixture: Mixture, component: ComponentName) -> tuple[Tensor, Tensor]:
    """log F(x) and log(1 − F(x)) of every entry.

    >>> one = Mixture(torch.zeros(1), torch.zeros(1), torch.zeros(1))
    >>> below, above = log_tails(torch.tensor(0.0), one, "gaussian")
    >>> float(below.exp()), float(above.exp())
    (0.5, 0.5)
    """
    z = mixture.standard(x)
    tail = logsigmoid if component == "logistic" else torch.special.log_ndtr
    below, above = (mixture.log_weight + tail(sign * z) for sign in (1, -1))
    return below.logsumexp(-1), above.logsumexp(-1)


def quantile(log_odds: Tensor, mixture: Mixture, component: ComponentName) -> Tensor:
    """The x of every entry with log F(x) − log(1 − F(x)) = ``log_odds``, with gradients.

    The quantile of a mixture lies between the smallest and the largest quantile of its components.
    """
    with torch.no_grad():
        x = _found(log_odds, mixture, component)
    if not torch.is_grad_enabled():
        return x
    # A step of Newton's method from the root has the gradient of the inverse function.
    below, above = log_tails(x, mixture, component)
    log_slope = log_density(x, mixture, component) - below - above
    return x - (below - above - log_odds) * (-log_slope.detach()).exp()


def _found(log_odds: Tensor, mixture: Mixture, component: ComponentName) -> Tensor:
    own = log_odds if component == "logistic" else normal_quantile(logsigmoid(log_odds), logsigmoid(-log_odds))
    ends = mixture.mean + mixture.log_scale.exp() * own.unsqueeze(-1)

    def too_small(x: Tensor) -> Tensor:
        below, above = log_tails(x, mixture, component)
        return below - above < log_odds

    return bisect(too_small, ends.amin(-1), ends.amax(-1))


def normal_quantile(log_below: Tensor, log_above: Tensor) -> Tensor:
    """Φ⁻¹(p) of log p and log(1 − p), also where p rounds to 0 or 1, with gradients through the smaller of them.

    >>> tails = torch.tensor([-1e4, -0.0], dtype=torch.float64)
    >>> round(float(normal_quantile(tails[:1], tails[1:])), 2)
    -141.38
    """
    lower = log_below <= log_above
    log_p = torch.where(lower, log_below, log_above).clamp(min=_LEAST)
    with torch.no_grad():
        t = _lower_quantile(log_p)
    t = t + (log_p - log_p.detach()) * _mills(-t, log_p.detach())  # dt / d log p = p / φ(t)
    return torch.where(lower, t, -t)


def _lower_quantile(log_p: Tensor) -> Tensor:
    """Φ⁻¹(p) for p ≤ 1/2."""
    middle = torch.special.ndtri(log_p.clamp(min=_TAIL - 1).exp())
    far = log_p.clamp(max=_TAIL)
    # Φ(−t) ≈ φ(t) / t for large t; two rounds of the fixed point, and then Newton's method in the logarithm.
    t = (-2 * far - LOG_2PI).clamp(min=1).sqrt()
    t = (-2 * far - LOG_2PI - 2 * t.log()).clamp(min=1).sqrt()
    for _ in range(_NEWTON):
        log_tail = torch.special.log_ndtr(-t)
        t = t + (log_tail - far) * _mills(t, log_tail)
    return torch.where(log_p < _TAIL, -t, middle)


def _mills(t: Tensor, log_tail: Tensor) -> Tensor:
    """Mills' ratio Φ(−t) / φ(t), of t and log Φ(−t); by its series where their difference would lose all digits."""
    far = t.clamp(min=_FAR)
    near = (log_tail + 0.5 * (t.square() + LOG_2PI)).exp()
    return torch.where(t > _FAR, far.reciprocal() * (1 - far.pow(-2)), near)
