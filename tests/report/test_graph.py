"""Graphs between columns as drawings, and on the page of a run."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import torch

import unsup
from unsup.data import Data, Split
from unsup.report.graph import graph, layers
from unsup.report.page import read_run, write_page


def test_parents_are_above_their_children() -> None:
    edges = [(j, i) for j, i in itertools.combinations(range(7), 2) if (3 * j + i) % 4]
    rows = layers(8, edges)
    rank = {v: depth for depth, row in enumerate(rows) for v in row}
    assert sorted(rank) == list(range(8))
    assert all(rank[j] < rank[i] for j, i in edges)
    assert rank[7] == 0  # alone
    with pytest.raises(ValueError, match="cycle"):
        layers(3, [(0, 1), (1, 2), (2, 0)])


def test_names_are_escaped_and_every_edge_is_said() -> None:
    drawn = graph(["a<b>", "c", "a name that is much too long"], [(0, 1), (0, 2)], "ident", "title")
    assert "<b>" not in drawn
    assert "a&lt;b&gt; → c" in drawn
    assert drawn.count("<polygon") == 2
    assert drawn.count("<rect") == 3


def test_the_page_of_a_run_shows_the_graph(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.randint(2, (400,), generator=g)
    b = torch.where(torch.rand(400, generator=g) < 0.9, a, 1 - a)
    x = torch.stack([a, b, torch.randint(2, (400,), generator=g)], 1)
    data = Data("rows", unsup.Event((3,), unsup.Support("binary")), Split(x[:300]), Split(x[300:350]), Split(x[350:]))
    model, folder = unsup.create("bayes-net", data.event, seed=0), tmp_path / "run"
    unsup.fit(model, data, out=folder, progress="off")
    write_page(folder)
    run, page = read_run(folder), (folder / "report.html").read_text()
    assert run.edges == model.links()  # type: ignore[attr-defined]
    assert len(run.edges) == 1
    assert re.search(r"<desc[^>]*>(0 → 1|1 → 0)</desc>", page)
    for damaged in ({"edges": [[0, 1], [1, 0]]}, {"edges": [[0, 9]]}, {"edges": "x"}):
        (folder / "graph.json").write_text(json.dumps(damaged))
        write_page(folder)
        assert "chart-graph" not in (folder / "report.html").read_text()
