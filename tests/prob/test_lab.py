"""Colours against loops over the formulas of the CIE and published values; bins against a search in the gamut."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull, cKDTree

from unsup.prob.lab import (
    GRID,
    ab_bins,
    annealed_mean,
    class_weights,
    from_lab,
    into_gamut,
    lab_of_linear,
    lightness_bin,
    linear_of_lab,
    linear_of_srgb,
    smoothed,
    soft_cross_entropy,
    soft_encoding,
    srgb_of_linear,
    to_lab,
    upsampled,
)

D65 = (0.95047, 1.0, 1.08883)
MATRIX = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def colours(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, generator=seeded(seed), dtype=torch.float64)


def lab_by_hand(rgb: list[float]) -> list[float]:
    """IEC 61966-2-1 and CIE 15, one number at a time, with κ and ε as fractions."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
    ratios = [sum(m * v for m, v in zip(row, linear, strict=True)) / w for row, w in zip(MATRIX, D65, strict=True)]
    kappa, epsilon = 24389 / 27, 216 / 24389
    fx, fy, fz = (t ** (1 / 3) if t > epsilon else (kappa * t + 16) / 116 for t in ratios)
    return [116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)]


def test_lab_is_that_of_the_formulas() -> None:
    x = torch.cat([colours(200), colours(50) * 0.05, torch.eye(3, dtype=torch.float64)])
    expected = torch.tensor([lab_by_hand(v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(to_lab(x), expected, rtol=0, atol=2e-4)  # five digits of the white


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [  # sRGB primaries, secondaries and white in Lab with white D65, as colour calculators list them
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.74, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((1, 1, 0), (97.14, -21.55, 94.48)),
        ((0, 1, 1), (91.11, -48.09, -14.13)),
        ((1, 0, 1), (60.32, 98.23, -60.82)),
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
    ],
)
def test_lab_of_the_primaries_is_known(rgb, lab) -> None:
    found = to_lab(torch.tensor([rgb], dtype=torch.float64))[0].tolist()
    assert found == pytest.approx(lab, abs=0.006)


def test_round_trips_in_the_gamut() -> None:
    x = torch.cat([colours(2000), colours(500) * 0.06, torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))])
    torch.testing.assert_close(from_lab(to_lab(x)), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(srgb_of_linear(linear_of_srgb(x)), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(linear_of_lab(lab_of_linear(x)), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(from_lab(to_lab(x.float())), x.float(), rtol=0, atol=1e-4)  # 1/39 of a level of 256
    image = colours(60).view(5, 3, 4, 3)
    torch.testing.assert_close(to_lab(image)[2, :, 1, 2], to_lab(image[2, :, 1, 2][None])[0])


def test_greys_have_no_colour_and_bfloat16_is_computed_in_float32() -> None:
    grey = torch.linspace(0, 1, 256, dtype=torch.float64)[:, None].expand(-1, 3)
    assert float(to_lab(grey)[:, 1:].abs().max()) < 1e-11
    assert float(to_lab(grey.float())[:, 1:].abs().max()) < 1e-3
    assert to_lab(grey.bfloat16()).dtype == torch.float32


def test_colours_outside_the_gamut_keep_their_lightness() -> None:
    away = torch.randn(3000, 2, generator=seeded(), dtype=torch.float64) * 80
    lab = torch.cat([100 * colours(3000, 1)[:, :1], away], 1)
    inside = into_gamut(linear_of_lab(lab))
    assert float(inside.min()) > -1e-12
    assert float(inside.max()) < 1 + 1e-12
    torch.testing.assert_close(to_lab(from_lab(lab))[:, 0], lab[:, 0], rtol=0, atol=1e-9)
    linear = linear_of_lab(lab)
    was_inside = ((linear >= 0) & (linear <= 1)).all(1)
    assert 100 < int(was_inside.sum()) < 2900
    torch.testing.assert_close(inside[was_inside], linear[was_inside], rtol=0, atol=1e-12)
    # The largest share: of a colour that was moved, one channel is at an end.
    moved = inside[~was_inside]
    assert float(torch.minimum(moved.abs(), (1 - moved).abs()).amin(1).max()) < 1e-12


def test_the_gradient_of_lab_is_finite_everywhere() -> None:
    x = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0.04045, 0.04045, 0.02]], requires_grad=True)
    (slope,) = torch.autograd.grad(to_lab(x).sum(), x)
    assert bool(slope.isfinite().all())


