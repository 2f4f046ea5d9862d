"""Law cases of adversarial models."""

from __future__ import annotations

from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.testing.cases.case import MIXED, Case, ordinal, vector

CASES = (
    Case("cyclegan", Event((3, 8, 8), ordinal(256))),
    Case("cyclegan", Event((1, 8, 12), BINARY), {"identity": 0.0, "pool": 0}),
    Case(
        "cyclegan",
        Event((2, 8, 8), Support("ordinal", 5, low=-2)),
        {"widths": (6,), "critic_widths": (6,)},
    ),
    # Critics only: cycles with ten times their weight could hide a wrong sign.
    Case(
        "cyclegan",
        Event((1, 8, 8), BINARY),
        {"cycle": 0.0, "identity": 0.0, "pool": 0, "widths": (4,), "critic_widths": (4,)},
    ),
    Case("gan", vector(2, REAL)),
    Case("gan", vector(2, REAL), {"loss": "minimax", "smoothing": 0.1}),
    Case("gan", vector(4, REAL), {"loss": "wgan"}),
    Case("gan", vector(2, REAL), {"loss": "wgan-gp", "packing": 2}),
    Case("gan", vector(6), {"loss": "hinge", "critic_norm": "spectral"}),
    Case("gan", vector(3, ordinal(4)), {"critic_norm": "batch"}),
    Case("gan", MIXED, {"loss": "least-squares", "r1": 1.0, "packing": 2}),
    Case("gan", Event((1, 8, 8), ordinal(17))),
    Case(
        "gan",
        Event((2, 8, 9), REAL),
        {"net": "resnet", "loss": "hinge", "packing": 2},
        exceptions={"gradients": "the generator of SNGAN has biases that the following batch norm cancels"},
    ),
    Case("gan", Event((1, 9, 8), BINARY), {"net": "dcgan", "r1": 1.0}),
    Case("gan", vector(2, REAL), {"given": labels(3)}, classes=3),
    Case("gan", vector(2, REAL), {"loss": "wgan-gp", "packing": 2, "given": labels(3)}, classes=3),
    Case("gan", Event((1, 8, 8), BINARY), {"r1": 1.0, "given": labels(2)}, classes=2),
    Case("gan", vector(2, REAL), {"given": vector(3)}),
)
