"""Command-line options from signatures: the keyword arguments of a function are its flags."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from unsup.cli.show import put
from unsup.cli.words import Words, split_words
from unsup.core import memory
from unsup.core.config import Positive, bare, check_value, options_of, words_beside_a_number
from unsup.core.errors import InputError, nearest
from unsup.core.escapes import visible
from unsup.core.targets import file_target, folder_target, new_target

_NUMBER = re.compile(r"-(\d|\.\d|inf|nan).*")


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `InputError` and suggests the nearest known option.

    Positional words may be anywhere between the flags.

    Args:
        mends: advice about unknown flags, or about all flags with a prefix that ends in a dot.
        **kwargs: those of `argparse.ArgumentParser`.
    """

    def __init__(self, *, mends: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, exit_on_error=False, **kwargs
        )
        self.mends = dict(mends or {})
        self.annotations: dict[str, tuple[str, Any]] = {}  # flag and annotation of each destination
        self.targets: dict[str, Callable[[str], Path]] = {}  # how the values of -o are checked
        self._negative_number_matcher = _NUMBER  # the pattern of argparse has no exponents

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: Any = None) -> None:
        put(file or sys.stderr, *message.splitlines())

    @property
    def flags(self) -> list[str]:
        """Every long flag."""
        return [s for s in self._option_string_actions if s.startswith("--")]

    def split(self, arguments: Sequence[str]) -> Words:
        """Split the words into flags with values and positionals, by the flags known so far."""
        return split_words(arguments, self._option_string_actions, self._get_positional_actions())

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse ``arguments``; for an unknown option, the error suggests the nearest known one.

        Raises:
            InputError: an unknown option, a value of the wrong type or range, or a missing or unexpected argument.
        """
        words = self.split(arguments)
        for flag in words.unknown:
            known = [k for k in self.mends if flag == k or (k.endswith(".") and flag.startswith(k))]
            mend = f"; {self.mends[known[0]]}" if known else nearest(flag, self.flags)
            if Path(flag).exists():
                mend = f"; the file is ./{flag}"
            raise InputError(f"there is no option {flag!r}{mend}")
        try:
            found, rest = self.parse_known_args(words.ordered)
        except argparse.ArgumentError as error:
            raise InputError(f"{error} (see {self.prog} --help)") from error
        if rest and rest[0] in words.ended:
            flag = words.ended[rest[0]]
            kind = "whole numbers" if self._option_string_actions[flag].type is int else "numbers"
            raise InputError(f"{flag} takes {kind}, not {rest[0]!r} (see {self.prog} --help)")
        if rest:
            raise InputError(f"unexpected argument {rest[0]!r} (see {self.prog} --help)")
        for name in self.annotations.keys() & vars(found).keys():
            flag, annotation = self.annotations[name]
            setattr(found, name, check_value(flag, getattr(found, name), annotation))
        for name, check in self.targets.items():
            if getattr(found, name) is not None:
                check(getattr(found, name))  # before any work
        if getattr(found, "max_memory", None) is not None:
            memory.ask(max(1, int(min(found.max_memory, 1e9) * 1e9)))
        return found

    def add_number(self, flag: str, annotation: Any, help: str, *, default: Any = None, metavar: str = "N") -> None:
        """A flag with one number; the annotation states its type and range.

        Args:
            flag: e.g. ``--seed``.
            annotation: as in constructors, e.g. `unsup.core.config.Count`.
            help: its help text.
            default: its value if it is not given.
            metavar: its value in the help text.
        """
        action = self.add_argument(flag, type=bare(annotation), default=default, metavar=metavar, help=help)
        self.annotations[action.dest] = (flag, annotation if default is not None else annotation | None)

    def add_out(
        self,
        help: str,
        *,
        metavar: str,
        folder: bool = False,
        either: bool = False,
        required: bool = False,
        default: str | None = None,
    ) -> None:
        """The flag ``-o``: a file, a folder, or a file or new folder, that can be written, checked before any work."""
        action = self.add_argument("-o", "--out", required=required, default=default, metavar=metavar, help=help)
        self.targets[action.dest] = folder_target if folder else new_target if either else file_target


def add_memory(parser: Parser) -> None:
    """The flag ``--max-memory``, which applies to the whole command."""
    parser.add_number(
        "--max-memory",
        Positive,
        "memory limit for data and models; larger ones are refused [the free memory of the machine]",
        metavar="GB",
    )


def add_changed_data(parser: Parser) -> None:
    """The flags ``--data`` and ``--changed-data`` of commands that read the data of a run."""
    parser.add_argument(
        "--data", metavar="PATH", help="the data of the run, if it has moved since training; its content is compared"
    )
    parser.add_argument(
        "--changed-data", action="store_true", help="continue even if the data of the run has changed since training"
    )


def flag_of(name: str) -> str:
    """The flag of an option: ``--batch-size`` of ``batch_size``, ``--as`` of ``as_``."""
    return "--" + name.rstrip("_").replace("_", "-")


def add_options(
    parser: Parser,
    options: Mapping[str, tuple[Any, Any]],
    texts: Mapping[str, str],
    *,
    prefix: str = "",
    title: str,
    short: bool = False,
) -> None:
    """One flag per option (name → annotation and default) whose type can be written on the command line.

    Args:
        parser: parser that receives the flags.
        options: the options.
        texts: their help texts.
        prefix: of the flags.
        title: of the flags in the help text.
        short: also add the flags without the prefix, except those that the parser already has.
    """
    group = parser.add_argument_group(title)
    for name, (annotation, default) in options.items():
        more = [flag_of(name)] if short and flag_of(name) not in parser.flags else []
        _add(parser, group, prefix + name, annotation, default, texts.get(name, ""), more)


def add_constructor(parser: Parser, constructor: type, *, prefix: str, title: str) -> None:
    """One flag per keyword-only argument of the constructor of a class."""
    options = options_of(vars(constructor)["__init__"])
    add_options(parser, options, argument_texts(constructor.__doc__ or ""), prefix=prefix, title=title)


def add_fields(
    parser: Parser, record: type, *, title: str, skip: Sequence[str] = (), defaults: Mapping[str, Any] | None = None
) -> None:
    """One flag per field of a dataclass; ``defaults`` are shown in place of those of the fields."""
    hints, shown = get_type_hints(record, include_extras=True), defaults or {}
    fields = [f for f in dataclasses.fields(record) if f.name not in skip]
    options = {f.name: (hints[f.name], shown.get(f.name, f.default)) for f in fields}
    add_options(parser, options, argument_texts(record.__doc__ or ""), title=title)


def add_data(parser: Parser, arguments: Sequence[str], *, place: int = 0, skip: Sequence[str] = ()) -> None:
    """The flags of data. A help text lists those that the data on the command line takes, if it exists.

    Args:
        parser: parser that receives the flags.
        arguments: the command line.
        place: the position of the data among the positional words.
        skip: options that the command does not have.
    """
    words = parser.split(arguments)
    named = [*words.positionals, *words.loose][place : place + 1]
    taken = _taken(named[0]) if named and words.has("-h", "--help") else None
    title = "data" if taken is None else f"data: {visible(named[0])}"
    unused = [] if taken is None else [f.name for f in dataclasses.fields(data_options()) if f.name not in taken]
    add_fields(parser, data_options(), title=title, skip=[*skip, *unused])


def _taken(word: str) -> set[str] | None:
    """The names of the options of data; None if there is no such data."""
    from unsup.data.load import load_data
    from unsup.data.readers import exists, place_of

    try:
        return {*place_of(word, single=True).options, *options_of(load_data)} if exists(word) else None
    except InputError:  # files of that kind are not read
        return None


def under(namespace: argparse.Namespace, prefix: str) -> dict[str, Any]:
    """The given options whose names start with ``prefix``, without the prefix."""
    return {k.removeprefix(prefix): v for k, v in vars(namespace).items() if k.startswith(prefix)}


def chosen(namespace: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The given options among ``names``."""
    return {k: v for k, v in vars(namespace).items() if k in names}


