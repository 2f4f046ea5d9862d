"""Patch positions against a loop over pairs, the defences against shortcuts, and the network of the paper."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, Event, Support
from unsup.families.selfsup.patch_position import PatchPosition
from unsup.nn.norm import BatchNorm
from unsup.testing.subject import learn

LEVELS = Support("ordinal", 256)
SMALL = {"net": "nin-3", "width": 0.05, "hidden": 12}


def model(side: int = 20, *, channels: int = 3, **options: object) -> PatchPosition:
    torch.manual_seed(0)
    return PatchPosition(Event((channels, side, side), LEVELS), **(SMALL | options)).double()


def noise(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def levels(n: int, side: int = 20, channels: int = 3) -> Tensor:
    return (256 * noise(n, channels, side, side)).to(torch.uint8)


DIRECTIONS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
"""(down, right) of the eight answers, in reading order as in the code of the paper."""


@pytest.mark.parametrize("training", [True, False])
def test_loss_and_gradient_are_those_of_a_loop_over_pairs(training: bool) -> None:
    ours = model(grids=2).train(training)
    theirs = copy.deepcopy(ours)
    x = levels(5)
    terms = ours.loss(Batch(x), generator=Generator().manual_seed(1))
    terms["loss"].mean().backward()
    patches = theirs.patches(theirs.unit(x), Generator().manual_seed(1))
    features = theirs.of_patch(theirs.maps_of(patches.flatten(0, 1))).view(5, 2, 3, 3, -1)
    pairs, answers = [], []
    for image in features:
        for grid in image:
            for answer, (down, right) in enumerate(DIRECTIONS):
                around = grid[1 + down, 1 + right]
                pairs.append(torch.cat([grid[1, 1], around]))
                answers.append(answer)
                pairs.append(torch.cat([around, grid[1, 1]]))  # from there, the centre lies in the other direction
                answers.append(DIRECTIONS.index((-down, -right)))
    logits = theirs.of_pair(torch.stack(pairs))
    each = torch.stack([row.exp().sum().log() - row[answer] for row, answer in zip(logits, answers, strict=True)])
    right = (logits.argmax(1) == torch.tensor(answers)).double()
    each.mean().backward()
    assert torch.allclose(terms["loss"], each.view(5, 32).mean(1), atol=1e-9)
    assert torch.allclose(terms["accuracy"], right.view(5, 32).mean(1))
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert p.grad is not None, name
        assert q.grad is not None, name
        assert torch.allclose(p.grad, q.grad, rtol=1e-6, atol=1e-9), name


def test_each_answer_is_equally_frequent() -> None:
    _, target = model().compared(noise(3, 1, 9, 12))
    assert torch.bincount(target.flatten()).tolist() == [6] * 8


def test_each_patch_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, seen = model(grids=2), []
    maps_of = ours.maps_of
    monkeypatch.setattr(ours, "maps_of", lambda patches: (seen.append(len(patches)), maps_of(patches))[1])
    ours.loss(Batch(levels(5)), generator=Generator().manual_seed(0))
    assert seen == [5 * 2 * 9]


def test_the_grid_has_gaps_of_half_a_patch_and_random_places() -> None:
    grid = PatchPosition.grid_of(96)
    assert (grid.patch, grid.pitch - grid.patch, grid.slack, grid.extent) == (96, 48, 14, 398)
    n, sides = 4000, (400, 410)
    corners = grid.corners(n, sides, Generator().manual_seed(0), like=torch.zeros(()))
    assert int(corners.min()) == 0
    assert [int(own.max()) for own in corners] == [side - 96 for side in sides]
    rows = corners[0].view(n, 3, 3)
    apart = (rows[:, 1:] - rows[:, :-1]).flatten() - 144
    assert int(apart.abs().max()) == 14  # ±7 of each
    assert abs(float(apart.double().mean())) < 0.1
    gaps = rows[:, 1:] - rows[:, :-1] - 96
    assert int(gaps.min()) == 48 - 14  # no two touch
    columns = corners[1].view(n, 3, 3)
    assert torch.equal((columns[:, :, 1] - columns[:, :, 0] > 0), torch.ones(n, 3, dtype=torch.bool))
    for number in range(1, 200):  # and of every size
        own = PatchPosition.grid_of(number)
        assert own.pitch - own.patch - own.slack >= (1 if number > 3 else 0)


def test_patches_are_those_of_the_image() -> None:
    """Without noise and normalisation, a patch is found where its corners say."""
    ours = model(26, channels=1)
    x = torch.arange(26.0 * 26).double().view(1, 1, 26, 26)
    found = ours.cut(x, Generator().manual_seed(3))
    corners = ours.grid.corners(1, (26, 26), Generator().manual_seed(3), like=x)
    side = ours.grid.patch
    for n, (top, left) in enumerate(corners[:, 0].T.tolist()):
        assert torch.equal(found[0, n, 0], x[0, 0, top : top + side, left : left + side])


def test_one_colour_is_kept_and_the_others_are_small_noise() -> None:
    ours = model()
    patches = 0.2 + 0.5 * noise(200, 9, 3, 8, 8)
    found = ours.normalised_one_colour(patches, Generator().manual_seed(0))
    size = found.square().mean((-2, -1))  # (200, 9, 3)
    kept = size.argmax(-1)
    assert torch.allclose(size.sum(-1), torch.full((200, 9), 3.0).double(), atol=1e-5)  # unit contrast
    assert float(size.min(-1).values.max()) < 1e-3
    shares = torch.bincount(kept.flatten()).double() / kept.numel()
    assert torch.allclose(shares, torch.full((3,), 1 / 3).double(), atol=4 * (2 / 9 / 1800) ** 0.5)
    chosen = found.gather(2, kept[..., None, None, None].expand(-1, -1, 1, 8, 8)).flatten(2)
    source = patches.gather(2, kept[..., None, None, None].expand(-1, -1, 1, 8, 8)).flatten(2)
    pairs = torch.stack([chosen.flatten(0, 1), source.flatten(0, 1)], 1)
    assert all(float(torch.corrcoef(pair)[0, 1]) > 1 - 1e-9 for pair in pairs[:20])
    others = found.gather(2, ((kept + 1) % 3)[..., None, None, None].expand(-1, -1, 1, 8, 8)).flatten()
    same = patches.gather(2, ((kept + 1) % 3)[..., None, None, None].expand(-1, -1, 1, 8, 8)).flatten()
    assert abs(float(torch.corrcoef(torch.stack([others, same]))[0, 1])) < 4 / len(others) ** 0.5
    assert len(set(kept[0].tolist())) > 1  # each patch has a colour of its own


@pytest.mark.parametrize("contrast", [1.0, 0.01, 1e-5])
def test_the_noise_has_a_hundredth_of_the_deviation_of_the_kept_colour(contrast: float) -> None:
    """Gaussian, and of each patch on its own, also of one that is nearly flat."""
    ours, side = model(), 64
    contrasts = contrast * (0.1 + noise(40, 9, 1, 1, 1, seed=1))
    patches = 0.3 + contrasts * noise(40, 9, 3, side, side)
    found = ours.normalised_one_colour(patches, Generator().manual_seed(0)).flatten(3)  # (40, 9, 3, 64²)
    deviations, order = found.square().mean(-1).sqrt().sort(-1)  # the two of the noise, then that of the kept colour
    ratios = deviations[..., :2] / deviations[..., 2:]
    assert float((ratios / 0.01 - 1).abs().max()) < 5 / math.sqrt(2 * side**2)
    dropped = found.gather(2, order[..., :2, None].expand(-1, -1, -1, side**2)) / deviations[..., :2, None]
    assert abs(float(dropped.pow(4).mean()) - 3) < 0.02  # 1.8 if it were uniform


def test_brightness_and_contrast_of_a_patch_are_not_seen() -> None:
    ours = model()
    patches = noise(10, 9, 1, 8, 8)
    seen = ours.normalised_one_colour(patches, Generator())
    assert torch.allclose(ours.normalised_one_colour(0.1 + 0.4 * patches, Generator()), seen, atol=1e-5)
    for channels in (1, 3):
        flat = torch.full((1, 9, channels, 8, 8), 0.7).double()
        assert float(ours.normalised_one_colour(flat, Generator()).abs().max()) < 1e-9


def test_a_third_of_the_patches_is_coarser() -> None:
    ours = model(60)
    side = ours.grid.patch
    assert side == 14
    patches = noise(500, 9, 1, side, side)
    found = ours.coarsened(patches, Generator().manual_seed(0))
    rank = torch.linalg.matrix_rank(found[:, :, 0])  # the number of rows that are left
    coarse = rank < side
    assert torch.allclose(found[~coarse], patches[~coarse], atol=1e-12)
    share = float(coarse.double().mean())
    assert abs(share - 1 / 3) < 4 * (2 / 9 / coarse.numel()) ** 0.5
    assert int(rank.min()) == 2
    pixels = rank[coarse].double().square()  # uniform, as in the code of the paper, but rounded down
    assert abs(float(pixels.mean()) - (13**2 + 2**2) / 2) < 13
    assert torch.allclose(found.mean((-2, -1)), patches.mean((-2, -1)), atol=0.1)


def test_codes_of_a_colour_image_are_on_the_mean_of_its_single_colours() -> None:
    ours = model().eval()
    x = levels(4)
    unit = ours.unit(x)
    single = []
    for kept in range(3):
        one = torch.zeros_like(unit)
        one[:, kept] = unit[:, kept] - unit[:, kept].mean((-2, -1), keepdim=True)
        single.append(one / one.square().mean((-3, -2, -1), keepdim=True).sqrt())
    assert torch.allclose(ours.seen(x), torch.stack(single).mean(0), atol=1e-6)
    first = ours.backbone.stages[0][0]
    responses = [first(one.float().double()) for one in single]
    assert torch.allclose(first(ours.seen(x)), torch.stack(responses).mean(0), atol=1e-5)
    grey = ours.normalised(unit[:, :1])
    assert torch.allclose(grey.square().mean((1, 2, 3)), torch.ones(4).double(), atol=1e-6)


def test_the_network_of_the_paper() -> None:
    ours = PatchPosition(Event((3, 400, 400), LEVELS), **PatchPosition.presets["paper"] | {"hidden": 16})
    shapes = [tuple(p.shape) for p in ours.backbone.parameters() if p.ndim == 4]
    middle = [(384, 256, 3, 3), (384, 384, 3, 3), (256, 384, 3, 3)]
    assert shapes == [(96, 3, 11, 11), (256, 96, 5, 5), *middle]
    with torch.no_grad():
        x = torch.zeros(2, 3, 96, 96)
        assert [ours.backbone.maps(x, stage).shape[2] for stage in range(1, 6)] == [24, 12, 6, 6, 6]
        assert ours.maps_of(x).shape == (2, 256 * 3 * 3)
        assert ours.patch_features == 256 * 3 * 3
    norms = [m for m in ours.modules() if isinstance(m, BatchNorm)]
    assert len(norms) == 5  # conv3, conv4, conv5, fc6, fc7
    assert all(m.weight is None and m.bias is None for m in norms)
    assert [tuple(m.weight.shape) for m in ours.of_pair if isinstance(m, nn.Linear)] == [(16, 32), (16, 16), (8, 16)]


def test_patches_scale_with_the_image() -> None:
    assert {side: model(side).grid.patch for side in (16, 28, 32, 64, 96, 400)} == {
        16: 4,
        28: 6,
        32: 7,
        64: 15,
        96: 23,
        400: 96,
    }


@pytest.mark.parametrize(
    ("side", "options", "message"),
    [
        (15, {}, "takes images with sides of 16 or more: 3×3 patches of 4 pixels .* 3×15×15"),
        (32, {"patch": 8}, "images of 32×32 are too small: 3×3 patches of 8 pixels .* need 34; use a smaller patch"),
        (32, {"net": "alexnet"}, "3×3 patches of 32 pixels with their gaps need 132; use another net"),
        (200, {"net": "alexnet", "patch": 31}, "patch=31 is too small; net='alexnet' takes 32 pixels or more"),
        (32, {"patch": 3}, "patch=3 is too small; net='nin-3' takes 4 pixels or more"),
    ],
)
def test_images_that_are_too_small_are_refused(side: int, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model(side, **options)


def test_images_need_not_be_square() -> None:
    torch.manual_seed(0)
    ours = PatchPosition(Event((1, 16, 30), BINARY), **SMALL)
    x = torch.zeros(3, 1, 16, 30, dtype=torch.uint8)
    assert ours.grid.patch == 4
    assert ours.loss(Batch(x), generator=Generator())["loss"].shape == (3,)
    assert ours.encode(x).shape == (3, ours.code_size)


def levels_of_noise(n: int, seed: int) -> Tensor:
    return torch.randint(0, 256, (n, 1, 16, 16), generator=Generator().manual_seed(seed), dtype=torch.uint8)


def lens(n: int, seed: int) -> Tensor:
    """Each colour alone is noise; how the second and third follow the first depends on the row and the column."""
    first = levels_of_noise(n, seed)
    third = torch.arange(16) // 6  # of 16 pixels, as the rows of patches
    by_row, by_column = (third == 0).view(-1, 1), (third == 0).view(1, -1)
    second = torch.where(by_row, 255 - first, first)
    return torch.cat([first, second, torch.where(by_column, 255 - first, first)], 1)


@pytest.mark.parametrize("defended", [True, False])
def test_what_colours_have_in_common_is_no_shortcut(defended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all colours the task is solved by them, as the aberration of a lens would; with one of them it is not."""
    if not defended:
        monkeypatch.setattr(
            PatchPosition,
            "normalised_one_colour",
            lambda self, patches, generator: patches - patches.mean((-2, -1), True),
        )
    torch.manual_seed(0)
    ours = PatchPosition(Event((3, 16, 16), LEVELS), net="nin-3", width=0.1, hidden=32).train()
    noise_of = [Generator().manual_seed(step) for step in range(100)]
    learn(ours, lambda step: Batch(lens(32, step)), 100, 5e-3, noise_of.__getitem__)
    with torch.no_grad():
        found = ours.loss(Batch(lens(400, 1000)), generator=Generator().manual_seed(0))["accuracy"].double()
    error = float(found.std()) / len(found) ** 0.5
    assert (abs(float(found.mean()) - 1 / 8) < 4 * error) == defended
    assert defended or float(found.mean()) > 0.3
