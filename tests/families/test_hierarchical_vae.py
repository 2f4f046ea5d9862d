"""The hierarchical VAE against matrix algebra, the VAE, and loops over its layers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from unsup import Batch, Event, InputError, Support, create
from unsup.core.batch import Time
from unsup.core.event import BINARY, REAL, labels
from unsup.families.latent.hierarchical_vae import HierarchicalVAE
from unsup.families.latent.vae import VAE
from unsup.nn.posterior import DiagonalGaussian, Transformed
from unsup.nn.top_down import ConvHierarchy, DenseHierarchy, Draw, Layer, MapSteps, TopDownBlock

POSTERIORS = ("bottom-up", "ladder", "direct", "residual", "iaf")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(model: HierarchicalVAE, scale: float = 0.5, seed: int = 0) -> HierarchicalVAE:
    """The model in float64 with every parameter drawn afresh, so that nothing is zero by initialisation."""
    model.double()
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


FLOW = {"iaf": {"flow_hidden": (4,)}}


def small(posterior: str, **more: object) -> HierarchicalVAE:
    options = {"latents": (3, 2), "hidden": (7, 5), "depth": 1, "activation": "tanh", **FLOW.get(posterior, {})}
    return randomised(HierarchicalVAE(Event((4,), BINARY), posterior=posterior, **{**options, **more}))


def small_images(posterior: str = "direct", **more: object) -> HierarchicalVAE:
    options = {"latents": (2,), "hidden": (4,), "blocks": (2, 1), "encoder_blocks": (1, 1), **FLOW.get(posterior, {})}
    event = Event((1, 4, 4), BINARY)
    return randomised(HierarchicalVAE(event, net="conv", posterior=posterior, **{**options, **more}), scale=0.3)


def layers_of(model: HierarchicalVAE, x: Tensor, seed: int = 0) -> list[Layer]:
    noise, _ = model._draws(x, 1, seeded(seed))
    return model._inferred(Batch(x), None, 1, noise).layers


X = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]])


# --- a linear-Gaussian chain --------------------------------------------------------------------------------------


class LinearChain:
    """z_2 ~ N(0, I), z_1 = A z_2 + a + noise, x = W z_1 + b + noise, by networks whose tanh is nearly linear."""

    def __init__(self, posterior: str = "bottom-up") -> None:
        rng = np.random.default_rng(0)
        event, self.small = Event((4,), REAL), 1e-4
        self.model = HierarchicalVAE(
            event, latents=(3, 2), hidden=(4, 3), depth=1, activation="tanh", posterior=posterior
        ).double()
        self.x = torch.from_numpy(rng.normal(size=(3, 4)))
        self.model.prepare(Batch(torch.from_numpy(rng.normal(size=(50, 4)))), generator=seeded())
        w, a = rng.normal(size=(4, 3)) * 0.7, rng.normal(size=(3, 2)) * 0.8
        b, c = rng.normal(size=4), rng.normal(size=3)
        psi, phi = np.exp(rng.normal(size=4) * 0.3), np.exp(rng.normal(size=3) * 0.3)
        front = self.model.nets.observation.front
        mean, std = front.mean.numpy(), front.std.numpy()
        hierarchy = self.model.hierarchy
        assert isinstance(hierarchy, DenseHierarchy)
        with torch.no_grad():
            for module in self.model.modules():
                if isinstance(module, nn.Linear):
                    module.weight.zero_()
                    module.bias.zero_()
            self._through(hierarchy.down[1], 2)  # the two latents pass scaled by `small`
            hierarchy.prior[0].weight[:3, :2] = torch.from_numpy(a) / self.small
            hierarchy.prior[0].bias.copy_(torch.from_numpy(np.concatenate([c, np.log(phi)])))
            self._through(hierarchy.down[0], 3)
            self.model.nets.decoder[-1].weight[:, :3] = torch.from_numpy(w) / self.small
            self.model.nets.decoder[-1].bias.copy_(torch.from_numpy(b))
            self.model.nets.observation.deviations.tenth.copy_(torch.from_numpy(np.log(psi) / 20))
            hierarchy.own[0].bias.copy_(torch.tensor([0.2, -0.1, 0.3, 1.3, 1.1, 1.2]))
            hierarchy.own[1].bias.copy_(torch.tensor([0.1, 0.4, 1.2, 0.9]))
        inner = a @ a.T + np.diag(phi)
        cov = std[:, None] * (w @ inner @ w.T + np.diag(psi)) * std
        self.exact = stats.multivariate_normal(mean + std * (w @ c + b), cov).logpdf(self.x.numpy())

    def _through(self, net: nn.Module, size: int) -> None:
        linear = next(m for m in net.modules() if isinstance(m, nn.Linear))
        linear.weight[:size, :size] = self.small * torch.eye(size)


@pytest.mark.parametrize("posterior", ["bottom-up", "direct", "residual", "ladder"])
@torch.no_grad()
def test_bounds_rise_to_the_exact_log_likelihood_of_a_linear_chain(posterior: str) -> None:
    chain = LinearChain(posterior)
    repeats = {1: 4000, 2: 4000, 3: 4000, 2000: 60}
    for i in range(2):
        x, found = chain.x[i : i + 1], {}
        for k, n in repeats.items():
            bounds = chain.model.log_prob(x.expand(n, -1), samples=k, generator=seeded(k))
            found[k] = float(bounds.mean()), float(bounds.std()) / math.sqrt(n)
        for low, high in itertools.pairwise(repeats):
            assert found[high][0] - found[low][0] > 3 * math.hypot(found[low][1], found[high][1])
        assert found[3][0] < chain.exact[i] - 3 * found[3][1]
        assert abs(found[2000][0] - chain.exact[i]) < 4 * found[2000][1] + 0.01


@torch.no_grad()
def test_importance_weights_average_to_the_exact_likelihood_of_a_linear_chain() -> None:
    chain = LinearChain()
    weights = torch.stack([chain.model.log_prob(chain.x, samples=3000, generator=seeded(i)) for i in range(60)]).exp()
    error = weights.std(0) / math.sqrt(len(weights))
    assert ((weights.mean(0) - torch.from_numpy(chain.exact).exp()).abs() < 4 * error).all()
    assert (error < 0.05 * weights.mean(0)).all()


# --- one layer is the VAE -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("posterior", ["bottom-up", "direct", "residual", "ladder"])
def test_one_layer_is_the_vae(posterior: str) -> None:
    one = HierarchicalVAE(
        Event((4,), BINARY), latents=(3,), hidden=(6,), depth=2, activation="tanh", posterior=posterior
    )
    randomised(one)
    vae = VAE(Event((4,), BINARY), latent_dim=3, hidden=(6, 6), activation="tanh").double()
    hierarchy = one.hierarchy
    assert isinstance(hierarchy, DenseHierarchy)

    def linear(*nets: nn.Module) -> list[nn.Linear]:
        return [m for net in nets for m in net.modules() if isinstance(m, nn.Linear)]

    ours = linear(hierarchy.up, hierarchy.own, hierarchy.down, one.nets.decoder)
    theirs = linear(vae.nets.encoder, vae.nets.decoder)
    with torch.no_grad():
        for own, other in zip(ours, theirs, strict=True):
            other.weight.copy_(own.weight)
            other.bias.copy_(own.bias)
    for k in (1, 7):
        found, expected = (m.log_prob(X, samples=k, generator=seeded()) for m in (one, vae))
        torch.testing.assert_close(found, expected)
    terms, expected_terms = (m.loss(Batch(X), generator=seeded()) for m in (one, vae))
    for name in ("loss", "reconstruction", "kl"):
        torch.testing.assert_close(terms[name], expected_terms[name])
    torch.testing.assert_close(one.encode(X), vae.encode(X))
    z = torch.randn(5, 3, generator=seeded(), dtype=torch.float64)
    assert torch.equal(one.decode(z), vae.decode(z))


# --- Gaussians ----------------------------------------------------------------------------------------------------


def test_merged_gaussians_are_the_normalised_product() -> None:
    values = torch.randn(4, 6, generator=seeded(), dtype=torch.float64)
    one, other = DiagonalGaussian(values[0], values[1]), DiagonalGaussian(values[2], values[3])
    merged = one.merged(other)
    precision = [(-g.log_variance).exp() for g in (one, other)]
    torch.testing.assert_close(merged.log_variance.exp(), 1 / (precision[0] + precision[1]))
    torch.testing.assert_close(
        merged.mean, (one.mean * precision[0] + other.mean * precision[1]) / (precision[0] + precision[1])
    )
    # log N₁ + log N₂ − log N₁₂ does not depend on z.
    z = torch.randn(5, 1, generator=seeded(1), dtype=torch.float64).expand(5, 6)
    rest = one.log_prob(z) + other.log_prob(z) - merged.log_prob(z)
    torch.testing.assert_close(rest, rest[:1].expand(5))


@pytest.mark.parametrize("images", [False, True])
@torch.no_grad()
def test_a_residual_posterior_that_moves_nothing_has_no_kl(images: bool) -> None:
    model = small_images("residual") if images else small("residual")
    with torch.no_grad():
        for own in [b.own.last for b in model.hierarchy.down] if images else model.hierarchy.own:
            own.weight.zero_()
            own.bias.zero_()
    x = torch.randint(0, 2, (5, *model.event.shape), generator=seeded())
    terms = model.loss(Batch(x), generator=seeded())
    assert torch.equal(terms["kl"], torch.zeros(5, dtype=torch.float64))
    assert any(float(layer.p.mean.abs().max()) > 0.1 for layer in layers_of(model, x))


def test_a_block_with_the_prior_output_at_zero_has_a_standard_prior_and_adds_nothing_before_z() -> None:
    block = TopDownBlock(8, 2, (3, 3), cell="bottleneck", posterior="direct", scale=0.5, flow_steps=1, flow_hidden=(4,))
    h = torch.randn(4, 8, 3, 3, generator=seeded())
    p, rest = block.prior_of(h)
    assert torch.equal(p.mean, torch.zeros(4, 18))
    assert torch.equal(p.log_variance, torch.zeros(4, 18))
    assert torch.equal(rest, h)
    model = create("hierarchical-vae", Event((1, 4, 4), BINARY), net="conv", latents=(2,), hidden=(8,), blocks=(2, 1))
    for layer in layers_of(model, torch.zeros(2, 1, 4, 4)):
        assert not layer.p.mean.any()
        assert not layer.p.log_variance.any()
        assert bool(layer.q.mean.any())


@pytest.mark.parametrize("images", [False, True])
def test_steps_of_iaf_with_open_gates_leave_the_gaussian(images: bool) -> None:
    """z ← σ z + (1 − σ) m with σ = 1 is the identity; the residual posterior is the same Gaussian."""
    model = small_images("iaf") if images else small("iaf")
    x = torch.randint(0, 2, (4, *model.event.shape), generator=seeded())
    flows = [b.flow for b in model.hierarchy.down] if images else model.hierarchy.flows
    moved = layers_of(model, x)
    assert any(
        not torch.allclose(layer.z, layer.q.base.at(noise))
        for layer, noise in zip(moved, model._draws(x, 1, seeded())[0], strict=True)
    )
    with torch.no_grad():
        for flow in flows:
            for last in flow.last if images else [step.net.top for step in flow.steps]:
                last.weight.zero_()
                last.bias.zero_()
                # σ = σ(h + 2): h is the first output of an entry, or the first half of the maps.
                (last.bias[: len(last.bias) // 2] if images else last.bias.view(-1, 2)[:, 0]).fill_(60.0)
    for layer, noise in zip(layers_of(model, x), model._draws(x, 1, seeded())[0], strict=True):
        assert isinstance(layer.q, Transformed)
        torch.testing.assert_close(layer.z, layer.q.base.at(noise), rtol=0, atol=1e-9)
        torch.testing.assert_close(layer.log_q, layer.q.base.log_density(noise), rtol=0, atol=1e-8)


def test_steps_of_maps_have_the_jacobian_of_autograd_and_their_order() -> None:
    flow = MapSteps(2, (2, 3), width=5, steps=2, hidden=(6, 4)).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=seeded(1), dtype=torch.float64))
    d = torch.randn(1, 5, 2, 3, generator=seeded(), dtype=torch.float64)
    base = DiagonalGaussian(torch.zeros(1, 12).double(), torch.zeros(1, 12).double())
    transformed = flow.from_base(base, d)
    z = torch.randn(12, generator=seeded(2), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: transformed.flow(v[None, None])[0][0, 0], z)
    log_det = transformed.flow(z[None, None])[1]
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[0, 0])
    flow.last[1].weight.data.zero_()  # the second step, in reverse order, becomes a scaling
    flow.last[1].bias.data.zero_()
    jacobian = torch.autograd.functional.jacobian(lambda v: transformed.flow(v[None, None])[0][0, 0], z)
    order = torch.arange(12).view(2, 6).T.flatten()  # pixel by pixel, the maps of a pixel side by side
    ordered = jacobian[order][:, order]
    assert torch.equal(ordered.triu(1), torch.zeros(12, 12).double())
    assert int((ordered.tril(-1) != 0).sum()) > 20


def test_each_step_of_maps_sees_the_features_of_the_pixels_that_it_moves() -> None:
    flow = MapSteps(1, (3, 4), width=2, steps=2, hidden=(5,)).double()
    base = DiagonalGaussian(torch.zeros(1, 12).double(), torch.zeros(1, 12).double())
    for step in range(2):
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=seeded(1), dtype=torch.float64))
            flow.last[1 - step].weight.zero_()  # the other step sees nothing
        d = torch.randn(1, 2, 3, 4, generator=seeded(), dtype=torch.float64, requires_grad=True)
        z = flow.from_base(base, d).flow(torch.randn(1, 1, 12, generator=seeded(2), dtype=torch.float64))[0][0, 0]
        for pixel in range(12):
            (slope,) = torch.autograd.grad(z[pixel], d, retain_graph=True)
            assert slope.abs().sum((0, 1)).flatten().nonzero().tolist() == [[pixel]]


# --- the bound ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("posterior", POSTERIORS)
@torch.no_grad()
def test_the_kl_is_the_mean_of_the_log_ratio(posterior: str) -> None:
    model = small(posterior)
    x = X[:1].expand(20_000, -1)
    layers = layers_of(model, x)
    ratio = torch.stack([layer.log_q - layer.p.log_prob(layer.z) for layer in layers]).sum(0)
    terms = model.loss(Batch(x), generator=seeded(1))
    error = math.hypot(float(ratio.std()), float(terms["kl"].std())) / math.sqrt(len(x))
    assert abs(float(terms["kl"].mean() - ratio.mean())) < 4 * error
    torch.testing.assert_close(terms["kl"], terms["kl_1"] + terms["kl_2"])
    assert float(terms["kl"].mean()) > 20 * error


@torch.no_grad()
def test_kl_of_resolutions_is_that_of_their_blocks() -> None:
    model = small_images()
    x = torch.randint(0, 2, (5, 1, 4, 4), generator=seeded())
    terms, layers = model.loss(Batch(x), generator=seeded()), layers_of(model, x)
    kl = [layer.q.kl(layer.p) for layer in layers]  # two at 4×4, one at 2×2
    torch.testing.assert_close(terms["kl_4x4"], kl[0] + kl[1])
    torch.testing.assert_close(terms["kl_2x2"], kl[2])
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + sum(kl))


@pytest.mark.parametrize("posterior", ["direct", "residual"])
@torch.no_grad()
def test_free_bits_of_maps_agree_with_a_loop(posterior: str) -> None:
    free = 0.9
    model = small_images(posterior, free_bits=free)
    x = torch.randint(0, 2, (6, 1, 4, 4), generator=seeded())
    terms, charged = model.loss(Batch(x), generator=seeded()), 0.0
    below = 0
    for layer in layers_of(model, x):
        each = layer.q.kl_each(layer.p).view(6, 2, -1)
        for c in range(2):
            mean = float(each[:, c].sum(1).mean())
            below += mean < free
            charged += max(mean, free)
    assert 0 < below < 6
    assert float((terms["loss"] - terms["reconstruction"]).mean()) == pytest.approx(charged)
    plain = float(terms["kl"].mean())
    assert charged > plain
    other = small_images(posterior)
    torch.testing.assert_close(
        model.log_prob(x, generator=seeded()), other.log_prob(x, generator=seeded())
    )  # not in evaluation


@torch.no_grad()
def test_free_bits_of_maps_of_iaf_are_those_of_each_map_by_draws() -> None:
    """The Jacobian of a step is triangular, so that its diagonal has the share of each latent in log q."""
    free, n = 4.0, 5
    model = small_images("iaf", free_bits=free, flow_steps=1)
    x = torch.randint(0, 2, (n, 1, 4, 4), generator=seeded())
    terms, charged, below = model.loss(Batch(x), generator=seeded()), 0.0, 0
    noise = model._draws(x, 1, seeded())[0]
    for layer, own in zip(layers_of(model, x), noise, strict=True):
        q, p = layer.q, layer.p
        assert isinstance(q, Transformed)
        assert isinstance(p, DiagonalGaussian)
        jacobian = torch.autograd.functional.jacobian(
            lambda e, q=q: q.flow(q.base.at(e)[None])[0].sum((0, 1)), own
        )  # (size, N, size)
        scale = jacobian.diagonal(dim1=0, dim2=2)  # (N, size)
        log_q = stats.norm.logpdf(own.numpy()) - np.log(scale.numpy())
        log_p = stats.norm.logpdf(layer.z.numpy(), p.mean.numpy(), p.std.numpy())
        each = (log_q - log_p).reshape(n, 2, -1).sum(2).mean(0)
        below += int((each < free).sum())
        charged += float(each.clip(free).sum())
    assert 0 < below < 6
    assert float((terms["loss"] - terms["reconstruction"]).mean()) == pytest.approx(charged)
    torch.testing.assert_close(terms["kl"], small_images("iaf", flow_steps=1).loss(Batch(x), generator=seeded())["kl"])


@torch.no_grad()
def test_warm_up_weights_the_kl_in_training_only() -> None:
    model, plain = small("ladder", warm_up=10), small("ladder")
    for step, weight in ((0, 0.0), (5, 0.5), (20, 1.0)):
        terms = model.loss(Batch(X, time=Time(step, 30)), generator=seeded())
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + weight * terms["kl"])
    found, expected = (m.log_prob(X, samples=3, generator=seeded()) for m in (model, plain))
    assert torch.equal(found, expected)


def gradients(model: HierarchicalVAE, term: Tensor) -> dict[str, float]:
    model.zero_grad()
    term.mean().backward()
    return {n: 0.0 if p.grad is None else float(p.grad.abs().max()) for n, p in model.named_parameters()}


def test_without_the_kl_priors_that_place_no_latents_get_no_gradient() -> None:
    """The reconstruction moves q and p(x|z), but p(z_1|z_2) only where q is made from it."""
    for posterior, moves in (("direct", False), ("bottom-up", False), ("residual", True), ("ladder", True)):
        model = small(posterior, warm_up=10)
        found = gradients(model, model.loss(Batch(X, time=Time(0, 30)), generator=seeded())["loss"])
        prior = found["hierarchy.prior.0.weight"]
        assert (prior > 0) == moves, posterior
        assert found["hierarchy.own.0.weight"] > 0
        assert found["nets.decoder.1.weight"] > 0
        full = gradients(model, model.loss(Batch(X, time=Time(20, 30)), generator=seeded())["loss"])
        assert min(full.values()) > 0


def test_the_terms_besides_the_loss_have_no_gradient() -> None:
    terms = small("residual").loss(Batch(X), generator=seeded())
    assert {name for name, term in terms.items() if term.requires_grad} == {"loss"}


def test_the_spectral_penalty_is_that_of_training_and_moves_weights_only() -> None:
    model, plain = small_images(spectral=0.3, cell="separable"), small_images(cell="separable")
    model.load_state_dict(plain.state_dict(), strict=False)
    for _ in range(200):
        model.after_step(Time(0, 10))
    x = torch.randint(0, 2, (5, 1, 4, 4), generator=seeded())
    layers = [m for m in model.hierarchy.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    exact = sum(float(torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2)) for m in layers)
    model.train()
    plain.train()
    terms, without = (m.loss(Batch(x), generator=seeded()) for m in (model, plain))
    assert float(terms["spectral"]) == pytest.approx(exact, rel=1e-3)
    torch.testing.assert_close(terms["loss"], without["loss"] + 0.3 * terms["spectral"])
    found, expected = gradients(model, terms["loss"]), gradients(plain, without["loss"])
    moved = {name for name, value in expected.items() if abs(found[name] - value) > 1e-9}
    assert moved
    assert all(name.endswith("weight") and "nets" not in name for name in moved)
    model.eval()
    assert "spectral" not in model.loss(Batch(x), generator=seeded())


def test_batch_norm_uses_running_averages_in_evaluation() -> None:
    model = small("ladder", norm="batch")
    noise = torch.zeros(3, model.code_size, dtype=torch.float64)

    def scores(x: Tensor) -> Tensor:
        return model._inferred(Batch(x), None, 1, model._by_layer(noise[: len(x)])).log_ratio

    together, alone = scores(X), torch.cat([scores(one) for one in X.split(1)])
    torch.testing.assert_close(together, alone)
    model.train()
    model.loss(Batch(X), generator=seeded())
    assert not torch.allclose(scores(X), together)
    model.eval()
    assert not torch.allclose(scores(X), together)  # the averages have moved


# --- several samples ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_copies_in_the_batch_equal_a_loop_over_samples(posterior: str) -> None:
    model = small(posterior, samples=5)
    generator, weights = seeded(), []
    for _ in range(5):
        noise, target = model._draws(X, 1, generator)
        found = model._inferred(Batch(X), None, 1, noise)
        weights.append(model._log_likelihood(target, found, None, 1)[0] - found.log_ratio)
    expected = torch.stack(weights).logsumexp(0) - math.log(5)
    torch.testing.assert_close(model.log_prob(X, samples=5, generator=seeded()), expected)
    torch.testing.assert_close(-model.loss(Batch(X), generator=seeded())["loss"], expected)


@pytest.mark.parametrize("cell", ["bottleneck", "separable", "plain"])
@torch.no_grad()
def test_copies_of_images_equal_a_loop_over_samples(cell: str) -> None:
    """Also for a mixture over pixels, and with a condition."""
    event = Event((3, 4, 4), Support("ordinal", 5))
    options = {"latents": (2,), "hidden": (4,), "blocks": (0, 2, 1), "encoder_blocks": (1, 1, 1)}
    model = randomised(
        HierarchicalVAE(event, net="conv", cell=cell, decoder="logistic-mixture", given=labels(2), **options), scale=0.3
    )
    x, given = torch.randint(0, 5, (4, 3, 4, 4), generator=seeded()), torch.tensor([0, 1, 1, 0])
    generator, weights = seeded(1), []
    for _ in range(3):
        weights.append(model.log_prob(x, given=given, generator=generator))
    expected = torch.stack(weights).logsumexp(0) - math.log(3)
    torch.testing.assert_close(model.log_prob(x, given=given, samples=3, generator=seeded(1)), expected)
    assert not torch.allclose(model.log_prob(x, given=1 - given, samples=3, generator=seeded(1)), expected)
    assert model.sample(3, given=torch.tensor(1), generator=seeded()).shape == (3, 3, 4, 4)


@torch.no_grad()
def test_chunks_of_samples_do_not_change_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("residual")
    whole = model.log_prob(X, samples=7, generator=seeded())
    monkeypatch.setattr("unsup.families.latent.hierarchical_vae._CHUNK_ELEMENTS", 2 * len(X) * model.widest)
    torch.testing.assert_close(model.log_prob(X, samples=7, generator=seeded()), whole)


def test_doubly_reparametrised_gradients_have_the_mean_of_plain_ones_and_less_noise() -> None:
    """Of q(z_1|x) too, whose z_1 also reaches the bound through z_2 and q(z_2|z_1)."""
    found = {}
    x = X[:1].expand(4000, -1)
    names = ("hierarchy.own.0.bias", "hierarchy.own.1.bias", "hierarchy.up.1.1.bias", "hierarchy.prior.0.bias")
    for gradient in ("pathwise", "dreg"):
        model = small("bottom-up", samples=3, gradient=gradient)
        draws = []
        for i in range(40):
            model.zero_grad()
            model.loss(Batch(x[:200]), generator=seeded(100 + i))["loss"].mean().backward()
            parameters = dict(model.named_parameters())
            draws.append(torch.cat([parameters[name].grad.flatten() for name in names]))
        found[gradient] = torch.stack(draws)
    mean = {name: own.mean(0) for name, own in found.items()}
    error = {name: own.std(0) / math.sqrt(len(own)) for name, own in found.items()}
    apart = (mean["dreg"] - mean["pathwise"]).abs() / torch.hypot(error["dreg"], error["pathwise"])
    assert float(apart.max()) < 4.5
    assert float(mean["pathwise"].abs().max()) > 20 * float(error["pathwise"].max())
    of_q = slice(0, 15)
    assert float(error["dreg"][of_q].norm()) < float(error["pathwise"][of_q].norm())


def test_the_value_of_the_doubly_reparametrised_loss_is_the_bound() -> None:
    plain, other = (small("bottom-up", samples=4, gradient=g) for g in ("pathwise", "dreg"))
    found, expected = (m.loss(Batch(X), generator=seeded())["loss"] for m in (other, plain))
    torch.testing.assert_close(found, expected)


# --- samples and codes --------------------------------------------------------------------------------------------


@torch.no_grad()
def test_temperature_multiplies_the_deviations_of_the_priors_only() -> None:
    model = small("residual")
    codes = torch.randn(6, model.code_size, generator=seeded(), dtype=torch.float64)
    for temperature in (1.0, 0.3):
        generator = seeded()
        each = model._by_layer(torch.randn(6, model.code_size, generator=generator, dtype=torch.float64))
        h = model.hierarchy.generate(6, None, _narrowed(each, temperature))
        assert torch.equal(
            model.sample(6, generator=seeded(), temperature=temperature), model.nets.draw(h, generator=generator)
        )
    # The noise of p(x|z) stays: with priors of no width the samples still differ.
    samples = model.sample(400, generator=seeded(1), temperature=1e-9).double()
    h = model._generated(codes[:1] * 0, None)
    probability = model.nets.decode(h)[0, :, 0].sigmoid()
    assert ((samples.mean(0) - probability).abs() < 4 * (probability * (1 - probability) / 400).sqrt() + 1e-9).all()


def _narrowed(noise: list[Tensor], temperature: float) -> Draw:
    return lambda layer, p: p.mean + p.std * (temperature * noise[layer])


@pytest.mark.parametrize("posterior", POSTERIORS)
@torch.no_grad()
def test_codes_are_the_noise_of_the_priors(posterior: str) -> None:
    model = small(posterior)
    u, log_q = model.draw_latents(Batch(X), generator=seeded())
    noise, target = model._draws(X, 1, seeded())
    found = model._inferred(Batch(X), None, 1, noise)
    weight = model._log_likelihood(target, found, None, 1)[0] - found.log_ratio
    torch.testing.assert_close(model.log_joint(Batch(X), u) - log_q, weight)
    torch.testing.assert_close(model._generated(u, None), found.features)


# --- sizes, refusals, reports -------------------------------------------------------------------------------------


def test_the_nets_of_the_papers() -> None:
    mnist = Event((784,), BINARY)
    two = create("hierarchical-vae", mnist, preset="paper-two-layer")
    shapes = [m.weight.shape for m in two.modules() if isinstance(m, nn.Linear)]
    up = [(200, 784), (200, 200), (100, 100), (100, 100)]
    down = [(200, 100), (200, 200), (100, 50), (100, 100)]
    outputs = [(200, 100), (200, 200), (100, 100), (784, 200)]
    assert sorted(map(tuple, shapes)) == sorted(up + down + outputs)
    ladder = create("hierarchical-vae", mnist, preset="paper-ladder")
    assert ladder.hierarchy.sizes == (64, 32, 16, 8, 4)
    widths = [m.out_features for m in ladder.hierarchy.up.modules() if isinstance(m, nn.Linear)]
    assert widths == [512, 512, 256, 256, 128, 128, 64, 64, 32, 32]
    nvae = create("hierarchical-vae", Event((1, 32, 32), BINARY), preset="nvae-mnist")
    assert nvae.hierarchy.groups == ("8x8",) * 10 + ("4x4",) * 5
    assert nvae.hierarchy.sizes == (20 * 64,) * 10 + (20 * 16,) * 5
    assert [len(cells) for cells in nvae.hierarchy.up] == [3, 3, 21, 10]


def test_a_resolution_without_information_is_reported() -> None:
    model = small_images().eval()
    batch = Batch(torch.randint(2, (8, *model.event.shape), generator=torch.Generator().manual_seed(0)))
    used = model.findings(batch=batch)
    assert len(used) == 1
    with torch.no_grad():
        for block, group in zip(model.hierarchy.down, model.hierarchy.groups, strict=True):
            if group == "2x2":
                for parameter in block.parameters():
                    parameter.zero_()
    told, collapsed = model.findings(batch=batch)
    assert "2x2: 0.00" in told
    assert collapsed.startswith("resolution 2x2 collapsed")


@pytest.mark.parametrize(
    ("event", "options", "words"),
    [
        (Event((4,), BINARY), {"latents": (3, 2), "hidden": (4,)}, "one width for each layer"),
        (Event((4,), BINARY), {"samples": 2, "free_bits": 0.1}, "samples=1"),
        (Event((4,), BINARY), {"samples": 2, "gradient": "dreg"}, "posterior='residual'"),
        (Event((4,), BINARY), {"flow_steps": 2}, "flow_steps=2 is for posterior='iaf', got 'residual'"),
        (Event((4,), BINARY), {"posterior": "ladder", "flow_hidden": (9,)}, "is for posterior='iaf'"),
        (Event((4,), BINARY), {"net": "conv"}, "complete images only"),
        (Event((1, 4, 4), BINARY), {"net": "conv", "posterior": "bottom-up"}, "net='dense'"),
        (Event((1, 4, 4), BINARY), {"net": "conv", "blocks": (1, 1, 1, 1)}, "divided by 8"),
        (Event((1, 4, 4), BINARY), {"net": "conv", "blocks": (1, 1), "pooling": (1,)}, "at least 2"),
        (Event((1, 4, 4), BINARY), {"net": "conv", "blocks": (1, 0, 1)}, "without layers"),
        (Event((1, 4, 4), BINARY), {"blocks": (1, 1)}, "are for net='conv'"),
        (Event((1, 4, 4), BINARY), {"net": "conv", "latents": (2, 2)}, "one number each"),
    ],
)
def test_options_that_do_not_fit_are_refused(event: Event, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        HierarchicalVAE(event, **options)


def test_images_of_odd_sides_and_of_one_pixel_at_the_top() -> None:
    event = Event((1, 7, 5), Support("ordinal", 4))
    model = HierarchicalVAE(event, net="conv", latents=(2,), hidden=(8,), blocks=(1, 1, 1), pooling=(2, 2))
    assert isinstance(model.hierarchy, ConvHierarchy)
    assert model.hierarchy.every == [(7, 5), (3, 2), (1, 1)]
    assert model.sample(2, generator=seeded()).shape == (2, 1, 7, 5)
