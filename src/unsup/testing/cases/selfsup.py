"""Law cases of self-supervised models."""

from __future__ import annotations

from unsup.core.event import BINARY, REAL, Event
from unsup.testing.cases.case import Case, ordinal

COMPARED = {"accumulation": "places of all examples of a batch are candidates, and a part has fewer"}
CASES: tuple[Case, ...] = (
    Case("cpc", Event((16,), ordinal(256), "sequence"), exceptions=COMPARED),
    Case("cpc", Event((30, 2), REAL, "sequence"), {"window": 20, "steps": 2}, exceptions=COMPARED),
    Case("cpc", Event((2, 8, 6), ordinal(5)), exceptions=COMPARED),
    Case(
        "cpc",
        Event((1, 6, 6), BINARY),
        {"norm": "none", "bottleneck": True, "steps": 1, "layers": 2},
        exceptions=COMPARED,
    ),
)
