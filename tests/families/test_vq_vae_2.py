"""VQ-VAE-2: the terms of both maps, the prior of the bottom map given the top map, and its codes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

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
        z_top = found.top_encoder(h).view(6, 4, 4).transpose(1, 2)
        top = nearest(z_top, found.top.codebook)
        e_top = found.top.codebook[top]
        beside = found.top_decoder(e_top.transpose(1, 2).flatten(1))
        z_bottom = found.bottom_encoder(torch.cat([h, beside], 1)).flatten(2).transpose(1, 2)
        bottom = nearest(z_bottom, found.bottom.codebook)
        e_bottom = found.bottom.codebook[bottom]
        distance = (z_top - e_top).square().sum((1, 2)) + (z_bottom - e_bottom).square().sum((1, 2))
        repeated = top.view(6, 1, 2, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        of_top = found.prior.model.log_prob(top.view(6, 1, 2, 2))
        of_bottom = found.bottom_prior.model.log_prob(bottom.view(6, 1, 4, 4), given=repeated)
    torch.testing.assert_close(terms["commitment"], distance)
    torch.testing.assert_close(terms["codebook"], distance)
    torch.testing.assert_close(terms["prior"], -of_top)
    torch.testing.assert_close(terms["bottom_prior"], -of_bottom)
    torch.testing.assert_close(terms["loss"].detach(), terms["reconstruction"] + 1.7 * distance - of_top - of_bottom)
    assert torch.equal(found.codes_of(x).long(), torch.cat([top, bottom], 1))
    bound = found.eval().log_prob(x).detach()
    torch.testing.assert_close(bound, of_top + of_bottom - terms["reconstruction"])


def test_the_priors_move_nothing_else_and_the_reconstruction_reaches_both_encoders() -> None:
    found, x = generic(**PRIORS).train(), images(6)
    h = found._features(x)
    top = found.top(found._top_vectors(h), generator=seeded())
    bottom = found.bottom(found._bottom_vectors(h, top.vectors), generator=seeded())
    reconstruction = found.nets.log_likelihood(found.nets.target(x), found._as_input(top.vectors, bottom.vectors)[None])
    names = [name for name, p in found.named_parameters() if p.requires_grad]
    parameters = [found.get_parameter(name) for name in names]
    gradients = torch.autograd.grad(reconstruction.sum(), parameters, allow_unused=True)
    moved = {name.split(".")[0] for name, g in zip(names, gradients, strict=True) if g is not None}
    assert moved == {"nets", "top_encoder", "top_decoder", "bottom_encoder", "enlarge"}
    c_top, c_bottom = found.split_codes(found.codes_of(x))
    loss = found.prior.loss(c_top, Batch(x), generator=seeded()).sum()
    loss = loss + found.bottom_prior.loss(c_bottom, Batch(x), found.condition(c_top), generator=seeded()).sum()
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    moved = {name.split(".")[0] for name, g in zip(names, gradients, strict=True) if g is not None}
    assert moved == {"prior", "bottom_prior"}


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
    given = found.condition(top)
    optimizer = torch.optim.Adam(found.bottom_prior.parameters(), lr=0.01)
    for step in range(60):
        optimizer.zero_grad()
        found.bottom_prior.loss(bottom, Batch(x), given, generator=seeded(step)).mean().backward()
        optimizer.step()
    found.eval()
    with torch.no_grad():
        right = found.bottom_prior.log_prob(bottom, given)
        wrong = found.bottom_prior.log_prob(bottom, given.roll(1, 0))
    assert float(right.mean()) > float(wrong.mean()) + 1
    codes = torch.cat([top.flatten(1), bottom.flatten(1)], 1)
    torch.testing.assert_close(found.log_prior(codes).detach(), found.prior.log_prob(top).detach() + right)


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
    assert (found.top_event.shape, found.bottom_event.shape) == ((1, 3, 2), (1, 7, 5))
    top = torch.arange(6).view(1, 1, 3, 2)
    rows, columns = torch.tensor([0, 0, 1, 1, 2, 2, 2]), torch.tensor([0, 0, 1, 1, 1])
    assert torch.equal(found.condition(top)[0, 0], top[0, 0][rows][:, columns])


def test_samples_are_decoded_from_the_top_map_and_the_bottom_map_given_it() -> None:
    found = generic(**PRIORS).eval()
    generator = seeded(4)
    with torch.no_grad():
        top = found.prior.model.sample(5, generator=generator)
        bottom = found.bottom_prior.model.sample(5, generator=generator, given=found.condition(top))
        codes = torch.cat([top.flatten(1), bottom.flatten(1)], 1)
        expected = found.nets.draw(found.decodable(codes), generator=generator)
    assert torch.equal(found.sample(5, generator=seeded(4)), expected)
    assert torch.equal(found.decode(codes.float()), found.nets.typical(found.decodable(codes)))


def test_a_file_is_as_long_as_the_bound() -> None:
    found, x = generic(**PRIORS).float().eval(), images(20)
    scheme = scheme_for(found)
    assert torch.equal(scheme.decode(scheme.encode(x), 20), x)
    many = x.repeat(10, 1, 1, 1)
    bits = -float(scheme.model.log_prob(many).detach().sum()) / math.log(2)
    assert 8 * len(scheme.encode(many)) == pytest.approx(bits, rel=0.01, abs=256)


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    for event, options, words in (
        (IMAGE, {"stages": 3}, "at least 16"),
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
    assert (found.top_event.shape, found.bottom_event.shape) == ((1, 32, 32), (1, 64, 64))
    assert found.top.codebook.shape == found.bottom.codebook.shape == (512, 64)
