"""The page of benchmarks is read as it was written."""

from __future__ import annotations

from benchmarks.page import HEADER, written_rows


def test_rows_that_are_kept_have_all_cells_of_the_header() -> None:
    rows = written_rows()
    assert rows
    assert [row for row in rows if len(row) != len(HEADER)] == []
