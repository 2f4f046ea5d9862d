"""The objectives of a model, each with its optimizer and the gradients of its own loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unsup.core.config import check_value
from unsup.core.errors import InputError, nearest
from unsup.core.model import Model, Objective, Terms, playing_at
from unsup.train import parallel
from unsup.train.optimizers import OptimizerName, Rates, build_optimizer
from unsup.train.settings import Settings

_RATES = ("optimizer", "lr", "betas", "eps", "weight_decay")


@dataclass(eq=False)
class Player:
    """One objective during training.

    Attributes:
        objective: the objective that it minimises.
        parameters: parameters of the objective that are not frozen.
        optimizer: updates these parameters only.
        loss: loss of the objective, perhaps compiled.
        lr: peak learning rate.
    """

    objective: Objective
    parameters: tuple[nn.Parameter, ...]
    optimizer: Optimizer
    loss: Callable[..., Terms]
    lr: float

    @property
    def name(self) -> str:
        return self.objective.name

    def states(self) -> Iterator[tuple[str, Any]]:
        """The state of the optimizer, by ``parameter.name``: tensors and numbers."""
        for i, p in enumerate(self.parameters):
            for name, value in self.optimizer.state.get(p, {}).items():
                if value is not None:  # SGD has no buffer without momentum
                    yield f"{i}.{name}", value

    def restore(self, states: Mapping[str, Any]) -> None:
        """Restore the result of `states`."""
        place = {id(p): i for i, p in enumerate(p for group in self.optimizer.param_groups for p in group["params"])}
        found: dict[int, dict[str, Any]] = {}
        for key, value in states.items():
            number, _, name = key.partition(".")
            own = self.parameters[int(number)]
            if isinstance(value, Tensor) and value.ndim:
                # Fused optimizers assume that it has the same memory layout as the parameter.
                value = torch.empty_like(own, dtype=value.dtype).copy_(parallel.like(own, value))
            found.setdefault(place[id(own)], {})[name] = value
        self.optimizer.load_state_dict({"state": found, "param_groups": self.optimizer.state_dict()["param_groups"]})


def players_of(model: Model, settings: Settings) -> tuple[Player, ...]:
    """The objectives of the model with their optimizers; those with frozen parameters only are skipped.

    Raises:
        InputError: every parameter is frozen, or an objective names settings or an optimizer that do not exist.
    """
    objectives = model.objectives()
    if objectives[0].joins or any(o.joins and o.repeats != 1 for o in objectives):
        raise InputError(
            f"{type(model).__name__}: an objective with joins=True is used once, on the batch of a previous objective"
        )
    undecayed = {id(p): p for part in model.modules() if isinstance(part, Model) for p in part.undecayed()}
    found = []
    for objective in objectives:
        parameters = tuple(p for p in objective.parameters if p.requires_grad)
        if not parameters:
            continue
        name, rates = _rates(objective, settings)
        optimizer = build_optimizer(name, parameters, undecayed.values(), rates)
        loss = torch.compile(objective.loss) if settings.compile else objective.loss
        found.append(Player(objective, parameters, optimizer, loss, rates.lr * objective.pace))
    if not found:
        raise InputError(
            f"all parameters of {type(model).__name__} are frozen, so there is nothing to train; "
            "unfreeze some (requires_grad_)"
        )
    if settings.shard and any(player.objective.joins for player in found):
        raise InputError(
            f"the players of {type(model).__name__} share their batches, which sharding does not support; "
            "remove --shard"
        )
    return tuple(found)


def _rates(objective: Objective, settings: Settings) -> tuple[OptimizerName, Rates]:
    """The settings of the run, with the overrides of the objective."""
    chosen = {name: getattr(settings, name) for name in _RATES}
    for name, value in objective.optimizer.items():
        if name not in chosen:
            raise InputError(f"objective {objective.name!r} sets an unknown option {name!r}{nearest(name, chosen)}")
        chosen[name] = value
    name = check_value(f"optimizer of {objective.name!r}", chosen.pop("optimizer"), OptimizerName)
    return name, Rates(**chosen, sharded=settings.shard)


def groups_at(players: Sequence[Player], step: int, total: int | None) -> list[list[Player]]:
    """The players of ``step`` of ``total``, in order, each with the players that join it."""
    groups: list[list[Player]] = []
    leads = False
    at = {o.name for o in playing_at([player.objective for player in players], step, total)}
    for player in players:
        acts = step % player.objective.every == 0 and player.name in at
        if not player.objective.joins:
            leads = acts
            if acts:
                groups.append([player])
        elif acts and leads:
            groups[-1].append(player)
    return groups


def only(playing: Iterable[Player], all_players: Iterable[Player]) -> None:
    """Enable gradients for the parameters of ``playing`` only; frozen parameters stay frozen."""
    moved = {id(p) for player in playing for p in player.parameters}
    for player in all_players:
        for p in player.parameters:
            p.requires_grad_(id(p) in moved)


class Gradients:
    """The separate gradients of players on one batch, which may share parameters.

    All are taken at the same parameters, before any update.
    """

    def __init__(self, players: Sequence[Player], *, scale: float = 1.0) -> None:
        """``scale`` multiplies every loss."""
        self.players, self.scale = players, scale
        self._kept: list[list[Tensor | None]] = [[None] * len(player.parameters) for player in players]

    def take(self, losses: Sequence[Tensor]) -> None:
        """Add the gradients of one loss per player to the earlier ones."""
        if len(self.players) == 1:
            (player,), (kept,), (loss,) = self.players, self._kept, losses
            _give(player, kept)
            (loss if self.scale == 1.0 else loss * self.scale).backward()
            self._kept[0] = [p.grad for p in player.parameters]
            return
        for i, (player, loss) in enumerate(zip(self.players, losses, strict=True)):
            _give(player, self._kept[i])
            last = i == len(losses) - 1
            loss.backward(inputs=list(player.parameters), retain_graph=not last)
            self._kept[i] = [p.grad for p in player.parameters]
            _give(player, [None] * len(player.parameters))

    def give(self, player: Player) -> None:
        """Store the gradients of ``player`` where its optimizer reads them."""
        _give(player, self._kept[self.players.index(player)])


def _give(player: Player, gradients: Sequence[Tensor | None]) -> None:
    for p, gradient in zip(player.parameters, gradients, strict=True):
        p.grad = gradient
