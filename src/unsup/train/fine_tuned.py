"""Fine-tuning: an encoder and a linear classifier of its codes, trained together on the labels.

    loss = −log softmax(W (f(x) − m) / s + b)_y,

with f(x) the codes, m and s their mean and deviation before fine-tuning, and W = 0, b = 0 at the start. It is trained
like every model; the accuracy on validation examples selects its parameters, and the held-out examples are read once.
The same is done with random parameters of the encoder, which is ordinary supervised learning.

In training, a batch normalisation uses the moments of the batch. Its running averages are therefore set to the means of
these before m and s are computed: those of random parameters are still 0 and 1, and the codes of other moments would
be thousands of deviations away.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from unsup.core.batch import Batch
from unsup.core.config import Count
from unsup.core.errors import CapabilityError
from unsup.core.event import Event
from unsup.core.model import CanEncode, Classifies, Model, Terms
from unsup.evaluate.conditions import is_conditioned
from unsup.evaluate.estimate import Estimate, make_figure, wilson
from unsup.evaluate.exam import Exam
from unsup.evaluate.measures import classes_of
from unsup.evaluate.moments import set_running_moments
from unsup.evaluate.probe import encode_all, majority_share, predict_classes
from unsup.evaluate.records import Figure
from unsup.evaluate.untrained import untrained
from unsup.train.progress import ProgressMode
from unsup.train.settings import Settings
from unsup.train.trainer import fit

_FEW = 8  # examples whose gradient shows which parameters the codes depend on


class FineTuned(Model, Classifies):
    """The encoder with its classifier; `on` builds it.

    Args:
        event: type of an example.
        features: F, the size of a code.
        classes: K.
    """

    autocast = False
    takes_missing = True
    takes_lengths = True
    needs_labels = True
    validator = "accuracy"
    encoder: Model

    def __init__(self, event: Event, *, features: Count, classes: Count) -> None:
        self.linear = nn.Linear(features, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    @classmethod
    def on(cls, encoder: Model, codes: Tensor, classes: int, x: Tensor) -> FineTuned:
        """The classifier of the codes of a copy of ``encoder``.

        Args:
            encoder: a model that encodes.
            codes: of training examples, ``(N, F)``.
            classes: K.
            x: these examples, in which its batch normalisations find their moments; if it has any, ``codes`` are
                computed again.

        Raises:
            CapabilityError: its codes have no gradient, or a condition.
        """
        name = type(encoder).__name__
        if is_conditioned(encoder):
            raise CapabilityError(f"the codes of this {name} depend on a condition; remove --fine-tune")
        found = cls(encoder.event, features=codes.shape[1], classes=classes)
        found.encoder = copy.deepcopy(encoder).eval()
        found.to(encoder.device)
        if set_running_moments(found.encoder, x, size=Settings.batch_size):
            codes = encode_all(found.encoder, x)
        found.mean.copy_(codes.mean(0))
        spread = codes.std(0, correction=0)
        found.std.copy_(spread.where(spread > 1e-6 * codes.abs().amax(0), torch.inf))
        codes = found.codes(x[:_FEW].to(encoder.device))
        if not codes.requires_grad:
            raise CapabilityError(f"the codes of {name} have no gradient; remove --fine-tune")
        weights = [p for p in found.encoder.parameters() if p.requires_grad]
        for p, gradient in zip(weights, torch.autograd.grad(codes.sum(), weights, allow_unused=True), strict=True):
            p.requires_grad_(gradient is not None)  # the decoder is not trained
        return found

    def codes(self, x: Tensor) -> Tensor:
        """The codes with their gradient, ``(B, F)``."""
        assert isinstance(self.encoder, CanEncode)
        return self.encoder.encode(x).flatten(1).float()

    def _logits(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear((self.codes(x) - self.mean) / self.std)
        return found

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        assert batch.label is not None
        return {"loss": cross_entropy(self._logits(batch.x), batch.label, reduction="none")}

    def predict_proba(self, x: Tensor) -> Tensor:
        return self._logits(x).softmax(1)


def fine_tuning(exam: Exam, minutes: float, *, progress: ProgressMode = "auto") -> Figure:
    """The accuracy of the fine-tuned encoder on held-out examples; ``untrained`` is that from random parameters.

    Args:
        exam: of the encoder, which is not changed.
        minutes: of training in all, half of them for each of the two.
        progress: as in `unsup.fit`.

    Raises:
        CapabilityError: the encoder cannot be fine-tuned.
        InputError: the data has no labels, or too few.
    """
    bench = exam.bench
    known, true = classes_of(bench)
    data = replace(
        bench.data, train=bench.without_gaps(bench.data.train), validation=bench.without_gaps(bench.data.validation)
    )
    assert data.train.label is not None
    classes, test = int(data.train.label.max()) + 1, bench.probed[1]

    def accuracy(encoder: Model, codes: Tensor) -> Estimate:
        model = FineTuned.on(encoder, codes, classes, bench.probed[0].x)
        fit(model, data, minutes=minutes / 2, seed=exam.m.seed, progress=progress)
        return wilson(int((predict_classes(model, test) == true).sum()), len(true))

    own = accuracy(exam.model, exam.codes[0])
    other = accuracy(untrained(exam.model, bench.data, seed=exam.m.seed), exam.untrained_codes[0])
    detail = {"features": exam.codes[0].shape[1], "majority": majority_share(known, true), "minutes": minutes}
    return make_figure(own, len(true), untrained=other.value, **detail)
