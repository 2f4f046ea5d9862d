"""Exponential moving average of parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """ē ← d ē + (1 − d) e after every step, starting at e; early steps use d = min(decay, (1 + t) / (10 + t)).

    Polyak averaging (Polyak & Juditsky 1992). The warm-up of the decay limits the influence of the start on short runs.
    Only parameters of ``modules`` are averaged; buffers (batch statistics, counters, replay buffers) are the newest.
    """

    def __init__(self, decay: float, *modules: nn.Module) -> None:
        self.decay = decay
        self.steps = 0
        self._parameters: list[Tensor] = [p for module in modules for p in module.parameters()]
        self.average = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.average, self._parameters, 1 - decay)

    @torch.no_grad()
    def load(self, average: list[Tensor], steps: int) -> None:
        self.steps = steps
        for own, new in zip(self.average, average, strict=True):
            own.copy_(new)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """In this context, the model has the averaged parameters; its own are restored afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for own, average in zip(self._parameters, self.average, strict=True):
            kept = own.detach().clone()
            own.copy_(average)
            average.copy_(kept)
