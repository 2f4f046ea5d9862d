"""What one example is: its shape and the values each entry may take."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

from unsup.core.config import AtLeast, check_value, shown
from unsup.core.errors import InputError

if TYPE_CHECKING:
    import torch

SupportKind = Literal["binary", "ordinal", "nominal", "real"]
Layout = Literal["scalar", "vector", "image", "sequence", "video"]
_LAYOUT_OF_RANK: dict[int, Layout] = {0: "scalar", 1: "vector", 2: "sequence", 3: "image", 4: "video"}
_RANKS: dict[Layout, tuple[int, ...]] = {"scalar": (0,), "sequence": (1, 2), "image": (3,), "video": (4,)}
"""How many axes a layout has; a vector may have any number."""
_WHOLE = 2**63
"""Of the whole numbers that torch holds, the first beyond."""


class EventRecord(TypedDict):
    """An event in JSON."""

    shape: tuple[Annotated[int, AtLeast(1)], ...]
    support: tuple[tuple[SupportKind, int, int], ...]
    layout: Layout
    precision: NotRequired[Literal["float32", "float64"]]
    open: NotRequired[bool]


@dataclass(frozen=True)
class Support:
    """The values one entry may take.

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
            raise InputError(f"{self.kind} support of numbers that 64 bits do not hold: low={shown(self.low)}")

    @property
    def is_discrete(self) -> bool:
        return self.kind != "real"

    def __repr__(self) -> str:
        if self.kind in ("binary", "real"):
            return self.kind
        return f"{self.kind}({self.levels}{f', low={self.low}' if self.low else ''})"


BINARY = Support("binary")
REAL = Support("real")


@dataclass(frozen=True)
class Event:
    """Shape and support of one example, without the batch axis.

    Images are ``(C, H, W)``, vectors and table rows ``(D,)``, sequences ``(T,)`` with ``layout="sequence"`` or
    ``(T, C)``, video ``(T, C, H, W)``. A table may give each column its own support. A class label, which a model may
    be conditioned on, is a scalar: ``Event((), Support("nominal", 10))``.

    Attributes:
        shape: of one example.
        support: of every entry, or of each column of a table.
        layout: what the axes are; None takes it from their number.
        precision: of real entries. ``float64`` where float32 would lose what tells examples apart (values near 1e9).
        open: whether the first axis has a length of its own in every example, up to ``shape[0]``. Batches then carry
            ``lengths``, and entries beyond them are padding, which counts for nothing.

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
                raise InputError(f"one support a column needs shape ({len(self.support)},); {self.shape} was given")
            if len(set(self.support)) == 1:
                object.__setattr__(self, "support", self.support[0])

    @property
    def dims(self) -> int:
        """How many numbers one example holds: D in bits/dim."""
        return math.prod(self.shape)

    @property
    def columns(self) -> tuple[Support, ...]:
        """The support of each entry of a flattened example, length ``dims``."""
        return self.support if isinstance(self.support, tuple) else (self.support,) * self.dims

    @property
    def uniform(self) -> Support | None:
        """The one support shared by all entries, or None for a table with mixed columns."""
        return None if isinstance(self.support, tuple) else self.support

    @property
    def is_image(self) -> bool:
        return self.layout == "image"

    @property
    def is_discrete(self) -> bool:
        """Whether every entry is discrete, so that log-probabilities are of masses, not densities."""
        return all(s.is_discrete for s in self._distinct)

    @property
    def is_real(self) -> bool:
        return all(not s.is_discrete for s in self._distinct)

    @property
    def _distinct(self) -> tuple[Support, ...]:
        return self.support if isinstance(self.support, tuple) else (self.support,)

    @property
    def dtype(self) -> torch.dtype:
        """The type raw data of this event has when the library makes it: uint8, int64, float32 or float64."""
        import torch

        if not self.is_discrete:
            return torch.float64 if self.precision == "float64" else torch.float32
        fits = all(s.low >= 0 and s.low + s.levels <= 256 for s in self._distinct)
        return torch.uint8 if fits else torch.int64

    @property
    def needs_float64(self) -> bool:
        """Whether float32 would lose what tells values apart: ``precision``, or whole numbers far from 0."""
        far = (max(abs(s.low), abs(s.low + s.levels)) for s in self._distinct if s.is_discrete)
        return self.precision == "float64" or any(n > _FAR for n in far)

    def contains(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Which examples lie in the support: ``(B, *shape)`` → bool ``(B,)``. Padding beyond ``lengths`` is ignored.

        A real entry has to be finite in the event's precision.
        """
        import torch

        self.check_shape(x)
        if self.uniform is None:
            discrete, low, high = (bound.to(x.device) for bound in _bounds(self))
            return ((x >= low) & (x <= high) & (~discrete | (x == x.round()))).all(1)
        if self.is_real and x.is_floating_point() and x.dtype == torch.float64 and self.precision == "float32":
            x = x.detach().float()  # what is no number there is none to a model of such data
        if _holds_all_of(x.dtype, self.uniform) or (self.is_real and lengths is None and _is_plainly_finite(x)):
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        inside = _inside(x, self.uniform)
        if lengths is not None:
            inside = inside | self.padding(lengths).view(len(x), -1, *(1,) * (len(self.shape) - 1))
        return inside.reshape(len(x), self.dims).all(1)

    def lowest(self, like: torch.Tensor) -> torch.Tensor:
        """An example of the event: every discrete entry at its lowest level, every real one 0.

        It is of the device of ``like``, and of its type where that is floating, else int64.
        """
        import torch

        dtype = like.dtype if like.is_floating_point() else torch.int64
        return torch.tensor([s.low for s in self.columns], dtype=dtype, device=like.device).view(self.shape)

    def padding(self, lengths: torch.Tensor) -> torch.Tensor:
        """Which places of the open first axis lie beyond each length: ``(B,)`` → bool ``(B, shape[0])``."""
        import torch

        return torch.arange(self.shape[0], device=lengths.device) >= lengths[:, None]

    def check_shape(self, x: torch.Tensor) -> None:
        """Raise `InputError` unless ``x`` is a tensor of a batch axis and the event's shape."""
        import torch

        if not isinstance(x, torch.Tensor):
            raise InputError(f"x is a {type(x).__name__}; expected a tensor of raw data: torch.as_tensor(x)")
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
        """Raise `InputError` unless every example of ``x`` (shape ``(B, *shape)``) lies in the support."""
        inside = self.contains(x, lengths)
        if not bool(inside.all()):
            bad = int((~inside).sum())
            first = int((~inside).nonzero()[0])
            raise InputError(
                f"{bad} of {len(x)} examples hold values outside {self} (the first is number {first}); "
                "x must be the raw data, unscaled and finite"
            )

    def to_json(self) -> dict[str, Any]:
        supports = [[s.kind, s.levels, s.low] for s in self._distinct]
        record: dict[str, Any] = {"shape": list(self.shape), "support": supports, "layout": self.layout}
        if self.precision != "float32":
            record["precision"] = self.precision
        if self.open:
            record["open"] = True
        return record

    @classmethod
    def from_json(cls, record: Any) -> Event:
        """The event that `to_json` wrote.

        Raises:
            InputError: ``record`` is none.
        """
        try:
            found: EventRecord = check_value("event", record, EventRecord)
        except InputError as error:
            raise InputError(f"{shown(record)} is no event ({error}); expected shape, support and layout") from error
        if not found["support"]:
            raise InputError(f"{shown(record)} is no event (its support is empty); expected shape, support and layout")
        supports = tuple(Support(*s) for s in found["support"])
        support = supports if len(supports) > 1 else supports[0]
        rest = (found["layout"], found.get("precision", "float32"), found.get("open", False))
        return cls(found["shape"], support, *rest)

    def __str__(self) -> str:
        if not self.shape:
            return str(self.uniform)
        size = ("up to " if self.open else "") + "×".join(str(n) for n in self.shape)
        if self.uniform is not None:
            return f"{self.layout} of {size}, {self.uniform}"
        counts: dict[str, int] = {}
        for s in self.columns:
            counts[s.kind] = counts.get(s.kind, 0) + 1
        return f"{self.layout} of {size}, " + " + ".join(f"{n} {k}" for k, n in counts.items())


