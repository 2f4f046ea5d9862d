"""Shares, the Mann–Whitney statistic and anomaly detection: loops, scikit-learn, closed forms and counted coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from unsup.core.errors import InputError
from unsup.evaluate.anomaly import anomaly_detection, break_dependence
from unsup.evaluate.estimate import mann_whitney, wilson


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def against_sklearn(ordinary: torch.Tensor, anomalies: torch.Tensor) -> tuple[float, float]:
    truth = np.r_[np.zeros(len(ordinary)), np.ones(len(anomalies))]
    scores = torch.cat([ordinary, anomalies]).numpy()
    return roc_auc_score(truth, scores), average_precision_score(truth, scores)


# --- shares -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(0, 7), (3, 10), (50, 50), (199, 1000), (1, 1)])
def test_wilson_is_scipys(k, n):
    expected = binomtest(k, n).proportion_ci(method="wilson")
    found = wilson(k, n)
    assert (found.value, found.low, found.high) == pytest.approx((k / n, expected.low, expected.high), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_shares_of_nothing_are_refused():
    for k, n in ((0, 0), (5, 4), (-1, 4)):
        with pytest.raises(InputError, match="from 0 to n"):
            wilson(k, n)


# --- the Mann–Whitney statistic ---------------------------------------------------------------------------------------


def test_its_value_and_variance_are_what_pairs_say():
    """DeLong's variance from the matrix of all pairs, with ties, or the exponential one; symmetric in the logit."""
    a, b = (2 * normal(31) + 1).round(), (2 * normal(23, seed=1)).round()
    pairs = [[(p > q) + (p == q) / 2 for q in b.tolist()] for p in a.tolist()]
    kernel = np.array(pairs, float)
    theta = kernel.mean()
    assert (kernel == 0.5).mean() > 0
    variance = kernel.mean(1).var(ddof=1) / 31 + kernel.mean(0).var(ddof=1) / 23
    variance = max(variance, theta * (1 - theta) * (1 + 26 * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / 713)
    found = mann_whitney(a, b)
    assert found.value == pytest.approx(theta, rel=1e-12)
    half = 1.959964 * math.sqrt(variance) / (theta * (1 - theta))
    for end, sign in ((found.low, -1), (found.high, 1)):
        assert math.log(end / (1 - end)) == pytest.approx(math.log(theta / (1 - theta)) + sign * half, rel=1e-6)


def test_exchanging_the_sides_mirrors_it():
    a, b = normal(20) + 1, normal(30, seed=1)
    one, other = mann_whitney(a, b), mann_whitney(b, a)
    assert (one.value, one.low, one.high) == pytest.approx((1 - other.value, 1 - other.high, 1 - other.low), abs=1e-12)
    apart, mirrored = mann_whitney(a + 99, b), mann_whitney(b, a + 99)
    assert (apart.value, apart.high, mirrored.value, mirrored.low) == (1, 1, 0, 0)
    assert apart.low == pytest.approx(1 - mirrored.high)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (10, 400)])
def test_complete_separation_is_not_certainty(n, m):
    """The lower end is where 1 lies 1.96 deviations of the exponential model away: put in, the equation holds."""
    low = mann_whitney(normal(n) + 99, normal(m)).low
    more = (n + m) / 2 - 1
    variance = low * (1 - low) * (1 + more * ((1 - low) / (2 - low) + low / (1 + low))) / (n * m)
    assert (1 - low) / math.sqrt(variance) == pytest.approx(1.959964, rel=1e-6)
    assert 0.4 < low < 0.95


@pytest.mark.parametrize(("auroc", "n", "m"), [(0.6, 30, 60), (0.9, 30, 60), (0.97, 50, 200)])
def test_the_interval_covers_the_truth(auroc, n, m):
    """Two Gaussians apart by √2 Φ⁻¹(AUROC): 95 % of intervals or more hold the true one, and they are not too wide."""
    apart = math.sqrt(2) * ndtri(auroc)
    found = [mann_whitney(normal(n, seed=2 * s) + apart, normal(m, seed=2 * s + 1)) for s in range(600)]
    assert np.mean([f.low <= auroc <= f.high for f in found]) > 0.93
    assert np.mean([f.error for f in found]) < 1.5 * np.std([f.value for f in found])
    assert np.mean([f.value for f in found]) == pytest.approx(auroc, abs=0.01)


