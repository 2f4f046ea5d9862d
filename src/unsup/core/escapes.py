r"""Escape untrusted text (names of files, columns and classes, options, errors) for the place where it is shown.

One function for each place: `visible` for a terminal, `markup` for HTML and SVG, `markdown` for a README, `json_text`
for JSON, `command_line` for shell commands, and `unsup.core.cells` for CSV. They escape characters that a reader
cannot see but a program may interpret: control characters, newlines, marks that change the direction of writing, and
lone surrogates (bytes of a file name that are not UTF-8). Escapes look like ``\x1b``. Letters of all languages are
kept.
"""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

UNSEEN = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters, including newlines and tabs
    "\u2028\u2029"  # line and paragraph separators
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # marks of the direction of writing
    "\xad\u180e\u200b\u2060-\u2065\ufeff\ufff9-\ufffb"  # zero width
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"
    "\ufdd0-\ufdef\ufffe\uffff"  # noncharacters
    "\ud800-\udfff"  # surrogates
    "]"
)
"""Characters that are always escaped. The joiners U+200C and U+200D are kept for Persian, Indian scripts and emoji."""
_MARKDOWN = re.compile(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|[\\`*{}\[\]<>#|~&@$]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def visible(text: str) -> str:
    r"""``text`` as one line of plain text.

    >>> print(visible("a\x1b[2Jb\nc — é\u202e"))
    a\x1b[2Jb\x0ac — é\u202e
    """
    return UNSEEN.sub(lambda found: _escape(ord(found[0])), text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def markup(text: object) -> str:
    """``text`` as the content of an element, or of an attribute between quotes, of HTML or SVG.

    >>> print(markup('<b title="x">'))
    &lt;b title=&quot;x&quot;&gt;
    """
    return html.escape(visible(str(text)))


def markdown(text: object) -> str:
    r"""``text`` within a line or a table cell of Markdown: no link, no HTML, no code, no emphasis.

    >>> print(markdown("latent_dim [x](http://y) <b>|`"))
    latent_dim \[x\](http\://y) \<b\>\|\`
    """
    return _MARKDOWN.sub(lambda found: "\\" + found[0], visible(str(text)))


def markdown_code(text: str) -> str:
    """``text`` as code within a line or a table cell of Markdown.

    >>> print(markdown_code("unsup fit `x`"))
    `` unsup fit `x` ``
    """
    shown = visible(text).replace("|", "\\|")
    longest = max(map(len, re.findall("`+", shown)), default=0)
    space = " " if longest else ""
    return f"{'`' * (longest + 1)}{space}{shown}{space}{'`' * (longest + 1)}"


def json_text(record: Any) -> str:
    r"""``record`` as one line of JSON with readable letters and without invisible characters.

    >>> print(json_text({"name": "é\x9b\udce9"}))
    {"name": "é\u009b\udce9"}
    """
    # Such characters occur within strings only, where JSON has an escape for each.
    return UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], json.dumps(record, ensure_ascii=False))


def command_line(words: Sequence[str]) -> str:
    r"""Words quoted for a shell.

    >>> print(command_line(["unsup", "eval", "my runs/$(id)", "a\nb"]))
    unsup eval 'my runs/$(id)' $'a\x0ab'
    """
    return " ".join(map(shell_word, words))


def shell_word(word: str) -> str:
    """One word quoted for a shell."""
    return _quoted(word) if UNSEEN.search(word) else shlex.quote(word)


def _quoted(word: str) -> str:
    """Quote in the form ``$'…'`` of bash and zsh, with invisible characters byte by byte."""
    safe = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + UNSEEN.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in _bytes(found[0])), safe) + "'"


def _bytes(character: str) -> bytes:
    return character.encode("utf-8", "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass")
