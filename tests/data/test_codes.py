"""The codes of a run as data: what the model gives, with splits and labels, for models of a second stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

import unsup
from unsup import InputError, load_data
from unsup.cli.main import main
from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError
from unsup.core.event import REAL, Event, Support
from unsup.core.model import CanEncode, HasLatents, IsConditional, Model, Terms
from unsup.data import load_examples
from unsup.data.codes import codes

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of a VAE on labelled digits."""
    folder = tmp_path_factory.mktemp("runs") / "vae"
    data = load_data("digits", limit=300)
    model = unsup.create("vae", data.event, preset="tiny", latent_dim=3)
    unsup.fit(model, data, out=folder, steps=30, progress="off")
    return folder


def test_codes_are_those_of_the_runs_model_in_the_order_of_its_data(run: Path) -> None:
    digits, data = load_data("digits", limit=300), load_data(f"codes:{run}")
    model = unsup.load(str(run))
    assert isinstance(model, CanEncode)
    assert data.event == Event((3,), REAL)
    assert data.labels == digits.labels
    for part in PARTS:
        own, source = getattr(data, part), getattr(digits, part)
        with torch.no_grad():
            torch.testing.assert_close(own.x, model.encode(source.x), rtol=1e-5, atol=1e-6)
        assert torch.equal(own.label, source.label)
        assert own.x.dtype == torch.float32
    assert data.split == digits.split
    assert data.notes[0].startswith("codes of digits (840 images, ")
    assert "by vae" in data.notes[0]


def test_the_name_leads_back_from_any_folder(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(run.parent)
    data = load_data("codes:vae", limit=100, given="label")
    assert data.name == f"codes:{run}"
    assert data.options == {"limit": 100, "given": "label"}
    monkeypatch.chdir(tmp_path)
    again = load_data(data.name, **data.options)
    assert torch.equal(again.train.x, data.train.x)
    assert torch.equal(again.train.given, data.train.label)


def test_examples_of_codes_are_those_of_the_test_split(run: Path) -> None:
    data = load_data(f"codes:{run}")
    x, names = load_examples(f"codes:{run}", data.event)
    assert torch.equal(x, data.test.x)
    assert names[:2] == ("test 0", "test 1")


def test_a_mixture_of_codes_from_the_command_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*words: object) -> str:
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    assert "840 rows, 3 columns (real), 10 classes; 300 train, 180 validation, 360 test" in call("data", f"codes:{run}")
    call("fit", f"codes:{run}", "gaussian-mixture", "-o", tmp_path / "mixture", "--plain", "--model.components", 2)
    mixture = unsup.open_run(tmp_path / "mixture")
    assert mixture.config["data"] == {"name": f"codes:{run}", "options": {}}
    assert torch.equal(mixture.data.train.x, load_data(f"codes:{run}").train.x)
    assert "nats" in call("eval", tmp_path / "mixture")
    # Codes of the user's own examples are scored as arrays.
    call("encode", run, "digits", "-o", tmp_path / "z.npz")
    call("score", tmp_path / "mixture", tmp_path / "z.npz", "-o", tmp_path / "scores.csv")
    scores = np.loadtxt(tmp_path / "scores.csv", delimiter=",", skiprows=1, usecols=1)
    expected = -unsup.evaluate_likelihood(mixture.model, mixture.data.test).nats
    assert scores.mean() == pytest.approx(expected, abs=1e-4)


def test_codes_of_codes(run: Path, tmp_path: Path) -> None:
    data = load_data(f"codes:{run}")
    flow = unsup.create("realnvp", data.event, preset="tiny")
    unsup.fit(flow, data, out=tmp_path / "flow", steps=3, progress="off")
    second = load_data(f"codes:{tmp_path / 'flow'}")
    assert second.event.shape == (3,)
    assert torch.equal(second.test.label, data.test.label)


def test_runs_without_codes_or_data_are_refused_in_one_line(run: Path, tmp_path: Path) -> None:
    data = load_data("digits", limit=50)
    model = unsup.create("histogram", data.event)
    unsup.fit(model, data, out=tmp_path / "histogram", progress="off")
    with pytest.raises(CapabilityError, match="is a run of histogram, which cannot encode"):
        load_data(f"codes:{tmp_path / 'histogram'}")
    arrays = unsup.from_arrays(np.random.default_rng(0).normal(size=(50, 3)))
    mixture = unsup.create("gaussian-mixture", arrays.event)
    unsup.fit(mixture, arrays, out=tmp_path / "arrays", progress="off")
    mixture.save(str(tmp_path / "saved"))
    for name in ("arrays", "saved"):
        with pytest.raises(InputError, match=f"{name} does not record its data .* unsup encode"):
            load_data(f"codes:{tmp_path / name}")
    with pytest.raises(InputError, match="there is no folder"):
        load_data(f"codes:{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match="has no option 'resize'"):
        load_data(f"codes:{run}", resize=3)


class Shifted(Model, CanEncode, IsConditional):
    """The sum of an example and its class."""

    def __init__(self, event: Event, *, given: Event | None = None) -> None:
        self.take_condition(given)
        self.zero = torch.nn.Parameter(torch.zeros(()))

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        return {"loss": self.zero}

    def encode(self, x: Tensor, *, given: Tensor | None = None) -> Tensor:
        assert given is not None
        return x.sum(1, keepdim=True) + given[:, None]


def test_a_model_with_a_condition_encodes_given_that_of_the_data() -> None:
    x, y = np.random.default_rng(0).normal(size=(900, 2)), np.arange(900) % 3
    data = unsup.from_arrays(x, y, given="label")
    found = codes(Shifted(data.event, given=data.given), data.train)
    assert data.train.given is not None
    torch.testing.assert_close(found[:, 0], data.train.x.sum(1) + data.train.given)
    with pytest.raises(InputError, match="is conditioned on"):
        codes(Shifted(data.event, given=data.given), unsup.from_arrays(x).train)


def test_code_numbers_are_images_of_categories(tmp_path: Path) -> None:
    """Maps of a VQ-VAE, to which a model of images is fitted."""
    digits = load_data("digits", limit=60)
    model = unsup.create("vq-vae", digits.event, preset="tiny")
    unsup.fit(model, digits, out=tmp_path / "vq", steps=5, progress="off")
    data = load_data(f"codes:{tmp_path / 'vq'}")
    assert data.event == Event((1, 2, 2), Support("nominal", 8))
    best = unsup.load(str(tmp_path / "vq"))
    assert isinstance(best, HasLatents)
    assert torch.equal(data.test.x, best.draw_latents(Batch(digits.test.x))[0])
    prior = unsup.create("gated-pixelcnn", data.event, preset="tiny")
    assert unsup.fit(prior, data, steps=3, progress="off").steps == 3
