"""Columns of tables: from cells as they are written to numbers, and back.

A column is numbers, words or dates. Words are numbered; dates are days since 1970-01-01. A missing cell is NaN. What is
needed to write a number as it was written (words, pattern of dates, decimals, units) is kept in `Column`.
"""

from __future__ import annotations

import datetime
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.cells import plain_text
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Support
from unsup.data.arrays import whole_support
from unsup.data.form import Form
from unsup.data.hashing import Words, cell_word
from unsup.data.hashing import words as hashed_numbers

Kind = Literal["number", "words", "date"]
Values = NDArray[np.float64]

OTHER = "(other)"
"""The word for all words that are too rare to have a number of their own."""
MOST_WORDS = 100
"""The number of words of a column that have a number of their own."""

_SPELLINGS = ("", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "nat", "null", "nil", "none", "?", "missing", "#null!")
_SPELLINGS_OF_NUMBERS = ("-", "--", ".", "#div/0!", "#value!", "#num!", "#ref!", "1.#ind", "1.#qnan", "unknown")
"""Spellings of missing cells that are words unless the other cells are numbers or dates."""
_NUMBERS_AMONG_WORDS = 0.5  # from this fraction of numbers on, the other cells are mistakes
_MOST_DECIMALS = 9
_SAMPLE = 100  # cells of a column from which the number of decimals is found
_DAY = 86_400.0
_EPOCH = datetime.datetime(1970, 1, 1)
_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y", "%m/%d/%y")
_WORDY_DATES = ("%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%d-%b-%y", "%b %Y")
_TIMES = (
    "",
    " %H:%M",
    " %H:%M:%S",
    "T%H:%M",
    "T%H:%M:%S",
    "T%H:%M:%SZ",
    " %H:%M:%S.%f",
    "T%H:%M:%S.%f",
    "T%H:%M:%S.%fZ",
)
_MONTHS = ("%Y-%m", "%Y/%m", "%m/%Y")
_CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f")
PATTERNS = tuple(date + time for date in (*_DATES, *_WORDY_DATES) for time in _TIMES) + _MONTHS + _CLOCKS
_PLAIN = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBER = re.compile(r"[-+−]?(?:\d[\d.,'’ \u00a0\u202f]*|[.,]\d+)(?:[eE][-+]?\d+)?")
_UNIT_BEFORE = re.compile(r"(?:[$€£¥₹]|[A-Z]{3}) ?|")  # letters and a number together are a name, as in room3
_UNIT_AFTER = re.compile(r"\s?[^\d\s.,]{0,8}")
_YES = (("no", "yes"), ("n", "y"), ("false", "true"), ("f", "t"), ("off", "on"))


def spellings() -> list[str]:
    """The spellings of a missing cell, in the cases that occur."""
    return list(
        dict.fromkeys(w for s in _SPELLINGS for w in (s, s.upper(), s.capitalize(), "NaN", "NaT", "<NA>", "n/A"))
    )


def is_missing(cell: str) -> bool:
    return cell.strip().lower() in _SPELLINGS


def is_number(cell: str) -> bool:
    """Whether a cell is a number in plain notation, including infinity but not a missing cell ("nan")."""
    if is_missing(cell):
        return False
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


