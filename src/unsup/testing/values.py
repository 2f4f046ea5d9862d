"""All values of a discrete event as one table, and draws counted in it.

An example with an end has one more level: its end, and what follows it, is that level.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unsup.core.event import Event, Support
from unsup.core.model import HasDensity, Model, has_ends
from unsup.evaluate.completions import draw as draw
from unsup.testing import grids
from unsup.testing.subject import log_probs


def event_of(model: Model) -> Event:
    """The event of the table: that of the model, with a level for the end of an example."""
    event = model.event
    if not has_ends(model):
        return event
    assert event.uniform is not None
    return Event(event.shape, Support("nominal", event.uniform.levels + 1), event.layout)


def in_table(model: Model, x: Tensor, lengths: Tensor | None) -> Tensor:
    """Examples as values of `event_of`."""
    if lengths is None or not has_ends(model):
        return x
    assert model.event.uniform is not None
    return torch.where(model.event.padding(lengths), model.event.uniform.levels, x.long())


def from_table(model: Model, values: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Values of `event_of` as examples and their lengths, and which of them are examples: nothing follows an end."""
    if not has_ends(model):
        return values, None, torch.ones(len(values), dtype=torch.bool, device=values.device)
    assert model.event.uniform is not None
    ended = values == model.event.uniform.levels
    lengths = torch.where(ended.any(1), ended.long().argmax(1), values.shape[1])
    valid = (ended == model.event.padding(lengths)).all(1)
    return torch.where(ended, 0, values).to(model.event.dtype), lengths, valid


def log_table(model: HasDensity, values: Tensor | None = None, **given: Any) -> Tensor:
    """log p of values of `event_of`, by default of all, in the order of `grids.enumerate_event`; −∞ of no example."""
    assert isinstance(model, Model)
    if values is None:
        values = grids.enumerate_event(event_of(model)).to(model.device)
    x, lengths, valid = from_table(model, values)
    found = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    found[valid] = log_probs(model, x[valid], lengths=None if lengths is None else lengths[valid], **given)
    return found


def counted(model: Model, x: Tensor, lengths: Tensor | None) -> Tensor:
    """How often each value of the table is among the examples."""
    event = event_of(model)
    found = grids.index_of(event, in_table(model, x, lengths))
    return found.bincount(minlength=grids.states(event))


def beginnings(event: Event, length: int) -> Tensor:
    """All values of the first ``length`` positions of an event, ``(N, *event.shape)``; the others are the lowest."""
    x = event.lowest(torch.zeros(1, dtype=torch.int64)).expand(1, *event.shape)
    if length:
        part = grids.enumerate_event(replace(event, shape=(length, *event.shape[1:]), open=False))
        x = x.repeat(len(part), *(1,) * len(event.shape))
        x[:, :length] = part.long()
    return x.to(event.dtype)
