"""Checks before reading: what is not a regular file, or would not fit into memory, is refused."""

from __future__ import annotations

import math
import tokenize
from pathlib import Path
from typing import IO, Any

import numpy as np

from unsup.core import memory
from unsup.core.errors import InputError
from unsup.core.targets import special_kind

_UNPARSABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,  # from a deeply nested header
    RecursionError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
)
"""Exceptions of NumPy about headers, besides `ValueError`."""


def check_kind(path: Path) -> None:
    """Raise `InputError` for anything but a file or a folder: reading it may block or never end."""
    kind = special_kind(path)
    if kind is not None:
        raise InputError(f"{path} is {kind}; expected a file or a folder: save its output to a file first")


def check_fits(size: float, what: str, mend: str) -> None:
    """Raise `does_not_fit` for data that would need more than the memory limit."""
    if size > memory.limit():
        raise does_not_fit(size, what, mend)


def does_not_fit(size: float, what: str, mend: str) -> InputError:
    """The error about data larger than the memory limit.

    Args:
        size: peak memory in bytes for reading and splitting.
        what: subject of the message.
        mend: suggestion of the message.
    """
    return InputError(
        f"{what} would need about {memory.said(size)} of memory, but {memory.said(memory.limit())} are available; "
        f"{mend}, or raise --max-memory GB"
    )


def check_array_header(file: IO[bytes], size: int) -> None:
    """Raise `ValueError` unless the header of a ``.npy`` file is valid and matches the size of the file.

    Args:
        file: the file, at its start.
        size: size of the file in bytes.
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
        raise ValueError("it contains Python objects")
    if any(isinstance(n, bool) or n < 0 for n in shape):
        raise ValueError(f"its header claims the shape {shape}")
    claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed > there:
        raise ValueError(f"its header claims {claimed:,} bytes of values, but it has {there:,}")


def described(value: Any) -> str:
    """A text on one line, shortened if it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:200]}…"
