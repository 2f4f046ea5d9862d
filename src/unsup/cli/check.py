"""``unsup check``: run the model checks on a model, a trained run, or the whole registry."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from unsup.cli.options import Parser, add_changed_data, add_memory
from unsup.cli.show import write
from unsup.core.config import Seed
from unsup.core.errors import InputError
from unsup.core.registry import names, row

_EXAMPLES = 64  # training examples of a run that are used for the checks


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup check",
        description="Check the mathematical properties (laws) that a model's abilities imply. A law that the method "
        "cannot satisfy is listed as excepted, with the reason. The exit status is 1 if a law fails.",
    )
    parser.add_argument("what", metavar="NAME_OR_RUN", nargs="?", help="a model's name or a run folder")
    parser.add_argument("--all", action="store_true", help="check all models of the registry")
    parser.add_number("--seed", Seed, "seed of the parameters and data of the checks [0]", default=0)
    add_changed_data(parser)
    add_memory(parser)
    options = parser.parse(arguments)
    if options.all == (options.what is not None):
        raise InputError("expected a model's name, a run folder, or --all")
    if options.all:
        return max(_check_name(name, options.seed) for name in names())
    return _check_run(options) if Path(options.what).is_dir() else _check_name(options.what, options.seed)


def _check_name(name: str, seed: int) -> int:
    from unsup.testing import check_registry_name

    row(name)
    status = 0
    for report in check_registry_name(name, seed=seed):
        write(*report.lines)
        status = max(status, 0 if report.ok else 1)
    return status


def _check_run(options: Namespace) -> int:
    from unsup.testing import check_model
    from unsup.train.runs import open_run

    run = open_run(options.what, changed_data=options.changed_data, data=options.data)
    report = check_model(run.model, run.data, seed=options.seed)
    write(*report.lines)
    return 0 if report.ok else 1
