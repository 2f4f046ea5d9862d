"""NICE against closed forms, scipy's logistic, quadrature and counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.families.flows.nice import NICE
from unsup.nn.coupling import Alternating
from unsup.nn.invertible import Chain, DiagonalScale

MIXED = (REAL, Support("ordinal", 5), BINARY, Support("ordinal", 3, 2), REAL)
TINY = NICE.presets["tiny"]
CASES = {
    "vector": (Event((5,), REAL), {}),
    "gaussian": (Event((4,), REAL), {"base": "gaussian"}),
    "table": (Event((5,), MIXED), {"layers": 3}),
    "image": (Event((2, 3, 2), Support("ordinal", 17)), {}),
}
EVERY = pytest.mark.parametrize("case", CASES)


def generic(event: Event, *, seed: int = 0, **options: object) -> NICE:
    """A float64 model in evaluation mode, away from every special value of its parameters."""
    torch.manual_seed(seed)
    model = NICE(event, **(TINY | options)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        model.front.mean.normal_()
        model.front.std.uniform_(0.5, 2.0)
    return model


def steps(model: NICE) -> tuple[Alternating, DiagonalScale]:
    assert isinstance(model.flow, Chain)
    _, couplings, scale = model.flow.steps
    assert isinstance(couplings, Alternating)
    assert isinstance(scale, DiagonalScale)
    return couplings, scale


def continuous(event: Event, n: int, *, seed: int = 1) -> Tensor:
    """Points of the event's box, off the levels, float64."""
    uniform = torch.rand(n, event.dims, generator=Generator().manual_seed(seed), dtype=torch.float64)
    low = torch.tensor([s.low for s in event.columns])
    width = torch.tensor([s.levels if s.is_discrete else 3 for s in event.columns])
    return (low + width * uniform).view(n, *event.shape)


@EVERY
def test_couplings_keep_volume_and_the_log_det_is_the_sum_of_s(case: str) -> None:
    event, options = CASES[case]
    model = generic(event, **options)
    couplings, scale = steps(model)
    y = torch.randn(6, event.dims, dtype=torch.float64, generator=Generator().manual_seed(0))
    h, log_det = couplings(y)
    assert (h - y).abs().max() > 1e-2
    assert not log_det.any()
    for one in y[:2]:
        matrix = torch.autograd.functional.jacobian(lambda v: couplings(v[None])[0][0], one)
        assert float(torch.linalg.det(matrix)) == pytest.approx(1, abs=1e-12)
    total = float(scale.log_scale.detach().sum()) - float((model.front.std * model.front.levels).log().sum())
    _, log_det = model.transform(continuous(event, 6))
    torch.testing.assert_close(log_det, torch.full((6,), total, dtype=torch.float64), rtol=0, atol=1e-10)


def test_two_linear_couplings_are_a_matrix_by_hand() -> None:
    model = NICE(Event((3,), REAL), layers=2, hidden=(), base="gaussian").double()
    couplings, scale = steps(model)
    first, second = couplings.conditioners
    with torch.no_grad():
        first[0].weight.copy_(torch.tensor([[2.0, -1.0]]))  # of x0 and x2, for x1
        first[0].bias.copy_(torch.tensor([0.5]))
        second[0].weight.copy_(torch.tensor([[3.0], [-2.0]]))  # of x1, for x0 and x2
        scale.log_scale.copy_(torch.tensor([0.1, -0.3, 0.7]))
    x = torch.randn(5, 3, dtype=torch.float64)
    h1 = x[:, 1] + 2 * x[:, 0] - x[:, 2] + 0.5
    h = torch.stack([x[:, 0] + 3 * h1, h1, x[:, 2] - 2 * h1], 1)
    z, log_det = model.transform(x)
    torch.testing.assert_close(z, h * torch.tensor([0.1, -0.3, 0.7]).double().exp(), rtol=0, atol=1e-7)
    assert log_det.detach().tolist() == pytest.approx([0.5] * 5, abs=1e-7)
    # So x is Gaussian: z = A x + b, cov(x) = (Aᵀ A)⁻¹.
    matrix = torch.autograd.functional.jacobian(lambda v: model.transform(v[None])[0][0], x[0])
    mean = torch.linalg.solve(matrix, -model.transform(torch.zeros(1, 3).double())[0][0].detach())
    expected = stats.multivariate_normal.logpdf(x, mean, torch.linalg.inv(matrix.T @ matrix))
    np.testing.assert_allclose(model.log_prob(x).detach(), expected, atol=1e-10)


