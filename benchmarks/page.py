"""The page of speed benchmarks: read, kept and written."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from unsup.core.machine import machine_kind

PAGE = Path("docs/benchmarks.md")
HEADER = ("work", "against", "ours, ms", "theirs, ms", "theirs / ours", "promised", "note")


def written_rows() -> list[tuple[str, ...]]:
    """The rows of the page as it is."""
    table = [line for line in _lines() if line.startswith("| ")][2:]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))) for line in table]


def write_page(rows: Iterable[tuple[str, ...]], memory: float | None) -> None:
    """Write the rows; without a new figure of ``memory`` (MB) the page's own is kept."""
    peak = next((line for line in _lines() if line.startswith("Peak memory")), "")
    if memory is not None:
        peak = f"Peak memory of training MADE on 60,000 images of 28×28: {memory:,.0f} MB (promised: under 2,000 MB)."
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench` (or `python -m benchmarks NAME …` for some rows). Each pair was timed in turn in "
        "one process; times are medians, the ratio is the median over pairs, above 1 means that we are faster.",
        "",
        f"Machine of the newest rows: {machine_kind()}; {torch.get_num_threads()} threads; torch {torch.__version__}; "
        f"{time.strftime('%Y-%m-%d')}.",
        "",
        f"| {' | '.join(HEADER)} |",
        f"|{' --- |' * len(HEADER)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        peak,
        "",
    ]
    PAGE.write_text("\n".join(lines))


def _lines() -> list[str]:
    return PAGE.read_text().splitlines() if PAGE.is_file() else []
