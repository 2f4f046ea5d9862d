"""Law cases of self-supervised models."""

from __future__ import annotations

from unsup.core.event import BINARY, Event
from unsup.testing.cases.case import Case, ordinal

CASES: tuple[Case, ...] = (
    Case("jigsaw", Event((1, 15, 16), BINARY)),
    Case("jigsaw", Event((3, 15, 15), ordinal(256)), {"dropout": 0.3, "stage": 2}),
    Case("patch-position", Event((1, 16, 17), BINARY)),
    Case("patch-position", Event((3, 16, 16), ordinal(256)), {"grids": 2, "stage": 2}),
    Case("rotation", Event((1, 5, 5), BINARY)),
    Case("rotation", Event((3, 6, 6), ordinal(256)), {"net": "nin-3", "width": 0.04}),
)
