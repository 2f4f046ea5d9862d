"""Few labels: some training examples keep their labels, and all of them are the stream ``"unlabelled"`` as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.random import keyed_generator
from unsup.core.words import counted
from unsup.data.source import Data, Split
from unsup.data.streams import joined

_LABELLED = 4  # the use of draws, after those of `unsup.data.source`


def balanced(label: Tensor, each: int, classes: Sequence[int], seed: int) -> Tensor:
    """The rows of ``each`` examples of every class, drawn by (seed, class), in order: int64 ``(each · classes,)``.

    Args:
        label: class numbers ``(N,)``.
        classes: the numbers of the classes.

    >>> balanced(torch.tensor([0, 1, 0, 1, 1, 0, 0]), 2, (0, 1), seed=0).tolist()
    [1, 2, 4, 6]
    """
    rows = []
    for number in classes:
        own = (label == number).nonzero()[:, 0]
        order = torch.randperm(len(own), generator=keyed_generator(seed, _LABELLED, number))
        rows.append(own[order[:each]])
    return torch.cat(rows).sort().values


def with_few_labels(data: Data, labels: int, seed: int) -> Data:
    """``data`` whose training split has ``labels`` examples, the same number of each class.

    The stream ``"unlabelled"`` of each split has all of its examples, without labels; those of a stream of this name,
    if there is one, follow them. `Data.labelled` are the rows, in the whole training split, that keep their labels.

    Raises:
        InputError: data without labels, a number that is not a multiple of the number of classes, or a class with too
            few examples.
    """
    name, label = data.name or "this data", data.train.label
    if data.labels is None or label is None:
        raise InputError(
            f"{name} has no labels, of which labels={labels} could be kept; name their column with --label NAME, or "
            "use a folder with a subfolder for each class"
        )
    counts = torch.bincount(label, minlength=len(data.labels)).tolist()
    classes = [i for i, called in enumerate(data.labels) if called != data.options.get("without")]
    if sum(counts[i] > 0 for i in classes) < 2:
        raise InputError(f"all training examples of {name} are of one class; expected two classes or more")
    each, rest = divmod(labels, len(classes))
    if each < 1 or rest:
        better = " or ".join(str(n * len(classes)) for n in (each, each + 1) if n > 0)
        raise InputError(
            f"labels={labels} is not the same number of each of the {len(classes)} classes of {name}; use {better}"
        )
    least = min(classes, key=counts.__getitem__)
    if counts[least] < each:
        mend = f"use {counts[least] * len(classes)} labels or fewer" if counts[least] else "remove the class"
        raise InputError(
            f"labels={labels} needs {counted(each, 'training example')} of each class, but {name} has {counts[least]} "
            f"of class {data.labels[least]!r}; {mend}"
        )
    rows = balanced(label, each, classes, seed)
    said = f"{labels} of {len(label):,} training examples have labels, {each} of each class, drawn with seed {seed}"
    whole = replace(
        data,
        train=_unlabelled(data.train, name),
        validation=_unlabelled(data.validation, name),
        test=_unlabelled(data.test, name),
    )
    few = replace(data, train=data.train.take(rows), labelled=tuple(rows.tolist()), notes=(*data.notes, said))
    return joined(few, "unlabelled", whole)


def _unlabelled(split: Split, name: str) -> Split:
    """The examples of a split without labels, followed by those of its stream."""
    alone = replace(split, label=None, given=None, streams={})
    if "unlabelled" not in split.streams:
        return alone
    other = split.streams["unlabelled"]
    if not isinstance(alone.examples, Tensor) or not isinstance(other.examples, Tensor):
        raise InputError(f"{name} is larger than memory, and labels= cannot join it with unlabelled=; pass one of both")
    return replace(
        alone,
        examples=torch.cat([alone.examples, other.examples]),
        grey=None if alone.grey is None or other.grey is None else torch.cat([alone.grey, other.grey]),
        lengths=None if alone.lengths is None or other.lengths is None else torch.cat([alone.lengths, other.lengths]),
        weight=None,
    )
