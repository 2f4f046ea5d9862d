"""PixelSNAIL: causal convolutions that alternate with causal self-attention over all earlier pixels.

p(x | c) = ∏_i p(x_i | x_<i, c)  over whole pixels i in raster order, whose channels have a joint distribution
(Chen, Mishra, Rohaninejad, Abbeel 2018, https://arxiv.org/abs/1712.09763). With f = ELU a block is

    h ← R(h)   several times                            R(h) = h + a ⊙ σ(b)    [a, b] = W₂ ∗ f(W₁ ∗ f(h) + U f(m)) + V c
    k, v = W_k R₁([x, h, s])      q = W_q R₁([h, s])      m_i = Σ_{j<i} softmax_j(q_i k_jᵀ / √d) v_j      h ← R₁(h; m)

with x the image, s the coordinates of pixels, and convolutions ∗ that see 2×2 pixels (the pixel, its left, upper and
upper left neighbours) in R, and one pixel in R₁. The first layer sees the left neighbour and the three above.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import elu

from unsup.core.batch import Batch
from unsup.core.config import Count, Within
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.causal import NOTHING, Causal, Context, Remembering, Site, layers_of, spread_through, through
from unsup.nn.causal_conv import MaskedConv, Window
from unsup.nn.gated_residual import GatedResidual, point, square, with_ones
from unsup.nn.logistics import HeadName, pixel_head
from unsup.nn.pixel_attention import Past, strict_spread, strictly_causal_attention
from unsup.nn.raster import RasterModel
from unsup.nn.weight_norm import WeightNorm


class Streams(NamedTuple):
    """Features h, which depend on earlier pixels only, and the image x itself, from which keys and values are made.

    In a step, ``pixels`` are those of the site before, since those of the site are not known yet.
    """

    features: Any
    pixels: Any


_Memory = dict[str, Any]


class Start(Remembering):
    """The first convolution, over the left pixel and three above, with a feature that is 1 inside the image."""

    strict = True

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        window = Window(above=1, left=1, right=1)
        self.conv = MaskedConv(inputs + 1, width, window=window, mask="A", norm=WeightNorm(width))

    def forward(self, h: Tensor, context: Context = NOTHING) -> Streams:
        return Streams(self.conv(with_ones(h), context), h)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> _Memory:
        return {"conv": self.conv.begin(n, size, context), "last": self.conv.weight.new_zeros(n, self.inputs)}

    def put(self, memory: _Memory, site: Site, h: Tensor) -> None:
        self.conv.put(memory["conv"], site, with_ones(h))
        memory["last"] = h

    def look(self, memory: _Memory, site: Site) -> Streams:
        return Streams(self.conv.look(memory["conv"], site), memory["last"])

    def spread(self, seen: Tensor) -> Streams:
        return Streams(self.conv.spread(seen), seen)


class PixelAttention(Causal):
    """h ← R₁(h; m), with m found by attention to the earlier pixels.

    Args:
        inputs: features of a pixel of the image.
        width: number of features h.
        keys: number of features of keys and queries.
        values: number of features of values.
        size: height and width of the image.
        condition: size of the features of a condition; 0 without one.
        dropout: share of features that are dropped in training.
    """

    places: Tensor

    def __init__(
        self, inputs: int, width: int, keys: int, values: int, size: tuple[int, int], condition: int, dropout: float
    ) -> None:
        super().__init__()
        self.sizes = [keys, values]
        row, column = (torch.arange(side) / side - 0.5 for side in size)
        self.register_buffer("places", torch.stack(torch.meshgrid(row, column, indexing="ij")), persistent=False)
        options: dict[str, Any] = {"condition": condition, "dropout": dropout, "both_signs": False}
        self.content = GatedResidual(inputs + width + 2, point, point, **options)
        self.keys_values = point(inputs + width + 2, keys + values, WeightNorm(keys + values))
        self.question = GatedResidual(width + 2, point, point, **options)
        self.queries = point(width + 2, keys, WeightNorm(keys))
        self.mix = GatedResidual(width, point, point, beside=values, **options)

    def forward(self, h: Streams, context: Context = NOTHING) -> Streams:
        features, pixels = h
        places = self.places.expand(len(features), -1, -1, -1)
        content = self.content(torch.cat([pixels, features, places], 1), context)
        question = self.question(torch.cat([features, places], 1), context)
        keys, values = _line(self.keys_values(content, context)).split(self.sizes, 2)
        found = strictly_causal_attention(_line(self.queries(question, context)), keys, values)
        found = found.unflatten(1, self.places.shape[1:]).permute(0, 3, 1, 2)
        return Streams(self.mix((features, found), context), pixels)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> _Memory:
        parts = ("content", "keys_values", "question", "queries", "mix")
        memory = {name: getattr(self, name).begin(n, size, context) for name in parts}
        past = Past(*(self.places.new_zeros(n, size[0] * size[1], each) for each in self.sizes))
        return memory | {"past": past, "before": None, "places": _line(self.places[None]).expand(n, -1, -1)}

    def step(self, memory: _Memory, site: Site, h: Streams) -> Streams:
        features, pixels = h
        if memory["before"] is not None:  # the pixel before is known by now
            content = self.content.step(memory["content"], site, torch.cat([pixels, memory["before"]], 1))
            keys_values = cast(Tensor, self.keys_values.step(memory["keys_values"], site, content))
            memory["past"].put(*keys_values.split(self.sizes, 1))
        memory["before"] = torch.cat([features, memory["places"][:, site.row * self.places.shape[2] + site.column]], 1)
        question = self.question.step(memory["question"], site, memory["before"])
        found = memory["past"].look(cast(Tensor, self.queries.step(memory["queries"], site, question)))
        return Streams(self.mix.step(memory["mix"], site, (features, found)), pixels)

    def spread(self, seen: Streams) -> Streams:
        features, pixels = seen
        found = strict_spread(torch.maximum(features, pixels).flatten(2).squeeze(1)).view_as(features)
        return Streams(torch.maximum(features, found), pixels)


def _line(maps: Tensor) -> Tensor:
    """``(B, F, H, W)`` → ``(B, H W, F)``, without a copy if the features lie last in memory."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


