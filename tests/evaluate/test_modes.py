"""Mode coverage: true draws, collapsed and unbalanced ones, against closed forms."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

import unsup
from unsup.core.errors import InputError
from unsup.evaluate.modes import class_coverage, mode_coverage, plane_modes

ROOT = Path(os.environ.get("UNSUP_DATA", "/nowhere"))


@pytest.mark.parametrize(("name", "modes"), [("ring8", 8), ("grid25", 25)])
def test_true_draws_cover_every_mode(name, modes):
    data = unsup.load_data(name)
    means, std = plane_modes(name)
    found = mode_coverage(data.train.x, means, std)
    n = len(data.train)
    expected = 1 - math.exp(-4.5)
    assert (found["modes"]["value"], found["modes"]["detail"]["of"], found["modes"]["n"]) == (modes, modes, n)
    assert abs(found["modes_good"]["value"] - expected) < 4 * math.sqrt(expected * (1 - expected) / n)
    # 2 n KL is about chi-squared with K − 1 degrees of freedom.
    assert abs(2 * n * found["modes_kl"]["value"] - (modes - 1)) < 4 * math.sqrt(2 * (modes - 1))


@pytest.mark.parametrize("name", ["ring8", "grid25"])
def test_means_and_std_are_those_of_the_data(name):
    data = unsup.load_data(name)
    means, std = plane_modes(name)
    for k, mean in enumerate(means):
        own = data.train.x[data.train.label == k].double()
        assert torch.allclose(own.mean(0), mean, atol=5 * std / math.sqrt(len(own)))
        assert own.std(0).mean().item() == pytest.approx(std, rel=0.1)


def test_other_data_has_no_known_modes():
    assert plane_modes("moons") is None
    assert plane_modes(None) is None


def test_a_loop_over_draws_finds_the_same():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(5, 3, generator=generator)
    samples = means[torch.randint(4, (300,), generator=generator)] + 0.2 * torch.randn(300, 3, generator=generator)
    std = 0.12
    counts = [0] * 5
    for x in samples:
        squares = [sum((float(a) - float(b)) ** 2 for a, b in zip(x, m, strict=True)) for m in means]
        k = squares.index(min(squares))
        counts[k] += squares[k] <= (3 * std) ** 2
    good = sum(counts)
    found = mode_coverage(samples, means, std)
    assert 0 < good < 300
    assert found["modes"]["value"] == sum(c > 0 for c in counts) == 4
    assert found["modes_good"]["value"] == good / 300
    assert found["modes_kl"]["value"] == pytest.approx(sum(c / good * math.log(5 * c / good) for c in counts if c))


def test_draws_between_the_modes_are_not_good():
    means, std = plane_modes("ring8")
    found = mode_coverage(torch.zeros(10, 2), means, std)
    assert (found["modes"]["value"], found["modes_good"]["value"]) == (0, 0.0)
    assert math.isnan(found["modes_kl"]["value"])
    assert mode_coverage(torch.full((3, 2), torch.nan), means, std)["modes_good"]["value"] == 0.0


def test_the_edge_lies_at_three_standard_deviations():
    means = torch.zeros(1, 2)
    assert mode_coverage(torch.tensor([[2.999, 0.0]]), means, 1.0)["modes_good"]["value"] == 1.0
    assert (
        mode_coverage(torch.tensor([[2.2, 2.2]]), means, 1.0)["modes_good"]["value"] == 0.0
    )  # farther than 3, though no coordinate is


@pytest.mark.parametrize("covered", [1, 2, 8])
def test_equal_shares_of_some_modes_lose_the_log_of_the_others(covered):
    means, std = plane_modes("ring8")
    found = mode_coverage(means[:covered].repeat(5, 1), means, std)
    assert (found["modes"]["value"], found["modes_good"]["value"]) == (covered, 1.0)
    assert found["modes_kl"]["value"] == pytest.approx(math.log(8 / covered), abs=1e-12)


def test_uniform_classes_lose_what_chance_does():
    """E KL ≈ (K − 1) / 2n: 0.0192 for 26,000 draws of 1,000 classes."""
    n, of = 26_000, 1000
    drawn = torch.randint(of, (n,), generator=torch.Generator().manual_seed(0))
    found = class_coverage(drawn, of)
    assert found["modes"]["value"] == of
    assert found["modes_kl"]["value"] == pytest.approx((of - 1) / (2 * n), rel=0.15)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"\(N, D\)"):
        mode_coverage(torch.zeros(3, 2), torch.zeros(4, 3), 0.1)
    with pytest.raises(InputError, match="not empty"):
        mode_coverage(torch.zeros(0, 2), torch.zeros(4, 2), 0.1)
    with pytest.raises(InputError, match="from 0 to 9"):
        class_coverage(torch.tensor([10]), 10)


@pytest.mark.skipif(not (ROOT / "mnist").is_dir(), reason="needs mnist in $UNSUP_DATA")
def test_stacked_mnist_holds_digits_of_its_own_split_in_equal_shares():
    data, digits = unsup.load_data("stacked-mnist", n=26_000), unsup.load_data("mnist")
    assert (data.event.shape, data.train.x.dtype) == ((3, 28, 28), torch.uint8)
    assert (len(data.train), len(data.validation), len(data.test)) == (26_000, 2_600, 2_600)
    found = class_coverage(data.train.label, 1000)
    assert found["modes"]["value"] == 1000
    # 0.0192 of chance, and 3 · KL of MNIST's own unequal shares of digits.
    share = digits.train.label.bincount().double() / len(digits.train)
    own = 3 * float((share * (10 * share).log()).sum())
    assert found["modes_kl"]["value"] == pytest.approx(999 / 52_000 + own, rel=0.1)
    for split in ("validation", "test"):
        source, stacked = getattr(digits, split), getattr(data, split)
        known: dict[bytes, int] = {x.numpy().tobytes(): int(y) for x, y in zip(source.x, source.label, strict=True)}
        for x, label in zip(stacked.x[:200], stacked.label[:200], strict=True):
            assert [known[channel.numpy().tobytes()] for channel in x] == [int(d) for d in data.labels[label]]
