"""The shape and the supports of one example."""

from __future__ import annotations

import functools
import math
from abc import ABC
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

from unsup.core.config import AtLeast, check_value, shown
from unsup.core.errors import InputError, kind_of

if TYPE_CHECKING:
    import torch

SupportKind = Literal["binary", "ordinal", "nominal", "real"]
Layout = Literal["scalar", "vector", "image", "sequence", "video"]
_LAYOUT_OF_RANK: dict[int, Layout] = {0: "scalar", 1: "vector", 2: "sequence", 3: "image", 4: "video"}
_RANKS: dict[Layout, tuple[int, ...]] = {"scalar": (0,), "sequence": (1, 2), "image": (3,), "video": (4,)}
"""The numbers of axes that a layout allows; a vector may have any number."""
_WHOLE = 2**63
"""The first integer that torch cannot represent."""


class EventRecord(TypedDict):
    """An event in JSON."""

    shape: tuple[Annotated[int, AtLeast(1)], ...]
    support: tuple[tuple[SupportKind, int, int], ...]
    layout: Layout
    precision: NotRequired[Literal["float32", "float64"]]
    open: NotRequired[bool]
    missing: NotRequired[bool]


@dataclass(frozen=True)
class Support:
    """The values that one entry may take.

    ``binary`` is {0, 1}; ``ordinal`` is the ordered integers low, …, low + levels − 1 (pixels, counts);
    ``nominal`` is the unordered integers 0, …, levels − 1 (tokens, categories); ``real`` is the line.

    >>> Support("ordinal", 256)
    ordinal(256)
    """

    kind: SupportKind
    levels: int = 0
    low: int = 0

    def __post_init__(self) -> None:
        if self.kind == "binary" and self.levels == 0:
            object.__setattr__(self, "levels", 2)
        if self.kind == "real" and self.levels:
            raise InputError(f"real support has no levels, but levels={self.levels} was given")
        if self.kind != "real" and self.levels < 2:
            raise InputError(f"{self.kind} support needs levels >= 2, but levels={self.levels} was given")
        if not -_WHOLE <= self.low <= self.low + self.levels <= _WHOLE:
            raise InputError(f"{self.kind} support of numbers that do not fit into 64 bits: low={shown(self.low)}")

    @property
    def is_discrete(self) -> bool:
        return self.kind != "real"

    def __repr__(self) -> str:
        if self.kind in ("binary", "real"):
            return self.kind
        return f"{self.kind}({self.levels}{f', low={self.low}' if self.low else ''})"


class Described(ABC):
    """Data, as far as a model that is created for it needs to know.

    Attributes:
        event: the event of one example.
        given: the event of the conditions of the examples, or None.
        labels: the names of the classes, or None.
    """

    event: Event
    given: Event | None
    labels: tuple[str, ...] | None


BINARY = Support("binary")
REAL = Support("real")


