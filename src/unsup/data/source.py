"""Loaded data: an event and three fixed splits, in memory or read from disk on demand."""

from __future__ import annotations

import functools
import hashlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import Described, Event, Support
from unsup.core.random import Rows, keyed_generator
from unsup.data.form import Form
from unsup.data.hashing import Words, row_hashes, scrambled

# One number per use, so that draws for different purposes with the same seed are independent.
_SHUFFLE, _BINARISE, _STREAM = 1, 2, 3
_ROWS_AT_ONCE = 4096
_GLANCE = 20_000


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """The order of ``n`` examples in one epoch: a shuffle keyed by (seed, epoch), int64 ``(n,)``.

    >>> bool((permutation(0, 1, 5) == permutation(0, 1, 5)).all())
    True
    """
    return torch.randperm(n, generator=keyed_generator(seed, _SHUFFLE, epoch))


def stream_rows(seed: int, name: str, n: int, start: int, count: int) -> Tensor:
    """The examples of an additional stream of ``n`` examples, from position ``start``: int64 ``(count,)``.

    The stream is a sequence of shuffles, keyed by (seed, name, number of earlier shuffles). Its position is a single
    number, which is enough to resume a run.

    >>> [bool((stream_rows(0, "unlabelled", 5, 5 * i, 5).sort().values == torch.arange(5)).all()) for i in range(3)]
    [True, True, True]
    """
    rows, found = [torch.zeros(0, dtype=torch.int64)], 0
    while found < count:
        done, offset = divmod(start + found, n)
        rows.append(_stream_order(seed, name, n, done)[offset : offset + count - found])
        found += len(rows[-1])
    return torch.cat(rows)


@functools.lru_cache(maxsize=4)
def _stream_order(seed: int, name: str, n: int, done: int) -> Tensor:
    """The shuffle after ``done`` others; cached, since every step of a pass needs a part of it."""
    return torch.randperm(n, generator=keyed_generator(seed, _STREAM, zlib.crc32(name.encode()), done))


def binarise(grey: Tensor, *, seed: int, epoch: int) -> Tensor:
    """x ~ Bernoulli(grey / 255), keyed by (seed, epoch): uint8 ``(N, ...)`` → uint8 in {0, 1}.

    A draw from 0..254 is below g with probability exactly g/255, so 0 never and 255 always gives 1.
    """
    source = np.random.Generator(np.random.SFC64(keyed_generator(seed, _BINARISE, epoch).initial_seed()))
    levels = grey.cpu().numpy()
    out = np.empty(levels.shape, np.uint8)
    for start in range(0, len(levels), _ROWS_AT_ONCE):
        rows = levels[start : start + _ROWS_AT_ONCE]
        np.less(source.integers(0, 255, rows.shape, dtype=np.uint8), rows, out=out[start : start + _ROWS_AT_ONCE])
    return torch.from_numpy(out)


