r"""The CSV files that unsup writes: no spreadsheet runs a cell of theirs, and `read_table` reads back what was written.

Names of files and classes are text of others. A spreadsheet takes text that begins with ``=``, ``+``, ``-`` or ``@``
for a formula. So

1. an apostrophe is put before text that begins so, or begins with an apostrophe itself; blanks, quotes and joiners do
   not count as a beginning. As some spreadsheets split at ``;`` or ``|`` too, text behind these within a cell is
   treated like a beginning;
2. what cannot be seen is written as its escape (``\x1b``, ``\udce9``), and so is the backslash of text that looks like
   an escape already.

Numbers are written as they are, negative ones too: a spreadsheet takes them for what they are.
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
_RUNS = "=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"  # also in full width and in small form
_BEGINS = re.compile(rf"(^|[;|])(?='|[\s\"\u200c\u200d]*[{_RUNS}])")
_MARKED = re.compile(r"(^|[;|])'")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U(000[0-9a-f]{5}|0010[0-9a-f]{4}))")


def table_text(rows: Iterable[Iterable[object]]) -> str:
    """The rows as CSV, a line each."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([written(cell) for cell in row] for row in rows)
    return text.getvalue()


def read_table(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV that unsup wrote, by the names of its columns.

    Those are the files of ``unsup score`` and ``unsup predict``, and ``results.csv``. Names of files and classes are
    what they were before they were written.

    Raises:
        InputError: there is no such file, or it is no table with a header.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *rows = [[read(cell) for cell in row] for row in csv.reader(file, strict=True)]
            return [dict(zip(header, row, strict=True)) for row in rows]
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); is the path right?") from error
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{path} is no table that unsup wrote ({' '.join(str(error).split())}); expected a header and rows of as "
            "many cells"
        ) from error


def written(cell: object) -> str:
    r"""A cell as it is written.

    >>> [written(c) for c in ("=1+1", "it's", "'x", -3.2, "a;@b", None)]
    ["'=1+1", "it's", "''x", '-3.2', "a;'@b", '']
    """
    text = "" if cell is None else str(cell)
    if _NUMBER.fullmatch(text):
        return text
    return _BEGINS.sub(r"\1'", visible(_ESCAPE.sub(lambda found: "\\x5c" + found[0][1:], text)))


def read(cell: str) -> str:
    r"""What a cell was before it was written.

    >>> [read(c) for c in ("'=1+1", "it's", "''x", "-3.2", "a;'@b", "caf\\udce9.png")]
    ['=1+1', "it's", "'x", '-3.2', 'a;@b', 'caf\udce9.png']
    """
    return _ESCAPE.sub(_character, _MARKED.sub(r"\1", cell))


def _character(found: re.Match[str]) -> str:
    return chr(int(found[1] or found[2] or found[3], 16))
