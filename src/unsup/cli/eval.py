"""``unsup eval RUN``: the typed likelihood of a split, or how good the run's samples are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unsup.cli.options import Parser, add_changed_data, add_memory
from unsup.cli.show import note, table, write, write_json
from unsup.core.errors import CapabilityError, InputError, TrainingError

if TYPE_CHECKING:
    from unsup.evaluate.samples import SampleQuality, Stage
    from unsup.train.progress import Progress
    from unsup.train.runs import Run

_TITLES = {
    "fid": "FID",
    "kid": "KID × 10³",
    "inception_score": "Inception score",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}
_ARROWS = {"lower": "↓", "higher": "↑"}
_UNITS = {"sampling": "sample", "features": "features of example", "metrics": "metric"}


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup eval",
        description="Mean negative log-likelihood of a run's test split, in nats and bits/dim; or, with --samples, "
        "FID, KID, precision, recall, density and coverage of samples against the training split.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--split", choices=("test", "validation", "train"), default="test", help="which examples are scored [test]"
    )
    parser.add_argument(
        "--importance-samples",
        type=int,
        default=1,
        metavar="K",
        help="draws per example behind a bound, or the effort of the estimate of log Z; more are tighter [1]",
    )
    parser.add_argument(
        "--examples", type=int, metavar="N", help="score N examples of the split only, the same ones every time [all]"
    )
    parser.add_argument("--samples", type=int, metavar="N", help="draw N samples and judge them, e.g. 10000")
    parser.add_argument(
        "--extractor", metavar="NAME", help="features to judge samples by: grey, colour, raw, inception [by the data]"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the noise behind a bound, or of the samples [0]"
    )
    add_changed_data(parser)
    add_memory(parser)
    options = parser.parse(arguments)
    if options.importance_samples < 1:
        raise InputError(f"--importance-samples {options.importance_samples} should be at least 1")
    if options.examples is not None and options.examples < 1:
        raise InputError(f"--examples {options.examples} should be at least 1")
    if options.samples is not None and options.samples < 10:
        raise InputError(f"--samples {options.samples} should be at least 10")
    if options.extractor is not None and options.samples is None:
        raise InputError(f"--extractor {options.extractor} is for judging samples; give --samples N too, e.g. 10000")

    from unsup.train.runs import open_run

    run = open_run(options.run, changed_data=options.changed_data)
    if options.samples is None:
        _evaluate_likelihood(run, options)
    else:
        _evaluate_samples(run, options)
    return 0


def _evaluate_likelihood(run: Run, options: Any) -> None:
    from unsup.core.model import CanSample, HasDensity
    from unsup.data.source import some_of
    from unsup.evaluate.conditions import is_conditioned
    from unsup.evaluate.likelihood import likelihood_of, log_probs
    from unsup.evaluate.quadrature import with_likelihood
    from unsup.train.progress import Progress

    data = run.data
    model = with_likelihood(run.model, data.train.glance)
    if not isinstance(model, HasDensity):
        rest = "; judge its samples with --samples N, e.g. 10000" if isinstance(model, CanSample) else " and no samples"
        raise CapabilityError(f"{_name(run)} gives no likelihood{rest}")
    split = {"test": data.test, "validation": data.validation, "train": data.train}[options.split]
    if options.examples is not None:
        split = split.take(some_of(len(split), options.examples))
    started = time.monotonic()
    with Progress("off" if options.json else "auto", unit="example", start=0) as display:

        def on_chunk(done: int, total: int) -> None:
            if display.due():
                display.show(done, total, {})

        scores = log_probs(model, split, samples=options.importance_samples, seed=options.seed, on_chunk=on_chunk)
    found = likelihood_of(model, scores, options.importance_samples, lengths=split.lengths, weight=split.weight)
    record = _about(run) | {
        "split": options.split,
        "likelihood": found.to_json() | _of_changed(run),
        "seconds": round(time.monotonic() - started, 3),
    }
    if options.json:
        write_json(record)
    else:
        what = "effort {:,}" if found.kind == "estimate" else "{:,} importance samples"
        samples = f", {what.format(found.samples)}" if found.samples > 1 else ""
        given = ", of p(x | c)" if is_conditioned(model) and split.given is not None else ""
        write(
            f"{record['model']} on {data.name} ({options.split}, n = {found.n:,}): {found} "
            f"[{found.kind}{given}{samples}]",
            *_said_of_changed(run),
        )
    _keep(run, record)


def _evaluate_samples(run: Run, options: Any) -> None:
    from unsup.core.model import CanSample
    from unsup.evaluate.samples import evaluate_samples

    model = run.model
    if not isinstance(model, CanSample):
        raise CapabilityError(f"{_name(run)} draws no samples to judge (unsup models tells who can)")
    started = time.monotonic()
    with _Stages(quiet=options.json) as display:
        found = evaluate_samples(
            model, run.data, options.samples, options.extractor or "auto", options.seed, display.show
        )
    judged = found.to_json() | {"seconds": round(time.monotonic() - started, 3)} | _of_changed(run)
    record = _about(run) | {"samples": judged}
    if options.json:
        write_json(record)
    else:
        write(*_lines(found, f"{record['model']} on {record['data']}"), *_said_of_changed(run))
    _keep(run, record)


class _Stages:
    """One progress line after another: sampling, features, metrics."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._stage: str | None = None
        self._display: Progress | None = None

    def __enter__(self) -> _Stages:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._display is not None:
            self._display.__exit__(*error)

    def show(self, stage: Stage, done: int, total: int) -> None:
        from unsup.train.progress import Progress

        if stage != self._stage:
            self.__exit__(None, None, None)
            self._stage = stage
            self._display = Progress("off" if self.quiet else "auto", unit=_UNITS[stage], start=0).__enter__()
        elif self._display is not None and self._display.due():
            self._display.show(done, total, {})


