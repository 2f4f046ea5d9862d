"""Self-supervised models: encoders that learn by made-up tasks or by contrasting views."""

from unsup.core.rows.record import Row

ROWS: tuple[Row, ...] = ()
