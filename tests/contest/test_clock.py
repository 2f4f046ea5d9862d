"""A fair clock: nobody takes much more than its share, however slow its steps, scores and samples are.

Time passes only where a model works, so that nothing here depends on the machine.
"""

from __future__ import annotations

import json

import pytest
import slow
import torch

import unsup
from unsup.contest.contest import Contest
from unsup.contest.plan import TRAINING_SHARE, Asked, contestants
from unsup.core import rows
from unsup.core.errors import TrainingError

pytestmark = pytest.mark.usefixtures("exact_pictures")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The slow models are in the registry, and their clock is everybody's."""
    for row in slow.rows().values():
        unsup.register(row)
    monkeypatch.setattr("time.monotonic", slow.CLOCK)
    yield
    for name in slow.rows():
        del rows._ROWS[name]


@pytest.fixture
def fitted(tmp_path):
    def fit(name, seconds):
        data = unsup.load_data("moons", n=2000)
        model = unsup.create(name, data.event)
        started = slow.CLOCK.now
        found = unsup.fit(model, data, out=tmp_path / name, minutes=seconds / 60, progress="off", validation_limit=1000)
        return found, slow.CLOCK.now - started

    return fit


@pytest.mark.parametrize("name", ["slow", "slowsteps", "veryslowsteps", "slowscores", "slowdraws"])
@pytest.mark.parametrize("budget", [8.0, 40.0])
def test_a_time_budget_holds_for_slow_steps_scores_and_samples(fitted, name, budget):
    found, took = fitted(name, budget)
    assert found.steps >= 1
    assert found.run.finished
    assert found.validation is not None
    assert took <= 1.25 * budget
    assert not any("ended" in e for e in found.events)  # as planned, and not because it was late


def test_a_step_longer_than_the_budget_ends_with_what_to_do(fitted):
    before = slow.CLOCK.now
    with pytest.raises(
        TrainingError, match=r"a single step takes much longer than the 8 s of the time budget; give more min"
    ):
        fitted("endlessstep", 8.0)
    assert slow.CLOCK.now - before <= 3.2 * 8.0


@pytest.mark.parametrize(("name", "fast"), [("histogram", 0), ("bernoulli-mixture", 1)])
def test_counting_keeps_to_the_time_between_blocks_of_a_pass(tmp_path, monkeypatch, name, fast):
    """In the first pass, and in a later one that is slower than the first."""
    x = torch.randint(2, (20_000, 20), generator=torch.Generator().manual_seed(0))
    data = unsup.from_arrays(x.numpy())
    fast *= -(-len(data.train) // 2000)  # blocks of a pass
    model = unsup.create(name, data.event, seed=0)
    statistics, blocks, kept = type(model).statistics, [], []

    def slowly(self, batch, *, generator=None):
        slow.CLOCK.now += 2.0 if len(blocks) >= fast else 0.1
        blocks.append(len(batch))
        kept.append({k: v.clone() for k, v in self.state_dict().items()})
        return statistics(self, batch, generator=generator)

    monkeypatch.setattr(type(model), "statistics", slowly)
    started = slow.CLOCK.now
    found = unsup.fit(model, data, out=tmp_path / "r", minutes=7 / 60, progress="off")
    assert slow.CLOCK.now - started <= 7 + 2.0
    assert found.run.finished
    assert found.steps == 1
    assert len(blocks) == fast + 4
    said = "the last pass counted 8,000 of"
    assert any(said in e.get("ended", "") for e in found.run.events())
    if fast:  # those of the last whole pass
        assert all(torch.equal(v, kept[-1][k]) for k, v in model.state_dict().items())
    assert bool(model.log_prob(data.test.x).isfinite().all())


def test_fast_steps_use_the_whole_budget(fitted):
    found, took = fitted("slow", 60.0)
    assert took == pytest.approx(60.0, rel=0.1)
    assert found.steps > 500


def test_fewer_examples_are_watched_where_validation_is_slow_and_a_resumed_run_watches_the_same(fitted, tmp_path):
    found, _ = fitted("slowscores", 60.0)
    _, record = found.run.load_checkpoint("last")
    assert 16 <= record["watched"] < 200
    again = unsup.fit(
        unsup.create("slowscores", unsup.load_data("moons", n=2000).event),
        unsup.load_data("moons", n=2000),
        out=tmp_path / "slowscores",
        resume=True,
        minutes=1.0,
        progress="off",
        validation_limit=1000,
    )
    assert again.steps == found.steps


def contest(folder, minutes, models):
    asked = Asked(data="moons", data_options={"n": 2000}, minutes=minutes, models=models)
    started = slow.CLOCK.now
    results = Contest(folder, asked).run()
    return results, slow.CLOCK.now - started


def test_a_contest_of_slow_models_ends_in_time(tmp_path):
    models = ("slow", "slowsteps", "veryslowsteps", "slowscores", "slowdraws")
    results, took = contest(tmp_path / "r", 2.0, models)
    share = 60 * 2.0 * TRAINING_SHARE / len(models)
    assert took <= 1.25 * 120
    for c in results["contestants"]:
        assert c["status"] == "done", (c["name"], c["reason"])
        assert c["runs"][0]["train_seconds"] <= 1.5 * share
    assert not any("took" in line for line in results["summary"])
    draws = next(c for c in results["contestants"] if c["name"] == "slowdraws")["runs"][0]
    assert "likelihood" in draws["figures"]  # what is fast is measured all the same
    assert "auroc" in draws["figures"]
    assert "fid" not in draws["figures"]
    assert "samples" in draws["missing"]["fid"] or "draws" in draws["missing"]["fid"]
    scores = next(c for c in results["contestants"] if c["name"] == "slowscores")["runs"][0]
    assert scores["measure_seconds"] <= 60 * 2.0 * (1 - TRAINING_SHARE)


def test_a_contestant_with_an_endless_step_fails_alone_and_soon(tmp_path):
    results, took = contest(tmp_path / "r", 1.0, ("endlessstep", "slow"))
    found = {c["name"]: c for c in results["contestants"]}
    assert (found["endlessstep"]["status"], found["slow"]["status"]) == ("failed", "done")
    assert "a single step takes much longer than" in found["endlessstep"]["reason"]
    assert took <= 60 * (TRAINING_SHARE * (3.2 + 1) / 2 + 1 - TRAINING_SHARE)


def test_a_contest_that_overruns_says_so_with_the_figures(tmp_path, monkeypatch):
    prepare = Contest._prepare_bench

    def late(self, run):
        slow.CLOCK.now += 50.0
        prepare(self, run)

    monkeypatch.setattr(Contest, "_prepare_bench", late)
    results, took = contest(tmp_path / "r", 1.0, ("slow", "slowsteps"))
    assert took > 1.25 * 60
    line = next(line for line in results["summary"] if "took" in line)
    assert line.startswith("The comparison took 1.9 minutes")
    assert "instead of 1 minute: " in line
    assert line in json.loads((tmp_path / "r/results.json").read_text())["summary"]
    assert "The comparison took 1.9" in (tmp_path / "r/index.html").read_text()


def test_models_from_outside_take_part_by_their_advice():
    event = unsup.load_data("moons", n=300).event
    entries, left_out = contestants(event, 1000)
    names = [e.model for e in entries]
    assert {"slow", "slowsteps"} <= set(names)
    assert left_out["declines"] == "is too slow on purpose"
    assert "named" not in names
    assert "named" not in left_out
    asked, _ = contestants(event, 1000, ("named", "declines"))
    assert [e.model for e in asked] == ["named", "declines"]
