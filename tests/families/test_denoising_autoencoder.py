"""The denoising autoencoder against the optimal linear denoiser, the score, loops, and its own layers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from unsup import Batch, Event, InputError, create, fit, load, load_data
from unsup.core.event import BINARY, REAL, Support
from unsup.core.model import playing_at
from unsup.evaluate.validators import choose_validator
from unsup.families.selfsup.autoencoder import Autoencoder
from unsup.families.selfsup.denoising_autoencoder import DenoisingAutoencoder
from unsup.nn import corruption
from unsup.nn.nets import linear_layers
from unsup.testing.cases.case import GAPS, examples, ordinal, vector
from unsup.testing.subject import learn, mean_loss

LINEAR = {"hidden": (), "activation": "linear", "noise": "gaussian"}


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def network(event: Event, n: int = 50, **options: object) -> tuple[DenoisingAutoencoder, Batch]:
    """A model in float64 with every parameter drawn, and its data."""
    batch = Batch(examples(event, n).x)
    if batch.x.is_floating_point():
        batch = Batch(batch.x.double())
    torch.manual_seed(0)
    model = DenoisingAutoencoder(event, **options).double()
    model.prepare(batch, generator=seeded())
    generator = seeded()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model, batch


def exact_moments(size: int, n: int = 60) -> tuple[Tensor, Tensor]:
    """Data and noise ``(n, size)`` without a mean, uncorrelated in the sample, the noise with covariance I."""
    columns = torch.randn(n, 2 * size + 1, generator=seeded(), dtype=torch.float64)
    columns[:, 0] = 1
    q = torch.linalg.qr(columns)[0][:, 1:] * math.sqrt(n)
    mix = torch.randn(size, size, generator=seeded(1), dtype=torch.float64)
    return q[:, :size] @ mix, q[:, size:]


@torch.no_grad()
def place(model: DenoisingAutoencoder, up: Tensor, down: Tensor) -> None:
    (encoder,), (decoder,) = linear_layers(model.nets.encoder), linear_layers(model.nets.decoder)
    encoder.weight.copy_(up)
    decoder.weight.copy_(down)
    encoder.bias.zero_()
    decoder.bias.zero_()


# --- oracles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.1, 1.0, 3.0])
def test_the_optimal_linear_denoiser_has_no_gradient(sigma: float, monkeypatch: pytest.MonkeyPatch):
    """R = (I + σ² Σ⁻¹)⁻¹ for Gaussian data of covariance Σ; a gradient of any other R moves towards it."""
    x, noise = exact_moments(4)
    model = DenoisingAutoencoder(vector(4, REAL), code=4, corruption=sigma, **LINEAR).double()
    batch = Batch(x)
    model.prepare(batch, generator=seeded())
    y = model.nets.seen(x)
    covariance = y.T @ y / len(y)
    torch.testing.assert_close(covariance.diagonal(), torch.ones(4, dtype=torch.float64))
    eye = torch.eye(4, dtype=torch.float64)
    best = torch.linalg.inv(eye + sigma**2 * torch.linalg.inv(covariance))
    monkeypatch.setattr(corruption.random, "normal", lambda *_, **__: noise)
    weights = [p for name, p in model.nets.named_parameters() if "coder" in name]
    for factor, zero in ((1.0, True), (0.9, False)):
        place(model, factor * best, eye)
        model.zero_grad()
        loss = mean_loss(model.loss(batch))
        loss.backward()
        largest = max(float(p.grad.abs().max()) for p in weights if p.grad is not None)
        assert (largest < 1e-12) == zero, largest
        if zero:  # the error left is the trace of the posterior covariance
            left = (covariance - best @ covariance).trace().item()
            constant = 2 * math.log(2 * math.pi) + float(model.nets.observation.front.std.log().sum())
            assert loss.item() == pytest.approx(0.5 * left + constant, rel=1e-12)


def test_what_the_best_denoiser_adds_is_the_score():
    """(r(x) − x) / σ², in units of the data, tends to ∇ log p of Gaussian data as σ → 0, with an error of order σ²."""
    x, _ = exact_moments(3)
    model = DenoisingAutoencoder(vector(3, REAL), code=3, corruption=0.1, **LINEAR).double()
    model.prepare(Batch(x), generator=seeded())
    y, std = model.nets.seen(x), model.nets.observation.front.std
    gaussian = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), x.T @ x / len(x))
    at = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(gaussian.log_prob(at).sum(), at)
    errors = []
    for sigma in (1e-2, 1e-3):
        eye = torch.eye(3, dtype=torch.float64)
        place(model, torch.linalg.inv(eye + sigma**2 * torch.linalg.inv(y.T @ y / len(y))), eye)
        with torch.no_grad():
            restored = model.nets.decode(model.encode(x)).squeeze(-1)
        errors.append(float((((restored - y) / sigma**2) / std - score).abs().max() / score.abs().max()))
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)


def test_without_noise_it_is_the_autoencoder():
    options = {"code": 3, "hidden": (5,), "activation": "sigmoid"}
    for event in (vector(6), vector(4, ordinal(5)), vector(3, REAL)):
        model, batch = network(event, **options, corruption=0.0)
        plain = Autoencoder(event, **options, code_activation="sigmoid").double()
        plain.load_state_dict(model.state_dict())
        torch.testing.assert_close(model.loss(batch)["loss"], plain.loss(batch)["loss"], rtol=0, atol=0)


def test_the_target_is_the_clean_example():
    """Everything masked: −log p(x | g(f(nothing))) by hand."""
    model, batch = network(vector(6), code=3, hidden=(5,), corruption=1.0)
    code = model._code(torch.zeros(1, 6, dtype=torch.float64))
    logits = model.nets.decoder(code).expand(len(batch), -1)
    expected = binary_cross_entropy_with_logits(logits, batch.x.double(), reduction="none").sum(1)
    torch.testing.assert_close(model.loss(batch, generator=seeded())["loss"], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("tied", [False, True])
def test_layers_against_a_loop(activation: str, tied: bool):
    """The loss of every layer, unit by unit, from the same draws."""
    options = {"hidden": (5, 4), "code": 3, "activation": activation, "tied": tied, "corruption": 0.4}
    model, batch = network(vector(6), 7, **options, pretraining=1.0)
    s = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}[activation]
    ups = [(layer.weight.detach(), layer.bias.detach()) for layer in linear_layers(model.nets.encoder)]
    downs = [(layer.weight.detach(), layer.bias.detach()) for layer in linear_layers(model.nets.decoder)[::-1]]
    below = batch.x.double()
    for index, (up, down) in enumerate(zip(ups, downs, strict=True)):
        found = model.layer_loss(index, batch, generator=seeded(index))["loss"]
        kept = torch.rand(below.shape, generator=seeded(index), dtype=torch.float64) >= 0.4
        for row in range(7):
            h = torch.stack([s((up[0][j] * below[row] * kept[row]).sum() + up[1][j]) for j in range(len(up[1]))])
            total = 0.0
            for d, target in enumerate(below[row]):
                a = (down[0][d] * h).sum() + down[1][d]
                if index == 0 or activation == "sigmoid":
                    total -= target * a.sigmoid().log() + (1 - target) * (-a).sigmoid().log()
                else:
                    total += 0.5 * ((a.tanh() if activation == "tanh" else a) - target) ** 2
            torch.testing.assert_close(found[row], total, rtol=1e-10, atol=1e-10)
        below = s(below @ up[0].T + up[1])
    torch.testing.assert_close(model.encode(batch.x), below)


def test_the_only_layer_is_the_whole_model():
    model, batch = network(GAPS, code=5, hidden=(), pretraining=1.0)
    one, other = (
        f(batch, generator=seeded())["loss"] for f in (model.loss, lambda b, **k: model.layer_loss(0, b, **k))
    )
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


# --- wiring -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_the_gradient_of_a_layer_reaches_that_layer_only(tied: bool):
    model, batch = network(vector(4, REAL), hidden=(6, 5), code=3, tied=tied, noise="gaussian", pretraining=0.6)
    *layers, everything = model.objectives()
    names = {id(p): name for name, p in model.named_parameters()}
    for index, layer in enumerate(layers):
        model.zero_grad()
        mean_loss(layer.loss(batch, generator=seeded())).backward()
        reached = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
        assert reached == {names[id(p)] for p in layer.parameters}, index
    owned = list(itertools.chain.from_iterable(layer.parameters for layer in layers))
    assert len(owned) == len({id(p) for p in owned}) == len(names)
    assert {id(p) for p in everything.parameters} == set(names)


def test_training_a_layer_leaves_the_others():
    model, batch = network(vector(6), hidden=(5,), code=4, pretraining=1.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    _, second = model.objectives()
    learn(model, lambda _: batch, 20, 1e-2, seeded, players=lambda o: o.name == "layer-2")
    names = {id(p): name for name, p in model.named_parameters()}
    own = {names[id(p)] for p in second.parameters}
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == own


@pytest.mark.parametrize(
    ("pretraining", "expected"),
    [
        (0.0, ["denoising"] * 10),
        (0.6, ["layer-1"] * 3 + ["layer-2"] * 3 + ["denoising"] * 4),
        (1.0, ["layer-1"] * 5 + ["layer-2"] * 5),
        (None, ["layer-1"] * 2 + ["layer-2"] * 3 + ["denoising"] * 5),
    ],
)
def test_layers_are_trained_one_after_the_other(pretraining: float | None, expected: list[str]):
    model, _ = network(vector(6), hidden=(5,), code=4, pretraining=pretraining)
    found = [o.name for step in range(10) for o in playing_at(model.objectives(), step, 10)]
    assert found == expected


def test_layer_wise_training_keeps_the_newest_parameters():
    data = load_data("digits", limit=100)
    for pretraining, expected in ((0.5, None), (0.0, "reconstruction")):
        model = create("denoising-autoencoder", data, preset="tiny", pretraining=pretraining)
        chosen = choose_validator("auto", model, data)
        assert (None if chosen is None else chosen.name) == expected


def test_noise_is_drawn_in_every_step_and_never_for_codes():
    model, batch = network(vector(6), hidden=(5,), code=4, corruption=0.5)
    generator = seeded()
    first, second = (model.loss(batch, generator=generator)["loss"] for _ in range(2))
    assert not torch.equal(first, second)
    codes = model.train().encode(batch.x)
    assert torch.equal(codes, model.eval().encode(batch.x))
    plain, _ = network(vector(6), hidden=(5,), code=4, corruption=0.0)
    assert torch.equal(codes, plain.encode(batch.x))


# --- stories ----------------------------------------------------------------------------------------------------------


def test_it_restores_what_it_has_not_seen(tmp_path):
    """After training layer by layer and then together, masked pixels of test digits are restored."""
    data = load_data("digits", limit=800)
    model = create("denoising-autoencoder", data, seed=0, code=100, hidden=(100,), corruption=0.3)
    fit(model, data, steps=400, lr=5e-3, out=tmp_path / "run", progress="off")
    again = load(tmp_path / "run")
    x = data.test.x
    hidden = torch.rand(x.shape, generator=seeded()) < 0.3
    masked = x.masked_fill(hidden, 0)
    restored = again.decode(again.encode(masked))
    error, usual = ((v.double() - x.double())[hidden].square().mean() for v in (restored, masked))
    assert float(error) < 0.5 * float(usual)
    (told,) = again.findings(batch=data.test.batch(torch.arange(50)))
    assert "of 100 units of the code vary between examples; the mean activity is" in told


def test_layers_trained_alone_already_restore_examples():
    data = load_data("digits", limit=800)
    model = create("denoising-autoencoder", data, seed=0, code=60, hidden=(100,), pretraining=1.0)
    x = data.test.x.double()
    fit(model, data, steps=500, lr=5e-3, progress="off")
    restored = model.decode(model.encode(data.test.x)).double()
    usual = (x - data.train.x.double().mean(0)).square().mean()
    assert float((restored - x).square().mean()) < 0.6 * float(usual)


def test_the_paper_preset_has_three_layers_of_1000_units():
    model = create("denoising-autoencoder", Event((1, 28, 28), BINARY), preset="paper")
    widths = (784, 1000, 1000, 1000)
    pairs = list(itertools.pairwise(widths))
    assert model.parameter_count == sum(2 * a * b + a + b for a, b in pairs)
    assert [o.name for o in model.objectives()] == ["layer-1", "layer-2", "layer-3"]


@pytest.mark.parametrize(
    ("event", "options", "words"),
    [
        (Event((1, 8, 8), BINARY), {"net": "conv", "pretraining": 0.5}, "pretraining=0"),
        (vector(4), {"noise": "salt", "activation": "relu"}, "lowest or highest value"),
        (vector(4, REAL), {"noise": "salt", "pretraining": 0.0}, "lowest or highest level"),
        (vector(4, Support("nominal", 3)), {"noise": "salt"}, "lowest or highest level"),
        (vector(4), {"corruption": 1.1}, "at most 1"),
        (vector(4, ordinal(4)), {"tied": True}, "as many outputs"),
    ],
)
def test_refusals(event: Event, options: dict[str, object], words: str):
    with pytest.raises(InputError, match=words):
        DenoisingAutoencoder(event, **options)


def test_gaussian_noise_may_be_larger_than_one():
    model, batch = network(vector(3, REAL), noise="gaussian", corruption=2.0, code=4, hidden=())
    assert bool(model.loss(batch, generator=seeded())["loss"].isfinite().all())
