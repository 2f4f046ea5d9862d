"""Calibration of a density: closed forms of Gaussians, scipy's statistic, and how often chance is exceeded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri
from scipy.stats import ks_2samp

from unsup.core.errors import InputError
from unsup.evaluate.calibration import calibration


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_density(x: torch.Tensor, std: float) -> torch.Tensor:
    return -0.5 * (x / std) ** 2


@pytest.mark.parametrize("rounded", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize(("n", "m"), [(300, 200), (2, 2), (10, 500)])
def test_the_error_is_scipys_distance(n, m, rounded):
    data, draws = 2 * normal(n) + 0.5, 2 * normal(m, seed=1)
    if rounded:
        data, draws = data.round(), draws.round()
    found = calibration(data, draws)
    assert found["value"] == pytest.approx(ks_2samp(data.numpy(), draws.numpy(), method="asymp").statistic, rel=1e-12)
    assert calibration(draws, data)["interval"] == found["interval"]
    assert found["n"] == n


@pytest.mark.parametrize("std", [0.5, 1.0, 3.0], ids=["too narrow", "right", "too wide"])
def test_shares_of_a_gaussian_model_are_its_closed_form(std):
    """The region of level α is |x| ≤ σ z with z = Φ⁻¹((1 + α)/2); data N(0, 1) fall in it with chance 2Φ(σz) − 1."""
    data, draws = normal(40_000), std * normal(40_000, seed=1)
    found = calibration(*(log_density(v, std) for v in (data, draws)))
    levels = np.array([level for level, _ in found["detail"]["curve"]])
    assert levels == pytest.approx(np.linspace(0, 1, 21))
    expected = 2 * ndtr(std * ndtri((1 + levels[:-1]) / 2)) - 1
    shares = np.array([share for _, share in found["detail"]["curve"]])
    assert shares[:-1] == pytest.approx(expected, abs=0.012)
    fine = np.linspace(0, 1, 2001)[:-1]
    distance = np.abs(2 * ndtr(std * ndtri((1 + fine) / 2)) - 1 - fine).max()
    assert found["value"] == pytest.approx(distance, abs=0.012)
    if std == 1:
        assert found["value"] < found["detail"]["chance"]
        assert found["interval"][0] == 0
    else:
        assert (shares[10] > 0.5) == (std > 1)
        assert found["interval"][0] > found["detail"]["chance"]


def test_the_curve_is_the_definition():
    """The region of level α ends at the ⌈αM⌉-th likeliest draw."""
    data, draws = normal(37), 1.5 * normal(40, seed=1)
    ordered = sorted(draws.tolist(), reverse=True)
    for level, share in calibration(data, draws)["detail"]["curve"][1:]:
        limit = ordered[round(level * 40) - 1]
        assert share == pytest.approx(sum(v >= limit for v in data.tolist()) / 37)


def test_ties_are_shared_out():
    """Two atoms: a calibrated model of a discrete law is on the diagonal."""
    draws = torch.tensor([0.0] * 60 + [1.0] * 40)
    same = calibration(draws.repeat(3), draws)
    assert same["value"] == 0
    assert [share for _, share in same["detail"]["curve"]] == pytest.approx(
        [level for level, _ in same["detail"]["curve"]]
    )
    fewer = calibration(torch.tensor([0.0] * 80 + [1.0] * 20), draws)
    assert fewer["value"] == pytest.approx(0.2)
    assert fewer["detail"]["curve"][8] == pytest.approx([0.4, 0.2])  # level 0.4 is the likelier atom


def test_examples_of_density_zero_are_outside_every_region():
    draws = normal(100)
    data = torch.cat([draws, torch.full((100,), -torch.inf)])
    found = calibration(data, draws)
    assert found["value"] == pytest.approx(0.5)
    assert found["detail"]["curve"][-1] == [1.0, 0.5]


@pytest.mark.parametrize(("n", "m"), [(30, 30), (100, 400)])
def test_a_calibrated_model_exceeds_chance_once_in_twenty(n, m):
    found = [calibration(normal(n, seed=2 * s), normal(m, seed=2 * s + 1)) for s in range(600)]
    assert np.mean([f["value"] > f["detail"]["chance"] for f in found]) == pytest.approx(0.045, abs=0.025)
    assert all((f["interval"][0] == 0) == (f["value"] <= f["detail"]["chance"]) for f in found)


@pytest.mark.parametrize("shift", [0.3, 1.5])
def test_the_interval_holds_the_truth(shift):
    truth = 2 * ndtr(shift / 2) - 1
    found = [calibration(normal(80, seed=2 * s) + shift, normal(120, seed=2 * s + 1))["interval"] for s in range(400)]
    assert np.mean([low <= truth <= high for low, high in found]) >= 0.95


def test_too_few_and_nan_are_refused():
    with pytest.raises(InputError, match=r"of_samples of shape \(1,\)"):
        calibration(normal(5), normal(1))
    with pytest.raises(InputError, match="1 of 5 values of of_data are NaN"):
        calibration(normal(5).index_fill(0, torch.tensor([1]), torch.nan), normal(5))
