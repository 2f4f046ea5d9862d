"""What losses are told, resumed bit for bit: time, further streams, lengths; and data that lacks what a model needs."""

from __future__ import annotations

import dataclasses
import json
import math
import os

import pytest
import torch
from torch import nn
from toys import (
    BITS,
    Killed,
    Ramp,
    SemiSupervised,
    Toy,
    Unigram,
    binary_data,
    labelled_data,
    real_data,
    registered,  # noqa: F401 - a fixture for all
    sequences,
)

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, labels
from unsup.core.model import HasDensity, IsConditional, Model
from unsup.core.storage import load_tensors
from unsup.data import Data, Split
from unsup.evaluate.likelihood import log_probs
from unsup.train.runs import Run
from unsup.train.trainer import fit


def same(a: Run, b: Run) -> bool:
    (one, left), (other, right) = (load_tensors(run.checkpoint("last")) for run in (a, b))
    records = {**left, "seconds": 0} == {**right, "seconds": 0}
    return records and one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def killed_and_whole(build, data: Data, tmp_path, *, at: int, **settings) -> tuple[Model, Model]:
    """A model trained in one go, and one whose run was killed at its loss number ``at`` and gone on with."""
    settings = {"checkpoint_seconds": 0, "progress": "off", **settings}
    whole, killed, again = build(), build(), build()
    fit(whole, data, out=tmp_path / "whole", **settings)
    killed.kill_at = at
    with pytest.raises(Killed):
        fit(killed, data, out=tmp_path / "killed", **settings)
    done = load_tensors(Run(tmp_path / "killed").checkpoint("last"))[1]["done"]
    assert 0 < done < settings["steps"]
    fit(again, data, out=tmp_path / "killed", resume=True, **settings)
    assert same(Run(tmp_path / "whole"), Run(tmp_path / "killed"))
    return whole, again


# --- time -------------------------------------------------------------------------------------------------------------


def ramp(data: Data) -> Ramp:
    return Ramp(data.event, steps=10).double()


