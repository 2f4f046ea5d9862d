"""Energy-based models and score matching."""

from unsup.core.registry import Row

ROWS: tuple[Row, ...] = ()
