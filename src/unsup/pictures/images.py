"""Levels of pixels, and PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from unsup.core.escapes import visible
from unsup.core.event import Event
from unsup.pictures.artist import data_range

_FEW_LEVELS = 256


def plain_image(x: Tensor, event: Event) -> Image.Image:
    """One raw image ``(1 or 3, H, W)`` at its own size."""
    return to_image(to_levels(x, *shown_range(event, x)))


def to_image(pixels: Tensor) -> Image.Image:
    """The image of uint8 ``(1 or 3, H, W)``, in grey or in colour."""
    return Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous()).numpy())


def shown_range(event: Event, x: Tensor) -> tuple[float, float]:
    """The values for black and white: the levels of the event if they are at most 256, else the range of ``x``."""
    support = event.uniform
    if support is not None and support.is_discrete and support.levels <= _FEW_LEVELS:
        return float(support.low), float(support.low + support.levels - 1)
    return data_range(x)


def to_levels(x: Tensor, low: float, high: float) -> Tensor:
    """Raw values → uint8, from ``low`` … ``high`` to 0 … 255; NaN (padding) is white."""
    unit = (x.detach().cpu().double() - low) / max(high - low, 1e-300)
    return (unit.clamp(0, 1) * 255).round().nan_to_num(255).to(torch.uint8)


def without_waste(image: Image.Image) -> Image.Image:
    """The same pixels in the mode with the smallest PNG: grey, or a palette for at most 256 colours."""
    pixels = np.asarray(image)
    if bool((pixels == pixels[..., :1]).all()):
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
    found = image.getcolors(256)  # a median cut is exact for so few
    return image if found is None else image.quantize(len(found), Image.Quantize.MEDIANCUT)


def coarser(image: Image.Image) -> Image.Image:
    """A plot with 7 levels per channel if that gives at most 16 colours, which halves the file, else 16 levels."""
    pixels = np.asarray(image.convert("RGB")) / 255
    for levels, most in ((7, 16), (16, 256)):
        rounded = Image.fromarray(((pixels * (levels - 1)).round() * 255 / (levels - 1)).round().astype(np.uint8))
        if rounded.getcolors(most) is not None:
            return rounded
    return rounded.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).convert("RGB")


def png_bytes(image: Image.Image, words: Mapping[str, str] | None = None) -> bytes:
    """A PNG file with ``words`` as its texts."""
    buffer, info = io.BytesIO(), PngInfo()
    for key, text in (words or {}).items():
        info.add_itxt(key, visible(text))
    image.save(buffer, format="PNG", optimize=True, pnginfo=info)
    return buffer.getvalue()
