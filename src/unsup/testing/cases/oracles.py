"""Independent computations of log p: scipy, enumeration, counts. Each is ``oracle(model, x, data)``."""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor, nn

from unsup.core.batch import Batch
from unsup.core.model import IsAutoregressive, Model
from unsup.families.classical.bernoulli_mixture import BernoulliMixture
from unsup.families.classical.gaussian_mixture import GaussianMixture
from unsup.families.classical.hmm import HiddenMarkovModel
from unsup.families.classical.kde import KDE
from unsup.families.energy.rbm import RBM
from unsup.families.latent.latent import Latent
from unsup.nn.emissions import MixedGaussians, Symbols
from unsup.nn.levels import Categories, RoundedGaussians
from unsup.nn.linear_gaussian import LinearGaussian


def _array(x: Tensor) -> Any:
    return x.detach().double().numpy()


def linear_gaussian(model: Model, x: Tensor, data: Batch) -> Tensor:
    """The dense Gaussian of scipy, of the entries that are there."""
    assert isinstance(model, LinearGaussian)
    location = _array(model.front.mean) + _array(model.front.std) * _array(model.means)
    covariance, found = _array(model.covariance()), []
    for row in _array(x):
        seen = ~np.isnan(row)
        normal = stats.multivariate_normal(location[seen], covariance[np.ix_(seen, seen)]) if seen.any() else None
        found.append(0.0 if normal is None else normal.logpdf(row[seen]))
    return torch.tensor(found, dtype=torch.float64)


def kde(model: Model, x: Tensor, data: Batch) -> Tensor:
    """A loop over the columns, with kernels of scipy."""
    assert isinstance(model, KDE)
    centres, points = _array(model.data[: int(model.stored)]), _array(x)
    h, share = float(model.bandwidth), float(model.share)
    front = model.front if model.columns is None else model.columns.front
    scales = iter([] if front is None else _array(front.std).flatten())
    each = np.full((len(points), len(centres)), -np.log(len(centres)))
    for d, support in enumerate(model.event.columns):
        v, u = points[:, d, None], centres[None, :, d]
        if not support.is_discrete:
            each += stats.norm.logpdf(v, u, h * next(scales))
        elif support.kind == "ordinal":
            width = h * float(model.spread[d])
            low, high = v == support.low, v == support.low + support.levels - 1
            ends = np.where(low, -np.inf, v - 0.5), np.where(high, np.inf, v + 0.5)
            with np.errstate(divide="ignore"):  # a centre far away has no part in a sum
                each += np.log(stats.norm.cdf(ends[1], u, width) - stats.norm.cdf(ends[0], u, width))
        else:
            mass = share / support.levels
            each += np.log(np.where(v == u, 1 - mass * (support.levels - 1), mass))
    return torch.from_numpy(special.logsumexp(each, axis=1))


def gaussian_mixture(model: Model, x: Tensor, data: Batch) -> Tensor:
    """Gaussians of scipy in raw units: of standardised data y = (x − m) / s, μ and Σ become m + s μ and s Σ s.

    Discrete columns of tables have probabilities of categories, and Gaussians rounded to the levels.
    """
    assert isinstance(model, GaussianMixture)
    columns, points = model.event.columns, _array(x)
    real = [d for d, s in enumerate(columns) if not s.is_discrete]
    front = model.front if model.columns is None else model.columns.front
    factors = _array(model.gaussians.factors(model.used).expand(model.components, -1, -1))
    each = np.tile(special.log_softmax(_array(model.logits))[:, None], (1, len(x)))
    if front is not None:
        location, scale = _array(front.mean), _array(front.std)
        for k, (factor, mean) in enumerate(zip(factors, _array(model.gaussians.means), strict=True)):
            covariance = np.outer(scale, scale) * np.linalg.inv(factor @ factor.T)
            normal = stats.multivariate_normal(location + scale * mean, covariance, allow_singular=True)
            each[k] += normal.logpdf(points[:, real])
    for part, own in zip(model.levels, model.kinds, strict=True):
        for j, d in enumerate(own):
            level, top = points[:, d].astype(int) - columns[d].low, columns[d].levels - 1
            if isinstance(part, RoundedGaussians):
                centre, spread = _array(part.centre)[j], _array(part.spread)[j]
                ends = np.where(level > 0, level, -np.inf), np.where(level < top, level + 1, np.inf)
                mean, std = _array(part.means)[j][:, None], np.exp(_array(part.log_std)[j])[:, None]
                cdf = [stats.norm.cdf((end - centre) / spread, mean, std) for end in ends]
                each += np.log(cdf[1] - cdf[0])
            else:
                assert isinstance(part, Categories)
                rows = np.split(_array(part.logits), np.cumsum(part.levels)[:-1])[j]
                each += special.log_softmax(rows, axis=0)[level].T
    return torch.from_numpy(special.logsumexp(each, axis=0))


