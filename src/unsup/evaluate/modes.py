"""How many modes of a known mixture samples cover.

A sample is *good* if it is within three standard deviations of the nearest mean, and a mode is *covered* if it has a
good sample (Lin, Khetan, Fanti, Oh 2018, https://arxiv.org/abs/1712.04086). With the shares q of the modes among the
good samples and u = 1/K, the imbalance is KL(q ‖ u) = Σ_k q_k log(K q_k), where a mode without samples adds 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.data.builtin import GRID_STD, GRID_STEP, RING_RADIUS, RING_STD
from unsup.evaluate.estimate import Estimate
from unsup.evaluate.features import digit_reader, read_digits

STACKED = "stacked-mnist"
MODES_KNOWN = ("ring8", "grid25", STACKED)
"""Data sets with known modes."""
WITHIN = 3.0
"""Largest distance of a good sample from its mean, in standard deviations."""


@dataclass(frozen=True)
class ModeCoverage:
    """Covered modes.

    Attributes:
        modes: number of covered modes.
        good: share of good samples; 1 if a classifier assigns every sample to a mode.
        kl: KL(q ‖ u) in nats; NaN without a good sample.
        of: number of modes.
        n: number of samples.
        covered: ``modes`` with an interval from the jackknife over samples: with f modes that have one good sample,
            its variance is f (1 − f/n).
        divergence: ``kl`` with a normal interval of variance var_q(log q) / m + (K − 1) / 2m² for m good samples: the
            first two orders of the delta method.
    """

    modes: int
    good: float
    kl: float
    of: int
    n: int
    covered: Estimate = field(repr=False)
    divergence: Estimate = field(repr=False)

    @property
    def chance_kl(self) -> float:
        """The expected ``kl`` of good samples with equal shares: about (K − 1) / 2N for N ≫ K."""
        return (self.of - 1) / (2 * max(self.good * self.n, 1))


def mode_coverage(samples: Tensor, means: Tensor, std: float) -> ModeCoverage:
    """Coverage of isotropic modes by samples ``(N, D)``; means ``(K, D)``, and ``std`` of all modes.

    Samples of the true distribution in the plane are good with probability 1 − e^(−9/2) ≈ 0.989.

    Raises:
        InputError: shapes that do not match, or no samples.

    >>> mode_coverage(torch.tensor([[0.1, 0.0], [5.0, 5.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]]), 0.1)
    ModeCoverage(modes=1, good=0.5, kl=0.693..., of=2, n=2)
    """
    if samples.ndim != 2 or means.ndim != 2 or samples.shape[1] != means.shape[1] or not len(samples) or not len(means):
        raise InputError(
            f"samples {tuple(samples.shape)}, means {tuple(means.shape)} given; expected (N, D) and (K, D), not empty"
        )
    x, centre = samples.detach().cpu().double(), means.cpu().double()
    distance, nearest = torch.cdist(x, centre, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    good = distance <= WITHIN * std  # False for samples that are not finite
    return _covered(nearest[good], len(means), len(samples))


def class_coverage(assigned: Tensor, of: int) -> ModeCoverage:
    """Coverage of ``of`` modes by samples that a classifier assigned to them: int64 ``(N,)``.

    >>> class_coverage(torch.tensor([0, 0, 2, 2]), 3)
    ModeCoverage(modes=2, good=1.0, kl=0.405..., of=3, n=4)
    """
    if not len(assigned) or int(assigned.min()) < 0 or int(assigned.max()) >= of:
        raise InputError(f"modes of {len(assigned)} samples given; expected one sample or more, all from 0 to {of - 1}")
    return _covered(assigned.cpu(), of, len(assigned))


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


def known_modes(name: str | None, fake: Tensor) -> tuple[ModeCoverage, str]:
    """Mode coverage of samples of a data set with known modes, and a note on the assignment to modes, or "".

    Raises:
        InputError: the modes are not known.
    """
    plane = plane_modes(name)
    if plane is not None:
        return mode_coverage(fake, *plane), ""
    if name != STACKED:
        raise InputError(f"the modes of {name or 'this data'} are not known, only those of {', '.join(MODES_KNOWN)}")
    digits = read_digits(fake.reshape(-1, 1, *fake.shape[2:])).view(-1, 3)
    accuracy = digit_reader().record["accuracy"]["mnist"]
    note = f"modes are read by the extractor grey, which classifies {accuracy:.2%} of MNIST's test digits correctly"
    return class_coverage((digits * torch.tensor([100, 10, 1])).sum(1), 1000), note


def _covered(assigned: Tensor, of: int, n: int) -> ModeCoverage:
    counts = assigned.bincount(minlength=of)
    share = counts[counts > 0].double() / max(len(assigned), 1)
    kl = float((share * (share * of).log()).sum()) if len(assigned) else math.nan
    once, m = int((counts == 1).sum()), max(len(assigned), 1)
    logs = share.log()
    spread = float((share * logs.square()).sum() - (share * logs).sum().square())
    found = Estimate.normal(len(share), math.sqrt(once * (1 - once / n)))
    divergence = Estimate.normal(kl, math.sqrt(max(spread, 0.0) / m + (of - 1) / (2 * m * m)))
    return ModeCoverage(len(share), len(assigned) / n, kl, of, n, found, divergence)
