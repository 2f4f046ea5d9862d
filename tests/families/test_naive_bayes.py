"""Naive Bayes: agreement with scikit-learn, sums over all examples, logistic regression, gaps, unseen levels."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB

import unsup
from unsup import Batch, Event, InputError, Support
from unsup.core.event import BINARY, REAL, labels
from unsup.data import Data, Split
from unsup.families.classical.naive_bayes import NaiveBayes

CLASSES, N = 3, 400
NOMINAL = Support("nominal", 4)
MIXED = Event((5,), (BINARY, NOMINAL, Support("ordinal", 5, low=-2), REAL, REAL))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(event: Event, n: int = N, *, gaps: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows whose columns depend on the class, and the classes."""
    y = torch.randint(CLASSES, (n,), generator=seeded(1)) * torch.randint(2, (n,), generator=seeded(2))
    columns = []
    for d, support in enumerate(event.columns):
        noise = torch.rand(n, generator=seeded(10 + d), dtype=torch.float64)
        if support.is_discrete:
            level = (noise ** (1 + y) * support.levels).floor().clamp(max=support.levels - 1)
            columns.append(level + support.low)
        else:
            columns.append(50 * d + (1 + y) * noise + y)
    x = torch.stack(columns, 1)
    if gaps:
        x[torch.rand(x.shape, generator=seeded(3)) < gaps] = math.nan
    return x.to(event.dtype), y


def fitted(event: Event, x: torch.Tensor, y: torch.Tensor | None, **options: Any) -> NaiveBayes:
    model = NaiveBayes(event, **({} if y is None else {"given": labels(CLASSES)}), **options)
    batch = Batch(x, given=y)
    model.prepare(batch, generator=seeded())
    model.maximize(model.statistics(batch))
    return model


def enumerated(event: Event) -> torch.Tensor:
    ranges = [range(s.low, s.low + s.levels) for s in event.columns]
    return torch.tensor(list(itertools.product(*ranges)), dtype=torch.int64)


def agrees(model: NaiveBayes, x: torch.Tensor, peer: Any, rows: np.ndarray) -> None:
    joint = (model.log_prob_each_class(Batch(x)) + model.log_class_prior()).numpy()
    np.testing.assert_allclose(joint, peer.predict_joint_log_proba(rows), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(model.predict_proba(x).numpy(), peer.predict_proba(rows), rtol=0, atol=1e-10)
    marginal = model.log_prob(x).numpy()
    np.testing.assert_allclose(marginal, np.logaddexp.reduce(joint, axis=1), rtol=1e-10)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 3.0])
def test_binary_columns_agree_with_bernoulli_nb(alpha: float) -> None:
    x, y = table(Event((7,), BINARY))
    model = fitted(Event((7,), BINARY), x, y, smoothing=alpha)
    peer = BernoulliNB(alpha=alpha, class_prior=model.log_class_prior().exp().numpy()).fit(x.numpy(), y.numpy())
    agrees(model, x, peer, x.numpy())


@pytest.mark.parametrize("alpha", [0.1, 1.0, 3.0])
def test_categories_agree_with_categorical_nb(alpha: float) -> None:
    event = Event((4,), (BINARY, NOMINAL, Support("ordinal", 7), Support("nominal", 3)))
    x, y = table(event)
    model = fitted(event, x, y, smoothing=alpha)
    prior = model.log_class_prior().exp().numpy()
    peer = CategoricalNB(alpha=alpha, class_prior=prior, min_categories=[2, 4, 7, 3]).fit(x.numpy(), y.numpy())
    agrees(model, x, peer, x.numpy())


def test_real_columns_agree_with_gaussian_nb_also_constant_ones() -> None:
    event = Event((4,), REAL, precision="float64")
    x, y = table(event)
    x = torch.cat([x[:, :2], 1e3 + x[:, 2:3], torch.full((N, 1), 7.0, dtype=torch.float64)], 1)
    model = fitted(event, x, y)
    peer = GaussianNB(priors=model.log_class_prior().exp().numpy()).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(model.variance.numpy(), peer.var_, rtol=1e-9)
    agrees(model, x, peer, x.numpy())


