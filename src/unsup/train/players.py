"""Who moves what: each objective of a model with its optimizer and the gradients of its own loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unsup.core.config import check_value
from unsup.core.errors import InputError, nearest
from unsup.core.model import Model, Objective, Terms
from unsup.train import parallel
from unsup.train.optimizers import OptimizerName, Rates, build_optimizer
from unsup.train.settings import Settings

_RATES = ("optimizer", "lr", "betas", "eps", "weight_decay")


@dataclass(eq=False)
class Player:
    """One objective at work.

    Attributes:
        objective: what it minimises.
        parameters: those of the objective that are not frozen.
        optimizer: moves them, and nothing else.
        loss: the objective's, perhaps compiled.
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
        """What the optimizer remembers, by ``parameter.name``: tensors and numbers."""
        for i, p in enumerate(self.parameters):
            for name, value in self.optimizer.state.get(p, {}).items():
                if value is not None:  # SGD has no buffer without momentum
                    yield f"{i}.{name}", value

    def restore(self, states: Mapping[str, Any]) -> None:
        """Put back what `states` gave."""
        place = {id(p): i for i, p in enumerate(p for group in self.optimizer.param_groups for p in group["params"])}
        found: dict[int, dict[str, Any]] = {}
        for key, value in states.items():
            number, _, name = key.partition(".")
            own = self.parameters[int(number)]
            if isinstance(value, Tensor) and value.ndim:
                # Fused optimizers take for granted that it lies in memory as the parameter does.
                value = torch.empty_like(own, dtype=value.dtype).copy_(parallel.like(own, value))
            found.setdefault(place[id(own)], {})[name] = value
        self.optimizer.load_state_dict({"state": found, "param_groups": self.optimizer.state_dict()["param_groups"]})


def players_of(model: Model, settings: Settings) -> tuple[Player, ...]:
    """The model's objectives with their optimizers; one whose parameters are all frozen does not play.

    Raises:
        InputError: every parameter is frozen, or an objective names settings or an optimizer that do not exist.
    """
    objectives = model.objectives()
    if objectives[0].joins or any(o.joins and o.repeats != 1 for o in objectives):
        raise InputError(
            f"{type(model).__name__}: an objective that joins plays once, on the batch of an objective before it"
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
        found.append(Player(objective, parameters, optimizer, loss, rates.lr))
    if not found:
        raise InputError(
            f"no objective of {type(model).__name__} has a parameter that is not frozen, so there is nothing to train; "
            "unfreeze some (requires_grad_)"
        )
    if settings.shard and any(player.objective.joins for player in found):
        raise InputError(
            f"the players of {type(model).__name__} share their batches, which sharding does not do yet; leave --shard "
            "out"
        )
    return tuple(found)


def _rates(objective: Objective, settings: Settings) -> tuple[OptimizerName, Rates]:
    """The run's settings, and what the objective overrides of them."""
    chosen = {name: getattr(settings, name) for name in _RATES}
    for name, value in objective.optimizer.items():
        if name not in chosen:
            raise InputError(f"objective {objective.name!r} sets {name!r} of its optimizer{nearest(name, chosen)}")
        chosen[name] = value
    name = check_value(f"optimizer of {objective.name!r}", chosen.pop("optimizer"), OptimizerName)
    return name, Rates(**chosen, sharded=settings.shard)


def groups_at(players: Sequence[Player], step: int) -> list[list[Player]]:
    """The players that act at ``step``, in order; beside each those that join it, which act only when it does."""
    groups: list[list[Player]] = []
    leads = False
    for player in players:
        acts = step % player.objective.every == 0
        if not player.objective.joins:
            leads = acts
            if acts:
                groups.append([player])
        elif acts and leads:
            groups[-1].append(player)
    return groups


def only(playing: Iterable[Player], all_players: Iterable[Player]) -> None:
    """Let the parameters of ``playing`` take gradients, and no others; frozen ones belong to nobody and stay so."""
    moved = {id(p) for player in playing for p in player.parameters}
    for player in all_players:
        for p in player.parameters:
            p.requires_grad_(id(p) in moved)


class Gradients:
    """The gradients of players that play on one batch, each its own, though they may share parameters.

    They are all taken at the same parameters, before any player moves.
    """

    def __init__(self, players: Sequence[Player], *, scale: float = 1.0) -> None:
        """``scale`` multiplies every loss."""
        self.players, self.scale = players, scale
        self._kept: list[list[Tensor | None]] = [[None] * len(player.parameters) for player in players]

    def take(self, losses: Sequence[Tensor]) -> None:
        """Add those of one loss a player to what was taken before."""
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
        """Put the gradients of ``player`` where its optimizer looks for them."""
        _give(player, self._kept[self.players.index(player)])


def _give(player: Player, gradients: Sequence[Tensor | None]) -> None:
    for p, gradient in zip(player.parameters, gradients, strict=True):
        p.grad = gradient
