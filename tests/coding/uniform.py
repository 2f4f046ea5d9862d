"""Raw examples and parameters for the tests of coders of latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unsup.core.event import Event


def examples(event: Event, n: int = 60, seed: int = 1) -> Tensor:
    """Raw examples with uniform levels, ``(n, *event.shape)``."""
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(0, s.levels, (n,), generator=generator) + s.low for s in event.columns]
    return torch.stack(columns, 1).view(-1, *event.shape).to(event.dtype)


@torch.no_grad()
def move(model: nn.Module, noise: float, seed: int = 0) -> None:
    """Add Gaussian noise to all parameters, some of which are zeros at the start."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
