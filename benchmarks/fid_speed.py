"""FID from means and covariances: our symmetric eigenproblem against the classic square root of the product."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import sqrtm

from benchmarks.harness import Measured, interleave
from unsup.evaluate.samples import trace_of_root

EXAMPLES, FEATURES = 10_000, 512


def fid_speed() -> Measured:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(FEATURES, FEATURES, generator=generator, dtype=torch.float64) / FEATURES**0.5
    x, y = torch.randn(2, EXAMPLES, FEATURES, generator=generator, dtype=torch.float64)
    features = [(x @ mixing).numpy(), (y @ mixing.T + 0.1).numpy()]
    (mean, covariance), (other, another) = ((v.mean(0), np.cov(v.T)) for v in features)

    def distance(trace: float) -> float:
        return float((mean - other) @ (mean - other) + np.trace(covariance) + np.trace(another) - 2 * trace)

    def ours() -> float:
        return distance(trace_of_root(covariance, another))

    def classic() -> float:
        return distance(float(np.trace(sqrtm(covariance @ another)).real))

    if abs(ours() - classic()) > 1e-6 * ours():
        raise ValueError(f"the two ways disagree: {ours()} and {classic()}")
    return interleave(
        f"FID of {EXAMPLES:,} × {FEATURES} features, from means and covariances",
        ours,
        {"scipy.linalg.sqrtm": classic},
        rounds=7,
        target="≥ 10×",
        note="same means and covariances",
    )
