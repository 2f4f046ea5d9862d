"""The file format of compressed data: what was written is read back, and any damage is found."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unsup.coding import container as format_module
from unsup.coding.container import (
    END,
    MAGIC,
    MARK,
    MAX_CHUNK_ITEMS,
    MAX_CHUNK_SIZE,
    MAX_CHUNKS,
    MAX_HEADER,
    NEEDED,
    Chunk,
    Container,
    Totals,
    digest,
    write_container,
)
from unsup.coding.errors import (
    CodingError,
    CorruptChunk,
    DamagedFile,
    DecodedHashMismatch,
    EnvironmentMismatch,
    NotOurFile,
    TruncatedFile,
    UnknownModel,
    UnsupportedVersion,
)
from unsup.core import memory
from unsup.core.errors import InputError

GOLDEN = Path(__file__).parent / "golden" / "container-1.0.unsup"
STORED, DEFLATED = 0, 1
HEADER = {
    "writer": "unsup 0.1.0",
    "profile": "portable",
    "coders": [{"name": "stored", "version": 1}, {"name": "deflate", "version": 1}],
    "items": {"dtype": "uint8", "names": ["ü.png", "\udce9.png"]},
    "model": {"name": "made", "hash": "1f" * 32},
    "seed": 2**64 - 1,
}
RAW = [(0, b'["a","b"]'), (2, b"\x00" * 40), (1, b"abc" * 7), (0, b""), (3, bytes(range(30)))]
"""Items and decoded bytes of the chunks of the golden file."""


def coded(number: int, raw: bytes) -> tuple[int, bytes]:
    return (DEFLATED, zlib.compress(raw, 9)) if number % 2 else (STORED, raw)


def written(raw: list[tuple[int, bytes]] = RAW, header: dict = HEADER) -> bytes:
    file = io.BytesIO()
    chunks = (
        Chunk.of(coder, count, body, part) for k, (count, part) in enumerate(raw) for coder, body in [coded(k, part)]
    )
    write_container(file, header, chunks)
    return file.getvalue()


def opened(content: bytes, *, salvage: bool = False) -> Container:
    return Container(io.BytesIO(content), "data.unsup", salvage=salvage)


def decode(file: Container, number: int) -> bytes:
    """What a reader does with one chunk."""
    body, info = file.chunk(number), file.info(number)
    if info.coder == DEFLATED:
        try:
            body = zlib.decompressobj().decompress(body, info.raw_size + 1)
        except zlib.error as error:
            raise CorruptChunk(file.name, number, str(error)) from error
    file.check_decoded(number, body)
    return body


def read(content: bytes) -> list[tuple[int, bytes]]:
    """All chunks, or the first error."""
    file = opened(content)
    assert file.damage is None
    return [(file.info(k).count, decode(file, k)) for k in range(file.chunks)]


def rescued(content: bytes) -> dict[int, tuple[range, bytes]]:
    """Items and decoded bytes of every chunk that can be recovered."""
    file, found, lost = opened(content, salvage=True), {}, []
    for k in range(file.chunks):
        try:
            found[k] = (file.info(k).items, decode(file, k))
        except (CorruptChunk, DecodedHashMismatch) as error:
            lost.append(error.chunk)
    assert sorted([*found, *lost]) == list(range(file.chunks))
    return found


EVERYTHING = rescued(written())
"""Numbers of items and decoded bytes of each chunk of the example."""


def regions(content: bytes) -> dict[str, range]:
    """Where the parts of an undamaged file are."""
    size = struct.unpack_from("<I", content, 26)[0]
    found = {"start": range(42), "header": range(42, 42 + size)}
    offset = 42 + size
    for info in opened(content).infos():
        found[f"chunk {info.number}"] = range(offset, offset + 54 + info.coded_size)
        offset += 54 + info.coded_size
    found["footer"] = range(offset, len(content))
    return found


def resealed(part: str, *changes: Callable[[bytearray, int], None]) -> bytes:
    """The example, changed by somebody who can compute checksums."""
    parts, new = regions(written()), bytearray(written())
    for change in changes:
        change(new, parts[part].start)
    new[30:38] = digest(bytes(new[:30]) + bytes(new[42 : parts["header"].stop]))
    new[38:42] = struct.pack("<I", zlib.crc32(new[:38]))
    for number in range(len(RAW)):
        at = parts[f"chunk {number}"].start
        new[at + 50 : at + 54] = struct.pack("<I", zlib.crc32(new[30:38] + new[at : at + 50]))
    new[-16:-8] = digest(bytes(new[30:38] + new[parts["footer"].start : -16]))
    return bytes(new)


def setting(form: str, offset: int, *values: int) -> Callable[[bytearray, int], None]:
    return lambda content, start: struct.pack_into(form, content, start + offset, *values)


# --- what was written is read back ------------------------------------------------------------------------------------


def test_chunks_header_and_totals_are_read_back():
    file = opened(written())
    assert read(written()) == RAW
    assert file.header == HEADER
    assert file.version == (1, 0)
    assert file.totals == (5, 6, sum(len(r) for _, r in RAW), sum(len(coded(k, r)[1]) for k, (_, r) in enumerate(RAW)))
    assert (file.chunks, file.items) == (5, 6)
    assert [i.number for i in file.infos()] == list(range(5))
    assert [file.info(k) for k in range(5)] == list(file.infos())


def test_every_item_is_found_in_its_chunk():
    file = opened(written())
    expected = [(number, position) for number, (count, _) in enumerate(RAW) for position in range(count)]
    assert [file.locate(item) for item in range(file.items)] == expected
    for item in (-1, 6, 2**70):
        with pytest.raises(InputError, match=r"data\.unsup has 6 items, counted from 0, and no item"):
            file.locate(item)
    for number in (-1, 5):
        with pytest.raises(IndexError):
            file.chunk(number)


LEAVES = st.none() | st.booleans() | st.integers(-(2**64) + 1, 2**64 - 1) | st.text(max_size=5)
LEAVES |= st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3))


@settings(deadline=None, max_examples=200)
@given(
    raw=st.lists(st.tuples(st.integers(0, MAX_CHUNK_ITEMS), st.binary(max_size=60)), max_size=6),
    items=st.dictionaries(st.text(max_size=4), JSON, max_size=4),
)
def test_any_chunks_and_header_survive(raw, items):
    header = HEADER | {"items": items}
    content = written(raw, header)
    assert read(content) == raw
    assert opened(content).header == header
    assert json.dumps(opened(content).header, sort_keys=True) == json.dumps(header, sort_keys=True)  # -0.0 and 1.0
    firsts = [sum(count for count, _ in raw[:k]) for k in range(len(raw))]
    everything = {k: (range(f, f + c), r) for k, (f, (c, r)) in enumerate(zip(firsts, raw, strict=True))}
    assert rescued(content) == everything
    assert rescued(content[:-1]) == everything


def test_the_golden_file_is_decoded_for_ever():
    content = GOLDEN.read_bytes()
    assert read(content) == RAW
    assert opened(content).header == HEADER
    with Container.open(GOLDEN) as file:
        assert file.totals == (5, 6, 100, 80)
        chunks = [Chunk.of(file.info(k).coder, count, file.chunk(k), raw) for k, (count, raw) in enumerate(RAW)]
    again = io.BytesIO()
    write_container(again, HEADER, chunks)
    assert again.getvalue() == content, "increase the version, and add another golden file"


def test_an_empty_container_is_a_file():
    assert read(written([])) == []
    assert opened(written([])).totals == Totals(0, 0, 0, 0)
    assert rescued(written([])[:-1]) == {}


def test_what_a_container_adds_is_known():
    content = written(header=HEADER)
    header = len(json.dumps(HEADER, sort_keys=True, separators=(",", ":")))
    assert len(content) == 42 + header + 44 + 100 * len(RAW) + opened(content).totals.coded_size


class Pipe(io.RawIOBase):
    """A file that can only be appended to."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, part) -> int:
        self.content += bytes(part)
        return len(part)


