"""Read untrusted JSON files and check them against types.

The schema of a file is an annotation, as for options (`unsup.core.config`): a typed dictionary, a dataclass or a
mapping. Any error is one `InputError` that names the file and the field.
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
"""The maximum nesting depth. Files of the library need a third of it; at Python's own limit it crashes."""
_BYTES_A_BYTE = 32
"""The fraction of the memory that parsed JSON may use."""
_LARGEST = 10**100
"""The maximum integer: larger ones are not valid seeds and are slow to print."""


def read_text(path: str | Path, *, mend: str = "restore it") -> str:
    """The text of a regular file of moderate size.

    Args:
        mend: what the message suggests for a damaged file.

    Raises:
        InputError: the file is missing, not a regular file (a folder, a pipe, a device), too large, or not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "is missing"
        raise InputError(f"{path} {what}; {mend}")
    try:
        size = path.stat().st_size
        if size * _BYTES_A_BYTE > memory.limit():
            raise InputError(f"{path} has {memory.said(size)} of text, which is too large to read; {mend}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged (it is not UTF-8 text); {mend}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check its permissions") from error


def read_json(path: str | Path, annotation: Any, *, mend: str = "restore it") -> Any:
    """Read a JSON file of type ``annotation``.

    Args:
        mend: what the message suggests for a damaged file.

    Raises:
        InputError: the file cannot be read, is not JSON, or has the wrong type.
    """
    return checked(path, read_text(path, mend=mend), annotation, mend=mend)


def checked(origin: str | Path, text: str, annotation: Any, *, mend: str = "restore it") -> Any:
    """Parse JSON text from ``origin`` as type ``annotation``.

    >>> checked("a.json", '{"steps": "many"}', dict[str, int])
    Traceback (most recent call last):
    unsup.core.errors.InputError: a.json is damaged (steps='many' should be of type int); restore it
    """
    try:
        return check_value("it", parse_json(text), annotation)
    except InputError as error:
        raise InputError(f"{origin} is damaged ({str(error).removeprefix('it.')}); {mend}") from error


def parse_json(text: str) -> Any:
    """Parse JSON strictly: no repeated keys, deep nesting, oversized numbers or invalid characters.

    Raises:
        InputError: the text is not such JSON.

    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    unsup.core.errors.InputError: it has 'a' twice
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_twins)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"it is nested more than {_DEEPEST} levels deep") from error
    except ValueError as error:
        raise InputError(f"it is not JSON: {error}") from error
    for depth, leaf in _walk(value):
        if depth > _DEEPEST:
            raise InputError(f"it is nested more than {_DEEPEST} levels deep")
        if isinstance(leaf, int) and abs(leaf) >= _LARGEST:
            raise InputError(f"it has {shown(leaf)}, which is too large")
        if isinstance(leaf, str) and not _is_text(leaf):
            raise InputError(f"it has {shown(leaf)}, which is not valid text")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InputError(f"it has {shown(name)} twice")
        found[name] = value
    return found


def _walk(value: Any) -> Iterator[tuple[int, Any]]:
    """Every value in ``value`` with its depth. A loop, since deep nesting must not cause recursion."""
    waiting = [(1, value)]
    while waiting:
        depth, found = waiting.pop()
        yield depth, found
        if isinstance(found, dict):
            waiting += [(depth + 1, v) for pair in found.items() for v in pair]
        elif isinstance(found, list):
            waiting += [(depth + 1, v) for v in found]


def _is_text(text: str) -> bool:
    """Whether text can be encoded: file names that are not UTF-8 can, other lone surrogates cannot."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def difference(ours: Any, theirs: Any, names: tuple[str, str], where: str = "") -> str | None:
    """The first field in which two JSON values differ, with both values, or None if they are equal.

    Args:
        names: names of the two sources.

    >>> difference({"config": {"hidden": [8, 16]}}, {"config": {"hidden": [8, 32]}}, ("a.json", "b.json"))
    'config.hidden[1] is 16 in a.json and 32 in b.json'
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in [*ours, *(k for k in theirs if k not in ours)]:
            place = f"{where}.{name}" if where else name
            if name not in ours or name not in theirs:
                return f"{place} is not in {names[name in ours]}"
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
