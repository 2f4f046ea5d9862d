"""``unsup neighbours RUN FILE…``: the training examples nearest to the user's own, by the codes of a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from unsup.cli.conditions import add_example_options, examples_of
from unsup.cli.encoded import encoder_of
from unsup.cli.eval import Stages
from unsup.cli.options import Parser, add_changed_data, add_memory
from unsup.cli.show import note, table, write
from unsup.core.config import Within
from unsup.core.errors import InputError
from unsup.core.words import class_word, counted

if TYPE_CHECKING:
    from unsup.core.batch import Batch
    from unsup.train.runs import Run

_MOST, _PRINTED = 100, 20


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup neighbours",
        description="Find the training examples of a run whose codes are nearest to those of your own examples, by "
        "cosine.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="your examples: files or folders, or names of data (test split)"
    )
    parser.add_number("-n", Annotated[int, Within(1, _MOST)], "neighbours of each example [10]", default=10)
    parser.add_out("a page (.html)", metavar="FILE.html")
    add_changed_data(parser)
    add_example_options(parser, arguments, without=("changed_data",))
    add_memory(parser)
    options = parser.parse(arguments)
    if options.out is not None and Path(options.out).suffix.lower() != ".html":
        raise InputError(f"-o {options.out} should end in .html (a page)")

    import torch

    from unsup.core.storage import write_file
    from unsup.data.source import some_of
    from unsup.evaluate.probe import can_encode, encode_all
    from unsup.evaluate.retrieval import BANK, nearest_codes
    from unsup.pictures.gallery import Gallery
    from unsup.report.neighbours import distance_word, neighbours_page

    run = encoder_of(options)
    own, names = _own(options, run)
    data = run.data
    places = some_of(len(data.train), BANK)
    train = data.train.take(places)
    gaps = train.x.isnan().flatten(1).any(1) if data.event.missing else torch.zeros(len(train), dtype=torch.bool)
    if gaps.any() and not can_encode(run.model, train.take(gaps.nonzero()[:1, 0])):
        note(f"{counted(int(gaps.sum()), 'training example')} with missing entries left out: the model encodes none")
        train, places = train.take(~gaps), places[~gaps]
    with Stages() as display:
        bank = encode_all(run.model, train, lambda done, total: display.show("encoding", done, total))
        codes = torch.cat([encode_all(run.model, part) for part in own])
    rows, cosines = nearest_codes(codes, bank, options.n)
    label = None if train.label is None else train.label.tolist()

    def named(row: int) -> str:
        """A training example by its number in the training split, and its class."""
        place = int(places[row])
        return f"{place}" if label is None else f"{place} ({class_word(label[row], data.labels)})"

    heads = ("example", "nearest training examples: number and class, 1 − cosine")
    lines = [
        (name, ", ".join(f"{named(row)} {distance_word(cosine)}" for row, cosine in zip(*pair, strict=True)))
        for name, *pair in zip(names[:_PRINTED], rows.tolist(), cosines.tolist(), strict=False)
    ]
    write(*table(heads, lines))
    if len(names) > _PRINTED:
        write(f"and {counted(len(names) - _PRINTED, 'more example')}")
    if options.out is not None:
        gallery = Gallery(
            data.event,
            data.train.glance,
            lengths=None if data.train.lengths is None else data.train.lengths[: len(data.train.glance)],
            names=data.columns,
            rate=data.rate,
            letters=data.letters,
        )
        asked = torch.cat([part.x for part in own])
        title = f"{run.config['model']['model']} trained on {Path(str(data.name)).name}"
        page = neighbours_page(title, names, asked, train.x, rows, cosines, named, gallery, data.form)
        write_file(options.out, page.encode())
        write("", f"the page is {options.out}")
    return 0


def _own(options: argparse.Namespace, run: Run) -> tuple[list[Batch], list[str]]:
    """The examples of all files, and their names; with several files, the names of files before them."""
    parts, names, given = [], list[str](), {k: v for k, v in vars(options).items() if k != "changed_data"}
    for file in options.files:
        batch, own = examples_of(argparse.Namespace(**given, file=file), run, needed=True)
        if not len(batch):
            raise InputError(f"{file} has no examples")
        parts.append(batch)
        names += own if len(options.files) == 1 else (f"{Path(file).name}: {name}" for name in own)
    return parts, names
