"""Movements of images against NumPy, Pillow, SciPy and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.autograd import gradcheck

from unsup.prob import warps


def images(n: int = 4, channels: int = 2, height: int = 9, width: int = 12) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, channels, height, width, dtype=torch.float64, generator=g)


DOWN, RIGHT = torch.tensor([0, 3, -3, 1]), torch.tensor([0, -2, 4, -4])
FLIP = torch.tensor([True, False, True, False])


@pytest.mark.parametrize("border", ["reflect", "zeros"])
def test_shifts_are_pads_and_crops(border):
    x, pad = images(), 4
    found = warps.shifted(x, DOWN, RIGHT, border, FLIP)
    mode = {"mode": "reflect"} if border == "reflect" else {"mode": "constant"}
    for y, one, down, right, flip in zip(found, x, DOWN.tolist(), RIGHT.tolist(), FLIP.tolist(), strict=True):
        wide = np.pad(one.numpy(), ((0, 0), (pad, pad), (pad, pad)), **mode)
        cut = wide[:, pad - down : pad - down + 9, pad - right : pad - right + 12]
        assert np.array_equal(y.numpy(), cut[:, :, ::-1] if flip else cut)


def test_flips_are_exact():
    x = images().float()
    assert torch.equal(warps.flipped(x, FLIP)[FLIP], x[FLIP].flip(3))
    assert torch.equal(warps.flipped(x, FLIP)[~FLIP], x[~FLIP])
    assert torch.equal(warps.flipped(warps.flipped(x, FLIP), FLIP), x)


def test_crops_are_those_of_pillow():
    """Pillow resizes with an antialiasing filter, which changes nothing when images are enlarged."""
    x = images().float()
    top, left = torch.tensor([0, 2, 5, 0]), torch.tensor([0, 1, 7, 3])
    height, width = torch.tensor([9, 4, 1, 9]), torch.tensor([12, 11, 3, 5])
    found = warps.resized_crop(x, top, left, height, width, FLIP)
    for n in range(4):
        i, j, h, w = (int(v[n]) for v in (top, left, height, width))
        for channel in range(2):
            cut = Image.fromarray(x[n, channel, i : i + h, j : j + w].numpy().copy())
            expected = np.asarray(cut.resize((12, 9), Image.Resampling.BILINEAR))
            expected = expected[:, ::-1] if FLIP[n] else expected
            assert np.abs(found[n, channel].numpy() - expected).max() < 2e-6
    whole = torch.zeros(4), torch.zeros(4), torch.full((4,), 9), torch.full((4,), 12)
    assert torch.allclose(warps.resized_crop(x, *whole), x, atol=1e-5)
    assert torch.allclose(warps.resized_crop(x, *whole, FLIP), warps.flipped(x, FLIP), atol=1e-5)


def affine_loop(x: np.ndarray, angle, right, down, scale, shear_x, shear_y, fill) -> np.ndarray:
    """The map of `warps.affine_source` from its definition, sampled by SciPy."""
    a = np.deg2rad(angle)
    rotation = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])  # of (u, v), v is down
    forward = scale * rotation @ np.array([[1, shear_x], [shear_y, 1]])
    back = np.linalg.inv(forward)[::-1, ::-1]  # of (row, column)
    middle = (np.array(x.shape) - 1) / 2
    offset = middle - back @ (middle + np.array([down, right]))
    return ndimage.affine_transform(x, back, offset, order=1, mode="grid-constant", cval=fill)


@pytest.mark.parametrize(
    "values",
    [
        (0, 0, 0, 1, 0, 0),
        (30, 0, 0, 1, 0, 0),
        (0, 2.3, -1.6, 1, 0, 0),
        (0, 0, 0, 1.3, 0, 0),
        (0, 0, 0, 1, 0.3, 0),
        (0, 0, 0, 1, 0, -0.3),
        (-77, 1.1, 0.4, 0.8, 0.2, 0.3),
    ],
)
def test_affine_maps_are_those_of_scipy(values):
    x = images()
    source = warps.affine_source(*(torch.full((4,), float(v), dtype=torch.float64) for v in values))
    found = warps.affine(x, source, 0.5)
    for n, channel in np.ndindex(4, 2):
        expected = affine_loop(x[n, channel].numpy(), *values, 0.5)
        assert np.abs(found[n, channel].numpy() - expected).max() < 1e-10


def test_a_quarter_turn_is_exact_and_counter_clockwise():
    x = images(width=9)
    zero, one = torch.zeros(4), torch.ones(4)
    found = warps.affine(x, warps.affine_source(90 * one, zero, zero, one, zero, zero), 0.0)
    assert torch.allclose(found, x.rot90(1, (2, 3)), atol=1e-5)


def test_blur_is_that_of_scipy():
    x, sigma = images(), torch.tensor([0.1, 0.7, 1.5, 3.0], dtype=torch.float64)
    found = warps.blurred(x, sigma, 4)
    for n, channel in np.ndindex(4, 2):
        expected = ndimage.gaussian_filter(x[n, channel].numpy(), float(sigma[n]), mode="mirror", radius=4)
        assert np.abs(found[n, channel].numpy() - expected).max() < 1e-12
    assert torch.equal(warps.blurred(x, torch.zeros(4), 4), x)


def test_covered_rectangles():
    x, row, column = images(), torch.tensor([0, 4, 8, 3]), torch.tensor([11, 5, 0, 6])
    found = warps.covered(x, row, column, 4, 5, 0.5)
    expected = x.clone()
    for n in range(4):
        top, left = int(row[n]) - 2, int(column[n]) - 2
        expected[n, :, max(0, top) : top + 4, max(0, left) : left + 5] = 0.5
    assert torch.equal(found, expected)


def test_gradients_are_those_of_the_formulas():
    x = images(3, 1, 5, 6).requires_grad_(True)
    zero, one = torch.zeros(3), torch.ones(3)
    source = warps.affine_source(torch.tensor([10.0, -20, 45]), one, zero, one, 0.1 * one, zero)
    assert gradcheck(lambda x: warps.affine(x, source, 0.5), x)
    assert gradcheck(lambda x: warps.resized_crop(x, one, zero, 3 * one, 4 * one, FLIP[:3]), x)
    assert gradcheck(lambda x: warps.blurred(x, torch.tensor([0.5, 1, 2]), 2), x)
    assert gradcheck(lambda x: warps.shifted(x, DOWN[:3], RIGHT[:3], "reflect", FLIP[:3]), x)
    assert gradcheck(lambda x: warps.covered(x, DOWN[:3].abs(), RIGHT[:3].abs(), 2, 3, 0.5), x)
    assert gradcheck(lambda x: warps.flipped(x, FLIP[:3]), x)
