"""``unsup outliers``: the rows and columns on the screen, in a CSV and on a page."""

from __future__ import annotations

import base64
import io
import re
import wave

import numpy as np
import pytest
from PIL import Image

import unsup


@pytest.fixture
def file(tmp_path):
    """A table with names of columns, whose line 19 has an odd height, and line 122 an odd pair (a, b)."""
    g = np.random.default_rng(0)
    x = g.normal(size=(300, 4))
    x[:, 1] = x[:, 0] + 0.1 * x[:, 1]
    x[17, 2], x[120, 1] = 9, x[120, 0] - 3
    lines = [",".join(f"{v:.3f}" for v in row) for row in x]
    path = tmp_path / "my table.csv"
    path.write_text("\n".join(["a,b,height,=d", *lines]) + "\n")
    return path


def test_ranks_rows_with_their_columns(call, file):
    found = call("outliers", file, "--top", 3)
    assert found.status == 0
    rows = [line for line in found.out.splitlines() if re.match(r" +\d", line)]
    assert len(rows) == 3
    assert re.match(r" +1 +17 +line 19 .* height = 9 \(\+", rows[0])
    assert re.search(r"120 +line 122 .* [ab] = .* [ab] = ", found.out)


def test_categories_and_dates_are_told_in_words(call, tmp_path):
    """On the screen and on the page, by the words of the file and not by their numbers."""
    g = np.random.default_rng(0)
    lines = [
        f"2024-01-{g.integers(1, 29):02d},{'red' if g.random() < 0.5 else 'blue'},{g.normal():.3f}" for _ in range(300)
    ]
    lines[17], lines[120] = "2024-01-05,green,0.1", "2031-12-24,red,0.2"
    path, page = tmp_path / "table.csv", tmp_path / "page.html"
    path.write_text("\n".join(["day,colour,size", *lines]) + "\n")
    found = call("outliers", path, "--top", 3, "-o", page)
    assert re.search(r"line 19 .*colour = green \(\+", found.out), found.out
    assert re.search(r"line 122 .*day = 2031-12-24 \(\+", found.out), found.out
    assert re.search(r"line 19</th>.*<strong>colour</strong> = green \(\+", page.read_text())


def test_entries_of_a_series_are_named_by_column_and_row_of_the_window(call, tmp_path):
    g = np.random.default_rng(0)
    x = g.normal(size=(400, 2))
    x[162, 1] = 40
    path = tmp_path / "series.csv"
    path.write_text("\n".join(["a,load", *(f"{a:.3f},{b:.3f}" for a, b in x)]) + "\n")
    found = call("outliers", path, "--length", 10, "--stride", 10, "--top", 1)
    assert re.search(r" 1 .*line 162 .* load in row 3 = 40 \(\+", found.out), found.out


def test_csv_holds_every_row(call, file, tmp_path):
    out = tmp_path / "odd.csv"
    assert call("outliers", file, "-o", out).status == 0
    rows = unsup.read_table(out)
    assert len(rows) == 300
    assert sorted(int(r["row"]) for r in rows) == list(range(300))
    assert (rows[0]["name"], rows[0]["columns"].split(";")[0]) == ("line 19", "height")
    scores = [float(r["score_nats"]) for r in rows]
    assert scores == sorted(scores, reverse=True)


def test_page_names_rows_and_columns_and_escapes_them(call, file, tmp_path):
    out = tmp_path / "odd rows.html"
    assert call("outliers", file, "--top", 4, "-o", out).status == 0
    page = out.read_text()
    assert page.count('<th scope="row">line ') == 4
    assert re.search(r"line 19</th>.*<strong>height</strong> = 9, usually", page)
    assert f"unsup outliers &#39;{file}&#39; -o outliers.csv" in re.sub(r"</?span>", "", page)
    file.write_text(file.read_text().replace("height", "<b>height</b>"))
    assert call("outliers", file, "--top", 1, "-o", out).status == 0
    assert "<b>height</b>" not in out.read_text()


