"""Law cases of energy-based models."""

from __future__ import annotations

from unsup.core.event import BINARY, REAL, Event
from unsup.testing.cases import oracles
from unsup.testing.cases.case import MIXED, Case, ordinal, vector

CASES = (
    Case("dbm", vector(5)),
    Case("dbm", Event((1, 2, 3), BINARY), {"hidden": (8, 7, 6), "steps": 3, "chains": 16}),
    Case("dbm", vector(4), {"pretraining": 0.0, "centred": False}),
    Case("dbn", vector(5)),
    Case("dbn", Event((1, 2, 3), BINARY), {"hidden": (4, 5, 3), "chains": 16}),
    Case("dbn", vector(4), {"persistent": False, "steps": 2, "centred": False, "fine_tuning": 0.0}),
    Case("ebm", vector(2, REAL)),
    Case(
        "ebm",
        vector(2, REAL),
        {"start": "data", "regularizer": 0.1},
        exceptions={"gaussian-score": "the regularizer pulls energies to 0, away from those of the likelihood"},
    ),
    Case("ebm", vector(2, REAL), {"start": "noise"}),
    Case("ebm", Event((1, 4, 4), ordinal(17)), {"hidden": (4, 4)}),
    Case("ebm", MIXED),
    Case("rbm", vector(6), oracle=oracles.rbm),
    Case("rbm", vector(6), {"persistent": False, "steps": 2, "centred": False}, oracle=oracles.rbm),
    Case("rbm", Event((1, 2, 3), BINARY), {"hidden": 9, "steps": 3, "chains": 16}, oracle=oracles.rbm),
    Case("rbm", Event((1, 5, 5), BINARY), {"hidden": 5}),
    Case("score-matching", vector(2, REAL), {"method": "exact"}),
    Case("score-matching", vector(3, REAL), {"method": "sliced", "slices": 2}),
    Case(
        "score-matching",
        vector(2, REAL),
        {"sigma": 1.0},
        exceptions={"gaussian-score": "the score is that of data with noise of variance 1, −x/2"},
    ),
    Case("score-matching", Event((1, 4, 4), ordinal(17)), {"hidden": (4,), "sigma": 0.3}),
    Case("score-matching", MIXED, {"sigma": 0.3}),
)
