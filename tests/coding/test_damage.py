"""Damaged compressed files give a typed error and never wrong data; forged files give an error of input or data.

Run with ``-rP`` to see the counts by outcome.
"""

from __future__ import annotations

import collections
import io
import json
import random
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import forging
import numpy as np
import pytest
import zstandard
from forging import NAMES, Reader, Sealed, damaged, outcome

from unsup.coding import decompress
from unsup.coding.arrays import coder_of
from unsup.coding.container import ChunkInfo, Container, digest
from unsup.coding.errors import CodingError, CorruptChunk
from unsup.core import memory
from unsup.core.errors import InputError

SLOW = (pytest.mark.slow, pytest.mark.timeout(1800))
DISCRETE = [name for name in forging.BY_ENTRY if np.load(forging.GOLDEN / f"{name}.npy").dtype == np.uint8]
READERS: dict[str, Reader] = {}


@pytest.fixture(params=NAMES)  # of all kinds of data
def reader(request: pytest.FixtureRequest) -> Reader:
    if request.param not in READERS:
        READERS[request.param] = Reader(request.param)
    return READERS[request.param]


def other(reader: Reader) -> bytes:
    """Another golden file."""
    contents = [(forging.GOLDEN / f"{name}.unsup").read_bytes() for name in NAMES]
    return contents[contents.index(reader.content) - 1]


def parts(reader: Reader) -> dict[str, range]:
    """The parts of a golden file."""
    found, offset = {"start": range(42), "header": range(42, reader.body)}, reader.body
    for info, coded in Sealed.of(reader.content).chunks:
        found[f"chunk {info.number}"] = range(offset, offset + 54 + len(coded))
        offset += 54 + len(coded)
    return found | {"footer": range(offset, len(reader.content))}