@dataclass(frozen=True)
class Event:
    """Shape and support of one example, without the batch axis.

    Images are ``(C, H, W)``, vectors and table rows ``(D,)``, sequences ``(T,)`` with ``layout="sequence"`` or
    ``(T, C)``, video ``(T, C, H, W)``. A table may have a different support for each column. A class label, on which a
    model may be conditioned, is a scalar: ``Event((), Support("nominal", 10))``.

    Attributes:
        shape: shape of one example.
        support: support of every entry, or of each column of a table.
        layout: meaning of the axes; None infers it from their number.
        precision: precision of real entries. ``float64`` if float32 cannot distinguish the examples (values near 1e9).
        open: whether the length of the first axis varies between examples, up to ``shape[0]``. Batches then have
            ``lengths``, and entries beyond them are padding, which is ignored.
        missing: whether entries may be missing. Raw data is then floating, and a missing entry is NaN.

    >>> Event((1, 8, 8), Support("ordinal", 17)).dims
    64
    >>> print(Event((2,), REAL))
    vector of 2, real
    """

    shape: tuple[int, ...]
    support: Support | tuple[Support, ...]
    layout: Layout | None = None
    precision: Literal["float32", "float64"] = "float32"
    open: bool = False
    missing: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if self.shape and min(self.shape) < 1:
            raise InputError(f"an event's shape needs axes of size >= 1; {self.shape} was given")
        if self.open and not self.shape:
            raise InputError("a scalar has no first axis that could be open")
        if self.layout is None:
            object.__setattr__(self, "layout", _LAYOUT_OF_RANK.get(len(self.shape), "vector"))
        ranks = _RANKS.get(self.layout or "vector", ())
        if ranks and len(self.shape) not in ranks:
            raise InputError(
                f"an event of layout {self.layout} has {' or '.join(map(str, ranks))} axes; {self.shape} was given"
            )
        if isinstance(self.support, tuple):
            if len(self.shape) != 1 or len(self.support) != self.shape[0]:
                raise InputError(f"one support per column needs shape ({len(self.support)},); {self.shape} was given")
            if len(set(self.support)) == 1:
                object.__setattr__(self, "support", self.support[0])

    @property
    def dims(self) -> int:
        """The number of entries of one example: D in bits/dim."""
        return math.prod(self.shape)

    @property
    def columns(self) -> tuple[Support, ...]:
        """The support of each entry of a flattened example; its length is ``dims``."""
        return self.support if isinstance(self.support, tuple) else (self.support,) * self.dims

    @property
    def uniform(self) -> Support | None:
        """The support shared by all entries, or None for a table with mixed columns."""
        return None if isinstance(self.support, tuple) else self.support

    @property
    def is_image(self) -> bool:
        return self.layout == "image"

    @property
    def is_discrete(self) -> bool:
        """Whether every entry is discrete; probabilities are then masses, not densities."""
        return all(s.is_discrete for s in self._distinct)

    @property
    def is_real(self) -> bool:
        return all(not s.is_discrete for s in self._distinct)

    @property
    def parts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The discrete and the real entries if there are both, else none: log p mixes masses and densities.

        >>> Event((3,), (BINARY, REAL, REAL)).parts, Event((3,), REAL).parts
        (((0,), (1, 2)), ((), ()))
        """
        if self.uniform is not None:
            return (), ()
        masses = tuple(d for d, s in enumerate(self.columns) if s.is_discrete)
        densities = tuple(d for d, s in enumerate(self.columns) if not s.is_discrete)
        return (masses, densities) if masses and densities else ((), ())

    @property
    def has_words(self) -> bool:
        """Whether an entry is one of three or more unordered symbols, which do not lie on a line."""
        return any(s.kind == "nominal" and s.levels > 2 for s in self._distinct)

    @property
    def _distinct(self) -> tuple[Support, ...]:
        return self.support if isinstance(self.support, tuple) else (self.support,)

    @property
    def dtype(self) -> torch.dtype:
        """The type of raw data that the library creates for this event: uint8, int64, float32 or float64."""
        import torch

        if not self.is_discrete or self.missing:
            wide = self.precision == "float64" or (self.missing and self.needs_float64)
            return torch.float64 if wide else torch.float32
        fits = all(s.low >= 0 and s.low + s.levels <= 256 for s in self._distinct)
        return torch.uint8 if fits else torch.int64

    @property
    def needs_float64(self) -> bool:
        """Whether float32 cannot distinguish the values: because of ``precision``, or of integers far from 0."""
        far = (max(abs(s.low), abs(s.low + s.levels)) for s in self._distinct if s.is_discrete)
        return self.precision == "float64" or any(n > _FAR for n in far)

    def contains(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Which examples are in the support: ``(B, *shape)`` → bool ``(B,)``. Padding beyond ``lengths`` is ignored.

        A real entry must be finite in the precision of the event. NaN is a missing entry where the event allows it.
        """
        import torch

        self.check_shape(x)
        if self.missing and x.is_floating_point():
            x = torch.where(x.isnan(), self.lowest(x), x)
        if self.uniform is None:
            discrete, low, high = (bound.to(x.device) for bound in _bounds(self))
            return ((x >= low) & (x <= high) & (~discrete | (x == x.round()))).all(1)
        if self.is_real and x.is_floating_point() and x.dtype == torch.float64 and self.precision == "float32":
            x = x.detach().float()  # not finite in this precision means not finite for a model of such data
        if _holds_all_of(x.dtype, self.uniform) or (self.is_real and lengths is None and _is_plainly_finite(x)):
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        inside = _inside(x, self.uniform)
        if lengths is not None:
            inside = inside | self.padding(lengths).view(len(x), -1, *(1,) * (len(self.shape) - 1))
        return inside.reshape(len(x), self.dims).all(1)

    def lowest(self, like: torch.Tensor) -> torch.Tensor:
        """An example of the event: discrete entries at their lowest level, real entries 0.

        It has the device of ``like``, and its type if that is floating, else int64.
        """
        import torch

        dtype = like.dtype if like.is_floating_point() else torch.int64
        return torch.tensor([s.low for s in self.columns], dtype=dtype, device=like.device).view(self.shape)

    def padding(self, lengths: torch.Tensor) -> torch.Tensor:
        """Which positions of the open first axis are beyond each length: ``(B,)`` → bool ``(B, shape[0])``."""
        import torch

        return torch.arange(self.shape[0], device=lengths.device) >= lengths[:, None]

    def check_lengths(self, lengths: torch.Tensor, n: int) -> None:
        """Raise `InputError` unless ``lengths`` are those of ``n`` examples: integers from 0 to ``shape[0]``."""
        whole = not lengths.is_floating_point() and not lengths.is_complex()
        if not (whole and tuple(lengths.shape) == (n,) and bool(((lengths >= 0) & (lengths <= self.shape[0])).all())):
            found = lengths.tolist() if lengths.numel() <= 8 else f"of shape {tuple(lengths.shape)}"
            raise InputError(f"lengths are {found}; expected {n} integers from 0 to {self.shape[0]}")

    def check_shape(self, x: torch.Tensor) -> None:
        """Raise `InputError` unless ``x`` is a tensor with a batch axis and the shape of the event."""
        import torch

        if not isinstance(x, torch.Tensor):
            raise InputError(f"x is {kind_of(x)}; expected a tensor of raw data: torch.as_tensor(x)")
        if tuple(x.shape[1:]) != self.shape or not x.ndim:
            raise InputError(
                f"x has shape {tuple(x.shape)}; expected a batch axis followed by {self.shape}"
                + (
                    f"; add the batch axis with x[None] (shape {(1, *self.shape)})"
                    if tuple(x.shape) == self.shape
                    else ""
                )
            )

    def check(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> None:
        """Raise `InputError` unless every example of ``x`` (shape ``(B, *shape)``) is in the support."""
        inside = self.contains(x, lengths)
        if not bool(inside.all()):
            bad = int((~inside).sum())
            first = int((~inside).nonzero()[0])
            raise InputError(
                f"{bad} of {len(x)} examples have values outside {self} (the first is number {first}); "
                "x must be the raw data, unscaled and finite"
            )

    def to_json(self) -> dict[str, Any]:
        supports = [[s.kind, s.levels, s.low] for s in self._distinct]
        record: dict[str, Any] = {"shape": list(self.shape), "support": supports, "layout": self.layout}
        if self.precision != "float32":
            record["precision"] = self.precision
        if self.open:
            record["open"] = True
        if self.missing:
            record["missing"] = True
        return record

    @classmethod
    def from_json(cls, record: Any) -> Event:
        """The event that `to_json` wrote.

        Raises:
            InputError: ``record`` is not an event.
        """
        try:
            found: EventRecord = check_value("event", record, EventRecord)
        except InputError as error:
            raise InputError(
                f"{shown(record)} is not an event ({error}); expected shape, support and layout"
            ) from error
        if not found["support"]:
            raise InputError(
                f"{shown(record)} is not an event (its support is empty); expected shape, support and layout"
            )
        supports = tuple(Support(*s) for s in found["support"])
        support = supports if len(supports) > 1 else supports[0]
        rest = (
            found["layout"],
            found.get("precision", "float32"),
            found.get("open", False),
            found.get("missing", False),
        )
        return cls(found["shape"], support, *rest)

    def __str__(self) -> str:
        if not self.shape:
            return str(self.uniform)
        size = ("up to " if self.open else "") + "×".join(str(n) for n in self.shape)
        gaps = ", some missing" if self.missing else ""
        if self.uniform is not None:
            return f"{self.layout} of {size}, {self.uniform}{gaps}"
        counts: dict[str, int] = {}
        for s in self.columns:
            counts[s.kind] = counts.get(s.kind, 0) + 1
        return f"{self.layout} of {size}, " + " + ".join(f"{n} {k}" for k, n in counts.items()) + gaps


_FAR = 2**20
"""float32 has 24 bits: integers below this limit leave four of them for the position within a level."""


def labels(classes: int) -> Event:
    """The event of a class label: a scalar with ``classes`` unordered values."""
    return Event((), Support("nominal", classes))


def raw_tensor(x: Any) -> torch.Tensor:
    """Raw data in an array or a list as a tensor, in its own precision.

    Raises:
        InputError: it is not made of numbers.
    """
    import numpy as np
    import torch

    if isinstance(x, torch.Tensor):
        return x
    if isinstance(x, Described) or not isinstance(x, (np.ndarray, list, tuple)):
        mend = "its examples: data.test.x" if isinstance(x, Described) else "a tensor, an array or a list of numbers"
        raise InputError(f"x is {kind_of(x)}; expected {mend}")
    try:
        values = np.asarray(x)
        if values.dtype.kind not in "buif":
            raise ValueError(f"values of type {values.dtype}")
    except ValueError as error:
        raise InputError(f"x is {kind_of(x)} of no numbers ({error}); expected raw data in one shape") from error
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        values = values.astype(np.float64 if values.size and values.max() >= _WHOLE else np.int64)
    return torch.from_numpy(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))))


