"""Residual flow: invertible residual networks with unbiased log-determinants.

log p(x) = log N(f(x); 0, I) + log|det ∂f/∂x| (Chen, Behrmann, Duvenaud, Jacobsen 2019,
https://arxiv.org/abs/1906.02735), where f consists of steps

    y = x + g(x),  Lip(g) < 0.98,  log|det ∂y/∂x| = Σ_k (−1)^(k+1) / k · tr (∂g/∂x)ᵏ

and activation normalisations. Nothing is split or masked (i-ResNet: Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen 2019,
https://arxiv.org/abs/1811.00995). The inverse of a step is a fixed point. See `unsup.nn.residual`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Generator

from unsup.core.batch import Batch, Time
from unsup.core.config import Count, Whole, Widths
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.flow import Dequantization, EstimatedFlow, scale_count
from unsup.nn.front import usual_alpha
from unsup.nn.invertible import Chain, Flatten, Invertible, Squeeze
from unsup.nn.mixing import ActNorm
from unsup.nn.residual import Lipschitz, LipschitzConv, LipschitzDense, LipschitzNet, Residual

_FEW = 8  # entries up to which the log-determinant is exact by default
_DENSE = 128  # units of the dense steps at the end of an image model


class ResidualFlow(EstimatedFlow):
    """Residual flow (Chen et al. 2019, https://arxiv.org/abs/1906.02735).

    With the exact log-determinant, log p(x) of real data is exact; otherwise it is an unbiased estimate, with new
    random signs and a new number of terms for each call: 2 exact terms and a roulette in training, 20 exact terms and
    a roulette elsewhere. Each layer is divided by its spectral norm where this is above 0.98; that of a convolution is
    the norm of the map of whole images. Discrete entries are dequantised; images of them pass through
    logit(α + (1 − 2α) v), α = 0.05 for colours and 1e-6 for grey levels, and have convolutions at several scales with a
    squeeze between them. Nothing is factored out.

    The ``paper`` preset is the model of MNIST and CIFAR-10, layer for layer that of the published code: three scales of
    16 steps with kernels 3, 1, 3 and 512 channels, and four dense steps of 128 units at the end. The number of terms is
    geometric as in the paper (Poisson is the default of the code), and layers are bounded in the 2-norm, the default of
    the code; induced mixed norms are not implemented.

    Args:
        event: real, ordinal or binary; vector (any mix), or image.
        steps: residual steps, at each scale of an image.
        hidden: units of the hidden layers of g for vectors, or channels for images, where the first and the last kernel
            are 3×3, and others 1×1.
        scales: number of scales of an image; None squeezes until a side is odd or at most 4. Ignored for vectors.
        dense: number of dense steps after the last scale of an image. Ignored for vectors.
        log_det: ``exact``, by D derivatives; ``estimate``; or ``auto``: exact for at most 8 entries.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; it shifts the hidden units of all g.

    Raises:
        InputError: the image cannot be squeezed between ``scales`` scales.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = ResidualFlow(Event((2,), Support("real")), steps=2, hidden=(16,))
    >>> model.log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])
    """

    presets = {
        "tiny": {"steps": 2, "hidden": (12,)},
        "paper": {"steps": 16, "hidden": (512, 512), "scales": 3, "dense": 4},
    }
    fit_defaults = {"lr": 5e-3, "batch_size": 128}

    def __init__(
        self,
        event: Event,
        *,
        steps: Count = 8,
        hidden: Widths = (64, 64),
        scales: Count | None = None,
        dense: Whole = 0,
        log_det: Literal["auto", "exact", "estimate"] = "auto",
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        alpha = usual_alpha(event)
        self.take(event, given, logit_alpha=alpha, dequantization=dequantization)
        self.exact = log_det == "exact" or (log_det == "auto" and event.dims <= _FEW)
        if not hidden:
            raise InputError("hidden=() has no hidden layer, and a linear step adds nothing; pass e.g. hidden=(64, 64)")
        context = self.conditions.size

        def step(layers: list[Lipschitz], *, first: bool = False) -> Residual:
            return Residual(LipschitzNet(layers, context, activated=not first), exact=self.exact)

        def dense_layers(sizes: list[int]) -> list[Lipschitz]:
            return [LipschitzDense(a, b) for a, b in pairwise(sizes)]

        def convolutions(c: int, sides: tuple[int, int]) -> list[Lipschitz]:
            sizes = [c, *hidden, c]
            ends = (0, len(sizes) - 2)
            return [LipschitzConv(a, b, 3 if i in ends else 1, sides) for i, (a, b) in enumerate(pairwise(sizes))]

        if not event.is_image:
            chain: list[Invertible] = [Flatten(event.shape), ActNorm(event.dims)]
            for number in range(steps):
                sizes = [event.dims, *hidden, event.dims]
                chain += [step(dense_layers(sizes), first=number == 0), ActNorm(event.dims)]
            self.flow: Invertible = Chain(chain)
            return
        c, height, width = event.shape
        chain = [ActNorm(c)]
        for scale in range(scale_count(event, scales)):
            if scale:
                chain.append(Squeeze())
                c, height, width = 4 * c, height // 2, width // 2
            for number in range(steps):
                own = convolutions(c, (height, width))
                chain += [step(own, first=scale == number == 0), ActNorm(c)]
        chain.append(Flatten((c, height, width)))
        for _ in range(dense):
            chain += [step(dense_layers([event.dims, *[_DENSE] * len(hidden), event.dims])), ActNorm(event.dims)]
        self.flow = Chain(chain)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        super().prepare(batch, generator=generator)
        self._refresh()

    def after_step(self, time: Time) -> None:
        self._refresh()

    def _refresh(self) -> None:
        for part in self.modules():
            if isinstance(part, Lipschitz):
                part.refresh()
