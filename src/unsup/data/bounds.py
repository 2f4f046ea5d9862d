"""What is refused before it is read: files that are none, and those that would not fit into memory."""

from __future__ import annotations

import math
import stat
import tokenize
from pathlib import Path
from typing import IO, Any

import numpy as np

from unsup.core import memory
from unsup.core.errors import InputError

_UNPARSABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,  # of a header that nests without end
    RecursionError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
)
"""What NumPy raises of headers, besides `ValueError`."""
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_kind(path: Path) -> None:
    """Raise `InputError` for what is neither a file nor a folder: reading it may wait, or go on, for ever."""
    kind = _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    if kind is not None:
        raise InputError(f"{path} is {kind}; expected a file or a folder: write what it gives into a file first")


def check_fits(size: float, what: str, mend: str) -> None:
    """Raise `does_not_fit` for what would take more than the memory that may be used."""
    if size > memory.limit():
        raise does_not_fit(size, what, mend)


def does_not_fit(size: float, what: str, mend: str) -> InputError:
    """The error about data larger than the memory that may be used.

    Args:
        size: bytes that reading and splitting it takes at its peak.
        what: it is, the subject of the message.
        mend: what to do about it.
    """
    return InputError(
        f"{what} would take about {memory.said(size)} of memory and {memory.said(memory.limit())} may be used; {mend}, "
        "or allow more with --max-memory GB"
    )


def check_array_header(file: IO[bytes], size: int) -> None:
    """Raise `ValueError` unless the header of a ``.npy`` file is sound and the file holds what it claims.

    Args:
        file: at its start.
        size: of the file in bytes.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version}; expected 1.0 or 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(file)
    except _UNPARSABLE as error:
        raise ValueError("its header cannot be read") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if any(isinstance(n, bool) or n < 0 for n in shape):
        raise ValueError(f"its header claims the shape {shape}")
    claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed > there:
        raise ValueError(f"its header claims {claimed:,} bytes of values and it holds {there:,}")


def described(value: Any) -> str:
    """A text of one line, cut where it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:200]}…"
