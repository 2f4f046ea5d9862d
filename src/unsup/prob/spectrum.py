"""The largest singular value of a linear map that is given as a function. Pure functions on tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


@torch.no_grad()
def top_singular_vectors(
    apply: Map, transposed: Map, u: Tensor, *, tolerance: float, powers: int = 3, most: int = 200
) -> tuple[Tensor, Tensor]:
    """Unit u and v with A v ≈ σ u for the largest singular value σ = uᵀ A v of A.

    A power iteration replaces u by A Aᵀ u. Here u is replaced by the best vector in the span of u and its next
    ``powers`` iterates (Lanczos' method), until σ² = uᵀ A Aᵀ u grows by less than ``tolerance`` of itself. Maps of rank
    at most ``powers`` therefore take one round. The estimate never exceeds σ, except by rounding.

    Args:
        apply: A, from a tensor of any shape to another one.
        transposed: Aᵀ, in the other direction.
        u: start, of the shape of the outputs of A; its norm does not matter.
        tolerance: relative.
        powers: applications of A Aᵀ per round.
        most: maximum number of rounds.

    >>> a = torch.diag(torch.tensor([3.0, 1.0]))
    >>> u, v = top_singular_vectors(lambda v: a @ v, lambda u: a.T @ u, torch.ones(2), tolerance=1e-6)
    >>> round(float(u @ a @ v), 4)
    3.0
    """
    for _ in range(most):
        u, before, after = _best_in_span(lambda u: apply(transposed(u)), u, powers)
        if after - before <= tolerance * after:
            break
    return u, _unit(transposed(u))


def _best_in_span(square: Map, u: Tensor, powers: int) -> tuple[Tensor, float, float]:
    """The unit vector q with the largest qᵀ M q in the span of u, M u, …, Mᵖ⁻¹ u; and qᵀ M q of u and of the result."""
    basis = _unit(u).flatten()[None]
    images = square(basis[0].view_as(u)).flatten()[None]
    rounding = 10 * torch.finfo(u.dtype).eps * float(images.norm())
    while len(basis) < powers:
        new = images[-1]
        for _ in range(2):  # once leaves rounding errors
            new = new - (basis @ new) @ basis
        if float(new.norm()) <= rounding:
            break
        basis = torch.cat([basis, _unit(new)[None]])
        images = torch.cat([images, square(basis[-1].view_as(u)).flatten()[None]])
    projected = basis @ images.mT
    values, vectors = torch.linalg.eigh((projected + projected.mT) / 2)
    return _unit(vectors[:, -1] @ basis).view_as(u), float(projected[0, 0]), float(values[-1])


def _unit(x: Tensor) -> Tensor:
    return x / x.norm().clamp(min=torch.finfo(x.dtype).tiny)
