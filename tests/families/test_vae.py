"""The VAE against closed forms, quadrature, enumeration and hand-written loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import FactorAnalysis
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal

from unsup import Batch, Event, InputError, Support, create, fit, from_arrays
from unsup.core.batch import Time
from unsup.core.storage import load_state
from unsup.families.latent import vae as vae_module
from unsup.families.latent.vae import VAE
from unsup.nn.autoencoder import Autoencoder
from unsup.nn.posterior import DiagonalGaussian
from unsup.prob.discrepancy import mmd_each

BINARY, REAL = Support("binary"), Support("real")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(model: VAE, scale: float = 0.7, seed: int = 0) -> VAE:
    """The model in float64 with every parameter drawn afresh, so that nothing is zero by initialisation."""
    model.double()
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def all_examples(event: Event) -> Tensor:
    support = event.uniform
    values = range(support.low, support.low + support.levels)
    rows = list(itertools.product(values, repeat=event.dims))
    return torch.tensor(rows).view(-1, *event.shape)


@torch.no_grad()
def repeated_bound(model: VAE, x: Tensor, samples: int, repeats: int, seed: int = 0) -> tuple[float, float]:
    """Mean and standard error of L_k of one example ``x`` (1, ...)."""
    bounds = model.log_prob(x.expand(repeats, *x.shape[1:]), samples=samples, generator=seeded(seed))
    return float(bounds.mean()), float(bounds.std() / math.sqrt(repeats))


class LinearGaussian:
    """A linear VAE on 5 real columns whose posterior is diagonal: WᵀΨ⁻¹W = diag(s²)."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.data = rng.normal(size=(50, 5)) @ rng.normal(size=(5, 5)) * 3 + 10
        self.model = VAE(Event((5,), REAL), latent_dim=2, hidden=()).double()
        self.model.prepare(Batch(torch.from_numpy(self.data)), generator=seeded())
        psi = np.exp(rng.normal(size=5) * 0.4 - 0.5)
        s = np.array([1.3, 0.6])
        w = np.sqrt(psi)[:, None] * np.linalg.qr(rng.normal(size=(5, 2)))[0] * s
        b = rng.normal(size=5)
        self.posterior_variance = 1 / (1 + s**2)
        to_mean = self.posterior_variance[:, None] * w.T / psi
        mean, std = self.data.mean(0), self.data.std(0)
        self.raw_mean, self.raw_cov = mean + std * b, std[:, None] * (w @ w.T + np.diag(psi)) * std
        self.raw_w, self.raw_psi = std[:, None] * w, std**2 * psi
        self.posterior_mean = ((self.data - mean) / std - b) @ to_mean.T
        with torch.no_grad():
            self.model.nets.decoder[-1].weight.copy_(torch.from_numpy(w))
            self.model.nets.decoder[-1].bias.copy_(torch.from_numpy(b))
            self.model.nets.observation.deviations.tenth.copy_(torch.from_numpy(np.log(psi) / 20))
            encoder = self.model.nets.encoder[-1]
            encoder.weight.copy_(torch.from_numpy(np.concatenate([to_mean, np.zeros((2, 5))])))
            encoder.bias.copy_(torch.from_numpy(np.concatenate([-to_mean @ b, np.log(self.posterior_variance)])))
        self.x = torch.from_numpy(self.data)
        self.exact = stats.multivariate_normal(self.raw_mean, self.raw_cov).logpdf(self.data)


@pytest.fixture
def linear() -> LinearGaussian:
    return LinearGaussian()


@pytest.mark.parametrize("samples", [1, 7])
def test_with_the_exact_posterior_every_bound_is_the_exact_log_likelihood(linear: LinearGaussian, samples: int) -> None:
    # p(x, z) / q(z|x) = p(x) for every z, so that there is no Monte Carlo error either.
    bound = linear.model.log_prob(linear.x, samples=samples, generator=seeded()).detach().numpy()
    np.testing.assert_allclose(bound, linear.exact, rtol=0, atol=1e-9)
    np.testing.assert_allclose(linear.model.encode(linear.x).detach(), linear.posterior_mean, atol=1e-10)


def test_with_the_exact_posterior_the_loss_is_minus_the_exact_log_likelihood(linear: LinearGaussian) -> None:
    losses = [linear.model.loss(Batch(linear.x), generator=seeded(i))["loss"].mean().item() for i in range(400)]
    assert abs(np.mean(losses) + linear.exact.mean()) < 4 * np.std(losses) / math.sqrt(len(losses))


def test_with_a_wrong_posterior_the_bound_rises_from_the_elbo_to_the_exact_log_likelihood(
    linear: LinearGaussian,
) -> None:
    shift, widen = np.array([0.5, -0.7]), 0.6
    with torch.no_grad():
        linear.model.nets.encoder[-1].bias += torch.from_numpy(np.concatenate([shift, [widen, widen]]))
    # KL(q ‖ p(z|x)) of a Gaussian whose mean is off by `shift` and whose variance is e^widen times too large.
    gap = 0.5 * (np.exp(widen) - 1 - widen + shift**2 / linear.posterior_variance).sum()
    x, exact = linear.x[:1], linear.exact[0]
    bounds = {k: repeated_bound(linear.model, x, k, 4000, seed=k) for k in (1, 4, 16, 256)}
    assert abs(bounds[1][0] - (exact - gap)) < 4 * bounds[1][1]
    for below, above in itertools.pairwise(bounds.values()):
        assert above[0] - below[0] > 4 * (above[1] + below[1])
    assert exact - 0.02 < bounds[256][0] < exact + 4 * bounds[256][1]