class Source(ABC):
    """Examples that are not in memory, as ``x`` of a `Split`."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def rows(self, indices: Tensor) -> Tensor:
        """Read the raw examples at ``indices`` (int64): ``(len(indices), *event.shape)``."""

    @abstractmethod
    def take(self, indices: Tensor) -> Source:
        """The source with the examples at ``indices``, in that order; nothing is read."""

    @property
    def hashes(self) -> Words | None:
        """`row_hashes` of all examples if they are known without reading, else None."""
        return None


@dataclass(frozen=True, eq=False)
class Split:
    """The examples of one split, with their labels, conditions and other fields.

    Attributes:
        examples: raw data ``(N, *event.shape)``: a tensor, or a `Source` if it is larger than memory. ``x`` is the
            same as a tensor.
        label: class numbers ``(N,)``, int64, or None.
        grey: grey levels ``(N, *event.shape)``, uint8, from which `epoch` draws; None if the data is fixed.
        given: the condition of each example, ``(N, *given.shape)``, or None.
        lengths: the length of the open first axis of each example, ``(N,)``, int64, or None.
        weight: the weight of each example in means, ``(N,)``, or None.
        streams: additional streams by name, each with its own size and order.
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
        """One example with its fields by name, for `torch.utils.data.DataLoader`."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} examples")
        batch = self.batch(torch.tensor([index % len(self)]))
        fields = {name: getattr(batch, name) for name in ("x", "label", "given", "lengths", "weight")}
        return {name: value[0] for name, value in fields.items() if value is not None}

    @property
    def x(self) -> Tensor:
        """All raw examples in memory, ``(N, *event.shape)``; use `rows` for data larger than memory."""
        return self.examples if isinstance(self.examples, Tensor) else self.examples.rows(torch.arange(len(self)))

    @property
    def glance(self) -> Tensor:
        """All raw examples if they are in memory, else the first 20,000: for statistics of the data."""
        return self.examples if isinstance(self.examples, Tensor) else self.rows(torch.arange(min(len(self), _GLANCE)))

    def rows(self, indices: Tensor) -> Tensor:
        """The raw examples at ``indices`` (int64)."""
        return self.examples[indices] if isinstance(self.examples, Tensor) else self.examples.rows(indices)

    def batch(self, indices: Tensor) -> Batch:
        """The examples at ``indices`` (int64, ``(B,)``), without additional streams."""
        return Batch(self.rows(indices), **self._beside(indices))

    def step(self, indices: Tensor, sizes: Mapping[str, int], *, seed: int, position: int, part: Rows) -> Batch:
        """The batch of one step: local examples, and those of every stream that the model reads.

        Args:
            indices: indices of all examples of the batch.
            sizes: number of examples of each stream per example of ``x``.
            position: number of batches before this one.
            part: the local part of ``indices``.
        """
        streams = {}
        for name, each in sizes.items():
            if name not in self.streams:
                known = ", ".join(self.streams) or "none"
                raise InputError(f"the model reads a stream {name!r}, but the data has: {known}")
            split, size = self.streams[name], each * part.total
            rows = stream_rows(seed, name, len(split), position * size, size)
            streams[name] = split.batch(rows[each * part.start : each * (part.start + part.count)])
        own = self.batch(indices[part.start : part.start + part.count])
        return replace(own, streams=streams) if streams else own

    def _beside(self, indices: Tensor | slice) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in ("label", "given", "lengths", "weight")}
        return {name: value[indices] for name, value in found.items() if value is not None}

    @property
    def hashes(self) -> Words:
        """A hash of each ``x``. If they are not in memory: hashes from scanning the files, else of 20,000 examples."""
        if isinstance(self.examples, Tensor):
            return row_hashes(self.examples.cpu().numpy())
        known = self.examples.hashes
        return row_hashes(self.rows(some_of(len(self), _GLANCE)).cpu().numpy()) if known is None else known

    def digest(self) -> str:
        """The digest of all content of the split in its order, including streams."""
        found = hashlib.blake2b(f"{len(self)}".encode(), digest_size=16)
        found.update(self.hashes.tobytes())
        for name in ("grey", "label", "given", "lengths", "weight"):
            value = getattr(self, name)
            if value is not None:
                found.update(name.encode() + row_hashes(value.cpu().numpy()).tobytes())
        for name in sorted(self.streams):
            found.update(f"{name} {self.streams[name].digest()}".encode())
        return found.hexdigest()

    def take(self, indices: Tensor | slice) -> Split:
        """The split with the examples at ``indices`` (or where a mask is True); streams are kept whole."""
        if isinstance(self.examples, Tensor):
            examples: Tensor | Source = self.examples[indices]
        else:
            examples = self.examples.take(torch.arange(len(self))[indices])
        grey = None if self.grey is None else self.grey[indices]
        return replace(self, examples=examples, grey=grey, **self._beside(indices))

    def to(self, device: torch.device | str) -> Split:
        """The same examples on ``device``; grey levels and sources are not moved."""
        examples = self.examples.to(device) if isinstance(self.examples, Tensor) else self.examples
        beside = {name: value.to(device) for name, value in self._beside(slice(None)).items()}
        return replace(self, examples=examples, **beside, streams={k: v.to(device) for k, v in self.streams.items()})

    def epoch(self, seed: int, epoch: int) -> Split:
        """The split in one epoch: itself, or a new binarisation of the grey levels.

        All examples are drawn at once, keyed by (seed, epoch), so the result does not depend on batch size or
        processes.
        """
        streams = {name: stream.epoch(seed, epoch) for name, stream in self.streams.items()}
        if self.grey is None:
            return replace(self, streams=streams) if streams else self
        drawn = binarise(self.grey, seed=seed, epoch=epoch)
        return replace(self, examples=drawn.to(self.x.device), streams=streams)


@dataclass(frozen=True, eq=False)
class Data(Described):
    """A data set: an event and fixed splits. Only evaluation, and the digest, read ``test``.

    Attributes:
        name: the name or absolute path; ``load_data(name, **options)`` loads the same data again. None for arrays.
        event: the event of one example.
        labels: class names, or None.
        split: description of the source of the splits.
        options: the given options as JSON values.
        notes: what was skipped, dropped or decided, and why.
        paired: whether row i of the stream ``domain_b`` of validation and test is the true translation of row i of
            ``x``. In training it never is.
        columns: names of the columns of a table, or None.
        given: the event of the conditions of the examples, or None: ``create(..., given=data.given)``.
        rate: samples a second where the examples are recordings of sound, else None.
        form: how samples are written to files like those that were read; None for arrays.
        labelled: the rows of the whole training split that have labels, if only some have; ``train`` has these alone.
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
    rate: int | None = None
    form: Form | None = None
    labelled: tuple[int, ...] | None = None

    @functools.cached_property
    def digest(self) -> str:
        """The digest of the content of all splits, independent of the location: detects changed data."""
        parts = [split.digest() for split in (self.train, self.validation, self.test)]
        return hashlib.blake2b(" ".join(parts).encode(), digest_size=16).hexdigest()

    def describe(self) -> str:
        """A description in one line.

        >>> import unsup
        >>> unsup.load_data("digits").describe()
        '1,797 images, 1×8×8, 17 levels, 10 classes; 1,257 train, 180 validation, 360 test'
        """
        splits = self._splits
        what = _counts(self.event, sum(map(len, splits.values())))
        if self.labels is not None:
            count = len(self.labels) - ("without" in self.options)
            what.append(f"{count} class{'es' if count != 1 else ''}")
        if not isinstance(self.train.examples, Tensor):
            what.append("read from disk on demand")
        said = [", ".join(what), _sizes(splits)]
        said += [f"{name}: {_sizes(self._stream(name))}" for name in self.train.streams]
        if self.given is not None:
            said.append(f"given {_condition(self.given, self.options.get('given'))}")
        return "; ".join(said)

    def to_json(self) -> dict[str, Any]:
        """The record of the data in a run folder."""
        record: dict[str, Any] = {
            "name": self.name,
            "options": dict(self.options),
            "event": self.event.to_json(),
            "labels": None if self.labels is None else list(self.labels),
            "sizes": {name: len(split) for name, split in self._splits.items()},
            "split": self.split,
            "notes": list(self.notes),
        }
        if self.columns is not None:
            record["columns"] = list(self.columns)
        if self.given is not None:
            record["given"] = self.given.to_json()
        if self.form is not None:
            record["form"] = self.form.to_json()
        if self.labelled is not None:
            record["labelled"] = list(self.labelled)
        if self.train.streams:
            streams = {name: self._stream(name) for name in self.train.streams}
            record["streams"] = {name: {k: len(v) for k, v in parts.items()} for name, parts in streams.items()}
            record["paired"] = self.paired
        return record

    @property
    def letters(self) -> str:
        """`Form.letters` of the form."""
        return "" if self.form is None else self.form.letters

    @property
    def _splits(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def _stream(self, name: str) -> dict[str, Split]:
        return {part: split.streams[name] for part, split in self._splits.items() if name in split.streams}


def _counts(event: Event, examples: int) -> list[str]:
    """The number of examples and their form as text."""
    if event.layout == "vector" and len(event.shape) == 1:
        columns = f"{event.dims:,} column{'s' * (event.dims != 1)} ({_values(event)})"
        return [f"{examples:,} row{'s' * (examples != 1)}", columns]
    shape = ("up to " if event.open else "") + "×".join(map(str, event.shape))
    return [f"{examples:,} {event.layout}{'s' * (examples != 1)}", shape, _values(event)]


def _sizes(splits: Mapping[str, Split]) -> str:
    return ", ".join(f"{len(split):,} {name}" for name, split in splits.items())


def _condition(event: Event, asked: Any) -> str:
    """The conditions of the examples as text."""
    if not event.shape and event.uniform is not None and event.uniform.kind == "nominal":
        return f"one of {event.uniform.levels} classes"
    if isinstance(asked, (list, tuple)):
        return f"{', '.join(asked)} ({_values(event)})"
    return f"{_article(str(event.layout))} {event}" + (f" of {asked}" if asked else "")


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _values(event: Event) -> str:
    if event.uniform is not None:
        return _word(event.uniform)
    kinds = [s.kind for s in event.columns]
    return ", ".join(f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds))


