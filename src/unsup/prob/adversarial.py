"""Losses of two players on logits, and penalties on the gradient of a critic. Pure functions.

The output v = D(x) of the critic is always a logit; log σ(v) = −softplus(−v), which avoids log 0. Losses and penalties
are per example, ``(B,)``; a player minimises their mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import relu, softplus

from unsup.core import random
from unsup.core.errors import InputError
from unsup.prob.distributions import at_least_float32

AdversarialLoss = Literal["minimax", "non-saturating", "least-squares", "wgan", "wgan-gp", "hinge"]
Critic = Callable[[Tensor], Tensor]


def discriminator_loss(
    name: AdversarialLoss, real_logits: Tensor, fake_logits: Tensor, smoothing: float = 0.0
) -> Tensor:
    """The loss of the critic for each pair of a real and a fake example, without its penalty: ``(B,)``.

    - ``minimax``, ``non-saturating``: E softplus(−v_r) + E softplus(v_f) (Goodfellow et al. 2014,
      https://arxiv.org/abs/1406.2661).
    - ``least-squares``: ½E(v_r − 1)² + ½E v_f² (Mao et al. 2017, https://arxiv.org/abs/1611.04076).
    - ``wgan``, ``wgan-gp``: E v_f − E v_r (Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875; the penalty of
      ``wgan-gp`` is `gradient_penalty`).
    - ``hinge``: E max(0, 1 − v_r) + E max(0, 1 + v_f) (Lim and Ye 2017, https://arxiv.org/abs/1705.02894).

    Args:
        name: name of the loss.
        real_logits: ``(B,)``, logits of data.
        fake_logits: ``(B,)``, logits of the same number of samples.
        smoothing: s; the target of real examples is 1 − s, that of fakes 0 (Salimans et al. 2016,
            https://arxiv.org/abs/1606.03498); for losses with targets only.

    Raises:
        InputError: ``smoothing`` with a loss that has no targets.

    >>> v = torch.zeros(3)
    >>> {name: round(float(discriminator_loss(name, v, v)[0]), 4) for name in ("minimax", "least-squares", "hinge")}
    {'minimax': 1.3863, 'least-squares': 0.5, 'hinge': 2.0}
    """
    real, fake = at_least_float32(real_logits), at_least_float32(fake_logits)
    if smoothing and name not in ("minimax", "non-saturating", "least-squares"):
        raise InputError(
            f"smoothing={smoothing} needs a loss with targets, which {name!r} does not have; use smoothing=0, or "
            "minimax, non-saturating or least-squares"
        )
    match name:
        case "minimax" | "non-saturating":  # (1 − s) softplus(−v) + s softplus(v) = softplus(−v) + s v
            return softplus(-real) + smoothing * real + softplus(fake)
        case "least-squares":
            return 0.5 * (real - (1 - smoothing)).square() + 0.5 * fake.square()
        case "wgan" | "wgan-gp":
            return fake - real
        case "hinge":
            return relu(1 - real) + relu(1 + fake)


def generator_loss(name: AdversarialLoss, fake_logits: Tensor) -> Tensor:
    """The loss of the generator for each sample, ``(B,)``; for the papers see `discriminator_loss`.

    - ``minimax``: E log(1 − σ(v_f)) = −E softplus(v_f).
    - ``non-saturating``: −E log σ(v_f) = E softplus(−v_f).
    - ``least-squares``: ½E(v_f − 1)².
    - ``wgan``, ``wgan-gp``, ``hinge``: −E v_f.

    Args:
        name: name of the loss.
        fake_logits: ``(B,)``, logits of samples.

    >>> v = torch.zeros(3)
    >>> {name: round(float(generator_loss(name, v)[0]), 4) for name in ("minimax", "non-saturating", "least-squares")}
    {'minimax': -0.6931, 'non-saturating': 0.6931, 'least-squares': 0.5}
    """
    fake = at_least_float32(fake_logits)
    match name:
        case "minimax":
            return -softplus(fake)
        case "non-saturating":
            return softplus(-fake)
        case "least-squares":
            return 0.5 * (fake - 1).square()
        case "wgan" | "wgan-gp" | "hinge":
            return -fake


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, generator: Generator | None) -> Tensor:
    """(‖∇f(x̂)‖ − 1)² at x̂ = εx + (1 − ε)G(z) of each example, ``(B,)``, with one ε ~ U[0, 1) each.

    The penalty of WGAN-GP without its weight λ (Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028). The norm of
    an example is over all its axes. It is computed in float32 or float64, independent of autocast. If gradients are
    enabled, it is differentiable with respect to the parameters of the critic.

    Args:
        critic: ``(B, ...)`` → ``(B,)``, each output a function of its own row: no batch statistics.
        real: data ``(B, ...)``.
        fake: the same number of samples; they receive no gradient.
        generator: random generator of the noise ε.

    >>> w = torch.tensor([3.0, 4.0])
    >>> gradient_penalty(lambda x: x @ w, torch.zeros(2, 2), torch.ones(2, 2), None)
    tensor([16., 16.])
    """
    real, fake = at_least_float32(real.detach()), at_least_float32(fake.detach())
    shape = (len(real), *(1 for _ in real.shape[1:]))
    epsilon = random.uniform(shape, generator, like=real)
    gradient = _input_gradient(critic, epsilon * real + (1 - epsilon) * fake)
    norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return (norm - 1).square()


def r1_penalty(critic: Critic, real: Tensor) -> Tensor:
    """‖∇D(x)‖² of each example, ``(B,)``, without the weight γ/2 (Mescheder, Geiger, Nowozin 2018, https://arxiv.org/abs/1801.04406).

    Precision and differentiability are as in `gradient_penalty`.

    Args:
        critic: ``(B, ...)`` → ``(B,)``, each output a function of its own row: no batch statistics.
        real: data ``(B, ...)``.

    >>> w = torch.tensor([3.0, 4.0])
    >>> r1_penalty(lambda x: x @ w, torch.zeros(2, 2))
    tensor([25., 25.])
    """
    return _input_gradient(critic, at_least_float32(real.detach())).flatten(1).square().sum(1)


def _input_gradient(critic: Critic, x: Tensor) -> Tensor:
    """∂f(x_b)/∂x_b of every row, with a graph if gradients are enabled."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=differentiable)
    return gradient
