"""The keyword arguments of a constructor as its configuration: validated, normalised, and stored as JSON.

Ranges are given in annotations: ``layers: Annotated[int, AtLeast(1)] = 2``, or ``layers: Count = 2``. The same
annotations describe JSON files (`unsup.core.reading`): `check_value` also accepts typed dictionaries and dataclasses.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Protocol,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from unsup.core.errors import InputError, nearest


@dataclass(frozen=True)
class AtLeast:
    """A number greater than or equal to ``low``."""

    low: float

    def holds(self, value: Any) -> bool:
        return bool(value >= self.low)

    def __str__(self) -> str:
        return f"at least {self.low:g}"


@dataclass(frozen=True)
class Above:
    """A number greater than ``low``."""

    low: float

    def holds(self, value: Any) -> bool:
        return bool(value > self.low)

    def __str__(self) -> str:
        return f"above {self.low:g}"


@dataclass(frozen=True)
class Within:
    """A number from ``low`` to ``high``, both included; if ``below`` is set, ``high`` is excluded."""

    low: float
    high: float
    below: bool = False

    def holds(self, value: Any) -> bool:
        return bool(self.low <= value < self.high if self.below else self.low <= value <= self.high)

    def __str__(self) -> str:
        if isinstance(self.high, int) and self.high > LARGEST:
            return f"an integer of at most {math.log10(self.high):.0f} digits"
        return f"from {self.low:g} to {'below ' if self.below else ''}{self.high:g}"


@dataclass(frozen=True)
class Odd:
    """An odd number."""

    def holds(self, value: Any) -> bool:
        return bool(value % 2)

    def __str__(self) -> str:
        return "odd"


@dataclass(frozen=True)
class OrNothing:
    """None stands for NaN and infinity, which JSON cannot represent."""

    def holds(self, value: Any) -> bool:
        return True

    def __str__(self) -> str:
        return "or null"


@dataclass(frozen=True)
class NotEmpty:
    """A non-empty tuple."""

    def holds(self, value: Any) -> bool:
        return bool(value)

    def __str__(self) -> str:
        return "a non-empty tuple"


Count = Annotated[int, AtLeast(1)]
"""A count, at least 1."""
Whole = Annotated[int, AtLeast(0)]
"""A count, at least 0."""
Positive = Annotated[float, Above(0)]
"""A number above 0."""
Weight = Annotated[float, AtLeast(0)]
"""A number of at least 0, e.g. the weight of a term."""
Share = Annotated[float, Within(0, 1)]
"""A number from 0 to 1."""
Widths = tuple[Count, ...]
"""Widths of layers, each at least 1."""
Seed = Annotated[int, Within(1 - 10**100, 10**100 - 1)]
"""The seed of random numbers: any integer that can be read back from a file."""
LARGEST = 2**63 - 1
"""The largest integer of an option with a lower limit; a larger one is a mistake, and tensors cannot hold it."""
MOST = 2**20
"""The largest count or width among the options of a model. A larger one is a mistake, and building would not end."""


class Configured(Protocol):
    """An option type that can be stored as JSON, e.g. `Event` or `Part`."""

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
    """The full configuration from the given options: lists become tuples, and every value is checked.

    Raises:
        InputError: an unknown option (the message suggests the nearest one), or a value of the wrong type or range.
    """
    known = options_of(function)
    for name in given:
        if name not in known:
            raise InputError(f"{owner} has no option {name!r}{nearest(name, known)}")
    found = {
        name: check_value(f"{owner}: {name}", given[name], annotation) if name in given else default
        for name, (annotation, default) in known.items()
    }
    for name, (annotation, _) in known.items():
        if _counts(annotation) and max(_numbers(found[name]), default=0) > MOST:
            raise InputError(f"{owner}: {name}={shown(found[name])} is too large; the maximum is {MOST:,}")
    return found


def refuse_unused(owner: type, given: Mapping[str, Any], *, needs: str, got: Any) -> None:
    """Refuse options that do nothing beside another one, unless they have their defaults.

    Args:
        owner: the class whose options they are.
        given: the options with their values.
        needs: what they are for, e.g. ``objective='variational'``.
        got: the value of that other option.

    Raises:
        InputError: one of them has another value than its default.
    """
    known = options_of(vars(owner)["__init__"])
    for name, value in given.items():
        if value != known[name][1]:
            raise InputError(f"{owner.__name__}: {name}={shown(value)} is for {needs}, got {got!r}; remove this option")


def _counts(annotation: Any) -> bool:
    """Whether an option is a count: an integer with a range, alone, in a tuple, or optional."""
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0] is int
    return any(map(_counts, get_args(annotation)))


def _numbers(value: Any) -> tuple[int, ...]:
    found = value if isinstance(value, tuple) else (value,)
    return tuple(v for v in found if isinstance(v, int))


def plain(value: Any) -> Any:
    """The value of an option in JSON types; events, parts and tuples are converted.

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


