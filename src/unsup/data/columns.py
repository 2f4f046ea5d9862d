"""Columns of tables: from cells as they are written to numbers, and back.

A column is numbers, words or dates. Words are numbered; dates are days since 1970-01-01. A missing cell is NaN. What is
needed to write a number as it was written (words, pattern of dates, decimals, units) is kept in `Column`.
"""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
from unsup.core.escapes import shell_word
from unsup.core.event import BINARY, REAL, Support
from unsup.data.arrays import whole_support
from unsup.data.examples import listing
from unsup.data.form import Form
from unsup.data.hashing import Words, cell_word
from unsup.data.hashing import words as hashed_numbers
from unsup.data.notation import (
    COMPACT,
    DAY,
    MOST_DECIMALS,
    PLAIN,
    Notation,
    best_pattern,
    compact_dates,
    date_in,
    decimals_of,
    has_leading_zero,
    is_clock,
    is_day_first,
    is_decimal,
    is_missing,
    is_missing_number,
    is_number,
    notation_of,
    pattern_of,
    unit_of,
    written_date,
    zone_days,
    zone_of,
)

Kind = Literal["number", "words", "date"]
Values = NDArray[np.float64]

OTHER = "(other)"
"""The word for all words that are too rare to have a number of their own."""
MOST_WORDS = 100
"""The number of words of a column that have a number of their own."""

_MISTAKES_BELOW = 0.5  # where more cells than this fraction are numbers or dates, the others are mistakes
_HEAD = 1000  # values that are looked at before all
_WHOLE = 2**53  # float64 represents all integers up to this
_YES = (("no", "yes"), ("n", "y"), ("false", "true"), ("f", "t"), ("off", "on"))


@dataclass(frozen=True)
class Column:
    """How the cells of one column are written.

    Attributes:
        name: its name.
        kind: numbers, words (categories) or dates.
        words: the words of the numbers 0, 1, …; the last may be `OTHER`.
        pattern: of dates, as in `datetime.datetime.strftime`.
        decimals: digits after the decimal point; None for as many as are needed.
        notation: of numbers.
    """

    name: str
    kind: Kind = "number"
    words: tuple[str, ...] = ()
    pattern: str = ""
    decimals: int | None = None
    notation: Notation = PLAIN

    @property
    def is_flag(self) -> bool:
        """Whether its words are yes and no."""
        return _is_flag(self.words)

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
            return ["" if np.isnan(v) else written_date(v, self.pattern) for v in values.tolist()]
        return ["" if np.isnan(v) else self._number(v, support) for v in values]

    def _number(self, value: np.floating[Any], support: Support) -> str:
        decimals = 0 if support.is_discrete and self.decimals is None else self.decimals
        own = self.notation
        mark = "," if own.thousands else ""
        text = f"{value:{mark}.{decimals}f}" if decimals is not None else str(value)
        if decimals == 0 and text == "-0":
            text = "0"
        if own.width:
            text = text.zfill(own.width)
        if own.comma or own.thousands:
            text = text.translate({ord(","): own.thousands, ord("."): "," if own.comma else "."})
        return f"{own.before}{text}{own.after}"

    def described(self) -> str:
        """The kind in words."""
        if self.kind == "words":
            return "yes or no" if self.is_flag else f"{len(self.words)} categories"
        if self.kind == "date":
            return f"dates ({self.pattern})"
        return "numbers" + (f" in {self.notation.unit}" if self.notation.unit else "")


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
    if not (categorical or raw.type == kind or _is_text(kind) or isinstance(kind, pa.BaseExtensionType)):
        raw = raw.cast(kind)
    if categorical:
        return _categories(name, *distinct_words(raw, gaps=("",)))
    if _is_text(kind):
        return _read_text(name, *distinct_words(raw, gaps=("",)), comma=comma)
    if pa.types.is_boolean(kind):
        return Found(Column(name, "words", ("False", "True")), _float64(pc.cast(raw, pa.int8())))
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        column, note = _dates(name, [c for c in sample if not is_missing(c)]) or (Column(name, "date"), "")
        column = replace(column, pattern=column.pattern or _pattern_of_type(raw))
        zone = kind.tz if pa.types.is_timestamp(kind) and not sample else None
        if zone not in (None, "UTC"):
            note = f"column {name!r}: times are converted from {zone} to UTC"
        return Found(column, _days(raw) + zone_days(zone_of(column.pattern)), note=note)
    if pa.types.is_duration(kind):
        return Found(
            Column(name, notation=Notation(after=" s")),
            _float64(pc.cast(pc.cast(raw, pa.duration("ms")), pa.int64())) / 1000,
        )
    if _is_numeric(kind) or pa.types.is_null(kind):
        return _read_numbers(name, raw, sample, comma)
    raise InputError(f"column {name!r} has the type {kind}; expected numbers, words or dates; convert it to text")


