"""Laws of models whose players have opposite aims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from unsup.core.model import Model, Objective
from unsup.testing.law import law, require
from unsup.testing.subject import Subject

_EXAMPLES = 8
_STEP = 1e-6  # of a central difference in float64, times the size of the tensor that moves
_TOLERANCE = 1e-4  # of a player's largest slope


def _critics(model: Model) -> tuple[Objective, ...]:
    return tuple(o for o in model.objectives() if o.name.startswith("critic"))


def _has_critic(model: Model) -> bool:
    return bool(_critics(model))


@law(
    "players",
    "The loss of each player has the slope that its gradient says along each of its own tensors, and a critic's loss "
    "gives no gradient to anyone else.",
    needs="an objective named critic",
    applies=_has_critic,
)
def players(subject: Subject) -> None:
    model = subject.generic()
    names = {id(p): name for name, p in model.named_parameters()}
    buffers = [b.clone() for b in model.buffers()]
    batch = replace(subject.batch, x=subject.x(model)).take(slice(0, _EXAMPLES))

    def loss(objective: Objective) -> Tensor:
        for buffer, kept in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(kept)  # replay and the like: every call starts from the same
        torch.manual_seed(subject.seed)
        return objective.loss(batch, generator=subject.generator(1))["loss"].mean()

    for objective in model.objectives():
        model.zero_grad()
        loss(objective).backward()
        if objective in _critics(model):
            own = {id(p) for p in objective.parameters}
            touched = [
                names[id(p)]
                for p in model.parameters()
                if id(p) not in own and p.grad is not None and bool((p.grad != 0).any())
            ]
            require(not touched, f"the loss of {objective.name!r} gives a gradient to {touched[:3]}")
        slopes = []
        for i, p in enumerate(objective.parameters):
            noise = torch.randn(p.shape, generator=subject.generator(2, i), dtype=p.dtype, device=p.device)
            direction = noise / noise.norm()
            said = 0.0 if p.grad is None else float((p.grad * direction).sum())
            slopes.append((names[id(p)], said, _slope(lambda o=objective: loss(o), p, direction)))
        largest = max(abs(found) for _, _, found in slopes)
        for name, said, found in slopes:
            require(
                abs(said - found) <= _TOLERANCE * largest,
                f"the loss of {objective.name!r} rises by {found:.6g} along a direction of {name}, its gradient says "
                f"{said:.6g}",
            )


@torch.no_grad()
def _slope(loss: Callable[[], Tensor], parameter: nn.Parameter, direction: Tensor) -> float:
    """Central difference along ``direction``."""
    kept = parameter.detach().clone()
    step = _STEP * max(1.0, float(kept.norm()))
    ends = []
    for sign in (1, -1):
        parameter.copy_(kept + sign * step * direction)
        ends.append(float(loss()))
    parameter.copy_(kept)
    return (ends[0] - ends[1]) / (2 * step)


@law(
    "averaged-generator",
    "The modules that are averaged over steps hold no parameter of a critic, and all of one other player.",
    needs="an objective named critic",
    applies=_has_critic,
)
def averaged_generator(subject: Subject) -> None:
    model = subject.model
    averaged = {id(p) for module in model.averaged() for p in module.parameters()}
    others = []
    for objective in model.objectives():
        share = sum(id(p) in averaged for p in objective.parameters)
        if objective.name.startswith("critic"):
            require(share == 0, f"{share} tensors of {objective.name!r} are averaged")
        else:
            others.append(share == len(objective.parameters))
    require(any(others), "no player but the critics is averaged as a whole")
