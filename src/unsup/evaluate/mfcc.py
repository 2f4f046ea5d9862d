"""Mel-frequency cepstral coefficients, the classical features of speech: a baseline for probes of sound.

    P_t(f) = |Σ_n w_n x_{t h + n} e^{−2πi f n / F}|²      w: Hann window
    S_t(j) = log Σ_f H_j(f) P_t(f)                        H: triangles, equally spaced in mel = 2595 log₁₀(1 + Hz / 700)
    C_t(i) = Σ_j S_t(j) √(2/J) cos(π i (j + ½) / J)       and C_t(0) / √2

(Davis, Mermelstein 1980, https://doi.org/10.1109/TASSP.1980.1163420.)
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.errors import InputError

WINDOW, HOP = 0.025, 0.010
"""Seconds of a frame, and between frames."""
_SILENCE = 1e-10  # power of a filter below which sound of samples in [−1, 1] is silence


def mfcc(x: Tensor, rate: int, *, coefficients: int = 13, filters: int = 26) -> Tensor:
    """Coefficients of each frame: samples ``(B, T)`` in [−1, 1] → float64 ``(B, frames, coefficients)``.

    Args:
        rate: samples a second. Frames have 25 ms, one every 10 ms, without padding.
        coefficients: C(0), …; at most ``filters``.
        filters: J, between 0 Hz and half of the rate.

    Raises:
        InputError: sound shorter than a frame, or more coefficients than filters.

    >>> mfcc(torch.zeros(2, 1000), 8000).shape
    torch.Size([2, 11, 13])
    """
    from scipy.fft import dct

    size, hop = round(WINDOW * rate), round(HOP * rate)
    if x.ndim != 2 or x.shape[1] < size:
        raise InputError(f"x has shape {tuple(x.shape)}; expected (B, T) with T of {size} samples or more (25 ms)")
    if not 1 <= coefficients <= filters:
        raise InputError(f"coefficients={coefficients}; expected 1 to filters={filters}")
    frames = x.detach().cpu().double().unfold(1, size, hop)  # (B, frames, size)
    window = torch.hann_window(size, dtype=torch.float64)
    points = 2 ** math.ceil(math.log2(size))
    power = torch.fft.rfft(frames * window, points).abs().square().numpy()
    energy = np.log(np.maximum(power @ mel_filters(filters, points, rate).T, _SILENCE))
    found: Tensor = torch.from_numpy(np.ascontiguousarray(dct(energy, norm="ortho")[..., :coefficients]))
    return found


def mel_filters(filters: int, points: int, rate: float) -> NDArray[np.float64]:
    """Triangles over the frequencies of a transform of so many points: ``(filters, points / 2 + 1)``."""
    edges = 700 * (10 ** (np.linspace(0, _mel(rate / 2), filters + 2) / 2595) - 1)
    hertz = np.arange(points // 2 + 1) * rate / points
    low, middle, high = (edges[i : i + filters, None] for i in range(3))
    found: NDArray[np.float64] = np.maximum(
        0, np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle))
    )
    return found


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def mfcc_features(x: Tensor, rate: int) -> Tensor:
    """The mean and the deviation over frames of 13 coefficients and of their differences: ``(B, T)`` → ``(B, 52)``.

    Differences are those of frames two apart, for sound of three frames or more.
    """
    each = mfcc(x, rate)
    if each.shape[1] < 3:
        raise InputError(f"sound of {x.shape[1]} samples has {each.shape[1]} frames of 25 ms; expected 3 or more")
    parts = [each, each[:, 2:] - each[:, :-2]]
    return torch.cat([moment for part in parts for moment in (part.mean(1), part.std(1, correction=0))], 1)
