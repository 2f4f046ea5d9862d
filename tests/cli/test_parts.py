"""A model in a model, from the command line: named, with options, frozen, from a run, nested."""

from __future__ import annotations

import json

import pytest
import torch

import unsup
from unsup.core.config import plain
from unsup.core.part import Part

pytestmark = pytest.mark.usefixtures("own_models")
FIT = ("--steps", 2, "--n", 100, "--plain")


def config(run):
    return json.loads((run / "config.json").read_text())["model"]["config"]


def test_a_part_is_named_with_its_options_at_any_depth_and_in_any_order(call, tmp_path):
    options = ["--model.inner", "shell", "--model.inner.inner", "made", "--model.inner.inner.hidden", 8, 8]
    options += ["--model.inner.layers", 3, "--model.layers", 2]
    done = call("fit", *options, "moons", "shell", "-o", tmp_path / "a", *FIT)
    assert done.status == 0, done.err
    inner = unsup.load(tmp_path / "a").config["inner"]
    assert (inner.name, inner.options["layers"]) == ("shell", 3)
    assert plain(inner.options["inner"]) == Part("made", {"hidden": (8, 8)}).to_json()
    other = ["moons", "--model.layers", 2, "--model.inner.inner.hidden", 8, 8, "--model.inner.inner", "made", "shell"]
    other += ["--model.inner.layers", 3, "--model.inner", "shell"]
    done = call("fit", *other, "-o", tmp_path / "b", *FIT)
    assert done.status == 0, done.err
    assert config(tmp_path / "b") == config(tmp_path / "a")


def test_a_part_starts_from_a_run_and_may_be_frozen(call, tmp_path):
    assert call("fit", "moons", "made", "-o", tmp_path / "made", "--preset", "tiny", *FIT).status == 0
    run = tmp_path / "made"
    done = call("fit", "moons", "shell", "--model.inner", run, "--model.inner.frozen", "-o", tmp_path / "a", *FIT)
    assert done.status == 0, done.err
    trained, inside = unsup.load(run), unsup.load(tmp_path / "a").inner
    for (name, a), b in zip(trained.named_parameters(), inside.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert config(tmp_path / "a")["inner"]["frozen"] is True


def test_help_lists_the_options_of_a_part_when_it_is_named(call):
    plain = call("fit", "moons", "shell", "--help").out
    assert "--model.inner MODEL_OR_RUN" in plain
    assert "--model.inner.hidden" not in plain
    named = call("fit", "--help", "--model.inner", "made", "moons", "shell").out
    assert "--model.inner.hidden" in named
    assert "--model.inner.frozen" in named
    assert "options of made as --model.inner" in named
    assert "--model.inner.smoothing" in call("fit", "shell", "--preset", "paper", "--help").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model.inner", "maded"), "'made'"),
        (("--model.inner", "runs/made"), "'runs/made' is not a run folder (no config.json), nor a model's name"),
        (("--model.inner", "made", "--model.inner.hiden", 3), "'--model.inner.hidden'"),
        (("--model.inner.hidden", 3), "--model.inner NAME"),
        (("--model.inner", "shell", "--model.inner.layers", 0), "--model.inner.layers=0 should be at least 1"),
        (("--model.layers", 0), "--model.layers=0 should be at least 1"),
        (("--model.sizes", 8, -1), "should be at least 1"),
        (("--model.inner", "rbm"), "RBM takes binary data only"),
    ],
)
def test_bad_parts_are_told_in_one_line(call, tmp_path, words, said):
    found = call("fit", "moons", "shell", *words, "-o", tmp_path / "r", *FIT)
    assert found.status == 2
    assert found.err.count("\n") == 1
    assert said in found.err
    assert not (tmp_path / "r").exists()
