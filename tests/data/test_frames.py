"""Tables with types: data frames, Parquet and Arrow files, and spreadsheets. Other libraries are the oracles."""

from __future__ import annotations

import csv
import datetime
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from unsup import InputError
from unsup.data import load_data
from unsup.data.columns import TableForm
from unsup.data.load import load_batch, load_rows
from unsup.data.tables import read_frame, read_like

pandas = pytest.importorskip("pandas", reason="needs the extra tables")
polars = pytest.importorskip("polars", reason="needs the extra tables")

DAYS = st.dates(datetime.date(1700, 1, 1), datetime.date(2200, 1, 1))
VALUES: dict[str, Any] = {
    "integers": st.integers(-1000, 1000),
    "fractions": st.integers(-1000, 1000).map(lambda n: n + 0.25),
    "whole floats": st.integers(-1000, 1000).map(float),
    "truths": st.booleans(),
    "numerals": st.integers(0, 100).map(str),
    "words": st.sampled_from(["red", "green", "dark blue", "ünïcode"]),
    "days": DAYS.map(pandas.Timestamp),
    "dates as text": DAYS.map(str),
}


def written_cells(found: Any) -> list[list[str]]:
    """The cells of the rows of a table as they are written, by column."""
    assert isinstance(found.form, TableForm)
    return found.form.cells(found.tensor)


