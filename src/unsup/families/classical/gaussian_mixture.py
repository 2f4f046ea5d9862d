"""Gaussian mixture: p(x) = Σ_k π_k N(x; μ_k, Σ_k), by expectation-maximisation or by gradient ascent.

EM (Dempster, Laird, Rubin 1977, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x) alternates

    r_nk = π_k N(y_n; μ_k, Σ_k) / Σ_j π_j N(y_n; μ_j, Σ_j)
    N_k = Σ_n r_nk,  π_k = N_k / N,  μ_k = Σ_n r_nk y_n / N_k,  Σ_k = Σ_n r_nk (y_n − μ_k)(y_n − μ_k)ᵀ / N_k + floor · I

and without the floor never lowers the likelihood. With ``components="auto"`` a noise component of fixed shape catches
examples that belong nowhere (Banfield, Raftery 1993, https://doi.org/10.2307/2532201), each covariance has a prior
worth one example (Fraley, Raftery 2007, https://doi.org/10.1007/s00357-007-0004-5), and the number of components and
the form of their covariances are those with the lowest BIC. Each covariance is held by the upper-triangular factor of
its inverse, Σ_k⁻¹ = U_k U_kᵀ, with the logarithm of its diagonal: log N costs one product y U_k, and any value of the
parameters is a proper density, so gradient ascent needs no constraint. Everything is in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Weight
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import Advice, HasEntryConditionals, Symptom
from unsup.nn.counting import SHORT_RUN, Mixture
from unsup.nn.front import ContinuousFront, dequantized_log_prob
from unsup.prob import distributions as dist
from unsup.prob import gaussian_em as em
from unsup.prob.clusters import kmeans_plus_plus
from unsup.prob.gaussian_em import Structure
from unsup.prob.robust import usual_range

_SINGULAR = 1e-12  # a variance below this, in units of the entry's own, is rounding
_NEGLIGIBLE_WEIGHT = 0.01  # of a component whose collapse hardly changes the density of new data
_COLLAPSED = 10  # times the floor: what is left of a variance that nothing but the floor keeps from zero

# What components="auto" chooses from, and how.
COUNTS = (1, 2, 3, 5, 8, 12)
"""Numbers of components that are tried, each form of covariance by itself, until two in a row have not helped."""
SMALLEST = 0.05
"""Of the examples: a component with a smaller share after ten passes is noise, since it would explain the anomalies."""
_NOISE = 3.0  # standard deviations of the noise, in those of the columns
_NOISE_START = 0.01  # its weight at first
_BETWEEN = 10  # passes before the smallest component is looked at
_PRIOR = 1.0  # examples that the prior of a covariance is worth
_GROSS = 1000.0  # widths of a column; a value further from its median is fitted as if it were there
_ENOUGH = 2000  # examples to choose by; passes over all of them follow
_MOST_DIMS = 128  # with more entries all covariances are diagonal
_FORMS: tuple[Structure, ...] = ("diagonal", "tied", "full")


class GaussianMixture(Mixture, HasEntryConditionals):
    """Mixture of Gaussians, Σ_k π_k N(x; μ_k, Σ_k) (EM: Dempster, Laird, Rubin 1977).

    The components live on standardised data, y = (x − mean) / std of each entry, whose Jacobian is counted; pixels and
    counts are dequantised first, so that their likelihood is a bound. The start is k-means++ (Arthur, Vassilvitskii
    2007): every example joins its nearest seed. In EM a component that loses all its examples keeps its mean and
    covariance, with a weight of almost nothing. `encode` gives the responsibilities.

    With ``components="auto"`` the training data choose: for each form of covariance up to 12 components are fitted, and
    the fit with the lowest BIC is kept. A full matrix is tried only where components have more examples than entries.
    Every covariance has a prior worth one example of the columns' spread. A further component of fixed shape, the last
    one, is noise (Banfield, Raftery 1993), and it takes the place of components with less than 5 % of the examples, so
    that a small group of anomalies is unlikely instead of a component of its own. The share is compared after ten
    passes; the passes that follow may lower it further. A value of a real column that is more than 1000 interquartile
    ranges from the median is fitted as if it were at that distance, so that it does not decide the units; its own
    likelihood is that of the value itself.

    Args:
        event: binary, ordinal, real, or a table that mixes them.
        components: K, or ``auto``: chosen from the training data (10 where ``learn="gradient"``).
        covariance: ``full``, ``diagonal``, ``tied`` (one full matrix for all components), or ``auto``: chosen from the
            training data where ``components`` is, else full.
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
        "paper": {"components": 10, "covariance": "full", "restarts": 10, "tolerance": 1e-3, "floor": 1e-6},
    }
    fit_defaults = {"lr": 1e-2}
    autocast = False
    form: Tensor  # which of the forms the covariances have, where it is chosen
    spread: Tensor  # V of the prior
    limits: Tensor  # of the points that are fitted, the lowest and the highest of each entry
    not_in_half = "its covariances are computed in float64"

    def __init__(
        self,
        event: Event,
        *,
        components: Count | Literal["auto"] = "auto",
        covariance: Structure | Literal["auto"] = "auto",
        learn: Literal["em", "gradient"] = "em",
        iterations: Count = 100,
        tolerance: Weight = 1e-3,
        floor: Weight = 1e-6,
        restarts: Count = 1,
    ) -> None:
        self.floor, self.chooses = floor, components == "auto" and learn == "em"
        self.take_passes(iterations if learn == "em" else 0, tolerance)
        dims = event.dims
        self.forms: tuple[Structure, ...]  # of covariances, those to choose from
        if covariance != "auto":
            self.forms = (covariance,)
        elif self.chooses:
            self.forms = _FORMS if dims <= _MOST_DIMS else ("diagonal",)
        else:
            self.forms = ("full",)
        if self.chooses:
            slots = COUNTS[-1] + 1  # those that are not used have no weight; the last is noise
            self.register_buffer("form", torch.zeros((), dtype=torch.int64))
            self.register_buffer("spread", torch.ones(dims, dtype=torch.float64))
            ends = torch.tensor([[-math.inf], [math.inf]], dtype=torch.float64)
            self.register_buffer("limits", ends.repeat(1, dims))
        else:
            slots = 10 if components == "auto" else components
        self.front = ContinuousFront(event).double()
        self.take_components(slots, restarts)
        matrices = 1 if self.forms == ("tied",) and not self.chooses else slots
        self.means = nn.Parameter(torch.randn(slots, dims, dtype=torch.float64))
        self.log_diagonal = nn.Parameter(torch.zeros(matrices, dims, dtype=torch.float64))
        # The entries of U above its diagonal, row by row.
        above = dims * (dims - 1) // 2 if self.forms != ("diagonal",) else 0
        self.above = nn.Parameter(torch.zeros(matrices, above, dtype=torch.float64)) if above else None
        if self.chooses:
            with torch.no_grad():
                self._free(torch.ones(slots, dtype=torch.bool))

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
    def covariance(self) -> Structure:
        """The form of the covariances: as given, or as chosen."""
        return self.forms[int(self.form)] if self.chooses else self.forms[0]

    @property
    def n_free(self) -> int:
        """Weights, means and covariances; the units of the data are none, nor are the noise and unused components."""
        if not self.chooses:
            return self.parameter_count - 1
        used, dims = int(self.used.sum()), self.event.dims
        matrix = dims if self.covariance == "diagonal" else dims * (dims + 1) // 2
        return used * (1 + dims) + matrix * (1 if self.covariance == "tied" else used)

    @property
    def used(self) -> Tensor:
        """Which components have a weight, bool ``(K,)``; noise is none of them."""
        used = self.logits.detach().log_softmax(0) > math.log(em.UNUSED)
        if self.chooses:
            used[-1] = False
        return used

    # --- points ---------------------------------------------------------------------------------------------------

    def scale(self, batch: Batch, *, generator: Generator) -> None:
        """Set the units; where the data choose, gross values do not decide them."""
        if not self.chooses:
            self.front.prepare(batch.x, generator=generator)
            return
        ends = self._ends(batch.x)
        # as floating point, where infinite ends are numbers
        self.front.prepare(self.front.floating(batch.x).clamp(*ends), generator=generator)
        self.limits.copy_(self.middle(ends))

    def _ends(self, x: Tensor) -> Tensor:
        """How far the values of each real column are fitted as they are: ``(2, *shape)``, infinite for others."""
        low, high = usual_range(x.flatten(1).double(), _GROSS)
        real = ~self.front.discrete.flatten()
        ends = torch.stack([low.where(real, -math.inf), high.where(real, math.inf)])
        return ends.view(2, *self.event.shape)

    def points(self, x: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        y, log_det = self.front(self.front.dequantize(x, generator=generator))
        y = y.flatten(1)
        return y.clamp(*self.limits) if self.chooses else y, log_det

    def middle(self, x: Tensor) -> Tensor:
        return self.front.middle(x).flatten(1)

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        def density(y: Tensor) -> Tensor:
            return self.log_joint(y.flatten(1)).logsumexp(1)

        return dequantized_log_prob(self.front, density, batch.x, samples=samples, generator=generator)

    # --- choosing -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Fix the units; start, or choose: fit every candidate to the examples and keep the one with the lowest BIC.

        Raises:
            InputError: fewer examples than components, or than two.
        """
        if not self.chooses:
            super().prepare(batch, generator=generator)
            return
        if len(batch) < 2:
            raise InputError(
                f"GaussianMixture: components='auto' needs two or more training examples, not {len(batch)}"
            )
        self.scale(batch, generator=generator)
        y, _ = self.points(batch.x, generator=generator)
        self.spread.copy_(_spread(y))
        y = y[random.uniform((len(y),), generator, like=y).argsort()[:_ENOUGH]]
        lowest, kept = math.inf, {}
        for structure in self.forms:
            best, worse = math.inf, 0
            for components in self.counts(len(y), structure):
                bic = self.try_candidate(y, components, structure, generator=generator)
                if bic < lowest:
                    lowest, kept = bic, {name: value.clone() for name, value in self.state_dict().items()}
                worse = 0 if bic < best else worse + 1
                best = min(best, bic)
                if worse == 2:
                    break
        self.load_state_dict(kept)

    def counts(self, examples: int, structure: Structure) -> tuple[int, ...]:
        """The numbers of components that are worth trying: each is to have five examples, and what its matrix needs."""
        dims = self.event.dims
        each = dims + 1 if structure == "full" else 5
        rest = dims if structure == "tied" else 0
        found = tuple(k for k in COUNTS if max(5 * k, rest + k * each) <= examples)
        if structure == "tied" and "full" in self.forms:  # one component's own matrix is the shared one
            return tuple(k for k in found if k > 1)
        return found if found or (len(self.forms) > 1 and structure != "diagonal") else COUNTS[:1]

    @torch.no_grad()
    def try_candidate(self, y: Tensor, components: int, structure: Structure, *, generator: Generator) -> float:
        """Fit ``components`` of one form to points, from a k-means++ start; the BIC of what is left of them."""
        self.form.fill_(self.forms.index(structure))
        self._free(torch.ones_like(self.logits, dtype=torch.bool))
        noise = em.log_normals(y, self.means[-1:], self.log_diagonal[-1:], None)
        points = em.Points(y, y.square(), noise, self.spread, _PRIOR, self.floor)
        fit, found = self._best_start(points, components, structure, generator)
        while True:
            fit, found = em.climb(points, fit, _BETWEEN, self.tolerance, found)
            if len(fit.means) < 2 or float(fit.log_weights[:-1].min()) >= math.log(SMALLEST):
                break
            fit, found = fit.with_noise(int(fit.log_weights[:-1].argmin())), None
        fit, found = em.climb(points, fit, self.passes, self.tolerance, found)
        self._take(fit)
        return self.n_free * math.log(len(y)) - 2 * found.log_prob

    def _best_start(
        self, points: em.Points, components: int, structure: Structure, generator: Generator
    ) -> tuple[em.Fitted, em.Expected | None]:
        """A k-means++ start, or the end of the best short run of several."""
        y, best = points.y, None
        for _ in range(self.restarts):
            seeds, nearest = kmeans_plus_plus(y, components, generator=generator)
            belongs = (1 - _NOISE_START) * one_hot(nearest, components + 1).to(y.dtype)
            belongs[:, -1] = _NOISE_START
            slots = torch.arange(components, device=y.device)
            one = y.new_zeros(1 if structure == "tied" else components, y.shape[1])
            start = em.Fitted(structure, slots, self.logits[:1], y[seeds], one, None)
            fit = em.maximize(points, start, belongs)
            if self.restarts == 1:
                return fit, None
            fit, found = em.climb(points, fit, SHORT_RUN, -math.inf)
            if best is None or found.reached > best[1].reached:
                best = fit, found
        assert best is not None
        return best

    def _take(self, fit: em.Fitted) -> None:
        """Store a fit in the parameters; the components that it lacks are unused."""
        self._free(torch.ones_like(self.logits, dtype=torch.bool))
        self.means[fit.slots] = fit.means
        self.log_diagonal[fit.slots] = fit.log_diagonal
        if self.above is not None and fit.factors is not None:
            row, column = self._above_indices(self.above.device)
            self.above[fit.slots] = fit.factors[:, row, column]
        self.logits[fit.slots] = fit.log_weights[:-1]
        self.logits[-1] = fit.log_weights[-1]

    def _free(self, slots: Tensor) -> None:
        """Make components unused: of the noise's shape, without weight. The noise itself stays, or starts."""
        self.means[slots] = 0.0
        self.log_diagonal[slots] = -math.log(_NOISE)
        if self.above is not None:
            self.above[slots] = 0.0
        self.logits[slots] = math.log(em.UNUSED) - 20
        if bool(slots[-1]):
            self.logits[-1] = 0.0

    def parameter_log_prior(self) -> Tensor:
        """Σ_k −½ (log|Σ_k| + tr(V Σ_k⁻¹)) of the covariances that are chosen, V the spread: the prior's one example."""
        if not self.chooses:
            return super().parameter_log_prior()
        own = self.used
        if self.covariance == "tied":
            own = own & (own.cumsum(0) == 1)
        trace = (2 * self.log_diagonal[own]).exp() @ self.spread
        if self.above is not None:
            row, _ = self._above_indices(self.above.device)
            trace = trace + self.above[own].square() @ self.spread[row]
        return 0.5 * _PRIOR * (2 * self.log_diagonal[own].sum() - trace.sum())

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        """Whether a component has directions in which only the floor keeps its variance from zero."""
        collapsed = (-2 * self.log_diagonal.detach()) < math.log(_COLLAPSED * max(self.floor, _SINGULAR))
        if not bool(collapsed.any()):
            return None
        weights = self.logits.detach().softmax(0)
        counts = self.used & (weights >= _NEGLIGIBLE_WEIGHT)
        collapsed = (collapsed & ~self._constant()).expand(self.components, -1) & counts[:, None]
        worst = int(collapsed.sum(1).argmax())
        directions, dims = int(collapsed[worst].sum()), collapsed.shape[1]
        if not directions:
            return None
        weight = float(weights[worst])
        return Symptom(
            "degenerate",
            f"component {worst} (weight {weight:.3g}) has no variance of its own in {directions} of {dims} directions: "
            f"only floor={self.floor:g} keeps its density finite, and new data will score far lower than the training "
            "data; leave components to be chosen (components='auto'), use covariance='diagonal', raise floor, or drop "
            "columns that others determine",
        )

    def _constant(self) -> Tensor:
        """Which entries do not vary at all in the mixture, ``(D,)``: they do not indicate a bad fit."""
        factors = self.factors().detach()
        identity = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device)
        inverse = torch.linalg.solve_triangular(factors, identity.expand_as(factors), upper=True)  # Σ = U⁻ᵀ U⁻¹
        weights, means = self.logits.detach().softmax(0), self.means.detach()
        second = weights @ (inverse.square().sum(-2) + means.square())
        return second - (weights @ means).square() < _COLLAPSED * max(self.floor, _SINGULAR)

    # --- learning -------------------------------------------------------------------------------------------------

    def take_seeds(self, seeds: Tensor) -> None:
        self.means.copy_(seeds)

    def moments(self, y: Tensor, responsibility: Tensor, weight: Tensor | None) -> dict[str, Tensor]:
        """``first`` and ``second`` moments of y: the second about the current means when full, else about zero."""
        first = {"first": responsibility.T @ y}  # (K, D)
        if self.covariance == "diagonal":
            return first | {"second": responsibility.T @ y.square()}  # (K, D)
        if self.chooses:
            responsibility = responsibility.clone()
            responsibility[:, -1] = 0.0  # the noise learns no shape
            weight = responsibility.sum(1)
        if self.covariance == "tied":
            return first | {"second": (y if weight is None else y * weight[:, None]).T @ y}  # (D, D)
        some = responsibility.sum(0) > 0
        second = y.new_zeros(len(some), y.shape[1], y.shape[1])
        second[some] = em.scatters(y, responsibility[:, some], self.means[some])
        return first | {"second": second}  # (K, D, D)

    def maximize_components(self, sums: Mapping[str, Tensor], alive: Tensor) -> None:
        """Means and covariances."""
        weight, second = sums["weight"], sums["second"]
        if self.chooses:
            alive = alive.clone()
            alive[-1] = False
        safe = torch.where(alive, weight, 1.0)
        means = torch.where(alive[:, None], sums["first"] / safe[:, None], self.means)
        kept, above = alive[:, None], None
        if self.covariance == "diagonal":
            variance = self._smoothed(second / safe[:, None] - means.square(), safe[:, None]) + self.floor
            variance[~alive] = 1.0
            em.check_positive((variance <= 0).any(1), self.floor)
            log_diagonal = -0.5 * variance.log()
        elif self.covariance == "tied":
            own = torch.where(alive, weight, 0.0) if self.chooses else weight
            total = own.sum() if self.chooses else sums["count"]
            scatter = second - (means * own[:, None]).T @ means
            log_diagonal, above = self._factorise(self._smoothed((scatter / total)[None], total))
            kept = alive[:, None] if self.chooses else alive.new_ones(1, 1)
        else:
            shift = means - self.means
            matrix = second / safe[:, None, None] - shift[:, :, None] * shift[:, None, :]
            matrix = self._smoothed(matrix, safe[:, None, None])
            matrix[~alive] = torch.eye(means.shape[1], dtype=means.dtype, device=means.device)
            log_diagonal, above = self._factorise(matrix)
        self.means.copy_(means)
        self.log_diagonal.copy_(torch.where(kept, log_diagonal, self.log_diagonal))
        if self.above is not None and above is not None:
            self.above.copy_(torch.where(kept, above, self.above))

    def _smoothed(self, covariance: Tensor, weight: Tensor) -> Tensor:
        """Variances ``(M, D)`` or covariances ``(M, D, D)`` with what the prior adds: N Σ + V over N + 1."""
        if not self.chooses:
            return covariance
        prior = self.spread if covariance.ndim == 2 else self.spread.diag()
        return (weight * covariance + _PRIOR * prior) / (weight + _PRIOR)

    def _factorise(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Covariances ``(M, D, D)`` without the floor → log-diagonal and upper part of U with Σ⁻¹ = U Uᵀ."""
        factor = em.inverse_factors(matrix, self.floor)
        row, column = self._above_indices(matrix.device)
        return factor.diagonal(dim1=-2, dim2=-1).log(), factor[:, row, column]

    # --- components -----------------------------------------------------------------------------------------------

    def log_joint(self, y: Tensor) -> Tensor:
        """Components that were not chosen are none: they stay without examples."""
        joint = super().log_joint(y)
        if not self.chooses:
            return joint
        absent = ~self.used
        absent[-1] = False
        return joint.masked_fill(absent, -math.inf)

    def _above_indices(self, device: torch.device) -> tuple[Tensor, Tensor]:
        dims = self.means.shape[1]
        row, column = torch.triu_indices(dims, dims, 1, device=device)
        return row, column

    def factors(self) -> Tensor:
        """U with Σ⁻¹ = U Uᵀ on standardised data, upper-triangular: ``(K, D, D)``, or ``(1, D, D)`` when tied."""
        factor = torch.diag_embed(self._shared(self.log_diagonal).exp())
        if self.above is None or self.covariance == "diagonal":
            return factor
        row, column = self._above_indices(factor.device)
        numbers = torch.arange(len(factor), device=factor.device)[:, None]
        return factor.index_put((numbers, row, column), self._shared(self.above))

    def _shared(self, rows: Tensor) -> Tensor:
        """Parameters of each component's matrix: where a tied one was chosen, all have that of the first."""
        if not self.chooses or self.covariance != "tied":
            return rows
        return torch.where(self.used[:, None], rows[self.used.long().argmax()], rows)

    def log_components(self, y: Tensor) -> Tensor:
        """log N(y; μ_k, Σ_k): ``(B, D)`` → ``(B, K)``; of components that are not used, 0 (see `log_joint`)."""
        factors = None if self.covariance == "diagonal" else self.factors()
        if not self.chooses:
            return em.log_normals(y, self.means, self.log_diagonal, factors)
        used = self.used
        used[-1] = True
        own = self._shared(self.log_diagonal)[used]
        found = em.log_normals(y, self.means[used], own, None if factors is None else factors[used])
        return y.new_zeros(len(y), self.components).index_copy(1, used.nonzero()[:, 0], found)

    def log_given_rest(self, x: Tensor) -> Tensor:
        """log p(x_d | the rest) = log p(x) − log Σ_k π_k N(x_-d; k), by p(x_d | the rest, k): no integral is needed.

        With Λ = U Uᵀ that is a Gaussian of variance 1/Λ_dd whose residual is (Λ (y − μ))_d / Λ_dd.
        """
        self.event.check_shape(x)
        y = self.middle(x)
        joint, parts = self.log_joint(y), []
        factors = self.factors().expand(self.components, -1, -1)
        for k, (mean, factor) in enumerate(zip(self.means, factors, strict=True)):
            precision = factor.square().sum(1)
            pull = (y - mean) @ factor @ factor.T
            own = 0.5 * (precision.log() - dist.LOG_2PI - pull.square() / precision)  # log p(y_d | the rest, k)
            parts.append(joint[:, k, None] - own)
        found = joint.logsumexp(1)[:, None] - torch.stack(parts).logsumexp(0)
        return found + self.front.log_derivatives(self.front.floating(x))

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


def _spread(y: Tensor) -> Tensor:
    """A variance of each column of ``(N, D)`` that few outliers do not widen: by its quartiles, at most 1."""
    ordered, n = y.sort(0).values, len(y)
    width = (ordered[(3 * n) // 4] - ordered[n // 4]) / 1.349  # that of a Gaussian is its standard deviation
    return torch.where(width > 0, width.square().clamp(max=1.0), torch.ones_like(width))
