"""Patches of images: cutting against loops, joining, moments against numpy, and orders that are uniform."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch

from unsup.core.parallel import share_of
from unsup.core.random import part_of_batch
from unsup.prob.patches import EPSILON, patch_moments, shuffles, taken, to_images, to_patches


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("channels", "height", "width", "patch"), [(1, 4, 4, 2), (3, 6, 9, 3), (2, 8, 4, 1)])
def test_patches_are_cut_row_by_row_and_joined_again(channels: int, height: int, width: int, patch: int) -> None:
    x = images(3, channels, height, width)
    found = to_patches(x, patch)
    number = 0
    for row in range(0, height, patch):
        for column in range(0, width, patch):
            expected = x[:, :, row : row + patch, column : column + patch].flatten(1)
            assert torch.equal(found[:, number], expected)
            number += 1
    assert found.shape[1] == number
    assert torch.equal(to_images(found, channels, (height, width), patch), x)
    other = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(to_patches(other, patch), found)


def test_moments_are_the_mean_and_the_unbiased_deviation() -> None:
    patches = images(2, 5, 12)
    mean, deviation = patch_moments(patches)
    expected = np.sqrt(patches.numpy().var(-1, ddof=1, keepdims=True) + EPSILON)
    np.testing.assert_allclose(deviation.numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(mean.numpy(), patches.numpy().mean(-1, keepdims=True), atol=1e-12)
    assert EPSILON == 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_patches_have_a_target_of_zero(dtype: torch.dtype) -> None:
    patches = torch.tensor([[0.1], [-2.3], [0.0]], dtype=dtype).expand(-1, 48)[None]
    mean, deviation = patch_moments(patches)
    assert ((patches - mean) / deviation).abs().max() < 1e-3 * (dtype == torch.float32) + 1e-9
    assert torch.allclose(deviation, torch.full_like(deviation, EPSILON**0.5), rtol=1e-3)


def test_shuffles_are_permutations_of_equal_probability() -> None:
    drawn = shuffles(12_000, 3, torch.Generator().manual_seed(0), like=torch.zeros(()))
    counts = Counter(map(tuple, drawn.tolist()))
    assert set(counts) == set(permutations(range(3)))
    chi_squared = sum((count - 2000) ** 2 / 2000 for count in counts.values())
    assert chi_squared < 20.5  # 0.1% of chi-squared with 5 degrees of freedom


def test_shuffles_of_several_processes_are_the_rows_of_one() -> None:
    def drawn(n: int) -> torch.Tensor:
        return shuffles(n, 9, torch.Generator().manual_seed(3), like=torch.zeros(()))

    whole = drawn(5)
    for rank in range(2):
        rows = share_of(5, 2, rank)
        with part_of_batch(rows):
            assert torch.equal(drawn(rows.count), whole[rows.start : rows.start + rows.count])


def test_the_order_of_a_shuffle_restores_the_image() -> None:
    x = images(4, 10, 6)
    shuffle = shuffles(4, 10, torch.Generator().manual_seed(1), like=x)
    mixed = taken(x, shuffle)
    for example in range(4):
        for place in range(10):
            assert torch.equal(mixed[example, place], x[example, shuffle[example, place]])
    assert torch.equal(taken(mixed, shuffle.argsort(1)), x)
    assert not torch.equal(mixed, x)
