"""Gaussian mixture: p(x) = Σ_k π_k N(x; μ_k, Σ_k), by expectation-maximisation or by gradient ascent.

EM (Dempster, Laird, Rubin 1977, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x) alternates

    r_nk = π_k N(y_n; μ_k, Σ_k) / Σ_j π_j N(y_n; μ_j, Σ_j)
    N_k = Σ_n r_nk,  π_k = N_k / N,  μ_k = Σ_n r_nk y_n / N_k,  Σ_k = Σ_n r_nk (y_n − μ_k)(y_n − μ_k)ᵀ / N_k + floor · I

and without the floor never lowers the likelihood. Each covariance is held by the upper-triangular factor of its
inverse, Σ_k⁻¹ = U_k U_kᵀ, with the logarithm of its diagonal: log N costs one product y U_k, and any value of the
parameters is a proper density, so gradient ascent needs no constraint. Everything is in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot

from unsup.core.batch import Batch
from unsup.core.errors import InputError, TrainingError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import CanEncode, CanSample, HasDensity, LearnsByCounting, Model, Terms
from unsup.nn.front import ContinuousFront, dequantized_log_prob
from unsup.prob import distributions as dist

_SHORT_RUN = 10  # EM passes that compare restarts
_BLOCK = 8192  # rows at a time in prepare
_NEGLIGIBLE = 1e-20  # a responsibility below this is lost in the rounding of N_k
_EMPTY = 1e-10  # examples; a component with fewer keeps its mean and covariance


class GaussianMixture(Model, HasDensity, CanSample, CanEncode, LearnsByCounting):
    """Mixture of Gaussians, Σ_k π_k N(x; μ_k, Σ_k) (EM: Dempster, Laird, Rubin 1977).

    The components live on standardised data, y = (x − mean) / std of each entry, whose Jacobian is counted; pixels and
    counts are dequantised first, so that their likelihood is a bound. The start is k-means++ (Arthur, Vassilvitskii
    2007): every example joins its nearest seed. In EM a component that loses all its examples keeps its mean and
    covariance, with a weight of almost nothing. `encode` gives the responsibilities.

    Args:
        event: binary, ordinal, real, or a table that mixes them.
        components: K.
        covariance: ``full``, ``diagonal``, or ``tied`` (one full matrix for all components).
        learn: ``em``, or ``gradient``: ascent of the same likelihood, without the floor.
        iterations: the most EM passes.
        tolerance: EM stops when a pass raises the mean log-likelihood by less than this, in nats.
        floor: added to the variances in EM, in units of each entry's variance.
        restarts: starts tried by ten EM passes each; the likeliest is kept.

    Raises:
        InputError: fewer than one component or restart, or fewer training examples than components.
        TrainingError: a singular covariance, which only a floor of (almost) zero allows.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = GaussianMixture(Event((2,), Support("real")), components=3)
    >>> model.log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    presets = {
        "tiny": {"components": 3, "iterations": 20},
        "paper": {"restarts": 10, "tolerance": 1e-3, "floor": 1e-6},
    }
    fit_defaults = {"lr": 1e-2}
    autocast = False

    def __init__(
        self,
        event: Event,
        *,
        components: int = 10,
        covariance: Literal["full", "diagonal", "tied"] = "full",
        learn: Literal["em", "gradient"] = "em",
        iterations: int = 100,
        tolerance: float = 1e-3,
        floor: float = 1e-6,
        restarts: int = 1,
    ) -> None:
        if components < 1 or restarts < 1:
            raise InputError(f"GaussianMixture: components={components} and restarts={restarts} should be at least 1")
        self.components, self.covariance, self.learn = components, covariance, learn
        self.floor, self.restarts = floor, restarts
        self._passes, self._tolerance = iterations if learn == "em" else 0, tolerance
        dims, matrices = event.dims, 1 if covariance == "tied" else components
        self.front = ContinuousFront(event).double()
        self.logits = nn.Parameter(torch.zeros(components, dtype=torch.float64))
        self.means = nn.Parameter(torch.randn(components, dims, dtype=torch.float64))
        self.log_diagonal = nn.Parameter(torch.zeros(matrices, dims, dtype=torch.float64))
        # The entries of U above its diagonal, row by row.
        above = dims * (dims - 1) // 2 if covariance != "diagonal" else 0
        self.above = nn.Parameter(torch.zeros(matrices, above, dtype=torch.float64)) if above else None

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if any(s.kind == "nominal" for s in event.columns):
            return "takes no unordered (nominal) entries"
        return None

    @property
    def likelihood_kind(self) -> Kind:
        return "exact" if self.event.is_real else "bound"

    @property
    def passes(self) -> int:
        return self._passes

    @property
    def tolerance(self) -> float:
        return self._tolerance

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Standardise, then start every component at a k-means++ seed and the examples nearest to it."""
        x = batch.x
        if len(x) < self.components:
            raise InputError(
                f"GaussianMixture: components={self.components} needs at least as many training examples; there are "
                f"{len(x)}; ask for fewer components or give more data"
            )
        self.front.prepare(x, generator=generator)
        y = self.front(self.front.dequantize(x, generator=generator))[0].flatten(1)
        best, kept = -torch.inf, {}
        for _ in range(self.restarts):
            self._start(y, generator)
            if self.restarts == 1:
                return
            for _ in range(_SHORT_RUN):
                self.maximize(self._sums(y))
            reached = float(self._sums(y)["log_prob"])
            if reached > best:
                best, kept = reached, {name: p.clone() for name, p in self.named_parameters()}
        for name, parameter in self.named_parameters():
            parameter.copy_(kept[name])

    def _start(self, y: Tensor, generator: Generator) -> None:
        seeds, nearest = kmeans_plus_plus(y, self.components, generator=generator)
        self.means.copy_(y[seeds])
        belongs = one_hot(nearest, self.components).to(y.dtype)
        self.maximize(_add(self._moments(*part) for part in zip(y.split(_BLOCK), belongs.split(_BLOCK), strict=True)))

    def _sums(self, y: Tensor) -> dict[str, Tensor]:
        return _add(self._expect(part) for part in y.split(_BLOCK))

    @torch.no_grad()
    def statistics(self, batch: Batch, *, generator: Generator | None = None) -> dict[str, Tensor]:
        """Sums over the batch: ``count``, ``log_prob``, ``weight`` (N_k), ``first`` (Σ r y) and ``second`` moments."""
        y, log_det = self.front(self.front.dequantize(batch.x, generator=generator))
        sums = self._expect(y.flatten(1))
        return sums | {"log_prob": sums["log_prob"] + log_det.sum()}

    def _expect(self, y: Tensor) -> dict[str, Tensor]:
        joint = self._log_joint(y)
        log_prob = joint.logsumexp(1)
        return self._moments(y, (joint - log_prob[:, None]).exp()) | {"log_prob": log_prob.sum()}

    def _moments(self, y: Tensor, responsibility: Tensor) -> dict[str, Tensor]:
        """Weighted sums of 1, y and its second moment: about the current means when full, else about zero."""
        sums = {
            "count": y.new_tensor(len(y)),
            "weight": responsibility.sum(0),
            "first": responsibility.T @ y,
        }  # (), (K,), (K, D)
        if self.covariance == "diagonal":
            return sums | {"second": responsibility.T @ y.square()}  # (K, D)
        if self.covariance == "tied":
            return sums | {"second": y.T @ y}  # (D, D)
        scatters = []
        for mean, weight in zip(self.means, responsibility.T, strict=True):
            rows = weight > _NEGLIGIBLE  # in many dimensions most examples belong to one component only
            centred = y[rows] - mean
            scatters.append((centred * weight[rows, None]).T @ centred)
        return sums | {"second": torch.stack(scatters)}  # (K, D, D)

    @torch.no_grad()
    def maximize(self, statistics: Mapping[str, Tensor]) -> None:
        """The M-step: weights, means and covariances from the responsibilities' sums."""
        count, weight, second = statistics["count"], statistics["weight"], statistics["second"]
        alive = weight > _EMPTY
        safe = torch.where(alive, weight, 1.0)
        means = torch.where(alive[:, None], statistics["first"] / safe[:, None], self.means)
        if self.covariance == "diagonal":
            variance = second / safe[:, None] - means.square() + self.floor
            variance[~alive] = 1.0
            self._check_positive((variance <= 0).any(1))
            log_diagonal, above = -0.5 * variance.log(), None
        elif self.covariance == "tied":
            log_diagonal, above = self._factorise(((second - (means * weight[:, None]).T @ means) / count)[None])
        else:
            shift = means - self.means
            matrix = second / safe[:, None, None] - shift[:, :, None] * shift[:, None, :]
            matrix[~alive] = torch.eye(means.shape[1], dtype=means.dtype, device=means.device)
            log_diagonal, above = self._factorise(matrix)
        kept = alive[:, None] if self.covariance != "tied" else alive.new_ones(1, 1)
        self.means.copy_(means)
        self.log_diagonal.copy_(torch.where(kept, log_diagonal, self.log_diagonal))
        if self.above is not None:
            self.above.copy_(torch.where(kept, above, self.above))
        # As in scikit-learn, an empty component keeps a weight whose logarithm is finite.
        self.logits.copy_(((weight + 10 * torch.finfo(weight.dtype).eps) / count).log())

    def _factorise(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Covariances ``(M, D, D)`` without the floor → log-diagonal and upper part of U with Σ⁻¹ = U Uᵀ."""
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        lower, info = torch.linalg.cholesky_ex(matrix + self.floor * identity)
        self._check_positive(info > 0)
        factor = torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False).mT
        row, column = self._above_indices(matrix.device)
        return factor.diagonal(dim1=-2, dim2=-1).log(), factor[:, row, column]

    def _check_positive(self, singular: Tensor) -> None:
        if bool(singular.any()):
            raise TrainingError(
                f"GaussianMixture: the covariance of component {int(singular.nonzero()[0])} is singular with "
                f"floor={self.floor:g}; raise floor (1e-6 is usual), ask for fewer components, or covariance='diagonal'"
            )

    def _above_indices(self, device: torch.device) -> tuple[Tensor, Tensor]:
        dims = self.means.shape[1]
        row, column = torch.triu_indices(dims, dims, 1, device=device)
        return row, column

    def factors(self) -> Tensor:
        """U with Σ⁻¹ = U Uᵀ on standardised data, upper-triangular: ``(K, D, D)``, or ``(1, D, D)`` when tied."""
        factor = torch.diag_embed(self.log_diagonal.exp())
        if self.above is None:
            return factor
        row, column = self._above_indices(factor.device)
        return factor.index_put((torch.arange(len(factor), device=factor.device)[:, None], row, column), self.above)

    def _log_joint(self, y: Tensor) -> Tensor:
        """log π_k + log N(y; μ_k, Σ_k): ``(B, D)`` → ``(B, K)``."""
        if self.covariance == "diagonal":
            precision = (2 * self.log_diagonal).exp()
            scaled = precision * self.means
            square = y.square() @ precision.T - 2 * y @ scaled.T + (scaled * self.means).sum(1)
        else:
            factors = self.factors().expand(self.components, -1, -1)
            shared = y @ factors[0] if self.covariance == "tied" else None
            columns = []
            for mean, factor in zip(self.means, factors, strict=True):
                white = (y @ factor if shared is None else shared) - mean @ factor
                columns.append(torch.linalg.vecdot(white, white))
            square = torch.stack(columns, 1)
        log_det = self.log_diagonal.sum(1) - 0.5 * y.shape[1] * dist.LOG_2PI
        return self.logits.log_softmax(0) + log_det - 0.5 * square

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Mean negative log-likelihood."""
        return {"loss": -self.log_prob(batch.x, generator=generator).mean()}

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        x = batch.x

        def density(y: Tensor) -> Tensor:
            return self._log_joint(y.flatten(1)).logsumexp(1)

        return dequantized_log_prob(self.front, density, x, samples=samples, generator=generator)

    def encode(self, x: Tensor) -> Tensor:
        """Responsibilities p(k | x), ``(B, K)``; discrete entries are taken at the middle of their level."""
        self.event.check_shape(x)
        y, _ = self.front(x.to(self.dtype) + 0.5 * self.front.discrete)
        return self._log_joint(y.flatten(1)).softmax(1)

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Exact draws: k ~ π, then y = μ_k + U_k⁻ᵀ ε, rounded to the support."""
        chosen = dist.sample_categorical(self.logits.expand(n, -1), generator=generator)
        noise = torch.randn(n, self.event.dims, generator=generator, dtype=self.dtype, device=self.device)
        if self.covariance == "diagonal":
            y = self.means[chosen] + noise * (-self.log_diagonal[chosen]).exp()
        else:
            factors = self.factors().expand(self.components, -1, -1)
            y = self.means[chosen]
            for k in chosen.unique().tolist():
                rows = chosen == k
                y[rows] += torch.linalg.solve_triangular(factors[k].T, noise[rows].T, upper=False).T
        return self.front.to_support(self.front.invert(y.view(n, *self.event.shape)))


def kmeans_plus_plus(y: Tensor, count: int, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """Seeds of k-means++: the first uniform, each next with probability proportional to D(y)².

    D is the distance to the nearest seed so far (Arthur, Vassilvitskii 2007, section 2.2,
    https://dl.acm.org/doi/10.5555/1283383.1283494). Where every example coincides with a seed, the next is any other.

    Args:
        y: ``(N, D)``, N ≥ ``count``.

    Returns:
        Rows of the seeds ``(count,)``, all different, and the number of the nearest seed of each example ``(N,)``;
        a seed is its own nearest.
    """
    distance = torch.full((len(y),), torch.inf, dtype=y.dtype, device=y.device)
    nearest = torch.zeros(len(y), dtype=torch.int64, device=y.device)
    free = torch.ones_like(distance)
    seeds = []
    for k in range(count):
        weight = free if k == 0 or not bool((distance > 0).any()) else distance
        cumulative = weight.double().cumsum(0)
        uniform = torch.rand(1, generator=generator, dtype=torch.float64, device=y.device)
        seed = torch.searchsorted(cumulative / cumulative[-1], uniform, right=True)
        seeds.append(seed)
        free[seed] = 0
        to_seed = (y - y[seed]).square().sum(1)
        closer = to_seed < distance
        distance, nearest = torch.where(closer, to_seed, distance), nearest.masked_fill(closer, k)
        nearest[seed] = k
    return torch.cat(seeds), nearest


def _add(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for part in parts:
        total = {k: total[k] + v if total else v for k, v in part.items()}
    return total
