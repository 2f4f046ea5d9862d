"""Who moves what: each parameter by the gradient of the losses it belongs to, as finite differences see it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import (
    Outer,
    Toy,
    TwoHeads,
    binary_data,
    real_data,
    registered,  # noqa: F401 - a fixture for all
)

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event
from unsup.core.model import Model, Objective
from unsup.core.storage import load_tensors
from unsup.train.players import players_of
from unsup.train.runs import Run
from unsup.train.settings import Settings
from unsup.train.trainer import fit

RATE = 0.05
PLAIN = {"optimizer": "sgd", "betas": (0.0, 0.9), "lr": RATE, "schedule": "constant", "progress": "off"}


def difference(loss, p: nn.Parameter, step: float = 1e-6) -> torch.Tensor:
    """d(mean loss)/dp by central differences."""
    found = torch.zeros_like(p)
    with torch.no_grad():
        for i in range(p.numel()):
            place = p.view(-1)[i : i + 1]
            kept = place.clone()
            values = []
            for sign in (1, -1):
                place.copy_(kept + sign * step)
                values.append(float(loss()))
            place.copy_(kept)
            found.view(-1)[i] = (values[0] - values[1]) / (2 * step)
    return found


def two_heads(joins: bool) -> TwoHeads:
    torch.manual_seed(0)
    return TwoHeads(Event((2,), REAL, precision="float64"), joins=joins).double()


def step(model: Model, data, **settings) -> Model:
    fit(model, data, steps=1, batch_size=8, validator="newest", **{**PLAIN, **settings})
    return model


def test_players_that_join_move_by_their_own_losses_at_the_same_parameters():
    data, model, start = real_data(), two_heads(True), two_heads(True)
    step(model, data)
    x = model.seen[0]
    assert torch.equal(x, model.seen[1])  # one batch

    def loss(name: str) -> torch.Tensor:
        batch = Batch(x)
        a = start.loss_a(batch)["loss"].mean()
        return a if name == "a" else start.loss_b(batch)["loss"].mean()

    for name, p in start.named_parameters():
        owners = {"trunk": "ab", "head_a": "a", "head_b": "b"}[name.split(".")[0]]
        moved = -RATE * sum(difference(lambda owner=owner: loss(owner), p) for owner in owners)
        torch.testing.assert_close(dict(model.named_parameters())[name] - p, moved, atol=1e-9, rtol=1e-6, msg=name)


def test_players_in_turn_move_by_their_own_losses_each_where_the_others_left_it():
    data, model, start = real_data(), two_heads(False), two_heads(False)
    step(model, data)
    first, second = model.seen
    assert not torch.equal(first, second)  # each its own batch
    for objective, x in (("a", first), ("b", second)):
        moved = {}
        for name, p in start.named_parameters():
            mine = name.split(".")[0] in ("trunk", f"head_{objective}")
            play = getattr(start, f"loss_{objective}")
            moved[name] = difference(lambda play=play, x=x: play(Batch(x))["loss"].mean(), p) if mine else 0.0
        with torch.no_grad():
            for name, p in start.named_parameters():
                p -= RATE * moved[name]
    for name, p in start.named_parameters():
        torch.testing.assert_close(dict(model.named_parameters())[name], p, atol=1e-8, rtol=1e-6, msg=name)


def test_a_joined_player_plays_on_the_last_of_the_repeats_and_only_when_the_first_plays():
    seen: dict[str, list[torch.Tensor]] = {"critic": [], "generator": []}

    class Game(TwoHeads):
        def objectives(self):
            def play(name, own):
                def loss(batch, *, generator=None):
                    seen[name].append(batch.x)
                    return {"loss": own.weight.square().sum() + batch.x.sum(1)}

                return loss

            critic = Objective(
                "critic", play("critic", self.head_a), tuple(self.head_a.parameters()), repeats=3, every=2
            )
            generator = play("generator", self.head_b)
            return (critic, Objective("generator", generator, tuple(self.head_b.parameters()), joins=True))

    data = real_data()
    fit(Game(data.event).double(), data, steps=4, batch_size=8, **PLAIN)
    assert len(seen["critic"]) == 6
    assert len(seen["generator"]) == 2
    assert torch.equal(seen["critic"][2], seen["generator"][0])
    assert torch.equal(seen["critic"][5], seen["generator"][1])
    assert not torch.equal(seen["critic"][1], seen["critic"][2])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_frozen_parameters_are_nobodys(tmp_path, optimizer):
    data = real_data()
    model = Outer(data.event).double()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fit(
        model,
        data,
        out=tmp_path / "r",
        steps=3,
        validator="newest",
        **{**PLAIN, "optimizer": optimizer},
        weight_decay=0.1,
    )
    assert not any(p.requires_grad for p in model.fixed.parameters())
    assert all(p.grad is None for p in model.fixed.parameters())
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"learned.weight", "learned.bias"}
    tensors, _ = load_tensors(Run(tmp_path / "r").checkpoint("last"))
    numbers = {name.split(".")[2] for name in tensors if name.startswith("optimizer.")}
    assert numbers <= {"0", "1"}  # of the two that are not frozen
    assert not any(name.startswith("optimizer.fixed") for name in tensors)  # it has nothing to move


def test_nothing_to_train_is_said():
    data = real_data()
    model = Outer(data.event).double().requires_grad_(False)
    with pytest.raises(InputError, match="nothing to train"):
        fit(model, data, steps=1, progress="off")


def test_weight_decay_leaves_biases_and_gains_alone():
    data = real_data()
    model = two_heads(True)
    for player in players_of(model, Settings(weight_decay=0.5)):
        decays = {id(p): group["weight_decay"] for group in player.optimizer.param_groups for p in group["params"]}
        assert len(decays) == 4
        for name, p in model.named_parameters():
            if id(p) in decays:
                assert decays[id(p)] == (0.0 if name.endswith("bias") else 0.5)
    # A step of plain gradient descent whose loss is 0 is decay alone.
    still = TwoHeads(data.event, joins=True, scale=0.0).double()
    start = {k: v.clone() for k, v in still.named_parameters()}
    step(still, data, weight_decay=0.5)
    torch.testing.assert_close(still.head_b.weight, start["head_b.weight"] * (1 - RATE * 0.5))
    assert torch.equal(still.head_b.bias, start["head_b.bias"])


def test_a_model_says_what_does_not_decay():
    class Spared(Toy):
        def undecayed(self):
            return (self.logits,)

    model = Spared(binary_data().event)
    (player,) = players_of(model, Settings(weight_decay=0.1))
    assert [group["weight_decay"] for group in player.optimizer.param_groups] == [0.0]


@pytest.mark.parametrize(
    ("chosen", "told"),
    [({"rate": 1.0}, "sets an unknown option 'rate'"), ({"optimizer": "adem"}, "should be one of 'adam'")],
)
def test_what_an_objective_cannot_set_is_refused(chosen, told):
    class Odd(Toy):
        def objectives(self):
            return (Objective("one", self.loss, tuple(self.parameters()), optimizer=chosen),)

    with pytest.raises(InputError, match=told):
        players_of(Odd(binary_data().event), Settings())


def test_nobody_joins_the_first_player_or_repeats():
    class Alone(Toy):
        def objectives(self):
            return (Objective("one", self.loss, tuple(self.parameters()), joins=True),)

    with pytest.raises(InputError, match="joins=True is used once"):
        players_of(Alone(binary_data().event), Settings())
