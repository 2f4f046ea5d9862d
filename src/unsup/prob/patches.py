"""Square patches of images: cutting, joining, moments of their numbers, random subsets."""

from __future__ import annotations

from torch import Generator, Tensor

from unsup.core.random import uniform

EPSILON = 1e-6
"""What is added to the variance of a patch, as in the published code of MAE."""


def to_patches(x: Tensor, patch: int) -> Tensor:
    """The patches of images, row by row: ``(B, C, H, W)`` → ``(B, T, C · patch²)``, entries in the order C, H, W.

    >>> import torch
    >>> x = torch.arange(16).view(1, 1, 4, 4)
    >>> to_patches(x, 2)[0].tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    """
    examples, channels, height, width = x.shape
    rows, columns = height // patch, width // patch
    cut = x.reshape(examples, channels, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(examples, rows * columns, channels * patch**2)


def to_images(patches: Tensor, channels: int, sides: tuple[int, int], patch: int) -> Tensor:
    """The inverse of `to_patches`: ``(B, T, C · patch²)`` → ``(B, C, H, W)``.

    >>> import torch
    >>> x = torch.randn(2, 3, 4, 6)
    >>> bool((to_images(to_patches(x, 2), 3, (4, 6), 2) == x).all())
    True
    """
    rows, columns = (side // patch for side in sides)
    cut = patches.reshape(len(patches), rows, columns, channels, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return cut.reshape(len(patches), channels, *sides)


def patch_moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the numbers of each patch: ``(B, T, D)`` → ``(B, T, 1)`` twice.

    The deviation is √(s² + ε) with the unbiased variance s², with the divisor D − 1, and ε = 10⁻⁶, as in the published
    code of MAE (He et al. 2022, https://arxiv.org/abs/2111.06377).
    """
    mean = patches.mean(-1, keepdim=True)
    return mean, (patches.var(-1, keepdim=True, correction=1) + EPSILON).sqrt()


def shuffles(n: int, places: int, generator: Generator | None, *, like: Tensor) -> Tensor:
    """A random order of 0, …, places − 1 for each of ``n`` examples, ``(n, places)``, int64; uniform and independent.

    >>> import torch
    >>> shuffles(2, 4, Generator().manual_seed(0), like=torch.zeros(())).sort().values.tolist()
    [[0, 1, 2, 3], [0, 1, 2, 3]]
    """
    return uniform((n, places), generator, like=like).argsort(dim=1, stable=True)


def taken(tokens: Tensor, places: Tensor) -> Tensor:
    """The tokens at some places of each example: ``(B, T, F)``, ``(B, t)`` → ``(B, t, F)``."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
