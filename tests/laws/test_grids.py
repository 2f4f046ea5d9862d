"""Grids of quadratures: a finer grid contains the coarser one, and what is left out carries no mass."""

from __future__ import annotations

import math

import torch

from unsup.core.event import REAL, Event, Support
from unsup.testing import grids

MIXED = Event((3,), (REAL, Support("ordinal", 3), REAL))


def test_a_finer_grid_has_the_numbers_of_the_coarser_one():
    x = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    coarse, fine = (grids.grid(MIXED, x, nodes).x for nodes in (21, 41))
    number = torch.arange(len(coarse)).double()
    found = grids.refined(MIXED, number, 21)
    assert len(found) == len(fine)
    assert int((~found.isnan()).sum()) == len(coarse)
    torch.testing.assert_close(fine[~found.isnan()], coarse[found[~found.isnan()].long()])


def test_the_mass_of_what_is_left_out_is_negligible():
    event, generator = Event((2,), REAL), torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, dtype=torch.float64, generator=generator)

    def log_mass(nodes):
        found = grids.grid(event, x, nodes)
        squares = (found.x - torch.tensor([2.0, -1.0])).square() / torch.tensor([0.01, 4.0])
        return found.log_weight - 0.5 * squares.sum(1) - math.log(2 * math.pi * 0.1 * 2)

    kept = grids.around_mass(event, log_mass(201), 201)
    whole = log_mass(401).exp()
    assert abs(float(whole.sum()) - 1) < 1e-6
    assert float(whole[~kept].sum()) < 1e-6
    assert float(kept.double().mean()) < 0.2
    # every finer node beside a coarse one with mass is kept
    one = torch.full((201 * 201,), -math.inf)
    one[100 * 201 + 100] = 0.0
    near = grids.around_mass(event, one, 201).view(401, 401).nonzero()
    assert near.amin(0).tolist() == [195, 195]
    assert near.amax(0).tolist() == [205, 205]
