"""Built-in data: the splits, the draws and the densities against what is known of them in closed form."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits

from unsup.core.errors import InputError
from unsup.data import load_data, load_examples, permutation
from unsup.data.builtin import markov_chain
from unsup.data.catalog import CATALOG
from unsup.data.examples import classes
from unsup.data.source import Split, binarise, hashed_order, split_sizes

PLANE = ["moons", "rings", "ring8", "grid25", "checkerboard", "pinwheel", "spirals"]
BUILT_IN = [name for name, entry in CATALOG.items() if not entry.needs_download]


def digest(order: np.ndarray) -> str:
    return hashlib.sha256(np.asarray(order, "<i8").tobytes()).hexdigest()[:16]


def test_catalogue_imports_no_torch() -> None:
    code = "import sys, unsup.data.catalog; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_hashed_order_is_the_recorded_one() -> None:
    """Recorded once: a change here would change every split that users' runs rest on."""
    assert digest(hashed_order(1797)) == "de1906f42e11cf3c"
    assert sorted(hashed_order(1000).tolist()) == list(range(1000))
    position = np.argsort(hashed_order(20_000))
    assert abs(stats.spearmanr(position, np.arange(20_000)).statistic) < 4 / np.sqrt(20_000)


@pytest.mark.parametrize(("n", "sizes"), [(3, (1, 1, 1)), (10, (8, 1, 1)), (1797, (1437, 180, 180))])
def test_split_sizes(n: int, sizes: tuple[int, int, int]) -> None:
    assert split_sizes(n, 10, 10, owner="x") == sizes


def test_too_few_to_split() -> None:
    with pytest.raises(InputError, match=r"^x has 2 examples; at least 3 are needed to split it$"):
        split_sizes(2, 10, 10, owner="x")


def test_digits_are_scikit_learns_and_the_splits_share_no_row() -> None:
    data = load_data("digits")
    assert data.describe() == "1,797 images, 1×8×8, 17 levels, 10 classes; 1,257 train, 180 validation, 360 test"
    bunch = load_digits()
    order = torch.from_numpy(hashed_order(1797))
    x = torch.cat([data.train.x, data.validation.x, data.test.x])
    label = torch.cat([data.train.label, data.validation.label, data.test.label])
    assert torch.equal(x[:, 0].double(), torch.from_numpy(bunch.images)[order])
    assert torch.equal(label, torch.from_numpy(bunch.target)[order].long())
    assert x.dtype == data.event.dtype == torch.uint8
    rows = [{row.numpy().tobytes() for row in s.x} for s in (data.train, data.validation, data.test)]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]
    for split in (data.train, data.validation, data.test):
        assert stats.chisquare(split.label.bincount(minlength=10).numpy()).pvalue > 0.01


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_data_lies_in_its_event_and_comes_back_the_same(name: str) -> None:
    data = load_data(name)
    for split in (data.train, data.validation, data.test):
        data.event.check(split.x)
        assert split.x.dtype == data.event.dtype
        if data.labels is not None:
            assert split.label.unique().tolist() == list(range(len(data.labels)))
    again = load_data(data.to_json()["name"], **data.to_json()["options"])
    assert torch.equal(data.train.x, again.train.x)
    assert torch.equal(data.test.x, again.test.x)


@pytest.mark.parametrize("name", PLANE)
def test_plane_sizes(name: str) -> None:
    data = load_data(name, n=300)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [300, 30, 30]
    assert data.event.shape == (2,)
    assert data.event.is_real
    assert data.options == {"n": 300}


@pytest.mark.parametrize(("name", "modes", "std"), [("ring8", 8, 0.01), ("grid25", 25, 0.05)])
def test_mixtures_have_their_modes(name: str, modes: int, std: float) -> None:
    """Within three standard deviations of the nearest mean lie 1 − exp(−4.5) of a Gaussian in the plane."""
    split = load_data(name).train
    x = split.x.double()
    if name == "ring8":
        means = torch.tensor([[np.cos(k * np.pi / 4), np.sin(k * np.pi / 4)] for k in range(8)])
    else:
        means = torch.tensor([[a, b] for a in (-4.0, -2, 0, 2, 4) for b in (-4.0, -2, 0, 2, 4)]).double()
    distance, nearest = torch.cdist(x, means.double()).min(1)
    assert torch.equal(nearest, split.label)
    good, expected = distance <= 3 * std, 1 - np.exp(-4.5)
    assert abs(good.double().mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / len(x))
    assert (nearest[good].bincount(minlength=modes) > 0).sum() == modes
    assert stats.chisquare(nearest.bincount(minlength=modes).numpy()).pvalue > 1e-3


