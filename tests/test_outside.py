"""A model from an installed package has the commands, the laws, runs and contests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

OUTSIDE = Path(__file__).parent / "outside"


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("outside") / "table.csv"
    x = np.random.default_rng(0).normal((3, -1), (0.5, 2), size=(400, 2))
    np.savetxt(path, x, delimiter=",", header="a,b", comments="")
    return path


PROGRAM = """
import contextlib, io, json, sys
from unsup.cli.main import main
told = []
for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = main(words)
    assert status == 0, words
    told.append(out.getvalue())
print(json.dumps(told))
"""


def unsup(*commands: tuple[object, ...]) -> list[str]:
    """Standard output of each command, in one process with the outside package installed."""
    paths = [str(OUTSIDE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    words = json.dumps([[*map(str, command)] for command in commands])
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, input=words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told: list[str] = json.loads(done.stdout)
    return told


def test_it_is_short():
    assert len((OUTSIDE / "independent_gaussians.py").read_text().splitlines()) <= 60


def test_it_has_the_commands_and_a_run(table, tmp_path):
    run = tmp_path / "run"
    models, _, evaluated, _, _, options, cited = unsup(
        ("models",),
        ("fit", table, "independent-gaussians", "-o", run, "--steps", 300, "--lr", 0.05, "--model.spread", 2),
        ("eval", run, "--json"),
        ("sample", run, "-n", 2000, "-o", tmp_path / "x.npy"),
        ("sample", "--sample.temperature", 0.001, run, "-o", tmp_path / "cold.npy"),
        ("sample", run, "--help"),
        ("cite", run),
    )
    (line,) = (line for line in models.splitlines() if line.startswith("independent-gaussians"))
    assert "score sample temper" in line
    found = json.loads(evaluated)["figures"]["likelihood"]
    expected = 0.5 * np.log(2 * np.pi * np.e * np.array([0.25, 4])).sum()  # the entropy of the truth
    assert found["detail"]["kind"] == "exact"
    assert found["value"] == pytest.approx(expected, abs=0.3)
    assert np.load(tmp_path / "x.npy").mean(0) == pytest.approx([3, -1], abs=0.3)
    assert np.load(tmp_path / "cold.npy").std(0) == pytest.approx([0, 0], abs=0.01)
    assert "--sample.temperature" in options
    assert "gauss1809" in cited


def test_it_has_the_laws_and_takes_part_in_a_contest(table, tmp_path):
    folder = tmp_path / "contest"
    models = ("--models", "gaussian-mixture,independent-gaussians")
    told, _ = unsup(("check", "independent-gaussians"), ("compare", table, *models, "--minutes", 0.02, "-o", folder))
    assert "failed" not in told
    assert "normalised" in told
    results = json.loads((folder / "results.json").read_text())
    assert "independent-gaussians" in json.dumps(results)


def test_another_model_of_the_same_name_is_refused():
    code = (
        "import dataclasses, unsup; from independent_gaussians import ROW\n"
        "unsup.register(ROW); unsup.register(dataclasses.replace(ROW, target='elsewhere:Model'))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(OUTSIDE), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is already a model 'independent-gaussians'" in done.stderr
