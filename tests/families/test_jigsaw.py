"""Jigsaw puzzles against a loop over tiles, the defences against shortcuts, and the network of the paper."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.families.selfsup.jigsaw import Jigsaw
from unsup.nn.norm import BatchNorm
from unsup.testing.subject import learn

LEVELS = Support("ordinal", 256)
SMALL = {"net": "nin-3", "width": 0.05, "hidden": (6, 10), "permutations": 7}


def model(side: int = 20, *, channels: int = 3, **options: object) -> Jigsaw:
    torch.manual_seed(0)
    return Jigsaw(Event((channels, side, side), LEVELS), **(SMALL | options)).double()


def levels(n: int, side: int = 20, channels: int = 3) -> Tensor:
    generator = Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, side, side), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("training", [True, False])
def test_loss_and_gradient_are_those_of_a_loop_over_tiles(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tile by tile in both modes, since no statistic is one of several tiles."""
    ours = model().train(training)
    theirs = copy.deepcopy(ours)
    x, drawn = levels(5), []
    integers = unsup.core.random.integers
    monkeypatch.setattr("unsup.core.random.integers", lambda *a, **k: (drawn.append(integers(*a, **k)), drawn[-1])[1])
    terms = ours.loss(Batch(x), generator=Generator().manual_seed(1))
    monkeypatch.undo()
    terms["loss"].mean().backward()
    answers = drawn[-1]
    assert answers.shape == (5,)
    tiles = theirs.tiles(theirs.unit(x), Generator().manual_seed(1))
    each = []
    for puzzle, answer in zip(tiles, answers.tolist(), strict=True):
        shuffled = [puzzle[place] for place in theirs.permutations[answer].tolist()]
        features = torch.cat([theirs.of_tile(theirs.maps_of(tile[None]))[0] for tile in shuffled])
        logits = theirs.of_puzzle(features)
        each.append(logits.exp().sum().log() - logits[answer])
    expected = torch.stack(each)
    expected.mean().backward()
    assert torch.allclose(terms["loss"], expected, atol=1e-9)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert p.grad is not None, name
        assert q.grad is not None, name
        assert torch.allclose(p.grad, q.grad, rtol=1e-6, atol=1e-9), name


@pytest.mark.parametrize("net", ["nin-3", "conv-small", "wrn-28-2", "resnet18", "alexnet"])
def test_tiles_do_not_meet_in_a_normalisation(net: str) -> None:
    """Changing one tile changes the maps of no other one, also in training."""
    torch.manual_seed(0)
    side = 32 if net == "alexnet" else 12
    ours = Jigsaw(Event((1, 130, 130), LEVELS), **(SMALL | {"net": net, "patch": side, "width": 0.1})).train()
    assert not any(isinstance(m, BatchNorm | nn.BatchNorm2d) for m in ours.modules())
    x = torch.randn(9, 1, side, side, generator=Generator().manual_seed(0))
    other = x.clone()
    other[4] = -x[4]
    with torch.no_grad():
        before, after = ours.maps_of(x), ours.maps_of(other)
    rest = [n for n in range(9) if n != 4]
    assert torch.equal(before[rest], after[rest])
    assert not torch.allclose(before[4], after[4])


def test_chance_is_one_of_the_permutations_and_all_are_drawn() -> None:
    ours = model().eval()
    with torch.no_grad():
        last = ours.of_puzzle[-1]
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        last.bias.zero_()
        last.bias[3] = 1e-3
        terms = ours.loss(Batch(levels(1000)), generator=Generator())
    share = float(terms["accuracy"].mean())
    assert abs(share - 1 / 7) < 4 * math.sqrt(6 / 49 / 1000)
    assert abs(float(terms["loss"].mean()) - math.log(7)) < 1e-3


def test_the_set_is_fixed_and_saved(tmp_path: Path) -> None:
    one, other = Jigsaw(Event((1, 15, 15), LEVELS), **SMALL), model(15, channels=1)
    assert torch.equal(one.permutations, other.permutations)
    with torch.no_grad():
        one.permutations.copy_(one.permutations.flip(0))  # as another version might have chosen
    one.save(str(tmp_path / "model"))
    loaded = unsup.load(tmp_path / "model")
    assert torch.equal(loaded.permutations, one.permutations)


def test_tiles_lie_at_random_in_their_cells() -> None:
    grid = Jigsaw.grid_of(64)
    assert (grid.pitch, grid.slack, grid.extent) == (85, 21, 255)
    n = 4000
    corners = grid.corners(n, (255, 255), Generator().manual_seed(0), like=torch.zeros(()))
    rows = corners[0].view(n, 3, 3)
    for row in range(3):
        assert (int(rows[:, row].min()), int(rows[:, row].max())) == (85 * row, 85 * row + 21)
    assert abs(float(rows[:, 0].double().mean()) - 10.5) < 4 * math.sqrt((22**2 - 1) / 12 / (3 * n))


def test_each_channel_of_a_tile_has_the_same_moments() -> None:
    ours = model(60)
    tiles = ours.tiles(ours.unit(levels(20, 60)), Generator().manual_seed(0))
    assert tiles.shape == (20, 9, 3, 15, 15)
    assert float(tiles.mean((-2, -1)).abs().max()) < 1e-9
    assert torch.allclose(tiles.var((-2, -1), correction=0), torch.ones(20, 9, 3).double(), atol=1e-3)


