"""Energy-based models against Gaussians whose outcome is known, hand-made gradients and counts."""

from __future__ import annotations

import copy
import math
import os
import signal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unsup
from unsup import Batch, Event, InputError, Support, create
from unsup.core.random import Rows, part_of_batch
from unsup.core.storage import load_tensors
from unsup.data import Data, Split
from unsup.evaluate.quadrature import find_partition, grid
from unsup.families.energy.ebm import EBM
from unsup.testing.cases import examples
from unsup.train.runs import Run

REAL, PLANE = Support("real"), Event((2,), Support("real"))
DIGIT = Event((1, 4, 4), Support("ordinal", 17))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Quadratic(nn.Module):
    """½ yᵀ A y, which with the reference makes the precision I + A."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(dims, dims))

    def forward(self, y: Tensor) -> Tensor:
        return 0.5 * torch.einsum("bi,ij,bj->b", y, self.a, y)


def quadratic(**options) -> EBM:
    """A model on two real entries, not scaled, whose energy is quadratic, in float64."""
    model = EBM(PLANE, **({"hidden": (4,), "buffer": 1024} | options))
    model.net.net = Quadratic(2)
    return model.double().train()


def whitened(n: int, seed: int = 0) -> Tensor:
    x = torch.randn(n, 2, generator=seeded(seed), dtype=torch.float64)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / n)).T


def fit_precision(model: EBM, x: Tensor, steps: int, rate: float) -> Tensor:
    """The precision that stochastic gradients settle at, averaged over the second half of the steps."""
    optimizer, found = torch.optim.SGD(model.parameters(), lr=rate), []
    for step in range(steps):
        optimizer.zero_grad()
        model.loss(Batch(x), generator=seeded(step))["loss"].mean().backward()
        optimizer.step()
        found.append(torch.eye(2, dtype=torch.float64) + model.net.net.a.detach().clone())
    return torch.stack(found[steps // 2 :]).mean(0)


COVARIANCE = torch.tensor([[1.0, 0.5], [0.5, 0.8]], dtype=torch.float64)


@pytest.mark.parametrize(("start", "step_size"), [("buffer", 0.15), ("data", 0.15), ("data", 0.02)])
def test_training_recovers_the_precision_whose_chain_has_the_covariance_of_the_data(
    start: str, step_size: float
) -> None:
    # A chain of step s on precision P has stationary covariance (P (I − s P / 2))⁻¹. Training by persistent chains and
    # by contrastive divergence both rest where that is the data's C: P = (I − (I − 2 s C⁻¹)^½) / s, C⁻¹ as s → 0.
    x = whitened(512) @ torch.linalg.cholesky(COVARIANCE).T
    model = quadratic(start=start, step_size=step_size, steps=5, restart=0.0, buffer=512)
    found = fit_precision(model, x, steps=200, rate=0.5 if start == "buffer" else 0.1 / step_size)
    value, vector = torch.linalg.eigh(torch.linalg.inv(COVARIANCE))
    expected = vector @ torch.diag((1 - (1 - 2 * step_size * value).sqrt()) / step_size) @ vector.T
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1)
    bias = float((expected - torch.linalg.inv(COVARIANCE)).abs().max())
    assert bias > 0.4 or step_size < 0.1  # of so large a step it is plain


def test_the_gradient_is_that_of_minus_the_log_likelihood() -> None:
    # ∂/∂A of −E log p = ½ (C_data − C_model); chains long enough reach C_model = (I + A)⁻¹, up to their step.
    model = quadratic(start="noise", step_size=0.02, steps=150)
    with torch.no_grad():
        model.net.net.a.copy_(torch.tensor([[0.6, 0.2], [0.2, 0.1]]))
    x = whitened(20_000) @ torch.linalg.cholesky(COVARIANCE).T
    model.loss(Batch(x), generator=seeded())["loss"].mean().backward()
    precision = torch.eye(2, dtype=torch.float64) + model.net.net.a.detach()
    chain = torch.linalg.inv(precision @ (torch.eye(2) - 0.01 * precision))
    torch.testing.assert_close(model.net.net.a.grad, 0.5 * (COVARIANCE - chain), rtol=0, atol=0.03)


# --- the terms


def fixed_negatives(model: EBM, negative: Tensor) -> EBM:
    model._negatives = lambda positive, generator: (negative, None)
    return model


def means(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: term.mean().item() for name, term in terms.items()}


def mean_energy(model: EBM, y: Tensor) -> Tensor:
    return model.net(y).mean()


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_every_term_moves_what_it_should_and_nothing_else(weight: float) -> None:
    torch.manual_seed(0)
    model = EBM(PLANE, hidden=(8,), buffer=64, regularizer=weight).double().train()
    positive, negative = whitened(40, 1) + 1, whitened(40, 2) - 2
    fixed_negatives(model, negative)
    terms = model.loss(Batch(positive), generator=seeded())
    terms["loss"].mean().backward()
    found = [p.grad.clone() for p in model.parameters()]
    parameters = list(model.parameters())
    data = torch.autograd.grad(mean_energy(model, positive), parameters)
    samples = torch.autograd.grad(mean_energy(model, negative), parameters)
    squares = torch.autograd.grad((model.net(positive).square() + model.net(negative).square()).mean(), parameters)
    for g, up, down, square in zip(found, data, samples, squares, strict=True):
        torch.testing.assert_close(g, up - down + weight * square, rtol=1e-9, atol=1e-12)
    before, mean = (mean_energy(model, positive).item(), mean_energy(model, negative).item()), means(terms)
    assert mean["energy_data"] == pytest.approx(before[0])
    assert mean["energy_samples"] == pytest.approx(before[1])
    assert mean["gap"] == pytest.approx(before[1] - before[0])
    assert mean["loss"] == pytest.approx(weight * mean["regularizer"] - mean["gap"])
    torch.testing.assert_close(terms["energy_data"], model.net(positive).detach())  # of each example
    torch.testing.assert_close(terms["energy_samples"], model.net(negative).detach())
    if not weight:
        with torch.no_grad():
            for p in parameters:
                p -= 1e-3 * p.grad
        after = mean_energy(model, positive).item(), mean_energy(model, negative).item()
        assert after[0] - after[1] < before[0] - before[1] - 1e-4  # data down against samples


def test_the_gap_is_positive_where_data_lie_lower_than_samples() -> None:
    model = quadratic(start="noise", step_size=1e-4, steps=1)  # samples stay where they start, N(0, I)
    low = means(model.loss(Batch(torch.zeros(2000, 2, dtype=torch.float64)), generator=seeded()))
    high = means(model.loss(Batch(torch.full((2000, 2), 3.0, dtype=torch.float64)), generator=seeded()))
    assert low["gap"] == pytest.approx(1.0, abs=0.1)  # E½‖y‖² of N(0, I) in two dimensions
    assert high["gap"] == pytest.approx(1.0 - 9.0, abs=0.1)


def test_the_regularizer_is_the_mean_square_of_both_energies() -> None:
    model = fixed_negatives(quadratic(regularizer=2.0), torch.full((3, 2), 2.0, dtype=torch.float64))
    terms = means(model.loss(Batch(torch.ones(3, 2, dtype=torch.float64)), generator=seeded()))
    assert terms["regularizer"] == pytest.approx(1.0**2 + 4.0**2)
    assert terms["loss"] == pytest.approx(2 * 17 - 3)


# --- the chains


def test_negatives_carry_no_graph_and_parameters_are_as_before() -> None:
    model = create("ebm", DIGIT, preset="tiny", hidden=(4,)).train()
    model.requires_grad_(True)
    model.net.net.head.weight.requires_grad_(False)
    seen = []
    original = EBM._negatives
    model._negatives = lambda *given: seen.append(original(model, *given)) or seen[-1]
    terms = model.loss(examples(DIGIT, 16), generator=seeded())
    assert not seen[0][0].requires_grad
    assert [name for name, term in terms.items() if term.requires_grad] == ["loss"]
    assert not model.replay.requires_grad
    assert model.training
    assert all(m.training for m in model.modules())
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"net.net.head.weight"}
    assert all(p.grad is None for p in model.parameters())


def test_spectral_norms_iterate_once_a_loss_however_long_the_chain() -> None:
    ends = []
    for steps in (1, 7):
        model = create("ebm", DIGIT, preset="tiny", hidden=(4,), steps=steps).train()
        model.loss(examples(DIGIT, 16), generator=seeded())
        ends.append({n: b.clone() for n, b in model.named_buffers() if n.endswith(".u")})
    fresh = dict(create("ebm", DIGIT, preset="tiny", hidden=(4,)).named_buffers())
    assert ends[0]
    for name, u in ends[0].items():
        assert torch.equal(u, ends[1][name])
        assert not torch.equal(u, fresh[name])


def still(start: str, **options) -> EBM:
    """A model whose chains do not move."""
    return quadratic(start=start, step_size=1e-18, noise=1e-9, steps=1, **options)


def test_chains_of_contrastive_divergence_start_at_the_minibatch() -> None:
    model, x = still("data"), whitened(30)
    negative, _ = model._negatives(model.net.scale(x), seeded())
    torch.testing.assert_close(negative, x, rtol=0, atol=1e-7)
    assert not hasattr(model, "replay")


def test_short_run_chains_start_from_the_reference() -> None:
    negative, _ = still("noise")._negatives(torch.zeros(20_000, 2, dtype=torch.float64), seeded())
    torch.testing.assert_close(negative.T.cov(), torch.eye(2, dtype=torch.float64), rtol=0, atol=0.05)


@pytest.mark.parametrize("restart", [0.0, 0.05, 0.4, 1.0])
def test_the_share_of_chains_that_start_afresh_is_the_restart_share(restart: float) -> None:
    model = still("buffer", buffer=4000, restart=restart)
    model.replay.fill_(50.0)
    negative, _ = model._negatives(torch.zeros(4000, 2, dtype=torch.float64), seeded())
    fresh = int((negative[:, 0] < 25).sum())
    assert abs(fresh - 4000 * restart) <= 4.5 * math.sqrt(4000 * restart * (1 - restart))


def test_the_buffer_gets_the_ends_of_its_own_chains_and_only_in_training() -> None:
    model = quadratic(buffer=100, steps=3, restart=0.2)
    before = model.replay.clone()
    model.eval()
    model.loss(Batch(torch.zeros(30, 2, dtype=torch.float64)), generator=seeded())
    assert torch.equal(model.replay, before)
    model.train()
    rows = torch.randperm(100, generator=replayed_until_rows(model))[:30]
    _, negative = model.contrast(Batch(torch.zeros(30, 2, dtype=torch.float64)), generator=seeded())
    assert torch.equal(model.replay, before)  # a contrast moves nothing
    model.loss(Batch(torch.zeros(30, 2, dtype=torch.float64)), generator=seeded())
    assert len(set(rows.tolist())) == 30
    torch.testing.assert_close(model.replay[rows], negative, rtol=1e-6, atol=1e-6)
    others = torch.ones(100, dtype=torch.bool)
    others[rows] = False
    assert torch.equal(model.replay[others], before[others])
    assert not torch.equal(model.replay, before)


@pytest.mark.parametrize("start", ["buffer", "data", "noise"])
def test_the_contrast_is_what_the_loss_compares(start: str) -> None:
    model = create("ebm", DIGIT, preset="tiny", hidden=(4,), start=start).double().eval()
    batch = examples(DIGIT, 16)
    data, negative = model.contrast(batch, generator=seeded())
    terms = model.loss(batch, generator=seeded())
    torch.testing.assert_close(model.point_energy(data), terms["energy_data"])
    torch.testing.assert_close(model.point_energy(negative), terms["energy_samples"])


def test_a_batch_in_parts_is_one_batch() -> None:
    """Each part continues chains of its own, with the noise of the whole batch: terms, buffer and all."""
    whole = quadratic(buffer=40, steps=3, restart=0.3)
    parts = copy.deepcopy(whole)
    x = whitened(12)
    loss = whole.loss(Batch(x), generator=seeded())["loss"]
    found = []
    for rows in (Rows(12, 0, 5), Rows(12, 5, 4), Rows(12, 9, 3)):
        with part_of_batch(rows):
            part = Batch(x[rows.start : rows.start + rows.count])
            found.append(parts.loss(part, generator=seeded())["loss"])
    torch.testing.assert_close(torch.cat(found), loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole.replay, parts.replay, rtol=1e-12, atol=1e-12)


def test_the_buffer_keeps_what_tells_the_data_apart() -> None:
    """Raw data near 1e9 need float64, whatever type the network is cast to."""
    event = Event((2,), REAL, precision="float64")
    model = EBM(event, hidden=(4,), buffer=64)
    x = 1e9 + whitened(200)
    model.prepare(Batch(x), generator=seeded())
    for cast in (torch.nn.Module.float, torch.nn.Module.half):
        model = cast(model)
        assert model.replay.dtype == torch.float64
        assert float((model.replay - 1e9).std()) == pytest.approx(1.0, abs=0.3)
    model.float().train().loss(Batch(x[:32]), generator=seeded())["loss"].mean().backward()
    assert len(model.sample(50, generator=seeded())[:, 0].unique()) == 50
    assert EBM(PLANE, hidden=(4,), buffer=8).half().replay.dtype == torch.float32


def replayed_until_rows(model: EBM) -> torch.Generator:
    """The generator of seed 0 after the restarts' noise, which is drawn first."""
    generator = seeded()
    torch.randn(30, 2, generator=generator, dtype=torch.float64)
    return generator


