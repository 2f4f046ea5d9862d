"""Annealed importance sampling (Neal 2001, https://arxiv.org/abs/physics/9803008). Pure functions on tensors.

Unnormalised densities f_β interpolate between f₀, with a known normaliser and exact samples, and f₁. A chain starts at
x ~ p₀ and visits β = β₀ < … < β_T; its weight and its state are

    log w = Σ_t log f_{β_t}(x_{t−1}) − log f_{β_{t−1}}(x_{t−1}),        x_t ~ T_{β_t}(· | x_{t−1}),

where T_β leaves p_β invariant. Then E[w] = Z₁ / Z₀ exactly, for any number of temperatures and any mixing of T, and
the logarithm of a mean of weights is below log Z₁ / Z₀ in expectation. Run from exact samples of p₁ with the βs
reversed (and T reversible) the same function gives weights with E[w] = Z₀ / Z₁, whose mean bounds log Z₁ / Z₀ from
above (Grosse, Ghahramani, Adams 2015, https://arxiv.org/abs/1511.02543).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from unsup.core.random import bits


def ladder(count: int) -> list[float]:
    """``count`` steps from 0 to 1, in the proportions of Salakhutdinov and Murray (2008): ``count`` + 1 values.

    1/29 of the steps are equally spaced to 0.5, 8/29 to 0.9 and the other 20/29 to 1 (theirs were 14,500).

    >>> [round(beta, 3) for beta in ladder(29)][:4]
    [0.0, 0.5, 0.55, 0.6]
    """
    first, second = round(count / 29), round(count * 9 / 29)
    parts = ((0.0, 0.5, first), (0.5, 0.9, second - first), (0.9, 1.0, count - second))
    present = [(low, high, steps) for low, high, steps in parts if steps]
    found = [0.0]
    for _, high, steps in present:
        low = found[-1]
        found += [low + (high - low) * i / steps for i in range(1, steps + 1)]
    return found


def anneal(
    state: Tensor,
    betas: Sequence[float],
    step: Callable[[Tensor, float, float, Generator | None], tuple[Tensor, Tensor]],
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Log-weights of one chain per row of ``state``, float64: ``(N, ...)`` → ``(N,)``.

    Args:
        state: draws from p at ``betas[0]``.
        betas: the temperatures, including first and last.
        step: ``(x, β, β', generator)`` → log f_β'(x) − log f_β(x) of each row, and a draw from T_β'(· | x). Both come
            from one call because they share most of their work.
        generator: passed to ``step``.
    """
    log_weight = torch.zeros(len(state), dtype=torch.float64, device=state.device)
    for beta, following in pairwise(betas):
        gain, state = step(state, beta, following, generator)
        log_weight += gain
    return log_weight


def log_mean_and_error(log_weight: Tensor) -> tuple[float, float]:
    """log of the mean weight, and its standard error by the delta method: std(w) / (mean(w) √N).

    >>> log_mean_and_error(torch.tensor([0.0, 0.0]))
    (0.0, 0.0)
    """
    log_weight = log_weight.double()
    highest = log_weight.max()
    weight = (log_weight - highest).exp()
    mean = weight.mean()
    error = weight.std() / (mean * math.sqrt(len(weight))) if len(weight) > 1 else torch.tensor(math.inf)
    return float(highest + mean.log()), float(error)


def bernoulli_pair_step(
    weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, base_bias: Tensor
) -> Callable[[Tensor, float, float, Generator | None], tuple[Tensor, Tensor]]:
    """A ``step`` of `anneal` for p(v, h) ∝ exp(bᵀv + cᵀh + vᵀWh) of binary units, from independent visible ones.

    The path (Salakhutdinov, Murray 2008, https://doi.org/10.1145/1390156.1390266) is

        f_β(v) = exp((1 − β) aᵀv + β bᵀv) Π_j (1 + exp(β (c_j + vᵀW_j))),        Z₀ = 2^H Π_i (1 + e^{a_i}).

    A temperature costs two matrix products over all chains: the weight and the draw share the hidden inputs.

    Args:
        weight: W ``(V, H)``.
        visible_bias: b ``(V,)``.
        hidden_bias: c ``(H,)``.
        base_bias: a ``(V,)``, of the base-rate model.
    """
    up, down = weight, weight.t()
    shift = visible_bias - base_bias

    def step(v: Tensor, beta: float, following: float, generator: Generator | None) -> tuple[Tensor, Tensor]:
        hidden = torch.addmm(hidden_bias, v, up)
        gain = (softplus(hidden * following) - softplus(hidden * beta)).sum(1, dtype=torch.float64)
        gain += (following - beta) * (v @ shift).double()
        h = bits(hidden.mul_(following).sigmoid_(), generator)
        visible = torch.addmm(base_bias + following * shift, h, down, alpha=following)
        return gain, bits(visible.sigmoid_(), generator)

    return step


def between_pairs_step(
    first: tuple[Tensor, Tensor, Tensor], second: tuple[Tensor, Tensor, Tensor]
) -> Callable[[Tensor, float, float, Generator | None], tuple[Tensor, Tensor]]:
    """A ``step`` of `anneal` from one p(v, h) ∝ exp(bᵀv + cᵀh + vᵀWh) of binary units to another of the same sizes.

    The path interpolates W, b and c. Between two models of which the second was trained from the first it is short,
    where one from independent units is long.

    Args:
        first: W ``(V, H)``, b ``(V,)`` and c ``(H,)`` at β = 0.
        second: the same at β = 1.
    """
    (w, b, c), (w_after, b_after, c_after) = first, second
    both = torch.cat([w, w_after], 1)  # one product for both
    sizes = len(c), len(c_after)

    def step(v: Tensor, beta: float, following: float, generator: Generator | None) -> tuple[Tensor, Tensor]:
        of_first, of_second = (v @ both).split(sizes, 1)
        of_first, of_second = of_first + c, of_second + c_after
        hidden = torch.lerp(of_first, of_second, following)
        gain = (softplus(hidden) - softplus(torch.lerp(of_first, of_second, beta))).sum(1, dtype=torch.float64)
        gain += (following - beta) * (v @ (b_after - b)).double()
        h = bits(hidden.sigmoid_(), generator)
        visible = torch.lerp(b + h @ w.t(), b_after + h @ w_after.t(), following)
        return gain, bits(visible.sigmoid_(), generator)

    return step


def base_log_partition(base_bias: Tensor, hidden: int) -> float:
    """log Z₀ of the base-rate model with ``hidden`` disconnected units: H log 2 + Σ softplus(a)."""
    return hidden * math.log(2) + float(softplus(base_bias.double()).sum())