def test_variances_far_from_zero_keep_their_precision() -> None:
    x, y = table(Event((1,), REAL, precision="float64"))
    near, far = (fitted(Event((1,), REAL, precision="float64"), x + shift, y) for shift in (0.0, 1e8))
    torch.testing.assert_close(far.variance, near.variance, rtol=1e-6, atol=0)


def test_the_prior_is_counted_on_all_examples() -> None:
    x, y = table(MIXED)
    model = NaiveBayes(MIXED, given=labels(CLASSES))
    model.prepare(Batch(x[:10], given=y[:10]), generator=seeded())
    model.maximize(model.statistics(Batch(x, given=y)))
    expected = (y.bincount(minlength=CLASSES) + 1) / (N + CLASSES)
    torch.testing.assert_close(model.log_class_prior().exp(), expected.double(), rtol=1e-7, atol=0)


def test_mixed_columns_equal_a_loop() -> None:
    x, y = table(MIXED, gaps=0.2)
    event = Event((5,), MIXED.columns, missing=True)
    model = fitted(event, x.float(), y)
    got = model.log_prob_each_class(Batch(x.float()))
    for k in range(CLASSES):
        own = x.float()[y == k].double()
        total = torch.zeros(N, dtype=torch.float64)
        for d, support in enumerate(event.columns):
            values, asked = own[:, d][~own[:, d].isnan()], x.float()[:, d].double()
            if support.is_discrete:
                each = torch.tensor([(values == v + support.low).sum() + 1.0 for v in range(support.levels)])
                log_p = (each.double() / each.sum()).log()[(asked.nan_to_num(support.low) - support.low).long()]
            else:
                spread = max(float(x.float().double()[:, j][~x[:, j].isnan()].var(correction=0)) for j in (3, 4))
                variance = values.var(correction=0) + 1e-9 * spread
                log_p = torch.distributions.Normal(values.mean(), variance.sqrt()).log_prob(asked.nan_to_num())
            total += torch.where(asked.isnan(), 0.0, log_p)
        torch.testing.assert_close(got[:, k], total, rtol=1e-9, atol=1e-9)


def test_the_product_of_matrices_equals_the_sum_over_entries() -> None:
    x, y = table(Event((6,), BINARY))
    fast = fitted(Event((6,), BINARY), x, y)
    slow = fitted(Event((6,), Support("nominal", 2)), x, y)
    torch.testing.assert_close(fast.log_mass, slow.log_mass, rtol=0, atol=1e-13)
    torch.testing.assert_close(fast._log_each(x), slow._log_each(x), rtol=0, atol=1e-12)
    weight = torch.rand(N, generator=seeded(5))
    for name, value in fast.statistics(Batch(x, given=y, weight=weight)).items():
        other = slow.statistics(Batch(x, given=y, weight=weight))[name]
        torch.testing.assert_close(value, other, rtol=1e-12, atol=0)


def test_masses_of_all_examples_sum_to_one_in_every_class_and_with_gaps() -> None:
    event = Event((3,), (BINARY, NOMINAL, Support("ordinal", 3, low=4)))
    x, y = table(event)
    model, everything = fitted(event, x, y), enumerated(event)
    torch.testing.assert_close(model.log_prob_each_class(Batch(everything)).exp().sum(0), torch.ones(3).double())
    gapped = fitted(Event((3,), event.columns, missing=True), x.float(), y)
    joint = model.log_prob(everything)
    for v in range(4):
        row = torch.tensor([[math.nan, v, math.nan]])
        expected = joint[everything[:, 1] == v].logsumexp(0)
        torch.testing.assert_close(gapped.log_prob(row)[0], expected, rtol=0, atol=1e-12)


def test_two_classes_of_bits_are_a_logistic_regression() -> None:
    x, y = table(Event((5,), BINARY))
    keep = y < 2
    model = NaiveBayes(Event((5,), BINARY), given=labels(2))
    model.maximize(model.statistics(Batch(x[keep], given=y[keep])))
    theta = model.log_mass.view(2, 5, 2).exp()[..., 1]
    weights = (theta[1] / theta[0]).log() - ((1 - theta[1]) / (1 - theta[0])).log()
    prior = model.log_class_prior()
    bias = prior[1] - prior[0] + ((1 - theta[1]) / (1 - theta[0])).log().sum()
    everything = enumerated(Event((5,), BINARY))
    expected = (everything.double() @ weights + bias).sigmoid()
    torch.testing.assert_close(model.predict_proba(everything)[:, 1], expected, rtol=0, atol=1e-12)


