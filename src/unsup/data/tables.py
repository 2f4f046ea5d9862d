"""Tables: CSV, Parquet, Arrow and Excel files, and data frames, read with Arrow.

The split of a row depends on all its cells, including the label and dropped columns: on the value of numbers,
independent of their notation, and on the text of other cells.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from unsup.core.config import Count
from unsup.core.errors import InputError, nearest
from unsup.core.escapes import shell_word
from unsup.core.event import REAL, Event, Support
from unsup.core.words import counted
from unsup.data import delimited, series
from unsup.data.arrays import whole_support
from unsup.data.bounds import check_fits, described
from unsup.data.catalog import TABLES_BY_SUFFIX, Missing
from unsup.data.columns import (
    Column,
    Found,
    TableForm,
    Values,
    delimited_bytes,
    distinct_words,
    read_again,
    read_column,
    read_label,
)
from unsup.data.delimited import ELSE, Raw, read_delimited
from unsup.data.examples import Examples, Names, classes, listing
from unsup.data.hashing import Words, column_hashes, row_hashes
from unsup.data.missing import without_gaps
from unsup.data.notation import Notation, is_missing, is_number
from unsup.data.precision import beyond_float64, nearer_0, precise, some_rows

_PER_CELL, _PER_ROW, _PER_BYTE = 40, 100, 20  # bytes of memory per cell, row and byte of packed text
_WHOLE = 2**53  # float64 represents all integers up to this
_MOST_CLASSES = 1000  # of a last column that is the label without being named
_SHOWN, _FEWEST = 3, 3  # problems that are shown; rows that can be split
_STREAM = b"\xff\xff\xff\xff"  # the first bytes of a stream of Arrow, which a file does not have
_FIRST = 500  # rows of a sheet that decide whether it has a row of names
_FRAME = "the data frame"
_FEWEST_ROWS = 20  # of a column that counts the rows


def read_csv(
    path: Path,
    *,
    label: str | None = None,
    drop: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    missing: Missing = "keep",
    decimal: Literal[".", ","] | None = None,
    header: bool | None = None,
    length: Count | None = None,
    stride: Count | None = None,
    time: str | None = None,
) -> Examples:
    """Read delimited text: ``.csv``, ``.tsv``, or packed as ``.gz``, ``.bz2``, ``.xz`` or ``.zst``.

    The separator (comma, semicolon, tab, |), the encoding and whether there is a header are detected; without a header,
    the columns are named 1, 2, …. Words are categories, numbered in alphabetical order; two words are binary. Integers
    with at most 256 levels are binary or ordinal, other numbers are real, and so are dates, in days since 1970-01-01.
    A last column of words is the label if all other columns are numbers.

    Args:
        label: column of a table with the class.
        drop: columns of a table to remove.
        categorical: columns of a table whose cells are categories although they look like numbers or dates.
        missing: rows of a table with missing values: ``keep`` them for models that support them, ``drop`` them,
            ``impute`` medians and most frequent words, or ``refuse`` the table.
        decimal: the decimal point of a table; detected by default.
        header: whether the first line of a table has names; detected by default.
        length: number of rows of a window: the table is then a series, whose windows are split by time.
        stride: rows from one window of a series to the next; a quarter of ``length`` by default.
        time: column of a series by which its rows are sorted; the only column of dates by default.

    Raises:
        InputError: cells that are not numbers in a column of numbers, infinite cells, or lines of wrong length.
    """
    asked = (*categorical, *([label] if label is not None else []))
    raw = read_delimited(path, decimal=decimal, header=header, words=asked)

    def again(name: str) -> pa.ChunkedArray:
        return read_delimited(path, decimal=decimal, header=header, words=(name,)).columns[name]

    if length is None:
        if stride is not None or time is not None:
            raise InputError(f"{path}: stride and time are for series; add the length of their windows (--length N)")
        return _examples(raw, str(path), label, drop, categorical, missing, again)
    if label is not None or categorical:
        raise InputError(f"{path}: a series has no label and no categories; remove --label and --categorical")
    return _series(raw, path, drop, length, stride, time, missing)


def read_parquet(
    path: Path,
    *,
    label: str | None = None,
    drop: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    missing: Missing = "keep",
) -> Examples:
    """Read a Parquet file (``.parquet``) or an Arrow file (``.arrow``, ``.feather``) by the rules of `read_csv`.

    Args:
        label: column with the class.
        drop: columns to remove.
        categorical: columns whose values are categories although they are numbers or dates.
        missing: as for CSV.
    """
    return _examples(_raw(*_arrow_table(path)), str(path), label, drop, categorical, missing)


def read_excel(
    path: Path,
    *,
    label: str | None = None,
    drop: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    missing: Missing = "keep",
    header: bool | None = None,
    sheet: str | None = None,
) -> Examples:
    """Read a sheet of an Excel or OpenDocument file by the rules of `read_csv`; requires the extra ``excel``.

    Args:
        label: column with the class.
        drop: columns to remove.
        categorical: columns whose cells are categories although they are numbers or dates.
        missing: as for CSV.
        header: whether the first row of the sheet has names; detected by default.
        sheet: name of a sheet of an Excel file; the first by default.
    """
    return _examples(_excel(path, sheet, header), str(path), label, drop, categorical, missing)


def read_frame(
    frame: Any,
    *,
    label: str | None = None,
    drop: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    missing: Missing = "keep",
) -> Examples:
    """Read a data frame of pandas or polars, or an Arrow table, by the rules of `read_csv`.

    Args:
        frame: an object with ``__arrow_c_stream__``.
        label: column with the class.
        drop: columns to remove.
        categorical: columns whose values are categories although they are numbers or dates.
        missing: as for CSV.
    """
    return _examples(_frame(frame), "the data frame", label, drop, categorical, missing)


def _frame(frame: Any) -> Raw:
    try:
        table = pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"the data frame cannot be read ({described(error)}); convert its columns") from error
    return _raw(table, table.schema)


def read_like(
    path: Any, form: TableForm, *, missing: Missing = "keep", cover: bool = False, **options: Any
) -> Examples:
    """Another table with the columns of ``form``, matched by name: their words keep their numbers.

    Other columns are ignored.

    Args:
        path: a file that `read_csv`, `read_parquet` or `read_excel` reads, or a data frame.
        form: the columns of ``x`` and of the conditions, which follow them.
        missing: as for CSV.
        cover: of a series, whether every row is in a window, of which the last may overlap the one before it.
        **options: of the reader.

    Raises:
        InputError: a column does not exist, or has cells of another kind.
    """
    owner = _owner(path)
    if form.window:
        rows, separator = series_like(path, form, **options)
        return series.windows(
            rows,
            length=form.window,
            stride=options.get("stride"),
            missing=missing,
            separator=separator,
            owner=owner,
            whole=True,
            cover=cover,
        )
    found, raw, notes, _ = _columns_like(path, form, options)
    own = list(raw.columns)
    x = np.stack([each.values for each in found], 1)
    label = options.get("label") or form.label
    if label and options.get("label") and label not in own:
        raise InputError(f"{owner} has no column {label!r} for the label{nearest(label, own)}")
    done, kept = _table(found, x, raw, owner, form, missing, notes)
    if label in own:
        read = read_label(label, raw.columns[label])
        if not np.isnan(read.values).any():  # a label is not needed here
            numbers, classes_of = _classes(read, f"the column {label!r} of {owner}")
            done = replace(done, label=numbers if kept is None else numbers[torch.from_numpy(kept)], labels=classes_of)
    return done


def series_like(path: Any, form: TableForm, **options: Any) -> tuple[series.Series, str]:
    """The rows of another series with the columns of ``form`` in the order of time, and the separator of its cells.

    Raises:
        InputError: as `read_like`.
    """
    found, raw, notes, time = _columns_like(path, form, options)
    x = np.stack([each.values for each in found], 1)
    rows = series.Series(x, tuple(each.column for each in found), raw.places, tuple(notes))
    return series.in_order(rows, None if time is None else time.name, _owner(path)), raw.separator


def _owner(path: Any) -> str:
    return str(path) if isinstance(path, Path) else _FRAME


def _columns_like(
    path: Any, form: TableForm, options: Mapping[str, Any]
) -> tuple[list[Found], Raw, list[str], Column | None]:
    """The columns of ``form`` in another table, its cells, notes, and the time, which is last, or None."""
    columns = (*form.columns, *form.given)
    timed = columns if form.time is None else (*columns, form.time)
    raw, by_position = _raw_like(path, form, timed, options)
    owner = _owner(path)
    own, names, notes = list(raw.columns), [c.name for c in columns], list(raw.notes)
    if by_position:
        notes.append(f"no header, so the columns are matched by position: {listing(names)}")
    else:
        if other := [
            name for name in own if name not in (*names, form.time and form.time.name, form.label, options.get("label"))
        ]:
            plural = "s" * (len(other) != 1)
            notes.append(f"ignored {len(other)} column{plural} that the model does not have: {listing(other)}")
        if [name for name in own if name in names] != names:
            notes.append("columns are matched by name; their order differs from the training data")
    time = form.time
    if time is not None and time.name not in own:
        notes.append(f"there is no column {time.name!r} (the time), so rows are taken in the order of the file")
        timed, time = columns, None
    found = [read_again(c, raw.columns[c.name]) for c in timed]
    _check_cells(found, raw, owner, needed=True)
    notes += [each.note for each in found if each.note]
    return found, raw, notes, time


def cells_like(path: Path, form: TableForm) -> tuple[list[Found], str]:
    """The columns of ``form`` in another table, row by row, and its separator; cells that do not fit are NaN.

    Raises:
        InputError: the file cannot be read, or a column does not exist.
    """
    raw, _ = _raw_like(path, form, form.columns, {})
    return [_without_problems(read_again(column, raw.columns[column.name])) for column in form.columns], raw.separator


def _without_problems(found: Found) -> Found:
    values = found.values.copy()
    values[[row for row, _, _ in found.problems]] = np.nan
    return replace(found, values=values)


def _raw_like(path: Any, form: TableForm, columns: Sequence[Column], options: Mapping[str, Any]) -> tuple[Raw, bool]:
    """The cells of another table with these columns, and whether they were matched by position."""
    as_text = [c.name for c in columns if c.kind != "number" or c.notation != Notation(c.notation.comma)]
    if isinstance(path, Path):
        owner, raw = str(path), raw_table(path, words=as_text, **_as_before(path, form, options))
    else:
        owner, raw = _FRAME, _frame(path)
    own, names = list(raw.columns), [c.name for c in (*form.columns, *form.given)]
    if not raw.named and set(names) - set(own) and len(own) == len(names):
        sample = {name: raw.sample.get(old, []) for old, name in zip(own, names, strict=True)}
        return replace(raw, columns=dict(zip(names, raw.columns.values(), strict=True)), sample=sample), True
    if absent := [name for name in names if name not in own]:
        raise InputError(
            f"{owner} has no column {listing(absent)}, but the model was trained with it{nearest(absent[0], own)}"
        )
    return raw, False


def _as_before(path: Path, form: TableForm, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the reader, with the decimal point and the header of ``form`` if they are not given."""
    columns = (*form.columns, *form.given, *([form.time] if form.time is not None else []))
    found = dict(options)
    if found.get("decimal") is None:
        found["decimal"] = "," if any(column.notation.comma for column in columns) else "."
    if found.get("header") is None and path.name.lower().endswith(TABLES_BY_SUFFIX["a .csv table"]):
        if {column.name for column in form.columns} <= set(delimited.first_cells(path)):
            found["header"] = True
        elif not form.header:
            found["header"] = False
    return found


