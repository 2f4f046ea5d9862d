"""Vector quantisation against loops, k-means and closed forms, and its sums over processes and parts of a batch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unsup.core.random import Rows, part_of_batch
from unsup.nn import quantiser as quantiser_module
from unsup.nn.quantiser import VectorQuantiser
from unsup.prob import quantisation
from unsup.prob.quantisation import nearest, perplexity, smoothed_counts, straight_through
from unsup.testing.processes import as_processes


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def quantiser(size: int, dim: int, codebook: Tensor | None = None, **options: object) -> VectorQuantiser:
    found = VectorQuantiser(size, dim, **options).double()
    if codebook is not None:
        with torch.no_grad():
            found.codebook.copy_(codebook)
    return found


def by_loops(z: Tensor, codebook: Tensor) -> list[int]:
    found = []
    for row in z.tolist():
        distances = [sum((a - b) ** 2 for a, b in zip(row, e, strict=True)) for e in codebook.tolist()]
        found.append(distances.index(min(distances)))
    return found


def test_the_matrix_product_finds_the_nearest_codes_of_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    z, codebook = draws(37, 3), draws(11, 3, seed=1)
    assert nearest(z, codebook).tolist() == by_loops(z, codebook)
    assert nearest(z.view(37, 1, 3), codebook).shape == (37, 1)
    monkeypatch.setattr(quantisation, "_MOST_DISTANCES", 40)  # three rows at a time
    assert nearest(z, codebook).tolist() == by_loops(z, codebook)


def test_of_equally_near_codes_the_first_is_chosen() -> None:
    """Whole numbers, whose distances are exact; many vectors lie halfway between codes, and codes repeat."""
    z = torch.randint(-2, 3, (200, 2), generator=seeded()).double()
    codebook = 2 * torch.randint(-1, 2, (12, 2), generator=seeded(1)).double()
    each = torch.cdist(z, codebook)
    assert int((each == each.min(1, keepdim=True).values).sum()) > 2 * len(z)
    assert nearest(z, codebook).tolist() == by_loops(z, codebook)
    assert nearest(z.float(), codebook.float()).tolist() == by_loops(z, codebook)


def test_lookup_is_the_product_with_one_hot_codes() -> None:
    found = quantiser(5, 3)
    codes = torch.randint(0, 5, (4, 6), generator=seeded())
    expected = torch.nn.functional.one_hot(codes, 5).double() @ found.codebook
    assert torch.equal(found.lookup(codes), expected)


def test_as_many_codes_as_points_leave_no_error() -> None:
    found, z = quantiser(12, 2), draws(12, 2)
    found.prepare(z, generator=seeded(3))
    result = found(z[:, None])
    assert sorted(result.codes.flatten().tolist()) == list(range(12))
    assert torch.equal(result.vectors.squeeze(1), z)
    assert not result.commitment.any()
    assert not result.codebook.any()


def test_the_terms_are_squared_distances_and_each_moves_one_side_only() -> None:
    found, z = quantiser(4, 3, learn="gradient"), draws(5, 2, 3).requires_grad_()
    result = found(z)
    distance = (z - found.codebook[result.codes]).square().sum((1, 2)).detach()
    torch.testing.assert_close(result.codebook, distance)
    torch.testing.assert_close(result.commitment, distance)
    for term, moved, still in ((result.codebook, found.codebook, z), (result.commitment, z, found.codebook)):
        gradient, none = torch.autograd.grad(term.sum(), (moved, still), allow_unused=True, retain_graph=True)
        assert gradient is not None
        assert bool(gradient.any())
        assert none is None
    (gradient,) = torch.autograd.grad(result.commitment.sum(), z, retain_graph=True)
    torch.testing.assert_close(gradient, 2 * (z - found.codebook[result.codes]).detach())


def test_the_gradient_at_the_quantised_vectors_is_passed_to_the_encoder_and_to_nothing_else() -> None:
    found, z = quantiser(4, 3, learn="gradient"), draws(5, 2, 3).requires_grad_()
    result, weights = found(z), draws(5, 2, 3, seed=4)
    assert torch.equal(result.vectors, found.codebook[result.codes])
    passed, none = torch.autograd.grad((weights * result.vectors).sum(), (z, found.codebook), allow_unused=True)
    assert torch.equal(passed, weights)
    assert none is None
    assert torch.equal(straight_through(z, z + 1e9), z + 1e9)


def test_one_update_without_memory_is_a_step_of_k_means() -> None:
    z = torch.cat([draws(20, 2, seed=k) + 6 * k for k in range(4)])
    found = quantiser(4, 2, z[[0, 25, 45, 70]], decay=0.0)
    codes = nearest(z, found.codebook)
    found(z[:, None], generator=seeded())
    found.update()
    means = torch.stack([z[codes == k].mean(0) for k in range(4)])
    torch.testing.assert_close(found.codebook.detach(), means, rtol=1e-6, atol=1e-6)  # up to the smoothing
    assert found.restarted == 0


def test_moving_averages_follow_the_recursion_and_reach_the_means_of_fixed_assignments() -> None:
    z = torch.cat([draws(10 * (k + 1), 2, seed=k) + 20 * k for k in range(3)])
    found = quantiser(3, 2, torch.tensor([[0.0, 0.0], [20, 20], [40, 40]]), decay=0.9)
    counts = torch.tensor([10.0, 20, 30]).double()
    n, m = torch.full((3,), 20.0).double(), found.codebook.detach() * 20
    total = torch.stack([z[:10].sum(0), z[10:30].sum(0), z[30:].sum(0)])
    for step in range(300):
        found(z[:, None], generator=seeded())
        found.update()
        decay = min(0.9, (1 + step) / (10 + step))  # a short memory at first
        n, m = decay * n + (1 - decay) * counts, decay * m + (1 - decay) * total
        smooth = (n + 1e-5) / (n.sum() + 3e-5) * n.sum()
        torch.testing.assert_close(found.codebook.detach(), m / smooth[:, None])
    torch.testing.assert_close(found.codebook.detach(), total / counts[:, None], rtol=1e-5, atol=1e-5)


def test_smoothing_keeps_the_total_and_perplexity_counts_codes() -> None:
    counts = torch.tensor([5.0, 0.0, 3.0]).double()
    found = smoothed_counts(counts, 0.5)
    torch.testing.assert_close(found, (counts + 0.5) / 9.5 * 8)
    assert float(found.sum()) == pytest.approx(8)
    assert float(perplexity(torch.tensor([2.0, 2, 2, 0]))) == pytest.approx(3)
    p = torch.tensor([0.7, 0.2, 0.1])
    assert float(perplexity(30 * p)) == pytest.approx(math.exp(-float((p * p.log()).sum())))
    assert float(perplexity(torch.zeros(7))) == pytest.approx(7)


def test_a_pass_changes_the_codebook_only_in_training_and_after_the_step() -> None:
    found, z = quantiser(4, 2), draws(6, 3, 2)
    before = {k: v.clone() for k, v in found.state_dict().items()}
    found.eval()(z)
    found.update()
    found.train()(z, generator=seeded())
    assert all(torch.equal(v, before[k]) for k, v in found.state_dict().items())
    found.update()
    assert not torch.equal(found.codebook, before["codebook"])
    moved = found.codebook.detach().clone()
    found.update()  # the sums of a step count once
    assert torch.equal(found.codebook, moved)


@pytest.mark.parametrize("learn", ["moving", "gradient"])
def test_dead_codes_are_restarted_at_vectors_of_the_batch(learn: str) -> None:
    z = draws(8, 4, 2)
    found = quantiser(3, 2, torch.tensor([[0.0, 0.0], [1e3, 1e3], [-1e3, 0.0]]), learn=learn)
    found.steps.fill_(2000)  # the memory is short only at first
    steps = math.ceil(math.log(quantiser_module.DEAD) / math.log(0.99))
    for step in range(steps):
        assert found.restarted == 0, step
        assert torch.equal(found.codebook[1].detach().round(), torch.tensor([1e3, 1e3]).double())
        found(z, generator=seeded(step))
        found.update()
    assert found.restarted == 2
    for code in (1, 2):
        assert bool((z.flatten(0, 1) == found.codebook[code]).all(1).any())
    found(z, generator=seeded())
    found.update()
    assert found.restarted == 0
    assert len(found.nearest(z).unique()) == 3


def test_codes_far_from_a_new_encoder_are_restarted_soon_and_not_where_a_code_is_already() -> None:
    start = 1e3 + draws(20, 2, seed=1)
    found, z = quantiser(20, 2, start), draws(50, 4, 2)
    for step in range(60):
        found(z, generator=seeded(step))
        found.update()
    assert len(found.nearest(z).unique()) > 15
    places = draws(3, 2)
    found, z = quantiser(8, 2, 1e3 + draws(8, 2, seed=1)), places[torch.arange(30) % 3].view(10, 3, 2)
    restarts = []
    for step in range(300):
        found(z, generator=seeded(step))
        found.update()
        restarts.append(int(found.restarted))
    assert sum(restarts[:20]) > 0
    assert not any(restarts[20:])
    assert len(found.nearest(z).unique()) == 3


def test_codes_restarted_in_one_step_are_at_different_vectors() -> None:
    """Few vectors and many dead codes: each vector that is drawn takes one code, and the others wait."""
    z = draws(4, 4, 2)  # 16 vectors for 30 dead codes
    found = quantiser(32, 2, torch.cat([z.flatten(0, 1)[:2], 1e6 + draws(30, 2, seed=1)]))
    for step in range(20):
        found(z, generator=seeded(step))
        found.update()
        near = found.codebook[found.codebook.detach().abs().amax(1) < 1e3]
        assert len(near.unique(dim=0)) == len(near), step
    assert len(found.nearest(z).unique()) > 12


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
def test_every_point_of_a_codebook_is_its_own_nearest_far_from_the_origin(offset: float) -> None:
    points = (draws(256, 16) + offset).float()
    assert torch.equal(nearest(points, points), torch.arange(256))


def test_weights_count_examples_as_often() -> None:
    z, codebook = draws(4, 3, 2), draws(3, 2, seed=1)
    one, other = (quantiser(3, 2, codebook, decay=0.0) for _ in range(2))
    one(z, weight=torch.tensor([1.0, 2.0, 1.0, 0.0]), generator=seeded())
    other(z[[0, 1, 1, 2]], generator=seeded())
    for found in (one, other):
        found.collected[:, 3:] = 0  # candidates are other rows
        found.update()
    torch.testing.assert_close(one.codebook, other.codebook)


def test_parts_of_a_batch_and_processes_collect_the_sums_and_candidates_of_the_whole() -> None:
    z = draws(7, 5, 2)
    start = draws(40, 2, seed=1)
    whole = quantiser(40, 2, start, decay=0.0)
    whole(z, generator=seeded(2))
    assert bool((whole.collected[:, 0] == 0).any())  # codes that are restarted

    def part(found: VectorQuantiser, a: int, b: int) -> None:
        with part_of_batch(Rows(7, a, b - a)):
            found(z[a:b], generator=seeded(2))

    accumulated = quantiser(40, 2, start, decay=0.0)
    for a, b in ((0, 2), (2, 3), (3, 7)):
        part(accumulated, a, b)
    spread = [quantiser(40, 2, start, decay=0.0) for _ in range(2)]
    as_processes(2, lambda rank: part(spread[rank], 4 * rank, 4 + 3 * rank))
    for found in (accumulated, *spread):
        torch.testing.assert_close(found.collected, whole.collected)
        found.update()
    whole.update()
    for found in (accumulated, *spread):
        torch.testing.assert_close(found.codebook, whole.codebook)


def test_distances_are_in_float32_under_autocast() -> None:
    codebook = torch.tensor([[1.0], [1.0 + 2**-9]])  # alike in bfloat16
    found = VectorQuantiser(2, 1)
    with torch.no_grad():
        found.codebook.copy_(codebook)
    with torch.autocast("cpu", torch.bfloat16):
        result = found(codebook.flip(0)[:, None])
    assert result.codes.flatten().tolist() == [1, 0]
    assert result.vectors.dtype == torch.float32


def test_few_and_dead_codes_are_reported() -> None:
    found = VectorQuantiser(100, 2)
    assert found.diagnose({"perplexity": 50.0, "restarted": 0.0}) is None
    few = found.diagnose({"perplexity": 3.2, "restarted": 0.0})
    dead = found.diagnose({"perplexity": 50.0, "restarted": 7.0})
    assert few is not None
    assert dead is not None
    assert "perplexity of 3.2 of 100" in few.advice
    assert "7.0 of 100 codes are restarted" in dead.advice
