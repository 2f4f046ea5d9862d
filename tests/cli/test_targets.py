"""Where output goes: never over a link, a pipe or a device, for every command that writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unsup.cli.main import COMMANDS, main

SILENT = ("models", "data", "eval", "measures", "check", "cite")  # commands without -o


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "photos").mkdir()
    (folder / "other").mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        for name in ("photos", "other"):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")
    photos, tiny = str(folder / "photos"), ("--preset", "tiny", "--steps", "1", "--plain")
    assert main(["fit", photos, "histogram", "-o", str(folder / "histogram")]) == 0
    assert main(["fit", photos, "vae", *tiny, "-o", str(folder / "vae")]) == 0
    assert main(["fit", photos, "cyclegan", "--domain-b", str(folder / "other"), *tiny, "-o", f"{folder}/cycle"]) == 0
    assert (
        main(["fit", "digits", "pixelcnn", "--given", "label", *tiny, "--limit", "50", "-o", f"{folder}/classes"]) == 0
    )
    assert main(["fit", "digits", "vae", *tiny, "--limit", "100", "-o", f"{folder}/codes"]) == 0
    assert main(["encode", str(folder / "vae"), photos, "-o", str(folder / "z.npz")]) == 0
    packed = str(folder / "photos.unsup")
    assert main(["compress", str(folder / "histogram"), photos, "--no-verify", "-o", packed]) == 0
    return folder


# The words of each command, and the suffix of its output; "" is a folder.
CASES = {
    "fit": (["fit", "moons", "histogram", "--plain"], ""),
    "sample": (["sample", "{m}/histogram", "-n", "2"], ".npy"),
    "sample a picture": (["sample", "{m}/histogram", "-n", "2"], ".png"),
    "augment": (["augment", "{m}/photos", "--recipe", "simclr", "-n", "2", "--views", "2"], ".png"),
    "score": (["score", "{m}/histogram", "{m}/photos"], ".csv"),
    "outliers": (["outliers", "{m}/photos"], ".csv"),
    "outliers as a page": (["outliers", "{m}/photos"], ".html"),
    "predict": (["predict", "{m}/classes", "digits"], ".csv"),
    "encode": (["encode", "{m}/vae", "{m}/photos"], ".npz"),
    "probe": (["probe", "{m}/codes"], ".html"),
    "map": (["map", "{m}/codes", "--points", "50"], ".png"),
    "neighbours": (["neighbours", "{m}/vae", "{m}/photos", "-n", "2"], ".html"),
    "decode": (["decode", "{m}/vae", "{m}/z.npz"], ".npy"),
    "compress": (["compress", "{m}/histogram", "{m}/photos", "--no-verify"], ".unsup"),
    "decompress": (["decompress", "{m}/photos.unsup"], ""),
    "complete": (["complete", "{m}/classes", "digits", "--top", "0.75"], ".npy"),
    "translate": (["translate", "{m}/cycle", "{m}/photos"], ""),
    "compare": (["compare", "moons", "--models", "histogram", "--minutes", "0.05", "--n", "200", "--plain"], ""),
    "report": (["report", "{m}/histogram", "--plain"], ""),
    "reproduce": (["reproduce", "{m}/own.toml", "--runs", "{m}/recipes"], ".md"),
}
RECIPE = 'summary = "s"\ndata = "moons"\nseeds = [0]\ndata_options = { n = 200 }\n[[run]]\nmodel = "histogram"\n'


def test_every_command_that_writes_is_tried():
    assert {name.split()[0] for name in CASES} | set(SILENT) == set(COMMANDS)


def words(case: str, made: Path, out: object) -> list[str]:
    (made / "own.toml").write_text(RECIPE)
    return [*(word.format(m=made) for word in CASES[case][0]), "-o", str(out)]


@pytest.mark.parametrize("case", CASES)
def test_a_link_is_kept_and_its_target_written(call, made, tmp_path, case):
    suffix = CASES[case][1]
    target, link, there = tmp_path / f"a/target{suffix}", tmp_path / f"link{suffix}", tmp_path / f"there{suffix}"
    link.symlink_to(target)  # not there yet
    found = call(*words(case, made, link))
    assert found.status == 0, found.err
    assert link.is_symlink()
    assert target.is_dir() if suffix == "" else target.is_file()
    if suffix:
        content = target.read_bytes()
        target.write_bytes(b"old")
        there.symlink_to(link)  # a link to a link
        if case != "reproduce":
            assert call(*words(case, made, there)).status == 0
            assert link.is_symlink()
            assert there.is_symlink()
            assert len(target.read_bytes()) == len(content)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_file_or_folder_is_refused_before_any_work(call, made, tmp_path, case):
    suffix = CASES[case][1]
    pipe, device, loop, full = (tmp_path / f"{name}{suffix}" for name in ("pipe", "device", "loop", "full"))
    os.mkfifo(pipe)
    device.symlink_to(os.devnull)
    loop.symlink_to(loop)
    full.mkdir() if suffix else full.write_text("mine")
    (tmp_path / f"to-pipe{suffix}").symlink_to(pipe)
    before = sorted(tmp_path.iterdir())
    refused = {
        pipe: "is a named pipe",
        tmp_path / f"to-pipe{suffix}": "is a named pipe",
        device: "is a device",
        os.devnull: "is a device",
        loop: "is a link to itself",
        full: "is a folder" if suffix else "is a file",
        "-": "is the standard output",
    }
    for out, reason in refused.items():
        found = call(*words(case, made, out))
        assert found.status == 2, (out, found)
        (line,) = found.err.splitlines()
        assert reason in line
        assert found.out == ""
    assert sorted(tmp_path.iterdir()) == before
    assert pipe.is_fifo()
    assert Path(os.devnull).is_char_device()


def test_the_file_of_the_standard_output_is_not_replaced(made, tmp_path):
    command = [sys.executable, "-m", "unsup", *words("score", made, "/dev/stdout")]
    with (tmp_path / "s.csv").open("wb") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "is the standard output" in done.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is a named pipe" in done.stderr