def read_label(name: str, raw: pa.ChunkedArray) -> Found:
    """The cells of a column as classes."""
    return _categories(name, *distinct_words(raw))


def read_again(column: Column, raw: pa.ChunkedArray) -> Found:
    """A column of another file in the form of ``column``: its words keep their numbers, its dates their pattern.

    Cells in another notation are read if there is only one way to read them and the unit is the same.

    Raises:
        InputError: a type that is not a number, a word or a date.
    """
    text = _is_text(raw.type.value_type if pa.types.is_dictionary(raw.type) else raw.type)
    if column.kind == "words":
        return _known_words(column, *distinct_words(raw, gaps=("",)))
    if text or (column.pattern == COMPACT and pa.types.is_integer(raw.type)):
        return _known_notation(column, *distinct_words(raw, gaps=("",)))
    if column.kind == "number" and _is_numeric(raw.type):
        return _finite(column, _float64(raw), raw)
    found = read_column(column.name, raw, (), categorical=False, comma=False)
    if column.kind != found.column.kind and not np.isnan(found.values).all():
        row = int(np.flatnonzero(~np.isnan(found.values))[0])
        cell = found.column.text(found.values[row : row + 1], REAL)[0]
        return replace(found, problems=((row, cell, f"not {_expected(column)}"),))
    return replace(found, column=column)


def _expected(column: Column) -> str:
    """What a cell of a column is, in words."""
    if column.kind == "date":
        return f"a date like {written_date(0, column.pattern)}"
    return f"a number in {column.notation.unit}" if column.notation.unit else "a number"


def _known_notation(column: Column, words: list[str], codes: NDArray[np.int64]) -> Found:
    """Cells of numbers or dates in the notation of ``column``, or else in another that is certain."""
    there = [w for w in words if not is_missing_number(w)]
    values, note, own = _values(there, column), "", column
    if any(v is None for v in values):
        other = _other_notation(column, there)
        if other is not None:
            values, own = _values(there, other), other
            if other.kind == "date":
                how = f"as {other.pattern}"
            elif column.notation.unit and not other.notation.unit:
                how = f"in {column.notation.unit}, although no unit is given"
            else:
                how = f"with the decimal point {',' if other.notation.comma else '.'!r}"
            note = f"column {column.name!r} is read {how}, unlike the training data"
    table = dict(zip(there, (np.nan if v is None else v for v in values), strict=True))
    wrong = {w for w, v in zip(there, values, strict=True) if v is None}
    found = np.array([table.get(w, np.nan) for w in words] + [np.nan])[codes]
    problems = _problems(words, codes, wrong, f"not {_expected(column)}")
    return Found(own, found, problems, note, (words, codes))


def _values(cells: Sequence[str], column: Column) -> list[float | None]:
    """The numbers or days of cells in the notation of ``column``; None where a cell is written in another way."""
    if column.kind == "date":
        return [date_in(cell, column.pattern) for cell in cells]
    plain = column.notation == PLAIN
    return [float(cell) if plain and is_number(cell) else column.notation.value(cell) for cell in cells]


def _other_notation(column: Column, cells: Sequence[str]) -> Column | None:
    """The column in the notation of all cells, if it is certain; None if it is not, or if the unit is another."""
    if column.kind == "date":
        pattern, swapped = pattern_of(cells)
        if swapped and is_day_first(swapped) == is_day_first(column.pattern):
            pattern = swapped
        return replace(column, pattern=pattern) if pattern and is_clock(pattern) == is_clock(column.pattern) else None
    found = notation_of(cells, column.notation.comma)
    if found is None or found.unit not in ("" if column.notation.unit != "%" else "%", column.notation.unit):
        return None  # 0.12 may be 12 %
    return replace(column, notation=found)


