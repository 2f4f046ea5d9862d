"""Discrete latent variables against sums over all states, closed forms and other models."""

from __future__ import annotations

import itertools
import math
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

import unsup
from unsup import Batch, Event, InputError, Support, create
from unsup.core.batch import Time
from unsup.core.errors import CapabilityError
from unsup.core.part import Part
from unsup.families.classical.bernoulli_mixture import BernoulliMixture
from unsup.families.latent.latent import Latent
from unsup.nn.units import Units
from unsup.prob import bounds

BINARY, REAL = Support("binary"), Support("real")
FOUR = Event((4,), BINARY)
UNBIASED = ("importance", "nvil", "vimco")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(event: Event = FOUR, seed: int = 0, scale: float = 0.8, **options: Any) -> Latent:
    """A small model in float64 whose parameters are all drawn by their names, so that objectives share them."""
    model = Latent(event, **{"layers": (3,), "hidden": (5,), "activation": "tanh"} | options).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = seeded(zlib.crc32(name.encode()) + seed)
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def all_states(model: Latent) -> list[Tensor]:
    """All states of z by a loop, of every layer ``(S, 1, width)``."""
    counts, k = [u.count for u in model.units], model.units[0].categories
    rows = torch.tensor(list(itertools.product(range(k), repeat=sum(counts))))
    found = []
    for part in rows.split(counts, 1):
        state = part.double() if k == 2 else torch.nn.functional.one_hot(part, k).flatten(1).double()
        found.append(state[:, None])
    return found


def log_likelihoods(model: Latent, x: Tensor) -> Tensor:
    """log p(x|z) of all states, ``(S, B)``."""
    target = model.nets.target(x)
    return torch.cat([model.nets.log_likelihood(target, s.expand(len(x), -1)[None]) for s in all_states(model)[0]])


def tables(model: Latent, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x, z) and log q(z|x) of all states, ``(S, B)``, with their graph."""
    z = all_states(model)
    log_p = log_likelihoods(model, x) + model._log_prob_of(z, model._prior_logits(z))
    log_q = model._log_prob_of(z, model._posterior_logits(x, z))
    return log_p, log_q


def enumerated_bound(model: Latent, x: Tensor, k: int) -> Tensor:
    """E L_k over all draws, for each example."""
    log_p, log_q = tables(model, x)
    draws = torch.tensor(list(itertools.product(range(len(log_p)), repeat=k))).T
    chance = log_q[draws].sum(0).exp()
    return (chance * bounds.iwae((log_p - log_q)[draws])).sum(0)


def gradients(loss: Tensor, model: Latent) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)}


def estimated(model: Latent, x: Tensor, repeats: int, rows: int = 64) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and standard error of the gradient of `loss`, over batches with independent draws."""
    found: dict[str, list[Tensor]] = {}
    many = x.repeat_interleave(rows, 0)
    for i in range(repeats):
        loss = model.train().loss(Batch(many), generator=seeded(1000 + i))["loss"].mean()
        for name, gradient in gradients(loss, model).items():
            found.setdefault(name, []).append(gradient)
    return {n: (torch.stack(g).mean(0), torch.stack(g).std(0) / math.sqrt(repeats)) for n, g in found.items()}


X = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 1]])


# --- likelihood -------------------------------------------------------------------------------------------------------


def test_a_variable_with_k_values_and_a_linear_decoder_is_a_mixture_of_bernoullis() -> None:
    model = randomised(layers=(1,), categories=6, hidden=(), objective="enumerate")
    mixture = BernoulliMixture(FOUR, components=6)
    with torch.no_grad():
        mixture.logits.copy_(model.prior)
        decoder = model.nets.decoder[-1]
        mixture.log_odds.copy_(decoder.weight.T + decoder.bias)
    x = torch.cartesian_prod(*[torch.arange(2)] * 4)
    torch.testing.assert_close(model.log_prob(x), mixture.log_prob(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(model.encode(x), mixture.encode(x), rtol=0, atol=1e-12)


def test_on_real_columns_it_is_a_mixture_of_gaussians() -> None:
    model = randomised(Event((2,), REAL), layers=(1,), categories=3, hidden=(), objective="enumerate")
    data = 5 + 2 * torch.randn(40, 2, generator=seeded(), dtype=torch.float64)
    model.nets.observation.prepare(data, seeded())
    with torch.no_grad():
        weights = special.softmax(model.prior.numpy())
        decoder, deviation = model.nets.decoder[-1], np.exp(model.nets.observation.deviations().numpy())
        means = (decoder.weight.T + decoder.bias).numpy()
        front = model.nets.observation.front
        location, scale = front.mean.numpy(), front.std.numpy()
        found = model.log_prob(data).numpy()
    each = [stats.norm(location + scale * mean, scale * deviation).logpdf(data.numpy()).sum(1) for mean in means]
    np.testing.assert_allclose(found, special.logsumexp(np.stack(each, 1), axis=1, b=weights), atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"layers": (2, 2), "hidden": ()}, {"layers": (2,), "categories": 3}])
