"""Kernels of density estimates, for numbers, levels and categories. Pure functions on tensors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from unsup.prob.gaussians import gaussian_cell_log_prob

_GOLDEN = (math.sqrt(5) - 1) / 2


def scott(examples: int, dims: int) -> float:
    """h = N^(−1/(D + 4)), in standard deviations (Scott 1992, https://doi.org/10.1002/9780470316849).

    >>> round(scott(1000, 1), 3)
    0.251
    """
    return float(max(examples, 1) ** (-1 / (dims + 4)))


def silverman(examples: int, dims: int) -> float:
    """h = (N (D + 2) / 4)^(−1/(D + 4)): the best for a Gaussian (Silverman 1986).

    >>> round(silverman(1000, 1), 3)
    0.266
    """
    return float((max(examples, 1) * (dims + 2) / 4) ** (-1 / (dims + 4)))


def aitchison_aitken(values: Tensor, levels: int, share: float | Tensor) -> Tensor:
    """log K(v | u) of categories, ``(B,)`` → ``(B, K)`` (Aitchison, Aitken 1976).

    K(v | u) = 1 − λ if v = u, else λ / (K − 1), with λ = ``share`` · (K − 1) / K: at a share of 1 it is uniform.
    https://doi.org/10.1093/biomet/63.3.413

    Args:
        values: v.
        levels: K, the number of values of u.
        share: above 0, at most 1.

    >>> aitchison_aitken(torch.tensor([0]), 4, 0.4).exp().tolist()[0]  # doctest: +NUMBER
    [0.7, 0.1, 0.1, 0.1]
    """
    share = torch.as_tensor(share)
    same = values.long()[:, None] == torch.arange(levels, device=values.device)
    return torch.where(same, (1 - share * (levels - 1) / levels).log(), (share / levels).log())


def rounded_gaussian(values: Tensor, levels: int, width: Tensor) -> Tensor:
    """log K(v | u) of whole numbers: the mass of N(u, width²) in the cell v ± ½; the end cells have the tails.

    ``(B,)`` → ``(B, K)``, for all u of K levels; masses of v sum to one for every u.
    """
    centre = torch.arange(levels, dtype=width.dtype, device=values.device)
    v = values.to(width.dtype)[:, None]
    return gaussian_cell_log_prob(v - 0.5, v + 0.5, centre, width.log(), v < 0.5, v > levels - 1.5)


def golden_section(value: Callable[[float], float], low: float, high: float, steps: int) -> float:
    """Where a function with a single maximum between ``low`` and ``high`` has it, to 0.618^steps of the interval.

    >>> round(golden_section(lambda t: -((t - 0.3) ** 2), -1.0, 2.0, 30), 4)
    0.3
    """
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = value(left), value(right)
    for _ in range(steps):
        if at_left > at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = value(right)
    return left if at_left > at_right else right
