"""Transformers over sequences, images and vectors: what holds for each of them."""

from __future__ import annotations

import math

import pytest
import torch
from decoders import DECODERS, SHORT, text
from entry_models import every_example, generator, random_model

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support, labels

IMAGE = Event((2, 2, 2), Support("ordinal", 3, low=1))
PUBLISHED = {"transformer": 76e6, "sparse-transformer": 59e6, "transformer-xl": 41e6}


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("event", [text(5, 4), Event((7,), BINARY), Event((1, 2, 3), Support("ordinal", 3))], ids=str)
@torch.no_grad()
def test_masses_of_all_examples_sum_to_one(name: str, event: Event) -> None:
    model = random_model(name, event, **SHORT[name])
    x = every_example(event)
    assert abs(model.log_prob(x).exp().sum() - 1) < 1e-10
    told = random_model(name, event, given=labels(2), **SHORT[name])
    given = torch.stack([told.log_prob(x, given=torch.tensor(y)) for y in range(2)], 1).exp()
    assert (given.sum(0) - 1).abs().max() < 1e-10
    assert (given[:, 0] - given[:, 1]).abs().sum() > 1e-2
    torch.testing.assert_close(told.log_prob(x).exp(), given @ told.log_prior.exp())


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_masses_of_texts_of_all_lengths_sum_to_one(name: str) -> None:
    model = random_model(name, text(4, 3, open=True), **SHORT[name])
    total = 0.0
    for length in range(5):
        x = torch.zeros(3**length, 4, dtype=torch.int64)
        x[:, :length] = torch.cartesian_prod(*[torch.arange(3)] * length).view(-1, length) if length else 0
        total += float(model.log_prob(x, lengths=torch.full((len(x),), length)).exp().sum())
    assert abs(total - 1) < 1e-10


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("knobs", [{}, {"temperature": 0.6}, {"top_k": 2}, {"top_p": 0.7, "temperature": 1.3}], ids=str)
@pytest.mark.parametrize("event", [text(11), IMAGE, Event((4, 2), BINARY, "sequence")], ids=str)
def test_cached_sampling_is_the_naive_sampling(name: str, event: Event, knobs: dict[str, float]) -> None:
    model = random_model(name, event, given=labels(3), **SHORT[name])
    fast, slow = (draw(9, generator=generator(3), **knobs) for draw in (model.sample, model.sample_naive))
    assert torch.equal(fast, slow)
    assert event.contains(fast).all()


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("mode", ["evaluation", "training"])
def test_a_completion_is_the_naive_one_from_its_middle_on(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(name, text(11), **SHORT[name]).train(mode == "training")
    x = torch.randint(5, (6, 11), generator=generator(1))
    known = torch.arange(11) < torch.tensor([0, 1, 4, 7, 10, 11])[:, None]
    for knobs in ({}, {"top_k": 3}, {"top_p": 0.8}):
        drawn = model.complete(x, known, generator=generator(5), **knobs)
        with monkeypatch.context() as patched:
            patched.setattr(type(model), "_steps", type(model)._naive)
            assert torch.equal(drawn, model.complete(x, known, generator=generator(5), **knobs))
        assert torch.equal(drawn[known], x[known])


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_steps_give_the_outputs_of_the_full_pass(name: str) -> None:
    model = random_model(name, text(11), given=labels(2), **SHORT[name])
    x, given = torch.randint(5, (3, 11), generator=generator(1)), torch.tensor([0, 1, 1])
    whole, steps = model.conditionals(x, given=given), model._steps(3, model._context(given))
    for t in range(11):
        torch.testing.assert_close(steps.outputs(t), whole[:, t], rtol=1e-10, atol=1e-10)
        steps.put(t, x[:, t])


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_zero_logits_are_uniform(name: str) -> None:
    model = random_model(name, text(40, 256))
    for p in list(model.layers()[-1].parameters())[-2:]:
        p.zero_()
    x = torch.randint(256, (2, 40), generator=generator())
    assert torch.allclose(-model.log_prob(x), torch.full((2,), 40 * 8 * math.log(2), dtype=torch.float64))


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_loss_starts_at_the_log_of_the_alphabet(name: str) -> None:
    model = unsup.create(name, text(64, 65))
    loss = model.loss(Batch(torch.randint(65, (8, 64), generator=generator())), generator=generator())["loss"]
    assert float(loss.mean()) / 64 == pytest.approx(math.log(65), rel=0.02)


@pytest.mark.parametrize("name", DECODERS)
def test_dropout_acts_in_training_only_and_by_the_generator(name: str) -> None:
    model = random_model(name, text(9), dropout=0.4, **SHORT[name])
    batch = Batch(torch.randint(5, (4, 9), generator=generator()))
    exact = -model.log_prob(batch.x)
    torch.testing.assert_close(model.loss(batch)["loss"], exact)
    first, again, other = (model.train().loss(batch, generator=generator(s))["loss"] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).any()
    assert not torch.isclose(first, exact).any()


@pytest.mark.parametrize("name", DECODERS)
def test_paper_preset_has_the_published_number_of_parameters(name: str) -> None:
    events = {
        "transformer": Event((1, 32, 32), Support("nominal", 512)),
        "sparse-transformer": Event((3, 32, 32), Support("ordinal", 256)),
        "transformer-xl": text(1024, 204),
    }
    with torch.device("meta"):
        model = unsup.create(name, events[name], preset="paper")
    assert model.parameter_count == pytest.approx(PUBLISHED[name], rel=0.01)


@pytest.mark.parametrize("name", DECODERS)
def test_bfloat16_keeps_the_likelihood_sum_in_float32(name: str) -> None:
    model, x = unsup.create(name, text(48), preset="tiny"), torch.randint(5, (4, 48), generator=generator())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.log_prob(x)
    assert rounded.dtype == torch.float32
    assert torch.allclose(rounded, model.log_prob(x), rtol=2e-3)


@pytest.mark.parametrize("name", DECODERS)
def test_refusals_say_how_to_mend(name: str) -> None:
    for event in (Event((4,), REAL), Event((2,), (BINARY, Support("nominal", 3)))):
        with pytest.raises(InputError, match="takes discrete entries of one kind only"):
            unsup.create(name, event)
    with pytest.raises(InputError, match="not divisible by heads=4"):
        unsup.create(name, text(4), width=10, heads=4)
