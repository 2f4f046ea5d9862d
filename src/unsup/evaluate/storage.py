"""Real sizes of the data under general codecs, for comparison with the size that a likelihood implies.

A likelihood of h nats per example implies n h / (8 ln 2) bytes for n examples, without the model and the few bytes that
an arithmetic coder adds. The codecs write real files: PNG and WebP use that neighbouring pixels are similar, zstd and
xz compress a stream of numbers.
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
from unsup.evaluate.records import StoredSize

ZSTD_LEVEL = 19
WEBP_SIDE = 16383
"""Pixels on a side of the largest WebP image."""
_PNG: dict[str, Any] = {"format": "PNG", "optimize": True}
# For lossless WebP, quality and method are the effort; method 6 takes ten times as long for 0.1 %.
_WEBP: dict[str, Any] = {"format": "WEBP", "lossless": True, "quality": 100, "method": 4}
_INTEGERS = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64)

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Stored:
    """Examples written by one codec: the files, and what one file contains."""

    codec: str
    how: str
    files: tuple[bytes, ...]


def implied_bytes(nats: float, n: int) -> float:
    """Bytes that ``n`` examples with ``nats`` each imply: n · nats / (8 ln 2).

    >>> round(implied_bytes(784 * 8 * math.log(2), 10))
    7840
    """
    return n * nats / (8 * math.log(2))


def stored_sizes(x: Tensor, event: Event) -> list[StoredSize]:
    """Real bytes of raw examples ``(N, *event.shape)`` under every codec that supports them; see `store`.

    >>> from unsup import load_data
    >>> digits = load_data("digits")
    >>> [s["codec"] for s in stored_sizes(digits.test.x, digits.event)]
    ['png', 'png', 'webp', 'webp', 'zstd', 'xz']
    """
    sizes = ((s, sum(map(len, s.files))) for s in store(x, event))
    return [{"codec": s.codec, "bytes": n, "per_example": n / len(x), "how": s.how} for s, n in sizes]


def store(x: Tensor, event: Event) -> Iterator[Stored]:
    """The files for raw examples ``(N, *event.shape)``, codec by codec, in memory.

    PNG and WebP support grey and colour images with at most 256 levels. All are lossless; reals are stored as float32.

    Raises:
        InputError: no examples, or values outside the event.
    """
    event.check(x)
    if not len(x):
        raise InputError("no examples given; expected one or more")
    values = x.detach().cpu().numpy()
    if (levels := _pixels(values, event)) is not None:
        sheets, packed = _mosaics(levels)
        for codec, option, settings in (("png", "optimised", _PNG), ("webp", "lossless", _WEBP)):
            if codec == "png" or max(event.shape[1:]) <= WEBP_SIDE:
                bits = codec == "png" and event.columns[0].levels == 2 and levels.ndim == 3
                for how, images in (("one file per example", levels), (packed, sheets)):
                    yield Stored(codec, f"{how}, {option}", tuple(_file(i, bits, settings) for i in images))
    raw, how = _stream(values, event)
    yield Stored("zstd", f"{how}, level {ZSTD_LEVEL}", (zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(raw),))
    yield Stored("xz", f"{how}, preset 9e", (lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME),))


def _stream(values: Array, event: Event) -> tuple[bytes, str]:
    """Raw examples ``(N, *event.shape)`` as one stream, and a description of it.

    Each number has the smallest integer type for its support, or float32 if that is real. Tables are written column by
    column, so that similar numbers are adjacent; other data example by example.
    """
    columns = event.layout == "vector"
    parts = [_smallest(values[:, d], s) for d, s in enumerate(event.columns)] if columns else []
    parts = parts or [_smallest(values, event.columns[0])]
    types = ", ".join(sorted({str(p.dtype) for p in parts}))
    rounded = any(p.dtype == np.float32 for p in parts) and not np.array_equal(values.astype(np.float32), values)
    how = (
        f"one stream{', column by column,' if columns else ''} of {types}{' (reals rounded to it)' if rounded else ''}"
    )
    return b"".join(p.tobytes() for p in parts), how


def _smallest(values: Array, support: Support) -> Array:
    if not support.is_discrete:
        return values.astype(np.float32)
    low, high = support.low, support.low + support.levels - 1
    return values.astype(next(t for t in _INTEGERS if np.iinfo(t).min <= low and high <= np.iinfo(t).max))


def _pixels(values: Array, event: Event) -> NDArray[np.uint8] | None:
    """Levels from 0 as grey ``(N, H, W)`` or colour ``(N, H, W, 3)`` images; None for other data."""
    support = event.uniform
    if not event.is_image or event.shape[0] not in {1, 3} or support is None:
        return None
    if not support.is_discrete or support.levels > 256:
        return None
    levels = (values.astype(np.int64) - support.low).astype(np.uint8)
    return levels[:, 0] if event.shape[0] == 1 else np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


def _mosaics(images: NDArray[np.uint8]) -> tuple[list[NDArray[np.uint8]], str]:
    """Grids of images ``(N, H, W, ...)``, empty cells 0, on as few sheets as the size limit of WebP allows."""
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


def _file(levels: NDArray[np.uint8], bits: bool, settings: dict[str, Any]) -> bytes:
    """An image file of levels; ``bits`` stores two grey levels as one bit per pixel."""
    file, image = io.BytesIO(), Image.fromarray(levels * 255 if bits else levels)
    image.convert("1" if bits else "RGB" if settings is _WEBP else image.mode).save(file, **settings)
    return file.getvalue()
