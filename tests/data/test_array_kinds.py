"""Arrays of every kind are read as what they are, or refused in one line: masks, NaN, big integers, orders of axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import unsup
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.data.load import from_arrays, load_data, load_rows
from unsup.data.source import Data

RNG = np.random.default_rng(0)


def whole(data: Data) -> torch.Tensor:
    return torch.cat([data.train.x, data.validation.x, data.test.x])


def same_rows(data: Data, x: np.ndarray) -> bool:
    """Whether ``data`` has the rows of ``x``, in any order."""
    found = sorted(map(tuple, whole(data).double().flatten(1).nan_to_num(-1e9).tolist()))
    return found == sorted(map(tuple, np.nan_to_num(x.reshape(len(x), -1).astype(float), nan=-1e9).tolist()))


# ---------------------------------------------------------------- missing entries


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_in_a_table_is_missing(dtype: Any, tmp_path: Path) -> None:
    x = RNG.normal(size=(60, 3)).astype(dtype)
    x[RNG.random((60, 3)) < 0.3] = np.nan
    x[0] = 1
    np.save(tmp_path / "a.npy", x)
    for data in (from_arrays(x), load_data(tmp_path / "a.npy"), load_data(tmp_path / "a.npy", in_memory=False)):
        assert data.event == Event((3,), REAL, missing=True)
        assert same_rows(data, x)
        assert data.notes[0] == f"{int(np.isnan(x).sum())} of 180 entries are missing (NaN)"
        data.event.check(whole(data))


@pytest.mark.parametrize(
    ("low", "high", "event"),
    [
        (0, 1, Event((3,), BINARY, missing=True)),
        (-5, 20, Event((3,), Support("ordinal", 26, -5), missing=True)),
        (0, 5000, Event((3,), REAL, missing=True)),
    ],
)
def test_the_mask_of_integers_is_kept(low: int, high: int, event: Event) -> None:
    x = RNG.integers(low, high, (80, 3), endpoint=True)
    x[:2] = [[low] * 3, [high] * 3]
    mask = RNG.random((80, 3)) < 0.3
    mask[:2] = False
    data = from_arrays(np.ma.MaskedArray(np.where(mask, 10**6, x), mask))
    assert data.event == event
    assert whole(data).is_floating_point()
    assert same_rows(data, np.where(mask, np.nan, x))
    listed = from_arrays([np.ma.MaskedArray(a, b) for a, b in zip(x, mask, strict=True)])
    assert listed.event == event


def test_a_mask_without_entries_changes_nothing() -> None:
    x = RNG.integers(0, 9, (50, 2))
    assert from_arrays(np.ma.MaskedArray(x)).digest == from_arrays(x).digest


def test_hashes_do_not_depend_on_the_bits_of_nan() -> None:
    one = np.array([[1.0, np.nan], [2.0, 1.0], [3.0, np.nan], [4.0, 0.0]])
    two = one.copy()
    two.view(np.uint64)[np.isnan(two)] = 0xFFF8000000000123
    assert np.isnan(two[0, 1])
    assert from_arrays(one).digest == from_arrays(two).digest


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.ma.masked_less(RNG.integers(0, 256, (9, 4, 4)), 100), "only entries of a table"),
        (np.where(RNG.random((9, 4, 4)) < 0.5, np.nan, 1.0), "are NaN or infinite"),
        (np.array([[1.0, np.inf], [np.nan, 2], [3, 4]]), "1 values of x are infinite, the first in row 0, column 1"),
        (np.array([[1.0, np.nan], [3.0, np.nan], [3, np.nan]]), "every entry of column 1 is missing"),
        (np.ma.MaskedArray([[2**60 + 1, 1], [2, 3], [4, 5]], [[0, 1], [0, 0], [0, 0]]), "float64 does not distinguish"),
        ([np.ma.MaskedArray([1, 2], [0, 1]), np.array([1])], "sequences with masked entries"),
        (np.array([[1, "a"], [2, None], [3, 3]], dtype=object), "entries of NoneType, int, str"),
        ([np.array([1.5, 2]), np.array([1, 2, 3])], "sequences of different types (float64, int64)"),
    ],
)
def test_refused_in_one_line(x: Any, words: str) -> None:
    with pytest.raises(InputError) as error:
        from_arrays(x)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- types


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([np.uint8, np.uint16, np.int32, np.int64, np.uint64]),
    st.integers(0, 2**32),
)
def test_integers_keep_their_values(dtype: Any, seed: int) -> None:
    limits, rng = np.iinfo(dtype), np.random.default_rng(seed)
    x = rng.integers(limits.min, limits.max, (30, 2), dtype, endpoint=True)
    data = from_arrays(x)
    assert same_rows(data, x)
    assert whole(data).min().item() == float(x.min())


def test_ids_beyond_64_bits_as_labels() -> None:
    ids = [2**70 + i % 3 for i in range(30)]
    assert from_arrays(RNG.normal(size=(30, 2)), ids).labels == tuple(str(2**70 + i) for i in range(3))
    near = np.array([2**63 + i % 3 for i in range(30)], np.uint64)
    assert from_arrays(RNG.normal(size=(30, 2)), near).labels == tuple(str(2**63 + i) for i in range(3))


def test_objects_of_one_type_are_labels() -> None:
    words = np.array(["b", "a", "a"] * 10, dtype=object)
    assert from_arrays(RNG.normal(size=(30, 2)), words).labels == ("a", "b")


@pytest.mark.parametrize(
    "label",
    [
        [1, "a"] * 15,
        ["a", None] * 15,
        np.array([1, "a"] * 15, dtype=object),
        [True, "yes"] * 15,
        np.ma.masked_equal([1, 2] * 15, 1),
    ],
)
def test_labels_of_several_types_are_refused(label: Any) -> None:
    with pytest.raises(InputError, match=r"^label has") as error:
        from_arrays(RNG.normal(size=(30, 2)), label)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (np.uint8, np.float32),
        (np.int64, np.float64),
        (np.bool_, np.float32),
        (np.int64, np.uint64),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_splits_of_different_units_are_refused(one: Any, two: Any, turned: bool, tmp_path: Path) -> None:
    one, two = (two, one) if turned else (one, two)
    a, b = np.ones((20, 2), one), np.ones((20, 2), two)
    np.savez(tmp_path / "a.npz", x_train=a, x_test=b)
    with pytest.raises(InputError, match=r"x has different types, .* in train, .* in test"):
        load_data(tmp_path / "a.npz")
    with pytest.raises(InputError, match="pass both in one type and unit"):
        from_arrays(a, unlabelled=b)
    labels = {"y_train": np.array(["a"] * 20), "y_test": np.arange(20)}
    np.savez(tmp_path / "b.npz", x_train=a, x_test=a, **labels)
    with pytest.raises(InputError, match="label has different types"):
        load_data(tmp_path / "b.npz")


def test_integers_of_different_widths_are_one_unit(tmp_path: Path) -> None:
    x = RNG.integers(0, 200, (40, 2))
    np.savez(tmp_path / "a.npz", x_train=x[:30].astype(np.uint8), x_test=x[30:])
    np.savez(tmp_path / "b.npz", x_train=x[:30], x_test=x[30:])
    assert load_data(tmp_path / "a.npz").digest == load_data(tmp_path / "b.npz").digest


@pytest.mark.parametrize("x", [torch.randn(30, 2, requires_grad=True), torch.randn(30, 2).bfloat16()])
def test_tensors_from_training(x: torch.Tensor) -> None:
    assert same_rows(from_arrays(x), x.detach().float().numpy())
    assert same_rows(from_arrays(list(x)), x.detach().float().numpy())


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("dtype", "low", "high", "event"),
    [
        (np.uint16, 0, 65_535, Event((1, 4, 5), Support("ordinal", 65_536))),
        (np.int16, -32_768, 32_767, Event((1, 4, 5), Support("ordinal", 65_536, -32_768))),
        (np.int64, 0, 300, Event((1, 4, 5), Support("ordinal", 65_536))),
        (np.int64, 0, 255, Event((1, 4, 5), Support("ordinal", 256))),
        (np.int64, -70_000, 70_000, Event((1, 4, 5), REAL)),
        (np.uint32, 0, 2**32 - 1, Event((1, 4, 5), REAL)),
    ],
)
def test_stacks_of_deep_pictures(dtype: Any, low: int, high: int, event: Event, tmp_path: Path) -> None:
    x = RNG.integers(low, high, (40, 4, 5), dtype, endpoint=True)
    x[0, 0, :2] = low, high
    np.save(tmp_path / "a.npy", x)
    data = load_data(tmp_path / "a.npy")
    assert data.event == event
    assert same_rows(data, x)
    if event.is_discrete:
        assert whole(data).dtype == event.dtype


SHAPES = [(a, b, c) for a in (1, 2, 3, 4, 9) for b in (1, 3, 4, 9) for c in (1, 2, 3, 4, 9)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_order_of_axes_is_certain_said_or_refused(shape: tuple[int, int, int], tmp_path: Path) -> None:
    a, b, c = shape
    x = RNG.integers(0, 256, (30, *shape), dtype=np.uint8)
    forward, turned = (a, b, c), (c, a, b)
    np.save(tmp_path / "a.npy", x)
    for said, expected in (("first", forward), ("last", turned)):
        for data in (from_arrays(x, channels=said), load_data(tmp_path / "a.npy", channels=said)):  # type: ignore[arg-type]
            assert data.event.shape == expected
            assert same_rows(data, x if said == "first" else x.transpose(0, 3, 1, 2))
            assert not any("channels" in note for note in data.notes)
    colours = {1, 3, 4}
    if a not in colours and c not in colours:
        with pytest.raises(InputError, match="--channels first or last"):
            from_arrays(x)
        return
    data = from_arrays(x)
    said = any(f"x has shape {(30, *shape)} and is read as" in note for note in data.notes)
    if a in colours and c in colours:
        ways = {forward: max(b, c) / min(b, c), turned: max(a, b) / min(a, b)}
        assert ways[data.event.shape] == min(ways.values())
        assert said or b == c
    else:
        assert data.event.shape == (forward if a in colours else turned)
        assert not said


def test_the_order_of_axes_does_not_move_rows() -> None:
    x = RNG.integers(0, 256, (60, 3, 4, 4), dtype=np.uint8)
    assert from_arrays(x).digest == from_arrays(x.transpose(0, 2, 3, 1)).digest
    with pytest.raises(InputError, match="channels='last' does not apply"):
        from_arrays(x[:, 0, 0], channels="last")


def test_a_run_remembers_the_order(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RNG.integers(0, 256, (30, 4, 4, 3), dtype=np.uint8))
    data = load_data(tmp_path / "a.npy", channels="first")
    assert data.options == {"channels": "first"}
    assert load_rows(tmp_path / "a.npy", channels="first").event == data.event
    assert unsup.load_data(data.name, **data.options).digest == data.digest
