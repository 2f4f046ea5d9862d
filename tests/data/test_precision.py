"""Precision follows the data: what tells rows apart in a file still does in the tensors and in what models draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orders
import pytest
import torch

import unsup
from unsup import InputError, from_arrays, load_data
from unsup.core.event import REAL, Event, Support
from unsup.core.model import CanSample
from unsup.data import load_examples
from unsup.data.precision import spoilt
from unsup.data.source import Data

RNG = np.random.default_rng(0)
N = 600
SPREAD = RNG.normal(size=N)


@pytest.mark.parametrize(
    ("column", "needs"),
    [
        (SPREAD, False),
        (1e4 + SPREAD, False),  # neighbours in float32 are 0.00098 apart
        (1e5 + SPREAD, True),  # 0.0078
        (1e9 + SPREAD, True),
        (1e9 + 1e6 * SPREAD, False),
        (1e-30 * SPREAD, False),
        (1e-42 * SPREAD, True),  # 1.4e-45 apart: below the normal numbers
        (1e39 * SPREAD, True),  # infinite
        (np.full(N, 1 / 3), False),
        (np.full(N, 1e300), True),  # infinite
        (np.arange(N) % 256 / 255, False),
        (1e4 * (np.arange(N) % 2) + 1e-4 * SPREAD, True),  # tight clusters far apart: the spread of all is no measure
        (np.where(np.arange(N) % 20 == 0, 0, 1.7e9 + np.arange(N)), True),  # seconds, and 0 for missing
        (np.exp(4 * SPREAD), False),
        (np.where(np.arange(N) == 3, 1e9, SPREAD), False),  # one outlier
    ],
)
def test_a_column_is_spoilt_where_float32_loses_what_tells_rows_apart(column: np.ndarray, needs: bool) -> None:
    found = spoilt(column[:, None], np.float32)
    assert found.tolist() == [needs]
    if not needs and column.std() > 0:
        error = np.abs(column - column.astype(np.float32).astype(float)).max() / column.std()
        assert error <= 0.5e-3
    both = spoilt(np.stack([SPREAD, column], 1), np.float32)
    assert both.tolist() == [False, needs]


def test_many_plain_numbers_are_not_spoilt() -> None:
    assert not spoilt(np.random.default_rng(1).normal(size=(200_000, 1)), np.float32).any()
    assert not spoilt(np.random.default_rng(1).uniform(1, 2, size=(100_000, 1)), np.float32).any()


FAR = np.stack([1e9 + SPREAD, RNG.normal(size=N)], 1)


def saved(kind: str, folder: Path, x: np.ndarray) -> Path:
    path = folder / f"x.{kind}"
    if kind == "npy":
        np.save(path, x)
    elif kind == "npz":
        np.savez(path, x=x)
    elif kind == "csv":
        path.write_text("a,b\n" + "\n".join(f"{a!r},{b!r}" for a, b in x.tolist()))
    else:
        pandas = pytest.importorskip("pandas", reason="needs the extra tables")
        pytest.importorskip("pyarrow")
        pandas.DataFrame(x, columns=["a", "b"]).to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "parquet"])
def test_every_reader_keeps_the_digits_and_says_so(tmp_path: Path, kind: str) -> None:
    path = saved(kind, tmp_path, FAR)
    data = load_data(path)
    assert data.event == Event((2,), REAL, precision="float64")
    np.testing.assert_array_equal(torch.cat([data.train.x, data.validation.x, data.test.x]), FAR[orders.order(FAR)])
    assert data.train.x.dtype == torch.float64
    x, _ = load_examples(path, data.event)
    np.testing.assert_array_equal(x, FAR)
    assert from_arrays(FAR).event == data.event
    near = load_data(saved(kind, tmp_path, FAR - [1e9, 0]))
    assert near.event == Event((2,), REAL)


def test_examples_of_a_float64_event_are_float64(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2), np.float32))
    x, _ = load_examples(tmp_path / "x.npy", Event((2,), REAL, precision="float64"))
    assert x.dtype == torch.float64


def test_whole_numbers_far_from_0() -> None:
    seconds = 1_700_000_000 + RNG.integers(0, 100, N)
    one, other = np.stack([seconds, np.arange(N) % 5], 1), np.stack([seconds, 1000 * np.arange(N)], 1)
    levels = from_arrays(one)
    assert levels.event.is_discrete
    assert levels.event.needs_float64
    assert levels.train.x.dtype == torch.int64
    # Beside a real column, levels are held as floats, in which they must stay apart too.
    assert from_arrays(other).event == Event(
        (2,), (Support("ordinal", 100, int(seconds.min())), REAL), precision="float64"
    )
    wide = np.stack([1_700_000_000 + np.arange(N), np.arange(N)], 1)
    assert from_arrays(wide).event == Event((2,), REAL, precision="float64")
    assert from_arrays(np.stack([np.arange(N) * 1000, np.arange(N)], 1)).event == Event((2,), REAL)


def test_samples_keep_apart_what_the_data_keeps_apart(tmp_path: Path) -> None:
    data = from_arrays(FAR)
    model = unsup.create("gaussian-mixture", data.event, components=1)
    unsup.fit(model, data, progress="off")
    model.save(str(tmp_path / "model"))
    for one in (model, unsup.load(str(tmp_path / "model"))):
        assert isinstance(one, CanSample)
        drawn = one.sample(2000, generator=torch.Generator().manual_seed(0))
        assert drawn.dtype == torch.float64
        assert len(drawn[:, 0].unique()) == 2000
        assert float(drawn[:, 0].std()) == pytest.approx(FAR[:, 0].std(), rel=0.1)


# --- whole numbers beyond what a float holds --------------------------------------------------------------------------


def test_unsigned_numbers_do_not_wrap() -> None:
    x = RNG.integers(2**63, 2**64 - 1, (N, 2), dtype=np.uint64)
    data = from_arrays(x)
    np.testing.assert_array_equal(data.train.x.numpy(), x[orders.parts(x)[0]].astype(float))
    small = from_arrays((x % 7).astype(np.uint64))
    assert small.event == Event((2,), Support("ordinal", 7))


def table(path: Path, column: list[int]) -> Path:
    path.write_text("a,b,c\n" + "\n".join(f"{i / 7},{v},{'uv'[i % 2]}" for i, v in enumerate(column)))
    return path


@pytest.mark.parametrize(
    "column",
    [
        [2**53 + i % 4 for i in range(N)],
        [2**60 + i for i in range(N)],
        [2**53 + i % 4 if i % 9 else 0 for i in range(N)],
        [-(2**62) + i % 2 for i in range(N)],
    ],
)
def test_numbers_that_float64_cannot_tell_apart_are_refused(tmp_path: Path, column: list[int]) -> None:
    mend = f"subtract {min(column)} from them" if min(column) else "remove them"
    with pytest.raises(InputError, match=rf"column 1 has .* too far from 0 .*; {mend}$"):
        from_arrays(np.stack([np.arange(len(column)), np.array(column)], 1))
    path = table(tmp_path / "t.csv", column)
    with pytest.raises(InputError, match=rf"column 'b': integers .* too far from 0 .*; {mend}, or remove "):
        load_data(path)
    assert load_data(path, drop=("b",)).event == Event((1,), REAL)
    if min(column):
        assert load_data(table(path, [v - min(column) for v in column])).columns == ("a", "b")


def test_numbers_that_float64_does_tell_apart_are_not_refused(tmp_path: Path) -> None:
    column = [int(v) for v in RNG.integers(2**55, 2**62, N)]
    data = load_data(table(tmp_path / "t.csv", column))
    rows = [(i / 7, float(v), "uv"[i % 2]) for i, v in enumerate(column)]
    assert data.train.x[:, 1].tolist() == [float(column[i]) for i in orders.parts(rows)[0]]
    assert load_data(table(tmp_path / "t.csv", [0, 2**53, 5] * 20)).event.columns[1] == REAL


def named(data: Data) -> list[str]:
    assert data.labels is not None
    assert data.train.label is not None
    return [data.labels[i] for i in data.train.label.tolist()]


@pytest.mark.parametrize("start", [2**53, 2**63 - 2, 2**64 - 2, 10**30, -(2**53) - 5])
def test_labels_keep_all_their_digits(tmp_path: Path, start: int) -> None:
    ids = [start + i % 4 for i in range(60)]
    (tmp_path / "t.csv").write_text("a,id\n" + "\n".join(f"{i}.5,{v}" for i, v in enumerate(ids)))
    expected = [str(ids[i]) for i in orders.parts([(i + 0.5, float(v)) for i, v in enumerate(ids)])[0]]
    assert named(load_data(tmp_path / "t.csv", label="id")) == expected
    if start == 2**53:
        x = np.arange(60.0)[:, None]
        assert named(from_arrays(x, np.array(ids))) == [str(ids[i]) for i in orders.parts(x)[0]]
        pandas = pytest.importorskip("pandas", reason="needs the extra tables")
        pytest.importorskip("pyarrow")
        pandas.DataFrame({"a": np.arange(60) + 0.5, "id": ids}).to_parquet(tmp_path / "t.parquet")
        assert named(load_data(tmp_path / "t.parquet", label="id")) == expected


def test_labels_that_are_written_as_fractions_are_still_whole_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,id\n" + "\n".join(f"{i}.5,{i % 3}.0" for i in range(30)))
    assert load_data(tmp_path / "t.csv", label="id").labels == ("0", "1", "2")
    (tmp_path / "t.csv").write_text("a,id\n" + "\n".join(f"{i}.5,{i % 3}.5" for i in range(30)))
    with pytest.raises(InputError, match="which is not a class"):
        load_data(tmp_path / "t.csv", label="id")


def test_options_may_be_numbers_of_numpy() -> None:
    data = load_data("moons", n=np.int64(40), limit=np.int32(30))
    assert len(data.train) == 30
    assert data.options == {"n": 40, "limit": 30}
    assert all(type(value) is int for value in data.options.values())


def test_tensors_from_training_are_arrays():
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    plain = unsup.from_arrays(x)
    graph = unsup.from_arrays(x.clone().requires_grad_() * 1.0, weight=torch.ones(30, requires_grad=True))
    assert torch.equal(graph.train.x, plain.train.x)
    assert not graph.train.x.requires_grad
    assert torch.equal(unsup.from_arrays(x.bfloat16()).train.x, unsup.from_arrays(x.bfloat16().float()).train.x)
    rows = [torch.arange(n + 1.0).requires_grad_() for n in range(12)]
    assert unsup.from_arrays(rows).event.open