# --- bins -------------------------------------------------------------------------------------------------------------


def surface() -> np.ndarray:
    """ab of the surface of the cube of sRGB, ``(N, 2)``: the projection of a body is that of its surface."""
    level = torch.linspace(0, 1, 256, dtype=torch.float64)
    faces = []
    for axis, end in itertools.product(range(3), (0.0, 1.0)):
        plane = torch.cartesian_prod(level, level)
        faces.append(torch.cat([torch.full((len(plane), 1), end, dtype=torch.float64), plane], 1).roll(axis, 1))
    return to_lab(torch.cat(faces))[:, 1:].numpy()


def test_bins_are_the_corners_of_the_cells_that_meet_the_hull_of_the_gamut() -> None:
    ab = surface()
    hull = ConvexHull(ab).equations  # n · x + c ≤ 0 inside
    cells = np.array(list(itertools.product(range(-13, 13), repeat=2)))
    corners = GRID * (cells[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
    # Two convex sets of the plane are apart if and only if a normal of an edge of one of them separates them.
    apart = ((corners @ hull[:, :2].T + hull[:, 2]).min(1) >= 0).any(1)
    apart |= ((corners.min(1) >= ab.max(0)) | (corners.max(1) <= ab.min(0))).any(1)
    expected = sorted({tuple(point) for point in corners[~apart].reshape(-1, 2).tolist()})
    assert len(expected) == 313
    assert [tuple(point) for point in ab_bins().tolist()] == expected
    rounded = {tuple(point) for point in (GRID * np.round(ab / GRID)).astype(int).tolist()}
    assert len(rounded) == 261
    assert rounded < set(expected)


@pytest.mark.parametrize("neighbours", [1, 2, 5, 9])
def test_the_nearest_bins_are_those_of_a_search_in_all(neighbours) -> None:
    ab = to_lab(torch.cat([colours(4000), torch.eye(3, dtype=torch.float64), 1 - torch.eye(3, dtype=torch.float64)]))
    ab = ab[:, 1:]
    bins, weights = soft_encoding(ab, neighbours=neighbours, sigma=5)
    distance, expected = cKDTree(ab_bins().numpy()).query(ab.numpy(), k=[*range(1, neighbours + 1)])
    np.testing.assert_array_equal(bins.numpy(), expected)
    raw = np.exp(-(distance**2) / 50)
    np.testing.assert_allclose(weights.numpy(), raw / raw.sum(1, keepdims=True), rtol=1e-9)


def test_soft_encoding_has_the_axes_of_maps() -> None:
    maps = to_lab(colours(2 * 4 * 5).view(2, 4, 5, 3).movedim(-1, 1))[:, 1:]
    bins, weights = soft_encoding(maps)
    assert bins.shape == weights.shape == (2, 5, 4, 5)
    alone, _ = soft_encoding(maps[1, :, 2, 3][None])
    assert bins[1, :, 2, 3].tolist() == alone[0].tolist()
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 4, 5, dtype=torch.float64))


def test_a_colour_on_a_bin_is_that_bin() -> None:
    centres = ab_bins()
    bins, weights = soft_encoding(centres, neighbours=1)
    assert bins[:, 0].tolist() == list(range(313))
    assert bool((weights == 1).all())
    bins, weights = soft_encoding(torch.zeros(1, 2, dtype=torch.float64))
    near = math.exp(-2)  # four neighbours at distance 10 = 2σ
    assert weights[0].tolist() == pytest.approx([1 / (1 + 4 * near), *[near / (1 + 4 * near)] * 4])
    assert centres[bins[0]].tolist()[0] == [0, 0]


# --- distributions ----------------------------------------------------------------------------------------------------