def test_bounds_rise_with_samples_from_the_elbo_to_the_exact_likelihood(options: dict[str, Any]) -> None:
    model = randomised(**options)
    with torch.no_grad():
        log_p, log_q = tables(model, X)
        exact = model.log_prob(X)
        torch.testing.assert_close(log_p.logsumexp(0), exact, rtol=0, atol=1e-12)
        gap = (log_q.exp() * (log_q - log_p.log_softmax(0))).sum(0)  # KL(q ‖ p(z|x))
        by_sum = [enumerated_bound(model, X, k) for k in (1, 2)]
        torch.testing.assert_close(by_sum[0], exact - gap, rtol=0, atol=1e-12)
        assert bool((by_sum[0] < by_sum[1] - 1e-3).all() & (by_sum[1] < exact - 1e-3).all())
        previous = -torch.inf
        for k in (1, 2, 8, 512):
            found = model.bound(X[:1].expand(4000, 4), samples=k, generator=seeded(k))
            mean, error = float(found.mean()), float(found.std() / math.sqrt(4000))
            if k <= 2:
                assert abs(mean - float(by_sum[k - 1][0])) < 4 * error
            assert previous < mean < float(exact[0]) + 4 * error
            previous = mean
        assert float(exact[0]) - previous < 0.05


def test_log_prob_depends_on_the_objective_neither_where_it_is_exact_nor_where_it_is_a_bound() -> None:
    for layers, kind in (((3,), "exact"), ((13,), "bound")):
        found = [
            randomised(layers=layers, objective=name).log_prob(X, samples=7, generator=seeded()).detach()
            for name in ("vimco", "nvil", "importance", "prior", "gumbel-softmax", "straight-through", "wake-sleep")
        ]
        assert randomised(layers=layers).likelihood_kind == kind
        assert all(torch.equal(one, found[0]) for one in found)


