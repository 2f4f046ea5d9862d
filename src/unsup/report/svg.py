"""Inline SVG: scales, ticks, and elements whose colours are the page's CSS variables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from unsup.core.escapes import markup


@dataclass(frozen=True)
class Scale:
    """Maps numbers between ``low`` and ``high`` to positions between ``start`` and ``end``; ``log`` in ratios.

    >>> Scale(0, 10, 100, 200)(5), Scale(1, 100, 0, 10, log=True)(10)
    (150.0, 5.0)
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    most: int = 6

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = 0.5 if high == low else (value - low) / (high - low)
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """At most ``most`` round numbers (at most five of a logarithmic scale)."""
        return log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high, self.most)


_MOST = 1e300  # differences of such numbers are finite


def fitted(values: Sequence[float], start: float, end: float, *, decades: bool = False, room: float = 0.06) -> Scale:
    """A scale that contains ``values`` with some room on both sides, with ``decades`` logarithmic if they span some."""
    low, high = (max(-_MOST, min(_MOST, v)) for v in (min(values), max(values)))
    if decades and high > 20 * low > 0:
        low = max(low, 1 / _MOST)
        factor = high**room / low**room
        return Scale(max(low / factor, 1 / _MOST), min(high * factor, _MOST), start, end, log=True)
    more = (high - low) * room or abs(high) * 0.1 or 1.0
    return Scale(low - more, high + more, start, end)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most ``most`` round numbers within ``low`` … ``high``.

    >>> ticks(0.0, 1.0), ticks(13.0, 97.0)
    ([0.0, 0.25, 0.5, 0.75, 1.0], [20.0, 40.0, 60.0, 80.0])
    """
    if not high > low:
        return [low]
    size = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (1, 2, 2.5, 5, 10, 20):
        first, last = math.ceil(low / (step * size) - 1e-9), math.floor(high / (step * size) + 1e-9)
        if last - first + 1 <= most:
            return [i * step * size for i in range(first, last + 1)]
    return []


def log_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most ``most`` of 1, 2, 5, 10, … or of the powers of ten within ``low`` … ``high``.

    >>> log_ticks(0.9, 12)
    [1.0, 2.0, 5.0, 10.0]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**d for d in decades for m in mantissas if low <= m * 10.0**d <= high]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]


def tick_text(value: float) -> str:
    """A tick with as many places as it needs.

    >>> tick_text(0.1 + 0.2), tick_text(-5000.0)
    ('0.3', '−5,000')
    """
    return f"{round(value, 9):,.10g}".replace("-", "−")


def number(value: float, places: int | None = None, digits: int = 3) -> str:
    """A number for people: thousands separated, a true minus, ``places`` or enough for ``digits`` digits (at most 4).

    >>> number(-0.12345), number(12345.6), number(86.81), number(0.5, 2)
    ('−0.123', '12,346', '86.8', '0.50')
    """
    if places is None:
        size = math.floor(math.log10(abs(value))) if value and math.isfinite(value) else digits - 1
        places = min(4, max(0, digits - 1 - size))
    text = f"{value:,.{places}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) != 0 else text.replace("-", "")


def element(tag: str, content: str = "", **attributes: object) -> str:
    """``<tag …>content</tag>``; ``content`` is markup, attributes are escaped, ``_`` in names is ``-``.

    >>> element("circle", cx=1.234, r=3, class_="dot")
    '<circle cx="1.2" r="3" class="dot"/>'
    """
    parts = [tag]
    for name, value in attributes.items():
        shown = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
        parts.append(f'{name.rstrip("_").replace("_", "-")}="{markup(shown)}"')
    return f"<{' '.join(parts)}>{content}</{tag}>" if content else f"<{' '.join(parts)}/>"


def text(content: str, x: float, y: float, class_: str = "", anchor: str = "start") -> str:
    return element("text", markup(content), x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def shape(tag: str, points: Iterable[tuple[float, float]], class_: str) -> str:
    """A polyline or a polygon."""
    return element(tag, points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)


def drawing(ident: str, width: float, height: float, title: str, description: str, parts: Sequence[str]) -> Markup:
    """A whole SVG that scales with the page, with a title and a description for screen readers."""
    return Markup(
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-labelledby="{ident}-t {ident}-d">'
        f'<title id="{ident}-t">{markup(title)}</title><desc id="{ident}-d">{markup(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )
