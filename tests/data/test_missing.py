"""Missing values: what fills them comes from the training split only, and a run uses it for other files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unsup import InputError, from_arrays
from unsup.cli.main import main
from unsup.data import load_data
from unsup.data.load import load_batch, load_rows
from unsup.data.missing import Gaps, gaps_of
from unsup.data.source import Data
from unsup.train.runs import open_run

RNG = np.random.default_rng(0)


def table(folder: Path, seed: int = 0, n: int = 300, gaps: float = 0.3) -> Path:
    """A real, an ordinal and two columns of words, with gaps; no two rows are equal."""
    rng = np.random.default_rng(seed)
    cells = [
        [f"{v:.3f}" for v in rng.normal(size=n)],
        [str(v) for v in rng.integers(0, 9, n)],
        ["abc"[v] for v in rng.integers(0, 3, n)],
        ["yn"[v] for v in rng.integers(0, 2, n)],
    ]
    rows = [
        [f"{i}.25", *("" if rng.random() < gaps else c for c in row)] for i, row in enumerate(zip(*cells, strict=True))
    ]
    path = folder / "t.csv"
    path.write_text("i,real,count,word,flag\n" + "".join(",".join(row) + "\n" for row in rows))
    return path


def expected(column: torch.Tensor, kind: str) -> float:
    """The value that fills a column, from its known entries."""
    known = sorted(v for v in column.tolist() if v == v)
    if kind == "word":
        counts = Counter(known)
        return min(counts, key=lambda v: (-counts[v], v))
    return known[(len(known) - 1) // 2] if kind == "count" else float(np.median(known))


def check_filled(kept: Data, filled: Data, kinds: list[str]) -> None:
    """``filled`` is ``kept`` with the medians of its training split."""
    assert not filled.event.missing
    values = [expected(kept.train.x[:, d].double(), kind) for d, kind in enumerate(kinds)]
    for split in ("train", "validation", "test"):
        before, after = getattr(kept, split).x.double(), getattr(filled, split).x.double()
        assert torch.equal(after, torch.where(before.isnan(), torch.tensor(values, dtype=torch.float64), before))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), option=st.sampled_from([{}, {"limit": 40}, {"label": "word", "without": "a"}]))
def test_tables_are_filled_from_their_training_split(
    seed: int, option: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = table(tmp_path_factory.mktemp("t"), seed)
    if "label" in option:  # whose cells are not missing
        lines = path.read_text().splitlines()
        rows = [line.split(",") for line in lines]
        path.write_text("\n".join(",".join([*r[:3], r[3] or "b", r[4]]) for r in rows))
    kinds = ["real", "real", "count", *["word"] * ("label" not in option), "word"]
    kept, filled = (load_data(path, missing=how, **option) for how in ("keep", "impute"))
    assert kept.event.missing
    check_filled(kept, filled, kinds)


@pytest.mark.parametrize("kind", ["npy", "npz", "own splits", "arrays"])
def test_arrays_are_filled_from_their_training_split(kind: str, tmp_path: Path) -> None:
    x = RNG.normal(size=(300, 3))
    x[::4, 1] = np.nan
    x[200:] += 100

    def data(missing: str) -> Data:
        if kind == "arrays":
            return from_arrays(x, missing=missing)
        if kind == "npy":
            np.save(tmp_path / "x.npy", x)
            return load_data(tmp_path / "x.npy", missing=missing)
        np.savez(tmp_path / "x.npz", **({"x": x} if kind == "npz" else {"x_train": x[:200], "x_test": x[200:]}))
        return load_data(tmp_path / "x.npz", missing=missing)

    kept, filled = data("keep"), data("impute")
    check_filled(kept, filled, ["real"] * 3)
    if kind == "own splits":
        assert filled.test.x[:, 1].min() < 50


def test_unlabelled_examples_and_conditions_are_filled_too(tmp_path: Path) -> None:
    x, more = RNG.normal(size=(2, 200, 2))
    x[::3, 1] = more[::4, 0] = np.nan
    filled, kept = (from_arrays(x, unlabelled=more, missing=how) for how in ("impute", "keep"))
    check_filled(kept, filled, ["real", "real"])
    for split in ("train", "validation", "test"):
        before, after = (getattr(data, split).streams["unlabelled"].x for data in (kept, filled))
        fill = torch.tensor(gaps_of(filled).x, dtype=after.dtype)
        assert torch.equal(after, torch.where(before.isnan(), fill, before))
    path = table(tmp_path)
    whole, parts = load_data(path, missing="impute"), load_data(path, missing="impute", given=("count", "flag"))
    assert torch.equal(parts.train.given, whole.train.x[:, [2, 4]].to(parts.train.given.dtype))
    assert not parts.given.missing
    with pytest.raises(InputError, match=r"missing values in the columns of given=; use --missing drop or impute"):
        load_data(path, given=("count", "flag"))


def test_a_column_without_values_in_training(tmp_path: Path) -> None:
    refused = []
    for known in range(20):
        path = tmp_path / "t.csv"
        path.write_text("i,x\n" + "".join(f"{i}.5,{'1.5' if i == known else ''}\n" for i in range(60)))
        in_training = known + 0.5 in load_data(path).train.x[:, 0].tolist()
        if in_training:
            assert bool((load_data(path, missing="impute").test.x[:, 1] == 1.5).all())
            continue
        with pytest.raises(InputError) as caught:
            load_data(path, missing="impute")
        refused.append(str(caught.value))
    assert 0 < len(refused) < 20
    assert set(refused) == {
        f"{path}: the column x has no value in the training split, so its missing values cannot be filled; use "
        "--missing drop, or remove the column with --drop x (drop=)"
    }


def test_rows_without_a_split_are_filled_from_all_of_them(tmp_path: Path) -> None:
    path = table(tmp_path)
    kept, filled = (load_rows(path, missing=how).tensor.double() for how in ("keep", "impute"))
    for d, kind in enumerate(["real", "real", "count", "word", "word"]):
        before = kept[:, d]
        assert torch.equal(filled[:, d], before.nan_to_num(expected(before, kind)))


# --- what a run remembers ------------------------------------------------------------------------------------------


def other_file(folder: Path, fill: Gaps | None = None) -> Path:
    """Another file whose columns have gaps, two of them in all rows; or the same with the values of ``fill``."""
    words = [["a", "b", "c"], ["n", "y"]]
    path = folder / ("gaps.csv" if fill is None else "full.csv")
    values = ["", "", ""] if fill is None else [repr(fill.x[1]), str(int(fill.x[2])), words[0][int(fill.x[3])]]
    lines = [f"{i}.5,{values[0]},{values[1] if i % 2 else 3},{values[2]},y\n" for i in range(8)]
    path.write_text("i,real,count,word,flag\n" + "".join(lines))
    return path


def scores(run: Path, file: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[list[str]]:
    code = main(["score", str(run), str(file), *options])
    said = capsys.readouterr()
    assert code == 0, said.err
    return [line.split(",") for line in said.out.splitlines()[1:]]


def test_a_run_fills_other_files_as_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    assert main(["fit", str(table(tmp_path)), "histogram", "--missing", "impute", "-o", str(run), "--plain"]) == 0
    own = open_run(run).gaps
    assert own == gaps_of(load_data(tmp_path / "t.csv", missing="impute"))
    assert own.missing == "impute"
    capsys.readouterr()
    full = scores(run, other_file(tmp_path, own), capsys)
    assert [row[1] for row in scores(run, other_file(tmp_path), capsys)] == [row[1] for row in full]
    assert (
        "missing values in 8 of 8 rows are replaced by medians and most frequent words of the training data: real (8), "
        "word (8), count (4)"
    ) in caplog.text
    for how in ("drop", "refuse"):
        assert main(["score", str(run), str(tmp_path / "gaps.csv"), "--missing", how]) == 2
        assert "missing values in" in capsys.readouterr().err


def test_a_run_drops_rows_of_other_files_as_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run, some = tmp_path / "run", tmp_path / "some.csv"
    assert main(["fit", str(table(tmp_path)), "histogram", "--missing", "drop", "-o", str(run), "--plain"]) == 0
    some.write_text("i,real,count,word,flag\n1.5,0.5,3,a,y\n2.5,,3,a,y\n3.5,0.5,3,a,n\n")
    capsys.readouterr()
    assert [row[0] for row in scores(run, some, capsys)] == ["line 2", "line 4"]
    assert "1 of 3 rows have missing values and were dropped: real (1)" in caplog.text
    filled = scores(run, some, capsys, "--missing", "impute")  # with the medians of the rows that were left
    some.write_text(some.read_text().replace("2.5,,", f"2.5,{open_run(run).gaps.x[1]!r},"))
    assert filled == scores(run, some, capsys)


def test_a_run_without_a_choice_refuses_gaps_or_fills_them_with_its_medians(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["fit", str(table(tmp_path, gaps=0)), "histogram", "-o", str(run), "--plain"]) == 0
    gaps = other_file(tmp_path)
    assert main(["score", str(run), str(gaps)]) == 2
    assert "use --missing drop or impute (missing=)" in capsys.readouterr().err
    full = scores(run, other_file(tmp_path, open_run(run).gaps), capsys)
    assert [row[1] for row in scores(run, gaps, capsys, "--missing", "impute")] == [row[1] for row in full]
    open_run(run).model.save(str(tmp_path / "saved"))  # without the run, medians are unknown
    assert main(["score", str(tmp_path / "saved"), str(gaps), "--missing", "impute"]) == 2
    assert "there are no medians of the training data for --missing impute" in capsys.readouterr().err


def test_batches_of_arrays_are_filled_as_in_training(tmp_path: Path) -> None:
    x = RNG.normal(size=(200, 3))
    x[::4, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    data = load_data(tmp_path / "x.npy", missing="impute")
    np.save(tmp_path / "y.npy", x + 100)
    batch, _ = load_batch(tmp_path / "y.npy", data.event, gaps=gaps_of(data))
    assert batch.x[::4, 1].tolist() == pytest.approx([gaps_of(data).x[1]] * 50)
    assert not batch.x.isnan().any()
    np.save(tmp_path / "z.npy", x[:, :2])
    with pytest.raises(InputError, match=r"examples of shape \(2,\); expected \(3,\)"):
        load_batch(tmp_path / "z.npy", data.event, gaps=gaps_of(data))
