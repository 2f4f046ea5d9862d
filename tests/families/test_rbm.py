"""The RBM against enumeration of both layers, exact transition matrices and the user's own commands."""

from __future__ import annotations

import copy
import csv
import itertools
import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from binary_states import index_of, seeded, states
from torch import Tensor

from unsup import Batch, Event, InputError, Support, create, fit, load
from unsup.cli.main import main
from unsup.core.batch import Time
from unsup.core.errors import CapabilityError
from unsup.core.random import Rows, part_of_batch
from unsup.core.storage import load_tensors
from unsup.data import Data, Split
from unsup.evaluate.likelihood import evaluate_likelihood, log_probs
from unsup.families.energy.rbm import RBM
from unsup.prob import boltzmann
from unsup.prob.boltzmann import gibbs
from unsup.testing import examples

BINARY = Support("binary")
V, H = 5, 3
VISIBLE, HIDDEN = states(V), states(H)


def machine(*, scale: float = 1.0, seed: int = 0, event: Event | None = None, **options: object) -> RBM:
    """A small RBM in float64 with every parameter drawn."""
    model = RBM(event or Event((V,), BINARY), **({"hidden": H} | options)).double()
    generator = seeded(seed)
    model.prepare(Batch(examples(model.event, 64, seed=seed).x), generator=generator)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model.eval()


def joint(model: RBM) -> Tensor:
    """p(v, h) of every pair of states by the definition of the energy, one term at a time: ``(2^V, 2^H)``."""
    w, b, c = (p.detach() for p in model.interaction())
    if model.centred:  # from the centred energy itself
        w, b, c = (p.detach() for p in (model.weight, model.visible_bias, model.hidden_bias))
        v, h = VISIBLE - model.base_bias.sigmoid(), HIDDEN - 0.5
    else:
        v, h = VISIBLE, HIDDEN
    log_joint = (v @ b)[:, None] + (h @ c)[None, :] + torch.einsum("ni,ij,mj->nm", v, w, h)
    return (log_joint - log_joint.logsumexp((0, 1))).exp()


def sweep_matrix(model: RBM) -> Tensor:
    """T[v, v'] = Σ_h p(h|v) p(v'|h) from the joint: ``(2^V, 2^V)``."""
    p = joint(model)
    return (p / p.sum(1, keepdim=True)) @ (p / p.sum(0)).t()


def gradient(model: RBM, value: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, tuple(model.parameters()))])


def expected_gradient(model: RBM, data: Tensor, chains: Tensor) -> Tensor:
    """∂/∂θ of Σ_v (data − chains)(v) F(v), for two distributions over all v."""
    return gradient(model, (data - chains) @ model.energy(VISIBLE))


@pytest.fixture(params=[False, True], ids=["plain", "centred"])
def model(request: pytest.FixtureRequest) -> RBM:
    return machine(centred=request.param)


# --- the density ------------------------------------------------------------------------------------------------------


def test_energy_is_minus_the_log_of_the_joint_with_the_hidden_units_summed_out(model: RBM) -> None:
    p = joint(model).sum(1)
    np.testing.assert_allclose(model.log_prob(VISIBLE).detach(), p.log(), atol=1e-12)
    energy = model.energy(VISIBLE).detach()
    np.testing.assert_allclose(energy - energy[0], -(p.log() - p[0].log()), atol=1e-12)


def test_features_and_decoding_are_the_two_conditionals(model: RBM) -> None:
    p = joint(model)
    given_v, given_h = p / p.sum(1, keepdim=True), p / p.sum(0)
    np.testing.assert_allclose(model.encode(VISIBLE).detach(), given_v @ HIDDEN, atol=1e-12)
    most_probable = (given_h.t() @ VISIBLE > 0.5).to(torch.uint8)
    assert torch.equal(model.decode(HIDDEN), most_probable)


