"""Pictures of tables: marginals, pairs of columns, heat maps of rows, bits per column; one column; binary vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, rel_entr
from torch import Tensor

from unsup.core.escapes import visible
from unsup.core.event import Event
from unsup.pictures.artist import ANOMALOUS, BULK, ORDINARY, Artist, Sheet, array, number
from unsup.pictures.plots import colour_bar, few_ticks, figure_of, panels, plotted, robust_limits

_MOST_COLUMNS, _MOST_PAIRS, _MOST_AXES, _MOST_BARS = 8, 3, 12, 24
_ROWS, _BINS, _GROUPS, _COMPARED = 2000, 24, 8, 256
_CLASSES, _STRIPES = 30, 24  # bars of one column of classes; rows of a binary table that are drawn
_ACROSS = 3
_LEAST_SHARED = 1e-6  # nats; below it is rounding
_TRAIN, _THESE = "training data", "these rows"
_KEY = "Filled: these rows; outline and grey: the training data."
_BINNED = f"{_KEY} Heights are shares of rows; values beyond the frame are in the outermost bins."
_COLOURS = "Each cell has the colour of the share of training values below its value."


class Table(Artist):
    """Rows of columns, ``(D,)`` or any shape flattened.

    The columns with the most mutual information with another column of the training data are shown, constant ones last.
    """

    wanted = 500

    def __init__(self, event: Event, train_x: Tensor, names: Sequence[str] | None) -> None:
        self.train = array(train_x)
        self.discrete = [s.is_discrete for s in event.columns]
        self.kinds = {s.kind for s in event.columns}
        unnamed = [f"column {d + 1}" for d in range(event.dims)] if event.dims > 1 else ["value"]
        self.names = [visible(name) for name in names or unnamed]
        self.edges = [self._edges(d) for d in range(event.dims)]
        self.limits = [(float(edges[0]), float(edges[-1])) for edges in self.edges]
        self.sorted = np.sort(self.train, 0)
        information = mutual_information(self.train[:_ROWS])
        strength = information.max(1, initial=0.0) - (np.ptp(self.train[:_ROWS], 0) == 0)  # constant columns last
        self.order = [int(d) for d in np.argsort(-strength, kind="stable")]
        self.pairs_shown = strongest_pairs(information, _MOST_PAIRS)

    def _edges(self, d: int) -> NDArray[np.float64]:
        """Edges of the bins of a column: one bin for each of a few levels."""
        column, bins = self.train[:, d], _BINS if len(self.names) > 1 else 2 * _BINS
        if self.discrete[d] and np.ptp(column) < 2 * _BINS:
            return np.arange(column.min() - 0.5, column.max() + 1)
        return np.linspace(*robust_limits(column, 0.005), bins + 1)

    def _some(self, shown: int, best: str = "most informative") -> str:
        return f"the {shown} {best} of {len(self.names)} columns" if shown < len(self.names) else f"all {shown} columns"

    def _name(self, d: int, most: int = 15) -> str:
        name = self.names[d]
        return name if len(name) <= most else name[: most - 1] + "…"

    def examples(self, x: Tensor, beside: bool = False) -> Sheet:
        rows, columns, pairs = array(x), sorted(self.order[:_MOST_COLUMNS]), self.pairs_shown
        if len(self.names) == 1:
            return self._one_column(rows[:, 0])
        if self.kinds == {"binary"} and len(self.names) > _MOST_COLUMNS:
            return self._binary(rows)
        figure, grid = panels(len(columns) + len(pairs), _ACROSS, 1.5)
        for axes, d in zip(grid, columns, strict=False):
            self._histogram(axes, rows[:, d], d)
            self._label(axes, d)
        for axes, pair in zip(grid[len(columns) :], pairs, strict=True):
            self._scatter(axes, self.train[:500, pair], pair, BULK)
            self._scatter(axes, rows[:500, pair], pair)
            axes.set(xlabel=self._name(pair[0]), ylabel=self._name(pair[1], 13), xticks=(), yticks=())
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        layout = f"histograms of {self._some(len(columns))}"
        layout += f" and scatter plots of pairs that depend on each other ({len(pairs)})" if pairs else ""
        return plotted(figure, len(rows), layout, _BINNED)

    def _one_column(self, values: NDArray[np.float64]) -> Sheet:
        """A single column: a histogram, or a bar for each class or level."""
        figure, (axes,) = panels(1, 1, 2.8)
        train, nominal = self.train[:, 0], "nominal" in self.kinds
        levels, counts = np.unique(train, return_counts=True)
        layout, reading = "a histogram of one column", _BINNED
        if self.discrete[0] and (nominal or len(levels) <= _CLASSES):
            kept = np.sort(levels[np.argsort(-counts, kind="stable")[:_CLASSES]])
            places = np.arange(len(kept))
            for rows, shift, colour, word in ((train, -0.2, BULK, _TRAIN), (values, 0.2, ORDINARY, _THESE)):
                axes.bar(places + shift, (rows[:, None] == kept).mean(0), 0.4, color=colour, label=word)
            axes.set_xticks(places, [number(v) for v in kept], rotation=90 if len(kept) > 12 else 0)
            few = f"the {len(kept)} most frequent of {len(levels)}" if len(kept) < len(levels) else f"{len(kept)}"
            layout = f"a bar chart of the shares of {few} {'classes' if nominal else 'levels'}"
            other = float((~np.isin(values, kept)).mean())
            reading = f"{other:.1%} of these rows have no bar." if other else ""
        else:
            self._histogram(axes, values, 0)
        axes.set(xlabel=self._name(0, 40), ylabel="share of rows")
        axes.legend()
        return plotted(figure, len(values), layout, reading)

    def _binary(self, rows: NDArray[np.float64]) -> Sheet:
        """Binary columns: the share of ones in each, and some rows as stripes."""
        figure = figure_of(4.4)
        places = figure.subplot_mosaic([["share", "share"], [_TRAIN, _THESE]])
        share, edges = places["share"], np.arange(len(self.names) + 1) + 0.5
        _stairs(share, rows.mean(0), self.train.mean(0), edges)
        share.set(ylim=(0, 1.25), ylabel="share of ones")
        share.legend(ncols=2, loc="upper right")
        few_ticks(share.yaxis, (0, 1))
        for title, shown in ((_TRAIN, self.train), (_THESE, rows)):
            stripes = shown[:_STRIPES]
            places[title].pcolormesh(edges, np.arange(len(stripes) + 1), stripes, cmap="Greys", vmin=0, vmax=1)
            places[title].set(title=title, yticks=())
        for axes in places.values():
            axes.set_xlabel("column")
        layout = f"the share of ones in each of {len(self.names)} columns, and some rows as stripes"
        return plotted(figure, len(rows), layout, "In the stripes, filled is 1 and empty is 0.")

    def _histogram(self, axes: Any, values: NDArray[np.float64], d: int) -> None:
        """Shares of training data and ``values`` in bins; values outside are counted in the outermost bins."""
        low, high = self.limits[d]
        rows, train = (np.histogram(v.clip(low, high), self.edges[d])[0] / len(v) for v in (values, self.train[:, d]))
        _stairs(axes, rows, train, self.edges[d])
        axes.set_ylim(0, max(1.4 * train.max(), 1.05 * rows.max()))

    def _label(self, axes: Any, d: int) -> None:
        """The name of a column as the title, and ticks at its ends."""
        axes.set_title(self._name(d), pad=3)
        few_ticks(axes.yaxis, ())
        low, high = self.limits[d]
        inside = self.sorted[(self.sorted[:, d] >= low) & (self.sorted[:, d] <= high), d]
        few_ticks(axes.xaxis, dict.fromkeys((float(inside[0]), float(inside[-1]))), not self.discrete[d])

    def _scatter(self, axes: Any, points: NDArray[Any], columns: tuple[int, int], colour: str = ORDINARY) -> None:
        """``(N, 2)`` in the limits of two columns; whole numbers are moved by up to ±0.3, so that equal ones differ."""
        for i, d in enumerate(columns):
            if self.discrete[d]:
                points[:, i] += np.random.default_rng(d + i).uniform(-0.3, 0.3, len(points))
        axes.scatter(*points.T, s=6, color=colour, alpha=0.6, linewidths=0)
        axes.set(xlim=self.limits[columns[0]], ylim=self.limits[columns[1]])

    def sets(self, rows: Tensor, names: tuple[str, ...] = ()) -> Sheet:
        if names:
            return self._pairs(array(rows[:500], 2), names)
        rows, steps = rows[:3], rows.shape[1]
        labels = [f"{i + 1}" if i % (steps - 1) else ("first", "last")[i > 0] for i in range(steps)]
        columns = sorted(self.order[:_MOST_AXES])
        figure, axes = self._heat(array(rows.flatten(0, 1)), columns, labels * len(rows))
        for end in range(steps, steps * len(rows), steps):
            axes.axhline(end - 0.5, color="black", lw=2)
        layout = f"{len(rows)} paths of {steps} rows each over {self._some(len(columns))}"
        return plotted(figure, len(rows), layout, _COLOURS)

    def _pairs(self, pairs: NDArray[np.float64], names: tuple[str, ...]) -> Sheet:
        columns = sorted(self.order[:9])
        figure, grid = panels(len(columns), _ACROSS, 1.7)
        for axes, d in zip(grid, columns, strict=True):
            axes.plot(self.limits[d], self.limits[d], color="black", lw=0.8)
            self._scatter(axes, pairs[:, :, d].copy(), (d, d))
            self._label(axes, d)
        layout = f"scatter plots of {self._some(len(columns))}"
        reading = f"Horizontal: {names[0]}; vertical: {names[1]}, of {len(pairs)} pairs. Equal values are on the line."
        return plotted(figure, len(pairs), layout, reading)

    def ranked(self, x: Tensor, words: list[str], marks: list[bool] | None = None) -> Sheet:
        rows = array(x)[:24]
        columns = sorted(np.argsort(-np.abs(self._rank(rows) - 0.5).mean(0), kind="stable")[:_MOST_AXES].tolist())
        figure, axes = self._heat(rows, columns, words)
        for label in axes.get_yticklabels() if marks is not None else ():
            label.set_color(ANOMALOUS)
        layout = f"{len(rows)} rows in this order over {self._some(len(columns), 'most unusual')}"
        return plotted(figure, len(rows), layout, _COLOURS)

    def _heat(self, rows: NDArray[np.float64], columns: list[int], labels: list[str]) -> tuple[Any, Any]:
        """Rows as lines of cells, coloured by the rank of each value among the training data."""
        figure, (axes,) = panels(1, 1, 0.2 * len(rows) + 1.7)
        axes.imshow(self._rank(rows)[:, columns], cmap="RdBu_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_xticks(range(len(columns)), [self._name(d, 18) for d in columns], rotation=60, ha="right")
        axes.set_yticks(range(len(rows)), labels[: len(rows)])
        axes.tick_params(left=False)
        colour_bar(figure, [axes], (0, 1), "share of training values below", "RdBu_r")
        return figure, axes

    def _rank(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of training values below each value, where ties count half: ``(N, D)``."""
        rank = np.empty(rows.shape)
        for d, column in enumerate(self.sorted.T):
            rank[:, d] = sum(np.searchsorted(column, rows[:, d], side) for side in ("left", "right"))
        return rank / (2 * len(self.sorted))

    def bits(self, x: Tensor, bits: Tensor, among: Tensor, unit: str = "bits") -> Sheet:
        finite = bits[bits.isfinite()].tolist() or [0.0]
        found = np.sort(bits.double().clamp(min(finite), max(finite)).numpy(), 0)
        n, middle = len(found), found.mean(0)
        columns = np.sort(np.argsort(-middle, kind="stable")[:_MOST_BARS])
        low, high = (found[int(q * (n - 1)), columns] for q in (0.05, 0.95))
        figure, (axes,) = panels(1, 1, 0.27 * len(columns) + 0.8)
        places = range(len(columns))
        axes.barh(places, middle[columns], color=ORDINARY)
        axes.hlines(places, low, high, color="black", lw=1.2)
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(places, [self._name(d, 22) for d in columns])
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        reading = (
            f"Bars: means over {n} rows, from {number(float(middle.min()))} to {number(float(middle.max()))} {unit}; "
            f"lines: the middle 90 % of rows. {unit.capitalize()} of a density may be negative, and depend on the "
            "column's unit."
        )
        return plotted(figure, n, f"a bar for each of {self._some(len(columns), 'most costly')}", reading)


def _stairs(axes: Any, rows: NDArray[Any], train: NDArray[Any], edges: NDArray[Any]) -> None:
    axes.stairs(rows, edges, fill=True, color=ORDINARY, alpha=0.75, label=_THESE)
    axes.stairs(train, edges, color="black", lw=1.2, label=_TRAIN)
    margin = 0.03 * (edges[-1] - edges[0])  # so that the frame does not cover the outermost bins
    axes.set_xlim(edges[0] - margin, edges[-1] + margin)


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
