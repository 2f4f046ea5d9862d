"""What a code knows about the classes: a logistic regression on features that are held fixed.

Multinomial, with the squared norm of the weights times λ/2 added to the mean loss, fitted by L-BFGS on features that
are standardised with the training examples (the protocol for small sets of Kornblith, Shlens, Le 2019,
https://arxiv.org/abs/1805.08974). λ is the one of `PENALTIES` that names most examples of a part of the training set
correctly; the test examples have no say in anything. Beside it belong the accuracy of the raw data (`raw_features`) and
that of the commonest class (`majority_share`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn.functional import one_hot

from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event
from unsup.core.machine import fast_cpu
from unsup.core.model import CanEncode, Classifies, Model, keyed_generator
from unsup.core.parallel import share_out
from unsup.data.source import Split
from unsup.evaluate.conditions import beside, examples_in, rows_of
from unsup.evaluate.estimate import Estimate, Z, of_share, wilson

MOST_TRAINING = 5000
"""Training examples used; of more, a choice keyed by the seed."""
PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""λ, from strong to weak."""
NEIGHBOURS = 5
"""That vote."""
FEW, CHOICES = 10, 5
"""Labels a class of `few_labels`, and how many times they are chosen."""
CHUNK = 500
"""Examples encoded or classified at once."""
_MOST_STEPS = 200  # of L-BFGS for each λ
_VALIDATION = 0.2
_CONSTANT = 1e-12  # of its largest number: less spread than this in a column is rounding
_FAR = 100.0  # standard deviations; of a column that hardly varies among a few labelled examples, others are further
_MOST_COLUMNS = 2**16  # of raw features
_CHOICE, _PART, _FEW = range(3)

Array = NDArray[np.float32]
Classes = NDArray[np.int64]


def probe(
    train_features: Tensor, train_label: Tensor, test_features: Tensor, test_label: Tensor, *, seed: int = 0
) -> Estimate:
    """Fit on features ``(N, F)`` and class numbers ``(N,)``, and count on ``(M, F)`` and ``(M,)`` how many are right.

    The interval of the accuracy is Wilson's; the training examples are held fixed.

    Args:
        seed: of the choice of training examples and of the part that λ is chosen by.

    Raises:
        InputError: no example, shapes that do not fit, features that are not finite.

    >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    >>> probe(x[:200], (x[:200, 0] > 0).long(), x[200:], (x[200:, 0] > 0).long()).value > 0.9
    True
    """
    _check("train", train_features, train_label)
    _check("test", test_features, test_label)
    if train_features.shape[1] != test_features.shape[1]:
        raise InputError(
            f"{train_features.shape[1]} training and {test_features.shape[1]} test features given; expected as many"
        )
    rows = training_rows(len(train_features), seed=seed)
    rows = rows[torch.randperm(len(rows), generator=keyed_generator(seed, _PART))]
    x, y = train_features.detach().cpu()[rows].double(), train_label.cpu()[rows].numpy()
    mean, std = x.mean(0), x.std(0, correction=0)
    varies = std > _CONSTANT * x.abs().amax(0)
    scaled, other = (
        ((v[:, varies] - mean[varies]) / std[varies]).clamp(-_FAR, _FAR).float().numpy()
        for v in (x, test_features.detach().cpu().double())
    )
    part = max(1, int(_VALIDATION * len(rows)))
    correct = [int((p == y[:part]).sum()) for p in _predictions(scaled[part:], y[part:], scaled[:part], PENALTIES)]
    best = correct.index(max(correct))  # the strongest of equally good ones
    (found,) = _predictions(scaled, y, other, PENALTIES[best : best + 1])
    right = int((found == test_label.cpu().numpy()).sum())
    return wilson(right, len(test_label))


def few_labels(
    train_features: Tensor,
    train_label: Tensor,
    test_features: Tensor,
    test_label: Tensor,
    *,
    each: int = FEW,
    choices: int = CHOICES,
    seed: int = 0,
) -> Estimate:
    """The accuracy of `probe` where only ``each`` examples of a class have labels: the mean over ``choices`` of them.

    The interval takes in the choice of the labelled examples and that of the test examples.

    Args:
        each: labelled examples of a class; all of it where it has fewer.
        seed: of the choices.

    Raises:
        InputError: as `probe`.

    >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    >>> few_labels(x[:200], (x[:200, 0] > 0).long(), x[200:], (x[200:, 0] > 0).long()).value > 0.8
    True
    """
    _check("train", train_features, train_label)
    label, found = train_label.cpu(), []
    for choice in range(choices):
        order = torch.randperm(len(label), generator=keyed_generator(seed, _FEW, choice))
        rows = torch.cat([order[label[order] == c][:each] for c in label.unique()])
        known = probe(train_features[rows], label[rows], test_features, test_label, seed=seed)
        found.append(known.value)
    shares = np.array(found)
    mean, n = float(shares.mean()), len(test_label)
    spread = student.ppf(0.975, choices - 1) / Z * shares.std(ddof=1) / math.sqrt(choices)
    return of_share(mean, math.hypot(spread, math.sqrt(mean * (1 - mean) / n)), n)


