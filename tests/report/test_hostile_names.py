"""Names of files, folders, columns and classes that are made to be obeyed, wherever they are shown: as text.

Runs, a contest and a report are made of such data by the commands; their output, pages, READMEs and tables are then
read. Each check is held against the same output with its escape switched off, which it must catch.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import html
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contests import write_contest, write_run
from markdown_it import MarkdownIt
from markupsafe import Markup
from PIL import Image

import unsup
from unsup.cli.main import main
from unsup.cli.scoreboard import Scoreboard
from unsup.contest.outcome import Moment
from unsup.core.errors import InputError
from unsup.core.escapes import UNSEEN, visible
from unsup.report.contest import comparison_page, write_comparison_page
from unsup.report.page import write_page
from unsup.report.pages import asset, environment
from unsup.train.progress import Progress, Snapshot

IMAGE = "<img src=x onerror=alert(1)>"
CLASSES = [
    IMAGE,
    '"><script>alert(1)<',
    "' onload='alert(1)",
    "javascript:alert(1)",
    "two\nlines",
    "\x1b[2J\x07",
    "\x9b31m",
    "a|b",
    "`tick`",
    "${x}$(id)",
    "%0a",
    "\u202eevil",
    "=1+1",
    "-rf",
    "[x](javascript:alert(1))",
    "'quoted",
    "a;=2+2",
    "größe",
]
BYTES = "caf\udce9"  # a name that is no UTF-8
COLUMNS = ["</title><script>alert(1)</script>", *CLASSES[:6], "$a$", "x" * 300]
FOLDER = f"photos {IMAGE}\x1b[2J\n|`$(id)`"


@dataclass(frozen=True)
class Said:
    words: tuple[str, ...]
    status: int
    out: str
    err: str


def call(*words: object) -> Said:
    out, err = io.StringIO(), io.StringIO()
    given = tuple(map(str, words))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(given)
    return Said(given, status, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Place:
    """Where it all lies, and what the commands said."""

    root: Path
    photos: Path
    table: Path
    said: list[Said]

    def run(self, name: str) -> Path:
        return self.root / f"{name} {IMAGE}\x1b[2J"


def _write_photos(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (len(CLASSES) + 1, 4, 4, 4), dtype=np.uint8)
    for own, name in zip(pixels, [*CLASSES, BYTES], strict=True):
        (folder / name).mkdir(parents=True)
        for i, one in enumerate(own):
            Image.fromarray(one).save(folder / name / f"{name}{i}.png")
    (folder / IMAGE / "broken\x1b[2J\n.png").write_bytes(b"no image")
    return folder


def _write_table(path: Path) -> Path:
    values = np.random.default_rng(1).normal(size=(90, len(COLUMNS)))
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow([*COLUMNS, "class"])
        rows.writerows([*row.round(4), ["</title>", "'quoted", "=1+1"][i % 3]] for i, row in enumerate(values))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("hostile")
    try:
        photos = _write_photos(root / FOLDER)
    except OSError:
        pytest.skip("the file system does not take such names")
    found = Place(root, photos, _write_table(root / f"table {IMAGE}\x1b[2J.csv"), [])

    def do(*words: object) -> None:
        found.said.append(call(*words))

    tiny = ["--plain", "--preset", "tiny", "--steps", "2"]
    do("data", photos)
    do("data", photos, "--json")
    do("data", found.table)
    pixels, vae, table = map(found.run, ("pixelcnn", "vae", "table"))
    do("fit", photos, "pixelcnn", "--given", "label", "-o", pixels, *tiny)
    do("fit", photos, "vae", "-o", vae, *tiny)
    do("fit", found.table, "vae", "-o", table, *tiny)
    for run, data in ((pixels, photos), (vae, photos), (table, found.table)):
        do("eval", run)
        do("eval", run, "--json")
        do("score", run, data)
        do("score", run, data, "-o", root / f"scores-{run.name[:3]}.csv")
        do("cite", run)
    do("check", table)
    do("models")
    do("predict", pixels, photos)
    do("predict", pixels, photos, "-o", root / "classes.csv")
    do("sample", pixels, "--given", IMAGE, "-n", "2", "-o", root / f"{IMAGE}.npy")
    do("encode", vae, photos, "-o", root / "z.npz")
    do("decode", vae, root / "z.npz", "-o", root / "x.npy")
    do("compare", photos, "-o", root / f"contest {IMAGE}", "--models", "histogram,made", "--minutes", "0.02", "--plain")
    do("report", table, "-o", root / "page", "--plain")
    return found


def _as_it_is(text: object) -> str:
    """No escape at all, but that the text can be written to a file."""
    return str(text).encode(errors="replace").decode()


@pytest.fixture
def without() -> Iterator[Callable[[str], None]]:
    """Switches off one of the escapes, everywhere it is called."""
    import unsup.core.cells
    import unsup.core.escapes

    with pytest.MonkeyPatch.context() as patch:

        def switch_off(name: str) -> None:
            home = unsup.core.cells if name == "written" else unsup.core.escapes
            escape = getattr(home, name)
            for module in [m for n, m in sys.modules.items() if n.startswith("unsup.")]:
                if vars(module).get(name) is escape:
                    patch.setattr(module, name, _as_it_is)

        yield switch_off


# --- the terminal ---------------------------------------------------------------------------------------------------


def unseen(said: Said) -> set[str]:
    return {c for text in (said.out, said.err) for c in UNSEEN.findall(text)} - {"\n"}


def test_every_command_works_and_writes_plain_lines(place):
    assert [(s.words, s.err) for s in place.said if s.status != 0] == []
    assert [(s.words, unseen(s)) for s in place.said if unseen(s)] == []
    said = "".join(s.out + s.err for s in place.said)
    for text in (f"skipped {IMAGE}/broken\\x1b[2J", "größe", "caf\\udce9", "\\x1b[2J"):
        assert text in said, text


@pytest.mark.parametrize(
    "words",
    [
        ("data", "no\x1b[2J\nsuch\u202e"),
        ("fit", "digits", "no\x1b[2J", "-o", "x"),
        ("fit", "digits", "made", "-o", "x", "--see\x1b[2Jd", "1"),
        ("fit", "digits", "made", "-o", "x", "--seed", "\x9b1\n"),
        ("mo\x1bdels",),
        ("models", "--family", "fl\x1b[2Jows\n"),
        ("eval", "no\x1b[2J\n\udce9run"),
        ("check", "no\x1b[2J"),
        ("cite", "no\x1b[2J"),
        ("report", "no\x1b[2J", "-o", "x"),
        ("compare", "digits", "--models", "ma\x1b[2Jde", "-o", "x"),
        ("reproduce", "no\x1b[2J.toml"),
        ("score", "no\x1b[2J", "digits"),
        ("sample", "no\x1b[2J", "-o", "x\x1b[2J"),
    ],
)
def test_an_error_repeats_what_was_given_in_one_plain_line(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = call(*words)
    assert said.status == 2
    assert said.err.count("\n") == 1
    assert not unseen(said)
    assert "\\x1b" in said.err or "\\x9b" in said.err


def test_the_checks_of_the_terminal_bite(place, without):
    without("visible")
    assert unseen(call("score", place.run("vae"), place.photos, "-o", place.root / "again.csv"))
    assert unseen(call("eval", "no\x1b[2J\nrun"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_and_scoreboard_show_no_escape_but_their_own(stream):
    evil, shown = "a\x1b[31mred\x07\nb\u202e", "a\\x1b[31mred\\x07\\x0ab\\u202e"
    first, second = stream(), stream()
    with Progress("auto", stream=first) as progress:
        progress.validated(evil)
        progress.show(1, 2, {evil: 1.0})
        progress.note(evil)
    with Scoreboard([evil], stream=second) as board:
        board.tell(Moment(evil, "training", Snapshot(1, 2, {}, evil, 1.0)))
        board.tell(Moment(evil, "failed", note=evil))
        board.note(evil)
    for text in (first.getvalue(), second.getvalue()):
        assert not {"\x07", "\u202e"} & set(text)
        assert "\x1b[31m" not in text
        assert shown in text


def test_a_terminal_of_another_encoding_gets_escapes_for_what_it_does_not_know(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["data", "--json"]) == 0
    assert main(["models"]) == 0
    stream.flush()
    json.loads(stream.buffer.getvalue().splitlines()[0])


# --- JSON and CSV ---------------------------------------------------------------------------------------------------


def test_json_stays_json(place):
    found = [json.loads(s.out) for s in place.said if "--json" in s.words]
    assert len(found) == 4
    assert found[0]["labels"] == sorted([*CLASSES, BYTES])
    assert found[1]["run"] == str(place.run("pixelcnn"))
    for path in place.root.rglob("*.json"):
        json.loads(path.read_bytes())


def runs(cell: str) -> bool:
    return re.match('[\\s"]*[=+\\-@]', cell) is not None and not re.fullmatch(r"-?[\d.e-]+", cell)


def cells(path: Path) -> list[str]:
    text = path.read_bytes().decode()
    return [c for separator in ",;\t" for row in csv.reader(io.StringIO(text), delimiter=separator) for c in row]


def test_tables_read_back_and_no_spreadsheet_runs_them(place):
    rows = unsup.read_table(place.root / "scores-pix.csv")
    names = [f"{c}/{c}{i}.png" for c in sorted([*CLASSES, BYTES]) for i in range(4)]
    assert [r["example"] for r in rows] == names
    assert all(float(r["log_prob_nats"]) < 0 for r in rows)
    classes = unsup.read_table(place.root / "classes.csv")
    assert [r["example"] for r in classes] == names
    assert {r["class"] for r in classes} <= {*CLASSES, BYTES}
    assert list(classes[0])[2:] == [f"p({c})" for c in sorted([*CLASSES, BYTES])]
    tables = list(place.root.rglob("*.csv"))
    assert len(tables) >= 6
    for path in tables:
        if path != place.table:
            assert not any(map(runs, cells(path))), path
    printed = next(s for s in place.said if s.words[0] == "predict" and "-o" not in s.words)
    assert printed.out.encode() == (place.root / "classes.csv").read_bytes()


def test_the_checks_of_tables_bite(place, without):
    without("written")
    path = place.root / "bitten.csv"
    assert call("predict", place.run("pixelcnn"), place.photos / "=1+1", "-o", path).status == 0
    assert any(map(runs, cells(path)))


# --- pages ----------------------------------------------------------------------------------------------------------

_VOID = {"meta", "link", "img", "br", "circle", "line", "path", "polygon", "polyline", "rect"}
_STYLE = re.compile(r"--width:\d+px|fill:url\(#chart-[a-z0-9-]+-hatch\)")
_OWN = asset("page.js")


class Parsed(HTMLParser):
    """What a browser makes of a page, and all in it that the product did not make."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.used: set[tuple[str, str]] = set()
        self.words: list[str] = []
        self._open: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()
        self.faults += [f"{tag} left open" for tag in self._open if tag not in ("html", "body")]
        self.faults += [f"unseen {c!r}" for c in set(UNSEEN.findall(page)) - {"\n"}]

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attributes)
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.used |= {(tag, ""), *((tag, name) for name, _ in attributes)}
        for name, value in attributes:
            own = {
                "href": r"#[a-z0-9-]+|data:,|results\.(csv|json)",
                "src": "data:image/png;base64,[A-Za-z0-9+/=]*",
                "style": _STYLE.pattern,
                "id": "[a-z0-9-]+",
                "class": "[a-z0-9 -]+",
            }.get(name)
            if name.startswith("on") or (own and not re.fullmatch(own, value or "")):
                self.faults.append(f"<{tag} {name}={value!r}>")

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> closes another")

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            self.scripts.append(data)
        elif inside != "style":
            self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.faults.append(f"comment {data}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A contest with all that a page can show, of harmless names."""
    folder = tmp_path_factory.mktemp("contest")
    return folder, write_contest(folder)


@pytest.fixture(scope="module")
def usual(made, tmp_path_factory) -> set[tuple[str, str]]:
    """The elements of pages of harmless names, with their attributes."""
    run = write_run(tmp_path_factory.mktemp("run") / "run")
    pages = Parsed(comparison_page(made[1], made[0])), Parsed((run / "report.html").read_text())
    assert [page.faults for page in pages] == [[], []]
    return pages[0].used | pages[1].used


def faults(page: str, usual: set[tuple[str, str]], scripts: list[str]) -> list[str]:
    parsed = Parsed(page)
    foreign = [f"foreign {what}" for what in sorted(parsed.used - usual)]
    return parsed.faults + foreign + ([] if parsed.scripts == scripts else ["foreign script"])


def test_pages_hold_hostile_names_as_text(place, usual):
    for name in ("pixelcnn", "vae", "table"):
        page = (place.run(name) / "report.html").read_bytes().decode()
        assert faults(page, usual, [_OWN]) == []
        data = place.table if name == "table" else place.photos
        assert visible(str(data)) in Parsed(page).text
    for folder in (place.root / f"contest {IMAGE}", place.root / "page"):
        page = (folder / "index.html").read_bytes().decode()
        assert faults(page, usual, [_OWN]) == []
    contest = Parsed((place.root / f"contest {IMAGE}" / "index.html").read_bytes().decode())
    for name in (*CLASSES, BYTES):
        assert visible(name) in contest.text, name


def environment_escapes_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(environment(), "autoescape", False)
    patch.setattr(environment(), "finalize", lambda value: value if isinstance(value, Markup) else _as_it_is(value))
    patch.setattr(environment(), "cache", None)


def test_the_checks_of_pages_bite(place, usual, without, monkeypatch):
    without("markup")
    environment_escapes_nothing(monkeypatch)
    write_page(place.run("table"))
    page = (place.run("table") / "report.html").read_text()
    found = faults(page, usual, [_OWN])
    assert "foreign ('img', 'onerror')" in found
    assert "unseen '\\x1b'" in found
    contest = place.root / f"contest {IMAGE}"
    page = comparison_page(json.loads((contest / "results.json").read_text()), contest)
    found = faults(page, usual, [_OWN])
    assert {"foreign ('img', 'onerror')", "foreign script"} <= set(found)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything that is neither a record nor a list, and to every key."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key, None)
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from leaves(inner, (*path, i))
    else:
        yield path


def changed(record: Any, path: tuple[Any, ...], new: str) -> Any:
    """A copy of ``record`` with ``new`` at ``path``, or in the place of a key where the path ends in None."""
    found = copy.deepcopy(record)
    *above, last = path
    key = above.pop() if last is None else last
    inner = found
    for step in above:
        inner = inner[step]
    if last is None:
        inner[new] = inner.pop(key)
    else:
        inner[key] = new
    return found


EVIL = f"\"'>{IMAGE}</title></script><script>alert(1)</script>\x1b[2J\n`|\u202e\udce9"


@pytest.mark.slow
def test_no_field_of_a_contest_leads_out_of_the_page(made, usual):
    """Each kind of field and of key in turn, whatever its type should be; the page is refused or keeps it as text."""
    folder, results = made
    short: Any = {**results, "contestants": [results["contestants"][i] for i in (2, 7, 8, 9, 10)]}
    kinds = {tuple("*" if isinstance(step, int) else step for step in path): path for path in leaves(short)}
    shown = refused = 0
    for path in kinds.values():
        try:
            page = comparison_page(changed(short, path, EVIL), folder)
        except (ValueError, KeyError, TypeError, AttributeError):  # the first three are said to be damage
            refused += 1
            continue
        shown += 1
        assert faults(page, usual, [_OWN]) == [], path
    assert shown > 100
    assert refused < shown


OF_A_RUN = ("config.json", "about.json", "eval.json", "env.json")


def test_no_field_of_a_run_leads_out_of_its_page(place, usual, tmp_path):
    origin, run = place.run("vae"), tmp_path / "run"
    shutil.copytree(origin, run)
    lines = (run / "events.jsonl").read_text().splitlines()
    records: dict[str, Any] = {n: json.loads((run / n).read_text()) for n in OF_A_RUN if (run / n).is_file()}
    records["events.jsonl"] = [json.loads(line) for line in lines] + [
        {"step": 1, "seconds": 1.0, "symptom": "odd", "advice": "none"},
        {"step": 2, "seconds": 1.0, "validator": "accuracy", "better": "higher", "value": 0.5},
    ]

    def put(name: str, record: Any) -> None:
        text = "\n".join(map(json.dumps, record)) if name == "events.jsonl" else json.dumps(record)
        (run / name).write_text(text + "\n")

    shown = 0
    for name, record in records.items():
        for path in leaves(record):
            put(name, changed(record, path, EVIL))
            try:
                write_page(run)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            finally:
                put(name, record)
            shown += 1
            assert faults((run / "report.html").read_text(), usual, [_OWN]) == [], path
            assert readme_faults(run / "README.md") == [], path
    assert shown > 30


def test_pictures_come_from_the_folder_alone(made, tmp_path):
    folder, results = made
    secret = tmp_path / "secret.png"
    shutil.copy(folder / results["pictures"]["real"]["file"], secret)
    for file in (str(secret), os.path.relpath(secret, folder)):
        other = copy.deepcopy(results)
        other["pictures"]["real"]["file"] = file
        other["contestants"][0]["runs"][0]["pictures"]["samples"]["file"] = file
        assert comparison_page(other, folder).count("was not found or is not a PNG file") == 2


def test_policies_allow_the_pages_own_script_and_nothing_else(made, place):
    page = comparison_page(made[1], made[0])
    policy = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', html.unescape(page))
    assert len(policy) == 1
    assert "script-src 'sha256-" in policy[0]
    assert page.index("Content-Security-Policy") < page.index("<title>")
    report = (place.run("vae") / "report.html").read_text()
    assert re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', html.unescape(report)) == policy


# --- READMEs --------------------------------------------------------------------------------------------------------


def readme_faults(path: Path) -> list[str]:
    """What a README is rendered to besides headings, lists, tables, code and its words."""
    text = path.read_bytes().decode()
    page = Parsed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))
    known = {"h1", "ul", "li", "pre", "code", "p", "table", "thead", "tbody", "tr", "th", "td"}
    return page.faults + [f"foreign {tag}" for tag, _ in page.used if tag not in known]


