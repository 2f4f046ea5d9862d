"""Invertible steps that transform each entry on its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unsup.nn.bijection import Bijection
from unsup.nn.invertible import Arithmetic, Exact, Invertible
from unsup.prob.distributions import LOG_2PI, at_least_float32


class Elementwise(Invertible, Exact):
    """A bijection of each entry of vectors, whose parameters are those of the step, and linear in the condition.

    Args:
        dims: number of entries.
        bijection: the map; at first that of zeros.
        context: number of features of the condition.
    """

    def __init__(self, dims: int, bijection: Bijection, context: int = 0) -> None:
        super().__init__()
        self.bijection = bijection
        self.told = nn.Parameter(torch.zeros(dims, bijection.outputs_each))
        self.maps = nn.Linear(context, self.told.numel(), bias=False) if context else None
        if self.maps is not None:
            nn.init.zeros_(self.maps.weight)

    def outputs(self, n: int, context: Tensor | None) -> Tensor:
        """The parameters of all entries of ``n`` examples, ``(n, D, outputs_each)``."""
        told = at_least_float32(self.told).expand(n, -1, -1)
        if self.maps is None or context is None:
            return told
        more = at_least_float32(self.maps(context.to(self.maps.weight.dtype)))
        return told + more.view(told.shape)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, log_derivative = self.bijection(x, self.outputs(len(x), context))
        return y, log_derivative.sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.bijection.inverse(y, self.outputs(len(y), context))

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        return self.bijection.exactly(x, self.outputs(len(x if context is None else context), context), arithmetic)

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        outputs = self.outputs(len(y if context is None else context), context)
        return self.bijection.exactly_inverse(y, outputs, arithmetic)


class NormalCdf(Invertible, Exact):
    """y = Φ(x) of each entry of vectors: uniform if x is standard normal.

    Fixed-point numbers stay x, since y has no precision in the tails: their base is `Flow.exact_cdf`.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.special.ndtr(x), -0.5 * (x.square() + LOG_2PI).sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        tiny, eps = torch.finfo(y.dtype).tiny, torch.finfo(y.dtype).eps
        return torch.special.ndtri(y.clamp(tiny, 1 - eps / 2))

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        return x

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        return y