@pytest.mark.parametrize("acting", range(4))
def test_couplings_move_odd_entries_and_even_ones_in_turn(acting: int) -> None:
    couplings, _ = steps(generic(Event((5,), REAL)))
    with torch.no_grad():
        for i, conditioner in enumerate(couplings.conditioners):
            conditioner[-1].weight.mul_(i == acting)
            conditioner[-1].bias.mul_(i == acting)
    x = torch.randn(1, 5, dtype=torch.float64)
    moved = (couplings(x)[0] != x)[0]
    assert moved.tolist() == [d % 2 != acting % 2 for d in range(5)]


@pytest.mark.parametrize("base", ["logistic", "gaussian"])
def test_base_density_and_draws_are_those_of_scipy(base: str) -> None:
    model = NICE(Event((3,), REAL), base=base).double()
    law = stats.logistic if base == "logistic" else stats.norm
    z = 20 * torch.randn(50, 3, dtype=torch.float64, generator=Generator().manual_seed(0))
    np.testing.assert_allclose(model.base_log_prob(z), law.logpdf(z).sum(1), rtol=1e-12)
    drawn = model.draw_base(4000, generator=Generator().manual_seed(0))
    assert drawn.shape == (4000, 3)
    assert stats.kstest(drawn.flatten().numpy(), law.cdf).pvalue > 1e-3
    # A new model is its base at unit variance: temperature is the scale of the noise.
    cold = model.sample(4000, generator=Generator().manual_seed(1), temperature=0.3)
    assert stats.kstest(cold.flatten().numpy(), law(scale=0.3 / law.std()).cdf).pvalue > 1e-3


def test_a_uniform_of_exactly_0_gives_a_finite_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "unsup.core.random.uniform", lambda shape, generator, like: torch.zeros(shape, dtype=like.dtype)
    )
    assert NICE(Event((3,), REAL)).draw_base(2).isfinite().all()


@pytest.mark.parametrize("base", ["logistic", "gaussian"])
def test_a_new_flow_is_the_base_at_the_data_s_moments(base: str) -> None:
    x = torch.randn(50, 3, dtype=torch.float64) * torch.tensor([1.0, 20.0, 0.1]) + 7
    model = NICE(Event((3,), REAL), base=base, **TINY).double()
    model.prepare(Batch(x), generator=Generator())
    law = stats.logistic if base == "logistic" else stats.norm
    expected = law.logpdf(x, x.mean(0), x.std(0, correction=0) / law.std()).sum(1)
    np.testing.assert_allclose(model.log_prob(x).detach(), expected, atol=1e-6)  # the scale is a float32


def test_density_integrates_to_one() -> None:
    model = generic(Event((2,), REAL))
    axes = [torch.linspace(-60, 60, 2001, dtype=torch.float64) for _ in range(2)]
    with torch.no_grad():
        total = model.log_prob(torch.cartesian_prod(*axes)).exp().sum() * 0.06**2
    assert abs(float(total) - 1) < 1e-3


def test_every_component_depends_on_every_entry_from_three_couplings_on() -> None:
    event = Event((4,), REAL)
    x = torch.randn(4, dtype=torch.float64, generator=Generator().manual_seed(0))
    for layers, dependent in [(1, False), (2, False), (3, True), (4, True)]:
        model = generic(event, layers=layers)
        matrix = torch.autograd.functional.jacobian(lambda v, m=model: m.transform(v[None])[0][0], x)
        assert bool((matrix != 0).all()) == dependent


