"""Random draws: keyed, and, inside a training step, drawn for the whole batch by everybody who holds a part of it.

Every draw in a loss goes through these functions. A generator is in the same state on every process; a draw with an
axis of examples is made for the whole batch, and each process (or each part of an accumulated batch) keeps the rows
that belong to its examples. So n processes are one, whatever the sizes of the other axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from unsup.core.errors import InputError

_SEEDS = range(-(2**63), 2**64)
"""What PyTorch takes as a seed."""


def manual_seed(generator: Generator, seed: int) -> Generator:
    """Seed ``generator``, with whole numbers of any size: those that PyTorch does not take are mixed down to 64 bits.

    >>> manual_seed(Generator(), 2**70).initial_seed() == manual_seed(Generator(), 2**71).initial_seed()
    False
    """
    if seed in _SEEDS:
        return generator.manual_seed(seed)
    key, rest = 0, abs(seed)
    while rest:
        key, rest = _mix(key ^ _mix(rest & 0xFFFFFFFFFFFFFFFF)), rest >> 64
    return generator.manual_seed(key)


def keyed_generator(seed: int, *position: int, device: torch.device | str = "cpu") -> Generator:
    """A generator keyed by ``(seed, *position)``: the same key gives the same noise whatever was drawn before.

    >>> a, b = keyed_generator(0, 3), keyed_generator(0, 3)
    >>> bool((torch.rand(2, generator=a) == torch.rand(2, generator=b)).all())
    True
    """
    key = seed & 0xFFFFFFFFFFFFFFFF
    for number in position:
        key = _mix(key ^ _mix(number + 0x9E3779B97F4A7C15))
    return Generator(device=device).manual_seed(key & 0x7FFFFFFFFFFFFFFF)


def _mix(key: int) -> int:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014)."""
    mask = 0xFFFFFFFFFFFFFFFF
    key = ((key & mask) ^ ((key & mask) >> 30)) * 0xBF58476D1CE4E5B9 & mask
    key = (key ^ (key >> 27)) * 0x94D049BB133111EB & mask
    return key ^ (key >> 31)


@dataclass(frozen=True)
class Rows:
    """Which examples of a whole batch are at hand: ``count`` of ``total``, from ``start`` on.

    Of a batch that is computed in parts, one after the other, ``beside`` says how many examples of this part each
    process has, in order of rank, and ``last`` whether it is the last part; None is to be found from the rows.
    """

    total: int
    start: int
    count: int
    beside: tuple[int, ...] = field(default=(), repr=False)
    last: bool | None = field(default=None, repr=False)


_ROWS: ContextVar[Rows | None] = ContextVar("_ROWS", default=None)


def rows_at_hand() -> Rows | None:
    """The part of the batch that the step in hand computes; None where that is all of it."""
    return _ROWS.get()


@contextmanager
def part_of_batch(rows: Rows | None) -> Iterator[None]:
    """Inside, draws with an axis of examples are made for ``rows.total`` examples and cut to those at hand."""
    token = _ROWS.set(rows)
    try:
        yield
    finally:
        _ROWS.reset(token)


@contextmanager
def alike() -> Iterator[None]:
    """Inside, no axis is one of examples: everybody draws the same. For chains and masks that all share."""
    with part_of_batch(None):
        yield


def normal(shape: Sequence[int], generator: Generator | None, *, like: Tensor, axis: int | None = 0) -> Tensor:
    """Standard Gaussian noise of the type and device of ``like``.

    Args:
        shape: of the noise at hand.
        axis: which axis is that of examples; its length may be a multiple of theirs (several draws for each) or a
            part (packs of examples). None: everybody draws the same.
    """
    whole, cut = _whole(shape, axis)
    return cut(torch.randn(whole, generator=generator, dtype=_floating(like), device=like.device))


def uniform(shape: Sequence[int], generator: Generator | None, *, like: Tensor, axis: int | None = 0) -> Tensor:
    """Noise U[0, 1); the arguments are those of `normal`."""
    whole, cut = _whole(shape, axis)
    return cut(torch.rand(whole, generator=generator, dtype=_floating(like), device=like.device))


def integers(
    low: int, high: int, shape: Sequence[int], generator: Generator | None, *, like: Tensor, axis: int | None = 0
) -> Tensor:
    """Whole numbers low, …, high − 1, int64, on the device of ``like``; the other arguments are those of `normal`."""
    whole, cut = _whole(shape, axis)
    return cut(torch.randint(low, high, whole, generator=generator, device=like.device))


def bits(probability: Tensor, generator: Generator | None, *, axis: int | None = 0) -> Tensor:
    """Zeros and ones of the probabilities' shape and type, each 1 with its probability."""
    noise = uniform(probability.shape, generator, like=probability, axis=axis)
    return torch.lt(noise, probability, out=noise)


def permutation(n: int, generator: Generator | None, *, like: Tensor) -> Tensor:
    """0, …, n − 1 in random order, int64, the same for everybody."""
    return torch.randperm(n, generator=generator, device=like.device)


def whole_count(n: int) -> int:
    """How many there are in the whole batch of what ``n`` are at hand of."""
    return _whole((n,), 0)[0][0]


def distinct(size: int, n: int, generator: Generator | None, *, like: Tensor) -> Tensor:
    """One of the numbers 0, …, size − 1 for each of ``n`` examples, none of them twice in the whole batch: int64.

    Raises:
        InputError: the whole batch has more examples than there are numbers.
    """
    (whole,), cut = _whole((n,), 0)
    if whole > size:
        raise InputError(f"a batch of {whole} needs {whole} different ones, and there are {size}; use smaller batches")
    return cut(permutation(size, generator, like=like)[:whole])


def dropout(x: Tensor, share: float, generator: Generator | None, *, axis: int | None = 0) -> Tensor:
    """``x`` with a ``share`` of its entries set to 0 and the others divided by 1 − share (Srivastava et al. 2014)."""
    if share == 0:
        return x
    kept = uniform(x.shape, generator, like=x, axis=axis) >= share
    return x * kept / (1 - share)


def _floating(like: Tensor) -> torch.dtype:
    return like.dtype if like.is_floating_point() else torch.get_default_dtype()


def _whole(shape: Sequence[int], axis: int | None) -> tuple[tuple[int, ...], _Cut]:
    """The shape to draw, and what cuts the draw to the rows at hand."""
    rows, shape = _ROWS.get(), tuple(shape)
    if rows is None or axis is None or rows.count == rows.total:
        return shape, _Cut(None)
    axis = axis % len(shape)
    n = shape[axis]
    if not rows.count:
        return shape, _Cut(None)
    several, pack = n % rows.count == 0, n and rows.count % n == 0
    if not several and not (pack and rows.total * n % rows.count == 0 and rows.start * n % rows.count == 0):
        raise ValueError(
            f"axis {axis} of {shape} is no multiple or part of {rows.count} examples of {rows.total}; name the axis of "
            "examples, or axis=None for noise that everybody shares"
        )
    whole, start = n * rows.total // rows.count, n * rows.start // rows.count
    return (*shape[:axis], whole, *shape[axis + 1 :]), _Cut((axis, start, n))


@dataclass(frozen=True)
class _Cut:
    narrowed: tuple[int, int, int] | None

    def __call__(self, x: Tensor) -> Tensor:
        return x if self.narrowed is None else x.narrow(*self.narrowed)
