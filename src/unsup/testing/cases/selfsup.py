"""Law cases of self-supervised models."""

from __future__ import annotations

from unsup.core.event import BINARY, Event
from unsup.testing.cases.case import Case, ordinal

CASES: tuple[Case, ...] = (
    Case("mae", Event((1, 8, 8), BINARY)),
    Case("mae", Event((3, 4, 8), ordinal(4)), {"class_token": True, "mask_ratio": 0.5}),
    Case("mae", Event((1, 4, 6), ordinal(4)), {"normalised": False}),
)
