"""Counts, times and lists in words, for messages and pages."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: float, noun: str, plural: str | None = None) -> str:
    """A number with its noun, which is plural for all but one.

    >>> counted(1, "minute"), counted(2500, "step"), counted(0.5, "minute"), counted(2, "class", "classes")
    ('1 minute', '2,500 steps', '0.5 minutes', '2 classes')
    """
    shown = f"{number:,}" if isinstance(number, int) else f"{number:,g}"
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """A time as people say it.

    >>> duration(0.523), duration(75), duration(4000)
    ('0.52 s', '1 min 15 s', '1 h 06 min')
    """
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def listed(names: Sequence[str], last: str = "and") -> str:
    """Names as a list within a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def class_word(kind: int, names: Sequence[str] | None) -> str:
    """The name of a class, or its number where it has none.

    >>> class_word(1, ("cat", "dog")), class_word(2, ("cat", "dog")), class_word(2, None)
    ('dog', '2', '2')
    """
    return names[kind] if names is not None and 0 <= kind < len(names) else str(kind)
