"""Splits go by what a row holds: rows that are added, deleted or put in another order move no other."""

from __future__ import annotations

import io
import string
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orders
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binom

from unsup import InputError, from_arrays, load_data
from unsup.data import Data
from unsup.data.hashing import by_content, row_hashes

PARTS = ("train", "validation", "test")
Rows = list[tuple[Any, ...]]


def where(data: Data) -> dict[tuple[float, ...], set[str]]:
    """The splits in which each row of ``x`` lies."""
    found: dict[tuple[float, ...], set[str]] = {}
    for part in PARTS:
        for row in getattr(data, part).x.flatten(1).tolist():
            found.setdefault(tuple(row), set()).add(part)
    return found


def check_same_places(before: Data, after: Data) -> None:
    """Every row that is in both lies in the same one split in both."""
    one, two = where(before), where(after)
    assert all(len(parts) == 1 for parts in (*one.values(), *two.values()))
    moved = [row for row in one.keys() & two.keys() if one[row] != two[row]]
    assert not moved


def check_equal(one: Data, two: Data) -> None:
    """The same splits, in the same order, whatever order the rows were given in."""
    for part in PARTS:
        a, b = getattr(one, part), getattr(two, part)
        assert torch.equal(a.x, b.x)
        for name in ("label", "given", "lengths", "weight"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None and y is None) or torch.equal(x, y)
    assert one.digest == two.digest


# --- every way in which rows come -------------------------------------------------------------------------------------


def as_csv(rows: np.ndarray, folder: Path) -> Data:
    (folder / "t.csv").write_text(
        "a,b,c,kind\n" + "\n".join(f"{a!r},{b!r},{c!r},k{int(a * 7) % 3}" for a, b, c in rows.tolist())
    )
    return load_data(folder / "t.csv", given=("b",))


def as_parquet(rows: np.ndarray, folder: Path) -> Data:
    pandas = pytest.importorskip("pandas", reason="needs the extra tables")
    pytest.importorskip("pyarrow")
    pandas.DataFrame(rows, columns=["a", "b", "c"]).to_parquet(folder / "t.parquet")
    return load_data(folder / "t.parquet", drop=("c",))


def as_npy(rows: np.ndarray, folder: Path) -> Data:
    np.save(folder / "t.npy", rows)
    return load_data(folder / "t.npy")


def as_shards(rows: np.ndarray, folder: Path) -> Data:
    shards = folder / f"shards {len([*folder.iterdir()])}"  # rows are read when they are asked for
    shards.mkdir()
    for name, part in (("a", rows[:70]), ("b", rows[70:])):
        np.save(shards / f"{name}.npy", part)
    return load_data(shards, in_memory=False)


def as_npz(rows: np.ndarray, folder: Path) -> Data:
    np.savez(folder / "t.npz", x=(rows * 40).astype(int), label=rows.sum(1) > 0)
    return load_data(folder / "t.npz", given="label")


def as_own_parts(rows: np.ndarray, folder: Path) -> Data:
    np.savez(folder / "own.npz", x_train=rows)
    return load_data(folder / "own.npz")


def as_arrays(rows: np.ndarray, folder: Path) -> Data:
    return from_arrays(rows, (rows[:, 0] > 0).astype(int), given=rows[:, 1:], weight=abs(rows[:, 0]) + 1)


def as_sequences(rows: np.ndarray, folder: Path) -> Data:
    return from_arrays([row[: 1 + int(abs(row[0] * 100)) % 3] for row in rows])


WAYS = [as_csv, as_parquet, as_npy, as_shards, as_npz, as_own_parts, as_arrays, as_sequences]