@torch.no_grad()
def predict_classes(model: Model, examples: Split) -> Tensor:
    """The most probable class of each example, ``(N,)``, int64, on the CPU.

    Raises:
        CapabilityError: the model is not a classifier.
    """
    if not isinstance(model, Classifies):
        raise CapabilityError(f"{type(model).__name__} is not a classifier (unsup models lists those)")
    classifier, device, was_training = model, model.device, model.training
    model.eval()

    def predicted(position: int) -> Tensor:
        rows = torch.arange(position * CHUNK, min((position + 1) * CHUNK, len(examples)))
        return classifier.predict_proba(examples.rows(rows).to(device)).argmax(1).cpu()

    with fast_cpu(device):
        found = share_out(-(-len(examples) // CHUNK), predicted)
    model.train(was_training)
    return found


def neighbours_vote(
    known: Tensor, label: Tensor, asked: Tensor, true: Tensor, *, k: int = NEIGHBOURS, seed: int = 0
) -> Estimate:
    """The share of features ``(M, F)`` whose class is that of most of their ``k`` nearest among ``(N, F)``.

    Features are standardised by the known ones; distances are Euclidean. Nothing is random; ``seed`` is not used.

    >>> known, label = torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([0, 0, 1])
    >>> neighbours_vote(known, label, torch.tensor([[0.4], [9.0]]), torch.tensor([0, 1]), k=1).value
    1.0
    """
    x, other = known.double(), asked.double()
    mean, std = x.mean(0), x.std(0, correction=0)
    scaled, wanted = (((v - mean) / torch.where(std > 0, std, 1)).numpy() for v in (x, other))
    voters = KNeighborsClassifier(min(k, len(known))).fit(scaled, label.numpy())
    return wilson(int((voters.predict(wanted) == true.numpy()).sum()), len(true))


def training_rows(n: int, *, seed: int = 0) -> Tensor:
    """Which of ``n`` training examples a probe uses, rising: all, or `MOST_TRAINING` keyed by the seed; int64.

    >>> training_rows(3), len(training_rows(60_000))
    (tensor([0, 1, 2]), 5000)
    """
    return torch.randperm(n, generator=keyed_generator(seed, _CHOICE))[:MOST_TRAINING].sort().values


def raw_features(x: Tensor, event: Event) -> Tensor:
    """The data itself as features: raw examples ``(N, *event.shape)`` → float32 ``(N, D)``.

    An ordinal or real entry is one number, a nominal one a column for each of its levels.

    Raises:
        InputError: examples of another shape, or so many levels that the features would not fit in memory.

    >>> from unsup.core.event import REAL, Support
    >>> raw_features(torch.tensor([[2, 7], [0, 5]]), Event((2,), (Support("nominal", 3), REAL)))
    tensor([[0., 0., 1., 7.],
            [1., 0., 0., 5.]])
    """
    event.check_shape(x)
    flat = x.detach().cpu().flatten(1)
    columns = event.columns
    if all(s.kind != "nominal" for s in columns):
        return flat.float()
    if (size := sum(s.levels if s.kind == "nominal" else 1 for s in columns)) > _MOST_COLUMNS:
        raise InputError(f"raw features of {event} would have {size:,} columns; expected at most {_MOST_COLUMNS:,}")
    parts = [
        one_hot(flat[:, d].long(), s.levels).float() if s.kind == "nominal" else flat[:, d : d + 1].float()
        for d, s in enumerate(columns)
    ]
    return torch.cat(parts, 1)


@torch.no_grad()
def encode_all(model: Model, x: Tensor | Split | Batch) -> Tensor:
    """Codes of raw examples on the CPU: ``(N, *event.shape)`` → ``(N, F)``, float32.

    Args:
        x: raw examples, or a split or batch of them, with the conditions that go with them.

    Raises:
        CapabilityError: the model gives no codes.

    >>> import unsup
    >>> digits = unsup.load_data("digits")
    >>> tuple(encode_all(unsup.create("vae", digits.event, preset="tiny"), digits.test.x).shape)
    (360, 4)
    """
    if not isinstance(model, CanEncode):
        raise CapabilityError(f"{type(model).__name__} gives no codes; ask a model that can encode (unsup models)")
    was_training = model.training
    model.eval()
    examples = examples_in(x)

    def encoded(position: int) -> Tensor:
        batch = rows_of(examples, position * CHUNK, (position + 1) * CHUNK).to(model.device)
        return model.encode(batch.x, **beside(model, batch.given)).flatten(1).float().cpu()

    with fast_cpu(model.device):
        found = share_out(-(-len(examples) // CHUNK), encoded)
    model.train(was_training)
    return found


def majority_share(train_label: Tensor, test_label: Tensor) -> float:
    """Share of test examples in the commonest class of training, the lowest number of equally common ones.

    >>> majority_share(torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0, 2]))
    0.5
    """
    classes, counts = train_label.cpu().unique(return_counts=True)
    return float((test_label.cpu() == classes[counts.argmax()]).double().mean())


def _predictions(x: Array, y: Classes, other: Array, penalties: Sequence[float]) -> list[Classes]:
    """Classes of ``other`` by regressions on ``x`` with each λ, each of which starts where the one before ended."""
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) == 1 or not x.shape[1]:
        return [np.full(len(other), classes[counts.argmax()])] * len(penalties)
    model = LogisticRegression(max_iter=_MOST_STEPS, warm_start=True)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for penalty in penalties:
            # scikit-learn's C multiplies the sum of the losses.
            found.append(model.set_params(C=1 / (penalty * len(x))).fit(x, y).predict(other))
    return found


def _check(name: str, features: Tensor, label: Tensor) -> None:
    """Raise `InputError` unless these are finite features ``(N, F)`` with class numbers ``(N,)``, N of 2 or more."""
    if features.ndim != 2 or label.shape != features.shape[:1] or len(features) < 2:
        raise InputError(
            f"{name} features of shape {tuple(features.shape)} and labels of shape {tuple(label.shape)} given; "
            "expected (N, F) and (N,), with N of 2 or more"
        )
    if bad := int((~features.isfinite()).any(1).sum()):
        raise InputError(
            f"{bad} of {len(features)} {name} examples have features that are not finite; leave them out, or mend the "
            "model"
        )
