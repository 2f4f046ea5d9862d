"""Sequences of categories as lines of text: bytes as characters, other tokens as letters or numbers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unsup.core.event import Event
from unsup.pictures.artist import ANOMALOUS, Artist, Sheet, bit_colours, colours, number
from unsup.pictures.images import coarser

_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LINE, _MOST_LINES, _MOST_EACH, _GUTTER = 48, 30, 4, 11
_CELL = (12, 24)  # pixels of one character

_Entry = tuple[str, list[str], NDArray[np.uint8] | None]
"""A word on the left, the tokens of an example, and their background colours."""


class Text(Artist):
    """Sequences of bytes as text; other tokens as one character or one number each.

    Args:
        event: the type of an example.
        train_x: training examples.
        whole: draw all examples in full.
        letters: the character of each token; empty if tokens are something else.
    """

    wanted = 12

    def __init__(self, event: Event, train_x: Tensor, whole: bool, letters: str = "") -> None:
        support = event.uniform
        assert support is not None
        self.real, self.length, self.levels = train_x, event.dims, support.levels
        self.letters = letters
        self.is_bytes = not letters and support.levels == 256 and _is_text(train_x[:1000])
        is_text = self.is_bytes or bool(letters)
        self.noun = "pieces of text" if is_text else "sequences"
        one = is_text or self.levels <= len(_LETTERS)
        self.cell = 1 if one else 1 + len(self._token(self.levels - 1))  # characters of a token, and a space
        self.line, self.whole = _LINE // self.cell, whole
        self.each = 1000 if whole else min(-(-self.length // self.line), _MOST_EACH)  # lines of an example

    def _token(self, v: int) -> str:
        if self.letters:
            letter = self.letters[v]
            return "↵" if letter == "\n" else letter if letter.isprintable() else "·"
        if self.is_bytes:
            return "↵" if v == 10 else chr(v) if 32 <= v < 127 else "·"
        return _LETTERS[v] if self.levels <= len(_LETTERS) else f"{v:02x}" if self.levels == 256 else str(v)

    def _tokens(self, row: Tensor) -> list[str]:
        """The tokens of one example, without padding."""
        return [self._token(int(v)) for v in row.tolist() if v == v]

    def string(self, row: Tensor) -> str:
        """One example as text."""
        return ("" if self.cell == 1 else " ").join(self._tokens(row))

    def _fits(self, n: int, wanted: int, lines: int = 1) -> int:
        """The number of ``wanted`` groups of some ``lines`` that are shown."""
        each = min(self.each, -(-self.length // self.line))
        most = 1000 if self.whole else min(wanted * lines * each, _MOST_LINES)
        return max(1, min(n, most // (lines * each)))

    def _sheet(
        self, entries: Sequence[_Entry], n: int, first: Tensor, layout: str, reading: str = "", group: int = 1
    ) -> Sheet:
        """The lines of all entries, with a gap after each ``group``; ``first`` is quoted."""
        (width, height), shown, rows = _CELL, self.each * self.line, list[_Entry]()
        apart = group > 1 or (self.each > 1 and self.length > self.line)
        for i, (word, tokens, shades) in enumerate(entries):
            if apart and i and i % group == 0:
                rows.append(("", [], None))
            for start in range(0, max(1, min(len(tokens), shown)), self.line):  # one line if it is empty
                part = slice(start, start + self.line)
                rows.append(("" if start else word, tokens[part], None if shades is None else shades[part]))
        gutter = width * max((len(word) + 1 for word, _, _ in entries if word), default=0)
        size = (gutter + min(self.length, self.line) * self.cell * width + 8, len(rows) * height + 8)
        canvas = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(canvas)
        for r, (word, tokens, shades) in enumerate(rows):
            top = 4 + r * height
            draw.text((4, top), word, fill=ANOMALOUS if "▲" in word else "#555555", font=_font())
            for c, token in enumerate(tokens):
                left, ink = 4 + gutter + c * self.cell * width, "black"
                if shades is not None:
                    right = left + max(1, self.cell - 1) * width - 1
                    draw.rectangle((left, top, right, top + height - 1), fill=tuple(shades[c].tolist()))
                    ink = "white" if shades[c] @ np.array([0.3, 0.6, 0.1]) < 128 else "black"
                draw.text((left, top), token, fill=ink, font=_font())
        layout += f"; the first is “{self.string(first)[: _MOST_EACH * _LINE]}”"
        reading += " ↵ is a new line, · any other byte that is not printable ASCII." if self.is_bytes else ""
        reading += " ↵ is a new line, · any other character that is not printable." if self.letters else ""
        reading += " Each number is a token." if self.cell > 1 else ""
        reading += f" The first {shown} of {self.length} are shown." if shown < self.length else ""
        return Sheet(coarser(canvas), n, layout, reading.strip(), plot=True)

    def _entries(self, words: Sequence[str], rows: Tensor) -> list[_Entry]:
        return [(word, self._tokens(row), None) for word, row in zip(words, rows, strict=False)]

    def examples(self, x: Tensor, beside: bool = False) -> Sheet:
        n = self._fits(len(x), 12 if beside else 16)
        above = self._entries(["data"] * max(1, n // 3), self.real) if beside else []
        below = self._entries(["sample" if beside else ""] * n, x)
        layout = f"{n} {self.noun}, one below the other"
        layout += f", under {len(above)} of the training data" if above else ""
        return self._sheet(above + below, n, x[0], layout)

    def sets(self, rows: Tensor, names: tuple[str, ...] = ()) -> Sheet:
        steps = rows.shape[1]
        n = self._fits(len(rows), 8 if names else 4, steps)
        entries = self._entries([str(step + 1) for step in range(steps)] * n, rows[:n].flatten(0, 1))
        layout = f"{n} blocks of {steps} lines of {self.noun}"
        if names:
            layout = f"{n} pairs of {self.noun}, {names[0]} (1) above {names[1]} (2)"
        return self._sheet(entries, n, rows[0, 0], layout, group=steps)

    def ranked(self, x: Tensor, words: list[str], marks: list[bool] | None = None) -> Sheet:
        n = self._fits(len(x), 16 if marks is None else 24)
        entries = self._entries([word[:_GUTTER] for word in words[:n]], x)
        return self._sheet(entries, n, x[0], f"{n} {self.noun} in this order")

    def bits(self, x: Tensor, bits: Tensor, among: Tensor, unit: str = "bits") -> Sheet:
        n = self._fits(len(x), 12)
        shades, low, high = bit_colours(bits[:n], among)
        entries: list[_Entry] = [("", self._tokens(row), shades[i]) for i, row in enumerate(x[:n])]
        ramp = colours("viridis", np.linspace(0, 1, min(self.length, self.line)))
        entries += [("", [], None), ("", [" "] * len(ramp), ramp)]
        reading = (
            f"One colour scale, the bar below: {number(low)} on its left, {number(high)} {unit} or more per token "
        )
        reading += "on its right."
        return self._sheet(entries, n, x[0], f"{n} {self.noun}, each token coloured by its {unit}", reading)


def _is_text(x: Tensor) -> bool:
    """Whether at least 85 % of the bytes are printable ASCII, new lines or tabs; NaN is padding."""
    values = x[~x.isnan()]
    printable = ((values >= 32) & (values < 127)) | (values == 10) | (values == 13) | (values == 9)
    return float(printable.float().mean()) >= 0.85


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    """The monospaced font of matplotlib."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"), 19)
