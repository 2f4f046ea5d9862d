"""Grids of images, clips and sequences of vectors, stored at low resolution and enlarged by the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from unsup.core.event import Event
from unsup.pictures.artist import ANOMALOUS, WIDEST, Artist, Sheet, bits_range, number, palette, viridis
from unsup.pictures.images import shown_range, tile_grid, to_levels

_COLUMNS = 8
_TILE, _LONG = 5_000, 20_000  # values of one stored tile: 70×70 in grey, 40×40 in colour; of a sequence
_MANY, _FEW = 125_000, 40_000  # values of one stored picture, so that those of a contestant take at most 350 kB
_ALL = 2**24  # values of a picture in a separate file
_MOST_PARTS = 4  # frames of a clip, or channels of an image without colours
_THUMB = 64  # least size of an image, a frame or a sequence, in screen pixels
_HEATS = 127  # colours of a heat map; with 129 greys they fill a palette
_ORANGE = torch.tensor([int(ANOMALOUS[i : i + 2], 16) for i in (1, 3, 5)], dtype=torch.uint8)


class Tiles(Artist):
    """Images, clips (some of their frames), and sequences of vectors (time to the right)."""

    wanted = 24

    def __init__(self, event: Event, train_x: Tensor, whole: bool) -> None:
        self.event, self.whole = event, whole
        self.noun = {"image": "images", "video": "clips"}.get(str(event.layout), "sequences")
        support = event.uniform
        assert support is not None
        self.nominal, self.levels, self.lowest = support.kind == "nominal", support.levels, support.low
        self.limits = shown_range(event, train_x)
        self.own_range = not support.is_discrete or self.limits[1] - self.limits[0] != support.levels - 1
        self.factor, shape = (1, 1), event.shape
        apart = len(shape) == 3 and not self._is_colour(shape[0])  # channels that are not colours
        self.every = -(-shape[0] // _MOST_PARTS) if len(shape) == 4 else 1  # of the frames
        self.parts = min(-(-shape[0] // self.every), _MOST_PARTS) if apart or len(shape) == 4 else 1
        plane = self._tiles(train_x[:1])
        if not whole:
            most = _TILE if event.layout in ("image", "video") else _LONG
            by = math.ceil(math.sqrt(plane[0].numel() / most))
            self.factor = (min(by, plane.shape[2]), max(by, -(-plane.shape[3] // (WIDEST - 4))))
        tile = self._tiles(train_x[:1])
        self.values, self.width = tile[0].numel(), tile.shape[3]
        self.side = max(tile.shape[2], self.width // self.parts)
        self.gap = 1 if self.side < 16 else 2
        self.scale = max(1, min(-(-_THUMB // self.side), WIDEST // (self.width + 2 * self.gap)))
        self.columns = max(1, min(_COLUMNS, (WIDEST // self.scale - self.gap) // (self.width + self.gap)))

    def _is_colour(self, channels: int) -> bool:
        return channels == 1 or (channels == 3 and not self.nominal)

    def _tiles(self, x: Tensor) -> Tensor:
        """``(N, *event.shape)`` → stored tiles, uint8 ``(N, 1 or 3, h, w)``."""
        planes = self._arranged(x)
        if not self.nominal:
            return self._thumb(to_levels(planes, *self.limits).float()).round().to(torch.uint8)
        colours = torch.cat([palette(self.levels), torch.full((1, 3), 255, dtype=torch.uint8)])  # padding is white
        chosen = (planes.double() - self.lowest).nan_to_num(self.levels).long()[:, 0]
        return self._thumb(colours[chosen].permute(0, 3, 1, 2).float()).round().to(torch.uint8)

    def _arranged(self, x: Tensor) -> Tensor:
        """One plane per tile, with frames and channels that are not colours side by side."""
        if x.ndim <= 3:  # (N, T) and (N, T, C)
            return x.view(len(x), 1, -1, x.shape[-1]) if x.ndim == 2 else x.transpose(1, 2).flip(1).unsqueeze(1)
        if x.ndim == 5:
            frames = x[:, :: self.every]
            return _row((frames if self._is_colour(x.shape[2]) else frames[:, :, :1]).unbind(1))
        return x if self._is_colour(x.shape[1]) else _row(x[:, :_MOST_PARTS].split(1, 1))

    def _thumb(self, planes: Tensor) -> Tensor:
        return planes if self.factor == (1, 1) else avg_pool2d(planes, self.factor, ceil_mode=True)

    @property
    def _reading(self) -> str:
        shape, said = self.event.shape, ""
        if len(shape) == 4:
            some = "" if self.every == 1 else f" ({self.parts} of {shape[0]})"
            said = f" Frames of one clip{some} are side by side."
        elif len(shape) == 3 and self.parts > 1:
            shown = f"The first {_MOST_PARTS} of {shape[0]}" if shape[0] > _MOST_PARTS else f"The {shape[0]}"
            said = f" {shown} channels are side by side."
        elif len(shape) < 3:
            said = " Time is horizontal, the first channel is the lowest row."
        if self.nominal:
            return said + " Each colour is a category."
        low, high = map(number, self.limits)
        return said + (f" Black is {low}, white is {high}." if self.own_range else "")

    def room(self, wanted: int, values: int = _FEW) -> int:
        """The number of ``wanted`` tiles that fit into a picture with ``values`` values, in whole rows if several."""
        fits = min(wanted, max(2, values // self.values))
        return fits if fits <= self.columns else fits - fits % self.columns

    def _page(self, bands: list[Tensor], shown: int, layout: str, reading: str = "") -> Sheet:
        """Grids, one below the other, with gaps."""
        air, width = 3 * self.gap, max(band.shape[2] for band in bands)
        canvas = torch.cat([pad(b, (0, width - b.shape[2], 0, air), value=255) for b in bands], 1)[:, :-air]
        scale = self.scale if self.whole else max(1, min(self.scale, WIDEST // width))
        return Sheet(
            Image.fromarray(canvas.permute(1, 2, 0).contiguous().numpy()),
            shown,
            layout,
            (reading + self._reading).strip(),
            scale,
        )

    def _band(self, tiles: Tensor, columns: int) -> Tensor:
        return tile_grid(tiles, columns, gap=self.gap)

    def examples(self, x: Tensor, real: Tensor | None = None) -> Sheet:
        x = x[: max(1, _ALL // self.values) if self.whole else self.room(min(64, 8 * self.columns), _MANY)]
        columns = math.ceil(math.sqrt(len(x))) if self.whole else min(self.columns, len(x))
        above = [] if real is None else [self._band(self._tiles(real[:columns]), columns)]
        layout = self._grid(len(x), columns)
        reading = ""
        if real is not None:
            layout = f"a row of {min(columns, len(real))} training examples above {layout}"
            reading = "The first row shows training examples. "
        return self._page([*above, self._band(self._tiles(x), columns)], len(x), layout, reading)

    def _grid(self, n: int, columns: int) -> str:
        return f"a grid of {n} {self.noun} in {columns} columns" if n > 1 else f"one of the {self.noun}"

    def pairs(self, first: Tensor, second: Tensor, names: tuple[str, str]) -> Sheet:
        n = min(self.room(32) // 2, len(first), len(second), 2 * self.columns)
        columns = min(self.columns, n)
        above, below = (self._tiles(t[:n]).split(columns) for t in (first, second))
        bands = [self._band(torch.cat(both), len(both[0])) for both in zip(above, below, strict=True)]
        return self._page(bands, n, f"{n} pairs of {self.noun}, {names[0]} above {names[1]}")

    def paths(self, rows: Tensor) -> Sheet:
        steps = rows.shape[1]
        rows = rows[: max(1, min(8, 2 * _FEW // (steps * self.values)))]
        layout = f"{len(rows)} rows of {steps} {self.noun}"
        return self._page([self._band(self._tiles(rows.flatten(0, 1)), steps)], len(rows), layout)

    def ranked(self, x: Tensor, words: list[str], marks: list[bool] | None = None) -> Sheet:
        n = min(self.room(24 if marks is None else 48), len(x))
        columns = min(self.columns, n)
        layout = f"{self._grid(n, columns)}, row by row in this order"
        if marks is None:
            return self._page([self._band(self._tiles(x[:n]), columns)], n, layout)
        frame = max(1, self.side // 14)
        cells = pad(_fewer_greys(self._tiles(x[:n])).expand(-1, 3, -1, -1), (frame,) * 4, value=255)
        inside = torch.zeros(cells.shape[2:], dtype=torch.bool)
        inside[frame:-frame, frame:-frame] = True
        framed = torch.tensor(marks[:n])[:, None, None, None] & ~inside
        reading = "Anomalies have an orange frame; the others have none."
        return self._page([self._band(torch.where(framed, _ORANGE[:, None, None], cells), columns)], n, layout, reading)

    def bits(self, x: Tensor, bits: Tensor) -> Sheet:
        n = min(self.room(16, _FEW // 3), len(x))
        maps, whole = self._per_pixel(bits[:n])
        low, high = bits_range(maps)
        heat = ((maps - low) / (high - low) * (_HEATS - 1)).round() / (_HEATS - 1)
        colours = torch.from_numpy(viridis(heat.numpy())).permute(0, 3, 1, 2).clone()  # (N, 3, h, w)
        colours.masked_fill_(heat.isnan()[:, None], 255)
        tiles = torch.stack([_fewer_greys(self._tiles(x[:n])).expand(-1, 3, -1, -1), colours], 1).flatten(0, 1)
        columns = 2 * min(max(1, self.columns // 2), n)
        canvas = self._band(tiles, columns)
        steps = np.linspace(0, _HEATS - 1, canvas.shape[2] - 2 * self.gap).round() / (_HEATS - 1)
        ramp = torch.from_numpy(viridis(steps)).T[:, None]
        bar = pad(ramp.expand(-1, max(2, self.side // 7), -1), (self.gap,) * 4, value=255)
        layout = f"{n} {self.noun}, each with a map of its bits on its right"
        reading = (
            f"One colour scale, the bar below: dark violet {number(low)}, bright yellow {number(high)} bits or more "
            f"{whole}."
        )
        return self._page([torch.cat([canvas, bar], 1)], n, layout, reading)

    def _per_pixel(self, bits: Tensor) -> tuple[Tensor, str]:
        """Maps ``(N, h, w)`` of the tiles, summed over colours; means if tiles are reduced."""
        maps = bits.double().reshape(len(bits), *self.event.shape)
        whole = "per value"
        if len(self.event.shape) == 3 and self.event.shape[0] == 3 and self.parts == 1:
            maps, whole = maps.sum(1, keepdim=True), "per pixel, summed over its colours"
        elif len(self.event.shape) == 3:
            whole = "per pixel"
        planes = self._arranged(maps)
        planes = planes.sum(1, keepdim=True) if planes.shape[1] > 1 else planes
        return self._thumb(planes)[:, 0], whole


def _row(parts: Sequence[Tensor]) -> Tensor:
    """Planes side by side, with an empty column between them."""
    joined = [pad(part.double(), (0, 1), value=math.nan) for part in parts]
    return torch.cat(joined, 3)[..., :-1]


def _fewer_greys(tiles: Tensor) -> Tensor:
    """Grey tiles in 129 levels, if their levels and the heat map would not fit in a palette."""
    if tiles.shape[1] == 3 or len(tiles.unique()) <= 256 - _HEATS:
        return tiles
    return torch.where(tiles == 255, tiles, tiles // 2 * 2)