def test_chunks_of_states_and_of_draws_do_not_change_results(monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(layers=(4,), objective="enumerate")
    wide = randomised(layers=(13,))
    exact, bound = model.loss(Batch(X))["loss"].mean(), wide.log_prob(X, samples=9, generator=seeded())
    usual = gradients(exact, model)
    monkeypatch.setattr("unsup.families.latent.latent._TABLE_ELEMENTS", 30)
    monkeypatch.setattr("unsup.families.latent.latent._CHUNK_ELEMENTS", 30)
    for name, gradient in gradients(model.loss(Batch(X))["loss"].mean(), model).items():
        torch.testing.assert_close(gradient, usual[name], rtol=0, atol=1e-12)
    torch.testing.assert_close(wide.log_prob(X, samples=9, generator=seeded()), bound, rtol=0, atol=1e-12)


@pytest.mark.parametrize("support", [BINARY, REAL, Support("nominal", 3), Support("ordinal", 5)])
def test_a_table_of_likelihoods_is_that_of_every_pair(support: Support) -> None:
    event = Event((3,), support)
    model = randomised(event, objective="enumerate")
    for rows in (2, 40):
        x = 3 * torch.rand(rows, 3, generator=seeded(), dtype=torch.float64)
        target = model.nets.target(x if support is REAL else (x.long() % support.levels))
        z = all_states(model)[0]
        expected = torch.cat([model.nets.log_likelihood(target, s.expand(rows, -1)[None]) for s in z])
        torch.testing.assert_close(model.nets.log_likelihood_table(target, z[:, 0]), expected, rtol=0, atol=1e-10)


def test_encode_is_the_exact_posterior_where_states_are_few_else_that_of_q() -> None:
    model = randomised()
    with torch.no_grad():
        posterior = tables(model, X)[0].softmax(0)
        expected = torch.einsum("sb,sw->bw", posterior, all_states(model)[0][:, 0])
        torch.testing.assert_close(model.encode(X), expected, rtol=0, atol=1e-12)
        wide = randomised(layers=(13,))
        torch.testing.assert_close(wide.encode(X), wide.nets.encode(X).sigmoid(), rtol=0, atol=1e-12)


# --- unbiased estimators ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"layers": (2, 2), "hidden": ()}, {"layers": (1,), "categories": 4}])
@pytest.mark.parametrize("objective", UNBIASED)
def test_gradients_of_every_parameter_are_unbiased(objective: str, options: dict[str, Any]) -> None:
    k = 1 if objective == "nvil" else 2
    model = randomised(objective=objective, samples=k, **options)
    expected = gradients(-enumerated_bound(model, X, k).mean(), model)
    for name, (mean, error) in estimated(model, X, 150).items():
        if "baseline" not in name:
            apart = (mean - expected[name]).abs() / (error + 1e-12)
            assert float(apart.max()) < 4, name
            assert float(expected[name].abs().max()) > 1e-4, name


def test_the_check_of_unbiasedness_sees_a_bias() -> None:
    model = randomised(objective="straight-through")
    expected = gradients(-enumerated_bound(model, X, 1).mean(), model)
    apart = [(m - expected[n]).abs() / (e + 1e-12) for n, (m, e) in estimated(model, X, 150).items()]
    assert max(float(a.max()) for a in apart) > 6


@pytest.mark.parametrize(("objective", "k"), [("wake-sleep", 1), ("reweighted-wake-sleep", 2)])
def test_the_wake_phase_has_the_gradient_of_the_bound_for_p_and_none_for_q(objective: str, k: int) -> None:
    model = randomised(objective=objective, samples=k, layers=(2, 1))
    expected = gradients(-enumerated_bound(model, X, k).mean(), model)
    of_p = {id(p) for p in model.objectives()[0].parameters}
    found = estimated(model, X, 150)
    for name, parameter in model.named_parameters():
        mean, error = found[name]
        if id(parameter) in of_p:
            assert float(((mean - expected[name]).abs() / (error + 1e-12)).max()) < 4, name
        else:
            assert not mean.any(), name
    assert {n.split(".")[0] + n.split(".")[1] for n, p in model.named_parameters() if id(p) not in of_p} == {
        "netsencoder",
        "up0",
    }


def test_prior_draws_have_the_gradient_of_log_p_for_many_samples() -> None:
    model = randomised(objective="prior", samples=60_000)
    expected = gradients(-model.log_prob(X).mean(), model)
    found = gradients(model.loss(Batch(X), generator=seeded())["loss"].mean(), model)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=0.01)
    with torch.no_grad():
        found, exact = model.loss(Batch(X), generator=seeded())["loss"], -model.log_prob(X)
    torch.testing.assert_close(found, exact, rtol=0, atol=0.02)


def test_baselines_of_nvil_see_the_layer_below_and_learn_from_their_own_error_only() -> None:
    model = randomised(objective="nvil", layers=(3, 2)).train()
    found_signals = []
    for seed in range(5):
        draws = model._draws(X, 1, seeded(seed))
        below = [model.nets.seen(X), draws.z[0][0].double()]
        baselines = torch.stack([net(v).squeeze(1) for net, v in zip(model.baselines, below, strict=True)])
        second = (draws.log_prior_each - draws.log_q_each)[1, 0] + draws.log_prior_each[0, 0]
        signals = torch.stack([model._log_weight(draws)[0], second]).detach()
        terms = model.loss(Batch(X), generator=seeded(seed))
        errors = (signals - baselines) ** 2
        torch.testing.assert_close(terms["baseline_error"], errors.sum(0).detach())
        found = gradients(terms["loss"].sum(), model)
        surrogate = draws.log_p[0] + ((signals - baselines.detach()) * draws.log_q_each[:, 0]).sum(0)
        expected = gradients(-surrogate.sum(), model)
        own = [n for n in found if "baselines" in n]
        expected |= zip(own, torch.autograd.grad(errors.sum(), [*model.baselines.parameters()]), strict=True)
        assert len(own) == 8
        assert all(expected[n].any() for n in own)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-12)
        found_signals.append(signals)
    assert float(torch.stack(found_signals).std(0).min()) > 0.1


def test_prepare_sets_baselines_to_the_means_of_their_signals() -> None:
    model = Latent(Event((30,), BINARY), layers=(5, 4), objective="nvil")
    x = (torch.rand(500, 30, generator=seeded()) < 0.2).long()
    model.prepare(Batch(x), generator=seeded())
    _, signals, baselines = model._nvil(x, model._draws(x, 1, seeded(1)))
    torch.testing.assert_close(baselines.mean((1, 2)), signals.mean((1, 2)), rtol=0, atol=1.5)
    assert float((signals[0] - signals[1]).mean().abs()) > 5


# --- a q of its own for each example ----------------------------------------------------------------------------------


def local_q(model: Latent, x: Tensor) -> Tensor:
    """The probabilities of every variable after the sweeps of the model, by loops over states: ``(n, K, B)``."""
    k, counts = model.units[0].categories, [u.count for u in model.units]
    rows = list(itertools.product(range(k), repeat=sum(counts)))
    with torch.no_grad():
        log_p, _ = tables_of_p(model, x)
        z = all_states(model)
        log_prior = model._log_prob_of(z, model._prior_logits(z))[:, 0]
    q = np.zeros((sum(counts), k, len(x)))
    for row, own in zip(rows, log_prior.exp().tolist(), strict=True):
        for j, value in enumerate(row):
            q[j, value] += own
    for _ in range(model.sweeps):
        for j in range(len(q)):
            score = np.zeros((k, len(x)))
            for row, own in zip(rows, log_p.numpy(), strict=True):
                others = np.prod([q[i, value] for i, value in enumerate(row) if i != j], axis=0)
                score[row[j]] += others * own
            q[j] = special.softmax(score, axis=0)
    return torch.from_numpy(q)


def tables_of_p(model: Latent, x: Tensor) -> tuple[Tensor, list[tuple[int, ...]]]:
    """log p(x, z) of all states ``(S, B)`` with its graph, and the states as tuples of values."""
    z = all_states(model)
    log_p = log_likelihoods(model, x) + model._log_prob_of(z, model._prior_logits(z))
    return log_p, list(itertools.product(range(model.units[0].categories), repeat=sum(u.count for u in model.units)))


VARIATIONAL: list[dict[str, Any]] = [
    {},
    {"layers": (2, 2), "hidden": ()},
    {"layers": (2,), "categories": 3, "sweeps": 2},
    {"layers": (2, 1), "categories": 3},
]


@pytest.mark.parametrize("options", VARIATIONAL)
def test_variational_is_the_elbo_and_its_gradient_at_the_q_of_coordinate_ascent(options: dict[str, Any]) -> None:
    """Both by a loop over states; the gap is KL(q ‖ p(z|x)), and q has no gradient."""
    model = randomised(objective="variational", **options)
    q = local_q(model, X)
    log_p, rows = tables_of_p(model, X)
    chance = torch.stack([torch.stack([q[j, v] for j, v in enumerate(row)]).prod(0) for row in rows])
    elbo = (chance * (log_p - chance.log())).sum(0)
    terms = model.loss(Batch(X), generator=seeded())
    torch.testing.assert_close(terms["loss"], -elbo, rtol=0, atol=1e-10)
    gap = (chance * (chance.log() - log_p.log_softmax(0))).sum(0)
    torch.testing.assert_close(model.log_prob(X) - elbo, gap, rtol=0, atol=1e-10)
    assert float(gap.detach().min()) > 1e-4
    expected = gradients(-elbo.mean(), model)
    for name, gradient in gradients(terms["loss"].mean(), model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-10)
        assert bool(gradient.any()), name
    reconstruction = -(chance * log_likelihoods(model, X)).sum(0).detach()
    torch.testing.assert_close(terms["reconstruction"], reconstruction, rtol=0, atol=1e-10)
    torch.testing.assert_close(terms["kl"], -elbo.detach() - reconstruction, rtol=0, atol=1e-10)


