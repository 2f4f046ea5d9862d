"""Laws of energies, their normalisers, and their training."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.model import HasEnergy, HasNegatives, HasPartition, HasScore, Model
from unsup.testing import grids
from unsup.testing.law import law, require
from unsup.testing.laws.learning import by_gradient
from unsup.testing.subject import STRONG_NOISE, Subject, learn, mean_loss, perturb

_ROUNDING = 1e-8
_EXAMPLES = 16
_NEAREST = 6  # examples for training, out of all
_STEPS, _LONGER, _RATE = 60, 300, 1e-2
_GAUSSIAN_STEPS, _GAUSSIAN_RATE, _GAUSSIAN_ROWS, _GAUSSIAN_SLACK = 200, 3e-3, 256, 0.2
_MOST_GAUSSIAN_DIMS = 4


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
        require(held == error, f"the returned standard error is {error:.3g}, but the stored one is {held:.3g}")
        log_prob = torch.cat([model.log_prob(part).double() for part in values.split(4096)])
        worst = float((log_prob + energy + found).abs().max())
        require(worst < _ROUNDING * (1 + abs(expected)), f"log p differs from −E − log Z by {worst:.3g}")


@law(
    "partition-of-these-parameters",
    "After a change of the parameters, log p is refused or correct: a log Z of other parameters is never used.",
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
    require(abs(mass - 1) < _ROUNDING, f"after the parameters changed, the total mass is {mass:.6g}")


@law(
    "energies",
    "Energies are finite, one per example, and functions of the example alone; a wrong shape is an InputError.",
    needs="energy",
    applies=lambda model: isinstance(model, HasEnergy),
)
def energies(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, HasEnergy)
    x = subject.x(model)[:_EXAMPLES]
    given = subject.one_given()
    with torch.no_grad():
        together = model.energy(x, **given)
        require(together.shape == (len(x),), f"energy of {len(x)} examples has shape {tuple(together.shape)}")
        require(bool(together.isfinite().all()), "an energy is not finite")
        alone = torch.cat([model.energy(one[None], **given) for one in x])
    worst = float(((together - alone).abs() / (1 + alone.abs())).max())
    require(worst < 1e-9, f"E depends on the rest of the batch, by {worst:.2g} (relative)")
    for what, wrong in (("twice the width", torch.cat([x, x], -1)), ("no batch axis", x[0])):
        try:
            model.energy(wrong, **given)
        except InputError:
            continue
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            require(False, f"energy of x with {what} raised {type(error).__name__}, not an InputError")
        require(False, f"energy of x with {what} {tuple(wrong.shape)} was accepted without an error")


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
    given = subject.given(len(x))
    found = model.score(x, **given)
    require(found.shape == x.shape, f"the score of {tuple(x.shape)} has shape {tuple(found.shape)}")
    require(not found.requires_grad, "the score has a graph")
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model.energy(leaf, **given).sum(), leaf)
    size = 1 + float(gradient.abs().max())
    worst = float((found + gradient).abs().max())
    require(worst < _ROUNDING * size, f"the score differs from −∇E by {worst:.3g}")
    scale = subject.batch.x.double().std(0).clamp(min=1e-3)  # differences along a direction in units of the data
    direction = scale * torch.randn(x.shape, generator=subject.generator(1), dtype=x.dtype, device=x.device)
    with torch.no_grad():
        up, down = (model.energy(x + sign * 1e-5 * direction, **given) for sign in (1, -1))
    slope, claimed = (up - down) / 2e-5, -(found * direction).flatten(1).sum(1)
    apart = float(((slope - claimed).abs() / (1 + slope.abs())).max())
    require(apart < 1e-5, f"along a direction, E does not change as the score predicts, by {apart:.2g} (relative)")


@law(
    "contrast",
    f"Training on the {_NEAREST} examples nearest to each other lowers their energy below that of the others.",
    needs="energy, learned by gradients",
    applies=lambda model: isinstance(model, HasEnergy) and by_gradient(model),
)
def contrast(subject: Subject) -> None:
    model = subject.fresh().double()
    assert isinstance(model, HasEnergy)
    batch = subject.data(model)
    scaled = (batch.x.double() - batch.x.double().mean(0)) / batch.x.double().std(0).clamp(min=1e-3)
    distance = torch.cdist(scaled.flatten(1), scaled.flatten(1))
    centre = int(distance.topk(_NEAREST, largest=False).values.sum(1).argmin())
    order = distance[centre].argsort()
    near, far = order[:_NEAREST], order[_NEAREST:]
    few = batch.take(near.repeat(len(batch) // _NEAREST))

    def gap() -> float:
        with torch.no_grad():
            energy = model.eval().energy(batch.x, **subject.given(len(batch)))
        model.train()
        return float(energy[far].mean() - energy[near].mean())

    before = gap()
    learn(model, lambda step: few, _STEPS, _RATE, lambda step: subject.generator(6, step))
    after = gap()
    require(
        after > before + 0.01,
        f"the energy of the other examples was higher by {before:.4f} before and {after:.4f} after training",
    )


@law(
    "likelihood-rises",
    f"{_LONGER} steps on the data increase their mean log-likelihood.",
    needs="a partition function and at most 65,536 values, learned by gradients",
    applies=lambda model: _has_partition(model) and by_gradient(model),
)
def likelihood_rises(subject: Subject) -> None:
    model = subject.fresh().double()
    assert isinstance(model, HasPartition)
    batch, found = subject.data(model), []
    for steps in (0, _LONGER):
        learn(model, lambda step: batch, steps, _RATE, lambda step: subject.generator(6, step))
        with torch.no_grad():
            model.eval().estimate_log_partition(generator=subject.generator(1))
            found.append(float(model.log_prob(batch.x, **subject.given(len(batch))).mean()))
        model.train()
    require(found[1] > found[0] + 1e-3, f"the mean log-likelihood went from {found[0]:.4f} to {found[1]:.4f}")


@law(
    "negatives",
    "The gradient of the loss is that of the energy of the data minus that of the negatives (up to a declared "
    "``regularizer``, the mean of both squared), and the negatives differ from the data.",
    needs="a model that learns from negatives",
    applies=lambda model: isinstance(model, HasNegatives) and by_gradient(model),
)
def negatives(subject: Subject) -> None:
    start = subject.generic().train()
    batch = subject.data(start)
    model, twin = copy.deepcopy(start), copy.deepcopy(start)  # chains are updated
    assert isinstance(twin, HasNegatives)
    parameters = [p for p in model.parameters() if p.requires_grad]
    names = [name for name, p in model.named_parameters() if p.requires_grad]

    def gradient(value: Tensor, model: Model) -> list[Tensor]:
        own = [p for p in model.parameters() if p.requires_grad]
        return list(torch.autograd.grad(value, own, retain_graph=True, allow_unused=True, materialize_grads=True))

    terms = model.loss(batch, generator=subject.generator(1))
    found = gradient(mean_loss(terms), model)
    data, ends = twin.contrast(batch, generator=subject.generator(1))
    require(not torch.equal(data, ends), "the negatives are the data")
    # One call, as in the loss: weights that change with each call (spectral norms) are the same for both sides.
    of_data, of_ends = twin.point_energy(torch.cat([data, ends])).tensor_split([len(data)])
    expected = gradient(of_data.mean() - of_ends.mean(), twin)
    apart = [f - e for f, e in zip(found, expected, strict=True)]
    if "regularizer" in terms:
        squares = gradient((of_data.square().mean() + of_ends.square().mean()), twin)
        norm = sum(float(s.square().sum()) for s in squares)
        share = sum(float((a * s).sum()) for a, s in zip(apart, squares, strict=True)) / max(norm, 1e-300)
        require(share > -_ROUNDING, f"the regularizer has the weight {share:.4g}: it rewards large energies")
        apart = [a - share * s for a, s in zip(apart, squares, strict=True)]
    largest = max(float(e.abs().max()) for e in expected)
    worst = [float(a.abs().max()) / largest for a in apart]
    i = worst.index(max(worst))
    require(
        worst[i] < 1e-7,
        f"the loss's gradient in {names[i]} {tuple(parameters[i].shape)} differs from that of the energies' difference "
        f"by {worst[i]:.2g} of the largest",
    )


def _is_of_few_reals(model: Model) -> bool:
    return model.event.is_real and model.event.layout == "vector" and model.event.dims <= _MOST_GAUSSIAN_DIMS


@law(
    "gaussian-score",
    f"Trained on N(0, I), the score is −x: its regression on x keeps a slope of −1 within {_GAUSSIAN_SLACK}.",
    needs=f"a score of at most {_MOST_GAUSSIAN_DIMS} real entries, learned by gradients",
    applies=lambda model: isinstance(model, HasScore) and by_gradient(model) and _is_of_few_reals(model),
)
def gaussian_score(subject: Subject) -> None:
    x = torch.randn(4 * _GAUSSIAN_ROWS, subject.model.event.dims, generator=subject.generator(1), dtype=torch.float64)
    x = x.to(subject.batch.x.device)

    def rows(step: int) -> Batch:
        start = step % 4 * _GAUSSIAN_ROWS
        return Batch(x[start : start + _GAUSSIAN_ROWS], **subject.given(_GAUSSIAN_ROWS))

    model = subject.fresh(Batch(x, **subject.given(len(x)))).double()
    assert isinstance(model, HasScore)
    learn(model, rows, _GAUSSIAN_STEPS, _GAUSSIAN_RATE, lambda step: subject.generator(6, step))
    found = model.eval().score(x, **subject.given(len(x)))
    slope = float((found * x).sum() / x.square().sum())
    require(abs(slope + 1) < _GAUSSIAN_SLACK, f"the slope of the score is {slope:.3f}, but that of N(0, I) is −1")
