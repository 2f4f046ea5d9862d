"""Options, data and paths as words of a command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flags(options: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Options, of the types of JSON, as words of a command line.

    >>> flags({"batch_size": 5, "compile": False, "hidden": (8, 8), "label": None})
    ['--batch-size', '5', '--no-compile', '--hidden', '8', '8']
    >>> flags({"prior": {"name": "made", "options": {"masks": 4}, "frozen": True}}, "model.")
    ['--model.prior', 'made', '--model.prior.masks', '4', '--model.prior.frozen']
    """
    words = []
    for name, value in options.items():
        flag = prefix + name.rstrip("_").replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, (list, tuple)):
            words += [f"--{flag}", *map(str, value)]
        elif isinstance(value, Mapping):  # a model in the model
            words += [f"--{flag}", value["name"], *flags(value["options"], f"{flag}.")]
            words += [f"--{flag}.frozen"] if value["frozen"] else []
        else:
            words += [f"--{flag}", str(value)]
    return words


def data_words(record: Mapping[str, Any] | None) -> list[str]:
    """Name and options of the data of a run, from its configuration."""
    return ["DATA"] if record is None else [path_word(record["name"]), *flags(record["options"])]


def path_word(path: object) -> str:
    """A path that no command takes for an option.

    >>> path_word("-runs/a b"), path_word("runs/a b")
    ('./-runs/a b', 'runs/a b')
    """
    return f"./{path}" if str(path).startswith("-") else str(path)
