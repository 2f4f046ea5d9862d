"""Laws of models with players with opposing objectives."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from unsup.core.batch import Batch
from unsup.core.model import Model, Objective
from unsup.testing.law import law, require
from unsup.testing.laws.densities import slope, steepness_is_said
from unsup.testing.subject import Subject, learn, mean_loss, perturb, play

_EXAMPLES = 8
_STEPS, _RATE = 20, 5e-3  # of the critics, until they have a view
_DRAWS = 3
_EDGE = 1e-6  # an ε nearer to 0 or 1 is one of them


def _is_critic(objective: Objective) -> bool:
    return objective.name.startswith("critic")


def _critics(model: Model) -> tuple[Objective, ...]:
    return tuple(o for o in model.objectives() if _is_critic(o))


def _has_critic(model: Model) -> bool:
    return bool(_critics(model))


@law(
    "players",
    "The gradient of the loss of each player is correct along each of its own tensors, and the loss of a critic "
    "has no gradient for other parameters.",
    needs="an objective named critic",
    applies=_has_critic,
)
def players(subject: Subject) -> None:
    model = subject.generic()
    names = {id(p): name for name, p in model.named_parameters()}
    buffers = [b.clone() for b in model.buffers()]
    batch = subject.data(model).take(slice(0, _EXAMPLES))

    def loss(objective: Objective) -> Tensor:
        for buffer, kept in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(kept)  # replay buffers and similar: every call starts from the same state
        return mean_loss(play(model, objective, batch, subject.generator(1)))

    for objective in model.objectives():
        model.zero_grad()
        loss(objective).backward()
        if _is_critic(objective):
            own = {id(p) for p in objective.parameters}
            touched = [
                names[id(p)]
                for p in model.parameters()
                if id(p) not in own and p.grad is not None and bool((p.grad != 0).any())
            ]
            require(not touched, f"the loss of {objective.name!r} has a gradient for {touched[:3]}")
        moves: dict[str, Tensor] = {names[id(p)]: p for p in objective.parameters}
        said = {name: torch.zeros_like(t) if t.grad is None else t.grad.clone() for name, t in moves.items()}
        steepness_is_said(f"the loss of {objective.name!r}", partial(loss, objective), moves, said, subject)


@law(
    "averaged-generator",
    "The modules that are averaged over steps have no parameter of a critic, and all parameters of another player.",
    needs="an objective named critic",
    applies=_has_critic,
)
def averaged_generator(subject: Subject) -> None:
    model = subject.model
    averaged = {id(p) for module in model.averaged() for p in module.parameters()}
    others = []
    for objective in model.objectives():
        share = sum(id(p) in averaged for p in objective.parameters)
        if _is_critic(objective):
            require(share == 0, f"{share} tensors of {objective.name!r} are averaged")
        else:
            others.append(share == len(objective.parameters))
    require(any(others), "no player but the critics is averaged as a whole")


@law(
    "opposition",
    "With trained critics, a step of the other player against the gradient of its loss makes the critics rate its "
    "samples higher (their term ``fake`` increases; without one, their loss).",
    needs="an objective named critic",
    applies=_has_critic,
)
def opposition(subject: Subject) -> None:
    model = subject.fresh().double()
    perturb(model, subject.generator(1))
    batch = subject.data(model)
    learn(model, lambda step: batch, _STEPS, _RATE, lambda step: subject.generator(2, step), players=_is_critic)
    buffers = [b.clone() for b in model.buffers()]

    def restore() -> None:
        for buffer, kept in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(kept)

    @torch.no_grad()
    def view() -> Tensor:
        found = torch.zeros((), dtype=torch.float64)
        for objective in _critics(model):
            for draw in range(_DRAWS):
                restore()
                terms = play(model, objective, batch, subject.generator(3, draw))
                found += terms.get("fake", terms["loss"]).mean()
        return found / _DRAWS

    for objective in model.objectives():
        if _is_critic(objective):
            continue
        restore()
        model.zero_grad()
        for draw in range(_DRAWS):
            mean_loss(play(model, objective, batch, subject.generator(4, draw))).backward()
        own = {str(i): p for i, p in enumerate(objective.parameters) if p.grad is not None}
        down = {name: -p.grad for name, p in own.items() if p.grad is not None}
        rise = slope(view, own, down)
        require(rise > 0, f"a step of {objective.name!r} changes the critics' rating of its samples by {rise:.4g}")


@law(
    "gradient-penalty",
    "The penalty of WGAN-GP is taken at εx + (1 − ε)G(z), strictly between a datum and a sample, with a separate ε for "
    "each example.",
    needs="a critic with the option loss=wgan-gp",
    applies=lambda model: _has_critic(model) and model.config.get("loss") == "wgan-gp",
)
def gradient_penalty(subject: Subject) -> None:
    model = subject.generic()
    batch = subject.data(model).take(slice(0, 2 * _EXAMPLES))
    (objective,) = _critics(model)
    critic = _module_of(model, objective)
    shown, points = _inputs(model, objective, critic, batch, subject)
    other = copy.deepcopy(model)
    own = {id(p) for p in critic.parameters()}
    for (_, p), (_, q) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        if id(p) not in own:
            q.data.add_(0.1 * torch.randn(q.shape, generator=subject.generator(3), dtype=q.dtype, device=q.device))
    (their_objective,) = _critics(other)
    moved, _ = _inputs(other, their_objective, _module_of(other, their_objective), batch, subject)
    still = (shown == moved).all(1)  # inputs that do not depend on the generator are data
    data, samples = shown[still], shown[~still]
    require(len(data) > 0 and len(samples) > 0, "the critic is not shown data and samples")
    require(len(points) > 0, "no gradient of the critic with respect to its inputs is computed")
    shares = []
    for point in points:
        # p = εd + (1 − ε)s: for every pair the best ε, and its error.
        span = data[:, None] - samples[None]  # (N, M, D)
        epsilon = ((point - samples) * span).sum(-1) / span.square().sum(-1)
        apart = (samples + epsilon[..., None] * span - point).norm(dim=-1) / span.norm(dim=-1)
        best = int(apart.argmin())
        share = float(epsilon.flatten()[best])
        require(
            float(apart.flatten()[best]) < 1e-6 and _EDGE < share < 1 - _EDGE,
            f"a penalty is taken at a point with ε = {share:.4g}, {float(apart.flatten()[best]):.2g} off the line "
            "between a datum and a sample",
        )
        shares.append(share)
    require(len({round(s, 9) for s in shares}) > len(shares) // 2, "several examples share one ε")


def _module_of(model: Model, objective: Objective) -> nn.Module:
    """The smallest module with all parameters of a player."""
    wanted = {id(p) for p in objective.parameters}
    fitting = [m for m in model.modules() if wanted <= {id(p) for p in m.parameters()}]
    return min(fitting, key=lambda m: sum(1 for _ in m.parameters()))


def _inputs(
    model: Model, objective: Objective, critic: nn.Module, batch: Batch, subject: Subject
) -> tuple[Tensor, Tensor]:
    """The inputs of a critic in its own loss: examples, and points where its gradient is computed, flattened."""
    with _recorded(critic) as seen:
        play(model, objective, batch, subject.generator(1))
    shown = [x.detach().flatten(1) for x in seen if not x.requires_grad]
    points = [x.detach().flatten(1) for x in seen if x.requires_grad]
    width = shown[0].shape[1] if shown else 0
    return torch.cat(shown or [torch.zeros(0, width)]), torch.cat(points or [torch.zeros(0, width)])


@contextmanager
def _recorded(module: nn.Module) -> Iterator[list[Tensor]]:
    """The first argument of every call of a module."""
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    try:
        yield seen
    finally:
        hook.remove()