@dataclass(frozen=True)
class Column:
    """How the cells of one column are written.

    Attributes:
        name: its name.
        kind: numbers, words (categories) or dates.
        words: the words of the numbers 0, 1, …; the last may be `OTHER`.
        pattern: of dates, as in `datetime.datetime.strftime`.
        decimals: digits after the decimal point; None for as many as are needed.
        comma: whether the decimal point is a comma.
        thousands: separator of thousands.
        before: unit before the number, such as ``"$"``.
        after: unit after the number, such as ``" %"``.
    """

    name: str
    kind: Kind = "number"
    words: tuple[str, ...] = ()
    pattern: str = ""
    decimals: int | None = None
    comma: bool = False
    thousands: str = ""
    before: str = ""
    after: str = ""

    @property
    def is_flag(self) -> bool:
        """Whether its words are yes and no."""
        return tuple(w.lower() for w in self.words) in _YES

    def support(self, values: Values) -> Support:
        """The support of a column: of its words, or of its numbers."""
        if self.kind == "words":
            return BINARY if len(self.words) == 2 else Support("nominal", len(self.words))
        known = values[~np.isnan(values)]
        if self.kind == "date" or not len(known) or not (_whole(known[:1000]) and _whole(known)):
            return REAL
        return whole_support(int(known.min()), int(known.max()))

    def text(self, values: Values, support: Support) -> list[str]:
        """Cells of these numbers; a missing one is empty."""
        if self.kind == "words":
            return ["" if np.isnan(v) else self.words[int(v)] for v in values.tolist()]
        if self.kind == "date":
            return ["" if np.isnan(v) else _written_date(v, self.pattern) for v in values.tolist()]
        return ["" if np.isnan(v) else self._number(v, support) for v in values]

    def _number(self, value: np.floating[Any], support: Support) -> str:
        decimals = 0 if support.is_discrete and self.decimals is None else self.decimals
        mark = "," if self.thousands else ""
        text = f"{value:{mark}.{decimals}f}" if decimals is not None else str(value)
        if decimals == 0 and text == "-0":
            text = "0"
        if self.comma or self.thousands:
            text = text.translate({ord(","): self.thousands, ord("."): "," if self.comma else "."})
        return f"{self.before}{text}{self.after}"

    def described(self) -> str:
        """The kind in words."""
        if self.kind == "words":
            return "yes or no" if self.is_flag else f"{len(self.words)} categories"
        if self.kind == "date":
            return f"dates ({self.pattern})"
        return "numbers" + (f" in {(self.before + self.after).strip()}" if self.before or self.after else "")


def _whole(values: NDArray[Any]) -> bool:
    return bool((values == np.floor(values)).all())


@dataclass(frozen=True)
class Found:
    """A column that was read.

    Attributes:
        column: how it is written.
        values: its values ``(N,)``; NaN where a cell is missing.
        problems: row, cell and reason of cells that cannot be read.
        note: what was decided.
        cells: the distinct words of a column of words, and the number of the word of each cell (−1: missing).
    """

    column: Column
    values: Values
    problems: tuple[tuple[int, str, str], ...] = ()
    note: str = ""
    cells: tuple[list[str], NDArray[np.int64]] | None = None

    @property
    def hashed(self) -> Words:
        """Cells as words for hashing: numbers and dates by value, others by their text."""
        if self.cells is None:
            return hashed_numbers(self.values)
        distinct, codes = self.cells
        return np.array([cell_word(cell) for cell in distinct] + [cell_word("")], np.uint64)[codes]


# --- reading ------------------------------------------------------------------------------------------------------


def read_column(name: str, raw: pa.ChunkedArray, sample: Sequence[str], *, categorical: bool, comma: bool) -> Found:
    """A column of a file.

    Args:
        name: its name.
        raw: its cells, typed by the file or by Arrow.
        sample: some cells as text, for the form of numbers and dates; empty if the file is typed.
        categorical: whether its cells are words, also if they look like numbers or dates.
        comma: whether the file has decimal commas.

    Raises:
        InputError: a type that is not a number, a word or a date.
    """
    kind = raw.type.value_type if pa.types.is_dictionary(raw.type) else raw.type
    if categorical or _is_text(kind):
        return _read_words(name, *distinct_words(raw), categorical=categorical, comma=comma)
    if pa.types.is_boolean(kind):
        return Found(Column(name, "words", ("False", "True")), _float64(pc.cast(raw, pa.int8())))
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        pattern = _pattern_of(sample) or _pattern_of_type(raw)
        return Found(Column(name, "date", pattern=pattern), _days(raw))
    if pa.types.is_duration(kind):
        return Found(Column(name, after=" s"), _float64(pc.cast(pc.cast(raw, pa.duration("ms")), pa.int64())) / 1000)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return _read_numbers(name, raw, sample, comma)
    raise InputError(f"column {name!r} has the type {kind}; expected numbers, words or dates")


