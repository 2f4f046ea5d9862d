"""The form of the user's data: how examples are written to files like those that were read."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from unsup.core.config import check_value
from unsup.core.errors import InputError, nearest

FORMS: dict[str, str] = {
    "table": "unsup.data.columns:TableForm",
    "images": "unsup.data.pixels:ImageForm",
    "sound": "unsup.data.sound:SoundForm",
    "text": "unsup.data.text:TextForm",
    "bytes": "unsup.data.text:BytesForm",
    "words": "unsup.data.vocabulary:WordsForm",
}
"""The forms by their name in JSON: ``"module:class"``. Data of other kinds has no form of its own."""


@dataclass(frozen=True)
class Form(ABC):
    """How examples are written to files like those that were read. Subclasses are final.

    Class attributes:
        name: its name in `FORMS`.
        suffixes: suffixes of the files that it writes, the usual one first. ``""`` is a folder with a file per example.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def files(self, x: Tensor, out: Path) -> Iterator[tuple[Path, bytes]]:
        """The files of examples ``(N, *event.shape)`` and their content.

        Args:
            x: raw data.
            out: the file to write, or a folder if its suffix is ``""``.

        Raises:
            InputError: the suffix of ``out`` is not one of `suffixes`.
        """

    def units(self, x: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        """The number of units of each example by their name, in which bits are told; empty for entries.

        Args:
            x: raw data ``(N, *event.shape)``.
            lengths: of the examples, ``(N,)``; None for full length.
        """
        return {}

    @property
    def entry(self) -> str:
        """What an entry of an example is, in the singular."""
        return "entry"

    @property
    def letters(self) -> str:
        """The characters of text whose entries are characters, in the order of their numbers; else empty."""
        return ""

    @property
    def samples_a_second(self) -> int | None:
        """The rate of sound; None for other data."""
        return None

    def word(self, entry: int, value: float) -> str | None:
        """The category or date that a value of a flattened entry stands for; None for numbers."""
        return None

    def is_single(self, out: Path) -> bool:
        """Whether ``out`` is a file that has one example only."""
        return False

    @property
    def meaning(self) -> tuple[tuple[str, ...], ...]:
        """What the numbers of the examples stand for, which is part of the digest of the data."""
        return ()

    def check_suffix(self, out: Path) -> None:
        """Raise `InputError` unless ``out`` has one of the suffixes."""
        if out.suffix.lower() not in self.suffixes:
            known = " or ".join(suffix or "a folder (no suffix)" for suffix in self.suffixes)
            raise InputError(f"{out} has the suffix {out.suffix!r}, but {self.name} can be written to {known}")

    def to_json(self) -> dict[str, Any]:
        return {"form": self.name, **asdict(self)}


def form_from_json(record: Any) -> Form:
    """The form that `Form.to_json` wrote.

    Raises:
        InputError: ``record`` is not a form.
    """
    if not isinstance(record, dict) or record.get("form") not in FORMS:
        known = nearest(str(record.get("form")) if isinstance(record, dict) else "", FORMS)
        raise InputError(f"the form of the data is {record!r}, which is unknown{known}")
    module, _, name = FORMS[record["form"]].partition(":")
    found: Form = check_value(
        "form", {k: v for k, v in record.items() if k != "form"}, getattr(importlib.import_module(module), name)
    )
    return found


def numbered(folder: Path, n: int, suffix: str) -> list[Path]:
    """The files of ``n`` examples in a folder, whose order by name is that of the examples.

    >>> [str(path) for path in numbered(Path("out"), 11, ".png")][9:]
    ['out/09.png', 'out/10.png']
    """
    digits = len(str(n - 1))
    return [folder / f"{i:0{digits}d}{suffix}" for i in range(n)]
