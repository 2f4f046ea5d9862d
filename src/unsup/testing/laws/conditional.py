"""Laws of conditional models, with classes or other conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event
from unsup.core.model import CanSample, HasDensity, IsConditional, Model
from unsup.testing import grids, values
from unsup.testing.law import law, require
from unsup.testing.laws.densities import is_exact
from unsup.testing.subject import STRONG_NOISE, Subject
from unsup.testing.verbs import Answer, verbs

_SAMPLES = 4000
_EXAMPLES = 8
_ROUNDING = 1e-6  # tolerance for a prior in float32


def _is_conditional(model: Model) -> bool:
    return isinstance(model, IsConditional)


def _is_given(model: Model) -> bool:
    return isinstance(model, IsConditional) and model.given is not None


def _has_classes(model: Model) -> bool:
    return isinstance(model, IsConditional) and model.classes > 0


def _applies(model: Model) -> bool:
    return _has_classes(model) and is_exact(model) and grids.is_enumerable(values.event_of(model))


def _each_class(model: Model) -> Tensor:
    """log p(x | y) of every value and class: ``(classes, N)``."""
    assert isinstance(model, IsConditional)
    assert isinstance(model, HasDensity)
    each = torch.arange(model.classes, device=model.device)
    return torch.stack([values.log_table(model, given=y) for y in each.split(1)])


@law(
    "class-mixture",
    "p(x | y) sums to one for each class, and p(x) is a mixture of them: Σ p(y) p(x | y).",
    needs="classes and an exact likelihood on at most 65,536 values",
    applies=_applies,
)
def class_mixture(subject: Subject) -> None:
    model = subject.generic(noise=STRONG_NOISE)
    assert isinstance(model, IsConditional)
    assert isinstance(model, HasDensity)
    given = _each_class(model).exp()
    for y, total in enumerate(given.sum(1).tolist()):
        require(abs(total - 1) < 1e-8, f"p(x | {y}) sums to {total:.9g}")
    weights = _weights(given, values.log_table(model).exp())
    require(float(weights.min()) > -1e-6, f"p(x) gives a class the weight {float(weights.min()):.3g}")
    require(abs(float(weights.sum()) - 1) < 1e-6, f"the weights of the classes sum to {float(weights.sum()):.6g}")
    spread = float((given[0] - given[-1]).abs().sum())
    require(spread > 1e-6, "every class has the same distribution: the label is ignored")


def _weights(given: Tensor, joint: Tensor) -> Tensor:
    """The weights with which the distributions ``(K, N)`` mix to ``joint``."""
    weights = torch.linalg.lstsq(given.T, joint[:, None]).solution[:, 0]
    worst = float((given.T @ weights - joint).abs().max())
    require(worst < 1e-9, f"p(x) is not a mixture of the p(x | y): the error of the best weights is {worst:.2g}")
    return weights


@law(
    "class-prior",
    "p(y) are the frequencies (n_y + 1) / (N + K) of the labels that the model was prepared on, and p(x) and samples "
    "mix the classes by them.",
    needs="classes",
    applies=_has_classes,
)
def class_prior(subject: Subject) -> None:
    batch = _skewed(subject.batch)
    model = replace(subject, batch=batch).generic(noise=STRONG_NOISE)
    assert isinstance(model, IsConditional)
    assert batch.given is not None
    counts = batch.given.long().bincount(minlength=model.classes).double()
    expected = (counts + 1) / (len(batch) + model.classes)
    said = {"log_class_prior": model.log_class_prior().double().exp()}
    if _applies(model):
        assert isinstance(model, HasDensity)
        said["p(x) = Σ p(y) p(x | y)"] = _weights(_each_class(model).exp(), values.log_table(model).exp())
    for what, found in said.items():
        worst = float((found - expected).abs().max())
        told = [round(p, 4) for p in found.tolist()]
        require(
            worst < _ROUNDING, f"{what} has the class weights {told}; the smoothed frequencies are {expected.tolist()}"
        )
    drawn = model.draw_condition(_SAMPLES, subject.generator(1)).bincount(minlength=model.classes)
    require(grids.chi_square(drawn, expected) > grids.P_VALUE, f"classes are drawn {drawn.tolist()} times")
    if _applies(model) and isinstance(model, CanSample):
        own = values.draw(model, _SAMPLES, subject.generator(2))
        p_value = grids.chi_square(values.counted(model, *own), expected @ _each_class(model).exp())
        require(p_value > grids.P_VALUE, f"samples do not mix the classes by their frequencies (p = {p_value:.1g})")


def _skewed(batch: Batch) -> Batch:
    """Three examples of the first class for each example of another class."""
    assert batch.given is not None
    first = batch.given == batch.given[0]
    rows = torch.cat([first.nonzero()[:, 0].repeat(3), (~first).nonzero()[:, 0]])
    return batch.take(rows)


@law(
    "class-frequencies",
    "Samples of a class follow p(x | y) (chi-square).",
    needs="classes and an exact likelihood on at most 65,536 values",
    applies=lambda model: _applies(model) and isinstance(model, CanSample),
)
def class_frequencies(subject: Subject) -> None:
    model = subject.generic(noise=STRONG_NOISE)
    assert isinstance(model, IsConditional)
    assert isinstance(model, CanSample)
    probability = _each_class(model).exp()
    # All classes in one call, so that a sampler that mixes up the rows of the batch is detected.
    options: dict[str, Any] = {"given": torch.arange(model.classes, device=model.device).repeat(_SAMPLES)}
    x, lengths = values.draw(model, len(options["given"]), subject.generator(1), **options)
    for y in range(model.classes):
        own = options["given"] == y
        counts = values.counted(model, x[own], None if lengths is None else lengths[own])
        p_value = grids.chi_square(counts, probability[y])
        require(p_value > grids.P_VALUE, f"samples of class {y} do not follow p(x | {y}) (p = {p_value:.1g})")


@law(
    "conditions",
    "Conditions are used: a single condition equals one per example, different conditions give different results, and "
    "invalid conditions, a wrong number of them, and any condition for a model without one are refused.",
    needs="a model that may be conditioned",
    applies=_is_conditional,
)
def conditions(subject: Subject) -> None:
    model = subject.generic(noise=STRONG_NOISE)
    assert isinstance(model, IsConditional)
    x = subject.x(model)[:_EXAMPLES]
    if model.given is None:
        _refuses(model, x, torch.zeros(len(x), dtype=torch.int64), "a condition, though it was built without one")
        return
    assert subject.batch.given is not None
    own = subject.batch.given[: len(x)]
    one = own[:1]

    def asked(given: Tensor) -> dict[str, Answer]:
        with torch.no_grad():
            found = verbs(model, x, subject, given=given)
            return {name: verb() for name, verb in found.items() if not name.endswith("without a class")}

    several = asked(one.expand_as(own))
    for what, found in (("in a batch", asked(one)), ("alone", asked(one[0]))):
        for name, value in several.items():
            same = all(torch.equal(a, b) for a, b in zip(value, found[name], strict=True))
            require(same, f"{name} of one condition {what} differs from {name} of that condition for each example")
    for name, value in asked(own).items():
        if name in ("log_prob", "sample", "energy"):
            require(not torch.equal(value[0], several[name][0]), f"{name} does not depend on the condition")
    for what, wrong in _wrong_conditions(model.given, own):
        _refuses(model, x, wrong, what)


def _wrong_conditions(event: Event, own: Tensor) -> list[tuple[str, Tensor]]:
    wrong = [("too few conditions", own[:-1]), ("conditions of another shape", torch.stack([own, own], -1))]
    support = event.uniform
    if support is not None and support.is_discrete:
        high = own.long().clone()
        high[...] = support.low + support.levels
        wrong += [
            ("a condition above the highest level", high),
            ("a condition below the lowest level", high * 0 + support.low - 1),
        ]
    if own.is_floating_point():
        wrong.append(("a condition that is infinite", own * torch.inf))
        if not event.missing:
            wrong.append(("a condition that is NaN", own * torch.nan))
    return wrong


def _refuses(model: Model, x: Tensor, given: Tensor, what: str) -> None:
    calls: dict[str, Callable[[], Tensor]] = {}
    options: dict[str, Any] = {"given": given}
    if isinstance(model, HasDensity):
        calls["log_prob"] = lambda: model.log_prob(x, **options)
    if isinstance(model, CanSample):
        calls["sample"] = lambda: model.sample(len(x), **options)
    for name, call in calls.items():
        try:
            call()
        except (InputError, CapabilityError):
            continue
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            require(False, f"{name} with {what} raised {type(error).__name__}, not an InputError")
        require(False, f"{name} accepts {what} without an error")
