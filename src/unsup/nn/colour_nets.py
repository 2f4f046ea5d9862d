"""Networks from channels of CIE Lab to maps: that of colorization, whole or in two halves, and AlexNet in two halves.

A network of halves consists of two networks without connections, of L and of ab, that are computed as one by
convolutions of two groups. The first half of the channels of each of its stages is that of L, the other that of ab.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unsup.nn.backbone import Backbone, ChannelScale
from unsup.nn.norm import BatchNorm
from unsup.prob.lab import to_lab


class LabScale(ChannelScale):
    """Colours in [0, 1] → (L − 50) / 100, and for halves also a / 110 and b / 110: ``(B, 3, H, W)``."""

    def __init__(self, *, halves: bool) -> None:
        super().__init__(3 if halves else 1)
        self.mean.copy_(torch.tensor([50.0, 0, 0][: len(self.mean)]))
        self.std.copy_(torch.tensor([100.0, 110, 110][: len(self.std)]))

    def prepare(self, x: Tensor) -> None:
        """Nothing: the scale is fixed."""

    def forward(self, x: Tensor) -> Tensor:
        lab = to_lab(x)[:, : len(self.mean)]
        return super().forward(lab.to(self.mean.dtype))


class FirstHalves(nn.Module):
    """A convolution of L and one of ab: ``(B, 3, H, W)`` → ``(B, outputs, ...)``."""

    def __init__(self, outputs: int, kernel: int, stride: int, *, bias: bool = True) -> None:
        super().__init__()
        self.of_lightness, self.of_colour = (
            convolution(inputs, outputs // 2, kernel, stride=stride, bias=bias) for inputs in (1, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.of_lightness(x[:, :1]), self.of_colour(x[:, 1:])], 1)


def convolution(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """A convolution whose outputs are at pixels 0, stride, 2 stride …; started as He et al. 2015."""
    made = nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, groups, bias)
    nn.init.kaiming_normal_(made.weight, mode="fan_in", nonlinearity="relu")
    if made.bias is not None:
        nn.init.zeros_(made.bias)
    return made


class ColourNet(Backbone):
    """The network of colorization (Zhang, Isola, Efros 2016, https://arxiv.org/abs/1603.08511), up to its last maps.

    Stages of 3×3 convolutions with ReLUs, each followed by batch normalisation: ``halvings`` stages whose last
    convolution has stride 2, one stage, ``dilated`` stages of dilation 2, one stage; and a last one that doubles the
    sides by a transposed convolution, without normalisation. A stage has ``width`` channels, doubled by each halving.

    Args:
        width: channels of the first stage.
        halvings: number of stages that halve the sides.
        layers: convolutions of each stage; at most 2 in the first two.
        dilated: number of dilated stages.
        halves: two networks of half the width, of L and of ab, instead of one of L.

    Attributes:
        stride: distance in pixels of the places of the last maps.
    """

    def __init__(self, width: int, halvings: int, layers: int, dilated: int, *, halves: bool = False) -> None:
        super().__init__(3 if halves else 1)
        self.scale = LabScale(halves=halves)
        self.stride, groups = 2 ** (halvings - 1), 2 if halves else 1
        wide = [width * 2**stage for stage in range(halvings)] + [width * 2**halvings] * (dilated + 2)
        made: list[nn.Module] = []
        before = 0
        for stage, own in enumerate(wide):
            layered: list[nn.Module] = []
            count = min(layers, 2) if stage < min(2, halvings) else layers
            dilation = 2 if halvings < stage <= halvings + dilated else 1
            for number in range(count):
                stride = 2 if stage < halvings and number == count - 1 else 1
                if before == 0 and halves:
                    layer: nn.Module = FirstHalves(own, 3, stride)
                else:
                    layer = convolution(before or 1, own, stride=stride, dilation=dilation, groups=groups)
                layered += [layer, nn.ReLU()]
                before = own
            made.append(nn.Sequential(*layered, BatchNorm(own)))
        last = before // 2
        up = nn.ConvTranspose2d(before, last, 4, 2, 1, groups=groups)
        nn.init.kaiming_normal_(up.weight, mode="fan_out", nonlinearity="relu")
        assert up.bias is not None
        nn.init.zeros_(up.bias)
        layered = [up, nn.ReLU()]
        for _ in range(layers - 1):
            layered += [convolution(last, last, groups=groups), nn.ReLU()]
        self.stages = nn.ModuleList([*made, nn.Sequential(*layered)])
        self.sizes = (*wide, last)


class AlexHalves(Backbone):
    """The convolutions of AlexNet in two halves, for split-brain autoencoders (https://arxiv.org/abs/1611.09842).

    11×11 of stride 4, 5×5, and three of 3×3; a maximum over 3×3 of stride 2 after the first two; all in two groups,
    with batch normalisation before each ReLU. Padding is half of a kernel, so that places are at pixels 0, 16, 32 …:
    12×12 for 180×180 pixels. There is no last maximum and no fully connected layer.

    Args:
        width: channels of the first convolution, 96 in the paper, of both halves; the others have 8/3, 4, 4 and 8/3
            times as many.
    """

    stride = 16

    def __init__(self, width: int) -> None:
        super().__init__(3)
        self.scale = LabScale(halves=True)
        self.sizes = (width, *(width * times // 6 * 2 for times in (8, 12, 12, 8)))
        made: list[nn.Module] = []
        for stage, (before, own) in enumerate(zip((0, *self.sizes), self.sizes, strict=False)):
            kernel = 5 if stage == 1 else 3
            layer: nn.Module = convolution(before or 2, own, kernel, groups=2, bias=False)
            if stage == 0:
                layer = FirstHalves(own, 11, 4, bias=False)
            pool = [nn.MaxPool2d(3, 2, 1)] if stage in (1, 2) else []
            made.append(nn.Sequential(*pool, layer, BatchNorm(own), nn.ReLU()))
        self.stages = nn.ModuleList(made)
