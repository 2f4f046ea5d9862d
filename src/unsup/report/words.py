"""Options, records and environments in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unsup.core.event import Event
from unsup.core.words import counted


def told(value: Any) -> str:
    """An option of a run: numbers and names as they are, events and models inside models in words.

    >>> told([64, 64]), told(None), told({"shape": [], "support": [["nominal", 10, 0]], "layout": "scalar"})
    ('64 64', 'None', 'nominal(10)')
    >>> told({"name": "made", "options": {"hidden": [8], "masks": 2}, "frozen": True})
    'made (hidden 8, masks 2), frozen'
    """
    if isinstance(value, Mapping) and "support" in value:
        return str(Event.from_json(value))
    if isinstance(value, Mapping) and isinstance(value.get("options"), Mapping) and "name" in value:
        options = ", ".join(f"{k} {told(v)}" for k, v in value["options"].items())
        return str(value["name"]) + (f" ({options})" if options else "") + (", frozen" if value.get("frozen") else "")
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {told(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(told, value))
    return str(value)


def capital(text: str) -> str:
    """The text with an initial capital."""
    return text[:1].upper() + text[1:]


def plainly(value: Any, between: str = "; ", after: str = ": ") -> str:
    """A record in words, without empty fields.

    >>> plainly({"name": "digits", "notes": [], "sizes": {"train": 1257, "test": 360}})
    'name: digits; sizes: train 1,257, test 360'
    """
    if isinstance(value, Mapping) and "support" in value:
        return str(Event.from_json(value))
    if isinstance(value, Mapping):
        kept = {str(k).replace("_", " "): v for k, v in value.items() if v not in (None, "", [], {})}
        return between.join(f"{k}{after}{plainly(v, ', ', ' ')}" for k, v in kept.items())
    if isinstance(value, list):
        return ", ".join(plainly(v, ", ", " ") for v in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def environment_text(environment: Mapping[str, Any]) -> str:
    """Versions and the machine, in one line."""
    names = {"unsup": "unsup ", "python": "Python ", "torch": "PyTorch "}
    known = {k: v for k, v in environment.items() if v not in (None, "", [], {}) and k != "time"}
    known = {k: counted(v, "thread") if k == "threads" and isinstance(v, int) else v for k, v in known.items()}
    return ", ".join(f"{names.get(k, '')}{v}" for k, v in known.items())
