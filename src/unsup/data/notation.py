"""Numbers and dates as text: the notation of the cells of a column, and their values.

Dates are days since 1970-01-01, in local time; times of day are fractions of a day.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_GAPS = ("", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "nat", "null", "nil", "none", "?", "missing", "#null!")
_GAPS_OF_NUMBERS = ("-", "--", ".", "#div/0!", "#value!", "#num!", "#ref!", "1.#ind", "1.#qnan", "unknown")
"""Spellings of missing cells that are words unless the other cells are numbers or dates."""
MOST_DECIMALS = 9
"""The most digits after the decimal point that are kept; numbers with more are written in full."""

_SPACES = " '’\u00a0\u202f"  # thousands are separated by any of them
_PLAIN = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_NUMBER = re.compile(r"[-+−]?(?:\d[\d.,'’ \u00a0\u202f]*|[.,]\d+)(?:[eE][-+]?\d+)?")
_LEADING_ZERO = re.compile(r"[-+]?0\d+")
_UNIT_BEFORE = re.compile(r"(?:[$€£¥₹]|[A-Z]{3}) ?|")  # letters and a number together are a name, as in room3
_UNIT_AFTER = re.compile(r"\s?[^\d\s.,]{0,8}")
_UNITS = frozenset(
    (
        *("$", "€", "£", "¥", "₹", "USD", "EUR", "GBP", "JPY", "CHF", "INR", "CNY", "%", "‰", "°", "°C", "°F", "K"),
        *(
            "ng",
            "µg",
            "mg",
            "g",
            "kg",
            "t",
            "lb",
            "lbs",
            "oz",
            "nm",
            "µm",
            "mm",
            "cm",
            "m",
            "km",
            "in",
            "ft",
            "yd",
            "mi",
        ),
        *("ns", "µs", "ms", "s", "sec", "min", "h", "hr", "d", "ml", "mL", "cl", "l", "L", "Pa", "hPa", "kPa", "bar"),
        *("Hz", "kHz", "MHz", "GHz", "B", "kB", "KB", "MB", "GB", "TB", "mV", "V", "kV", "mA", "A", "mW", "W", "kW"),
    )
)

DAY = 86_400.0
"""Seconds of a day."""
_EPOCH = datetime.datetime(1970, 1, 1)
_DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d.%m.%y", "%m/%d/%y", "%d/%m/%y", "%d-%m-%y", "%m-%d-%y"),
)
_WORDY_DATES = ("%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%d-%b-%y", "%b %Y")
_TIMES = ("", " %H:%M", " %H:%M:%S", "T%H:%M", "T%H:%M:%S", " %H:%M:%S.%f", "T%H:%M:%S.%f")
_MONTHS = ("%Y-%m", "%Y/%m", "%m/%Y")
_CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f")
PATTERNS = tuple(date + time for date in (*_DATES, *_WORDY_DATES) for time in _TIMES) + _MONTHS + _CLOCKS
"""Patterns of dates and times; a time may be followed by a zone such as ``Z`` or ``+02:00``."""
COMPACT = "%Y%m%d"
"""The pattern of dates that are whole numbers."""
_FEWEST = 3  # distinct whole numbers that are all dates by accident are rare from this number on
_DATE_LIKE = re.compile(r"\d|\w.*\d")  # quickly tells words from dates
_ZONE = re.compile(r"(?<=[\dMSf])(?:Z|[+-]\d\d:?\d\d)$")


# --- missing cells and plain numbers ------------------------------------------------------------------------------


def spellings() -> list[str]:
    """The spellings of a missing cell, in the cases that occur."""
    return list(dict.fromkeys(w for s in _GAPS for w in (s, s.upper(), s.capitalize(), "NaN", "NaT", "<NA>", "n/A")))


def is_missing(cell: str) -> bool:
    return cell.strip().lower() in _GAPS


def is_missing_number(cell: str) -> bool:
    """Whether a cell is missing in a column of numbers or dates."""
    return cell.strip().lower() in (*_GAPS, *_GAPS_OF_NUMBERS)


def is_number(cell: str) -> bool:
    """Whether a cell is a number in plain notation, including infinity but not a missing cell ("nan")."""
    if is_missing(cell):
        return False
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def has_leading_zero(cell: str) -> bool:
    """Whether a whole number starts with a zero, as codes do: "007".

    >>> has_leading_zero("007"), has_leading_zero("0"), has_leading_zero("0.5")
    (True, False, False)
    """
    return _LEADING_ZERO.fullmatch(cell.strip()) is not None


# --- numbers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Notation:
    """How the numbers of a column are written.

    Attributes:
        comma: whether the decimal point is a comma.
        thousands: separator of thousands.
        before: unit before the number, such as ``"$"``.
        after: unit after the number, such as ``" %"``.
        width: number of digits of whole numbers with leading zeros; 0 for numbers without.
    """

    comma: bool = False
    thousands: str = ""
    before: str = ""
    after: str = ""
    width: int = 0

    @property
    def unit(self) -> str:
        return (self.before + self.after).strip()

    def value(self, cell: str) -> float | None:
        """The number in a cell, or None if it is written in another way.

        >>> Notation(comma=True, thousands=".", after=" €").value("1.234,50 €")
        1234.5
        """
        parts = _split(cell)
        if parts is None or parts[0].strip() != self.before.strip() or parts[2].strip() != self.after.strip():
            return None
        body = parts[1]
        if has_leading_zero(body) and len(body.lstrip("-+")) != self.width:
            return None
        whole, _, rest = body.partition("," if self.comma else ".")
        if self.thousands:
            marks = re.escape(_SPACES if self.thousands in _SPACES else self.thousands)
            if not re.fullmatch(rf"[-+]?(?:\d{{1,3}}(?:[{marks}]\d{{3}})+|\d*)", whole):
                return None
            whole = re.sub(f"[{marks}]", "", whole)
        plain = f"{whole}.{rest}" if rest else whole
        if "." in whole or not _PLAIN.fullmatch(plain):
            return None
        return -float(plain) if parts[3] else float(plain)


PLAIN = Notation()
"""Numbers as programs write them."""


def _split(cell: str) -> tuple[str, str, str, bool] | None:
    """The unit before a number, the number, the unit after it, and whether a minus precedes the unit (-$3)."""
    found = _NUMBER.search(cell)
    if found is None:
        return None
    body, before = found[0].rstrip(), cell[: found.start()]
    minus = before.startswith("-")
    after = cell[found.start() + len(body) :]
    return before.lstrip("-") if minus else before, body.replace("−", "-"), after, minus


def notation_of(cells: Sequence[str], comma: bool) -> Notation | None:
    """The common notation of numbers, or None if there is none.

    Where it is not certain (1,234), a comma separates thousands, unless ``comma`` says that the table has decimal
    commas.
    """
    parts = [_split(cell) for cell in cells]
    split = [part for part in parts if part is not None]
    if not cells or len(split) < len(parts):
        return None
    before = Counter(part[0] for part in split).most_common(1)[0][0]
    after = Counter(part[2] for part in split).most_common(1)[0][0]
    if any(part[0].strip() != before.strip() or part[2].strip() != after.strip() for part in split):
        return None
    if not _UNIT_BEFORE.fullmatch(before) or not _UNIT_AFTER.fullmatch(after):
        return None
    bodies = [part[1] for part in split]
    point, thousands = _marks(bodies, comma)
    width = 0
    if any(map(has_leading_zero, bodies)):
        widths = {len(body) for body in bodies}
        if len(widths) > 1 or before or after or not all(map(str.isdigit, bodies)):
            return None
        width = widths.pop()
    found = Notation(point == ",", thousands, before, after, width)
    return found if all(found.value(cell) is not None for cell in cells) else None


def _marks(bodies: Sequence[str], comma: bool) -> tuple[str, str]:
    """The decimal point, and the separator of thousands or nothing."""
    spaces = next((s for s in _SPACES if any(s in body for body in bodies)), "")
    both = next((body for body in bodies if "," in body and "." in body), None)
    if both is not None:
        return (",", ".") if both.rfind(",") > both.rfind(".") else (".", ",")
    commas, points = ([body for body in bodies if mark in body] for mark in ",.")
    decimal, grouped = ([is_decimal(body, mark) for body in group] for mark, group in ((",", commas), (".", points)))
    if any(decimal) or any(body.count(".") > 1 for body in points):
        return ",", "." if points else spaces
    if any(grouped) or any(body.count(",") > 1 for body in commas):
        return ".", "," if commas else spaces
    if comma:
        return ",", "." if points else spaces
    return ".", "," if commas else spaces


def is_decimal(body: str, mark: str) -> bool:
    """Whether ``mark`` in a number can only be the decimal point: it does not separate groups of three digits.

    >>> [is_decimal(body, ",") for body in ("1,5", "0,532", "1,234", "1,234,567")]
    [True, True, False, False]
    """
    return mark in body and not re.fullmatch(rf"[-+]?[1-9]\d{{0,2}}(?:{re.escape(mark)}\d{{3}})+", body)


def decimals_of(cells: Sequence[str], point: str) -> int | None:
    """Digits after the decimal point, or None if numbers are written in other ways."""
    most = 0
    for cell in cells:
        if is_missing(cell):
            continue
        if not re.fullmatch(r"[^\d]*[-+]?[\d.,'’ \u00a0\u202f]+[^\d]*", cell):
            return None
        digits = re.search(rf"{re.escape(point)}(\d+)\D*$", cell)
        most = max(most, len(digits[1]) if digits else 0)
    return most if cells and most <= MOST_DECIMALS else None


def unit_of(cell: str) -> str | None:
    """The unit of a number, if it is a usual one; None for other text."""
    parts = _split(cell)
    unit = "" if parts is None else (parts[0] + parts[2]).strip()
    return unit if unit in _UNITS else None


# --- dates --------------------------------------------------------------------------------------------------------


def pattern_of(cells: Sequence[str]) -> tuple[str, str]:
    """The common pattern of dates, empty if there is none, and a second one that fits but swaps day and month."""
    zones = {zone_of(cell) for cell in cells}
    zone = zones.pop() if len(zones) == 1 else "+00:00"
    fitting = [p + zone for p in PATTERNS if cells and date_in(cells[0], p + zone) is not None]
    fitting = [p for p in fitting if all(date_in(cell, p) is not None for cell in cells)]
    swapped = [p for p in fitting[1:] if is_day_first(p) != is_day_first(fitting[0])]
    return fitting[0] if fitting else "", swapped[0] if swapped else ""


def best_pattern(cells: Sequence[str]) -> str:
    """The pattern of the most dates among the first cells, empty if no cell is a date."""
    counts = Counter(p for cell in cells[:50] for p in PATTERNS if date_in(cell, p) is not None)
    return counts.most_common(1)[0][0] if counts else ""


def compact_dates(numbers: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The days of whole numbers such as 20210131 from 1900 to 2100, or None if some are not dates; NaN is kept.

    >>> compact_dates(np.array([19700101.0, 19700102.0, 19700201.0]))
    array([ 0.,  1., 31.])
    >>> compact_dates(np.array([19700101.0, 19700102.0, 19700230.0]))
    """
    missing = np.isnan(numbers)
    known = numbers[~missing]
    if len(known) < _FEWEST or known.min() < 19_000_101 or known.max() > 21_001_231:
        return None
    known = known.astype(np.int64)
    year, month, day = known // 10_000, known // 100 % 100, known % 100
    if month.min() < 1 or month.max() > 12 or day.min() < 1 or len(np.unique(known)) < _FEWEST:
        return None
    months = (year - 1970) * 12 + month - 1
    dates = months.astype("datetime64[M]").astype("datetime64[D]") + (day - 1)
    if (dates.astype("datetime64[M]").astype(np.int64) != months).any():
        return None
    found = np.full(len(numbers), np.nan)
    found[~missing] = dates.astype(np.int64)
    return found


