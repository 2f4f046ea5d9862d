"""NAF: neural autoregressive flow.

The map of each entry is a small monotone network, whose weights come from a masked network of the earlier entries
(Huang, Krueger, Lacoste, Courville 2018, https://arxiv.org/abs/1804.00779). It is the deep sigmoidal flow

    y_i = logit Σ_j w_j σ(a_j x_i + b_j),  w_j > 0, Σ_j w_j = 1, a_j > 0        (eq. 8)

with w, a and b functions of x_<i, or, with hidden units, the deep dense sigmoidal flow: layers

    h′ = logit(w σ(a ⊙ (u h) + b)),  rows of w and u positive with sum 1, a > 0        (eq. 9)

from x_i to y_i; see `unsup.prob.dense_sigmoid`.
"""

from __future__ import annotations

from typing import Literal

from unsup.core.config import Count, Widths
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.autoregressive_map import autoregressive_step
from unsup.nn.bijection import Bijection, DenseSigmoid, SigmoidMixture
from unsup.nn.flow import Dequantization, Flow
from unsup.nn.invertible import Chain, Flatten, Invertible
from unsup.nn.mixing import Reverse

_SMALL = 10_000  # training examples below which the networks are smaller


class NAF(Flow):
    """Neural autoregressive flow with deep sigmoidal maps, NAF-DSF or NAF-DDSF (Huang et al. 2018,
    https://arxiv.org/abs/1804.00779).

    Densities cost one pass; a sample finds one entry after the other, each by bisection. Logarithms are summed without
    products, so that derivatives do not underflow.

    The sizes of the presets ``paper`` (DSF) and ``paper-ddsf`` are our choice, apart from the five steps and 16
    sigmoids, which are the defaults in the code of the authors.

    Args:
        event: real, ordinal or binary; vector (any mix), or image.
        layers: number of autoregressive steps, in alternating orders.
        hidden: units of each hidden layer of each masked network.
        transformer: map of each entry: ``dsf``, one layer of sigmoids; ``ddsf``, a network of them.
        units: number of sigmoids of each entry, or of each of its layers.
        sigmoid_layers: number of layers of ``ddsf``.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; its features are inputs of every network.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = NAF(Event((3,), Support("real")), layers=2, hidden=(16,), units=4)
    >>> z, log_det = model.transform(torch.randn(5, 3))
    >>> z.shape, log_det.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    in_integers = True
    presets = {
        "tiny": {"layers": 2, "hidden": (12,), "units": 4},
        "paper": {"layers": 5, "hidden": (512, 512), "units": 16},
        "paper-ddsf": {"layers": 5, "hidden": (512, 512), "units": 16, "transformer": "ddsf", "sigmoid_layers": 2},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100, "clip": 5.0}

    def __init__(
        self,
        event: Event,
        *,
        layers: Count = 3,
        hidden: Widths = (128, 128),
        transformer: Literal["dsf", "ddsf"] = "dsf",
        units: Count = 16,
        sigmoid_layers: Count = 2,
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        self.take(event, given, dequantization=dequantization)

        def bijection() -> Bijection:
            return SigmoidMixture(units) if transformer == "dsf" else DenseSigmoid(units, sigmoid_layers)

        steps: list[Invertible] = [Flatten(event.shape)]
        for layer in range(layers):
            steps += [Reverse()] if layer else []
            steps.append(autoregressive_step(event.dims, hidden, bijection(), context=self.conditions.size))
        self.flow = Chain(steps)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        if examples < _SMALL:
            return Advice({"hidden": (64,), "units": 8}, {"ema": 0.99, "weight_decay": 0.1}, turn=None)
        return Advice(training={"ema": 0.99}, turn=None)
