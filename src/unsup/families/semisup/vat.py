"""Virtual adversarial training: predictions that hardly change in the direction in which they change most.

For each example, labelled or not, with the prediction p(y | x) held fixed,

    R(x) = KL(p(y | x) ‖ p(y | x + r)),      r = ε d / ‖d‖,

and d is the direction of the largest change: the dominant eigenvector of the matrix H of second derivatives of
KL(p(y | x) ‖ p(y | x + r)) at r = 0, found by power iteration d ← H d from random noise (Miyato, Maeda, Koyama, Ishii
2018, https://arxiv.org/abs/1704.03976, eq. 5 to 11). The loss is −log p(y | x) of the labelled examples + α R(x), with
the entropy of p(y | x) if it is wanted (VAT + EntMin).

The paper finds H d as a difference quotient with ξ = 1e-6, which rounding makes 0 in bfloat16. Here it is exact: at
r = 0, H = Jᵀ F J with the Jacobian J of the logits, and F = diag p − p pᵀ. J d comes with the forward pass that
predicts (`unsup.nn.tangents`), and Jᵀ v from its backward pass.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import torch
from torch import Generator, Tensor

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Weight, Within
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.backbones import BackboneName
from unsup.nn.few_labels import FewLabels, grouped
from unsup.nn.norm import averages_kept
from unsup.nn.tangents import pushed
from unsup.prob.consistency import divergence, entropy, fisher_product, scaled_to


class VAT(FewLabels):
    """Virtual adversarial training (Miyato et al. 2018, https://arxiv.org/abs/1704.03976).

    The terms are ``cross_entropy`` of the labelled examples; ``vat``, R of the unlabelled ones; ``entropy`` of their
    predictions; and ``accuracy``. Batch normalisation takes the statistics of each pass, and its running averages
    follow those of clean examples only.

    Args:
        event: images of levels, or any other examples with ``net="mlp"``.
        classes: K, the number of classes.
        net: the network before the last layer.
        width: a factor of its numbers of channels.
        epsilon: ε, the norm of r; of images with pixels from 0 to 1, of other examples in their standardised features.
        alpha: the weight of R.
        entropy: the weight of the entropy.
        iterations: K of the power iteration.
        unlabelled: number of unlabelled examples for each labelled one.

    Raises:
        InputError: images that are too small for the network, or examples that are not images in another than ``mlp``.

    >>> import torch
    >>> from unsup.core.event import Support
    >>> model = VAT(Event((4,), Support("binary")), classes=3, width=0.02)
    >>> model.predict_proba(torch.zeros(2, 4, dtype=torch.uint8)).shape
    torch.Size([2, 3])
    """

    presets = {
        "tiny": {"width": 0.01},
        "paper": {"classes": 10, "net": "conv-large", "epsilon": 10.0, "entropy": 1.0, "unlabelled": 4},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100}

    def __init__(
        self,
        event: Event,
        *,
        classes: Count = 2,
        net: BackboneName = "mlp",
        width: Positive = 1.0,
        epsilon: Positive = 1.0,
        alpha: Weight = 1.0,
        entropy: Weight = 0.0,
        iterations: Annotated[int, Within(1, 100)] = 1,
        unlabelled: Count = 2,
    ) -> None:
        self.take(event, classes, net, width)
        self.epsilon, self.alpha, self.entropy, self.iterations = epsilon, alpha, entropy, iterations
        self.streams = {"unlabelled": unlabelled}

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The loss and its terms, one number for each labelled example."""
        labelled, terms = self.labelled_terms(self.logits(self.inputs(batch.x)), batch.label)
        h = self.inputs(batch["unlabelled"].x)
        logits, direction = self.direction(h, random.normal(h.shape, generator, like=h))
        with averages_kept():
            moved = self.logits(h + scaled_to(direction, self.epsilon).to(h.dtype))
        told = logits if self.entropy else logits.detach()  # no backward pass for what has no weight
        each = {"vat": divergence(logits.detach(), moved), "entropy": entropy(told)}
        vat, spread = (grouped(value, len(batch)) for value in each.values())
        loss: Tensor = labelled + self.alpha * vat + self.entropy * spread
        return {"loss": loss, **terms, "vat": vat, "entropy": spread}

    def direction(self, h: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of inputs ``h``, and the direction of r from a start: both ``(B, C, H, W)``.

        H d is that of the sum of all KL: with batch statistics, an example changes the predictions of its neighbours
        too. The length of the direction has no meaning.
        """
        x, d, first = h.detach().requires_grad_(), start, None
        for _ in range(self.iterations):
            with torch.enable_grad(), averages_kept() if first is not None else nullcontext():
                logits, change = pushed(self.head, *pushed(self.backbone, x, scaled_to(d, 1.0).to(h.dtype)))
            v = fisher_product(logits.detach(), change).to(logits.dtype)
            (d,) = torch.autograd.grad(logits, x, v, retain_graph=first is None)
            first = logits if first is None else first
        assert first is not None
        return first, d
