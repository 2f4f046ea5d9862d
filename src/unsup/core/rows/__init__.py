"""The rows of the registry: every model as plain data, a family a file. Importing this does not import torch.

Models from outside come by `register`, or from packages with an entry point in the group ``unsup.models`` whose object
is a `Row` or a sequence of rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from unsup.core.errors import InputError
from unsup.core.rows import adversarial, autoregressive, classical, energy, flows, latent
from unsup.core.rows.record import Paper, Row

__all__ = ["Paper", "Row", "register", "rows"]

ENTRY_POINTS = "unsup.models"

_ROWS: dict[str, Row] = {
    row.name: row for family in (classical, autoregressive, flows, latent, adversarial, energy) for row in family.ROWS
}
_found_installed = False


def rows() -> Mapping[str, Row]:
    """Every row by name: the library's own, those of installed packages, and those registered by hand."""
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
    """Add a model of your own, which then has the commands, the laws, runs and comparisons.

    Args:
        row: its ``target`` names the class as ``"module:Class"``; its ``cases`` the tuple of its law cases.

    Raises:
        InputError: another model has that name, it is no word, or the row lacks its target or its paper.

    >>> from dataclasses import replace
    >>> from unsup.core.rows import rows
    >>> register(rows()["made"])  # the same row again: nothing happens
    >>> register(replace(rows()["made"], target="mine:Made"))
    Traceback (most recent call last):
    unsup.core.errors.InputError: there is a model 'made' already (unsup.families.autoregressive.made:MADE); give \
    yours another name
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", row.name):
        raise InputError(
            f"the name {row.name!r} of a model should be letters, digits, dots and dashes: folders are named by it"
        )
    if not isinstance(row.paper, Paper):
        raise InputError(f"the row of {row.name!r} has no paper; say where the method comes from: paper=Paper(...)")
    if not all(row.target.partition(":")):
        raise InputError(f"the row of {row.name!r} has the target {row.target!r}; expected 'module:Class'")
    present = rows().get(row.name)
    if present is not None and present != row:
        raise InputError(f"there is a model {row.name!r} already ({present.target}); give yours another name")
    _ROWS[row.name] = row
