"""``unsup complete``: gaps of tables are drawn, everything else stays as it is; the lower part of images."""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import unsup
from unsup import Batch
from unsup.cli.main import main
from unsup.core.model import KnowsMarginals
from unsup.data.load import load_rows
from unsup.evaluate.completions import fill_examples

Call = Callable[..., Any]
HEADER = ["n", "kind", "day", "price", "size", "flag"]
GAPS = ("", "NA", "?")


def rows(seed: int = 0) -> list[list[str]]:
    """Rows whose price and size depend on the kind."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(240):
        k = int(rng.integers(3))
        day = datetime.date(2021, 1, 1) + datetime.timedelta(days=int(rng.integers(300)))
        size = f"{2 * k + 0.3 * rng.normal():.3f}"
        found.append([str(i % 40), "abc"[k], str(day), f"{k},{'25'[i % 2]}0 €", size, ("no", "yes")[i % 2]])
    return found


def with_gaps(whole: list[list[str]], seed: int = 1) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[GAPS[int(rng.integers(3))] if rng.random() < 0.15 else cell for cell in row] for row in whole]


def write(path: Path, cells: list[list[str]], header: list[str] | None = None, separator: str = ",") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator="\n").writerows([header or HEADER, *cells])
    return path


def read(path: Path, separator: str = ",") -> tuple[list[str], list[list[str]]]:
    with path.open(newline="") as file:
        header, *cells = csv.reader(file, delimiter=separator)
    return header, cells


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs trained on complete rows and on rows with gaps, and the files."""
    folder = tmp_path_factory.mktemp("tables")
    write(folder / "full.csv", rows())
    write(folder / "gaps.csv", with_gaps(rows()))
    for data in ("full", "gaps"):
        for model in ("gaussian-mixture", "histogram"):
            out = str(folder / f"{data}-{model}")
            assert main(["fit", str(folder / f"{data}.csv"), model, "-o", out, "--plain"]) == 0
    return folder


@pytest.mark.parametrize("model", ["gaussian-mixture", "histogram"])
@pytest.mark.parametrize("trained_on", ["full", "gaps"])
def test_gaps_of_a_table_are_drawn_and_all_other_cells_stay(
    model: str, trained_on: str, tables: Path, tmp_path: Path, call: Call
) -> None:
    before = with_gaps(rows(3), seed=4)
    before = [["row " + str(i), *row] for i, row in enumerate(before)]  # a column that the model does not have
    data = write(tmp_path / "data.csv", [row[::-1] for row in before], ["id", *HEADER][::-1])
    out = tmp_path / "out.csv"
    called = call("complete", tables / f"{trained_on}-{model}", data, "-o", out)
    assert called.status == 0
    missing = sum(cell in GAPS for row in before for cell in row)
    some = sum(any(cell in GAPS for cell in row) for row in before)
    assert called.out.startswith(f"{missing} missing cells in {some} rows of {data} drawn from")
    header, after = read(out)
    assert header == ["id", *HEADER][::-1]
    valid = {
        "kind": "[abc]",
        "n": r"\d+",
        "day": r"\d{4}-\d\d-\d\d",
        "price": r"-?\d+,\d\d €",
        "size": r"-?\d+\.\d{3}",
        "flag": "yes|no",
    }
    for old, new in zip(before, after, strict=True):
        for name, was, cell in zip(header, old[::-1], new, strict=True):
            if was in GAPS and name != "id":
                assert re.fullmatch(valid[name], cell), (name, cell)
            else:
                assert cell == was
            if name == "day":
                datetime.date.fromisoformat(cell)
    again = load_rows(out, drop=("id",))
    assert not again.event.missing
    assert call("complete", tables / f"{trained_on}-{model}", out, "-o", tmp_path / "x.csv").status == 2


