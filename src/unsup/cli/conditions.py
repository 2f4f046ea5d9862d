"""What examples are conditioned on, as said on the command line: ``--given 3``, ``--given cat``, ``--given edges/``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsup.cli.options import Parser, chosen
from unsup.cli.words import is_number
from unsup.core.errors import CapabilityError, InputError, nearest
from unsup.core.registry import names, row
from unsup.data.catalog import EXAMPLE_OPTIONS

if TYPE_CHECKING:
    from torch import Tensor

    from unsup.core.event import Event
    from unsup.core.model import Model
    from unsup.data.source import Split
    from unsup.train.runs import Run


@dataclass(frozen=True)
class Conditions:
    """Conditions for examples.

    Attributes:
        values: one a row, ``(K, *given.shape)``.
        from_file: whether they are the examples of a file, each of which is one.
    """

    values: Tensor
    from_file: bool

    def for_examples(self, n: int) -> Tensor:
        """One condition for each of ``n`` examples; a single one counts for all.

        Raises:
            InputError: there are several, and not as many as examples.
        """
        if len(self.values) not in (1, n):
            raise InputError(f"--given names {len(self.values)} conditions for {n} examples; give one, or one for each")
        return self.values.expand(n, *self.values.shape[1:])


def add_given(parser: Parser, what: str) -> None:
    """The flag ``--given``; ``what`` is said in its help."""
    parser.add_argument(
        "--given",
        nargs="+",
        default=argparse.SUPPRESS,
        metavar="VALUE",
        help=f"{what}: the name or number of a class, numbers, or a file or folder with examples of the condition",
    )


def conditioned(model: Model) -> Event | None:
    """The event that a model is conditioned on, or None."""
    from unsup.core.model import IsConditional

    return model.given if isinstance(model, IsConditional) else None


def beside(model: Model, given: Tensor | None) -> dict[str, Any]:
    """The keyword ``given=`` for a verb of a model, where it has one."""
    return {} if conditioned(model) is None or given is None else {"given": given.to(model.device)}


def conditions(options: argparse.Namespace, run: Run, *, needed: bool) -> Conditions | None:
    """What ``--given`` says.

    Args:
        needed: whether a model that is conditioned on a class has to be told one.

    Raises:
        InputError: words that are no condition of this run, or none where there has to be one.
        CapabilityError: the run's model is not conditioned on anything.
    """
    words: list[str] | None = getattr(options, "given", None)
    event, name = conditioned(run.model), run.config["model"]["model"]
    if words is None:
        if event is not None and (needed or not _is_class(event)):
            raise InputError(f"this {name} is conditioned on {event}; say on which with --given {_form(event)}")
        return None
    if event is None:
        raise CapabilityError(_why_none(name))
    if not event.shape:
        return Conditions(_classes(words, event, run), from_file=False)
    if len(words) == 1 and not is_number(words[0]):
        from unsup.data import load_examples

        return Conditions(load_examples(words[0], event)[0], from_file=True)
    return Conditions(_numbers(words, event), from_file=False)


def examples_of(options: argparse.Namespace, run: Run, *, needed: bool = False) -> tuple[Split, tuple[str, ...]]:
    """The user's examples with what they are conditioned on, and their names.

    Args:
        options: with ``file``, those of `EXAMPLE_OPTIONS`, and perhaps ``given``, which counts for all.
        needed: whether a model that is conditioned on a class has to be told one.
    """
    from unsup.data import load_examples
    from unsup.data.source import Split

    given = conditions(options, run, needed=needed)
    x, names = load_examples(options.file, run.model.event, **chosen(options, EXAMPLE_OPTIONS))
    return Split(x, given=None if given is None else given.for_examples(len(x))), names


def _is_class(event: Event) -> bool:
    return not event.shape and event.is_discrete


def _form(event: Event) -> str:
    if not event.shape:
        return "CLASS" if event.is_discrete else "X"
    return "PATH (a file or folder)" if event.dims > 16 else " ".join("X" * event.dims) + ", or PATH (a file)"


def _why_none(name: str) -> str:
    if "condition" in row(name).abilities:
        return (
            f"this {name} was trained without a condition; leave out --given, or train it with one "
            f"(unsup fit DATA {name} --given label)"
        )
    able = [n for n in names() if "condition" in row(n).abilities]
    return f"{name} takes no condition; leave out --given (models that take one: {', '.join(able) or 'none'})"


def _classes(words: Sequence[str], event: Event, run: Run) -> Tensor:
    """Scalars: names of classes, or numbers."""
    import torch

    support = event.columns[0]
    labels = _labels(run) if support.kind == "nominal" else None
    if labels is not None and len(labels) != support.levels:
        labels = None
    found = [labels.index(w) if labels is not None and w in labels else _number(w, labels, event) for w in words]
    values = torch.tensor(found).to(event.dtype if not event.is_discrete else torch.int64)
    _check(values, event, words)
    return values


def _labels(run: Run) -> tuple[str, ...] | None:
    try:
        return run.data.labels
    except InputError:  # arrays in memory, or data that has gone: numbers do without
        return None


def _number(word: str, labels: tuple[str, ...] | None, event: Event) -> float:
    """A number; not that of a class where the classes' names are numbers themselves."""
    if labels is not None and (not is_number(word) or any(map(is_number, labels))):
        raise InputError(f"--given {word}: there is no such class{nearest(word, labels)}")
    if not is_number(word):
        raise InputError(f"--given {word} is no number, and the classes' names are not known; this is given {event}")
    value = float(word)
    return int(value) if event.is_discrete and value == int(value) else value


def _numbers(words: Sequence[str], event: Event) -> Tensor:
    """One vector."""
    import torch

    said = " ".join(words)
    if len(words) != event.dims or not all(map(is_number, words)):
        raise InputError(f"--given {said}: expected {_form(event)}, a {event}")
    value = torch.tensor([float(w) for w in words], dtype=torch.float64).view(1, *event.shape)
    _check(value, event, words)
    return value.to(event.dtype)


def _check(values: Tensor, event: Event, words: Sequence[str]) -> None:
    if not bool(event.contains(values).all()):
        raise InputError(f"--given {' '.join(words)} lies outside {event}; {_range(event)}")


def _range(event: Event) -> str:
    supports = dict.fromkeys(event.columns)
    said = [
        "finite numbers" if s.kind == "real" else f"whole numbers from {s.low} to {s.low + s.levels - 1}"
        for s in supports
    ]
    return f"expected {' or '.join(said)}"
