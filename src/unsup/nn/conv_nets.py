"""Plain convolutional networks of semi-supervised learning: ConvSmall and ConvLarge.

Miyato, Maeda, Koyama, Ishii 2018 (https://arxiv.org/abs/1704.03976), after Laine, Aila 2017
(https://arxiv.org/abs/1610.02242). Without dropout, which is for models with labels to add.
"""

from __future__ import annotations

from torch import nn

from unsup.nn.backbone import Backbone, scaled
from unsup.nn.norm import BatchNorm

_SLOPE = 0.1


class ConvNet(Backbone):
    """Stages of convolutions with batch normalisation and leaky ReLU, and a maximum over 2×2 between stages.

    Args:
        channels: of images.
        stages: for each stage, (channels, kernel, padding) of its convolutions.
    """

    def __init__(self, channels: int, stages: tuple[tuple[tuple[int, int, int], ...], ...]) -> None:
        super().__init__(channels)
        before, made = channels, []
        for number, layers in enumerate(stages):
            own: list[nn.Module] = [nn.MaxPool2d(2)] if number else []
            for outputs, kernel, padding in layers:
                layer = nn.Conv2d(before, outputs, kernel, padding=padding, bias=False)
                nn.init.kaiming_normal_(layer.weight, a=_SLOPE, mode="fan_out")
                own += [layer, BatchNorm(outputs), nn.LeakyReLU(_SLOPE)]
                before = outputs
            made.append(nn.Sequential(*own))
        self.stages, self.sizes = nn.ModuleList(made), tuple(layers[-1][0] for layers in stages)


def conv_large(channels: int, width: float) -> ConvNet:
    """Three convolutions of 128, three of 256, then 3×3 of 512 without padding and 1×1 of 256 and 128 channels."""
    first, second, third, fourth = (scaled(c, width) for c in (128, 256, 512, 256))
    last = ((third, 3, 0), (fourth, 1, 0), (first, 1, 0))
    return ConvNet(channels, (((first, 3, 1),) * 3, ((second, 3, 1),) * 3, last))


def conv_small(channels: int, width: float) -> ConvNet:
    """Three convolutions of 96 and three of 192 channels, then 3×3 without padding and 1×1 twice, of 192."""
    first, second = scaled(96, width), scaled(192, width)
    last = ((second, 3, 0), (second, 1, 0), (second, 1, 0))
    return ConvNet(channels, (((first, 3, 1),) * 3, ((second, 3, 1),) * 3, last))
