"""Likelihoods of tables with discrete and real columns, and with missing cells, on the command line and on pages."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import unsup
from unsup.core.event import REAL, Event, Support
from unsup.core.likelihood import parts_in_words

RNG = np.random.default_rng(0)
SUPPORTS = st.sampled_from([REAL, Support("binary"), Support("ordinal", 5), Support("nominal", 4)])


@given(supports=st.lists(SUPPORTS, min_size=1, max_size=40).map(tuple))
def test_every_column_is_counted_as_a_mass_or_a_density(supports: tuple[Support, ...]) -> None:
    """The names that are given have their own kind, and with the numbers of the others all columns are counted."""
    names = [f"c{d}" for d in range(len(supports))]
    told = parts_in_words(Event((len(supports),), supports), names)
    discrete = {name for name, s in zip(names, supports, strict=True) if s.kind != "real"}
    if len(discrete) in (0, len(names)):
        assert told == ""
        return
    masses, densities, _ = told.split("; ")
    for said, own in ((masses, discrete), (densities, set(names) - discrete)):
        shown = re.findall(r"c\d+", said)
        assert set(shown) <= own
        rest = re.search(r"(\d+) more|the other (\d+) columns", said)
        assert len(shown) + (int(rest[1] or rest[2]) if rest else 0) == len(own)
        assert len(said) < 60
    assert "c" in masses.removeprefix("masses: the other") or "c" in densities.removeprefix("densities: the other")


def mixed(folder: Path, gaps: float = 0.0) -> Path:
    rows = [("size", "colour", "price", "rooms")]
    for _ in range(120):
        cells = (f"{RNG.normal():.3f}", "rgb"[RNG.integers(3)], f"{RNG.normal():.3f}", str(RNG.integers(1, 5)))
        rows.append(tuple("" if RNG.random() < gaps else cell for cell in cells))
    path = folder / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_masses_and_densities_are_named(tmp_path: Path, call: Callable[..., object]) -> None:
    """By fit, eval, score, the page of the run and that of a comparison."""
    data, run = mixed(tmp_path), tmp_path / "run"
    words = "masses: colour, rooms; densities: size, price; nats and bits mix both"
    assert words in call("fit", data, "made", "-o", run, "--steps", 5, "--preset", "tiny", "--plain").out
    assert words in call("eval", run).out
    assert words in call("score", run, data, "-o", tmp_path / "scores.csv").out
    for page in ("report.html", "README.md"):
        assert words in (run / page).read_text()
    assert call("compare", data, "-o", tmp_path / "all", "--models", "histogram", "--plain").status == 0
    assert "Masses: colour, rooms; densities: size, price" in (tmp_path / "all" / "index.html").read_text()


@pytest.mark.parametrize("model", ["made", "gaussian-mixture", "histogram", "vae"])
def test_bits_are_per_known_entry(model: str, tmp_path: Path, call: Callable[..., object]) -> None:
    data, run = mixed(tmp_path, gaps=0.3), tmp_path / "run"
    steps = () if model in ("gaussian-mixture", "histogram") else ("--steps", 5)
    assert call("fit", data, model, "-o", run, *steps, "--preset", "tiny", "--plain").status == 0
    scores = tmp_path / "scores.csv"
    call("score", run, data, "-o", scores)
    with data.open() as file, scores.open() as other:
        for cells, score in zip(list(csv.reader(file))[1:], csv.DictReader(other), strict=True):
            known = max(1, sum(map(bool, cells)))
            nats = -float(score["log_prob_nats"])
            assert float(score["bits_per_dim"]) == pytest.approx(nats / math.log(2) / known, abs=2e-6)
    figure = json.loads(call("eval", run, "--json").out)["figures"]["likelihood"]
    test = unsup.load_data(data).test
    known = int((~test.x.isnan()).sum())
    expected = figure["value"] * len(test) / math.log(2) / known
    assert figure["detail"]["bits_per_dim"] == pytest.approx(expected, rel=1e-6)
