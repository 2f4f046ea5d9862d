"""scikit-learn estimators over any model of the registry: `DensityEstimator` and `Encoder`.

Both follow the API of scikit-learn (``check_estimator`` passes) and support ``Pipeline``, ``GridSearchCV``, ``clone``,
pickling, ``set_output`` and feature names. A grid over the options of a model is a grid over complete dictionaries,
``{"options": [{"components": k} for k in (1, 2, 3)]}``.
"""

from unsup.sklearn.density import DensityEstimator
from unsup.sklearn.encoder import Encoder

__all__ = ["DensityEstimator", "Encoder"]
