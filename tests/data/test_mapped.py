"""Arrays on disk: what is read by rows is what would be in memory, within a limit that the array is larger than."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import orders
import pytest
import torch
from torch.utils.data import DataLoader

import unsup
from unsup import InputError, load_data
from unsup.core import memory
from unsup.data import Split, load_examples
from unsup.data.hashing import copy_hashes, row_hashes
from unsup.data.mapped import Mapped
from unsup.data.source import Data

RNG = np.random.default_rng(0)
ARRAYS = {
    "pixels": RNG.integers(0, 256, (40, 3, 4, 5), dtype=np.uint8),
    "channels last": RNG.integers(0, 256, (40, 4, 5, 3), dtype=np.uint8),
    "bits": RNG.random((40, 4, 5)) > 0.5,
    "levels": RNG.integers(-3, 9, (40, 6)),
    "levels of columns": np.stack([RNG.integers(0, 2, 40), RNG.integers(5, 8, 40) * 1000], 1),
    "ordinals and binaries": np.stack([RNG.integers(0, 2, 40), RNG.integers(0, 3, 40) + 1000], 1),
    "float64": RNG.normal(size=(40, 7)),
    "float64 far from 0": RNG.normal(size=(40, 2)) + 1e9,
    "float16": RNG.normal(size=(40, 7)).astype(np.float16),
    "other byte order": RNG.normal(size=(40, 7)).astype(">f4"),
    "columns first": np.asfortranarray(RNG.normal(size=(40, 7))),
    "large whole numbers": RNG.integers(2**63, 2**64 - 1, (40, 2), dtype=np.uint64),
}


def splits(data: Data) -> dict[str, Split]:
    return {"train": data.train, "validation": data.validation, "test": data.test}


def agree(found: Data, expected: Data) -> None:
    assert found.event == expected.event
    for name, split in splits(found).items():
        other = splits(expected)[name]
        assert isinstance(split.examples, Mapped)
        assert isinstance(other.examples, torch.Tensor)
        assert len(split) == len(other)
        rows = torch.arange(len(other)).flip(0)
        assert split.rows(rows).dtype == other.x.dtype
        assert torch.equal(split.rows(rows), other.x[rows])
        assert torch.equal(split.x, other.x)
        some = rows[::2]
        assert torch.equal(split.take(some).take(torch.tensor([-1, 0])).x, other.x[some][[-1, 0]])
        assert torch.equal(split.take(rows % 2 == 0).x, other.x[rows % 2 == 0])


@pytest.mark.parametrize("kind", ARRAYS)
def test_what_is_on_disk_is_what_would_be_in_memory(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "a.npy", ARRAYS[kind])
    data = load_data(tmp_path / "a.npy", in_memory=False)
    agree(data, load_data(tmp_path / "a.npy", in_memory=True))
    assert "read from disk on demand" in data.describe()
    assert data.options == {"in_memory": False}
    agree(load_data(data.name, **data.options), load_data(tmp_path / "a.npy"))


@pytest.mark.parametrize("kind", ["pixels", "channels last", "levels", "float64 far from 0"])
def test_shards_are_one_array(tmp_path: Path, kind: str) -> None:
    array = ARRAYS[kind]
    np.save(tmp_path / "whole.npy", array)
    shards = tmp_path / "shards"
    shards.mkdir()
    for i, part in enumerate(np.split(array, [1, 7, 30])):
        np.save(shards / f"{i:03d}.npy", part)
    whole = load_data(tmp_path / "whole.npy")
    agree(load_data(shards, in_memory=False), whole)
    resident = load_data(shards)
    assert resident.event == whole.event
    assert torch.equal(resident.test.x, whole.test.x)
    assert resident.name == str(shards)
    x, names = load_examples(shards, whole.event)
    assert torch.equal(x, load_examples(tmp_path / "whole.npy", whole.event)[0])
    assert names[-1] == "39"


def test_shards_named_after_parts_are_the_splits(tmp_path: Path) -> None:
    x = RNG.normal(size=(40, 2))
    for name, rows in (("train-0", x[:10]), ("train-1", x[10:20]), ("valid", x[20:28]), ("test_000", x[28:])):
        np.save(tmp_path / f"{name}.npy", rows)
    for data in (load_data(tmp_path), load_data(tmp_path, in_memory=False)):
        for split, rows in ((data.train, x[:20]), (data.validation, x[20:28]), (data.test, x[28:])):
            np.testing.assert_array_equal(split.x.numpy(), rows[orders.order(rows, (0, 0))])
        assert data.split == "as in the file"
    np.save(tmp_path / "more.npy", x)
    with pytest.raises(InputError, match=r"files named after splits, and more\.npy"):
        load_data(tmp_path)


@pytest.mark.parametrize("on_disk", [False, True])
def test_shards_and_values_that_do_not_fit_are_refused(tmp_path: Path, on_disk: bool) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 2)))
    np.save(tmp_path / "b.npy", np.zeros((5, 3)))
    with pytest.raises(InputError, match=r"differ: a\.npy has rows of shape \(2,\) and type float64, b\.npy has"):
        load_data(tmp_path, in_memory=not on_disk)
    bad = np.zeros((50, 2))
    bad[41, 1], bad[45, 0] = np.nan, np.inf
    np.save(tmp_path / "b.npy", bad)
    with pytest.raises(InputError, match=r"b\.npy: 1 values of x are infinite, the first in row 45, column 0 "):
        load_data(tmp_path, in_memory=not on_disk)
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"b\.npy has no numeric arrays"):
        load_data(tmp_path, in_memory=not on_disk)
    np.save(tmp_path / "b.npy", np.zeros((500, 2)))
    (tmp_path / "b.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:900])
    with pytest.raises(InputError, match=r"b\.npy has no numeric arrays"):
        load_data(tmp_path, in_memory=not on_disk)
    with pytest.raises(InputError, match="has no option 'in_memory'"):
        load_data("digits", in_memory=True)


def test_a_chunk_at_a_time_sees_what_all_at_once_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unsup.data.arrays._BYTES_AT_ONCE", 100)
    x = RNG.integers(-50, 60, (500, 3))
    x[499, 2], x[0, 0] = 3000, -70
    np.save(tmp_path / "x.npy", x)
    event = load_data(tmp_path / "x.npy", in_memory=False).event
    assert [(s.kind, s.low, s.levels) for s in event.columns[:2]] == [
        ("ordinal", int(x[:, d].min()), int(x[:, d].max() - x[:, d].min()) + 1) for d in range(2)
    ]
    assert event.columns[2].kind == "real"
    y = x.astype(float)
    y[3, 1], y[400, 2], y[401, 0] = np.inf, np.nan, -np.inf
    np.save(tmp_path / "y.npy", y)
    with pytest.raises(InputError, match="2 values of x are infinite, the first in row 3, column 1"):
        load_data(tmp_path / "y.npy", in_memory=False)


def test_files_are_left_on_disk_when_they_are_large_for_the_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RNG.normal(size=(100, 10)))
    size = (tmp_path / "a.npy").stat().st_size
    for most, on_disk in ((4 * size, False), (4 * size - 4, True), (None, False)):
        with memory.within(most):
            assert isinstance(load_data(tmp_path / "a.npy").train.examples, Mapped) == on_disk
            assert isinstance(load_data(tmp_path / "a.npy", in_memory=True).train.examples, torch.Tensor)
            # Examples that a user wants scored come as a tensor.
            assert isinstance(load_examples(tmp_path / "a.npy", load_data(tmp_path / "a.npy").event)[0], torch.Tensor)
    with memory.within(2 * size - 4), pytest.raises(InputError, match=r"--no-in-memory .*--max-memory GB"):
        load_data(tmp_path / "a.npy", in_memory=True)


def test_training_is_the_same_from_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RNG.normal(size=(300, 4)).astype(np.float32))
    states = []
    for in_memory in (True, False):
        data = load_data(tmp_path / "a.npy", in_memory=in_memory)
        model = unsup.create("made", data.event, preset="tiny")
        fitted = unsup.fit(model, data, steps=5, progress="off", batch_size=16)
        states.append((model.state_dict(), fitted.validation, unsup.evaluate_likelihood(model, data.test)))
    assert all(torch.equal(v, states[1][0][k]) for k, v in states[0][0].items())
    assert states[0][1:] == states[1][1:]


def test_workers_of_a_loader_open_the_files_for_themselves(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RNG.normal(size=(2000, 50)))
    split = load_data(tmp_path / "a.npy", in_memory=False).train.take(torch.arange(30))
    content = pickle.dumps(split)
    assert len(content) < 20_000
    assert torch.equal(pickle.loads(content).x, split.x)
    loader = DataLoader(split, batch_size=7, num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(torch.cat([batch["x"] for batch in loader]), split.x)


STORY = """
import resource, sys
import torch, unsup
from pathlib import Path
from unsup.data import load_data