def flips(content: bytes, places: range, every: int = 1) -> Iterator[tuple[int, bytes]]:
    """The place of every which bit, and the file with this bit flipped."""
    for k in range(8 * places.start, 8 * places.stop, every):
        bad = bytearray(content)
        bad[k // 8] ^= 1 << k % 8
        yield k // 8, bytes(bad)


def report(what: str, counts: collections.Counter[str]) -> None:
    print(f"{what}: {counts.total():,}: {dict(counts.most_common())}")


# --- accidents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("salvaged", [13, pytest.param(1, marks=SLOW)])
def test_every_truncation_is_found_and_complete_chunks_survive(reader: Reader, salvaged: int) -> None:
    """``salvaged``: every which file is salvaged as well."""
    content, where = reader.content, parts(reader)
    counts = collections.Counter[str]()
    for size in range(len(content)):
        counts[outcome(reader.decompress, content[:size])] += 1
        if size % salvaged:
            continue
        if size >= reader.body:
            complete = {k: v for k, v in reader.chunks.items() if where[f"chunk {k}"].stop <= size}
            assert reader.rescued(content[:size]) == complete
        else:
            assert outcome(reader.rescued, content[:size]) == "TruncatedFile"
    assert counts == {"TruncatedFile": len(content)}
    report("truncations", counts)


@pytest.mark.parametrize(("every", "salvaged"), [(5, 331), pytest.param(1, 1, marks=SLOW)])
def test_every_flipped_bit_is_found_and_the_other_chunks_survive(reader: Reader, every: int, salvaged: int) -> None:
    """``every``: all bits of the start and the header, and every which bit of the rest."""
    content, found = reader.content, {}
    for part, places in parts(reader).items():
        found[part] = collections.Counter[str]()
        step = 1 if part in ("start", "header") else every
        for k, (place, bad) in enumerate(flips(content, places, step)):
            found[part][outcome(reader.decompress, bad)] += 1
            if k % salvaged:
                continue
            if part in ("start", "header"):
                assert outcome(reader.rescued, bad) in ("DamagedFile", "NotOurFile", "TruncatedFile")
            else:  # the entry of a chunk is in the index as well
                number = int(part.split()[1]) if part != "footer" and place >= places.start + 54 else None
                assert reader.rescued(bad) == {k: v for k, v in reader.chunks.items() if k != number}
        assert found[part].total() == len(range(0, 8 * len(places), step))
        assert set(found[part]) <= {
            "start": {"DamagedFile", "NotOurFile", "TruncatedFile"},
            "header": {"DamagedFile"},
            "footer": {"DamagedFile", "TruncatedFile"},
        }.get(part, {"CorruptChunk"})
    report("flipped bits of start and header", found["start"] + found["header"])
    report("flipped bits", sum(found.values(), collections.Counter[str]()))


@pytest.mark.parametrize("times", [1_000, pytest.param(20_000, marks=SLOW)])
def test_mutations_never_give_wrong_data(reader: Reader, times: int) -> None:
    draw, counts, kinds = random.Random(times), collections.Counter[str](), collections.Counter[str]()
    content, foreign = reader.content, other(reader)
    for k in range(times):
        kind, bad = damaged(content, draw, reader.body, foreign)
        result = outcome(reader.decompress, bad)
        counts[result] += 1
        kinds[kind] += 1
        if k % 10 == 0:
            assert reader.rescued(bad).items() <= reader.chunks.items()
    assert set(counts) == {"CorruptChunk", "DamagedFile", "TruncatedFile"}
    assert set(kinds) == set(forging.ACCIDENTS)
    report("mutations of the body", counts)
    report("kinds of mutations", kinds)


@pytest.mark.parametrize("times", [300, pytest.param(20_000, marks=SLOW)])
def test_mutations_of_whole_files_never_give_wrong_data(reader: Reader, times: int) -> None:
    draw, counts = random.Random(1), collections.Counter[str]()
    for _ in range(times):
        counts[outcome(reader.decompress, damaged(reader.content, draw, 0, other(reader))[1])] += 1
    assert set(counts) <= {"CorruptChunk", "DamagedFile", "TruncatedFile", "NotOurFile"}
    report("mutations of the whole file", counts)


# --- salvage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("footer", ["intact", "damaged", "cut"])
def test_one_damaged_chunk_costs_no_other(reader: Reader, footer: str) -> None:
    where = parts(reader)
    for number in reader.chunks:
        for place in (where[f"chunk {number}"].start + 54, where[f"chunk {number}"].stop - 1):
            bad = bytearray(reader.content)
            bad[place] ^= 0x10
            if footer == "damaged":
                bad[where["footer"].start + 10] ^= 1
            if footer == "cut":
                del bad[-10:]
            assert reader.rescued(bytes(bad)) == {k: v for k, v in reader.chunks.items() if k != number}


def test_a_lost_chunk_costs_no_other(reader: Reader) -> None:
    where, content = parts(reader), reader.content
    for number in reader.chunks:
        lost = where[f"chunk {number}"]
        others = {k: v for k, v in reader.chunks.items() if k != number}
        assert reader.rescued(content[: lost.start] + content[lost.stop :]) == others
        assert reader.rescued(content[: lost.start + 20] + content[lost.start + 30 :]) == others
        assert reader.rescued(content[: lost.start] + bytes(len(lost)) + content[lost.stop :]) == others
        assert reader.rescued(content[: lost.stop]) == {k: v for k, v in reader.chunks.items() if k <= number}


# --- forged files -----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures memory as on Linux")
@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("made-words", 200),
        ("vae-grey", 100),
        ("nice-grey", 100),
        *(pytest.param(name, 7_000, marks=SLOW) for name in NAMES),
    ],
)
def test_forged_files_give_an_error_or_data(name: str, times: int) -> None:
    """With limited memory, in a process of its own."""
    words = [sys.executable, forging.__file__, name, str(times), str(times)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    print(f"forged files of {name}: {times:,}: {found}")
    assert found["outcomes"]["CorruptChunk"] > times / 5
    assert found["outcomes"]["decoded"] > times / 25
    assert found["slowest"] < 20
    assert found["MB"] < 200


def stream(reader: Reader, **changes: int | bytes) -> bytes:
    """The golden file with another stream in its second chunk, which has two examples outside the model."""
    file = Sealed.of(reader.content)
    chunks = list(file.chunks)
    info, coded = chunks[1]
    count, size = struct.unpack_from("<II", coded)
    now: dict[str, Any] = {"count": count, "size": size, "kept": coded[8 : 8 + size], "noted": b""}
    now["rest"] = coded[16 + size :]
    now["group"], now["notes"] = struct.unpack_from("<II", coded, 8 + size)
    assert (now["count"], now["notes"]) == (2, 0)
    now |= changes
    front = struct.pack("<II", now["count"], now["size"]) + now["kept"] + struct.pack("<II", now["group"], now["notes"])
    chunks[1] = (info, front + now["noted"] + now["rest"])
    return file.with_chunks(chunks).to_bytes()


def kept(reader: Reader, places: list[int]) -> dict[str, Any]:
    raw = np.array(places, "<u4").tobytes() + bytes(len(places) * reader.model.event.dims)
    coded = zstandard.ZstdCompressor().compress(raw)
    return {"count": len(places), "size": len(coded), "kept": coded}


@pytest.mark.parametrize("reader", DISCRETE, indirect=True)
def test_forged_streams_name_what_is_wrong(reader: Reader) -> None:
    assert stream(reader) == reader.content
    group = reader.coder.scheme._size()
    notes = struct.pack("<IIB", 3, 10**6, 1)
    for changes, reason in (
        ({"count": 40}, "40 of 40 examples are outside the model"),
        ({"count": 2**32 - 1}, "examples are outside the model"),
        ({"count": 3}, "another one after decoding"),
        ({"size": 2**32 - 1}, "examples are outside the model"),
        ({"size": 2}, "damaged"),
        (kept(reader, [1, 1]), "has no place"),
        (kept(reader, [1, 40]), "has no place"),
        (kept(reader, [1, 2**32 - 1]), "has no place"),
        ({"group": 0}, f"groups of 0 examples; expected up to {group}"),
        ({"group": 1}, f"groups of 1 examples; expected up to {group}"),
        ({"group": group + 1}, "groups of"),
        ({"group": 2**32 - 1}, "groups of"),
        ({"notes": 1000}, "1000 notes of rounding"),
        ({"notes": 2**32 - 1}, "notes of rounding"),
        ({"notes": 1, "noted": notes}, "refers to no entry"),
        ({"notes": 1, "rest": struct.pack("<IIB", 3, 0, 4) + b"1234"}, "remainder of 4"),
        ({"rest": b"12345"}, "multiple of 4"),
        ({"rest": b""}, "chunk 1"),
    ):
        with pytest.raises(CodingError, match=reason):
            reader.decompress(stream(reader, **changes))


def test_more_examples_than_a_chunk_has_are_refused_at_once(reader: Reader) -> None:
    """A chunk of a few bytes could otherwise keep a decoder busy for days."""
    file = Sealed.of(reader.content)
    for count in (2**19, 2**23):
        size = count * reader.model.event.dims
        for place in (0, 3):
            chunks = list(file.chunks)
            chunks[place] = (replace(chunks[place][0], count=count, raw_size=min(size, 2**30)), chunks[place][1])
            with pytest.raises(CorruptChunk, match="examples; the maximum is"):
                reader.decompress(file.with_chunks(chunks).to_bytes())


def test_a_skippable_frame_allocates_nothing(reader: Reader) -> None:
    """Its size is read as that of the data by a part of the library."""
    file = Sealed.of(reader.content)
    frame = b"\x50\x2a\x4d\x18" + struct.pack("<I", 2**32 - 1) + bytes(20)
    info = ChunkInfo(0, 1, 0, 0, 0, 0, 0, digest(b""))
    with pytest.raises(CorruptChunk, match="another one after decoding"):
        reader.decompress(file.with_chunks([(info, frame)]).to_bytes())


def test_more_data_than_memory_is_refused_before_decoding(reader: Reader) -> None:
    """A small file of many chunks of equal bytes may state any amount of data."""
    file = Sealed.of(reader.content)
    count = 4096
    raw = bytes(count * reader.model.event.dims * reader.dtype.itemsize)
    coded = zstandard.ZstdCompressor().compress(raw)
    content = file.with_chunks([(ChunkInfo(0, 1, count, 0, len(raw), 0, 0, digest(raw)), coded)] * 100).to_bytes()
    assert len(content) < 20_000

    def decode() -> None:
        with memory.within(2**22), pytest.raises(InputError, match="of memory available; free memory"):
            decompress(reader.model, content)

    def make_coder() -> None:
        with Container(io.BytesIO(content), "a file") as container:
            coder_of(reader.model, container)

    assert peak(decode) < peak(make_coder) + 2**20


def peak(work: Callable[[], None]) -> int:
    """Bytes of Python objects and arrays at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "change",
    [
        {"items": {}},
        {"items": {"kind": "examples", "type": "uint8"}},
        {"items": {"kind": 3, "type": "uint8", "shape": [7]}},
        {"items": {"kind": "examples", "type": "Tensor", "shape": [7]}},
        {"items": {"kind": "examples", "type": "x\n" * 1000, "shape": [7]}},
        {"items": {"kind": "examples", "type": "uint8", "shape": "7"}},
        {"items": {"kind": "examples", "type": "uint8", "shape": [-7]}},
        {"items": {"kind": "examples", "type": "uint8", "shape": [2**63]}},
        {"items": {"kind": "examples", "type": "uint8", "shape": [1] * 10_000}},
        {"items": {"kind": "examples", "type": "uint8", "shape": [True]}},
        {"items": {"kind": "examples", "type": "uint8", "shape": []}},
        {"model": {"name": "\x1b[2Jrm\n\n", "hash": "0" * 10_000}},
        {"profile": "native"},
        {"profile": "native\n", "environment": {}},
        {"profile": "native", "environment": {"torch": "\n" * 5000}},
        {"canary": ""},
        {"canary": "\n", "writer": "a\nb" * 1000},
        {"coders": []},
        {"coders": [{"name": "stored", "version": 1}] * 3},
        {"coders": [{"name": "x", "version": 65535}] * 1000},
    ],
)
def test_forged_headers_give_one_line(reader: Reader, change: dict[str, Any]) -> None:
    file = Sealed.of(reader.content)
    header = json.dumps(reader.header | change, sort_keys=True, separators=(",", ":")).encode()
    bad = replace(file, header=header).to_bytes()
    assert outcome(reader.decompress, bad) in ("CodingError", "DamagedFile", "UnknownModel", "EnvironmentMismatch")


def test_notes_of_rounding_are_followed_and_checked() -> None:
    """Real files have hardly any; here many entries have one, as if machines differed that much."""
    reader = Reader("made-binary").with_notes()
    counts = collections.Counter[str]()
    for number in (0, 1, 2):
        file = Sealed.of(reader.content)
        info, coded = file.chunks[number]
        assert info.coder == 0
        size = struct.unpack_from("<I", coded, 4)[0]
        notes = struct.unpack_from("<I", coded, 12 + size)[0]
        assert notes > 3
        for _, bad in flips(coded, range(8 + size, 16 + size + 9 * notes), 41):
            chunks = list(file.chunks)
            chunks[number] = (info, bad)
            result = outcome(reader.decompress, file.with_chunks(chunks).to_bytes())
            counts[result] += 1
            if result == "decoded":  # the note did not matter
                x = reader.decompress(file.with_chunks(chunks).to_bytes())
                assert x.numpy().tobytes() == b"".join(raw for _, raw in reader.chunks.values())
    report("flipped bits of notes", counts)
    assert set(counts) <= {"CorruptChunk", "DecodedHashMismatch", "decoded"}
