"""Measures of simulated series against loops, other libraries and cases with a known answer."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from unsup.core.errors import InputError
from unsup.evaluate.series import autocorrelation, autocorrelation_error, marginal_distance, two_sample_auroc

ROOT = Path(__file__).parents[2]


def test_the_page_is_that_of_the_records() -> None:
    specification = importlib.util.spec_from_file_location("series_benchmark", ROOT / "benchmarks" / "series.py")
    assert specification is not None
    assert specification.loader is not None
    benchmark = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = benchmark
    specification.loader.exec_module(benchmark)
    records = list(map(json.loads, (ROOT / benchmark.RECORDS).read_text().splitlines()))
    assert len({(r["model"], r["series"]) for r in records}) == len(records)
    assert (ROOT / benchmark.PAGE).read_text() == benchmark.page(records)


def random_windows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def autoregressive(n: int, steps: int, rho: float, seed: int) -> torch.Tensor:
    """Windows of a stationary process x_t = ρ x_t−1 + noise, of variance 1."""
    noise = random_windows(n, steps, seed=seed)
    x = [noise[:, 0]]
    for t in range(1, steps):
        x.append(rho * x[-1] + (1 - rho**2) ** 0.5 * noise[:, t])
    return torch.stack(x, 1)


def test_autocorrelation_is_that_of_a_loop() -> None:
    x = random_windows(3, 6, 2) + 4
    mean, variance = x.mean((0, 1)), x.var((0, 1), unbiased=False)
    for lag in (1, 4):
        total, count = torch.zeros(2, dtype=torch.float64), 0
        for window in x:
            for t in range(6 - lag):
                total += (window[t] - mean) * (window[t + lag] - mean)
                count += 1
        np.testing.assert_allclose(autocorrelation(x, 4)[lag - 1], total / count / variance, rtol=1e-12)


def test_autocorrelation_of_an_autoregressive_process_is_a_power() -> None:
    found = autocorrelation(autoregressive(4000, 20, 0.8, 1), 6)[:, 0]
    np.testing.assert_allclose(found, 0.8 ** np.arange(1, 7), atol=0.02)


def test_a_constant_has_no_autocorrelation() -> None:
    assert (autocorrelation(torch.ones(2, 5), 3) == 0).all()


def test_the_error_is_the_mean_over_lags_and_columns() -> None:
    x, y = random_windows(5, 8, 2), random_windows(7, 8, 2, seed=1)
    expected = np.abs(autocorrelation(x, 4) - autocorrelation(y, 4)).mean()
    assert autocorrelation_error(x, y) == pytest.approx(expected) != 0
    assert autocorrelation_error(x, y, lags=2) == pytest.approx(
        np.abs(autocorrelation(x, 2) - autocorrelation(y, 2)).mean()
    )


def test_the_order_in_time_matters_to_autocorrelations_only() -> None:
    x = autoregressive(200, 30, 0.9, 2)
    shuffled = x[:, torch.randperm(30, generator=torch.Generator().manual_seed(0))]
    assert marginal_distance(shuffled, x) == pytest.approx(0, abs=1e-12)
    assert autocorrelation_error(shuffled, x) > 0.1
    assert two_sample_auroc(shuffled, x) > 0.9


def test_the_distance_of_marginals_is_that_of_scipy_for_each_column() -> None:
    x, y = random_windows(6, 5, 2), 3 * random_windows(9, 5, 2, seed=1) + 1
    each = [
        stats.wasserstein_distance(x[:, :, c].flatten(), y[:, :, c].flatten()) / y[:, :, c].std(unbiased=False)
        for c in range(2)
    ]
    assert marginal_distance(x, y) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("scale", [1e-3, 1e5])
def test_units_do_not_matter(scale: float) -> None:
    x, y = random_windows(20, 6), random_windows(20, 6, seed=1) + 0.5
    assert marginal_distance(x * scale, y * scale) == pytest.approx(marginal_distance(x, y))
    assert autocorrelation_error(x * scale, y * scale) == pytest.approx(autocorrelation_error(x, y))


def test_the_classifier_finds_nothing_where_there_is_nothing() -> None:
    found = [
        two_sample_auroc(autoregressive(100, 10, 0.5, 2 * s), autoregressive(100, 10, 0.5, 2 * s + 1)) for s in range(4)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_overlapping_windows_are_not_recognised_by_their_neighbours() -> None:
    """Every window is followed by three copies of itself, which a forest knows unless they are left out."""
    own, other = (random_windows(60, 12, seed=s).repeat_interleave(4, 0) for s in (0, 1))
    assert two_sample_auroc(own, other) > 0.9
    assert two_sample_auroc(own, other, overlap=3) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("overlap", [0, 1, 4])
def test_no_fitted_window_is_near_a_tested_one(overlap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[list[set[float]]] = []

    class Watched:
        def __init__(self, *arguments: object, **settings: object) -> None: ...

        def fit(self, x: np.ndarray, y: np.ndarray) -> Watched:
            fits.append([set(x[y == label, 0]) for label in (1, 0)])
            return self

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            for known in fits[-1]:
                for value in x[:, 0]:
                    assert value // 1000 != next(iter(known)) // 1000 or min(abs(value - k) for k in known) > overlap
            return np.ones((len(x), 2))

    monkeypatch.setattr("unsup.evaluate.series.RandomForestClassifier", Watched)
    numbers = torch.arange(40.0)[:, None].expand(40, 2)
    assert two_sample_auroc(numbers, numbers + 1000, overlap=overlap) == 0.5
    assert len(fits) == 5
    assert all(len(known) >= 40 // 5 for one in fits for known in one)


def test_what_cannot_be_compared_is_refused() -> None:
    x = random_windows(6, 5)
    with pytest.raises(InputError, match="expected one shape"):
        marginal_distance(x, x[:, :4])
    with pytest.raises(InputError, match="NaN or infinite"):
        autocorrelation(x.log(), 2)
    with pytest.raises(InputError, match="expected 1 to 4"):
        autocorrelation(x, 5)
    with pytest.raises(InputError, match="windows of each kind"):
        two_sample_auroc(x, x[:4])
    with pytest.raises(InputError, match="constant"):
        marginal_distance(x, torch.ones(6, 5))
    with pytest.raises(InputError, match="with values"):
        autocorrelation(x[:0], 2)
