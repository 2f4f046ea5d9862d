"""Laws of likelihoods: total mass, independence of the batch, valid bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unsup.core.event import Event
from unsup.core.model import HasDensity, HasLengths, LeavesOut, Model, has_ends
from unsup.testing import grids, values
from unsup.testing.law import law, require
from unsup.testing.subject import Subject, log_probs, mean_loss

_EXAMPLES = 32
_SETTLED = 1e-4  # change of a total mass from one grid to the next at which it is kept; it is at least its error
_FEW = 8
_DIRECTIONS = 3
_STEP = 1e-6  # of a central difference in float64
_SLOPE = 1e-4  # relative error of such a difference
_SURE = 0.02  # nats: the standard error of an expected loss
_MOST_REPEATS = 400


def is_exact(model: Model) -> bool:
    return isinstance(model, HasDensity) and model.likelihood_kind == "exact"


def is_bound(model: Model) -> bool:
    return isinstance(model, HasDensity) and model.likelihood_kind == "bound"


def has_all_mass(model: Model) -> bool:
    return isinstance(model, HasDensity) and model.mass_in_support


def has_likelihood(model: Model) -> bool:
    return isinstance(model, HasDensity) and model.likelihood_kind in ("exact", "bound")


@dataclass(frozen=True)
class Masses:
    """Points of the event, and a model's log p and the log of its mass at each: exact, or by a quadrature."""

    x: Tensor
    log_p: Tensor
    log_mass: Tensor


def log_masses(subject: Subject) -> Masses:
    """All values of the event, or nodes of a quadrature, in the generic model."""
    return subject.once("log_masses", lambda: _log_masses(subject))


def _log_masses(subject: Subject) -> Masses:
    model = subject.generic()
    assert isinstance(model, HasDensity)
    event, data, given = subject.model.event, subject.batch.x, subject.one_given()
    if event.is_discrete:
        table = values.log_table(model, **given)
        return Masses(grids.enumerate_event(values.event_of(subject.model)), table, table)
    nodes, total = grids.FIRST_NODES, math.inf
    found = grids.grid(event, data, nodes)
    log_p = log_probs(model, found.x, **given)
    while True:
        log_mass = found.log_weight + log_p
        previous, total = total, float(log_mass.exp().sum())
        finer = 2 * nodes - 1
        if abs(total - previous) < _SETTLED or grids.points(event, finer) > grids.MOST_NODES:
            return Masses(found.x, log_p, log_mass)
        known, matters = grids.refined(event, log_p, nodes), grids.around_mass(event, log_mass, nodes)
        found, nodes = grids.grid(event, data, finer), finer
        fresh = matters & known.isnan()
        log_p = known.masked_fill(~matters & known.isnan(), -math.inf)
        log_p[fresh] = log_probs(model, found.x[fresh], **given)


@law(
    "normalised",
    "Probabilities sum to one over all values; densities integrate to one.",
    needs="an exact likelihood on at most 65,536 values or 2 real numbers",
    applies=lambda model: (
        is_exact(model) and (grids.is_enumerable(values.event_of(model)) or grids.is_integrable(model.event))
    ),
)
def normalised(subject: Subject) -> None:
    total = float(log_masses(subject).log_mass.exp().sum())
    # Sums are exact to rounding. The finest grid is 0.0125 deviations wide in two dimensions and 4e-4 in one: a density
    # with kinks (ReLU) is integrated to about 0.0125² ≈ 2e-4, one with jumps (a histogram) to about 4e-4.
    tolerance = 1e-8 if subject.model.event.is_discrete else 1e-3
    require(abs(total - 1) <= tolerance, f"the total mass is {total:.9g}")


