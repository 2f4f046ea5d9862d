"""Files as one compressed file, and back.

Files are coded in groups, one after the other. A group is a chunk with a record (names, layout, numbers of examples)
and the chunks with the data. Files with examples of the model are coded with it; all others are kept byte for
byte. Every group can be read without the others, and the last chunk has copies of all records, so that damage loses
only the files that it hits.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, BinaryIO, NotRequired, TypedDict, cast, final

import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.coding.arrays import coder_of, header_of
from unsup.coding.chunks import ChunkCoder, check_general, plain_chunk, plain_decoded, to_bytes
from unsup.coding.container import (
    MAX_CHUNK_ITEMS,
    MAX_CHUNK_SIZE,
    MAX_CHUNKS,
    Chunk,
    ChunkInfo,
    Container,
    Totals,
    write_container,
)
from unsup.coding.errors import CodingError, CorruptChunk, one_line
from unsup.coding.layouts import IMAGES, Array, Bytes, Examples, Images, Layout, Rows, npy_head
from unsup.coding.scheme import Profile
from unsup.coding.table_files import TABLES, Table
from unsup.core import memory
from unsup.core.config import AtLeast, check_value, shown
from unsup.core.errors import InputError
from unsup.core.model import Model
from unsup.core.reading import parse_json
from unsup.data.columns import TableForm
from unsup.data.form import Form
from unsup.data.pixels import decode, quiet

_BLOCK = 2**22
"""Bytes of files without examples per chunk."""
_MOST_CONTENT = 2**24  # bytes of image files that wait for the others of their chunk
_MOST_FILES = 2**14  # files of a group
_MOST_NAMES = 16 * _MOST_FILES  # groups of other versions may be larger
_LONGEST = 2**12  # characters of a name
_DEEPEST = 256  # folders; Python cannot delete many more
_SHOWN = 400  # characters of a reason
_BYTES_A_FILE, _BYTES_A_CHARACTER = 2000, 8  # of memory, for the names of an archive
_BYTES_A_BYTE = 48  # of memory, for JSON
_NUMBERED = re.compile(r"(.*?)([0-9]+)([^0-9]*)", re.DOTALL)
_Whole = Annotated[int, AtLeast(0)]
Named = str | tuple[str, _Whole, _Whole, str, _Whole]
"""A name; or text, first number, digits, text and count of consecutively numbered names."""
_LAYOUTS: dict[str, type[Layout]] = {layout.kind: layout for layout in (Bytes, Images, Array, Table)}
Write = Callable[[Path, Iterable[bytes], bool], None]
"""Takes the name of a file, its content, and whether it is an image that is written again."""
Listener = Callable[[int], None]
"""Called with the number of bytes that were done since the last call."""


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


@dataclass(frozen=True)
class Source:
    """A file to compress.

    Attributes:
        name: its name in the archive, with ``/`` between folders.
        path: where it is; None for an array in memory.
        array: its examples ``(N, ...)``, if it is in memory; it is restored as an ``.npy`` file.
    """

    name: str
    path: Path | None = None
    array: NDArray[Any] | None = None

    def parts(self) -> Iterator[bytes]:
        """Its content.

        Raises:
            OSError: it cannot be read.
        """
        if self.path is None:
            assert self.array is not None
            yield npy_head(self.array.shape, self.array.dtype)
            yield self.array.tobytes()
            return
        with self.path.open("rb") as file:
            while part := file.read(_BLOCK):
                yield part

    @property
    def size(self) -> int:
        """Its size in bytes."""
        if self.path is not None:
            return self.path.stat().st_size
        assert self.array is not None
        return self.array.nbytes


@final
@dataclass
class Packed:
    """What was compressed.

    Attributes:
        files: number of files.
        size: their bytes.
        with_model: how many of them have examples of the model.
        why: for the other files, how many there are of each reason.
        ways: bytes of the chunks with data, by the name of the coder.
        otherwise: examples in chunks that are shorter with a general codec.
        totals: of the container.
    """

    files: int = 0
    size: int = 0
    with_model: int = 0
    why: dict[str, int] = field(default_factory=dict)
    ways: dict[str, int] = field(default_factory=dict)
    otherwise: int = 0
    totals: Totals | None = None


def sources_of(paths: Sequence[str | Path]) -> list[Source]:
    """The files at these paths; folders are searched to any depth.

    Names are relative to the folder if it is the only path, else they start with the name of the folder or file.

    Raises:
        InputError: a path that does not exist, a device, two files of one name, or no files.
    """
    found: list[Source] = []
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            inside = PurePosixPath("" if len(paths) == 1 else path.absolute().name)
            found += [Source(str(inside / file.relative_to(path).as_posix()), file) for file in _files(path)]
        elif path.is_file():
            found.append(Source(path.name, path))
        else:
            what = "is a device or a pipe" if path.exists() else "does not exist"
            raise InputError(f"{given} {what}; expected files or folders to compress")
    if not found:
        raise InputError(f"{', '.join(map(str, paths))}: no files; expected files or folders to compress")
    for source in found:
        _checked_name(source.name, windows=False)
    for one, two in _conflicts(source.name for source in found):
        names = found[one].name, found[two].name
        what = f"two files would have the name {names[0]!r}"
        if names[0] != names[1]:
            what = f"{names[0]!r} would be a file, and the folder of {names[1]!r}"
        raise InputError(f"{what}; compress their folder instead")
    return found


def _conflicts(names: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Positions of files with equal names, or of a file and of one in a folder of its name.

    Not all such pairs, but there is none among the other files.

    >>> list(_conflicts(["a/b", "c", "a", "c"]))
    [(2, 0), (1, 3)]
    """
    # In this order, a name is followed directly by its equals, and by those in a folder of this name.
    order = sorted((name.replace("/", "\0"), place) for place, name in enumerate(names))
    for (one, place), (two, other) in itertools.pairwise(order):
        if one == two or two.startswith(one + "\0"):
            yield place, other


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read {error.filename} ({error.strerror}); check its permissions") from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(place) / name).is_file())


