"""Plots: points of the plane, ordered sequences and sound, with the training data in grey."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.event import Event
from unsup.pictures.artist import ANOMALOUS, BULK, ORDINARY, Artist, Sheet, array, bits_range, number, viridis
from unsup.pictures.images import coarser, new_figure, plain_label, to_image

WIDTH, DPI = 5.4, 140  # inches of every plot: 756 pixels
LABEL, TICK = 11, 9  # points: 10 and 8 screen pixels on a phone
TRAINING = "Grey: the training data."
_BULK_POINTS, _POINTS = 1500, 2000
_CHANNELS = 4  # of a sequence, that are drawn
_DECIBELS, _SILENCE = 60, 1e-12  # of a spectrogram: range and least power
_SHORTEST = 64  # steps of a recording with a spectrogram


def figure_of(rows: int, columns: int, height: float) -> tuple[Any, NDArray[Any]]:
    """A figure of ``height`` inches and its axes ``(rows, columns)``."""
    figure = new_figure(WIDTH, height, dpi=DPI)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.tick_params(labelsize=TICK)
    return figure, grid


def panels_of(n: int, columns: int, each: float) -> tuple[Any, list[Any]]:
    """A figure and its first ``n`` axes, row by row, in rows of ``each`` inches."""
    rows = math.ceil(n / columns)
    figure, grid = figure_of(rows, columns, max(1.6, each * rows) + 0.2)
    for axes in grid.ravel()[n:]:
        axes.set_visible(False)
    return figure, list(grid.ravel()[:n])


def plotted(figure: Any, shown: int, layout: str, reading: str = "") -> Sheet:
    """The drawn figure in few colours, which makes its file three times smaller."""
    return Sheet(coarser(to_image(figure)), shown, layout, reading, plot=True)


def colour_bar(figure: Any, axes: Sequence[Any], low: float, high: float, label: str, colours: str = "viridis") -> str:
    """Draw a colour bar, and return a sentence on it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(
        ScalarMappable(Normalize(low, high), colours), ax=list(axes), location="bottom", aspect=40, shrink=0.8
    )
    bar.set_label(label, fontsize=LABEL)
    bar.ax.tick_params(labelsize=TICK)
    return f"One colour scale from {number(low)} (violet) to {number(high)} {label} (yellow)."


