"""``unsup encode RUN DATA``: encode examples."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from unsup.cli.conditions import add_example_options, examples_of
from unsup.cli.options import Parser, add_memory
from unsup.cli.show import note_unfinished, write
from unsup.core.cells import table_text
from unsup.core.errors import CapabilityError, InputError


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup encode",
        description="Encode examples; the codes z are written to an .npz or .csv file with the names of the examples.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("file", metavar="DATA", help="your examples, or the name of a data set (its test split)")
    parser.add_out(".npz, or .csv for spreadsheets", metavar="FILE", required=True)
    add_example_options(parser, arguments)
    add_memory(parser)
    options = parser.parse(arguments)
    if not options.out.lower().endswith((".npz", ".csv")):
        raise InputError(f"{options.out} should end in .npz or .csv")

    import numpy as np
    import torch

    from unsup.core.model import CanEncode
    from unsup.core.storage import write_file
    from unsup.evaluate.conditions import batches, beside
    from unsup.evaluate.likelihood import CHUNK
    from unsup.train.runs import open_model

    run = open_model(options.run)
    model = run.model
    if not isinstance(model, CanEncode):
        raise CapabilityError(f"{run.config['model']['model']} cannot encode (unsup models lists the models that can)")
    note_unfinished(run)
    examples, names = examples_of(options, run, needed=True)
    with torch.no_grad():
        parts = (batch.to(model.device) for batch in batches(examples, CHUNK))
        z = torch.cat([model.encode(part.x, **beside(model, part.given)).cpu() for part in parts])
    if options.out.lower().endswith(".csv"):
        header = ["example", *(f"z{d + 1}" for d in range(z.shape[1]))]
        is_whole = bool(((z == z.round()) & (z.abs() < 2**31)).all())
        numbers = z.long() if is_whole else z  # numbers of codes are written as such: 3, not 3.0
        rows = ([name, *codes] for name, codes in zip(names, numbers.tolist(), strict=True))
        write_file(options.out, table_text([header, *rows]).encode())
        write(f"{len(z)} codes of {z.shape[1]} numbers written to {options.out}")
        return 0
    arrays: dict[str, Any] = {"z": z.numpy(), "names": np.array(names)}
    if examples.given is not None:
        arrays["given"] = examples.given.numpy()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_file(options.out, buffer.getvalue())
    write(f"{len(z)} codes of {z.shape[1]} numbers written to {options.out}")
    return 0
