"""The table of optimizers: one step by hand, what the settings mean, and resuming bit for bit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from toys import (
    Killed,
    Toy,
    TwoHeads,
    binary_data,
    real_data,
    registered,  # noqa: F401 - a fixture for all
)

from unsup.core.model import Objective
from unsup.core.storage import load_tensors
from unsup.train.optimizers import LARS, OPTIMIZERS, OptimizerName, Rates, build_optimizer
from unsup.train.players import players_of
from unsup.train.runs import Run
from unsup.train.settings import Settings
from unsup.train.trainer import fit


def test_the_table_has_every_name_and_paper():
    assert set(OPTIMIZERS) == set(get_args(OptimizerName))
    assert all(row.paper for row in OPTIMIZERS.values())


def test_two_steps_of_lars_by_hand():
    w = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    b = torch.nn.Parameter(torch.tensor([0.0, 0.0], dtype=torch.float64))
    optimizer = LARS([w, b], 0.5, momentum=0.9, weight_decay=0.2, trust=0.01)
    w.grad, b.grad = torch.tensor([0.6, -0.8], dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    optimizer.step()
    # ‖w‖ = 5, ‖g‖ = 1: λ = 0.01 · 5 / (1 + 0.2 · 5) = 0.025; g + βw = (1.2, 0)
    v = [0.5 * 0.025 * 1.2, 0.5 * 0.025 * 0.0]
    torch.testing.assert_close(w.detach(), torch.tensor([3 - v[0], 4 - v[1]], dtype=torch.float64))
    torch.testing.assert_close(b.detach(), torch.tensor([-0.5, -1.0], dtype=torch.float64))  # λ = 1 at ‖b‖ = 0
    before = w.detach().tolist()
    for group in optimizer.param_groups:
        group["lr"] = 0.1  # v keeps what the old rate put there
    w.grad, b.grad = torch.tensor([2.0, 1.0], dtype=torch.float64), None
    optimizer.step()
    norm, of_g = math.hypot(*before), math.hypot(2.0, 1.0)
    trust = 0.01 * norm / (of_g + 0.2 * norm)
    expected = [x - (0.9 * u + 0.1 * trust * (g + 0.2 * x)) for x, u, g in zip(before, v, [2.0, 1.0], strict=True)]
    torch.testing.assert_close(w.detach(), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(b.detach(), torch.tensor([-0.5, -1.0], dtype=torch.float64))


# What one step from w = (1, −2) with gradient (0.5, 0.1) makes of it at rate 0.1, betas (0.9, 0.99), eps 0.1.
BY_HAND = {
    # m̂ = g, v̂ = g²: g / (|g| + ε)
    "adam": [1 - 0.1 * 0.5 / 0.6, -2 - 0.1 * 0.1 / 0.2],
    # v = 0.01 g²: g / (0.1 |g| + ε)
    "rmsprop": [1 - 0.1 * 0.5 / 0.15, -2 - 0.1 * 0.1 / 0.11],
    "sgd": [1 - 0.05, -2 - 0.01],
    # Σ g² = g²
    "adagrad": [1 - 0.1 * 0.5 / 0.6, -2 - 0.1 * 0.1 / 0.2],
    # u = max(0, |g| + ε), m = 0.1 g with rate lr / (1 − 0.9)
    "adamax": [1 - 0.1 * 0.5 / 0.6, -2 - 0.1 * 0.1 / 0.2],
    # λ = 0.001 ‖w‖ / ‖g‖
    "lars": [1 - 1e-4 * math.sqrt(5 / 0.26) * 0.5, -2 - 1e-4 * math.sqrt(5 / 0.26) * 0.1],
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_step_by_hand(name):
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = build_optimizer(name, [w], [], Rates(0.1, (0.9, 0.99), 0.1, 0.0))
    w.grad = torch.tensor([0.5, 0.1], dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.tensor(BY_HAND[name], dtype=torch.float64), atol=1e-12, rtol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("joins", [False, True])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, name, joins):
    data = real_data()
    settings = {"steps": 9, "optimizer": name, "batch_size": 7, "weight_decay": 0.01, "ema": 0.5, "progress": "off"}

    def model(kill_at: int = 0) -> TwoHeads:
        torch.manual_seed(0)
        found = TwoHeads(data.event, joins=joins).double()
        if kill_at:
            original = found.after_step

            def after_step(time):
                original(time)
                if time.step == kill_at:
                    raise Killed

            found.after_step = after_step
        return found

    fit(model(), data, out=tmp_path / "whole", checkpoint_seconds=0, **settings)
    with pytest.raises(Killed):
        fit(model(5), data, out=tmp_path / "killed", checkpoint_seconds=0, **settings)
    fit(model(), data, out=tmp_path / "killed", checkpoint_seconds=0, resume=True, **settings)
    whole, one = load_tensors(Run(tmp_path / "whole").checkpoint("last"))
    again, other = load_tensors(Run(tmp_path / "killed").checkpoint("last"))
    assert any(k.startswith("optimizer.a.") for k in whole)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[k], again[k]) for k in whole)
    assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_an_optimizer_that_counts_in_python_goes_on_too(monkeypatch):
    """States that are no tensors are in the record of a checkpoint."""
    model = Toy(binary_data().event)
    (player,) = players_of(model, Settings(optimizer="lars"))
    (p,) = player.parameters
    player.optimizer.state[p].update(momentum=torch.ones_like(p), step=3)
    states = dict(player.states())
    assert states["0.step"] == 3
    (other,) = players_of(model, Settings(optimizer="lars"))
    other.restore(states)
    assert other.optimizer.state[p]["step"] == 3
    assert torch.equal(other.optimizer.state[p]["momentum"], torch.ones_like(p))


def test_a_player_may_have_an_optimizer_of_its_own():
    class Mixed(TwoHeads):
        def objectives(self):
            first, second = super().objectives()
            own = {"optimizer": "adagrad", "lr": 0.3, "eps": 1e-3}
            return (first, Objective("b", second.loss, second.parameters, optimizer=own))

    found = players_of(Mixed(real_data().event), Settings(optimizer="adam", lr=0.1))
    assert [type(p.optimizer).__name__ for p in found] == ["AdamW", "Adagrad"]
    assert [p.lr for p in found] == [0.1, 0.3]
    assert found[1].optimizer.param_groups[0]["eps"] == 1e-3


def test_the_pace_of_a_player_multiplies_the_learning_rate():
    class Paced(TwoHeads):
        def objectives(self):
            first, second = super().objectives()
            own = replace(second, optimizer={"lr": 0.3}, pace=0.5)
            return (replace(first, pace=0.25), own)

    assert [p.lr for p in players_of(Paced(real_data().event), Settings(lr=0.1))] == [0.025, 0.15]
