"""Random draws: keyed and, inside a training step, made for the whole batch by every process.

Every draw in a loss uses these functions. Generators have the same state on every process. A draw with an axis of
examples is made for the whole batch, and each process (or each part of an accumulated batch) keeps the rows of its
examples. Therefore n processes give the same result as one, for any sizes of the other axes.
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
"""The range of seeds that PyTorch accepts."""


def manual_seed(generator: Generator, seed: int) -> Generator:
    """Seed ``generator`` with an integer of any size; integers that PyTorch does not accept are mixed down to 64 bits.

    >>> manual_seed(Generator(), 2**70).initial_seed() == manual_seed(Generator(), 2**71).initial_seed()
    False
    """
    return generator.manual_seed(_folded(seed))


def keyed_generator(seed: int, *position: int, device: torch.device | str = "cpu") -> Generator:
    """A generator keyed by ``(seed, *position)``: the same key gives the same noise, independent of earlier draws.

    Integers of any size are different seeds, except that −s is 2⁶⁴ − s for s up to 2⁶³, as in PyTorch.

    >>> a, b = keyed_generator(0, 3), keyed_generator(0, 3)
    >>> bool((torch.rand(2, generator=a) == torch.rand(2, generator=b)).all())
    True
    """
    key = _folded(seed)
    for number in position:
        key = _mix(key ^ _mix(number + 0x9E3779B97F4A7C15))
    return Generator(device=device).manual_seed(key & 0x7FFFFFFFFFFFFFFF)


def _folded(seed: int) -> int:
    """A seed as 64 bits: those of a seed that PyTorch accepts, or a hash of all bits and the sign of another."""
    if seed in _SEEDS:
        return seed & 0xFFFFFFFFFFFFFFFF
    key, rest = 0x9E3779B97F4A7C15 * (seed < 0), abs(seed)
    while rest:
        key, rest = _mix(key ^ _mix(rest & 0xFFFFFFFFFFFFFFFF)), rest >> 64
    return key


def _mix(key: int) -> int:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014)."""
    mask = 0xFFFFFFFFFFFFFFFF
    key = ((key & mask) ^ ((key & mask) >> 30)) * 0xBF58476D1CE4E5B9 & mask
    key = (key ^ (key >> 27)) * 0x94D049BB133111EB & mask
    return key ^ (key >> 31)


@dataclass(frozen=True)
class Rows:
    """The local examples of a whole batch: ``count`` of ``total``, starting at ``start``.

    For a batch that is computed in parts, ``beside`` is the number of examples of this part on each process, in order
    of rank, and ``last`` tells whether it is the last part; None means that they follow from the rows.
    """

    total: int
    start: int
    count: int
    beside: tuple[int, ...] = field(default=(), repr=False)
    last: bool | None = field(default=None, repr=False)


_ROWS: ContextVar[Rows | None] = ContextVar("_ROWS", default=None)


def rows_at_hand() -> Rows | None:
    """The part of the batch that the current step computes; None for the whole batch."""
    return _ROWS.get()


@contextmanager
def part_of_batch(rows: Rows | None) -> Iterator[None]:
    """In this context, draws with an axis of examples are made for ``rows.total`` examples; local rows are kept."""
    token = _ROWS.set(rows)
    try:
        yield
    finally:
        _ROWS.reset(token)


@contextmanager
def alike() -> Iterator[None]:
    """In this context, no axis is one of examples: all processes draw the same. For shared chains and masks."""
    with part_of_batch(None):
        yield


def normal(shape: Sequence[int], generator: Generator | None, *, like: Tensor, axis: int | None = 0) -> Tensor:
    """Standard Gaussian noise with the type and device of ``like``.

    Args:
        shape: shape of the local noise.
        axis: the axis of examples. Its length may be a multiple of their number (several draws per example) or a
            fraction of it (packs of examples). None: all processes draw the same.
    """
    whole, cut = _whole(shape, axis)
    return cut(torch.randn(whole, generator=generator, dtype=_floating(like), device=like.device))


