"""Laws of class-conditional models."""

from __future__ import annotations

import torch

from unsup.core.model import HasDensity, IsConditional, Model
from unsup.testing import grids
from unsup.testing.law import law, require
from unsup.testing.laws.densities import is_exact
from unsup.testing.subject import STRONG_NOISE, Subject, log_probs

_SAMPLES = 4000


def _applies(model: Model) -> bool:
    return (
        isinstance(model, IsConditional) and model.classes > 0 and is_exact(model) and grids.is_enumerable(model.event)
    )


def _given(model: IsConditional, x: torch.Tensor) -> torch.Tensor:
    """log p(x | y) of every value and class: ``(classes, N)``."""
    with torch.no_grad():
        labels = [torch.full((len(x),), y, dtype=torch.int64, device=x.device) for y in range(model.classes)]
        return torch.stack([model.log_prob_given(x, label).double() for label in labels])


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
    x = grids.enumerate_event(model.event).to(subject.model.device)
    given = _given(model, x).exp()
    for y, total in enumerate(given.sum(1).tolist()):
        require(abs(total - 1) < 1e-8, f"p(x | {y}) sums to {total:.9g}")
    joint = log_probs(model, x).exp()
    weights = torch.linalg.lstsq(given.T, joint[:, None]).solution[:, 0]
    worst = float((given.T @ weights - joint).abs().max())
    require(worst < 1e-9, f"p(x) is no mixture of the p(x | y): the best weights miss by {worst:.2g}")
    require(float(weights.min()) > -1e-6, f"p(x) gives a class the weight {float(weights.min()):.3g}")
    require(abs(float(weights.sum()) - 1) < 1e-6, f"the weights of the classes sum to {float(weights.sum()):.6g}")
    spread = float((given[0] - given[-1]).abs().sum())
    require(spread > 1e-6, "every class has the same distribution: the label is ignored")


@law(
    "class-frequencies",
    "Samples of a class follow p(x | y) (chi-square).",
    needs="classes and an exact likelihood on at most 65,536 values",
    applies=_applies,
)
def class_frequencies(subject: Subject) -> None:
    model = subject.generic(noise=STRONG_NOISE)
    assert isinstance(model, IsConditional)
    x = grids.enumerate_event(subject.model.event).to(subject.model.device)
    probability = _given(model, x).exp()
    # All classes in one call, so that a sampler which mixes up the rows of the batch is seen.
    label = torch.arange(model.classes, device=x.device).repeat(_SAMPLES)
    drawn = grids.index_of(subject.model.event, model.sample_given(label, generator=subject.generator(1)))
    for y in range(model.classes):
        p_value = grids.chi_square(drawn[label == y].bincount(minlength=len(x)), probability[y])
        require(p_value > grids.P_VALUE, f"samples of class {y} do not follow p(x | {y}) (p = {p_value:.1g})")
