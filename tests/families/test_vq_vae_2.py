"""VQ-VAE-2: the terms of both maps, the prior of the bottom map given the top map, and its codes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli

import unsup
from unsup import Batch, Event, InputError, create
from unsup.coding.chunks import scheme_for
from unsup.core.event import BINARY, Support
from unsup.core.part import Part
from unsup.data.source import Data, Split
from unsup.families.latent.vq_vae_2 import VQVAE2
from unsup.prob.quantisation import nearest

IMAGE = Event((1, 8, 8), BINARY)
TOP = Part("gated-pixelcnn", {"channels": 4, "layers": 1, "head_channels": 4})
BOTTOM = Part("subscale", {"channels": 8, "layers": 2, "attention": 0, "heads": 1, "embedding": 8, "blocks": 1})
PRIORS = {"prior": TOP, "bottom_prior": BOTTOM}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 32, event: Event = IMAGE) -> Tensor:
    levels = event.uniform.levels
    x = torch.rand(n, *event.shape, generator=seeded(1)) * 0.4 + 0.6 * torch.rand(n, 1, 1, 1, generator=seeded(2))
    return (levels * x).long().clamp(max=levels - 1).to(event.dtype)


def generic(**options: object) -> VQVAE2:
    found = create("vq-vae-2", IMAGE, preset="tiny", **options).double()
    found.prepare(Batch(images()), generator=seeded(3))
    with torch.no_grad():
        for p in found.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=seeded(p.numel()), dtype=p.dtype))
    return found


def test_the_loss_is_the_sum_of_the_terms_of_both_maps() -> None:
    found, x = generic(codebook="gradient", commitment=0.7, **PRIORS), images(6)
    terms = found.loss(Batch(x), generator=seeded())
    with torch.no_grad():
        h = found.nets.encoder(x.double()).view(6, 8, 4, 4)
        z_top = found.encoders[0](h).view(6, 4, 4).transpose(1, 2)
        top = nearest(z_top, found.quantisers[0].codebook)
        e_top = found.quantisers[0].codebook[top]
        beside = found.decoders[0](e_top.transpose(1, 2).flatten(1))
        z_bottom = found.merges[0](torch.cat([h, beside], 1)).flatten(2).transpose(1, 2)
        bottom = nearest(z_bottom, found.quantisers[1].codebook)
        e_bottom = found.quantisers[1].codebook[bottom]
        distance = (z_top - e_top).square().sum((1, 2)) + (z_bottom - e_bottom).square().sum((1, 2))
        repeated = top.view(6, 1, 2, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        of_top = found.priors[0].model.log_prob(top.view(6, 1, 2, 2))
        of_bottom = found.priors[1].model.log_prob(bottom.view(6, 1, 4, 4), given=repeated)
        seen = torch.cat(
            [
                e_bottom.transpose(1, 2).reshape(6, 4, 4, 4),
                found.enlarge[0](e_top.transpose(1, 2).reshape(6, 4, 2, 2)),
            ],
            1,
        )
        logits = found.nets.decoder(seen.flatten(1))
        reconstruction = -Bernoulli(logits=logits).log_prob(x.double()).sum((1, 2, 3))
    torch.testing.assert_close(terms["reconstruction"], reconstruction)
    torch.testing.assert_close(terms["commitment"], distance)
    torch.testing.assert_close(terms["codebook"], distance)
    torch.testing.assert_close(terms["prior"], -of_top)
    torch.testing.assert_close(terms["bottom_prior"], -of_bottom)
    torch.testing.assert_close(terms["loss"].detach(), reconstruction + 1.7 * distance - of_top - of_bottom)
    assert torch.equal(found.codes_of(x).long(), torch.cat([top, bottom], 1))
    bound = found.eval().log_prob(x).detach()
    torch.testing.assert_close(bound, of_top + of_bottom - terms["reconstruction"])


def test_three_maps_by_hand() -> None:
    """The middle map stands to its features and the top map as the bottom map to its own and the middle map."""
    found, x = generic(levels=3, codebook="gradient", commitment=0.7, **PRIORS), images(6)
    terms = found.loss(Batch(x), generator=seeded())
    top_book, middle_book, bottom_book = (quantiser.codebook for quantiser in found.quantisers)
    with torch.no_grad():
        h = found.nets.encoder(x.double()).view(6, 8, 4, 4)
        h_middle = found.encoders[1](h).view(6, 8, 2, 2)
        z_top = found.encoders[0](h_middle).view(6, 4, 1, 1)
        top = nearest(z_top.movedim(1, -1), top_book)
        e_top = top_book[top].movedim(-1, 1)
        z_middle = found.merges[0](torch.cat([h_middle, found.decoders[0](e_top.flatten(1))], 1))
        middle = nearest(z_middle.movedim(1, -1), middle_book)
        e_middle = middle_book[middle].movedim(-1, 1)
        z_bottom = found.merges[1](torch.cat([h, found.decoders[1](e_middle.flatten(1))], 1))
        bottom = nearest(z_bottom.movedim(1, -1), bottom_book)
        e_bottom = bottom_book[bottom].movedim(-1, 1)
        pairs = ((z_top, e_top), (z_middle, e_middle), (z_bottom, e_bottom))
        distance = torch.stack([(z - e).square().sum((1, 2, 3)) for z, e in pairs]).sum(0)
        larger, enlarged = found.enlarge
        enlarged_top = larger[1](larger[0](e_top))
        seen = torch.cat([e_bottom, enlarged[0](e_middle), enlarged_top], 1)
        reconstruction = -Bernoulli(logits=found.nets.decoder(seen.flatten(1))).log_prob(x.double()).sum((1, 2, 3))
        double = [m[:, None].repeat_interleave(2, 2).repeat_interleave(2, 3) for m in (top, middle)]
        both = torch.cat([double[0].repeat_interleave(2, 2).repeat_interleave(2, 3), double[1]], 1)
        each = [
            found.priors[0].model.log_prob(top[:, None]),
            found.priors[1].model.log_prob(middle[:, None], given=double[0]),
            found.priors[2].model.log_prob(bottom[:, None], given=both),
        ]
    for name, own in zip(("prior", "middle_prior", "bottom_prior"), each, strict=True):
        torch.testing.assert_close(terms[name], -own)
    for name, own in (("reconstruction", reconstruction), ("commitment", distance), ("codebook", distance)):
        torch.testing.assert_close(terms[name], own)
    torch.testing.assert_close(terms["loss"].detach(), reconstruction + 1.7 * distance - sum(each))
    assert {f"{n}{s}" for n in ("perplexity", "restarted") for s in ("", "_middle", "_bottom")} <= terms.keys()
    codes = torch.cat([m.flatten(1) for m in (top, middle, bottom)], 1)
    assert torch.equal(found.codes_of(x).long(), codes)
    torch.testing.assert_close(found.eval().log_prob(x).detach(), sum(each) - reconstruction)
    assert torch.equal(found.decode(found.encode(x)), found.nets.typical(found.decodable(codes)))


@pytest.mark.parametrize("levels", [2, 3])
def test_the_priors_move_nothing_else_and_the_reconstruction_reaches_every_encoder(levels: int) -> None:
    found, x = generic(levels=levels, **PRIORS).train(), images(6)
    vectors = found._quantised(x, lambda place, z: found.quantisers[place](z, generator=seeded()).vectors)
    reconstruction = found.nets.log_likelihood(found.nets.target(x), found._as_input(vectors)[None])
    names = [name for name, p in found.named_parameters() if p.requires_grad]
    parameters = [found.get_parameter(name) for name in names]
    gradients = torch.autograd.grad(reconstruction.sum(), parameters, allow_unused=True)
    still = {name for name, g in zip(names, gradients, strict=True) if g is None}
    assert still == {name for name in names if name.startswith("priors")}
    maps = found.split_codes(found.codes_of(x))
    loss = torch.stack([term.sum() for term in found._prior_terms(maps, Batch(x), seeded()).values()]).sum()
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    moved = {".".join(name.split(".")[:2]) for name, g in zip(names, gradients, strict=True) if g is not None}
    assert moved == {f"priors.{place}" for place in range(levels)}


def test_uniform_priors_take_log_k_nats_for_each_code_of_both_maps() -> None:
    found = create("vq-vae-2", IMAGE, preset="tiny").eval()
    terms = found.loss(Batch(images(3)))
    torch.testing.assert_close(terms["prior"], torch.full((3,), 4 * math.log(6)))
    torch.testing.assert_close(terms["bottom_prior"], torch.full((3,), 16 * math.log(6)))


def test_a_bottom_prior_is_worse_given_the_top_codes_of_other_examples() -> None:
    """Codes of untrained networks, whose top map also tells the kind of an example."""
    kind = torch.arange(64) % 2
    flips = (torch.rand(64, 1, 8, 8, generator=seeded()) < 0.05).long()
    x = (kind.view(64, 1, 1, 1) ^ flips).to(torch.uint8)
    found = create("vq-vae-2", IMAGE, preset="tiny", **PRIORS, seed=0)
    found.prepare(Batch(x), generator=seeded())
    top, bottom = found.split_codes(found.codes_of(x))
    given, prior = found.condition([top]), found.priors[1]
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.01)
    for step in range(60):
        optimizer.zero_grad()
        prior.loss(bottom, Batch(x), given, generator=seeded(step)).mean().backward()
        optimizer.step()
    found.eval()
    with torch.no_grad():
        right = prior.log_prob(bottom, given)
        wrong = prior.log_prob(bottom, given.roll(1, 0))
    assert float(right.mean()) > float(wrong.mean()) + 1
    codes = torch.cat([top.flatten(1), bottom.flatten(1)], 1)
    torch.testing.assert_close(found.log_prior(codes).detach(), found.priors[0].log_prob(top).detach() + right)


def test_a_run_in_parts_of_batches_ends_as_one_of_whole_batches() -> None:
    x = images()
    data = Data(name=None, event=IMAGE, train=Split(x), validation=Split(x[:16]), test=Split(x[:16]))
    states = []
    for accumulate in (1, 4):
        found = create("vq-vae-2", IMAGE, preset="tiny", seed=3, **PRIORS).double()
        unsup.fit(found, data, steps=6, batch_size=16, lr=0.01, accumulate=accumulate, precision="float32", seed=1)
        states.append(found.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_the_condition_repeats_each_top_code_over_its_places_at_odd_sides_too() -> None:
    found = create("vq-vae-2", Event((1, 14, 10), BINARY), preset="tiny")
    assert [event.shape for event in found.code_events] == [(1, 3, 2), (1, 7, 5)]
    top = torch.arange(6).view(1, 1, 3, 2)
    rows, columns = torch.tensor([0, 0, 1, 1, 2, 2, 2]), torch.tensor([0, 0, 1, 1, 1])
    assert torch.equal(found.condition([top])[0, 0], top[0, 0][rows][:, columns])
    found = create("vq-vae-2", Event((1, 30, 22), BINARY), preset="tiny", levels=3)
    assert [event.shape for event in found.code_events] == [(1, 3, 2), (1, 7, 5), (1, 15, 11)]
    middle = torch.arange(35).view(1, 1, 7, 5)
    given = found.condition([top, middle])
    assert given.shape == (1, 2, 15, 11)
    more, across = torch.arange(15).div(2, rounding_mode="floor"), torch.arange(11).div(2, rounding_mode="floor")
    more, across = more.clamp(max=6), across.clamp(max=4)
    assert torch.equal(given[0, 1], middle[0, 0][more][:, across])
    assert torch.equal(given[0, 0], top[0, 0][rows][:, columns][more][:, across])
    x = (torch.rand(2, 1, 30, 22, generator=seeded()) < 0.5).to(torch.uint8)
    assert found.loss(Batch(x), generator=seeded())["loss"].shape == (2,)
    assert found.sample(2, generator=seeded()).shape == x.shape


@pytest.mark.parametrize("levels", [2, 3])
def test_samples_are_decoded_from_the_top_map_and_every_map_given_the_smaller_ones(levels: int) -> None:
    found = generic(levels=levels, **PRIORS).eval()
    generator, maps = seeded(4), []
    with torch.no_grad():
        for place, prior in enumerate(found.priors):
            given = {"given": found.condition(maps)} if place else {}
            maps.append(prior.model.sample(5, generator=generator, **given))
        codes = torch.cat([own.flatten(1) for own in maps], 1)
        expected = found.nets.draw(found.decodable(codes), generator=generator)
    assert torch.equal(found.sample(5, generator=seeded(4)), expected)
    assert torch.equal(found.decode(codes.float()), found.nets.typical(found.decodable(codes)))


@pytest.mark.parametrize("levels", [2, 3])
def test_a_file_is_as_long_as_the_bound(levels: int) -> None:
    found, x = generic(levels=levels, **PRIORS).float().eval(), images(20)
    scheme = scheme_for(found)
    assert torch.equal(scheme.decode(scheme.encode(x), 20), x)
    many = x.repeat(10, 1, 1, 1)
    bits = -float(scheme.model.log_prob(many).detach().sum()) / math.log(2)
    assert 8 * len(scheme.encode(many)) == pytest.approx(bits, rel=0.01, abs=256)


def test_priors_of_a_trained_autoencoder_learn_alone(tmp_path: Path) -> None:
    create("vq-vae-2", IMAGE, preset="tiny", seed=1, levels=3).save(tmp_path / "ae")
    found = create("vq-vae-2", IMAGE, autoencoder=str(tmp_path / "ae"), **PRIORS)
    before = {n: v.clone() for n, v in found.state_dict().items()}
    x = images(60)
    data = Data(name=None, event=IMAGE, train=Split(x), validation=Split(x[:16]), test=Split(x[:16]))
    unsup.fit(found, data, steps=3, batch_size=16, lr=0.01, progress="off")
    changed = {n for n, v in found.state_dict().items() if not torch.equal(v, before[n])}
    assert {".".join(n.split(".")[:2]) for n in changed} == {f"priors.{place}" for place in range(3)}
    old = unsup.load(tmp_path / "ae")
    assert torch.equal(found.codes_of(x), old.eval().codes_of(x))
    codes = found.codes_of(x)
    gain = found.log_prior(codes) - old.log_prior(codes)
    torch.testing.assert_close((found.eval().log_prob(x) - old.log_prob(x)).detach(), gain.detach())


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    for event, options, words in (
        (IMAGE, {"stages": 3}, "at least 16"),
        (IMAGE, {"stages": 2, "levels": 3}, "at least 16"),
        (IMAGE, {"levels": 4}, "levels"),
        (IMAGE, {"autoencoder": "vq-vae"}, "another model"),
        (IMAGE, {"autoencoder": "vq-vae-2"}, "name a prior"),
        (IMAGE, {"autoencoder": Part("vq-vae-2", {"width": 8}), "width": 9}, "not that of the autoencoder, 8"),
        (Event((4,), BINARY), {}, "takes images only"),
        (IMAGE, {"bottom_prior": "nade"}, "takes no condition"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            create("vq-vae-2", event, **options)
        assert "\n" not in str(caught.value)


def test_the_paper_preset_has_maps_of_32_and_64_places_for_256_pixels() -> None:
    options = {k: v for k, v in VQVAE2.presets["paper"].items() if "prior" not in k}
    with torch.device("meta"):
        found = VQVAE2(Event((3, 256, 256), Support("ordinal", 256)), **options)
    assert [event.shape for event in found.code_events] == [(1, 32, 32), (1, 64, 64)]
    assert all(quantiser.codebook.shape == (512, 64) for quantiser in found.quantisers)


def test_three_maps_of_an_image_of_1024_pixels_have_the_sides_of_the_paper() -> None:
    options = {k: v for k, v in VQVAE2.presets["paper"].items() if "prior" not in k}
    with torch.device("meta"):
        found = VQVAE2(Event((3, 1024, 1024), Support("ordinal", 256)), **options | {"levels": 3, "stages": 3})
    assert [event.shape for event in found.code_events] == [(1, 32, 32), (1, 64, 64), (1, 128, 128)]
