"""Batches of images ``(B, C, H, W)`` moved, resized, smoothed and covered, with parameters per image ``(B,)``.

Whole pixels are moved exactly (`shifted`, `flipped`); other positions are interpolated bilinearly. Pixel (i, j) is the
square around (i, j), so that the image reaches from −½ to H − ½. Everything has a gradient with respect to the image.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, pad

Border = Literal["reflect", "zeros"]


def flipped(x: Tensor, flip: Tensor) -> Tensor:
    """Images with their columns in reverse where ``flip`` is true."""
    rows = flip.nonzero()[:, 0]
    return x.index_copy(0, rows, x[rows].flip(3))


def shifted(x: Tensor, down: Tensor, right: Tensor, border: Border = "reflect", flip: Tensor | None = None) -> Tensor:
    """Images moved by whole pixels, and then flipped where ``flip`` is true: y[i, j] = x[i − down, j − right].

    Args:
        x: images ``(B, C, H, W)``.
        down: int64 ``(B,)``; negative is up. With ``"reflect"`` less than H.
        right: int64 ``(B,)``; negative is left. With ``"reflect"`` less than W.
        border: what comes in: the image reflected at the centre of its border pixels, or zeros.
        flip: bool ``(B,)``, or None.

    >>> x = torch.arange(3.0).view(1, 1, 1, 3)
    >>> shifted(x, torch.tensor([0]), torch.tensor([1])).flatten().tolist()
    [1.0, 0.0, 1.0]
    """
    height, width = x.shape[2:]
    i = torch.arange(height, device=x.device) - down[:, None]
    j = torch.arange(width, device=x.device).expand(len(x), width)
    if flip is not None:
        j = torch.where(flip[:, None], width - 1 - j, j)
    j = j - right[:, None]
    inside = None
    if border == "reflect":
        i, j = ((n - 1) - ((n - 1) - k.abs()).abs() for n, k in ((height, i), (width, j)))
    else:
        inside = ((i >= 0) & (i < height))[:, :, None] & ((j >= 0) & (j < width))[:, None]
        i, j = i.clamp(0, height - 1), j.clamp(0, width - 1)
    places = (i[:, :, None] * width + j[:, None]).flatten(1)
    moved = x.flatten(2).gather(2, places[:, None].expand(-1, x.shape[1], -1)).view(x.shape)
    return moved if inside is None else moved * inside[:, None]


def resized_crop(
    x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, flip: Tensor | None = None
) -> Tensor:
    """Rectangles of whole pixels enlarged to the size of the image, and flipped where ``flip`` is true.

    Positions beyond the centres of the outermost pixels of the rectangle have the value of these. This is the image cut
    out and resized bilinearly; since it is never reduced, an antialiasing filter would be the same.

    Args:
        x: images ``(B, C, H, W)``.
        top: the first row of the rectangle, ``(B,)``.
        left: its first column.
        height: its number of rows, 1 to H − top.
        width: its number of columns, 1 to W − left.
        flip: bool ``(B,)``, or None.
    """

    def positions(n: int, start: Tensor, size: Tensor, reverse: Tensor | None = None) -> Tensor:
        """Normalised positions ``(B, n)`` that `grid_sample` takes."""
        start, size = start.to(x)[:, None], size.to(x)[:, None]
        places = torch.arange(0.5, n, dtype=x.dtype, device=x.device).expand(len(x), n)
        if reverse is not None:
            places = torch.where(reverse[:, None], n - places, places)
        inside = (places * (size / n) - 0.5).clamp_min(0)
        return (2 * (start + torch.minimum(inside, size - 1)) + 1) / n - 1

    rows, columns = positions(x.shape[2], top, height), positions(x.shape[3], left, width, flip)
    return _sampled(x, columns[:, None], rows[:, :, None], "border")


def affine_source(
    angle: Tensor, right: Tensor, down: Tensor, scale: Tensor, shear_x: Tensor, shear_y: Tensor
) -> Tensor:
    """The map from the result of an affine map to its source, ``(B, 2, 3)``, around the centre of the image.

    The map first shears, (u, v) → (u + a v, v + b u), then scales, rotates and moves.

    Args:
        angle: of the rotation, in degrees; counter-clockwise on the screen.
        right: pixels.
        down: pixels.
        scale: above 1 enlarges.
        shear_x: a, columns per row.
        shear_y: b, rows per column; a b ≠ 1.
    """
    cos, sin = (f(torch.deg2rad(angle)) for f in (torch.cos, torch.sin))
    # Forward: p = t + s R K q with R = [[cos, sin], [−sin, cos]] (v is down) and K = [[1, a], [b, 1]].
    divisor = scale * (1 - shear_x * shear_y)
    uu, uv = (cos + shear_x * -sin) / divisor, (-sin - shear_x * cos) / divisor
    vu, vv = (sin - shear_y * cos) / divisor, (cos + shear_y * sin) / divisor
    rows = [torch.stack([a, b, -(a * right + b * down)], 1) for a, b in ((uu, uv), (vu, vv))]
    return torch.stack(rows, 1)


def affine(x: Tensor, source: Tensor, fill: float) -> Tensor:
    """Images mapped by `affine_source`; what comes from outside is ``fill``."""
    height, width = x.shape[2:]
    source = source.to(x)
    v = torch.arange(height, dtype=x.dtype, device=x.device) - (height - 1) / 2
    u = torch.arange(width, dtype=x.dtype, device=x.device) - (width - 1) / 2
    m = source[..., None, None]  # (B, 2, 3, 1, 1)
    columns, rows = (m[:, k, 0] * u + m[:, k, 1] * v[:, None] + m[:, k, 2] for k in range(2))
    return _sampled(x - fill, columns * (2 / width), rows * (2 / height), "zeros") + fill


def blurred(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur with standard deviations ``sigma`` ``(B,)`` in pixels, 2 radius + 1 taps; borders are reflected.

    Args:
        x: images ``(B, C, H, W)`` with H and W above ``radius``.
        sigma: 0 is the identity.
        radius: pixels.
    """
    batch, channels, height, width = x.shape
    taps = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = (-0.5 * (taps / sigma.to(x).clamp_min(1e-3)[:, None]) ** 2).softmax(1)
    kernel = kernel.repeat_interleave(channels, 0)[:, None]  # (B C, 1, taps)
    wide = pad(x, (radius,) * 4, mode="reflect").view(1, batch * channels, height + 2 * radius, width + 2 * radius)
    for shaped in (kernel[..., None], kernel[..., None, :]):
        wide = conv2d(wide, shaped, groups=batch * channels)
    return wide.view(x.shape)


def covered(x: Tensor, row: Tensor, column: Tensor, height: int, width: int, fill: float) -> Tensor:
    """Images with a rectangle of one value; what is outside of the image is cut off.

    Args:
        x: images ``(B, C, H, W)``.
        row: the middle row of the rectangle, int64 ``(B,)``; of an even number, the one below the middle.
        column: its middle column.
        height: its number of rows.
        width: its number of columns.
        fill: its value.
    """

    def within(n: int, middle: Tensor, size: int) -> Tensor:
        places = torch.arange(n, device=x.device) - (middle - size // 2)[:, None]
        return (places >= 0) & (places < size)

    rows, columns = within(x.shape[2], row, height), within(x.shape[3], column, width)
    cover = (rows[:, None, :, None] & columns[:, None, None]).to(x)
    return x * (1 - cover) + fill * cover


def _sampled(x: Tensor, columns: Tensor, rows: Tensor, border: Literal["border", "zeros"]) -> Tensor:
    """Bilinear interpolation at normalised positions, which broadcast to ``(B, H, W)``."""
    grid = torch.stack(torch.broadcast_tensors(columns, rows), 3)
    return grid_sample(x, grid, mode="bilinear", padding_mode=border, align_corners=False)
