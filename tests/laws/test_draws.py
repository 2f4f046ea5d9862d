"""A draw inside a loss that does not go through `unsup.core.random` is seen, whatever function makes it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unsup.core import random
from unsup.core.event import BINARY, Event
from unsup.families.autoregressive.made import MADE
from unsup.testing import check_model, examples
from unsup.testing.laws.sharing import BareDraw, NoBareDraws

EVENT = Event((5,), BINARY)
X = torch.rand(4, 3)
BARE = {
    "rand": lambda g: torch.rand(3, generator=g),
    "randn": lambda g: torch.randn(3, generator=g),
    "rand_like": lambda g: torch.rand_like(X),
    "randn_like": lambda g: torch.randn_like(X),
    "randint": lambda g: torch.randint(3, (2,), generator=g),
    "randperm": lambda g: torch.randperm(3, generator=g),
    "normal": lambda g: torch.normal(0.0, 1.0, (3,), generator=g),
    "bernoulli": lambda g: torch.bernoulli(X, generator=g),
    "multinomial": lambda g: X.multinomial(1, generator=g),
    "normal_": lambda g: torch.empty(3).normal_(generator=g),
    "uniform_": lambda g: torch.empty(3).uniform_(generator=g),
    "bernoulli_": lambda g: torch.empty(3).bernoulli_(0.5, generator=g),
    "exponential_": lambda g: torch.empty(3).exponential_(generator=g),
    "random_": lambda g: torch.empty(3).random_(generator=g),
    "dropout": lambda g: F.dropout(X, 0.5),
    "Dropout": lambda g: nn.Dropout(0.5)(X),
    "Dropout2d": lambda g: nn.Dropout2d(0.5)(X[None, None]),
    "distribution": lambda g: torch.distributions.Normal(0.0, 1.0).sample((3,)),
    "gumbel_softmax": lambda g: F.gumbel_softmax(X),
    "init": lambda g: nn.init.normal_(torch.empty(3)),
    "layer": lambda g: nn.Linear(3, 3),
}
KEPT = {
    "normal": lambda g: random.normal((4, 3), g, like=X),
    "uniform": lambda g: random.uniform((4, 3), g, like=X),
    "integers": lambda g: random.integers(0, 3, (4,), g, like=X),
    "bits": lambda g: random.bits(X, g),
    "permutation": lambda g: random.permutation(5, g, like=X),
    "dropout": lambda g: random.dropout(X, 0.5, g),
    "dropout of nothing": lambda g: F.dropout(X, 0.0),
    "dropout outside training": lambda g: nn.Dropout(0.5).eval()(X),
}


class Draws(MADE):
    draw = staticmethod(KEPT["normal"])

    def loss(self, batch, *, generator=None):
        type(self).draw(generator)
        return super().loss(batch)


@pytest.mark.parametrize("name", BARE)
def test_a_bare_draw_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Draws, "draw", staticmethod(BARE[name]))
    (outcome,) = check_model(Draws(EVENT, hidden=(8,)), examples(EVENT, 64), laws=["draws"]).outcomes
    assert outcome.status == "failed"
    assert "test_draws.py" in outcome.detail


@pytest.mark.parametrize("name", KEPT)
def test_draws_of_the_library_are_allowed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Draws, "draw", staticmethod(KEPT[name]))
    (outcome,) = check_model(Draws(EVENT, hidden=(8,)), examples(EVENT, 64), laws=["draws"]).outcomes
    assert outcome.status == "passed", outcome.detail


def test_the_guard_says_where() -> None:
    with pytest.raises(BareDraw, match=r"randn is called in .*test_draws\.py:\d+"), NoBareDraws():
        torch.randn(3)