def shown(value: Any) -> str:
    """``value`` as it was given, shortened if it is long."""
    if isinstance(value, int) and abs(value) >= 10**100:  # Python refuses to print integers with too many digits
        return "a number of more than 100 digits"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_SHOWN = 200


def check_value(what: str, value: Any, annotation: Any) -> Any:
    """``value`` converted to ``annotation``, or an `InputError` that says what was expected. NumPy scalars are numbers.

    >>> check_value("hidden", [500, 500], tuple[int, ...]), check_value("hidden", 64, tuple[int, ...])
    ((500, 500), (64,))
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
        if value is None and any(isinstance(allowed, OrNothing) for allowed in ranges):
            return None
        is_nan = inner is float and isinstance(value, float) and math.isnan(value)
        checked = value if is_nan else check_value(what, value, inner)  # the range check below gives a better message
        if checked is not None:
            for allowed in ranges:
                if not allowed.holds(checked):
                    raise InputError(f"{what}={shown(value)} should be {allowed}")
                if isinstance(allowed, (AtLeast, Above)) and isinstance(checked, (int, float)):
                    _check_size(what, checked)
        return checked
    if origin in (Union, types.UnionType):
        return _check_union(what, value, arguments)
    if origin is Literal:
        if value not in arguments or type(value) not in map(type, arguments):
            raise InputError(f"{what}={shown(value)} should be one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _check_tuple(what, value, arguments)
    if origin is list:
        if not isinstance(value, list):
            raise InputError(f"{what}={shown(value)} should be a list of {_name(arguments[0])}")
        return [check_value(f"{what}[{i}]", v, arguments[0]) for i, v in enumerate(value)]
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise InputError(f"{what}={shown(value)} should be a mapping of names to values")
        return {
            check_value(what, k, arguments[0]): check_value(f"{what}.{k}", v, arguments[1]) for k, v in value.items()
        }
    if hasattr(annotation, "from_json"):
        return value if isinstance(value, annotation) else annotation.from_json(value)
    if is_typeddict(annotation):
        return _check_fields(what, value, annotation)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return value if isinstance(value, annotation) else _check_dataclass(what, value, annotation)
    if annotation is float:
        return _check_float(what, value)
    if not isinstance(value, annotation) or (annotation is int and isinstance(value, bool)):
        raise InputError(f"{what}={shown(value)} should be of type {_name(annotation)}")
    return value


def _check_size(what: str, value: float) -> None:
    """Refuse numbers above a lower limit that no computation can use."""
    if isinstance(value, int) and value > LARGEST:
        raise InputError(f"{what}={shown(value)} is too large; the maximum is {LARGEST:,}")
    if value == math.inf:
        raise InputError(f"{what}={shown(value)} should be a finite number")


def _check_float(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{what}={shown(value)} should be of type float")
    try:
        found = float(value)
    except OverflowError as error:
        raise InputError(f"{what}={shown(value)} is too large for a float") from error
    if math.isnan(found):
        raise InputError(f"{what}={shown(value)} is not a number")
    return found


def _check_fields(what: str, value: Any, annotation: Any) -> dict[str, Any]:
    """A mapping with the keys of a typed dictionary; other keys are left unchanged."""
    if not isinstance(value, Mapping):
        raise InputError(f"{what}={shown(value)} should be a mapping of names to values")
    found = dict(value)
    for name, field in get_type_hints(annotation, include_extras=True).items():
        needed = get_origin(field) is not NotRequired
        if name in value:
            found[name] = check_value(f"{what}.{name}", value[name], field if needed else get_args(field)[0])
        elif needed:
            raise InputError(f"{what} has no {name!r}")
    return found


def _check_dataclass(what: str, value: Any, annotation: Any) -> Any:
    """The dataclass whose fields a mapping contains; other keys are refused."""
    if not isinstance(value, Mapping):
        raise InputError(f"{what}={shown(value)} should be a mapping of names to values")
    fields = {f.name: f for f in dataclasses.fields(annotation)}
    for name in value:
        if name not in fields:
            raise InputError(f"{what} has no field {shown(name)}{nearest(str(name), fields)}")
    for name, field in fields.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in value and not optional:
            raise InputError(f"{what} has no {name!r}")
    hints = get_type_hints(annotation, include_extras=True)
    return annotation(**{k: check_value(f"{what}.{k}", v, hints[k]) for k, v in value.items()})


def _check_union(what: str, value: Any, arguments: tuple[Any, ...]) -> Any:
    if value is None and type(None) in arguments:
        return None
    inner = [a for a in arguments if a is not type(None)]
    if len(inner) == 1:
        return check_value(what, value, inner[0])
    words = [word for a in inner if get_origin(a) is Literal for word in get_args(a)]
    numbers = [a for a in inner if get_origin(a) is not Literal]
    if words and len(numbers) == 1:  # a number, or a word in its place
        if value in words:
            return value
        if not isinstance(value, str):
            return check_value(what, value, numbers[0])
        raise InputError(f"{what}={shown(value)} is neither a number nor {' nor '.join(map(repr, words))}")
    for candidate in inner:
        if candidate is type(value):  # before a tuple with that value as its only entry
            return value
    for candidate in inner:
        try:
            return check_value(what, value, candidate)
        except InputError:
            continue
    raise InputError(f"{what}={shown(value)} should be one of {', '.join(map(_name, inner))}")


def _check_tuple(what: str, value: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis and isinstance(value, (int, float, str)):
        value = (value,)  # as on the command line
    if not isinstance(value, (tuple, list)):
        raise InputError(f"{what}={shown(value)} should be a tuple of {_name(arguments[0])}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(check_value(what, v, arguments[0]) for v in value)
    if len(value) != len(arguments):
        raise InputError(f"{what}={shown(value)} should have {len(arguments)} values")
    return tuple(check_value(what, v, a) for v, a in zip(value, arguments, strict=True))


def bare(annotation: Any) -> Any:
    """``annotation`` without its ranges and without None; several lists of words are one.

    >>> bare(Count | None)
    <class 'int'>
    >>> bare(Literal["full", "tied"] | Literal["auto"])
    typing.Literal['full', 'tied', 'auto']
    """
    if get_origin(annotation) is Annotated:
        return bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        if all(get_origin(a) is Literal for a in inner):
            return Literal[tuple(word for a in inner for word in get_args(a))]
        return bare(inner[0])
    return annotation


def words_beside_a_number(annotation: Any) -> tuple[str, ...]:
    """The words that an option takes in place of a number.

    >>> words_beside_a_number(Count | Literal["auto"]), words_beside_a_number(Positive | Literal["scott"])
    (('auto',), ('scott',))
    """
    if get_origin(annotation) not in (Union, types.UnionType) or bare(annotation) not in (int, float):
        return ()
    return tuple(w for a in get_args(annotation) if get_origin(a) is Literal for w in get_args(a))


def _name(annotation: Any) -> str:
    annotation = bare(annotation)
    return getattr(annotation, "__name__", str(annotation))
