r"""Entries for BibTeX. Accents are LaTeX commands, so that also versions that read only ASCII sort and print them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
    "\u0328": "k",
}
_LETTERS = {"ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ı": "i"}
_SPECIAL = {
    "\\": "{\\textbackslash}",
    "~": "{\\textasciitilde}",
    "^": "{\\textasciicircum}",
    "{": "{\\textbraceleft}",  # BibTeX counts braces, also those after a backslash
    "}": "{\\textbraceright}",
}


def latex(text: str) -> str:
    r"""``text`` in LaTeX; letters that it has no command for are kept.

    >>> print(latex("Hyvärinen & Léon, 50 %"))
    Hyv{\"a}rinen \& L{\'e}on, 50 \%
    """
    return "".join(map(_latex, unicodedata.normalize("NFC", text)))


def _latex(letter: str) -> str:
    if letter in _SPECIAL:
        return _SPECIAL[letter]
    if letter in "&%$#_":
        return f"\\{letter}"
    if letter in _LETTERS:
        return f"{{\\{_LETTERS[letter]}}}"
    base, *marks = list(unicodedata.normalize("NFD", letter))
    if len(marks) != 1 or marks[0] not in _ACCENTS or not base.isascii():
        return letter
    accent = _ACCENTS[marks[0]]
    return f"{{\\{accent}{' ' if accent.isalpha() else ''}{base}}}"


def venue_fields(venue: str, entry: str = "") -> tuple[str, dict[str, str]]:
    """The type of an entry and the fields that describe the venue of a paper.

    Args:
        venue: a journal with its volume (and number), a conference with its year, or another place.
        entry: the type, if the form of the venue does not tell it.

    >>> venue_fields("Neural Computation 14(8)")
    ('article', {'journal': 'Neural Computation', 'volume': '14', 'number': '8'})
    >>> venue_fields("ICML 2015")
    ('inproceedings', {'booktitle': 'ICML 2015'})
    >>> venue_fields("arXiv")
    ('misc', {'howpublished': 'arXiv'})
    """
    journal = re.fullmatch(r"(.+) (\d{1,3})(?:\((\d+)\))?", venue)
    if entry in ("", "article") and journal:
        volume = {"volume": journal[2]} | ({"number": journal[3]} if journal[3] else {})
        return "article", {"journal": latex(journal[1])} | volume
    if not entry:
        entry = "inproceedings" if re.search(r"\b(19|20)\d\d\b", venue) else "misc"
    fields = {"article": "journal", "inproceedings": "booktitle", "incollection": "booktitle", "book": "publisher"}
    name = fields.get(entry, "howpublished")
    return entry, {name: latex(venue)}


def link_fields(link: str) -> dict[str, str]:
    """The address of a paper, and its number on arXiv or its DOI.

    >>> link_fields("https://arxiv.org/abs/1502.03509")["eprint"]
    '1502.03509'
    """
    fields = {}
    if found := re.fullmatch(r"https?://arxiv\.org/abs/(\S+)", link):
        fields = {"eprint": found[1], "archiveprefix": "arXiv"}
    elif found := re.fullmatch(r"https?://(?:dx\.)?doi\.org/(\S+)", link):
        fields = {"doi": found[1]}
    return fields | {"url": link}


def entry_text(entry: str, key: str, fields: Mapping[str, str]) -> str:
    """One entry, with a field in each line."""
    lines = (f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@{entry}{{{key},\n" + ",\n".join(lines) + "\n}"
