"""The sampling options of the model of a run: ``--sample.NAME``, or ``--NAME`` if no other flag has that name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from unsup.cli.options import Parser, add_options, argument_texts, under
from unsup.cli.words import Words
from unsup.core.errors import InputError, nearest

if TYPE_CHECKING:
    import argparse

    from unsup.train.runs import Run

_KNOB = "sample."
_NOT_OPTIONS = ("generator", "given", "lengths", "on_step")
_USUAL = ("temperature", "top-k", "top-p")


def parse_for_run(make: Callable[[Run | None], Parser], arguments: Sequence[str]) -> argparse.Namespace | None:
    """Parse a command line whose first word is a run that defines some of the flags; None if it asks for help.

    Args:
        make: the parser, without a run or with it.
    """
    words = make(None).split(arguments)
    run = _run(words)
    parser = make(run)
    if words.has("-h", "--help"):
        parser.print_help()
        return None
    if run is not None:
        _check(parser.split(arguments).unknown, run, "complete" in parser.prog)
    return parser.parse(arguments)


def add_knobs(parser: Parser, run: Run, *, complete: bool = False) -> None:
    """The sampling options of the run's model, or those of its completions."""
    known, name = _knobs(run, complete), run.config["model"]["model"]
    if known:
        from unsup.core.model import CanSample
        from unsup.core.registry import model_class

        cls = model_class(name)
        texts = argument_texts(cls.sample.__doc__ or "") if issubclass(cls, CanSample) else {}
        add_options(parser, known, texts, prefix=_KNOB, title=f"sampling of {name}", short=True)


def knobs_in(options: argparse.Namespace) -> dict[str, Any]:
    """The sampling options that were given."""
    return under(options, _KNOB)


def _knobs(run: Run, complete: bool) -> dict[str, tuple[Any, Any]]:
    from unsup.core.config import options_of
    from unsup.core.model import CanComplete, knobs
    from unsup.core.registry import model_class

    cls = model_class(run.config["model"]["model"])
    if not complete:
        return knobs(cls)
    if not issubclass(cls, CanComplete):
        return {}
    return {k: v for k, v in options_of(cls.complete).items() if k not in _NOT_OPTIONS}


def _check(unknown: Sequence[str], run: Run, complete: bool) -> None:
    """Refuse options of sampling that the model of the run does not have."""
    name = run.config["model"]["model"]
    known = [f"--{_KNOB}{k.replace('_', '-')}" for k in _knobs(run, complete)]
    for flag in unknown:
        if flag.startswith((f"--{_KNOB}", f"--no-{_KNOB}")):
            hint = nearest(flag, known) if known else "; its sampling has no options"
            raise InputError(f"{name} has no option {flag!r}{hint}")
        if flag in [f"--{usual}" for usual in _USUAL]:
            hint = f"; its sampling has {', '.join(known)}" if known else "; its sampling has no options"
            raise InputError(f"{name} has no option {flag!r}{hint}")


def _run(words: Words) -> Run | None:
    """The run: the positional word, or a word after a flag that only the run defines."""
    from unsup.train.runs import Run, open_model

    if words.positionals:
        return open_model(words.positionals[0])
    there = [word for word in words.loose if Run(word).exists]
    return open_model(there[-1]) if there else None
