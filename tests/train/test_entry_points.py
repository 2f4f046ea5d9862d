"""What people pass first: data, arrays, names and numbers, where there is one meaning it works, else it is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import unsup
from unsup.core.errors import InputError
from unsup.evaluate.likelihood import log_probs
from unsup.evaluate.samples import draw_samples

X = np.random.default_rng(0).normal(size=(60, 3))
DATA = unsup.from_arrays(X)


def tiny(data=DATA, **options):
    return unsup.create("made", data, preset="tiny", **options)


def same(one, two) -> bool:
    return all(torch.equal(v, two.state_dict()[k]) for k, v in one.state_dict().items())


def test_a_model_is_created_for_data():
    assert same(tiny(), tiny(DATA.event))
    digits = unsup.load_data("digits", given="label")
    assert unsup.create("pixelcnn", digits, preset="tiny").given == digits.given
    assert unsup.create("pixelcnn", digits, preset="tiny", given=None).given is None
    assert unsup.create("histogram", digits).event == digits.event


@pytest.mark.parametrize("x", [X, X.tolist(), torch.from_numpy(X)], ids=["array", "list", "tensor"])
def test_arrays_are_data(x):
    assert unsup.load_data(x).digest == DATA.digest
    assert unsup.load_data(x, label=["a", "b"] * 30).labels == ("a", "b")
    one, two = tiny(), tiny()
    unsup.fit(one, x, steps=3, progress="off")
    unsup.fit(two, DATA, steps=3, progress="off")
    assert same(one, two)


def test_a_name_is_data():
    model = unsup.create("histogram", unsup.load_data("moons"))
    assert unsup.fit(model, "moons", progress="off").steps == 1


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_arrays_are_scored(kind):
    model, x = tiny(), X.astype(kind)
    expected = model.log_prob(torch.from_numpy(x))
    assert torch.equal(model.log_prob(x), expected)
    assert torch.equal(model.log_prob(x.T.copy().T[::-1].astype(x.dtype.newbyteorder())).flip(0), expected)
    assert torch.equal(log_probs(model, x), log_probs(model, torch.from_numpy(x)))
    assert unsup.evaluate_likelihood(model, x).n == 60


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int64, np.uint64, np.bool_])
def test_arrays_of_whole_numbers_are_scored(kind):
    bits = (X > 0).astype(kind)
    model = tiny(unsup.from_arrays(bits))
    assert torch.equal(model.log_prob(bits), model.log_prob(torch.from_numpy((X > 0).astype(np.uint8))))


WRONG = {
    "create: array": (lambda: unsup.create("made", X), "a NumPy array", "unsup.create('made', unsup.load_data(x))"),
    "create: shape": (lambda: unsup.create("made", (3,)), "a tuple", "event of one example"),
    "create: swapped": (lambda: unsup.create(DATA, "made"), "a Data", 'unsup.create("made", data)'),
    "create: path": (lambda: unsup.create("made", "x.csv"), "a str", "unsup.load_data(x)"),
    "create: seed": (lambda: tiny(seed=0.5), "seed=0.5", "int"),
    "create: huge seed": (lambda: tiny(seed=10**200), "seed=", "at most 100 digits"),
    "fit: name": (lambda: unsup.fit("made", DATA), "the name 'made'", "unsup.create('made', data)"),
    "fit: swapped": (lambda: unsup.fit(DATA, tiny()), "a Data", "for the model"),
    "fit: seed": (lambda: unsup.fit(tiny(), DATA, seed="x"), "seed='x'", "int"),
    "load_data: number": (lambda: unsup.load_data(5), "an int", "a path"),
    "load_data: data": (lambda: unsup.load_data(DATA), "a Data", "array"),
    "load_data: option": (lambda: unsup.load_data(X, labels=[0] * 60), "'labels'", "'label'"),
    "log_prob: data": (lambda: tiny().log_prob(DATA), "a Data", "data.test.x"),
    "log_prob: words": (lambda: tiny().log_prob([["a", "b", "c"]]), "a list of no numbers", "raw data"),
    "log_prob: ragged": (lambda: tiny().log_prob([[1, 2], [3]]), "a list of no numbers", "one shape"),
    "likelihood: data": (lambda: unsup.evaluate_likelihood(tiny(), DATA), "a Data", "data.test"),
    "likelihood: samples": (lambda: unsup.evaluate_likelihood(tiny(), X, samples=0), "samples=0", "at least 1"),
    "likelihood: seed": (lambda: unsup.evaluate_likelihood(tiny(), X, seed=None), "seed=None", "int"),
    "sample: word": (lambda: tiny().sample("3"), "n='3'", "an integer"),
    "sample: fraction": (lambda: tiny().sample(2.5), "n=2.5", "an integer"),
    "sample: seed": (lambda: tiny().sample(3, seed=1), "no seed", "manual_seed"),
    "sample: generator": (lambda: tiny().sample(3, generator=1), "generator=1", "manual_seed"),
    "samples: many": (
        lambda: draw_samples(tiny(), 10**15),
        "10^15".replace("10^15", "1,000,000,000,000,000"),
        "memory",
    ),
    "samples: seed": (lambda: draw_samples(tiny(), 2, seed=1.5), "seed=1.5", "int"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_has_no_meaning_says_what_to_pass(case):
    call, *words = WRONG[case]
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_numbers_of_numpy_are_numbers():
    assert tiny().sample(np.int64(3)).shape == (3, 3)
    assert draw_samples(tiny(), np.int32(3), seed=np.int64(1)).shape == (3, 3)
    assert len(unsup.load_data("moons", n=np.int64(100)).train) == len(unsup.load_data("moons", n=100).train)
    assert same(tiny(seed=np.uint8(3)), tiny(seed=3))
    assert tiny(hidden=np.int64(8)).config["hidden"] == (8,)
    assert tiny(hidden=8).config == tiny(hidden=(8,)).config
    fitted = unsup.fit(
        tiny(), DATA, steps=np.int16(2), betas=(np.float32(0.5), 0.9), compile=np.bool_(False), seed=np.int8(2)
    )
    assert fitted.steps == 2


# --- models that count ------------------------------------------------------------------------------------------------


def mixture(**options):
    return unsup.create("gaussian-mixture", DATA, components=2, tolerance=0.0, **options)


@pytest.mark.parametrize("length", ["steps", "epochs"])
def test_passes_are_honoured(length):
    assert unsup.fit(mixture(), DATA, **{length: 3}, progress="off").steps == 3
    assert unsup.fit(mixture(iterations=2), DATA, **{length: 3}, progress="off").steps == 3
    assert unsup.fit(unsup.create("histogram", DATA), DATA, **{length: 500}, progress="off").steps == 1


GRADIENTS = {
    "batch_size": 7, "accumulate": 2, "optimizer": "sgd", "lr": 0.5, "warmup": 3, "schedule": "linear",
    "weight_decay": 0.1, "betas": (0.5, 0.9), "eps": 0.1, "clip": 1.0, "ema": 0.9, "precision": "bfloat16",
    "compile": True, "shard": True,
}  # fmt: skip


def test_settings_of_gradients_are_refused():
    from unsup.train.settings import BY_GRADIENTS

    assert set(GRADIENTS) == set(BY_GRADIENTS)
    for name, value in GRADIENTS.items():
        with pytest.raises(InputError, match=f"{name}=.* but this GaussianMixture learns by counting"):
            unsup.fit(mixture(), DATA, **{name: value}, progress="off")
    with pytest.raises(InputError, match='learn="gradient"'):
        unsup.fit(mixture(), DATA, lr=0.5, progress="off")
    assert unsup.fit(mixture(learn="gradient"), DATA, steps=2, lr=0.5, batch_size=7, progress="off").steps == 2


def test_other_settings_change_how_counting_goes(tmp_path):
    often = unsup.fit(mixture(), DATA, steps=12, validate_every=1, progress="off")
    rarely = unsup.fit(mixture(), DATA, steps=12, validate_every=6, progress="off")
    counts = [sum("nats" in event for event in found.events) for found in (often, rarely)]
    assert counts == [12, 2]