def uniform(shape: Sequence[int], generator: Generator | None, *, like: Tensor, axis: int | None = 0) -> Tensor:
    """Noise U[0, 1); the arguments are as in `normal`."""
    whole, cut = _whole(shape, axis)
    return cut(torch.rand(whole, generator=generator, dtype=_floating(like), device=like.device))


def beta(
    shape: Sequence[int], concentration: float, generator: Generator | None, *, like: Tensor, axis: int | None = 0
) -> Tensor:
    """Draws from Beta(a, a) with a small or large a; the other arguments are as in `normal`."""
    whole, cut = _whole(shape, axis)
    logs = []
    for _ in range(2):  # log Gamma(a), as the logarithm of Gamma(a + 1) · U^(1/a), which does not underflow
        power = torch.full(whole, concentration + 1, dtype=_floating(like), device=like.device)
        rest = torch.rand(whole, generator=generator, dtype=power.dtype, device=like.device)
        logs.append(torch._standard_gamma(power, generator=generator).log() + (1 - rest).log() / concentration)
    return cut((logs[0] - logs[1]).sigmoid())


def integers(
    low: int, high: int, shape: Sequence[int], generator: Generator | None, *, like: Tensor, axis: int | None = 0
) -> Tensor:
    """Integers low, …, high − 1, int64, on the device of ``like``; the other arguments are as in `normal`."""
    whole, cut = _whole(shape, axis)
    return cut(torch.randint(low, high, whole, generator=generator, device=like.device))


def bits(probability: Tensor, generator: Generator | None, *, axis: int | None = 0) -> Tensor:
    """Bernoulli draws (0 or 1) with the shape and type of the probabilities."""
    noise = uniform(probability.shape, generator, like=probability, axis=axis)
    return torch.lt(noise, probability, out=noise)


def permutation(n: int, generator: Generator | None, *, like: Tensor) -> Tensor:
    """A random permutation of 0, …, n − 1, int64, the same on all processes."""
    return torch.randperm(n, generator=generator, device=like.device)


def whole_count(n: int) -> int:
    """The number in the whole batch that corresponds to ``n`` local ones."""
    return _whole((n,), 0)[0][0]


def distinct(size: int, n: int, generator: Generator | None, *, like: Tensor) -> Tensor:
    """A number from 0, …, size − 1 for each of ``n`` examples, without repeats in the whole batch: int64.

    Raises:
        InputError: the whole batch has more examples than there are numbers.
    """
    (whole,), cut = _whole((n,), 0)
    if whole > size:
        raise InputError(
            f"a batch of {whole} needs {whole} different numbers, but there are {size}; use smaller batches"
        )
    return cut(permutation(size, generator, like=like)[:whole])


def dropout(x: Tensor, share: float, generator: Generator | None, *, axis: int | None = 0) -> Tensor:
    """``x`` with a ``share`` of its entries set to 0 and the others divided by 1 − share (Srivastava et al. 2014)."""
    if share == 0:
        return x
    noise = uniform(x.shape, generator, like=x, axis=axis)
    return x * torch.ge(noise, share, out=noise).div_(1 - share)


def _floating(like: Tensor) -> torch.dtype:
    return like.dtype if like.is_floating_point() else torch.get_default_dtype()


def _whole(shape: Sequence[int], axis: int | None) -> tuple[tuple[int, ...], _Cut]:
    """The shape to draw, and a function that cuts the draw to the local rows."""
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
            f"axis {axis} of {shape} is not a multiple or a fraction of {rows.count} examples of {rows.total}; pass "
            "the axis of examples, or axis=None for shared noise"
        )
    whole, start = n * rows.total // rows.count, n * rows.start // rows.count
    return (*shape[:axis], whole, *shape[axis + 1 :]), _Cut((axis, start, n))


@dataclass(frozen=True)
class _Cut:
    narrowed: tuple[int, int, int] | None

    def __call__(self, x: Tensor) -> Tensor:
        return x if self.narrowed is None else x.narrow(*self.narrowed)
