"""Law cases of autoregressive models."""

from __future__ import annotations

from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.testing.cases import oracles
from unsup.testing.cases.case import GAPS, MIXED, WORDS, Case, ordinal, vector

DIRECT = {"direct": True}
CASES = (
    Case("made", vector(9), oracle=oracles.conditionals, beside=DIRECT),
    Case("made", vector(6), {"hidden": (24, 24), "masks": 3, "order": "random"}, beside=DIRECT),
    Case("made", vector(6), {"direct": False, "hidden": (48,)}),
    Case("made", vector(4, Support("nominal", 3)), oracle=oracles.conditionals, beside=DIRECT),
    Case("made", vector(3, ordinal(17)), {"masks": 2}, beside=DIRECT),
    Case("made", vector(2, Support("ordinal", 40, low=-5)), oracle=oracles.conditionals, beside=DIRECT),
    Case("made", Event((1, 2, 2), BINARY), {"order": "random"}, beside=DIRECT),
    Case(
        "made",
        vector(1, REAL),
        exceptions={"gradients": "a single dimension has no earlier one to connect to"},
        beside=DIRECT,
    ),
    Case("made", vector(2, REAL), beside=DIRECT),
    Case("made", vector(3, REAL), {"masks": 2, "order": "random"}, beside=DIRECT),
    Case("made", MIXED, beside=DIRECT),
    Case("made", WORDS, {"components": 2}, oracle=oracles.heads, beside=DIRECT),
    Case("made", GAPS, {"masks": 2, "order": "random"}, beside=DIRECT),
    Case("made", Event((2,), REAL, missing=True), beside=DIRECT),
    Case("made", Event((4,), BINARY, missing=True), beside=DIRECT),
    Case("pixelcnn", Event((1, 3, 3), BINARY)),
    Case("pixelcnn", Event((3, 2, 2), BINARY), oracle=oracles.conditionals),
    Case("pixelcnn", Event((1, 2, 2), ordinal(4))),
    Case("pixelcnn", Event((2, 2, 2), Support("nominal", 3)), oracle=oracles.conditionals),
    Case("pixelcnn", Event((1, 6, 6), BINARY), {"kernel": 3}),
    Case("pixelcnn", Event((1, 2, 3), BINARY), {"given": labels(3)}, classes=3),
    Case("pixelcnn", Event((1, 2, 2), ordinal(3)), {"given": vector(2, REAL)}),
    Case("gated-pixelcnn", Event((1, 3, 3), BINARY)),
    Case("gated-pixelcnn", Event((3, 2, 2), BINARY), oracle=oracles.conditionals),
    Case("gated-pixelcnn", Event((1, 2, 2), ordinal(4)), {"kernel": 5}, oracle=oracles.conditionals),
    Case("gated-pixelcnn", Event((2, 2, 2), Support("nominal", 3))),
    Case("gated-pixelcnn", Event((1, 5, 6), BINARY), {"layers": 1}),
    Case("gated-pixelcnn", Event((2, 2, 2), BINARY), {"given": labels(3)}, classes=3),
    Case("gated-pixelcnn", Event((1, 2, 2), ordinal(3)), {"given": vector(2, REAL)}),
    Case("transformer", Event((4,), Support("nominal", 3), "sequence")),
    Case("transformer", Event((3, 2), BINARY, "sequence"), {"given": labels(3)}, classes=3),
    Case("transformer", Event((2, 2, 2), ordinal(3))),
    Case("transformer", Event((3,), Support("nominal", 3), "sequence"), {"auxiliary": True, "dropout": 0.2}),
    Case("sparse-transformer", Event((5,), Support("nominal", 3), "sequence")),
    Case("sparse-transformer", Event((6,), BINARY, "sequence"), {"pattern": "fixed", "stride": 3}),
    Case("sparse-transformer", Event((2, 2, 2), ordinal(3)), {"half_size": True, "given": labels(3)}, classes=3),
    Case("transformer-xl", Event((5,), Support("nominal", 3), "sequence"), {"segment": 2, "memory": 2}),
    Case(
        "transformer-xl",
        Event((3, 2), BINARY, "sequence"),
        {"segment": 2, "memory": 1, "eval_memory": 3, "same_length": True, "clamp": 1, "given": labels(3)},
        classes=3,
    ),
    Case("transformer-xl", Event((2, 2, 2), ordinal(3)), {"segment": 3, "memory": 0, "dropout": 0.1}),
)