def read_again(column: Column, raw: pa.ChunkedArray, sample: Sequence[str], *, comma: bool) -> Found:
    """A column of another file, read as ``column`` was: its words keep their numbers.

    Raises:
        InputError: a type that is not a number, a word or a date.
    """
    if column.kind == "words":
        return _known_words(column, *distinct_words(raw))
    found = read_column(column.name, raw, sample, categorical=False, comma=comma)
    if column.kind != found.column.kind:
        if np.isnan(found.values).all():
            return Found(column, found.values)
        said = {"number": "numbers", "words": "words", "date": "dates"}
        row = int(np.flatnonzero(~np.isnan(found.values))[0])
        cell = found.column.text(found.values[row : row + 1], REAL)[0]
        return replace(found, problems=((row, cell, f"expected {said[column.kind]}"),))
    return replace(found, column=column)


def _known_words(column: Column, words: list[str], codes: NDArray[np.int64]) -> Found:
    """Words with the numbers that they have in ``column``; others are `OTHER`, if it has such a word, or problems."""
    known = {word: float(i) for i, word in enumerate(column.words)}
    rest = known.get(OTHER, -1.0)
    values = np.array([known.get(w, rest) for w in words] + [np.nan])[codes]
    shown = ", ".join(column.words[:5]) + (", …" if len(column.words) > 5 else "")
    bad = np.flatnonzero(values == -1)
    problems = tuple((int(i), words[codes[i]], f"unknown; known words: {shown}") for i in bad)
    return Found(column, values, problems, "", (words, codes))


