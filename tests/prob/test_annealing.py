"""Annealed importance sampling against enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unsup.core.random import bits
from unsup.prob import boltzmann
from unsup.prob.annealing import (
    anneal,
    base_log_partition,
    bernoulli_pair_step,
    between_pairs_step,
    ladder,
    log_mean_and_error,
)

V, H = 6, 4
STATES = torch.tensor(list(itertools.product((0.0, 1.0), repeat=V)), dtype=torch.float64)
HIDDEN = torch.tensor(list(itertools.product((0.0, 1.0), repeat=H)), dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def machine() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W, b, c and the biases of the base: strong enough that one jump of importance sampling is poor."""
    g = seeded(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    return 1.2 * normal(V, H), normal(V), normal(H), 0.5 * normal(V)


def unnormalised(machine: tuple[Tensor, ...], beta: float) -> Tensor:
    """log f_β of every v, its hidden units summed out one joint state at a time: ``(2^V,)``."""
    w, b, c, a = machine
    total = [(1 - beta) * STATES @ a + beta * (STATES @ b + h @ c + STATES @ w @ h) for h in HIDDEN]
    return torch.stack(total).logsumexp(0)


def exact_log_ratio(machine: tuple[Tensor, ...]) -> float:
    return float(unnormalised(machine, 1).logsumexp(0) - unnormalised(machine, 0).logsumexp(0))


def forward(machine: tuple[Tensor, ...], chains: int, betas: list[float], seed: int) -> Tensor:
    start = bits(machine[3].sigmoid().expand(chains, -1), seeded(seed))
    return anneal(start, betas, bernoulli_pair_step(*machine), generator=seeded(seed + 1000))


def test_the_ladder_has_the_published_proportions_and_any_length() -> None:
    betas = ladder(14_500)
    assert len(betas) == 14_501
    np.testing.assert_allclose([betas[i] for i in (0, 500, 4500, 14_500)], [0, 0.5, 0.9, 1], atol=1e-12)
    for count in (1, 2, 5, 29, 1000):
        steps = np.diff(ladder(count))
        assert len(steps) == count
        assert (steps > 0).all()
        assert steps.sum() == pytest.approx(1, abs=1e-12)


def test_the_base_partition_is_the_sum_over_both_layers(machine: tuple[Tensor, ...]) -> None:
    assert base_log_partition(machine[3], H) == pytest.approx(float(unnormalised(machine, 0).logsumexp(0)), abs=1e-12)


def test_a_step_gives_the_log_ratio_and_a_draw_that_leaves_the_next_density_as_it_is(
    machine: tuple[Tensor, ...],
) -> None:
    beta, following, n = 0.3, 0.8, 400_000
    step = bernoulli_pair_step(*machine)
    gain, _ = step(STATES.clone(), beta, following, seeded(1))
    np.testing.assert_allclose(gain, unnormalised(machine, following) - unnormalised(machine, beta), atol=1e-12)
    p = unnormalised(machine, following).softmax(0)
    start = torch.multinomial(p, n, replacement=True, generator=seeded(2))
    _, moved = step(STATES[start], beta, following, seeded(3))
    index = (moved @ 2.0 ** torch.arange(V - 1, -1, -1, dtype=torch.float64)).long()
    share = index.bincount(minlength=2**V).double() / n
    assert float(((share - p) / (p * (1 - p) / n).sqrt()).abs().max()) < 4.5
    assert float((index != start).double().mean()) > 0.3  # and it does move


@pytest.mark.parametrize("temperatures", [1, 3, 30])
def test_the_mean_weight_is_the_ratio_of_partition_functions_however_few_temperatures(
    machine: tuple[Tensor, ...], temperatures: int
) -> None:
    weight = (forward(machine, 100_000, ladder(temperatures), 5) - exact_log_ratio(machine)).exp()
    error = float(weight.std()) / math.sqrt(len(weight))
    assert abs(float(weight.mean()) - 1) < 4 * error
    assert error < 0.1


def test_one_temperature_is_plain_importance_sampling(machine: tuple[Tensor, ...]) -> None:
    start = bits(machine[3].sigmoid().expand(50, -1), seeded(7))
    found = anneal(start, [0.0, 1.0], bernoulli_pair_step(*machine), generator=seeded(8))
    index = (start @ 2.0 ** torch.arange(V - 1, -1, -1, dtype=torch.float64)).long()
    expected = unnormalised(machine, 1) - unnormalised(machine, 0)
    np.testing.assert_allclose(found, expected[index], atol=1e-12)


def test_the_error_bar_covers_the_truth_as_often_as_it_should(machine: tuple[Tensor, ...]) -> None:
    runs, chains = 400, 100
    truth = exact_log_ratio(machine)
    weights = forward(machine, runs * chains, ladder(60), 9).view(runs, chains)
    found = np.array([log_mean_and_error(w) for w in weights])
    apart = np.abs(found[:, 0] - truth) / found[:, 1]
    for deviations, expected in ((1, 0.683), (2, 0.954)):
        # 400 runs give ± 0.023 and ± 0.010; skewed weights take a little off.
        assert abs((apart < deviations).mean() - expected) < 0.08
    # The bar is also the spread of the estimates that it stands for.
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.2)


