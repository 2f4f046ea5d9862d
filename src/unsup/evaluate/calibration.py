"""Whether held-out examples are as likely, under a model, as the model's own draws.

The region of highest density of level α is {x : p(x) ≥ p_α}, the smallest that holds a draw with probability α (Hyndman
1996, https://doi.org/10.2307/2684423). With s the statistic, F its distribution over held-out examples and G over
draws, the shares of held-out examples in the regions of all levels are α exactly where F = G; how far they are off is

    D = sup_t |F(t) − G(t)|,

the Kolmogorov–Smirnov distance. Too narrow a model leaves held-out examples outside its regions (share below level),
too wide a one has them all near its peak (share above level): likelihood alone cannot tell, since a model may find
other data likelier than its own draws (Nalisnick, Matsukawa, Teh, Lakshminarayanan 2019,
https://arxiv.org/abs/1906.02994).

Any statistic will do that is computed alike on both sides. Where it is a bound or an estimate of log p, its regions are
not those of highest density, and F = G still holds for a model equal to the law of the data. The converse never holds:
F = G says that one number looks alike, not that the laws are.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import kstwo
from torch import Tensor

from unsup.evaluate.estimate import Estimate, as_values

LEVELS = 20
"""Steps of the curve from level 0 to level 1."""


@dataclass(frozen=True)
class CalibrationResult:
    """How far the model's regions are from holding what they say.

    Attributes:
        error: D. Its interval is D ± ``chance``: |D̂ − D| is at most the largest difference of the two errors F̂ − F and
            Ĝ − G, whose 95 % quantile is ``chance`` where F = G, and about that or less elsewhere. From 0 up to 1.
        curve: pairs (level, share of held-out examples in the region of that level), levels 0, 0.05, …, 1. Between
            distinct values of draws it is straight, so that ties are shared out; the region of level 1 ends at the
            least likely draw.
        chance: the D that a calibrated model exceeds in one of twenty measurements with these counts.
        n: held-out examples.
        samples: draws.
    """

    error: Estimate
    curve: tuple[tuple[float, float], ...]
    chance: float
    n: int
    samples: int


def calibration(of_data: Tensor, of_samples: Tensor) -> CalibrationResult:
    """Compare log-densities of held-out examples ``(N,)`` with those of the model's own draws ``(M,)``.

    Args:
        of_data, of_samples: log p(x), or any other statistic, by the same computation; −∞ may occur.

    Raises:
        InputError: fewer than two of either, or NaN.

    >>> draws = torch.linspace(-1, 0, 1000)
    >>> found = calibration(draws[500:], draws)  # every held-out example is in the likelier half
    >>> round(found.error.value, 2), found.curve[10]
    (0.5, (0.5, 1.0))
    """
    data, draws = (as_values(k, v) for k, v in (("of_data", of_data), ("of_samples", of_samples)))
    n, m = len(data), len(draws)
    pooled = torch.cat([data, draws])
    distance = float((_share_up_to(data, pooled) - _share_up_to(draws, pooled)).abs().max())
    chance = _chance(n, m)
    error = Estimate(distance, max(0.0, distance - chance), min(1.0, distance + chance))
    values = draws.unique().flip(0)
    held = [np.r_[0.0, _share_up_to(-v, -values).numpy()] for v in (draws, data)]
    levels = np.arange(LEVELS + 1) / LEVELS
    curve = tuple(zip(levels.tolist(), np.interp(levels, *held).tolist(), strict=True))
    return CalibrationResult(error, curve, chance, n, m)


@functools.cache
def _chance(n: int, m: int) -> float:
    """The 95 % quantile of D between samples of one law: nearly that of one sample of nm / (n + m) against its law."""
    return float(kstwo.isf(0.05, max(1, round(n * m / (n + m)))))


def _share_up_to(values: Tensor, limits: Tensor) -> Tensor:
    """For each limit the share of ``values`` ``(N,)`` that do not exceed it."""
    return torch.searchsorted(values.sort().values, limits, right=True).double() / len(values)
