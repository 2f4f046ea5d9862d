"""Chunks of raw examples: coded with a model where this is shorter, else with zstandard, or stored.

Examples that a model cannot represent (a value outside its levels, a NaN with a payload) are kept beside the stream of
the others, with zstandard.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, final

import numpy as np
import torch
import zstandard
from torch import Tensor

import unsup
from unsup.coding.autoregressive import EntryByEntry, InTheBestOrder
from unsup.coding.bitsback import BitsBack
from unsup.coding.choices import BitsBackOfChoices
from unsup.coding.container import MAX_CHUNK_SIZE, NEEDED, Chunk, CoderRecord, Container, digest
from unsup.coding.entropy import StreamError
from unsup.coding.errors import CodingError, CorruptChunk, UnsupportedVersion, one_line
from unsup.coding.flows import FlowInIntegers
from unsup.coding.latents import LatentsInIntegers
from unsup.coding.scheme import Profile, Scheme
from unsup.core.config import options_of
from unsup.core.errors import CapabilityError, InputError
from unsup.core.model import Model
from unsup.core.storage import later_state

SCHEMES: tuple[type[Scheme], ...] = (
    InTheBestOrder,
    EntryByEntry,
    BitsBackOfChoices,
    BitsBack,
    LatentsInIntegers,
    FlowInIntegers,
)
"""The schemes by preference."""
OLDER: tuple[type[Scheme], ...] = ()
"""Schemes, of the same names but of older versions, that decode the files of earlier releases."""
TYPES = ("uint8", "int8", "int16", "int32", "int64", "bool", "float16", "bfloat16", "float32", "float64")
"""Types of arrays that are coded."""

_MOST = 2**14  # examples per chunk: enough that the start of a stream and the 100 bytes of a chunk cost little
_MOST_ENTRIES = 2**23  # entries per chunk: bounds memory, and what a damaged chunk loses
_LARGER = 16  # chunks of other versions may be larger by this factor
_MODEL, _ZSTD, _STORED = range(3)
_GENERAL = ({"name": "zstandard", "version": 1}, {"name": "stored", "version": 1})
_LEVEL, _FAST = 19, 3  # of zstandard
_HOPELESS = 2  # times longer: the best level is hardly ever this much shorter than the fast one
_OUTSIDE = struct.Struct("<II")  # number of examples outside the model, size of them coded


def scheme_class(model: Model) -> type[Scheme] | str:
    """The scheme that codes with a model, or why none does."""
    reasons = []
    for scheme in SCHEMES:
        reason = scheme.reason_against(model)
        if reason is None:
            return scheme
        if isinstance(model, scheme.capability):
            reasons.append(f"it {reason}")
    return "; ".join(dict.fromkeys(reasons)) or "it has no likelihood that can be coded"


def scheme_for(model: Model, profile: Profile = "portable") -> Scheme:
    """The scheme that codes with a model.

    Raises:
        CapabilityError: no scheme does.
    """
    found = scheme_class(model)
    if isinstance(found, str):
        raise CapabilityError(
            f"{type(model).__name__} does not code examples: {found}; unsup models lists models that compress"
        )
    return found(model, profile)


def scheme_of(container: Container, model: Model) -> type[Scheme]:
    """The scheme that coded a file with a model, by the name and the version in the header.

    Raises:
        CodingError: this version of the library does not have it, or it does not code with the model.
    """
    check_general(container)
    own = container.header["coders"][0]
    for scheme in (*SCHEMES, *OLDER):
        if (scheme.name, scheme.version) == (own["name"], own["version"]):
            reason = scheme.reason_against(model)
            if reason is not None:
                raise CodingError(
                    f"{container.name} was coded {scheme.name}, but the model {reason}; pass another model"
                )
            return scheme
    raise _unknown(container, own)


def check_general(container: Container) -> None:
    """Check that the coders of a file are a scheme, zstandard and stored bytes.

    Raises:
        CodingError: this version of the library does not know one of them.
    """
    coders = container.header["coders"]
    for found, known in zip(coders[1:], _GENERAL, strict=False):
        if found != known:
            raise _unknown(container, found)
    if len(coders) != 1 + len(_GENERAL):
        raise CodingError(f"{container.name} has {len(coders)} coders, expected {1 + len(_GENERAL)}; restore the file")


def _unknown(container: Container, coder: CoderRecord) -> CodingError:
    what = f"the coder {one_line(coder['name'])} of version {coder['version']}"
    if tuple(map(int, container.needed.split("."))) > NEEDED:
        return UnsupportedVersion(container.name, what, container.needed, unsup.__version__)
    writer = one_line(container.header["writer"])
    return CodingError(f"{container.name} has {what}, which unsup {unsup.__version__} does not know; use {writer}")


def model_hash(model: Model) -> str:
    """BLAKE2b-256 of the class, the configuration, the event and all parameters and buffers of a model.

    Files of earlier versions have the same hash: options and state that they do not know count only if they are not as
    these files stand for.
    """
    defaults = {name: default for name, (_, default) in options_of(type(model).__init__).items()}
    config = {name: value for name, value in model.config.items() if name not in defaults or value != defaults[name]}
    about = [type(model).__name__, model.event.to_json(), config]
    found = hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=32)
    later = later_state(model)
    for name, tensor in sorted(model.state_dict().items()):
        if name in later and torch.equal(tensor.cpu(), later[name]):
            continue
        values = tensor.detach().cpu().contiguous()
        found.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        found.update(to_bytes(values))
    return found.hexdigest()


@final
class ChunkCoder:
    """Codes raw examples of one shape in chunks, and decodes them.

    Args:
        model: the model.
        profile: see `Scheme`.
        scheme: the scheme of a file; None for the first one that codes with the model.

    Attributes:
        coders: the coders of the chunks, for the header of a file.
    """

    def __init__(self, model: Model, profile: Profile = "portable", scheme: type[Scheme] | None = None) -> None:
        self.event = model.event
        self.scheme = scheme_for(model, profile) if scheme is None else scheme(model, profile)
        self.coders: list[dict[str, Any]] = [{"name": self.scheme.name, "version": self.scheme.version}, *_GENERAL]

    def canary(self) -> str:
        """A hash of integers that the model computes here; empty if it computes NaN and therefore codes nothing."""
        try:
            return digest(self.scheme.canary()).hex()
        except InputError:
            return ""

    def split(self, x: Tensor) -> Iterator[Tensor]:
        """Parts ``(B, *shape)`` of raw arrays ``(N, *shape)`` that fit into a chunk."""
        return (part for part in x.split(self.count(x.shape[1:], x.element_size())) if len(part))

    @staticmethod
    def count(shape: tuple[int, ...], size: int) -> int:
        """Examples per chunk, of entries of ``size`` bytes."""
        entries = max(1, math.prod(shape))
        return max(1, min(_MOST, _MOST_ENTRIES // entries, MAX_CHUNK_SIZE // (entries * size)))

    def encode(self, x: Tensor) -> Chunk:
        """The chunk of raw arrays ``(B, *shape)``; of another shape than that of the event, without the model."""
        raw = to_bytes(x)
        ways = {_STORED: raw}
        inside = self._inside(x) if tuple(x.shape[1:]) == self.event.shape else torch.zeros(len(x), dtype=torch.bool)
        if bool(inside.any()):
            with suppress(InputError):  # the model computes NaN for one of them
                ways[_MODEL] = self._with_model(x, inside)
        quick = zstandard.ZstdCompressor(level=_FAST).compress(raw)
        if len(quick) < _HOPELESS * len(ways.get(_MODEL, raw)):
            quick = zstandard.ZstdCompressor(level=_LEVEL).compress(raw)
        ways[_ZSTD] = quick
        way = min(ways, key=lambda k: (len(ways[k]), k))
        return Chunk.of(way, len(x), ways[way], raw)

    def of_model(self, chunk: Chunk, x: Tensor) -> Tensor:
        """The examples of `encode` that the model has coded, as it has seen them."""
        chosen = self._inside(x) if chunk.coder == _MODEL else torch.zeros(len(x), dtype=torch.bool)
        return x[chosen].to(self.scheme.type_for(x.dtype))

    def decode(self, container: Container, number: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The raw arrays of a chunk, ``(B, *shape)``.

        Raises:
            CodingError: the chunk is damaged.
        """
        info, coded, name = container.info(number), container.chunk(number), container.name
        size = info.count * math.prod(shape) * dtype.itemsize
        most = _LARGER * self.count(shape, dtype.itemsize)
        if info.count > most:  # a few bytes could state examples that take hours to decode
            raise CorruptChunk(name, number, f"it states {info.count:,} examples; the maximum is {most:,}")
        if size != info.raw_size:
            raise CorruptChunk(name, number, f"{info.count} examples have {size:,} bytes, not {info.raw_size:,}")
        try:
            if info.coder == _MODEL:
                if shape != self.event.shape:
                    raise CorruptChunk(name, number, f"examples of shape {shape}; the model has {self.event.shape}")
                raw = to_bytes(self._without_model(coded, info.count, dtype))
            elif info.coder == _ZSTD:
                raw = unpacked(coded, info.raw_size)
            else:
                raw = coded
        except (StreamError, InputError, zstandard.ZstdError) as error:
            if isinstance(error, CodingError) and not isinstance(error, StreamError):
                raise
            raise CorruptChunk(name, number, str(error)) from error
        container.check_decoded(number, raw)
        return from_bytes(raw, (info.count, *shape), dtype)

    def _inside(self, x: Tensor) -> Tensor:
        """Which examples the model can represent, ``(B,)``: the same bits come back from its type."""
        own = x.to(self.scheme.type_for(x.dtype))
        inside = self.event.contains(own)
        if own.is_floating_point() and not x.is_floating_point():  # beyond, conversions depend on the processor
            inside &= (own.abs() <= 2.0**53).flatten(1).all(1)
        inside &= torch.from_numpy((_rows(own.to(x.dtype)) == _rows(x)).all(1))
        if bool(inside.any()):
            inside[inside.clone()] = self.scheme.takes(own[inside])
        return inside

    def _with_model(self, x: Tensor, inside: Tensor) -> bytes:
        outside = (~inside).nonzero()[:, 0].numpy().astype("<u4")
        kept = b""
        if len(outside):
            kept = zstandard.ZstdCompressor(level=_LEVEL).compress(outside.tobytes() + to_bytes(x[~inside]))
        own = x.to(self.scheme.type_for(x.dtype))
        return _OUTSIDE.pack(len(outside), len(kept)) + kept + self.scheme.encode(own[inside])

    def _without_model(self, coded: bytes, n: int, dtype: torch.dtype) -> Tensor:
        if len(coded) < _OUTSIDE.size:
            raise StreamError(f"a stream of {len(coded)} bytes; it was cut")
        count, size = _OUTSIDE.unpack_from(coded)
        kept, stream = coded[_OUTSIDE.size : _OUTSIDE.size + size], coded[_OUTSIDE.size + size :]
        if count >= n or len(kept) < size:
            raise StreamError(f"{count} of {n} examples are outside the model, in {size} bytes; the stream is damaged")
        if not count:
            return self.scheme.decode(stream, n).to(dtype)
        raw = unpacked(kept, count * (4 + self.event.dims * dtype.itemsize))
        places = torch.from_numpy(np.frombuffer(raw, "<u4", count).astype(np.int64))
        if int(places.max()) >= n or len(places.unique()) < count:
            raise StreamError("an example outside the model has no place; the stream is damaged")
        inside = torch.ones(n, dtype=torch.bool)
        inside[places] = False
        x = torch.zeros(n, *self.event.shape, dtype=dtype)
        x[places] = from_bytes(raw[4 * count :], (count, *self.event.shape), dtype)
        x[inside] = self.scheme.decode(stream, n - count).to(dtype)
        return x


