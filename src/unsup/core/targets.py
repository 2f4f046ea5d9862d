"""The paths that a user names, in particular the files and folders for output (``-o``).

A link is kept, and what it points to is written. Pipes, devices and the standard output are refused: they cannot be
written atomically, and a device must not be replaced by a file.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unsup.core.errors import InputError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_STREAMS = {1: "the standard output", 2: "the standard error"}


def special_kind(path: Path) -> str | None:
    """What an existing path is, if it is neither a file nor a folder.

    >>> special_kind(Path(os.devnull)), special_kind(Path("."))
    ('a device', None)
    """
    return _KINDS.get(stat.S_IFMT(path.stat().st_mode))


def file_target(out: str | Path) -> Path:
    """The regular file, existing or not, that is written for ``-o out``.

    Raises:
        InputError: ``out`` is a folder, a pipe, a device, the standard output, or a link to itself.
    """
    path = _through(out, "a file")
    if path.is_dir():
        raise InputError(f"{out} is a folder; expected the name of a file (-o FILE)")
    return path


def new_target(out: str | Path) -> Path:
    """The regular file, existing or not, or the new folder that is written for ``-o out``.

    Raises:
        InputError: as `file_target`.
    """
    if Path(out).is_dir():
        raise InputError(f"{out} is a folder that exists; choose another name (-o FILE, or a new FOLDER)")
    return file_target(out)


def folder_target(out: str | Path) -> Path:
    """The folder, existing or not, that is written for ``-o out``.

    Raises:
        InputError: ``out`` is a file, a pipe, a device, the standard output, or a link to itself.
    """
    path = _through(out, "a folder")
    if path.exists() and not path.is_dir():
        raise InputError(f"{out} is a file; expected a folder: choose another name (-o FOLDER)")
    return path


def _through(out: str | Path, expected: str) -> Path:
    """``out`` with all links followed."""
    path = Path(out)
    if str(out) == "-":
        raise InputError(f"-o - is the standard output; expected the name of {expected} (./- for one of that name)")
    if path.exists():
        kind = special_kind(path) or _stream(path)
        if kind is not None:
            raise InputError(f"{out} is {kind}; expected the name of {expected}")
    found = Path(os.path.realpath(path))
    if found.is_symlink():
        raise InputError(f"{out} is a link to itself; expected the name of {expected}")
    return found


def _stream(path: Path) -> str | None:
    """The standard stream that is redirected to this file; its output would be lost if the file were replaced."""
    if not path.is_file():
        return None
    own = path.stat()
    for number, name in _STREAMS.items():
        with suppress(OSError):  # the stream is closed
            if os.path.samestat(own, os.fstat(number)):
                return name
    return None


@contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """``path``, or a temporary link to it if its name is not UTF-8, for libraries that cannot open such names."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="unsup-") as folder:
            link = Path(folder) / "file"
            link.symlink_to(path.absolute())
            yield link
    else:
        yield path


def make_folder(out: str | Path) -> None:
    """Create `folder_target` with its parents, unless it exists.

    Raises:
        InputError: ``out`` cannot be a folder, or the folder cannot be created.
    """
    path = folder_target(out)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the folder {out}: {error.strerror}; choose another place") from error
