"""Pictures of examples: grids of images, scatter plots of points, curves of training."""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unsup.core.escapes import visible
from unsup.core.event import Event

_BACKGROUND = 255
_LINES = ("#4477aa", "#228833", "#aa3377", "#ccbb44")


def has_picture(event: Event) -> bool:
    """Whether examples of ``event`` can be shown: grey or colour images, and points of the plane."""
    return (event.is_image and event.shape[0] in (1, 3)) or event.shape == (2,)


def picture(x: Tensor, event: Event) -> Image.Image:
    """Raw examples ``(N, *event.shape)`` as one picture: a grid of images, or a scatter plot of points."""
    return _scatter(x) if event.shape == (2,) else image_grid(x, event)


def image_grid(x: Tensor, event: Event, *, columns: int | None = None) -> Image.Image:
    """Raw images ``(N, C, H, W)`` as a grid, levels mapped linearly to 0 … 255, enlarged to 48 pixels."""
    zoom = max(1, 48 // max(x.shape[2:]))
    tiles = to_levels(x, event).repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    return from_pixels(tile_grid(tiles, columns or math.ceil(math.sqrt(len(x)))))


def tile_grid(tiles: Tensor, columns: int, *, gap: int = 2) -> Tensor:
    """Tiles ``(N, 1 or 3, H, W)``, uint8, row by row on white, ``gap`` pixels around each: ``(3, H', W')``."""
    n, _, height, width = tiles.shape
    rows = math.ceil(n / columns)
    canvas = torch.full((3, rows * (height + gap) + gap, columns * (width + gap) + gap), _BACKGROUND, dtype=torch.uint8)
    for i, tile in enumerate(tiles):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        canvas[:, top : top + height, left : left + width] = tile.expand(3, -1, -1)
    return canvas


def from_pixels(pixels: Tensor) -> Image.Image:
    """``(3, H, W)``, uint8, as a picture in colour."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def plain_image(x: Tensor, event: Event) -> Image.Image:
    """One raw image ``(C, H, W)`` at its own size, levels mapped linearly to 0 … 255."""
    pixels = to_levels(x[None], event)[0]
    return Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy())


def to_levels(x: Tensor, event: Event, limits: tuple[float, float] | None = None) -> Tensor:
    """Raw values → uint8: a discrete support's range, or ``limits`` (those of ``x`` where None), on 0 … 255."""
    support = event.uniform
    x = x.detach().cpu().float()
    if support is not None and support.is_discrete:
        return ((x - support.low) * 255 / (support.levels - 1)).round().clamp(0, 255).to(torch.uint8)
    low, high = limits if limits is not None else (float(x.min()), float(x.max()))
    return ((x - low) * 255 / max(high - low, 1e-12)).round().clamp(0, 255).to(torch.uint8)


def _scatter(x: Tensor) -> Image.Image:
    figure = new_figure(4, 4)
    axes = figure.subplots()
    points = x.detach().cpu().float().numpy()
    axes.scatter(points[:, 0], points[:, 1], s=3, alpha=0.6, linewidths=0)
    axes.set_aspect("equal", adjustable="datalim")
    return to_image(figure)


def curves(events: list[dict[str, Any]], unit: str = "bits/dim") -> Image.Image:
    """Training and validation curves over steps, from the lines of a run's ``events.jsonl``."""
    figure = new_figure(7, 3.5)
    axes = figure.subplots()
    losses = dict.fromkeys(name for e in events for name in e if name.split("/")[-1] == "loss")
    validation = [(e["step"], e["bits_per_dim"]) for e in events if "bits_per_dim" in e]
    for name, color in zip(losses, itertools.cycle(_LINES)):
        line = np.array([(e["step"], e[name]) for e in events if name in e]).T
        axes.plot(*line, color=color, lw=1, label="training loss (nats)" if name == "loss" else plain_label(name))
    axes.set_xlabel("step")
    axes.set_ylabel("nats" if "loss" in losses else "loss")
    if validation:
        right = axes.twinx()
        right.plot(*np.array(validation).T, color="#cc6677", lw=1.6, marker="o", ms=3, label=f"validation {unit}")
        right.set_ylabel(unit)
    figure.legend(loc="upper right", frameon=False, fontsize=8)
    return to_image(figure)


def plain_label(name: str) -> str:
    """A name as matplotlib shows it, which would read mathematics between two dollar signs."""
    return visible(name).replace("$", r"\$")


def without_waste(image: Image.Image) -> Image.Image:
    """The same pixels in the mode whose PNG is smallest: grey, or a palette where there are at most 256 colours."""
    pixels = np.asarray(image.convert("RGB"))
    if bool((pixels == pixels[..., :1]).all()):
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
    if image.convert("RGB").getcolors(256) is None:
        return image
    one_number = (pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])).ravel()
    colours, index = np.unique(one_number, return_inverse=True)
    small = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8))
    small.putpalette(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], 1).astype(np.uint8).tobytes())
    return small


def coarser(image: Image.Image) -> Image.Image:
    """At most 256 colours, which suffice for a plot: each channel in 16 levels, 0 and 255 among them, or fewer."""
    pixels = np.asarray(image.convert("RGB")).astype(np.int64)
    rounded = Image.fromarray(((pixels + 8) // 17 * 17).astype(np.uint8))
    if rounded.getcolors(256) is not None:
        return rounded
    return rounded.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).convert("RGB")


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def new_figure(width: float, height: float, *, dpi: int = 110) -> Any:
    """A figure of matplotlib's, in inches, without pyplot's global state."""
    from matplotlib.figure import Figure  # slow to import, and only pictures need it

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def to_image(figure: Any) -> Image.Image:
    """The drawn figure in colour, on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def side_by_side(pictures: dict[str, Image.Image]) -> Image.Image:
    """Pictures of one height in a row, each under its title."""
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(size=18)
    gap, head = 16, 30
    width = sum(p.width for p in pictures.values()) + gap * (len(pictures) + 1)
    height = max(p.height for p in pictures.values()) + head + gap
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    left = gap
    for title, image in pictures.items():
        draw.text((left, 5), title, fill="black", font=font)
        canvas.paste(image, (left, head))
        left += image.width + gap
    return canvas
