"""Numbers, dates and words in the notations of spreadsheets: read as pandas reads them, and read again alike."""

from __future__ import annotations

import datetime
import gzip
import io
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unsup import InputError, load_data
from unsup.data.load import load_batch, load_rows
from unsup.data.notation import PATTERNS, Notation, date_in, notation_of, pattern_of, written_date


def table(folder: Path, text: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(text, newline="")
    return folder / name


def column(folder: Path, cells: list[str], name: str = "t.csv") -> Path:
    """A quoted column and a plain one."""
    return table(folder, "x,n\n" + "".join(f'"{c}",{i}.5\n' for i, c in enumerate(cells)), name)


def again(path: Path, data: Any) -> list[list[float]]:
    """Another file, as the first one was read."""
    batch, _ = load_batch(path, data.event, form=data.form)
    return batch.x.tolist()


# --- numbers ----------------------------------------------------------------------------------------------------------

NOTATIONS = st.builds(
    Notation,
    comma=st.booleans(),
    thousands=st.sampled_from(["", ",", ".", " ", "'", "\u202f"]),
    before=st.sampled_from(["", "$", "€ ", "USD "]),
    after=st.sampled_from(["", "%", " %", " kg", " °C", "µm"]),
)


def spelled(value: int, notation: Notation, decimals: int) -> str:
    """A number of thousandths, as a person would write it."""
    text = f"{abs(value) / 10**decimals:,.{decimals}f}"
    marks = {",": notation.thousands, ".": "," if notation.comma else "."}
    return "-" * (value < 0) + notation.before + "".join(marks.get(c, c) for c in text) + notation.after


@settings(max_examples=150, deadline=None)
@given(notation=NOTATIONS, data=st.data())
def test_numbers_are_read_and_read_again_one_by_one(
    notation: Notation, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assume(notation.thousands != ("," if notation.comma else ".") and not (notation.before and notation.after.strip()))
    decimals = data.draw(st.integers(0, 3))
    values = data.draw(st.lists(st.integers(-(10**8), 10**8), min_size=4, max_size=20, unique=True))
    values += [1, 12_345_678_9 * 10**decimals]  # one of each is certain
    cells = [spelled(v, notation, decimals) for v in values] + [spelled(15, notation, 1)]
    expected = [v / 10**decimals for v in values] + [1.5]
    folder = tmp_path_factory.mktemp("t")
    found = load_rows(column(folder, cells))
    assert found.tensor[:, 0].tolist() == pytest.approx(expected)
    for cell, value in zip(cells, expected, strict=True):
        assert again(column(folder, [cell], "o.csv"), found)[0][0] == pytest.approx(value)


@pytest.mark.parametrize(
    ("separator", "cells", "options"),
    [
        (";", ["1.234", "2.500", "12.000"], {"decimal": ",", "thousands": "."}),  # beside a column of decimal commas
        ("\t", ["1,234", "12,345,678", "5,678"], {"thousands": ","}),
        ("|", ["1,234", "2,345"], {"thousands": ","}),
        (";", ["1,234", "2,345"], {"decimal": ","}),
        (",", ["0,532", "0,125", "1,250"], {"decimal": ","}),
        (",", ["1,234", "12,500"], {"thousands": ","}),
        (",", ["1.234,5", "7,25"], {"decimal": ",", "thousands": "."}),
        ("\t", ["0,5", "1,234"], {"decimal": ","}),
    ],
)
def test_marks_are_read_as_pandas_reads_them(
    separator: str, cells: list[str], options: dict[str, str], tmp_path: Path
) -> None:
    beside = "3,5" if separator == ";" else "x"
    lines = [f'"{cell}"{separator}"{beside}"' for cell in cells]
    path = table(tmp_path, f"a{separator}b\n" + "\n".join(lines) + "\n")
    expected = pd.read_csv(io.StringIO(path.read_text()), sep=separator, **options)["a"].to_numpy(float)
    found = load_rows(path)
    np.testing.assert_array_equal(found.tensor[:, 0], expected)
    for line, value in zip(lines, expected, strict=True):
        one = table(tmp_path, f"a{separator}b\n{line}\n", "o.csv")
        assert again(one, found)[0][0] == value


@pytest.mark.parametrize(
    ("cells", "other", "message"),
    [
        (["5 kg", "7 kg"], "5000 g", "not a number in kg"),
        (["12%", "7%"], "0.12", "not a number in %"),
        (["$12", "$7"], "€12", "not a number in $"),
        (["2021-01-01 10:30", "2021-02-01 11:30"], "10:30", "not a date like 1970-01-01 00:00"),
        (["1.5", "2.5"], "2021-01-01", "not a number"),
        (["1.5", "2.5"], "x", "not a number"),
        (["a", "b"], "c", "unknown; known words: 'a', 'b'"),
    ],
)
def test_other_units_and_kinds_are_refused(cells: list[str], other: str, message: str, tmp_path: Path) -> None:
    found = load_rows(column(tmp_path, cells))
    with pytest.raises(InputError) as caught:
        again(column(tmp_path, [other], "o.csv"), found)
    assert f"column 'x': '{other}' (line 2) is {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "other", "value"),
    [
        (["1.5", "2.5"], "3,5", 3.5),
        (["1,5", "2,5"], "3.5", 3.5),
        (["1.5", "2.5"], "1,234.5", 1234.5),
        (["5 kg", "7 kg"], "6kg", 6.0),
        (["13/04/2021", "01/02/2021"], "2021-04-13", 18_730.0),
        (["13/04/2021", "01/02/2021"], "03.04.2021", 18_720.0),
        (["01:30", "02:30"], "12:00:00", 0.5),
    ],
)
def test_other_notations_are_read_if_they_are_certain(
    cells: list[str], other: str, value: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = load_rows(column(tmp_path, cells))
    assert again(column(tmp_path, [other], "o.csv"), found)[0][0] == value
    assert "unlike the training data" in caplog.text or "kg" in other


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ("{}.5", "n. d.", "not a number"),
        ("{} kg", "500 g", "not in kg"),
        ("${}.00", "n. d.", None),
        ("2021-01-{:02d}", "2021-02-30", "not a date like 1970-01-01"),
        ("{:02d}.01.2021", "not recorded", "not a date like 01.01.1970"),
    ],
)
def test_a_mistake_does_not_turn_a_column_into_words(
    right: str, wrong: str, reason: str | None, tmp_path: Path
) -> None:
    cells = [right.format(1 + i % 28) for i in range(600)]
    cells[300] = wrong
    if reason is None:
        pytest.skip("money with other words is words: codes such as $A are")
    with pytest.raises(InputError) as caught:
        load_rows(column(tmp_path, cells))
    assert f"column 'x': {wrong!r} (line 302) is {reason}" in str(caught.value)
    assert "--categorical x" in str(caught.value)
    assert load_rows(column(tmp_path, cells), categorical=("x",)).form.columns[0].kind == "words"


