"""How the examples of a group of files become files again, and whether a file can be read as examples of a model."""

from __future__ import annotations

import base64
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.config import shown
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.data.pixels import BROKEN, decode, encode, plain_pixels, quiet

ArrayType = Literal["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]

IMAGES = (".png", ".bmp", ".tif", ".tiff")
"""Suffixes of images that are written again without losses. JPEG and WebP files are kept as they are."""
_LONGEST = 2**16  # characters of the start of an .npy file in base 64; NumPy reads less


@dataclass(frozen=True)
class Layout(ABC):
    """Examples of one type in files of one kind. Subclasses are final, and their fields are JSON."""

    kind: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **_without_defaults(self)}


@final
@dataclass(frozen=True)
class Bytes(Layout):
    """Files that are kept byte for byte, without the model."""

    kind: ClassVar[str] = "bytes"


@dataclass(frozen=True)
class Examples(Layout):
    """Files of examples of the model."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The type of the examples as they are coded."""

    @abstractmethod
    def check(self, event: Event) -> None:
        """Raises InputError if the files cannot contain examples of ``event``."""


@dataclass(frozen=True)
class Rows(Examples):
    """Files of one example per row.

    Class attributes:
        has_side: whether each chunk of examples is followed by one with what rows have besides.
    """

    has_side: ClassVar[bool] = False

    @abstractmethod
    def start(self, rows: int, total: int, event: Event) -> bytes:
        """The bytes before the rows, for ``rows`` of ``total`` rows."""

    @abstractmethod
    def rows(self, x: Tensor, side: bytes, inside: range, *, last: bool) -> bytes:
        """Some of the rows of a chunk as in the file.

        Args:
            x: all examples of the chunk.
            side: what the rows have besides.
            inside: the rows.
            last: whether they end with the last row of the file.
        """


@final
@dataclass(frozen=True)
class Images(Examples):
    """Image files of one example each.

    Attributes:
        suffix: kind of the files.
        depth: type of the pixels.
        factor: pixels are the levels of the model times this: black and white images have 0 and 255.
        grey: the files have one channel, and the model has three equal ones.
    """

    kind: ClassVar[str] = "images"

    suffix: Literal[".png", ".bmp", ".tif", ".tiff"]
    depth: Literal["uint8", "uint16"]
    factor: Literal[1, 255]
    grey: bool

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8 if self.depth == "uint8" else torch.int32

    @classmethod
    def read(cls, content: bytes, suffix: str, event: Event) -> tuple[Images, Tensor] | None:
        """The layout and the example ``(*event.shape)`` of an image file; None if the model does not fit it."""
        if not event.is_image or suffix not in IMAGES:
            return None
        try:
            with quiet():
                found = decode(content)
        except (*BROKEN, InputError):
            return None
        pixels = found.pixels
        if len(pixels) != 1 or found.transparent or found.turned or pixels.dtype.name not in ("uint8", "uint16"):
            return None
        grey = pixels.shape[1] == 1 and event.shape[0] == 3
        if (3 if grey else pixels.shape[1], *pixels.shape[2:]) != event.shape:
            return None
        if not plain_pixels(content):
            return None
        two = event.uniform is not None and event.uniform.kind == "binary" and int(pixels.max()) > 1
        layout = cls(cast(Any, suffix), cast(Any, pixels.dtype.name), 255 if two else 1, grey)
        if two and not np.isin(pixels, (0, 255)).all():
            return None
        if not np.array_equal(decode(layout.file(_tensor(pixels[0], layout))).pixels, pixels):
            return None
        return layout, _tensor(pixels[0], layout)

    def check(self, event: Event) -> None:
        channels = event.shape[0] if event.is_image else 0
        tiff = self.suffix in (".tif", ".tiff")
        fits = channels == 3 if self.grey else bool(channels) and (channels in (1, 3) or tiff)
        if not fits or (self.suffix == ".bmp" and self.depth == "uint16"):
            raise InputError(f"examples of shape {event.shape} do not fit {self.suffix} images of type {self.depth}")

    def file(self, x: Tensor) -> bytes:
        """The image file of an example ``(C, H, W)``."""
        pixels = (x[:1] if self.grey else x).numpy().astype(self.depth) * np.dtype(self.depth).type(self.factor)
        return encode(pixels, self.suffix)


