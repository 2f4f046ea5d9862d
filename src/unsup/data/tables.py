"""Tables: CSV read with the standard library, Parquet through pandas.

A row's split goes by all of its cells, those of the label and of dropped columns too: numbers by their value, however
they are written, and all else by its text.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from unsup.core import memory
from unsup.core.errors import InputError, nearest
from unsup.core.event import REAL, Event, Support
from unsup.data.arrays import whole_support
from unsup.data.bounds import check_fits, described
from unsup.data.examples import Examples, Names, classes, listing
from unsup.data.hashing import cell_words, column_hashes, row_hashes
from unsup.data.precision import beyond_float64, nearer_0, precise, some_rows

_MOST_COLUMNS = 100_000
_LONGEST_LINE, _AT_ONCE = 2**24, 2**20  # characters
_PER_BYTE, _PER_LINE, _PER_CELL = 20, 120, 150  # bytes of memory that a byte of text, a line, or a cell takes
_ELSE = "give numbers as .npy"
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
_LONGEST_MISSING = max(map(len, _MISSING))


@dataclass(frozen=True)
class _Table:
    """Cells as text, by column; ``places`` says where each row stands ("line 7")."""

    columns: dict[str, list[str]]
    places: Sequence[str]


def read_csv(path: Path, *, label: str | None = None, drop: tuple[str, ...] = ()) -> Examples:
    """A CSV file (``.csv`` or ``.csv.gz``), separated by commas, semicolons or tabs, with a header or without.

    The first line is a header when none of its cells is a number; without one the columns are called 1, 2, ….
    Whole-numbered columns of at most 256 levels are binary or ordinal, all others real. A last column of words is
    the label.

    Args:
        label: column of a table that holds the class.
        drop: columns of a table to leave out.

    Raises:
        InputError: a missing, non-numeric or infinite cell (its line and column are named), a ragged line.
    """
    return _examples(_cells(path), path, label, drop)


def read_parquet(path: Path, *, label: str | None = None, drop: tuple[str, ...] = ()) -> Examples:
    """A Parquet file, by the rules of `read_csv`; it needs the extra ``tables``.

    Args:
        label: column that holds the class.
        drop: columns to leave out.
    """
    try:
        import pandas  # noqa: F401 - what arrow hands out
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        with ParquetFile(path) as file:
            about = file.metadata
            groups = [about.row_group(g) for g in range(about.num_row_groups)]
            _check_width(path, about.num_columns)
            cells = sum(group.column(c).num_values for group in groups for c in range(group.num_columns))
            packed = sum(group.total_byte_size for group in groups)
            check_fits(_PER_CELL * max(cells, about.num_rows) + _PER_BYTE * packed, str(path), _ELSE)
        words = [
            about.row_group(0).column(c).path_in_schema
            for c in range(about.num_columns if groups else 0)
            if about.row_group(0).column(c).physical_type == "BYTE_ARRAY"
        ]
        # A word that stands in many cells is then held once.
        with ParquetFile(path, read_dictionary=words) as file:
            frame = file.read().to_pandas()
    except ImportError as error:
        raise InputError(f"reading {path} needs pandas and pyarrow: pip install 'unsup[tables]'") from error
    except (OSError, ValueError, ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no Parquet file ({described(error)}); write it again") from error
    columns = {}
    for name in frame.columns:
        column = frame[name]
        if column.dtype == "category":
            known = [*map(str, column.cat.categories.tolist()), ""]  # the last is that of missing cells, number -1
            columns[str(name)] = [known[code] for code in column.cat.codes.tolist()]
        else:
            cells_of = (column.astype("int8") if column.dtype == bool else column).tolist()
            columns[str(name)] = ["" if cell is None else str(cell) for cell in cells_of]
    return _examples(_Table(columns, Names("row {}".format, range(len(frame)))), path, label, drop)


def has_column(path: Path, name: str) -> bool:
    """Whether a table has a column ``name``; only its header is read."""
    if path.name.lower().endswith((".parquet", ".pq")):
        try:
            from pyarrow.parquet import read_schema

            return name in read_schema(path).names
        except (ImportError, OSError, ValueError):  # reading it will say so
            return True
    return name in _cells(path, most=2).columns


def table_event(x: NDArray[np.float64]) -> tuple[torch.Tensor, Event]:
    """Rows ``(N, D)`` as raw data and its event: whole numbers of at most 256 levels are discrete, others real."""
    return as_table(torch.from_numpy(x), tuple(_support(x[:, d]) for d in range(x.shape[1])))


def as_table(x: torch.Tensor, supports: Sequence[Support]) -> tuple[torch.Tensor, Event]:
    """Rows ``(N, D)`` of these supports as raw data, and their event."""
    event = precise(Event(x.shape[1:], tuple(supports)), x[torch.from_numpy(some_rows(*x.shape))].double().numpy())
    return x.to(event.dtype if event.is_discrete else torch.float64), event


def _support(column: NDArray[np.float64]) -> Support:
    whole = bool((column == np.floor(column)).all())
    return whole_support(int(column.min()), int(column.max())) if whole else REAL


def _cells(path: Path, most: int | None = None) -> _Table:
    """The cells of a CSV file, or of its first ``most`` lines."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        if most is None:
            _check_text_fits(path, opener)
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            separator = max(",;\t", key=file.readline(_LONGEST_LINE).count)
            file.seek(0)
            reader = csv.reader(_lines(file, path), delimiter=separator)
            lines = array("q")
            rows: list[list[str]] = []
            for row in reader:
                if row:
                    if not rows:
                        _check_width(path, len(row))
                    elif len(row) != len(rows[0]):
                        raise InputError(
                            f"{path}, line {reader.line_num}: {len(row)} cells, but the first line has {len(rows[0])}; "
                            "mend or delete the line"
                        )
                    lines.append(reader.line_num)
                    rows.append(row)
                if len(rows) == most:
                    break
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: {described(error)}; mend the line, or save the table again as UTF-8"
        ) from error
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path} cannot be read as CSV ({described(error)}); save it again as UTF-8") from error
    if not rows:
        raise InputError(f"{path} is empty; expected lines of numbers separated by , ; or tabs")
    names = [str(i + 1) for i in range(len(rows[0]))]
    if not any(_is_number(cell) for cell in rows[0]):
        names = [cell.strip() for cell in rows[0]]
        lines, rows = lines[1:], rows[1:]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: the header names the column {name!r} {count} times; rename one")
    if not rows:
        raise InputError(f"{path} holds a header ({listing(names)}) and no rows; expected lines of numbers after it")
    columns = {name: [row[d].strip() for row in rows] for d, name in enumerate(names)}
    return _Table(columns, Names("line {}".format, np.array(lines)))


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE and line[-1] not in "\r\n":
            raise InputError(f"{path}, line {number}: longer than {_LONGEST_LINE:,} characters; {_ELSE}")
        yield line


