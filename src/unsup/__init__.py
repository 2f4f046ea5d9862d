"""unsup: deep unsupervised learning behind one interface. Importing it does not import torch."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Event": "unsup.core.event",
    "Support": "unsup.core.event",
    "Likelihood": "unsup.core.likelihood",
    "Batch": "unsup.core.batch",
    "UnsupError": "unsup.core.errors",
    "InputError": "unsup.core.errors",
    "TrainingError": "unsup.core.errors",
    "create": "unsup.core.registry",
    "register": "unsup.core.registry",
    "load": "unsup.core.registry",
    "Part": "unsup.core.part",
    "Settings": "unsup.train.settings",
    "load_data": "unsup.data",
    "from_arrays": "unsup.data",
    "fit": "unsup.train.trainer",
    "read_table": "unsup.core.cells",
    "open_run": "unsup.train.runs",
    "evaluate_likelihood": "unsup.evaluate.likelihood",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'unsup' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
