"""Score matching of energy networks against Gaussians in closed form and quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unsup
from unsup import Batch, Event, InputError, Support, create
from unsup.data import Data, Split
from unsup.evaluate.quadrature import find_partition, grid
from unsup.families.energy.score_matching import ScoreMatching
from unsup.testing.cases import examples

REAL, PLANE = Support("real"), Event((2,), Support("real"))
METHODS = ("exact", "sliced", "denoising")
COVARIANCE = torch.tensor([[4.0, 1.2], [1.2, 1.0]], dtype=torch.float64)
MEAN = torch.tensor([3.0, -1.0], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Quadratic(nn.Module):
    """½ yᵀ A y − bᵀ y, which with the reference makes the precision I + A."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(dims, dims))
        self.b = nn.Parameter(torch.zeros(dims))

    def forward(self, y: Tensor) -> Tensor:
        return 0.5 * torch.einsum("bi,ij,bj->b", y, self.a, y) - y @ self.b


def gaussian(n: int) -> Tensor:
    """Rows with the mean and covariance above exactly."""
    x = torch.randn(n, 2, generator=seeded(), dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / n)).T
    return MEAN + x @ torch.linalg.cholesky(COVARIANCE).T


@pytest.mark.parametrize("method", METHODS)
def test_each_method_recovers_the_score_of_a_gaussian_in_raw_units(method: str) -> None:
    sigma, x = 0.5, gaussian(1000)
    model = ScoreMatching(PLANE, hidden=(4,), method=method, sigma=sigma)
    model.net.net = Quadratic(2)
    model.double().train()
    model.prepare(Batch(x), generator=seeded())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    for step in range(200):
        optimizer.zero_grad()
        model.loss(Batch(x), generator=seeded(step))["loss"].mean().backward()
        optimizer.step()
        schedule.step()
    # Denoising fits the density of the noisy data, whose noise is σ standard deviations of each entry.
    noisy = COVARIANCE + sigma**2 * torch.diag(COVARIANCE.diagonal()) if method == "denoising" else COVARIANCE
    where = torch.tensor([[3.0, -1.0], [5.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    expected = -(where - MEAN) @ torch.linalg.inv(noisy)
    torch.testing.assert_close(model.score(where), expected, rtol=0, atol=0.08)
    # The loss at the optimum: −½ tr of the standardised precision, or what no score can explain of the noise.
    std = COVARIANCE.diagonal().sqrt()
    trace = float((std[:, None] * torch.linalg.inv(noisy) * std).trace())
    least = 0.5 * (2 / sigma**2 - trace) if method == "denoising" else -0.5 * trace
    losses = [model.loss(Batch(x), generator=seeded(1000 + i))["loss"].mean().item() for i in range(40)]
    assert abs(np.mean(losses) - least) < 0.03 + 4 * np.std(losses) / math.sqrt(40)


def test_the_terms_add_up_to_the_loss() -> None:
    x = examples(PLANE, 64).x
    for method in ("exact", "sliced"):
        model = create("score-matching", PLANE, preset="tiny", method=method)
        terms = model.loss(Batch(x), generator=seeded())
        torch.testing.assert_close(terms["norm"] + terms["trace"], terms["loss"].detach())
        assert bool((terms["norm"] > 0).all())
    model = create("score-matching", PLANE, preset="tiny", sigma=0.5)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    model.net.free.fill_(False)  # a score of zero explains nothing of the noise
    many = Batch(x.repeat(2000, 1))
    assert float(model.loss(many, generator=seeded())["unexplained"].mean()) == pytest.approx(1.0, abs=0.01)


def test_the_loss_lowers_the_trace_and_the_norm_each_by_its_own_gradient() -> None:
    x = Batch(examples(PLANE, 64).x.double())
    model = create("score-matching", PLANE, preset="tiny", method="exact").double()
    model.prepare(Batch(x.x), generator=seeded())
    y = model.net.scale(x.x)

    def parts() -> tuple[Tensor, Tensor]:
        leaf = y.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model.net(leaf).sum(), leaf, create_graph=True)
        curvature = sum(
            torch.autograd.grad(slope[:, d].sum(), leaf, create_graph=True)[0][:, d].mean() for d in range(2)
        )
        return 0.5 * slope.square().sum(1).mean(), -curvature

    model.loss(x, generator=seeded())["loss"].mean().backward()
    found = [p.grad for p in model.parameters()]
    norm, trace = (torch.autograd.grad(part, list(model.parameters()), retain_graph=True) for part in parts())
    for g, a, b in zip(found, norm, trace, strict=True):
        torch.testing.assert_close(g, a + b, rtol=1e-9, atol=1e-12)
        assert bool((a != 0).any())
        assert bool((b != 0).any())


def test_samples_are_those_of_the_density_in_raw_units() -> None:
    model = ScoreMatching(PLANE, hidden=(4,), method="exact", steps=80, step_size=0.1)
    model.net.net = Quadratic(2)
    model.double()
    model.prepare(Batch(gaussian(500)), generator=seeded())
    with torch.no_grad():
        model.net.net.a.fill_diagonal_(0.5)
        model.net.net.b.fill_(1.5)
    x = model.sample(20_000, generator=seeded()).double()
    std = COVARIANCE.diagonal().sqrt()
    np.testing.assert_allclose(x.mean(0), MEAN + std, atol=0.05)  # the standardised mean is b / (1 + a) = 1
    np.testing.assert_allclose(x.std(0), std / math.sqrt(1.5 * (1 - 0.1 * 1.5 / 2)), rtol=0.03)


def test_the_knobs_of_sampling_are_those_of_the_constructor_and_every_step_is_told() -> None:
    """A chain of 3 steps with s = 0.2 on N(0, 1), by hand: y ← 0.8 y + √0.4 ξ."""
    model = ScoreMatching(PLANE, hidden=(4,), method="exact", steps=50, step_size=0.01)
    model.net.net = Quadratic(2)  # 0: the reference alone
    model.double()
    model.prepare(Batch(gaussian(100)), generator=seeded())
    path: list[tuple[int, Tensor]] = []
    found = model.sample(4, generator=seeded(1), steps=3, step_size=0.2, on_step=lambda *at: path.append(at))
    generator = seeded(1)
    y = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    for i in range(3):
        y = 0.8 * y + math.sqrt(0.4) * torch.randn(4, 2, generator=generator, dtype=torch.float64)
        assert path[i][0] == i + 1
        torch.testing.assert_close(path[i][1], model.net.unscale(y))
    assert len(path) == 3
    assert torch.equal(found, path[-1][1])
    whole = model.sample(4, generator=seeded(1), steps=50, step_size=0.01)
    assert torch.equal(model.sample(4, generator=seeded(1)), whole)


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_mixture_is_learned_to_a_small_divergence_from_its_noisy_density(method: str) -> None:
    means, std, sigma = torch.tensor([[-1.0, 0.0], [1.0, 1.0], [1.0, -1.0]]), 0.5, 0.2
    label = torch.randint(0, 3, (3000,), generator=seeded())
    x = means[label] + std * torch.randn(3000, 2, generator=seeded(1))
    split = Split(x)
    model = create("score-matching", PLANE, hidden=(32, 32), method=method, sigma=sigma, steps=1)
    settings = {"steps": 200, "batch_size": 150, "lr": 2e-2, "validate_every": 1000, "progress": "off"}
    unsup.fit(model, Data(None, PLANE, split, split, split), **settings)
    partition = find_partition(model, x)
    points, log_weight = grid(torch.stack([partition.low, partition.high]), 201)
    noise = sigma * x.double().std(0, correction=0) if method == "denoising" else torch.zeros(2, dtype=torch.float64)
    variance = std**2 + noise**2
    log_parts = -0.5 * ((points[:, None] - means.double()).square() / variance).sum(2)
    truth = log_parts.logsumexp(1) - math.log(3) - (2 * math.pi * variance).log().sum() / 2
    with torch.no_grad():
        log_model = -model.energy(points).double() - partition.log_z
    assert float((log_weight + truth).exp().sum()) == pytest.approx(1, abs=1e-4)
    divergence = float(((log_weight + truth).exp() * (truth - log_model)).sum())
    assert 0 < divergence < 0.06


def test_ordinal_data_are_dequantised_before_the_noise() -> None:
    event = Event((1, 4, 4), Support("ordinal", 17))
    model = create("score-matching", event, preset="tiny", hidden=(4,))
    batch = examples(event, 64)
    model.prepare(Batch(batch.x), generator=seeded())
    y = model.net.scale(batch.x, generator=seeded())
    np.testing.assert_allclose(y.mean(0), torch.zeros(1, 4, 4), atol=0.1)
    assert not torch.equal(y, model.net.scale(batch.x, generator=seeded(1)))
    back = model.net.unscale(y)
    assert torch.equal(back, batch.x)
    assert bool(model.net.free.all())  # no bounds: the reference keeps the density finite


@pytest.mark.parametrize(
    ("event", "options", "words"),
    [
        (Event((65,), REAL), {"method": "exact"}, "65: more than 64; use method='sliced'"),
        (Event((4,), Support("binary")), {"method": "exact"}, "use method='denoising'"),
        (Event((1, 4, 4), Support("ordinal", 17)), {"method": "sliced"}, "discrete entries do not have"),
        (Event((2,), (REAL, Support("ordinal", 3))), {"method": "sliced"}, "use method='denoising'"),
        (Event((4,), Support("nominal", 3)), {}, "nominal"),
        (PLANE, {"sigma": 0.0}, "above 0"),
        (PLANE, {"slices": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(event: Event, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ScoreMatching(event, **options)


def test_wells_that_deepen_without_end_are_named() -> None:
    model = create("score-matching", PLANE, preset="tiny", method="exact")
    assert model.diagnose({"loss": -3.0, "norm": 3.0, "trace": -6.0}) is None
    assert "denoising" in model.diagnose({"loss": -1e6, "norm": 1e6, "trace": -2e6}).advice
