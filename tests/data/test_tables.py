"""Tables as people have them: every form of a cell is read as what it is, and written as it was."""

from __future__ import annotations

import bz2
import csv
import datetime
import gzip
import io
import lzma
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather

from unsup import InputError, from_arrays
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.data import load_data
from unsup.data.columns import OTHER, Column, TableForm
from unsup.data.form import form_from_json
from unsup.data.load import load_batch, load_rows
from unsup.data.notation import PATTERNS, Notation
from unsup.data.recorded import digest_of

RNG = np.random.default_rng(0)


def written(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read_back(path: Path, **options: Any) -> tuple[list[str], list[list[str]]]:
    """The names and rows of the file that the form of a table writes for its own rows."""
    found = load_rows(path, **options)
    assert isinstance(found.form, TableForm)
    ((_, content),) = found.form.files(found.tensor, Path("out.csv"))
    header, *rows = csv.reader(io.StringIO(content.decode(), newline=""), delimiter=found.form.separator)
    return header, rows


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_data(path, **options)
    return str(caught.value).replace(str(path), "PATH")


# --- a round trip of every kind of cell ---------------------------------------------------------------------------

DAYS = st.integers(-20_000, 40_000)
CELLS: dict[str, Any] = {
    "integers": st.integers(-10_000, 10_000).map(str),
    "fractions": st.integers(-10_000, 10_000).map(lambda n: f"{n / 100:.2f}"),
    "dollars": st.integers(-(10**7), 10**7).map(lambda n: f"{'-' * (n < 0)}${abs(n) / 100:,.2f}".replace("-$", "$-")),
    "percents": st.integers(0, 1000).map(lambda n: f"{n / 10:.1f}%"),
    "kilograms": st.integers(0, 1000).map(lambda n: f"{n} kg"),
    "words": st.sampled_from(["red", "green", "dark blue", "a,b", 'say "x"', "ünïcode", "two\nlines"]),
    "flags": st.sampled_from(["no", "yes"]),
    "truths": st.sampled_from(["True", "False"]),
    "iso dates": DAYS.map(lambda n: str(datetime.date(1970, 1, 1) + datetime.timedelta(n))),
    "german dates": DAYS.map(lambda n: (datetime.date(1970, 1, 1) + datetime.timedelta(n)).strftime("%d.%m.%Y")),
    "moments": st.integers(0, 10**9).map(
        lambda n: (datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=n)).strftime("%Y-%m-%d %H:%M:%S")
    ),
}


