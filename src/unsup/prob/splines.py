"""Monotone rational-quadratic splines with identity tails, elementwise.

Inside [−B, B] the map is, in a bin of width w and height h between knots (x_k, y_k) with slopes δ_k, δ_{k+1},

    y = y_k + h (s ξ² + δ_k ξ(1 − ξ)) / (s + (δ_{k+1} + δ_k − 2s) ξ(1 − ξ)),    ξ = (x − x_k) / w,  s = h / w

and outside it is y = x, with slope 1 at both ends (Durkan, Bekasov, Murray, Papamakarios 2019,
https://arxiv.org/abs/1906.04032, section 3.1). Pure functions on tensors, which may be outputs of a network.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

SMALLEST = 1e-3
"""The smallest width and height of a bin, as a share of 2B, and the smallest slope at a knot."""
_SLOPE_ONE = math.log(math.expm1(1 - SMALLEST))  # softplus of this is the slope 1 of the identity


def outputs_of(bins: int) -> int:
    """Number of parameters of each entry: widths, heights, and the slopes at inner knots."""
    return 3 * bins - 1


class Knots(NamedTuple):
    """Knots of the splines of all entries.

    Attributes:
        x: places, ``(..., K + 1)``, from −B to B.
        y: values, ``(..., K + 1)``.
        slope: derivatives, ``(..., K + 1)``; 1 at both ends.
    """

    x: Tensor
    y: Tensor
    slope: Tensor

    @classmethod
    def of(cls, outputs: Tensor, bound: float) -> Knots:
        """The knots that parameters ``(..., 3K − 1)`` describe; zeros describe the identity."""
        bins = (outputs.shape[-1] + 1) // 3
        widths, heights, slopes = outputs.split([bins, bins, bins - 1], -1)
        slope = pad(SMALLEST + softplus(slopes + _SLOPE_ONE), (1, 1), value=1.0)
        return cls(_cumulated(widths, bound), _cumulated(heights, bound), slope)


class _Bin(NamedTuple):
    """The bin of each entry: its left knot, width, height, and the slopes at its ends."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    left: Tensor
    right: Tensor


def rational_quadratic(x: Tensor, outputs: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """y and log dy/dx of every entry.

    Args:
        x: any shape.
        outputs: parameters of every entry, ``(*x.shape, 3K − 1)``.
        bound: B.

    >>> y, log_derivative = rational_quadratic(torch.tensor([-9.0, 0.5]), torch.zeros(2, 11), bound=3.0)
    >>> y, log_derivative.abs().max() < 1e-5
    (tensor([-9.0000,  0.5000]), tensor(True))
    """
    knots, inside = Knots.of(outputs, bound), x.abs() < bound
    own = _bin(knots, knots.x, torch.where(inside, x, torch.zeros_like(x)))
    xi = ((torch.where(inside, x, own.x) - own.x) / own.width).clamp(0, 1)
    s, product = own.height / own.width, xi * (1 - xi)
    denominator = s + (own.left + own.right - 2 * s) * product
    y = own.y + own.height * (s * xi.square() + own.left * product) / denominator
    rise = own.right * xi.square() + 2 * s * product + own.left * (1 - xi).square()
    log_derivative = 2 * s.log() + rise.log() - 2 * denominator.log()
    return torch.where(inside, y, x), torch.where(inside, log_derivative, torch.zeros_like(x))


def rational_quadratic_inverse(y: Tensor, outputs: Tensor, bound: float) -> Tensor:
    """The inverse of `rational_quadratic`: the root of a quadratic equation in the bin of each entry."""
    knots, inside = Knots.of(outputs, bound), y.abs() < bound
    own = _bin(knots, knots.y, torch.where(inside, y, torch.zeros_like(y)))
    s = own.height / own.width
    above = (torch.where(inside, y, own.y) - own.y).clamp(min=0)
    bend = own.left + own.right - 2 * s
    a = own.height * (s - own.left) + above * bend
    b = own.height * own.left - above * bend
    c = -s * above
    # Rounding can make the discriminant of a nearly linear piece negative.
    root = (b.square() - 4 * a * c).clamp(min=0).sqrt()
    xi = (2 * c / (-b - root)).clamp(0, 1)
    return torch.where(inside, own.x + xi * own.width, y)


def _cumulated(shares: Tensor, bound: float) -> Tensor:
    """Unnormalised sizes of bins → knots from −B to B."""
    bins = shares.shape[-1]
    sizes = SMALLEST + (1 - SMALLEST * bins) * shares.softmax(-1)
    inner = 2 * bound * sizes[..., :-1].cumsum(-1) - bound
    return pad(pad(inner, (1, 0), value=-bound), (0, 1), value=bound)


def _bin(knots: Knots, places: Tensor, at: Tensor) -> _Bin:
    """The bin that contains each entry of ``at``, which lie between the first and the last of ``places``."""
    number = (at.unsqueeze(-1) >= places[..., 1:-1]).sum(-1, keepdim=True)
    ends = torch.cat([number, number + 1], -1)
    x, y, slope = (t.gather(-1, ends) for t in knots)
    return _Bin(x[..., 0], y[..., 0], x[..., 1] - x[..., 0], y[..., 1] - y[..., 0], slope[..., 0], slope[..., 1])
