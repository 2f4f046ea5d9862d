"""Errors of compressed files. Each one is one line: the file, what was found, and how to fix it.

An error keeps the arguments of its constructor, so that it can be copied to another process.
"""

from __future__ import annotations

from typing import final

from unsup.core.errors import InputError


def one_line(text: str, most: int = 200) -> str:
    """Text of a file as messages show it: printable, and shortened if it is long.

    >>> print(one_line("a\\nb"), one_line("x" * 300, 5))
    a\\nb xxxxx…
    """
    plain = text[:most] if text[:most].isprintable() else ascii(text[:most])[1:-1]
    return plain if len(text) <= most else f"{plain}…"


class CodingError(InputError):
    """A compressed file, or a model for it, cannot be used."""


@final
class NotOurFile(CodingError):
    """The file is not a compressed file of this library.

    >>> print(NotOurFile("a.png", b"PNG"))
    a.png is not compressed by this library: it starts with b'PNG'; choose a file made by unsup compress
    """

    def __init__(self, file: str, start: bytes) -> None:
        super().__init__(file, start)
        self.file, self.start = file, start

    def __str__(self) -> str:
        return (
            f"{self.file} is not compressed by this library: it starts with {self.start!r}; choose a file made by "
            "unsup compress"
        )


@final
class UnsupportedVersion(CodingError):
    """The file needs a newer version of the library.

    Args:
        found: what this version cannot read, e.g. ``"format 2.0"``.
        needed: the oldest version of the library that can.

    >>> print(UnsupportedVersion("a.unsup", "format 2.0", "0.4.0", "0.1.0"))
    a.unsup has format 2.0, which needs unsup 0.4.0 or newer, and this is 0.1.0; pip install --upgrade 'unsup>=0.4.0'
    """

    def __init__(self, file: str, found: str, needed: str, current: str) -> None:
        super().__init__(file, found, needed, current)
        self.file, self.found, self.needed, self.current = file, found, needed, current

    def __str__(self) -> str:
        return (
            f"{self.file} has {self.found}, which needs unsup {self.needed} or newer, and this is {self.current}; "
            f"pip install --upgrade 'unsup>={self.needed}'"
        )


@final
class UnknownModel(CodingError):
    """The model that was given is not the model that coded the file.

    Args:
        wanted: name and hash of the model that coded the file.
        found: name and hash of the model that was given; None if there is none.

    >>> print(UnknownModel("a.unsup", "made 1f00", "made 77ab"))
    a.unsup was coded with the model made 1f00, found made 77ab; pass that model, or its run with --run
    """

    def __init__(self, file: str, wanted: str, found: str | None) -> None:
        super().__init__(file, wanted, found)
        self.file, self.wanted, self.found = file, wanted, found

    def __str__(self) -> str:
        found = "no model" if self.found is None else self.found
        return (
            f"{self.file} was coded with the model {one_line(self.wanted)}, found {found}; pass that model, or its run "
            "with --run"
        )


@final
class EnvironmentMismatch(CodingError):
    """The file was coded in another environment, in which the model computes other numbers.

    >>> print(EnvironmentMismatch("a.unsup", "torch 2.10.0", "torch 2.12.1"))
    a.unsup was coded with torch 2.10.0, found torch 2.12.1; decompress it in that environment; only
    files without --native are decoded in others
    """

    def __init__(self, file: str, wanted: str, found: str) -> None:
        super().__init__(file, wanted, found)
        self.file, self.wanted, self.found = file, wanted, found

    def __str__(self) -> str:
        return (
            f"{self.file} was coded with {one_line(self.wanted)}, found {self.found}; decompress it in that "
            "environment; only files without --native are decoded in others"
        )


@final
class DamagedFile(CodingError):
    """The start, the header or the footer of the file was changed.

    Args:
        fix: what the message suggests.
    """

    def __init__(self, file: str, reason: str, fix: str = "restore it from a copy") -> None:
        super().__init__(file, reason, fix)
        self.file, self.reason, self.fix = file, reason, fix

    def __str__(self) -> str:
        return f"{self.file} is damaged ({self.reason}); {self.fix}"


@final
class TruncatedFile(CodingError):
    """The end of the file is missing."""

    def __init__(self, file: str, reason: str, fix: str) -> None:
        super().__init__(file, reason, fix)
        self.file, self.reason, self.fix = file, reason, fix

    def __str__(self) -> str:
        return f"{self.file} was cut short ({self.reason}); {self.fix}"


@final
class CorruptChunk(CodingError):
    """One chunk was changed or is missing; the other chunks do not depend on it.

    >>> print(CorruptChunk("a.unsup", 3, "wrong checksum"))
    a.unsup: chunk 3 is damaged (wrong checksum); restore the file from a copy, or recover its other parts with
    unsup decompress --keep-going
    """

    def __init__(self, file: str, chunk: int, reason: str) -> None:
        super().__init__(file, chunk, reason)
        self.file, self.chunk, self.reason = file, chunk, reason

    def __str__(self) -> str:
        return (
            f"{self.file}: chunk {self.chunk} is damaged ({self.reason}); restore the file from a copy, or recover its "
            "other parts with unsup decompress --keep-going"
        )


@final
class DecodedHashMismatch(CodingError):
    """A chunk is undamaged, but was decoded to other bytes than were coded.

    Args:
        wanted: size and hash of the bytes that were coded.
        found: size and hash of the decoded bytes.
    """

    def __init__(self, file: str, chunk: int, wanted: str, found: str) -> None:
        super().__init__(file, chunk, wanted, found)
        self.file, self.chunk, self.wanted, self.found = file, chunk, wanted, found

    def __str__(self) -> str:
        return (
            f"{self.file}: chunk {self.chunk} was decoded to {self.found}, expected {self.wanted}; the file is intact, "
            "so the model computes other numbers here: decompress it on the machine where it was made"
        )