@pytest.mark.parametrize("way", WAYS)
def test_rows_that_come_go_or_change_places_move_no_other(way: Callable[..., Data], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = np.round(rng.normal(size=(400, 3)), 2)
    rows = np.concatenate([rows, rows[:60]])  # some twice
    before = way(rows, tmp_path)
    for _ in range(3):
        check_equal(before, way(rng.permutation(rows), tmp_path))
    check_equal(before, way(rows[np.argsort(rows[:, 0])], tmp_path))
    for fewer in (rows[1:], rows[:-1], np.delete(rows, rng.integers(0, len(rows), 100), 0)):
        check_same_places(before, way(fewer, tmp_path))
    check_same_places(before, way(np.concatenate([rng.normal(size=(50, 3)), rows]), tmp_path))


def test_one_row_less_moved_most_of_a_table(tmp_path: Path) -> None:
    """What this is about: of 100 training rows, 81 came into other splits when the first row was deleted."""
    x = np.random.default_rng(0).normal(size=(125, 2))
    before, after = where(from_arrays(x)), where(from_arrays(x[1:]))
    assert sum(before[row] != after[row] for row in after) == 0


def test_images_go_by_their_bytes_whatever_their_size_and_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8)

    def written(folder: str, numbers: Sequence[int], names: Sequence[str]) -> Path:
        (tmp_path / folder).mkdir()
        for i, name in zip(numbers, names, strict=True):
            Image.fromarray(pixels[i]).save(tmp_path / folder / f"{name}.png")
        return tmp_path / folder

    names = [f"{i:03}" for i in range(60)]
    before = load_data(written("a", range(60), names))
    check_equal(before, load_data(written("b", rng.permutation(60).tolist(), names)))
    check_same_places(before, load_data(written("c", range(7, 60), names[7:])))
    small = load_data(tmp_path / "a", resize=4)
    assert [len(getattr(small, p)) for p in PARTS] == [len(getattr(before, p)) for p in PARTS]
    again = load_data(tmp_path / "a", given=str(tmp_path / "a"), resize=4)
    assert torch.equal(again.train.given, small.train.x)


def test_how_a_table_is_read_moves_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    lines = [f"{a!r},{b!r},{i},{'uvw'[i % 3]}" for i, (a, b) in enumerate(x.tolist())]
    (tmp_path / "t.csv").write_text("a,b,id,kind\n" + "\n".join(lines))
    places = {}
    for options in (
        {},
        {"label": "id", "drop": ("kind",)},
        {"drop": ("kind",)},
        {"drop": ("id", "b")},
        {"given": ("b",)},
        {"given": "label"},
    ):
        data = load_data(tmp_path / "t.csv", **options)
        found = {row[0]: part for part in PARTS for row in getattr(data, part).x.tolist()}
        assert places.setdefault("a", found) == found
    left = load_data(tmp_path / "t.csv", without="u")
    assert all(places["a"][row[0]] == part for part in PARTS for row in getattr(left, part).x.tolist())
    few = load_data(tmp_path / "t.csv", limit=50).train.x
    (tmp_path / "t.csv").write_text("a,b,id,kind\n" + "\n".join(lines[5:]))
    fewer = load_data(tmp_path / "t.csv", limit=50).train.x
    assert len({*map(tuple, few.tolist())} ^ {*map(tuple, fewer.tolist())}) <= 10


def test_numbers_count_by_their_value_and_words_by_their_letters(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(-9, 9, (200, 2))
    written = {
        "plain": lambda v: f"{v}",
        "fraction": lambda v: f"{v}.0",
        "exponent": lambda v: f"{v}e0",
        "padded": lambda v: f" {v} ",
        "signed": lambda v: f"{v:+d}",
        "quoted": lambda v: f'"{v}"',
        "no minus": lambda v: f"{v}" if v else "-0",
    }
    found = []
    for write in written.values():
        (tmp_path / "t.csv").write_text("\n".join(",".join(map(write, row)) for row in x.tolist()))
        found.append(load_data(tmp_path / "t.csv"))
    for data in found[1:]:
        check_equal(found[0], data)
    (tmp_path / "t.csv").write_text("one,two\n" + "\n".join(f"{a};{b}".replace(";", ",") for a, b in x.tolist()))
    check_equal(found[0], load_data(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    "kinds", [(np.uint8, np.int64, np.uint64, np.int16), (np.float16, np.float32, np.float64, ">f8")]
)
def test_the_type_of_numbers_counts_for_nothing(kinds: Sequence[Any], tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 100, (200, 3)).astype(kinds[0])
    for kind in kinds[1:]:
        check_same_places(from_arrays(x), from_arrays(x.astype(kind)))
        assert from_arrays(x).digest == from_arrays(x.astype(kind)).digest
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    check_equal(load_data(tmp_path / "x.npy"), from_arrays(x))


def test_padding_counts_for_nothing() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 5, n) for n in rng.integers(1, 9, 200)]
    before, after = from_arrays(rows), from_arrays([*rows, np.full(30, 7)])
    inside = {
        p: {tuple(x[:n].tolist()) for x, n in zip(getattr(before, p).x, getattr(before, p).lengths, strict=True)}
        for p in PARTS
    }
    beside = {
        p: {tuple(x[:n].tolist()) for x, n in zip(getattr(after, p).x, getattr(after, p).lengths, strict=True)}
        for p in PARTS
    }
    assert all(inside[p] == beside[p] - {(7,) * 30} for p in PARTS)