def text_of(value: Any) -> str:
    """A category as it should be called."""
    if isinstance(value, pandas.Timestamp):
        return str(value.date())
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@pytest.mark.parametrize("through", ["frame", ".parquet", ".arrow", "chunks"])
@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_declared_categories_are_words(
    kind: str, through: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever their values are, and also if a label is asked for."""
    levels = data.draw(st.lists(VALUES[kind], min_size=2, max_size=6, unique=True))
    codes = data.draw(st.lists(st.integers(-1, len(levels) - 1), min_size=8, max_size=30).filter(lambda c: max(c) >= 0))
    frame = pandas.DataFrame({"c": pandas.Categorical.from_codes(codes, levels), "x": np.arange(len(codes)) + 0.5})
    expected = ["" if code < 0 else text_of(levels[code]) for code in codes]

    def read(**options: Any) -> Any:
        if through == "frame":
            return read_frame(frame, **options)
        if through == "chunks":
            table = pa.table(frame)
            return read_frame(pa.concat_tables([table.slice(0, 3), table.slice(3)]), **options)
        path = tmp_path_factory.mktemp("t") / f"t{through}"
        if through == ".parquet":
            frame.to_parquet(path)
        else:
            feather.write_feather(pa.table(frame), path)
        return load_rows(path, **options)

    found = read()
    assert [column.kind for column in found.form.columns] == ["words", "number"]
    assert written_cells(found)[0] == expected
    if kind == "fractions":  # which are no classes
        return
    labelled = read(label="c", missing="drop")
    assert [labelled.labels[k] for k in labelled.label.tolist()] == [each for each in expected if each]


@pytest.mark.parametrize("kind", [polars.Categorical, polars.Enum, polars.String])
@settings(max_examples=20, deadline=None)
@given(words=st.lists(st.sampled_from(["a", "b", "long word", None]), min_size=4, max_size=20).filter(any))
def test_categories_of_polars(kind: Any, words: list[str | None]) -> None:
    kind = kind(["long word", "b", "a"]) if kind is polars.Enum else kind
    found = read_frame(polars.DataFrame({"c": polars.Series(words, dtype=kind), "x": np.arange(len(words)) + 0.5}))
    assert written_cells(found)[0] == [word or "" for word in words]


def test_a_table_scored_by_name_may_declare_its_categories_otherwise(tmp_path: Path) -> None:
    """Numbers in one table and categories in the other are matched, in both directions."""
    numbers = pandas.DataFrame({"c": [3, 1, 7] * 10, "x": np.arange(30) + 0.5})
    declared = numbers.astype({"c": "category"})
    for name, frame in (("numbers", numbers), ("declared", declared)):
        feather.write_feather(pa.table(frame), tmp_path / f"{name}.arrow")
        frame.to_parquet(tmp_path / f"{name}.parquet")
    for suffix in (".arrow", ".parquet"):
        for first, second in (("numbers", "declared"), ("declared", "numbers")):
            trained = load_rows(tmp_path / f"{first}{suffix}")
            again = read_like(tmp_path / f"{second}{suffix}", trained.form)
            assert again.tensor.tolist() == trained.tensor.tolist()


# --- times --------------------------------------------------------------------------------------------------------

ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata", "+05:30"]


@pytest.mark.parametrize("zone", [None, *ZONES])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_moments_are_read_and_written_as_the_same_moments(unit: str, zone: str | None, data: st.DataObject) -> None:
    """In all zones, and with fractions of a second; pandas is the oracle."""
    step = data.draw(st.sampled_from([1, 60, 86_400])) if unit == "s" else 0.25
    ticks = data.draw(st.lists(st.integers(-(10**4), 10**5), min_size=4, max_size=20))
    seconds = np.array(ticks) * step
    micro = pandas.to_datetime((seconds * 1e6).astype(np.int64), unit="us", utc=zone is not None)
    times = pandas.Series(micro if zone is None else micro.tz_convert(zone)).astype(
        f"datetime64[{unit}]" if zone is None else f"datetime64[{unit}, {zone}]"
    )
    found = read_frame(pandas.DataFrame({"t": times, "x": np.arange(len(times)) + 0.5}))
    column = found.form.columns[0]
    assert column.kind == "date"
    cells = pandas.to_datetime(written_cells(found)[0], format=column.pattern, utc=zone is not None)
    assert (cells == micro).all()
    assert all(cell.endswith("Z") == (zone is not None) for cell in written_cells(found)[0])
    told = [note for note in found.notes if f"'t': times are converted from {zone} to UTC" in note]
    assert len(told) == (zone not in (None, "UTC"))
    ((_, content),) = found.form.files(found.tensor, Path("o.parquet"))
    back = parquet.read_table(io.BytesIO(content)).to_pandas()["t"]
    assert (back == pandas.Series(micro)).all()


# --- large numbers ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    start=st.sampled_from([0, 2**53, 2**63, 2**64]).flatmap(lambda n: st.integers(max(0, n - 400), min(n, 2**64 - 1))),
    steps=st.lists(st.integers(0, 2**63).flatmap(lambda n: st.sampled_from([n % 7, n])), min_size=3, max_size=20),
)
def test_unsigned_integers_keep_their_differences_or_are_refused_by_name(start: int, steps: list[int]) -> None:
    values = [min(start + step, 2**64 - 1) for step in steps]
    frame = pandas.DataFrame({"many": np.array(values, np.uint64), "x": np.arange(len(values)) + 0.5})
    try:
        found = read_frame(frame)
    except InputError as error:
        said = str(error)
        assert max(values) >= 2**53
        assert said.startswith("the data frame, column 'many': integers from ")
        assert "remove the column (--drop many, drop=('many',))" in said
    else:
        x = found.tensor[:, 0].tolist()
        assert x == pytest.approx(values, rel=1e-15)
        assert len(set(x)) >= 0.9 * len(set(values))


@pytest.mark.parametrize("cells", [pa.array([[1], [2]] * 9), pa.array([{"a": 1}, {"a": 2}] * 9)])
def test_types_that_are_no_cells_are_refused(cells: pa.Array) -> None:
    table = pa.table({"x": np.arange(18) + 0.5, "c": cells})
    for options in ({}, {"label": "c"}, {"categorical": ("c",)}, {"missing": "drop", "label": "c"}):
        with pytest.raises(InputError, match=r"type .*(expected numbers, words or dates|are not words).*to text"):
            load_data(table, **options)
    with pytest.raises(InputError, match=r"'c' has the type .*interval.*convert it to text"):
        load_data(pandas.DataFrame({"c": pandas.cut(np.arange(18) + 0.5, 3), "x": np.arange(18) + 0.5}))


# --- spreadsheets -------------------------------------------------------------------------------------------------

openpyxl = pytest.importorskip("openpyxl", reason="writes spreadsheets")
pytest.importorskip("python_calamine", reason="needs the extra excel")

MOMENTS = st.datetimes(datetime.datetime(1950, 1, 1), datetime.datetime(2100, 1, 1)).map(
    lambda t: t.replace(microsecond=0)
)
CELLS: dict[str, Any] = {
    "numbers": st.integers(-99, 99).map(lambda n: n / 4),
    "integers": st.integers(-999, 999),
    "words": st.sampled_from(["red", "green", "x"]),
    "words and numbers": st.sampled_from(["red", "green", "x", "4", 4, 2.5, "other"]),
    "dates": st.dates(datetime.date(1950, 1, 1), datetime.date(2100, 1, 1)),
    "moments": MOMENTS,
    "dates and moments": st.one_of(MOMENTS, MOMENTS.map(lambda t: t.replace(hour=0, minute=0, second=0))),
    "truths": st.booleans(),
}
NAMES = st.one_of(st.sampled_from(["a", "b", "Größe", "two words"]), st.integers(1990, 2030))


def sheet(path: Path, rows: list[list[Any]], above: int = 0) -> Path:
    book = openpyxl.Workbook()
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            book.active.cell(above + r + 1, c + 1, cell)
    book.save(path)
    return path


def as_text(cells: list[Any]) -> list[str]:
    """The cells of a column as a spreadsheet would save them as CSV."""
    if any(isinstance(cell, datetime.datetime) for cell in cells):
        midnight = all(cell is None or cell.time() == datetime.time() for cell in cells)
        pattern = "%Y-%m-%d" if midnight else "%Y-%m-%d %H:%M:%S"
        return ["" if cell is None else cell.strftime(pattern) for cell in cells]
    return ["" if cell is None else str(cell).removesuffix(".0") for cell in cells]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_spreadsheets_are_read_like_the_same_table_as_csv(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same rows, kinds, words, names and places; with names, without, or as the option says."""
    folder = tmp_path_factory.mktemp("t")
    kinds = data.draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=2, max_size=4))
    n = data.draw(st.integers(6, 15))
    columns = [data.draw(st.lists(st.one_of(CELLS[k], CELLS[k], st.none()), min_size=n, max_size=n)) for k in kinds]
    for kind, column in zip(kinds, columns, strict=True):
        column[0] = data.draw(CELLS[kind])  # no column is empty
        column[:2] = [True, False] if kind == "truths" else column[:2]  # both, as the type says
    columns.append([i * i + 0.5 for i in range(n)])  # no row is empty
    width = len(columns)
    names = data.draw(st.one_of(st.none(), st.lists(NAMES, min_size=width, max_size=width, unique_by=str)))
    above, header = data.draw(st.integers(0, 2)), data.draw(st.sampled_from([None, None, True, False]))
    if header and names is None:
        header = None
    head = [] if names is None else [names]
    excel = sheet(folder / "t.xlsx", [*head, *map(list, zip(*columns, strict=True))], above)
    with (folder / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*head, *zip(*map(as_text, columns), strict=True)])
    outcomes = []
    for path in (excel, folder / "t.csv"):
        try:
            found = load_rows(path, header=header)
        except InputError as error:
            outcomes.append(str(error).replace(str(path), "PATH").partition("(")[0])
            continue
        facts = [(c.name, c.kind, c.words) for c in found.form.columns]
        outcomes.append((facts, found.labels, found.event.support, found.tensor.nan_to_num(-1e9).tolist()))
    if all(isinstance(outcome, tuple) for outcome in outcomes):
        assert outcomes[0] == outcomes[1]
    else:
        assert isinstance(outcomes[0], str) == isinstance(outcomes[1], str)


