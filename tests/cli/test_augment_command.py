"""``unsup augment``: examples with their views, as pictures and as recordings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

from unsup.core.random import keyed_generator
from unsup.nn.augment import RECIPES, augment


@pytest.fixture
def photos(tmp_path):
    """An array of images in colour."""
    path = tmp_path / "photos.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8))
    return path


@pytest.fixture
def sound(tmp_path):
    folder = tmp_path / "sound"
    folder.mkdir()
    for i in range(4):
        x = 0.3 * np.sin(np.arange(600) * (0.1 + 0.05 * i))
        wavfile.write(folder / f"{i}.wav", 4000, np.rint(x * 32_768).astype(np.int16))
    return folder


def test_each_row_is_an_example_and_its_views(call, photos, tmp_path):
    """The picture has the pixels of the examples and of the views of the library."""
    out = tmp_path / "grid.png"
    found = call("augment", photos, "--recipe", "simclr-small", "-n", 5, "--views", 3, "-o", out)
    assert (found.status, found.err) == (0, "")
    assert found.out == f"5 examples of {photos}, each with 3 views by simclr-small in {out}\n"
    with Image.open(out) as image:
        assert "5 rows, each one of the images and 3 views of it" in image.info["Description"]
        pixels = np.asarray(image.convert("RGB"))[::4, ::4]  # 16 pixels at scale 4
    x = torch.from_numpy(np.load(photos)[[0, 4, 8, 12, 16]]).permute(0, 3, 1, 2) / 255
    views = [augment(x, "simclr-small", keyed_generator(0, view)) for view in range(3)]
    for column, expected in enumerate([x, *views]):
        left = column * 18 + (6 if column else 0)  # gaps of 2, and 8 after the original
        for row in range(5):
            tile = pixels[18 * row : 18 * row + 16, left : left + 16].transpose(2, 0, 1)
            assert np.array_equal(tile, (expected[row] * 255).round().numpy().astype(np.uint8)), (row, column)


def test_the_seed_decides(call, photos, tmp_path):
    def content(*words):
        assert call("augment", photos, "--recipe", "simclr", "-o", tmp_path / "x.png", *words).status == 0
        return (tmp_path / "x.png").read_bytes()

    assert content() == content("--seed", 0)
    assert content() != content("--seed", 1)


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if r.kind == "images"])
def test_every_recipe_draws_grey_and_binary_images(call, tmp_path, name):
    assert call("augment", "digits", "--recipe", name, "-n", 2, "--views", 2, "-o", tmp_path / "x.png").status == 0
    np.save(tmp_path / "b.npy", np.random.default_rng(0).integers(0, 2, (12, 9, 9), dtype=np.uint8))
    words = ("--recipe", name, "-n", 50, "--views", 1, "-o", tmp_path / "b.png")
    found = call("augment", tmp_path / "b.npy", *words)
    assert found.out.startswith("12 examples of")
    assert "with 1 view by" in found.out


def test_real_images_are_in_the_unit_interval(call, tmp_path):
    x = np.random.default_rng(0).random((12, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert call("augment", tmp_path / "x.npy", "--recipe", "crop", "-o", tmp_path / "x.png").status == 0
    np.save(tmp_path / "x.npy", 3 * x)
    found = call("augment", tmp_path / "x.npy", "--recipe", "crop", "-o", tmp_path / "x.png")
    assert (found.status, found.err.count("\n")) == (2, 1)
    assert "expected [0, 1]" in found.err


@pytest.mark.parametrize("options", [(), ("--mu-law",)])
def test_views_of_sound_are_recordings(call, sound, tmp_path, options):
    out = tmp_path / "out"
    words = ("--recipe", "sound", "--length", 600, "-n", 3, "--views", 2, "-o", out, *options)
    assert call("augment", sound, *words).status == 0
    assert sorted(p.name for p in out.iterdir()) == [
        f"{i}-{what}.wav" for i in range(3) for what in ("original", "view-1", "view-2")
    ]
    originals = {wavfile.read(path)[1].tobytes() for path in sound.iterdir()}
    for path in out.iterdir():
        rate, x = wavfile.read(path)
        assert (rate, x.dtype, len(x)) == (4000, np.int16, 600)
        if not options:
            assert (x.tobytes() in originals) == ("original" in path.name)


def test_a_picture_of_sound(call, sound, tmp_path):
    words = ("augment", sound, "--recipe", "sound", "--length", 600, "-n", 2, "-o", tmp_path / "s.png")
    assert call(*words, "--views", 3).status == 0
    with Image.open(tmp_path / "s.png") as image:
        assert "2 rows of line plots with the same axes, each one of the" in image.info["Description"]
    found = call(*words, "--views", 7)
    assert (found.status, found.err.count("\n")) == (2, 1)
    assert "at most 6 views" in found.err


def test_the_list_has_every_recipe_in_a_line(call):
    found = call("augment", "--list")
    assert found.status == 0
    lines = found.out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(RECIPES)
    assert all(recipe.summary in line for recipe, line in zip(RECIPES.values(), lines[1:], strict=True))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("digits", "--recipe", "simcrl", "-o", "x.png"), "'simclr'"),
        (("digits", "--recipe", "sound", "-o", "x.png"), "sound of one channel"),
        (("digits", "--recipe", "crop", "-o", "x.jpg"), ".png"),
        (("digits", "--recipe", "crop", "-o", "folder"), "recordings"),
        (("digits", "--recipe", "crop"), "-o grid.png"),
        (("digits", "-o", "x.png"), "--recipe"),
        (("-o", "x.png", "--recipe", "crop"), "no data"),
        (("moons", "--recipe", "crop", "-o", "x.png"), "needs images"),
        (("markov", "--recipe", "sound", "-o", "x.png"), "needs images or sound"),
        (("nothing", "--recipe", "crop", "-o", "x.png"), "nothing"),
        (("digits", "--recipe", "crop", "-n", "0", "-o", "x.png"), "-n=0"),
        (("digits", "--recipe", "crop", "--views", "0", "-o", "x.png"), "--views=0"),
        (("digits", "--recipe", "crop", "--veiws", "2", "-o", "x.png"), "'--views'"),
    ],
)
def test_bad_input_is_one_line(call, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    found = call("augment", *words)
    assert (found.status, found.err.count("\n")) == (2, 1)
    assert expected in found.err
    assert not list(tmp_path.iterdir())


def test_images_that_are_too_small_or_have_other_channels(call, tmp_path):
    for shape, expected in (((12, 1, 3, 8), "3×8 pixels; expected at least 5×5"), ((12, 4, 8, 8), "1 or 3 channels")):
        np.save(tmp_path / "x.npy", np.zeros(shape, dtype=np.uint8))
        words = ("--recipe", "crop-flip", "--channels", "first", "-o", tmp_path / "x.png")
        found = call("augment", tmp_path / "x.npy", *words)
        assert (found.status, found.err.count("\n")) == (2, 1)
        assert expected in found.err
