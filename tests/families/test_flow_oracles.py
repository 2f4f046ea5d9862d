"""Flows beside closed forms: Gaussians, mixtures, linear differential equations, and bounds by enumeration."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

import unsup
from unsup.coding.chunks import model_hash
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support, labels
from unsup.core.model import Model
from unsup.core.storage import load_state
from unsup.families.flows import nice as nice_module
from unsup.families.flows.cdf_flow import CdfFlow
from unsup.families.flows.ffjord import FFJORD
from unsup.families.flows.iaf import IAF
from unsup.families.flows.maf import MAF
from unsup.families.flows.spline_flow import SplineFlow
from unsup.nn.autoregressive_map import MaskedAutoregressive
from unsup.nn.bijection import Bijection, MixtureCdf, NormalScores, SigmoidMixture
from unsup.nn.dequantizer import VariationalDequantizer
from unsup.nn.dropout import Dropout, dropping
from unsup.nn.flow import Flow
from unsup.nn.front import UniformDequantizer
from unsup.nn.invertible import Flatten, MultiScale
from unsup.nn.ode import ODE, Dynamics, Layers
from unsup.nn.traces import traces
from unsup.testing.subject import perturb

PLANE = Event((2,), REAL)
FLOWS = (
    "maf",
    "iaf",
    "spline-flow",
    "naf",
    "cdf-flow",
    "planar",
    "radial",
    "sylvester",
    "ffjord",
    "residual-flow",
    "realnvp",
    "nice",
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def steps_of(model: Model) -> list[MaskedAutoregressive]:
    return [m for m in model.modules() if isinstance(m, MaskedAutoregressive)]


def built(name: str, event: Event, noise: float = 0.1, **options: Any) -> Model:
    model = unsup.create(name, event, seed=0, preset="tiny", **options).double()
    perturb(model, generator(1), noise)
    return model.eval()


@pytest.mark.parametrize("name", ["maf", "spline-flow", "cdf-flow"])
def test_whitened_flows_start_at_the_gaussian_of_the_data(name: str) -> None:
    options = {"cdf-flow": {"component": "gaussian", "components": 1}}.get(name, {})
    x = torch.randn(400, 4, generator=generator()) @ torch.randn(4, 4, generator=generator(1)) + 3
    model = unsup.create(name, Event((4,), REAL), seed=0, preset="tiny", **options | {"whiten": True})
    assert isinstance(model, Flow)
    model.prepare(Batch(x), generator=generator(2))
    model.eval()
    gaussian = MultivariateNormal(x.double().mean(0), torch.cov(x.double().T, correction=0))
    if name == "spline-flow":  # its linear maps start as permutations, and its splines as the identity
        z = model.encode(x)
        assert torch.allclose(torch.cov(z.T, correction=0), torch.eye(4), atol=2e-2)
    assert torch.allclose(model.log_prob(x).double(), gaussian.log_prob(x.double()), atol=5e-2)


def test_a_row_far_out_keeps_a_finite_score() -> None:
    model = built("maf", Event((3,), REAL), 2.0, layers=5)
    with torch.no_grad():
        far = model.log_prob(torch.tensor([[15.0, -15.0, 15.0]], dtype=torch.float64))
        scales = [s.bijection.log_scale_and_shift(torch.full((1, 2), 1e6))[0] for s in steps_of(model)]
    assert far.isfinite().all()
    assert all(float(s) <= 3 for s in scales)


@pytest.mark.parametrize("far", [-800.0, 800.0])
@pytest.mark.parametrize(
    "bijection", [NormalScores(2, "gaussian"), NormalScores(2, "logistic"), MixtureCdf(2), SigmoidMixture(2)]
)
def test_scales_of_mixtures_are_bounded(bijection: Bijection, far: float) -> None:
    outputs = torch.full((1, bijection.outputs_each), far, dtype=torch.float64, requires_grad=True)
    y, log_derivative = bijection.double()(torch.full((1,), far, dtype=torch.float64), outputs)
    (y.square() + log_derivative).sum().backward()
    assert y.isfinite().all()
    assert log_derivative.isfinite().all()
    assert bijection.inverse(y, outputs).isfinite().all()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()


def test_a_layer_with_linear_networks_is_a_gaussian() -> None:
    model = MAF(Event((4,), REAL), layers=1, hidden=()).double()
    step = model.flow.steps[1]
    assert isinstance(step, MaskedAutoregressive)
    perturb(model, generator(), 0.5)
    with torch.no_grad():  # constant scales: the rows of the weights that give them are 0
        step.net.top.weight.view(4, 2, 4)[:, 0] = 0
    x = torch.randn(50, 4, dtype=torch.float64, generator=generator(2))
    with torch.no_grad():
        outputs = step.outputs(torch.zeros(1, 4, dtype=torch.float64))[0]
        scale = torch.diag((3 * (outputs[:, 0] / 3).tanh()).exp())
        weight = step.net.top.masked_weight(0).view(4, 2, 4)[:, 1]
        matrix = scale @ (torch.eye(4) + weight)  # z = matrix x + offset
        offset = scale @ outputs[:, 1]
        mean = -torch.linalg.solve(matrix, offset)
        covariance = torch.linalg.inv(matrix.T @ matrix)
        exact = MultivariateNormal(mean, covariance).log_prob(x)
        torch.testing.assert_close(model.log_prob(x), exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_an_inverse_autoregressive_flow_is_the_inverse_of_a_masked_one(layers: int) -> None:
    """With the networks of the one in the steps of the other, from the last to the first."""
    forward, backward = (built(name, Event((3,), REAL), 0.3, layers=layers) for name in ("maf", "iaf"))
    assert isinstance(forward, MAF)
    assert isinstance(backward, IAF)
    for theirs, own in zip(steps_of(forward), reversed(steps_of(backward)), strict=True):
        own.load_state_dict(theirs.state_dict())
    z = torch.randn(20, 3, dtype=torch.float64, generator=generator())
    there, log_det = forward.transform(z)
    torch.testing.assert_close(backward.invert(z), there, rtol=0, atol=1e-10)
    back, other = backward.transform(there)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-9)
    torch.testing.assert_close(other, -log_det, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["maf", "iaf", "naf"])
def test_with_two_steps_every_code_depends_on_every_entry(name: str) -> None:
    model = built(name, Event((4,), REAL), 0.5, layers=2)
    x = torch.randn(4, dtype=torch.float64, generator=generator())
    matrix = torch.autograd.functional.jacobian(lambda v: model.transform(v[None])[0][0], x)
    assert (matrix.abs() > 1e-9).all()


def test_samples_of_an_inverse_autoregressive_flow_take_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built("iaf", Event((5,), REAL))
    calls = 0
    plain = MaskedAutoregressive.outputs

    def counted(self: MaskedAutoregressive, x: Tensor, context: Tensor | None = None) -> Tensor:
        nonlocal calls
        calls += 1
        return plain(self, x, context)

    monkeypatch.setattr(MaskedAutoregressive, "outputs", counted)
    monkeypatch.setattr(MaskedAutoregressive, "inverse", lambda *_: pytest.fail("went entry by entry"))
    assert isinstance(model, IAF)
    model.sample(7, generator=generator())
    assert calls == 2


@pytest.mark.parametrize("name", ["maf", "iaf", "spline-flow", "realnvp", "nice"])
def test_a_new_flow_is_its_base(name: str) -> None:
    model = unsup.create(name, Event((4,), REAL), preset="tiny", seed=0).double()
    x = torch.randn(30, 4, dtype=torch.float64, generator=generator())
    z, log_det = model.transform(x)
    scale = math.pi / math.sqrt(3) if name == "nice" else 1.0
    torch.testing.assert_close(z.sort(1).values, scale * x.sort(1).values, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_det, torch.full_like(log_det, 4 * math.log(scale)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("component", ["logistic", "gaussian"])
def test_the_density_of_a_distribution_function_is_that_of_the_mixture(component: str) -> None:
    model = built("cdf-flow", PLANE, component=component, dependence="independent", components=3)
    assert isinstance(model, CdfFlow)
    step = model.flow.steps[1]
    told = step.told.detach()
    logits, mean, log_scale = told.chunk(3, -1)
    mixture = torch.distributions.MixtureSameFamily
    assert isinstance(step.bijection, NormalScores)
    torch.testing.assert_close(step.bijection.spread, torch.tensor([-4 / 3, 0, 4 / 3], dtype=torch.float64))
    at = mean + step.bijection.spread
    scale = (8 * (log_scale / 8).tanh() + math.log(2 / 3)).exp()
    x = 2 * torch.randn(200, 2, dtype=torch.float64, generator=generator())
    normal = torch.distributions.Normal(at, scale)
    if component == "gaussian":
        exact = mixture(torch.distributions.Categorical(logits=logits), normal).log_prob(x).sum(1)
    else:
        u = (x[..., None] - at) / scale
        own = -u - 2 * nn.functional.softplus(-u) - scale.log()
        exact = (logits.log_softmax(-1) + own).logsumexp(-1).sum(1)
    torch.testing.assert_close(model.log_prob(x).detach(), exact, rtol=1e-9, atol=1e-9)


def test_codes_of_a_uniform_base_are_uniform() -> None:
    model = built("cdf-flow", PLANE, noise=0.3, base="uniform")
    z = model.encode(model.sample(20_000, generator=generator())).detach()
    assert bool(((z > 0) & (z < 1)).all())
    for column in z.T:
        distance = (column.sort().values - torch.linspace(0, 1, len(column))).abs().max()
        assert float(distance) < 1.95 / math.sqrt(len(column))  # p = 0.001 of Kolmogorov's distribution


class Linear(Dynamics):
    """f(y) = A y."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, y: Tensor, directions: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        return y @ self.matrix.T, directions @ self.matrix.T


