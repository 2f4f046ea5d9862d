"""Corruption of examples: shares within four standard errors, whole entries, and what is left alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.nn.autoencoder import Autoencoder, NetName
from unsup.nn.corruption import Corruption, CorruptionName, corrupted_units
from unsup.testing.cases.case import GAPS, MIXED, WORDS, examples, ordinal, vector

N = 4000


def seeded(seed: int = 1) -> Generator:
    return Generator().manual_seed(seed)


def corrupted(
    event: Event, noise: CorruptionName, strength: float, *, net: NetName = "dense", hidden: tuple[int, ...] = (4,)
) -> tuple[Autoencoder, Tensor, Tensor, Tensor]:
    """Networks, raw data, its inputs, and the corrupted ones."""
    x = examples(event, N).x
    nets = Autoencoder(event, code_size=2, encoded_size=2, hidden=hidden, net=net, owner="test")
    nets.prepare(x, None, generator=seeded())
    made = Corruption(nets, noise, strength, "test")
    return nets, x, nets.seen(x), made(nets, x, seeded())


def agrees(hits: Tensor, share: float) -> None:
    """The share of hits of every column, and of all, is within four standard errors (five for many columns)."""
    error = math.sqrt(share * (1 - share) / len(hits))
    assert float((hits.double().mean(0) - share).abs().max()) < 5 * error
    assert abs(float(hits.double().mean()) - share) < 4 * error / math.sqrt(hits.shape[1])


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_masked_levels_are_the_lowest(share: float):
    _, x, seen, found = corrupted(vector(5, ordinal(9)), "masking", share)
    changed = found != seen
    assert bool((found[changed] == -1).all())
    visible = x > 0  # a masked entry of the lowest level does not change
    hits = changed.double().sum(0) / visible.sum(0)
    assert float((hits - share).abs().max()) < 5 * math.sqrt(share * (1 - share) / int(visible.sum(0).min()))


def test_masked_reals_are_the_mean():
    nets, x, seen, found = corrupted(vector(4, REAL), "masking", 0.3)
    agrees(found != seen, 0.3)
    assert bool((found[found != seen] == 0).all())
    assert nets.seen(x.mean(0, keepdim=True)).abs().max() < 1e-5


@pytest.mark.parametrize("net", ["dense", "conv"])
def test_masked_categories_are_none(net: NetName):
    """All indicators of an entry are hit together."""
    event = Event((2, 4, 4), Support("nominal", 3))
    _, _, seen, found = corrupted(event, "masking", 0.25, net=net)
    if net == "conv":
        seen, found = (v.view(N, 2, 3, 4, 4).transpose(2, 4) for v in (seen, found))
    seen, found = seen.reshape(N, 32, 3), found.reshape(N, 32, 3)
    removed = found.sum(2) == 0
    agrees(removed, 0.25)
    assert torch.equal(found[~removed], seen[~removed])


def test_masked_entries_of_tables_with_gaps_are_missing():
    nets, x, _, found = corrupted(GAPS, "masking", 0.25)
    alike = x.clone()
    last = torch.tensor(nets.seen_sizes).cumsum(0) - 1
    removed = found[:, last] == 1
    alike[removed.view(x.shape)] = torch.nan
    torch.testing.assert_close(found, nets.seen(alike), rtol=0, atol=0)
    there = ~x.isnan()
    share = (removed & there).double().sum(0) / there.sum(0)
    assert float((share - 0.25).abs().max()) < 5 * math.sqrt(0.25 * 0.75 / int(there.sum(0).min()))
    assert bool(removed[~there].all())


@pytest.mark.parametrize("event", [MIXED, WORDS])
def test_masked_entries_of_tables_have_no_features(event: Event):
    nets, _, seen, found = corrupted(event, "masking", 0.25)
    assert torch.equal(found, torch.where(found != seen, 0.0, seen))
    entry_of = torch.arange(3).repeat_interleave(torch.tensor(nets.seen_sizes))
    for entry in range(3):
        own = entry_of == entry
        kept = (found[:, own] == seen[:, own]).all(1)
        assert bool(((found[:, own] == 0).all(1) | kept).all())  # whole entries


def test_salt_is_the_lowest_or_the_highest_level():
    _, x, seen, found = corrupted(vector(6, ordinal(5)), "salt", 0.4)
    middle = (x > 0) & (x < 4)
    for value in (-1.0, 1.0):
        rate = (found == value)[middle].double().mean()
        assert abs(float(rate) - 0.2) < 4 * math.sqrt(0.2 * 0.8 / int(middle.sum()))
    other = (found != -1) & (found != 1)
    assert torch.equal(found[other], seen[other])


def test_salt_does_not_fill_gaps():
    event = Event((3,), (BINARY, ordinal(5), ordinal(30)), missing=True)
    nets, x, _, found = corrupted(event, "salt", 0.9)
    last = torch.tensor(nets.seen_sizes).cumsum(0) - 1
    assert torch.equal(found[:, last] == 1, x.isnan())


@pytest.mark.parametrize(
    ("event", "size"), [(vector(4, REAL), 1.0), (vector(4), 1.0), (vector(4, ordinal(9)), 2.0), (MIXED, 1.0)]
)
def test_gaussian_noise_has_its_deviation(event: Event, size: float):
    """In standard deviations of reals, and in ranges of levels, which are inputs from −1 to 1."""
    _, _, seen, found = corrupted(event, "gaussian", 0.3)
    noise = (found - seen) / (0.3 * size)
    assert float(noise.mean(0).abs().max()) < 5 / math.sqrt(N)
    assert float((noise.var(0) - 1).abs().max()) < 5 * math.sqrt(2 / N)
    off = noise.T.corrcoef() - torch.eye(noise.shape[1])
    assert float(off.abs().max()) < 5 / math.sqrt(N)


def test_gaussian_noise_leaves_gaps_alone():
    nets, x, seen, found = corrupted(GAPS, "gaussian", 0.5)
    last = torch.tensor(nets.seen_sizes).cumsum(0) - 1
    assert torch.equal(found[:, last], seen[:, last])
    entry_of = torch.arange(3).repeat_interleave(torch.tensor(nets.seen_sizes))
    gaps = x.isnan()[:, entry_of]
    assert torch.equal(found[gaps], seen[gaps])
    values = torch.ones(len(entry_of), dtype=torch.bool)
    values[last] = False
    assert bool((found != seen)[:, values][~gaps[:, values]].all())


@pytest.mark.parametrize("noise", ["masking", "gaussian", "salt"])
def test_strength_zero_is_no_noise_and_draws_differ(noise: CorruptionName):
    event = Event((1, 4, 4), ordinal(17))
    nets, x, seen, found = corrupted(event, noise, 0.0, net="conv")
    assert torch.equal(found, seen)
    made, generator = Corruption(nets, noise, 0.5, "test"), seeded()
    one, other = made(nets, x, generator), made(nets, x, generator)
    assert one.shape == seen.shape
    assert not torch.equal(one, other)
    assert torch.equal(one, made(nets, x, seeded()))


@pytest.mark.parametrize("noise", ["masking", "gaussian"])
def test_no_examples(noise: CorruptionName):
    for event in (GAPS, vector(3, ordinal(4)), replace(vector(3, REAL))):
        nets, x, seen, _ = corrupted(event, noise, 0.5)
        assert Corruption(nets, noise, 0.5, "test")(nets, x[:0], None).shape == seen[:0].shape


def test_corrupted_units():
    h = torch.full((N, 3), 0.3)
    found = corrupted_units(h, "masking", 0.25, "sigmoid", seeded())
    agrees(found == 0, 0.25)
    assert bool(((found == 0) | (found == 0.3)).all())
    for name, low in (("sigmoid", 0.0), ("tanh", -1.0)):
        found = corrupted_units(h, "salt", 0.5, name, seeded())  # type: ignore[arg-type]
        agrees(found == low, 0.25)
        agrees(found == 1, 0.25)
    noise = (corrupted_units(h, "gaussian", 0.5, "linear", seeded()) - 0.3) / 0.5
    assert abs(float(noise.var()) - 1) < 4 * math.sqrt(2 / (3 * N))
    assert corrupted_units(h, "gaussian", 0.0, "linear", None) is h


@pytest.mark.parametrize(
    ("event", "noise", "strength", "words"),
    [
        (vector(3, REAL), "salt", 0.1, "lowest or highest"),
        (vector(3, Support("nominal", 3)), "salt", 0.1, "lowest or highest"),
        (vector(3), "masking", 1.5, "at most 1"),
        (vector(3), "salt", 2.0, "at most 1"),
    ],
)
def test_refusals(event: Event, noise: CorruptionName, strength: float, words: str):
    with pytest.raises(InputError, match=words):
        corrupted(event, noise, strength)
