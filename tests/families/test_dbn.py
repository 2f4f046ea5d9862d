"""The DBN against enumeration of all its layers, and against the RBM that it extends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from binary_states import index_of, seeded, states
from torch import Tensor

from unsup import Batch, Event, InputError, Support, create, fit, load
from unsup.core.batch import Time
from unsup.core.errors import CapabilityError
from unsup.core.random import Rows, part_of_batch
from unsup.core.storage import load_tensors
from unsup.data import Data, Split
from unsup.families.energy.dbn import DBN
from unsup.families.energy.rbm import RBM
from unsup.prob import boltzmann
from unsup.testing import examples

BINARY = Support("binary")
V = 4


def network(hidden: tuple[int, ...] = (3, 4), *, scale: float = 1.0, seed: int = 0, **options: object) -> DBN:
    """A small DBN in float64 with every parameter drawn."""
    model = DBN(Event((V,), BINARY), hidden=hidden, **options).double()
    generator = seeded(seed)
    model.prepare(Batch(examples(model.event, 64, seed=seed).x), generator=generator)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model.eval()


def bernoulli(p: Tensor, h: Tensor) -> Tensor:
    """The product of p or 1 − p of every pair of rows: ``(A, D)``, ``(B, D)`` → ``(A, B)``."""
    return torch.where(h[None] == 1, p[:, None], 1 - p[:, None]).prod(2)


def tables(model: DBN) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """p(h^{L−1}) of the top RBM, every p(h^{l−1} | h^l) ``(below, above)`` and q(h^l | h^{l−1}) ``(below, above)``."""
    with torch.no_grad():
        w, b, c = model._layer(model.depth - 1).interaction()
        v, h = states(len(b)), states(len(c))
        log_joint = (v @ b)[:, None] + (h @ c)[None] + v @ w @ h.t()
        top = (log_joint - log_joint.logsumexp((0, 1))).exp().sum(1)
        down, up = [], []
        for i in range(model.depth - 1):
            w, b, c = model._layer(i).interaction()
            low, high = states(len(b)), states(len(c))
            down.append(bernoulli((high @ w.t() + b).sigmoid(), low).t())
            r, bias = (w.t(), c) if not model.recognition else (model.recognition[i].weight, model.recognition[i].bias)
            up.append(bernoulli((low @ r.t() + bias).sigmoid(), high))
    return top, down, up


def density(model: DBN) -> Tensor:
    """p(x) of every x, the sum over all layers."""
    p, down, _ = tables(model)
    for matrix in reversed(down):
        p = matrix @ p
    return p


def exact_bound(model: DBN) -> Tensor:
    """E_q[log p(x, h) − log q(h | x)] of every x, the sum over all layers: two layers only."""
    top, (down,), (up,) = tables(model)
    return (up * (down.log() + top.log()[None] - up.log())).sum(1)


def gradient(model: DBN, value: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return {name: g for name, g in zip(names, found, strict=True) if g is not None}


# --- the density ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"centred": False}, {"fine_tuning": 0.0}], ids=str)
@pytest.mark.parametrize("hidden", [(3, 4), (3, 2, 4)])
def test_importance_weights_average_to_the_enumerated_density(
    hidden: tuple[int, ...], options: dict[str, object]
) -> None:
    model = network(hidden, **options)
    expected = density(model)
    assert float(expected.sum()) == pytest.approx(1, abs=1e-12)
    found = torch.stack([model.log_prob(states(V), samples=1500, generator=seeded(i)).exp() for i in range(12)])
    error = found.std(0) / len(found) ** 0.5
    assert float(((found.mean(0) - expected) / error).abs().max()) < 5
    assert float((error / expected).max()) < 0.1


@pytest.mark.parametrize("options", [{}, {"centred": False}, {"fine_tuning": 0.0}], ids=str)
def test_one_sample_is_the_enumerated_bound_on_average_and_below_log_p(options: dict[str, object]) -> None:
    model = network(**options)
    bound, log_p = exact_bound(model), density(model).log()
    assert float((log_p - bound).min()) > 1e-3
    found = torch.stack([model.log_prob(states(V), generator=seeded(i)) for i in range(4000)])
    error = found.std(0) / len(found) ** 0.5
    assert float(((found.mean(0) - bound) / error).abs().max()) < 5
    assert float((error / (log_p - bound)).max()) < 0.5  # what the test tells apart
    assert not found.requires_grad


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_new_layer_with_transposed_weights_has_the_density_of_the_rbm_and_a_tight_bound(
    persistent: bool, centred: bool
) -> None:
    model = network((3, V), persistent=persistent, centred=centred, chains=50)
    model.depth_in_use.fill_(1)
    rbm = RBM(model.event, hidden=3, persistent=False, centred=False).double()
    with torch.no_grad():
        for own, value in zip(
            (rbm.weight, rbm.visible_bias, rbm.hidden_bias), model._layer(0).interaction(), strict=True
        ):
            own.copy_(value)
    expected = rbm.log_prob(states(V)).detach()
    np.testing.assert_allclose(model.log_prob(states(V)), expected, atol=1e-12)  # one layer is the RBM
    np.testing.assert_allclose(density(model), expected.exp(), atol=1e-12)
    model.add_layer()
    assert model.depth == 2
    np.testing.assert_allclose(density(model), expected.exp(), atol=1e-12)
    for seed in range(5):  # q is the posterior: the weight of every draw is p(x)
        np.testing.assert_allclose(model.log_prob(states(V), generator=seeded(seed)), expected, atol=1e-12)
    with torch.no_grad():
        model._layer(1).weight[0, 0] += 1
    assert float((model.log_prob(states(V)) - expected).abs().max()) > 0.01


def test_a_larger_layer_starts_nearly_there_and_a_smaller_one_with_the_means_of_the_layer_below() -> None:
    for scale, size in ((1.0, V + 6), (0.3, 2)):
        model = network((3, size), chains=2000, scale=scale)
        model.depth_in_use.fill_(1)
        before = density(model)
        with torch.no_grad():  # the chains follow the RBM
            model._layer(0).fantasies.copy_(torch.randint(2, (2000, 3), generator=seeded(1)))
            model.train()
            for i in range(30):
                model.layer_loss(0, Batch(states(V)), generator=seeded(i))
        model.add_layer()
        after, (top, _, up) = density(model), tables(model)
        if size > V:
            assert float((after - before).abs().max()) < 2e-3
            assert float((after - before).abs().max()) > 0  # further weights are not zero
            with torch.no_grad():
                assert float(model._layer(1).weight[:, V:].abs().max()) > 0
        else:
            means = before @ up[0] @ states(3)
            np.testing.assert_allclose(top @ states(3), means, atol=0.05)


def test_samples_follow_the_density() -> None:
    for hidden in ((3, 4), (3, 2, 4)):
        model, n = network(hidden, burn_in=60, chains=50), 20_000
        p = density(model)
        share = index_of(model.sample(n, generator=seeded(2))).bincount(minlength=2**V) / n
        assert float(((share - p) / (p * (1 - p) / n).sqrt()).abs().max()) < 4.5


def test_codes_are_probabilities_passed_up_and_decoding_passes_them_down() -> None:
    model = network((3, 2, 4))
    x = states(V)
    first = model.recognition[0](x).sigmoid()
    second = model.recognition[1](first).sigmoid()
    w, b, c = model._layer(2).interaction()
    for found, expected in zip(model.encode_layers(x), (first, second, (second @ w + c).sigmoid()), strict=True):
        torch.testing.assert_close(found, expected)
    z = states(4)
    v = (z @ w.t() + b).sigmoid()
    for i in (1, 0):
        w, b, _ = model._layer(i).interaction()
        v = (v @ w.t() + b).sigmoid()
    assert torch.equal(model.decode(z), (v > 0.5).to(torch.uint8))
    assert model.code_size == 4


def test_a_single_layer_in_use_has_no_draws() -> None:
    model = network(scale=0.7)
    model.estimate_log_partition()
    for depth in (1, model.depth):
        model.depth_in_use.fill_(depth)
        model.estimate_log_partition()
        one, many = (model.log_prob(states(V), samples=k, generator=seeded(1)) for k in (1, 3))
        assert torch.allclose(one, many) != model.uses_samples, depth


def test_annealing_finds_the_log_partition_of_the_top_and_belongs_to_its_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = network(scale=0.7)
    truth = model.estimate_log_partition()
    exact = model.log_prob(states(V), samples=5, generator=seeded(1))
    assert (truth[1], model.likelihood_kind) == (0, "bound")
    monkeypatch.setattr(boltzmann, "ENUMERABLE", 2)
    monkeypatch.setattr(boltzmann, "TEMPERATURES", 300)
    assert model.likelihood_kind == "estimate"
    found = [model.estimate_log_partition(generator=seeded(i)) for i in range(8)]
    assert max(abs(value - truth[0]) / error for value, error in found) < 4
    estimated = model.log_prob(states(V), samples=5, generator=seeded(1))
    np.testing.assert_allclose(estimated - exact, truth[0] - found[-1][0], atol=1e-10)
    with torch.no_grad():
        model._layer(0).weight += 1  # not of the top RBM
    model.log_prob(states(V))
    with torch.no_grad():
        model._layer(1).weight[0, 0] += 1e-6
    with pytest.raises(CapabilityError, match=r"log Z of this DBN.*other parameters.*layers of 3 and 4 units"):
        model.log_prob(states(V))


# --- gradients --------------------------------------------------------------------------------------------------------


def test_every_player_has_gradients_of_its_own_parameters_only() -> None:
    model = network((3, 2, 4)).train()
    names = {id(p): name for name, p in model.named_parameters()}
    moved = {}
    for player in model.objectives():
        found = gradient(model, player.loss(Batch(states(V)), generator=seeded(3))["loss"].mean())
        assert set(found) == {names[id(p)] for p in player.parameters}
        assert all(float(g.abs().max()) > 0 for g in found.values())
        moved[player.name] = set(found)
    assert list(moved) == ["layer-1", "layer-2", "layer-3", "up-down"]
    assert moved["layer-2"] == {f"layers.1.{name}" for name in ("weight", "visible_bias", "hidden_bias")}
    directed = {f"layers.{i}.{name}" for i in range(2) for name in ("weight", "visible_bias")}
    recognition = {f"recognition.{i}.{name}" for i in range(2) for name in ("weight", "bias")}
    assert moved["up-down"] == directed | recognition | moved["layer-3"]
    assert len(network((3, 4), fine_tuning=0.0).objectives()) == 2
    assert not len(network((3, 4), fine_tuning=0.0).recognition)


@pytest.mark.parametrize("persistent", [True, False])
def test_the_up_down_gradient_is_that_of_the_enumerated_expectations(persistent: bool) -> None:
    n, sweeps = 40_000, 40  # after which the chains follow the top RBM
    model = network(chains=n, persistent=persistent, steps=1 if persistent else sweeps, seed=3, scale=1.5).train()
    top, (down,), (up,) = tables(model)
    data = torch.rand(2**V, generator=seeded(4), dtype=torch.float64) ** 2
    data = data / data.sum()
    x = states(V)[torch.multinomial(data, n, replacement=True, generator=seeded(5))]
    shares = index_of(x).bincount(minlength=2**V).double() / n
    if persistent:
        for i in range(sweeps):
            model._layer(1).contrasted(states(3), seeded(i))
    terms = model.up_down_loss(Batch(x), generator=seeded(6))
    found = gradient(model, terms["loss"].mean())
    # The enumerated loss: every expectation with fixed weights.
    upward = shares[:, None] * up  # q(h|x) of the data
    w, b, _ = model._layer(0).interaction()
    logits = states(3) @ w.t() + b
    log_down = -torch.nn.functional.binary_cross_entropy_with_logits(
        logits[None].expand(2**V, -1, -1), states(V)[:, None].expand(-1, 8, -1), reduction="none"
    ).sum(2)
    recognition = model.recognition[0](states(V))
    log_up = -torch.nn.functional.binary_cross_entropy_with_logits(
        recognition[:, None].expand(-1, 8, -1), states(3)[None].expand(2**V, -1, -1), reduction="none"
    ).sum(2)
    free = model._layer(1).energy_of(states(3))
    expected = gradient(model, -(upward * log_down).sum() + (upward.sum(0) - top) @ free - (down * top * log_up).sum())
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=0.025, err_msg=name)
        assert float(value.abs().max()) > 0.05


def test_a_layer_learns_from_bits_drawn_by_the_layers_below() -> None:
    n = 40_000
    model = network((3, 4), chains=n, seed=4, scale=1.5).train()
    top, _, (up,) = tables(model)
    x = states(V)[torch.randint(2**V, (n,), generator=seeded(1))]
    shares = index_of(x).bincount(minlength=2**V).double() / n
    for i in range(40):
        model._layer(1).contrasted(states(3), seeded(i))
    found = gradient(model, model.layer_loss(1, Batch(x), generator=seeded(2))["loss"].mean())
    expected = gradient(model, (shares @ up - top) @ model._layer(1).energy_of(states(3)))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=0.025, err_msg=name)
        assert float(value.abs().max()) > 0.1


@pytest.mark.parametrize("persistent", [True, False])
def test_the_up_down_loss_of_a_batch_in_parts_is_that_of_the_batch(persistent: bool) -> None:
    model = network(persistent=persistent, chains=7).train()
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    whole = model.up_down_loss(Batch(states(V)[:12]), generator=seeded(10))
    chains = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(kept)
    found = []
    for rows in (Rows(12, 0, 5), Rows(12, 5, 4), Rows(12, 9, 3)):
        with part_of_batch(rows):
            part = model.up_down_loss(Batch(states(V)[rows.start : rows.start + rows.count]), generator=seeded(10))
        found.append(part["loss"])
    torch.testing.assert_close(torch.cat(found), whole["loss"])
    assert all(torch.equal(v, chains[k]) for k, v in model.state_dict().items())


# --- training ---------------------------------------------------------------------------------------------------------


def some_data(dims: int = 6, n: int = 600) -> Data:
    event = Event((dims,), BINARY)
    x = examples(event, n, seed=1).x
    return Data(name=None, event=event, train=Split(x[:-200]), validation=Split(x[-200:]), test=Split(x[-200:]))


SETTINGS = {"validate_every": 1000, "progress": "off", "seed": 1, "batch_size": 50}


def test_a_run_trains_one_layer_after_the_other_and_then_all(monkeypatch: pytest.MonkeyPatch) -> None:
    data, path = some_data(), []
    moves = DBN.after_step

    def watch(self: DBN, time: Time) -> None:
        before = {name: p.detach().clone() for name, p in self.named_parameters()}
        path.append((time.step, before))
        moves(self, time)

    monkeypatch.setattr(DBN, "after_step", watch)
    model = DBN(data.event, hidden=(4, 6), fine_tuning=0.5, chains=20)
    fit(model, data, steps=40, **SETTINGS)
    expected = {range(2, 11): "layers.0", range(12, 21): "layers.1", range(22, 41): "up-down"}
    for span, name in expected.items():
        for (step, values), (_, earlier) in zip(path[1:], path, strict=False):
            if step in span:
                moved = {n for n, v in values.items() if not torch.equal(v, earlier[n])}
                own = {n for n in values if n.startswith(name)}
                if name == "up-down":
                    own = set(values) - {"layers.0.hidden_bias"}
                assert moved == own, step
    assert model.depth == 2


@pytest.mark.parametrize("persistent", [True, False])
def test_training_raises_the_bound_and_a_tied_layer_does_not_lower_it(
    persistent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, adds, found = some_data(n=1200), DBN.add_layer, []

    def bound(model: DBN) -> float:
        model.eval()
        value = float(model.double().log_prob(data.train.x, samples=20, generator=seeded(1)).mean())
        model.float().train()
        return value

    def watch(self: DBN) -> None:
        found.append(bound(self))
        adds(self)
        found.append(bound(self))

    monkeypatch.setattr(DBN, "add_layer", watch)
    torch.manual_seed(0)
    model = DBN(data.event, hidden=(6, 6), persistent=persistent, chains=100, steps=2)
    start = bound(model)
    fit(model, data, steps=1200, lr=1e-2, **SETTINGS)
    found.append(bound(model))
    one, two, end = found
    assert one > start + 0.3
    assert two == pytest.approx(one, abs=1e-4)
    assert end > one + 0.02


def test_a_stopped_run_goes_on_in_its_layer_and_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, moves = some_data(), DBN.after_step

    def build() -> DBN:
        return create("dbn", data.event, hidden=(4, 6), chains=8, burn_in=3, seed=1)

    whole = build()
    fit(whole, data, out=tmp_path / "whole", steps=30, **SETTINGS)
    last = load_tensors(tmp_path / "whole" / "checkpoints" / "last.safetensors")[0]
    for at in (9, 14, 25):  # at a new layer, within it, in the up-down part

        def interrupt(self: DBN, time: Time, at: int = at) -> None:
            moves(self, time)
            if time.step == at:
                os.kill(os.getpid(), signal.SIGINT)

        stopped, folder = build(), tmp_path / f"stopped-{at}"
        with monkeypatch.context() as patch:
            patch.setattr(DBN, "after_step", interrupt)
            assert fit(stopped, data, out=folder, steps=30, **SETTINGS).interrupted
        resumed = build()
        fit(resumed, data, out=folder, steps=30, resume=True, **SETTINGS)
        found = load_tensors(folder / "checkpoints" / "last.safetensors")[0]
        assert found.keys() == last.keys()
        for name, tensor in last.items():
            assert torch.equal(tensor, found[name]), name
    assert load(tmp_path / "whole").depth in (1, 2)


def test_a_network_has_two_layers_of_bits_at_least() -> None:
    with pytest.raises(InputError, match="takes binary data only"):
        DBN(Event((3,), Support("ordinal", 4)))
    with pytest.raises(InputError, match="at least two layers; use rbm for one"):
        DBN(Event((3,), BINARY), hidden=(4,))
    with pytest.raises(InputError, match="fine_tuning"):
        DBN(Event((3,), BINARY), fine_tuning=1.0)


def test_the_paper_is_the_network_of_500_and_2000_units() -> None:
    model = create("dbn", Event((1, 28, 28), BINARY), preset="paper")
    assert model.parameter_count == 784 * 500 + 784 + 500 + 500 * 2000 + 500 + 2000
