"""Arrays of examples as compressed data, in independent chunks.

A chunk is coded with the model where this is exact and shorter, else with zstandard, or stored. Every bit of an array
comes back, values that the model cannot represent included.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict, cast

import numpy as np
import torch
import zstandard
from torch import Tensor

import unsup
from unsup.coding import autoregressive
from unsup.coding.container import MAX_CHUNK_SIZE, Chunk, Container, digest, write_container
from unsup.coding.entropy import StreamError
from unsup.coding.errors import CodingError, CorruptChunk, EnvironmentMismatch, UnknownModel
from unsup.coding.tables import to_grid
from unsup.core.config import AtLeast, check_value
from unsup.core.errors import CapabilityError, InputError
from unsup.core.model import CodesEntries, IsConditional, Model

CHUNK = 1024
"""Examples per chunk: enough that the ends of streams cost little, and few enough for memory."""
_MODEL, _ZSTD, _STORED = range(3)
_CODERS = (
    {"name": autoregressive.NAME, "version": autoregressive.VERSION},
    {"name": "zstandard", "version": 1},
    {"name": "stored", "version": 1},
)
_NAME = "the compressed data"
_LEVEL = 19
_TYPES = ("uint8", "int8", "int16", "int32", "int64", "bool", "float16", "bfloat16", "float32", "float64")


class Items(TypedDict):
    """What the items of the file are: examples of one shape and type."""

    kind: str
    type: str
    shape: list[Annotated[int, AtLeast(0)]]


def compress(model: Model, x: Tensor) -> bytes:
    """Code raw examples ``(N, *event.shape)`` with a model, losslessly.

    The result can be decoded with the same parameters on another machine, with another number of threads or another
    instruction set: what reaches the coder is computed in float64 and rounded.

    Raises:
        CapabilityError: a model that does not code examples, or one with a condition.
        InputError: examples of another shape.

    >>> import torch
    >>> from unsup import create, load_data
    >>> digits = load_data("digits")
    >>> model = create("made", digits, preset="tiny", seed=0)
    >>> data = compress(model, digits.test.x)
    >>> torch.equal(decompress(model, data), digits.test.x)
    True
    """
    coder = _coder(model)
    if not isinstance(x, Tensor):
        raise InputError(f"x is a {type(x).__name__}; expected a tensor of raw examples: torch.as_tensor(x)")
    kind = str(x.dtype).removeprefix("torch.")
    if kind not in _TYPES:
        raise InputError(f"x has the type {kind}; expected one of {', '.join(_TYPES)}")
    model.event.check_shape(x)
    header = {
        "writer": f"unsup {unsup.__version__}",
        "profile": "portable",
        "coders": [dict(each) for each in _CODERS],
        "model": {"name": type(model).__name__, "hash": model_hash(model)},
        "items": {"kind": "examples", "type": kind, "shape": list(x.shape[1:])},
        "canary": _canary(coder),
    }
    file = io.BytesIO()
    write_container(file, header, _chunks(model, coder, x.detach().cpu().contiguous()))
    return file.getvalue()


def decompress(model: Model, data: bytes) -> Tensor:
    """The examples that `compress` has coded.

    Raises:
        CodingError: the data is damaged, was coded with another model, or cannot be decoded here.
    """
    with Container(io.BytesIO(data), _NAME) as container:
        items: Items = check_value(f"{_NAME}: items", container.header["items"], Items)
        if items["kind"] != "examples" or items["type"] not in _TYPES:
            raise CodingError(
                f"{_NAME} has items of the kind {items['kind']!r} and type {items['type']!r}, which are unknown"
            )
        own = container.header.get("model", {"name": "no model", "hash": ""})
        found = model_hash(model)
        if own["hash"] != found:
            raise UnknownModel(_NAME, f"{own['name']} {own['hash'][:12]}", f"{type(model).__name__} {found[:12]}")
        shape, dtype = items["shape"], cast(torch.dtype, getattr(torch, items["type"]))
        if container.header["coders"] != list(_CODERS) or tuple(shape) != model.event.shape:
            raise CodingError(
                f"{_NAME} has coders or shapes that this version does not know; use the version that wrote it"
            )
        coder = _coder(model)
        if container.header.get("canary") != _canary(coder):
            raise EnvironmentMismatch(
                _NAME, container.header["writer"], f"unsup {unsup.__version__}, torch {torch.__version__}"
            )
        parts = [_decoded(container, number, model, coder, shape, dtype) for number in range(container.chunks)]
    return torch.cat(parts) if parts else torch.zeros(0, *shape, dtype=dtype)


def model_hash(model: Model) -> str:
    """BLAKE2b-256 of the class, the configuration, the event and all parameters and buffers of a model."""
    about = [type(model).__name__, model.event.to_json(), model.config]
    found = hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=32)
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        found.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        found.update(_bytes(values))
    return found.hexdigest()


def _coder(model: Model) -> CodesEntries:
    """A copy of the model in float64, which computes what reaches the coder."""
    if not isinstance(model, CodesEntries):
        raise CapabilityError(
            f"{type(model).__name__} does not code examples; models that code entry by entry do (made, pixelcnn, "
            "gated-pixelcnn)"
        )
    if isinstance(model, IsConditional) and model.given is not None:
        raise CapabilityError(f"this {type(model).__name__} has a condition, which is not coded; train it without one")
    return cast(CodesEntries, copy.deepcopy(model).cpu().double().eval())


def _canary(coder: CodesEntries) -> str:
    """A hash of what the model computes for one example of the lowest levels."""
    seen = bytearray()

    def choose(site: int, log_masses: Tensor) -> Tensor:
        seen.extend(to_grid(log_masses.double().numpy()).steps.tobytes())
        return torch.zeros(len(log_masses), dtype=torch.int64)

    coder.visit(1, choose)
    return digest(bytes(seen)).hex()


def _chunks(model: Model, coder: CodesEntries, x: Tensor) -> Iterator[Chunk]:
    count = max(1, min(CHUNK, MAX_CHUNK_SIZE // max(1, x[:1].numel() * x.element_size())))
    for part in x.split(count):
        if not len(part):
            continue
        raw = _bytes(part)
        ways = {_STORED: raw, _ZSTD: zstandard.ZstdCompressor(level=_LEVEL).compress(raw)}
        own = part.to(model.event.dtype)
        if bool(model.event.contains(own).all()) and _bytes(own.to(part.dtype)) == raw:
            ways[_MODEL] = autoregressive.encode(coder, own)
        way = min(ways, key=lambda k: (len(ways[k]), k))
        yield Chunk.of(way, len(part), ways[way], raw)


def _decoded(
    container: Container, number: int, model: Model, coder: CodesEntries, shape: list[int], dtype: torch.dtype
) -> Tensor:
    info, coded = container.info(number), container.chunk(number)
    way = info.coder
    size = info.count * math.prod(shape) * dtype.itemsize
    if size != info.raw_size:
        raise CorruptChunk(_NAME, number, f"{info.count} examples have {size:,} bytes, not {info.raw_size:,}")
    try:
        if way == _MODEL:
            raw = _bytes(autoregressive.decode(coder, coded, info.count).to(dtype))
        elif way == _ZSTD:
            if zstandard.frame_content_size(coded) != info.raw_size:
                raise CorruptChunk(_NAME, number, "its size is another one after decoding")
            raw = zstandard.ZstdDecompressor().decompress(coded)
        else:
            raw = coded
    except (StreamError, zstandard.ZstdError) as error:
        raise CorruptChunk(_NAME, number, str(error)) from error
    container.check_decoded(number, raw)
    found = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.zeros(0, dtype=dtype)
    return found.reshape(info.count, *shape)


def _bytes(x: Tensor) -> bytes:
    """The bytes of a contiguous tensor of any type, row by row."""
    flat = x.contiguous().reshape(-1)
    found: Any = flat.view(torch.uint8).numpy() if flat.dtype != torch.bool else flat.numpy().view(np.uint8)
    return bytes(found.tobytes())
