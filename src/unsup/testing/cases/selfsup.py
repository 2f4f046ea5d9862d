"""Law cases of self-supervised models."""

from __future__ import annotations

from unsup.core.event import BINARY, Event, Support
from unsup.testing.cases.case import Case, ordinal

CASES: tuple[Case, ...] = (
    Case("colorization", Event((3, 5, 4), ordinal(256))),
    Case("colorization", Event((3, 5, 6), Support("ordinal", 5, low=-2)), {"halvings": 2, "layers": 2, "dilated": 0}),
    Case("colorization", Event((3, 4, 4), BINARY), {"uniform": 1.0}),
    Case("split-brain", Event((3, 5, 4), ordinal(256))),
    Case("split-brain", Event((3, 5, 6), BINARY), {"halvings": 2, "layers": 2, "dilated": 0}),
    Case("split-brain", Event((3, 17, 9), Support("ordinal", 5, low=-2)), {"net": "alexnet"}),
)
