"""Gradients of lower bounds on log p(x) with discrete latent variables. Pure functions of log-probabilities.

Of k draws z_i ~ q(z | x) they take log p(x, z_i) and log q(z_i | x), ``(k, B)`` each. A result, ``(B,)``, has the value
of the bound of `unsup.prob.bounds`, and the gradient of the estimator. Draws of discrete variables have no gradient, so
that the dependence of a mean on the distribution of the draws is the score function: for a signal f,

    ∇_φ E_q[f(z)] = E_q[(f(z) − b) ∇_φ log q(z | x)] + E_q[∇_φ f(z)]

for every baseline b that does not depend on the draw z.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unsup.prob import bounds


def nvil(log_p: Tensor, log_q: Tensor, baselines: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The ELBO with the gradient of NVIL (Mnih, Gregor 2014, https://arxiv.org/abs/1402.0030), and the signals of it.

    The gradients are ∇_θ log p for the parameters of p and Σ_l (f_l − b_l) ∇_φ log q_l for those of q, means over k
    draws, with the local signals

        f_l = log p(z_{l−1} | z_l) + … + log p(z_L) − log q(z_l | z_{l−1}) − … − log q(z_L | z_{L−1}),   z_0 = x.

    The terms of the layers below are omitted, since z_l does not occur in them, and so is −∇_φ log q, with mean 0.

    Args:
        log_p: of x given z_1, of each layer given the next, and of z_L, ``(L + 1, k, B)``.
        log_q: of each layer, given the one below or x, ``(L, k, B)``.
        baselines: b_l, functions of z_{l−1}, ``(L, k, B)``, k may be 1; None is 0. They get no gradient.

    Returns:
        ``(B,)`` and the f_l without gradient, ``(L, k, B)``.

    >>> log_q = torch.tensor([[[-0.5]]], requires_grad=True)
    >>> bound, signals = nvil(torch.tensor([[[-1.5]], [[-0.5]]]), log_q, torch.tensor([[[-1.0]]]))
    >>> bound.sum().backward()
    >>> float(bound.detach()), float(signals), float(log_q.grad)  # the last is −1.5 + 1
    (-1.5, -1.5, -0.5)
    """
    signals = ((log_p[:-1] - log_q).flip(0).cumsum(0).flip(0) + log_p[-1]).detach()
    centred = signals if baselines is None else signals - baselines.detach()
    surrogate = (log_p.sum(0) + (centred * log_q).sum(0)).mean(0)
    return _with_gradient(bounds.elbo(signals[0]), surrogate), signals


def reinforce(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`bounds.iwae` with the plain score function: L̂ Σ_i ∇ log q_i + Σ_i w̃_i ∇ log w_i, with w̃_i = w_i / Σ_j w_j.

    Its signal is the same for all draws, and is not centred. One draw: the ELBO.
    """
    return _of_several(log_p, log_q, bounds.iwae((log_p - log_q).detach()).expand_as(log_q))


def vimco(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`bounds.iwae` with the gradient of VIMCO (Mnih, Rezende 2016, https://arxiv.org/abs/1602.06725).

    Σ_i (L̂ − L̂_{−i}) ∇ log q_i + Σ_i w̃_i ∇ log w_i, where the baseline L̂_{−i} of draw i is that of the other draws, see
    `leave_one_out`.
    """
    log_weight = (log_p - log_q).detach()
    return _of_several(log_p, log_q, bounds.iwae(log_weight) - leave_one_out(log_weight))


def leave_one_out(log_weight: Tensor) -> Tensor:
    """L̂_{−i}: the bound with w_i replaced by the geometric mean of the other weights, ``(k, B)`` → ``(k, B)``.

    Row i does not depend on w_i. It needs k ≥ 2.

    >>> leave_one_out(torch.tensor([[1.0], [4.0], [9.0]]).log()).exp()[0]  # (6 + 4 + 9) / 3
    tensor([6.3333])
    """
    k = len(log_weight)
    own = torch.eye(k, dtype=torch.bool, device=log_weight.device)[..., None]
    others = log_weight.expand(k, *log_weight.shape)  # [i, j] = log w_j
    mean = others.masked_fill(own, 0.0).sum(1) / (k - 1)
    return bounds.iwae(torch.where(own, mean[:, None], others).transpose(0, 1))


def wake(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`bounds.iwae` with the gradient Σ_i w̃_i ∇ log p_i: for the parameters of p only.

    It is the gradient of the bound at fixed draws, and tends to ∇ log p(x) for k → ∞; the wake phase of reweighted
    wake-sleep (Bornschein, Bengio 2015, https://arxiv.org/abs/1406.2751), or with one draw of wake-sleep.
    """
    log_weight = (log_p - log_q).detach()
    return _with_gradient(bounds.iwae(log_weight), (log_weight.softmax(0) * log_p).sum(0))


def _of_several(log_p: Tensor, log_q: Tensor, signal: Tensor) -> Tensor:
    """The multi-sample bound with a signal for the score of each draw, ``(k, B)``."""
    log_weight = log_p - log_q
    share = log_weight.detach().softmax(0)
    surrogate = (share * log_weight).sum(0) + (signal.detach() * log_q).sum(0)
    return _with_gradient(bounds.iwae(log_weight.detach()), surrogate)


def _with_gradient(value: Tensor, surrogate: Tensor) -> Tensor:
    """The number ``value`` with the gradient of ``surrogate``."""
    return value + (surrogate - surrogate.detach())
