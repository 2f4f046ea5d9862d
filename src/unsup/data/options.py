"""The options of all readers, parsed from their source without importing it, since readers import torch."""

from __future__ import annotations

import ast
import importlib.abc
import importlib.util
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsup.core import config
from unsup.data.catalog import CATALOG, READERS, Missing

_LOADER = "unsup.data.load:load_data"
_NAMES = {**vars(typing), **vars(config), "Path": Path, "Missing": Missing}


@dataclass(frozen=True)
class Signature:
    """The options of a reader.

    Attributes:
        target: ``"module:function"``.
        options: name → (annotation, default), as in `unsup.core.config.options_of`.
        docstring: docstring of the function; its section ``Args`` describes the options.
    """

    target: str
    options: dict[str, tuple[Any, Any]]
    docstring: str


def signatures() -> Iterator[Signature]:
    """The signatures of `load_data`, of the readers of files, and of all named sets.

    >>> next(s.options for s in signatures() if s.target.endswith(":moons"))
    {'n': (<class 'int'>, 20000)}
    """
    modules: dict[str, dict[str, ast.FunctionDef]] = {}
    for target in dict.fromkeys((_LOADER, *READERS.values(), *(entry.target for entry in CATALOG.values()))):
        module, _, function = target.partition(":")
        if module not in modules:
            modules[module] = _functions(module)
        yield _signature(target, modules[module][function])


def _functions(module: str) -> dict[str, ast.FunctionDef]:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert isinstance(spec.loader, importlib.abc.InspectLoader)
    source = spec.loader.get_source(module)
    assert source is not None
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


def _signature(target: str, function: ast.FunctionDef) -> Signature:
    arguments = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    options = {a.arg: (_value(a.annotation), _value(default)) for a, default in arguments}
    return Signature(target, options, ast.get_docstring(function) or "")


def _value(node: ast.expr | None) -> Any:
    """An annotation or a default of a reader: trusted source, with `typing` and the ranges of the library."""
    assert node is not None
    return eval(compile(ast.Expression(node), "<signature>", "eval"), dict(_NAMES))
