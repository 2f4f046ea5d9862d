"""Places, ties and the sentences made of them, on contests whose outcome is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unsup.evaluate.ranking import places
from unsup.report.verdict import summary

N = 400


def run(kind=None, scores=None, *, fid=None, seconds=10.0, copies=0.01, nearer=(0.5, 0.45, 0.55), seed=0, log_z=0.0):
    likelihood = None
    if kind is not None:
        nats, error = -float(np.mean(scores)), math.hypot(float(np.std(scores, ddof=1)) / math.sqrt(len(scores)), log_z)
        likelihood = {"kind": kind, "nats": nats, "bits_per_dim": nats / 64 / math.log(2), "standard_error": error}
        likelihood |= {"n": len(scores), "samples": 1}
    quality = None
    if fid is not None:
        value, error = fid
        interval = [value - 1.96 * error, value + 1.96 * error]
        quality = {"scores": {"fid": {"value": value, "interval": interval, "floor": 0.5}}}
        quality |= {"held_out": 1000, "fake": 1000}
    near = {"value": nearer[0], "interval": nearer[1:]}
    return {
        "likelihood": likelihood,
        "quality": quality,
        "anomaly": None,
        "probe": None,
        "calibration": None,
        "sampling": {"per_second": 100.0, "n": 64},
        "implied_bytes": None,
        "memorisation": {"nearer": near, "copies": copies, "space": "", "n": 100},
        "train_seconds": seconds,
        "parameters": 7,
        "seed": seed,
    }


def contestant(name, *runs, status="done", reason=None):
    return {"name": name, "runs": list(runs), "status": status, "reason": reason}


def nothing():
    return {"stored": [], "raw_probe": None, "majority": None}


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(size=N)


def test_a_small_steady_lead_is_no_tie_though_examples_differ_much(noise):
    """The difference of two likelihoods is judged example by example: what makes an example hard is common to both."""
    hard = 10 * noise
    a, b = -100 + hard, -100.2 + hard + 0.01 * np.roll(noise, 1)
    found = places([contestant("a", run("exact", a)), contestant("b", run("exact", b))], {"a": [a], "b": [b]})
    assert found["likelihood"]["a"]["rank"] == 1
    assert found["likelihood"]["b"]["rank"] == 2
    assert found["likelihood"]["a"]["tied"] == []
    independent = -100.2 + 10 * np.random.default_rng(1).normal(size=N)
    found = places(
        [contestant("a", run("exact", a)), contestant("b", run("exact", independent))], {"a": [a], "b": [independent]}
    )
    assert found["likelihood"]["a"]["tied"] == ["b"]
    assert {p["rank"] for p in found["likelihood"].values()} == {1}


def test_the_noise_of_the_place_is_the_standard_error(noise):
    a = -100 + 3 * noise
    found = places([contestant("a", run("exact", a))], {"a": [a]})
    assert found["likelihood"]["a"]["noise"] == pytest.approx(a.std(ddof=1) / math.sqrt(N))
    assert found["likelihood"]["a"]["value"] == pytest.approx(-a.mean())


def test_the_error_of_log_z_counts_once_for_all_examples(noise):
    a = -100 + 3 * noise
    found = places([contestant("a", run("estimate", a, log_z=2.0))], {"a": [a]})
    assert found["likelihood"]["a"]["noise"] == pytest.approx(math.hypot(a.std(ddof=1) / math.sqrt(N), 2.0))


def test_the_spread_between_seeds_makes_ties(noise):
    a, b = [-100 + noise, -101 + noise], [-102 + noise, -103 + noise]
    steady = [contestant("a", run("exact", a[0])), contestant("b", run("exact", b[0]))]
    assert places(steady, {"a": a[:1], "b": b[:1]})["likelihood"]["b"]["rank"] == 2
    spread = [contestant(n, *(run("exact", s, seed=i) for i, s in enumerate(v))) for n, v in (("a", a), ("b", b))]
    found = places(spread, {"a": a, "b": b})["likelihood"]
    # Two seeds a nat apart tell little: the 95 % interval of their mean is ± 12.7 × ½ nat.
    assert found["a"]["tied"] == ["b"]
    own = np.mean(a, 0).std(ddof=1) / math.sqrt(N)
    assert found["a"]["noise"] == pytest.approx(math.hypot(own, 0.5), rel=1e-6)
    far = [b[0] - 10, b[1] - 10]  # 12 nats: beyond 12.7 × √½ nat
    spread = [contestant(n, *(run("exact", s, seed=i) for i, s in enumerate(v))) for n, v in (("a", a), ("b", far))]
    assert places(spread, {"a": a, "b": far})["likelihood"]["b"]["rank"] == 2


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_models_that_are_equal_but_for_their_seeds_are_seldom_told_apart(seeds):
    rng, wrong, trials = np.random.default_rng(seeds), 0, 300
    for _ in range(trials):
        both = [contestant(n, *(run(fid=(rng.normal(), 1e-6)) for _ in range(seeds))) for n in "ab"]
        wrong += places(both, {})["fid"]["a"]["tied"] == []
    assert wrong / trials < 0.08  # 5 % at most but for chance


def test_seeds_do_not_make_shared_test_examples_more():
    """Ten seeds that agree measure by the same examples: the noise of these stays."""
    found = places([contestant("a", *(run(fid=(5.0, 0.3)) for _ in range(10)))], {})["fid"]["a"]
    assert found["noise"] == pytest.approx(0.3)


def test_kinds_are_ranked_apart_and_never_against_each_other(noise):
    exact, bound = -100 + noise, -50 + noise
    found = places(
        [contestant("made", run("exact", exact)), contestant("vae", run("bound", bound))],
        {"made": [exact], "vae": [bound]},
    )["likelihood"]
    assert found["made"]["rank"] == found["vae"]["rank"] == 1
    assert found["made"]["tied"] == found["vae"]["tied"] == []
    assert (found["made"]["group"], found["vae"]["group"]) == ("exact", "bound")


def test_a_lower_bound_wins_for_certain_and_a_higher_one_leaves_it_open(noise):
    exact, low, high = -100 + noise, -90 + noise, -110 + noise

    def said(bound):
        both = [contestant("made", run("exact", exact)), contestant("vae", run("bound", bound))]
        return " ".join(summary(both, places(both, {"made": [exact], "vae": [bound]}), nothing(), "image"))

    assert said(low).startswith("vae models the data best: its bound is lower than every exact likelihood")
    assert "What it costs: vae has" in said(low)
    assert "models the data best" not in said(high)
    assert "An exact value and a bound are not ranked" in said(high)
    assert "What it costs: made has" in said(high)


def test_places_by_fid_tie_within_the_noise_and_better_ranks_first():
    three = [
        contestant("a", run(fid=(5.0, 0.1))),
        contestant("b", run(fid=(5.2, 0.1))),
        contestant("c", run(fid=(3.0, 0.1))),
    ]
    found = places(three, {})["fid"]
    assert [(n, p["rank"], p["tied"]) for n, p in found.items()] == [("c", 1, []), ("a", 2, ["b"]), ("b", 2, ["a"])]


def test_a_failure_and_its_reason_are_said_and_it_has_no_place(noise):
    a = -100 + noise
    both = [contestant("a", run("exact", a)), contestant("b", status="failed", reason="the loss is nan")]
    found = places(both, {"a": [a]})
    assert all("b" not in group for group in found.values())
    assert "b failed: the loss is nan." in summary(both, found, nothing(), "row")


def test_copies_are_said_and_an_honest_model_is_not_accused(noise):
    honest = [contestant("a", run(fid=(1.0, 0.1)))]
    assert "may copy" not in " ".join(summary(honest, places(honest, {}), nothing(), "row"))
    for trouble in ({"copies": 0.3}, {"nearer": (0.9, 0.88, 0.92)}):
        thief = [contestant("a", run(fid=(1.0, 0.1), **trouble))]
        assert "a may copy its training data" in " ".join(summary(thief, places(thief, {}), nothing(), "row"))
    few = [contestant("a", run(fid=(1.0, 0.1), copies=0.3))]
    few[0]["runs"][0]["quality"]["held_out"] = 40  # whose nearest hundredth is one example or none
    assert "may copy" not in " ".join(summary(few, places(few, {}), nothing(), "row"))


def test_implied_bytes_are_called_implied_and_held_against_the_smallest_file(noise):
    a = -100 + noise
    one = run("exact", a)
    one["implied_bytes"] = {"value": 18.0, "interval": (17.9, 18.1)}
    stored = [
        {"codec": "PNG", "bytes": 9000, "per_example": 90.0, "how": "one file an example"},
        {"codec": "xz", "bytes": 2500, "per_example": 25.0, "how": "one stream"},
    ]
    both = [contestant("a", one)]
    said = " ".join(summary(both, places(both, {"a": [a]}), nothing() | {"stored": stored}, "image"))
    assert "implies 18.0 bytes an image" in said
    assert "xz (one stream), takes 25.0: implied, since no such file was written" in said


def test_nothing_measured_is_said():
    assert summary([contestant("a", status="waiting")], {}, nothing(), "row") == [
        "No contestant has been measured yet."
    ]
