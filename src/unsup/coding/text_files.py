"""Files of text: windows of the length of a model's examples, and everything else that is needed for the same bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, final

import numpy as np
import torch
from torch import Tensor

from unsup.coding.layouts import IMAGES, Rows
from unsup.core.config import shown
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.reading import parse_json
from unsup.data.text import BytesForm, TextForm

_LARGEST = 2**28  # bytes of a file that is read as text
_TEXTS = (".txt", ".text", ".md", "")
_BYTE_LEVELS = 256
_MOST_CHARACTERS = 0x110000


@final
@dataclass(frozen=True)
class Text(Rows):
    """A file of which each row is a window of bytes, or of characters in UTF-8; it comes back byte for byte.

    What fills no window is kept beside the last one, and so are characters that the model does not have, beside theirs.

    Attributes:
        type: type of the examples.
        alphabet: the characters of the levels; empty if the levels are bytes.
    """

    kind: ClassVar[str] = "text"
    has_side: ClassVar[bool] = True

    type: Literal["uint8", "int32"]
    alphabet: str

    def __post_init__(self) -> None:
        if len(self.alphabet) > _MOST_CHARACTERS or len(set(self.alphabet)) != len(self.alphabet):
            raise InputError(f"an alphabet of {len(self.alphabet):,} characters that are not different")
        _utf8(self.alphabet)

    @property
    def dtype(self) -> torch.dtype:
        return cast(torch.dtype, getattr(torch, self.type))

    @classmethod
    def takes(cls, suffix: str, form: Any) -> bool:
        """Whether files with this suffix are like the training data, which was written as ``form``."""
        if isinstance(form, TextForm):
            return suffix in _TEXTS
        return isinstance(form, BytesForm) and suffix not in IMAGES

    @classmethod
    def read(
        cls, path: Path, event: Event, form: TextForm | BytesForm
    ) -> tuple[Text, Tensor, dict[int, str], bytes] | str:
        """The layout, the windows ``(N, T)``, other characters by place, and the rest; or why the file is kept."""
        if path.stat().st_size > _LARGEST:
            return "large texts"
        content, length, alphabet = path.read_bytes(), event.shape[0], form.letters
        odd: dict[int, str] = {}
        if alphabet:
            try:
                text = content.decode()
            except UnicodeDecodeError:
                return "texts that are not UTF-8"
            whole = len(text) - len(text) % length
            numbers = {character: level for level, character in enumerate(alphabet)}
            levels = np.array([numbers.get(character, -1) for character in text[:whole]], np.int64)
            odd = {int(place): text[place] for place in np.flatnonzero(levels < 0)}
            levels, rest = levels.clip(0), text[whole:].encode()
        else:
            whole = len(content) - len(content) % length
            levels, rest = np.frombuffer(content[:whole], np.uint8), content[whole:]
        if not whole:
            return "texts that are shorter than a window"
        layout = cls("uint8" if len(alphabet) <= _BYTE_LEVELS else "int32", alphabet)
        return layout, torch.from_numpy(levels.reshape(-1, length).astype(layout.type)), odd, rest

    @staticmethod
    def side(odd: dict[int, str], rest: bytes) -> bytes:
        """What is beside the windows of a chunk: characters by place, and what follows the last window."""
        record = {"odd": list(odd.items()), "rest": rest.decode("latin-1")}
        return json.dumps(record, separators=(",", ":")).encode()

    def check(self, event: Event) -> None:
        levels = len(self.alphabet) or _BYTE_LEVELS
        if len(event.shape) != 1 or event.uniform is None or event.uniform.levels != levels:
            raise InputError(f"examples of shape {event.shape} do not fit into a text of {levels:,} characters")

    def start(self, rows: int, total: int, event: Event) -> bytes:
        return b""

    def rows(self, x: Tensor, side: bytes, inside: range, *, last: bool) -> bytes:
        record = parse_json(side.decode("utf-8", "replace"))
        odd, rest = (record.get("odd"), record.get("rest")) if isinstance(record, dict) else (None, None)
        if not isinstance(odd, list) or not isinstance(rest, str) or any(ord(c) >= _BYTE_LEVELS for c in rest):
            raise InputError("what it has beside the windows is not a list of characters and the bytes of a rest")
        after = rest.encode("latin-1") if last else b""
        if not self.alphabet:
            return x[inside.start : inside.stop].numpy().astype(np.uint8).tobytes() + after
        if x.numel() and not 0 <= int(x.min()) <= int(x.max()) < len(self.alphabet):
            raise InputError(f"it has levels that are not those of {len(self.alphabet):,} characters")
        text = [self.alphabet[level] for level in x.flatten().tolist()]
        for entry in odd:
            place, character = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
            if type(place) is not int or not 0 <= place < len(text):
                raise InputError(f"it has {shown(entry)} instead of a place and a character")
            if not isinstance(character, str) or len(character) != 1:
                raise InputError(f"it has {shown(character)} instead of a character")
            text[place] = character
        length = x.shape[1]
        return _utf8("".join(text[inside.start * length : inside.stop * length])) + after


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError("characters that are not text") from error
