"""The readers' signatures are the data flags: read without torch, the same as the functions have, all explained."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from unsup.cli import options
from unsup.core.config import options_of
from unsup.data import catalog
from unsup.data.options import Signature, signatures


@pytest.mark.parametrize("signature", list(signatures()), ids=lambda s: s.target)
def test_signatures_are_those_of_the_functions(signature: Signature) -> None:
    module, _, name = signature.target.partition(":")
    function = getattr(importlib.import_module(module), name)
    assert signature.options == options_of(function)
    assert signature.docstring == inspect.getdoc(function)


def test_every_flag_is_explained_and_stands_for_nothing_when_it_is_not_said() -> None:
    record = options.DataOptions
    fields = {field.name: field.default for field in dataclasses.fields(record)}
    assert set(fields) >= {
        *catalog.EXAMPLE_OPTIONS,
        "limit",
        "without",
        "domain_b",
        "unlabelled",
        "given",
        "n",
        "in_memory",
    }
    assert "download" not in fields
    assert set(fields.values()) == {None}
    assert set(options.DATA_OPTIONS) == set(fields)
    parser = options.Parser(prog="unsup fit")
    options.add_fields(parser, record, title="data")
    explained = {action.dest: action.help for action in parser._actions if action.dest != "help"}
    assert set(explained) == set(fields)
    assert all(text and len(text) > 10 for text in explained.values())


def test_a_new_option_of_a_reader_is_a_flag_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stars.py").write_text(
        "from __future__ import annotations\n"
        "import torch\n"
        "def read_stars(path, *, magnitude: Positive = 6.5, bands: tuple[str, ...] = ()):\n"
        '    """Stars.\n\n    Args:\n        magnitude: of the faintest star.\n'
        '        bands: names of filters.\n    """\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(catalog.READERS, "stars", "stars:read_stars")
    options.data_options.cache_clear()
    try:
        parser = options.Parser(prog="unsup fit")
        options.add_fields(parser, options.DataOptions, title="data")
        found = parser.parse(["--magnitude", "7", "--bands", "u", "g"])
        assert options.chosen(found, options.DATA_OPTIONS) == {"magnitude": 7.0, "bands": ("u", "g")}
        assert "of the faintest star" in parser.format_help()
    finally:
        options.data_options.cache_clear()


@pytest.mark.parametrize("command", ["score", "encode", "compare"])
def test_flags_of_data_are_listed_without_torch(command: str) -> None:
    code = f"import sys; from unsup.cli.main import main; main([{command!r}, '--help'])"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys, atexit; atexit.register(lambda: print('torch' in sys.modules)); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--resize N" in found.stdout
    assert found.stdout.splitlines()[-1] == "False"