path, how = sys.argv[1:]
limit = 700 * 2**20
assert Path(path).stat().st_size > limit
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
data = load_data(path, **({} if how == "as it comes" else {"in_memory": True}))
model = unsup.create("made", data.event, preset="tiny")
unsup.fit(model, data, steps=3, batch_size=32, validation_limit=100, progress="off")
found = unsup.evaluate_likelihood(model, data.test.take(torch.arange(50)))
print(len(data.train) + len(data.validation) + len(data.test), data.event, type(data.train.examples).__name__)
print(float(data.train.rows(torch.arange(5000)).double().sum()), found.n, found.nats)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on a process's data")
def test_an_array_larger_than_the_memory_is_trained_on(tmp_path: Path) -> None:
    n, dims = 800_000, 256
    array = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.float32, (n, dims))  # mostly a hole in the file
    array[::1000] = RNG.normal(size=(n // 1000, dims))
    array.flush()

    def run(how: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", STORY, str(tmp_path / "big.npy"), how]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    told = run("as it comes")
    assert told.returncode == 0, told.stderr[-2000:]
    about, figures = told.stdout.splitlines()
    assert about == f"{n} vector of {dims}, real Mapped"
    total, scored, nats = map(float, figures.split())
    hashes = copy_hashes(row_hashes(array))  # most rows are zeros
    train = np.flatnonzero(hashes >= np.uint64(2**64 // 5))
    train = train[np.argsort(hashes[train], kind="stable")]
    expected = float(array[np.sort(train[:5000])].astype(float).sum())
    assert expected != 0
    assert total == pytest.approx(expected)
    assert scored == 50
    assert np.isfinite(nats)
    refused = run("all at once")
    assert refused.returncode != 0
    assert "are available; keep it on disk with --no-in-memory" in refused.stderr
