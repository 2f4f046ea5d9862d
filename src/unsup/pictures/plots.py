"""Pictures made by matplotlib: points of the plane, ordered sequences and sound, beside the training data in grey."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.event import Event
from unsup.core.model import keyed_generator
from unsup.pictures.artist import ANOMALOUS, BULK, ORDINARY, Artist, Sheet, array, bits_range, number, viridis
from unsup.pictures.images import coarser, new_figure, plain_label, to_image

WIDTH, DPI = 5.4, 140  # inches of every plot: 756 pixels
LABEL, TICK = 11, 9  # points: 10 and 8 screen pixels on a phone
TRAINING = "Grey: the training data."
_BULK_POINTS, _POINTS = 1500, 2000
_CHANNELS = 4  # of a sequence, that are drawn
_DECIBELS, _SILENCE = 60, 1e-12  # of a spectrogram: what it spans, and the least power


def figure_of(rows: int, columns: int, height: float) -> tuple[Any, NDArray[Any]]:
    """A figure of ``height`` inches and its axes ``(rows, columns)``."""
    figure = new_figure(WIDTH, height, dpi=DPI)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.tick_params(labelsize=TICK)
    return figure, grid


def plotted(figure: Any, shown: int, layout: str, reading: str = "") -> Sheet:
    """The drawn figure in few colours, which makes its file three times smaller."""
    return Sheet(coarser(to_image(figure)), shown, layout, reading, plot=True)


def colour_bar(figure: Any, axes: Sequence[Any], low: float, high: float, label: str, colours: str = "viridis") -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(
        ScalarMappable(Normalize(low, high), colours), ax=list(axes), location="bottom", aspect=40, shrink=0.8
    )
    bar.set_label(label, fontsize=LABEL)
    bar.ax.tick_params(labelsize=TICK)


def scale_words(low: float, high: float, unit: str) -> str:
    return f"One colour scale from {number(low)} (violet) to {number(high)} {unit} (yellow)."


def robust_limits(values: NDArray[np.float64], tail: float) -> tuple[float, float]:
    """The quantiles ``tail`` and 1 − ``tail`` with a margin of 5 %; a constant has ½ around it, NaN counts for nothing.

    >>> robust_limits(np.array([2.0, 2.0]), 0.01)
    (1.5, 2.5)
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = (float(q) for q in np.quantile(values, [tail, 1 - tail]))
    if low == high:
        low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        margin = max(0.5, 1e-6 * abs(low))
    return low - margin, high + margin


def few_ticks(axis: Any, values: Iterable[float]) -> None:
    """Ticks at ``values``, with so many digits that they differ."""
    shown = list(values)
    span, largest = (max(shown) - min(shown), max(map(abs, shown))) if shown else (0.0, 0.0)
    digits = 3 if span <= 0 or largest < 300 * span else min(15, math.ceil(math.log10(largest / span)) + 2)
    rounded = [float(f"{v:.{digits}g}") for v in shown]
    axis.set_ticks(shown, [number(v) if digits == 3 else f"{v:,.{digits}g}".replace("-", "−") for v in rounded])


def steps_of(rows: Tensor) -> Iterable[tuple[NDArray[Any], bool]]:
    """Of the steps of a path: a colour from violet to yellow for each, and whether it is an end."""
    n = rows.shape[1]
    return zip(viridis(np.linspace(0, 0.95, n)) / 255, (s in (0, n - 1) for s in range(n)), strict=True)


FROM_TO = "From violet (first) to yellow (last); the ends are drawn wider."


