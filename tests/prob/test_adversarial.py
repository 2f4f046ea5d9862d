"""Losses of two players and penalties on gradients, against closed forms and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from unsup.core.errors import InputError
from unsup.prob.adversarial import discriminator_loss, generator_loss, gradient_penalty, r1_penalty

SHAPE = (2, 3, 4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


class Smooth(nn.Module):
    """A small critic with second derivatives everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Parameter(0.4 * draw(*s, seed=i)) for i, s in enumerate([(24, 5), (5,)]))

    def forward(self, x):
        return (x.flatten(1) @ self.one).tanh() @ self.two


# --- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_with_targets_are_cross_entropy_and_half_squares(smoothing):
    real, fake = 3 * draw(7), 3 * draw(7, seed=1)
    target, zero, none = torch.full_like(real, 1 - smoothing), torch.zeros_like(fake), {"reduction": "none"}
    entropy = binary_cross_entropy_with_logits(real, target, **none) + binary_cross_entropy_with_logits(
        fake, zero, **none
    )
    square = 0.5 * mse_loss(real, target, **none) + 0.5 * mse_loss(fake, zero, **none)
    for name, expected in (("minimax", entropy), ("non-saturating", entropy), ("least-squares", square)):
        torch.testing.assert_close(discriminator_loss(name, real, fake, smoothing), expected)


def test_losses_by_hand():
    real, fake = torch.tensor([0.5, 2.0, -1.0]), torch.tensor([0.25, -3.0, 1.5])
    assert discriminator_loss("hinge", real, fake).tolist() == pytest.approx([0.5 + 1.25, 0 + 0, 2 + 2.5])
    for name in ("wgan", "wgan-gp"):
        assert discriminator_loss(name, real, fake).tolist() == pytest.approx([-0.25, -5, 2.5])
    for name in ("wgan", "wgan-gp", "hinge"):
        assert generator_loss(name, fake).tolist() == pytest.approx([-0.25, 3, -1.5])
    sigma = fake.sigmoid()
    assert generator_loss("minimax", fake).tolist() == pytest.approx((1 - sigma).log().tolist())
    assert generator_loss("non-saturating", fake).tolist() == pytest.approx((-sigma.log()).tolist())
    assert generator_loss("least-squares", fake).tolist() == pytest.approx([0.75**2 / 2, 8, 0.125])


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("minimax", lambda p, q: (p / q).log()),
        ("non-saturating", lambda p, q: (p / q).log()),
        ("least-squares", lambda p, q: p / (p + q)),
        ("hinge", lambda p, q: (p - q).sign()),
    ],
)
def test_a_table_critic_is_best_where_the_papers_say(name, best):
    """Finite data with whole-number frequencies: the gradient is 0 at D*, and every other table is worse."""
    counts_p, counts_q = torch.tensor([4, 1, 3]), torch.tensor([1, 5, 2])
    p, q = counts_p.double() / 8, counts_q.double() / 8
    rows_p, rows_q = (torch.arange(3).repeat_interleave(c) for c in (counts_p, counts_q))

    def loss(table):
        return discriminator_loss(name, table[rows_p], table[rows_q]).mean()

    optimum = best(p, q)
    if name == "hinge":
        assert loss(optimum).item() == pytest.approx(2 * torch.minimum(p, q).sum().item())
    else:
        table = optimum.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(table), table)
        torch.testing.assert_close(gradient, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    for seed in range(20):
        assert loss(optimum + 0.3 * draw(3, seed=seed)) > loss(optimum)


def test_non_saturating_gradient_is_the_minimax_one_times_a_positive_factor_and_neither_is_lost_far_out():
    v = torch.tensor([-60.0, -18.0, -3.0, 0.0, 4.0], dtype=torch.float64).requires_grad_()
    (minimax,) = torch.autograd.grad(generator_loss("minimax", v).mean(), v)
    (strong,) = torch.autograd.grad(generator_loss("non-saturating", v).mean(), v)
    torch.testing.assert_close(strong, minimax * (-v).exp().detach())
    assert (strong < 0).all()
    assert strong[0].item() == pytest.approx(-1 / 5)


def test_smoothing_needs_targets():
    with pytest.raises(InputError, match=r"smoothing=0\.1 .*'hinge'"):
        discriminator_loss("hinge", torch.zeros(2), torch.zeros(2), 0.1)


def test_half_precision_logits_are_raised():
    v = torch.full((4,), 0.30078125, dtype=torch.bfloat16)
    assert discriminator_loss("wgan", v, v + 1).dtype == torch.float32
    assert generator_loss("non-saturating", v)[0].item() == pytest.approx(math.log1p(math.exp(-0.30078125)))


# --- penalties --------------------------------------------------------------------------------------------------------


def test_linear_critic():
    w = draw(*SHAPE)

    def critic(x):
        return (x * w).flatten(1).sum(1)

    real, fake = draw(6, *SHAPE, seed=1), draw(6, *SHAPE, seed=2)
    norm = w.square().sum().sqrt().item()
    assert gradient_penalty(critic, real, fake, seeded()).tolist() == pytest.approx([(norm - 1) ** 2] * 6)
    assert r1_penalty(critic, real).tolist() == pytest.approx([norm**2] * 6)


def test_quadratic_critic():
    """∇ ½xᵀAx = A_s x with A_s = ½(A + Aᵀ); the points x̂ of GP are the convex combinations, ε drawn once a row."""
    a = draw(24, 24)
    symmetric = (a + a.T) / 2

    def critic(x):
        return 0.5 * torch.einsum("bi,ij,bj->b", x.flatten(1), a, x.flatten(1))

    real, fake = draw(6, *SHAPE, seed=1), draw(6, *SHAPE, seed=2)
    expected = [(symmetric @ x.flatten()).square().sum().item() for x in real]
    assert r1_penalty(critic, real).tolist() == pytest.approx(expected)
    epsilon = torch.rand(6, generator=seeded(5), dtype=torch.float64)
    points = [e * x + (1 - e) * y for e, x, y in zip(epsilon, real, fake, strict=True)]
    expected = [((symmetric @ x.flatten()).norm().item() - 1) ** 2 for x in points]
    assert gradient_penalty(critic, real, fake, seeded(5)).tolist() == pytest.approx(expected)


def test_each_example_has_its_own_epsilon_and_shares_it_among_its_entries():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    gradient_penalty(critic, torch.ones(500, *SHAPE), torch.zeros(500, *SHAPE), seeded())
    epsilon = seen[0].flatten(1)
    assert (epsilon == epsilon[:, :1]).all()  # x̂ = ε where x = 1 and G(z) = 0
    ordered = epsilon[:, 0].sort().values
    assert (ordered - torch.arange(500) / 500).abs().max() < 1.95 / math.sqrt(500)  # Kolmogorov–Smirnov, p = 0.001


def test_two_point_masses():
    """Data at 3, samples at 1: of critics v·x + c, those of slope ±1 have no penalty, and slope 1 shows W = 2."""
    real, fake = torch.full((8, 1), 3.0), torch.full((8, 1), 1.0)
    for slope, penalty in ((1.0, 0.0), (-1.0, 0.0), (0.5, 0.25), (3.0, 4.0)):
        found = gradient_penalty(lambda x, s=slope: s * x[:, 0] + 7, real, fake, seeded())
        assert found.tolist() == pytest.approx([penalty] * 8)
    assert -discriminator_loss("wgan-gp", real[:, 0], fake[:, 0]).mean().item() == pytest.approx(2.0)


@pytest.mark.parametrize("penalty", ["gradient", "r1"])
def test_derivatives_by_the_parameters_are_finite_differences(penalty):
    critic = Smooth()
    real, fake = draw(5, *SHAPE, seed=3), draw(5, *SHAPE, seed=4)

    def value():
        found = r1_penalty(critic, real) if penalty == "r1" else gradient_penalty(critic, real, fake, seeded(1))
        return found.mean()

    gradients = torch.autograd.grad(value(), list(critic.parameters()))
    step = 1e-6
    for parameter, gradient in zip(critic.parameters(), gradients, strict=True):
        flat = parameter.data.view(-1)
        for i in range(0, len(flat), 7):
            ends = []
            for sign in (1, -1):
                flat[i] += sign * step
                ends.append(value().item())
                flat[i] -= sign * step
            assert gradient.view(-1)[i].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-8)


