"""A VAE whose prior is another model: what it computes, and that the two are one model to everything around them."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Bernoulli

import unsup
from unsup import Batch, Event, InputError, create
from unsup.core.config import plain
from unsup.core.errors import CapabilityError
from unsup.core.event import BINARY, REAL
from unsup.core.part import Part
from unsup.data.source import Data, Split
from unsup.families.autoregressive.made import MADE
from unsup.families.latent.vae import VAE

BITS = Event((4,), BINARY)
MADE_PART = Part("made", {"hidden": (12,), "components": 3})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bits(n: int = 64) -> Tensor:
    first = torch.randint(0, 2, (n, 1), generator=seeded(1))
    noise = (torch.rand(n, 4, generator=seeded(2)) < 0.1).long()
    return (first ^ noise).to(torch.uint8)


def data() -> Data:
    x = bits()
    return Data(name=None, event=BITS, train=Split(x), validation=Split(x[:16]), test=Split(x[:16]))


def model(prior: Part | str | None = MADE_PART, seed: int = 0, **options: object) -> VAE:
    return create("vae", BITS, seed=seed, **({"latent_dim": 2, "hidden": (6,), "prior": prior} | options))


def generic(found: VAE, seed: int = 0) -> VAE:
    """In float64 and evaluation mode, prepared, with noise on every parameter."""
    found.double().prepare(Batch(bits()), generator=seeded(3))
    with torch.no_grad():
        for p in found.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=seeded(seed + p.numel()), dtype=p.dtype))
    return found.eval()


SETTINGS = {"steps": 8, "batch_size": 16, "lr": 0.02, "progress": "off", "seed": 3}


# --- what it computes -------------------------------------------------------------------------------------------------


def test_log_prob_reaches_the_log_likelihood_by_quadrature_over_the_prior() -> None:
    found = generic(model(latent_dim=1))
    grid = torch.linspace(-40, 40, 40_001, dtype=torch.float64).unsqueeze(1)
    x = bits()[:3]
    with torch.no_grad():
        log_prior = found.prior.log_prob(grid.unsqueeze(1)).squeeze(1)
        assert float(log_prior.exp().sum()) * 0.002 == pytest.approx(1, abs=1e-6)
        log_p = Bernoulli(logits=found.nets.decoder(grid)).log_prob(x[:, None].double()).sum(-1)
        exact = torch.logsumexp(log_p + log_prior, 1) + math.log(0.002)
        low = torch.stack([found.log_prob(x, generator=seeded(i)) for i in range(2000)])
        near = torch.stack([found.log_prob(x, samples=2000, generator=seeded(i)) for i in range(40)])
    error = near.std(0) / math.sqrt(len(near))
    assert bool(((near.mean(0) - exact).abs() < 4 * error + 2e-3).all())
    assert bool((low.mean(0) < exact - 4 * low.std(0) / math.sqrt(len(low))).all())


def test_the_loss_is_the_elbo_by_draws_and_reaches_every_parameter_of_the_prior() -> None:
    for options in ({}, {"samples": 3}, {"samples": 3, "gradient": "dreg"}, {"gradient": "stl"}):
        found = generic(model(**options)).train()
        x = bits()[:8]
        terms = found.loss(Batch(x), generator=seeded(5))
        if "samples" not in options:
            bound = found.log_prob(x, generator=seeded(5))
            torch.testing.assert_close(-terms["loss"], bound)
            torch.testing.assert_close(terms["loss"], terms["reconstruction"] + terms["kl"])
        terms["loss"].mean().backward()
        for name, p in found.named_parameters():
            assert p.grad is not None, name
            assert bool(p.grad.any()), name


def test_beta_weighs_the_divergence_that_the_prior_has_a_part_in() -> None:
    plainly, heavy = generic(model()), generic(model(beta=3.0))
    one, other = (m.loss(Batch(bits()[:8]), generator=seeded()) for m in (plainly, heavy))
    torch.testing.assert_close(other["loss"], one["reconstruction"] + 3 * one["kl"])


def test_a_chain_of_two_linear_gaussian_layers_has_the_likelihood_of_matrix_algebra() -> None:
    """The prior is itself a bound: its noise is drawn again for every z, and the estimate of p(x) stays unbiased."""
    event = Event((3,), REAL)
    inner = Part("vae", {"latent_dim": 1, "hidden": ()})
    found = create("vae", event, latent_dim=2, hidden=(), prior=inner).double().eval()
    w, w2 = np.array([[1.0, 0.2], [-0.4, 0.7], [0.3, -0.5]]), np.array([[0.8], [-0.6]])
    b, b2 = np.array([0.5, 0.0, -1.0]), np.array([0.3, -0.2])
    with torch.no_grad():
        for net, weight, bias in ((found, w, b), (found.prior.model, w2, b2)):
            net.nets.encoder[-1].weight.zero_()
            net.nets.encoder[-1].bias.zero_()
            net.nets.encoder[-1].bias[net.latent_dim :] = 0.6  # wider than the posterior, so that averages settle
            net.nets.decoder[-1].weight.copy_(torch.from_numpy(weight))
            net.nets.decoder[-1].bias.copy_(torch.from_numpy(bias))
        x = torch.tensor([[0.4, -0.2, -0.5], [1.5, 0.3, -1.0]], dtype=torch.float64)
        near = found.log_prob(x.repeat(300, 1), samples=300, generator=seeded()).view(300, 2)
    cov = w @ (w2 @ w2.T + np.eye(2)) @ w.T + np.eye(3)
    exact = stats.multivariate_normal(b + w @ b2, cov).logpdf(x.numpy())
    error = near.std(0) / math.sqrt(len(near))
    assert bool(((near.mean(0) - torch.from_numpy(exact)).abs() < 4 * error + 5e-3).all())
    assert float(error.max()) < 5e-3


def test_samples_are_decoded_from_draws_of_the_prior_and_temperature_is_the_priors() -> None:
    found = generic(model())
    for temperature in (1.0, 0.3):
        generator = seeded(7)
        z = found.prior.model.sample(9, generator=generator, temperature=temperature)
        with torch.no_grad():
            outputs = found.nets.decode(z.double(), None)
        expected = found.nets.observation.raw(found.nets.observation.draw(outputs, generator))
        assert torch.equal(found.sample(9, generator=seeded(7), temperature=temperature), expected)
    cold = generic(model(Part("gaussian-mixture", {"learn": "gradient", "components": 2})))
    if "temperature" not in unsup.core.model.knobs(cold.prior.model):
        with pytest.raises(CapabilityError, match="the prior, has none"):
            cold.sample(3, temperature=0.5)


@pytest.mark.parametrize(
    "part",
    [
        Part("realnvp", {"hidden": (8,), "layers": 2}),
        Part("gaussian-mixture", {"learn": "gradient", "components": 2}),
    ],
    ids=lambda p: p.name,
)
def test_other_models_as_priors_are_trained_with_it(part: Part) -> None:
    found = model(part)
    before = torch.cat([p.detach().flatten() for p in found.prior.parameters()])
    unsup.fit(found, data(), **SETTINGS)
    assert not torch.equal(torch.cat([p.detach().flatten() for p in found.prior.parameters()]), before)
    x = torch.tensor(list(itertools.product((0, 1), repeat=4)))
    with torch.no_grad():
        total = torch.stack([found.log_prob(x, samples=300, generator=seeded(i)).exp().sum() for i in range(20)])
    assert abs(float(total.mean()) - 1) < 4 * float(total.std()) / math.sqrt(len(total)) + 1e-3


# --- one model to everything around it --------------------------------------------------------------------------------


def test_it_is_saved_loaded_and_rebuilt_from_json_and_drawn_from_the_outer_seed(tmp_path: Path) -> None:
    found = model()
    unsup.fit(found, data(), **SETTINGS)
    found.save(str(tmp_path / "m"))
    loaded = unsup.load(str(tmp_path / "m"))
    assert isinstance(loaded.prior.model, MADE)
    assert loaded.config == found.config
    state = found.state_dict()
    assert {k for k in state if k.startswith("prior.model.")}
    assert all(torch.equal(v, state[k]) for k, v in loaded.state_dict().items())
    x = bits()[:5]
    for verb in (lambda m: m.log_prob(x, samples=3, generator=seeded(1)), lambda m: m.sample(5, generator=seeded(2))):
        with torch.no_grad():
            assert torch.equal(verb(found), verb(loaded))

    config = json.loads(json.dumps(plain(found.config)))
    assert config["prior"] == {"name": "made", "options": {"hidden": [12], "components": 3}, "frozen": False}
    state = torch.random.get_rng_state()
    one, again, other = (create("vae", BITS, seed=seed, **config) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.config == found.config
    for name, p in one.named_parameters():
        assert torch.equal(p, again.get_parameter(name))
        if p.ndim > 1 and p.any():  # not the biases, nor the direct connections, which start at zero
            assert not torch.equal(p, other.get_parameter(name)), name
    assert all(torch.equal(p, model(None).get_parameter(n)) for n, p in one.named_parameters() if "prior" not in n)


def test_it_is_prepared_on_codes_of_the_data() -> None:
    found = model().double()
    found.prepare(Batch(bits()), generator=seeded(4))
    generator = seeded(4)
    z, _ = found.draw_latents(Batch(bits()), generator=generator)  # discrete data takes no noise before
    front = found.prior.model.observation.front
    torch.testing.assert_close(front.mean, z.mean(0).detach())
    torch.testing.assert_close(front.std, z.std(0, correction=0).detach())


def trained_prior(folder: Path) -> MADE:
    z = torch.randn(200, 2, generator=seeded(9)) * torch.tensor([0.5, 2.0]) + torch.tensor([1.0, -3.0])
    codes = Data(name=None, event=Event((2,), REAL), train=Split(z), validation=Split(z[:20]), test=Split(z[:20]))
    made = create("made", codes.event, hidden=(12,), components=3)
    unsup.fit(made, codes, out=folder, **SETTINGS)
    return made


@pytest.mark.parametrize("frozen", [False, True])
def test_a_trained_run_is_where_the_prior_starts_and_a_frozen_one_stays_there(tmp_path: Path, frozen: bool) -> None:
    made = trained_prior(tmp_path / "codes")
    wanted = {"name": str(tmp_path / "codes"), "frozen": True} if frozen else str(tmp_path / "codes")
    found = create("vae", BITS, latent_dim=2, hidden=(6,), prior=wanted)
    inner = found.prior.model
    assert all(torch.equal(v, inner.state_dict()[k]) for k, v in made.state_dict().items())
    owned = {id(p) for o in found.objectives() for p in o.parameters}
    assert all((id(p) in owned) != frozen for p in inner.parameters())
    outer = {k: v.clone() for k, v in found.nets.encoder.named_parameters()}
    unsup.fit(found, data(), ema=0.9, weight_decay=0.1, **SETTINGS)
    assert all(not torch.equal(v, outer[k]) for k, v in found.nets.encoder.named_parameters())
    for name, p in inner.named_parameters():
        assert torch.equal(p, made.get_parameter(name)) == frozen, name
    for name in ("observation.front.mean", "observation.front.std"):  # it comes standardised
        assert torch.equal(inner.get_buffer(name), made.get_buffer(name))
    found.save(str(tmp_path / "m"))
    loaded = unsup.load(str(tmp_path / "m"))
    assert all(torch.equal(v, found.state_dict()[k]) for k, v in loaded.state_dict().items())
    assert all(p.requires_grad != frozen for p in loaded.prior.parameters())
    assert loaded.train().prior.model.training != frozen


def test_a_run_that_is_stopped_and_resumed_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model(seed=3)
    unsup.fit(whole, data(), **SETTINGS)
    with monkeypatch.context() as patch:
        called = []

        def stop(self: MADE, time: unsup.core.batch.Time) -> None:
            called.append(time.step)
            if time.step == 4:
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(MADE, "after_step", stop)  # of the part: the trainer calls it as it calls the outer model's
        assert unsup.fit(model(seed=3), data(), out=tmp_path / "r", **SETTINGS).interrupted
        assert called == [1, 2, 3, 4]
    resumed = model(seed=3)
    unsup.fit(resumed, data(), out=tmp_path / "r", resume=True, **SETTINGS)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        ("ebm", "must support scoring and sampling"),
        ("histogram", "learns by counting"),
        ("gaussian-mixture", "learn='gradient'"),
        ("cyclegan", "takes images"),
        ("mad", "did you mean 'made'"),
        ({"name": "made", "options": {"hiden": [3]}}, "did you mean 'hidden'"),
    ],
)
def test_what_cannot_be_a_prior_is_refused_with_the_reason(prior: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        model(prior)
    assert "\n" not in str(caught.value)


def test_a_run_of_other_codes_is_refused(tmp_path: Path) -> None:
    trained_prior(tmp_path / "codes")
    with pytest.raises(InputError, match="a part for vector of 3, real is needed"):
        create("vae", BITS, latent_dim=3, prior=str(tmp_path / "codes"))
