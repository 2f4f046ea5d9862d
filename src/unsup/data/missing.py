"""Missing entries of tables: kept, or their rows dropped, or filled, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from unsup.core.errors import InputError
from unsup.core.event import Support
from unsup.data.catalog import Missing
from unsup.data.examples import SPLITS, Examples, Names, listing


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


def applied(found: Examples, missing: Missing, owner: str) -> Examples:
    """Examples of an array with missing entries, after what ``missing`` says.

    Raises:
        InputError: as `without_gaps`; or examples on disk, which cannot be changed.
    """
    if not found.event.missing or missing == "keep":
        return found
    if not isinstance(found.x, torch.Tensor):
        raise InputError(f"{owner} has missing values and stays on disk; fill them, or use --missing keep")
    event = replace(found.event, missing=False)
    names = [f"number {d}" for d in range(event.dims)]
    x, kept, note = without_gaps(found.x.double().numpy(), event.columns, missing, names, owner)
    tensor = torch.from_numpy(x).to(event.dtype if event.is_discrete else found.x.dtype)
    done = replace(found, x=tensor, event=event, notes=(*found.notes, note))
    if kept is None:
        return done
    rows = torch.from_numpy(np.flatnonzero(kept))
    taken = found.whole.take(rows)
    own = found.own
    if own is not None:
        ends = np.cumsum([0, *(own[name] for name in SPLITS if name in own)])
        counts = np.add.reduceat(kept.astype(np.int64), ends[:-1])
        own = dict(zip([name for name in SPLITS if name in own], counts.tolist(), strict=True))
    return replace(
        done,
        label=taken.label,
        given=taken.given,
        lengths=taken.lengths,
        weight=taken.weight,
        names=Names(found.names.__getitem__, rows.numpy()),
        hashes=None if found.hashes is None else found.hashes[kept],
        own=own,
    )
