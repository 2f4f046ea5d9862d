"""Law cases of all registry names at tiny size, one file per family: events, options and data for the checks.

An external model names the tuple of its cases in its row (``cases="module:NAME"``).
"""

from __future__ import annotations

import importlib
import importlib.util

from unsup.core.errors import InputError
from unsup.core.registry import row
from unsup.testing.cases.case import Case, examples
from unsup.testing.check import Report

__all__ = ["Case", "check_registry_name", "examples", "law_cases"]


def law_cases(name: str) -> tuple[Case, ...]:
    """The tiny cases of a registry name.

    Raises:
        InputError: there is no such model, or it has no cases.
    """
    found = row(name)
    module, _, attribute = (found.cases or f"{__name__}.{found.family}:CASES").partition(":")
    if found.cases is None and importlib.util.find_spec(module) is None:
        raise InputError(f"{name} has no law cases: neither its row (cases=...) nor its family has any")
    cases: tuple[Case, ...] = getattr(importlib.import_module(module), attribute)
    own = tuple(case for case in cases if case.model == found.name)
    if not own:
        raise InputError(f"{name} has no law cases: {module}:{attribute} is empty")
    return own


def check_registry_name(name: str, *, laws: tuple[str, ...] | None = None, seed: int = 0) -> tuple[Report, ...]:
    """Check all laws, or those named, on all tiny cases of a registry name.

    >>> all(report.ok for report in check_registry_name("made", laws=("normalised",)))
    True
    """
    return tuple(case.check(laws=laws, seed=seed) for case in law_cases(name))
