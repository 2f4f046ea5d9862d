"""Adversarial models."""

from unsup.core.registry import Row

ROWS: tuple[Row, ...] = ()
