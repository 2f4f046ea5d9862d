"""The records of groups of files in an archive: names, numbers, sizes and layout.

A record comes from a file that may be damaged or forged: everything that it states is checked before it is used.
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Annotated, Any, NotRequired, TypedDict, cast, final

from unsup.coding.container import MAX_CHUNK_ITEMS, MAX_CHUNK_SIZE, MAX_CHUNKS
from unsup.coding.layouts import Array, Bytes, Examples, Images, Layout, Rows
from unsup.coding.table_files import Table
from unsup.coding.text_files import Text
from unsup.core.config import AtLeast, check_value, shown
from unsup.core.errors import InputError

MOST_FILES = 2**14
"""Files of a group."""
_MOST_NAMES = 16 * MOST_FILES  # groups of other versions may be larger
LONGEST = 2**12
"""Characters of a name."""
_DEEPEST = 256  # folders; Python cannot delete many more
_BYTES_A_FILE, _BYTES_A_CHARACTER = 2000, 8  # of memory, for the names of an archive
_NUMBERED = re.compile(r"(.*?)([0-9]+)([^0-9]*)", re.DOTALL)
_Whole = Annotated[int, AtLeast(0)]
Named = str | tuple[str, _Whole, _Whole, str, _Whole]
"""A name; or text, first number, digits, text and count of consecutively numbered names."""
_LAYOUTS: dict[str, type[Layout]] = {layout.kind: layout for layout in (Bytes, Images, Array, Table, Text)}


class GroupRecord(TypedDict):
    """The files of a group."""

    layout: dict[str, Any]
    chunks: _Whole
    block: Annotated[int, AtLeast(1)]
    """Examples, or bytes, of each chunk except the last one."""
    names: list[Named]
    places: list[tuple[_Whole, _Whole]]
    """The numbers of the files among all files, as first number and count."""
    sizes: NotRequired[list[_Whole]]
    """Bytes of each file, if they are kept as bytes; examples of each file, if it has not exactly one."""


@final
@dataclass(frozen=True)
class Group:
    """A group of files in an archive.

    Attributes:
        layout: how they are written.
        names: their names.
        places: their numbers among all files.
        sizes: bytes of each file, or examples.
        first: the number of its first chunk with data.
        chunks: number of chunks with data.
        block: examples, or bytes, of each of them except the last one.
    """

    layout: Layout
    names: tuple[str, ...]
    places: tuple[int, ...]
    sizes: tuple[int, ...]
    first: int
    chunks: int
    block: int

    @property
    def items(self) -> tuple[int, ...]:
        """Number of items of each file: examples, or 1."""
        return self.sizes if isinstance(self.layout, Examples) else (1,) * len(self.names)

    @property
    def step(self) -> int:
        """Number of chunks of each part of the data."""
        return 2 if isinstance(self.layout, Rows) and self.layout.has_side else 1

    @functools.cached_property
    def total(self) -> int:
        """Number of examples, or bytes."""
        return sum(self.sizes)

    def size(self, index: int) -> int:
        """Examples, or bytes, of a part of the data."""
        return min(self.block, self.total - index * self.block)


def record_of(
    layout: Layout,
    chunks: int,
    block: int,
    names: Sequence[str],
    places: Sequence[int],
    sizes: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The record of a group, as JSON; see `GroupRecord`."""
    record: dict[str, Any] = {
        "layout": layout.to_json(),
        "chunks": chunks,
        "block": block,
        "names": shortened(names),
        "places": _ranges(places),
    }
    return record if sizes is None else record | {"sizes": list(sizes)}


def memory_of(record: Mapping[str, Any]) -> int:
    """Bytes of memory that the names of a record take.

    Raises:
        InputError: the record is not valid.
    """
    own = _checked(record)
    return sum(map(_cost, own["names"]))


