"""Pictures made of pixels: grids of images, and lines of text. They are stored small and enlarged by the page."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from unsup.core.event import Event
from unsup.pictures.artist import ANOMALOUS, WIDEST, Artist, Sheet, bits_range, number, viridis
from unsup.pictures.images import coarser, from_pixels, tile_grid, to_levels

_COLUMNS = 8
_TILE = 5_000  # values of one stored tile: 70×70 in grey, 40×40 in colour
_MANY, _FEW = 125_000, 40_000  # values of one stored picture, so that a contestant's stay below 350 kB
_MOST_PARTS = 4  # frames of a film, or channels of an image that has no colour of its own
_THUMB = 64  # screen pixels that a tile should take at least
_HEATS = 127  # colours of a heat map: with 129 greys they fill a palette
_ORANGE = torch.tensor([int(ANOMALOUS[i : i + 2], 16) for i in (1, 3, 5)], dtype=torch.uint8)


class Tiles(Artist):
    """Images, films (some of their frames), and sequences of vectors (time to the right)."""

    def __init__(self, event: Event, train_x: Tensor) -> None:
        self.event = event
        self.noun = {"image": "images", "video": "films"}.get(str(event.layout), "sequences")
        self.limits = (float(train_x.min()), float(train_x.max()))
        plane = self._arranged(train_x[:1].float())
        self.factor = math.ceil(math.sqrt(plane[0].numel() / _TILE))
        tile = self._tiles(train_x[:1])
        self.values, self.side = tile[0].numel(), max(tile.shape[2:])
        self.gap = 1 if self.side < 16 else 2
        self.columns = max(1, min(_COLUMNS, WIDEST // (tile.shape[3] + self.gap)))
        self.scale = max(1, min(-(-_THUMB // self.side), WIDEST // (self.columns * (tile.shape[3] + self.gap))))

    def _tiles(self, x: Tensor) -> Tensor:
        """``(N, *event.shape)`` → uint8 ``(N, 1 or 3, h, w)`` as they are stored."""
        return self._thumb(self._arranged(to_levels(x, self.event, self.limits).float())).round().to(torch.uint8)

    def _arranged(self, x: Tensor) -> Tensor:
        """One plane a tile: parts that are no colours of one image stand side by side."""
        if x.ndim <= 3:  # (N, T) and (N, T, C)
            return x.view(len(x), 1, -1, x.shape[-1]) if x.ndim == 2 else x.transpose(1, 2).flip(1).unsqueeze(1)
        if x.ndim == 5:
            every = -(-x.shape[1] // _MOST_PARTS)
            frames = x[:, ::every] if x.shape[2] in (1, 3) else x[:, ::every, :1]
            return torch.cat(list(frames.unbind(1)), 3)
        if x.shape[1] in (1, 3):
            return x
        return torch.cat(list(x[:, :_MOST_PARTS].unbind(1)), 2).unsqueeze(1)

    def _thumb(self, planes: Tensor) -> Tensor:
        return planes if self.factor == 1 else avg_pool2d(planes, self.factor, ceil_mode=True)

    @property
    def _parts(self) -> str:
        shape = self.event.shape
        if self.event.layout == "video":
            return " Frames of one film stand side by side."
        if len(shape) == 3 and shape[0] not in (1, 3):
            shown = f"The first {_MOST_PARTS} of {shape[0]}" if shape[0] > _MOST_PARTS else f"The {shape[0]}"
            return f" {shown} channels stand side by side."
        return " Time runs to the right." if len(shape) < 3 else ""

    def room(self, wanted: int, values: int = _FEW) -> int:
        """How many of ``wanted`` tiles fit into a picture of so many values: whole rows where there are several."""
        fits = min(wanted, max(2, values // self.values))
        return fits if fits <= self.columns else fits - fits % self.columns

    def _sheet(self, tiles: Tensor, columns: int, shown: int, layout: str, reading: str = "") -> Sheet:
        canvas = tile_grid(tiles, columns, gap=self.gap)
        return self._page(canvas, shown, layout, reading)

    def _page(self, canvas: Tensor, shown: int, layout: str, reading: str = "") -> Sheet:
        scale = max(1, min(self.scale, WIDEST // canvas.shape[2]))
        return Sheet(from_pixels(canvas), scale, shown, layout, (reading + self._parts).strip())

    def examples(self, x: Tensor) -> Sheet:
        x = x[: self.room(64, _MANY)]
        columns = min(self.columns, len(x))
        return self._sheet(self._tiles(x), columns, len(x), self._grid(len(x), columns))

    def _grid(self, n: int, columns: int) -> str:
        return f"a grid of {n} {self.noun} in {columns} columns" if n > 1 else f"one of the {self.noun}"

    def pairs(self, first: Tensor, second: Tensor, names: tuple[str, str]) -> Sheet:
        n = min(self.room(32) // 2, len(first), len(second), 2 * self.columns)
        columns = min(self.columns, n)
        above, below = self._tiles(first[:n]), self._tiles(second[:n])
        bands = []
        for start in range(0, n, columns):
            rows = torch.cat([above[start : start + columns], below[start : start + columns]])
            bands.append(tile_grid(rows, len(rows) // 2, gap=self.gap))
        width = max(b.shape[2] for b in bands)
        canvas = torch.cat([pad(b, (0, width - b.shape[2], 0, 3 * self.gap), value=255) for b in bands], 1)
        layout = f"{n} pairs of {self.noun}, {names[0]} above {names[1]}"
        return self._page(canvas[:, : -3 * self.gap], n, layout)

    def paths(self, rows: Tensor) -> Sheet:
        steps = rows.shape[1]
        rows = rows[: max(1, min(8, 2 * _FEW // (steps * self.values)))]
        layout = f"{len(rows)} rows of {steps} {self.noun}"
        return self._sheet(self._tiles(rows.flatten(0, 1)), steps, len(rows), layout)

    def ranked(self, x: Tensor, words: list[str]) -> Sheet:
        x = x[: self.room(24)]
        columns = min(self.columns, len(x))
        layout = f"{self._grid(len(x), columns)}, row by row in this order"
        return self._sheet(self._tiles(x), columns, len(x), layout)

    def marked(self, x: Tensor, marks: list[bool]) -> Sheet:
        n = min(self.room(48), len(x))
        tiles, frame = _fewer_greys(self._tiles(x[:n])), max(1, self.side // 14)
        band = max(2, self.side // 8)  # below the tile, for the triangle
        cells = pad(tiles.expand(-1, 3, -1, -1), (frame, frame, frame, frame + band), value=255)
        height, width = cells.shape[2:]
        for cell, mark in zip(cells, marks[:n], strict=True):
            if not mark:
                continue
            outline = torch.ones(height, width, dtype=torch.bool)
            outline[frame : height - frame - band, frame:-frame] = False
            outline[height - band :] = False
            middle = width // 2
            for row in range(1, band):  # a triangle that points at the tile
                outline[height - band + row, max(0, middle - row) : middle + row + 1] = True
            cell[:, outline] = _ORANGE[:, None]
        columns = min(self.columns, n)
        layout = f"{self._grid(n, columns)}, row by row in this order"
        reading = "Anomalies have an orange frame and a triangle below; the others have none."
        return self._sheet(cells, columns, n, layout, reading)

    def bits(self, x: Tensor, bits: Tensor) -> Sheet:
        n = min(self.room(16, _FEW // 3), len(x))
        maps, whole = self._per_pixel(bits[:n])
        low, high = bits_range(maps)
        heat = ((maps - low) / (high - low) * (_HEATS - 1)).round() / (_HEATS - 1)
        colours = torch.from_numpy(viridis(heat.numpy())).permute(0, 3, 1, 2)  # (N, 3, h, w)
        tiles = torch.stack([_fewer_greys(self._tiles(x[:n])).expand(-1, 3, -1, -1), colours], 1).flatten(0, 1)
        columns = 2 * min(max(1, self.columns // 2), n)
        canvas = tile_grid(tiles, columns, gap=self.gap)
        steps = np.linspace(0, _HEATS - 1, canvas.shape[2] - 2 * self.gap).round() / (_HEATS - 1)
        ramp = torch.from_numpy(viridis(steps)).T[:, None]
        bar = pad(ramp.expand(-1, max(2, self.side // 7), -1), (self.gap,) * 4, value=255)
        layout = f"{n} {self.noun}, each with a map of its bits on its right"
        reading = (
            f"One colour scale, the bar below: dark violet {number(low)}, bright yellow {number(high)} bits or more "
            f"{whole}."
        )
        return self._page(torch.cat([canvas, bar], 1), n, layout, reading)

    def _per_pixel(self, bits: Tensor) -> tuple[Tensor, str]:
        """Maps ``(N, h, w)`` in the place of the tiles, summed over colours; the mean where tiles are reduced."""
        maps = bits.double().reshape(len(bits), *self.event.shape)
        whole = "a value"
        if len(self.event.shape) == 3 and self.event.shape[0] == 3:
            maps, whole = maps.sum(1, keepdim=True), "a pixel, summed over its colours"
        elif len(self.event.shape) == 3:
            whole = "a pixel"
        planes = self._arranged(maps)
        planes = planes.sum(1, keepdim=True) if planes.shape[1] > 1 else planes
        return self._thumb(planes)[:, 0], whole


def _fewer_greys(tiles: Tensor) -> Tensor:
    """Grey tiles in 129 levels where they have more than a palette has room for beside other colours."""
    if tiles.shape[1] == 3 or len(tiles.unique()) <= 256 - _HEATS:
        return tiles
    return torch.where(tiles == 255, tiles, tiles // 2 * 2)


_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LINE, _MOST_LINES, _GUTTER = 48, 30, 11
_CELL = (12, 24)  # pixels of one character


class Text(Artist):
    """Sequences of bytes as text, and of a few tokens as one character each."""

    def __init__(self, event: Event, train_x: Tensor) -> None:
        self.support = event.uniform
        self.length = event.dims
        self.is_bytes = is_text(event, train_x)
        self.noun = "pieces of text" if self.is_bytes else "sequences"

    def _string(self, row: Tensor) -> str:
        if not self.is_bytes:
            low = self.support.low if self.support is not None else 0
            return "".join(_LETTERS[int(v) - low] for v in row)
        return "".join("↵" if v == 10 else chr(v) if 32 <= v < 127 else "·" for v in row.tolist())

    @property
    def _lines_each(self) -> int:
        return min(-(-self.length // _LINE), 4)

    @property
    def _note(self) -> str:
        note = " ↵ is a new line, · any other byte that is no printable ASCII." if self.is_bytes else ""
        shown = self._lines_each * _LINE
        return note + (f" The first {shown} of {self.length} are shown." if shown < self.length else "")

    def _fits(self, n: int, wanted: int, lines: int = 1) -> int:
        return max(1, min(n, wanted, _MOST_LINES // (lines * self._lines_each)))

    def _draw(self, entries: Sequence[tuple[str, str, NDArray[Any] | None]], group: int = 1) -> Image.Image:
        """Lines with a word in the gutter and colours behind the characters; a gap after each ``group``."""
        width, height = _CELL
        gutter = width * max((len(word) + 1 for word, _, _ in entries if word), default=0)
        line = min(self.length, _LINE)
        rows = []
        for i, (word, text, colours) in enumerate(entries):
            for start in range(0, min(len(text), self._lines_each * _LINE), _LINE):
                part = None if colours is None else colours[start : start + _LINE]
                rows.append((word if start == 0 else "", text[start : start + _LINE], part))
            if (i + 1) % group == 0 and i + 1 < len(entries) and (group > 1 or self._lines_each > 1):
                rows.append(("", "", None))
        canvas = Image.new("RGB", (gutter + line * width + 8, len(rows) * height + 8), "white")
        draw = ImageDraw.Draw(canvas)
        for r, (word, text, colours) in enumerate(rows):
            top = 4 + r * height
            draw.text((4, top), word, fill=ANOMALOUS if "▲" in word else "#555555", font=_font())
            for c, letter in enumerate(text):
                left, ink = 4 + gutter + c * width, "black"
                if colours is not None:
                    draw.rectangle((left, top, left + width - 1, top + height - 1), fill=tuple(colours[c].tolist()))
                    ink = "white" if colours[c] @ np.array([0.3, 0.6, 0.1]) < 128 else "black"
                draw.text((left, top), letter, fill=ink, font=_font())
        return coarser(canvas)

    def _sheet(
        self,
        entries: Sequence[tuple[str, str, NDArray[Any] | None]],
        shown: int,
        layout: str,
        group: int = 1,
        reading: str = "",
    ) -> Sheet:
        return Sheet(self._draw(entries, group), 1, shown, layout, (reading + self._note).strip())

    def examples(self, x: Tensor) -> Sheet:
        n = self._fits(len(x), 16)
        return self._sheet([("", self._string(row), None) for row in x[:n]], n, f"{n} {self.noun}, one below the other")

    def pairs(self, first: Tensor, second: Tensor, names: tuple[str, str]) -> Sheet:
        n = self._fits(min(len(first), len(second)), 8, 2)
        entries = [
            (word, self._string(t[i]), None) for i in range(n) for word, t in zip("12", (first, second), strict=True)
        ]
        return self._sheet(entries, n, f"{n} pairs of {self.noun}, {names[0]} (1) above {names[1]} (2)", 2)

    def paths(self, rows: Tensor) -> Sheet:
        n, steps = self._fits(len(rows), 4, rows.shape[1]), rows.shape[1]
        entries = [(str(s + 1), self._string(rows[r, s]), None) for r in range(n) for s in range(steps)]
        return self._sheet(entries, n, f"{n} blocks of {steps} lines of {self.noun}", steps)

    def ranked(self, x: Tensor, words: list[str]) -> Sheet:
        n = self._fits(len(x), 16)
        entries = [(word[:_GUTTER], self._string(row), None) for word, row in zip(words[:n], x[:n], strict=True)]
        return self._sheet(entries, n, f"{n} {self.noun} in this order, the nats of each on its left")

    def marked(self, x: Tensor, marks: list[bool]) -> Sheet:
        n = self._fits(len(x), 24)
        entries = [
            ("▲ anomaly" if mark else "", self._string(row), None) for mark, row in zip(marks[:n], x[:n], strict=True)
        ]
        reading = "Anomalies have a triangle and the word on their left."
        return self._sheet(entries, n, f"{n} {self.noun} in this order", 1, reading)

    def bits(self, x: Tensor, bits: Tensor) -> Sheet:
        n = self._fits(len(x), 12)
        low, high = bits_range(bits[:n])
        colours = viridis(((bits[:n] - low) / (high - low)).numpy())
        entries: list[tuple[str, str, NDArray[Any] | None]] = [
            ("", self._string(row), colours[i]) for i, row in enumerate(x[:n])
        ]
        ramp = viridis(np.linspace(0, 1, min(self.length, _LINE)))
        entries += [("", "", None), ("", " " * len(ramp), ramp)]
        reading = (
            f"One colour scale, the bar below: dark violet {number(low)}, bright yellow {number(high)} bits or more "
            "a character."
        )
        return self._sheet(entries, n, f"{n} {self.noun}, each character on the colour of its bits", 1, reading)


def is_text(event: Event, train_x: Tensor) -> bool:
    """Whether the sequences are bytes of which at least 85 % are printable ASCII, new lines or tabs."""
    support = event.uniform
    if support is None or support.kind != "nominal" or support.levels != 256 or len(event.shape) != 1:
        return False
    values = train_x[:1000].flatten()
    printable = ((values >= 32) & (values < 127)) | (values == 10) | (values == 13) | (values == 9)
    return float(printable.float().mean()) >= 0.85


def has_letters(event: Event, train_x: Tensor) -> bool:
    """Whether every token of a sequence can be one character."""
    support = event.uniform
    if support is None or len(event.shape) != 1 or support.kind not in ("nominal", "binary"):
        return False
    return support.levels <= len(_LETTERS) or is_text(event, train_x)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    """The monospaced font that comes with matplotlib."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"), 19)
