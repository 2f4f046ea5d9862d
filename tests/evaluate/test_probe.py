"""The linear probe: problems of known accuracy, the gradient at its optimum, and what must not matter to it."""

from __future__ import annotations

import warnings

import pytest
import torch
from scipy.special import ndtr
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import one_hot

import unsup
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.model import CanEncode, Model
from unsup.evaluate import probe as module
from unsup.evaluate.probe import (
    CHUNK,
    MOST_TRAINING,
    encode_all,
    majority_share,
    neighbours_vote,
    probe,
    raw_features,
    training_rows,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.randint(k, (n,), generator=torch.Generator().manual_seed(seed))


# --- accuracy ---------------------------------------------------------------------------------------------------------


def test_two_gaussians_reach_bayes():
    """Classes N(±a, I) along one direction: the best any rule can do is Φ(a)."""
    label = classes(24_000, 2)
    x = normal(24_000, 6)
    x[:, 2] += 2.0 * label - 1
    found = probe(x[:4000], label[:4000], x[4000:], label[4000:])
    assert found.value == pytest.approx(ndtr(1.0), abs=0.01)
    assert found.low < found.value < found.high


def test_features_that_hold_the_class_give_all_and_shuffled_classes_give_chance():
    label = classes(900, 5)
    found = probe(one_hot(label[:600]).float(), label[:600], one_hot(label[600:]).float(), label[600:])
    assert (found.value, found.high) == (1, 1)
    assert found.low < 1
    chance = probe(normal(2000, 8), classes(2000, 5, 1), normal(3000, 8, seed=2), classes(3000, 5, 3))
    assert chance.value == pytest.approx(0.2, abs=0.03)


def test_the_fit_is_the_minimum_of_the_stated_loss(monkeypatch):
    """At λ: the gradient of mean cross entropy + λ/2 ‖W‖² vanishes."""
    fitted = []

    class Spy(LogisticRegression):
        def predict(self, x):
            fitted.append((self.coef_.copy(), self.intercept_.copy()))
            return super().predict(x)

    monkeypatch.setattr("sklearn.linear_model.LogisticRegression", Spy)
    x, y = normal(300, 4).float().numpy(), classes(300, 3).numpy()
    module._predictions(x, y, x[:1], (1.0, 0.01))
    for penalty, (weight, bias) in zip((1.0, 0.01), fitted, strict=True):
        w, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (weight, bias))
        logits = torch.from_numpy(x).double() @ w.T + b
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(y)) + penalty / 2 * w.square().sum()
        assert max(g.abs().max() for g in torch.autograd.grad(loss, (w, b))) < 3e-4


def test_the_penalty_is_chosen_without_the_test_examples(monkeypatch):
    """Ten true features of 400 and few examples: a strong λ is best, and the choice is the same whatever the test."""
    asked = []
    original = module._predictions
    monkeypatch.setattr(module, "_predictions", lambda *a: asked.append(a[3]) or original(*a))
    x, truth = normal(500, 400), normal(10, seed=7)
    label = (x[:, :10] @ truth > 0).long()
    probe(x[:150], label[:150], x[150:], label[150:])
    probe(x[:150], label[:150], x[150:], 1 - label[150:])
    (first, chosen), (_, again) = asked[:2], asked[2:]
    assert first == module.PENALTIES
    assert chosen == again
    assert len(chosen) == 1
    assert chosen[0] in module.PENALTIES[:3]


def test_scale_shift_and_constant_features_do_not_matter():
    label = classes(700, 3)
    x = normal(700, 5) + 0.8 * one_hot(label, 5)
    parts = slice(None, 400), slice(400, None)

    def found(v: Tensor) -> float:
        return probe(v[parts[0]], label[parts[0]], v[parts[1]], label[parts[1]]).value

    scaled = x * 10.0 ** torch.arange(-3, 2) + 50
    padded = torch.cat([x, torch.full((700, 3), 0.1, dtype=torch.float64)], 1)
    padded[400:, -1] = 1e9  # constant in training: of no use, and of no harm
    assert found(scaled) == pytest.approx(found(x), abs=0.004)
    assert found(padded) == found(x)
    constant = torch.ones(700, 2)
    assert found(constant) == majority_share(label[:400], label[400:])


def test_classes_that_only_the_test_has_are_missed_and_one_class_alone_is_named():
    train, test = torch.tensor([0, 1] * 50), torch.tensor([0, 1, 2, 7] * 10)
    found = probe(one_hot(train, 8).float(), train, one_hot(test, 8).float(), test)
    assert found.value == 0.5
    alone = probe(normal(30, 2), torch.full((30,), 4), normal(20, 2), torch.tensor([4] * 5 + [1] * 15))
    assert alone.value == 0.25
    few = probe(normal(2, 2), torch.tensor([0, 1]), normal(20, 2), torch.zeros(20, dtype=torch.int64))
    assert 0 <= few.low <= few.value <= few.high <= 1


