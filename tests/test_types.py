"""Types: strict everywhere, exceptions that can only become fewer, and stubs that say what the registry says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXCEPTIONS = {  # how many lines of each file mypy is told to leave alone; lower a number when it falls
    "src/unsup/contest/existing.py": 1,
    "src/unsup/core/batch.py": 2,
    "src/unsup/core/model.py": 1,
    "src/unsup/data/standard.py": 1,
    "src/unsup/families/adversarial/gan.py": 2,
    "src/unsup/sklearn/facade.py": 1,
    "src/unsup/train/gradients.py": 1,
    "src/unsup/train/optimizers.py": 1,
}


def test_strictness_has_no_exception_by_module():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"]
    assert settings["packages"] == ["unsup"]
    for override in settings["overrides"]:
        assert set(override) == {"module", "ignore_missing_imports"}, override
        assert not any(name.startswith("unsup") for name in override["module"])


def test_exceptions_by_line_become_fewer():
    found = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        count = len(re.findall(r"#\s*type:\s*ignore", path.read_text()))
        if count:
            found[str(path.relative_to(ROOT))] = count
    assert found == EXCEPTIONS


def _stubs():
    spec = importlib.util.spec_from_file_location("stubs", ROOT / "scripts" / "stubs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stubs_are_those_of_the_registry():
    stubs = _stubs()
    assert stubs.FILE.read_text() == stubs.text(), "run python scripts/stubs.py"


@pytest.mark.slow
def test_an_editor_knows_the_options_of_a_model_and_the_settings(tmp_path):
    code = (
        "import unsup\n"
        "data = unsup.load_data('digits')\n"
        "model = unsup.create('made', data.event, hidden=(3,), masks=2)\n"
        "reveal_type(model)\n"
        "reveal_type(data.train.x)\n"
        "unsup.fit(model, data, steps=3, lr='fast')\n"
        "unsup.fit(model, data, stepss=3)\n"
    )
    (tmp_path / "snippet.py").write_text(code)
    # With the settings of the library, so that what mypy knows of it is used again.
    command = [sys.executable, "-m", "mypy", str(tmp_path / "snippet.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "unsup.families.autoregressive.made.MADE" in done.stdout
    assert '"torch._tensor.Tensor"' in done.stdout
    assert 'snippet.py:6: error: Argument "lr"' in done.stdout
    assert 'snippet.py:7: error: Unexpected keyword argument "stepss"' in done.stdout
