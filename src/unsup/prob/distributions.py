"""Log-probabilities and draws of the output distributions of models. Pure functions on tensors.

All functions keep the batch axes of their inputs; callers sum over events. Likelihood sums use float32 or float64:
half-precision parameters are converted to float32 first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid

from unsup.core import random

LOG_2PI = math.log(2 * math.pi)


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32 if it is bfloat16 or float16, else unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) of x ∈ {0, 1} with p(1) = σ(logits), elementwise.

    >>> float(bernoulli_log_prob(torch.tensor(1.0), torch.tensor(0.0)).exp())
    0.5
    """
    logits = at_least_float32(logits)
    return -binary_cross_entropy_with_logits(logits, x.to(logits.dtype), reduction="none")


def categorical_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) of class numbers ``x`` (…) under ``logits`` (…, K)."""
    logits = at_least_float32(logits)
    flat = -cross_entropy(logits.reshape(-1, logits.shape[-1]), x.reshape(-1).long(), reduction="none")
    return flat.view(x.shape)


def gaussian_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(x; mean, exp(log_std)²), elementwise."""
    return -0.5 * (((x - mean) * (-log_std).exp()) ** 2 + LOG_2PI) - log_std


def standard_gaussian_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, 1), elementwise."""
    return -0.5 * (z**2 + LOG_2PI)


def standard_logistic_log_prob(z: Tensor) -> Tensor:
    """log of σ(z) σ(−z), the standard logistic density, elementwise.

    >>> round(float(standard_logistic_log_prob(torch.tensor(0.0)).exp()), 4)
    0.25
    """
    z = at_least_float32(z)
    return logsigmoid(z) + logsigmoid(-z)


def gaussian_mixture_log_prob(x: Tensor, logits: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log Σ_k π_k N(x; mean_k, std_k²): ``x`` (…), the others (…, K)."""
    logits, mean, log_std = (at_least_float32(t) for t in (logits, mean, log_std))
    component = gaussian_log_prob(x.unsqueeze(-1), mean, log_std)
    return torch.logsumexp(logits.log_softmax(-1) + component, -1)


def discretized_logistic_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """log P(x) of integers 0 … levels − 1 under a logistic rounded to bins; the edge bins include the tails.

    The edges of the bins are at −1 + 2k/levels on the scale of ``mean``, so that masses over all levels telescope to 1
    (Salimans et al. 2017, https://arxiv.org/abs/1701.05517, without its mid-point approximation).

    >>> x = torch.arange(5)
    >>> total = discretized_logistic_log_prob(x, torch.tensor(0.3), torch.tensor(-1.0), 5).exp().sum()
    >>> bool((total - 1).abs() < 1e-6)
    True
    """
    mean, log_scale = at_least_float32(mean), at_least_float32(log_scale)
    x, inverse = x.to(mean.dtype), (-log_scale).exp()
    # A bin and the next one round their common edge alike, so that masses telescope in float32 too.
    a, b = ((-1 + 2 * edge / levels - mean) * inverse for edge in (x, x + 1))
    return _logistic_difference(a, b, 2 / levels * inverse, x < 0.5, x > levels - 1.5)


def logistic_cell_log_prob(
    lower: Tensor, width: Tensor | float, mean: Tensor, log_scale: Tensor, first: Tensor, last: Tensor
) -> Tensor:
    """log P(lower ≤ v < lower + width) of a logistic v, elementwise; a ``first`` or ``last`` cell includes the tail."""
    inverse = (-log_scale).exp()
    a, wide = (lower - mean) * inverse, width * inverse
    return _logistic_difference(a, a + wide, wide, first, last)