@law(
    "oracle",
    "log p agrees with an independent computation: a closed form, enumeration, another library.",
    needs="an oracle and an exact likelihood",
    applies=is_exact,
    provided=lambda subject: subject.oracle is not None,
)
def oracle(subject: Subject) -> None:
    assert subject.oracle is not None
    for draw in range(2):
        model = subject.generic(draw)
        assert isinstance(model, HasDensity)
        x = subject.x(model)
        with torch.no_grad():
            found, expected = model.log_prob(x).double(), subject.oracle(model, x, subject.batch).double()
        require(found.shape == expected.shape, f"log p has shape {tuple(found.shape)}, not {tuple(expected.shape)}")
        worst = (found - expected).abs() / (1 + expected.abs())
        i = int(worst.argmax())
        require(
            float(worst[i]) < 1e-8,
            f"log p of example {i} is {float(found[i]):.9f}, the oracle says {float(expected[i]):.9f}",
        )


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
        x = subject.x(model)[:_EXAMPLES]
        beside = subject.given(len(x)) | subject.lengths(len(x))
        together = model.log_prob(x, **beside)
        require(together.shape == (len(x),), f"log_prob of {len(x)} examples has shape {tuple(together.shape)}")
        rows = [{k: v[i : i + 1] for k, v in beside.items()} for i in range(len(x))]
        alone = torch.cat([model.log_prob(one[None], **row) for one, row in zip(x, rows, strict=True)])
    worst = float(((together - alone).abs() / (1 + alone.abs())).max())
    require(worst < 1e-9, f"log p depends on the rest of the batch, by {worst:.2g} (relative)")


@law(
    "left-out",
    "A training example is less likely if it is left out of training, and each alone is as in a batch.",
    needs="a model that leaves out examples, and an exact likelihood",
    applies=lambda model: isinstance(model, LeavesOut) and is_exact(model),
)
def left_out(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, LeavesOut)
    x = subject.x(model)[:_EXAMPLES]
    without = model.log_prob_without(x, x)
    with torch.no_grad():
        gain = model.log_prob(x) - without
    i = int(gain.argmin())
    require(float(gain[i]) > 0, f"log p of example {i} is {float(gain[i]):.3g} nats higher with itself than without")
    alone = torch.cat([model.log_prob_without(one[None], one[None]) for one in x])
    worst = float((alone - without).abs().max())
    require(worst < 1e-9, f"log p without an example depends on the rest of the batch, by {worst:.2g}")


def _has_lengths(model: Model) -> bool:
    return isinstance(model, HasLengths) and isinstance(model, HasDensity)


@law(
    "padding",
    "What is beyond the lengths of examples changes neither log p nor the loss nor a gradient.",
    needs="examples of different lengths",
    applies=lambda model: _has_lengths(model) and model.event.open,
    provided=lambda subject: subject.batch.lengths is not None,
)
def padding(subject: Subject) -> None:
    model, batch = subject.generic(), subject.batch
    assert isinstance(model, HasDensity)
    assert batch.lengths is not None
    beyond = model.event.padding(batch.lengths).view(len(batch), -1, *(1,) * (batch.x.ndim - 2))
    found = []
    for junk in (0.0, 255.0, math.nan):
        wide = torch.int64 if model.event.is_discrete and not math.isnan(junk) else torch.float64
        x = torch.where(beyond, torch.tensor(junk).to(wide), batch.x.to(wide))
        model.zero_grad()
        score = model.log_prob(x, lengths=batch.lengths, **subject.given(len(x)))
        loss = model.loss(replace(batch, x=x), generator=subject.generator(1))["loss"]
        loss.mean().backward()
        slopes = [torch.zeros(0) if p.grad is None else p.grad.flatten() for p in model.parameters()]
        found.append((score.detach(), loss.detach(), torch.cat(slopes)))
    for others in found[1:]:
        for what, one, other in zip(("log p", "the loss", "a gradient"), found[0], others, strict=True):
            gap = float((one - other).abs().max())
            require(gap < 1e-9, f"{what} depends on the padding, by {gap:.2g}")


