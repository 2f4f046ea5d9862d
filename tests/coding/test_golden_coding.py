"""Golden files of compressed data are decoded by every later version, on any machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from environments import OTHERS
from forging_archives import files_in

import unsup
from unsup.coding import decompress
from unsup.coding.archive import Archive
from unsup.coding.arrays import coder_of
from unsup.coding.container import Container

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"


def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("unsup_golden_coding", ROOT / "scripts/golden_coding.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


golden = script()
NAMES = sorted(path.stem for path in GOLDEN.glob("*.npy"))
EXAMPLES = {name: np.load(GOLDEN / f"{name}.npy") for name in NAMES}


def test_every_case_has_its_files() -> None:
    assert [case.name for case in golden.CASES if case.name not in NAMES] == [], "run python scripts/golden_coding.py"
    assert len(NAMES) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_golden_files_are_decoded_for_ever(name: str) -> None:
    found = decompress(unsup.load(GOLDEN / name), (GOLDEN / f"{name}.unsup").read_bytes()).numpy()
    assert found.dtype == EXAMPLES[name].dtype
    assert found.shape == EXAMPLES[name].shape
    assert found.tobytes() == EXAMPLES[name].tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_golden_files_have_chunks_of_every_coder(name: str) -> None:
    """Else decoding them would not test the coders."""
    with Container.open(GOLDEN / f"{name}.unsup") as file:
        coders = [info.coder for info in file.infos()]
        assert coders.count(0) >= 2
        assert set(coders) == set(range(len(file.header["coders"])))


@pytest.mark.parametrize("name", NAMES)
def test_schemes_write_the_same_bytes(name: str) -> None:
    """Else increase the version of the scheme, and add golden files for it beside the old ones."""
    model, first = unsup.load(GOLDEN / name), 0
    with Container.open(GOLDEN / f"{name}.unsup") as file:
        coder, again = coder_of(model, file), 0
        for info in file.infos():
            x = torch.from_numpy(EXAMPLES[name][first : first + info.count])
            first += info.count
            if info.coder == 0 and bool(model.event.contains(x).all()):
                assert coder.encode(x).coded == file.chunk(info.number)
                again += 1
    assert again >= 1


@pytest.mark.parametrize("name", golden.ARCHIVES)
def test_golden_archives_are_restored_for_ever(name: str, tmp_path: Path) -> None:
    folder = GOLDEN / "archive"
    with Container.open(folder / f"{name}.unsup") as file:
        archive = Archive(file)
        coder = archive.coder(unsup.load(folder / name))
        archive.digests(coder)
        archive.restore(tmp_path, coder)
        assert {info.coder for info in file.infos()} >= {0, 1}
        kinds = {group.layout.kind for group in archive.groups}
    before, after = files_in(folder / f"{name}-files"), files_in(tmp_path)
    assert before.keys() == after.keys()
    assert [key for key in before if before[key] != after[key]] == []
    assert kinds == {"images": {"images", "array", "bytes"}, "table": {"table", "bytes"}}[name]


DECODE = """
import sys
import numpy as np
import torch
import unsup
from unsup.coding import decompress
torch.set_num_threads(int(sys.argv[2]))
for name in sys.argv[3:]:
    path = f"{sys.argv[1]}/{name}"
    x = decompress(unsup.load(path), open(f"{path}.unsup", "rb").read()).numpy()
    assert x.tobytes() == np.load(f"{path}.npy").tobytes(), name
"""


@pytest.mark.slow
@OTHERS
def test_golden_files_are_decoded_with_other_instructions_and_threads(threads: int, settings: dict[str, str]) -> None:
    words = [sys.executable, "-c", DECODE, str(GOLDEN), str(threads), *NAMES]
    subprocess.run(words, env=os.environ | settings, check=True, timeout=300)


@pytest.mark.parametrize("name", golden.ARCHIVES)
def test_golden_archives_are_restored_with_other_instructions_and_threads(name: str, tmp_path: Path) -> None:
    path = GOLDEN / "archive" / name
    settings = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "3"}
    words = [sys.executable, "-m", "unsup", "decompress", f"{path}.unsup", "-o", str(tmp_path), "--run", str(path)]
    subprocess.run(words, env=os.environ | settings, check=True, timeout=300)
    assert files_in(tmp_path) == files_in(path.with_name(f"{name}-files"))


def test_golden_files_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    names = [*(case.name for case in golden.CASES), *(f"archive/{name}" for name in golden.ARCHIVES)]
    for name in names:
        (tmp_path / f"{name}.unsup").write_bytes(b"old")
    assert golden.main(["--folder", str(tmp_path)]) == 0
    found = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {f"{name}.unsup": b"old" for name in names}