def test_no_gradient_reaches_data_or_samples():
    critic, real, fake = Smooth(), draw(3, *SHAPE).requires_grad_(), draw(3, *SHAPE, seed=1).requires_grad_()
    (gradient_penalty(critic, real, fake, seeded()) + r1_penalty(critic, real)).mean().backward()
    assert real.grad is None
    assert fake.grad is None
    assert critic.one.grad is not None


def test_without_gradients_the_values_are_the_same():
    critic, real, fake = Smooth(), draw(3, *SHAPE), draw(3, *SHAPE, seed=1)
    expected = gradient_penalty(critic, real, fake, seeded()).tolist(), r1_penalty(critic, real).tolist()
    with torch.no_grad():
        found = gradient_penalty(critic, real, fake, seeded()), r1_penalty(critic, real)
    assert tuple(f.tolist() for f in found) == expected
    assert not any(f.requires_grad for f in found)


def test_autocast_does_not_round_the_penalty():
    layer = nn.Linear(24, 1)

    def critic(x):
        return layer(x.flatten(1)).squeeze(1)

    real, fake = draw(4, *SHAPE).float(), draw(4, *SHAPE, seed=1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = gradient_penalty(critic, real, fake, seeded()), r1_penalty(critic, real)
    norm = layer.weight.detach().norm().item()
    assert found[0].tolist() == pytest.approx([(norm - 1) ** 2] * 4, rel=1e-5)
    assert found[1].tolist() == pytest.approx([norm**2] * 4, rel=1e-5)