def test_time_is_told_before_and_after_a_step():
    data = real_data(20)
    model = ramp(data)
    fit(model, data, steps=6, batch_size=8, progress="off")  # two batches an epoch
    during = [("loss", step, 6, step // 2) for step in range(6)]
    after = [("after", step + 1, 6, (step + 1) // 2) for step in range(6)]
    assert model.times == [t for pair in zip(during, after, strict=True) for t in pair]


def test_a_ramp_in_steps_goes_on_bit_for_bit(tmp_path):
    data = real_data(20)
    whole, again = killed_and_whole(lambda: ramp(data), data, tmp_path, at=11, steps=14, batch_size=8, lr=0.1)
    assert torch.equal(whole.w, again.w)
    assert torch.equal(whole.teacher, again.teacher)
    assert float(whole.w.detach().abs().max()) > 0


def test_the_ramp_weighs_what_it_says():
    """With the rate constant and no noise to speak of, the first step sees a weight of 0 and moves nothing."""
    data = real_data(20)
    model = ramp(data)
    fit(model, data, steps=1, batch_size=8, optimizer="sgd", progress="off", validator="newest")
    assert torch.equal(model.w.detach(), torch.zeros(2, dtype=torch.float64))


# --- streams ----------------------------------------------------------------------------------------------------------


def classifier(data: Data) -> SemiSupervised:
    torch.manual_seed(0)
    return SemiSupervised(data.event).double()


def test_streams_go_on_bit_for_bit_from_the_middle_of_an_epoch(tmp_path):
    data = labelled_data()  # three batches of 12 an epoch; the stream has an epoch of its own
    whole, again = killed_and_whole(lambda: classifier(data), data, tmp_path, at=5, steps=11, batch_size=12)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), again.parameters(), strict=True))


def test_every_example_of_a_stream_is_seen_as_often():
    data, seen = labelled_data(more=72), []

    class Watching(SemiSupervised):
        def loss(self, batch, *, generator=None):
            seen.append(batch["unlabelled"].x)
            return super().loss(batch, generator=generator)

    fit(Watching(data.event).double(), data, steps=6, batch_size=12, progress="off")  # 6 · 36 are 3 epochs of 72
    rows, counts = torch.cat(seen).unique(dim=0, return_counts=True)
    assert len(rows) == 72
    assert counts.tolist() == [3] * 72


# --- what data must have ----------------------------------------------------------------------------------------------


class Conditional(Model, HasDensity, IsConditional):
    """p(x | c) of bits: a logit for each entry and class."""

    def __init__(self, event: Event, *, given: Event | None = None) -> None:
        self.take_condition(given)
        self.logits = nn.Parameter(torch.zeros(max(1, self.classes), *event.shape))

    def loss(self, batch, *, generator=None):
        return {"loss": -self._log_prob(batch, samples=1, generator=generator)}

    def prepare(self, batch, *, generator):
        if self.given is not None:
            self.count_condition(batch)

    def _log_prob(self, batch, *, samples, generator):
        rows = torch.zeros(len(batch), dtype=torch.int64) if batch.given is None else batch.given
        return torch.distributions.Bernoulli(logits=self.logits[rows]).log_prob(batch.x.float()).sum(1)


def conditioned(data: Data, classes: int = 2) -> Data:
    """Bits whose first entry decides what they are conditioned on."""
    parts = {
        name: dataclasses.replace(s, given=s.x[:, 0].long())
        for name, s in (("train", data.train), ("validation", data.validation), ("test", data.test))
    }
    return dataclasses.replace(data, given=labels(classes), **parts)


def test_a_conditional_model_learns_and_is_kept_by_its_conditional_likelihood():
    data = conditioned(binary_data())
    model = Conditional(BITS, given=data.given)
    fitted = fit(model, data, steps=400, lr=0.05, batch_size=400, progress="off")
    frequency = data.train.x[:, 0].float().mean()
    torch.testing.assert_close(model.log_prior.exp()[1], frequency, atol=0.01, rtol=0)
    assert model.logits[0, 0] < -2 < 2 < model.logits[1, 0]
    scores = model.log_prob(data.validation.x, given=data.validation.given).detach()
    assert fitted.validation.nats == pytest.approx(-float(scores.double().mean()), rel=1e-6)


@pytest.mark.parametrize(
    ("build", "data", "told"),
    [
        (
            lambda: Conditional(BITS, given=labels(2)),
            binary_data(),
            r"conditioned on nominal\(2\), but this data has no conditions; load data with conditions",
        ),
        (
            lambda: Conditional(BITS),
            conditioned(binary_data()),
            r"built without a condition, but this data is conditioned on nominal\(2\); create it with given=data.given",
        ),
        (
            lambda: Conditional(BITS, given=labels(3)),
            conditioned(binary_data()),
            r"conditioned on nominal\(3\), but this data is conditioned on nominal\(2\); create it with",
        ),
        (
            lambda: Conditional(BITS, given=labels(2)),
            dataclasses.replace(binary_data(), given=labels(2)),
            "its training split has none",
        ),
        (
            lambda: SemiSupervised(Event((2,), REAL)),
            real_data(),
            r"needs a stream 'unlabelled', which this data does not have; name it with --unlabelled PATH",
        ),
        (
            lambda: SemiSupervised(Event((2,), REAL)),
            dataclasses.replace(labelled_data(), train=dataclasses.replace(labelled_data().train, label=None)),
            r"needs labels, but this data has none; name their column with --label",
        ),
        (lambda: Toy(Event((5,), BINARY)), binary_data(), r"was built for vector of 5, binary.*event=data.event"),
    ],
)
def test_data_without_what_a_model_needs_is_refused_in_one_line(build, data, told, tmp_path):
    with pytest.raises(InputError, match=told) as error:
        fit(build(), data, out=tmp_path / "r", steps=1, progress="off")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "r").exists()


