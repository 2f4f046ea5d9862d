"""Mel-frequency cepstral coefficients against sums in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import idct

from unsup.core.errors import InputError
from unsup.evaluate.mfcc import mel_filters, mfcc, mfcc_features


def _slow(x: list[float], rate: int, coefficients: int, filters: int) -> list[list[float]]:
    """Every sum as it is written."""
    size, hop, points = rate // 40, rate // 100, 1
    while points < size:
        points *= 2
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = [700 * (10 ** (top * j / (filters + 1) / 2595) - 1) for j in range(filters + 2)]
    found = []
    for start in range(0, len(x) - size + 1, hop):
        own = [x[start + n] * 0.5 * (1 - math.cos(2 * math.pi * n / size)) for n in range(size)]
        power = []
        for f in range(points // 2 + 1):
            real = sum(v * math.cos(2 * math.pi * f * n / points) for n, v in enumerate(own))
            imaginary = sum(v * math.sin(2 * math.pi * f * n / points) for n, v in enumerate(own))
            power.append(real**2 + imaginary**2)
        energy = []
        for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
            total = 0.0
            for f, p in enumerate(power):
                hertz = f * rate / points
                if low < hertz <= middle:
                    total += p * (hertz - low) / (middle - low)
                elif middle < hertz < high:
                    total += p * (high - hertz) / (high - middle)
            energy.append(math.log(max(total, 1e-10)))
        row = []
        for i in range(coefficients):
            c = sum(e * math.cos(math.pi * i * (j + 0.5) / filters) for j, e in enumerate(energy))
            row.append(c * math.sqrt((1 if i == 0 else 2) / filters))
        found.append(row)
    return found


def test_coefficients_are_the_sums() -> None:
    rate, generator = 2000, torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(2, 130, generator=generator, dtype=torch.float64)
    x[1, 60:] = 0  # silence at the end
    expected = torch.tensor([_slow(own.tolist(), rate, 6, 9) for own in x], dtype=torch.float64)
    found = mfcc(x, rate, coefficients=6, filters=9)
    assert found.shape == (2, 5, 6)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_filters_are_triangles_of_height_one_that_add_up_to_one_between_the_middles() -> None:
    found = mel_filters(20, 4096, 8000)
    assert found.shape == (20, 2049)
    assert (found.max(1) > 0.9).all()
    first, last = found[0].argmax(), found[-1].argmax()
    np.testing.assert_allclose(found.sum(0)[first + 1 : last], 1)


def test_a_tone_is_in_the_filter_of_its_frequency_and_louder_sound_changes_the_first_coefficient_only() -> None:
    t = torch.arange(2000) / 8000
    x = torch.stack([torch.sin(2 * math.pi * hertz * t) for hertz in (300.0, 1500.0)])
    every = mfcc(x, 8000, coefficients=26)
    peak = idct(every.numpy(), norm="ortho").argmax(-1)
    expected = [int(mel_filters(26, 256, 8000)[:, round(hertz / 8000 * 256)].argmax()) for hertz in (300, 1500)]
    assert [set(row.tolist()) for row in peak] == [{j} for j in expected]
    noise = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    change = mfcc(3 * noise, 8000) - mfcc(noise, 8000)
    torch.testing.assert_close(change[..., 0], torch.full_like(change[..., 0], math.log(9) * math.sqrt(26)))
    assert change[..., 1:].abs().max() < 1e-9


def test_features_are_moments_over_frames() -> None:
    x = torch.randn(3, 900, generator=torch.Generator().manual_seed(0))
    each = mfcc(x, 8000).numpy()
    steps = each[:, 2:] - each[:, :-2]
    expected = np.concatenate([each.mean(1), each.std(1), steps.mean(1), steps.std(1)], 1)
    np.testing.assert_allclose(mfcc_features(x, 8000).numpy(), expected)


@pytest.mark.parametrize("shape", [(2, 199), (400,), (2, 300, 2)])
def test_sound_shorter_than_a_frame_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="200 samples or more"):
        mfcc(torch.zeros(shape), 8000)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="expected 1 to filters=26"):
        mfcc(torch.zeros(1, 400), 8000, coefficients=27)
    with pytest.raises(InputError, match="has 2 frames"):
        mfcc_features(torch.zeros(1, 300), 8000)
