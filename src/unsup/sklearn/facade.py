"""Common base of both estimators: the event of X, training, and pickling."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import REAL, Event
from unsup.core.model import HasDensity, LearnsByCounting, Model
from unsup.core.registry import create, model_class, names, row
from unsup.core.storage import model_record
from unsup.data.arrays import read_arrays
from unsup.data.precision import precise, some_rows
from unsup.data.source import Data, Split, hashed_order, split_sizes
from unsup.train.settings import make_settings
from unsup.train.trainer import fit as train

_VALIDATION_PERCENT = 10
Method = TypeVar("Method", bound=Callable[..., Any])


class Facade(BaseEstimator):
    """Common base of both estimators: the event of X, training, and pickling without the format of torch."""

    model: str
    options: Mapping[str, Any] | None
    training: Mapping[str, Any] | None
    event: Event | Literal["auto"] | None
    random_state: int | np.random.RandomState | None

    model_: Model
    event_: Event
    n_features_in_: int
    seed_: int

    def _learn(self, X: ArrayLike, needs: tuple[type, ...], ability: str) -> Tensor:
        """Train ``model_`` on all of X, convert it to float64, and return the rows as inputs of the model."""
        rows = self._table(X, reset=True)
        options, training = dict(self.options or {}), dict(self.training or {})
        for name, given in (("options", options), ("training", training)):
            if "seed" in given:
                raise InputError(f"{name} has a seed; use random_state={given['seed']!r} instead")
        cls = model_class(self.model)
        self.event_ = event_of(rows, self.event, gaps=cls.takes_missing)
        self.seed_ = seed_of(self.random_state)
        if not issubclass(cls, needs):
            raise CapabilityError(f"{self.model} {ability}; suitable models: {fitting_models(needs, self.event_)}")
        reason = cls.refusal(self.event_)
        if reason is not None:
            raise InputError(
                f"{self.model} {reason}; X with n_features={rows.shape[1]} is treated as {self.event_} "
                "(event=unsup.Event(...) or event='auto' changes this); suitable models: "
                + fitting_models(needs, self.event_)
            )
        x = as_event(rows, self.event_, self._of_gaps(fitting=needs))
        model = create(self.model, self.event_, seed=self.seed_, **options)
        make_settings(model, training)  # refuses unknown settings, including `out` and `resume`
        fitted = train(model, data_of(x, self.event_, model), progress="off", **training, seed=self.seed_)
        if fitted.interrupted:
            raise KeyboardInterrupt  # the trainer handles the signal in order to save; there is nothing to save here
        for event in fitted.events:
            if "symptom" in event:
                warnings.warn(
                    f"{self.model}, step {event['step']}: {event['advice']}", ConvergenceWarning, stacklevel=3
                )
        # Training uses the channels-last layout; a model from a pickle must have the same bits.
        self.model_ = model.double().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        return x

    def _rows(self, X: ArrayLike) -> Tensor:
        check_is_fitted(self, "model_")
        return as_event(self._table(X, reset=False), self.event_, self._of_gaps())

    def _of_gaps(self, fitting: tuple[type, ...] | None = None) -> str:
        """What else to do about NaN that the event does not have, a clause; ``fitting``: what `fit` needs."""
        if model_class(self.model).takes_missing:
            return "; or use event=unsup.Event(..., missing=True)" if fitting else "; or fit with such rows too"
        return f"; or use a model that takes NaN: {fitting_models(fitting, with_gaps(self.event_))}" if fitting else ""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.model in names() and model_class(self.model).takes_missing
        return tags

    def _table(self, X: ArrayLike, *, reset: bool) -> NDArray[Any]:
        """X as numbers ``(N, D)``; `as_event` checks their values."""
        fewest = 2 if reset else 1
        rows: NDArray[Any] = validate_data(
            self, X, dtype="numeric", reset=reset, ensure_all_finite=False, ensure_min_samples=fewest
        )
        return rows

    def __getstate__(self) -> dict[str, Any]:
        """The model as plain arrays, independent of the original device and class layout."""
        state = dict(super().__getstate__())
        if "model_" in state:
            arrays = {k: v.cpu().numpy() for k, v in self.model_.state_dict().items()}
            state["model_"] = (model_record(self.model_), arrays)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "model_" in state:
            record, arrays = state["model_"]
            model = create(record["model"], Event.from_json(record["event"]), **record["config"]).double()
            model.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()})
            self.model_ = model.eval()


def where_it_can(ability: str) -> Callable[[Method], Method]:
    """Whether the method is available: if the model has the ability, or is unknown, which `fit` reports."""

    def has(self: Facade) -> bool:
        return self.model not in names() or ability in row(self.model).abilities

    found: Callable[[Method], Method] = available_if(has)
    return found


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    return int(check_random_state(random_state).randint(2**31 - 1))


def fitting_models(needs: tuple[type, ...], event: Event) -> str:
    found = {n: model_class(n) for n in names()}
    return ", ".join(n for n, c in found.items() if issubclass(c, needs) and c.refusal(event) is None) or "none"


def with_gaps(event: Event) -> Event:
    return replace(event, missing=True)


def event_of(rows: NDArray[Any], given: Event | str | None, *, gaps: bool = False) -> Event:
    """The event of one row of X.

    Args:
        gaps: whether the model takes missing entries, so that NaN among real columns are such.
    """
    if isinstance(given, Event):
        if given.dims != rows.shape[1]:
            raise InputError(f"X has {rows.shape[1]} features, but event={given} has {given.dims} entries per example")
        return given
    if given not in (None, "auto"):
        raise InputError(f"event={given!r} should be None (real columns), 'auto' or an unsup.Event")
    if given == "auto" and rows.dtype.kind in "biu":
        return read_arrays(rows).event
    if gaps and rows.dtype.kind == "f" and np.isnan(rows).any():
        return read_arrays(rows).event
    event = Event(rows.shape[1:], REAL)
    return precise(event, rows[some_rows(*rows.shape)]) if rows.dtype.itemsize >= 8 else event


def as_event(rows: NDArray[Any], event: Event, of_gaps: str = "") -> Tensor:
    """Rows ``(N, D)`` as validated raw data ``(N, *event.shape)``: float64 if there are real entries.

    Args:
        of_gaps: what else to do about NaN, a clause of the message.
    """
    exact = event.is_discrete and rows.dtype.kind in "biu"
    x = torch.from_numpy(rows.astype(np.int64 if exact else np.float64, order="C")).view(-1, *event.shape)
    outside = ~event.contains(x)
    if bool(outside.any()):
        bad = np.isinf(rows) if event.missing else ~np.isfinite(rows)
        if bad.any():
            row, feature = (int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"{int(bad.any(1).sum())} of {len(x)} rows of X have NaN or infinity, the first is row {row}, feature "
                f"{feature} (from 0); fill them (sklearn.impute), or remove those rows"
                f"{of_gaps if np.isnan(rows).any() else ''}"
            )
        first = int(outside.nonzero()[0])
        raise InputError(
            f"{int(outside.sum())} of {len(x)} rows of X have values outside {event} (the first is row {first}); "
            "expected raw data, not scaled; use an event that includes later values, or event=None, "
            "which treats columns as real"
        )
    return x.to(event.dtype) if event.is_discrete else x


def data_of(x: Tensor, event: Event, model: Model) -> Data:
    """All rows for training, except those for validation if it selects the parameters."""
    counts = isinstance(model, LearnsByCounting) and model.passes > 0
    rows = validation = Split(x)
    if isinstance(model, HasDensity) and not counts:
        size, *_ = split_sizes(len(x), _VALIDATION_PERCENT, 0, owner="X")
        order = torch.from_numpy(hashed_order(len(x)))
        rows, validation = rows.take(order[:size]), rows.take(order[size:])
    return Data(None, event, rows, validation, Split(x[:0]), split="all rows")
