"""PixelCNN: a stack of masked convolutions that computes all conditionals of an image in one pass.

p(x) = ∏_i ∏_c p(x_{i,c} | x_{<i}, x_{i,<c})  over pixels i in raster order and colour channels c in turn
(van den Oord, Kalchbrenner, Kavukcuoglu 2016, https://arxiv.org/abs/1601.06759). Each layer's features are split into
one group a channel. A k×k kernel keeps the rows above its centre and, in the centre's row, what is on the left; at the
centre itself group g sees

    mask A (first layer):  groups < g          mask B (all others, 1×1 included):  groups ≤ g

The 7×7 mask A convolution gives 2h features; a residual block is ReLU, 1×1 2h→h, ReLU, k×k h→h, ReLU, 1×1 h→2h
(figure 5); then two layers of ReLU and 1×1, and a last ReLU and 1×1 to the logits of a softmax for each channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import nn
from torch.nn.functional import relu

from unsup.core.config import AtLeast, Count, Odd
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.causal import Causal, Chain, Pointwise, Shift, layers_of
from unsup.nn.causal_conv import MaskedConv, square
from unsup.nn.raster import RasterModel

_FIRST_KERNEL = 7  # table 1 of the paper
_RELU = Pointwise(relu)


class ResidualBlock(Chain):
    """x + Conv₁ₓ₁(ReLU(Convₖₓₖ(ReLU(Conv₁ₓ₁(ReLU(x)))) + V c)), V c only when there is a condition."""

    residual = True

    def __init__(self, width: int, groups: int, kernel: int, condition: int) -> None:
        super().__init__()
        self.reduce = MaskedConv(2 * width, width, groups)
        self.spatial = MaskedConv(width, width, groups, window=square(kernel))
        self.expand = MaskedConv(width, 2 * width, groups)
        self.shift = Shift(condition, self.spatial.out)

    def layers(self) -> Sequence[Causal]:
        return _RELU, self.reduce, _RELU, self.spatial, self.shift, _RELU, self.expand


class PixelCNN(RasterModel):
    """Masked convolutional density of discrete images (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759).

    The output is a Bernoulli logit for two levels, and a K-way softmax for more. Integers are scaled to [−1, 1];
    nominal inputs with more than two levels are one-hot. Earlier pixels in a wedge to the upper right are not seen
    (`blind_spot`), which is a property of the method.

    With ``given`` the condition adds a bias without spatial extent to every block, as in the conditional PixelCNN (van
    den Oord et al. 2016, https://arxiv.org/abs/1606.05328). Training minimises −log p(x | c). If it is a class y, with
    p(y) counted in `prepare`, log p(x) = log Σ_y p(y) p(x | y) is still exact, and `orders` and `conditionals` have one
    row (one mixture component) per class.

    Args:
        event: images ``(C, H, W)`` of binary, ordinal or nominal entries.
        channels: h, at least C; the residual stream has 2h channels.
        blocks: number of residual blocks.
        head_channels: features of the last two 1×1 layers, at least C.
        kernel: odd size of the convolutions in the blocks; the first layer has size 7.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: data that is not discrete images, an even kernel, fewer features than colour channels.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = PixelCNN(Event((3, 4, 4), Support("ordinal", 8)), channels=6, blocks=1, head_channels=6)
    >>> model.log_prob(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)).shape
    torch.Size([2])
    >>> model.sample(2, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 4, 4])
    """

    presets = {
        "tiny": {"channels": 6, "blocks": 1, "head_channels": 8},
        "paper": {"channels": 128, "blocks": 15, "head_channels": 1024},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64}

    def __init__(
        self,
        event: Event,
        *,
        channels: Count = 32,
        blocks: Annotated[int, AtLeast(0)] = 7,
        head_channels: Count = 64,
        kernel: Annotated[int, AtLeast(1), Odd()] = 3,
        given: Event | None = None,
    ) -> None:
        self.take(event, given, channels=channels, head_channels=head_channels)
        groups, condition = self.raster.channels, self.conditions.size
        first = square(_FIRST_KERNEL)
        self.first = MaskedConv(self.inputs.channels, 2 * channels, groups, window=first, mask="A")
        self.blocks = nn.ModuleList(ResidualBlock(channels, groups, kernel, condition) for _ in range(blocks))
        widths = (2 * channels, head_channels, head_channels, groups * self.observation.outputs_each)
        self.head = nn.ModuleList(MaskedConv(a, b, groups) for a, b in pairwise(widths))

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=2)

    def layers(self) -> Sequence[Causal]:
        head = (layer for conv in layers_of(self.head) for layer in (_RELU, conv))
        return [self.first, *layers_of(self.blocks), *head]
