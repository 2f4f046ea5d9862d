"""The interface of artists: one for each kind of example, at the scale of the training data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

WIDEST = 760
"""Screen pixels of the widest picture of a page."""
ORDINARY, ANOMALOUS, BULK = "#4477aa", "#d55e00", "#b0b0b0"
_LARGEST = 1e100  # larger values are drawn here, so that differences do not overflow


@dataclass(frozen=True, eq=False)
class Sheet:
    """A drawn picture.

    Attributes:
        image: at its own resolution.
        shown: number of the given examples in the picture.
        layout: a clause: "a grid of 64 images in 8 columns".
        reading: sentences on how to read it, or empty.
        scale: screen pixels per pixel.
        plot: whether it is a plot on white, which a dark page may invert.
    """

    image: Image.Image
    shown: int
    layout: str
    reading: str = ""
    scale: int = 1
    plot: bool = False


class Artist(ABC):
    """Draws raw examples ``(N, *event.shape)``, in which NaN is padding. The scale is that of the training data.

    Attributes:
        noun: the name of the examples, in the plural.
        wanted: number of examples that `examples` shows on a page.
    """

    noun: str
    wanted: int

    @abstractmethod
    def examples(self, x: Tensor, real: Tensor | None = None) -> Sheet:
        """Many examples, next to ``real`` training examples if these are given."""

    @abstractmethod
    def pairs(self, first: Tensor, second: Tensor, names: tuple[str, str]) -> Sheet:
        """Row i of ``first`` next to row i of ``second``; ``names`` describe both, in the plural."""

    @abstractmethod
    def paths(self, rows: Tensor) -> Sheet:
        """``(R, S, *event.shape)``: each row is a sequence of steps from one example to another."""

    @abstractmethod
    def ranked(self, x: Tensor, words: list[str], marks: list[bool] | None = None) -> Sheet:
        """Examples in the given order, with words if there is space.

        With ``marks`` there are no words; marked examples, the anomalies, have another colour and shape.
        """

    @abstractmethod
    def bits(self, x: Tensor, bits: Tensor) -> Sheet:
        """Examples with the bits ``(N, D)`` of their flattened entries on one colour scale."""


def array(x: Tensor) -> NDArray[np.float64]:
    """``(N, *shape)`` → ``(N, D)``, clipped to ±1e100."""
    return x.detach().cpu().double().reshape(len(x), -1).clamp(-_LARGEST, _LARGEST).numpy()


def data_range(x: Tensor) -> tuple[float, float]:
    """The lowest and highest value, or the middle 99.9 % if these take less than a tenth of the range."""
    values = array(x).ravel()
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    ends = float(values.min()), float(values.max())
    low, high = (float(q) for q in np.quantile(values[:: -(-len(values) // 1_000_000)], (0.0005, 0.9995)))
    return (low, high) if 0 < 10 * (high - low) < ends[1] - ends[0] else ends


def bits_range(bits: Tensor) -> tuple[float, float]:
    """The ends of the colour scale: 0 or the 0.5 % quantile if that is negative, and the 99.5 % quantile."""
    finite = array(bits)[np.isfinite(array(bits))] if len(bits) else np.zeros(0)
    low, high = (float(q) for q in np.quantile(finite, (0.005, 0.995))) if len(finite) else (0.0, 1.0)
    high = high if high > low else float(finite.max())
    return min(0.0, low), max(high, min(0.0, low) + 1e-6)


def viridis(unit: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours of the map viridis for numbers clipped to 0 … 1: ``(…)`` → uint8 ``(…, 3)``."""
    from matplotlib import colormaps

    shown = np.nan_to_num(np.asarray(unit, dtype=np.float64), nan=1.0, posinf=1.0, neginf=0.0).clip(0, 1)
    found: NDArray[np.uint8] = np.asarray(colormaps["viridis"](shown, bytes=True))[..., :3]
    return found


def palette(levels: int) -> Tensor:
    """A colour for each category, uint8 ``(levels, 3)``."""
    from matplotlib import colormaps

    name = "tab10" if levels <= 10 else "tab20" if levels <= 20 else "turbo"
    steps = np.arange(levels) if levels <= 20 else np.linspace(0, 1, levels)
    return torch.from_numpy(np.asarray(colormaps[name](steps, bytes=True))[:, :3].copy())


def number(value: float) -> str:
    """Three digits, with a true minus sign.

    >>> number(-1234.5), number(0.12345), number(float("-inf")), number(1e30)
    ('−1,234', '0.123', '−∞', '1e+30')
    """
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "−∞"
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.3g}"
    return text.replace("-", "−")