def _problems(
    words: list[str], codes: NDArray[np.int64], wrong: set[str], reason: str
) -> tuple[tuple[int, str, str], ...]:
    """Row, cell and reason of the cells that are among ``wrong``."""
    bad = np.array([w in wrong for w in words] + [False])
    return tuple((int(i), words[codes[i]], reason) for i in np.flatnonzero(bad[codes]))


def _known_words(column: Column, words: list[str], codes: NDArray[np.int64]) -> Found:
    """Words with the numbers that they have in ``column``; others are `OTHER`, if it has such a word, or problems."""
    known = {word: float(i) for i, word in enumerate(column.words)}
    if column.is_flag:
        known |= {w: known[f] for w in words for f in column.words if w.lower() == f.lower()}
    missing = {w: np.nan for w in words if is_missing(w)}
    rest = known.get(OTHER, -1.0)
    values = np.array([(missing | known).get(w, rest) for w in words] + [np.nan])[codes]
    shown = ", ".join(map(repr, column.words[:5])) + (", …" if len(column.words) > 5 else "")
    wrong = {w for w in words if (missing | known).get(w, rest) == -1}
    return Found(column, values, _problems(words, codes, wrong, f"unknown; known words: {shown}"), "", (words, codes))


def _text(raw: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cells of any type as dictionary cells of text."""
    if not pa.types.is_dictionary(raw.type):
        return _strings(raw).dictionary_encode()
    whole = raw.unify_dictionaries()
    if _is_text(raw.type.value_type):
        return whole
    parts = [
        pa.DictionaryArray.from_arrays(part.indices, _strings(pa.chunked_array([part.dictionary])).combine_chunks())
        for part in whole.chunks
    ]
    return pa.chunked_array(parts, pa.dictionary(raw.type.index_type, pa.string()))


def _strings(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cells that are not text as text."""
    kind = cells.type
    if pa.types.is_boolean(kind):
        return pc.if_else(cells, "True", "False")
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        written = Column("", "date", pattern=_pattern_of_type(cells)).text(_days(cells), REAL)
        return pa.chunked_array([[each or None for each in written]], pa.string())
    if pa.types.is_floating(kind):  # 3.0 is the class 3
        whole = pc.all(pc.equal(cells, pc.floor(cells))).as_py()
        cells = pc.cast(cells, pa.int64()) if whole else cells
    try:
        return pc.cast(cells, pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise InputError(f"cells of the type {kind} are not words; convert them to text") from error


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _float64(values: Any) -> Values:
    if isinstance(values, pa.ChunkedArray | pa.Array):
        values = pc.cast(values, pa.float64(), safe=False).to_numpy()
    return np.asarray(values, dtype=np.float64)


def _read_numbers(name: str, raw: pa.ChunkedArray, sample: Sequence[str], comma: bool) -> Found:
    values = _float64(raw)
    if pa.types.is_integer(raw.type) and (days := compact_dates(values)) is not None:
        first = np.nanmin(values)
        note = f"column {name!r}: numbers such as {first:.0f} are read as dates; --drop {shell_word(name)} removes it"
        return Found(Column(name, "date", pattern=COMPACT), days, note=note)
    decimals = _decimals(values, decimals_of(sample, "," if comma else ".") if sample else 0)
    found = _finite(Column(name, decimals=decimals, notation=Notation(comma)), values, raw)
    whole = pa.types.is_integer(raw.type) or decimals == 0
    if whole and not found.problems and np.nanmax(np.abs(values), initial=0) > _WHOLE:
        as_words = f"--categorical {shell_word(name)} reads them as words"
        note = f"column {name!r}: integers above 2^53 are rounded to the nearest float64; {as_words}"
        found = replace(found, note=note)
    return found


def _finite(column: Column, values: Values, raw: pa.ChunkedArray) -> Found:
    """Numbers as the values of a column; infinite ones are problems."""
    bad = np.flatnonzero(np.isinf(values))
    return Found(column, values, tuple((int(i), str(raw[int(i)].as_py()), "not finite") for i in bad))


def _decimals(values: Values, first: int | None) -> int | None:
    """Digits after the decimal point of all values, at least ``first``; None if there are too many."""
    for part in (values[:_HEAD], values):
        while first is not None and not np.array_equal(np.round(part, first), part, equal_nan=True):
            first = first + 1 if first < MOST_DECIMALS else None
    return first


def distinct_words(raw: pa.ChunkedArray, *, gaps: Sequence[str] | None = None) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct words of cells of any type, and the number of each cell's word (−1: missing).

    Args:
        gaps: the words that are missing cells; None for all spellings.
    """
    return _decoded(_text(raw), gaps)


def _decoded(cells: pa.ChunkedArray, gaps: Sequence[str] | None) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct words of dictionary cells, without spaces around them, and the number of each cell's (−1: none)."""
    whole = cells.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else pa.array([], pa.dictionary(pa.int32(), pa.string()))
    codes = pc.fill_null(pc.cast(whole.indices, pa.int64()), -1).to_numpy(zero_copy_only=False)
    words = ["" if w is None else w.strip() for w in whole.dictionary.to_pylist()]
    distinct = list(dict.fromkeys(w for w in words if not (is_missing(w) if gaps is None else w in gaps)))
    number = {word: i for i, word in enumerate(distinct)}
    table = np.array([number.get(w, -1) for w in words] + [-1])
    return distinct, table[codes]


def _read_text(name: str, words: list[str], codes: NDArray[np.int64], *, comma: bool) -> Found:
    """A column of text: numbers in any notation, dates, or words.

    Args:
        words: the distinct cells, among them spellings of missing cells.
    """
    there = [w for w in words if not is_missing_number(w)]
    found = (_numbers(name, there, comma) or _dates(name, there)) if there else None
    if found is not None:
        column, note = found
        table = {w: np.nan if v is None else v for w, v in zip(there, _values(there, column), strict=True)}
        every = np.array([table.get(w, np.nan) for w in words] + [np.nan])[codes]
        infinite = {w for w, v in table.items() if np.isinf(v)}
        return Found(column, every, _problems(words, codes, infinite, "not finite"), note)
    gaps = [w for w in words if is_missing(w)]
    cells = _without(gaps, words, codes)
    mistaken = _mistakes(words, codes)
    if mistaken:
        # Whether there are mistakes depends on how often each cell occurs; the hashes of rows do not.
        return Found(Column(name), np.full(len(codes), np.nan), mistaken, "", cells)
    categories = _categories(name, *cells)
    if not gaps:
        return categories
    shown = listing(list(map(repr, gaps)))
    note = f"column {name!r}: {shown} is missing; --categorical {shell_word(name)} reads it as a word"
    return replace(categories, note="; ".join(filter(None, (categories.note, note))))


def _without(gaps: list[str], words: list[str], codes: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64]]:
    """Words and the number of each cell's, of which ``gaps`` are missing."""
    kept = [w for w in words if w not in gaps]
    number = {w: i for i, w in enumerate(kept)}
    return kept, np.array([number.get(w, -1) for w in words] + [-1])[codes]


def _mistakes(words: list[str], codes: NDArray[np.int64]) -> tuple[tuple[int, str, str], ...]:
    """The other cells of a column most of whose cells are numbers in one unit, or dates in one pattern."""
    there = [w for w in words if not is_missing_number(w)]
    counts = dict(zip(words, np.bincount(codes[codes >= 0], minlength=len(words)).tolist(), strict=True))
    units: Counter[str] = Counter()
    for word in there:
        if (unit := unit_of(word)) is not None:
            units[unit] += counts[word]
    pattern = best_pattern(there)
    ways: list[tuple[str, set[str]]] = [
        ("not a number", {w for w in there if is_number(w)}),
        (f"not a date like {written_date(0, pattern)}", {w for w in there if date_in(w, pattern) is not None}),
    ]
    if units and len(units) > 1 and sum(units.values()) == sum(counts[w] for w in there):
        unit = units.most_common(1)[0][0]
        ways.append((f"not in {unit}", {w for w in there if unit_of(w) == unit}))
    for reason, right in ways:
        if sum(counts[w] for w in right) >= _MISTAKES_BELOW * sum(counts[w] for w in there) > 0:
            return _problems(words, codes, set(there) - right, reason)
    return ()


def _categories(name: str, words: list[str], codes: NDArray[np.int64]) -> Found:
    """Words in alphabetical order (no before yes); rare words share the last number."""
    words, codes = _one_spelling(words, codes)
    counts = np.bincount(codes[codes >= 0], minlength=len(words))
    kept = sorted(range(len(words)), key=lambda i: (-counts[i], words[i]))
    note = ""
    if len(kept) > MOST_WORDS:
        kept = kept[: MOST_WORDS - 1]
        share = counts[kept].sum() / max(1, counts.sum())
        note = (
            f"column {name!r} has {len(words):,} different words: the {len(kept)} most frequent ({share:.0%} of its "
            f"cells) are categories, and the others are {OTHER}; --drop {shell_word(name)} removes the column"
        )
    order = _ordered([words[i] for i in kept])
    known = {word: i for i, word in enumerate(order)}
    if len(kept) < len(words) or len(order) < 2:  # at least two values
        order = [*order, OTHER]
    table = np.array([known.get(w, len(order) - 1) for w in words] + [np.nan], dtype=np.float64)
    return Found(Column(name, "words", tuple(order)), table[codes], (), note, (words, codes))


def _one_spelling(words: list[str], codes: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64]]:
    """Yes and no in their most frequent spellings, if the words are yes and no in several; else the same words."""
    if len(words) <= 2 or tuple(sorted({w.lower() for w in words})) not in _YES:
        return words, codes
    counts = np.bincount(codes[codes >= 0], minlength=len(words))
    usual = {words[i].lower(): words[i] for i in np.argsort(counts, kind="stable")}
    kept = list(usual.values())
    return kept, np.array([kept.index(usual[w.lower()]) for w in words] + [-1])[codes]