class Plane(Artist):
    """Points ``(2,)`` as scatter plots of one frame."""

    noun, wanted = "points", 500

    def __init__(self, event: Event, train_x: Tensor, names: Sequence[str] | None) -> None:
        train = array(train_x)
        self.bulk = train[:_BULK_POINTS]
        self.limits = [robust_limits(train[:, d], 0.0005) for d in range(2)]
        self.names = names if names is not None else ("entry 1", "entry 2")

    def _axes(self, columns: int = 1, bulk: bool = True, bar: bool = False) -> tuple[Any, NDArray[Any]]:
        (left, right), (bottom, top) = self.limits
        shape = (top - bottom) / (right - left)
        equal = 0.25 < shape < 4  # else one unit would be a line
        height = min(max(shape, 0.4), 1.2) * (WIDTH / columns - 0.5) + 0.6 + (1.2 if bar else 0.0)
        figure, grid = figure_of(1, columns, height)
        for axes in grid[0]:
            if bulk:
                axes.scatter(*self.bulk.T, s=4, color=BULK, alpha=0.5, linewidths=0)
            axes.set_xlim(*self.limits[0])
            axes.set_ylim(*self.limits[1])
            axes.set_aspect("equal" if equal else "auto", adjustable="box")
            axes.locator_params(nbins=5)
            axes.set_xlabel(plain_label(self.names[0][:30]), fontsize=LABEL)
        grid[0, 0].set_ylabel(plain_label(self.names[1][:30]), fontsize=LABEL)
        return figure, grid[0]

    def _outside(self, points: NDArray[np.float64]) -> str:
        inside = np.ones(len(points), dtype=bool)
        for d, (low, high) in enumerate(self.limits):
            inside &= (points[:, d] >= low) & (points[:, d] <= high)
        out = int((~inside).sum())
        return f" {out} of {len(points):,} lie outside the frame." if out else ""

    def examples(self, x: Tensor, real: Tensor | None = None) -> Sheet:
        points = array(x)[:_POINTS]
        figure, grid = self._axes(1 if real is None else 2, bulk=False)
        for axes, shown, colour in zip(grid[::-1], (points, self.bulk), (ORDINARY, "#777777"), strict=False):
            axes.scatter(*shown.T, s=6, color=colour, alpha=0.6, linewidths=0)
        layout = f"a scatter plot of {len(points):,} points"
        if real is not None:
            grid[0].set_title("training data", fontsize=LABEL)
            grid[1].set_title("samples", fontsize=LABEL)
            layout += f", on its left one of {len(self.bulk):,} of the training data in the same frame"
        return plotted(figure, len(points), layout, self._outside(points).strip())

    def pairs(self, first: Tensor, second: Tensor, names: tuple[str, str]) -> Sheet:
        a, b = array(first)[:60], array(second)[:60]
        figure, (axes,) = self._axes()
        axes.plot(np.stack([a[:, 0], b[:, 0]]), np.stack([a[:, 1], b[:, 1]]), color="black", lw=0.8)
        axes.scatter(*a.T, s=22, color=ORDINARY, marker="o", label=f"{names[0]}", zorder=3)
        axes.scatter(*b.T, s=22, color=ANOMALOUS, marker="x", label=f"{names[1]}", zorder=3)
        axes.legend(fontsize=TICK, loc="best")
        layout = f"{len(a)} pairs of points, a line from each of the {names[0]} (circle) to its partner (cross)"
        return plotted(figure, len(a), layout, TRAINING + self._outside(b))

    def paths(self, rows: Tensor) -> Sheet:
        figure, (axes,) = self._axes()
        paths = rows[:8].detach().cpu().double().numpy()
        for path in paths:
            axes.plot(*path.T, color="black", lw=1.2)
            axes.scatter(*path.T, s=18, c=viridis(np.linspace(0, 1, len(path))) / 255, zorder=3)
            axes.scatter(*path[[0, -1]].T, s=80, facecolors="none", edgecolors="black", marker="s", zorder=4)
        layout = f"{len(paths)} paths of {rows.shape[1]} points, their ends in squares"
        return plotted(figure, len(paths), layout, TRAINING)

    def ranked(self, x: Tensor, words: list[str]) -> Sheet:
        points = array(x)[:100]
        figure, (axes,) = self._axes()
        axes.scatter(*points.T, s=26, color=ANOMALOUS, marker="^", linewidths=0)
        return plotted(figure, len(points), f"{len(points)} points as triangles", TRAINING + self._outside(points))

    def marked(self, x: Tensor, marks: list[bool]) -> Sheet:
        points, chosen = array(x)[:100], np.array(marks[:100], dtype=bool)
        figure, (axes,) = self._axes()
        axes.scatter(*points[~chosen].T, s=26, color=ORDINARY, marker="o", linewidths=0, label="ordinary")
        axes.scatter(*points[chosen].T, s=34, color=ANOMALOUS, marker="^", linewidths=0, label="anomaly")
        axes.legend(fontsize=TICK, loc="best")
        layout = f"a scatter plot of {len(points)} points"
        reading = f"Anomalies are orange triangles, the others blue circles. {TRAINING}"
        return plotted(figure, len(points), layout, reading + self._outside(points))

    def bits(self, x: Tensor, bits: Tensor) -> Sheet:
        points, found = array(x)[:_POINTS], bits[:_POINTS].double()
        low, high = bits_range(found)
        figure, grid = self._axes(2, bulk=False, bar=True)
        for d, axes in enumerate(grid):
            colours = viridis(((found[:, d] - low) / (high - low)).numpy()) / 255
            axes.scatter(*points.T, s=8, c=colours, linewidths=0)
            axes.set_title(f"bits of {plain_label(self.names[d][:30])}", fontsize=LABEL)
        colour_bar(figure, list(grid), low, high, "bits")
        layout = f"{len(points):,} points twice, coloured by the bits of each entry"
        return plotted(figure, len(points), layout, scale_words(low, high, "bits"))


