"""Missing entries of tables: kept, or their rows dropped, or filled, or refused.

Entries are filled after the split, with values of the training split: medians, of words the most frequent. These values
are recorded in a run (`Gaps`), and fill the missing entries of other files too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.escapes import shell_word
from unsup.core.event import Event, Support
from unsup.data.catalog import Missing
from unsup.data.examples import SPLITS, Examples, Names, listing
from unsup.data.precision import of_type
from unsup.data.source import Data, Split


@dataclass(frozen=True)
class Gaps:
    """What is done about missing entries, as decided for the training data.

    Attributes:
        missing: the option; None for the default.
        x: the value that fills each column, or None if the training split has none; empty if the data is not a table in
            memory.
        given: the same for the columns of the conditions.
    """

    missing: Missing | None = None
    x: tuple[float | None, ...] = ()
    given: tuple[float | None, ...] = ()

    def filled(self, part: Split, names: Sequence[str] | None, owner: str) -> Split:
        """A split whose missing entries are filled; its numbers stay floats.

        Args:
            names: of the columns of ``x``, for errors.
            owner: name of the data, for errors.

        Raises:
            InputError: the training split has no value for a column.
        """
        given = None if part.given is None else _filled(part.given, self.given, None, f"the conditions of {owner}")
        return replace(part, examples=_filled(part.x, self.x, names, owner), given=given)


def gaps_of(data: Data) -> Gaps:
    """What is done about missing entries of other files of the same table."""
    given = data.train.given
    return Gaps(
        cast("Missing | None", data.options.get("missing")),
        values_of(data.train.examples, data.event) if isinstance(data.train.examples, Tensor) else (),
        () if given is None or data.given is None else values_of(given, data.given),
    )


def values_of(x: Tensor, event: Event) -> tuple[float | None, ...]:
    """The value that fills each column of rows ``(N, D)``; None where every entry is missing.

    >>> from unsup.core.event import REAL
    >>> values_of(torch.tensor([[1.0], [torch.nan], [2.0], [9.0]]), Event((1,), REAL, missing=True))
    (2.0,)
    """
    if event.layout != "vector" or len(event.shape) != 1:
        return ()
    return tuple(_value(x[:, d].double().numpy(), support) for d, support in enumerate(event.columns))


def _value(column: NDArray[np.float64], support: Support) -> float | None:
    """The median, which is one of the values if they are discrete, or the most frequent word."""
    known = column[~np.isnan(column)]
    if not len(known):
        return None
    if support.kind in ("nominal", "binary"):
        return float(np.bincount(known.astype(np.int64)).argmax())
    middle = (len(known) - 1) // 2
    return float(np.partition(known, middle)[middle]) if support.is_discrete else float(np.median(known))


def _filled(x: Tensor, values: Sequence[float | None], names: Sequence[str] | None, owner: str) -> Tensor:
    if not x.is_floating_point() or not bool((gaps := x.isnan()).any()):
        return x
    if not values:
        raise InputError(
            f"{owner} has missing values, but there are no medians of the training data for --missing impute; fill "
            "them, or use --missing drop"
        )
    if x.shape[1:] != (len(values),):  # refused with the shapes when it is passed to the model
        return x
    for d in torch.nonzero(gaps.any(0)).flatten().tolist():
        if values[d] is None:
            name, how = (
                (f"number {d}", "") if names is None else (names[d], f" with --drop {shell_word(names[d])} (drop=)")
            )
            raise InputError(
                f"{owner}: the column {name} has no value in the training split, so its missing values cannot be "
                f"filled; use --missing drop, or remove the column{how}"
            )
    fill = torch.tensor([torch.nan if v is None else v for v in values], dtype=x.dtype)
    return torch.where(gaps, fill, x)


def settled(data: Data, missing: Missing | None, owner: str, gaps: Gaps | None = None) -> Data:
    """The data with its missing entries filled, if ``missing`` asks for this.

    Args:
        gaps: values that fill them; by default those of its own training split.

    Raises:
        InputError: there is no value for a column, or conditions are missing.
    """
    conditions = data.given is not None and data.given.missing
    if missing == "impute" and (data.event.missing or conditions):
        gaps = gaps or gaps_of(data)
        event = replace(data.event, missing=False)
        given = None if data.given is None else replace(data.given, missing=False)

        def filled(part: Split) -> Split:
            part = gaps.filled(part, data.columns, owner)
            values = None if part.given is None or given is None else of_type(part.given, given)
            return replace(part, examples=of_type(part.x, event), given=values)

        train, validation, test = map(filled, (data.train, data.validation, data.test))
        return replace(data, event=event, given=given, train=train, validation=validation, test=test)
    if conditions:
        raise InputError(
            f"{owner} has missing values in the columns of given=; use --missing drop or impute (missing=)"
        )
    return data


def rows_with_gaps(gaps: NDArray[np.bool_], names: Sequence[str]) -> tuple[str, str]:
    """How many rows ``(N, D)`` have gaps, and in which columns, the most first."""
    per_column = gaps.sum(0)
    order = [d for d in np.argsort(-per_column, kind="stable") if per_column[d]]
    return f"{int(gaps.any(1).sum()):,} of {len(gaps):,} rows", listing(
        [f"{names[d]} ({per_column[d]:,})" for d in order]
    )


def without_gaps(
    x: NDArray[np.float64], missing: Missing, names: Sequence[str], owner: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None, str]:
    """Rows ``(N, D)`` as ``missing`` says, the rows that were kept (None: all), and a note.

    Entries to be filled stay NaN until the rows are split (`settled`).

    Raises:
        InputError: ``missing`` is ``"refuse"``, or every row has a missing entry and would be dropped.
    """
    gaps = np.isnan(x)
    rows = np.asarray(gaps.any(1))
    if not rows.any():
        return x, None, ""
    count, where = rows_with_gaps(gaps, names)
    if missing == "refuse":
        raise InputError(
            f"{owner} has missing values in {count}, in the columns {where}; fill them, or use "
            "--missing drop, impute or keep (missing=)"
        )
    if missing == "keep":
        return x, None, f"{count} have missing values, in the columns {where}"
    if missing == "impute":
        note = (
            f"missing values in {count} are replaced by medians and most frequent words of the training data: {where}"
        )
        return x, None, note
    if rows.all():
        raise InputError(
            f"{owner} has missing values in every row, in the columns {where}; use --missing impute "
            "(missing='impute'), or remove columns with --drop (drop=)"
        )
    return x[~rows], np.logical_not(rows), f"{count} have missing values and were dropped: {where}"


def applied(found: Examples, missing: Missing, owner: str) -> Examples:
    """Examples of an array with missing entries, after what ``missing`` says; see `without_gaps`.

    Raises:
        InputError: as `without_gaps`; or examples on disk, which cannot be changed.
    """
    if not found.event.missing or missing == "keep":
        return found
    if not isinstance(found.x, torch.Tensor):
        raise InputError(f"{owner} has missing values and stays on disk; fill them, or use --missing keep")
    names = [f"number {d}" for d in range(found.event.dims)]
    x, kept, note = without_gaps(found.x.double().numpy(), missing, names, owner)
    found = replace(found, notes=(*found.notes, note)) if note else found
    if missing == "impute":
        return found
    event = replace(found.event, missing=False)
    done = replace(
        found, x=torch.from_numpy(x).to(event.dtype if event.is_discrete else found.tensor.dtype), event=event
    )
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
