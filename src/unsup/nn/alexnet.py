"""The convolutions of AlexNet, in the forms that tasks on patches use."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from unsup.nn.backbone import Backbone, scaled
from unsup.nn.norm import BatchNorm

LEAST_SIDE = 32
"""The smallest image of which a map is left after all convolutions."""


class AlexNet(Backbone):
    """Five convolutions (Krizhevsky, Sutskever, Hinton 2012, https://doi.org/10.1145/3065386), without dense layers.

    11×11 with 96 channels, 5×5 with 256, then 3×3 with 384, 384 and 256. A maximum over 3×3 of stride 2, whose last
    window may reach over the edge (as in Caffe), and a local response normalisation follow the first two; such a
    maximum follows the last one. Weights start as Glorot and Bengio 2010 have them.

    Args:
        channels: of images.
        width: a factor of the numbers of channels.
        stride, padding: of the first convolution.
        groups: 2: each half of the channels of the second, fourth and fifth convolution sees one half of its inputs.
        norm: batch normalisation without gain and offset after each of the last three convolutions.
    """

    def __init__(self, channels: int, width: float, *, stride: int, padding: int, groups: int, norm: bool) -> None:
        super().__init__(channels)
        sizes = tuple(2 * scaled(c / 2, width) for c in (96, 256, 384, 384, 256))
        before, stages = channels, []
        for number, outputs in enumerate(sizes):
            kernel, normed = (11, 5, 3, 3, 3)[number], norm and number > 1
            layer = nn.Conv2d(
                before,
                outputs,
                kernel,
                1 if number else stride,
                kernel // 2 if number else padding,
                groups=groups if number in (1, 3, 4) else 1,
                bias=not normed,
            )
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            layers: list[nn.Module] = []
            if number in (1, 2):
                layers += [nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5)]
            layers += [layer, *([BatchNorm(outputs, affine=False)] if normed else []), nn.ReLU()]
            stages.append(nn.Sequential(*layers))
            before = outputs
        self.stages, self.sizes = nn.ModuleList(stages), sizes

    def finished(self, maps: Tensor) -> Tensor:
        """The maximum after the last convolution."""
        return max_pool2d(maps, 3, 2, ceil_mode=True)
