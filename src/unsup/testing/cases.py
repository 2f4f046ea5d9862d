"""Every registry name at tiny size: the events, options and data on which its laws are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.core.model import Model, Translates, keyed_generator
from unsup.core.part import Part
from unsup.core.registry import create, model_class, row
from unsup.testing.check import MOST_EXAMPLES, Report, check_model
from unsup.testing.subject import Oracle


@dataclass(frozen=True)
class Case:
    """One model at tiny size.

    Attributes:
        model: its registry name.
        event: what one example is.
        options: over the preset ``tiny``.
        classes: of the labels of the data; 0 for data without labels.
        exceptions: laws that do not hold for this case, each with its reason.
        oracle: log p(x) of the model by another way, ``oracle(model, x)``.
    """

    model: str
    event: Event
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 0
    exceptions: Mapping[str, str] = field(default_factory=dict)
    oracle: Oracle | None = None

    def build(self, seed: int = 0) -> Model:
        return create(self.model, self.event, preset="tiny", seed=seed, **self.options)

    def data(self, seed: int = 0) -> Batch:
        found = examples(self.event, MOST_EXAMPLES, classes=self.classes, seed=seed)
        if issubclass(model_class(self.model), Translates):
            return replace(found, streams={"domain_b": examples(self.event, MOST_EXAMPLES, seed=seed + 1)})
        return found

    def check(self, *, laws: tuple[str, ...] | None = None, seed: int = 0) -> Report:
        return check_model(
            self.build(seed),
            self.data(seed),
            laws=laws,
            seed=seed,
            exceptions=self.exceptions,
            oracle=self.oracle,
            title=str(self),
        )

    def __str__(self) -> str:
        options = ", ".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.model}({options}) on {self.event}"


def examples(event: Event, n: int, *, classes: int = 0, seed: int = 0) -> Batch:
    """Examples of any event from a seeded distribution with dependent, skewed, two-humped entries.

    Two Gaussian factors and a class effect are mixed into every entry; real entries get a location and a scale of
    their own, discrete ones are cut into levels. Where there are classes they are the labels, and what is given.
    """
    generator = keyed_generator(seed, n)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    dims = event.dims
    factors, label = normal(n, 2), torch.randint(max(classes, 1), (n,), generator=generator)
    y = factors @ normal(2, dims) + factors[:, :1].sign() + 0.5 * normal(n, dims) + normal(max(classes, 1), dims)[label]
    location, scale = normal(dims), (0.5 * normal(dims)).exp()
    columns = []
    for d, support in enumerate(event.columns):
        if support.is_discrete:
            unit = torch.special.ndtr(y[:, d] / y[:, d].std())
            columns.append((unit * support.levels).floor().clamp(max=support.levels - 1) + support.low)
        else:
            columns.append(3 * location[d] + scale[d] * y[:, d])
    x = torch.stack(columns, 1).view(n, *event.shape).to(event.dtype)
    return Batch(x, label, label) if classes else Batch(x)


def vector(dims: int, support: Support = BINARY) -> Event:
    return Event((dims,), support)


def _ordinal(levels: int) -> Support:
    return Support("ordinal", levels)


_MIXED = Event((3,), (REAL, Support("ordinal", 4), BINARY))
_BATCH_NORM = {"accumulation": "batch statistics are those of the part at hand"}
_HISTORY = {"accumulation": "the history is exchanged with one part after the other"}
_LEAK = {"bound-tight": "uniform noise lets mass fall outside the first and last level, where samples are clamped"}
_PARTS = {"accumulation": "the statistics of a batch that is computed in parts are those of each part"}

_CASES: Mapping[str, tuple[Case, ...]] = {
    "cyclegan": (
        Case("cyclegan", Event((3, 8, 8), _ordinal(256)), exceptions=_HISTORY),
        Case("cyclegan", Event((1, 8, 12), BINARY), {"identity": 0.0, "pool": 0}),
        Case(
            "cyclegan",
            Event((2, 8, 8), Support("ordinal", 5, low=-2)),
            {"widths": (6,), "critic_widths": (6,)},
            exceptions=_HISTORY,
        ),
    ),
    "histogram": (
        Case("histogram", vector(9)),
        Case("histogram", vector(4, Support("nominal", 3)), {"joint": "never"}),
        Case("histogram", vector(3, _ordinal(4)), {"joint": "always", "smoothing": 0.5}),
        Case("histogram", vector(1, REAL)),
        Case("histogram", _MIXED, {"bins": 4}),
        Case("histogram", _MIXED, {"joint": "never"}),
    ),
    "gaussian-mixture": (
        Case("gaussian-mixture", vector(2, REAL)),
        Case("gaussian-mixture", vector(2, REAL), {"covariance": "diagonal"}),
        Case("gaussian-mixture", vector(2, REAL), {"covariance": "tied"}),
        Case("gaussian-mixture", vector(2, REAL), {"learn": "gradient"}),
        Case("gaussian-mixture", vector(4, REAL), {"learn": "gradient", "covariance": "tied"}),
        Case("gaussian-mixture", Event((1, 2, 2), _ordinal(4))),
        Case("gaussian-mixture", _MIXED, {"covariance": "diagonal"}),
    ),
    "bernoulli-mixture": (
        Case("bernoulli-mixture", vector(6)),
        Case("bernoulli-mixture", vector(6), {"smoothing": 0.0, "components": 4}),
        Case("bernoulli-mixture", Event((1, 2, 3), BINARY), {"smoothing": 1.0}),
        Case("bernoulli-mixture", vector(5), {"learn": "gradient"}),
    ),
    "made": (
        Case("made", vector(9)),
        Case("made", vector(6), {"hidden": (24, 24), "masks": 3, "order": "random"}),
        Case("made", vector(6), {"direct": False, "hidden": (48,)}),
        Case("made", vector(4, Support("nominal", 3))),
        Case("made", vector(3, _ordinal(17)), {"masks": 2}),
        Case("made", vector(2, Support("ordinal", 40, low=-5))),
        Case("made", Event((1, 2, 2), BINARY), {"order": "random"}),
        Case("made", vector(1, REAL), exceptions={"gradients": "one dimension has no earlier one to connect to"}),
        Case("made", vector(2, REAL)),
        Case("made", vector(3, REAL), {"masks": 2, "order": "random"}),
        Case("made", _MIXED, exceptions=_LEAK),
    ),
    "pixelcnn": (
        Case("pixelcnn", Event((1, 3, 3), BINARY)),
        Case("pixelcnn", Event((3, 2, 2), BINARY)),
        Case("pixelcnn", Event((1, 2, 2), _ordinal(4))),
        Case("pixelcnn", Event((2, 2, 2), Support("nominal", 3))),
        Case("pixelcnn", Event((1, 6, 6), BINARY), {"kernel": 3}),
        Case("pixelcnn", Event((1, 2, 3), BINARY), {"given": labels(3)}, classes=3),
    ),
    "nice": (
        Case("nice", vector(2, REAL)),
        Case("nice", vector(5, REAL), {"layers": 3, "base": "gaussian"}),
        Case("nice", vector(3, _ordinal(4))),
        Case("nice", _MIXED),
        Case("nice", Event((1, 2, 2), _ordinal(3)), {"base": "gaussian"}),
        Case("nice", Event((2, 3, 2), REAL)),
    ),
    "gated-pixelcnn": (
        Case("gated-pixelcnn", Event((1, 3, 3), BINARY)),
        Case("gated-pixelcnn", Event((3, 2, 2), BINARY)),
        Case("gated-pixelcnn", Event((1, 2, 2), _ordinal(4)), {"kernel": 5}),
        Case("gated-pixelcnn", Event((2, 2, 2), Support("nominal", 3))),
        Case("gated-pixelcnn", Event((1, 5, 6), BINARY), {"layers": 1}),
        Case("gated-pixelcnn", Event((2, 2, 2), BINARY), {"given": labels(3)}, classes=3),
    ),
    "realnvp": (
        Case("realnvp", vector(2, REAL)),
        Case("realnvp", vector(5, REAL), {"layers": 3}),
        Case("realnvp", vector(3, _ordinal(4))),
        Case("realnvp", _MIXED),
        Case("realnvp", Event((1, 4, 4), _ordinal(4)), exceptions=_PARTS),
        Case("realnvp", Event((3, 4, 4), REAL), {"scales": 2}, exceptions=_PARTS),
        Case("realnvp", Event((1, 2, 2), _ordinal(3)), exceptions=_PARTS),
    ),
    "vae": (
        Case("vae", vector(6), {"latent_dim": 2}),
        Case("vae", vector(6), {"latent_dim": 2, "samples": 5}),
        Case("vae", vector(6), {"latent_dim": 2, "samples": 5, "gradient": "dreg"}),
        Case("vae", vector(2, REAL), {"latent_dim": 1, "hidden": ()}),
        Case("vae", vector(3, Support("nominal", 3)), {"latent_dim": 2}),
        Case("vae", vector(3, _ordinal(4)), {"latent_dim": 2}),
        Case("vae", Event((1, 8, 8), BINARY), {"net": "conv", "hidden": (4, 8)}),
        Case("vae", _MIXED, {"latent_dim": 2}, exceptions=_LEAK),
        Case("vae", vector(5), {"latent_dim": 2, "prior": Part("made", {"hidden": (12,), "components": 3})}),
        Case("vae", vector(4), {"latent_dim": 1, "gradient": "stl"}),
        Case("vae", vector(4), {"latent_dim": 1, "given": labels(3)}, classes=3),
        Case("vae", Event((1, 4, 4), BINARY), {"net": "conv", "hidden": (4,), "given": labels(2)}, classes=2),
    ),
    "ebm": (
        Case("ebm", vector(2, REAL)),
        Case(
            "ebm",
            vector(2, REAL),
            {"start": "data", "regularizer": 0.1},
            exceptions={"gaussian-score": "the regularizer draws energies to 0, away from those of the likelihood"},
        ),
        Case("ebm", vector(2, REAL), {"start": "noise"}),
        Case("ebm", Event((1, 4, 4), _ordinal(17)), {"hidden": (4, 4)}),
        Case("ebm", _MIXED),
    ),
    "rbm": (
        Case("rbm", vector(6)),
        Case("rbm", vector(6), {"persistent": False, "steps": 2, "centred": False}),
        Case("rbm", Event((1, 2, 3), BINARY), {"hidden": 9, "steps": 3, "chains": 16}),
        Case("rbm", Event((1, 5, 5), BINARY), {"hidden": 5}),
    ),
    "score-matching": (
        Case("score-matching", vector(2, REAL), {"method": "exact"}),
        Case("score-matching", vector(3, REAL), {"method": "sliced", "slices": 2}),
        Case(
            "score-matching",
            vector(2, REAL),
            {"sigma": 1.0},
            exceptions={"gaussian-score": "the score is that of data with noise of variance 1, −x/2"},
        ),
        Case("score-matching", Event((1, 4, 4), _ordinal(17)), {"hidden": (4,), "sigma": 0.3}),
        Case("score-matching", _MIXED, {"sigma": 0.3}),
    ),
    "gan": (
        Case("gan", vector(2, REAL)),
        Case("gan", vector(2, REAL), {"loss": "minimax", "smoothing": 0.1}),
        Case("gan", vector(4, REAL), {"loss": "wgan"}),
        Case("gan", vector(2, REAL), {"loss": "wgan-gp", "packing": 2}),
        Case("gan", vector(6), {"loss": "hinge", "critic_norm": "spectral"}),
        Case("gan", vector(3, _ordinal(4)), {"critic_norm": "batch"}, exceptions=_BATCH_NORM),
        Case("gan", _MIXED, {"loss": "least-squares", "r1": 1.0, "packing": 2}),
        Case("gan", Event((1, 8, 8), _ordinal(17)), exceptions=_BATCH_NORM),
        Case(
            "gan",
            Event((2, 8, 9), REAL),
            {"net": "resnet", "loss": "hinge", "packing": 2},
            exceptions={"gradients": "SNGAN's generator has biases that the batch norm after them cancels"},
        ),
        Case("gan", Event((1, 9, 8), BINARY), {"net": "dcgan", "r1": 1.0}, exceptions=_BATCH_NORM),
        Case("gan", vector(2, REAL), {"given": labels(3)}, classes=3),
        Case("gan", vector(2, REAL), {"loss": "wgan-gp", "packing": 2, "given": labels(3)}, classes=3),
        Case("gan", Event((1, 8, 8), BINARY), {"r1": 1.0, "given": labels(2)}, classes=2, exceptions=_BATCH_NORM),
    ),
}


def law_cases(name: str) -> tuple[Case, ...]:
    """The tiny cases of a registry name.

    Raises:
        InputError: there is no such model.
    """
    return _CASES[row(name).name]


def check_registry_name(name: str, *, laws: tuple[str, ...] | None = None, seed: int = 0) -> tuple[Report, ...]:
    """Every law, or those named, on every tiny case of a registry name.

    >>> all(report.ok for report in check_registry_name("made", laws=("normalised",)))
    True
    """
    return tuple(case.check(laws=laws, seed=seed) for case in law_cases(name))
