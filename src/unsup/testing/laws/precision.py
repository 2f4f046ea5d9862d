"""Laws of precision: it depends on the data, not on the type in which the model computes."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from unsup.core.errors import CapabilityError
from unsup.core.event import Event, Support
from unsup.core.model import CanDecode, CanSample, HasDensity, Model
from unsup.testing.law import law, require
from unsup.testing.laws.densities import deviations, has_likelihood
from unsup.testing.subject import Subject

_OFFSET, _LEVEL = 1e9, 1_700_000_077  # offset of real data with spread 1, and integers that float32 cannot represent
_SAMPLES, _DISTINCT = 500, 400
_HALF_SAMPLES = 32
_HALF = {
    torch.float16: 0.02,
    torch.bfloat16: 0.08,
}  # tolerance relative to 1 + |log p|: 11 and 8 bits, and sums of many terms


def _may_be_far(model: Model) -> bool:
    return isinstance(model, CanSample) and any(s.kind in ("real", "ordinal") for s in model.event.columns)


def _far(subject: Subject) -> Subject | None:
    """The same model and data, far from zero; None if the model does not support such events."""
    event, x = subject.model.event, subject.batch.x
    real = torch.tensor([s.kind == "real" for s in event.columns], device=x.device)
    columns = tuple(replace(s, low=s.low + _LEVEL) if s.kind == "ordinal" else s for s in event.columns)
    moved = event.is_real or event.uniform is None or event.uniform.kind == "ordinal"
    support: Support | tuple[Support, ...] = columns[0] if event.uniform is not None else columns
    far = Event(
        event.shape,
        support if moved else event.support,
        event.layout,
        "float64" if real.any() else event.precision,
        event.open,
        event.missing,
    )
    if type(subject.model).refusal(far) is not None:
        return None
    flat = x.flatten(1).double()
    flat = torch.where(real, (flat - flat.nanmean(0)) / deviations(flat), flat)
    shift = torch.tensor(
        [_OFFSET if s.kind == "real" else _LEVEL if s.kind == "ordinal" else 0 for s in event.columns],
        dtype=torch.float64,
        device=x.device,
    )
    batch = replace(subject.batch, x=(flat + shift).view(x.shape).to(far.dtype))
    streams = {
        k: replace(v, x=(v.x.double() + shift.view(event.shape)).to(far.dtype)) for k, v in batch.streams.items()
    }
    model = type(subject.model)(far, **subject.model.config).to(x.device)
    return replace(subject, model=model, batch=replace(batch, streams=streams))


@law(
    "precision",
    f"Precision depends on the data: samples and decodes of reals at {_OFFSET:g} ± 1 are float64 and differ, whole "
    f"numbers near {_LEVEL:,} are in their support, and both have a finite log p.",
    needs="sample, and real or ordinal entries",
    applies=_may_be_far,
)
def precision(subject: Subject) -> None:
    far = _far(subject)
    if far is None:
        return
    event = far.model.event
    model = far.generic(dtype=None)
    assert isinstance(model, CanSample)
    drawn = {"samples": model.sample(_SAMPLES, generator=subject.generator(1), **subject.one_given())}
    if isinstance(model, CanDecode):
        with torch.no_grad():
            given = subject.given(len(far.batch))
            drawn["decodes"] = model.decode(model.encode(far.batch.x, **given), **given)
    for what, x in drawn.items():
        require(x.dtype == event.dtype, f"{what} are {x.dtype}; the data are {event.dtype}")
        outside = int((~event.contains(x)).sum())
        require(outside == 0, f"{outside} of {len(x)} {what} are outside {event}")
        for d, support in enumerate(event.columns):
            if support.kind == "real":
                column = x.flatten(1)[:, d].double()
                distinct, least = len(column.unique()), _DISTINCT * len(column) // _SAMPLES
                require(distinct > least, f"{len(column)} {what} of reals at {_OFFSET:g} ± 1 have {distinct} values")
                apart = float((column.median() - _OFFSET).abs())
                require(apart < 100, f"{what} of reals at {_OFFSET:g} ± 1 lie {apart:.3g} away")
    if isinstance(model, HasDensity):
        with torch.no_grad():
            found = model.log_prob(far.batch.x, generator=subject.generator(2), **subject.given(len(far.batch)))
        require(
            bool(found.isfinite().all()),
            f"log p of {int((~found.isfinite()).sum())} of {len(found)} examples far from zero is infinite",
        )


@law(
    "half",
    "In float16 and bfloat16, log p is finite and close to that in float32, or is refused with the reason.",
    needs="a likelihood",
    applies=has_likelihood,
)
def half(subject: Subject) -> None:
    usual = subject.generic(dtype=None)
    assert isinstance(usual, HasDensity)
    x, given = subject.batch.x, subject.given(len(subject.batch))

    @torch.no_grad()
    def score(model: HasDensity) -> Tensor:
        # The noise of a bound is drawn in the type of the model, so only averages agree.
        return model.log_prob(x, samples=_HALF_SAMPLES, generator=subject.generator(1), **given).double()

    expected = score(usual)
    for dtype, tolerance in _HALF.items():
        model = copy.deepcopy(usual).to(dtype)
        try:
            found = score(model)
        except CapabilityError as error:
            require(
                bool(model.not_in_half) and model.not_in_half in str(error),
                f"in {dtype}: {error} does not state the reason",
            )
            continue
        require(
            bool(found.isfinite().all()), f"in {dtype} log p of {int((~found.isfinite()).sum())} examples is not finite"
        )
        apart = float(((found - expected).abs() / (1 + expected.abs())).mean())
        require(apart < tolerance, f"in {dtype} the relative error of log p is {apart:.3f}")