def filled(path: Path, form: TableForm, x: torch.Tensor, gaps: torch.Tensor, out: Path, **options: Any) -> bytes:
    """The content of a CSV file after its missing cells are filled; its other cells, of all columns, stay as text.

    Args:
        path: a file that `read_csv` reads.
        form: the columns of ``x``.
        x: values of all rows, ``(N, D)``.
        gaps: which cells are filled, bool ``(N, D)``.
        out: the file that will have the content.
        **options: of the reader.
    """
    options = _as_before(path, form, options)
    names = delimited.column_names(path, header=options.get("header"))
    raw = raw_table(path, words=names, **options)
    own = [column.name for column in form.columns]
    if not set(own) <= set(names):  # matched by position, as in `read_like`
        own = list(names)
    columns = tuple(read_again(c, raw.columns[name]).column for c, name in zip(form.columns, own, strict=True))
    cells = {name: column.to_pylist() for name, column in raw.columns.items()}
    for d, (name, drawn) in enumerate(zip(own, replace(form, columns=columns).cells(x), strict=True)):
        for row in gaps[:, d].nonzero()[:, 0].tolist():
            cells[name][row] = drawn[row]
    header = [names] if raw.named else []
    return delimited_bytes([*header, *zip(*cells.values(), strict=True)], out, raw.separator)


