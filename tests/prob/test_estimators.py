"""Estimators of gradients through discrete draws: their means over all draws of a latent with four values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unsup.prob import bounds, estimators

Estimator = Callable[[Tensor, Tensor], Tensor]


def leaves(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Parameters: log p(x, z) of the four z, and the logits of q."""
    generator = torch.Generator().manual_seed(seed)
    log_p = (torch.rand(4, generator=generator, dtype=torch.float64) + 0.05).log() - 1
    return log_p.requires_grad_(), torch.randn(4, generator=generator, dtype=torch.float64).requires_grad_()


def exact(k: int) -> tuple[Tensor, Tensor, Tensor]:
    """L_k and its gradients: the bound is averaged over all draws before it is differentiated."""
    log_p, logits = leaves()
    log_q = logits.log_softmax(0)
    draws = torch.tensor(list(itertools.product(range(4), repeat=k))).T
    chance = log_q[draws].sum(0).exp()
    value = (chance * bounds.iwae((log_p - log_q)[draws])).sum()
    return value.detach(), *torch.autograd.grad(value, (log_p, logits))


def nvil(log_p: Tensor, log_q: Tensor, baselines: Tensor | None = None) -> Tensor:
    """Of one layer, with log p(x, z) as the second of its parts."""
    return estimators.nvil(torch.stack([torch.zeros_like(log_p), log_p]), log_q[None], baselines)[0]


