"""Learning-rate multipliers as functions of the step."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "constant"]


def learning_rate_factor(step: int, total: int, warmup: int, schedule: Schedule) -> float:
    """Linear warm-up over ``warmup`` steps, then constant, or half a cosine down to 0 at ``total``.

    >>> [round(learning_rate_factor(s, 100, 10, "cosine"), 2) for s in (0, 9, 55, 99)]
    [0.1, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