def test_one_sweep_is_the_exact_transition_of_both_blocks(model: RBM) -> None:
    n, interaction = 20_000, tuple(p.detach() for p in model.interaction())
    start = VISIBLE.repeat_interleave(n, 0)
    ended = index_of(gibbs(start, *interaction, 1, seeded(1))).view(2**V, n)
    expected = sweep_matrix(model)
    for row, probability in zip(ended, expected, strict=True):
        share = row.bincount(minlength=2**V) / n
        assert float(((share - probability) / (probability * (1 - probability) / n).sqrt()).abs().max()) < 5.5


def test_the_stationary_distribution_of_the_sweep_is_the_model_and_samples_follow_it(model: RBM) -> None:
    p = joint(model).sum(1)
    np.testing.assert_allclose(p @ sweep_matrix(model), p, atol=1e-14)
    model.burn_in = 60
    n = 20_000
    share = index_of(model.sample(n, generator=seeded(2))).bincount(minlength=2**V) / n
    assert float(((share - p) / (p * (1 - p) / n).sqrt()).abs().max()) < 4.5


def test_completions_follow_the_conditional_and_keep_what_is_known(model: RBM) -> None:
    model.burn_in, n = 60, 20_000
    x = torch.tensor([1, 0, 0, 1, 1], dtype=torch.uint8)
    known = torch.tensor([True, False, False, True, False])
    drawn = model.complete(x.expand(n, -1), known.expand(n, -1), generator=seeded(3))
    assert torch.equal(drawn[:, known], x[known].expand(n, -1))
    p = joint(model).sum(1) * (VISIBLE[:, known] == x[known]).all(1)
    p = p / p.sum()
    share = index_of(drawn).bincount(minlength=2**V) / n
    possible = p > 0
    assert float(share[~possible].sum()) == 0
    spread = (p * (1 - p) / n).sqrt()
    assert float(((share - p) / spread)[possible].abs().max()) < 4.5


@pytest.mark.parametrize(("visible", "hidden"), [(4, 7), (7, 4), (5, 5)])
def test_log_partition_sums_over_the_smaller_layer(visible: int, hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boltzmann, "STATES_AT_ONCE", 5)  # several chunks, the last one shorter
    model = machine(event=Event((visible,), BINARY), hidden=hidden)
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=visible)), dtype=torch.float64)
    found, error = model.estimate_log_partition()
    assert error == 0
    assert found == pytest.approx(float((-model.energy(states)).logsumexp(0).detach()), abs=1e-10)


def test_without_weights_the_log_partition_is_the_sum_over_independent_units() -> None:
    model = machine(event=Event((1, 30, 30), BINARY), hidden=12, centred=False)
    with torch.no_grad():
        model.weight.zero_()
    softplus = torch.nn.functional.softplus
    expected = (softplus(model.visible_bias).sum() + softplus(model.hidden_bias).sum()).detach()
    assert model.estimate_log_partition()[0] == pytest.approx(float(expected), abs=1e-9)


# --- the gradient -----------------------------------------------------------------------------------------------------


