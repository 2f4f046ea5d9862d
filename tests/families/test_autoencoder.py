"""The autoencoder against PCA, automatic Jacobians and formulas."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from unsup import Batch, Event, InputError, create, fit, load, load_data
from unsup.core.event import BINARY, REAL
from unsup.families.selfsup.autoencoder import Autoencoder
from unsup.nn.nets import TiedLinear, linear_layers
from unsup.testing.cases.case import GAPS, MIXED, examples, ordinal, vector
from unsup.testing.subject import mean_loss


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def network(event: Event, n: int = 50, **options: object) -> tuple[Autoencoder, Batch]:
    """A model in float64 with every parameter drawn, and its data."""
    batch = Batch(examples(event, n).x)
    if batch.x.is_floating_point():
        batch = Batch(batch.x.double())
    torch.manual_seed(0)
    model = Autoencoder(event, **options).double()
    model.prepare(batch, generator=seeded())
    generator = seeded()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model, batch


def linear_on_reals(size: int, code: int, *, tied: bool = False) -> tuple[Autoencoder, Batch, Tensor, Tensor]:
    """A linear model with σ = 1, its data, the standardised data and the eigenvectors of its covariance."""
    x = torch.randn(200, size, generator=seeded(), dtype=torch.float64)
    x = x @ torch.randn(size, size, generator=seeded(1), dtype=torch.float64) + 3
    model = Autoencoder(vector(size, REAL), code=code, hidden=(), tied=tied).double()
    batch = Batch(x)
    model.prepare(batch, generator=seeded())
    y = model.nets.seen(x)
    values, vectors = torch.linalg.eigh(y.T @ y / len(y))
    return model, batch, values.flip(0), vectors.flip(1)


@torch.no_grad()
def place(model: Autoencoder, up: Tensor, down: Tensor) -> None:
    """Set the weights of a linear model, ``(code, D)`` and ``(D, code)``, and biases of 0."""
    (encoder,), (decoder,) = linear_layers(model.nets.encoder), linear_layers(model.nets.decoder)
    encoder.weight.copy_(up)
    if not isinstance(decoder, TiedLinear):
        decoder.weight.copy_(down)
    encoder.bias.zero_()
    decoder.bias.zero_()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("code", [1, 2, 4])
def test_linear_units_find_the_subspace_of_pca(code: int, tied: bool):
    """At the leading eigenvectors the gradient is 0, and the error is the sum of the other eigenvalues."""
    model, batch, values, vectors = linear_on_reals(5, code, tied=tied)
    turn = torch.linalg.qr(torch.randn(code, code, generator=seeded(2), dtype=torch.float64))[0]
    best = vectors[:, :code] @ turn  # any basis of the subspace
    place(model, best.T, best)
    loss = mean_loss(model.loss(batch))
    loss.backward()
    weights = [p for name, p in model.nets.named_parameters() if "coder" in name]
    assert max(float(p.grad.abs().max()) for p in weights if p.grad is not None) < 1e-12
    constant = 2.5 * math.log(2 * math.pi) + float(model.nets.observation.front.std.log().sum())
    assert loss.item() == pytest.approx(0.5 * float(values[code:].sum()) + constant, rel=1e-12)
    model.zero_grad()
    place(model, 0.9 * best.T, 0.9 * best)
    mean_loss(model.loss(batch)).backward()
    assert max(float(p.grad.abs().max()) for p in weights if p.grad is not None) > 1e-2


def test_a_linear_model_reaches_pca_by_training():
    model, batch, values, _ = linear_on_reals(5, 2)
    weights = [p for name, p in model.nets.named_parameters() if "coder" in name]
    optimizer = torch.optim.LBFGS(weights, max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = mean_loss(model.loss(batch))
        loss.backward()
        return loss

    optimizer.step(closure)
    y = model.nets.seen(batch.x)
    restored = model.nets.decode(model.encode(batch.x)).squeeze(-1)
    error = (y - restored).square().sum(1).mean().item()
    assert error == pytest.approx(float(values[2:].sum()), rel=1e-6)


def test_the_loss_is_the_cross_entropy_of_bits():
    model, batch = network(vector(6), code=3, hidden=(5,))
    logits = model.nets.decoder(model.encode(batch.x))
    expected = binary_cross_entropy_with_logits(logits, batch.x.double(), reduction="none").sum(1)
    torch.testing.assert_close(model.loss(batch)["loss"], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("event", "options"),
    [
        (vector(5), {"code": 7, "hidden": (), "code_activation": "sigmoid", "tied": True}),
        (vector(3, REAL), {"code": 2, "hidden": (6, 5), "activation": "tanh"}),
        (MIXED, {"code": 3, "hidden": (4,), "activation": "sigmoid", "code_activation": "tanh"}),
        (GAPS, {"code": 3, "hidden": (4,), "activation": "relu"}),
    ],
)
def test_the_contractive_penalty_is_the_norm_of_the_jacobian(event: Event, options: dict[str, object]):
    model, batch = network(event, 8, **options, contractive=0.3)
    plain, _ = network(event, 8, **options)
    terms = model.loss(batch, generator=seeded())
    for row, value in zip(model.nets.seen(batch.x), terms["contraction"], strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda v: model._code(v[None])[0], row)
        torch.testing.assert_close(value, jacobian.square().sum(), rtol=1e-10, atol=1e-14)
    expected = plain.loss(batch, generator=seeded())["loss"] + 0.3 * terms["contraction"]
    torch.testing.assert_close(terms["loss"], expected, rtol=1e-12, atol=1e-12)


def test_the_sparse_penalty_is_the_divergence_of_mean_activities():
    options = {"code": 4, "hidden": (), "code_activation": "sigmoid"}
    model, batch = network(vector(5), **options, sparsity=2.0, target=0.1)
    plain, _ = network(vector(5), **options)
    mean = model.encode(batch.x).mean(0)
    expected = sum(0.1 * math.log(0.1 / m) + 0.9 * math.log(0.9 / (1 - m)) for m in mean.tolist())
    terms = model.loss(batch)
    assert terms["sparsity"].item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(terms["loss"], plain.loss(batch)["loss"] + 2 * expected, rtol=1e-12, atol=1e-12)


def test_an_example_of_weight_two_is_two_examples():
    model, batch = network(vector(5), code=4, hidden=(), code_activation="sigmoid", sparsity=2.0)
    weight = torch.ones(len(batch))
    weight[:10] = 2
    weighted = model.loss(Batch(batch.x, weight=weight))["sparsity"]
    repeated = model.loss(Batch(torch.cat([batch.x, batch.x[:10]])))["sparsity"]
    torch.testing.assert_close(weighted, repeated, rtol=1e-12, atol=0)


@pytest.mark.parametrize("penalty", ["sparsity", "contractive"])
def test_penalties_move_the_encoder_only(penalty: str):
    options = {"code": 4, "hidden": (6,), "activation": "sigmoid", "code_activation": "sigmoid"}
    gradients = []
    for weight in (1.0, 0.0):
        model, batch = network(vector(5), **options, **{penalty: weight})
        mean_loss(model.loss(batch)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert (float((gradient - gradients[1][name]).abs().max()) > 1e-6) == ("encoder" in name), name


def test_a_strong_sparse_penalty_lowers_the_activity():
    data = load_data("digits", limit=500)
    shared = {"hidden": (), "code": 20, "code_activation": "sigmoid"}
    means = []
    for sparsity in (0.0, 30.0):
        model = create("autoencoder", data, seed=0, **shared, sparsity=sparsity)
        fit(model, data, steps=150, lr=1e-2, progress="off")
        means.append(model.encode(data.test.x).mean().item())
    assert means[1] < 0.12 < means[0]


def test_tied_weights_are_the_same_tensor():
    model, batch = network(vector(5), code=3, hidden=(4,), tied=True)
    assert model.parameter_count == 5 * 4 + 4 * 3 + (4 + 3) + (4 + 5)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        linear_layers(twin.nets.encoder)[0].weight.add_(1.0)
    up, down = linear_layers(twin.nets.encoder)[0], linear_layers(twin.nets.decoder)[-1]
    assert torch.equal(up.weight, down.weight.t())
    assert not torch.equal(up.weight, linear_layers(model.nets.encoder)[0].weight)
    h = torch.randn(2, 4, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(down(h), h @ up.weight + down.bias)
    model.loss(batch)["loss"].mean().backward()
    assert up.weight.shape == (4, 5)


def test_the_paper_preset_is_784_1000_500_250_30():
    model = create("autoencoder", Event((1, 28, 28), BINARY), preset="paper")
    widths = (784, 1000, 500, 250, 30)
    pairs = list(itertools.pairwise(widths))
    assert model.parameter_count == sum(a * b + b for a, b in pairs) + sum(a * b + a for a, b in pairs)


def test_it_learns_to_restore_and_reports_its_code(tmp_path):
    data = load_data("digits", limit=600)
    model = create("autoencoder", data, seed=0, code=8, hidden=(64,))
    fit(model, data, steps=300, out=tmp_path / "run", progress="off")
    again = load(tmp_path / "run")
    z = again.encode(data.test.x)
    assert z.shape == (len(data.test), 8)
    restored = again.decode(z)
    mean = data.train.x.double().mean(0)
    error, usual = ((v.double() - data.test.x.double()).square().mean() for v in (restored, mean))
    assert float(error) < 0.5 * float(usual)
    (told,) = model.findings(batch=data.test.batch(torch.arange(100)))
    assert told == "8 of 8 units of the code vary between examples"


def test_a_collapsed_code_is_reported():
    model, batch = network(vector(5), code=3, hidden=(), contractive=1.0)
    assert model.diagnose({"loss": 1.0, "contraction": 0.5}) is None
    assert model.diagnose({"loss": 1.0}) is None
    symptom = model.diagnose({"loss": 1.0, "contraction": 1e-6})
    assert symptom is not None
    assert "contractive" in symptom.advice
    with torch.no_grad():
        for p in model.nets.encoder.parameters():
            p.zero_()
    assert "collapsed" in model.findings(batch=batch)[0]


@pytest.mark.parametrize(
    ("event", "options", "words"),
    [
        (vector(4), {"sparsity": 1.0}, "code_activation='sigmoid'"),
        (vector(4, ordinal(4)), {"tied": True}, "as many outputs"),
        (Event((1, 8, 8), BINARY), {"net": "conv", "tied": True}, "net='dense'"),
        (Event((1, 8, 8), BINARY), {"net": "conv", "contractive": 1.0}, "net='dense'"),
        (vector(4), {"code": 1000, "hidden": (100,), "contractive": 1.0}, "100,000 numbers"),
        (vector(4, REAL), {"decoder": "bernoulli"}, "gaussian"),
    ],
)
def test_refusals(event: Event, options: dict[str, object], words: str):
    with pytest.raises(InputError, match=words):
        Autoencoder(event, **options)


def test_a_single_layer_may_be_wide_with_the_contractive_penalty():
    Autoencoder(vector(4), code=70_000, hidden=(), contractive=1.0)
