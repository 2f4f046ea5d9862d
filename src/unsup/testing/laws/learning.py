"""Laws of learning: the parameters with gradients, and the effect of training."""

from __future__ import annotations

import torch

from unsup.core.batch import Time
from unsup.core.model import HasDensity, Model
from unsup.testing.law import law, require
from unsup.testing.subject import Subject, learns_by_counting, mean_loss, play

_STEPS, _LEARNING_RATE = 30, 3e-3
_MOST_BATCHES = 32
_ROUNDING = 1e-13  # fraction of the largest gradient below which a gradient is a rounding error of zero


def by_gradient(model: Model) -> bool:
    return not learns_by_counting(model)


@law(
    "objectives",
    "Every trainable parameter belongs to an objective, and to no objective twice; frozen parameters belong to no "
    "objective.",
    needs="a model that learns by gradients",
    applies=by_gradient,
)
def objectives(subject: Subject) -> None:
    model = subject.generic()
    players = model.objectives()
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    require(len({o.name for o in players}) == len(players), f"two of {[o.name for o in players]} have one name")
    owned = set()
    for objective in players:
        own = [id(p) for p in objective.parameters]
        require(
            set(own) <= set(names),
            f"objective {objective.name!r} has tensors that are not trainable parameters of the model",
        )
        twice = [names[key] for key in set(own) if own.count(key) > 1]
        require(not twice, f"objective {objective.name!r} has {twice[:3]} twice")
        owned |= set(own)
    left = [name for key, name in names.items() if key not in owned]
    require(not left, f"no objective has the parameters {left[:3]}")


@law(
    "gradients",
    "Every parameter gets a finite nonzero gradient from one of its objectives (a bias that cancels there, such as the "
    "last bias of a critic in a difference of outputs, from any objective).",
    needs="a model that learns by gradients",
    applies=by_gradient,
)
def gradients(subject: Subject) -> None:
    model = subject.generic().train()
    dead = {name for name, p in model.named_parameters() if p.requires_grad}
    # Some parameters are used in some batches only (one of several masks, one class), so several batches are tried.
    for step in range(_MOST_BATCHES):
        for objective in model.objectives():
            model.zero_grad()
            terms = play(model, objective, subject.batch, subject.generator(step))
            require(bool(terms["loss"].isfinite().all()), f"the loss of {objective.name!r} is not finite")
            mean_loss(terms).backward()
            largest = max((float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None), default=0.0)
            own = {id(p) for p in objective.parameters}
            for name, p in model.named_parameters():
                if p.grad is not None:
                    require(bool(p.grad.isfinite().all()), f"the gradient of {name} is not finite")
                    if (id(p) in own or p.ndim < 2) and bool((p.grad.abs() > _ROUNDING * largest).any()):
                        dead.discard(name)
        if not dead:
            return
    require(False, f"no gradient reaches {sorted(dead)[:3]}")


@law(
    "terms",
    "Every term of a loss is one number, or one number per example.",
    needs="a model that learns by gradients",
    applies=by_gradient,
)
def terms(subject: Subject) -> None:
    model = subject.generic().train()
    n = len(subject.batch)
    for objective in model.objectives():
        found = play(model, objective, subject.batch, subject.generator(1))
        require("loss" in found, f"the terms of {objective.name!r} have no loss: {', '.join(found)}")
        for name, term in found.items():
            require(term.shape in ((), (n,)), f"{objective.name}/{name} of {n} examples has shape {tuple(term.shape)}")


@law(
    "descent",
    f"{_STEPS} steps of Adam on one batch decrease the loss and increase the log-likelihood, with fixed noise.",
    needs="a model with one objective, learned by gradients",
    applies=lambda model: by_gradient(model) and len(model.objectives()) == 1,
)
def descent(subject: Subject) -> None:
    model = subject.fresh()
    (objective,) = model.objectives()
    optimizer = torch.optim.Adam(objective.parameters, lr=_LEARNING_RATE, fused=True)
    batch = subject.data(model)

    def measure() -> tuple[float, float]:
        model.eval()
        with torch.no_grad():
            loss = float(mean_loss(objective.loss(batch, generator=subject.generator(1))))
            score = 0.0
            subject.ready(model)
            if isinstance(model, HasDensity):
                given = subject.given(len(batch)) | subject.lengths(len(batch))
                score = float(model.log_prob(batch.x, generator=subject.generator(2), **given).mean())
        model.train()
        return loss, score

    loss_before, log_prob_before = measure()
    for step in range(_STEPS):
        optimizer.zero_grad()
        mean_loss(objective.loss(batch, generator=subject.generator(3, step))).backward()
        optimizer.step()
        model.after_step(Time(step, _STEPS))
    loss_after, log_prob_after = measure()
    require(loss_after < loss_before - 1e-3, f"the loss went from {loss_before:.4f} to {loss_after:.4f}")
    if isinstance(model, HasDensity):
        require(
            log_prob_after > log_prob_before + 1e-3,
            f"the mean log-likelihood went from {log_prob_before:.4f} to {log_prob_after:.4f}",
        )
