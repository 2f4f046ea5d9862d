"""A likelihood together with its kind: exact, a bound, an estimate, or unnormalised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from unsup.core.config import OrNothing
from unsup.core.event import Event
from unsup.core.words import listed

Kind = Literal["exact", "bound", "estimate", "unnormalised"]
SIGN: dict[Kind, str] = {"exact": "=", "bound": "≤", "estimate": "≈", "unnormalised": "∝"}
_NAMED = 5  # columns that are named, of masses or of densities
_MIXED = "nats and bits mix both"


@dataclass(frozen=True)
class Likelihood:
    """Mean negative log-likelihood of one example of raw data.

    Args:
        kind: ``exact``; ``bound`` (log p is at least −nats); ``estimate``; ``unnormalised``.
        nats: mean of −log p(x) over ``n`` examples, in nats, weighted if the examples have weights.
        dims: number of entries of one example, D. For examples of different lengths, or with missing entries, it is the
            mean number of entries without padding and missing ones, so that bits/dim is the total of all bits over the
            total of all entries.
        standard_error: standard error of the mean over examples, in nats; NaN for a single example.
        n: number of examples.
        samples: importance samples per example of a bound; 1 if none are used.
        masses: number of discrete columns of a table that also has real ones; else 0.
        densities: number of its real columns.

    >>> print(Likelihood("bound", 86.8, 784, 0.25, 10000))
    ≤ 86.800 ± 0.250 nats (≤ 0.1597 bits/dim)
    >>> print(Likelihood("exact", 9.1, 8, math.nan, 1))
    = 9.100 nats (= 1.6411 bits/dim)
    >>> print(Likelihood("exact", 9.1, 8, 0.1, 500, masses=3, densities=5))
    = 9.100 ± 0.100 nats (= 1.6411 bits/dim); 3 columns are masses, 5 densities: nats and bits mix both
    """

    kind: Kind
    nats: float
    dims: float
    standard_error: Annotated[float, OrNothing()]
    n: int
    samples: int = 1
    masses: int = 0
    densities: int = 0

    @property
    def bits_per_dim(self) -> float:
        """nats / (D ln 2)."""
        return self.nats / (self.dims * math.log(2))

    @property
    def sign(self) -> str:
        return SIGN[self.kind]

    def to_json(self) -> dict[str, Any]:
        record = asdict(self)
        record.pop("dims")
        return {"kind": self.kind, "nats": self.nats, "bits_per_dim": self.bits_per_dim} | record

    def __str__(self) -> str:
        return self.told(_counted(self.masses, self.densities))

    def told(self, parts: str, bits: str = "") -> str:
        """The likelihood in words, followed by ``parts``, as from `parts_in_words`, if there are any.

        Args:
            bits: the bits per unit of the data, if they are not bits/dim.
        """
        error = "" if math.isnan(self.standard_error) else f" ± {self.standard_error:.3f}"
        return (
            f"{self.sign} {self.nats:.3f}{error} nats "
            f"({self.sign} {bits or f'{self.bits_per_dim:.4f} bits/dim'}){parts and f'; {parts}'}"
        )


def parts_in_words(event: Event, columns: Sequence[str] | None) -> str:
    """Which columns of a table contribute masses to log p and which densities, if it has both kinds; else nothing.

    Nats and bits of densities depend on the units of the columns; those of masses do not.

    Args:
        event: of a row.
        columns: names of the columns; None if they have none.

    >>> from unsup.core.event import BINARY, REAL
    >>> parts_in_words(Event((4,), (BINARY, REAL, BINARY, REAL)), ("c", "a", "k", "b"))
    'masses: c, k; densities: a, b; nats and bits mix both'
    >>> parts_in_words(Event((9,), (BINARY, *[REAL] * 8)), ("c", *map(str, range(8))))
    'masses: c; densities: the other 8 columns; nats and bits mix both'
    >>> parts_in_words(Event((3,), (BINARY, REAL, REAL)), None)
    '1 column is a mass, 2 densities: nats and bits mix both'
    """
    parts = event.parts
    if columns is None or len(columns) != event.dims or not all(parts):
        return _counted(*map(len, parts))
    masses, densities = ([columns[d] for d in part] for part in parts)
    others = densities if len(masses) <= len(densities) else masses  # the longer list

    def named(names: Sequence[str]) -> str:
        if len(names) <= _NAMED:
            return ", ".join(names)
        if names is others:
            return f"the other {len(names):,} columns"
        return listed([*names[:_NAMED], f"{len(names) - _NAMED:,} more"])

    return f"masses: {named(masses)}; densities: {named(densities)}; {_MIXED}"


def _counted(masses: int, densities: int) -> str:
    if not (masses and densities):
        return ""
    own = "1 column is a mass" if masses == 1 else f"{masses} columns are masses"
    return f"{own}, {densities} {'density' if densities == 1 else 'densities'}: {_MIXED}"
