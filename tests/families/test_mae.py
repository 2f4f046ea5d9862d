"""The masked autoencoder: its loss against a loop over patches, what sees what, counts, sizes, and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Generator, Tensor, nn

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, Event, Support
from unsup.core.registry import create
from unsup.data.source import Data, Split
from unsup.families.selfsup.mae import MAE
from unsup.nn.vit import TransformerBlock, sine_positions
from unsup.prob.patches import shuffles, to_patches

IMAGE = Event((3, 8, 12), Support("ordinal", 256), "image")
TOKENS = [False, True]
SIZES = {
    "views": "none",
    "patch": 4,
    "size": 12,
    "depth": 2,
    "heads": 3,
    "decoder_size": 8,
    "decoder_depth": 1,
    "decoder_heads": 2,
}


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, event: Event = IMAGE, seed: int = 1) -> Tensor:
    support = event.uniform
    assert support is not None
    return torch.randint(0, support.levels, (n, *event.shape), generator=seeded(seed)).to(event.dtype)


def generic(event: Event = IMAGE, **options: object) -> MAE:
    """A model in float64 with generic parameters and moments of channels."""
    found = create("mae", event, seed=3, **{**SIZES, **options}).double()
    assert isinstance(found, MAE)
    with torch.no_grad():
        for p in found.parameters():
            p.add_(0.2 * torch.randn(p.shape, dtype=p.dtype, generator=seeded(p.numel())))
        found.backbone.scale.mean.copy_(torch.linspace(0.3, 0.6, event.shape[0]))
        found.backbone.scale.std.copy_(torch.linspace(0.2, 0.4, event.shape[0]))
    return found


# --- the loss ---------------------------------------------------------------------------------------------------------


def cut(image: Tensor, place: int, patch: int) -> Tensor:
    """One patch of an image ``(C, H, W)``, flat."""
    row, column = divmod(place, image.shape[2] // patch)
    return image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch].flatten()


def slow_loss(model: MAE, x: Tensor, shuffle: Tensor) -> Tensor:
    """Example by example and patch by patch, without orders: sets of places, and tokens put where they belong."""
    backbone, decoder, found = model.backbone, model.decoder, []
    patch, (height, width) = backbone.patch, backbone.sides
    places, columns = model.patches, width // patch
    for raw, order in zip(x, shuffle.tolist(), strict=True):
        scaled = (raw.double() / 255 - backbone.scale.mean[:, None, None]) / backbone.scale.std[:, None, None]
        visible = sorted(order[: model.visible])
        masked = [place for place in range(places) if place not in visible]
        weight, bias = backbone.tokens.project.weight.flatten(1), backbone.tokens.project.bias
        assert bias is not None
        positions = sine_positions(height // patch, columns, weight.shape[0]).double()
        tokens = [weight @ cut(scaled, place, patch) + bias + positions[place] for place in visible]
        first = backbone.class_token is not None
        if backbone.class_token is not None:
            tokens.insert(0, backbone.class_token)
        maps = torch.stack(tokens)[None]
        for block in backbone.stages:
            maps = block(maps)
        encoded = backbone.norm(maps)[0]
        others = sine_positions(height // patch, columns, decoder.mask_token.shape[0]).double()
        place_of = {place: number for number, place in enumerate(visible, start=int(first))}
        row = [decoder.embed(encoded[0])] if first else []
        for place in range(places):
            own = decoder.embed(encoded[place_of[place]]) if place in place_of else decoder.mask_token
            row.append(own + others[place])
        maps = torch.stack(row)[None]
        for block in decoder.blocks:
            maps = block(maps)
        errors = []
        for place in masked:
            target = cut(scaled, place, patch)
            if model.normalised:
                centred = target - target.mean()
                target = centred / (centred.square().sum() / (len(target) - 1) + 1e-6) ** 0.5
            prediction = decoder.out(decoder.norm(maps[0, place + int(first)]))
            errors.append((prediction - target).square().mean())
        found.append(torch.stack(errors).mean())
    return torch.stack(found)


@pytest.mark.parametrize(
    "options",
    [{}, {"class_token": True}, {"mask_ratio": 0.4}, {"normalised": False, "class_token": True, "mask_ratio": 0.5}],
)
def test_the_loss_is_the_loop_over_masked_patches_with_its_gradients(options: dict[str, object]) -> None:
    model, x = generic(**options), images(4)
    shuffle = shuffles(4, model.patches, seeded(7), like=x)
    fast = model.loss(Batch(x), generator=seeded(7))["loss"]
    slow = slow_loss(model, x, shuffle)
    assert torch.allclose(fast, slow, atol=1e-9)
    parameters, weights = list(model.parameters()), torch.arange(1.0, 5, dtype=torch.float64)
    for own, other in zip(
        torch.autograd.grad((fast * weights).sum(), parameters),
        torch.autograd.grad((slow * weights).sum(), parameters),
        strict=True,
    ):
        assert torch.allclose(own, other, atol=1e-9)


def test_constant_patches_have_a_target_of_zero() -> None:
    event = Event((1, 8, 8), Support("ordinal", 256), "image")
    model = generic(event)
    x = torch.full((2, 1, 8, 8), 77, dtype=torch.uint8)
    x[:, :, :4] = 200  # other levels in the upper patches
    shuffle = shuffles(2, model.patches, seeded(), like=x)
    predicted = model._predicted(model.unit(x), shuffle)
    loss = model.loss(Batch(x), generator=seeded())["loss"]
    assert torch.allclose(loss, predicted.square().mean((1, 2)), atol=1e-9)


def test_a_prediction_of_nothing_costs_the_variance_of_the_targets() -> None:
    model, x = generic(), images(5)
    with torch.no_grad():
        model.decoder.out.weight.zero_()
        model.decoder.out.bias.zero_()
    entries = 3 * 4**2
    assert torch.allclose(
        model.loss(Batch(x), generator=seeded())["loss"], torch.tensor((entries - 1) / entries).double(), atol=1e-4
    )


# --- what sees what ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_token", TOKENS)
def test_predictions_see_visible_pixels_only_and_targets_masked_ones(class_token: bool) -> None:
    model = generic(class_token=class_token)
    shuffle = shuffles(3, model.patches, seeded(2), like=torch.zeros(()))
    visible, masked = shuffle[:, : model.visible], shuffle[:, model.visible :]

    def touched(outputs: Tensor, x: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(outputs.sin().sum(), x)
        return to_patches(gradient, 4)

    x = model.unit(images(3)).requires_grad_()
    by_prediction = touched(model._predicted(x, shuffle), x)
    patches, mean, deviation = model._masked(x, shuffle)
    by_target = touched((patches - mean) / deviation, x)
    for example in range(3):
        assert torch.equal(by_prediction[example, masked[example]], torch.zeros(model.patches - model.visible, 48))
        assert bool((by_prediction[example, visible[example]] != 0).all())
        assert torch.equal(by_target[example, visible[example]], torch.zeros(model.visible, 48))
        assert bool((by_target[example, masked[example]] != 0).any())


@contextmanager
def token_counts(blocks: nn.ModuleList) -> Iterator[list[int]]:
    found: list[int] = []
    hooks = [own.register_forward_pre_hook(lambda _, args: found.append(args[0].shape[1])) for own in blocks]
    yield found
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("class_token", TOKENS)
def test_the_encoder_computes_visible_tokens_only(class_token: bool) -> None:
    model, x, first = generic(class_token=class_token), images(2), int(class_token)
    with token_counts(model.backbone.stages) as encoder, token_counts(model.decoder.blocks) as decoder:
        model.loss(Batch(x), generator=seeded())
        assert encoder == [1 + first] * 2  # of 6 patches
        assert decoder == [6 + first]
        model.encode(x)
        assert encoder[2:] == [6 + first] * 2
        assert len(decoder) == 1


@pytest.mark.parametrize(
    ("sides", "patch", "ratio", "masked"),
    [  # T less the whole part of (1 − r) T
        ((224, 224), 16, 0.75, 147),
        ((28, 28), 4, 0.75, 37),
        ((8, 8), 2, 0.75, 12),
        ((4, 40), 4, 0.9, 9),
        ((4, 40), 4, 0.7, 7),
        ((4, 40), 4, 0.01, 1),
        ((4, 8), 4, 0.75, 1),
        ((8, 8), 4, 0.99, 3),
    ],
)
def test_the_number_of_masked_patches_is_exact(sides: tuple[int, int], patch: int, ratio: float, masked: int) -> None:
    event = Event((1, *sides), BINARY, "image")
    model = create("mae", event, preset="tiny", patch=patch, mask_ratio=ratio)
    assert isinstance(model, MAE)
    assert model.patches - model.visible == masked
    seen: list[int] = []
    model.decoder.out.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    model.loss(Batch(images(2, event)), generator=seeded())
    assert seen == [masked]


def test_masks_are_keyed_and_differ_between_examples() -> None:
    model, x = generic(), images(1).expand(64, -1, -1, -1)
    one, again, other = (model.loss(Batch(x), generator=seeded(s))["loss"] for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    assert len(one.detach().round(decimals=9).unique()) == model.patches  # one visible patch of six: six values


# --- wiring -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_token", TOKENS)
def test_the_loss_moves_every_part_and_codes_move_the_encoder_only(class_token: bool) -> None:
    model, x = generic(class_token=class_token), images(3)
    model.loss(Batch(x), generator=seeded())["loss"].sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert bool((p.grad != 0).any()), name
    model.zero_grad()
    model.encode(x).sin().sum().backward()
    assert all(p.grad is None for p in model.decoder.parameters())
    assert all(p.grad is not None for p in model.backbone.parameters())
    (player,) = model.objectives()
    assert len(player.parameters) == len(list(model.parameters()))


@pytest.mark.parametrize("class_token", TOKENS)
def test_codes_are_those_of_all_patches_alone(class_token: bool) -> None:
    model, x = generic(class_token=class_token), images(5)
    with torch.no_grad():
        codes = model.encode(x)
        assert torch.equal(codes, model.encode(x))
        assert torch.allclose(model.encode(x[2:3]), codes[2:3], atol=1e-12)
        assert torch.equal(model.eval().encode(x), codes)
        tokens = model.backbone.norm(model.backbone.maps(model.unit(x)))
        assert torch.allclose(codes, tokens[:, 0] if class_token else tokens.mean(1))
    assert codes.shape == (5, model.code_size) == (5, 12)


def test_it_learns_to_continue_a_texture() -> None:
    """All patches of an image are equal, so the visible one tells the masked ones."""
    event = Event((1, 8, 8), BINARY, "image")
    x = (torch.rand(400, 1, 2, 2, generator=seeded()) < 0.5).to(torch.uint8).tile(1, 1, 4, 4)
    model = create("mae", event, preset="tiny", patch=2, views="none", seed=0)
    data = Data("textures", event, Split(x), Split(x[:20]), Split(x[:20]))

    def error() -> float:
        with torch.no_grad():
            return float(model.loss(Batch(x), generator=seeded())["loss"].mean())

    before = error()
    unsup.fit(model, data, steps=150, batch_size=64, lr=1e-2, warmup=10, progress="off")
    assert before > 0.5
    assert error() < 0.1 * before


# --- options and sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 8, 8), {"mask_ratio": 0.0}, "mask_ratio=0 of 16 patches of 2×2: expected at least one masked patch"),
        ((1, 8, 8), {"mask_ratio": 1.0}, "one visible patch"),
        ((1, 8, 8), {"patch": 8}, "mask_ratio=0.75 of 1 patches of 8×8"),
        ((1, 8, 12), {"patch": 3}, "patch=3 does not divide the sides 8×12"),
        ((1, 8, 8), {"heads": 5}, "heads=5 does not divide size=192"),
        ((1, 8, 8), {"decoder_heads": 5}, "decoder_heads=5 does not divide decoder_size=96"),
        ((1, 7, 5), {}, "patches of one number of 7×5 images have no variance"),
    ],
)
def test_options_that_do_not_fit_are_refused(shape: tuple[int, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create("mae", Event(shape, BINARY, "image"), **options)


def test_other_data_is_refused() -> None:
    for event in (Event((5,), BINARY), Event((3, 8, 8), Support("real"), "image")):
        with pytest.raises(InputError, match="takes images"):
            create("mae", event)


def test_the_published_network_has_its_parameters() -> None:
    """ViT-B/16 with a decoder of 8 blocks of 512, counted by hand; published counts include fixed positions."""
    event = Event((3, 224, 224), Support("ordinal", 256), "image")
    with torch.device("meta"):
        model = create("mae", event, preset="paper")
    assert isinstance(model, MAE)

    def block(size: int) -> int:
        return (3 * size**2 + 3 * size) + (size**2 + size) + (4 * size**2 + 4 * size) + (4 * size**2 + size) + 4 * size

    encoder = (768 * 768 + 768) + 768 + 12 * block(768) + 2 * 768
    decoder = (768 * 512 + 512) + 512 + 8 * block(512) + 2 * 512 + (512 * 768 + 768)
    assert sum(p.numel() for p in model.backbone.parameters()) == encoder == 85_647_360
    assert sum(p.numel() for p in model.decoder.parameters()) == decoder == 26_008_320
    assert encoder + 197 * 768 == 85_798_656  # 85.8 M
    assert model.parameter_count + 197 * (768 + 512) == 111_907_840  # 111.9 M
    assert (model.patches, model.visible) == (196, 49)
    assert all(isinstance(own, TransformerBlock) for own in model.backbone.stages)
    assert [len(model.backbone.stages), len(model.decoder.blocks)] == [12, 8]
    heads = [own.heads for own in (*model.backbone.stages, *model.decoder.blocks) if isinstance(own, TransformerBlock)]
    assert heads == [12] * 12 + [16] * 8


# --- a picture --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalised", [True, False])
def test_a_perfect_prediction_reconstructs_the_image(normalised: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = generic(normalised=normalised), images(4)

    def perfect(unit: Tensor, shuffle: Tensor) -> Tensor:
        patches, mean, deviation = model._masked(unit, shuffle)
        return (patches - mean) / deviation

    monkeypatch.setattr(model, "_predicted", perfect)
    masked, filled = model.reconstruct(x, generator=seeded(4))
    assert torch.equal(filled, x)
    assert masked.dtype == filled.dtype == x.dtype
    grey = (to_patches(masked, 4) == 128).all(-1)
    assert grey.sum(1).tolist() == [5] * 4
    assert torch.equal(to_patches(masked, 4)[~grey], to_patches(x, 4)[~grey])


def test_visible_patches_are_kept_in_a_reconstruction() -> None:
    model, x = generic(), images(4)
    masked, filled = model.reconstruct(x, generator=seeded(4))
    grey = (to_patches(masked, 4) == 128).all(-1)
    same = (to_patches(filled, 4) == to_patches(x, 4)).all(-1)
    assert torch.equal(same, ~grey)
    assert bool(model.event.contains(filled).all())
    with pytest.raises(InputError):
        model.reconstruct(x[0])