def test_examples_without_labels_are_where_the_same_are_with_them() -> None:
    x = np.random.default_rng(0).normal(size=(300, 2))
    data = from_arrays(x[:100], np.arange(100) % 2, unlabelled=x)
    for part in PARTS:
        own, stream = getattr(data, part).x, getattr(data, part).streams["unlabelled"].x
        assert {*map(tuple, own.tolist())} <= {*map(tuple, stream.tolist())}


# --- any table --------------------------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.integers(-3, 3),
    st.floats(-5, 5, allow_nan=False).map(lambda v: v + 0.0),
    st.text(string.ascii_letters + "é ", min_size=1, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 40), CELLS, CELLS), min_size=4, max_size=60),
    seed=st.integers(0, 2**32 - 1),
)
@example(rows=[(0, 0, 0), (0, 0, 0), (0, 0, "A"), (0, 0, "A"), (1, 1, "NIL")], seed=0)
def test_any_table_with_copies(rows: Rows, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rows of a number, which is x, and of two cells of any kind, which are left out of it and still of the row."""
    rng = np.random.default_rng(seed)
    if len({key(row) for row in rows}) < 3:
        return
    file = tmp_path_factory.mktemp("t") / "t.csv"

    def splits(chosen: Rows) -> Data:
        file.write_text("x,a,b\n" + "\n".join(",".join(f'"{cell}"' for cell in row) for row in chosen))
        return load_data(file, drop=("a", "b"))

    before = splits(rows)
    check_equal(before, splits([rows[i] for i in rng.permutation(len(rows))]))
    assert sum(len(getattr(before, p)) for p in PARTS) == len(rows)
    assert all(len(getattr(before, p)) for p in PARTS)
    more = 2 * len({key(row) for row in rows}) - len(rows)  # with more copies, most rows repeat
    copied = rows + [rows[i] for i in rng.integers(0, len(rows), min(20, max(0, more)))]
    after = splits(copied)
    assert {p: {*getattr(after, p).x.flatten().tolist()} for p in PARTS} == {
        p: {*getattr(before, p).x.flatten().tolist()} for p in PARTS
    }


def key(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a row is the same by: numbers by value, words by their letters without the spaces around them."""

    def one(cell: Any) -> Any:
        try:
            return float(cell)
        except ValueError:
            return cell.strip()

    return tuple(map(one, row))


@settings(max_examples=100, deadline=None)
@given(
    hashes=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), min_size=1, max_size=40),
    shares=st.sampled_from([(10, 10), (10, 0), (0, 10), (0, 0), (10, 20)]),
    data=st.data(),
)
def test_a_threshold_and_nothing_else_where_no_split_is_empty(
    hashes: list[int], shares: tuple[int, int], data: Any
) -> None:
    array = np.array(hashes, np.uint64)
    parts = 1 + sum(s > 0 for s in shares)
    if len(set(hashes)) < parts:
        with pytest.raises(InputError, match=f"at least {parts} are needed"):
            by_content(array, None, shares, owner="x")
        return
    order, sizes = by_content(array, None, shares, owner="x")
    assert sorted(order.tolist()) == list(range(len(hashes)))
    train, validation, test = (set(array[part].tolist()) for part in np.split(order, np.cumsum(sizes)[:2]))
    assert len(train) + len(validation) + len(test) == len(set(hashes))
    assert train
    assert bool(validation) == (shares[0] > 0)
    assert bool(test) == (shares[1] > 0)
    a, b = shares[1] * 2**64 // 100, sum(shares) * 2**64 // 100
    natural = ({h for h in hashes if h >= b}, {h for h in hashes if a <= h < b}, {h for h in hashes if h < a})
    if all(natural[i] or not s for i, s in enumerate((80, *shares))):
        assert (train, validation, test) == natural


