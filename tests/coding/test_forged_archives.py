"""Damaged and forged archives: an error of one line or the right files; nothing is written outside or overwritten.

Run with ``-rP`` to see the counts by outcome.
"""

from __future__ import annotations

import base64
import collections
import copy
import functools
import io
import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import forging_archives
import pytest
from forging import Sealed, damaged, outcome
from forging_archives import NAMES, Files, Reader, records, with_raw, with_record

from unsup.coding import archive, chunks, compress, decompress
from unsup.coding.archive import Archive
from unsup.coding.autoregressive import EntryByEntry
from unsup.coding.container import Container
from unsup.coding.errors import CodingError, CorruptChunk, UnsupportedVersion
from unsup.coding.packing import sources_of
from unsup.coding.records import checked_name, conflicts
from unsup.core import memory
from unsup.core.errors import InputError

SLOW = (pytest.mark.slow, pytest.mark.timeout(3600))


@functools.cache
def reader_of(name: str) -> Reader:
    return Reader(name)


@pytest.fixture(params=NAMES)
def reader(request: pytest.FixtureRequest) -> Reader:
    return reader_of(request.param)


@pytest.fixture
def images() -> Reader:
    return reader_of("images")


@pytest.fixture
def table() -> Reader:
    return reader_of("table")


def report(what: str, counts: collections.Counter[str]) -> None:
    print(f"{what}: {counts.total():,}: {dict(counts.most_common())}")


# --- accidents --------------------------------------------------------------------------------------------------------


class Parts:
    """Where the chunks of a golden archive are, and which files each one holds a part of.

    Attributes:
        ends: end of each chunk.
        starts: start of the coded bytes of each chunk.
        of: files of each chunk; none for records, and None for chunks from which a group would not be known.
        groups: first and last chunk of each group with its files.
    """

    def __init__(self, reader: Reader) -> None:
        self.starts, self.ends, offset = [], [], forging.start_of_chunks(reader.content)
        for _, coded in Sealed.of(reader.content).chunks:
            self.starts.append(offset + 54)
            offset += 54 + len(coded)
            self.ends.append(offset)
        with Container(io.BytesIO(reader.content), "it") as file:
            groups = Archive(file).groups
        self.groups = [(group.first - 1, group.first + group.chunks - 1, set(group.names)) for group in groups]
        self.empty = {name for name, content in reader.files.items() if not content}

    def hit(self, place: int) -> set[str]:
        """The files that are lost if a byte is changed."""
        for start, end, number in zip(self.starts, self.ends, range(len(self.ends)), strict=True):
            if start <= place < end:
                return next((names for a, b, names in self.groups if a < number <= b), set()) - self.empty
        return set()

    def complete(self, size: int) -> tuple[set[str], set[str]]:
        """The files whose chunks are complete in so many bytes, and those of which the names are known at least."""
        known = [(b, names) for a, b, names in self.groups if self.ends[a] <= size]
        whole = [names if self.ends[b] <= size else names & self.empty for b, names in known]
        return set().union(*whole), set().union(*(names for _, names in known))


def recovered(reader: Reader, data: bytes) -> tuple[Files, set[str]]:
    found, lost = reader.restored(data, keep_going=True)
    assert found.items() <= reader.files.items()  # nothing wrong
    return found, {name.partition(" rows ")[0] for name in lost}


@pytest.mark.parametrize("every", [61, pytest.param(1, marks=SLOW)])
def test_every_truncation_is_found_and_complete_files_survive(reader: Reader, every: int) -> None:
    parts, counts = Parts(reader), collections.Counter[str]()
    body = forging.start_of_chunks(reader.content)
    for size in range(len(reader.content)):
        counts[outcome(reader.checked, reader.content[:size])] += 1
        if size >= body and size % every == 0:
            found, lost = recovered(reader, reader.content[:size])
            whole, known = parts.complete(size)
            assert set(found) == whole
            assert lost == known - whole
    assert counts == {"TruncatedFile": len(reader.content)}
    report("truncations", counts)