def _lines(found: SampleQuality, what: str) -> list[str]:
    rows = []
    for name in (n for n in _TITLES if n in found.scores):
        score, scale = found[name], 1000 if name == "kid" else 1
        low, high = (f"{scale * v:.4g}" for v in score.interval)
        title = f"{_TITLES[name]} {_ARROWS[score.better]}"
        rows.append((title, f"{scale * score.value:.4g}", f"{low} … {high}", f"{scale * score.floor:.4g}"))
    lines = [
        f"{what}: {found.fake:,} samples against {found.real:,} training examples (↓ lower, ↑ higher is better)",
        *table(("metric", "value", "95 % interval", "held-out data"), rows, right=(1, 2, 3)),
        f"held-out data: {found.held_out:,} test examples in the samples' place",
        f"extractor {found.extractor}, sha256 {found.digest[:16]}…; seed {found.seed}",
    ]
    if found.modes is not None:
        modes = found.modes
        lines.append(
            f"modes covered: {modes.modes:,} of {modes.of:,}; good samples {modes.good:.1%}; KL from equal shares "
            f"{modes.kl:.4f} nats (chance alone: about {modes.chance_kl:.4f})"
        )
    return [*lines, *(f"note: {n}" for n in found.notes)]


def _name(run: Run) -> str:
    return str(run.config["model"]["model"])


def _about(run: Run) -> dict[str, Any]:
    return {"run": str(run.path), "model": _name(run), "data": run.data.name}


def _of_changed(run: Run) -> dict[str, Any]:
    """What a figure's record says where it is of data that has changed since the run was trained."""
    return {"changed_data": True} if run.data_changed else {}


def _said_of_changed(run: Run) -> tuple[str, ...]:
    return ("note: this is of data that has changed since the run was trained",) if run.data_changed else ()


def _keep(run: Run, record: dict[str, Any]) -> None:
    """Write ``record`` to ``eval.json`` over what it says anew; what else the file holds stays.

    The result has been printed, which is what was asked for: a folder that cannot be written is worth a note.
    """
    try:
        run.update_json("eval.json", record)
    except TrainingError as error:
        note(f"the result is not saved: {error}")
