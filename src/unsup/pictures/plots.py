"""Plots: points of the plane, ordered sequences and sound, next to the training data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unsup.core.escapes import visible
from unsup.core.event import Event
from unsup.core.words import counted
from unsup.pictures.artist import ANOMALOUS, BULK, ORDINARY, Artist, Sheet, array, bit_colours, colours, number
from unsup.pictures.images import coarser

STYLE: Any = {"figure.dpi": 140, "figure.constrained_layout.use": True, "text.parse_math": False, "legend.fontsize": 9}
STYLE |= dict.fromkeys(("axes.labelsize", "axes.titlesize", "figure.labelsize"), 11)  # points: 10 pixels on a phone
STYLE |= dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 9)
"""Settings of matplotlib for all plots."""
_WIDTH = 5.4  # inches of every plot: 756 pixels
_TRAINING = "Grey: the training data."
_BULK_POINTS, _POINTS = 1500, 2000
_CHANNELS = 4  # of a sequence, that are drawn
_DECIBELS, _SILENCE = 60, 1e-12  # of a spectrogram: range and least power
_SHORTEST = 64  # steps of a recording with a spectrogram

Numbers = NDArray[np.float64]
_Line = tuple[Numbers, dict[str, Any]]
"""A sequence ``(T, C)`` and the style of its lines."""


def figure_of(height: float) -> Any:
    """A matplotlib figure of ``height`` inches, without the global state of pyplot."""
    from matplotlib.figure import Figure  # slow to import, and only pictures need it

    return Figure(figsize=(_WIDTH, height))


def panels(n: int, columns: int, each: float) -> tuple[Any, list[Any]]:
    """A figure and its first ``n`` axes, row by row, in rows of ``each`` inches."""
    rows = math.ceil(n / columns)
    figure = figure_of(max(1.6, each * rows) + 0.2)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[n:]:
        axes.set_visible(False)
    return figure, list(grid[:n])


def plotted(figure: Any, shown: int, layout: str, reading: str = "") -> Sheet:
    """The drawn figure in few colours, which makes its file three times smaller."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # letters that the font does not have are boxes
        canvas.draw()
    return Sheet(coarser(Image.fromarray(np.asarray(canvas.buffer_rgba()))), shown, layout, reading, plot=True)


