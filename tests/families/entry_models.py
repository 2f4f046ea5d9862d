"""Models that factorise over entries, at random parameters, and what their tests share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

import unsup
from unsup.core.batch import Batch
from unsup.core.event import Event
from unsup.core.model import IsConditional, Model


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(model: Any, deviation: float = 0.8, seed: int = 1) -> Any:
    """The same model in float64 at random parameters, which hide nothing, in evaluation mode."""
    noise = generator(seed)
    with torch.no_grad():
        for p in model.double().eval().parameters():
            p.copy_(deviation * torch.randn(p.shape, generator=noise, dtype=p.dtype))
    return model


def random_model(name: str, event: Event, seed: int = 0, deviation: float = 0.6, **options: Any) -> Any:
    """A float64 model with large random weights (and class prior), so that no conditional is near uniform."""
    model = shaken(unsup.create(name, event, preset="tiny", **options), deviation, seed)
    if isinstance(model, IsConditional) and model.classes:
        prior = torch.randn(model.classes, generator=generator(seed), dtype=torch.float64)
        model.log_prior.copy_(prior.log_softmax(0))
    return model


def every_example(event: Event) -> Tensor:
    support = event.uniform
    levels = range(support.low, support.low + support.levels)
    return torch.tensor(list(itertools.product(levels, repeat=event.dims))).view(-1, *event.shape)


def seen_by_jacobian(model: Any, draws: int = 4) -> Tensor:
    """[i, j]: whether conditional i moves with input j, at any of several random parameters and inputs."""
    event, seen = model.event, torch.zeros(model.event.dims, model.event.dims, dtype=torch.bool)
    for seed in range(draws):
        shaken(model, 0.6, seed)
        x = torch.rand(1, *event.shape, generator=generator(seed), dtype=torch.float64) * (event.uniform.levels - 1)
        jacobian = torch.autograd.functional.jacobian(model.conditionals, x + event.uniform.low, vectorize=True)
        seen |= (jacobian.reshape(event.dims, -1, event.dims) != 0).any(1)
    return seen


def bits(n: int, dims: int, seed: int = 0) -> Tensor:
    """Correlated binary rows."""
    z = torch.randn(n, dims, generator=generator(seed))
    return (z.cumsum(1) + 0.5 * z > 0).to(torch.uint8)


def maximise_likelihood(model: Model, x: Tensor, steps: int = 2000) -> None:
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=steps, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = model.loss(Batch(x))["loss"].mean()
        loss.backward()
        return loss

    optimizer.step(closure)


def frequencies_fit(drawn: Tensor, examples: Tensor, p: Tensor) -> bool:
    """χ² of how often each of ``examples`` was drawn against ``p``; examples expected less than 5 times are pooled."""
    counts = (drawn[:, None].long() == examples).flatten(2).all(2).sum(0).double()
    assert counts.sum() == len(drawn)
    assert counts[p == 0].sum() == 0
    expected, common = p * len(drawn), p * len(drawn) >= 5
    groups = [torch.cat([v[common], v[~common].sum().view(-1)]) for v in (counts, expected)]
    keep = groups[1] > 0
    return bool(chisquare(groups[0][keep], groups[1][keep]).pvalue > 1e-3)


@torch.no_grad()
def assert_steps_are_naive(model: Any, draw: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples, and completions from a middle on, are those of one full pass for each entry."""
    event = model.event
    cached = model.sample(5, generator=generator(3), **draw)
    assert torch.equal(cached, model.sample_naive(5, generator=generator(3), **draw))
    known = model.order.grid(torch.arange(event.dims).expand(5, -1) < event.dims // 2 + 1)
    cached = model.complete(cached, known, generator=generator(4), **draw)
    monkeypatch.setattr(model, "_steps", model._naive)
    assert torch.equal(cached, model.complete(cached, known, generator=generator(4), **draw))


def assert_each_drops_out(model: Any, x: Tensor, parts: Sequence[nn.Module]) -> None:
    """Each of these parts has noise in training of its own, from the generator of the loss, and none in evaluation."""

    def loss(seed: int) -> Tensor:
        return model.loss(Batch(x), generator=generator(seed))["loss"]

    torch.testing.assert_close(loss(1), -model.log_prob(x))
    model.train()
    for part in parts:
        for other in parts:
            other.train(other is part)
        assert torch.equal(loss(1), loss(1))
        assert not torch.equal(loss(1), loss(2))
