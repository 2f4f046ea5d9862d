"""From log-probabilities to the integer frequencies that an entropy coder uses. Pure functions, row by row.

Encoder and decoder must use the same integers, but the last bits of a log-probability change with the batch size, the
number of threads and the instruction set. Two steps remove these differences:

1. `to_grid` rounds log p to steps of 2^−8 bit. A difference of 1e-14 changes a rounded value only if the value lies
   next to a rounding boundary; such entries are reported, so that the encoder can record how it rounded them.
2. `frequencies` turns steps into frequencies with sum 2^24 by integer arithmetic alone. No exponential or logarithm of
   the platform is used, only a table that is computed with exact integer roots.

Rounding to 2^−8 bit costs on average 2^−16 ln 2 / 24 = 4.4e-7 bit a symbol: an error uniform on one step has the
variance 2^−16/12 in bits², and the divergence is ln 2 / 2 times the variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from unsup.core.errors import InputError

Integers: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

PRECISION = 24
"""Frequencies have the sum 2^24: the precision of the coders of `constriction`, so that nothing is rounded again."""

TOTAL = 1 << PRECISION

STEPS_PER_BIT = 256

MAX_SYMBOLS = 1 << 16
"""The largest alphabet. Each symbol keeps a frequency of at least 1, here up to 0.4 % of the total."""

NEAR = 1e-8
"""Distance from a rounding boundary, in steps, below which an entry is reported."""

_TOLERANCE = 2.7e-12
STEPS_PER_NAT = 369.3299304675746  # 256 / ln 2, as a constant: a platform's logarithm may differ in the last bit
_WEIGHT_BITS = 37  # 2 symbols of weight 2^37 are the sum 2^38
_SUM_BITS = 38  # (2^24 − K) · 2^38 < 2^63
_FAR = (_WEIGHT_BITS + 1) * STEPS_PER_BIT  # from here on a weight is 0
_LARGEST = float(1 << 40)  # steps; beyond, float64 no longer resolves 1e-8 of a step by a wide margin
_BLOCK = 1 << 15  # entries handled at a time, which stay in the cache
_FEW = 16  # symbols, below which an operation over all rows at once is faster than one row by row


@dataclass(frozen=True)
class Grid:
    """Log-probabilities on the grid.

    Attributes:
        steps: the rounded values in steps of 2^−8 bit, of the shape of the values.
        near: the flat indices, ascending, of the entries so close to a rounding boundary that another machine may
            round them the other way.
    """

    steps: Integers
    near: Integers


def to_grid(values: Floats, near: float = NEAR) -> Grid:
    """Round log-probabilities, or logits (only differences within a row matter), to steps of 2^−8 bit.

    An entry is near a boundary if it is closer than ``near · (1 + |v| / 1024)`` steps, with v the value in steps: the
    float64 error of a value grows with its size. With the default an error of 2.7e-11 nat, or of 9e-12 of the value,
    is tolerated, and about 1 entry of 10^7 to 10^8 is reported. Entries whose probability is below 2^−38 of the
    largest are never reported, since their frequency is 1 in any case.

    Args:
        values: ``(N, K)`` in nats. −inf is an impossible symbol; it still gets the frequency 1.
        near: see above.

    Raises:
        InputError: a value is NaN or +inf, a row has no finite value, or the largest value of a row is beyond 1e9.

    >>> import numpy as np
    >>> to_grid(np.log([[0.5, 0.25, 0.25]])).steps
    array([[-256, -512, -512]])
    """
    if values.ndim != 2 or values.dtype != np.float64:
        raise InputError(f"log-probabilities have shape {values.shape}, {values.dtype}; expected float64 of (N, K)")
    if values.shape[1] == 0:
        raise InputError("log-probabilities have no symbols; expected at least one column")
    steps = np.empty(values.shape, np.int64)
    found = [_round_rows(values, steps, rows, near) for rows in _blocks(values.shape)]
    return Grid(steps, np.concatenate(found) if found else np.empty(0, np.int64))


def _round_rows(values: Floats, steps: Integers, rows: slice, near: float) -> Integers:
    """Write the steps of some rows; the flat indices of those that are near a boundary."""
    symbols = values.shape[1]
    part, out = values[rows], steps[rows]
    if symbols < _FEW:
        part, out = part.T, out.T
    axis = 0 if symbols < _FEW else 1
    with np.errstate(over="ignore"):  # to −inf, which is allowed, or +inf, which is refused
        scaled = np.multiply(part, STEPS_PER_NAT, order="C")
    top = scaled.max(axis=axis, keepdims=True)  # NaN if the row has one
    largest = np.abs(top).max()
    if not largest <= _LARGEST:
        row = rows.start + int(np.argmin(np.abs(top.ravel()) <= _LARGEST))
        raise InputError(
            f"log-probabilities of row {row} have the maximum {values[row].max()}; expected a number within ±1e9"
        )
    # Differences beyond _FAR have no effect; this also makes −inf finite.
    np.maximum(scaled, top - _FAR, out=scaled)
    rounded = np.rint(scaled)
    np.copyto(out, rounded, casting="unsafe")
    close = np.abs(np.subtract(scaled, rounded, out=rounded), out=rounded)
    # The largest distance that any of them needs finds the candidates, which are then few.
    wide = close >= 0.5 - 2 * near - near / 1024 * (largest + _FAR)
    if axis == 0:
        wide = wide.T
    at = np.flatnonzero(wide)
    if not len(at):
        return at
    row, symbol = np.divmod(at, symbols)
    place = (symbol, row) if axis == 0 else (row, symbol)
    kept = close[place] + near / 1024 * np.abs(scaled[place]) >= 0.5 - near
    kept &= scaled[place] > (top.ravel() - _FAR)[row]
    return at[kept] + rows.start * symbols


def to_steps(values: Floats, per_unit: float, steepness: Floats | float = 1.0) -> Grid:
    """Round numbers of any shape to steps of 1 / ``per_unit``.

    An entry is near a boundary if an error of 2.7e-12 and of 2.7e-12 of the value may change its step, as in `to_grid`.

    Args:
        values: finite, below 2^50 steps.
        steepness: how many times larger the errors are that are tolerated, of a shape that expands to that of values.

    >>> import numpy as np
    >>> to_steps(np.array([0.25, -0.1]), 4).steps
    array([1, 0])
    """
    scaled = values * per_unit
    rounded = np.rint(scaled)
    near = np.abs(scaled - rounded) + _TOLERANCE * (per_unit * steepness + np.abs(scaled)) >= 0.5
    return Grid(rounded.astype(np.int64), np.flatnonzero(near))


def powers_of_two(steps: Integers, bits: int) -> Integers:
    """2^(bits + step/256), rounded to integers by integer arithmetic, for steps from 0 to 255 and up to 20 bits.

    >>> import numpy as np
    >>> powers_of_two(np.array([0, 128]), 8)
    array([256, 362])
    """
    cut = _WEIGHT_BITS - 1 - bits
    return (_exponentials()[STEPS_PER_BIT - steps] + (1 << (cut - 1))) >> cut


def settle(steps: Integers, at: Integers, remainders: Integers) -> Integers:
    """The steps of the encoder, from those of the decoder and the encoder's ``steps.flat[at] % 4`` at ``at``.

    Two machines round an entry to the same step or to neighbouring steps, so that the remainder says which.

    >>> import numpy as np
    >>> settle(np.array([[7, 8, 9]]), np.array([0, 2]), np.array([8 % 4, 9 % 4]))
    array([[8, 8, 9]])
    """
    settled = steps.copy()
    own = settled.flat[at]
    settled.flat[at] = own + (remainders - own + 1) % 4 - 1
    return settled


def frequencies(steps: Integers) -> Integers:
    """Frequencies f with Σ f = 2^24 and f ≥ 1 from log-probabilities on the grid: ``(N, K)`` → ``(N, K)``.

    With the weights w_i = ⌊2^(b − d_i/256)⌋, where d_i is the distance in steps from the largest entry of the row, and
    W_i = w_0 + … + w_i, the cumulative frequencies are

        C_i = ⌊W_i q / 2^38⌋ + i + 1,    q = ⌊(2^24 − K) 2^38 / W_K⌋,    C_K = 2^24.

    Each symbol first gets 1, and the cumulative weights are rounded down to share the rest. Unlike the rule of largest
    remainders this needs no sorting and one division a row. A frequency differs from its exact share by less than 3,
    which costs at most about log2(1 / (1 − K 2^−24)) bit a symbol. b = 38 − ⌈log2 K⌉ keeps all products below 2^63.

    Raises:
        InputError: not int64 of two dimensions, or more than 65,536 symbols.

    >>> import numpy as np
    >>> frequencies(np.array([[-256, -512, -512]]))
    array([[8388607, 4194304, 4194305]])
    """
    if steps.ndim != 2 or steps.dtype != np.int64:
        raise InputError(f"steps have shape {steps.shape}, {steps.dtype}; expected int64 of (N, K)")
    symbols = steps.shape[1]
    if not 1 <= symbols <= MAX_SYMBOLS:
        raise InputError(f"an alphabet of {symbols} symbols; expected 1 to {MAX_SYMBOLS}")
    if symbols == 2:
        return bernoulli_frequencies(steps[:, 1] - steps[:, 0])
    return _shares(steps)


def _shares(steps: Integers) -> Integers:
    symbols = steps.shape[1]
    weights = _weights((symbols - 1).bit_length())
    free = TOTAL - symbols
    result = np.empty(steps.shape, np.int64)
    for rows in _blocks(steps.shape):
        block, out = steps[rows], result[rows]
        distance = block.max(axis=1, keepdims=True) - block
        # Beyond _FAR, the last one.
        cumulative = np.cumsum(weights.take(distance, mode="clip", out=distance), axis=1, out=distance)
        cumulative *= (free << _SUM_BITS) // cumulative[:, -1:]
        cumulative >>= _SUM_BITS
        cumulative[:, -1] = free
        out[:, 0] = cumulative[:, 0]
        np.subtract(cumulative[:, 1:], cumulative[:, :-1], out=out[:, 1:])
        out += 1
    return result


def bernoulli_grid(logits: Floats, near: float = NEAR) -> Grid:
    """`to_grid` of the log-odds of 1 against 0, ``(N,)``: the steps by which log p(1) exceeds log p(0).

    Raises:
        InputError: a logit is NaN. Infinite logits are allowed.
    """
    if logits.ndim != 1 or logits.dtype != np.float64:
        raise InputError(f"logits have shape {logits.shape}, {logits.dtype}; expected float64 of (N,)")
    if np.isnan(logits).any():
        raise InputError(f"the logit at {int(np.argmax(np.isnan(logits)))} is NaN; expected a number")
    scaled = np.clip(np.clip(logits, -_FAR, _FAR) * STEPS_PER_NAT, -_FAR, _FAR)  # twice: the product may overflow
    rounded = np.rint(scaled)
    close = np.abs(scaled - rounded) + near / 1024 * np.abs(scaled)
    return Grid(rounded.astype(np.int64), np.flatnonzero((close >= 0.5 - near) & (np.abs(scaled) < _FAR)))


def bernoulli_frequencies(steps: Integers) -> Integers:
    """`frequencies` of the rows [0, step], by a table of all of them: ``(N,)`` → ``(N, 2)``.

    >>> import numpy as np
    >>> bernoulli_frequencies(np.array([0, 256]))
    array([[ 8388608,  8388608],
           [ 5592405, 11184811]])
    """
    return _bernoulli()[np.clip(steps, -_FAR, _FAR) + _FAR]


def code_length(symbols: NDArray[np.integer], table: Integers) -> float:
    """The ideal length −Σ log2 (f / 2^24) in bits of ``symbols`` ``(N,)`` under frequencies ``(N, K)`` or ``(K,)``."""
    chosen = table[symbols] if table.ndim == 1 else np.take_along_axis(table, symbols[:, None].astype(np.int64), 1)
    return float(np.sum(PRECISION - np.log2(chosen)))


def _blocks(shape: tuple[int, ...]) -> list[slice]:
    rows = max(1, _BLOCK // shape[1])
    return [slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]


def _exponential(step: int) -> int:
    """⌊2^(37 − step/256)⌋, exactly: the 256th root of 2^(37·256 − step), as eight nested integer square roots."""
    value = 1 << (_WEIGHT_BITS * STEPS_PER_BIT - step)
    for _ in range(8):
        value = isqrt(value)  # ⌊√⌊x⌋⌋ = ⌊√x⌋
    return value


@lru_cache(maxsize=1)
def _exponentials() -> Integers:
    within = [_exponential(step) for step in range(STEPS_PER_BIT)]  # one octave; the others are shifts of it
    return np.array([within[step % STEPS_PER_BIT] >> (step // STEPS_PER_BIT) for step in range(_FAR + 1)], np.int64)


@lru_cache(maxsize=32)
def _weights(alphabet_bits: int) -> Integers:
    """⌊2^(b − step/256)⌋ for all steps, with b = 38 − ``alphabet_bits``."""
    return _exponentials() >> max(0, alphabet_bits - 1)


@lru_cache(maxsize=1)
def _bernoulli() -> Integers:
    steps = np.arange(-_FAR, _FAR + 1)
    return _shares(np.stack([np.zeros_like(steps), steps], axis=1))