# --- shares and chance ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["normal", "counter", "bits", "float bits", "one column", "powers", "words"])
def test_shares_are_about_80_10_10_of_any_data(way: str, tmp_path: Path) -> None:
    """Within the bounds that a fair draw keeps in all but one of a thousand million cases; classes alike."""
    n, rng = 20_000, np.random.default_rng(0)
    numbers = np.arange(n)
    x: np.ndarray = {
        "normal": rng.normal(size=(n, 3)),
        "counter": np.stack([numbers, numbers % 2], 1),
        "bits": (numbers[:, None] >> np.arange(15)) & 1,
        "float bits": ((numbers[:, None] >> np.arange(15)) & 1).astype(float),
        "one column": numbers[:, None] * 0.5,
        "powers": np.stack([2.0 ** (numbers % 200 - 100), 2.0 ** (numbers // 200)], 1),
        "words": numbers[:, None],
    }[way]
    label = rng.integers(0, 4, n)
    if way == "words":
        (tmp_path / "t.csv").write_text("\n".join(f"{i % 3},w{i}" for i in range(n)))
        data = load_data(tmp_path / "t.csv", drop=("2",))
        label = None
    else:
        data = from_arrays(x, label)
    for part, share in zip(PARTS, (0.8, 0.1, 0.1), strict=True):
        low, high = binom.ppf([5e-10, 1 - 5e-10], n, share)
        assert low <= len(getattr(data, part)) <= high
        if label is not None:
            for c in range(4):
                count = int((label == c).sum())
                low, high = binom.ppf([5e-10, 1 - 5e-10], count, share)
                assert low <= int((getattr(data, part).label == c).sum()) <= high


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float64])
def test_rows_that_differ_have_other_hashes(kind: Any) -> None:
    rng = np.random.default_rng(0)
    x = np.unique(rng.integers(0, 2, (30_000, 40)).astype(kind), axis=0)
    assert len(set(row_hashes(x).tolist())) == len(x)
    base = rng.normal(size=30) if kind is np.float64 else rng.integers(0, 200, 30).astype(kind)
    for d in range(30):
        changed = base.copy()
        changed[d] += 1
        assert row_hashes(changed[None])[0] != row_hashes(base[None])[0]


def test_the_hash_is_the_one_that_is_written_down() -> None:
    rng = np.random.default_rng(0)
    for x in (
        rng.normal(size=(20, 3, 2)),
        rng.integers(-9, 9, (20, 5)),
        rng.integers(0, 2**64 - 1, (20, 2), np.uint64),
        np.eye(3),
    ):
        assert row_hashes(x).tolist() == orders.hashes_of(x)
        if x.ndim == 2:
            assert row_hashes(np.asfortranarray(x)).tolist() == orders.hashes_of(x)
    assert row_hashes(np.arange(200_000).reshape(4, 50_000)).tolist() == orders.hashes_of(
        np.arange(200_000).reshape(4, 50_000)
    )


def test_splits_that_are_published_stay(tmp_path: Path) -> None:
    """The digest of a small array, written down: another one moves the rows of every user."""
    x = np.arange(300).reshape(100, 3) / 8
    data = from_arrays(x)
    assert [len(getattr(data, part)) for part in PARTS] == [73, 15, 12]
    assert data.digest == "bed642bac21f1b6b5db179c4c75e47c9"
    (tmp_path / "t.csv").write_text("\n".join(",".join(map(str, row)) for row in x.tolist()))
    check_equal(load_data(tmp_path / "t.csv"), data)


def test_few_rows_and_copies() -> None:
    assert sorted(len(getattr(from_arrays(np.eye(3)), part)) for part in PARTS) == [1, 1, 1]
    with pytest.raises(InputError, match="has 2 examples; at least 3 are needed"):
        from_arrays(np.eye(2))
    with pytest.raises(InputError, match="has 50 examples, 1 of them distinct; at least 3 are needed"):
        from_arrays(np.ones((50, 2)))
    with pytest.raises(InputError, match="has 4 examples, 2 of them distinct; at least 3 are needed"):
        from_arrays(np.repeat(np.eye(2), 2, 0))
    assert all(len(getattr(from_arrays(np.repeat(np.eye(2), 25, 0)), part)) for part in PARTS)
    many = from_arrays(np.repeat(np.eye(5), 25, 0))
    assert "only 5 of 125 rows are distinct; equal rows are split at random" in many.notes[0]
    assert (
        "5 of 10 rows are distinct; equal rows are always in the same split"
        in from_arrays(np.repeat(np.eye(5), 2, 0)).notes[0]
    )
    assert not from_arrays(np.random.default_rng(0).normal(size=(50, 2))).notes


# --- tables in which most rows repeat ---------------------------------------------------------------------------------


def coins(n: int = 4000, columns: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (n, columns))


def copies(data: Data) -> dict[str, Counter[tuple[float, ...]]]:
    """How often each row of ``x`` with its label is in each split."""
    found = {}
    for part in PARTS:
        split = getattr(data, part)
        label = torch.zeros(len(split), 1) if split.label is None else split.label[:, None].float()
        found[part] = Counter(map(tuple, torch.cat([split.x.float(), label], 1).tolist()))
    return found


def coins_csv(x: np.ndarray, folder: Path) -> Data:
    (folder / "coins.csv").write_text("\n".join(["a,b,c,d,e,f", *written(x)]))
    return load_data(folder / "coins.csv")


def written(x: np.ndarray) -> list[str]:
    return [",".join(map(str, row)) for row in x.tolist()]


def coins_array(x: np.ndarray, folder: Path) -> Data:
    return from_arrays(x, x.sum(1) % 3)


def coins_on_disk(x: np.ndarray, folder: Path) -> Data:
    file = folder / f"coins {len([*folder.iterdir()])}.npy"  # rows are read when they are asked for
    np.save(file, x)
    return load_data(file, in_memory=False)


@pytest.mark.parametrize("way", [coins_csv, coins_array, coins_on_disk])
def test_copies_are_split_on_their_own_where_most_rows_repeat(way: Callable[..., Data], tmp_path: Path) -> None:
    x = coins()
    data = way(x, tmp_path)
    assert "only 64 of 4,000 rows are distinct; equal rows are split at random" in data.notes[-1]
    check_equal(data, way(np.random.default_rng(1).permutation(x), tmp_path))
    check_equal(data, way(x[np.lexsort(x.T)], tmp_path))
    before, after = copies(data), copies(way(np.concatenate([coins(500, seed=2), x]), tmp_path))
    assert all(before[part] <= after[part] for part in PARTS)
    # every row by itself has the shares, as of a fair draw in all but one of a million cases
    total = before["train"] + before["validation"] + before["test"]
    for row, n in total.items():
        for part, share in zip(PARTS, (0.8, 0.1, 0.1), strict=True):
            low, high = binom.ppf([5e-7 / len(total), 1 - 5e-7 / len(total)], n, share)
            assert low <= before[part][row] <= high


def test_the_first_of_equal_rows_is_where_it_is_without_copies() -> None:
    x = coins(300, 7)
    once, often = where(from_arrays(np.unique(x, axis=0))), where(from_arrays(x))
    assert all(once[row] <= often[row] for row in once)
    assert sum(len(parts) > 1 for parts in often.values()) > 20


def test_copies_stay_together_unless_most_rows_of_a_table_repeat() -> None:
    x = np.random.default_rng(0).normal(size=(200, 2))
    check_same_places(from_arrays(x), from_arrays(np.concatenate([x, x])))
    assert from_arrays(np.concatenate([x, x, x[:1]])).split.endswith("the number of its copy")
    grid, rows = coins(400, 4), [[int(v)] * (1 + int(v)) for v in coins(400, 1)[:, 0] + coins(400, 1, seed=1)[:, 0]]
    for data in (from_arrays(grid.reshape(-1, 1, 2, 2)), from_arrays(rows)):  # images, sequences
        assert "equal rows are always in the same split" in data.notes[-1]
        assert all(len(parts) == 1 for parts in where(data).values())


def test_a_validation_split_from_training_takes_copies_on_their_own(tmp_path: Path) -> None:
    x = coins(2000, 4)
    np.savez(tmp_path / "own.npz", x_train=x, x_test=x[:100])
    data = load_data(tmp_path / "own.npz")
    found = copies(data)
    assert len(found["train"]) == 16
    assert found["test"] == Counter((*map(float, row), 0.0) for row in x[:100].tolist())
    low, high = binom.ppf([5e-10, 1 - 5e-10], 2000, 0.1)
    assert low <= len(data.validation) <= high


@pytest.mark.parametrize("n", [12, 500])
def test_rows_without_their_dropped_column_are_kept_together_unless_most_repeat(n: int, tmp_path: Path) -> None:
    """The note advises to delete the column from the file, where that helps."""
    rows = written(coins(n, 3))
    (tmp_path / "t.csv").write_text("a,b,c,id\n" + "\n".join(f"{row},{i}" for i, row in enumerate(rows)))
    (note,) = (n for n in load_data(tmp_path / "t.csv", drop=("id",)).notes if "differ from another row only" in n)
    (tmp_path / "t.csv").write_text("a,b,c\n" + "\n".join(rows))
    together = all(len(parts) == 1 for parts in where(load_data(tmp_path / "t.csv")).values())
    assert together == ("to keep such rows together" in note) == (n == 12)


def test_a_hash_costs_little_beside_reading(tmp_path: Path) -> None:
    import time

    x = np.random.default_rng(0).integers(0, 256, (20_000, 784), dtype=np.uint8)
    buffer = io.BytesIO()
    np.save(buffer, x)

    def seconds(run: Callable[[], Any]) -> float:
        took = []
        for _ in range(5):
            started = time.process_time()
            run()
            took.append(time.process_time() - started)
        return min(took)

    assert seconds(lambda: row_hashes(x)) < 0.1  # 16 MB; about 10 ms where nothing else is at work
