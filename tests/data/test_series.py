"""Series: rows in the order of a time, windows within a split, and the same for other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unsup import InputError
from unsup.cli.main import main
from unsup.data import load_data
from unsup.data.form import form_from_json
from unsup.data.load import load_batch

RNG = np.random.default_rng(0)


def written(folder: Path, lines: list[str], header: str = "t,x", name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def day(i: int) -> str:
    return f"{i % 28 + 1:02d}/{i // 28 + 1:02d}/2021"


MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
WORDS: dict[str, Callable[[int], str]] = {
    "weeks": lambda i: f"week {i}",
    "months": lambda i: MONTHS[i % 12],
    "quarters": lambda i: f"{2000 + i // 4}Q{i % 4 + 1}",
    "days": lambda i: ("Monday", "Tuesday", "Sunday")[i % 3],
    "flags": lambda i: ("yes", "no")[i % 2],
    "one word": lambda i: "now",
    "with gaps": lambda i: f"week {i}" if i % 5 else "",
}
TIMES: dict[str, Callable[[int], str]] = {
    "numbers": lambda i: str(i),
    "seconds": lambda i: f"{i * 0.25:.2f}",
    "negative": lambda i: str(i - 500),
    "days": day,
    "dates": lambda i: f"2021-{i // 28 + 1:02d}-{i % 28 + 1:02d}",
    "minutes": lambda i: f"{i // 60:02d}:{i % 60:02d}",
    "months": lambda i: f"{MONTHS[i % 12]} {2000 + i // 12}",
}


@pytest.mark.parametrize("kind", WORDS)
def test_a_time_of_words_is_refused(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, [f"{WORDS[kind](i)},{i}.5" for i in range(60)])
    with pytest.raises(InputError) as caught:
        load_data(path, length=3, time="t")
    said = str(caught.value)
    assert said.startswith(f"{path}: a time is a number or a date, but the column 't' has words (such as ")
    assert said.endswith("or sort the rows in the file and remove the column with --drop t (drop=)")
    x = load_data(path, length=3, drop=("t",)).train.x
    assert x[0].tolist() == [0.5, 1.5, 2.5]


@pytest.mark.parametrize("kind", TIMES)
def test_rows_are_sorted_by_numbers_and_dates(kind: str, tmp_path: Path) -> None:
    lines = [f"{TIMES[kind](i)},{i}.5" for i in range(300)]
    path = written(tmp_path, [lines[i] for i in RNG.permutation(300)])
    data = load_data(path, length=3, stride=3, time="t")
    assert data.train.x.flatten().tolist() == [i + 0.5 for i in range(240)]
    assert "rows were sorted by 't'" in data.notes
    form = form_from_json(data.form.to_json())
    assert form == data.form
    # Rows 7, 35, 63, … have the same day of different months.
    some = [i for i in range(300) if i % 28 == 7]
    part = written(tmp_path, [lines[i] for i in RNG.permutation(some)], name="other.csv")
    batch, _ = load_batch(part, data.event, form=form)
    whole = len(some) // 3 * 3
    assert batch.x.flatten().tolist() == [i + 0.5 for i in some[:whole]]


def test_dates_of_another_file_are_read_as_in_training(tmp_path: Path) -> None:
    data = load_data(written(tmp_path, [f"{day(i)},{i}.5" for i in range(300)]), length=3)
    some = [i for i in range(300) if i % 28 < 3]  # every day of these could be a month, and the other way round
    path = written(tmp_path, [f"{day(i)},{i}.5" for i in RNG.permutation(some)], name="other.csv")
    batch, _ = load_batch(path, data.event, form=data.form)
    assert batch.x.flatten().tolist() == [i + 0.5 for i in some]
    wrong = written(tmp_path, [f"{i},{i}.5" for i in range(9)], name="other.csv")
    with pytest.raises(InputError, match="column 't'"):
        load_batch(wrong, data.event, form=data.form)


def test_another_file_without_the_time_is_in_its_own_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Dates that are not the time stay in the windows, also in a file that has no other time.
    lines = [f"{i},{day(299 - i)},{i}.5" for i in range(300)]
    data = load_data(written(tmp_path, lines, "step,day,x"), length=3, time="step")
    other = written(tmp_path, [f"{day(9 - i)},{i}.5" for i in range(9)], "day,x", "other.csv")
    batch, _ = load_batch(other, data.event, form=data.form)
    assert batch.x[:, :, 1].flatten().tolist() == [i + 0.5 for i in range(9)]
    assert "there is no column 'step' (the time), so rows are taken in the order of the file" in caplog.text


def test_rows_without_a_time_are_taken_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, [f"{day(299 - i)},{day(i)},{i}.5" for i in range(300)], "a,b,x")
    data = load_data(path, length=3, stride=3)
    assert data.train.x[:, :, 2].flatten().tolist() == [i + 0.5 for i in range(240)]
    assert any("rows are taken in the order of the file; --time names a column of times: a, b" in n for n in data.notes)


# --- missing values -----------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_gaps_are_interpolated_within_a_split(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(100, 2)).round(3)
    x[rng.random((100, 2)) < 0.5] = np.nan
    x[[5, 84, 95]] = 1.5, 2.5  # a value in each split

    lines = [f"{i},{a},{b}" for i, (a, b) in enumerate(x.tolist())]
    path = written(tmp_path_factory.mktemp("t"), lines, "t,x,y")
    data = load_data(path, length=4, stride=1, time="t", missing="impute")
    for split, (start, end) in ((data.train, (0, 80)), (data.validation, (80, 90)), (data.test, (90, 100))):
        part = x[start:end]
        for d in range(2):
            known = np.flatnonzero(~np.isnan(part[:, d]))
            oracle = np.interp(np.arange(end - start), known, part[known, d])
            rows = np.concatenate([split.x[:, 0, d].numpy(), split.x[-1, 1:, d].numpy()])
            np.testing.assert_allclose(rows, oracle)
    # Another file is one part, filled from its own rows.
    batch, _ = load_batch(path, data.event, form=data.form, missing="impute")
    known = np.flatnonzero(~np.isnan(x[:, 0]))
    np.testing.assert_allclose(batch.x[:, :, 0].flatten(), np.interp(np.arange(100), known, x[known, 0]), rtol=1e-6)


def test_a_split_without_values_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, [f"{i}.5,{i if i < 90 else ''}" for i in range(100)], "x,y")
    with pytest.raises(
        InputError, match="column 'y' has no values in one of the splits by time; remove it with --drop y"
    ):
        load_data(path, length=4, missing="impute")


@pytest.mark.parametrize("options", [[], ["--limit", "3"], ["--stride", "9"]])
def test_the_columns_of_a_series_are_described_by_its_rows(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A gap of x, a column without values, one value in a row of no window (with a stride of 9), and a trailing comma.
    lines = [f"{'' if i == 50 else i},,{2 if i == 8 else ''}," for i in range(400)]
    path = written(tmp_path, lines, "x,empty,rare,")
    assert main(["data", str(path), "--length", "8", *options]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "ignored 2 columns without values: empty, column 4" in said
    assert "399 of 400 rows have missing values, in the columns rare (399), x (1)" in said
    cells = {words[0]: words[1:] for line in said if (words := line.split())}
    assert cells["x"] == ["numbers", "0", "…", "399", "1", "0"]
    assert cells["rare"] == ["numbers", "2", "399", "2"]


def test_a_limit_may_leave_a_column_without_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{i}.5,{'' if i else 1}" for i in range(300)]
    assert main(["data", str(written(tmp_path, rows, "x,rare")), "--limit", "1"]) == 0
    assert "rare" in capsys.readouterr().out


def test_windows_keep_what_is_missing(tmp_path: Path) -> None:
    x = RNG.normal(size=100).round(3)
    x[RNG.random(100) < 0.1] = np.nan
    data = load_data(written(tmp_path, [str(v) for v in x.tolist()], "x"), length=4, stride=4)
    kept = torch.cat([data.train.x, data.validation.x[:2], data.test.x[:2]]).flatten().numpy()
    rows = np.concatenate([x[:80], x[80:88], x[90:98]])
    np.testing.assert_allclose(kept, rows, rtol=1e-6)
    assert any(note.startswith(f"{int(np.isnan(x).sum())} of 100 rows have missing values") for note in data.notes)
