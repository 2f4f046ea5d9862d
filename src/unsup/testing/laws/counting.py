"""Laws of models that learn by counting or EM."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.model import HasDensity, LearnsByCounting, Model
from unsup.testing.law import law, require
from unsup.testing.subject import Subject, log_probs

_PASSES = 8


def _by_counting(model: Model) -> bool:
    return isinstance(model, LearnsByCounting) and model.passes > 0


def _part(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.x[rows], None if batch.label is None else batch.label[rows])


@law(
    "additive-statistics",
    "The statistics of a batch are the sums of those of its parts, and ``count`` is the number of examples.",
    needs="a model that learns by counting",
    applies=_by_counting,
)
def additive_statistics(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, LearnsByCounting)
    batch = Batch(subject.x(model), subject.batch.label)
    n = len(batch)
    # Parts are drawn from one generator in turn, so that uniform noise, where there is any, is that of the whole.
    generator = subject.generator(1)
    parts = [model.statistics(_part(batch, rows), generator=generator) for rows in (slice(0, n // 3), slice(n // 3, n))]
    whole = model.statistics(batch, generator=subject.generator(1))
    require(int(whole["count"]) == n, f"count is {float(whole['count'])} for {n} examples")
    for name, value in whole.items():
        total = sum((part[name].double() for part in parts), torch.zeros((), dtype=torch.float64))
        scale = max(1.0, float(value.double().abs().max()))
        worst = float((total - value.double()).abs().max()) / scale
        require(worst < 1e-9, f"{name} of the parts adds up to something else, by {worst:.2g} of its size")


@law(
    "ascent",
    "No pass over the data lowers what it maximises, the log-likelihood plus that of the parameters where they have a "
    "prior, and the passes together raise it.",
    needs="a model that learns by counting",
    applies=lambda model: _by_counting(model) and isinstance(model, HasDensity),
)
def ascent(subject: Subject) -> None:
    model = subject.fresh().double().eval()
    assert isinstance(model, LearnsByCounting)
    assert isinstance(model, HasDensity)
    batch = Batch(subject.x(model), subject.batch.label)

    def measure(statistics: dict[str, Tensor]) -> float:
        # EM ascends the likelihood of the very noise it was given, which only the statistics know.
        prior = float(model.log_prior()) / len(batch)
        if "log_prob" in statistics:
            return float(statistics["log_prob"]) / len(batch) + prior
        return float(log_probs(model, batch.x, generator=subject.generator(1)).mean()) + prior

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