class Lines(Artist):
    """Ordered sequences, ``(T,)`` or ``(T, C)``, as line plots of one height; sound also as spectrograms.

    Args:
        event: what one example is.
        train_x: the training examples, which set the height.
        rate: samples a second, where the sequences are recordings of one channel.
        sound: whether they are.
    """

    def __init__(self, event: Event, train_x: Tensor, rate: float | None, sound: bool) -> None:
        self.shape = event.shape if len(event.shape) == 2 else (event.dims, 1)
        self.limits = robust_limits(array(train_x[:5000]).ravel(), 0.001)
        self.sound, length = sound, self.shape[0]
        self.noun, self.wanted = ("recordings", 3) if sound else ("sequences", 8)
        self.rate = 1.0 if rate is None else rate
        seconds = length / self.rate
        by, self.unit = (1.0, "step") if rate is None else (1000.0, "ms") if seconds < 2 else (1.0, "s")
        self.time = np.arange(length) * by / self.rate
        self.window = min(length, 2 ** min(max(round(math.log2(length / 8)), 5), 9))
        self.loudest = -math.inf
        if sound:
            powers = [self._decibels(one) for one in self._series(train_x[:50])[..., 0]]
            self.loudest = max((float(np.nanmax(p)) for p in powers if np.isfinite(p).any()), default=0.0)

    def _series(self, x: Tensor) -> NDArray[np.float64]:
        """``(N, T, C)``, at most 4 channels."""
        return array(x).reshape(len(x), *self.shape)[..., :_CHANNELS]

    @property
    def _note(self) -> str:
        few = f" The first {_CHANNELS} of {self.shape[1]} channels are shown, a colour each."
        return few if self.shape[1] > _CHANNELS else " Each channel has a colour." if self.shape[1] > 1 else ""

    def _dress(self, axes: Any, left: bool, below: bool) -> None:
        """Limits and ticks of a line plot; numbers only at the left and the lower edge of the picture."""
        axes.set_ylim(*self.limits)
        axes.set_xlim(0, max(self.time[-1], self.time[0] + 1e-9) if len(self.time) > 1 else 1)
        few_ticks(axes.yaxis, self.limits if left else ())
        few_ticks(axes.xaxis, (0, self.time[-1]) if below else ())
        for label, where in zip(axes.get_xticklabels(), ("left", "right"), strict=False):
            label.set_horizontalalignment(where)

    def _grid(self, n: int, columns: int, *, titles: Sequence[str] = (), each: float = 1.2) -> tuple[Any, list[Any]]:
        rows = math.ceil(n / columns)
        figure, grid = figure_of(rows, columns, max(1.6, each * rows) + 0.2)
        figure.supxlabel(f"time ({self.unit})" if self.unit != "step" else "step", fontsize=LABEL)
        for i, axes in enumerate(grid.ravel()):
            axes.set_visible(i < n)
            self._dress(axes, i % columns == 0, i >= n - columns)
            if i < len(titles):
                axes.set_title(titles[i], fontsize=LABEL)
        return figure, list(grid.ravel()[:n])

    def examples(self, x: Tensor, real: Tensor | None = None) -> Sheet:
        columns = 2 if self.sound else 3
        rows = 3 if self.sound else 4
        most = rows * (columns if real is None else columns - 1)
        series = self._series(x[:most])
        rows = -(-len(series) // (columns if real is None else columns - 1))
        panels: list[tuple[NDArray[np.float64], bool]] = [(one, False) for one in series]
        if real is not None:  # the first column
            beside = self._series(real[:rows])
            for i, one in enumerate(beside):
                panels.insert(i * columns, (one, True))
        words = [*(("training data", *["samples"] * (columns - 1)) if real is not None else ())]
        figure, grid, spectra = self._panels(len(panels), columns, words)
        for axes, (one, is_real) in zip(grid, panels, strict=True):
            if self.shape[1] == 1:
                axes.plot(self.time, one, lw=0.6 if self.sound else 1, color="#777777" if is_real else ORDINARY)
            else:
                axes.plot(self.time, one, lw=1)
        for axes, (one, _) in zip(spectra, panels, strict=False):
            self._spectrogram(axes, one[:, 0])
        kind = "waveforms, each above its spectrogram," if self.sound else "line plots"
        layout = f"{kind} of {len(series)} {self.noun} at one height"
        layout += "" if real is None else ", on their left training examples"
        return plotted(figure, len(series), layout, (self._loudness() + self._note).strip())

    def _panels(self, n: int, columns: int, titles: Sequence[str]) -> tuple[Any, list[Any], list[Any]]:
        """Axes of ``n`` line plots and, of sound, those of a spectrogram below each."""
        if not self.sound:
            return *self._grid(n, columns, titles=titles), []
        rows = -(-n // columns)
        figure, grid = figure_of(2 * rows, columns, 2 * 1.15 * rows + 0.4)
        figure.supxlabel(f"time ({self.unit})" if self.unit != "step" else "step", fontsize=LABEL)
        waves, spectra = list(grid[::2].ravel()), list(grid[1::2].ravel())
        for i, (wave, spectrum) in enumerate(zip(waves, spectra, strict=True)):
            for axes in (wave, spectrum):
                axes.set_visible(i < n)
            self._dress(wave, i % columns == 0, False)
            self._dress(spectrum, False, i >= n - columns)
            top = self.rate / 2
            spectrum.set_ylim(0, top)
            few_ticks(spectrum.yaxis, (0, top) if i % columns == 0 else ())
            if i % columns == 0:
                spectrum.set_ylabel("Hz" if self.unit != "step" else "1/step", fontsize=TICK)
                wave.set_ylabel("level", fontsize=TICK)
            if i < len(titles):
                wave.set_title(titles[i], fontsize=LABEL)
        return figure, waves[:n], spectra[:n]

    def _decibels(self, wave: NDArray[np.float64]) -> NDArray[np.float64]:
        """Power by frequency and time, ``(F, S)``; a recording is as long as its first values that are no padding."""
        from matplotlib.mlab import detrend_mean, specgram

        known = wave[~np.isnan(wave)]
        if len(known) < self.window:
            return np.full((self.window // 2 + 1, 1), -math.inf)
        overlap = 3 * self.window // 4
        power, _, _ = specgram(known / max(abs(v) for v in self.limits), self.window, 1, detrend_mean, noverlap=overlap)
        found: NDArray[np.float64] = 10 * np.log10(np.maximum(power, _SILENCE))
        return found

    def _spectrogram(self, axes: Any, wave: NDArray[np.float64]) -> None:
        found = self._decibels(wave)
        end = self.time[min(int((~np.isnan(wave)).sum()), len(self.time)) - 1] if len(wave) else 0
        extent = (0, max(end, 1e-9), 0, self.rate / 2)
        limits = {"vmin": self.loudest - _DECIBELS, "vmax": self.loudest}
        shown = np.clip(found, self.loudest - 2 * _DECIBELS, None)
        axes.imshow(
            shown, cmap="Greys", aspect="auto", origin="lower", extent=extent, interpolation="nearest", **limits
        )
        axes.set_xlim(0, max(self.time[-1], 1e-9))

    def _loudness(self) -> str:
        return f"The stronger the ink, the louder; it spans {_DECIBELS} dB." if self.sound else ""

    def pairs(self, first: Tensor, second: Tensor, names: tuple[str, str]) -> Sheet:
        n = min(len(first), len(second), 8)
        figure, grid = self._grid(n, 2)
        for axes, a, b in zip(grid, self._series(first[:n]), self._series(second[:n]), strict=True):
            axes.plot(self.time, a, color=BULK, lw=2.5)
            axes.plot(self.time, b, color=ORDINARY, lw=1, ls="--")
        reading = f"Wide grey lines: {names[0]}; thin dashed blue lines: {names[1]}."
        return plotted(figure, n, f"{n} line plots of two {self.noun} each", reading)

    def paths(self, rows: Tensor) -> Sheet:
        rows = rows[:4]
        figure, grid = self._grid(len(rows), 1, each=1.6)
        for axes, path in zip(grid, rows, strict=True):
            for one, (colour, is_end) in zip(self._series(path), steps_of(rows), strict=True):
                axes.plot(self.time, one, color=tuple(colour), lw=2 if is_end else 0.9)
        layout = f"{len(rows)} plots of {rows.shape[1]} {self.noun} on top of each other"
        return plotted(figure, len(rows), layout, FROM_TO)

    def ranked(self, x: Tensor, words: list[str]) -> Sheet:
        series = self._series(x[:12])
        figure, grid = self._grid(len(series), 3, titles=words[:12], each=1.4)
        for axes, one in zip(grid, series, strict=True):
            axes.plot(self.time, one, lw=1)
        layout = f"line plots of {len(series)} {self.noun}, row by row in this order"
        return plotted(figure, len(series), layout, "Above each: its nats." + self._note)

    def marked(self, x: Tensor, marks: list[bool]) -> Sheet:
        series = self._series(x[:24])
        words = ["▲ anomaly" if mark else "" for mark in marks[:24]]
        figure, grid = self._grid(len(series), 4, titles=words, each=1.2)
        for axes, one, mark in zip(grid, series, marks, strict=False):
            axes.plot(self.time, one, lw=1, color=ANOMALOUS if mark else ORDINARY)
            for spine in axes.spines.values() if mark else ():
                spine.set(color=ANOMALOUS, linewidth=2.5)
        layout = f"line plots of {len(series)} {self.noun}, row by row in this order"
        return plotted(figure, len(series), layout, "Anomalies are orange, framed, and have a triangle above.")

    def bits(self, x: Tensor, bits: Tensor) -> Sheet:
        series, found = self._series(x[:6]), bits[:6].double().reshape(-1, *self.shape).sum(2)
        low, high = bits_range(found)
        figure, grid = self._grid(len(series), 2, each=1.4)
        figure.set_figheight(figure.get_figheight() + 0.9)
        for axes, one, cost in zip(grid, series, found.numpy(), strict=True):
            axes.plot(self.time, one, color=BULK, lw=0.8)
            colours = viridis((cost - low) / (high - low)) / 255
            for channel in one.T:
                axes.scatter(self.time, channel, s=6, c=colours, linewidths=0, zorder=3)
        colour_bar(figure, grid, low, high, "bits a step")
        layout = f"line plots of {len(series)} {self.noun}, coloured by bits"
        return plotted(figure, len(series), layout, scale_words(low, high, "bits a step"))


def jittered(values: NDArray[np.float64], discrete: bool, key: int) -> NDArray[np.float64]:
    """Whole numbers moved by up to ±0.3, so that equal ones do not hide each other; the same at every call."""
    if not discrete:
        return values
    noise = torch.rand(values.shape, generator=keyed_generator(key), dtype=torch.float64).numpy()
    moved: NDArray[np.float64] = values + 0.6 * (noise - 0.5)
    return moved
