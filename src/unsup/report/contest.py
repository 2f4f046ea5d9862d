"""The page of a comparison: one HTML file that needs nothing else, from ``results.json`` and the pictures it names."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from unsup.core.errors import InputError
from unsup.core.escapes import markup
from unsup.core.reading import read_json
from unsup.core.storage import write_inside
from unsup.evaluate.records import Results
from unsup.report.album import Album
from unsup.report.figures import duration
from unsup.report.page import policy
from unsup.report.page_charts import (
    anomaly_section,
    calibration_section,
    likelihood_section,
    probe_section,
    storage_section,
    training_section,
)
from unsup.report.page_models import command, environment_text, models_section, samples_section
from unsup.report.page_table import absentees, main_table, table_notes

LIMIT = 5_000_000
"""Bytes that a page may have at most."""
_MARGIN = 20_000


def write_comparison_page(folder: str | Path) -> Path:
    """Write ``index.html`` of a contest's folder from its ``results.json``, and say where.

    Raises:
        InputError: the folder holds no results, or damaged ones.
    """
    folder = Path(folder)
    path = folder / "results.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no comparison (no results.json); expected a folder of unsup compare")
    results: Results = read_json(path, dict[str, Any], mend="run unsup compare again to restore it")
    try:
        page = comparison_page(results, folder)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(f"{path} is damaged ({error!r}); run unsup compare again to restore it") from error
    write_inside(folder / "index.html", page.encode())
    return folder / "index.html"


def comparison_page(results: Results, root: Path) -> str:
    """The page of ``results``, whose pictures lie under ``root``."""
    bare = len(_page(results, Album(results, root, 0)).encode())
    return _page(results, Album(results, root, LIMIT - _MARGIN - bare))


def _page(results: Results, album: Album) -> str:
    sections = [
        ("results", "Results", main_table(results) + table_notes(results) + absentees(results)),
        ("samples", "Samples beside real data", samples_section(results, album)),
        ("likelihood", "Likelihood, quality and time", likelihood_section(results)),
        ("storage", "Storage", storage_section(results)),
        ("uses", "Anomalies and codes", _pair(anomaly_section(results), probe_section(results))),
        ("calibration", "Calibration", calibration_section(results)),
        ("training", "Training", training_section(results)),
        ("models", "Model by model", models_section(results, album)),
        ("method", "How this was measured", _method(results, album)),
    ]
    shown = [s for s in sections if s[2]]
    links = "".join(f'<li><a href="#{i}">{t}</a></li>' for i, t, _ in shown)
    body = "".join(
        f'<section id="{i}" aria-labelledby="{i}-heading"><h2 id="{i}-heading">{t}</h2>{b}</section>'
        for i, t, b in shown
    )
    measured = sum(bool(c["runs"]) for c in results["contestants"])
    count = f"{measured} models" if measured != 1 else "One model"
    title = markup(f"{count} of {results['title']}")
    script = _asset("page.js")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"{policy(script)}"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{title}</title><link rel="icon" href="data:,"><style>{_asset("page.css")}</style></head><body>'
        '<a class="skip" href="#main">Skip to the content</a>'
        f'<header><div class="bar"><span class="brand">unsup compare</span>'
        '<button type="button" id="theme" class="needs-js">Dark</button></div>'
        f"<h1>{title}</h1><p class=about>{markup(results['about'])}</p>"
        f'<nav aria-label="On this page"><ul>{links}</ul></nav></header><main id="main" tabindex="-1">'
        f"{_summary(results)}{body}</main><footer>{_footer(results)}</footer><script>{script}</script></body></html>"
    )


def _asset(name: str) -> str:
    return files("unsup.report").joinpath("templates", name).read_text(encoding="utf-8")


def _summary(results: Results) -> str:
    lines = "".join(f"<li>{markup(s)}</li>" for s in results["summary"])
    said = f"<ul class=summary>{lines}</ul>" if lines else "<p class=absent>Nothing can be said yet.</p>"
    steps = "".join(f"<li><p>{markup(n['what'])}</p>{command(n['command'])}</li>" for n in results["next"])
    then = f'<div class="next"><h3>What to run next</h3><ol>{steps}</ol></div>' if steps else ""
    return (
        f'<section id="summary" aria-labelledby="summary-heading"><h2 id="summary-heading">In short</h2>'
        f'<div class="opening"><div>{said}</div>{then}</div></section>'
    )


def _pair(*parts: str) -> str:
    return f"<div class=charts>{''.join(parts)}</div>" if any(parts) else ""


def _method(results: Results, album: Album) -> str:
    runs = [r for c in results["contestants"] for r in c["runs"]]
    judged = next((r["quality"] for r in runs if r["quality"]), None)
    facts: dict[str, str] = {"Plan": markup(results["plan"])}
    facts["Data"] = markup(_plainly(results["data"]))
    if results["minutes"] is not None:
        facts["Budget"] = f"{results['minutes']:g} minutes"
    facts["Time taken"] = duration(results["seconds"])
    facts["Seeds"] = markup(", ".join(map(str, results["seeds"])) or "none")
    facts["Held-out examples"] = f"{results['examples']:,}"
    facts["Samples a run"] = f"{results['samples']:,}"
    if judged:
        extractor = judged.get("extractor") or {}
        name, digest, given = (markup(str(extractor.get(k))) for k in ("name", "sha256", "input"))
        facts["Extractor"] = f"{name}, SHA-256 <code>{digest}</code>; {given}"
        facts["Counts"] = (
            f"{judged.get('fake', 0):,} samples against {judged.get('real', 0):,} training examples; "
            f"{judged.get('held_out', 0):,} held-out examples behind what real data get"
        )
        facts["Intervals"] = markup(str(judged.get("intervals")))
    spaces = dict.fromkeys(r["memorisation"]["space"] for r in runs if r["memorisation"])
    if spaces:
        facts["Nearness"] = markup("; ".join(spaces))
    if results["anomalies"]:
        facts["Anomalies"] = markup(results["anomalies"])
    facts["Over seeds"] = "a figure of several seeds is their mean; below it stand the lowest and the highest run"
    facts["Machine"] = markup(environment_text(results["environment"]))
    rows = "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in facts.items())
    left = ""
    if album.left_out:
        names = markup(", ".join(album.left_out))
        left = (
            f"<p class=absent>Left out, so that the page stays under {LIMIT // 10**6} MB: {names}. They lie in the run "
            "folders.</p>"
        )
    return (
        f'<dl class="facts wide">{rows}</dl>{left}<h3>The command</h3>{command(results["command"])}'
        '<p class=note>The same figures for other programs: <a href="results.csv">results.csv</a>, '
        '<a href="results.json">results.json</a>.</p>'
    )


def _plainly(value: Any, between: str = "; ", after: str = ": ") -> str:
    """A record in words, e.g. ``name: digits; sizes: train 1,257, test 360``; what is empty is left out."""
    if isinstance(value, dict):
        kept = {str(k).replace("_", " "): v for k, v in value.items() if v not in (None, "", [], {})}
        return between.join(f"{k}{after}{_plainly(v, ', ', ' ')}" for k, v in kept.items())
    if isinstance(value, list):
        return ", ".join(_plainly(v, ", ", " ") for v in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _footer(results: Results) -> str:
    version = results["environment"].get("unsup", "")
    when = results["environment"].get("time", "")
    return markup(" · ".join(str(p) for p in (f"unsup {version}".strip(), when) if p))