def test_names_that_end_with_letters_are_words(tmp_path: Path) -> None:
    assert load_rows(column(tmp_path, ["3a", "3b", "4a"])).form.columns[0].words == ("3a", "3b", "4a")


@pytest.mark.parametrize("late", ["0.5", "3.14159", "2.25"])
def test_fractions_that_come_late_are_written(late: str, tmp_path: Path) -> None:
    cells = [str(i) for i in range(700)] + [late]
    found = load_rows(table(tmp_path, "x\n" + "\n".join(cells) + "\n"))
    assert float(found.form.cells(found.tensor)[0][-1]) == float(late)
    assert float(found.form.cells(found.tensor)[0][5]) == 5


def test_leading_zeros_are_kept(tmp_path: Path) -> None:
    codes = [f"{2134 + 997 * i:05d}" for i in range(40)]
    found = load_rows(column(tmp_path, codes))
    assert found.tensor[:, 0].tolist() == [float(c) for c in codes]
    assert found.form.cells(found.tensor)[0] == codes
    assert any("leading zeros" in note for note in found.notes)
    mixed = load_rows(column(tmp_path, ["007", "7", "12"]))
    assert mixed.form.columns[0].words == ("007", "12", "7")
    assert load_rows(column(tmp_path, ["KLM0012", "KLM0013"])).form.columns[0].kind == "words"
    assert load_data(table(tmp_path, "x,y\n" + "1,01\n2,1\n3,01\n4,1\n" * 5), label="y").labels == ("01", "1")


def test_huge_integers_are_not_rounded_in_silence(tmp_path: Path) -> None:
    ids = [str(10**18 + 10**15 * i + 1) for i in range(30)]
    found = load_rows(column(tmp_path, ids))
    assert any("above 2^53" in note and "--categorical x" in note for note in found.notes)
    assert load_rows(column(tmp_path, ids), categorical=("x",)).form.columns[0].words == tuple(ids)