def test_the_expected_gradient_of_cd_is_that_of_k_exact_sweeps_and_its_bias_falls_geometrically() -> None:
    model = machine(scale=2, seed=6)
    transition, p = sweep_matrix(model), joint(model).sum(1)
    data = torch.rand(2**V, generator=seeded(4), dtype=torch.float64).softmax(0) ** 2
    data = data / data.sum()
    exact = expected_gradient(model, data, p)
    # The exact gradient is that of the mean negative log-likelihood, log Z by enumeration.
    nll = data @ model.energy(VISIBLE) + (-model.energy(VISIBLE)).logsumexp(0)
    np.testing.assert_allclose(exact, gradient(model, nll), atol=1e-12)
    bias, chains = [], data
    for _ in range(40):
        chains = chains @ transition
        bias.append(float((expected_gradient(model, data, chains) - exact).norm()))
    second = float(torch.linalg.eigvals(transition).abs().sort(descending=True).values[1])
    assert bias[-1] / bias[-2] == pytest.approx(second, rel=1e-3)
    assert bias[0] > 0.01 > 1e4 * bias[-1]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_loss_of_cd_has_the_expected_gradient_of_k_sweeps_from_the_batch(steps: int, centred: bool) -> None:
    model = machine(persistent=False, steps=steps, centred=centred, scale=3, seed=6)
    n = 10_000
    one = torch.randint(2**V, (4,), generator=seeded(5))
    x = VISIBLE[one].repeat(n // 4, 1)
    data = one.bincount(minlength=2**V).double() / 4
    expected = expected_gradient(model, data, data @ torch.linalg.matrix_power(sweep_matrix(model), steps))
    found = torch.stack([gradient(model, model.loss(Batch(x), generator=seeded(i))["loss"].mean()) for i in range(40)])
    error = found.std(0) / math.sqrt(len(found))
    assert float(((found.mean(0) - expected).abs() / (error + 1e-9)).max()) < 4.5
    wrong = expected_gradient(model, data, data @ torch.linalg.matrix_power(sweep_matrix(model), steps + 1))
    assert float(((wrong - expected).abs() / (error + 1e-9)).max()) > 9  # what the test would see


def test_persistent_chains_that_hardly_move_the_parameters_give_the_exact_gradient_of_the_likelihood(
    model: RBM,
) -> None:
    model = machine(centred=model.centred, chains=2000, seed=3).train()
    data = torch.rand(2**V, generator=seeded(6), dtype=torch.float64)
    data = data / data.sum()
    x = VISIBLE[torch.multinomial(data, 64, replacement=True, generator=seeded(7))]
    shares = index_of(x).bincount(minlength=2**V).double() / len(x)
    for i in range(30):  # learning rate 0
        model.loss(Batch(x), generator=seeded(i))
    found = torch.stack(
        [gradient(model, model.loss(Batch(x), generator=seeded(100 + i))["loss"].mean()) for i in range(60)]
    )
    expected = expected_gradient(model, shares, joint(model).sum(1))
    assert float((found.mean(0) - expected).abs().max()) < 0.02
    assert float(expected.abs().max()) > 0.1


def test_persistent_chains_never_see_the_data_and_those_of_cd_start_at_it() -> None:
    ones, zeros = (torch.full((64, V), value) for value in (1, 0))
    after = {}
    for persistent in (True, False):
        model = machine(persistent=persistent, seed=4).train()
        with torch.no_grad():
            model.weight.fill_(6)  # chains that hardly leave all ones or all zeros
            model.hidden_bias.fill_(0)
            model.visible_bias.fill_(0)
        before = copy_of(model)
        for name, x in (("ones", ones), ("zeros", zeros)):
            model.load_state_dict(before)
            found = model.loss(Batch(x), generator=seeded(8))
            after[persistent, name] = (found["chains"].mean().item(), model.state_dict().get("fantasies"))
    assert after[True, "ones"][0] == after[True, "zeros"][0]
    assert torch.equal(after[True, "ones"][1], after[True, "zeros"][1])
    assert after[False, "ones"][0] != after[False, "zeros"][0]


def copy_of(model: RBM) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_persistent_chains_move_in_training_alone_and_go_on_where_they_were() -> None:
    model = machine(seed=5, chains=40, steps=2)
    x = VISIBLE[:8]
    before = model.fantasies.clone()
    model.loss(Batch(x), generator=seeded(9))
    assert torch.equal(model.fantasies, before)
    model.train().loss(Batch(x), generator=seeded(9))
    # The same draws by hand: v|h, a sweep of h|v and v|h, then h|v.
    w, b, c = (p.detach() for p in model.interaction())
    generator = seeded(9)

    def bits(p: Tensor) -> Tensor:
        return (torch.rand(p.shape, generator=generator, dtype=p.dtype) < p).double()

    v = bits((before.double() @ w.t() + b).sigmoid())
    v = bits((bits((v @ w + c).sigmoid()) @ w.t() + b).sigmoid())
    h = bits((v @ w + c).sigmoid())
    assert torch.equal(model.fantasies, h.to(torch.uint8))


def test_the_loss_is_the_difference_of_the_free_energies_of_batch_and_chains(model: RBM) -> None:
    terms = model.loss(Batch(VISIBLE[3:9]), generator=seeded(10))
    other = model.loss(Batch(VISIBLE[20:26]), generator=seeded(10))
    by_energy = (model.energy(VISIBLE[3:9]) - model.energy(VISIBLE[20:26])).detach()
    torch.testing.assert_close(terms["data"] - other["data"], by_energy, rtol=0, atol=1e-12)
    assert terms["chains"].item() == other["chains"].item()
    torch.testing.assert_close(terms["loss"].detach(), terms["data"] - terms["chains"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{"persistent": False, "steps": 3}, {"chains": 9}], ids=["cd", "pcd"])
def test_the_contrast_is_what_the_loss_compares_and_moves_nothing(options: dict[str, object]) -> None:
    model = machine(seed=2, **options).train()
    batch, before = Batch(VISIBLE[3:11]), copy_of(model)
    data, chains = model.contrast(batch, generator=seeded(10))
    assert torch.equal(data, VISIBLE[3:11])
    assert len(chains) == len(model.fantasies if model.persistent else data)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    found = model.loss(batch, generator=seeded(10))["loss"].mean().item()
    expected = model.point_energy(data).mean() - model.point_energy(chains).mean()
    assert found == pytest.approx(expected.item(), abs=1e-12)
    assert torch.equal(model.point_energy(data), model.energy(data))


@pytest.mark.parametrize("options", [{"persistent": False}, {"chains": 7}], ids=["cd", "pcd"])
def test_a_batch_in_parts_is_one_batch_whose_chains_move_once(options: dict[str, object]) -> None:
    whole = machine(seed=2, **options).train()
    parts = copy.deepcopy(whole)
    loss = whole.loss(Batch(VISIBLE[:12]), generator=seeded(10))["loss"]
    found = []
    for rows in (Rows(12, 0, 5), Rows(12, 5, 4), Rows(12, 9, 3)):
        with part_of_batch(rows):
            x = VISIBLE[rows.start : rows.start + rows.count]
            found.append(parts.loss(Batch(x), generator=seeded(10))["loss"])
    torch.testing.assert_close(torch.cat(found), loss)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


@pytest.mark.parametrize(("visible", "hidden"), [(4, 7), (7, 4)])
def test_an_exact_log_probability_has_the_gradient_of_log_z_as_well(
    visible: int, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boltzmann, "STATES_AT_ONCE", 5)  # several blocks
    model = machine(event=Event((visible,), BINARY), hidden=hidden)
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=visible)), dtype=torch.float64)
    x = states[3:9]
    expected = gradient(model, (-model.energy(x) - (-model.energy(states)).logsumexp(0)).sum())
    np.testing.assert_allclose(gradient(model, model.log_prob(x).sum()), expected, atol=1e-12)
    model.estimate_log_partition()  # a stored log Z is a number: it must not stand in where a gradient is wanted
    np.testing.assert_allclose(gradient(model, model.log_prob(x).sum()), expected, atol=1e-12)
    uniform = torch.full((len(states),), 1 / len(states), dtype=torch.float64)
    assert float(gradient(model, uniform @ model.log_prob(states)).norm()) > 0.1
    # Σ_x p(x) ∇ log p(x) = 0, which no gradient without log Z's fulfils.
    p = model.log_prob(states).exp().detach()
    assert float(gradient(model, p @ model.log_prob(states)).abs().max()) < 1e-12


