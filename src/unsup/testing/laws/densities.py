"""Laws of likelihoods: total mass, independence of the batch, bounds that are bounds."""

from __future__ import annotations

import math

import torch

from unsup.core.batch import Batch
from unsup.core.model import HasDensity, Model
from unsup.testing import grids
from unsup.testing.law import law, require
from unsup.testing.subject import Subject, log_probs

_REPEATS, _EXAMPLES = 12, 32


def is_exact(model: Model) -> bool:
    return isinstance(model, HasDensity) and model.likelihood_kind == "exact"


def is_bound(model: Model) -> bool:
    return isinstance(model, HasDensity) and model.likelihood_kind == "bound"


def log_masses(subject: Subject, model: HasDensity) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of the event and the log of the mass of each: exact, or by a quadrature that has converged."""
    event, data = subject.model.event, subject.batch.x
    if event.is_discrete:
        found = grids.grid(event, data)
        return found.x, log_probs(model, found.x)
    nodes, total = grids.FIRST_NODES, math.inf
    while True:
        found = grids.grid(event, data, nodes)
        log_mass = found.log_weight + log_probs(model, found.x)
        previous, total = total, float(log_mass.exp().sum())
        finer = 2 * nodes - 1
        if abs(total - previous) < 1e-5 or grids.points(event, finer) > grids.MOST_NODES:
            return found.x, log_mass
        nodes = finer


@law(
    "normalised",
    "Probabilities sum to one over all values; densities integrate to one.",
    needs="an exact likelihood on at most 65,536 values or 2 real numbers",
    applies=lambda model: is_exact(model) and (grids.is_enumerable(model.event) or grids.is_integrable(model.event)),
)
def normalised(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, HasDensity)
    _, log_mass = log_masses(subject, model)
    total = float(log_mass.exp().sum())
    # Sums are exact to rounding. The finest grid is 0.0125 deviations wide in two dimensions and 4e-4 in one: a density
    # with kinks (ReLU) is integrated to about 0.0125² ≈ 2e-4, one with jumps (a histogram) to about 4e-4.
    tolerance = 1e-8 if model.event.is_discrete else 1e-3
    require(abs(total - 1) <= tolerance, f"the total mass is {total:.9g}")


@law(
    "batch-independence",
    "log p of a batch is log p of each of its examples.",
    needs="an exact likelihood",
    applies=is_exact,
)
def batch_independence(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, HasDensity)
    with torch.no_grad():
        x = subject.x(model)
        together = model.log_prob(x)
        require(together.shape == (len(x),), f"log_prob of {len(x)} examples has shape {tuple(together.shape)}")
        alone = torch.cat([model.log_prob(one[None]) for one in x])
    worst = float(((together - alone).abs() / (1 + alone.abs())).max())
    require(worst < 1e-9, f"log p changes with the rest of the batch, by {worst:.2g} of its size")


@law(
    "loss-is-likelihood",
    "In evaluation mode the loss is the mean of −log p, or, for a bound, no less than the tighter bound.",
    needs="an exact likelihood or a bound",
    applies=lambda model: is_exact(model) or is_bound(model),
)
def loss_is_likelihood(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, HasDensity)
    x, label = subject.x(model)[:_EXAMPLES], subject.batch.label
    batch = Batch(x, None if label is None else label[:_EXAMPLES])
    with torch.no_grad():
        if model.likelihood_kind == "exact":
            loss, nats = float(model.loss(batch)["loss"]), float(-model.log_prob(x).mean())
            require(
                abs(loss - nats) < 1e-9 * max(1.0, abs(nats)), f"the loss is {loss:.9g}, the mean of −log p {nats:.9g}"
            )
            return
        losses, gaps = [], []
        for r in range(_REPEATS):
            loss = float(model.loss(batch, generator=subject.generator(1, r))["loss"])
            tight = -float(log_probs(model, x, samples=8, generator=subject.generator(2, r)).mean())
            losses.append(loss)
            gaps.append(loss - tight)
    gap, error = grids.mean_and_error(torch.tensor(gaps))
    require(
        gap > -grids.STANDARD_ERRORS * error,
        f"the loss {sum(losses) / len(losses):.4f} is {-gap:.4f} ± {error:.4f} below the bound that it should be above",
    )


@law(
    "bound-rises",
    "The bound gets tighter with more importance samples.",
    needs="a bound",
    applies=is_bound,
)
def bound_rises(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, HasDensity)
    x = subject.x(model)[:_EXAMPLES]
    found = {}
    for k, runs in ((1, 96), (4, 24), (16, 12)):
        means = [log_probs(model, x, samples=k, generator=subject.generator(k, r)).mean() for r in range(runs)]
        found[k] = grids.mean_and_error(torch.stack(means))  # of the runs, so that the error is that of the noise

    def rise(low: int, high: int) -> tuple[float, float]:
        return found[high][0] - found[low][0], math.hypot(found[high][1], found[low][1])

    for low, high in ((1, 4), (4, 16)):
        gain, error = rise(low, high)
        require(gain > -5 * error, f"from {low} to {high} samples the bound falls by {-gain:.4f} ± {error:.4f}")
    gain, error = rise(1, 16)
    require(gain > 3 * error, f"16 samples gain {gain:.4f} ± {error:.4f} nats over 1: more samples change nothing")


@law(
    "bound-mass",
    "The exponential of a bound has a total mass of at most one, however many samples it takes.",
    needs="a bound on at most 4096 points",
    applies=lambda model: is_bound(model) and grids.has_small_grid(model.event),
)
def bound_mass(subject: Subject) -> None:
    for samples in (1, 32):
        mass, error = _total_mass(subject, subject.generic(), samples)
        require(mass < 1 + 6 * error + 1e-3, f"the mass is {mass:.4f} ± {error:.4f} with {samples} samples")


@law(
    "bound-tight",
    "With enough samples the exponential of a bound has a total mass of one.",
    needs="a bound on at most 4096 points",
    applies=lambda model: is_bound(model) and grids.has_small_grid(model.event),
)
def bound_tight(subject: Subject) -> None:
    # exp of an importance-weighted bound is an unbiased estimate of p(x), so the number of samples needs no allowance.
    model = subject.settled()
    for samples in (32, 128, 512):
        mass, error = _total_mass(subject, model, samples)
        require(abs(mass - 1) < 6 * error + 1e-3, f"the mass is {mass:.4f} ± {error:.4f} with {samples} samples")
        if error < 0.03:
            return
    require(False, f"512 samples leave the mass uncertain: {mass:.3f} ± {error:.3f}")


def _total_mass(subject: Subject, model: Model, samples: int) -> tuple[float, float]:
    """Σ exp(L_k) over the event, its mean over 12 draws of the noise and the standard error.

    The callers allow 6 standard errors (of Student's t with 11 degrees of freedom: 1e-4) and 1e-3 for the quadrature.
    """
    assert isinstance(model, HasDensity)
    found = grids.grid(model.event, subject.batch.x)
    sums = []
    for r in range(12):
        log_p = log_probs(model, found.x, samples=samples, generator=subject.generator(samples, r))
        sums.append((found.log_weight + log_p).exp().sum())
    return grids.mean_and_error(torch.stack(sums))