def test_rings_have_their_radii() -> None:
    split = load_data("rings").train
    for ring in range(4):
        x = split.x[split.label == ring].double()
        # E‖r e + σ ε‖² = r² + 2 σ² in the plane
        expected = (0.75 * (ring + 1)) ** 2 + 2 * 0.08**2
        square = x.square().sum(1)
        assert abs(square.mean() - expected) < 4 * square.std() / len(x) ** 0.5


def test_checkerboard_is_uniform_on_its_squares() -> None:
    x = load_data("checkerboard").train.x.double()
    square = (x / 2).floor()
    assert bool((square.sum(1) % 2 == 0).all())
    assert bool((square >= -2).all())
    assert bool((square < 2).all())
    counts = (4 * (square[:, 0] + 2) + square[:, 1] + 2).long().bincount(minlength=16)
    assert (counts > 0).sum() == 8
    assert stats.chisquare(counts[counts > 0].numpy()).pvalue > 1e-3
    for d in range(2):
        assert stats.kstest((x / 2 - square)[:, d].numpy(), "uniform").pvalue > 1e-3


def test_spirals_follow_their_curve() -> None:
    """Turned by half a circle where label is 0, a point's angle is three times its radius, but for the noise."""
    split = load_data("spirals").train
    x = split.x.double() * (2 * split.label - 1)[:, None]
    radius = x.norm(dim=1)
    far = radius > 1.5
    turn = torch.atan2(x[far, 1], x[far, 0]) - 3 * radius[far]
    off = torch.remainder(turn + np.pi, 2 * np.pi) - np.pi
    # noise of std 0.1 moves 3r by 0.3 and the angle by at most 0.1/1.5
    assert off.abs().mean() < 0.3
    assert off.abs().max() < 5 * np.hypot(0.3, 0.1 / 1.5)


def test_pinwheel_arms() -> None:
    """Turned back by its own angle, each arm is a Gaussian of mean (2, 0) and std (0.6, 0.2)."""
    split = load_data("pinwheel").train
    x = split.x.double().numpy() / 2
    radius, angle = np.hypot(*x.T), np.arctan2(x[:, 1], x[:, 0])
    # The radial coordinate is found by iterating a = r cos(θ − 2πk/5 − exp(a)/4), which contracts for a < 2.
    radial = radius.copy()
    for _ in range(200):
        back = angle - 2 * np.pi / 5 * split.label.numpy() - 0.25 * np.exp(radial)
        radial = 0.5 * radial + 0.5 * radius * np.cos(back)
    settled = np.abs(radial - radius * np.cos(back)) < 1e-6
    assert settled.mean() > 0.98
    assert abs(np.median(radial) - 1) < 0.02
    tangential = (radius * np.sin(back))[settled]
    assert abs(np.median(np.abs(tangential)) - 0.1 * stats.norm.ppf(0.75)) < 0.005


def test_shapes_look_as_their_label_says() -> None:
    """A square fills its bounding box, a disc π/4 of it and a triangle a little over half, on 16 × 16 pixels."""
    data = load_data("shapes", n=3000)
    filled: dict[str, list[float]] = {name: [] for name in data.labels}
    for image, label in zip(data.train.x[:, 0].numpy(), data.train.label.tolist(), strict=True):
        ink = image == image.max()
        assert len(np.unique(image)) == 2
        rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
        filled[data.labels[label]].append(ink.sum() / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1)))
    assert set(filled["square"]) == {1.0}
    assert max(filled["disc"]) < 1
    assert abs(np.mean(filled["disc"]) - np.pi / 4) < 0.02
    assert max(filled["triangle"]) <= 0.75
    assert abs(np.mean(filled["triangle"]) - 0.58) < 0.02
    assert load_data("shapes", channels=3, n=20).event.shape == (3, 16, 16)


def test_markov_statistics_and_entropy() -> None:
    data = load_data("markov", n=4000, length=16, symbols=3)
    start, transition = markov_chain(3)
    np.testing.assert_allclose(start @ transition, start, atol=1e-12)
    np.testing.assert_allclose(transition.sum(1), 1)
    x = data.train.x.long()
    counts = torch.zeros(3, 3, dtype=torch.long)
    for a in range(3):
        for b in range(3):
            counts[a, b] = ((x[:, :-1] == a) & (x[:, 1:] == b)).sum()
    for a in range(3):
        assert stats.chisquare(counts[a].numpy(), transition[a] * int(counts[a].sum())).pvalue > 1e-3
    # −log p under the true chain has the entropy in the notes as its mean.
    log_p = torch.from_numpy(np.log(start))[x[:, 0]] + torch.from_numpy(np.log(transition))[x[:, :-1], x[:, 1:]].sum(1)
    entropy = float(data.notes[0].split()[1])
    assert abs(-log_p.mean() - entropy) < 4 * log_p.std() / len(x) ** 0.5


