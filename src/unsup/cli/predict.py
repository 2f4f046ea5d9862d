"""``unsup predict RUN FILE``: class probabilities of each example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unsup.cli.conditions import add_example_options, conditioned, examples_of
from unsup.cli.options import Parser, add_memory
from unsup.cli.show import write
from unsup.core.errors import CapabilityError
from unsup.core.registry import names, row

if TYPE_CHECKING:
    from unsup.train.runs import Run


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup predict",
        description="Predicted class and class probabilities p(y | x) of each example of a file, folder or data set.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "file", metavar="FILE", help="your examples: a file or folder, or the name of a data set (its test split)"
    )
    parser.add_out("CSV to write [standard output]", metavar="FILE")
    add_example_options(parser, arguments, given=False)
    add_memory(parser)
    options = parser.parse(arguments)

    import torch

    from unsup.core.cells import table_text
    from unsup.core.machine import fast_cpu
    from unsup.core.model import Classifies
    from unsup.core.storage import write_file
    from unsup.evaluate.likelihood import CHUNK
    from unsup.train.runs import open_model

    run = open_model(options.run)
    model, name = run.model, run.config["model"]["model"]
    if not isinstance(model, Classifies):
        able = ", ".join(n for n in names() if "predict" in row(n).abilities) or "none"
        raise CapabilityError(f"{name} is not a classifier (classifiers: {able})")
    if "condition" in row(name).abilities and conditioned(model) is None:
        raise CapabilityError(
            f"this {name} was trained without classes; train it with unsup fit DATA {name} --given label"
        )
    examples, rows = examples_of(options, run)
    with torch.no_grad(), fast_cpu(model.device):
        probability = torch.cat(
            [
                model.class_probabilities(examples.take(part).to(model.device)).double().cpu()
                for part in torch.arange(len(examples)).split(CHUNK)
            ]
        )
    classes = _class_names(run, probability.shape[1])
    lines = [("example", "class", *(f"p({c})" for c in classes))]
    for example, p in zip(rows, probability.tolist(), strict=True):
        lines.append((example, classes[p.index(max(p))], *(f"{v:.6g}" for v in p)))
    text = table_text(lines)
    if options.out is None:
        write(*text.splitlines())
        return 0
    write_file(options.out, text.encode())
    write(f"{len(rows)} examples written to {options.out}, with p(y | x) of {len(classes)} classes")
    return 0


def _class_names(run: Run, classes: int) -> tuple[str, ...]:
    """The names of the classes if the data has them, else their numbers."""
    labels = run.labels
    return labels if labels is not None and len(labels) == classes else tuple(map(str, range(classes)))
