"""Write ``src/unsup/__init__.pyi``, from which editors complete the options of models: ``python scripts/stubs.py``."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import unsup
from unsup.core.config import options_of
from unsup.core.event import Event
from unsup.core.part import Part
from unsup.core.registry import model_class, names

FILE = Path(__file__).parents[1] / "src" / "unsup" / "__init__.pyi"


def text() -> str:
    """The content of the file."""
    lines = [
        "# Written by scripts/stubs.py from the registry; do not edit.",
        "from collections.abc import Mapping",
        "from typing import Any, Literal, overload",
        "",
    ]
    public = {(_home(module, name), f"{name} as {name}") for name, module in unsup._PUBLIC.items() if name != "create"}
    classes = {name: model_class(name) for name in names() if model_class(name).__module__.startswith("unsup.")}
    found = public | {("unsup.core.model", "Model")}
    for module in {cls.__module__ for cls in classes.values()}:
        found |= {(module, ", ".join(sorted(cls.__name__ for cls in classes.values() if cls.__module__ == module)))}
    lines += [f"from {module} import {name}" for module, name in sorted(found)]
    lines += ["", "__version__: str", ""]
    for name, cls in classes.items():
        lines += ["@overload", "def create(", f'    name: Literal["{name}"],', "    event: Event,", "    *,"]
        lines += ["    preset: str | None = None,", "    seed: int = 0,"]
        lines += [f"    {k}: {of(annotation)} = ...," for k, (annotation, _) in options_of(cls.__init__).items()]
        lines += [f") -> {cls.__name__}: ..."]
    lines += [
        "@overload",
        "def create(",
        "    name: str, event: Event, *, preset: str | None = None, seed: int = 0, **options: Any",
        ") -> Model: ...",
        "",
    ]
    ruff = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(FILE), "-"]
    return subprocess.run(ruff, input="\n".join(lines), capture_output=True, text=True, check=True).stdout


def _home(module: str, name: str) -> str:
    """The module that defines a public name, so that its type is known without running anything."""
    found = getattr(unsup, name)
    return getattr(found, "__module__", module) if module == "unsup.data" else module


def of(annotation: Any) -> str:
    """An annotation as it is written, ranges left out.

    >>> of(Annotated[int, "at least 1"] | None)
    'int | None'
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return of(arguments[0])
    if origin in (Union, types.UnionType):
        return " | ".join(of(a) for a in arguments)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments)).replace(chr(39), chr(34))}]"
    if origin is tuple:
        return f"tuple[{', '.join('...' if a is Ellipsis else of(a) for a in arguments)}]"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"Mapping[{', '.join(map(of, arguments))}]"
    if annotation is Part:
        return "Part | str | Mapping[str, Any]"
    if annotation is Event:
        return "Event"
    return "Any" if annotation is Any else "None" if annotation is type(None) else annotation.__name__


if __name__ == "__main__":
    FILE.write_text(text())
