"""Sylvester flow: planar steps of rank M.

    f(y) = y + Q R h(R̃ Qᵀy + b),  h = tanh        (eq. 14)
    |det ∂f/∂y| = Π_i (1 + h′(·)_i R_ii R̃_ii)      (eq. 11)

with M orthonormal columns Q and upper triangular R and R̃ (van den Berg, Hasenclever, Tomczak, Welling 2018,
https://arxiv.org/abs/1803.05649). Diagonals in (−1, 1) make f invertible (theorem 2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unsup.core.config import Count
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.flow import Dequantization, Flow
from unsup.nn.invertible import Chain, Flatten, Invertible
from unsup.prob.bisection import bisect
from unsup.prob.distributions import at_least_float32

_MOST = 1 - 1e-6  # at 1 the determinant could be 0


class SylvesterStep(Invertible):
    """y = x + Q R tanh(R̃ Qᵀx + b) for vectors ``(B, D)``; with a condition, b has a term linear in it.

    Args:
        dims: D.
        rank: M, at most D.
        context: number of features of the condition.
    """

    def __init__(self, dims: int, rank: int, context: int = 0) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(dims, rank))
        self.outer, self.inner = (nn.Parameter(0.1 * torch.randn(rank, rank)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(rank))
        self.maps = nn.Linear(context, rank, bias=False) if context else None

    def told(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Q, R, R̃, and b for each example."""
        q = torch.linalg.qr(at_least_float32(self.directions)).Q
        outer, inner = (_triangular(at_least_float32(t)) for t in (self.outer, self.inner))
        bias = at_least_float32(self.bias)[None]
        if self.maps is not None and context is not None:
            bias = bias + at_least_float32(self.maps(context.to(self.maps.weight.dtype)))
        return q, outer, inner, bias

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, outer, inner, bias = self.told(context)
        h = (x @ q @ inner.T + bias).tanh()
        slope = 1 + (1 - h.square()) * (outer.diagonal() * inner.diagonal())
        return x + h @ outer.T @ q.T, slope.log().sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """Within the span of Q the map is triangular: a bisection for each of its M coordinates, the last one first."""
        q, outer, inner, bias = self.told(context)
        wanted, bias = y @ q, bias.expand(len(y), -1)
        v, h = torch.zeros_like(wanted), torch.zeros_like(wanted)
        for i in reversed(range(wanted.shape[1])):
            offset = v @ inner[i] + bias[:, i]  # the coordinates that are not known yet are 0, and have no weight
            rest = wanted[:, i] - h @ outer[i]
            r, s = outer[i, i], inner[i, i]

            def too_small(
                a: Tensor, offset: Tensor = offset, rest: Tensor = rest, r: Tensor = r, s: Tensor = s
            ) -> Tensor:
                return a + r * (s * a + offset).tanh() < rest

            reach = r.abs().expand_as(rest)
            v[:, i] = bisect(too_small, rest - reach, rest + reach)
            h[:, i] = (s * v[:, i] + offset).tanh()
        return y - h @ outer.T @ q.T


def _triangular(t: Tensor) -> Tensor:
    """The upper triangle, with a diagonal in (−1, 1)."""
    return t.triu(1) + (_MOST * t.diagonal().tanh()).diag()


class Sylvester(Flow):
    """Sylvester flow (van den Berg et al. 2018, https://arxiv.org/abs/1803.05649), from data to N(0, I).

    Steps of rank M bend space along M directions at once. The paper has them in the posterior of a VAE; here they map
    data to the base, so that densities cost one pass, and a sample M bisections for each step. Q is orthonormal by a QR
    decomposition, which has the same range as the iterations of the paper.

    The paper does not fix the number of steps of the ``paper`` preset for this use: it is our choice.

    Args:
        event: real, ordinal or binary vectors of at least two entries.
        layers: number of steps.
        rank: M; None: the number of entries, at most 32.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; the offsets b depend on it.

    Raises:
        InputError: a rank larger than the number of entries.

    >>> from unsup import Event, Support
    >>> model = Sylvester(Event((3,), Support("real")), layers=2, rank=2)
    >>> model.log_prob(torch.zeros(4, 3)).shape
    torch.Size([4])
    """

    presets = {"tiny": {"layers": 2}, "paper": {"layers": 16, "rank": 32}}
    fit_defaults = {"lr": 2e-3, "batch_size": 128}

    def __init__(
        self,
        event: Event,
        *,
        layers: Count = 8,
        rank: Count | None = None,
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        self.take(event, given, dequantization=dequantization)
        rank = min(event.dims, 32) if rank is None else rank
        if rank > event.dims:
            raise InputError(f"rank={rank} is larger than the number of entries, {event.dims}")
        steps = (SylvesterStep(event.dims, rank, self.conditions.size) for _ in range(layers))
        self.flow = Chain([Flatten(event.shape), *steps])

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)
