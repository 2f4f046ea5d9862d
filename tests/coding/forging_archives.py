"""Damaged and forged archives for ``test_forged_archives.py`` and ``scripts/fuzz_coding.py``.

``python tests/coding/forging_archives.py NAME COUNT SEED`` restores forged archives with limited memory, and prints the
outcomes, the seconds of the slowest file and the memory used, as JSON.
"""

from __future__ import annotations

import base64
import collections
import functools
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import forging
import numpy as np
import zstandard
from forging import HUGE, Sealed, outcome
from PIL import Image

import unsup
from unsup.coding.archive import Archive
from unsup.coding.chunks import ChunkCoder, plain_chunk, unpacked
from unsup.coding.container import ChunkInfo, Container
from unsup.core import memory
from unsup.core.model import Model
from unsup.data.notation import PATTERNS

GOLDEN = forging.GOLDEN / "archive"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.unsup"))
IMAGES = (".png", ".bmp")
Files = dict[str, bytes]


def files_in(folder: Path) -> Files:
    """The files of a folder by name; the pixels of images."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name, content = path.relative_to(folder).as_posix(), path.read_bytes()
            try:
                pixels = np.array(Image.open(io.BytesIO(content))) if path.suffix in IMAGES else np.array(0)
            except OSError:
                pixels = np.array(0)
            found[name] = content if not pixels.ndim else str(pixels.shape).encode() + pixels.tobytes()
    return found


class Reader:
    """A golden archive, and how archives like it are read, without the preparations that are the same for all.

    Attributes:
        content: the archive.
        files: the files in it, see `files_in`.
    """

    def __init__(self, name: str) -> None:
        self.content = (GOLDEN / f"{name}.unsup").read_bytes()
        self.files = files_in(GOLDEN / f"{name}-files")
        with Container(io.BytesIO(self.content), "it") as file:
            self.header = dict(file.header)
            self.model: Model = unsup.load(GOLDEN / name)
            self.coder: ChunkCoder = Archive(file).coder(self.model)
        scheme: Any = self.coder.scheme
        scheme.decode = functools.lru_cache(64)(scheme.decode)

    def restored(self, data: bytes, *, keep_going: bool = False) -> tuple[Files, set[str]]:
        """The files that are restored, and the names of those that are reported as lost.

        The folder has a file and a link out of it already: they must not change.
        """
        with self._folder() as out, memory.within(2**30), Container(io.BytesIO(data), "it", salvage=keep_going) as file:
            archive = Archive(file, keep_going=keep_going)
            own = {k: v for k, v in file.header.items() if k not in ("items", "writer")}
            same = own == {k: v for k, v in self.header.items() if k not in ("items", "writer")}
            coder = self.coder if same else archive.coder(self.model)
            written = archive.restore(out, coder)
            found = {name: content for name, content in files_in(out).items() if name != "kept"}
            assert sorted(found) == sorted(written)
            for lost in archive.lost:
                assert str(lost.error).isprintable()
            return found, {name for lost in archive.lost for name in lost.names}

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix="unsup-forged-"))
        try:
            out = folder / "out"
            for each in (out, folder / "elsewhere"):
                each.mkdir()
            (out / "kept").write_text("mine")
            (out / "link").symlink_to(folder / "elsewhere")
            try:
                yield out
            finally:
                assert (out / "kept").read_text() == "mine"
                assert (out / "link").is_symlink()
                assert sorted(os.listdir(folder)) == ["elsewhere", "out"]
                assert not os.listdir(folder / "elsewhere")
                assert not [path for path in out.rglob("*.tmp") if path.is_file()]
        finally:
            shutil.rmtree(folder)

    def checked(self, data: bytes) -> None:
        """Decode everything, and write nothing."""
        with memory.within(2**30), Container(io.BytesIO(data), "it") as file:
            Archive(file).digests(self.coder)


def records(file: Sealed) -> dict[int, Any]:
    """The values of all chunks that are JSON: records, copies of them, and cells of tables."""
    found = {}
    for place, (info, coded) in enumerate(file.chunks):
        if not info.count and info.coder and info.raw_size < 2**20:
            try:
                value = json.loads(unpacked(coded, info.raw_size) if info.coder == 1 else coded)
            except (ValueError, RecursionError, zstandard.ZstdError):  # after another change
                continue
            if isinstance(value, dict):
                found[place] = value
    return found


def with_record(file: Sealed, place: int, value: Any) -> Sealed:
    """The archive with another record in a chunk."""
    return with_raw(file, place, json.dumps(value, separators=(",", ":")).encode())


def with_raw(file: Sealed, place: int, raw: bytes) -> Sealed:
    chunks, chunk = list(file.chunks), plain_chunk(raw)
    info = ChunkInfo(0, chunk.coder, 0, 0, len(raw), len(chunk.coded), 0, chunk.digest)
    chunks[place] = (info, chunk.coded)
    return file.with_chunks(chunks)


def _coded(name: str) -> str:
    return "\0" + base64.b64encode(os.fsencode(name)).decode()


_PATHS = ("../x", "/x", "//x/y", "a/../../x", "a/./b", "a//b", "a/", "", ".", "..", "C:\\x", "C:/x", "\\\\x\\y", "a\0b")
_ODD = ("x" * 300, "x" * 5000, "a/" * 1500 + "x", "a\x1b[2J\n\r", "\u202e", "CON", "kept", "kept/x", "link", "link/x")
_BAD = (
    "\0",
    "\0!!!",
    "\0é",
    _coded("../x"),
    _coded("link/x"),
    _coded("a\0b"),
    _coded("a095.png"),
    "a\udce9",
    "notes.txt/x",
)
_TEXTS = (*_PATHS, *_ODD, *_BAD, "notes.txt", "a095.png", "more", "rows.csv", "rows.csv/x", "A095.png")
_VALUES = (
    -1,
    0,
    1,
    2,
    3,
    15,
    16,
    60,
    2**14,
    2**18,
    2**20,
    2**24,
    *HUGE,
    2**64,
    0.5,
    1e308,
    True,
    None,
    [],
    {},
    [[]],
    "x",
)
_KINDS = ("bytes", "images", "array", "table", "sound", [], {}, None)


def _value(draw: random.Random, key: str, now: Any) -> Any:
    """A value in the place of another one: of its kind, or any."""
    if draw.random() < 0.2:
        return draw.choice((*_TEXTS, *_VALUES, *_KINDS))
    match key:
        case "kind":
            return draw.choice((*_KINDS, "number", "words", "date"))
        case "type" | "depth":
            return draw.choice((*forging.TYPES, "uint16", "complex64"))
        case "suffix":
            return draw.choice((".png", ".bmp", ".tif", ".tiff", ".exe", "/../x"))
        case "axes":
            return draw.choice(("same", "last", "none"))
        case "head":
            good = base64.b64decode(now) if isinstance(now, str) and now.isascii() and len(now) % 4 == 0 else b""
            bad = base64.b64encode(forging.damaged(good, draw)[1]).decode()
            return draw.choice((bad, "AAAA", "A", "é", "A" * 2**17, ""))
        case "separator" | "newline" | "thousands":
            return draw.choice(("", ",", ";", "\t", "\n", "\r", '"', "\0", "ab", "é", "\udce9", " "))
        case "pattern":
            return draw.choice((*PATTERNS[:5], "%999999999d", "%Q", "%", "\0", "x" * 1000, "\udce9%Y", "%-d"))
        case "before" | "after" | "gaps" | "words" | "other":
            return draw.choice(("", "x" * 10, "x" * 10**5, "\udce9", "\n", '"', "=1"))
        case _ if isinstance(now, bool):
            return not now
        case _ if isinstance(now, int):
            return draw.choice((now - 1, now + 1, 2 * now, -now, *_VALUES))
        case _ if isinstance(now, str):
            return draw.choice(_TEXTS)
        case _:
            return draw.choice(_VALUES)


def _mutate(value: Any, draw: random.Random) -> None:
    """Change one place in JSON."""
    place, key, name = value, None, ""
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = draw.choice(keys)
        name = key if isinstance(key, str) else name
        if isinstance(place[key], (dict, list)) and place[key] and draw.random() < 0.85:
            place = place[key]
            continue
        break
    match draw.randrange(8):
        case 0:
            del place[key]
        case 1 if isinstance(place, list):
            place += [place[key]] * draw.choice((1, 2, 300))
        case 2 if isinstance(place, list):
            place.insert(key, _value(draw, name, place[key]))
        case 3 if name == "names" and place is not value:
            place[key] = [
                draw.choice(("x", "", "../", "\0", "a/" * 600)),
                *_numbers(draw),
                draw.choice(("", ".png", "/x")),
            ]
            place[key].append(draw.choice((0, 1, 2, 40, 2**16, 2**24, 2**40, 2**63)))
        case 4 if isinstance(place, dict):
            place[draw.choice(("sizes", "copies", "other", "odd", "new", "kind"))] = _value(draw, "", [])
        case _:
            place[key] = _value(draw, name, place[key])


def _numbers(draw: random.Random) -> list[int]:
    return [draw.choice((0, 7, -1, 10**15, 2**63 - 1, 2**63)), draw.choice((0, 1, 3, 15, 16, 10**6, 2**40))]


def _record(file: Sealed, draw: random.Random, other: bytes) -> Sealed:
    """Changes of one record; of its copy too, or of the copy only."""
    found = records(file)
    if not found:
        return file
    place = draw.choice(list(found))
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        _mutate(found[place], draw)
    file = with_record(file, place, found[place])
    if draw.random() < 0.3:  # keep going with the copies
        gone = draw.choice(list(found))
        file = with_raw(file, gone, draw.choice((b"", b"{}", b"{", b"[]", b"\xff", b"[" * 10**5, b"{" * 10**5, b"0")))
    return file


def forged(content: bytes, draw: random.Random, other: bytes = b"") -> bytes:
    """An archive with valid checksums over other contents than those of the undamaged archive ``content``."""
    file = Sealed.of(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        rest = (forging._header, forging._chunks, forging._stream, forging._frame, forging._coded, forging._field)
        change = draw.choice((*[_record] * 12, *rest))
        file = change(file, draw, other)
    return file.to_bytes()


def main(name: str, count: str, seed: str) -> None:
    import resource  # on Unix only

    reader, draw, counts, slowest = Reader(name), random.Random(int(seed)), collections.Counter[str](), 0.0
    other = (GOLDEN / f"{NAMES[NAMES.index(name) - 1]}.unsup").read_bytes()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 2**29
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the memory starts here
    before = forging._peak()
    for _ in range(int(count)):
        data = forged(reader.content, draw, other)
        start = time.process_time()
        counts[outcome(reader.restored, data)] += 1
        counts[f"keep going: {outcome(functools.partial(reader.restored, keep_going=True), data)}"] += 1
        slowest = max(slowest, time.process_time() - start)
    grown = round((forging._peak() - before) / 1024, 1)
    print(json.dumps({"outcomes": dict(counts), "slowest": round(slowest, 2), "MB": grown}))


if __name__ == "__main__":
    main(*sys.argv[1:])
