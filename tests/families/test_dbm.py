"""The DBM against enumeration of all its layers by the definition of its energy."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from binary_states import index_of, seeded, states
from torch import Tensor
from torch.nn.functional import softplus

from unsup import Batch, Event, InputError, Support, create, fit
from unsup.core.batch import Time
from unsup.core.errors import CapabilityError
from unsup.core.random import Rows, part_of_batch
from unsup.core.storage import load_tensors
from unsup.data import Data, Split
from unsup.families.energy.dbm import DBM
from unsup.prob import boltzmann
from unsup.testing import examples

BINARY = Support("binary")
V = 4
SHAPES = [(3, 2), (3, 2, 3)]


def machine(hidden: tuple[int, ...] = (3, 2), *, scale: float = 1.5, seed: int = 0, **options: object) -> DBM:
    """A small DBM in float64 with every parameter drawn."""
    model = DBM(Event((V,), BINARY), hidden=hidden, **options).double()
    generator = seeded(seed)
    model.prepare(Batch(examples(model.event, 64, seed=seed).x), generator=generator)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model.eval()


def log_joint(model: DBM) -> Tensor:
    """log p(x, h¹, …) + log Z of every state of all layers, in the order of the layers; without gradient."""
    layers = states(sum(model.sizes)).split(model.sizes, 1)
    centres = [model.base_bias.sigmoid() if i == 0 else torch.full((n,), 0.5) for i, n in enumerate(model.sizes)]
    u = [layer - centre * model.centred for layer, centre in zip(layers, centres, strict=True)]
    total = sum(layer @ bias for layer, bias in zip(u, model.biases, strict=True))
    return total + sum(torch.einsum("ni,ij,nj->n", u[i], w, u[i + 1]) for i, w in enumerate(model.weights))


def joint(model: DBM) -> Tensor:
    """p of every state, ``(2^V, 2^(all hidden units))``."""
    return log_joint(model).softmax(0).view(2**V, -1).detach()


def gradient(model: DBM, value: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return {name: g for name, g in zip(names, found, strict=True) if g is not None}


def mean_states(model: DBM, x: Tensor) -> Tensor:
    """q(h | x) of every hidden state, ``(B, 2^H)``."""
    means = torch.cat(model.encode_layers(x), 1).detach()
    return torch.where(states(means.shape[1])[None] == 1, means[:, None], 1 - means[:, None]).prod(2)


@pytest.fixture(params=itertools.product(SHAPES, [False, True]), ids=str)
def model(request: pytest.FixtureRequest) -> DBM:
    hidden, centred = request.param
    return machine(hidden, centred=centred)


# --- the density ------------------------------------------------------------------------------------------------------


def test_even_and_odd_layers_are_one_machine_of_two_sides(model: DBM) -> None:
    total, error = model.estimate_log_partition()
    w, b, c = model.interaction()
    layers = states(sum(model.sizes)).split(model.sizes, 1)
    even, odd = torch.cat(layers[::2], 1), torch.cat(layers[1::2], 1)
    plain = even @ b + odd @ c + ((even @ w) * odd).sum(1)
    expected = log_joint(model)
    apart = (plain - expected).detach()
    np.testing.assert_allclose(apart, apart[0].expand_as(apart), atol=1e-10)
    assert total == pytest.approx(float(plain.logsumexp(0).detach()), abs=1e-10)
    assert error == 0
    energy = model.mean_energy(even, odd)
    np.testing.assert_allclose((energy + expected).detach(), 0, atol=1e-10)


def test_the_mean_field_bound_is_the_enumerated_one_and_below_log_p(model: DBM) -> None:
    p, x = joint(model), states(V)
    log_p = p.sum(1).log()
    q = mean_states(model, x)
    bound = (q * (p.log() - torch.where(q > 0, q, 1.0).log())).sum(1)
    np.testing.assert_allclose(model.mean_field_bound(x), bound, atol=1e-10)
    assert float((log_p - bound).min()) > -1e-12
    assert float((log_p - bound).max()) > 0.01


def test_updates_never_lower_the_bound_and_end_at_a_fixed_point(model: DBM) -> None:
    x, bounds, means = states(V), [], []
    for updates in (*range(12), 500, 501):
        model.updates = updates
        bounds.append(model.mean_field_bound(x))
        means.append(torch.cat(model.encode_layers(x), 1))
    steps = torch.stack(bounds).diff(dim=0)
    assert float(steps.min()) > -1e-12
    assert float(steps[0].max()) > 1e-3
    np.testing.assert_allclose(means[-1].detach(), means[-2].detach(), atol=1e-9)
    m = [x, *model.encode_layers(x)]  # the equations of the fixed point, layer by layer
    biases = model._plain_biases()
    for i in range(1, len(m)):
        inputs = biases[i] + m[i - 1] @ model.weights[i - 1]
        if i < len(model.weights):
            inputs = inputs + m[i + 1] @ model.weights[i].t()
        np.testing.assert_allclose(m[i].detach(), inputs.sigmoid().detach(), atol=1e-8)


def test_importance_weights_average_to_the_enumerated_density_and_rise_to_it(model: DBM) -> None:
    expected, x = joint(model).sum(1), states(V)
    runs = torch.stack([model.log_prob(x, samples=400, generator=seeded(i)) for i in range(12)])
    error = runs.exp().std(0) / len(runs) ** 0.5
    assert float(((runs.exp().mean(0) - expected) / error.clamp(min=1e-12)).abs().max()) < 6
    one = torch.stack([model.log_prob(x, generator=seeded(i)) for i in range(1000)]).mean(0)
    assert float((one - expected.log()).max()) < 0.05
    assert float((one - expected.log()).min()) < -0.01  # not tight
    assert float((one - model.mean_field_bound(x)).min()) > -0.1  # summing the odd layers out is tighter
    assert not runs.requires_grad
    assert model.likelihood_kind == "bound"


def test_without_weights_to_the_top_the_bound_is_exact() -> None:
    """Then the posterior of h¹ is independent, and of h² too."""
    model = machine(centred=False)
    with torch.no_grad():
        model.weights[1].zero_()
    expected = joint(model).sum(1).log()
    np.testing.assert_allclose(model.mean_field_bound(states(V)), expected, atol=1e-10)
    np.testing.assert_allclose(model.log_prob(states(V), generator=seeded(1)), expected, atol=1e-10)


def test_annealing_brackets_the_log_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    model = machine(scale=1.0)
    truth, _ = model.estimate_log_partition()
    w, b, c = (t.detach() for t in model.interaction())
    base = torch.zeros_like(b)
    step = boltzmann.bernoulli_pair_step(w, b, c, base)
    p = joint(model).view(2**V, 2**3, 2**2).sum(1).flatten()  # of the even layers
    even = states(V + 2)[torch.multinomial(p, 4000, replacement=True, generator=seeded(1))]
    down = boltzmann.anneal(even, boltzmann.ladder(60)[::-1], step, generator=seeded(2))
    above, error = boltzmann.log_mean_and_error(down)
    reverse = boltzmann.base_log_partition(base, 3) - above
    assert reverse == pytest.approx(truth, abs=5 * error)
    monkeypatch.setattr(boltzmann, "ENUMERABLE", 2)
    monkeypatch.setattr(boltzmann, "TEMPERATURES", 200)
    with pytest.raises(CapabilityError, match=r"log Z of this DBM.*even and odd layers of 6 and 3 units"):
        machine().log_prob(states(V))
    found = [model.estimate_log_partition(generator=seeded(i)) for i in range(8)]
    assert max(abs(value - truth) / error for value, error in found) < 4
    assert model.likelihood_kind == "estimate"
    # Few temperatures from exact samples and towards them: below the truth on average, and above it.
    short = boltzmann.ladder(3)
    start = boltzmann.bits(base.sigmoid().expand(4000, -1), seeded(3))
    forward = boltzmann.base_log_partition(base, 3) + boltzmann.anneal(start, short, step, generator=seeded(4)).mean()
    back = boltzmann.anneal(even, short[::-1], step, generator=seeded(5))
    backward = boltzmann.base_log_partition(base, 3) - back.mean()
    assert float(forward) < truth - 0.05
    assert float(backward) > truth + 0.05


# --- chains -----------------------------------------------------------------------------------------------------------


def even_and_odd(model: DBM) -> Tensor:
    """p of every pair of even and odd states, ``(2^E, 2^O)``."""
    layers = states(sum(model.sizes)).split(model.sizes, 1)
    even, odd = (index_of(torch.cat(layers[side::2], 1)) for side in (0, 1))
    p = torch.zeros(2 ** sum(model.sizes[::2]), 2 ** sum(model.sizes[1::2]), dtype=torch.float64)
    p[even, odd] = joint(model).flatten()
    return p


def test_sweeps_leave_the_enumerated_distribution_invariant(model: DBM) -> None:
    p = even_and_odd(model)
    # p(o|e) p(e'|o) by the conditionals that the chain uses.
    w, b, c = (t.detach() for t in model.interaction())
    even, odd = states(len(b)), states(len(c))

    def table(log_odds: Tensor, drawn: Tensor) -> Tensor:
        return (log_odds @ drawn.t() - softplus(log_odds).sum(1, keepdim=True)).exp()

    up, down = table(even @ w + c, odd), table(odd @ w.t() + b, even)
    np.testing.assert_allclose(up, p / p.sum(1, keepdim=True), atol=1e-10)
    of_even = p.sum(1)
    np.testing.assert_allclose(of_even @ (up @ down), of_even, atol=1e-12)
    n = 20_000
    start = even[torch.multinomial(of_even, n, replacement=True, generator=seeded(1))]
    ends = index_of(boltzmann.gibbs(start, w, b, c, 1, seeded(2))).bincount(minlength=len(of_even)) / n
    spread = (of_even * (1 - of_even) / n).sqrt()
    assert float(((ends - of_even).abs() / (spread + 1e-4)).max()) < 5


def test_samples_and_completions_follow_the_density(model: DBM) -> None:
    model.burn_in, n = 150, 20_000
    p = joint(model).sum(1)
    share = index_of(model.sample(n, generator=seeded(2))).bincount(minlength=2**V) / n
    assert float(((share - p).abs() / ((p * (1 - p) / n).sqrt() + 1e-4)).max()) < 5
    x, known = torch.tensor([1, 0, 0, 1], dtype=torch.uint8), torch.tensor([True, False, False, True])
    drawn = model.complete(x.expand(n, -1), known.expand(n, -1), generator=seeded(3))
    p = p * (states(V)[:, known] == x[known]).all(1)
    p = p / p.sum()
    share = index_of(drawn).bincount(minlength=2**V) / n
    assert float(share[p == 0].sum()) == 0
    assert float(((share - p).abs() / ((p * (1 - p) / n).sqrt() + 1e-4)).max()) < 5


# --- gradients --------------------------------------------------------------------------------------------------------


def test_the_joint_gradient_is_that_of_the_enumerated_bound(model: DBM) -> None:
    n = 20_000
    model = machine(model.config["hidden"], centred=model.centred, chains=n, scale=1.0).train()
    x = states(V)[[3, 5, 5, 8, 9, 14]]
    for i in range(60):
        model.loss(Batch(x), generator=seeded(i))
    terms = model.loss(Batch(x), generator=seeded(100))
    found = gradient(model, terms["loss"].mean())
    # −E_q[log p(x, h)] with q fixed: the energy of every state, and log Z.
    q, energy = mean_states(model, x), -log_joint(model)
    of_data = (q * energy.view(2**V, -1)[index_of(x)]).sum(1)
    expected = gradient(model, of_data.mean() + (-energy).logsumexp(0))
    np.testing.assert_allclose(terms["data"], of_data.detach(), atol=1e-10)
    assert set(found) == set(expected) == {name for name, _ in model.named_parameters()}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=0.03, err_msg=name)
    assert max(float(g.abs().max()) for g in expected.values()) > 0.2


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_pretraining_is_the_exact_gradient_of_a_doubled_machine_after_many_sweeps(index: int, centred: bool) -> None:
    n = 20_000
    model = machine((3, 2, 3), centred=centred, scale=1.0, steps=60)
    w, b, c = model.doubled(index)
    weight, size, above = model.weights[index], model.sizes[index], model.sizes[index + 1]
    assert w.shape == ((2 * size, above) if index == 0 else (size, 2 * above) if index == 2 else (size, above))
    # The doubled machine has, at one state of its doubled side, the inputs of the deep machine at equal copies.
    x = states(V)[torch.randint(2**V, (n,), generator=seeded(1))]
    found = gradient(model, model.layer_loss(index, Batch(x), generator=seeded(2))["loss"].mean())
    names = {f"weights.{index}", f"biases.{index}", f"biases.{index + 1}"}
    assert set(found) == names
    v = x
    generator = seeded(2)
    with torch.no_grad():
        for lower in range(index):
            lw, _, lc = model.doubled(lower)
            v = boltzmann.bits((torch.cat([v, v], 1) if lower == 0 else v).matmul(lw).add(lc).sigmoid(), generator)
        v = torch.cat([v, v], 1) if index == 0 else v
    everything = states(len(b))
    nll = boltzmann.free_energy(v, w, b, c).mean() + (-boltzmann.free_energy(everything, w, b, c)).logsumexp(0)
    expected = gradient(model, nll)
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], atol=0.03, err_msg=name)
    assert max(float(expected[name].abs().max()) for name in names) > 0.06
    # By definition: the energy of two copies with equal weights, or of doubled weights.
    mu = (model.base_bias.sigmoid() if index == 0 else torch.full((size,), 0.5)) * centred
    h, half = states(len(c)), 0.5 * centred
    if index == 0:
        low = sum((everything[:, s : s + size] - mu) @ weight for s in (0, size))
        bias = sum((everything[:, s : s + size] - mu) @ model.biases[0] for s in (0, size))
        high = h - half
        energy = bias[:, None] + (low @ high.t()) + (high @ model.biases[1])[None]
    elif index == 2:
        high = sum(h[:, s : s + above] - half for s in (0, above))
        energy = ((everything - mu) @ model.biases[2])[:, None] + (everything - mu) @ weight @ high.t()
        energy = energy + (high @ model.biases[3])[None]
    else:
        energy = ((everything - mu) @ model.biases[1])[:, None] + 2 * (everything - mu) @ weight @ (h - half).t()
        energy = energy + ((h - half) @ model.biases[2])[None]
    plain = (everything @ b)[:, None] + (h @ c)[None] + everything @ w @ h.t()
    apart = (plain - energy).detach()
    np.testing.assert_allclose(apart, apart[0, 0].expand_as(apart), atol=1e-10)


def test_every_player_moves_its_own_parameters() -> None:
    model = machine((3, 2, 3)).train()
    moved = {
        player.name: {name for name, p in model.named_parameters() if any(p is own for own in player.parameters)}
        for player in model.objectives()
    }
    assert moved == {
        "layer-1": {"weights.0", "biases.0", "biases.1"},
        "layer-2": {"weights.1", "biases.2"},
        "layer-3": {"weights.2", "biases.3"},
        "joint": {name for name, _ in model.named_parameters()},
    }
    assert [o.name for o in machine(pretraining=0.0).objectives()] == ["joint"]


def test_the_joint_loss_of_a_batch_in_parts_is_that_of_the_batch() -> None:
    model = machine(chains=7).train()
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    whole = model.loss(Batch(states(V)[:12]), generator=seeded(10))["loss"]
    chains = model.fantasies.clone()
    model.load_state_dict(kept)
    found = []
    for rows in (Rows(12, 0, 5), Rows(12, 5, 4), Rows(12, 9, 3)):
        with part_of_batch(rows):
            x = states(V)[rows.start : rows.start + rows.count]
            found.append(model.loss(Batch(x), generator=seeded(10))["loss"])
    torch.testing.assert_close(torch.cat(found), whole)
    assert torch.equal(model.fantasies, chains)
    model.eval().loss(Batch(states(V)), generator=seeded(1))
    assert torch.equal(model.fantasies, chains)


# --- training ---------------------------------------------------------------------------------------------------------


def some_data(dims: int = 6, n: int = 1200) -> Data:
    event = Event((dims,), BINARY)
    x = examples(event, n, seed=1).x
    return Data(name=None, event=event, train=Split(x[:-200]), validation=Split(x[-200:]), test=Split(x[-200:]))


SETTINGS = {"validate_every": 1000, "progress": "off", "seed": 1, "batch_size": 50}


@pytest.mark.parametrize("pretraining", [0.0, 0.4])
def test_training_raises_the_bound_in_both_parts(pretraining: float, monkeypatch: pytest.MonkeyPatch) -> None:
    data, found = some_data(), []
    torch.manual_seed(0)
    model = DBM(data.event, hidden=(5, 4), pretraining=pretraining, chains=100)

    def bound(model: DBM) -> float:
        training = model.training
        value = float(model.eval().log_prob(data.train.x, samples=20, generator=seeded(1)).mean())
        model.train(training)
        return value

    def watch(self: DBM, time: Time) -> None:
        if time.step in (int(pretraining * 1000), 1000):
            found.append(bound(self))

    monkeypatch.setattr(DBM, "after_step", watch)
    start = bound(model)
    fit(model, data, steps=1000, lr=1e-2, **SETTINGS)
    assert found[-1] > start + 0.5
    if pretraining:
        assert start + 0.1 < found[0] < found[1] - 0.02


def test_a_stopped_run_goes_on_with_its_chains_and_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, moves = some_data(n=600), DBM.after_step

    def build() -> DBM:
        return create("dbm", data.event, hidden=(4, 6), chains=8, burn_in=3, pretraining=0.5, seed=1)

    fit(build(), data, out=tmp_path / "whole", steps=24, **SETTINGS)
    last = load_tensors(tmp_path / "whole" / "checkpoints" / "last.safetensors")[0]
    assert "model.fantasies" in last
    for at in (8, 17):

        def interrupt(self: DBM, time: Time, at: int = at) -> None:
            moves(self, time)
            if time.step == at:
                os.kill(os.getpid(), signal.SIGINT)

        folder = tmp_path / f"stopped-{at}"
        with monkeypatch.context() as patch:
            patch.setattr(DBM, "after_step", interrupt)
            assert fit(build(), data, out=folder, steps=24, **SETTINGS).interrupted
        fit(build(), data, out=folder, steps=24, resume=True, **SETTINGS)
        found = load_tensors(folder / "checkpoints" / "last.safetensors")[0]
        assert found.keys() == last.keys()
        for name, tensor in last.items():
            assert torch.equal(tensor, found[name]), name


def test_decoding_clamps_the_top_and_settles_on_the_others(model: DBM) -> None:
    z = states(model.code_size)
    model.updates = 300
    found = model.decode(z)
    # The same fixed point by one unit layer after another from the probabilities that belong to the answer.
    assert found.shape == (len(z), V)
    assert found.dtype == torch.uint8
    # Weights that only copy: the code decides every pixel.
    copying = machine((V, V), centred=False)
    with torch.no_grad():
        for w in copying.weights:
            w.copy_(20 * torch.eye(V))
        for b in copying.biases:
            b.fill_(-10 if b is copying.biases[0] else -20)
    assert torch.equal(copying.decode(states(V)), states(V).to(torch.uint8))


def test_a_machine_has_two_layers_of_bits_at_least() -> None:
    with pytest.raises(InputError, match="takes binary data only"):
        DBM(Event((3,), Support("ordinal", 4)))
    with pytest.raises(InputError, match="at least two layers; use rbm for one"):
        DBM(Event((3,), BINARY), hidden=(4,))


def test_the_paper_is_the_network_of_500_and_1000_units() -> None:
    model = create("dbm", Event((1, 28, 28), BINARY), preset="paper")
    assert model.parameter_count == 784 * 500 + 784 + 500 + 500 * 1000 + 1000