def _word(support: Support) -> str:
    return {"ordinal": f"{support.levels} levels", "nominal": f"{support.levels} categories"}.get(
        support.kind, support.kind
    )


def hashed_order(n: int) -> NDArray[np.int64]:
    """0..n−1 sorted by a hash of each number: an order that does not depend on versions of libraries.

    The hash is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    """
    return np.argsort(scrambled(np.arange(1, n + 1, dtype=np.uint64)), kind="stable")


def some_of(n: int, most: int) -> Tensor:
    """At most ``most`` of n examples, chosen by a hash, in order: int64.

    >>> some_of(5, 2).tolist(), some_of(2, 5).tolist()
    ([2, 4], [0, 1])
    """
    return torch.from_numpy(np.sort(hashed_order(n)[:most]))


def split_sizes(n: int, validation: int, test: int, *, owner: str, mend: str = "") -> tuple[int, int, int]:
    """Sizes of train, validation and test; the last two, given in percent, are rounded up.

    Args:
        owner: name for the error if there are too few rows.
        mend: the end of that error: what to do.
    """
    aside = -(-n * validation // 100), -(-n * test // 100)
    if n - sum(aside) < 1:
        raise InputError(f"{owner} has {n} example{'s' * (n != 1)}; at least 3 are needed to split it{mend}")
    return n - sum(aside), *aside
