"""The page of a run: what it says, and that every command on it works as it stands."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from contests import write_run
from test_page import Reader

import unsup
from unsup.cli.main import main
from unsup.evaluate.measures import MEASURES
from unsup.report.page import commands_of, read_run, write_page

TINY = ["--plain", "--preset", "tiny", "--steps", "2"]


def call(*words: str) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main(words)
    return status, said.getvalue()


def read_page(folder: Path) -> Reader:
    return Reader((folder / "report.html").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "run")


def _table(path: Path, rows: int = 200) -> None:
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["length", "width of it", "größe", "kind"])
        lines.writerows([*rng.normal(size=3).round(3), "ab"[i % 2]] for i in range(rows))


RUNS = {
    "images": ("digits", "made", "my runs/made"),
    "plane": ("moons", "realnvp", "-moons", "--n", "300"),
    "no density": ("digits", "gan", "läufe/gan"),
    "a table": ("a table.csv", "vae", "it's"),
    "a table with a dash": ("./-tä ble.csv", "gaussian-mixture", "-läufe x"),
    "of a class": ("digits", "pixelcnn", "pixels", "--given", "label"),
    "of columns": ("a table.csv", "vae", "of columns", "--given", "größe", "--label", "kind"),
    "translations": ("digits", "cyclegan", "to b", "--domain-b", "digits"),
}
FIRST = ("images", "no density", "a table with a dash", "of a class", "translations")


@pytest.mark.parametrize(
    "words",
    [pytest.param(words, id=id, marks=() if id in FIRST else pytest.mark.slow) for id, words in RUNS.items()],
)
def test_every_command_of_a_run_works_as_it_stands(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the shell's own way of taking words apart, from the folder where the run was trained."""
    monkeypatch.chdir(tmp_path)
    for name in ("a table.csv", "-tä ble.csv"):
        _table(Path(name))
    data, model, out, *more = words
    short = TINY if model != "gaussian-mixture" else ["--plain"]
    folder = f"./{out}" if out.startswith("-") else out
    status, said = call("fit", data, model, "-o", folder, *more, *short)
    assert status == 0, said
    found = [(what, shlex.split(line)) for what, line in commands_of(read_run(Path(out)))]
    names = {w[1] for _, w in found}
    assert {"eval", "report", "cite"} <= names
    assert ("translate" in names) == (model == "cyclegan") == ("sample" not in names)
    assert ("score" in names) == (model not in ("gan", "cyclegan"))
    assert ("decode" in names) == (model in ("vae", "realnvp"))
    assert ("compare" in names) == (not {"--given", "--domain-b"} & {*more})
    shown = {"".join(line) for line in read_page(Path(out)).codes}
    readme = (Path(out) / "README.md").read_text()
    for _, line in commands_of(read_run(Path(out))):
        assert line in shown
        assert line in readme.splitlines()
    for what, (program, *rest) in found:
        assert program == "unsup"
        if rest[0] == "compare":
            rest += ["--minutes", "0.02", "--models", "histogram" if data == "digits" else "gaussian-mixture"]
        if rest[0] == "outliers" and data == "moons":
            rest += ["--n", "300"]
        if "--measures" in rest:
            rest += ["--examples", "12", "--samples", "12"]
        status, said = call(*rest)
        assert status == 0, (what, rest, said)


def test_the_page_shows_every_figure_with_what_it_is_of(run: Path) -> None:
    page = read_page(run)
    found = json.loads((run / "eval.json").read_text())["results"]
    titles = [MEASURES[e["measure"]].title for e in found]
    for title in titles:
        assert title[:1].upper() + title[1:] in page.words
    rows = (run / "report.html").read_text().split('<section id="figures"')[1].split("</section>")[0]
    assert rows.count('<th scope="row">') == len(found)
    assert "= 116.99 ± 0.62 nats (2.6372 bits/dim, exact)" in page.words
    assert "2.10 held-out data in place of samples" in page.words
    assert page.words.count("of step 10, older parameters") == 1
    assert "validation, n = 359; data that has changed since training" in page.words
    assert any(w.startswith("Test likelihood: 116.99 ± 0.62 nats") for w in page.words)


def test_the_page_says_what_the_data_were_and_which_settings_are_unusual(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert unsup.load_data("digits").describe() in Reader(page).text
    assert "train 1,257, validation 180, test 360" in page
    assert "2 rows &lt;of 3&gt; were left out" in page
    settings = page.split('<section id="settings"')[1].split("</section>")[0]
    first, rest = settings.split('<details class="rest">')
    told = re.findall("<dt>([^<]+)</dt>", first)
    assert {"model.hidden", "steps", "validate_every"} <= set(told)
    assert "lr" not in told
    assert "<dt>lr</dt>" in rest
    assert {*json.loads((run / "config.json").read_text())["training"]} <= set(re.findall("<dt>([^<]+)</dt>", settings))


def test_training_and_validation_are_on_one_scale_where_both_are_nats(run: Path) -> None:
    page = (run / "report.html").read_text()
    chart = page.split('id="chart-training-d"')[1].split("</desc>")[0]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    last = [e["nats"] for e in events if "nats" in e][-1]
    assert "nats per example: training loss ends at" in chart
    assert f"nats per example: validation ends at {last:.4g}" in chart
    assert page.count("<clipPath") == 1


def test_a_run_that_is_not_finished_is_resumed_first(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert "--resume" not in (folder / "report.html").read_text()
    for name in ("last", "best"):
        (folder / "checkpoints" / f"{name}.safetensors").unlink()
    write_page(folder)
    assert commands_of(read_run(folder))[0][1].startswith("unsup fit --resume -o ")
    assert "Training is not finished" in read_page(folder).text


def test_a_run_of_arrays_names_no_data(tmp_path: Path) -> None:
    data = unsup.from_arrays(np.random.default_rng(0).normal(size=(50, 3)))
    unsup.fit(unsup.create("realnvp", data.event, preset="tiny"), data, out=tmp_path / "run", steps=2, progress="off")
    write_page(tmp_path / "run")
    commands = [line for _, line in commands_of(read_run(tmp_path / "run"))]
    assert not [line for line in commands if re.match("unsup (eval|score|encode|compare|report)", line)]
    assert "realnvp on arrays in memory" in read_page(tmp_path / "run").text


@pytest.mark.parametrize("name", ["eval.json", "about.json", "env.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"samples": {}}', '{"format": 2, "results": [{"measure": "fid"}]}'])
def test_a_damaged_file_beside_is_left_out(
    tmp_path: Path, name: str, content: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for file in ("config.json", "about.json", "eval.json", "env.json", "events.jsonl"):
        (folder / file).write_text((run / file).read_text())
    (folder / name).write_text(content)
    write_page(folder)
    assert "made on digits" in read_page(folder).text