def test_samples_of_a_linear_model_have_its_mean_and_covariance_and_temperature_widens_z_only(
    linear: LinearGaussian,
) -> None:
    for temperature in (1.0, 2.0):
        draws = linear.model.sample(40_000, generator=seeded(), temperature=temperature).double().numpy()
        cov = temperature**2 * linear.raw_w @ linear.raw_w.T + np.diag(linear.raw_psi)
        variance = np.diag(cov)
        assert (np.abs(draws.mean(0) - linear.raw_mean) < 4 * np.sqrt(variance / len(draws))).all()
        error = np.sqrt((np.outer(variance, variance) + cov**2) / len(draws))
        assert (np.abs(np.cov(draws.T) - cov) < 4 * error).all()


def test_training_a_linear_vae_reaches_the_maximum_likelihood_of_factor_analysis() -> None:
    rng = np.random.default_rng(1)
    data = rng.normal(size=(300, 1)) @ rng.normal(size=(1, 4)) * 2 + rng.normal(size=(300, 4)) * [0.5, 1, 1.5, 1]
    reference = FactorAnalysis(1, tol=1e-10, max_iter=5000).fit(data).score(data)
    torch.manual_seed(0)
    model = VAE(Event((4,), REAL), latent_dim=1, hidden=()).double()
    x, generator = torch.from_numpy(data), seeded()
    model.prepare(Batch(x), generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(1500):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 1500)
        optimizer.zero_grad()
        model.loss(Batch(x), generator=generator)["loss"].mean().backward()
        optimizer.step()
    with torch.no_grad():
        w, b = model.nets.decoder[-1].weight.numpy(), model.nets.decoder[-1].bias.numpy()
        psi = np.exp(2 * model.nets.observation.deviations().numpy())
        bound = float(model.log_prob(x, samples=50, generator=generator).mean())
    mean, std = data.mean(0), data.std(0)
    exact = stats.multivariate_normal(mean + std * b, np.outer(std, std) * (w @ w.T + np.diag(psi))).logpdf(data).mean()
    assert reference - 0.005 < exact < reference + 1e-6
    assert abs(bound - exact) < 0.005


def test_the_gap_of_a_decoder_that_ignores_z_is_the_kl() -> None:
    model = randomised(VAE(Event((3,), BINARY), latent_dim=2, hidden=(5,), activation="tanh"))
    with torch.no_grad():
        model.nets.decoder[-1].weight.zero_()
    x = torch.tensor([[1, 0, 1]])
    exact = float(Bernoulli(logits=model.nets.decoder[-1].bias).log_prob(x.double()).sum().detach())
    terms = {n: t.item() for n, t in model.loss(Batch(x), generator=seeded()).items()}  # of one example
    assert terms["reconstruction"] == pytest.approx(-exact)
    assert terms["loss"] == pytest.approx(-exact + terms["kl"])
    bound, error = repeated_bound(model, x, 1, 20_000)
    assert abs(exact - bound - terms["kl"]) < 4 * error
    assert terms["kl"] > 20 * error


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_bounds_stay_below_and_reach_the_log_likelihood_by_quadrature(latent_dim: int) -> None:
    model = randomised(VAE(Event((4,), BINARY), latent_dim=latent_dim, hidden=(5,), activation="tanh"))
    x = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 1]])
    node, weight = np.polynomial.hermite_e.hermegauss(80)
    grid = torch.from_numpy(np.array(list(itertools.product(node, repeat=latent_dim))))
    log_weight = torch.from_numpy(
        np.log([math.prod(w) for w in itertools.product(weight / weight.sum(), repeat=latent_dim)])
    )
    with torch.no_grad():
        logits = model.nets.decoder(grid)
        log_p = Bernoulli(logits=logits).log_prob(x[:, None].double()).sum(-1)
        exact = torch.logsumexp(log_p + log_weight, 1)
    for i in range(2):
        low, near = (repeated_bound(model, x[i : i + 1], k, r) for k, r in ((1, 4000), (1000, 200)))
        assert low[0] < float(exact[i]) - 4 * low[1]
        assert low[0] < near[0] - 4 * near[1]
        assert abs(near[0] - float(exact[i])) < max(4 * near[1], 2e-3)


ENUMERABLE: dict[str, tuple[Event, dict]] = {
    "bernoulli": (Event((4,), BINARY), {"hidden": (5,)}),
    "bernoulli conv": (Event((1, 3, 2), BINARY), {"hidden": (3,), "net": "conv"}),
    "categorical": (Event((3,), Support("nominal", 3)), {"hidden": (5,)}),
    "categorical conv": (
        Event((1, 2, 2), Support("ordinal", 3)),
        {"hidden": (3,), "net": "conv", "decoder": "categorical"},
    ),
    "logistic": (Event((3,), Support("ordinal", 4, 2)), {"hidden": (5,)}),
    "logistic conv": (Event((1, 2, 2), Support("ordinal", 3)), {"hidden": (4,), "net": "conv"}),
    "gaussian": (Event((2,), Support("ordinal", 3, -1)), {"hidden": (5,), "decoder": "gaussian"}),
}


def enumerable(name: str) -> VAE:
    """A random model with q(z|x) wider than the prior, so that importance weights are bounded and averages settle."""
    event, options = ENUMERABLE[name]
    model = randomised(VAE(event, latent_dim=2, activation="tanh", **options))
    with torch.no_grad():
        model.nets.encoder[-1].weight *= 0.2
        model.nets.encoder[-1].bias.copy_(torch.tensor([0.3, -0.3, 1.0, 0.8]))
        if name == "gaussian":  # a density leaves mass outside the bins: narrow enough that none is seen
            model.nets.observation.front.mean.fill_(0.5)
            model.nets.decoder[-1].weight *= 0.03
            model.nets.decoder[-1].bias.zero_()
            model.nets.observation.deviations.tenth.fill_(-0.22)
    return model


