"""Losses on embeddings of views, against loops and closed forms in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unsup.core.parallel import share_of
from unsup.core.random import part_of_batch
from unsup.prob import contrast
from unsup.testing.processes import as_processes


def pair(n: int = 7, size: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, n, size, generator=generator, dtype=torch.float64).unbind())  # type: ignore[return-value]


def slow_nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    z = torch.cat([first, second])
    z = z / z.norm(dim=1, keepdim=True)
    n, found = len(first), []
    for i in range(2 * n):
        total = z.new_zeros(())
        for k in range(2 * n):
            if k != i:
                total = total + (z[i] @ z[k] / temperature).exp()
        found.append(-((z[i] @ z[(i + n) % (2 * n)] / temperature).exp() / total).log())
    return torch.stack([0.5 * (found[i] + found[i + n]) for i in range(n)])


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_is_the_double_loop_with_its_gradient(temperature: float) -> None:
    found = []
    for loss in (contrast.nt_xent, slow_nt_xent):
        first, second = (z.clone().requires_grad_() for z in pair())
        value = loss(first, second, temperature)
        found.append((value, *torch.autograd.grad((value * torch.arange(7)).sum(), (first, second))))
    for own, other in zip(*found, strict=True):
        assert torch.allclose(own, other, atol=1e-10)


def test_nt_xent_in_closed_form() -> None:
    one = torch.randn(1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert contrast.nt_xent(one, 2 * one + 1, 0.5).abs().max() < 1e-12  # a single example has no negatives
    n, temperature = 5, 0.3
    same = torch.ones(n, 4, dtype=torch.float64)
    assert torch.allclose(contrast.nt_xent(same, same, temperature), same.new_tensor(math.log(2 * n - 1)))
    axes = torch.eye(n, dtype=torch.float64)
    expected = math.log1p((2 * n - 2) * math.exp(-1 / temperature))
    assert torch.allclose(contrast.nt_xent(axes, 3 * axes, temperature), axes.new_tensor(expected))


def test_nt_xent_does_not_depend_on_the_order_of_examples() -> None:
    first, second = pair()
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    moved = contrast.nt_xent(first[order], second[order], 0.5)
    assert torch.allclose(moved, contrast.nt_xent(first, second, 0.5)[order], atol=1e-12)


def test_info_nce_of_constant_scores_and_of_a_planted_pair() -> None:
    scores = torch.full((3, 8), -2.5, dtype=torch.float64)
    assert torch.allclose(contrast.info_nce(scores, torch.tensor([0, 5, 7])), scores.new_tensor(math.log(8)))
    assert contrast.info_nce(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64)).abs().max() == 0
    # With the density ratio of a Gaussian pair as score, log M − loss is a lower bound on −½ log(1 − ρ²), and near it.
    rho, n, rounds = 0.8, 64, 200
    generator = torch.Generator().manual_seed(0)
    bounds = []
    for _ in range(rounds):
        x, noise = torch.randn(2, n, generator=generator, dtype=torch.float64).unbind()
        y = rho * x + math.sqrt(1 - rho**2) * noise
        ratio = -0.5 * ((y[None] - rho * x[:, None]) ** 2 / (1 - rho**2) - y[None] ** 2)
        bounds.append(math.log(n) - contrast.info_nce(ratio, torch.arange(n)).mean())
    found = torch.stack(bounds)
    mean, error = float(found.mean()), float(found.std()) / math.sqrt(rounds)
    information = -0.5 * math.log(1 - rho**2)
    assert mean - 4 * error < information
    assert mean + 4 * error > 0.95 * information


def test_info_nce_of_a_queue_is_that_of_its_candidates() -> None:
    query, key = (contrast.unit(z) for z in pair())
    queue = contrast.unit(pair(9, 5, seed=1)[0])
    found, first = contrast.info_nce_of_queue(query, key, queue, 0.3)
    for i in range(7):
        scores = torch.stack([query[i] @ k / 0.3 for k in (key[i], *queue)])
        assert float(found[i]) == pytest.approx(-float(scores.log_softmax(0)[0]), abs=1e-12)
        assert float(first[i]) == float(scores.argmax() == 0)
    nothing = torch.zeros(7, 5, dtype=torch.float64)
    chance, _ = contrast.info_nce_of_queue(nothing, key, queue, 0.3)
    assert torch.allclose(chance, chance.new_tensor(math.log(10)))
    # Without a queue, the key is the only candidate.
    alone, first = contrast.info_nce_of_queue(query, key, queue[:0], 0.3)
    assert torch.equal(alone, contrast.info_nce((query * key).sum(1, keepdim=True), torch.zeros(7, dtype=torch.int64)))
    assert torch.equal(alone, torch.zeros_like(alone))
    assert torch.equal(first, torch.ones_like(first))


def test_cosine_distance_in_closed_form() -> None:
    a = torch.tensor([[2.0, 0.0]] * 3, dtype=torch.float64)
    b = torch.tensor([[0.5, 0.0], [0.0, 7.0], [-1.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(contrast.cosine_distance(a, b), torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64))
    first, second = pair()
    unit = [z / z.norm(dim=1, keepdim=True) for z in (first, second)]
    assert torch.allclose(contrast.cosine_distance(first, second), ((unit[0] - unit[1]) ** 2).sum(1))


def test_vicreg_terms_are_those_of_loops() -> None:
    z, _ = pair(9, 4)
    mean, covariance = contrast.moments(z)
    for i in range(4):
        for j in range(4):
            expected = sum(float((row[i] - z[:, i].mean()) * (row[j] - z[:, j].mean())) for row in z) / 8
            assert float(covariance[i, j]) == pytest.approx(expected, abs=1e-12)
    assert torch.allclose(mean, z.mean(0))
    hinge = sum(max(0.0, 1 - math.sqrt(float(z[:, j].var()) + 1e-4)) for j in range(4)) / 4
    assert float(contrast.variance_hinge(covariance)) == pytest.approx(hinge, abs=1e-12)
    off = sum(float(covariance[i, j]) ** 2 for i in range(4) for j in range(4) if i != j) / 4
    assert float(contrast.covariance_penalty(covariance)) == pytest.approx(off, abs=1e-12)
    constant = contrast.moments(torch.ones(6, 3, dtype=torch.float64))[1]
    assert float(contrast.variance_hinge(constant)) == pytest.approx(0.99)
    assert float(contrast.covariance_penalty(constant)) == 0.0


def test_vicreg_of_a_whitened_batch_is_zero() -> None:
    z, _ = pair(40, 4)
    _, covariance = contrast.moments(z)
    white = 1.01 * (z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    _, covariance = contrast.moments(white)
    assert float(contrast.variance_hinge(covariance)) == 0.0
    assert float(contrast.covariance_penalty(covariance)) < 1e-20


def test_redundancy_is_that_of_loops_and_zero_for_equal_white_views() -> None:
    first, second = pair(9, 3)
    correlation = contrast.cross_correlation(first, second)
    for i in range(3):
        for j in range(3):
            a, b = first[:, i], second[:, j]
            expected = ((a - a.mean()) * (b - b.mean())).mean() / (a.std(correction=0) * b.std(correction=0))
            assert float(correlation[i, j]) == pytest.approx(float(expected), abs=1e-9)
    on, off = contrast.redundancy(correlation, 0.005)
    assert float(on) == pytest.approx(sum((1 - float(correlation[i, i])) ** 2 for i in range(3)))
    assert float(off) == pytest.approx(
        0.005 * sum(float(correlation[i, j]) ** 2 for i in range(3) for j in range(3) if i != j)
    )
    assert [float(term) for term in contrast.redundancy(torch.eye(5), 0.005)] == [0.0, 0.0]


def test_spread_and_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    sphere = torch.randn(20_000, 32, generator=generator)
    assert float(contrast.spread(sphere)) == pytest.approx(1.0, abs=0.01)
    assert float(contrast.spread(torch.ones(10, 8))) == pytest.approx(0.0, abs=1e-3)
    assert contrast.effective_rank(sphere) == pytest.approx(32, rel=0.01)
    assert contrast.effective_rank(torch.ones(5, 3)) == 1.0
    line = torch.arange(6.0)[:, None] * torch.tensor([[1.0, 2.0, -1.0]])
    assert contrast.effective_rank(line) == pytest.approx(1.0, abs=1e-6)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nt_xent": lambda a, b: contrast.nt_xent(a, b, 0.5),
    "variance": lambda a, b: contrast.variance_hinge(contrast.moments(0.3 * a)[1]).expand(len(a)),
    "covariance": lambda a, b: contrast.covariance_penalty(contrast.moments(b)[1]).expand(len(a)),
    "redundancy": lambda a, b: (
        torch.stack(contrast.redundancy(contrast.cross_correlation(a, b), 0.1)).sum().expand(len(a))
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_processes_give_the_loss_and_the_gradients_of_one(name: str) -> None:
    first, second = pair(8, 3)
    a, b = first.clone().requires_grad_(), second.clone().requires_grad_()
    value = LOSSES[name](a, b)
    expected = torch.autograd.grad(value.mean(), (a, b), allow_unused=True)

    def work(rank: int) -> tuple[Tensor, list[Tensor | None]]:
        rows = share_of(8, 3, rank)
        own = slice(rows.start, rows.start + rows.count)
        with part_of_batch(rows):
            mine = [z[own].clone().requires_grad_() for z in (first, second)]
            found = LOSSES[name](*mine)
            gradients = torch.autograd.grad(found.sum() / 8, mine, allow_unused=True)
        return found.detach(), list(gradients)

    parts = as_processes(3, work)
    assert torch.allclose(torch.cat([part[0] for part in parts]), value.detach(), atol=1e-10)
    for which, whole in enumerate(expected):
        found = [part[1][which] for part in parts]
        if whole is None:
            assert all(own is None for own in found)
        else:
            assert torch.allclose(torch.cat([own for own in found if own is not None]), whole, atol=1e-10)


def predictive(a: Tensor, b: Tensor) -> Tensor:
    return contrast.predictive_info_nce(a.unflatten(0, (2, 4, 1)), b.unflatten(0, (2, 4, 1))[..., None, :])[0][:, 0]


OF_EMBEDDINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "unit": lambda a, b: contrast.unit(a),
    "nt_xent": lambda a, b: contrast.nt_xent(a, b, 0.1),
    "predictive_info_nce": predictive,
    "info_nce_of_queue": lambda a, b: contrast.info_nce_of_queue(*contrast.unit(a).chunk(2), contrast.unit(b), 0.1)[0],
    "cosine_distance": contrast.cosine_distance,
    "moments": lambda a, b: torch.cat([own.flatten() for own in contrast.moments(a)]),
    "variance_hinge": lambda a, b: contrast.variance_hinge(contrast.moments(0.3 * a)[1]),
    "covariance_penalty": lambda a, b: contrast.covariance_penalty(contrast.moments(a)[1]),
    "cross_correlation": contrast.cross_correlation,
    "redundancy": lambda a, b: torch.stack(contrast.redundancy(contrast.cross_correlation(a, b), 0.005)),
    "spread": lambda a, b: contrast.spread(a),
}


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_autocast_rounds_neither_values_nor_gradients(name: str) -> None:
    found = []
    for autocast in (False, True):
        first, second = (z.float().requires_grad_() for z in pair(8, 5))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = OF_EMBEDDINGS[name](first, second)
        assert value.dtype == torch.float32
        found.append([value.detach()])
        if value.requires_grad:
            inputs = torch.autograd.grad(value.square().sum(), (first, second), allow_unused=True)
            found[-1] += [g for g in inputs if g is not None]
    assert len(found[0]) == len(found[1])
    for plain, cast in zip(*found, strict=True):
        assert torch.allclose(cast, plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max()))


@pytest.mark.parametrize("name", ["nt_xent", "moments", "cross_correlation", "redundancy"])
def test_embeddings_in_bfloat16_are_compared_in_float32(name: str) -> None:
    first, second = (z.bfloat16() for z in pair(8, 5))
    expected = OF_EMBEDDINGS[name](first.double(), second.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = OF_EMBEDDINGS[name](first, second)
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_small_entries_off_a_large_diagonal_are_not_lost() -> None:
    noise = 1e-3 * torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    matrix = (noise + 100 * torch.eye(6)).requires_grad_()
    expected = sum(float(noise[i, j].double() ** 2) for i in range(6) for j in range(6) if i != j)
    found = contrast.covariance_penalty(matrix)
    assert float(found.detach()) == pytest.approx(expected / 6, rel=1e-5)
    assert float(contrast.redundancy(matrix.detach(), 0.5)[1]) == pytest.approx(expected / 2, rel=1e-5)
    (slope,) = torch.autograd.grad(found, matrix)
    assert torch.allclose(slope, 2 / 6 * noise * (1 - torch.eye(6)))
    assert float(contrast.covariance_penalty(torch.ones(1, 1))) == 0.0
