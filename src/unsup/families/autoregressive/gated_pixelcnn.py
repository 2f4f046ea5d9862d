"""Gated PixelCNN: two stacks of gated convolutions that together see every earlier pixel.

p(x | c) = ∏_i ∏_k p(x_{i,k} | x_{<i}, x_{i,<k}, c)  over pixels i in raster order and colour channels k in turn
(van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu 2016, https://arxiv.org/abs/1606.05328). In each
layer a vertical stack v sees the rows above, with columns on both sides, and so leaves no blind spot; a horizontal one
h sees what is on the left in the row, under masks A (first layer) and B over groups of channels, and what the vertical
one found (figure 2, eq. 4). With f and g the halves that a gate takes,

    a = W ∗ v             v' = tanh(a_f + V_f c) ⊙ σ(a_g + V_g c)
    b = W' ∗ h + U a      h' = h + R (tanh(b_f + V'_f c) ⊙ σ(b_g + V'_g c))      U, R: 1×1; without h in the first layer
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from unsup.core.config import AtLeast, Count, Odd
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.causal import Causal, layers_of
from unsup.nn.causal_conv import relu_points
from unsup.nn.gated import gated_layers
from unsup.nn.raster import RasterModel


class GatedPixelCNN(RasterModel):
    """Gated convolutions in two stacks (van den Oord et al. 2016, https://arxiv.org/abs/1606.05328).

    Inputs and outputs are as in `PixelCNN`. The paper does not specify the output layers; they are those of PixelCNN:
    twice ReLU and 1×1, then ReLU and the logits. With ``given``, the condition adds a bias to both halves of every
    gate; if it is a class y, log p(x) = log Σ_y p(y) p(x | y), with p(y) counted in `prepare`.

    Args:
        event: images ``(C, H, W)`` of binary, ordinal or nominal entries.
        channels: features of each stack, at least C.
        layers: number of layers of both stacks.
        head_channels: features of the last two 1×1 layers, at least C.
        kernel: odd size n of the kernels: vertical kernels see (n + 1)/2 rows of n pixels, horizontal ones (n + 1)/2.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: data that is not discrete images, an even kernel, fewer features than colour channels.

    >>> from unsup import Event, Support
    >>> model = GatedPixelCNN(Event((1, 4, 4), Support("binary")), channels=4, layers=3, head_channels=4)
    >>> bool(model.blind_spot().any())
    False
    """

    presets = {
        "tiny": {"channels": 8, "layers": 2, "head_channels": 16, "kernel": 3},
        "paper": {"channels": 384, "layers": 20, "head_channels": 1024, "kernel": 5},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64}

    def __init__(
        self,
        event: Event,
        *,
        channels: Count = 32,
        layers: Count = 7,
        head_channels: Count = 64,
        kernel: Annotated[int, AtLeast(3), Odd()] = 3,
        given: Event | None = None,
    ) -> None:
        self.take(event, given, channels=channels, head_channels=head_channels)
        groups, condition = self.raster.channels, self.conditions.size
        self.stacks = gated_layers(self.inputs.channels, channels, groups, kernel, condition, layers)
        widths = (channels, head_channels, head_channels, groups * self.observation.outputs_each)
        self.head = relu_points(widths, groups)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)

    def layers(self) -> Sequence[Causal]:
        return [*layers_of(self.stacks), self.head]
