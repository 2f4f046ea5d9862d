"""The README's commands and code are run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unsup.cli.main import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].split()
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S)
    for line in block.splitlines()
    if line.strip()
]
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = [c[1] for c in COMMANDS if c[0] == "make"]
    assert targets == ["demo", "test"]
    assert all(f"\n{t}:" in makefile for t in targets)


def fewer_steps(words: list[str]) -> list[str]:
    """The same command with at most 20 steps of training."""
    return [str(min(20, int(w))) if before == "--steps" else w for before, w in zip(["", *words], words, strict=False)]


@pytest.mark.slow
def test_commands_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = [c for c in COMMANDS if c[0] == "unsup"]
    assert len(commands) >= 10
    for command in commands:
        assert main(fewer_steps(command[1:])) == 0, command
    assert {"grid.png", "scores.csv", "z.npz", "out.npy"} <= {p.name for p in tmp_path.iterdir()}


@pytest.mark.parametrize("program", PROGRAMS, ids=["six lines", "own loop"])
def test_programs_run(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(re.sub(r"steps=\d+", "steps=20", program), "README.md", "exec"), {})


def test_pictures_and_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_every_model_is_in_the_readme():
    from unsup.core.registry import names

    assert all(f"`{name}`" in TEXT for name in names())