def test_what_is_drawn_depends_on_the_rest_of_the_row_and_on_the_seed(tables: Path, tmp_path: Path, call: Call) -> None:
    cells = [["", kind, "", "", "", ""] for kind in "abc" for _ in range(60)]
    data, run = write(tmp_path / "data.csv", cells), tables / "gaps-gaussian-mixture"
    outs = [tmp_path / f"{seed}.csv" for seed in ("0", "same", "1")]
    for out, seed in zip(outs, (0, 0, 1), strict=True):
        assert call("complete", run, data, "-o", out, "--seed", seed).status == 0
    assert outs[0].read_bytes() == outs[1].read_bytes() != outs[2].read_bytes()
    size = np.array([float(row[4]) for row in read(outs[0])[1]]).reshape(3, 60)
    assert np.abs(np.median(size, axis=1) - [0, 2, 4]).max() < 0.5


def test_drawn_cells_are_written_in_the_notation_of_the_file(tables: Path, tmp_path: Path, call: Call) -> None:
    """Decimal commas, semicolons and dates with points, unlike in the training data; and a file without a header."""

    def other(row: list[str]) -> list[str]:
        day = row[2] if row[2] in GAPS else datetime.date.fromisoformat(row[2]).strftime("%d.%m.%Y")
        return [*row[:2], day, row[3], row[4].replace(".", ","), row[5]]

    before = [other(row) for row in with_gaps(rows())]
    data, out = write(tmp_path / "data.csv", before, separator=";"), tmp_path / "out.csv"
    assert call("complete", tables / "full-histogram", data, "-o", out).status == 0
    _, after = read(out, ";")
    assert all(re.fullmatch(r"\d\d\.\d\d\.\d{4}", row[2]) and re.fullmatch(r"-?\d+,\d{3}", row[4]) for row in after)
    for old, new in zip(before, after, strict=True):
        assert all(was in (cell, *GAPS) for was, cell in zip(old, new, strict=True))
    bare = tmp_path / "bare.csv"
    bare.write_text(data.read_text().split("\n", 1)[1])
    assert call("complete", tables / "full-histogram", bare, "-o", tmp_path / "b.csv").status == 0
    assert (tmp_path / "b.csv").read_text() == out.read_text().split("\n", 1)[1]


def test_other_kinds_of_files(tables: Path, tmp_path: Path, call: Call) -> None:
    """A Parquet file, a packed file, and raw values: known values are exactly those of the file."""
    run, data = tables / "full-gaussian-mixture", tables / "gaps.csv"
    frame = pd.read_csv(data, na_values=["?"])
    frame["day"] = pd.to_datetime(frame["day"])
    frame.to_parquet(tmp_path / "data.parquet")
    for out in ("from.csv", "out.parquet", "out.npy"):
        assert call("complete", run, tmp_path / "data.parquet", "-o", tmp_path / out).status == 0
    filled = pd.read_parquet(tmp_path / "out.parquet")
    assert list(filled.columns) == HEADER
    assert not filled.isna().any().any()
    for name in set(HEADER) - {"price"}:  # which is text in one file, a number in the other
        known = frame[name].notna()
        assert (filled[name][known] == frame[name][known]).all()
    x = np.load(tmp_path / "out.npy")
    assert (x[frame["size"].notna(), 4] == frame["size"].dropna()).all()
    assert call("complete", run, data, "-o", tmp_path / "out.csv.gz").status == 0
    assert call("complete", run, data, "-o", tmp_path / "out.csv").status == 0
    assert (tmp_path / "from.csv").read_text() == (tmp_path / "out.csv").read_text()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out.csv.gz"), pd.read_csv(tmp_path / "out.csv"))


