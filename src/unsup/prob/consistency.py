"""Losses of predictions without labels: entropy, divergence between predictions, sharpened targets. On logits.

Everything is computed in float32 or float64, also under autocast.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from unsup.prob.distributions import at_least_float32

Schedule = Literal["none", "linear", "exp", "log"]
"""How the threshold of training signal annealing rises."""


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

    >>> sharpened(torch.tensor([[0.6, 0.4]]), 0.5)
    tensor([[0.6923, 0.3077]])
    """
    return (at_least_float32(p).log() / temperature).softmax(1)


def scaled_to(x: Tensor, norm: float) -> Tensor:
    """Each example ``(B, …)`` as a vector of this L2 norm; an example of zeros stays."""
    flat = at_least_float32(x).flatten(1)
    largest = flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
    flat = flat / largest  # squares of small numbers do not vanish
    return (norm * flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-12)).view(x.shape)


def squared_distance(one: Tensor, two: Tensor) -> Tensor:
    """Σ_k (p_k − q_k)² / K of softmax(one) and softmax(two), both ``(B, K)`` → ``(B,)``."""
    p, q = (at_least_float32(each).softmax(1) for each in (one, two))
    return (p - q).square().mean(1)


def soft_cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """−Σ_k q_k log p_k of probabilities q and p = softmax(logits), both ``(B, K)`` → ``(B,)``."""
    return -(target * at_least_float32(logits).log_softmax(1)).sum(1)


def gaussian_ramp(share: float, end: float) -> float:
    """exp(−5 (1 − t)²) with t = share / end, then 1: the ramp of Laine, Aila 2017.

    >>> round(gaussian_ramp(0.0, 0.3), 4), gaussian_ramp(0.3, 0.3), gaussian_ramp(0.5, 0.0)
    (0.0067, 1.0, 1.0)
    """
    t = 1.0 if end == 0 else min(1.0, share / end)
    return math.exp(-5 * (1 - t) ** 2)


def linear_ramp(share: float, start: float, end: float) -> float:
    """0 until ``start``, then linear to 1 at ``end``, all shares of a run.

    >>> linear_ramp(0.1, 0.25, 0.75), linear_ramp(0.5, 0.25, 0.75), linear_ramp(0.9, 0.25, 0.75)
    (0.0, 0.5, 1.0)
    """
    if share < start:
        return 0.0
    return 1.0 if share >= end else (share - start) / (end - start)


def annealed_threshold(schedule: Schedule, share: float, classes: int) -> float:
    """η of training signal annealing, from 1/K to 1 over a run (Xie et al. 2020, section 2): α (1 − 1/K) + 1/K.

    α is share, exp(5 (share − 1)) or 1 − exp(−5 share). An example with p(y | x) above η is not trained on.

    >>> annealed_threshold("linear", 0.5, 2), annealed_threshold("none", 0.0, 2)
    (0.75, inf)
    """
    if schedule == "none":
        return math.inf
    rise = {"linear": share, "exp": math.exp(5 * (share - 1)), "log": 1 - math.exp(-5 * share)}[schedule]
    return rise * (1 - 1 / classes) + 1 / classes
