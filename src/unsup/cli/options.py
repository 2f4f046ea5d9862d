"""Command-line options made from signatures: a function's keyword arguments are its flags."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn, Optional, Union, get_args, get_origin, get_type_hints

from unsup.core.config import options_of
from unsup.core.errors import InputError, nearest


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are `InputError` and name the nearest known option."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, exit_on_error=False, **kwargs
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse all of ``arguments``; an unknown option is refused with the nearest known one."""
        try:
            found, unknown = self.parse_known_args(list(arguments))
        except argparse.ArgumentError as error:
            raise InputError(f"{error} (see {self.prog} --help)") from error
        for word in unknown:
            if word.startswith("-"):
                known = [s for s in self._option_string_actions if s.startswith("--")]
                raise InputError(f"there is no option {word.split('=')[0]!r}{nearest(word.split('=')[0], known)}")
        if unknown:
            raise InputError(f"there is one argument too many: {unknown[0]!r} (see {self.prog} --help)")
        return found


def add_constructor(parser: Parser, constructor: type, *, prefix: str, title: str) -> None:
    """One flag for each keyword-only argument of a class's constructor."""
    group = parser.add_argument_group(title)
    texts = _argument_texts(constructor.__doc__ or "")
    for name, (annotation, default) in options_of(vars(constructor)["__init__"]).items():
        _add(group, prefix + name, annotation, default, texts.get(name, ""))


def add_fields(parser: Parser, record: type, *, title: str, skip: Sequence[str] = ()) -> None:
    """One flag for each field of a dataclass."""
    group = parser.add_argument_group(title)
    texts, hints = _argument_texts(record.__doc__ or ""), get_type_hints(record)
    for field in dataclasses.fields(record):
        if field.name not in skip:
            _add(group, field.name, hints[field.name], field.default, texts.get(field.name, ""))


def given(namespace: argparse.Namespace, prefix: str = "") -> dict[str, Any]:
    """The options that were given, by name without ``prefix``."""
    return {
        k.removeprefix(prefix): v
        for k, v in vars(namespace).items()
        if k.startswith(prefix) and v is not argparse.SUPPRESS
    }


def chosen(namespace: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The options of ``names`` that were given."""
    return {k: v for k, v in vars(namespace).items() if k in names}


def _add(group: Any, name: str, annotation: Any, default: Any, text: str) -> None:
    flag = "--" + name.replace("_", "-")
    shown = "" if default is None or default == () else f" [{_show(default)}]"
    settings: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": (text + shown).replace("%", "%%")}
    group.add_argument(flag, **settings, **_type_settings(annotation))


def _type_settings(annotation: Any) -> Mapping[str, Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _type_settings(next(a for a in arguments if a is not type(None)))
    if origin is Literal:
        return {"choices": arguments, "type": type(arguments[0])}
    if origin is tuple:
        many = len(arguments) == 2 and arguments[1] is Ellipsis
        # An empty list is a choice (no hidden layers), so "*".
        return {"nargs": "*" if many else len(arguments), "type": arguments[0], "metavar": _metavar(arguments[0])}
    if annotation is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": annotation, "metavar": _metavar(annotation)}


def _metavar(annotation: Any) -> str:
    return {int: "N", float: "X", str: "NAME"}.get(annotation, "VALUE")


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _argument_texts(docstring: str) -> dict[str, str]:
    """``name: text`` entries of the ``Args:`` or ``Attributes:`` section of a docstring."""
    section = re.search(r"^ *(?:Args|Attributes):\n(.*?)(?:\n\s*\n|\Z)", docstring, re.S | re.M)
    if section is None:
        return {}
    texts: dict[str, str] = {}
    current, indent = "", None
    for line in section[1].splitlines():
        entry = re.match(r"^( +)(\w+): (.*)$", line)
        if entry and (indent is None or entry[1] == indent):
            indent, current = entry[1], entry[2]
            texts[current] = entry[3].strip()
        elif current:
            texts[current] += " " + line.strip()
    return {k: v.replace("`", "").strip().rstrip(".") for k, v in texts.items()}


@functools.cache
def data_options() -> type:
    """A record of what `unsup.load_data` may be told on the command line, with a field for each option of each reader.

    Each kind of data knows which of them it takes. All are None where nothing was said. ``unsup data`` alone downloads.
    """
    from unsup.data.options import signatures

    fields: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for reader in signatures():
        texts = _argument_texts(reader.docstring) | texts
        for name, (annotation, _) in reader.options.items():
            fields.setdefault(name, Optional[annotation])
    del fields["download"]
    record = dataclasses.make_dataclass("DataOptions", [(n, a, None) for n, a in fields.items()], frozen=True)
    record.__doc__ = "Attributes:\n" + "\n".join(f"    {name}: {texts[name]}" for name in fields)
    return record


def __getattr__(name: str) -> Any:
    # Reading signatures takes a while, and commands that read no data need none.
    if name == "DataOptions":
        return data_options()
    if name == "DATA_OPTIONS":
        return tuple(field.name for field in dataclasses.fields(data_options()))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
