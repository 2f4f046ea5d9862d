"""What general codecs make of the data: real bytes, beside which stands what a likelihood implies.

A likelihood of h nats an example implies n h / (8 ln 2) bytes for n examples, without the model, up to the few bytes
that an arithmetic coder adds. The codecs write real files. PNG and WebP know that neighbouring pixels are alike; zstd
and xz see a stream of numbers.
"""

from __future__ import annotations

import io
import lzma
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import Event, Support

ZSTD_LEVEL = 19
WEBP_SIDE = 16383
"""Pixels on a side of the largest WebP image."""
_WEBP_QUALITY, _WEBP_METHOD = 100, 4  # of lossless WebP both are effort; method 6 takes ten times as long for 0.1 %
_INTEGERS = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64)

Array = NDArray[Any]


@dataclass(frozen=True)
class StoredSize:
    """Real bytes of examples under one codec.

    Attributes:
        codec: ``png``, ``webp``, ``zstd`` or ``xz``.
        bytes: of all files together, headers included.
        per_example: bytes over examples.
        how: what was put into one file.
    """

    codec: str
    bytes: int
    per_example: float
    how: str


@dataclass(frozen=True, eq=False)
class Stored:
    """Examples as one codec writes them: its files, and what was put into one."""

    codec: str
    how: str
    files: tuple[bytes, ...]


def implied_bytes(nats: float, n: int) -> float:
    """Bytes that ``n`` examples at ``nats`` each imply: n · nats / (8 ln 2).

    >>> round(implied_bytes(784 * 8 * math.log(2), 10))
    7840
    """
    return n * nats / (8 * math.log(2))


def stored_sizes(x: Tensor, event: Event) -> list[StoredSize]:
    """Real bytes of raw examples ``(N, *event.shape)`` under every codec that takes them.

    PNG and WebP take grey and colour images of at most 256 levels. All give back what they were given, which for reals
    is float32. Nothing is written to disk.

    Raises:
        InputError: no examples, or values outside the event.

    >>> from unsup import load_data
    >>> digits = load_data("digits")
    >>> found = stored_sizes(digits.test.x, digits.event)
    >>> [s.codec for s in found]
    ['png', 'png', 'webp', 'webp', 'zstd', 'xz']
    """
    found = []
    for stored in store(x, event):
        size = sum(len(f) for f in stored.files)
        found.append(StoredSize(stored.codec, size, size / len(x), stored.how))
    return found


def store(x: Tensor, event: Event) -> Iterator[Stored]:
    """The files themselves, codec by codec."""
    event.check(x)
    if not len(x):
        raise InputError("no examples given; expected one or more")
    values = x.detach().cpu().numpy()
    if (levels := _pixels(values, event)) is not None:
        bilevel = event.columns[0].levels == 2
        sheets, held = _mosaics(levels)
        for how, images in (("one file an example", levels), (held, sheets)):
            yield Stored("png", f"{how}, optimised", tuple(_png(image, bilevel) for image in images))
        if max(event.shape[1:]) <= WEBP_SIDE:
            for how, images in (("one file an example", levels), (held, sheets)):
                yield Stored("webp", f"{how}, lossless", tuple(_webp(image) for image in images))
    raw, how = raw_bytes(values, event)
    yield Stored("zstd", f"{how}, level {ZSTD_LEVEL}", (zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(raw),))
    yield Stored("xz", f"{how}, preset 9e", (lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME),))


def raw_bytes(values: Array, event: Event) -> tuple[bytes, str]:
    """Raw examples ``(N, *event.shape)`` as one stream, and how that was made.

    Each number has the smallest integer type that holds its support, or float32 where that is real. Tables go column by
    column, which puts alike numbers together; all else example by example.
    """
    if event.layout == "vector":
        parts = [_smallest(values[:, d], s) for d, s in enumerate(event.columns)]
        how = "one stream, column by column, of "
    else:
        parts, how = [_smallest(values, event.columns[0])], "one stream of "
    how += ", ".join(sorted({str(p.dtype) for p in parts}))
    rounded = any(p.dtype == np.float32 for p in parts) and not np.array_equal(values.astype(np.float32), values)
    return b"".join(p.tobytes() for p in parts), how + (" (reals rounded to it)" if rounded else "")


def _smallest(values: Array, support: Support) -> Array:
    if not support.is_discrete:
        return values.astype(np.float32)
    low, high = support.low, support.low + support.levels - 1
    return values.astype(next(t for t in _INTEGERS if np.iinfo(t).min <= low and high <= np.iinfo(t).max))


def _pixels(values: Array, event: Event) -> NDArray[np.uint8] | None:
    """Levels from 0 as grey ``(N, H, W)`` or colour ``(N, H, W, 3)`` images; None where the data is no such images."""
    support = event.uniform
    if not event.is_image or event.shape[0] not in {1, 3} or support is None:
        return None
    if not support.is_discrete or support.levels > 256:
        return None
    levels = (values.astype(np.int64) - support.low).astype(np.uint8)
    return levels[:, 0] if event.shape[0] == 1 else np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


def _mosaics(images: NDArray[np.uint8]) -> tuple[list[NDArray[np.uint8]], str]:
    """Images ``(N, H, W, ...)`` side by side, row after row, empty places 0, on as few sheets as WebP can hold."""
    n, height, width = images.shape[:3]
    across, down = max(1, WEBP_SIDE // width), max(1, WEBP_SIDE // height)
    sheets = []
    for start in range(0, n, across * down):
        part = images[start : start + across * down]
        columns = min(across, max(math.ceil(math.sqrt(len(part))), math.ceil(len(part) / down)))
        rows = math.ceil(len(part) / columns)
        sheet = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
        sheet[: len(part)] = part
        cells = sheet.reshape(rows, columns, *images.shape[1:]).swapaxes(1, 2)
        sheets.append(cells.reshape(rows * height, columns * width, *images.shape[3:]))
    return sheets, "all examples in one image" if len(sheets) == 1 else f"all examples in {len(sheets)} images"


def _png(levels: NDArray[np.uint8], bilevel: bool) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(levels * 255).convert("1") if bilevel and levels.ndim == 2 else Image.fromarray(levels)
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _webp(levels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(levels).convert("RGB")
    image.save(file, "WEBP", lossless=True, quality=_WEBP_QUALITY, method=_WEBP_METHOD)
    return file.getvalue()
