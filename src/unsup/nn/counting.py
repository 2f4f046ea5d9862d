"""Common parts of models that learn by counting or by expectation-maximisation.

A model with hidden variables h alternates (Dempster, Laird, Rubin 1977,
https://doi.org/10.1111/j.2517-6161.1977.tb01600.x)

    E:  sums over the data that log p(x, h) needs, under p(h | x) with the current parameters;
    M:  the parameters that maximise E[log p(x, h)] + log p(parameters), by those sums in closed form.

No such pass lowers Σ log p(x) + log p(parameters). A model without hidden variables is done after one pass.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.model import CanEncode, CanSample, HasDensity, LearnsByCounting, Model, Terms
from unsup.prob import distributions as dist
from unsup.prob.clusters import kmeans_plus_plus

BLOCK = 8192
"""Number of examples at a time, if all are in memory."""
SHORT_RUN = 10
"""Number of passes for comparing starts."""
_EMPTY = 1e-10  # minimum number of examples; a component with fewer is not updated


class Counting(Model, HasDensity, LearnsByCounting):
    """Abstract: a density that learns from sums over the data, or by gradients of the same likelihood."""

    _passes: int
    _tolerance: float

    def take_passes(self, passes: int, tolerance: float = 0.0) -> None:
        """Called in the constructor: maximum number of passes (0: gradients), and the gain in nats that stops them."""
        self._passes, self._tolerance = passes, tolerance

    @property
    def passes(self) -> int:
        return self._passes

    @property
    def tolerance(self) -> float:
        return self._tolerance

    @property
    @abstractmethod
    def n_free(self) -> int:
        """The number of free parameters."""

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The negative log-likelihood of each example."""
        return {"loss": -self._log_prob(batch, samples=1, generator=generator)}

    @torch.no_grad()
    def bic(self, x: Tensor, *, samples: int = 1, generator: Generator | None = None) -> float:
        """n_free · log N − 2 Σ log p(x), in nats; lower is better, for models fitted to the same data.

        The Bayesian information criterion of Schwarz 1978, https://doi.org/10.1214/aos/1176344136.

        Args:
            x: the training data, ``(N, *event.shape)``.
            samples, generator: as in `log_prob`, if the likelihood is a bound.
        """
        each = (self.log_prob(part, samples=samples, generator=generator) for part in x.split(BLOCK))
        return self.n_free * math.log(len(x)) - 2 * sum(float(part.sum()) for part in each)

    @torch.no_grad()
    def keep_best_start(
        self, restarts: int, start: Callable[[], None], sums: Callable[[], Mapping[str, Tensor]]
    ) -> None:
        """Try ``restarts`` starts with a short run of passes, and keep the end of the best run.

        Args:
            start: sets the parameters; a single start is kept without a short run.
            sums: `statistics` of the data with the current parameters.
        """
        best, kept = -math.inf, {}
        for _ in range(restarts):
            start()
            if restarts == 1:
                return
            for _ in range(SHORT_RUN):
                self.maximize(sums())
            reached = float(sums()["log_prob"]) + float(self.parameter_log_prior())
            if reached > best:
                best, kept = reached, {name: p.clone() for name, p in self.named_parameters()}
        for name, parameter in self.named_parameters():
            parameter.copy_(kept[name])


