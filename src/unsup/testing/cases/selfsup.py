"""Law cases of self-supervised models."""

from __future__ import annotations

from unsup.core.event import BINARY, Event
from unsup.testing.cases.case import Case, ordinal

COMPARED = {"accumulation": "the views of a batch are compared with each other, and those of a part are fewer"}
QUEUED = COMPARED | {"descent": "the keys of the batch are put into the queue, and are then negatives of themselves"}
_COLOURS = Event((3, 6, 6), ordinal(256), "image")
_GREY = Event((1, 6, 6), BINARY, "image")

CASES: tuple[Case, ...] = (
    Case("simclr", _COLOURS, exceptions=COMPARED),
    Case("simclr", _GREY, {"net": "resnet18", "width": 0.05}, exceptions=COMPARED),
    Case("moco", _COLOURS, exceptions=QUEUED),
    Case("moco", _GREY, {"projection": (8,), "views": "moco-v1"}, exceptions=QUEUED),
    Case("byol", _COLOURS, exceptions=COMPARED),
    Case("byol", _GREY, {"teacher": False}, exceptions=COMPARED),
    Case("vicreg", _COLOURS, exceptions=COMPARED),
    Case("vicreg", _GREY, {"objective": "barlow-twins"}, exceptions=COMPARED),
)
