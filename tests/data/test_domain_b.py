"""Data of two domains: the built-in pair, whose translation is known, and any two sources of one event."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unsup import InputError, load_data
from unsup.core.random import Rows
from unsup.data import Split
from unsup.data.builtin import add_stripes
from unsup.data.source import stream_rows

GROUND = (40, 40, 60)
PALE = {(210, 60, 50): (250, 200, 190), (50, 170, 70): (190, 250, 200), (60, 90, 220): (190, 210, 250)}


def second(split: Split) -> Tensor:
    return split.streams["domain_b"].x


def by_hand(x: Tensor) -> np.ndarray:
    """The docstring's T, one pixel at a time."""
    found = x.numpy().copy()
    for picture in found:
        for i in range(1, 16, 2):
            for j in range(16):
                colour = tuple(picture[:, i, j].tolist())
                if colour != GROUND:
                    picture[:, i, j] = PALE[colour]
    return found


def test_the_pair_is_aligned_by_its_map_where_it_is_judged_and_nowhere_else() -> None:
    data = load_data("stripes", n=200)
    assert data.paired
    for split in (data.validation, data.test):
        assert (second(split).numpy() == by_hand(split.x)).all()
        assert 8 < float((second(split).double() - split.x.double()).abs().mean()) < 20
    own = {x.numpy().tobytes() for x in add_stripes(data.train.x)}
    theirs = {x.numpy().tobytes() for x in second(data.train)}
    assert len(theirs) == 200
    assert len(own & theirs) <= 2  # a shape outside the picture may leave two alike
    data.event.check(second(data.train))


def test_the_map_of_the_pair_can_be_undone() -> None:
    x = load_data("stripes", n=300).train.x
    back, y = {pale: colour for colour, pale in PALE.items()}, add_stripes(x).numpy().transpose(0, 2, 3, 1)
    undone = np.array([back.get(tuple(p), tuple(p)) for p in y.reshape(-1, 3).tolist()], np.uint8).reshape(y.shape)
    assert (undone.transpose(0, 3, 1, 2) == x.numpy()).all()


def test_both_domains_of_the_pair_have_the_same_kinds_of_shapes() -> None:
    """The shares of the three colours, over rows without stripes, agree within four standard errors."""
    data = load_data("stripes", n=2000)
    for colour in PALE:
        ink = torch.tensor(colour).view(3, 1, 1)
        a, b = ((x[:, :, ::2] == ink).all(1).flatten(1).double().mean(1) for x in (data.train.x, second(data.train)))
        assert abs(a.mean() - b.mean()) < 4 * ((a.var() + b.var()) / 2000).sqrt()


def test_a_step_sees_the_second_domain_in_an_order_of_its_own() -> None:
    x, b = torch.arange(10).view(10, 1), 100 + torch.arange(7).view(7, 1)
    split = Split(x, streams={"domain_b": Split(b)})
    rows = torch.tensor([4, 0, 9])
    whole = Rows(3, 0, 3)
    seen = [split.step(rows, {"domain_b": 1}, seed=0, position=p, part=whole) for p in range(7)]
    assert all(torch.equal(batch.x, x[rows]) for batch in seen)
    found = torch.cat([batch["domain_b"].x for batch in seen])
    assert torch.equal(found, b[stream_rows(0, "domain_b", 7, 0, 21)])
    assert all(sorted(found[i : i + 7, 0].tolist()) == list(range(100, 107)) for i in (0, 7, 14))


def pngs(folder: Path, count: int, *, seed: int, side: int = 8, mode: str = "RGB") -> Path:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    shape = (side, side, 3) if mode == "RGB" else (side, side)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def test_two_folders_make_two_domains_each_with_its_own_splits(tmp_path: Path) -> None:
    a, b = pngs(tmp_path / "a", 20, seed=0), pngs(tmp_path / "b", 33, seed=1)
    data, other = load_data(a, domain_b=b), load_data(b)
    for one, two in ((data.train, other.train), (data.validation, other.validation), (data.test, other.test)):
        assert torch.equal(second(one), two.x)
    assert torch.equal(data.train.x, load_data(a).train.x)
    assert not data.paired
    assert data.options == {"domain_b": str(b)}
    assert any("domain b" in note and "33 images" in note for note in data.notes)
    again = load_data(data.name, **data.options)
    assert torch.equal(second(again.train), second(data.train))
    assert len(second(load_data(a, domain_b=b, limit=5).train)) == 5
    batch = data.train.epoch(0, 0).step(torch.arange(16), {"domain_b": 1}, seed=0, position=3, part=Rows(16, 4, 8))
    assert batch["domain_b"].x.shape == (8, 3, 8, 8)


def test_the_options_of_the_first_domain_are_those_of_the_second(tmp_path: Path) -> None:
    a, b = pngs(tmp_path / "a", 12, seed=0, side=9), pngs(tmp_path / "b", 12, seed=1, side=12)
    assert second(load_data(a, domain_b=b, resize=8).train).shape[1:] == (3, 8, 8)
    grey = pngs(tmp_path / "grey", 12, seed=2, mode="L", side=9)
    mixed = second(load_data(a, domain_b=grey).train)
    assert mixed.shape[1:] == (3, 9, 9)
    assert bool((mixed[:, 0] == mixed[:, 2]).all())


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("digits", "moons", ("moons", "vector of 2", "the same event")),
        ("digits", "nowhere", ("nowhere",)),
    ],
)
def test_domains_that_do_not_fit_are_refused_in_one_line(a: str, b: str, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        load_data(a, domain_b=b)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def test_folders_of_other_sizes_say_how_to_mend_it(tmp_path: Path) -> None:
    a, b = pngs(tmp_path / "a", 12, seed=0), pngs(tmp_path / "b", 12, seed=1, side=12)
    with pytest.raises(InputError, match="--resize 8"):
        load_data(a, domain_b=b)