def test_images_stay_in_their_range_within_the_chain_and_are_kept_as_levels() -> None:
    model = create("ebm", DIGIT, preset="tiny", hidden=(4,), step_size=100.0, noise=1.0, clamp=1.0).train()
    negative, _ = model._negatives(model.net.scale(examples(DIGIT, 32).x, generator=seeded()), seeded())
    assert float(negative.min()) >= 0
    assert float(negative.max()) <= 1
    assert float(((negative == 0) | (negative == 1)).double().mean()) > 0.2
    assert model.replay.dtype == torch.uint8
    assert bool(DIGIT.contains(model.replay).all())
    assert model.replay.double().std() > 3  # noise over all levels, not zeros


def test_raw_ordinals_are_scaled_to_their_cell_and_real_entries_standardised() -> None:
    model = EBM(Event((2,), (REAL, Support("ordinal", 5, low=-2))), hidden=(4,), buffer=8)
    x = torch.tensor([[3.0, -2.0], [7.0, 2.0], [11.0, 0.0]])
    model.prepare(Batch(x), generator=seeded())
    y = model.net.scale(x, generator=seeded())
    np.testing.assert_allclose(y[:, 0], (x[:, 0] - 7) / x[:, 0].std(correction=0), rtol=1e-6)
    for value, cell in zip(y[:, 1].tolist(), (0, 4, 2), strict=True):
        assert cell / 5 <= value < (cell + 1) / 5
    middle = torch.stack([y[:, 0], torch.tensor([0.1, 0.9, 0.5])], 1)
    expected = model.net.net(middle) + 0.5 * middle[:, 0].square()
    torch.testing.assert_close(model.energy(x), expected, rtol=1e-6, atol=1e-6)