@pytest.mark.parametrize("n", [5, 8, 20])
@pytest.mark.parametrize("apart", [1.0, 1.5, 2.5])
def test_the_interval_covers_the_truth_with_few_anomalies(apart, n):
    """By DeLong's variance alone, 78 % of intervals of five anomalies would."""
    auroc = ndtr(apart / math.sqrt(2))
    found = [mann_whitney(normal(n, seed=2 * s) + apart, normal(300, seed=2 * s + 1)) for s in range(500)]
    assert np.mean([f.low <= auroc <= f.high for f in found]) > 0.92


def test_two_gaussians_have_the_closed_form():
    found = mann_whitney(normal(20_000) + 1, normal(20_000, seed=1))
    assert found.value == pytest.approx(ndtr(1 / math.sqrt(2)), abs=0.005)


# --- anomaly detection ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounded", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize(("n", "m"), [(200, 30), (2, 2), (15, 90)])
def test_both_are_scikit_learns(n, m, rounded):
    ordinary, anomalies = 2 * normal(n), 2 * normal(m, seed=1) + 1
    if rounded:
        ordinary, anomalies = ordinary.round(), anomalies.round()
    found = anomaly_detection(ordinary, anomalies)
    values = found["auroc"]["value"], found["average_precision"]["value"]
    assert values == pytest.approx(against_sklearn(ordinary, anomalies), rel=1e-12)
    assert found["average_precision"]["interval"][0] <= values[1] <= found["average_precision"]["interval"][1]
    assert (found["auroc"]["n"], found["auroc"]["detail"]["anomalies"]) == (n + m, m)


def test_infinite_scores_rank_above_all_and_equal_each_other():
    """Examples of density 0: the ranks are those of a very large number in their place."""
    ordinary, anomalies = normal(40), normal(30, seed=1)
    ordinary[:3], anomalies[:9] = torch.inf, torch.inf
    found = anomaly_detection(ordinary, anomalies)
    expected = against_sklearn(ordinary.clamp(max=1e9), anomalies.clamp(max=1e9))
    assert (found["auroc"]["value"], found["average_precision"]["value"]) == pytest.approx(expected, rel=1e-12)


def test_higher_is_more_anomalous_and_separation_is_seen():
    ordinary, anomalies = normal(50), normal(50, seed=1) + 99
    right, wrong = anomaly_detection(ordinary, anomalies), anomaly_detection(anomalies, ordinary)
    assert (right["auroc"]["value"], right["average_precision"]["value"]) == (1, 1)
    assert wrong["auroc"]["value"] == 0
    assert wrong["average_precision"]["value"] < 0.4
    constant = anomaly_detection(torch.ones(30), torch.ones(10))
    assert (constant["auroc"]["value"], constant["average_precision"]["value"]) == (0.5, 0.25)


def test_the_interval_of_average_precision_is_a_stratified_bootstrap():
    """Against a loop that resamples examples and asks scikit-learn."""
    ordinary, anomalies = normal(120).round(decimals=1), (normal(40, seed=1) + 1).round(decimals=1)
    draws = np.random.default_rng(5)
    found = [
        against_sklearn(
            ordinary[torch.from_numpy(draws.integers(0, 120, 120))],
            anomalies[torch.from_numpy(draws.integers(0, 40, 40))],
        )[1]
        for _ in range(200)
    ]
    interval = anomaly_detection(ordinary, anomalies)["average_precision"]["interval"]
    assert interval == pytest.approx(np.quantile(found, (0.025, 0.975)), abs=0.03)
    width = interval[1] - interval[0]
    assert width == pytest.approx(np.subtract(*np.quantile(found, (0.975, 0.025))), rel=0.15)


def test_the_interval_of_average_precision_covers_the_truth():
    truth = anomaly_detection(normal(8_000, seed=98), normal(2_000, seed=99) + 1.5)["average_precision"]["value"]
    found = [
        anomaly_detection(normal(160, seed=2 * s), normal(40, seed=2 * s + 1) + 1.5)["average_precision"]["interval"]
        for s in range(150)
    ]
    assert np.mean([low <= truth <= high for low, high in found]) == pytest.approx(0.94, abs=0.05)