def write_archive(
    file: BinaryIO,
    model: Model,
    coder: ChunkCoder,
    sources: Iterable[Source],
    *,
    run: str = "",
    profile: Profile = "portable",
    form: Form | None = None,
    whole_files: bool = False,
    on_bytes: Listener | None = None,
    on_model: Callable[[Tensor], None] | None = None,
) -> Packed:
    """Compress files.

    Args:
        file: buffered file, open for writing.
        model: the model of ``coder``.
        coder: see `ChunkCoder`.
        sources: the files.
        run: where the model is, for `Archive`.
        profile: that of ``coder``.
        form: how the training data was written (`Data.form`), for tables.
        whole_files: every file comes back byte for byte. Otherwise images are written again with the same pixels.
        on_bytes: see `Listener`.
        on_model: called with the examples that the model has coded.

    Raises:
        InputError: a file cannot be read, or has changed while it was read.
    """
    packing = _Packing(coder, form, whole_files, on_bytes or (lambda _: None), on_model or (lambda _: None))
    header = header_of(model, coder, {"kind": "files", "run": run, "whole_files": whole_files}, profile)
    packing.packed.totals = write_container(file, header, packing.chunks(sources))
    return packing.packed


@dataclass(frozen=True)
class _Waiting:
    """A file that waits for others of its layout."""

    name: str
    place: int
    content: bytes
    x: Tensor | None = None


