"""Markov chains on p(x) ∝ exp(−E(x)): unadjusted Langevin, and its Metropolis-adjusted form. Pure functions.

The convention is x ← x − s ∇E(x) + τ ξ with ξ ~ N(0, I): ``step`` is s, the factor of the gradient, and ``noise`` is
τ. The chain is the discretisation of a diffusion whose equilibrium is exp(−E / T) with T = τ² / (2 s), so that
τ = √(2 s) samples E itself and less noise is a chain at a lower temperature. (Papers that write ½ λ ∇E have λ = 2 s.)
On N(0, 1) the stationary variance of the unadjusted chain is 1 / (1 − s / 2).

Chains have no graph: the result is not differentiable with respect to the parameters of the energy.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from unsup.core import random
from unsup.core.steps import in_steps

Energy = Callable[[Tensor], Tensor]
"""``(B, ...)`` → ``(B,)``."""


def energy_and_gradient(energy: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
    """E(x) ``(B,)`` and ∇E(x), shaped as ``x``, both without a graph.

    >>> value, gradient = energy_and_gradient(lambda x: 0.5 * x.square().sum(1), torch.tensor([[3.0, 4.0]]))
    >>> float(value), gradient.tolist()
    (12.5, [[3.0, 4.0]])
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
        value = energy(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def temperature_of(step: float, noise: float) -> float:
    """T = τ² / (2 s) of a Langevin chain."""
    return noise**2 / (2 * step)


def langevin(
    energy: Energy,
    x: Tensor,
    *,
    steps: int,
    step: float,
    noise: float | None = None,
    clamp: float = 0.0,
    low: Tensor | None = None,
    high: Tensor | None = None,
    generator: Generator | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Unadjusted Langevin dynamics (Roberts, Tweedie 1996): the chains after ``steps`` steps from ``x``.

    Args:
        energy: energy of the target.
        x: ``(B, ...)``, one chain per row.
        step: s, the step size.
        noise: τ; None is √(2 s), temperature 1.
        clamp: maximum absolute value of an entry of the gradient, 0 for no limit. An active limit changes the target.
        low, high: bounds to which every entry is clamped after each step, broadcast over ``x``; None for no bounds.
        on_step: called after each step with the number of steps and the states of the chains.
    """
    x = x.detach()
    for done in in_steps(range(1, steps + 1)):
        _, gradient = energy_and_gradient(energy, x)
        x = _moved(x, gradient, step, noise, clamp, generator)
        if low is not None or high is not None:
            x = x.clamp(low, high)
        if on_step is not None:
            on_step(done, x)
    return x


def langevin_acceptance(
    energy: Energy,
    x: Tensor,
    *,
    step: float,
    noise: float | None = None,
    clamp: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """The probability ``(B,)`` with which Metropolis would accept one more Langevin step from ``x``.

    It is near 1 if the unadjusted chain is a good discretisation at its temperature T: with g the (clamped)
    gradient, log α = (E(x) − E(x')) / T + (‖x' − x + s g(x)‖² − ‖x − x' + s g(x')‖²) / (2 τ²).
    """
    x = x.detach()
    value, gradient = energy_and_gradient(energy, x)
    proposal = _moved(x, gradient, step, noise, clamp, generator)
    after = energy_and_gradient(energy, proposal)
    return _log_acceptance(x, proposal, (value, gradient), after, step, noise, clamp).clamp(max=0).exp()


def mala(
    energy: Energy, x: Tensor, *, steps: int, step: float, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Metropolis-adjusted Langevin (Roberts, Tweedie 1996): exp(−E) is stationary for any ``step``.

    A Langevin step at temperature 1 is a proposal, accepted with probability
    min(1, exp(E(x) − E(x')) q(x|x') / q(x'|x)), q(x'|x) = N(x'; x − s ∇E(x), 2 s I); otherwise the chain stays.

    Returns:
        The chains after ``steps`` steps, and the acceptance rate of each chain ``(B,)``.
    """
    x = x.detach()
    value, gradient = energy_and_gradient(energy, x)
    accepted = torch.zeros_like(value)
    for _ in in_steps(range(steps)):
        proposal = _moved(x, gradient, step, None, 0.0, generator)
        new_value, new_gradient = energy_and_gradient(energy, proposal)
        log_alpha = _log_acceptance(x, proposal, (value, gradient), (new_value, new_gradient), step, None, 0.0)
        # A proposal with infinite or undefined energy is never accepted.
        accept = random.uniform(value.shape, generator, like=value).log() < log_alpha
        rows = accept.view(-1, *(1,) * (x.ndim - 1))
        x, gradient = torch.where(rows, proposal, x), torch.where(rows, new_gradient, gradient)
        value = torch.where(accept, new_value, value)
        accepted += accept
    return x, accepted / max(steps, 1)


def _moved(
    x: Tensor, gradient: Tensor, step: float, noise: float | None, clamp: float, generator: Generator | None
) -> Tensor:
    tau = math.sqrt(2 * step) if noise is None else noise
    drawn = random.normal(x.shape, generator, like=x)
    return torch.add(x, _clamped(gradient, clamp), alpha=-step).add_(drawn, alpha=tau)


def _clamped(gradient: Tensor, clamp: float) -> Tensor:
    return gradient.clamp(-clamp, clamp) if clamp else gradient


def _log_acceptance(
    x: Tensor,
    proposal: Tensor,
    before: tuple[Tensor, Tensor],
    after: tuple[Tensor, Tensor],
    step: float,
    noise: float | None,
    clamp: float,
) -> Tensor:
    """log of the Metropolis–Hastings ratio of x → x', with (E, ∇E) of both: ``(B,)``."""
    tau = math.sqrt(2 * step) if noise is None else noise
    there = (proposal - x + step * _clamped(before[1], clamp)).flatten(1).square().sum(1)
    back = (x - proposal + step * _clamped(after[1], clamp)).flatten(1).square().sum(1)
    return (before[0] - after[0]) / temperature_of(step, tau) + (there - back) / (2 * tau**2)