@pytest.mark.parametrize("exact", [True, False])
def test_a_linear_equation_is_a_matrix_exponential(exact: bool) -> None:
    matrix = torch.randn(3, 3, dtype=torch.float64, generator=generator())
    step = ODE(Linear(matrix), exact=exact)
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator(1))
    with torch.no_grad():
        y, log_det = step.eval()(x)
        torch.testing.assert_close(y, x @ torch.linalg.matrix_exp(matrix).T, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(log_det, matrix.trace().expand(5), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(step.inverse(y), x, rtol=0, atol=1e-8)
        rotation = torch.tensor([[0.0, 1], [-1, 0]], dtype=torch.float64)
        with traces("random", generator(2)):  # εᵀ A ε is 0 for every ε, since A is antisymmetric
            turned, none = ODE(Linear(rotation), exact=exact).eval()(x[:, :2])
    torch.testing.assert_close(none, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(turned.norm(dim=1), x[:, :2].norm(dim=1), rtol=1e-9, atol=0)


def test_estimated_traces_are_unbiased_with_the_variance_of_random_signs() -> None:
    a = torch.randn(4, 4, dtype=torch.float64, generator=generator())
    matrix = 0.3 * (a + a.T)
    step, x = ODE(Linear(matrix), exact=False).eval(), torch.zeros(20_000, 4, dtype=torch.float64)
    with torch.no_grad(), traces("random", generator(1)):
        log_det = step(x)[1]
    variance = 2 * float(matrix.square().sum() - matrix.diagonal().square().sum())
    assert abs(float(log_det.mean() - matrix.trace())) < 5 * math.sqrt(variance / len(x))
    assert float(log_det.var()) == pytest.approx(variance, rel=0.1)


def test_longer_solutions_converge() -> None:
    layers = Layers([nn.Linear(2, 16), nn.Linear(16, 2)], 0, "tanh").double()
    for p in layers.parameters():
        p.data.mul_(3)
    x = torch.randn(6, 2, dtype=torch.float64, generator=generator())
    exact = ODE(layers, exact=True).eval()(x)[0]
    errors = []
    for steps in (2, 4, 8, 16):
        found = ODE(layers, exact=True, steps=steps).train()(x)[0]
        errors.append(float((found - exact).abs().max().detach()))
    for coarse, fine in itertools.pairwise(errors):
        assert fine < coarse / 6  # the method has order 4


def test_tighter_tolerances_converge() -> None:
    layers = Layers([nn.Linear(2, 16), nn.Linear(16, 2)], 0, "tanh").double()
    for p in layers.parameters():
        p.data.copy_(2 * torch.randn(p.shape, dtype=torch.float64, generator=generator(p.numel())))
    x = torch.randn(6, 2, dtype=torch.float64, generator=generator())
    exact = torch.cat(ODE(layers, exact=True).eval()(x)[:1])
    errors = []
    for tolerance in (1e-2, 1e-4, 1e-6, 1e-8):
        found = ODE(layers, exact=True, solver="dopri5", tolerance=tolerance).train()(x)[0]
        errors.append(float((found - exact).abs().max().detach()))
    for coarse, fine in itertools.pairwise(errors):
        assert fine < coarse / 5
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
@pytest.mark.parametrize("image", [False, True])
def test_derivatives_along_directions_are_those_of_autograd(activation: Any, image: bool) -> None:
    shape = (2, 3, 3) if image else (4,)
    layers: list[nn.Linear | nn.Conv2d] = [nn.Linear(4, 9), nn.Linear(9, 4)]
    if image:
        layers = [nn.Conv2d(2, 5, 3, padding="same"), nn.Conv2d(5, 2, 3, padding="same")]
    net = Layers(layers, 2, activation).double()
    y, directions = torch.randn(3, *shape).double(), torch.randn(3, 2, *shape).double()
    told = torch.randn(3, 3).double()
    value, along = net(y, directions, told)
    for k in range(2):
        exact = torch.autograd.functional.jvp(lambda v: net(v, directions, told)[0], y, directions[:, k])
        torch.testing.assert_close(value, exact[0])
        torch.testing.assert_close(along[:, k], exact[1], rtol=1e-9, atol=1e-12)


def test_the_adjoint_equation_has_the_gradient_of_the_steps() -> None:
    found = []
    for options in ({"solver": "rk4", "steps": 64}, {"solver": "dopri5", "tolerance": 1e-9}):
        model = FFJORD(PLANE, hidden=(8,), **options).double().train()
        perturb(model, generator(3), 0.3)
        torch.manual_seed(0)
        for p in model.parameters():
            p.data.copy_(torch.randn(p.shape, dtype=torch.float64, generator=generator(p.numel())) / 3)
        x = torch.randn(10, 2, dtype=torch.float64, generator=generator(4))
        model.loss(Batch(x), generator=generator())["loss"].mean().backward()
        found.append([p.grad for p in model.parameters()])
    for steps, adjoint in zip(*found, strict=True):
        torch.testing.assert_close(steps, adjoint, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in FLOWS if n != "ffjord"])
def test_variational_noise_is_a_bound_that_learning_tightens(name: str) -> None:
    event = Event((2,), Support("ordinal", 3))
    model = unsup.create(name, event, preset="tiny", seed=0, dequantization="variational")
    x = torch.randint(3, (64, 2), generator=generator())
    model.prepare(Batch(x), generator=generator())
    model = model.double()
    dequantizer = model.front.dequantizer
    assert isinstance(dequantizer, VariationalDequantizer)
    perturb(model.flow, generator(1), 0.3)
    perturb(dequantizer, generator(2), 0.05)
    optimizer = torch.optim.Adam(dequantizer.parameters(), lr=0.02)

    def bound(samples: int, seed: int) -> float:
        with torch.no_grad():
            return float(model.log_prob(x, samples=samples, generator=generator(seed)).mean())

    before = bound(1, 2)
    model.front.dequantizer = UniformDequantizer()
    exact = bound(2000, 3)
    model.front.dequantizer = dequantizer
    model.train()
    for step in range(60):
        optimizer.zero_grad()
        model.loss(Batch(x), generator=generator(100 + step))["loss"].mean().backward()
        optimizer.step()
    model.eval()
    after = bound(1, 2)
    assert before < after < exact + 0.01
    assert abs(bound(400, 3) - exact) < 0.02


def test_real_data_has_no_noise_to_learn() -> None:
    with pytest.raises(InputError, match="these are real"):
        MAF(PLANE, dequantization="variational")


@pytest.mark.parametrize("name", FLOWS)
def test_conditions_change_density_and_samples(name: str) -> None:
    model = built(name, PLANE, noise=0.3, given=labels(2))
    x = torch.randn(6, 2, dtype=torch.float64, generator=generator())
    zero, one = (model.log_prob(x, given=torch.tensor(y)).detach() for y in (0, 1))
    assert not torch.allclose(zero, one)
    prior = model.log_class_prior()
    torch.testing.assert_close(
        model.log_prob(x).detach(), torch.stack([zero + prior[0], one + prior[1]]).logsumexp(0), rtol=1e-6, atol=1e-6
    )
    drawn = [model.sample(50, given=torch.tensor(y), generator=generator(5)) for y in (0, 1)]
    assert not torch.allclose(*drawn)


@pytest.mark.parametrize(("name", "millions"), [("glow", 44.0), ("flow++", 31.4)])
def test_paper_presets_have_the_size_of_their_layers(name: str, millions: float) -> None:
    """As counted from the layers of the published code, where flow++ says 31,443,440."""
    model = unsup.create(name, Event((3, 32, 32), Support("ordinal", 256)), preset="paper")
    assert abs(model.parameter_count / 1e6 / millions - 1) < 0.01


DROPPING = [
    ("maf", Event((4,), REAL), {}),
    ("maf", Event((4,), REAL), {"components": 2}),
    ("spline-flow", Event((4,), REAL), {"step": "coupling"}),
    ("spline-flow", Event((4,), REAL), {"step": "autoregressive"}),
    ("spline-flow", Event((1, 4, 4), REAL), {"scales": 2}),
    ("flow++", Event((1, 4, 4), REAL), {}),
]


@pytest.mark.parametrize(("name", "event", "options"), DROPPING)
def test_dropout_acts_in_the_loss_of_training_only(name: str, event: Event, options: dict[str, Any]) -> None:
    model, plain = (built(name, event, dropout=share, **options) for share in (0.4, 0.0))
    assert isinstance(model, Flow)
    x = torch.randn(6, *event.shape, dtype=torch.float64, generator=generator(2))
    with torch.no_grad():
        wanted = plain.log_prob(x)

        def loss(seed: int) -> Tensor:
            return model.loss(Batch(x), generator=generator(seed))["loss"]

        for mode in (False, True):
            model.train(mode)
            torch.testing.assert_close(model.log_prob(x), wanted)
            z, log_det = model.transform(x)
            torch.testing.assert_close(model.base_log_prob(z) + log_det, wanted)
            torch.testing.assert_close(model.invert(z), x, rtol=0, atol=1e-8)
        assert not torch.allclose(loss(0), loss(1))
        torch.testing.assert_close(loss(0), loss(0), rtol=0, atol=0)
        assert not torch.allclose(loss(0), -wanted)
        model.eval()
        torch.testing.assert_close(loss(0), -model.log_prob(x))  # running averages have followed


def test_dropped_units_are_a_share_and_keep_the_mean() -> None:
    h = torch.ones(200, 50)
    with dropping(True, generator()):
        dropped = Dropout(0.3)(h)
    assert abs(float((dropped == 0).float().mean()) - 0.3) < 0.02
    torch.testing.assert_close(dropped[dropped > 0], torch.full_like(dropped[dropped > 0], 1 / 0.7))
    assert Dropout(0.3).train()(h) is h


def test_public_check_of_jacobians_finds_a_wrong_sign() -> None:
    model = built("maf", Event((3,), REAL))
    assert isinstance(model, MAF)
    x = torch.randn(3, 3, dtype=torch.float64, generator=generator())
    assert model.jacobian_check(x) < 1e-9
    step = model.flow.steps[1]
    plain = type(step).forward
    try:
        type(step).forward = lambda self, x, context=None: (plain(self, x, context)[0], -plain(self, x, context)[1])
        assert model.jacobian_check(x) > 1e-3
    finally:
        type(step).forward = plain


def test_image_splines_have_the_layout_of_the_paper_and_start_as_a_rearrangement() -> None:
    event = Event((3, 8, 8), REAL)
    model = unsup.create("spline-flow", event, preset="tiny", scales=2, layers=3, seed=0).double()
    assert isinstance(model, SplineFlow)
    kinds = [type(step).__name__ for step in model.flow.steps]
    step = ["ActNorm", "TriangularMixing", "Coupling"]
    assert kinds == [*(["Squeeze", *step * 3, "TriangularMixing"] * 2), "Flatten"]
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64, generator=generator())
    z, log_det = model.transform(x)
    torch.testing.assert_close(z.sort(1).values, x.flatten(1).sort(1).values, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_det, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-5)


def test_a_pixel_of_image_splines_moves_the_other_pixels_as_the_autograd_jacobian() -> None:
    model = built("spline-flow", Event((1, 4, 4), REAL), scales=2, dropout=0.2)
    assert isinstance(model, SplineFlow)
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=generator(3))
    assert model.jacobian_check(x) < 1e-9
    z = model.encode(x)
    torch.testing.assert_close(model.invert(z), x, rtol=0, atol=1e-8)