@pytest.mark.parametrize("name", ENUMERABLE)
@torch.no_grad()
def test_importance_weights_of_all_examples_sum_to_one_and_the_bound_to_less(name: str) -> None:
    model = enumerable(name)
    x = all_examples(model.event)
    # exp L_k is an unbiased estimate of p(x) for every k.
    totals = torch.stack([model.log_prob(x, samples=250, generator=seeded(i)).exp().sum() for i in range(30)])
    error = float(totals.std()) / math.sqrt(len(totals))
    assert error < 0.01
    assert abs(float(totals.mean()) - 1) < 4 * error
    sums = []
    for k in (1, 50):
        bound = torch.stack([model.log_prob(x, samples=k, generator=seeded(i)) for i in range(200)]).mean(0)
        sums.append(float(bound.exp().sum()))
    assert sums[0] < sums[1] < 1
    assert sums[1] > 0.95


@torch.no_grad()
def test_dequantised_columns_have_the_mass_of_their_bins() -> None:
    event = Event((2,), Support("ordinal", 5, 1))
    model = VAE(event, latent_dim=1, hidden=(), decoder="gaussian").double()
    data = torch.tensor([[1, 2], [4, 1], [5, 1], [3, 5]])
    model.prepare(Batch(data), generator=seeded())
    model.nets.encoder[-1].weight.zero_()  # q(z|x) = p(z), and a decoder that ignores z
    model.nets.decoder[-1].weight.zero_()
    model.nets.decoder[-1].bias.copy_(torch.tensor([-0.2, 0.4]))
    model.nets.observation.deviations.tenth.copy_(torch.tensor([-0.03, -0.04]))
    front, std = model.nets.observation.front, model.nets.observation.deviations().exp()
    x = data[:1]
    level = (x[0] - front.low) / front.levels
    edges = [(level - front.mean) / front.std, (level + 1 / front.levels - front.mean) / front.std]
    low, high = (stats.norm.cdf(e, model.nets.decoder[-1].bias, std) for e in edges)
    exact = np.log(high - low).sum()
    assert float(model.log_prob(x, samples=40_000, generator=seeded())) == pytest.approx(exact, abs=5e-3)
    assert model.log_prob(x, samples=1, generator=seeded(1)) != model.log_prob(x, samples=1, generator=seeded(2))


@torch.no_grad()
def test_columns_of_a_table_have_the_distributions_of_their_kind_and_missing_ones_none() -> None:
    event = Event((4,), (REAL, Support("ordinal", 40, 3), BINARY, Support("nominal", 3)), missing=True)
    model = VAE(event, latent_dim=1, hidden=()).double()
    data = torch.tensor([[0.5, 7, 0, 2], [2.5, 30, 1, 0], [1.0, 42, 1, 1], [-3.0, math.nan, 0, 1]], dtype=torch.float64)
    model.prepare(Batch(data), generator=seeded())
    model.nets.encoder[-1].weight.zero_()  # q(z|x) = p(z), and a decoder that ignores z
    model.nets.decoder[-1].weight.zero_()
    model.nets.decoder[-1].bias.copy_(torch.tensor([0.3, -0.2, -0.4, 0.7, 0.1, 0.2, -0.5]))
    model.nets.observation.heads[0].deviations.tenth.fill_(0.01)
    real, level = data[:, 0].numpy(), (data[:3, 1] - 3 + 0.5).numpy()
    std, unit = (
        np.float32(real.std()),
        [(level + e - np.float32(level.mean())) / np.float32(level.std()) for e in (-0.5, 0.5)],
    )
    below, above = (stats.logistic.cdf(u, -0.2, np.exp(-0.4)) for u in unit)
    above[2] = 1.0  # the highest level includes the tail
    softmax = np.exp([0.1, 0.2, -0.5]) / np.exp([0.1, 0.2, -0.5]).sum()
    own = np.array(
        [
            stats.norm.logpdf((real - np.float32(real.mean())) / std, 0.3, np.exp(0.1)) - np.log(std),
            np.append(np.log(above - below), 0.0),
            stats.bernoulli.logpmf([0, 1, 1, 0], 1 / (1 + np.exp(-0.7))),
            np.log(softmax[[2, 0, 1, 1]]),
        ]
    )
    np.testing.assert_allclose(model.log_prob(data, samples=3, generator=seeded()), own.sum(0), rtol=1e-6)
    fewer = torch.where(torch.tensor([True, False, True, False]), data, torch.nan)
    np.testing.assert_allclose(model.log_prob(fewer, generator=seeded()), own[[0, 2]].sum(0), rtol=1e-6)


@torch.no_grad()
def test_the_encoder_sees_that_an_entry_is_missing_and_not_its_value() -> None:
    event = Event((2,), REAL, missing=True)
    model = VAE(event, latent_dim=2, hidden=(8,))
    x = torch.tensor([[1.0, math.nan], [1.0, 0.0]])
    model.prepare(Batch(torch.randn(50, 2, generator=seeded())), generator=seeded())
    seen = model.nets.inputs(model.nets.observation.target(x))
    assert seen[0].tolist() == [seen[0, 0].item(), 0.0, 0.0, 1.0]
    assert not torch.equal(*model.encode(x))


