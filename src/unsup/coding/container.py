r"""The file format of compressed data: independent chunks between a header and a footer. Bytes only, no model.

All numbers are little-endian and unsigned. In order, without gaps::

    start     42    magic 8 | major 2 | minor 2 | needed release 3 × 2 | critical 4 | ancillary 4 | size of the header 4
                    | BLAKE2b-64 of the bytes so far and the header 8 | CRC32 of the bytes so far 4
    header          canonical JSON in ASCII (`Header`)
    chunk     54    mark 4 | entry 46 | CRC32 of the hash of the header and of the bytes so far 4
                    then the coded bytes; repeated
    index     46    one entry per chunk
    trailer   44    chunks 4 | items 8 | decoded bytes 8 | coded bytes 8
                    | BLAKE2b-64 of the hash of the header, of the index and of the bytes so far 8 | end mark 8

    entry     46    number of the chunk 4 | coder 2 | items 4 | number of its first item 8 | decoded size 8
                    | coded size 8 | CRC32 of the coded bytes 4 | BLAKE2b-64 of the decoded bytes 8

The start has this layout in all versions, so that every version can tell which release of the library a file needs. A
reader refuses another major version and unknown critical bits, and ignores minor versions, unknown ancillary bits and
unknown keys of the header. Checksums detect accidents, not forgery: a forged file may be decoded to other data, but
never to more than it states, and all that it states is within the limits below.

The index makes random access possible. If it is damaged, the chunks are found by their marks; each one has the numbers
of its items, which therefore survive the loss of other chunks. The checksum of a chunk depends on the header, so that
chunks of another file are not accepted. Chunks without items may contain further data, such as names.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import os
import re
import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, BinaryIO, NamedTuple, NotRequired, Self, TypedDict, cast, final

import unsup
from unsup.coding.errors import (
    CodingError,
    CorruptChunk,
    DamagedFile,
    DecodedHashMismatch,
    NotOurFile,
    TruncatedFile,
    UnsupportedVersion,
)
from unsup.core import memory
from unsup.core.config import Within, check_value, shown
from unsup.core.errors import InputError
from unsup.core.reading import parse_json

MAGIC = b"\x89UNS\r\n\x1a\n"
"""Not ASCII, with both kinds of line ends and the end-of-file character of DOS: a transfer as text changes it."""
VERSION = (1, 0)
"""Major and minor version of the format. Any change of what a coder writes increases one of them."""
NEEDED = (0, 1, 0)
"""The oldest release of the library that reads this version."""
CRITICAL = 0
"""The critical feature bits that are known."""
MARK = b"\xfeCHK"
END = b"\n\x1aEND\r\n\x98"

MAX_HEADER = 2**20
"""Maximum size of the header in bytes."""
MAX_NUMBER = 2**64 - 1
"""Maximum absolute value of an integer in the header."""
MAX_CHUNKS = 2**20
MAX_CHUNK_ITEMS = 2**24
MAX_CHUNK_SIZE = 2**30
"""Maximum size of a chunk in bytes, coded or decoded."""

_PREFIX = struct.Struct("<8s2H3HIII")
_START = struct.Struct(f"<{_PREFIX.size}s8sI")
_ENTRY = struct.Struct("<IHIQQQI8s")
_CHUNK = struct.Struct(f"<4s{_ENTRY.size}sI")
_TOTALS = struct.Struct("<IQQQ")
_TRAILER = struct.Struct(f"<{_TOTALS.size}s8s8s")
_TEXT = re.compile(rb"(?:\x89|\t|\?|\xc2\x89|\xef\xbf\xbd)UNS[\r\n]")
"""The start of a file that was changed by a transfer as text: line ends, 7 bits, UTF-8."""
_WINDOW = 2**20
"""Bytes that a search for chunks reads at once."""
_KEEP_GOING = "copy it again, or recover its complete parts with unsup decompress --keep-going"


class CoderRecord(TypedDict):
    """A coder. Chunks refer to it by its position in the header."""

    name: str
    version: Annotated[int, Within(1, 2**16 - 1)]


class ModelReference(TypedDict):
    """The model that coded the file: its name in the registry and the hash of its content."""

    name: str
    hash: str


class Header(TypedDict):
    """The header of a file. Other keys are kept."""

    writer: str
    profile: str
    coders: list[CoderRecord]
    items: dict[str, Any]
    """What the items are: types, shapes, files."""
    model: NotRequired[ModelReference]
    canary: NotRequired[str]
    environment: NotRequired[dict[str, str]]


class Totals(NamedTuple):
    """Totals of a file: chunks, items, and bytes before and after coding."""

    chunks: int
    items: int
    raw_size: int
    coded_size: int


@final
@dataclass(frozen=True, slots=True)
class Chunk:
    """A coded chunk to write.

    Args:
        coder: position of its coder in the header.
        count: number of its items.
        coded: coded bytes.
        raw_size: number of decoded bytes.
        digest: `digest` of the decoded bytes.
    """

    coder: int
    count: int
    coded: bytes
    raw_size: int
    digest: bytes

    @classmethod
    def of(cls, coder: int, count: int, coded: bytes, raw: bytes | memoryview) -> Chunk:
        """The chunk that has to be decoded to ``raw``."""
        return cls(coder, count, coded, memoryview(raw).nbytes, digest(raw))


@final
@dataclass(frozen=True, slots=True)
class ChunkInfo:
    """What a file states about a chunk: its number, coder, items from ``first`` on, sizes and checksums."""

    number: int
    coder: int
    count: int
    first: int
    raw_size: int
    coded_size: int
    crc: int
    digest: bytes

    @property
    def items(self) -> range:
        """The numbers of its items."""
        return range(self.first, self.first + self.count)


def digest(raw: bytes | memoryview) -> bytes:
    """The hash of decoded bytes: BLAKE2b with 64 bits.

    >>> digest(b"").hex()
    'e4a6a0577479b2b4'
    """
    return hashlib.blake2b(raw, digest_size=8).digest()


def write_container(file: BinaryIO, header: Mapping[str, Any], chunks: Iterable[Chunk]) -> Totals:
    """Write a file from its start to its end, without seeking. Only the index is kept in memory.

    Args:
        file: buffered file, open for writing.
        header: `Header`, of JSON types only.

    Raises:
        InputError: the header or a chunk cannot be read back.

    >>> import io
    >>> file = io.BytesIO()
    >>> header = {"writer": "unsup", "profile": "portable", "coders": [{"name": "stored", "version": 1}], "items": {}}
    >>> write_container(file, header, [Chunk.of(0, 1, b"raw", b"raw")])
    Totals(chunks=1, items=1, raw_size=3, coded_size=3)
    >>> Container(file, "it").chunk(0)
    b'raw'
    """
    text = _header_bytes(header)
    prefix = _PREFIX.pack(MAGIC, *VERSION, *NEEDED, CRITICAL, 0, len(text))
    identity = digest(prefix + text)
    file.write(_START.pack(prefix, identity, zlib.crc32(prefix + identity)) + text)
    index = bytearray()
    totals = Totals(0, 0, 0, 0)
    for number, chunk in enumerate(chunks):
        info = ChunkInfo(
            number,
            chunk.coder,
            chunk.count,
            totals.items,
            chunk.raw_size,
            len(chunk.coded),
            zlib.crc32(chunk.coded),
            chunk.digest,
        )
        wrong = _beyond_limits(info, len(header["coders"]))
        if wrong or len(chunk.digest) != len(digest(b"")):
            wrong = wrong or f"its hash has {len(chunk.digest)} bytes"
            raise InputError(f"chunk {number} cannot be written: {wrong}; divide the data into smaller chunks")
        entry = _pack(info)
        file.write(_chunk_start(entry, identity))
        file.write(chunk.coded)
        index += entry
        totals = _added(totals, info)
    packed = _TOTALS.pack(*totals)
    file.write(index)
    file.write(_TRAILER.pack(packed, digest(identity + index + packed), END))
    return totals


@final
class Container:
    """A file of `write_container`, open for reading. Only the header and the index are kept in memory.

    Args:
        file: file that can seek; `close` closes it.
        name: name of the file for messages.
        salvage: accept a file whose footer is damaged or missing, and chunks whose own entry is damaged but whose entry
            in the index is not.

    Attributes:
        version: major and minor version of the format.
        needed: the oldest release of the library that reads the file.
        header: the header.
        totals: the totals; if the footer is damaged, those of the chunks found, and the number of the last one plus 1.
        damage: what ``salvage`` had to accept; None if the footer is intact.

    Raises:
        CodingError: the file cannot be read; see `unsup.coding.errors`.
    """

    def __init__(self, file: BinaryIO, name: str, *, salvage: bool = False) -> None:
        self.name, self._file, self._salvage = name, file, salvage
        self.damage: CodingError | None = None
        self._size = file.seek(0, os.SEEK_END)
        self._read_header()
        self._entries = bytearray()
        self._offsets, self._firsts = array("Q"), array("Q")
        self._numbers: Sequence[int] = ()
        try:
            self._read_footer()
        except CodingError as error:
            if not salvage:
                raise
            self.damage = error
            self._find_chunks()

    @classmethod
    def open(cls, path: str | Path, *, salvage: bool = False) -> Container:
        """Open a file by its path.

        Raises:
            InputError: the file is missing or cannot be read.
            CodingError: it is not a valid compressed file.
        """
        path = Path(path)
        if not path.is_file():  # reading a pipe would block
            raise InputError(f"there is no file {path}; pass a compressed file")
        try:
            file = path.open("rb")
            try:
                return cls(file, str(path), salvage=salvage)
            except BaseException:
                file.close()
                raise
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}; check its permissions") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def chunks(self) -> int:
        """Number of chunks, including those that are lost."""
        return self.totals.chunks

    @property
    def items(self) -> int:
        """Number of items, including those that are lost."""
        return self.totals.items

    def infos(self) -> Iterator[ChunkInfo]:
        """What the file states about each chunk, in order, without those that are lost."""
        for fields in _ENTRY.iter_unpack(self._entries):
            yield ChunkInfo(*fields)

    def info(self, number: int) -> ChunkInfo:
        """What the file states about a chunk.

        Raises:
            CorruptChunk: the chunk is lost.
            IndexError: there are fewer chunks.
        """
        return self._info(self._place(number))

    def locate(self, item: int) -> tuple[int, int]:
        """The number of the chunk with an item, and the position of the item in it.

        Raises:
            InputError: there are fewer items.
            CorruptChunk: the chunk is lost.
        """
        if not 0 <= item < self.items:
            raise InputError(f"{self.name} has {self.items:,} items, counted from 0, and no item {item:,}")
        place = bisect.bisect_right(self._firsts, item) - 1
        info = self._info(place) if place >= 0 else None
        if info is None or item not in info.items:
            raise CorruptChunk(self.name, info.number + 1 if info else 0, "it is missing")
        return info.number, item - info.first

    def chunk(self, number: int) -> bytes:
        """The coded bytes of a chunk, undamaged.

        Raises:
            CorruptChunk: the chunk is damaged or lost.
            InputError: it is larger than the memory.
            IndexError: there are fewer chunks.
        """
        place = self._place(number)
        info = self._info(place)
        if info.raw_size + info.coded_size > memory.limit():
            raise InputError(
                f"{self.name}: chunk {number} has {memory.said(info.raw_size)}, more than the "
                f"{memory.said(memory.limit())} of memory available; free memory, or raise --max-memory"
            )
        offset = self._offsets[place]
        try:
            start = self._read(offset, _CHUNK.size)
            coded = self._read(offset + _CHUNK.size, info.coded_size)
        except OSError as error:  # a defect of the disk: the other chunks may be readable
            raise CorruptChunk(self.name, number, f"it cannot be read: {error.strerror}") from error
        if len(coded) < info.coded_size:
            raise CorruptChunk(self.name, number, f"{len(coded):,} of its {info.coded_size:,} bytes are left")
        if not self._salvage and start != _chunk_start(_pack(info), self._identity):
            raise CorruptChunk(self.name, number, "its entry differs from the index")
        found = zlib.crc32(coded)
        if found != info.crc:
            raise CorruptChunk(self.name, number, f"the checksum of its bytes is {found:08x}, not {info.crc:08x}")
        return coded

    def check_decoded(self, number: int, raw: bytes | memoryview) -> None:
        """Check the decoded bytes of a chunk.

        Raises:
            DecodedHashMismatch: they are not the bytes that were coded.
        """
        info, size, found = self.info(number), memoryview(raw).nbytes, digest(raw)
        if size != info.raw_size or found != info.digest:
            raise DecodedHashMismatch(
                self.name,
                number,
                f"{info.raw_size:,} bytes with hash {info.digest.hex()}",
                f"{size:,} bytes with hash {found.hex()}",
            )

    def _place(self, number: int) -> int:
        """The position of a chunk among those that are known."""
        if not 0 <= number < self.chunks:
            raise IndexError(f"{self.name} has {self.chunks} chunks and no chunk {number}")
        place = bisect.bisect_left(self._numbers, number)
        if self._numbers[place] != number:  # the last chunk is known
            raise CorruptChunk(self.name, number, "it is missing")
        return place

    def _info(self, place: int) -> ChunkInfo:
        return ChunkInfo(*_ENTRY.unpack_from(self._entries, place * _ENTRY.size))

    def _read(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes, and never more than the file has."""
        self._file.seek(offset)
        return self._file.read(max(0, min(size, self._size - offset)))

    def _read_header(self) -> None:
        start = self._read(0, _START.size)
        if start[: len(MAGIC)] != MAGIC[: len(start)]:
            if _TEXT.match(start):
                raise DamagedFile(
                    self.name,
                    f"it starts with {start[:10]!r} instead of {MAGIC!r}, as after a transfer as text",
                    "transfer it again in binary mode",
                )
            raise NotOurFile(self.name, start[: len(MAGIC)])
        if len(start) < _START.size:
            raise TruncatedFile(self.name, f"it has {len(start)} bytes", "copy it again")
        prefix, identity, crc = _START.unpack(start)
        if crc != zlib.crc32(prefix + identity):
            raise DamagedFile(self.name, "the checksum of its first bytes is wrong")
        _, major, minor, *needed, critical, _, size = _PREFIX.unpack(prefix)
        release = ".".join(map(str, needed))
        if major != VERSION[0]:
            raise UnsupportedVersion(self.name, f"format {major}.{minor}", release, unsup.__version__)
        if critical & ~CRITICAL:
            bits = f"format {major}.{minor} with features {critical & ~CRITICAL:#x}"
            raise UnsupportedVersion(self.name, bits, release, unsup.__version__)
        if size > MAX_HEADER:
            raise DamagedFile(self.name, f"it states a header of {size:,} bytes; the maximum is {MAX_HEADER:,}")
        if _START.size + size > self._size:
            raise TruncatedFile(self.name, f"{self._size:,} bytes end in its header", "copy it again")
        text = self._read(_START.size, size)
        if identity != digest(prefix + text):
            raise DamagedFile(self.name, "the checksum of its header is wrong")
        try:
            self.header = _parse_header(text)
        except InputError as error:
            raise DamagedFile(self.name, f"its header is not valid: {error}") from error
        self.version, self.needed = (major, minor), release
        self._identity, self._body = identity, _START.size + size

    def _read_footer(self) -> None:
        """Read the index, and check that the chunks fill the file without gaps."""
        end = self._size - _TRAILER.size
        trailer = self._read(end, _TRAILER.size) if end >= self._body else b""
        if len(trailer) < _TRAILER.size or not trailer.endswith(END):
            tail = self._read(max(0, self._size - len(END)), len(END))
            raise TruncatedFile(self.name, f"it ends with {tail!r} instead of {END!r}", _KEEP_GOING)
        packed, check, _ = _TRAILER.unpack(trailer)
        totals = Totals(*_TOTALS.unpack(packed))
        start = end - totals.chunks * _ENTRY.size
        if start < self._body + totals.chunks * _CHUNK.size or totals.chunks > MAX_CHUNKS:
            raise self._wrong_footer(f"its footer states {totals.chunks:,} chunks in {self._size:,} bytes")
        index = self._read(start, end - start)
        if check != digest(self._identity + index + packed):
            raise self._wrong_footer("the checksum of its footer is wrong")
        found, offset, offsets, firsts = Totals(0, 0, 0, 0), self._body, array("Q"), array("Q")
        for fields in _ENTRY.iter_unpack(index):
            info = ChunkInfo(*fields)
            wrong = _beyond_limits(info, len(self.header["coders"]))
            if wrong or info.number != found.chunks or info.first != found.items:
                raise self._wrong_footer(f"entry {found.chunks} of its index is not valid")
            offsets.append(offset)
            firsts.append(info.first)
            found, offset = _added(found, info), offset + _CHUNK.size + info.coded_size
        if found != totals or offset != start:
            raise self._wrong_footer(f"its chunks end at byte {offset:,}, and its index starts at byte {start:,}")
        self.totals, self._entries, self._offsets, self._firsts = totals, bytearray(index), offsets, firsts
        self._numbers = range(totals.chunks)

    def _wrong_footer(self, reason: str) -> CodingError:
        return DamagedFile(self.name, reason, _KEEP_GOING)

    def _find_chunks(self) -> None:
        """Find chunks by their marks. One pass over the file, for any content."""
        numbers, totals, resume = array("I"), Totals(0, 0, 0, 0), 0
        for offset in self._marks():
            info = self._info_at(offset) if offset >= resume else None
            if info is None or info.number < totals.chunks or info.first < totals.items:
                continue
            numbers.append(info.number)
            self._offsets.append(offset)
            self._firsts.append(info.first)
            self._entries += _pack(info)
            totals = _added(totals, info)
            after = offset + _CHUNK.size + info.coded_size
            # If another chunk follows, marks inside this one are data; if not, bytes may be missing from this one.
            resume = after if self._info_at(after) else offset + _CHUNK.size
        self._numbers, self.totals = numbers, totals

    def _marks(self) -> Iterator[int]:
        """The positions of all marks after the header."""
        overlap = len(MARK) - 1
        for start in range(self._body, self._size, _WINDOW):
            window = self._read(start, _WINDOW + overlap)
            place = window.find(MARK)
            while place >= 0:
                yield start + place
                place = window.find(MARK, place + 1)

    def _info_at(self, offset: int) -> ChunkInfo | None:
        """The entry of the chunk that starts at ``offset``; None if there is no valid one."""
        start = self._read(offset, _CHUNK.size)
        entry = start[len(MARK) : len(MARK) + _ENTRY.size]
        if len(start) < _CHUNK.size or start != _chunk_start(entry, self._identity):
            return None
        info = ChunkInfo(*_ENTRY.unpack(entry))
        return None if _beyond_limits(info, len(self.header["coders"])) else info


