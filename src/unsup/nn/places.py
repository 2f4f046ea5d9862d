"""Encodings of the places of an example, and contexts that summarise the rows of places so far.

Places are a grid ``(rows, columns)``: the times of sound with one column, or the patches of an image. Rows are in the
order of prediction. An encoder sees a place only; a context of a row sees this row and earlier ones.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from unsup.nn.backbone import ChannelScale
from unsup.nn.causal_conv import VerticalConv
from unsup.nn.recurrent import Recurrent
from unsup.nn.resnet_v2 import NormName, ResNetV2


class PlaceEncoder(nn.Module, ABC):
    """Abstract: examples → features of each of their places.

    Attributes:
        size: F, the number of features of a place.
        scale: standardises channels; set from training examples.
    """

    size: int
    scale: ChannelScale

    @abstractmethod
    def grid(self, shape: Sequence[int]) -> tuple[int, int]:
        """The numbers of rows and columns of places in an example of this shape; 0 if it is too small."""

    @abstractmethod
    def maps(self, x: Tensor) -> Tensor:
        """Examples as ``(B, C, H, W)``."""

    @abstractmethod
    def encoded(self, maps: Tensor) -> Tensor:
        """Standardised maps → ``(B, rows, columns, F)``."""

    @torch.no_grad()
    def prepare(self, x: Tensor) -> None:
        """Set the moments of the channels from examples ``(B, *shape)``."""
        self.scale.prepare(self.maps(x))

    def forward(self, x: Tensor) -> Tensor:
        """Examples ``(B, *shape)`` → ``(B, rows, columns, F)``."""
        return self.encoded(self.scale(self.maps(x)))


class SoundPlaces(PlaceEncoder):
    """Strided convolutions with ReLU over samples ``(B, T)`` or ``(B, T, C)``, without padding.

    Place i sees samples ``i · hop, …, i · hop + window − 1``, and nothing else.

    Args:
        channels: of the sound.
        width: number of features of every layer.
        kernels: sizes of the kernels.
        strides: their distances, as many.
    """

    def __init__(self, channels: int, width: int, kernels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.size, self.scale = width, ChannelScale(channels)
        self.kernels, self.strides = tuple(kernels), tuple(strides)
        self.hop = math.prod(strides)
        """Samples between places."""
        self.window = 1 + sum((kernel - 1) * math.prod(strides[:i]) for i, kernel in enumerate(kernels))
        """Samples that a place sees."""
        self.convs = nn.ModuleList(
            nn.Conv1d(width if i else channels, width, kernel, stride)
            for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True))
        )
        for conv in self.convs:
            nn.init.kaiming_normal_(cast(Tensor, conv.weight), nonlinearity="relu")

    def grid(self, shape: Sequence[int]) -> tuple[int, int]:
        return max(0, (shape[0] - self.window) // self.hop + 1), 1

    def maps(self, x: Tensor) -> Tensor:
        return x[:, None, None] if x.ndim == 2 else x.transpose(1, 2)[:, :, None]

    def encoded(self, maps: Tensor) -> Tensor:
        h = maps[:, :, 0]
        for conv in self.convs:
            h = relu(conv(h))
        return h.transpose(1, 2)[:, :, None]


class PatchPlaces(PlaceEncoder):
    """A residual network on square patches of images ``(B, C, H, W)``, which overlap by half of their side.

    Pixels at the border that do not fill a patch are not seen.

    Args:
        channels: of images.
        patch: side of a patch.
        width, blocks, bottleneck, norm: of the network, as for `ResNetV2`. Patches of 64 pixels are halved twice first.
    """

    def __init__(
        self, channels: int, patch: int, width: int, blocks: tuple[int, ...], *, bottleneck: bool, norm: NormName
    ) -> None:
        super().__init__()
        self.patch, self.hop, self.scale = patch, max(1, patch // 2), ChannelScale(channels)
        halves = patch >= _LARGE
        self.net = ResNetV2(channels, blocks, width, bottleneck=bottleneck, halves=halves, norm=norm)
        self.size = self.net.size

    def grid(self, shape: Sequence[int]) -> tuple[int, int]:
        rows, columns = (max(0, (side - self.patch) // self.hop + 1) for side in shape[1:])
        return rows, columns

    def maps(self, x: Tensor) -> Tensor:
        return x

    def patches(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, rows, columns, C, patch, patch)``; the grid is in the middle of the image."""
        for axis, count in zip((2, 3), self.grid(maps.shape[1:]), strict=True):
            used = (count - 1) * self.hop + self.patch
            maps = maps.narrow(axis, (maps.shape[axis] - used) // 2, used)
        found = maps.unfold(2, self.patch, self.hop).unfold(3, self.patch, self.hop)
        return found.permute(0, 2, 3, 1, 4, 5)

    def encoded(self, maps: Tensor) -> Tensor:
        patches = self.patches(maps)
        flat = patches.flatten(0, 2).contiguous(memory_format=torch.channels_last)
        found: Tensor = self.net(flat)
        return found.view(*patches.shape[:3], self.size)


_LARGE = 64  # a side of patches that are halved at the start


class RecurrentContext(nn.Module):
    """A GRU over the rows of one column: ``(B, rows, 1, F)`` → ``(B, rows, 1, width)``."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.size, self.cells = width, Recurrent(inputs, width, "gru")

    def forward(self, z: Tensor) -> Tensor:
        found: Tensor = self.cells(z[:, :, 0])
        return found[:, :, None]


class RowBlock(nn.Module):
    """A residual branch: 1×1, 1×3 over the row, 2×1 from the row above, and 1×1.

    The block of CPC v2 (Hénaff et al. 2020, https://arxiv.org/abs/1905.09272, appendix).
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(size, width, 1), nn.Conv2d(width, size, 1)
        self.across = VerticalConv(width, width, rows=1, reach=1)
        self.down = VerticalConv(width, width, rows=2, reach=0)

    def forward(self, h: Tensor) -> Tensor:
        found: Tensor = self.last(relu(self.down(self.across(relu(self.first(h))))))
        return h + found


class RowContext(nn.Module):
    """A PixelCNN over rows: ``(B, rows, columns, F)`` → the same shape. It sees the row and those above, none below.

    Args:
        size: number of features F.
        width: channels inside a block.
        layers: number of blocks. A context sees so many rows above, and so many columns on either side.
    """

    def __init__(self, size: int, width: int, layers: int) -> None:
        super().__init__()
        self.size, self.blocks = size, nn.Sequential(*(RowBlock(size, width) for _ in range(layers)))

    def forward(self, z: Tensor) -> Tensor:
        return relu(self.blocks(z.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
