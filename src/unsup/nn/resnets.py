"""Residual networks: ResNet (He, Zhang, Ren, Sun 2016) and its wide form (Zagoruyko, Komodakis 2016)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from unsup.nn.backbone import Backbone
from unsup.nn.norm import BatchNorm

_EXPANSION = 4  # of the last convolution of a bottleneck
SLOPE = 0.1  # of leaky ReLUs


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the sides, divided by the stride; started as He et al. 2015."""
    made = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, each with batch normalisation; ReLU after the first one and after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.first_norm = conv(inputs, outputs, 3, stride), BatchNorm(outputs)
        self.second, self.second_norm = conv(outputs, outputs, 3), BatchNorm(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = relu(self.first_norm(self.first(x)), inplace=True)
        found: Tensor = relu(self.second_norm(self.second(h)).add_(self.shortcut(x)), inplace=True)
        return found


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, the last with four times the channels; the 3×3 one has the stride."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = _EXPANSION * width
        self.first, self.first_norm = conv(inputs, width, 1), BatchNorm(width)
        self.second, self.second_norm = conv(width, width, 3, stride), BatchNorm(width)
        self.third, self.third_norm = conv(width, outputs, 1), BatchNorm(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = relu(self.first_norm(self.first(x)), inplace=True)
        h = relu(self.second_norm(self.second(h)), inplace=True)
        found: Tensor = relu(self.third_norm(self.third(h)).add_(self.shortcut(x)), inplace=True)
        return found


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(conv(inputs, outputs, 1, stride), BatchNorm(outputs))


class ResNet(Backbone):
    """ResNet (He, Zhang, Ren, Sun 2016, https://arxiv.org/abs/1512.03385), without its classifier.

    Args:
        channels: of images.
        blocks: number of blocks of each of the four stages.
        width: channels of the first stage, doubled in each one.
        bottleneck: blocks of three convolutions, else of two.
        halves: a 7×7 convolution of stride 2 and a maximum over 3×3 of stride 2 at the start, as for ImageNet; else a
            3×3 convolution, the usual form for 32×32.
    """

    def __init__(self, channels: int, blocks: tuple[int, ...], width: int, *, bottleneck: bool, halves: bool) -> None:
        super().__init__(channels)
        stem: list[nn.Module] = [conv(channels, width, 7 if halves else 3, 2 if halves else 1), BatchNorm(width)]
        stem += [nn.ReLU(inplace=True), *([nn.MaxPool2d(3, 2, 1)] if halves else [])]
        stages: list[nn.Module] = []
        before, sizes = width, []
        for stage, count in enumerate(blocks):
            own, made = width * 2**stage, []
            for block in range(count):
                stride = 2 if stage and not block else 1
                made.append((Bottleneck if bottleneck else BasicBlock)(before, own, stride))
                before = own * (_EXPANSION if bottleneck else 1)
            stages.append(nn.Sequential(*([] if stage else stem), *made))
            sizes.append(before)
        self.stages, self.sizes = nn.ModuleList(stages), tuple(sizes)


class WideBlock(nn.Module):
    """Normalisation and leaky ReLU before each of two 3×3 convolutions.

    Where the numbers of channels differ, the shortcut is a 1×1 convolution of the normalised and rectified input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first_norm, self.first = BatchNorm(inputs), conv(inputs, outputs, 3, stride)
        self.second_norm, self.second = BatchNorm(outputs), conv(outputs, outputs, 3)
        self.shortcut = conv(inputs, outputs, 1, stride) if inputs != outputs or stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        started = leaky_relu(self.first_norm(x), SLOPE, inplace=True)
        h = self.second(leaky_relu(self.second_norm(self.first(started)), SLOPE, inplace=True))
        found: Tensor = h + (x if self.shortcut is None else self.shortcut(started))
        return found


class WideResNet(Backbone):
    """Wide residual network (Zagoruyko, Komodakis 2016, https://arxiv.org/abs/1605.07146), without its classifier.

    With leaky ReLUs of slope 0.1, as the networks of semi-supervised learning (Oliver et al. 2018,
    https://arxiv.org/abs/1804.09170), and without dropout.

    Args:
        channels: of images.
        depth: number of convolutions in a path, 6 n + 4.
        widths: channels of the first convolution and of the three stages.
    """

    def __init__(self, channels: int, *, depth: int, widths: tuple[int, ...]) -> None:
        super().__init__(channels)
        count, before, stages = (depth - 4) // 6, widths[0], []
        for stage, own in enumerate(widths[1:]):
            made: list[nn.Module] = [] if stage else [conv(channels, widths[0], 3)]
            for block in range(count):
                made.append(WideBlock(before, own, 2 if stage and not block else 1))
                before = own
            stages.append(nn.Sequential(*made))
        self.stages, self.sizes = nn.ModuleList(stages), widths[1:]
        self.norm = BatchNorm(before)

    def finished(self, maps: Tensor) -> Tensor:
        return leaky_relu(self.norm(maps), SLOPE, inplace=True)
