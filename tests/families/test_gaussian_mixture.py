"""Gaussian mixture: scikit-learn step by step, scipy's density, closed forms, quadrature."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture as SklearnMixture

from unsup.core.batch import Batch
from unsup.core.errors import InputError, TrainingError
from unsup.core.event import REAL, Event, Support
from unsup.core.model import keyed_generator
from unsup.families.classical.gaussian_mixture import GaussianMixture
from unsup.prob.clusters import kmeans_plus_plus

COVARIANCES = ("full", "diagonal", "tied")
EVENT = Event((3,), REAL)
SKLEARN_NAME = {"full": "full", "diagonal": "diag", "tied": "tied"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(n: int = 300, dims: int = 3, seed: int = 0) -> torch.Tensor:
    """Three overlapping clusters of different shapes, in units far from the standard ones (float64)."""
    g = np.random.default_rng(seed)
    own = g.integers(0, 3, n)
    shapes, centres = g.normal(size=(3, dims, dims)), 2.5 * g.normal(size=(3, dims))
    x = np.einsum("nij,nj->ni", shapes[own], g.normal(size=(n, dims))) + centres[own]
    return torch.tensor(x * np.geomspace(0.1, 30, dims) + 5)


def started(x: torch.Tensor, seed: int = 0, event: Event | None = None, **options) -> GaussianMixture:
    model = GaussianMixture(event or Event(tuple(x.shape[1:]), REAL), **options)
    model.prepare(Batch(x), generator=seeded(seed))
    return model


def em(model: GaussianMixture, x: torch.Tensor, passes: int, noise: int = 0) -> list[float]:
    """Mean log-likelihood before each pass."""
    reached = []
    for _ in range(passes):
        statistics = model.statistics(Batch(x), generator=keyed_generator(noise))
        objective = statistics["log_prob"] + model.parameter_log_prior().detach()  # a prior only of categories
        reached.append(float(objective / statistics["count"]))
        model.maximize(statistics)
    return reached


def precisions(model: GaussianMixture) -> np.ndarray:
    """On standardised data, in scikit-learn's shape."""
    factors = model.gaussians.factors(model.used).detach()
    full = (factors @ factors.mT).numpy()
    if model.covariance == "full":
        return full
    return full[0] if model.covariance == "tied" else np.diagonal(full, axis1=1, axis2=2)


def raw_components(model: GaussianMixture) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """(weight, mean, covariance) of each component in raw units, by dense inverses."""
    factors = model.gaussians.factors(model.used).detach().expand(model.components, -1, -1).numpy()
    std, mean = model.front.std.flatten().numpy(), model.front.mean.flatten().numpy()
    scale = std * model.front.levels.flatten().numpy()
    offset = mean * model.front.levels.flatten().numpy() + model.front.low.flatten().numpy()
    weights = model.logits.detach().softmax(0).numpy()
    means = model.gaussians.means.detach().numpy() * scale + offset
    return [
        (w, m, np.linalg.inv(u @ u.T) * np.outer(scale, scale)) for w, m, u in zip(weights, means, factors, strict=True)
    ]


def set_randomly(model: GaussianMixture, seed: int = 0) -> GaussianMixture:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=seeded(seed), dtype=parameter.dtype))
    model.front.mean.copy_(torch.randn(model.event.shape, generator=seeded(seed + 1)))
    model.front.std.copy_(torch.rand(model.event.shape, generator=seeded(seed + 2)) + 0.5)
    return model