def test_samples_have_the_moments_of_the_chains_density_in_raw_units() -> None:
    model = quadratic(start="noise", step_size=0.1, sample_steps=120)
    centre, scale = torch.tensor([5.0, -3.0]), torch.tensor([2.0, 0.5])
    model.net.front.mean.copy_(centre)
    model.net.front.std.copy_(scale)
    x = model.sample(20_000, generator=seeded()).double()
    np.testing.assert_allclose(x.mean(0), centre, atol=0.06)
    np.testing.assert_allclose(x.std(0), scale * math.sqrt(1 / (1 - 0.05)), rtol=0.03)


def test_samples_are_told_step_by_step_for_as_many_steps_as_are_asked_for() -> None:
    """A chain on N(0, I) by hand: y ← y − s y + τ ξ."""
    model = quadratic(start="noise", step_size=0.1, sample_steps=50)
    model.net.front.mean.fill_(5.0)
    path: list[tuple[int, Tensor]] = []
    found = model.sample(6, generator=seeded(1), steps=3, on_step=lambda *at: path.append(at))
    generator = seeded(1)
    y = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    for i in range(3):
        y = 0.9 * y + model.noise * torch.randn(6, 2, generator=generator, dtype=torch.float64)
        assert path[i][0] == i + 1
        torch.testing.assert_close(path[i][1], (y + 5).float())
    assert torch.equal(found, path[-1][1])


