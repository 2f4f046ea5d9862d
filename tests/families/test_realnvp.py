"""RealNVP against autograd Jacobians, quadrature, closed forms and counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.families.flows.realnvp import RealNVP
from unsup.nn.bijection import BoundedAffine, Normalised
from unsup.nn.conditioner import WeightNormConv
from unsup.nn.coupling import Coupling
from unsup.nn.invertible import MultiScale

MIXED = (REAL, Support("ordinal", 5), BINARY, Support("ordinal", 3, 2), REAL)
TINY = RealNVP.presets["tiny"]
CASES = {
    "vector": (Event((5,), REAL), {}),
    "table": (Event((5,), MIXED), {"layers": 5}),
    "grey": (Event((1, 4, 4), Support("ordinal", 17)), {"scales": 2}),
    "colour": (Event((3, 4, 4), Support("ordinal", 256)), {"scales": 2}),
    "odd": (Event((1, 3, 5), BINARY), {}),
    "real image": (Event((2, 4, 4), REAL), {"scales": 2}),
}


def generic(event: Event, *, seed: int = 0, **options: object) -> RealNVP:
    """A float64 model in evaluation mode, away from every special value of its parameters and statistics."""
    torch.manual_seed(seed)
    model = RealNVP(event, **(TINY | options)).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
            if name.endswith("scale"):
                parameter.fill_(0.4)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.3)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    return model


def raw(event: Event, n: int, *, seed: int = 1) -> Tensor:
    """Raw examples in the event's support, float64."""
    generator = Generator().manual_seed(seed)
    columns = []
    for s in event.columns:
        uniform = torch.rand(n, generator=generator, dtype=torch.float64)
        columns.append((uniform * s.levels).floor() + s.low if s.is_discrete else 3 * uniform - 5)
    return torch.stack(columns, 1).view(n, *event.shape)


def jacobian(model: RealNVP, x: Tensor) -> Tensor:
    """dz/dx of one continuous raw example, (D, D)."""
    full = torch.autograd.functional.jacobian(lambda v: model.transform(v[None])[0][0], x)
    return full.reshape(model.event.dims, model.event.dims)