@pytest.mark.parametrize("passes", [1, 2, 5, 300])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_em_agrees_with_scikit_learn(covariance: str, passes: int) -> None:
    x = clusters()
    model = started(x, components=4, covariance=covariance, floor=1e-6)
    y = model.front(x)[0].numpy()
    reference = SklearnMixture(
        4,
        covariance_type=SKLEARN_NAME[covariance],
        tol=0,
        reg_covar=1e-6,
        max_iter=passes,
        weights_init=model.logits.detach().softmax(0).numpy(),
        means_init=model.gaussians.means.detach().numpy().copy(),
        precisions_init=precisions(model),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it did not converge: that is asked for
        reference.fit(y)
    em(model, x, passes)
    np.testing.assert_allclose(model.logits.detach().softmax(0), reference.weights_, rtol=1e-6)
    np.testing.assert_allclose(model.gaussians.means.detach(), reference.means_, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(precisions(model), reference.precisions_, rtol=1e-6, atol=1e-6)
    scores = model.log_prob(x).detach().numpy() - model.front(x)[1].numpy()
    np.testing.assert_allclose(scores, reference.score_samples(y), rtol=1e-6)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_log_prob_and_responsibilities_are_scipys(covariance: str) -> None:
    model = set_randomly(GaussianMixture(EVENT, components=4, covariance=covariance))
    x = torch.randn(20, 3, generator=seeded(5), dtype=torch.float64) * 2
    densities = np.stack([w * stats.multivariate_normal(m, c).pdf(x.numpy()) for w, m, c in raw_components(model)], 1)
    np.testing.assert_allclose(model.log_prob(x).detach(), np.log(densities.sum(1)), rtol=1e-9)
    np.testing.assert_allclose(model.encode(x).detach(), densities / densities.sum(1, keepdims=True), rtol=1e-8)
    order = torch.tensor([2, 0, 3, 1])
    before = model.log_prob(x)
    with torch.no_grad():
        for parameter in model.parameters():
            if len(parameter) == 4:
                parameter.copy_(parameter[order].clone())
    torch.testing.assert_close(model.log_prob(x), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_it_integrates_to_one_in_raw_units(covariance: str) -> None:
    x = clusters(200, 2)
    model = started(x, components=3, covariance=covariance)
    em(model, x, 5)
    low, high = x.amin(0), x.amax(0)
    middle, span = (low + high) / 2, high - low
    ends = zip((middle - 1.5 * span).tolist(), (middle + 1.5 * span).tolist(), strict=True)
    lines = [torch.linspace(a, b, 801, dtype=torch.float64) for a, b in ends]
    grid = torch.cartesian_prod(*lines)
    cell = float((lines[0][1] - lines[0][0]) * (lines[1][1] - lines[1][0]))
    assert abs(float(model.log_prob(grid).exp().sum().detach()) * cell - 1) < 1e-9


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal"])
def test_one_component_is_the_sample_mean_and_covariance(covariance: str) -> None:
    x = clusters()
    model = started(x, components=1, covariance=covariance, floor=0.0)
    em(model, x, 2)
    _, mean, matrix = raw_components(model)[0]
    expected = np.cov(x.numpy().T, bias=True)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-10)
    np.testing.assert_allclose(matrix, np.diag(np.diag(expected)) if covariance == "diagonal" else expected, rtol=1e-8)


@pytest.mark.parametrize(
    "event",
    [
        EVENT,
        Event((3,), Support("ordinal", 6), layout="sequence"),
        Event((3,), (REAL, Support("ordinal", 6), REAL)),
        Event((3,), (REAL, Support("nominal", 4), REAL)),
        Event((3,), (REAL, Support("ordinal", 30), REAL), missing=True),
        Event((3,), REAL, missing=True),
    ],
)
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_em_never_lowers_the_likelihood(covariance: str, event: Event) -> None:
    x = clusters()
    for d, support in enumerate(event.columns):
        if support.is_discrete:  # quantiles, as levels
            x[:, d] = (x[:, d].argsort().argsort() * support.levels / len(x)).floor()
    if event.missing:
        x[torch.rand(x.shape, generator=seeded()) < 0.3] = torch.nan
    model = started(x, event=event, components=4, covariance=covariance, floor=0.0)
    reached = em(model, x, 40)
    assert min(b - a for a, b in itertools.pairwise(reached)) > -1e-10
    assert reached[-1] > reached[0] + 0.01


def test_statistics_add_over_batches() -> None:
    x = clusters()
    for covariance in COVARIANCES:
        model = started(x, components=3, covariance=covariance)
        whole = model.statistics(Batch(x))
        parts = [model.statistics(Batch(p)) for p in x.split((100, 7, 193))]
        for name, total in whole.items():
            torch.testing.assert_close(sum(p[name] for p in parts), total, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(whole["log_prob"], model.log_prob(x).sum().detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_gradient_ascent_reaches_the_em_optimum(covariance: str) -> None:
    x = clusters()
    by_em = started(x, components=3, covariance=covariance, floor=0.0)
    em(by_em, x, 600)
    loss = by_em.loss(Batch(x))["loss"].mean()
    loss.backward()
    assert max(float(p.grad.abs().max()) for p in by_em.parameters()) < 1e-6

    by_gradient = started(x, components=3, covariance=covariance, learn="gradient", floor=0.0)
    assert by_gradient.passes == 0
    optimizer = torch.optim.LBFGS(
        by_gradient.parameters(),
        max_iter=500,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = by_gradient.loss(Batch(x))["loss"].mean()
        value.backward()
        return value

    before = float(closure().detach())
    optimizer.step(closure)
    assert before > float(loss.detach()) + 1e-3
    assert abs(float(by_gradient.loss(Batch(x))["loss"].mean().detach()) - float(loss.detach())) < 1e-7


def test_examples_count_by_their_weight() -> None:
    """Weights of 0, 1, 2 are examples that are absent, there, and there twice."""
    x, weight = clusters(), torch.tensor([0.0, 1.0, 2.0]).repeat(100)
    often = x.repeat_interleave(weight.long(), 0)
    for covariance in COVARIANCES:
        model = started(x, components=3, covariance=covariance)
        expected = model.statistics(Batch(often))
        for name, found in model.statistics(Batch(x, weight=weight)).items():
            torch.testing.assert_close(found, expected[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_bic_is_scikit_learns(covariance: str) -> None:
    x = clusters()
    model = started(x, components=3, covariance=covariance)
    em(model, x, 20)
    y = model.front(x)[0].numpy()
    reference = SklearnMixture(
        3,
        covariance_type=SKLEARN_NAME[covariance],
        max_iter=1,
        reg_covar=1e-6,
        weights_init=model.logits.detach().softmax(0).numpy(),
        means_init=model.gaussians.means.detach().numpy(),
        precisions_init=precisions(model),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference.fit(y)
    assert model.n_free == reference._n_parameters()
    em(model, x, 1)
    in_raw_units = reference.bic(y) - 2 * float(model.front(x)[1].sum())
    assert model.bic(x) == pytest.approx(in_raw_units, rel=1e-9)


def test_pixels_are_encoded_at_the_middle_of_their_level() -> None:
    model = set_randomly(GaussianMixture(Event((1, 1, 2), Support("ordinal", 3)), components=3))
    x = torch.tensor([[[[0, 2]]], [[[1, 1]]]])
    middle = x.flatten(1).numpy() + 0.5
    densities = np.stack([w * stats.multivariate_normal(m, c).pdf(middle) for w, m, c in raw_components(model)], 1)
    np.testing.assert_allclose(model.encode(x).detach(), densities / densities.sum(1, keepdims=True), rtol=1e-8)


def test_the_start_is_the_hard_assignment_to_the_seeds() -> None:
    x = clusters()
    model = started(x, components=4, covariance="full", floor=1e-6)
    y = model.front(x)[0]
    _, nearest = kmeans_plus_plus(y, 4, generator=seeded())
    for k in range(4):
        own = y[nearest == k].numpy()
        np.testing.assert_allclose(model.gaussians.means[k].detach(), own.mean(0), rtol=1e-9, atol=1e-12)
        matrix = np.cov(own.T, bias=True) + 1e-6 * np.eye(3)
        np.testing.assert_allclose(precisions(model)[k], np.linalg.inv(matrix), rtol=1e-6)
    np.testing.assert_allclose(model.logits.detach().softmax(0), nearest.bincount().double() / len(x), rtol=1e-10)


def test_restarts_keep_the_likeliest_short_run() -> None:
    x, generator, reached = clusters(), seeded(3), []
    single = GaussianMixture(EVENT, components=5)
    for _ in range(4):
        single.prepare(Batch(x), generator=generator)
        em(single, x, 10)
        reached.append(float(single.log_prob(x).mean().detach()))
    best = started(x, seed=3, components=5, restarts=4)
    assert max(reached) > reached[-1] + 1e-6  # the last is not the best, so keeping the last would show
    assert abs(float(best.log_prob(x).mean().detach()) - max(reached)) < 1e-10


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_draws_follow_every_projection_of_the_mixture(covariance: str) -> None:
    model = set_randomly(GaussianMixture(EVENT, components=3, covariance=covariance))
    draws = model.sample(10000, generator=seeded()).double().numpy()
    for direction in np.random.default_rng(0).normal(size=(4, 3)):
        parts = [
            (w, stats.norm(m @ direction, np.sqrt(direction @ c @ direction))) for w, m, c in raw_components(model)
        ]
        test = stats.kstest(draws @ direction, lambda v, parts=parts: sum(w * p.cdf(v) for w, p in parts))
        assert test.pvalue > 1e-3


def test_pixel_bound_estimates_the_exact_mass_from_below() -> None:
    event = Event((1, 1, 2), Support("ordinal", 3))
    model = set_randomly(GaussianMixture(event, components=2, covariance="diagonal"))
    assert model.likelihood_kind == "bound"
    n = 40000
    for pixels in itertools.product(range(3), repeat=2):
        exact = 0.0  # the integral over the two pixels' unit cells, in closed form
        for w, m, c in raw_components(model):
            sides = [stats.norm(m[d], np.sqrt(c[d, d])) for d in range(2)]
            exact += w * np.prod([s.cdf(p + 1) - s.cdf(p) for s, p in zip(sides, pixels, strict=True)])
        x = torch.tensor(pixels).view(1, 1, 1, 2)
        one = model.log_prob(x.expand(n, -1, -1, -1), generator=seeded()).detach()
        error = float(one.exp().std()) / n**0.5
        assert abs(float(one.exp().mean()) - exact) < 5 * error
        assert float(one.mean()) < np.log(exact) + 5 * float(one.std()) / n**0.5
        many = model.log_prob(x.expand(n // 16, -1, -1, -1), samples=16, generator=seeded()).detach()
        slack = 5 * float(many.std()) / len(many) ** 0.5
        assert float(one.mean()) < float(many.mean()) + slack
        assert float(many.mean()) < np.log(exact) + slack


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_degenerate_data_stays_sound(covariance: str) -> None:
    same = torch.ones(12, 2)
    two_rows = torch.tensor([[0.0, 4.0], [1.0, 4.0]]).repeat(6, 1)  # and a constant column
    for x in (same, two_rows):
        model = started(x, components=4, covariance=covariance)
        reached = em(model, x, 10)
        assert all(bool(p.isfinite().all()) for p in model.parameters())
        assert np.isfinite(reached).all()
        assert bool(model.sample(10, generator=seeded()).isfinite().all())


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_an_empty_component_is_kept_whole(covariance: str) -> None:
    x = clusters()
    model = started(x, components=3, covariance=covariance, floor=0.0)
    with torch.no_grad():
        model.gaussians.means[1] = 1e4
    before = model.gaussians.log_diagonal.detach().clone()
    reached = em(model, x, 20)
    assert float(model.logits[1].detach()) < -30
    assert bool((model.gaussians.means[1] == 1e4).all())
    if covariance != "tied":
        assert torch.equal(model.gaussians.log_diagonal[1].detach(), before[1])
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert min(b - a for a, b in itertools.pairwise(reached)) > -1e-10


def test_what_cannot_work_is_said() -> None:
    with pytest.raises(InputError, match=r"components=5 .*got 4"):
        started(clusters(4), components=5)
    with pytest.raises(InputError, match="components=0"):
        GaussianMixture(EVENT, components=0)
    with pytest.raises(InputError, match="in tables only"):
        GaussianMixture(Event((1, 2, 2), Support("nominal", 4)))
    with pytest.raises(InputError, match=r"3, nominal\(4\) has none"):
        GaussianMixture(Event((3,), Support("nominal", 4)), covariance="full")
    with pytest.raises(InputError, match="at most 65,536 levels"):
        GaussianMixture(Event((3,), Support("ordinal", 2**20)))
    for covariance in COVARIANCES:
        with pytest.raises(TrainingError, match="raise floor"):
            started(torch.ones(9, 3), components=2, covariance=covariance, floor=0.0)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_missing_entries_are_integrated_out_and_conditioned_on(covariance: str) -> None:
    x = clusters()
    model = started(x, components=3, covariance=covariance, event=Event((3,), REAL, missing=True))
    em(model, x, 3)
    gaps = x[:7].clone()
    for n, missing in enumerate(([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2])):
        gaps[n, missing] = torch.nan
    factors = model.gaussians.factors(model.used).detach().expand(3, -1, -1).numpy()
    location, std = model.front.mean.numpy(), model.front.std.numpy()
    parts = [np.linalg.inv(u @ u.T) * np.outer(std, std) for u in factors]
    means = model.gaussians.means.detach().numpy() * std + location
    weights = model.logits.detach().softmax(0).numpy()
    for row, got in zip(gaps.numpy(), model.log_prob(gaps).detach().tolist(), strict=True):
        seen = ~np.isnan(row)
        expected = 1.0
        if seen.any():
            densities = [
                stats.multivariate_normal(m[seen], c[np.ix_(seen, seen)]) for m, c in zip(means, parts, strict=True)
            ]
            expected = sum(w * d.pdf(row[seen]) for w, d in zip(weights, densities, strict=True))
        assert got == pytest.approx(np.log(expected), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_one_gaussian_with_missing_entries_maximises_their_likelihood(covariance: str) -> None:
    x = clusters()
    x[torch.rand(x.shape, generator=seeded()) < 0.3] = torch.nan
    model = started(x, components=1, covariance=covariance, floor=0.0, event=Event((3,), REAL, missing=True))
    em(model, x, 2000)
    model.zero_grad()
    model.log_prob(x).mean().backward()
    for parameter in model.gaussians.parameters():
        assert float(parameter.grad.abs().max()) < 1e-7
    if covariance == "diagonal":  # entry by entry
        observed = [column[~column.isnan()] for column in x.T]
        mean = model.gaussians.means[0].detach() * model.front.std + model.front.mean
        np.testing.assert_allclose(mean, [c.mean() for c in observed], rtol=1e-6)


def test_without_real_columns_it_is_the_latent_class_model() -> None:
    g = np.random.default_rng(0)
    own = g.integers(0, 2, 4000)
    tables = [g.dirichlet(np.ones(4), size=2), g.dirichlet(np.ones(3), size=2), g.dirichlet(np.ones(5), size=2)]
    x = torch.tensor(np.stack([[g.choice(len(t[k]), p=t[k]) for k in own] for t in tables], 1))
    event = Event((3,), tuple(Support("nominal", t.shape[1]) for t in tables))
    model = started(x, event=event, components=2)
    em(model, x, 400)
    assert model.likelihood_kind == "exact"
    values = torch.cartesian_prod(*(torch.arange(t.shape[1]) for t in tables))
    truth = sum(0.5 * np.prod([t[k][values[:, d]] for d, t in enumerate(tables)], axis=0) for k in range(2))
    found = model.log_prob(values).detach().exp().numpy()
    assert found.sum() == pytest.approx(1, abs=1e-9)
    assert np.abs(found - truth).sum() < 0.1
    counts = np.histogramdd(x.numpy(), bins=[np.arange(t.shape[1] + 1) - 0.5 for t in tables])[0].ravel() / len(x)
    assert (counts * np.log(found)).sum() > (counts * np.log(truth)).sum() - 1e-3


def test_a_rounded_gaussian_is_found_again_and_its_ends_take_the_tails() -> None:
    g = np.random.default_rng(0)
    mean, std = 17.3, 0.7  # narrow: the variance within a cell counts
    x = torch.tensor(np.clip(np.floor(g.normal(mean, std, 20_000)), 10, 18))[:, None].long()
    event = Event((1,), Support("ordinal", 9, low=10))
    model = started(x, event=event, components=1, floor=0.0)
    em(model, x, 300)
    part = model.levels[0]
    assert float(part.means[0, 0].detach() * part.spread + part.centre + 10) == pytest.approx(mean, abs=0.03)
    assert float(part.log_std[0, 0].detach().exp() * part.spread) == pytest.approx(std, abs=0.03)
    p = model.log_prob(torch.arange(10, 19)[:, None]).detach().exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    assert float(p[-1]) == pytest.approx(stats.norm.sf(18, mean, std), abs=0.01)


def test_components_of_a_table_join_words_and_numbers() -> None:
    """Two groups that differ in every kind of column, and are found by the choice of components."""
    g = np.random.default_rng(0)
    own = g.integers(0, 2, 1500)
    x = np.stack(
        [g.normal(4 * own, 1), np.where(g.random(1500) < 0.9, 2 * own, 1), np.clip(g.poisson(3 + 20 * own), 0, 49)], 1
    )
    event = Event((3,), (REAL, Support("nominal", 3), Support("ordinal", 50)))
    data = torch.tensor(x).float()
    model = started(data, event=event)
    assert int(model.used.sum()) in (2, 3)
    code = model.encode(data).detach()
    top = code[own == 1].sum(0).argmax()
    assert float(code[own == 1, top].mean()) > 0.8
    assert float(code[own == 0, top].mean()) < 0.05
    free = {"diagonal": 1, "tied": 1, "full": 1}[model.covariance]
    used = int(model.used.sum())
    assert model.n_free == used * (1 + 1 + 2 + 2) + free * (1 if model.covariance == "tied" else used)


# --- completion


def correlated(k: int, dims: int = 4) -> GaussianMixture:
    """Components with different full matrices, in units far from the standard ones."""
    model = started(clusters(400, dims), components=k, covariance="full")
    em(model, clusters(400, dims), 5)
    return model


def raw_moments(model: GaussianMixture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and covariances in raw units."""
    front = model.front
    scale = (front.levels * front.std).numpy()
    means = model.gaussians.means.detach().numpy() * scale + (front.low + front.levels * front.mean).numpy()
    covariances = model.gaussians.covariances(model.used).detach().numpy() * np.outer(scale, scale)
    return model.logits.detach().softmax(0).numpy(), means, covariances


@pytest.mark.parametrize("hidden", [[0], [1, 3], [0, 1, 2, 3]])
def test_completion_by_one_full_gaussian_has_the_closed_form(hidden):
    model = correlated(1)
    _, (mean,), (covariance,) = raw_moments(model)
    x = clusters(1, 4, seed=9)
    known = torch.ones(4, dtype=torch.bool)
    known[hidden] = False
    seen = known.nonzero()[:, 0].tolist()
    gain = covariance[np.ix_(hidden, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    wanted = mean[hidden] + gain @ (x[0, seen].numpy() - mean[seen])
    left = covariance[np.ix_(hidden, hidden)] - gain @ covariance[np.ix_(seen, hidden)]
    n = 20_000
    drawn = model.complete(x.expand(n, 4), known.expand(n, 4), generator=seeded()).double()[:, hidden].numpy()
    white = np.linalg.solve(np.linalg.cholesky(left), (drawn - wanted).T)
    for own in white:
        assert stats.kstest(own, "norm").pvalue > 1e-4
    assert np.abs(np.cov(white) - np.eye(len(hidden))).max() < 6 / np.sqrt(n)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_completion_by_a_mixture_follows_the_conditional_density(covariance):
    x = clusters(400, 3)
    model = started(x, components=3, covariance=covariance)
    em(model, x, 10)
    one, n = x[7:8], 20_000
    known = torch.tensor([True, False, True]).expand(n, 3)
    drawn = model.complete(one.expand(n, 3), known, generator=seeded(1))[:, 1].double()
    nodes = torch.linspace(float(x[:, 1].min()) - 60, float(x[:, 1].max()) + 60, 40_001, dtype=torch.float64)
    grid = one.repeat(len(nodes), 1)
    grid[:, 1] = nodes
    mass = model.log_prob(grid).detach().exp().numpy()
    below = np.concatenate([[0], np.cumsum((mass[1:] + mass[:-1]) / 2)])
    assert stats.kstest(np.interp(drawn, nodes, below / below[-1]), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("options", [{"components": 3}, {}], ids=["three", "auto"])
def test_completion_of_a_mixed_table_follows_the_conditional_distribution(missing, options):
    """Categories, real numbers and many whole numbers: the joint draws of two unknown entries, by quadrature."""
    event = Event((4,), (Support("nominal", 3), REAL, REAL, Support("ordinal", 7, low=-2)), missing=missing)
    g = np.random.default_rng(0)
    word = g.integers(0, 3, 300)
    real = np.stack([3.0 * word + g.normal(size=300), g.normal(size=300) - word], 1)
    whole = np.clip(np.round(real[:, 0] / 2 + 0.5 * g.normal(size=300)), -2, 4)
    rows = torch.tensor(np.stack([word, *real.T, whole], 1)).to(event.dtype)
    if missing:
        rows[torch.from_numpy(g.random(rows.shape) < 0.2)] = torch.nan
    model = started(rows, event=event, **options)
    em(model, rows, 5)
    n = 40_000
    x = torch.tensor([[torch.nan, 4.0, torch.nan, 2.0]]).expand(n, 4)  # unknown values do not matter
    drawn = model.complete(x, ~x.isnan(), generator=seeded(2))
    assert torch.equal(drawn[:, [1, 3]], x[:, [1, 3]])
    assert bool(event.contains(drawn).all())
    nodes, expected = torch.linspace(-15, 15, 3001, dtype=torch.float64), []
    for level in range(3):
        grid = torch.tensor([[level, 4.0, 0.0, 2.0]], dtype=torch.float64).repeat(len(nodes), 1)
        grid[:, 2] = nodes
        expected.append(model.log_prob(grid).detach().exp())
    mass = torch.stack(expected)
    share = mass.sum(1) / mass.sum()
    observed = drawn[:, 0].long().bincount(minlength=3).double()
    kept = share * n > 5
    assert stats.chisquare(observed[kept], share[kept] / share[kept].sum() * observed[kept].sum()).pvalue > 1e-4
    for level in range(3):
        own = drawn[drawn[:, 0] == level][:, 2]
        if len(own) > 100:  # given the word that was drawn, the real entry follows too
            below = mass[level].cumsum(0) / mass[level].sum()
            assert stats.kstest(np.interp(own, nodes, below), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_completion_keeps_what_is_known_bit_for_bit_and_ignores_the_rest(covariance):
    x = clusters(200, 3)  # float64, although the event has float32
    model = started(x, components=2, covariance=covariance)
    em(model, x, 3)
    known = torch.rand(x.shape, generator=seeded(3)) < 0.5
    drawn = model.complete(x, known, generator=seeded(4))
    assert drawn.dtype == torch.float64
    assert torch.equal(drawn[known], x[known])
    assert not bool(drawn.isnan().any())
    other = torch.where(known, x, torch.nan)
    assert torch.equal(model.complete(other, known, generator=seeded(4)), drawn)
    moved = torch.where(known, x + 3, x)
    changed = model.complete(moved, known, generator=seeded(4))
    assert bool((changed != drawn)[~known & known.any(1, keepdim=True)].any())
    assert torch.equal(model.complete(x, torch.ones_like(known), generator=seeded(4)), x)


def test_a_known_entry_that_is_missing_is_integrated_out():
    event = Event((3,), REAL, missing=True)
    model = started(clusters(300, 3), event=event, components=2)
    n = 20_000
    x = torch.tensor([[6.0, torch.nan, 5.0]]).expand(n, 3)
    known = torch.tensor([[True, True, False]]).expand(n, 3)
    drawn = model.complete(x, known, generator=seeded())
    assert bool(drawn[:, 1].isnan().all())
    both = model.complete(x, torch.tensor([[True, False, False]]).expand(n, 3), generator=seeded(1))
    assert stats.ks_2samp(drawn[:, 2], both[:, 2]).pvalue > 1e-4


def test_a_nearly_singular_gaussian_completes():
    """The second column is twice the first, up to the floor."""
    x = torch.randn(500, 1, generator=seeded(), dtype=torch.float64)
    x = torch.cat([x, 2 * x, torch.randn(500, 1, generator=seeded(1), dtype=torch.float64)], 1)
    model = started(x, components=1, covariance="full", floor=1e-12)
    em(model, x, 2)
    known = torch.tensor([[True, False, False]]).expand(500, 3)
    drawn = model.complete(x, known, generator=seeded(2))
    assert torch.allclose(drawn[:, 1], x[:, 1], atol=1e-4)


def test_completion_of_dequantised_levels_stays_in_the_levels_and_uses_the_known_half():
    event = Event((1, 2, 3), Support("ordinal", 8))
    base = torch.randint(0, 8, (400, 1, 1, 3), generator=seeded())
    x = base.expand(-1, 1, 2, 3).contiguous()
    model = started(x, event=event, components=12, covariance="full")
    em(model, x, 10)
    known = torch.zeros(x.shape, dtype=torch.bool)
    known[:, :, 0] = True
    drawn = model.complete(x, known, generator=seeded(1))
    assert bool(event.contains(drawn).all())
    assert torch.equal(drawn[known], x[known].to(drawn.dtype))
    assert float((drawn[:, :, 1] - x[:, :, 0]).abs().float().mean()) < 1


def test_sums_of_many_examples_in_parts_are_those_of_all_together() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9000, 3, dtype=torch.float64, generator=generator)
    weight = torch.rand(9000, dtype=torch.float64, generator=generator)
    model = GaussianMixture(Event((3,), REAL, precision="float64"), components=2, covariance="full")
    model.prepare(Batch(x[:500]), generator=generator)
    for batch in (Batch(x), Batch(x, weight=weight)):
        found = model.statistics(batch)
        with torch.no_grad():
            whole = model._expect(model.points(x, generator=None)[0], batch.weight)
        for name in ("count", "weight", "first", "second"):
            torch.testing.assert_close(found[name], whole[name], rtol=1e-10, atol=1e-9)