def test_variational_with_a_single_variable_is_exact_and_sweeps_never_lower_its_elbo() -> None:
    model = randomised(objective="variational", layers=(1,), categories=5, sweeps=1)
    exact = -model.log_prob(X)
    torch.testing.assert_close(model.loss(Batch(X))["loss"], exact, rtol=0, atol=1e-12)
    expected = gradients(-model.log_prob(X).sum(), model)
    for name, gradient in gradients(model.loss(Batch(X))["loss"].sum(), model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-12)
    losses = []
    for sweeps in (1, 2, 3, 50):
        model = randomised(objective="variational", layers=(4,), scale=2.0, sweeps=sweeps)
        losses.append(model.loss(Batch(X))["loss"].detach())
    assert all(bool((b <= a + 1e-12).all()) for a, b in itertools.pairwise(losses))
    assert bool((losses[-1] < losses[0] - 1e-3).any())
    assert bool((losses[-1] > -model.log_prob(X)).all())


def test_variational_has_no_network_of_q_and_no_noise() -> None:
    model = randomised(objective="variational")
    assert all(
        name.split(".")[0] in ("nets", "prior") and "encoder" not in name for name, _ in model.named_parameters()
    )
    first, second = (model.train().loss(Batch(X), generator=seeded(i))["loss"] for i in range(2))
    assert torch.equal(first, second)
    assert torch.equal(model.eval().loss(Batch(X))["loss"], first)
    rows = torch.cat([model.loss(Batch(x[None]))["loss"] for x in X])
    torch.testing.assert_close(rows, first, rtol=0, atol=1e-12)  # an example's q depends on no other


# --- a proposal that is given -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"layers": (2, 2), "hidden": ()}])
def test_a_given_proposal_is_used_and_only_p_learns_by_the_unbiased_gradient_of_the_bound(
    options: dict[str, Any], tmp_path: Path
) -> None:
    other = randomised(seed=7, **options)
    other.save(tmp_path / "q")
    given = Part.of_run(tmp_path / "q")
    model = randomised(objective="importance", samples=2, proposal=given, **options)
    assert model.proposal is not None
    model.proposal.load_state_dict(other.state_dict())
    with torch.no_grad():
        _, log_q = tables(other, X)
    z = all_states(model)
    torch.testing.assert_close(model._log_prob_of(z, model._posterior_logits(X, z)), log_q, rtol=0, atol=1e-12)
    log_p, _ = tables_of_p(model, X)
    pairs = torch.tensor(list(itertools.product(range(len(log_p)), repeat=2))).T
    bound = (log_q[pairs].sum(0).exp() * bounds.iwae((log_p - log_q)[pairs])).sum(0)
    learned = {n for n, p in model.named_parameters() if p.requires_grad}
    assert not any("encoder" in n or "up" in n or n.startswith("proposal") for n in learned)
    found: dict[str, list[Tensor]] = {}
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    expected = dict(zip(parameters, torch.autograd.grad(-bound.mean(), [*parameters.values()]), strict=True))
    for i in range(150):
        loss = model.train().loss(Batch(X.repeat_interleave(64, 0)), generator=seeded(i))["loss"].mean()
        for name, gradient in zip(parameters, torch.autograd.grad(loss, [*parameters.values()]), strict=True):
            found.setdefault(name, []).append(gradient)
    for name, each in found.items():
        apart = (torch.stack(each).mean(0) - expected[name]).abs() / (torch.stack(each).std(0) / math.sqrt(150) + 1e-12)
        assert float(apart.max()) < 4, name
        assert bool(expected[name].abs().max() > 1e-4), name


def test_a_run_with_a_proposal_leaves_it_alone_and_is_loaded_without_its_folder(tmp_path: Path) -> None:
    create("latent", FOUR, seed=3, layers=(13,), hidden=(5,)).save(tmp_path / "q")
    model = create("latent", FOUR, layers=(13,), hidden=(5,), objective="importance", proposal=str(tmp_path / "q"))
    assert isinstance(model, Latent)
    assert model.proposal is not None
    before = {n: p.clone() for n, p in model.named_parameters()}
    x = torch.cartesian_prod(*[torch.arange(2)] * 4)
    unsup.fit(model, x.repeat(5, 1).numpy(), steps=3, batch_size=10, lr=0.01, progress="off")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("proposal"), name
    model.save(tmp_path / "p")
    shutil.rmtree(tmp_path / "q")
    loaded = unsup.load(tmp_path / "p")
    found, expected = (m.log_prob(X, samples=5, generator=seeded()).detach() for m in (loaded, model.eval()))
    assert torch.equal(found, expected)


