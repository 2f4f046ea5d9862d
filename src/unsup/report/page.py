"""The page of one run: its figures, curves and samples in a single HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unsup.core.registry import names, row
from unsup.core.storage import write_atomically
from unsup.pictures.images import curves, png_bytes
from unsup.report.words import told

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; image-rendering: pixelated; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .15rem .8rem .15rem 0; vertical-align: top; }
code, pre { font-family: ui-monospace, monospace; } pre { overflow-x: auto; padding: .6rem; border: 1px solid #8886; }
"""


def write_page(folder: str | Path) -> None:
    """Write ``report.html`` and ``README.md`` of a run folder from the files in it."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    events_file = folder / "events.jsonl"
    lines = events_file.read_text().splitlines() if events_file.is_file() else []
    events = [json.loads(line) for line in lines if line.endswith("}")]
    title = f"{config['model']['model']} on {config['data']['name'] if config['data'] else 'arrays in memory'}"
    lost = max((i for i, e in enumerate(events) if "lost" in e), default=-1)
    held = events[lost + 1 :]  # what is said of the best parameters is true of those that are there
    scored = [e for e in held if "bits_per_dim" in e]
    facts = {"steps": events[-1]["step"] if events else 0, "seconds": events[-1]["seconds"] if events else 0}
    if scored:
        best = min(scored, key=lambda e: e["nats"])
        facts["best validation"] = f"{best['bits_per_dim']:.4f} bits/dim ({best['kind']}) at {best['step']}"
    compared = [e for e in held if "validator" in e]
    if compared:
        pick = min if compared[0]["better"] == "lower" else max
        best = pick(compared, key=lambda e: e["value"])
        facts["best validation"] = f"{best['validator']} {best['value']:.4g} at {best['step']}"
    test = _read(folder / "eval.json") or {}
    if "likelihood" in test:
        found = test["likelihood"]
        facts[f"{test['split']} likelihood"] = (
            f"{found['nats']:.3f} ± {found['standard_error']:.3f} nats, {found['bits_per_dim']:.4f} bits/dim "
            f"({found['kind']}, n = {found['n']})"
        )
    if "samples" in test:
        judged = test["samples"]
        facts["FID of samples"] = (
            f"{judged['scores']['fid']['value']:.3f} (held-out data {judged['scores']['fid']['floor']:.3f}, extractor "
            f"{judged['extractor']['name']}, {judged['fake']:,} against {judged['real']:,})"
        )
    for name, value in ((test or {}).get("figures") or {}).items():
        facts[f"test {name}"] = f"{value:.4g}"
    machine = _read(folder / "env.json") or {}
    facts["machine"] = machine.get("machine", "")
    record = config["model"]
    suggested = next_commands(record["model"], folder, record["config"].get("given"))
    commands = "\n".join([*suggested, f"unsup fit --resume -o {folder}"])
    grids = sorted((folder / "samples").glob("*.png"))
    body = [f"<h1>{html.escape(title)}</h1>", _table(facts)]
    if any(name.endswith("loss") for e in events for name in e):
        body.append(
            "<h2>Training</h2>" + _image(png_bytes(curves(events)), "training and validation curves over steps")
        )
    if grids:
        body.append("<h2>Samples</h2>" + _image(grids[-1].read_bytes(), f"samples drawn at {grids[-1].stem}"))
    said = [f"{e['symptom']} at {e['step']}: {e['advice']}" for e in events if "symptom" in e]
    said += [f"lost before {e['step']}: {e['lost']}" for e in events if "lost" in e]
    if said:
        body.append("<h2>Noticed</h2><ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in said) + "</ul>")
    body.append("<h2>Settings</h2>" + _table(config["model"]["config"]) + _table(config["training"]))
    body.append(f"<h2>Commands</h2><pre>{html.escape(commands)}</pre>")
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><body>{''.join(body)}</body></html>"
    )
    write_atomically(folder / "report.html", page.encode())
    facts_lines = "\n".join(f"- {k}: {v}" for k, v in facts.items())
    write_atomically(folder / "README.md", f"# {title}\n\n{facts_lines}\n\n```\n{commands}\n```\n".encode())


def next_commands(model: str, folder: str | Path, given: Mapping[str, Any] | None = None) -> list[str]:
    """The commands that look at what came of a run of the model of that name.

    Args:
        given: the event that the model is conditioned on, as its configuration records it.
    """
    able = row(model).abilities if model in names() else ("score", "sample")
    found = [f"unsup eval {folder}"] if "score" in able else []
    if "sample" in able:
        condition = "" if given is None else f" --given {'CLASS' if not given['shape'] else 'PATH'}"
        found.append(f"unsup sample {folder} -n 64 -o grid.png{condition}")
    if "sample" in able and "score" not in able:
        found.append(f"unsup eval {folder} --samples 10000")
    if "translate" in able:
        found.append(f"unsup translate {folder} FILES -o DIR --to b")
    return found


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _table(record: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{html.escape(str(k))}</th><td>{html.escape(told(v))}</td></tr>" for k, v in record.items()
    )
    return f"<table>{rows}</table>"


def _image(png: bytes, text: str) -> str:
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
