"""scikit-learn estimators over any model of the registry: `DensityEstimator` and `Encoder`.

Both keep scikit-learn's contract (``check_estimator`` passes), so that ``Pipeline``, ``GridSearchCV``, ``clone``,
pickling, ``set_output`` and feature names work. A grid over a model's own options is a grid over whole dictionaries,
``{"options": [{"components": k} for k in (1, 2, 3)]}``.
"""

from unsup.sklearn.density import DensityEstimator
from unsup.sklearn.encoder import Encoder

__all__ = ["DensityEstimator", "Encoder"]
