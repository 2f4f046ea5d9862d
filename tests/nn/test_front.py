"""The front from raw data to reals: Jacobian by autograd, inverse, closed forms."""

from __future__ import annotations

import math

import pytest
import torch

import unsup
import unsup.nn.front as fronts
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.nn.front import ContinuousFront, dequantized_log_prob

MIXED = Event((4,), (REAL, Support("ordinal", 5, low=3), BINARY, REAL))
EVENTS = [MIXED, Event((1, 2, 2), Support("ordinal", 256)), Event((3,), REAL)]


def raw(event: Event, n: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    columns = []
    for s in event.columns:
        if s.is_discrete:
            columns.append(torch.randint(s.low, s.low + s.levels, (n,), generator=generator).double())
        else:
            columns.append(50 + 9 * torch.randn(n, generator=generator, dtype=torch.float64))
    return torch.stack(columns, 1).view(n, *event.shape)


@pytest.mark.parametrize("alpha", [None, 0.05])
@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_log_determinant_and_inverse(event, alpha):
    front = ContinuousFront(event, logit_alpha=alpha).double()
    x = raw(event)
    front.prepare(x, generator=torch.Generator().manual_seed(1))
    u = front.dequantize(x, generator=torch.Generator().manual_seed(2))
    y, log_det = front(u)
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda v: front(v)[0], u[i : i + 1]).view(event.dims, event.dims)
        assert log_det[i].item() == pytest.approx(torch.linalg.slogdet(jacobian).logabsdet.item(), abs=1e-9)
    torch.testing.assert_close(front.invert(y), u, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(front.to_support(front.invert(y)).double(), x, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_prepared_entries_have_mean_zero_and_variance_one(event):
    front = ContinuousFront(event).double()
    x = raw(event, 500)
    front.prepare(x, generator=torch.Generator().manual_seed(1))
    y, _ = front(front.dequantize(x, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(y.mean(0), torch.zeros(event.shape, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(event.shape, dtype=torch.float64))


def test_noise_is_uniform_within_the_level_and_absent_from_reals():
    front = ContinuousFront(MIXED).double()
    x = raw(MIXED, 4000)
    u = front.dequantize(x, generator=torch.Generator().manual_seed(2)) - x
    assert (u[:, [0, 3]] == 0).all()
    for d in (1, 2):
        noise = u[:, d].sort().values
        assert noise[0] >= 0
        assert noise[-1] < 1
        assert (noise - torch.arange(4000) / 4000).abs().max() < 1.95 / math.sqrt(4000)


def test_a_uniform_density_gives_each_level_its_share_exactly():
    event = Event((2,), Support("ordinal", 16))
    front = ContinuousFront(event).double()  # v in [0, 1): a uniform density there is log 1 = 0
    x = torch.randint(0, 16, (9, 2), generator=torch.Generator().manual_seed(0))
    found = dequantized_log_prob(front, lambda y: torch.zeros(len(y), dtype=y.dtype), x, samples=3)
    torch.testing.assert_close(found, torch.full((9,), -2 * math.log(16), dtype=torch.float64))


def test_bound_is_below_the_mass_and_tightens_to_it():
    """A triangular density on [0, 1) over two levels: masses 1/4 and 3/4 by the area."""
    front = ContinuousFront(Event((1,), BINARY)).double()

    def density(y):
        return (2 * y.flatten(1).sum(1)).log()

    x = torch.tensor([0, 1]).repeat(4000)[:, None]
    exact = torch.tensor([0.25, 0.75], dtype=torch.float64).log().repeat(4000)
    gaps = {}
    for samples in (1, 64):
        g = torch.Generator().manual_seed(0)
        gaps[samples] = (
            (exact - dequantized_log_prob(front, density, x, samples=samples, generator=g)).view(-1, 2).mean(0)
        )
    # E[log 2v] on [0, 1/2) is −1 and log of the mass's mean density is −log 2: closed-form gaps at one sample.
    one = torch.tensor([1 - math.log(2), math.log(1.5) - (2 * math.log(2) - 1)], dtype=torch.float64)
    torch.testing.assert_close(gaps[1], one, atol=0.06, rtol=0)
    assert (gaps[64] < gaps[1]).all()
    assert (gaps[64] > -0.005).all()
    assert (gaps[64] < 0.02).all()


def test_constant_columns_stay_finite():
    event = Event((2,), REAL)
    front = ContinuousFront(event)
    front.prepare(torch.tensor([[5.0, 1.0], [5.0, 3.0]]), generator=torch.Generator())
    y, log_det = front(torch.tensor([[5.0, 2.0]]))
    assert y.isfinite().all()
    assert log_det.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"given": labels(2)}, {"dequantization": "variational"}], ids=str)
def test_draws_in_one_pass_are_those_of_a_loop(options, monkeypatch):
    model = unsup.create("realnvp", MIXED, preset="tiny", seed=0, **options).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3), dtype=p.dtype))
    x = raw(MIXED, 7)
    given = {"given": torch.arange(7) % 2} if "given" in options else {}
    found = []
    for entries in (1, 4 * x.numel(), 2**14):  # one draw, four and all at once
        monkeypatch.setattr(fronts, "_MOST_ENTRIES", entries)
        generator = torch.Generator().manual_seed(1)
        found.append([model.log_prob(x, samples=n, generator=generator, **given) for n in (1, 6)])
    for others in found[1:]:
        torch.testing.assert_close(others, found[0], rtol=1e-12, atol=1e-12)
    assert (found[0][0] != found[0][1]).all()
    none = {k: v[:0] for k, v in given.items()}
    assert model.log_prob(x[:0], samples=6, **none).shape == (0,)


def test_units_are_means_and_standard_deviations_also_far_from_zero() -> None:
    x = torch.randn(1000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:, 1], x[:, 2], x[:, 3] = 0.1, 1e8 + 1e-3 * x[:, 2], 1e4 + x[:, 3]
    front = ContinuousFront(Event((4,), Support("real"), precision="float64")).double()
    front.prepare(x, generator=torch.Generator())
    expected = x.numpy().std(0)
    torch.testing.assert_close(front.std[[0, 2, 3]], torch.from_numpy(expected)[[0, 2, 3]], rtol=1e-5, atol=0)
    assert float(front.std[1]) == 1.0
