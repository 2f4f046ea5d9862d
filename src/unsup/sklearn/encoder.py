"""`Encoder`: features of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from torch import Tensor

from unsup.core.event import Event
from unsup.core.model import CanEncode
from unsup.evaluate.likelihood import CHUNK
from unsup.sklearn.facade import Facade


class Encoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Facade):
    """Features of rows from any model of the registry that can encode: responsibilities, codes, hidden units.

    The parameters, and the use of the rows for training, are as in `DensityEstimator`.

    Attributes:
        model_: the trained model, in float64 and evaluation mode.
        event_: the event of one row.
        n_features_in_: number of columns of X in `fit`.
        feature_names_in_: their names, if they are strings.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> encoder = Encoder("vae", options={"preset": "tiny", "latent_dim": 3}, training={"steps": 10}, random_state=0)
    >>> encoder.fit_transform(X).shape
    (200, 3)
    >>> encoder.get_feature_names_out().tolist()
    ['encoder0', 'encoder1', 'encoder2']
    """

    _n_features_out: int

    def __init__(
        self,
        model: str = "gaussian-mixture",
        *,
        options: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        event: Event | Literal["auto"] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.model = model
        self.options = options
        self.training = training
        self.event = event
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Train on the rows of X ``(N, D)``; ``y`` is ignored."""
        x = self._learn(X, (CanEncode,), "cannot encode")
        self._n_features_out = self._codes(x[:1]).shape[1]
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """The features of each row: ``(N, D)`` → ``(N, F)``."""
        return self._codes(self._rows(X))

    @torch.no_grad()
    def _codes(self, x: Tensor) -> NDArray[np.float64]:
        model = self.model_
        assert isinstance(model, CanEncode)
        return np.concatenate([model.encode(chunk.to(model.device)).double().cpu().numpy() for chunk in x.split(CHUNK)])
