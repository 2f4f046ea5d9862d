"""Sample metrics: closed forms, loops, another library, and what must not change them."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import math
import sys
import types
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn

import unsup
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import REAL, Event
from unsup.core.model import CanSample, Model
from unsup.evaluate.distances import radii
from unsup.evaluate.exam import evaluate_samples
from unsup.evaluate.neighbours import neighbours
from unsup.evaluate.samples import (
    CHUNK,
    deleted_groups,
    draw_samples,
    frechet_distance,
    inception_score,
    jackknife_error,
    kernel_distance,
    squared_mmd,
)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mixed(n: int, dims: int, seed: int) -> torch.Tensor:
    """Correlated points of scales that differ by 10⁴."""
    scale = torch.logspace(-2, 2, dims, dtype=torch.float64)
    return normal(n, dims, seed=seed) * scale @ normal(dims, dims, seed=99) / dims**0.5


# --- Fréchet distance -------------------------------------------------------------------------------------------------


def test_in_one_dimension_it_is_the_distance_of_means_and_deviations():
    x, y = 3 + 2 * normal(50, 1), normal(80, 1, seed=1)
    expected = (x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("n", [8, 500], ids=["fewer examples than features", "more"])
def test_a_shift_adds_its_square_and_equal_sets_are_at_zero(n):
    x = mixed(n, 12, 0)
    shift = normal(12, seed=5)
    size = np.cov(x.numpy().T).trace()
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10 * size)
    assert frechet_distance(x + shift, x) == pytest.approx(shift.square().sum().item(), abs=1e-9 * size)
    assert frechet_distance(x[torch.randperm(n)], x) == pytest.approx(0, abs=1e-10 * size)


def test_commuting_covariances_differ_by_the_roots_of_their_eigenvalues():
    directions = torch.linalg.qr(normal(6, 6)).Q
    white = normal(400, 6, seed=1)
    white = (white - white.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(white.T))).T
    a, b = torch.tensor([4.0, 1, 9, 0, 2, 3]).double(), torch.tensor([1.0, 1, 0, 16, 0.5, 3]).double()
    x, y = (white * v.sqrt() @ directions.T for v in (a, b))
    assert frechet_distance(x, y) == pytest.approx((a.sqrt() - b.sqrt()).square().sum().item(), rel=1e-7)


def test_features_without_variance_change_nothing():
    x, y = mixed(100, 5, 0), mixed(90, 5, 1) + 1
    padded = [torch.cat([v, torch.full((len(v), 3), 7.0)], 1) for v in (x, y)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(x, y), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(9, 7), (9, 300), (300, 9), (300, 200), (21, 300)])
def test_the_matrix_square_root_gives_the_same(n, m):
    """Against scipy's square root of the product, wherever counts lie beside the number of features, 20."""
    linalg = pytest.importorskip("scipy.linalg")
    x, y = normal(n, 20) @ normal(20, 20, seed=3) + 0.3, normal(m, 20, seed=1)
    a, b = np.cov(x.numpy(), rowvar=False), np.cov(y.numpy(), rowvar=False)
    # A little of the identity keeps the root of a singular product from failing.
    near = 1e-9 * np.eye(20)
    root = linalg.sqrtm((a + near) @ (b + near)).real
    shift = (x.mean(0) - y.mean(0)).numpy()
    expected = shift @ shift + np.trace(a + b - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=3e-4 if min(n, m) <= 20 else 1e-6)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)


def test_halves_of_one_law_are_apart_by_what_the_count_explains():
    """d² of two samples of one Gaussian falls as 1/N."""
    found = [
        np.mean([frechet_distance(normal(n, 8, seed=2 * s), normal(n, 8, seed=2 * s + 1)) for s in range(20)])
        for n in (200, 800)
    ]
    assert found[0] / found[1] == pytest.approx(4, rel=0.2)


def test_groups_left_out_are_left_out():
    x, y = mixed(47, 4, 0), mixed(63, 4, 1)
    rows = [np.array_split(np.arange(len(v)), 5) for v in (x, y)]
    for g, found in enumerate(deleted_groups(x, y, 5)):
        kept = [v[np.concatenate(parts[:g] + parts[g + 1 :])] for v, parts in zip((x, y), rows, strict=True)]
        assert found == pytest.approx(frechet_distance(*kept), rel=1e-8)


def test_the_error_of_the_distance_is_its_spread_over_samples():
    draws = [(normal(400, 4, seed=2 * s) + 0.4, normal(400, 4, seed=2 * s + 1)) for s in range(60)]
    spread = np.std([frechet_distance(*d) for d in draws])
    assert np.mean([jackknife_error(*d) for d in draws[:20]]) == pytest.approx(spread, rel=0.25)


