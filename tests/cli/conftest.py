"""What the command-line tests share: calling a command in this process, and small trained runs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import unsup
from unsup.cli.main import main
from unsup.core.registry import fitting, row

# Models of one domain that take 8×8 images of 17 levels; of those that only differ in the layers of a network, some.
ALIKE = {"pixelrnn", "pixelsnail", "image-transformer", "sparse-transformer", "transformer-xl", "wavenet", "subscale"}
ON_DIGITS = [
    n for n in fitting(unsup.load_data("digits").event) if "translate" not in row(n).abilities and n not in ALIKE
]


@dataclass(frozen=True)
class Called:
    status: int
    out: str
    err: str


@pytest.fixture
def call(capsys) -> Callable[..., Called]:
    """``call("fit", "digits", …)``: exit status, standard output, standard error."""

    def run(*words: object) -> Called:
        capsys.readouterr()
        status = main([str(w) for w in words])
        captured = capsys.readouterr()
        return Called(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def own_models():
    """The models of `own_models` in the registry, for one module of tests."""
    from own_models import ROWS

    import unsup.core.rows

    with pytest.MonkeyPatch.context() as patch:
        for found in ROWS:
            patch.setitem(unsup.core.rows._ROWS, found.name, found)
        yield


class Runs:
    """Small finished runs of every model on digits: ``runs / "made"`` trains it when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __truediv__(self, name: str) -> Path:
        out = self._folder / name
        if name in ON_DIGITS and not out.exists():
            steps = [] if name in ("histogram", "gaussian-mixture") else ["--steps", "5"]
            words = ["fit", "digits", name, "-o", str(out), "--preset", "tiny", "--limit", "200", "--plain", *steps]
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                assert main(words) == 0
        return out


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))
