"""Residual networks with normalisation and ReLU before each convolution, without statistics of the batch.

ResNet-v2 (He, Zhang, Ren, Sun 2016, https://arxiv.org/abs/1603.05027), for small parts of images. By statistics of the
batch, one part would know about others, so that a task of predicting parts could be solved without features.
"""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn
from torch.nn.functional import relu

NormName = Literal["layer", "none"]
_EXPANSION = 4  # of the last convolution of a bottleneck


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    made = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    if made.bias is not None:
        nn.init.zeros_(made.bias)
    return made


def _norm(channels: int, norm: NormName) -> nn.Module:
    """Layer normalisation over channels and pixels of each image, with a gain and a shift of each channel."""
    return nn.GroupNorm(1, channels) if norm == "layer" else nn.Identity()


class PreBlock(nn.Module):
    """Two 3×3 convolutions, or a bottleneck of 1×1, 3×3 and 1×1 with four times the channels, and a shortcut.

    Without normalisation the last convolution is zero at the start, so that depth does not multiply the features.
    """

    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool, norm: NormName) -> None:
        super().__init__()
        outputs = _EXPANSION * width if bottleneck else width
        shapes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        if bottleneck:
            shapes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        self.norms = nn.ModuleList(_norm(shape[0], norm) for shape in shapes)
        self.convs = nn.ModuleList(_conv(*shape) for shape in shapes)
        self.shortcut = _conv(inputs, outputs, 1, stride) if inputs != outputs or stride > 1 else None
        if norm == "none":
            nn.init.zeros_(cast(Tensor, self.convs[-1].weight))

    def forward(self, x: Tensor) -> Tensor:
        h = started = relu(self.norms[0](x))
        for number, conv in enumerate(self.convs):
            h = conv(h if number == 0 else relu(self.norms[number](h)))
        return h + (x if self.shortcut is None else self.shortcut(started))


class ResNetV2(nn.Module):
    """``(B, C, H, W)`` → ``(B, size)``: stages of residual blocks, normalisation, ReLU and the mean over pixels.

    Args:
        channels: of images.
        blocks: number of blocks of each stage; each but the first halves the sides and doubles the channels.
        width: channels of the first stage.
        bottleneck: blocks of three convolutions, else of two.
        halves: a 7×7 convolution of stride 2 and a maximum over 3×3 of stride 2 at the start, as for ImageNet; else a
            3×3 convolution.
        norm: layer normalisation, or none.
    """

    def __init__(
        self,
        channels: int,
        blocks: tuple[int, ...],
        width: int,
        *,
        bottleneck: bool,
        halves: bool,
        norm: NormName,
    ) -> None:
        super().__init__()
        made: list[nn.Module] = [_conv(channels, width, 7 if halves else 3, 2 if halves else 1)]
        made += [nn.MaxPool2d(3, 2, 1)] if halves else []
        before = width
        for stage, count in enumerate(blocks):
            own = width * 2**stage
            for block in range(count):
                stride = 2 if stage and not block else 1
                made.append(PreBlock(before, own, stride, bottleneck=bottleneck, norm=norm))
                before = own * (_EXPANSION if bottleneck else 1)
        self.body, self.norm, self.size = nn.Sequential(*made), _norm(before, norm), before

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = relu(self.norm(self.body(x))).mean((2, 3))
        return found