@pytest.mark.parametrize(("n", "m"), [(359, 6), (6, 6), (40, 300)])
def test_a_perfect_ranking_of_few_anomalies_is_not_certainty(n, m):
    """The bootstrap of separated classes is a point; the interval is as wide as few anomalies allow."""
    found = anomaly_detection(normal(n), normal(m, seed=1) + 99)
    auroc, precision = found["auroc"], found["average_precision"]
    assert (precision["value"], precision["interval"][1]) == (1, 1)
    # Many exponential scores with the AUROC at the lower end: an anomaly is higher with odds of k to 1.
    end = auroc["interval"][0]
    draws, many = np.random.default_rng(0), 200_000
    odd = round(many * m / (n + m))
    usual, high = draws.exponential(1, many - odd), draws.exponential(end / (1 - end), odd)
    truth = np.r_[np.zeros(len(usual)), np.ones(odd)]
    both = np.r_[usual, high]
    assert roc_auc_score(truth, both) == pytest.approx(end, abs=0.02)
    assert precision["interval"][0] == pytest.approx(average_precision_score(truth, both), abs=0.02)
    # Relative to the range above guessing, which is small if most examples are anomalies.
    assert precision["error"] / (n / (n + m)) > 0.5 * auroc["error"]
    wrong = anomaly_detection(normal(m, seed=1) + 99, normal(n))["average_precision"]
    assert wrong["interval"][0] <= wrong["value"] < wrong["interval"][1]
    assert anomaly_detection(normal(n), normal(m) + 99, resamples=0)["average_precision"]["interval"] == (1, 1)


def test_more_anomalies_make_a_perfect_ranking_more_certain():
    found = [anomaly_detection(normal(300), normal(m) + 99)["average_precision"]["error"] for m in (3, 6, 30, 300)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.02


def test_the_seed_moves_the_interval_alone():
    ordinary, anomalies = normal(60), normal(20, seed=1) + 1
    first, again, other = (anomaly_detection(ordinary, anomalies, seed=s) for s in (1, 1, 2))
    assert first == again
    assert (first["auroc"], first["average_precision"]["value"]) == (
        other["auroc"],
        other["average_precision"]["value"],
    )
    assert first["average_precision"] != other["average_precision"]
    assert anomaly_detection(ordinary.float(), anomalies.float())["auroc"]["n"] == 80


def test_too_few_scores_and_nan_are_refused():
    with pytest.raises(InputError, match=r"anomalies of shape \(1,\)"):
        anomaly_detection(normal(9), normal(1))
    with pytest.raises(InputError, match=r"ordinary of shape \(3, 3\)"):
        anomaly_detection(normal(3, 3), normal(9))
    with pytest.raises(InputError, match="2 of 9 values of ordinary are NaN"):
        anomaly_detection(normal(9).index_fill(0, torch.tensor([1, 4]), torch.nan), normal(9))


# --- anomalies made of ordinary examples ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
def test_columns_keep_their_values_and_lose_their_dependence(dtype):
    x = (20 * normal(3000, 1, 1, 1) + 4 * normal(3000, 1, 2, 3, seed=1) + 120).clamp(0, 255).round().to(dtype)
    assert np.corrcoef(x.flatten(1).T)[np.triu_indices(6, 1)].min() > 0.9
    broken = break_dependence(x)
    assert (broken.shape, broken.dtype) == (x.shape, dtype)
    assert torch.equal(broken.sort(0).values, x.sort(0).values)
    assert abs(np.corrcoef(broken.flatten(1).T)[np.triu_indices(6, 1)]).max() < 0.08
    assert torch.equal(broken, break_dependence(x))
    assert not torch.equal(broken, break_dependence(x, seed=1))


def test_a_score_that_sees_dependence_finds_them_and_one_that_does_not_is_blind():
    """Correlation ρ: the Gaussian's −log p separates as its closed form says, each column alone is at ½."""
    rho = 0.95
    x = normal(2000, 2) @ torch.linalg.cholesky(torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)).T
    broken = break_dependence(x)
    precision = torch.linalg.inv(torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64))
    joint = [((v @ precision) * v).sum(1) for v in (x, broken)]
    assert anomaly_detection(*joint)["auroc"]["value"] > 0.8
    alone = anomaly_detection(*(v.square().sum(1) for v in (x, broken)))
    assert alone["auroc"]["value"] < 0.6
    assert anomaly_detection(x[:, 0], broken[:, 0])["auroc"]["value"] == 0.5
    # (x₁ − x₂)² is N(0, 2(1 − ρ))² beside N(0, 2)²: P(|a| < |b|) of two Gaussians is (2/π) arctan of their ratio.
    apart = anomaly_detection(*((v[:, 0] - v[:, 1]).square() for v in (x, broken)))
    assert apart["auroc"]["value"] == pytest.approx(2 / math.pi * math.atan(1 / math.sqrt(1 - rho)), abs=0.02)


def test_one_example_cannot_be_broken():
    with pytest.raises(InputError, match="two or more"):
        break_dependence(normal(1, 4))
