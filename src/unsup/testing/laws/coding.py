"""The law of lossless compression: examples come back, in as many bits as the likelihood states."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unsup.coding.chunks import scheme_class, scheme_for, to_bytes
from unsup.coding.entropy import StreamError
from unsup.core.model import HasDensity, IsConditional, Model
from unsup.testing.law import LawViolation, law, require
from unsup.testing.subject import Subject

_EXAMPLES = 24
_REPEATS = 8  # of the examples
_ENDS = 64  # bits of the end of a stream
_SHARE = 0.01  # relative excess that is allowed
_SURE = 4.0  # standard errors of the mean of a bound


def has_coder(model: Model) -> bool:
    """Whether examples of the model can be compressed."""
    return isinstance(model, HasDensity) and not isinstance(scheme_class(model), str)


@law(
    "compression",
    "Examples are compressed and come back bit for bit; their bits are −log2 p, or the bound on it.",
    needs="a coder (unsup compress)",
    applies=has_coder,
)
def compression(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, HasDensity)
    scheme = scheme_for(model)
    x = subject.batch.x[:_EXAMPLES].cpu()
    x = x.to(scheme.type_for(x.dtype))
    x = x[subject.model.event.contains(x) & scheme.takes(x)]
    require(len(x) > 0, "the coder takes none of the examples, although they are inside the event")
    coded = scheme.encode(x)
    try:
        found = scheme.decode(coded, len(x))
    except StreamError as error:
        raise LawViolation(f"{len(x)} examples cannot be decoded: {error}") from error
    require(
        found.dtype == x.dtype and to_bytes(found) == to_bytes(x),
        f"{len(x)} examples are decoded to other ones",
    )
    many = x.repeat(_REPEATS, *(1,) * (x.ndim - 1))
    with torch.no_grad():
        each = -model.log_prob(many.to(model.dtype) if x.is_floating_point() else many, generator=subject.generator(1))
    each = each.double() / math.log(2) - _log2_steps(subject.model, many)
    # The difference of two streams: the second half alone, without what a stream costs at its start.
    half = many[: len(many) // 2]
    rest = each[len(half) :]
    bits, ideal = 8.0 * (len(scheme.encode(many)) - len(scheme.encode(half))), float(rest.sum())
    # The noise of a bound and that of the coder are other draws.
    sure = 0.0 if model.likelihood_kind == "exact" else _SURE * math.sqrt(2 * len(rest)) * float(rest.std())
    # log p does not include which entries are missing. A class is coded as well, at most as if any were equally likely.
    beside = float(model.event.missing * model.event.dims)
    if isinstance(model, IsConditional) and model.classes:
        beside += math.log2(model.classes)
    # Real entries may be multiples of a unit that is coarser than the distance of neighbouring numbers.
    lowest = ideal - _SHARE * abs(ideal) - sure - _ENDS if model.event.is_discrete else -math.inf
    highest = ideal + _SHARE * abs(ideal) + sure + _ENDS + beside * len(rest)
    require(
        lowest <= bits <= highest,
        f"{bits:.0f} bits for examples with −log2 p = {ideal:.0f}; expected {lowest:.0f} to {highest:.0f}",
    )


def _log2_steps(model: Model, x: Tensor) -> Tensor:
    """log2 of the distance of neighbouring numbers of the real entries, summed: their density becomes a mass."""
    if not x.is_floating_point():
        return torch.zeros(len(x), dtype=torch.float64)
    real = torch.tensor([not support.is_discrete for support in model.event.columns])
    far = torch.nextafter(x, torch.full_like(x, math.inf)) - torch.nextafter(x, torch.full_like(x, -math.inf))
    steps = (far.double() / 2).log2().flatten(1)
    return torch.where(real, steps.nan_to_num(0.0), 0.0).sum(1)
