"""Law cases of flows."""

from __future__ import annotations

from unsup.core.event import REAL, Event
from unsup.testing.cases.case import MIXED, Case, ordinal, vector

CASES = (
    Case("nice", vector(2, REAL)),
    Case("nice", vector(5, REAL), {"layers": 3, "base": "gaussian"}),
    Case("nice", vector(3, ordinal(4))),
    Case("nice", MIXED),
    Case("nice", Event((1, 2, 2), ordinal(3)), {"base": "gaussian"}),
    Case("nice", Event((2, 3, 2), REAL)),
    Case("realnvp", vector(2, REAL)),
    Case("realnvp", vector(5, REAL), {"layers": 3}),
    Case("realnvp", vector(3, ordinal(4))),
    Case("realnvp", MIXED),
    Case("realnvp", Event((1, 4, 4), ordinal(4))),
    Case("realnvp", Event((3, 4, 4), REAL), {"scales": 2}),
    Case("realnvp", Event((1, 2, 2), ordinal(3))),
)
