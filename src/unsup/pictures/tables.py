"""Pictures of tables: marginals, pairs of columns, heat maps of rows, bits per column; one column; binary vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import entr, rel_entr
from torch import Tensor

from unsup.core.escapes import visible
from unsup.core.event import Event
from unsup.pictures.artist import ANOMALOUS, BULK, ORDINARY, Artist, Sheet, array, number
from unsup.pictures.images import new_figure, plain_label
from unsup.pictures.plots import (
    DPI,
    LABEL,
    TICK,
    WIDTH,
    colour_bar,
    few_ticks,
    figure_of,
    jittered,
    panels_of,
    plotted,
    robust_limits,
)

_MOST_COLUMNS, _MOST_PAIRS, _MOST_AXES, _MOST_BARS = 8, 3, 12, 24
_ROWS, _BINS, _GROUPS, _COMPARED = 2000, 24, 8, 256
_CLASSES, _STRIPES = 30, 24  # bars of one column of classes; rows of a binary table that are drawn
_ACROSS = 3
_LEAST_SHARED = 1e-6  # nats; below it is rounding
_TRAIN, _THESE = "training data", "these rows"
_BLUE = "Blue: these rows; outline and grey: the training data."
_COLOURS = "Blue cells: lower than most of the training data; red: higher; no colour: the middle."
_BEYOND = "Heights are shares of rows; values beyond the frame are in the outermost bins."


class Table(Artist):
    """Rows of columns, ``(D,)`` or any shape flattened.

    The columns with the most mutual information with another column of the training data are shown, constant ones last.
    """

    noun, wanted = "rows", 500

    def __init__(self, event: Event, train_x: Tensor, names: Sequence[str] | None) -> None:
        self.train = array(train_x)
        self.discrete = [s.is_discrete for s in event.columns]
        self.kinds = {s.kind for s in event.columns}
        unnamed = [f"column {d + 1}" for d in range(event.dims)] if event.dims > 1 else ["value"]
        self.names = unnamed if names is None else list(names)
        self.limits = [self._column_limits(d) for d in range(event.dims)]
        self.sorted = np.sort(self.train, 0)
        information = mutual_information(self.train[:_ROWS])
        strength = information.max(1, initial=0.0) - (np.ptp(self.train[:_ROWS], 0) == 0)  # constant columns last
        self.order = [int(d) for d in np.argsort(-strength, kind="stable")]
        self.pairs_shown = strongest_pairs(information, _MOST_PAIRS)

    def _column_limits(self, d: int) -> tuple[float, float]:
        column = self.train[:, d]
        if self.discrete[d] and np.ptp(column) < 2 * _BINS:
            return float(column.min()) - 0.5, float(column.max()) + 0.5
        return robust_limits(column, 0.005)

    def _edges(self, d: int, bins: int = _BINS) -> NDArray[np.float64]:
        low, high = self.limits[d]
        whole = self.discrete[d] and high - low <= 2 * _BINS
        return np.linspace(low, high, int(high - low) + 1 if whole else bins + 1)

    def _of_all(self, shown: int) -> str:
        few = shown < len(self.names)
        return f"the {shown} most informative of {len(self.names)} columns" if few else f"all {shown} columns"

    def _name(self, d: int, most: int = 15) -> str:
        name = visible(self.names[d])
        return plain_label(name if len(name) <= most else name[: most - 1] + "…")

    def examples(self, x: Tensor, real: Tensor | None = None) -> Sheet:
        rows, columns, pairs = array(x), sorted(self.order[:_MOST_COLUMNS]), self.pairs_shown
        if len(self.names) == 1:
            return self._one_column(rows[:, 0])
        if self.kinds == {"binary"} and len(self.names) > _MOST_COLUMNS:
            return self._binary(rows)
        figure, grid = panels_of(len(columns) + len(pairs), _ACROSS, 1.5)
        for axes, d in zip(grid, columns, strict=False):
            self._histogram(axes, rows[:, d], d)
        for axes, (a, b) in zip(grid[len(columns) :], pairs, strict=True):
            self._pair(axes, rows[:500], a, b)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=LABEL - 1)
        layout = f"histograms of {self._of_all(len(columns))}"
        layout += f" and scatter plots of pairs that depend on each other ({len(pairs)})" if pairs else ""
        return plotted(figure, len(rows), layout, f"{_BLUE} {_BEYOND}")

    def _one_column(self, values: NDArray[np.float64]) -> Sheet:
        """A single column: a histogram, or a bar for each class or level."""
        figure, grid = figure_of(1, 1, 3.0)
        axes, train, nominal = grid[0, 0], self.train[:, 0], "nominal" in self.kinds
        levels, counts = np.unique(train, return_counts=True)
        layout, reading = "a histogram of one column", f"{_BLUE} {_BEYOND}"
        if self.discrete[0] and (nominal or len(levels) <= _CLASSES):
            kept = np.sort(levels[np.argsort(-counts, kind="stable")[:_CLASSES]])
            places = np.arange(len(kept))
            for rows, shift, colour, word in ((train, -0.2, BULK, _TRAIN), (values, 0.2, ORDINARY, _THESE)):
                axes.bar(places + shift, (rows[:, None] == kept).mean(0), 0.4, color=colour, label=word)
            axes.set_xticks(places, [number(v) for v in kept], rotation=90 if len(kept) > 12 else 0)
            few = f"the {len(kept)} most frequent of {len(levels)}" if len(kept) < len(levels) else f"{len(kept)}"
            layout = f"a bar chart of the shares of {few} {'classes' if nominal else 'levels'}"
            other = float((~np.isin(values, kept)).mean())
            reading = f"{_BLUE}{f' {other:.1%} of these rows have no bar.' if other else ''}"
        else:
            edges = self._edges(0, 2 * _BINS)
            _stairs(axes, _counts(values, edges), _counts(train, edges), edges)
        axes.set_xlabel(self._name(0, 40), fontsize=LABEL)
        axes.set_ylabel("share of rows", fontsize=LABEL)
        axes.legend(fontsize=TICK)
        return plotted(figure, len(values), layout, reading)

    def _binary(self, rows: NDArray[np.float64]) -> Sheet:
        """Binary columns: the share of ones in each, and some rows as stripes."""
        figure = new_figure(WIDTH, 4.4, dpi=DPI)
        places = figure.subplot_mosaic([["share", "share"], ["data", "rows"]])
        share, edges = places["share"], np.arange(len(self.names) + 1) + 0.5
        _stairs(share, rows.mean(0), self.train.mean(0), edges)
        share.set_ylim(0, 1.25)
        share.set_ylabel("share of ones", fontsize=LABEL)
        share.legend(fontsize=TICK, ncols=2, loc="upper right")
        few_ticks(share.yaxis, (0, 1))
        for name, shown, title in (("data", self.train, _TRAIN), ("rows", rows, _THESE)):
            stripes = shown[:_STRIPES]
            places[name].pcolormesh(edges, np.arange(len(stripes) + 1), stripes, cmap="Greys", vmin=0, vmax=1)
            places[name].set_title(title, fontsize=LABEL)
            few_ticks(places[name].yaxis, ())
        for axes in places.values():
            axes.set_xlabel("column", fontsize=LABEL)
            axes.tick_params(labelsize=TICK)
        layout = f"the share of ones in each of {len(self.names)} columns, and some rows as stripes"
        return plotted(figure, len(rows), layout, f"{_BLUE} In the stripes, black is 1.")

    def _histogram(self, axes: Any, values: NDArray[np.float64], d: int) -> None:
        edges = self._edges(d)
        train = _counts(self.train[:, d], edges)
        _stairs(axes, _counts(values, edges), train, edges)
        axes.set_ylim(0, 1.4 * train.max())
        self._label(axes, d)

    def _label(self, axes: Any, d: int) -> None:
        """The name of a column as the title, and ticks at its ends."""
        axes.set_title(self._name(d), fontsize=LABEL - 1, pad=3)
        few_ticks(axes.yaxis, ())
        low, high = self.limits[d]
        inside = self.sorted[(self.sorted[:, d] >= low) & (self.sorted[:, d] <= high), d]
        few_ticks(axes.xaxis, dict.fromkeys((float(inside[0]), float(inside[-1]))))
        ends = ("left", "right") if inside[0] < inside[-1] and not self.discrete[d] else ("center", "center")
        for label, where in zip(axes.get_xticklabels(), ends, strict=False):
            label.set_horizontalalignment(where)

    def _pair(self, axes: Any, rows: NDArray[np.float64], a: int, b: int) -> None:
        for values, colour, size in ((self.train[:500], BULK, 7), (rows, ORDINARY, 5)):
            x, y = (jittered(values[:, d], self.discrete[d], d) for d in (a, b))
            axes.scatter(x, y, s=size, color=colour, alpha=0.6, linewidths=0)
        axes.set(xlim=self.limits[a], ylim=self.limits[b], xticks=(), yticks=())
        axes.set_xlabel(self._name(a), fontsize=LABEL - 1, labelpad=1)
        axes.set_ylabel(self._name(b, 13), fontsize=LABEL - 1, labelpad=1)

    def pairs(self, first: Tensor, second: Tensor, names: tuple[str, str]) -> Sheet:
        a, b, columns = array(first)[:500], array(second)[:500], sorted(self.order[:9])
        figure, grid = panels_of(len(columns), _ACROSS, 1.7)
        for axes, d in zip(grid, columns, strict=True):
            low, high = self.limits[d]
            axes.plot((low, high), (low, high), color="black", lw=0.8)
            x, y = (jittered(v[:, d], self.discrete[d], d + i) for i, v in enumerate((a, b)))
            axes.scatter(x, y, s=7, color=ORDINARY, alpha=0.6, linewidths=0)
            axes.set(xlim=(low, high), ylim=(low, high))
            self._label(axes, d)
        layout = f"scatter plots of {self._of_all(len(columns))}"
        reading = f"Horizontal: {names[0]}; vertical: {names[1]}, of {len(a)} pairs. Equal values are on the line."
        return plotted(figure, len(a), layout, reading)

    def paths(self, rows: Tensor) -> Sheet:
        rows, steps = rows[:3], rows.shape[1]
        labels = [f"{i + 1}" if i % (steps - 1) else ("first", "last")[i > 0] for i in range(steps)]
        columns = sorted(self.order[:_MOST_AXES])
        figure, axes = self._heat(array(rows.flatten(0, 1)), columns, labels * len(rows))
        for end in range(steps, steps * len(rows), steps):
            axes.axhline(end - 0.5, color="black", lw=2)
        layout = f"{len(rows)} paths of {steps} rows each over {self._of_all(len(columns))}"
        return plotted(figure, len(rows), layout, _COLOURS)

    def ranked(self, x: Tensor, words: list[str], marks: list[bool] | None = None) -> Sheet:
        rows = array(x)[:24]
        columns = sorted(np.argsort(-np.abs(self._rank(rows) - 0.5).mean(0), kind="stable")[:_MOST_AXES].tolist())
        figure, axes = self._heat(rows, columns, words or ["anomaly ▲" if mark else "" for mark in marks or ()])
        for label in axes.get_yticklabels() if marks is not None else ():
            label.set_color(ANOMALOUS)
        few = f"the {len(columns)} of {len(self.names)} columns where these rows are most unusual"
        which = few if len(columns) < len(self.names) else "all columns"
        left = "On the left: the nats." if marks is None else "Anomalies have a triangle and a word on the left."
        return plotted(figure, len(rows), f"{len(rows)} rows in this order over {which}", f"{_COLOURS} {left}")

    def _heat(self, rows: NDArray[np.float64], columns: list[int], labels: list[str]) -> tuple[Any, Any]:
        """Rows as lines of cells, coloured by the rank of each value among the training data."""
        figure, grid = figure_of(1, 1, 0.2 * len(rows) + 1.9)
        axes = grid[0, 0]
        axes.imshow(self._rank(rows)[:, columns], cmap="RdBu_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_xticks(range(len(columns)), [self._name(d, 18) for d in columns], rotation=60, ha="right")
        axes.set_yticks(range(len(rows)), labels[: len(rows)])
        axes.tick_params(labelsize=TICK, left=False)
        colour_bar(figure, [axes], 0, 1, "share of training values below", "RdBu_r")
        return figure, axes

    def _rank(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of training values below each value, where ties count half: ``(N, D)``."""
        rank = np.empty(rows.shape)
        for d, column in enumerate(self.sorted.T):
            below, upto = (np.searchsorted(column, rows[:, d], side=side) for side in ("left", "right"))
            rank[:, d] = (below + upto) / (2 * len(column))
        return rank

    def bits(self, x: Tensor, bits: Tensor) -> Sheet:
        finite = bits[bits.isfinite()] if bool(bits.isfinite().any()) else torch.zeros(1)
        found = np.sort(bits.double().clamp(float(finite.min()), float(finite.max())).numpy(), 0)
        n, middle = len(found), found.mean(0)
        columns = sorted(np.argsort(-middle, kind="stable")[:_MOST_BARS].tolist())
        low, high = (found[int(q * (n - 1))] for q in (0.05, 0.95))
        figure, grid = figure_of(1, 1, 0.27 * len(columns) + 1)
        axes = grid[0, 0]
        axes.barh(range(len(columns)), middle[columns], color=ORDINARY)
        axes.hlines(range(len(columns)), low[columns], high[columns], color="black", lw=1.2)
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(range(len(columns)), [self._name(d, 22) for d in columns])
        axes.invert_yaxis()
        axes.set_xlabel("bits", fontsize=LABEL)
        axes.tick_params(labelsize=TICK)
        few = len(columns) < len(middle)
        shown = f"the {len(columns)} with most bits of {len(middle)}" if few else f"all {len(columns)}"
        reading = (
            f"Bars: means over {n} rows, from {number(float(middle.min()))} to {number(float(middle.max()))} bits; "
            "lines: the middle 90 % of rows. Bits of a density may be negative, and depend on the column's unit."
        )
        return plotted(figure, n, f"a bar for each of {shown} columns", reading)


