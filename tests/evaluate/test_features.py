"""Extractors: what is done to an image, what the shipped weights know, and ``unsup eval --samples``."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import unsup
from unsup.cli.main import main
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.model import CanSample, Model
from unsup.core.storage import save_tensors
from unsup.evaluate.features import (
    PLANS,
    ConvExtractor,
    ConvNet,
    choose_extractor,
    read_digits,
    to_square,
    to_unit,
    weights_path,
)
from unsup.evaluate.modes import class_coverage, known_modes
from unsup.train import extractors
from unsup.train.runs import Run

ROOT = Path(os.environ.get("UNSUP_DATA", "/nowhere"))
needs_mnist = pytest.mark.skipif(not (ROOT / "mnist").is_dir(), reason="needs mnist in $UNSUP_DATA")
PIXELS = Support("ordinal", 256)


def pictures(n: int, *shape: int) -> torch.Tensor:
    return torch.randint(256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# --- what is done to an image -----------------------------------------------------------------------------------------


def test_images_of_nearly_the_size_are_centred_on_black():
    x = torch.rand(2, 3, 28, 26)
    square = to_square(x)
    assert square.shape == (2, 3, 32, 32)
    assert torch.equal(square[:, :, 2:30, 3:29], x)
    assert square.sum().item() == pytest.approx(x.sum().item(), rel=1e-5)
    full = torch.rand(1, 1, 32, 32)
    assert torch.equal(to_square(full), full)


def test_other_sizes_are_resized_as_by_pillow():
    """Pillow's bilinear filter widens with the scale, as antialiasing asks."""
    image = pytest.importorskip("PIL.Image")
    for size in (8, 20, 64, 105):
        x = pictures(1, 1, size, size)
        expected = image.fromarray(x[0, 0].numpy()).resize((32, 32), image.Resampling.BILINEAR)
        found = 255 * to_square(x.float() / 255)[0, 0]
        assert (found - torch.tensor(list(expected.tobytes())).view(32, 32)).abs().max() <= 1.01
    tall = to_square(torch.ones(1, 1, 64, 32))  # in the middle of a black square, not stretched
    assert tall[0, 0, 16, 9:23].min() == 1
    assert tall[0, 0, :, :7].max() == 0


def test_levels_become_the_unit_interval():
    assert to_unit(torch.tensor([0, 1], dtype=torch.uint8), (0, 1)).tolist() == [0, 1]
    assert to_unit(torch.tensor([-5, 0, 5, 9]), (-5, 5)).tolist() == [0, 0.5, 1, 1]
    one = Event((1, 28, 28), Support("ordinal", 17))
    grey = ConvExtractor("grey", one, (0, 16))
    full = ConvExtractor("grey", Event((1, 28, 28), PIXELS), (0, 255))
    coarse = pictures(3, 1, 28, 28) // 15 % 17
    assert torch.allclose(grey(coarse).points, full(coarse.float() * 255 / 16).points, atol=1e-4)


def test_raw_features_are_the_standardised_training_data():
    data = unsup.data.from_arrays(torch.randn(200, 3).double().numpy() * [1, 50, 0] + 7)
    extractor = choose_extractor("auto", data.event, data.train.x)
    found = extractor(data.train.x)
    assert found.logits is None
    assert torch.allclose(found.points.mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(found.points.std(0, correction=0), torch.tensor([1.0, 1, 0]), atol=1e-5)
    again = choose_extractor("raw", data.event, data.train.x)
    assert again.digest == extractor.digest
    assert choose_extractor("raw", data.event, data.test.x).digest != extractor.digest


def test_categories_are_indicators():
    """Tokens 0 and 2 are as far apart as 0 and 1."""
    x = torch.tensor([[0, 5], [1, 5], [2, 6]])
    event = Event((2,), (Support("nominal", 3), Support("ordinal", 9)))
    points = choose_extractor("auto", event, x)(x).points
    assert points.shape == (3, 4)
    tokens = points[:, :3]
    assert torch.allclose(tokens.var(0, correction=0), torch.ones(3))
    assert (tokens[0] - tokens[1]).norm() == pytest.approx((tokens[0] - tokens[2]).norm())
    with pytest.raises(InputError, match="32,768 columns"):
        choose_extractor("raw", Event((128,), Support("nominal", 256)), torch.zeros(3, 128, dtype=torch.long))


def test_which_extractor_takes_which_data():
    real = Event((1, 40, 40), REAL)
    x = torch.randn(5, 1, 40, 40)
    assert choose_extractor("auto", real, x).name == "grey"
    assert choose_extractor("auto", Event((3, 9, 9), PIXELS), pictures(5, 3, 9, 9)).name == "colour"
    assert choose_extractor("colour", Event((1, 9, 9), PIXELS), pictures(5, 1, 9, 9)).name == "colour"
    assert choose_extractor("auto", Event((4, 9, 9), PIXELS), pictures(5, 4, 9, 9)).name == "raw"
    with pytest.raises(InputError, match="'grey' takes images of 1 channel"):
        choose_extractor("grey", Event((3, 9, 9), PIXELS), pictures(5, 3, 9, 9))
    with pytest.raises(InputError, match="known: auto, grey"):
        choose_extractor("gray", real, x)


def test_inception_without_its_extra_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(CapabilityError, match=r"unsup\[metrics\]"):
        choose_extractor("inception", Event((1, 9, 9), BINARY), pictures(5, 1, 9, 9))


# --- the shipped weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANS)
def test_shipped_weights_are_small_and_known_by_their_digest(name):
    channels = PLANS[name][0]
    event = Event((channels, 32, 32), PIXELS)
    extractor = choose_extractor(name, event, pictures(2, channels, 32, 32))
    content = weights_path(name).read_bytes()
    assert len(content) < 1_000_000
    assert extractor.digest == hashlib.sha256(content).hexdigest()
    found = extractor(pictures(700, channels, 32, 32))
    assert found.points.shape == (700, 128)
    assert found.logits.shape == (700, 20)
    assert len(extractor.classes) == 20
    # In other chunks, the same features.
    again = extractor(pictures(700, channels, 32, 32)[499:502])
    assert torch.allclose(again.points, found.points[499:502], atol=1e-5)


@needs_mnist
def test_digits_are_read_as_well_as_the_record_says():
    test = unsup.load_data("mnist").test
    rows = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:2000]
    stated = ConvExtractor("grey", Event((1, 28, 28), PIXELS), (0, 255)).record["accuracy"]["mnist"]
    assert stated > 0.985
    share = (read_digits(test.x[rows]) == test.label[rows]).double().mean().item()
    assert share == pytest.approx(stated, abs=0.008)
    drawn = unsup.load_data("dynamic-mnist").test
    binary = choose_extractor("grey", Event((1, 28, 28), BINARY), drawn.x)(drawn.x[rows]).logits[:, :10].argmax(1)
    assert (binary == drawn.label[rows]).double().mean() > 0.96


