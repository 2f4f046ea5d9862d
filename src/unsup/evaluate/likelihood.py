"""The mean negative log-likelihood of a split, with its kind and standard error."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from unsup.core.errors import CapabilityError
from unsup.core.likelihood import Likelihood
from unsup.core.machine import fast_cpu
from unsup.core.model import HasDensity, Model, keyed_generator

CHUNK = 200
"""Examples scored at once. It is fixed, so that the noise behind a bound depends on the seed and the data alone."""


@torch.no_grad()
def log_probs(
    model: Model,
    x: Tensor,
    *,
    samples: int = 1,
    seed: int = 0,
    on_chunk: Callable[[int, int], None] | None = None,
) -> Tensor:
    """log p of each raw example, float64 on the CPU: ``(N, *shape)`` → ``(N,)``.

    Args:
        samples: importance samples per example where the model is a bound.
        seed: of the noise behind a bound, keyed by the position of the chunk.
        on_chunk: told how many examples are done, and how many there are, after each chunk.

    Raises:
        CapabilityError: the model has no density.
    """
    if not isinstance(model, HasDensity):
        raise CapabilityError(f"{type(model).__name__} gives no likelihood; ask a model that can score (unsup models)")
    was_training = model.training
    model.eval()
    parts = []
    with fast_cpu(model.device):
        for position, chunk in enumerate(x.split(CHUNK)):
            generator = keyed_generator(seed, position, device=model.device)
            part = model.log_prob(chunk.to(model.device), samples=samples, generator=generator)
            parts.append(part.double().cpu())
            if on_chunk is not None:
                on_chunk(min((position + 1) * CHUNK, len(x)), len(x))
    model.train(was_training)
    return torch.cat(parts)


def evaluate_likelihood(model: Model, x: Tensor, *, samples: int = 1, seed: int = 0) -> Likelihood:
    """Mean −log p of raw examples ``(N, *shape)``, in nats, with its standard error over examples.

    >>> import unsup
    >>> data = unsup.load_data("digits")
    >>> evaluate_likelihood(unsup.create("made", data.event), data.test.x).kind
    'exact'
    """
    return likelihood_of(model, log_probs(model, x, samples=samples, seed=seed), samples)


def likelihood_of(model: Model, scores: Tensor, samples: int = 1) -> Likelihood:
    """The `Likelihood` record of per-example log-probabilities ``(N,)`` that ``model`` gave."""
    if not isinstance(model, HasDensity):
        raise CapabilityError(f"{type(model).__name__} gives no likelihood; ask a model that can score (unsup models)")
    n = len(scores)
    spread = float(scores.std(correction=1)) if n > 1 else math.nan
    exact = model.likelihood_kind == "exact"
    return Likelihood(
        kind=model.likelihood_kind,
        nats=-float(scores.mean()),
        dims=model.event.dims,
        standard_error=spread / math.sqrt(n),
        n=n,
        samples=1 if exact else samples,
    )
