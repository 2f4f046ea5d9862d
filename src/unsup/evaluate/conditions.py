"""What a model is asked given: the conditions of the examples, where it is conditioned on something."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.model import IsConditional, Model
from unsup.data.source import Split, some_of


def is_conditioned(model: Model) -> bool:
    """Whether a model was built for a condition."""
    return isinstance(model, IsConditional) and model.given is not None


def beside(model: Model, given: Tensor | None) -> dict[str, Any]:
    """The keyword arguments of a verb that is asked under conditions: none where the model has no condition.

    >>> import unsup
    >>> beside(unsup.create("made", unsup.load_data("moons").event), torch.zeros(3))
    {}
    """
    return {"given": given} if is_conditioned(model) else {}


def conditions_of(model: Model, split: Split, n: int) -> Tensor | None:
    """What ``n`` samples of a model are conditioned on: what examples of ``split`` are, chosen by a hash, in turn.

    None for a model without a condition.

    Raises:
        InputError: the model is conditioned on something, and the data has no conditions.
    """
    if not is_conditioned(model):
        return None
    if split.given is None:
        raise InputError(f"this {type(model).__name__} is asked given something, and the data has no conditions")
    chosen = split.given[some_of(len(split), n)]
    return chosen[torch.arange(n) % len(chosen)]


def for_samples(model: Model, split: Split, n: int) -> dict[str, Any]:
    """The keyword arguments for ``n`` samples of which nobody says what they are given.

    A model that is conditioned on a class draws it; what others are given is what examples of ``split`` are.
    """
    if not is_conditioned(model) or cast(IsConditional, model).classes:
        return {}
    given = conditions_of(model, split, n)
    return {"given": None if given is None else given.to(model.device)}


def examples_in(x: Tensor | Split | Batch) -> Split | Batch:
    """Raw examples with what goes with them.

    Raises:
        InputError: something else was given.

    >>> len(examples_in(torch.zeros(5, 2)))
    5
    """
    if isinstance(x, Split | Batch):
        return x
    if isinstance(x, Tensor):
        return Batch(x)
    raise InputError(
        f"a {type(x).__name__} was given for examples; expected a split of data (data.test), a Batch, or a tensor of "
        "raw data (torch.as_tensor(x))"
    )


def rows_of(examples: Split | Batch, start: int, end: int) -> Batch:
    """The examples from number ``start`` to ``end``, without ``end``, or as many of them as there are."""
    rows = torch.arange(start, min(end, len(examples)))
    return examples.batch(rows) if isinstance(examples, Split) else examples.take(rows)


def batches(x: Tensor | Split | Batch, size: int) -> Iterator[Batch]:
    """Raw examples with what goes with them, ``size`` at a time; one empty batch where there are none.

    >>> [len(batch) for batch in batches(torch.zeros(5, 2), 2)]
    [2, 2, 1]
    """
    examples = examples_in(x)
    return (rows_of(examples, start, start + size) for start in range(0, max(1, len(examples)), size))