@torch.no_grad()
def test_the_rounded_logistic_sums_to_one_over_its_levels_and_draws_follow_it() -> None:
    model = VAE(Event((1,), Support("ordinal", 5, 2)), latent_dim=1)
    outputs = torch.tensor([[0.3, -1.2]])
    levels = torch.arange(2, 7)[:, None]
    log_p = model.nets.observation.total_log_prob(model.nets.observation.target(levels), outputs.expand(5, 1, 2))
    p = log_p.exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)
    n = 40_000
    draws = model.nets.observation.raw(model.nets.observation.draw(outputs.expand(n, 1, 2), seeded()))
    share = torch.stack([(draws == v).float().mean() for v in range(2, 7)])
    assert ((share - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()
    assert int(model.nets.observation.raw(model.nets.observation.typical(outputs[None]))) == 2 + int(p.argmax())


@pytest.mark.parametrize("name", ["bernoulli", "bernoulli conv", "categorical", "categorical conv"])
@torch.no_grad()
def test_decode_gives_the_most_probable_example(name: str) -> None:
    model = enumerable(name)
    x = all_examples(model.event)
    z = torch.randn(5, 2, generator=seeded(), dtype=torch.float64)
    decoded = model.decode(z)
    assert decoded.dtype == model.event.dtype
    for i in range(5):
        log_p = model.nets.log_likelihood(model.nets.target(x), z[i].expand(1, len(x), 2))
        assert torch.equal(decoded[i].long(), x[int(log_p.argmax())])


@torch.no_grad()
def test_binary_samples_are_draws_and_not_probabilities_or_modes() -> None:
    model = VAE(Event((3,), BINARY), latent_dim=2, hidden=())
    model.nets.decoder[-1].weight.zero_()
    model.nets.decoder[-1].bias.copy_(torch.tensor([0.4, -1.0, 2.0]))
    p = model.nets.decoder[-1].bias.sigmoid()
    draws = model.sample(20_000, generator=seeded())
    assert draws.dtype == torch.uint8
    assert ((draws.double().mean(0) - p).abs() < 4 * (p * (1 - p) / 20_000).sqrt()).all()


def brute_force_log_weights(model: VAE, x: Tensor, noise: Tensor) -> list[list[tuple[Tensor, Tensor, Tensor]]]:
    """[example][sample] → (log w, z, posterior parameters), by distributions objects, one at a time."""
    table = []
    for b in range(len(x)):
        mean, log_variance = model.nets.encoder(x[b : b + 1].double()).chunk(2, -1)
        row = []
        for eps in noise[:, b : b + 1]:
            std = (0.5 * log_variance).exp()
            z = mean + std * eps
            log_w = (
                Bernoulli(logits=model.nets.decoder(z)).log_prob(x[b : b + 1].double()).sum()
                + Normal(0.0, 1.0).log_prob(z).sum()
                - Normal(mean, std).log_prob(z).sum()
            )
            row.append((log_w, z, torch.cat([mean, std])))
        table.append(row)
    return table


@pytest.fixture
def small() -> tuple[VAE, Tensor, Tensor]:
    event = Event((4,), BINARY)
    model = randomised(VAE(event, latent_dim=2, hidden=(3,), activation="tanh", samples=5))
    x = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 0, 0]])
    generator = seeded(3)
    noise = torch.stack([torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(5)])
    return model, x, noise


def with_options(model: VAE, **options: object) -> VAE:
    """A copy of the model with other options of the loss."""
    other = VAE(model.event, **(model.config | options)).to(model.dtype)
    other.load_state_dict(model.state_dict())
    return other


def gradients(model: VAE, loss: Tensor) -> dict[str, Tensor]:
    """Of the mean over examples."""
    names = [n for n, _ in model.named_parameters()]
    found = torch.autograd.grad(loss.mean(), list(model.parameters()), allow_unused=True, retain_graph=True)
    return {n: torch.zeros(()) if g is None else g for n, g in zip(names, found, strict=True)}


def test_the_k_objective_and_its_gradient_are_those_of_a_loop_over_examples(small: tuple[VAE, Tensor, Tensor]) -> None:
    model, x, noise = small
    terms = model.loss(Batch(x), generator=seeded(3))
    table = brute_force_log_weights(model, x, noise)
    bounds = [(torch.stack([w for w, _, _ in row]).exp().mean()).log() for row in table]
    reference = -torch.stack(bounds)
    torch.testing.assert_close(terms["loss"], reference)
    torch.testing.assert_close(gradients(model, terms["loss"]), gradients(model, reference))
    bound = model.log_prob(x, samples=5, generator=seeded(3))
    torch.testing.assert_close(bound, -reference)
    torch.testing.assert_close(gradients(model, -bound), gradients(model, reference))
    reconstruction = torch.stack(
        [
            torch.stack(
                [-Bernoulli(logits=model.nets.decoder(z)).log_prob(x[b].double()).sum() for _, z, _ in row]
            ).mean()
            for b, row in enumerate(table)
        ]
    )
    torch.testing.assert_close(terms["reconstruction"], reconstruction.detach())


def test_dreg_is_the_formula_of_its_paper(small: tuple[VAE, Tensor, Tensor]) -> None:
    """Encoder: Σ_i w̃_i² ∂log w_i/∂z_i ∂z_i/∂φ; decoder: Σ_i w̃_i ∂log w_i/∂θ, the plain gradient."""
    plain, x, noise = small
    model = with_options(plain, gradient="dreg")
    terms = model.loss(Batch(x), generator=seeded(3))
    plain_loss = plain.loss(Batch(x), generator=seeded(3))["loss"]
    torch.testing.assert_close(terms["loss"], plain_loss)
    found, ordinary = gradients(model, terms["loss"]), gradients(plain, plain_loss)

    surrogate = torch.zeros((), dtype=torch.float64)
    for b, row in enumerate(brute_force_log_weights(model, x, noise)):
        shares = torch.stack([w for w, _, _ in row]).detach().softmax(0)
        for (_, z, q), share in zip(row, shares, strict=True):
            held, (mean, std) = z.detach().requires_grad_(), q.detach()
            log_w = (
                Bernoulli(logits=model.nets.decoder(held)).log_prob(x[b].double()).sum()
                + Normal(0.0, 1.0).log_prob(held).sum()
                - Normal(mean, std).log_prob(held).sum()
            )
            slope = torch.autograd.grad(log_w, held)[0]
            surrogate = surrogate - share**2 * (slope * z).sum() / 3
    reference = gradients(model, surrogate)
    for name in found:
        torch.testing.assert_close(found[name], reference[name] if name.startswith("nets.encoder") else ordinary[name])
    with torch.no_grad():
        torch.testing.assert_close(model.loss(Batch(x), generator=seeded(3))["loss"], plain_loss)


