"""The results as a CSV file, one line a run, and as the table that the terminal ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unsup.core.cells import table_text
from unsup.core.storage import write_inside
from unsup.evaluate.records import Contestant, Measures, Results
from unsup.report.figures import Column, bits_per_dim, columns, figure_of, headline, in_order, kind, sign

Rows = list[tuple[str, ...]]


def write_csv(folder: Path, results: Results) -> None:
    """Write ``results.csv``: a line for each run, and one for a contestant without any."""
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
    """The numbers of a run: each measure with the ends of its interval, named by its key."""
    line: dict[str, Any] = {k: m[k] for k in ("run", "seed", "steps", "train_seconds")}
    for key in keys:
        record = m["figures"].get(key)
        low, high = (record["interval"] if record else None) or (None, None)
        line |= {key: record and record["value"], f"{key}_low": low, f"{key}_high": high}
        if key == "likelihood":
            line |= {k: record and record["detail"].get(k) for k in ("kind", "bits_per_dim", "samples")}
    line["command"] = m["command"]
    return line | {f"{key}_command": m["commands"].get(key) for key in keys if key in m["commands"]}


# --- the terminal -----------------------------------------------------------------------------------------------------


def terminal_table(results: Results) -> tuple[tuple[str, ...], Rows]:
    """Headings and one row a contestant: the first measure of each purpose and what it cost, best first."""
    found = columns(results)
    first = {c.purpose: c.key for c in reversed(found)}
    shown = [c for c in found if c.purpose == "cost" or first[c.purpose] == c.key]
    titles = [t for c in shown for t in (("bits/dim", "nats") if c.key == "likelihood" else (c.title,))]
    order = in_order(results)
    rest = [c for c in results["contestants"] if not c["runs"]]
    rows = [(c["name"], c["family"], *(t for s in shown for t in _texts(c, s))) for c in order]
    empty = ("",) * (len(titles) - 1)
    return ("model", "family", *titles), rows + [(c["name"], c["family"], c["status"], *empty) for c in rest]


def _texts(contestant: Contestant, column: Column) -> tuple[str, ...]:
    figure = figure_of(contestant["runs"], column.key)
    shown = "" if figure is None else headline(figure, column.key, column.show)
    if column.key != "likelihood":
        return (shown,)
    bits = bits_per_dim(contestant)
    return ("" if bits is None else f"{sign(kind(contestant))} {bits.value:.3f}", shown)
