"""log Z by quadrature against closed forms, and the likelihoods it gives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import BINARY, REAL, Event
from unsup.core.model import HasEnergy, Model
from unsup.core.registry import create
from unsup.evaluate.likelihood import evaluate_likelihood, likelihood_of, log_probs
from unsup.evaluate.quadrature import find_partition, log_partition, with_likelihood


class Mixture(Model, HasEnergy):
    """−log of three unequal Gaussians' sum, not normalised, of one or two real numbers."""

    def __init__(self, event: Event, *, std: float = 1.0, away: float = 3.0, flat: bool = False) -> None:
        self.unused = nn.Parameter(torch.zeros(1))
        self.std, self.away, self.flat = std, away, flat

    def loss(self, batch, *, generator=None):
        raise NotImplementedError

    def energy(self, x: Tensor) -> Tensor:
        x = x.double().flatten(1)
        if self.flat:
            return x.square().sum(1).log1p() / 2
        squares = [((x - m * self.away) / self.std).square().sum(1) for m in (-1.0, 0.0, 1.0)]
        logs = [math.log(w) - 0.5 * s for w, s in zip((2.0, 3.0, 5.0), squares, strict=True)]
        return -torch.logsumexp(torch.stack(logs), 0)

    def true_log_z(self) -> float:
        return math.log(10) + self.event.dims * (0.5 * math.log(2 * math.pi) + math.log(self.std))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("dims", "std", "away"),
    [(1, 1.0, 3.0), (1, 0.01, 0.5), (1, 20.0, 0.0), (1, 300.0, 0.0), (2, 0.05, 0.5), (2, 1.0, 6.0)],
)
def test_log_z_is_the_closed_form_wherever_the_mass_lies(dims: int, std: float, away: float) -> None:
    model = Mixture(Event((dims,), REAL), std=std, away=away)
    data = 2 * torch.rand(100, dims, generator=seeded()) - 1  # the box has to grow to reach a mode at 6, or 300's tails
    found = find_partition(model, data)
    assert abs(found.log_z - model.true_log_z()) <= 1e-3
    assert found.error <= 1e-3


def test_a_box_is_integrated_as_it_is_given() -> None:
    model = Mixture(Event((1,), REAL), away=0.0)
    half = log_partition(model, torch.tensor([[0.0], [30.0]]), 3001)
    assert half == pytest.approx(model.true_log_z() - math.log(2), abs=1e-6)


def test_an_energy_without_a_finite_integral_is_refused() -> None:
    with pytest.raises(InputError, match="no finite integral"):
        find_partition(Mixture(Event((1,), REAL), flat=True), torch.randn(50, 1, generator=seeded()))


def test_what_has_no_grid_is_refused() -> None:
    for event in (Event((3,), REAL), Event((2,), BINARY)):
        with pytest.raises(CapabilityError, match="one or two real numbers"):
            find_partition(create("ebm", event, preset="tiny"), torch.zeros(4, *event.shape))


def test_the_likelihood_is_minus_the_energy_minus_log_z_and_says_that_it_is_an_estimate() -> None:
    event = Event((2,), REAL)
    model = Mixture(event).train()
    x = torch.randn(300, 2, generator=seeded(), dtype=torch.float64)
    found = with_likelihood(model, x)
    assert model.training
    expected = -model.energy(x) - model.true_log_z()
    torch.testing.assert_close(log_probs(found, x), expected, rtol=0, atol=1e-3)
    likelihood = likelihood_of(found, log_probs(found, x))
    assert (likelihood.kind, likelihood.dims) == ("estimate", 2)
    assert evaluate_likelihood(found, x).nats == pytest.approx(-float(expected.mean()), abs=1e-3)


def test_models_with_a_density_or_without_a_grid_are_handed_back() -> None:
    plane, bits = Event((2,), REAL), Event((4,), BINARY)
    for model in (create("realnvp", plane, preset="tiny"), create("ebm", bits, preset="tiny")):
        assert with_likelihood(model, torch.zeros(4, *model.event.shape)) is model
