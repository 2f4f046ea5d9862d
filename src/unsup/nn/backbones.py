"""Networks from images to features, chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

from torch import nn

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.nn.backbone import Backbone, scaled
from unsup.nn.conv_nets import conv_large, conv_small
from unsup.nn.nin import NIN
from unsup.nn.norm import BatchNorm
from unsup.nn.resnets import ResNet, WideResNet
from unsup.nn.vit import ViT, patch_for

BackboneName = Literal[
    "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
]
SMALL_SIDE = 64
"""Images with this side or a smaller one are not halved before the first stage of a residual network."""


class MLP(Backbone):
    """Dense layers with batch normalisation and ReLU on all pixels.

    Args:
        widths: of the layers.
    """

    def __init__(self, channels: int, pixels: int, widths: tuple[int, ...]) -> None:
        super().__init__(channels)
        self.sizes = widths
        sizes = (channels * pixels, *widths)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Flatten(), nn.Linear(a, b, bias=False), BatchNorm(b), nn.ReLU())
            for a, b in pairwise(sizes)
        )


def build_backbone(name: BackboneName, event: Event, *, width: float = 1.0, owner: str) -> Backbone:
    """A backbone with fresh parameters.

    Args:
        event: images.
        width: a factor of the numbers of channels of the published network.
        owner: name for errors.

    Raises:
        InputError: the event is not images, or the images are too small for the network.

    >>> from unsup.core.event import Support
    >>> event = Event((3, 32, 32), Support("ordinal", 256), "image")
    >>> sum(p.numel() for p in build_backbone("resnet18", event, owner="X").parameters())
    11168832
    """
    if not event.is_image:
        raise InputError(f"{owner}: net={name!r} takes images (C, H, W); this data is {event}")
    channels, *sides = event.shape
    least, build = _BUILDERS[name]
    if min(sides) < least:
        raise InputError(
            f"{owner}: net={name!r} halves the sides of images and needs {least} pixels or more; these are "
            f"{sides[0]}×{sides[1]}; use net='mlp'"
        )
    return build(channels, (sides[0], sides[1]), width)


def least_side(name: BackboneName) -> int:
    """The smallest side of an image that a network takes."""
    return _BUILDERS[name][0]


def _mlp(channels: int, sides: tuple[int, int], width: float) -> Backbone:
    return MLP(channels, sides[0] * sides[1], (scaled(1024, width),) * 2)


def _conv_small(channels: int, sides: tuple[int, int], width: float) -> Backbone:
    return conv_small(channels, width)


def _conv_large(channels: int, sides: tuple[int, int], width: float) -> Backbone:
    return conv_large(channels, width)


def _nin(blocks: int) -> Callable[[int, tuple[int, int], float], Backbone]:
    return lambda channels, sides, width: NIN(channels, blocks, width)


def _wide_resnet(channels: int, sides: tuple[int, int], width: float) -> Backbone:
    return WideResNet(channels, depth=28, widths=tuple(scaled(c, width) for c in (16, 32, 64, 128)))


def _resnet18(channels: int, sides: tuple[int, int], width: float) -> Backbone:
    return ResNet(channels, (2, 2, 2, 2), scaled(64, width), bottleneck=False, halves=min(sides) > SMALL_SIDE)


def _resnet50(channels: int, sides: tuple[int, int], width: float) -> Backbone:
    return ResNet(channels, (3, 4, 6, 3), scaled(64, width), bottleneck=True, halves=min(sides) > SMALL_SIDE)


def _vit(channels: int, sides: tuple[int, int], width: float) -> Backbone:
    return ViT(channels, sides, patch=patch_for(sides), heads=3, size=3 * scaled(64, width), depth=6)


_BUILDERS: dict[BackboneName, tuple[int, Callable[[int, tuple[int, int], float], Backbone]]] = {
    "mlp": (1, _mlp),
    "conv-small": (12, _conv_small),
    "conv-large": (12, _conv_large),
    "nin-3": (4, _nin(3)),
    "nin-4": (4, _nin(4)),
    "nin-5": (4, _nin(5)),
    "wrn-28-2": (4, _wide_resnet),
    "resnet18": (4, _resnet18),
    "resnet50": (4, _resnet50),
    "vit": (4, _vit),
}
"""The least side of an image, and how a network is built, by name."""