# --- kernel distance --------------------------------------------------------------------------------------------------


def test_squared_mmd_is_the_loop():
    x, y = normal(6, 3).numpy(), normal(5, 3, seed=1).numpy()

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / 3 + 1) ** 3

    within = [sum(k(v[i], v[j]) for i, j in itertools.permutations(range(len(v)), 2)) for v in (x, y)]
    across = sum(k(a, b) for a in x for b in y) / 30
    assert squared_mmd(x, y) == pytest.approx(within[0] / 30 + within[1] / 20 - 2 * across, rel=1e-12)


def test_halves_of_one_law_are_at_zero_on_average_with_both_signs():
    values = np.array(
        [squared_mmd(normal(50, 6, seed=2 * s).numpy(), normal(50, 6, seed=2 * s + 1).numpy()) for s in range(200)]
    )
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(200)
    assert (values < 0).any()
    assert (values > 0).any()


def test_the_error_of_kid_is_its_spread_over_samples():
    draws = [(normal(400, 4, seed=2 * s) + 0.3, normal(400, 4, seed=2 * s + 1)) for s in range(60)]
    found = [kernel_distance(*d, subsets=16, size=50, seed=s) for s, d in enumerate(draws)]
    assert (found[0].subsets, found[0].size) == (16, 50)
    spread = np.std([f.value for f in found])
    assert np.mean([f.error for f in found]) == pytest.approx(spread, rel=0.3)


def test_kid_follows_its_seed_and_uses_all_examples():
    x, y = normal(100, 4), normal(90, 4, seed=1)
    first = kernel_distance(x, y, subsets=4, size=40, seed=3)
    assert first == kernel_distance(x, y, subsets=4, size=40, seed=3)
    assert first.value != kernel_distance(x, y, subsets=4, size=40, seed=4).value


# --- neighbours -------------------------------------------------------------------------------------------------------


def test_all_four_are_what_a_loop_counts():
    fake, real = normal(23, 3) * 0.8, normal(31, 3, seed=1)

    def distances(a, b):
        return [[math.dist(p, q) for q in b.tolist()] for p in a.tolist()]

    def ball(v, k):
        return [sorted(row)[k] for row in distances(v, v)]  # the first is the distance to itself

    across = distances(fake, real)
    real3, real5, fake3 = ball(real, 3), ball(real, 5), ball(fake, 3)
    found = neighbours(fake, real)
    assert found.precision.tolist() == [any(d <= r for d, r in zip(row, real3, strict=True)) for row in across]
    assert found.recall.tolist() == [any(across[i][j] <= fake3[i] for i in range(23)) for j in range(31)]
    inside = [[d <= r for d, r in zip(row, real5, strict=True)] for row in across]
    assert torch.allclose(found.density, torch.tensor([sum(row) / 5 for row in inside]))
    assert found.coverage.tolist() == [any(inside[i][j] for i in range(23)) for j in range(31)]
    assert 0 < found.precision.mean() < 1
    assert 0 < found.recall.mean() < 1


def test_a_collapsed_generator_is_precise_and_recalls_little():
    real = normal(500, 2)
    found = neighbours(0.05 * normal(500, 2, seed=1), real)
    assert found.precision.mean() > 0.97
    assert found.recall.mean() < 0.2
    assert found.coverage.mean() < 0.2
    spread = neighbours(6 * normal(500, 2, seed=1), real)
    assert spread.precision.mean() < 0.5
    assert spread.recall.mean() > 0.9


def test_two_samples_of_one_law_have_the_density_and_coverage_that_chance_gives():
    """Density 1 and coverage 1 − 2^−k, whatever the law (Naeem et al. 2020)."""
    found = neighbours(normal(2000, 3), normal(2000, 3, seed=1))
    assert found.density.mean().item() == pytest.approx(1, abs=0.05)
    assert found.coverage.mean().item() == pytest.approx(1 - 2**-5, abs=0.016)


def test_identical_sets_with_repeated_examples_are_covered():
    x = normal(40, 5).repeat(8, 1) + 1e3  # every radius is zero
    found = neighbours(x, x)
    assert found.precision.mean() == found.recall.mean() == found.coverage.mean() == 1
    assert neighbours(x + 0.1, x).precision.mean() == 0


def test_the_size_of_a_block_changes_nothing():
    fake, real = normal(70, 4), normal(50, 4, seed=1)
    whole = neighbours(fake, real)
    for block in (1, 128, 999):
        part = neighbours(fake, real, block=block)
        assert all(torch.equal(getattr(whole, k), getattr(part, k)) for k in vars(whole))
    assert torch.allclose(radii(real, (2,), 100), torch.cdist(real, real).sort().values[:, 2].square()[None])


