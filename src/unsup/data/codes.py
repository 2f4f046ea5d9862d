"""The codes of a run as data, for two-stage models: the encodings of the run's data by its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor

from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import REAL, Event
from unsup.core.model import CanEncode, HasLatents, IsConditional, Model
from unsup.core.reading import read_json
from unsup.core.registry import load, name_of
from unsup.data.examples import Examples, part_names
from unsup.data.precision import precise, some_rows
from unsup.data.recorded import data_of_run
from unsup.data.source import Split


class _Record(TypedDict):
    name: str
    options: dict[str, Any]


class _Config(TypedDict):
    data: NotRequired[_Record | None]


_AT_ONCE = 200  # examples per encoding batch


def read_codes(path: Path, *, changed_data: bool = False) -> Examples:
    """The codes ``(N, F)`` of the training data of a run, by its best parameters.

    Discrete codes have the event of the latents of the model: a map of code numbers is an image of categories.

    Splits and labels are the same as in that data.

    Args:
        changed_data: continue even if the data of the run has changed since training.

    Raises:
        InputError: the folder is not a run folder, or its data was in memory only, or has changed.
        CapabilityError: its model cannot encode.
    """
    model = load(str(path))
    if not isinstance(model, CanEncode):
        raise CapabilityError(f"{path} is a run of {name_of(type(model))}, which cannot encode")
    config = read_json(path / "config.json", _Config)
    data, changed = data_of_run(path, config, changed_data=changed_data)
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    x = torch.cat([codes(model, split) for split in parts.values()])
    if not bool(x.isfinite().all()):
        raise InputError(f"{int((~x.isfinite()).any(1).sum())} of the codes of {path} are not finite; train it again")
    sizes = (len(data.train), len(data.validation), len(data.test))
    labels = [split.label for split in parts.values() if split.label is not None]
    since = ", which has changed since training" if changed else ""
    note = f"codes of {data.name} ({data.describe()}) by {name_of(type(model))}{since}"
    if isinstance(model, HasLatents) and model.latent_event.is_discrete:
        event = model.latent_event
        x = x.view(-1, *event.shape).to(event.dtype)
    else:
        event = precise(Event(x.shape[1:], REAL), x[torch.from_numpy(some_rows(*x.shape))].double().numpy())
    return Examples(
        x,
        event,
        part_names({name: len(split) for name, split in parts.items()}),
        torch.cat(labels) if len(labels) == len(parts) else None,
        data.labels,
        (note, *data.notes),
        sizes=sizes,
        split=data.split,
    )


@torch.no_grad()
def codes(model: Model, split: Split) -> Tensor:
    """Codes of all examples of a split, in order: ``(N, F)``, float32, or float64 if the model is."""
    assert isinstance(model, CanEncode)
    found = []
    for rows in torch.arange(len(split)).split(_AT_ONCE):
        batch = split.batch(rows).to(model.device)
        given: dict[str, Any] = {}
        if isinstance(model, IsConditional) and model.given is not None:
            given["given"] = model.condition(batch.given, len(batch))
        z = model.encode(batch.x, **given).flatten(1).cpu()
        found.append(z if z.dtype == torch.float64 else z.float())
    return torch.cat(found)
