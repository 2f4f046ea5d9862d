"""Network in network, as Gidaris, Singh, Komodakis 2018 use it for rotations of small images."""

from __future__ import annotations

from torch import nn

from unsup.nn.backbone import Backbone, scaled
from unsup.nn.norm import BatchNorm
from unsup.nn.resnets import conv


class NIN(Backbone):
    """Blocks of a 5×5 or 3×3 convolution and two 1×1 ones (Lin, Chen, Yan 2014, https://arxiv.org/abs/1312.4400).

    With batch normalisation and ReLU, without its classifier. The first block has 192, 160 and 96 channels, the others
    192. A maximum over 3×3 of stride 2 ends the first block, a mean over 3×3 of stride 2 the second one (Gidaris,
    Singh, Komodakis 2018, https://arxiv.org/abs/1803.07728, CIFAR-10). Kernels are 5×5 in the first two blocks.

    Args:
        channels: of images.
        blocks: number of blocks, three to five in the paper.
        width: a factor of the numbers of channels.
    """

    def __init__(self, channels: int, blocks: int, width: float) -> None:
        super().__init__(channels)
        full, middle, narrow = (scaled(c, width) for c in (192, 160, 96))
        before, stages, sizes = channels, [], []
        for block in range(blocks):
            layers: list[nn.Module] = []
            widths = (full, full, full) if block else (full, middle, narrow)
            for outputs, kernel in zip(widths, (5 if block < 2 else 3, 1, 1), strict=True):
                layers += [conv(before, outputs, kernel), BatchNorm(outputs), nn.ReLU()]
                before = outputs
            if block == 0:
                layers.append(nn.MaxPool2d(3, 2, 1))
            if block == 1:
                layers.append(nn.AvgPool2d(3, 2, 1))
            stages.append(nn.Sequential(*layers))
            sizes.append(before)
        self.stages, self.sizes = nn.ModuleList(stages), tuple(sizes)