@final
@dataclass(frozen=True)
class Array(Rows):
    """An ``.npy`` file of many examples, which comes back byte for byte.

    Attributes:
        type: its type.
        axes: order of its axes after the first: those of the model (``same``), channels last, or without channels.
        head: the bytes before its numbers, in base 64; empty if they are those of `npy_head`.
    """

    kind: ClassVar[str] = "array"

    type: ArrayType
    axes: Literal["same", "last", "none"]
    head: str

    def __post_init__(self) -> None:
        try:
            head = base64.b64decode(self.head, validate=True) if len(self.head) <= _LONGEST else b""
        except ValueError:
            head = b""
        if self.head and not head.startswith(np.lib.format.MAGIC_PREFIX):
            raise InputError(f"head={shown(self.head[:100])} should be the start of an .npy file in base 64")

    @property
    def dtype(self) -> torch.dtype:
        return cast(torch.dtype, getattr(torch, self.type))

    @classmethod
    def read(cls, path: Path, event: Event) -> tuple[Array, NDArray[Any]] | None:
        """The layout and the numbers ``(N, ...)`` of a file, on disk; None if the model does not fit them."""
        try:
            with path.open("rb") as file:
                found = np.lib.format.open_memmap(path, mode="r")
                head = file.read(found.offset)
                if path.stat().st_size != found.offset + found.nbytes:  # more than one array
                    return None
        except (OSError, ValueError, EOFError, TypeError, SyntaxError):
            return None
        return cls.of(found, event, head)

    @classmethod
    def of(cls, x: NDArray[Any], event: Event, head: bytes | None = None) -> tuple[Array, NDArray[Any]] | None:
        """The same of an array in memory."""
        if x.ndim < 2 or not len(x) or x.dtype.name not in get_args(ArrayType) or x.dtype.byteorder == ">":
            return None
        if not x.flags.c_contiguous:
            return None
        shape = x.shape[1:]
        if shape == event.shape:
            axes = "same"
        elif event.is_image and shape == (*event.shape[1:], event.shape[0]):
            axes = "last"
        elif event.is_image and event.shape[0] == 1 and shape == event.shape[1:]:
            axes = "none"
        else:
            return None
        own = "" if head is None or head == npy_head(x.shape, x.dtype) else base64.b64encode(head).decode()
        return cls(cast(Any, x.dtype.name), cast(Any, axes), own), x

    def check(self, event: Event) -> None:
        fits = event.is_image if self.axes == "last" else event.is_image and event.shape[0] == 1
        if not event.shape or (self.axes != "same" and not fits):
            raise InputError(f"examples of shape {event.shape} do not fit into arrays with the axes {self.axes!r}")

    def examples(self, rows: NDArray[Any], event: Event) -> Tensor:
        """Rows of the file as examples ``(B, *event.shape)``."""
        x = torch.from_numpy(np.array(rows))
        if self.axes == "last":
            x = x.movedim(-1, 1)
        return x.reshape(len(x), *event.shape).contiguous()

    def start(self, rows: int, total: int, event: Event) -> bytes:
        if rows == total and self.head:
            return base64.b64decode(self.head, validate=True)
        channels, *sides = event.shape
        shape = {"same": event.shape, "last": (*sides, channels), "none": tuple(sides)}[self.axes]
        return npy_head((rows, *shape), np.dtype(self.type))

    def rows(self, x: Tensor, side: bytes, inside: range, *, last: bool) -> bytes:
        x = x[inside.start : inside.stop]
        if self.axes == "last":
            x = x.movedim(1, -1)
        return bytes(x.contiguous().numpy().tobytes())


def _without_defaults(record: Any) -> Any:
    """A dataclass as JSON, without the fields that have their default value."""
    if isinstance(record, tuple):
        return [_without_defaults(entry) for entry in record]
    if not is_dataclass(record):
        return record
    values = ((f.name, getattr(record, f.name), f.default) for f in fields(record))
    return {name: _without_defaults(value) for name, value, default in values if value != default}


def npy_head(shape: Sequence[int], dtype: np.dtype[Any]) -> bytes:
    """The header of an ``.npy`` file.

    >>> npy_head((3,), np.dtype("uint8"))[:6]
    b'\\x93NUMPY'
    """
    file = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": tuple(shape)})
    return file.getvalue()


def _tensor(pixels: NDArray[Any], layout: Images) -> Tensor:
    """Pixels ``(C, H, W)`` as an example of the model."""
    levels = pixels // layout.factor
    x = torch.from_numpy(levels if layout.depth == "uint8" else levels.astype(np.int32))
    return x.expand(3, -1, -1).contiguous() if layout.grey else x.contiguous()