def mean(estimator: Estimator, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The mean over all draws of the value and of the gradients of an estimator."""
    log_p, logits = leaves()
    log_q = logits.log_softmax(0)
    draws = torch.tensor(list(itertools.product(range(4), repeat=k))).T
    chance = log_q[draws].sum(0).exp().detach()
    value = (chance * estimator(log_p[draws], log_q[draws])).sum()
    found = torch.autograd.grad(value, (log_p, logits), allow_unused=True)
    return value.detach(), *(torch.zeros(4) if g is None else g for g in found)


@pytest.mark.parametrize(
    ("estimator", "k"),
    [
        (lambda p, q: nvil(p, q), 1),
        (lambda p, q: nvil(p, q, torch.full_like(q[None], -7.0)), 1),
        (estimators.reinforce, 1),
        (estimators.reinforce, 3),
        (estimators.vimco, 2),
        (estimators.vimco, 4),
    ],
)
def test_the_mean_of_an_unbiased_estimator_is_the_gradient_of_the_bound(estimator: Estimator, k: int) -> None:
    for found, expected in zip(mean(estimator, k), exact(k), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_baseline_that_depends_on_its_draw_is_biased() -> None:
    found = mean(lambda p, q: nvil(p, q, (p - q)[None] / 2), 1)[2]
    assert float((found - exact(1)[2]).abs().max()) > 0.01


def test_signals_of_layers_omit_the_layers_below_and_keep_the_gradient() -> None:
    """A chain x ← z_1 ← z_2 ← z_3 of four states each: the mean over all 64 paths."""
    generator = torch.Generator().manual_seed(0)
    log_p_x, b_1, b_2, b_3 = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    tables = torch.randn(6, 4, 4, generator=generator, dtype=torch.float64).requires_grad_()
    p_12, p_23, p_3, q_1, q_21, q_32 = (tables[0], tables[1], tables[2, 0], tables[3, 0], tables[4], tables[5])
    one, two, three = torch.tensor(list(itertools.product(range(4), repeat=3))).T
    log_p = torch.stack(
        [
            log_p_x[one],
            p_12.log_softmax(1)[two, one],
            p_23.log_softmax(1)[three, two],
            p_3.log_softmax(0)[three],
        ]
    )
    log_q = torch.stack([q_1.log_softmax(0)[one], q_21.log_softmax(1)[one, two], q_32.log_softmax(1)[two, three]])
    chance = log_q.sum(0).exp()
    exact = torch.autograd.grad((chance * (log_p.sum(0) - log_q.sum(0))).sum(), tables, retain_graph=True)[0]
    baselines = torch.stack([b_1[0].expand(64), b_2[one], b_3[two]])[:, None]
    bound, signals = estimators.nvil(log_p[:, None], log_q[:, None], baselines)
    for layer in range(3):
        expected = log_p[layer:].sum(0) - log_q[layer:].sum(0)
        torch.testing.assert_close(signals[layer, 0], expected.detach())
    found = torch.autograd.grad((chance.detach() * bound).sum(), tables, retain_graph=True)[0]
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)
    whole = torch.autograd.grad((chance.detach() * (signals[0, 0] * log_q.sum(0))).sum(), tables)[0]
    apart = (found - whole)[3:]  # signals of all layers have the same mean, and are not the same
    torch.testing.assert_close(apart, torch.zeros_like(apart), rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3])
def test_the_wake_phase_is_the_gradient_of_p_alone(k: int) -> None:
    value, of_p, of_q = mean(estimators.wake, k)
    torch.testing.assert_close((value, of_p), exact(k)[:2], rtol=0, atol=1e-12)
    assert not of_q.any()


@pytest.mark.parametrize("estimator", [nvil, estimators.reinforce, estimators.vimco])
def test_with_the_posterior_of_one_draw_the_signal_does_not_depend_on_z(estimator: Estimator) -> None:
    log_p = leaves()[0].detach()
    log_q = log_p.log_softmax(0)
    z = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])[: 1 if estimator is nvil else 2]
    value = estimator(log_p[z], log_q[z])
    torch.testing.assert_close(value, log_p.logsumexp(0).expand(4), rtol=0, atol=1e-12)


def test_the_leave_one_out_baseline_is_a_loop_over_the_other_draws_and_does_not_see_its_own() -> None:
    log_weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    found = estimators.leave_one_out(log_weight)
    for i, b in itertools.product(range(5), range(3)):
        others = [math.exp(log_weight[j, b]) for j in range(5) if j != i]
        geometric = math.exp(sum(math.log(w) for w in others) / 4)
        assert float(found[i, b]) == pytest.approx(math.log((sum(others) + geometric) / 5), abs=1e-12)
    for i in range(5):
        changed = log_weight.clone()
        changed[i] += 11.0
        moved = estimators.leave_one_out(changed)
        assert torch.equal(moved[i], found[i])
        assert not torch.isclose(moved[(i + 1) % 5], found[(i + 1) % 5]).any()


def test_extreme_weights_stay_finite() -> None:
    log_p = torch.tensor([[-1e4], [-10.0], [-2e4]], dtype=torch.float64, requires_grad=True)
    log_q = torch.tensor([[-1.0], [-2.0], [-3.0]], dtype=torch.float64, requires_grad=True)
    for estimator in (estimators.reinforce, estimators.vimco, estimators.wake):
        (estimator(log_p, log_q).sum() + 0 * log_q.sum()).backward()
        assert log_p.grad is not None
        assert log_q.grad is not None
        assert bool(log_p.grad.isfinite().all() & log_q.grad.isfinite().all())


def test_vimco_has_less_variance_than_reinforce() -> None:
    def spread(estimator: Estimator) -> float:
        log_p, logits = leaves()
        log_q = logits.log_softmax(0)
        gradients = []
        for draws in itertools.product(range(4), repeat=3):
            z = torch.tensor(draws)[:, None]
            (gradient,) = torch.autograd.grad(estimator(log_p[z], log_q[z]).sum(), logits, retain_graph=True)
            gradients.append((log_q[z].sum().exp().detach(), gradient))
        centre = sum((w * g for w, g in gradients), torch.zeros(4))
        return float(sum(w * (g - centre).square().sum() for w, g in gradients))

    assert spread(estimators.vimco) < 0.5 * spread(estimators.reinforce)