def _holds_all_of(dtype: torch.dtype, support: Support) -> bool:
    """Whether ``support`` contains every value of the integer type ``dtype``, so that no value needs a check."""
    import torch

    return dtype == torch.uint8 and support.low == 0 and support.levels == 256


@functools.lru_cache(maxsize=64)
def _bounds(event: Event) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each column of a mixed table: whether it is discrete, its lowest and its highest value; each ``(D,)``."""
    import torch

    largest = torch.finfo(torch.float64 if event.precision == "float64" else torch.float32).max
    ends = [(s.low, s.low + s.levels - 1) if s.is_discrete else (-largest, largest) for s in event.columns]
    low, high = torch.tensor(ends, dtype=torch.float64).unbind(1)
    return torch.tensor([s.is_discrete for s in event.columns]), low, high


def _is_plainly_finite(x: torch.Tensor) -> bool:
    """Whether one sum proves that ``x`` is finite, since NaN and infinity would spoil it; False proves nothing."""
    import torch

    return not torch.compiler.is_compiling() and bool(x.detach().sum().isfinite())


def _inside(x: torch.Tensor, support: Support) -> torch.Tensor:
    import torch

    if support.kind == "real":
        return x.isfinite() if x.is_floating_point() else x == x
    low, high = support.low, support.low + support.levels - 1
    if x.is_floating_point():
        return (x == x.round()) & (x >= low) & (x <= high)
    # torch wraps a number to the type of the integer tensor it is compared with (256 becomes 0 for uint8).
    held = torch.iinfo(torch.uint8 if x.dtype == torch.bool else x.dtype)
    if low > held.max or high < held.min:
        return torch.zeros_like(x, dtype=torch.bool)
    return (x >= max(low, held.min)) & (x <= min(high, held.max))
