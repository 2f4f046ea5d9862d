"""Sequences of categories as lines of text: bytes as characters, other tokens as letters or numbers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unsup.core.event import Event
from unsup.pictures.artist import ANOMALOUS, Artist, Sheet, bits_range, number, viridis
from unsup.pictures.images import coarser

_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LINE, _MOST_LINES, _MOST_EACH, _GUTTER = 48, 30, 4, 11
_CELL = (12, 24)  # pixels of one character


_Entry = tuple[str, list[str], NDArray[Any] | None]
"""A word on the left, the tokens of an example, and their background colours."""


class Text(Artist):
    """Sequences of bytes as text; other tokens as one character or one number each."""

    wanted = 12

    def __init__(self, event: Event, train_x: Tensor, whole: bool) -> None:
        support = event.uniform
        assert support is not None
        self.length, self.levels = event.dims, support.levels
        self.is_bytes = is_text(event, train_x)
        self.noun = "pieces of text" if self.is_bytes else "sequences"
        one = self.is_bytes or self.levels <= len(_LETTERS)
        self.cell = 1 if one else 1 + len(self._token(self.levels - 1))  # characters of a token, and a space
        self.line = _LINE // self.cell
        self.lines, self.each = (1000, 1000) if whole else (_MOST_LINES, min(-(-self.length // self.line), _MOST_EACH))

    def _token(self, v: int) -> str:
        if self.is_bytes:
            return "↵" if v == 10 else chr(v) if 32 <= v < 127 else "·"
        return _LETTERS[v] if self.levels <= len(_LETTERS) else f"{v:02x}" if self.levels == 256 else str(v)

    def _tokens(self, row: Tensor) -> list[str]:
        """The tokens of one example, without padding."""
        return [self._token(int(v)) for v in row.tolist() if v == v]

    def string(self, row: Tensor) -> str:
        """One example as text."""
        return ("" if self.cell == 1 else " ").join(self._tokens(row))

    @property
    def _note(self) -> str:
        note = " ↵ is a new line, · any other byte that is not printable ASCII." if self.is_bytes else ""
        note += " Each number is a token." if self.cell > 1 else ""
        shown = self.each * self.line
        return note + (f" The first {shown} of {self.length} are shown." if shown < self.length else "")

    def _fits(self, n: int, wanted: int, lines: int = 1) -> int:
        each = min(self.each, -(-self.length // self.line))
        return max(1, min(n, wanted if self.lines == _MOST_LINES else n, self.lines // (lines * each)))

    def _draw(self, entries: Sequence[_Entry], group: int = 1) -> Image.Image:
        """Draw the lines of all entries, with a gap after each ``group``."""
        width, height = _CELL
        gutter = width * max((len(word) + 1 for word, _, _ in entries if word), default=0)
        rows: list[_Entry] = []
        apart = group > 1 or (self.each > 1 and self.length > self.line)
        for i, (word, tokens, colours) in enumerate(entries):
            for start in range(
                0, max(1, min(len(tokens), self.each * self.line)), self.line
            ):  # one line if it is empty
                part = None if colours is None else colours[start : start + self.line]
                rows.append((word if start == 0 else "", tokens[start : start + self.line], part))
            if apart and (i + 1) % group == 0 and i + 1 < len(entries):
                rows.append(("", [], None))
        size = (gutter + min(self.length, self.line) * self.cell * width + 8, len(rows) * height + 8)
        canvas = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(canvas)
        for r, (word, tokens, colours) in enumerate(rows):
            top = 4 + r * height
            draw.text((4, top), word, fill=ANOMALOUS if "▲" in word else "#555555", font=_font())
            for c, token in enumerate(tokens):
                left, ink = 4 + gutter + c * self.cell * width, "black"
                if colours is not None:
                    right = left + max(1, self.cell - 1) * width - 1
                    draw.rectangle((left, top, right, top + height - 1), fill=tuple(colours[c].tolist()))
                    ink = "white" if colours[c] @ np.array([0.3, 0.6, 0.1]) < 128 else "black"
                draw.text((left, top), token, fill=ink, font=_font())
        return coarser(canvas)

    def _sheet(
        self, entries: Sequence[tuple[str, Tensor]], n: int, layout: str, group: int = 1, said: str = ""
    ) -> Sheet:
        lines = [(word, self._tokens(row), None) for word, row in entries]
        first = self.string(entries[-n if group == 1 else 0][1])[: _MOST_EACH * _LINE]
        said = (said + self._note).strip()
        return Sheet(self._draw(lines, group), n, f"{layout}; the first is “{first}”", said, plot=True)

    def examples(self, x: Tensor, real: Tensor | None = None) -> Sheet:
        n = self._fits(len(x), 16 if real is None else 12)
        above = [] if real is None else [("data", row) for row in real[: max(1, n // 3)]]
        word = "" if real is None else "sample"
        layout = f"{n} {self.noun}, one below the other"
        layout += f", under {len(above)} of the training data" if above else ""
        return self._sheet([*above, *((word, row) for row in x[:n])], n, layout)

    def pairs(self, first: Tensor, second: Tensor, names: tuple[str, str]) -> Sheet:
        n = self._fits(min(len(first), len(second)), 8, 2)
        entries = [(word, t[i]) for i in range(n) for word, t in zip("12", (first, second), strict=True)]
        return self._sheet(entries, n, f"{n} pairs of {self.noun}, {names[0]} (1) above {names[1]} (2)", 2)

    def paths(self, rows: Tensor) -> Sheet:
        n, steps = self._fits(len(rows), 4, rows.shape[1]), rows.shape[1]
        entries = [(str(s + 1), rows[r, s]) for r in range(n) for s in range(steps)]
        return self._sheet(entries, n, f"{n} blocks of {steps} lines of {self.noun}", steps)

    def ranked(self, x: Tensor, words: list[str], marks: list[bool] | None = None) -> Sheet:
        n = self._fits(len(x), 16 if marks is None else 24)
        left = words if marks is None else ["▲ anomaly" if mark else "" for mark in marks]
        said = "On the left: the nats." if marks is None else "Anomalies have a triangle and a word on the left."
        entries = [(word[:_GUTTER], row) for word, row in zip(left[:n], x[:n], strict=True)]
        return self._sheet(entries, n, f"{n} {self.noun} in this order", said=said)

    def bits(self, x: Tensor, bits: Tensor) -> Sheet:
        n = self._fits(len(x), 12)
        low, high = bits_range(bits[:n])
        colours = viridis(((bits[:n] - low) / (high - low)).numpy())
        entries = [("", self._tokens(row), colours[i]) for i, row in enumerate(x[:n])]
        ramp = viridis(np.linspace(0, 1, min(self.length, self.line)))
        image = self._draw([*entries, ("", [], None), ("", [" "] * len(ramp), ramp)])
        reading = (
            f"One colour scale, the bar below: violet {number(low)}, yellow {number(high)} bits or more per token."
        )
        layout = f"{n} {self.noun}, each token coloured by its bits"
        return Sheet(image, n, layout, reading + self._note, plot=True)


def is_text(event: Event, train_x: Tensor) -> bool:
    """Whether the sequences are bytes of which at least 85 % are printable ASCII, new lines or tabs."""
    support = event.uniform
    if support is None or support.kind != "nominal" or support.levels != 256 or len(event.shape) != 1:
        return False
    values = train_x[:1000].flatten()
    values = values[~values.isnan()]
    printable = ((values >= 32) & (values < 127)) | (values == 10) | (values == 13) | (values == 9)
    return float(printable.float().mean()) >= 0.85


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    """The monospaced font of matplotlib."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"), 19)
