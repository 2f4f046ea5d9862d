"""`DensityEstimator`: log-densities of rows, and outliers by them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import OutlierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import CanSample, HasDensity, HasEnergy, keyed_generator
from unsup.evaluate.likelihood import CHUNK
from unsup.sklearn.facade import Facade, seed_of, where_it_can
from unsup.sklearn.noise import RowNoise

_ROW, _SAMPLE = range(100, 102)  # keys of the generators, apart from each other and the trainer's


class DensityEstimator(OutlierMixin, Facade):
    """The density of rows, and outliers by it, from any model of the registry that has a density or an energy.

    Nothing is held out for a test. All rows train models that learn by counting or EM and those without a density. Of
    models with a density that learn by gradients the parameters with the best likelihood on a tenth of the rows, chosen
    by a hash of the row number, are kept, and the other nine tenths train.

    Args:
        model: a name of the registry (``unsup models`` lists them).
        options: the model's own options, and ``preset``.
        training: fields of `unsup.train.settings.Settings`, such as ``steps``, ``minutes``, ``lr``, but not ``seed``.
        event: what one row is. None takes every column as real, whole numbers too, so that any value may come later.
            ``"auto"`` takes whole numbers as the levels seen in `fit`, as `unsup.from_arrays` does. An `Event` says it:
            rows are reshaped to ``event.shape``, so that models of images take flattened ones. Values outside the
            event's support are refused.
        contamination: the share of the training rows, above 0 and at most ½, that are outliers.
        random_state: of the start, the order of the batches and all noise.

    Attributes:
        model_: the trained model, in float64 and evaluation mode.
        likelihood_kind_: what `score_samples` gives: the log-likelihood, ``exact``, a lower ``bound`` on it or an
            ``estimate``; or ``unnormalised`` for models without a density, whose scores are −energy. Differences of
            these are in nats and their zero is arbitrary: they rank rows under one fitted estimator, and as they
            cannot be compared between two, there is no `score`.
        offset_: the score below which a row is an outlier: the ``contamination`` quantile of the training rows' scores.
        event_: what one row is taken as.
        seed_: the number drawn from ``random_state``.
        n_features_in_: columns of X in `fit`.
        feature_names_in_: their names, where they are strings.

    Raises:
        InputError: (a ValueError) from `fit` for a model, option, setting or event that does not fit, and from all for
            rows that are not finite, or not of the event.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> estimator = DensityEstimator(options={"components": 1}, contamination=0.05).fit(X)
    >>> estimator.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    >>> int((estimator.predict(X) == -1).sum())
    10
    """

    likelihood_kind_: str
    offset_: float

    def __init__(
        self,
        model: str = "gaussian-mixture",
        *,
        options: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        event: Event | Literal["auto"] | None = None,
        contamination: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.model = model
        self.options = options
        self.training = training
        self.event = event
        self.contamination = contamination
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Train on the rows of X ``(N, D)``; ``y`` is not used."""
        if not 0 < self.contamination <= 0.5:
            raise InputError(f"contamination={self.contamination} should be above 0 and at most 0.5")
        x = self._learn(X, (HasDensity, HasEnergy), "has neither a density nor an energy")
        self.likelihood_kind_ = self.model_.likelihood_kind if isinstance(self.model_, HasDensity) else "unnormalised"
        self.offset_ = float(np.percentile(self._scores(x), 100 * self.contamination))
        return self

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """log p of each row in nats of raw data, or −energy where ``likelihood_kind_`` is ``unnormalised``: ``(N,)``.

        The noise behind a bound or an estimate is keyed by ``random_state`` of `fit` and by the values of the row: a
        row has the same score alone, in any batch and in any order, and different rows have independent noise.
        """
        return self._scores(self._rows(X))

    @torch.no_grad()
    def _scores(self, x: Tensor) -> NDArray[np.float64]:
        return np.concatenate([self._chunk_scores(chunk).double().cpu().numpy() for chunk in x.split(CHUNK)])

    def _chunk_scores(self, chunk: Tensor) -> Tensor:
        model, device = self.model_, self.model_.device
        if not isinstance(model, HasDensity):
            assert isinstance(model, HasEnergy)
            return -model.energy(chunk.to(device))
        if model.likelihood_kind == "exact":
            return model.log_prob(chunk.to(device))
        keys = [int.from_bytes(hashlib.blake2b(r.tobytes(), digest_size=8).digest()) for r in (chunk + 0).numpy()]
        noise = RowNoise([keyed_generator(self.seed_, _ROW, key, device=device) for key in keys])
        with noise:
            return model.log_prob(chunk.to(device), generator=noise.generator)

    @where_it_can("score")
    def score(self, X: ArrayLike, y: object = None) -> float:
        """Mean log-likelihood of the rows in nats; models without a density have none."""
        return float(self.score_samples(X).mean())

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """`score_samples` − ``offset_``: negative for outliers, ``(N,)``."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """−1 for outliers, 1 for the rest: ``(N,)``."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    @where_it_can("sample")
    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> NDArray[Any]:
        """New rows ``(n_samples, D)``: int64 where all entries are discrete, else float64.

        Args:
            random_state: None is that of the estimator, which gives the same rows at every call if it is a number.
        """
        check_is_fitted(self, "model_")
        assert isinstance(self.model_, CanSample)
        seed = seed_of(self.random_state if random_state is None else random_state)
        generator = keyed_generator(seed, _SAMPLE, device=self.model_.device)
        drawn = self.model_.sample(n_samples, generator=generator).flatten(1).cpu().numpy()
        return drawn.astype(np.int64 if self.event_.is_discrete else np.float64)
