"""Runs on words of a text, and samples of sequences of any length, from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

TEXT = "To be, or not to be: that is the question.\n" * 30


@pytest.fixture
def play(tmp_path: Path) -> Path:
    path = tmp_path / "text" / "tinyshakespeare" / "input.txt"
    path.parent.mkdir(parents=True)
    path.write_text(TEXT)
    return path


def test_a_run_of_words_from_the_command_line(play: Path, tmp_path: Path, call) -> None:
    options = ["--data-dir", tmp_path, "--length", 6, "--vocabulary", 9, "--preset", "tiny", "--plain"]
    run = tmp_path / "run"
    assert call("fit", "tinyshakespeare-words", "hmm", "-o", run, *options).status == 0
    found = call("sample", run, "-n", 3, "--prompt", "to be", "-o", tmp_path / "s.txt")
    assert found.status == 0, found.err
    assert (tmp_path / "s.txt").read_text().startswith("to be")
    found = call("eval", run)
    assert "bits/word" in found.out
    found = call("score", run, play)
    assert found.status == 0, found.err
    assert "bits_per_word" in found.out
    found = call("compress", play, run, "-o", tmp_path / "c.unsup")
    assert found.status == 2  # words do not have all of a text


@pytest.fixture
def series(tmp_path: Path) -> Path:
    path = tmp_path / "series.csv"
    path.write_text("\n".join(["a,b", *(f"{np.sin(t):.2f},{t % 7}" for t in range(400))]) + "\n")
    return path


def test_series_of_any_length(series: Path, tmp_path: Path, call) -> None:
    run = tmp_path / "run"
    assert call("fit", series, "hmm", "-o", run, "--length", 8, "--preset", "tiny", "--plain").status == 0
    for given, rows in (([], 8), (["--length", 50], 50), (["--length", 3], 3)):
        found = call("sample", run, "-n", 2, *given, "-o", tmp_path / "s.csv")
        assert found.status == 0, found.err
        lines = (tmp_path / "s.csv").read_text().splitlines()
        assert lines[0] == "window,a,b"
        assert [line.split(",")[0] for line in lines[1:]] == ["0"] * rows + ["1"] * rows
    found = call("sample", run, "--length", 50, "-n", 3, "-o", tmp_path / "s.npy")
    assert found.status == 0
    assert np.load(tmp_path / "s.npy").shape == (3, 50, 2)


def test_lengths_that_are_not_possible_are_refused(series: Path, tmp_path: Path, call) -> None:
    run = tmp_path / "run"
    assert call("fit", series, "hmm", "-o", run, "--length", 8, "--preset", "tiny", "--plain").status == 0
    found = call("sample", run, "--length", 50, "-o", tmp_path / "s.png")
    assert found.status == 2
    assert "a picture has samples of 8 steps; remove --length" in found.err
    found = call("sample", run, "--length", 50, "--seconds", 3, "-o", tmp_path / "s.csv")
    assert "both given" in found.err
    assert call("sample", run, "--length", 0, "-o", tmp_path / "s.csv").status == 2
    assert call("fit", series, "vae", "-o", tmp_path / "v", "--length", 8, "--steps", 2, "--preset", "tiny").status == 0
    found = call("sample", tmp_path / "v", "--length", 9, "-o", tmp_path / "s.csv")
    assert found.status == 2
    assert "length of its event only (8 steps); remove --length 9" in found.err
    assert call("fit", "moons", "histogram", "-o", tmp_path / "m").status == 0
    found = call("sample", tmp_path / "m", "--length", 9, "-o", tmp_path / "s.npy")
    assert "--length 9 is for sequences, but this run is of" in found.err