class _Packing:
    """Collects files in groups."""

    def __init__(
        self,
        coder: ChunkCoder,
        form: Form | None,
        whole_files: bool,
        on_bytes: Listener,
        on_model: Callable[[Tensor], None],
    ) -> None:
        self.coder, self.form, self.whole_files = coder, form, whole_files
        self.on_bytes, self.on_model = on_bytes, on_model
        self.packed = Packed()
        self.waiting: dict[Layout, list[_Waiting]] = {}
        self.copies: list[tuple[int, dict[str, Any]]] = []  # the records, and the numbers of their chunks
        self.number = 0

    def chunks(self, sources: Iterable[Source]) -> Iterator[Chunk]:
        for place, source in enumerate(sources):
            try:
                yield from self._add(place, source)
            except OSError as error:
                raise InputError(f"cannot read {source.path} ({error.strerror}); check its permissions") from error
        for layout in sorted(self.waiting, key=lambda layout: isinstance(layout, Bytes)):
            yield from self._flush(layout)
        yield from self._flush(Bytes())  # images that the model does not make smaller
        yield plain_chunk(_packed_json({"copies": self.copies}))

    def _add(self, place: int, source: Source) -> Iterator[Chunk]:
        self.packed.files += 1
        self.packed.size += source.size
        event, path = self.coder.event, source.path
        if path is None:
            assert source.array is not None
            found = Array.of(source.array, event)
            if found is None:
                raise InputError(
                    f"{source.name} has shape {source.array.shape} and type {source.array.dtype}; expected (N, *event)"
                )
            yield from self._array(place, source, *found)
            return
        suffix = path.suffix.lower()
        if suffix == ".npy":
            found = Array.read(path, event)
            if found is not None:
                yield from self._array(place, source, *found)
                return
            yield from self._keep(place, source, "arrays of another shape or type")
        elif suffix in IMAGES and not self.whole_files:
            content = path.read_bytes()
            image = Images.read(content, suffix, event)
            if image is None:
                yield from self._keep(place, source, "images that the model does not fit")
                return
            self.packed.with_model += 1
            yield from self._wait(image[0], _Waiting(source.name, place, content, image[1]))
        elif suffix in TABLES and isinstance(self.form, TableForm):
            table = Table.read(path, event, self.form)
            if isinstance(table, str):
                yield from self._keep(place, source, table)
            else:
                yield from self._table(place, source, *table)
        else:
            yield from self._keep(place, source, f"{suffix or 'other'} files")

    def _keep(self, place: int, source: Source, reason: str) -> Iterator[Chunk]:
        """A file without examples."""
        assert source.path is not None
        self.packed.why[reason] = self.packed.why.get(reason, 0) + 1
        size = source.size
        if size <= _BLOCK:
            yield from self._wait(Bytes(), _Waiting(source.name, place, source.path.read_bytes()))
            return
        count = -(-size // _BLOCK)
        yield self._record(Bytes(), count, _BLOCK, [source.name], [place], [size])
        with source.path.open("rb") as file:
            left = size
            for _ in range(count):
                raw = file.read(min(_BLOCK, left))
                left -= len(raw)
                if not raw:
                    break
                yield self._data(plain_chunk(raw))
                self.on_bytes(len(raw))
        if left:
            raise InputError(f"{source.path} became shorter while it was read; compress it again")

    def _array(self, place: int, source: Source, layout: Array, x: NDArray[Any]) -> Iterator[Chunk]:
        self.packed.with_model += 1
        event = self.coder.event
        size = self.coder.count(event.shape, x.dtype.itemsize)
        starts = range(0, len(x), size)
        yield self._record(layout, len(starts), size, [source.name], [place], [len(x)])
        for start in starts:
            rows = layout.examples(x[start : start + size], event)
            yield self._data(self.coder.encode(rows), rows)
            self.on_bytes(rows.numel() * rows.element_size())

    def _table(self, place: int, source: Source, layout: Table, x: Tensor, texts: list[list[str]]) -> Iterator[Chunk]:
        size = self.coder.count(tuple(x.shape[1:]), x.element_size())
        starts = range(0, len(x), size)
        chunks: list[tuple[Chunk, Tensor | None]] = []
        for start in starts:
            part = x[start : start + size]
            side = layout.side(part, [text[start : start + size] for text in texts])
            chunks += [(self.coder.encode(part), part), (plain_chunk(side), None)]
            self.on_bytes(source.size // len(starts))
        assert source.path is not None
        content = source.path.read_bytes()
        plain = sum(len(plain_chunk(content[at : at + _BLOCK]).coded) for at in range(0, len(content), _BLOCK))
        if sum(len(chunk.coded) for chunk, _ in chunks) >= plain:
            yield from self._keep(place, source, "tables that are smaller as they are")
            return
        self.packed.with_model += 1
        yield self._record(layout, len(chunks), size, [source.name], [place], [len(x)])
        for chunk, rows in chunks:
            yield self._data(chunk, rows)

    def _data(self, chunk: Chunk, x: Tensor | None = None) -> Chunk:
        """A chunk with data, of these examples, that is written."""
        name = str(self.coder.coders[chunk.coder]["name"])
        self.packed.ways[name] = self.packed.ways.get(name, 0) + len(chunk.coded)
        if x is not None and len(own := self.coder.of_model(chunk, x)):
            self.on_model(own)
        elif x is not None:
            self.packed.otherwise += len(x)
        return chunk

    def _record(
        self, layout: Layout, chunks: int, block: int, names: list[str], places: list[int], sizes: list[int] | None
    ) -> Chunk:
        """The chunk with the record of a group, to which ``chunks`` chunks of data belong."""
        record: dict[str, Any] = {
            "layout": layout.to_json(),
            "chunks": chunks,
            "block": block,
            "names": _shorter(names),
            "places": _ranges(places),
        }
        if sizes is not None:
            record["sizes"] = sizes
        self.copies.append((self.number, record))
        self.number += 1 + chunks
        return plain_chunk(_packed_json(record))

    def _wait(self, layout: Layout, file: _Waiting) -> Iterator[Chunk]:
        files = self.waiting.setdefault(layout, [])
        files.append(file)
        content = sum(len(each.content) for each in files)
        if isinstance(layout, Examples):
            most = self.coder.count(self.coder.event.shape, layout.dtype.itemsize)
            full = len(files) >= most or content >= _MOST_CONTENT
        else:
            full = len(files) >= _MOST_FILES or content >= _BLOCK
        if full:
            yield from self._flush(layout)

    def _flush(self, layout: Layout) -> Iterator[Chunk]:
        files = self.waiting.pop(layout, [])
        if not files:
            return
        content = b"".join(file.content for file in files)
        names, places = [file.name for file in files], [file.place for file in files]
        if isinstance(layout, Examples):
            x = torch.stack([cast(Tensor, file.x) for file in files])
            chunk = self.coder.encode(x)
            if len(chunk.coded) < len(content):
                yield self._record(layout, 1, len(files), names, places, None)
                yield self._data(chunk, x)
                self.on_bytes(len(content))
                return
            self.packed.with_model -= len(files)
            reason = "images that are smaller as they are"
            self.packed.why[reason] = self.packed.why.get(reason, 0) + len(files)
            for file in files:
                yield from self._wait(Bytes(), file)
            return
        blocks = [content[start : start + _BLOCK] for start in range(0, len(content), _BLOCK)]
        yield self._record(layout, len(blocks), _BLOCK, names, places, [len(file.content) for file in files])
        for raw in blocks:
            yield self._data(plain_chunk(raw))
            self.on_bytes(len(raw))


def _packed_json(record: Any) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()


def _shorter(names: Sequence[str]) -> list[Any]:
    """Consecutively numbered names as one entry.

    >>> _shorter(["a.png", "x08.png", "x09.png", "x10.png"])
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


# --- reading ----------------------------------------------------------------------------------------------------------


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


@final
@dataclass(frozen=True)
class Lost:
    """Files, or parts of them, that could not be restored, and why."""

    names: tuple[str, ...]
    error: CodingError


def is_archive(container: Container) -> bool:
    """Whether a compressed file has files, not the examples of `unsup.coding.compress`."""
    return container.header["items"].get("kind") == "files"


@final
class Archive:
    """A compressed file of files, open for reading.

    Args:
        container: the file.
        keep_going: skip groups that are damaged; they are in `lost`.

    Attributes:
        groups: the files.
        lost: what cannot be restored.

    Raises:
        CodingError: the file is damaged, or has no files.
    """

    def __init__(self, container: Container, *, keep_going: bool = False) -> None:
        self.container, self.keep_going = container, keep_going
        self.lost: list[Lost] = []
        items = container.header["items"]
        if not is_archive(container):
            raise CodingError(
                f"{container.name} has {shown(items.get('kind'))} instead of files; decode it with "
                "unsup.coding.decompress(model, data)"
            )
        check_general(container)
        run = items.get("run")
        self.run = run if isinstance(run, str) and "\0" not in run and len(run) <= _LONGEST else ""
        self._memory = 0  # that the names take
        self.groups = self._without_conflicts(self._groups())

    def _groups(self) -> list[Group]:
        found: list[Group] = []
        number, last, losing = 0, self.container.chunks - 1, False
        while number <= last:
            try:
                group = self._group(number, last)
            except CodingError as error:
                if not self.keep_going:
                    raise
                if not losing:  # the chunks after a lost record may be of its group
                    self.lost.append(Lost((), error))
                number, losing = number + 1, True
                continue
            if group is None:
                return found
            losing = False
            found.append(group)
            number = group.first + group.chunks
        if not self.keep_going:
            raise CorruptChunk(self.container.name, max(0, last), "it has no copies of the records")
        return found

    def _group(self, number: int, last: int) -> Group | None:
        """The group whose record is in a chunk; None for the copies of the records."""
        try:
            record = self._record(number)
            if "copies" in record and number == last:
                return None
            return self._group_of(number, record)
        except CodingError:
            if not self.keep_going or number not in self._copies:
                raise
        return self._group_of(number, self._copies[number])

    def _record(self, number: int) -> dict[str, Any]:
        """The record in a chunk."""
        name = self.container.name
        try:
            record = parse_json(self._plain(number, is_json=True).decode("utf-8", "replace"))
        except InputError as error:
            if isinstance(error, CodingError):
                raise
            raise CorruptChunk(name, number, f"its record is not valid: {one_line(str(error), _SHOWN)}") from error
        if not isinstance(record, dict):
            raise CorruptChunk(name, number, "it has no record")
        return record

    @functools.cached_property
    def _copies(self) -> dict[int, dict[str, Any]]:
        """Copies of the records in the last chunk, by the numbers of their chunks; empty if it is damaged too."""
        try:
            copies = self._record(self.container.chunks - 1).get("copies")
        except CodingError:
            return {}
        pairs = [pair for pair in copies if isinstance(pair, list)] if isinstance(copies, list) else []
        return {k[0]: k[1] for k in pairs if len(k) == 2 and isinstance(k[0], int) and isinstance(k[1], dict)}

    def _group_of(self, number: int, record: dict[str, Any]) -> Group:
        container = self.container
        try:
            own: GroupRecord = check_value("the record", record, GroupRecord)
            layout = layout_from_json(own["layout"])
            names: list[str] = []
            for entry in own["names"]:
                cost = _cost(entry)
                self._memory += cost
                if self._memory > memory.limit():
                    raise CodingError(
                        f"{container.name} has names of files that take more than the {memory.said(memory.limit())} of "
                        "memory available; free memory, or raise --max-memory"
                    )
                names += map(_checked_name, _names(entry))
                if len(names) > _MOST_NAMES:
                    raise InputError(f"more than {_MOST_NAMES:,} names of files")
            places: list[int] = []
            for first, count in own["places"]:
                if first > MAX_CHUNKS * _MOST_NAMES or len(places) + count > len(names):
                    raise InputError(f"{len(names)} names, and places from {shown(first)} on of {shown(count)} files")
                places += range(first, first + count)
            sizes = own.get("sizes", [1] * len(names))
            if not len(names) == len(places) == len(sizes) or not names:
                raise InputError(f"{len(names)} names, {len(places)} numbers and {len(sizes)} sizes of files")
            group = Group(layout, tuple(names), tuple(places), tuple(sizes), number + 1, own["chunks"], own["block"])
            if isinstance(layout, Images) != ("sizes" not in own) or (isinstance(layout, Rows) and len(names) != 1):
                raise InputError(f"{len(names)} files of the kind {layout.kind} with {len(own.get('sizes', []))} sizes")
            if own["block"] > (MAX_CHUNK_ITEMS if isinstance(layout, Examples) else MAX_CHUNK_SIZE):
                raise InputError(f"{own['block']:,} entries of a chunk")
            expected = group.step * -(-group.total // own["block"])
            if own["chunks"] != expected or expected > MAX_CHUNKS or (isinstance(layout, Images) and expected != 1):
                raise InputError(f"{own['chunks']} chunks of {own['block']:,} for {group.total:,} entries")
            if number + own["chunks"] >= container.chunks and not self.keep_going:
                raise InputError(f"{own['chunks']} chunks from {number + 1} on, of {container.chunks} in the file")
        except InputError as error:
            if isinstance(error, CodingError):
                raise
            raise CorruptChunk(
                container.name, number, f"its record is not valid: {one_line(str(error), _SHOWN)}"
            ) from error
        return group

    def _without_conflicts(self, groups: list[Group]) -> list[Group]:
        """The groups, if the names and numbers of their files are not those of others."""
        owners = [index for index, group in enumerate(groups) for _ in group.names]
        names = [name for group in groups for name in group.names]
        order = sorted((place, k) for k, place in enumerate(place for group in groups for place in group.places))
        bad: dict[int, CodingError] = {}
        for reason, pairs in (
            ("has a file or folder with the name of another file", _conflicts(names)),
            (
                "has a file with the number of another",
                ((a, b) for (p, a), (q, b) in itertools.pairwise(order) if p == q),
            ),
        ):
            for pair in pairs:
                for k in pair:
                    number = groups[owners[k]].first - 1
                    error = CorruptChunk(self.container.name, number, f"its record {reason}: {one_line(names[k])}")
                    if not self.keep_going:
                        raise error
                    bad.setdefault(owners[k], error)
        if not self.keep_going and order and order[-1][0] != len(order) - 1:
            raise CodingError(f"{self.container.name} has {len(order)} files, and one with the number {order[-1][0]}")
        self.lost += [Lost(groups[index].names, error) for index, error in sorted(bad.items())]
        return [group for index, group in enumerate(groups) if index not in bad]

    @property
    def files(self) -> list[tuple[int, str, int]]:
        """Number, name and number of items of every file, in the order in which they were given."""
        return sorted(
            (place, name, items)
            for group in self.groups
            for place, name, items in zip(group.places, group.names, group.items, strict=True)
        )

    @property
    def items(self) -> int:
        """The number of items of all files."""
        return sum(items for _, _, items in self.files)

    def firsts(self) -> dict[int, int]:
        """The number of the first item of each file, by the number of the file."""
        found, first = {}, 0
        for place, _, items in self.files:
            found[place] = first
            first += items
        return found

    @property
    def needs_model(self) -> bool:
        """Whether any file has examples."""
        return any(isinstance(group.layout, Examples) for group in self.groups)

    def coder(self, model: Model) -> ChunkCoder:
        """The coder of the files.

        Raises:
            CodingError: another model, or another environment.
        """
        return coder_of(model, self.container)

    def check(self, coder: ChunkCoder | None, on_bytes: Listener | None = None) -> None:
        """Decode all chunks, and compare them with what was coded.

        Raises:
            CodingError: a chunk is damaged, or is decoded to something else here, unless ``keep_going``.
        """
        for group in self.groups:
            try:
                for index in range(group.chunks):
                    size = self._check_chunk(group, index, coder)
                    if on_bytes is not None:
                        on_bytes(size)
            except CodingError as error:
                self._lose(group.names, error)

    def restore(
        self, out: Path, coder: ChunkCoder | None, *, only: range | None = None, on_bytes: Listener | None = None
    ) -> list[str]:
        """Write the files to a folder, and return their names.

        Args:
            out: the folder; it is created.
            coder: see `coder`.
            only: numbers of the items to restore; arrays then have these rows.
            on_bytes: see `Listener`.

        Raises:
            InputError: a file exists, or cannot be written, or a link in the folder leads out of it.
            CodingError: a chunk is damaged, unless ``keep_going``.
        """
        wanted = only if only is not None else range(self.items)
        firsts = self.firsts()
        tasks = []
        for group in self.groups:
            own = []
            for index, (place, items) in enumerate(zip(group.places, group.items, strict=True)):
                rows = _within(wanted, firsts[place], items)
                if len(rows) or (not items and only is None):
                    own.append((index, rows))
            if own:
                tasks.append((group, own))
        _check_targets(out, [group.names[index] for group, own in tasks for index, _ in own])
        done: list[Path] = []

        def write(path: Path, parts: Iterable[bytes], is_image: bool) -> None:
            _write(path, parts, is_image)
            done.append(path)

        listener = on_bytes or (lambda _: None)
        try:
            return [name for group, own in tasks for name in self._written(group, own, out, coder, listener, write)]
        except CodingError:  # all or nothing, unless the caller keeps going
            for path in done:
                path.unlink(missing_ok=True)
            raise

    def digests(self, coder: ChunkCoder | None, on_bytes: Listener | None = None) -> dict[str, tuple[str, str]]:
        """What would be restored, without writing it: `digest_of` of each file.

        Raises:
            CodingError: a chunk is damaged, or is decoded to something else here, unless ``keep_going``.
        """
        found: dict[str, tuple[str, str]] = {}

        def note(path: Path, parts: Iterable[bytes], is_image: bool) -> None:
            found[path.as_posix()] = digest_of(parts, is_image=is_image)

        for group in self.groups:
            own = [(index, range(items)) for index, items in enumerate(group.items)]
            self._written(group, own, Path(), coder, on_bytes or (lambda _: None), note)
        if not self.keep_going:
            self._record(self.container.chunks - 1)
        return found

    def _written(
        self,
        group: Group,
        own: list[tuple[int, range]],
        out: Path,
        coder: ChunkCoder | None,
        on_bytes: Listener,
        write: Write,
    ) -> list[str]:
        """Write files of a group, and return their names."""
        if isinstance(group.layout, Images):
            return self._images(group, own, out, coder, on_bytes, write)
        if isinstance(group.layout, Rows):
            return self._rows(group, own, out, coder, on_bytes, write)
        return self._bytes(group, own, out, coder, on_bytes, write)

    # --- groups ---------------------------------------------------------------------------------------------------

    def _info(self, number: int) -> ChunkInfo:
        if not 0 <= number < self.container.chunks:  # the end of the file is missing
            raise CorruptChunk(self.container.name, number, "it is missing")
        return self.container.info(number)

    def _plain(self, number: int, size: int | None = None, *, is_json: bool = False) -> bytes:
        """The bytes of a chunk without items, which must be ``size``."""
        info = self._info(number)
        if is_json and _BYTES_A_BYTE * info.raw_size > memory.limit():
            raise CodingError(
                f"{self.container.name}: chunk {number} has {memory.said(info.raw_size)} of names or cells, too much "
                f"for the {memory.said(memory.limit())} of memory available; free memory, or raise --max-memory"
            )
        if size is not None and info.raw_size != size:
            raise CorruptChunk(self.container.name, number, f"it has {info.raw_size:,} bytes, expected {size:,}")
        return plain_decoded(self.container, number)

    def _examples(self, group: Group, index: int, coder: ChunkCoder | None) -> Tensor:
        """The examples of a part of a group."""
        assert isinstance(group.layout, Examples)
        assert coder is not None
        number, name = group.first + group.step * index, self.container.name
        count = self._info(number).count
        if count != group.size(index):
            raise CorruptChunk(name, number, f"it has {count:,} examples, expected {group.size(index):,}")
        try:
            group.layout.check(coder.event)
        except InputError as error:
            raise CorruptChunk(
                name, group.first - 1, f"its record is not valid: {one_line(str(error), _SHOWN)}"
            ) from error
        return coder.decode(self.container, number, coder.event.shape, group.layout.dtype)

    def _check_chunk(self, group: Group, index: int, coder: ChunkCoder | None) -> int:
        """The number of decoded bytes of a chunk, all of which are as they were coded."""
        if not isinstance(group.layout, Examples):
            return len(self._plain(group.first + index, group.size(index)))
        part, is_side = divmod(index, group.step)
        if is_side:
            return len(self._plain(group.first + index, is_json=True))
        return len(to_bytes(self._examples(group, part, coder)))

    def _images(
        self,
        group: Group,
        own: list[tuple[int, range]],
        out: Path,
        coder: ChunkCoder | None,
        on_bytes: Listener,
        write: Write,
    ) -> list[str]:
        assert isinstance(group.layout, Images)
        names = tuple(group.names[index] for index, _ in own)
        try:
            x = self._examples(group, 0, coder)
        except CodingError as error:
            self._lose(names, error)
            return []
        for index, _ in own:
            write(out / group.names[index], [group.layout.file(x[index])], True)
            on_bytes(x[index].numel() * x.element_size())
        return list(names)

    def _rows(
        self,
        group: Group,
        own: list[tuple[int, range]],
        out: Path,
        coder: ChunkCoder | None,
        on_bytes: Listener,
        write: Write,
    ) -> list[str]:
        layout, (index, rows) = group.layout, own[0]
        assert isinstance(layout, Rows)
        assert coder is not None
        event = coder.event
        name, total, size = group.names[index], group.sizes[index], group.block
        pieces: list[tuple[range, CodingError | None]] = []

        def content(wanted: range) -> Iterator[bytes]:
            yield layout.start(len(wanted), total, event)
            for number in range(wanted.start // size, -(-wanted.stop // size)):
                x = self._examples(group, number, coder)
                after = group.first + group.step * number + 1
                side = self._plain(after, is_json=True) if layout.has_side else b""
                inside = _within(wanted, number * size, len(x))
                try:
                    yield layout.rows(x, side, inside, last=number * size + inside.stop == total)
                except InputError as error:
                    raise CorruptChunk(self.container.name, after, one_line(str(error), _SHOWN)) from error
                on_bytes(x.numel() * x.element_size())

        try:
            write(out / name, content(rows), False)
        except CodingError as error:
            if not self.keep_going:
                raise
            self._lose((name,), error)
        else:
            return [name]
        found = []
        for start in range(rows.start - rows.start % size, rows.stop, size):
            part = range(max(rows.start, start), min(rows.stop, start + size))
            path = PurePosixPath(name)
            own_name = str(path.with_name(f"{path.stem}.rows-{part.start}-{part.stop}{path.suffix}"))
            try:
                write(out / own_name, content(part), False)
            except CodingError as error:
                pieces.append((part, error))
            else:
                found.append(own_name)
        self.lost[-1] = Lost(tuple(f"{name} rows {p.start} to {p.stop - 1}" for p, _ in pieces), self.lost[-1].error)
        return found

    def _bytes(
        self,
        group: Group,
        own: list[tuple[int, range]],
        out: Path,
        coder: ChunkCoder | None,
        on_bytes: Listener,
        write: Write,
    ) -> list[str]:
        starts = [0, *itertools.accumulate(group.sizes)]
        kept: tuple[int, bytes] | None = None

        def block(number: int) -> bytes:
            nonlocal kept
            if kept is None or kept[0] != number:
                kept = number, self._plain(group.first + number, group.size(number))
                on_bytes(len(kept[1]))
            return kept[1]

        def content(start: int, stop: int) -> Iterator[bytes]:
            last = -(-stop // group.block) if stop > start else 0
            for number in range(start // group.block, last):
                raw, at = block(number), number * group.block
                yield raw[max(0, start - at) : max(0, stop - at)]

        written = []
        for index, _ in own:
            name, (start, stop) = group.names[index], starts[index : index + 2]
            try:
                write(out / name, content(start, stop), False)
            except CodingError as error:
                self._lose((name,), error)
            else:
                written.append(name)
        return written

    def _lose(self, names: tuple[str, ...], error: CodingError) -> None:
        if not self.keep_going:
            raise error
        self.lost.append(Lost(names, error))


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


def _names(entry: Named) -> list[str]:
    if isinstance(entry, str):
        return [_as_name(entry)]
    before, first, digits, after, count = entry
    if count > _MOST_NAMES or digits > 15 or max(len(before), len(after)) > _LONGEST:
        raise InputError(f"the names {shown(entry)}")
    return _numbered(before, first, digits, after, count)


def _cost(entry: Named) -> int:
    """Bytes of memory that names take."""
    characters, count = (len(entry), 1) if isinstance(entry, str) else (len(entry[0] + entry[3]) + 20, entry[4])
    return count * (_BYTES_A_FILE + _BYTES_A_CHARACTER * characters)


def _checked_name(name: str, *, windows: bool = os.name == "nt") -> str:
    """A name of a file inside the folder."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise InputError(f"the name {shown(name)} leads out of the folder")
    if len(name) > _LONGEST or len(parts) > _DEEPEST:
        raise InputError(
            f"the name {shown(name)} has {len(name):,} characters and {len(parts):,} parts; the maximum is "
            f"{_LONGEST:,} and {_DEEPEST:,}"
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


def _check_targets(out: Path, names: Iterable[str]) -> None:
    """Raises InputError if one of the files exists, or would be written outside the folder."""
    root, checked = os.path.realpath(out), set[Path]()
    for name in names:
        target = out / name
        if os.path.lexists(target):
            raise _there(target)
        if target.parent not in checked:
            checked.add(target.parent)
            place = os.path.realpath(target.parent)
            if not Path(place).is_relative_to(root):
                raise InputError(
                    f"{one_line(str(target.parent))} leads out of {out} to {one_line(place)} by a link; choose another "
                    "folder (-o FOLDER)"
                )


def _there(path: Path) -> InputError:
    return InputError(f"{one_line(str(path))} exists; choose another folder (-o FOLDER), or move it away")


def _within(wanted: range, first: int, count: int) -> range:
    """The part of ``wanted`` in the items from ``first`` on, counted from there."""
    start, stop = max(wanted.start - first, 0), min(wanted.stop - first, count)
    return range(start, max(start, stop))


def digest_of(parts: Iterable[bytes], *, is_image: bool) -> tuple[str, str]:
    """``("bytes", digest)`` of the content of a file, or ``("pixels", digest)`` of an image."""
    if is_image:
        with quiet():
            pixels = decode(b"".join(parts)).pixels
        content = [f"{pixels.shape} {pixels.dtype}".encode(), pixels.tobytes()]
    found = hashlib.blake2b(digest_size=16)
    for part in content if is_image else parts:
        found.update(part)
    return ("pixels" if is_image else "bytes"), found.hexdigest()


def _write(path: Path, parts: Iterable[bytes], is_image: bool) -> None:
    """Write a new file completely or not at all."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        if not path.parent.is_dir():
            for folder in (*reversed(path.parent.parents), path.parent):
                folder.mkdir(exist_ok=True)
        file = temporary.open("xb")
        try:
            with file:
                for part in parts:
                    file.write(part)
            if os.path.lexists(path):  # where a and A are one name
                raise _there(path)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(
            f"cannot write {one_line(str(path))} ({error.strerror}); choose another folder (-o FOLDER)"
        ) from error
