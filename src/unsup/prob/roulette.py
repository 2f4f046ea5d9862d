"""log det(I + J) by its power series, cut at a random term without bias. Pure functions on tensors.

    log det(I + J) = Σ_k (−1)^(k+1) / k · tr Jᵏ,  k = 1, 2, …, if a norm of J is below 1

The first n terms are always computed, and N more ones with N geometric on 1, 2, …; term n + j is divided by
P(N ≥ j) ("Russian roulette"). With traces εᵀ Jᵏ ε of a probe ε of mean 0 and covariance I, the sum is unbiased (Chen,
Behrmann, Duvenaud, Jacobsen 2019, https://arxiv.org/abs/1906.02735, theorem 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

STOP = 0.5
"""P(N = j | N ≥ j)."""
Along = Callable[[Tensor], Tensor]
"""v ↦ J v of each example, ``(B, *shape)`` → the same."""


def geometric(uniform: float, stop: float = STOP) -> int:
    """N of one number of U[0, 1): P(N ≥ j) = (1 − stop)^(j − 1).

    >>> [geometric(u) for u in (0.0, 0.49, 0.51, 0.74, 0.76)]
    [1, 1, 2, 2, 3]
    """
    return 1 + math.floor(math.log1p(-uniform) / math.log1p(-stop))


def roulette_weights(exact: int, more: int, stop: float = STOP) -> list[float]:
    """Factors of terms 1, …, exact + more: 1 for the exact ones, then 1 / P(N ≥ 1), 1 / P(N ≥ 2), ….

    >>> roulette_weights(2, 3)
    [1.0, 1.0, 1.0, 2.0, 4.0]
    """
    return [1.0] * exact + [(1 - stop) ** -j for j in range(more)]


def roulette_weights_each(exact: int, uniform: Tensor, stop: float = STOP) -> list[Tensor]:
    """The same with a number of terms for each example, of numbers of U[0, 1) ``(B,)``: factors ``(B,)``.

    >>> [w.tolist() for w in roulette_weights_each(1, torch.tensor([0.2, 0.6]))]
    [[1.0, 1.0], [1.0, 1.0], [0.0, 2.0]]
    """
    more = 1 + (torch.log1p(-uniform) / math.log1p(-stop)).floor()
    most = int(more.max()) if len(more) else 0
    return [
        weight * (more + exact > k).to(uniform.dtype) for k, weight in enumerate(roulette_weights(exact, most, stop))
    ]


def log_det_series(along: Along, probe: Tensor, weights: Sequence[float | Tensor]) -> Tensor:
    """Σ_k (−1)^(k+1) / k · w_k εᵀ Jᵏ ε, ``(B,)``.

    Args:
        along: v ↦ J v.
        probe: ε, ``(B, *shape)``.
        weights: w_1, w_2, …, numbers or one for each example, ``(B,)``.

    >>> x = torch.ones(1, 3)  # J = x / 2: log det(I + J) = 3 log 1.5
    >>> found = float(log_det_series(lambda v: 0.5 * v, x, [1.0] * 40))
    >>> round(found, 4), round(3 * math.log(1.5), 4)
    (1.2164, 1.2164)
    """
    value, power = probe.new_zeros(len(probe)), probe
    for k, weight in enumerate(weights, 1):
        power = along(power)  # Jᵏ ε
        value = value + (1 if k % 2 else -1) / k * weight * (probe * power).flatten(1).sum(1)
    return value


def log_det_by_neumann(along: Along, probe: Tensor, weights: list[float]) -> Tensor:
    """The value of `log_det_series`, with a gradient of the same mean that needs the graph of a single product J v.

    d tr Jᵏ = k tr(Jᵏ⁻¹ dJ), so that the derivative of the series along dJ is the mean of εᵀ dJ a with the Neumann
    series a = Σ_k (−1)^(k−1) w_k Jᵏ⁻¹ ε, which is computed without a graph (theorem 2 of the paper, with the transposed
    product there). The authors report εᵀ J a during training, which is not the log-determinant; here the value is.
    """
    with torch.no_grad():
        value, a = _series(along, probe, weights)
    linear = (probe * along(a)).flatten(1).sum(1)
    return value + (linear - linear.detach())


def _series(along: Along, probe: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
    """The series, and a of `log_det_by_neumann`."""
    value, a, power = probe.new_zeros(len(probe)), torch.zeros_like(probe), probe
    for k, weight in enumerate(weights, 1):
        sign = 1 if k % 2 else -1
        a = a + sign * weight * power
        power = along(power)  # Jᵏ ε
        value = value + sign * weight / k * (probe * power).flatten(1).sum(1)
    return value, a
