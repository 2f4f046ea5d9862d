"""What codes contain about the classes: classifiers on fixed features.

The probe is a multinomial logistic regression with the squared norm of the weights times λ/2 added to the mean loss,
fitted by L-BFGS on features standardised with the training examples (the protocol for small data sets of Kornblith,
Shlens, Le 2019, https://arxiv.org/abs/1805.08974). λ is the value of `PENALTIES` with the highest accuracy on a part of
the training set; the test examples are not used. Compare it with the accuracy of the raw data (`raw_features`), of an
encoder with random parameters (`unsup.evaluate.untrained`) and of the most frequent class (`majority_share`).
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event
from unsup.core.model import CanEncode, Classifies, Model, keyed_generator
from unsup.data.source import Split
from unsup.evaluate.conditions import beside, over_examples
from unsup.evaluate.distances import check_points
from unsup.evaluate.estimate import Estimate, Z, of_share, wilson
from unsup.evaluate.features import column_count, columns_of
from unsup.evaluate.spread import directions

MOST_TRAINING = 20_000
"""Training examples that are used; if there are more, they are chosen by the seed."""
PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""λ, from strong to weak."""
NEIGHBOURS = 5
VOTERS, TEMPERATURE = 20, 0.07
"""k and T of `weighted_vote`; other pairs in use are 200 and 0.1, 10 and ∞, and give other accuracies."""
FEW, CHOICES = 10, 5
"""Labels per class in `few_labels`, and number of choices of these labels."""
CHUNK = 500
"""Examples encoded or classified at once."""
_MOST_STEPS = 200  # of L-BFGS for each λ
_VALIDATION = 0.2
_CONSTANT = 1e-12  # a smaller spread of a column, relative to its largest number, is rounding
_FAR = 100.0  # standard deviations; a column may hardly vary among a few labelled examples
_CHOICE, _PART, _FEW = range(3)

Array = NDArray[np.float32]
Classes = NDArray[np.int64]


def probe(
    train_features: Tensor, train_label: Tensor, test_features: Tensor, test_label: Tensor, *, seed: int = 0
) -> Estimate:
    """The accuracy of the probe: fit to ``(N, F)`` and class numbers ``(N,)``, test on ``(M, F)`` and ``(M,)``.

    The interval is Wilson's, for fixed training examples.

    Args:
        seed: of the choice of training examples and of the part for the choice of λ.

    Raises:
        InputError: no example, shapes that do not match, or features that are not finite.

    >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    >>> probe(x[:200], (x[:200, 0] > 0).long(), x[200:], (x[200:, 0] > 0).long()).value > 0.9
    True
    """
    check_labelled(train_features, train_label, test_features, test_label)
    rows = training_rows(len(train_features), seed=seed)
    rows = rows[torch.randperm(len(rows), generator=keyed_generator(seed, _PART))]
    x, y = train_features.detach().cpu()[rows].double(), train_label.cpu()[rows].numpy()
    scaled, other = (v.float().numpy() for v in standardised(x, test_features.detach().cpu().double()))
    part = max(1, int(_VALIDATION * len(rows)))
    correct = [int((p == y[:part]).sum()) for p in _predictions(scaled[part:], y[part:], scaled[:part], PENALTIES)]
    best = correct.index(max(correct))  # the strongest of equally good ones
    (found,) = _predictions(scaled, y, other, PENALTIES[best : best + 1])
    return wilson(int((found == test_label.cpu().numpy()).sum()), len(test_label))


def few_labels(
    train_features: Tensor,
    train_label: Tensor,
    test_features: Tensor,
    test_label: Tensor,
    *,
    labels: int = FEW,
    seed: int = 0,
) -> Estimate:
    """The accuracy of `probe` with a few labelled examples per class (or all): the mean over `CHOICES` of them.

    Args:
        labels: number of labelled examples per class.
        seed: of the choices.

    The interval includes the choice of the labelled examples and of the test examples.

    >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    >>> few_labels(x[:200], (x[:200, 0] > 0).long(), x[200:], (x[200:, 0] > 0).long()).value > 0.8
    True
    """
    from scipy.stats import t as student  # slow to import

    check_labelled(train_features, train_label, test_features, test_label)
    label, found = train_label.cpu(), []
    for choice in range(CHOICES):
        order = torch.randperm(len(label), generator=keyed_generator(seed, _FEW, choice))
        rows = torch.cat([order[label[order] == c][:labels] for c in label.unique()])
        found.append(probe(train_features[rows], label[rows], test_features, test_label, seed=seed).value)
    mean, n = float(np.mean(found)), len(test_label)
    spread = student.ppf(0.975, CHOICES - 1) / Z * np.std(found, ddof=1) / math.sqrt(CHOICES)
    return of_share(mean, math.hypot(spread, math.sqrt(mean * (1 - mean) / n)), n)