def test_binarisation_frequencies() -> None:
    """Every grey level g gives ones with frequency g/255; 0 never and 255 always."""
    n = 40_000
    grey = torch.arange(256, dtype=torch.uint8).expand(n, 256)
    ones = binarise(grey, seed=0, epoch=0).double().sum(0)
    assert ones[0] == 0
    assert ones[255] == n
    p = torch.arange(256).double() / 255
    z = (ones - n * p)[1:255] / (n * p * (1 - p))[1:255].sqrt()
    # 254 independent standard normal values: the sum of squares and the extreme, each at 1e-4.
    assert 1e-4 < stats.chi2.cdf(float(z.square().sum()), 254) < 1 - 1e-4
    assert z.abs().max() < stats.norm.ppf(1 - 1e-4 / 508)


def test_epoch_draw_depends_on_its_key_alone() -> None:
    grey = torch.randint(1, 255, (9000, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(binarise(grey, seed=9, epoch=9), None, grey)
    drawn = split.epoch(3, 7).x
    assert torch.equal(drawn, split.epoch(3, 7).x)
    assert torch.equal(drawn, split.epoch(3, 7).epoch(3, 7).x)
    order = permutation(3, 7, len(split))
    in_batches = torch.cat([split.epoch(3, 7).batch(i).x for i in order.split(128)])
    assert torch.equal(in_batches, torch.cat([split.epoch(3, 7).batch(i).x for i in order.split(1000)]))
    for other in (split.epoch(3, 8).x, split.epoch(4, 7).x, split.x):
        assert (
            abs((drawn == other).double().mean() - (p := grey.double() / 255).square().add((1 - p) ** 2).mean()) < 0.02
        )


def test_epoch_of_fixed_data_is_itself() -> None:
    split = load_data("digits").train
    assert split.epoch(0, 5) is split


def test_permutation_is_keyed() -> None:
    assert sorted(permutation(0, 0, 100).tolist()) == list(range(100))
    assert not torch.equal(permutation(0, 0, 100), permutation(0, 1, 100))
    assert not torch.equal(permutation(0, 0, 100), permutation(1, 0, 100))


def test_limit_keeps_a_fixed_part_of_train_only() -> None:
    whole, part = load_data("digits"), load_data("digits", limit=50)
    assert len(part.train) == 50
    assert torch.equal(part.test.x, whole.test.x)
    assert part.options == {"limit": 50}
    first = torch.from_numpy(hashed_order(1257)[:50])
    assert torch.equal(part.train.x, whole.train.x[first])
    assert torch.equal(part.train.label, whole.train.label[first])


def test_classes() -> None:
    number, names = classes(np.array([3.0, 1.0, 3.0]), "y")
    assert number.tolist() == [1, 0, 1]
    assert names == ("1", "3")
    number, names = classes(np.array([b"b", b"a"]), "y")
    assert number.tolist() == [1, 0]
    assert names == ("a", "b")
    with pytest.raises(InputError, match=r"^y has 0\.5, which is not a class; expected integers or text$"):
        classes(np.array([1, 0.5]), "y")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "digist",
            {},
            "there is no data set, file or folder 'digist'; did you mean 'digits'? (unsup data lists the sets)",
        ),
        ("digits", {"limt": 5}, "digits has no option 'limt'; did you mean 'limit'?"),
        ("digits", {"limit": 0}, "digits: limit=0; expected the number of training examples, at least 1"),
        ("digits", {"limit": "5"}, "digits: limit='5' should be of type int"),
        ("moons", {"n": 2.5}, "moons: n=2.5 should be of type int"),
        ("moons", {"n": 5}, "moons: n=5 training examples; expected at least 10"),
        ("shapes", {"channels": 2}, "shapes: channels=2 should be one of 1, 3"),
        ("markov", {"symbols": 1}, "markov: length=32, symbols=1; expected length >= 1 and 2 to 256 symbols"),
    ],
)
def test_bad_names_and_options(name: str, options: dict, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_data(name, **options)
    assert str(error.value) == message


def test_examples_of_a_named_set_are_its_test_split() -> None:
    data = load_data("digits")
    x, names = load_examples("digits", data.event)
    assert torch.equal(x, data.test.x)
    bunch = load_digits()
    assert np.array_equal(bunch.images[int(names[7].split()[1])], x[7, 0].numpy())
