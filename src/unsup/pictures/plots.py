"""Pictures made by matplotlib: points of the plane, tables and real sequences, over the training data in grey."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unsup.core.event import Event
from unsup.core.model import keyed_generator
from unsup.pictures.artist import ANOMALOUS, BULK, ORDINARY, Artist, Sheet, bits_range, number, viridis
from unsup.pictures.images import coarser, new_figure, to_image

WIDTH, DPI = 5.4, 140  # inches of every plot: 756 pixels
LABEL, TICK = 11, 9  # points: 10 and 8 screen pixels on a phone
_BULK_POINTS, _POINTS = 1500, 2000


def figure_of(rows: int, columns: int, height: float) -> tuple[Any, NDArray[Any]]:
    """A figure of ``height`` inches and its axes ``(rows, columns)``."""
    figure = new_figure(WIDTH, height, dpi=DPI)
    return figure, figure.subplots(rows, columns, squeeze=False)


def finished(figure: Any) -> Image.Image:
    """The drawn figure in few colours, which makes its file three times smaller."""
    return coarser(to_image(figure))


def colour_bar(figure: Any, axes: Sequence[Any], low: float, high: float, label: str, colours: str = "viridis") -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(
        ScalarMappable(Normalize(low, high), colours), ax=list(axes), location="bottom", aspect=40, shrink=0.8
    )
    bar.set_label(label, fontsize=LABEL)
    bar.ax.tick_params(labelsize=TICK)


def array(x: Tensor) -> NDArray[np.float64]:
    return x.detach().cpu().double().flatten(1).numpy()


def robust_limits(values: NDArray[np.float64], tail: float) -> tuple[float, float]:
    """The quantiles ``tail`` and 1 − ``tail`` with a margin of 5 %; a constant has ½ around it.

    >>> robust_limits(np.array([2.0, 2.0]), 0.01)
    (1.5, 2.5)
    """
    low, high = (float(q) for q in np.quantile(values, [tail, 1 - tail]))
    if low == high:
        low, high = float(values.min()), float(values.max())
    if low == high:
        return low - 0.5, high + 0.5
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def few_ticks(axis: Any, values: Iterable[float]) -> None:
    shown = list(values)
    axis.set_ticks(shown, [number(float(f"{v:.3g}")) for v in shown])


class Plane(Artist):
    """Points ``(2,)`` as scatter plots of one frame."""

    noun = "points"

    def __init__(self, event: Event, train_x: Tensor) -> None:
        train = array(train_x)
        self.bulk = train[:_BULK_POINTS]
        self.limits = [robust_limits(train[:, d], 0.0005) for d in range(2)]

    def _axes(self, columns: int = 1, bulk: bool = True, bar: bool = False) -> tuple[Any, NDArray[Any]]:
        (left, right), (bottom, top) = self.limits
        shape = min(max((top - bottom) / (right - left), 0.4), 1.2)
        height = shape * (WIDTH / columns - 0.5) + 0.4 + (1.2 if bar else 0.0)
        figure, grid = figure_of(1, columns, height)
        for axes in grid[0]:
            if bulk:
                axes.scatter(*self.bulk.T, s=4, color=BULK, alpha=0.5, linewidths=0)
            axes.set_xlim(*self.limits[0])
            axes.set_ylim(*self.limits[1])
            axes.set_aspect("equal", adjustable="box")
            axes.tick_params(labelsize=TICK)
        return figure, grid[0]

    def _outside(self, points: NDArray[np.float64]) -> str:
        inside = np.ones(len(points), dtype=bool)
        for d, (low, high) in enumerate(self.limits):
            inside &= (points[:, d] >= low) & (points[:, d] <= high)
        out = int((~inside).sum())
        return f" {out} of {len(points):,} lie outside the frame." if out else ""

    def examples(self, x: Tensor) -> Sheet:
        points = array(x)[:_POINTS]
        figure, (axes,) = self._axes(bulk=False)
        axes.scatter(*points.T, s=6, color=ORDINARY, alpha=0.6, linewidths=0)
        layout = f"a scatter plot of {len(points):,} points"
        return Sheet(finished(figure), 1, len(points), layout, self._outside(points).strip())

    def pairs(self, first: Tensor, second: Tensor, names: tuple[str, str]) -> Sheet:
        a, b = array(first)[:60], array(second)[:60]
        figure, (axes,) = self._axes()
        axes.plot(np.stack([a[:, 0], b[:, 0]]), np.stack([a[:, 1], b[:, 1]]), color="black", lw=0.8)
        axes.scatter(*a.T, s=22, color=ORDINARY, marker="o", label=f"{names[0]}", zorder=3)
        axes.scatter(*b.T, s=22, color=ANOMALOUS, marker="x", label=f"{names[1]}", zorder=3)
        axes.legend(fontsize=TICK, loc="best")
        layout = f"{len(a)} pairs of points, a line from each of the {names[0]} (circle) to its partner (cross)"
        return Sheet(finished(figure), 1, len(a), layout, "Grey: the training data." + self._outside(b))

    def paths(self, rows: Tensor) -> Sheet:
        figure, (axes,) = self._axes()
        paths = rows[:8].detach().cpu().double().numpy()
        for path in paths:
            axes.plot(*path.T, color="black", lw=1.2)
            axes.scatter(*path.T, s=18, c=viridis(np.linspace(0, 1, len(path))) / 255, zorder=3)
            axes.scatter(*path[[0, -1]].T, s=80, facecolors="none", edgecolors="black", marker="s", zorder=4)
        layout = f"{len(paths)} paths of {rows.shape[1]} points, their ends in squares"
        return Sheet(finished(figure), 1, len(paths), layout, "Grey: the training data.")

    def ranked(self, x: Tensor, words: list[str]) -> Sheet:
        points = array(x)[:100]
        figure, (axes,) = self._axes()
        axes.scatter(*points.T, s=26, color=ANOMALOUS, marker="^", linewidths=0)
        layout = f"{len(points)} points as triangles"
        return Sheet(finished(figure), 1, len(points), layout, "Grey: the training data." + self._outside(points))

    def marked(self, x: Tensor, marks: list[bool]) -> Sheet:
        points, chosen = array(x)[:100], np.array(marks[:100], dtype=bool)
        figure, (axes,) = self._axes()
        axes.scatter(*points[~chosen].T, s=26, color=ORDINARY, marker="o", linewidths=0, label="ordinary")
        axes.scatter(*points[chosen].T, s=34, color=ANOMALOUS, marker="^", linewidths=0, label="anomaly")
        axes.legend(fontsize=TICK, loc="best")
        layout = f"a scatter plot of {len(points)} points"
        reading = "Anomalies are orange triangles, the others blue circles. Grey: the training data."
        return Sheet(finished(figure), 1, len(points), layout, reading + self._outside(points))

    def bits(self, x: Tensor, bits: Tensor) -> Sheet:
        points, found = array(x)[:_POINTS], bits[:_POINTS].double()
        low, high = bits_range(found)
        figure, grid = self._axes(2, bulk=False, bar=True)
        for d, axes in enumerate(grid):
            colours = viridis(((found[:, d] - low) / (high - low)).numpy()) / 255
            axes.scatter(*points.T, s=8, c=colours, linewidths=0)
            axes.set_title(f"bits of entry {d + 1}", fontsize=LABEL)
        colour_bar(figure, list(grid), low, high, "bits")
        reading = f"One colour scale from {number(low)} (dark violet) to {number(high)} bits (bright yellow)."
        layout = f"{len(points):,} points twice, coloured by the bits of each entry"
        return Sheet(finished(figure), 1, len(points), layout, reading)


class Lines(Artist):
    """Ordered sequences, ``(T,)`` or ``(T, C)``, as line plots of one height."""

    noun = "sequences"

    def __init__(self, event: Event, train_x: Tensor) -> None:
        self.shape = event.shape if len(event.shape) == 2 else (event.dims, 1)
        self.limits = robust_limits(array(train_x[:5000]).ravel(), 0.001)

    def _series(self, x: Tensor) -> NDArray[np.float64]:
        """``(N, T, C)``, at most 4 channels."""
        return array(x).reshape(len(x), *self.shape)[..., :4]

    def _grid(self, n: int, columns: int, *, titles: Sequence[str] = (), each: float = 1.2) -> tuple[Any, list[Any]]:
        rows = math.ceil(n / columns)
        figure, grid = figure_of(rows, columns, max(1.6, each * rows))
        for i, axes in enumerate(grid.ravel()):
            axes.set_visible(i < n)
            axes.set_ylim(*self.limits)
            axes.set_xlim(0, max(self.shape[0] - 1, 1))
            axes.tick_params(labelsize=TICK)
            few_ticks(axes.yaxis, self.limits if i % columns == 0 else ())
            few_ticks(axes.xaxis, (0, self.shape[0] - 1) if i >= n - columns else ())
            if i < len(titles):
                axes.set_title(titles[i], fontsize=LABEL)
        return figure, list(grid.ravel()[:n])

    def examples(self, x: Tensor) -> Sheet:
        series = self._series(x[:12])
        figure, grid = self._grid(len(series), 3)
        for axes, one in zip(grid, series, strict=True):
            axes.plot(one, lw=1)
        return Sheet(finished(figure), 1, len(series), f"line plots of {len(series)} sequences at one height")

    def pairs(self, first: Tensor, second: Tensor, names: tuple[str, str]) -> Sheet:
        n = min(len(first), len(second), 8)
        figure, grid = self._grid(n, 2)
        for axes, a, b in zip(grid, self._series(first[:n]), self._series(second[:n]), strict=True):
            axes.plot(a, color=BULK, lw=2.5)
            axes.plot(b, color=ORDINARY, lw=1, ls="--")
        reading = f"Wide grey lines: {names[0]}; thin dashed blue lines: {names[1]}."
        return Sheet(finished(figure), 1, n, f"{n} line plots of two sequences each", reading)

    def paths(self, rows: Tensor) -> Sheet:
        rows = rows[:4]
        figure, grid = self._grid(len(rows), 1, each=1.6)
        for axes, path in zip(grid, rows, strict=True):
            series = self._series(path)
            for step, (one, colour) in enumerate(
                zip(series, viridis(np.linspace(0, 0.95, len(series))) / 255, strict=True)
            ):
                axes.plot(one, color=tuple(colour), lw=2 if step in (0, len(series) - 1) else 0.9)
        reading = "From dark violet (first) to yellow (last); the ends are drawn wider."
        return Sheet(
            finished(figure),
            1,
            len(rows),
            f"{len(rows)} plots of {rows.shape[1]} sequences on top of each other",
            reading,
        )

    def ranked(self, x: Tensor, words: list[str]) -> Sheet:
        series = self._series(x[:12])
        figure, grid = self._grid(len(series), 3, titles=words[:12], each=1.4)
        for axes, one in zip(grid, series, strict=True):
            axes.plot(one, lw=1)
        layout = f"line plots of {len(series)} sequences, row by row in this order"
        return Sheet(finished(figure), 1, len(series), layout, "Above each: its nats.")

    def marked(self, x: Tensor, marks: list[bool]) -> Sheet:
        series = self._series(x[:24])
        words = ["▲ anomaly" if mark else "" for mark in marks[:24]]
        figure, grid = self._grid(len(series), 4, titles=words, each=1.2)
        for axes, one, mark in zip(grid, series, marks, strict=False):
            axes.plot(one, lw=1, color=ANOMALOUS if mark else ORDINARY)
            for spine in axes.spines.values() if mark else ():
                spine.set(color=ANOMALOUS, linewidth=2.5)
        layout = f"line plots of {len(series)} sequences, row by row in this order"
        reading = "Anomalies are orange, framed, and have a triangle above."
        return Sheet(finished(figure), 1, len(series), layout, reading)

    def bits(self, x: Tensor, bits: Tensor) -> Sheet:
        series, found = self._series(x[:6]), bits[:6].double().reshape(-1, *self.shape).sum(2)
        low, high = bits_range(found)
        figure, grid = self._grid(len(series), 2, each=1.4)
        figure.set_figheight(figure.get_figheight() + 0.9)
        time = np.arange(self.shape[0])
        for axes, one, cost in zip(grid, series, found.numpy(), strict=True):
            axes.plot(one, color=BULK, lw=0.8)
            colours = viridis((cost - low) / (high - low)) / 255
            for channel in one.T:
                axes.scatter(time, channel, s=6, c=colours, linewidths=0, zorder=3)
        colour_bar(figure, grid, low, high, "bits a step")
        reading = f"One colour scale from {number(low)} (dark violet) to {number(high)} bits a step (bright yellow)."
        return Sheet(
            finished(figure), 1, len(series), f"line plots of {len(series)} sequences, coloured by bits", reading
        )


def jittered(values: NDArray[np.float64], discrete: bool, key: int) -> NDArray[np.float64]:
    """Whole numbers moved by up to ±0.3, so that equal ones do not hide each other; the same at every call."""
    if not discrete:
        return values
    noise = torch.rand(values.shape, generator=keyed_generator(key), dtype=torch.float64).numpy()
    moved: NDArray[np.float64] = values + 0.6 * (noise - 0.5)
    return moved
