"""The results page, written from the records of `unsup reproduce` and from nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from unsup.core.escapes import json_text, markdown, markdown_code
from unsup.core.reading import checked, read_text
from unsup.core.storage import write_atomically

Record = dict[str, Any]


class _Environment(TypedDict):
    machine: str
    threads: int


class _Likelihood(TypedDict):
    kind: str
    nats: float
    bits_per_dim: float
    standard_error: float
    samples: int


class _Result(TypedDict):
    """A line of the ``.jsonl``, as far as the page shows it."""

    recipe: str
    model: str
    seed: int
    data: str
    published: str | None
    steps: int
    minutes: float
    command: str
    environment: _Environment
    measure: NotRequired[str]
    likelihood: NotRequired[_Likelihood]
    figures: NotRequired[dict[str, float]]


# What a recipe may measure on the test split: the heading of its table, and what its columns say.
MEASURES: Mapping[str, tuple[str, str]] = {
    "likelihood": (
        "Likelihood",
        "Negative log-likelihood of the test split, lower is better: `exact`, `bound` (the truth is no higher) or "
        "`estimate`. With one seed ± is the standard error over test examples; with several, the standard deviation "
        "over seeds.",
    ),
    "modes": (
        "Mode coverage",
        "Covered modes of the data, the share of samples within three standard deviations of a mode, and "
        "KL(samples' modes ‖ equal shares) in nats; mean ± standard deviation over seeds. `true` is what as many draws "
        "of the data give.",
    ),
    "samples": (
        "Sample quality",
        "Samples against training examples in the library's own features; `floor` is what held-out real examples get "
        "in the samples' place. Several seeds: mean ± standard deviation; one: the value.",
    ),
    "translation": (
        "Translation",
        "Mean absolute error per entry of translated test examples, in raw units, and the same of leaving the examples "
        "as they are; mean ± standard deviation over seeds.",
    ),
}


def append_result(record: Record, results: Path) -> None:
    """Add one record to the ``.jsonl`` beside ``results`` and write the page anew.

    Raises:
        InputError: the ``.jsonl`` holds a line that is no result.
    """
    log = results.with_suffix(".jsonl")
    lines = read_text(log).splitlines() if log.exists() else []
    kept = [checked(f"line {i} of {log}", line, _Result) for i, line in enumerate(lines, start=1)]
    lines.append(json_text(record))
    write_atomically(log, ("\n".join(lines) + "\n").encode())
    write_atomically(results, results_table([*kept, record]).encode())


def results_table(records: Iterable[Record]) -> str:
    """The results page: a table for each measure, one row for each model of each recipe over its seeds.

    Of several records of one seed the newest counts.
    """
    groups: dict[str, dict[tuple[str, str], dict[int, Record]]] = {}
    for record in records:
        rows = groups.setdefault(record.get("measure", "likelihood"), {})
        rows.setdefault((record["recipe"], record["model"]), {})[record["seed"]] = record
    kept = [r for rows in groups.values() for seeds in rows.values() for r in seeds.values()]
    lines = [
        "# Results",
        "",
        "Written by `unsup reproduce` from the records in `RESULTS.jsonl`; do not edit. Minutes are of training, "
        "validation included, on the number of threads given.",
        "",
        f"Machines: {markdown('; '.join(sorted({r['environment']['machine'] for r in kept})))}.",
    ]
    for measure, (title, about) in MEASURES.items():
        if measure in groups:
            lines += ["", f"## {title}", "", about, "", *_table(measure, groups[measure])]
    return "\n".join([*lines, ""])


def _table(measure: str, rows: Mapping[tuple[str, str], dict[int, Record]]) -> list[str]:
    figures = _likelihood if measure == "likelihood" else _figures
    found = [_row(model, list(seeds.values()), figures) for (_, model), seeds in sorted(rows.items())]
    header = list(dict.fromkeys(name for row in found for name in row))
    cells = [[row.get(name, "–") for name in header] for row in found]
    return [
        f"| {' | '.join(map(markdown, header))} |",
        f"|{' --- |' * len(header)}",
        *(f"| {' | '.join(c)} |" for c in cells),
    ]


def _row(model: str, records: list[Record], figures: Any) -> dict[str, str]:
    last = records[-1]
    return {
        "data": markdown(last["data"]),
        "model": markdown(model),
        **figures(records),
        "published": markdown(last["published"] or "–"),
        "seeds": " ".join(str(r["seed"]) for r in sorted(records, key=lambda r: r["seed"])),
        "steps": f"{last['steps']:,}",
        "minutes": f"{statistics.fmean(r['minutes'] for r in records):.1f}",
        "threads": " ".join(sorted({str(r["environment"]["threads"]) for r in records})),
        "command": markdown_code(last["command"]),
    }


def _likelihood(records: list[Record]) -> dict[str, str]:
    found = [r["likelihood"] for r in records]
    last = found[-1]
    work = f"effort {last['samples']:,}" if last["kind"] == "estimate" else f"{last['samples']:,} samples"
    kind = last["kind"] + (f", {work}" if last["samples"] > 1 else "")
    nats = _spread([f["nats"] for f in found], 2)
    if len(found) == 1:
        nats += f" ± {last['standard_error']:.2f}"
    return {"test nats": nats, "bits/dim": _spread([f["bits_per_dim"] for f in found], 4), "kind": kind}


def _figures(records: list[Record]) -> dict[str, str]:
    names = records[-1]["figures"]
    return {name: _spread([r["figures"][name] for r in records], _digits(value)) for name, value in names.items()}


def _digits(value: float) -> int:
    return 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3


def _spread(values: list[float], digits: int) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"
