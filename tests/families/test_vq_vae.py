"""VQ-VAE: its loss term by term, its bound by enumeration, its prior, its codes, and runs that go on."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli

import unsup
from unsup import Batch, Event, InputError, create
from unsup.coding.chunks import scheme_for
from unsup.core.errors import CapabilityError
from unsup.core.event import BINARY, REAL, Support
from unsup.core.part import Part
from unsup.data.source import Data, Split
from unsup.evaluate.likelihood import evaluate_likelihood
from unsup.families.latent.vq_vae import VQVAE

IMAGE = Event((1, 8, 8), BINARY)
BITS = Event((4,), BINARY)
PIXELS = Part("gated-pixelcnn", {"channels": 4, "layers": 1, "head_channels": 4})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 32, event: Event = IMAGE) -> Tensor:
    levels = event.uniform.levels
    x = torch.rand(n, *event.shape, generator=seeded(1)) * 0.4 + 0.6 * torch.rand(n, 1, 1, 1, generator=seeded(2))
    return (levels * x).long().clamp(max=levels - 1).to(event.dtype)


def data(event: Event = IMAGE) -> Data:
    x = images(event=event)
    return Data(name=None, event=event, train=Split(x), validation=Split(x[:16]), test=Split(x[:16]))


def generic(event: Event = IMAGE, x: Tensor | None = None, **options: object) -> VQVAE:
    """At tiny size in float64, prepared, with noise on every parameter."""
    found = create("vq-vae", event, preset="tiny", **options).double()
    found.prepare(Batch(images(event=event) if x is None else x), generator=seeded(3))
    with torch.no_grad():
        for p in found.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=seeded(p.numel()), dtype=p.dtype))
    return found


SETTINGS = {"steps": 8, "batch_size": 16, "lr": 0.02, "seed": 3}


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codebook", ["moving", "gradient"])
def test_the_loss_is_the_sum_of_its_terms_computed_by_hand(codebook: str) -> None:
    found, x = generic(codebook=codebook, commitment=0.7, prior=PIXELS), images(6)
    terms = found.loss(Batch(x), generator=seeded())
    z = found.nets.encoder(x.double()).view(6, 4, 4).transpose(1, 2)  # (B, places, D)
    code = torch.cdist(z, found.quantiser.codebook).argmin(2)
    e = found.quantiser.codebook[code]
    logits = found.nets.decoder(e.transpose(1, 2).flatten(1))
    reconstruction = -Bernoulli(logits=logits).log_prob(x.double()).sum((1, 2, 3))
    distance = (z - e).square().sum((1, 2))
    prior = -found.prior.model.log_prob(code.view(6, 1, 2, 2))
    loss = reconstruction + 0.7 * distance + prior + (distance if codebook == "gradient" else 0)
    torch.testing.assert_close(terms["reconstruction"], reconstruction)
    torch.testing.assert_close(terms["commitment"], distance)
    torch.testing.assert_close(terms["prior"], prior)
    torch.testing.assert_close(terms["loss"], loss)
    assert ("codebook" in terms) == (codebook == "gradient")
    assert create("vq-vae", IMAGE).config["commitment"] == 0.25


def test_each_part_of_the_model_has_exactly_the_gradient_of_its_terms() -> None:
    """Each term of the loss alone, computed from the quantiser and the networks."""
    found, x = generic(codebook="gradient", prior=PIXELS), images(6)
    parts = {
        "encoder": list(found.nets.encoder.parameters()),
        "codebook": [found.quantiser.codebook],
        "decoder": list(found.nets.decoder.parameters()),
        "prior": list(found.prior.parameters()),
    }
    everything = list(found.parameters())
    result = found.quantiser(found._encoded(x), generator=seeded())
    target = found.nets.target(x)
    reconstruction = -found.nets.log_likelihood(target, found._as_input(result.vectors)[None]).sum()
    prior = found.prior.loss(found._as_map(result.codes), Batch(x), generator=seeded()).sum()
    moved = {
        "reconstruction": (reconstruction, {"encoder", "decoder"}),
        "codebook": (result.codebook.sum(), {"codebook"}),
        "commitment": (result.commitment.sum(), {"encoder"}),
        "prior": (prior, {"prior"}),
    }
    total = [torch.zeros_like(p) for p in everything]
    for name, (term, expected) in moved.items():
        gradients = torch.autograd.grad(term, everything, retain_graph=True, allow_unused=True)
        by_parameter = dict(zip(map(id, everything), gradients, strict=True))
        touched = {part for part, own in parts.items() if any(by_parameter[id(p)] is not None for p in own)}
        assert touched == expected, name
        scale = 0.25 if name == "commitment" else 1.0
        total = [t if g is None else t + scale * g for t, g in zip(total, gradients, strict=True)]
    loss = found.loss(Batch(x), generator=seeded())["loss"].sum()
    for ours, theirs in zip(torch.autograd.grad(loss, everything), total, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_moving_codebook_belongs_to_no_player_but_follows_the_encoder() -> None:
    found = create("vq-vae", IMAGE, preset="tiny", seed=1)
    (player,) = found.objectives()
    assert all(p is not found.quantiser.codebook for p in player.parameters)
    before = found.quantiser.codebook.detach().clone()
    unsup.fit(found, data(), weight_decay=0.1, ema=0.9, **SETTINGS)
    assert not torch.equal(found.quantiser.codebook, before)


# --- the bound --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [None, Part("made", {"hidden": (8,)})])
def test_the_bound_is_one_term_of_the_sum_over_all_codes(prior: Part | None) -> None:
    """By enumeration: log p(x) = log Σ_c p(c) p(x | c) has all mass, and the bound is the term of c(x)."""
    x = torch.tensor(list(itertools.product((0, 1), repeat=4)), dtype=torch.uint8)
    found = generic(BITS, x, codebook_size=3, codes=2, prior=prior).eval()
    codes = torch.tensor(list(itertools.product(range(3), repeat=2)))
    with torch.no_grad():
        log_prior = found.prior.log_prob(codes)
        assert float(log_prior.exp().sum()) == pytest.approx(1)
        outputs = found.nets.decoder(found.quantiser.codebook[codes].flatten(1))
        each = Bernoulli(logits=outputs).log_prob(x[:, None].double()).sum(2) + log_prior  # (x, codes)
        assert float(each.logsumexp((0, 1))) == pytest.approx(0, abs=1e-9)
        own = found.codes_of(x).long() @ torch.tensor([3, 1])
        torch.testing.assert_close(found.log_prob(x), each[torch.arange(16), own])
        joint = torch.stack([found.log_joint(Batch(x), c.expand(16, 2)) for c in codes], 1)
        torch.testing.assert_close(joint, each)
        assert bool((found.log_prob(x) < each.logsumexp(1)).all())


def test_a_uniform_prior_takes_log_k_nats_for_each_code() -> None:
    event = Event((3, 8, 8), Support("ordinal", 256))
    found = create("vq-vae", event, preset="tiny", codes=2, codebook_size=10).eval()
    assert found.latent_event == Event((2, 2, 2), Support("nominal", 10))
    terms = found.loss(Batch(images(4, event)))
    torch.testing.assert_close(terms["prior"], torch.full((4,), 8 * math.log(10)))
    bound = -found.log_prob(images(4, event))
    torch.testing.assert_close(bound, (terms["reconstruction"] + terms["prior"]).detach())


def test_dequantised_levels_average_over_draws() -> None:
    event = Event((3,), Support("ordinal", 4))
    x = torch.randint(0, 4, (5, 3), generator=seeded())
    found = generic(event, x, decoder="gaussian").eval()
    generator = seeded(5)
    each = torch.stack([found.log_prob(x, generator=generator) for _ in range(6)])
    torch.testing.assert_close(found.log_prob(x, samples=6, generator=seeded(5)), each.logsumexp(0) - math.log(6))


def test_only_noise_and_bounds_of_priors_use_samples() -> None:
    found = generic().eval()
    assert not found.uses_samples
    assert torch.equal(found.log_prob(images()), found.log_prob(images(), samples=4, generator=seeded(1)))
    assert evaluate_likelihood(found, images(), samples=4).samples == 1
    assert generic(Event((3,), Support("ordinal", 4)), torch.zeros(4, 3), decoder="gaussian").uses_samples
    assert not generic(prior=PIXELS).uses_samples
    assert generic(BITS, torch.zeros(4, 4), prior=Part("vae", {"latent_dim": 2, "hidden": (4,)})).uses_samples


# --- codes and samples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "shape"),
    [
        (Event((1, 28, 28), BINARY), (1, 7, 7)),
        (Event((3, 32, 32), Support("ordinal", 256)), (1, 8, 8)),
        (Event((1, 9, 11), Support("nominal", 3)), (1, 2, 2)),
        (Event((2, 3, 3), BINARY), (8,)),  # too small to be halved twice
        (Event((5,), REAL), (8,)),
    ],
)
def test_any_event_has_codes_and_comes_back(event: Event, shape: tuple[int, ...]) -> None:
    found = create("vq-vae", event, preset="tiny", seed=0)
    assert found.latent_event.shape == shape
    x = found.sample(3, generator=seeded())
    assert bool(event.contains(x).all())
    z = found.encode(x)
    assert z.shape == (3, found.code_size)
    assert torch.equal(z, found.codes_of(x).flatten(1).float())
    assert torch.equal(found.decode(z + 0.3), found.decode(z))
    assert bool(event.contains(found.decode(z)).all())


def test_samples_are_decoded_from_codes_of_the_prior() -> None:
    found = generic(prior=PIXELS).eval()
    generator = seeded(4)
    codes = found.prior.model.sample(5, generator=generator)
    vectors = found.quantiser.codebook[codes.flatten(1).long()].transpose(1, 2).flatten(1)
    with torch.no_grad():
        expected = found.nets.draw(vectors, generator=generator)
    assert torch.equal(found.sample(5, generator=seeded(4)), expected)


def test_codes_of_a_place_are_cut_from_its_features_and_put_back_in_order() -> None:
    found = generic(Event((1, 8, 12), BINARY), images(event=Event((1, 8, 12), BINARY)), codes=2)
    x = images(3, Event((1, 8, 12), BINARY))
    z, features = found._encoded(x), found.nets.encode(x).view(3, 2, 4, 2, 3)
    for number, (code, row, column) in enumerate(itertools.product(range(2), range(2), range(3))):
        assert torch.equal(z[:, number], features[:, code, :, row, column])
    assert torch.equal(found._as_input(z), found.nets.encode(x))


def test_a_file_is_as_long_as_the_bound() -> None:
    """The codes under the prior, then x given them."""
    for prior in (None, PIXELS):
        found, x = generic(prior=prior).float().eval(), images(20)
        scheme = scheme_for(found)
        found = scheme.model
        assert torch.equal(scheme.decode(scheme.encode(x), 20), x)
        bits = -float(found.log_prob(x.repeat(10, 1, 1, 1)).detach().sum()) / math.log(2)
        assert 8 * len(scheme.encode(x.repeat(10, 1, 1, 1))) == pytest.approx(bits, rel=0.01, abs=256)
    with pytest.raises(CapabilityError, match="densities"):
        scheme_for(create("vq-vae", Event((3,), REAL), preset="tiny"))
    with pytest.raises(CapabilityError, match="does not factorise"):
        scheme_for(create("vq-vae", BITS, preset="tiny", prior=Part("vae", {"latent_dim": 1})))


# --- training ---------------------------------------------------------------------------------------------------------


def test_a_prior_learns_in_the_run_of_the_autoencoder_and_does_not_change_it() -> None:
    """Joint training is stage-wise training: the autoencoder ends as it does without the prior."""
    alone, joint = (create("vq-vae", IMAGE, preset="tiny", seed=0, prior=p) for p in (None, PIXELS))
    joint.nets.load_state_dict(alone.nets.state_dict())
    joint.quantiser.load_state_dict(alone.quantiser.state_dict())
    first = {k: v.clone() for k, v in joint.prior.state_dict().items()}
    for found in (alone, joint):
        unsup.fit(found, data(), validator="newest", **SETTINGS)  # the bounds differ, so do the best steps
    for part in ("nets", "quantiser"):
        for name, value in getattr(alone, part).state_dict().items():
            assert torch.equal(value, getattr(joint, part).state_dict()[name]), name
    assert all(not torch.equal(v, first[k]) for k, v in joint.prior.named_parameters())


def test_a_prior_of_a_trained_autoencoder_learns_alone_how_codes_depend_on_each_other(tmp_path: Path) -> None:
    """Examples of two kinds: their codes are far from uniform. The autoencoder is a run, or is saved with the prior."""
    x = (torch.arange(64) % 2).view(64, 1, 1, 1).expand(64, 1, 8, 8).to(torch.uint8).contiguous()
    two = Data(name=None, event=IMAGE, train=Split(x), validation=Split(x[:16]), test=Split(x[:16]))
    alone = create("vq-vae", IMAGE, preset="tiny", seed=0)
    settings = {"batch_size": 32, "lr": 0.02, "progress": "off", "precision": "float32"}  # so short a run is chaotic
    unsup.fit(alone, two, steps=10, out=tmp_path / "vq", **settings)
    found = create("vq-vae", IMAGE, autoencoder=str(tmp_path / "vq"), prior=PIXELS)
    first = {n: v.clone() for n, v in found.state_dict().items()}
    unsup.fit(found, two, steps=220, out=tmp_path / "prior", **settings)
    shutil.rmtree(tmp_path / "vq")
    found = unsup.load(tmp_path / "prior").eval()
    assert {n.split(".")[0] for n, v in found.state_dict().items() if not torch.equal(v, first[n])} == {"prior"}
    # A bit tells the kind; the uniform prior takes log 8 nats for each of 4 codes.
    codes = found.codes_of(x)
    log_prior = found.prior.log_prob(codes).detach()
    assert float(log_prior.mean()) > -math.log(2) - 0.3
    assert torch.equal(codes, alone.eval().codes_of(x))
    gain = log_prior + 4 * math.log(8)
    torch.testing.assert_close((found.log_prob(x) - alone.log_prob(x)).detach(), gain)


def test_dead_codes_are_restarted_in_the_first_half_of_a_run_only() -> None:
    for step, expected in ((49, True), (50, False)):
        found = create("vq-vae", IMAGE, preset="tiny", decay=0.0).train()
        with torch.no_grad():
            found.quantiser.codebook[1] = 1e4
        found.loss(Batch(images()), generator=seeded())
        found.after_step(unsup.core.batch.Time(step, 100))
        assert (found.quantiser.restarted > 0) == expected


@pytest.mark.parametrize("codebook", ["moving", "gradient"])
def test_a_run_that_is_stopped_and_resumed_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codebook: str
) -> None:
    def build() -> VQVAE:
        return create("vq-vae", IMAGE, preset="tiny", seed=3, codebook=codebook, prior=PIXELS)

    whole = build()
    unsup.fit(whole, data(), **SETTINGS)
    with monkeypatch.context() as patch:
        original = VQVAE.after_step

        def stop(self: VQVAE, time: unsup.core.batch.Time) -> None:
            original(self, time)
            if time.step == 4:
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(VQVAE, "after_step", stop)
        assert unsup.fit(build(), data(), out=tmp_path / "r", **SETTINGS).interrupted
    resumed = build()
    unsup.fit(resumed, data(), out=tmp_path / "r", resume=True, **SETTINGS)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_batches_in_parts_give_the_model_of_whole_batches() -> None:
    found = []
    for accumulate in (1, 4):
        model = create("vq-vae", IMAGE, preset="tiny", seed=3).double()
        unsup.fit(model, data(), accumulate=accumulate, precision="float32", **SETTINGS)
        found.append(model.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    for options, words in (
        ({"prior": "histogram"}, "learns by counting"),
        ({"prior": "realnvp"}, "categories"),
        ({"codebook_size": 1}, "codebook_size"),
        ({"decay": 1.0}, "decay"),
        ({"net": "conv", "stages": 4}, "stages=4 halve the sides 4 times: expected sides of at least 16"),
        ({"stages": 4}, "at least 16"),
        ({"autoencoder": "vq-vae"}, "name a prior"),
        ({"decoder": "logistic"}, "logistic"),
        ({"autoencoder": "vae"}, "another model"),
        ({"autoencoder": Part("vq-vae", {"width": 8}), "code_dim": 5}, "not that of the autoencoder, 32"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            create("vq-vae", IMAGE, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="complete images only"):
        create("vq-vae", BITS, net="conv")


def test_the_paper_preset_has_the_layers_of_the_paper() -> None:
    with torch.device("meta"):
        found = unsup.core.registry.model_class("vq-vae")(
            Event((3, 32, 32), Support("ordinal", 256)), **VQVAE.presets["paper"]
        )
    shapes = [tuple(m.weight.shape) for m in found.nets.encoder.modules() if hasattr(m, "weight")]
    blocks = [(256, 256, 3, 3), (256, 256, 1, 1)] * 2
    assert shapes == [(256, 3, 4, 4), (256, 256, 4, 4), *blocks, (640, 256, 1, 1)]
    back = [tuple(m.weight.shape) for m in found.nets.decoder.modules() if hasattr(m, "weight")]
    assert back == [(256, 640, 1, 1), *blocks, (256, 256, 4, 4), (256, 6, 4, 4)]
    assert found.quantiser.codebook.shape == (512, 64)
    assert found.latent_event.shape == (10, 8, 8)
