"""What the tests of decoders of sequences share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unsup.core.event import Event, Support

DECODERS = ("transformer", "sparse-transformer", "transformer-xl")
SHORT: dict[str, dict[str, Any]] = {
    "transformer": {},
    "sparse-transformer": {"pattern": "fixed"},
    "transformer-xl": {"segment": 3, "memory": 2},
}
"""Options under which a short example has several rows or segments."""


def text(length: int, levels: int = 5, **options: Any) -> Event:
    return Event((length,), Support("nominal", levels), "sequence", **options)


def norm(x: Tensor, layer: torch.nn.LayerNorm) -> Tensor:
    """Layer normalisation of one vector."""
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * layer.weight + layer.bias
