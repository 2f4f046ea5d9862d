"""What data is once it is loaded: an event and three fixed splits held as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.core.model import keyed_generator

# One number a use, so that draws made for different purposes with one seed are unrelated.
_SHUFFLE, _BINARISE, _SECOND = 1, 2, 3
_ROWS_AT_ONCE = 4096


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """The order in which ``n`` examples are seen in one epoch: a shuffle keyed by (seed, epoch), int64 ``(n,)``.

    >>> bool((permutation(0, 1, 5) == permutation(0, 1, 5)).all())
    True
    """
    return torch.randperm(n, generator=keyed_generator(seed, _SHUFFLE, epoch))


def companions(seed: int, epoch: int, n: int, others: int) -> Tensor:
    """Which of ``others`` examples of a second domain go with each of ``n`` in one epoch: int64 ``(n,)``.

    A shuffle keyed by (seed, epoch), unrelated to `permutation`: its first n, or as many shuffles as n needs.
    """
    rounds = (
        torch.randperm(others, generator=keyed_generator(seed, _SECOND, epoch, i)) for i in range(-(-n // others))
    )
    return torch.cat(list(rounds))[:n]


def binarise(grey: Tensor, *, seed: int, epoch: int) -> Tensor:
    """x ~ Bernoulli(grey / 255), keyed by (seed, epoch): uint8 ``(N, ...)`` → uint8 in {0, 1}.

    A draw from 0..254 lies below g with probability g/255 exactly, so 0 never and 255 always gives 1.
    """
    source = np.random.Generator(np.random.SFC64(keyed_generator(seed, _BINARISE, epoch).initial_seed()))
    levels = grey.cpu().numpy()
    out = np.empty(levels.shape, np.uint8)
    for start in range(0, len(levels), _ROWS_AT_ONCE):
        rows = levels[start : start + _ROWS_AT_ONCE]
        np.less(source.integers(0, 255, rows.shape, dtype=np.uint8), rows, out=out[start : start + _ROWS_AT_ONCE])
    return torch.from_numpy(out)


@dataclass(frozen=True, eq=False)
class Split:
    """Examples held in memory.

    Attributes:
        x: raw data ``(N, *event.shape)``.
        label: class numbers ``(N,)``, int64, or None.
        grey: grey levels ``(N, *event.shape)``, uint8, from which `epoch` draws; None where the data is as it is.
        domain_b: raw examples ``(M, *event.shape)`` of a second domain, or None. M may differ from N until `epoch`
            gives every example a companion.
    """

    x: Tensor
    label: Tensor | None = None
    grey: Tensor | None = None
    domain_b: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Tensor) -> Batch:
        """The examples at ``indices`` (int64, ``(B,)``), with the rows of ``domain_b`` that lie beside them."""
        return Batch(self.x[indices], *(None if t is None else t[indices] for t in (self.label, self.domain_b)))

    def take(self, indices: Tensor | slice) -> Split:
        """The split that holds only the examples at ``indices`` (or where a mask is True), ``domain_b`` included."""
        rest = (None if t is None else t[indices] for t in (self.label, self.grey, self.domain_b))
        return Split(self.x[indices], *rest)

    def to(self, device: torch.device | str) -> Split:
        """The same examples on ``device``; the grey levels, which are only drawn from, stay where they are."""
        label, domain_b = (None if t is None else t.to(device) for t in (self.label, self.domain_b))
        return Split(self.x.to(device), label, self.grey, domain_b)

    def epoch(self, seed: int, epoch: int) -> Split:
        """The split as it is seen in one epoch: itself, or a fresh binarisation of the grey levels.

        All examples are drawn in one go keyed by (seed, epoch), so batch size and processes do not matter. Examples of
        a second domain are dealt out afresh, one to each example of the first.
        """
        seen = self
        if self.grey is not None:
            seen = replace(seen, x=binarise(self.grey, seed=seed, epoch=epoch).to(self.x.device))
        if self.domain_b is not None:
            rows = companions(seed, epoch, len(self), len(self.domain_b)).to(self.domain_b.device)
            seen = replace(seen, domain_b=self.domain_b[rows])
        return seen


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: what one example is, and fixed splits. Nothing but an evaluation reads ``test``.

    Attributes:
        name: the name or absolute path; ``load_data(name, **options)`` gives the same data again. None for arrays.
        event: what one example is.
        labels: class names, or None.
        split: where the splits come from, in words.
        options: the options given, plain JSON values.
        notes: what was skipped, dropped or decided, and why.
        paired: whether row i of the ``domain_b`` of validation and test is the true translation of row i of ``x``.
            That of training never is.
        columns: names of the entries of a table's row, or None.
    """

    name: str | None
    event: Event
    train: Split
    validation: Split
    test: Split
    labels: tuple[str, ...] | None = None
    split: str = "official"
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    paired: bool = False
    columns: tuple[str, ...] | None = None

    def describe(self) -> str:
        """One line.

        >>> import unsup
        >>> unsup.load_data("digits").describe()
        '1,797 images, 1×8×8, 17 levels, 10 labels; 1,257 train, 180 validation, 360 test'
        """
        sizes = (len(self.train), len(self.validation), len(self.test))
        what = [f"{sum(sizes):,} {self.event.layout}s", "×".join(map(str, self.event.shape)), _values(self.event)]
        if self.labels is not None:
            count = len(self.labels) - ("without" in self.options)
            what.append(f"{count} label{'s' if count != 1 else ''}")
        return f"{', '.join(what)}; {sizes[0]:,} train, {sizes[1]:,} validation, {sizes[2]:,} test"

    def to_json(self) -> dict[str, Any]:
        """What a run folder records about its data."""
        return {
            "name": self.name,
            "options": dict(self.options),
            "event": self.event.to_json(),
            "labels": None if self.labels is None else list(self.labels),
            "sizes": {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)},
            "split": self.split,
            "notes": list(self.notes),
        }


