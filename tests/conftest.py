"""What tests of every part share."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and commands that tests start go on

collect_ignore = ["conftest.py"]  # for doctests; another one of the same name is collected


SLOW = frozenset(Path(__file__).with_name("slow.txt").read_text().splitlines())  # by scripts/slow_tests.py


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """What is collected is never garbage: neither now nor later does a collection of garbage walk through it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture
def exact_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of samples are the bytes of the samples: they differ with every bit, and nothing is plotted."""
    from PIL import Image

    from unsup.pictures.gallery import Drawn, Gallery
    from unsup.pictures.images import png_bytes

    def examples(self: Gallery, x: Tensor, what: str, **options: Any) -> Drawn:
        rows = x.detach().cpu().flatten(1).contiguous().numpy().view(np.uint8)
        title = what[:1].upper() + what[1:]
        return Drawn(png_bytes(Image.fromarray(rows)), f"{title}: bytes.", f"{title}.", 1, shown=len(x))

    monkeypatch.setattr(Gallery, "examples", examples)