def test_binary_tables_of_models_that_take_no_missing_entries(tmp_path: Path, call: Call) -> None:
    """A Bernoulli mixture never saw a gap; two columns are always equal."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (200, 3))
    bits[:, 1] = bits[:, 0]
    header = ["a", "b", "c"]
    write(tmp_path / "full.csv", bits.astype(str).tolist(), header)
    fit = ["fit", tmp_path / "full.csv", "bernoulli-mixture", "--model.smoothing", 0, "-o", tmp_path / "run", "--plain"]
    assert call(*fit).status == 0
    gaps = [[a, "", c] for a, _, c in bits.astype(str).tolist()]
    write(tmp_path / "gaps.csv", gaps, header)
    assert call("complete", tmp_path / "run", tmp_path / "gaps.csv", "-o", tmp_path / "out.csv").status == 0
    found = np.array(read(tmp_path / "out.csv")[1], int)
    assert (found[:, [0, 2]] == bits[:, [0, 2]]).all()
    assert (found[:, 1] == bits[:, 1]).mean() > 0.95


def untidy(rng: np.random.Generator) -> list[list[str]]:
    """Rows whose cells depend on the kind, with gaps of several spellings; a column and a row without values."""
    found = []
    for _ in range(240):
        k = int(rng.integers(3))
        size = f"{3 * k + 0.2 * rng.normal():.3f}"
        row = ["abc"[k], str(2 * k + int(rng.integers(2))), size, ("no", "yes")[int(k == 2)], ""]
        found.append([GAPS[int(rng.integers(3))] if rng.random() < 0.15 else cell for cell in row])
    return [*found, [""] * 5]


@pytest.mark.parametrize("model", ["gaussian-mixture", "naive-bayes", "histogram", "bayes-net"])
def test_gaps_have_the_mode_or_the_mean(model: str, tmp_path: Path, call: Call) -> None:
    """All gaps of an untidy table are filled, nothing else is changed, and kinds follow from the rest."""
    header, cells = ["kind", "n", "size", "flag", "empty"], untidy(np.random.default_rng(0))
    if model == "bayes-net":  # takes no numbers with decimals
        header, cells = [*header[:2], *header[3:]], [[*row[:2], *row[3:]] for row in cells]
    data = write(tmp_path / "data.csv", cells, header)
    assert call("fit", data, model, "-o", tmp_path / "run", "--plain").status == 0
    for way in ("mode", "mean"):
        called = call("complete", tmp_path / "run", data, "-o", tmp_path / f"{way}.csv", "--fill", way)
        assert called.status == 0
        assert f"filled with the {way} under" in called.out
        _, after = read(tmp_path / f"{way}.csv")
        for old, new in zip(cells, after, strict=True):
            assert all(was in (cell, *GAPS) for was, cell in zip(old, new, strict=True))
            assert all(cell not in GAPS for cell in new[:-1])
            assert new[-1] == old[-1]  # no model has the column without values
    means, modes = ([row[0] for row in read(tmp_path / f"{way}.csv")[1]] for way in ("mean", "mode"))
    assert means == modes  # words have no mean
    assert isinstance(unsup.load(tmp_path / "run"), KnowsMarginals)
    if model in ("gaussian-mixture", "bayes-net"):  # a kind follows from the numbers
        clear = [(row[header.index("flag")], new[0]) for row, new in zip(cells, after, strict=True) if row[0] in GAPS]
        assert {kind for flag, kind in clear if flag == "yes"} == {"c"}
    again = call("complete", tmp_path / "run", data, "-o", tmp_path / "again.csv", "--fill", "mode", "--seed", 5)
    assert again.status == 0
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "mode.csv").read_bytes()


def test_models_that_draw_estimate_the_mode(tmp_path: Path, call: Call) -> None:
    """Two columns of an RBM, of which one is nearly always the other."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (200, 3))
    bits[:, 1] = bits[:, 0]
    header = ["a", "b", "c"]
    data = write(tmp_path / "full.csv", bits.astype(str).tolist(), header)
    options = ("--preset", "tiny", "--steps", 1000, "--lr", 0.02, "--plain")
    assert call("fit", data, "rbm", "-o", tmp_path / "run", *options).status == 0
    gaps = write(tmp_path / "gaps.csv", [[a, "", c] for a, _, c in bits[:20].astype(str).tolist()], header)
    called = call("complete", tmp_path / "run", gaps, "-o", tmp_path / "out.csv", "--fill", "mode", "--burn-in", 20)
    assert called.status == 0
    assert "estimated by 100 approximate draws, by Gibbs sampling" in called.out
    assert (np.array(read(tmp_path / "out.csv")[1], int) == bits[:20]).all()


