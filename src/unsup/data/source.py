"""What data is once it is loaded: an event and three fixed splits held as tensors."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
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
from unsup.core.random import Rows, keyed_generator

# One number a use, so that draws made for different purposes with one seed are unrelated.
_SHUFFLE, _BINARISE, _STREAM = 1, 2, 3
_ROWS_AT_ONCE = 4096
_GLANCE = 20_000


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """The order in which ``n`` examples are seen in one epoch: a shuffle keyed by (seed, epoch), int64 ``(n,)``.

    >>> bool((permutation(0, 1, 5) == permutation(0, 1, 5)).all())
    True
    """
    return torch.randperm(n, generator=keyed_generator(seed, _SHUFFLE, epoch))


def stream_rows(seed: int, name: str, n: int, start: int, count: int) -> Tensor:
    """Which of the ``n`` examples of a further stream are seen from its position ``start`` on: int64 ``(count,)``.

    The stream is one shuffle after another, keyed by (seed, name, how many went before): where it stands is a number,
    so that going on with a run needs no more.

    >>> [bool((stream_rows(0, "unlabelled", 5, 5 * i, 5).sort().values == torch.arange(5)).all()) for i in range(3)]
    [True, True, True]
    """
    key, rows, found = zlib.crc32(name.encode()), [], 0
    while found < count:
        done, offset = divmod(start + found, n)
        order = torch.randperm(n, generator=keyed_generator(seed, _STREAM, key, done))
        rows.append(order[offset : offset + count - found])
        found += len(rows[-1])
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64)


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


class Source(ABC):
    """Examples that are not held in memory: what a `Split` may have as its ``x``."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def rows(self, indices: Tensor) -> Tensor:
        """The raw examples at ``indices`` (int64), read now: ``(len(indices), *event.shape)``."""

    @abstractmethod
    def take(self, indices: Tensor) -> Source:
        """The source that holds only the examples at ``indices``, in that order; nothing is read."""


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split, and what goes with each.

    Attributes:
        examples: raw data ``(N, *event.shape)``: a tensor, or a `Source` where it is larger than memory. ``x`` is the
            same as a tensor.
        label: class numbers ``(N,)``, int64, or None.
        grey: grey levels ``(N, *event.shape)``, uint8, from which `epoch` draws; None where the data is as it is.
        given: what each example is conditioned on, ``(N, *given.shape)``, or None.
        lengths: of the open first axis of each example, ``(N,)``, int64, or None.
        weight: of each example in means, ``(N,)``, or None.
        streams: further streams by name, each of a size and in an order of its own.
    """

    examples: Tensor | Source
    label: Tensor | None = None
    grey: Tensor | None = None
    given: Tensor | None = None
    lengths: Tensor | None = None
    weight: Tensor | None = None
    streams: Mapping[str, Split] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One example with what goes with it, by name, for `torch.utils.data.DataLoader`."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} examples; number {index} was asked for")
        batch = self.batch(torch.tensor([index % len(self)]))
        fields = {name: getattr(batch, name) for name in ("x", "label", "given", "lengths", "weight")}
        return {name: value[0] for name, value in fields.items() if value is not None}

    @property
    def x(self) -> Tensor:
        """All raw examples in memory, ``(N, *event.shape)``; of more than memory holds, ask for `rows`."""
        return self.examples if isinstance(self.examples, Tensor) else self.examples.rows(torch.arange(len(self)))

    @property
    def glance(self) -> Tensor:
        """All raw examples where they are in memory, else the first 20,000: for statistics of the data."""
        return self.examples if isinstance(self.examples, Tensor) else self.rows(torch.arange(min(len(self), _GLANCE)))

    def rows(self, indices: Tensor) -> Tensor:
        """The raw examples at ``indices`` (int64)."""
        return self.examples[indices] if isinstance(self.examples, Tensor) else self.examples.rows(indices)

    def batch(self, indices: Tensor) -> Batch:
        """The examples at ``indices`` (int64, ``(B,)``), without further streams."""
        return Batch(self.rows(indices), **self._beside(indices))

    def step(self, indices: Tensor, sizes: Mapping[str, int], *, seed: int, position: int, part: Rows) -> Batch:
        """What one step sees: the examples at hand, and those of every stream that the model reads.

        Args:
            indices: of all examples of the batch.
            sizes: how many examples of each stream go with one of ``x``.
            position: batches before this one.
            part: which of ``indices`` are at hand.
        """
        streams = {}
        for name, each in sizes.items():
            if name not in self.streams:
                known = ", ".join(self.streams) or "none"
                raise InputError(f"the model reads a stream {name!r}, and the data has: {known}")
            split, size = self.streams[name], each * part.total
            rows = stream_rows(seed, name, len(split), position * size, size)
            streams[name] = split.batch(rows[each * part.start : each * (part.start + part.count)])
        own = self.batch(indices[part.start : part.start + part.count])
        return replace(own, streams=streams) if streams else own

    def _beside(self, indices: Tensor | slice) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in ("label", "given", "lengths", "weight")}
        return {name: value[indices] for name, value in found.items() if value is not None}

    def take(self, indices: Tensor | slice) -> Split:
        """The split that holds only the examples at ``indices`` (or where a mask is True); streams stay whole."""
        if isinstance(self.examples, Tensor):
            examples: Tensor | Source = self.examples[indices]
        else:
            examples = self.examples.take(torch.arange(len(self))[indices])
        grey = None if self.grey is None else self.grey[indices]
        return replace(self, examples=examples, grey=grey, **self._beside(indices))

    def to(self, device: torch.device | str) -> Split:
        """The same examples on ``device``; what is only drawn from (grey levels, sources) stays where it is."""
        examples = self.examples.to(device) if isinstance(self.examples, Tensor) else self.examples
        beside = {name: value.to(device) for name, value in self._beside(slice(None)).items()}
        return replace(self, examples=examples, **beside, streams={k: v.to(device) for k, v in self.streams.items()})

    def epoch(self, seed: int, epoch: int) -> Split:
        """The split as it is seen in one epoch: itself, or a fresh binarisation of the grey levels.

        All examples are drawn in one go keyed by (seed, epoch), so batch size and processes do not matter.
        """
        if self.grey is None:
            return self
        return replace(self, examples=binarise(self.grey, seed=seed, epoch=epoch).to(self.x.device))


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
        paired: whether row i of the stream ``domain_b`` of validation and test is the true translation of row i of
            ``x``. That of training never is.
        columns: names of the entries of a table's row, or None.
        given: the event of the conditions of the examples, or None: ``create(..., given=data.given)``.
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
    given: Event | None = None

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
        taken = Split(self.x, self.label, self.grey).take(order)
        names = tuple(self.names[i] for i in order.tolist())
        other = None if self.domain_b is None else self.domain_b[order]
        return replace(
            self, x=taken.x, label=taken.label, grey=taken.grey, domain_b=other, names=names, sizes=sizes, split=split
        )

    def splits(self, owner: str) -> tuple[tuple[Split, Split, Split], str]:
        """(train, validation, test) and where they come from, in words."""
        found, (train, validation, test) = self.arranged(owner)
        drawn = Split(found.x, found.label, found.grey)
        fixed = replace(drawn, grey=None)
        middle, end = train + validation, train + validation + test
        parts = (slice(0, train), slice(train, middle), slice(middle, end))
        splits = [whole.take(part) for whole, part in zip((drawn, fixed, fixed), parts, strict=True)]
        if found.domain_b is not None:
            others = [{"domain_b": Split(found.domain_b[part])} for part in parts]
            splits = [replace(split, streams=other) for split, other in zip(splits, others, strict=True)]
        return (splits[0], splits[1], splits[2]), found.split


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