# --- dates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_date_is_read_again_alone(pattern: str) -> None:
    moments = [datetime.datetime(2021, 1 + i % 12, 1 + i % 28, i % 24, 7 * i % 60, i % 60, 250_000) for i in range(30)]
    cells = [m.strftime(pattern) for m in moments]
    found, _ = pattern_of(cells)
    days = [date_in(cell, found) for cell in cells]
    by_pandas = pd.to_datetime(pd.Series(cells), format=pattern).to_numpy("datetime64[us]")
    start = np.datetime64("1970-01-01" if "%Y" in pattern or "%y" in pattern else "1900-01-01")
    np.testing.assert_allclose(days, (by_pandas - start) / np.timedelta64(1, "D"), atol=1e-9)
    assert [written_date(d, found) for d in days] == cells


@pytest.mark.parametrize("style", ["%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%y", "%m-%d-%Y", "%d.%m.%y"])
def test_days_and_months_are_not_swapped_in_another_file(style: str, tmp_path: Path) -> None:
    days = pd.date_range("2021-04-01", periods=40)
    found = load_rows(column(tmp_path, [d.strftime(style) for d in days]))
    for day in days:
        other = again(column(tmp_path, [day.strftime(style)], "o.csv"), found)
        assert other[0][0] == (day - pd.Timestamp(0)).days


def test_dates_that_fit_two_patterns_are_noted(tmp_path: Path) -> None:
    for text in ("03/04/21", "03/04/2021", "03-04-2021"):
        found = load_rows(column(tmp_path, [text, text.replace("04", "05")]))
        assert any("could also be" in note for note in found.notes), text


@pytest.mark.parametrize("zone", ["Z", "+00:00", "+02:00", "-0530"])
def test_zones_are_kept(zone: str, tmp_path: Path) -> None:
    cells = [f"2021-01-{1 + i:02d}T{i % 24:02d}:30:00{zone}" for i in range(28)]
    found = load_rows(column(tmp_path, cells))
    assert found.form.cells(found.tensor)[0] == cells
    other = again(column(tmp_path, ["2021-01-05T12:00:00+01:00"], "o.csv"), found)[0][0]
    local = pd.Timestamp("2021-01-05T12:00:00+01:00").tz_convert(pd.Timestamp(cells[0]).tz).tz_localize(None)
    assert other == pytest.approx((local - pd.Timestamp(0)) / pd.Timedelta(days=1))


def test_several_zones_become_utc(tmp_path: Path) -> None:
    cells = ["2021-01-01T00:00:00+02:00", "2021-07-01T00:00:00+01:00", "2021-07-02T00:00:00+01:00"]
    found = load_rows(column(tmp_path, cells))
    expected = [
        (pd.Timestamp(c).tz_convert("UTC").tz_localize(None) - pd.Timestamp(0)) / pd.Timedelta(days=1) for c in cells
    ]
    assert found.tensor[:, 0].tolist() == pytest.approx(expected)
    assert any("several zones" in note for note in found.notes)


# --- words, headers, separators ---------------------------------------------------------------------------------------


def test_yes_and_no_have_one_spelling(tmp_path: Path) -> None:
    found = load_rows(column(tmp_path, ["true", "False", "TRUE", "true", "false", "False"]))
    assert found.form.columns[0].words == ("False", "true")
    assert found.tensor[:, 0].tolist() == [1, 0, 1, 1, 0, 0]
    assert again(column(tmp_path, ["FALSE", "True"], "o.csv"), found) == [[0, 0.5], [1, 1.5]]


def test_words_that_spell_missing_can_be_kept(tmp_path: Path) -> None:
    path = table(tmp_path, "c,kids\n" + "NA,none\nDE,one\nFR,two\n,one\n" * 5)
    found = load_rows(path)
    assert [c.words for c in found.form.columns] == [("DE", "FR"), ("one", "two")]
    assert any("'NA' is missing; --categorical c" in note for note in found.notes)
    kept = load_rows(path, categorical=("c", "kids"))
    assert [c.words for c in kept.form.columns] == [("DE", "FR", "NA"), ("none", "one", "two")]
    assert kept.tensor[:, 1].tolist() == [0, 1, 2, 1] * 5
    batch, _ = load_batch(table(tmp_path, "c,kids\nNA,none\n", "o.csv"), kept.event, form=kept.form)
    assert batch.x.tolist() == [[2, 0]]


