"""FFJORD: free-form continuous flow.

log p(x) = log N(y(1); 0, I) + ∫₀¹ tr ∂f/∂y dt with dy/dt = f(y, t), y(0) = x, for any network f (Grathwohl, Chen,
Bettencourt, Sutskever, Duvenaud 2019, https://arxiv.org/abs/1810.01367). The inverse solves the equation backwards in
time. See `unsup.nn.ode`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import nn

from unsup.core.config import Count, Positive, Widths
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.flow import Dequantization, EstimatedFlow, scale_count
from unsup.nn.invertible import Chain, Flatten, Invertible, MultiScale, Squeeze
from unsup.nn.ode import ODE, ActivationName, Layers, SolverName
from unsup.nn.split import EqualHalves

_FEW = 8  # entries up to which the trace is exact by default
_LOGIT_ALPHA = 1e-6


class FFJORD(EstimatedFlow):
    """Continuous flow (Grathwohl et al. 2019, https://arxiv.org/abs/1810.01367), solved by torchdiffeq.

    With the exact trace, log p(x) of real data is exact up to the tolerance of the solver, which outside training is
    1e-6 in float32 and 1e-11 in float64; otherwise it is an unbiased estimate, with new random signs for each call.
    Training solves with steps of equal length by default, so that the loss of an example does not depend on the others
    of its batch; ``dopri5`` adapts them, as in the paper, to the hardest example of the batch. Discrete entries are
    dequantised; images of them pass through logit(α + (1 − 2α) v), α = 1e-6, and have convolutions at several scales,
    with a squeeze before each and half of the channels factored out after it.

    The ``paper`` preset is a multi-scale model of MNIST: two equations before and after each squeeze, each with three
    hidden layers of 64 channels. How time enters the layers (concatsquash) was not verified for that model.

    Args:
        event: real, ordinal or binary; vector (any mix), or image.
        layers: number of equations that are solved one after the other, at each scale of an image.
        hidden: units of each hidden layer of f for vectors, or channels for images.
        activation: ``softplus`` or ``tanh``.
        trace: ``exact``, ``estimate``, or ``auto``: exact for at most 8 entries.
        solver: in training: ``rk4`` with ``steps`` steps of equal length, or ``dopri5``.
        steps: of ``rk4``.
        tolerance: of ``dopri5`` in training.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; it is an input of f beside the time.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = FFJORD(Event((2,), Support("real")), hidden=(16,))
    >>> model.log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])
    """

    presets = {
        "tiny": {"layers": 1, "hidden": (12,), "steps": 4},
        "paper": {"layers": 2, "hidden": (64, 64, 64), "activation": "softplus", "solver": "dopri5"},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 256}

    def __init__(
        self,
        event: Event,
        *,
        layers: Count = 1,
        hidden: Widths = (64, 64),
        activation: ActivationName = "softplus",
        trace: Literal["auto", "exact", "estimate"] = "auto",
        solver: SolverName = "rk4",
        steps: Count = 8,
        tolerance: Positive = 1e-5,
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        alpha = _LOGIT_ALPHA if event.is_image and event.is_discrete else None
        self.take(event, given, logit_alpha=alpha, dequantization=dequantization)
        self.exact = trace == "exact" or (trace == "auto" and event.dims <= _FEW)
        context = self.conditions.size

        def equation(sizes: list[int]) -> ODE:
            nets = [_linear(a, b, event) for a, b in pairwise(sizes)]
            dynamics = Layers(nets, context, activation)
            return ODE(dynamics, exact=self.exact, solver=solver, steps=steps, tolerance=tolerance)

        if not event.is_image:
            sizes = [event.dims, *hidden, event.dims]
            self.flow: Invertible = Chain([Flatten(event.shape), *(equation(sizes) for _ in range(layers))])
            return
        c, height, width = event.shape
        scales, shapes = list[Invertible](), list[tuple[int, ...]]()
        for _ in range(scale_count(event, None) - 1):
            own = [equation([c, *hidden, c]) for _ in range(layers)]
            c, height, width = 4 * c, height // 2, width // 2
            scales.append(Chain([*own, Squeeze(), *(equation([c, *hidden, c]) for _ in range(layers))]))
            c //= 2
            shapes.append((c, height, width))
        scales.append(Chain(equation([c, *hidden, c]) for _ in range(layers)))
        self.flow = MultiScale(scales, EqualHalves(), [*shapes, (c, height, width)])

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        if event.layout == "vector":  # more and larger steps of training, with shorter solutions
            return Advice({"steps": 4}, {"ema": 0.99, "lr": 2e-2, "clip": 5.0}, turn=None)
        return Advice(training={"ema": 0.99}, turn=None)


def _linear(inputs: int, outputs: int, event: Event) -> nn.Linear | nn.Conv2d:
    if event.is_image:
        return nn.Conv2d(inputs, outputs, 3, padding="same")
    return nn.Linear(inputs, outputs)
