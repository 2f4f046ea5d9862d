"""Learning-rate multipliers as functions of the step."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "constant", "linear", "half-linear"]


def learning_rate_factor(step: int, total: int, warmup: int, schedule: Schedule) -> float:
    """Linear warm-up over ``warmup`` steps, then the schedule down to 0 at ``total``.

    ``constant`` stays at 1, ``cosine`` is half a cosine, ``linear`` decays linearly, and ``half-linear`` stays at 1 for
    the first half of the remaining steps and decays linearly in the second.

    >>> [round(learning_rate_factor(s, 100, 10, "cosine"), 2) for s in (0, 9, 55, 99)]
    [0.1, 1.0, 0.5, 0.0]
    >>> [round(learning_rate_factor(s, 100, 0, "half-linear"), 2) for s in (0, 50, 75, 100)]
    [1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    left = 1 - min(1.0, (step - warmup) / max(1, total - warmup))
    match schedule:
        case "constant":
            return 1.0
        case "cosine":
            return 0.5 * (1 - math.cos(math.pi * left))
        case "linear":
            return left
        case "half-linear":
            return min(1.0, 2 * left)
