"""The law of lossless compression: examples come back, in as many bits as the likelihood states."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from unsup.coding.autoregressive import Entries
from unsup.coding.chunks import scheme_class, scheme_for, to_bytes
from unsup.coding.entropy import StreamError
from unsup.coding.scheme import Scheme
from unsup.core.model import CanSample, CodesInOrders, HasDensity, IsConditional, Model, has_ends
from unsup.testing.law import LawViolation, law, require
from unsup.testing.subject import Subject

_EXAMPLES = 24
_REPEATS = 8  # of the examples
_ENDS = 64  # bits of the end of a stream
_SHARE = 0.01  # relative excess that is allowed
_SURE = 4.0  # standard errors of the mean of a bound
_APART = 2.0  # noise of parameters, after which the densities of a mixture over orders are far apart


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
    _check(subject, subject.generic(), subject.batch.x[:_EXAMPLES].cpu())
    if isinstance(subject.model, CodesInOrders) and isinstance(subject.model, CanSample):
        model = subject.generic(noise=_APART)
        # Its own examples, since those of the data are too improbable: no symbol takes more than 24 bits.
        x = cast(CanSample, model).sample(_EXAMPLES, generator=subject.generator(2)).cpu()
        _check(subject, model, x[x.isfinite().flatten(1).all(1)])


def _check(subject: Subject, model: Model, x: Tensor) -> None:
    assert isinstance(model, HasDensity)
    scheme = scheme_for(model)
    x = x.to(scheme.type_for(x.dtype))
    lengths = subject.lengths(len(x)).get("lengths")
    if lengths is not None:
        beyond = subject.model.event.padding(lengths).view(len(x), -1, *(1,) * (x.ndim - 2))
        x = torch.where(beyond, subject.model.event.lowest(x).to(x.dtype), x)
    taken = subject.model.event.contains(x) & scheme.takes(x)
    x, lengths = x[taken], None if lengths is None else lengths[taken]
    require(len(x) > 0, "the coder takes none of the examples, although they are inside the event")
    coded = _coded(scheme, x, lengths)
    try:
        found, found_lengths = _decoded(scheme, coded, len(x), lengths)
    except StreamError as error:
        raise LawViolation(f"{len(x)} examples cannot be decoded: {error}") from error
    require(
        found.dtype == x.dtype and to_bytes(found) == to_bytes(x),
        f"{len(x)} examples are decoded to other ones",
    )
    if lengths is not None:
        require(torch.equal(found_lengths, lengths), f"{len(x)} examples are decoded with other lengths")
    many = x.repeat(_REPEATS, *(1,) * (x.ndim - 1))
    all_lengths = None if lengths is None else lengths.repeat(_REPEATS)
    with torch.no_grad():
        each = -model.log_prob(
            many.to(model.dtype) if x.is_floating_point() else many,
            lengths=all_lengths,
            generator=subject.generator(1),
        )
    each = each.double() / math.log(2) - _log2_steps(subject.model, many, all_lengths)
    # The difference of two streams: the second half alone, without what a stream costs at its start.
    size = len(many) // 2
    half = _coded(scheme, many[:size], None if all_lengths is None else all_lengths[:size])
    rest = each[size:]
    bits, ideal = 8.0 * (len(_coded(scheme, many, all_lengths)) - len(half)), float(rest.sum())
    # The noise of a bound and that of the coder are other draws.
    sure = 0.0 if model.likelihood_kind == "exact" else _SURE * math.sqrt(2 * len(rest)) * float(rest.std())
    # log p does not include which entries are missing. A class is coded as well, at most as if any were equally likely.
    beside = float(model.event.missing * model.event.dims)
    if isinstance(model, IsConditional) and model.classes:
        beside += math.log2(model.classes)
    if lengths is not None and not has_ends(subject.model):  # log p is that given the length
        beside += math.log2(1 + model.event.shape[0])
    # The order of an example is coded beside it, or none where all are coded in one.
    orders = math.log2(model.densities) if isinstance(model, CodesInOrders) else 0.0
    # Real entries may be multiples of a unit that is coarser than the distance of neighbouring numbers.
    slack = _SHARE * abs(ideal) + sure + _ENDS
    lowest = ideal - slack - orders * len(rest) if model.event.is_discrete else -math.inf
    highest = ideal + slack + (orders + beside) * len(rest)
    require(
        lowest <= bits <= highest,
        f"{bits:.0f} bits for examples with −log2 p = {ideal:.0f}; expected {lowest:.0f} to {highest:.0f}",
    )


def _coded(scheme: Scheme, x: Tensor, lengths: Tensor | None) -> bytes:
    return scheme.encode(x) if lengths is None else cast(Entries, scheme).encode(x, lengths)


def _decoded(scheme: Scheme, coded: bytes, n: int, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    if lengths is None:
        return scheme.decode(coded, n), torch.zeros(n)
    return cast(Entries, scheme).decode_with_lengths(coded, n)


def _log2_steps(model: Model, x: Tensor, lengths: Tensor | None) -> Tensor:
    """log2 of the distance of neighbouring numbers of the real entries, summed: their density becomes a mass."""
    if not x.is_floating_point():
        return torch.zeros(len(x), dtype=torch.float64)
    real = torch.tensor([not support.is_discrete for support in model.event.columns])
    far = torch.nextafter(x, torch.full_like(x, math.inf)) - torch.nextafter(x, torch.full_like(x, -math.inf))
    steps = (far.double() / 2).log2().flatten(1)
    if lengths is not None:
        each = model.event.dims // model.event.shape[0]
        real = real & ~model.event.padding(lengths).repeat_interleave(each, 1)
    return torch.where(real, steps.nan_to_num(0.0), 0.0).sum(1)