def group_of(record: Mapping[str, Any], first: int) -> Group:
    """The group with a record.

    Args:
        first: number of its first chunk with data.

    Raises:
        InputError: the record is not valid.
    """
    own = _checked(record)
    layout = layout_from_json(own["layout"])
    names: list[str] = []
    for entry in own["names"]:
        names += map(checked_name, expanded(entry))
        if len(names) > _MOST_NAMES:
            raise InputError(f"more than {_MOST_NAMES:,} names of files")
    places: list[int] = []
    for start, count in own["places"]:
        if start > MAX_CHUNKS * _MOST_NAMES or len(places) + count > len(names):
            raise InputError(f"{len(names)} names, and places from {shown(start)} on of {shown(count)} files")
        places += range(start, start + count)
    sizes = own.get("sizes", [1] * len(names))
    if not len(names) == len(places) == len(sizes) or not names:
        raise InputError(f"{len(names)} names, {len(places)} numbers and {len(sizes)} sizes of files")
    group = Group(layout, tuple(names), tuple(places), tuple(sizes), first, own["chunks"], own["block"])
    if isinstance(layout, Images) != ("sizes" not in own) or (isinstance(layout, Rows) and len(names) != 1):
        raise InputError(f"{len(names)} files of the kind {layout.kind} with {len(own.get('sizes', []))} sizes")
    if own["block"] > (MAX_CHUNK_ITEMS if isinstance(layout, Examples) else MAX_CHUNK_SIZE):
        raise InputError(f"{own['block']:,} entries of a chunk")
    expected = group.step * -(-group.total // own["block"])
    if own["chunks"] != expected or expected > MAX_CHUNKS or (isinstance(layout, Images) and expected != 1):
        raise InputError(f"{own['chunks']} chunks of {own['block']:,} for {group.total:,} entries")
    return group


def _checked(record: Mapping[str, Any]) -> GroupRecord:
    return cast(GroupRecord, check_value("the record", record, GroupRecord))


def packed_json(record: Any) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()


def shortened(names: Sequence[str]) -> list[Any]:
    """Consecutively numbered names as one entry.

    >>> shortened(["a.png", "x08.png", "x09.png", "x10.png"])
    ['a.png', ['x', 8, 2, '.png', 3]]
    """
    found: list[Any] = []
    for name in map(_as_text, names):
        parts = _NUMBERED.fullmatch(name)
        if parts is None or len(parts[2]) > 15:
            found.append(name)
            continue
        before, number, after = parts.groups()
        last = found[-1] if found else None
        if (
            isinstance(last, list)
            and (last[0], last[2], last[3]) == (before, len(number), after)
            and last[1] + last[4] == int(number)
        ):
            last[4] += 1
        else:
            found.append([before, int(number), len(number), after, 1])
    return [_numbered(*entry)[0] if isinstance(entry, list) and entry[4] == 1 else entry for entry in found]


def _numbered(before: str, first: int, digits: int, after: str, count: int) -> list[str]:
    return [f"{before}{number:0{digits}d}{after}" for number in range(first, first + count)]


def _as_text(name: str) -> str:
    """A name in JSON, also if its bytes are not text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "\0" + base64.b64encode(os.fsencode(name)).decode()
    return name


def _as_name(text: str) -> str:
    if not text.startswith("\0"):
        return text
    try:
        return os.fsdecode(base64.b64decode(text[1:], validate=True))
    except ValueError as error:
        raise InputError(f"the name {shown(text)} is not base 64") from error


def _ranges(places: Sequence[int]) -> list[list[int]]:
    """Numbers as first number and count.

    >>> _ranges([3, 4, 9])
    [[3, 2], [9, 1]]
    """
    found: list[list[int]] = []
    for place in places:
        if found and sum(found[-1]) == place:
            found[-1][1] += 1
        else:
            found.append([place, 1])
    return found


def layout_from_json(record: Any) -> Layout:
    """The layout that `Layout.to_json` wrote.

    Raises:
        InputError: ``record`` is not a layout.
    """
    kind = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(kind, str) or kind not in _LAYOUTS:
        raise InputError(f"files of the kind {shown(kind)}, which this version does not know")
    fields = {k: v for k, v in record.items() if k != "kind"}
    return cast(Layout, check_value("files", fields, _LAYOUTS[kind]))


def expanded(entry: Named) -> list[str]:
    if isinstance(entry, str):
        return [_as_name(entry)]
    before, first, digits, after, count = entry
    if count > _MOST_NAMES or digits > 15 or max(len(before), len(after)) > LONGEST:
        raise InputError(f"the names {shown(entry)}")
    return _numbered(before, first, digits, after, count)


def _cost(entry: Named) -> int:
    """Bytes of memory that names take."""
    characters, count = (len(entry), 1) if isinstance(entry, str) else (len(entry[0] + entry[3]) + 20, entry[4])
    return count * (_BYTES_A_FILE + _BYTES_A_CHARACTER * characters)


def checked_name(name: str, *, windows: bool = os.name == "nt") -> str:
    """A name of a file inside the folder."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise InputError(f"the name {shown(name)} leads out of the folder")
    if len(name) > LONGEST or len(parts) > _DEEPEST:
        raise InputError(
            f"the name {shown(name)} has {len(name):,} characters and {len(parts):,} parts; the maximum is "
            f"{LONGEST:,} and {_DEEPEST:,}"
        )
    if windows and any(_is_special(part) for part in parts):
        raise InputError(f"this system does not allow the name {shown(name)}; decompress the file elsewhere")
    return name


def _is_special(part: str) -> bool:
    """Whether Windows gives a part of a name another meaning: drives, devices, streams, and ends that it removes."""
    return (
        any(character in '\\:*?"<>|' or character < " " for character in part)
        or part.endswith((".", " "))
        or PureWindowsPath(part).is_reserved()
    )


def conflicts(names: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Positions of files with equal names, or of a file and of one in a folder of its name.

    Not all such pairs, but there is none among the other files.

    >>> list(conflicts(["a/b", "c", "a", "c"]))
    [(2, 0), (1, 3)]
    """
    # In this order, a name is followed directly by its equals, and by those in a folder of this name.
    order = sorted((name.replace("/", "\0"), place) for place, name in enumerate(names))
    for (one, place), (two, other) in itertools.pairwise(order):
        if one == two or two.startswith(one + "\0"):
            yield place, other