def test_a_share_of_the_images_is_grey_and_colours_are_shifted() -> None:
    ours = model(96, patch=24)

    def equal_tiles(x: Tensor) -> Tensor:
        tiles = ours.tiles(x, Generator().manual_seed(0))
        return (tiles[:, :, 1:] == tiles[:, :, :1]).flatten(2).all(2).sum(1)  # of nine

    x = torch.rand(200, 3, 96, 96, dtype=torch.float64, generator=Generator().manual_seed(0))
    found = equal_tiles(x)
    grey_images = found == 9  # without coloured fringes
    assert bool((found[~grey_images] == 0).all())
    assert abs(float(grey_images.double().mean()) - 0.3) < 4 * math.sqrt(0.21 / 200)
    assert torch.equal(equal_tiles(x[:, :1].expand_as(x)) == 9, grey_images)  # colours that are equal are shifted, too
    small = model(20)  # tiles of 5 pixels have no room for it
    cut = small.cut(torch.arange(400.0).view(1, 1, 20, 20).expand(2, 3, -1, -1).double(), Generator().manual_seed(0))
    assert torch.equal(cut[:, :, 0], cut[:, :, 1])


def test_channels_move_apart_within_the_image() -> None:
    ours = model(255, patch=64)
    x = torch.arange(255.0 * 255).double().view(1, 1, 255, 255).expand(300, 3, -1, -1)
    found = ours.cut(x, Generator().manual_seed(0), apart=2)
    place = found[:, :, :, 0, 0].long()
    rows, columns = place // 255, place % 255
    assert int(rows.max()) == int(columns.max()) == 255 - 64
    assert int(rows.min()) == int(columns.min()) == 0
    apart = rows[:, :, 0] - rows[:, :, 1]
    assert int(apart.max()) == 4
    assert int(apart.min()) == -4
    assert torch.equal(found[:, :, :, -1, -1].long(), place + 63 * 256)


def test_dropout_is_that_of_training_only() -> None:
    ours = model(dropout=0.5)
    batch = Batch(levels(4))
    first, other = (ours.loss(batch, generator=Generator().manual_seed(seed))["loss"] for seed in (0, 0))
    assert torch.equal(first, other)
    plain = model(dropout=0.0)
    plain.load_state_dict(ours.state_dict())
    assert not torch.allclose(plain.loss(batch, generator=Generator().manual_seed(0))["loss"], first)
    ours.eval(), plain.eval()
    same = (own.loss(batch, generator=Generator().manual_seed(0))["loss"] for own in (ours, plain))
    assert torch.equal(*same)


def test_the_network_of_the_paper() -> None:
    ours = Jigsaw(Event((3, 255, 255), LEVELS), **Jigsaw.presets["paper"] | {"hidden": (16, 20)})
    shapes = [tuple(p.shape) for p in ours.backbone.parameters() if p.ndim == 4]
    middle = [(384, 256, 3, 3), (384, 192, 3, 3), (256, 192, 3, 3)]
    assert shapes == [(96, 3, 11, 11), (256, 48, 5, 5), *middle]  # two groups
    with torch.no_grad():
        x = torch.zeros(2, 3, 64, 64)
        assert [ours.backbone.maps(x, stage).shape[2] for stage in range(1, 6)] == [27, 13, 6, 6, 6]
        assert ours.maps_of(x).shape == (2, 256 * 3 * 3)
    assert [tuple(m.weight.shape) for m in ours.of_puzzle if isinstance(m, nn.Linear)] == [(20, 144), (100, 20)]
    assert (ours.grid.extent, len(ours.permutations)) == (255, 100)


@pytest.mark.parametrize(
    ("side", "options", "message"),
    [
        (14, {}, "takes images with sides of 15 or more: 3×3 patches of 4 pixels .* 3×14×14"),
        (32, {"patch": 9}, "3×3 patches of 9 pixels with their gaps need 33; use a smaller patch"),
        (40, {"net": "alexnet"}, "3×3 patches of 32 pixels with their gaps need 126; use another net"),
        (32, {"permutations": 2001}, "permutations=2001 should be from 2 to 2000"),
        (32, {"permutations": 1}, "permutations=1 should be from 2 to 2000"),
    ],
)
def test_what_does_not_fit_is_refused(side: int, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model(side, **options)


def test_tiles_scale_with_the_image() -> None:
    assert {side: model(side).grid.patch for side in (15, 28, 32, 64, 255)} == {15: 4, 28: 7, 32: 8, 64: 16, 255: 64}


def ramps(n: int, seed: int) -> Tensor:
    """Brightness grows to the right and below, under noise: tiles differ by their mean alone."""
    at = torch.arange(15)
    grain = torch.randint(0, 60, (n, 1, 15, 15), generator=Generator().manual_seed(seed))
    return (40 + 8 * at[:, None] + 3 * at + grain).to(torch.uint8)


@pytest.mark.parametrize("defended", [True, False])
def test_the_brightness_of_tiles_is_no_shortcut(defended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without normalisation the puzzle is solved by it; with that of each tile it is not."""
    if not defended:
        monkeypatch.setattr(Jigsaw, "normalised", lambda self, x: 4 * x - 2)
    torch.manual_seed(0)
    event, options = Event((1, 15, 15), LEVELS), {"permutations": 5, "width": 0.1, "hidden": (16, 32)}
    ours = Jigsaw(event, net="nin-3", **options)
    if not defended:
        without_normalisation(ours.backbone)
    noise_of = [Generator().manual_seed(step) for step in range(100)]
    learn(ours, lambda step: Batch(ramps(32, step)), 100, 5e-3, noise_of.__getitem__)
    with torch.no_grad():
        found = ours.loss(Batch(ramps(1000, 1000)), generator=Generator().manual_seed(0))["accuracy"].double()
    share = float(found.mean())
    assert (abs(share - 1 / 5) < 4 * math.sqrt(0.16 / 1000)) == defended
    assert defended or share > 0.8


def without_normalisation(net: nn.Module) -> None:
    """Group normalisations would hide the mean of a tile too."""
    for name, child in net.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(net, name, nn.Identity())
        without_normalisation(child)
