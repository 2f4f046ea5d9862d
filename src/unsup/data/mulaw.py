"""The μ-law of telephony: samples in [−1, 1] as 256 levels, finer near zero.

    f(x) = sgn(x) ln(1 + μ |x|) / ln(1 + μ)      μ = 255
    level = ⌊(f(x) + 1) / 2 · μ + ½⌋              x = f⁻¹(2 level / μ − 1)

Louder samples are cut off. Exact halves are rounded up, so that silence is level 128. Encoding a decoded level gives
the level again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MU = 255
LEVELS = MU + 1


def encoded(x: NDArray[Any]) -> NDArray[np.uint8]:
    """Levels of samples in [−1, 1], of the same shape.

    >>> encoded(np.array([-1.0, -0.1, 0.0, 0.1, 1.0])).tolist()
    [0, 52, 128, 203, 255]
    """
    x = np.clip(x.astype(np.float64), -1, 1)
    f = np.sign(x) * np.log1p(MU * np.abs(x)) / np.log1p(MU)
    return np.floor((f + 1) / 2 * MU + 0.5).astype(np.uint8)


def decoded(level: NDArray[Any]) -> NDArray[np.float64]:
    """Samples of levels, of the same shape."""
    f = (2 * level.astype(np.float64) - MU) / MU
    return np.sign(f) * (float(LEVELS) ** np.abs(f) - 1) / MU