@pytest.mark.parametrize("case", CASES)
def test_log_det_is_that_of_the_autograd_jacobian_from_raw_data(case: str) -> None:
    event, options = CASES[case]
    model = generic(event, **options)
    x = raw(event, 3)
    model.prepare(Batch(raw(event, 50, seed=2)), generator=Generator().manual_seed(0))
    continuous = model.front.dequantize(x, generator=Generator().manual_seed(3))
    _, log_det = model.transform(continuous)
    exact = torch.stack([torch.linalg.slogdet(jacobian(model, v))[1] for v in continuous])
    torch.testing.assert_close(log_det, exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("training", [False, True])
def test_inverse_round_trip(case: str, training: bool) -> None:
    event, options = CASES[case]
    model = generic(event, **options).train(training)
    x = model.front.dequantize(raw(event, 4), generator=Generator().manual_seed(3))
    torch.testing.assert_close(model.invert(model.transform(x)[0]), x, rtol=0, atol=1e-8)
    z = torch.randn(4, event.dims, dtype=torch.float64, generator=Generator().manual_seed(4))
    torch.testing.assert_close(model.transform(model.invert(z))[0], z, rtol=0, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_every_code_depends_on_every_entry(case: str) -> None:
    event, options = CASES[case]
    model = generic(event, seed=2, **options)  # nets of four channels can have rectifiers that are all shut
    x = model.front.dequantize(raw(event, 1), generator=Generator().manual_seed(3))[0]
    assert jacobian(model, x).abs().min() > 0


@torch.no_grad()
def neutral(event: Event, **options: object) -> RealNVP:
    """A float64 model whose couplings and normalisations all do nothing."""
    model = generic(event, **options)
    for p in model.scale_parameters():
        p.zero_()
    for module in model.modules():
        if isinstance(module, Normalised):
            module.running_mean.zero_()
            module.running_var.fill_(1 - module.eps)
        if isinstance(module, nn.Sequential):
            module[-1].weight.zero_()
            module[-1].bias.zero_()
    return model


@pytest.mark.parametrize("case", CASES)
def test_every_entry_is_moved_at_least_twice_and_never_by_itself(case: str) -> None:
    event, options = CASES[case]
    model = neutral(event, **options)
    y = torch.randn(1, *event.shape, dtype=torch.float64, generator=Generator().manual_seed(0))
    still = model.flow(y)[0]
    # With nothing moving, squeezing and factoring out only reorder the entries.
    torch.testing.assert_close(still[0].sort()[0], y.flatten().sort()[0], rtol=0, atol=1e-12)
    shifts = [m.running_mean for m in model.modules() if isinstance(m, Normalised)]
    shifts += [m[-1].bias.detach()[len(m[-1].bias) // 2 :] for m in model.modules() if isinstance(m, nn.Sequential)]
    moved = torch.zeros(event.dims)
    for shift in shifts:
        shift.fill_(1.0)
        change = model.flow(y)[0] - still
        assert 0 < int((change.abs() > 1e-9).sum()) < event.dims
        moved += (change[0].abs() > 1e-9).float()
        shift.zero_()
    assert moved.min() >= 2


@pytest.mark.parametrize("case", CASES)
def test_without_scales_it_is_nice_whose_couplings_keep_volume(case: str) -> None:
    event, options = CASES[case]
    model = generic(event, **options)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, BoundedAffine):
                module.scale.zero_()
            if isinstance(module, Normalised):
                module.running_var.fill_(1 - module.eps)
    y = torch.randn(3, *event.shape, dtype=torch.float64, generator=Generator().manual_seed(0))
    z, log_det = model.flow(y)
    torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=1e-12)
    assert (z.sum(1) - y.flatten(1).sum(1)).abs().min() > 1e-3  # the shifts are there


def test_density_integrates_to_one() -> None:
    event = Event((2,), REAL)
    model = generic(event)
    model.prepare(Batch(torch.randn(200, 2).double() * torch.tensor([0.5, 3.0]) + 4), generator=Generator())
    # A window in the units of the data, wide enough for the tails.
    axes = [torch.linspace(4 - w, 4 + w, 1201, dtype=torch.float64) for w in (9.0, 54.0)]
    grid = torch.cartesian_prod(*axes)
    cell = math.prod(float(a[1] - a[0]) for a in axes)
    with torch.no_grad():
        total = model.log_prob(grid).exp().sum() * cell
    assert abs(float(total) - 1) < 1e-3


def cell_log_mass(model: RealNVP, x: Tensor) -> Tensor:
    """log of the model's mass in the unit cell of each example of two discrete entries, by Gauss–Legendre."""
    nodes, weights = (torch.as_tensor(a) for a in np.polynomial.legendre.leggauss(40))
    u = torch.cartesian_prod((nodes + 1) / 2, (nodes + 1) / 2)
    w = torch.cartesian_prod(weights / 2, weights / 2).prod(1)
    masses = []
    with torch.no_grad():
        for v in x:
            z, log_det = model.transform(v + u.view(-1, *model.event.shape))
            log_density = stats.norm.logpdf(z.numpy()).sum(1) + log_det.numpy()
            masses.append((w * torch.as_tensor(np.exp(log_density))).sum().log())
    return torch.stack(masses)


@pytest.mark.parametrize(
    "event", [Event((2,), Support("ordinal", 2)), Event((1, 1, 2), BINARY)], ids=["table", "image"]
)
def test_bound_rises_with_samples_to_the_mass_of_the_cell(event: Event) -> None:
    model = generic(event)
    # A density that varies within its cells, but not by many orders, with some mass outside the support.
    if event.is_image:
        model.front.logit_alpha = 0.05
    else:
        model.front.mean.fill_(0.5)
        model.front.std.fill_(0.35)
    x = torch.cartesian_prod(torch.arange(2), torch.arange(2)).double().view(4, *event.shape)
    exact = cell_log_mass(model, x)
    assert exact.exp().sum() < 1
    generator = Generator().manual_seed(0)
    repeats = 500
    repeated = x.repeat(repeats, *[1] * (x.dim() - 1))
    means, errors, last = [], [], x
    with torch.no_grad():
        for samples in (1, 4, 64):
            last = model.log_prob(repeated, samples=samples, generator=generator).view(repeats, 4)
            means.append(float(last.mean()))
            errors.append(float(last.mean(1).std()) / math.sqrt(repeats))
    for low, high, e, f in zip(means, means[1:], errors, errors[1:], strict=False):
        assert high - low > 4 * math.hypot(e, f)
    gap = exact - last.mean(0)
    assert (gap > -4 * last.std(0) / math.sqrt(repeats)).all()
    assert gap.max() < 0.05
    assert model.likelihood_kind == "bound"


def test_likelihood_kind_and_events() -> None:
    assert RealNVP(Event((3,), REAL), **TINY).likelihood_kind == "exact"
    assert RealNVP(Event((5,), MIXED), **TINY).likelihood_kind == "bound"
    for event, reason in [
        (Event((4,), Support("nominal", 3)), "nominal"),
        (Event((2,), (REAL, Support("nominal", 3))), "nominal"),
        (Event((1,), REAL), "2 entries"),
        (Event((1, 1, 1), REAL), "two pixels"),
        (Event((8, 2), REAL), "vectors, tables and images"),
    ]:
        with pytest.raises(InputError, match=reason):
            RealNVP(event)
    for shape, scales in [((1, 6, 6), 3), ((1, 4, 4), 3)]:
        with pytest.raises(InputError, match="use scales=None"):
            RealNVP(Event(shape, BINARY), scales=scales)


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ((1, 8, 8), [(2, 4, 4), (2, 4, 4)]),
        ((1, 28, 28), [(2, 14, 14), (4, 7, 7), (4, 7, 7)]),
        ((3, 32, 32), [(6, 16, 16), (12, 8, 8), (24, 4, 4), (24, 4, 4)]),
        ((1, 7, 8), [(1, 7, 8)]),
    ],
)
def test_scales_stop_at_odd_sides_and_at_four(shape: tuple[int, ...], parts: list[tuple[int, int, int]]) -> None:
    flow = RealNVP(Event(shape, Support("ordinal", 17)), **TINY).flow
    assert isinstance(flow, MultiScale)
    assert flow.shapes == parts


