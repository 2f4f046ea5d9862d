"""Colours: sRGB, CIE Lab, the bins of ab, and distributions over them. Functions on tensors with the channels second.

Colours are sRGB with white D65 (IEC 61966-2-1), in [0, 1]; L is from 0 (black) to 100 (white), and a = b = 0 is grey. L
depends on the luminance Y only, a linear function of linear sRGB.

Bins of ab are those of Zhang, Isola, Efros 2016 (https://arxiv.org/abs/1603.08511), whose number is 313: see `ab_bins`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from unsup.prob.distributions import at_least_float32

GRID = 10
"""Distance of neighbouring bins of ab."""
SIGMA = 5.0
"""Standard deviation of the soft encoding, and of the smoothing of frequencies, in units of ab."""
NEIGHBOURS = 5
"""Number of the bins of one colour in the soft encoding."""

_TO_XYZ = np.array(  # rows X, Y, Z
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_TO_WHITE = _TO_XYZ / _TO_XYZ.sum(1, keepdims=True)  # X / Xₙ, Y / Yₙ, Z / Zₙ, where white is the sum of the primaries
_FROM_WHITE = np.linalg.inv(_TO_WHITE)
_LINEAR = 0.04045  # below, sRGB is linear
_DELTA = 6 / 29  # of the function f of Lab
_CELL = 5.0  # side of the cells of the table of nearest bins
_RANGE = 130.0  # of a and b in this table
_FAR = 1e6  # place of no bin
_ROWS = {  # a: the lowest and the highest b of its bins
    -90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100), -40: (-40, 100), -30: (-50, 100),
    -20: (-50, 100), -10: (-60, 100), 0: (-70, 100), 10: (-80, 90), 20: (-80, 90), 30: (-90, 90), 40: (-100, 90),
    50: (-100, 80), 60: (-110, 80), 70: (-110, 80), 80: (-110, 70), 90: (-110, 70), 100: (-90, 0),
}  # fmt: skip


# --- colour spaces ----------------------------------------------------------------------------------------------------


def linear_of_srgb(x: Tensor) -> Tensor:
    """sRGB → linear sRGB, elementwise."""
    return torch.where(x <= _LINEAR, x / 12.92, ((x.clamp(min=_LINEAR) + 0.055) / 1.055) ** 2.4)


def srgb_of_linear(x: Tensor) -> Tensor:
    """The inverse of `linear_of_srgb`; numbers below 0, which are outside the gamut, are on its linear part."""
    least = _LINEAR / 12.92
    return torch.where(x <= least, 12.92 * x, 1.055 * x.clamp(min=least) ** (1 / 2.4) - 0.055)


def _mixed(x: Tensor, matrix: NDArray[np.float64]) -> Tensor:
    """A matrix times the three channels, without a matrix product, which autocast would round: ``(B, 3, ...)``."""
    one, two, three = x.unbind(1)
    return torch.stack([u * one + v * two + w * three for u, v, w in matrix.tolist()], 1)


def lab_of_linear(x: Tensor) -> Tensor:
    """Linear sRGB → CIE Lab, ``(B, 3, ...)``."""
    ratio = _mixed(x, _TO_WHITE)
    least = _DELTA**3
    f = torch.where(ratio > least, ratio.clamp(min=least) ** (1 / 3), ratio / (3 * _DELTA**2) + 4 / 29)
    fx, fy, fz = f.unbind(1)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], 1)


def linear_of_lab(x: Tensor) -> Tensor:
    """The inverse of `lab_of_linear`; colours outside the gamut have channels below 0 or above 1."""
    lightness, a, b = x.unbind(1)
    fy = (lightness + 16) / 116
    f = torch.stack([fy + a / 500, fy, fy - b / 200], 1)
    return _mixed(torch.where(f > _DELTA, f**3, 3 * _DELTA**2 * (f - 4 / 29)), _FROM_WHITE)


def to_lab(x: Tensor) -> Tensor:
    """sRGB in [0, 1] → CIE Lab, ``(B, 3, ...)``, in float32 at least.

    >>> red, grey = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5]])
    >>> [round(v, 1) for v in to_lab(red[None])[0].tolist()]
    [53.2, 80.1, 67.2]
    >>> [round(v, 1) + 0.0 for v in to_lab(grey[None])[0].tolist()]
    [53.4, 0.0, 0.0]
    """
    return lab_of_linear(linear_of_srgb(at_least_float32(x)))


def from_lab(x: Tensor) -> Tensor:
    """CIE Lab → sRGB in [0, 1], ``(B, 3, ...)``; the inverse of `to_lab`, colours outside the gamut by `into_gamut`."""
    return srgb_of_linear(into_gamut(linear_of_lab(at_least_float32(x)))).clamp(0, 1)


def into_gamut(x: Tensor) -> Tensor:
    """Colours outside the gamut, moved towards the grey of their luminance until they are inside: ``(B, 3, ...)``.

    Y, and with it L, stays: x → Y + s (x − Y) with the largest s ≤ 1 for which all channels of linear sRGB are from 0
    to 1. (Clipping of each channel would change L.)
    """
    luminance = _mixed(x, _TO_WHITE[1:2])
    grey = luminance.clamp(0, 1)
    away = x - luminance
    room = torch.where(away > 0, 1 - grey, grey)
    share = torch.where(away.abs() > room, room / away.abs().clamp(min=torch.finfo(x.dtype).tiny), 1.0)
    return grey + share.amin(1, keepdim=True) * away


# --- bins -------------------------------------------------------------------------------------------------------------


def ab_bins(like: Tensor | None = None) -> Tensor:
    """The centres of the Q = 313 bins of ab, ``(Q, 2)``, ordered by a, then by b; float64 or as ``like``.

    They are the corners of the cells, of a grid of distance 10, that meet the convex hull of the colours of sRGB in ab.
    The published table (``pts_in_hull``) has the same 313 points; 261 of them are the rounded colours of sRGB.

    >>> len(ab_bins())
    313
    """
    points = [(a, b) for a, (low, high) in _ROWS.items() for b in range(low, high + 1, GRID)]
    found = torch.tensor(points, dtype=torch.float64, device="cpu")
    return found if like is None else found.to(like)


@functools.cache
def _nearest_table(neighbours: int) -> NDArray[np.int64]:
    """For each cell of a grid, every bin that can be among the nearest of a point of the cell: ``(N, N, m)``.

    Beyond the last one, the number is Q.
    """
    centres = ab_bins().numpy()
    n = round(2 * _RANGE / _CELL)
    middle = -_RANGE + _CELL * (np.arange(n) + 0.5)
    away = np.abs(np.stack(np.meshgrid(middle, middle, indexing="ij"), -1)[:, :, None] - centres)  # (N, N, Q, 2)
    nearest = ((away - _CELL / 2).clip(0) ** 2).sum(-1)
    farthest = ((away + _CELL / 2) ** 2).sum(-1)
    possible = nearest <= np.partition(farthest, neighbours - 1, 2)[:, :, neighbours - 1 : neighbours]
    most = int(possible.sum(2).max())
    order = np.argsort(~possible, axis=2, kind="stable")[:, :, :most]
    return np.where(np.take_along_axis(possible, order, 2), order, len(centres))


def soft_encoding(ab: Tensor, *, neighbours: int = NEIGHBOURS, sigma: float = SIGMA) -> tuple[Tensor, Tensor]:
    """The nearest bins of colours ``(B, 2, ...)``, and their weights ∝ exp(−d² / 2σ²), with sum 1: ``(B, k, ...)``.

    Only the bins that a table has for the cell of a colour are compared, a dozen instead of 313. Colours are expected
    in the gamut.

    Returns:
        The numbers of the bins (int64), the nearest first, and the weights.

    >>> bins, weights = soft_encoding(torch.tensor([[20.0, -30.0]]), neighbours=1)
    >>> ab_bins()[bins[0, 0]].tolist(), weights.tolist()
    ([20.0, -30.0], [[1.0]])
    """
    a, b = at_least_float32(ab).unbind(1)  # (B, ...)
    table = torch.from_numpy(_nearest_table(neighbours)).to(ab.device)
    at, beside = (((v + _RANGE) / _CELL).floor().clamp(0, len(table) - 1).long() for v in (a, b))
    candidates = table[at, beside]  # (B, ..., m)
    of_a, of_b = pad(ab_bins(a).T, (0, 1), value=_FAR)
    away = (of_a[candidates] - a[..., None]).square() + (of_b[candidates] - b[..., None]).square()
    squared, order = away.topk(neighbours, largest=False)
    weights = (-squared / (2 * sigma**2)).softmax(-1)
    return candidates.gather(-1, order).movedim(-1, 1), weights.movedim(-1, 1)


def lightness_bin(lightness: Tensor, bins: int) -> Tensor:
    """The number of the bin of L, of ``bins`` of equal width from 0 to 100: int64, of the same shape."""
    return (lightness * (bins / 100)).floor().clamp(0, bins - 1).long()


# --- distributions over bins ------------------------------------------------------------------------------------------


def smoothed(counts: Tensor, *, sigma: float = SIGMA) -> Tensor:
    """p̃, the relative frequencies of bins after a Gaussian kernel on the grid: ``(Q,)`` → ``(Q,)``, with sum 1."""
    centres = ab_bins(counts)
    kernel = (-(centres[:, None] - centres).square().sum(2) / (2 * sigma**2)).exp()
    found = (kernel * counts).sum(1)
    return found / found.sum()


def class_weights(p: Tensor, uniform: float) -> Tensor:
    """w ∝ ((1 − λ) p + λ / Q)⁻¹ with Σ p w = 1: ``(Q,)`` → ``(Q,)``; λ is ``uniform``, in (0, 1].

    >>> p = torch.tensor([0.75, 0.25])
    >>> [round(w, 4) for w in class_weights(p, 0.5).tolist()]
    [0.8571, 1.4286]
    """
    found = 1 / ((1 - uniform) * p + uniform / len(p))
    return found / (p * found).sum()


def soft_cross_entropy(logits: Tensor, bins: Tensor, weights: Tensor) -> Tensor:
    """−Σ_k weight_k log softmax(logits)_{bin_k}: ``(B, Q, ...)``, ``(B, k, ...)`` twice → ``(B, ...)`` in nats."""
    # Along the last axis, where maps in channels-last memory are contiguous: four times as fast as along the second.
    nats = -at_least_float32(logits).movedim(1, -1).log_softmax(-1).gather(-1, bins.movedim(1, -1))
    return (weights.movedim(1, -1) * nats).sum(-1)


def annealed_mean(logits: Tensor, temperature: float) -> Tensor:
    """The mean of the bins under softmax(log p / T): ``(B, Q, ...)`` → ab ``(B, 2, ...)``; T = 1 is the mean of p.

    Zhang, Isola, Efros 2016, eq. 5: the mode for T → 0.
    """
    p = (at_least_float32(logits).movedim(1, -1) / temperature).softmax(-1)
    centres = ab_bins(p)
    return torch.stack([(p * centres[:, i]).sum(-1) for i in (0, 1)], 1)


def upsampled(x: Tensor, sides: Sequence[int], stride: int) -> Tensor:
    """Maps whose entries are at pixels 0, s, 2s … → a value of each pixel, bilinear and constant beyond the last entry.

    ``(B, C, ⌈H / s⌉, ⌈W / s⌉)`` → ``(B, C, H, W)``.
    """
    for axis, side in zip((2, 3), sides, strict=True):
        position = torch.arange(side, device=x.device, dtype=x.dtype) / stride
        below = position.floor().long()
        share = (position - below).view(-1, *(1,) * (3 - axis))
        above = (below + 1).clamp(max=x.shape[axis] - 1)
        x = torch.lerp(x.index_select(axis, below), x.index_select(axis, above), share)
    return x
