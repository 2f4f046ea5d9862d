"""Outliers: the default detector, and which entries make a row odd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support
from unsup.core.model import keyed_generator
from unsup.evaluate.outliers import SingleModel, default_detector, rank, typical_values

DIMS = 6


def factor_data(n: int = 500, seed: int = 0) -> torch.Tensor:
    """Rows with two common factors: every column is told by the others, in units of its own."""
    g = np.random.default_rng(seed)
    x = g.normal(size=(n, 2)) @ g.normal(size=(2, DIMS)) + 0.1 * g.normal(size=(n, DIMS))
    return torch.tensor(x * np.geomspace(0.01, 100, DIMS))


def planted(x: torch.Tensor, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Twelve rows with one entry from elsewhere in its column: no value is unusual by itself."""
    g = np.random.default_rng(seed)
    rows, column = torch.arange(12), torch.tensor(g.integers(0, DIMS, 12))
    x = x.clone()
    x[rows, column] = x[torch.tensor(g.integers(100, len(x), 12)), column]
    return x, column


def test_conditional_surprisals_find_the_column_and_gradients_do_less_well() -> None:
    conditional, gradient = [], []
    for seed in range(4):
        x, column = planted(factor_data(seed=seed), seed)
        model = unsup.create("gaussian-mixture", Event((DIMS,), REAL, precision="float64"), seed=0)
        model.prepare(Batch(x), generator=keyed_generator(0))
        detector = SingleModel(model, typical_values(x))
        scores, surprisal = detector.scores(x), detector.surprisals(x)
        odd = scores[:12] > scores.quantile(0.97)  # a value from elsewhere may happen to fit
        rows = x[:12].clone().requires_grad_()
        (slope,) = torch.autograd.grad(model.log_prob(rows).sum(), rows)
        excess, blame = surprisal[:12] - surprisal.median(0).values, -slope * (x[:12] - x.median(0).values)
        conditional.append((excess.argmax(1) == column)[odd])
        gradient.append((blame.argmax(1) == column)[odd])
    found, by_gradients = torch.cat(conditional).double(), torch.cat(gradient).double()
    assert len(found) > 15
    assert float(found.mean()) > 0.85, (found.mean(), by_gradients.mean(), len(found))
    assert float(by_gradients.mean()) < float(found.mean()) - 0.2, (found.mean(), by_gradients.mean())


def test_the_default_finds_rows_and_their_columns() -> None:
    x = factor_data()
    x[7, 3] += 6 * x[:, 3].std()
    names = [f"row {i}" for i in range(len(x))]
    ranking, scores = rank(default_detector(Event((DIMS,), REAL), x), x, names, list("abcdef"), top=5)
    first = ranking[0]
    assert (first.rank, first.row, first.name, first.entries[0].column) == (1, 7, "row 7", "d")
    assert first.score == float(scores.max())
    assert [o.score for o in ranking] == sorted((float(s) for s in scores), reverse=True)[:5]
    assert first.entries[0].typical == pytest.approx(float(x[:, 3].median()))


def test_a_column_in_other_units_changes_no_rank() -> None:
    x = factor_data()
    one = default_detector(Event((DIMS,), REAL, precision="float64"), x).scores(x)
    units = torch.tensor([1.0, 1e3, 1e-3, 7.0, 1.0, 0.5], dtype=torch.float64)
    other = default_detector(Event((DIMS,), REAL, precision="float64"), x * units).scores(x * units)
    assert torch.allclose(one, other - float(units.log().sum()), atol=1e-4)


@pytest.mark.parametrize(
    "event", [Event((4,), Support("nominal", 3)), Event((4,), (REAL, REAL, *[Support("binary")] * 2))]
)
def test_other_columns(event) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (300, 4), generator=g).to(event.dtype)
    scores = default_detector(event, x).scores(x)
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("name", ["made", "histogram", "realnvp", "ebm"])
def test_any_model_says_which_entry_it_is(name) -> None:
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = unsup.create(name, Event((3,), REAL), seed=0, preset="tiny")
    unsup.fit(model, unsup.from_arrays(x.numpy()), progress="off", **({} if name == "histogram" else {"steps": 60}))
    x[5, 1] = 40.0
    detector = SingleModel(model.eval(), typical_values(x))
    surprisal = detector.surprisals(x[:20])
    assert surprisal.shape == (20, 3)
    assert int((surprisal[5] - surprisal.median(0).values).argmax()) == 1


def test_one_row_is_refused() -> None:
    with pytest.raises(InputError, match="two or more"):
        default_detector(Event((2,), REAL), torch.zeros(1, 2))