def is_day_first(pattern: str) -> bool:
    return 0 <= pattern.find("%d") < pattern.find("%m")


def is_clock(pattern: str) -> bool:
    """Whether a pattern shows the time of day only."""
    return without_zone(pattern) in _CLOCKS


def zone_of(cell: str) -> str:
    """The zone at the end of a time or its pattern, or nothing."""
    found = _ZONE.search(cell) if ":" in cell else None
    return found[0] if found else ""


def without_zone(pattern: str) -> str:
    return pattern.removesuffix(zone_of(pattern))


def zone_days(zone: str) -> float:
    """The difference of a zone from UTC, in days."""
    if zone in ("", "Z"):
        return 0.0
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    return (1 if zone[0] == "+" else -1) * (hours + minutes / 60) / 24


def date_in(cell: str, pattern: str) -> float | None:
    """The days of a date, in the zone of the pattern, or None if it is written in another way.

    >>> date_in("02.01.1970", "%d.%m.%Y"), date_in("1970-01-01T02:00+02:00", "%Y-%m-%dT%H:%MZ")
    (1.0, 0.0)
    """
    if len(cell) > 40 or not _DATE_LIKE.match(cell):
        return None
    zone, shift = zone_of(pattern), 0.0
    if zone:
        own = zone_of(cell)
        if not own:
            return None
        cell, pattern, shift = cell.removesuffix(own), pattern.removesuffix(zone), zone_days(zone) - zone_days(own)
    try:
        moment = datetime.datetime.strptime(cell, pattern)
    except ValueError:
        return None
    start = datetime.datetime(1900, 1, 1) if pattern in _CLOCKS else _EPOCH
    return (moment - start).total_seconds() / DAY + shift


def written_date(days: float, pattern: str) -> str:
    """Days as text, rounded to what the pattern shows; times of day wrap around."""
    if is_clock(pattern):
        days %= 1
    step = 1e-6 if "%f" in pattern else 1.0 if "%S" in pattern else 60.0 if "%M" in pattern else DAY
    try:
        moment = _EPOCH + datetime.timedelta(seconds=round(days * DAY / step) * step)
    except OverflowError:  # before year 1 or after year 9999
        moment = datetime.datetime.max if days > 0 else datetime.datetime.min
    return moment.strftime(pattern)
