"""Law cases of self-supervised models."""

from __future__ import annotations

from unsup.testing.cases.case import Case

CASES: tuple[Case, ...] = ()
