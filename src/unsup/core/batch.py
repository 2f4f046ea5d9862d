"""What a model is shown at one step."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Raw examples, with whatever else the data has about them.

    Attributes:
        x: raw data ``(B, *event.shape)``.
        label: class numbers ``(B,)``, int64, or None.
        domain_b: raw examples ``(B, *event.shape)`` of a second domain, not paired with ``x``, or None.
    """

    x: Tensor
    label: Tensor | None = None
    domain_b: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in tensors.items() if v is not None})
