"""How many modes of a known mixture samples cover.

A sample is *good* if it is within three standard deviations of the nearest mean, and a mode is *covered* if it has a
good sample (Lin, Khetan, Fanti, Oh 2018, https://arxiv.org/abs/1712.04086). With the shares q of the modes among the
good samples and u = 1/K, the imbalance is KL(q ‖ u) = Σ_k q_k log(K q_k), where a mode without samples adds 0.

Coverage is three figures of N samples, with the details ``of``, the number of modes, and ``chance_kl``, the expected
divergence of good samples with equal shares: about (K − 1) / 2N for N ≫ K.

- ``modes``: the number of covered modes; its interval is from the jackknife over samples: with f modes that have one
  good sample, its variance is f (1 − f/n).
- ``modes_good``: the share of good samples; 1 if a classifier assigns every sample to a mode.
- ``modes_kl``: KL(q ‖ u) in nats; NaN without a good sample. The interval is normal, of variance
  var_q(log q) / m + (K − 1) / 2m² for m good samples: the first two orders of the delta method.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.data.planes import GRID_STD, GRID_STEP, RING_RADIUS, RING_STD
from unsup.evaluate.estimate import Estimate, make_figure, wilson
from unsup.evaluate.features import digit_reader, read_digits
from unsup.evaluate.records import Figure

STACKED = "stacked-mnist"
MODES_KNOWN = ("ring8", "grid25", STACKED)
"""Data sets with known modes."""
WITHIN = 3.0
"""Largest distance of a good sample from its mean, in standard deviations."""

Coverage = dict[str, Figure]


def mode_coverage(samples: Tensor, means: Tensor, std: float) -> Coverage:
    """Coverage of isotropic modes by samples ``(N, D)``; means ``(K, D)``, and ``std`` of all modes.

    Samples of the true distribution in the plane are good with probability 1 − e^(−9/2) ≈ 0.989.

    Raises:
        InputError: shapes that do not match, or no samples.

    >>> x, means = torch.tensor([[0.1, 0.0], [5.0, 5.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> {key: figure["value"] for key, figure in mode_coverage(x, means, 0.1).items()}
    {'modes': 1, 'modes_good': 0.5, 'modes_kl': 0.693...}
    """
    if samples.ndim != 2 or means.ndim != 2 or samples.shape[1] != means.shape[1] or not len(samples) or not len(means):
        raise InputError(
            f"samples {tuple(samples.shape)}, means {tuple(means.shape)} given; expected (N, D) and (K, D), not empty"
        )
    x, centre = samples.detach().cpu().double(), means.cpu().double()
    distance, nearest = torch.cdist(x, centre, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    good = distance <= WITHIN * std  # False for samples that are not finite
    return _covered(nearest[good], len(means), len(samples))


def class_coverage(assigned: Tensor, of: int) -> Coverage:
    """Coverage of ``of`` modes by samples that a classifier assigned to them: int64 ``(N,)``.

    >>> {key: figure["value"] for key, figure in class_coverage(torch.tensor([0, 0, 2, 2]), 3).items()}
    {'modes': 2, 'modes_good': 1.0, 'modes_kl': 0.405...}
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


def known_modes(name: str | None, fake: Tensor) -> Coverage:
    """Coverage by samples of a data set with known modes. The detail ``note`` is about the assignment to modes, or "".

    Raises:
        InputError: the modes are not known.
    """
    plane = plane_modes(name)
    if plane is not None:
        return _noted(mode_coverage(fake, *plane), "")
    if name != STACKED:
        raise InputError(f"the modes of {name or 'this data'} are not known, only those of {', '.join(MODES_KNOWN)}")
    digits = read_digits(fake.reshape(-1, 1, *fake.shape[2:])).view(-1, 3)
    accuracy = digit_reader().record["accuracy"]["mnist"]
    note = f"modes are read by the extractor grey, which classifies {accuracy:.2%} of MNIST's test digits correctly"
    return _noted(class_coverage((digits * torch.tensor([100, 10, 1])).sum(1), 1000), note)


def _noted(found: Coverage, note: str) -> Coverage:
    return {key: {**figure, "detail": {**figure["detail"], "note": note}} for key, figure in found.items()}


def _covered(assigned: Tensor, of: int, n: int) -> Coverage:
    counts = assigned.bincount(minlength=of)
    share = counts[counts > 0].double() / max(len(assigned), 1)
    kl = float((share * (share * of).log()).sum()) if len(assigned) else math.nan
    once, m = int((counts == 1).sum()), max(len(assigned), 1)
    logs = share.log()
    spread = float((share * logs.square()).sum() - (share * logs).sum().square())
    figures = {
        "modes": Estimate.normal(len(share), math.sqrt(once * (1 - once / n))),
        "modes_good": wilson(len(assigned), n),
        "modes_kl": Estimate.normal(kl, math.sqrt(max(spread, 0.0) / m + (of - 1) / (2 * m * m))),
    }
    return {key: make_figure(value, n, of=of, chance_kl=(of - 1) / (2 * m)) for key, value in figures.items()}