def test_series_have_their_gaps_filled(tmp_path: Path, call: Call) -> None:
    """Two levels that change slowly: a gap has the level of its neighbours."""
    rng = np.random.default_rng(0)
    level = np.repeat(rng.permutation(60) % 2, 10)
    values = [[str(i), f"{4 * y + 0.2 * rng.normal():.3f}"] for i, y in enumerate(level)]
    gone = rng.random(600) < 0.1
    cells = [[t, "" if out else v] for (t, v), out in zip(values, gone, strict=True)]
    data = write(tmp_path / "series.csv", cells, ["t", "a"])
    fit = ("fit", data, "hmm", "--length", 20, "--time", "t", "--model.states", 2, "-o", tmp_path / "run", "--plain")
    assert call(*fit).status == 0
    assert call("complete", tmp_path / "run", data, "-o", tmp_path / "out.npy", "--fill", "mean").status == 0
    found = np.load(tmp_path / "out.npy").reshape(-1)
    assert len(found) == 600
    assert (found[~gone] == [float(v) for (_, v), out in zip(values, gone, strict=True) if not out]).all()
    assert np.mean((found[gone] > 2) == (level[gone] == 1)) > 0.9


@pytest.mark.parametrize("model", ["pixelcnn", "gated-pixelcnn", "histogram", "gaussian-mixture"])
def test_the_lower_part_of_images_is_drawn(model: str, runs: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "out.npy"
    for top, share in ((4, ()), (6, ("--top", 0.75))):
        assert call("complete", runs / model, "digits", "-o", out, *share).status == 0
        x, found = unsup.load_data("digits").test.x.numpy(), np.load(out)
        assert (found[:, :, :top] == x[:, :, :top]).all()
        assert (found[:, :, top:] != x[:, :, top:]).any()
    assert call("complete", runs / model, "digits", "-o", tmp_path / "out.png").status == 0


def test_mistakes_are_one_line(tables: Path, runs: Path, tmp_path: Path, call: Call) -> None:
    run, gaps, out = tables / "full-histogram", tables / "gaps.csv", tmp_path / "x.csv"
    for words, reason in (
        ((run, tables / "full.csv", "-o", out), "nothing to complete, since every value is known"),
        ((run, gaps, "-o", out, "--top", 0.5), "--top 0.5 is for images"),
        ((run, gaps, "-o", gaps), "choose another name"),
        ((run, gaps, "-o", out, "--fill", "median"), "--fill"),
        ((run, gaps, "-o", tmp_path / "x.txt"), "should end in .png"),
        ((run, gaps, "-o", out, "--missing", "drop"), "no option '--missing'"),
        ((run, gaps, "-o", out, "--given", "a"), "--given"),
        ((runs / "vae", "digits", "-o", tmp_path / "x.npy"), "models that can: histogram, gaussian-mixture"),
        ((runs / "pixelcnn", "digits", "-o", tmp_path / "x.npy", "--top", 1), "keep a smaller part of it (--keep)"),
        ((runs / "pixelcnn", "digits", "-o", tmp_path / "x.npy", "--top", 1.5), "--top"),
        ((runs / "pixelcnn", gaps, "-o", tmp_path / "x.npy"), "shape"),
    ):
        before = gaps.read_bytes()
        called = call("complete", *words)
        *_, last = called.err.strip().splitlines()
        assert called.status == 2
        assert reason in last
        assert last.startswith("unsup: error: ")
        assert gaps.read_bytes() == before
        assert not out.exists()
    write(tmp_path / "unknown.csv", [["1", "z", "", "", "", ""]])
    called = call("complete", run, tmp_path / "unknown.csv", "-o", out)
    assert called.status == 2
    assert "known words: 'a', 'b', 'c'" in called.err


def test_the_message_says_where_draws_are_approximate(tables: Path, tmp_path: Path, call: Call) -> None:
    """MADE draws exactly what comes after all known cells in the order of its only mask, else from proposals."""
    run, cells = tmp_path / "made", rows(3)[:20]
    fit = ("fit", tables / "full.csv", "made", "-o", run, "--preset", "tiny", "--steps", 20, "--plain")
    assert call(*fit, "--model.masks", 1, "--model.order", "natural").status == 0
    files = {}
    for name, places in (("last", {4, 5}), ("first", {0})):
        gaps = [["" if d in places else cell for d, cell in enumerate(row)] for row in cells]
        files[name] = write(tmp_path / f"{name}.csv", gaps)
    for name, fill, said in (
        ("last", "draw", f"drawn from {run};"),
        ("first", "draw", f"drawn approximately from {run}, each chosen from 100 proposals;"),
        ("last", "mode", f"filled with the mode under {run}, estimated by 100 draws;"),
        ("first", "mean", f"filled with the mean under {run}, estimated by 100 approximate draws, each chosen from"),
    ):
        called = call("complete", run, files[name], "-o", tmp_path / "out.csv", "--fill", fill)
        assert called.status == 0
        assert said in called.out
    called = call("complete", run, files["first"], "-o", tmp_path / "out.npy")
    assert called.out.startswith("20 approximately completed examples of ")
    called = call("complete", tables / "full-histogram", files["first"], "-o", tmp_path / "out.csv")
    assert f"drawn from {tables / 'full-histogram'};" in called.out


def steps_of(n: int, gaps: float, seed: int = 0) -> list[list[str]]:
    """Days and two values of one slow level, some of them missing."""
    rng = np.random.default_rng(seed)
    level = np.repeat(rng.permutation(n) % 2, 10)[:n]
    found = []
    for i, y in enumerate(level):
        cells = [f"{4 * y + 0.2 * rng.normal():.3f}", f"{-3 * y + 0.2 * rng.normal():.2f}"]
        day = datetime.date(2021, 1, 1) + datetime.timedelta(days=i)
        found.append([str(day), *("" if rng.random() < gaps else cell for cell in cells)])
    return found


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on windows of 16 rows, complete and with gaps, and the files."""
    folder = tmp_path_factory.mktemp("series")
    for data, gaps in (("full", 0.0), ("gaps", 0.05)):
        write(folder / f"{data}.csv", steps_of(600, gaps), ["date", "v", "u"])
        fit = ["fit", str(folder / f"{data}.csv"), "hmm", "--length", "16", "--model.states", "2", "--plain"]
        assert main([*fit, "-o", str(folder / data)]) == 0
    return folder


@pytest.mark.parametrize("run", ["full", "gaps"])
def test_a_series_without_gaps_is_not_changed(run: str, series: Path, tmp_path: Path, call: Call) -> None:
    """Nothing is drawn unless a part of the windows is named."""
    data = write(tmp_path / "data.csv", steps_of(48, 0.0, seed=5), ["date", "v", "u"])
    for out in ("out.csv", "out.npy"):
        called = call("complete", series / run, data, "-o", tmp_path / out)
        assert called.status == 2
        assert "has nothing to complete, since every value is known" in called.err
        assert not (tmp_path / out).exists()
    assert call("complete", series / run, data, "-o", tmp_path / "out.npy", "--keep", "first:0.5").status == 0
    found = np.load(tmp_path / "out.npy").reshape(3, 16, 2)
    values = np.array([row[1:] for row in read(data)[1]], float).reshape(3, 16, 2)
    assert (found[:, :8] == values[:, :8]).all()
    assert (found[:, 8:] != values[:, 8:]).all()


@pytest.mark.parametrize("run", ["full", "gaps"])
def test_a_run_on_a_complete_series_fills_gaps_too(run: str, series: Path, tmp_path: Path, call: Call) -> None:
    """A value of one column follows from the other."""
    whole, cells = steps_of(48, 0.0, seed=5), steps_of(48, 0.0, seed=5)
    for i, row in enumerate(cells):
        row[1 + i % 2] = ""
    data = write(tmp_path / "data.csv", cells, ["date", "v", "u"])
    assert call("complete", series / run, data, "-o", tmp_path / "out.npy").status == 0
    found = np.load(tmp_path / "out.npy").reshape(48, 2)
    values = np.array([row[1:] for row in whole], float)
    gone = np.array([[cell == "" for cell in row[1:]] for row in cells])
    assert (found[~gone] == values[~gone]).all()
    assert np.mean(np.abs(found - values)[gone] < 1.5) > 0.9


def test_what_a_model_in_order_cannot_fill_is_said(series: Path, tmp_path: Path, call: Call) -> None:
    run, data = tmp_path / "rnn", write(tmp_path / "data.csv", steps_of(48, 0.2), ["date", "v", "u"])
    fit = ("fit", series / "full.csv", "rnn", "--length", 16, "-o", run, "--preset", "tiny", "--steps", 2, "--plain")
    assert call(*fit).status == 0
    called = call("complete", run, data, "-o", tmp_path / "out.npy")
    assert called.status == 2
    last = called.err.strip().splitlines()[-1]
    assert last.startswith(f"unsup: error: {data} has gaps before known values: ")
    assert "--missing" not in last
    assert last.endswith("such as hmm")


@pytest.mark.parametrize("n", [32, 33, 41, 47])
def test_all_rows_and_columns_of_a_series_are_written(n: int, series: Path, tmp_path: Path, call: Call) -> None:
    """In the order of the file, which is not that of time. The last window is given what the one before it has."""
    cells = steps_of(n, 0.3, seed=n)
    places = np.random.default_rng(n).permutation(n)
    mixed = [[cells[i][2], f"note {i}", cells[i][0], cells[i][1]] for i in places]
    data = write(tmp_path / "data.csv", mixed, ["u", "remark", "date", "v"])
    called = call("complete", series / "gaps", data, "-o", tmp_path / "out.csv", "--fill", "mean")
    assert called.status == 0
    gone = np.array([[cell == "" for cell in row[1:]] for row in cells])
    assert called.out.startswith(f"{gone.sum()} missing cells in {gone.any(1).sum()} rows of {data} filled")
    assert called.out.strip().endswith(f"all {n} rows in {tmp_path / 'out.csv'}")
    header, after = read(tmp_path / "out.csv")
    assert header == ["u", "remark", "date", "v"]
    assert all(
        was in (cell, "") for old, new in zip(mixed, after, strict=True) for was, cell in zip(old, new, strict=True)
    )

    values = torch.tensor([[float(cell or "nan") for cell in row[1:]] for row in cells], dtype=torch.float64)
    model = unsup.load(series / "gaps")
    for start in [*range(0, n - 15, 16), n - 16]:  # values that were filled before are known
        window = values[None, start : start + 16]
        values[start : start + 16] = fill_examples(model, Batch(window), ~window.isnan(), "mean")[0]
    found = np.empty((n, 2))
    found[places] = [[float(row[3]), float(row[0])] for row in after]
    assert np.allclose(found, values, atol=6e-3)  # as many decimals as the file

    call("complete", series / "gaps", data, "-o", tmp_path / "out.parquet", "--fill", "mean")
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert list(frame.columns) == ["date", "v", "u"]
    assert [str(day.date()) for day in frame["date"]] == [row[2] for row in after]
    assert np.allclose(frame[["v", "u"]], [[float(row[3]), float(row[0])] for row in after])


def test_a_series_of_less_than_a_window(series: Path, tmp_path: Path, call: Call) -> None:
    data = write(tmp_path / "data.csv", steps_of(15, 0.3), ["date", "v", "u"])
    called = call("complete", series / "gaps", data, "-o", tmp_path / "out.csv")
    assert called.status == 2
    assert "has 15 rows, less than one window of 16 rows as in training" in called.err


@pytest.mark.parametrize("left", [0, 1, 15])
def test_scores_say_how_many_rows_fill_no_window(left: int, series: Path, tmp_path: Path, call: Call) -> None:
    n = 32 + left
    data = write(tmp_path / "data.csv", steps_of(n, 0.0), ["date", "v", "u"])
    called = call("score", series / "full", data)
    assert called.status == 0
    assert (f"{left} of {n} rows left out" in called.err) == (left > 0)
    assert called.err.count("left out") == min(left, 1)