def test_too_few_examples_are_refused():
    with pytest.raises(InputError, match="k-th neighbour"):
        neighbours(normal(5, 2), normal(50, 2))
    with pytest.raises(InputError, match="with 2 examples or more"):
        frechet_distance(normal(1, 2), normal(50, 2))
    with pytest.raises(InputError, match="with 4 examples or more"):
        kernel_distance(normal(3, 2), normal(50, 2))
    with pytest.raises(InputError, match=r"\(M, D\)"):
        frechet_distance(normal(9, 2), normal(9, 3))
    with pytest.raises(InputError, match="2 of 9 examples of fake have features that are not finite"):
        frechet_distance(normal(9, 2).index_fill(0, torch.tensor([1, 4]), torch.nan), normal(9, 2))


# --- Inception score --------------------------------------------------------------------------------------------------


def test_inception_score_of_known_predictions():
    assert inception_score(torch.ones(50, 7)) == pytest.approx((1, 0), abs=1e-12)
    certain = 1e4 * torch.eye(7).repeat(20, 1)  # a plain log of these probabilities is infinite
    assert inception_score(certain, splits=1)[0] == pytest.approx(7)
    assert inception_score(certain, splits=20, seed=None) == pytest.approx((7, 0))
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], dtype=torch.float64)
    mean = p.mean(0)
    expected = math.exp(
        sum(a * math.log(a / b) for row in p.tolist() for a, b in zip(row, mean.tolist(), strict=True)) / 2
    )
    assert inception_score(p.log() + 3, splits=1)[0] == pytest.approx(expected, rel=1e-12)


def test_the_order_of_examples_does_not_matter_to_one_split():
    logits = normal(90, 5)
    shuffled = logits[torch.randperm(90, generator=torch.Generator().manual_seed(1))]
    assert inception_score(shuffled, splits=1)[0] == pytest.approx(inception_score(logits, splits=1)[0], rel=1e-12)
    with pytest.raises(InputError, match="splits"):
        inception_score(logits[:5])


# --- another library --------------------------------------------------------------------------------------------------


@pytest.fixture
def fidelity():
    """torch-fidelity's metric modules. They need neither its extractors nor torchvision, which its package imports."""
    found = importlib.util.find_spec("torch_fidelity")
    if found is None:
        pytest.skip("needs torch-fidelity")
    before = {k: sys.modules.pop(k) for k in list(sys.modules) if k.split(".")[0] == "torch_fidelity"}
    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules |= {"torch_fidelity": package, "torch_fidelity.utils": MagicMock()}
    yield {name: importlib.import_module(f"torch_fidelity.metric_{name}") for name in ("fid", "isc", "kid", "prc")}
    for name in [k for k in sys.modules if k.split(".")[0] == "torch_fidelity"]:
        del sys.modules[name]
    sys.modules.update(before)


def test_torch_fidelity_gives_the_same(fidelity):
    """FID, KID and Inception score to 1e-6 of their value; precision and recall exactly."""
    fake, real, logits = mixed(700, 24, 0) * 1.1 + 0.2, mixed(800, 24, 1), 3 * normal(500, 11)
    fid = fidelity["fid"]
    theirs = fid.fid_statistics_to_metric(*(fid.fid_features_to_statistics(v) for v in (fake, real)), False)
    assert frechet_distance(fake, real) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    theirs = fidelity["kid"].kid_features_to_metric(fake, real[:700], kid_subsets=1, kid_subset_size=700, verbose=False)
    found = squared_mmd(fake.numpy(), real[:700].numpy())
    assert found == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    theirs = fidelity["isc"].isc_features_to_metric(logits, 10, False)
    expected = (theirs["inception_score_mean"], theirs["inception_score_std"])
    assert inception_score(logits, seed=None) == pytest.approx(expected, rel=1e-6)
    theirs = fidelity["prc"].prc_features_to_metric(fake, real, verbose=False)
    near = neighbours(fake, real)
    assert near.precision.mean().item() == pytest.approx(theirs["precision"], abs=1e-7)
    assert near.recall.mean().item() == pytest.approx(theirs["recall"], abs=1e-7)
    assert theirs["precision"] != theirs["recall"]


# --- all together -----------------------------------------------------------------------------------------------------


class Moved(Model, CanSample):
    """Normal draws about ``shift``."""

    def __init__(self, event: Event, *, shift: float = 0.0) -> None:
        self.shift = nn.Parameter(torch.tensor(shift))

    def loss(self, batch, *, generator=None):
        return {"loss": self.shift.square()}

    def sample(self, n, *, generator=None):
        return self.shift + torch.randn(n, *self.event.shape, generator=generator)


