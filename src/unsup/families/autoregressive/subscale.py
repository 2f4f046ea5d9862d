"""Subscale pixel network: an image as interleaved slices, which are generated one after the other.

p(x | c) = ∏_s p(x_s | x_{<s}, c),   x_s = x[:, i::S, j::S] for s = (i, j) in rows of offsets

(Menick, Kalchbrenner 2018, https://arxiv.org/abs/1812.01608). One network with shared weights serves all S² slices: an
embedder, which is a residual network over the earlier slices stacked in channels (slots of later ones are empty) with
an embedding of the position of the slice, and a masked decoder of the slice in raster order, gated PixelCNN layers and
then 1-D masked self-attention, to which the embedding is added at each pixel. Training and scoring evaluate all slices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import relu

from unsup.core.batch import Batch
from unsup.core.config import AtLeast, Count, Positive, Share, Whole
from unsup.core.errors import InputError
from unsup.core.event import BINARY, Event, Support
from unsup.core.model import (
    Advice,
    CanSample,
    ChooseEntry,
    CodesSplitEntries,
    Conditional,
    HasDensity,
    Model,
    Terms,
)
from unsup.nn.attention import Attention, check_heads
from unsup.nn.autoregressor import Steps
from unsup.nn.causal import Causal, Context, Groups, Pointwise, Sequential, layers_of, through
from unsup.nn.causal_conv import MaskedConv
from unsup.nn.conditions import Conditions
from unsup.nn.entries import EntryModel, against_all_but_images
from unsup.nn.gated import Beside, GatedLayer, Stacks
from unsup.nn.inputs import Inputs, levels_of
from unsup.nn.nets import ResidualBlock
from unsup.nn.observation import symbols_for
from unsup.nn.order import Order
from unsup.nn.raster import AsSequence, Raster, RasterSteps
from unsup.nn.sequence import Places


class Interleaved(Order):
    """Slice by slice, in rows of offsets; a slice is in raster order, channel by channel in a pixel.

    Args:
        event: images ``(C, H, W)`` with sides divisible by S.
        scale: S.
    """

    def __init__(self, event: Event, scale: int) -> None:
        channels, height, width = event.shape
        self.scale = scale
        self.slice = Event((channels, height // scale, width // scale), event.columns[0])
        numbers = self.slices(torch.arange(event.dims).view(1, *event.shape))[0]
        super().__init__(event, numbers.permute(0, 2, 3, 1).flatten())
        self.beginning = "the known part must come first in the order of generation: slice by slice, each from the top"

    def slices(self, image: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, S², C, H / S, W / S)``."""
        s = self.scale
        return torch.stack([image[..., i::s, j::s] for i in range(s) for j in range(s)], 1)


