"""The conditional VAE: p(x | c) by enumeration and quadrature, and conditions of every kind on both nets."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli

import unsup
from unsup import Batch, Event, InputError, Support, create
from unsup.core.errors import CapabilityError
from unsup.core.event import BINARY, REAL, labels
from unsup.data.source import Data, Split
from unsup.families.latent.vae import VAE

BITS = Event((4,), BINARY)
IMAGE = Event((1, 2, 2), BINARY)
# An event and options of the net, the condition's event, and three conditions.
CASES: dict[str, tuple[Event, dict, Event, Tensor]] = {
    "class": (BITS, {}, labels(3), torch.arange(3)),
    "numbers": (BITS, {}, Event((2,), REAL), torch.tensor([[0.5, 1.0], [-1.0, 0.0], [2.0, -1.5]])),
    "levels": (BITS, {}, Event((2,), Support("ordinal", 100)), torch.tensor([[0, 99], [50, 3], [99, 99]])),
    "image": (BITS, {}, IMAGE, torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 0]]).view(3, 1, 2, 2)),
    "class conv": (IMAGE, {"net": "conv"}, labels(3), torch.arange(3)),
    "numbers conv": (IMAGE, {"net": "conv"}, Event((1,), REAL), torch.tensor([[0.5], [-1.0], [2.0]])),
    "image conv": (
        IMAGE,
        {"net": "conv"},
        IMAGE,
        torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 0]]).view(3, 1, 2, 2),
    ),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def generic(name: str, **options: object) -> tuple[VAE, Tensor]:
    """A random model in float64 with q(z|x) wider than the prior, so that averages of importance weights settle."""
    event, net, given, conditions = CASES[name]
    chosen = {"latent_dim": 2, "hidden": (5,), "activation": "tanh", "given": given} | net | options
    model = create("vae", event, **chosen).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.7 * torch.randn(p.shape, generator=seeded(p.numel()), dtype=torch.float64))
        model.nets.encoder[-1].weight *= 0.2
        model.nets.encoder[-1].bias.copy_(torch.tensor([0.3, -0.3, 1.0, 0.8])[: 2 * model.latent_dim])
    return model, conditions


def all_bits(event: Event = BITS) -> Tensor:
    return torch.tensor(list(itertools.product((0, 1), repeat=4))).view(-1, *event.shape)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_for_every_condition_importance_weights_of_all_examples_sum_to_one(name: str) -> None:
    model, conditions = generic(name)
    x = all_bits(model.event)
    masses = []
    for c in conditions:
        given = c[None].expand(len(x), *c.shape)
        runs = [model.log_prob(x, given=given, samples=200, generator=seeded(i)).exp() for i in range(30)]
        masses.append(torch.stack(runs).mean(0))
        totals = torch.stack(runs).sum(1)
        assert abs(float(totals.mean()) - 1) < 4 * float(totals.std()) / math.sqrt(len(totals))
    for one, other in itertools.combinations(masses, 2):
        assert float((one - other).abs().sum()) > 0.02  # the condition is not ignored
    # One condition for all rows is each row's.
    for c in conditions:
        alike = model.log_prob(x, given=c, samples=3, generator=seeded())
        assert torch.equal(
            alike, model.log_prob(x, given=c[None].expand(len(x), *c.shape), samples=3, generator=seeded())
        )


@torch.no_grad()
def test_the_bound_given_a_class_reaches_quadrature_and_its_sum_over_classes_that_of_the_mixture() -> None:
    model, _ = generic("class", latent_dim=1)
    model.log_prior.copy_(torch.tensor([0.5, 0.2, 0.3]).log())
    x = all_bits()[[0, 7, 13]]
    node, weight = np.polynomial.hermite_e.hermegauss(80)
    z, log_weight = torch.from_numpy(node)[:, None], torch.from_numpy(np.log(weight / weight.sum()))
    exact = []
    for y in range(3):
        told = torch.nn.functional.one_hot(torch.full((80,), y), 3).double()
        log_p = Bernoulli(logits=model.nets.decoder(torch.cat([z, told], 1))).log_prob(x[:, None].double()).sum(-1)
        exact.append(torch.logsumexp(log_p + log_weight, 1))
    for y in range(3):
        near = torch.stack(
            [model.log_prob(x, given=torch.tensor(y), samples=1000, generator=seeded(i)) for i in range(40)]
        )
        assert bool(((near.mean(0) - exact[y]).abs() < 4 * near.std(0) / math.sqrt(40) + 1e-3).all())
    mixture = torch.logsumexp(torch.stack(exact, 1) + model.log_prior, 1)
    near = torch.stack([model.log_prob(x, samples=1000, generator=seeded(i)) for i in range(40)])
    assert bool(((near.mean(0) - mixture).abs() < 4 * near.std(0) / math.sqrt(40) + 1e-3).all())
    low = torch.stack([model.log_prob(x, generator=seeded(i)) for i in range(1000)])
    assert bool((low.mean(0) < mixture).all())


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_that_sees_the_condition_moves_by_it(name: str) -> None:
    model, conditions = generic(name)
    model.train()
    x = all_bits(model.event)[:3]
    model.loss(Batch(x, given=conditions), generator=seeded())["loss"].mean().backward()
    for net, count in (
        (model.nets.encoder, model.nets.conditions.channels),
        (model.nets.decoder, model.nets.conditions.size),
    ):
        first = next(layer for layer in net if hasattr(layer, "weight")).weight.grad
        by_feature = first[:, -count:].transpose(0, 1).flatten(1).any(1)
        assert int(by_feature.sum()) >= count - (model.given == IMAGE)  # a pixel is 0 in all three images
    with torch.no_grad():
        moved = conditions.roll(1, 0)
        assert not torch.equal(model.encode(x, given=conditions), model.encode(x, given=moved))
        features, other = model.nets.conditions(conditions), model.nets.conditions(moved)
        z = torch.zeros(3, 2, dtype=torch.float64)
        assert not torch.equal(model.nets.decode(z, features), model.nets.decode(z, other))


def test_the_loss_with_conditions_is_minus_the_bound_given_them() -> None:
    model, conditions = generic("class", samples=4)
    x = all_bits()[:3]
    terms = model.loss(Batch(x, given=conditions), generator=seeded())
    torch.testing.assert_close(-terms["loss"], model.log_prob(x, given=conditions, samples=4, generator=seeded()))


# --- stories ----------------------------------------------------------------------------------------------------------


def data(x: Tensor, given: Tensor, event: Event, condition: Event) -> Data:
    split = Split(x, given=given)
    aside = split.take(slice(0, 32))
    return Data(name=None, event=event, train=split, validation=aside, test=aside, given=condition)


@pytest.mark.parametrize("net", ["dense", "conv"])
def test_an_image_is_drawn_given_an_image(net: str) -> None:
    """x is the condition turned into its negative: given it, nothing about x is left to chance."""
    event = Event((1, 4, 4), BINARY)
    c = torch.randint(0, 2, (400, 1, 4, 4), generator=seeded(), dtype=torch.uint8)
    hidden, lr = ((), 0.1) if net == "dense" else ((16,), 0.03)
    model = create("vae", event, net=net, hidden=hidden, latent_dim=2, given=event)
    unsup.fit(model, data(1 - c, c, event, event), steps=250, batch_size=50, lr=lr, progress="off")
    fresh = torch.randint(0, 2, (50, 1, 4, 4), generator=seeded(1), dtype=torch.uint8)
    for draws in (
        model.sample(50, given=fresh, generator=seeded(2)),
        model.decode(torch.zeros(50, 2), given=fresh),
    ):
        assert float((draws == 1 - fresh).double().mean()) > 0.95
    known = -model.log_prob(1 - fresh, given=fresh, samples=5, generator=seeded(3)).mean()
    assert known.item() < 0.25 * 16 * math.log(2)


def test_samples_of_a_class_are_like_it_and_without_one_classes_come_as_often_as_in_the_data(tmp_path: Path) -> None:
    y = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), 900, replacement=True, generator=seeded())
    x = torch.nn.functional.one_hot(y, 3).to(torch.uint8)
    event = Event((3,), BINARY)
    model = create("vae", event, hidden=(8,), latent_dim=1, given=labels(3))
    unsup.fit(model, data(x, y, event, labels(3)), steps=200, batch_size=100, lr=0.02, progress="off")
    share = (y.bincount(minlength=3) + 1) / (len(y) + 3)
    torch.testing.assert_close(model.log_prior.exp(), share)
    wanted = torch.arange(3).repeat(100)
    assert float((model.sample(300, given=wanted, generator=seeded(1)).argmax(1) == wanted).double().mean()) > 0.95
    free = model.sample(4000, generator=seeded(2))
    found = free.double().mean(0)
    assert bool(((found - share).abs() < 0.04).all())
    model.save(str(tmp_path / "m"))
    loaded = unsup.load(str(tmp_path / "m"))
    assert loaded.given == labels(3)
    assert torch.equal(loaded.sample(50, generator=seeded(3)), model.sample(50, generator=seeded(3)))
    assert torch.equal(loaded.log_prob(x[:9], generator=seeded(4)), model.log_prob(x[:9], generator=seeded(4)))


def test_numbers_far_from_zero_are_standardised_before_the_nets_see_them() -> None:
    c = torch.linspace(5e6, 5e6 + 100, 400)[torch.randperm(400, generator=seeded())].unsqueeze(1)
    x = (c > 5e6 + 50).to(torch.uint8).expand(400, 2)
    condition, event = Event((1,), REAL), Event((2,), BINARY)
    model = create("vae", event, hidden=(16,), latent_dim=1, given=condition)
    unsup.fit(model, data(x, c, event, condition), steps=200, batch_size=100, lr=0.03, progress="off")
    draws = model.sample(2, given=torch.tensor([[5e6 + 10], [5e6 + 90]]), generator=seeded())
    assert draws.tolist() == [[0, 0], [1, 1]]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_conditions_are_asked_for_where_they_are_needed() -> None:
    model, conditions = generic("numbers")
    x = all_bits()[:3]
    for call in (lambda: model.log_prob(x), lambda: model.sample(3)):
        with pytest.raises(CapabilityError, match="given="):
            call()
    for call in (lambda: model.encode(x), lambda: model.decode(torch.zeros(3, 2)), lambda: model.loss(Batch(x))):
        with pytest.raises(InputError, match="given="):
            call()
    with pytest.raises(InputError, match="3 conditions were given for 2 examples"):
        model.sample(2, given=conditions)
    classy, _ = generic("class")
    with pytest.raises(InputError, match="outside"):
        classy.log_prob(x, given=torch.tensor([0, 1, 3]))
    plain = create("vae", BITS, latent_dim=2)
    for call in (
        lambda: plain.sample(3, given=conditions),
        lambda: plain.log_prob(x, given=conditions),
        lambda: plain.encode(x, given=conditions),
        lambda: plain.decode(torch.zeros(3, 2), given=conditions),
    ):
        with pytest.raises(CapabilityError, match="without a condition"):
            call()
