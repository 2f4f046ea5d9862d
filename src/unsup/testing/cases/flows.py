"""Law cases of flows."""

from __future__ import annotations

from unsup.core.event import REAL, Event, labels
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
    Case("nice", vector(3, REAL), {"given": labels(2)}, classes=2),
    Case("realnvp", vector(4, REAL), {"given": labels(3)}, classes=3),
    Case("maf", vector(2, REAL)),
    Case("maf", vector(5, REAL), {"batch_norm": True}),
    Case("maf", vector(2, REAL), {"components": 3}),
    Case("maf", vector(3, ordinal(4))),
    Case("maf", MIXED),
    Case("maf", Event((1, 2, 2), ordinal(3))),
    Case("maf", vector(2, REAL), {"given": labels(2), "layers": 1}, classes=2),
    Case("iaf", vector(2, REAL)),
    Case("iaf", vector(3, ordinal(4))),
    Case("iaf", vector(3, REAL), {"given": labels(2)}, classes=2),
    Case("spline-flow", vector(2, REAL)),
    Case("spline-flow", vector(2, REAL), {"step": "autoregressive"}),
    Case("spline-flow", vector(3, ordinal(4))),
    Case("spline-flow", MIXED, {"step": "autoregressive"}),
    Case("spline-flow", Event((1, 2, 2), ordinal(3))),
    Case("spline-flow", vector(3, REAL), {"given": labels(2)}, classes=2),
    Case("spline-flow", vector(3, REAL), {"given": labels(2), "step": "autoregressive"}, classes=2),
)
