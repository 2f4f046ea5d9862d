"""``unsup decode RUN FILE``: decode codes."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsup.cli.conditions import add_given, conditioned, conditions
from unsup.cli.options import Parser, add_memory
from unsup.cli.sample import OUT_HELP, check_output, write_examples
from unsup.core.errors import CapabilityError, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from unsup.train.runs import Run


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="unsup decode", description="Decode codes to examples.")
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("codes", metavar="FILE", help="codes from unsup encode: .npz with the name z, or .csv")
    parser.add_out(OUT_HELP, metavar="FILE", required=True)
    add_given(parser, "condition of all examples, in place of the conditions in the file")
    add_memory(parser)
    options = parser.parse(arguments)

    import torch

    from unsup.core.model import CanDecode
    from unsup.evaluate.conditions import beside
    from unsup.evaluate.likelihood import CHUNK
    from unsup.train.runs import open_model

    run = open_model(options.run)
    check_output(options.out, run)
    model = run.model
    if not isinstance(model, CanDecode):
        raise CapabilityError(f"{run.config['model']['model']} does not decode; unsup models lists models that do")
    arrays = _read(options.codes)
    z = torch.from_numpy(arrays["z"]).to(model.dtype)
    model.check_codes(z)
    given = _given(options, run, arrays, len(z))
    examples = []
    with torch.no_grad():
        for rows in torch.arange(len(z)).split(CHUNK):
            condition = None if given is None else given[rows].to(model.device)
            examples.append(model.decode(z[rows].to(model.device), **beside(model, condition)).cpu())
    x = torch.cat(examples)
    write_examples(x, run, options.out, "decoded example")
    return 0


def _read(path: str) -> dict[str, NDArray[Any]]:
    """``z``, and ``given`` if it exists."""
    from unsup.data.arrays import read_npz

    if path.lower().endswith(".csv") and Path(path).is_file():
        return {"z": _read_table(Path(path))}
    if not Path(path).is_file() or not zipfile.is_zipfile(path):
        what = "is not an .npz or .csv file" if Path(path).is_file() else "does not exist"
        raise InputError(f"{path} {what}; expected a file of codes from unsup encode")
    found = {name: array for name, array in read_npz(Path(path)).items() if name in ("z", "given")}
    if "z" not in found or any(array.dtype.kind not in "buif" for array in found.values()):
        raise InputError(f"{path} has no codes; expected an .npz file with z, from unsup encode")
    return found


def _read_table(path: Path) -> NDArray[Any]:
    """The columns z1, z2, …."""
    import numpy as np
    import pyarrow as pa

    from unsup.data.delimited import read_delimited

    columns = read_delimited(path).columns
    names = list(itertools.takewhile(columns.__contains__, (f"z{d}" for d in itertools.count(1))))
    if not names or any(
        not pa.types.is_floating(columns[n].type) and not pa.types.is_integer(columns[n].type) for n in names
    ):
        raise InputError(f"{path} has no columns z1, z2, … of numbers; expected a file of codes from unsup encode")
    return np.stack([columns[name].to_numpy().astype(np.float64) for name in names], 1)


def _given(options: Any, run: Run, arrays: dict[str, NDArray[Any]], n: int) -> Tensor | None:
    """The conditions of ``n`` codes: the given one, or those in the file."""
    import torch

    event = conditioned(run.model)
    if event is None or "given" not in arrays or hasattr(options, "given"):
        found = conditions(options, run, needed=True)
        return None if found is None else found.for_examples(n)
    given = torch.from_numpy(arrays["given"])
    if tuple(given.shape) != (n, *event.shape) or not bool(event.contains(given).all()):
        raise InputError(f"{options.codes} does not contain {n} conditions for {event}; encode again with this run")
    return given
