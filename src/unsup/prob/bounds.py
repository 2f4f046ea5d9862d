"""Lower bounds on log p(x) from importance weights. Pure functions of log-weights.

Of k draws z_i ~ q(z | x) the log-weights are log w_i = log p(x, z_i) − log q(z_i | x), ``(k, B)``; every bound is
``(B,)``. The gradient with respect to the parameters φ of q reaches log w in two ways: through z_i, and through the
density q itself. With the latter detached (`unsup.nn.posterior.DiagonalGaussian.held`), `elbo` has the gradient of
"sticking the landing" (Roeder, Wu, Duvenaud 2017, https://arxiv.org/abs/1703.09194): the omitted term has mean 0, and
the rest vanishes if q is exact. For `iwae` this gradient would be biased; use `dreg` instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unsup.core.parallel import mean_over_rows
from unsup.prob.distributions import log_mean_exp


def elbo(log_weight: Tensor) -> Tensor:
    """The evidence lower bound L_1 = E_q[log p(x, z) − log q(z | x)], a mean over k draws: ``(k, B)`` → ``(B,)``.

    Kingma, Welling 2014, https://arxiv.org/abs/1312.6114.

    >>> import torch
    >>> elbo(torch.tensor([[0.25], [0.75]]).log()).exp().square()
    tensor([0.1875])
    """
    return log_weight.mean(0)


def iwae(log_weight: Tensor) -> Tensor:
    """L_k = log (1/k) Σ_i w_i, which increases with k to log p(x) in expectation: ``(k, B)`` → ``(B,)``.

    Burda, Grosse, Salakhutdinov 2016, https://arxiv.org/abs/1509.00519.

    >>> import torch
    >>> iwae(torch.tensor([[0.25], [0.75]]).log()).exp()
    tensor([0.5000])
    """
    return log_mean_exp(log_weight, 0)


def dreg(log_weight: Tensor, z: Tensor) -> Tensor:
    """The value of `iwae` with a gradient whose signal-to-noise ratio does not decrease with k.

    With w̃_i = w_i / Σ_j w_j the gradients are Σ_i w̃_i ∂log w_i/∂θ for the parameters of p, and

        Σ_i w̃_i² (∂log w_i/∂z_i) (∂z_i/∂φ)

    for those of q, both unbiased (Tucker, Lawson, Gu, Maddison 2019, https://arxiv.org/abs/1810.04152).

    Args:
        log_weight: ``(k, B)``, a function of ``z`` in which the parameters of q are detached.
        z: the draws ``(k, B, L)``, used only for ``log_weight``: gradients through them are multiplied
            by w̃_i.
    """
    share = log_weight.detach().softmax(0)
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * share.unsqueeze(-1))
    surrogate = (share * log_weight).sum(0)
    return log_mean_exp(log_weight.detach(), 0) + (surrogate - surrogate.detach())


def with_free_bits(parts: Tensor, least: float, weight: Tensor | None = None) -> Tensor:
    """The KL that costs something, of each example: ``(B, n)`` → ``(B,)``.

    A part whose mean over the batch, of all processes, is at most ``least`` counts as ``least`` and has no gradient
    (Kingma et al. 2016, https://arxiv.org/abs/1606.04934).

    Args:
        weight: of each example in the mean, ``(B,)``.

    >>> with_free_bits(torch.tensor([[0.1, 2.0], [0.3, 1.0]]), 0.5)
    tensor([2.5000, 1.5000])
    """
    held = parts.detach()
    if weight is None:
        mean = mean_over_rows(held.mean(0))
    else:
        mean = mean_over_rows((weight[:, None] * held).mean(0)) / mean_over_rows(weight.mean())
    return torch.where(mean > least, parts, least).sum(1)
