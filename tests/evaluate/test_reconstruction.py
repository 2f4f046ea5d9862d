"""The reconstruction error against R² of scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import r2_score
from torch import nn

import unsup
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import REAL, Event, Support
from unsup.core.model import CanDecode, Model
from unsup.data.source import Data, Split
from unsup.evaluate.bench import Bench, Measuring
from unsup.evaluate.exam import Exam
from unsup.evaluate.reconstruction import unrestored_variance
from unsup.evaluate.validators import choose_validator, validators
from unsup.testing.cases.case import WORDS, examples, ordinal, vector


class Rounds(Model, CanDecode):
    """Codes are examples; decoding loses what is lost by ``step``."""

    takes_missing = True

    def __init__(self, event: Event, *, step: int = 2) -> None:
        self.step, self.weight = step, nn.Parameter(torch.zeros(1))

    def loss(self, batch, *, generator=None):
        return {"loss": self.weight.sum()}

    def encode(self, x):
        return x.flatten(1).double()

    @property
    def code_size(self):
        return self.event.dims

    def decode(self, z):
        return ((z / self.step).floor() * self.step).view(-1, *self.event.shape).to(self.event.dtype)


@pytest.mark.parametrize(
    ("event", "average"),
    [
        (vector(4, ordinal(9)), "uniform_average"),
        (vector(3, REAL), "uniform_average"),
        (Event((2, 3, 3), ordinal(9)), "variance_weighted"),
        (Event((6,), ordinal(9), "sequence"), "variance_weighted"),
    ],
)
def test_it_is_one_minus_r_squared(event: Event, average: str):
    x = examples(event, 700).x
    model = Rounds(event)
    found = unrestored_variance(model, x)
    true, restored = (v.flatten(1).double().numpy() for v in (x, model.decode(model.encode(x))))
    assert found["value"] == pytest.approx(1 - r2_score(true, restored, multioutput=average), rel=1e-9)
    assert found["n"] == 700
    assert found["error"] is not None
    weight = torch.rand(700)
    weighted = unrestored_variance(model, Split(x, weight=weight))["value"]
    expected = 1 - r2_score(true, restored, sample_weight=weight.numpy(), multioutput=average)
    assert weighted == pytest.approx(expected, rel=1e-6)


def test_an_entry_with_categories_is_one_column():
    x = examples(WORDS, 300).x
    model = Rounds(WORDS, step=2)
    restored = model.decode(model.encode(x))
    first = nn.functional.one_hot(x[:, 0].long(), 3).double(), nn.functional.one_hot(restored[:, 0].long(), 3).double()
    parts = [float((first[0] - first[1]).square().sum() / (first[0] - first[0].mean(0)).square().sum())]
    for d in (1, 2):
        parts.append(1 - r2_score(x[:, d].double().numpy(), restored[:, d].double().numpy()))
    assert unrestored_variance(model, x)["value"] == pytest.approx(sum(parts) / 3, rel=1e-6)


def test_columns_that_do_not_vary_do_not_count():
    x = examples(vector(3, REAL), 100).x
    wide = torch.cat([x, torch.full((100, 1), 255.1)], 1)
    narrow = unrestored_variance(Rounds(vector(3, REAL)), x)["value"]
    assert unrestored_variance(Rounds(vector(4, REAL)), wide)["value"] == pytest.approx(narrow, rel=1e-9)
    with pytest.raises(InputError, match="all examples are the same"):
        unrestored_variance(Rounds(vector(2, REAL)), torch.full((5, 2), 0.1))
    with pytest.raises(InputError, match="2 or more"):
        unrestored_variance(Rounds(vector(2, REAL)), torch.zeros(1, 2))
    with pytest.raises(CapabilityError, match="does not decode"):
        unrestored_variance(unsup.create("made", vector(2)), torch.zeros(3, 2))


def test_the_standard_error_is_that_of_repeated_samples():
    event = vector(2, ordinal(9))
    x = examples(event, 40_000).x
    found = [unrestored_variance(Rounds(event), part) for part in x.split(400)]
    values = torch.tensor([f["value"] for f in found])
    told = torch.tensor([f["error"] for f in found]).mean()
    assert 0.5 < float(told / values.std()) < 2.0


def test_it_validates_models_without_a_likelihood_and_is_not_of_flows():
    data = unsup.load_data("digits", limit=300)
    for name, expected in (("autoencoder", "reconstruction"), ("vae", "likelihood")):
        model = unsup.create(name, data.event, preset="tiny")
        chosen = choose_validator("auto", model, data)
        assert chosen is not None
        assert chosen.name == expected
        assert "reconstruction" in validators(model, data)
    assert "reconstruction" not in validators(unsup.create("realnvp", data.event, preset="tiny"), data)
    assert "reconstruction" not in validators(unsup.create("made", data.event, preset="tiny"), data)


def test_examples_with_gaps_are_left_out():
    event = replace(vector(3, Support("ordinal", 9)), missing=True)
    x = examples(event, 300).x
    data = Data("gaps", event, Split(x), Split(x[:200]), Split(x[:200]))
    figures, missing = Exam(Bench(data, Measuring()), Rounds(event)).figures(["reconstruction"])
    assert not missing
    whole = x[:200][~x[:200].isnan().any(1)]
    assert figures["reconstruction"]["n"] == len(whole)
    assert figures["reconstruction"]["value"] == pytest.approx(unrestored_variance(Rounds(event), whole)["value"])
