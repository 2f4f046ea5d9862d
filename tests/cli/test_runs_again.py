"""A run that is used again: longer, elsewhere, by two processes, and saved models in its place."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import unsup
from unsup.cli.main import main

STEPS = ("--preset", "tiny", "--steps", "3", "--plain")


def table(path: Path, seed: int = 0) -> Path:
    rows = np.random.default_rng(seed).normal(size=(200, 2))
    path.write_text("a,b\n" + "".join(f"{a:.6f},{b:.6f}\n" for a, b in rows))
    return path


@pytest.fixture
def trained(tmp_path) -> tuple[Path, Path]:
    """A table and a finished run on it."""
    data, run = table(tmp_path / "t.csv"), tmp_path / "r"
    assert main(["fit", str(data), "made", "-o", str(run), *STEPS]) == 0
    return data, run


def refused(found, *words: str) -> None:
    (line,) = found.err.splitlines()
    assert found.status == 2
    for word in words:
        assert word in line, line


# --- finished runs ----------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_read_again(call, trained):
    data, run = trained
    data.unlink()
    found = call("fit", "--resume", "-o", run)
    assert (found.status, found.out) == (0, "")
    assert found.err == f"{run} has already finished (completed at step 3); nothing to do\n"
    (run / "report.html").unlink()
    assert call("fit", "--resume", "-o", run).status == 0
    assert (run / "report.html").is_file()


def test_a_finished_run_is_not_trained_longer(call, trained):
    _, run = trained
    refused(call("fit", "--resume", "-o", run, "--steps", 9), "completed at step 3", "train a new run with --steps")
    refused(call("fit", "--resume", "-o", run, "--lr", 0.5), "cannot be changed on resume; remove --lr")


# --- data that moved --------------------------------------------------------------------------------------------------


def test_data_that_moved_is_named_and_compared(call, trained, tmp_path):
    data, run = trained
    moved = data.rename(tmp_path / "moved.csv")
    refused(call("eval", run), str(data), "--data PATH")
    told = call("eval", run, "--data", moved)
    assert told.status == 0
    assert call("report", run, "--data", moved, "-o", tmp_path / "page", "--plain").status == 0
    assert unsup.open_run(run, data=str(moved)).data.name == str(moved)
    refused(call("eval", run, "--data", table(tmp_path / "other.csv", 1)), "has changed")
    refused(call("eval", run, "--data", tmp_path / "none.csv"), "none.csv")


def test_a_run_is_resumed_with_its_data_elsewhere(call, trained, tmp_path):
    data, _ = trained
    run = tmp_path / "again"
    from unsup.train.runs import Run

    loaded = unsup.load_data(data)
    unsup.fit(unsup.create("made", loaded, preset="tiny"), loaded, out=run, steps=3, progress="off")
    for name in ("last", "best"):
        Run(run).checkpoint(name).unlink()
    (run / "events.jsonl").unlink()
    refused(call("fit", "--resume", "-o", run, table(tmp_path / "other.csv", 1)), "cannot be changed on resume")
    moved = data.rename(tmp_path / "moved.csv")
    refused(call("fit", "--resume", "-o", run), "unsup fit PATH --resume")
    refused(call("fit", tmp_path / "other.csv", "--resume", "-o", run), "has changed")
    assert call("fit", moved, "--resume", "-o", run).status == 0
    assert json.loads((run / "config.json").read_text())["data"]["name"] == str(moved)
    assert call("eval", run).status == 0  # the new place is recorded


# --- two processes ----------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(call, tmp_path):
    run = tmp_path / "r"
    command = [sys.executable, "-m", "unsup", "fit", "moons", "made", "-o", str(run), "--preset", "tiny"]
    first = subprocess.Popen([*command, "--steps", "10000000", "--plain"], stderr=subprocess.DEVNULL)
    try:
        while not (run / "checkpoints/last.safetensors").is_file():
            assert first.poll() is None
            time.sleep(0.1)
        refused(call("fit", "--resume", "-o", run), f"another unsup fit (process {first.pid})", str(run))
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    from unsup.core.storage import held_alone

    with held_alone(run, "unsup fit"):
        assert json.loads((run / ".lock").read_text())["process"] == os.getpid()
    assert (run / ".lock").read_bytes() == b""


# --- saved models -----------------------------------------------------------------------------------------------------


def test_saved_models_are_taken_where_the_model_is_enough(call, trained, tmp_path):
    data, run = trained
    saved, codes, x = tmp_path / "saved", tmp_path / "vae", tmp_path / "x.csv"
    unsup.load(run).save(str(saved))
    unsup.create("vae", unsup.load_data(data), preset="tiny").save(str(codes))
    shutil.copy(data, x)
    scores = call("score", saved, x)
    assert scores.status == 0
    assert scores.out == call("score", run, x).out
    for words in (
        ("sample", saved, "-n", 5, "-o", tmp_path / "s.npy"),
        ("sample", saved, "-n", 5, "-o", tmp_path / "s.png"),
        ("encode", codes, x, "-o", tmp_path / "z.npz"),
        ("decode", codes, tmp_path / "z.npz", "-o", tmp_path / "y.npy"),
        ("outliers", x, "--model", saved),
        ("cite", saved),
    ):
        found = call(*words)
        assert found.status == 0, (words, found.err)
    for words in (
        ("eval", saved),
        ("report", saved, "-o", tmp_path / "page"),
        ("fit", "--resume", "-o", saved),
        ("check", saved),
    ):
        refused(call(*words), f"{saved} is a saved model, not a run folder", "sample, score, encode")


# --- the flags of data ------------------------------------------------------------------------------------------------


def help_of(capsys, *words: object) -> str:
    capsys.readouterr()
    with suppress(SystemExit):  # argparse exits after a help text
        assert main([*map(str, words), "--help"]) == 0
    return capsys.readouterr().out


def test_help_lists_the_flags_of_the_data_that_is_named(capsys, trained, tmp_path):
    data, run = trained
    text = tmp_path / "t.txt"
    text.write_text("text\n" * 100)
    for command, *rest in (("fit", "made"), ("fit",), ("compare",), ("outliers",), ("data",)):
        own = help_of(capsys, command, data, *rest)
        assert "--label " in own
        assert "--resize" not in own
        assert "--field" not in own
        assert f"data: {data}" in own
        other = help_of(capsys, command, text, *rest)
        assert "--length" in other
        assert "--label " not in other
        for every in (help_of(capsys, command), help_of(capsys, command, tmp_path / "none.csv")):
            assert all(flag in every for flag in ("--label", "--resize", "--length"))
    for command in ("score", "encode", "predict"):
        own = help_of(capsys, command, run, data)
        assert "--label " in own
        assert "--resize" not in own
        assert "--resize" in help_of(capsys, command)
