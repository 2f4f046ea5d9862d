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


@pytest.mark.parametrize("n", [2, 150, 200, 399, 401, 1000])
def test_what_is_usual_is_of_rows_from_the_whole_table(n: int) -> None:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen: list[torch.Tensor] = []

    class Kept(SingleModel):
        def surprisals(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x.abs()

        def scores(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 1].abs()

    model = unsup.create("histogram", Event((2,), REAL, precision="float64"))
    rank(Kept(model, typical_values(x)), x, [str(i) for i in range(n)], ["a", "b"], top=1)
    rows = (x[None] == seen[0][1:, None]).all(2).long().argmax(1)
    count = min(n, 200)
    assert len(rows) == count
    assert abs(int((rows < n // 2).sum()) - count / 2) <= 1
    assert int(rows.diff().max() if n > 1 else 0) - int(rows.diff().min()) <= 1
    assert n - int(rows[-1]) <= -(-n // count)


def test_a_column_in_other_units_changes_no_rank() -> None:
    x = factor_data()
    one = default_detector(Event((DIMS,), REAL, precision="float64"), x).scores(x)
    units = torch.tensor([1.0, 1e3, 1e-3, 7.0, 1.0, 0.5], dtype=torch.float64)
    other = default_detector(Event((DIMS,), REAL, precision="float64"), x * units).scores(x * units)
    assert torch.allclose(one, other - float(units.log().sum()), atol=1e-4)


def test_unordered_columns_are_scored_by_the_frequencies_of_their_values() -> None:
    x = torch.tensor([[0, 0]] * 60 + [[1, 0]] * 30 + [[0, 1]] * 8 + [[2, 2]] * 2)
    scores = default_detector(Event((2,), Support("nominal", 3)), x).scores(x)
    # −Σ_d log(frequency), where the histogram smooths the counts alike for every value of a column
    shares = [x[:, d].bincount(minlength=3).double() / len(x) for d in range(2)]
    expected = -sum(shares[d][x[:, d]].log() for d in range(2))
    assert torch.corrcoef(torch.stack([scores, expected]))[0, 1] > 0.99
    assert scores.round(decimals=9).unique().numel() == 4
    assert (scores.argsort(descending=True, stable=True)[:2] >= 98).all()


def test_a_mixed_table_is_scored_by_both_kinds_of_columns() -> None:
    """Two real columns that are nearly equal, but for one row, and a bit that is set in another row alone."""
    g = torch.Generator().manual_seed(0)
    a, bit = torch.randn(300, generator=g), torch.randint(0, 2, (300,), generator=g)
    x = torch.stack([a, a + 0.05 * torch.randn(300, generator=g), bit, torch.zeros(300)], 1)
    x[5, :2] = torch.tensor([1.5, -1.5])
    x[9, 3] = 1
    event = Event((4,), (REAL, REAL, *[Support("binary")] * 2))
    ranking, _ = rank(default_detector(event, x), x, [str(i) for i in range(300)], list("abcd"), top=15)
    assert ranking[0].row == 5
    assert 9 in {o.row for o in ranking[:3]}  # the other one is 3.4 deviations away in two columns
    causes = {o.row: o.entries for o in ranking}
    assert {e.column for e in causes[5][:2]} == {"a", "b"}
    assert causes[9][0].column == "d"


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
