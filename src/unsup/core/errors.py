"""Errors. A message repeats what was given, and says what was expected and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnsupError(Exception):
    """Base class of all errors of the library. The message is one line that tells a user what to do."""

    exit_status = 1


class InputError(UnsupError, ValueError):
    """The input cannot be used: a name, an option, a file or a value."""

    exit_status = 2


class CapabilityError(InputError):
    """The model does not support the requested operation."""


class TrainingError(UnsupError, RuntimeError):
    """Training cannot continue (a NaN, a full disk); the last good checkpoint is kept."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known name closest to ``name``, or the whole list when none is close.

    >>> nearest("reelnvp", ["made", "realnvp"])
    "; did you mean 'realnvp'?"
    >>> nearest("zzz", ["made", "vae"])
    '; known: made, vae'
    >>> nearest("12", ["0", "1", "2"])
    '; known: 0, 1, 2'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=1, cutoff=0.5)
    if close and any(map(str.isalpha, name)):  # another number is not a misspelling
        original = next(k for k in known if k.lower() == close[0])
        return f"; did you mean {original!r}?"
    return f"; known: {', '.join(known)}" if known else ""


def kind_of(value: object) -> str:
    """The type of ``value`` as messages name it.

    >>> kind_of([1]), kind_of(1)
    ('a list', 'an int')
    """
    name = type(value).__name__
    if name == "ndarray":
        return "a NumPy array"
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
