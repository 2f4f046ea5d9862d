"""Vision transformer on patches, with fixed positions, that may see some of the patches only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

from unsup.nn.backbone import Backbone
from unsup.prob.patches import taken, to_patches

VIT_SIZES: Mapping[Literal["small", "base", "large", "huge"], Mapping[str, int]] = {
    "small": {"size": 384, "depth": 12, "heads": 6},
    "base": {"size": 768, "depth": 12, "heads": 12},
    "large": {"size": 1024, "depth": 24, "heads": 16},
    "huge": {"size": 1280, "depth": 32, "heads": 16},
}
"""The published networks: ViT-B, ViT-L and ViT-H of Dosovitskiy et al. 2021, ViT-S of Touvron et al. 2021."""


def patch_for(sides: tuple[int, int]) -> int:
    """The side of patches: the largest that divides both sides, up to 2 for images of 16×16, 4 for 64×64, else 16.

    >>> patch_for((8, 8)), patch_for((28, 28)), patch_for((32, 32)), patch_for((224, 224))
    (2, 4, 4, 16)
    """
    wanted = 2 if max(sides) <= 16 else 4 if max(sides) <= 64 else 16
    return next(p for p in range(wanted, 0, -1) if not sides[0] % p and not sides[1] % p)


def sine_positions(rows: int, columns: int, size: int) -> Tensor:
    """Fixed two-dimensional positions ``(rows · columns, size)``: sines and cosines of rows, then of columns.

    The encoding of Vaswani et al. 2017 for each axis, in half of the entries each: with D entries for an axis, sin and
    cos of i / 10000^(2k / D) for k = 0, …, D / 2 − 1. MAE has the same (He et al. 2022); its code puts the columns
    first, which only changes the order of entries. If size is not a multiple of four, the last entries are 0.
    """
    each = size // 4
    rates = 10000.0 ** (-torch.arange(each, dtype=torch.float64) / max(1, each))

    def axis(count: int) -> Tensor:
        angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], 1)

    found = torch.zeros(rows, columns, size, dtype=torch.float64)
    found[:, :, : 2 * each] = axis(rows)[:, None]
    found[:, :, 2 * each : 4 * each] = axis(columns)[None]
    return found.flatten(0, 1).float()


class TransformerBlock(nn.Module):
    """Attention over all tokens and an MLP of four times the size, each after a layer normalisation."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first_norm, self.second_norm = nn.LayerNorm(size, eps=1e-6), nn.LayerNorm(size, eps=1e-6)
        self.project, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.up, self.down = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
        for layer in (self.project, self.out, self.up, self.down):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(B, T, size)`` → the same shape."""
        projected = self.project(self.first_norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = (own.transpose(1, 2) for own in projected.unbind(2))  # (B, heads, T, size / heads)
        x = x + self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        found: Tensor = x + self.down(gelu(self.up(self.second_norm(x))))
        return found


class Patches(nn.Module):
    """Patches of an image, each projected to a token with its position: ``(B, C, H, W)`` → ``(B, T, size)``."""

    positions: Tensor

    def __init__(self, channels: int, sides: tuple[int, int], patch: int, size: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, size, patch, patch)
        nn.init.xavier_uniform_(self.project.weight.view(size, -1))
        grid = sides[0] // patch, sides[1] // patch
        self.register_buffer("positions", sine_positions(*grid, size), persistent=False)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """All tokens, or those of the patches ``kept``, ``(B, t)``; other patches are not projected."""
        patches, positions = to_patches(x, self.project.kernel_size[0]), self.positions
        if kept is not None:
            patches, positions = taken(patches, kept), positions[kept]
        found: Tensor = linear(patches, self.project.weight.flatten(1), self.project.bias) + positions
        return found


class ViT(Backbone):
    """Vision transformer (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929), without its classifier.

    Positions are fixed sines. Features are the mean of the normalised tokens, or the class token.

    Args:
        channels, sides: of images.
        patch: side of a patch, which divides both sides.
        size: of a token, a multiple of ``heads``.
        depth: number of blocks.
        class_token: whether a learned token precedes the patches and is the features.
    """

    def __init__(
        self,
        channels: int,
        sides: tuple[int, int],
        *,
        patch: int,
        size: int,
        depth: int,
        heads: int,
        class_token: bool = False,
    ) -> None:
        super().__init__(channels)
        self.patch, self.sides, self.sizes = patch, sides, (size,) * depth
        self.tokens = Patches(channels, sides, patch, size)
        self.stages = nn.ModuleList(TransformerBlock(size, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(size, eps=1e-6)
        self.class_token = nn.Parameter(0.02 * torch.randn(size)) if class_token else None

    @property
    def places(self) -> int:
        """T, the number of patches of an image."""
        return math.prod(side // self.patch for side in self.sides)

    def maps(self, x: Tensor, stage: int | None = None, *, kept: Tensor | None = None) -> Tensor:
        """Tokens after a block, ``(B, t, size)``, or ``(B, 1 + t, size)`` with the class token first.

        Args:
            kept: the numbers of the patches that it sees, ``(B, t)``; None: all.
        """
        found: Tensor = self.tokens(self.scale(x), kept)
        if self.class_token is not None:
            found = torch.cat([self.class_token.expand(len(x), 1, -1), found], 1)
        for own in self.stages[:stage]:
            found = own(found)
        return found

    def finished(self, maps: Tensor) -> Tensor:
        found: Tensor = self.norm(maps)
        return found

    def pooled(self, maps: Tensor) -> Tensor:
        """The class token, or the mean of the tokens: ``(B, size)``."""
        return maps.mean(1) if self.class_token is None else maps[:, 0]
