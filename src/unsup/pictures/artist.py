"""The interface of artists: one for each kind of example, at the scale of the training data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

WIDEST = 760
"""Screen pixels of the widest picture of a page."""
ORDINARY, ANOMALOUS, BULK = "#4477aa", "#d55e00", "#b0b0b0"
HEATS = 127
"""Colours of bits; with 129 greys they fill a palette."""
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
        note: sentences on the content, or empty.
    """

    image: Image.Image
    shown: int
    layout: str
    reading: str = ""
    scale: int = 1
    plot: bool = False
    note: str = ""


class Artist(ABC):
    """Draws raw examples ``(N, *event.shape)``, in which NaN is padding. The scale is that of the training data.

    Attributes:
        wanted: number of examples that `examples` shows on a page.
    """

    wanted: int

    @abstractmethod
    def examples(self, x: Tensor, beside: bool = False) -> Sheet:
        """Many examples; with ``beside``, some training examples next to them."""

    @abstractmethod
    def sets(self, rows: Tensor, names: tuple[str, ...] = ()) -> Sheet:
        """``(R, S, *event.shape)``: each row is a sequence of steps from one example to another.

        With two ``names`` each row is a pair; they describe its parts, in the plural.
        """

    def views(self, rows: Tensor) -> Sheet:
        """``(R, S, *event.shape)``: each row is an example and its S − 1 views. By default as `sets`."""
        return self.sets(rows)

    @abstractmethod
    def ranked(self, x: Tensor, words: list[str], marks: list[bool] | None = None) -> Sheet:
        """Examples in the given order, with words if there is space.

        With ``marks``, marked examples, the anomalies, have another colour and shape.
        """

    @abstractmethod
    def bits(self, x: Tensor, bits: Tensor, among: Tensor, unit: str = "bits") -> Sheet:
        """Examples with the bits ``(N, D)`` of their flattened entries.

        Args:
            among: the bits ``(M, D)`` that the colour scale is for.
            unit: of the numbers, in the plural.
        """


def array(x: Tensor, axes: int = 1) -> NDArray[np.float64]:
    """``(N, *shape)`` → ``(N, D)``, clipped to ±1e100; the first ``axes`` axes are kept."""
    return x.detach().cpu().double().reshape(*x.shape[:axes], -1).clamp(-_LARGEST, _LARGEST).numpy()


def data_range(x: Tensor) -> tuple[float, float]:
    """The lowest and highest value, or the middle 99.9 % if these take less than a tenth of the range."""
    values = array(x).ravel()
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    least, largest = float(values.min()), float(values.max())
    low, high = np.quantile(values[:: -(-len(values) // 1_000_000)], (0.0005, 0.9995)).tolist()
    return (low, high) if 0 < 10 * (high - low) < largest - least else (least, largest)


def bit_colours(bits: Tensor, among: Tensor | None = None) -> tuple[NDArray[np.uint8], float, float]:
    """Colours ``(…, 3)`` of bits on one scale, and its ends, the lower at most 0.

    The ends are the 0.5 % and 99.5 % quantiles of ``among``, by default of ``bits``; NaN and infinite bits have the
    last colour.
    """
    values, scaled = (array(v, v.ndim - 1) for v in (bits, bits if among is None else among))
    finite = scaled[np.abs(scaled) < _LARGEST]
    low, high = np.quantile(finite, (0.005, 0.995)).tolist() if len(finite) else (0.0, 1.0)
    high = high if high > low else finite.max(initial=high)
    low = min(0.0, low)
    high = max(high, low + 1e-6)
    unit = np.nan_to_num((values - low) / (high - low), nan=1.0).clip(0, 1)
    return colours("viridis", (unit * (HEATS - 1)).round() / (HEATS - 1)), low, high


def colours(name: str, values: Any) -> NDArray[np.uint8]:
    """Colours of a map of matplotlib: ``(…)`` → uint8 ``(…, 3)``."""
    from matplotlib import colormaps

    return np.asarray(colormaps[name](values, bytes=True))[..., :3]


def number(value: float) -> str:
    """Three digits, with a true minus sign.

    >>> number(-1234.5), number(999.9), number(0.12345), number(float("-inf")), number(1e30)
    ('−1,234', '1,000', '0.123', '−∞', '1e+30')
    """
    text = f"{value:,.0f}" if 999.5 <= abs(value) < 1e12 else f"{value:.3g}".replace("inf", "∞")
    return text.replace("-", "−")
