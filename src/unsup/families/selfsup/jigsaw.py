"""Jigsaw: features by solving puzzles of nine tiles of an image.

The tiles are shuffled by one of P permutations π, and the network predicts which one (Noroozi, Favaro 2016,
https://arxiv.org/abs/1603.09246). f sees one tile at a time, the head all of them:

    L(x) = −log p(y | f(x_{π_y(1)}), …, f(x_{π_y(9)})),      y uniform in 1, …, P

The permutations are chosen one by one for large Hamming distances, so that no single tile decides. Shortcuts are made
useless: each tile lies at a random place of its cell, so that edges do not continue; each tile has the moments of its
channels removed; a share of the images is grey, and the colours of all others are shifted against each other, against
the aberration of lenses. Tiles of a puzzle must not meet in batch statistics, so that all normalisations are those of
single tiles.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Within
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.alexnet import AlexNet
from unsup.nn.dropout import Dropout, dropping
from unsup.nn.guesses import guesses
from unsup.nn.norm import without_batch_statistics
from unsup.nn.patch_model import PATCHES, PatchGrid, PatchModel, PatchNet
from unsup.prob.colour import grey
from unsup.prob.crops import standardised
from unsup.prob.permutations import distant_permutations

_GREY = 0.3  # the share of images without colour
_COLOURS = 3
_APART = 1 / 32  # of the side of a tile, by which colours are shifted
_CELL, _TILE = 85, 64  # the sides of the paper, of which others are multiples


class Jigsaw(PatchModel):
    """Jigsaw puzzles of 3×3 tiles (Noroozi, Favaro 2016, https://arxiv.org/abs/1603.09246).

    The terms are ``loss``, in nats, and ``accuracy`` of the one puzzle of an example; by chance they are log P and 1/P.
    Nine tiles of B images are a batch of 9 B. In place of the batch normalisation of a net there is group
    normalisation, whose moments are those of one tile; ``alexnet`` has neither. The set of permutations depends on
    their number alone, and is saved with the model; the first one is the identity.

    Codes are the pooled maps of the whole image, each channel with zero mean and unit variance.

    Args:
        event: images of levels. Three channels are taken for colours.
        permutations: P, at least 2; 100 to 1,000 in the paper. More take longer until the loss begins to fall.
        net: the network of a tile. ``alexnet`` is that of the paper, for tiles of 32 pixels or more.
        width: a factor of its numbers of channels.
        patch: side of a tile; None: the largest for which the image has room, 8 for 32×32.
        hidden: widths of the layer of each tile, and of that of all nine.
        dropout: share of the units of the ``hidden`` layers that are dropped in training.
        stage: the stage, counted from 1, whose pooled maps are the features; None is the last one.

    Raises:
        InputError: images that are too small for the tiles, tiles that are too small for the net, or a stage that the
            net does not have.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = Jigsaw(Event((1, 28, 28), Support("binary"), "image"), permutations=10, width=0.1)
    >>> model.grid
    PatchGrid(patch=7, pitch=9, slack=2)
    >>> model.permutations.shape
    torch.Size([10, 9])
    """

    permutations: Tensor

    presets = {
        "tiny": {"net": "nin-3", "width": 0.04, "hidden": (6, 8), "permutations": 5},
        "paper": {
            "permutations": 100,
            "net": "alexnet",
            "width": 1.0,
            "patch": 64,
            "hidden": (1024, 4096),
            "dropout": 0.5,
        },
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64}

    def __init__(
        self,
        event: Event,
        *,
        permutations: Annotated[int, Within(2, 2000)] = 30,
        net: PatchNet = "resnet18",
        width: Positive = 0.25,
        patch: Count | None = None,
        hidden: tuple[Count, Count] = (128, 512),
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        stage: Count | None = None,
    ) -> None:
        self.take_patches(event, net, width, patch, stage, _alexnet)
        without_batch_statistics(self.backbone)
        self.register_buffer("permutations", distant_permutations(PATCHES, permutations))
        one, all_nine = hidden
        self.of_tile = nn.Sequential(nn.Linear(self.patch_features, one), nn.ReLU(), Dropout(dropout))
        puzzle = (nn.Linear(PATCHES * one, all_nine), nn.ReLU(), Dropout(dropout), nn.Linear(all_nine, permutations))
        self.of_puzzle = nn.Sequential(*puzzle)

    @staticmethod
    def grid_of(patch: int) -> PatchGrid:
        """Cells without gaps, of 85/64 of the side of a tile, in which tiles lie at random.

        >>> Jigsaw.grid_of(64), Jigsaw.grid_of(64).extent
        (PatchGrid(patch=64, pitch=85, slack=21), 255)
        """
        cell = patch * _CELL // _TILE
        return PatchGrid(patch, cell, cell - patch)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss`` and ``accuracy`` of each example."""
        n = len(batch)
        tiles = self.tiles(self.unit(batch.x), generator)
        target = random.integers(0, len(self.permutations), (n,), generator, like=tiles)
        with dropping(self.training, generator):
            features = self.of_tile(self.maps_of(tiles.flatten(0, 1))).view(n, PATCHES, -1)
            order = self.permutations[target].unsqueeze(-1)  # (B, 9, 1)
            logits = self.of_puzzle(features.gather(1, order.expand_as(features)).flatten(1))
        return guesses(logits.unsqueeze(1), target.unsqueeze(1))

    def tiles(self, x: Tensor, generator: Generator | None) -> Tensor:
        """The tiles that the network sees of images in [0, 1], in reading order: ``(B, 9, C, S, S)``."""
        if x.shape[1] != _COLOURS:
            return self.normalised(self.cut(x, generator))
        is_grey = random.uniform((len(x), 1, 1, 1), generator, like=x) < _GREY
        apart = round(_APART * self.grid.patch)
        x = torch.where(is_grey, grey(x), x)
        return self.normalised(self.cut(x, generator, apart=apart, together=is_grey))

    def normalised(self, x: Tensor) -> Tensor:
        """Images or tiles in [0, 1], ``(..., C, H, W)``, with zero mean and unit variance in each channel."""
        return standardised(x, (-2, -1))


def _alexnet(channels: int, width: float) -> AlexNet:
    return AlexNet(channels, width, stride=2, padding=0, groups=2, norm=False)