_FAR = 2**20
"""float32 keeps 24 bits: whole numbers below this leave four of them for the place within a level."""


def labels(classes: int) -> Event:
    """The event of a class label: a scalar, one of ``classes`` unordered numbers."""
    return Event((), Support("nominal", classes))


def _holds_all_of(dtype: torch.dtype, support: Support) -> bool:
    """Whether every number of the integer type ``dtype`` lies in ``support``, so that none needs a look."""
    import torch

    return dtype == torch.uint8 and support.low == 0 and support.levels == 256


@functools.lru_cache(maxsize=64)
def _bounds(event: Event) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of every column of a mixed table: whether it is discrete, its lowest and its highest value, ``(D,)`` each."""
    import torch

    largest = torch.finfo(torch.float64 if event.precision == "float64" else torch.float32).max
    ends = [(s.low, s.low + s.levels - 1) if s.is_discrete else (-largest, largest) for s in event.columns]
    low, high = torch.tensor(ends, dtype=torch.float64).unbind(1)
    return torch.tensor([s.is_discrete for s in event.columns]), low, high


def _is_plainly_finite(x: torch.Tensor) -> bool:
    """Whether one sum, which NaN and infinity spoil, shows that all of ``x`` is finite; False leaves it open."""
    import torch

    return not torch.compiler.is_compiling() and bool(x.detach().sum().isfinite())


def _inside(x: torch.Tensor, support: Support) -> torch.Tensor:
    import torch

    if support.kind == "real":
        return x.isfinite() if x.is_floating_point() else x == x
    low, high = support.low, support.low + support.levels - 1
    if x.is_floating_point():
        return (x == x.round()) & (x >= low) & (x <= high)
    # torch wraps a number compared with an integer tensor to the tensor's type (256 becomes 0 beside uint8).
    held = torch.iinfo(torch.uint8 if x.dtype == torch.bool else x.dtype)
    if low > held.max or high < held.min:
        return torch.zeros_like(x, dtype=torch.bool)
    return (x >= max(low, held.min)) & (x <= min(high, held.max))
