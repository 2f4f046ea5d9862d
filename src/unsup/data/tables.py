"""Tables: CSV read with the standard library, Parquet with pandas.

The split of a row depends on all its cells, including the label and dropped columns: on the value of numbers,
independent of their notation, and on the text of other cells.
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
_PER_BYTE, _PER_LINE, _PER_CELL = 20, 120, 150  # bytes of memory per byte of text, line, or cell
_ELSE = "save numbers as .npy"
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
_LONGEST_MISSING = max(map(len, _MISSING))


@dataclass(frozen=True)
class _Table:
    """Cells as text, by column; ``places`` is the location of each row ("line 7")."""

    columns: dict[str, list[str]]
    places: Sequence[str]


def read_csv(path: Path, *, label: str | None = None, drop: tuple[str, ...] = ()) -> Examples:
    """Read a CSV file (``.csv`` or ``.csv.gz``), separated by commas, semicolons or tabs, with or without a header.

    The first line is a header if none of its cells is a number; without a header, the columns are named 1, 2, ….
    Integer columns with at most 256 levels are binary or ordinal, all others are real. A last column with text is
    the label.

    Args:
        label: column of a table with the class.
        drop: columns of a table to remove.

    Raises:
        InputError: a missing, non-numeric or infinite cell (with its line and column), or a line of wrong length.
    """
    return _examples(_cells(path), path, label, drop)


def read_parquet(path: Path, *, label: str | None = None, drop: tuple[str, ...] = ()) -> Examples:
    """Read a Parquet file by the rules of `read_csv`; requires the extra ``tables``.

    Args:
        label: column with the class.
        drop: columns to remove.
    """
    try:
        import pandas  # noqa: F401 - what arrow returns
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
        # Text that occurs in many cells is then stored once.
        with ParquetFile(path, read_dictionary=words) as file:
            frame = file.read().to_pandas()
    except ImportError as error:
        raise InputError(f"reading {path} needs pandas and pyarrow: pip install 'unsup[tables]'") from error
    except (OSError, ValueError, ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a Parquet file ({described(error)}); save it again") from error
    columns = {}
    for name in frame.columns:
        column = frame[name]
        if column.dtype == "category":
            known = [*map(str, column.cat.categories.tolist()), ""]  # the last is for missing cells, code -1
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
        except (ImportError, OSError, ValueError):  # reading it will report the error
            return True
    return name in _cells(path, most=2).columns


def table_event(x: NDArray[np.float64]) -> tuple[torch.Tensor, Event]:
    """Rows ``(N, D)`` as raw data and its event: integers with at most 256 levels are discrete, others real."""
    return as_table(torch.from_numpy(x), tuple(_support(x[:, d]) for d in range(x.shape[1])))


def as_table(x: torch.Tensor, supports: Sequence[Support]) -> tuple[torch.Tensor, Event]:
    """Rows ``(N, D)`` with these supports as raw data, and their event."""
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
                            "fix or delete the line"
                        )
                    lines.append(reader.line_num)
                    rows.append(row)
                if len(rows) == most:
                    break
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: {described(error)}; fix the line, or save the table again as UTF-8"
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
        raise InputError(f"{path} has a header ({listing(names)}) but no rows; expected lines of numbers after it")
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
    """Raise `InputError` for text whose cells would not fit into memory; compressed text is not unpacked further."""
    what, size, endless, most = f"the content of {path}", 0, 0, memory.limit()
    if opener is open:
        check_fits(_PER_BYTE * path.stat().st_size, what, _ELSE)
    with opener(path, "rb") as file:
        # A line that is too long is refused when it is read, without reading the rest.
        while size <= most and endless <= 4 * _LONGEST_LINE and (part := file.read(_AT_ONCE)):
            size += _PER_BYTE * len(part) + _PER_LINE * part.count(b"\n")
            endless = 0 if b"\n" in part or b"\r" in part else endless + len(part)
    check_fits(size, what, _ELSE)


def _check_width(path: Path, width: int) -> None:
    if width > _MOST_COLUMNS:
        raise InputError(f"{path} has {width:,} columns; the maximum is {_MOST_COLUMNS:,}: {_ELSE}")


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
            notes.append(f"the last column ({last!r}) contains text and is used as the label")
    numbers, labels = None, None
    if label is not None:
        if label not in columns:
            raise InputError(f"{path} has no column {label!r} for the label{nearest(label, columns)}")
        numbers, labels = _label(columns.pop(label), f"the column {label!r} of {path}")
    if not columns:
        raise InputError(
            f"{path} has no columns besides the label and dropped columns; expected at least one column of numbers"
        )
    x = np.stack(
        [_numbers(name, cells, values[name], table.places, path) for name, cells in columns.items()], 1
    )  # (N, D)
    constant = [name for d, name in enumerate(columns) if (x[:, d] == x[0, d]).all()]
    if constant and len(x) > 1:
        notes.append(f"{len(constant)} constant column{'s' * (len(constant) != 1)}: {listing(constant)}")
    apart = len(np.unique(hashes)) - len(np.unique(row_hashes(x))) if drop else 0
    if apart:
        notes.append(
            f"{apart} rows differ from another row only in the label or dropped columns, and may be in another split; "
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
    numbers = {name: i for i, name in enumerate(names)}  # an array of strings would pad all to the longest
    return torch.tensor([numbers[cell] for cell in cells]), tuple(names)


def _whole(cells: Sequence[str]) -> NDArray[np.object_] | None:
    """Cells as integers with all their digits, or None if one is not an integer."""
    try:
        return np.array([int(cell) for cell in cells], dtype=object)
    except ValueError:
        return None


def _values(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """A column as float64, or None if a cell is not a number."""
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        return None


def _numbers(
    name: str, cells: Sequence[str], values: NDArray[np.float64] | None, places: Sequence[str], path: Path
) -> NDArray[np.float64]:
    """A column of finite numbers, or an error about its first invalid cell."""
    if values is not None and np.isfinite(values).all():
        _check_digits(name, cells, values, path)
        return values
    bad = [i for i, cell in enumerate(cells) if not (_is_number(cell) and math.isfinite(float(cell)))]
    cell, count = cells[bad[0]], f" ({len(bad)} such cells in this column)" if len(bad) > 1 else ""
    where = f"{path}, {places[bad[0]]}, column {name!r}"
    leave_out = f"remove the column (--drop {name}, drop=({name!r},))"
    if _is_missing(cell):
        raise InputError(f"{where}: the cell is missing ({cell!r}){count}; fill it, delete the line, or {leave_out}")
    if _is_number(cell):
        raise InputError(f"{where}: {cell!r} is not finite{count}; correct it, delete the line, or {leave_out}")
    raise InputError(
        f"{where}: {cell!r} is not a number{count}; correct it, {leave_out}, or use it as the label "
        f"(--label {name}, label={name!r})"
    )


def _check_digits(name: str, cells: Sequence[str], values: NDArray[np.float64], path: Path) -> None:
    """Raise `InputError` for integers that became equal as float64."""
    if abs(values).max() < 2**53:
        return
    whole = _whole(cells)
    if whole is not None and beyond_float64(whole[:, None], [_support(values)]) is not None:
        raise InputError(
            f"{path}, column {name!r}: integers from {whole.min()} to {whole.max()} are too far from 0 for "
            f"float64 to distinguish them; {nearer_0(whole.min(), whole.max())}, or remove the column (--drop "
            f"{name}, drop=({name!r},))"
        )


def _is_missing(cell: str) -> bool:
    return len(cell) <= _LONGEST_MISSING and cell.lower() in _MISSING


def _is_number(cell: str) -> bool:
    """Whether the cell is a number, including infinity but not missing ("nan")."""
    if _is_missing(cell):
        return False
    try:
        float(cell)
    except ValueError:
        return False
    return True
