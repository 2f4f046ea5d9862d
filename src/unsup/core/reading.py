"""JSON from a folder, which is not trusted: one way to read it, checked against the types that say what it holds.

What a file should hold is an annotation as those of options are (`unsup.core.config`): a typed dictionary, a dataclass,
a mapping. Whatever is wrong is one `InputError` that names the file and the field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unsup.core import memory
from unsup.core.config import check_value, shown
from unsup.core.errors import InputError

_DEEPEST = 50
"""Lists and mappings within each other. What the library writes has a third of it; Python's own limit is a crash."""
_BYTES_A_BYTE = 32
"""Of memory, that JSON may take once it is read."""
_LARGEST = 10**100
"""Whole numbers beyond are not even seeds, and take long to be written."""


def read_text(path: str | Path, *, mend: str = "restore it") -> str:
    """The text of a regular file of moderate size.

    Args:
        mend: what is to be done about a damaged file.

    Raises:
        InputError: there is none, it is something else (a folder, a pipe, a device), too large, or not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        what = "is no regular file" if path.exists() else "is not there"
        raise InputError(f"{path} {what}; {mend}")
    try:
        size = path.stat().st_size
        if size * _BYTES_A_BYTE > memory.limit():
            raise InputError(f"{path} holds {memory.said(size)} of text, too much to be read; {mend}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged (it is no UTF-8 text); {mend}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; is it yours to read?") from error


def read_json(path: str | Path, annotation: Any, *, mend: str = "restore it") -> Any:
    """What a JSON file holds, as ``annotation`` says.

    Args:
        mend: what is to be done about a damaged file.

    Raises:
        InputError: the file cannot be read, is no JSON, or holds something else.
    """
    return checked(path, read_text(path, mend=mend), annotation, mend=mend)


def checked(origin: str | Path, text: str, annotation: Any, *, mend: str = "restore it") -> Any:
    """JSON that stands in ``origin``, as ``annotation`` says.

    >>> checked("a.json", '{"steps": "many"}', dict[str, int])
    Traceback (most recent call last):
    unsup.core.errors.InputError: a.json is damaged (steps='many' should be of type int); restore it
    """
    try:
        return check_value("it", parse_json(text), annotation)
    except InputError as error:
        raise InputError(f"{origin} is damaged ({str(error).removeprefix('it.')}); {mend}") from error


def parse_json(text: str) -> Any:
    """JSON without what only trips a reader: a key twice, nesting without end, numbers and characters nobody can use.

    Raises:
        InputError: it is none.

    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    unsup.core.errors.InputError: it holds 'a' twice
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_twins)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"it is nested more than {_DEEPEST} deep") from error
    except ValueError as error:
        raise InputError(f"it is no JSON: {error}") from error
    for depth, leaf in _walk(value):
        if depth > _DEEPEST:
            raise InputError(f"it is nested more than {_DEEPEST} deep")
        if isinstance(leaf, int) and abs(leaf) >= _LARGEST:
            raise InputError(f"it holds {shown(leaf)}, which is too large")
        if isinstance(leaf, str) and not _is_text(leaf):
            raise InputError(f"it holds {shown(leaf)}, which is no text")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InputError(f"it holds {shown(name)} twice")
        found[name] = value
    return found


def _walk(value: Any) -> Iterator[tuple[int, Any]]:
    """Every value in ``value`` with its depth. A loop, since what is too deep must not be recursed into."""
    waiting = [(1, value)]
    while waiting:
        depth, found = waiting.pop()
        yield depth, found
        if isinstance(found, dict):
            waiting += [(depth + 1, v) for pair in found.items() for v in pair]
        elif isinstance(found, list):
            waiting += [(depth + 1, v) for v in found]


def _is_text(text: str) -> bool:
    """Whether it can be written again: names of files that are no UTF-8 are among it, lone surrogates are not."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def difference(ours: Any, theirs: Any, names: tuple[str, str], where: str = "") -> str | None:
    """The first field in which two JSON values differ, with both values, or None where they are the same.

    Args:
        names: of where the two were read.

    >>> difference({"config": {"hidden": [8, 16]}}, {"config": {"hidden": [8, 32]}}, ("a.json", "b.json"))
    'config.hidden[1] is 16 in a.json and 32 in b.json'
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in [*ours, *(k for k in theirs if k not in ours)]:
            place = f"{where}.{name}" if where else name
            if name not in ours or name not in theirs:
                return f"{place} stands in {names[name not in ours]} only"
            told = difference(ours[name], theirs[name], names, place)
            if told is not None:
                return told
        return None
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return next((told for i, (a, b) in pairs if (told := difference(a, b, names, f"{where}[{i}]"))), None)
    if type(ours) is type(theirs) and ours == theirs:
        return None
    return f"{where} is {shown(ours)} in {names[0]} and {shown(theirs)} in {names[1]}"
