"""Terminal output of commands: lines, tables and JSON, and messages of errors and logging."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from unsup.core.escapes import json_text, visible

if TYPE_CHECKING:
    from unsup.train.runs import Run


def write(*lines: str) -> None:
    """Lines on standard output; special characters are escaped, so that each stays one line."""
    put(sys.stdout, *lines)


def write_error(message: str) -> None:
    """One line on standard error."""
    put(sys.stderr, re.sub(r"\s*[\r\n]\s*", " ", message))


def put(stream: TextIO, *lines: str) -> None:
    """Lines on ``stream``; special characters, and those not in its encoding, are escaped."""
    encoding = stream.encoding or "utf-8"
    text = "".join(f"{visible(line)}\n" for line in lines)
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def write_if_heard(text: str) -> None:
    """The same, or nothing if the terminal or reader is closed."""
    try:
        write(text)
    except OSError:  # the rest of the buffer must not raise again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """A note on standard error."""
    write_error(f"unsup: note: {text}")


def note_unfinished(run: Run) -> None:
    """A note on standard error if the training of a run is not finished."""
    if (sentence := run.unfinished) is not None:
        note(sentence)


def write_json(record: Any) -> None:
    """One JSON value on standard output."""
    text = json_text(record)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(record)
    write(text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """The lines of a table with aligned columns; columns in ``right`` are right-aligned.

    >>> write(*table(("name", "n"), [("a", "1"), ("bcd", "20")], right=[1]))
    name   n
    a      1
    bcd   20
    """
    shown = [[visible(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = []
    for row in shown:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


class Log(logging.Handler):
    """Log messages of libraries, on standard error, one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        write_error(record.getMessage())


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as one line on standard error."""
    put(file or sys.stderr, f"{filename}:{lineno}: {category.__name__}: {message}")