def neighbours_vote(
    known: Tensor, label: Tensor, asked: Tensor, true: Tensor, *, k: int = NEIGHBOURS, seed: int = 0
) -> Estimate:
    """The accuracy of a k-nearest-neighbour classifier on ``(M, F)``, fitted to ``(N, F)``.

    Features are standardised by the known ones, as for `probe`; distances are Euclidean. Nothing is random; ``seed`` is
    not used.

    Raises:
        InputError: shapes that do not match, or features that are not finite.

    >>> known, label = torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([0, 0, 1])
    >>> neighbours_vote(known, label, torch.tensor([[0.4], [9.0]]), torch.tensor([0, 1]), k=1).value
    1.0
    """
    from sklearn.neighbors import KNeighborsClassifier  # slow to import

    check_labelled(known, label, asked, true)
    scaled, wanted = (v.numpy() for v in standardised(known.double(), asked.double()))
    if not scaled.shape[1]:
        return wilson(int((true == label.bincount().argmax()).sum()), len(true))
    voters = KNeighborsClassifier(min(k, len(known))).fit(scaled, label.numpy())
    return wilson(int((voters.predict(wanted) == true.numpy()).sum()), len(true))


def weighted_vote(
    known: Tensor,
    label: Tensor,
    asked: Tensor,
    true: Tensor,
    *,
    k: int = VOTERS,
    temperature: float = TEMPERATURE,
    block: int = 2**22,
    seed: int = 0,
) -> Estimate:
    """The accuracy of a weighted vote of the ``k`` nearest by cosine s, with weights exp(s / T).

    The protocol of Wu, Xiong, Yu, Lin 2018 (https://arxiv.org/abs/1805.01978). Codes are normalised, not standardised.
    Of equally near ones, the first vote; of equal votes, the lowest class wins. Nothing is random; ``seed`` is not
    used.

    Args:
        known, label: codes ``(N, F)`` with class numbers ``(N,)``; classes that do not occur here are never predicted.
        asked, true: codes ``(M, F)`` to classify, and their class numbers ``(M,)``.
        k: number of votes, or all if there are fewer.
        temperature: T; a vote tends to the majority of the k as it grows.
        block: numbers of the matrix of cosines in memory at once; the result does not depend on it.

    Raises:
        InputError: shapes that do not match, or features that are not finite.

    >>> known, label = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    >>> weighted_vote(known, label, torch.tensor([[5.0, 1.0], [1.0, 9.0]]), torch.tensor([0, 1])).value
    1.0
    """
    check_labelled(known, label, asked, true)
    bank, classes = directions(known), label.cpu().unique()
    member = (label.cpu()[:, None] == classes).double()  # (N, C)
    count, found = min(k, len(bank)), []
    for part in directions(asked).split(max(1, block // len(bank))):
        cosine = part @ bank.T
        last = cosine.topk(count).values[:, -1:]
        near, tied = cosine > last, cosine == last
        chosen = near | (tied & (tied.cumsum(1) <= count - near.sum(1, keepdim=True)))
        votes = (((cosine - cosine.amax(1, keepdim=True)) / temperature).exp() * chosen) @ member
        found.append(classes[votes.argmax(1)])
    return wilson(int((torch.cat(found) == true.cpu()).sum()), len(true))


def predict_classes(model: Model, examples: Split) -> Tensor:
    """The most probable class of each example, ``(N,)``, int64, on the CPU.

    Raises:
        CapabilityError: the model is not a classifier.
    """
    if not isinstance(model, Classifies):
        raise CapabilityError(f"{type(model).__name__} is not a classifier; unsup models lists classifiers")
    classifier = model
    return over_examples(model, examples, CHUNK, lambda _, batch: classifier.class_probabilities(batch).argmax(1))


def encode_all(model: Model, x: Tensor | Split | Batch, on_chunk: Callable[[int, int], None] | None = None) -> Tensor:
    """Codes of raw examples on the CPU: ``(N, *event.shape)`` → ``(N, F)``, float32, in evaluation mode.

    Args:
        x: raw examples, or a split or batch of them with their conditions.
        on_chunk: called with the numbers of examples that are encoded and of all.

    Raises:
        CapabilityError: the model does not encode.

    >>> import unsup
    >>> digits = unsup.load_data("digits")
    >>> tuple(encode_all(unsup.create("vae", digits.event, preset="tiny"), digits.test.x).shape)
    (360, 4)
    """
    if not isinstance(model, CanEncode):
        raise CapabilityError(f"{type(model).__name__} has no codes; unsup models lists models that encode")
    encoder = model

    def encoded(position: int, batch: Batch) -> Tensor:
        return encoder.encode(batch.x, **beside(model, batch.given)).flatten(1).float()

    return over_examples(model, x, CHUNK, encoded, on_chunk)


def can_encode(model: Model, examples: Split) -> bool:
    """Whether a model encodes these examples, such as some with missing entries, and their codes are finite."""
    try:
        return bool(encode_all(model, examples).isfinite().all())
    except InputError:
        return False


def fingerprint(model: Model) -> str:
    """The SHA-256 of all parameters and buffers of a model, with their names, types and shapes.

    >>> import unsup
    >>> model = unsup.create("vae", unsup.load_data("digits").event, preset="tiny", seed=0)
    >>> before = fingerprint(model)
    >>> _ = next(model.parameters()).data.mul_(2)
    >>> fingerprint(model) == before
    False
    """
    found = hashlib.sha256()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return found.hexdigest()


def training_rows(n: int, *, seed: int = 0) -> Tensor:
    """The sorted rows of ``n`` training examples that a probe uses: all, or `MOST_TRAINING` chosen by the seed; int64.

    >>> training_rows(3), len(training_rows(60_000))
    (tensor([0, 1, 2]), 20000)
    """
    return torch.randperm(n, generator=keyed_generator(seed, _CHOICE))[:MOST_TRAINING].sort().values


def raw_features(x: Tensor, event: Event, *, most: int = 2**16) -> Tensor:
    """The data itself as features: raw examples ``(N, *event.shape)`` → float32 ``(N, D)``.

    An ordinal or real entry is one number, a nominal entry one indicator per level.

    Raises:
        InputError: examples of another shape, or more than ``most`` indicators.

    >>> from unsup.core.event import REAL, Support
    >>> raw_features(torch.tensor([[2, 7], [0, 5]]), Event((2,), (Support("nominal", 3), REAL)))
    tensor([[0., 0., 1., 7.],
            [1., 0., 0., 5.]])
    """
    event.check_shape(x)
    if (width := column_count(event)) > max(most, event.dims):
        raise InputError(f"raw features of {event} would have {width:,} columns; expected at most {most:,}")
    return columns_of(x.detach().cpu(), event, torch.float32)


def majority_share(train_label: Tensor, test_label: Tensor) -> float:
    """The share of test examples in the most frequent class of the training examples (the lowest of equal ones).

    >>> majority_share(torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0, 2]))
    0.5
    """
    return float((test_label.cpu() == train_label.cpu().bincount().argmax()).double().mean())


def standardised(x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both by the mean and spread of x, without its constant columns: float64 ``(N, F)`` and ``(M, F)``."""
    mean, std = x.mean(0), x.std(0, correction=0)
    varies = std > _CONSTANT * x.abs().amax(0)
    scaled, wanted = (((v[:, varies] - mean[varies]) / std[varies]).clamp(-_FAR, _FAR) for v in (x, other))
    return scaled, wanted


def _predictions(x: Array, y: Classes, other: Array, penalties: Sequence[float]) -> list[Classes]:
    """Classes of ``other`` by regressions on ``x`` for each λ; each starts from the previous solution."""
    from sklearn.exceptions import ConvergenceWarning  # slow to import
    from sklearn.linear_model import LogisticRegression

    classes, counts = np.unique(y, return_counts=True)
    if len(classes) == 1 or not x.shape[1]:
        return [np.full(len(other), classes[counts.argmax()])] * len(penalties)
    model = LogisticRegression(max_iter=_MOST_STEPS, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # scikit-learn's C multiplies the sum of the losses.
        return [model.set_params(C=1 / (penalty * len(x))).fit(x, y).predict(other) for penalty in penalties]


def check_labelled(known: Tensor, label: Tensor, asked: Tensor, true: Tensor) -> None:
    """Raise `InputError` unless these are finite features with class numbers, two examples or more of each."""
    check_points(2, train=known, test=asked)
    for name, x, y in (("train", known, label), ("test", asked, true)):
        if y.shape != x.shape[:1]:
            raise InputError(
                f"{len(x)} {name} examples and labels of shape {tuple(y.shape)} given; expected one label per example"
            )