def test_readmes_hold_hostile_names_as_text(place):
    for name in ("pixelcnn", "vae", "table"):
        assert readme_faults(place.run(name) / "README.md") == []
        assert "onerror" in (place.run(name) / "README.md").read_text()
    model = unsup.load(str(place.run("vae")))
    model.save(place.root / "saved")
    assert readme_faults(place.root / "saved" / "README.md") == []


def test_the_checks_of_readmes_bite(place, without, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(place.run("vae"), run)
    without("markdown")
    write_page(run)
    assert "foreign img" in readme_faults(run / "README.md")


# --- files ----------------------------------------------------------------------------------------------------------


def test_no_file_is_named_by_data(place):
    """What a run, a contest and a report hold has names of its own."""
    folders = [place.run("pixelcnn"), place.run("table"), place.root / f"contest {IMAGE}", place.root / "page"]
    for folder in folders:
        for path in folder.rglob("*"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+", path.name), path


def test_a_planted_link_is_not_written_through(place, tmp_path):
    """A run folder may come from anywhere: what lies in it must not lead the writing out of it."""
    victim, run = tmp_path / "victim", tmp_path / "run"
    shutil.copytree(place.run("vae"), run)
    victim.write_text("mine")
    for name in ("eval.json", "report.html", "README.md"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(victim)
        (run / f".{name}.tmp").symlink_to(victim)
    (run / "eval.json").unlink()
    assert call("eval", run).status == 0
    write_page(run)
    assert victim.read_text() == "mine"
    assert not any((run / name).is_symlink() for name in ("eval.json", "report.html", "README.md"))


@pytest.mark.parametrize("command", ["score", "sample", "predict", "encode"])
def test_an_output_that_is_a_link_stays_one(place, tmp_path, command):
    suffix = {"sample": ".npy", "encode": ".npz"}.get(command, ".csv")
    target, link = tmp_path / f"target{suffix}", tmp_path / f"link{suffix}"
    target.write_text("before")
    link.symlink_to(target.name)
    run = place.run("pixelcnn" if command == "predict" else "vae")
    data = [] if command == "sample" else [place.photos]
    assert call(command, run, *data, "-o", link).status == 0
    assert link.is_symlink()
    assert target.read_bytes() != b"before"


def test_a_model_is_not_named_like_a_path():
    from dataclasses import replace

    from unsup.core.registry import register, row

    for name in ("../out", "a/b", "", ".", "a b", "x\x1b", "-o", "C:\\x"):
        with pytest.raises(InputError, match="should be letters"):
            register(replace(row("made"), name=name))


def test_a_damaged_page_is_refused(made, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({**made[1], "contestants": 1}))
    with pytest.raises(InputError, match="is damaged"):
        write_comparison_page(tmp_path)
