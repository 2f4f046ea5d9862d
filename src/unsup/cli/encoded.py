"""What the commands about codes share: the run with an encoder, and the data that is encoded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from unsup.cli.options import DATA_OPTIONS, Parser, add_changed_data, add_data, chosen, flag_of
from unsup.cli.show import note_unfinished
from unsup.core.errors import CapabilityError, InputError

if TYPE_CHECKING:
    from unsup.data.source import Data, Split
    from unsup.train.runs import Run

_SKIPPED = ("unlabelled", "domain_b", "changed_data", "labels", "label_seed")


def add_encoded_data(parser: Parser, arguments: Sequence[str]) -> None:
    """RUN, DATA and the options of data."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "file", metavar="DATA", nargs="?", help="other data of the same kind, by name or path [the data of the run]"
    )
    add_changed_data(parser)
    add_data(parser, arguments, place=1, skip=_SKIPPED)


def encoder_of(options: argparse.Namespace) -> Run:
    """The run; with DATA, also a saved model.

    Raises:
        CapabilityError: its model has no codes.
    """
    from unsup.core.model import CanEncode
    from unsup.train.runs import open_model, open_run

    if getattr(options, "file", None) is not None:
        run = open_model(options.run)
    else:
        run = open_run(options.run, changed_data=options.changed_data, data=options.data)
    if not isinstance(run.model, CanEncode):
        raise CapabilityError(
            f"{run.config['model']['model']} has no codes (unsup models lists the models that can encode)"
        )
    note_unfinished(run)
    return run


def data_of(options: argparse.Namespace, run: Run) -> Data:
    """The data that is encoded, as raw data of the event of the model.

    Raises:
        InputError: it has another shape, other values or other words than the training data.
    """
    from unsup.data.events import as_event
    from unsup.data.load import load_data

    given = chosen(options, [name for name in DATA_OPTIONS if name not in _SKIPPED])
    if options.file is None:
        if given:
            raise InputError(f"{flag_of(next(iter(given)))} is an option of DATA; pass DATA, or remove it")
        return run.data
    data, event = load_data(options.file, **given), run.model.event
    if run.form is not None and data.form is not None and run.form.meaning != data.form.meaning:
        raise InputError(
            f"{options.file}: its words or categories have other numbers than in the training data of {options.run}; "
            "encode it with unsup encode, which matches them, and use the codes as data"
        )
    columns = data.columns or ()

    def raw(split: Split, name: str) -> Split:
        x = as_event(split.x, data.event, event, f"{options.file} ({name})", columns)
        return replace(split, examples=x)

    train, validation, test = raw(data.train, "train"), raw(data.validation, "validation"), raw(data.test, "test")
    return replace(data, event=event, train=train, validation=validation, test=test)
