"""``unsup score RUN FILE``: the log-likelihood of each example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from unsup.cli.conditions import add_example_options, examples_of
from unsup.cli.options import Parser, add_memory
from unsup.cli.show import write
from unsup.core.config import Count, Seed
from unsup.core.errors import CapabilityError


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup score",
        description="Log-likelihood of each example of a file, folder or data set; of each text or document.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "file", metavar="FILE", help="your examples: a file or folder, or the name of a data set (its test split)"
    )
    parser.add_out("CSV to write [standard output]", metavar="FILE")
    parser.add_number(
        "--importance-samples",
        Count,
        "importance samples per example of a bound; above 1, effort of a new estimate of log Z [1]",
        default=1,
        metavar="K",
    )
    parser.add_number("--seed", Seed, "seed of the noise of a bound [0]", default=0)
    add_example_options(parser, arguments)
    add_memory(parser)
    options = parser.parse(arguments)

    import torch

    from unsup.core.cells import table_text
    from unsup.core.likelihood import parts_in_words
    from unsup.core.model import HasDensity
    from unsup.core.storage import write_file
    from unsup.data.columns import TableForm
    from unsup.data.text import Written
    from unsup.data.windows import file_of
    from unsup.evaluate.likelihood import entries_of, log_probs
    from unsup.evaluate.units import units_of
    from unsup.train.runs import open_model

    run = open_model(options.run)
    model = run.model
    if not isinstance(model, HasDensity):
        raise CapabilityError(
            f"{run.config['model']['model']} has no likelihood (unsup models lists the models that can score)"
        )
    examples, names = examples_of(options, run)
    samples = options.importance_samples
    scores = log_probs(model, examples, samples=samples, seed=options.seed, stored=samples == 1)
    what = "log p(x)" if examples.given is None else "log p(x | c)"
    known = entries_of(model.event, examples)
    units = units_of(model.event, run.form, examples)
    if not units:
        units = {"dim": torch.full_like(scores, model.event.dims) if known is None else known.double()}
    if isinstance(run.form, Written) and not model.event.open:  # the windows of a text add up to one number
        files = [file_of(name) or Path(options.file).name for name in names]
        names = tuple(dict.fromkeys(files))
        owner = torch.tensor([names.index(file) for file in files])
        scores = torch.zeros(len(names), dtype=scores.dtype).index_add(0, owner, scores)
        units = {unit: torch.zeros(len(names)).double().index_add(0, owner, n.double()) for unit, n in units.items()}
    rows = [("example", "log_prob_nats", *(f"bits_per_{unit}" for unit in units), "kind")]
    for i, (name, score) in enumerate(zip(names, scores.tolist(), strict=True)):
        bits = [-score / (max(1.0, float(counts[i])) * math.log(2)) for counts in units.values()]
        rows.append((name, f"{score:.6f}", *(f"{value:.6f}" for value in bits), model.likelihood_kind))
    text = table_text(rows)
    if options.out is None:
        write(*text.splitlines())
        return 0
    write_file(options.out, text.encode())
    form = run.form
    columns = [column.name for column in form.columns] if isinstance(form, TableForm) else None
    parts = parts_in_words(model.event, columns)
    kind = f"kind: {model.likelihood_kind}{parts and f'; {parts}'}"
    write(f"{len(scores)} scores written to {options.out} ({what} in nats, {kind})")
    return 0
