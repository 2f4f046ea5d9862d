"""The likelihood of a split: closed forms, and independence of how it is cut."""

from __future__ import annotations

import math

import pytest
import torch

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.model import Model
from unsup.evaluate.likelihood import CHUNK, evaluate_likelihood, log_probs
from unsup.evaluate.units import bits_by_unit, context_of


@pytest.fixture(scope="module")
def digits():
    return unsup.load_data("digits")


def test_mean_error_and_count_are_those_of_the_examples(digits):
    model = unsup.create("made", digits.event, preset="tiny").eval()
    found = evaluate_likelihood(model, digits.test.x)
    with torch.no_grad():
        one_by_one = torch.cat([model.log_prob(x[None]) for x in digits.test.x]).double()
    assert found.n == 360
    assert found.nats == pytest.approx(-one_by_one.mean().item(), rel=1e-5)
    assert found.standard_error == pytest.approx(one_by_one.std().item() / math.sqrt(360), rel=1e-4)


def test_a_part_smaller_than_a_chunk_is_weighted_by_its_size(digits):
    model = unsup.create("made", digits.event, preset="tiny").eval()
    x = digits.train.x[: CHUNK + 3]
    scores = log_probs(model, x)
    assert len(scores) == CHUNK + 3
    assert evaluate_likelihood(model, x).nats == pytest.approx(-scores.mean().item())


def test_noise_of_a_bound_is_keyed_by_seed_and_position(digits):
    model = unsup.create("vae", digits.event, preset="tiny").eval()
    first = log_probs(model, digits.test.x, seed=1)
    assert torch.equal(first, log_probs(model, digits.test.x, seed=1))
    assert torch.equal(first[:CHUNK], log_probs(model, digits.test.x[:CHUNK], seed=1))
    assert not torch.equal(first, log_probs(model, digits.test.x, seed=2))


def test_training_mode_comes_back(digits):
    model = unsup.create("made", digits.event, hidden=(8,), dropout=0.5).train()
    first = log_probs(model, digits.test.x)
    assert model.training
    assert torch.equal(first, log_probs(model, digits.test.x))


def test_models_without_a_density_are_refused():
    class Silent(Model):
        def __init__(self, event: Event) -> None:
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def loss(self, batch, *, generator=None):
            return {"loss": self.weight.sum()}

    with pytest.raises(CapabilityError, match="no likelihood"):
        evaluate_likelihood(Silent(Event((2,), BINARY)), torch.zeros(3, 2))


def test_bits_of_rolls_are_per_step():
    event = Event((4, 3), BINARY, "sequence", open=True)
    batch = Batch(torch.zeros(2, 4, 3), lengths=torch.tensor([1, 4]))
    assert bits_by_unit(5 * math.log(2), event, None, batch) == {"step": pytest.approx(2.0)}  # 2.5 steps on average
    assert bits_by_unit(1.0, Event((4, 3), REAL, "sequence"), None, batch) == {}


@pytest.mark.parametrize(
    ("name", "options", "reach"), [("rnn", {}, 9), ("wavenet", {"layers": 2, "stacks": 1, "width": 4}, 4)]
)
def test_context_is_what_lies_in_the_window_and_in_the_receptive_field(name, options, reach):
    model = unsup.create(name, Event((9,), Support("nominal", 3), "sequence"), **options)
    lengths = [9, 2, 6]
    seen = [min(place, reach) for length in lengths for place in range(length)]
    found = context_of(model, Batch(torch.zeros(3, 9, dtype=torch.uint8), lengths=torch.tensor(lengths)))
    assert found == (max(seen), pytest.approx(sum(seen) / len(seen)))