def _counts(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of ``values`` in each bin; values outside are counted in the outermost bins."""
    return np.histogram(values.clip(edges[0], edges[-1]), edges)[0] / len(values)


def _stairs(axes: Any, rows: NDArray[Any], train: NDArray[Any], edges: NDArray[Any]) -> None:
    axes.stairs(rows, edges, fill=True, color=ORDINARY, alpha=0.75, label=_THESE)
    axes.stairs(train, edges, color="black", lw=1.2, label=_TRAIN)
    axes.set_xlim(edges[0], edges[-1])


def mutual_information(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mutual information of columns in nats, each binned at quantiles into at most 8 groups: ``(N, D)`` → ``(D, D)``.

    The diagonal is zero, and so are all but the 256 columns of largest entropy.

    >>> x = np.array([[0.0, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1]])
    >>> mutual_information(x).round(4)[0].tolist()
    [0.0, 0.6931, 0.0]
    """
    n, dims = x.shape
    groups = np.empty((n, dims), dtype=np.int64)
    for d in range(dims):
        edges = np.unique(np.quantile(x[:, d], np.arange(1, _GROUPS) / _GROUPS, method="lower"))
        groups[:, d] = np.searchsorted(edges, x[:, d], side="left")
    marginal = np.stack([(groups == g).mean(0) for g in range(_GROUPS)], 1)  # (D, 8)
    kept = np.sort(np.argsort(-entr(marginal).sum(1), kind="stable")[:_COMPARED])
    flat = (groups[:, kept, None] == np.arange(_GROUPS)).astype(np.float32).reshape(n, -1)
    joint = (flat.T @ flat / n).astype(np.float64).reshape(len(kept), _GROUPS, len(kept), _GROUPS)
    information = np.zeros((dims, dims))
    information[np.ix_(kept, kept)] = rel_entr(joint, np.multiply.outer(marginal[kept], marginal[kept])).sum((1, 3))
    np.fill_diagonal(information, 0)
    return information.clip(0)


def strongest_pairs(information: NDArray[np.float64], most: int) -> list[tuple[int, int]]:
    """The pairs of columns with the most mutual information, in decreasing order."""
    upper = np.triu(information, 1)
    best = np.argsort(-upper.ravel(), kind="stable")[:most]
    return [(int(i) // len(upper), int(i) % len(upper)) for i in best if upper.ravel()[i] > _LEAST_SHARED]
