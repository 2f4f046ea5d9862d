"""The model and data of one check, and copies that laws may modify."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch, Time
from unsup.core.model import (
    HasDensity,
    IsConditional,
    LearnsByCounting,
    Model,
    NeedsPartition,
    Objective,
    Terms,
    keyed_generator,
    playing_at,
    reduced,
)
from unsup.core.random import Rows

GENERIC_NOISE = 0.1
STRONG_NOISE = 0.5  # makes the entries of small exact models clearly dependent
SETTLING_STEPS, SETTLING_RATE = 100, 1e-2
MOST_KEPT = 2**22  # parameters; copies of larger models are made again for every law, to save memory

T = TypeVar("T")
Oracle = Callable[[Model, Tensor, Batch], Tensor]
"""Independent computation of log p(x) of a model (closed form, enumeration, another library), given its data."""


@dataclass(frozen=True)
class Subject:
    """The input of a law.

    Attributes:
        model: the model of the caller, which must not be run.
        batch: some examples of its data.
        seed: seed of all draws of the check.
        oracle: log p of models of this kind, if available.
    """

    model: Model
    batch: Batch
    seed: int
    oracle: Oracle | None = None
    _made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What ``make`` returns, made for the first law that needs it; laws must not change it."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found

    def generator(self, *position: int) -> Generator:
        """The generator for one place in a law; the same place always gives the same noise."""
        return keyed_generator(self.seed, *position, device=self.model.device)

    def fresh(self, batch: Batch | None = None) -> Model:
        """A new model with the same configuration, prepared on the data (or on ``batch``), in training mode."""
        model = rebuild(self.model, self.seed)
        model.prepare(self.batch if batch is None else batch, generator=self.generator(0))
        return model.train()

    def generic(
        self, draw: int = 0, *, dtype: torch.dtype | None = torch.float64, noise: float = GENERIC_NOISE
    ) -> Model:
        """A copy at generic parameters, in evaluation mode, in ``dtype`` (None: as the model).

        Layers initialised to zero and batch statistics initialised to (0, 1) hide errors: parameters get seeded noise,
        and a few training passes update the statistics. A model that learns by counting makes three passes instead,
        since its parameters (probabilities, covariances) are constrained.
        """
        if sum(p.numel() for p in self.model.parameters()) > MOST_KEPT:
            return self._generic(draw, dtype, noise)
        return copy.deepcopy(self.once((draw, dtype, noise), lambda: self._generic(draw, dtype, noise)))

    def _generic(self, draw: int, dtype: torch.dtype | None, noise: float) -> Model:
        # A model that incorrectly draws from the global generator gives the same copy to every law.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            model = copy.deepcopy(self.model).train()
            model.prepare(self.batch, generator=self.generator(draw, 0))
            if isinstance(model, LearnsByCounting) and model.passes:
                for _ in range(3):
                    model.maximize(model.statistics(self.batch, generator=self.generator(draw, 1)))
            else:
                perturb(model, self.generator(draw, 2), noise)
                with torch.no_grad():
                    for i in range(3):
                        model.loss(self.batch, generator=self.generator(draw, 3, i))
            return self.ready(model if dtype is None else model.to(dtype)).eval()

    def ready(self, model: Model) -> Model:
        """``model`` with log Z computed for its current parameters, if necessary."""
        if isinstance(model, NeedsPartition) and model.likelihood_kind == "estimate":
            model.estimate_log_partition(generator=self.generator(5))
        return model

    def settled(self) -> Model:
        """A generic copy after some training steps, so that posterior and model agree better.

        Otherwise importance weights can have infinite variance, and their average is meaningless.
        """
        return copy.deepcopy(self.once("settled", self._settled))

    def _settled(self) -> Model:
        model = self.generic()
        if learns_by_counting(model):
            return model
        learn(
            model.train(), lambda step: self.batch, SETTLING_STEPS, SETTLING_RATE, lambda step: self.generator(4, step)
        )
        return self.ready(model).eval()

    def x(self, model: Model) -> Tensor:
        """The examples; real entries have the floating type of the model."""
        return self.batch.x.to(model.dtype) if self.batch.x.is_floating_point() else self.batch.x

    def data(self, model: Model) -> Batch:
        """The batch with `x`."""
        return replace(self.batch, x=self.x(model))

    def given(self, n: int) -> dict[str, Any]:
        """``given=`` of ``n`` examples, those of the batch in turn, for conditional models; else empty."""
        if not (isinstance(self.model, IsConditional) and self.model.given is not None):
            return {}
        assert self.batch.given is not None
        return {"given": self.batch.given[torch.arange(n, device=self.batch.given.device) % len(self.batch)]}

    def lengths(self, n: int) -> dict[str, Any]:
        """``lengths=`` of the first ``n`` examples of the batch if they have lengths; else empty."""
        return {} if self.batch.lengths is None else {"lengths": self.batch.lengths[:n]}

    def one_given(self) -> dict[str, Any]:
        """The condition that makes the model *one* distribution: none if it sums over its classes."""
        if isinstance(self.model, IsConditional) and self.model.classes:
            return {}
        return self.given(1)


def learns_by_counting(model: Model) -> bool:
    return isinstance(model, LearnsByCounting) and model.passes > 0


def rebuild(model: Model, seed: int = 0) -> Model:
    """The same class, event and configuration with fresh parameters; the global generator is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return type(model)(model.event, **model.config).to(device=model.device)


