"""Whether held-out examples are as likely under a model as the model's own samples.

The highest density region of level α is {x : p(x) ≥ p_α}, the smallest that contains a sample with probability α
(Hyndman 1996, https://doi.org/10.2307/2684423). For a statistic with distribution F over held-out examples and G over
samples, the share of held-out examples in the region of every level α is α if F = G. The calibration error is

    D = sup_t |F(t) − G(t)|,

the Kolmogorov–Smirnov distance. If the model is too narrow, held-out examples are outside its regions (share below
level); if it is too wide, they are near its mode (share above level). The likelihood does not show this: other data may
be more likely than the model's own samples (Nalisnick, Matsukawa, Teh, Lakshminarayanan 2019,
https://arxiv.org/abs/1906.02994).

Any statistic may be used if it is computed in the same way for both. The regions of a bound or an estimate of log p are
not those of highest density, but F = G holds for a model equal to the distribution of the data. The converse does not
hold: the distributions may differ although one statistic agrees.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from unsup.evaluate.estimate import Estimate, as_values, make_figure
from unsup.evaluate.records import Figure

LEVELS = 20
"""Steps of the curve between level 0 and level 1."""


def calibration(of_data: Tensor, of_samples: Tensor) -> Figure:
    """Compare log-densities of held-out examples ``(N,)`` with those of the model's own samples ``(M,)``.

    Args:
        of_data, of_samples: log p(x), or another statistic, by the same computation; may be −∞.

    Returns:
        D, from 0 to 1. Its interval is D ± ``chance``: |D̂ − D| is at most the largest difference of F̂ − F and Ĝ − G,
        whose 95 % quantile is ``chance`` if F = G, and about that or less otherwise. The floor, and the detail
        ``chance``, is the D that a calibrated model exceeds in one of twenty measurements with these counts. The detail
        ``curve`` has pairs [level, share of held-out examples in the region of that level] for levels 0, 0.05, …, 1. It
        is linear between distinct values of samples; the region of level 1 ends at the least likely sample.

    Raises:
        InputError: fewer than two of either, or NaN.

    >>> draws = torch.linspace(-1, 0, 1000)
    >>> found = calibration(draws[500:], draws)  # all held-out examples are in the more likely half
    >>> round(found["value"], 2), found["detail"]["curve"][10]
    (0.5, [0.5, 1.0])
    """
    data, draws = (as_values(k, v) for k, v in (("of_data", of_data), ("of_samples", of_samples)))
    pooled = torch.cat([data, draws])
    distance = float((_share_up_to(data, pooled) - _share_up_to(draws, pooled)).abs().max())
    chance = _chance(len(data), len(draws))
    error = Estimate(distance, max(0.0, distance - chance), min(1.0, distance + chance))
    values = draws.unique().flip(0)
    held = [np.r_[0.0, _share_up_to(-v, -values).numpy()] for v in (draws, data)]
    levels = np.arange(LEVELS + 1) / LEVELS
    curve = np.stack([levels, np.interp(levels, *held)], 1).tolist()
    return make_figure(error, len(data), floor=chance, curve=curve, chance=chance)


@functools.cache
def _chance(n: int, m: int) -> float:
    """The 95 % quantile of D for equal distributions: about that of one sample of size nm / (n + m)."""
    from scipy.stats import kstwo  # slow to import

    return float(kstwo.isf(0.05, max(1, round(n * m / (n + m)))))


def _share_up_to(values: Tensor, limits: Tensor) -> Tensor:
    """The share of ``values`` ``(N,)`` up to each limit."""
    return torch.searchsorted(values.sort().values, limits, right=True).double() / len(values)