def test_dreg_and_the_plain_gradient_agree_in_mean_and_dreg_is_steadier(small: tuple[VAE, Tensor, Tensor]) -> None:
    plain, x, _ = small
    dreg = with_options(plain, gradient="dreg")
    batch = Batch(x[:1].expand(300, 4))
    draws = []
    for model in (plain, dreg):
        rows = []
        for i in range(100):
            found = gradients(model, model.loss(batch, generator=seeded(1000 * (model is dreg) + i))["loss"])
            rows.append(torch.cat([g.flatten() for n, g in found.items() if n.startswith("nets.encoder")]))
        draws.append(torch.stack(rows))
    error = ((draws[0].var(0) + draws[1].var(0)) / 100).sqrt()
    difference = (draws[0].mean(0) - draws[1].mean(0)).abs()
    moving = error > 0  # weights from inputs that are 0 have no gradient in either
    assert int(moving.sum()) > 20
    assert (difference[moving] < 4 * error[moving]).all()
    assert (difference[~moving] == 0).all()
    assert float(draws[1].var(0).sum()) < float(draws[0].var(0).sum())


def test_sticking_the_landing_has_the_mean_of_the_plain_gradient_and_none_at_the_exact_posterior(
    linear: LinearGaussian, small: tuple[VAE, Tensor, Tensor]
) -> None:
    exact = with_options(linear.model, gradient="stl")
    found = gradients(exact, exact.loss(Batch(linear.x), generator=seeded())["loss"])
    usual = gradients(linear.model, linear.model.loss(Batch(linear.x), generator=seeded())["loss"])
    for name in (n for n in found if n.startswith("nets.encoder")):
        assert float(found[name].abs().max()) < 1e-9
        assert float(usual[name].abs().max()) > 1e-3
    x = small[1]
    plain, landing = (with_options(small[0], samples=1, gradient=g) for g in ("pathwise", "stl"))
    batch = Batch(x[:1].expand(300, 4))
    draws = []
    for model in (plain, landing):
        rows = []
        for i in range(100):
            found = gradients(model, model.loss(batch, generator=seeded(1000 * (model is landing) + i))["loss"])
            rows.append(torch.cat([g.flatten() for g in found.values()]))
        draws.append(torch.stack(rows))
    error = ((draws[0].var(0) + draws[1].var(0)) / 100).sqrt()
    assert bool(((draws[0].mean(0) - draws[1].mean(0)).abs() <= 4.5 * error).all())
    torch.testing.assert_close(
        -landing.loss(Batch(x), generator=seeded(2))["loss"], landing.log_prob(x, generator=seeded(2))
    )


def test_kl_reaches_the_encoder_only_and_beta_scales_it_alone() -> None:
    plain = randomised(VAE(Event((4,), BINARY), latent_dim=2, hidden=(3,), activation="tanh"))
    x = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]])
    terms = plain.loss(Batch(x), generator=seeded())
    kl, reconstruction = gradients(plain, terms["kl"]), gradients(plain, terms["reconstruction"])
    for name in kl:
        assert bool(kl[name].any()) == name.startswith("nets.encoder"), name
        assert bool(reconstruction[name].any()), name
    heavy = with_options(plain, beta=4.0)
    found = gradients(heavy, heavy.loss(Batch(x), generator=seeded())["loss"])
    torch.testing.assert_close(found, {n: reconstruction[n] + 4 * kl[n] for n in kl})
    for samples in (1, 8):
        ours, theirs = (m.log_prob(x, samples=samples, generator=seeded(1)) for m in (plain, heavy))
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["bernoulli", "categorical conv", "gaussian"])
@torch.no_grad()
def test_chunks_do_not_change_the_bound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = enumerable(name)
    x = all_examples(model.event)[:3]
    whole = model.log_prob(x, samples=23, generator=seeded())
    sizes = []
    original = Autoencoder.log_likelihood

    def counted(self: Autoencoder, target: Tensor, z: Tensor, features: Tensor | None = None) -> Tensor:
        sizes.append(len(z))
        return original(self, target, z, features)

    monkeypatch.setattr(Autoencoder, "log_likelihood", counted)
    for chunk in (1, 5):
        sizes.clear()
        monkeypatch.setattr(vae_module, "_CHUNK_ELEMENTS", chunk * len(x) * model.nets.widest)
        torch.testing.assert_close(model.log_prob(x, samples=23, generator=seeded()), whole, rtol=1e-12, atol=0)
        assert sum(sizes) == 23
        assert max(sizes) == chunk


@pytest.mark.parametrize("name", ENUMERABLE)
@torch.no_grad()
def test_the_weights_of_drawn_latents_average_to_the_bound(name: str) -> None:
    model = enumerable(name)
    batch = Batch(all_examples(model.event))
    assert model.latent_event == Event((2,), REAL)
    generator, log_weights = seeded(4), []
    for _ in range(5):
        z, log_q = model.draw_latents(batch, generator=generator)
        log_weights.append(model.log_joint(batch, z, generator=generator) - log_q)
    bound = model.log_prob(batch.x, samples=5, generator=seeded(4))
    torch.testing.assert_close(torch.stack(log_weights).logsumexp(0) - math.log(5), bound)


def test_the_paper_preset_is_the_iwae_net() -> None:
    model = create("vae", Event((1, 28, 28), BINARY), preset="paper")
    encoder = 784 * 200 + 200 + 200 * 200 + 200 + 2 * (200 * 50 + 50)
    decoder = 50 * 200 + 200 + 200 * 200 + 200 + 200 * 784 + 784
    assert model.parameter_count == encoder + decoder == 425_284
    assert [type(m).__name__ for m in model.nets.decoder] == ["Flatten", "Linear", "Tanh", "Linear", "Tanh", "Linear"]
    weight = model.nets.encoder[1].weight.detach()
    limit = math.sqrt(6 / (784 + 200))  # Glorot's uniform
    assert 0.99 * limit < float(weight.abs().max()) <= limit
    assert not model.nets.encoder[1].bias.any()