# --- relaxed draws ----------------------------------------------------------------------------------------------------


def bias(objective: str, temperature: float, **options: Any) -> float:
    model = randomised(objective=objective, scale=1.5, temperature=temperature, last_temperature=temperature, **options)
    expected = gradients(-enumerated_bound(model, X, 1).mean(), model)
    found = estimated(model, X, 12, rows=20_000)
    of_q = [n for n in found if "encoder" in n or "up" in n]
    return math.sqrt(sum(float((found[n][0] - expected[n]).square().sum()) for n in of_q))


@pytest.mark.parametrize("options", [{}, {"layers": (1, 1)}, {"layers": (1,), "categories": 3}])
def test_the_bias_of_gumbel_softmax_vanishes_with_its_temperature(options: dict[str, Any]) -> None:
    wide, narrow, narrowest = (bias("gumbel-softmax", tau, **options) for tau in (2.0, 0.5, 0.1))
    assert narrowest < narrow / 2.5 < wide / 2.5**2


def test_straight_through_is_biased_at_every_temperature() -> None:
    assert bias("straight-through", 0.1) > 0.05


def test_the_kl_of_relaxed_draws_is_that_of_the_discrete_variables() -> None:
    for layers in ((3,), (2, 2)):
        model = randomised(objective="gumbel-softmax", layers=layers, temperature=0.01, last_temperature=0.01).train()
        with torch.no_grad():
            log_p, log_q = tables(model, X[:1])
            terms = model.loss(Batch(X[:1].expand(20_000, 4)), generator=seeded())
            z = all_states(model)
            log_prior = model._log_prob_of(z, model._prior_logits(z))
            expected = float((log_q.exp() * (log_q - log_prior)).sum())
            found, error = float(terms["kl"].mean()), float(terms["kl"].std()) / math.sqrt(20_000)
        assert abs(found - expected) < 4 * error + (1e-9 if len(layers) == 1 else 0.01)
        assert bool((log_p.isfinite()).all())


def test_straight_through_decodes_hard_draws_and_evaluation_always_does() -> None:
    model = randomised(objective="straight-through")
    seen: list[Tensor] = []
    model.nets.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    model.train().loss(Batch(X), generator=seeded())
    relaxed = randomised(objective="gumbel-softmax")
    relaxed.nets.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    relaxed.eval().loss(Batch(X), generator=seeded())
    relaxed.bound(X, samples=3, generator=seeded())
    for z in seen:
        assert bool(torch.isclose(z, z.round(), atol=1e-12).all())
    seen.clear()
    relaxed.train().loss(Batch(X), generator=seeded())
    assert not bool(torch.isclose(seen[0], seen[0].round(), atol=1e-3).all())


