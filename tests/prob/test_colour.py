"""Colours and levels against Pillow, colorsys and loops."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch.autograd import gradcheck

from unsup.prob import colour

ONE_LEVEL = 1 / 255
FACTORS = torch.tensor([0.0, 0.3, 1.0, 1.4, 1.9], dtype=torch.float64)


def images(n: int = 5, channels: int = 3, size: int = 9, seed: int = 0) -> torch.Tensor:
    """Images of 256 levels, the second with few of them, the third of one level in each channel."""
    g = np.random.default_rng(seed)
    levels = g.integers(0, 256, (n, channels, size, size + 2))
    levels[1] = g.integers(90, 97, levels[1].shape)
    levels[2] = np.array([30, 200, 77])[:channels, None, None]
    return torch.from_numpy(levels / 255)


def pillow(x: torch.Tensor) -> list[Image.Image]:
    levels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(one[..., 0] if one.shape[2] == 1 else np.ascontiguousarray(one)) for one in levels]


def tensor(found: list[Image.Image]) -> torch.Tensor:
    rows = [np.asarray(one) if one.mode == "RGB" else np.asarray(one)[..., None] for one in found]
    return torch.from_numpy(np.stack(rows) / 255).permute(0, 3, 1, 2)


def test_grey_is_that_of_pillow():
    expected = tensor([one.convert("L") for one in pillow(images())])
    assert (colour.grey(images()) - expected).abs().max() <= 0.51 * ONE_LEVEL
    assert torch.equal(colour.without_colour(images())[:, 0], colour.without_colour(images())[:, 2])


@pytest.mark.parametrize(
    ("what", "enhance"),
    [
        (colour.BRIGHTNESS, ImageEnhance.Brightness),
        (colour.CONTRAST, ImageEnhance.Contrast),
        (colour.SATURATION, ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_blends_are_those_of_pillow(what, enhance, channels):
    """Pillow rounds the grey image or its mean, and the result."""
    x = images(channels=channels)
    found = colour.adjusted(x, FACTORS, torch.full((5,), what))
    expected = tensor([enhance(one).enhance(f) for one, f in zip(pillow(x), FACTORS.tolist(), strict=True)])
    if channels == 1 and what == colour.SATURATION:
        expected = x
    assert (found - expected).abs().max() <= 1.6 * ONE_LEVEL
    assert torch.equal(found[2], x[2])  # a factor of 1 changes nothing


def test_each_image_has_its_own_blend():
    """The formulas in a loop, in float64."""
    x, what = images(), torch.tensor([0, 1, 2, 1, 0])
    for found, one, f, kind in zip(colour.adjusted(x, FACTORS, what), x, FACTORS, what.tolist(), strict=True):
        grey = 0.299 * one[0] + 0.587 * one[1] + 0.114 * one[2]
        base = (torch.zeros(()), grey.mean(), grey)[kind]
        assert torch.allclose(found, (f * one + (1 - f) * base).clamp(0, 1), atol=1e-14)
    assert torch.allclose(
        colour.blended(x, colour.grey(x), FACTORS), colour.adjusted(x, FACTORS, torch.full((5,), colour.SATURATION))
    )


def test_sharpness_is_that_of_pillow():
    x = images()
    found = colour.sharpened(x, FACTORS)
    expected = tensor([ImageEnhance.Sharpness(o).enhance(f) for o, f in zip(pillow(x), FACTORS.tolist(), strict=True)])
    assert (found - expected).abs().max() <= 2 * ONE_LEVEL
    assert torch.equal(found[2], x[2])
    smooth, one = colour.sharpened(x, torch.zeros(5)), x[0, 1]
    assert smooth[0, 1, 4, 5].item() == pytest.approx(float(one[3:6, 4:7].sum() + 4 * one[4, 5]) / 13, abs=1e-12)
    assert torch.equal(smooth[..., 0, :], x[..., 0, :])
    assert torch.equal(colour.sharpened(x[..., :2], FACTORS), x[..., :2])


@pytest.mark.parametrize("turns", [-0.5, -0.13, 0.0, 0.2, 0.5, 1.0])
def test_hue_is_that_of_colorsys(turns):
    x = images()
    x[3, :, 0, :3] = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=torch.float64).T.flip(1)  # pure colours
    x[3, :, 1, 0] = 0
    found = colour.hue_turned(x, torch.full((5,), turns))
    for n in range(5):
        for i, j in np.ndindex(*x.shape[2:]):
            h, s, v = colorsys.rgb_to_hsv(*x[n, :, i, j].tolist())
            assert found[n, :, i, j].tolist() == pytest.approx(colorsys.hsv_to_rgb((h + turns) % 1, s, v), abs=1e-7)


def test_grey_pixels_have_no_hue():
    x = images(channels=1)
    assert torch.equal(colour.hue_turned(x, FACTORS), x)
    assert torch.equal(colour.hue_turned(x.expand(-1, 3, -1, -1), FACTORS), x.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("channels", [1, 3])
def test_levels_are_those_of_pillow(channels):
    x = images(channels=channels)
    thresholds, bits = [0, 100, 128, 200, 256], [1, 3, 4, 7, 8]
    found = colour.solarised(x, torch.tensor(thresholds) / torch.tensor(255, dtype=torch.float64))
    solarised = [ImageOps.solarize(one, t) for one, t in zip(pillow(x), thresholds, strict=True)]
    assert torch.allclose(found, tensor(solarised), atol=1e-12)
    posterised = [ImageOps.posterize(one, b) for one, b in zip(pillow(x), bits, strict=True)]
    assert torch.allclose(colour.posterised(x, torch.tensor(bits)), tensor(posterised), atol=1e-12)
    equalised = [ImageOps.equalize(one) for one in pillow(x)]
    assert torch.allclose(colour.equalised(x), tensor(equalised), atol=1e-12)
    large = images(channels=channels, size=40)  # more than 255 pixels per channel
    assert torch.allclose(colour.equalised(large), tensor([ImageOps.equalize(o) for o in pillow(large)]), atol=1e-12)
    assert not torch.equal(colour.equalised(large), large)
    contrasted = tensor([ImageOps.autocontrast(one) for one in pillow(x)])
    assert (colour.autocontrasted(x) - contrasted).abs().max() <= 1.01 * ONE_LEVEL


def test_values_stay_in_the_unit_interval():
    x = images().float()
    x[0] = 1.0
    x[1] = 0.0
    for found in (
        *(colour.adjusted(x, FACTORS * 2, torch.full((5,), kind)) for kind in range(3)),
        *(colour.hue_turned(x, torch.full((5,), t)) for t in (0.1, 0.37, -0.5)),
        colour.without_colour(x),
        colour.sharpened(x, FACTORS * 2),
        colour.autocontrasted(x),
        colour.equalised(x),
        colour.posterised(x, torch.full((5,), 3)),
        colour.solarised(x, FACTORS / 2),
    ):
        assert found.shape == x.shape
        assert float(found.min()) >= 0
        assert float(found.max()) <= 1


def test_gradients_are_those_of_the_formulas():
    x = 0.1 + 0.5 * torch.rand(3, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_(True)
    factors, turns = torch.tensor([0.5, 1.2, 0.9]).double(), torch.tensor([0.11, -0.3, 0.42]).double()
    assert gradcheck(lambda x: colour.adjusted(x, factors, torch.tensor([0, 1, 2])), x)
    assert gradcheck(lambda x: colour.hue_turned(x, turns), x)
    assert gradcheck(lambda x: colour.sharpened(x, factors), x)
    assert gradcheck(colour.autocontrasted, x)
    assert gradcheck(lambda x: colour.solarised(x, factors), x)
    assert not colour.posterised(x, torch.tensor([3, 4, 5])).requires_grad
    assert not colour.equalised(x).requires_grad