@pytest.fixture(scope="module")
def plane():
    return unsup.data.from_arrays(normal(4000, 2, dtype=torch.float32).numpy())


def test_a_true_model_meets_the_floor_and_a_moved_one_does_not(plane):
    true = evaluate_samples(Moved(plane.event), plane, 600)
    moved = evaluate_samples(Moved(plane.event, shift=3.0), plane, 600)
    detail = true["fid"]["detail"]
    assert [detail[k] for k in ("fake", "real", "held_out", "extractor")] == [600, 600, len(plane.test), "raw"]
    low, high = moved["fid"]["interval"]
    assert low < 18 < high  # shifts of three standard deviations in two columns
    assert true["fid"]["value"] < 0.05
    assert true["kid"]["interval"][0] < 0.01
    for name in ("precision", "density", "recall", "coverage"):
        assert moved[name]["value"] < true[name]["value"]
        assert true[name]["value"] == pytest.approx(true[name]["floor"], abs=0.1)
    assert true["fid"]["floor"] == moved["fid"]["floor"]


def test_the_same_seed_gives_the_same_record_and_files_hold_it(plane):
    model = Moved(plane.event).train()
    first = evaluate_samples(model, plane, 600, seed=3)
    assert model.training
    assert first == evaluate_samples(model, plane, 600, seed=3)
    assert first != evaluate_samples(model, plane, 600, seed=4)
    assert first == evaluate_samples(draw_samples(model, 600, seed=3), plane, 600, seed=3)
    assert json.loads(json.dumps(first, allow_nan=False))["fid"]["value"] == first["fid"]["value"]


def test_draws_are_keyed_by_chunk(plane):
    model = Moved(plane.event)
    x = draw_samples(model, 2 * CHUNK + 7, seed=1)
    assert x.shape == (2 * CHUNK + 7, 2)
    assert torch.equal(x[:CHUNK], draw_samples(model, CHUNK, seed=1))
    assert not torch.equal(x[:CHUNK], x[CHUNK : 2 * CHUNK])


def test_progress_counts_every_example(plane):
    seen: dict[str, list[tuple[int, int]]] = {}

    def tell(stage, *counts):
        seen.setdefault(stage, []).append(counts)

    evaluate_samples(Moved(plane.event), plane, 700, tell=tell)
    assert seen["sampling"] == [(500, 700), (700, 700)]
    assert (700 + len(plane.test), 700 + len(plane.test)) in seen["features"]
    assert seen["features"][-1] == (700, 700)
    assert seen["FID"] == [(0, 0)]


def test_classes_bring_the_inception_score():
    digits = unsup.load_data("digits")
    found = evaluate_samples(digits.test.x, digits, 100)
    assert found["inception_score"]["floor"] > 1.5
    assert "inception_score" not in evaluate_samples(digits.test.x, digits, 100, "raw")


def test_collapse_is_seen_in_the_modes():
    data = unsup.load_data("ring8", n=1000)
    one = data.train.x[data.train.label == 3]
    found = evaluate_samples(one, data)
    assert (found["modes"]["value"], found["modes"]["detail"]["of"]) == (1, 8)
    assert found["precision"]["value"] > 0.9
    assert found["recall"]["value"] < 0.3


def test_what_cannot_be_judged_is_refused(plane):
    class Silent(Model):
        def __init__(self, event: Event) -> None:
            self.weight = nn.Parameter(torch.zeros(1))

        def loss(self, batch, *, generator=None):
            return {"loss": self.weight.sum()}

    with pytest.raises(CapabilityError, match="draws no samples"):
        evaluate_samples(Silent(plane.event), plane)
    with pytest.raises(InputError, match="finite"):
        evaluate_samples(torch.full((100, 2), torch.nan), plane)
    with pytest.raises(InputError, match="expected a batch axis"):
        evaluate_samples(torch.zeros(100, 3), plane)
    with pytest.raises(InputError, match="there are 0"):
        evaluate_samples(torch.zeros(0, 2), plane)
    with pytest.raises(InputError, match="2 or more"):
        evaluate_samples(Moved(Event((2,), REAL)), plane, 1)


def test_no_error_is_made_of_more_features_than_examples():
    """Its cost grows with the cube of the features, and it would say little of covariances without full rank."""
    generator = torch.Generator().manual_seed(0)
    wide, narrow = (torch.randn(60, d, generator=generator) for d in (600, 500))
    assert math.isnan(jackknife_error(wide, wide + 1))
    assert jackknife_error(narrow, narrow + 1) > 0
