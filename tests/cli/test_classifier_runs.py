"""A classifier of few labels: fitted, evaluated, its predictions written, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

import unsup
from unsup.core.errors import InputError
from unsup.core.model import Classifies

SHORT = ("--steps", 60, "--plain", "--model.width", 0.1)


def test_the_story_of_a_run(call, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = call("fit", "digits", "vat", "--labels", 50, "--label-seed", 2, "-o", run, *SHORT)
    assert done.status == 0, done.err
    assert "50 of 1,257 training examples have labels, 5 of each class, drawn with seed 2" in done.out
    model, data = unsup.load(run), unsup.load_data("digits", labels=50, label_seed=2)
    assert isinstance(model, Classifies)
    assert model.config["classes"] == 10
    assert json.loads((run / "about.json").read_text())["data"]["labelled"] == list(data.labelled or ())
    found = json.loads(call("eval", run, "--json").out)["figures"]["accuracy"]
    right = model.predict_proba(data.test.x).argmax(1) == data.test.label
    assert found["value"] == pytest.approx(float(right.double().mean()))
    assert found["value"] > 0.5
    assert call("predict", run, "digits", "-o", tmp_path / "p.csv").status == 0
    rows = list(csv.reader((tmp_path / "p.csv").open()))[1:]
    assert [int(row[1]) for row in rows] == model.predict_proba(data.test.x).argmax(1).tolist()
    assert call("encode", run, "digits", "-o", tmp_path / "z.npz").status == 0
    assert "accuracy" in (run / "report.html").read_text().lower()


def test_classes_come_from_the_data_and_must_be_those_of_it(tmp_path: Path) -> None:
    data = unsup.load_data("digits", labels=10)
    assert unsup.create("supervised", data, width=0.05).config["classes"] == 10
    model = unsup.create("supervised", data.event, width=0.05, classes=4)
    with pytest.raises(
        InputError, match=r"this Supervised has 4 classes, but digits has 10; create it with classes=10"
    ):
        unsup.fit(model, data, steps=1, progress="off")
    plain = unsup.from_arrays(torch.randn(40, 3).numpy())
    other = unsup.create("supervised", plain, width=0.05)
    with pytest.raises(InputError, match="Supervised needs labels"):
        unsup.fit(other, plain, steps=1, progress="off")


def test_without_others_the_data_is_refused_in_one_line(call, tmp_path: Path) -> None:
    done = call("fit", "digits", "vat", "-o", tmp_path / "run", *SHORT)
    assert done.status == 2
    assert "needs a stream 'unlabelled'" in done.err
    assert "--labels N" in done.err
    assert not (tmp_path / "run").exists()
