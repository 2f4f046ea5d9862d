"""The page of benchmarks is read as it was written."""

from __future__ import annotations

from benchmarks.__main__ import HEADER, _written


def test_rows_that_are_kept_have_all_cells_of_the_header() -> None:
    rows = _written()
    assert rows
    assert [row for row in rows if len(row) != len(HEADER)] == []