@torch.no_grad()
def perturb(model: Model, generator: Generator, scale: float = GENERIC_NOISE) -> None:
    """Add Gaussian noise to every parameter."""
    for p in model.parameters():
        p.add_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device))


def play(model: Model, objective: Objective, batch: Batch, generator: Generator) -> Terms:
    """The terms of one player on a batch, after the players whose batch it joins, without gradient."""
    line = list(model.objectives())
    position = next(i for i, o in enumerate(line) if o.name == objective.name)
    batch = replace(batch, shared={})
    first = position
    while line[first].joins and first:
        first -= 1
    with torch.no_grad():
        for before in line[first:position]:
            before.loss(batch, generator=generator)
    return objective.loss(batch, generator=generator)


def mean_loss(terms: Terms) -> Tensor:
    """The minimised number."""
    return reduced({"loss": terms["loss"]})["loss"]


def learn(
    model: Model,
    batches: Callable[[int], Batch],
    steps: int,
    rate: float,
    noise: Callable[[int], Generator],
    *,
    players: Callable[[Objective], bool] = lambda objective: True,
) -> None:
    """Steps of Adam by every player, or by those of ``players``, as training takes them."""
    chosen = [o for o in model.objectives() if players(o)]
    optimizers = [torch.optim.Adam(o.parameters, lr=rate, fused=True) for o in chosen]
    for step in range(steps):
        time = Time(step, steps)
        generator = noise(step)
        batch = replace(batches(step), time=time)
        at = {o.name for o in playing_at(chosen, step, steps)}
        for objective, optimizer in zip(chosen, optimizers, strict=True):
            for _ in range(objective.repeats if step % objective.every == 0 and objective.name in at else 0):
                model.zero_grad()
                mean_loss(play(model, objective, batch, generator)).backward()
                optimizer.step()
                if objective.after is not None:
                    objective.after()
        model.after_step(time)
    model.zero_grad()


def part_of(batch: Batch, rows: Rows) -> Batch:
    """The local rows of a batch, and their share of every additional stream."""

    def cut(whole: Batch) -> Batch:
        start, end = (len(whole) * place // rows.total for place in (rows.start, rows.start + rows.count))
        return replace(whole, streams={}).take(slice(start, end))

    return replace(cut(batch), streams={k: cut(v) for k, v in batch.streams.items()})


@torch.no_grad()
def log_probs(
    model: HasDensity,
    x: Tensor,
    *,
    given: Tensor | None = None,
    lengths: Tensor | None = None,
    samples: int = 1,
    generator: Generator | None = None,
) -> Tensor:
    """`log_prob` in chunks that bound the memory, as float64."""
    chunk = max(1, 65536 // (samples * x[0].numel()))
    parts = []
    for start in range(0, len(x), chunk):
        rows = slice(start, start + chunk)
        own = given if given is None or len(given) == 1 else given[rows]
        size = {} if lengths is None else {"lengths": lengths[rows]}
        parts.append(model.log_prob(x[rows], given=own, **size, samples=samples, generator=generator))
    return torch.cat(parts).double()


def same_state(one: Model, other: Model) -> str | None:
    """The name of the first tensor in which two models differ, or None."""
    a, b = one.state_dict(), other.state_dict()
    for name in sorted(set(a) | set(b)):
        if name not in a or name not in b or a[name].shape != b[name].shape or not torch.equal(a[name], b[name]):
            return name
    return None