def test_writing_needs_no_seeking():
    pipe = Pipe()
    write_container(pipe, HEADER, [Chunk.of(STORED, 1, b"abc", b"abc")])
    assert pipe.content == written([(1, b"abc")])


class Watched(io.BytesIO):
    """A file that records which bytes are read."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.seen: list[range] = []

    def read(self, size: int = -1) -> bytes:
        assert size >= 0
        start = self.tell()
        self.seen.append(range(start, start + size))
        return super().read(size)


def test_only_the_needed_bytes_are_read():
    content = written([(1, random.Random(k).randbytes(5000)) for k in range(50)])
    parts = regions(content)
    file = Container(source := Watched(content), "data.unsup")
    body = range(parts["header"].stop, parts["footer"].start)
    assert not any(set(r) & set(body) for r in source.seen)
    source.seen.clear()
    file.chunk(31)
    assert all(set(r) <= set(parts["chunk 31"]) for r in source.seen)


# --- damage -----------------------------------------------------------------------------------------------------------


def test_every_truncation_is_found_and_complete_chunks_survive():
    content, parts = written(), regions(written())
    for size in range(len(content)):
        with pytest.raises(TruncatedFile, match=r"data\.unsup was cut short .*; copy it again"):
            opened(content[:size])
        if size < parts["header"].stop:
            with pytest.raises(TruncatedFile):
                opened(content[:size], salvage=True)
        else:
            complete = {k: v for k, v in EVERYTHING.items() if parts[f"chunk {k}"].stop <= size}
            assert rescued(content[:size]) == complete
            assert isinstance(opened(content[:size], salvage=True).damage, TruncatedFile)


def flips(content: bytes, every: int) -> Iterator[tuple[int, bytes]]:
    """One flipped bit of the file, of every so many bits."""
    for place in range(0, 8 * len(content), every):
        bad = bytearray(content)
        bad[place // 8] ^= 1 << place % 8
        yield place // 8, bytes(bad)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_flipped_bit_is_found_and_the_other_chunks_survive(every):
    content, parts, seen = written(), regions(written()), dict.fromkeys(regions(written()), 0)
    for place, bad in flips(content, every):
        part = next(name for name, where in parts.items() if place in where)
        seen[part] += 1
        with pytest.raises(CodingError) as caught:
            read(bad)
        assert "\n" not in str(caught.value)
        if part.startswith("chunk"):
            number = int(part.split()[1])
            assert isinstance(caught.value, CorruptChunk)
            assert caught.value.chunk == number
            others = {k: v for k, v in EVERYTHING.items() if k != number}
            entry = place < parts[part].start + 54  # the index has a copy
            assert rescued(bad) == (EVERYTHING if entry else others)
        elif part == "footer":
            assert isinstance(caught.value, (DamagedFile, TruncatedFile))
            assert rescued(bad) == EVERYTHING
        else:
            assert isinstance(caught.value, (DamagedFile, NotOurFile))
            with pytest.raises(CodingError):
                opened(bad, salvage=True)
    assert sum(seen.values()) == -(-8 * len(content) // every)
    assert all(seen.values())


def test_a_chunk_and_the_footer_may_both_be_damaged():
    content, parts = written(), regions(written())
    for number in range(5):
        for place in parts[f"chunk {number}"]:
            bad = bytearray(content)
            bad[place] ^= 0x10
            bad[-20] ^= 1
            assert rescued(bytes(bad)) == {k: v for k, v in EVERYTHING.items() if k != number}


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One of the things that happen to files, once or several times."""
    new = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        a, b = sorted(draw.randrange(len(new) + 1) for _ in range(2))
        match draw.randrange(8):
            case 0 if new:
                new[min(a, len(new) - 1)] ^= 1 << draw.randrange(8)
            case 1 if new:
                new[min(a, len(new) - 1)] = draw.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
            case 2:
                del new[a : min(b, a + draw.choice((1, 4, 50)))]
            case 3:
                new[a:a] = draw.randbytes(draw.choice((1, 4, 50)))
            case 4:
                new[a:b] = bytes(b - a)  # a block that was never written
            case 5:
                c = draw.randrange(len(new) + 1)
                new[c : c + b - a] = new[a:b]  # one part over another
            case 6:
                new[a:b] = new[a:b][::-1]
            case 7 if len(new) - a >= 8:
                struct.pack_into("<Q", new, a, draw.choice((2**63, 2**32, 2**64 - 1, MAX_CHUNK_SIZE, 0)))
    return bytes(new)


