"""Mixtures of logistics rounded to levels. Pure functions on tensors.

    P(x) = Σ_k π_k [σ((e_{x+1} − μ_k) / s_k) − σ((e_x − μ_k) / s_k)]      e_j = −1 + 2 j / L

for levels x = 0 … L − 1, where e_0 = −∞ and e_L = ∞, so that the edge levels include the tails (Salimans, Karpathy,
Chen, Kingma 2017, https://arxiv.org/abs/1701.05517, without its mid-point approximation of small masses). A difference
of distribution functions is computed as a product, so that masses have full relative precision in both tails, and
adjacent levels share their edge, so that masses sum to one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from unsup.prob import distributions as dist


def logistic_mixture_log_prob(x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """log P(x) of levels ``x`` (…) under mixtures (…, K). Between the levels it is continuous.

    >>> parts = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    >>> total = sum(logistic_mixture_log_prob(torch.tensor(x), *parts, levels=5).exp() for x in range(5))
    >>> bool((total - 1).abs() < 1e-12)
    True
    """
    logits = dist.at_least_float32(logits)
    component = dist.discretized_logistic_log_prob(x.unsqueeze(-1), mean, log_scale, levels)
    return torch.logsumexp(logits.log_softmax(-1) + component, -1)


def logistic_mixture_log_masses(logits: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """log P of every level: mixtures (…, K) → (…, levels)."""
    logits, mean, log_scale = (dist.at_least_float32(t) for t in (logits, mean, log_scale))
    inverse = (-log_scale).exp().unsqueeze(-2)
    edges = -1 + 2 * torch.arange(1, levels, dtype=mean.dtype, device=mean.device).unsqueeze(-1) / levels
    z = (edges - mean.unsqueeze(-2)) * inverse  # (…, levels − 1, K)
    below, above = logsigmoid(z), logsigmoid(-z)
    # σ(b) − σ(a) = σ(b) σ(−a) (1 − e^(a − b))
    inside = below[..., 1:, :] + above[..., :-1, :] + torch.log(-torch.expm1(-2 / levels * inverse))
    component = torch.cat([below[..., :1, :], inside, above[..., -1:, :]], -2)
    return torch.logsumexp(logits.log_softmax(-1).unsqueeze(-2) + component, -1)