class Embedder(nn.Module):
    """A residual network over the slices that are known, with an embedding of which slice is next.

    Args:
        inputs: features of all slots.
        slices: number of slices.
        width: number of features.
        blocks: number of residual blocks.
    """

    def __init__(self, inputs: int, slices: int, width: int, blocks: int) -> None:
        super().__init__()
        self.reach = 1 + 2 * blocks
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.position = nn.Parameter(torch.randn(slices, width) * width**-0.5)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))

    def forward(self, slots: Tensor, number: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` and the numbers of slices ``(B,)`` → ``(B, width, h, w)``."""
        h: Tensor = self.first(slots) + self.position[number][:, :, None, None]
        for block in self.blocks:
            h = block(h)
        return relu(h)


class Subscale(EntryModel):
    """Interleaved slices of an image, one after the other (Menick, Kalchbrenner 2018,
    https://arxiv.org/abs/1812.01608).

    The cost of attention is that of sequences of H W / S² pixels. In sampling, the embedder runs once per slice and the
    decoder steps with caches. With ``scale=1`` it is the plain decoder. If the condition is an image of the same sides
    (`subscale-depth`), the embedder sees all of it. The widths are a choice of ours, and slots of slices are absolute.

    Args:
        event: images ``(C, H, W)`` of binary, ordinal or nominal entries.
        scale: S, a divisor of both sides.
        channels: features of the decoder for each colour channel.
        layers: number of gated layers.
        attention: number of blocks of self-attention.
        heads: number of attention heads, a divisor of the channels.
        embedding: features of the embedder.
        blocks: number of residual blocks of the embedder, each with two 3×3 convolutions.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: data that is not discrete images, sides that S does not divide, channels that heads do not divide.

    >>> from unsup import Event, Support
    >>> model = Subscale(Event((1, 4, 4), Support("binary")), channels=4, heads=2, layers=2, embedding=4, blocks=1)
    >>> model.sample(2).shape
    torch.Size([2, 1, 4, 4])
    """

    presets = {
        "tiny": {"channels": 4, "layers": 2, "attention": 1, "heads": 2, "embedding": 6, "blocks": 1},
        "paper": {"scale": 4, "channels": 128, "layers": 16, "attention": 8, "heads": 8, "embedding": 256, "blocks": 8},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64}

    order: Interleaved

    def __init__(
        self,
        event: Event,
        *,
        scale: Count = 2,
        channels: Count = 32,
        layers: Count = 4,
        attention: Whole = 2,
        heads: Count = 4,
        embedding: Count = 32,
        blocks: Whole = 2,
        given: Event | None = None,
    ) -> None:
        groups, height, width = event.shape
        if height % scale or width % scale:
            raise InputError(f"scale={scale} should divide both sides of images of {height}×{width}")
        check_heads(channels, heads)
        self.order = Interleaved(event, scale)
        self.inputs, self.observation = Inputs(event), symbols_for(event)
        self.take_condition_of(given)
        self.beside = Conditions(given, (height, width))
        aligned = self.beside.lies_on_pixels
        condition = 0 if aligned else self.conditions.size
        self.raster = Raster(self.order.slice)
        own, outputs, slices, all_channels = (
            self.inputs.channels,
            self.observation.outputs_each,
            scale**2,
            channels * groups,
        )
        slots = (slices - 1) * own + (slices * self.beside.channels if aligned else 0)
        self.embedder = Embedder(slots, slices, embedding, blocks) if slots else None
        chain: list[Causal] = []
        for i in range(layers):
            first = i == 0
            into = own if first else all_channels
            chain.append(GatedLayer(into, all_channels, groups, 3, condition, first=first, last=i == layers - 1))
            if self.embedder is not None:
                chain.append(Beside(embedding, Groups(all_channels, groups)))
        if attention:
            places = Places(self.raster, channels)
            blocks_of = [_attention_block(channels, heads) for _ in range(attention)]
            chain.append(AsSequence(Sequential(places, *blocks_of), self.raster))
        chain += [Pointwise(relu), MaskedConv(all_channels, all_channels, groups)]
        chain += [Pointwise(relu), MaskedConv(all_channels, groups * outputs, groups)]
        self.decoder = nn.ModuleList(chain)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return against_all_but_images(event)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)

    def layers(self) -> list[Causal]:
        """Those of the decoder."""
        return layers_of(self.decoder)

    def slot_features(self, slices: Tensor, number: Tensor, condition: Tensor | None) -> Tensor:
        """Input of the embedder: slices before the given one, the others empty, and all slices of an image condition.

        Args:
            slices: features of the slices ``(B, S², I, h, w)``.
            number: number of the slice to generate, ``(B,)``.
            condition: features of the image condition ``(B, S² I', h, w)``, or None.
        """
        slots = slices[:, :-1]
        known = torch.arange(slots.shape[1], device=number.device) < number[:, None]
        found = (slots * known[:, :, None, None, None]).flatten(1, 2)
        return found if condition is None else torch.cat([found, condition], 1)

    def condition_slices(self, context: Context) -> Tensor | None:
        """Features of an image condition: ``(B, S² I', h, w)``."""
        if not self.beside.lies_on_pixels:
            return None
        image = self.beside.beside_examples(context.given)
        assert image is not None
        return self.order.slices(image).flatten(1, 2)

    def _outputs(self, x: Tensor, context: Context) -> Tensor:
        self.event.check_shape(x)
        slices = self.order.slices(self.inputs.image(x))  # (B, S², I, h, w)
        n, count = slices.shape[:2]
        number = torch.arange(count, device=x.device).repeat(n)  # each slice of each image is an example
        repeated = replace(context, given=_repeated(context.given, count))
        if self.embedder is not None:
            condition = _repeated(self.condition_slices(context), count)
            slots = self.slot_features(slices.repeat_interleave(count, 0), number, condition)
            repeated = replace(repeated, pixels=self.embedder(slots, number))
        h = through(self.layers(), slices.flatten(0, 1), repeated)
        return h.permute(0, 2, 3, 1).reshape(n, self.event.dims, self.observation.outputs_each)

    def _steps(self, n: int, context: Context) -> Steps:
        return _SliceBySlice(self, n, context)

    def blind_spot(self, *, order: int = 0) -> Tensor:
        """Earlier entries that no layer can reach; all slots of earlier slices are seen at a pixel alike."""
        raster, dims = self.raster, self.raster.dims
        own = known = raster.grid(torch.eye(dims))
        if self.embedder is not None:
            near = 2 * self.embedder.reach + 1
            wide = nn.functional.max_pool2d(own.amax(1, keepdim=True), near, 1, self.embedder.reach)
            known = wide.expand_as(own)  # all channels of a pixel within reach
        seen: Any = own
        other: Any = torch.zeros_like(own)
        for layer in self.layers():
            seen, other = layer.spread(seen), layer.spread(other)
            if isinstance(layer, Beside):
                if isinstance(other, Stacks):
                    other = Stacks(other.vertical, torch.maximum(other.horizontal, known))
                else:
                    other = torch.maximum(other, known)
        count = self.order.scale**2
        reached = torch.block_diag(*[raster.line(seen).T] * count) > 0
        for s in range(1, count):
            reached[s * dims : (s + 1) * dims, : s * dims] = (raster.line(other).T > 0).repeat(1, s)
        return self.order.unreached(reached)


class SubscaleDepth(Model, HasDensity, CanSample, CodesSplitEntries):
    """Depth upscaling: the most significant bits of all pixels first, then the other bits given them.

    log p(x) = log p(x^high) + log p(x^low | x^high),   x = q x^high + x^low,   0 ≤ x^low < q

    Each term is a subscale pixel network; both are exact, and so is the sum (Menick, Kalchbrenner 2018,
    https://arxiv.org/abs/1812.01608).

    Each entry is decided twice, with all other entries in between: p(x) is not a product of one conditional for each
    entry. Therefore this model does not complete images, unlike `Subscale`.

    Args:
        event: images ``(C, H, W)`` of ordinal entries, whose number of levels 2^depth divides.
        depth: number of most significant bits.
        scale: as for `Subscale`, as are all others.
        channels: features of the decoder for each colour channel.
        layers: number of gated layers.
        attention: number of blocks of self-attention.
        heads: number of attention heads, a divisor of the channels.
        embedding: features of the embedder.
        blocks: number of residual blocks of the embedder.

    Raises:
        InputError: data that is not ordinal images, levels that 2^depth does not divide, and as for `Subscale`.

    >>> from unsup import Event, Support
    >>> event = Event((1, 4, 4), Support("ordinal", 256))
    >>> model = SubscaleDepth(event, channels=4, heads=2, layers=2, embedding=4, blocks=1)
    >>> model.high.event.uniform.levels, model.low.event.uniform.levels
    (8, 32)
    """

    presets = {"tiny": {**Subscale.presets["tiny"], "depth": 1}, "paper": Subscale.presets["paper"]}
    fit_defaults = Subscale.fit_defaults

    def __init__(
        self,
        event: Event,
        *,
        depth: Annotated[int, AtLeast(1)] = 3,
        scale: Count = 2,
        channels: Count = 32,
        layers: Count = 4,
        attention: Whole = 2,
        heads: Count = 4,
        embedding: Count = 32,
        blocks: Whole = 2,
    ) -> None:
        support = event.uniform
        assert support is not None
        self.support, self.each = support, support.levels >> depth
        if self.each < 2 or support.levels % 2**depth:
            raise InputError(
                f"depth={depth} bits of {support.levels} levels leave {support.levels / 2**depth:g} levels to the "
                "second network; expected a whole number of at least 2"
            )
        options: dict[str, Any] = {"scale": scale, "channels": channels, "layers": layers, "attention": attention}
        options |= {"heads": heads, "embedding": embedding, "blocks": blocks}
        high, low = (Event(event.shape, _levels(k)) for k in (2**depth, self.each))
        self.high = Subscale(high, **options)
        self.low = Subscale(low, given=high, **options)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if not event.is_image:
            return "takes images only"
        support = event.uniform
        if support is None or support.kind != "ordinal":
            return "takes ordinal pixels only"
        return "takes an even number of levels only" if support.levels % 2 else None

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The most significant bits of raw data, and the other bits."""
        self.event.check_shape(x)
        level = levels_of(x, self.support, torch.zeros((), dtype=torch.int64))
        return level // self.each, level % self.each

    def joined(self, high: Tensor, low: Tensor) -> Tensor:
        """The inverse of `split`."""
        return (high.long() * self.each + low.long() + self.support.low).to(self.event.dtype)

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        high, low = self.split(batch.x)
        self.high.prepare(Batch(high), generator=generator)
        self.low.prepare(Batch(low, given=high), generator=generator)

    def log_prob_each(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(high) and log p(low | high), ``(B,)`` each."""
        high, low = self.split(x)
        return self.high.log_prob(high), self.low.log_prob(low, given=high)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """−log p(x), and the two terms that it is the sum of: ``(B,)``."""
        high, low = self.log_prob_each(batch.x)
        return {"loss": -high - low, "high": -high.detach(), "low": -low.detach()}

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        high, low = self.log_prob_each(batch.x)
        return high + low

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        generator: Generator | None = None,
        temperature: Positive = 1.0,
        top_k: Count | None = None,
        top_p: Share | None = None,
    ) -> Tensor:
        """Draw the most significant bits of all pixels, then the others, each with caches.

        Args:
            n: number of samples.
            generator: random generator.
            temperature: divides the logits of both networks.
            top_k: draw from the k most probable levels of each network only.
            top_p: draw from the fewest levels whose total probability is at least p (nucleus sampling).
        """
        options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        high = self.high.sample(n, generator=generator, **options)
        return self.joined(high, self.low.sample(n, given=high, generator=generator, **options))

    @property
    def split_event(self) -> Event:
        """The most significant bits of all entries, then the other bits of all entries."""
        dims = self.event.dims
        return Event((2 * dims,), (self.high.event.columns[0],) * dims + (self.low.event.columns[0],) * dims, "vector")

    def split_entries(self, x: Tensor) -> Tensor:
        return torch.cat([part.flatten(1) for part in self.split(x)], 1).to(self.split_event.dtype)

    def join_entries(self, y: Tensor) -> Tensor:
        high, low = (part.reshape(-1, *self.event.shape) for part in y.chunk(2, 1))
        return self.joined(high, low)

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        dims = self.event.dims
        high = torch.zeros(n, dims, dtype=torch.int64, device=self.device)

        def choose_high(entry: int, conditional: Conditional) -> Tensor:
            value = choose(entry, conditional)
            high[:, entry] = value.long()
            return value

        self.high.visit(n, choose_high)
        self.low.visit(n, lambda entry, own: choose(dims + entry, own), given=high.view(n, *self.event.shape))


class _SliceBySlice(Steps):
    """The embedder once for each slice, the decoder pixel by pixel with new caches for each slice."""

    def __init__(self, model: Subscale, n: int, context: Context) -> None:
        self.model, self.n, self.context = model, n, context
        self.condition = model.condition_slices(context)
        shape = (n, model.order.scale**2, model.inputs.channels, model.raster.height, model.raster.width)
        self.slices = model.inputs.like.new_zeros(shape)
        self.decoder: RasterSteps

    def outputs(self, site: int) -> Tensor:
        number, own = divmod(site, self.model.raster.dims)
        if own == 0:
            self.decoder = self._begin(number)
        return self.decoder.outputs(own)

    def _begin(self, number: int) -> RasterSteps:
        model, context = self.model, self.context
        if model.embedder is not None:
            numbers = torch.full((self.n,), number, device=self.slices.device)
            slots = model.slot_features(self.slices, numbers, self.condition)
            context = replace(context, pixels=model.embedder(slots, numbers))
        return RasterSteps(model.layers(), model.inputs, model.raster, self.n, context)

    def put(self, site: int, value: Tensor) -> None:
        number, own = divmod(site, self.model.raster.dims)
        self.decoder.put(own, value)
        (row, column, channel), each = self.model.raster.sites[own], self.model.inputs.each
        features = self.model.inputs.levels(value).view(self.n, each)
        self.slices[:, number, channel * each : (channel + 1) * each, row, column] = features


def _repeated(x: Tensor | None, times: int) -> Tensor | None:
    return None if x is None else x.repeat_interleave(times, 0)


def _attention_block(width: int, heads: int) -> Sequential:
    """h + Attention(LN(h)), then h + MLP(LN(h))."""
    mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
    return Sequential(
        Sequential(Pointwise(nn.LayerNorm(width)), Attention(width, heads), residual=True),
        Sequential(Pointwise(nn.LayerNorm(width)), Pointwise(mlp), residual=True),
    )


def _levels(levels: int) -> Support:
    return BINARY if levels == 2 else Support("ordinal", levels)
