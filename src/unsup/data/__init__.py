"""Data: built-in sets, standard sets, and the user's own files. Importing this package does not import torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unsup.data.load import from_arrays, load_batch, load_data, load_examples
    from unsup.data.source import Data, Split, permutation

_PUBLIC = {
    "from_arrays": "unsup.data.load",
    "load_batch": "unsup.data.load",
    "load_data": "unsup.data.load",
    "load_examples": "unsup.data.load",
    "Data": "unsup.data.source",
    "Split": "unsup.data.source",
    "permutation": "unsup.data.source",
}
__all__ = ["Data", "Split", "from_arrays", "load_batch", "load_data", "load_examples", "permutation"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'unsup.data' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
