"""Decoders of sequences at random parameters, and what their tests share."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

import unsup
from unsup.core.event import Event, Support
from unsup.nn.sequence import SequenceModel

DECODERS = ("transformer", "sparse-transformer", "transformer-xl")
SHORT: dict[str, dict[str, Any]] = {
    "transformer": {},
    "sparse-transformer": {"pattern": "fixed"},
    "transformer-xl": {"segment": 3, "memory": 2},
}
"""Options under which a short example has several rows or segments."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text(length: int, levels: int = 5, **options: Any) -> Event:
    return Event((length,), Support("nominal", levels), "sequence", **options)


def random_decoder(name: str, event: Event, seed: int = 0, scale: float = 0.6, **options: Any) -> SequenceModel:
    """A float64 model with large random weights, in evaluation mode, so that no conditional is near uniform."""
    model = unsup.create(name, event, preset="tiny", **options).double().eval()
    noise = generator(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=noise, dtype=p.dtype))
        if model.classes:
            model.log_prior.copy_(torch.randn(model.classes, generator=noise, dtype=torch.float64).log_softmax(0))
    assert isinstance(model, SequenceModel)
    return model


def every_example(event: Event) -> Tensor:
    support = event.uniform
    levels = range(support.low, support.low + support.levels)
    return torch.tensor(list(itertools.product(levels, repeat=event.dims))).view(-1, *event.shape)


def seen_by_jacobian(model: SequenceModel, draws: int = 4) -> Tensor:
    """[i, j]: whether conditional i moves with input j, at any of several random parameters and inputs."""
    event, seen = model.event, torch.zeros(model.event.dims, model.event.dims, dtype=torch.bool)
    for seed in range(draws):
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(0.6 * torch.randn(p.shape, generator=generator(seed), dtype=p.dtype))
        x = torch.rand(1, *event.shape, generator=generator(seed), dtype=torch.float64) * (event.uniform.levels - 1)
        jacobian = torch.autograd.functional.jacobian(model.conditionals, x + event.uniform.low, vectorize=True)
        seen |= (jacobian[0].flatten(2) != 0).any(1)
    return seen


def norm(x: Tensor, layer: torch.nn.LayerNorm) -> Tensor:
    """Layer normalisation of one vector."""
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * layer.weight + layer.bias
