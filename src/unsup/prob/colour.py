"""Colours and levels of batches of images ``(B, C, H, W)`` in [0, 1], with a strength per image.

With C = 3 the channels are red, green and blue; with C = 1 they are grey. All functions return values in [0, 1].
Strengths are tensors ``(B,)``. Everything has a gradient with respect to the image, except `posterised` and
`equalised`, whose result is piecewise constant.

    grey    l(x) = 0.299 R + 0.587 G + 0.114 B                              (ITU-R BT.601)
    blend   clip(f x + (1 − f) y)      y = 0: brightness · y = mean of l(x): contrast · y = l(x): saturation
                                       y = smooth x: sharpness
    hue     V = max, C = V − min, h = position on the hexagon in [0, 6);  h ← h + 6 s mod 6;  V and C do not change

These are the operations of Pillow (``ImageEnhance``, ``ImageOps``) and of torchvision, which round to 8 bits after each
step; here nothing is rounded, except where levels are what is meant (`posterised`, `equalised`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

RED, GREEN, BLUE = 0.299, 0.587, 0.114
BRIGHTNESS, CONTRAST, SATURATION = range(3)
"""What a blend adjusts, for `adjusted`."""
_TOP = 255  # the highest level of 8 bits
_LEAST = 1e-12  # of a divisor


def grey(x: Tensor) -> Tensor:
    """The lightness of each pixel: ``(B, 1, H, W)``.

    >>> grey(torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1, 1)).item()
    0.4129999876022339
    """
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, 1)
    return torch.add(torch.add(red * RED, green, alpha=GREEN), blue, alpha=BLUE)


def without_colour(x: Tensor) -> Tensor:
    """Grey images with as many channels as ``x``."""
    return grey(x).clamp(0, 1).expand_as(x)


def blended(x: Tensor, base: Tensor, factor: Tensor) -> Tensor:
    """clip(f x + (1 − f) y) with ``base`` y, which broadcasts: 1 is ``x``, 0 is y, more exaggerates the difference."""
    f = _each(factor)
    return (x * f + base * (1 - f)).clamp(0, 1)


def adjusted(x: Tensor, factor: Tensor, what: Tensor) -> Tensor:
    """The blend `BRIGHTNESS`, `CONTRAST` or `SATURATION`, a different one for each image.

    A grey image has no saturation and is not changed by it.

    Args:
        x: images ``(B, 1 or 3, H, W)``.
        factor: of the blend, at least 0: ``(B,)``.
        what: int64 ``(B,)``.
    """
    factor = factor.to(x)
    if x.shape[1] == 1:
        factor = torch.where(what == SATURATION, 1, factor)
    lightness = grey(x)
    to_mean, to_grey = ((1 - factor) * (what == kind) for kind in (CONTRAST, SATURATION))
    base = lightness * _each(to_grey) + lightness.mean((1, 2, 3), keepdim=True) * _each(to_mean)
    return torch.addcmul(base, x, _each(factor)).clamp(0, 1)


def hue_turned(x: Tensor, turns: Tensor) -> Tensor:
    """Colours turned around the colour wheel by ``turns`` (1 is a full turn), in the space HSV, as in torchvision.

    Value and chroma are not changed, so grey pixels are not, and the result is in the range of the channels of the
    pixel. Neither are grey images.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> hue_turned(red, torch.tensor([1 / 3])).flatten().round().tolist()
    [0.0, 1.0, 0.0]
    """
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    low, high = (choose(choose(red, green), blue) for choose in (torch.minimum, torch.maximum))
    chroma = high - low
    # With channels scaled to 0 … 1, the hue in [−3, 3] is 1 + G + B − R, with the sign of G − B.
    hue = torch.copysign((green + blue - red - low) / chroma.clamp_min(_LEAST) + 1, green - blue)
    hue = hue + 6 * turns.to(x).view(-1, 1, 1)
    hue = torch.add(hue, (hue / 6).floor(), alpha=-6)
    shares = ((hue - 3).abs() - 1, 2 - (hue - 2).abs(), 2 - (hue - 4).abs())
    return torch.stack([torch.addcmul(low, chroma, share.clamp(0, 1)) for share in shares], 1)


def solarised(x: Tensor, threshold: Tensor) -> Tensor:
    """Values of at least ``threshold`` ``(B,)`` are inverted."""
    return ((x >= _each(threshold.to(x))).to(x) - x).abs()  # exactly x or 1 − x, and faster than torch.where on a CPU


def posterised(x: Tensor, bits: Tensor) -> Tensor:
    """The first ``bits`` ``(B,)`` of the 8 bits of a level, 1 to 8. The gradient is 0."""
    step = _each(2.0 ** (8 - bits.to(x)))
    return (_levels(x) / step).floor() * step / _TOP


def autocontrasted(x: Tensor) -> Tensor:
    """Each channel of an image scaled so that its values reach from 0 to 1; a constant channel is not changed."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    is_constant = (high <= low).to(x)
    low, width = low * (1 - is_constant), (high - low) * (1 - is_constant) + is_constant
    return ((x - low) / width).clamp(0, 1)


def equalised(x: Tensor) -> Tensor:
    """Each channel with levels so spread that their histogram is as even as possible, as in Pillow. The gradient is 0.

    Values are rounded to 256 levels first.
    """
    levels = _levels(x).long().flatten(2)  # (B, C, H W)
    counts = levels.new_zeros(*levels.shape[:2], _TOP + 1).scatter_add_(2, levels, torch.ones_like(levels))
    last = counts.gather(2, levels.amax(2, keepdim=True))  # of the highest level
    step = (levels.shape[2] - last) // _TOP
    below = counts.cumsum(2) - counts
    table = torch.div(below + step // 2, step.clamp_min(1), rounding_mode="floor").clamp_max(_TOP)
    same = torch.arange(_TOP + 1, device=x.device).expand_as(table)
    table = torch.where(step == 0, same, table)
    return (table.gather(2, levels).to(x.dtype) / _TOP).view(x.shape)


def sharpened(x: Tensor, factor: Tensor) -> Tensor:
    """The blend with a smooth image: a factor below 1 smooths, one above 1 sharpens.

    The smooth image is the average over 3×3 pixels with weight 5 in the middle and 1 around it; pixels at the border
    are those of ``x``.
    """
    channels, height, width = x.shape[1:]
    if min(height, width) < 3:
        return x
    kernel = torch.ones(3, 3, dtype=x.dtype, device=x.device)
    kernel[1, 1] = 5
    inner = conv2d(x, (kernel / kernel.sum()).expand(channels, 1, 3, 3), groups=channels)
    difference = pad(inner - x[..., 1:-1, 1:-1], (1, 1, 1, 1))
    return (x + difference * _each(1 - factor.to(x))).clamp(0, 1)


def _each(strength: Tensor) -> Tensor:
    return strength.view(-1, 1, 1, 1)


def _levels(x: Tensor) -> Tensor:
    return (x.detach() * _TOP).round()
