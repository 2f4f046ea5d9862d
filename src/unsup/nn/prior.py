"""The prior of codes: N(0, I), or another model of the registry."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event
from unsup.core.model import (
    CanSample,
    ChooseEntry,
    CodesEntries,
    CodesInOrders,
    CodesSplitEntries,
    HasDensity,
    LearnsByCounting,
    Model,
    NeedsPartition,
    knobs,
)
from unsup.core.part import Part
from unsup.nn.flow import Flow
from unsup.nn.intervals import GaussianIntervals
from unsup.nn.invertible import Exact, Invertible
from unsup.prob.distributions import LOG_2PI, gaussian_log_prob

_COUNTS = 80.0  # nats below the largest weight, where a component changes no mass that a coder sees


class Prior(nn.Module):
    """p(z) of latents: N(0, I), or any model that scores and samples them.

    Args:
        part: the model; None is N(0, I), which supports real latents only. A frozen model stays in evaluation mode.
        event: event of the latents.
        owner: name for errors.

    Raises:
        InputError: the model has no likelihood that gives a bound on log p(x), cannot sample, or learns by counting
            and not by gradients.

    >>> from unsup.core.event import REAL
    >>> prior = Prior(Part("made", {"hidden": (8,)}), Event((2,), REAL), owner="VAE")
    >>> prior.log_prob(torch.zeros(3, 5, 2)).shape
    torch.Size([3, 5])
    """

    def __init__(self, part: Part | None, event: Event, *, owner: str) -> None:
        super().__init__()
        self.event, self.part = event, part
        self.model = None if part is None else built(part, event, owner)

    @property
    def is_standard(self) -> bool:
        """Whether it is N(0, I)."""
        return self.model is None

    def train(self, mode: bool = True) -> Prior:
        return super().train(mode and not (self.part is not None and self.part.frozen))

    def prepare(self, z: Tensor, *, generator: Generator) -> None:
        """Data-dependent initialisation with codes of training data; a trained model is already initialised."""
        if self.model is not None and self.part is not None and not (self.part.frozen or self.part.run):
            self.model.prepare(Batch(z), generator=generator)

    def log_prob(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        """log p(z), or the bound on it: ``(k, B, *event.shape)`` → ``(k, B)``."""
        if not isinstance(self.model, HasDensity):
            return -0.5 * ((z**2).flatten(2).sum(-1) + self.event.dims * LOG_2PI)
        if self.model.likelihood_kind == "exact":
            return self.model.log_prob(z.flatten(0, 1)).view(z.shape[:2])
        # The noise of a bound is drawn for B examples at a time, so that processes with shares of them draw alike.
        return torch.stack([self.model.log_prob(one, generator=generator) for one in z])

    def sample(self, n: int, *, generator: Generator | None, temperature: float, like: Tensor) -> Tensor:
        """``n`` codes ``(n, *event.shape)``; those of N(0, temperature² I) in the type of ``like``.

        Raises:
            CapabilityError: a temperature for a model that has none.
        """
        if not isinstance(self.model, CanSample):
            return temperature * random.normal((n, *self.event.shape), generator, like=like)
        if temperature == 1:
            return self.model.sample(n, generator=generator)
        if "temperature" not in knobs(self.model):
            raise CapabilityError(f"temperature={temperature:g}: {type(self.model).__name__}, the prior, has none")
        return self.model.sample(n, generator=generator, temperature=temperature)

    def reason_against_coding(self) -> str | None:
        """Why codes cannot be coded under p(z), a clause; None if they can."""
        model = self.model
        if model is None:
            return None
        if isinstance(model, HasDensity) and model.likelihood_kind != "exact":
            return "has a prior whose likelihood is a bound"
        if isinstance(model, Flow):
            return None if is_exact(model) else "has a prior with a step that has no exact form in integers"
        if not isinstance(model, CodesEntries) or isinstance(model, CodesSplitEntries):
            return "has a prior that is neither a flow nor a sequence of conditionals of single latents"
        if isinstance(model, CodesInOrders) and model.densities > 1:
            return "has a prior that is a mixture over orders"
        return model.reason_against_coding()

    @property
    def coded(self) -> Flow | CodesEntries | None:
        """The model as the coder uses it; None is N(0, I)."""
        assert self.reason_against_coding() is None
        return self.model if isinstance(self.model, (Flow, CodesEntries)) else None


def is_exact(model: Flow) -> bool:
    """Whether all steps of a flow are `Exact`."""
    return all(isinstance(step, Exact) for step in model.flow.modules() if isinstance(step, Invertible))


class EqualMixture(CodesEntries):
    """1/K Σ_k N(m_k, diag s_k²), for coding: p(z_d | z_<d) is a mixture with weights ∝ N(z_<d; m_k, s_k²).

    Args:
        means, log_stds: ``(K, L)``.
    """

    def __init__(self, means: Tensor, log_stds: Tensor) -> None:
        self.means, self.log_stds = means.double(), log_stds.double()

    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        """Components that no longer count for an example are left out: after a few latents, most of them."""
        log_joint = self.means.new_zeros(n, len(self.means))
        for entry, (mean, log_std) in enumerate(zip(self.means.T, self.log_stds.T, strict=True)):
            count = int((log_joint > log_joint.amax(1, keepdim=True) - _COUNTS).sum(1).max())
            weight, kept = log_joint.topk(count, 1)
            zero = mean.new_zeros(())
            value = choose(entry, GaussianIntervals(weight, mean[kept], log_std[kept], zero, zero + 1))
            log_joint = log_joint + gaussian_log_prob(value[:, None], mean, log_std)


def built(part: Part, event: Event, owner: str) -> Model:
    """The model of a part that is a prior on ``event``, after the checks that `Prior` lists."""
    model = part.build(event)
    if not isinstance(model, HasDensity) or not isinstance(model, CanSample) or isinstance(model, NeedsPartition):
        raise InputError(f"{owner}: prior={part.name!r} must support scoring and sampling, without log Z")
    if model.likelihood_kind not in ("exact", "bound"):
        raise InputError(
            f"{owner}: prior={part.name!r} has a likelihood of kind {model.likelihood_kind!r}, which does "
            "not give a bound on the outer likelihood; expected a model whose likelihood is exact or a bound"
        )
    if isinstance(model, LearnsByCounting) and model.passes and not part.frozen:
        raise InputError(
            f"{owner}: prior={part.name!r} learns by counting, but a part learns by gradients; choose "
            "the corresponding option (gaussian-mixture: learn='gradient'), or use a frozen trained run"
        )
    return model
