"""Approximate posteriors: densities by quadrature and autograd, identities, closed forms."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from unsup import InputError
from unsup.nn.inference import Inference, inference_for
from unsup.nn.invertible import Smooth
from unsup.nn.posterior import DiagonalGaussian, FullGaussian, Transformed

NAMES = ("diagonal", "full", "planar", "sylvester", "iaf")


def built(name: str, latents: int = 3, steps: int = 3) -> Inference:
    torch.manual_seed(0)
    inference = inference_for(name, latents, steps=steps, hidden=(7,), owner="M").double()
    for parameter in inference.parameters():
        parameter.data.normal_(0, 0.5)
    return inference


def outputs(inference: Inference, n: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, inference.outputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_the_density_is_that_of_the_map_of_the_noise(name: str) -> None:
    inference = built(name)
    q = inference(outputs(inference, 4, 3.0))
    noise = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    z, log_q = q.placed(noise)
    for k in range(2):
        for b in range(4):

            def at(own: Tensor, k: int = k, b: int = b) -> Tensor:
                whole = noise.clone()
                whole[k, b] = own
                return q.placed(whole)[0][k, b]

            jacobian = torch.autograd.functional.jacobian(at, noise[k, b])
            assert isinstance(jacobian, Tensor)
            base = -0.5 * (noise[k, b].square().sum() + 3 * math.log(2 * math.pi))
            expected = base - torch.linalg.slogdet(jacobian).logabsdet
            torch.testing.assert_close(log_q[k, b], expected)
    one, log_one = q.placed(noise[0])
    torch.testing.assert_close(one, z[0])
    torch.testing.assert_close(log_one, log_q[0])


@pytest.mark.parametrize("name", ["planar", "sylvester", "iaf"])
def test_flows_are_invertible_and_their_densities_integrate_to_one(name: str) -> None:
    inference = built(name, latents=2, steps=2)
    q = inference(outputs(inference, 1, 2.0))
    g = torch.linspace(-9, 9, 400, dtype=torch.float64)
    noise = torch.cartesian_prod(g, g)[:, None]  # a fine grid of the noise: its image must not fold
    z, log_q = q.placed(noise)
    base = -0.5 * (noise.square().sum(-1) + 2 * math.log(2 * math.pi))
    area = (log_q - base).exp()  # density of z by that of ε: |det ∂ε/∂z|, positive everywhere
    assert bool((area > 0).all())
    grid = z.view(400, 400, 2)
    dx, dy = grid[1:, :-1] - grid[:-1, :-1], grid[:-1, 1:] - grid[:-1, :-1]
    cells = dx[..., 0] * dy[..., 1] - dx[..., 1] * dy[..., 0]
    assert bool((cells > 0).all()) or bool((cells < 0).all())
    mass = (log_q.view(400, 400)[:-1, :-1].exp() * cells.abs()).sum()
    assert float(mass) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", ["planar", "sylvester"])
def test_without_outputs_for_the_steps_a_flow_is_its_base(name: str) -> None:
    inference = inference_for(name, 3, steps=4, hidden=(7,), owner="M")
    own = torch.zeros(2, inference.outputs)
    own[:, :6] = torch.randn(2, 6)
    q, base = inference(own), DiagonalGaussian.of(own[:, :6])
    noise = torch.randn(5, 2, 3)
    for found, expected in zip(q.placed(noise), base.placed(noise), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(q.centre(), base.mean)


def test_inverse_autoregressive_steps_start_as_one_scaling() -> None:
    inference = inference_for("iaf", 3, steps=2, hidden=(7,), owner="M")
    own = torch.randn(2, inference.outputs)
    q = inference(own)
    assert isinstance(q, Transformed)
    z, log_q = q.placed(noise := torch.randn(5, 2, 3))
    first, log_first = q.base.placed(noise)
    gate = torch.tensor(2.0).sigmoid()
    torch.testing.assert_close(z, first * gate**2)
    torch.testing.assert_close(log_q, log_first - 6 * gate.log())


def test_a_full_gaussian_is_that_of_torch() -> None:
    inference = built("full", latents=4)
    q = inference(outputs(inference, 3))
    assert isinstance(q, FullGaussian)
    theirs = MultivariateNormal(q.mean, scale_tril=q.factor)
    standard = MultivariateNormal(torch.zeros(4).double(), torch.eye(4).double())
    z, log_q = q.draw(torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_q, theirs.log_prob(z))
    torch.testing.assert_close(q.log_prob(z), log_q)
    torch.testing.assert_close(q.kl(), kl_divergence(theirs, standard))
    held = z.detach().requires_grad_()
    q.held().log_prob(held).sum().backward()
    assert held.grad is not None


def test_one_latent_has_no_flow() -> None:
    with pytest.raises(InputError, match=r"posterior='iaf' needs 2 latents or more, got latent_dim=1"):
        inference_for("iaf", 1, steps=2, hidden=(7,), owner="VAE")


@pytest.mark.parametrize("name", ["planar", "sylvester"])
def test_steps_of_a_flow_are_inverted_and_have_their_jacobian(name: str) -> None:
    """Each example has steps of its own, which are those of `placed`."""
    inference = built(name)
    q = inference(outputs(inference, 5, 3.0))
    assert isinstance(q, Transformed)
    noise = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    z, log_det = q.base.at(noise), torch.zeros(5, dtype=torch.float64)
    for step in q.steps():
        assert isinstance(step, Smooth)
        y, more = step(z)
        torch.testing.assert_close(step.inverse(y), z, rtol=0, atol=1e-11)
        for i in range(5):
            at = torch.autograd.functional.jacobian(partial(_at, step, z, i), z[i])
            assert isinstance(at, Tensor)
            torch.testing.assert_close(step.jacobian(z)[i], at)
            torch.testing.assert_close(torch.linalg.slogdet(at).logabsdet, more[i])
        z, log_det = y, log_det + more
    torch.testing.assert_close(z, q.placed(noise)[0])


def _at(step: Smooth, z: Tensor, i: int, own: Tensor) -> Tensor:
    """The value of example i, if it is ``own``."""
    whole = z.clone()
    whole[i] = own
    y: Tensor = step(whole)[0]
    return y[i]
