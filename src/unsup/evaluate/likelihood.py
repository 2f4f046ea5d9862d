"""The mean negative log-likelihood of a split with its kind and standard error, and the bits of each entry."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.config import Count, check_value
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event
from unsup.core.likelihood import Likelihood
from unsup.core.model import Factorises, HasDensity, Model, NeedsPartition, keyed_generator
from unsup.data.source import Split
from unsup.evaluate.conditions import batches, beside, examples_in, in_use, over_examples

CHUNK = 200
"""The most examples scored at once."""
_CHUNK_ENTRIES = 2**18
_CHECKED = 20_000
_NO_DENSITY = "{} has no likelihood; unsup models lists models that score"
_LOG_PARTITION = -1  # key of its noise, next to the positions of chunks


def chunk_of(event: Event) -> int:
    """How many examples are scored at once: fewer of many entries, whose features take memory.

    It depends on the event only, so that the noise of a bound depends on the seed and the data only.

    >>> from unsup.core.event import REAL
    >>> chunk_of(Event((784,), REAL)), chunk_of(Event((65_536,), REAL))
    (200, 4)
    """
    return max(1, min(CHUNK, _CHUNK_ENTRIES // max(1, event.dims)))


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

    For a model with a partition function, log Z is estimated first, once for all examples, and stored in the model.

    Args:
        x: raw examples, or a split or batch of them with their conditions and lengths.
        samples: importance samples per example for a bound; the effort of the estimate of log Z.
        seed: of the noise of a bound, keyed by the position of the chunk, and of the estimate of log Z.
        on_chunk: called after each chunk with the numbers of scored examples and of all examples.
        stored: use the log Z that is stored in the model.

    Raises:
        InputError: there are no examples, or some are outside the event.
        CapabilityError: the model has no density, or has no valid log Z and ``stored`` is given.
    """
    samples, seed = check_value("samples", samples, Count), check_value("seed", seed, int)
    if not isinstance(model, HasDensity):
        raise CapabilityError(_NO_DENSITY.format(type(model).__name__))
    examples = examples_in(x)
    if not len(examples):
        raise InputError("there are no examples to score")
    _check(model, examples)

    def scored(position: int, batch: Batch) -> Tensor:
        generator = keyed_generator(seed, position, device=model.device)
        also = {**beside(model, batch.given), "lengths": batch.lengths}
        return model.log_prob(batch.x, **also, samples=samples, generator=generator).double()

    with in_use(model):
        if isinstance(model, NeedsPartition) and not stored:
            generator = keyed_generator(seed, _LOG_PARTITION, device=model.device)
            model.estimate_log_partition(effort=samples, generator=generator)
    return over_examples(model, examples, chunk_of(model.event), scored, on_chunk)


def _check(model: Model, examples: Split | Batch) -> None:
    """Raise `InputError` if an example is outside the event. Data that is not in memory is checked in parts."""
    bad = [~model.event.contains(batch.x, batch.lengths) for batch in batches(examples, _CHECKED)]
    outside = torch.cat(bad).nonzero()
    if len(outside):
        raise InputError(
            f"{len(outside)} of {len(examples)} examples have values outside {model.event} (the first is number "
            f"{int(outside[0])}); x must be raw data, unscaled and finite"
        )


def evaluate_likelihood(model: Model, x: Tensor | Split | Batch, *, samples: int = 1, seed: int = 0) -> Likelihood:
    """Mean −log p of raw examples ``(N, *shape)``, in nats, with its standard error over examples.

    Args:
        x: raw examples, or a split of them (``data.test``) with its conditions, lengths and weights.
        samples: importance samples per example for a bound.
        seed: of the noise of a bound.

    Raises:
        InputError: there are no examples, or some are outside the event.

    >>> import unsup
    >>> data = unsup.load_data("digits")
    >>> evaluate_likelihood(unsup.create("made", data.event), data.test.x).kind
    'exact'
    """
    examples = examples_in(x)
    scores = log_probs(model, examples, samples=samples, seed=seed)
    return likelihood_of(model, scores, samples, entries=entries_of(model.event, examples), weight=examples.weight)


def likelihood_of(
    model: Model,
    scores: Tensor,
    samples: int = 1,
    *,
    entries: Tensor | None = None,
    weight: Tensor | None = None,
) -> Likelihood:
    """The `Likelihood` record of the log-probabilities ``(N,)`` of examples under ``model``.

    The mean is Σ w log p / Σ w, with the standard error √(n/(n−1) Σ w² (log p − mean)²) / Σ w over the n examples with
    a weight above 0. The error of an estimated log Z is common to all examples: its square is added to that of the
    standard error over examples.

    Args:
        entries: number of entries of each example that count, ``(N,)``, as from `entries_of`; None for all.
        weight: of the examples, ``(N,)``; None for equal weights.

    Raises:
        InputError: no example has a weight above 0.
    """
    if not isinstance(model, HasDensity):
        raise CapabilityError(_NO_DENSITY.format(type(model).__name__))
    weights = (torch.ones(len(scores)) if weight is None else weight.detach().cpu()).double()
    n, shares, event = int((weights > 0).sum()), weights / weights.sum(), model.event
    if weight is not None and not n:
        raise InputError("the weights of the examples add up to 0; give some of them a weight above 0")
    counted = torch.where(shares > 0, scores, 0.0)  # without a weight, log p may be -inf
    mean = scores.mean() if weight is None else (shares * counted).sum()
    squares = float((shares * (counted - mean)).square().sum())
    error = math.sqrt(n / (n - 1) * squares) if n > 1 else math.nan
    if weight is None and n > 1:
        error = float(scores.std(correction=1)) / math.sqrt(n)
    dims: float = event.dims
    if entries is not None:
        dims = float((shares * entries).sum()) or 1.0  # nothing is known: no bits for any number of entries
    masses, densities = map(len, event.parts)
    return Likelihood(
        kind=model.likelihood_kind,
        nats=-float(mean),
        dims=dims,
        standard_error=math.hypot(error, model.log_partition_error if isinstance(model, NeedsPartition) else 0.0),
        n=n,
        samples=samples if model.uses_samples else 1,
        masses=masses,
        densities=densities,
    )


def entries_of(event: Event, examples: Split | Batch) -> Tensor | None:
    """The number of entries of each example that are neither padding nor missing, ``(N,)``; None if all are there."""
    if not event.missing:
        if examples.lengths is None:
            return None
        return examples.lengths.detach().cpu() * (event.dims // event.shape[0])
    found = []
    for batch in batches(examples, _CHECKED):
        there = ~batch.x.detach().cpu().isnan()
        if batch.lengths is not None:
            there &= ~event.padding(batch.lengths.cpu()).view(len(there), -1, *(1,) * (len(event.shape) - 1))
        found.append(there.reshape(len(there), event.dims).sum(1))
    return torch.cat(found)


def bits_by_dimension(model: Model, x: Tensor | Split | Batch, *, seed: int = 0) -> Tensor | None:
    """−log₂ p(x_d | the entries before it) of raw examples ``(B, *event.shape)``: ``(B, D)``, float64 on the CPU.

    A row sums to −log₂ p(x), as computed by `log_probs` with the same seed and one sample; for a
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
        for position, batch in enumerate(batches(examples, chunk_of(model.event))):
            generator = keyed_generator(seed, position, device=model.device)
            part = batch.to(model.device)
            lengths = {} if part.lengths is None else {"lengths": part.lengths}
            nats = model.log_conditionals(part.x, generator=generator, **beside(model, part.given), **lengths)
            if nats is None:
                return None
            found.append(-nats.double().cpu() / math.log(2))
    return torch.cat(found)
