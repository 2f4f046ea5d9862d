"""Arrays of examples as compressed data."""

from __future__ import annotations

import io
from typing import Annotated, TypedDict, cast

import torch
from torch import Tensor

import unsup
from unsup.coding.chunks import TYPES, ChunkCoder, model_hash, scheme_of
from unsup.coding.container import Container, write_container
from unsup.coding.errors import CodingError, EnvironmentMismatch, UnknownModel, one_line
from unsup.coding.scheme import Profile
from unsup.core import memory
from unsup.core.config import AtLeast, check_value, shown
from unsup.core.errors import InputError
from unsup.core.machine import environment
from unsup.core.model import Model

_NAME = "the compressed data"


class Items(TypedDict):
    """What the items of the file are: examples of one shape and type."""

    kind: str
    type: str
    shape: list[Annotated[int, AtLeast(0)]]


def compress(model: Model, x: Tensor, *, profile: Profile = "portable") -> bytes:
    """Code raw examples ``(N, *event.shape)`` with a model, losslessly.

    Args:
        model: any model with a coder; see ``docs/compression.md``.
        x: raw examples of any type. Every bit comes back, values that the model cannot represent included.
        profile: ``portable``: what reaches the coder is computed in float64 and rounded, so that the result can be
            decoded with the same parameters on another machine, with another number of threads or another instruction
            set. ``native``: it is computed in the type of the model, and decoded in the same environment only.

    Raises:
        CapabilityError: a model that does not code examples.
        InputError: examples of another shape.

    >>> import torch
    >>> from unsup import create, load_data
    >>> digits = load_data("digits")
    >>> model = create("made", digits, preset="tiny", seed=0)
    >>> data = compress(model, digits.test.x)
    >>> torch.equal(decompress(model, data), digits.test.x)
    True
    """
    if not isinstance(x, Tensor):
        raise InputError(f"x is a {type(x).__name__}; expected a tensor of raw examples: torch.as_tensor(x)")
    coder = ChunkCoder(model, profile)
    kind = str(x.dtype).removeprefix("torch.")
    if kind not in TYPES:
        raise InputError(f"x has the type {kind}; expected one of {', '.join(TYPES)}")
    model.event.check_shape(x)
    items = {"kind": "examples", "type": kind, "shape": list(x.shape[1:])}
    file = io.BytesIO()
    own = x.detach().cpu().contiguous()
    write_container(file, header_of(model, coder, items, profile), map(coder.encode, coder.split(own)))
    return file.getvalue()


def decompress(model: Model, data: bytes) -> Tensor:
    """The examples that `compress` has coded.

    Raises:
        CodingError: the data is damaged, was coded with another model, or cannot be decoded here.
    """
    with Container(io.BytesIO(data), _NAME) as container:
        try:
            items: Items = check_value("items", container.header["items"], Items)
        except InputError as error:
            raise CodingError(
                f"{_NAME} has no examples ({one_line(str(error))}); pass the result of compress"
            ) from error
        if items["kind"] != "examples" or items["type"] not in TYPES:
            raise CodingError(
                f"{_NAME} has items of the kind {shown(items['kind'])} and type {shown(items['type'])}; expected "
                f"examples of one of {', '.join(TYPES)}"
            )
        shape, dtype = tuple(items["shape"]), cast(torch.dtype, getattr(torch, items["type"]))
        if shape != model.event.shape:
            raise CodingError(f"{_NAME} has examples of shape {shown(shape)}; the model has {model.event.shape}")
        coder, size = coder_of(model, container), container.totals.raw_size
        if 2 * size > memory.limit():  # all parts, and the result
            raise InputError(
                f"{_NAME} has {memory.said(size)} of examples, and decoding needs twice that of the "
                f"{memory.said(memory.limit())} of memory available; free memory, or compress fewer examples at a time"
            )
        parts = [coder.decode(container, number, shape, dtype) for number in range(container.chunks)]
    return torch.cat(parts) if parts else torch.zeros(0, *shape, dtype=dtype)


def header_of(model: Model, coder: ChunkCoder, items: object, profile: Profile) -> dict[str, object]:
    """The header of a file of examples."""
    header = {
        "writer": f"unsup {unsup.__version__}",
        "profile": profile,
        "coders": coder.coders,
        "model": {"name": type(model).__name__, "hash": model_hash(model)},
        "items": items,
        "canary": coder.canary(),
    }
    return header | ({"environment": environment()} if profile == "native" else {})


def coder_of(model: Model, container: Container) -> ChunkCoder:
    """The coder of a file, after checking that it is that of this model and works here.

    Raises:
        CodingError: another model, version or environment.
    """
    header, name = container.header, container.name
    own = header.get("model", {"name": "no model", "hash": ""})
    found = model_hash(model)
    if own["hash"] != found:
        raise UnknownModel(name, f"{own['name']} {own['hash'][:12]}", f"{type(model).__name__} {found[:12]}")
    if header["profile"] not in ("portable", "native"):
        raise CodingError(f"{name} has the profile {shown(header['profile'])}, which this version does not know")
    profile = cast(Profile, header["profile"])
    if profile == "native" and header.get("environment") != (here := environment()):
        wanted = header.get("environment", {})
        other = [k for k in here if wanted.get(k) != here[k]]
        raise EnvironmentMismatch(
            name,
            ", ".join(f"{k} {wanted.get(k, '?')}" for k in other),
            ", ".join(f"{k} {here[k]}" for k in other),
        )
    coder = ChunkCoder(model, profile, scheme_of(container, model))
    if header.get("canary") != coder.canary():
        raise EnvironmentMismatch(name, header["writer"], f"unsup {unsup.__version__}, torch {torch.__version__}")
    return coder
