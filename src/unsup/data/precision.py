"""Choice of a number format that preserves the differences in the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.event import Event, Support

_COARSE = 1e-3  # maximum spacing of the format, in standard deviations
_KEPT = 0.9  # fraction of the distinct values that must stay distinct
_ENTRIES, _FEWEST_ROWS = 300_000, 200  # number of rows to check
_WHOLE = 2**53  # float64 represents all integers up to this


def spoilt(x: NDArray[Any], dtype: type[np.floating[Any]]) -> NDArray[np.bool_]:
    """Which columns of numbers ``(N, D)`` lose too much precision as ``dtype``: bool ``(D,)``.

    A column does if the spacing of the format at its largest value is more than a thousandth of its standard deviation,
    if a tenth of its distinct values become equal to others, or if a value becomes infinite. For a constant column,
    only the last criterion applies.

    >>> spoilt(np.array([[1e9, 0.1], [1e9 + 1, 0.2]]), np.float32).tolist()
    [True, False]
    """
    ordered = np.sort(x, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        spacing = np.spacing(np.maximum(abs(ordered[0]), abs(ordered[-1])).astype(dtype)).astype(np.float64)
        coarse = ~(spacing <= _COARSE * x.astype(np.float64).std(0))
        narrow = ordered.astype(dtype)
        infinite = ~(np.isfinite(narrow[0]) & np.isfinite(narrow[-1]))
    distinct, kept = ((values[1:] != values[:-1]).sum(0) + 1 for values in (ordered, narrow))
    return np.asarray(infinite | (ordered[0] != ordered[-1]) & (coarse | (kept < _KEPT * distinct)))


def some_rows(n: int, columns: int) -> NDArray[np.int64]:
    """The rows of an array ``(n, columns)`` for `spoilt`: evenly spaced, or all of them."""
    count = min(n, max(_FEWEST_ROWS, _ENTRIES // columns))
    return np.arange(count) * n // count


def precise(event: Event, rows: NDArray[Any]) -> Event:
    """``event``, in float64 if its real entries, or levels far from 0 next to them, need it.

    Args:
        rows: some examples ``(n, D)``, or their entries if all columns have the same support.
    """
    if event.is_discrete:
        return event
    if event.uniform is None:
        rows = rows[:, [not support.is_discrete for support in event.columns]]
    wide = event.needs_float64 or bool(spoilt(rows, np.float32).any())
    return replace(event, precision="float64") if wide else event


def of_type(x: Tensor, event: Event) -> Tensor:
    """Raw examples in the type that ``event`` needs; float64 is kept."""
    if event.is_discrete or event.missing:
        return x.to(event.dtype)
    return x.double() if event.precision == "float64" or not x.is_floating_point() else x


def beyond_float64(rows: NDArray[Any], supports: Sequence[Support]) -> int | None:
    """The first column of integers too far from 0 for float64 to distinguish its rows, or None.

    Args:
        rows: ``(n, D)``, of a type that represents the numbers.
    """
    far = abs(rows.astype(np.float64)).max(0) >= _WHOLE
    if not far.any():
        return None
    lost = far.copy()
    lost[far] = spoilt(rows[:, far], np.float64)
    found = [d for d, support in enumerate(supports) if far[d] and (support.is_discrete or lost[d])]
    return found[0] if found else None


def nearer_0(low: int, high: int) -> str:
    """How to handle integers that are too far from 0, as part of an error message."""
    return f"subtract {low} from them" if high - low < _WHOLE else "remove them"