def bernoulli_mixture(model: Model, x: Tensor, data: Batch) -> Tensor:
    """Bernoullis of scipy."""
    assert isinstance(model, BernoulliMixture)
    bits, theta = x.flatten(1).numpy(), special.expit(_array(model.log_odds))
    each = [np.nansum(stats.bernoulli.logpmf(bits, theta[k]), 1) for k in range(model.components)]
    return torch.from_numpy(special.logsumexp(each, axis=0, b=special.softmax(_array(model.logits))[:, None]))


def hidden_markov_model(model: Model, x: Tensor, data: Batch) -> Tensor:
    """Each of the K^T paths: the emissions of its states by scipy, weighted by the probability of the path."""
    assert isinstance(model, HiddenMarkovModel)
    n, steps, k = len(x), model.event.shape[0], model.count
    frames = _array(x).reshape(n, steps, -1)
    each = np.zeros((n, steps, k))
    if isinstance(model.emissions, MixedGaussians):
        own = model.emissions
        assert own.columns.front is not None
        location, scale = _array(own.columns.front.mean), _array(own.columns.front.std)
        mixed = np.full((n, steps, k, own.components), -np.inf)
        factors, means = _array(own.gaussians.factors(own.used)), _array(own.gaussians.means)
        for j, (factor, mean) in enumerate(zip(factors, means, strict=True)):
            covariance = np.outer(scale, scale) * np.linalg.inv(factor @ factor.T)
            density = stats.multivariate_normal(location + scale * mean, covariance)
            mixed[:, :, j // own.components, j % own.components] = density.logpdf(frames).reshape(n, steps)
        each = special.logsumexp(mixed + special.log_softmax(_array(own.logits), 1), axis=3)
    else:
        assert isinstance(model.emissions, Symbols)
        table, low = special.log_softmax(_array(model.emissions.logits), 2), model.event.columns[0].low
        for c in range(frames.shape[2]):
            each += table[:, c].T[frames[:, :, c].astype(int) - low]
    initial = special.log_softmax(_array(model.initial))
    transitions = special.log_softmax(_array(model.transitions), 1)
    found = []
    for path in itertools.product(range(k), repeat=steps):
        chain = initial[path[0]] + sum(transitions[a, b] for a, b in itertools.pairwise(path))
        found.append(chain + sum(each[:, t, state] for t, state in enumerate(path)))
    return torch.from_numpy(special.logsumexp(found, axis=0))


def rbm(model: Model, x: Tensor, data: Batch) -> Tensor:
    """Both layers enumerated: p(v) = Σ_h e^(bᵀv + cᵀh + vᵀWh) / Σ_v,h e^(bᵀv + cᵀh + vᵀWh)."""
    assert isinstance(model, RBM)
    w, b, c = (_array(t) for t in model.interaction())

    def states(n: int) -> Any:
        return (np.arange(2**n)[:, None] >> np.arange(n)) & 1

    def joint(v: Any) -> Any:
        h = states(len(c))
        return (v @ b)[:, None] + (h @ c)[None] + v @ w @ h.T

    log_z = special.logsumexp(joint(states(len(b))))
    return torch.from_numpy(special.logsumexp(joint(x.flatten(1).numpy()), axis=1) - log_z)


def latent(model: Model, x: Tensor, data: Batch) -> Tensor:
    """All states enumerated one by one, with Bernoullis of scipy for x and for binary latents."""
    assert isinstance(model, Latent)
    counts, k = model.config["layers"], model.config["categories"]
    each: list[Any] = []
    for state in itertools.product(range(k), repeat=sum(counts)):
        values = [np.array(part) for part in np.split(np.array(state), np.cumsum(counts)[:-1])]
        z = [value.astype(float) if k == 2 else np.eye(k)[value].reshape(-1) for value in values]
        log_p = 0.0
        for layer, value in enumerate(values):
            if layer + 1 < len(values):
                net = cast(nn.Linear, model.down[layer])
                logits = _array(net.weight) @ z[layer + 1] + _array(net.bias)
            else:
                logits = _array(model.prior)
            if k == 2:
                log_p += stats.bernoulli.logpmf(value, special.expit(logits)).sum()
            else:
                log_p += special.log_softmax(logits.reshape(-1, k), axis=1)[np.arange(len(value)), value].sum()
        theta = special.expit(_array(model.nets.decode(torch.from_numpy(z[0])[None]))[0, :, 0])
        each.append(log_p + stats.bernoulli.logpmf(x.flatten(1).numpy(), theta).sum(1))
    return torch.from_numpy(special.logsumexp(np.stack(each), axis=0))


def histogram(model: Model, x: Tensor, data: Batch) -> Tensor:
    """Smoothed frequencies from histograms of numpy; for a point within the range of the data."""
    config, columns = model.config, model.event.columns
    shown, asked = _array(data.x.flatten(1)), _array(x.flatten(1))
    edges, log_width = [], 0.0
    for d, support in enumerate(columns):
        if support.is_discrete:
            edges.append(np.arange(support.levels + 1) + support.low - 0.5)
        else:
            inner = np.linspace(shown[:, d].min(), shown[:, d].max(), config["bins"] + 1)
            edges.append(np.concatenate([[-np.inf], inner, [np.inf]]))
            log_width += np.log(inner[1] - inner[0])

    def cells(points: Any) -> Any:
        found = [np.searchsorted(e, points[:, d], side="right") - 1 for d, e in enumerate(edges)]
        # The top edge of the data belongs to the last bin.
        top = [len(e) - (2 if columns[d].is_discrete else 3) for d, e in enumerate(edges)]
        return np.stack([np.minimum(f, t) for f, t in zip(found, top, strict=True)], 1)

    sizes = [len(e) - 1 for e in edges]
    joint = config["joint"] == "always" or (config["joint"] == "auto" and np.prod(sizes) <= min(2**16, len(shown)))
    own, theirs = cells(asked), cells(shown)

    def log_frequency(of: list[int]) -> Any:
        same = (own[:, None, of] == theirs[None][:, :, of]).all(2).sum(1)
        alpha = config["smoothing"]
        return np.log((same + alpha) / (len(shown) + alpha * np.prod([sizes[d] for d in of])))

    places = list(range(len(sizes)))
    log_mass = log_frequency(places) if joint else sum(log_frequency([d]) for d in places)
    return torch.from_numpy(log_mass - log_width)


def conditionals(model: Model, x: Tensor, data: Batch) -> Tensor:
    """Bernoullis or softmaxes of scipy, with the parameters of every conditional."""
    assert isinstance(model, IsAutoregressive)
    parameters = _array(model.conditionals(x.to(model.dtype)))  # (B, D, P)
    level = x.flatten(1).numpy().astype(int) - np.array([s.low for s in model.event.columns])
    if parameters.shape[2] == 1:
        return torch.from_numpy(stats.bernoulli.logpmf(level, special.expit(parameters[..., 0])).sum(1))
    chosen = np.take_along_axis(special.log_softmax(parameters, axis=2), level[..., None], 2)
    return torch.from_numpy(chosen.sum((1, 2)))


def heads(model: Model, x: Tensor, data: Batch) -> Tensor:
    """Distributions of scipy for the columns of MADE on a table, from the outputs of its network.

    Units of columns are stored in float32.
    """
    assert isinstance(model, IsAutoregressive)
    outputs, points, total = _array(model.conditionals(x.to(model.dtype))), _array(x), np.zeros(len(x))
    known = _array(data.x)
    for d, support in enumerate(model.event.columns):
        own, at = outputs[:, d], points[:, d]
        at = at - support.low
        mean, std = (
            np.float64(np.float32(f(known[:, d] - support.low + 0.5 * support.is_discrete))) for f in (np.mean, np.std)
        )
        if support.levels == 2:
            total += stats.bernoulli.logpmf(at, special.expit(own[:, 0]))
        elif support.is_discrete and (support.kind == "nominal" or support.levels <= 16):
            log_p = special.log_softmax(own[:, : support.levels], axis=1)
            total += log_p[np.arange(len(at)), at.astype(int)]
        else:
            components = model.config["components"]
            logits, means, log_scales = np.split(own[:, : 3 * components], 3, axis=1)
            weights = special.softmax(logits, axis=1)
            if support.is_discrete:  # logistics, rounded down; beyond the levels to the nearest of them
                edges = np.where(at > 0, at, -np.inf), np.where(at < support.levels - 1, at + 1, np.inf)
                unit = [((e - mean) / std)[:, None] for e in edges]
                cdf = [stats.logistic.cdf(u, means, np.exp(log_scales)) for u in unit]
                total += np.log((weights * (cdf[1] - cdf[0])).sum(1))
            else:
                density = stats.norm.pdf(((at - mean) / std)[:, None], means, np.exp(log_scales))
                total += np.log((weights * density).sum(1) / std)
    return torch.from_numpy(total)
