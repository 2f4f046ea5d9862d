r"""CSV files of unsup: no spreadsheet runs any of their cells, and `read_table` reads back what was written.

Names of files and classes come from other people. A spreadsheet treats text that begins with ``=``, ``+``, ``-`` or
``@`` as a formula. Therefore:

1. Text that begins with one of them, or with an apostrophe, gets an apostrophe in front. Leading blanks, quotes and
      joiners are skipped. Some spreadsheets also split at ``;`` or ``|``, so text after these characters is treated
      in the same way.
   2. Invisible characters are written as escapes (``\x1b``, ``\udce9``), and so is the backslash of text that already
      looks like an escape.

Numbers, including negative ones, are written unchanged: a spreadsheet reads them as numbers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

from unsup.core.errors import InputError
from unsup.core.escapes import visible

_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|nan)", re.ASCII | re.IGNORECASE)
_RUNS = "=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"  # including their full-width and small forms
_BEGINS = re.compile(rf"(^|[;|])(?='|[\s\"\u200c\u200d]*[{_RUNS}])")
_MARKED = re.compile(r"(^|[;|])'")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U(000[0-9a-f]{5}|0010[0-9a-f]{4}))")


def table_text(rows: Iterable[Iterable[object]]) -> str:
    """The rows as CSV, one line per row."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([written(cell) for cell in row] for row in rows)
    return text.getvalue()


def plain_text(rows: Iterable[Iterable[str]], separator: str = ",") -> str:
    """Rows as CSV without escapes: the cells of a table of the user, as that table has them."""
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(rows)
    return text.getvalue()


def read_table(path: str | Path) -> list[dict[str, str]]:
    """Read a CSV file that unsup wrote; each row is a mapping from column names to cells.

    Such files are the output of ``unsup score`` and ``unsup predict``, and ``results.csv``. Names of files and classes
    are restored to their original text.

    Raises:
        InputError: the file does not exist, or is not a table with a header.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *rows = [[read(cell) for cell in row] for row in csv.reader(file, strict=True)]
            return [dict(zip(header, row, strict=True)) for row in rows]
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); is the path right?") from error
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{path} is not a table that unsup wrote ({' '.join(str(error).split())}); expected a header and "
            "rows with as many cells"
        ) from error


def written(cell: object) -> str:
    r"""Escape the value of a cell for CSV.

    >>> [written(c) for c in ("=1+1", "it's", "'x", -3.2, "a;@b", None)]
    ["'=1+1", "it's", "''x", '-3.2', "a;'@b", '']
    """
    text = "" if cell is None else str(cell)
    if _NUMBER.fullmatch(text):
        return text
    return _BEGINS.sub(r"\1'", visible(_ESCAPE.sub(lambda found: "\\x5c" + found[0][1:], text)))


def read(cell: str) -> str:
    r"""The original text of an escaped cell.

    >>> [read(c) for c in ("'=1+1", "it's", "''x", "-3.2", "a;'@b", "caf\\udce9.png")]
    ['=1+1', "it's", "'x", '-3.2', 'a;@b', 'caf\udce9.png']
    """
    return _ESCAPE.sub(_character, _MARKED.sub(r"\1", cell))


def _character(found: re.Match[str]) -> str:
    return chr(int(found[1] or found[2] or found[3], 16))
