"""Decoders of the VAE: mixtures of logistics, and limited autoregressive ones."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.families.latent.vae import VAE
from unsup.nn.autoregressor import Naive, drawing, walk
from unsup.prob.logistics import logistic_mixture_log_prob

GREY, COLOUR = Event((1, 4, 5), BINARY, "image"), Event((2, 3, 4), Support("ordinal", 5, 2), "image")
SYMBOLS = Event((2, 3, 3), Support("nominal", 3), "image")


def random_model(event: Event, noise: float = 0.3, **options: object) -> VAE:
    model = unsup.create("vae", event, latent_dim=2, hidden=(8,), seed=0, **options).double().eval()
    assert isinstance(model, VAE)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


def codes(n: int) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


# --- mixtures of logistics --------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_mixture_of_logistics_is_that_of_its_outputs() -> None:
    event = Event((3,), Support("ordinal", 7, -2))
    model = random_model(event, decoder="logistic-mixture")
    x, z = torch.randint(0, 7, (5, 3), generator=torch.Generator().manual_seed(0)) - 2, codes(5)
    parts = model.nets.decode(z).chunk(3, -1)
    assert parts[0].shape == (5, 3, 10)
    found = model.nets.log_likelihood(model.nets.target(x), z[None])[0]
    expected = logistic_mixture_log_prob(x + 2, parts[0], parts[1], parts[2].clamp(min=-7), 7).sum(1)
    assert torch.allclose(found, expected, atol=1e-12)
    every = torch.tensor(list(itertools.product(range(7), repeat=3))) - 2
    masses = model.nets.log_likelihood(model.nets.target(every), z[:1].expand(1, len(every), 2)).exp()
    assert abs(float(masses.sum()) - 1) < 1e-10


@torch.no_grad()
def test_missing_whole_numbers_are_left_out() -> None:
    event = Event((3,), Support("ordinal", 40), missing=True)
    model = random_model(event, decoder="logistic-mixture")
    assert model.nets.decode(codes(1)).shape == (1, 90)
    x, z = torch.tensor([[3.0, math.nan, 17.0]]), codes(1)
    own = model.nets.log_likelihood(model.nets.target(x), z[None])
    filled = x.repeat(40, 1)
    filled[:, 1] = torch.arange(40)
    total = model.nets.log_likelihood(model.nets.target(filled), z.expand(1, 40, 2)).logsumexp(1)
    assert torch.allclose(own[:, 0], total, atol=1e-10)


def test_two_humps_fit_a_mixture_better_than_one_logistic() -> None:
    event = Event((2,), Support("ordinal", 32))
    generator, found = torch.Generator().manual_seed(0), {}
    x = torch.where(torch.rand(400, 2, generator=generator) < 0.5, 5, 26) + torch.randint(
        -1, 2, (400, 2), generator=generator
    )
    for decoder in ("logistic", "logistic-mixture"):
        model = unsup.create("vae", event, latent_dim=1, hidden=(8,), decoder=decoder, seed=0)
        with torch.no_grad():
            model.prepare(Batch(x), generator=generator)
            z = torch.zeros(1, len(x), 1)
            found[decoder] = float(model.nets.log_likelihood(model.nets.target(x), z).mean())
    assert found["logistic-mixture"] > found["logistic"] + 1


@pytest.mark.parametrize("event", [Event((4,), BINARY), Event((4,), Support("nominal", 5)), Event((4,), REAL)])
def test_a_mixture_of_logistics_is_for_ordered_levels(event: Event) -> None:
    with pytest.raises(InputError, match="whole numbers with an order"):
        unsup.create("vae", event, decoder="logistic-mixture")


# --- a limited autoregressive decoder ---------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [GREY, COLOUR, SYMBOLS])
@torch.no_grad()
def test_at_first_it_is_the_plain_decoder(event: Event) -> None:
    """And with the weights of the last map at 0, whatever the others are."""
    limited, plain = random_model(event, window=2), random_model(event)
    plain.load_state_dict({k: v for k, v in limited.state_dict().items() if "local" not in k})
    x = plain.sample(6, generator=torch.Generator().manual_seed(0))
    scores = [m.log_prob(x, samples=3, generator=torch.Generator().manual_seed(4)) for m in (limited, plain)]
    assert not torch.allclose(*scores)
    assert limited.nets.local is not None
    limited.nets.local.last.weight.zero_()
    limited.nets.local.last.bias.zero_()
    scores = [m.log_prob(x, samples=3, generator=torch.Generator().manual_seed(4)) for m in (limited, plain)]
    assert torch.allclose(*scores, rtol=1e-12)
    fresh = unsup.create("vae", event, latent_dim=2, hidden=(8,), window=1, seed=0)
    assert not fresh.nets.local.last.weight.any()


@pytest.mark.parametrize("event", [GREY, COLOUR, SYMBOLS])
@pytest.mark.parametrize("window", [1, 2, 9])
def test_an_entry_sees_its_window_and_nothing_else(event: Event, window: int) -> None:
    model = random_model(event, window=window)
    local = model.nets.local
    assert local is not None
    channels, height, width = event.shape
    levels = torch.rand(1, event.dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3
    plain = model.nets.decode(codes(1)).detach()

    def outputs(levels: Tensor) -> Tensor:
        return local.outputs(levels, plain[None])[0, 0].sum(-1)

    seen = torch.autograd.functional.jacobian(outputs, levels)[:, 0].abs() > 0  # (D, D)
    for i, j in itertools.product(range(event.dims), repeat=2):
        (c, row, column), (other, above, beside) = (
            tuple(int(v) for v in torch.unravel_index(torch.tensor(d), (channels, height, width))) for d in (i, j)
        )
        before = (above, beside, other) < (row, column, c)
        near = row - above <= window and abs(column - beside) <= window
        assert bool(seen[i, j]) == (before and near), (i, j)


@pytest.mark.parametrize("event", [GREY, COLOUR])
@torch.no_grad()
def test_masses_given_z_sum_to_one(event: Event) -> None:
    small = Event((event.shape[0], 2, 2 if event is GREY else 1), event.columns[0], "image")
    model = random_model(small, noise=0.6, window=1)
    levels = small.columns[0].levels
    every = torch.tensor(list(itertools.product(range(levels), repeat=small.dims)))
    x = (every + small.columns[0].low).view(-1, *small.shape)
    masses = model.nets.log_likelihood(model.nets.target(x), codes(1).expand(1, len(x), 2)).exp()
    assert abs(float(masses.sum()) - 1) < 1e-10


@pytest.mark.parametrize("event", [GREY, COLOUR, SYMBOLS])
@torch.no_grad()
def test_samples_with_caches_are_those_of_full_passes(event: Event) -> None:
    model = random_model(event, window=1)
    local, z = model.nets.local, codes(7)
    assert local is not None
    plain, entries = model.nets.decode(z), local.raster.entries.tolist()

    def all_outputs(line: Tensor) -> Tensor:
        levels = local.raster.grid(line).reshape(len(line), event.dims)
        return local.outputs(levels.double(), plain[None])[0][:, entries]

    fast, slow = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    found = model.nets.draw(z, generator=fast)
    start = torch.zeros(7, event.dims, dtype=torch.int64)
    line = walk(Naive(all_outputs, start), range(event.dims), drawing(local.observation, slow), start.clone())
    assert torch.equal(found, local.observation.raw(local.raster.grid(line).reshape(7, event.dims)))
    assert event.contains(found).all()


@torch.no_grad()
def test_a_visit_gives_the_likelihood() -> None:
    model = random_model(COLOUR, window=1, decoder="logistic-mixture")
    z = codes(4)
    x = model.nets.draw(z, generator=torch.Generator().manual_seed(0))
    levels, total = (x.long() - 2).flatten(1), torch.zeros(4, dtype=torch.float64)

    def choose(entry: int, log_masses: object) -> Tensor:
        nonlocal total
        assert isinstance(log_masses, Tensor)
        total = total + log_masses.gather(1, levels[:, entry : entry + 1])[:, 0]
        return levels[:, entry].double()

    model.visit_entries(z, choose)
    assert torch.allclose(total, model.nets.log_likelihood(model.nets.target(x), z[None])[0], atol=1e-10)


@pytest.mark.parametrize(
    "event", [Event((4,), BINARY), Event((1, 4, 4), REAL), Event((1, 4, 4), Support("ordinal", 9), missing=True)]
)
def test_a_window_is_for_complete_images_of_levels(event: Event) -> None:
    with pytest.raises(InputError, match="window=1 takes complete images of discrete entries"):
        unsup.create("vae", event, window=1)
    with pytest.raises(InputError, match="window=1 takes complete images"):
        unsup.create("vae", Event((1, 4, 4), Support("ordinal", 9)), window=1, decoder="gaussian")


def chains(n: int) -> Tensor:
    """Rows of pixels that are mostly equal to their left neighbour: nothing but local structure."""
    generator = torch.Generator().manual_seed(0)
    flips = torch.rand(n, 1, 4, 6, generator=generator) < 0.08
    flips[..., 0] = torch.rand(n, 1, 4, generator=generator) < 0.5
    return flips.long().cumsum(-1) % 2


@pytest.mark.slow
def test_what_the_window_tells_does_not_enter_z() -> None:
    """Bits-back view (Chen et al. 2017, section 2): the KL collapses with a full window, and not without one."""
    x, kl, score = chains(1000).byte(), {}, {}
    for window in (0, 6):
        model = unsup.create(
            "vae", Event((1, 4, 6), BINARY, "image"), latent_dim=4, hidden=(32,), window=window, seed=0
        )
        model.prepare(Batch(x), generator=torch.Generator().manual_seed(0))
        adam, generator = torch.optim.Adam(model.parameters(), lr=1e-2), torch.Generator().manual_seed(1)
        for step in range(250):
            terms = model.loss(Batch(x[step % 5 * 200 : (step % 5 + 1) * 200]), generator=generator)
            adam.zero_grad()
            terms["loss"].mean().backward()
            adam.step()
        kl[window], score[window] = float(terms["kl"].detach().mean()), float(terms["loss"].detach().mean())
    assert kl[6] < 0.1
    assert kl[0] > 1
    assert score[6] < score[0] - 1
