"""The mean negative log-likelihood of a split, with its kind and standard error."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event
from unsup.core.likelihood import Likelihood
from unsup.core.machine import fast_cpu
from unsup.core.model import HasDensity, HasPartition, Model, keyed_generator
from unsup.core.parallel import share_out
from unsup.data.source import Split
from unsup.evaluate.conditions import beside, examples_in, rows_of

CHUNK = 200
"""Examples scored at once. It is fixed, so that the noise behind a bound depends on the seed and the data alone."""
_LOOKED_AT = 20_000
_LOG_PARTITION = -1  # the key of its noise, beside the positions of chunks


@torch.no_grad()
def log_probs(
    model: Model,
    x: Tensor | Split | Batch,
    *,
    samples: int = 1,
    seed: int = 0,
    on_chunk: Callable[[int, int], None] | None = None,
    stored: bool = False,
) -> Tensor:
    """log p of each raw example, float64 on the CPU: ``(N, *shape)`` → ``(N,)``.

    Examples outside the event are refused: a figure for data that are not the model's says nothing. A model with a
    partition function has log Z estimated first, once for all examples, and keeps it.

    Args:
        x: raw examples, or a split or batch of them, with the conditions and lengths that go with them.
        samples: importance samples per example where the model is a bound; the effort of the estimate of log Z.
        seed: of the noise behind a bound, keyed by the position of the chunk, and of that behind log Z.
        on_chunk: told how many examples are done, and how many there are, after each chunk.
        stored: use the log Z that the model holds, where it has one.

    Raises:
        InputError: there are no examples, or some lie outside the event.
        CapabilityError: the model has no density, or no valid log Z and ``stored`` is asked for.
    """
    if not isinstance(model, HasDensity):
        raise CapabilityError(f"{type(model).__name__} gives no likelihood; ask a model that can score (unsup models)")
    examples = examples_in(x)
    if not len(examples):
        raise InputError("there are no examples to score")
    _check(model, examples)
    was_training = model.training
    model.eval()

    def scored(position: int) -> Tensor:
        batch = rows_of(examples, position * CHUNK, (position + 1) * CHUNK).to(model.device)
        generator = keyed_generator(seed, position, device=model.device)
        also = {**beside(model, batch.given), "lengths": batch.lengths}
        return model.log_prob(batch.x, **also, samples=samples, generator=generator).double().cpu()

    def report(done: int) -> None:
        if on_chunk is not None:
            on_chunk(min(done * CHUNK, len(examples)), len(examples))

    try:
        with fast_cpu(model.device):
            if isinstance(model, HasPartition) and not stored:
                generator = keyed_generator(seed, _LOG_PARTITION, device=model.device)
                model.estimate_log_partition(effort=samples, generator=generator)
            return share_out(-(-len(examples) // CHUNK), scored, report)
    finally:
        model.train(was_training)


def _check(model: Model, examples: Split | Batch) -> None:
    """Raise `InputError` where an example lies outside the event; what is not in memory is looked at part by part."""
    outside, first = 0, None
    for start in range(0, len(examples), _LOOKED_AT):
        batch = rows_of(examples, start, start + _LOOKED_AT)
        bad = ~model.event.contains(batch.x, batch.lengths)
        if bool(bad.any()):
            first = start + int(bad.nonzero()[0]) if first is None else first
            outside += int(bad.sum())
    if first is not None:
        raise InputError(
            f"{outside} of {len(examples)} examples hold values outside {model.event} (the first is number {first}); "
            "x must be the raw data, unscaled and finite"
        )


def evaluate_likelihood(model: Model, x: Tensor | Split | Batch, *, samples: int = 1, seed: int = 0) -> Likelihood:
    """Mean −log p of raw examples ``(N, *shape)``, in nats, with its standard error over examples.

    Args:
        x: raw examples, or a split of them (``data.test``), whose conditions, lengths and weights then count.
        samples: importance samples per example where the model is a bound.
        seed: of the noise behind a bound.

    Raises:
        InputError: there are no examples, or some lie outside the event.

    >>> import unsup
    >>> data = unsup.load_data("digits")
    >>> evaluate_likelihood(unsup.create("made", data.event), data.test.x).kind
    'exact'
    """
    examples = examples_in(x)
    scores = log_probs(model, examples, samples=samples, seed=seed)
    return likelihood_of(model, scores, samples, lengths=examples.lengths, weight=examples.weight)


def likelihood_of(
    model: Model,
    scores: Tensor,
    samples: int = 1,
    *,
    lengths: Tensor | None = None,
    weight: Tensor | None = None,
) -> Likelihood:
    """The `Likelihood` record of per-example log-probabilities ``(N,)`` that ``model`` gave.

    The mean is Σ w log p / Σ w, with the standard error √(n/(n−1) Σ w² (log p − mean)²) / Σ w over the n examples whose
    weight is not 0. The error of an estimated log Z is shared by all examples and independent of which examples they
    are: its square is added to that of the standard error over examples.

    Args:
        lengths: of the examples, ``(N,)``, where the event's first axis is open: entries beyond them do not count.
        weight: of the examples, ``(N,)``; None: all alike.

    Raises:
        InputError: no example has a weight above 0.
    """
    if not isinstance(model, HasDensity):
        raise CapabilityError(f"{type(model).__name__} gives no likelihood; ask a model that can score (unsup models)")
    shares, n = _shares(weight, len(scores))
    counted = torch.where(shares > 0, scores, 0.0)  # what has no weight may be -inf
    mean = (shares * counted).sum() if weight is not None else scores.mean()
    if weight is None:
        error = float(scores.std(correction=1)) / math.sqrt(n) if n > 1 else math.nan
    else:
        error = math.sqrt(n / (n - 1) * float((shares * (counted - mean)).square().sum())) if n > 1 else math.nan
    exact = model.likelihood_kind == "exact"
    shared = model.log_partition_error if isinstance(model, HasPartition) else 0.0
    return Likelihood(
        kind=model.likelihood_kind,
        nats=-float(mean),
        dims=_entries(model.event, lengths, shares),
        standard_error=math.hypot(error, shared),
        n=n,
        samples=1 if exact else samples,
    )


def _shares(weight: Tensor | None, n: int) -> tuple[Tensor, int]:
    """The weights of examples, normalised, in float64, and how many are not 0."""
    if weight is None:
        return torch.full((n,), 1 / max(n, 1), dtype=torch.float64), n
    weight = weight.detach().cpu().double()
    total = float(weight.sum())
    if not total > 0:
        raise InputError("the weights of the examples add up to 0; give some of them a weight above 0")
    return weight / total, int((weight > 0).sum())


def _entries(event: Event, lengths: Tensor | None, shares: Tensor) -> float:
    """The mean number of entries of an example that are not padding."""
    if not event.open or lengths is None:
        return event.dims
    return float((shares * lengths.detach().cpu()).sum()) * (event.dims // event.shape[0])