def _check_text_fits(path: Path, opener: Callable[..., IO[Any]]) -> None:
    """Raise `InputError` for text that would not fit into memory as cells; packed text is not unpacked beyond that."""
    what, size, endless, most = f"what {path} holds", 0, 0, memory.limit()
    if opener is open:
        check_fits(_PER_BYTE * path.stat().st_size, what, _ELSE)
    with opener(path, "rb") as file:
        # A line that goes on for too long is refused where it is read, which needs no look at the rest.
        while size <= most and endless <= 4 * _LONGEST_LINE and (part := file.read(_AT_ONCE)):
            size += _PER_BYTE * len(part) + _PER_LINE * part.count(b"\n")
            endless = 0 if b"\n" in part or b"\r" in part else endless + len(part)
    check_fits(size, what, _ELSE)


def _check_width(path: Path, width: int) -> None:
    if width > _MOST_COLUMNS:
        raise InputError(f"{path} has {width:,} columns; a table may have {_MOST_COLUMNS:,}: {_ELSE}")


def _examples(table: _Table, path: Path, label: str | None, drop: tuple[str, ...]) -> Examples:
    columns, notes = dict(table.columns), []
    values = {name: _values(cells) for name, cells in columns.items()}
    hashed = (cell_words(cells, values[name]) for name, cells in columns.items())
    hashes = column_hashes(hashed, len(table.places), len(columns))
    for name in drop:
        if name not in columns:
            raise InputError(f"{path} has no column {name!r} to drop{nearest(name, columns)}")
        del columns[name]
    if label is None and columns:
        last = list(columns)[-1]
        if not any(_is_number(cell) or _is_missing(cell) for cell in set(columns[last])):
            label = last
            notes.append(f"the last column ({last!r}) holds words and is taken as the label")
    numbers, labels = None, None
    if label is not None:
        if label not in columns:
            raise InputError(f"{path} has no column {label!r} for the label{nearest(label, columns)}")
        numbers, labels = _label(columns.pop(label), f"the column {label!r} of {path}")
    if not columns:
        raise InputError(
            f"{path} has no column left besides the label and those dropped; expected one or more of numbers"
        )
    x = np.stack(
        [_numbers(name, cells, values[name], table.places, path) for name, cells in columns.items()], 1
    )  # (N, D)
    constant = [name for d, name in enumerate(columns) if (x[:, d] == x[0, d]).all()]
    if constant and len(x) > 1:
        notes.append(f"{len(constant)} columns hold one value only: {listing(constant)}")
    apart = len(np.unique(hashes)) - len(np.unique(row_hashes(x))) if drop else 0
    if apart:
        notes.append(
            f"{apart} rows equal another one but for the label and the columns left out, and may be in another split; "
            "delete these columns from the file to keep such rows together"
        )
    tensor, event = table_event(x)
    return Examples(
        tensor,
        event,
        table.places,
        numbers,
        labels,
        tuple(notes),
        split="by a hash of each row",
        hashes=hashes,
        columns=tuple(columns),
    )


