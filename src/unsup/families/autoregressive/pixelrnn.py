"""PixelRNN: two-dimensional LSTM layers that read the pixels before a pixel.

p(x | c) = ∏_i ∏_k p(x_{i,k} | x_{<i}, x_{i,<k}, c)  over pixels i in raster order and colour channels k in turn
(van den Oord, Kalchbrenner, Kavukcuoglu 2016, https://arxiv.org/abs/1601.06759): a 7×7 convolution under mask A, then
layers with residual connections on 2h features, then 1×1 convolutions under mask B,

    y = x + R LSTM(x + V c)      R: 1×1 from h to 2h features under mask B; V c only when there is a condition

where LSTM is a Row LSTM or a Diagonal BiLSTM with h cells (`unsup.nn.recurrent_maps`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from unsup.core.config import Count
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.causal import Causal, Chain, Groups, Shift, layers_of
from unsup.nn.causal_conv import MaskedConv, relu_points, square
from unsup.nn.raster import RasterModel
from unsup.nn.recurrent_maps import DiagonalBiLSTM, RowLSTM

_FIRST_KERNEL = 7  # table 1 of the paper
_LAYERS = {"row": RowLSTM, "diagonal": DiagonalBiLSTM}


class RecurrentBlock(Chain):
    """x + R LSTM(x + V c)."""

    residual = True

    def __init__(self, layer: str, width: int, groups: int, condition: int) -> None:
        super().__init__()
        self.shift = Shift(condition, Groups(2 * width, groups))
        self.lstm = _LAYERS[layer](2 * width, width, groups)
        self.expand = MaskedConv(width, 2 * width, groups)

    def layers(self) -> Sequence[Causal]:
        return self.shift, self.lstm, self.expand


class PixelRNN(RasterModel):
    """Row LSTM or Diagonal BiLSTM over pixels (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759).

    Inputs and outputs are as in `PixelCNN`. Row LSTMs see a triangle above the pixel, and little of its own row.
    Diagonal BiLSTMs see every earlier pixel except one: the last pixel of the row above, if it is more than three
    columns away, because no feature of that row comes after it. What is not seen is declared (`blind_spot`); it is a
    property of the method. Layers have residual connections; the skip connections from every layer to the output, with
    which the paper also experiments, are left out.

    With ``given``, the condition adds a bias to the inputs of every LSTM; if it is a class y, log p(x) = log Σ_y p(y)
    p(x | y), with p(y) counted in `prepare`.

    Args:
        event: images ``(C, H, W)`` of binary, ordinal or nominal entries.
        layer: Row LSTM or Diagonal BiLSTM.
        channels: h, the number of cells of a layer, at least C; the residual stream has 2h channels.
        layers: number of LSTM layers.
        head_channels: features of the last two 1×1 layers, at least C.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: data that is not discrete images, fewer features than colour channels.

    >>> from unsup import Event, Support
    >>> event = Event((1, 8, 8), Support("binary"))
    >>> [int(PixelRNN(event, layer=layer, layers=2).blind_spot().sum()) for layer in ("row", "diagonal")]
    [156, 28]
    """

    presets = {
        "tiny": {"channels": 6, "layers": 2, "head_channels": 8},
        "paper": {"layer": "diagonal", "channels": 16, "layers": 7, "head_channels": 32},  # MNIST
        "paper-cifar10": {"layer": "diagonal", "channels": 128, "layers": 12, "head_channels": 1024},
    }
    fit_defaults = {"lr": 2e-3, "batch_size": 64, "clip": 1.0}

    def __init__(
        self,
        event: Event,
        *,
        layer: Literal["row", "diagonal"] = "diagonal",
        channels: Count = 16,
        layers: Count = 3,
        head_channels: Count = 32,
        given: Event | None = None,
    ) -> None:
        self.take(event, given, channels=channels, head_channels=head_channels)
        groups, condition = self.raster.channels, self.conditions.size
        first = square(_FIRST_KERNEL)
        self.first = MaskedConv(self.inputs.channels, 2 * channels, groups, window=first, mask="A")
        self.blocks = nn.ModuleList(RecurrentBlock(layer, channels, groups, condition) for _ in range(layers))
        widths = (2 * channels, head_channels, head_channels, groups * self.observation.outputs_each)
        self.head = relu_points(widths, groups)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(turn=None)

    def layers(self) -> Sequence[Causal]:
        return [self.first, *layers_of(self.blocks), self.head]
