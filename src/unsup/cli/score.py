"""``unsup score RUN FILE``: a log-likelihood for each example."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from unsup.cli.conditions import add_given, examples_of
from unsup.cli.options import DATA_OPTIONS, DataOptions, Parser, add_fields
from unsup.cli.sample import make_parent
from unsup.cli.show import write
from unsup.core.errors import CapabilityError
from unsup.data.catalog import EXAMPLE_OPTIONS


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="unsup score", description="Log-likelihood of each example of a file, folder or data set.")
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("file", metavar="FILE", help="your examples: images, .npy/.npz, .csv, or a data set's name")
    parser.add_argument("-o", "--out", metavar="FILE", help="CSV to write [standard output]")
    parser.add_argument(
        "--importance-samples",
        type=int,
        default=1,
        metavar="K",
        help="draws per example behind a bound; above 1, effort of a new estimate of log Z, not the run's [1]",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise behind a bound [0]")
    add_given(parser, "what all examples are conditioned on, or a file with one condition for each")
    add_fields(parser, DataOptions, title="data", skip=[n for n in DATA_OPTIONS if n not in EXAMPLE_OPTIONS])
    options = parser.parse(arguments)

    from unsup.core.model import HasDensity
    from unsup.core.storage import write_atomically
    from unsup.evaluate.likelihood import log_probs
    from unsup.train.runs import open_run

    run = open_run(options.run)
    model = run.model
    if not isinstance(model, HasDensity):
        raise CapabilityError(f"{run.config['model']['model']} gives no likelihood (unsup models tells who can score)")
    examples, names = examples_of(options, run)
    samples = options.importance_samples
    scores = log_probs(model, examples, samples=samples, seed=options.seed, stored=samples == 1).tolist()
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("example", "log_prob_nats", "bits_per_dim", "kind"))
    what = "log p(x)" if examples.given is None else "log p(x | c)"
    for name, score in zip(names, scores, strict=True):
        bits = -score / (model.event.dims * math.log(2))
        rows.writerow((name, f"{score:.6f}", f"{bits:.6f}", model.likelihood_kind))
    if options.out is None:
        write(text.getvalue())
        return 0
    make_parent(options.out)
    write_atomically(options.out, text.getvalue().encode())
    write(f"{len(scores)} examples scored in {options.out} ({what} in nats, kind: {model.likelihood_kind})")
    return 0
