"""The shipped conditional models from the command line: classes, numbers and pictures, one way for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unsup

FIT = ("--preset", "tiny", "--steps", 3, "--plain")


@pytest.mark.parametrize("name", ["gan", "vae", "pixelcnn", "gated-pixelcnn"])
def test_a_model_of_classes_is_fitted_asked_and_drawn_from(call, tmp_path, name):
    run = tmp_path / name
    done = call("fit", "digits", name, "--given", "label", "-o", run, "--limit", 100, *FIT)
    assert done.status == 0, done.err
    model = unsup.load(run)
    assert model.given == unsup.load_data("digits", given="label").given
    for given in ((), ("--given", 3)):
        done = call("sample", run, "-n", 4, *given, "-o", tmp_path / "x.npy")
        assert done.status == 0, done.err
        assert np.load(tmp_path / "x.npy").shape == (4, 1, 8, 8)
    assert call("sample", run, "--given", 10, "-o", tmp_path / "x.npy").status == 2
    if name != "gan":
        assert "nats" in call("eval", run).out


def test_pictures_are_drawn_given_pictures(call, tmp_path):
    generator = np.random.default_rng(0)
    for side in ("drawn", "sketched"):
        (tmp_path / side).mkdir()
        for i in range(20):
            Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / side / f"{i}.png")
    run = tmp_path / "run"
    done = call("fit", tmp_path / "drawn", "vae", "--given", tmp_path / "sketched", "-o", run, *FIT)
    assert done.status == 0, done.err
    asked: Path = tmp_path / "sketched" / "3.png"
    done = call("sample", run, "--given", asked, "-n", 2, "-o", tmp_path / "x.npy")
    assert done.status == 0, done.err
    assert np.load(tmp_path / "x.npy").shape == (2, 1, 8, 8)
    refused = call("sample", run, "-o", tmp_path / "x.npy")
    assert refused.status == 2
    assert "--given" in refused.err