def _text(raw: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cells of any type as dictionary cells of text."""
    if pa.types.is_dictionary(raw.type):
        return raw.unify_dictionaries()
    if pa.types.is_boolean(raw.type):
        return pc.if_else(raw, "True", "False").dictionary_encode()
    if pa.types.is_floating(raw.type):  # 3.0 is the class 3
        whole = pc.all(pc.equal(raw, pc.floor(raw))).as_py()
        raw = pc.cast(raw, pa.int64()) if whole else raw
    return pc.cast(raw, pa.string()).dictionary_encode()


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _float64(values: Any) -> Values:
    if isinstance(values, pa.ChunkedArray | pa.Array):
        values = pc.cast(values, pa.float64(), safe=False).to_numpy()
    return np.asarray(values, dtype=np.float64)


def _read_numbers(name: str, raw: pa.ChunkedArray, sample: Sequence[str], comma: bool) -> Found:
    values = _float64(raw)
    column = Column(name, decimals=_decimals(sample, "," if comma else "."), comma=comma)
    bad = np.flatnonzero(np.isinf(values))
    problems = [(int(i), str(raw[int(i)].as_py()), "not finite") for i in bad]
    return Found(column, values, tuple(problems))


def _decimals(sample: Sequence[str], point: str) -> int | None:
    """Digits after the decimal point, or None if numbers are written in other ways."""
    most = 0
    for cell in sample[:_SAMPLE]:
        if is_missing(cell):
            continue
        if not re.fullmatch(r"[^\d]*[-+]?[\d.,'’ \u00a0\u202f]+[^\d]*", cell):
            return None
        digits = re.search(rf"{re.escape(point)}(\d+)\D*$", cell)
        most = max(most, len(digits[1]) if digits else 0)
    return most if sample and most <= _MOST_DECIMALS else None


def distinct_words(raw: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct words of cells of any type, and the number of each cell's word (−1: missing)."""
    return _decoded(_text(raw))


def _decoded(cells: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct words of dictionary cells, without spaces around them, and the number of each cell's (−1: none)."""
    whole = cells.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else pa.array([], pa.dictionary(pa.int32(), pa.string()))
    codes = pc.fill_null(whole.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    words = ["" if w is None else w.strip() for w in whole.dictionary.to_pylist()]
    distinct = list(dict.fromkeys(w for w in words if not is_missing(w)))
    number = {word: i for i, word in enumerate(distinct)}
    table = np.array([number.get(w, -1) for w in words] + [-1])
    return distinct, table[codes]


def _read_words(name: str, words: list[str], codes: NDArray[np.int64], *, categorical: bool, comma: bool) -> Found:
    """A column of text: numbers in other notations, dates, or words."""
    if not categorical and words:
        gaps = {w for w in words if w.lower() in _SPELLINGS_OF_NUMBERS}
        rest = [w for w in words if w not in gaps]
        for read in (_numbers, _dates):
            found = read(name, rest, comma) if rest else None
            if found is not None:
                column, values, note = found
                table = dict(zip(rest, values.tolist(), strict=True))
                every = np.array([table.get(w, np.nan) for w in words] + [np.nan])[codes]
                bad = np.flatnonzero(np.isinf(every))
                return Found(column, every, tuple((int(i), words[codes[i]], "not finite") for i in bad), note)
        problems = _mistakes(words, codes)
        if problems:
            return Found(Column(name), np.full(len(codes), np.nan), problems, "", (words, codes))
    return _categories(name, words, codes)


def _mistakes(words: list[str], codes: NDArray[np.int64]) -> tuple[tuple[int, str, str], ...]:
    """Cells that are not numbers in a column of numbers."""
    number = np.array([is_number(w) for w in words] + [False])
    cells = number[codes]
    there = codes >= 0
    if cells.sum() < _NUMBERS_AMONG_WORDS * there.sum():
        return ()
    return tuple((int(i), words[codes[i]], "not a number") for i in np.flatnonzero(there & ~cells))


def _categories(name: str, words: list[str], codes: NDArray[np.int64]) -> Found:
    """Words in alphabetical order (no before yes); rare words share the last number."""
    counts = np.bincount(codes[codes >= 0], minlength=len(words))
    kept = sorted(range(len(words)), key=lambda i: (-counts[i], words[i]))
    note = ""
    if len(kept) > MOST_WORDS:
        kept = kept[: MOST_WORDS - 1]
        share = counts[kept].sum() / max(1, counts.sum())
        note = (
            f"column {name!r} has {len(words):,} different words: the {len(kept)} most frequent ({share:.0%} of its "
            f"cells) are categories, and the others are {OTHER}; --drop {name} removes the column"
        )
    order = _ordered([words[i] for i in kept])
    known = {word: i for i, word in enumerate(order)}
    if len(kept) < len(words) or len(order) < 2:  # at least two values
        order = [*order, OTHER]
    table = np.array([known.get(w, len(order) - 1) for w in words] + [np.nan], dtype=np.float64)
    return Found(Column(name, "words", tuple(order)), table[codes], (), note, (words, codes))


def _ordered(words: list[str]) -> list[str]:
    for pair in _YES:
        if sorted(w.lower() for w in words) == sorted(pair):
            return sorted(words, key=lambda w: pair.index(w.lower()))
    return sorted(words)


def _numbers(name: str, cells: list[str], comma: bool) -> tuple[Column, Values, str] | None:
    """Cells as numbers: plain, or with decimal commas, separators of thousands, units; None if they are not numbers."""
    if all(map(is_number, cells)):
        column = Column(name, decimals=_decimals(cells, "."))
        return column, np.array([float(c) for c in cells]), ""
    parts = [_NUMBER.search(cell) for cell in cells]
    if not all(parts):
        return None
    before = {c[: m.start()].lstrip("-") for c, m in zip(cells, parts, strict=True) if m}  # -$3 is a number
    after = {c[m.start() + len(m[0].rstrip()) :] for c, m in zip(cells, parts, strict=True) if m}
    if len(before) > 1 or len(after) > 1:
        return None
    unit_before, unit_after = before.pop(), after.pop()
    if not _UNIT_BEFORE.fullmatch(unit_before) or not _UNIT_AFTER.fullmatch(unit_after):
        return None
    bodies = [m[0].rstrip().replace("−", "-") for m in parts if m]
    point, thousands = _marks(bodies, comma)
    plain = []
    for body in bodies:
        whole, _, rest = body.partition(point)
        if thousands and not re.fullmatch(rf"[-+]?(?:\d{{1,3}}(?:[{re.escape(thousands)}]\d{{3}})+|\d*)", whole):
            return None
        for mark in thousands:
            whole = whole.replace(mark, "")
        plain.append(f"{whole}.{rest}" if rest else whole)
    if not all(re.fullmatch(_PLAIN, b) for b in plain):
        return None
    minus = [-1.0 if m and c[: m.start()].startswith("-") else 1.0 for c, m in zip(cells, parts, strict=True)]
    column = Column(
        name,
        decimals=_decimals(bodies, point),
        comma=point == ",",
        thousands=thousands[:1],
        before=unit_before,
        after=unit_after,
    )
    said = [f"the decimal point is {point!r}"] if "," in "".join(bodies) else []
    said += [f"{thousands[0]!r} separates thousands"] if thousands else []
    said += (
        [f"the unit {(unit_before + unit_after).strip()!r} is not part of the number"]
        if unit_before + unit_after.strip()
        else []
    )
    return column, np.array([float(b) for b in plain]) * minus, f"column {name!r}: {', '.join(said)}" if said else ""


def _marks(bodies: list[str], comma: bool) -> tuple[str, str]:
    """The decimal point, and the separators of thousands that occur."""
    spaces = "".join(s for s in " '’\u00a0\u202f" if any(s in b for b in bodies))
    commas, points = any("," in b for b in bodies), any("." in b for b in bodies)
    if commas and points:
        both = next((b for b in bodies if "," in b and "." in b), None)
        if both is not None:
            return (",", f".{spaces}") if both.rfind(",") > both.rfind(".") else (".", f",{spaces}")
        groups = all(re.fullmatch(r"[-+]?\d{1,3}(?:,\d{3})+", b) for b in bodies if "," in b)
        return (".", f",{spaces}") if groups else (",", f".{spaces}")
    if commas:
        groups = all(re.fullmatch(r"[-+]?\d{1,3}(?:,\d{3})*", b) for b in bodies)
        return (".", f",{spaces}") if groups and not comma else (",", spaces)
    if points and comma and all(re.fullmatch(r"[-+]?\d{1,3}(?:\.\d{3})+|[-+]?\d{1,3}", b) for b in bodies):
        return ",", f".{spaces}"
    return (",", spaces) if comma and not points else (".", spaces)


# --- dates --------------------------------------------------------------------------------------------------------


def _dates(name: str, cells: list[str], comma: bool) -> tuple[Column, Values, str] | None:
    """Cells as days since 1970-01-01, or None if they have no common pattern."""
    fitting = [p for p in PATTERNS if _parsed(cells[0], p) is not None]
    fitting = [p for p in fitting if all(_parsed(c, p) is not None for c in cells)]
    if not fitting:
        return None
    note = ""
    if len(fitting) > 1 and {p[:2] for p in fitting} >= {"%d", "%m"}:
        note = f"column {name!r}: dates are read as {fitting[0]}; they could also be {fitting[1]}"
    return Column(name, "date", pattern=fitting[0]), np.array([_parsed(c, fitting[0]) for c in cells]), note


def _parsed(cell: str, pattern: str) -> float | None:
    if len(cell) > 40 or not cell[:1].isalnum():
        return None
    try:
        moment = datetime.datetime.strptime(cell, pattern)
    except ValueError:
        return None
    if "%H" in pattern and not {"%d", "%m", "%Y"} & set(re.findall("%.", pattern)):
        return (moment - datetime.datetime(1900, 1, 1)).total_seconds() / _DAY
    return (moment - _EPOCH).total_seconds() / _DAY


def _written_date(days: float, pattern: str) -> str:
    """Days since 1970-01-01 as text, rounded to what the pattern shows; times of day wrap around."""
    if pattern in _CLOCKS:
        days %= 1
    step = 1e-6 if "%f" in pattern else 1.0 if "%S" in pattern else 60.0 if "%M" in pattern else _DAY
    try:
        moment = _EPOCH + datetime.timedelta(seconds=round(days * _DAY / step) * step)
    except OverflowError:  # before year 1 or after year 9999
        moment = datetime.datetime.max if days > 0 else datetime.datetime.min
    return moment.strftime(pattern)


def _days(raw: pa.ChunkedArray) -> Values:
    kind = raw.type
    if pa.types.is_time(kind):
        return _float64(pc.cast(pc.cast(raw, pa.time64("us")), pa.int64())) / (_DAY * 1e6)
    if pa.types.is_date(kind):
        return _float64(pc.cast(pc.cast(raw, pa.date32()), pa.int32()))
    units = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
    return _float64(pc.cast(raw, pa.int64())) / (_DAY * units[kind.unit])


def _pattern_of(sample: Sequence[str]) -> str:
    cells = [c for c in sample if not is_missing(c)]
    return next((p for p in PATTERNS if cells and all(_parsed(c, p) is not None for c in cells)), "")


def _pattern_of_type(raw: pa.ChunkedArray) -> str:
    kind = raw.type
    if pa.types.is_time(kind):
        return "%H:%M:%S"
    whole = pa.types.is_date(kind) or bool((_days(raw)[~np.isnan(_days(raw))] % 1 == 0).all())
    return "%Y-%m-%d" if whole else "%Y-%m-%d %H:%M:%S"


# --- writing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableForm(Form):
    """The columns of a table.

    Attributes:
        columns: columns of ``x``.
        given: columns of the conditions.
        separator: of the cells.
        window: number of rows of each example, if examples are windows of consecutive rows; else 0.
        time: column by which the rows of a series were sorted, or None.
        label: column of the label, or empty.
    """

    name: ClassVar[str] = "table"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".csv.gz", ".parquet")

    columns: tuple[Column, ...]
    given: tuple[Column, ...] = ()
    separator: str = ","
    window: int = 0
    time: Column | None = None
    label: str = ""

    @property
    def meaning(self) -> tuple[tuple[str, ...], ...]:
        return tuple(column.words for column in self.columns if column.words)

    def files(self, x: Tensor, out: Path) -> Iterator[tuple[Path, bytes]]:
        cells = self.cells(x)
        if out.name.lower().endswith(".parquet"):
            yield out, self._parquet(x)
            return
        if not out.name.lower().endswith(self.suffixes):
            raise InputError(f"{out} should end in one of {', '.join(self.suffixes)}")
        names = [column.name for column in self.columns]
        if self.window:
            names, cells = ["window", *names], [[str(i // self.window) for i in range(len(cells[0]))], *cells]
        separator = "\t" if ".tsv" in out.name.lower() else self.separator
        content = plain_text([names, *zip(*cells, strict=True)], separator).encode()
        if out.name.lower().endswith(".gz"):
            import gzip

            content = gzip.compress(content, mtime=0)
        yield out, content

    def cells(self, x: Tensor) -> list[list[str]]:
        """Rows ``(N, D)``, or windows of rows, as text, column by column."""
        rows = x.detach().cpu().reshape(-1, len(self.columns)).numpy()
        return [c.text(rows[:, d], self._support(rows[:, d])) for d, c in enumerate(self.columns)]

    @staticmethod
    def _support(values: NDArray[Any]) -> Support:
        return REAL if values.dtype.kind == "f" and bool((values != np.floor(values)).any()) else BINARY

    def _parquet(self, x: Tensor) -> bytes:
        import pyarrow.parquet

        rows = x.detach().cpu().reshape(-1, len(self.columns)).numpy()
        columns: dict[str, Any] = {}
        for d, column in enumerate(self.columns):
            values = rows[:, d]
            if column.kind == "number":
                whole = values.dtype.kind != "f" or bool((values == np.floor(values)).all())
                columns[column.name] = values.astype(np.int64) if whole else values
            elif column.kind == "date" and column.pattern not in _CLOCKS:
                micro = (values.astype(np.float64) * _DAY * 1e6).round().astype(np.int64)
                columns[column.name] = pa.array(micro, pa.timestamp("us"))
            else:
                columns[column.name] = column.text(values, REAL)
        sink = io.BytesIO()
        pyarrow.parquet.write_table(pa.table(columns), sink)
        return sink.getvalue()