def test_only_the_loss_in_training_uses_and_updates_batch_statistics() -> None:
    event = CASES["grey"][0]
    model = generic(event, scales=2)
    x = raw(event, 6)
    u = model.front.dequantize(x, generator=Generator().manual_seed(0))
    alone = torch.cat([model.transform(v[None])[1] for v in u])
    torch.testing.assert_close(model.transform(u)[1], alone, rtol=0, atol=1e-10)
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    model.train()
    torch.testing.assert_close(model.transform(u)[1], alone, rtol=0, atol=1e-10)
    model.sample(3, generator=Generator().manual_seed(0))
    model.log_prob(x, generator=Generator().manual_seed(0))
    assert all(torch.equal(v, buffers[k]) for k, v in model.named_buffers())
    nll = model.loss(Batch(x), generator=Generator().manual_seed(0))["nll"]
    assert nll.shape == (6,)
    assert not all(torch.equal(v, buffers[k]) for k, v in model.named_buffers() if k.endswith("running_var"))
    evaluated = model.eval().loss(Batch(x), generator=Generator().manual_seed(0))["loss"]
    expected = -model.log_prob(x, generator=Generator().manual_seed(0))
    torch.testing.assert_close(evaluated, expected, rtol=0, atol=0)
    assert float((nll - evaluated).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("case", ["vector", "grey"])
def test_penalty_is_the_sum_of_squares_of_scales_and_gains_and_moves_nothing_else(case: str) -> None:
    event, options = CASES[case]
    model = generic(event, **options).train()
    terms = model.loss(Batch(raw(event, 6)), generator=Generator().manual_seed(0))
    penalised: dict[int, Tensor] = {}
    for module in model.modules():
        if isinstance(module, WeightNormConv) and module.gain is not None:
            penalised[id(module.gain)] = module.gain
        if isinstance(module, BoundedAffine):
            penalised[id(module.scale)] = module.scale
    expected = 5e-5 * sum(float(p.detach().square().sum()) for p in penalised.values())
    assert float(terms["scale_penalty"].detach()) == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(terms["loss"], terms["nll"] + expected, rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(terms["scale_penalty"], list(model.parameters()), allow_unused=True)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (gradient is not None) == (id(parameter) in penalised)
        if gradient is not None:
            torch.testing.assert_close(gradient, 1e-4 * parameter.detach())


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_gets_a_gradient(case: str) -> None:
    event, options = CASES[case]
    model = generic(event, **options).train()
    model.loss(Batch(raw(event, 16)), generator=Generator().manual_seed(0))["nll"].mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-9, name  # rounding is at 1e-15


def test_a_new_vector_flow_is_the_gaussian_of_the_data_s_moments() -> None:
    event = Event((3,), REAL)
    x = torch.randn(50, 3, dtype=torch.float64) * torch.tensor([1.0, 20.0, 0.1]) + 7
    model = RealNVP(event, **TINY).double()
    model.prepare(Batch(x), generator=Generator())
    expected = stats.norm.logpdf(x.numpy(), x.mean(0).numpy(), x.std(0, correction=0).numpy()).sum(1)
    np.testing.assert_allclose(model.log_prob(x).detach().numpy(), expected, atol=1e-10)


def test_a_linear_gaussian_set_is_fitted_to_its_closed_form() -> None:
    torch.manual_seed(0)
    mix = torch.tensor([[2.0, 0.0, 0.0], [-1.5, 0.7, 0.0], [1.0, 0.5, 0.2]], dtype=torch.float64)
    x = torch.randn(4000, 3, dtype=torch.float64) @ mix.T + 5
    covariance = torch.cov(x.T, correction=0)
    closed_form = 0.5 * float(torch.logdet(2 * math.pi * math.e * covariance))
    model = RealNVP(Event((3,), REAL), layers=4, hidden=()).double()
    model.prepare(Batch(x), generator=Generator())
    with torch.no_grad():
        for net in model.modules():
            if isinstance(net, nn.Sequential):
                net[-1].weight.normal_(std=0.1)
    start = float(-model.log_prob(x).detach().mean())
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        nll = -model.log_prob(x).mean()
        nll.backward()
        return nll

    optimizer.step(closure)
    fitted = float(-model.log_prob(x).detach().mean())
    assert start > closed_form + 0.5
    # Scales that bend with the data gain a little on a finite sample: about (parameters / 2) / n nats.
    assert closed_form - 0.01 < fitted < closed_form + 0.001
    drawn = model.sample(40_000, generator=Generator().manual_seed(1)).double()
    torch.testing.assert_close(torch.cov(drawn.T), covariance, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("case", CASES)
def test_samples_are_decoded_noise_and_codes_decode_to_the_data(case: str) -> None:
    event, options = CASES[case]
    model = generic(event, **options)
    noise = torch.randn(5, event.dims, dtype=torch.float64, generator=Generator().manual_seed(2))
    drawn = model.sample(5, generator=Generator().manual_seed(2), temperature=0.7)
    assert torch.equal(drawn, model.decode(0.7 * noise))
    assert drawn.dtype == event.dtype
    assert event.contains(drawn).all()
    x = raw(event, 8)
    torch.testing.assert_close(model.decode(model.encode(x)).double(), x, rtol=0, atol=1e-5 if event.is_real else 1e-6)
    assert model.encode(x).shape == (8, model.code_size)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_half_parameters_score_in_float32(case: str, half: torch.dtype) -> None:
    event, options = CASES[case]
    model = generic(event, **options)
    x = raw(event, 8).float()
    exact = model.float().log_prob(x, generator=Generator().manual_seed(0)).detach()
    model = model.to(half)
    scored = model.log_prob(x, generator=Generator().manual_seed(0)).detach()
    assert scored.dtype == torch.float32
    assert float((scored - exact).abs().max()) < 0.02 * float(exact.abs().max())  # bfloat16 keeps three digits
    assert model.sample(3, generator=Generator().manual_seed(0)).dtype == event.dtype


@pytest.mark.parametrize("case", CASES)
def test_no_rows_and_inference_mode(case: str) -> None:
    event, options = CASES[case]
    model = generic(event, **options)
    assert model.sample(0).shape == (0, *event.shape)
    assert model.encode(raw(event, 0)).shape == (0, event.dims)
    assert model.log_prob(raw(event, 0)).shape == (0,)
    x = raw(event, 3)
    expected = model.log_prob(x, generator=Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model.log_prob(x, generator=Generator().manual_seed(0)), expected)
        assert torch.equal(model.decode(model.encode(x)), model.decode(model.encode(x)))


@pytest.mark.parametrize("case", ["vector", "grey"])
def test_bfloat16_is_confined_to_the_conditioners(case: str) -> None:
    event, options = CASES[case]
    model = generic(event, **options).float()
    x = raw(event, 8).float()
    u = model.front.dequantize(x, generator=Generator().manual_seed(0))
    z, log_det = model.transform(u)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low_z, low_log_det = model.transform(u)
        back = model.invert(low_z)
    assert low_z.dtype == low_log_det.dtype == torch.float32
    assert (low_z != z).any()
    torch.testing.assert_close(low_z, z, rtol=0.1, atol=0.1)
    torch.testing.assert_close(low_log_det, log_det, rtol=0.02, atol=0.2)
    torch.testing.assert_close(back, u, rtol=0.02, atol=0.02)


def test_the_paper_model_runs_on_cifar_images() -> None:
    event = Event((3, 32, 32), Support("ordinal", 256))
    model = RealNVP(event, **RealNVP.presets["paper"]).eval()
    assert isinstance(model.flow, MultiScale)
    assert model.flow.shapes == [(6, 16, 16), (6, 16, 16)]
    assert [sum(isinstance(m, Coupling) for m in scale.modules()) for scale in model.flow.scales] == [6, 4]
    x = torch.randint(0, 256, (2, 3, 32, 32), generator=Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        assert model.log_prob(x, generator=Generator().manual_seed(0)).isfinite().all()

    def net(c: int, inputs: int, width: int, blocks: int = 8) -> int:
        block = 2 * width + 2 * 9 * width**2 + width
        skips = (blocks + 1) * (width**2 + width)
        ends = c + 9 * inputs * width + width + 2 * c * width + 2 * c
        return ends + skips + blocks * block + 1 + c  # and the coupling's scale and bias

    expected = 3 * net(3, 7, 64) + 3 * net(6, 12, 128) + 4 * net(6, 13, 128)
    assert model.parameter_count == expected
