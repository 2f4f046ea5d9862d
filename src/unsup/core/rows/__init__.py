"""The rows of the registry: all models as plain data, one file per family. Importing this does not import torch.

External models are added with `register`, or by packages with an entry point in the group ``unsup.models`` that refers
to a `Row` or a sequence of rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from unsup.core.errors import InputError
from unsup.core.rows import adversarial, autoregressive, classical, energy, flows, latent, selfsup, semisup
from unsup.core.rows.record import Paper, Row

__all__ = ["Paper", "Row", "register", "rows"]

ENTRY_POINTS = "unsup.models"

_ROWS: dict[str, Row] = {
    row.name: row
    for family in (classical, autoregressive, flows, latent, adversarial, energy, selfsup, semisup)
    for row in family.ROWS
}
_found_installed = False


def rows() -> Mapping[str, Row]:
    """All rows by name: those of the library, of installed packages, and of `register`."""
    global _found_installed
    if not _found_installed:
        from importlib.metadata import entry_points

        _found_installed = True
        for point in entry_points(group=ENTRY_POINTS):
            found = point.load()
            for row in (found,) if isinstance(found, Row) else found:
                register(row)
    return _ROWS


def register(row: Row) -> None:
    """Add your own model to the registry; commands, model checks, runs and comparisons then support it.

    Args:
        row: ``target`` names the class as ``"module:Class"``; ``cases`` names the tuple of its law cases.

    Raises:
        InputError: the name is taken or invalid, or the row has no target or paper.

    >>> from dataclasses import replace
    >>> from unsup.core.rows import rows
    >>> register(rows()["made"])  # the same row again: nothing happens
    >>> register(replace(rows()["made"], target="mine:Made"))
    Traceback (most recent call last):
    unsup.core.errors.InputError: there is already a model 'made' (unsup.families.autoregressive.made:MADE); choose \
    another name
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", row.name):
        raise InputError(
            f"the model name {row.name!r} should be letters, digits, dots and dashes: folders are named after it"
        )
    if not isinstance(row.paper, Paper):
        raise InputError(f"the row of {row.name!r} has no paper; add the source of the method: paper=Paper(...)")
    if not all(row.target.partition(":")):
        raise InputError(f"the row of {row.name!r} has the target {row.target!r}; expected 'module:Class'")
    present = rows().get(row.name)
    if present is not None and present != row:
        raise InputError(f"there is already a model {row.name!r} ({present.target}); choose another name")
    _ROWS[row.name] = row
