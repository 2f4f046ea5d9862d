"""Conditions of examples on the command line: ``--given 3``, ``--given cat``, ``--given edges/``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unsup.cli.options import Parser, add_data, chosen
from unsup.cli.words import is_number
from unsup.core.errors import CapabilityError, InputError, nearest
from unsup.core.registry import names, row
from unsup.data.catalog import EXAMPLE_OPTIONS

if TYPE_CHECKING:
    from torch import Tensor

    from unsup.core.batch import Batch
    from unsup.core.event import Event
    from unsup.core.model import Model
    from unsup.train.runs import Run

_AS_TRAINED = ("sheet", "resize", "alpha")
"""Options of the training data with which the files of the user are read too."""
_FEW = 16  # the most numbers that are accepted on the command line


@dataclass(frozen=True)
class Conditions:
    """Conditions for examples.

    Attributes:
        values: one condition per row, ``(K, *given.shape)``.
        from_file: whether they are the examples of a file.
    """

    values: Tensor
    from_file: bool

    def for_examples(self, n: int) -> Tensor:
        """One condition for each of ``n`` examples; a single condition is used for all.

        Raises:
            InputError: there are several, but not one per example.
        """
        if len(self.values) not in (1, n):
            raise InputError(
                f"--given has {len(self.values)} conditions for {n} examples; expected one, or one for each"
            )
        return self.values.expand(n, *self.values.shape[1:])


def add_given(parser: Parser, what: str, *short: str) -> None:
    """The flag ``--given`` and its short forms; ``what`` is part of its help text."""
    parser.add_argument(
        "--given",
        *short,
        dest="given",
        nargs="+",
        default=argparse.SUPPRESS,
        metavar="VALUE",
        help=f"{what}: the name or number of a class, numbers, or a file or folder with examples of the condition",
    )


def add_example_options(
    parser: Parser, arguments: Sequence[str], *, given: bool = True, without: Sequence[str] = ()
) -> None:
    """The options for reading the examples in the second word.

    Args:
        parser: parser that receives the flags.
        arguments: the command line.
        given: whether to include conditions.
        without: options that the command does not have.
    """
    from unsup.cli.options import DATA_OPTIONS

    if given:
        add_given(parser, "the condition of all examples, or the source of their conditions, as in unsup fit")
    skipped = [name for name in DATA_OPTIONS if name not in EXAMPLE_OPTIONS or name in ("given", *without)]
    add_data(parser, arguments, place=1, skip=skipped)


def conditioned(model: Model) -> Event | None:
    """The event that a model is conditioned on, or None."""
    from unsup.core.model import IsConditional

    return model.given if isinstance(model, IsConditional) else None


def conditions(options: argparse.Namespace, run: Run, *, needed: bool) -> Conditions | None:
    """The conditions of ``--given``.

    Args:
        needed: whether a model that is conditioned on a class needs one.

    Raises:
        InputError: the value is not a condition of this run, or a required condition is missing.
        CapabilityError: the model of the run has no condition.
    """
    words: list[str] | None = getattr(options, "given", None)
    event, name = conditioned(run.model), run.config["model"]["model"]
    if words is None:
        if event is not None and (needed or not _is_class(event)):
            raise InputError(f"this {name} is conditioned on {event}; pass the condition with --given {_form(event)}")
        return None
    if event is None:
        raise CapabilityError(_why_none(name))
    labels = _labels(run, event)
    if event.shape and len(words) == 1 and not is_number(words[0]):
        return Conditions(_examples(words[0], event, run), from_file=True)
    return Conditions(_values(words, event, labels), from_file=False)


def _examples(path: str, event: Event, run: Run) -> Tensor:
    """The examples of a file as conditions, read with the options of the training data."""
    from unsup.data.load import load_examples, options_taken

    record = run.config["data"]
    as_ = None if record is None else record["options"].get("as_")
    known = {"resize", "alpha", "channels", "length", "as_", "data_dir"} & options_taken(path, as_=as_)
    options = {} if record is None else {k: v for k, v in record["options"].items() if k in known}
    return load_examples(path, event, **options)[0]


def examples_of(
    options: argparse.Namespace, run: Run, *, needed: bool = False, own: Event | None = None, cover: bool = False
) -> tuple[Batch, tuple[str, ...]]:
    """The examples of the user with their conditions and names.

    ``--given`` is one condition for all examples, or a source as in `load_data`: ``label``, columns, or other data. By
    default, conditions are read from the same source as those of the training data.

    Args:
        options: namespace with ``file`` and `EXAMPLE_OPTIONS`.
        needed: whether a model that is conditioned on a class needs one.
        own: event of the examples, if it is not that of the model.
        cover: of a series, whether every row is in a window, of which the last may overlap the one before it.

    Raises:
        InputError: examples or conditions do not fit the run, or conditions are missing.
        CapabilityError: conditions for a model without a condition.
    """
    from unsup.data.load import load_batch

    event, name = conditioned(run.model), run.config["model"]["model"]
    gaps = run.gaps if own is None else None
    own = own or run.model.event
    words: list[str] | None = getattr(options, "given", None)
    reading = reading_of(options, run)
    if event is None:
        if words is not None:
            raise CapabilityError(_why_none(name))
        return load_batch(options.file, own, form=run.form, gaps=gaps, cover=cover, **reading)
    labels = _labels(run, event)
    columns = _columns(run)
    if words is not None and _are_values(words, labels):
        batch, names = load_batch(options.file, own, form=run.form, gaps=gaps, cover=cover, **reading, given=columns)
        given = _values(words, event, labels)
        return replace(batch, given=given.expand(len(batch), *event.shape)), names
    where = columns if words is None else tuple(words)
    batch, names = load_batch(
        options.file,
        own,
        condition=event,
        labels=labels or (),
        form=run.form,
        gaps=gaps,
        cover=cover,
        **reading,
        given=where,
    )
    if batch.given is None and (needed or not _is_class(event)):
        raise InputError(f"this {name} is conditioned on {event}; pass the condition with --given {_form(event)}")
    return batch, names


def reading_of(options: argparse.Namespace, run: Run) -> dict[str, Any]:
    """The options with which the file of the user is read: given ones, else some of those of the training data."""
    reading = {k: v for k, v in chosen(options, EXAMPLE_OPTIONS).items() if k != "given"}
    return like_training(options.file, run) | reading


def like_training(file: str, run: Run) -> dict[str, Any]:
    """The options with which the training data was read, as far as they are read in the same way from any file."""
    from unsup.data.load import options_taken

    record = run.config["data"]
    used = {} if record is None else {k: v for k in _AS_TRAINED if (v := record["options"].get(k)) is not None}
    return {k: v for k, v in used.items() if k in options_taken(file)} if used else {}


def _columns(run: Run) -> tuple[str, ...]:
    """The columns of the run's conditions; empty if they come from elsewhere."""
    record = run.config["data"]
    found = None if record is None else record["options"].get("given")
    return tuple(found) if isinstance(found, list) else ()


