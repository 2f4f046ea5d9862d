"""Law cases of autoregressive models."""

from __future__ import annotations

from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.testing.cases import oracles
from unsup.testing.cases.case import GAPS, MIXED, WORDS, Case, ordinal, vector

DIRECT = {"direct": True}
PUT_FIRST = {"completion": "known entries are put first, which makes another order of the same network"}
ONE_ROW = {"base": 1, "blocks": 1}
NOTHING_ABOVE = {"gradients": "a grid of one row or one pixel has no pixels above or on the left"}
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
    Case("conditional-2d", vector(2, ordinal(7)), oracle=oracles.conditionals),
    Case("conditional-2d", vector(2), {"hidden": ()}, oracle=oracles.conditionals),
    Case("conditional-2d", vector(2, Support("nominal", 5)), {"given": labels(3)}, classes=3),
    Case("conditional-2d", vector(2, Support("ordinal", 4, low=-2)), {"given": vector(2, REAL)}),
    Case("fvsbn", vector(6), oracle=oracles.conditionals),
    Case("fvsbn", vector(3, Support("nominal", 4)), oracle=oracles.conditionals),
    Case("fvsbn", vector(2, ordinal(40)), oracle=oracles.conditionals),
    Case("fvsbn", Event((2, 2, 2), BINARY), {"given": labels(3)}, classes=3),
    Case("nade", vector(8), oracle=oracles.conditionals),
    Case("nade", vector(3, Support("nominal", 4)), {"order": "random"}, oracle=oracles.conditionals),
    Case("nade", vector(2, ordinal(40)), oracle=oracles.conditionals),
    Case("nade", vector(5), {"orderless": True, "layers": 2}, exceptions=PUT_FIRST, oracle=oracles.conditionals),
    Case("nade", vector(3, ordinal(3)), {"orderless": True, "ensemble": 3, "order": "random"}, exceptions=PUT_FIRST),
    Case(
        "parallel-multiscale",
        Event((1, 2, 4), BINARY),
        ONE_ROW,
        exceptions=NOTHING_ABOVE,
        oracle=oracles.conditionals,
    ),
    Case(
        "parallel-multiscale",
        Event((2, 2, 2), Support("nominal", 3)),
        {**ONE_ROW, "given": labels(2)},
        classes=2,
        exceptions=NOTHING_ABOVE,
    ),
    Case("parallel-multiscale", Event((1, 4, 4), ordinal(4)), {"base": 2, "blocks": 0}),
    Case("subscale", Event((1, 2, 4), BINARY), exceptions=NOTHING_ABOVE, oracle=oracles.conditionals),
    Case("subscale", Event((2, 4, 4), ordinal(3)), {"layers": 1}),
    Case("subscale", Event((1, 2, 3), Support("nominal", 3)), {"scale": 1, "given": labels(3)}, classes=3),
    Case("subscale-depth", Event((1, 2, 2), ordinal(8)), exceptions=NOTHING_ABOVE),
)
