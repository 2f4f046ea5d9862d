"""``unsup complete RUN FILE``: draw what is missing in examples, given the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsup.cli.conditions import add_example_options, examples_of
from unsup.cli.options import Parser, add_memory, chosen
from unsup.cli.sample import OUT_HELP, Clock, check_output, write_examples
from unsup.cli.show import write
from unsup.core.config import Seed, Share
from unsup.core.errors import CapabilityError, InputError
from unsup.core.registry import names, row
from unsup.core.words import counted

if TYPE_CHECKING:
    import argparse

    from torch import Tensor

    from unsup.core.event import Event
    from unsup.train.runs import Run

_COMPLETE = 1  # key of the noise
_TOP = 0.5
_READING = ("decimal", "header")
_TEXT = (".csv", ".tsv", ".csv.gz")


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup complete",
        description="Draw the missing cells of a table, or the lower rows of images, from their distribution given the "
        "rest. Everything else is kept as it is, and all examples are written in their order.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("file", metavar="FILE", help="your examples: a table with missing cells, or images")
    parser.add_out(OUT_HELP, metavar="FILE", required=True)
    parser.add_number("--seed", Seed, "random seed [0]", default=0)
    parser.add_number(
        "--top", Share, f"images: the share of rows that is known, from the top [{_TOP}]", metavar="SHARE"
    )
    add_example_options(parser, arguments, without=("missing",))
    add_memory(parser)
    options = parser.parse(arguments)

    import torch

    from unsup.core.batch import Batch
    from unsup.core.model import CanComplete, keyed_generator
    from unsup.core.steps import heard_by
    from unsup.evaluate.conditions import beside, over_examples
    from unsup.evaluate.samples import CHUNK
    from unsup.train.progress import Progress
    from unsup.train.runs import open_model

    run = open_model(options.run)
    model, name = run.model, run.config["model"]["model"]
    if not isinstance(model, CanComplete):
        able = ", ".join(n for n in names() if "complete" in row(n).abilities)
        raise CapabilityError(f"{name} cannot complete examples (models that can: {able})")
    check_output(options.out, run)
    if Path(options.out).resolve() == Path(options.file).expanduser().resolve():
        raise InputError(f"-o {options.out} is the file to complete, which is not overwritten; choose another name")
    is_known = _known_part(options, model.event)
    examples, _ = examples_of(options, run, own=_with_gaps(model.event))
    known = torch.cat([is_known(part) for part in examples.x.split(CHUNK)])
    if bool(known.all()):
        mend = "use a smaller --top" if model.event.is_image else "leave the cells empty that are to be drawn"
        raise InputError(f"{options.file} has nothing to complete, since every value is known; {mend}")
    complete: Callable[..., Tensor] = model.complete

    with Progress("auto", unit="example", start=0) as display:
        clock = Clock(len(examples), display, "example")

        def completed(position: int, part: Batch) -> Tensor:
            generator = keyed_generator(options.seed, _COMPLETE, position, device=model.device)
            return complete(part.x, is_known(part.x), generator=generator, **beside(model, part.given)).cpu()

        with heard_by(clock.on_step):
            x = over_examples(model, examples, CHUNK, completed, clock.on_chunk)
    _write(x, ~known, run, options)
    return 0


def _known_part(options: argparse.Namespace, event: Event) -> Callable[[Tensor], Tensor]:
    """The function of examples that tells which entries are known: the upper rows of images, else those with a value.

    Raises:
        InputError: ``--top`` for data that is not images.
    """
    import torch

    if not event.is_image:
        if options.top is not None:
            raise InputError(f"--top {options.top:g} is for images, but this run is of {event}; remove it")
        return lambda x: ~x.isnan()
    height = event.shape[1]
    top = round((_TOP if options.top is None else options.top) * height)
    upper = (torch.arange(height) < top)[:, None]
    return lambda x: upper.to(x.device).expand(len(x), *event.shape)


def _with_gaps(event: Event) -> Event:
    """The event of examples that may have missing entries; real ones keep the precision of the file."""
    if event.is_image:
        return event
    return replace(event, missing=True, precision=event.precision if event.is_discrete else "float64")


def _write(x: Tensor, gaps: Tensor, run: Run, options: argparse.Namespace) -> None:
    """Write completed examples; the other cells of a CSV file are copied as text, with all of its columns."""
    from unsup.core.storage import write_file
    from unsup.data.catalog import TABLES_BY_SUFFIX
    from unsup.data.columns import TableForm
    from unsup.data.tables import filled

    form, path, out = run.form, Path(options.file).expanduser(), Path(options.out)
    is_csv = path.is_file() and path.name.lower().endswith(TABLES_BY_SUFFIX["a .csv table"])
    if not (isinstance(form, TableForm) and not form.window and is_csv and out.name.lower().endswith(_TEXT)):
        write_examples(x, run, options.out, "completed example")
        return
    reading: dict[str, Any] = chosen(options, _READING)
    write_file(out, filled(path, form, x, gaps, out, **reading))
    some = f"{counted(int(gaps.sum()), 'missing cell')} in {counted(int(gaps.any(1).sum()), 'row')}"
    write(f"{some} of {options.file} drawn from {run.path}; all {counted(len(x), 'row')} in {options.out}")
