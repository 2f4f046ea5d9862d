"""Flow++: couplings by distribution functions of mixtures, networks with attention, variational dequantisation.

log P(x) ≥ E_q(u|x) [log p(x + u) − log q(u | x)] (Ho, Chen, Srinivas, Duan, Abbeel 2019,
https://arxiv.org/abs/1902.00275). A coupling transforms each entry of one half of an image, given the other half, by

    y = logit F(x; π, μ, s) · exp(a) + b        (eq. 12)

with F the distribution function of a mixture of logistics. All parameters are outputs of a network of gated
convolutions and self-attention. The noise u within the cells of the levels comes from a flow of the same couplings.
"""

from __future__ import annotations

from typing import Annotated

from unsup.core.config import Count, Within
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.bijection import MixtureCdf
from unsup.nn.coupling import Coupling
from unsup.nn.dequantizer import VariationalDequantizer
from unsup.nn.flow import Dequantization, Flow
from unsup.nn.front import usual_alpha
from unsup.nn.gated_attention import GatedAttentionNet, GatedFeatures
from unsup.nn.invertible import Chain, Flatten, Invertible, Squeeze
from unsup.nn.mixing import ActNorm, TriangularMixing
from unsup.nn.split import EqualHalves, HalfCheckerboard

_FEATURE_BLOCKS = 3  # of the features of the example for the noise
_LEAST_FEATURES = 4  # layer normalisation of fewer channels leaves little of them


class FlowPlusPlus(Flow):
    """Flow++ (Ho et al. 2019, https://arxiv.org/abs/1902.00275).

    Four couplings of the two colours of a checkerboard, a squeeze, two couplings of the halves of the channels, and
    three more of the checkerboard; each after an activation normalisation and a 1×1 convolution. Levels get noise from
    a flow with couplings of the same kind, and then pass through logit(α + (1 − 2α) v), with α = 0.05 for colours and
    1e-6 for grey levels. Real images have no noise and no logit. A condition is a further input of every network.
    Features are dropped in the loss of training only, also in the networks of the noise.

    The ``paper`` preset is the CIFAR-10 model, which warms up over 2,000 steps. It differs from the code of the
    authors: activation normalisations have a scale for each channel (there: each entry), one 1×1 convolution mixes all
    channels (there: one for each half), and the checkerboard has two colours (there: even and odd columns).

    Args:
        event: images of real, ordinal or binary pixels, with sides divisible by 4.
        channels: of the networks.
        blocks: of each network.
        heads: of the self-attention.
        components: number of logistics of each entry.
        noise_blocks: blocks of each network of the flow of the noise.
        dropout: share of the features inside the branches of the blocks that are dropped in training.
        dequantization: noise within the cells of discrete entries: ``variational``, as in the paper, or ``uniform``.
        given: event of the condition, e.g. ``labels(10)``, or None.

    >>> from unsup import Event, Support
    >>> model = FlowPlusPlus(Event((1, 4, 4), Support("ordinal", 8)), channels=8, blocks=1, heads=2, components=2)
    >>> model.sample(2).shape
    torch.Size([2, 1, 4, 4])
    """

    in_integers = True
    presets = {
        "tiny": {"channels": 8, "blocks": 1, "heads": 2, "components": 2, "noise_blocks": 1},
        "paper": {"channels": 96, "blocks": 10, "heads": 4, "components": 32, "noise_blocks": 2, "dropout": 0.2},
    }
    fit_defaults = {"lr": 3e-4, "batch_size": 64, "warmup": 100, "clip": 1.0, "ema": 0.999}

    def __init__(
        self,
        event: Event,
        *,
        channels: Count = 32,
        blocks: Count = 2,
        heads: Count = 4,
        components: Count = 8,
        noise_blocks: Count = 1,
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        dequantization: Dequantization = "variational",
        given: Event | None = None,
    ) -> None:
        self.take(event, given, logit_alpha=usual_alpha(event), earlier_alpha=0.05)
        context = self.conditions.size

        def coupling(c: int, sides: tuple[int, int], split: str, count: int, more: int, blocks: int) -> Coupling:
            bijection = MixtureCdf(components)
            own = HalfCheckerboard(count % 2) if split == "checkerboard" else EqualHalves(moves_first=count % 2 == 1)
            part, size = (c, (sides[0], sides[1] // 2)) if split == "checkerboard" else (c // 2, sides)
            net = GatedAttentionNet(part, more, channels, blocks, heads, bijection.outputs_each * part, size, dropout)
            return Coupling(own, net, bijection)

        def steps(
            c: int, sides: tuple[int, int], split: str, number: int, more: int = context, blocks: int = blocks
        ) -> list[Invertible]:
            found: list[Invertible] = []
            for count in range(number):
                found += [ActNorm(c), *([TriangularMixing(c)] if c > 1 else [])]
                found.append(coupling(c, sides, split, count, more, blocks))
            return found

        c, height, width = event.shape
        fine, coarse = (height, width), (height // 2, width // 2)
        self.flow = Chain(
            [
                *steps(c, fine, "checkerboard", 4),
                Squeeze(),
                *steps(4 * c, coarse, "channels", 2),
                *steps(4 * c, coarse, "checkerboard", 3),
                Flatten((4 * c, *coarse)),
            ]
        )
        if dequantization == "variational" and not event.is_real:
            narrow = max(_LEAST_FEATURES, channels // 3)
            noise = Chain(steps(c, fine, "checkerboard", 4, 2 * narrow, noise_blocks))
            features = GatedFeatures(c, narrow, _FEATURE_BLOCKS)
            self.front.dequantizer = VariationalDequantizer(event, flow=noise, features=features)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if not event.is_image:
            return "takes images only"
        if event.shape[1] % 4 or event.shape[2] % 4:
            return "needs images with sides divisible by 4"
        return super().reason_against(event)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(turn=None)
