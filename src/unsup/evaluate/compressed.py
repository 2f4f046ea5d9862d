"""Real bytes of examples that are compressed with a model, decoded and compared."""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass

from torch import Tensor

from unsup.coding import compress, decompress
from unsup.coding.autoregressive import mask_bits
from unsup.coding.chunks import ChunkCoder, scheme_class, scheme_for, to_bytes
from unsup.coding.container import Container
from unsup.coding.errors import CodingError
from unsup.core.deadline import Deadline
from unsup.core.errors import InputError
from unsup.core.model import Model
from unsup.core.steps import Listener, heard_by, part_of
from unsup.core.words import duration

_FEW, _MORE = 8, 64  # examples that are coded first, to estimate the time for all of them


@dataclass(frozen=True)
class Coded:
    """Sizes and times of examples compressed with a model.

    Attributes:
        coded: bytes of the examples.
        file: bytes of the file: also its header, its index and its checksums, but not the model.
        by_model: bytes of the examples that the model has coded, and not a general codec that needs fewer.
        mask: bytes of these that mark missing entries; the likelihood does not imply them.
        seconds: for coding and decoding.
    """

    coded: int
    file: int
    by_model: int
    mask: int
    seconds: float


def reason_against_coding(model: Model | Tensor | None) -> str:
    """Why examples cannot be coded with a model, a clause; empty if they can."""
    found = scheme_class(model) if isinstance(model, Model) else "only samples were given"
    return found if isinstance(found, str) else ""


def coded_size(
    model: Model, x: Tensor, seconds: float, mend: str, listen: Listener = lambda step, steps: None
) -> Coded:
    """Compress raw examples ``(N, *event.shape)``, decode them and compare them.

    Args:
        seconds: the limit. A few examples are coded first, and all only if this is expected to be within the limit.
        mend: what to do without the limit, a clause.
        listen: called with finished and all steps.

    Raises:
        CapabilityError: the model has no coder.
        InputError: it would take longer.
        OutOfTime: it took longer, although this was not expected.
        CodingError: the decoded examples are others.
    """
    left = duration(seconds) if seconds < math.inf else ""
    with Deadline(seconds, f"coding takes more than the {left} that were left; {mend}") as deadline:
        if left and (needed := _seconds_for(model, x, deadline)) > deadline.seconds_left:
            left = duration(deadline.seconds_left)
            raise InputError(f"coding would take about {duration(needed)} here, but {left} were left; {mend}")
        started = time.monotonic()
        with heard_by(listen):
            with part_of(0, 2):
                data = compress(model, x)
            with part_of(1, 2):
                found = decompress(model, data)
        seconds = round(time.monotonic() - started, 3)
    if found.dtype != x.dtype or to_bytes(found) != to_bytes(x):
        raise CodingError(f"the {len(x)} decoded examples differ from those that were coded; report this defect")
    with Container(io.BytesIO(data), "the compressed examples") as container:
        own = container.header["coders"]
        sizes = [(own[info.coder]["name"], info.coded_size) for info in container.infos()]
    name = scheme_for(model).name
    by_model = sum(size for by, size in sizes if by == name)
    parts = x.detach().cpu().split(ChunkCoder.count(model.event.shape, x.element_size()))
    mask = math.ceil(sum(map(mask_bits, parts)) / 8) if model.event.missing else 0
    return Coded(sum(size for _, size in sizes), len(data), by_model, mask, seconds)


def _seconds_for(model: Model, x: Tensor, deadline: Deadline) -> float:
    """An estimate of the seconds to code and decode all examples: most of it may be the same for any number of them."""
    scheme = scheme_for(model)

    def seconds_of(few: int) -> float:
        own = x[:few].detach().cpu()
        own = own.to(scheme.type_for(own.dtype))
        own = own[model.event.contains(own) & scheme.takes(own)]
        started = time.monotonic()
        if len(own):
            scheme.decode(scheme.encode(own), len(own))
        return time.monotonic() - started

    if not len(x):
        return 0.0
    few, more = min(_FEW, len(x)), min(_MORE, len(x))
    seconds = seconds_of(few)
    if seconds * len(x) / few <= deadline.seconds_left or more == few:
        return seconds * len(x) / few
    if 2 * seconds > deadline.seconds_left:
        return seconds  # not even a few
    longer = seconds_of(more)
    return longer + max(0.0, longer - seconds) * (len(x) - more) / (more - few)