def _header_bytes(header: Mapping[str, Any]) -> bytes:
    """The header as canonical JSON.

    Raises:
        InputError: it could not be read back.
    """
    try:
        text = _canonical(dict(header))
        back = _parse_header(text)
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"the header of a compressed file is not valid: {error}") from error
    if len(text) > MAX_HEADER:
        raise InputError(
            f"the header of a compressed file has {len(text):,} bytes; the maximum is {MAX_HEADER:,}; store large "
            "parts as a chunk without items"
        )
    if back != header:
        raise InputError("the header of a compressed file has keys or values that are not JSON types")
    return text


def _parse_header(text: bytes) -> Header:
    """Parse and check a header.

    Raises:
        InputError: it is not canonical JSON, a number is too large, or a field is missing or of the wrong type.
    """
    value = parse_json(text.decode("ascii", "replace"))
    try:
        same = _canonical(value) == text
    except ValueError as error:  # NaN and infinity
        raise InputError("it has a number that is not finite") from error
    if not same:
        raise InputError("it is not canonical JSON")
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, int) and abs(part) > MAX_NUMBER:
            raise InputError(f"it has {shown(part)}; the maximum is {MAX_NUMBER}")
        waiting += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return cast(Header, check_value("it", value, Header))


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _pack(info: ChunkInfo) -> bytes:
    return _ENTRY.pack(
        info.number, info.coder, info.count, info.first, info.raw_size, info.coded_size, info.crc, info.digest
    )


def _chunk_start(entry: bytes, identity: bytes) -> bytes:
    return _CHUNK.pack(MARK, entry, zlib.crc32(identity + MARK + entry))


def _added(totals: Totals, info: ChunkInfo) -> Totals:
    """Totals of the chunks up to this one."""
    return Totals(
        info.number + 1,
        info.first + info.count,
        totals.raw_size + info.raw_size,
        totals.coded_size + info.coded_size,
    )


def _beyond_limits(info: ChunkInfo, coders: int) -> str:
    """Which limit a chunk exceeds; empty if none."""
    for what, value, most in (
        ("number", info.number, MAX_CHUNKS - 1),
        ("coder", info.coder, min(coders, 2**16) - 1),
        ("items", info.count, MAX_CHUNK_ITEMS),
        ("first item", info.first, MAX_CHUNKS * MAX_CHUNK_ITEMS),
        ("decoded bytes", info.raw_size, MAX_CHUNK_SIZE),
        ("coded bytes", info.coded_size, MAX_CHUNK_SIZE),
    ):
        if not 0 <= value <= most:
            return f"{what}={value}; the maximum is {most}"
    return ""
