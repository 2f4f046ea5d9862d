"""Rotations and patches of images, for tasks that are made of them. Functions on tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def quarter_turns(x: Tensor) -> Tensor:
    """Square images turned by 0, 90, 180 and 270 degrees against the clock: ``(..., S, S)`` → ``(4, ..., S, S)``.

    By transposing and flipping, so that no value changes.

    >>> quarter_turns(torch.tensor([[1, 2], [3, 4]]))[1]
    tensor([[2, 4],
            [1, 3]])
    """
    across = x.transpose(-1, -2)
    return torch.stack([x, across.flip(-2), x.flip(-2, -1), across.flip(-1)])


def crops(x: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Squares of images, one at each corner: ``(B, C, H, W)`` → ``(B, N, C, side, side)``.

    Args:
        top, left: corners, int64 ``(B, N, C)`` or ``(B, N, 1)``; channels may have corners of their own.

    >>> x = torch.arange(16).view(1, 1, 4, 4)
    >>> crops(x, torch.tensor([[[1]]]), torch.tensor([[[2]]]), 2).flatten()
    tensor([ 6,  7, 10, 11])
    """
    n, channels, _, width = x.shape
    along = torch.arange(side, device=x.device)
    place = (top[..., None, None] + along[:, None]) * width + left[..., None, None] + along
    number = place.shape[1]
    index = place.expand(n, number, channels, side, side).flatten(3)
    found = x.flatten(2)[:, None].expand(n, number, channels, -1).gather(3, index)
    return found.unflatten(3, (side, side))


def standardised(x: Tensor, axes: tuple[int, ...], eps: float = 1e-5) -> Tensor:
    """(x − mean) / √(variance + ε) over some axes; an image without contrast is 0."""
    centred = x - x.mean(axes, keepdim=True)
    found: Tensor = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    return found


def resampling(side: int) -> Tensor:
    """Matrices A_n by which ``side`` numbers are averaged to n and interpolated to ``side`` again, n = 0, …, side.

    ``(side + 1, side, side)``, float64. The averages are over intervals of equal length, the interpolation is linear.
    A patch P of n × n numbers in this sense is A_n P A_nᵀ; A_side is the identity, and A_0, which is not used, is 0.

    >>> resampling(4)[2] @ torch.tensor([0.0, 2.0, 4.0, 6.0], dtype=torch.float64)
    tensor([1., 2., 4., 5.], dtype=torch.float64)
    """
    found = torch.zeros(side + 1, side, side, dtype=torch.float64)
    edges = torch.arange(side + 1, dtype=torch.float64)
    for n in range(1, side + 1):
        ends = torch.arange(n + 1, dtype=torch.float64) * side / n
        overlap = torch.minimum(ends[1:, None], edges[1:]) - torch.maximum(ends[:-1, None], edges[:-1])
        averages = overlap.clamp(min=0) * n / side  # (n, side)
        back = interpolate(torch.eye(n, dtype=torch.float64)[None], size=side, mode="linear", align_corners=False)[0]
        found[n] = back.T @ averages
    return found


def resampled(x: Tensor, matrices: Tensor, sizes: Tensor) -> Tensor:
    """Patches at the resolution of ``sizes``: ``(B, N, C, S, S)``, int64 ``(B, N)`` → the same shape.

    Args:
        matrices: those of `resampling`, in the type of ``x``.
    """
    chosen = matrices[sizes].unsqueeze(2)  # (B, N, 1, S, S)
    found: Tensor = chosen @ x @ chosen.transpose(-1, -2)
    return found
