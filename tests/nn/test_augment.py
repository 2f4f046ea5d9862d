"""Random operations: distributions, independence of examples, recipes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from unsup.core.errors import InputError
from unsup.core.random import Rows, part_of_batch
from unsup.nn import augment as module
from unsup.nn.augment import (
    RECIPES,
    Affine,
    Blur,
    ColourJitter,
    Cutout,
    Flip,
    Gain,
    Greyscale,
    Noise,
    Operation,
    PadCrop,
    RandAugment,
    Recipe,
    ResizedCrop,
    Shift,
    Solarise,
    SoundCrop,
    augment,
)
from unsup.prob import colour, warps
from unsup.testing.laws.sharing import NoBareDraws

IMAGE_OPERATIONS: list[Operation] = [
    ResizedCrop(),
    PadCrop(3),
    PadCrop(3, "zeros", flip=0),
    Flip(),
    ColourJitter(0.8, 0.8, 0.8, 0.2, probability=0.8),
    Greyscale(0.4),
    Blur(),
    Solarise(0.4),
    Cutout(),
    Affine(30, 0.2, (0.7, 1.3), 0.3, probability=0.7),
    RandAugment(3, 12),
    RandAugment(2, None),
]
SOUND_OPERATIONS: list[Operation] = [Gain(), Noise(), Shift(0.3), Shift(0.3, circular=True), SoundCrop(30)]
EVERY = [*IMAGE_OPERATIONS, *SOUND_OPERATIONS, *RECIPES.values()]


def name_of(what: Operation | Recipe) -> str:
    return what.name if isinstance(what, Recipe) else str(what)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def examples(what: Operation | Recipe, n: int = 12, seed: int = 7) -> Tensor:
    if what.kind == "sound":
        return torch.randn(n, 50, generator=generator(seed))
    return torch.rand(n, 3, 11, 12, generator=generator(seed))


def views(what: Operation | Recipe, x: Tensor, seed: int = 0) -> Tensor:
    return augment(x, what if isinstance(what, Recipe) else Recipe("own", "", "", (what,), what.kind), generator(seed))


# --- every operation and every recipe -----------------------------------------------------------------------------


@pytest.mark.parametrize("what", EVERY, ids=name_of)
def test_views_depend_on_the_key_and_the_example_only(what):
    x = examples(what)
    found = views(what, x)
    assert found.dtype == x.dtype
    assert found.shape == ((12, 30) if isinstance(what, SoundCrop) else x.shape)
    assert torch.equal(found, views(what, x))
    if not (isinstance(what, Recipe) and not what.operations):
        assert not torch.equal(found, views(what, x, seed=1))
    if what.kind == "images":
        assert float(found.min()) >= 0
        assert float(found.max()) <= 1
    other = examples(what, seed=8)
    other[4] = x[4]
    assert torch.allclose(views(what, other)[4], found[4], atol=1e-6)


@pytest.mark.parametrize("what", EVERY, ids=name_of)
@pytest.mark.parametrize("ends", [(5, 12), (4, 8, 12), tuple(range(1, 13))], ids=str)
def test_parts_of_a_batch_have_the_views_of_the_whole(what, ends):
    """Processes and parts of an accumulated batch, down to batches of one example."""
    x = examples(what)
    whole, parts = views(what, x), []
    for start, end in zip((0, *ends), ends, strict=False):
        with part_of_batch(Rows(len(x), start, end - start)):
            parts.append(views(what, x[start:end]))
    assert torch.allclose(torch.cat(parts), whole, atol=1e-6)


@pytest.mark.parametrize("what", EVERY, ids=name_of)
def test_all_draws_know_the_rows(what):
    x, g = examples(what), generator()
    with NoBareDraws():
        augment(x, what if isinstance(what, Recipe) else Recipe("own", "", "", (what,), what.kind), g)


@pytest.mark.parametrize("what", EVERY, ids=name_of)
def test_views_have_a_gradient(what):
    x = examples(what).requires_grad_(True)
    (gradient,) = torch.autograd.grad(views(what, x).sum(), x)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().sum()) > 0


@pytest.mark.parametrize(
    "what",
    [ResizedCrop(), ColourJitter(0.3, 0.3, 0.3, 0.2), Blur(), Affine(30, 0.1), Gain(), Noise(probability=1)],
    ids=str,
)
def test_gradients_are_those_of_the_view(what):
    shape = (2, 12) if what.kind == "sound" else (2, 3, 4, 5)
    x = (0.2 + 0.4 * torch.rand(shape, generator=generator(3), dtype=torch.float64)).requires_grad_(True)
    assert gradcheck(lambda x: what(x, generator()), x)


@pytest.mark.parametrize(
    "what",
    [
        PadCrop(0, flip=0),
        Flip(0),
        ColourJitter(0, 0, 0, 0),
        ColourJitter(0.9, 0.9, 0.9, 0.5, probability=0),
        Greyscale(0),
        Blur((0, 0), 1),
        Blur(probability=0),
        Solarise(0),
        Cutout(0),
        RandAugment(0),
        Gain((0, 0)),
        Noise(probability=0),
        Shift(0),
        Shift(0, circular=True),
        SoundCrop(50),
        RECIPES["none"],
    ],
    ids=name_of,
)
def test_strength_zero_changes_nothing(what):
    x = examples(what)
    assert torch.equal(views(what, x), x)


@pytest.mark.parametrize("what", [ResizedCrop((1, 1), (1, 1), flip=0), Affine()], ids=str)
def test_interpolation_at_the_pixels_changes_nothing(what):
    x = torch.rand(6, 3, 16, 16, generator=generator())
    assert torch.allclose(views(what, x), x, atol=1e-5)


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if r.kind == "images"])
def test_grey_images_skip_colour(name):
    """The view of a grey image is that of the same image in three equal channels."""
    x = torch.rand(40, 1, 16, 16, generator=generator())
    found = augment(x, name, generator())
    assert found.shape == x.shape
    assert torch.allclose(augment(x.expand(-1, 3, -1, -1), name, generator()), found.expand(-1, 3, -1, -1), atol=3e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_types_are_kept(dtype):
    found = augment(torch.rand(4, 3, 16, 16).to(dtype), "simclr", generator())
    assert found.dtype == dtype
    x = torch.rand(4, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        inside = augment(x, "moco-v2", generator())
    assert torch.equal(inside, augment(x, "moco-v2", generator()))


def test_no_operation_takes_any_examples():
    for x in (torch.rand(3, 50), torch.rand(3, 5, 8, 8), 9 * torch.rand(3, 1, 8, 8)):
        assert torch.equal(augment(x, "none", generator()), x)


def test_an_empty_batch_has_no_views():
    assert augment(torch.rand(0, 3, 16, 16), "simclr", generator()).shape == (0, 3, 16, 16)


# --- distributions ------------------------------------------------------------------------------------------------

MANY = 20_000


def holds(count: float, n: int, probability: float) -> None:
    """A count of n draws, within four standard errors."""
    assert abs(count / n - probability) < 4 * math.sqrt(probability * (1 - probability) / n) + 1e-9


def ramp(n: int, size: int = 24) -> Tensor:
    """Images whose first channel is the row and whose second is the column, from 0 to 1."""
    steps = torch.linspace(0, 1, size, dtype=torch.float64)
    planes = torch.stack([steps[:, None].expand(size, size), steps.expand(size, size), torch.zeros(size, size)])
    return planes.expand(n, -1, -1, -1)


def test_crops_have_the_distribution_of_a_loop():
    """Area, aspect and place compared with rectangles drawn one by one, as in torchvision; flips are half."""
    size, area = 24, (0.08, 1.0)
    found = ResizedCrop(area)(ramp(MANY, size), generator()) * (size - 1)
    first, last = found[:, 1, 0, 0], found[:, 1, 0, -1]
    top, height = found[:, 0, 0, 0], found[:, 0, -1, 0] - found[:, 0, 0, 0] + 1
    left, width = torch.minimum(first, last), (first - last).abs() + 1
    flipped = last < first
    wide = width > 1
    holds(int(flipped[wide].sum()), int(wide.sum()), 0.5)
    rectangles = torch.stack([top, left, height, width], 1)
    assert torch.allclose(rectangles, rectangles.round(), atol=1e-5)

    g = torch.Generator().manual_seed(1)
    expected = []
    for _ in range(MANY // 4):
        for _ in range(10):
            share, log_aspect = torch.rand(2, generator=g).tolist()
            target = size * size * (area[0] + (area[1] - area[0]) * share)
            aspect = math.exp(math.log(3 / 4) + log_aspect * (math.log(4 / 3) - math.log(3 / 4)))
            w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
            if 0 < w <= size and 0 < h <= size:
                i = int(torch.randint(0, size - h + 1, (1,), generator=g))
                j = int(torch.randint(0, size - w + 1, (1,), generator=g))
                break
        else:
            i, j, h, w = 0, 0, size, size
        expected.append((i, j, h, w))
    reference = torch.tensor(expected, dtype=torch.float64)
    for f in (
        lambda r: r[:, 2] * r[:, 3],
        lambda r: (r[:, 2] * r[:, 3]) ** 2,
        lambda r: (r[:, 3] / r[:, 2]).log(),
        lambda r: (r[:, 3] / r[:, 2]).log() ** 2,
        lambda r: r[:, 0],
        lambda r: r[:, 0] ** 2,
        lambda r: r[:, 1],
        lambda r: r[:, 0] * r[:, 1],
    ):
        a, b = f(rectangles), f(reference)
        assert abs(float(a.mean() - b.mean())) < 4 * math.sqrt(float(a.var() / len(a) + b.var() / len(b)))


def test_a_crop_that_never_fits_is_in_the_middle():
    """The largest rectangle in the middle with an allowed aspect."""
    x = torch.arange(40.0).expand(8, 1, 2, 40) / 39
    found = ResizedCrop((1.0, 1.0), flip=0)(x, generator()) * 39
    assert torch.allclose(found[..., 0], torch.full((8, 1, 2), 18.0), atol=1e-4)
    assert torch.allclose(found[..., -1], torch.full((8, 1, 2), 20.0), atol=1e-4)


def test_shifts_are_uniform_and_flips_are_half():
    x = ramp(MANY, 9)
    found = PadCrop(1)(x, generator())
    down = 4 - (found[:, 0, 4, 4] * 8).round()
    flipped = found[:, 1, 4, 5] < found[:, 1, 4, 3]
    right = 4 - (found[:, 1, 4, 4] * 8).round()
    holds(int(flipped.sum()), MANY, 0.5)
    for k in (-1, 0, 1):
        holds(int((down == k).sum()), MANY, 1 / 3)
        holds(int((right == k).sum()), MANY, 1 / 3)
        holds(int(((down == k) & (right == 1)).sum()), MANY, 1 / 9)
    holds(int((Flip(0.3)(x, generator())[:, 1, 0, 0] > 0.5).sum()), MANY, 0.3)


def test_jitter_is_a_loop_over_images():
    """The same draws applied to one image after the other; all orders are equally likely."""
    x = torch.rand(MANY, 3, 2, 2, generator=generator(5), dtype=torch.float64)
    jitter = ColourJitter(0.4, 0.3, 0.2, 0.1, probability=0.8)
    found = jitter(x, generator())
    g = generator()
    factors = 1 + torch.tensor([0.4, 0.3, 0.2]).double() * (2 * torch.rand(MANY, 3, generator=g, dtype=x.dtype) - 1)
    turns = 0.1 * (2 * torch.rand(MANY, generator=g, dtype=x.dtype) - 1)
    order = torch.rand(MANY, 3, generator=g, dtype=x.dtype).argsort(1)
    place = torch.randint(0, 4, (MANY,), generator=g)
    chosen = torch.rand(MANY, generator=g, dtype=x.dtype) < 0.8
    holds(int(chosen.sum()), MANY, 0.8)
    seen: dict[tuple[int, ...], int] = {}
    for n in range(MANY):
        sequence = order[n].tolist()
        sequence.insert(int(place[n]), 3)
        seen[tuple(sequence)] = seen.get(tuple(sequence), 0) + 1
        if n >= 60:
            continue
        one = x[n]
        for what in sequence if chosen[n] else ():
            grey = 0.299 * one[0] + 0.587 * one[1] + 0.114 * one[2]
            if what == 3:
                one = colour.hue_turned(one[None], turns[n : n + 1])[0]  # compared with colorsys in its own test
            else:
                base = (torch.zeros(()), grey.mean(), grey)[what]
                one = (factors[n, what] * one + (1 - factors[n, what]) * base).clamp(0, 1)
        assert torch.allclose(found[n], one, atol=1e-10)
    assert len(seen) == 24
    for count in seen.values():
        holds(count, MANY, 1 / 24)


def test_probabilities_of_the_recipes_hold():
    x = torch.rand(MANY, 3, 20, 20, generator=generator(2))

    def changed(what: Operation) -> int:
        return int((what(x, generator()) - x).abs().flatten(1).amax(1).gt(1e-6).sum())

    for name, kind, probability in (
        ("simclr", Greyscale, 0.2),
        ("simclr", Blur, 0.5),
        ("simclr", ColourJitter, 0.8),
        ("simclr-small", ColourJitter, 0.8),
        ("moco-v1", Greyscale, 0.2),
        ("moco-v1", ColourJitter, 1.0),
        ("moco-v2", Blur, 0.5),
        ("byol-first", Blur, 1.0),
        ("byol-second", Blur, 0.1),
        ("byol-second", Solarise, 0.2),
    ):
        (operation,) = (o for o in RECIPES[name].operations if isinstance(o, kind))
        if isinstance(operation, Blur):
            operation = replace(operation, sigma=(1.0, 2.0))  # narrower ones hardly change the image
        holds(changed(operation), MANY, probability)


def test_constants_of_the_recipes():
    """Those of the papers, in the order of the operations."""
    jitters = {
        "simclr": (0.8, 0.8, 0.8, 0.2, 0.8),
        "simclr-small": (0.4, 0.4, 0.4, 0.1, 0.8),
        "moco-v1": (0.4, 0.4, 0.4, 0.4, 1.0),
        "moco-v2": (0.4, 0.4, 0.4, 0.1, 0.8),
        "byol-first": (0.4, 0.4, 0.2, 0.1, 0.8),
        "byol-second": (0.4, 0.4, 0.2, 0.1, 0.8),
    }
    for name, expected in jitters.items():
        (j,) = (o for o in RECIPES[name].operations if isinstance(o, ColourJitter))
        assert (j.brightness, j.contrast, j.saturation, j.hue, j.probability) == expected
        crop = RECIPES[name].operations[0]
        assert isinstance(crop, ResizedCrop)
        assert crop.area == ((0.2, 1.0) if name.startswith("moco") else (0.08, 1.0))
        blurs = [o.sigma for o in RECIPES[name].operations if isinstance(o, Blur)]
        assert blurs == ([] if name in ("simclr-small", "moco-v1") else [(0.1, 2.0)])
    assert RECIPES["crop"].operations == (ResizedCrop((0.2, 1.0)),)
    assert [module._radius(n) for n in (8, 32, 64, 96, 224)] == [1, 1, 3, 4, 11]


def test_randaugment_draws_every_operation_of_its_list_equally(monkeypatch):
    """How often each is called, with the magnitude of each."""
    seen: list[tuple[int, int, Tensor]] = []

    def noted(members, apply):
        def call(x, which, sign, strength):
            assert bool(((which >= 0) & (which < len(members))).all())
            seen.extend((members.start + int(k), int(s), m) for k, s, m in zip(which, sign, strength, strict=True))
            return apply(x, which, sign, strength)

        return call

    monkeypatch.setattr(module, "_TOGETHER", tuple((noted(m, a), m) for a, m in module._TOGETHER))
    n = 4_000
    RandAugment(2, 15)(torch.rand(n, 1, 6, 6), generator())
    for k in range(13):
        holds(sum(w == k for w, _, _ in seen), 2 * n, 1 / 14)
    holds(len(seen), 2 * n, 13 / 14)
    holds(sum(s == 1 for _, s, _ in seen), len(seen), 0.5)
    assert {float(m) for _, _, m in seen} == {0.5}
    seen.clear()
    RandAugment(1, None)(torch.rand(n, 1, 6, 6), generator())
    strengths = torch.stack([m for _, _, m in seen])
    assert abs(float(strengths.mean()) - 0.5) < 4 / math.sqrt(12 * len(strengths))
    assert len(module._LIST) == 14


@pytest.mark.parametrize("magnitude", [0.0, 9.0, 30.0])
def test_randaugment_is_a_loop_over_images(magnitude):
    x = (torch.rand(200, 3, 10, 14, generator=generator(5), dtype=torch.float64) * 255).round() / 255
    x[..., 0, 0] = 1
    found = RandAugment(1, magnitude)(x, generator())
    g = generator()
    what, sign = torch.randint(0, 14, (200,), generator=g), 2.0 * torch.randint(0, 2, (200,), generator=g) - 1
    m = magnitude / 30
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)

    def moved(x, angle=zero, right=zero, down=zero, shear_x=zero, shear_y=zero):
        return warps.affine(x, warps.affine_source(angle, right, down, one, shear_x, shear_y), 0.5)

    for n in range(200):
        s, name = float(sign[n]), module._LIST[int(what[n])]
        factor = one * (1 + 0.9 * s * m)
        expected = {
            "rotate": lambda x, s=s: moved(x, angle=one * s * 30 * m),
            "shear x": lambda x, s=s: moved(x, shear_x=one * s * 0.3 * m),
            "shear y": lambda x, s=s: moved(x, shear_y=one * s * 0.3 * m),
            "translate x": lambda x, s=s: moved(x, right=one * s * 14 * 150 / 331 * m),
            "translate y": lambda x, s=s: moved(x, down=one * s * 10 * 150 / 331 * m),
            "brightness": lambda x, f=factor: colour.blended(x, zero.view(1, 1, 1, 1), f),
            "contrast": lambda x, f=factor: colour.blended(x, colour.grey(x).mean().view(1, 1, 1, 1), f),
            "colour": lambda x, f=factor: colour.blended(x, colour.grey(x), f),
            "sharpness": lambda x, f=factor: colour.sharpened(x, f),
            "posterise": lambda x: colour.posterised(x, one * {0.0: 8, 9.0: 7, 30.0: 4}[magnitude]),
            "solarise": lambda x: colour.solarised(x, one * 256 * (1 - m) / 255),
            "autocontrast": colour.autocontrasted,
            "equalise": colour.equalised,
            "identity": lambda x: x,
        }[name](x[n : n + 1])
        assert torch.allclose(found[n : n + 1], expected, atol=1e-9), name
        if magnitude == 0 and name not in ("autocontrast", "equalise"):
            assert torch.allclose(found[n], x[n], atol=1e-9), name


def test_cutout_is_anywhere():
    found = Cutout(0.5)(torch.zeros(MANY, 1, 6, 8), generator())
    assert set(found.unique().tolist()) == {0.0, 0.5}
    rows, columns = found[:, 0].amax(2).gt(0).sum(1), found[:, 0].amax(1).gt(0).sum(1)
    assert set(rows.tolist()) == {2, 3}  # middles 0 … 5 of 3 rows
    holds(int((rows == 2).sum()), MANY, 2 / 6)
    assert set(columns.tolist()) == {2, 3, 4}


def test_affine_draws_stay_in_their_ranges():
    x = ramp(2_000, 25)
    moved = Affine(shift=0.2)(x, generator())[:, :, 12, 12] * 24 - 12
    assert float(moved[:, :2].abs().max()) <= 5 + 1e-6
    assert abs(float(moved[:, :2].mean())) < 4 * 5 / math.sqrt(3 * 4_000)
    scaled = Affine(scale=(0.8, 1.25))(x, generator())
    factors = 2 / ((scaled[:, 0, 13, 12] - scaled[:, 0, 11, 12]) * 24)
    assert 0.8 - 1e-6 <= float(factors.min()) < 0.81
    assert 1.24 < float(factors.max()) <= 1.25 + 1e-6


def test_sound():
    x = torch.randn(MANY, 50, generator=generator(3), dtype=torch.float64)
    gains = 20 * (Gain((-6, 6))(x, generator()) / x)[:, 0].log10()
    assert -6 <= float(gains.min()) < -5.9
    assert 5.9 < float(gains.max()) <= 6
    assert abs(float(gains.mean())) < 4 * 6 / math.sqrt(3 * MANY)

    x = 0.3 * x
    noise = Noise((20, 20), probability=0.5)(x, generator()) - x
    noisy = noise.abs().amax(1) > 0
    holds(int(noisy.sum()), MANY, 0.5)
    ratio = noise[noisy].square().mean(1) / x[noisy].square().mean(1)
    assert abs(float(ratio.mean()) - 0.01) < 4 * float(ratio.std()) / math.sqrt(len(ratio))
    silence = Noise(probability=1)(torch.zeros(3, 50), generator())
    assert float(silence.abs().max()) < 1e-15

    ramp = torch.arange(1.0, 51).expand(MANY, 50)
    for circular in (True, False):
        found = Shift(0.1, circular)(ramp, generator())
        later = 25 - found[:, 24].long()
        for k in range(-5, 6):
            holds(int((later == k).sum()), MANY, 1 / 11)
            expected = ramp[0].roll(k)
            if not circular:
                expected[: max(0, k)] = 0
                expected[50 + min(0, k) :] = 0
            assert bool((found[later == k] == expected).all())
    starts = SoundCrop(40)(ramp, generator())
    assert torch.equal(starts, starts[:, :1] + torch.arange(40))
    for k in range(1, 12):
        holds(int((starts[:, 0] == k).sum()), MANY, 1 / 11)


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "recipe", "expected"),
    [
        (torch.rand(2, 3, 8, 8), "simcrl", "'simclr'"),
        (torch.rand(2, 4, 8, 8), "simclr", "1 or 3 channels"),
        (torch.rand(2, 8, 8), "crop", "1 or 3 channels"),
        (torch.rand(2, 3, 8, 8), "sound", "one channel"),
        (torch.rand(2, 3, 4, 8), "crop-flip", "4×8 pixels; expected at least 5×5"),
        (torch.rand(2, 3, 1, 8), "simclr", "expected at least 2×2"),
        (torch.rand(2, 20), Recipe("own", "", "", (SoundCrop(30),), "sound"), "at least 30"),
        (255 * torch.rand(2, 3, 8, 8), "simclr", "expected [0, 1]"),
        (torch.rand(2, 3, 8, 8) - 0.5, "crop", "expected [0, 1]"),
        (torch.full((2, 3, 8, 8), math.nan), "crop", "expected [0, 1]"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "crop", "floating"),
        ([[0.5]], "crop", "a list"),
    ],
)
def test_bad_input_is_one_line(x, recipe, expected):
    with pytest.raises(InputError) as error:
        augment(x, recipe, generator())
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_randaugment_checks_its_magnitude():
    with pytest.raises(InputError, match="0 to 30"):
        RandAugment(2, 31)


def test_names_and_sources_of_the_recipes():
    assert list(RECIPES) == [recipe.name for recipe in RECIPES.values()]
    for recipe in RECIPES.values():
        assert recipe.summary
        assert recipe.source or not recipe.operations
        assert all(operation.kind == recipe.kind for operation in recipe.operations)