def test_page_of_images_shows_where_they_are_unlikely(call, tmp_path):
    x = np.random.default_rng(0).integers(0, 3, (60, 1, 4, 4), dtype=np.uint8)
    x[11, 0, 1, 2] = 200
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "p.html"
    found = call("outliers", tmp_path / "x.npy", "--top", 3, "-o", out)
    assert re.search(r"1 +11 .*row 1, column 2", found.out), found.out
    page = out.read_text()
    assert page.count("<img ") == 3
    assert "column 2" not in page
    first = base64.b64decode(re.search(r"<img [^>]*base64,([^\"]+)", page)[1])
    pixels = np.asarray(Image.open(io.BytesIO(first)).convert("RGB")).astype(int)
    yellow = (pixels[..., 0] > 200) & (pixels[..., 1] > 200) & (pixels[..., 2] < 100)  # of the map and its bar
    # One unit and one colour scale on the page, whose maximum is that of all pictures.
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    tops = {re.search(r"bright yellow (\S+) nats or more per pixel", caption)[1] for caption in captions}
    assert (len(captions), len(tops)) == (3, 1)
    assert "bits" not in re.sub(r"base64,[^\"]+|<style.*?</style>|<script.*?</script>", "", page, flags=re.DOTALL)
    assert "nats" in found.out
    assert "bits" not in found.out
    others = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")).astype(int)[:4, 5:]
        for png in re.findall(r"<img [^>]*base64,([^\"]+)", page)[1:]
    ]
    assert all(not ((o[..., 0] > 200) & (o[..., 1] > 200) & (o[..., 2] < 100)).any() for o in others)
    assert (1, 2) in {(i, j - 5) for i, j in np.argwhere(yellow).tolist()}
    assert yellow[:6].sum() == 1
    assert call("outliers", tmp_path / "x.npy", "-o", tmp_path / "x.csv").status == 0
    assert unsup.read_table(tmp_path / "x.csv")[0]["columns"].split(";")[0] == "row 1, column 2"


def test_page_of_text_shows_the_characters(call, tmp_path):
    """Windows of 20 characters, each a repeated phrase; one has another character at position 7."""
    text = "all the world's stage" * 200
    text = text[:847] + "Q" + text[848:]
    (tmp_path / "t.txt").write_text(text)
    out = tmp_path / "p.html"
    found = call("outliers", tmp_path / "t.txt", "--length", 21, "--top", 2, "-o", out)
    assert re.search(r"1 +40 +byte 840 .*“all the\[Q\]world's stag…” \(\+", found.out), found.out
    page = out.read_text()
    assert page.count("<img ") == 2
    assert "all the[Q]world" in page
    assert call("outliers", tmp_path / "t.txt", "--length", 21, "-o", tmp_path / "t.csv").status == 0
    assert unsup.read_table(tmp_path / "t.csv")[0]["columns"] == "7"


def test_page_of_tokens_or_sound_shows_them(call, tmp_path):
    sound = tmp_path / "sound"
    sound.mkdir()
    for i in range(8):
        with wave.open(str(sound / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 4000, 0, "NONE", ""))
            file.writeframes((8000 * np.sin(np.arange(256) * (0.1 + 0.1 * i))).astype("<i2").tobytes())
    for words in ((sound, "--length", 64), ("markov", "--top", 2)):
        found = call("outliers", *words, "-o", tmp_path / "p.html")
        assert found.status == 0, found.err
        if words[0] == sound:  # 4,000 samples a second
            assert re.search(r"1 +\d+ +\d\.wav 0\.0(00|16|32|48) s  .*\b0\.0\d\d\d s = ", found.out), found.out
        assert (tmp_path / "p.html").read_text().count("<img ") == (20 if words[0] == sound else 2)


@pytest.mark.parametrize("model", ["gaussian-mixture"])
def test_a_named_model_or_a_run(call, file, tmp_path, model):
    named = call("outliers", file, "--model", model, "--top", 1)
    assert re.search(r"1 +17 +line 19", named.out)
    run = tmp_path / "run"
    assert call("fit", file, model, "-o", run, "--plain").status == 0
    assert re.search(r"1 +17 +line 19", call("outliers", file, "--model", run, "--top", 1).out)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--model", "gan"), "neither a density nor an energy"),
        (("--model", "mad"), "'made'"),
        (("--top", 0), "--top=0"),
        (("-o", "x.txt"), ".html"),
        (("--minutes", 1), "--model"),
        (("--mdel", "made"), "'--model'"),
    ],
)
def test_bad_input_is_one_line(call, file, words, expected):
    found = call("outliers", file, *words)
    assert (found.status, found.err.count("\n")) == (2, 1)
    assert expected in found.err
