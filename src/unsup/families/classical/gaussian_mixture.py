"""Gaussian mixture: p(x) = Σ_k π_k N(x; μ_k, Σ_k), by expectation-maximisation or by gradient ascent.

EM (Dempster, Laird, Rubin 1977, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x) alternates

    r_nk = π_k N(y_n; μ_k, Σ_k) / Σ_j π_j N(y_n; μ_j, Σ_j)
    N_k = Σ_n r_nk,  π_k = N_k / N,  μ_k = Σ_n r_nk y_n / N_k,  Σ_k = Σ_n r_nk (y_n − μ_k)(y_n − μ_k)ᵀ / N_k + floor · I

and without the floor never lowers the likelihood. Each covariance is held by the upper-triangular factor of its
inverse, Σ_k⁻¹ = U_k U_kᵀ, with the logarithm of its diagonal: log N costs one product y U_k, and any value of the
parameters is a proper density, so gradient ascent needs no constraint. Everything is in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Weight
from unsup.core.errors import TrainingError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import Advice
from unsup.nn.counting import Mixture
from unsup.nn.front import ContinuousFront, dequantized_log_prob
from unsup.prob import distributions as dist

_NEGLIGIBLE = 1e-20  # a responsibility below this is lost in the rounding of N_k


class GaussianMixture(Mixture):
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
        InputError: fewer training examples than components.
        TrainingError: a singular covariance, which only a floor of (almost) zero allows.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = GaussianMixture(Event((2,), Support("real")), components=3)
    >>> model.log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    presets = {
        "tiny": {"components": 3, "iterations": 20, "covariance": "diagonal"},  # full ones grow with D²
        "paper": {"restarts": 10, "tolerance": 1e-3, "floor": 1e-6},
    }
    fit_defaults = {"lr": 1e-2}
    autocast = False
    not_in_half = "its covariances are computed in float64"

    def __init__(
        self,
        event: Event,
        *,
        components: Count = 10,
        covariance: Literal["full", "diagonal", "tied"] = "full",
        learn: Literal["em", "gradient"] = "em",
        iterations: Count = 100,
        tolerance: Weight = 1e-3,
        floor: Weight = 1e-6,
        restarts: Count = 1,
    ) -> None:
        self.covariance, self.floor = covariance, floor
        self.take_passes(iterations if learn == "em" else 0, tolerance)
        dims, matrices = event.dims, 1 if covariance == "tied" else components
        self.front = ContinuousFront(event).double()
        self.take_components(components, restarts)
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

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        """Fewer components where examples are few; where entries are many, variances alone and a floor above noise."""
        most = max(1, examples // 10)
        if event.is_image or event.dims > 64:
            components = min(80 if event.is_image else 20, most)
            return Advice({"covariance": "diagonal", "components": components, "floor": 1e-2})
        return Advice({"components": min(10, most), "floor": 1e-3})

    @property
    def likelihood_kind(self) -> Kind:
        return "exact" if self.event.is_real else "bound"

    @property
    def mass_in_support(self) -> bool:
        return self.event.is_real

    @property
    def n_free(self) -> int:
        """Weights, means and covariances; the units of the data are none."""
        return self.parameter_count - 1

    # --- points ---------------------------------------------------------------------------------------------------

    def scale(self, batch: Batch, *, generator: Generator) -> None:
        self.front.prepare(batch.x, generator=generator)

    def points(self, x: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        y, log_det = self.front(self.front.dequantize(x, generator=generator))
        return y.flatten(1), log_det

    def middle(self, x: Tensor) -> Tensor:
        return self.front.middle(x).flatten(1)

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        def density(y: Tensor) -> Tensor:
            return self.log_joint(y.flatten(1)).logsumexp(1)

        return dequantized_log_prob(self.front, density, batch.x, samples=samples, generator=generator)

    # --- learning -------------------------------------------------------------------------------------------------

    def take_seeds(self, seeds: Tensor) -> None:
        self.means.copy_(seeds)

    def moments(self, y: Tensor, responsibility: Tensor, weight: Tensor | None) -> dict[str, Tensor]:
        """``first`` and ``second`` moments of y: the second about the current means when full, else about zero."""
        first = {"first": responsibility.T @ y}  # (K, D)
        if self.covariance == "diagonal":
            return first | {"second": responsibility.T @ y.square()}  # (K, D)
        if self.covariance == "tied":
            return first | {"second": (y if weight is None else y * weight[:, None]).T @ y}  # (D, D)
        scatters = []
        for mean, own in zip(self.means, responsibility.T, strict=True):
            rows = own > _NEGLIGIBLE  # in many dimensions most examples belong to one component only
            centred = y[rows] - mean
            scatters.append((centred * own[rows, None]).T @ centred)
        return first | {"second": torch.stack(scatters)}  # (K, D, D)

    def maximize_components(self, sums: Mapping[str, Tensor], alive: Tensor) -> None:
        """Means and covariances."""
        weight, second = sums["weight"], sums["second"]
        safe = torch.where(alive, weight, 1.0)
        means = torch.where(alive[:, None], sums["first"] / safe[:, None], self.means)
        kept, above = alive[:, None], None
        if self.covariance == "diagonal":
            variance = second / safe[:, None] - means.square() + self.floor
            variance[~alive] = 1.0
            self._check_positive((variance <= 0).any(1))
            log_diagonal = -0.5 * variance.log()
        elif self.covariance == "tied":
            scatter = second - (means * weight[:, None]).T @ means
            log_diagonal, above = self._factorise((scatter / sums["count"])[None])
            kept = alive.new_ones(1, 1)
        else:
            shift = means - self.means
            matrix = second / safe[:, None, None] - shift[:, :, None] * shift[:, None, :]
            matrix[~alive] = torch.eye(means.shape[1], dtype=means.dtype, device=means.device)
            log_diagonal, above = self._factorise(matrix)
        self.means.copy_(means)
        self.log_diagonal.copy_(torch.where(kept, log_diagonal, self.log_diagonal))
        if self.above is not None and above is not None:
            self.above.copy_(torch.where(kept, above, self.above))

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

    # --- components -----------------------------------------------------------------------------------------------

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

    def log_components(self, y: Tensor) -> Tensor:
        """log N(y; μ_k, Σ_k): ``(B, D)`` → ``(B, K)``."""
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
        return self.log_diagonal.sum(1) - 0.5 * y.shape[1] * dist.LOG_2PI - 0.5 * square

    def draw(self, component: Tensor, generator: Generator | None) -> Tensor:
        """y = μ_k + U_k⁻ᵀ ε, rounded to the support."""
        y = self.means[component]
        noise = random.normal(y.shape, generator, like=y)
        if self.covariance == "diagonal":
            y = y + noise * (-self.log_diagonal[component]).exp()
        else:
            factors = self.factors().expand(self.components, -1, -1)
            for k in component.unique().tolist():
                rows = component == k
                y[rows] += torch.linalg.solve_triangular(factors[k].T, noise[rows].T, upper=False).T
        return self.front.to_support(self.front.invert(y.view(len(y), *self.event.shape)))