class Mixture(Counting, CanEncode, CanSample):
    """Abstract: p(x) = Σ_k π_k p(x | k), with π = softmax(``logits``), by EM.

    E and M steps use *points*: raw data after adding noise, scaling and flattening, in the type of the model. The
    initialisation is k-means++: every example is assigned to its nearest seed. A component that loses all its examples
    is not updated, and has a negligible weight.

    A subclass calls `take_components` in its constructor and defines a component: `log_components`, `moments`,
    `maximize_components` and `draw`; and `scale` and `points` if points differ from raw data.
    """

    not_in_half = "sums over all the data are in float64"
    logits: nn.Parameter
    components: int
    restarts: int

    def take_components(self, components: int, restarts: int) -> None:
        """Called in the constructor: K components, whose weights are parameters, and the number of starts."""
        self.components, self.restarts = components, restarts
        self.logits = nn.Parameter(torch.zeros(components, dtype=torch.float64))

    # --- one component --------------------------------------------------------------------------------------------

    @abstractmethod
    def log_components(self, y: Tensor) -> Tensor:
        """log p(y | k) of points: ``(B, D)`` → ``(B, K)``."""

    @abstractmethod
    def moments(self, y: Tensor, responsibility: Tensor, weight: Tensor | None) -> dict[str, Tensor]:
        """Sums that `maximize_components` needs: named tensors.

        Args:
            y: points, ``(B, D)``.
            responsibility: r_nk times the weight of the example, ``(B, K)``.
            weight: Σ_k of it, ``(B,)``, or None if that is 1.
        """

    @abstractmethod
    def maximize_components(self, sums: Mapping[str, Tensor], alive: Tensor) -> None:
        """The M step of the components that are ``alive``, bool ``(K,)``; ``sums["weight"]`` is N_k, ``(K,)``."""

    @abstractmethod
    def draw(self, component: Tensor, generator: Generator | None) -> Tensor:
        """An example of each of the components ``(n,)``: raw data ``(n, *event.shape)``."""

    def scale(self, batch: Batch, *, generator: Generator) -> None:
        """Set the units of points from training examples."""

    def points(self, x: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Points of raw data, and log|det| of the map: ``(B, *event.shape)`` → ``(B, D)``, ``(B,)``."""
        y = x.flatten(1).to(self.dtype)
        return y, y.new_zeros(len(y))

    def middle(self, x: Tensor) -> Tensor:
        """Points of raw data without noise."""
        return self.points(x)[0]

    def embed(self, y: Tensor) -> Tensor:
        """Points in a space with the distances of k-means++: ``(B, D)`` → ``(B, F)``."""
        return y

    def take_seeds(self, seeds: Tensor) -> None:
        """Called before the components are initialised at these points, ``(K, D)``."""

    # --- learning -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Set the units, then initialise every component with a k-means++ seed and its nearest examples.

        Raises:
            InputError: fewer examples than components.
        """
        if len(batch) < self.components:
            raise InputError(
                f"{type(self).__name__}: components={self.components} needs at least as many training examples; got "
                f"{len(batch)}; use fewer components or more data"
            )
        self.scale(batch, generator=generator)
        y, _ = self.points(batch.x, generator=generator)

        def start() -> None:
            seeds, nearest = kmeans_plus_plus(self.embed(y), self.components, generator=generator)
            self.take_seeds(y[seeds])
            belongs = one_hot(nearest, self.components).to(y.dtype)
            self.maximize(added(map(self._sums, y.split(BLOCK), belongs.split(BLOCK))))

        self.keep_best_start(self.restarts, start, lambda: added(self._expect(part) for part in y.split(BLOCK)))

    @torch.no_grad()
    def statistics(self, batch: Batch, *, generator: Generator | None = None) -> dict[str, Tensor]:
        """The E step: `moments`, ``weight`` (N_k = Σ r_nk), ``count`` and ``log_prob``; examples are weighted."""
        y, log_det = self.points(batch.x, generator=generator)
        parts = y.split(BLOCK)  # of all examples together, the intermediate results would not stay in the cache
        weights = [None] * len(parts) if batch.weight is None else batch.weight.split(BLOCK)
        sums = added(map(self._expect, parts, weights))
        own = log_det if batch.weight is None else log_det * batch.weight
        return sums | {"log_prob": sums["log_prob"] + own.sum()}

    def _expect(self, y: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        joint = self.log_joint(y)
        log_prob = joint.logsumexp(1)
        responsibility = (joint - log_prob[:, None]).exp()
        if weight is not None:
            weight = weight.to(y.dtype)
            responsibility, log_prob = responsibility * weight[:, None], log_prob * weight
        return self._sums(y, responsibility, weight) | {"log_prob": log_prob.sum()}

    def _sums(self, y: Tensor, responsibility: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        count = y.new_tensor(len(y)) if weight is None else weight.sum()
        return {"count": count, "weight": responsibility.sum(0), **self.moments(y, responsibility, weight)}

    @torch.no_grad()
    def maximize(self, statistics: Mapping[str, Tensor]) -> None:
        """The M step: update every component from its responsibilities, π_k = N_k / N."""
        weight = statistics["weight"]
        self.maximize_components(statistics, weight > _EMPTY)
        # As in scikit-learn, an empty component keeps a weight whose logarithm is finite.
        self.logits.copy_(((weight + 10 * torch.finfo(weight.dtype).eps) / statistics["count"]).log())

    # --- verbs ----------------------------------------------------------------------------------------------------

    def log_joint(self, y: Tensor) -> Tensor:
        """log π_k + log p(y | k) of points: ``(B, D)`` → ``(B, K)``."""
        return self.logits.log_softmax(0) + self.log_components(y)

    def encode(self, x: Tensor) -> Tensor:
        """Responsibilities p(k | x), ``(B, K)``; discrete entries of continuous models are at the middle of a level."""
        self.event.check_shape(x)
        return self.log_joint(self.middle(x)).softmax(1)

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Exact draws: k ~ π, then x ~ p(x | k)."""
        return self.draw(dist.sample_categorical(self.logits.expand(n, -1), generator=generator), generator)


def added(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Sums of named tensors over parts of the data."""
    total: dict[str, Tensor] = {}
    for part in parts:
        total = {k: total[k] + v if total else v for k, v in part.items()}
    return total