@law(
    "beginnings",
    "Masses of the examples of each length sum to one if examples have no end; of examples of one length, p of a "
    "beginning is the sum over all its continuations.",
    needs="sequences without an end, with at most 65,536 values",
    applies=lambda model: (
        _has_lengths(model)
        and is_exact(model)
        and model.event.layout == "sequence"
        and not has_ends(model)
        and grids.is_enumerable(model.event)
    ),
)
def beginnings(subject: Subject) -> None:
    model, given, event = subject.generic(), subject.one_given(), subject.model.event
    assert isinstance(model, HasDensity)
    table = values.log_table(model, **given).exp()
    for length in range(event.shape[0]):
        x = values.beginnings(event, length).to(subject.model.device)
        p = log_probs(model, x, lengths=torch.full((len(x),), length, device=x.device), **given).exp()
        total = float(p.sum())
        require(abs(total - 1) < 1e-8, f"the masses of the examples of length {length} sum to {total:.9g}")
        gap = 0.0 if event.open else float((p - table.view(len(x), -1).sum(1)).abs().max())
        require(gap < 1e-8, f"p of a beginning of length {length} differs from that of all continuations by {gap:.2g}")


@law(
    "outside",
    "An example outside the support (beyond the levels, between them, NaN, infinite) has log p = −∞, does not affect "
    "other examples, and gradients are finite.",
    needs="a likelihood",
    applies=has_likelihood,
)
def outside(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, HasDensity)
    own = subject.batch.x[:4]
    given = subject.given(len(own))
    inside = [i for i in range(len(own)) if i != 1]

    def score(x: Tensor) -> Tensor:
        return model.log_prob(x, generator=subject.generator(1), **given)

    usual = {dtype: score(own.to(dtype)).detach() for dtype in (torch.int64, torch.float64) if _holds(own, dtype)}
    for column, value, what in _outsiders(model.event):
        dtype = torch.int64 if isinstance(value, int) and torch.int64 in usual else torch.float64
        x = own.to(dtype).flatten(1).clone()
        x[1, column] = value
        x = x.view(own.shape)
        if dtype == torch.float64:
            x.requires_grad_()
        model.zero_grad()
        try:
            found = score(x)
        except (RuntimeError, LookupError, ValueError) as error:
            require(False, f"{what} raised {type(error).__name__}: {str(error).splitlines()[0]}")
        require(float(found[1].detach()) == -math.inf, f"{what} has log p = {float(found[1].detach()):.6g}")
        apart = float((found.detach()[inside] - usual[dtype][inside]).abs().max())
        require(apart < 1e-9, f"{what} changes log p of the other examples, by {apart:.2g}")
        if found.requires_grad:
            found[inside].sum().backward()
            gradients = [p.grad for p in (x, *model.parameters()) if p.grad is not None]
            require(all(bool(g.isfinite().all()) for g in gradients), f"{what} in the batch: a gradient is not finite")