@EVERY
def test_codes_decode_to_the_data_and_samples_are_decoded_noise(case: str) -> None:
    event, options = CASES[case]
    model = generic(event, **options)
    drawn = model.sample(7, generator=Generator().manual_seed(2), temperature=0.7)
    assert torch.equal(drawn, model.decode(0.7 * model.draw_base(7, generator=Generator().manual_seed(2))))
    assert event.contains(drawn).all()
    x = continuous(event, 5)
    x = torch.where(model.front.discrete, x.floor(), x)
    torch.testing.assert_close(model.decode(model.encode(x)).double(), x, rtol=0, atol=1e-5)
    assert model.sample(0).shape == (0, *event.shape)
    assert model.log_prob(x[:0]).shape == (0,)


@EVERY
def test_half_parameters_score_in_float32(case: str) -> None:
    event, options = CASES[case]
    model = generic(event, **options).float()
    x = model.sample(8, generator=Generator().manual_seed(0))
    exact = model.log_prob(x, generator=Generator().manual_seed(1)).detach()
    scored = model.half().log_prob(x, generator=Generator().manual_seed(1)).detach()
    assert scored.dtype == torch.float32
    torch.testing.assert_close(scored, exact, rtol=5e-3, atol=0.05)


def test_the_loss_is_one_number_an_example_and_nothing_but_the_likelihood() -> None:
    event, options = CASES["image"]
    model = generic(event, **options).train()
    x = continuous(event, 6).floor()
    terms = model.loss(Batch(x), generator=Generator().manual_seed(0))
    assert set(terms) == {"loss"}
    torch.testing.assert_close(terms["loss"], -model.log_prob(x, generator=Generator().manual_seed(0)))


def test_a_gaussian_set_is_fitted_to_its_closed_form() -> None:
    torch.manual_seed(0)
    mix = torch.tensor([[2.0, 0.0, 0.0], [-1.5, 0.7, 0.0], [1.0, 0.5, 0.2]], dtype=torch.float64)
    x = torch.randn(4000, 3, dtype=torch.float64) @ mix.T + 5
    closed_form = 0.5 * float(torch.logdet(2 * math.pi * math.e * torch.cov(x.T, correction=0)))
    model = NICE(Event((3,), REAL), layers=4, hidden=(), base="gaussian").double()
    model.prepare(Batch(x), generator=Generator())
    with torch.no_grad():
        for p in steps(model)[0].parameters():
            p.normal_(std=0.1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        nll = model.loss(Batch(x))["loss"].mean()
        nll.backward()
        return nll

    optimizer.step(closure)
    # Linear couplings and scales reach every covariance, and nothing that is not Gaussian.
    assert float(closure().detach()) == pytest.approx(closed_form, abs=1e-4)


def test_the_paper_s_mnist_model_has_so_many_parameters() -> None:
    event = Event((1, 28, 28), Support("ordinal", 256))
    model = NICE(event, **NICE.presets["paper"])
    net = 392 * 1000 + 1000 + 4 * (1000 * 1000 + 1000) + 1000 * 392 + 392
    assert model.parameter_count == 4 * net + 784
    assert model.base == "logistic"
    x = torch.randint(0, 256, (2, 1, 28, 28), generator=Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        assert model.log_prob(x, generator=Generator().manual_seed(0)).isfinite().all()


def test_events_and_kinds() -> None:
    assert NICE(Event((3,), REAL)).likelihood_kind == "exact"
    assert NICE(Event((5,), MIXED)).likelihood_kind == "bound"
    for event, reason in [
        (Event((4,), Support("nominal", 3)), "nominal"),
        (Event((1,), REAL), "2 entries"),
        (Event((8, 2), REAL), "vectors, tables and images"),
    ]:
        with pytest.raises(InputError, match=reason):
            NICE(event)