def test_forward_from_the_base_and_reverse_from_exact_samples_bracket_the_truth(machine: tuple[Tensor, ...]) -> None:
    truth, betas, runs, chains = exact_log_ratio(machine), ladder(10), 500, 4
    below = forward(machine, runs * chains, betas, 11).view(runs, chains)
    p = unnormalised(machine, 1).softmax(0)
    start = STATES[torch.multinomial(p, runs * chains, replacement=True, generator=seeded(12))]
    above = anneal(start, betas[::-1], bernoulli_pair_step(*machine), generator=seeded(13)).view(runs, chains)
    low = torch.stack([torch.tensor(log_mean_and_error(w)[0]) for w in below])
    high = -torch.stack([torch.tensor(log_mean_and_error(w)[0]) for w in above])
    for estimate, sign in ((low, -1), (high, 1)):
        error = float(estimate.std()) / math.sqrt(runs)
        assert sign * (float(estimate.mean()) - truth) > 3 * error
        assert abs(float(estimate.mean()) - truth) < 0.5


def test_the_error_is_that_of_a_bootstrap_of_the_weights() -> None:
    log_weight = 0.7 * torch.randn(200, generator=seeded(0), dtype=torch.float64) - 300
    mean, error = log_mean_and_error(log_weight)
    rows = torch.randint(200, (4000, 200), generator=seeded(1))
    again = log_weight[rows].logsumexp(1) - math.log(200)
    assert mean == pytest.approx(float(log_weight.logsumexp(0)) - math.log(200), abs=1e-12)
    assert error == pytest.approx(float(again.std()), rel=0.1)


@pytest.mark.parametrize("hidden", [2, 4, 7])
def test_a_path_through_another_model_ends_at_the_same_normaliser(machine: tuple[Tensor, ...], hidden: int) -> None:
    """Of as many hidden units, fewer and more; also from the other model itself, whose log Z the path then has."""
    w, b, c, a = machine
    g = seeded(3)
    other = tuple(torch.randn(shape, generator=g, dtype=torch.float64) for shape in ((V, hidden), (V,), (hidden,)))
    exact = float(boltzmann.enumerated_log_partition(w, b, c))
    found, error = boltzmann.annealed_log_partition((w, b, c), a, 4, seeded(1), through=other)
    assert 0 < error < 0.1
    assert found == pytest.approx(exact, abs=4 * error)
    other_exact = float(boltzmann.enumerated_log_partition(*other))
    found, error = boltzmann.annealed_log_partition(other, a, 4, seeded(1), through=(w, b, c))
    assert found == pytest.approx(other_exact, abs=4 * error)


def test_between_equal_models_nothing_is_weighed(machine: tuple[Tensor, ...]) -> None:
    w, b, c, _ = machine
    step = between_pairs_step((w, b, c), (w, b, c))
    start = STATES[torch.randint(len(STATES), (500,), generator=seeded(4))]
    assert float(anneal(start, [0.0, 0.3, 1.0], step, generator=seeded(5)).abs().max()) < 1e-12


def test_a_step_between_models_leaves_the_density_of_its_temperature_invariant(machine: tuple[Tensor, ...]) -> None:
    w, b, c, _ = machine
    other = (w.flip(0) * 0.5, -b, c + 1)
    mixed = [one + 0.6 * (two - one) for one, two in zip((w, b, c), other, strict=True)]
    log_p = -boltzmann.free_energy(STATES, *mixed)
    p = log_p.softmax(0)
    start = STATES[torch.multinomial(p, 40_000, replacement=True, generator=seeded(6))]
    gain, after = between_pairs_step((w, b, c), other)(start, 0.2, 0.6, seeded(7))
    counts = torch.bincount((after @ 2.0 ** torch.arange(V - 1, -1, -1).double()).long(), minlength=len(STATES))
    assert float((counts / counts.sum() - p).abs().sum()) < 0.05
    before = [one + 0.2 * (two - one) for one, two in zip((w, b, c), other, strict=True)]
    expected = boltzmann.free_energy(start, *before) - boltzmann.free_energy(start, *mixed)
    torch.testing.assert_close(gain, expected)