def test_completions_follow_the_conditional_distribution() -> None:
    event = Event((3,), (BINARY, NOMINAL, Support("nominal", 3)))
    x, y = table(event)
    model, everything = fitted(event, x, y), enumerated(event)
    joint = model.log_prob(everything).exp()
    n = 20_000
    start, known = torch.tensor([[1, 2, 0]]).expand(n, -1), torch.tensor([[False, True, False]]).expand(n, -1)
    drawn = model.complete(start, known, generator=seeded(4))
    assert bool((drawn[:, 1] == 2).all())
    own = everything[:, 1] == 2
    for row, p in zip(everything[own], joint[own] / joint[own].sum(), strict=True):
        found = float((drawn == row).all(1).double().mean())
        assert abs(found - float(p)) < 5 * math.sqrt(float(p) / n)


def test_levels_and_classes_that_were_never_seen_are_defined() -> None:
    event = Event((2,), (NOMINAL, REAL))
    x, y = torch.tensor([[0.0, 1.0], [1.0, 2.0], [1.0, 4.0]]), torch.tensor([0, 1, 1])
    model = fitted(event, x, y)  # class 2 and the levels 2 and 3 are not in the data
    found = model.predict_proba(torch.tensor([[3.0, 2.0]]))
    assert bool(found.isfinite().all())
    torch.testing.assert_close(model.log_mass[2], torch.full((4,), 0.25).log().double())
    torch.testing.assert_close(model.mean[2], torch.tensor([7 / 3]).double())
    hard = fitted(event, x, y, smoothing=0.0)
    unseen = torch.tensor([[3.0, 2.0]])
    # The class without examples is the only one that allows the level.
    torch.testing.assert_close(hard.predict_proba(unseen), torch.tensor([[0.0, 0.0, 1.0]]).double())
    assert float(hard.log_prob(unseen, given=torch.tensor([0]))[0]) == -math.inf


def test_without_smoothing_impossible_examples_have_the_prior_and_complete_nothing() -> None:
    event, x, y = Event((2,), BINARY), torch.zeros(6, 2, dtype=torch.uint8), torch.tensor([0, 0, 0, 1, 1, 2])
    model = fitted(event, x, y, smoothing=0.0)
    odd = torch.ones(1, 2, dtype=torch.uint8)
    assert float(model.log_prob(odd)[0]) == -math.inf
    torch.testing.assert_close(model.predict_proba(odd)[0], model.log_class_prior().exp())
    with pytest.raises(InputError, match="probability 0"):
        model.complete(odd, torch.tensor([[True, False]]))


def test_constant_real_columns_have_a_finite_density() -> None:
    x, y = torch.full((9, 2), 3.0), torch.arange(9) % CLASSES
    model = fitted(Event((2,), REAL), x, y)
    assert bool(model.log_prob(x).isfinite().all())


def test_a_condition_that_is_not_a_class_is_refused() -> None:
    with pytest.raises(InputError, match="--label COLUMN --given label"):
        NaiveBayes(Event((2,), BINARY), given=Event((2,), REAL))


def test_a_fit_beats_the_rate_of_the_largest_class() -> None:
    x, y = table(Event((25,), BINARY), 900)

    def part(rows: slice) -> Split:
        return Split(x[rows], label=y[rows], given=y[rows])

    parts = [part(slice(*ends)) for ends in ((0, 500), (500, 700), (700, 900))]
    data = Data("rows", Event((25,), BINARY), *parts, given=labels(CLASSES))
    model = NaiveBayes(data.event, given=labels(CLASSES))
    unsup.fit(model, data, progress="off")
    found = (model.predict_proba(x[700:]).argmax(1) == y[700:]).double().mean()
    assert float(found) > float((y[700:] == 0).double().mean()) + 0.05
