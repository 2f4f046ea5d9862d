"""Models in use: what their examples are conditioned on, and evaluation chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.errors import InputError, kind_of
from unsup.core.event import raw_tensor
from unsup.core.machine import fast_cpu
from unsup.core.model import IsConditional, Model
from unsup.core.parallel import share_out
from unsup.data.source import Split, some_of


def is_conditioned(model: Model) -> bool:
    """Whether a model was built for a condition."""
    return isinstance(model, IsConditional) and model.given is not None


def beside(model: Model, given: Tensor | None) -> dict[str, Any]:
    """The keyword arguments with the condition ``given``; none for a model without a condition.

    >>> import unsup
    >>> beside(unsup.create("made", unsup.load_data("moons").event), torch.zeros(3))
    {}
    """
    return {"given": given} if is_conditioned(model) else {}


def conditions_of(model: Model, split: Split, n: int) -> Tensor | None:
    """The conditions for ``n`` samples: those of examples of ``split``, chosen by a hash and repeated if necessary.

    None for a model without a condition.

    Raises:
        InputError: the model has a condition, and the data has no conditions.
    """
    if not is_conditioned(model):
        return None
    if split.given is None:
        raise InputError(f"{type(model).__name__} needs a condition, and the data has no conditions")
    chosen = split.given[some_of(len(split), n)]
    return chosen[torch.arange(n) % len(chosen)]


def for_samples(model: Model, split: Split, n: int) -> dict[str, Any]:
    """The keyword arguments for ``n`` samples without given conditions.

    A model conditioned on a class draws the classes; for others, the conditions are those of examples of ``split``.
    """
    if not is_conditioned(model) or cast(IsConditional, model).classes:
        return {}
    given = conditions_of(model, split, n)
    return {"given": None if given is None else given.to(model.device)}


def examples_in(x: Tensor | Split | Batch) -> Split | Batch:
    """Raw examples as a split or a batch.

    Raises:
        InputError: ``x`` has another type.

    >>> len(examples_in(torch.zeros(5, 2)))
    5
    """
    if isinstance(x, Split | Batch):
        return x
    if isinstance(x, (Tensor, np.ndarray, list, tuple)):
        return Batch(raw_tensor(x))
    raise InputError(
        f"{kind_of(x)} was given for examples; expected a split of data (data.test), a Batch, or raw data in a tensor, "
        "an array or a list"
    )


def rows_of(examples: Split | Batch, start: int, end: int) -> Batch:
    """The examples from ``start`` up to ``end`` (exclusive), or as many of them as exist."""
    rows = torch.arange(start, min(end, len(examples)))
    return examples.batch(rows) if isinstance(examples, Split) else examples.take(rows)


def batches(x: Tensor | Split | Batch, size: int) -> Iterator[Batch]:
    """Raw examples with their conditions, ``size`` at a time; one empty batch if there are no examples.

    >>> [len(batch) for batch in batches(torch.zeros(5, 2), 2)]
    [2, 2, 1]
    """
    examples = examples_in(x)
    return (rows_of(examples, start, start + size) for start in range(0, max(1, len(examples)), size))


@contextmanager
def in_use(model: Model) -> Iterator[None]:
    """Use the model in evaluation mode, without gradients, and restore its mode."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), fast_cpu(model.device):
            yield
    finally:
        model.train(was_training)


def over_examples(
    model: Model,
    x: Tensor | Split | Batch,
    size: int,
    compute: Callable[[int, Batch], Tensor],
    on_chunk: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The results of ``compute(position, batch)`` for examples on the device of the model; see `by_chunks`."""
    examples = examples_in(x)

    def chunk(position: int, rows: slice) -> Tensor:
        return compute(position, rows_of(examples, rows.start, rows.stop).to(model.device)).cpu()

    return by_chunks(model, len(examples), size, chunk, on_chunk)


def by_chunks(
    model: Model,
    n: int,
    size: int,
    compute: Callable[[int, slice], Tensor],
    on_chunk: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The results of ``compute(position, rows)`` for ``n`` rows, ``size`` at a time, shared by the processes.

    ``on_chunk`` is called with the numbers of rows that are finished and of all rows.
    """

    def chunk(position: int) -> Tensor:
        return compute(position, slice(position * size, min((position + 1) * size, n)))

    def report(done: int) -> None:
        if on_chunk is not None:
            on_chunk(min(done * size, n), n)

    with in_use(model):
        return share_out(-(-n // size), chunk, report)
