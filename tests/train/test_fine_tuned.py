"""Fine-tuning: the loss at the start, what learns and what does not, and encoders that cannot."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError
from unsup.core.model import CanEncode, Model
from unsup.evaluate.bench import Bench, Measuring
from unsup.evaluate.exam import Exam
from unsup.evaluate.moments import set_running_moments
from unsup.evaluate.probe import encode_all, fingerprint
from unsup.nn.norm import BatchNorm
from unsup.train.fine_tuned import FineTuned, fine_tuning


@pytest.fixture(scope="module")
def digits():
    return unsup.load_data("digits", limit=300)


def test_the_loss_starts_at_chance_and_is_that_of_a_linear_classifier_of_standardised_codes(digits):
    encoder = unsup.create("vae", digits, preset="tiny", seed=0)
    codes = encode_all(encoder, digits.train)
    model = FineTuned.on(encoder, codes, 10, digits.train.x)
    batch = digits.train.batch(torch.arange(50))
    assert torch.allclose(model.loss(batch)["loss"], torch.full((50,), math.log(10)))
    with torch.no_grad():
        model.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    scaled = (codes[:50] - codes.mean(0)) / codes.std(0, correction=0)
    expected = cross_entropy(scaled @ model.linear.weight.T, batch.label, reduction="none")
    assert torch.allclose(model.loss(batch)["loss"], expected, atol=1e-4)
    assert torch.allclose(model.predict_proba(batch.x).sum(1), torch.ones(50))


def test_a_code_that_is_constant_has_no_part(digits):
    encoder = unsup.create("vae", digits, preset="tiny", seed=0)
    codes = encode_all(encoder, digits.train)
    codes[:, 0] = 7.0
    model = FineTuned.on(encoder, codes, 10, digits.train.x)
    torch.nn.init.ones_(model.linear.weight)
    model.loss(digits.train.batch(torch.arange(9)))["loss"].sum().backward()
    assert not model.linear.weight.grad[:, 0].any()


def test_only_what_the_codes_depend_on_learns_and_only_in_a_copy(digits):
    encoder = unsup.create("vae", digits, preset="tiny", seed=0)
    model = FineTuned.on(encoder, encode_all(encoder, digits.train), 10, digits.train.x)
    before, start = fingerprint(encoder), {k: v.clone() for k, v in model.named_parameters()}
    fitted = unsup.fit(model, digits, steps=20, progress="off")
    assert fingerprint(encoder) == before
    changed = {k for k, v in model.named_parameters() if not torch.equal(v, start[k])}
    trained = {k for k, v in model.named_parameters() if v.requires_grad}
    assert changed == trained
    assert {"linear.weight", "linear.bias"} < trained < set(start)  # the encoder, but not the decoder
    assert fitted.validator == "accuracy"


def test_it_learns_and_is_compared_with_supervised_learning(digits):
    encoder = unsup.create("vae", digits, preset="tiny", seed=0)
    exam = Exam(Bench(digits, Measuring()), encoder)
    before = fingerprint(encoder)
    found = fine_tuning(exam, 0.1, progress="off")
    assert fingerprint(encoder) == before
    assert found["value"] > 0.5
    assert found["detail"]["untrained"] > 0.5
    assert found["n"] == 360


class Frozen(Model, CanEncode):
    """Codes without a gradient."""

    def __init__(self, event):
        self.scale = torch.nn.Parameter(torch.ones(()))

    def loss(self, batch: Batch, *, generator=None):
        return {"loss": self.scale.square()}

    @torch.no_grad()
    def encode(self, x):
        return self.scale * x.float().flatten(1)


def test_encoders_that_cannot_are_refused(digits):
    model = Frozen(digits.event)
    with pytest.raises(CapabilityError, match="the codes of Frozen have no gradient"):
        FineTuned.on(model, encode_all(model, digits.train), 10, digits.train.x)
    given = unsup.load_data("digits", limit=100, given="label")
    model = unsup.create("vae", given, preset="tiny", given=given.given)
    with pytest.raises(CapabilityError, match="depend on a condition"):
        FineTuned.on(model, torch.zeros(10, 4), 10, given.train.x)


def test_running_averages_follow_the_batches_of_fine_tuning(digits):
    """A network with batch normalisation is trained as supervised learning does, from the moments of the examples."""
    encoder = unsup.create("simclr", digits.event, preset="tiny", seed=0).eval()
    before = fingerprint(encoder)
    model = FineTuned.on(encoder, encode_all(encoder, digits.train), 10, digits.train.x)
    assert fingerprint(encoder) == before
    (average,) = [b for name, b in model.named_buffers() if name.endswith("backbone.stages.0.2.running_mean")]
    start = average.clone()
    assert bool((start != 0).any())
    batch = digits.train.batch(torch.arange(50))
    model.eval().loss(batch)
    assert torch.equal(average, start)
    model.train().loss(batch)
    assert not torch.equal(average, start)


@pytest.mark.parametrize(
    ("name", "options"), [("simclr", {}), ("simclr", {"net": "resnet18", "width": 0.1}), ("rotation", {})], ids=str
)
@pytest.mark.parametrize("trained", [False, True])
def test_the_classifier_is_given_standardised_codes_in_training(digits, name, options, trained):
    """Batch moments are those of training: running averages of random parameters say nothing about the codes."""
    encoder = unsup.create(name, digits.event, preset="tiny", seed=0, **options)
    if trained:
        unsup.fit(encoder, digits, steps=5, batch_size=32, progress="off")
    rows = digits.train.label.argsort()  # sorted by class
    x = digits.train.x[rows]
    model = FineTuned.on(encoder, encode_all(encoder, x), 10, x)
    given = []
    model.linear.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    model.eval().predict_proba(x)
    assert torch.allclose(given.pop().mean(0), torch.zeros(model.linear.in_features), atol=1e-4)
    for batch in torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).split(len(x) // 2):
        model.train().predict_proba(x[batch])
    found = torch.cat(given)
    assert bool(torch.isfinite(model.std).all())
    assert float(found.mean(0).abs().max()) < 0.2
    assert torch.allclose(found.std(0), torch.ones(model.linear.in_features), atol=0.2)


def test_running_moments_are_means_over_batches(digits):
    encoder = unsup.create("simclr", digits.event, preset="tiny", seed=0).double().eval()
    first = encoder.backbone.stages[0]  # flat pixels, a linear layer, a batch normalisation
    inputs = []
    first[1].register_forward_pre_hook(lambda _, given: inputs.append(given[0].flatten(1)))
    assert set_running_moments(encoder, digits.train.x, size=50)
    batches = [first[1](x) for x in inputs.copy()]
    assert sum(map(len, batches)) == len(digits.train)
    assert min(map(len, batches)) >= 50
    assert torch.allclose(first[2].running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    assert torch.allclose(first[2].running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert first[2].momentum == BatchNorm(1).momentum
    assert not encoder.training
