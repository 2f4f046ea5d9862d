"""FID from means and covariances: our symmetric eigenproblem against the classic square root of the product."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import sqrtm

from benchmarks.harness import Measured, interleave
from unsup.evaluate.frechet import distance_of_moments, moments

EXAMPLES, FEATURES = 10_000, 512


def fid_speed() -> Measured:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(FEATURES, FEATURES, generator=generator, dtype=torch.float64) / FEATURES**0.5
    x, y = torch.randn(2, EXAMPLES, FEATURES, generator=generator, dtype=torch.float64)
    fake, real = moments(x @ mixing), moments(y @ mixing.T + 0.1)

    def classic() -> float:
        shift = fake.mean - real.mean
        root = sqrtm(fake.covariance @ real.covariance)
        return float(shift @ shift + np.trace(fake.covariance) + np.trace(real.covariance) - 2 * np.trace(root).real)

    ours = distance_of_moments(fake, real)
    if abs(ours - classic()) > 1e-6 * ours:
        raise ValueError(f"the two ways disagree: {ours} and {classic()}")
    return interleave(
        f"FID of {EXAMPLES:,} × {FEATURES} features, from means and covariances",
        lambda: distance_of_moments(fake, real),
        {"scipy.linalg.sqrtm": classic},
        rounds=7,
        target="≥ 10×",
        note="same means and covariances",
    )