def _add(parser: Parser, group: Any, name: str, annotation: Any, default: Any, text: str, more: Sequence[str]) -> None:
    settings = _type_settings(annotation)
    if settings is None:
        return
    shown = "" if default is None or default == () else f" [{_show(default)}]"
    about = {"dest": name, "default": argparse.SUPPRESS, "help": (text + shown).replace("%", "%%")}
    group.add_argument(flag_of(name), *more, **about, **settings)
    parser.annotations[name] = (flag_of(name), annotation)


def _type_settings(annotation: Any) -> Mapping[str, Any] | None:
    """The argparse settings for an option of that type; None if it has no command-line form (events, mappings)."""
    words = words_beside_a_number(annotation)
    if words:
        number = bare(annotation)
        return {"type": _or_word(number), "metavar": "|".join((_metavar(number), *words))}
    annotation = bare(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {"choices": arguments, "type": type(arguments[0])}
    if origin is tuple:
        entry = _type_settings(arguments[0])
        if entry is None or "type" not in entry or "nargs" in entry:
            return None
        many = len(arguments) == 2 and arguments[1] is Ellipsis
        # An empty list is valid (no hidden layers), hence "*".
        return {**entry, "nargs": "*", "action": "extend"} if many else {**entry, "nargs": len(arguments)}
    if annotation is bool:
        return {"action": argparse.BooleanOptionalAction}
    if annotation in (int, float, str):
        return {"type": annotation, "metavar": _metavar(annotation)}
    return None


def _or_word(number: type) -> Callable[[str], Any]:
    """What reads a number, and leaves other words as they are, for `check_value`."""

    def read(word: str) -> Any:
        try:
            return number(word)
        except ValueError:
            return word

    return read


def _metavar(annotation: Any) -> str:
    return {int: "N", float: "X", str: "NAME"}.get(annotation, "VALUE")


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def argument_texts(docstring: str) -> dict[str, str]:
    r"""``name: text`` entries of the ``Args:`` or ``Attributes:`` section of a docstring; ``a, b: text`` is of both.

    >>> argument_texts("Args:\n    width: of a layer.\n    first, last: the rates.")
    {'width': 'of a layer', 'first': 'the rates', 'last': 'the rates'}
    """
    section = re.search(r"^ *(?:Args|Attributes):\n(.*?)(?:\n\s*\n|\Z)", docstring, re.S | re.M)
    if section is None:
        return {}
    texts: dict[str, str] = {}
    current: list[str] = []
    indent = None
    for line in section[1].splitlines():
        entry = re.match(r"^( +)(\**\w+(?:, \**\w+)*): (.*)$", line)
        if entry and (indent is None or entry[1] == indent):
            indent, current = entry[1], entry[2].split(", ")
            texts |= dict.fromkeys(current, entry[3].strip())
        else:
            texts |= {name: f"{texts[name]} {line.strip()}" for name in current}
    return {k: v.replace("`", "").strip().rstrip(".") for k, v in texts.items()}


@functools.cache
def data_options() -> type:
    """A record of the `unsup.load_data` options on the command line, with one field per option of each reader.

    Each kind of data knows which options it supports. The defaults are None. Only ``unsup data`` downloads.
    """
    from unsup.data.options import signatures

    fields: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for reader in signatures():
        texts = argument_texts(reader.docstring) | texts
        for name, (annotation, _) in reader.options.items():
            fields.setdefault(name, annotation | None)
    del fields["download"]
    record = dataclasses.make_dataclass("DataOptions", [(n, a, None) for n, a in fields.items()], frozen=True)
    record.__doc__ = "Attributes:\n" + "\n".join(f"    {name}: {texts[name]}" for name in fields)
    return record


def __getattr__(name: str) -> Any:
    # Reading signatures is slow, and commands that read no data do not need them.
    if name == "DataOptions":
        return data_options()
    if name == "DATA_OPTIONS":
        return tuple(field.name for field in dataclasses.fields(data_options()))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
