"""Additional streams of data: a second domain, examples without labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.data.events import common_event, mend
from unsup.data.precision import of_type
from unsup.data.source import Data, Split

_CALLED = {"domain_b": "domain b"}


def with_stream(data: Data, stream: str, other: Data) -> Data:
    """``data`` with the splits of ``other`` as a stream; both get the same event.

    Raises:
        InputError: the two have no common event.
    """
    called, other = _CALLED.get(stream, stream), _coloured(other, data.event)
    event = common_event(data.event, other.event)
    if event is None:
        raise InputError(
            f"{called}, {other.name}, has examples of {other.event}, but {data.name} of {data.event}; both must "
            f"have the same event{mend(other.event, data.event)}"
        )
    said = f"{called} is {other.name}: {other.describe()}{', not paired' if stream == 'domain_b' else ''}"
    notes = (*data.notes, said, *other.notes)
    data, other = _of_event(data, event), _of_event(other, event)
    if stream == "unlabelled":
        other = _each(other, lambda split: replace(split, label=None))
    data = replace(data, options={**data.options, stream: other.name}, notes=notes)
    return joined(replace(data, paired=data.paired and stream != "domain_b"), stream, other)


def joined(data: Data, stream: str, other: Data) -> Data:
    """``data`` with the splits of ``other`` as a stream of its splits."""
    pairs = ((data.train, other.train), (data.validation, other.validation), (data.test, other.test))
    train, validation, test = (replace(own, streams={**own.streams, stream: theirs}) for own, theirs in pairs)
    return replace(data, train=train, validation=validation, test=test)


def _each(data: Data, change: Callable[[Split], Split]) -> Data:
    return replace(data, train=change(data.train), validation=change(data.validation), test=change(data.test))


def _coloured(data: Data, event: Event) -> Data:
    """Grey images as colour images, if colour is required."""
    if not event.is_image or data.event != replace(event, shape=(1, *event.shape[1:])):
        return data

    def coloured(split: Split) -> Split:
        return (
            replace(split, examples=split.x.expand(-1, *event.shape)) if isinstance(split.examples, Tensor) else split
        )

    return replace(_each(data, coloured), event=event)


def _of_event(data: Data, event: Event) -> Data:
    """``data`` as examples of a wider event."""
    if event == data.event:
        return data

    def widened(split: Split) -> Split:
        return replace(split, examples=of_type(split.x, event)) if isinstance(split.examples, Tensor) else split

    return replace(_each(data, widened), event=event)
