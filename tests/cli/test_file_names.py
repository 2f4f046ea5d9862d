"""Names of files and folders that are not UTF-8, start with a dash, or hold spaces, quotes and control characters."""

from __future__ import annotations

import csv
import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unsup.cli.main import main
from unsup.core.cells import read_table
from unsup.train.runs import Run

NAMES = {
    "not UTF-8": os.fsdecode(b"caf\xe9"),
    "a dash": "-o",
    "spaces and quotes": 'it\'s "a" $(name) `x` & <b>',
    "a newline": "two\nlines",
    "control characters": "a\x1b[31mb\tc\x7f",
    "letters": "größe 测试 🙂 \u202egnp",
}
RNG = np.random.default_rng(0)


def images(folder: Path, name: str) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(40):
        target = os.path.join(os.fsencode(folder), os.fsencode(f"{name}{i}.png"))
        with open(target, "wb") as file:
            Image.fromarray(rng.integers(0, 4, (4, 4), dtype=np.uint8) * 80).save(file, "PNG")
    return folder


class Checked(HTMLParser):
    """Checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        if tag not in ("meta", "link", "img", "br", "hr", "input", "col", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def check_files(folder: Path) -> None:
    """Every page and record under ``folder`` is valid UTF-8, and valid HTML or JSON."""
    found = 0
    for path in folder.rglob("*"):
        if path.suffix in (".html", ".json", ".jsonl", ".csv") and path.is_file():
            text = path.read_bytes().decode()  # strict
            found += 1
            if path.suffix == ".html":
                page = Checked()
                page.feed(text)
                page.close()
                assert not page.open
            elif path.suffix == ".json":
                json.loads(text)
            elif path.suffix == ".jsonl":
                [json.loads(line) for line in text.splitlines()]
    assert found


def one(call, *words: object, status: int = 0) -> str:
    found = call(*words)
    assert found.status == status, (words, found.err)
    assert "Traceback" not in found.err
    for text in (found.out, found.err):
        text.encode()  # a terminal can show it
        assert not any(ord(c) < 32 and c != "\n" for c in text)
    return found.out


@pytest.mark.parametrize("kind", NAMES)
def test_every_command_takes_every_name(call, tmp_path, monkeypatch, kind):
    name = NAMES[kind]
    monkeypatch.chdir(tmp_path)
    # A word that starts with a dash is a flag: people write ./-name, as for other programs.
    data, run, vae, out = (f"./{name}{end}" for end in (".photos", ".run", ".vae", ".out"))
    images(Path(data), name)
    one(call, "data", data)
    one(call, "data", data, "--json")
    one(call, "fit", data, "histogram", "-o", run, "--plain")
    one(call, "fit", data, "vae", "--preset", "tiny", "--steps", 1, "-o", vae, "--plain", "--model.latent-dim", 2)
    one(call, "fit", "--resume", "-o", run)
    one(call, "eval", run)
    assert json.loads(one(call, "eval", run, "--json"))["run"] == str(Path(run))
    one(call, "sample", run, "-n", 4, "-o", f"{out}.png")
    one(call, "sample", run, "-n", 4, "-o", f"{out}.npy")
    assert np.load(f"{out}.npy").shape == (4, 1, 4, 4)
    scores = one(call, "score", run, data)
    one(call, "score", run, data, "-o", f"{out}.csv")
    assert Path(f"{out}.csv").read_bytes().decode().rstrip("\n") == scores.rstrip("\n")
    assert {row["example"] for row in read_table(f"{out}.csv")} == {f"{name}{i}.png" for i in range(40)}
    assert len(list(csv.reader(io.StringIO(scores)))) == 41
    one(call, "encode", vae, data, "-o", f"{out}.npz")
    with np.load(f"{out}.npz") as codes:
        assert sorted(codes["names"].tolist()) == sorted(f"{name}{i}.png" for i in range(40))
    one(call, "decode", vae, f"{out}.npz", "-o", f"{out}-x.npy")
    one(call, "outliers", data, "-o", f"{out}.html", "--top", 3)
    one(call, "outliers", data, "-o", f"{out}-all.csv", "--top", 3)
    one(call, "cite", run)
    one(call, "report", run, vae, "-o", f"{out}-page", "--plain")
    one(call, "data", f"codes:{vae}")
    check_files(tmp_path)
    assert Run(run).data.name == str(Path(data).absolute())


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_tables_columns_and_classes(call, tmp_path, monkeypatch, kind):
    """The name of a table, and as far as text has one, of its columns and classes."""
    name = NAMES[kind]
    monkeypatch.chdir(tmp_path)
    word = name.encode("utf-8", "replace").decode().replace("\n", " ")
    with open(f"{name}.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow([word, "b", "kind"])
        table.writerows((*RNG.normal(size=2), f"{word} {i % 2}") for i in range(200))
    one(call, "data", f"./{name}.csv")
    one(call, "fit", f"./{name}.csv", "histogram", "-o", "r", "--plain")
    one(call, "score", "r", f"./{name}.csv", "-o", "s.csv")
    one(call, "outliers", f"./{name}.csv", "-o", "o.html")
    one(call, "compare", f"./{name}.csv", "--models", "histogram", "--minutes", 0.05, "-o", "c", "--plain")
    one(call, "compare", "-o", "c", "--plain")
    check_files(tmp_path)


def test_files_that_look_like_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-x.csv").write_text("a,b\n" + "".join(f"{i}.5,{i % 7}.25\n" for i in range(30)))
    for words in (["--", "-x.csv"], ["./-x.csv"]):
        assert main(["data", *words]) == 0
        assert capsys.readouterr().out.startswith("30 rows")
    assert main(["data", "-x.csv"]) == 2
    assert "there is no option '-x.csv'; the file is ./-x.csv" in capsys.readouterr().err
