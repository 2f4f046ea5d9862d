"""Rotations and patches against numpy and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator
from torch.nn.functional import avg_pool2d, interpolate

from unsup.prob.crops import crops, quarter_turns, resampled, resampling, standardised


def test_quarter_turns_are_those_of_numpy_bit_for_bit_and_come_back() -> None:
    x = torch.rand(5, 3, 7, 7, generator=Generator().manual_seed(0))
    turned = quarter_turns(x)
    for quarter in range(4):
        assert np.array_equal(turned[quarter].numpy(), np.rot90(x.numpy(), quarter, axes=(2, 3)))
        back = quarter_turns(turned[quarter])[-quarter % 4]
        assert torch.equal(back, x)
    assert len({tuple(own.flatten().tolist()) for own in turned}) == 4


def test_quarter_turns_keep_whole_numbers() -> None:
    x = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8, generator=Generator().manual_seed(0))
    assert quarter_turns(x).dtype == torch.uint8
    assert torch.equal(quarter_turns(x)[2], x.flip(2).flip(3))


@pytest.mark.parametrize("each", [1, 3])
def test_crops_are_slices(each: int) -> None:
    generator = Generator().manual_seed(0)
    x = torch.rand(4, 3, 9, 11, generator=generator)
    top = torch.randint(0, 6, (4, 5, each), generator=generator)
    left = torch.randint(0, 8, (4, 5, each), generator=generator)
    found = crops(x, top, left, 4)
    assert found.shape == (4, 5, 3, 4, 4)
    for b in range(4):
        for n in range(5):
            for c in range(3):
                row, column = int(top[b, n, c % each]), int(left[b, n, c % each])
                assert torch.equal(found[b, n, c], x[b, c, row : row + 4, column : column + 4])


def test_standardised_has_the_moments_and_leaves_no_nan() -> None:
    x = 5 + 3 * torch.rand(4, 2, 6, 6, dtype=torch.float64, generator=Generator().manual_seed(0))
    x[0, 0] = 0.3
    found = standardised(x, (-2, -1))
    assert float(found.mean((-2, -1)).abs().max()) < 1e-12
    assert float(found[0, 0].abs().max()) < 1e-6
    assert torch.allclose(found.var((-2, -1), correction=0).flatten()[1:], torch.ones(7).double(), atol=1e-4)


def test_resampling_averages_and_interpolates() -> None:
    side, generator = 12, Generator().manual_seed(0)
    matrices = resampling(side)
    assert torch.allclose(matrices[1:].sum(2), torch.ones(side, side).double())  # a constant patch stays
    assert torch.allclose(matrices[side], torch.eye(side).double())
    x = torch.rand(3, 2, 1, side, side, dtype=torch.float64, generator=generator)
    for n in (1, 2, 3, 4, 6, 12):  # what divides the side, so that torch has it too
        small = avg_pool2d(x.flatten(0, 1), side // n)
        expected = interpolate(small, size=(side, side), mode="bilinear", align_corners=False).view_as(x)
        found = resampled(x, matrices, torch.full((3, 2), n))
        assert torch.allclose(found, expected, atol=1e-12)
    sizes = torch.tensor([[12, 5], [7, 12], [2, 1]])
    mixed = resampled(x, matrices, sizes)
    for b, n in np.ndindex(3, 2):
        assert torch.allclose(mixed[b, n], resampled(x[b, n][None, None], matrices, sizes[b, n].view(1, 1))[0, 0])
    assert torch.allclose(mixed[0, 0], x[0, 0], atol=1e-12)
    rank = torch.linalg.matrix_rank(mixed[0, 1, 0])
    assert int(rank) == 5  # 5 × 5 numbers are left of it
