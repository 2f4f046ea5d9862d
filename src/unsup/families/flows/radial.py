"""Radial flow: steps that contract or expand space around one point.

    f(y) = y + β (y − c) / (α + r),  r = ‖y − c‖        (eq. 14)
    log|det ∂f/∂y| = (D − 1) log(1 + β / (α + r)) + log(1 + α β / (α + r)²)

(Rezende, Mohamed 2015, https://arxiv.org/abs/1505.05770). α > 0 and β = −α + softplus(·) make f invertible (appendix
A.2).
"""

from __future__ import annotations

from unsup.core.config import Count
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.flow import Dequantization, Flow
from unsup.nn.invertible import Chain, Flatten
from unsup.nn.smooth_steps import RadialStep


class Radial(Flow):
    """Radial flow (Rezende, Mohamed 2015, https://arxiv.org/abs/1505.05770), from data to N(0, I).

    Densities and samples have closed forms. A step acts around one point only: use it for two or three dimensions, and
    `spline-flow` or `maf` for more.

    The paper does not fix the number of steps of the ``paper`` preset for this use: it is our choice.

    Args:
        event: real, ordinal or binary vectors.
        layers: number of steps.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; the centres c depend on it.

    >>> import torch
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
