"""Write the API reference from the docstrings: ``python scripts/api_reference.py FOLDER``; open FOLDER/index.html."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import pdoc
import pdoc.render

import unsup

LEFT_OUT = ("unsup.cli", "unsup.contest", "unsup.report", "unsup.__main__")
"""What no user imports."""


def write(folder: Path) -> None:
    """Write the pages of every public module."""
    found = [m.name for m in pkgutil.iter_modules(unsup.__path__, "unsup.") if m.name not in LEFT_OUT]
    for module in (unsup, *map(importlib.import_module, found)):
        for name in getattr(module, "__all__", ()):  # loaded on first use, which pdoc would not see
            setattr(module, name, getattr(module, name))
    pdoc.render.configure(docformat="google", footer_text=f"unsup {unsup.__version__}", show_source=True)
    pdoc.pdoc("unsup", *found, output_directory=folder)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "site/api"))
