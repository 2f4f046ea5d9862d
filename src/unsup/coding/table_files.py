"""Text files of tables: examples of the columns of a model, and everything else that is needed for the same bytes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.coding.layouts import Rows
from unsup.core import memory
from unsup.core.cells import plain_text
from unsup.core.config import shown
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.reading import parse_json
from unsup.data.columns import Column, Found, TableForm
from unsup.data.notation import MOST_DECIMALS, Notation
from unsup.data.tables import cells_like

TABLES = (".csv", ".tsv", ".tab", ".psv")
_LARGEST = 2**28  # bytes of a file that is read as a table
_TRIED = 1000  # rows by which the digits of a column are chosen
_LONGEST_SIGN = 100  # characters of a unit; more would make rows of any length
_WIDEST = 100  # digits
_PATTERN = re.compile(r"(?:%[YmdHMSfybB]|[^%\0]){1,100}")
_BYTES_A_CHARACTER = 16  # of memory, for the cells of a chunk
Type = Literal["uint8", "int64", "float32", "float64"]


@final
@dataclass(frozen=True)
class Table(Rows):
    """A text file with a row for each example, which comes back byte for byte.

    Attributes:
        type: type of the examples.
        separator: of the cells.
        newline: end of a line.
        ends: whether the last line has one.
        mark: whether the file starts with a byte order mark.
        header: cells of the first line; empty if the file has no names.
        width: number of columns.
        places: column of the file of each column of the model.
        columns: how they are written.
        gaps: text of missing cells of each column of the model.
    """

    kind: ClassVar[str] = "table"
    has_side: ClassVar[bool] = True

    type: Type
    separator: str
    newline: Literal["\n", "\r\n"]
    ends: bool
    mark: bool
    header: tuple[str, ...]
    width: int
    places: tuple[int, ...]
    columns: tuple[Column, ...]
    gaps: tuple[str, ...]

    def __post_init__(self) -> None:
        wrong = [
            *(["separator"] if len(self.separator) != 1 or self.separator in '\r\n"' else []),
            *(["header"] if self.header and len(self.header) != self.width else []),
            *(["gaps"] if len(self.gaps) != len(self.columns) else []),
            *(["columns"] if not all(map(_is_known, self.columns)) else []),
        ]
        if len(set(self.places)) != len(self.columns) or not all(0 <= place < self.width for place in self.places):
            wrong.append("places")
        texts = [text for column in self.columns for text in (*column.words, column.pattern, *_signs(column.notation))]
        _utf8("".join((self.separator, *self.header, *self.gaps, *texts)))
        if wrong or len(self.places) != len(self.columns):
            raise InputError(f"a table of {shown(self.width)} columns with wrong {' and '.join(wrong or ['places'])}")

    @property
    def dtype(self) -> torch.dtype:
        return cast(torch.dtype, getattr(torch, self.type))

    @classmethod
    def read(cls, path: Path, event: Event, form: TableForm) -> tuple[Table, Tensor, list[list[str]]] | str:
        """The layout, the examples ``(N, D)`` and all cells by column; or why it is another kind of file."""
        if form.window or path.stat().st_size > _LARGEST:
            return "series, or large tables"
        try:
            found, separator = cells_like(path, replace(form, given=()))
        except InputError:
            return "tables with other columns than the training data"
        x = _examples(found, event)
        content = path.read_bytes()
        lines = _cells(content, separator)
        if lines is None:
            return "tables that are not text in UTF-8"
        named = len(lines) == len(x) + 1
        names = lines[0] if named else [str(d + 1) for d in range(len(lines[0]))]
        cells = lines[1:] if named else lines
        if len(cells) != len(x) or len({len(line) for line in lines}) != 1:
            return "tables with comments or empty lines"
        wanted = [column.name for column in form.columns]
        if not named and len(names) == len(wanted):
            places = list(range(len(wanted)))
        elif set(wanted) <= set(names) and len(set(names)) == len(names):
            places = [names.index(name) for name in wanted]
        else:
            return "tables with other columns"
        texts = [list(column) for column in zip(*cells, strict=True)]
        columns, gaps = [], []
        for d, (column, place) in enumerate(zip((each.column for each in found), places, strict=True)):
            values = x[:, d].numpy()
            empty = Counter(text for text, gap in zip(texts[place], _is_gap(values), strict=True) if gap)
            gaps.append(empty.most_common(1)[0][0] if empty else "")
            columns.append(_like(column, values, texts[place], gaps[-1]))
        layout = cls(
            cast(Any, str(x.dtype).removeprefix("torch.")),
            separator,
            "\r\n" if b"\r\n" in content else "\n",
            content.endswith(b"\n"),
            content.startswith(b"\xef\xbb\xbf"),
            tuple(names) if named else (),
            len(names),
            tuple(places),
            tuple(columns),
            tuple(gaps),
        )
        if layout._start() + layout._lines(texts, last=True) != content:
            return "tables whose quotes or line ends are not regular"
        return layout, x, texts

    def side(self, x: Tensor, texts: Sequence[Sequence[str]]) -> bytes:
        """What rows have besides their examples: columns that the model does not have, and cells written otherwise."""
        other = [list(texts[place]) for place in range(self.width) if place not in self.places]
        odd = [
            [d, row, text]
            for d, (own, place) in enumerate(zip(self._written(x), self.places, strict=True))
            for row, (text, usual) in enumerate(zip(texts[place], own, strict=True))
            if text != usual
        ]
        return json.dumps({"other": other, "odd": odd}, separators=(",", ":")).encode()

    def check(self, event: Event) -> None:
        if event.shape != (len(self.columns),):
            raise InputError(f"examples of shape {event.shape} do not fit into rows of {len(self.columns)} columns")

    def start(self, rows: int, total: int, event: Event) -> bytes:
        return self._start()

    def rows(self, x: Tensor, side: bytes, inside: range, *, last: bool) -> bytes:
        record = parse_json(side.decode("utf-8", "replace"))
        own = self._written(x)
        others, odd = (record.get("other"), record.get("odd")) if isinstance(record, dict) else (None, None)
        if not isinstance(others, list) or len(others) != self.width - len(own) or not isinstance(odd, list):
            raise InputError(f"its cells are not those of {self.width - len(own)} columns beside the model")
        if not all(isinstance(column, list) and all(isinstance(text, str) for text in column) for column in others):
            raise InputError("some of its cells are not text")
        if not all(len(column) == len(x) for column in others):
            raise InputError(f"it has columns that have not {len(x)} rows")
        for entry in odd:
            d, row, text = entry if isinstance(entry, list) and len(entry) == 3 else (None, None, None)
            if type(d) is not int or type(row) is not int or not (0 <= d < len(own) and 0 <= row < len(x)):
                raise InputError(f"it has {shown(entry)} instead of a column, a row and a cell")
            if not isinstance(text, str):
                raise InputError(f"it has the cell {shown(text)}, which is not text")
            own[d][row] = text
        columns = dict(zip(self.places, own, strict=True))
        rest = iter(others)
        texts = [columns[place] if place in columns else next(rest) for place in range(self.width)]
        size = sum(sum(map(len, column)) for column in texts)
        if size > _LARGEST or _BYTES_A_CHARACTER * size > memory.limit():
            raise InputError(f"its cells have {size:,} characters, more than fit into the memory")
        return self._lines([column[inside.start : inside.stop] for column in texts], last=last)

    def _start(self) -> bytes:
        head = self._text([self.header]) if self.header else ""
        return (b"\xef\xbb\xbf" if self.mark else b"") + _utf8(head)

    def _lines(self, texts: Sequence[Sequence[str]], *, last: bool) -> bytes:
        text = self._text(zip(*texts, strict=True))
        return _utf8(text.removesuffix(self.newline) if last and not self.ends else text)

    def _text(self, rows: Any) -> str:
        text = plain_text(rows, self.separator)
        return text if self.newline == "\n" else text.replace("\n", "\r\n")

    def _written(self, x: Tensor) -> list[list[str]]:
        rows = x.numpy()
        return [_text(column, rows[:, d], self.gaps[d]) for d, column in enumerate(self.columns)]


def _examples(found: Sequence[Found], event: Event) -> Tensor:
    """Rows ``(N, D)``; a row with a cell that does not fit has NaN there, and is outside the event."""
    values = np.stack([each.values for each in found], 1)
    if event.dtype.is_floating_point or np.isnan(values).any():
        with np.errstate(over="ignore"):  # to infinity, which is outside the event
            return torch.from_numpy(values.astype(np.float32) if event.dtype == torch.float32 else values)
    return torch.from_numpy(values.astype(np.int64))


def _text(column: Column, values: NDArray[Any], gap: str) -> list[str]:
    try:
        texts = column.text(values, TableForm.support_of(values))
    except (IndexError, OverflowError, ValueError) as error:
        raise InputError(f"numbers do not fit the {column.kind} of column {shown(column.name)}: {error}") from error
    return [gap if missing else text for text, missing in zip(texts, _is_gap(values), strict=True)]


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError("cells that are not text") from error


def _signs(notation: Notation) -> tuple[str, str, str]:
    return notation.before, notation.after, notation.thousands


def _is_known(column: Column) -> bool:
    """Whether a column is like those of `_like`, so that its cells are short."""
    own = column.notation
    return (
        (column.decimals is None or 0 <= column.decimals <= MOST_DECIMALS)
        and max(map(len, _signs(own))) <= _LONGEST_SIGN
        and 0 <= own.width <= _WIDEST
        and (column.kind != "date" or _PATTERN.fullmatch(column.pattern) is not None)
    )


def _is_gap(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)


def _like(column: Column, values: NDArray[Any], texts: Sequence[str], gap: str) -> Column:
    """The column with the number of digits that gives most of these cells."""
    if column.kind != "number":
        return column
    tried: list[int | None] = [column.decimals, None, *range(MOST_DECIMALS + 1)]
    variants = [replace(column, decimals=decimals) for decimals in dict.fromkeys(tried)]

    def same(variant: Column) -> int:
        own = _text(variant, values[:_TRIED], gap)
        return sum(a == b for a, b in zip(own, texts, strict=False))

    return max(variants, key=same)


def _cells(content: bytes, separator: str) -> list[list[str]] | None:
    """The lines of a file as cells; None if it is not text in UTF-8."""
    try:
        text = content.decode("utf-8-sig")
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None
