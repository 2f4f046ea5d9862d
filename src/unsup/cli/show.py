"""Tables and JSON on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any


def write(text: str) -> None:
    """One block of text on standard output."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def write_if_heard(text: str) -> None:
    """The same, or nothing where the terminal or the reader has gone."""
    try:
        write(text)
    except OSError:  # what is left in the buffer must not raise again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """One line on standard error, about what was done all the same."""
    sys.stderr.write(f"unsup: note: {' '.join(text.split())}\n")


def write_json(record: Any) -> None:
    """One JSON value on standard output."""
    write(json.dumps(record, ensure_ascii=False))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Aligned columns; those whose numbers are in ``right`` are right-aligned.

    >>> print(table(("name", "n"), [("a", "1"), ("bcd", "20")], right=[1]))
    name   n
    a      1
    bcd   20
    """
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
