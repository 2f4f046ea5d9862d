"""Missing entries of tables: kept, or their rows dropped, or filled, or refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unsup.core.errors import InputError
from unsup.core.event import Support
from unsup.data.catalog import Missing
from unsup.data.examples import listing


def imputed(x: NDArray[np.float64], supports: Sequence[Support]) -> NDArray[np.float64]:
    """Rows ``(N, D)`` whose NaN are replaced: by the median of the column, of words by the most frequent.

    >>> from unsup.core.event import REAL
    >>> imputed(np.array([[1.0], [np.nan], [2.0], [9.0]]), [REAL])[:, 0].tolist()
    [1.0, 2.0, 2.0, 9.0]
    """
    filled = x.copy()
    for d, support in enumerate(supports):
        gaps = np.isnan(x[:, d])
        if gaps.any():
            known = x[~gaps, d]
            if support.kind in ("nominal", "binary"):
                filled[gaps, d] = np.bincount(known.astype(np.int64)).argmax()
            elif support.is_discrete:
                filled[gaps, d] = np.sort(known)[(len(known) - 1) // 2]
            else:
                filled[gaps, d] = np.median(known)
    return filled


def without_gaps(
    x: NDArray[np.float64], supports: Sequence[Support], missing: Missing, names: Sequence[str], owner: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None, str]:
    """Rows ``(N, D)`` without NaN as ``missing`` says, the rows that were kept (None: all), and a note.

    Raises:
        InputError: ``missing`` is ``"refuse"``, or every row has a missing entry and would be dropped.
    """
    gaps = np.isnan(x)
    per_column = gaps.sum(0)
    rows = np.asarray(gaps.any(1))
    count = int(rows.sum())
    if not count:
        return x, None, ""
    where = listing(
        [f"{names[d]} ({per_column[d]:,})" for d in np.argsort(-per_column, kind="stable") if per_column[d]]
    )
    if missing == "refuse":
        raise InputError(
            f"{owner} has missing values in {count:,} of {len(x):,} rows, in the columns {where}; fill them, or use "
            "--missing drop, impute or keep (missing=)"
        )
    if missing == "keep":
        return x, None, f"{count:,} of {len(x):,} rows have missing values, in the columns {where}"
    if missing == "impute":
        note = (
            f"missing values in {count:,} of {len(x):,} rows were replaced by medians and most frequent words: {where}"
        )
        return imputed(x, supports), None, note
    if count == len(x):
        raise InputError(
            f"{owner} has missing values in every row, in the columns {where}; use --missing impute "
            "(missing='impute'), or remove columns with --drop (drop=)"
        )
    return x[~rows], np.logical_not(rows), f"{count:,} of {len(x):,} rows have missing values and were dropped: {where}"
