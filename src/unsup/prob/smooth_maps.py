"""Invertible maps of vectors that move all entries along few directions: pure functions, with log-determinants.

Parameters have a row for each example, or one row for all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

_LEAST_PRODUCT = 1e-6 - 1  # wᵀû: at −1 the determinant would be 0 where softplus is
_MOST = 1 - 1e-6  # of products and diagonals: at 1 a determinant could be 0


UNMOVED = math.log(math.e - 1)
"""The ``shift`` of `invertible_direction` with which û = 0 for u = 0."""


def invertible_direction(w: Tensor, u: Tensor, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """û = u + (m(wᵀu) − wᵀu) w / ‖w‖² and wᵀû = m(wᵀu) > −1: ``(…, D)`` twice → ``(…, D)`` and ``(…)``.

    m(a) = −1 + softplus(a + shift), without a shift that of Rezende, Mohamed 2015, https://arxiv.org/abs/1505.05770,
    appendix A.1. It needs w ≠ 0; with the shift `UNMOVED`, w may be arbitrarily small.
    """
    dot = (w * u).sum(-1)
    # At −1 the determinant would be 0. With a shift, a factor keeps the product 0 where it is.
    product = _MOST * (softplus(dot + shift) - 1) if shift else _LEAST_PRODUCT + softplus(dot)
    along = (product - dot) / w.square().sum(-1).clamp(min=torch.finfo(w.dtype).tiny)
    return u + along.unsqueeze(-1) * w, product


def planar(x: Tensor, w: Tensor, u: Tensor, product: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """y = x + û tanh(wᵀx + b) and log|1 + (1 − tanh²) wᵀû|: ``(…, D)`` → ``(…, D)`` and ``(…)``.

    Args:
        x: ``(…, D)``.
        w: ``(…, D)``.
        u: û of `invertible_direction`, ``(…, D)``.
        product: wᵀû, ``(…)``.
        bias: b, ``(…)``.

    >>> w, u = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.0])
    >>> planar(torch.zeros(1, 2), w, u, torch.tensor(0.5), torch.tensor(0.0))
    (tensor([[0., 0.]]), tensor([0.4055]))
    """
    h = ((x * w).sum(-1) + bias).tanh()
    return x + h.unsqueeze(-1) * u, (1 + (1 - h.square()) * product).log()


def bounded_triangle(t: Tensor) -> Tensor:
    """The upper triangle of matrices ``(…, M, M)``, with a diagonal in (−1, 1)."""
    return t.triu(1) + (_MOST * t.diagonal(dim1=-2, dim2=-1).tanh()).diag_embed()


def sylvester(x: Tensor, q: Tensor, outer: Tensor, inner: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """y = x + Q R tanh(R̃ Qᵀx + b) and log|det|, that of an M × M matrix: ``(…, D)`` → ``(…, D)`` and ``(…)``.

    van den Berg, Hasenclever, Tomczak, Welling 2018, https://arxiv.org/abs/1803.05649.

    Args:
        x: ``(…, D)``.
        q: orthonormal columns, ``(…, D, M)``.
        outer: R of `bounded_triangle`, ``(…, M, M)``.
        inner: R̃, the same.
        bias: b, ``(…, M)``.
    """
    along = (x.unsqueeze(-2) @ q).squeeze(-2)  # Qᵀx
    h = ((along.unsqueeze(-2) @ inner.mT).squeeze(-2) + bias).tanh()
    slope = 1 + (1 - h.square()) * (outer.diagonal(dim1=-2, dim2=-1) * inner.diagonal(dim1=-2, dim2=-1))
    moved = (h.unsqueeze(-2) @ outer.mT @ q.mT).squeeze(-2)
    return x + moved, slope.log().sum(-1)
