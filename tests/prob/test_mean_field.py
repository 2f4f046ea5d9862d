"""Coordinate ascent against sums over states by loops."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from unsup.prob import mean_field


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chances(q: Tensor, but: int | None = None) -> dict[tuple[int, ...], Tensor]:
    """q of every state, without the factor of one variable."""
    n, k, _ = q.shape
    return {
        state: torch.stack([q[j, v] for j, v in enumerate(state) if j != but] or [torch.ones_like(q[0, 0])]).prod(0)
        for state in itertools.product(range(k), repeat=n)
    }


@pytest.mark.parametrize(("n", "k"), [(1, 4), (3, 2), (2, 3), (4, 2)])
def test_expectations_the_elbo_and_updates_are_sums_over_states(n: int, k: int) -> None:
    table, q = 2 * draws(*(k,) * n, 5), draws(n, k, 5, seed=1).softmax(1)
    mean = sum(chance * table[state] for state, chance in chances(q).items())
    torch.testing.assert_close(mean_field.expectation(table, q), mean)
    elbo = sum(chance * (table[state] - chance.log()) for state, chance in chances(q).items())
    torch.testing.assert_close(mean_field.elbo(table, q), elbo)
    for j in range(n):
        each = torch.zeros(k, 5, dtype=torch.float64)
        for state, chance in chances(q, but=j).items():
            each[state[j]] += chance * table[state]
        torch.testing.assert_close(mean_field.expectation(table, q, but=j), each)
        found = mean_field.updated(table, q, j)
        torch.testing.assert_close(found[j], each.softmax(0))
        assert all(torch.equal(found[i], q[i]) for i in range(n) if i != j)


def test_no_update_lowers_the_elbo_which_stays_below_the_exact_sum() -> None:
    table, q = 3 * draws(2, 2, 2, 2, 50), torch.full((4, 2, 50), 0.5, dtype=torch.float64)
    exact, before = table.flatten(0, 3).logsumexp(0), mean_field.elbo(table, q)
    first = before
    for j in (0, 1, 2, 3, 0, 2, 1, 3):
        q = mean_field.updated(table, q, j)
        after = mean_field.elbo(table, q)
        assert bool((after >= before - 1e-12).all() & (after <= exact + 1e-12).all())
        before = after
    assert bool((before > first + 0.1).all())


def test_independent_variables_and_a_single_one_are_exact_after_one_sweep() -> None:
    factors = draws(3, 2, 7)
    table = factors[0].view(2, 1, 1, 7) + factors[1].view(1, 2, 1, 7) + factors[2].view(1, 1, 2, 7)
    start = torch.full((3, 2, 7), 0.5, dtype=torch.float64)
    q = mean_field.coordinate_ascent(table, start, sweeps=1)
    torch.testing.assert_close(mean_field.elbo(table, q), table.flatten(0, 2).logsumexp(0))
    torch.testing.assert_close(q, factors.softmax(1))


def test_marginals_are_sums_over_the_other_variables() -> None:
    p = draws(2, 2, 2).flatten().softmax(0).view(2, 2, 2)
    expected = torch.stack([p.sum((1, 2)), p.sum((0, 2)), p.sum((0, 1))])
    torch.testing.assert_close(mean_field.marginals(p), expected)
    torch.testing.assert_close(mean_field.marginals(p[0, 0] / p[0, 0].sum())[0], p[0, 0] / p[0, 0].sum())
