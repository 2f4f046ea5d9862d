"""Draws of a part of a batch are the rows of the draws for the whole of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unsup.core import random
from unsup.core.parallel import own_rows, share_of
from unsup.core.random import Rows, alike, keyed_generator, manual_seed, part_of_batch

LIKE = torch.zeros((), dtype=torch.float64)
DRAWS = {
    "normal": lambda shape, axis: random.normal(shape, keyed_generator(0), like=LIKE, axis=axis),
    "uniform": lambda shape, axis: random.uniform(shape, keyed_generator(0), like=LIKE, axis=axis),
    "integers": lambda shape, axis: random.integers(3, 90, shape, keyed_generator(0), like=LIKE, axis=axis),
    "beta": lambda shape, axis: random.beta(shape, 0.7, keyed_generator(0), like=LIKE, axis=axis),
    "bits": lambda shape, axis: random.bits(torch.full(shape, 0.5), keyed_generator(0), axis=axis),
    "dropout": lambda shape, axis: random.dropout(torch.ones(shape), 0.5, keyed_generator(0), axis=axis),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("rest", [(8,), (3, 8), (8, 8)])  # other axes as long as that of the examples at hand
def test_parts_of_a_draw_are_rows_of_the_whole(name, axis, rest):
    draw = DRAWS[name]

    def shape(n: int) -> tuple[int, ...]:
        sizes = list(rest)
        sizes.insert(axis if axis >= 0 else len(rest), n)
        return tuple(sizes)

    whole = draw(shape(24), axis)
    parts = []
    for start in (0, 8, 16):
        with part_of_batch(Rows(24, start, 8)):
            parts.append(draw(shape(8), axis))
    assert torch.equal(torch.cat(parts, axis), whole)


def test_unequal_parts_several_draws_an_example_and_packs():
    for per, sizes in ((1, (4, 3, 3)), (5, (4, 3, 3))):
        whole, parts, start = DRAWS["normal"]((10 * per, 2), 0), [], 0
        for n in sizes:
            with part_of_batch(Rows(10, start, n)):
                parts.append(DRAWS["normal"]((n * per, 2), 0))
            start += n
        assert torch.equal(torch.cat(parts), whole)
    whole = DRAWS["uniform"]((6, 2), 0)  # packs of two
    with part_of_batch(Rows(12, 4, 4)):
        assert torch.equal(DRAWS["uniform"]((2, 2), 0), whole[2:4])


def test_what_nobody_divides_is_drawn_alike():
    whole = DRAWS["normal"]((8, 8), None)
    with part_of_batch(Rows(24, 8, 8)):
        assert torch.equal(DRAWS["normal"]((8, 8), None), whole)
        with alike():
            assert torch.equal(DRAWS["normal"]((8, 8), 0), whole)
        assert torch.equal(
            random.permutation(9, keyed_generator(0), like=LIKE), torch.randperm(9, generator=keyed_generator(0))
        )


def test_an_axis_that_cannot_be_that_of_the_examples_is_an_error():
    with part_of_batch(Rows(9, 3, 3)), pytest.raises(ValueError, match="pass the axis"):
        DRAWS["normal"]((4, 2), 0)


@pytest.mark.parametrize(("total", "count"), [(8, 3), (7, 7), (9, 2), (3, 1)])
def test_shares_are_in_order_and_even(total, count):
    parts = [share_of(total, count, rank) for rank in range(count)]
    assert [p.start for p in parts] == [sum(q.count for q in parts[:i]) for i in range(count)]
    assert sum(p.count for p in parts) == total
    assert max(p.count for p in parts) - min(p.count for p in parts) <= 1
    assert torch.equal(own_rows(torch.arange(total)), torch.arange(total))  # alone


LARGE = st.one_of(st.integers(2**64, 10**100), st.integers(-(10**100), -(2**63) - 1))


@given(seed=st.one_of(LARGE, st.integers(0, 9)), multiple=st.integers(1, 2**40), place=st.integers(64, 200))
def test_every_bit_of_a_seed_counts(seed, multiple, place):
    """Seeds that differ only in high bits or in the sign give other draws."""
    others = {seed, seed + multiple * 2**place, seed - multiple * 2**place, -seed}
    assert len({keyed_generator(each, 1).initial_seed() for each in others}) == len(others)
    assert len({manual_seed(torch.Generator(), each).initial_seed() for each in others}) == len(others)


@given(seed=st.integers(-(2**63), 2**64 - 1))
def test_seeds_of_64_bits_are_those_of_torch(seed):
    assert manual_seed(torch.Generator(), seed).initial_seed() == torch.Generator().manual_seed(seed).initial_seed()
    assert keyed_generator(seed).initial_seed() == seed % 2**63


def test_keys_do_not_change():
    """Runs that are resumed, and samples that are drawn again, depend on them."""
    keys = {
        (0, 0): 5197578548964807871,
        (0, 3): 6251374120931956409,
        (1, 3): 4236953630756277738,
        (-1, 3): 3606403679515473763,
        (2**64 - 2, 5, 6): 8761769301729857001,
    }
    assert {key: keyed_generator(*key).initial_seed() for key in keys} == keys


@pytest.mark.parametrize("concentration", [0.3, 0.75, 1.0, 20.0])
def test_beta_has_its_distribution(concentration: float) -> None:
    found = random.beta((4000,), concentration, keyed_generator(3), like=LIKE)
    assert stats.kstest(found.numpy(), stats.beta(concentration, concentration).cdf).pvalue > 1e-3