def raw_table(path: Path, *, words: Sequence[str] = (), **options: Any) -> Raw:
    """The cells of any table file."""
    name = path.name.lower()
    if name.endswith(TABLES_BY_SUFFIX["a .parquet table"]):
        return _raw(*_arrow_table(path))
    if name.endswith(TABLES_BY_SUFFIX["an Excel table"]):
        return _excel(path, options.get("sheet"), options.get("header"))
    return read_delimited(path, decimal=options.get("decimal"), header=options.get("header"), words=words)


def has_column(path: Path, name: str) -> bool:
    """Whether a table has a column ``name``; only its header is read."""
    if path.name.lower().endswith((".parquet", ".pq")):
        try:
            from pyarrow.parquet import read_schema

            with path.open("rb") as opened:
                return name in read_schema(opened).names
        except (OSError, ValueError):  # reading it will report the error
            return True
    if path.name.lower().endswith(TABLES_BY_SUFFIX["a .csv table"]):
        return name in delimited.column_names(path)
    return name in raw_table(path).columns


def table_event(x: NDArray[np.float64]) -> tuple[torch.Tensor, Event]:
    """Rows ``(N, D)`` as raw data and its event: integers with at most 256 levels are discrete, others real."""
    return as_table(torch.from_numpy(x), tuple(_support(x[:, d]) for d in range(x.shape[1])))


