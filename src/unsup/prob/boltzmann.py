"""Two layers of binary units, p(v, h) ∝ exp(bᵀv + cᵀh + vᵀWh), and layers above each other. Pure functions.

An `Interaction` is (W, b, c) with W ``(V, H)``, b ``(V,)`` and c ``(H,)``. Units are 0 or 1 in a floating type.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad, softplus
from torch.utils.checkpoint import checkpoint

from unsup.core.random import bits
from unsup.core.steps import in_steps
from unsup.prob.annealing import (
    anneal,
    base_log_partition,
    bernoulli_pair_step,
    between_pairs_step,
    ladder,
    log_mean_and_error,
)

Interaction = tuple[Tensor, Tensor, Tensor]

ENUMERABLE = 20
"""Units of the smaller layer up to which log Z is a sum over its states."""
STATES_AT_ONCE = 4096
INITIAL_STD = 0.01
"""Of weights."""
CHAINS = 100
"""Of annealed importance sampling."""
TEMPERATURES = 1000
"""Of annealed importance sampling at effort 1."""


def free_energy(v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Tensor:
    """F(v) = −bᵀv − Σ_j softplus(c_j + vᵀW_j): ``(B, V)`` → ``(B,)``."""
    return -(v @ visible_bias) - softplus(torch.addmm(hidden_bias, v, weight)).sum(1)


def free_energy_and_hidden(
    v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, centre: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """F(v) ``(B,)`` with its gradient in closed form, and p(h = 1 | v) ``(B, H)`` without one: of bits ``(B, V)``.

    With ``centre`` µ, the energy is that of v − µ and h − ½ with the same parameters, up to a constant.
    """
    found: tuple[Tensor, Tensor] = _FreeEnergy.apply(v, weight, visible_bias, hidden_bias, centre)
    return found


class _FreeEnergy(torch.autograd.Function):
    """∂F/∂W = −v p(h|v)ᵀ, ∂F/∂b = −v, ∂F/∂c = −p(h|v). The bits have no gradient."""

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, centre: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.low = half_of(v)
        if ctx.low:  # bits have no rounding error in bfloat16, their distances from µ have
            narrow = v.to(ctx.low)
            inputs = torch.mm(narrow, weight.to(ctx.low)).float().add_(hidden_bias)
            with torch.autocast(v.device.type, enabled=False):
                free = -(v @ visible_bias)
                if centre is not None:
                    inputs -= centre @ weight
                    free += centre @ visible_bias
        else:
            narrow = v = v if centre is None else v - centre
            inputs, free = torch.addmm(hidden_bias, v, weight), -(v @ visible_bias)
        hidden = inputs.sigmoid()
        free -= softplus(inputs).sum(1)
        if centre is not None:
            free += 0.5 * inputs.sum(1)
        ctx.save_for_backward(v, narrow, hidden, centre)
        ctx.mark_non_differentiable(hidden)
        return free, hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        v, narrow, hidden, centre = ctx.saved_tensors
        share = -gradient
        moved = (hidden if centre is None else hidden - 0.5).mul(share[:, None])
        of_hidden = moved.sum(0)
        if not ctx.low:
            return None, v.t() @ moved, share @ v, of_hidden, None
        with torch.autocast(v.device.type, enabled=False):
            of_weight = torch.mm(narrow.t(), moved.to(ctx.low)).float()
            of_visible = share @ v
        if centre is not None:
            of_weight.addr_(centre, of_hidden, alpha=-1)
            of_visible -= centre * share.sum()
        return None, of_weight, of_visible, of_hidden, None


def half_of(x: Tensor) -> torch.dtype | None:
    """The type of products of float32 tensors like ``x`` under autocast; None without it."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if x.dtype == torch.float32 and torch.is_autocast_enabled(kind) else None


def log_odds_of_bits(x: Tensor, weight: Tensor, bias: Tensor, centre: Tensor | None = None) -> Tensor:
    """(x − µ) W + b, ``(B, V)`` → ``(B, H)``; under autocast only the product x W is in bfloat16, not its sum."""
    if half_of(x) is None:
        return torch.addmm(bias, x if centre is None else x - centre, weight)
    found = torch.mm(x, weight).float()
    with torch.autocast(x.device.type, enabled=False):
        return found + (bias if centre is None else bias - centre @ weight)


