"""PixelCNN++: whole pixels by a mixture of logistics, from gated residual blocks at three resolutions.

p(x | c) = ∏_i p(x_i | x_<i, c)  over pixels i in raster order; the channels of a pixel are coupled by their mixture,

    p(r, g, b) = Σ_k π_k P(r; μ_r, s_r) P(g; μ_g + α r, s_g) P(b; μ_b + β r + γ g, s_b)

(Salimans, Karpathy, Chen, Kingma 2017, https://arxiv.org/abs/1701.05517; the head is in `unsup.nn.logistics`). One
stream, u, sees what lies above, by kernels of 2 rows and 3 columns, the other, v, what lies above and on the left, by
kernels of 2×2. A block of both streams is

    u' = block(u)         v' = block(v, u')            on the way down to lower resolutions
    u' = block(u, ū)      v' = block(v, [u', v̄])       on the way up, with the short-cuts ū, v̄ from the way down

with ``block(x, s)`` of `unsup.nn.gated_residual`. Strided convolutions lead to half the resolution, transposed ones
back. All layers are weight-normalised, and initialised by the first batch. A constant channel of ones marks what lies
outside the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import elu

from unsup.core.batch import Batch
from unsup.core.config import Count, Within
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.causal import NOTHING, Causal, Context, Remembering, Site
from unsup.nn.causal_conv import MaskedConv, VerticalConv, Window
from unsup.nn.gated_residual import GatedResidual, point, square, with_ones
from unsup.nn.logistics import HeadName, pixel_head
from unsup.nn.raster import RasterModel
from unsup.nn.resolutions import Enlarged, VerticalEnlarged, coarse
from unsup.nn.weight_norm import WeightNorm


class Streams(NamedTuple):
    """Features of both streams. In stepping, ``above`` is a whole row, computed at its start, and None elsewhere."""

    above: Any
    left: Any


_Call = Callable[[Causal, Any], Any]


def _above(inputs: int, outputs: int, norm: WeightNorm) -> VerticalConv:
    return VerticalConv(inputs, outputs, rows=2, reach=1, norm=norm)


def _above_point(inputs: int, outputs: int, norm: WeightNorm) -> VerticalConv:
    return VerticalConv(inputs, outputs, rows=1, reach=0, norm=norm)


class Entrance(Remembering):
    """The image, and a channel of ones, to both streams; the pixel itself is not seen.

    u sees three columns of the two rows above; v sees three columns of the row above, and two rows of the column on the
    left.
    """

    strict = True

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.above = VerticalConv(inputs + 1, width, rows=2, reach=1, strict=True, norm=WeightNorm(width))
        self.row_above = VerticalConv(inputs + 1, width, rows=1, reach=1, strict=True, norm=WeightNorm(width))
        self.left = MaskedConv(inputs + 1, width, window=Window(above=1), norm=WeightNorm(width))

    def forward(self, h: Tensor, context: Context = NOTHING) -> Streams:
        h = with_ones(h)
        left = nn.functional.pad(self.left(h), (1, -1))
        return Streams(self.above(h), self.row_above(h) + left)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> dict[str, Any]:
        memory: dict[str, Any] = {p: getattr(self, p).begin(n, size) for p in ("above", "row_above", "left")}
        return memory | {"nothing": self.left.bias.new_zeros(n, len(self.left.bias))}

    def put(self, memory: dict[str, Any], site: Site, h: Tensor) -> None:
        h = with_ones(h)
        self.above.put(memory["above"], site, h)
        self.row_above.put(memory["row_above"], site, h)
        memory["last"] = self.left.step(memory["left"], site, h)

    def look(self, memory: dict[str, Any], site: Site) -> Streams:
        row = None
        if site.opens_row:
            row = self.above.look(memory["above"], site)
            memory["row"] = self.row_above.look(memory["row_above"], site)
            memory["last"] = memory["nothing"]
        return Streams(row, memory["row"][:, :, 0, site.column] + memory["last"])

    def spread(self, seen: Tensor) -> Streams:
        left = nn.functional.pad(self.left.spread(seen), (1, -1))
        return Streams(self.above.spread(seen), torch.maximum(self.row_above.spread(seen), left))


class Pair(nn.Module):
    """A block of both streams."""

    def __init__(self, width: int, *, up: bool, **options: Any) -> None:
        super().__init__()
        self.above = GatedResidual(width, _above, _above_point, beside=width if up else 0, **options)
        self.left = GatedResidual(width, square, point, beside=(2 if up else 1) * width, **options)


class Resolution(Causal):
    """Blocks on the way down at one resolution, all lower resolutions, and blocks on the way up.

    Args:
        width: number of features of each stream.
        blocks: number of blocks on the way down; there is one more on the way up, unless it is the lowest resolution.
        lower: number of lower resolutions.
        options: of the blocks.
    """

    def __init__(self, width: int, blocks: int, lower: int, **options: Any) -> None:
        super().__init__()
        self.down = nn.ModuleList(Pair(width, up=False, **options) for _ in range(blocks))
        self.up = nn.ModuleList(Pair(width, up=True, **options) for _ in range(blocks + (lower > 0)))
        self.lower = Resolution(width, blocks, lower - 1, **options) if lower else None
        if lower:
            window = Window(above=1, left=1)
            self.shrink_above = VerticalConv(width, width, rows=2, reach=1, stride=2, norm=WeightNorm(width))
            self.shrink_left = MaskedConv(width, width, window=window, stride=2, norm=WeightNorm(width))
            self.grow_above = VerticalEnlarged(width, WeightNorm(width))
            self.grow_left = Enlarged(width, WeightNorm(width))

    def _pairs(self, part: nn.ModuleList) -> list[Pair]:
        return cast(list[Pair], list(part))

    def _whole(self, h: Streams, call: _Call, join: Callable[[Any, Any], Any]) -> Streams:
        """Both streams at all sites; ``call`` evaluates a layer."""
        kept = [h]
        for pair in self._pairs(self.down):
            u = call(pair.above, kept[-1].above)
            kept.append(Streams(u, call(pair.left, (kept[-1].left, u))))
        if self.lower is None:
            u, v = kept.pop()
        else:
            u, v = kept[-1]
            size = u.shape[2:]
            low = call(self.lower, Streams(call(self.shrink_above, u), call(self.shrink_left, v)))
            u, v = call(self.grow_above, (low.above, size)), call(self.grow_left, (low.left, size))
        for pair in self._pairs(self.up):
            beside = kept.pop()
            u = call(pair.above, (u, beside.above))
            v = call(pair.left, (v, join(u, beside.left)))
        return Streams(u, v)

    def forward(self, h: Streams, context: Context = NOTHING) -> Streams:
        return self._whole(h, lambda layer, y: layer(y, context), lambda u, v: torch.cat([u, v], 1))

    def spread(self, seen: Streams) -> Streams:
        return self._whole(seen, lambda layer, y: layer.spread(y), torch.maximum)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> dict[Any, Any]:
        pairs = [*self._pairs(self.down), *self._pairs(self.up)]
        layers: list[Causal] = [layer for pair in pairs for layer in (pair.above, pair.left)]
        if self.lower is not None:
            layers += [self.shrink_above, self.shrink_left, self.grow_above, self.grow_left]
        memory: dict[Any, Any] = {layer: layer.begin(n, size, context) for layer in layers}
        if self.lower is not None:
            memory[self.lower] = self.lower.begin(n, coarse(size), context)
        return memory

    def step(self, memory: dict[Any, Any], site: Site, h: Streams) -> Streams:
        row = None
        if site.opens_row:
            row = self._row(memory, site, h.above)
        return Streams(row, self._site(memory, site, h.left))

    def _row(self, memory: dict[Any, Any], site: Site, u: Tensor) -> Tensor:
        """The row of the stream above, through all resolutions; the rows after each block are kept for the other."""
        call = _stepping(memory, site)
        kept = [u]
        for pair in self._pairs(self.down):
            kept.append(call(pair.above, kept[-1]))
        rows = kept[1:]
        if self.lower is None:
            u = kept.pop()
        else:
            low = call(self.shrink_above, kept[-1])
            if low is not None:
                low = self.lower._row(memory[self.lower], _halved(site), low)
            u = call(self.grow_above, low)
        for pair in self._pairs(self.up):
            u = call(pair.above, (u, kept.pop()))
            rows.append(u)
        memory["rows"] = rows
        return u

    def _site(self, memory: dict[Any, Any], site: Site, v: Tensor) -> Tensor:
        """The stream on the left at a site, through all resolutions in which the site has features of its own."""
        call = _stepping(memory, site)
        rows = iter([row[:, :, 0, site.column] for row in memory["rows"]])
        kept = [v]
        for pair in self._pairs(self.down):
            kept.append(call(pair.left, (kept[-1], next(rows))))
        if self.lower is None:
            v = kept.pop()
        else:
            low = call(self.shrink_left, kept[-1])
            if low is not None:
                low = self.lower._site(memory[self.lower], _halved(site), low)
            v = call(self.grow_left, low)
        for pair in self._pairs(self.up):
            v = call(pair.left, (v, torch.cat([next(rows), kept.pop()], 1)))
        return v


def _stepping(memory: dict[Any, Any], site: Site) -> _Call:
    return lambda layer, y: layer.step(memory[layer], site, y)


def _halved(site: Site) -> Site:
    return Site(site.row // 2, site.column // 2)


class Exit(Causal):
    """The features of the left stream, which has seen the other one."""

    def forward(self, h: Streams, context: Context = NOTHING) -> Tensor:
        return elu(cast(Tensor, h.left))

    def step(self, memory: None, site: Site, h: Streams) -> Tensor:
        return elu(cast(Tensor, h.left))

    def spread(self, seen: Streams) -> Tensor:
        return cast(Tensor, seen.left)


class PixelCNNPlusPlus(RasterModel):
    """PixelCNN++ (Salimans, Karpathy, Chen, Kingma 2017, https://arxiv.org/abs/1701.05517).

    Structure, initialisation and head are those of the paper and of its published code, with these differences: masses
    are differences of the distribution function, without the mid-point approximation, so that they sum to one; the
    edges of the levels are at −1 + 2 j / L, so that all bins have the same width; in the first row, the outputs of the
    first layer are its biases instead of zeros; the initialisation is computed from 64 examples without dropout, and
    does not scale outputs that hardly vary. The sides of lower resolutions are rounded up, so that those of images need
    not be divisible by 4. With ``given``, the condition adds a bias to both halves of every gate; if it is a class
    y, log p(x) = log Σ_y p(y) p(x | y), with p(y) counted in `prepare`.

    Args:
        event: images ``(C, H, W)`` of binary, ordinal or nominal entries.
        channels: features of each stream.
        blocks: number of blocks at each resolution on the way down.
        resolutions: number of resolutions, each half of the one before; at most 10.
        head: ``logistic``: mixture of logistics, for ordinal levels, with coupled channels; ``softmax``: mixture of
            products of softmaxes (Bernoullis) over the channels, which is not in the paper; ``auto``: ``logistic`` for
            more than two ordinal levels.
        mixtures: number of components of the head; unused for one channel with ``softmax``.
        dropout: share of features that are dropped in the blocks in training.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: data that is not discrete images, or ``logistic`` for levels without an order.

    >>> from unsup import Event, Support
    >>> model = PixelCNNPlusPlus(Event((3, 4, 4), Support("ordinal", 256)), channels=4, blocks=1)
    >>> model.pixel_head.outputs, bool(model.blind_spot().any())
    (100, False)
    >>> model.sample(2, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 4, 4])
    """

    presets = {
        "tiny": {"channels": 6, "blocks": 1, "resolutions": 2, "mixtures": 3},
        "paper": {"channels": 160, "blocks": 5, "resolutions": 3, "mixtures": 10, "dropout": 0.5},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 32, "betas": (0.95, 0.9995), "ema": 0.9995}

    def __init__(
        self,
        event: Event,
        *,
        channels: Count = 32,
        blocks: Count = 1,
        resolutions: Annotated[int, Within(1, 10)] = 3,
        head: HeadName = "auto",
        mixtures: Count = 10,
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        given: Event | None = None,
    ) -> None:
        pixels = pixel_head(event, head, mixtures)
        self.take(event, given, head=pixels, channels=channels)
        self.entrance = Entrance(self.inputs.channels, channels)
        options = {"condition": self.conditions.size, "dropout": dropout}
        self.net = Resolution(channels, blocks, resolutions - 1, **options)
        self.exit = Exit()
        self.last = MaskedConv(channels, pixels.outputs, norm=WeightNorm(pixels.outputs))

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(turn=None)

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Count the classes; then initialise all layers such that their outputs are standardised over examples."""
        super().prepare(batch, generator=generator)
        self.start_norms(batch)

    def layers(self) -> Sequence[Causal]:
        return [self.entrance, self.net, self.exit, self.last]
