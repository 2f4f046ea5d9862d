"""Add the longest cases of parametrised tests to ``tests/slow.txt``: ``python scripts/slow_tests.py JUNIT.xml``.

The file comes from ``pytest --junitxml JUNIT.xml``. Of each test that takes at least 4 s in all, the longest cases are
added until the rest takes 30 % of that. At least two cases stay, and those below half a second.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

SLOW = Path("tests/slow.txt")
APART = ("test_registry.py::test_law", "test_golden.py::", "test_two_processes_are_one", "test_estimators_keep")
"""Tests that choose their own slow cases, or whose first case takes long because it makes what the others use."""


def longest(cases: list[tuple[float, str]]) -> list[str]:
    """The names of the cases to add, of times in seconds and names."""
    left = whole = sum(seconds for seconds, _ in cases)
    found: list[str] = []
    for seconds, name in sorted(cases, reverse=True):
        if whole < 4 or left <= 0.3 * whole or len(cases) - len(found) <= 2 or seconds < 0.5:
            break
        found.append(name)
        left -= seconds
    return found


def main(path: str) -> None:
    tests: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        if not any(part in name for part in APART):
            tests[name.partition("[")[0]].append((float(case.get("time", 0)), name))
    before = SLOW.read_text().splitlines() if SLOW.is_file() else []
    added = [name for cases in tests.values() for name in longest(cases)]
    SLOW.write_text("\n".join(sorted({*before, *added})) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
