"""The bits of each entry of an example: −log₂ p of each entry given those before it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.model import Factorises, Model, keyed_generator
from unsup.data.source import Split
from unsup.evaluate.conditions import batches, beside, examples_in, in_use
from unsup.evaluate.likelihood import CHUNK


def bits_by_dimension(model: Model, x: Tensor | Split | Batch, *, seed: int = 0) -> Tensor | None:
    """−log₂ p(x_d | the entries before it) of raw examples ``(B, *event.shape)``: ``(B, D)``, float64 on the CPU.

    A row sums to −log₂ p(x), as computed by `evaluate.likelihood.log_probs` with the same seed and one sample; for a
    bound, these are the terms of the bound. None if the density does not factorise over the entries: it is of another
    kind, or a mixture over different orders.

    Args:
        x: raw examples, or a split or batch of them with their conditions.
        seed: of the noise of a bound, keyed by the position of the chunk.

    >>> import torch, unsup
    >>> event = unsup.Event((3,), unsup.Support("binary"))
    >>> bits_by_dimension(unsup.create("histogram", event), torch.tensor([[0, 1, 1]])).round(decimals=9).tolist()
    [[1.0, 1.0, 1.0]]
    >>> bits_by_dimension(unsup.create("vae", event), torch.tensor([[0, 1, 1]])) is None
    True
    """
    examples = examples_in(x)
    if isinstance(examples, Batch):
        model.event.check_shape(examples.x)
    if not isinstance(model, Factorises):
        return None
    found = []
    with in_use(model):
        for position, batch in enumerate(batches(examples, CHUNK)):
            generator = keyed_generator(seed, position, device=model.device)
            part = batch.to(model.device)
            nats = model.log_conditionals(part.x, generator=generator, **beside(model, part.given))
            if nats is None:
                return None
            found.append(-nats.double().cpu() / math.log(2))
    return torch.cat(found)
