"""The story of two folders: fit, look, translate there and back, and what goes wrong on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unsup
from unsup.cli.main import main
from unsup.core.storage import load_tensors

FIT = ["--steps", "2", "--batch-size", "2", "--preset", "tiny", "--plain"]


def pngs(folder: Path, x: torch.Tensor) -> Path:
    folder.mkdir(parents=True)
    for i, one in enumerate(x):
        Image.fromarray(one.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    return folder


def pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of pictures and a finished run on them."""
    folder = tmp_path_factory.mktemp("story")
    split = unsup.load_data("stripes", n=12).train
    a, b = pngs(folder / "plain", split.x), pngs(folder / "striped", split.streams["domain_b"].x)
    assert main(["fit", str(a), "cyclegan", "--domain-b", str(b), "-o", str(folder / "run"), *FIT]) == 0
    return folder


def test_a_folder_is_translated_file_by_file_there_and_back(call, story: Path, tmp_path: Path) -> None:
    model = unsup.load(story / "run")
    done = call("translate", story / "run", story / "plain", "-o", tmp_path / "new" / "b")
    assert done.status == 0, done.err
    assert "12 images of domain b" in done.out
    for i in range(12):
        expected = model.translate(pixels(story / "plain" / f"{i}.png")[None], to="b")[0]
        assert torch.equal(pixels(tmp_path / "new" / "b" / f"{i}.png"), expected)
    assert call("translate", story / "run", tmp_path / "new" / "b", "-o", tmp_path / "a", "--to", "a").status == 0
    back = model.translate(pixels(tmp_path / "new" / "b" / "3.png")[None], to="a")[0]
    assert torch.equal(pixels(tmp_path / "a" / "3.png"), back)
    # What was there is written anew, as by the other commands.
    Image.new("RGB", (16, 16)).save(tmp_path / "a" / "3.png")
    assert call("translate", story / "run", tmp_path / "new" / "b", "-o", tmp_path / "a", "--to", "a").status == 0
    assert torch.equal(pixels(tmp_path / "a" / "3.png"), back)


def test_single_files_labelled_folders_arrays_and_other_sizes_are_translated(call, story: Path, tmp_path: Path) -> None:
    x = unsup.load_data("stripes", n=10).test.x
    labelled = tmp_path / "animals"
    pngs(labelled / "cats", x[:1])
    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "photo.jpg")
    Image.new("L", (16, 16), 90).save(tmp_path / "grey.png")
    np.save(tmp_path / "some.npy", torch.cat([x, x]).numpy())
    files = [labelled, tmp_path / "photo.jpg", tmp_path / "grey.png"]
    assert call("translate", story / "run", *files, "-o", tmp_path / "o", "--resize", 16).status == 0
    assert call("translate", story / "run", tmp_path / "some.npy", "-o", tmp_path / "o").status == 0
    assert call("translate", story / "run", "stripes", "-o", tmp_path / "set").status == 0
    written = {str(p.relative_to(tmp_path / "o")) for p in (tmp_path / "o").rglob("*.png")}
    assert written == {"cats/0.png", "photo.png", "grey.png", "some-00000.png", "some-00001.png"}
    assert len(list((tmp_path / "set").iterdir())) == 200
    expected = unsup.load(story / "run").translate(x, to="b")[0]
    assert torch.equal(pixels(tmp_path / "o" / "some-00001.png"), expected)
    assert torch.equal(pixels(tmp_path / "o" / "cats" / "0.png"), expected)


def test_the_run_keeps_its_second_domain_and_shows_translations(call, story: Path, tmp_path: Path) -> None:
    run = unsup.open_run(story / "run")
    assert run.data.options["domain_b"] == str(story / "striped")
    assert set(run.data.train.streams) == {"domain_b"}
    grids = sorted((story / "run" / "samples").glob("step-*.png"))
    assert len(grids) == 3
    zoom = 4
    grid = np.array(Image.open(grids[-1]).convert("RGB"))[::zoom, ::zoom]
    x = run.data.validation.x
    assert grid.shape[:2] == (2 * 18 - 2, 3 * 18 - 2)  # a row for each validation example: it, to b, and back
    b = run.model.translate(x, to="b")
    for column, expected in enumerate((x, b, run.model.translate(b, to="a"))):
        for row in range(2):
            top, left = 18 * row, 18 * column
            tile = grid[top : top + 16, left : left + 16]
            assert (tile == expected[row].permute(1, 2, 0).numpy()).all()
    assert call("check", story / "run").status == 0
    resumed = call("fit", "--resume", "-o", story / "run", "--plain")
    assert resumed.status == 0, resumed.err
    assert load_tensors(run.checkpoint("last"))[1]["done"] == 2


def test_bad_input_is_one_line(call, story: Path, runs: Path, tmp_path: Path) -> None:
    run, a = story / "run", story / "plain"
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "file").write_text("x")
    Image.new("RGB", (20, 16)).save(tmp_path / "wide.png")
    pngs(tmp_path / "twice", unsup.load_data("stripes", n=10).test.x)
    out = tmp_path / "out"
    cases = [
        (("translate", run, a), "-o"),
        (("translate", run, "-o", out), "FILES"),
        (("translate", run, tmp_path / "gone", "-o", out), "gone"),
        (("translate", run, tmp_path / "broken.png", "-o", out), "cannot be read"),
        (("translate", run, tmp_path / "wide.png", "-o", out), "--resize 16"),
        (("translate", run, a, "-o", out, "--to", "c"), "--to"),
        (("translate", run, a, "-o", tmp_path / "file"), "is a file"),
        (("translate", run, a, tmp_path / "twice", "-o", out), "would both be written"),
        (("translate", run, a, "-o", a), "its own translation"),
        (("translate", tmp_path / "norun", a, "-o", out), "is not a run folder"),
        (("translate", runs / "made", "digits", "-o", out), "cannot translate"),
        (("fit", a, "cyclegan", "-o", out, *FIT), "--domain-b"),
        (("fit", a, "cyclegan", "--domain-b", tmp_path / "gone", "-o", out, *FIT), "gone"),
        (("fit", a, "cyclegan", "--domain-b", "digits", "-o", out, *FIT), "the same event"),
    ]
    for words, expected in cases:
        called = call(*words)
        assert called.status == 2, (words, called)
        assert called.err.count("\n") == 1, called.err
        assert called.err.startswith("unsup: error: "), called.err
        assert expected in called.err, (expected, called.err)
    assert not out.exists()


def test_coloured_pictures_are_called_so_and_have_the_size_of_training(call, tmp_path: Path) -> None:
    photos = pngs(tmp_path / "photos", unsup.load_data("stripes", n=12).train.x)
    assert call("fit", photos, "colorization", "-o", tmp_path / "run", *FIT, "--resize", 8).status == 0
    for to, words in (("b", "12 images of predicted colours"), ("a", "12 images of shades of grey")):
        done = call("translate", tmp_path / "run", photos, "-o", tmp_path / to, "--to", to)
        assert done.status == 0, done.err
        assert words in done.out
        assert pixels(tmp_path / to / "3.png").shape[1:] == (8, 8)