def _ordered(words: list[str]) -> list[str]:
    for pair in _YES:
        if sorted(w.lower() for w in words) == sorted(pair):
            return sorted(words, key=lambda w: pair.index(w.lower()))
    return sorted(words)


def _is_flag(words: Sequence[str]) -> bool:
    """Whether the words are yes and no, in some case."""
    return len(words) == 2 and tuple(sorted(w.lower() for w in words)) in _YES


def _numbers(name: str, cells: list[str], comma: bool) -> tuple[Column, str] | None:
    """The form of numbers: plain, or with decimal commas, separators of thousands, units; None for other cells."""
    plain = all(map(is_number, cells)) and not any(map(has_leading_zero, cells))
    if plain and not (comma and all("." in c and not is_decimal(c, ".") for c in cells if "." in c)):
        return Column(name, decimals=decimals_of(cells, ".")), ""
    found = notation_of(cells, comma)
    if found is None:
        return None
    point = "," if found.comma else "."
    column = Column(name, decimals=decimals_of(cells, point), notation=found)
    said = [f"the decimal point is {point!r}"] if any("," in cell for cell in cells) else []
    said += [f"{found.thousands!r} separates thousands"] if found.thousands else []
    said += [f"the unit {found.unit!r} is not part of the number"] if found.unit else []
    said += [
        f"numbers have {found.width} digits, with leading zeros; --categorical {shell_word(name)} reads them as words"
    ] * bool(found.width)
    return column, f"column {name!r}: {', '.join(said)}" if said else ""


