"""Files come back: names, order, pixels, arrays and bytes; damage loses only what it hits."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unsup
from unsup.coding.archive import Archive
from unsup.coding.chunks import ChunkCoder
from unsup.coding.container import Container
from unsup.coding.errors import CodingError, CorruptChunk
from unsup.coding.packing import Source, sources_of, write_archive
from unsup.coding.records import _ranges, expanded, shortened
from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.core.model import Model

GREY = Event((1, 6, 5), Support("ordinal", 256), "image")
COLOUR = Event((3, 6, 5), Support("ordinal", 256), "image")
BLACK = Event((1, 6, 5), Support("binary"), "image")


@pytest.fixture(scope="module")
def made() -> Model:
    return unsup.create("made", GREY, preset="tiny", seed=0)


def pixels(n: int, event: Event = GREY, seed: int = 0) -> np.ndarray:
    top = 2 if event is BLACK else 256
    return np.random.default_rng(seed).integers(0, top, (n, *event.shape), dtype=np.uint8)


def packed(model: Model, paths: list[Path], **options: bool) -> bytes:
    file = io.BytesIO()
    write_archive(file, model, ChunkCoder(model), sources_of(paths), **options)
    return file.getvalue()


def opened(data: bytes, **options: bool) -> Archive:
    return Archive(Container(io.BytesIO(data), "it", salvage=options.get("keep_going", False)), **options)


def restored(model: Model, data: bytes, out: Path) -> None:
    archive = opened(data)
    archive.restore(out, archive.coder(model))


def checked(model: Model, data: bytes) -> None:
    archive = opened(data)
    archive.digests(archive.coder(model))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def images(folder: Path) -> dict[str, np.ndarray]:
    return {str(p.relative_to(folder)): np.array(Image.open(p)) for p in folder.rglob("*") if p.is_file()}


def test_a_folder_of_everything_comes_back(made: Model, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep" / "er").mkdir(parents=True)
    for i, x in enumerate(pixels(12)):
        Image.fromarray(x[0]).save(folder / f"p{i + 95:03d}{('.png', '.bmp', '.tif')[i % 3]}")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "other size.png")
    Image.fromarray(np.moveaxis(pixels(1, COLOUR)[0], 0, -1)).save(folder / "deep" / "colour.png")
    Image.fromarray(pixels(1)[0, 0]).save(folder / "deep" / "photo.jpg")
    (folder / "deep" / "er" / "notes.txt").write_bytes(b"a\r\n\xff\x00" * 100)
    (folder / "empty").write_bytes(b"")
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    (folder / ".hidden").write_bytes(b"x")
    np.save(folder / "many.npy", pixels(50))
    np.save(folder / "last.npy", np.moveaxis(pixels(7), 1, -1))
    np.save(folder / "none.npy", pixels(7)[:, 0])
    np.save(folder / "floats.npy", np.array([[[[np.nan, -0.0, np.inf, 3.5, 7]] * 6]] * 3, np.float32))
    np.save(folder / "fortran.npy", np.asfortranarray(pixels(9)))
    np.save(folder / "big-endian.npy", pixels(9).astype(">i4"))
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(folder / "rows.npy", np.arange(12.0))
    data = packed(made, [folder])
    archive = opened(data)
    written = archive.restore(tmp_path / "out", archive.coder(made))
    before, after = content(folder), content(tmp_path / "out")
    assert sorted(written) == sorted(before) == sorted(after)
    kept = {name for name in before if before[name] == after[name]}
    rewritten = before.keys() - kept
    assert all(Path(name).suffix in (".png", ".bmp", ".tif") for name in rewritten)
    for name in rewritten:
        np.testing.assert_array_equal(
            np.array(Image.open(folder / name)), np.array(Image.open(tmp_path / "out" / name))
        )
    whole = opened(packed(made, [folder], whole_files=True))
    whole.restore(tmp_path / "whole", whole.coder(made))
    assert content(tmp_path / "whole") == before


@pytest.mark.parametrize("event", [GREY, COLOUR, BLACK], ids=["grey", "colour", "black and white"])
def test_pixels_go_through_the_model(event: Event, tmp_path: Path) -> None:
    model = unsup.create("made", event, preset="tiny", seed=0)
    folder = tmp_path / "in"
    folder.mkdir()
    x = pixels(40, event) * (255 if event is BLACK else 1)
    for i, one in enumerate(x):
        one = one[0] if len(one) == 1 else np.moveaxis(one, 0, -1)
        Image.fromarray(one).save(folder / f"{i}.png")
    if event is COLOUR:
        Image.fromarray(x[0, 0]).save(folder / "grey.png")
    archive = opened(packed(model, [folder]))
    assert [group.layout.kind for group in archive.groups] == ["images"] * (2 if event is COLOUR else 1)
    archive.restore(tmp_path / "out", archive.coder(model))
    before, after = images(folder), images(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) and before[name].shape == after[name].shape for name in before)


def test_palettes_and_bits_are_kept_as_they_are(made: Model, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i, x in enumerate(pixels(30)):
        Image.fromarray(x[0]).convert("P").save(folder / f"p{i}.png")
        Image.fromarray(x[0]).convert("1").save(folder / f"b{i}.png")
    archive = opened(packed(made, [folder]))
    archive.restore(tmp_path / "out", None)
    assert content(tmp_path / "out") == content(folder)


def test_a_restore_that_fails_leaves_nothing(made: Model, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "a.npy", pixels(50))
    np.save(folder / "b.npy", pixels(50, seed=1))
    data = bytearray(packed(made, [folder]))
    container = Container(io.BytesIO(bytes(data)), "it")
    data[container._offsets[3] + 54] ^= 1  # the examples of the second array
    with pytest.raises(CodingError):
        restored(made, bytes(data), tmp_path / "out")
    assert content(tmp_path / "out") == {}


def test_some_items_only(made: Model, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    x = pixels(20_000)
    np.save(folder / "a.npy", x)
    for i, one in enumerate(pixels(5)):
        Image.fromarray(one[0]).save(folder / f"b{i}.png")
    (folder / "c.txt").write_text("c")
    archive = opened(packed(made, [folder]))
    assert archive.items == 20_006
    assert archive.restore(tmp_path / "one", archive.coder(made), only=range(16_380, 16_390)) == ["a.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "one" / "a.npy"), x[16_380:16_390])
    assert archive.restore(tmp_path / "two", archive.coder(made), only=range(19_999, 20_002)) == [
        "a.npy",
        "b0.png",
        "b1.png",
    ]
    np.testing.assert_array_equal(np.load(tmp_path / "two" / "a.npy"), x[19_999:])
    assert archive.restore(tmp_path / "three", None, only=range(20_005, 20_006)) == ["c.txt"]


def test_nothing_is_overwritten(made: Model, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(name)
    archive = opened(packed(made, [folder]))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        archive.restore(tmp_path / "out", None)
    assert content(tmp_path / "out") == {"b": b"mine"}


def test_the_size_never_grows_much(made: Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(30):
        Image.fromarray(rng.integers(0, 256, (6, 5), dtype=np.uint8)).save(folder / f"{i}.png")
    np.save(folder / "noise.npy", rng.integers(0, 256, (20_000, 1, 6, 5), dtype=np.uint8))
    (folder / "random").write_bytes(rng.bytes(10_000_000))
    size = sum(map(len, content(folder).values()))
    data = packed(made, [folder])
    assert len(data) <= 1.01 * size + 1000
    archive = opened(data)
    archive.restore(tmp_path / "out", archive.coder(made))
    assert (tmp_path / "out" / "random").read_bytes() == (folder / "random").read_bytes()


def test_damage_loses_only_what_it_hits(made: Model, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    x = pixels(40_000)
    np.save(folder / "a.npy", x)
    for i, one in enumerate(pixels(50, seed=3)):
        Image.fromarray(one[0]).save(folder / f"b{i}.png")
    (folder / "c.txt").write_text("c")
    data = packed(made, [folder])
    container = Container(io.BytesIO(data), "it")
    for number in range(container.chunks):
        damaged = bytearray(data)
        damaged[container._offsets[number] + 54] ^= 4
        with pytest.raises(CodingError):
            checked(made, bytes(damaged))
        if number < container.chunks - 1:
            with pytest.raises(CodingError):
                restored(made, bytes(damaged), tmp_path / f"no {number}")
        archive = opened(bytes(damaged), keep_going=True)
        out = tmp_path / str(number)
        archive.restore(out, archive.coder(made))
        found, before = content(out), content(folder)
        assert found
        if number in (1, 2, 3):  # of the array
            others = {
                f"a.rows-{k}-{min(k + 16384, 40_000)}.npy" for k in range(0, 40_000, 16384) if k // 16384 != number - 1
            }
            assert {name for name in found if ".rows-" in name} == others
        if not archive.lost:  # a record, of which there is a copy
            assert container.info(number).count == 0
            assert found.keys() == before.keys()
        assert all(isinstance(lost.error, CorruptChunk) for lost in archive.lost)
        for name in found:
            if name in before and not name.endswith(".png"):
                assert found[name] == before[name]
            elif ".rows-" in name:
                start, stop = map(int, Path(name).stem.split("-")[1:])
                np.testing.assert_array_equal(np.load(out / name), x[start:stop])
    cut = opened(data[: int(0.9 * len(data))], keep_going=True)
    cut.restore(tmp_path / "cut", cut.coder(made))
    assert content(tmp_path / "cut")


def test_names_cannot_leave_the_folder(made: Model, tmp_path: Path) -> None:
    for name in ("../a", "/etc/a", "a/../../b", "", ".", "a//b", "a\0b"):
        file = io.BytesIO()
        (tmp_path / "x").write_text("x")
        write_archive(file, made, ChunkCoder(made), [Source(name, tmp_path / "x")])
        with pytest.raises(CodingError, match="leads out of the folder"):
            opened(file.getvalue())


def test_names_that_are_no_text(made: Model, tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff\n.txt")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_text("x")
    archive = opened(packed(made, [folder]))
    archive.restore(tmp_path / "out", None)
    assert content(tmp_path / "out") == {name: b"x"}


def test_short_names() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        names = [f"{rng.choice(['a', 'a/b7-', ''])}{rng.integers(0, 12):0{rng.integers(1, 4)}d}.x" for _ in range(20)]
        names += [f"{i:04d}.png" for i in range(95, 105)]
        entries = json.loads(json.dumps(shortened(names)))
        assert [name for entry in entries for name in expanded(entry)] == names
    assert len(shortened([f"{i:04d}.png" for i in range(10_000)])) == 1
    assert _ranges([0, 1, 2, 5, 7, 8]) == [[0, 3], [5, 1], [7, 2]]


def test_many_small_files_are_fast_and_small(made: Model, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3000):
        (folder / f"{i:05d}.txt").write_bytes(b"%d" % i)
    started = time.monotonic()
    data = packed(made, [folder])
    assert time.monotonic() - started < 5
    assert len(data) < 13_000


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        sources_of([tmp_path / "none"])
    with pytest.raises(InputError, match="no files"):
        sources_of([tmp_path])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("x")
    assert [source.name for source in sources_of([tmp_path / "a", tmp_path / "b"])] == ["a/x", "b/x"]
    with pytest.raises(InputError, match="two files"):
        sources_of([tmp_path / "a" / "x", tmp_path / "b" / "x"])
