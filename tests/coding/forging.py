"""Damaged and forged compressed files for ``test_damage.py`` and ``scripts/fuzz_coding.py``.

`damaged` changes bytes as accidents do. `forged` changes a file as somebody would who can compute its checksums: it
changes the header, what is stated about chunks, and coded bytes, and seals the file again.

``python tests/coding/forging.py NAME COUNT SEED`` decompresses forged files of a golden file with limited memory, and
prints the outcomes, the seconds of the slowest file and the memory used, as JSON.
"""

from __future__ import annotations

import collections
import copy
import functools
import io
import json
import random
import struct
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import zstandard

import unsup
from unsup.coding import arrays, autoregressive, decompress
from unsup.coding import container as form
from unsup.coding.chunks import TYPES, ChunkCoder
from unsup.coding.container import Chunk, ChunkInfo, Container, digest, write_container
from unsup.coding.errors import CorruptChunk, DecodedHashMismatch
from unsup.coding.tables import to_grid
from unsup.core import memory
from unsup.core.errors import InputError
from unsup.core.model import Model

GOLDEN = Path(__file__).parent / "golden"
DECODED_SLOWLY = ("ffjord-levels", "residual-flow-grey")  # their coder is that of sylvester-grey
NAMES = sorted(path.stem for path in GOLDEN.glob("*.npy") if path.stem not in DECODED_SLOWLY)
BY_ENTRY = [name for name in NAMES if b'"entry by entry' in (GOLDEN / f"{name}.unsup").read_bytes()[:1000]]
"""Those that are coded entry by entry, in one order or in the best one."""
HUGE = (2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def start_of_chunks(content: bytes) -> int:
    """Where the chunks of an undamaged file start."""
    return int(form._START.size + form._PREFIX.unpack_from(content)[-1])


class Reader:
    """A golden file, and how files like it are read, without the preparations that are the same for all of them.

    Attributes:
        content: the file.
        body: where its chunks start.
        chunks: the decoded bytes of its chunks, and the numbers of their items.
    """

    def __init__(self, name: str) -> None:
        self.model: Model = unsup.load(GOLDEN / name)
        self._take((GOLDEN / f"{name}.unsup").read_bytes())
        assert self.decompress(self.content).numpy().tobytes() == np.load(GOLDEN / f"{name}.npy").tobytes()

    def _take(self, content: bytes) -> None:
        self.content = content
        with Container(io.BytesIO(content), "it") as file:
            self.header: dict[str, Any] = dict(file.header)
            self.coder = arrays.coder_of(self.model, file)
        self.body = start_of_chunks(content)
        self.shape = tuple(self.header["items"]["shape"])
        self.dtype = getattr(torch, self.header["items"]["type"])
        scheme: Any = self.coder.scheme
        scheme.decode = functools.lru_cache(64)(scheme.decode)
        self.chunks = self.rescued(content)

    def with_notes(self) -> Reader:
        """The same examples with many notes of rounding, which are rare in real files."""
        found, written, chunks = copy.copy(self), io.BytesIO(), []
        coder = ChunkCoder(self.model, scheme=type(self.coder.scheme))
        with (
            Container(io.BytesIO(self.content), "it") as file,
            mock.patch.object(autoregressive, "to_grid", lambda values, near: to_grid(values, 0.005)),
        ):
            for info in file.infos():
                x = self.coder.decode(file, info.number, self.shape, self.dtype)
                coded = file.chunk(info.number)
                if info.coder == 0:  # also where the notes make zstandard shorter
                    coded = coder._with_model(x, coder._inside(x))
                chunks.append(Chunk(info.coder, info.count, coded, info.raw_size, info.digest))
        write_container(written, self.header, chunks)
        found._take(written.getvalue())
        assert found.chunks == self.chunks
        assert len(found.content) > len(self.content)
        return found

    def decompress(self, data: bytes) -> torch.Tensor:
        with mock.patch.object(arrays, "coder_of", self._coder_of), memory.within(2**30):
            return decompress(self.model, data)

    def rescued(self, data: bytes) -> dict[int, tuple[range, bytes]]:
        """Items and decoded bytes of every chunk that can be recovered."""
        file, found = Container(io.BytesIO(data), "it", salvage=True), {}
        for number in range(min(file.chunks, 10_000)):
            try:
                x = self.coder.decode(file, number, self.shape, self.dtype)
            except (CorruptChunk, DecodedHashMismatch) as error:
                if error.chunk != number:
                    raise AssertionError(f"chunk {number}: {error}") from error
                continue
            found[number] = (file.info(number).items, x.numpy().tobytes())
        return found

    def _coder_of(self, model: Model, file: Container) -> ChunkCoder:
        about: dict[str, Any] = dict(file.header)
        if all(about.get(key) == self.header.get(key) for key in {*about, *self.header} - {"items", "writer"}):
            return self.coder
        return _coder_of(model, file)


_coder_of = arrays.coder_of


def outcome(read: Callable[[bytes], object], data: bytes) -> str:
    """``decoded``, or the name of the error, which must be one of input, and one line that can be printed."""
    try:
        read(data)
    except InputError as error:
        if not str(error).isprintable() or len(str(error)) > 1000:
            raise AssertionError(f"not one line: {error}") from error
        return type(error).__name__
    return "decoded"


# --- accidents --------------------------------------------------------------------------------------------------------


def damaged(content: bytes, draw: random.Random, start: int = 0, other: bytes = b"") -> tuple[str, bytes]:
    """What happened, and the file: always another one than ``content``, with the same bytes up to ``start``."""
    while True:
        kind = draw.choice(ACCIDENTS)
        new = bytearray(content)
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            a, b = sorted(draw.randint(start, len(new)) for _ in range(2))
            size = draw.choice((1, 2, 4, 16, b - a))
            match kind:
                case "bit flipped" if a < len(new):
                    new[a] ^= 1 << draw.randrange(8)
                case "byte changed" if a < len(new):
                    new[a] = draw.randrange(256)
                case "range deleted":
                    del new[a : a + size]
                case "bytes inserted":
                    new[a:a] = draw.randbytes(size)
                case "range repeated":
                    new[b:b] = new[a : a + size]
                case "ranges swapped":
                    size = min(size, b - a, len(new) - b)
                    new[a : a + size], new[b : b + size] = new[b : b + size], new[a : a + size]
                case "block zeroed":
                    new[a : a + size] = bytes(len(new[a : a + size]))
                case "part of another file" if other:
                    place = draw.randrange(len(other))
                    new[a : a + size] = other[place : place + size]
                case "file appended" if other:
                    new += draw.choice((other, content))[draw.choice((0, start)) :]
        if new != content:
            return kind, bytes(new)


ACCIDENTS = (
    "bit flipped",
    "byte changed",
    "range deleted",
    "bytes inserted",
    "range repeated",
    "ranges swapped",
    "block zeroed",
    "part of another file",
    "file appended",
)

# --- forgery ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sealed:
    """A file in parts. ``index`` may differ from what the chunks state."""

    header: bytes
    chunks: tuple[tuple[ChunkInfo, bytes], ...]
    index: tuple[ChunkInfo, ...]

    @classmethod
    def of(cls, content: bytes) -> Sealed:
        """Raises CodingError if ``content`` is damaged."""
        with Container(io.BytesIO(content), "it") as file:
            infos = tuple(file.infos())
            chunks = tuple((info, file.chunk(info.number)) for info in infos)
        return cls(content[form._START.size : start_of_chunks(content)], chunks, infos)

    def to_bytes(self) -> bytes:
        """The file with valid checksums."""
        prefix = form._PREFIX.pack(form.MAGIC, *form.VERSION, *form.NEEDED, form.CRITICAL, 0, len(self.header))
        identity = digest(prefix + self.header)
        body = form._START.pack(prefix, identity, zlib.crc32(prefix + identity)) + self.header
        for info, coded in self.chunks:
            body += form._chunk_start(form._pack(info), identity) + coded
        index = b"".join(map(form._pack, self.index))
        sizes = [sum(getattr(info, of) for info in self.index) for of in ("count", "raw_size", "coded_size")]
        totals = form._TOTALS.pack(len(self.index), *(size % 2**64 for size in sizes))
        return body + index + form._TRAILER.pack(totals, digest(identity + index + totals), form.END)

    def with_chunks(self, chunks: list[tuple[ChunkInfo, bytes]]) -> Sealed:
        """Other chunks, numbered again, with their sizes and checksums."""
        first, found = 0, []
        for number, (info, coded) in enumerate(chunks):
            size, crc = len(coded), zlib.crc32(coded)
            found.append((replace(info, number=number, first=first, coded_size=size, crc=crc), coded))
            first += info.count
        return Sealed(self.header, tuple(found), tuple(info for info, _ in found))


def forged(content: bytes, draw: random.Random, other: bytes = b"") -> bytes:
    """A file with valid checksums over other contents than those of the undamaged file ``content``."""
    file = Sealed.of(content)
    for _ in range(draw.choice((1, 1, 2, 3))):
        change = draw.choice((_header, _chunks, _stream, _stream, _stream, _frame, _coded, _field))
        file = change(file, draw, other)
    return file.to_bytes()


def _any(draw: random.Random) -> Any:
    """A JSON value that is probably not expected."""
    strings = ("", "a", "x" * 5000, "a\nb\x1b[2J", "\udce9", *TYPES, "examples", "native", "portable", "complex64")
    numbers = (0, 1, -1, 5, *HUGE, 2**64, -(2**63), 0.5, 1e308)
    lists = ([], [[]], [1, 2, 3], [0], [2**40] * 3, [-1], ["1"], [[[[]]]] * 50)
    mappings = ({}, {"a": {}}, {"name": "stored", "version": 1})
    return draw.choice((None, True, False, *strings, *numbers, *lists, *mappings))


def _header(file: Sealed, draw: random.Random, other: bytes) -> Sealed:
    try:
        header = json.loads(file.header)
    except ValueError:  # after another change
        return file
    place: Any = header
    if not isinstance(header, dict):
        return file
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return file
        key = draw.choice(keys)
        if isinstance(place[key], (dict, list)) and place[key] and draw.random() < 0.7:
            place = place[key]
            continue
        break
    match draw.randrange(6):
        case 0:
            del place[key]
        case 1 if isinstance(place, list):
            place += [draw.choice((place[key], _any(draw)))] * draw.choice((1, 3, 1000))
        case 2:
            header.setdefault("items", {})
            if isinstance(header["items"], dict):
                header["items"]["type"] = draw.choice(TYPES)
        case 3:
            header[draw.choice(("environment", "model", "canary", "new"))] = _any(draw)
        case _:
            place[key] = _any(draw)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    if draw.random() < 0.1 and text:
        text = damaged(text, draw)[1]
    return replace(file, header=text)


def _chunks(file: Sealed, draw: random.Random, other: bytes) -> Sealed:
    chunks = list(file.chunks)
    a, b = (draw.randrange(len(chunks)) for _ in range(2)) if chunks else (0, 0)
    match draw.randrange(5):
        case 0 if chunks:
            del chunks[a]
        case 1 if chunks:
            chunks[b:b] = [chunks[a]] * draw.choice((1, 2, 50))
        case 2 if chunks:
            chunks[a], chunks[b] = chunks[b], chunks[a]
        case 3 if other:
            chunks.insert(a, draw.choice(Sealed.of(other).chunks))
        case _:
            raw = bytes(draw.choice((0, 1, 30, 1000)))
            info = ChunkInfo(0, draw.randrange(3), draw.choice((0, 1, 2, 2**24)), 0, len(raw), 0, 0, digest(raw))
            chunks.insert(a, (info, draw.choice((raw, b""))))
    return file.with_chunks(chunks)


def _some(file: Sealed, draw: random.Random, coder: int | None = None) -> int | None:
    places = [k for k, (info, _) in enumerate(file.chunks) if coder in (None, info.coder)]
    return draw.choice(places) if places else None


def _changed(file: Sealed, place: int, coded: bytes, **fields: Any) -> Sealed:
    chunks = list(file.chunks)
    chunks[place] = (replace(chunks[place][0], **fields), coded)
    return file.with_chunks(chunks)


def _number(draw: random.Random, near: int, bits: int) -> int:
    """A number of so many bits: next to ``near``, at a limit, or any."""
    some = (near - 1, near + 1, near * 2, 0, 1, 2, 63, 64, 300, 1023, 1024, 1025, 4096, *HUGE, draw.getrandbits(bits))
    return draw.choice(some) % 2**bits


def _stream(file: Sealed, draw: random.Random, other: bytes) -> Sealed:
    """The stream of a model: examples outside | size of them | them | size of a group | notes | range coding."""
    place = _some(file, draw, 0)
    if place is None or len(file.chunks[place][1]) < 16:
        return file
    info, coded = file.chunks[place]
    count, size = struct.unpack_from("<II", coded)
    kept, (group, notes), rest = coded[8 : 8 + size], struct.unpack("<II", (coded[8 + size :] + bytes(8))[:8]), b""
    rest = coded[16 + size :]
    match draw.randrange(9):
        case 0:
            count = _number(draw, count, 32)
        case 1:
            size = _number(draw, size, 32)
        case 2:
            group = _number(draw, group, 32)
        case 3:
            notes = _number(draw, notes, 32)
        case 4:
            notes = draw.choice((1, 5, 1000))
            values = [
                struct.pack("<IIB", draw.randrange(60), draw.randrange(90), draw.randrange(5)) for _ in range(notes)
            ]
            rest = b"".join(values) + rest
        case 5:
            rest = damaged(rest, draw)[1] if rest else draw.randbytes(64)
        case 6:
            rest = draw.choice((b"", bytes(400), b"\xff" * 400, draw.randbytes(400)))
        case 7:  # other examples outside the model
            count = draw.choice((1, 2, 3, max(0, info.count - 1), info.count))
            each = max(1, info.raw_size // max(1, info.count))
            places = [draw.choice((0, k, k, info.count, 2**32 - 1)) for k in range(min(count, 5000))]
            raw = b"".join(struct.pack("<I", at % 2**32) for at in places) + bytes(min(count * each, 2**20))
            kept = zstandard.ZstdCompressor().compress(raw)
            size = len(kept)
        case 8:  # more or fewer examples, and the size for them
            each = max(1, info.raw_size // max(1, info.count))
            more = draw.choice(
                (0, 1, 2, 39, 41, 300, 2000, *([5000, 2**16, 2**18, 2**24] if draw.random() < 0.02 else []))
            )
            return _changed(file, place, coded, count=more, raw_size=min(more * each, form.MAX_CHUNK_SIZE))
    return _changed(file, place, struct.pack("<II", count, size) + kept + struct.pack("<II", group, notes) + rest)


def _frame(file: Sealed, draw: random.Random, other: bytes) -> Sealed:
    """The frame of a chunk of zstandard."""
    place = _some(file, draw, 1)
    if place is None:
        return file
    info, coded = file.chunks[place]
    raw = bytes(draw.choice((0, 1, info.raw_size % 2**22, info.raw_size % 2**22, 10 * info.raw_size % 2**22, 2**22)))
    match draw.randrange(6):
        case 0:
            coded = zstandard.ZstdCompressor(level=1).compress(raw)
        case 1:
            coded = zstandard.ZstdCompressor(write_content_size=False).compress(raw)
        case 2:  # the content size is a field of the frame: bytes from 5 on, or one byte with the flag of one segment
            new = bytearray(zstandard.ZstdCompressor().compress(raw))
            new[4 + draw.randrange(4) : 6] = draw.randbytes(2)
            coded = bytes(new)
        case 3:  # a window of up to 2 TB
            coded = b"\x28\xb5\x2f\xfd" + bytes((draw.choice((0x00, 0x40, 0x80, 0xC0)), draw.randrange(256)))
            coded += draw.choice((info.raw_size, *HUGE)).to_bytes(8, "little") + draw.randbytes(20)
        case 4:
            coded = b"\x50\x2a\x4d\x18" + struct.pack("<I", draw.choice((0, 4, 2**32 - 1))) + bytes(4) + coded
        case 5:
            coded = coded + coded
    if draw.random() < 0.5:
        each = max(1, info.raw_size // max(1, info.count))
        return _changed(file, place, coded, raw_size=len(raw), count=len(raw) // each, digest=digest(raw))
    return _changed(file, place, coded)


def _coded(file: Sealed, draw: random.Random, other: bytes) -> Sealed:
    """Any bytes of any chunk; stored ones with the hash of what they are decoded to."""
    place = _some(file, draw)
    if place is None or not file.chunks[place][1]:
        return file
    info, coded = file.chunks[place]
    new = damaged(coded, draw, 0, other)[1]
    return _changed(file, place, new, **({"digest": digest(new)} if info.coder == 2 else {}))


def _field(file: Sealed, draw: random.Random, other: bytes) -> Sealed:
    """What is stated about a chunk, by the chunk and the index or by one of them."""
    place = _some(file, draw)
    if place is None or len(file.index) != len(file.chunks):
        return file
    info, coded = file.chunks[place]
    bits = {"number": 32, "coder": 16, "count": 32, "first": 64, "raw_size": 64, "coded_size": 64, "crc": 32}
    name = draw.choice(list(bits))
    value = _number(draw, getattr(info, name), bits[name])
    if name == "coder" and draw.random() < 0.8:
        value %= 3
    new, both = replace(info, **{name: value}), draw.randrange(3)
    chunks, index = list(file.chunks), list(file.index)
    if both != 1:
        chunks[place] = (new, coded)
    if both != 2:
        index[place] = new
    return Sealed(file.header, tuple(chunks), tuple(index))


# --- limits -----------------------------------------------------------------------------------------------------------


def main(name: str, count: str, seed: str) -> None:
    import resource  # on Unix only

    readers = [Reader(name), *([Reader(name).with_notes()] if name in BY_ENTRY else [])]
    other = (GOLDEN / f"{NAMES[NAMES.index(name) - 1]}.unsup").read_bytes()
    draw, counts, slowest = random.Random(int(seed)), collections.Counter[str](), 0.0
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 2**29
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the memory starts here
    before = _peak()
    for k in range(int(count)):
        reader = readers[k % len(readers)]
        data = forged(reader.content, draw, other)
        start = time.process_time()
        counts[outcome(reader.decompress, data)] += 1
        counts[f"salvage: {outcome(reader.rescued, data)}"] += 1
        slowest = max(slowest, time.process_time() - start)
    grown = round((_peak() - before) / 1024, 1)
    print(json.dumps({"outcomes": dict(counts), "slowest": round(slowest, 2), "MB": grown}))


def _peak() -> int:
    """The most memory that the process has used, in kB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
