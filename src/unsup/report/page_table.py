"""The main table of the page, and the list of those who are not in it."""

from __future__ import annotations

from unsup.core.escapes import markup
from unsup.evaluate.records import Contestant, Results
from unsup.report.figures import (
    COLUMNS,
    STATUS,
    Column,
    Figure,
    bits_per_dim,
    finite,
    in_order,
    interval,
    kind,
    kind_order,
    mark,
    sign,
)
from unsup.report.svg import number

_KIND_WORDS = {"exact": "exact", "bound": "bound", "estimate": "estimate", "unnormalised": "unnormalised"}


def main_table(results: Results) -> str:
    """All contestants with measures by all measures that any of them has."""
    rows = in_order(results["contestants"])
    if not rows:
        return '<p class="absent">No contestant has been measured yet.</p>'
    shown = [c for c in COLUMNS if any(c.figure(r) for r in rows)]
    head = '<th scope="col" data-sort="text">Model</th>' + "".join(_head(c) for c in shown)
    groups: list[list[Contestant]] = []
    for row in rows:
        if not groups or kind_order(groups[-1][0]) != kind_order(row):
            groups.append([])
        groups[-1].append(row)
    body = "".join(
        f'<tr{_group_rule(g, i)}><th scope="row">{_name(r, results)}</th>'
        + "".join(_cell(c, r, results) for c in shown)
        + "</tr>"
        for g in groups
        for i, r in enumerate(g)
    )
    return (
        '<div class="scroll" role="region" tabindex="0" aria-labelledby="table-caption">'
        f'<table id="measures"><caption id="table-caption">{_caption(results, rows)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>{_floors(shown, results)}</table></div>"
        '<p class="visually-hidden" id="sorted" aria-live="polite"></p>'
    )


def _group_rule(group: list[Contestant], position: int) -> str:
    return (
        f' class="first" data-group="{kind_order(group[0])}"'
        if position == 0
        else f' data-group="{kind_order(group[0])}"'
    )


def _caption(results: Results, rows: list[Contestant]) -> str:
    several = any(len(r["runs"]) > 1 for r in rows)
    small = (
        "the mean over seeds, and below it the lowest and the highest run" if several else "its 95 % interval below it"
    )
    return (
        f"Every figure is of {results['examples']:,} held-out examples or {results['samples']:,} samples, with {small};"
        " nats are ± one standard error. More columns lie to the right."
        " <span class=needs-js>A heading sorts by its column.</span>"
    )


def _head(column: Column) -> str:
    first = "descending" if column.better == "higher" else "ascending"
    return (
        f'<th scope="col" data-sort="number" data-first="{first}" title="{markup(column.explain)}">'
        f"{markup(column.title)}</th>"
    )


def _name(contestant: Contestant, results: Results) -> str:
    place = results["contestants"].index(contestant)
    status = STATUS.get(contestant["status"])
    chip = f' <span class="chip warn">{status}</span>' if status else ""
    family = contestant["family"]
    if contestant["model"] != contestant["name"]:
        family = f"{contestant['model']}, {family}"
    return f'<a href="#model-{place}">{markup(contestant["name"])}</a>{chip}<small>{markup(family)}</small>'


def _cell(column: Column, contestant: Contestant, results: Results) -> str:
    figure = column.figure(contestant)
    if figure is None:
        why = "; ".join(
            dict.fromkeys(
                r["missing"][k]
                for r in contestant["runs"]
                for k in dict.fromkeys(_aliases(column))
                if k in r["missing"]
            )
        )
        hint = f' title="{markup(why)}"' if why else ""
        return f'<td class="none"{hint}><span aria-hidden="true">–</span><span class="visually-hidden">none</span></td>'
    best = mark(results["places"], column, contestant["name"])
    chip = f' <span class="chip {best}">{best}</span>' if best else ""
    strong = ' class="best"' if best == "best" else ""
    value = f"<td{strong} data-value='{figure.value!r}'>"
    if column.key == "likelihood":
        return value + _likelihood(contestant, figure, chip) + "</td>"
    spread = "" if column.better is None else interval(figure, column.show)
    more = f"<small>{spread}</small>" if spread else ""
    if column.key == "memorisation":
        copies = [r["memorisation"]["copies"] for r in contestant["runs"] if r["memorisation"]]
        more += f"<small>copies {number(100 * sum(copies) / len(copies), 1)} %</small>"
    return f"{value}<span class=figure>{column.show(figure.value)}</span>{chip}{more}</td>"


