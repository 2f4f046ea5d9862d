"""The model and data of one check, and the copies of them that laws may spoil."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.model import HasDensity, LearnsByCounting, Model, keyed_generator

GENERIC_NOISE = 0.1
STRONG_NOISE = 0.5  # makes the entries of small exact models depend on each other plainly

SETTLING_STEPS, SETTLING_RATE = 100, 1e-2


@dataclass(frozen=True)
class Subject:
    """What a law is given.

    Attributes:
        model: the caller's model: read it, never run it.
        batch: some examples of its data.
        seed: of every draw of the check.
    """

    model: Model
    batch: Batch
    seed: int

    def generator(self, *position: int) -> Generator:
        """The generator of one place in a law; the same place always gives the same noise."""
        return keyed_generator(self.seed, *position, device=self.model.device)

    def fresh(self) -> Model:
        """A new model of the same configuration, prepared on the data, in training mode."""
        model = rebuild(self.model, self.seed)
        model.prepare(self.batch, generator=self.generator(0))
        return model.train()

    def generic(
        self, draw: int = 0, *, dtype: torch.dtype | None = torch.float64, noise: float = GENERIC_NOISE
    ) -> Model:
        """A copy at generic parameters, in evaluation mode, in ``dtype`` (None: the model's own).

        Layers that start at zero and batch statistics that start at (0, 1) hide mistakes: parameters get seeded noise
        and a few training passes move the statistics. A model that learns by counting takes three passes instead,
        since what it holds (probabilities, covariances) is constrained.
        """
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
        return (model if dtype is None else model.to(dtype)).eval()

    def settled(self) -> Model:
        """A generic copy after some steps of training, where its objective has brought posterior and model together.

        Far from there importance weights can have infinite variance, and an average of them says nothing.
        """
        model = self.generic()
        if isinstance(model, LearnsByCounting) and model.passes:
            return model
        model.train()
        optimizer = torch.optim.Adam(model.parameters(), lr=SETTLING_RATE)
        for step in range(SETTLING_STEPS):
            optimizer.zero_grad()
            model.loss(self.batch, generator=self.generator(4, step))["loss"].backward()
            optimizer.step()
        return model.eval()

    def x(self, model: Model) -> Tensor:
        """The examples, in the model's floating type where they are real."""
        return self.batch.x.to(model.dtype) if self.batch.x.is_floating_point() else self.batch.x


def rebuild(model: Model, seed: int = 0) -> Model:
    """The same class, event and configuration with fresh parameters; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return type(model)(model.event, **model.config).to(device=model.device)


@torch.no_grad()
def perturb(model: Model, generator: Generator, scale: float = GENERIC_NOISE) -> None:
    """Add Gaussian noise to every parameter."""
    for p in model.parameters():
        p.add_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device))


@torch.no_grad()
def log_probs(model: HasDensity, x: Tensor, *, samples: int = 1, generator: Generator | None = None) -> Tensor:
    """`log_prob` in chunks that bound the memory, as float64."""
    chunk = max(1, 65536 // (samples * x[0].numel()))
    parts = [model.log_prob(part, samples=samples, generator=generator) for part in x.split(chunk)]
    return torch.cat(parts).double()


def same_state(one: Model, other: Model) -> str | None:
    """The name of the first tensor in which two models differ, or None."""
    a, b = one.state_dict(), other.state_dict()
    for name in sorted(set(a) | set(b)):
        if name not in a or name not in b or a[name].shape != b[name].shape or not torch.equal(a[name], b[name]):
            return name
    return None