def test_the_temperature_is_geometric_over_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(objective="gumbel-softmax", temperature=1.0, last_temperature=0.25).train()
    found: list[float] = []
    original = Units.relaxed

    def spy(self: Units, logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
        found.append(temperature)
        return original(self, logits, noise, temperature)

    monkeypatch.setattr(Units, "relaxed", spy)
    for step in (0, 50, 100):
        model.loss(Batch(X, time=Time(step, 100)), generator=seeded())
    assert found == pytest.approx([1.0, 0.5, 0.25])


# --- two players ------------------------------------------------------------------------------------------------------


def test_the_sleep_phase_is_the_gradient_of_q_on_dreams_and_of_nothing_else() -> None:
    model = randomised(objective="wake-sleep", layers=(2, 1))
    values = torch.cartesian_prod(*[torch.arange(2)] * 4)
    log_p, log_q = tables(model, values)
    expected = gradients(-(log_p.exp().detach() * log_q).sum(), model)
    of_q = {id(p) for p in model.objectives()[1].parameters}
    found: dict[str, list[Tensor]] = {}
    for i in range(150):
        batch = Batch(values.repeat(8, 1))
        loss = model.recognition_loss(batch, generator=seeded(i))["loss"].mean()
        for name, gradient in gradients(loss, model).items():
            found.setdefault(name, []).append(gradient)
    for name, parameter in model.named_parameters():
        each = torch.stack(found[name])
        if id(parameter) in of_q:
            apart = (each.mean(0) - expected[name]).abs() / (each.std(0) / math.sqrt(150) + 1e-12)
            assert float(apart.max()) < 4, name
        else:
            assert not each.any(), name


def test_weights_of_reweighted_wake_sleep_tend_to_the_exact_posterior() -> None:
    apart = []
    for k in (1, 10, 100, 10_000):
        model = randomised(objective="reweighted-wake-sleep", samples=k)
        batch = Batch(X.repeat_interleave(20, 0))
        model.loss(batch, generator=seeded(1))
        z, share = batch.shared["latents"]
        torch.testing.assert_close(share.sum(0), torch.ones(40, dtype=torch.float64))
        mean = (share[..., None] * z[0]).sum(0)
        apart.append(float((mean - model.encode(batch.x)).detach().abs().mean()))
    assert apart[0] > apart[1] > apart[2] > apart[3]
    assert apart[3] < 0.02


def test_wake_q_follows_the_weighted_draws() -> None:
    model = randomised(objective="reweighted-wake-sleep", samples=20_000)
    batch = Batch(X)
    model.loss(batch, generator=seeded())
    log_p, log_q = tables(model, X)
    expected = gradients(-(log_p.softmax(0).detach() * log_q).sum(0).mean(), model)
    terms = model.recognition_loss(batch, generator=seeded())
    z, share = batch.shared["latents"]
    wake = -(share * model._log_prob_of(z, model._posterior_logits(X, z))).sum(0)
    for name, gradient in gradients(wake.mean(), model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=0.03)
    torch.testing.assert_close(terms["wake"], wake.detach())
    torch.testing.assert_close(terms["loss"].detach(), (terms["wake"] + terms["sleep"]) / 2)
    without = randomised(objective="reweighted-wake-sleep", wake_q=False)
    assert set(without.recognition_loss(Batch(X), generator=seeded())) == {"loss", "sleep"}


def test_dreams_have_the_gaps_of_the_examples() -> None:
    event = Event((3,), (REAL, BINARY, Support("nominal", 3)), missing=True)
    model = randomised(event, layers=(13,), objective="wake-sleep")
    x = torch.tensor([[0.5, torch.nan, 2.0], [torch.nan, 1.0, 0.0], [1.0, 0.0, 1.0]])
    assert torch.equal(model._dream(x, seeded())[1].isnan(), x.isnan())


# --- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective",
    [
        *UNBIASED,
        "enumerate",
        "variational",
        "gumbel-softmax",
        "straight-through",
        "wake-sleep",
        "reweighted-wake-sleep",
        "prior",
    ],
)
def test_every_objective_learns(objective: str) -> None:
    centres = (torch.rand(4, 12, generator=seeded(5)) < 0.5).long()
    which = torch.randint(4, (2000,), generator=seeded(6))
    x = (centres[which] + (torch.rand(2000, 12, generator=seeded(7)) < 0.05)) % 2
    rate = x.double().mean(0)
    independent = float(torch.special.xlogy(rate, rate).sum() + torch.special.xlogy(1 - rate, 1 - rate).sum())
    model = create("latent", Event((12,), BINARY), seed=0, layers=(4,), hidden=(), objective=objective)
    unsup.fit(model, x.numpy(), steps=400, batch_size=100, lr=0.02, seed=0, progress="off")
    assert isinstance(model, Latent)
    with torch.no_grad():
        assert float(model.eval().log_prob(x).mean()) > independent + (0.6 if objective == "importance" else 0.9)


def test_draws_follow_their_probabilities() -> None:
    for units in (Units(2), Units(2, 3)):
        logits = torch.randn(units.width, generator=seeded(), dtype=torch.float64)
        states = units.states(logits)
        chance = units.log_prob(states, logits).exp()
        assert float(chance.sum()) == pytest.approx(1, abs=1e-12)
        torch.testing.assert_close(chance @ states, units.mean(logits))
        noise = torch.rand(50_000, units.count, generator=seeded(), dtype=torch.float64)
        soft = torch.rand(50_000, units.width, generator=seeded(), dtype=torch.float64)
        hard = units.draw(logits.expand(50_000, -1), noise)
        relaxed = units.nearest(units.relaxed(logits.expand(50_000, -1), soft, 0.7))
        for z in (hard, relaxed):
            counts = (z[:, None] == states).all(2).double().mean(0)
            assert bool(((counts - chance).abs() < 4 * (chance * (1 - chance) / 50_000).sqrt()).all())
        other = torch.randn(units.width, generator=seeded(1), dtype=torch.float64)
        expected = (chance * (units.log_prob(states, logits) - units.log_prob(states, other))).sum()
        torch.testing.assert_close(units.kl_each(logits, other).sum(), expected)
        torch.testing.assert_close(units.mean(units.logits(units.mean(logits))), units.mean(logits))


