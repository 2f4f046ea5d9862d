"""Gaussian mixture: p(x) = Σ_k π_k N(x; μ_k, Σ_k), by expectation-maximisation or by gradient ascent.

EM (Dempster, Laird, Rubin 1977, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x) alternates

    r_nk = π_k N(y_n; μ_k, Σ_k) / Σ_j π_j N(y_n; μ_j, Σ_j)
    N_k = Σ_n r_nk,  π_k = N_k / N,  μ_k = Σ_n r_nk y_n / N_k,  Σ_k = Σ_n r_nk (y_n − μ_k)(y_n − μ_k)ᵀ / N_k + floor · I

and without the floor never lowers the likelihood. In a table with discrete columns a component is a product of a
Gaussian of all real columns, of probabilities of the categories (the latent class model) and of Gaussians rounded to
the whole numbers, so that the likelihood is exact:

    p(x) = Σ_k π_k N(x_real; μ_k, Σ_k) Π_d p(x_d | k)

Missing entries are integrated out. With ``components="auto"`` a noise component of fixed shape catches examples that
belong nowhere (Banfield, Raftery 1993, https://doi.org/10.2307/2532201), each covariance has a prior worth one example
(Fraley, Raftery 2007, https://doi.org/10.1007/s00357-007-0004-5), and the number of components and the form of their
covariances are those with the lowest BIC. Everything is in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Weight
from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.core.likelihood import Kind
from unsup.core.model import (
    Advice,
    ChooseEntry,
    CodesEntries,
    HasEntryConditionals,
    KnowsMarginals,
    Marginal,
    Symptom,
)
from unsup.core.steps import in_steps
from unsup.nn.columns import FURTHEST, Columns
from unsup.nn.counting import BLOCK, SHORT_RUN, Mixture, added
from unsup.nn.front import ContinuousFront, dequantized_log_prob
from unsup.nn.gaussians import Gaussians
from unsup.nn.inputs import TableInputs
from unsup.nn.intervals import GaussianIntervals, cells
from unsup.nn.levels import Categories, Levels, RoundedGaussians
from unsup.prob import distributions as dist
from unsup.prob import gaussian_em as em
from unsup.prob.clusters import kmeans_plus_plus
from unsup.prob.gaussian_em import Structure
from unsup.prob.robust import in_order, place, usual_range

_SINGULAR = 1e-12  # a variance below this, in units of the entry's own, is rounding
_NEGLIGIBLE_WEIGHT = 0.01  # of a component whose collapse hardly changes the density of new data
_COLLAPSED = 2  # times the floor: a variance of which the floor is at least half
_MOST_LEVELS = 2**16  # of a discrete column of a table

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


class GaussianMixture(Mixture, HasEntryConditionals, KnowsMarginals, CodesEntries):
    """Mixture of Gaussians, Σ_k π_k N(x; μ_k, Σ_k) (EM: Dempster, Laird, Rubin 1977).

    The components live on standardised data, y = (x − mean) / std of each entry, whose Jacobian is counted. Discrete
    columns of tables have their own distributions in every component: probabilities of categories, with a prior worth
    one example, and Gaussians rounded to whole numbers; ``covariance`` is that of the real columns. Pixels and other
    discrete arrays are dequantised, so that their likelihood is a bound. Missing entries are integrated out.

    The start is k-means++ (Arthur, Vassilvitskii 2007): every example joins its nearest seed. In EM a component that
    loses all its examples keeps its mean and covariance, with a weight of almost nothing. `encode` gives the
    responsibilities, `complete` exact draws of the unknown entries given the known ones. In dequantised arrays the
    known levels then have a random position in their cells, as in training.

    With ``components="auto"`` the training data choose: for each form of covariance up to 12 components are fitted, and
    the fit with the lowest BIC is kept. A full matrix is tried only where components have more examples than entries.
    Every covariance has a prior worth one example of the columns' spread. A further component of fixed shape, the last
    one, is noise (Banfield, Raftery 1993), and it takes the place of components with less than 5 % of the examples, so
    that a small group of anomalies is unlikely instead of a component of its own. The share is compared after ten
    passes; the passes that follow may lower it further. A value of a real column that is more than 1000 interquartile
    ranges from the median is fitted as if it were at that distance, so that it does not decide the units; its own
    likelihood is that of the value itself.

    Args:
        event: real, a table of any columns, or an array of binary or ordinal entries.
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
    takes_missing = True
    marginalises = True
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
        table = event.layout == "vector" and not event.is_real
        self.columns = Columns(event).double() if table else None
        self.front = None if table else ContinuousFront(event).double()
        dims = event.dims if self.columns is None else len(self.columns.real)
        self.forms: tuple[Structure, ...]  # of covariances, those to choose from
        if covariance != "auto":
            self.forms = (covariance,)
            if covariance != "diagonal" and not dims:
                raise InputError(
                    f"GaussianMixture: covariance={covariance!r} is of real columns, but {event} has none; use "
                    "covariance='diagonal'"
                )
        elif self.chooses:
            self.forms = _FORMS if dims <= _MOST_DIMS and (dims > 1 or not table) else ("diagonal",)
        else:
            self.forms = ("full",) if dims else ("diagonal",)
        if self.chooses:
            slots = COUNTS[-1] + 1  # those that are not used have no weight; the last is noise
            self.register_buffer("spread", torch.ones(dims, dtype=torch.float64))
            ends = torch.tensor([[-math.inf], [math.inf]], dtype=torch.float64)
            self.register_buffer("limits", ends.repeat(1, event.dims))
        else:
            slots = 10 if components == "auto" else components
        self.take_components(slots, restarts)
        self.gaussians = Gaussians(slots, dims, self.forms, chooses=self.chooses)
        self.kinds = [own for own in (_places(event, _is_category), _places(event, _is_whole)) if own] if table else []
        self.levels = nn.ModuleList()
        for own in self.kinds:
            kind = Categories if _is_category(event.columns[own[0]]) else RoundedGaussians
            self.levels.append(kind([event.columns[d].levels for d in own], slots))
        # Distances for the start: one-hot categories, standardised numbers.
        self.inputs = TableInputs(event, indicators=False).double() if table else None
        if self.chooses:
            with torch.no_grad():
                self._free(torch.ones(slots, dtype=torch.bool))

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if event.layout != "vector" and any(s.kind == "nominal" for s in event.columns):
            return "takes unordered (nominal) entries in tables only"
        if event.layout == "vector" and any(s.levels > _MOST_LEVELS for s in event.columns):
            return f"takes whole numbers of at most {_MOST_LEVELS:,} levels; use them as real numbers"
        return None

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        """The data choose the components; where entries are many: variances alone, and a floor above noise."""
        if event.is_image or event.dims > 64:
            components = min(80 if event.is_image else 20, max(1, examples // 10))
            return Advice({"covariance": "diagonal", "components": components, "floor": 1e-2})
        return Advice()

    @property
    def likelihood_kind(self) -> Kind:
        return "exact" if self.event.is_real or self.columns is not None else "bound"

    @property
    def mass_in_support(self) -> bool:
        return self.likelihood_kind == "exact"

    @property
    def covariance(self) -> Structure:
        """The form of the covariances: as given, or as chosen."""
        return self.gaussians.structure

    @property
    def n_free(self) -> int:
        """Weights, means and covariances; the units of the data are none, nor are the noise and unused components."""
        discrete = sum(own.n_free for own, _ in self._discrete())
        if not self.chooses:
            return self.components * (1 + discrete) - 1 + sum(p.numel() for p in self.gaussians.parameters())
        used, dims = int(self.used.sum()), self.gaussians.dims
        matrix = dims if self.covariance == "diagonal" else dims * (dims + 1) // 2
        return used * (1 + dims + discrete) + matrix * (1 if self.covariance == "tied" else used)

    @property
    def used(self) -> Tensor:
        """Which components have a weight, bool ``(K,)``; noise is none of them."""
        used = self.logits.detach().log_softmax(0) > math.log(em.UNUSED)
        if self.chooses:
            used[-1] = False
        return used

    # --- points ---------------------------------------------------------------------------------------------------

    def _discrete(self) -> Iterator[tuple[Levels, list[int]]]:
        """The distributions of discrete columns, with their numbers."""
        return zip(cast(list[Levels], list(self.levels)), self.kinds, strict=True)

    def _real(self, y: Tensor) -> Tensor:
        """The entries that the Gaussians model: ``(B, D)`` → ``(B, R)``."""
        return y if self.columns is None else y[:, self.columns.real]

    def scale(self, batch: Batch, *, generator: Generator) -> None:
        """Set the units; where the data choose, gross values do not decide them."""
        x = batch.x
        ends = self._ends(x) if self.chooses else None
        if ends is not None:
            x = x.clamp(*ends.to(x.dtype)) if x.is_floating_point() else x
        if self.front is not None:
            self.front.prepare(x, generator=generator)
        if self.columns is not None and self.inputs is not None:
            self.columns.prepare(x, generator=generator)
            units = self.columns(x)
            self.inputs.prepare(units)
            for own, places in self._discrete():
                own.prepare(units[:, places])
        if ends is not None:
            self.limits.copy_(self.middle(ends))

    def _ends(self, x: Tensor) -> Tensor:
        """How far the values of each real column are fitted as they are: ``(2, *shape)``, infinite for others."""
        low, high = usual_range(x.flatten(1).double(), _GROSS)
        real = torch.tensor([not s.is_discrete for s in self.event.columns], device=x.device)
        ends = torch.stack([low.where(real, -math.inf), high.where(real, math.inf)])
        return ends.view(2, *self.event.shape)

    def points(self, x: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        if self.columns is not None:
            y: Tensor = self.columns(x)
            log_det = (~y.isnan()).to(y.dtype) @ self.columns.log_derivatives()
        else:
            assert self.front is not None
            y, log_det = self.front(self.front.dequantize(x, generator=generator))
            y = y.flatten(1)
        return y.clamp(*self.limits) if self.chooses else y, log_det

    def middle(self, x: Tensor) -> Tensor:
        if self.front is not None:
            return self.front.middle(x).flatten(1)
        assert self.columns is not None
        found: Tensor = self.columns(x)
        return found

    def embed(self, y: Tensor) -> Tensor:
        if self.inputs is not None:
            found: Tensor = self.inputs(y)
            return found
        return y.nan_to_num(0.0) if self.event.missing else y

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        if self.columns is not None:
            units = self.columns(batch.x)
            log_det = (~units.isnan()).to(units.dtype) @ self.columns.log_derivatives()
            return self.log_joint(units).logsumexp(1) + log_det

        def density(y: Tensor) -> Tensor:
            return self.log_joint(y.flatten(1)).logsumexp(1)

        assert self.front is not None
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
        self.spread.copy_(_spread(self._real(y)))
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
        dims = self.gaussians.dims
        each = dims + 1 if structure == "full" else 5
        rest = dims if structure == "tied" else 0
        found = tuple(k for k in COUNTS if max(5 * k, rest + k * each) <= examples)
        if structure == "tied" and "full" in self.forms:  # one component's own matrix is the shared one
            return tuple(k for k in found if k > 1)
        return found if found or (len(self.forms) > 1 and structure != "diagonal") else COUNTS[:1]

    @torch.no_grad()
    def try_candidate(self, y: Tensor, components: int, structure: Structure, *, generator: Generator) -> float:
        """Fit ``components`` of one form to points, from a k-means++ start; the BIC of what is left of them."""
        self.gaussians.form.fill_(self.forms.index(structure))
        if self.columns is None and not self.event.missing:
            return self._try_gaussians(y, components, structure, generator)

        def sums() -> dict[str, Tensor]:
            return added(self._expect(part) for part in y.split(BLOCK))

        def start() -> None:
            self._free(torch.ones_like(self.logits, dtype=torch.bool))
            seeds, nearest = kmeans_plus_plus(self.embed(y), components, generator=generator)
            self.take_seeds(y[seeds])
            belongs = (1 - _NOISE_START) * one_hot(nearest, self.components).to(y.dtype)
            belongs[:, -1] = _NOISE_START
            self.maximize(added(map(self._sums, y.split(BLOCK), belongs.split(BLOCK))))

        self.keep_best_start(self.restarts, start, sums)
        while True:
            self._climb(sums, _BETWEEN)
            weights = self.logits.softmax(0).where(self.used, 1.0)
            smallest = int(weights.argmin())
            if float(weights[smallest]) >= SMALLEST or int(self.used.sum()) == 1:
                return self.n_free * math.log(len(y)) - 2 * self._climb(sums, self.passes)
            noise = self.logits.softmax(0)[[smallest, -1]].sum()
            self._free(torch.arange(self.components, device=y.device) == smallest)
            self.logits[-1] = noise.log() + self.logits.logsumexp(0)  # its examples are noise now

    def _climb(self, sums: Callable[[], Mapping[str, Tensor]], passes: int) -> float:
        """EM passes while they gain as much as the tolerance; the log-likelihood, without the prior, they end with."""
        found = sums()
        reached = float(found["log_prob"]) + float(self.parameter_log_prior())
        for _ in range(passes):
            before = reached
            self.maximize(found)
            found = sums()
            reached = float(found["log_prob"]) + float(self.parameter_log_prior())
            if reached - before < self.tolerance * float(found["count"]):
                break
        return float(found["log_prob"])

    def _try_gaussians(self, y: Tensor, components: int, structure: Structure, generator: Generator) -> float:
        """`try_candidate` for points that Gaussians alone model, on all components in use at once."""
        self._free(torch.ones_like(self.logits, dtype=torch.bool))
        noise = em.log_normals(y, self.gaussians.means[-1:], self.gaussians.log_diagonal[-1:], None)
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
        self.gaussians.means[fit.slots] = fit.means
        self.gaussians.log_diagonal[fit.slots] = fit.log_diagonal
        if self.gaussians.above is not None and fit.factors is not None:
            row, column = self.gaussians.above_indices(fit.factors.device)
            self.gaussians.above[fit.slots] = fit.factors[:, row, column]
        self.logits[fit.slots] = fit.log_weights[:-1]
        self.logits[-1] = fit.log_weights[-1]

    def _free(self, slots: Tensor) -> None:
        """Make components unused: of the noise's shape, without weight. The noise itself stays, or starts."""
        self.gaussians.free(slots, _NOISE)
        for own, _ in self._discrete():
            own.free(slots)
        self.logits[slots] = math.log(em.UNUSED) - 20
        if bool(slots[-1]):
            self.logits[-1] = 0.0

    def parameter_log_prior(self) -> Tensor:
        """Of the probabilities of categories; and, where they are chosen, of variances: one example of the spread."""
        prior = _PRIOR if self.chooses else 0.0
        found = super().parameter_log_prior()
        for own, _ in self._discrete():
            found = found + own.log_prior(self.used, prior)
        return found + self.gaussians.log_prior(self.used, self.spread, prior) if self.chooses else found

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        """Whether a component has directions in which the floor is at least half of its variance."""
        weights = self.logits.detach().softmax(0)
        counts = (self.used & (weights >= _NEGLIGIBLE_WEIGHT)).nonzero()[:, 0]
        if self.covariance == "diagonal":  # whole matrices would need much memory
            own = (-2 * self.gaussians.log_diagonal.detach()).exp()
            varies = ~self._constant(own)
            variances = own[counts][:, varies]
        else:
            own = self.gaussians.covariances(self.used).detach()
            varies = ~self._constant(own.diagonal(dim1=-2, dim2=-1))
            variances = torch.linalg.eigvalsh(own[counts][:, varies][:, :, varies])
        collapsed = (variances < _COLLAPSED * max(self.floor, _SINGULAR)).sum(1)
        if not bool(collapsed.any()):
            return None
        place = int(collapsed.argmax())
        worst, directions, dims = int(counts[place]), int(collapsed[place]), len(varies)
        weight = float(weights[worst])
        return Symptom(
            "degenerate",
            f"component {worst} (weight {weight:.3g}) has no variance of its own in {directions} of {dims} directions: "
            f"only floor={self.floor:g} keeps its density finite, and new data will score far lower than the training "
            "data; leave components to be chosen (components='auto'), use covariance='diagonal', raise floor, or drop "
            "columns that others determine",
        )

    def _constant(self, variances: Tensor) -> Tensor:
        """Which entries do not vary at all in the mixture, ``(D,)``: they do not indicate a bad fit."""
        weights, means = self.logits.detach().softmax(0), self.gaussians.means.detach()
        second = weights @ (variances + means.square())
        return second - (weights @ means).square() < _COLLAPSED * max(self.floor, _SINGULAR)

    # --- components -----------------------------------------------------------------------------------------------

    def take_seeds(self, seeds: Tensor) -> None:
        self.gaussians.means[: len(seeds)] = self._real(seeds).nan_to_num(0.0)
        for own, places in self._discrete():
            own.take_seeds(seeds[:, places])

    def moments(self, y: Tensor, responsibility: Tensor, weight: Tensor | None) -> dict[str, Tensor]:
        found = self.gaussians.moments(self._real(y), responsibility, weight, self.used)
        for number, (own, places) in enumerate(self._discrete()):
            found[f"counts{number}"] = own.counts(y[:, places], responsibility)
        return found

    def maximize_components(self, sums: Mapping[str, Tensor], alive: Tensor) -> None:
        prior, spread = (_PRIOR, self.spread) if self.chooses else (0.0, None)
        if self.chooses:
            alive = alive.clone()
            alive[-1] = False
        self.gaussians.maximize(sums, alive, floor=self.floor, spread=spread, prior=prior)
        for number, (own, _) in enumerate(self._discrete()):
            own.maximize(sums[f"counts{number}"], alive, self.floor, prior)

    def log_joint(self, y: Tensor) -> Tensor:
        """Components that were not chosen are none: they stay without examples."""
        joint = super().log_joint(y)
        return joint.masked_fill(~self._live(), -math.inf) if self.chooses else joint

    def _live(self) -> Tensor:
        """Which components take part: those in use, and noise."""
        if not self.chooses:
            return torch.ones_like(self.logits, dtype=torch.bool)
        live = self.used
        live[-1] = True
        return live

    def log_components(self, y: Tensor) -> Tensor:
        """log p(y | k): ``(B, D)`` → ``(B, K)``."""
        found = self.gaussians.log_prob(self._real(y), self.used, self._live())
        for own, places in self._discrete():
            found = found + own.log_each(y[:, places]).sum(1)
        return found

    def log_given_rest(self, x: Tensor) -> Tensor:
        """log p(x_d | the rest) = log p(x) − log Σ_k π_k p(x_-d | k), by p(x_d | the rest, k): no integral is needed.

        It is 0 for a missing entry; others are given the observed rest.
        """
        self.event.check_shape(x)
        y = self.middle(x)
        joint, own = self.log_joint(y), self.gaussians.log_each(self._real(y), self.used)  # (B, K), (B, R, K)
        if self.columns is not None:
            each = y.new_zeros(*y.shape, self.components).index_copy(1, self.columns.real, own)
            for levels, places in self._discrete():
                each[:, places] = levels.log_each(y[:, places])
            derivatives, own = self.columns.log_derivatives(), each
        else:
            assert self.front is not None
            derivatives = self.front.log_derivatives(self.front.floating(x))
        found = joint.logsumexp(1, keepdim=True) - (joint[:, None] - own).logsumexp(2)
        return (found + derivatives).masked_fill(y.isnan(), 0.0)

    def reason_against_coding(self) -> str | None:
        if self.front is None or self.event.is_real or self.covariance == "diagonal":
            return None
        return (
            f"dequantises levels, and has {self.covariance} covariances, under which no level has a known probability "
            "(use covariance='diagonal')"
        )

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        """p(x_d | x_<d) = Σ_k w_k p(x_d | x_<d, k), with the weights w_k ∝ π_k p(x_<d | k).

        Dequantised levels have the probability of their cells, of which `log_prob` is a lower bound.
        """
        places = {int(d): j for j, d in enumerate(self._real(torch.arange(self.event.dims)[None])[0])}
        owners = {d: (own, j) for own, columns in self._discrete() for j, d in enumerate(columns)}
        tables = {own: own.log_mass_tables() for own, _ in self._discrete()}
        gaussians = self.gaussians.in_turn(n, self.used, None if gaps is None else self._real(gaps))
        log_joint = self.logits.log_softmax(0).masked_fill(~self._live(), -math.inf).expand(n, -1)
        for entry in in_steps(range(self.event.dims)):
            if entry in owners:
                own, column = owners[entry]
                value = choose(entry, own.conditional(column, log_joint))
                each = tables[own][column][value.nan_to_num(0.0).long()]
            else:
                mean, log_std = gaussians.of(places[entry])
                units = self._units(entry)
                conditional = GaussianIntervals(log_joint, mean, log_std, *units)
                value = choose(entry, conditional)
                levels = self.event.columns[entry].levels
                if levels:
                    each = conditional.log_each(cells(value, levels)).squeeze(1)
                else:
                    y = ((value - units[0]) / units[1]).clamp(-FURTHEST, FURTHEST)
                    each = dist.gaussian_log_prob(y[:, None], mean, log_std)
                    gaussians.put(places[entry], y)
            log_joint = log_joint + each.masked_fill(value.isnan()[:, None], 0.0)

    def _units(self, entry: int) -> tuple[Tensor, Tensor]:
        """Centre and spread of an entry of the Gaussians, of a level counted from 0 where levels are dequantised."""
        if self.columns is not None:
            return self.columns.units(entry)
        assert self.front is not None
        centre, spread = self.front.units(entry)
        # Level v is the cell from v to v + 1 here, and from v − ½ to v + ½ there.
        discrete = self.event.columns[entry].is_discrete
        return (centre - self.front.low.flatten()[entry] - 0.5, spread) if discrete else (centre, spread)

    @torch.no_grad()
    def complete(self, x: Tensor, known: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Exact draws: k ~ p(k | known entries), then the unknown entries from p(x | k, known entries).

        Known entries keep their values. A known entry that is missing (NaN) stays so, and is integrated out.
        """
        self.check_known(x, known)
        whole = torch.where(known, x, self.event.lowest(x))
        if self.columns is not None:
            y: Tensor = self.columns(whole)
        else:
            assert self.front is not None
            y = self.front(self.front.dequantize(whole, generator=generator))[0].flatten(1)
        y = y.masked_fill(~known.flatten(1), math.nan)
        component = dist.sample_categorical(self.log_joint(y), generator=generator)
        y = self.gaussians.fill(self._real(y), component, self.used, generator)
        return self.kept(x, known, self._raw(y, component, generator))

    @torch.no_grad()
    def marginals(self, x: Tensor, known: Tensor) -> Iterator[tuple[int, Tensor, Marginal]]:
        """p(x_d | known entries) = Σ_k w_k p(x_d | known entries, k), with the weights w_k ∝ π_k p(known entries | k).

        In images and other dequantised arrays known levels are at the middle of their cells.
        """
        self.check_known(x, known)
        y = self.middle(torch.where(known, x, self.event.lowest(x))).masked_fill(~known.flatten(1), math.nan)
        places = {int(d): j for j, d in enumerate(self._real(torch.arange(self.event.dims)[None])[0])}
        owners = {d: (own, j) for own, columns in self._discrete() for j, d in enumerate(columns)}
        log_joint, (means, log_std) = self.log_joint(y), self.gaussians.given(self._real(y), self.used)
        for entry, rows in self.unknown_rows(known):
            if entry in owners:
                own, column = owners[entry]
                yield entry, rows, own.conditional(column, log_joint[rows])
            else:
                at = places[entry]
                parts = (log_joint[rows], means[rows, :, at], log_std[rows, :, at])
                yield entry, rows, GaussianIntervals(*parts, *self._units(entry))

    def draw(self, component: Tensor, generator: Generator | None) -> Tensor:
        return self._raw(self.gaussians.draw(component, self.used, generator), component, generator)

    def _raw(self, y: Tensor, component: Tensor, generator: Generator | None) -> Tensor:
        """Raw data with these entries of the Gaussians, ``(N, R)``, and levels drawn from the components."""
        if self.front is not None:
            return self.front.to_support(self.front.invert(y.view(len(y), *self.event.shape)))
        assert self.columns is not None
        units = y.new_zeros(len(y), self.event.dims).index_copy(1, self.columns.real, y)
        for own, places in self._discrete():
            units[:, places] = own.draw(component, generator).to(units.dtype)
        return self.columns.raw(units)


def _is_category(support: Support) -> bool:
    return support.kind in ("nominal", "binary")


def _is_whole(support: Support) -> bool:
    return support.kind == "ordinal"


def _places(event: Event, belongs: Callable[[Support], bool]) -> list[int]:
    return [d for d, support in enumerate(event.columns) if belongs(support)]


def _spread(y: Tensor) -> Tensor:
    """A variance of each column of ``(N, D)`` that few outliers do not widen: by its quartiles, at most 1."""
    ordered, n = in_order(y)
    half = place(ordered, (3 * n) // 4) - place(ordered, n // 4)
    width = half / 1.349  # that of a Gaussian is its standard deviation
    return torch.where(width > 0, width.square().clamp(max=1.0), torch.ones_like(width))
