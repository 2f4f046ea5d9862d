"""Further streams: the order in which they are seen, and examples without labels beside labelled ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unsup import InputError, from_arrays, load_data
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.parallel import share_of
from unsup.data import Split
from unsup.data.events import common_event
from unsup.data.source import stream_rows


@pytest.mark.parametrize(("n", "size"), [(6, 6), (6, 4), (5, 12), (7, 3), (1, 4)])
def test_a_stream_is_one_shuffle_after_another_wherever_one_starts(n: int, size: int) -> None:
    steps = 30
    whole = torch.cat([stream_rows(3, "unlabelled", n, p * size, size) for p in range(steps)])
    assert torch.equal(whole, stream_rows(3, "unlabelled", n, 0, steps * size))
    for start in range(0, len(whole) - n + 1, n):
        assert sorted(whole[start : start + n].tolist()) == list(range(n))


def test_the_order_of_a_stream_follows_the_seed_the_name_and_the_pass() -> None:
    orders = [
        stream_rows(seed, name, 200, start, 200).tolist()
        for seed, name, start in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 200)]
    ]
    assert len({tuple(order) for order in orders}) == 4
    first = torch.stack([stream_rows(seed, "a", 4, 0, 1)[0] for seed in range(400)]).bincount(minlength=4)
    assert int((first - 100).abs().max()) < 40


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_what_the_processes_see_is_together_what_one_would_see(processes: int) -> None:
    data = from_arrays(np.arange(60.0)[:, None], unlabelled=1000.0 + np.arange(50.0)[:, None])
    rows = torch.arange(7) + 3

    def seen(count: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        batch = data.train.step(rows, {"unlabelled": 3}, seed=5, position=11, part=share_of(7, count, rank))
        assert len(batch["unlabelled"]) == 3 * len(batch)
        return batch.x, batch["unlabelled"].x

    parts = [seen(processes, rank) for rank in range(processes)]
    for whole, found in zip(seen(1, 0), zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(found), whole)


def test_a_stream_that_the_data_lacks_is_named() -> None:
    split = from_arrays(np.eye(9), unlabelled=np.eye(9)).train
    with pytest.raises(InputError, match="reads a stream 'domain_b', but the data has: unlabelled"):
        split.step(torch.arange(2), {"domain_b": 1}, seed=0, position=0, part=share_of(2, 1, 0))


def test_grey_levels_of_a_stream_are_drawn_afresh_in_every_epoch() -> None:
    grey = torch.randint(0, 256, (20, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    split = Split(torch.zeros(20, 1), streams={"unlabelled": Split(grey, grey=grey)})
    first, again, next_one = (split.epoch(0, e).streams["unlabelled"].x for e in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, next_one)
    assert set(first.unique().tolist()) == {0, 1}


def test_few_labels_and_all_examples_without(tmp_path: Path) -> None:
    whole, data = load_data("digits"), load_data("digits", limit=50, unlabelled="digits")
    assert len(data.train) == 50
    for part in ("train", "validation", "test"):
        stream = getattr(data, part).streams["unlabelled"]
        assert torch.equal(stream.x, getattr(whole, part).x)
        assert stream.label is None
    assert data.options == {"limit": 50, "unlabelled": "digits"}
    assert "unlabelled: 1,257 train, 180 validation, 360 test" in data.describe()
    assert data.to_json()["streams"] == {"unlabelled": {"train": 1257, "validation": 180, "test": 360}}
    assert not data.paired


def test_a_class_that_is_left_out_is_left_out_of_the_stream_too() -> None:
    data = load_data("digits", without="3", unlabelled="digits")
    assert torch.equal(data.train.streams["unlabelled"].x, data.train.x)


def csv(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_tables_need_not_show_the_same_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labelled = csv(tmp_path / "l.csv", "a,b,c,kind", [f"{i % 2},{i % 5},{v:.3f},{'xy'[i % 2]}"
                                                     for i, v in enumerate(rng.normal(size=30))])  # fmt: skip
    more = csv(tmp_path / "u.csv", "a,b,c", [f"{i % 3},{i % 9 - 2},{v:.3f}" for i, v in enumerate(rng.normal(size=50))])
    data = load_data(labelled, label="kind", unlabelled=more)
    assert data.event == Event((3,), (Support("ordinal", 3), Support("ordinal", 9, low=-2), REAL))
    assert torch.equal(data.train.x, load_data(labelled, label="kind").train.x)
    assert torch.equal(data.train.streams["unlabelled"].x, load_data(more).train.x)
    again = load_data(data.name, **data.options)
    assert torch.equal(again.train.streams["unlabelled"].x, data.train.streams["unlabelled"].x)
    assert again.event == data.event


def test_columns_that_are_conditions_leave_the_stream_too(tmp_path: Path) -> None:
    rows = [f"{i / 7},{i / 11},{i % 3}" for i in range(40)]
    one, two = csv(tmp_path / "a.csv", "x,y,c", rows), csv(tmp_path / "b.csv", "x,y,c", rows[:30])
    data = load_data(one, given=("c",), unlabelled=two)
    stream = data.train.streams["unlabelled"]
    assert stream.x.shape == (24, 2)
    assert torch.equal(stream.given, load_data(two, given="c").train.given)


@pytest.mark.parametrize(
    ("one", "two", "common"),
    [
        (BINARY, Support("ordinal", 4), Support("ordinal", 4)),
        (Support("ordinal", 3, low=7), Support("ordinal", 3), Support("ordinal", 10)),
        (Support("ordinal", 3, low=1000), Support("ordinal", 3), REAL),
        (Support("nominal", 3), Support("nominal", 5), Support("nominal", 5)),
        (Support("nominal", 3), REAL, REAL),
        (Support("nominal", 3), Support("ordinal", 5), None),
    ],
)
def test_the_event_of_two_tables_holds_what_both_hold(one: Support, two: Support, common: Support | None) -> None:
    for a, b in ((one, two), (two, one)):
        found = common_event(Event((1,), a), Event((1,), b))
        assert found == (None if common is None else Event((1,), common))


def test_streams_of_other_examples_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^unlabelled, moons, has examples of vector of 2, real, but digits of "):
        load_data("digits", unlabelled="moons")
    with pytest.raises(InputError, match="nowhere"):
        load_data("digits", unlabelled="nowhere")
    with pytest.raises(InputError, match=r"x has examples of shape \(2,\), but unlabelled \(3,\)"):
        from_arrays(np.zeros((9, 2)), unlabelled=np.zeros((9, 3)))


def test_arrays_without_labels_beside_labelled_ones() -> None:
    rng = np.random.default_rng(0)
    x, more = rng.integers(0, 4, (50, 3)), rng.integers(0, 9, (200, 3))
    data = from_arrays(x, np.arange(50) % 2, unlabelled=more)
    assert data.event == from_arrays(np.concatenate([x, more])).event
    assert torch.equal(data.train.x, from_arrays(x).train.x.to(data.event.dtype))
    assert torch.equal(data.train.label, from_arrays(x, np.arange(50) % 2).train.label)
    stream = data.train.streams["unlabelled"]
    assert torch.equal(stream.x, from_arrays(more).train.x)
    assert stream.label is None
    assert f"unlabelled: {len(from_arrays(more).train)} train" in data.describe()
