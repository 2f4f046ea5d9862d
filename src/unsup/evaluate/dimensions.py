"""Where in an example its bits are: −log₂ p of each entry given those before it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.machine import fast_cpu
from unsup.core.model import Factorises, Model, keyed_generator
from unsup.data.source import Split
from unsup.evaluate.conditions import batches, beside, examples_in
from unsup.evaluate.likelihood import CHUNK


@torch.no_grad()
def bits_by_dimension(model: Model, x: Tensor | Split | Batch, *, seed: int = 0) -> Tensor | None:
    """−log₂ p(x_d | the entries before it) of raw examples ``(B, *event.shape)``: ``(B, D)``, float64 on the CPU.

    A row sums to −log₂ p(x), as `evaluate.likelihood.log_probs` gives it with the same seed and one sample; of a
    bound these are the terms of the bound. None where the model's density is not known as a product over entries: it
    is of another kind, or a mixture over different orders, in which an entry has no share of its own.

    Args:
        x: raw examples, or a split or batch of them, with the conditions that go with them.
        seed: of the noise behind a bound, keyed by the position of the chunk.

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
    was_training = model.training
    model.eval()
    found = []
    with fast_cpu(model.device):
        for position, batch in enumerate(batches(examples, CHUNK)):
            generator = keyed_generator(seed, position, device=model.device)
            part = batch.to(model.device)
            nats = model.log_conditionals(part.x, generator=generator, **beside(model, part.given))
            if nats is None:
                break
            found.append(-nats.double().cpu() / math.log(2))
    model.train(was_training)
    return torch.cat(found) if found else None