def test_images_with_an_odd_side_and_autoregressive_steps_are_flattened() -> None:
    for event, options in ((Event((1, 3, 2), REAL), {}), (Event((1, 2, 2), REAL), {"step": "autoregressive"})):
        model = unsup.create("spline-flow", event, preset="tiny", **options)
        assert isinstance(model.flow.steps[0], Flatten)
    with pytest.raises(InputError, match="scales=2 halves"):
        SplineFlow(Event((1, 2, 2), REAL), scales=2)


@pytest.mark.parametrize("samples", [1, 64])
def test_estimates_of_discrete_data_are_not_above_the_exact_mass(samples: int) -> None:
    """The logarithm of a mean of noisy densities would be too large."""
    event = Event((2,), Support("ordinal", 3))
    exact, estimated = (built("ffjord", event, 0.4, trace=trace) for trace in ("exact", "estimate"))
    x = torch.tensor([[a, b] for a in range(3) for b in range(3)])
    with torch.no_grad():
        mass = exact.log_prob(x, samples=400, generator=generator(1))
        draws = [estimated.log_prob(x, samples=samples, generator=generator(i)) for i in range(128 // samples)]
    assert (torch.stack(draws).mean(0) < mass + 0.02).all()


def test_the_multi_scale_equation_is_inverted_and_has_its_jacobian() -> None:
    model = built("ffjord", Event((1, 6, 6), REAL), 0.2)
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64, generator=generator())
    assert isinstance(model, FFJORD)
    assert isinstance(model.flow, MultiScale)
    assert model.flow.shapes == [(2, 3, 3), (2, 3, 3)]
    assert model.jacobian_check(x[:1]) < 1e-9
    with torch.no_grad():
        torch.testing.assert_close(model.invert(model.transform(x)[0]), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", FLOWS)
def test_densities_given_numbers_are_normalised_maps(name: str) -> None:
    """p(x | c) of two real numbers c: the Jacobian is that of the map for this c, which the inverse undoes."""
    model = built(name, PLANE, 0.3, given=Event((2,), REAL))
    x, c = torch.randn(2, 3, 2, dtype=torch.float64, generator=generator()).unbind()
    assert isinstance(model, Flow)
    assert model.jacobian_check(x, given=c) < 1e-8
    z, _ = model.transform(x, given=c)
    torch.testing.assert_close(model.invert(z, given=c), x, rtol=0, atol=1e-7)
    assert not torch.allclose(model.transform(x, given=c + 1)[0], z)


@pytest.mark.parametrize("name", FLOWS)
def test_round_trips_keep_nine_digits_or_four(name: str) -> None:
    x = 2 * torch.randn(64, 4, dtype=torch.float64, generator=generator())
    for dtype, allowed in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        model = built(name, Event((4,), REAL)).to(dtype)
        assert isinstance(model, Flow)
        with torch.no_grad():
            back = model.invert(model.transform(x.to(dtype))[0]).double()
        assert float(((back - x) / (1 + x.abs())).abs().max()) < allowed


FAR = ("maf", "spline-flow", "realnvp", "nice", "planar", "radial", "sylvester", "residual-flow")


@pytest.mark.parametrize("name", FAR)
def test_rows_far_out_have_finite_scores_and_are_found_again(name: str) -> None:
    x = 1e6 * torch.randn(16, 4, dtype=torch.float64, generator=generator())
    model = built(name, Event((4,), REAL), 0.02)
    assert isinstance(model, Flow)
    with torch.no_grad():
        assert model.log_prob(x).isfinite().all()
        back = model.invert(model.transform(x)[0])
    assert float(((back - x) / (1 + x.abs())).abs().max()) < 1e-6


def test_a_jacobian_that_is_not_finite_fails_the_check() -> None:
    model = built("maf", PLANE)
    assert isinstance(model, MAF)
    for step in steps_of(model):
        step.net.top.bias.data.fill_(math.nan)
    assert model.jacobian_check(torch.zeros(1, 2, dtype=torch.float64)) == math.inf


@pytest.mark.parametrize("name", ["planar", "radial", "sylvester"])
def test_large_parameters_leave_steps_invertible(name: str) -> None:
    model = built(name, PLANE)
    for p in model.flow.parameters():
        p.data.copy_(40 * torch.randn(p.shape, dtype=torch.float64, generator=generator(p.numel() + 3)))
    for dtype in (torch.float64, torch.float32):
        x = torch.randn(200, 2, generator=generator()).to(dtype)
        assert model.to(dtype).transform(x)[1].isfinite().all()


@pytest.mark.parametrize(("name", "most"), [("ffjord", 20), ("residual-flow", 20), ("ffjord", 1), ("residual-flow", 1)])
def test_exact_log_determinants_do_not_depend_on_the_parts(
    name: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = built(name, Event((1, 4, 4), REAL), 0.2)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=generator())
    assert isinstance(model, Flow)
    with torch.no_grad():
        whole = model.transform(x)[1]
        monkeypatch.setattr("unsup.nn.traces._MOST_ENTRIES", most)
        torch.testing.assert_close(model.transform(x)[1], whole, rtol=0, atol=1e-9)


def test_the_start_from_data_takes_no_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unsup.nn.residual.jacobian", lambda *_: pytest.fail("a derivative for each entry"))
    model = unsup.create("residual-flow", Event((1, 28, 28), Support("ordinal", 256)), preset="tiny", seed=0)
    model.prepare(Batch(torch.randint(256, (4, 1, 28, 28))), generator=generator())


@pytest.mark.parametrize(("name", "earlier"), [("realnvp", 0.05), ("flow++", 0.05), ("glow", None), ("maf", 1e-6)])
def test_files_keep_their_logit(name: str, earlier: float | None, tmp_path: Path) -> None:
    model = unsup.create(name, Event((1, 4, 4), Support("ordinal", 8)), preset="tiny", seed=0)
    assert isinstance(model, Flow)
    assert model.front.logit_alpha == 1e-6
    now = model_hash(model)
    model.front.logit_alpha = 0.01
    other = model_hash(model)
    model.save(tmp_path / "model")
    again = unsup.load(tmp_path / "model")
    assert isinstance(again, Flow)
    assert again.front.logit_alpha == 0.01
    state = {k: v for k, v in model.state_dict().items() if k != "front._extra_state"}  # of an earlier version
    load_state(model, state, "a file")
    assert model.front.logit_alpha == earlier
    found = model_hash(model)
    assert (found == now) == (earlier == 1e-6)
    assert other not in (now, found)
    x = torch.randint(8, (2, 1, 4, 4), generator=generator())
    assert model.log_prob(x, generator=generator()).isfinite().all()


def test_estimates_of_real_data_are_averaged_over_samples() -> None:
    model = built("residual-flow", Event((4,), REAL), 0.4, log_det="estimate")
    x = torch.randn(1, 4, dtype=torch.float64, generator=generator())
    with torch.no_grad():
        exact = model.base_log_prob(model.transform(x)[0]) + model.transform(x)[1]
        one, many = (
            torch.stack([model.log_prob(x, samples=n, generator=generator(i)) for i in range(24)]) for n in (1, 40)
        )
    assert many.std() < one.std() / 3
    assert abs(many.mean() - exact) < 5 * many.std() / 24**0.5 + 1e-9


@pytest.mark.parametrize("name", ["maf", "realnvp", "ffjord"])
def test_wrong_shapes_are_refused(name: str) -> None:
    model = built(name, PLANE, given=Event((1,), REAL))
    assert isinstance(model, Flow)
    x, told = torch.zeros(4, 2, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64)
    for call in (model.transform, model.jacobian_check, model.log_prob):
        for wrong in (torch.zeros(4, 3), torch.zeros(2)):
            with pytest.raises(InputError, match="has shape"):
                call(wrong.double(), given=told)
    with pytest.raises(InputError, match="codes have shape"):
        model.invert(torch.zeros(4, 3), given=told)
    with pytest.raises(InputError, match="x has no examples"):
        model.jacobian_check(x[:0], given=told)
    with pytest.raises(InputError, match="samples=0"):
        model.log_prob(x, given=told, samples=0)
    assert model.jacobian_check(x, given=told[0]) == pytest.approx(model.jacobian_check(x, given=told), abs=1e-9)


@pytest.mark.parametrize(("page", "name"), [("CONTRIBUTING.md", "NICE"), ("docs/flows.md", "Stretched")])
def test_the_flow_that_a_page_describes_works(page: str, name: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if f"class {name}(Flow)" in block)
    space = dict(vars(nice_module)) if name == "NICE" else {}
    exec(compile("from __future__ import annotations\n" + code, page, "exec"), space)
    model = space[name](Event((3,), REAL))
    unsup.fit(model, torch.randn(200, 3, generator=generator()), steps=3, batch_size=20, progress="off")
    assert model.jacobian_check(torch.randn(4, 3, generator=generator())) < 1e-5
    assert model.sample(2, generator=generator(), temperature=0.5).shape == (2, 3)


ONE = [(name, {}) for name in FLOWS if name not in ("realnvp", "nice")] + [
    ("maf", {"components": 3}),
    ("naf", {"transformer": "ddsf"}),
    ("spline-flow", {"step": "autoregressive", "whiten": True}),
]


@pytest.mark.parametrize(("name", "options"), ONE)
def test_one_entry_given_a_number_has_a_density(name: str, options: dict[str, Any]) -> None:
    model = built(name, Event((1,), REAL), 0.3, given=Event((1,), REAL), **options)
    assert isinstance(model, Flow)
    x = torch.linspace(-9, 9, 16_001, dtype=torch.float64).sinh()[:, None]  # up to ±4,000
    for c in (torch.tensor([-1.0]), torch.tensor([2.0])):
        with torch.no_grad():
            density = torch.cat([model.log_prob(p, given=c.expand(len(p), 1)) for p in x.split(2000)]).exp()
        assert abs(float(torch.trapezoid(density, x[:, 0])) - 1) < 1e-3
        assert model.jacobian_check(x[8000:8003], given=c) < 1e-8
    levels = unsup.create(name, Event((1,), Support("ordinal", 5)), preset="tiny", seed=0, **options)
    assert isinstance(levels, Flow)
    levels.prepare(Batch(torch.arange(5)[:, None]), generator=generator())
    assert levels.sample(20, generator=generator()).unique().numel() > 1
