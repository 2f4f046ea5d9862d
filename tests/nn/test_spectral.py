"""Spectral normalisation against singular values, finite differences and PyTorch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm as torch_spectral_norm

from unsup.core.errors import InputError
from unsup.nn.spectral import SpectralNorm, computed_once, spectral_norm


def layers() -> list[tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(0)
    return [
        (nn.Linear(7, 5).double(), torch.randn(3, 7, dtype=torch.float64)),
        (nn.Conv2d(3, 6, (3, 2)).double(), torch.randn(2, 3, 5, 5, dtype=torch.float64)),
        (nn.Embedding(9, 4).double(), torch.tensor([0, 3, 8])),
    ]


def sigma(weight: torch.Tensor) -> float:
    return torch.linalg.matrix_norm(weight.detach().flatten(1), 2).item()


@pytest.mark.parametrize("which", range(3), ids=["linear", "conv", "embedding"])
def test_sigma_is_the_largest_singular_value_after_many_passes(which):
    layer, x = layers()[which]
    original = layer.weight.detach().clone()
    with torch.no_grad():
        expected = layer(x)
        if not isinstance(layer, nn.Embedding):
            expected = expected - layer(torch.zeros_like(x))  # without its bias
        assert spectral_norm(layer) is layer
        for _ in range(300):
            layer(x)
        layer.eval()
        found = layer(x) if isinstance(layer, nn.Embedding) else layer(x) - layer(torch.zeros_like(x))
    torch.testing.assert_close(layer.weight.detach() * sigma(original), original)
    torch.testing.assert_close(found * sigma(original), expected)


def test_one_pass_is_one_iteration():
    layer, x = layers()[1]
    spectral_norm(layer)
    weight = layer.parametrizations.weight.original.detach().flatten(1)
    u = layer.parametrizations.weight[0].u.clone()
    for _ in range(3):
        v = weight.T @ u / (weight.T @ u).norm()
        u = weight @ v / (weight @ v).norm()
        y = layer(x)
        scale = torch.nn.functional.conv2d(x, weight.view(6, 3, 3, 2)) / (y - layer.bias.view(-1, 1, 1))
        torch.testing.assert_close(scale, torch.full_like(y, float(u @ weight @ v)))
        torch.testing.assert_close(layer.parametrizations.weight[0].u, u)


@pytest.mark.parametrize("which", range(3), ids=["linear", "conv", "embedding"])
def test_agrees_with_pytorch_once_converged(which):
    """PyTorch's takes the two half-iterations in the other order, so that only the limits are the same."""
    ours, x = layers()[which]
    theirs = torch_spectral_norm(copy.deepcopy(ours))
    spectral_norm(ours)
    results = []
    for layer in (ours, theirs):
        for _ in range(1000):
            y = layer(x)
        (gradient,) = torch.autograd.grad(y.square().sum(), layer.parametrizations.weight.original)
        results.append((y, gradient))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_the_gradient_goes_through_sigma():
    """Finite differences of (W / uᵀWv) · C with u and v held, and of W / σ(W) once they have converged."""
    torch.manual_seed(0)
    weight, c = (torch.randn(4, 3, 2, 2, dtype=torch.float64) for _ in range(2))
    norm = SpectralNorm(weight)
    for _ in range(500):
        norm(weight)
    norm.eval()

    def value(w):
        return (w / sigma(w) * c).sum()

    w = weight.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((norm(w) * c).sum(), w)
    numeric = torch.zeros_like(weight).view(-1)
    for i in range(weight.numel()):
        step = torch.zeros_like(weight).view(-1)
        step[i] = 1e-6
        step = step.view_as(weight)
        numeric[i] = (value(weight + step) - value(weight - step)) / 2e-6
    torch.testing.assert_close(gradient.view(-1), numeric, rtol=1e-6, atol=1e-7)
    assert (gradient * weight).sum().abs() < 1e-9  # a longer W is the same W̄


def test_evaluation_moves_nothing():
    layer, x = layers()[0]
    spectral_norm(layer).eval()
    before = layer.parametrizations.weight[0].u.clone()
    first = layer(x)
    assert torch.equal(layer(x), first)
    assert torch.equal(layer.parametrizations.weight[0].u, before)
    layer.train()(x)
    assert not torch.equal(layer.parametrizations.weight[0].u, before)


def test_two_passes_before_one_backward():
    """Each pass has its own σ, and the gradient is the sum of those of the passes alone."""
    layer, x = layers()[0]
    spectral_norm(layer)
    alone = copy.deepcopy(layer)
    (layer(x).square().sum() + layer(2 * x).square().sum()).backward()
    total = torch.zeros_like(alone.parametrizations.weight.original)
    for scale in (1, 2):
        total += torch.autograd.grad(alone(scale * x).square().sum(), alone.parametrizations.weight.original)[0]
    torch.testing.assert_close(layer.parametrizations.weight.original.grad, total)
    still = layer.eval()(x).sum()
    layer.train()(x)  # moves u, but not the one in the graph of the pass before
    still.backward()


def test_a_stack_stretches_no_distance():
    torch.manual_seed(0)
    parts = [nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 4)]
    stack = nn.Sequential(*(spectral_norm(p) if isinstance(p, nn.Linear) else p for p in parts)).double()
    with torch.no_grad():
        for p in stack.parameters():
            p.mul_(5)
        x, y = torch.randn(2, 2000, 6, dtype=torch.float64)
        for _ in range(200):
            stack(x[:1])
        stack.eval()
        near = x + 1e-4 * (y - x)
        for other in (y, near):
            ratio = (stack(x) - stack(other)).norm(dim=1) / (x - other).norm(dim=1)
            assert ratio.max() <= 1 + 1e-6


def test_state_survives_a_file_and_double_backward_works():
    layer, x = layers()[1]
    spectral_norm(layer)
    layer(x)
    other = spectral_norm(layers()[1][0])
    other.load_state_dict(load(save(layer.state_dict())))
    assert torch.equal(layer.eval()(x), other.eval()(x))
    x = x.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).tanh().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert layer.parametrizations.weight.original.grad.abs().sum() > 0


def test_channels_last_weights_and_autocast_change_nothing():
    layer, x = layers()[1]
    layer, x = spectral_norm(layer.float()), x.float()
    last = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x), last(x))
    norm = layer.parametrizations.weight[0]
    weight = layer.parametrizations.weight.original
    twin = copy.deepcopy(norm)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(weight)
    assert found.dtype == torch.float32
    assert torch.equal(found, twin(weight))


def test_other_modules_are_refused():
    with pytest.raises(InputError, match=r"BatchNorm1d; expected nn\.Linear"):
        spectral_norm(nn.BatchNorm1d(3))


def test_weights_computed_once_are_each_models_own():
    """Of two that hold their weights at the same time, in threads say, the first to end does not wait for the other."""
    first, second = (spectral_norm(nn.Linear(3, 2)).eval() for _ in range(2))
    a, b = computed_once(first), computed_once(second)
    a.__enter__()
    held = first.weight
    assert first.weight is held
    b.__enter__()
    a.__exit__(None, None, None)
    with torch.no_grad():
        first.parametrizations.weight.original.neg_()
    torch.testing.assert_close(first.weight, -held)
    b.__exit__(None, None, None)
