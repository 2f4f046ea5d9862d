"""Samples and codes come out in the form in which the data came in."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from unsup.cli.main import main
from unsup.data import load_data
from unsup.data.load import load_rows

RNG = np.random.default_rng(0)


def call(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([*map(str, words)]) == 0
    return capsys.readouterr().out


def table(folder: Path) -> Path:
    lines = ["n,kind,day,price,gaps"]
    for i in range(200):
        day, gaps = f"2021-0{i % 9 + 1}-1{i % 9}", i if i % 5 else "NA"
        lines.append(f'{i % 40},{"abc"[i % 3]},{day},"{i % 7},50 €",{gaps}')
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"


def images(folder: Path) -> Path:
    (folder / "images").mkdir()
    for i in range(40):
        Image.fromarray(RNG.integers(0, 2**16, (4, 5), dtype=np.uint16)).save(folder / "images" / f"{i}.png")
    return folder / "images"


def sound(folder: Path) -> Path:
    (folder / "sounds").mkdir()
    for i in range(20):
        wavfile.write(folder / "sounds" / f"{i}.wav", 8000, RNG.integers(0, 255, (64, 2)).astype(np.uint8))
    return folder / "sounds"


def text(folder: Path) -> Path:
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    return folder / "text.txt"


@pytest.mark.parametrize(
    ("make", "model", "options", "out"),
    [
        (table, "made", (), "samples.csv"),
        (table, "gaussian-mixture", (), "samples.tsv"),
        (table, "histogram", (), "samples.parquet"),
        (table, "realnvp", ("--drop", "kind"), "samples.csv.gz"),
        (images, "vae", (), "samples"),
        (images, "vae", (), "samples.tif"),
        (sound, "vae", ("--length", "16"), "samples"),
        (text, "made", ("--length", "8"), "samples.txt"),
    ],
)
def test_samples_have_the_form_of_the_data(
    make: Callable[[Path], Path],
    model: str,
    options: tuple[str, ...],
    out: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, run, folder = make(tmp_path), tmp_path / "run", tmp_path / "out"
    steps = () if model in ("gaussian-mixture", "histogram") else ("--steps", 3, "--preset", "tiny")
    call(capsys, "fit", data, model, "-o", run, *options, *steps, "--plain")
    said = call(capsys, "sample", run, "-n", 20, "-o", folder / out)
    assert said.startswith("20 samples of")
    event = json.loads((run / "config.json").read_text())["model"]["event"]
    if make is text:  # after three steps it has control characters
        assert len((folder / out).read_bytes()) == 20 * event["shape"][0]
        return
    again = load_rows(folder / out, **({"length": event["shape"][0]} if make is sound else {}))
    assert len(again.x) == 20
    if make is table:
        own = load_rows(data, **({"drop": ("kind",)} if options else {}))
        assert again.columns == own.columns
        assert [c.kind for c in again.form.columns] == [c.kind for c in own.form.columns]
        if "kind" in again.columns:
            words = dict(zip(again.columns, again.form.columns, strict=True))["kind"].words
            assert set(words) <= {"a", "b", "c", "(other)"}
    else:
        assert again.event.shape == tuple(event["shape"])
    scored = call(capsys, "score", run, folder / out, "-o", tmp_path / "scores.csv") if make is table else ""
    assert scored.startswith("20 scores") or make is not table


def test_codes_for_spreadsheets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = table(tmp_path), tmp_path / "run"
    call(capsys, "fit", data, "vae", "-o", run, "--steps", 3, "--preset", "tiny", "--plain")
    call(capsys, "encode", run, data, "-o", tmp_path / "z.csv")
    call(capsys, "encode", run, data, "-o", tmp_path / "z.npz")
    header, *rows = csv.reader((tmp_path / "z.csv").open())
    assert header[:2] == ["example", "z1"]
    with np.load(tmp_path / "z.npz") as file:
        assert [row[0] for row in rows] == file["names"].tolist()
        np.testing.assert_allclose(np.array([row[1:] for row in rows], float), file["z"], rtol=1e-6)
    call(capsys, "decode", run, tmp_path / "z.csv", "-o", tmp_path / "from_csv.csv")
    call(capsys, "decode", run, tmp_path / "z.npz", "-o", tmp_path / "from_npz.csv")
    assert (tmp_path / "from_csv.csv").read_bytes() == (tmp_path / "from_npz.csv").read_bytes()
    (tmp_path / "other.csv").write_text("a,z2\n1,2\n")
    assert main(["decode", str(run), str(tmp_path / "other.csv"), "-o", str(tmp_path / "x.csv")]) == 2
    assert "no columns z1, z2" in capsys.readouterr().err


def test_rows_with_gaps_are_dropped_for_models_that_need_all_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{i},{'' if i % 10 == 0 else i % 17}.5" for i in range(200)]
    (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(line.replace(",.5", ",") for line in lines))
    said = call(
        capsys, "fit", tmp_path / "t.csv", "nice", "-o", tmp_path / "r", "--steps", 2, "--preset", "tiny", "--plain"
    )
    assert "20 of 200 rows have missing values and were dropped: b (20)" in said
    assert json.loads((tmp_path / "r" / "config.json").read_text())["data"]["options"] == {"missing": "drop"}
    kept = call(
        capsys, "fit", tmp_path / "t.csv", "made", "-o", tmp_path / "m", "--steps", 2, "--preset", "tiny", "--plain"
    )
    assert "20 of 200 rows have missing values, in the columns b (20)" in kept
    (tmp_path / "u.csv").write_text("a,b\n" + "".join(f"{i}.5,{'' if i % 3 else i}\n" for i in range(99)))
    assert main(["fit", str(tmp_path / "u.csv"), "nice", "-o", str(tmp_path / "u"), "--plain"]) == 2
    assert "too many to drop them; use --missing impute" in capsys.readouterr().err
    data = load_data(tmp_path / "u.csv")
    assert data.event.missing


def test_how_columns_were_matched_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i}.5,{-i}.25\n" for i in range(60)))
    call(capsys, "fit", tmp_path / "t.csv", "histogram", "-o", tmp_path / "r", "--plain")
    for text, reported in (
        (
            "b,more,a\n-1.25,7,1.5\n",
            ("ignored 1 column that the model does not have: more", "matched by name; their order"),
        ),
        ("1.5,-1.25\n2.5,-2.25\n", ("no header, so the columns are matched by position: a, b",)),
        ("a,b\n1.5,-1.25\n", ()),
    ):
        (tmp_path / "new.csv").write_text(text)
        assert main(["score", str(tmp_path / "r"), str(tmp_path / "new.csv"), "-o", str(tmp_path / "s.csv")]) == 0
        said = capsys.readouterr().err
        assert all(words in said for words in reported), said
        assert bool(said) == bool(reported)
        assert (tmp_path / "s.csv").read_text().splitlines()[1].split(",")[1]
