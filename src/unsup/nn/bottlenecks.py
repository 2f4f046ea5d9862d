"""Convolutional encoders and decoders whose codes are maps: strided convolutions and residual bottleneck blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn.functional import relu

from unsup.nn.nets import Sides, halved


class Bottleneck(nn.Module):
    """h + Conv₁ₓ₁(ReLU(Conv₃ₓ₃(ReLU(h)))), with ``hidden`` features in between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, hidden, 3, padding=1), nn.Conv2d(hidden, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        return cast(Tensor, h + self.second(relu(self.first(relu(h)))))


@dataclass(frozen=True)
class BottleneckNet:
    """Networks between images and maps of features at 1/2^s of their sides (van den Oord, Vinyals, Kavukcuoglu 2017,
    section 4.1, https://arxiv.org/abs/1711.00937): s strided 4×4 convolutions, residual blocks, and a 1×1 convolution.
    The decoder is the mirror image, with transposed convolutions.

    Attributes:
        width: features of all maps.
        block_width: features inside the blocks.
        blocks: number of blocks.
        stages: s.

    >>> import torch
    >>> net = BottleneckNet(8, 4, blocks=2, stages=2)
    >>> maps = net.encoder(1, 3)(torch.zeros(5, 1, 9, 8))
    >>> maps.shape, net.decoder(3, 1, (9, 8))(maps).shape
    (torch.Size([5, 12]), torch.Size([5, 1, 9, 8]))
    """

    width: int
    block_width: int
    blocks: int
    stages: int

    @property
    def widths(self) -> tuple[int, ...]:
        """The width at each halving."""
        return (self.width,) * self.stages

    def sides(self, sides: Sides) -> Sides:
        """The sides of the maps of images with these sides."""
        return halved(sides, self.stages)[-1]

    def encoder(self, inputs: int, outputs: int) -> nn.Sequential:
        """Images ``(B, inputs, H, W)`` → flattened maps ``(B, outputs · h · w)``."""
        return nn.Sequential(*self.down(inputs), nn.ReLU(), nn.Conv2d(self.width, outputs, 1), nn.Flatten())

    def decoder(self, inputs: int, outputs: int, sides: Sides) -> nn.Sequential:
        """Flattened maps ``(B, inputs · h · w)`` → images ``(B, outputs, *sides)``."""
        maps = nn.Unflatten(1, (inputs, *self.sides(sides)))
        return nn.Sequential(maps, nn.Conv2d(inputs, self.width, 1), *self.up(outputs, sides))

    def down(self, inputs: int) -> list[nn.Module]:
        """Layers from ``inputs`` channels to maps of ``width`` features, before their ReLU."""
        layers: list[nn.Module] = []
        for stage in range(self.stages):
            layers += [nn.ReLU()] if stage else []
            layers += [nn.Conv2d(inputs if stage == 0 else self.width, self.width, 4, stride=2, padding=1)]
        return [*layers, *(Bottleneck(self.width, self.block_width) for _ in range(self.blocks))]

    def up(self, outputs: int, sides: Sides) -> list[nn.Module]:
        """Layers from maps of ``width`` features to images of ``outputs`` channels with these sides."""
        layers: list[nn.Module] = [Bottleneck(self.width, self.block_width) for _ in range(self.blocks)]
        for stage, (height, width) in reversed(list(enumerate(halved(sides, self.stages)[:-1]))):
            made, lost = outputs if stage == 0 else self.width, (height % 2, width % 2)
            layers += [
                nn.ReLU(),
                nn.ConvTranspose2d(self.width, made, 4, stride=2, padding=1, output_padding=lost),
            ]
        return layers