def _are_values(words: Sequence[str], labels: tuple[str, ...] | None) -> bool:
    """Whether the words are a condition, and not a source of conditions."""
    return all(is_number(word) or word in (labels or ()) for word in words)


def _is_class(event: Event) -> bool:
    return not event.shape and event.is_discrete


def _form(event: Event) -> str:
    if not event.shape:
        return "CLASS" if event.is_discrete else "X"
    if event.layout != "vector" or event.dims > _FEW:
        return "PATH (a file or folder)"
    return " ".join("X" * event.dims) + ", or PATH (a file)"


def _why_none(name: str) -> str:
    if "condition" in row(name).abilities:
        return (
            f"this {name} was trained without a condition; remove --given, or train it with a condition "
            f"(unsup fit DATA {name} --given label)"
        )
    able = [n for n in names() if "condition" in row(n).abilities]
    return f"{name} does not support conditions; remove --given (models that do: {', '.join(able) or 'none'})"


def _values(words: Sequence[str], event: Event, labels: tuple[str, ...] | None) -> Tensor:
    """Scalars, one per word, or one vector: ``(K, *event.shape)``.

    Raises:
        InputError: words that are not a class or number, too many or too few words, or numbers outside the event.
    """
    import torch

    said = " ".join(words)
    if event.shape and (len(words) != event.dims or not all(map(is_number, words))):
        raise InputError(f"--given {said}: expected {_form(event)}, a {event}")
    numbers = [labels.index(w) if labels is not None and w in labels else _number(w, event, labels) for w in words]
    values = torch.tensor(numbers, dtype=torch.float64).view(-1, *event.shape)
    if not bool(event.contains(values).all()):
        supports = dict.fromkeys(event.columns)
        allowed = [
            "finite numbers" if s.kind == "real" else f"integers from {s.low} to {s.low + s.levels - 1}"
            for s in supports
        ]
        raise InputError(f"--given {said} is outside {event}; expected {' and '.join(allowed)}")
    return values.to(event.dtype)


def _labels(run: Run, event: Event) -> tuple[str, ...] | None:
    """The names of the classes of a condition, if it is a class and they are known."""
    if not _is_class(event):
        return None
    labels = run.labels
    return labels if labels is not None and len(labels) == event.columns[0].levels else None


def _number(word: str, event: Event, labels: tuple[str, ...] | None) -> float:
    """A number, but not a class number if the names of the classes are numbers."""
    if labels is not None and (not is_number(word) or any(map(is_number, labels))):
        raise InputError(f"--given {word}: there is no such class{nearest(word, labels)}")
    if not is_number(word):
        raise InputError(f"--given {word} is not a number, and the classes have no names; the condition is {event}")
    return float(word)
