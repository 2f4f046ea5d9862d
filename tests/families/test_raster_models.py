"""Densities of images in raster order: what holds for every chain of causal layers, whatever the layers are."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from entry_models import every_example, frequencies_fit, generator, random_model

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.nn.raster import Raster
from unsup.testing import check_model

MODELS = ("pixelcnn", "gated-pixelcnn")
PLANE = Event((2,), REAL)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(
    "event",
    [
        Event((1, 3, 3), BINARY),
        Event((3, 2, 2), BINARY),
        Event((2, 1, 2), Support("ordinal", 5, low=3)),
        Event((2, 2, 1), Support("nominal", 4)),
    ],
    ids=str,
)
@torch.no_grad()
def test_masses_of_all_images_sum_to_one(name: str, event: Event, classes: int) -> None:
    model, x = random_model(name, event, given=labels(classes) if classes else None), every_example(event)
    total = model.log_prob(x).exp()
    assert abs(total.sum() - 1) < 1e-10
    if classes:
        given = torch.stack([model.log_prob(x, given=torch.tensor(y)) for y in range(classes)], 1).exp()
        assert (given.sum(0) - 1).abs().max() < 1e-10
        assert torch.allclose(given @ model.log_prior.exp(), total, rtol=1e-10, atol=0)
        joint = given * model.log_prior.exp()
        torch.testing.assert_close(model.predict_proba(x), joint / joint.sum(1, keepdim=True), rtol=1e-10, atol=1e-12)


def test_order_is_raster_with_the_channel_fastest() -> None:
    channels, height, width = 3, 2, 4
    event = Event((channels, height, width), BINARY)
    order = unsup.create("pixelcnn", event, preset="tiny", given=labels(2)).orders
    sequence = list(itertools.product(range(height), range(width), range(channels)))
    assert order.shape == (2, 24)
    for position, (row, column, c) in enumerate(sequence):
        assert (order[:, (c * height + row) * width + column] == position).all()
    raster, x = Raster(event), torch.arange(48).view(2, *event.shape)
    assert [tuple(site) for site in raster.sites] == sequence
    assert raster.line(x)[0].tolist() == [int(x[0, c, row, column]) for row, column, c in sequence]
    assert torch.equal(raster.grid(raster.line(x)), x)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("event", "levels"), [(Event((1, 12, 12), BINARY), 2), (Event((3, 4, 4), Support("ordinal", 256)), 256)]
)
@torch.no_grad()
def test_zero_logits_are_uniform(name: str, event: Event, levels: int) -> None:
    model = random_model(name, event)
    last = list(model.layers())[-1]
    for p in last.parameters() if name == "pixelcnn" else list(last.parameters())[-2:]:
        p.zero_()
    x = torch.randint(levels, (2, *event.shape), generator=generator())
    assert torch.allclose(-model.log_prob(x), torch.full((2,), event.dims * math.log(levels), dtype=torch.float64))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("given", [None, labels(3), PLANE], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(
    ("event", "options", "n"),
    [
        (Event((1, 6, 5), BINARY), {"blocks": 2, "layers": 3}, 5),
        (Event((1, 1, 4), BINARY), {"blocks": 1, "kernel": 5, "layers": 2}, 1),
        (
            Event((3, 4, 4), Support("ordinal", 6, low=2)),
            {"channels": 8, "blocks": 2, "layers": 2, "head_channels": 7},
            32,
        ),
        (Event((2, 3, 5), Support("nominal", 4)), {"blocks": 0, "layers": 1}, 2),
    ],
    ids=str,
)
def test_cached_sampling_is_the_naive_sampling(
    name: str, event: Event, options: dict[str, int], n: int, temperature: float, given: Event | None
) -> None:
    own = {k: v for k, v in options.items() if k != ("layers" if name == "pixelcnn" else "blocks")}
    model = random_model(name, event, given=given, **own)
    told = {"given": torch.randn(n, 2, generator=generator(8))} if given is PLANE else {}
    fast, slow = (
        draw(n, generator=generator(3), temperature=temperature, **told) for draw in (model.sample, model.sample_naive)
    )
    assert torch.equal(fast, slow)
    assert fast.dtype == event.dtype
    assert event.contains(fast).all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("classes", [0, 2])
def test_mean_surprise_of_own_samples_is_the_entropy(name: str, classes: int) -> None:
    event = Event((2, 2, 2), BINARY)
    model = random_model(name, event, seed=1, deviation=0.9, given=labels(classes) if classes else None)
    with torch.no_grad():
        log_p = model.log_prob(every_example(event))
        entropy = -(log_p.exp() * log_p).sum()
        surprise = -model.log_prob(model.sample(4000, generator=generator(5)))
    assert abs(surprise.mean() - entropy) < 4 * surprise.std() / math.sqrt(len(surprise))
    assert entropy < 0.95 * event.dims * math.log(2)


@pytest.mark.parametrize("name", MODELS)
def test_samples_of_a_class_follow_its_density(name: str) -> None:
    event = Event((1, 2, 3), BINARY)
    model, images = random_model(name, event, seed=2, given=labels(2)), every_example(event)
    for y in (0, 1):
        with torch.no_grad():
            p = model.log_prob(images, given=torch.tensor(y)).exp()
        drawn = model.sample(4000, given=torch.tensor(y), generator=generator(y))
        assert frequencies_fit(drawn, images, p)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("told", ["nothing", "unknown class", "class"])
def test_completions_follow_the_enumerated_conditional(name: str, told: str) -> None:
    event = Event((2, 2, 2), BINARY)
    model = random_model(name, event, seed=4, deviation=0.5, given=None if told == "nothing" else labels(2))
    images = every_example(event)
    with torch.no_grad():
        for part, p in model.named_parameters():
            if "shift" in part:  # classes far apart, so that what is known says much about the class
                p.mul_(8)
    given = {"given": torch.tensor(1)} if told == "class" else {}
    sequence = model.orders[0].argsort()
    for prefix, truth in itertools.product((0, 3, 6), images[37::90]):  # 3 ends between the two channels of a pixel
        known = torch.zeros(event.dims, dtype=torch.bool)
        known[sequence[:prefix]] = True
        known = known.view(event.shape)
        agree = ((images == truth) | ~known).flatten(1).all(1)
        with torch.no_grad():
            p = model.log_prob(images, **given).exp() * agree
        start = torch.where(known, truth, 1 - truth).expand(3000, *event.shape)
        drawn = model.complete(start, known.expand_as(start), generator=generator(prefix), **given)
        assert frequencies_fit(drawn, images, p / p.sum())


def test_completion_keeps_a_different_prefix_of_each_image() -> None:
    event = Event((3, 3, 4), Support("ordinal", 7, low=4))
    model = random_model("pixelcnn", event)
    x = torch.randint(4, 11, (5, *event.shape), generator=generator(1), dtype=torch.uint8)
    known = (model.orders[0] < torch.tensor([0, 1, 17, 30, 36])[:, None]).view(5, *event.shape)
    drawn = model.complete(torch.where(known, x, 99), known, generator=generator(2))  # what is unknown may be anything
    assert torch.equal(drawn[known], x[known])
    assert torch.equal(drawn[4], x[4])
    assert not torch.equal(drawn[~known], x[~known])


def test_what_is_unknown_need_not_be_a_level() -> None:
    event = Event((1, 2, 2), Support("ordinal", 4, low=-3))
    model = random_model("pixelcnn", event)
    known = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    known[:, :, 0] = True
    for x in (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.where(known, 0.0, torch.nan)):
        drawn = model.complete(x, known, generator=generator())
        assert (drawn[known] == 0).all()
        assert event.contains(drawn).all()


def test_completion_refuses_what_it_could_not_condition_on() -> None:
    model = random_model("pixelcnn", Event((2, 2, 2), BINARY))
    x, known = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    known[:, 1, 0, 0] = True  # the second channel of the first pixel without the first
    with pytest.raises(InputError, match="prefix of the raster order"):
        model.complete(x, known)
    with pytest.raises(InputError, match="outside"):
        model.complete(x + 2, torch.ones_like(known))


@pytest.mark.parametrize("name", MODELS)
def test_loss_is_given_the_condition_in_training_and_where_there_is_one(name: str) -> None:
    event = Event((1, 3, 3), BINARY)
    model = random_model(name, event, given=labels(3))
    x, label = torch.randint(2, (8, *event.shape), generator=generator()), torch.arange(8) % 3
    assert torch.allclose(model.loss(Batch(x))["loss"], -model.log_prob(x))
    for mode in (True, False):
        loss = model.train(mode).loss(Batch(x, given=label))["loss"]
        assert torch.allclose(loss, -model.log_prob(x, given=label))
    with pytest.raises(InputError, match="is conditioned on"):
        model.train().loss(Batch(x))


@pytest.mark.parametrize("name", MODELS)
def test_conditions_reach_every_shift(name: str) -> None:
    event = Event((1, 4, 4), BINARY)
    x = torch.randint(2, (6, *event.shape), generator=generator())
    depth = {"blocks": 3} if name == "pixelcnn" else {"layers": 3}
    shifts = [n for n, _ in random_model(name, event, given=labels(2), **depth).named_parameters() if "shift" in n]
    assert len(shifts) == (3 if name == "pixelcnn" else 5)  # the last vertical stack has no gate
    for alone in shifts:
        halves = 1 if name == "pixelcnn" else 2
        for half in range(halves):  # what tanh takes, and what the sigmoid takes
            model = random_model(name, event, given=labels(2), **depth)
            with torch.no_grad():
                for other, p in model.named_parameters():
                    if "shift" in other:
                        kept = p.chunk(halves, 0)[half].clone()
                        p.zero_()
                        if other == alone:
                            p.chunk(halves, 0)[half].copy_(kept)
                zero, one = (model.log_prob(x, given=torch.tensor(y)) for y in (0, 1))
            assert ((zero - one).abs() > 1e-7).all(), (alone, half)


@pytest.mark.parametrize("name", MODELS)
def test_a_condition_without_weight_leaves_the_unconditional_model(name: str) -> None:
    event = Event((2, 3, 3), Support("ordinal", 4))
    plain, told = random_model(name, event), random_model(name, event, given=labels(2))
    with torch.no_grad():
        for part, p in told.named_parameters():
            p.zero_() if "shift" in part else p.copy_(plain.get_parameter(part))
        x = torch.randint(4, (5, *event.shape), generator=generator())
        torch.testing.assert_close(told.log_prob(x, given=torch.tensor(1)), plain.log_prob(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_laws_hold_given_numbers(name: str) -> None:
    """A condition that is no class: two real numbers, standardised."""
    event = Event((1, 2, 2), Support("ordinal", 3))
    given = 1000 + 5 * torch.randn(64, 2, generator=generator(1))
    x = ((given.sum(1) > 2000).long()[:, None] + torch.randint(2, (64, 4), generator=generator(2))).view(64, 1, 2, 2)
    model = unsup.create(name, event, preset="tiny", given=PLANE)
    wanted = ("conditions", "normalised", "factorisation", "fast-sampling", "frequencies", "completion", "descent")
    check_model(model, Batch(x, given=given), laws=wanted).raise_for_failures()
    model.prepare(Batch(x, given=given), generator=generator())
    features = model.conditions(given)
    assert features.mean(0).abs().max() < 1e-4
    assert torch.allclose(features.std(0, correction=0), torch.ones(2), atol=1e-3)
    with pytest.raises(CapabilityError, match="pass given="):
        model.log_prob(x)
    with pytest.raises(CapabilityError, match="is not a classifier"):
        model.predict_proba(x)


def test_each_class_has_its_conditionals() -> None:
    model = random_model("pixelcnn", Event((1, 2, 3), BINARY), given=labels(2))
    x = torch.randint(2, (4, 1, 2, 3), generator=generator())
    for y in (0, 1):
        told = model.conditionals(x, given=torch.tensor(y))
        assert torch.equal(model.conditionals(x, order=y), told)
        entries = model.log_conditionals(x, given=torch.tensor(y))
        p = told.squeeze(-1).sigmoid()
        torch.testing.assert_close(entries, torch.where(x.flatten(1).bool(), p, 1 - p).log())


def test_prior_is_counted_and_smoothed() -> None:
    model = unsup.create("pixelcnn", Event((1, 2, 2), BINARY), preset="tiny", given=labels(3))
    model.prepare(Batch(torch.zeros(5, 1, 2, 2), given=torch.tensor([0, 0, 1, 0, 1])), generator=generator())
    assert torch.allclose(model.log_prior.exp(), torch.tensor([4.0, 3.0, 1.0]) / 8)


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_keeps_the_likelihood_sum_in_float32(name: str) -> None:
    event = Event((3, 8, 8), Support("ordinal", 256))
    model = unsup.create(name, event, preset="tiny")
    x = torch.randint(256, (4, *event.shape), generator=generator(), dtype=torch.uint8)
    exact = model.log_prob(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.log_prob(x)
    assert rounded.dtype == torch.float32
    assert torch.allclose(rounded, exact, rtol=2e-3)
    assert not torch.equal(rounded, exact)


@pytest.mark.parametrize("name", MODELS)
def test_refusals_say_how_to_mend(name: str) -> None:
    rgb = Event((3, 4, 4), BINARY)
    for event, match in ((Event((4,), BINARY), "takes images only"), (Event((1, 4, 4), REAL), "takes discrete pixels")):
        with pytest.raises(InputError, match=match):
            unsup.create(name, event)
    with pytest.raises(InputError, match="kernel=4 should be odd"):
        unsup.create(name, rgb, kernel=4)
    with pytest.raises(InputError, match=r"channels=2 and head_channels=64 must be at least 3"):
        unsup.create(name, rgb, channels=2)
    plain, told = (unsup.create(name, rgb, preset="tiny", given=given) for given in (None, labels(2)))
    with pytest.raises(InputError, match="x has shape"):
        plain.log_prob(torch.zeros(1, 3, 4, 5))
    with pytest.raises(InputError, match="outside nominal"):
        told.log_prob(torch.zeros(1, 3, 4, 4), given=torch.tensor([2]))
    for verb in (plain.log_conditionals, plain.log_prob):
        with pytest.raises(CapabilityError, match="without a condition"):
            verb(torch.zeros(1, 3, 4, 4), given=torch.tensor([0]))
    with pytest.raises(CapabilityError, match="without a condition"):
        plain.sample(1, given=torch.tensor([0]))
    with pytest.raises(CapabilityError, match="is not a classifier"):
        plain.predict_proba(torch.zeros(1, 3, 4, 4))
