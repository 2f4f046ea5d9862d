"""Residual flows beside closed forms: scaled and linear steps, singular values of convolutions, determinants."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unsup
from unsup.core.batch import Batch, Time
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support, labels
from unsup.families.flows.residual_flow import ResidualFlow
from unsup.nn.residual import (
    COEFFICIENT,
    Lipschitz,
    LipschitzConv,
    LipschitzDense,
    LipschitzNet,
    LipSwish,
    Residual,
    fixed_point,
)
from unsup.nn.traces import traces
from unsup.testing.subject import perturb

PLANE = Event((2,), REAL)
LEVELS = Event((1, 4, 4), Support("ordinal", 4))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(event: Event, noise: float = 0.3, **options: Any) -> ResidualFlow:
    model = unsup.create("residual-flow", event, seed=0, preset="tiny", **options).double()
    assert isinstance(model, ResidualFlow)
    perturb(model, generator(1), noise)
    return model.eval()


class Same(LipSwish):
    """φ(h) = h."""

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return h, torch.ones_like(h)


def linear_step(*matrices: Tensor, exact: bool = False) -> Residual:
    """y = x + A₂ A₁ x with matrices of norm below 0.98."""
    layers: list[Lipschitz] = []
    for matrix in matrices:
        layer = LipschitzDense(matrix.shape[1], matrix.shape[0]).double()
        layer.weight.data.copy_(matrix)
        layers.append(layer)
    net = LipschitzNet(layers, 0, activated=False)
    net.activations = nn.ModuleList(Same() for _ in net.activations)
    return Residual(net, exact=exact).eval()


def contraction(dims: int, norm: float, seed: int = 0) -> Tensor:
    matrix = torch.randn(dims, dims, dtype=torch.float64, generator=generator(seed))
    return norm * matrix / torch.linalg.matrix_norm(matrix, 2)


def net(dims: int = 3) -> LipschitzNet:
    torch.manual_seed(0)
    found = LipschitzNet([LipschitzDense(dims, 16), LipschitzDense(16, 16), LipschitzDense(16, dims)], 0).double()
    perturb_norms(found, 2.0)
    return found.eval()


def perturb_norms(module: nn.Module, factor: float) -> None:
    """Weights far above the bound."""
    for layer in module.modules():
        if isinstance(layer, Lipschitz):
            layer.weight.data.mul_(factor)
            layer.bias.data.normal_(generator=generator(4))


def as_matrix(layer: Lipschitz, weight: Tensor, inputs: tuple[int, ...]) -> Tensor:
    """The linear map, column by column."""
    eye = torch.eye(math.prod(inputs), dtype=weight.dtype).view(-1, *inputs)
    return layer.map(eye, weight).flatten(1).T


@pytest.mark.parametrize("exact", [True, False])
def test_a_scaled_identity_has_log_1_plus_c_for_each_entry(exact: bool) -> None:
    c, x = 0.3, torch.randn(4, 5, dtype=torch.float64, generator=generator())
    step = linear_step(0.6 * torch.eye(5).double(), 0.5 * torch.eye(5).double(), exact=exact)
    with torch.no_grad(), traces("random", generator(1)):
        y, log_det = step(x)
    torch.testing.assert_close(y, (1 + c) * x)
    # with random signs the traces of multiples of I are exact; the roulette after 20 terms adds 0.3^21 at most
    torch.testing.assert_close(log_det, torch.full_like(log_det, 5 * math.log1p(c)), rtol=0, atol=1e-9)


def test_linear_steps_have_the_determinant_of_their_matrix() -> None:
    a, b = contraction(4, 0.9), contraction(4, 0.95, 1)
    exact = torch.linalg.slogdet(torch.eye(4) + b @ a).logabsdet
    x = torch.randn(20_000, 4, dtype=torch.float64, generator=generator())
    with torch.no_grad():
        y, log_det = linear_step(a, b, exact=True)(x[:3])
        torch.testing.assert_close(y, x[:3] + x[:3] @ (b @ a).T)
        torch.testing.assert_close(log_det, exact.expand(3), rtol=1e-10, atol=1e-12)
        with traces("random", generator(1)):
            estimate = linear_step(a, b)(x)[1]
    assert abs(float(estimate.mean() - exact)) < 5 * float(estimate.std()) / math.sqrt(len(x))


def test_series_converges_to_the_exact_determinant() -> None:
    step, x = Residual(net(), exact=False).eval(), torch.randn(2, 3, dtype=torch.float64, generator=generator())
    with torch.no_grad():
        exact = step(x)[1]
        repeated = x.repeat_interleave(4000, 0)
        found = []
        for seed in range(20):
            with traces("random", generator(seed)):
                found.append(step(repeated)[1].view(2, -1).mean(1))
    estimates = torch.stack(found)
    error = estimates.std(0) / math.sqrt(len(found))
    assert bool(((estimates.mean(0) - exact).abs() < 5 * error).all())
    assert bool((error < 0.01).all())


def test_training_estimates_have_the_gradient_of_the_exact_determinant() -> None:
    step = Residual(net(), exact=False).train()
    x = torch.randn(1, 3, dtype=torch.float64, generator=generator())

    def gradient(n: int, way: Any, seed: int = 0) -> tuple[float, Tensor]:
        step.zero_grad()
        with traces(way, generator(seed)):
            log_det = step(x.expand(n, -1))[1].mean()
        log_det.backward()
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in step.parameters()]
        return float(log_det.detach()), torch.cat([g.flatten() for g in own])

    value, exact = gradient(1, "exact")
    draws = [gradient(200, "random", seed) for seed in range(300)]
    values, found = torch.tensor([v for v, _ in draws]), torch.stack([g for _, g in draws])
    assert abs(float(values.mean()) - value) < 5 * float(values.std()) / math.sqrt(len(draws))
    # along fixed directions, so that few statements are tested
    for direction in (exact / exact.norm(), torch.randn(exact.shape, generator=generator(9)).double()):
        along = found @ direction
        assert abs(float(along.mean() - exact @ direction)) < 5 * float(along.std()) / math.sqrt(len(draws))
    assert float((found.mean(0) - exact).norm() / exact.norm()) < 0.2


def test_training_reports_the_estimate() -> None:
    """With the same draws, the number with and without a graph is the same."""
    step = Residual(net(), exact=False).train()
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator())
    with traces("random", generator(3)):
        learned = step(x)[1]
    with torch.no_grad(), traces("random", generator(3)):
        plain = step(x)[1]
    assert learned.requires_grad
    torch.testing.assert_close(learned.detach(), plain, rtol=1e-12, atol=1e-12)


def test_the_number_of_terms_is_that_of_training_or_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = []
    module = __import__("unsup.nn.residual", fromlist=["log_det_series"])
    for name in ("log_det_series", "log_det_by_neumann"):
        plain = getattr(module, name)
        monkeypatch.setattr(module, name, lambda a, p, w, plain=plain: (numbers.append(w), plain(a, p, w))[1])
    step, x = Residual(net(), exact=False), torch.zeros(1, 3, dtype=torch.float64)
    for training, exact_terms in ((True, 2), (False, 20)):
        numbers.clear()
        for seed in range(50):
            with traces("random", generator(seed)):
                step.train(training)(x)
        assert all(w[: exact_terms + 1] == [1] * (exact_terms + 1) for w in numbers)
        assert min(map(len, numbers)) == exact_terms + 1
        assert any(w[-1] > 1 for w in numbers)


def test_the_inverse_contracts_at_the_rate_of_the_lipschitz_constant() -> None:
    a = contraction(3, 0.8)
    y = torch.randn(6, 3, dtype=torch.float64, generator=generator())
    exact = torch.linalg.solve(torch.eye(3) + a, y.T).T
    errors, x = [], y
    for _ in range(30):
        errors.append(float((x - exact).norm(dim=1).max()))
        x = y - x @ a.T
    assert all(after <= 0.8 * before * (1 + 1e-9) for before, after in pairwise(errors))
    torch.testing.assert_close(fixed_point(lambda x: y - x @ a.T, y), exact, rtol=0, atol=1e-11)
    step = linear_step(a, 0.9 * torch.eye(3).double())
    there = step(y)[0]
    torch.testing.assert_close(step.inverse(there), y, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_decoding_is_the_inverse(dtype: torch.dtype, tolerance: float) -> None:
    for event in (PLANE, Event((2, 4, 4), REAL)):
        model = built(event, steps=4).to(dtype)
        x = torch.randn(20, *event.shape, dtype=dtype, generator=generator())
        with torch.no_grad():
            z, _ = model.transform(x)
            torch.testing.assert_close(model.invert(z), x, rtol=0, atol=tolerance)


def test_the_gradient_of_the_inverse_is_that_of_the_implicit_function() -> None:
    step = Residual(net(), exact=True).eval()
    y = torch.randn(3, dtype=torch.float64, generator=generator())
    found = torch.autograd.functional.jacobian(lambda y: step.inverse(y[None])[0], y)
    forward = torch.autograd.functional.jacobian(lambda x: step(x[None])[0][0], step.inverse(y[None])[0].detach())
    torch.testing.assert_close(found, torch.linalg.inv(forward), rtol=1e-8, atol=1e-10)
    bias = step.net.layers[0].bias
    assert isinstance(bias, Tensor)
    step.inverse(y[None]).sum().backward()
    assert bias.grad is not None
    said, change = bias.grad[0].clone(), 1e-6
    ends = []
    for sign in (1, -1):
        bias.data[0] += sign * change
        ends.append(float(step.inverse(y[None]).sum().detach()))
        bias.data[0] -= sign * change
    assert (ends[0] - ends[1]) / (2 * change) == pytest.approx(float(said), rel=1e-6)


@pytest.mark.parametrize(("kernel", "sides"), [(3, (5, 4)), (3, (2, 2)), (3, (1, 3)), (1, (4, 4)), (5, (3, 6))])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 3), (4, 1)])
def test_norms_of_convolutions_are_those_of_their_matrix(
    kernel: int, sides: tuple[int, int], inputs: int, outputs: int
) -> None:
    torch.manual_seed(0)
    layer = LipschitzConv(inputs, outputs, kernel, sides).double().eval()
    layer.weight.data.mul_(5)
    matrix = as_matrix(layer, layer.weight.detach(), (inputs, *sides))
    transposed = layer.transposed(torch.eye(len(matrix)).double().view(-1, outputs, *sides), layer.weight.detach())
    torch.testing.assert_close(transposed.flatten(1), matrix)
    norm = torch.linalg.matrix_norm(matrix, 2)
    assert norm > COEFFICIENT
    bounded = layer.bounded().detach()
    torch.testing.assert_close(bounded, layer.weight.detach() * COEFFICIENT / norm, rtol=1e-9, atol=1e-12)
    reshaped = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
    if kernel == 3 and min(sides) > 1:
        assert abs(float(reshaped / norm) - 1) > 0.01  # the norm of the kernel is another number


def test_small_weights_are_not_scaled_up() -> None:
    layer = LipschitzDense(3, 4).double().eval()
    layer.weight.data.mul_(0.01)
    torch.testing.assert_close(layer.bounded(), layer.weight, rtol=0, atol=0)


def test_slopes_of_the_activation_are_its_derivative_and_at_most_one() -> None:
    activation = LipSwish().double()
    for sharpness in (-5.0, 0.5, 5.0):
        activation.sharpness.data.fill_(sharpness)
        h = torch.linspace(-200, 200, 40_001, dtype=torch.float64).requires_grad_()
        value, slope = activation(h)
        (exact,) = torch.autograd.grad(value.sum(), h)
        torch.testing.assert_close(slope, exact, rtol=1e-12, atol=1e-12)
        assert float(slope.detach().abs().max()) < 1


@pytest.mark.parametrize("event", [Event((3,), REAL), LEVELS], ids=["vectors", "images"])
def test_the_bound_holds_after_steps_with_a_high_learning_rate(event: Event) -> None:
    model = unsup.create("residual-flow", event, seed=0, preset="tiny", hidden=(12, 12))
    assert isinstance(model, ResidualFlow)
    x = torch.randn(64, 3, generator=generator()) ** 3 if event is not LEVELS else torch.randint(4, (64, 1, 4, 4))
    model.prepare(Batch(x), generator=generator())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.3)
    model.train()
    above = 0
    for number in range(25):
        optimizer.zero_grad()
        model.loss(Batch(x), generator=generator(number))["loss"].mean().backward()
        optimizer.step()
        model.after_step(Time(number, 25))
        above += sum(bool(_norm(part, part.weight) > 2) for part in model.modules() if isinstance(part, Lipschitz))
        for part in model.modules():
            if isinstance(part, Residual):  # also with the tolerance of training
                assert math.prod(_norm(layer, layer.bounded()) for layer in part.net._layers()) < COEFFICIENT
    assert above > 25  # the weights themselves are far above the bound
    model.eval()
    for part in model.modules():
        if isinstance(part, Lipschitz):
            assert _norm(part, part.bounded()) < COEFFICIENT * (1 + 1e-4)
        if isinstance(part, Residual):
            first = part.net._layers()[0]
            shape = _inputs(first)
            a, b = (3 * torch.randn(500, *shape, generator=generator(seed)) for seed in (1, 2))
            b = a + (b - a) * torch.logspace(-3, 0, 500).view(-1, *[1] * len(shape))
            with torch.no_grad():
                weights = part.net.weights()
                one, two = (part.net(v, None, weights).value for v in (a, b))
            ratio = (one - two).flatten(1).norm(dim=1) / (a - b).flatten(1).norm(dim=1)
            assert 0 < float(ratio.max()) < COEFFICIENT


def _inputs(layer: Lipschitz) -> tuple[int, ...]:
    if layer.weight.ndim == 2:
        return (layer.weight.shape[1],)
    return (layer.weight.shape[1], *layer.u.shape[1:])


def _norm(layer: Lipschitz, weight: Tensor) -> float:
    return float(torch.linalg.matrix_norm(as_matrix(layer, weight.detach(), _inputs(layer)), 2))


def test_scoring_keeps_the_bound_if_the_stored_vectors_are_old() -> None:
    model = built(PLANE)
    perturb(model, generator(5), 3.0)
    for part in model.modules():
        if isinstance(part, Lipschitz):
            assert _norm(part, part.weight) > 2
            assert _norm(part, part.bounded()) == pytest.approx(COEFFICIENT)


@pytest.mark.parametrize("event", [PLANE, Event((3, 4, 4), REAL), LEVELS], ids=["vectors", "colours", "grey"])
def test_kinds_of_likelihoods(event: Event) -> None:
    few = event is PLANE
    assert built(event).likelihood_kind == ("exact" if few else "estimate")
    assert built(event, log_det="estimate").likelihood_kind == "estimate"
    assert built(event, log_det="exact").likelihood_kind == ("bound" if event is LEVELS else "exact")


def test_estimated_scores_have_the_mean_of_exact_ones() -> None:
    event = Event((9,), REAL)
    model, exact = built(event), built(event, log_det="exact")
    x = torch.randn(5, 9, dtype=torch.float64, generator=generator())
    with torch.no_grad():
        scores = torch.stack([model.log_prob(x, generator=generator(seed)) for seed in range(400)])
        right = exact.log_prob(x)
    assert float(scores.std(0).min()) > 0
    assert bool(((scores.mean(0) - right).abs() < 5 * scores.std(0) / 20).all())


def test_a_condition_moves_all_steps_and_keeps_the_inverse() -> None:
    model = built(Event((1, 4, 4), REAL), given=labels(3), noise=1.0)
    x = torch.randn(4, 1, 4, 4, dtype=torch.float64, generator=generator())
    codes = [model.transform(x, given=torch.full((4,), label))[0] for label in range(3)]
    assert not torch.allclose(codes[0], codes[1])
    torch.testing.assert_close(model.invert(codes[2], given=torch.full((4,), 2)), x, rtol=0, atol=1e-9)


def test_the_paper_preset_has_the_layers_of_the_published_code() -> None:
    """Counted from the code of the authors: kernels 3, 1, 3 and 512 channels, 4 dense steps of 128 units."""
    model = unsup.create("residual-flow", Event((3, 32, 32), Support("ordinal", 256)), preset="paper")
    norms, own = 2 * 3, 0
    for channels in (3, 12, 48):
        step = 512 * (9 * channels + 1) + 512 * (512 + 1) + channels * (9 * 512 + 1)
        own += 16 * (step + 3 + 2 * channels)
    dense = 128 * (3072 + 1) + 128 * (128 + 1) + 3072 * (128 + 1)
    own += 4 * (dense + 3 + 2 * 3072) + norms - 1  # no activation before the first step
    assert model.parameter_count == own


def test_scales_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="scales=3 halves the sides 2 times"):
        ResidualFlow(Event((1, 6, 6), REAL), scales=3)
    with pytest.raises(InputError, match="no hidden layer"):
        ResidualFlow(PLANE, hidden=())
