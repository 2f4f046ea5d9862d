"""Command-line options made from signatures: a function's keyword arguments are its flags."""

from __future__ import annotations

import argparse
import dataclasses
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from unsup.core.config import options_of
from unsup.core.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """What `unsup.load_data` may be told on the command line; each kind of data knows which of them it takes.

    Attributes:
        limit: use only that many training examples.
        without: class that is left out of every split.
        resize: side in pixels that images are resized to.
        label: column that holds the classes of a table.
        drop: columns of a table to leave out.
        length: numbers in one window of text, bytes or sound.
        n: examples of a procedural set.
        channels: 1 or 3, of the procedural pictures.
        symbols: of the procedural sequences.
        data_dir: folder with the standard sets, instead of $UNSUP_DATA.
        domain_b: name or path of a second domain, for models that translate.
    """

    limit: int | None = None
    without: str | None = None
    resize: int | None = None
    label: str | None = None
    drop: tuple[str, ...] = ()
    length: int | None = None
    n: int | None = None
    channels: int | None = None
    symbols: int | None = None
    data_dir: str | None = None
    domain_b: str | None = None


DATA_OPTIONS = tuple(f.name for f in dataclasses.fields(DataOptions))


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
