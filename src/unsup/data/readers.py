"""The reader of a name or a path, and its options."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from unsup.core.config import check_value, options_of
from unsup.core.errors import InputError, nearest
from unsup.core.words import counted
from unsup.data import images, sound, text
from unsup.data.bounds import check_kind
from unsup.data.catalog import CATALOG, CODES, READERS, TABLES, TABLES_BY_SUFFIX
from unsup.data.examples import Examples, listing
from unsup.data.folders import suffixes_in
from unsup.data.unread import check_is_text

As = Literal["bytes"]

FRAME = "unsup.data.tables:read_frame"
"""The reader of data frames."""


@runtime_checkable
class Frame(Protocol):
    """A data frame of pandas or polars, or an Arrow table: anything that exports a stream of Arrow."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...


@dataclass(frozen=True)
class Place:
    """The location of data and its reader.

    Attributes:
        name: the name of a set, or the absolute path (for codes: ``codes:`` and the absolute path of the run).
        target: ``"module:function"`` of the reader.
        path: the path that it reads, or a data frame; None for a named set.
    """

    name: str
    target: str
    path: Any = None

    @property
    def reader(self) -> Callable[..., Examples]:
        module, _, function = self.target.partition(":")
        found: Callable[..., Examples] = getattr(importlib.import_module(module), function)
        return found

    @property
    def options(self) -> dict[str, tuple[Any, Any]]:
        """The options of the reader: name → (annotation, default)."""
        return options_of(self.reader)

    @property
    def is_table(self) -> bool:
        """Whether columns have names."""
        return self.target in TABLES

    @property
    def splits_itself(self) -> bool:
        """Whether its examples are those of its test split: for named sets and codes."""
        return self.path is None or self.target == READERS["codes of a run"]

    def read(self, options: Mapping[str, Any]) -> Examples:
        """All examples.

        Raises:
            InputError: the data cannot be read or used.
        """
        try:
            return self.reader(**options) if self.path is None else self.reader(self.path, **options)
        except OSError as error:
            raise _unreadable(error, self.path) from error


def _unreadable(error: OSError, path: Path | None) -> InputError:
    return InputError(f"cannot read {error.filename or path} ({error.strerror}); check its permissions")


def place_of(name_or_path: str | Path, *, single: bool = False, as_: Any = None) -> Place:
    """Find the data of ``name_or_path``.

    Args:
        single: whether one image counts as data.
        as_: ``"bytes"`` to read any file as bytes; None to find its kind.

    Raises:
        InputError: there is no such data.
    """
    said = str(name_or_path)
    check_value(f"{said}: as_", as_, As | None)
    if as_ is not None and ((said in CATALOG and isinstance(name_or_path, str)) or said.startswith(CODES)):
        raise InputError(f"{said} is not a file; remove --as {as_} (as_={as_!r})")
    if said in CATALOG and isinstance(name_or_path, str):
        return Place(said, CATALOG[said].target)
    if not said:
        raise InputError("the name of the data is empty; expected a set (unsup data lists them), a file or a folder")
    if said.startswith(CODES):
        run = Path(said.removeprefix(CODES)).expanduser().absolute()
        return Place(f"{CODES}{run}", READERS["codes of a run"], run)
    path = Path(name_or_path).expanduser().absolute()
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, [*CATALOG, *beside], n=1, cutoff=0.5)
        raise InputError(
            f"there is no data set, file or folder {said!r}{nearest(path.name, close or CATALOG)} "
            "(unsup data lists the sets)"
        )
    check_kind(path)
    try:
        kind = _kind(path, single) if as_ is None else _as_bytes(path)
    except OSError as error:
        raise _unreadable(error, path) from error
    return Place(str(path), READERS[kind], path)


def exists(name_or_path: str) -> bool:
    """Whether there is data with that name or path."""
    return name_or_path in CATALOG or name_or_path.startswith(CODES) or Path(name_or_path).expanduser().exists()


def options_taken(name_or_path: str | Path, *, as_: Any = None) -> set[str]:
    """The names of the options for reading examples of that data.

    Args:
        as_: as in `place_of`.

    >>> sorted(options_taken("moons"))
    ['given', 'n']
    """
    place = place_of(name_or_path, single=True, as_=as_)
    return {*place.options, "given"} | ({"as_"} if as_ is not None else set())


def full_name(name_or_path: str | Path) -> str:
    """The name of a set, or the absolute path of a file or folder, as in `Data.name`.

    Raises:
        InputError: there is no such data.
    """
    return place_of(name_or_path).name


def checked(name: str, known: Mapping[str, tuple[Any, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given options, converted to their annotations; None means not given.

    Raises:
        InputError: an option that this data does not have, or a value of the wrong type or range.
    """
    for option in given:
        if option not in known:
            raise InputError(f"{name} has no option {option!r}{nearest(option, known)}")
    found = {k: check_value(f"{name}: {k}", v, known[k][0]) for k, v in given.items()}
    return {k: v for k, v in found.items() if v is not None}


def _as_bytes(path: Path) -> str:
    if path.is_dir():
        raise InputError(f"{path} is a folder, which has no bytes; name one of its files, or remove --as (as_=)")
    return "bytes"


def _kind(path: Path, single: bool) -> str:
    if path.is_dir():
        return _kind_of_folder(path)
    name = path.name.lower()
    if name.endswith(".npy"):
        return "an .npy array"
    if name.endswith(".npz"):
        return ".npz arrays"
    for kind, endings in TABLES_BY_SUFFIX.items():
        if name.endswith(endings):
            return kind
    if name.endswith(images.SUFFIXES):
        if single or images.count_frames(path) > 1:
            return "an image"
        raise InputError(f"{path} is one image; expected a folder of images")
    if name.endswith(sound.SUFFIXES):
        return "a recording"
    if name.endswith(text.LINES):
        return "JSON lines"
    if not name.endswith(text.SUFFIXES):
        check_is_text(path)
    return "a text"


def _tables(path: Path) -> list[str]:
    """The tables in a folder."""
    endings = tuple(ending for endings in TABLES_BY_SUFFIX.values() for ending in endings)
    return sorted(p.name for p in path.iterdir() if p.is_file() and p.name.lower().endswith(endings))


def _kind_of_folder(path: Path) -> str:
    """The kind of the files in a folder; readers note the files of other kinds."""
    if (path / "train.npz").is_file():
        return "a folder of .npz arrays"
    suffixes = {p.suffix.lower() for p in path.iterdir() if p.is_file()}
    if ".npy" in suffixes and not suffixes & set(images.SUFFIXES):
        return "a folder of .npy arrays"
    suffixes |= suffixes_in(path)
    if suffixes & set(sound.SUFFIXES):
        return "a folder of recordings"
    if not suffixes & set(images.SUFFIXES) and (tables := _tables(path)):
        raise InputError(
            f"{path} has {counted(len(tables), 'table')} ({listing(tables)}), and tables are read one by one; name one "
            "of the files"
        )
    if suffixes & set(images.SUFFIXES) or not suffixes & text.ENDINGS:
        return "a folder of images"
    return "a folder of texts"