def test_the_rows_of_a_sheet_are_named_as_the_spreadsheet_numbers_them(tmp_path: Path) -> None:
    rows = [[i + 0.5, "ab"[i % 2]] for i in range(20)]
    for header, above in ((["x", "w"], 0), (["x", "w"], 3), (None, 2)):
        path = sheet(tmp_path / "t.xlsx", rows if header is None else [header, *rows], above)
        found = load_rows(path, categorical=("w",) if header else ("2",))
        first = above + 1 + (header is not None)
        assert list(found.names) == [f"row {first + i}" for i in range(20)]
        assert found.columns == (("x", "w") if header else ("1", "2"))


def test_numbers_in_names_are_whole(tmp_path: Path) -> None:
    rows = [["town", 2019, 2020.0, 2021], *([f"t{i % 3}", i, i + 1, i / 4] for i in range(20))]
    assert load_rows(sheet(tmp_path / "t.xlsx", rows)).columns == ("town", "2019", "2020", "2021")
    numbers = [[2019, 2020], *([i, i / 4] for i in range(20))]
    path = sheet(tmp_path / "n.xlsx", [[7, 3], *numbers[1:]])
    assert "the first row is read as a row, because it has numbers (--header to change this)" in load_rows(path).notes
    path = sheet(tmp_path / "n.xlsx", numbers)
    assert load_rows(path, header=True).columns == ("2019", "2020")
    assert len(load_rows(path, header=False).tensor) == 21


def test_another_frame_is_read_as_the_first_one() -> None:
    days = pandas.date_range("2021-01-01", periods=60)
    frame = pandas.DataFrame({"w": ["b", "a", "c"] * 20, "n": np.arange(60) / 4, "d": days})
    data = load_data(frame)
    other = frame[["d", "w", "n"]].iloc[[4, 1]]
    for each in (other, polars.from_pandas(other)):
        batch, _ = load_batch(each, data.event, form=data.form)
        assert batch.x.tolist() == [[0, 1, 18_632], [0, 0.25, 18_629]]
    with pytest.raises(InputError, match="the data frame has no column n"):
        load_batch(frame[["w", "d"]], data.event, form=data.form)


def test_streams_of_arrow_are_read(tmp_path: Path) -> None:
    table = pa.table({"a": [1.5, 2.5, 3.5], "w": ["x", "y", "x"]})
    with pa.OSFile(str(tmp_path / "s.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert load_rows(tmp_path / "s.arrow", categorical=("w",)).tensor.tolist() == [[1.5, 0], [2.5, 1], [3.5, 0]]
