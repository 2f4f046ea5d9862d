"""Laws of models that learn by counting or EM."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from unsup.core.model import HasDensity, IsConditional, LearnsByCounting, Model
from unsup.testing import grids
from unsup.testing.law import law, require
from unsup.testing.laws.densities import is_exact
from unsup.testing.subject import Subject, learns_by_counting, log_probs

_PASSES = 8
_MOST_PASSES, _STILL = 1000, 1e-8  # passes to a fixed point, and the tolerance of the parameters
_FLAT = 2e-3  # gradient at a fixed point, relative to the usual gradient of one example
_COPIES = 1e8  # multiple of the data for which smoothing is negligible
_ROUNDING = 1e-5


def _has_parameters(model: Model) -> bool:
    return learns_by_counting(model) and is_exact(model) and any(p.requires_grad for p in model.parameters())


def _has_margins(model: Model) -> bool:
    conditioned = isinstance(model, IsConditional) and model.given is not None
    countable = grids.is_enumerable(model.event) and not model.event.missing
    return learns_by_counting(model) and is_exact(model) and countable and not conditioned


@law(
    "additive-statistics",
    "The statistics of a batch are the sums of those of its parts, ``count`` is the number of examples, and an example "
    "of weight 2 counts as two.",
    needs="a model that learns by counting",
    applies=learns_by_counting,
)
def additive_statistics(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, LearnsByCounting)
    batch = subject.data(model)
    n = len(batch)
    # Parts are drawn from one generator in turn, so that uniform noise, if any, equals that of the whole.
    generator = subject.generator(1)
    parts = [model.statistics(batch.take(rows), generator=generator) for rows in (slice(0, n // 3), slice(n // 3, n))]
    whole = model.statistics(batch, generator=subject.generator(1))
    require(int(whole["count"]) == n, f"count is {float(whole['count'])} for {n} examples")
    for name, value in whole.items():
        total = sum((part[name].double() for part in parts), torch.zeros((), dtype=torch.float64))
        scale = max(1.0, float(value.double().abs().max()))
        worst = float((total - value.double()).abs().max()) / scale
        require(worst < 1e-9, f"{name} of the parts has a different sum, by {worst:.2g} (relative)")
    if not is_exact(model):
        return  # the two would have different noise
    weight = torch.arange(n, device=batch.x.device) % 3
    weighted = model.statistics(replace(batch, weight=weight.to(model.dtype)))
    repeated = batch.take(torch.arange(n, device=weight.device).repeat_interleave(weight))
    for name, value in model.statistics(repeated).items():
        worst = float((weighted[name].double() - value.double()).abs().max())
        require(worst < 1e-9 * max(1.0, float(value.double().abs().max())), f"{name} does not weight the examples")


@law(
    "margins",
    "A pass over a large amount of data reproduces the frequencies of every entry.",
    needs="a model that learns by counting, and an exact likelihood on at most 65,536 values",
    applies=_has_margins,
)
def margins(subject: Subject) -> None:
    model = subject.fresh().double().eval()
    assert isinstance(model, LearnsByCounting)
    assert isinstance(model, HasDensity)
    statistics = model.statistics(subject.data(model), generator=subject.generator(1))
    model.maximize({name: _COPIES * value for name, value in statistics.items()})
    x = grids.enumerate_event(subject.model.event).to(subject.model.device)
    p, data = log_probs(model, x).exp(), subject.batch.x.flatten(1)
    for d, support in enumerate(subject.model.event.columns):
        for level in range(support.low, support.low + support.levels):
            found = float(p[x.flatten(1)[:, d] == level].sum())
            expected = float((data[:, d] == level).double().mean())
            require(
                abs(found - expected) < _ROUNDING, f"p(x_{d} = {level}) is {found:.6f}, its frequency is {expected:.6f}"
            )


@law(
    "fixed-point",
    "At a fixed point of the passes, the gradient of the log-likelihood of the data (with the log-prior of the "
    "parameters) is zero.",
    needs="a model that learns by counting parameters, and an exact likelihood",
    applies=_has_parameters,
)
def fixed_point(subject: Subject) -> None:
    model = subject.fresh().double().eval()
    assert isinstance(model, LearnsByCounting)
    assert isinstance(model, HasDensity)
    batch, own = subject.data(model), [p for p in model.parameters() if p.requires_grad]
    for _ in range(_MOST_PASSES):
        before = [p.detach().clone() for p in own]
        with torch.no_grad():
            model.maximize(model.statistics(batch, generator=subject.generator(2)))
        moved = max(float((p.detach() - old).abs().max()) for p, old in zip(own, before, strict=True))
        if moved < _STILL:
            break
    scores = model.log_prob(batch.x, **subject.given(len(batch)), **subject.lengths(len(batch)))
    each = torch.stack([_flat_gradient(score, own) for score in scores])
    slope = each.mean(0) + _flat_gradient(model.parameter_log_prior(), own) / len(batch)
    usual = float(each.square().sum(1).mean().sqrt())
    require(
        float(slope.norm()) < _FLAT * usual,
        f"after the last pass the gradient of the log-likelihood is {float(slope.norm()) / usual:.2g} of an example's",
    )


def _flat_gradient(value: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    if not value.requires_grad:
        return torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64, device=parameters[0].device)
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten().double() for g in found])


@law(
    "ascent",
    "No pass over the data decreases the log-likelihood (with the log-prior of the parameters), and all passes "
    "together increase it.",
    needs="a model that learns by counting",
    applies=lambda model: learns_by_counting(model) and isinstance(model, HasDensity),
)
def ascent(subject: Subject) -> None:
    model = subject.fresh().double().eval()
    assert isinstance(model, LearnsByCounting)
    assert isinstance(model, HasDensity)
    batch = subject.data(model)

    def measure(statistics: dict[str, Tensor]) -> float:
        prior = float(model.parameter_log_prior().detach()) / len(batch)
        # EM increases the likelihood with its own noise, which only the statistics know.
        if "log_prob" in statistics:
            return float(statistics["log_prob"]) / len(batch) + prior
        given = subject.given(len(batch))
        return float(log_probs(model, batch.x, generator=subject.generator(1), **given).mean()) + prior

    history = []
    for _ in range(_PASSES):
        statistics = model.statistics(batch, generator=subject.generator(2))
        history.append(measure(statistics))
        model.maximize(statistics)
    history.append(measure(model.statistics(batch, generator=subject.generator(2))))
    for before, after in pairwise(history):
        require(
            after >= before - 1e-9 * max(1.0, abs(before)),
            f"a pass took the mean log-likelihood (and prior) from {before:.9f} to {after:.9f}",
        )
    require(history[-1] > history[0] + 1e-3, f"{_PASSES} passes took it from {history[0]:.6f} to {history[-1]:.6f}")
