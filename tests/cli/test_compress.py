"""``unsup compress`` and ``decompress``: what is written, said and refused."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unsup
from unsup.cli.main import main
from unsup.coding import container, packing, records

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a MADE on digits, and digits as images and as an array."""
    folder = tmp_path_factory.mktemp("compress")
    digits = unsup.load_data("digits").test.x.numpy()
    (folder / "images").mkdir()
    for i, x in enumerate(digits[:60]):
        Image.fromarray(x[0]).save(folder / "images" / f"{i:03d}.png")
    np.save(folder / "digits.npy", digits)
    arguments = ["fit", "digits", "made", "-o", str(folder / "run"), "--preset", "tiny", "--steps", "100", "--plain"]
    assert main(arguments) == 0
    return folder


def test_files_come_back(place: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "d.unsup"
    done = call("compress", place / "run", place / "images", place / "digits.npy", "-o", out)
    assert done.status == 0
    assert re.search(r"61 files, [\d,]+ bytes → [\d,]+ bytes, \d+\.\d\d times smaller", done.out)
    assert "verified: decoded to the same data in another process" in done.out
    assert sorted(os.listdir(tmp_path)) == ["d.unsup"]
    assert call("decompress", out, "-o", tmp_path / "back").out == f"61 files of {out} in {tmp_path / 'back'}\n"
    assert (tmp_path / "back" / "digits.npy").read_bytes() == (place / "digits.npy").read_bytes()
    for name in os.listdir(place / "images"):
        one, two = (np.array(Image.open(p / "images" / name)) for p in (place, tmp_path / "back"))
        np.testing.assert_array_equal(one, two)


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of twelve words, a third of them missing."""
    path = tmp_path_factory.mktemp("gappy") / "t.csv"
    rng = np.random.default_rng(0)
    words = np.where(rng.random((2000, 12)) < 1 / 3, "", rng.choice(["red", "blue"], (2000, 12), p=[0.5, 0.5]))
    path.write_text("\n".join(["a,b,c,d,e,f,g,h,i,j,k,l", *map(",".join, words.tolist())]) + "\n")
    return path


def test_the_bits_of_gaps_are_told_apart_from_those_of_entries(gappy: Path, tmp_path: Path, call: Call) -> None:
    run = tmp_path / "run"
    assert call("fit", gappy, "bayes-net", "-o", run).status == 0
    done = call("compress", run, gappy, "-o", tmp_path / "t.unsup", "--no-verify", "--json")
    record = json.loads(done.out)
    there = sum(cell != "" for line in gappy.read_text().splitlines()[1:] for cell in line.split(","))
    assert record["entries"] == there
    entropy = -(math.log2(1 / 3) / 3 + math.log2(2 / 3) * 2 / 3)  # of a mask of independent entries
    assert record["mask_bytes"] == pytest.approx(24_000 * entropy / 8, rel=0.02)
    coded = record["coded_bytes"][record["coder"]]
    assert record["gap"] == pytest.approx(
        (8 * coded - 8 * record["mask_bytes"]) / (record["model_bits_per_dim"] * there) - 1, abs=1e-3
    )
    assert 0 <= record["gap"] < 0.05  # with the mask it would be 1.4
    told = call("compress", run, gappy, "-o", tmp_path / "u.unsup", "--no-verify").out
    assert f"  of these, {record['mask_bytes']:,} bytes mark the empty cells\n" in told
    assert f"the rest is {100 * record['gap']:+.2f} % from it" in told
    told = call("eval", run, "--measures", "likelihood,coded_bytes").out
    found = re.search(r", ([\d,]+) of them for empty cells, the rest ([+-][\d.]+) % from what", told)
    assert found is not None, told
    assert abs(float(found[2])) < 10  # of 200 rows: bytes of the header of the stream


def test_a_reason_of_several_coders_is_told_once(gappy: Path, tmp_path: Path, call: Call) -> None:
    run = tmp_path / "run"
    assert call("fit", gappy, "vae", "-o", run, "--preset", "tiny", "--steps", 1).status == 0
    assert call("compress", run, gappy, "-o", tmp_path / "t.unsup").err.count("has missing entries") == 1


def test_the_record_adds_up(place: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "d.unsup"
    done = call("compress", place / "run", place / "digits.npy", "-o", out, "--no-verify", "--json")
    record = json.loads(done.out)
    assert record["bytes"] == out.stat().st_size == record["header_bytes"] + sum(record["coded_bytes"].values())
    assert record["original_bytes"] == (place / "digits.npy").stat().st_size
    assert record["entries"] == 360 * 64
    assert 0 < record["gap"] < 0.01
    assert record["verified_seconds"] is None
    evaluated = call("eval", place / "run", "--json")
    assert record["model_bits_per_dim"] == pytest.approx(
        json.loads(evaluated.out)["figures"]["likelihood"]["detail"]["bits_per_dim"], abs=1e-4
    )
    about = json.loads(call("compress", "--info", out, "--json").out)
    assert about["bytes"] == record["bytes"]
    assert about["coded_bytes"] == record["coded_bytes"]
    assert about["header_bytes"] == record["header_bytes"]
    assert about["files"] == [["digits.npy", 360]]
    assert about["items"] == 360
    told = call("compress", "--info", out).out
    assert "360 items" in told
    assert "digits.npy  (360 examples)" in told


def test_a_data_set_by_its_name(place: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "d.unsup"
    assert call("compress", place / "run", "digits", "-o", out, "--no-verify").status == 0
    assert call("decompress", out, "-o", tmp_path / "back").status == 0
    found = np.load(tmp_path / "back" / "digits-test.npy")
    np.testing.assert_array_equal(found, unsup.load_data("digits").test.x.numpy())


def test_only_some_items(place: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "d.unsup"
    call("compress", place / "run", place / "digits.npy", "-o", out, "--no-verify")
    whole = np.load(place / "digits.npy")
    for word, rows in (("3:10", slice(3, 10)), ("5", slice(5, 6)), ("350:", slice(350, None)), (":2", slice(2))):
        back = tmp_path / word.replace(":", "-")
        assert call("decompress", out, "-o", back, "--only", word).status == 0
        np.testing.assert_array_equal(np.load(back / "digits.npy"), whole[rows])
    for word in ("7:7", "9:3", "a", "1:2:3", "360", "0:361", "-1", ""):
        done = call("decompress", out, "-o", tmp_path / "no", f"--only={word}")
        assert done.status == 2
        assert "--only" in done.err
    assert not (tmp_path / "no").exists()


def test_the_run_may_move_but_not_change(place: Path, tmp_path: Path, call: Call) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    out = tmp_path / "d.unsup"
    call("compress", tmp_path / "run", place / "digits.npy", "-o", out, "--no-verify")
    (tmp_path / "run").rename(tmp_path / "moved")
    done = call("decompress", out, "-o", tmp_path / "back")
    assert done.status == 2
    assert re.search(r"was coded with the model MADE [0-9a-f]{12}", done.err)
    assert "--run" in done.err
    assert call("decompress", out, "-o", tmp_path / "back", "--run", tmp_path / "moved").status == 0
    other = tmp_path / "other"
    assert main(["fit", "digits", "made", "-o", str(other), "--preset", "tiny", "--steps", "3", "--plain"]) == 0
    done = call("decompress", out, "-o", tmp_path / "again", "--run", other)
    assert done.status == 2
    assert re.search(r"model MADE [0-9a-f]{12}.*found MADE [0-9a-f]{12}", done.err)
    assert not (tmp_path / "again").exists()


def test_bad_words_are_refused_before_any_work(place: Path, tmp_path: Path, call: Call) -> None:
    run, data, out = place / "run", place / "digits.npy", tmp_path / "d.unsup"
    for words, said in (
        (("compress", run), "expected a run and the files"),
        (("compress", run, data), "-o FILE"),
        (("compress", "nowhere", data, "-o", out), "nowhere"),
        (("compress", run, tmp_path / "nothing", "-o", out), "does not exist"),
        (("compress", run, data, "-o", tmp_path), "is a folder"),
        (("compress", "--info", data), "not compressed by"),
        (("compress", run, "--info", data), "remove the other words"),
        (("decompress", data, "-o", tmp_path / "x"), "not compressed by"),
        (("decompress", tmp_path / "none", "-o", tmp_path / "x"), "there is no file"),
        (("decompress", data), "-o FOLDER"),
        (("decompress", data, "-o", tmp_path / "x", "--check"), "--check"),
    ):
        done = call(*words)
        assert done.status == 2, words
        assert said in done.err
        assert done.err.startswith("unsup: error:")
        assert done.err.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_models_without_a_likelihood_are_refused(place: Path, tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "gan"
    assert main(["fit", "digits", "gan", "-o", str(folder), "--preset", "tiny", "--steps", "2", "--plain"]) == 0
    done = call("compress", folder, place / "digits.npy", "-o", tmp_path / "d.unsup")
    assert done.status == 2
    assert "GAN does not code examples" in done.err
    assert not (tmp_path / "d.unsup").exists()


def test_an_existing_file_is_replaced_only_by_a_complete_one(place: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "d.unsup"
    out.write_bytes(b"old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path / "nothing"))
        patch.setattr(sys, "executable", "/bin/false")  # the verification fails
        done = call("compress", place / "run", place / "digits.npy", "-o", out)
    assert done.status == 1
    assert "could not be decoded in another process" in done.err
    assert out.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["d.unsup"]
    done = call("compress", place / "run", out, "-o", out)
    assert done.status == 2
    assert "one of the files to compress" in done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing(number: int, place: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "many.npy", np.tile(np.load(place / "digits.npy"), (60, 1, 1, 1)))
    words = [
        sys.executable,
        "-m",
        "unsup",
        "compress",
        place / "run",
        tmp_path / "many.npy",
        "-o",
        tmp_path / "d.unsup",
    ]
    # A process that was started in the background of a shell script ignores SIGINT, and so do its children.
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, cwd=tmp_path, preexec_fn=heeds)
    end = time.monotonic() + 60
    while not (tmp_path / ".d.unsup.tmp").exists() and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    assert b"interrupted" in process.stderr.read()
    assert os.listdir(tmp_path) == ["many.npy"]


def test_damage_is_told_and_the_rest_is_kept(place: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "d.unsup"
    call("compress", place / "run", place / "digits.npy", place / "images", "-o", out, "--no-verify")
    assert call("decompress", out, "--check").out == f"{out} is intact: 420 items decoded\n"
    data = bytearray(out.read_bytes())
    marks = [i for i in range(len(data)) if data[i : i + 4] == container.MARK]
    data[marks[1] + 70] ^= 1
    out.write_bytes(data)
    done = call("decompress", out, "-o", tmp_path / "back")
    assert done.status == 2
    assert "chunk 1 is damaged" in done.err
    assert call("decompress", out, "--check").status == 2
    shutil.rmtree(tmp_path / "back", ignore_errors=True)
    done = call("decompress", out, "-o", tmp_path / "back", "--keep-going")
    assert done.status == 1
    assert "lost digits.npy" in done.err
    assert len(os.listdir(tmp_path / "back" / "images")) == 60


def test_files_that_are_not_as_they_look_come_back(place: Path, tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    x = np.load(place / "digits.npy")
    with (folder / "two.npy").open("wb") as file:
        np.save(file, x)
        np.save(file, x[:5])
    (folder / "tail.npy").write_bytes((place / "digits.npy").read_bytes() + b"more")
    for name in (
        "photo3.txt",
        "photo３.txt",
        "a٣.txt",
        "x" * 250,
        ".x.tmp",
        "x",
        "new\nline",
        "ä",
        "-o",
        os.fsdecode(b"\xff"),
    ):
        (folder / name).write_text(name.encode("utf-8", "surrogateescape").hex())
    assert call("compress", place / "run", folder, "-o", tmp_path / "d.unsup").status == 0
    assert call("decompress", tmp_path / "d.unsup", "-o", tmp_path / "back").status == 0
    before, after = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("in", "back"))
    assert before == after


def test_the_verification_compares_with_the_files(place: Path, tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "shortened", lambda names: ["b.txt" for _ in names])
        done = call("compress", place / "run", folder, "-o", tmp_path / "d.unsup")
    assert done.status == 1
    assert "not decoded to the same files (a.txt, b.txt)" in done.err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing.Source, "parts", lambda self: iter([b"changed"]))
        done = call("compress", place / "run", folder, "-o", tmp_path / "d.unsup")
    assert done.status == 1
    assert "not decoded to the same files (a.txt)" in done.err
    assert sorted(os.listdir(tmp_path)) == ["in"]


def test_a_newer_file_names_the_version_that_reads_it(place: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "d.unsup"
    call("compress", place / "run", place / "digits.npy", "-o", out, "--no-verify")
    data = bytearray(out.read_bytes())
    data[8:10] = struct.pack("<H", 2)
    data[12:18] = struct.pack("<3H", 3, 1, 4)
    data[38:42] = struct.pack("<I", zlib.crc32(data[:38]))
    out.write_bytes(data)
    for words in (("decompress", out, "-o", tmp_path / "back"), ("compress", "--info", out)):
        done = call(*words)
        assert done.status == 2
        assert "needs unsup 3.1.4 or newer" in done.err


def test_native_files(place: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "d.unsup"
    assert call("compress", place / "run", place / "digits.npy", "-o", out, "--native").status == 0
    assert call("decompress", out, "-o", tmp_path / "back").status == 0
    assert (tmp_path / "back" / "digits.npy").read_bytes() == (place / "digits.npy").read_bytes()
    words = [sys.executable, "-m", "unsup", "decompress", str(out), "--check"]
    elsewhere = os.environ | {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "3"}
    done = subprocess.run(words, env=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "instructions" in done.stderr
    assert "without --native" in done.stderr
