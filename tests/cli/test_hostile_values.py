"""Hostile values of every flag with a number: one line, exit status 2, nothing written; seeds may be any integer."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from unsup.cli import options as cli_options
from unsup.cli.main import main
from unsup.core.config import check_value

NUMBERS = ["-1", "0", "nan", "inf", "-inf", "1e400", "-1e400", "1e308", "0.5", str(2**70), "9" * 150, "½", "1_0"]
VALUES = [*NUMBERS, "x", "", "--", "0x10"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "r"
    assert main(["fit", "moons", "histogram", "--n", "200", "-o", str(folder), "--plain"]) == 0
    return folder


COMMANDS = {
    "fit": ["fit", "moons", "made", "-o", "{out}"],
    "sample": ["sample", "{run}", "-o", "{out}.npy"],
    "score": ["score", "{run}", "moons"],
    "eval": ["eval", "{run}"],
    "compare": ["compare", "moons", "-o", "{out}"],
    "probe": ["probe", "{run}"],
    "map": ["map", "{run}", "-o", "{out}.png"],
    "neighbours": ["neighbours", "{run}", "moons"],
    "outliers": ["outliers", "moons", "-o", "{out}.csv"],
    "check": ["check", "{run}"],
    "augment": ["augment", "digits", "--recipe", "crop", "-o", "{out}.png"],
}


class _Stop(Exception):
    """The command line was taken."""


def flags_of(command: str, run: Path) -> dict[str, tuple[str, object]]:
    """The flags with numbers of a command, with their annotation, as its own parser has them."""
    found = {}

    def parse(self, arguments):
        found.update(self.annotations)
        raise _Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_options.Parser, "parse", parse)
        module = importlib.import_module(f"unsup.cli.{command}")
        with pytest.raises(_Stop):
            module.main([word.format(run=run, out="o") for word in COMMANDS[command][1:]])
    return found


def is_taken(annotation: object, word: str) -> bool:
    """Whether a word is a value of the annotation, by its type and range."""
    for kind in (int, float):
        try:
            check_value("it", kind(word), annotation)
        except (ValueError, OverflowError):
            continue
        return True
    return False


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hostile_value_ends_in_one_line(call, run, tmp_path, command, monkeypatch):
    parse = cli_options.Parser.parse

    def only_parse(self, arguments):
        parse(self, arguments)
        raise _Stop

    monkeypatch.setattr(cli_options.Parser, "parse", only_parse)
    base = [word.format(run=run, out=tmp_path / "out") for word in COMMANDS[command]]
    flags = flags_of(command, run)
    assert flags
    numbers = {flag: a for flag, a in flags.values() if cli_options.bare(a) in (int, float)}
    assert numbers
    for flag, annotation in numbers.items():
        for word in VALUES:
            try:
                found = call(*base, f"{flag}={word}" if flag.startswith("--") else f"{flag}{word}")
            except _Stop:
                assert is_taken(annotation, word), (flag, word)
                continue
            assert not is_taken(annotation, word), (flag, word, found.err)
            assert found.status == 2, (flag, word, found)
            assert found.err.count("\n") == 1, (flag, word, found.err)
            assert "Traceback" not in found.err
            assert flag in found.err or word in found.err
    assert not list(tmp_path.iterdir())


def test_every_number_of_every_command_has_a_range(run):
    """A flag with a number that does not state its range would take any value."""
    for command in COMMANDS:
        flags = flags_of(command, run)
        module = importlib.import_module(f"unsup.cli.{command}")
        parsers = []

        def parse(self, arguments, kept=parsers):
            kept.append(self)
            raise _Stop

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cli_options.Parser, "parse", parse)
            with pytest.raises(_Stop):
                module.main([word.format(run=run, out="o") for word in COMMANDS[command][1:]])
        for action in parsers[0]._actions:
            if isinstance(action, argparse._StoreAction) and action.type in (int, float):
                assert action.dest in flags, (command, action.dest)


RUNS = [
    ["fit", "moons", "made", "--preset", "tiny", "--n", "100", "--plain", "-o", "{out}", "--steps", "1"],
    ["sample", "{run}", "-n", "2", "-o", "{out}.npy"],
    ["score", "{run}", "moons"],
    ["eval", "{run}"],
]


@pytest.mark.parametrize("seed", [2**70, -1, -(2**70), 10**99])
@pytest.mark.parametrize("base", RUNS, ids=lambda base: base[0])
def test_any_integer_is_a_seed(call, run, tmp_path, base, seed):
    words = [word.format(run=run, out=tmp_path / "o") for word in base]
    assert call(*words, f"--seed={seed}").status == 0
    if base[0] == "fit":  # a run of that seed can be read
        assert call("eval", tmp_path / "o").status == 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(2**20, 2**62))
@example(n=2**62)
def test_more_samples_than_memory_are_refused(call, run, tmp_path, n):
    found = call("sample", run, "-n", n, "-o", tmp_path / "x.npy", "--max-memory", 0.001)
    assert found.status == 2
    assert "memory" in found.err
    assert found.err.count("\n") == 1
