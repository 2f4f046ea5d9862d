"""Laws of energies and of the normalisers that make them densities."""

from __future__ import annotations

import torch

from unsup.core.errors import CapabilityError, InputError
from unsup.core.model import HasEnergy, HasPartition, HasScore, Model
from unsup.testing import grids
from unsup.testing.law import law, require
from unsup.testing.subject import STRONG_NOISE, Subject, perturb

_ROUNDING = 1e-8
_EXAMPLES = 16


def _has_partition(model: Model) -> bool:
    return isinstance(model, HasPartition) and grids.is_enumerable(model.event)


def _energies(model: HasPartition, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.energy(part).double() for part in x.split(4096)])


@law(
    "partition",
    "log Z is the logarithm of the sum of exp(−E), within its standard error, and log p = −E − log Z.",
    needs="a partition function and at most 65,536 values",
    applies=_has_partition,
)
def partition(subject: Subject) -> None:
    model = subject.generic(noise=STRONG_NOISE)
    assert isinstance(model, HasPartition)
    values = grids.enumerate_event(model.event).to(model.device)
    with torch.no_grad():
        energy = _energies(model, values)
        expected = float((-energy).logsumexp(0))
        found, error = model.estimate_log_partition(generator=subject.generator(1))
        slack = grids.STANDARD_ERRORS * error + _ROUNDING * (1 + abs(expected))
        require(
            abs(found - expected) < slack, f"log Z is given as {found:.6f} ± {error:.2g}, the sum is {expected:.6f}"
        )
        held = model.log_partition_error
        require(held == error, f"the standard error was returned as {error:.3g} and is held as {held:.3g}")
        log_prob = torch.cat([model.log_prob(part).double() for part in values.split(4096)])
        worst = float((log_prob + energy + found).abs().max())
        require(worst < _ROUNDING * (1 + abs(expected)), f"log p differs from −E − log Z by {worst:.3g}")


@law(
    "partition-of-these-parameters",
    "Once the parameters have moved, log p is refused or right: a log Z of other parameters is never used.",
    needs="a partition function and at most 65,536 values",
    applies=_has_partition,
)
def partition_of_these_parameters(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, HasPartition)
    values = grids.enumerate_event(model.event).to(model.device)
    with torch.no_grad():
        model.estimate_log_partition(generator=subject.generator(1))
        perturb(model, subject.generator(2), STRONG_NOISE)
        try:
            log_prob = torch.cat([model.log_prob(part).double() for part in values.split(4096)])
        except CapabilityError:
            return
    mass = float(log_prob.exp().sum())
    require(abs(mass - 1) < _ROUNDING, f"after the parameters moved the total mass is {mass:.6g}")


@law(
    "energies",
    "Energies are finite, one an example, each a function of its example alone; another shape is an InputError.",
    needs="energy",
    applies=lambda model: isinstance(model, HasEnergy),
)
def energies(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, HasEnergy)
    x = subject.x(model)[:_EXAMPLES]
    with torch.no_grad():
        together = model.energy(x)
        require(together.shape == (len(x),), f"energy of {len(x)} examples has shape {tuple(together.shape)}")
        require(bool(together.isfinite().all()), "an energy is not finite")
        alone = torch.cat([model.energy(one[None]) for one in x])
    worst = float(((together - alone).abs() / (1 + alone.abs())).max())
    require(worst < 1e-9, f"E changes with the rest of the batch, by {worst:.2g} of its size")
    for what, wrong in (("twice the width", torch.cat([x, x], -1)), ("no batch axis", x[0])):
        try:
            model.energy(wrong)
        except InputError:
            continue
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            require(False, f"energy of x with {what} raised {type(error).__name__}, not an InputError")
        require(False, f"energy of x with {what} {tuple(wrong.shape)} was taken without a word")


@law(
    "score-is-gradient",
    "The score is −∇E per unit of raw data, by autograd and by finite differences of the energy.",
    needs="energy and gradient",
    applies=lambda model: isinstance(model, HasEnergy) and isinstance(model, HasScore),
)
def score_is_gradient(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, HasEnergy)
    assert isinstance(model, HasScore)
    x = subject.x(model)[:_EXAMPLES].double()
    found = model.score(x)
    require(found.shape == x.shape, f"the score of {tuple(x.shape)} has shape {tuple(found.shape)}")
    require(not found.requires_grad, "the score carries a graph")
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model.energy(leaf).sum(), leaf)
    size = 1 + float(gradient.abs().max())
    worst = float((found + gradient).abs().max())
    require(worst < _ROUNDING * size, f"the score differs from −∇E by {worst:.3g}")
    scale = subject.batch.x.double().std(0).clamp(min=1e-3)  # differences along a direction in units of the data
    direction = scale * torch.randn(x.shape, generator=subject.generator(1), dtype=x.dtype, device=x.device)
    with torch.no_grad():
        up, down = (model.energy(x + sign * 1e-5 * direction) for sign in (1, -1))
    slope, claimed = (up - down) / 2e-5, -(found * direction).flatten(1).sum(1)
    apart = float(((slope - claimed).abs() / (1 + slope.abs())).max())
    require(apart < 1e-5, f"along a direction E rises at another rate than the score says, by {apart:.2g} of it")
