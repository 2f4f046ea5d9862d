"""The results as a CSV file, one line a run, and as the table that the terminal ends with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unsup.core.cells import table_text
from unsup.core.likelihood import SIGN
from unsup.core.storage import write_inside
from unsup.evaluate.records import Contestant, Measures, Place, Results
from unsup.report.figures import duration

_SCORES = ("fid", "kid", "precision", "recall")


def write_csv(folder: Path, results: Results) -> None:
    """Write ``results.csv``: a line for each run, and one for a contestant without any."""
    lines = []
    for c in results["contestants"]:
        about = {"contestant": c["name"], "model": c["model"], "family": c["family"], "status": c["status"]}
        lines += [about | _flat(m) | {"reason": c["reason"]} for m in c["runs"]] or [about | {"reason": c["reason"]}]
    columns = list(dict.fromkeys(k for line in lines for k in line))
    rows = [columns, *([line.get(name) for name in columns] for line in lines)]
    write_inside(folder / "results.csv", table_text(rows).encode())


def _flat(m: Measures) -> dict[str, Any]:
    """The numbers of a run as columns."""
    line: dict[str, Any] = {k: m[k] for k in ("run", "seed", "parameters", "steps", "train_seconds")}
    likelihood = m["likelihood"] or {}
    line |= {k: likelihood.get(k) for k in ("kind", "nats", "standard_error", "bits_per_dim")}
    line["importance_samples"], line["examples"] = likelihood.get("samples"), likelihood.get("n")
    scores = (m["quality"] or {}).get("scores", {})
    found: dict[str, Any] = {name: scores.get(name) for name in _SCORES}
    found |= {"implied_bytes": m["implied_bytes"]}
    found |= {"nearer": m["memorisation"] and m["memorisation"]["nearer"]}
    found |= {k: m["anomaly"] and m["anomaly"][k] for k in ("auroc", "average_precision")}
    found |= {"probe_accuracy": m["probe"] and m["probe"]["accuracy"]}
    found |= {"calibration_error": m["calibration"] and m["calibration"]["error"]}
    for name, record in found.items():
        low, high = record["interval"] if record else (None, None)
        line |= {name: record and record["value"], f"{name}_low": low, f"{name}_high": high}
    line["samples_per_second"] = m["sampling"] and m["sampling"]["per_second"]
    line |= {k: m.get(k) for k in ("command", "eval_command", "samples_command")}
    return line


# --- the terminal -----------------------------------------------------------------------------------------------------

HEADER = ("model", "family", "bits/dim", "nats", "FID", "samples/s", "seconds", "parameters", "anomalies", "probe")


def rows(results: Results) -> list[tuple[str, ...]]:
    """One row a contestant under `HEADER`, likelihoods of one kind together and the best first."""
    found = results["places"]
    order = [*found.get("likelihood", {}), *found.get("fid", {}), *(c["name"] for c in results["contestants"])]
    by_name = {c["name"]: c for c in results["contestants"]}
    dims = math.prod(results["data"]["event"]["shape"])
    return [_row(by_name[name], found, dims) for name in dict.fromkeys(order)]


def _row(c: Contestant, found: Mapping[str, Mapping[str, Place]], dims: int) -> tuple[str, ...]:
    if not c["runs"]:
        return (c["name"], c["family"], c["status"], *[""] * (len(HEADER) - 3))
    name, first = c["name"], c["runs"][0]

    def cell(measure: str, form: Callable[[float], str]) -> str:
        place = found.get(measure, {}).get(name)
        return "" if place is None else form(place["value"])

    bits = nats = ""
    if first["likelihood"] is not None and name in found.get("likelihood", {}):
        place, sign = found["likelihood"][name], SIGN[first["likelihood"]["kind"]]
        bits = f"{sign} {place['value'] / (dims * math.log(2)):.3f}"
        nats = f"{sign} {place['value']:.2f} ± {place['noise']:.2f}"
    return (
        name,
        c["family"],
        bits,
        nats,
        cell("fid", lambda v: f"{v:.3g}"),
        cell("sampling", lambda v: f"{v:,.0f}" if v >= 10 else f"{v:.2g}"),
        cell("seconds", duration),
        f"{first['parameters']:,}",
        cell("auroc", lambda v: f"{v:.3f}"),
        cell("probe", lambda v: f"{v:.1%}"),
    )