@torch.no_grad()
def test_prepare_puts_the_output_bias_at_the_marginals() -> None:
    x = (torch.rand(500, 3, 4, 4, generator=seeded()) < torch.tensor([0.2, 0.5, 0.7]).view(3, 1, 1)).to(torch.uint8)
    x[:, 0, 0, 0] = 0  # never on: its mean is clipped at 0.001
    dense, conv = (VAE(Event((3, 4, 4), BINARY), hidden=(8,), net=net) for net in ("dense", "conv"))
    for model in (dense, conv):
        model.prepare(Batch(x), generator=seeded())
    pixel, channel = x.numpy().mean(0).flatten().clip(0.001, 0.999), x.numpy().mean((0, 2, 3))
    np.testing.assert_allclose(dense.nets.decoder[-1].bias, np.log(pixel / (1 - pixel)), rtol=1e-5)
    np.testing.assert_allclose(conv.nets.decoder[-1].bias, np.log(channel / (1 - channel)), rtol=1e-5)


@pytest.mark.parametrize("net", ["dense", "conv"])
@torch.no_grad()
def test_prepared_categorical_outputs_are_the_frequencies_of_each_dimension_or_channel(net: str) -> None:
    event = Event((2, 4, 4), Support("ordinal", 3, 5))
    model = VAE(event, hidden=(4,), net=net, decoder="categorical").double()
    x = torch.randint(5, 8, (40, 2, 4, 4), generator=seeded())
    x[:, 1] = torch.where(x[:, 1] == 5, 6, x[:, 1])
    model.prepare(Batch(x), generator=seeded())
    for layer in (model.nets.decoder[-1], model.nets.encoder[-1]):
        layer.weight.zero_()
    total = torch.zeros(len(x), dtype=torch.float64)
    for c, i, j in itertools.product(range(2), range(4), range(4)):
        cells = x[:, c, i, j] if net == "dense" else x[:, c].flatten()
        counts = np.array([int((cells == v).sum()) + 1 for v in (5, 6, 7)])
        total += Categorical(torch.from_numpy(counts / counts.sum())).log_prob(x[:, c, i, j] - 5)
    torch.testing.assert_close(model.log_prob(x, generator=seeded()), total, rtol=1e-6, atol=0)


@torch.no_grad()
def test_prepared_logistic_outputs_have_the_mean_and_spread_of_the_data() -> None:
    model = VAE(Event((2,), Support("ordinal", 256)), hidden=())
    x = torch.stack([stats_draw(90, 20), stats_draw(150, 8)], 1)
    model.prepare(Batch(x), generator=seeded())
    model.nets.decoder[-1].weight.zero_()
    draws = model.sample(20_000, generator=seeded()).double()
    np.testing.assert_allclose(draws.mean(0), x.double().mean(0), atol=1)
    np.testing.assert_allclose(draws.std(0), x.double().std(0), rtol=0.03)