def test_a_second_domain_is_asked_for_by_its_option():
    data = unsup.load_data("digits", limit=20)
    model = unsup.create("cyclegan", data.event, preset="tiny")
    with pytest.raises(InputError, match=r"stream 'domain_b', which digits does not have; .*--domain-b PATH"):
        fit(model, data, steps=1, progress="off")


# --- lengths ----------------------------------------------------------------------------------------------------------


def test_sequences_of_different_lengths_learn_the_frequencies_of_their_tokens():
    data = sequences()
    model = Unigram(data.event)
    fit(model, data, steps=600, lr=0.05, batch_size=50, progress="off")
    kept = data.train.x[~data.event.padding(data.train.lengths)]
    frequency = kept.bincount(minlength=3) / len(kept)
    torch.testing.assert_close(model.logits.softmax(0), frequency, atol=2e-3, rtol=0)
    # Bits per entry that is no padding: at the maximum of likelihood, the entropy of the tokens.
    found = unsup.evaluate_likelihood(model, data.test)
    entropy = -float((frequency * frequency.log2()).sum())
    assert found.bits_per_dim == pytest.approx(entropy, rel=1e-4)
    total, entries = -float(log_probs(model, data.test).sum()), int(data.test.lengths.sum())
    assert found.bits_per_dim == pytest.approx(total / entries / math.log(2), rel=1e-12)
    assert found.nats == pytest.approx(total / len(data.test), rel=1e-12)
    assert found.to_json()["bits_per_dim"] == found.bits_per_dim


@pytest.mark.parametrize("padding", [2, 99, -7])
def test_padding_changes_nothing(padding):
    found = []
    for fill in (0, padding):
        data = sequences(padding=fill)
        model = Unigram(data.event)
        fitted = fit(model, data, steps=20, lr=0.05, progress="off")
        found.append((model.logits.detach(), fitted.validation, unsup.evaluate_likelihood(model, data.test)))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


def test_what_lies_outside_within_the_length_is_refused():
    data = sequences()
    x = data.test.x.clone()
    x[3, 0] = 9
    with pytest.raises(InputError, match="1 of 50 examples have values outside"):
        unsup.evaluate_likelihood(Unigram(data.event), dataclasses.replace(data.test, examples=x))


def test_a_model_that_takes_no_lengths_refuses_open_events():
    with pytest.raises(InputError, match="takes examples of equal length only"):
        Toy(sequences().event)


# --- weights in evaluation --------------------------------------------------------------------------------------------


def test_weights_count_in_a_likelihood():
    data, model = binary_data(6), Toy(BITS)
    with torch.no_grad():
        model.logits.copy_(torch.arange(6))
    weight = torch.tensor([2.0, 1, 0, 1, 2, 0])
    weighted = unsup.evaluate_likelihood(model, dataclasses.replace(data.train, weight=weight))
    twice = unsup.evaluate_likelihood(model, data.train.take(torch.tensor([0, 0, 1, 3, 4, 4])))
    assert weighted.nats == pytest.approx(twice.nats, rel=1e-12)
    assert weighted.n == 4
    alike = unsup.evaluate_likelihood(model, dataclasses.replace(data.train, weight=torch.full((6,), 0.3)))
    plain = unsup.evaluate_likelihood(model, data.train)
    assert alike.standard_error == pytest.approx(plain.standard_error, rel=1e-6)
    assert alike.nats == pytest.approx(plain.nats, rel=1e-6)
    with pytest.raises(InputError, match="add up to 0"):
        unsup.evaluate_likelihood(model, dataclasses.replace(data.train, weight=torch.zeros(6)))


def test_weights_of_sequences_weigh_their_entries():
    data, model = sequences(8), Unigram(sequences(8).event)
    weight = torch.tensor([1.0, 0, 0, 2, 0, 0, 0, 0])
    found = unsup.evaluate_likelihood(model, dataclasses.replace(data.test, weight=weight))
    twice = unsup.evaluate_likelihood(model, data.test.take(torch.tensor([0, 3, 3])))
    assert (found.nats, found.bits_per_dim) == pytest.approx((twice.nats, twice.bits_per_dim), rel=1e-12)


