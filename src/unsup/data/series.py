"""Series: the rows of a table in the order of time, cut into windows that are split by time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from unsup.core.errors import InputError
from unsup.core.escapes import shell_word
from unsup.core.event import REAL, Event
from unsup.core.words import counted
from unsup.data.catalog import Missing
from unsup.data.columns import Column, TableForm
from unsup.data.examples import Examples, Names, listing
from unsup.data.missing import rows_with_gaps
from unsup.data.precision import precise, some_rows
from unsup.data.source import split_sizes

Values = NDArray[np.float64]
_SHARES = (10, 10)  # percent of the rows in validation and test


@dataclass(frozen=True)
class Series:
    """Rows in the order of time.

    Attributes:
        x: numbers ``(N, D)``; NaN is missing.
        columns: their columns.
        places: the location of each row.
        notes: what was decided.
        time: the column of times by which they were sorted.
        moments: its values ``(N,)``.
        order: the number of each row in the file ``(N,)``; None for the order of the file.
    """

    x: Values
    columns: tuple[Column, ...]
    places: Sequence[str]
    notes: tuple[str, ...] = ()
    time: Column | None = None
    moments: Values | None = None
    order: NDArray[np.int64] | None = None

    def in_file(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows ``(N, ...)`` in the order of time, in the order of the file."""
        if self.order is None:
            return rows
        found = np.empty_like(rows)
        found[self.order] = rows
        return found


def in_order(series: Series, time: str | None, owner: str) -> Series:
    """The rows sorted by the column ``time``, which is removed; None for the order of the file.

    Raises:
        InputError: the times are words or missing, or other columns are not numbers.
    """
    if time is not None:
        d = [column.name for column in series.columns].index(time)
        column, moments, notes = series.columns[d], series.x[:, d], list(series.notes)
        if column.kind == "words":
            raise InputError(
                f"{owner}: a time is a number or a date, but the column {time!r} has words "
                f"(such as {column.words[0]!r}); write dates like 2021-03-01, or sort the rows "
                f"in the file and remove the column with --drop {shell_word(time)} (drop=)"
            )
        if np.isnan(moments).any():
            raise InputError(f"{owner}: {int(np.isnan(moments).sum())} rows have no time in column {time!r}; fill them")
        steps = np.diff(np.sort(moments))
        notes.append(f"column {time!r} is the time")
        if (np.diff(moments) < 0).any():
            notes.append(f"rows were sorted by {time!r}")
        if len(steps) and steps.max() > 1.5 * max(float(np.median(steps)), 1e-12):
            times = steps.max() / max(float(np.median(steps)), 1e-12)
            notes.append(f"the steps between rows differ: up to {times:,.3g} times the median")
        order = np.argsort(moments, kind="stable")
        kept = [i for i in range(len(series.columns)) if i != d]
        x, places = series.x[order][:, kept], Names(series.places.__getitem__, order)
        series = Series(x, tuple(series.columns[i] for i in kept), places, tuple(notes), column, moments[order], order)
    words = [column.name for column in series.columns if column.kind == "words"]
    if words:
        raise InputError(
            f"{owner}: a series has numbers only, but {listing(words)} {'are' if len(words) > 1 else 'is'} not; remove "
            f"{'them' if len(words) > 1 else 'it'} with --drop (drop=)"
        )
    if not series.columns:
        raise InputError(f"{owner} has no columns besides the time; expected at least one column of numbers")
    return series


