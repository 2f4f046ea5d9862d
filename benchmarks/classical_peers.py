"""Probabilistic PCA, factor analysis, mixtures and kernel density estimates against scikit-learn, all in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import unsup
from benchmarks.harness import Measured, Several, interleave
from unsup.core.batch import Batch
from unsup.core.event import REAL, Event
from unsup.core.model import HasDensity, LearnsByCounting, Model

SIZES = ((20_000, 50), (100_000, 20))
FACTORS = 5
COMPONENTS, PASSES = 10, 10
PREPARED = 20_000  # as in `unsup.fit`
STORED, QUERIES, BANDWIDTH = 20_000, 1_000, 0.5


def _examples(n: int, dims: int) -> NDArray[np.float64]:
    g = np.random.default_rng(0)
    noise = g.normal(size=(n, dims)) * np.linspace(0.5, 1.5, dims)
    return g.normal(size=(n, FACTORS)) @ g.normal(size=(FACTORS, dims)) + noise


def _fitted(name: str, x: Tensor, **options: Any) -> Model:
    model = unsup.create(name, Event((x.shape[1],), REAL, precision="float64"), seed=0, **options)
    model.prepare(Batch(x[:PREPARED]), generator=torch.Generator().manual_seed(0))
    assert isinstance(model, LearnsByCounting)
    model.maximize(model.statistics(Batch(x)))
    return model


def _score(model: Model, x: Tensor) -> Callable[[], object]:
    assert isinstance(model, HasDensity)

    def work() -> Tensor:
        with torch.no_grad():
            return model.log_prob(x)

    return work


def _scaled_pca() -> Any:
    return make_pipeline(StandardScaler(), PCA(FACTORS))


def linear_gaussian_peers() -> Several:
    """Fits of both models, and scores."""
    parts: list[Measured] = []
    for n, dims in SIZES:
        x = _examples(n, dims)
        own, what = torch.from_numpy(x), f"{n:,} × {dims}, {FACTORS} components"
        parts.append(
            interleave(
                f"PPCA fit, {what}",
                lambda own=own: _fitted("ppca", own, components=FACTORS),  # type: ignore[misc]
                {
                    "scikit-learn StandardScaler and PCA": lambda x=x: make_pipeline(
                        StandardScaler(), PCA(FACTORS)
                    ).fit(x),  # type: ignore[misc]
                    "scikit-learn PCA": lambda x=x: PCA(FACTORS).fit(x),  # type: ignore[misc]
                    "scikit-learn PCA, svd_solver=full": lambda x=x: PCA(FACTORS, svd_solver="full").fit(x),  # type: ignore[misc]
                },
                rounds=9,
                target="≥ 1×",
                note="ours also standardises, by 20,000 rows",
            )
        )
        parts.append(
            interleave(
                f"Factor analysis fit, {what}",
                lambda own=own, dims=dims: _fitted("factor-analysis", own, components=FACTORS, tolerance=1e-5 / dims),  # type: ignore[misc]
                {"scikit-learn FactorAnalysis": lambda x=x: FactorAnalysis(FACTORS, tol=1e-5 * len(x)).fit(x)},  # type: ignore[misc]
                rounds=5,
                target="≥ 1×",
                note="the same tolerance per example",
            )
        )
        model, peer = _fitted("factor-analysis", own, components=FACTORS), FactorAnalysis(FACTORS).fit(x)
        parts.append(
            interleave(
                f"Factor analysis scores, {what}",
                _score(model, own),
                {"scikit-learn FactorAnalysis": lambda peer=peer, x=x: peer.score_samples(x)},  # type: ignore[misc]
                rounds=9,
                target="≥ 1×",
            )
        )
    return Several(parts)


def mixture_peers() -> Several:
    """Passes of EM from the same number of components."""
    parts: list[Measured] = []
    n, dims = 100_000, 20
    x = _examples(n, dims)
    batch = Batch(torch.from_numpy(x))
    for structure, theirs in (("full", "full"), ("diagonal", "diag")):
        event = Event((dims,), REAL, precision="float64")
        model = unsup.create("gaussian-mixture", event, seed=0, components=COMPONENTS, covariance=structure)
        model.prepare(Batch(batch.x[:2000]), generator=torch.Generator().manual_seed(0))
        assert isinstance(model, LearnsByCounting)

        def passes(model: LearnsByCounting = model) -> None:
            for _ in range(PASSES):
                model.maximize(model.statistics(batch))

        def peer(theirs: Any = theirs) -> None:
            mixture = GaussianMixture(
                COMPONENTS, covariance_type=theirs, max_iter=PASSES, tol=0.0, init_params="random_from_data"
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                mixture.fit(x)

        parts.append(
            interleave(
                f"Gaussian mixture, {PASSES} passes of EM, {n:,} × {dims}, {COMPONENTS} {structure} components",
                passes,
                {"scikit-learn GaussianMixture": peer},
                rounds=3,
                target="≥ 1×",
                note="theirs with its start and its last E step",
            )
        )
    return Several(parts)


def kde_peers() -> Several:
    """Scores of kernel density estimates with the same bandwidth."""
    parts: list[Measured] = []
    for dims in (2, 20, 50):
        x = _examples(STORED + QUERIES, dims)
        own = torch.from_numpy(x)
        model = _fitted("kde", own[:STORED], bandwidth=BANDWIDTH, examples=STORED)
        front = model.front
        assert not isinstance(front, Tensor)
        std = front.std.numpy()  # type: ignore[union-attr]
        peer, query = KernelDensity(bandwidth=BANDWIDTH).fit(x[:STORED] / std), x[STORED:] / std
        parts.append(
            interleave(
                f"KDE scores, {QUERIES:,} rows, {STORED:,} stored × {dims}",
                _score(model, own[STORED:]),
                {"scikit-learn KernelDensity": lambda peer=peer, query=query: peer.score_samples(query)},  # type: ignore[misc]
                rounds=3,
                target="≥ 1×",
                note=f"bandwidth {BANDWIDTH} of the standardised columns",
            )
        )
    return Several(parts)
