"""The linear probe: problems of known accuracy, the gradient at its optimum, and what must not matter to it."""

from __future__ import annotations

import math
import re
import time
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
from unsup.core.registry import model_class, names
from unsup.evaluate import probe as module
from unsup.evaluate.bench import Bench, Measuring
from unsup.evaluate.exam import Exam
from unsup.evaluate.probe import (
    CHUNK,
    MOST_TRAINING,
    encode_all,
    fingerprint,
    majority_share,
    neighbours_vote,
    probe,
    raw_features,
    training_rows,
    weighted_vote,
)
from unsup.evaluate.spread import effective_rank
from unsup.evaluate.untrained import prepare, untrained


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


# --- weighted votes ---------------------------------------------------------------------------------------------------


def by_loop(known, label, asked, k, temperature) -> list[int]:
    """The protocol, example by example; of equally near ones the first votes."""
    found = []
    for x in asked:
        cosines = [float(x @ b / (x.norm() * b.norm())) for b in known]
        near = sorted(range(len(known)), key=lambda i: (-cosines[i], i))[:k]
        votes: dict[int, float] = {}
        for i in near:
            votes[int(label[i])] = votes.get(int(label[i]), 0.0) + math.exp(cosines[i] / temperature)
        found.append(min(votes, key=lambda c: (-votes[c], c)))
    return found


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (200, 0.1), (7, 1e6)])
def test_a_weighted_vote_is_the_loop(k, temperature):
    known, asked, label = normal(90, 4), normal(60, 4, seed=1), 3 * classes(90, 3)
    expected = torch.tensor(by_loop(known, label, asked, k, temperature))
    for block in (2**22, 100):
        found = weighted_vote(known, label, asked, expected, k=k, temperature=temperature, block=block)
        assert found.value == 1
    wrong = expected.clone()
    wrong[:6] = 99
    assert weighted_vote(known, label, asked, wrong, k=k, temperature=temperature).value == 0.9


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (38, 0.5)])
def test_leaving_each_example_out_is_masking_the_diagonal(k, temperature):
    x, label = normal(40, 4), classes(40, 3)
    direction = x / x.norm(dim=1, keepdim=True)
    cosine = (direction @ direction.T).fill_diagonal_(-math.inf)
    nearest = cosine.topk(k)
    votes = torch.zeros(40, 3, dtype=torch.float64)
    votes.scatter_add_(1, label[nearest.indices], (nearest.values / temperature).exp())
    expected = votes.argmax(1)
    assert 0 < int((expected == label).sum()) < 40
    for i in range(40):
        others = torch.arange(40) != i
        asked, found = x[i].expand(2, -1), expected[i].expand(2)
        assert weighted_vote(x[others], label[others], asked, found, k=k, temperature=temperature).value == 1


def test_its_own_bank_votes_for_itself_and_infinite_temperature_counts_the_majority():
    x, label = normal(300, 5), classes(300, 7)
    assert weighted_vote(x, label, 4 * x, label, k=1).value == 1  # distinct points
    # One example of class 0 at the very place, and two of class 1 near it.
    known, own = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6], [-1.0, 0.0]]), torch.tensor([0, 1, 1, 1])
    asked, zero, one = torch.tensor([[2.0, 0.0]] * 2), torch.tensor([0, 0]), torch.tensor([1, 1])
    assert weighted_vote(known, own, asked, zero, k=3).value == 1
    assert weighted_vote(known, own, asked, one, k=3, temperature=1e9).value == 1


def test_equal_codes_vote_in_their_order_and_tiny_temperatures_do_not_underflow():
    known, label = torch.ones(5, 3), torch.tensor([2, 2, 1, 1, 1])
    asked = torch.ones(2, 3)
    assert weighted_vote(known, label, asked, torch.tensor([2, 2]), k=3).value == 1  # the first three
    assert weighted_vote(known, label, asked, torch.tensor([1, 1]), k=4).value == 1  # a tie: the lowest class
    x, y = normal(50, 3), classes(50, 3)
    assert weighted_vote(x, y, -x, y, temperature=1e-9) == weighted_vote(x, y, -x, y, k=1)


# --- the encoder is not trained ---------------------------------------------------------------------------------------


