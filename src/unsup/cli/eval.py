"""``unsup eval RUN``: the typed likelihood of a split."""

from __future__ import annotations

import time
from collections.abc import Sequence

from unsup.cli.options import Parser
from unsup.cli.show import write, write_json
from unsup.core.errors import InputError


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup eval", description="Mean negative log-likelihood of a run's test split, in nats and bits/dim."
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--split", choices=("test", "validation", "train"), default="test", help="which examples [test]"
    )
    parser.add_argument(
        "--importance-samples",
        type=int,
        default=1,
        metavar="K",
        help="draws per example behind a bound; more are tighter [1]",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise behind a bound [0]")
    options = parser.parse(arguments)
    if options.importance_samples < 1:
        raise InputError(f"--importance-samples {options.importance_samples} should be at least 1")

    from unsup.evaluate.likelihood import likelihood_of, log_probs
    from unsup.train.progress import Progress
    from unsup.train.runs import open_run

    run = open_run(options.run)
    model, data = run.model, run.data
    x = {"test": lambda: data.test, "validation": lambda: data.validation, "train": lambda: data.train}[
        options.split
    ]().x
    started = time.monotonic()
    with Progress("off" if options.json else "auto", unit="example") as display:

        def on_chunk(done: int, total: int) -> None:
            if display.due():
                display.show(done, total, {})

        scores = log_probs(model, x, samples=options.importance_samples, seed=options.seed, on_chunk=on_chunk)
    found = likelihood_of(model, scores, options.importance_samples)
    record = {
        "run": str(run.path),
        "model": run.config["model"]["model"],
        "data": data.name,
        "split": options.split,
        "likelihood": found.to_json(),
        "seconds": round(time.monotonic() - started, 3),
    }
    run.write_json("eval.json", record)
    if options.json:
        write_json(record)
    else:
        samples = f", {found.samples} importance samples" if found.samples > 1 else ""
        write(f"{record['model']} on {data.name} ({options.split}, n = {found.n:,}): {found} [{found.kind}{samples}]")
    return 0