def stats_draw(mean: float, std: float) -> Tensor:
    return (mean + std * torch.randn(2000, generator=seeded(int(mean)))).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("side", [8, 28, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_output_of_the_conv_net_depends_on_z_and_every_input_reaches_it(side: int, channels: int) -> None:
    model = VAE(Event((channels, side, side), Support("ordinal", 256)), hidden=(6, 8, 8), net="conv", activation="tanh")
    x = torch.randint(0, 256, (2, channels, side, side), generator=seeded())
    features = model.nets.inputs.image(x).requires_grad_()
    model.nets.encoder(features).square().sum().backward()
    assert bool((features.grad != 0).all())
    z = torch.randn(2, 32, generator=seeded())
    one, two = model.nets.decode(z, None)
    assert bool((one != two).all())
    assert bool(model.event.contains(model.sample(2, generator=seeded())).all())


def test_under_autocast_products_are_bfloat16_and_log_densities_float32() -> None:
    torch.manual_seed(0)
    model = VAE(Event((40,), BINARY), latent_dim=8, hidden=(32,))
    x = torch.randint(0, 2, (64, 40), generator=seeded())
    expected = model.loss(Batch(x), generator=seeded())
    seen = []
    model.nets.decoder.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    with torch.autocast("cpu", torch.bfloat16):
        terms = model.loss(Batch(x), generator=seeded())
        bound = model.log_prob(x, samples=3, generator=seeded())
    assert {output.dtype for output in seen} == {torch.bfloat16}
    # Every step after the decoder's product is in float32: the reconstruction is that of its outputs to six digits.
    reconstruction = -Bernoulli(logits=seen[0].double()).log_prob(x.double()).sum(1)
    torch.testing.assert_close(terms["reconstruction"].double(), reconstruction, rtol=2e-6, atol=0)
    assert bound.dtype == torch.float32
    for name, value in terms.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.mean(), expected[name].mean(), rtol=0.01, atol=0.01)
    assert bound.unique().numel() == 64  # sums in bfloat16 would round values near -30 to a few eighths


def test_far_outliers_and_constant_columns_stay_finite() -> None:
    event = Event((3,), REAL)
    model = VAE(event, latent_dim=2, hidden=())
    data = torch.cat([torch.randn(100, 2, generator=seeded()), torch.full((100, 1), 7.0)], 1)
    model.prepare(Batch(data), generator=seeded())
    with torch.no_grad():
        model.nets.observation.deviations.tenth[2] = -8.0  # where the likelihood of a constant column would drive it
    x = torch.tensor([[1e5, -1e5, 7.0], [-1e5, 1e5, 7.0], [0.0, 0.0, 7.0]])  # log-variances of both signs
    terms = model.loss(Batch(x), generator=seeded())
    terms["loss"].mean().backward()
    assert bool(model.log_prob(x, samples=4, generator=seeded()).isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("event", "options", "words"),
    [
        (Event((4,), BINARY), {"samples": 5, "beta": 2.0}, "no KL term to weight"),
        (Event((4,), BINARY), {"gradient": "dreg"}, "samples > 1"),
        (Event((4,), BINARY), {"gradient": "stl", "samples": 5}, "biased for samples > 1"),
        (Event((4,), BINARY), {"samples": 0}, "at least 1"),
        (Event((4,), BINARY), {"decoder": "logistic"}, "expected 'bernoulli'"),
        (Event((4,), REAL), {"decoder": "bernoulli"}, "expected 'gaussian'"),
        (Event((4,), Support("nominal", 5)), {"decoder": "gaussian"}, "expected 'categorical'"),
        (Event((4,), BINARY), {"net": "conv"}, "use net='dense'"),
        (Event((2,), (BINARY, REAL)), {"decoder": "gaussian"}, "expected 'auto'"),
        (Event((1, 8, 8), BINARY, missing=True), {"net": "conv"}, "complete images"),
        (Event((1, 8, 8), BINARY), {"net": "conv", "hidden": (8, 8, 8, 8)}, "sides of at least 16.*use fewer widths"),
        (Event((4,), BINARY), {"hiden": (3,)}, "did you mean 'hidden'"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(event: Event, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        VAE(event, **options)
    assert "\n" not in str(caught.value)


def spread_after(rate: float, steps: int = 750) -> float:
    """Test bound in nats of a VAE on a narrow line in the plane, after training; the entropy of the data is 0.19."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(6000, 1))
    x = np.concatenate([u, u], 1) + 0.05 * rng.normal(size=(6000, 2))
    data = from_arrays(x.astype(np.float32))
    model = create("vae", data, latent_dim=1, hidden=(64, 64), seed=0)
    assert isinstance(model, VAE)
    if rate != 10:
        deviations = model.nets.observation.deviations
        deviations.forward = lambda: rate * deviations.tenth  # type: ignore[method-assign]
    fit(model, data, steps=steps, batch_size=100, lr=1e-3, progress="off", validate_every=0)
    with torch.no_grad():
        return -float(model.log_prob(data.test.x, samples=20, generator=seeded()).mean())


def test_the_deviation_of_the_decoder_learns_as_fast_as_its_mean() -> None:
    fast, slow = spread_after(10), spread_after(1)
    assert fast < slow - 1.5, (fast, slow)


def test_discrepancy_is_that_of_a_loop() -> None:
    x, y = torch.randn(2, 7, 3, generator=seeded(), dtype=torch.float64)

    def kernel(a: Tensor, b: Tensor) -> float:
        return sum(6 * s / (6 * s + float((a - b).square().sum())) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))

    pairs = [(i, j) for i in range(7) for j in range(7)]
    within = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs if i != j) / 42
    expected = within - 2 * sum(kernel(x[i], y[j]) for i, j in pairs) / 49
    own = x.clone().requires_grad_()
    found = mmd_each(own, y, x, y).mean()
    assert float(found.detach()) == pytest.approx(expected)
    whole = x.clone().requires_grad_()
    squared = (whole[:, None] - whole).square().sum(-1), (whole[:, None] - y).square().sum(-1)
    k, across = (sum(6 * s / (6 * s + d) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)) for d in squared)
    assert isinstance(k, Tensor)
    assert isinstance(across, Tensor)
    ((k.sum() - k.diagonal().sum()) / 42 - 2 * across.mean()).backward()
    found.backward()
    torch.testing.assert_close(own.grad, whole.grad)


def test_discrepancy_of_equal_laws_has_mean_zero_and_of_others_is_positive() -> None:
    generator = seeded()
    values = []
    for _ in range(200):
        x, y = torch.randn(2, 20, 2, generator=generator)
        values.append(float(mmd_each(x, y, x, y).mean()))
    mean, error = np.mean(values), np.std(values) / math.sqrt(len(values))
    assert abs(mean) < 4 * error
    assert min(values) < 0 < max(values)
    x, y = torch.randn(2, 200, 2, generator=generator)
    assert float(mmd_each(x + 1, y, x + 1, y).mean()) > 0.5


def test_pseudo_inputs_are_a_prior_that_starts_from_examples() -> None:
    event = Event((2,), REAL)
    x = torch.randn(50, 2, generator=seeded(3))
    model = VAE(event, latent_dim=1, hidden=(5,), pseudo_inputs=4)
    model.prepare(Batch(x), generator=seeded())
    assert model.pseudo_inputs is not None
    seen = model.nets.seen(x)
    assert float(torch.cdist(model.pseudo_inputs.detach(), seen).amin(1).max()) < 0.06
    z = torch.linspace(-12, 12, 4001)[None, :, None]
    assert float(torch.trapezoid(model._log_prior(z, None).detach().exp()[0], z[0, :, 0])) == pytest.approx(1, abs=1e-4)
    each = model._of_pseudo_inputs()
    expected = torch.stack([Normal(m, s).log_prob(z[0]).sum(-1) for m, s in zip(each.mean, each.std, strict=True)])
    torch.testing.assert_close(model._log_prior(z, None)[0], expected.logsumexp(0) - math.log(4))
    drawn = model._draw_prior(20_000, seeded(1), 1.0, z)
    assert float(drawn.mean()) == pytest.approx(float(each.mean.detach().mean()), abs=0.05)


def test_free_bits_stop_the_kl_of_latents_that_are_below() -> None:
    model = randomised(VAE(Event((4,), BINARY), latent_dim=3, hidden=(6,), free_bits=1.2))
    x = all_examples(Event((4,), BINARY))
    q = model._posterior(x, None)
    assert isinstance(q, DiagonalGaussian)
    mean = q.kl_each().mean(0)
    assert 0 < int((mean > 1.2).sum()) < 3, mean
    terms = model.loss(Batch(x), generator=seeded())
    charged = torch.where(mean > 1.2, q.kl_each(), 1.2).sum(1)
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + charged)
    torch.testing.assert_close(terms["kl"], q.kl())
    terms["loss"].sub(terms["reconstruction"]).sum().backward()
    bias = model.nets.encoder[-1].bias
    assert isinstance(bias, Tensor)
    assert bias.grad is not None
    below = (mean <= 1.2).repeat(2)
    assert (bias.grad[below] == 0).all()
    assert (bias.grad[~below] != 0).all()


def test_warm_up_raises_the_weight_of_the_kl_and_nothing_else() -> None:
    x = all_examples(Event((4,), BINARY))
    model = randomised(VAE(Event((4,), BINARY), latent_dim=2, hidden=(6,), warm_up=10, beta=2.0))
    for step, weight in ((0, 0.0), (5, 1.0), (10, 2.0), (50, 2.0)):
        terms = model.loss(Batch(x, time=Time(step)), generator=seeded())
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + weight * terms["kl"])
    plain = VAE(Event((4,), BINARY), latent_dim=2, hidden=(6,)).double()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.log_prob(x, generator=seeded(1)), plain.log_prob(x, generator=seeded(1)))


def test_refinement_raises_the_bound_towards_log_p() -> None:
    event = Event((4,), BINARY)
    x = all_examples(event)
    plain = randomised(VAE(event, latent_dim=2, hidden=(6,)))
    g = torch.linspace(-6, 6, 121, dtype=torch.float64)
    z = torch.cartesian_prod(g, g)[:, None].expand(-1, len(x), -1)
    with torch.no_grad():
        joint = plain.nets.log_likelihood(plain.nets.target(x), z) + plain.prior.log_prob(z)
    bounds, exact = [], joint.logsumexp(0) + 2 * math.log(0.1)
    for steps in (0, 5, 60):
        model = VAE(event, latent_dim=2, hidden=(6,), refinement=steps).double()
        model.load_state_dict(plain.state_dict())
        with torch.no_grad():
            bounds.append(torch.stack([model.log_prob(x, generator=seeded(s)) for s in range(60)]).mean(0))
        assert all(p.grad is None for p in model.parameters())
    assert float((bounds[1] - bounds[0]).mean()) > 0.02
    assert float((bounds[2] - bounds[1]).mean()) > 0.02
    assert float((bounds[2] - exact).max()) < 0.1  # up to the noise of 60 draws


def test_a_full_posterior_can_be_exact_where_a_diagonal_one_cannot() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(2000, 4)) @ rng.normal(size=(4, 4)) + 0.5)
    gaps, weight = {}, torch.from_numpy(rng.normal(size=(4, 2)))
    for name in ("diagonal", "full"):
        torch.manual_seed(0)
        model = VAE(Event((4,), REAL), latent_dim=2, hidden=(), posterior=name).double()
        model.prepare(Batch(x), generator=seeded())
        with torch.no_grad():
            model.nets.decoder[-1].weight.copy_(weight)
            model.nets.observation.deviations.tenth.fill_(-0.05)
        for parameter in (*model.nets.decoder.parameters(), *model.nets.observation.parameters()):
            parameter.requires_grad_(False)
        learned = list(model.nets.encoder.parameters())
        optimizer = torch.optim.Adam(learned, lr=0.02)
        for step in range(400):
            optimizer.zero_grad()
            model.loss(Batch(x), generator=seeded(step))["loss"].mean().backward()
            optimizer.step()
        with torch.no_grad():
            one, many = (model.log_prob(x, samples=k, generator=seeded(9)).mean() for k in (1, 500))
        gaps[name] = float(many - one)
    assert gaps["full"] < 0.01 < 0.1 < gaps["diagonal"], gaps


def test_older_files_of_gaussian_decoders_load() -> None:
    model = VAE(Event((3,), REAL), latent_dim=1, hidden=(4,))
    model.nets.observation.deviations.tenth.data.copy_(torch.tensor([0.1, -0.2, 0.3]))
    older = dict(model.state_dict())
    older["nets.observation.log_std"] = older.pop("nets.observation.deviations.tenth") * 10
    other = VAE(Event((3,), REAL), latent_dim=1, hidden=(4,))
    load_state(other, older, "a file")
    torch.testing.assert_close(other.nets.observation.deviations(), torch.tensor([1.0, -2.0, 3.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 3, "free_bits": 0.1}, "L_k has no KL term"),
        ({"posterior": "iaf", "gradient": "stl"}, "needs the density of q at any z"),
        ({"posterior": "planar", "refinement": 2}, "refinement is for posterior='diagonal'"),
        ({"flow_steps": 3}, "flow_steps=3 is for a posterior that is a flow, got 'diagonal'"),
        ({"posterior": "full", "flow_steps": 3}, "got 'full'"),
        ({"posterior": "planar", "flow_hidden": (9,)}, "is for posterior='iaf'"),
        ({"window_features": 9}, "is for a window above 0"),
        ({"pseudo_inputs": 3, "prior": {"name": "made"}}, "a prior of their own"),
        ({"pseudo_inputs": 3, "posterior": "full"}, "pseudo_inputs are for posterior='diagonal'"),
        ({"pseudo_inputs": 3, "beta": 0.0, "mmd": 1.0}, "nothing trains the prior"),
        ({"prior": {"name": "made"}, "beta": 0.0}, "nothing trains the prior"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create("vae", Event((4,), BINARY), preset="tiny", **options)


def test_with_beta_zero_the_prior_is_fixed_and_the_discrepancy_moves_the_encoder_alone() -> None:
    prior = {"name": "gaussian-mixture", "options": {"components": 2, "learn": "gradient"}, "frozen": True}
    model = create("vae", Event((4,), BINARY), preset="tiny", beta=0.0, mmd=3.0, prior=prior, seed=0)
    x = torch.randint(0, 2, (8, 4), generator=torch.Generator().manual_seed(0))
    terms = model.loss(Batch(x), generator=torch.Generator().manual_seed(1))
    terms["mmd"].mean().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().max() > 0)}
    assert moved
    assert all(name.startswith("nets.encoder") for name in moved), moved
