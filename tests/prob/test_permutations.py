"""The set of permutations against a brute-force greedy search, and its distances."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from unsup.prob.permutations import distant_permutations


def distance(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


def brute_force(tiles: int, count: int) -> list[tuple[int, ...]]:
    every = list(itertools.permutations(range(tiles)))
    chosen = [every[0]]
    while len(chosen) < count:

        def worth(candidate: tuple[int, ...]) -> tuple[int, int]:
            apart = [distance(candidate, own) for own in chosen]
            return min(apart), sum(apart)

        chosen.append(max(every, key=worth))  # the first of equals
    return chosen


@pytest.mark.parametrize(("tiles", "count"), [(2, 2), (3, 6), (4, 12), (5, 20)])
def test_it_is_the_greedy_search(tiles: int, count: int) -> None:
    assert distant_permutations(tiles, count).tolist() == [list(own) for own in brute_force(tiles, count)]


@pytest.mark.parametrize(("count", "least"), [(9, 9), (50, 7), (100, 6)])
def test_the_smallest_distance_by_brute_force(count: int, least: int) -> None:
    found = [tuple(own) for own in distant_permutations(9, count).tolist()]
    assert all(sorted(own) == list(range(9)) for own in found)
    assert len(set(found)) == count
    assert min(distance(a, b) for a, b in itertools.combinations(found, 2)) == least
    random = torch.stack([torch.randperm(9, generator=torch.Generator().manual_seed(i)) for i in range(count)]).tolist()
    assert min(distance(tuple(a), tuple(b)) for a, b in itertools.combinations(random, 2)) < least


def test_it_is_fixed_and_grows() -> None:
    assert torch.equal(distant_permutations(9, 20), distant_permutations(9, 30)[:20])
    assert distant_permutations(9, 1).tolist() == [list(range(9))]
    first = distant_permutations(9, 5)
    first += 1  # a copy
    assert int(distant_permutations(9, 5).max()) == 8


def test_all_permutations_are_the_most() -> None:
    assert len(set(map(tuple, distant_permutations(4, 24).tolist()))) == math.factorial(4)
    with pytest.raises(ValueError, match="4 tiles have 24 permutations; 25 were requested"):
        distant_permutations(4, 25)
