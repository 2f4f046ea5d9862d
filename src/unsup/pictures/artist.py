"""What draws the pictures of a contest: one artist for each kind of example, fixed to the training data's scale."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

WIDEST = 760
"""Screen pixels of the widest picture."""
ORDINARY, ANOMALOUS, BULK = "#4477aa", "#d55e00", "#b0b0b0"


@dataclass(frozen=True, eq=False)
class Sheet:
    """A drawn picture.

    Attributes:
        image: at its own resolution.
        scale: screen pixels that one of its own takes.
        shown: how many of the examples given are in it.
        layout: what is seen, as a clause: "a grid of 64 images in 8 columns".
        reading: how to read it, whole sentences, or empty.
    """

    image: Image.Image
    scale: int
    shown: int
    layout: str
    reading: str = ""


class Artist(ABC):
    """Draws raw examples ``(N, *event.shape)``. All limits are those of the training data it was made with.

    Attributes:
        noun: what the examples are called, in the plural.
    """

    noun: str

    @abstractmethod
    def examples(self, x: Tensor) -> Sheet:
        """Many examples at a glance."""

    @abstractmethod
    def pairs(self, first: Tensor, second: Tensor, names: tuple[str, str]) -> Sheet:
        """Row i of ``first`` beside row i of ``second``; ``names`` say what each is, in the plural."""

    @abstractmethod
    def paths(self, rows: Tensor) -> Sheet:
        """``(R, S, *event.shape)``: each row a sequence of steps from one example to another."""

    @abstractmethod
    def ranked(self, x: Tensor, words: list[str]) -> Sheet:
        """Examples in the order given, each with a short word where there is room for it."""

    @abstractmethod
    def marked(self, x: Tensor, marks: list[bool]) -> Sheet:
        """Examples in the order given, those with a mark told apart by colour and by shape."""

    @abstractmethod
    def bits(self, x: Tensor, bits: Tensor) -> Sheet:
        """Examples with the bits ``(N, D)`` of their flattened entries on one colour scale."""


def bits_range(bits: Tensor) -> tuple[float, float]:
    """The ends of the colour scale: 0 where nothing is negative, and what 99.5 % of the bits stay below."""
    finite = np.sort(bits.double().numpy().ravel())
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return 0.0, 1.0
    low = min(0.0, float(finite[int(0.005 * len(finite))]))
    high = float(finite[int(0.995 * len(finite))])
    if high <= low:
        high = float(finite[-1])
    return low, max(high, low + 1e-6)


def viridis(unit: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers in 0 … 1 (clipped) on the perceptually uniform map viridis: ``(…)`` → uint8 ``(…, 3)``."""
    from matplotlib import colormaps

    shown = np.nan_to_num(np.asarray(unit, dtype=np.float64), nan=1.0, posinf=1.0, neginf=0.0).clip(0, 1)
    found: NDArray[np.uint8] = np.asarray(colormaps["viridis"](shown, bytes=True))[..., :3]
    return found


def number(value: float) -> str:
    """Three digits, with a true minus sign.

    >>> number(-1234.5), number(0.12345), number(float("-inf"))
    ('−1,234', '0.123', '−∞')
    """
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "−∞"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")
