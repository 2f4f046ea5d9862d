"""How many modes of a known mixture a sample covers.

A draw is *good* when it lies within three standard deviations of the nearest mean, and a mode is *covered* when it has
one good draw (Lin, Khetan, Fanti, Oh 2018, https://arxiv.org/abs/1712.04086). With q the shares of the modes among the
good draws and u = 1/K, the loss of balance is KL(q ‖ u) = Σ_k q_k log(K q_k), where a mode without draws adds 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.data.builtin import GRID_STD, GRID_STEP, RING_RADIUS, RING_STD

STACKED = "stacked-mnist"
MODES_KNOWN = ("ring8", "grid25", STACKED)
"""Data sets whose modes are known."""
WITHIN = 3.0
"""Standard deviations from its mean up to which a draw is good."""


@dataclass(frozen=True)
class ModeCoverage:
    """What a sample says about the modes of its target.

    Attributes:
        modes: covered modes.
        good: share of good draws; 1 where every draw is given a mode (by a classifier).
        kl: KL(q ‖ u) in nats of the good draws' shares of the modes from equal shares; NaN without a good draw.
        of: modes there are.
        n: draws.
    """

    modes: int
    good: float
    kl: float
    of: int
    n: int

    @property
    def chance_kl(self) -> float:
        """What chance alone makes of ``kl`` for good draws of equal shares: about (K − 1) / 2N for N ≫ K."""
        return (self.of - 1) / (2 * max(self.good * self.n, 1))


def mode_coverage(samples: Tensor, means: Tensor, std: float) -> ModeCoverage:
    """Coverage of isotropic modes: draws ``(N, D)``, means ``(K, D)`` and the std that all modes share.

    True draws in the plane are good with probability 1 − e^(−9/2) ≈ 0.989.

    Raises:
        InputError: shapes that do not fit, or no draws.

    >>> mode_coverage(torch.tensor([[0.1, 0.0], [5.0, 5.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]]), 0.1)
    ModeCoverage(modes=1, good=0.5, kl=0.693..., of=2, n=2)
    """
    if samples.ndim != 2 or means.ndim != 2 or samples.shape[1] != means.shape[1] or not len(samples) or not len(means):
        raise InputError(
            f"samples {tuple(samples.shape)}, means {tuple(means.shape)} given; expected (N, D) and (K, D), not empty"
        )
    x, centre = samples.detach().cpu().double(), means.cpu().double()
    distance, nearest = torch.cdist(x, centre, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    good = distance <= WITHIN * std  # a draw that is not finite is not good
    counts = nearest[good].bincount(minlength=len(means))
    return _covered(counts, len(samples))


def class_coverage(assigned: Tensor, of: int) -> ModeCoverage:
    """Coverage of ``of`` modes by draws that a classifier assigned to them: int64 ``(N,)``.

    >>> class_coverage(torch.tensor([0, 0, 2, 2]), 3)
    ModeCoverage(modes=2, good=1.0, kl=0.405..., of=3, n=4)
    """
    if not len(assigned) or int(assigned.min()) < 0 or int(assigned.max()) >= of:
        raise InputError(f"modes of {len(assigned)} draws given; expected one draw or more, all from 0 to {of - 1}")
    return _covered(assigned.cpu().bincount(minlength=of), len(assigned))


def plane_modes(name: str | None) -> tuple[Tensor, float] | None:
    """Means ``(K, 2)`` and std of the data sets ``ring8`` and ``grid25``; None for any other.

    >>> means, std = plane_modes("grid25")
    >>> tuple(means.shape), std
    ((25, 2), 0.05)
    """
    if name == "ring8":
        angle = np.pi / 4 * np.arange(8)
        return torch.from_numpy(RING_RADIUS * np.stack([np.cos(angle), np.sin(angle)], 1)), RING_STD
    if name == "grid25":
        side = GRID_STEP * (torch.arange(5, dtype=torch.float64) - 2)
        return torch.cartesian_prod(side, side), GRID_STD
    return None


def _covered(counts: Tensor, n: int) -> ModeCoverage:
    total = int(counts.sum())
    share = counts[counts > 0].double() / max(total, 1)
    kl = float((share * (share * len(counts)).log()).sum()) if total else math.nan
    return ModeCoverage(int((counts > 0).sum()), total / n, kl, len(counts), n)