def gibbs(
    v: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    sweeps: int,
    generator: Generator | None,
    *,
    fixed: Tensor | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """``sweeps`` of h ~ p(h|v), v ~ p(v|h) over all rows of ``v`` ``(B, V)``; entries ``fixed`` (bool) stay."""
    down = weight.t()
    given = v
    for sweep in in_steps(range(sweeps)):
        h = bits(log_odds_of_bits(v, weight, hidden_bias).sigmoid_(), generator)
        v = bits(log_odds_of_bits(h, down, visible_bias).sigmoid_(), generator)
        if fixed is not None:
            v = torch.where(fixed, given, v)
        if on_step is not None:
            on_step(sweep + 1, v)
    return v


def log_odds(mean: Tensor, count: float) -> Tensor:
    """The log-odds of a bit with this mean over ``count`` draws, smoothed by half a draw of each value.

    >>> log_odds(torch.tensor(0.5), 7)
    tensor(0.)
    """
    return ((mean * count + 0.5) / (count + 1)).logit()


def is_enumerable(visible: int, hidden: int) -> bool:
    """Whether log Z of two layers of these sizes is a sum."""
    return min(visible, hidden) <= ENUMERABLE


def enumerated_log_partition(weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Tensor:
    """log Z as a sum over the states of the smaller layer; its gradient takes the memory of one block of them."""
    w, b, c = (p.double() for p in (weight, visible_bias, hidden_bias))
    if len(b) < len(c):
        w, b, c = w.t(), c, b  # sum over the states of the layer with bias c, the smaller one
    units = torch.arange(len(c), device=w.device)

    def part(states: Tensor, w: Tensor, b: Tensor, c: Tensor) -> Tensor:
        h = (states[:, None] >> units & 1).double()
        return (-free_energy(h, w.t(), c, b)).logsumexp(0)

    parts = [
        checkpoint(part, states, w, b, c, use_reentrant=False, preserve_rng_state=False)
        for states in torch.arange(2 ** len(c), device=w.device).split(STATES_AT_ONCE)
    ]
    return torch.stack(parts).logsumexp(0)


def annealed_log_partition(
    interaction: Interaction,
    base_bias: Tensor,
    effort: int,
    generator: Generator | None,
    *,
    through: Interaction | None = None,
) -> tuple[float, float]:
    """An estimate of log Z and its standard error, by annealed importance sampling.

    Args:
        effort: multiplies the number of temperatures.
        interaction, base_bias, through: as for `annealing_path`.
    """
    path = annealing_path(interaction, base_bias, TEMPERATURES * effort, through=through)
    start = bits(base_bias.sigmoid().expand(CHAINS, -1), generator)
    mean, error = log_mean_and_error(anneal(start, path.betas, path.step, generator=generator))
    return path.offset + mean, error


class Path(NamedTuple):
    """A path of `anneal` from independent visible units to p(v, h): its temperatures and step.

    Attributes:
        offset: log Z less the logarithm of the mean weight.
    """

    betas: list[float]
    step: Callable[[Tensor, float, float, Generator | None], tuple[Tensor, Tensor]]
    offset: float


def annealing_path(
    interaction: Interaction, base_bias: Tensor, count: int, *, through: Interaction | None = None
) -> Path:
    """The path to p(v, h) with ``count`` temperatures.

    Args:
        interaction: W, b and c.
        base_bias: log-odds ``(V,)`` of the independent visible units from which the chains start.
        count: number of temperatures.
        through: W ``(V, K)``, b and c of a model like this one that the path visits in the middle, with half of the
            temperatures before it and half after it. The missing hidden units of the smaller one have no weights.
    """
    if through is None:
        step = bernoulli_pair_step(*interaction, base_bias)
        return Path(ladder(count), step, base_log_partition(base_bias, len(interaction[2])))
    hidden = max(len(interaction[2]), len(through[2]))
    middle, last = (_padded(one, hidden) for one in (through, interaction))
    parts = bernoulli_pair_step(*middle, base_bias), between_pairs_step(middle, last)

    def step_of_part(v: Tensor, beta: float, following: float, generator: Generator | None) -> tuple[Tensor, Tensor]:
        part = int(min(beta, following) >= 1)
        return parts[part](v, beta - part, following - part, generator)

    before, after = count // 2, count - count // 2
    betas = ladder(before) + [1 + i / after for i in range(1, after + 1)]
    added = hidden - len(interaction[2])
    return Path(betas, step_of_part, base_log_partition(base_bias, hidden) - added * math.log(2))


def _padded(interaction: Interaction, hidden: int) -> Interaction:
    """The same model with further hidden units that have no weights."""
    w, b, c = interaction
    more = hidden - len(c)
    return pad(w, (0, more)), b, pad(c, (0, more))
