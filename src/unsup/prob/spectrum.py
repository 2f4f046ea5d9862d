"""The largest singular value of a linear map that is given as a function. Pure functions on tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_LEAST_NORM = 1e-12
Map = Callable[[Tensor], Tensor]


@torch.no_grad()
def top_singular_vectors(
    apply: Map, transposed: Map, u: Tensor, *, tolerance: float, least: int = 3, most: int = 1000
) -> tuple[Tensor, Tensor]:
    """Unit u and v with A v ≈ σ u for the largest singular value σ = uᵀ A v of A, by power iteration from ``u``.

    v ← Aᵀu / ‖Aᵀu‖ and u ← A v / ‖A v‖ until ‖A v‖ grows by less than ``tolerance`` of itself. ‖A v‖ never exceeds σ.

    Args:
        apply: A, from a tensor of any shape to another one.
        transposed: Aᵀ, in the other direction.
        u: start, of the shape of the outputs of A; its norm does not matter.
        tolerance: relative.
        least: minimum number of iterations, so that a start near another singular vector is left.
        most: maximum number of iterations.

    >>> a = torch.diag(torch.tensor([3.0, 1.0]))
    >>> u, v = top_singular_vectors(lambda v: a @ v, lambda u: a.T @ u, torch.ones(2), tolerance=1e-6)
    >>> round(float(u @ a @ v), 4)
    3.0
    """
    u = u.clone()  # the result is always a new tensor
    v, before = transposed(u), 0.0
    for done in range(1, most + 1):
        v = _unit(transposed(u))
        image = apply(v)
        size = float(image.norm())
        u = image / max(size, _LEAST_NORM)
        if done >= least and size - before <= tolerance * size:
            break
        before = size
    return u, v


def _unit(x: Tensor) -> Tensor:
    return x / x.norm().clamp(min=_LEAST_NORM)
