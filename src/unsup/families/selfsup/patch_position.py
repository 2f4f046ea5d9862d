"""Patch position: features by telling where a patch lies relative to another one.

Of 3×3 patches of an image, the one in the centre and each of its neighbours are a pair, in both orders. From the
features f of both, a head predicts which of eight positions the second one has (Doersch, Gupta, Efros 2015,
https://arxiv.org/abs/1505.05192):

    L(x) = −(1/16) Σ_{(i, j)} log p(position of j relative to i | f(x_i), f(x_j))

Shortcuts by which the task could be solved without knowing the objects are made useless: between patches there are gaps
of half a patch, against lines that continue, and patches are moved at random; two of three colours are replaced by
faint noise, against the aberration of lenses, which tells where in the image a patch is; a third of the patches is
reduced to a random resolution and enlarged again; each patch is centred and has unit contrast.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Positive
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.alexnet import AlexNet
from unsup.nn.guesses import guesses
from unsup.nn.norm import BatchNorm
from unsup.nn.patch_model import PATCHES, PatchGrid, PatchModel, PatchNet
from unsup.prob.crops import resampled, resampling

POSITIONS = PATCHES - 1
CENTRE = PATCHES // 2
_COLOURS = 3
_NOISE = 1 / 100  # the deviation of the noise in place of a colour, as a share of that of the kept one
_COARSE = 1 / 3  # the share of patches whose resolution is reduced
_JITTER, _COARSEST = 7 / 96, 10 / 96  # of the side of a patch


class PatchPosition(PatchModel):
    """Relative position of two patches (Doersch, Gupta, Efros 2015, https://arxiv.org/abs/1505.05192).

    The terms are ``loss``, in nats, and ``accuracy``, the means over the 16 pairs of each grid of an example; by chance
    they are log 8 and 1/8. The paper sums over pairs instead, so that its learning rates are smaller. Its pairs are all
    neighbours in a grid that covers the image; here each grid has 3×3 patches, and each position is equally frequent.
    Each patch is encoded once.

    Codes are the pooled maps of the whole image. In each channel it is centred; since training shows one colour at a
    time, the channels have the scale by which the first layer gives the mean of its responses to single colours.

    Args:
        event: images of levels. Two of three channels are replaced by noise; other numbers of channels are all kept.
        net: the network of a patch. ``alexnet`` is that of the paper, for patches of 32 pixels or more.
        width: a factor of its numbers of channels.
        patch: side of a patch; None: the largest for which the image has room, 7 for 32×32.
        hidden: width of the layers of the head: one for each patch, and two for a pair.
        grids: number of grids of each image in a step.
        stage: the stage, counted from 1, whose pooled maps are the features; None is the last one.

    Raises:
        InputError: images that are too small for the patches, patches that are too small for the net, or a stage that
            the net does not have.

    >>> import torch
    >>> from unsup import Batch, Event, Support
    >>> model = PatchPosition(Event((3, 32, 32), Support("ordinal", 256), "image"), width=0.1)
    >>> model.grid
    PatchGrid(patch=7, pitch=10, slack=2)
    >>> model.encode(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape[1] == model.code_size
    True
    """

    matrices: Tensor
    """Those of `resampling`."""

    presets = {
        "tiny": {"net": "nin-3", "width": 0.1, "hidden": 32},
        "paper": {"net": "alexnet", "width": 1.0, "patch": 96, "hidden": 4096, "grids": 4},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64}

    def __init__(
        self,
        event: Event,
        *,
        net: PatchNet = "resnet18",
        width: Positive = 0.25,
        patch: Count | None = None,
        hidden: Count = 256,
        grids: Count = 1,
        stage: Count | None = None,
    ) -> None:
        self.take_patches(event, net, width, patch, stage, _alexnet)
        self.grids = grids
        self.register_buffer("matrices", resampling(self.grid.patch).float(), persistent=False)
        self.of_patch = nn.Sequential(*_normed(self.patch_features, hidden))
        pair = _normed(2 * hidden, hidden)
        self.of_pair = nn.Sequential(*pair, _linear(hidden, hidden), nn.ReLU(), _linear(hidden, POSITIONS))

    @staticmethod
    def grid_of(patch: int) -> PatchGrid:
        """Gaps of half a patch, and patches that move by 7/96 of their side in each direction.

        >>> PatchPosition.grid_of(96)
        PatchGrid(patch=96, pitch=144, slack=14)
        """
        return PatchGrid(patch, patch + patch // 2, 2 * round(_JITTER * patch))

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss`` and ``accuracy`` of each example."""
        patches = self.patches(self.unit(batch.x), generator).flatten(0, 1)  # (B G 9, C, S, S)
        features = self.of_patch(self.maps_of(patches)).view(len(batch), self.grids, PATCHES, -1)
        logits, target = self.compared(features)
        return guesses(logits, target)

    def patches(self, x: Tensor, generator: Generator | None) -> Tensor:
        """The patches that the network sees of images in [0, 1]: ``(B, C, H, W)`` → ``(B, G 9, C, S, S)``."""
        found = torch.cat([self.cut(x, generator) for _ in range(self.grids)], 1)
        return self.normalised_one_colour(self.coarsened(found, generator), generator)

    def coarsened(self, patches: Tensor, generator: Generator | None) -> Tensor:
        """A third of the patches, reduced to a random number of pixels and enlarged again."""
        side, shape = self.grid.patch, patches.shape[:2]
        least, most = max(2, round(_COARSEST * side)), side - 1
        pixels = random.uniform(shape, generator, like=patches) * max(0, most**2 - least**2) + least**2
        chosen = random.uniform(shape, generator, like=patches) < _COARSE
        sizes = torch.where(chosen, pixels.sqrt().long(), side)
        with torch.autocast(patches.device.type, enabled=False):  # bfloat16 has too few bits for contrasts
            return resampled(patches, self.matrices.to(patches.dtype), sizes)

    def normalised_one_colour(self, patches: Tensor, generator: Generator | None) -> Tensor:
        """Centred channels, all but one of three colours replaced by noise, divided by the root mean square of all.

        The noise is Gaussian, with a hundredth of the deviation of the colour that is kept.
        """
        centred = patches - patches.mean((-2, -1), keepdim=True)
        if patches.shape[2] == _COLOURS:
            kept = random.integers(0, _COLOURS, patches.shape[:2], generator, like=patches)
            is_kept = torch.arange(_COLOURS, device=kept.device) == kept.unsqueeze(-1)
            deviation = (centred.square().mean((-2, -1)) * is_kept).sum(-1).sqrt()  # (B, G 9), of the kept colour
            noise = random.normal(patches.shape, generator, like=patches) * _NOISE
            noise = noise * deviation[..., None, None, None]
            centred = torch.where(is_kept[..., None, None], centred, noise)
        return _divided(centred, (-3, -2, -1))

    def normalised(self, x: Tensor) -> Tensor:
        """Whole images in [0, 1] as the mean of the inputs that keep one of three colours each, without noise."""
        centred = x - x.mean((-2, -1), keepdim=True)
        if x.shape[-3] != _COLOURS:
            return _divided(centred, (-3, -2, -1))
        return _divided(centred, (-2, -1)) / _COLOURS**0.5

    def compared(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The 16 pairs of each grid, ``(B, G, 9, F)``: logits ``(B, G 16, 8)`` and positions ``(B, G 16)``."""
        around = torch.cat([features[:, :, :CENTRE], features[:, :, CENTRE + 1 :]], 2)  # (B, G, 8, F)
        centre = features[:, :, CENTRE : CENTRE + 1].expand_as(around)
        there, back = torch.cat([centre, around], -1), torch.cat([around, centre], -1)
        logits = self.of_pair(torch.cat([there, back], 2).flatten(0, 2))
        position = torch.arange(POSITIONS, device=logits.device)
        target = torch.cat([position, position.flip(0)]).repeat(len(features), self.grids)
        return logits.view(*target.shape, POSITIONS), target


def _divided(centred: Tensor, axes: tuple[int, ...], eps: float = 1e-8) -> Tensor:
    """Divided by the root mean square; what has no contrast is 0."""
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()


def _alexnet(channels: int, width: float) -> AlexNet:
    return AlexNet(channels, width, stride=4, padding=5, groups=1, norm=True)


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """Started as Glorot and Bengio 2010 have it."""
    made = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(made.weight)
    if bias:
        nn.init.zeros_(made.bias)
    return made


def _normed(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """A layer with batch normalisation without gain and offset."""
    return _linear(inputs, outputs, bias=False), BatchNorm(outputs, affine=False), nn.ReLU()
