"""Laws of sampling: reproducible, in the support, and from the claimed density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import (
    CanComplete,
    CanSample,
    Factorises,
    HasDensity,
    HasLengths,
    Intervals,
    IsAutoregressive,
    IsConditional,
    IsFlow,
    KnowsMarginals,
    Model,
    SamplesAnyLength,
    has_ends,
    keyed_generator,
    knobs,
)
from unsup.testing import grids, values
from unsup.testing.law import LawViolation, law, require
from unsup.testing.laws.densities import deviations, is_bound, is_exact, log_masses
from unsup.testing.subject import GENERIC_NOISE, STRONG_NOISE, Subject, log_probs

_SAMPLES = 4000
_MOST_STATES_OF_A_BOUND = 512
_COOLER = 0.5
_CODES = 1000
_FEW = 8
_NODES, _BINS = 6401, 20


def _can_sample(model: Model) -> bool:
    return isinstance(model, CanSample)


def _is_oracle(model: Model) -> bool:
    return is_exact(model) and (grids.is_enumerable(values.event_of(model)) or grids.is_integrable(model.event))


def _has_temperature(model: Model) -> bool:
    return "temperature" in knobs(model)


@law(
    "same-seed",
    "The same generator gives the same samples, a different one different samples.",
    needs="sample",
    applies=_can_sample,
)
def same_seed(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, CanSample)
    generator, given = subject.generator(1), subject.one_given()
    first, second = (model.sample(32, generator=generator, **given) for _ in range(2))
    again, other = (model.sample(32, generator=subject.generator(key), **given) for key in (1, 2))
    require(torch.equal(first, again), "the same generator gave different samples")
    require(not torch.equal(first, second), "a generator gave the same samples twice: its state did not change")
    require(not torch.equal(first, other), "a different seed gave the same samples")


@law(
    "support",
    "Samples have the shape and type of the event and are in its support.",
    needs="sample",
    applies=_can_sample,
)
def support(subject: Subject) -> None:
    event = subject.model.event
    for dtype in (None, torch.float64):
        model = subject.generic(dtype=dtype)
        assert isinstance(model, CanSample)
        for n in (1, 256):
            x = model.sample(n, generator=subject.generator(n), **subject.one_given())
            expected = (n, *event.shape)
            require(tuple(x.shape) == expected, f"{n} samples have shape {tuple(x.shape)}, not {expected}")
            require(x.dtype == event.dtype, f"samples are {x.dtype}, not {event.dtype}")
            outside = int((~event.contains(x)).sum())
            require(outside == 0, f"{outside} of {n} samples are outside {event}")


@law(
    "entropy",
    "The mean of −log p over samples of the model is the entropy of p.",
    needs="sample and an exact likelihood on at most 65,536 values or 2 real numbers",
    applies=lambda model: _can_sample(model) and _is_oracle(model),
)
def entropy(subject: Subject) -> None:
    model, given = subject.generic(), subject.one_given()
    assert isinstance(model, CanSample)
    assert isinstance(model, HasDensity)
    masses = log_masses(subject)
    each = masses.log_mass.exp() * masses.log_p
    expected = -float(each.masked_fill(masses.log_mass == -torch.inf, 0.0).sum())
    own, lengths = values.draw(model, _SAMPLES, subject.generator(1), **given)
    found, error = grids.mean_and_error(-log_probs(model, _exactly(own), lengths=lengths, **given))
    # 1e-3 is the error of the quadrature, see the law "normalised".
    slack = grids.STANDARD_ERRORS * error + (0 if model.event.is_discrete else 1e-3 * (1 + abs(expected)))
    require(
        abs(found - expected) < slack, f"own samples give {found:.4f} ± {error:.4f} nats, the entropy is {expected:.4f}"
    )


def _exactly(x: Tensor) -> Tensor:
    """Real samples in the type in which laws compute."""
    return x.double() if x.is_floating_point() else x


@law(
    "moments",
    "First and second moments of samples are those of the density.",
    needs="sample and an exact density of at most 2 real numbers",
    applies=lambda model: _can_sample(model) and is_exact(model) and grids.is_integrable(model.event),
)
def moments(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, CanSample)
    assert isinstance(model, HasDensity)
    masses = log_masses(subject)
    centre, scale = subject.batch.x.double().nanmean(0), deviations(subject.batch.x)
    own = model.sample(_SAMPLES, generator=subject.generator(1), **subject.one_given()).double()

    def products(x: Tensor) -> Tensor:
        u = ((x - centre) / scale).flatten(1)
        return torch.cat([u, (u[:, :, None] * u[:, None, :]).flatten(1)], 1)

    expected = (masses.log_mass.exp()[:, None] * products(masses.x)).sum(0)
    found = products(own)
    error = found.std(0) / len(own) ** 0.5
    apart = ((found.mean(0) - expected).abs() - 2e-3 * (1 + expected.abs())) / error
    i = int(apart.argmax())
    require(
        float(apart[i]) < grids.STANDARD_ERRORS,
        f"moment {i} of (x, xxᵀ), x in units of the data, is {float(found.mean(0)[i]):.4f} ± {float(error[i]):.4f}, "
        f"that of the density is {float(expected[i]):.4f}",
    )


@law(
    "frequencies",
    "Frequencies of samples follow the probabilities (chi-square); a bound's may exceed it at the ends of the levels.",
    needs="sample and an exact likelihood on at most 65,536 values, or a bound on at most 512",
    applies=lambda model: (
        _can_sample(model)
        and (is_exact(model) or is_bound(model))
        and model.event.is_discrete
        and grids.states(values.event_of(model)) <= (grids.MOST_POINTS if is_exact(model) else _MOST_STATES_OF_A_BOUND)
    ),
)
def frequencies(subject: Subject) -> None:
    model = subject.generic(noise=STRONG_NOISE) if is_exact(subject.model) else subject.settled()
    assert isinstance(model, CanSample)
    assert isinstance(model, HasDensity)
    # A bound is more expensive per value, and its noise matters less with fewer samples.
    n = _SAMPLES if model.likelihood_kind == "exact" else _SAMPLES // 4
    probability = _probabilities(model, subject, n)
    counts = values.counted(model, *values.draw(model, n, subject.generator(2), **subject.one_given()))
    if model.likelihood_kind == "bound":
        # Noise on discrete data moves some mass beyond the first and last level, which sampling clamps to these levels:
        # there the bound is below the frequencies, so those values are pooled and get the missing mass.
        ends = _at_an_end(model.event)
        if float(probability.sum()) < 0.99:
            expected = n * probability
            shortfall = ((expected - counts) / expected.sqrt())[expected >= 5]
            worst = float(shortfall.max()) if len(shortfall) else 0.0
            require(worst < 6, f"a value is drawn less often than its bound says, by {worst:.1f} standard errors")
            counts = torch.cat([counts[~ends], counts[ends].sum()[None]])
            inner = probability[~ends]
            probability = torch.cat([inner, (1 - inner.sum())[None]])
    p_value = grids.chi_square(counts, probability)
    require(p_value > grids.P_VALUE, f"{n} samples do not follow the probabilities (p = {p_value:.1g})")


def _at_an_end(event: Event) -> Tensor:
    """Which values of the event have an ordinal or binary entry at its first or last level."""
    flat = grids.enumerate_event(event).flatten(1).long()
    low = torch.tensor([s.low for s in event.columns])
    high = low + torch.tensor([s.levels for s in event.columns]) - 1
    return ((flat == low) | (flat == high)).any(1)


def _probabilities(model: HasDensity, subject: Subject, n: int) -> Tensor:
    """p of every value; of a bound, exp of it, which is p up to noise.

    Noise of variance v in p adds n v / p to a chi-square over n samples. Importance samples are added until this is
    less than the standard deviation of the statistic, √(2N) for N values.
    """
    given = subject.one_given()
    if model.likelihood_kind == "exact":
        return values.log_table(model, **given).exp()
    x = grids.enumerate_event(subject.model.event).to(subject.model.device)
    for samples in (64, 256, 1024, 4096):
        runs = [
            log_probs(model, x, samples=samples, generator=subject.generator(1, r), **given).exp() for r in range(8)
        ]
        p, variance = torch.stack(runs).mean(0), torch.stack(runs).var(0) / len(runs)
        if float((n * variance / p).sum()) < (2 * len(x)) ** 0.5:
            return p
    raise LawViolation(f"the probabilities are uncertain with {samples} importance samples")


@law(
    "temperature",
    "Temperature 1 is plain sampling; lower ones change the draws, to more probable ones for exact models and flows.",
    needs="a sampling temperature and a likelihood",
    applies=lambda model: _has_temperature(model) and isinstance(model, HasDensity),
)
def temperature(subject: Subject) -> None:
    plainly = is_exact(subject.model) and subject.model.event.is_discrete
    model, given = subject.generic(noise=STRONG_NOISE if plainly else GENERIC_NOISE), subject.one_given()
    assert isinstance(model, HasDensity)
    assert isinstance(model, CanSample)
    plain, cold = (_at(model, subject, 512, temperature) for temperature in (1.0, 0.25))
    unasked = model.sample(512, generator=subject.generator(1), **given)
    require(torch.equal(plain[0], unasked), "temperature 1 gives different samples than no temperature")
    require(not torch.equal(plain[0], cold[0]), "temperature 0.25 gives the same samples as temperature 1")
    if not (is_exact(model) or isinstance(model, IsFlow)):
        return  # a lower temperature makes a latent code more probable, but not necessarily the example
    scores = [
        log_probs(model, _exactly(x), lengths=lengths, samples=8, generator=subject.generator(3), **given)
        for x, lengths in (plain, cold)
    ]
    (warm, a), (cool, b) = (grids.mean_and_error(s) for s in scores)
    require(
        cool - warm > 4 * (a * a + b * b) ** 0.5,
        f"mean log p is {cool:.4f} ± {b:.4f} at temperature 0.25 and {warm:.4f} ± {a:.4f} at 1",
    )


def _at(model: Model, subject: Subject, n: int, temperature: float) -> tuple[Tensor, Tensor | None]:
    assert isinstance(model, CanSample)
    return values.draw(model, n, subject.generator(1), temperature=temperature, **subject.one_given())


def _has_tempered_density(model: Model) -> bool:
    if not (_has_temperature(model) and is_exact(model)):
        return False
    if isinstance(model, IsFlow):
        return model.event.is_real
    return isinstance(model, Factorises) and grids.is_enumerable(values.event_of(model))


@law(
    "tempered",
    "At temperature T an autoregressive model draws each entry from p(x_d | x_<d)^(1/T) / Z_d (in each of its orders "
    "alike), another table of probabilities from p^(1/T) / Z, and the codes of a flow's samples are T times as wide.",
    needs="a sampling temperature, and a flow on real data or an exact product of at most 65,536 values",
    applies=_has_tempered_density,
)
def tempered(subject: Subject) -> None:
    model = subject.generic(noise=STRONG_NOISE if subject.model.event.is_discrete else GENERIC_NOISE)
    assert isinstance(model, HasDensity)
    tables = [] if isinstance(model, IsFlow) else _tables(model, subject)

    @torch.no_grad()
    def width(temperature: float) -> float:
        assert isinstance(model, IsFlow)
        told = subject.given(_CODES)
        x, _ = values.draw(model, _CODES, subject.generator(1), temperature=temperature, **told)
        z = model.base_scores(model.transform(_exactly(x), **told)[0])
        return float(z.square().mean().sqrt())

    usual = width(1.0) if isinstance(model, IsFlow) else 1.0
    for wanted in (_COOLER, 1 / _COOLER):
        if isinstance(model, IsFlow):
            found = width(wanted) / usual
            # A width of n Gaussian numbers has a relative error of 1 / √(2 n).
            require(
                abs(found / wanted - 1) < 6 / _CODES**0.5,
                f"at temperature {wanted:g} codes are {found:.3f} times as wide",
            )
            continue
        drawn = _at(model, subject, _SAMPLES, wanted)
        if not tables:
            return
        probability = _tempered(model, tables, wanted)
        counts = values.counted(model, *drawn)
        p_value = grids.chi_square(counts, probability)
        require(
            p_value > grids.P_VALUE, f"{_SAMPLES} samples at temperature {wanted:g} do not follow p (p = {p_value:.1g})"
        )


def _tables(model: HasDensity, subject: Subject) -> list[tuple[float, Tensor]]:
    """The weight and log p of every value of each part of the distribution that is sampled from as one product.

    Empty for a mixture of orders, where p is not sufficient.
    """
    if not isinstance(model, IsAutoregressive):
        return [(1.0, values.log_table(model, **subject.one_given()))]
    mixture = _mixture(model, subject)
    if len(model.orders) > len(mixture):
        return []
    return [(weight, values.log_table(model, **given)) for weight, given in mixture]


def _tempered(model: HasDensity, tables: list[tuple[float, Tensor]], temperature: float) -> Tensor:
    """The probability of every value at a temperature, from the result of `_tables`."""
    assert isinstance(model, Model)
    if not isinstance(model, IsAutoregressive):
        ((_, table),) = tables
        return (table / temperature).softmax(0)
    order = model.orders[0].argsort().tolist()
    levels = [s.levels for s in values.event_of(model).columns]
    total = torch.zeros(math.prod(levels), dtype=torch.float64, device=model.device)
    for weight, whole in tables:
        table = whole.view(levels).permute(order)  # axes in the order of generation
        log_q = torch.zeros_like(table)
        while table.ndim:
            marginal = table.logsumexp(-1, keepdim=True)
            possible = marginal > -math.inf  # something may follow an end in the table, but not in an example
            conditional = ((table - torch.where(possible, marginal, 0.0)) / temperature).log_softmax(-1)
            conditional = torch.where(possible, conditional, 0.0)
            log_q = log_q + conditional.view(*conditional.shape, *(1,) * (log_q.ndim - conditional.ndim))
            table = marginal.squeeze(-1)
        back = torch.tensor(order).argsort().tolist()
        total = total + weight * log_q.permute(back).reshape(-1).exp()
    return total


def _mixture(model: HasDensity, subject: Subject) -> list[tuple[float, dict[str, Any]]]:
    """The conditions in the mixture from which the model samples, with their weights."""
    if not (isinstance(model, IsConditional) and model.classes):
        return [(1.0, subject.one_given())]
    weights = model.log_class_prior().exp().tolist()
    return [(w, {"given": torch.tensor([y], device=subject.model.device)}) for y, w in enumerate(weights)]


@law(
    "completion",
    "Completion keeps known entries, ignores the values of unknown ones, and draws them from their conditional "
    "distribution.",
    needs="complete and an exact likelihood, with at most 65,536 values of the discrete entries",
    applies=lambda model: (
        isinstance(model, CanComplete) and is_exact(model) and grids.states(values.event_of(model)) <= grids.MOST_POINTS
    ),
)
def completion(subject: Subject) -> None:
    model = subject.generic(noise=STRONG_NOISE)
    assert isinstance(model, CanComplete)
    assert isinstance(model, HasDensity)
    event = model.event
    real = torch.tensor([not s.is_discrete for s in event.columns])
    if bool(real.any()):
        _real_follows_conditional(model, model, int(real.nonzero()[-1]), subject)
        if not bool(real.all()):
            _follows_conditional(model, model, real, "the real entries", subject)
        return
    position = (
        model.orders[0].cpu().argsort().argsort() if isinstance(model, IsAutoregressive) else torch.arange(event.dims)
    )
    scattered = torch.rand(event.dims, generator=keyed_generator(subject.seed, 1)) < 0.5
    _follows_conditional(model, model, position < event.dims // 2, "the first half", subject)
    try:
        _follows_conditional(model, model, scattered, "scattered entries", subject)
    except InputError:
        return  # a model may refuse to condition on later entries, but must not draw from another distribution


def _follows_conditional(model: CanComplete, density: HasDensity, known: Tensor, what: str, subject: Subject) -> None:
    """Draws of discrete entries given others, which include all real ones, by enumeration."""
    given = subject.one_given()
    x, drawn, mask = _completed(model, known, subject)
    event = values.event_of(subject.model)
    places = [d for d, s in enumerate(event.columns) if s.is_discrete]
    levels = Event((len(places),), tuple(event.columns[d] for d in places))
    combinations = grids.enumerate_event(levels).to(x.device)
    full = x.flatten(1).repeat(len(combinations), 1)
    full = full.long() if event.is_discrete else full
    full[:, places] = combinations.to(full.dtype)
    full = full.view(-1, *event.shape)
    agrees = (full == x)[:, mask].all(1)
    probability = torch.zeros(len(full), dtype=torch.float64, device=x.device)
    probability[agrees] = values.log_table(density, full[agrees], **given).exp()
    counts = grids.index_of(levels, drawn.flatten(1)[:, places]).bincount(minlength=len(full))
    p_value = grids.chi_square(counts, probability)
    require(p_value > grids.P_VALUE, f"given {what}, {_SAMPLES} completions do not follow p (p = {p_value:.1g})")


def _real_follows_conditional(model: CanComplete, density: HasDensity, place: int, subject: Subject) -> None:
    """Draws of one real entry given all others: its distribution function at them is uniform, by quadrature."""
    event, given = subject.model.event, subject.one_given()
    x, drawn, _ = _completed(model, torch.arange(event.dims) != place, subject)
    nodes = grids.grid(Event((1,), event.columns[place]), subject.batch.x.flatten(1)[:, place, None], _NODES)
    full = x.flatten(1).double().repeat(_NODES, 1)
    full[:, place] = nodes.x[:, 0]
    mass = (log_probs(density, full.view(-1, *event.shape), **given) + nodes.log_weight).exp()
    below = (mass.cumsum(0) - 0.5 * mass) / mass.sum()
    found = np.interp(drawn.flatten(1)[:, place].double().cpu(), full[:, place].cpu(), below.cpu())
    counts = torch.from_numpy((found * _BINS).clip(max=_BINS - 1)).long().bincount(minlength=_BINS)
    p_value = grids.chi_square(counts, torch.full((_BINS,), 1 / _BINS))
    require(
        p_value > grids.P_VALUE,
        f"given all other entries, {_SAMPLES} completions of entry {place} do not follow p (p = {p_value:.1g})",
    )


def _completed(model: CanComplete, known: Tensor, subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """An example without missing entries, completions of it, and its known entries, bool ``event.shape``.

    Completions are values of the table, where they may have an end.
    """
    event, given, x = subject.model.event, subject.one_given(), subject.batch.x
    if event.missing:
        x = torch.where(x.isnan(), event.lowest(x), x)
    x, other = x[:1], x[-1:]
    whole = x.expand(_SAMPLES, *event.shape)
    mask = known.to(x.device).view(event.shape)
    masks = mask.expand(_SAMPLES, *event.shape)
    drawn = model.complete(whole, masks, generator=subject.generator(2), **given)
    require(torch.equal(drawn[masks].to(x.dtype), whole[masks]), "completing changed entries that were known")
    require(bool(event.contains(drawn).all()), "completing gave values outside the support")
    few = torch.where(mask, x, other), x
    again, before = (
        model.complete(v.expand(_FEW, *event.shape), masks[:_FEW], generator=subject.generator(2), **given) for v in few
    )
    require(torch.equal(again, before), "completing depends on the values of unknown entries")
    if isinstance(model, HasLengths) and model.ends:
        with_lengths: Callable[..., tuple[Tensor, Tensor]] = model.complete_with_lengths
        same, lengths = with_lengths(whole, masks, generator=subject.generator(2), **given)
        require(torch.equal(same, drawn), "completing with lengths draws other examples")
        drawn = values.in_table(subject.model, drawn, lengths)
    return x, drawn, mask


@law(
    "marginals",
    "The distribution of an unknown entry given the known ones is that of the likelihood.",
    needs="marginals and an exact likelihood, with at most 65,536 values of the discrete entries",
    applies=lambda model: (
        isinstance(model, KnowsMarginals)
        and not has_ends(model)
        and is_exact(model)
        and grids.states(model.event) <= grids.MOST_POINTS
    ),
)
def marginals(subject: Subject) -> None:
    model = subject.generic(noise=STRONG_NOISE)
    assert isinstance(model, KnowsMarginals)
    assert isinstance(model, HasDensity)
    event, x = model.event, subject.batch.x
    if event.missing:
        x = torch.where(x.isnan(), event.lowest(x), x)
    real = torch.tensor([not s.is_discrete for s in event.columns])
    if not bool(real.all()):
        scattered = torch.rand(event.dims, generator=keyed_generator(subject.seed, 1)) < 0.5
        for known in (torch.zeros_like(scattered), scattered):
            _levels_are_sums(model, model, x[:1], known | real, subject)
    if bool(real.any()):
        _line_is_the_density(model, model, x, int(real.nonzero()[-1]), subject)


@torch.no_grad()
def _levels_are_sums(model: KnowsMarginals, density: HasDensity, x: Tensor, known: Tensor, subject: Subject) -> None:
    """Masses of levels given all known entries, which include the real ones, by enumeration."""
    event, given = subject.model.event, subject.one_given()
    places = [d for d, s in enumerate(event.columns) if s.is_discrete and not known[d]]
    if not places:
        return
    levels = Event((len(places),), tuple(event.columns[d] for d in places))
    cells = grids.enumerate_event(levels).to(x.device)
    full = x.flatten(1).repeat(len(cells), 1)
    full[:, places] = cells.to(full.dtype)
    p = log_probs(density, full.view(-1, *event.shape), **given).softmax(0)
    mask = known.to(x.device).view(1, *event.shape)
    found = {d: own for d, rows, own in cast(Any, model).marginals(x, mask, **given)}
    require(sorted(found) == places, f"marginals are of the entries {sorted(found)}, and {places} are unknown")
    for place, d in enumerate(places):
        support, own = event.columns[d], found[d]
        expected = p.new_zeros(support.levels).index_add_(0, cells[:, place].long() - support.low, p)
        if isinstance(own, Intervals):
            edges = torch.arange(support.levels + 1, dtype=torch.float64, device=x.device) - 0.5
            edges[0], edges[-1] = -torch.inf, torch.inf
            own = own.log_masses(edges[None])
        error = float((own.exp().squeeze(0) - expected).abs().max())
        require(error < 1e-8, f"the distribution of entry {d} differs from sums of the likelihood by {error:.2g}")


@torch.no_grad()
def _line_is_the_density(model: KnowsMarginals, density: HasDensity, x: Tensor, place: int, subject: Subject) -> None:
    """Masses of small intervals of one real entry given all others, up to a constant."""
    event, given = subject.model.event, subject.one_given()
    own_values = x.flatten(1)[:, place].double()
    width = 1e-5 * float(own_values.std() + 1e-3)
    edges = torch.stack([own_values - width, own_values + width], 1)
    mask = (torch.arange(event.dims, device=x.device) != place).view(1, *event.shape)
    ((entry, _, own),) = cast(Any, model).marginals(x[:1], mask, **given)
    require(entry == place and isinstance(own, Intervals), f"entry {place} is unknown, and has no distribution")
    assert isinstance(own, Intervals)
    masses = torch.cat([own.log_masses(edge[None])[:, 0] for edge in edges])
    full = x[:1].flatten(1).double().repeat(len(own_values), 1)
    full[:, place] = own_values
    difference = masses - log_probs(density, full.view(-1, *event.shape), **given)
    error = float((difference - difference.median()).abs().median())
    require(error < 1e-4, f"the density of entry {place} differs from the likelihood by {error:.2g} nats")


@law(
    "any-length",
    "Samples of another length are those of the same model of that length, and begin like samples of its own.",
    needs="a model that samples examples of any length",
    applies=lambda model: isinstance(model, SamplesAnyLength) and model.reason_against_length() is None,
)
def any_length(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, SamplesAnyLength)
    event, given = subject.model.event, subject.given(_FEW)
    own = model.sample(_FEW, generator=subject.generator(1), **given)
    for length in (1, 2 * event.shape[0] + 1):
        found = cast(Any, model).sample_long(_FEW, length, generator=subject.generator(1), **given)
        shape = (_FEW, length, *event.shape[1:])
        require(found.shape == shape, f"samples of length {length} have shape {tuple(found.shape)}; expected {shape}")
        require(found.dtype == event.dtype, f"samples of length {length} are {found.dtype}; expected {event.dtype}")
        both = min(length, event.shape[0])
        same = torch.equal(found[:, :both], own[:, :both])
        require(same, f"samples of length {length} begin unlike those of length {event.shape[0]}")
        longer = type(model)(replace(event, shape=shape[1:]), **model.config).to(model.device, model.dtype).eval()
        longer.load_state_dict(model.state_dict())
        again = cast(Any, longer).sample(_FEW, generator=subject.generator(1), **given)
        require(torch.equal(found, again), f"samples of length {length} differ from those of a model of that length")