@pytest.mark.parametrize(("every", "salvaged"), [(29, 31), pytest.param(1, 1, marks=SLOW)])
def test_every_flipped_bit_is_found_and_the_other_files_survive(reader: Reader, every: int, salvaged: int) -> None:
    parts, counts, content = Parts(reader), collections.Counter[str](), reader.content
    body = forging.start_of_chunks(content)
    for k, bit in enumerate(range(0, 8 * len(content), every)):
        bad = bytearray(content)
        bad[bit // 8] ^= 1 << bit % 8
        counts[outcome(reader.checked, bytes(bad))] += 1
        if bit // 8 >= body and k % salvaged == 0:
            found, lost = recovered(reader, bytes(bad))
            assert lost == parts.hit(bit // 8)
            assert set(found) == set(reader.files) - lost
    assert set(counts) <= {"CorruptChunk", "DamagedFile", "TruncatedFile", "NotOurFile"}
    report("flipped bits", counts)


@pytest.mark.parametrize("times", [60, pytest.param(10_000, marks=SLOW)])
def test_mutations_never_give_wrong_files(reader: Reader, times: int) -> None:
    draw, counts = random.Random(times), collections.Counter[str]()
    other = (forging_archives.GOLDEN / f"{NAMES[NAMES.index('images') - 1]}.unsup").read_bytes()
    body = forging.start_of_chunks(reader.content)
    for k in range(times):
        bad = damaged(reader.content, draw, body, other)[1]
        counts[outcome(reader.checked, bad)] += 1
        if k % 4 == 0:
            recovered(reader, bad)
    assert set(counts) <= {"CorruptChunk", "DamagedFile", "TruncatedFile"}
    report("mutations", counts)


def test_a_lost_record_and_lost_copies_cost_one_group(reader: Reader) -> None:
    parts = Parts(reader)
    for first, _, names in parts.groups:
        bad = bytearray(reader.content)
        for number in (first, len(parts.ends) - 1):
            bad[parts.starts[number]] ^= 1
        found, _ = recovered(reader, bytes(bad))
        assert set(found) == set(reader.files) - names


# --- forged archives --------------------------------------------------------------------------------------------------


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures memory as on Linux")
@pytest.mark.parametrize(
    ("name", "times"), [("images", 25), ("table", 40), *(pytest.param(name, 5_000, marks=SLOW) for name in NAMES)]
)
def test_forged_archives_give_an_error_or_files(name: str, times: int) -> None:
    """With limited memory, in a process of its own."""
    words = [sys.executable, forging_archives.__file__, name, str(times), str(times)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    print(f"forged archives of {name}: {times:,}: {found}")
    assert found["outcomes"]["CorruptChunk"] > times / 5
    assert found["outcomes"]["decoded"] > times / 50
    assert found["slowest"] < 20
    assert found["MB"] < 400


def changed(reader: Reader, kind: str, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The golden archive with a change of the first record of a kind of files."""
    file = Sealed.of(reader.content)
    for place, record in records(file).items():
        if record.get("layout", {}).get("kind") == kind:
            change(record)
            return with_record(file, place, record).to_bytes()
    raise AssertionError(kind)


def refused(reader: Reader, data: bytes, reason: str) -> None:
    with pytest.raises(CodingError, match=reason) as caught:
        reader.restored(data)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    found, _ = reader.restored(data, keep_going=True)  # with the copy
    assert found.items() <= reader.files.items()


BASE = base64.b64encode
OUTSIDE = ("../x", "/x", "a/../../x", "a/./b", "a//b", "a/", "", ".", "..", "a\0b", "\0" + BASE(b"../x").decode())


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_are_refused(name: str, images: Reader) -> None:
    def change(record: dict[str, Any]) -> None:
        record["names"][0] = name

    refused(images, changed(images, "bytes", change), "leads out of the folder")
    refused(images, changed(images, "array", change), "leads out of the folder")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("\0!", "not base 64"),
        ("\0é", "not base 64"),
        ("x" * 5000, "5,000 characters"),
        ("a/" * 256 + "b", "257 parts"),
        ("a095.png", "name of another file"),
        ("a095.png/x", "name of another file"),
        ("more", "name of another file"),
        (["x", 0, 3, "", 2**62], "names"),
        (["x", 0, 3, "", 2**18 + 1], "names"),
        (["x", 0, 16, "", 1], "the names"),
        (["x" * 5000, 0, 3, "", 0], "the names"),
        (["x", -1, 3, "", 1], "should be"),
        (["../", 0, 3, "", 1], "leads out"),
        (["a", 95, 3, ".png", 1], "name of another file"),
        (["x", 0, 1, "", 0], "names"),
        (["x", 0, 1, ""], "should be"),
        (7, "should be"),
        ({}, "should be"),
        (None, "should be"),
    ],
)
def test_entries_of_names_are_checked(entry: Any, reason: str, images: Reader) -> None:
    def change(record: dict[str, Any]) -> None:
        record["names"][0] = entry

    refused(images, changed(images, "bytes", change), reason)


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("array", {"chunks": 2}, "2 chunks"),
        ("array", {"chunks": 0}, "0 chunks"),
        ("array", {"chunks": 2**62, "block": 1, "sizes": [2**62]}, "chunks"),
        ("array", {"chunks": -1}, "should be"),
        ("array", {"block": 0}, "should be"),
        ("array", {"block": 2**40}, "entries of a chunk"),
        ("array", {"block": 29}, "1 chunks of 29"),
        ("array", {"sizes": [29]}, "it has 30 examples, expected 29"),
        ("array", {"sizes": [31], "block": 31}, "it has 30 examples, expected 31"),
        ("array", {"sizes": []}, "0 sizes"),
        ("array", {"sizes": [30, 0]}, "2 sizes"),
        ("array", {"sizes": [15, 15], "names": ["x", "y"], "places": [[42, 2]]}, "2 files of the kind array"),
        ("array", {"places": [[0, 1]]}, "number of another"),
        ("array", {"places": [[70, 1]]}, "one with the number 70"),
        ("array", {"places": [[2**62, 1]]}, "places from"),
        ("array", {"places": [[-1, 1]]}, "should be"),
        ("array", {"places": [[42, 2**62]]}, "places from"),
        ("array", {"places": [[42, 1]] * 1000}, "places from"),
        ("array", {"places": []}, "0 numbers"),
        ("array", {"names": []}, "0 names|places from"),
        ("images", {"sizes": [1] * 40}, "40 sizes"),
        ("images", {"names": [["a", 95, 3, ".png", 39], "x", "y"]}, "41 names|places from"),
        ("images", {"chunks": 2, "block": 20}, "2 chunks"),
        ("bytes", {"sizes": None}, "should be a list"),
        ("bytes", {"block": 2**31}, "entries of a chunk"),
        ("bytes", {"sizes": [2**62] * 4}, "chunks"),
    ],
)
def test_numbers_of_records_fit_together(kind: str, changes: dict[str, Any], reason: str, images: Reader) -> None:
    refused(images, changed(images, kind, lambda record: record.update(changes)), reason)


def test_sizes_that_do_not_add_up_to_the_data(images: Reader) -> None:
    for more in (-1, 1):

        def change(record: dict[str, Any], more: int = more) -> None:
            record["sizes"][-1] += more

        refused(images, changed(images, "bytes", change), "bytes, expected")
    refused(images, changed(images, "bytes", lambda record: record.pop("sizes")), "0 sizes")


HEAD = BASE(b"\x93NUMPY\1\0").decode()


@pytest.mark.parametrize(
    ("kind", "layout", "reason"),
    [
        ("images", {"suffix": ".bmp", "depth": "uint16"}, "do not fit .bmp images"),
        ("images", {"grey": True}, "do not fit .png images"),
        ("images", {"depth": "uint16"}, "bytes, not"),
        ("images", {"suffix": ".exe"}, "should be one of"),
        ("images", {"factor": 7}, "should be one of"),
        ("images", {"kind": "bytes"}, "files|no field"),
        ("images", {"kind": "array", "type": "uint8", "axes": "same", "head": HEAD}, "no field"),
        ("images", {"kind": []}, "files of the kind"),
        ("images", {"kind": "sound"}, "files of the kind 'sound', which this version does not know"),
        ("array", {"type": "float64"}, "bytes, not"),
        ("array", {"type": "complex64"}, "should be one of"),
        ("array", {"axes": "none", "head": "!"}, "in base 64"),
        ("array", {"head": "é" * 8}, "in base 64"),
        ("array", {"head": "AAAA"}, "start of an .npy file"),
        ("array", {"head": HEAD * 10_000}, "should be the start of an .npy file"),
        ("array", {"new": 1}, "no field"),
    ],
)
def test_layouts_fit_the_chunks_and_the_event(kind: str, layout: dict[str, Any], reason: str, images: Reader) -> None:
    refused(images, changed(images, kind, lambda record: record["layout"].update(layout)), reason)


def test_layouts_of_other_events_are_refused(images: Reader, table: Reader) -> None:
    image = {"kind": "images", "suffix": ".png", "depth": "uint8", "factor": 1, "grey": False}
    own = {"layout": image, "chunks": 1, "block": 1, "names": ["x"], "places": [[0, 1]]}
    for reader in (images, table):
        for axes in ("last", "none", "same"):
            array = {"kind": "array", "type": "float32", "axes": axes, "head": HEAD}
            for record in (
                own,
                own | {"layout": array, "sizes": [1]},
                own | {"layout": layout_of(table), "sizes": [1]},
            ):
                data = with_record(Sealed.of(reader.content), 0, record).to_bytes()
                assert outcome(reader.restored, data) in ("CorruptChunk", "CodingError")


def layout_of(table: Reader) -> dict[str, Any]:
    found = next(r["layout"] for r in records(Sealed.of(table.content)).values() if "layout" in r)
    return dict(found)


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        ({"separator": ""}, "wrong separator"),
        ({"separator": "\n"}, "wrong separator"),
        ({"separator": '"'}, "wrong separator"),
        ({"separator": ";;"}, "wrong separator"),
        ({"header": ["a"]}, "wrong header"),
        ({"width": 2**62}, "wrong header"),
        ({"width": 2**62, "header": []}, "not those of"),
        ({"width": 2}, "wrong"),
        ({"places": [0, 1, 2]}, "wrong places"),
        ({"places": [0, 1, 2, 2]}, "wrong places"),
        ({"places": [0, 1, 2, -1]}, "wrong places"),
        ({"places": [0, 1, 2, 2**62]}, "wrong places"),
        ({"columns": []}, "wrong"),
        ({"gaps": []}, "wrong gaps"),
        ({"gaps": ["\udce9"] * 4}, "not text"),
        ({"header": ["\udce9"] * 5}, "not text"),
        ({"type": "int64"}, "bytes, not"),
        ({"newline": "\r"}, "should be one of"),
    ],
)
def test_layouts_of_tables_are_checked(layout: dict[str, Any], reason: str, table: Reader) -> None:
    refused(table, changed(table, "table", lambda record: record["layout"].update(layout)), reason)


def test_long_words_take_no_memory(table: Reader) -> None:
    data = changed(table, "table", lambda record: record["layout"]["columns"][0].update(words=["x" * 10**6] * 3))
    with memory.within(2**24):
        refused(table, data, "characters, more than fit into the memory")


@pytest.mark.parametrize(
    ("column", "number", "reason"),
    [
        ({"words": []}, 0, "do not fit the words of column"),
        ({"words": ["\udce9"] * 3}, 0, "not text"),
        ({"kind": "words"}, 1, "do not fit the words of column"),
        ({"decimals": -1}, 2, "wrong columns"),
        ({"decimals": 10**9}, 2, "wrong columns"),
        ({"notation": {"width": 10**9}}, 2, "wrong columns"),
        ({"notation": {"before": "x" * 10**6}}, 2, "wrong columns"),
        ({"notation": {"thousands": ".." * 10**6}}, 2, "wrong columns"),
        ({"pattern": "%999999999d"}, 3, "wrong columns"),
        ({"pattern": "a\0"}, 3, "wrong columns"),
        ({"pattern": "%Y" * 1000}, 3, "wrong columns"),
        ({"kind": "sound"}, 3, "should be one of"),
    ],
)
def test_columns_of_tables_are_checked(column: dict[str, Any], number: int, reason: str, table: Reader) -> None:
    refused(table, changed(table, "table", lambda r: r["layout"]["columns"][number].update(column)), reason)


def test_cells_beside_the_model_are_checked(table: Reader) -> None:
    file = Sealed.of(table.content)
    ((place, cells),) = [(k, v) for k, v in records(file).items() if "odd" in v]
    rows = len(cells["other"][0])
    for changes, reason in (
        ({"other": []}, "columns beside the model"),
        ({"other": None}, "columns beside the model"),
        ({"other": [["x"]]}, "that have not"),
        ({"other": [[7] * rows]}, "not text"),
        ({"other": ["x" * rows]}, "not text"),
        ({"other": [["\udce9"] * rows]}, "not text"),
        ({"odd": None}, "columns beside the model"),
        ({"odd": [[0, rows, "x"]]}, "instead of a column"),
        ({"odd": [[0, -1, "x"]]}, "instead of a column"),
        ({"odd": [[-1, 0, "x"]]}, "instead of a column"),
        ({"odd": [[4, 0, "x"]]}, "instead of a column"),
        ({"odd": [[2**62, 2**62, "x"]]}, "instead of a column"),
        ({"odd": [[True, 0, "x"]]}, "instead of a column"),
        ({"odd": [[0.5, 0, "x"]]}, "instead of a column"),
        ({"odd": [[0, 0, 7]]}, "not text"),
        ({"odd": [[0, 0]]}, "instead of a column"),
        ({"odd": [7]}, "instead of a column"),
    ):
        with pytest.raises(CorruptChunk, match=reason):
            table.restored(with_record(file, place, cells | changes).to_bytes())
    for raw in (b"", b"[]", b"7", b"\xff", b"[" * 10**5):
        with pytest.raises(CorruptChunk):
            table.restored(with_raw(file, place, raw).to_bytes())


@pytest.mark.parametrize("copies", [None, 7, [[[], {}]], [[0]], [[0, 7]], [["x", {}]], [[2**70, {}]], [[0, {}]], {}])
def test_copies_of_records_are_checked(copies: Any, images: Reader) -> None:
    file = Sealed.of(images.content)
    file = with_raw(with_record(file, len(file.chunks) - 1, {"copies": copies}), 0, b"{")
    refused(images, file.to_bytes(), "not valid")
    _, lost = images.restored(file.to_bytes(), keep_going=True)
    assert not lost


def test_copies_must_be_last(images: Reader) -> None:
    file = Sealed.of(images.content)
    refused(images, with_record(file, 0, {"copies": []}).to_bytes(), "no 'layout'")
    refused(images, with_record(file, len(file.chunks) - 1, {}).to_bytes(), "no 'layout'")
    refused(images, file.with_chunks([]).to_bytes(), "no copies")
    refused(images, file.with_chunks(list(file.chunks[:-1])).to_bytes(), "no copies")


def test_a_small_archive_of_many_names_takes_no_memory(images: Reader) -> None:
    file = Sealed.of(images.content)
    names = [["x" * 4000, 0, 1, "", 2**18]]
    record = {"layout": {"kind": "bytes"}, "chunks": 0, "block": 1, "names": names, "places": [[0, 2**18]]}
    many = {**record, "names": [["x", 0, 1, "", 2**18]] * 1000, "sizes": []}
    repeated = {**record, "names": ["x"], "places": [[0, 2**60]] * 1000, "sizes": [0]}
    for bad in (record, many, repeated, {**record, "sizes": [0] * 2**18}):
        data = with_record(file, 0, bad).to_bytes()
        assert len(data) < 10_000
        tracemalloc.start()
        try:
            with memory.within(2**25), pytest.raises(CodingError), Container(io.BytesIO(data), "it") as opened:
                Archive(opened)
            assert tracemalloc.get_traced_memory()[1] < 2**26
        finally:
            tracemalloc.stop()


def test_records_larger_than_memory_are_refused(images: Reader) -> None:
    data = with_raw(Sealed.of(images.content), 0, b"[" + b"{}," * 10**6 + b"{}]").to_bytes()
    with memory.within(2**26), pytest.raises(CodingError, match="of memory available"):
        Archive(Container(io.BytesIO(data), "it"))


# --- folders ----------------------------------------------------------------------------------------------------------


def renamed(images: Reader, name: str, other: str = "plain") -> Archive:
    """An archive with these names of two files."""

    def change(record: dict[str, Any]) -> None:
        record["names"][:2] = [name, other]

    return Archive(Container(io.BytesIO(changed(images, "bytes", change)), "it"))


def test_links_out_of_the_folder_are_not_followed(images: Reader, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for link, target in (("link", "../elsewhere"), ("deep", ".."), ("lost", "../missing"), ("loop", "loop")):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        (out / link).symlink_to(target)
        with pytest.raises(InputError, match=r"by a link|cannot write"):
            renamed(images, f"{link}/x/y").restore(out, images.coder)
        with pytest.raises(InputError, match="exists"):
            renamed(images, link).restore(out, images.coder)
        (out / link).unlink()
        assert sorted(os.listdir(tmp_path)) == ["elsewhere", "out"]
        assert not os.listdir(tmp_path / "elsewhere")
    assert not [path for path in out.rglob("*") if path.is_file()] or link == "loop"


def test_links_within_the_folder_and_to_it_are_followed(images: Reader, tmp_path: Path) -> None:
    (tmp_path / "real" / "inside").mkdir(parents=True)
    (tmp_path / "out").symlink_to("real")
    (tmp_path / "real" / "link").symlink_to("inside")
    renamed(images, "link/x").restore(tmp_path / "out", images.coder)
    assert (tmp_path / "real" / "inside" / "x").is_file()


def test_files_that_appear_meanwhile_are_not_overwritten(
    images: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on systems where a and A are one file."""
    found = renamed(images, "a")
    write = archive._write

    def late(path: Path, parts: Any, is_image: bool) -> None:
        if path.name == "plain":
            path.write_text("mine")
        write(path, parts, is_image)

    monkeypatch.setattr(archive, "_write", late)
    with pytest.raises(InputError, match="exists"):
        found.restore(tmp_path, images.coder)
    assert (tmp_path / "plain").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_files_that_look_temporary_are_kept(images: Reader, tmp_path: Path) -> None:
    (tmp_path / ".a.tmp").write_text("mine")
    renamed(images, "a", "n" * 255).restore(tmp_path, images.coder)
    assert (tmp_path / ".a.tmp").read_text() == "mine"
    assert (tmp_path / ("n" * 255)).is_file()


def test_names_that_cannot_be_written_give_one_line(images: Reader, tmp_path: Path) -> None:
    for k, name in enumerate(("\x1b[2J" + "n" * 300, "deep/" * 200 + "n" * 300, "é" * 200)):
        with pytest.raises(InputError, match="cannot write") as caught:
            renamed(images, name).restore(tmp_path / str(k), images.coder)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500


def test_names_with_another_meaning_on_windows() -> None:
    for name in (
        "C:x",
        "C:/x",
        "a\\b",
        "\\\\host\\x",
        "CON",
        "a/nul.txt",
        "x.",
        "x ",
        "a/b./c",
        "x:stream",
        "a\x1fb",
        "a?",
    ):
        assert checked_name(name, windows=False) == name
        with pytest.raises(InputError, match="this system does not allow"):
            checked_name(name, windows=True)
    assert checked_name("a/b c.txt", windows=True) == "a/b c.txt"


def test_a_file_cannot_be_the_folder_of_another(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "a").write_text("x")
    (tmp_path / "a" / "x").write_text("x")
    with pytest.raises(InputError, match="'a' would be a file, and the folder of 'a/x'"):
        sources_of([tmp_path / "a", tmp_path / "b" / "a"])


def test_conflicts_are_those_of_pairs() -> None:
    draw = random.Random(0)
    for _ in range(300):
        names = ["/".join(draw.choice(("a", "b", "a-", "a.")) for _ in range(draw.randint(1, 3))) for _ in range(6)]
        clash = {
            frozenset((i, k))
            for i, one in enumerate(names)
            for k, two in enumerate(names)
            if i != k and (one == two or two.startswith(one + "/"))
        }
        found = {frozenset(pair) for pair in conflicts(names)}
        assert found <= clash
        bad = set[int]().union(*found)
        assert all(pair & bad for pair in clash)


def test_conflicts_between_groups_lose_only_these(images: Reader) -> None:
    file = Sealed.of(images.content)
    found = records(file)
    place = next(k for k, record in found.items() if record.get("layout", {}).get("kind") == "bytes")
    bad = copy.deepcopy(found[place])
    bad["names"][0] = "a100.png/x"
    restored, lost = images.restored(with_record(file, place, bad).to_bytes(), keep_going=True)
    groups = Parts(images).groups
    clash = {name for _, _, names in groups if "a100.png" in names or "notes.txt" in names for name in names}
    assert set(restored) == set(images.files) - clash
    assert clash - {"empty"} <= lost | {"empty"} | clash


def test_a_run_that_is_no_path_is_ignored(images: Reader) -> None:
    for run in (7, None, "a\0b", "x" * 5000, ["x"]):
        file = Sealed.of(images.content)
        header = json.loads(file.header)
        header["items"]["run"] = run
        text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        found = Archive(Container(io.BytesIO(replace(file, header=text).to_bytes()), "it"))
        assert found.run == ""


# --- versions ---------------------------------------------------------------------------------------------------------


class Newer(EntryByEntry):  # type: ignore[misc]
    version = 2


def test_older_schemes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = forging.Reader("made-binary")
    x = reader.decompress(reader.content)
    newer = tuple(Newer if scheme is EntryByEntry else scheme for scheme in chunks.SCHEMES)
    monkeypatch.setattr(chunks, "SCHEMES", newer)
    with pytest.raises(CodingError, match="coder entry by entry of version 1, which unsup"):
        decompress(reader.model, reader.content)
    monkeypatch.setattr(chunks, "OLDER", (EntryByEntry,))
    assert decompress(reader.model, reader.content).equal(x)
    new = compress(reader.model, x)
    with Container(io.BytesIO(new), "it") as file:
        assert file.header["coders"][0] == {"name": "entry by entry", "version": 2}
    assert decompress(reader.model, new).equal(x)
    monkeypatch.undo()
    with pytest.raises(CodingError, match="coder entry by entry of version 2, which unsup"):
        decompress(reader.model, new)
    monkeypatch.setattr("unsup.coding.container.NEEDED", (9, 0, 0))
    monkeypatch.setattr(chunks, "SCHEMES", newer)
    later = compress(reader.model, x)
    monkeypatch.undo()
    with pytest.raises(UnsupportedVersion, match="entry by entry of version 2, which needs unsup 9"):
        decompress(reader.model, later)


@pytest.mark.parametrize(
    ("place", "coder", "reason"),
    [
        (0, {"name": "bits back", "version": 1}, "was coded bits back, but the model"),
        (0, {"name": "x\n", "version": 1}, "the coder"),
        (1, {"name": "zstandard", "version": 2}, "zstandard of version 2"),
        (2, {"name": "stored", "version": 7}, "stored of version 7"),
    ],
)
def test_unknown_coders_are_refused(place: int, coder: dict[str, Any], reason: str, images: Reader) -> None:
    file = Sealed.of(images.content)
    header = json.loads(file.header)
    header["coders"][place] = coder
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    data = replace(file, header=text).to_bytes()
    with pytest.raises(CodingError, match=reason) as caught:
        images.restored(data)
    assert str(caught.value).isprintable()
