"""Run every benchmark of speed, for ``docs/benchmarks.md``; some names have tables of their own."""

from __future__ import annotations

import sys
from importlib import import_module

from unsup.core.errors import InputError

TABLES = (
    "augment_peers",
    "outliers",
    "series",
    "words",
    "densities",
    "flow_tables",
    "sequence_peers",
    "estimators",
    "smooth_coding",
    "rates",
    "partition",
    "sound_features",
)
WITHOUT_ARGUMENTS = ("augment_peers", "sequence_peers", "estimators")


def main(names: list[str]) -> None:
    """Run the benchmark with a table of its own that comes first, or the benchmarks of speed named, or all of those."""
    table = names[0] if names and names[0] in TABLES else None
    words = names[1:] if table else names
    arguments = () if table in WITHOUT_ARGUMENTS else (words,)
    try:
        import_module(f"benchmarks.{table or 'speed'}").main(*arguments)
    except ModuleNotFoundError as error:
        sys.exit(f"benchmarks: error: the package {error.name} is missing; install those of the extra 'bench'")
    except InputError as error:
        sys.exit(f"benchmarks: error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
