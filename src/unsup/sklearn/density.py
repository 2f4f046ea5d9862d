"""`DensityEstimator`: density estimation and outlier detection."""

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
from unsup.evaluate.likelihood import chunk_of
from unsup.sklearn.facade import Facade, seed_of, where_it_can
from unsup.sklearn.noise import RowNoise

_ROW, _SAMPLE = range(100, 102)  # keys of the generators, different from each other and from those of the trainer


class DensityEstimator(OutlierMixin, Facade):
    """Density estimation and outlier detection with any model of the registry that has a density or an energy.

    No test rows are held out. Models that learn by counting or EM, and models without a density, are trained on all
    rows. Models with a density that learn by gradients are trained on nine tenths of the rows; the parameters with the
    best likelihood on the other tenth, chosen by a hash of the row number, are kept.

    Args:
        model: name of a model (``unsup models`` lists all models).
        options: options of the model, and ``preset``.
        training: fields of `unsup.train.settings.Settings`, such as ``steps``, ``minutes``, ``lr``, but not ``seed``.
        event: event of one row. None treats all columns as real, including integers, so that any value is allowed
            later. ``"auto"`` treats integers as the levels seen in `fit`, as in `unsup.from_arrays`. With an `Event`,
            rows are reshaped to ``event.shape``, so that models of images accept flattened images. Values outside the
            support of the event are refused. NaN is a missing value for models that take them, if X has some in `fit`
            (of an `Event`: with ``missing=True``).
            contamination: the fraction of outliers in the training rows, above 0 and at most ½.
            random_state: seed of the initialisation, the order of the batches and all noise.

    Attributes:
        model_: the trained model, in float64 and evaluation mode.
        likelihood_kind_: kind of `score_samples`: the log-likelihood (``exact``), a lower ``bound`` on it, or an
            ``estimate``; or ``unnormalised`` for models without a density, whose scores are −energy. Differences of
            these scores are in nats, but their zero is arbitrary: they rank rows for one fitted estimator, but cannot
            be compared between estimators; therefore there is no `score`.
            offset_: the score below which a row is an outlier: the ``contamination`` quantile of the training scores.
            event_: the event of one row.
            seed_: the number drawn from ``random_state``.
            n_features_in_: number of columns of X in `fit`.
            feature_names_in_: their names, if they are strings.

    Raises:
        InputError: (a ValueError) from `fit` for an unsuitable model, option, setting or event, and from all methods
            for rows that are outside the event, or not finite where they are not missing.

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
        """Train on the rows of X ``(N, D)``; ``y`` is ignored."""
        if not 0 < self.contamination <= 0.5:
            raise InputError(f"contamination={self.contamination} should be above 0 and at most 0.5")
        x = self._learn(X, (HasDensity, HasEnergy), "has neither a density nor an energy")
        self.likelihood_kind_ = self.model_.likelihood_kind if isinstance(self.model_, HasDensity) else "unnormalised"
        self.offset_ = float(np.percentile(self._scores(x), 100 * self.contamination))
        return self

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """log p of each row in nats of raw data, or −energy if ``likelihood_kind_`` is ``unnormalised``: ``(N,)``.

        The noise of a bound or an estimate is keyed by ``random_state`` of `fit` and the values of the row: the score
        of a row does not depend on the batch or the order, and different rows have independent noise.
        """
        return self._scores(self._rows(X))

    @torch.no_grad()
    def _scores(self, x: Tensor) -> NDArray[np.float64]:
        return np.concatenate(
            [self._chunk_scores(chunk).double().cpu().numpy() for chunk in x.split(chunk_of(self.model_.event))]
        )

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
        """Draw new rows ``(n_samples, D)``: int64 if all entries are discrete, else float64.

        Args:
            random_state: None uses that of the estimator; if it is a number, every call returns the same rows.
        """
        check_is_fitted(self, "model_")
        assert isinstance(self.model_, CanSample)
        seed = seed_of(self.random_state if random_state is None else random_state)
        generator = keyed_generator(seed, _SAMPLE, device=self.model_.device)
        drawn = self.model_.sample(n_samples, generator=generator).flatten(1).cpu().numpy()
        return drawn.astype(np.int64 if self.event_.is_discrete else np.float64)