@pytest.mark.parametrize(
    ("first", "rows", "named"),
    [
        ("2019,2020,2021", ["0.5,0.25,0.1", "1.5,2.5,9.1", "1,0.2,0.7"], True),
        ("400.5,401,401.5,402,402.5,403", ["0.5,0.25,0.1,0.3,0.2,0.7", "1,2.5,9.1,3,1,1"], True),
        ("5,7,9", ["1,8,2", "7,1,9", "4,4,6"], False),
        ("2019,2020", ["2018,2019", "2015,2016", "2019,2020"], False),
        ("town,2019,2020", ["a,1.5,2.5", "b,2,3.5", "c,1,1"], True),
        ("2021,5,7", ["0.5,0.25,0.1", "1.5,2.5,9.1", "1,0.2,0.7"], False),
        ("5,6,7", ["1,2,3", "7,8,9", "4,5,6"], False),
        ("2021-01-01,INFO", ["2021-01-02,WARN", "2021-01-03,INFO", "2021-01-05,OK"], False),
        ("day,level", ["2021-01-02,WARN", "2021-01-03,INFO", "2021-01-05,OK"], True),
    ],
)
def test_headers_of_numbers_and_rows_of_dates(first: str, rows: list[str], named: bool, tmp_path: Path) -> None:
    found = load_rows(table(tmp_path, "\n".join([first, *rows]) + "\n"))
    assert len(found.tensor) == len(rows) + (not named)


def test_spaces_separate_cells(tmp_path: Path) -> None:
    rows = [f" {i / 7:8.4f}   {i:5d}  {'ab'[i % 2]}   {-i}  " for i in range(40)]
    path = table(tmp_path, "x  n word  m\n" + "\n".join(rows) + "\n")
    expected = pd.read_csv(path, sep=r"\s+")
    found = load_rows(path)
    assert found.columns == ("x", "n", "word", "m")
    np.testing.assert_array_equal(found.tensor[:, [0, 1, 3]], expected[["x", "n", "m"]])
    assert found.tensor[:, 2].tolist() == [i % 2 for i in range(40)]
    one = load_rows(table(tmp_path, "price\n1 200\n4 500\n3 100\n"))
    assert one.tensor[:, 0].tolist() == [1200, 4500, 3100]
    moments = load_rows(table(tmp_path, "when\n2021-01-01 10:30\n2021-01-02 10:30\n2021-01-03 11:30\n"))
    assert moments.form.columns[0].kind == "date"


@pytest.mark.parametrize(
    "cells", [["1 kg", "2 kg", "3 kg"], ["2021-01-01", "2021-01-02", "2021-01-03"], ["a", "b", "c"]]
)
def test_naming_a_label_does_not_change_the_splits(cells: list[str], tmp_path: Path) -> None:
    path = table(tmp_path, "x,y\n" + "".join(f"{i}.5,{cells[i % 3]}\n" for i in range(200)))
    plain, labelled = load_data(path, categorical=("y",)), load_data(path, label="y")
    unnamed = load_data(path, drop=("y",))
    assert labelled.test.x[:, 0].tolist() == unnamed.test.x[:, 0].tolist()
    assert plain.test.x[:, 0].tolist() == unnamed.test.x[:, 0].tolist() or cells[0] != "a"


def test_the_notation_of_one_column() -> None:
    assert notation_of(["1", "2a", "x"], comma=False) is None
    assert notation_of([], comma=False) is None
    assert notation_of(["1,5", "2.5"], comma=False) is None


# --- what a table is --------------------------------------------------------------------------------------------------


