"""A constructor's keyword arguments are its configuration: checked, normalised, JSON."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from unsup.core.errors import InputError, nearest


def options_of(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Keyword-only parameters of ``function``: name → (annotation, default).

    >>> def f(x, *, width: int = 3): ...
    >>> options_of(f)
    {'width': (<class 'int'>, 3)}
    """
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: (hints.get(p.name, Any), p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


def normalise_options(owner: str, function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The full configuration from what was given, lists made tuples, every value checked against its annotation.

    Raises:
        InputError: an unknown option (the nearest known one is named) or a value of the wrong type.
    """
    known = options_of(function)
    for name in given:
        if name not in known:
            raise InputError(f"{owner} has no option {name!r}{nearest(name, known)}")
    return {
        name: check_value(f"{owner}: {name}", given[name], annotation) if name in given else default
        for name, (annotation, default) in known.items()
    }


def check_value(what: str, value: Any, annotation: Any) -> Any:
    """``value`` as ``annotation`` asks, or an `InputError` that says what was expected.

    >>> check_value("hidden", [500, 500], tuple[int, ...])
    (500, 500)
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        inner = [a for a in arguments if a is not type(None)]
        if len(inner) == 1:
            return check_value(what, value, inner[0])
        for candidate in inner:
            try:
                return check_value(what, value, candidate)
            except InputError:
                continue
        raise InputError(f"{what}={value!r} is none of {', '.join(map(_name, inner))}")
    if origin is Literal:
        if value not in arguments:
            raise InputError(f"{what}={value!r} is none of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise InputError(f"{what}={value!r} should be a tuple of {_name(arguments[0])}")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(check_value(what, v, arguments[0]) for v in value)
        if len(value) != len(arguments):
            raise InputError(f"{what}={value!r} should hold {len(arguments)} values")
        return tuple(check_value(what, v, a) for v, a in zip(value, arguments, strict=True))
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, annotation) or (annotation in (int, float) and isinstance(value, bool)):
        raise InputError(f"{what}={value!r} should be of type {_name(annotation)}")
    return value


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", str(annotation))
