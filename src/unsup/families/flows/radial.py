"""Radial flow: steps that contract or expand space around one point.

    f(y) = y + β (y − c) / (α + r),  r = ‖y − c‖        (eq. 14)
    log|det ∂f/∂y| = (D − 1) log(1 + β / (α + r)) + log(1 + α β / (α + r)²)

(Rezende, Mohamed 2015, https://arxiv.org/abs/1505.05770). α > 0 and β = −α + softplus(·) make f invertible (appendix
A.2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from unsup.core.config import Count
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.flow import Dequantization, Flow
from unsup.nn.invertible import Chain, Flatten, Invertible
from unsup.prob.distributions import at_least_float32

_START = math.log(math.e - 1)  # softplus of it is 1
_MARGIN = 1e-6  # at β = −α the determinant would be 0 at the centre


class RadialStep(Invertible):
    """y = x + β (x − c) / (α + ‖x − c‖) for vectors ``(B, D)``; with a condition, c has a term linear in it."""

    def __init__(self, dims: int, context: int = 0) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.randn(dims))
        self.alpha, self.beta = nn.Parameter(torch.tensor(_START)), nn.Parameter(torch.tensor(_START))
        self.maps = nn.Linear(context, dims, bias=False) if context else None

    def told(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """c for each example, α and β."""
        centre = at_least_float32(self.centre)[None]
        if self.maps is not None and context is not None:
            centre = centre + at_least_float32(self.maps(context.to(self.maps.weight.dtype)))
        alpha = softplus(at_least_float32(self.alpha))
        return centre, alpha, softplus(at_least_float32(self.beta)) - alpha * (1 - _MARGIN)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        centre, alpha, beta = self.told(context)
        away = x - centre
        reach = alpha + _norm(away)
        log_det = (x.shape[1] - 1) * (beta / reach).log1p() + (alpha * beta / reach.square()).log1p()
        return x + beta * away / reach[:, None], log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The distance from c solves r² + (α + β − R) r − α R = 0, with the distance R of y."""
        centre, alpha, beta = self.told(context)
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


class Radial(Flow):
    """Radial flow (Rezende, Mohamed 2015, https://arxiv.org/abs/1505.05770), from data to N(0, I).

    Densities and samples have closed forms. A step acts around one point only: use it for two or three dimensions, and
    `spline-flow` or `maf` for more.

    The paper does not fix the number of steps of the ``paper`` preset for this use: it is our choice.

    Args:
        event: real, ordinal or binary vectors of at least two entries.
        layers: number of steps.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; the centres c depend on it.

    >>> from unsup import Event, Support
    >>> model = Radial(Event((2,), Support("real")), layers=4)
    >>> model.log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])
    """

    presets = {"tiny": {"layers": 4}, "paper": {"layers": 32}}
    fit_defaults = {"lr": 5e-3, "batch_size": 128}

    def __init__(
        self,
        event: Event,
        *,
        layers: Count = 16,
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        self.take(event, given, dequantization=dequantization)
        steps = (RadialStep(event.dims, self.conditions.size) for _ in range(layers))
        self.flow = Chain([Flatten(event.shape), *steps])

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)