class Counter(Coder):
    """A broken model whose encoding counts the examples that it has seen, in a buffer."""

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64), persistent=False)

    def encode(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return super().encode(x)


class Learner(Coder):
    """A broken model that trains while it encodes."""

    def encode(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.linear.weight += 1e-3
        return super().encode(x)


def examined(model: type[Coder], keys: tuple[str, ...] = ("probe", "uniformity")):
    x = normal(400, 4).sign().relu()
    data = unsup.from_arrays(x.to(torch.uint8).numpy(), label=x[:, 0].long().numpy(), event=Event((4,), BINARY))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Exam(Bench(data, Measuring()), model(data.event)).figures(keys)


@pytest.mark.parametrize("broken", [Counter, Learner])
def test_an_encoder_that_changes_while_it_is_examined_is_refused(broken):
    figures, missing = examined(broken)
    assert not figures
    assert all("encoding changes parameters or buffers" in reason for reason in missing.values())
    figures, missing = examined(Coder)
    assert not missing
    assert set(figures) == {"probe", "uniformity"}


def test_the_untrained_encoder_is_another_draw_of_the_same_model_on_the_same_data():
    digits = unsup.load_data("digits", limit=300)
    model = unsup.create("vae", digits, preset="tiny", seed=3)
    exam = Exam(Bench(digits, Measuring(examples=60)), model)
    figures, _ = exam.figures(["probe", "nmi", "effective_rank"])
    fresh = untrained(model, digits)
    codes = encode_all(fresh, exam.bench.probed[0]), encode_all(fresh, exam.bench.probed[1])
    assert torch.equal(codes[0], exam.untrained_codes[0])
    label = exam.bench.probed[0].label, exam.bench.probed[1].label
    expected = probe(codes[0], label[0], codes[1], label[1]).value
    assert figures["probe"]["detail"]["untrained"] == expected
    assert figures["effective_rank"]["detail"]["untrained"] == pytest.approx(effective_rank(codes[1]))
    assert fresh.config == model.config
    assert not any(torch.equal(a, b) for a, b in zip(fresh.parameters(), model.parameters(), strict=True) if a.std())


def test_preparing_is_that_of_training():
    """A fit of one step at a tiny learning rate leaves what `prepare` of the same seed leaves."""
    digits = unsup.load_data("digits", limit=300)
    trained, own = (unsup.create("glow", digits, preset="tiny", seed=1) for _ in range(2))
    unsup.fit(trained, digits, steps=1, lr=1e-30, progress="off", seed=5, ema=0)
    prepare(own, digits, seed=5)
    fresh = unsup.create("glow", digits, preset="tiny", seed=1)
    assert fingerprint(own) != fingerprint(fresh)  # it prepares
    for (name, a), b in zip(trained.named_parameters(), own.parameters(), strict=True):
        assert torch.allclose(a, b), name


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (torch.zeros(400, dtype=torch.int64), "training examples have the same class"),
        (torch.arange(400), r"there are \d+ labelled training examples of \d+ classes"),
        (None, "the data has no labels"),
    ],
)
def test_labels_that_teach_nothing_are_named(label, reason):
    x = normal(400, 4).sign().relu().to(torch.uint8).numpy()
    data = unsup.from_arrays(x, label=None if label is None else label.numpy(), event=Event((4,), BINARY))
    figures, missing = Exam(Bench(data, Measuring()), Coder(data.event)).figures(["probe", "ari", "effective_rank"])
    assert set(figures) == {"effective_rank"}
    assert all(re.search(reason, told) for told in missing.values()), missing


def test_few_labels_takes_as_many_as_asked(monkeypatch):
    sizes = []
    original = module._predictions
    monkeypatch.setattr(module, "_predictions", lambda *a: sizes.append(len(a[0])) or original(*a))
    label = classes(300, 4)
    module.few_labels(normal(300, 3), label, normal(40, 3, seed=1), label[:40], labels=6)
    assert max(sizes) == 24


def small(name: str):
    """Data that a model supports, with three classes."""
    label = classes(120, 3)
    g = torch.Generator().manual_seed(0)
    bits = (torch.rand(120, 6, generator=g) < 0.2 + 0.3 * label[:, None]).to(torch.uint8)
    pictures = torch.randint(0, 200, (120, 3, 16, 16), generator=g, dtype=torch.uint8) + 20 * label.byte().view(
        -1, 1, 1, 1
    )
    for x, event in (
        (normal(120, 4).float() + label[:, None], Event((4,), REAL)),
        (bits, Event((6,), BINARY)),
        (bits[:, :4].view(120, 1, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3), Event((1, 8, 8), BINARY)),
        (bits, Event((6,), Support("nominal", 2), layout="sequence")),
        (pictures, Event((3, 16, 16), Support("ordinal", 256), "image")),
    ):
        if model_class(name).refusal(event) is None:
            more = {"unlabelled": x.numpy()} if "unlabelled" in model_class(name).streams else {}
            return unsup.from_arrays(x.numpy(), label=label.numpy(), event=event, **more)
    raise AssertionError(f"no data for {name}")


@pytest.mark.parametrize("name", [n for n in names() if issubclass(model_class(n), CanEncode)])
def test_every_encoder_has_an_untrained_one_and_is_left_unchanged(name):
    data = small(name)
    model = unsup.create(name, data, preset="tiny", seed=0)
    prepare(model, data)
    figures, missing = Exam(Bench(data, Measuring()), model.eval()).figures(["effective_rank"])
    assert not missing
    detail = figures["effective_rank"]["detail"]
    assert detail["untrained"] >= 1
    assert figures["effective_rank"]["floor"] >= 1


class SlowAtFirst(Coder):
    """An encoder that is slow while it has the parameters of the start."""

    def encode(self, x: Tensor) -> Tensor:
        if not bool((self.linear.weight == 1).all()):
            time.sleep(1.2)
        return super().encode(x)


def test_a_figure_is_kept_where_only_the_untrained_encoder_takes_too_long():
    data = unsup.from_arrays(normal(60, 4).sign().relu().to(torch.uint8).numpy(), event=Event((4,), BINARY))
    model = SlowAtFirst(data.event)
    nn.init.ones_(model.linear.weight)
    bench = Bench(data, Measuring())
    figures, missing = Exam(bench, model, seconds=1.0).figures(["uniformity"])
    assert not missing
    assert figures["uniformity"]["detail"]["untrained"] is None
    assert figures["uniformity"]["floor"] is not None
