"""Mixture of Bernoullis: enumeration of every example, EM in a numpy loop, recovery of known parameters."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

import unsup
from unsup import Batch, Event, InputError, Support
from unsup.data import Data, Split
from unsup.families.classical.bernoulli_mixture import BernoulliMixture

BINARY = Support("binary")
D, K = 5, 3
EVENT = Event((D,), BINARY)
EVERYTHING = torch.tensor(list(itertools.product((0, 1), repeat=D)), dtype=torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(seed: int = 0, **options: object) -> BernoulliMixture:
    model = BernoulliMixture(EVENT, **({"components": K} | options))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(1.5 * torch.randn(p.shape, generator=seeded(seed), dtype=p.dtype))
    return model


def parts(model: BernoulliMixture) -> tuple[np.ndarray, np.ndarray]:
    """π ``(K,)`` and θ ``(K, D)``."""
    return model.logits.detach().softmax(0).numpy(), model.log_odds.detach().sigmoid().numpy()


def joint(model: BernoulliMixture, x: torch.Tensor) -> np.ndarray:
    """π_k Π_d θ_kd^x_d (1 − θ_kd)^(1 − x_d), factor by factor: ``(N, K)``."""
    weight, theta = parts(model)
    rows = x.flatten(1).numpy()
    table = np.empty((len(rows), len(weight)))
    for n, row in enumerate(rows):
        for k in range(len(weight)):
            table[n, k] = weight[k]
            for d, value in enumerate(row):
                table[n, k] *= theta[k, d] if value else 1 - theta[k, d]
    return table


def data(n: int = 200, seed: int = 0) -> torch.Tensor:
    """Draws of a mixture with three plain clusters."""
    model = mixture(seed + 100)
    with torch.no_grad():
        model.logits.zero_()
    return model.sample(n, generator=seeded(seed))


def started(x: torch.Tensor, seed: int = 0, **options: object) -> BernoulliMixture:
    model = BernoulliMixture(Event(tuple(x.shape[1:]), BINARY), **({"components": K} | options))
    model.prepare(Batch(x), generator=seeded(seed))
    return model


def test_probabilities_and_responsibilities_are_those_of_the_definition_and_sum_to_one() -> None:
    model = mixture()
    table = joint(model, EVERYTHING)
    np.testing.assert_allclose(model.log_prob(EVERYTHING).detach(), np.log(table.sum(1)), rtol=1e-12)
    assert table.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(model.encode(EVERYTHING).detach(), table / table.sum(1, keepdims=True), rtol=1e-10)
    assert model.likelihood_kind == "exact"


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_pass_is_the_equations_in_a_loop(smoothing: float, weighted: bool) -> None:
    x, model = data(60), mixture(smoothing=smoothing)
    weight = torch.rand(60, generator=seeded(4), dtype=torch.float64) if weighted else None
    table = joint(model, x)
    owes = table / table.sum(1, keepdims=True) * (1 if weight is None else weight.numpy()[:, None])
    expected = np.empty((K, D))
    for k in range(K):
        for d in range(D):
            ones = sum(owes[n, k] for n in range(60) if x[n, d])
            expected[k, d] = (ones + smoothing) / (owes[:, k].sum() + 2 * smoothing)
    sums = model.statistics(Batch(x, weight=weight))
    total = np.log(table.sum(1)) @ (np.ones(60) if weight is None else weight.numpy())
    assert float(sums["log_prob"]) == pytest.approx(total, rel=1e-12)
    model.maximize(sums)
    pi, theta = parts(model)
    np.testing.assert_allclose(theta, expected, rtol=1e-10)
    np.testing.assert_allclose(pi, owes.sum(0) / owes.sum(), rtol=1e-10)


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_no_pass_lowers_the_posterior_of_the_parameters(smoothing: float) -> None:
    x = data()
    model, reached = started(x, smoothing=smoothing), []
    for _ in range(40):
        theta = parts(model)[1]
        prior = smoothing * (np.log(theta) + np.log1p(-theta)).sum()
        assert float(model.parameter_log_prior().detach()) == pytest.approx(prior, rel=1e-9, abs=1e-12)
        reached.append(np.log(joint(model, x).sum(1)).sum() + prior)
        model.maximize(model.statistics(Batch(x)))
    assert min(b - a for a, b in itertools.pairwise(reached)) > -1e-9
    assert reached[-1] > reached[0] + 0.1


def test_a_pass_with_missing_entries_is_the_equations_in_a_loop() -> None:
    """θ_kd of the examples that have d, weighted by the responsibilities by what they have; the posterior rises."""
    x = data().float()
    x[torch.rand(x.shape, generator=seeded(7)) < 0.3] = math.nan
    x[0] = math.nan
    model, alpha, reached = BernoulliMixture(Event((D,), BINARY, missing=True), components=K, smoothing=0.5), 0.5, []
    model.prepare(Batch(x), generator=seeded())
    for _ in range(15):
        pi, theta = parts(model)
        owes = np.tile(pi, (len(x), 1))
        for n, row in enumerate(x.tolist()):
            for d, value in enumerate(row):
                if not math.isnan(value):
                    owes[n] *= theta[:, d] if value else 1 - theta[:, d]
        reached.append(np.log(owes.sum(1)).sum() + alpha * (np.log(theta) + np.log1p(-theta)).sum())
        assert model.log_prob(x).sum().item() == pytest.approx(np.log(owes.sum(1)).sum(), rel=1e-12)
        owes /= owes.sum(1, keepdims=True)
        there, ones = (~x.isnan()).double().numpy(), x.nan_to_num(0.0).double().numpy()
        model.maximize(model.statistics(Batch(x)))
        pi, theta = parts(model)
        np.testing.assert_allclose(theta, (owes.T @ ones + alpha) / (owes.T @ there + 2 * alpha), rtol=1e-10)
        np.testing.assert_allclose(pi, owes.mean(0), rtol=1e-10)
    assert min(b - a for a, b in itertools.pairwise(reached)) > -1e-9
    assert reached[-1] > reached[0]


def test_an_entry_that_no_example_has_keeps_its_probability() -> None:
    x = data().float()
    x[:, 2] = math.nan
    model = BernoulliMixture(Event((D,), BINARY, missing=True), components=K, smoothing=0.0)
    model.prepare(Batch(x), generator=seeded())
    before = model.log_odds.detach().clone()
    model.maximize(model.statistics(Batch(x)))
    assert bool(model.log_odds.isfinite().all())
    assert torch.equal(model.log_odds[:, 2], before[:, 2])
    known = torch.ones(3, D, dtype=torch.bool)
    known[:, 1] = False
    assert bool(model.complete(x[:3], known, generator=seeded())[:, 2].isnan().all())  # known to be missing


def test_the_start_is_the_smoothed_means_of_the_clusters_at_the_seeds() -> None:
    from unsup.prob.clusters import kmeans_plus_plus

    x = data()
    model = started(x, seed=5, smoothing=0.3)
    _, nearest = kmeans_plus_plus(x.double(), K, generator=seeded(5))
    pi, theta = parts(model)
    for k in range(K):
        own = x[nearest == k].double().numpy()
        np.testing.assert_allclose(theta[k], (own.sum(0) + 0.3) / (len(own) + 0.6), rtol=1e-12)
        assert pi[k] == pytest.approx(len(own) / len(x), rel=1e-12)


def test_known_parameters_are_recovered() -> None:
    truth = BernoulliMixture(Event((12,), BINARY), components=3)
    theta = torch.tensor([[0.9] * 4 + [0.1] * 8, [0.15] * 4 + [0.85] * 4 + [0.2] * 4, [0.1] * 8 + [0.8] * 4])
    with torch.no_grad():
        truth.log_odds.copy_(theta.logit())
        truth.logits.copy_(torch.tensor([0.5, 0.3, 0.2]).log())
    x = truth.sample(20_000, generator=seeded())
    model = started(x, seed=1, smoothing=0.0)
    for _ in range(30):
        model.maximize(model.statistics(Batch(x)))
    pi, found = parts(model)
    order = np.argsort(-pi)
    np.testing.assert_allclose(pi[order], [0.5, 0.3, 0.2], atol=0.02)
    np.testing.assert_allclose(found[order], theta, atol=0.03)
    assert model.bic(x) < min(started(x, components=k, smoothing=0.0).bic(x) for k in (1, 2))
    assert model.n_free == 2 + 3 * 12
    assert model.bic(x) == pytest.approx(38 * math.log(20_000) - 2 * float(model.log_prob(x).sum().detach()))


def test_gradient_ascent_reaches_the_optimum_of_em() -> None:
    x = data(300)
    by_em = started(x, smoothing=0.0)
    for _ in range(2000):
        by_em.maximize(by_em.statistics(Batch(x)))
    by_em.loss(Batch(x))["loss"].mean().backward()
    assert max(float(p.grad.abs().max()) for p in by_em.parameters()) < 1e-6
    by_gradient = BernoulliMixture(EVENT, components=K, learn="gradient")
    assert by_gradient.passes == 0
    with torch.no_grad():  # from near by, since there are several optima
        for mine, found in zip(by_gradient.parameters(), by_em.parameters(), strict=True):
            mine.copy_(found + 0.1 * torch.randn(found.shape, generator=seeded(), dtype=found.dtype))
    optimizer = torch.optim.LBFGS(by_gradient.parameters(), max_iter=2000, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = by_gradient.loss(Batch(x))["loss"].mean()
        value.backward()
        return value

    before = float(closure().detach())
    optimizer.step(closure)
    losses = [float(m.loss(Batch(x))["loss"].mean().detach()) for m in (by_em, by_gradient)]
    assert before > losses[0] + 1e-3
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.parametrize("known", [[0, 0, 0, 0, 0], [1, 0, 0, 1, 0], [0, 1, 1, 1, 1]])
def test_completions_are_draws_from_the_conditional_by_enumeration(known: list[int]) -> None:
    model, n, mask = mixture(), 20_000, torch.tensor(known, dtype=torch.bool)
    x = torch.tensor([1, 0, 1, 1, 0], dtype=torch.uint8)
    drawn = model.complete(x.expand(n, -1), mask.expand(n, -1), generator=seeded(3))
    assert torch.equal(drawn[:, mask], x[mask].expand(n, -1))
    p = joint(model, EVERYTHING).sum(1) * (EVERYTHING[:, mask] == x[mask]).all(1).numpy()
    possible = p > 0
    seen = (drawn[:, None] == EVERYTHING[None]).all(2).sum(0).numpy()
    assert seen[~possible].sum() == 0
    assert stats.chisquare(seen[possible], n * p[possible] / p.sum()).pvalue > 1e-3


def test_what_is_unknown_does_not_matter() -> None:
    model, mask = mixture(), torch.tensor([[True, False, True, False, True]])
    x = torch.tensor([[1.0, float("nan"), 0.0, 7.0, 1.0]])
    drawn = model.complete(x, mask, generator=seeded())
    assert torch.equal(drawn, model.complete(x.nan_to_num().clamp(max=1), mask, generator=seeded()))
    assert drawn.dtype == torch.uint8


def test_samples_have_the_probabilities_of_the_model() -> None:
    model, n = mixture(), 20_000
    seen = (model.sample(n, generator=seeded())[:, None] == EVERYTHING[None]).all(2).sum(0).numpy()
    assert stats.chisquare(seen, n * joint(model, EVERYTHING).sum(1)).pvalue > 1e-3


def test_decoding_gives_the_more_probable_value_of_each_entry() -> None:
    model = mixture()
    theta = parts(model)[1]
    z = torch.rand(40, K, generator=seeded(), dtype=torch.float64)
    mean = (z / z.sum(1, keepdim=True)).numpy() @ theta
    np.testing.assert_array_equal(model.decode(z), mean > 0.5)
    np.testing.assert_array_equal(model.decode(torch.eye(K)), theta > 0.5)
    assert model.code_size == K


def test_certain_entries_and_lost_components_stay_finite() -> None:
    x = torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8).repeat(10, 1)
    model = started(x, components=2, smoothing=0.0)  # two clusters without any spread
    for _ in range(3):
        model.maximize(model.statistics(Batch(x)))
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert float(model.loss(Batch(x))["loss"].mean().detach()) == pytest.approx(math.log(2), abs=1e-12)
    assert float(model.log_prob(torch.tensor([[0, 0]])).detach()) < -30  # as good as never
    lost = mixture(smoothing=0.0)
    with torch.no_grad():
        lost.log_odds[1] = 36.0
    before = lost.log_odds[1].detach().clone()
    for _ in range(3):
        lost.maximize(lost.statistics(Batch(torch.zeros(50, D, dtype=torch.uint8))))
    assert torch.equal(lost.log_odds[1].detach(), before)
    assert float(lost.logits[1].detach()) < -30


def test_restarts_keep_the_best() -> None:
    x, generator, reached = data(150, seed=2), seeded(3), []
    single = BernoulliMixture(EVENT, components=4, smoothing=0.2)
    for _ in range(5):
        single.prepare(Batch(x), generator=generator)
        for _ in range(10):
            single.maximize(single.statistics(Batch(x)))
        reached.append(float((single.log_prob(x).sum() + single.parameter_log_prior()).detach()))
    best = started(x, seed=3, components=4, smoothing=0.2, restarts=5)
    assert max(reached) > reached[-1] + 1e-6
    assert float((best.log_prob(x).sum() + best.parameter_log_prior()).detach()) == pytest.approx(max(reached))


def test_a_run_goes_on_while_the_posterior_rises(tmp_path) -> None:
    """With a strong prior the likelihood itself falls on the way, which is no reason to stop."""
    x = data(400)
    split = Split(x)
    model = unsup.create("bernoulli-mixture", EVENT, components=3, smoothing=30.0, tolerance=1e-7, iterations=500)
    fitted = unsup.fit(model, Data(None, EVENT, split, split, split), out=tmp_path / "run", progress="off")
    losses, scores = ([e[name] for e in fitted.events if "loss" in e] for name in ("loss", "log_prob"))
    assert min(a - b for a, b in itertools.pairwise(losses)) > -1e-12
    assert 0 <= losses[-2] - losses[-1] < 1e-7 < losses[-3] - losses[-2]
    assert min(b - a for a, b in itertools.pairwise(scores)) < -1e-4
    again = unsup.load(tmp_path / "run")
    assert torch.equal(again.log_prob(x), model.log_prob(x))
    assert again.sample(3, generator=seeded()).dtype == torch.uint8


def test_images_are_taken_and_what_cannot_work_is_said() -> None:
    x = data(80).view(80, 1, 1, D)
    model = started(x)
    assert model.sample(4, generator=seeded()).shape == (4, 1, 1, D)
    assert model.complete(x[:2], torch.ones_like(x[:2], dtype=torch.bool)).shape == (2, 1, 1, D)
    with pytest.raises(InputError, match=r"components=5 .*got 4"):
        started(data(4), components=5)
    with pytest.raises(InputError, match="binary data only"):
        BernoulliMixture(Event((3,), Support("ordinal", 4)))
    with pytest.raises(InputError, match="smoothing=-1"):
        BernoulliMixture(EVENT, smoothing=-1.0)
    assert BernoulliMixture.advice(EVENT, 200).options == {"components": 10}
