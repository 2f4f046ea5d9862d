"""The results as a CSV file with one line for each run, and as the table for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unsup.core.cells import table_text
from unsup.core.storage import write_inside
from unsup.evaluate.records import Measures, Results
from unsup.report.figures import bits_per_dim, columns, figure_of, in_order, kind, sign

Rows = list[tuple[str, ...]]


def write_csv(folder: Path, results: Results) -> None:
    """Write ``results.csv``: a line for each run, and one for each contestant without runs."""
    keys = [c.key for c in columns(results)]
    lines = []
    for c in results["contestants"]:
        about = {"contestant": c["name"], "model": c["model"], "family": c["family"], "status": c["status"]}
        runs = [about | _flat(m, keys) | {"reason": c["reason"]} for m in c["runs"]]
        lines += runs or [about | {"reason": c["reason"]}]
    names = list(dict.fromkeys(k for line in lines for k in line))
    rows = [names, *([line.get(name) for name in names] for line in lines)]
    write_inside(folder / "results.csv", table_text(rows).encode())


def _flat(m: Measures, keys: list[str]) -> dict[str, Any]:
    """The values of a run by key, each measure with both ends of its interval."""
    line: dict[str, Any] = {k: m[k] for k in ("run", "seed", "steps", "train_seconds")}
    for key in keys:
        record = m["figures"].get(key)
        low, high = (record["interval"] if record else None) or (None, None)
        line |= {key: record and record["value"], f"{key}_low": low, f"{key}_high": high}
        if key == "likelihood":
            line |= {k: record and record["detail"].get(k) for k in ("kind", "bits_per_dim", "samples")}
    line["command"] = m["command"]
    return line | {f"{key}_command": m["commands"].get(key) for key in keys if key in m["commands"]}


def terminal_table(results: Results) -> tuple[tuple[str, ...], Rows]:
    """Headings and one row for each contestant: the first measure of each purpose and the cost, best first."""
    found = columns(results)
    first = {c.purpose: c.key for c in reversed(found)}
    titles, rows = ["model", "family"], [[c["name"], c["family"]] for c in in_order(results)]
    for column in (c for c in found if c.purpose == "cost" or first[c.purpose] == c.key):
        with_bits = column.key == "likelihood"
        titles += ["bits/dim", "nats"] if with_bits else [column.title]
        for row, c in zip(rows, in_order(results), strict=True):
            if with_bits:
                bits = bits_per_dim(c)
                row.append("" if bits is None else f"{sign(kind(c))} {bits.value:.3f}")
            figure = figure_of(c["runs"], column.key)
            row.append("" if figure is None else column.headline(figure))
    absent = [[c["name"], c["family"], c["status"]] for c in results["contestants"] if not c["runs"]]
    filled = [tuple(row + [""] * (len(titles) - len(row))) for row in rows + absent]
    return tuple(titles), filled