@needs_mnist
def test_stacked_digits_are_read_channel_by_channel():
    test = unsup.load_data("stacked-mnist", n=3000).test
    read = read_digits(test.x.reshape(-1, 1, 28, 28)).view(-1, 3)
    assert ((read * torch.tensor([100, 10, 1])).sum(1) == test.label).double().mean() > 0.93
    found = known_modes("stacked-mnist", test.x)
    true = class_coverage(test.label, 1000)
    assert (found["modes"]["detail"]["of"], found["modes"]["n"]) == (1000, 300)
    assert abs(found["modes"]["value"] - true["modes"]["value"]) <= 8
    assert found["modes_kl"]["value"] == pytest.approx(true["modes_kl"]["value"], abs=0.03)
    assert "98." in found["modes"]["detail"]["note"]


# --- training them ----------------------------------------------------------------------------------------------------


def test_folding_batch_norm_changes_no_output():
    torch.manual_seed(0)
    channels, plan = PLANS["grey"]
    net, norms = ConvNet(channels, plan, 5), nn.ModuleList(nn.BatchNorm2d(width) for width, _ in plan)
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        x = torch.rand(4, 1, 32, 32)
        expected = extractors._forward(net, norms.eval(), x)
        extractors.fold(net, norms)
        assert torch.allclose(net(x)[1], expected, atol=1e-4)


def test_painting_puts_one_colour_on_another():
    grey = torch.zeros(50, 1, 32, 32, dtype=torch.uint8)
    grey[:, :, :16], grey[:, :, 16] = 255, 128
    x = extractors.paint(grey, torch.Generator().manual_seed(0)).long()
    ink, middle, ground = (x[:, :, row, :] for row in (0, 16, 31))
    assert (ink == ink[:, :, :1]).all()
    assert (ground == ground[:, :, :1]).all()
    assert ((middle - ground - (ink - ground) * 128 / 255).abs() <= 0.5 + 1e-4).all()
    assert len({tuple(c) for c in ink[:, :, 0].tolist()}) == 50


def test_distortion_follows_its_generator_and_moves_little():
    x = torch.zeros(200, 3, 32, 32, dtype=torch.uint8)
    x[:, :, 12:20, 12:20] = 255
    first, again = (extractors.distort(x, torch.Generator().manual_seed(5), mirror=True) for _ in range(2))
    assert torch.equal(first, again)
    assert first.min() >= 0
    assert first.max() <= 1
    place = torch.arange(32.0)
    for other in (1, 2):
        share = first[:, 0].sum(other)
        centre = (share * place).sum(1) / share.sum(1)
        assert (centre - 15.5).abs().max() < 2.5  # 2 pixels, turned and scaled
        assert centre.std() > 0.5


