"""The results page, written from the records of `unsup reproduce`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from unsup.core.escapes import json_text, markdown, markdown_code
from unsup.core.reading import checked, read_text
from unsup.core.storage import write_file
from unsup.evaluate.measures import MEASURES
from unsup.evaluate.records import Figure

Record = dict[str, Any]
_ARROWS = {"lower": ", lower is better", "higher": ", higher is better", None: ""}
_DETAILS = ("bits_per_dim", "bits_per_unit", "kind", "share")
"""The details of a figure that are in the table."""


class _Environment(TypedDict):
    machine: str
    threads: int


class _Result(TypedDict):
    """The fields of a line of the ``.jsonl`` that are on the page."""

    recipe: str
    model: str
    seed: int
    data: str
    published: str | None
    steps: int
    minutes: float
    command: str
    environment: _Environment
    figures: dict[str, Figure]


def append_result(record: Record, results: Path) -> None:
    """Add one record to the ``.jsonl`` next to ``results`` and rewrite the page.

    Raises:
        InputError: a line of the ``.jsonl`` is not a result.
    """
    log = results.with_suffix(".jsonl")
    lines = read_text(log).splitlines() if log.exists() else []
    kept = [checked(f"line {i} of {log}", line, _Result) for i, line in enumerate(lines, start=1)]
    lines.append(json_text(record))
    write_file(log, ("\n".join(lines) + "\n").encode())
    write_file(results, results_table([*kept, record]).encode())


def results_table(records: Iterable[Record]) -> str:
    """The results page: a table for each set of measures, and units of data, with one row per model and recipe.

    The newest record of a seed is used.
    """
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[tuple[str, str], dict[int, Record]]] = {}
    for record in records:
        measured = tuple(k for k in MEASURES if k in record["figures"])
        units = sorted({u for figure in record["figures"].values() for u in figure["detail"].get("bits_per_unit", ())})
        rows = groups.setdefault((measured, tuple(units)), {})
        rows.setdefault((record["recipe"], record["model"]), {})[record["seed"]] = record
    kept = [r for rows in groups.values() for seeds in rows.values() for r in seeds.values()]
    lines = [
        "# Results",
        "",
        "Written by `unsup reproduce` from the records in `RESULTS.jsonl`; do not edit. Minutes are of training with "
        "validation, on the given number of threads. For several seeds, figures are the mean ± the standard deviation "
        "over seeds; for one seed, the value ± its standard error.",
        "",
        f"Machines: {markdown('; '.join(sorted({r['environment']['machine'] for r in kept})))}.",
    ]
    for group in sorted(groups, key=lambda group: ([list(MEASURES).index(k) for k in group[0]], group[1])):
        measured, per = group
        titles = ", ".join(MEASURES[k].title for k in measured) + (f" per {' and '.join(per)}" if per else "")
        lines += ["", f"## {markdown(titles[:1].upper() + titles[1:])}", "", *map(_about, measured), ""]
        lines += _table(groups[group])
    return "\n".join([*lines, ""])


def _about(key: str) -> str:
    row = MEASURES[key]
    floor = f"; baseline: {row.floor}" if row.floor else ""
    unit = f", in {row.unit}" if row.unit else ""
    return f"- {markdown(row.title)}: {markdown(row.explanation)}{unit}{_ARROWS[row.better]}{floor}."


def _table(rows: Mapping[tuple[str, str], dict[int, Record]]) -> list[str]:
    found = [_row(model, list(seeds.values())) for (_, model), seeds in sorted(rows.items())]
    header = list(dict.fromkeys(name for row in found for name in row))
    cells = [[row.get(name, "–") for name in header] for row in found]
    return [
        f"| {' | '.join(map(markdown, header))} |",
        f"|{' --- |' * len(header)}",
        *(f"| {' | '.join(c)} |" for c in cells),
    ]


def _row(model: str, records: list[Record]) -> dict[str, str]:
    last = records[-1]
    cells = {"data": markdown(last["data"]), "model": markdown(model)}
    for key in (k for k in MEASURES if k in last["figures"]):
        cells |= _cells(key, [r["figures"][key] for r in records])
    if last.get("examples") is not None:
        cells["test examples"] = f"{last['examples']:,}"
    return cells | {
        "published": markdown(last["published"] or "–"),
        "seeds": " ".join(str(r["seed"]) for r in sorted(records, key=lambda r: r["seed"])),
        "steps": f"{last['steps']:,}",
        "minutes": f"{statistics.fmean(r['minutes'] for r in records):.1f}",
        "threads": " ".join(sorted({str(r["environment"]["threads"]) for r in records})),
        "command": markdown_code(last["command"]),
    }


def _cells(key: str, figures: list[Figure]) -> dict[str, str]:
    """The columns of one measure: the figure, its floor and some details."""
    row, last = MEASURES[key], figures[-1]
    cells = {row.title: _spread([f["value"] for f in figures], row.show, last["error"])}
    floors = [f["floor"] for f in figures if f["floor"] is not None]
    if floors:
        cells[f"baseline of {row.title}"] = row.show(statistics.fmean(floors))
    before = [v for f in figures if (v := f["detail"].get("untrained")) is not None]
    if before:
        cells[f"{row.title}, untrained"] = row.show(statistics.fmean(before))
    for name in (n for n in _DETAILS if n in last["detail"]):
        values = [f["detail"][name] for f in figures]
        if name == "bits_per_unit":
            for unit in values[-1]:
                bits = [v[unit] for v in values]
                cells[f"bits/{unit}"] = _spread(bits, "{:.4f}".format)
                cells[f"nats/{unit}"] = _spread([v * math.log(2) for v in bits], "{:.4f}".format)
        elif name == "kind":
            cells["kind"] = values[-1] + _work(last)
        else:
            title = f"share of {row.title}" if name == "share" else "bits/dim"
            cells[title] = _spread(values, "{:.4f}".format)
    return cells


def _spread(values: list[float], show: Callable[[float], str], error: float | None = None) -> str:
    """The mean with the standard deviation over seeds, or the error for one seed."""
    spread = statistics.stdev(values) if len(values) > 1 else error
    return show(statistics.fmean(values)) + ("" if spread is None else f" ± {show(spread)}")


def _work(figure: Figure) -> str:
    """The number of samples of a bound, or the effort of an estimate."""
    kind, samples = figure["detail"]["kind"], figure["detail"].get("samples", 1)
    if samples == 1:
        return ""
    return f", effort {samples:,}" if kind == "estimate" else f", {samples:,} samples"