def test_sampling_continues_the_buffer_each_chain_once() -> None:
    model = still("buffer", buffer=50, sample_steps=1)
    model.replay.copy_(torch.arange(100.0).view(50, 2))
    x = model.sample(50, generator=seeded())
    torch.testing.assert_close(x[x[:, 0].argsort()], torch.arange(100.0).view(50, 2), rtol=0, atol=1e-4)
    assert len(model.sample(120, generator=seeded())) == 120


# --- runs


def gaussian_data() -> Data:
    x = (whitened(256) @ torch.linalg.cholesky(COVARIANCE).T).float()
    split = Split(x)
    return Data(None, PLANE, split, split, split)


def test_a_resumed_run_has_the_same_buffer_and_parameters_as_one_never_stopped(tmp_path) -> None:
    options = {"progress": "off", "steps": 12, "batch_size": 32, "validate_every": 100}
    whole = create("ebm", PLANE, preset="tiny")
    unsup.fit(whole, gaussian_data(), out=tmp_path / "whole", **options)

    stopped = create("ebm", PLANE, preset="tiny")
    stopped.after_step = lambda time: os.kill(os.getpid(), signal.SIGINT) if time.step == 5 else None
    fitted = unsup.fit(stopped, gaussian_data(), out=tmp_path / "stopped", **options)
    assert fitted.interrupted
    again = create("ebm", PLANE, preset="tiny", seed=7)
    unsup.fit(again, gaussian_data(), out=tmp_path / "stopped", resume=True, **options)
    for name in ("whole", "stopped"):
        tensors, record = load_tensors(Run(tmp_path / name).checkpoint("last"))
        assert record["done"] == 12
        if name == "whole":
            expected = tensors
    assert any("replay" in name for name in expected)
    for name, value in expected.items():
        assert torch.equal(value, tensors[name]), name


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        ({"gap": 0.1, "energy_data": 2.0, "energy_samples": 2.1}, None),
        ({"gap": 90.0, "energy_data": -50.0, "energy_samples": 40.0}, "energy-gap"),
        ({"gap": -90.0, "energy_data": 50.0, "energy_samples": -40.0}, "energy-gap"),
        ({"gap": 3.0, "energy_data": 1e5, "energy_samples": 1e5 + 3}, "exploding-energies"),
    ],
)
def test_what_goes_wrong_is_named_with_what_to_try(terms: dict, name: str | None) -> None:
    symptom = EBM(PLANE, hidden=(4,), buffer=8).diagnose(terms | {"acceptance": 0.3, "loss": 0.0, "regularizer": 1.0})
    assert (symptom.name if symptom else None) == name
    if symptom:
        assert "--lr" in symptom.advice
        assert "--regularizer" in symptom.advice


