"""MAE: a masked autoencoder. A vision transformer sees a quarter of the patches, and a small one predicts the others.

For each example, a uniformly random permutation of its T patches gives the set M of masked ones, all but the first
⌊(1 − r) T⌋. The encoder f, a vision transformer, sees the other patches only. The decoder g gets its tokens, projected
to its own size, and one learned token in the place of each masked patch, all with their positions, and predicts each
masked patch (He, Chen, Xie, Li, Dollár, Girshick 2022, https://arxiv.org/abs/2111.06377):

    L(x) = 1/|M| Σ_{i ∈ M} 1/D ‖g(f(x_{∉ M}), M)_i − t_i‖²,        t_i = (x_i − m_i) / √(s_i² + 10⁻⁶)

x_i are the D numbers of patch i, in channels that are standardised by the training images, m_i and s_i² their mean and
unbiased variance (divisor D − 1), as in the published code. Without normalisation, t_i = x_i (table 1d of the paper).
After training, f sees all patches, and g is not used.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch
from unsup.core.config import Count, Share
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.augment import augment
from unsup.nn.feature_model import FeatureModel, evaluating
from unsup.nn.vit import VIT_SIZES, TransformerBlock, ViT, patch_for, sine_positions
from unsup.prob.patches import patch_moments, shuffles, taken, to_images, to_patches

_DECODER = {"decoder_size": 512, "decoder_depth": 8, "decoder_heads": 16}


class PatchDecoder(nn.Module):
    """A transformer from the tokens of visible patches to the numbers of masked ones.

    Args:
        grid: rows and columns of patches.
        encoded: size of the tokens of the encoder.
        size: of its own tokens, a multiple of ``heads``.
        depth: number of blocks.
        entries: D, the numbers of a patch.
    """

    positions: Tensor

    def __init__(self, grid: tuple[int, int], *, encoded: int, size: int, depth: int, heads: int, entries: int) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(encoded, size), nn.Linear(size, entries)
        for layer in (self.embed, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.mask_token = nn.Parameter(0.02 * torch.randn(size))
        self.blocks = nn.ModuleList(TransformerBlock(size, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(size, eps=1e-6)
        self.register_buffer("positions", sine_positions(*grid, size), persistent=False)

    def forward(self, encoded: Tensor, shuffle: Tensor, visible: int) -> Tensor:
        """Predictions ``(B, T − t, D)`` of the masked patches, in the order of ``shuffle``.

        Args:
            encoded: tokens ``(B, t, F)`` of the visible patches, in the order of ``shuffle``, or ``(B, 1 + t, F)`` with
                a class token first.
            shuffle: the patches of each example, ``(B, T)``, the visible ones first.
            visible: t, the number of visible patches.
        """
        first = encoded.shape[1] - visible  # 1 with a class token, whose position is 0
        class_token, tokens = self.embed(encoded).split([first, visible], 1)
        tokens = torch.cat([class_token, self.in_place(tokens, shuffle) + self.positions], 1)
        for block in self.blocks:
            tokens = block(tokens)
        found: Tensor = self.out(self.norm(taken(tokens, first + shuffle[:, visible:])))
        return found

    def in_place(self, tokens: Tensor, shuffle: Tensor) -> Tensor:
        """Tokens ``(B, t, size)`` of the first patches of ``shuffle``, and mask tokens, in the order of the image."""
        masks = self.mask_token.expand(len(tokens), shuffle.shape[1] - tokens.shape[1], -1)
        return taken(torch.cat([tokens, masks], 1), shuffle.argsort(1))


class MAE(FeatureModel):
    """Masked autoencoder (He et al. 2022, https://arxiv.org/abs/2111.06377) on images of levels.

    Codes are the features of the encoder, which then sees all patches: the mean of its normalised tokens, or its class
    token. It is not a density; `reconstruct` fills masked patches with predictions, for a picture.

    Args:
        event: images ``(C, H, W)`` of levels, in two patches or more.
        patch: side of a patch, which divides both sides of an image. None: 2 for images of up to 16×16, 4 for those of
            up to 64×64, else 16, or the next smaller divisor.
        size: of the tokens of the encoder, a multiple of ``heads``.
        depth: number of blocks of the encoder.
        heads: of its attention.
        class_token: give the encoder a learned token beside the patches, which becomes the code.
        mask_ratio: r, the fraction of patches that are masked; at least one patch is visible.
        normalised: whether patches are predicted with mean 0 and variance 1, else as they are.
        decoder_size: of the tokens of the decoder, a multiple of ``decoder_heads``.
        decoder_depth: number of blocks of the decoder.
        decoder_heads: of its attention.
        views: the recipe of augmentation, see `unsup augment --list`.

    Raises:
        InputError: a patch or number of heads that does not divide, a ratio that masks none or all patches, or a
            recipe that is unknown or does not fit the images.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = MAE(Event((1, 28, 28), Support("ordinal", 256)), size=24, decoder_size=12)
    >>> model.patches, model.visible
    (49, 12)
    >>> model.encode(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape
    torch.Size([2, 24])
    """

    backbone: ViT

    presets = {
        "tiny": {"size": 12, "depth": 1, "heads": 2, "decoder_size": 8, "decoder_depth": 1, "decoder_heads": 2},
        "paper": {"patch": 16, "class_token": True, **VIT_SIZES["base"], **_DECODER},
        "paper-large": {"patch": 16, "class_token": True, **VIT_SIZES["large"], **_DECODER},
        "paper-huge": {"patch": 14, "class_token": True, **VIT_SIZES["huge"], **_DECODER},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 128, "betas": (0.9, 0.95), "weight_decay": 0.05, "warmup": 100}

    def __init__(
        self,
        event: Event,
        *,
        patch: Count | None = None,
        size: Count = 192,
        depth: Count = 6,
        heads: Count = 3,
        class_token: bool = False,
        mask_ratio: Share = 0.75,
        normalised: bool = True,
        decoder_size: Count = 96,
        decoder_depth: Count = 2,
        decoder_heads: Count = 3,
        views: str = "crop",
    ) -> None:
        self.recipe = self.recipe_named(views)
        channels, *sides = event.shape
        height, width = sides
        patch = patch or patch_for((height, width))
        if height % patch or width % patch:
            raise InputError(
                f"MAE: patch={patch} does not divide the sides {height}×{width} of images; use a common divisor"
            )
        for name, of, each in (("", size, heads), ("decoder_", decoder_size, decoder_heads)):
            if of % each:
                raise InputError(f"MAE: {name}heads={each} does not divide {name}size={of}; use a divisor")
        if normalised and channels * patch**2 == 1:
            raise InputError(
                f"MAE: patches of one number of {height}×{width} images have no variance; use normalised=False, or "
                "another patch"
            )
        self.normalised = normalised
        self.patches = (height // patch) * (width // patch)
        self.visible = max(1, math.floor((1 - mask_ratio) * self.patches + 1e-6))
        if not 0 < mask_ratio < 1 or self.visible == self.patches:
            raise InputError(
                f"MAE: mask_ratio={mask_ratio:g} of {self.patches} patches of {patch}×{patch}: expected at least one "
                "masked patch, for the loss, and one visible patch; use mask_ratio=0.75, or smaller patches"
            )
        self.take_backbone(
            ViT(channels, (height, width), patch=patch, size=size, depth=depth, heads=heads, class_token=class_token)
        )
        self.decoder = PatchDecoder(
            (height // patch, width // patch),
            encoded=size,
            size=decoder_size,
            depth=decoder_depth,
            heads=decoder_heads,
            entries=channels * patch**2,
        )

    # --- the loss -------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The mean squared error of the numbers of masked patches, ``(B,)``."""
        x = augment(self.unit(batch.x), self.recipe, generator)
        shuffle = shuffles(len(x), self.patches, generator, like=batch.x)
        patches, mean, deviation = self._masked(x, shuffle)
        error = self._predicted(x, shuffle) - (patches - mean) / deviation
        return {"loss": error.square().mean((1, 2))}

    def _masked(self, x: Tensor, shuffle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Masked patches ``(B, M, D)`` of standardised channels, with what is subtracted and divided by: (B, M, 1)."""
        patches = taken(to_patches(self.backbone.scale(x), self.backbone.patch), shuffle[:, self.visible :])
        if self.normalised:
            return patches, *patch_moments(patches)
        return patches, torch.zeros_like(patches[..., :1]), torch.ones_like(patches[..., :1])

    def _predicted(self, x: Tensor, shuffle: Tensor) -> Tensor:
        """Predictions ``(B, M, D)`` of the masked patches of images in [0, 1]."""
        encoded = self.backbone.finished(self.backbone.maps(x, kept=shuffle[:, : self.visible]))
        found: Tensor = self.decoder(encoded, shuffle, self.visible)
        return found.to(x.dtype)

    # --- a picture ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def reconstruct(self, x: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Images with masked patches in grey, and with predictions in their place: raw images, as ``x``.

        Grey is the middle level, or black if there are two.

        With ``normalised``, the mean and deviation of a prediction are those of the masked patch itself, so the picture
        shows more than the model knows; without, it shows the predictions.
        """
        self.event.check_shape(x)
        unit = self.unit(x)
        shuffle = shuffles(len(x), self.patches, generator, like=x)
        _, mean, deviation = self._masked(unit, shuffle)
        with evaluating(self):
            predicted = mean + deviation * self._predicted(unit, shuffle)
        scale, patch, sides = self.backbone.scale, self.backbone.patch, self.backbone.sides
        places = shuffle[:, self.visible :].unsqueeze(-1).expand_as(predicted)
        filled = to_images(to_patches(scale(unit), patch).scatter(1, places, predicted), len(scale.mean), sides, patch)
        filled = filled * scale.std.view(-1, 1, 1) + scale.mean.view(-1, 1, 1)
        grey = to_images(to_patches(unit, patch).scatter(1, places, 0.5), len(scale.mean), sides, patch)
        return self._levels(grey), self._levels(filled)

    def _levels(self, unit: Tensor) -> Tensor:
        """Images in [0, 1] as raw levels, the inverse of `unit`."""
        support = self.event.uniform
        assert support is not None
        return (unit.clamp(0, 1) * (support.levels - 1)).round().add(support.low).to(self.event.dtype)