def as_table(x: torch.Tensor, supports: Sequence[Support]) -> tuple[torch.Tensor, Event]:
    """Rows ``(N, D)`` with these supports as raw data, and their event; NaN is a missing entry."""
    gaps = x.is_floating_point() and bool(x.isnan().any())
    rows = x[torch.from_numpy(some_rows(*x.shape))].double().numpy()
    if gaps:
        rows = np.where(np.isnan(rows), np.array([_middle(rows[:, d]) for d in range(rows.shape[1])]), rows)
    event = replace(precise(Event(x.shape[1:], tuple(supports)), rows), missing=gaps)
    return x.to(event.dtype if event.is_discrete else torch.float64), event


def _middle(column: NDArray[np.float64]) -> float:
    known = column[~np.isnan(column)]
    return float(np.median(known)) if len(known) else 0.0


def _support(column: NDArray[np.float64]) -> Support:
    whole = bool((column == np.floor(column)).all())
    return whole_support(int(column.min()), int(column.max())) if whole else REAL


# --- files --------------------------------------------------------------------------------------------------------


def _arrow_table(path: Path) -> tuple[pa.Table, pa.Schema]:
    """A Parquet or Arrow file, and the types that it was written with, as far as they are known."""
    what = "a Parquet file" if path.name.lower().endswith((".parquet", ".pq")) else "an Arrow file"
    try:
        if what == "an Arrow file":
            from pyarrow import feather

            check_fits(3 * path.stat().st_size, str(path), ELSE)
            with path.open("rb") as opened:
                streamed = opened.read(len(_STREAM)) == _STREAM
                opened.seek(0)
                table = (
                    pa.ipc.open_stream(opened).read_all() if streamed else feather.read_table(opened, memory_map=False)
                )
                return table, table.schema
        from pyarrow.parquet import ParquetFile

        with path.open("rb") as opened, ParquetFile(opened) as file:
            about = file.metadata
            groups = [about.row_group(g) for g in range(about.num_row_groups)]
            delimited.check_width(path, about.num_columns)
            cells = sum(group.column(c).num_values for group in groups for c in range(group.num_columns))
            record = (about.metadata or {}).get(b"ARROW:schema")
            written = pa.schema([]) if record is None else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(record)))
            packed = sum(group.total_byte_size for group in groups)
            check_fits(_PER_CELL * cells + _PER_ROW * about.num_rows + _PER_BYTE * packed, str(path), ELSE)
            text = [
                about.row_group(0).column(c).path_in_schema
                for c in range(about.num_columns if groups else 0)
                if about.row_group(0).column(c).physical_type == "BYTE_ARRAY"
            ]
        # Text that occurs in many cells is then stored once.
        with path.open("rb") as opened, ParquetFile(opened, read_dictionary=text) as file:
            return file.read(), written
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not {what} ({described(error)}); save it again") from error