@pytest.mark.parametrize("kind", CELLS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_cells_are_written_as_they_were(
    kind: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    cells = data.draw(st.lists(CELLS[kind], min_size=4, max_size=30))
    gaps = data.draw(st.lists(st.booleans(), min_size=len(cells), max_size=len(cells)))
    cells = ["" if gap and i > 1 else cell for i, (cell, gap) in enumerate(zip(cells, gaps, strict=True))]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([["x", "n"], *([c, f"{i}.5"] for i, c in enumerate(cells))])
    path = written(tmp_path_factory.mktemp("t"), text.getvalue())
    header, rows = read_back(path, header=True)
    assert header == ["x", "n"]
    assert [row[0] for row in rows] == cells


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_of_dates(pattern: str, tmp_path: Path) -> None:
    moments = [datetime.datetime(2021, 1 + i % 12, 13 + i % 15, i % 24, 7 * i % 60, i % 60, 250_000) for i in range(30)]
    cells = [m.strftime(pattern) for m in moments]
    path = written(tmp_path, "x,n\n" + "".join(f'"{c}",{i}.5\n' for i, c in enumerate(cells)))
    found = load_rows(path)
    assert found.form.columns[0].kind == "date"
    assert found.event.columns[0] == REAL
    assert [row[0] for row in read_back(path)[1]] == cells
    wanted = [datetime.datetime.strptime(c, pattern) for c in cells]
    origin = datetime.datetime(1970, 1, 1) if "%Y" in pattern or "%y" in pattern else datetime.datetime(1900, 1, 1)
    days = [(w - origin).total_seconds() / 86_400 for w in wanted]
    assert found.tensor[:, 0].tolist() == pytest.approx(days, abs=1e-9)


def test_decimal_commas_are_found(tmp_path: Path) -> None:
    rows = [(f"{i},25", f"{i % 7}.000,5", f"x{i % 3}") for i in range(30)]
    path = written(tmp_path, "a;b;c\n" + "".join(f"{a};{b};{c}\n" for a, b, c in rows))
    data = load_rows(path, categorical=("c",))
    assert data.tensor[:, 0].tolist() == [i + 0.25 for i in range(30)]
    assert data.tensor[:, 1].tolist() == [1000 * (i % 7) + 0.5 for i in range(30)]
    assert any("decimal point is ','" in note for note in data.notes)
    assert [tuple(row) for row in read_back(path, categorical=("c",))[1]] == [
        (a, b if not b.startswith("0") else "0,5", c) for a, b, c in rows
    ]
    assert load_rows(path, decimal=",", categorical=("c",)).tensor[:, 0].tolist() == [i + 0.25 for i in range(30)]


@pytest.mark.parametrize(
    ("cells", "value"),
    [
        (["1,234", "12,500"], [1234, 12500]),
        (["1,5", "2,25"], [1.5, 2.25]),
        (["1.234,5", "7,25"], [1234.5, 7.25]),
        (["1,234.5", "7.25"], [1234.5, 7.25]),
        (["1 234,5", "7,5"], [1234.5, 7.5]),
        (["1'234.5", "7.5"], [1234.5, 7.5]),
        (["€ 5", "€ 7"], [5, 7]),
        (["USD 5.5", "USD 7"], [5.5, 7]),
        (["5%", "7.5%"], [5, 7.5]),
        (["−5 °C", "7 °C"], [-5, 7]),
        (["1e3 m", "2.5e-1 m"], [1000, 0.25]),
    ],
)
def test_notations_of_numbers(cells: list[str], value: list[float], tmp_path: Path) -> None:
    path = written(tmp_path, "x,n\n" + "".join(f'"{c}",{i}\n' for i, c in enumerate(cells * 15)))
    assert load_rows(path).tensor[:, 0].tolist() == value * 15


@pytest.mark.parametrize(
    "cells", [["room1", "room2"], ["1a", "2b"], ["3-4", "5-6"], ["1.2.3", "4.5.6"], ["3 4", "5 6"]]
)
def test_numbers_in_names_stay_words(cells: list[str], tmp_path: Path) -> None:
    path = written(tmp_path, "x,n\n" + "".join(f"{c},{i}\n" for i, c in enumerate(cells * 15)))
    assert load_rows(path).form.columns[0].words == tuple(sorted(cells))


# --- words --------------------------------------------------------------------------------------------------------


def test_words_become_categories(tmp_path: Path) -> None:
    rows = [("no", "b", "x"), ("yes", "c", "y"), ("no", "a", "z"), ("yes", "a", "x")] * 9
    path = written(tmp_path, "flag,kind,other,n\n" + "".join(f"{','.join(r)},{i}.5\n" for i, r in enumerate(rows)))
    found = load_rows(path)
    assert found.event == Event((4,), (BINARY, Support("nominal", 3), Support("nominal", 3), REAL))
    assert [c.words for c in found.form.columns] == [("no", "yes"), ("a", "b", "c"), ("x", "y", "z"), ()]
    assert found.tensor[:4, :3].tolist() == [[0, 1, 0], [1, 2, 1], [0, 0, 2], [1, 0, 0]]


def test_rare_words_share_a_category(tmp_path: Path) -> None:
    cells = [f"w{i % 90}" for i in range(900)] + [f"rare{i}" for i in range(60)]
    found = load_rows(written(tmp_path, "w,n\n" + "".join(f"{c},{i}.5\n" for i, c in enumerate(cells))))
    column = found.form.columns[0]
    assert len(column.words) == 100
    assert column.words[-1] == OTHER
    assert {f"w{i}" for i in range(90)} < set(column.words)
    assert (found.tensor[:, 0] == 99).sum() == 60 - 9
    assert (
        "column 'w' has 150 different words: the 99 most frequent (95% of its cells) are categories" in found.notes[0]
    )


def test_numbers_as_categories(tmp_path: Path) -> None:
    path = written(tmp_path, "zip,n\n" + "".join(f"{(10115, 80331, 20095)[i % 3]},{i}.5\n" for i in range(30)))
    assert load_rows(path).event.columns[0] == REAL
    found = load_rows(path, categorical=("zip",))
    assert found.form.columns[0].words == ("10115", "20095", "80331")
    assert found.tensor[:3, 0].tolist() == [0, 2, 1]


# --- the file -----------------------------------------------------------------------------------------------------

TEXT = "größe;art\n" + "".join(f"{i}.25;{'äöü'[i % 3]}\n" for i in range(60))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_encodings_and_packings(encoding: str, suffix: str, tmp_path: Path) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
    found = load_rows(written(tmp_path, pack[suffix](TEXT.encode(encoding)), f"t.csv{suffix}"))
    assert found.columns == ("größe",)
    assert found.labels == ("ä", "ö", "ü")
    assert found.tensor[:, 0].tolist() == [i + 0.25 for i in range(60)]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_in_quoted_names(separator: str, tmp_path: Path) -> None:
    text = f'"height, cm; or so"{separator}"weight | kg"\n' + "".join(f"{i}.5{separator}{i}.25\n" for i in range(30))
    found = load_rows(written(tmp_path, text))
    assert found.columns == ("height, cm; or so", "weight | kg")
    assert found.form.separator == separator


@pytest.mark.parametrize(
    ("first", "named"),
    [
        ("a,b", True),
        ("0,1", True),
        ("1,2", True),
        (",0", True),
        ("x,7.25", True),
        ("7.25,3.5", False),
        ("nan,3.5", False),
    ],
)
def test_headers_are_found(first: str, named: bool, tmp_path: Path) -> None:
    path = written(tmp_path, f"{first}\n" + "".join(f"{i}.5,{i}.25\n" for i in range(30)))
    assert len(load_rows(path).x) == 30 + (not named)
    assert len(load_rows(path, header=not named).x) == 30 + named if first not in ("a,b", "x,7.25", ",0") else True


def test_a_table_of_words_has_a_header_unless_its_words_occur_again(tmp_path: Path) -> None:
    rows = "red,small\nblue,large\nred,large\n" * 8
    assert len(load_rows(written(tmp_path, rows)).x) == 24
    assert load_rows(written(tmp_path, f"colour,size\n{rows}")).columns == ("colour", "size")


def test_lines_are_counted_with_blank_lines_and_cells_of_several_lines(tmp_path: Path) -> None:
    path = written(tmp_path, '\n\na,b\n1,"x\ny"\n\n2,z\n3,"x\ny"\n4,z\n')
    assert list(load_rows(path).names) == ["line 5", "line 7", "line 9", "line 10"]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_typed_files(suffix: str, tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([1, 2, None, 4] * 5, pa.int32()),
            "x": pa.array([0.5, None, 2.25, 1e-17] * 5),
            "d": pa.array([datetime.date(2020, 1, 1 + i) for i in range(20)]),
            "t": pa.array([datetime.datetime(2020, 1, 1, 12) + datetime.timedelta(hours=i) for i in range(20)]),
            "ok": pa.array([True, False] * 10),
            "w": pa.array(["a", "b", "c", None] * 5).dictionary_encode(),
            "dec": pa.array([i * 10 for i in range(20)], pa.decimal128(10, 2)),
        }
    )
    path = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        from pyarrow import parquet

        parquet.write_table(table, path)
    else:
        feather.write_feather(table, path)
    found = load_rows(path)
    kinds = [column.kind for column in found.form.columns]
    assert kinds == ["number", "number", "date", "date", "words", "words", "number"]
    assert found.event.missing
    assert found.tensor[0].tolist() == [1, 0.5, 18262, 18262.5, 1, 0, 0]
    assert found.tensor[2, 0].isnan()
    frame = load_data(table)
    assert frame.event == found.event
    assert torch.equal(load_rows(path).tensor.nan_to_num(), found.tensor.nan_to_num())


def test_samples_of_a_table_as_parquet(tmp_path: Path) -> None:
    from pyarrow import parquet

    text = "n,x,d,w\n" + "".join(f"{i},{i}.5,2020-01-0{i % 9 + 1},{'abc'[i % 3]}\n" for i in range(30))
    found = load_rows(written(tmp_path, text), categorical=("w",))
    ((_, content),) = found.form.files(found.tensor, Path("o.parquet"))
    table = parquet.read_table(io.BytesIO(content))
    assert table["n"].to_pylist() == list(range(30))
    assert table["w"].to_pylist() == ["abc"[i % 3] for i in range(30)]
    assert table["d"][0].as_py() == datetime.datetime(2020, 1, 1)


def test_spreadsheets(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="writes the file")
    pytest.importorskip("python_calamine", reason="needs the extra excel")
    book = openpyxl.Workbook()
    book.active.append(["n", "w", "d"])
    for i in range(30):
        book.active.append([i + 0.5, "abc"[i % 3] if i else None, datetime.date(2020, 1, 1 + i)])
    book.create_sheet("more").append(["z"])
    book.save(tmp_path / "t.xlsx")
    found = load_rows(tmp_path / "t.xlsx")
    assert found.columns == ("n", "w", "d")
    assert [column.kind for column in found.form.columns] == ["number", "words", "date"]
    assert found.tensor[1].tolist() == [1.5, 1, 18263]
    assert "the others are 'more' (--sheet)" in " ".join(found.notes)
    assert refusal(tmp_path / "t.xlsx", sheet="mor") == "PATH has no sheet 'mor'; did you mean 'more'?"


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames(library: str) -> None:
    frames = pytest.importorskip(library)
    columns = {"n": [0.5, 1.5, 2.5] * 9, "w": ["a", "b", "c"] * 9, "k": [1, 2, 1] * 9}
    data = load_data(frames.DataFrame(columns), label="k")
    assert data.columns == ("n", "w")
    assert data.labels == ("1", "2")
    assert data.event == Event((2,), (REAL, Support("nominal", 3)))


# --- what is missing ----------------------------------------------------------------------------------------------

GAPS = ["", "NA", "N/A", "nan", "NaN", "null", "NULL", "None", "?", "<NA>", "#N/A", "NaT", "missing"]


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize(
    "others", [["1.5", "2.5", "3.25"], ["a", "b", "c"], ["2020-01-01", "2020-01-02", "2020-02-01"]]
)
def test_spellings_of_missing_cells(gap: str, others: list[str], tmp_path: Path) -> None:
    cells = [*others, gap, f" {gap} "] * 6
    path = written(tmp_path, "x,n\n" + "".join(f"{c},{i}.5\n" for i, c in enumerate(cells)))
    found = load_rows(path)
    assert found.event.missing
    assert found.tensor[:, 0].isnan().tolist() == [False, False, False, True, True] * 6


@pytest.mark.parametrize("gap", ["-", "--", ".", "#DIV/0!", "unknown"])
def test_spellings_that_are_missing_among_numbers_only(gap: str, tmp_path: Path) -> None:
    for others, missing in ((["1.5", "2.5"], True), (["a", "b"], False)):
        cells = [*others, gap] * 10
        found = load_rows(written(tmp_path, "x,n\n" + "".join(f"{c},{i}.5\n" for i, c in enumerate(cells))))
        assert found.event.missing == missing


def test_what_is_done_about_missing_cells(tmp_path: Path) -> None:
    rows = [("1", "a"), ("2", ""), ("", "b"), ("4", "a"), ("9", "a")] * 8
    path = written(tmp_path, "x,w,y\n" + "".join(f"{a},{b},{i}.5\n" for i, (a, b) in enumerate(rows)))
    kept = load_rows(path)
    assert kept.event.missing
    assert "16 of 40 rows have missing values, in the columns x (8), w (8)" in kept.notes
    dropped = load_rows(path, missing="drop")
    assert dropped.tensor[:3].tolist() == [[1, 0, 0.5], [4, 0, 3.5], [9, 0, 4.5]]
    assert list(dropped.names[:2]) == ["line 2", "line 5"]
    assert not dropped.event.missing
    filled = load_rows(path, missing="impute")
    assert filled.tensor[1:3, :2].tolist() == [[2, 0], [2, 1]]
    assert refusal(path, missing="refuse").startswith(
        "PATH has missing values in 16 of 40 rows, in the columns x (8), w"
    )
    assert "missing" in refusal(written(tmp_path, "a,b\n" + "1,\n,2\n" * 9), missing="drop")


def test_a_label_with_gaps(tmp_path: Path) -> None:
    path = written(tmp_path, "a,k\n" + "1,x\n2,\n3,y\n" * 5)
    message = "the column 'k' of PATH (the label) has 5 missing cells; fill them, delete the lines, or drop them with"
    assert refusal(path, label="k").startswith(message)
    data = load_rows(path, label="k", missing="drop")
    assert data.tensor[:, 0].tolist() == [1, 3] * 5
    assert data.label.tolist() == [0, 1] * 5


# --- other files of the same table --------------------------------------------------------------------------------


def test_columns_are_matched_by_name(tmp_path: Path) -> None:
    lines = [(f"{i}.5", "abc"[i % 3], f"{i % 9}.25") for i in range(30)]
    data = load_data(written(tmp_path, "x,w,y\n" + "".join(f"{','.join(r)}\n" for r in lines)))
    form = form_from_json(data.form.to_json())
    assert form == data.form
    other = written(tmp_path, "y,extra,w,x\n" + "0.25,7,c,3.5\n1.25,7,a,4.5\n", "o.csv")
    batch, names = load_batch(other, data.event, form=form)
    assert batch.x.tolist() == [[3.5, 2, 0.25], [4.5, 0, 1.25]]
    assert names == ("line 2", "line 3")
    for text, message in (
        ("x,y\n1,2\n", "has no column w, but the model was trained with it"),
        ("x,w,y\n1,d,2\n", "column 'w': 'd' (line 2) is unknown; known words: 'a', 'b', 'c'"),
        ("x,w,y\nfour,a,2\n", "column 'x': 'four' (line 2) is not a number"),
    ):
        with pytest.raises(InputError) as caught:
            load_batch(written(tmp_path, text, "o.csv"), data.event, form=form)
        assert message in str(caught.value)


def test_problems_of_a_file_are_told_together(tmp_path: Path) -> None:
    rows = ["1.5,2,3"] * 30
    rows[3], rows[7], rows[8], rows[9] = "x,2,3", "1.5,inf,3", "1.5,inf,3", "1.5,2,y"
    assert refusal(written(tmp_path, "a,b,c\n" + "\n".join(rows))) == (
        "PATH: column 'a': 'x' (line 5) is not a number; column 'b': 'inf' (line 9 and 1 more) is not finite; "
        "column 'c': 'y' (line 11) is not a number; correct them, remove the column (--drop a, drop=('a',)), or read "
        "the column as categories (--categorical a)"
    )
    assert refusal(written(tmp_path, "a,b\n1,2\n3\n4,5,6\n7,8\n")) == (
        "PATH: the first line has 2 cells, but line 3 has 1, line 4 has 3; fix or delete them"
    )


# --- series -------------------------------------------------------------------------------------------------------


def test_windows_of_a_series_do_not_cross_the_splits(tmp_path: Path) -> None:
    lines = [f"2020-01-01 {i // 60:02d}:{i % 60:02d},{i}.5,{-i}" for i in range(400)]
    shuffled = [lines[i] for i in RNG.permutation(400)]
    path = written(tmp_path, "t,x,y\n" + "\n".join(shuffled))
    data = load_data(path, length=8, stride=2)
    assert data.event == Event((8, 2), REAL, "sequence")
    for split, (start, end) in ((data.train, (0, 320)), (data.validation, (320, 360)), (data.test, (360, 400))):
        firsts = list(range(start, end - 7, 2))
        assert split.x[:, :, 0].tolist() == [[f + i + 0.5 for i in range(8)] for f in firsts]
        assert torch.equal(split.x[:, :, 1], 0.5 - split.x[:, :, 0])
    assert data.split == "80/10/10 by time"
    one = load_data(path, length=8, drop=("y",))
    assert one.event == Event((8,), REAL, "sequence")
    batch, _ = load_batch(path, one.event, form=one.form)
    assert batch.x.flatten().tolist() == [i + 0.5 for i in range(400)]
    assert refusal(path, length=41).startswith(
        "PATH has 400 rows, and its splits of 320, 40, 40 are too few for windows"
    )
    assert refusal(path, stride=2).startswith("PATH: stride and time are for series")


def test_gaps_in_a_series(tmp_path: Path) -> None:
    cells = [f"{i}.5" for i in range(200)]
    cells[50] = cells[51] = ""
    path = written(tmp_path, "x\n" + "\n".join(c or "NA" for c in cells))
    assert load_data(path, length=4).event.missing
    filled = load_data(path, length=4, stride=1, missing="impute").train.x
    assert filled[50, 0].item() == 50.5
    dropped = load_data(path, length=4, stride=1, missing="drop").train.x
    assert len(filled) - len(dropped) == 5
    assert not dropped.isnan().any()


def test_number_columns_of_the_form_round_trip_through_json() -> None:
    form = TableForm(
        (Column("a", decimals=2, notation=Notation(comma=True)), Column("w", "words", ("x", "y"))),
        separator=";",
        window=3,
    )
    assert form_from_json(form.to_json()) == form
    with pytest.raises(InputError, match="unknown"):
        form_from_json({"form": "tables"})


def test_the_digest_covers_words_and_not_the_order_of_rows(tmp_path: Path) -> None:
    rows = [f"{i}.5,{'abc'[i % 3]},{i % 7}" for i in range(60)]

    def digest(lines: list[str], name: str = "t.csv") -> str:
        return digest_of(load_data(written(tmp_path, "x,w,n\n" + "\n".join(lines), name)))

    own = digest(rows)
    assert digest(rows[::-1]) == own
    assert digest(rows, "other.csv") == own
    assert digest([row.replace("c", "d") for row in rows]) != own
    assert digest([rows[0].replace("a", "b"), *rows[1:]]) != own
    assert digest([rows[0].replace("a", ""), *rows[1:]]) != own


@pytest.mark.parametrize("kind", ["npy", "npz", "splits", "arrays"])
def test_missing_entries_of_arrays(kind: str, tmp_path: Path) -> None:
    x = RNG.normal(size=(200, 3))
    x[::4, 1] = np.nan
    label = np.arange(200) % 3

    def data(**options: Any) -> Any:
        if kind == "npy":
            np.save(tmp_path / "x.npy", x)
            return load_data(tmp_path / "x.npy", **options)
        if kind == "arrays":
            return from_arrays(x, label, **options)
        parts = {"x": x, "label": label}
        if kind == "splits":
            parts = {"x_train": x[:100], "x_test": x[100:], "label_train": label[:100], "label_test": label[100:]}
        np.savez(tmp_path / "x.npz", **parts)
        return load_data(tmp_path / "x.npz", **options)

    assert data().event.missing
    dropped = data(missing="drop")
    assert not dropped.event.missing
    whole = torch.cat([dropped.train.x, dropped.validation.x, dropped.test.x])
    assert sorted(whole[:, 0].tolist()) == sorted(x[~np.isnan(x[:, 1]), 0].tolist())
    if kind == "splits":
        assert sorted(dropped.test.x[:, 0].tolist()) == sorted(x[100:][~np.isnan(x[100:, 1]), 0].tolist())
    if kind != "npy":
        found = dict(zip(x[:, 0].tolist(), label.tolist(), strict=True))
        assert [found[v] for v in dropped.train.x[:, 0].tolist()] == dropped.train.label.tolist()
    filled = data(missing="impute").train.x
    assert len(filled[:, 1].unique()) < len(filled) - 10  # tests/data/test_missing.py has the values
    with pytest.raises(InputError, match="missing values in 50 of 200 rows, in the columns number 1"):
        data(missing="refuse")


PEAK = """
import resource, sys
from unsup.data import load_data
def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = peak()
data = load_data(sys.argv[1])
size = sum(s.x.numel() * s.x.element_size() for s in (data.train, data.validation, data.test))
print((peak() - start) / size)
"""


@pytest.mark.slow
def test_a_table_is_read_in_three_times_its_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({f"c{d}": rng.normal(size=1_000_000) for d in range(20)})
    pyarrow.csv.write_csv(table, tmp_path / "t.csv")
    words = [sys.executable, "-c", PEAK, str(tmp_path / "t.csv")]
    found = subprocess.run(words, check=True, capture_output=True, text=True, timeout=300)
    assert float(found.stdout) < 3