# --- dates --------------------------------------------------------------------------------------------------------


def _dates(name: str, cells: Sequence[str]) -> tuple[Column, str] | None:
    """The form of dates, or None if cells have no common pattern."""
    pattern, swapped = pattern_of(cells)
    if not pattern:
        return None
    said = [f"dates are read as {pattern}; they could also be {swapped}"] if swapped else []
    if len({zone_of(cell) for cell in cells}) > 1:
        said.append("times of several zones are converted to UTC")
    return Column(name, "date", pattern=pattern), f"column {name!r}: {', '.join(said)}" if said else ""


def _days(raw: pa.ChunkedArray) -> Values:
    kind = raw.type
    if pa.types.is_time(kind):
        return _float64(pc.cast(pc.cast(raw, pa.time64("us")), pa.int64())) / (DAY * 1e6)
    if pa.types.is_date(kind):
        return _float64(pc.cast(pc.cast(raw, pa.date32()), pa.int32()))
    units = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
    return _float64(pc.cast(raw, pa.int64())) / (DAY * units[kind.unit])


def _pattern_of_type(raw: pa.ChunkedArray) -> str:
    kind = raw.type
    if pa.types.is_date(kind):
        return "%Y-%m-%d"
    seconds = pa.time32("s") if pa.types.is_time(kind) else pa.timestamp("s", kind.tz)
    whole = pc.all(pc.equal(raw, pc.cast(pc.cast(raw, seconds, safe=False), kind))).as_py() is not False
    clock = "%H:%M:%S" if whole else "%H:%M:%S.%f"
    if pa.types.is_time(kind):
        return clock
    if kind.tz is not None:
        return f"%Y-%m-%dT{clock}Z"
    days = _days(raw)
    return "%Y-%m-%d" if (days[~np.isnan(days)] % 1 == 0).all() else f"%Y-%m-%d {clock}"


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
        header: whether the file has a line of names.
    """

    name: ClassVar[str] = "table"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".csv.gz", ".parquet")

    columns: tuple[Column, ...]
    given: tuple[Column, ...] = ()
    separator: str = ","
    window: int = 0
    time: Column | None = None
    label: str = ""
    header: bool = True

    def word(self, entry: int, value: float) -> str | None:
        column = self.columns[entry % len(self.columns)]
        return None if column.kind == "number" else column.text(np.array([value]), REAL)[0]

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
            names, cells = ["window", *names], [[str(i // x.shape[1]) for i in range(len(cells[0]))], *cells]
        header = [names] if self.header or self.window else []
        yield out, delimited_bytes([*header, *zip(*cells, strict=True)], out, self.separator)

    def cells(self, x: Tensor) -> list[list[str]]:
        """Rows ``(N, D)``, or windows of rows, as text, column by column."""
        rows = x.detach().cpu().reshape(-1, len(self.columns)).numpy()
        return [c.text(rows[:, d], self.support_of(rows[:, d])) for d, c in enumerate(self.columns)]

    @staticmethod
    def support_of(values: NDArray[Any]) -> Support:
        """How numbers are written: as integers, if they all are."""
        return REAL if values.dtype.kind == "f" and bool((values != np.floor(values)).any()) else BINARY

    def _parquet(self, x: Tensor) -> bytes:
        import pyarrow.parquet

        rows = x.detach().cpu().reshape(-1, len(self.columns)).numpy()
        columns: dict[str, Any] = {}
        for d, column in enumerate(self.columns):
            values = rows[:, d]
            if column.kind == "number":
                if column.decimals is not None:
                    values = np.round(values.astype(np.float64), column.decimals)
                whole = values.dtype.kind != "f" or bool((values == np.floor(values)).all())
                columns[column.name] = values.astype(np.int64) if whole else values
            elif column.kind == "date" and not is_clock(column.pattern):
                zone = zone_of(column.pattern)
                micro = ((values.astype(np.float64) - zone_days(zone)) * DAY * 1e6).round().astype(np.int64)
                columns[column.name] = pa.array(micro, pa.timestamp("us", tz="UTC" if zone else None))
            else:
                columns[column.name] = column.text(values, REAL)
        sink = io.BytesIO()
        pyarrow.parquet.write_table(pa.table(columns), sink)
        return sink.getvalue()


def delimited_bytes(rows: Iterable[Iterable[str]], out: Path, separator: str) -> bytes:
    """The content of a file of cells: with tabs for .tsv, packed for .gz."""
    content = plain_text(rows, "\t" if ".tsv" in out.name.lower() else separator).encode()
    return gzip.compress(content, mtime=0) if out.name.lower().endswith(".gz") else content
