"""Which number format keeps apart what the data keeps apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unsup.core.event import Event, Support

_COARSE = 1e-3  # standard deviations that two neighbouring numbers of the format may be apart
_KEPT = 0.9  # of the distinct values that must stay distinct
_ENTRIES, _FEWEST_ROWS = 300_000, 200  # looked at
_WHOLE = 2**53  # float64 holds every whole number up to this


def spoilt(x: NDArray[Any], dtype: type[np.floating[Any]]) -> NDArray[np.bool_]:
    """Which columns of numbers ``(N, D)`` lose, as ``dtype``, what tells rows apart: bool ``(D,)``.

    A column does where the format's spacing at its largest value is more than a thousandth of its standard deviation,
    or where a tenth of its distinct values becomes equal to others, or where one becomes infinite. A constant column
    has nothing else to lose.

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
    """The rows of an array ``(n, columns)`` that `spoilt` is asked about: evenly spaced, or all of them."""
    count = min(n, max(_FEWEST_ROWS, _ENTRIES // columns))
    return np.arange(count) * n // count


def precise(event: Event, rows: NDArray[Any]) -> Event:
    """``event``, in float64 where its real entries, or levels far from 0 beside them, need that.

    Args:
        rows: some examples ``(n, D)``, or entries of them where all columns are of one support.
    """
    if event.is_discrete:
        return event
    if event.uniform is None:
        rows = rows[:, [not support.is_discrete for support in event.columns]]
    wide = event.needs_float64 or bool(spoilt(rows, np.float32).any())
    return replace(event, precision="float64") if wide else event


def beyond_float64(rows: NDArray[Any], supports: Sequence[Support]) -> int | None:
    """The first column of whole numbers so far from 0 that float64 cannot tell its rows apart, or None.

    Args:
        rows: ``(n, D)``, of a type that holds the numbers.
    """
    far = abs(rows.astype(np.float64)).max(0) >= _WHOLE
    if not far.any():
        return None
    lost = far.copy()
    lost[far] = spoilt(rows[:, far], np.float64)
    found = [d for d, support in enumerate(supports) if far[d] and (support.is_discrete or lost[d])]
    return found[0] if found else None


def nearer_0(low: int, high: int) -> str:
    """What to do about whole numbers that are too far from 0, to be added to an error."""
    return f"subtract {low} from them" if high - low < _WHOLE else "leave them out"
