"""Image Transformer: self-attention restricted to local blocks of an image.

p(x | c) = ∏_t p(x_t | x_<t, c)      h⁰_t = dropout(E[x_{t−1}] + P_t)
hˡ⁺½ = LN(hˡ + dropout(W_o softmax(q kᵀ / √d) v))      hˡ⁺¹ = LN(hˡ⁺½ + dropout(W₁ ReLU(W₂ hˡ⁺½)))

(Parmar, Vaswani, Uszkoreit, Kaiser, Shazeer, Ku, Tran 2018, https://arxiv.org/abs/1802.05751; section 3.2.) The keys
and values k, v of a position are those of its query block up to itself, and those of a memory block before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import relu

from unsup.core.batch import Batch
from unsup.core.config import Count, Whole, Within
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.causal import NOTHING, Causal, Context, Dropout, Pointwise, Remembering, Sequential, Site, layers_of
from unsup.nn.entries import against_all_but_images
from unsup.nn.local_attention import BlockRaster, Blocks, LocalAttention, line_blocks
from unsup.nn.logistics import CoupledLogistics, pixel_head, start_at
from unsup.nn.order import Order
from unsup.nn.sequence import Delayed, Placed, SequenceModel, Tokens


class ChannelTokens(Remembering):
    """Embeddings of levels, with a table for each colour channel; channels take turns in the sequence.

    Args:
        levels: number of levels.
        channels: number of channels.
        width: number of features.
        condition: size of the features of a condition; 0 without one.
    """

    strict = True

    def __init__(self, levels: int, channels: int, width: int, condition: int) -> None:
        super().__init__()
        self.levels, self.channels = levels, channels
        self.tokens = Tokens(levels * channels, width, condition)

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        channel = torch.arange(h.shape[1], device=h.device) % self.channels
        return self.tokens(h + self.levels * channel, context)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> Any:
        return self.tokens.begin(n, size, context)

    def put(self, memory: Any, site: Site, h: Tensor) -> None:
        self.tokens.put(memory, site, h + self.levels * (site.column % self.channels))

    def look(self, memory: Any, site: Site) -> Tensor:
        return self.tokens.look(memory, site)

    def spread(self, seen: Tensor) -> Tensor:
        return self.tokens.spread(seen)


class PixelValues(Delayed):
    """ReLU of a linear map of the channels of a pixel (a convolution of size and stride 1×C), scaled to [−1, 1].

    Args:
        levels: number of levels.
        channels: number of channels.
        width: number of features.
        condition: size of the features of a condition; 0 without one.
    """

    def __init__(self, levels: int, channels: int, width: int, condition: int) -> None:
        super().__init__(width, condition)
        self.levels, self.channels = levels, channels
        self.map = nn.Linear(channels, width)

    def features(self, h: Tensor) -> Tensor:
        values = (h if self.channels > 1 else h.unsqueeze(-1)).to(self.map.weight.dtype)
        return relu(self.map(2 * values / (self.levels - 1) - 1))


class RowsAndColumns(Placed):
    """Learned embeddings of the place of the site: half of the features for its row, half for column and channel.

    Args:
        order: the order of generation of images ``(C, H, W)``.
        frame: entries of a site: 1, or all channels of a pixel.
        width: number of features, even.
    """

    row: Tensor
    column: Tensor

    def __init__(self, order: Order, frame: int, width: int) -> None:
        super().__init__()
        channels, height, columns = order.shape[0] // frame, *order.shape[1:]
        channel, row, column = order.places(frame)
        self.register_buffer("row", row, persistent=False)
        self.register_buffer("column", column * channels + channel, persistent=False)
        self.rows = nn.Parameter(torch.randn(height, width // 2) * width**-0.5)
        self.columns = nn.Parameter(torch.randn(columns * channels, width // 2) * width**-0.5)

    def places(self) -> Tensor:
        return torch.cat([self.rows[self.row], self.columns[self.column]], 1)


class ImageTransformer(SequenceModel):
    """Decoder with local self-attention over pixels, or over their channels (Parmar et al. 2018).

    ``head="softmax"``: each channel of a pixel is a position, with embeddings of its own, and has a softmax (with two
    levels a Bernoulli). ``head="logistic"``: a pixel is a position; its channels have a mixture of logistics whose
    means are linear in earlier channels, as in PixelCNN++.

    Layers are post-norm, as in the paper's equations and in its code (tensor2tensor, ``imagetransformer_cifar10_base``:
    dropout, add, normalise), without biases in the attention. Coordinates are learned; the code uses sines.

    ``attention="1d"``: raster order; query blocks are intervals of positions, and memory blocks the positions before.
    ``attention="2d"``: the image is generated block by block, each block row by row; the memory block extends the query
    block to the top, to the left and to the right. Density, samples and completions all use that order.

    Args:
        event: images ``(C, H, W)`` of binary, ordinal or nominal entries.
        width: number of features, even.
        layers: number of layers.
        heads: number of attention heads, a divisor of the width.
        hidden: features of the hidden layer of the position-wise network.
        head: ``softmax`` for each channel, or a mixture of logistics for a pixel of more than two ordinal levels.
        components: number of logistics in a mixture.
        attention: blocks of the sequence, or rectangles of the image.
        block: size of query blocks: number of positions, or height and width in pixels; by default 128, or 8 8.
        memory: size of memory blocks: number of positions, or rows above and columns on each side, in pixels; by
            default 128, or 8 8.
        dropout: share of features that are dropped in training.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: data that is not discrete images, an odd width, or one that the heads do not divide, or block sizes
            that do not fit the attention, or a head that does not fit the data.

    >>> from unsup import Event, Support
    >>> event = Event((3, 4, 4), Support("ordinal", 8))
    >>> model = ImageTransformer(event, width=8, layers=1, heads=2, attention="2d", block=(2, 2), memory=(2, 2))
    >>> model.sample(2).shape
    torch.Size([2, 3, 4, 4])
    """

    presets = {
        "tiny": {"width": 16, "layers": 1, "heads": 2, "hidden": 32},
        "paper": {
            "width": 512,
            "layers": 12,
            "heads": 4,
            "hidden": 2048,
            "block": (256,),
            "memory": (256,),
            "dropout": 0.3,
        },
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 32}

    def __init__(
        self,
        event: Event,
        *,
        width: Count = 128,
        layers: Count = 4,
        heads: Count = 4,
        hidden: Count = 256,
        head: Literal["softmax", "logistic"] = "softmax",
        components: Count = 10,
        attention: Literal["1d", "2d"] = "1d",
        block: tuple[Count, ...] | None = None,
        memory: tuple[Whole, ...] | None = None,
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        given: Event | None = None,
    ) -> None:
        if width % 2:
            raise InputError(f"width={width} is odd; half of the features are for rows, half for columns")
        self.block, memory = _sizes("block", block, attention), _sizes("memory", memory, attention)
        order = BlockRaster(event, cast(tuple[int, int], self.block)) if attention == "2d" else None
        pixels = pixel_head(event, "logistic", components) if head == "logistic" else None
        self.take(event, given, order=order, head=pixels)
        assert event.uniform is not None
        first = ChannelTokens if pixels is None else PixelValues
        self.first = first(event.uniform.levels, event.shape[0], width, self.conditions.size)
        self.coordinates = RowsAndColumns(self.order, self.frame, width)
        self.noise = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Sequential(
                Sequential(LocalAttention(width, heads, self._blocks(memory)), Dropout(dropout), residual=True),
                Pointwise(nn.LayerNorm(width)),
                Sequential(
                    Pointwise(nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))),
                    Dropout(dropout),
                    residual=True,
                ),
                Pointwise(nn.LayerNorm(width)),
            )
            for _ in range(layers)
        )
        self.head = Pointwise(nn.Linear(width, self.observation.outputs_each if pixels is None else pixels.outputs))

    def _blocks(self, memory: tuple[int, ...]) -> Blocks:
        if isinstance(self.order, BlockRaster):
            return self.order.blocks(cast(tuple[int, int], memory)).times(self.event.shape[0] // self.frame)
        return line_blocks(self.sites, *self.block, *memory)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return against_all_but_images(event)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """As for all models; mixtures of logistics start at those of all pixels."""
        super().prepare(batch, generator=generator)
        if isinstance(self.pixel_head, CoupledLogistics):
            start_at(self.head, self.pixel_head.start(batch.x))

    def layers(self) -> Sequence[Causal]:
        return [self.first, self.coordinates, self.noise, *layers_of(self.blocks), self.head]


_DEFAULT = {"1d": (128,), "2d": (8, 8)}


def _sizes(name: str, given: tuple[int, ...] | None, attention: str) -> tuple[int, ...]:
    """The sizes of blocks, with the right number of axes."""
    default = _DEFAULT[attention]
    if given is None:
        return default
    if len(given) != len(default):
        what = "one number of positions" if attention == "1d" else "two numbers of pixels"
        raise InputError(f"{name}={given} does not fit attention={attention!r}; expected {what}, e.g. {default}")
    return given