def _label(cells: list[str], what: str) -> tuple[torch.Tensor, tuple[str, ...]]:
    if any(_is_missing(cell) for cell in cells):
        raise InputError(
            f"{what} (the label) has {sum(map(_is_missing, cells))} missing cells; fill them or delete the lines"
        )
    whole = _whole(cells)
    if whole is not None:
        return classes(whole, what)
    names = sorted(set(cells))
    if all(_is_number(cell) for cell in names):
        return classes(np.array([float(c) for c in cells]), what)
    numbers = {name: i for i, name in enumerate(names)}  # an array of words would make all as long as the longest
    return torch.tensor([numbers[cell] for cell in cells]), tuple(names)


def _whole(cells: Sequence[str]) -> NDArray[np.object_] | None:
    """Cells that are all written as whole numbers, with all their digits; None where one is not."""
    try:
        return np.array([int(cell) for cell in cells], dtype=object)
    except ValueError:
        return None


def _values(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """A column as float64, or None where a cell is no number."""
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        return None


def _numbers(
    name: str, cells: Sequence[str], values: NDArray[np.float64] | None, places: Sequence[str], path: Path
) -> NDArray[np.float64]:
    """A column of finite numbers, or the error that names its first bad cell."""
    if values is not None and np.isfinite(values).all():
        _check_digits(name, cells, values, path)
        return values
    bad = [i for i, cell in enumerate(cells) if not (_is_number(cell) and math.isfinite(float(cell)))]
    cell, count = cells[bad[0]], f" ({len(bad)} such cells in this column)" if len(bad) > 1 else ""
    where = f"{path}, {places[bad[0]]}, column {name!r}"
    leave_out = f"leave the column out (--drop {name}, drop=({name!r},))"
    if _is_missing(cell):
        raise InputError(f"{where}: the cell is missing ({cell!r}){count}; fill it, delete the line, or {leave_out}")
    if _is_number(cell):
        raise InputError(f"{where}: {cell!r} is not finite{count}; correct it, delete the line, or {leave_out}")
    raise InputError(
        f"{where}: {cell!r} is not a number{count}; correct it, {leave_out}, or take it as the label "
        f"(--label {name}, label={name!r})"
    )


def _check_digits(name: str, cells: Sequence[str], values: NDArray[np.float64], path: Path) -> None:
    """Raise `InputError` for whole numbers that became equal as float64."""
    if abs(values).max() < 2**53:
        return
    whole = _whole(cells)
    if whole is not None and beyond_float64(whole[:, None], [_support(values)]) is not None:
        raise InputError(
            f"{path}, column {name!r}: whole numbers from {whole.min()} to {whole.max()} are too far from 0 for "
            f"float64 to tell them apart; {nearer_0(whole.min(), whole.max())}, or leave the column out (--drop "
            f"{name}, drop=({name!r},))"
        )


def _is_missing(cell: str) -> bool:
    return len(cell) <= _LONGEST_MISSING and cell.lower() in _MISSING


def _is_number(cell: str) -> bool:
    """Whether the cell is a number; an infinite one is, a missing one ("nan") is not."""
    if _is_missing(cell):
        return False
    try:
        float(cell)
    except ValueError:
        return False
    return True