def _logistic_difference(a: Tensor, b: Tensor, wide: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """log of σ(b) − σ(a) with b − a = ``wide``; with a = −∞ in a ``first`` cell and b = ∞ in a ``last`` one."""
    # σ(b) − σ(a) = σ(b) σ(−a) (1 − e^(a − b)), which is accurate in both tails.
    # (`softplus` is linear above 20, which costs digits in float64.)
    below, above = logsigmoid(b), logsigmoid(-a)
    return torch.where(first, below, torch.where(last, above, below + above + torch.log(-torch.expm1(-wide))))


def logistic_interval_log_prob(edges: Tensor, widths: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log P of the intervals between edges, ascending and possibly infinite, under a logistic.

    Args:
        edges: ``(…, m + 1, 1)``.
        widths: their differences, ``(…, m, 1)``.
        mean, log_scale: ``(…, 1, K)``.
    """
    inverse = (-log_scale).exp()
    z = (edges - mean) * inverse
    # The formula of `logistic_cell_log_prob`, whose terms vanish at infinite ends.
    return logsigmoid(z[..., 1:, :]) + logsigmoid(-z[..., :-1, :]) + torch.log(-torch.expm1(-widths * inverse))


def sample_bernoulli(logits: Tensor, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
    """0/1 draws, int64, from one uniform each, so that the draw only depends on the state of the generator."""
    probability = (at_least_float32(logits) / temperature).sigmoid()
    noise = random.uniform(logits.shape, generator, like=probability)
    return (noise < probability).long()


def sample_categorical(logits: Tensor, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
    """Class numbers (…) from ``logits`` (…, K) by inverting the distribution function at one uniform each."""
    cumulative = (at_least_float32(logits) / temperature).softmax(-1).cumsum(-1)
    noise = random.uniform((*logits.shape[:-1], 1), generator, like=cumulative)
    # Scaling by the last entry absorbs the rounding of the sum, so that no draw falls outside.
    return (cumulative < noise * cumulative[..., -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)


def most_probable(log_masses: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Log-masses ``(…, K)`` with −∞ at all but the most probable levels, not normalised again.

    Args:
        log_masses: normalised.
        top_k: number of levels that are kept.
        top_p: of these, the fewest levels are kept whose masses, normalised over them, sum to at least this share; at
            least one (nucleus sampling, Holtzman et al. 2020, https://arxiv.org/abs/1904.09751).

    >>> most_probable(torch.tensor([0.5, 0.2, 0.3]).log(), top_p=0.6).exp().round(decimals=1).tolist()
    [0.5, 0.0, 0.30000001192092896]
    """
    ordered, level = log_masses.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[..., top_k:] = -math.inf
    if top_p is not None:
        before = ordered.softmax(-1).cumsum(-1).roll(1, -1)
        before[..., 0] = -1.0
        ordered = ordered.masked_fill(before >= top_p, -math.inf)
    return torch.empty_like(log_masses).scatter_(-1, level, ordered)


def sample_standard_logistic(shape: Sequence[int], generator: Generator | None, *, like: Tensor) -> Tensor:
    """Standard logistic draws by inverting the distribution function at one uniform each."""
    noise = random.uniform(shape, generator, like=at_least_float32(like))
    return noise.clamp(min=torch.finfo(noise.dtype).tiny).logit()  # a uniform may be 0, but is never 1


def sample_gaussian_mixture(
    logits: Tensor, mean: Tensor, log_std: Tensor, *, generator: Generator | None = None, temperature: float = 1.0
) -> Tensor:
    """Draws (…) from mixtures (…, K); ``temperature`` scales the standard deviations and flattens the weights."""
    chosen = sample_categorical(logits, generator=generator, temperature=temperature).unsqueeze(-1)
    picked_mean = mean.gather(-1, chosen).squeeze(-1)
    picked_std = log_std.gather(-1, chosen).squeeze(-1).exp()
    noise = random.normal(picked_mean.shape, generator, like=mean)
    return picked_mean + temperature * picked_std * noise


def mixture_log_conditionals(entries: Tensor, log_weights: Tensor) -> Tensor:
    """log p(x_d | x_<d) of a mixture of M products over one order: ``(M, B, D)``, ``(M,)`` → ``(B, D)``, float64.

    p(x_≤d) = Σ_m w_m Π_{i≤d} p_m(x_i | x_<i), and log p(x_d | x_<d) is the difference of two such logarithms.

    >>> entries = torch.tensor([[[0.9, 0.9]], [[0.1, 0.1]]]).log()
    >>> [round(p, 4) for p in mixture_log_conditionals(entries, torch.tensor([0.5, 0.5]).log())[0].exp().tolist()]
    [0.5, 0.82]
    """
    joint = torch.logsumexp(entries.double().cumsum(-1) + log_weights.double().view(-1, 1, 1), 0)  # log p(x_≤d)
    return log_ratios(joint)


def log_ratios(joint: Tensor) -> Tensor:
    """log p(x_d | x_<d) from log p(x_≤d) ``(B, D)``: differences, 0 after a −∞, so that the sum stays −∞."""
    before = torch.cat([torch.zeros_like(joint[:, :1]), joint[:, :-1]], 1)
    return torch.where(before == -math.inf, torch.zeros_like(joint), joint - before)


def log_mean_exp(x: Tensor, dim: int) -> Tensor:
    """log of the mean of exp(x) along ``dim``."""
    return torch.logsumexp(x, dim) - math.log(x.shape[dim])


def equal_mixture_log_prob(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log 1/K Σ_k N(z; m_k, diag s_k²) by matrix products in float64: ``(…, L)``, ``(K, L)`` twice → ``(…)``.

    >>> z, zero = torch.zeros(3, 2), torch.zeros(4, 2)
    >>> equal_mixture_log_prob(z, zero, zero)
    tensor([-1.8379, -1.8379, -1.8379])
    """
    wide, m, log_s = z.double(), mean.double(), log_variance.double()
    precision = (-log_s).exp()
    squared = wide.square() @ precision.mT - 2 * wide @ (m * precision).mT + (m.square() * precision).sum(-1)
    each = -0.5 * (squared + (log_s + LOG_2PI).sum(-1))
    return (each.logsumexp(-1) - math.log(len(mean))).to(z.dtype)