def plain_chunk(raw: bytes) -> Chunk:
    """A chunk without items: bytes with zstandard, or stored."""
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(raw)
    return Chunk.of(*((_ZSTD, 0, packed) if len(packed) < len(raw) else (_STORED, 0, raw)), raw)


def plain_decoded(container: Container, number: int) -> bytes:
    """The bytes of a `plain_chunk`.

    Raises:
        CodingError: the chunk is damaged.
    """
    info, coded = container.info(number), container.chunk(number)
    if info.coder == _MODEL or info.count:
        raise CorruptChunk(container.name, number, "it has examples instead of bytes")
    try:
        raw = unpacked(coded, info.raw_size) if info.coder == _ZSTD else coded
    except (StreamError, zstandard.ZstdError) as error:
        raise CorruptChunk(container.name, number, str(error)) from error
    container.check_decoded(number, raw)
    return raw


def unpacked(coded: bytes, size: int) -> bytes:
    """Bytes coded by zstandard, which must be ``size``.

    Raises:
        StreamError: they are not.
        ZstdError: the bytes are damaged.
    """
    # A skippable frame has other functions of the library allocate what it states.
    if not coded.startswith(zstandard.FRAME_HEADER) or zstandard.frame_content_size(coded) != size:
        raise StreamError("its size is another one after decoding")
    return zstandard.ZstdDecompressor().decompress(coded, max_output_size=size, allow_extra_data=False)


def to_bytes(x: Tensor) -> bytes:
    """The bytes of a tensor of any type, row by row."""
    flat: Any = x.detach().cpu().contiguous().reshape(-1)
    return bytes((flat.view(torch.uint8).numpy() if flat.dtype != torch.bool else flat.numpy()).tobytes())


def from_bytes(raw: bytes, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The tensor with these bytes."""
    found = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.zeros(0, dtype=dtype)
    return found.reshape(shape)


def _rows(x: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(to_bytes(x), np.uint8).reshape(len(x), -1)