def _aliases(column: Column) -> tuple[str, ...]:
    """Names under which a measure's absence may be explained."""
    judged = dict.fromkeys(("fid", "kid", "precision", "recall"), "quality")
    parents = judged | dict.fromkeys(("auroc", "average_precision"), "anomaly") | {"implied_bytes": "likelihood"}
    return column.key, parents.get(column.key, column.key)


def _likelihood(contestant: Contestant, figure: Figure, chip: str) -> str:
    own = kind(contestant)
    mark_, bits = sign(own), bits_per_dim(contestant)
    errors = [finite(r["likelihood"]["standard_error"]) for r in contestant["runs"] if r["likelihood"]]
    noise = ""
    if len(figure.seeds) == 1 and errors[0] is not None:
        noise = f" ± {number(errors[0], 2)}"
    lines = [f"{mark_} {number(bits.value, 4)} bits/dim"] if bits else []
    if len(figure.seeds) > 1 and figure.interval:
        lines.append(f"{number(figure.interval[0], 2)} to {number(figure.interval[1], 2)}")
    small = "".join(f"<small>{t}</small>" for t in lines)
    return (
        f'<span class=figure>{mark_} {number(figure.value, 2)}{noise} nats</span> <span class="kind {markup(own)}">'
        f"{markup(_KIND_WORDS.get(str(own), own))}</span>{chip}{small}"
    )


def _floors(shown: list[Column], results: Results) -> str:
    values = [c.floor(results) for c in shown]
    if all(v is None for v in values):
        return ""
    cells = "".join(
        '<td class="none"></td>' if v is None else f"<td>{c.show(v)}</td>" for c, v in zip(shown, values, strict=True)
    )
    return (
        '<tfoot><tr><th scope="row">Real data<small>held-out examples as samples, raw data as codes, '
        f"or chance</small></th>{cells}</tr></tfoot>"
    )


def table_notes(results: Results) -> str:
    """How to read the table."""
    rows = in_order(results["contestants"])
    kinds = {k for r in rows if (k := kind(r))}
    said = []
    if kinds:
        words = {
            "exact": "<b>=</b> exact",
            "bound": "<b>≤</b> an upper bound: the truth is as low or lower",
            "estimate": "<b>≈</b> an estimate, which may err to either side",
            "unnormalised": "<b>∝</b> known up to a constant only, not comparable at all",
        }
        said.append(
            "Likelihoods are mean negative log-likelihoods, lower is better: "
            + "; ".join(words[k] for k in words if k in kinds)
            + ". Exact figures, bounds and estimates are not ranked against each other: sorted by likelihood, each "
            "kind stays together."
        )
    if any(results["places"].values()):
        said.append(
            "<b>best</b> is better than all others by more than the noise; <b>tie</b> cannot be told from the best."
        )
    if rows:
        said.append("A model’s name leads to its runs, the commands that made them, and why a figure is missing.")
    return "".join(f"<p class=note>{s}</p>" for s in said)


def absentees(results: Results) -> str:
    """Those that failed, did not finish or did not start, with the reason."""
    rows = [c for c in results["contestants"] if c["status"] != "done"]
    if not rows:
        return ""
    items = "".join(
        f"<li><b>{markup(c['name'])}</b> <span class='chip warn'>{STATUS[c['status']]}</span> "
        f"{markup(c['reason'] or 'its turn comes when the contest goes on')}</li>"
        for c in rows
    )
    return f"<h3>Not finished</h3><ul class=absentees>{items}</ul>"
