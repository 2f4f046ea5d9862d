"""The interface of networks from images to features, the backbones of self-supervised and semi-supervised models.

A backbone is a list of stages, from images to maps (or to tokens), and a pooling of the last maps to a vector. Features
of a middle stage are those of its pooled maps.
"""

from __future__ import annotations

import copy
from abc import ABC

import torch
from torch import Tensor, nn


class ChannelScale(nn.Module):
    """(x − mean) / deviation of each channel, of training images in [0, 1]: ``(B, C, H, W)``."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((channels,), 0.5))
        self.register_buffer("std", torch.full((channels,), 0.25))

    @torch.no_grad()
    def prepare(self, x: Tensor) -> None:
        """Set the moments; a channel that is constant is only centred."""
        mean, std = (own.double() for own in (x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0)))
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-6, std, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        found = (x - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)
        return found.contiguous(memory_format=torch.channels_last)


class Backbone(nn.Module, ABC):
    """Abstract: images in [0, 1] → features.

    Attributes:
        stages: modules that are applied one after the other.
        sizes: the number of channels after each stage.
        size: F, the number of features, that of the last stage.
    """

    stages: nn.ModuleList
    sizes: tuple[int, ...]

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = ChannelScale(channels)

    @property
    def size(self) -> int:
        return self.sizes[-1]

    def maps(self, x: Tensor, stage: int | None = None) -> Tensor:
        """The output of a stage, counted from 1; None is the last one: ``(B, C, H, W)`` → ``(B, c, h, w)``."""
        found: Tensor = self.scale(x)
        for own in self.stages[:stage]:
            found = own(found)
        return found

    def finished(self, maps: Tensor) -> Tensor:
        """What follows the last stage: the same shape."""
        return maps

    def pooled(self, maps: Tensor) -> Tensor:
        """The mean over places, ``(B, c)``."""
        return maps.flatten(2).mean(2) if maps.ndim > 2 else maps

    def forward(self, x: Tensor, stage: int | None = None) -> Tensor:
        """Features of images ``(B, C, H, W)`` in [0, 1]: ``(B, size)``; of a middle stage, its pooled maps."""
        maps = self.maps(x, stage)
        return self.pooled(self.finished(maps) if stage in (None, len(self.stages)) else maps)


def scaled(channels: float, width: float) -> int:
    """A number of channels times ``width``, at least one."""
    return max(1, round(channels * width))


def shape_of_maps(net: Backbone, image: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the finished maps of one image ``(C, H, W)``, without computing them."""
    hollow = copy.deepcopy(net).to("meta").eval()
    return tuple(hollow.finished(hollow.maps(torch.empty(1, *image, device="meta"))).shape[1:])
