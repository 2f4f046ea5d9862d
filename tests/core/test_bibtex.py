"""BibTeX that a parser reads back as what was meant."""

from __future__ import annotations

import re
import warnings

import bibtexparser
import pytest
from bibtexparser.bparser import BibTexParser
from bibtexparser.customization import author, convert_to_unicode
from hypothesis import given
from hypothesis import strategies as st

from unsup.core.rows import rows
from unsup.core.rows.record import Paper

PAPERS = {paper.key: paper for row in rows().values() for paper in (row.paper, *row.also)}
REPORTS = {"arXiv", "OpenAI technical report", "UC Berkeley"}
TYPES = {
    "article": "journal",
    "inproceedings": "booktitle",
    "incollection": "booktitle",
    "book": "publisher",
    "misc": "howpublished",
}


def parsed(text: str) -> list[dict]:
    """The entries, with accents as letters and authors as a list of ``Last, First``."""
    parser = BibTexParser(common_strings=True, customization=lambda entry: author(convert_to_unicode(entry)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return bibtexparser.loads(text, parser).entries


def plain(text: str) -> str:
    """Text without braces, and with special characters as they are printed."""
    text = re.sub(r"\\text(backslash|ascii\w+)", lambda m: {"backslash": "\\", "asciitilde": "~"}.get(m[1], "^"), text)
    return re.sub(r"(?<!\\)[{}]", "", text).replace("\\", "")


@pytest.mark.parametrize("key", PAPERS)
def test_every_paper_is_read_back(key):
    paper = PAPERS[key]
    (entry,) = parsed(paper.bibtex)
    assert entry["ID"] == key
    assert plain(entry["title"]) == paper.title
    assert entry["year"] == str(paper.year)
    assert entry["url"] == paper.link
    names = [" ".join(reversed(plain(name).split(", "))) for name in entry["author"]]
    assert names == re.sub(r"(?<=[A-Z]\.)(?=[A-Z])", " ", paper.authors).split(", ")
    assert entry["ENTRYTYPE"] in TYPES
    place = entry[TYPES[entry["ENTRYTYPE"]]]
    assert place in paper.venue
    assert paper.venue in REPORTS or entry["ENTRYTYPE"] != "misc"
    assert ("eprint" in entry) == ("arxiv.org" in paper.link)


def test_a_journal_has_a_volume_and_a_conference_a_book():
    (hinton,) = parsed(PAPERS["hinton2002cd"].bibtex)
    assert [hinton[k] for k in ("ENTRYTYPE", "journal", "volume", "number")] == [
        "article", "Neural Computation", "14", "8",
    ]  # fmt: skip
    (made,) = parsed(PAPERS["germain2015made"].bibtex)
    assert (made["ENTRYTYPE"], made["booktitle"]) == ("inproceedings", "ICML 2015")
    (trick,) = parsed(PAPERS["montavon2012centering"].bibtex)
    assert trick["ENTRYTYPE"] == "incollection"


def test_accents_are_commands_of_latex():
    assert r"Aapo Hyv{\"a}rinen" in PAPERS["hyvarinen2005scorematching"].bibtex
    assert all(paper.bibtex.isascii() for paper in PAPERS.values())


LETTERS = st.text("abcXYZ éüñÅçłøß&%$#_~^{}-:?", min_size=1).map(lambda t: " ".join(t.split())).filter(bool)


@given(title=LETTERS, venue=LETTERS)
def test_any_title_is_one_entry(title, venue):
    paper = Paper("key1", "Ana Núñez, Jiří Šimůnek", 2020, title, venue, "https://example.org/a_b%20c")
    (entry,) = parsed(paper.bibtex)
    assert entry["ID"] == "key1"
    assert entry["author"] == ["Núñez, Ana", "Šimůnek, Jiří"]
    assert {"title", "year", "url"} <= entry.keys()
    assert paper.bibtex.count("@") == 1
