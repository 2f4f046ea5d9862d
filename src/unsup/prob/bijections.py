"""Elementwise monotone maps: the value and the logarithm of its derivative in one call.

Each map has an inverse. Pure functions on tensors, which may be outputs of a network.
"""

from __future__ import annotations

import torch
from torch import Tensor


def affine(x: Tensor, log_scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """y = x · exp(log_scale) + shift, and log dy/dx = log_scale.

    >>> y, log_derivative = affine(torch.tensor(3.0), torch.tensor(2.0).log(), torch.tensor(1.0))
    >>> round(float(y), 4), round(float(log_derivative), 4)
    (7.0, 0.6931)
    """
    return torch.addcmul(shift, x, log_scale.exp()), log_scale


def affine_inverse(y: Tensor, log_scale: Tensor, shift: Tensor) -> Tensor:
    """The inverse of `affine`."""
    return (y - shift) * (-log_scale).exp()


def additive(x: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """y = x + shift, and log dy/dx = 0."""
    y = x + shift
    return y, y.new_zeros(()).expand_as(y)


def additive_inverse(y: Tensor, shift: Tensor) -> Tensor:
    """The inverse of `additive`."""
    return y - shift