def test_collapse_is_noticed_and_use_is_not() -> None:
    model = randomised(objective="vimco", layers=(3,))
    assert model.diagnose({"active": 2.5}) is None
    assert model.diagnose({"loss": 3.0}) is None
    found = model.diagnose({"generative/active": 0.1})
    assert found is not None
    assert found.name == "collapse"
    assert "0.1 of 3" in found.advice
    with torch.no_grad():
        assert float(model.loss(Batch(X), generator=seeded())["active"].mean()) > 2
        model.nets.encoder[-1].weight.zero_()
        model.nets.encoder[-1].bias.copy_(model.prior)
        terms = model.loss(Batch(X), generator=seeded())
    assert float(terms["active"].max()) == 0
    torch.testing.assert_close(terms["kl"], torch.zeros(2, dtype=torch.float64))


def test_terms_of_the_exact_loss_add_up_to_it() -> None:
    model = randomised(objective="enumerate", layers=(2, 2))
    terms = model.loss(Batch(X))
    with torch.no_grad():
        z = all_states(model)
        log_prior = model._log_prob_of(z, model._prior_logits(z)).expand(-1, 2)
        joint = log_likelihoods(model, X)
        posterior = (joint + log_prior).softmax(0)
        kl = (posterior * (posterior.log() - log_prior)).sum(0)
    torch.testing.assert_close(terms["kl"], kl, rtol=0, atol=1e-12)
    torch.testing.assert_close(terms["reconstruction"], -(posterior * joint).sum(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(terms["loss"].detach(), terms["kl"] + terms["reconstruction"], rtol=0, atol=1e-12)


def test_the_paper_preset_is_the_belief_network_200_200_784() -> None:
    model = create("latent", Event((1, 28, 28), BINARY), preset="paper")
    generative = 200 * 784 + 784 + 200 * 200 + 200 + 200
    recognition = 784 * 200 + 200 + 200 * 200 + 200
    assert model.parameter_count == generative + recognition


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (13,), "objective": "enumerate"}, "at most 4,096"),
        ({"layers": (13,), "objective": "variational"}, "at most 4,096"),
        ({"proposal": Part("latent", {"layers": (64,)})}, "for objective='importance'"),
        ({"proposal": Part("latent", {"layers": (3,)}), "objective": "importance"}, "same layers"),
        ({"proposal": Part("vae"), "objective": "importance"}, "latent model"),
        ({"layers": (4, 4), "categories": 3, "objective": "enumerate"}, r"3\^8"),
        ({"layers": ()}, "no latent variables"),
        ({"objective": "nvil", "samples": 5}, "uses one draw"),
        ({"objective": "vimco", "samples": 1}, "at least 2"),
        ({"objective": "enumerate", "layers": (3,), "temperature": 3.0}, "'gumbel-softmax' or 'straight-through', got"),
        ({"objective": "vimco", "last_temperature": 0.1}, "last_temperature=0.1 is for"),
        ({"objective": "enumerate", "layers": (3,), "sweeps": 9}, "sweeps=9 is for objective='variational'"),
        ({"objective": "wake-sleep", "wake_q": False}, "wake_q=False is for objective='reweighted-wake-sleep'"),
        ({"categories": 1}, "at least 2"),
        ({"decoder": "categorical"}, "does not fit"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Latent(FOUR, **options)


def test_refusals_of_verbs() -> None:
    with pytest.raises(InputError, match="adds noise"):
        Latent(Event((2,), Support("ordinal", 5)), decoder="gaussian")
    with pytest.raises(CapabilityError, match="no network q"):
        Latent(FOUR, layers=(2,), objective="enumerate").bound(X)
    wide, real = Latent(FOUR, layers=(13,)), Latent(Event((2,), REAL), layers=(2,))
    assert "too many states" in (wide.reason_against_coding() or "")
    assert "densities" in (real.reason_against_coding() or "")
    assert Latent(FOUR, layers=(3,)).reason_against_coding() is None