def colour_bar(figure: Any, axes: Sequence[Any], ends: Sequence[float], label: str, name: str = "viridis") -> str:
    """Draw a colour bar, and return a sentence on it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(ends[0], ends[1]), name)
    figure.colorbar(scale, ax=list(axes), location="bottom", aspect=40, shrink=0.8, label=label)
    return f"One colour scale from {number(ends[0])} to {number(ends[1])} {label}."


def robust_limits(values: Numbers, tail: float) -> tuple[float, float]:
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
    constant = high - low <= 1e-12 * max(abs(low), abs(high))
    margin = max(0.5, 1e-6 * abs(low)) if constant else 0.05 * (high - low)
    return low - margin, high + margin


def few_ticks(axis: Any, values: Iterable[float], inside: bool = False) -> None:
    """Ticks at ``values``, with enough digits to distinguish them; ``inside`` keeps two labels within the axis."""
    shown = list(values)
    span, largest = (max(shown) - min(shown), max(map(abs, shown))) if shown else (0.0, 0.0)
    digits = 3 if span <= 0 or largest < 300 * span else min(15, math.ceil(math.log10(largest / span)) + 2)
    axis.set_ticks(shown, [number(v) if digits == 3 else f"{v:,.{digits}g}".replace("-", "−") for v in shown])
    for label, where in zip(axis.get_ticklabels(), ("left", "right") if inside else (), strict=False):
        label.set_horizontalalignment(where if len(shown) > 1 else "center")


class Plane(Artist):
    """Points ``(2,)`` as scatter plots with the same axes, over the training data."""

    wanted = 500

    def __init__(self, event: Event, train_x: Tensor, names: Sequence[str] | None) -> None:
        train = array(train_x)
        self.bulk = train[:_BULK_POINTS]
        self.limits = [robust_limits(train[:, d], 0.0005) for d in range(2)]
        self.names = [visible(name[:30]) for name in names or ("entry 1", "entry 2")]

    def _axes(self, columns: int = 1) -> tuple[Any, list[Any]]:
        """Axes with the training data; two are for bits, with space for their scale."""
        (left, right), (bottom, top) = self.limits
        shape = (top - bottom) / (right - left)
        bar = 1.2 if columns > 1 else 0.0
        figure, grid = panels(columns, columns, min(max(shape, 0.4), 1.2) * (_WIDTH / columns - 0.5) + 0.4 + bar)
        for axes in grid:
            axes.scatter(*self.bulk.T, s=4, color=BULK, alpha=0.5, linewidths=0)
            axes.set(xlim=self.limits[0], ylim=self.limits[1], xlabel=self.names[0])
            if 0.25 < shape < 4:  # otherwise the plot would be a line
                axes.set_aspect("equal")
            axes.locator_params(nbins=5)
        grid[0].set_ylabel(self.names[1])
        return figure, grid

    def _outside(self, points: Numbers) -> str:
        low, high = np.array(self.limits).T
        out = int(((points < low) | (points > high)).any(1).sum())
        return f"{_TRAINING} {out} of {len(points):,} are outside the frame." if out else _TRAINING

    def examples(self, x: Tensor, beside: bool = False) -> Sheet:
        points = array(x)[:_POINTS]
        figure, (axes,) = self._axes()
        axes.scatter(*points.T, s=min(max(3000 / len(points), 6), 30), color=ORDINARY, alpha=0.6, linewidths=0)
        return plotted(figure, len(points), f"a scatter plot of {len(points):,} points", self._outside(points))

    def sets(self, rows: Tensor, names: tuple[str, ...] = ()) -> Sheet:
        paths = array(rows[: 60 if names else 8], 2)
        n, steps = paths.shape[:2]
        figure, (axes,) = self._axes()
        axes.plot(*paths.T, color="black", lw=1)
        shades = (ORDINARY, ANOMALOUS) if names else colours("viridis", np.linspace(0, 1, steps)) / 255
        for step, shade in enumerate(shades):
            marker = "ox"[step] if names else "s" if step in (0, steps - 1) else "o"
            label = names[step] if names else None
            axes.scatter(*paths[:, step].T, s=22, color=shade, marker=marker, label=label, zorder=3)
        layout = f"{n} paths of {steps} points, their ends in squares"
        if names:
            axes.legend()
            layout = f"{n} pairs of points, a line from each of the {names[0]} (circle) to its partner (cross)"
        return plotted(figure, n, layout, self._outside(paths[:, -1]))

    def ranked(self, x: Tensor, words: list[str], marks: list[bool] | None = None) -> Sheet:
        points = array(x)[:100]
        chosen = np.array(marks[:100]) if marks is not None else np.ones(len(points), dtype=bool)
        figure, (axes,) = self._axes()
        axes.scatter(*points[~chosen].T, s=26, color=ORDINARY, linewidths=0, label="ordinary")
        axes.scatter(*points[chosen].T, s=34, color=ANOMALOUS, marker="^", linewidths=0, label="anomaly")
        layout = f"a scatter plot of {len(points)} points, {'anomalies' if marks is not None else 'all'} as triangles"
        if marks is not None:
            axes.legend()
        return plotted(figure, len(points), layout, self._outside(points))

    def bits(self, x: Tensor, bits: Tensor, among: Tensor, unit: str = "bits") -> Sheet:
        points = array(x)[:_POINTS]
        shades, *ends = bit_colours(bits[:_POINTS], among)
        figure, grid = self._axes(2)
        for d, axes in enumerate(grid):
            axes.scatter(*points.T, s=8, c=shades[:, d] / 255, linewidths=0)
            axes.set_title(f"{unit} of {self.names[d]}")
        reading = colour_bar(figure, grid, ends, unit)
        layout = f"{len(points):,} points twice, coloured by the {unit} of each entry"
        return plotted(figure, len(points), layout, reading)


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
        window = 2 ** min(max(round(math.log2(length / 8)), 5), 9)
        self.spectrum: Any = {"NFFT": window, "noverlap": 3 * window // 4, "detrend": "mean", "Fs": self.rate}
        self.real = self._series(train_x[:100])
        if self.sound:
            power = np.asarray(specgram(np.nan_to_num(self.real.ravel()), **self.spectrum)[0])
            self.loudest = 10 * math.log10(max(float(power.max()), _SILENCE))

    def _series(self, x: Tensor) -> Numbers:
        """``(N, T, C)``, at most 4 channels."""
        return array(x).reshape(len(x), *self.shape)[..., :_CHANNELS]

    def _style(self, colour: str) -> dict[str, Any]:
        """A line in ``colour``; several channels keep a colour each."""
        return {"color": colour} if self.shape[1] == 1 else {}

    @property
    def _note(self) -> str:
        few = f" The first {_CHANNELS} of {self.shape[1]} channels are shown, each in a colour."
        return few if self.shape[1] > _CHANNELS else " Each channel has a colour." if self.shape[1] > 1 else ""

    def _draw(
        self, lines: Sequence[Sequence[_Line]], columns: int, titles: Sequence[str] = (), spectra: bool = False
    ) -> tuple[Any, list[Any]]:
        """A panel of lines with their styles for each of ``lines``, with ``spectra`` above the first's spectrogram."""
        rows, levels = math.ceil(len(lines) / columns), 1 + spectra
        figure, grid = panels(levels * rows * columns, columns, 1.6 if columns == 1 else 1.3)
        figure.supxlabel("step" if self.unit == "step" else f"time ({self.unit})")
        cells = np.array(grid).reshape(rows, levels, columns).swapaxes(0, 1).reshape(levels, -1)
        for (level, place), axes in np.ndenumerate(cells):
            left, last = place % columns == 0, place >= len(lines) - columns and level == spectra
            axes.set_visible(place < len(lines))
            for one, style in lines[place] if place < len(lines) else ():
                if level:
                    self._spectrogram(axes, one[:, 0])
                else:
                    axes.plot(self.time, one, **style)
            limits = (0, self.rate / 2) if level else self.limits
            axes.set(ylim=limits, xlim=(0, max(self.time[-1], 1e-9)))
            few_ticks(axes.yaxis, limits if left else ())
            few_ticks(axes.xaxis, dict.fromkeys((0, self.time[-1])) if last else (), inside=True)
            if spectra and left:
                axes.set_ylabel("level" if not level else "1/step" if self.unit == "step" else "Hz", fontsize="small")
        for axes, title in zip(cells[0], titles, strict=False):
            axes.set_title(title)
        return figure, list(cells[0][: len(lines)])

    def _spectrogram(self, axes: Any, wave: Numbers) -> None:
        """Of a recording without padding; power in decibels, black for the loudest of the training data."""
        known = wave[~np.isnan(wave)]
        if len(known) > self.spectrum["NFFT"]:
            ends = {"vmin": self.loudest - _DECIBELS, "vmax": self.loudest, "xextent": (0, self.time[len(known) - 1])}
            with np.errstate(divide="ignore"):  # of silence
                axes.specgram(known, cmap="Greys", **self.spectrum, **ends)

    def examples(self, x: Tensor, beside: bool = False) -> Sheet:
        rows, columns, width = (3, 2, 0.6) if self.sound else (4, 3, 1.0)
        across = columns - beside  # the first column is for real examples
        series = self._series(x[: (min(rows, len(self.real)) if beside else rows) * across])
        own, real = ({"lw": width} | self._style(colour) for colour in (ORDINARY, "#777777"))
        lines = []
        for i, one in enumerate(series):
            lines += [[(self.real[i // across], real)]] if beside and i % across == 0 else []
            lines.append([(one, own)])
        titles = ["training data", *["samples"] * across] if beside else []
        figure, _ = self._draw(lines, columns, titles, self.sound)
        kind = "waveforms, each above its spectrogram," if self.sound else "line plots"
        layout = f"{kind} of {len(series)} {self.noun} with the same axes"
        layout += ", on their left training examples" if beside else ""
        loudness = f"More contrast to the background is louder; the range is {_DECIBELS} dB." if self.sound else ""
        return plotted(figure, len(series), layout, (loudness + self._note).strip())

    def sets(self, rows: Tensor, names: tuple[str, ...] = ()) -> Sheet:
        n, steps = min(len(rows), 8 if names else 4), rows.shape[1]
        shades = colours("viridis", np.linspace(0, 0.95, steps)) / 255
        styles: list[dict[str, Any]] = [
            {"color": tuple(shade), "lw": 2 if step in (0, steps - 1) else 0.9} for step, shade in enumerate(shades)
        ]
        layout = f"{n} plots of {steps} {self.noun} on top of each other"
        reading = "The first and the last are wide; the colour changes from one to the other."
        if names:
            styles = [{"color": BULK, "lw": 2.5}, {"color": ORDINARY, "lw": 1, "ls": "--"}]
            layout = f"{n} line plots of two {self.noun} each"
            reading = f"Wide lines: {names[0]}; thin dashed lines: {names[1]}."
        lines = [list(zip(self._series(row), styles, strict=True)) for row in rows[:n]]
        figure, _ = self._draw(lines, 2 if names else 1)
        return plotted(figure, n, layout, reading)

    def views(self, rows: Tensor) -> Sheet:
        n, steps = min(len(rows), 8), rows.shape[1]
        styles = [{"lw": 0.7} | self._style("#777777" if step == 0 else ORDINARY) for step in range(steps)]
        lines = [
            [(one, style)] for row in rows[:n, :steps] for one, style in zip(self._series(row), styles, strict=True)
        ]
        figure, _ = self._draw(lines, steps, ["original", *(f"view {step}" for step in range(1, steps))])
        layout = f"{n} rows of line plots with the same axes, each one of the {self.noun}"
        layout += f" and {counted(steps - 1, 'view')} of it"
        return plotted(figure, n, layout, self._note.strip())

    def ranked(self, x: Tensor, words: list[str], marks: list[bool] | None = None) -> Sheet:
        series = self._series(x[: 12 if marks is None else 24])
        lines, marked = [], marks or [False] * len(series)
        for one, mark in zip(series, marked, strict=False):
            style = self._style(ORDINARY) if marks is None else {"color": ANOMALOUS if mark else ORDINARY}
            lines.append([(one, {"lw": 1} | style)])
        figure, grid = self._draw(lines, 3 if marks is None else 4, words)
        for axes in (axes for axes, mark in zip(grid, marked, strict=False) if mark):
            axes.spines[:].set(color=ANOMALOUS, linewidth=2.5)
        layout = f"line plots of {len(series)} {self.noun}, row by row in this order"
        return plotted(figure, len(series), layout, self._note.strip())

    def bits(self, x: Tensor, bits: Tensor, among: Tensor, unit: str = "bits") -> Sheet:
        series = self._series(x[:6])
        shades, *ends = bit_colours(*(v.double().reshape(-1, *self.shape).sum(2) for v in (bits[:6], among)))
        figure, grid = self._draw([[(one, {"color": BULK, "lw": 0.8})] for one in series], 2)
        figure.set_figheight(figure.get_figheight() + 0.9)
        for axes, one, shade in zip(grid, series, shades / 255, strict=True):
            for channel in one.T:
                axes.scatter(self.time, channel, s=6, c=shade, linewidths=0, zorder=3)
        reading = colour_bar(figure, grid, ends, f"{unit} per step")
        return plotted(figure, len(series), f"line plots of {len(series)} {self.noun}, coloured by {unit}", reading)
