"""What examples are conditioned on: labels, columns, other data; found again by a run, and read for scoring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import orders
import pytest
import torch
from PIL import Image

from unsup import InputError, from_arrays, load_data
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.data import load_batch, load_examples
from unsup.data.source import Data

PARTS = ("train", "validation", "test")


def whole(data: Data, field: str) -> torch.Tensor:
    return torch.cat([getattr(getattr(data, part), field) for part in PARTS])


def again(data: Data) -> Data:
    recorded = json.loads(json.dumps(data.to_json()))
    return load_data(recorded["name"], **recorded["options"])


def table(path: Path, n: int = 60) -> Path:
    rng, words = np.random.default_rng(n), ("red", "green", "blue")
    rows = [f"{i % 2},{rng.normal():.6f},{i % 7},{rng.normal():.6f},{words[i % 3]}" for i in range(n)]
    path.write_text("flag,alcohol,grade,ash,colour\n" + "\n".join(rows) + "\n")
    return path


# --- labels -----------------------------------------------------------------------------------------------------------


def test_labels_become_conditions() -> None:
    data = load_data("digits", given="label")
    assert data.given == labels(10)
    for part in PARTS:
        split = getattr(data, part)
        assert torch.equal(split.given, split.label)
    assert data.options == {"given": "label"}
    assert data.describe().endswith("; given one of 10 classes")
    assert torch.equal(again(data).train.given, data.train.given)
    assert torch.equal(data.train.batch(torch.arange(5)).given, data.train.label[:5])
    assert torch.equal(data.train.x, load_data("digits").train.x)


def test_conditions_stay_with_their_examples_when_some_are_taken() -> None:
    data, full = load_data("digits", given="label", without="3", limit=40), load_data("digits", given="label")
    assert len(data.train) == 40
    assert data.given == labels(10)
    for x, given in zip(data.train.x, data.train.given, strict=True):
        (place,) = (full.train.x == x).flatten(1).all(1).nonzero()[0]
        assert full.train.given[place] == given


def test_labels_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="markov has no labels for given="):
        load_data("markov", given="label")
    with pytest.raises(InputError, match="only one class"):
        from_arrays(np.zeros((9, 2)), np.zeros(9), given="label")


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "event", "condition"),
    [
        (("alcohol",), Event((3,), (BINARY, Support("ordinal", 7), REAL)), Event((1,), REAL)),
        ("grade", Event((3,), (BINARY, REAL, REAL)), Event((1,), Support("ordinal", 7))),
        (["ash", "flag"], Event((2,), (REAL, Support("ordinal", 7))), Event((2,), (REAL, BINARY))),
        (("alcohol", "ash"), Event((2,), (BINARY, Support("ordinal", 7))), Event((2,), REAL)),
    ],
)
def test_columns_leave_the_row_and_become_the_condition(
    tmp_path: Path, given: Any, event: Event, condition: Event
) -> None:
    path = table(tmp_path / "t.csv")
    plain, data = load_data(path), load_data(path, given=given)
    names = [given] if isinstance(given, str) else list(given)
    assert plain.columns is not None
    assert data.columns == tuple(c for c in plain.columns if c not in names)
    assert (data.event, data.given) == (event, condition)
    assert torch.equal(
        whole(data, "given"), whole(plain, "x")[:, [plain.columns.index(c) for c in names]].to(condition.dtype)
    )
    assert torch.equal(whole(data, "x").double(), whole(plain, "x")[:, [plain.columns.index(c) for c in data.columns]])
    data.event.check(whole(data, "x"))
    assert data.options == {"given": names}
    assert again(data).event == data.event
    assert torch.equal(again(data).test.given, data.test.given)
    assert f"given {', '.join(names)} (" in data.describe()


def test_the_label_of_a_table_and_its_column_of_that_name(tmp_path: Path) -> None:
    assert load_data(table(tmp_path / "t.csv"), given="label").given == labels(3)
    (tmp_path / "u.csv").write_text("a,label\n" + "\n".join(f"{i / 3},{i % 7}" for i in range(30)))
    assert load_data(tmp_path / "u.csv", given="label").given == Event((1,), Support("ordinal", 7))
    assert load_data(tmp_path / "u.csv", label="label", given="label").given == labels(7)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("alcool",), ("no column 'alcool'", "did you mean 'alcohol'")),
        (("alcohol", "alcohol"), ("distinct columns",)),
        (("alcohol", "digits"), ("no column 'digits'",)),
        (("flag", "alcohol", "grade", "ash"), ("no columns besides",)),
    ],
)
def test_columns_that_cannot_be_given(tmp_path: Path, given: tuple[str, ...], words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        load_data(table(tmp_path / "t.csv"), given=given)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


# --- other data -------------------------------------------------------------------------------------------------------


def pngs(folder: Path, names: list[str], *, seed: int, suffix: str = "png", side: int = 6) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (len(names), side, side, 3), dtype=np.uint8)
    for name, image in zip(names, pixels, strict=True):
        path = folder / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return pixels.transpose(0, 3, 1, 2)


def test_images_are_given_images_of_the_same_names(tmp_path: Path) -> None:
    names = [f"{i:02d}" for i in range(20)]
    photos = pngs(tmp_path / "photos", names, seed=0)
    maps = pngs(tmp_path / "maps", names, seed=1, suffix="bmp")
    data = load_data(tmp_path / "photos", given=str(tmp_path / "maps"))
    order = orders.order(orders.files((tmp_path / "photos").iterdir()))
    np.testing.assert_array_equal(whole(data, "x").numpy(), photos[order])
    np.testing.assert_array_equal(whole(data, "given").numpy(), maps[order])
    assert data.given == Event((3, 6, 6), Support("ordinal", 256))
    assert data.options == {"given": str(tmp_path / "maps")}
    assert torch.equal(again(data).train.given, data.train.given)
    assert f"given an image of 3×6×6, ordinal(256) of {tmp_path / 'maps'}" in data.describe()
    small = load_data(tmp_path / "photos", given=str(tmp_path / "maps"), resize=4)
    assert small.given is not None
    assert small.given.shape == (3, 4, 4)


def test_folders_that_do_not_pair_are_refused_in_one_line(tmp_path: Path) -> None:
    names = [f"{i:02d}" for i in range(12)]
    pngs(tmp_path / "a", names, seed=0)
    pngs(tmp_path / "b", [*names[:-1], "other"], seed=1)
    with pytest.raises(InputError, match=r"^2 files of .* have no file of the same name in the other, first '11'"):
        load_data(tmp_path / "a", given=str(tmp_path / "b"))
    np.save(tmp_path / "c.npy", np.zeros((11, 2)))
    with pytest.raises(InputError, match=r"has 12 examples and .*c\.npy 11; expected equal numbers$"):
        load_data(tmp_path / "a", given=str(tmp_path / "c.npy"))
    with pytest.raises(InputError, match="no data set, file or folder"):
        load_data(tmp_path / "a", given=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="has no named columns"):
        load_data("digits", given=("a", "b"))


def test_rows_of_an_array_are_conditions_row_by_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=(40, 2)), rng.normal(size=(40, 3))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "c.npy", c)
    data = load_data(tmp_path / "x.npy", given=str(tmp_path / "c.npy"))
    np.testing.assert_array_equal(whole(data, "x").numpy(), x[orders.order(x)])
    np.testing.assert_allclose(whole(data, "given").numpy(), c[orders.order(x)], rtol=1e-7)
    assert data.train.given is not None
    assert data.train.given.dtype == torch.float32


def test_other_splits_are_no_pairs(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((20, 2)))
    np.savez(tmp_path / "c.npz", x_train=np.zeros((10, 2)), x_test=np.zeros((10, 2)))
    with pytest.raises(InputError, match=r"split differently \(by a hash and 10 \+ 0 \+ 10\)"):
        load_data(tmp_path / "x.npy", given=str(tmp_path / "c.npz"))


# --- arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "event"),
    [
        (np.arange(50) % 3 * 10, labels(3)),
        (np.array(["b", "a"] * 25), labels(2)),
        (np.linspace(0, 1, 50), Event((1,), REAL)),
        (np.random.default_rng(0).normal(size=(50, 2)), Event((2,), REAL)),
        (
            np.random.default_rng(0).integers(0, 256, (50, 4, 4), dtype=np.uint8),
            Event((1, 4, 4), Support("ordinal", 256)),
        ),
    ],
)
def test_arrays_with_conditions(given: np.ndarray, event: Event) -> None:
    x = np.random.default_rng(1).normal(size=(50, 2))
    data = from_arrays(x, np.arange(50) % 5, given=given)
    assert data.given == event
    ordered = given[orders.order(x)]
    if event.shape:
        np.testing.assert_allclose(whole(data, "given").numpy().reshape(ordered.shape), ordered, rtol=1e-6)
    else:
        np.testing.assert_array_equal(np.unique(given)[whole(data, "given").numpy()], ordered)
    assert whole(data, "label").tolist() == (np.arange(50) % 5)[orders.order(x)].tolist()


def test_arrays_given_their_labels() -> None:
    x, y = np.random.default_rng(1).normal(size=(50, 2)), np.arange(50) % 5
    data = from_arrays(x, y, given="label")
    assert data.given == labels(5)
    assert torch.equal(whole(data, "given"), whole(data, "label"))
    assert from_arrays(x, given=np.array(["b", "a"] * 25)).labels == ("a", "b")
    with pytest.raises(InputError, match="for data with labels"):
        from_arrays(x, given="label")
    with pytest.raises(InputError, match="one condition for each of 50"):
        from_arrays(x, given=y[:49])


# --- for scoring ------------------------------------------------------------------------------------------------------


def test_classes_of_a_file_are_those_of_the_model_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(60).reshape(30, 2), label=np.array(["ant", "bee", "cat"] * 10))
    data = load_data(tmp_path / "a.npz", given="label")
    np.savez(tmp_path / "b.npz", x=np.ones((4, 2)), label=np.array(["cat", "bee", "bee", "cat"]))
    assert data.labels is not None
    batch, _ = load_batch(tmp_path / "b.npz", data.event, condition=data.given, labels=data.labels)
    assert batch.given.tolist() == [2, 1, 1, 2]
    np.savez(tmp_path / "c.npz", x=np.ones((2, 2)), label=np.array(["cat", "bea"]))
    with pytest.raises(InputError, match="has an unknown class 'bea'; did you mean 'bee'"):
        load_batch(tmp_path / "c.npz", data.event, condition=data.given, labels=data.labels)
    np.save(tmp_path / "d.npy", np.ones((2, 2)))
    assert load_batch(tmp_path / "d.npy", data.event, condition=data.given, labels=data.labels)[0].given is None


def test_columns_of_a_file_are_conditions_of_the_models_range(tmp_path: Path) -> None:
    data = load_data(table(tmp_path / "t.csv"), given=("grade", "alcohol"))
    (tmp_path / "new.csv").write_text("flag,alcohol,grade,ash\n0,1.5,3,2.5\n1,2.5,4,3.5\n")
    batch, names = load_batch(tmp_path / "new.csv", data.event, condition=data.given, given=data.options["given"])
    assert batch.x.tolist() == [[0, 2.5], [1, 3.5]]
    assert batch.given.tolist() == [[3, 1.5], [4, 2.5]]
    assert names == ("line 2", "line 3")
    x, _ = load_examples(tmp_path / "new.csv", data.event, given=data.options["given"])
    assert torch.equal(x, batch.x)
    (tmp_path / "new.csv").write_text("flag,ash\n0,2.5\n1,3.5\n")
    assert load_examples(tmp_path / "new.csv", data.event, given=data.options["given"])[0].shape == (2, 2)
    (tmp_path / "new.csv").write_text("flag,alcohol,grade,ash\n0,1.5,9,2.5\n1,2.5,4,3.5\n")
    with pytest.raises(InputError, match=r"the conditions of .*new\.csv: 1 of 2 examples have values outside"):
        load_batch(tmp_path / "new.csv", data.event, condition=data.given, given=data.options["given"])


def test_examples_of_a_set_with_a_name_are_its_test_split_with_its_conditions() -> None:
    data = load_data("digits", given="label")
    batch, names = load_batch("digits", data.event, condition=data.given, labels=data.labels or ())
    assert torch.equal(batch.given, data.test.given)
    assert torch.equal(batch.x, data.test.x)
    assert len(names) == 360
