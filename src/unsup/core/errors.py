"""Errors that repeat what was given, say what was expected and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnsupError(Exception):
    """Base of every error raised on purpose; its message is one line a user can act on."""

    exit_status = 1


class InputError(UnsupError, ValueError):
    """What the caller gave cannot be used: a name, an option, a file, a value."""

    exit_status = 2


class CapabilityError(InputError):
    """A model was asked for something it cannot do."""


class TrainingError(UnsupError, RuntimeError):
    """Training cannot go on (a NaN, a full disk); the last good checkpoint is kept."""


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
    if close and any(map(str.isalpha, name)):  # another number is no spelling
        original = next(k for k in known if k.lower() == close[0])
        return f"; did you mean {original!r}?"
    return f"; known: {', '.join(known)}" if known else ""
