"""Flow++: couplings by distribution functions of mixtures, networks with attention, variational dequantisation.

log P(x) ≥ E_q(u|x) [log p(x + u) − log q(u | x)] (Ho, Chen, Srinivas, Duan, Abbeel 2019,
https://arxiv.org/abs/1902.00275). A coupling transforms each entry of one half of an image, given the other half, by

    y = logit F(x; π, μ, s) · exp(a) + b        (eq. 12)

with F the distribution function of a mixture of logistics. All parameters are outputs of a network of gated
convolutions and self-attention. The noise u within the cells of the levels comes from a flow of the same couplings.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, scaled_dot_product_attention

from unsup.core.config import Count, Within
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.bijection import MixtureCdf
from unsup.nn.coupling import Coupling
from unsup.nn.dequantizer import VariationalDequantizer
from unsup.nn.dropout import Dropout
from unsup.nn.flow import Dequantization, Flow
from unsup.nn.invertible import Chain, Flatten, Invertible, Squeeze
from unsup.nn.mixing import ActNorm, TriangularMixing
from unsup.nn.split import EqualHalves, HalfCheckerboard
from unsup.nn.weight_norm import WeightNorm

_LOGIT_ALPHA = 0.05
_QUIET = 0.1  # deviation of the outputs of networks and residual branches over the first batch


class _Conv(nn.Module):
    """A convolution with weight normalisation, whose outputs have a given deviation over the first batch."""

    def __init__(self, inputs: int, outputs: int, size: int, scale: float = 1.0) -> None:
        super().__init__()
        fresh = nn.Conv2d(inputs, outputs, size)
        assert fresh.bias is not None
        self.weight, self.bias, self.norm = fresh.weight, fresh.bias, WeightNorm(outputs, scale=scale)

    def forward(self, h: Tensor) -> Tensor:
        weight = self.norm.weight(self.weight)
        return self.norm.started(nn.functional.conv2d(h, weight, self.bias, padding="same"), self.bias)


class _ChannelNorm(nn.Module):
    """Layer normalisation of the channels of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, h: Tensor) -> Tensor:
        y: Tensor = self.norm(h.movedim(1, -1)).movedim(-1, 1)
        return y


def _double(h: Tensor) -> Tensor:
    """elu of [h, −h]."""
    return elu(torch.cat([h, -h], 1))


class _Block(nn.Module):
    """A gated convolution and gated self-attention, each with a residual connection and layer normalisation."""

    def __init__(self, channels: int, heads: int, context: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, Dropout(dropout)
        self.first = _Conv(2 * channels, channels, 3)
        self.aside = _Conv(2 * context, channels, 1) if context else None
        self.second = _Conv(2 * channels, 2 * channels, 1, _QUIET)
        self.norms = nn.ModuleList(_ChannelNorm(channels) for _ in range(2))
        self.queries = _Conv(channels, 3 * channels, 1)
        self.merge = _Conv(channels, 2 * channels, 1, _QUIET)

    def forward(self, h: Tensor, places: Tensor, context: Tensor | None) -> Tensor:
        inner = self.first(_double(h))
        if self.aside is not None and context is not None:
            inner = inner + self.aside(_double(context))
        value, gate = self.second(self.dropout(_double(inner))).chunk(2, 1)
        h = self.norms[0](h + value * gate.sigmoid())
        value, gate = self.merge(self.dropout(self._attention(h + places))).chunk(2, 1)
        y: Tensor = self.norms[1](h + value * gate.sigmoid())
        return y

    def _attention(self, h: Tensor) -> Tensor:
        split = self.queries(h).flatten(2).transpose(1, 2).unflatten(2, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        found = scaled_dot_product_attention(query, key, value)
        return found.transpose(1, 2).flatten(2).transpose(1, 2).view(h.shape)


class Network(nn.Module):
    """Gated convolutions with self-attention, ``(B, inputs + context, H, W)`` → ``(B, outputs, H, W)``.

    Args:
        inputs: channels of the half that is seen.
        context: channels of a context, which are inputs of every block.
        channels: of the blocks.
        sides: H and W, for the learned places.
        dropout: share of the inputs of the last convolution of each branch that are dropped in training.
    """

    def __init__(
        self,
        inputs: int,
        context: int,
        channels: int,
        blocks: int,
        heads: int,
        outputs: int,
        sides: tuple[int, int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.context = context
        self.first = _Conv(inputs, channels, 3)
        self.places = nn.Parameter(0.01 * torch.randn(channels, *sides))
        self.blocks = nn.ModuleList(_Block(channels, heads, context, dropout) for _ in range(blocks))
        self.last = _Conv(channels, outputs, 3, _QUIET)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.places.dtype)
        context = x[:, -self.context :] if self.context else None
        h = self.first(x[:, : x.shape[1] - self.context])
        for block in self.blocks:
            h = block(h, self.places, context)
        y: Tensor = self.last(h)
        return y


class FlowPlusPlus(Flow):
    """Flow++ (Ho et al. 2019, https://arxiv.org/abs/1902.00275).

    Four couplings of the two colours of a checkerboard, a squeeze, two couplings of the halves of the channels, and
    three more of the checkerboard; each after an activation normalisation and a 1×1 convolution. Levels get noise from
    a flow with couplings of the same kind, and then pass through logit(α + (1 − 2α) v), α = 0.05. Real images have no
    noise and no logit. A condition is a further input of every network. Features are dropped in the loss of training
    only, also in the networks of the noise.

    The ``paper`` preset is the CIFAR-10 model, which warms up over 2,000 steps. It differs from the code of the
    authors: activation normalisations have a scale for each channel (there: each entry), one 1×1 convolution mixes all
    channels (there: one for each half), the checkerboard has two colours (there: even and odd columns), and features of
    the example for the noise come from two convolutions (there: one, and three gated blocks).

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
        self.take(event, given, logit_alpha=None if event.is_real else _LOGIT_ALPHA)
        context = self.conditions.size

        def coupling(c: int, sides: tuple[int, int], split: str, count: int, more: int, blocks: int) -> Coupling:
            bijection = MixtureCdf(components)
            own = HalfCheckerboard(count % 2) if split == "checkerboard" else EqualHalves(moves_first=count % 2 == 1)
            part, size = (c, (sides[0], sides[1] // 2)) if split == "checkerboard" else (c // 2, sides)
            net = Network(part, more, channels, blocks, heads, bijection.outputs_each * part, size, dropout)
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
            narrow = max(1, channels // 3)
            noise = Chain(steps(c, fine, "checkerboard", 4, 2 * narrow, noise_blocks))
            self.front.dequantizer = VariationalDequantizer(event, flow=noise, features=_Features(c, narrow))

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


class _Features(nn.Module):
    """Features of the example for the flow of the noise: both colours of the checkerboard, side by side."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.first, self.second = _Conv(inputs, channels, 3), _Conv(2 * channels, channels, 3)
        self.split = HalfCheckerboard(0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(_double(self.first(x.to(self.first.weight.dtype))))
        return torch.cat(self.split.parts(h), 1)
