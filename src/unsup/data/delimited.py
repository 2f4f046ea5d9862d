"""Delimited text (CSV) as an Arrow table: packing, encoding, separator, header and decimal point are detected.

Arrow reads the cells; what it cannot know is found in the first lines, and in one pass over the bytes.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import zstandard

from unsup.core import memory
from unsup.core.cells import plain_text
from unsup.core.errors import InputError
from unsup.core.words import counted
from unsup.data.bounds import check_fits, described
from unsup.data.examples import Names, listing
from unsup.data.notation import has_leading_zero, is_decimal, is_missing, is_number, pattern_of, spellings

MOST_COLUMNS = 100_000
ELSE = "save numbers as .npy"

_LONGEST_LINE, _AT_ONCE, _HEAD = 2**24, 2**20, 2**18  # bytes
_LINES = 500  # lines of the head from which the form is found
_SPACED = 6  # numbers with the same difference in a first line, which are hardly a row
_DATES = 20  # cells of a column from which it is known to have dates
_PER_BYTE, _PER_LINE = 16, 120  # bytes of memory per byte of text and per line
_BOMS: dict[bytes, str] = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, which starts with the same two bytes
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": zstandard.open,
}
_BROKEN = (OSError, EOFError, UnicodeError, zlib.error, lzma.LZMAError, zstandard.ZstdError, pa.ArrowException)


@dataclass(frozen=True)
class Raw:
    """A table before its columns are read.

    Attributes:
        columns: cells by column, as strings (in dictionaries), numbers or dates.
        places: the location of each row ("line 7").
        sample: the first cells of each column as text; empty if the file is typed.
        separator: of the cells.
        comma: whether the decimal point is a comma.
        named: whether the columns have names of their own, not numbers.
        notes: what was decided.
        categories: columns that the file or the data frame declares to be categories.
    """

    columns: dict[str, pa.ChunkedArray]
    places: Sequence[str]
    sample: dict[str, list[str]]
    separator: str = ","
    comma: bool = False
    named: bool = True
    notes: tuple[str, ...] = ()
    categories: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Head:
    """The form of a file, found in its first lines."""

    separator: str
    names: tuple[str, ...]
    named: bool
    rows: list[list[str]]
    comma: bool
    skipped: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Scan:
    """What one pass over the bytes found."""

    size: int
    lines: int
    quoted: bool
    long_lines: bool
    encoding: str


def read_delimited(
    path: Path, *, decimal: str | None = None, header: bool | None = None, words: Sequence[str] = ()
) -> Raw:
    """The cells of a file.

    Args:
        decimal: the decimal point, or None to detect it.
        header: whether the first line has the names of the columns, or None to detect it.
        words: columns whose cells stay text.

    Raises:
        InputError: the file is empty, is not text, or its lines have different numbers of cells.
    """
    try:
        scan = _scan(path)
        with _text(path, scan.encoding) as file:
            start = file.read(_HEAD) + file.readline(_LONGEST_LINE)
        head = _head(path, start, decimal, header)
        check_width(path, len(head.names))
        table = _arrow(path, scan, head, words)
    except _BROKEN as error:
        if isinstance(error, InputError):
            raise
        if isinstance(error, pa.ArrowInvalid):
            _raise_uneven(path, scan.encoding, head)
        raise InputError(f"{path} cannot be read as CSV ({described(error)}); save it again as UTF-8") from error
    if not table.num_rows:
        if head.named:
            raise InputError(
                f"{path} has a header ({listing(head.names)}) but no rows; expected lines of numbers or words after it"
            )
        raise InputError(f"{path} is empty; expected lines of cells separated by , ; | tabs or spaces")
    sample = {name: [row[d].strip() for row in head.rows] for d, name in enumerate(head.names)}
    notes = head.notes
    if scan.encoding not in ("utf-8", "utf-8-sig"):
        notes = (*notes, f"the text is read as {scan.encoding.upper()}")
    places = _places(path, scan, head, table.num_rows)
    columns = {name: table[name] for name in head.names}
    return Raw(columns, places, sample, head.separator, head.comma, head.named, notes)


def column_names(path: Path, header: bool | None = None) -> tuple[str, ...]:
    """The names of the columns; only the start of the file is read."""
    text = _start(path)
    return _head(path, text, None, header).names if text.strip() else ()


def first_cells(path: Path) -> list[str]:
    """The cells of the first line, which may be names."""
    text = _start(path)
    return [cell.strip() for cell in _rows(text, _separator(text))[0]]


def _start(path: Path) -> str:
    """The first lines of a file, empty if it cannot be read."""
    try:
        with _opened(path) as file:
            content = file.read(_HEAD) + file.readline(_LONGEST_LINE)
    except _BROKEN:  # reading it will report the error
        return ""
    return content.decode(_encoding(content) or "utf-8", errors="replace").removeprefix("\ufeff")


# --- bytes --------------------------------------------------------------------------------------------------------


def _opened(path: Path) -> IO[bytes]:
    opener = _OPENERS.get(path.suffix.lower())
    found: IO[bytes] = path.open("rb") if opener is None else opener(path, "rb")
    return found


def _text(path: Path, encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(_opened(path), encoding=encoding, newline="")


def _encoding(start: bytes) -> str | None:
    """The encoding of text that starts like this, if it is not UTF-8 without a mark."""
    for mark, name in _BOMS.items():
        if start.startswith(mark):
            return name
    even, odd = start[0:1000:2].count(0), start[1:1000:2].count(0)
    if len(start) >= 4 and max(even, odd) > 0.4 * min(500, len(start) // 2):  # ASCII in 16 bits
        return "utf-16-le" if odd > even else "utf-16-be"
    return None


def _scan(path: Path) -> _Scan:
    """One pass over the unpacked bytes.

    Raises:
        InputError: the cells would not fit into memory, a line is too long, or the file is not text.
    """
    what, most = f"the content of {path}", memory.limit()
    if path.suffix.lower() not in _OPENERS:
        check_fits(_PER_BYTE * path.stat().st_size, what, ELSE)
    size = lines = endless = longest = 0
    quoted, encoding = False, ""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with _opened(path) as file:
        while part := file.read(_AT_ONCE):
            if not size:
                encoding = _encoding(part) or ""
            ends = _count(part, b"\n") or _count(part, b"\r")
            size, lines, quoted = size + len(part), lines + ends, quoted or b'"' in part
            endless = len(part) - 1 - max(part.rfind(b"\n"), part.rfind(b"\r")) if ends else endless + len(part)
            longest = max(longest, endless)
            if endless > _LONGEST_LINE:
                raise InputError(f"{path}, line {lines + 1}: longer than {_LONGEST_LINE:,} characters; {ELSE}")
            if _PER_BYTE * size + _PER_LINE * lines > most:
                check_fits(_PER_BYTE * size + _PER_LINE * lines, what, ELSE)
            if not encoding:
                if b"\0" in part:
                    raise InputError(f"{path} is not text (it has zero bytes); expected lines of cells")
                if not part.isascii():
                    try:
                        decoder.decode(part)
                    except UnicodeDecodeError:
                        encoding = "cp1252"
    return _Scan(size, lines, quoted, longest > _AT_ONCE // 4, encoding or "utf-8")


def _count(part: bytes, byte: bytes) -> int:
    """``part.count(byte)``, three times as fast."""
    return int(np.count_nonzero(np.frombuffer(part, np.uint8) == ord(byte)))


# --- the first lines ----------------------------------------------------------------------------------------------


def _head(path: Path, start: str, decimal: str | None, header: bool | None) -> _Head:
    start = start.removeprefix("\ufeff")
    if not start.strip():
        raise InputError(f"{path} is empty; expected lines of cells separated by , ; | tabs or spaces")
    separator = _separator(start)
    rows = _rows(start, separator)
    check_width(path, len(rows[0]))
    named, note = (header, "") if header is not None else has_header(rows)
    names = tuple(cell.strip() for cell in rows[0]) if named else tuple(str(i + 1) for i in range(len(rows[0])))
    notes = [note] if note else []
    if named:
        names = tuple(name or f"column {d + 1}" for d, name in enumerate(names))
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise InputError(f"{path}: the header names the column {name!r} {count} times; rename one")
        rows = rows[1:]
    rows = [row for row in rows if len(row) == len(names)][:_LINES]
    comma = decimal == "," if decimal is not None else _has_decimal_commas(rows, separator)
    if comma and decimal is None:
        notes.append("the decimal point is ',' (--decimal . to change this)")
    blank = len(start[: len(start) - len(start.lstrip("\r\n"))].splitlines())
    return _Head(separator, names, named, rows, comma, blank + named, tuple(notes))


def _rows(text: str, separator: str) -> list[list[str]]:
    """The rows of the first lines; a quoted cell may be cut at the end."""
    found: list[list[str]] = []
    try:
        for row in _reader(io.StringIO(text, newline=""), separator):
            if row:
                found.append(row)
            if len(found) > _LINES:
                break
    except csv.Error:
        pass
    return found or [[text]]


def _reader(file: IO[str], separator: str) -> Any:
    """The rows of a file. Spaces separate cells as one, and not at the ends of lines."""
    csv.field_size_limit(_LONGEST_LINE)
    spaces = separator == " "
    lines = (line.strip(" \r\n") + "\n" if line.strip() else "\n" for line in _lines(file)) if spaces else _lines(file)
    return csv.reader(lines, delimiter=separator, skipinitialspace=spaces)


def _separator(text: str) -> str:
    """The first of tab, ;, | and comma that cuts all lines into the same number of cells, at least two.

    If none does, it is the space for lines with the same number of words, most of them numbers.
    """
    most: tuple[float, str] = (0, ",")
    for separator in "\t;|,":
        widths = [len(row) for row in _rows(text, separator)]
        width, count = Counter(widths).most_common(1)[0]
        if width > 1 and count == len(widths):
            return separator
        if width > 1:
            most = max(most, (count / len(widths), separator))
    if not most[0]:
        rows = _rows(text, " ")
        cells = [cell for row in rows[1:] or rows for cell in row]
        if len(rows[0]) > 1 and len({len(row) for row in rows}) == 1 and 2 * sum(map(is_number, cells)) >= len(cells):
            return " "
    return most[1]


def has_header(rows: list[list[str]]) -> tuple[bool, str]:
    """Whether the first row has the names of the columns, and a note if this is not obvious."""
    first, rest = [cell.strip() for cell in rows[0]], rows[1:]
    numbers = [is_number(cell) for cell in first]
    if any(numbers):
        counted = first[1:] if not first[0] else first
        whole = all(re.fullmatch(r"[-+]?\d*", cell.strip()) for row in rest for cell in row)
        plain = len(first) > 2 or not whole  # 0,1 above other integers may be a row
        for start in (0, 1):
            if counted == [str(i + start) for i in range(len(counted))] and len(first) > 1 and plain:
                return (
                    True,
                    f"the first line ({first[0]}, …, {first[-1]}) is read as names (--no-header to change this)",
                )
        likely = len(first) >= _SPACED or (_are_whole(first) and not all(_are_whole(row) for row in rest))
        if likely and _is_spaced(first) and not any(_is_spaced(row) for row in rest):
            return True, f"the first line ({first[0]}, …, {first[-1]}) is read as names (--no-header to change this)"
        if _counts_years(first) and not any(_counts_years(row) for row in rest):
            return True, "the first line is read as names, because it counts years (--no-header to change this)"
        below = [[is_number(row[d]) for row in rest if len(row) == len(first)] for d in range(len(first))]
        named = [
            not n and cell and below[d] and all(below[d])
            for d, (n, cell) in enumerate(zip(numbers, first, strict=True))
        ]
        if any(named) and not all(is_missing(c) for c, n in zip(first, named, strict=True) if n):
            return True, "the first line is read as names, because it has words above numbers"
        return False, ""
    columns = list(zip(*(row for row in rest if len(row) == len(first)), strict=True))
    if any(_are_dates([cell, *column]) for cell, column in zip(first, columns, strict=False)):
        return False, ""
    again = [first[d] in {cell.strip() for cell in column} for d, column in enumerate(columns)]
    all_words = not any(is_number(cell) for column in columns for cell in column)
    if all_words and again and 2 * sum(again) > len(again):
        return False, "the first line is read as a row, because its words occur again (--header to change this)"
    return True, ""


def _are_dates(cells: Sequence[str]) -> bool:
    """Whether the first cells of a column are dates in one pattern."""
    there = [cell.strip() for cell in cells[:_DATES] if not is_missing(cell)]
    return all(re.search(r"\d\D|\D\d", cell) and not is_number(cell) for cell in there) and bool(pattern_of(there)[0])


def _are_whole(cells: Sequence[str]) -> bool:
    return all(re.fullmatch(r"[-+]?\d+", cell.strip()) for cell in cells)


def _counts_years(cells: Sequence[str]) -> bool:
    """Whether the numbers among cells are consecutive years, at least two."""
    numbers = [cell.strip() for cell in cells if is_number(cell)]
    if len(numbers) < 2 or not all(re.fullmatch(r"(?:1[89]|20|21)\d\d", number) for number in numbers):
        return False
    years = list(map(int, numbers))
    return years == list(range(years[0], years[0] + len(years)))


def _is_spaced(cells: list[str]) -> bool:
    """Whether cells are at least three numbers with the same difference, as years or wavelengths in a header."""
    if len(cells) < 3 or not all(map(is_number, cells)):
        return False
    steps = np.diff(np.array(list(map(float, cells))))
    return bool(steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-3, atol=0))


def _has_decimal_commas(rows: list[list[str]], separator: str) -> bool:
    """Whether numbers have decimal commas; where 1,234 can be either, they have them if the separator is ``;``."""
    if separator == ",":
        return False
    cells = [cell.strip() for row in rows for cell in row]
    comma = [c for c in cells if re.fullmatch(r"[-+]?[\d.]*,\d+(?:[eE][-+]?\d+)?", c)]
    point = [c for c in cells if re.fullmatch(r"[-+]?[\d,]*\.\d+(?:[eE][-+]?\d+)?", c)]
    if any(is_decimal(c, ".") for c in point if "," not in c or c.rfind(".") > c.rfind(",")):
        return False
    return any(is_decimal(c, ",") for c in comma) or (bool(comma) and separator == ";")


# --- the cells ----------------------------------------------------------------------------------------------------


def _arrow(path: Path, scan: _Scan, head: _Head, words: Sequence[str]) -> pa.Table:
    block = max(_AT_ONCE, min(2 * _LONGEST_LINE, scan.size)) if scan.long_lines or len(head.names) > 1000 else _AT_ONCE
    reading = pa.csv.ReadOptions(
        column_names=list(head.names), skip_rows_after_names=head.skipped, block_size=block, use_threads=True
    )
    parsing = pa.csv.ParseOptions(
        delimiter="\t" if head.separator == " " else head.separator, newlines_in_values=scan.quoted
    )
    converting = pa.csv.ConvertOptions(
        null_values=spellings(),
        strings_can_be_null=False,  # NA may be a word
        true_values=[],
        false_values=[],
        auto_dict_encode=True,
        auto_dict_max_cardinality=50_000,
        decimal_point="," if head.comma else ".",
    )
    zeros = [name for d, name in enumerate(head.names) if any(has_leading_zero(row[d]) for row in head.rows)]
    asked = {name: pa.string() for name in (*words, *zeros) if name in head.names}
    try:
        # Arrow keeps the text of the columns whose types it has to find, several times the size of the numbers.
        converting.column_types = _likely_types(head) | asked
        with _source(path, scan, head.separator) as source:
            return pa.csv.read_csv(source, reading, parsing, converting)
    except pa.ArrowInvalid:  # the first lines were not like the others
        converting.column_types = asked
        with _source(path, scan, head.separator) as source:
            return pa.csv.read_csv(source, reading, parsing, converting)


def _likely_types(head: _Head) -> dict[str, pa.DataType]:
    """The types of the columns that have only numbers in the first lines."""
    found: dict[str, pa.DataType] = {}
    for d, name in enumerate(head.names):
        known = [row[d].strip() for row in head.rows if not is_missing(row[d])]
        if known and all(re.fullmatch(r"[-+]?\d{1,15}", cell) for cell in known):
            found[name] = pa.int64()
        elif known and all(is_number(cell.replace(",", ".") if head.comma else cell) for cell in known):
            found[name] = pa.float64()
    return found


def _source(path: Path, scan: _Scan, separator: str) -> Any:
    """The bytes of the text in UTF-8, as Arrow reads them; spaces between cells are tabs."""
    if separator == " ":
        with _text(path, scan.encoding) as file:
            return io.BytesIO(plain_text(_reader(file, separator), "\t").removeprefix("\ufeff").encode())
    if scan.encoding in ("utf-8", "utf-8-sig"):
        return _opened(path)
    with _text(path, scan.encoding) as file:
        return io.BytesIO(file.read().encode())


def _raise_uneven(path: Path, encoding: str, head: _Head) -> None:
    """Raise `InputError` that lists the lines with another number of cells than most, if there are such lines."""
    widths: Counter[int] = Counter()
    first: dict[int, list[int]] = {}  # the first lines of each width
    with _text(path, encoding) as file:
        reader = _reader(file, head.separator)
        try:
            for row in reader:
                if row:
                    widths[len(row)] += 1
                    if len(lines := first.setdefault(len(row), [])) < 3:
                        lines.append(reader.line_num)
        except csv.Error as error:
            raise InputError(
                f"{path}, line {reader.line_num}: {described(error)}; fix the line, or save the table again as UTF-8"
            ) from error
    if len(widths) < 2:
        return
    usual = max(widths, key=lambda width: (widths[width], width == len(head.names)))
    wrong = sorted((line, width) for width, lines in first.items() if width != usual for line in lines)[:3]
    count = widths.total() - widths[usual]
    more = f" and {counted(count - len(wrong), 'more line')}" if count > len(wrong) else ""
    listed = ", ".join(f"line {line} has {width}" for line, width in wrong)
    if usual == len(head.names):
        which = "the first line has"
    else:
        which = f"{widths[usual]:,} lines have"
    raise InputError(
        f"{path}: {which} {counted(usual, 'cell')}, but {listed}{more}; fix or delete {'them' if count > 1 else 'it'}"
    )


def _lines(file: IO[str]) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        yield line


def _places(path: Path, scan: _Scan, head: _Head, rows: int) -> Sequence[str]:
    """The line of each row; lines are counted only if some are blank or cells have several lines."""
    first = 1 + head.named
    if scan.encoding in ("utf-8", "utf-8-sig", "cp1252") and rows + head.named - scan.lines in (0, 1):
        return Names("line {}".format, range(first, first + rows))
    numbers: list[int] = []
    with _text(path, scan.encoding) as file:
        reader = _reader(file, head.separator)
        numbers = [reader.line_num for row in reader if row]
    if len(numbers) != rows + head.named:
        return Names("row {}".format, range(1, rows + 1))
    return Names("line {}".format, np.array(numbers[head.named :]))


def check_width(path: Path, width: int) -> None:
    if width > MOST_COLUMNS:
        raise InputError(f"{path} has {width:,} columns; the maximum is {MOST_COLUMNS:,}: {ELSE}")
