"""Grids of images, clips and sequences of vectors, stored at low resolution and enlarged by the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from unsup.core.event import Event
from unsup.core.words import counted
from unsup.pictures.artist import ANOMALOUS, HEATS, WIDEST, Artist, Sheet, bit_colours, colours, number
from unsup.pictures.images import shown_range, to_image, to_levels

_COLUMNS = 8
_TILE, _LONG = 5_000, 20_000  # values of one stored tile: 70×70 in grey, 40×40 in colour; of a sequence
_MANY, _FEW = 125_000, 40_000  # values of one stored picture, so that those of a contestant take at most 350 kB
_ALL = 2**24  # values of a picture in a separate file
_MOST_PARTS = 4  # frames of a clip, or channels of an image without colours
_THUMB = 64  # least size of an image, a frame or a sequence, in screen pixels
_ORANGE = torch.tensor([int(ANOMALOUS[i : i + 2], 16) for i in (1, 3, 5)], dtype=torch.uint8)


class Tiles(Artist):
    """Images, clips (some of their frames), and sequences of vectors (time to the right)."""

    wanted = 24

    def __init__(self, event: Event, train_x: Tensor, whole: bool) -> None:
        support, shape = event.uniform, event.shape
        assert support is not None
        self.shape, self.support, self.whole, self.real = shape, support, whole, train_x
        self.noun = {"image": "images", "video": "clips"}.get(str(event.layout), "sequences")
        self.nominal = support.kind == "nominal"
        self.limits = shown_range(event, train_x)
        self.own_range = not support.is_discrete or self.limits[1] - self.limits[0] != support.levels - 1
        self.is_colour = len(shape) < 3 or shape[-3] == 1 or (shape[-3] == 3 and not self.nominal)
        self.every = -(-shape[0] // _MOST_PARTS) if len(shape) == 4 else 1  # of the frames
        parts = -(-shape[0] // self.every) if len(shape) == 4 or not self.is_colour else 1
        self.parts, self.factor = min(parts, _MOST_PARTS), (1, 1)
        plane = self._tiles(train_x[:1])
        if not whole:
            most = _TILE if event.layout in ("image", "video") else _LONG
            by = math.ceil(math.sqrt(plane[0].numel() / most))
            self.factor = (min(by, plane.shape[2]), max(by, -(-plane.shape[3] // WIDEST)))
        _, channels, height, width = self._tiles(train_x[:1]).shape
        self.values, self.side = channels * height * width, max(height, width // self.parts)
        self.gap = 1 if self.side < 16 else 2
        self.scale = max(1, min(-(-_THUMB // self.side), WIDEST // width))
        self.columns = max(1, min(_COLUMNS, (WIDEST // self.scale + self.gap) // (width + self.gap)))

    def _tiles(self, x: Tensor) -> Tensor:
        """``(N, *event.shape)`` → stored tiles, uint8 ``(N, 1 or 3, h, w)``."""
        planes = self._planes(x)
        if self.nominal:
            levels = self.support.levels
            name = "tab10" if levels <= 10 else "tab20" if levels <= 20 else "turbo"
            palette = colours(name, np.arange(levels) if levels <= 20 else np.linspace(0, 1, levels))
            shades = torch.from_numpy(np.append(palette, [[255] * 3], 0))  # padding is white
            planes = shades[(planes[:, 0] - self.support.low).nan_to_num(levels).long()].permute(0, 3, 1, 2)
        else:
            planes = to_levels(planes, *self.limits)
        return self._reduced(planes.float()).round().to(torch.uint8)

    def _planes(self, x: Tensor) -> Tensor:
        """One plane per example, with frames and channels that are not colours side by side, NaN between them."""
        if x.ndim <= 3:  # (N, T) and (N, T, C)
            return (x[..., None] if x.ndim == 2 else x).double().transpose(1, 2).flip(1).unsqueeze(1)
        frames = x[:, :: self.every].unbind(1) if x.ndim == 5 else [x]
        if not self.is_colour:
            frames = [frame[:, :1] for frame in frames] if x.ndim == 5 else x[:, :_MOST_PARTS].split(1, 1)
        return torch.cat([pad(frame.double(), (0, 1), value=math.nan) for frame in frames], 3)[..., :-1]

    def _reduced(self, planes: Tensor) -> Tensor:
        return planes if self.factor == (1, 1) else avg_pool2d(planes, self.factor, ceil_mode=True)

    @property
    def _reading(self) -> str:
        shape, said = self.shape, ""
        if len(shape) == 4:
            some = "" if self.every == 1 else f" ({self.parts} of {shape[0]})"
            said = f" Frames of one clip{some} are side by side."
        elif self.parts > 1:
            shown = f"The first {_MOST_PARTS} of {shape[0]}" if shape[0] > _MOST_PARTS else f"The {shape[0]}"
            said = f" {shown} channels are side by side."
        elif len(shape) < 3:
            said = " Time is horizontal, the first channel is the lowest row."
        if self.nominal:
            return said + " Each colour is a category."
        low, high = map(number, self.limits)
        return said + (f" Black is {low}, white is {high}." if self.own_range else "")

    def _room(self, wanted: int, values: int = _FEW) -> int:
        """The number of ``wanted`` tiles that fit into a picture with ``values`` values, in whole rows if several."""
        fits = min(wanted, max(2, values // self.values))
        return fits if fits <= self.columns else fits - fits % self.columns

    def _page(self, bands: Sequence[Tensor], shown: int, layout: str, reading: str = "") -> Sheet:
        """Grids, one below the other, with gaps."""
        air, width = 5 * self.gap, max(band.shape[2] for band in bands)
        canvas = torch.cat([pad(band, (0, width - band.shape[2], 0, air), value=255) for band in bands], 1)
        scale = self.scale if self.whole else max(1, min(self.scale, WIDEST // width))
        return Sheet(to_image(canvas[:, :-air]), shown, layout, (reading + self._reading).strip(), scale)

    def _band(self, tiles: Tensor, columns: int) -> Tensor:
        """Tiles ``(N, 1 or 3, h, w)`` row by row on white, with gaps between them: ``(3, H, W)``."""
        rows = -(-len(tiles) // columns)
        cells = pad(tiles.expand(-1, 3, -1, -1), (0, self.gap, 0, self.gap), value=255)
        cells = pad(cells, (0, 0, 0, 0, 0, 0, 0, rows * columns - len(tiles)), value=255).unflatten(0, (rows, columns))
        return cells.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)[:, : -self.gap, : -self.gap]

    def examples(self, x: Tensor, beside: bool = False) -> Sheet:
        x = x[: max(1, _ALL // self.values) if self.whole else self._room(min(64, 8 * self.columns), _MANY)]
        columns = math.ceil(math.sqrt(len(x))) if self.whole else min(self.columns, len(x))
        bands, layout, reading = [self._band(self._tiles(x), columns)], self._grid(len(x), columns), ""
        if beside:
            real = self.real[:columns]
            bands.insert(0, self._band(self._tiles(real), columns))
            layout = f"a row of {len(real)} training examples above {layout}"
            reading = "The first row shows training examples. "
        return self._page(bands, len(x), layout, reading)

    def _grid(self, n: int, columns: int) -> str:
        return f"a grid of {n} {self.noun} in {columns} columns" if n > 1 else f"one of the {self.noun}"

    def sets(self, rows: Tensor, names: tuple[str, ...] = ()) -> Sheet:
        steps = rows.shape[1]
        if names:
            n = min(self._room(32) // 2, len(rows), 2 * self.columns)
            bands = [
                self._band(self._tiles(part.transpose(0, 1).flatten(0, 1)), len(part))
                for part in rows[:n].split(self.columns)
            ]
            return self._page(bands, n, f"{n} pairs of {self.noun}, {names[0]} above {names[1]}")
        rows = rows[: max(1, min(8, 2 * _FEW // (steps * self.values)))]
        band = self._band(self._tiles(rows.flatten(0, 1)), steps)
        return self._page([band], len(rows), f"{counted(len(rows), 'row')} of {steps} {self.noun}")

    def views(self, rows: Tensor) -> Sheet:
        steps = rows.shape[1]
        rows = rows[: max(1, (_ALL if self.whole else 2 * _FEW) // (steps * self.values))]
        first, others = (
            self._band(self._tiles(part.flatten(0, 1)), part.shape[1]) for part in rows.split([1, steps - 1], 1)
        )
        band = torch.cat([pad(first, (0, 4 * self.gap), value=255), others], 2)
        layout = f"{len(rows)} rows, each one of the {self.noun} and {counted(steps - 1, 'view')} of it"
        return self._page([band], len(rows), layout)

    def ranked(self, x: Tensor, words: list[str], marks: list[bool] | None = None) -> Sheet:
        n = min(self._room(24 if marks is None else 48), len(x))
        columns, tiles, frame = min(self.columns, n), self._tiles(x[:n]), max(1, self.side // 14)
        if marks is not None:
            tiles = pad(_fewer_greys(tiles).expand(-1, 3, -1, -1), (frame,) * 4, value=255)
            around = torch.ones(tiles.shape[2:], dtype=torch.bool)
            around[frame:-frame, frame:-frame] = False
            tiles = torch.where(torch.tensor(marks[:n])[:, None, None, None] & around, _ORANGE[:, None, None], tiles)
        layout = f"{self._grid(n, columns)}, row by row in this order"
        return self._page([self._band(tiles, columns)], n, layout)

    def bits(self, x: Tensor, bits: Tensor, among: Tensor, unit: str = "bits") -> Sheet:
        n = min(self._room(16, _FEW // 3), len(x))
        planes = self._planes(bits[:n].reshape(n, *self.shape))
        maps, scaled = (  # summed over colours
            self._reduced(self._planes(v.reshape(-1, *self.shape)).sum(1, keepdim=True))[:, 0]
            for v in (bits[:n], among)
        )
        shades, low, high = bit_colours(maps, scaled)
        shades[maps.isnan().numpy()] = 255
        heats = torch.from_numpy(shades).permute(0, 3, 1, 2)
        tiles = torch.stack([_fewer_greys(self._tiles(x[:n])).expand(-1, 3, -1, -1), heats], 1).flatten(0, 1)
        canvas = self._band(tiles, 2 * min(max(1, self.columns // 2), n))
        ramp = torch.from_numpy(bit_colours(torch.linspace(0, 1, canvas.shape[2]))[0]).T[:, None]
        bar = pad(ramp.expand(-1, max(2, self.side // 7), -1), (0, 0, 2 * self.gap, 0), value=255)
        each = "per value" if len(self.shape) != 3 else "per pixel"
        each += ", summed over its colours" if planes.shape[1] == 3 else ""
        reading = (
            f"One colour scale, the bar below: dark violet {number(low)}, bright yellow {number(high)} {unit} or more "
        )
        layout = f"{n} {self.noun}, each with a map of its {unit} on its right"
        return self._page([torch.cat([canvas, bar], 1)], n, layout, f"{reading}{each}.")


def _fewer_greys(tiles: Tensor) -> Tensor:
    """Grey tiles in 129 levels, if their levels and the heat map would not fit in a palette."""
    if tiles.shape[1] == 3 or len(tiles.unique()) <= 256 - HEATS:
        return tiles
    return torch.where(tiles == 255, tiles, tiles // 2 * 2)
