"""The options of a model and of its parts as flags: ``--model.prior made --model.prior.hidden 64``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from unsup.cli.options import Parser, add_options, argument_texts, flag_of, under
from unsup.core.config import bare, options_of
from unsup.core.part import Part
from unsup.core.registry import model_class

MODEL = "model."
_FROZEN = "frozen"


class ModelOptions:
    """The flags of a model; they are added to a parser.

    Args:
        parser: parser that receives the flags.
        name: name of the model.
        arguments: the command line, which may have parts and a preset.
    """

    def __init__(self, parser: Parser, name: str, arguments: Sequence[str]) -> None:
        self._parser, self._arguments = parser, arguments
        self._parts: dict[str, Part] = {}
        preset = model_class(name).presets.get(parser.split(arguments).value("--preset") or "", {})
        self._add(name, MODEL, f"options of {name}", preset)

    def given(self, namespace: argparse.Namespace) -> dict[str, Any]:
        """The given options, by the names of the constructor arguments."""
        return self._gathered(under(namespace, MODEL), MODEL)

    def _add(self, name: str, prefix: str, title: str, changed: Mapping[str, Any]) -> None:
        cls = model_class(name)
        options = options_of(vars(cls)["__init__"])
        texts = argument_texts(cls.__doc__ or "")
        add_options(self._parser, options, texts, prefix=prefix, title=title)
        for option, (annotation, default) in options.items():
            if bare(annotation) is Part:
                self._add_part(prefix + option, changed.get(option, default), texts.get(option, ""))

    def _add_part(self, path: str, default: Any, text: str) -> None:
        flag = flag_of(path)
        group = self._parser.add_argument_group(f"{flag}, a model inside the model")
        about = f"{text + ': ' if text else ''}a model's name, or a run folder with its initial parameters"
        group.add_argument(flag, dest=path, default=argparse.SUPPRESS, metavar="MODEL_OR_RUN", help=about)
        named = self._parser.split(self._arguments).value(flag)
        part = default if named is None else Part.from_json(named)
        if part is None:
            self._parser.mends[f"{flag}."] = f"first choose the model of this option with {flag} NAME"
            return
        part = Part.from_json(part) if isinstance(part, str) else part
        self._parts[path] = part
        group.add_argument(
            f"{flag}.{_FROZEN}",
            dest=f"{path}.{_FROZEN}",
            default=argparse.SUPPRESS,
            action=argparse.BooleanOptionalAction,
            help="do not train its parameters",
        )
        if part.run is None:  # the options of a run are fixed by its training
            self._add(part.name, f"{path}.", f"options of {part.name} as {flag}", part.options)

    def _gathered(self, given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in dict.fromkeys(key.partition(".")[0] for key in given):
            part = self._parts.get(prefix + name)
            if part is None:
                found[name] = given[name]
                continue
            below = {k.removeprefix(f"{name}."): v for k, v in given.items() if k.startswith(f"{name}.")}
            frozen = below.pop(_FROZEN, part.frozen)
            options = {**part.options, **self._gathered(below, f"{prefix}{name}.")}
            found[name] = Part(part.name, options, frozen, part.run)
        return found
