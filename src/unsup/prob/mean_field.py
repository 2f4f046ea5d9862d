"""Variational inference by coordinate ascent for few categorical variables. Pure functions on tables.

A table holds log p(x, z) for all states of n variables with K values each, ``(K, …, K, B)``: one axis of each variable,
then the examples. q(z) = Π_j q_j(z_j) has its own probabilities ``(n, K, B)`` for each example, and

    ELBO(q) = E_q log p(x, z) + Σ_j H(q_j)

is maximised over a single q_j, with the others fixed, by q_j(v) ∝ exp E_{q_{−j}} log p(x, z_j = v, z_{−j}). A sweep
does so for one variable after another; no update lowers the ELBO (Jordan, Ghahramani, Jaakkola, Saul 1999,
https://doi.org/10.1023/A:1007665907178). All expectations are sums over states: there is no noise.
"""

from __future__ import annotations

import torch
from torch import Tensor


def coordinate_ascent(table: Tensor, q: Tensor, sweeps: int) -> Tensor:
    """The probabilities ``(n, K, B)`` after so many sweeps over all variables, from the start ``q``.

    >>> independent = torch.tensor([0.2, 0.8]).log().view(2, 1, 1) + torch.tensor([0.5, 0.5]).log().view(1, 2, 1)
    >>> coordinate_ascent(independent, torch.full((2, 2, 1), 0.5), sweeps=1)[0, :, 0]
    tensor([0.2000, 0.8000])
    """
    for _ in range(sweeps):
        for j in range(len(q)):
            q = updated(table, q, j)
    return q


def updated(table: Tensor, q: Tensor, j: int) -> Tensor:
    """``q`` with the optimal probabilities of variable ``j`` given those of the others."""
    own = expectation(table, q, but=j).softmax(0)
    return torch.cat([q[:j], own[None], q[j + 1 :]])


def elbo(table: Tensor, q: Tensor) -> Tensor:
    """E_q log p(x, z) + H(q), ``(B,)`` nats."""
    return expectation(table, q) + torch.special.entr(q).sum((0, 1))


def expectation(table: Tensor, q: Tensor, but: int | None = None) -> Tensor:
    """The mean of a table under q, ``(B,)``; for every value of variable ``but``, if given: ``(K, B)``."""
    for j in reversed(range(len(q))):
        if j != but:
            table = (table.movedim(j, -2) * q[j]).sum(-2)
    return table


def marginals(p: Tensor) -> Tensor:
    """Probabilities of the single variables, from those of all states: ``(K, …, K)`` → ``(n, K)``."""
    axes = range(p.ndim)
    return torch.stack([p.sum([i for i in axes if i != j]) if p.ndim > 1 else p for j in axes])