def _holds(x: Tensor, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or not x.is_floating_point()


def _outsiders(event: Event) -> Iterator[tuple[int, float, str]]:
    """For each kind of entry of the event: its first position, an invalid value, and a description."""
    columns = event.columns
    for support in dict.fromkeys(columns):
        column = columns.index(support)
        if support.is_discrete:
            yield column, support.low - 1, f"a value below the lowest level of {support}"
            yield column, support.low + support.levels, f"a value above the highest level of {support}"
            yield column, support.low + 0.5, f"a value between the levels of {support}"
        elif event.precision == "float32":
            yield column, 1e39, f"a number too large for float32 in {support}"
        if not event.missing:
            yield column, math.nan, f"NaN in {support}"
        yield column, math.inf, f"infinity in {support}"


@law(
    "gradient",
    "The gradient of log p with respect to parameters and real entries agrees with finite differences (fixed noise), "
    "and discrete entries have none; or the result has no graph.",
    needs="a likelihood",
    applies=has_likelihood,
)
def gradient(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, HasDensity)
    x = subject.batch.x[:_FEW]
    x = x.double() if x.is_floating_point() else x
    given = subject.given(len(x)) | subject.lengths(len(x))

    def score() -> Tensor:
        return model.log_prob(x, generator=subject.generator(1), **given).double().sum()

    moves: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    real = torch.tensor([not s.is_discrete for s in model.event.columns], device=x.device).view(model.event.shape)
    if bool(real.any()):
        moves["x"] = x.requires_grad_()
    found = score()
    if not found.requires_grad:
        return
    model.zero_grad()
    found.backward()
    said = {name: torch.zeros_like(t) if t.grad is None else t.grad.clone() for name, t in moves.items()}
    if "x" in said:
        level = float((said["x"] * ~real).abs().max())
        require(level == 0, f"log p has a gradient of {level:.3g} along a discrete entry")
    spread = real * deviations(subject.batch.x) if "x" in moves else torch.ones(())
    steepness_is_said("Σ log p", score, moves, said, subject, spread)


def deviations(x: Tensor) -> Tensor:
    """The standard deviation of each entry without missing ones, at least 1e-3: ``(N, …)`` → ``(…)``."""
    x = x.double()
    return (x - x.nanmean(0)).square().nanmean(0).sqrt().clamp(min=1e-3)


def steepness_is_said(
    what: str,
    function: Callable[[], Tensor],
    moves: Mapping[str, Tensor],
    said: Mapping[str, Tensor],
    subject: Subject,
    spread: Tensor | None = None,
) -> None:
    """Whether a number changes as predicted by its gradient, along random directions of all tensors together.

    The step of each tensor is relative to its size, or 1; that of examples, ``x``, is in units of their ``spread``.
    """

    def direction(name: str, *position: int) -> Tensor:
        tensor = moves[name].detach()
        noise = torch.randn(
            tensor.shape, generator=subject.generator(2, *position), dtype=tensor.dtype, device=tensor.device
        )
        size = spread if spread is not None and name == "x" else tensor.norm().clamp(min=1)
        return size * noise / noise.norm()

    # A step over a kink fails in one direction; a wrong gradient fails in all directions.
    off: dict[str, str] = {}
    for draw in range(_DIRECTIONS):
        directions = {name: direction(name, draw, i) for i, name in enumerate(moves)}
        parts = {name: float((said[name] * own).sum()) for name, own in directions.items()}
        size = sum(abs(part) for part in parts.values())

        def is_right(found: float, claimed: float, size: float = size) -> bool:
            return abs(found - claimed) <= _SLOPE * (abs(found) + size)

        if is_right(slope(function, moves, directions), sum(parts.values())):
            return
        rises = {name: slope(function, {name: moves[name]}, {name: own}) for name, own in directions.items()}
        wrong = {
            name: f"by {rises[name]:.6g} along a direction of {name}, its gradient says {parts[name]:.6g}"
            for name in moves
            if not is_right(rises[name], parts[name])
        }
        off = {name: told for name, told in wrong.items() if draw == 0 or name in off}
        if not off:
            return
    require(False, f"{what} increases {next(iter(off.values()))}")


@torch.no_grad()
def slope(function: Callable[[], Tensor], moves: Mapping[str, Tensor], directions: Mapping[str, Tensor]) -> float:
    """Central difference of a number along a direction of tensors that it is a function of."""
    kept, ends = {name: t.detach().clone() for name, t in moves.items()}, []
    for sign in (1, -1):
        for name, tensor in moves.items():
            tensor.copy_(kept[name] + sign * _STEP * directions[name])
        ends.append(float(function()))
    for name, tensor in moves.items():
        tensor.copy_(kept[name])
    return (ends[0] - ends[1]) / (2 * _STEP)


@law(
    "loss-is-likelihood",
    "In evaluation mode the loss is the mean of −log p or, for a bound, equal on average to the bound with the number "
    "of samples of the loss (the attribute ``samples``, else 1).",
    needs="an exact likelihood or a bound",
    applies=has_likelihood,
)
def loss_is_likelihood(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, HasDensity)
    batch = subject.data(model).take(slice(0, _EXAMPLES))
    samples = getattr(model, "samples", 1)
    # Training has conditions; without them, a loss may be the likelihood without conditions.
    lengths = subject.lengths(len(batch))
    told = [subject.given(len(batch))] + ([{}] if subject.given(1) and not subject.one_given() else [])

    @torch.no_grad()
    def gaps(*position: int) -> Tensor:
        loss = mean_loss(model.loss(batch, generator=subject.generator(*position))).double()
        scores = [
            model.log_prob(batch.x, samples=samples, generator=subject.generator(*position), **given, **lengths)
            .double()
            .mean()
            for given in told
        ]
        return loss + torch.stack(scores)

    if model.likelihood_kind == "exact":
        gap = float(gaps(1).abs().min())
        require(gap < 1e-8, f"the loss differs from the mean of −log p by {gap:.9g}")
        return
    found: list[Tensor] = []
    while len(found) < _MOST_REPEATS:
        found.append(gaps(1, len(found)))
        if len(found) % 50 == 0:
            measured = [grids.mean_and_error(values) for values in torch.stack(found).T]
            if all(error < _SURE for _, error in measured):
                break
    apart, error = min(measured, key=lambda found: abs(found[0]))
    require(
        abs(apart) < grids.STANDARD_ERRORS * error + 1e-8,
        f"on average the loss is {abs(apart):.4f} ± {error:.4f} nats {'above' if apart > 0 else 'below'} the bound "
        f"with {samples} samples",
    )


@law(
    "bound-rises",
    "The bound gets tighter with more importance samples.",
    needs="a bound that uses samples",
    applies=lambda model: is_bound(model) and isinstance(model, HasDensity) and model.uses_samples,
)
def bound_rises(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, HasDensity)
    x = subject.x(model)[:_EXAMPLES]
    given, found = subject.given(len(x)), {}
    for k, runs in ((1, 96), (4, 24), (16, 12)):
        many = x.repeat(runs, *(1,) * (x.ndim - 1))
        told = {name: c.repeat(runs, *(1,) * (c.ndim - 1)) for name, c in given.items()}
        each = log_probs(model, many, samples=k, generator=subject.generator(k), **told)
        found[k] = grids.mean_and_error(each.view(runs, -1).mean(1))  # of the runs: the error is that of the noise

    def rise(low: int, high: int) -> tuple[float, float]:
        return found[high][0] - found[low][0], math.hypot(found[high][1], found[low][1])

    for low, high in ((1, 4), (4, 16)):
        gain, error = rise(low, high)
        require(gain > -5 * error, f"from {low} to {high} samples the bound falls by {-gain:.4f} ± {error:.4f}")
    gain, error = rise(1, 16)
    require(gain > 3 * error, f"16 samples gain {gain:.4f} ± {error:.4f} nats over 1: more samples change nothing")


@law(
    "bound-mass",
    "The exponential of a bound has a total mass of at most one, for any number of samples.",
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
    needs="a bound on at most 4096 points, with all its mass on the support",
    applies=lambda model: is_bound(model) and grids.has_small_grid(model.event) and has_all_mass(model),
)
def bound_tight(subject: Subject) -> None:
    # exp of an importance-weighted bound is an unbiased estimate of p(x) for any number of samples.
    model = subject.settled()
    for samples in (32, 128, 512):
        mass, error = _total_mass(subject, model, samples)
        require(abs(mass - 1) < 6 * error + 1e-3, f"the mass is {mass:.4f} ± {error:.4f} with {samples} samples")
        if error < 0.03:
            return
    require(False, f"the mass is uncertain with 512 samples: {mass:.3f} ± {error:.3f}")


def _total_mass(subject: Subject, model: Model, samples: int) -> tuple[float, float]:
    """Σ exp(L_k) over the event, its mean over 12 draws of the noise and the standard error.

    The callers allow 6 standard errors (of Student's t with 11 degrees of freedom: 1e-4) and 1e-3 for the quadrature.
    """
    assert isinstance(model, HasDensity)
    found, given = grids.grid(model.event, subject.batch.x), subject.one_given()
    x, log_weight, rest = found.x, found.log_weight, 0.0
    sums = []
    for r in range(12):
        log_p = log_probs(model, x, samples=samples, generator=subject.generator(samples, r), **given)
        mass = (log_weight + log_p).exp()
        sums.append(mass.sum() + rest)
        if r == 0:  # nodes far from all mass are computed once
            some = mass > grids.LEAST_MASS
            x, log_weight, rest = x[some], log_weight[some], float(mass[~some].sum())
    return grids.mean_and_error(torch.stack(sums))
