"""Pictures of tables: marginals, pairs of columns, parallel coordinates, bits a column; one column; binary vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.escapes import visible
from unsup.core.event import Event
from unsup.pictures.artist import ANOMALOUS, BULK, ORDINARY, Artist, Sheet, array, number, viridis
from unsup.pictures.images import new_figure, plain_label
from unsup.pictures.plots import (
    DPI,
    FROM_TO,
    LABEL,
    TICK,
    WIDTH,
    colour_bar,
    few_ticks,
    figure_of,
    jittered,
    plotted,
    robust_limits,
    steps_of,
)

_MOST_COLUMNS, _MOST_PAIRS, _MOST_AXES, _MOST_BARS = 8, 3, 12, 24
_ROWS, _BINS, _GROUPS, _COMPARED = 2000, 24, 8, 256
_CLASSES, _STRIPES = 30, 24  # bars of one column of classes; rows of a binary table that are drawn
_ACROSS = 3
_LEAST_SHARED = 1e-6  # nats: below it is rounding, as of a constant column
_BLUE = "Blue: these rows; outline and grey: the training data."


class Table(Artist):
    """Rows of columns, ``(D,)`` or any shape flattened. Which columns are shown is decided by the training data.

    Shown are those that share most information with another column, constant ones last, in the order of the table.
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
        self.order = most_telling(self.train[:_ROWS], information)
        self.pairs_shown = strongest_pairs(information, _MOST_PAIRS)

    def _column_limits(self, d: int) -> tuple[float, float]:
        column = self.train[:, d]
        column = column[~np.isnan(column)]
        if self.discrete[d] and len(column) and np.ptp(column) < 2 * _BINS:
            return float(column.min()) - 0.5, float(column.max()) + 0.5
        return robust_limits(column, 0.005)

    def _edges(self, d: int) -> NDArray[np.float64]:
        low, high = self.limits[d]
        whole = self.discrete[d] and high - low <= 2 * _BINS
        return np.linspace(low, high, int(high - low) + 1 if whole else _BINS + 1)

    def _counts(self, values: NDArray[np.float64], d: int) -> NDArray[np.float64]:
        """The share of ``values`` in each bin; what lies outside is counted in the outermost ones."""
        edges, values = self._edges(d), values[~np.isnan(values)]
        counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
        return counts / max(len(values), 1)

    def _chosen(self, most: int) -> list[int]:
        return sorted(self.order[:most])

    def _of_all(self, shown: int) -> str:
        everything = len(self.names)
        if shown < everything:
            return f"the {shown} most telling of {everything} columns"
        return f"all {everything} columns" if everything > 1 else "the one column"

    def _name(self, d: int, most: int = 15) -> str:
        name = visible(self.names[d])
        cut = name if len(name) <= most else name[: most - 1] + "…"
        return plain_label(cut)

    def _cells(self, panels: int, extra: int = 0, each: float = 1.35) -> tuple[Any, NDArray[Any]]:
        rows = math.ceil(panels / _ACROSS) + math.ceil(extra / _ACROSS)
        figure, grid = figure_of(rows, _ACROSS, each * rows + 0.2)
        for axes in grid.ravel():
            axes.set_visible(False)
        return figure, grid.ravel()

    def examples(self, x: Tensor, real: Tensor | None = None) -> Sheet:
        if len(self.names) == 1:
            return self._one_column(array(x)[:, 0])
        if self.kinds == {"binary"} and len(self.names) > _MOST_COLUMNS:
            return self._binary(array(x))
        rows, columns = array(x), self._chosen(_MOST_COLUMNS)
        panels = len(columns) + 1  # the last one is the legend
        figure, grid = self._cells(panels, len(self.pairs_shown), 1.45)
        for axes, d in zip(grid, columns, strict=False):
            self._histogram(axes, rows[:, d], d)
        self._legend(grid[len(columns)])
        start = _ACROSS * math.ceil(panels / _ACROSS)
        for axes, (a, b) in zip(grid[start:], self.pairs_shown, strict=False):
            self._pair(axes, rows[:500], a, b)
        pairs = len(self.pairs_shown)
        layout = f"histograms of {self._of_all(len(columns))}" + (
            f" and scatter plots of the {pairs} most dependent pairs"
            if pairs > 1
            else " and a scatter plot of the most dependent pair"
            if pairs
            else ""
        )
        reading = f"{_BLUE} Values beyond the frame are in the outermost bins."
        return plotted(figure, len(rows), layout, reading)

    def _one_column(self, values: NDArray[np.float64]) -> Sheet:
        """One column alone: a curve of shares, or a bar a class or level."""
        figure, grid = figure_of(1, 1, 3.0)
        axes, train = grid[0, 0], self.train[:, 0]
        levels, counts = np.unique(train, return_counts=True)
        by_class = self.discrete[0] and ("nominal" in self.kinds or len(levels) <= _CLASSES)
        if by_class:
            kept = np.sort(levels[np.argsort(-counts, kind="stable")[:_CLASSES]])
            places = np.arange(len(kept))
            for shown, shift, colour, word in ((train, -0.2, BULK, "training data"), (values, 0.2, ORDINARY, "these")):
                shares = [float((shown == v).sum()) / max(len(shown), 1) for v in kept]
                axes.bar(places + shift, shares, 0.4, color=colour, label=word)
            axes.set_xticks(places, [number(v) for v in kept], rotation=90 if len(kept) > 12 else 0)
            few = f"the {len(kept)} most frequent of {len(levels)}" if len(kept) < len(levels) else f"{len(kept)}"
            layout = f"a bar chart of the shares of {few} {'classes' if 'nominal' in self.kinds else 'levels'}"
            other = float((~np.isin(values, kept)).mean()) if len(values) else 0.0
            reading = "Blue: these; grey: the training data." + (f" {other:.1%} of these have no bar." if other else "")
        else:
            low, high = self.limits[0]
            edges = np.linspace(low, high, 2 * _BINS + 1)
            for shown, drawn in (
                (values, {"fill": True, "color": ORDINARY, "alpha": 0.75}),
                (train, {"color": "black"}),
            ):
                counts, _ = np.histogram(shown.clip(low, high), edges)
                label = "these" if drawn.get("fill") else "training data"
                axes.stairs(counts / max(len(shown), 1), edges, label=label, **drawn)
            axes.set_xlim(low, high)
            layout, reading = "a histogram of one column", f"{_BLUE} Values beyond the frame are in the outermost bins."
        axes.set_xlabel(self._name(0, 40), fontsize=LABEL)
        axes.set_ylabel("share", fontsize=LABEL)
        axes.legend(fontsize=TICK)
        return plotted(figure, len(values), layout, reading)

    def _binary(self, rows: NDArray[np.float64]) -> Sheet:
        """Columns of zeros and ones: the share of ones in each, and some rows as stripes."""
        figure = new_figure(WIDTH, 4.4, dpi=DPI)
        places = figure.subplot_mosaic([["share", "share"], ["data", "rows"]])
        edges = np.arange(len(self.names) + 1) + 0.5
        places["share"].stairs(_shares(rows), edges, fill=True, color=ORDINARY, alpha=0.75, label="these rows")
        places["share"].stairs(_shares(self.train), edges, color="black", lw=1.2, label="training data")
        places["share"].set(xlim=(edges[0], edges[-1]), ylim=(0, 1.25))
        places["share"].set_ylabel("share of ones", fontsize=LABEL)
        places["share"].legend(fontsize=TICK, ncols=2, loc="upper right")
        few_ticks(places["share"].yaxis, (0, 1))
        for name, shown, title in (("data", self.train, "training data"), ("rows", rows, "these rows")):
            places[name].imshow(
                1 - shown[:_STRIPES], cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
            )
            places[name].set_title(title, fontsize=LABEL)
            few_ticks(places[name].yaxis, ())
        for axes in places.values():
            axes.set_xlabel("column", fontsize=LABEL)
            axes.tick_params(labelsize=TICK)
        layout = (
            f"the share of ones in each of {len(self.names)} columns, and {min(len(rows), _STRIPES)} rows as stripes"
        )
        return plotted(figure, len(rows), layout, f"{_BLUE} In the stripes ink is 1.")

    def _histogram(self, axes: Any, values: NDArray[np.float64], d: int) -> None:
        axes.set_visible(True)
        edges, train = self._edges(d), self._counts(self.train[:, d], d)
        axes.stairs(self._counts(values, d), edges, fill=True, color=ORDINARY, alpha=0.75)
        axes.stairs(train, edges, color="black", lw=1.2)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, 1.4 * train.max())
        axes.set_title(self._name(d), fontsize=LABEL - 1, pad=3)
        few_ticks(axes.yaxis, ())
        self._end_ticks(axes.xaxis, d)

    def _end_ticks(self, axis: Any, d: int) -> None:
        low, high = self.limits[d]
        inside = self.sorted[(self.sorted[:, d] >= low) & (self.sorted[:, d] <= high), d]
        few_ticks(axis, dict.fromkeys((float(inside[0]), float(inside[-1]))))
        ends = ("left", "right") if inside[0] < inside[-1] and not self.discrete[d] else ("center", "center")
        for label, where in zip(axis.get_ticklabels(), ends, strict=False):
            label.set_horizontalalignment(where)

    def _legend(self, axes: Any) -> None:
        from matplotlib.patches import Patch

        axes.set_visible(True)
        axes.axis("off")
        handles = [Patch(color=ORDINARY, alpha=0.75, label="these rows"), Patch(fill=False, label="training data")]
        axes.legend(handles=handles, loc="center", frameon=False, fontsize=LABEL - 1)

    def _pair(self, axes: Any, rows: NDArray[np.float64], a: int, b: int) -> None:
        axes.set_visible(True)
        for values, colour, size in ((self.train[:500], BULK, 7), (rows, ORDINARY, 5)):
            x, y = (jittered(values[:, d], self.discrete[d], d) for d in (a, b))
            axes.scatter(x, y, s=size, color=colour, alpha=0.6, linewidths=0)
        axes.set_xlim(*self.limits[a])
        axes.set_ylim(*self.limits[b])
        axes.set_xlabel(self._name(a), fontsize=LABEL - 1, labelpad=1)
        axes.set_ylabel(self._name(b, 13), fontsize=LABEL - 1, labelpad=1)
        few_ticks(axes.xaxis, ())
        few_ticks(axes.yaxis, ())

    def pairs(self, first: Tensor, second: Tensor, names: tuple[str, str]) -> Sheet:
        a, b, columns = array(first)[:500], array(second)[:500], self._chosen(9)
        figure, grid = self._cells(len(columns), each=1.7)
        for axes, d in zip(grid, columns, strict=False):
            axes.set_visible(True)
            low, high = self.limits[d]
            axes.plot((low, high), (low, high), color="black", lw=0.8)
            x, y = (jittered(v[:, d], self.discrete[d], d + i) for i, v in enumerate((a, b)))
            axes.scatter(x, y, s=7, color=ORDINARY, alpha=0.6, linewidths=0)
            axes.set(xlim=(low, high), ylim=(low, high))
            axes.set_title(self._name(d), fontsize=LABEL - 1, pad=3)
            self._end_ticks(axes.xaxis, d)
            few_ticks(axes.yaxis, ())
        layout = f"scatter plots of {self._of_all(len(columns))}"
        reading = f"To the right: {names[0]}; upwards: {names[1]}, of {len(a)} pairs. Equal values lie on the line."
        return plotted(figure, len(a), layout, reading)

    def _unit(self, rows: NDArray[np.float64], columns: list[int]) -> NDArray[np.float64]:
        """Columns on the scale of their training range, 0 … 1; what is further than 0.3 beyond is drawn there."""
        low, high = (np.array([self.limits[d][i] for d in columns]) for i in range(2))
        unit: NDArray[np.float64] = ((rows[:, columns] - low) / (high - low)).clip(-0.3, 1.3)
        return unit

    def _parallel(self, panels: int = 1, height: float = 3.4) -> tuple[Any, list[Any], list[int]]:
        """Axes with one upright for each shown column and the grey bulk of the training data behind."""
        columns = self._chosen(_MOST_AXES)
        figure, grid = figure_of(panels, 1, height if panels == 1 else 1.5 * panels + 1)
        for i, axes in enumerate(grid[:, 0]):
            bands = np.quantile(self._unit(self.train, columns), (0.01, 0.25, 0.75, 0.99), axis=0)
            last, places = i == panels - 1, np.arange(len(columns))
            for low, high, shade in ((bands[0], bands[3], "#eeeeee"), (bands[1], bands[2], "#bbbbbb")):
                axes.vlines(places, low, high, color=shade, lw=9)
                axes.fill_between(places, low, high, color=shade, linewidth=0)
            axes.set_xticks(places, [self._name(d, 18) for d in columns] if last else [], rotation=60, ha="right")
            axes.tick_params(labelsize=TICK)
            axes.set_yticks((0, 1), ("low", "high"))
            axes.set_ylim(-0.35, 1.35)
            axes.set_xlim(-0.2, max(len(columns) - 0.8, 0.2))
            axes.grid(axis="x", lw=0.5)
        return figure, list(grid[:, 0]), columns

    def _scale(self, columns: list[int]) -> str:
        return (
            f"Each line is a row over {self._of_all(len(columns))}, from low to high in the range of the training "
            "data; faint grey: the middle 98 % of the training data, strong grey: the middle half."
        )

    def paths(self, rows: Tensor) -> Sheet:
        rows = rows[:4]
        figure, grid, columns = self._parallel(len(rows))
        for axes, path in zip(grid, rows, strict=True):
            for line, (colour, is_end) in zip(self._unit(array(path), columns), steps_of(rows), strict=True):
                axes.plot(line, color=tuple(colour), lw=2.2 if is_end else 1, marker="o", ms=2)
        layout = f"{len(rows)} plots of {rows.shape[1]} rows each"
        return plotted(figure, len(rows), layout, f"{self._scale(columns)} {FROM_TO}")

    def ranked(self, x: Tensor, words: list[str]) -> Sheet:
        found = array(x)[:8]
        figure, (axes,), columns = self._parallel()
        axes.plot(self._unit(found, columns).T, color=ANOMALOUS, lw=1.4, marker="o", ms=3)
        return plotted(figure, len(found), f"{len(found)} rows as orange lines", self._scale(columns))

    def marked(self, x: Tensor, marks: list[bool]) -> Sheet:
        rows = array(x)[:24]
        rank = self._rank(rows)  # (n, D)
        columns = sorted(np.argsort(-np.abs(rank - 0.5).mean(0), kind="stable")[:_MOST_AXES].tolist())
        figure, grid = figure_of(1, 1, 0.2 * len(rows) + 1.9)
        axes = grid[0, 0]
        axes.imshow(rank[:, columns], cmap="RdBu_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_xticks(range(len(columns)), [self._name(d, 18) for d in columns], rotation=60, ha="right")
        axes.set_yticks(range(len(rows)), ["anomaly ▲" if mark else "" for mark in marks[: len(rows)]])
        axes.tick_params(labelsize=TICK, left=False)
        for label in axes.get_yticklabels():
            label.set_color(ANOMALOUS)
        colour_bar(figure, [axes], 0, 1, "share of training values below", "RdBu_r")
        few = len(columns) < len(self.names)
        which = (
            f"the {len(columns)} of {len(self.names)} columns where these rows are strangest" if few else "all columns"
        )
        layout = f"a table of {len(rows)} rows, the strangest on top, over {which}, coloured by where the value lies"
        reading = (
            "Blue cells: lower than most of the training data; red: higher; no colour: the middle. "
            "Anomalies have a triangle and the word on their left."
        )
        return plotted(figure, len(rows), layout, reading)

    def _rank(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of training values below each value, equal ones counted half: ``(N, D)``."""
        rank = np.empty(rows.shape)
        for d, column in enumerate(self.sorted.T):
            below, upto = (np.searchsorted(column, rows[:, d], side=side) for side in ("left", "right"))
            rank[:, d] = (below + upto) / (2 * len(column))
        return rank

    def bits(self, x: Tensor, bits: Tensor) -> Sheet:
        finite = bits[bits.isfinite()]
        top, bottom = (float(f()) if len(finite) else 0.0 for f in (finite.max, finite.min))
        found = np.sort(bits.double().nan_to_num(posinf=top, neginf=bottom).numpy(), 0)
        n, middle = len(found), found.mean(0)
        columns = sorted(np.argsort(-middle, kind="stable")[:_MOST_BARS].tolist())
        low, high = (found[int(q * (n - 1))] for q in (0.05, 0.95))
        figure, grid = figure_of(1, 1, 0.27 * len(columns) + 1)
        axes = grid[0, 0]
        unit = (middle - middle.min()) / max(np.ptp(middle), 1e-9)
        for place, d in enumerate(columns):
            axes.barh(place, middle[d], color=tuple(viridis(unit[d]) / 255))
            axes.plot((low[d], high[d]), (place, place), color="black", lw=1.2)
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(range(len(columns)), [self._name(d, 22) for d in columns])
        axes.invert_yaxis()
        axes.set_xlabel("bits", fontsize=LABEL)
        axes.tick_params(labelsize=TICK)
        shown = (
            f"all {len(columns)}" if len(columns) == len(middle) else f"the costliest {len(columns)} of {len(middle)}"
        )
        reading = (
            f"Bars: means over {n} rows, from {number(float(middle.min()))} to {number(float(middle.max()))} bits; "
            "lines: the middle 90 % of rows. Bits of a density may be negative, and depend on the column's unit."
        )
        return plotted(figure, n, f"a bar for each of {shown} columns", reading)


def _shares(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each column over the values that are no padding, 0 where there are none."""
    known = ~np.isnan(rows)
    found: NDArray[np.float64] = np.where(known, rows, 0).sum(0) / np.maximum(known.sum(0), 1)
    return found


def mutual_information(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nats that two columns share, each cut at its quantiles into at most 8 groups: ``(N, D)`` → ``(D, D)``.

    The diagonal is zero, as are columns beyond the 256 of largest entropy, where there are more.

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
    entropy = -np.where(marginal > 0, marginal * np.log(np.maximum(marginal, 1e-300)), 0).sum(1)
    kept = np.sort(np.argsort(-entropy, kind="stable")[:_COMPARED])
    flat = (groups[:, kept, None] == np.arange(_GROUPS)).astype(np.float32).reshape(n, -1)
    joint = (flat.T @ flat / n).astype(np.float64).reshape(len(kept), _GROUPS, len(kept), _GROUPS)
    joint_entropy = -np.where(joint > 0, joint * np.log(np.maximum(joint, 1e-300)), 0).sum((1, 3))
    information = np.zeros((dims, dims))
    information[np.ix_(kept, kept)] = entropy[kept][:, None] + entropy[kept] - joint_entropy
    np.fill_diagonal(information, 0)
    return information.clip(0)


def most_telling(x: NDArray[np.float64], information: NDArray[np.float64]) -> list[int]:
    """All columns: by what they share with their closest other, constant ones last."""
    strength = information.max(1, initial=0.0) - (np.ptp(x, 0) == 0)
    return [int(d) for d in np.argsort(-strength, kind="stable")]


def strongest_pairs(information: NDArray[np.float64], most: int) -> list[tuple[int, int]]:
    """The pairs of different columns that share most information, strongest first."""
    upper = np.triu(information, 1)
    best = np.argsort(-upper.ravel(), kind="stable")[:most]
    return [(int(i) // len(upper), int(i) % len(upper)) for i in best if upper.ravel()[i] > _LEAST_SHARED]
