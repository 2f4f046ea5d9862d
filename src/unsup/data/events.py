"""Conversion of examples to another event, with advice if it is not possible."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support
from unsup.data.arrays import whole_support
from unsup.data.precision import of_type


def as_event(x: Tensor, own: Event, event: Event, name: str, columns: Sequence[str] = ()) -> Tensor:
    """``x`` as raw data of ``event``, in float64 if ``x`` is or ``event`` needs it.

    Args:
        columns: names of the entries, for messages.

    Raises:
        InputError: ``x`` has a different shape, or values outside the support of the event.
    """
    if own.is_image and own.shape[0] == 1 and event.shape == (3, *own.shape[1:]):
        x = x.expand(-1, 3, -1, -1)  # as the image reader does with grey images among colour images
    if tuple(x.shape[1:]) != event.shape:
        shape = tuple(x.shape[1:])
        raise InputError(f"{name} has examples of shape {shape}; expected {event.shape} ({event}){mend(own, event)}")
    inside = event.contains(x)
    if not event.missing and x.is_floating_point() and bool(x.isnan().any()):
        gaps = int(x.flatten(1).isnan().any(1).sum())
        raise InputError(
            f"{name} has missing values in {gaps:,} of {len(x):,} examples, which the model does not support; use "
            "--missing drop or impute (missing=)"
        )
    if not bool(inside.all()):
        first = int((~inside).nonzero()[0])
        if len(columns) == event.dims and (where := _outside(x[first], event, columns)):
            count = int((~inside).sum())
            raise InputError(
                f"{name}: {count} of {len(x)} examples have values that the training data excludes; {where}"
            )
        raise InputError(
            f"{name}: {int((~inside).sum())} of {len(x)} examples have values outside {event} (the first is number "
            f"{first}, from 0; values range from {x.min().item():g} to {x.max().item():g}); expected raw data in "
            "the units of the training data"
        )
    return of_type(x, event).contiguous()


def _outside(x: Tensor, event: Event, columns: Sequence[str]) -> str:
    """The entries of an example that are outside the support of ``event``, in words."""
    found = [
        f"column {name!r} has {value:g}, expected {support}"
        for name, value, support in zip(columns, x.flatten().tolist(), event.columns, strict=True)
        if not (math.isnan(value) and event.missing)
        and not bool(Event((), support).contains(x.new_tensor([value])).all())
    ]
    return "the first: " + "; ".join(found[:3]) if found else ""


def mend(own: Event, event: Event) -> str:
    """How to convert examples of the event ``own`` to the shape of ``event``, as part of an error message."""
    if own.shape == event.shape:
        return ""
    if own.dims == event.dims:
        return f"; reshape the array to {(-1, *event.shape)}"
    if own.is_image and event.is_image:
        is_widened = (own.shape[0], event.shape[0]) == (1, 3)  # grey images among colour images
        if own.shape[0] != event.shape[0] and not is_widened:
            return f"; convert the images to {event.shape[0]} channel{'s' * (event.shape[0] > 1)}"
        square = event.shape[1] == event.shape[2]
        return f"; use --resize {event.shape[1]} (resize={event.shape[1]})" if square else "; resize the images"
    if own.layout == event.layout == "vector":
        return "; remove columns with --drop (drop=) or --label (label=)"
    return ""


def common_event(one: Event, two: Event) -> Event | None:
    """The common event of two data sets, or None: two tables may have different integers.

    >>> print(common_event(Event((1,), Support("ordinal", 3)), Event((1,), Support("ordinal", 9, low=-2))))
    vector of 1, ordinal(9, low=-2)
    """
    if one == two:
        return one
    if (one.shape, one.layout, one.open) != (two.shape, two.layout, two.open) or one.layout != "vector":
        return None
    columns = [_common(a, b) for a, b in zip(one.columns, two.columns, strict=True)]
    supports = tuple(support for support in columns if support is not None)
    if len(supports) < len(columns):
        return None
    wide = "float64" in (one.precision, two.precision) or Event(one.shape, supports).needs_float64
    return Event(one.shape, supports, precision="float64" if wide and REAL in supports else "float32")


def _common(one: Support, two: Support) -> Support | None:
    if one == two:
        return one
    if REAL in (one, two):
        return REAL
    if "nominal" in (one.kind, two.kind):
        return max(one, two, key=lambda s: s.levels) if one.kind == two.kind else None
    top = max(one.low + one.levels, two.low + two.levels) - 1
    return whole_support(min(one.low, two.low), top)
