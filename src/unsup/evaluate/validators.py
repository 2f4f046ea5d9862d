"""What the best parameters of a run are kept by: a table of measures on validation examples.

A validator is one row: its name, which way is better, what it needs of the model and of the data, and how it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from unsup.core.errors import InputError, nearest
from unsup.core.likelihood import Likelihood
from unsup.core.machine import fast_cpu
from unsup.core.model import CanEncode, CanSample, Classifies, HasDensity, IsConditional, Model, keyed_generator
from unsup.core.parallel import share_out
from unsup.data.source import Data, Split
from unsup.evaluate.conditions import is_conditioned
from unsup.evaluate.features import choose_extractor
from unsup.evaluate.frechet import frechet_distance
from unsup.evaluate.likelihood import evaluate_likelihood
from unsup.evaluate.probe import encode_all
from unsup.evaluate.samples import draw_samples

NEWEST = "newest"
"""Not a measure: the newest parameters are kept."""
NEIGHBOURS = 5
"""That vote in ``knn``."""
_CHUNK = 500  # examples in one pass through the model
_MOST_SAMPLES = 1000  # of ``fid``
_MOST_REFERENCES = 5000  # training examples of ``knn``
_REFERENCES, _SAMPLES = range(2)


@dataclass(frozen=True)
class Judgement:
    """What a validator says of some parameters.

    Attributes:
        value: the number that parameters are compared by.
        told: the same for people, with its name or unit.
        event: what the log of the run records.
        likelihood: the whole record, where the number is one.
    """

    value: float
    told: str
    event: Mapping[str, Any]
    likelihood: Likelihood | None = None


Judge = Callable[[Model], Judgement]


@dataclass(frozen=True)
class Validator:
    """One row of the table.

    Attributes:
        name: what ``validator=`` calls it.
        about: what the number is.
        better: which way is better.
        needs: of the model and of the data, in words.
        fits: the same as a predicate.
        start: from the data, the validation examples that are watched and a seed to what judges a model. What does not
            change from one validation to the next is computed here, once.
    """

    name: str
    about: str
    better: Literal["lower", "higher"]
    needs: str
    fits: Callable[[Model, Data], bool]
    start: Callable[[Data, Split, int], Judge] = field(repr=False)

    def prefers(self, value: float, other: float | None) -> bool:
        """Whether ``value`` is better than ``other``, which may be none yet."""
        return other is None or (value < other if self.better == "lower" else value > other)


def choose_validator(name: str, model: Model, data: Data) -> Validator | None:
    """The validator called ``name`` for a model on data; None keeps the newest parameters.

    ``auto`` is the model's own (``model.validator``) where it fits, else the likelihood, else none.

    Raises:
        InputError: an unknown name, or one that does not fit; those that do are named.

    >>> import unsup
    >>> data = unsup.load_data("digits")
    >>> choose_validator("auto", unsup.create("vae", data.event, preset="tiny"), data).name
    'likelihood'
    """
    if name == "auto":
        wanted = [VALIDATORS[n] for n in (model.validator, "likelihood") if n in VALIDATORS]
        return next((v for v in wanted if v.fits(model, data)), None)
    if name == NEWEST:
        return None
    if name not in VALIDATORS:
        raise InputError(f"there is no validator {name!r}{nearest(name, [*VALIDATORS, NEWEST, 'auto'])}")
    found = VALIDATORS[name]
    if not found.fits(model, data):
        others = ", ".join([n for n, v in VALIDATORS.items() if v.fits(model, data)] + [NEWEST])
        raise InputError(
            f"the validator {name!r} needs {found.needs}, which {type(model).__name__} on {data.name or 'this data'} "
            f"does not have; those that fit: {others}"
        )
    return found


def _some(examples: Split, most: int, seed: int, use: int) -> Split:
    """``most`` of the examples, chosen by the seed, or all of them."""
    if len(examples) <= most:
        return examples
    rows = torch.randperm(len(examples), generator=keyed_generator(seed, use))[:most]
    return examples.take(rows.sort().values)


# --- likelihood -------------------------------------------------------------------------------------------------------


def _has_likelihood(model: Model, data: Data) -> bool:
    if not isinstance(model, HasDensity):
        return False
    marginalised = isinstance(model, IsConditional) and model.classes > 0
    return not is_conditioned(model) or marginalised or data.validation.given is not None


def _likelihood(data: Data, watched: Split, seed: int) -> Judge:
    def judge(model: Model) -> Judgement:
        found = evaluate_likelihood(model, watched, seed=seed)
        event = {"nats": found.nats, "bits_per_dim": found.bits_per_dim, "kind": found.kind}
        return Judgement(found.nats, f"{found.sign} {found.bits_per_dim:.4f} bits/dim", event, found)

    return judge


# --- error of a classifier --------------------------------------------------------------------------------------------


def _classifies(model: Model, data: Data) -> bool:
    return isinstance(model, Classifies) and data.validation.label is not None


def _error(data: Data, watched: Split, seed: int) -> Judge:
    label = _label(watched)

    def judge(model: Model) -> Judgement:
        return _plain("error", float((_classes(model, watched) != label).double().mean()))

    return judge


@torch.no_grad()
def _classes(model: Model, examples: Split) -> Tensor:
    """The most probable class of each example, in evaluation mode and shared out over processes: ``(N,)``, int64."""
    assert isinstance(model, Classifies)
    classifier, device, was_training = model, model.device, model.training
    model.eval()

    def named(position: int) -> Tensor:
        rows = torch.arange(position * _CHUNK, min((position + 1) * _CHUNK, len(examples)))
        return classifier.predict_proba(examples.rows(rows).to(device)).argmax(1).cpu()

    with fast_cpu(device):
        found = share_out(-(-len(examples) // _CHUNK), named)
    model.train(was_training)
    return found


def _label(examples: Split) -> Tensor:
    assert examples.label is not None
    return examples.label.cpu()


# --- nearest neighbours of features -----------------------------------------------------------------------------------


def _has_labelled_features(model: Model, data: Data) -> bool:
    return isinstance(model, CanEncode) and data.train.label is not None and data.validation.label is not None


def _knn(data: Data, watched: Split, seed: int) -> Judge:
    references = _some(data.train.epoch(seed, 0), _MOST_REFERENCES, seed, _REFERENCES)
    label, true = _label(references), _label(watched)

    def judge(model: Model) -> Judgement:
        known, asked = encode_all(model, references).double(), encode_all(model, watched).double()
        return _plain("knn", neighbours_accuracy(known, label, asked, true))

    return judge


def neighbours_accuracy(known: Tensor, label: Tensor, asked: Tensor, true: Tensor, *, k: int = NEIGHBOURS) -> float:
    """The share of features ``(M, F)`` whose class is that of most of their ``k`` nearest among ``(N, F)``.

    Features are standardised by the known ones; distances are Euclidean.

    >>> known, label = torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([0, 0, 1])
    >>> neighbours_accuracy(known, label, torch.tensor([[0.4], [9.0]]), torch.tensor([0, 1]), k=1)
    1.0
    """
    mean, std = known.mean(0), known.std(0, correction=0)
    scaled, other = (((x - mean) / torch.where(std > 0, std, 1)).numpy() for x in (known, asked))
    voters = KNeighborsClassifier(min(k, len(known))).fit(scaled, label.numpy())
    return float((voters.predict(other) == true.numpy()).mean())


# --- samples ----------------------------------------------------------------------------------------------------------


def _draws_images(model: Model, data: Data) -> bool:
    return isinstance(model, CanSample) and data.event.is_image and data.event.shape[0] in (1, 3)


def _fid(data: Data, watched: Split, seed: int) -> Judge:
    real = _some(watched, _MOST_SAMPLES, seed, _SAMPLES)
    extractor = choose_extractor("auto", data.event, data.train.take(slice(0, _MOST_SAMPLES)).x)
    points = extractor(real.x).points

    def judge(model: Model) -> Judgement:
        given = real.given if is_conditioned(model) else None
        samples = draw_samples(model, len(real), seed=seed, given=given)
        return _plain("fid", frechet_distance(extractor(samples).points, points))

    return judge


def _plain(name: str, value: float) -> Judgement:
    event = {"validator": name, "value": value, "better": VALIDATORS[name].better}
    return Judgement(value, f"{name} {value:.4g}", event)


VALIDATORS: dict[str, Validator] = {
    row.name: row
    for row in (
        Validator(
            *("likelihood", "mean −log p of an example, in nats", "lower"),
            *("a model with a density", _has_likelihood, _likelihood),
        ),
        Validator(
            *("error", "share of examples that are named wrongly", "lower"),
            *("a model that classifies, and labels", _classifies, _error),
        ),
        Validator(
            *("knn", f"accuracy of the vote of the {NEIGHBOURS} training examples with the nearest features", "higher"),
            *("a model that encodes, and labels", _has_labelled_features, _knn),
        ),
        Validator(
            *("fid", "Fréchet distance of samples to examples in the library's own features", "lower"),
            *("a model that samples, and images of one or three channels", _draws_images, _fid),
        ),
    )
}