def test_a_trained_extractor_is_read_back(tmp_path):
    """Black from white images, written as the command writes them."""
    shade = torch.arange(256) % 2
    x = (shade * 255).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 32, 32).contiguous()
    task = extractors.Task((x, shade), {"own": (x, shade)}, ("black", "white"), ("made",))
    net, accuracy = extractors.train_extractor("grey", task, epochs=6)
    assert accuracy == {"own": 1.0}
    path = tmp_path / "grey.safetensors"
    save_tensors(path, {k: v.half() for k, v in net.state_dict().items()}, {"classes": task.classes})
    extractor = ConvExtractor("grey", Event((1, 32, 32), PIXELS), (0, 255), path)
    with torch.no_grad():
        assert torch.allclose(extractor(x[:4]).logits, net(x[:4].float() / 255)[1], atol=1e-4)


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "histogram"
    assert main(["fit", "digits", "histogram", "-o", str(folder), "--plain"]) == 0
    return folder


def called(capsys, *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(w) for w in words])
    return status, *capsys.readouterr()


def test_eval_keeps_each_figure_and_replaces_its_own_alone(capsys, run):
    def kept() -> list[dict]:
        return json.loads((run / "eval.json").read_text())["results"]

    likelihood = json.loads(called(capsys, "eval", run, "--json")[1])
    assert set(likelihood) == {"run", "model", "data", "split", "figures", "missing"}
    found = json.loads(called(capsys, "eval", run, "--samples", 60, "--json")[1])["figures"]
    assert set(found) == {"fid", "kid", "inception_score", "precision", "recall", "density", "coverage"}
    detail = found["fid"]["detail"]
    assert (detail["fake"], detail["real"], detail["held_out"]) == (60, 60, 60)
    assert found["fid"]["interval"][0] > found["fid"]["floor"]  # independent pixels make no digits
    assert {e["measure"]: e["figure"] for e in kept()} == likelihood["figures"] | found
    # Another setting is another entry; the same one replaces its own alone.
    assert called(capsys, "eval", run, "--examples", 20)[0] == called(capsys, "eval", run, "--split", "train")[0] == 0
    before = kept()
    assert [(e["split"], e["figure"]["n"]) for e in before if e["measure"] == "likelihood"] == [
        ("test", 360),
        ("test", 20),
        ("train", 1257),
    ]
    assert json.loads(called(capsys, "eval", run, "--json")[1])["figures"] == likelihood["figures"]
    assert [{**e, "seconds": 0} for e in kept()] == [{**e, "seconds": 0} for e in before]


def test_eval_prints_a_table(capsys, run):
    status, out, _ = called(capsys, "eval", run, "--samples", 60, "--extractor", "raw")
    assert status == 0
    for words in (
        "FID ↓",
        "KID × 10³ ↓",
        "coverage ↑",
        "95 % interval",
        "held-out data in place of samples",
        "60 samples compared with 60",
        "extractor raw, sha256",
    ):
        assert words in out
    assert "no Inception score: the extractor raw has no classes" in out


def test_eval_of_known_modes_counts_them(capsys, tmp_path):
    options = ("--model.components", 8, "--n", 2000, "--plain")
    assert called(capsys, "fit", "ring8", "gaussian-mixture", "-o", tmp_path / "run", *options)[0] == 0
    out = called(capsys, "eval", tmp_path / "run", "--samples", 200)[1]
    assert "modes covered ↑" in out
    assert "good samples ↑" in out


class Drawn(Model, CanSample):
    """Noise, and no density."""

    def __init__(self, event: Event) -> None:
        self.weight = nn.Parameter(torch.zeros(1))

    def loss(self, batch, *, generator=None):
        return {"loss": self.weight.sum()}

    def sample(self, n, *, generator=None):
        return torch.randint(17, (n, *self.event.shape), generator=generator, dtype=torch.uint8)


def test_a_model_without_a_density_is_judged_by_its_samples(capsys, run, monkeypatch):
    monkeypatch.setattr(Run, "model", Drawn(unsup.load_data("digits").event))
    status, _, error = called(capsys, "eval", run)
    assert status == 2
    assert "no likelihood; measure its samples with --samples N" in error
    assert error.count("\n") == 1
    assert called(capsys, "eval", run, "--samples", 40)[0] == 0


def test_a_model_that_draws_nothing_is_refused(capsys, run, monkeypatch):
    class Silent(Model):
        def __init__(self, event: Event) -> None:
            self.weight = nn.Parameter(torch.zeros(1))

        def loss(self, batch, *, generator=None):
            return {"loss": self.weight.sum()}

    monkeypatch.setattr(Run, "model", Silent(unsup.load_data("digits").event))
    for words, reason in (((), "no likelihood and no samples"), (("--samples", 40), "draws no samples")):
        status, _, error = called(capsys, "eval", run, *words)
        assert (status, error.count("\n")) == (2, 1)
        assert reason in error


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--samples", 3), "--samples=3 should be at least 10"),
        (("--extractor", "raw"), "give --samples N too"),
        (("--samples", 20, "--extractor", "gray"), "there is no extractor 'gray'"),
        (("--samples", 20, "--extractor", "colour", "--splitt"), "no option '--splitt'"),
    ],
)
def test_bad_options_are_one_line(capsys, run, words, reason):
    status, _, error = called(capsys, "eval", run, *words)
    assert (status, error.count("\n")) == (2, 1)
    assert reason in error
