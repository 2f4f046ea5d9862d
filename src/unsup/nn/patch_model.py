"""The common part of models that learn from patches of images: their places, their network, the codes of images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.nn.alexnet import LEAST_SIDE, AlexNet
from unsup.nn.backbone import Backbone, shape_of_maps
from unsup.nn.backbones import build_backbone, least_side
from unsup.nn.feature_model import FeatureModel
from unsup.prob.crops import crops

PatchNet = Literal["alexnet", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50"]
"""Networks of convolutions, which take patches and whole images."""
ROWS = 3
PATCHES = ROWS**2
LEAST_PATCH = 4
"""The side of the smallest patch that a net takes."""


@dataclass(frozen=True)
class PatchGrid:
    """3×3 patches of an image: those of a grid at a random place, each moved at random.

    Attributes:
        patch: side of a patch.
        pitch: distance between the corners of neighbours before they are moved.
        slack: largest move to the right and down; moves from 0 to ``slack`` are equally likely.
    """

    patch: int
    pitch: int
    slack: int

    @property
    def extent(self) -> int:
        """The smallest side of an image that has room for the grid."""
        return (ROWS - 1) * self.pitch + self.patch + self.slack

    def corners(self, n: int, sides: tuple[int, int], generator: Generator | None, *, like: Tensor) -> Tensor:
        """Rows and columns of the upper left corners, int64 ``(2, n, 9)``; the patches are in reading order."""
        place = torch.arange(PATCHES, device=like.device)
        found = []
        for number, side in zip((place // ROWS, place % ROWS), sides, strict=True):
            origin = random.integers(0, side - self.extent + 1, (n, 1), generator, like=like)
            moved = random.integers(0, self.slack + 1, (n, PATCHES), generator, like=like)
            found.append(origin + number * self.pitch + moved)
        return torch.stack(found)


class PatchModel(FeatureModel):
    """Abstract: features learned from patches, each of which is normalised by its own moments.

    Codes are those of the whole image, normalised as a patch is: its maps, pooled over all places. Its constructor
    calls `take_patches`.
    """

    grid: PatchGrid

    @staticmethod
    @abstractmethod
    def grid_of(patch: int) -> PatchGrid:
        """The grid of patches of this side."""

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        reason, least = super().reason_against(event), cls.grid_of(LEAST_PATCH).extent
        if reason is None and min(event.shape[1:]) < least:
            return f"takes images with sides of {least} or more: 3×3 patches of {LEAST_PATCH} pixels and their gaps"
        return reason

    def take_patches(
        self,
        event: Event,
        net: PatchNet,
        width: float,
        patch: int | None,
        stage: int | None,
        alexnet: Callable[[int, float], AlexNet],
    ) -> None:
        """Called in the constructor.

        Args:
            patch: the side of a patch; None: the largest of which nine have room in an image.
            alexnet: builds ``net="alexnet"`` for a number of channels and a width.

        Raises:
            InputError: images, or patches, that are too small.
        """
        owner, shortest = type(self).__name__, min(event.shape[1:])
        least = LEAST_SIDE if net == "alexnet" else least_side(net)
        if patch is not None and patch < least:
            raise InputError(f"{owner}: patch={patch} is too small; net={net!r} takes {least} pixels or more")
        extent = self.grid_of(patch or least).extent
        if shortest < extent:
            raise InputError(
                f"{owner}: images of {event.shape[1]}×{event.shape[2]} are too small: 3×3 patches of {patch or least} "
                f"pixels with their gaps need {extent}; "
                + ("use a smaller patch" if patch and self.grid_of(least).extent <= shortest else "use another net")
            )
        side = patch or max(p for p in range(least, shortest) if self.grid_of(p).extent <= shortest)
        self.grid = self.grid_of(side)
        image = Event((event.shape[0], side, side), event.support, "image")
        if net == "alexnet":
            self.backbone: Backbone = alexnet(event.shape[0], width)
        else:
            self.backbone = build_backbone(net, image, width=width, owner=owner)
        with torch.no_grad():  # patches are normalised before the backbone sees them
            self.backbone.scale.mean.zero_()
            self.backbone.scale.std.fill_(1)
        self.stage = None if stage is None else self.stage_numbered(stage)

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Nothing: patches are normalised one by one."""

    @property
    def patch_features(self) -> int:
        """The number of entries of the last maps of a patch."""
        channels, height, width = shape_of_maps(self.backbone, (self.event.shape[0], self.grid.patch, self.grid.patch))
        return channels * height * width

    def maps_of(self, patches: Tensor) -> Tensor:
        """The last maps of normalised patches, flattened: ``(N, C, S, S)`` → ``(N, patch_features)``."""
        return self.backbone.finished(self.backbone.maps(patches)).flatten(1)

    def cut(self, x: Tensor, generator: Generator | None, *, apart: int = 0, together: Tensor | None = None) -> Tensor:
        """Nine patches of each image, in reading order: ``(B, C, H, W)`` → ``(B, 9, C, S, S)``.

        Args:
            apart: largest distance by which each channel of a patch is moved on its own, in each direction.
            together: bool ``(B, 1, 1, 1)``, the images whose channels are not moved apart; None: no image.
        """
        n, channels, height, width = x.shape
        corners = self.grid.corners(n, (height, width), generator, like=x).unsqueeze(-1)
        if apart:
            moves = random.integers(-apart, apart + 1, (n, 2, PATCHES, channels), generator, like=x)
            if together is not None:
                moves = moves.masked_fill(together, 0)
            ends = torch.tensor([height, width], device=x.device).view(2, 1, 1, 1) - self.grid.patch
            corners = torch.minimum((corners + moves.transpose(0, 1)).clamp(min=0), ends)
        return crops(x, corners[0], corners[1], self.grid.patch)

    def seen(self, x: Tensor) -> Tensor:
        return self.normalised(self.unit(x))

    @abstractmethod
    def normalised(self, x: Tensor) -> Tensor:
        """Whole images in [0, 1], ``(B, C, H, W)``, as the backbone sees them."""