def test_a_likelihood_of_a_batch_has_its_lengths():
    data, model = sequences(8), Unigram(sequences(8).event)
    batch = Batch(data.test.x, lengths=data.test.lengths)
    assert unsup.evaluate_likelihood(model, batch) == unsup.evaluate_likelihood(model, data.test)


# --- precision --------------------------------------------------------------------------------------------------------


def test_data_that_need_float64_keep_their_places():
    """Values at a billion, give or take one, are the same number in float32."""
    generator = torch.Generator().manual_seed(0)
    x = 1e9 + torch.randn(400, 2, generator=generator, dtype=torch.float64)
    event = Event((2,), REAL, precision="float64")
    data = Data(None, event, Split(x[:300]), Split(x[300:350]), Split(x[350:]))
    model = unsup.create("made", event, preset="tiny")
    fitted = fit(model, data, steps=150, progress="off")
    gaussian = 0.5 * math.log(2 * math.pi * math.e)  # nats an entry
    assert fitted.validation.nats / 2 == pytest.approx(gaussian, abs=0.2)
    samples = model.sample(200, generator=torch.Generator().manual_seed(1))
    assert samples.dtype == torch.float64
    assert len(samples.unique()) > 390
    assert abs(float(samples.mean()) - 1e9) < 0.5


# --- run folders ------------------------------------------------------------------------------------------------------


def test_a_run_of_an_older_layout_is_refused_in_one_line(tmp_path):
    fit(Toy(BITS), binary_data(), out=tmp_path / "r", steps=1, progress="off")
    path = tmp_path / "r" / "config.json"
    record = json.loads(path.read_text())
    assert record["model"]["layout"] == 2
    del record["model"]["layout"]
    path.write_text(json.dumps(record))
    told = "has layout 1, but this version of unsup reads layout 2"
    for opened in (
        lambda: unsup.open_run(tmp_path / "r"),
        lambda: unsup.load(tmp_path / "r"),
        lambda: Run(tmp_path / "r").model,
        lambda: fit(Toy(BITS), binary_data(), out=tmp_path / "r", resume=True, steps=1, progress="off"),
    ):
        with pytest.raises(InputError, match=told) as error:
            opened()
        assert "\n" not in str(error.value)


def test_a_run_gives_its_model_back(tmp_path):
    model = Toy(BITS)
    fit(model, binary_data(), out=tmp_path / "r", steps=20, lr=0.1, progress="off")
    for found in (unsup.load(tmp_path / "r"), unsup.open_run(tmp_path / "r").model):
        assert torch.equal(found.logits, model.logits)
        assert not found.training
    fresh = unsup.open_run(tmp_path / "r").new_model()
    assert torch.equal(fresh.logits, torch.zeros(6))


def test_a_run_is_not_gone_on_with_on_data_that_has_changed(tmp_path):
    data = binary_data()
    fit(Toy(BITS), data, out=tmp_path / "r", steps=2, progress="off")
    x = data.train.x.clone()
    x[7, 2] = 1 - x[7, 2]
    changed = dataclasses.replace(data, train=Split(x))
    differ = "its examples, or names of its classes or columns, differ"
    said = f"this data has changed since .* was started: {differ}; restore it"
    with pytest.raises(InputError, match=said):
        fit(Toy(BITS), changed, out=tmp_path / "r", resume=True, steps=2, progress="off")
    fit(Toy(BITS), data, out=tmp_path / "r", resume=True, steps=2, progress="off")


def test_two_do_not_train_in_one_folder(tmp_path):
    tried = []

    def after_step(time):
        with pytest.raises(InputError, match=rf"another unsup fit \(process {os.getpid()}\) is running in"):
            fit(Toy(BITS), binary_data(), out=tmp_path / "r", resume=True, steps=4, progress="off")
        tried.append(time.step)

    model = Toy(BITS)
    model.after_step = after_step
    fit(model, binary_data(), out=tmp_path / "r", steps=2, progress="off")
    assert tried == [1, 2]
