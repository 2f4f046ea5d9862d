"""Text as windows of its UTF-8 bytes: a file, a folder, or a field of JSON lines; and any other file as bytes."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import logging
import lzma
import re
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

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
from unsup.data.windows import Windows, cut

_PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
LINES = tuple(f"{kind}{packed}" for kind in (".jsonl", ".ndjson") for packed in ("", *_PACKED))
_KINDS = (".txt", ".text", ".md")
SUFFIXES = tuple(f"{kind}{packed}" for kind in _KINDS for packed in ("", *_PACKED))
ENDINGS = {*_KINDS, *_PACKED}
"""The last suffixes of texts."""
_LENGTH, _DOCUMENT = 64, 1024  # of a window, and the most of a document, by default
_PER_CHARACTER = 24
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
_BROKEN = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
_log = logging.getLogger(__name__)

Tokens = Literal["bytes", "characters"]


@dataclass(frozen=True)
class Written(Form):
    """Texts are written one after the other to a file, or each to a file of a folder."""

    suffixes: ClassVar[tuple[str, ...]] = (".txt", "")

    def files(self, x: Tensor, out: Path) -> Iterator[tuple[Path, bytes]]:
        yield from self.files_of(self.texts(x), out)

    def files_of(self, texts: Sequence[bytes], out: Path, *, between: bytes = b"") -> Iterator[tuple[Path, bytes]]:
        """The same for texts in UTF-8, or bytes. In one file, they are separated by ``between``."""
        self.check_suffix(out)
        if out.suffix:
            yield out, self.in_file(between.join(texts))
        else:
            for path, text in zip(numbered(out, len(texts), self.suffixes[0]), texts, strict=True):
                yield path, self.in_file(text)

    def texts(self, x: Tensor, lengths: Tensor | None = None) -> list[bytes]:
        """The text of each example, in UTF-8, without what is beyond its length."""
        sizes = [x.shape[1]] * len(x) if lengths is None else lengths.tolist()
        return [self.text(row[:size]) for row, size in zip(x.detach().cpu(), sizes, strict=True)]

    @abstractmethod
    def text(self, row: Tensor) -> bytes:
        """The text of tokens ``(T,)``."""

    @abstractmethod
    def tokens_of(self, text: str, what: str) -> Tensor:
        """The tokens ``(T,)`` of a text, int64.

        Raises:
            InputError: it has a character without a token; the message begins with ``what``.
        """

    def in_file(self, text: bytes) -> bytes:
        """The content of a file with a text."""
        return text

    def prompt(self, text: str) -> Tensor:
        return self.tokens_of(text, "the prompt")


@dataclass(frozen=True)
class BytesForm(Written):
    """The bytes of files of any kind."""

    name: ClassVar[str] = "bytes"
    suffixes: ClassVar[tuple[str, ...]] = (".bin", ".txt", "")

    tail: bool = False

    @property
    def entry(self) -> str:
        return "byte"

    def text(self, row: Tensor) -> bytes:
        return row.numpy().astype(np.uint8).tobytes()

    def tokens_of(self, text: str, what: str) -> Tensor:
        return _bytes_of(text, what)

    def units(self, x: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        return {"byte": _sizes(x, lengths)}


@dataclass(frozen=True)
class TextForm(Written):
    """Texts are written one after the other to a text file, or each to a file of a folder.

    Attributes:
        encoding: encoding of the files that were read, and of those that are written.
        alphabet: the characters of the text, in the order of their numbers; empty if tokens are bytes of UTF-8.
        documents: whether each example is a whole text.
        tail: whether the last window of a text may be shorter than others.
    """

    name: ClassVar[str] = "text"

    encoding: str = "utf-8"
    alphabet: str = ""
    documents: bool = False
    tail: bool = False

    @property
    def entry(self) -> str:
        return "character" if self.alphabet else "byte"

    @property
    def letters(self) -> str:
        return self.alphabet

    @property
    def tokens(self) -> Tokens:
        return "characters" if self.alphabet else "bytes"

    @property
    def meaning(self) -> tuple[tuple[str, ...], ...]:
        return (tuple(self.alphabet),) if self.alphabet else ()

    def text(self, row: Tensor) -> bytes:
        if not self.alphabet:
            return row.numpy().astype(np.uint8).tobytes()
        return "".join(self.alphabet[i] for i in row.tolist()).encode("utf-8", "surrogatepass")

    def tokens_of(self, text: str, what: str) -> Tensor:
        if not self.alphabet:
            return _bytes_of(text, what)
        numbers = {character: i for i, character in enumerate(self.alphabet)}
        _check_seen(text, self.alphabet, what)
        return torch.tensor([numbers[character] for character in text], dtype=torch.int64)

    def in_file(self, text: bytes) -> bytes:
        return text if self.encoding == "utf-8" else text.decode(errors="replace").encode(self.encoding, "replace")

    def units(self, x: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        """The number of bytes in UTF-8, and of characters, of each example."""
        sizes, there = _sizes(x, lengths), torch.ones(x.shape, dtype=torch.bool)
        if lengths is not None:
            there = torch.arange(x.shape[1]) < sizes[:, None]
        if self.alphabet:
            bytes_of = torch.tensor([len(c.encode("utf-8", "surrogatepass")) for c in self.alphabet])
            return {"byte": (bytes_of[x.long().where(there, 0)] * there).sum(1), "character": sizes}
        starts = (x.long() & 0xC0) != 0x80  # other bytes continue a character
        return {"byte": sizes, "character": (starts & there).sum(1)}

    def same_tokens(self, found: Examples, what: str) -> Examples:
        """Examples with the numbers of the characters of this form.

        Raises:
            InputError: they have characters that this form does not have, or other tokens.
        """
        own = found.form
        if isinstance(own, TextForm) and own.tokens != self.tokens:
            raise InputError(
                f"{what} was read as {own.tokens}, and the model is one of {self.tokens}; remove --tokens {own.tokens}"
            )
        if not self.alphabet or not isinstance(own, TextForm) or not own.alphabet:
            return found
        there = found.tensor
        if found.lengths is not None:
            there = there[torch.arange(there.shape[1]) < found.lengths[:, None]]
        seen = "".join(own.alphabet[i] for i in there.unique().tolist())
        _check_seen(seen, self.alphabet, what)
        numbers = torch.tensor([max(0, self.alphabet.find(c)) for c in own.alphabet])
        event = replace(found.event, support=_support(self.alphabet))
        return replace(found, x=numbers[found.tensor.long()].to(event.dtype), event=event, form=self)


def _sizes(x: Tensor, lengths: Tensor | None) -> Tensor:
    return torch.full((len(x),), x.shape[1]) if lengths is None else lengths.cpu()


def _bytes_of(text: str, what: str) -> Tensor:
    try:
        return torch.tensor(list(text.encode()), dtype=torch.int64)
    except UnicodeEncodeError as error:  # a lone surrogate, as in words of a command that are not UTF-8
        raise InputError(f"{what} is not UTF-8 (character {error.start}); write it in UTF-8") from error


def _check_seen(text: str, alphabet: str, what: str) -> None:
    unseen = sorted(set(text) - set(alphabet))
    if unseen:
        plural = "s" * (len(unseen) != 1)
        raise InputError(
            f"{what} has {len(unseen)} character{plural} that the training text does not have: "
            f"{listing([repr(c) for c in unseen], 10)}; remove or replace them, or train with --tokens bytes, which "
            "takes any text"
        )


def _support(alphabet: str) -> Support:
    return Support("nominal", len(alphabet))


def read_bytes(path: Path, *, length: int | None = None, tail: bool = False) -> Examples:
    """Consecutive windows of ``length`` bytes of any file: ``(length,)``, nominal(256), split in file order.

    Args:
        length: number of values in one window of text, bytes or sound, or the most of a document [text: 64, or 256
            for models of sequences; documents: that of the longest, at most 1,024; sound: 1,024].
        tail: keep the last window of a file even if it is shorter than others, for models that support lengths; it is
            then scored as the beginning of a window [for models that support it].
    """
    check_fits(_PER_BYTE * path.stat().st_size, str(path), "use a part of it")
    content = path.read_bytes()
    if not content:
        raise InputError(f"{path} is empty; expected text or other bytes")
    return _windows([("", content)], path, _Reading("bytes", length, tail=tail), BytesForm(tail=tail))[0]


def read_text(
    path: Path,
    *,
    length: int | None = None,
    tokens: Literal["bytes", "characters"] = "bytes",
    documents: bool = False,
    tail: bool = False,
) -> Examples:
    """Consecutive windows of ``length`` bytes of a text in UTF-8: ``(length,)``, nominal(256), split in file order.

    Text in UTF-16, or in Latin-1, is converted to UTF-8.

    Args:
        length: as for bytes.
        tokens: what a text is made of: bytes of its UTF-8, which are the same for any text, or the characters of the
            training text.
        documents: each text, or each line of JSON lines, is one example, of its own length.
        tail: as for bytes.

    Raises:
        InputError: the file is not text.
    """
    try:
        text, encoding, notes = _utf8(_unpacked(path, _PER_BYTE))
    except _BROKEN as error:
        raise InputError(f"{path} is not text ({described(error)}); {_AS_BYTES}") from error
    if not text:
        raise InputError(f"{path} is empty; expected text or other bytes")
    reading = _Reading(tokens, length, documents, tail)
    found, _ = _windows([(path.name if documents else "", text)], path, reading, TextForm(encoding))
    if _is_table(text):
        packed = path.suffix if path.suffix.lower() in _PACKED else ""
        own = f"{Path(path.name.removesuffix(packed)).stem}.csv{packed}"
        notes.append(f"the lines look like rows of a table; to read it as one, rename it to {own}")
    return replace(found, notes=(*notes, *found.notes))


def _is_table(text: bytes) -> bool:
    """Whether the first lines have the same number of cells, at least two, and most of them are numbers."""
    head = text[:_HEAD].decode(errors="replace").splitlines()[: -1 if len(text) > _HEAD else None]
    for separator in ("\t", ";", ",", None):
        rows = [line.split(separator) for line in head if line.strip()]
        cells = [cell.strip() for row in rows[1:] for cell in row]
        if len(rows) > _FEWEST and len({len(row) for row in rows}) == 1 and len(rows[0]) > 1:
            return 2 * sum(map(is_number, cells)) >= len(cells)
    return False


def read_lines(
    path: Path,
    *,
    length: int | None = None,
    field: str | None = None,
    tokens: Literal["bytes", "characters"] = "bytes",
    documents: bool = False,
    tail: bool = False,
) -> Examples:
    """The texts of a field of JSON lines, joined by newlines in their order, as windows of ``length`` bytes.

    Args:
        length: as for bytes.
        field: field of JSON lines that has the text; by default, the only one with text.
        tokens: as for texts.
        documents: as for texts.
        tail: as for bytes.

    Raises:
        InputError: a line is not a JSON object, or has no text in that field.
    """
    texts, places, encoding, notes, field = _lines(path, field)
    reading = _Reading(tokens, length, documents, tail)
    if documents:
        pieces = [(f"line {place}", text) for place, text in zip(places, texts, strict=True)]
        found, _ = _windows(pieces, path, reading, TextForm())
    else:
        notes.append(f"the {len(texts):,} texts of the field {field!r} are joined by newlines")
        found, _ = _windows([("", b"\n".join(texts))], path, reading, TextForm(encoding))
    return replace(found, notes=(*notes, *found.notes))


def _lines(path: Path, field: str | None) -> tuple[list[bytes], list[int], str, list[str], str]:
    """The texts of JSON lines in UTF-8, the numbers of their lines, encoding of the file, notes, and their field."""
    try:
        text, encoding, notes = _utf8(_unpacked(path, _PER_LINE))
    except _BROKEN as error:
        raise InputError(f"{path} is not text ({described(error)}); save it again as UTF-8") from error
    texts: list[bytes] = []
    places: list[int] = []
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line.strip():
            continue
        record = _record(line, f"{path}, line {number}")
        field = _field(record, f"{path}, line {number}") if field is None else field
        if not isinstance(record.get(field), str):
            what = f"no field {field!r}{nearest(field, record)}" if field not in record else f"no text in {field!r}"
            raise InputError(f"{path}, line {number} has {what}; expected a text in each line, or another --field")
        texts.append(record[field].encode("utf-8", "surrogatepass"))
        places.append(number)
    if not texts or field is None:
        raise InputError(f"{path} is empty; expected JSON lines with a text in each")
    return texts, places, encoding, notes, field


def read_folder(
    path: Path,
    *,
    length: int | None = None,
    tokens: Literal["bytes", "characters"] = "bytes",
    documents: bool = False,
    tail: bool = False,
) -> Examples:
    """Windows of ``length`` bytes of the texts in a folder; subfolders (one level) are labels.

    The files are split in hashed order, so that windows of one text stay together. Files that are not text are skipped
    and listed in the notes.

    Args:
        length: as for bytes.
        tokens: as for texts.
        documents: as for texts.
        tail: as for bytes.
    """
    found = listed(path, SUFFIXES, "texts", "text files (.txt, .md, .txt.gz)")
    size = sum(file.stat().st_size for file in found.files)
    check_fits(_PER_BYTE * size, f"the texts in {path}", "use some of them")
    texts: list[tuple[int, bytes]] = []
    encodings, bad, noted = set(), [], []
    for i in hashed_order(len(found.files)).tolist():
        try:
            text, encoding, notes = _utf8(_unpacked(found.files[i], _PER_BYTE))
        except _BROKEN as error:
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
    form = TextForm(encodings.pop() if len(encodings) == 1 else "utf-8")
    pieces = [(found.names[i], text) for i, text in texts]
    examples, owner = _windows(pieces, path, _Reading(tokens, length, documents, tail), form)
    label = torch.tensor([found.label[i] for i, _ in texts])[owner] if found.labels else None
    split = "in hashed order of the files"
    said += examples.notes
    return replace(examples, label=label, labels=found.labels or None, notes=tuple(said), split=split)


def texts_of(path: Path, field: str | None = None) -> list[tuple[str, str]]:
    """The name and the text of a file, of each file of a folder, in the order of their names, or of each JSON line.

    Args:
        path: the file or folder.
        field: field of JSON lines, as in `read_lines`.

    Raises:
        InputError: there is no text.
    """
    if path.name.lower().endswith(LINES) and not path.is_dir():
        lines, places, *_ = _lines(path, field)
        return [(f"line {n}", text.decode("utf-8", "surrogatepass")) for n, text in zip(places, lines, strict=True)]
    if path.is_dir():
        found = listed(path, SUFFIXES, "texts", "text files (.txt, .md, .txt.gz)")
        files = list(zip(found.names, found.files, strict=True))
    else:
        files = [(path.name, path)]
    texts = []
    for name, file in files:
        try:
            text, _, _ = _utf8(_unpacked(file, _PER_BYTE))
        except _BROKEN as error:
            raise InputError(f"{file} is not text ({described(error)}); save it again as UTF-8") from error
        texts.append((name, text.decode()))
    return texts


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


@dataclass(frozen=True)
class _Reading:
    """How texts become examples: the options of the readers."""

    tokens: Tokens
    length: int | None
    documents: bool = False
    tail: bool = False


def _windows(
    pieces: Sequence[tuple[str, bytes]], path: Path, reading: _Reading, form: Written
) -> tuple[Examples, Tensor]:
    """The windows, or documents, of texts in UTF-8, in their order, and the number of the text of each."""
    alphabet, unit = "", "bytes"
    values: list[NDArray[Any]] = [np.frombuffer(text, np.uint8) for _, text in pieces]
    if reading.tokens == "characters":
        unit = "characters"
        check_fits(_PER_CHARACTER * sum(map(len, values)), f"the characters of {path}", "use a part, or --tokens bytes")
        alphabet, values = _characters([text for _, text in pieces])
    names = [name for name, _ in pieces]
    if isinstance(form, TextForm):
        form = replace(form, alphabet=alphabet, documents=reading.documents, tail=reading.tail)
    support = _support(alphabet) if alphabet else Support("nominal", 256)
    if reading.documents:
        longest = max(1, *map(len, values))
        length = min(longest, _DOCUMENT) if reading.length is None else reading.length
        if length < 1:
            raise InputError(f"length={length}; expected at least 1")
        x = np.zeros((len(values), length), np.uint8 if support.levels <= 256 else np.int64)
        for row, value in zip(x, values, strict=True):
            row[: len(value)] = value[:length]
        sizes = np.array([min(len(value), length) for value in values])
        cut_off = sum(len(value) > length for value in values)
        notes = [
            f"{cut_off:,} of {len(values):,} documents are longer than {length:,} {unit}, and cut there; --length "
            "sets the length"
        ] * (cut_off > 0)
        found = Windows(x, sizes, tuple(names), np.arange(len(values)), notes)
    else:
        length = _LENGTH if reading.length is None else reading.length
        found = cut(list(zip(names, values, strict=True)), length, str(path), "text", unit, tail=reading.tail)
    event = Event(found.x.shape[1:], support, "sequence", open=reading.documents)
    examples = Examples(
        torch.from_numpy(found.x.copy()).to(event.dtype),
        event,
        found.names,
        notes=tuple(found.notes),
        split="in file order",
        in_order=True,
        lengths=None if found.lengths is None else torch.from_numpy(found.lengths),
        form=form,
    )
    return examples, torch.from_numpy(found.owner)


def _characters(texts: Sequence[bytes]) -> tuple[str, list[NDArray[Any]]]:
    """The sorted characters of texts in UTF-8, at least two, and the number of each character of each text."""
    points = [
        np.frombuffer(text.decode("utf-8", "surrogatepass").encode("utf-32-le", "surrogatepass"), "<u4")
        for text in texts
    ]
    known = np.unique(np.concatenate([np.unique(own) for own in points]))
    alphabet = "".join(map(chr, known.tolist()))
    for spare in " \n":  # an entry with one level has no distribution
        if len(alphabet) < 2 and spare not in alphabet:
            alphabet = "".join(sorted(alphabet + spare))
    order = np.array([ord(c) for c in alphabet], "<u4")
    return alphabet, [np.searchsorted(order, own) for own in points]


def _unpacked(path: Path, per_byte: int) -> bytes:
    """The content of a file, unpacked if it is compressed, as far as it fits into memory."""
    unpack = _PACKED.get(path.suffix.lower())
    if unpack is None:
        check_fits(per_byte * path.stat().st_size, str(path), "use a part of it")
        return path.read_bytes()
    content, most = io.BytesIO(), memory.limit() // per_byte
    with unpack(path) as file:
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