def test_the_paper_preset_is_the_larger_cifar_network_and_its_chain() -> None:
    event = Event((3, 32, 32), Support("ordinal", 256))
    model = create("ebm", event, preset="paper", buffer=1)

    def conv(before: int, after: int) -> int:
        return 9 * before * after + after

    widths = [128, 128, 128, 256, 256, 256, 512, 512, 512]
    total, before = conv(3, 128) + 512, 128
    for width in widths:
        total += conv(before, width) + conv(width, width) + (conv(before, width) if before != width else 0)
        before = width
    assert model.parameter_count == total
    assert (model.steps, model.step_size, model.noise, model.clamp) == (60, 10.0, 0.005, 0.01)
    assert (model.regularizer, model.restart) == (1.0, 0.05)
    assert create("ebm", PLANE).replay.shape == (10_000, 2)
    assert model.temperature == pytest.approx(1.25e-6)
    assert EBM(PLANE, buffer=1).temperature == pytest.approx(1.0)


def test_all_pixels_reach_the_energy_at_odd_sides() -> None:
    event = Event((1, 7, 7), Support("ordinal", 17))
    model = create("ebm", event, preset="tiny", hidden=(4, 4)).double().eval()
    score = model.score(torch.randint(0, 17, (2, 1, 7, 7), generator=seeded()))
    assert bool((score != 0).all())


@pytest.mark.parametrize(
    ("event", "options", "words"),
    [
        (Event((2,), Support("nominal", 4)), {}, "nominal"),
        (DIGIT, {"hidden": (4, 4, 4)}, "fewer widths"),
        (PLANE, {"restart": 1.5}, "from 0 to 1"),
        (PLANE, {"step_size": 0.0}, "above 0"),
        (PLANE, {"steps": 0}, "at least 1"),
        (PLANE, {"clamp": -1.0}, "at least 0"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(event: Event, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        EBM(event, **options)


def test_a_batch_larger_than_the_buffer_is_refused() -> None:
    with pytest.raises(InputError, match="set buffer to at least"):
        EBM(PLANE, hidden=(4,), buffer=8).loss(Batch(torch.zeros(9, 2)), generator=seeded())


@pytest.mark.slow
def test_a_mixture_is_learned_to_a_small_divergence() -> None:
    means = torch.tensor([[-2.0, 0.0], [1.5, 1.5], [1.5, -1.5]])
    label = torch.randint(0, 3, (6000,), generator=seeded())
    x = means[label] + 0.5 * torch.randn(6000, 2, generator=seeded(1))
    split = Split(x)
    model = create("ebm", PLANE, hidden=(64, 64), steps=20, step_size=0.01, buffer=2000)
    unsup.fit(
        model, Data(None, PLANE, split, split, split), steps=1500, batch_size=200, lr=1e-3, ema=0.995, progress="off"
    )
    partition = find_partition(model, x)
    points, log_weight = grid(torch.stack([partition.low, partition.high]), 301)
    truth = torch.logsumexp(-2 * (points[:, None] - means.double()).square().sum(2), 1) - math.log(3 * math.pi / 2)
    with torch.no_grad():
        log_model = -model.energy(points.float()).double() - partition.log_z
    divergence = float(((log_weight + truth).exp() * (truth - log_model)).sum())
    assert 0 < divergence < 0.05
