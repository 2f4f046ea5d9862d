"""Bits per unit of the data (a byte, a character, a sample), and the context of predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from unsup.core.batch import Batch
from unsup.core.event import Event
from unsup.core.model import IsAutoregressive, Model
from unsup.data.form import Form
from unsup.data.source import Split
from unsup.evaluate.conditions import batches

_AT_ONCE = 20_000
_LONGEST = 4096
"""The most entries of a sequence for which the receptive field is computed, which takes memory of their square."""


class Context(NamedTuple):
    """How many earlier entries of its example each prediction depends on: at most, and on average."""

    most: int
    mean: float


def units_of(event: Event, form: Form | None, examples: Split | Batch) -> dict[str, torch.Tensor]:
    """The number of units of each example, ``(N,)``, by their names; empty if the data has none.

    The units of sequences of discrete vectors are their steps, if their form has no others.
    """
    if not len(examples):
        return {}
    parts = [{} if form is None else form.units(b.x.cpu(), b.lengths) for b in batches(examples, _AT_ONCE)]
    found = {name: torch.cat([part[name] for part in parts]).double() for name in parts[0]}
    if not found and event.layout == "sequence" and len(event.shape) == 2 and event.is_discrete:
        full = torch.full((len(examples),), event.shape[0])
        found["step"] = (full if examples.lengths is None else examples.lengths.cpu()).double()
    return found


def bits_by_unit(nats: float, event: Event, form: Form | None, examples: Split | Batch) -> dict[str, float]:
    """Bits per unit, by its name: the total of all bits over the total of all units.

    Args:
        nats: mean of −log p of an example, weighted if the examples have weights.
    """
    weight = examples.weight
    shares = torch.full((len(examples),), 1 / max(1, len(examples))) if weight is None else weight.cpu() / weight.sum()
    found = {}
    for name, counts in units_of(event, form, examples).items():
        mean = float((shares.double() * counts).sum())
        if mean > 0:
            found[name] = nats / (mean * math.log(2))
    return found


def context_of(model: Model, examples: Split | Batch) -> Context | None:
    """The context of predictions of sequences; None for other data, and for models without an order of entries.

    Entries outside the receptive field of the model do not count. For long sequences of single entries (more than
    `_LONGEST`), where finding them takes long, the result is None.
    """
    event = model.event
    if event.layout != "sequence" or not isinstance(model, IsAutoregressive) or len(model.orders.unique(dim=0)) > 1:
        return None
    size = event.shape[0]
    earlier = torch.arange(size, dtype=torch.float64)
    if len(event.shape) == 1:
        if size > _LONGEST:
            return None
        earlier -= model.blind_spot().sum(1).cpu()
    lengths = torch.tensor([size]) if examples.lengths is None else examples.lengths.cpu()
    total = float(lengths.sum())
    if not total:
        return Context(0, 0.0)
    mean = float(torch.cat([torch.zeros(1), earlier.cumsum(0)])[lengths].sum()) / total
    return Context(int(earlier[: int(lengths.max())].max()), mean)


def context_in_words(context: Context, unit: str, whole: str = "window") -> str:
    """
    >>> context_in_words(Context(255, 127.5), "byte")
    'each byte given the earlier ones of its window: 0 to 255, 127.5 on average'
    """
    return f"each {unit} given the earlier ones of its {whole}: 0 to {context.most:,}, {context.mean:,.1f} on average"


def bits_in_words(bits: Mapping[str, float], bits_per_dim: float) -> str:
    """
    >>> bits_in_words({"byte": 2.0, "character": 2.5}, 2.0), bits_in_words({}, 2.0)
    ('2.0000 bits/byte, 2.5000 bits/character', '2.0000 bits/dim')
    """
    return ", ".join(f"{value:.4f} bits/{name}" for name, value in (bits or {"dim": bits_per_dim}).items())
