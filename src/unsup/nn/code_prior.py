"""The prior of discrete codes: uniform, or another model of the registry that learns from the codes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import options_of
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import CanSample, ChooseEntry, CodesEntries, CodesInOrders, CodesSplitEntries, HasDensity
from unsup.core.part import Part
from unsup.core.registry import model_class
from unsup.nn.prior import built
from unsup.prob.distributions import at_least_float32


class CodePrior(nn.Module):
    """p(codes), or p(codes | given): uniform, or any model of discrete examples that scores and samples.

    A model learns by its own loss on the codes. These are integers, so that its loss moves nothing but the model.

    Args:
        part: the model; None is the uniform distribution. A frozen model stays in evaluation mode.
        event: event of the codes.
        given: event of a condition, with which the model is built, or None.
        owner: name for errors.

    Raises:
        InputError: as for `Prior`, or a model that has no condition.

    >>> from unsup.core.event import Support
    >>> prior = CodePrior(None, Event((5,), Support("nominal", 8)), owner="VQ-VAE")
    >>> round(float(prior.log_prob(torch.zeros(1, 5, dtype=torch.uint8)) / math.log(8)), 4)
    -5.0
    """

    like: Tensor

    def __init__(self, part: Part | None, event: Event, *, given: Event | None = None, owner: str) -> None:
        super().__init__()
        assert event.uniform is not None
        self.event, self.part, self.levels = event, part, event.uniform.levels
        if part is not None and given is not None:
            if "given" not in options_of(model_class(part.name)):
                raise InputError(f"{owner}: prior={part.name!r} takes no condition; expected a model with given=")
            part = replace(part, options={**part.options, "given": given})
        self.model = None if part is None else built(part, event, owner)
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def train(self, mode: bool = True) -> CodePrior:
        return super().train(mode and not (self.part is not None and self.part.frozen))

    def prepare(self, codes: Tensor, given: Tensor | None = None, *, generator: Generator) -> None:
        """Data-dependent initialisation with codes of training data; a trained model is already initialised."""
        if self.model is not None and self.part is not None and not (self.part.frozen or self.part.run):
            self.model.prepare(Batch(codes, given=given), generator=generator)

    def loss(self, codes: Tensor, batch: Batch, given: Tensor | None = None, *, generator: Generator | None) -> Tensor:
        """What the model minimises on codes ``(B, *event.shape)``, ``(B,)`` or ``()``; −log p without one.

        Args:
            batch: its time and weights are those of the codes.
        """
        if self.model is None or not self.model.training:
            return -self.log_prob(codes, given, generator=generator)
        own = Batch(codes, given=given, weight=batch.weight, time=batch.time)
        return self.model.loss(own, generator=generator)["loss"]

    def log_prob(
        self, codes: Tensor, given: Tensor | None = None, *, samples: int = 1, generator: Generator | None = None
    ) -> Tensor:
        """log p of codes, or the bound on it: ``(B, *event.shape)`` → ``(B,)``."""
        if self.model is None:
            return at_least_float32(self.like).new_full((len(codes),), -self.event.dims * math.log(self.levels))
        return cast(HasDensity, self.model).log_prob(codes, given=given, samples=samples, generator=generator)

    def sample(self, n: int, given: Tensor | None = None, *, generator: Generator | None) -> Tensor:
        """``n`` draws of the codes ``(n, *event.shape)``."""
        if self.model is None:
            found = random.integers(0, self.levels, (n, *self.event.shape), generator, like=self.like)
            return found.to(self.event.dtype)
        conditions = {} if given is None else {"given": given}
        return cast(CanSample, self.model).sample(n, generator=generator, **conditions)

    # --- entropy coding -------------------------------------------------------------------------------------------

    def reason_against_coding(self) -> str | None:
        """Why codes cannot be visited one by one, a clause; None if they can."""
        if self.model is None:
            return None
        if not isinstance(self.model, CodesEntries) or isinstance(self.model, CodesSplitEntries):
            return "has a prior that does not factorise into conditionals of single codes"
        if isinstance(self.model, CodesInOrders) and self.model.densities > 1:
            return "has a prior that is a mixture over orders"
        return self.model.reason_against_coding()

    def visit(self, n: int, choose: ChooseEntry, given: Tensor | None = None) -> None:
        """As `CodesEntries.visit`, of the codes of ``n`` examples."""
        if self.model is None:
            masses = at_least_float32(self.like).new_full((n, self.levels), -math.log(self.levels))
            for entry in range(self.event.dims):
                choose(entry, masses)
            return
        cast(CodesEntries, self.model).visit(n, choose, given=given)