def robust_limits(values: NDArray[np.float64], tail: float) -> tuple[float, float]:
    """The quantiles ``tail`` and 1 − ``tail`` with a margin of 5 % (½ for a constant), ignoring NaN.

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
    """Ticks at ``values``, with enough digits to distinguish them."""
    shown = list(values)
    span, largest = (max(shown) - min(shown), max(map(abs, shown))) if shown else (0.0, 0.0)
    digits = 3 if span <= 0 or largest < 300 * span else min(15, math.ceil(math.log10(largest / span)) + 2)
    texts = [number(v) if digits == 3 else f"{v:,.{digits}g}".replace("-", "−") for v in shown]
    axis.set_ticks(shown, texts)


class Plane(Artist):
    """Points ``(2,)`` as scatter plots with the same axes."""

    noun, wanted = "points", 500

    def __init__(self, event: Event, train_x: Tensor, names: Sequence[str] | None) -> None:
        train = array(train_x)
        self.bulk = train[:_BULK_POINTS]
        self.limits = [robust_limits(train[:, d], 0.0005) for d in range(2)]
        self.names = names if names is not None else ("entry 1", "entry 2")

    def _axes(self, columns: int = 1, bulk: bool = True, bar: bool = False) -> tuple[Any, NDArray[Any]]:
        (left, right), (bottom, top) = self.limits
        shape = (top - bottom) / (right - left)
        equal = 0.25 < shape < 4  # otherwise the plot would be a line
        height = min(max(shape, 0.4), 1.2) * (WIDTH / columns - 0.5) + 0.6 + (1.2 if bar else 0.0)
        figure, grid = figure_of(1, columns, height)
        for axes in grid[0]:
            if bulk:
                axes.scatter(*self.bulk.T, s=4, color=BULK, alpha=0.5, linewidths=0)
            axes.set(xlim=self.limits[0], ylim=self.limits[1])
            axes.set_aspect("equal" if equal else "auto", adjustable="box")
            axes.locator_params(nbins=5)
            axes.set_xlabel(plain_label(self.names[0][:30]), fontsize=LABEL)
        grid[0, 0].set_ylabel(plain_label(self.names[1][:30]), fontsize=LABEL)
        return figure, grid[0]

    def _outside(self, points: NDArray[np.float64]) -> str:
        low, high = np.array(self.limits).T
        out = int(((points < low) | (points > high)).any(1).sum())
        return f" {out} of {len(points):,} are outside the frame." if out else ""

    def examples(self, x: Tensor, real: Tensor | None = None) -> Sheet:
        points = array(x)[:_POINTS]
        figure, grid = self._axes(1 if real is None else 2, bulk=False)
        for axes, shown, colour in zip(grid[::-1], (points, self.bulk), (ORDINARY, "#777777"), strict=False):
            axes.scatter(*shown.T, s=min(max(3000 / len(shown), 6), 30), color=colour, alpha=0.6, linewidths=0)
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

    def ranked(self, x: Tensor, words: list[str], marks: list[bool] | None = None) -> Sheet:
        points = array(x)[:100]
        chosen = np.ones(len(points), dtype=bool) if marks is None else np.array(marks[:100], dtype=bool)
        figure, (axes,) = self._axes()
        axes.scatter(*points[~chosen].T, s=26, color=ORDINARY, marker="o", linewidths=0, label="ordinary")
        axes.scatter(*points[chosen].T, s=34, color=ANOMALOUS, marker="^", linewidths=0, label="anomaly")
        said, layout = "", f"{len(points)} points as triangles"
        if marks is not None:
            axes.legend(fontsize=TICK, loc="best")
            layout = f"a scatter plot of {len(points)} points"
            said = "Anomalies are orange triangles, the others blue circles. "
        return plotted(figure, len(points), layout, said + TRAINING + self._outside(points))

    def bits(self, x: Tensor, bits: Tensor) -> Sheet:
        points, found = array(x)[:_POINTS], bits[:_POINTS].double()
        low, high = bits_range(found)
        figure, grid = self._axes(2, bulk=False, bar=True)
        for d, axes in enumerate(grid):
            colours = viridis(((found[:, d] - low) / (high - low)).numpy()) / 255
            axes.scatter(*points.T, s=8, c=colours, linewidths=0)
            axes.set_title(f"bits of {plain_label(self.names[d][:30])}", fontsize=LABEL)
        said = colour_bar(figure, list(grid), low, high, "bits")
        layout = f"{len(points):,} points twice, coloured by the bits of each entry"
        return plotted(figure, len(points), layout, said)


class Lines(Artist):
    """Ordered sequences, ``(T,)`` or ``(T, C)``, as line plots with the same axes; sound also as spectrograms."""

    def __init__(self, event: Event, train_x: Tensor, rate: float | None, sound: bool) -> None:
        from matplotlib.mlab import specgram

        self.shape = event.shape if len(event.shape) == 2 else (event.dims, 1)
        self.limits = robust_limits(array(train_x[:5000]).ravel(), 0.001)
        length, self.rate = self.shape[0], 1.0 if rate is None else rate
        self.sound = sound and length >= _SHORTEST
        self.noun, self.wanted = ("recordings", 3) if sound else ("sequences", 8)
        by, self.unit = (1, "step") if rate is None else (1000, "ms") if length < 2 * rate else (1, "s")
        self.time = np.arange(length) * by / self.rate
        self.window = 2 ** min(max(round(math.log2(length / 8)), 5), 9)
        if self.sound:
            self.spectrum: dict[str, Any] = {"NFFT": self.window, "noverlap": 3 * self.window // 4, "detrend": "mean"}
            heard = np.nan_to_num(self._series(train_x[:100]).ravel())
            power = np.asarray(specgram(heard, Fs=self.rate, **self.spectrum)[0])
            self.loudest = 10 * math.log10(max(float(power.max()), _SILENCE))

    def _series(self, x: Tensor) -> NDArray[np.float64]:
        """``(N, T, C)``, at most 4 channels."""
        return array(x).reshape(len(x), *self.shape)[..., :_CHANNELS]

    @property
    def _note(self) -> str:
        few = f" The first {_CHANNELS} of {self.shape[1]} channels are shown, each in a colour."
        return few if self.shape[1] > _CHANNELS else " Each channel has a colour." if self.shape[1] > 1 else ""

    def _grid(
        self, n: int, columns: int, *, titles: Sequence[str] = (), each: float = 1.2, spectra: bool = False
    ) -> tuple[Any, list[Any]]:
        """Axes of ``n`` line plots, and with ``spectra`` another one below each."""
        levels = 2 if spectra else 1
        rows = levels * math.ceil(n / columns)
        figure, grid = figure_of(rows, columns, max(1.6, each * rows) + 0.2)
        figure.supxlabel("step" if self.unit == "step" else f"time ({self.unit})", fontsize=LABEL)
        waves, below = grid[::levels].ravel(), grid[1::levels].ravel() if spectra else ()
        for i, axes in enumerate((*waves, *below)):
            place, is_wave = i % len(waves), i < len(waves)
            left, last = place % columns == 0, place >= n - columns and (not spectra or not is_wave)
            axes.set_visible(place < n)
            limits = self.limits if is_wave else (0, self.rate / 2)
            axes.set(ylim=limits, xlim=(0, max(self.time[-1], 1e-9)))
            few_ticks(axes.yaxis, limits if left else ())
            few_ticks(axes.xaxis, dict.fromkeys((0, self.time[-1])) if last else ())
            for label, where in zip(axes.get_xticklabels(), ("left", "right"), strict=False):
                label.set_horizontalalignment(where)
            if spectra and left:
                axes.set_ylabel("level" if is_wave else "1/step" if self.unit == "step" else "Hz", fontsize=TICK)
            if i < len(titles):
                axes.set_title(titles[i], fontsize=LABEL)
        return figure, [*waves[:n], *below[:n]]

    def examples(self, x: Tensor, real: Tensor | None = None) -> Sheet:
        rows, columns = (3, 2) if self.sound else (4, 3)
        across = columns if real is None else columns - 1  # the first column is for real examples
        beside = self._series((x if real is None else real)[:rows])
        series = self._series(x[: (rows if real is None else len(beside)) * across])
        panels = [(one, False) for one in series]
        for i, one in enumerate(beside[: math.ceil(len(series) / across)] if real is not None else ()):
            panels.insert(i * columns, (one, True))
        titles = [] if real is None else ["training data", *["samples"] * across]
        figure, grid = self._grid(len(panels), columns, titles=titles, spectra=self.sound)
        for axes, (one, is_real) in zip(grid, panels, strict=False):
            style = {"color": "#777777" if is_real else ORDINARY} if self.shape[1] == 1 else {}
            axes.plot(self.time, one, lw=0.6 if self.sound else 1, **style)
        for axes, (one, _) in zip(grid[len(panels) :], panels, strict=False):
            self._spectrogram(axes, one[:, 0])
        kind = "waveforms, each above its spectrogram," if self.sound else "line plots"
        layout = f"{kind} of {len(series)} {self.noun} with the same axes"
        layout += "" if real is None else ", on their left training examples"
        loudness = f"Darker is louder; the range is {_DECIBELS} dB." if self.sound else ""
        return plotted(figure, len(series), layout, (loudness + self._note).strip())

    def _spectrogram(self, axes: Any, wave: NDArray[np.float64]) -> None:
        """Of a recording without padding; power in decibels, black for the loudest of the training data."""
        known, limits = wave[~np.isnan(wave)], (axes.get_xlim(), axes.get_ylim())
        if len(known) > self.window:
            with np.errstate(divide="ignore"):  # of silence
                ends = {
                    "xextent": (0, self.time[len(known) - 1]),
                    "vmin": self.loudest - _DECIBELS,
                    "vmax": self.loudest,
                }
                axes.specgram(known, Fs=self.rate, cmap="Greys", **self.spectrum, **ends)
        axes.set(xlim=limits[0], ylim=limits[1])

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
            colours = viridis(np.linspace(0, 0.95, len(path))) / 255
            for step, (one, colour) in enumerate(zip(self._series(path), colours, strict=True)):
                axes.plot(self.time, one, color=tuple(colour), lw=2 if step in (0, len(path) - 1) else 0.9)
        layout = f"{len(rows)} plots of {rows.shape[1]} {self.noun} on top of each other"
        return plotted(figure, len(rows), layout, "From violet (first) to yellow (last); the ends are wider.")

    def ranked(self, x: Tensor, words: list[str], marks: list[bool] | None = None) -> Sheet:
        series = self._series(x[: 12 if marks is None else 24])
        titles = words if marks is None else ["▲ anomaly" if mark else "" for mark in marks]
        figure, grid = self._grid(len(series), 3 if marks is None else 4, titles=titles[: len(series)], each=1.4)
        for i, (axes, one) in enumerate(zip(grid, series, strict=True)):
            mark = marks is not None and marks[i]
            style = {"color": ANOMALOUS if mark else ORDINARY} if marks is not None or self.shape[1] == 1 else {}
            axes.plot(self.time, one, lw=1, **style)
            for spine in axes.spines.values() if mark else ():
                spine.set(color=ANOMALOUS, linewidth=2.5)
        layout = f"line plots of {len(series)} {self.noun}, row by row in this order"
        said = "Anomalies are orange, framed, and have a triangle above."
        return plotted(figure, len(series), layout, said if marks is not None else "Above each: its nats." + self._note)

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
        said = colour_bar(figure, grid, low, high, "bits per step")
        layout = f"line plots of {len(series)} {self.noun}, coloured by bits"
        return plotted(figure, len(series), layout, said)


def jittered(values: NDArray[np.float64], discrete: bool, key: int) -> NDArray[np.float64]:
    """Whole numbers with a fixed offset of up to ±0.3, so that equal ones are visible."""
    return values + np.random.default_rng(key).uniform(-0.3, 0.3, len(values)) if discrete else values
