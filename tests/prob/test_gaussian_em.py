"""EM on points in memory: every pass equals one of the model that learns from sums over any amount of data."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from unsup.core.batch import Batch
from unsup.core.errors import TrainingError
from unsup.core.event import REAL, Event
from unsup.core.model import keyed_generator
from unsup.families.classical.gaussian_mixture import GaussianMixture
from unsup.prob import gaussian_em as em


def rows(n: int = 300, dims: int = 3) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, dims, generator=g, dtype=torch.float64) @ torch.randn(dims, dims, generator=g).double()
    return x + 5 * torch.randint(0, 4, (n, 1), generator=g)


@pytest.mark.parametrize("structure", ["full", "tied", "diagonal"])
def test_a_pass_is_that_of_the_model(structure: em.Structure) -> None:
    x = rows()
    model = GaussianMixture(Event((3,), REAL, precision="float64"), covariance=structure, tolerance=0.0)
    model.scale(Batch(x), generator=keyed_generator(0))
    y = model.middle(x)
    points = em.Points(y, y.square(), -0.5 * y.square().sum(1, keepdim=True) / 9, model.spread, 1.0, 1e-6)
    nearest = torch.arange(300) % 4
    start = em.Fitted(
        structure, torch.arange(4), y[:1, 0], y[:4], y.new_zeros(1 if structure == "tied" else 4, 3), None
    )
    belongs = torch.nn.functional.one_hot(nearest, 5).double() * 0.99
    belongs[:, -1] = 0.01
    fit = em.maximize(points, start, belongs)
    for _ in range(3):
        with torch.no_grad():
            model._take(fit)
            sums = model.statistics(Batch(x))
            model.maximize(sums)
        # the model's own noise has its own constant
        noise = model.log_components(y)[:, -1:].detach()
        points = em.Points(y, y.square(), noise, model.spread, 1.0, 1e-6)
        found = em.expect(points, fit)
        assert_close(found.responsibility.sum(0)[:-1], sums["weight"][:4])
        fit = em.maximize(points, fit, found.responsibility)
        assert_close(fit.means, model.gaussians.means.detach()[:4])
        assert_close(
            fit.log_diagonal.expand(4, -1),
            model.gaussians.shared(model.gaussians.log_diagonal, model.used).detach()[:4],
        )
        assert_close(fit.log_weights, model.logits.detach().log_softmax(0)[[0, 1, 2, 3, -1]])


def test_many_numbers_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    y, means = torch.randn(40, 3, generator=g).double(), torch.randn(5, 3, generator=g).double()
    factors = torch.randn(5, 3, 3, generator=g).double().triu()
    weight = torch.rand(40, 5, generator=g).double() * (torch.rand(40, 5, generator=g) > 0.5)
    diagonal = factors.diagonal(dim1=1, dim2=2).abs().log()
    whole = em.log_normals(y, means, diagonal, factors), em.scatters(y, weight, means)
    brute = torch.stack([((y - m) @ u).square().sum(1) for m, u in zip(means, factors, strict=True)], 1)
    assert_close(whole[0], diagonal.sum(1) - 1.5 * torch.tensor(2 * torch.pi).double().log() - 0.5 * brute)
    centred = y[:, None] - means
    assert_close(whole[1], torch.einsum("nk,nki,nkj->kij", weight, centred, centred))
    monkeypatch.setattr(em, "_AT_ONCE", 2 * y.numel())
    assert_close(em.log_normals(y, means, diagonal, factors), whole[0])
    assert_close(em.scatters(y, weight, means), whole[1])


def test_a_component_without_examples_is_removed() -> None:
    y = rows()
    points = em.Points(y, y.square(), torch.zeros(300, 1).double(), torch.ones(3).double(), 1.0, 1e-6)
    start = em.Fitted("full", torch.arange(3), y[:1, 0], y[:3], y.new_zeros(3, 3), None)
    belongs = torch.zeros(300, 4).double()
    belongs[:, 0], belongs[:, 2], belongs[:, 3] = 0.5, 0.3, 0.2
    fit = em.maximize(points, start, belongs)
    assert fit.slots.tolist() == [0, 2]
    assert_close(fit.log_weights.exp(), torch.tensor([0.5, 0.3, 0.2]).double())
    assert len(em.maximize(points, fit, torch.tensor([0.0, 0.0, 1.0]).double().expand(300, 3)).means) == 0


def test_a_singular_matrix_is_refused() -> None:
    with pytest.raises(TrainingError, match="component 1 is singular with floor=0"):
        em.inverse_factors(torch.stack([torch.eye(2), torch.ones(2, 2)]), 0.0)
