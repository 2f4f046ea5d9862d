"""The toys in the registry, so that runs can name them."""

from __future__ import annotations

import pytest
import toys

from unsup.core import rows


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for name, row in toys.rows().items():
        monkeypatch.setitem(rows._ROWS, name, row)
