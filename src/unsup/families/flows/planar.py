"""Planar flow: steps that bend space along one direction.

    f(y) = y + û h(wᵀy + b),  h = tanh,  |det ∂f/∂y| = 1 + h′(wᵀy + b) wᵀû        (eqs. 10 to 12)

(Rezende, Mohamed 2015, https://arxiv.org/abs/1505.05770). With û = u + (m(wᵀu) − wᵀu) w / ‖w‖² and m(x) = −1 + log(1 +
eˣ), wᵀû > −1 holds for all parameters, so that f is invertible (appendix A.1).
"""

from __future__ import annotations

from unsup.core.config import Count
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.flow import Dequantization, Flow
from unsup.nn.invertible import Chain, Flatten
from unsup.nn.smooth_steps import PlanarStep


class Planar(Flow):
    """Planar flow (Rezende, Mohamed 2015, https://arxiv.org/abs/1505.05770), from data to N(0, I).

    The paper has it from noise to the latents of a VAE, where the density of its own samples is all that is needed.
    Here the steps map data to the base, so that densities cost one pass, and a sample one bisection for each step. A
    step bends along one direction only: use it for two or three dimensions, and `spline-flow` or `maf` for more.

    The paper does not fix the number of steps of the ``paper`` preset for this use: it is our choice.

    Args:
        event: real, ordinal or binary vectors.
        layers: number of steps.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; the offsets b depend on it.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = Planar(Event((2,), Support("real")), layers=4)
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
        steps = (PlanarStep(event.dims, self.conditions.size) for _ in range(layers))
        self.flow = Chain([Flatten(event.shape), *steps])

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)
