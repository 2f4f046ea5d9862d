"""The result of a reader: all examples together, before they are split."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.data.form import Form
from unsup.data.hashing import Words, by_content, copy_hashes, row_hashes
from unsup.data.source import Data, Source, Split, hashed_order, split_sizes

SPLITS = ("train", "validation", "test")
_OF_COPIES = " and the number of its copy"


@dataclass(frozen=True, eq=False)
class Examples:
    """The result of a reader: all examples together, before they are split.

    Attributes:
        x: raw examples: a tensor, or a `Source` if they are larger than memory.
        names: names of rows or files, one per example.
        sizes: sizes of train, validation and test if they are consecutive in ``x``; None if there are no splits yet.
        own: number of examples of each split of the data itself, consecutive in ``x``; missing validation and test
            splits are still to be taken from training. None if it has no splits.
        split: description of the source of the splits.
        shares: percentages of validation and test if ``sizes`` is None.
        hashes: hashes of the content of each row, ``(N,)``, which determine the splits; None to split by the row
            number, with shares that are rounded up. Equal rows are together, except in a table in which fewer than half
            of the rows are distinct: its repetition is natural, and each copy is split on its own.
        in_order: split ``x`` in its given order.
        grey: as in `Split`, used in training only.
        domain_b: examples of a second domain, as many as ``x``: unpaired in training, then the translations of ``x``.
        columns: names of the columns of a table, or None.
        files: whether ``names`` are file names, by which two folders are matched.
        given: the condition of each example, or None.
        condition: the event of ``given``.
        lengths: as in `Split`.
        weight: as in `Split`.
        rate: as in `Data`.
        form: as in `Data`.
    """

    x: Tensor | Source
    event: Event
    names: Sequence[str]
    label: Tensor | None = None
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    sizes: tuple[int, int, int] | None = None
    own: Mapping[str, int] | None = None
    split: str = "by a hash of the row number"
    shares: tuple[int, int] = (10, 10)
    hashes: Words | None = None
    in_order: bool = False
    grey: Tensor | None = None
    domain_b: Tensor | None = None
    columns: tuple[str, ...] | None = None
    files: bool = False
    given: Tensor | None = None
    condition: Event | None = None
    lengths: Tensor | None = None
    weight: Tensor | None = None
    rate: int | None = None
    form: Form | None = None

    @property
    def whole(self) -> Split:
        """All examples as one split."""
        return Split(self.x, self.label, self.grey, self.given, self.lengths, self.weight)

    def arranged(self, owner: str) -> tuple[Examples, tuple[int, int, int]]:
        """The same examples, ordered as train, validation and test, and their sizes."""
        if self.sizes is not None:
            return self, self.sizes
        if self.own is not None:
            return self._by_own_parts(self.own, owner)
        rule = f"{100 - sum(self.shares)}/{self.shares[0]}/{self.shares[1]} {self.split}"
        if self.hashes is not None:
            ties, different = self._ties(), len(np.unique(self.hashes))
            apart = self._repeats(different, len(self.hashes))
            keys = copy_hashes(self.hashes, ties) if apart else self.hashes
            found, sizes = by_content(keys, ties, self.shares, owner=owner)
            rule += _OF_COPIES if apart else ""
            return self._noted(different, apart).reordered(torch.from_numpy(found), sizes, rule), sizes
        is_cut = self.in_order and self.event.layout == "sequence" and not self.event.open
        mend = f"; use a --length below {self.event.shape[0]}, or more data" if is_cut else ""
        sizes = split_sizes(len(self.x), *self.shares, owner=owner, mend=mend)
        order = torch.arange(len(self.x)) if self.in_order else torch.from_numpy(hashed_order(len(self.x)))
        return self.reordered(order, sizes, rule), sizes

    def _by_own_parts(self, own: Mapping[str, int], owner: str) -> tuple[Examples, tuple[int, int, int]]:
        """The splits of the data, each in the order of hashes; missing splits are taken from training."""
        assert self.hashes is not None
        ties, start = self._ties(), 0
        missing = [name for name in SPLITS if name not in own]
        apart = False
        cut: dict[str, NDArray[np.int64]] = {}
        for part, size in own.items():
            rows = slice(start, start + size)
            validation, test = (10 if part == "train" and name in missing else 0 for name in SPLITS[1:])
            beside = None if ties is None else ties[rows]
            keys = self.hashes[rows]
            if (validation or test) and (apart := self._repeats(len(np.unique(keys)), size)):
                keys = copy_hashes(keys, beside)
            order, sizes = by_content(keys, beside, (validation, test), owner=f"{owner} ({part})")
            pieces = dict(zip(SPLITS, np.split(start + order, np.cumsum(sizes)[:2]), strict=True))
            cut[part] = pieces["train"]
            if part == "train":
                cut |= {name: pieces[name] for name in missing}
            start += size
        rule = "as in the file" + (
            f"; a tenth of train is used for {' and a tenth for '.join(missing)}, by a hash of each row"
            + (_OF_COPIES if apart else "")
            if missing
            else ""
        )
        lengths = (len(cut["train"]), len(cut["validation"]), len(cut["test"]))
        return self.reordered(torch.from_numpy(np.concatenate([cut[name] for name in SPLITS])), lengths, rule), lengths

    def _ties(self) -> Words | None:
        """Keys that order rows with equal content: their labels and other fields."""
        beside = [v for v in (self.label, self.given, self.lengths, self.weight, self.domain_b) if v is not None]
        return row_hashes(np.stack([row_hashes(v.numpy()) for v in beside], 1)) if beside else None

    def _repeats(self, different: int, n: int) -> bool:
        """Whether most of ``n`` rows of a table repeat others, which is then the nature of the table."""
        return self.event.layout == "vector" and self.lengths is None and 1 < different < n / 2

    def _noted(self, different: int, apart: bool) -> Examples:
        """The same, with a note about equal rows if there are many, which are split ``apart`` or together."""
        n = len(self.x)
        if 2 * different > n:
            return self
        where = "are split at random, as most rows of this table repeat" if apart else "are always in the same split"
        note = f"only {different:,} of {n:,} rows are distinct; equal rows {where}"
        return replace(self, notes=(*self.notes, note))

    def reordered(self, order: Tensor, sizes: tuple[int, int, int], split: str) -> Examples:
        """The examples at ``order``, which sorts them into train, validation and test."""
        taken = self.whole.take(order)
        return replace(
            self,
            x=taken.examples,
            label=taken.label,
            grey=taken.grey,
            given=taken.given,
            lengths=taken.lengths,
            weight=taken.weight,
            domain_b=None if self.domain_b is None else self.domain_b[order],
            names=Names(self.names.__getitem__, order.numpy()),
            sizes=sizes,
            own=None,
            hashes=None,
            split=split,
        )

    @property
    def parts(self) -> tuple[int, ...] | None:
        """The sizes of the splits, if they are fixed before splitting."""
        if self.sizes is not None or self.own is None:
            return self.sizes
        return tuple(self.own.get(name, 0) for name in SPLITS)

    @property
    def tensor(self) -> Tensor:
        """``x`` of a reader that keeps it in memory."""
        assert isinstance(self.x, Tensor)
        return self.x

    def data(self, owner: str) -> Data:
        """The examples as three splits.

        Args:
            owner: name for the error if there are too few examples.
        """
        found, sizes = self.arranged(owner)
        ends = [sum(sizes[:i]) for i in range(4)]
        parts = [slice(start, end) for start, end in itertools.pairwise(ends)]
        splits = [found.whole.take(part) for part in parts]
        if found.domain_b is not None:
            others = [{"domain_b": Split(found.domain_b[part])} for part in parts]
            splits = [replace(split, streams=other) for split, other in zip(splits, others, strict=True)]
        train, validation, test = splits
        return Data(
            None,
            self.event,
            train,
            replace(validation, grey=None),
            replace(test, grey=None),
            labels=self.labels,
            split=found.split,
            notes=found.notes,
            paired=self.domain_b is not None,
            columns=self.columns,
            given=self.condition,
            rate=self.rate,
            form=self.form,
        )


class Names(Sequence[str]):
    """Names that are created on demand: the names of data larger than memory may not fit into memory.

    >>> Names("row {}".format, range(10**9))[7]
    'row 7'
    """

    def __init__(self, name: Callable[[int], str], numbers: range | NDArray[np.int64]) -> None:
        self._name, self._numbers = name, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Names: ...

    def __getitem__(self, index: int | slice) -> str | Names:
        if isinstance(index, slice):
            return Names(self._name, self._numbers[index])
        return self._name(int(self._numbers[index]))


def part_names(sizes: Mapping[str, int]) -> Names:
    """Names of rows that are ordered by split.

    >>> list(part_names({"train": 2, "test": 1}))
    ['train 0', 'train 1', 'test 0']
    """
    words, starts = list(sizes), np.cumsum([0, *sizes.values()])

    def name(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{words[part]} {row - starts[part]}"

    return Names(name, range(int(starts[-1])))


def classes(values: NDArray[Any], what: str) -> tuple[Tensor, tuple[str, ...]]:
    """Class numbers (int64) and sorted class names of a column of integers or text.

    Integers of any size keep their digits.

    Raises:
        InputError: a value is not a class (a fraction, NaN).
    """
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind == "f":
        odd = values[~np.isfinite(values) | (values != np.floor(values))]
        if len(odd):
            raise InputError(f"{what} has {odd[0]}, which is not a class; expected integers or text")
    found, numbers = np.unique(values, return_inverse=True)
    names = tuple(str(int(n) if isinstance(n, float) else n) for n in found.tolist())
    return torch.from_numpy(numbers.astype(np.int64).reshape(-1)), names


def listing(names: Sequence[str], most: int = 5) -> str:
    """``"a, b and 3 more"``."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
