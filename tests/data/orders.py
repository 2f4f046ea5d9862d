"""The order of rows that are split by their content, worked out one row, one word and one digit at a time."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_WHOLE = 2**64


def scrambled(number: int) -> int:
    key = number * 0x9E3779B97F4A7C15 % _WHOLE
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9 % _WHOLE
    key = (key ^ (key >> 27)) * 0x94D049BB133111EB % _WHOLE
    return key ^ (key >> 31)


def text_word(text: bytes) -> int:
    key = (0x5851F42D4C957F2D).to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=key).digest(), "little")


def word(value: Any) -> int:
    """A whole number, a fraction or a text as one word."""
    if isinstance(value, str):
        return text_word(value.encode())
    if isinstance(value, float):
        (bits,) = struct.unpack("<Q", struct.pack("<d", value + 0.0))
        bits ^= bits >> 32
        bits = bits * 0xBF58476D1CE4E5B9 % _WHOLE
        return bits ^ (bits >> 29)
    bits = int(value) % _WHOLE
    return bits ^ (bits >> 32)


def row_hash(values: Iterable[Any], length: int = 0) -> int:
    factors = (scrambled(0x5851F42D4C957F2D + d) | 1 for d in range(1, 2**40))
    total = sum(factor * word(value) for factor, value in zip(factors, values, strict=False))
    return scrambled((total + length * 0x9E3779B97F4A7C15) % _WHOLE ^ 0x5851F42D4C957F2D)


def hashes_of(x: Any) -> list[int]:
    """Of the rows of an array, of sequences, of rows of cells, or of the bytes of files."""
    if isinstance(x, np.ndarray):
        return [row_hash(row) for row in x.reshape(len(x), -1).tolist()]
    if isinstance(x[0], bytes):
        return [text_word(content) for content in x]
    if isinstance(x[0], np.ndarray):
        return [row_hash(row.reshape(-1).tolist(), len(row)) for row in x]
    return [row_hash(row) for row in x]


def parts(x: Any, shares: tuple[int, int] = (10, 10)) -> tuple[list[int], list[int], list[int]]:
    """The rows of train, validation and test."""
    hashes = hashes_of(x)
    different = sorted(set(hashes))
    test = [h for h in different if h < shares[1] * _WHOLE // 100]
    validation = [h for h in different if shares[1] * _WHOLE // 100 <= h < sum(shares) * _WHOLE // 100]
    if shares[1]:
        test = different[: min(max(len(test), 1), len(different) - 1 - bool(shares[0]))]
    aside = len([h for h in different if h < sum(shares) * _WHOLE // 100])
    if shares[0]:
        validation = different[len(test) : min(max(aside, len(test) + 1), len(different) - 1)]
    train = [h for h in different if h not in {*test, *validation}]
    ordered = sorted(range(len(hashes)), key=lambda i: (hashes[i], i))
    return tuple([i for i in ordered if hashes[i] in set(own)] for own in (train, validation, test))  # type: ignore[return-value]


def order(x: Any, shares: tuple[int, int] = (10, 10)) -> list[int]:
    """The rows of train, then of validation, then of test."""
    return [i for part in parts(x, shares) for i in part]


def files(paths: Sequence[Any]) -> list[bytes]:
    return [path.read_bytes() for path in sorted(paths)]
