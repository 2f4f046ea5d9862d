"""Planar flow: steps that bend space along one direction.

    f(y) = y + û h(wᵀy + b),  h = tanh,  |det ∂f/∂y| = 1 + h′(wᵀy + b) wᵀû        (eqs. 10 to 12)

(Rezende, Mohamed 2015, https://arxiv.org/abs/1505.05770). With û = u + (m(wᵀu) − wᵀu) w / ‖w‖² and m(x) = −1 + log(1 +
eˣ), wᵀû > −1 holds for all parameters, so that f is invertible (appendix A.1).
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
from unsup.prob.bisection import bisect
from unsup.prob.distributions import at_least_float32

_LEAST = 1e-6 - 1  # wᵀû: at −1 the determinant would be 0 where softplus is


class PlanarStep(Invertible):
    """y = x + û tanh(wᵀx + b) for vectors ``(B, D)``; with a condition, b has a term linear in it."""

    def __init__(self, dims: int, context: int = 0) -> None:
        super().__init__()
        w, noise = torch.randn(2, dims)
        self.w = nn.Parameter(w)
        # û is small at first: m is 0 where wᵀu = log(e − 1).
        self.u = nn.Parameter(math.log(math.e - 1) * w / w.square().sum() + 0.01 * noise)
        self.bias = nn.Parameter(torch.zeros(()))
        self.maps = nn.Linear(context, 1, bias=False) if context else None

    def told(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w, û, their product, and b for each example."""
        w, u, bias = (at_least_float32(p) for p in (self.w, self.u, self.bias))
        dot = w @ u
        product = _LEAST + softplus(dot)
        u = u + (product - dot) * w / w.square().sum()
        bias = bias[None]
        if self.maps is not None and context is not None:
            bias = bias + at_least_float32(self.maps(context.to(self.maps.weight.dtype)))[:, 0]
        return w, u, product, bias

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        w, u, product, bias = self.told(context)
        h = (x @ w + bias).tanh()
        return x + h[:, None] * u, (1 + (1 - h.square()) * product).log()

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """Along w the map is a + wᵀû tanh(a + b), which increases: its root is found by bisection."""
        w, u, product, bias = self.told(context)
        wanted = y @ w
        reach = product.abs().expand_as(wanted)

        def too_small(a: Tensor) -> Tensor:
            return a + product * (a + bias).tanh() < wanted

        a = bisect(too_small, wanted - reach, wanted + reach)
        return y - (a + bias).tanh()[:, None] * u


class Planar(Flow):
    """Planar flow (Rezende, Mohamed 2015, https://arxiv.org/abs/1505.05770), from data to N(0, I).

    The paper has it from noise to the latents of a VAE, where the density of its own samples is all that is needed.
    Here the steps map data to the base, so that densities cost one pass, and a sample one bisection for each step. A
    step bends along one direction only: use it for two or three dimensions, and `spline-flow` or `maf` for more.

    The paper does not fix the number of steps of the ``paper`` preset for this use: it is our choice.

    Args:
        event: real, ordinal or binary vectors of at least two entries.
        layers: number of steps.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; the offsets b depend on it.

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
