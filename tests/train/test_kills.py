"""Every model, killed with SIGKILL at random points and gone on with, ends as one that nobody killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unsup.core.registry import names

KILLS = 20
# Data that each model takes, as small as they come.
ON = {
    "bernoulli-mixture": ["BITS"],
    "rbm": ["BITS"],
    "pixelcnn": ["digits", "--limit", "120"],
    "gated-pixelcnn": ["digits", "--limit", "120"],
    "conditional-2d": ["PAIRS"],
    "fvsbn": ["BITS"],
    "nade": ["BITS"],
    "parallel-multiscale": ["digits", "--limit", "120"],
    "subscale": ["digits", "--limit", "120"],
    "subscale-depth": ["GREY"],
    "vae": ["digits", "--limit", "200"],
    "cyclegan": ["stripes", "--n", "60"],
}
MORE = {
    "gaussian-mixture": ["--model.tolerance", "0.01"],
    "bernoulli-mixture": ["--model.tolerance", "0.01"],
    "made": ["--ema", "0.9"],
    "vae": ["--accumulate", "2"],
}
STEPS = ["--steps", "8", "--validate-every", "3", "--batch-size", "8"]
COUNT = ("histogram", "gaussian-mixture", "bernoulli-mixture")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", names())
def test_a_model_killed_at_random_points_ends_as_one_never_killed(name, tmp_path, capsys):
    random = np.random.default_rng(0)
    np.save(tmp_path / "bits.npy", (random.random((120, 12)) < 0.4).astype(np.uint8))
    np.save(tmp_path / "pairs.npy", (random.random((120, 2)) * 5).astype(np.uint8))
    np.save(tmp_path / "grey.npy", (random.random((120, 1, 4, 4)) * 256).astype(np.uint8))
    data, *options = ON.get(name, ["moons", "--n", "200"])
    data = str(tmp_path / f"{data.lower()}.npy") if data.isupper() else data
    words = [data, name, "--preset", "tiny", *options, *MORE.get(name, []), *([] if name in COUNT else STEPS)]
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), str(tmp_path), str(KILLS), "0", *words]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        print(f"\n{name}: {', '.join(f'{k} {v}' for k, v in found.items() if k != 'faults')}")
    assert found["faults"] == []
    assert found["kills"] == KILLS
    assert found["alike"] == found["kills"] + found["too late"]
    assert found["before a checkpoint"] >= 1