def test_more_than_the_limit_are_cut_by_the_seed(monkeypatch):
    rows = training_rows(3 * MOST_TRAINING, seed=1)
    assert len(rows.unique()) == MOST_TRAINING
    assert not torch.equal(rows, training_rows(3 * MOST_TRAINING, seed=2))
    sizes = []
    original = module._predictions
    monkeypatch.setattr(module, "_predictions", lambda *a: sizes.append(len(a[0])) or original(*a))
    monkeypatch.setattr(module, "MOST_TRAINING", 100)
    label = classes(500, 2)
    arguments = normal(500, 2), label, normal(50, 2, seed=1), label[:50]
    assert probe(*arguments) == probe(*arguments)
    assert sizes[:2] == [80, 100]


def test_no_warning_leaks_where_it_does_not_converge(monkeypatch):
    monkeypatch.setattr(module, "_MOST_STEPS", 2)
    label = classes(200, 3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        probe(normal(150, 20), label[:150], normal(50, 20), label[150:])
    assert not seen


def test_what_cannot_be_probed_is_refused():
    x, y = normal(20, 3), classes(20, 2)
    with pytest.raises(InputError, match=r"train of shape \(20, 3\) and test of shape \(20, 2\)"):
        probe(x, y, x[:, :2], y)
    with pytest.raises(InputError, match=r"labels of shape \(19,\)"):
        probe(x, y[:19], x, y)
    with pytest.raises(InputError, match="1 of 20 examples of test"):
        probe(x, y, x.index_fill(0, torch.tensor([3]), torch.nan), y)


# --- features ---------------------------------------------------------------------------------------------------------


def test_raw_features_keep_numbers_and_split_categories():
    event = Event((3,), (Support("ordinal", 9, low=-4), Support("nominal", 3), REAL))
    x = torch.tensor([[-4.0, 2, 0.5], [4.0, 0, 7.25]])
    assert raw_features(x, event).tolist() == [[-4, 0, 0, 1, 0.5], [4, 1, 0, 0, 7.25]]
    pixels = torch.tensor([[[[0, 255], [3, 4]]]], dtype=torch.uint8)
    assert raw_features(pixels, Event((1, 2, 2), Support("ordinal", 256))).tolist() == [[0, 255, 3, 4]]
    with pytest.raises(InputError, match="75,000 columns"):
        raw_features(torch.zeros(1, 300), Event((300,), Support("nominal", 250)))


class Coder(Model, CanEncode):
    """Codes whose noise shows in which mode they were made."""

    def __init__(self, event: Event) -> None:
        self.linear = nn.Linear(event.dims, 3)
        self.dropout = nn.Dropout(0.5)

    def loss(self, batch, *, generator=None):
        return {"loss": self.encode(batch.x).sum()}

    def encode(self, x: Tensor) -> Tensor:
        return self.dropout(self.linear(x.float())).view(-1, 3, 1)


def test_all_examples_are_encoded_in_order_in_evaluation_mode():
    x = normal(CHUNK + 7, 4).sign().relu()
    model = Coder(Event((4,), BINARY)).train()
    found = encode_all(model, x)
    assert model.training
    assert not found.requires_grad
    expected = x.float() @ model.linear.weight.detach().T + model.linear.bias.detach()
    assert torch.allclose(found, expected, atol=1e-5)
    assert not encode_all(model.eval(), x[:2]).requires_grad
    assert not model.training


def test_models_without_codes_are_refused():
    event = Event((4,), BINARY)
    with pytest.raises(CapabilityError, match="no codes"):
        encode_all(unsup.create("made", event, hidden=(4,)), torch.zeros(2, 4))


def test_the_most_frequent_class_is_that_of_training():
    assert majority_share(torch.tensor([3, 3, 1, 2]), torch.tensor([1, 1, 1, 3])) == 0.25
    assert majority_share(torch.tensor([5]), torch.tensor([0, 1])) == 0


def test_pixels_of_digits_are_nearly_separable():
    data = unsup.load_data("digits")
    features = [raw_features(split.x, data.event) for split in (data.train, data.test)]
    found = probe(features[0], data.train.label, features[1], data.test.label)
    assert found.value > 0.95
    assert majority_share(data.train.label, data.test.label) < 0.13


def test_columns_that_are_constant_but_for_rounding_do_not_vote():
    """Test examples of a column that was constant among the known ones, or that varies by rounding only."""
    g = torch.Generator().manual_seed(0)
    label, true = (torch.randint(0, 2, (n,), generator=g) for n in (600, 300))
    x, other = (torch.randn(len(y), 2, generator=g) + 3 * y[:, None] for y in (label, true))
    clean = neighbours_vote(x, label, other, true)

    def jittered(v: torch.Tensor) -> torch.Tensor:
        noise = 1e-15 * torch.randn(len(v), 20, generator=g, dtype=torch.float64)
        return torch.cat([v.double(), 0.1 + noise, torch.full((len(v), 1), 0.1, dtype=torch.float64)], 1)

    shifted = jittered(other)
    shifted[:, -1] += 1e-7 * torch.randn(300, generator=g)
    assert neighbours_vote(jittered(x), label, shifted, true) == clean
    constant = torch.ones(600, 1), torch.ones(300, 1)
    share = float((true == label.bincount().argmax()).double().mean())
    assert neighbours_vote(constant[0], label, constant[1], true).value == pytest.approx(share)
