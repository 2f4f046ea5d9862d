"""Losses of predictions without labels: entropy, divergence between predictions, sharpened targets. On logits.

Everything is computed in float32 or float64, also under autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unsup.prob.distributions import at_least_float32


def entropy(logits: Tensor) -> Tensor:
    """H(p) in nats of p = softmax(logits), ``(B, K)`` → ``(B,)``.

    >>> entropy(torch.zeros(1, 4)).exp()
    tensor([4.])
    """
    log_p = at_least_float32(logits).log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def divergence(target: Tensor, logits: Tensor) -> Tensor:
    """KL(p ‖ q) in nats of p = softmax(target) and q = softmax(logits), both ``(B, K)`` → ``(B,)``.

    The gradient of both is that of the formula; targets of a loss are detached by the caller.

    >>> float(divergence(torch.zeros(1, 3), torch.full((1, 3), 2.0)))
    0.0
    """
    log_p, log_q = (at_least_float32(each).log_softmax(1) for each in (target, logits))
    return (log_p.exp() * (log_p - log_q)).sum(1)


def fisher_product(logits: Tensor, direction: Tensor) -> Tensor:
    """(diag p − p pᵀ) v, the second derivative of KL(p ‖ softmax(l)) by l at the logits of p, times v: ``(B, K)``."""
    p = at_least_float32(logits).softmax(1)
    moved = p * direction.to(p.dtype)
    return moved - p * moved.sum(1, keepdim=True)


def sharpened(p: Tensor, temperature: float) -> Tensor:
    """p^(1/T) / Σ p^(1/T), ``(B, K)``: T = 1 is p itself, and T → 0 its largest entry alone.

    >>> sharpened(torch.tensor([[0.6, 0.4]]), 0.01)
    tensor([[1.0000e+00, 2.4591e-18]])
    """
    return (at_least_float32(p).log() / temperature).softmax(1)


def scaled_to(x: Tensor, norm: float) -> Tensor:
    """Each example ``(B, …)`` as a vector of this L2 norm; an example of zeros stays."""
    flat = at_least_float32(x).flatten(1)
    largest = flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
    flat = flat / largest  # squares of small numbers do not vanish
    return (norm * flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-12)).view(x.shape)
