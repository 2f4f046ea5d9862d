"""Laws of learning: who gets gradient, and whether it helps."""

from __future__ import annotations

import torch

from unsup.core.model import HasDensity, LearnsByCounting, Model
from unsup.testing.law import law, require
from unsup.testing.subject import Subject

_STEPS, _LEARNING_RATE = 30, 3e-3
_MOST_BATCHES = 32
_ROUNDING = 1e-13  # of the largest gradient: what is smaller is a zero that float64 did not quite reach


def _by_gradient(model: Model) -> bool:
    return not (isinstance(model, LearnsByCounting) and model.passes > 0)


@law(
    "objectives",
    "Every trainable parameter belongs to exactly one objective, and nothing else does.",
    needs="a model that learns by gradients",
    applies=_by_gradient,
)
def objectives(subject: Subject) -> None:
    model = subject.generic()
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    owned: dict[int, str] = {}
    for objective in model.objectives():
        for p in objective.parameters:
            require(id(p) in names, f"objective {objective.name!r} moves a tensor that is no parameter of the model")
            require(id(p) not in owned, f"{names[id(p)]} belongs to {owned.get(id(p))!r} and {objective.name!r}")
            owned[id(p)] = objective.name
    left = [name for key, name in names.items() if key not in owned]
    require(not left, f"no objective moves {left[:3]}")


@law(
    "gradients",
    "Every parameter gets a finite gradient that is not zero.",
    needs="a model that learns by gradients",
    applies=_by_gradient,
)
def gradients(subject: Subject) -> None:
    model = subject.generic().train()
    dead = {name for name, p in model.named_parameters() if p.requires_grad}
    # Some parameters only act on some batches (one mask of several, one class), so dead ones get more chances.
    for step in range(_MOST_BATCHES):
        for objective in model.objectives():
            model.zero_grad()
            loss = objective.loss(subject.batch, generator=subject.generator(step))["loss"]
            require(loss.ndim == 0 and bool(loss.isfinite()), f"the loss {loss.detach()} is no finite scalar")
            loss.backward()
            largest = max((float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None), default=0.0)
            for name, p in model.named_parameters():
                if p.grad is not None:
                    require(bool(p.grad.isfinite().all()), f"the gradient of {name} is not finite")
                    if bool((p.grad.abs() > _ROUNDING * largest).any()):
                        dead.discard(name)
        if not dead:
            return
    require(False, f"no gradient reaches {sorted(dead)[:3]}")


@law(
    "descent",
    f"{_STEPS} steps of Adam on one batch lower the loss and raise the log-likelihood, measured with fixed noise.",
    needs="a model with one objective, learned by gradients",
    applies=lambda model: _by_gradient(model) and len(model.objectives()) == 1,
)
def descent(subject: Subject) -> None:
    model = subject.fresh()
    (objective,) = model.objectives()
    optimizer = torch.optim.Adam(objective.parameters, lr=_LEARNING_RATE)

    def measure() -> tuple[float, float]:
        model.eval()
        with torch.no_grad():
            loss = float(objective.loss(subject.batch, generator=subject.generator(1))["loss"])
            density = isinstance(model, HasDensity)
            log_prob = (
                float(model.log_prob(subject.x(model), generator=subject.generator(2)).mean()) if density else 0.0
            )
        model.train()
        return loss, log_prob

    loss_before, log_prob_before = measure()
    for step in range(_STEPS):
        optimizer.zero_grad()
        objective.loss(subject.batch, generator=subject.generator(3, step))["loss"].backward()
        optimizer.step()
        model.after_step(step)
    loss_after, log_prob_after = measure()
    require(loss_after < loss_before - 1e-3, f"the loss went from {loss_before:.4f} to {loss_after:.4f}")
    if isinstance(model, HasDensity):
        require(
            log_prob_after > log_prob_before + 1e-3,
            f"the mean log-likelihood went from {log_prob_before:.4f} to {log_prob_after:.4f}",
        )
