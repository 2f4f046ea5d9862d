"""A constructor's keyword arguments are its configuration: checked, normalised, JSON.

Ranges stand in annotations: ``layers: Annotated[int, AtLeast(1)] = 2``, or ``layers: Count = 2``.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from unsup.core.errors import InputError, nearest


@dataclass(frozen=True)
class AtLeast:
    """A number that is ``low`` or more."""

    low: float

    def holds(self, value: Any) -> bool:
        return bool(value >= self.low)

    def __str__(self) -> str:
        return f"at least {self.low:g}"


@dataclass(frozen=True)
class Above:
    """A number that is more than ``low``."""

    low: float

    def holds(self, value: Any) -> bool:
        return bool(value > self.low)

    def __str__(self) -> str:
        return f"above {self.low:g}"


@dataclass(frozen=True)
class Within:
    """A number from ``low`` to ``high``, both included; ``high`` itself is not where ``below`` is set."""

    low: float
    high: float
    below: bool = False

    def holds(self, value: Any) -> bool:
        return bool(self.low <= value < self.high if self.below else self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"from {self.low:g} to {'below ' if self.below else ''}{self.high:g}"


@dataclass(frozen=True)
class Odd:
    """An odd number."""

    def holds(self, value: Any) -> bool:
        return bool(value % 2)

    def __str__(self) -> str:
        return "odd"


@dataclass(frozen=True)
class NotEmpty:
    """A tuple with an entry or more."""

    def holds(self, value: Any) -> bool:
        return bool(value)

    def __str__(self) -> str:
        return "a tuple that is not empty"


Count = Annotated[int, AtLeast(1)]
"""A number of things, 1 or more."""
Positive = Annotated[float, Above(0)]
"""A number above 0."""
Weight = Annotated[float, AtLeast(0)]
"""A number from 0 on, e.g. the weight of a term."""
Share = Annotated[float, Within(0, 1)]
"""A number from 0 to 1."""
Widths = tuple[Count, ...]
"""Widths of layers, each 1 or more."""


class Configured(Protocol):
    """A type of option with a form in JSON, e.g. `Event` or `Part`."""

    @classmethod
    def from_json(cls, record: Any) -> Any: ...

    def to_json(self) -> Any: ...


def options_of(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Keyword-only parameters of ``function``: name → (annotation, default).

    >>> def f(x, *, width: int = 3): ...
    >>> options_of(f)
    {'width': (<class 'int'>, 3)}
    """
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: (hints.get(p.name, Any), p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


def normalise_options(owner: str, function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The full configuration from what was given, lists made tuples, every value checked against its annotation.

    Raises:
        InputError: an unknown option (the nearest known one is named) or a value of the wrong type or out of range.
    """
    known = options_of(function)
    for name in given:
        if name not in known:
            raise InputError(f"{owner} has no option {name!r}{nearest(name, known)}")
    return {
        name: check_value(f"{owner}: {name}", given[name], annotation) if name in given else default
        for name, (annotation, default) in known.items()
    }


def plain(value: Any) -> Any:
    """An option's value in the types of JSON: events, parts and tuples included.

    >>> plain({"hidden": (8, 8)})
    {'hidden': [8, 8]}
    """
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value


def check_value(what: str, value: Any, annotation: Any) -> Any:
    """``value`` as ``annotation`` asks, or an `InputError` that says what was expected. NumPy scalars are numbers.

    >>> check_value("hidden", [500, 500], tuple[int, ...])
    (500, 500)
    >>> check_value("layers", 0, Count)
    Traceback (most recent call last):
    unsup.core.errors.InputError: layers=0 should be at least 1
    """
    if type(value).__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin is Annotated:
        inner, *ranges = arguments
        checked = check_value(what, value, inner)
        if checked is not None:
            for allowed in ranges:
                if not allowed.holds(checked):
                    raise InputError(f"{what}={value!r} should be {allowed}")
        return checked
    if origin in (Union, types.UnionType):
        return _check_union(what, value, arguments)
    if origin is Literal:
        if value not in arguments:
            raise InputError(f"{what}={value!r} is none of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _check_tuple(what, value, arguments)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise InputError(f"{what}={value!r} should be a mapping of names to values")
        return {
            check_value(what, k, arguments[0]): check_value(f"{what}.{k}", v, arguments[1]) for k, v in value.items()
        }
    if hasattr(annotation, "from_json"):
        return value if isinstance(value, annotation) else annotation.from_json(value)
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, annotation) or (annotation in (int, float) and isinstance(value, bool)):
        raise InputError(f"{what}={value!r} should be of type {_name(annotation)}")
    return value


def _check_union(what: str, value: Any, arguments: tuple[Any, ...]) -> Any:
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


def _check_tuple(what: str, value: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)):
        raise InputError(f"{what}={value!r} should be a tuple of {_name(arguments[0])}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(check_value(what, v, arguments[0]) for v in value)
    if len(value) != len(arguments):
        raise InputError(f"{what}={value!r} should hold {len(arguments)} values")
    return tuple(check_value(what, v, a) for v, a in zip(value, arguments, strict=True))


def bare(annotation: Any) -> Any:
    """``annotation`` without its ranges and without None.

    >>> bare(Count | None)
    <class 'int'>
    """
    if get_origin(annotation) is Annotated:
        return bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return bare(next(a for a in get_args(annotation) if a is not type(None)))
    return annotation


def _name(annotation: Any) -> str:
    annotation = bare(annotation)
    return getattr(annotation, "__name__", str(annotation))
