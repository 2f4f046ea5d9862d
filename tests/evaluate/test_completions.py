"""The progress of long completions and samples."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

import unsup
from unsup import Batch, Event, Support
from unsup.core.event import BINARY
from unsup.core.model import Model
from unsup.core.steps import heard_by
from unsup.evaluate.completions import complete_examples, fill_examples
from unsup.evaluate.samples import draw_samples

BITS = Event((6,), BINARY)
MODELS: dict[str, Callable[[], Model]] = {
    "rbm": lambda: unsup.create("rbm", BITS, seed=0, hidden=4, burn_in=3),
    "made": lambda: unsup.create("made", BITS, seed=0, hidden=(8,), masks=3, order="random"),
    "one mask": lambda: unsup.create("made", BITS, seed=0, hidden=(8,)),
    "nade": lambda: unsup.create("nade", BITS, seed=0, hidden=8, orderless=True, order="random", ensemble=3),
    "rnn": lambda: unsup.create("rnn", Event((6,), Support("nominal", 3), "sequence"), seed=0, width=4),
}


def heard(act: Callable[[], object]) -> list[float]:
    """The shares of the work that were told to be done."""
    shares: list[float] = []
    with heard_by(lambda done, total: shares.append(done / total)):
        act()
    return shares


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("way", ["draw", "mode", "sample"])
def test_progress_never_decreases(name: str, way: str) -> None:
    """It grows to one, without steps that are larger than those of a part, also where many draws are made."""
    model, n = MODELS[name](), 70  # of made: two parts
    x = torch.zeros(n, 6, dtype=model.event.dtype)
    known = (torch.arange(6) < 2).expand(n, 6)
    if way == "sample":
        shares = heard(lambda: draw_samples(model, n))
    elif way == "draw":
        shares = heard(lambda: complete_examples(model, Batch(x), known))
    else:
        shares = heard(lambda: fill_examples(model, Batch(x), known, "mode"))
    assert shares[-1] == pytest.approx(1)
    assert all(a < b for a, b in pairwise(shares))
    if way == "mode":
        assert len(shares) >= 300
        assert shares[0] < 0.01
