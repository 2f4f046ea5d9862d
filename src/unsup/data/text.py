"""Text as windows of its UTF-8 bytes: a file, a folder, or a field of JSON lines; and any other file as bytes."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import logging
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core import memory
from unsup.core.errors import InputError, nearest
from unsup.core.event import Event, Support
from unsup.data.bounds import check_fits, described, does_not_fit
from unsup.data.examples import Examples, listing
from unsup.data.folders import listed, skipped
from unsup.data.form import Form, numbered
from unsup.data.notation import is_number
from unsup.data.source import hashed_order
from unsup.data.windows import windows, windows_of_all

LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
SUFFIXES = (".txt", ".text", ".md", ".txt.gz", ".text.gz", ".md.gz")
_PER_BYTE, _PER_LINE = 3, 10  # bytes of memory at the peak for a byte of text, and of JSON lines
_AT_ONCE = 2**20
_HEAD, _FEWEST = 2**14, 5  # bytes and lines by which a table is told from text
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
"""Bytes that are in no text: control characters except white space and ESC, which colours text in terminals."""
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WESTERN = "cp1252"  # Latin-1 with the quotation marks of Windows, in place of control characters
_AS_BYTES = "to use its bytes, pass --as bytes (as_='bytes')"
_log = logging.getLogger(__name__)

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class TextForm(Form):
    """Texts are written one after the other to a text file, or each to a file of a folder.

    Attributes:
        encoding: encoding of the files that were read, and of those that are written.
    """

    name: ClassVar[str] = "text"
    suffixes: ClassVar[tuple[str, ...]] = (".txt", "")

    encoding: str = "utf-8"

    def files(self, x: Tensor, out: Path) -> Iterator[tuple[Path, bytes]]:
        self.check_suffix(out)
        rows = x.detach().cpu().numpy().astype(np.uint8)
        if out.suffix:
            yield out, self._content(rows.tobytes())
        else:
            for path, row in zip(numbered(out, len(rows), ".txt"), rows, strict=True):
                yield path, self._content(row.tobytes())

    def _content(self, text: bytes) -> bytes:
        return text if self.encoding == "utf-8" else text.decode(errors="replace").encode(self.encoding, "replace")


def read_bytes(path: Path, *, length: int = 64) -> Examples:
    """Consecutive windows of ``length`` bytes of any file: ``(length,)``, nominal(256), split in file order.

    Args:
        length: number of values in one window of text, bytes or sound.
    """
    check_fits(_PER_BYTE * path.stat().st_size, str(path), "use a part of it")
    content = path.read_bytes()
    if not content:
        raise InputError(f"{path} is empty; expected text or other bytes")
    return _in_order(content, length, path)


def read_text(path: Path, *, length: int = 64) -> Examples:
    """Consecutive windows of ``length`` bytes of a text in UTF-8: ``(length,)``, nominal(256), split in file order.

    Text in UTF-16, or in Latin-1, is converted to UTF-8.

    Args:
        length: as for bytes.

    Raises:
        InputError: the file is not text.
    """
    try:
        text, encoding, notes = _utf8(_unpacked(path, _PER_BYTE))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path} is not text ({described(error)}); {_AS_BYTES}") from error
    if not text:
        raise InputError(f"{path} is empty; expected text or other bytes")
    found = _in_order(text, length, path)
    if _is_table(text):
        notes.append(f"the lines look like rows of a table; to read it as one, rename it to {path.stem}.csv")
    return replace(found, notes=(*notes, *found.notes), form=TextForm(encoding))


def _is_table(text: bytes) -> bool:
    """Whether the first lines have the same number of cells, at least two, and most of them are numbers."""
    head = text[:_HEAD].decode(errors="replace").splitlines()[: -1 if len(text) > _HEAD else None]
    for separator in ("\t", ";", ",", None):
        rows = [line.split(separator) for line in head if line.strip()]
        cells = [cell.strip() for row in rows[1:] for cell in row]
        if len(rows) > _FEWEST and len({len(row) for row in rows}) == 1 and len(rows[0]) > 1:
            return 2 * sum(map(is_number, cells)) >= len(cells)
    return False


def read_lines(path: Path, *, length: int = 64, field: str | None = None) -> Examples:
    """The texts of a field of JSON lines, joined by newlines in their order, as windows of ``length`` bytes.

    Args:
        length: as for bytes.
        field: field of JSON lines that has the text; by default, the only one with text.

    Raises:
        InputError: a line is not a JSON object, or has no text in that field.
    """
    try:
        text, encoding, notes = _utf8(_unpacked(path, _PER_LINE))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path} is not text ({described(error)}); save it again as UTF-8") from error
    texts: list[bytes] = []
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line.strip():
            continue
        record = _record(line, f"{path}, line {number}")
        field = _field(record, f"{path}, line {number}") if field is None else field
        if not isinstance(record.get(field), str):
            what = f"no field {field!r}{nearest(field, record)}" if field not in record else f"no text in {field!r}"
            raise InputError(f"{path}, line {number} has {what}; expected a text in each line, or another --field")
        texts.append(record[field].encode("utf-8", "surrogatepass"))
    if not texts:
        raise InputError(f"{path} is empty; expected JSON lines with a text in each")
    note = f"the {len(texts):,} texts of the field {field!r} are joined by newlines"
    found = _in_order(b"\n".join(texts), length, path)
    return replace(found, notes=(*notes, note, *found.notes), form=TextForm(encoding))


def read_folder(path: Path, *, length: int = 64) -> Examples:
    """Windows of ``length`` bytes of the texts in a folder; subfolders (one level) are labels.

    The files are split in hashed order, so that windows of one text stay together. Files that are not text are skipped
    and listed in the notes.

    Args:
        length: as for bytes.
    """
    found = listed(path, SUFFIXES, "texts", "text files (.txt, .md, .txt.gz)")
    size = sum(file.stat().st_size for file in found.files)
    check_fits(_PER_BYTE * size, f"the texts in {path}", "use some of them")
    texts: list[tuple[int, bytes]] = []
    encodings, bad, noted = set(), [], []
    for i in hashed_order(len(found.files)).tolist():
        try:
            text, encoding, notes = _utf8(_unpacked(found.files[i], _PER_BYTE))
        except (OSError, EOFError, ValueError, zlib.error) as error:
            bad.append(f"{found.names[i]} ({described(error)})")
            continue
        texts.append((i, text))
        encodings.add(encoding)
        noted += [found.names[i]] if notes else []
    said = [*found.notes, *skipped(bad, len(found.files), path, "texts", "replace them")]
    for what in bad:
        _log.warning("skipped %s in %s", what, path)
    if noted:
        said.append(f"converted {len(noted)} texts to plain UTF-8: {listing(noted)}")
    pieces = [(found.names[i], np.frombuffer(text, np.uint8)) for i, text in texts]
    x, names, owner, notes = windows_of_all(pieces, length, str(path), "text", "bytes")
    label = torch.tensor([found.label[texts[k][0]] for k in owner.tolist()]) if found.labels else None
    examples = _windows_of_bytes(x, names)
    form = TextForm(encodings.pop() if len(encodings) == 1 else "utf-8")
    split = "in hashed order of the files"
    return replace(examples, label=label, labels=found.labels or None, notes=(*said, *notes), split=split, form=form)


def is_text(path: Path) -> bool:
    """Whether the beginning of a file of an unknown kind is text."""
    with path.open("rb") as file:
        head = file.read(_AT_ONCE)
    if any(head.startswith(mark) for mark in _MARKS):
        return True
    if _CONTROL.search(head):
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(head, final=len(head) < _AT_ONCE)
    except UnicodeDecodeError:
        return False
    return True


def _in_order(content: bytes, length: int, path: Path) -> Examples:
    x, left = windows(np.frombuffer(content, np.uint8), length, str(path), "bytes")
    notes = (f"the last {left} bytes do not fill a window and are dropped",) if left else ()
    return replace(_windows_of_bytes(x, tuple(f"byte {i * length}" for i in range(len(x)))), notes=notes)


def _windows_of_bytes(x: Bytes, names: tuple[str, ...]) -> Examples:
    event = Event(x.shape[1:], Support("nominal", 256), "sequence")
    return Examples(torch.from_numpy(x.copy()), event, names, split="in file order", in_order=True)


def _unpacked(path: Path, per_byte: int) -> bytes:
    """The content of a file, unpacked if it is compressed with gzip, as far as it fits into memory."""
    if not path.name.lower().endswith(".gz"):
        check_fits(per_byte * path.stat().st_size, str(path), "use a part of it")
        return path.read_bytes()
    content, most = io.BytesIO(), memory.limit() // per_byte
    with gzip.open(path, "rb") as file:
        while part := file.read(_AT_ONCE):
            content.write(part)
            if content.tell() > most:
                raise does_not_fit(per_byte * content.tell(), f"the content of {path}", "use a part of it")
    return content.getvalue()


def _utf8(content: bytes) -> tuple[bytes, str, list[str]]:
    """A text in UTF-8 without a mark, its encoding, and a note if it was converted.

    Raises:
        ValueError: it is not text.
    """
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    if encoding == "utf-8":
        content, encoding = content.removeprefix(codecs.BOM_UTF8), None
    if encoding is not None:
        text = content.decode(encoding).encode()
        _check_characters(text)
        return text, encoding, [f"converted from {encoding.upper()} to UTF-8"]
    _check_characters(content)
    try:
        content.decode()
        return content, "utf-8", []
    except UnicodeDecodeError as error:
        try:
            text = content.decode(_WESTERN).encode()
        except UnicodeDecodeError:
            raise error from None
    return text, _WESTERN, ["not UTF-8: read as Latin-1 (Windows-1252), and converted to UTF-8"]


def _check_characters(text: bytes) -> None:
    found = _CONTROL.search(text)
    if found is not None:
        raise ValueError(f"its byte {found.start():,} is the control character 0x{found[0][0]:02x}")


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({described(error)}); expected an object in each line") from error
    if not isinstance(record, dict):
        raise InputError(f'{where} is not an object; expected a JSON object in each line, such as {{"text": …}}')
    return record


def _field(record: dict[str, Any], where: str) -> str:
    words = [name for name, value in record.items() if isinstance(value, str)]
    if not words:
        raise InputError(
            f"{where} has no field with text; save a table of numbers as CSV, e.g. in pandas with "
            "read_json(path, lines=True).to_csv(…)"
        )
    if len(words) != 1:
        known = listing(words) if words else "none"
        raise InputError(f"{where} has {len(words)} fields with text ({known}); choose one with --field (field=)")
    return words[0]
