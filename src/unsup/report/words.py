"""Options of models in words, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unsup.core.event import Event


def plural(count: float, noun: str) -> str:
    """A number with its noun.

    >>> plural(1, "minute"), plural(1.5, "minute"), plural(1200, "row"), plural(0.04, "image"), plural(0, "class")
    ('1 minute', '1.5 minutes', '1,200 rows', '0.04 images', '0 classes')
    """
    shown = f"{count:,.0f}" if count >= 10 or count == int(count) else f"{count:.2g}"
    many = noun + ("es" if noun.endswith(("s", "x", "ch")) else "s")
    return f"{shown} {noun if shown == '1' else many}"


def told(value: Any) -> str:
    """An option as a run folder records it: numbers and names as they are, events and models in models in words.

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
