"""The VAE says how much of z is used, and when it has collapsed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import unsup
from unsup.cli.main import main
from unsup.core.batch import Batch
from unsup.core.event import BINARY, Event
from unsup.core.part import Part
from unsup.families.latent.vae import VAE

EVENT = Event((12,), BINARY)


def model_with(means: Tensor, log_variance: float = -1.0, **options: object) -> VAE:
    """An encoder whose mean of unit j is ``means[j]`` times the first entry minus ½; ``(L,)``."""
    units = len(means)
    model = unsup.create("vae", EVENT, latent_dim=units, hidden=(), seed=0, **options).double().eval()
    assert isinstance(model, VAE)
    with torch.no_grad():
        encoder = model.nets.encoder[-1]
        encoder.weight.zero_()
        encoder.bias.zero_()
        encoder.weight[:units, 0] = means
        encoder.bias[:units] = -0.5 * means
        encoder.bias[units : 2 * units] = torch.where(means == 0, 0.0, log_variance)
    return model


def examples(n: int = 400) -> Tensor:
    x = torch.randint(0, 2, (n, 12), generator=torch.Generator().manual_seed(0))
    x[:, 0] = torch.arange(n) % 2
    return x


def test_active_units_and_their_kl() -> None:
    means = torch.tensor([2.0, 0.0, 0.5, 0.1, 0.0], dtype=torch.float64)
    usage = model_with(means).usage(Batch(examples()))
    assert torch.allclose(usage.variance, means.square() / 4, rtol=0.01)  # that of the fourth is 0.0025
    assert usage.active == 2
    expected = 0.5 * (means.square() / 4 + math.exp(-1.0))
    expected[means == 0] = 0.0
    assert usage.each is not None
    assert torch.allclose(usage.each, expected)
    assert abs(usage.kl - float(expected.sum())) < 1e-10
    first, second = usage.sentences()
    assert first.startswith("2 of 5 units of z are active")
    assert second == "3 units of z collapsed: the same for all examples"


@pytest.mark.parametrize(
    "options",
    [{"posterior": "iaf", "flow_steps": 2}, {"posterior": "full"}, {"prior": Part("made", {"hidden": (4,)})}],
)
def test_other_posteriors_and_priors(options: dict[str, object]) -> None:
    model = model_with(torch.tensor([2.0, 0.0, 3.0], dtype=torch.float64), -3.0, **options)
    usage = model.usage(Batch(examples()), generator=torch.Generator().manual_seed(1))
    assert usage.active == 2
    assert 0 <= float(usage.variance[1]) < 0.01
    assert usage.each is None or options.keys() == {"posterior"}
    assert usage.kl > 1


def test_a_collapsed_model_says_so() -> None:
    model = model_with(torch.zeros(4, dtype=torch.float64))
    (told,) = model.findings(batch=Batch(examples()))
    assert told.startswith("z has collapsed: none of its 4 units is active")
    symptom = model.diagnose({"loss": 9.0, "kl": 0.002})
    assert symptom is not None
    assert symptom.name == "collapse"


def test_a_healthy_model_does_not() -> None:
    (told,) = model_with(torch.ones(4, dtype=torch.float64)).findings(batch=Batch(examples()))
    assert told.startswith("4 of 4 units of z are active")
    assert "collapsed" not in told
    assert VAE(EVENT).diagnose({"loss": 9.0, "kl": 3.0}) is None
    assert VAE(EVENT).diagnose({"loss": 9.0}) is None
    assert VAE(EVENT).findings() == ()


@pytest.mark.slow
def test_training_a_decoder_that_ignores_z_is_noticed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """β so large that the KL is pressed to 0, by the command line and by its log."""
    words = ["fit", "digits", "vae", "--steps", "150", "--model.latent-dim", "4", "--model.hidden", "16"]
    assert main([*words, "--model.beta", "100", "-o", str(tmp_path / "beta"), "--lr", "1e-2"]) == 0
    assert "z has collapsed: none of its 4 units is active" in capsys.readouterr().out
    assert main([*words, "-o", str(tmp_path / "plain"), "--lr", "1e-2"]) == 0
    told = capsys.readouterr().out
    assert "of 4 units of z" in told
    assert "z has collapsed" not in told
