"""Law cases of classifiers that learn from few labels."""

from __future__ import annotations

from unsup.core.event import BINARY, REAL, Event
from unsup.testing.cases.case import WORDS, Case, ordinal, vector

TOGETHER = {"accumulation": "batch normalisation takes the statistics of a batch, and those of a part are others"}
HELD = TOGETHER | {"descent": "the prediction and the direction are held fixed in the gradient, and follow in the loss"}
_GREY = Event((1, 6, 6), ordinal(17), "image")
_THREE = {"classes": 3}

CASES: tuple[Case, ...] = tuple(
    Case(model, event, {**_THREE, **options}, classes=3, exceptions=HELD if model == "vat" else TOGETHER)
    for model, event, options in (
        ("supervised", vector(4), {}),
        ("supervised", WORDS, {}),
        ("supervised", _GREY, {"net": "wrn-28-2", "width": 0.1}),
        ("entropy-minimisation", vector(3, REAL), {}),
        ("entropy-minimisation", _GREY, {"consistency": 1.0, "noise": 0.2}),
        ("pseudo-label", vector(4), {}),
        ("pseudo-label", _GREY, {"threshold": 0.4, "start": 0.0, "end": 0.0}),
        ("vat", vector(3, REAL), {"epsilon": 0.3}),
        ("vat", _GREY, {"entropy": 1.0, "iterations": 2}),
        ("mean-teacher", vector(4), {}),
        ("mean-teacher", Event((3, 6, 6), BINARY), {}),
        ("mixmatch", vector(3, REAL), {}),
        ("mixmatch", _GREY, {"guesses": 1}),
        ("uda", vector(3, REAL), {"annealing": "log"}),
        ("uda", _GREY, {"threshold": 0.0}),
        ("fixmatch", vector(4), {}),
        ("fixmatch", _GREY, {"threshold": 0.4}),
    )
)