def _values(event: Event) -> str:
    if event.uniform is not None:
        return _word(event.uniform)
    kinds = [s.kind for s in event.columns]
    return " + ".join(f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds))


def _word(support: Support) -> str:
    return {"ordinal": f"{support.levels} levels", "nominal": f"{support.levels} categories"}.get(
        support.kind, support.kind
    )


@dataclass(frozen=True, eq=False)
class Examples:
    """What a reader found: all examples in one tensor, before they are split.

    Attributes:
        names: of rows or files, one an example.
        sizes: of train, validation and test where they lie one after the other in ``x``; None when there are none yet.
        split: where the splits come from, in words.
        shares: percent of validation and test where ``sizes`` is None, each rounded up.
        in_order: cut the splits from ``x`` as it lies, not in hashed order.
        grey: as in `Split`, used in training only.
        domain_b: examples of a second domain, as many as ``x``: in training others, then its translations.
        columns: names of the entries of a table's row, or None.
    """

    x: Tensor
    event: Event
    names: Sequence[str]
    label: Tensor | None = None
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    sizes: tuple[int, int, int] | None = None
    split: str = "by a hash of the row number"
    shares: tuple[int, int] = (10, 10)
    in_order: bool = False
    grey: Tensor | None = None
    domain_b: Tensor | None = None
    columns: tuple[str, ...] | None = None

    def arranged(self, owner: str) -> tuple[Examples, tuple[int, int, int]]:
        """The same examples with train, validation and test one after the other, and their sizes."""
        if self.sizes is not None:
            return self, self.sizes
        sizes = split_sizes(len(self.x), *self.shares, owner=owner)
        rule = f"{100 - sum(self.shares)}/{self.shares[0]}/{self.shares[1]} {self.split}"
        order = torch.arange(len(self.x)) if self.in_order else torch.from_numpy(hashed_order(len(self.x)))
        return self.reordered(order, sizes, rule), sizes

    def reordered(self, order: Tensor, sizes: tuple[int, int, int], split: str) -> Examples:
        """The examples at ``order``, which puts train, validation and test one after the other."""
        taken = Split(self.x, self.label, self.grey, self.domain_b).take(order)
        names = tuple(self.names[i] for i in order.tolist())
        found = {"x": taken.x, "label": taken.label, "grey": taken.grey, "domain_b": taken.domain_b}
        return replace(self, **found, names=names, sizes=sizes, split=split)

    def splits(self, owner: str) -> tuple[tuple[Split, Split, Split], str]:
        """(train, validation, test) and where they come from, in words."""
        found, (train, validation, test) = self.arranged(owner)
        drawn = Split(found.x, found.label, found.grey, found.domain_b)
        fixed = replace(drawn, grey=None)
        middle, end = train + validation, train + validation + test
        return (
            drawn.take(slice(0, train)),
            fixed.take(slice(train, middle)),
            fixed.take(slice(middle, end)),
        ), found.split


def hashed_order(n: int) -> NDArray[np.int64]:
    """0..n−1 sorted by a hash of each number: an order that no library's version changes.

    The hash is SplitMix64's finaliser (Steele, Lea, Flood 2014).
    """
    with np.errstate(over="ignore"):
        key = (np.arange(n, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.argsort(key ^ (key >> np.uint64(31)), kind="stable")


def some_of(n: int, most: int) -> Tensor:
    """Which of n examples are looked at where at most ``most`` are to be: in order, chosen by a hash, int64.

    >>> some_of(5, 2).tolist(), some_of(2, 5).tolist()
    ([2, 4], [0, 1])
    """
    return torch.from_numpy(np.sort(hashed_order(n)[:most]))


def split_sizes(n: int, validation: int, test: int, *, owner: str) -> tuple[int, int, int]:
    """Sizes of train, validation and test; the two last, given in percent, are rounded up.

    Args:
        owner: named in the error when there are too few rows.
    """
    aside = -(-n * validation // 100), -(-n * test // 100)
    if n - sum(aside) < 1:
        raise InputError(f"{owner} holds {n} example{'s' * (n != 1)}; at least 3 are needed to split it; add some")
    return n - sum(aside), *aside


def classes(values: NDArray[Any], what: str) -> tuple[Tensor, tuple[str, ...]]:
    """Class numbers (int64) and class names of a column of whole numbers or words, in sorted order.

    Raises:
        InputError: a value is no class (a fraction, NaN).
    """
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind == "f":
        odd = values[~np.isfinite(values) | (values != np.floor(values))]
        if len(odd):
            raise InputError(f"{what} holds {odd[0]}, which is no class; expected whole numbers or words")
        values = values.astype(np.int64)
    names, numbers = np.unique(values, return_inverse=True)
    return torch.from_numpy(numbers.astype(np.int64)), tuple(str(n) for n in names.tolist())


def listing(names: Sequence[str], most: int = 5) -> str:
    """``"a, b and 3 more"``."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
