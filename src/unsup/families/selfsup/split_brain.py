"""Split-brain autoencoder: two halves of a network, each of which predicts what the other one sees.

The lightness L and the colours ab of a picture go through two networks without connections. At each place of a coarser
grid, the first predicts the bin of ab and the second the bin of L (Zhang, Isola, Efros 2017,
https://arxiv.org/abs/1611.09842):

    loss = − Σ_hw Σ_q Z_hwq log F₁(L)_hwq − Σ_hw log F₂(ab)_hw,bin(L_hw).

Z is the soft encoding of ab on its 5 nearest of 313 bins, as in colorization but without weights of the classes; L has
100 bins of equal width. The features of both halves together are those of the model.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch
from unsup.core.config import AtLeast, Count, Whole, Within
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.colour_nets import AlexHalves, ColourNet
from unsup.nn.feature_model import FeatureModel
from unsup.prob.lab import ab_bins, lightness_bin, soft_cross_entropy, soft_encoding, to_lab

LIGHTNESS_BINS = 100


class SplitBrain(FeatureModel):
    """Split-brain autoencoder (Zhang, Isola, Efros 2017, https://arxiv.org/abs/1611.09842).

    ``loss`` is the sum over the places of a picture of both cross-entropies; ``colour`` and ``lightness`` are those of
    each half in nats per place. Both networks are computed as one, by convolutions of two groups.

    Features are the means over places of one stage of both networks, the half of L first: with ``vgg`` the first stage
    after all halvings, with ``alexnet`` conv3.

    Args:
        event: colour images ``(3, H, W)`` of levels, taken as sRGB.
        net: ``vgg``, the network of `Colorization`; or ``alexnet``, the convolutions of AlexNet, for large images, with
            places every 16 pixels.
        width: channels of the first stage, of both halves together; an even number.
        halvings: of ``vgg``, as for `Colorization`.
        layers: number of convolutions of each stage of ``vgg``, as for `Colorization`.
        dilated: number of stages of ``vgg`` with dilated convolutions, as for `Colorization`.

    Raises:
        InputError: an odd width.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = SplitBrain(Event((3, 16, 16), Support("ordinal", 256)), width=8)
    >>> model.encode(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)).shape
    torch.Size([2, 32])
    """

    backbone: ColourNet | AlexHalves

    presets = {
        "tiny": {"width": 6, "halvings": 1, "layers": 1, "dilated": 1},
        "paper": {"net": "alexnet", "width": 96},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64, "betas": (0.9, 0.99), "weight_decay": 1e-3}

    def __init__(
        self,
        event: Event,
        *,
        net: Literal["vgg", "alexnet"] = "vgg",
        width: Annotated[int, AtLeast(2)] = 64,
        halvings: Annotated[int, Within(1, 5)] = 2,
        layers: Count = 2,
        dilated: Whole = 1,
    ) -> None:
        if width % 2:
            raise InputError(f"width={width}; expected an even number, since both halves have the same width")
        if net == "vgg":
            self.backbone, self.stage = ColourNet(width, halvings, layers, dilated, halves=True), halvings + 1
        else:
            self.backbone, self.stage = AlexHalves(width), 3
        half = self.backbone.size // 2
        self.to_colour = nn.Conv2d(half, len(ab_bins()), 1)
        self.to_lightness = nn.Conv2d(half, LIGHTNESS_BINS, 1)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        found = super().reason_against(event)
        if found is None and event.shape[0] != 3:
            return "takes colour images (3, H, W)"
        return found

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss``, ``colour`` and ``lightness``, of each picture."""
        x = self.unit(batch.x)
        stride = self.backbone.stride
        seen, ab = to_lab(x[:, :, ::stride, ::stride]).split([1, 2], 1)
        of_colour, of_lightness = self.logits(x)
        colour = soft_cross_entropy(of_colour, *soft_encoding(ab)).flatten(1)
        bins = lightness_bin(seen, LIGHTNESS_BINS)
        lightness = soft_cross_entropy(of_lightness, bins, torch.ones_like(seen)).flatten(1)
        terms = {"colour": colour.detach().mean(1), "lightness": lightness.detach().mean(1)}
        return {"loss": (colour + lightness).sum(1), **terms}

    def logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of the bins of ab given L, and of the bins of L given ab: ``(B, 3, H, W)`` in [0, 1] → ``(B, Q, h, w)``."""
        h, w = (-(-side // self.backbone.stride) for side in self.event.shape[1:])
        of_lightness, of_colour = self.backbone.maps(x)[..., :h, :w].chunk(2, 1)
        return self.to_colour(of_lightness), self.to_lightness(of_colour)
