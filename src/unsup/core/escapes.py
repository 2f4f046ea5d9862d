r"""Text that others wrote (names of files, columns and classes, options, errors) made fit for where it is shown.

One function for each place: `visible` for a terminal, `markup` for HTML and SVG, `markdown` for a README, `json_text`
for JSON, `command_line` for words that are to be typed, and `unsup.core.cells` for CSV. What they take away is what a
reader cannot see and a program may obey: control characters, newlines, marks that turn the direction of writing, lone
surrogates (a byte of a file name that is no UTF-8). It is shown as its escape, ``\x1b``. Letters of all languages stay.
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
    "\x00-\x1f\x7f-\x9f"  # control characters, newlines and tabs among them
    "\u2028\u2029"  # separators of lines and paragraphs
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # direction of writing
    "\xad\u180e\u200b\u2060-\u2065\ufeff\ufff9-\ufffb"  # no width
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"
    "\ufdd0-\ufdef\ufffe\uffff"  # no characters
    "\ud800-\udfff"  # half of a character
    "]"
)
"""What is never shown as it is. The joiners U+200C and U+200D are: Persian, Indian scripts and emoji need them."""
_MARKDOWN = re.compile(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|[\\`*{}\[\]<>#|~&@$]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def visible(text: str) -> str:
    r"""One line of plain text, whatever ``text`` holds.

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
    r"""``text`` within a line, or within a cell of a table, of Markdown: no link, no HTML, no code, no emphasis.

    >>> print(markdown("latent_dim [x](http://y) <b>|`"))
    latent_dim \[x\](http\://y) \<b\>\|\`
    """
    return _MARKDOWN.sub(lambda found: "\\" + found[0], visible(str(text)))


def markdown_code(text: str) -> str:
    """``text`` as code within a line, or within a cell of a table, of Markdown.

    >>> print(markdown_code("unsup fit `x`"))
    `` unsup fit `x` ``
    """
    shown = visible(text).replace("|", "\\|")
    longest = max(map(len, re.findall("`+", shown)), default=0)
    space = " " if longest else ""
    return f"{'`' * (longest + 1)}{space}{shown}{space}{'`' * (longest + 1)}"


def json_text(record: Any) -> str:
    r"""``record`` as one line of JSON in which letters can be read and nothing unseen is left.

    >>> print(json_text({"name": "é\x9b\udce9"}))
    {"name": "é\u009b\udce9"}
    """
    # Such characters can stand within strings only, where JSON has an escape for each.
    return UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], json.dumps(record, ensure_ascii=False))


def command_line(words: Sequence[str]) -> str:
    r"""Words as a person would type them into a shell, so that it takes each for what it is.

    >>> print(command_line(["unsup", "eval", "my runs/$(id)", "a\nb"]))
    unsup eval 'my runs/$(id)' $'a\x0ab'
    """
    return " ".join(_quoted(word) if UNSEEN.search(word) else shlex.quote(word) for word in words)


def _quoted(word: str) -> str:
    """In the form ``$'…'`` of bash and zsh, byte by byte where nothing could be seen."""
    safe = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + UNSEEN.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in _bytes(found[0])), safe) + "'"


def _bytes(character: str) -> bytes:
    return character.encode("utf-8", "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass")
