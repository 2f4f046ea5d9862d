"""Floors and intervals of measures of samples: perfect models, copies, and counted coverage."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch

import unsup
from unsup.evaluate.bench import Bench, Measuring
from unsup.evaluate.exam import Exam
from unsup.evaluate.measures import MEASURES, sample_measures
from unsup.evaluate.modes import class_coverage
from unsup.evaluate.neighbours import neighbour_measures, neighbours
from unsup.evaluate.ranking import Scores, places
from unsup.evaluate.records import Contestant, Figure

IN_BALLS = ("precision", "recall", "density", "coverage")


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def contest(**figures: dict[str, Figure]) -> list[Contestant]:
    found = [{"name": n, "status": "done", "runs": [{"figures": f, "notes": []}]} for n, f in figures.items()]
    return cast(list[Contestant], found)


def beyond(figures: dict[str, Figure]) -> set[str]:
    no_scores: Scores = {}
    return {key for key, found in places(contest(it=figures), no_scores).items() if found["it"].get("beyond")}


# --- floors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memorisation", [True, False])
@pytest.mark.parametrize("dims", [2, 10])
def test_perfect_models_are_not_too_good_though_held_out_examples_are_few(dims, memorisation):
    for seed in range(3):
        data = unsup.from_arrays(normal(1000, dims, seed=seed).float().numpy())
        exam = Exam(Bench(data, Measuring(samples=700)), normal(700, dims, seed=100 + seed).float())
        figures, _ = exam.figures([*sample_measures(data), *(["memorisation"] if memorisation else [])])
        held_out = len(exam.bench.held_out)
        assert held_out < 150
        assert figures["coverage"]["value"] > 1.5 * figures["coverage"]["floor"]  # by the counts alone
        for key in ("fid", "coverage", "density", "precision", "recall"):
            as_many = figures[key]["detail"]["at_floor"]
            assert as_many == pytest.approx(figures[key]["floor"], abs=0.15 + 0.5 * figures[key]["floor"]), key
        assert beyond(figures) == set()


def test_the_value_for_the_floor_is_that_of_the_first_samples():
    data = unsup.load_data("ring8", n=600)
    n = len(data.test)
    samples = data.train.x[:200]
    many, first = (
        Exam(Bench(data, Measuring(samples=200)), x).figures(sample_measures(data))[0] for x in (samples, samples[:n])
    )
    for key in sample_measures(data):
        own = MEASURES[key].run(Exam(Bench(data, Measuring(samples=200)), samples[:n]))["value"]
        assert many[key]["detail"]["at_floor"] == pytest.approx(own), key
        assert first[key]["detail"]["at_floor"] == first[key]["value"]
        assert first[key]["floor"] == many[key]["floor"]


def test_copies_of_the_training_set_are_too_good():
    data = unsup.from_arrays(normal(1000, 10, seed=0).float().numpy())
    figures, _ = Exam(Bench(data, Measuring(samples=800)), data.train.x[:800]).figures(
        [*sample_measures(data), "memorisation"]
    )
    assert figures["memorisation"]["interval"][0] > 0.9
    assert {"fid", "coverage"} <= beyond(figures)


# --- intervals --------------------------------------------------------------------------------------------------------


def coverage_of_intervals(repeats: int, n: int, m: int, dims: int) -> dict[str, float]:
    found = [
        neighbour_measures(0.8 * normal(n, dims, seed=2 * s), normal(m, dims, seed=2 * s + 1)) for s in range(repeats)
    ]
    true = {}
    for name in IN_BALLS:
        more = [
            neighbours(0.8 * normal(n, dims, seed=-2 * s - 2), normal(m, dims, seed=-2 * s - 1)).means[name]
            for s in range(repeats)
        ]
        true[name] = np.mean([*more, *(f[name].value for f in found)])
    return {name: float(np.mean([f[name].low <= true[name] <= f[name].high for f in found])) for name in IN_BALLS}


def test_intervals_of_neighbours_cover_the_expected_values():
    """Both sets are drawn anew; for a fixed real set, those of density would cover it in half of the cases."""
    assert min(coverage_of_intervals(60, 200, 200, 3).values()) >= 0.88


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m", "dims"), [(500, 500, 5), (300, 1000, 2), (1000, 300, 8)])
def test_intervals_of_neighbours_cover_the_expected_values_for_other_counts(n, m, dims):
    assert min(coverage_of_intervals(300, n, m, dims).values()) >= 0.9


def test_equal_models_tie_by_all_measures_of_neighbours():
    """Each is compared with the same data."""
    claimed = dict.fromkeys(IN_BALLS, 0)
    for s in range(40):
        real = normal(200, 4, seed=3 * s)
        both = {}
        for i in (1, 2):
            found = neighbour_measures(0.7 * normal(200, 4, seed=3 * s + i), real)
            both[f"model{i}"] = {
                k: {
                    "value": e.value,
                    "error": e.error,
                    "interval": (e.low, e.high),
                    "floor": None,
                    "n": 1,
                    "detail": {},
                }
                for k, e in found.items()
            }
        ranked = places(contest(**cast(dict[str, dict[str, Figure]], both)), {})
        for key in IN_BALLS:
            claimed[key] += not ranked[key]["model1"]["tied"]
    assert max(claimed.values()) <= 5


@pytest.mark.parametrize(("n", "modes"), [(60, 25), (2000, 25), (1500, 1000)])
def test_intervals_of_modes_cover_the_expected_values(n, modes):
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(modes, 3.0))
    found = [class_coverage(torch.from_numpy(rng.choice(modes, n, p=shares)), modes) for _ in range(200)]
    for name in ("modes", "modes_kl"):
        true = np.mean([f[name]["value"] for f in found])
        held = [f[name]["interval"][0] - 1e-9 <= true <= f[name]["interval"][1] + 1e-9 for f in found]
        if np.std([f[name]["value"] for f in found]) > 0.5 or name == "modes_kl":
            assert np.mean(held) >= 0.9, name
