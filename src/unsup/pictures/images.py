"""Grids of tiles, PNG files, and matplotlib figures."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn.functional import pad

from unsup.core.escapes import visible
from unsup.core.event import Event
from unsup.pictures.artist import data_range

_FEW_LEVELS = 256


def tile_grid(tiles: Tensor, columns: int, *, gap: int = 2) -> Tensor:
    """Tiles ``(N, 1 or 3, H, W)``, uint8, row by row on white, ``gap`` pixels around each: ``(3, H', W')``."""
    rows = -(-len(tiles) // columns)
    cells = pad(tiles.expand(-1, 3, -1, -1), (gap, 0, gap, 0), value=255)
    cells = pad(cells, (0, 0, 0, 0, 0, 0, 0, rows * columns - len(tiles)), value=255).unflatten(0, (rows, columns))
    return pad(cells.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2), (0, gap, 0, gap), value=255)


def plain_image(x: Tensor, event: Event) -> Image.Image:
    """One raw image ``(1 or 3, H, W)`` at its own size."""
    pixels = to_levels(x[None], *shown_range(event, x))[0]
    return Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy())


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


def plain_label(name: str) -> str:
    """A name with dollar signs escaped, which matplotlib would interpret as mathematics."""
    return visible(name).replace("$", r"\$")


def without_waste(image: Image.Image) -> Image.Image:
    """The same pixels in the mode with the smallest PNG: grey, or a palette for at most 256 colours."""
    pixels = np.asarray(image)
    if bool((pixels == pixels[..., :1]).all()):
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
    colours = image.getcolors(256)  # a median cut is exact for so few
    return image if colours is None else image.quantize(len(colours), Image.Quantize.MEDIANCUT)


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


def new_figure(width: float, height: float, *, dpi: int = 110) -> Any:
    """A matplotlib figure, in inches, without the global state of pyplot."""
    from matplotlib.figure import Figure  # slow to import, and only pictures need it

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def to_image(figure: Any) -> Image.Image:
    """The drawn figure in colour, on white. Letters that the font does not have are boxes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")
