"""The log of a run, ``events.jsonl``: one line per log point. Every line is checked when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

from unsup.core.config import Within, check_value
from unsup.core.errors import InputError
from unsup.core.likelihood import Kind
from unsup.core.reading import parse_json


class LogPoint(TypedDict):
    """A line of the log, without the terms of the loss, which are numbers with any names."""

    step: Annotated[int, Within(0, 2**63)]
    seconds: Annotated[float, Within(0, 2**63)]
    loss: NotRequired[float]
    log_prob: NotRequired[float]
    nats: NotRequired[float]
    bits_per_dim: NotRequired[float]
    kind: NotRequired[Kind]
    validator: NotRequired[str]
    better: NotRequired[Literal["lower", "higher"]]
    value: NotRequired[float]
    symptom: NotRequired[str]
    advice: NotRequired[str]
    ended: NotRequired[str]
    finished: NotRequired[bool]


_TOGETHER = ({"bits_per_dim", "nats", "kind"}, {"validator", "better", "value"}, {"symptom", "advice"})
"""Fields that never occur alone."""


class Line(NamedTuple):
    """A log point, its line, and the number of the line in the file, counted from 0."""

    number: int
    line: bytes
    record: dict[str, Any]


def read_log(path: Path) -> tuple[list[Line], str | None]:
    """All log points, and a description of what is wrong with the file, if anything.

    A last line that was cut off by a crash is skipped and is not an error.
    """
    if not path.exists():
        return [], None
    if not path.is_file():
        return [], f"{path} is not a regular file and is ignored"
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        return [], f"{path} cannot be read ({error.strerror}) and is ignored"
    found = [Line(n, line, point) for n, line in enumerate(lines) if (point := _log_point(line)) is not None]
    lost = len(lines) - len(found)
    return found, f"{path}: {lost:,} of {len(lines):,} lines are damaged and ignored" if lost else None


def _log_point(line: bytes) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = check_value("it", parse_json(line.decode()), LogPoint)
        for name, value in found.items():
            if name not in LogPoint.__annotations__:
                check_value(name, value, float if name.endswith("loss") else _Term)
    except (InputError, UnicodeDecodeError):
        return None
    return found if all(not group & set(found) or group <= set(found) for group in _TOGETHER) else None


_Term = float | str | bool | None
