"""Monotone networks of sigmoids from the line to the line, elementwise: deep dense sigmoidal flows.

A layer maps the values h of I units to those of O units through K sigmoids,

    h′ = logit(w σ(a ⊙ (u h) + b)),  Σ_k w_ok = 1, Σ_i u_ki = 1, all of a, u and w positive

(Huang, Krueger, Lacoste, Courville 2018, https://arxiv.org/abs/1804.00779, eq. 9). The derivative with respect to the
input of the network is carried through the layers as a logarithm: each product of matrices is a sum of exponentials, so
that no product of small numbers is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from unsup.prob.bisection import bisect


class SigmoidLayer(NamedTuple):
    """The parameters of a layer of every entry.

    Attributes:
        log_u: logarithms of u, ``(..., K, I)``; each row is normalised.
        log_a: logarithms of a, ``(..., K)``.
        b: offsets, ``(..., K)``.
        log_w: logarithms of w, ``(..., O, K)``; each row is normalised.
    """

    log_u: Tensor
    log_a: Tensor
    b: Tensor
    log_w: Tensor


def dense_sigmoid(x: Tensor, layers: Sequence[SigmoidLayer]) -> tuple[Tensor, Tensor]:
    """y of every entry x ``(...)``, and log dy/dx. The first layer has one input, and the last one output.

    >>> zero = torch.zeros(1, 1)
    >>> y, log_derivative = dense_sigmoid(torch.tensor(2.0), [SigmoidLayer(zero, zero[0], zero[0] + 1, zero)])
    >>> round(float(y), 5), round(abs(float(log_derivative)), 5)
    (3.0, 0.0)
    """
    h, log_slope = x.unsqueeze(-1), torch.zeros_like(x).unsqueeze(-1)
    for log_u, log_a, b, log_w in layers:
        inner = log_a.exp() * (log_u.exp() * h.unsqueeze(-2)).sum(-1) + b
        inner_slope = log_a + _log_product(log_u, log_slope)
        below, above = logsigmoid(inner), logsigmoid(-inner)
        log_f, log_rest = _log_product(log_w, below), _log_product(log_w, above)
        h = log_f - log_rest
        # d logit f = df / (f (1 − f)), dσ = σ (1 − σ)
        log_slope = _log_product(log_w, inner_slope + below + above) - log_f - log_rest
    return h.squeeze(-1), log_slope.squeeze(-1)


def dense_sigmoid_inverse(y: Tensor, layers: Sequence[SigmoidLayer]) -> Tensor:
    """The x of every entry that `dense_sigmoid` maps to ``y``, by bisection, with gradients.

    If all values that enter a layer are at least (t − b_k) / a_k for every k, its outputs are at least t. From the last
    layer to the first this bounds x from above; from below it is the same with the smallest.
    """
    with torch.no_grad():
        low = high = y
        for _, log_a, b, _ in reversed(layers):
            low, high = (((t.unsqueeze(-1) - b) * (-log_a).exp()) for t in (low, high))
            low, high = low.amin(-1), high.amax(-1)
        x = bisect(lambda x: dense_sigmoid(x, layers)[0] < y, low, high)
    if not torch.is_grad_enabled():
        return x
    # A step of Newton's method from the root has the gradient of the inverse function.
    found, log_slope = dense_sigmoid(x, layers)
    return x - (found - y) * (-log_slope.detach()).exp()


def _log_product(log_matrix: Tensor, log_vector: Tensor) -> Tensor:
    """log(M v) of logarithms ``(..., R, C)`` and ``(..., C)``."""
    return (log_matrix + log_vector.unsqueeze(-2)).logsumexp(-1)