def _raw(table: pa.Table, written: pa.Schema) -> Raw:
    """The cells of a table; ``written`` has the types that it was written with."""
    kept = [name for name in table.column_names if not name.startswith("__index_level_")]
    declared = frozenset(
        field.name
        for field in written
        if pa.types.is_dictionary(field.type) and not isinstance(field.type.value_type, pa.BaseExtensionType)
    )
    columns = {name: table[name] for name in kept}
    return Raw(columns, Names("row {}".format, range(table.num_rows)), {}, categories=declared.intersection(kept))


def _excel(path: Path, sheet: str | None, header: bool | None) -> Raw:
    try:
        import python_calamine
    except ImportError as error:
        raise InputError(f"reading {path} needs python-calamine: pip install 'unsup[excel]'") from error
    try:
        check_fits(_PER_CELL * path.stat().st_size, str(path), ELSE)
        with path.open("rb") as opened:
            book = python_calamine.CalamineWorkbook.from_filelike(opened)
        if sheet is not None and sheet not in book.sheet_names:
            raise InputError(f"{path} has no sheet {sheet!r}{nearest(sheet, book.sheet_names)}")
        found = book.get_sheet_by_name(sheet or book.sheet_names[0])
        rows = found.to_python(skip_empty_area=True)
    except (OSError, ValueError, python_calamine.CalamineError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a readable spreadsheet ({described(error)}); save it as CSV") from error
    if not rows:
        raise InputError(f"{path} has no rows in its sheet; expected rows of numbers or words, below a row of names")
    head = [[_shown(cell) for cell in row] for row in rows[:_FIRST]]
    named, note = (header, "") if header is not None else delimited.has_header(head)
    names = [cell or f"column {d + 1}" for d, cell in enumerate(head[0])]
    if not named:
        names = [str(d + 1) for d in range(len(names))]
    elif len(rows) < 2:
        raise InputError(f"{path} has a row of names ({listing(names)}) but no rows below it")
    if sheet is None and len(rows) - named < _FEWEST and len(book.sheet_names) > 1:
        raise InputError(
            f"{path}: the first sheet has {counted(len(rows), 'row')}; choose one of its sheets with --sheet (sheet=): "
            f"{listing([repr(s) for s in book.sheet_names])}"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: the header names the column {twice!r} {names.count(twice)} times; rename one")
    columns = [_cells_of_sheet([row[d] for row in rows[named:]]) for d in range(len(names))]
    if header is None and not named:
        note = note or "the first line is read as a row, because it has numbers (--header to change this)"
    notes = [note.replace("first line", "first row")] if note else []
    if sheet is None and len(book.sheet_names) > 1:
        others = listing([repr(s) for s in book.sheet_names[1:]])
        notes.append(f"sheet {book.sheet_names[0]!r} is read; the others are {others} (--sheet)")
    cells = {name: pa.chunked_array([column]) for name, column in zip(names, columns, strict=True)}
    first = 1 + named + (found.start or (0, 0))[0]  # empty rows above the table are not read
    places = Names("row {}".format, range(first, first + len(rows) - named))
    return Raw(cells, places, {}, named=named, notes=tuple(notes))


def _cells_of_sheet(cells: list[Any]) -> pa.Array:
    """The cells of one column of a sheet: of one type, or as text."""
    values = [None if isinstance(cell, str) and is_missing(cell) else cell for cell in cells]
    if any(isinstance(cell, datetime.datetime) for cell in values):  # where midnight is a date
        values = [datetime.datetime(*v.timetuple()[:3]) if type(v) is datetime.date else v for v in values]
    kinds = {type(cell) for cell in values if cell is not None}
    if kinds <= {int, float}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    return pa.array(values if len(kinds) == 1 else [None if v is None else _shown(v) for v in values])


def _shown(cell: Any) -> str:
    """A cell as text, as spreadsheets show it.

    >>> _shown(2019.0), _shown(0.1 + 0.2), _shown(" a ")
    ('2019', '0.3', 'a')
    """
    return f"{cell:.15g}" if type(cell) in (int, float) else str(cell).strip()


# --- columns ------------------------------------------------------------------------------------------------------


def _examples(
    raw: Raw,
    owner: str,
    label: str | None,
    drop: Sequence[str],
    categorical: Sequence[str],
    missing: Missing,
    again: Callable[[str], pa.ChunkedArray] | None = None,
) -> Examples:
    """The examples of a table.

    Args:
        again: reads the cells of a column as text; None if the table has types.
    """
    names = list(raw.columns)
    for option, asked in (("drop", drop), ("categorical", categorical)):
        for name in asked:
            if name not in names:
                what = "to drop" if option == "drop" else "for --categorical"
                raise InputError(f"{owner} has no column {name!r} {what}{nearest(name, names)}")
    if label is not None and label not in names:
        raise InputError(f"{owner} has no column {label!r} for the label{nearest(label, names)}")
    if label is not None and missing == "drop":
        raw = _with_label(raw, label)
    notes, read = list(raw.notes), {}
    place = {name: d for d, name in enumerate(name for name in names if name not in drop and name != label)}
    x = np.empty(
        (len(place), len(raw.places))
    ).T  # columns are contiguous: taking the rows of a split makes rows of them

    def hashed() -> Iterator[Words]:
        """The words of each column for hashing. Its cells move to ``x``, so that they are in memory once."""
        for name in names:
            cells, sample = raw.columns.pop(name), raw.sample.get(name, [])
            words = name in categorical or name in raw.categories
            found = read_column(name, cells, sample, categorical=words, comma=raw.comma)
            if name in place:
                _check_digits(cells, found, owner, again)
            yield found.hashed  # of a label as of any other column: naming it does not change the splits
            found = read_label(name, cells) if name == label else found
            if name in place:
                x[:, place[name]] = found.values
                found = replace(found, values=x[:, place[name]])
            read[name] = found

    hashes = column_hashes(hashed(), len(raw.places), len(names))
    pa.default_memory_pool().release_unused()
    left = {name: read[name] for name in place}
    if label is None and len(left) > 1 and not categorical:
        *others, last = left.values()
        if (
            last.column.words
            and last.cells is not None
            and all(not f.column.words or f.column.is_flag for f in others)
            and _is_label(last)
        ):
            label = last.column.name
            del left[label]
            what = "categories" if label in raw.categories else "text"
            notes.append(f"the last column ({label!r}) contains {what} and is used as the label")
    _check_cells(list(left.values()), raw, owner)
    with_values, empty = _without_empty(list(left.values()), owner)
    left = {found.column.name: found for found in with_values}
    notes += empty
    if not left:
        raise InputError(
            f"{owner} has no columns besides the label and dropped columns; expected at least one column of numbers "
            "or words"
        )
    for name, found in left.items():
        if found.note:
            notes.append(found.note)
        if (
            found.column.kind == "date"
            and len(found.values) >= _FEWEST_ROWS
            and bool((np.diff(found.values) > 0).all())
        ):
            notes.append(f"the rows are in the order of {name!r}; to model a series in time, use --length N (length=N)")
        if _counts_rows(found):
            notes.append(
                f"column {name!r} counts the rows; to remove it, use --drop {shell_word(name)} (drop=({name!r},))"
            )
    form = TableForm(
        tuple(found.column for found in left.values()), separator=raw.separator, label=label or "", header=raw.named
    )
    x = x if len(left) == len(place) else x[:, [place[name] for name in left]]
    done, kept = _table(list(left.values()), x, raw, owner, form, missing, notes, hashes)
    if label is not None:
        numbers, classes_of = _classes(read[label], f"the column {label!r} of {owner}")
        done = replace(done, label=numbers if kept is None else numbers[torch.from_numpy(kept)], labels=classes_of)
    return _noted(done, notes, bool(drop))


def _series(
    raw: Raw, path: Path, drop: Sequence[str], length: int, stride: int | None, time: str | None, missing: Missing
) -> Examples:
    """The windows of a series."""
    names = list(raw.columns)
    for name in (*drop, *([time] if time is not None else [])):
        if name not in names:
            raise InputError(f"{path} has no column {name!r}{nearest(name, names)}")
    read = [
        read_column(name, raw.columns[name], raw.sample.get(name, []), categorical=False, comma=raw.comma)
        for name in names
        if name not in drop or name == time  # the time is not modelled
    ]
    if not read:
        raise InputError(f"{path} has no columns besides the dropped ones; expected at least one column of numbers")
    _check_cells(read, raw, str(path))
    notes = [*raw.notes, *(found.note for found in read if found.note)]
    dates = [found.column.name for found in read if found.column.kind == "date"]
    if time is None and len(dates) == 1:
        (time,) = dates
    elif time is None:
        notes.append(
            f"rows are taken in the order of the file; --time names a column of times{dates and ': '}{listing(dates)}"
        )
    read, empty = _without_empty(read, str(path), keep=time)
    x = np.stack([found.values for found in read], 1)
    rows = series.Series(x, tuple(found.column for found in read), raw.places, (*notes, *empty))
    rows = series.in_order(rows, time, str(path))
    return series.windows(rows, length=length, stride=stride, missing=missing, separator=raw.separator, owner=str(path))


def _without_empty(read: list[Found], owner: str, keep: str | None = None) -> tuple[list[Found], list[str]]:
    """The columns that have values (and the column ``keep``), and a note about the others."""
    empty = [found.column.name for found in read if found.column.name != keep and np.isnan(found.values).all()]
    if not empty:
        return read, []
    if len(empty) == len([found for found in read if found.column.name != keep]):
        raise InputError(f"{owner} has no values: every cell is missing")
    note = f"ignored {len(empty)} column{'s' * (len(empty) != 1)} without values: {listing(empty)}"
    return [found for found in read if found.column.name not in empty], [note]


def _with_label(raw: Raw, label: str) -> Raw:
    """The rows that have a label."""
    _, codes = distinct_words(raw.columns[label])
    if (codes >= 0).all():
        return raw
    rows = np.flatnonzero(codes >= 0)
    note = f"{int((codes < 0).sum()):,} rows without a label were dropped"
    places = Names(raw.places.__getitem__, rows)
    columns = {name: cells.take(pa.array(rows)) for name, cells in raw.columns.items()}
    return replace(raw, columns=columns, places=places, notes=(*raw.notes, note))


def _table(
    found: Sequence[Found],
    x: Values,
    raw: Raw,
    owner: str,
    form: TableForm,
    missing: Missing,
    notes: list[str],
    hashes: Words | None = None,
) -> tuple[Examples, NDArray[np.bool_] | None]:
    """Columns ``x`` that were read as examples, and the rows that were kept if some have missing cells."""
    supports = tuple(each.column.support(each.values) for each in found)
    x, kept, note = without_gaps(x, missing, [each.column.name for each in found], owner)
    if note:
        notes.append(note)
    places = raw.places
    hashes = row_hashes(x) if hashes is None else hashes if kept is None else hashes[kept]
    if kept is not None:
        places = Names(places.__getitem__, np.flatnonzero(kept))
    tensor, event = as_table(torch.from_numpy(x), supports)
    done = Examples(
        tensor,
        event,
        places,
        notes=tuple(notes),
        split="by a hash of each row",
        hashes=hashes,
        columns=tuple(each.column.name for each in found),
        form=form,
    )
    return done, kept


def _is_label(found: Found) -> bool:
    """Whether the last column, of words, has few enough classes."""
    assert found.cells is not None
    words, codes = found.cells
    return len(words) <= _MOST_CLASSES and len(words) < len(codes)


def _classes(found: Found, what: str) -> tuple[torch.Tensor, tuple[str, ...]]:
    """The class numbers of a label, and the names of the classes: numbers in their order, else words in theirs."""
    assert found.cells is not None
    words, codes = found.cells
    if (gaps := int((codes < 0).sum())) > 0:
        raise InputError(
            f"{what} (the label) has {gaps} missing cells; fill them, delete the lines, or drop them with --missing "
            "drop (missing='drop')"
        )
    try:
        values: NDArray[Any] = np.array([int(w) for w in words], dtype=object)
        if len(set(values)) < len(words):  # 01 and 1
            values = np.array(words, dtype=object)
    except ValueError:
        numeric = all(map(is_number, words)) and len(set(map(float, words))) == len(words)
        values = np.array([float(w) for w in words]) if numeric else np.array(words, dtype=object)
    numbers, names = classes(values, what)
    return numbers[torch.from_numpy(codes)], names


def _check_cells(found: Sequence[Found], raw: Raw, owner: str, *, needed: bool = False) -> None:
    """Raise `InputError` about all cells that cannot be read, by column.

    Args:
        needed: whether the columns cannot be dropped, nor read in another way.
    """
    wrong = [each for each in found if each.problems]
    if not wrong:
        return
    said = []
    for each in wrong[:_SHOWN]:
        row, cell, reason = each.problems[0]
        more = f" and {len(each.problems) - 1:,} more" if len(each.problems) > 1 else ""
        said.append(f"column {each.column.name!r}: {cell!r} ({raw.places[row]}{more}) is {reason}")
    rest = f"; and {len(wrong) - _SHOWN} more columns" if len(wrong) > _SHOWN else ""
    if needed:
        raise InputError(f"{owner}: {'; '.join(said)}{rest}; correct them, to be as in the training data")
    name = wrong[0].column.name
    words = (
        f", or read the column as categories (--categorical {shell_word(name)})"
        if wrong[0].problems[0][2].startswith("not ") and wrong[0].problems[0][2] != "not finite"
        else ""
    )
    remove = f"remove the column (--drop {shell_word(name)}, drop=({name!r},))"
    raise InputError(f"{owner}: {'; '.join(said)}{rest}; correct them, {remove}{words}")


def _check_digits(
    raw: pa.ChunkedArray, found: Found, owner: str, again: Callable[[str], pa.ChunkedArray] | None
) -> None:
    """Raise `InputError` for integers that became equal as float64."""
    if found.column.kind != "number" or not len(found.values) or not (abs(found.values) >= _WHOLE).any():
        return
    name = found.column.name
    cells = raw.drop_null()
    if not (pa.types.is_integer(cells.type) or pa.types.is_decimal(cells.type)):
        cells = (again(name) if again is not None else raw).drop_null()
    try:
        text = pc.cast(cells, pa.string()).to_pylist()
        whole = np.array([int(cell) for cell in text if not is_missing(cell)], dtype=object)
    except ValueError:
        return
    levels = whole_support(0, whole.max() - whole.min())  # of integers of any size
    if beyond_float64(whole[:, None], [levels]) is not None:
        raise InputError(
            f"{owner}, column {name!r}: integers from {whole.min()} to {whole.max()} are too far from 0 for "
            f"float64 to distinguish them; {nearer_0(whole.min(), whole.max())}, or remove the column (--drop "
            f"{name}, drop=({name!r},))"
        )


def _counts_rows(found: Found) -> bool:
    """Whether a column is the number of the row."""
    values = found.values
    return (
        found.column.kind == "number"
        and len(values) >= _FEWEST_ROWS
        and values[0] in (0, 1)
        and bool((np.diff(values) == 1).all())
    )


def _noted(found: Examples, notes: Sequence[str], dropped: bool) -> Examples:
    """The examples with notes about constant columns, and about rows that differ only in other columns."""
    x, notes = found.tensor, list(notes)
    assert found.columns is not None
    assert found.hashes is not None
    same = (x[:1] == x[-1:]).all(0) & (x.amin(0) == x.amax(0))  # a missing entry differs from everything
    constant = [name for name, is_same in zip(found.columns, same.tolist(), strict=True) if is_same]
    if constant and len(x) > 1:
        notes.append(
            f"{len(constant)} constant column{'s' * (len(constant) != 1)}: {listing(constant)}; "
            "remove them with --drop (drop=), because the density of a real one has no upper limit"
        )
    different = len(np.unique(row_hashes(x.numpy()))) if dropped else len(x)
    apart = len(np.unique(found.hashes)) - different
    if apart > 0:
        told = f"{apart} rows differ from another row only in the label or dropped columns, and may be in another split"
        mend = "; delete these columns from the file to keep such rows together"
        notes.append(told + (mend if 2 * different >= len(x) else ""))  # else equal rows are not kept together
    return replace(found, notes=tuple(notes))