@pytest.mark.parametrize("times", [3_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_random_mutations_never_give_wrong_data(times):
    content, draw, count = written(), random.Random(times), dict.fromkeys(("error", "same", "rescued"), 0)
    body = regions(content)["header"].stop
    for _ in range(times):
        kept = draw.choice((0, body))
        bad = content[:kept] + mutated(content[kept:], draw)
        try:
            assert read(bad) == RAW
        except CodingError:
            count["error"] += 1
        else:
            assert bad == content
            count["same"] += 1
        try:
            found = rescued(bad)
        except CodingError:
            continue
        count["rescued"] += 1
        assert found.items() <= EVERYTHING.items()
    assert count["error"] > 0.9 * times
    assert count["rescued"] > 0.5 * times


def test_chunks_are_found_after_bytes_were_lost_or_inserted():
    content, parts = written(), regions(written())
    for number in range(5):
        others = {k: v for k, v in EVERYTHING.items() if k != number}
        for place in parts[f"chunk {number}"][1:]:
            assert rescued(content[: place - 1] + content[place:]) == others
            assert rescued(content[:place] + MARK + b"?" + content[place:]) == others


def test_bytes_after_the_end_are_found_and_cost_nothing():
    for extra in (b"\n", b"\x1a", content := written()):
        with pytest.raises(TruncatedFile, match="instead of") if extra != content else pytest.raises(DamagedFile):
            opened(written() + extra)
        assert rescued(written() + extra) == EVERYTHING


def test_repeated_chunks_are_found_once():
    """As after a copy that was resumed in the wrong place."""
    content, parts = written(), regions(written())
    for again in (0, 1, 4):
        bad = content[: parts["footer"].start] + content[parts[f"chunk {again}"].start : parts["footer"].start]
        file = opened(bad, salvage=True)
        assert [i.number for i in file.infos()] == list(range(5))
        assert file.totals == opened(content).totals
        assert rescued(bad) == EVERYTHING


def test_the_numbers_of_items_survive_lost_chunks():
    content, parts = written(), regions(written())
    file = opened(content[: parts["chunk 1"].start] + content[parts["chunk 4"].start : -1], salvage=True)
    assert (file.chunks, file.items) == (5, 6)
    assert [i.number for i in file.infos()] == [0, 4]
    assert file.locate(5) == (4, 2)
    for item in (0, 1, 2):
        with pytest.raises(CorruptChunk, match="chunk 1 is damaged"):
            file.locate(item)
    for number in (1, 2, 3):
        with pytest.raises(CorruptChunk, match=f"chunk {number} is damaged .it is missing"):
            file.chunk(number)
    start = opened(content[: parts["chunk 0"].start] + content[parts["chunk 4"].start :], salvage=True)
    with pytest.raises(CorruptChunk, match="chunk 0 is damaged"):
        start.locate(1)


@pytest.mark.parametrize("window", [1, 2, 3, 5, 64])
def test_marks_across_windows_are_found(window, monkeypatch):
    monkeypatch.setattr(format_module, "_WINDOW", window)
    assert rescued(written()[:-1]) == EVERYTHING


def test_marks_in_data_are_data():
    raw = [(1, MARK * 20), (1, b""), (1, written()), (1, MARK[:3]), (1, MARK + b"\0" * 60)]
    content = written(raw)
    assert {k: v for k, (_, v) in rescued(content[:-1]).items()} == {k: v for k, (_, v) in enumerate(raw)}


def test_chunks_of_another_file_are_refused():
    other = written(header=HEADER | {"writer": "unsup 0.1.1"})
    mine, theirs = (regions(c)["chunk 2"] for c in (written(), other))
    mixed = written()[: mine.start] + other[theirs.start : theirs.stop] + written()[mine.stop :]
    with pytest.raises(CorruptChunk, match=r"chunk 2 .*differs from the index"):
        read(mixed)
    without_footer = mixed[:-1]
    assert rescued(without_footer) == {k: v for k, v in EVERYTHING.items() if k != 2}


def test_chunks_in_another_order_are_refused():
    content = written([(1, b"one"), (1, b"two"), (1, b"six")])
    parts = regions(content)
    first, third = parts["chunk 0"], parts["chunk 2"]
    swapped = bytearray(content)
    swapped[first.start : first.stop] = content[third.start : third.stop]
    swapped[third.start : third.stop] = content[first.start : first.stop]
    with pytest.raises(CorruptChunk, match="chunk 0"):
        read(bytes(swapped))


def test_another_decoded_result_is_refused():
    file = opened(written())
    for wrong in (b"", b"abc" * 7 + b"\0", b"abd" * 7):
        with pytest.raises(DecodedHashMismatch, match=f"chunk 2 was decoded to {len(wrong)} bytes .*expected 21 bytes"):
            file.check_decoded(2, wrong)
    file.check_decoded(2, memoryview(b"abc" * 7))
    written_file = io.BytesIO()
    write_container(written_file, HEADER, [Chunk(STORED, 1, b"abc", 4, digest(b"abc"))])
    with pytest.raises(DecodedHashMismatch, match="expected 4 bytes"):
        Container(written_file, "data.unsup").check_decoded(0, b"abc")


class Defective(io.BytesIO):
    """A disk with a defect in one place."""

    bad = range(0)

    def read(self, size: int = -1) -> bytes:
        if set(range(self.tell(), self.tell() + size)) & set(self.bad):
            raise OSError(5, "Input/output error")
        return super().read(size)


def test_a_defect_of_the_disk_costs_one_chunk():
    source = Defective(written())
    source.bad = regions(written())["chunk 2"][-3:]
    file = Container(source, "data.unsup")
    with pytest.raises(CorruptChunk, match=r"chunk 2 is damaged .*Input/output error"):
        file.chunk(2)
    assert [decode(file, k) for k in (0, 1, 3, 4)] == [RAW[k][1] for k in (0, 1, 3, 4)]


# --- other files and other versions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"PNG", b"\x89PNG\r\n\x1a\n" + bytes(99), b"UNS\r\n" * 20, bytes(200), b"\x1f\x8b" * 99]
)
def test_other_files_are_refused(content):
    with pytest.raises(NotOurFile, match="is not compressed by this library: it starts with b'"):
        opened(content, salvage=True)


@pytest.mark.parametrize(
    "changed",
    [
        lambda c: c.replace(b"\r\n", b"\n"),
        lambda c: c.replace(b"\n", b"\r\n"),
        lambda c: c.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
        lambda c: c.replace(b"\n", b"\r"),
        lambda c: bytes(b & 0x7F for b in c),
        lambda c: c.decode("latin-1").encode(),
        lambda c: c.decode("utf-8", "replace").encode(),
        lambda c: c.decode("ascii", "replace").encode("ascii", "replace"),
        lambda c: c.split(b"\x1a")[0],
    ],
)
def test_a_transfer_as_text_is_found(changed):
    with pytest.raises((DamagedFile, TruncatedFile), match=r"transfer it again in binary mode|copy it again"):
        opened(changed(written()))


def test_newer_versions_name_the_release_that_reads_them():
    bad = resealed("start", setting("<2H", 8, 2, 1), setting("<3H", 12, 3, 4, 5))
    with pytest.raises(UnsupportedVersion, match=r"format 2.1, which needs unsup 3.4.5 or newer.*'unsup>=3.4.5'"):
        opened(bad)
    with pytest.raises(UnsupportedVersion, match=r"format 0.0, which needs"):
        opened(resealed("start", setting("<2H", 8, 0, 0)))
    for bit in range(32):
        bad = resealed("start", setting("<I", 18, 1 << bit))
        with pytest.raises(UnsupportedVersion, match=f"with features {1 << bit:#x}, which needs unsup 0.1.0"):
            opened(bad, salvage=True)


@pytest.mark.parametrize(
    "change", [setting("<I", 22, 2**32 - 1), setting("<H", 10, 65535), setting("<3H", 12, 9, 9, 9)]
)
def test_ancillary_features_and_minor_versions_are_ignored(change):
    assert resealed("start", change) != written()
    assert read(resealed("start", change)) == RAW
    assert rescued(resealed("start", change)[:-1]) == EVERYTHING


# --- hostile files ----------------------------------------------------------------------------------------------------


def memory_of(action: Callable[[], object]) -> int:
    """Bytes that ``action`` allocates at most at one time."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


HUGE = (2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
FIELDS = {"number": ("<I", 0), "coder": ("<H", 4), "items": ("<I", 6), "first": ("<Q", 10)}
FIELDS |= {"raw": ("<Q", 18), "coded": ("<Q", 26)}
PLACES = (
    [("start", "<I", 26)]
    + [(f"chunk {k}", form, 4 + at) for k in (0, 2, 4) for form, at in FIELDS.values()]
    + [("footer", form, 46 * k + at) for k in (0, 2, 4) for form, at in FIELDS.values()]
    + [("footer", form, 46 * 5 + at) for form, at in (("<I", 0), ("<Q", 4), ("<Q", 12), ("<Q", 20))]
)


@pytest.mark.parametrize(("part", "form", "at"), PLACES)
def test_huge_sizes_are_refused_before_anything_is_allocated(part, form, at):
    for value in {v & (256 ** struct.calcsize(form) - 1) for v in HUGE} - {0}:
        bad = resealed(part, setting(form, at, value))

        def attempt(bad: bytes = bad) -> None:
            with pytest.raises(CodingError):
                read(bad)
            try:
                found = rescued(bad)
            except CodingError:
                assert part == "start"
            else:
                assert found.items() <= EVERYTHING.items()
            if part != "start":
                for info in opened(bad[:-1], salvage=True).infos():
                    assert info.number < MAX_CHUNKS
                    assert info.coder < 2
                    assert info.count <= MAX_CHUNK_ITEMS
                    assert max(info.raw_size, info.coded_size) <= MAX_CHUNK_SIZE

        assert memory_of(attempt) < 2**20


def test_a_chunk_may_state_the_maximum_but_allocates_what_the_file_has(tmp_path):
    """A well-formed file of one chunk that ends too early. A real file, since those allocate before they read."""
    file = io.BytesIO()
    write_container(file, HEADER, [Chunk(STORED, MAX_CHUNK_ITEMS, b"abc", MAX_CHUNK_SIZE, bytes(8))])
    content = bytearray(file.getvalue())
    at = regions(bytes(content))["chunk 0"].start
    struct.pack_into("<Q", content, at + 4 + 26, MAX_CHUNK_SIZE)
    content[at + 50 : at + 54] = struct.pack("<I", zlib.crc32(content[30:38] + content[at : at + 50]))

    path = tmp_path / "data.unsup"
    path.write_bytes(content[:-1])

    def attempt() -> None:
        with Container.open(path, salvage=True) as found, memory.within(2**40):
            assert found.info(0).coded_size == MAX_CHUNK_SIZE
            with pytest.raises(CorruptChunk, match=r"of its 1,073,741,824 bytes are left"):
                found.chunk(0)

    assert memory_of(attempt) < 2**20


def test_a_chunk_larger_than_memory_is_refused():
    file = opened(written([(1, b"\0" * 3000)]))
    with memory.within(5000), pytest.raises(InputError, match=r"chunk 0 has .* raise --max-memory"):
        file.chunk(0)
    with memory.within(6000):
        assert file.chunk(0) == b"\0" * 3000


@settings(deadline=None, max_examples=500)
@given(
    part=st.sampled_from(sorted(set(regions(written())) - {"header"})),
    at=st.integers(0, 300),
    value=st.sampled_from((0, 1, 2, 5, 54, 100, 2**20, 2**30, 2**63)) | st.integers(0, 2**64 - 1),
    form=st.sampled_from(("<B", "<H", "<I", "<Q")),
)
def test_forged_metadata_end_in_an_error_or_in_the_limits(part, at, value, form):
    """Not data: a forged file may contain anything. But nothing else than an error of this module is raised."""
    where = regions(written())[part]
    at = min(at, len(where) - 8)
    bad = resealed(part, setting(form, at, value & (256 ** struct.calcsize(form) - 1)))
    for salvage in (False, True):
        try:
            file = opened(bad, salvage=salvage)
        except CodingError:
            continue
        assert file.chunks <= MAX_CHUNKS
        for info in file.infos():
            assert info.raw_size <= MAX_CHUNK_SIZE
            with suppress(CorruptChunk):
                assert len(file.chunk(info.number)) == info.coded_size
        for item in range(min(file.items, 20)):
            try:
                number, position = file.locate(item)
            except CorruptChunk:
                continue
            assert file.info(number).items[position] == item


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "should be a mapping"),
        (b'{"writer":1}', "has no|should be"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nested"),
        (b'{"a":1,"a":1}', "twice"),
        (b'{"a":NaN}', "not finite"),
        (b'{"a":1e999}', "not finite"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a":' + str(2**64).encode() + b"}", "maximum is 18446744073709551615"),
        (b'{"a": 1}', "not canonical"),
        (b'{"b":1,"a":1}', "not canonical"),
        (b'{"a":1.00}', "not canonical"),
        ('{"a":"ü"}'.encode(), "not canonical"),
        (b'{"a":"\\ud800"}', "not valid text"),
        (b'{"\xff":1}', "not canonical|not valid"),
    ],
)
def test_forged_headers_are_refused(text, reason):
    prefix = struct.pack("<8s2H3HIII", MAGIC, 1, 0, *NEEDED, 0, 0, len(text))
    identity = digest(prefix + text)
    packed = struct.pack("<IQQQ", 0, 0, 0, 0)
    content = prefix + identity + struct.pack("<I", zlib.crc32(prefix + identity)) + text
    content += packed + digest(identity + packed) + END

    def attempt() -> None:
        with pytest.raises(DamagedFile, match=f"its header is not valid: .*({reason})"):
            opened(content)

    assert memory_of(attempt) < 2**24


def test_a_large_header_is_not_read():
    content = bytearray(written([])[:42]) + bytes(2**21)
    struct.pack_into("<I", content, 26, MAX_HEADER + 1)
    struct.pack_into("<I", content, 38, zlib.crc32(content[:38]))
    with pytest.raises(DamagedFile, match="a header of 1,048,577 bytes; the maximum is 1,048,576"):
        opened(bytes(content))


def test_a_header_of_the_maximum_size_is_read_and_a_larger_one_refused():
    size = len(written([], HEADER | {"items": {"a": ""}})) - 42 - 44
    content = written([], HEADER | {"items": {"a": "x" * (MAX_HEADER - size)}})
    assert opened(content).header["items"]["a"].startswith("xxx")
    with pytest.raises(InputError, match=r"1,048,577 bytes; the maximum is 1,048,576; store large parts as a chunk"):
        written([], HEADER | {"items": {"a": "x" * (MAX_HEADER - size + 1)}})


@pytest.mark.parametrize(
    "change",
    [
        {"items": {"a": float("nan")}},
        {"items": {"a": 2**64}},
        {"items": {"a": (1, 2)}},
        {"items": {"a": b""}},
        {"items": {1: 2}},
        {"items": None},
        {"coders": [{"name": "stored"}]},
        {"coders": [{"name": "stored", "version": 0}]},
        {"coders": [{"name": "stored", "version": True}]},
        {"model": {"name": "made"}},
        {"environment": {"torch": 2}},
    ],
)
def test_headers_that_could_not_be_read_back_are_not_written(change):
    with pytest.raises(InputError, match="the header of a compressed file"):
        written([], HEADER | change)


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        (Chunk.of(2, 1, b"", b""), "coder=2; the maximum is 1"),
        (Chunk.of(0, -1, b"", b""), "items=-1"),
        (Chunk.of(0, MAX_CHUNK_ITEMS + 1, b"", b""), "items=16777217; the maximum is 16777216"),
        (Chunk(0, 1, b"", MAX_CHUNK_SIZE + 1, bytes(8)), "decoded bytes=1073741825"),
        (Chunk(0, 1, b"", 1, bytes(16)), "its hash has 16 bytes"),
    ],
)
def test_chunks_that_could_not_be_read_back_are_not_written(chunk, reason):
    with pytest.raises(InputError, match=f"chunk 0 cannot be written: {reason}"):
        write_container(io.BytesIO(), HEADER, [chunk])


def test_a_search_for_chunks_takes_linear_time():
    """Bytes read to open a file that consists of marks, or of chunks that state to be large."""
    parts, start = regions(written()), written()[: regions(written())["chunk 0"].start]
    one = bytearray(written()[parts["chunk 0"].start :][:54])
    struct.pack_into("<Q", one, 4 + 26, MAX_CHUNK_SIZE)
    many = b""
    for number in range(300):
        struct.pack_into("<I", one, 4, number)
        struct.pack_into("<I", one, 50, zlib.crc32(start[30:38] + one[:50]))
        many += one
    for body in (MARK * 4000, many):
        source = Watched(start + body)
        Container(source, "data.unsup", salvage=True)
        assert sum(map(len, source.seen)) < 20 * len(body) + 2**22


# --- files and errors -------------------------------------------------------------------------------------------------


def test_files_are_opened_and_closed(tmp_path):
    path = tmp_path / "data.unsup"
    path.write_bytes(written())
    with Container.open(str(path)) as file:
        assert decode(file, 4) == RAW[4][1]
    with pytest.raises(ValueError, match="closed"):
        file.chunk(0)
    path.write_bytes(written()[:-1])
    with Container.open(path, salvage=True) as file:
        assert file.chunks == 5
    with pytest.raises(TruncatedFile, match=str(path)):
        Container.open(path)
    for missing in (tmp_path, tmp_path / "no"):
        with pytest.raises(InputError, match="there is no file"):
            Container.open(missing)


@pytest.mark.parametrize(
    "error",
    [
        NotOurFile("a", b"PNG"),
        UnsupportedVersion("a", "format 2.0", "0.4.0", "0.1.0"),
        UnknownModel("a", "made 1f", None),
        UnknownModel("a", "made 1f", "vae 33"),
        EnvironmentMismatch("a", "torch 1", "torch 2"),
        DamagedFile("a", "why"),
        TruncatedFile("a", "why", "how"),
        CorruptChunk("a", 3, "why"),
        DecodedHashMismatch("a", 3, "this", "that"),
    ],
)
def test_errors_are_one_line_and_reach_other_processes(error):
    assert isinstance(error, CodingError)
    assert error.exit_status == 2
    assert ";" in str(error)
    assert "\n" not in str(error)
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))