def windows(
    series: Series,
    *,
    length: int,
    stride: int | None,
    missing: Missing,
    separator: str,
    owner: str,
    whole: bool = False,
    cover: bool = False,
) -> Examples:
    """Windows of consecutive rows; the first 80 % of the rows are for training, the last 10 % for test.

    No window reaches over the boundary of two splits.

    Args:
        length: rows of a window.
        stride: rows from one window to the next; a quarter of ``length`` by default, ``length`` if ``whole``.
        missing: as for tables; ``drop`` removes windows, ``impute`` interpolates, in each split from its own rows.
        whole: whether the rows are one part, not split.
        cover: whether rows after the last of these windows have another one, which ends at the last row and overlaps
            the one before it. Otherwise a note says how many such rows a part has that is not split.

    Raises:
        InputError: a part has fewer rows than a window, or ``missing`` refuses.
    """
    n, width = series.x.shape
    stride = stride or (length if whole else max(1, length // 4))
    sizes = (n, 0, 0) if whole else split_sizes(n, *_SHARES, owner=owner)
    starts, counts, first = [], [], 0
    for size in sizes:
        own = np.arange(first, first + size - length + 1, stride) if size >= length else np.zeros(0, np.int64)
        starts.append(own)
        counts.append(len(own))
        first += size
    if whole and not counts[0]:
        raise InputError(
            f"{owner} has {counted(n, 'row')}, less than one window of {length:,} rows as in training; add rows, or "
            "train a run with a smaller --length"
        )
    if not whole and not all(counts):
        raise InputError(
            f"{owner} has {n:,} rows, and its splits of {', '.join(f'{s:,}' for s in sizes)} "
            f"are too few for windows of length={length} (--length); use a smaller length"
        )
    x = series.x
    notes = list(series.notes)
    left = n - int(starts[0][-1]) - length
    if whole and left and cover:
        starts[0] = np.append(starts[0], n - length)
        counts[0] += 1
    elif whole and left:
        notes.append(f"{left:,} of {n:,} rows left out, since they do not fill a window of {length:,}")
    gaps = np.isnan(x)
    if gaps.any():
        count, where = rows_with_gaps(gaps, [column.name for column in series.columns])
        if missing == "refuse":
            raise InputError(f"{owner} has missing values in {count}: {where}; fill them, or use --missing drop")
        if missing == "impute":
            parts = np.split(x, np.cumsum(sizes)[:2])
            x = np.concatenate([_interpolated(part, series.columns, owner) for part in parts])
            notes.append(f"missing values in {count} were interpolated: {where}")
        if missing == "keep":
            notes.append(f"{count} have missing values, in the columns {where}")
    index = np.concatenate(starts)
    cut = sliding_window_view(x, length, axis=0)[index].transpose(0, 2, 1)
    if missing == "drop" and gaps.any():
        good = np.asarray(~np.isnan(cut).any((1, 2)))
        ends = np.cumsum([0, *counts])
        counts = [int(good[a:b].sum()) for a, b in itertools.pairwise(ends)]
        if not any(counts) or (not whole and not all(counts)):
            raise InputError(f"{owner} has missing values in every window of a split; use --missing impute")
        notes.append(f"{int((~good).sum()):,} of {len(good):,} windows have missing values and were dropped")
        cut, index = cut[good], index[good]
    values = np.ascontiguousarray(cut[:, :, 0] if width == 1 else cut)
    shape = (length,) if width == 1 else (length, width)
    rows = values.reshape(-1, width)[some_rows(len(values) * length, width)]
    event = precise(Event(shape, REAL, "sequence"), np.where(np.isnan(rows), 0.0, rows))
    event = replace(event, missing=bool(np.isnan(values).any()))
    return Examples(
        torch.from_numpy(values),
        event,
        Names(series.places.__getitem__, index),
        notes=tuple(notes),
        sizes=(counts[0], counts[1], counts[2]),
        split="80/10/10 by time",
        form=TableForm(series.columns, separator=separator, window=length, time=series.time),
    )


def _interpolated(rows: Values, columns: Sequence[Column], owner: str) -> Values:
    """The rows of one split without gaps: linear between two values, constant before the first and after the last."""
    if not len(rows):
        return rows
    filled, at = rows.copy(), np.arange(len(rows))
    for d, column in enumerate(columns):
        known = ~np.isnan(rows[:, d])
        if not known.any():
            raise InputError(
                f"{owner}: column {column.name!r} has no values in one of the splits by time; remove it with --drop "
                f"{shell_word(column.name)} (drop=)"
            )
        filled[:, d] = np.interp(at, at[known], rows[known, d])
    return filled