class Block(Causal):
    """Gated residual convolutions, then attention."""

    def __init__(self, convolutions: Sequence[GatedResidual], attention: PixelAttention) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self.attention = attention

    def forward(self, h: Streams, context: Context = NOTHING) -> Streams:
        features = through(layers_of(self.convolutions), h.features, context)
        return cast(Streams, self.attention(Streams(features, h.pixels), context))

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> list[Any]:
        return [layer.begin(n, size, context) for layer in (*layers_of(self.convolutions), self.attention)]

    def step(self, memory: list[Any], site: Site, h: Streams) -> Streams:
        features = h.features
        for layer, own in zip(layers_of(self.convolutions), memory, strict=False):
            features = layer.step(own, site, features)
        return self.attention.step(memory[-1], site, Streams(features, h.pixels))

    def spread(self, seen: Streams) -> Streams:
        features = spread_through(layers_of(self.convolutions), seen.features)
        return self.attention.spread(Streams(features, seen.pixels))


class Head(Causal):
    """ELU and a 1×1 convolution of the features h."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.conv = point(width, outputs, WeightNorm(outputs))

    def forward(self, h: Streams, context: Context = NOTHING) -> Tensor:
        return self.conv(elu(h.features), context)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> Any:
        return self.conv.begin(n, size, context)

    def step(self, memory: Any, site: Site, h: Streams) -> Tensor:
        return self.conv.step(memory, site, elu(h.features))

    def spread(self, seen: Streams) -> Tensor:
        return cast(Tensor, seen.features)


class PixelSNAIL(RasterModel):
    """Gated causal convolutions and attention over all earlier pixels (Chen et al. 2018).

    A pixel's channels have a mixture of logistics whose means are linear in earlier channels (ordinal data), or a
    mixture of products of softmaxes or Bernoullis; one channel has a single softmax or Bernoulli. With ``given``, the
    condition adds a bias to both halves of every gate. Convolutions have weight norm, initialised on training data.

    The activation is ELU, as in the published code for CIFAR-10, and not the concatenated ELU of PixelCNN++, with which
    each convolution has twice the inputs. The published code starts with two convolutions, over three pixels above and
    over two on the left; their sum is the first layer here.

    Args:
        event: images ``(C, H, W)`` of binary, ordinal or nominal entries.
        channels: number of features.
        blocks: number of blocks.
        layers: number of gated residual convolutions in a block.
        keys: number of features of keys and queries.
        values: number of features of values.
        dropout: share of features that are dropped in training.
        head: ``logistic``, ``softmax``, or ``auto``: logistic for more than two ordinal levels.
        components: number of components of the mixture.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: data that is not discrete images, or a head that does not fit it.

    >>> from unsup import Event, Support
    >>> model = PixelSNAIL(Event((1, 4, 4), Support("binary")), channels=4, blocks=1, layers=1, keys=2, values=2)
    >>> bool(model.blind_spot().any())
    False
    """

    presets = {
        "tiny": {"channels": 6, "blocks": 1, "layers": 1, "keys": 4, "values": 4, "components": 2},
        "paper": {"channels": 256, "blocks": 12, "layers": 4, "keys": 16, "values": 128, "dropout": 0.5},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 32}

    def __init__(
        self,
        event: Event,
        *,
        channels: Count = 32,
        blocks: Count = 2,
        layers: Count = 2,
        keys: Count = 16,
        values: Count = 16,
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        head: HeadName = "auto",
        components: Count = 10,
        given: Event | None = None,
    ) -> None:
        pixels = pixel_head(event, head, components)
        self.take(event, given, head=pixels)
        size, condition, inputs = (self.raster.height, self.raster.width), self.conditions.size, self.inputs.channels
        self.start = Start(inputs, channels)
        options: dict[str, Any] = {"condition": condition, "dropout": dropout, "both_signs": False}
        self.blocks = nn.ModuleList(
            Block(
                [GatedResidual(channels, square, point, **options) for _ in range(layers)],
                PixelAttention(inputs, channels, keys, values, size, condition, dropout),
            )
            for _ in range(blocks)
        )
        self.head = Head(channels, pixels.outputs)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Count the classes; then initialise all layers such that their outputs are standardised over examples."""
        super().prepare(batch, generator=generator)
        self.start_norms(batch)

    def layers(self) -> Sequence[Causal]:
        return [self.start, *layers_of(self.blocks), self.head]
