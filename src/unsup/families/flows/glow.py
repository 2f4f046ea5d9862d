"""Glow: generative flow with invertible 1×1 convolutions.

log p(x) = log N(f(x); 0, I) + log|det ∂f/∂x| (Kingma, Dhariwal 2018, https://arxiv.org/abs/1807.03039). A step of f is

    1. actnorm: y = s ⊙ x + b for each channel, initialised by the first batch;
    2. an invertible 1×1 convolution y = W x, at first a random rotation, log|det| = H · W · log|det W|;
    3. an affine coupling of the channels: y_b = (x_b + t(x_a)) ⊙ σ(h(x_a) + 2).

Scales squeeze 2 × 2 pixels to channels, apply K steps, and factor out half of the channels, which are Gaussian given
the others.
"""

from __future__ import annotations

from typing import Literal

from unsup.core.config import Count
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.bijection import Additive, LogAffine, SigmoidAffine
from unsup.nn.conditioner import ZeroConv, glow_net
from unsup.nn.coupling import Coupling
from unsup.nn.flow import Dequantization, Flow, scale_count
from unsup.nn.front import usual_alpha
from unsup.nn.invertible import Chain, Invertible, MultiScale, Squeeze
from unsup.nn.mixing import ActNorm, ConditionedScale, PlainMixing, TriangularMixing
from unsup.nn.split import EqualHalves, Halves

_DEQUANTIZER = 32  # channels of the networks of variational dequantisation


class Glow(Flow):
    """Glow (Kingma, Dhariwal 2018, https://arxiv.org/abs/1807.03039).

    Discrete pixels are dequantised and divided by the number of levels: the likelihood is a bound. Grey ones then pass
    through logit(α + (1 − 2α) v), α = 1e-6, as in other flows: their backgrounds of one level would otherwise need
    couplings with very large scales. The paper has colours only. Scaling is left to the first actnorm. The condition is
    appended to the inputs of all couplings, as channels, and shifts and scales the base; the paper conditions the base
    alone.

    The ``paper`` preset is the CIFAR-10 model: three scales of 32 steps, 512 channels. Unlike in the code of the
    authors, convolutions are padded with zeros without a channel that marks the border.

    Args:
        event: images of real, ordinal or binary pixels.
        scales: number of scales, each of which squeezes once; None squeezes until a side is odd or at most 4.
        steps: K, the steps of each scale.
        channels: channels of the networks of the couplings.
        coupling: ``affine``, or ``additive``, which costs less (used for large images in the paper).
        mixing: parametrisation of the 1×1 convolutions: ``lu``, or ``plain``.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: the image cannot be squeezed ``scales`` times.

    >>> from unsup import Event, Support
    >>> model = Glow(Event((1, 4, 4), Support("ordinal", 8)), scales=2, steps=1, channels=4)
    >>> model.sample(2).shape
    torch.Size([2, 1, 4, 4])
    """

    in_integers = True
    presets = {
        "tiny": {"steps": 1, "channels": 6},
        "paper": {"scales": 3, "steps": 32, "channels": 512, "coupling": "affine", "mixing": "lu"},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64, "warmup": 100, "clip": 100.0}

    def __init__(
        self,
        event: Event,
        *,
        scales: Count | None = None,
        steps: Count = 4,
        channels: Count = 64,
        coupling: Literal["affine", "additive"] = "affine",
        mixing: Literal["lu", "plain"] = "lu",
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        alpha = usual_alpha(event) if event.shape[0] == 1 else None
        self.take(
            event,
            given,
            logit_alpha=alpha,
            earlier_alpha=0.0,
            dequantization=dequantization,
            width=min(channels, _DEQUANTIZER),
            standardise=event.is_real or alpha is not None,
        )
        context = self.conditions.size
        count = scale_count(event, scales, squeezes_first=True)

        def step(c: int) -> Chain:
            affine = coupling == "affine"
            net = glow_net(c // 2 + context, channels, (2 if affine else 1) * (c - c // 2))
            mixed = TriangularMixing(c) if mixing == "lu" else PlainMixing(c)
            return Chain([ActNorm(c), mixed, Coupling(Halves(c // 2), net, SigmoidAffine() if affine else Additive())])

        c, height, width = event.shape
        chains, shapes = list[Invertible](), list[tuple[int, ...]]()
        for scale in range(count):
            c, height, width = 4 * c, height // 2, width // 2
            own: list[Invertible] = [Squeeze(), *(step(c) for _ in range(steps))]
            if scale < count - 1:
                # The half that is factored out is Gaussian, with mean and scale from the other half.
                prior = Coupling(Halves(c // 2), ZeroConv(c // 2 + context, 2 * (c - c // 2)), LogAffine())
                own.append(prior)
                shapes.append((c - c // 2, height, width))
                chains.append(Chain(own))
                c = c // 2
            else:
                shapes.append((c, height, width))
                chains.append(Chain([*own, ConditionedScale(c, context)]))
        self.flow = MultiScale(chains, EqualHalves(), shapes)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if not event.is_image:
            return "takes images only"
        if event.shape[1] % 2 or event.shape[2] % 2:
            return "needs images with even sides"
        return super().reason_against(event)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)