def test_tables_without_a_usual_suffix(tmp_path: Path) -> None:
    lines = "".join(f"{i / 7:.3f},{i % 9},{'ab'[i % 2]}\n" for i in range(60))
    for name in ("iris.data", "iris.dat", "iris.data.gz"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
        assert load_rows(path).columns == ("1", "2")
    as_text = load_rows(table(tmp_path, lines, "iris.txt"))
    assert any("look like rows of a table" in note and "iris.csv" in note for note in as_text.notes)
    prose = load_rows(table(tmp_path, "It was the best of times, it was the worst of times.\n" * 40, "prose.txt"))
    assert not any("table" in note for note in prose.notes)


def test_folders_of_tables_are_refused_by_name(tmp_path: Path) -> None:
    for i in range(3):
        table(tmp_path, "a\n1\n2\n", f"t{i}.csv")
    table(tmp_path, "a licence", "LICENSE.txt")
    with pytest.raises(InputError, match=r"has 3 tables \(t0.csv, t1.csv, t2.csv\)"):
        load_data(tmp_path)


def test_the_lines_that_differ_from_most_are_named(tmp_path: Path) -> None:
    title = "Measurements of 2021\n\na,b\n" + "".join(f"{i},{i}.5\n" for i in range(50))
    with pytest.raises(InputError, match="51 lines have 2 cells, but line 1 has 1; fix or delete it"):
        load_data(table(tmp_path, title))


def test_a_file_without_names_is_written_without_names(tmp_path: Path) -> None:
    for columns in (1, 3):
        path = table(tmp_path, "".join(",".join([f"{i}.5"] * columns) + "\n" for i in range(30)))
        data = load_data(path)
        ((_, content),) = data.form.files(data.train.x, tmp_path / "s.csv")
        assert len(content.decode().splitlines()) == len(data.train)
        (tmp_path / "s.csv").write_bytes(content)
        batch, _ = load_batch(tmp_path / "s.csv", data.event, form=data.form)
        assert batch.x.tolist() == data.train.x.tolist()


def test_whole_numbers_that_are_dates(tmp_path: Path) -> None:
    days = pd.date_range("2020-12-20", periods=40)
    cells = [d.strftime("%Y%m%d") for d in days]
    found = load_rows(table(tmp_path, "t,x\n" + "".join(f"{c},{i}.5\n" for i, c in enumerate(cells))))
    assert found.tensor[:, 0].tolist() == [(d - pd.Timestamp(0)).days for d in days]
    assert found.form.cells(found.tensor)[0] == cells
    assert again(table(tmp_path, "t,x\n20210131,1.5\n", "o.csv"), found)[0][0] == 18_658
    for other in ("20211301", "20210230", "12345678"):
        plain = load_rows(table(tmp_path, "t,x\n" + "".join(f"{c},1.5\n" for c in (*cells, other))))
        assert plain.form.columns[0].kind == "number", other


def test_typed_columns_are_written_with_their_decimals(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": np.arange(1000), "x": np.arange(1000) / 100, "y": np.sqrt(np.arange(1000))})
    frame.to_parquet(tmp_path / "t.parquet")
    found = load_rows(tmp_path / "t.parquet")
    assert [c.decimals for c in found.form.columns] == [0, 2, None]
    ((_, content),) = found.form.files(found.tensor.float() + 0.0012, tmp_path / "s.parquet")
    back = pd.read_parquet(io.BytesIO(content))
    assert back["n"].dtype == np.int64
    np.testing.assert_array_equal(back["n"], frame["n"])
    np.testing.assert_allclose(back["x"], frame["x"], atol=1e-12)


def test_suggested_options_can_be_pasted(tmp_path: Path) -> None:
    path = table(tmp_path, "row number,x\n" + "".join(f"{i},{i % 7}.5\n" for i in range(30)))
    note = next(n for n in load_rows(path).notes if "counts the rows" in n)
    words = shlex.split(note.split("use ")[1].split(" (")[0])
    assert words == ["--drop", "row number"]
    assert load_rows(path, drop=(words[1],)).columns == ("x",)


@pytest.mark.parametrize("header", [True, False])
def test_one_row_is_read_as_all_rows_are(header: bool, tmp_path: Path) -> None:
    lines = [f"{i / 7:.2f};{i / 3:.2f};{'ab'[i % 2]}".replace(".", ",") for i in range(60)]
    names = ["x;y;w"] * header
    data = load_rows(
        table(tmp_path, "\n".join([*names, *lines]) + "\n"), header=header, categorical=("w",) if header else ()
    )
    columns = [column.name for column in data.form.columns]
    for i in (0, 7, 33):
        one = table(tmp_path, "\n".join([*names, lines[i]]) + "\n", "o.csv")
        assert again(one, data) == [data.tensor[i].tolist()], columns


def test_the_time_of_a_series_may_be_dropped(tmp_path: Path) -> None:
    days = [f"2021-{1 + i // 28:02d}-{1 + i % 28:02d}" for i in range(84)]
    path = table(tmp_path, "t,v\n" + "".join(f"{days[(5 * i) % 84]},{i / 8}\n" for i in range(84)))
    plain, dropped = load_rows(path, length=2, time="t"), load_rows(path, length=2, time="t", drop=("t",))
    assert plain.tensor.tolist() == dropped.tensor.tolist()


def test_the_kind_of_a_known_column_does_not_depend_on_the_cells(tmp_path: Path) -> None:
    amounts = load_rows(table(tmp_path, "a,b\n" + "".join(f"{20_210_101 + 7_919 * i},1.5\n" for i in range(60))))
    assert amounts.form.columns[0].kind == "number"
    other = table(tmp_path, "a,b\n20210101,1.5\n20210102,1.5\n20210103,1.5\n", "o.csv")
    assert [row[0] for row in again(other, amounts)] == [20_210_101, 20_210_102, 20_210_103]


def test_the_note_of_compact_dates_shows_a_date(tmp_path: Path) -> None:
    found = load_rows(table(tmp_path, "t,x\n,0.5\n" + "".join(f"202101{i:02d},{i}.5\n" for i in range(1, 29))))
    assert found.form.columns[0].pattern == "%Y%m%d"
    assert any("such as 20210101" in note for note in found.notes)
