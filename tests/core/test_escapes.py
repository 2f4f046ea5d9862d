"""Text of others is shown, not obeyed: every character, and every place's own marks."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # comes with rich

import unsup
from unsup import InputError, load_data, read_table
from unsup.core.cells import read, table_text, written
from unsup.core.escapes import UNSEEN, command_line, json_text, markdown, markdown_code, markup, visible

TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
# Text that means something to a terminal, a page, a README, a shell or a spreadsheet, and text that escapes mean.
PIECES = st.lists(
    st.sampled_from(
        [
            *"=+-@'\",;|\t\r\n \\<>&`*_[]()!#$~:./xuU09af",
            *"\x00\x1b\x7f\x9b\u202e\u2028\ufeff\u200dé中\udce9\U000e0041＝＠",
            *("\\x1b", "\\u202e", "\\x5c", "<b>", "</title>", "](", "http://", "www.", "a@b.c", "```", "&lt;", "-3.2"),
        ]
    ),
    max_size=12,
).map("".join)


def test_every_character_that_cannot_be_seen_is_escaped_and_every_letter_stays():
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        category = unicodedata.category(character)
        if category in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in TURNS:
            assert UNSEEN.fullmatch(character), hex(code)
        elif category[0] in "LMNPS" or category == "Zs":
            assert visible(character) == character, hex(code)


@given(st.text() | PIECES)
@settings(max_examples=300, deadline=None)
def test_what_is_shown_is_one_printable_line_and_stays_as_it_is_when_shown_again(text):
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    assert not UNSEEN.search(shown)
    shown.encode()
    assert visible(shown) == shown


@given(PIECES)
@settings(max_examples=300, deadline=None)
def test_json_reads_back_and_holds_nothing_unseen(text):
    line = json_text({text: [text]})
    assert json.loads(line) == {text: [text]}
    assert not UNSEEN.search(line)
    assert "é" in json_text("é")


class Seen(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, attributes))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(PIECES)
@settings(max_examples=300, deadline=None)
def test_markup_is_text_and_no_element_or_attribute(text):
    for quote in "\"'":
        seen = Seen(f"<p title={quote}{markup(text)}{quote}>{markup(text)}</p>")
        assert seen.elements == [("p", [("title", visible(text))])]
        assert seen.text == visible(text)


RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


@given(PIECES)
@settings(max_examples=500, deadline=None)
def test_markdown_is_text_in_headings_lists_and_tables(text):
    shown = visible(text).strip()
    for page, tags in (
        (f"# a {markdown(text)} z", ["h1"]),
        (f"- a {markdown(text)} z", ["ul", "li"]),
        (f"| k |\n| --- |\n| a {markdown(text)} z |", ["table", "thead", "tr", "th", "tbody", "tr", "td"]),
    ):
        seen = Seen(RENDERER.render(page))
        assert [tag for tag, _ in seen.elements] == tags, page
        assert re.sub(r"\s+", " ", f"a {shown} z") in re.sub(r"\s+", " ", seen.text), page


@given(PIECES.filter(str.strip))
@settings(max_examples=300, deadline=None)
def test_markdown_code_is_code_and_ends_where_it_should(text):
    seen = Seen(RENDERER.render(f"| k |\n| --- |\n| a {markdown_code(text)} z |"))
    assert [tag for tag, _ in seen.elements][-2:] == ["td", "code"]
    assert len(seen.elements) == 8
    assert re.sub(r"\s", "", visible(text)) in re.sub(r"\s", "", seen.text)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash is installed")
def test_a_command_line_gives_a_shell_the_words_that_were_meant():
    words = [
        "$(id)",
        "`id`",
        "a b",
        "two\nlines",
        "\x1b[2J'\\x",
        "caf\udce9.png",
        "",
        "\u202e;rm -rf ~",
        "é",
        "-n",
        "!x",
    ]
    line = command_line(words)
    assert not UNSEEN.search(line)
    found = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    assert found.split(b"\0")[:-1] == [os.fsencode(word) for word in words]


# --- CSV ------------------------------------------------------------------------------------------------------------

# What a spreadsheet takes for a formula, whatever blanks and quotes are before it; a number is none.
FORMULA = re.compile('[\\s"\u200c\u200d]*[=+\\-@＝＋－＠﹦﹢﹣﹫]')
NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|nan)(,|$)", re.IGNORECASE | re.ASCII)
DANGEROUS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "\xa0=1",
    "＝1+1",
    "＠SUM(A1)",
    '"=1',
    "=cmd|'/C calc'!A0",
    "a;=1+1;b",
    "a|=1",
    'x";=1',
    "'=1+1",
    "''",
    "\u200d=1",
    "-rf.png",
]


def runs(cell: str) -> bool:
    return FORMULA.match(cell) is not None and NUMBER.match(cell) is None


def cells_of(text: str, separator: str) -> list[str]:
    return [cell for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) for cell in row]


@given(st.text() | PIECES | st.sampled_from(DANGEROUS))
@settings(max_examples=1000, deadline=None)
def test_a_cell_reads_back_and_no_spreadsheet_runs_it(text):
    assert read(written(text)) == text
    table = table_text([("example", "value", "class"), (text, -3.2, text)])
    table.encode()
    assert len(table.splitlines()) == 2
    assert not UNSEEN.search(table.replace("\n", ""))
    for separator in ",;\t|":
        assert not any(map(runs, cells_of(table, separator))), separator


def test_the_check_of_cells_bites():
    def plain(text: str) -> str:
        file = io.StringIO()
        csv.writer(file).writerow((text, -3.2, text))
        return file.getvalue()

    bitten = [text for text in DANGEROUS if any(runs(c) for s in ",;\t|" for c in cells_of(plain(text), s))]
    assert set(DANGEROUS) - set(bitten) == {"'=1+1", "''"}


@pytest.mark.parametrize("number", ["-3.2", "+1", "-1e-05", "0", "-inf", "nan", "1.", "-.5"])
def test_numbers_stay_numbers(number):
    assert written(number) == number
    assert written(float(number)) == str(float(number))


def test_a_written_table_is_read_back_by_its_columns(tmp_path):
    names = [*DANGEROUS, "plain.png", "caf\udce9.png", "a\\x1bb", "C:\\new\\x.png", ""]
    path = tmp_path / "s.csv"
    path.write_bytes(table_text([("example", "p(=1)"), *((name, -0.5) for name in names)]).encode())
    assert read_table(path) == [{"example": name, "p(=1)": "-0.5"} for name in names]


@pytest.mark.parametrize("content", [b"", b"a,b\n1\n", b"\xff,b\n", b'a\n"x\n'])
def test_what_is_no_written_table_is_refused(tmp_path, content):
    path = tmp_path / "s.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_table(path)
    with pytest.raises(InputError, match="cannot read"):
        read_table(tmp_path / "none.csv")


def test_a_users_own_csv_is_read_as_it_is(tmp_path):
    path = tmp_path / "own.csv"
    labels = ["'quoted", "''twice", "=1+1", "a\\x1b"]
    path.write_text("x,class\n" + "".join(f"{i}.5,{labels[i % 4]}\n" for i in range(40)))
    assert set(load_data(path).labels or ()) == set(labels)


def test_html_unescape_of_markup_is_what_was_visible():
    assert html.unescape(markup("<é&\x1b'\">")) == "<é&\\x1b'\">"


# Who alone may do what an escape has to be a part of.
PLACES = {
    r"sys\.(stdout|stderr)\.write|(?<![.\w])print\(": set(),
    r"html\.escape|shlex|ensure_ascii": {"core/escapes.py"},
    r"csv\.(writer|DictWriter)": {"core/cells.py"},
    r"\bstream\.write\(": {"cli/show.py", "cli/scoreboard.py", "train/progress.py"},
}


def test_nothing_is_written_beside_the_escapes():
    source = Path(unsup.__file__).parent
    for pattern, allowed in PLACES.items():
        found = {
            str(path.relative_to(source))
            for path in source.rglob("*.py")
            for line in path.read_text(encoding="utf-8").splitlines()
            if re.search(pattern, line) and not line.lstrip().startswith((">>>", "..."))
        }
        assert found == allowed, pattern
