"""Text as words: the most frequent words of the training split, and one token for all others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.data.examples import Examples
from unsup.data.text import Written, texts_of
from unsup.data.windows import cut

UNKNOWN = "<unknown>"
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+|[^\w\s]|_")
_TIGHT = frozenset(".,;:!?)")  # no space before them


def words_of(text: str) -> list[str]:
    """The words and punctuation marks of a text, in lower case.

    >>> words_of("Say'st thou so? I'll go--now.")
    ["say'st", 'thou', 'so', '?', "i'll", 'go', '-', '-', 'now', '.']
    """
    return _WORD.findall(text.lower())


def vocabulary_of(words: Iterable[str], size: int) -> tuple[str, ...]:
    """`UNKNOWN`, then the most frequent words, at most ``size`` tokens in all; equally frequent ones by alphabet.

    >>> vocabulary_of(["a", "b", "c", "c"], 3)
    ('<unknown>', 'c', 'a')
    """
    ranked = sorted(Counter(words).items(), key=lambda pair: (-pair[1], pair[0]))
    return (UNKNOWN, *(word for word, _ in ranked[: size - 1]))


@dataclass(frozen=True)
class WordsForm(Written):
    """Words are written with a space between them; case, line breaks and rare words are lost.

    Attributes:
        words: the vocabulary, in the order of their numbers.
        tail: whether the last window of a text may be shorter than others.
    """

    name: ClassVar[str] = "words"

    words: tuple[str, ...]
    tail: bool = False

    @property
    def entry(self) -> str:
        return "word"

    @property
    def meaning(self) -> tuple[tuple[str, ...], ...]:
        return (self.words,)

    def text(self, row: Tensor) -> bytes:
        found = ""
        for number in row.tolist():
            word = self.words[number]
            found += word if not found or word in _TIGHT else f" {word}"
        return f"{found}\n".encode()

    def tokens_of(self, text: str, what: str) -> Tensor:
        del what  # any word has a token
        return self.numbers(words_of(text))

    def numbers(self, words: Iterable[str]) -> Tensor:
        """The number of each word, int64; that of `UNKNOWN` for others."""
        known = {word: i for i, word in enumerate(self.words)}
        return torch.tensor([known.get(word, 0) for word in words], dtype=torch.int64)

    def units(self, x: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        return {"word": torch.full((len(x),), x.shape[1]) if lengths is None else lengths.cpu()}

    def read(self, path: Path, length: int) -> Examples:
        """Windows of the words of a text, or of the texts in a folder.

        Raises:
            InputError: there is no text, or none of a window.
        """
        pieces = [(name, self.tokens_of(text, name).numpy()) for name, text in texts_of(path)]
        if not path.is_dir():
            pieces = [("", words) for _, words in pieces]
        return self.windows(pieces, length, str(path))

    def windows(self, pieces: Sequence[tuple[str, NDArray[Any]]], length: int, origin: str) -> Examples:
        """Consecutive windows of the numbers of words, in the order of the texts."""
        found = cut(pieces, length, origin, "text", "words", tail=self.tail)
        event = Event((length,), Support("nominal", len(self.words)), "sequence")
        return Examples(
            torch.from_numpy(found.x.copy()).to(event.dtype),
            event,
            found.names,
            notes=tuple(found.notes),
            split="in file order",
            in_order=True,
            lengths=None if found.lengths is None else torch.from_numpy(found.lengths),
            form=self,
        )


def read_words(path: Path, *, length: int, vocabulary: int, tail: bool, training: float) -> Examples:
    """Windows of the words of a text; the vocabulary is that of its beginning.

    Args:
        length: words of a window.
        vocabulary: number of tokens.
        tail: keep the last window even if it is shorter.
        training: the share of words from which the vocabulary is taken.

    Raises:
        InputError: the text has fewer words than a window.
    """
    words = words_of("\n".join(text for _, text in texts_of(path)))
    if len(words) < length:
        raise InputError(f"{path} has {len(words):,} words, less than one window of length={length}")
    form = WordsForm(vocabulary_of(words[: int(training * len(words))], vocabulary), tail)
    return form.windows([("", form.numbers(words).numpy())], length, str(path))