def test_the_gradient_of_log_z_takes_the_memory_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept for the backward pass does not grow with the number of blocks."""
    model = machine(event=Event((10,), BINARY), hidden=12)

    def kept(block: int) -> int:
        monkeypatch.setattr(boltzmann, "STATES_AT_ONCE", block)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model.log_prob(VISIBLE.new_zeros(1, 10))
        return max(sizes)

    assert kept(64) < 64 * 12 <= kept(1024)


def test_an_estimated_log_probability_comes_without_a_graph(estimated: RBM) -> None:
    estimated.estimate_log_partition(generator=seeded(1))
    assert not estimated.log_prob(VISIBLE).requires_grad


def test_samples_are_told_step_by_step_for_as_many_sweeps_as_are_asked_for() -> None:
    model = machine(seed=5, burn_in=4)
    path: list[tuple[int, Tensor]] = []
    found = model.sample(6, generator=seeded(1), burn_in=3, on_step=lambda *at: path.append(at))
    assert [step for step, _ in path] == [1, 2, 3]
    assert torch.equal(path[-1][1], found)
    assert found.dtype == path[0][1].dtype == torch.uint8
    # A chain of 4 sweeps is one of 3 and a sweep more.
    longer: list[Tensor] = []
    model.sample(6, generator=seeded(1), on_step=lambda _, x: longer.append(x))
    assert len(longer) == 4
    assert all(torch.equal(a, b) for a, (_, b) in zip(longer, path, strict=False))


def test_products_in_bfloat16_have_the_expected_gradient_of_exact_sweeps() -> None:
    """Sums, probabilities and uniform numbers are float32, so that no bit is more often 1 than it should be."""
    model = machine(persistent=False, steps=1, scale=2, seed=6)
    data = torch.rand(2**V, generator=seeded(4), dtype=torch.float64) ** 2
    x = VISIBLE[torch.multinomial(data, 40_000, replacement=True, generator=seeded(5))]
    shares = index_of(x).bincount(minlength=2**V).double() / len(x)
    expected = expected_gradient(model, shares, shares @ sweep_matrix(model))
    model.float()
    assert model.autocast
    with torch.autocast("cpu", torch.bfloat16):
        terms = [model.loss(Batch(x), generator=seeded(i)) for i in range(20)]
    assert {t.dtype for term in terms for t in term.values()} == {torch.float32}
    found = torch.stack([gradient(model, term["loss"].mean()) for term in terms]).double()
    exact = gradient(model, model.loss(Batch(x), generator=seeded(0))["loss"].mean())
    assert not torch.equal(found[0], exact.double())  # products are rounded
    np.testing.assert_allclose(found.mean(0), expected, atol=4e-3)
    assert float(expected.abs().max()) > 0.1


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("options", [{"persistent": False, "steps": 5}, {"persistent": True}], ids=["cd", "pcd"])
def test_learning_recovers_a_known_distribution(options: dict[str, object], bfloat16: bool) -> None:
    truth = machine(hidden=2, centred=False)
    with torch.no_grad():
        truth.weight.copy_(torch.tensor([[3.0, 2], [3, -2], [-3, 2], [2, 2], [-2, -1]]))
        truth.visible_bias.copy_(0.3 - 0.5 * truth.weight.sum(1))
        truth.hidden_bias.copy_(-0.5 * truth.weight.sum(0))
    p = (-truth.energy(VISIBLE)).softmax(0).detach()
    x = VISIBLE[torch.multinomial(p, 20_000, replacement=True, generator=seeded(11))]
    torch.manual_seed(0)
    model = RBM(truth.event, hidden=4, chains=200, **options).to(torch.float32 if bfloat16 else torch.float64).train()
    generator = seeded(12)
    model.prepare(Batch(x), generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    steps = 400
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        optimizer.zero_grad()
        rows = torch.randint(len(x), (200,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = model.loss(Batch(x[rows]), generator=generator)["loss"].mean()
        loss.backward()
        optimizer.step()
    model.double()
    independent = torch.where(VISIBLE == 1, x.mean(0), 1 - x.mean(0)).prod(1)
    before, after = (float((p * (p / q).log()).sum()) for q in (independent, model.log_prob(VISIBLE).exp().detach()))
    assert before > 0.2
    assert after < 0.01


# --- log Z and its place in evaluation --------------------------------------------------------------------------------


@pytest.fixture
def estimated(monkeypatch: pytest.MonkeyPatch) -> RBM:
    """A machine small enough to enumerate that takes itself for one that is not."""
    monkeypatch.setattr(boltzmann, "ENUMERABLE", 2)
    monkeypatch.setattr(boltzmann, "TEMPERATURES", 300)
    return machine(seed=7)


def test_the_estimate_is_the_enumerated_log_partition_within_its_error(estimated: RBM) -> None:
    truth = float((-estimated.energy(VISIBLE)).logsumexp(0).detach())
    found = [estimated.estimate_log_partition(generator=seeded(i)) for i in range(8)]
    apart = np.array([(value - truth) / error for value, error in found])
    assert (np.abs(apart) < 4).all()
    assert estimated.likelihood_kind == "estimate"
    assert estimated.log_partition_error == found[-1][1] > 0
    assert float(estimated.log_prob(VISIBLE).exp().sum()) == pytest.approx(math.exp(truth - found[-1][0]), rel=1e-9)


def test_more_effort_is_more_temperatures(estimated: RBM, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    monkeypatch.setattr(boltzmann, "TEMPERATURES", 100)
    ladder = boltzmann.ladder
    monkeypatch.setattr(boltzmann, "ladder", lambda count: lengths.append(count) or ladder(count))
    errors = [estimated.estimate_log_partition(effort=effort, generator=seeded(1))[1] for effort in (1, 10)]
    assert lengths == [100, 1000]
    assert errors[1] < errors[0]


def test_a_log_partition_belongs_to_its_parameters_through_types_and_files(estimated: RBM, tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="was not estimated"):
        estimated.log_prob(VISIBLE)
    with pytest.raises(CapabilityError, match="was not estimated"):
        _ = estimated.log_partition_error
    estimated.float().estimate_log_partition(generator=seeded(2))
    before = estimated.log_prob(VISIBLE)
    np.testing.assert_allclose(estimated.double().log_prob(VISIBLE).detach(), before.detach(), atol=1e-4)
    for name, p in estimated.named_parameters():
        kept = p.detach().clone()
        with torch.no_grad():
            p.view(-1)[-1] += 1e-6
        with pytest.raises(CapabilityError, match=r"other parameters.*estimate_log_partition"):
            estimated.log_prob(VISIBLE)
        with torch.no_grad():
            p.copy_(kept)
        assert torch.isfinite(estimated.log_prob(VISIBLE)).all(), name
    with torch.no_grad():  # two weights change places
        first, second = estimated.weight[0, 0].clone(), estimated.weight[0, 1].clone()
        estimated.weight[0, 0], estimated.weight[0, 1] = second, first
    with pytest.raises(CapabilityError, match="other parameters"):
        estimated.log_prob(VISIBLE)


def test_evaluation_estimates_log_partition_once_and_counts_its_error(estimated: RBM) -> None:
    x = VISIBLE.repeat(10, 1)  # more than one chunk
    found = evaluate_likelihood(estimated, x, seed=3)
    assert (found.kind, found.sign) == ("estimate", "≈")
    scores = -estimated.energy(x).detach() - estimated.log_partition[0]
    assert found.nats == pytest.approx(-float(scores.mean()), abs=1e-12)
    over_examples = float(scores.std()) / math.sqrt(len(x))
    assert found.standard_error == pytest.approx(math.hypot(over_examples, estimated.log_partition_error), rel=1e-9)
    assert found.standard_error > over_examples
    again = evaluate_likelihood(estimated, x, seed=3)
    assert again == found
    assert evaluate_likelihood(estimated, x, seed=4).nats != found.nats
    held = float(estimated.log_partition[0])
    evaluate_likelihood(estimated, x, samples=2, seed=4)
    assert float(estimated.log_partition[0]) != held


def test_scoring_with_the_stored_log_partition_estimates_nothing(estimated: RBM) -> None:
    with pytest.raises(CapabilityError, match="was not estimated"):
        log_probs(estimated, VISIBLE, stored=True)
    estimated.estimate_log_partition(generator=seeded(5))
    held = estimated.log_partition.clone()
    scores = log_probs(estimated, VISIBLE, seed=9, stored=True)
    assert torch.equal(estimated.log_partition, held)
    np.testing.assert_allclose(scores, -estimated.energy(VISIBLE).detach() - held[0], atol=1e-12)


def test_a_wide_machine_is_an_estimate_and_a_narrow_one_exact() -> None:
    kinds = [RBM(Event((d,), BINARY), hidden=h).likelihood_kind for d, h in ((21, 21), (20, 500), (784, 20))]
    assert kinds == ["estimate", "exact", "exact"]


# --- a user's way -----------------------------------------------------------------------------------------------------


def wide_data() -> Data:
    event = Event((1, 5, 5), BINARY)
    x = examples(event, 400, seed=1).x
    return Data(name=None, event=event, train=Split(x[:300]), validation=Split(x[300:]), test=Split(x[300:]))


def test_a_stopped_run_goes_on_with_its_chains_and_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = wide_data(), {"steps": 30, "validate_every": 10, "progress": "off", "seed": 1}
    monkeypatch.setattr(boltzmann, "TEMPERATURES", 20)

    def build() -> RBM:
        model = create("rbm", data.event, hidden=24, chains=8, burn_in=3, seed=1)
        assert isinstance(model, RBM)
        return model

    whole = build()
    fit(whole, data, out=tmp_path / "whole", **settings)
    stopped = build()
    moves = RBM.after_step

    def interrupt(self: RBM, time: Time) -> None:
        moves(self, time)
        if time.step == 17:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RBM, "after_step", interrupt)
        assert fit(stopped, data, out=tmp_path / "stopped", **settings).interrupted
    resumed = build()
    assert fit(resumed, data, out=tmp_path / "stopped", resume=True, **settings).steps == 30
    last = [load_tensors(tmp_path / name / "checkpoints" / "last.safetensors")[0] for name in ("whole", "stopped")]
    assert "model.fantasies" in last[0]
    for name, tensor in last[0].items():
        assert torch.equal(tensor, last[1][name]), name
    # The parameters handed out are averages, with the log Z that was estimated for them.
    handed = load(tmp_path / "whole")
    x = data.test.x
    assert torch.equal(handed.log_prob(x), whole.log_prob(x))


def test_eval_estimates_with_the_effort_asked_for_and_score_uses_the_log_partition_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boltzmann, "TEMPERATURES", 20)
    data = wide_data()
    np.save(tmp_path / "bits.npy", data.train.x.squeeze(1).numpy())
    run = str(tmp_path / "run")
    words = ["fit", str(tmp_path / "bits.npy"), "rbm", "-o", run, "--steps", "4", "--plain", "--preset", "tiny"]
    assert main([*words, "--model.hidden", "24", "--model.burn-in", "3"]) == 0
    capsys.readouterr()
    assert main(["eval", run, "--json", "--importance-samples", "3"]) == 0
    found = json.loads(capsys.readouterr().out)["figures"]["likelihood"]["detail"]
    assert (found["kind"], found["samples"]) == ("estimate", 3)
    assert main(["eval", run]) == 0
    assert "≈" in capsys.readouterr().out
    model = load(run)
    scores = []
    for seed in ("0", "1"):
        assert main(["score", run, str(tmp_path / "bits.npy"), "--seed", seed]) == 0
        rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
        assert {row["kind"] for row in rows} == {"estimate"}
        scores.append([float(row["log_prob_nats"]) for row in rows])
    assert scores[0] == scores[1]
    np.testing.assert_allclose(scores[0], model.log_prob(data.train.x).detach(), atol=1e-5)


def test_only_binary_data_is_taken() -> None:
    with pytest.raises(InputError, match="takes binary data only"):
        RBM(Event((3,), Support("ordinal", 4)))
    for option in ("hidden", "steps", "chains", "burn_in"):
        with pytest.raises(InputError, match=f"{option}=0 should be at least 1"):
            RBM(Event((3,), BINARY), **{option: 0})


def test_the_paper_is_the_machine_of_500_units() -> None:
    model = create("rbm", Event((1, 28, 28), BINARY), preset="paper")
    assert model.parameter_count == 784 * 500 + 784 + 500
    assert (model.steps, model.persistent, model.centred) == (25, False, False)