def test_weights_have_mean_one_and_are_the_formula() -> None:
    counts = torch.randint(0, 50, (313,), generator=seeded(), dtype=torch.int64).double()
    counts[100:] = 0
    p = smoothed(counts)
    centres = ab_bins().tolist()
    by_hand = [
        sum(c * math.exp(-(math.dist(a, b) ** 2) / 50) for c, b in zip(counts.tolist(), centres, strict=True))
        for a in centres
    ]
    np.testing.assert_allclose(p.numpy(), np.array(by_hand) / sum(by_hand), rtol=1e-12)
    for uniform in (0.1, 0.5, 1.0):
        w = class_weights(p, uniform)
        assert float((p * w).sum()) == pytest.approx(1, abs=1e-12)
        ratio = w * ((1 - uniform) * p + uniform / 313)
        torch.testing.assert_close(ratio, ratio[:1].expand(313))
    assert float(class_weights(p, 1.0).std()) < 1e-12
    assert float(class_weights(p, 0.5).max() / class_weights(p, 0.5).min()) > 2


def test_soft_cross_entropy_is_that_of_a_loop_with_its_gradient() -> None:
    logits = (3 * torch.randn(2, 313, 2, 3, generator=seeded(), dtype=torch.float64)).requires_grad_()
    bins, weights = soft_encoding(to_lab(colours(12).view(2, 2, 3, 3).movedim(-1, 1))[:, 1:])
    found = soft_cross_entropy(logits, bins, weights)
    value = found.detach()
    total = torch.zeros((), dtype=torch.float64)
    for n, i, j in itertools.product(range(2), range(2), range(3)):
        nats = torch.zeros((), dtype=torch.float64)
        p = logits[n, :, i, j].exp() / logits[n, :, i, j].exp().sum()
        for k in range(5):
            nats = nats - weights[n, k, i, j] * p[bins[n, k, i, j]].log()
        assert float(value[n, i, j]) == pytest.approx(float(nats.detach()), rel=1e-10)
        total = total + (1 + n + i * j) * nats
    scale = torch.tensor([[[1.0, 1, 1], [1, 2, 3]], [[2, 2, 2], [2, 3, 4]]], dtype=torch.float64)
    (own,), (expected,) = (torch.autograd.grad(v, logits) for v in ((scale * found).sum(), total))
    torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)


def test_the_annealed_mean_is_the_mode_when_cold_and_the_mean_at_one() -> None:
    logits = 2 * torch.randn(4, 313, 3, generator=seeded(), dtype=torch.float64)
    centres, p = ab_bins(), logits.softmax(1)
    torch.testing.assert_close(annealed_mean(logits, 1.0), torch.einsum("nqi,qc->nci", p, centres))
    torch.testing.assert_close(annealed_mean(logits, 1e-4), centres[logits.argmax(1)].movedim(-1, 1))
    raised = p ** (1 / 0.38)
    expected = torch.einsum("nqi,qc->nci", raised / raised.sum(1, keepdim=True), centres)
    torch.testing.assert_close(annealed_mean(logits, 0.38), expected)


@pytest.mark.parametrize(("sides", "stride"), [((8, 8), 2), ((7, 5), 2), ((9, 4), 4), ((3, 3), 1), ((5, 6), 16)])
def test_maps_are_interpolated_between_their_places(sides, stride) -> None:
    shape = [-(-side // stride) for side in sides]
    x = torch.randn(2, 2, *shape, generator=seeded(), dtype=torch.float64)
    found = upsampled(x, sides, stride)
    assert found.shape == (2, 2, *sides)
    torch.testing.assert_close(found[:, :, ::stride, ::stride], x)
    for i, j in itertools.product(*map(range, sides)):
        u, v = (min(k / stride, n - 1) for k, n in zip((i, j), shape, strict=True))
        expected = 0.0
        for r, c in itertools.product(range(shape[0]), range(shape[1])):
            expected = expected + max(0, 1 - abs(u - r)) * max(0, 1 - abs(v - c)) * x[:, :, r, c]
        torch.testing.assert_close(found[:, :, i, j], expected)


def test_bins_of_lightness() -> None:
    found = lightness_bin(torch.tensor([0.0, 0.99, 1.0, 50.5, 99.99, 100.0]), 100)
    assert found.tolist() == [0, 0, 1, 50, 99, 99]
