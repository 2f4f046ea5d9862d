"""Features by which samples are judged: from raw examples to points ``(N, D)`` and, where there are classes, logits.

``grey`` and ``colour`` are small convolutional classifiers shipped with the library (`unsup.train.extractors` trains
them): features are the last layer's ReLU averaged over positions. ``raw`` is the data itself, standardised with the
training split. ``inception`` is the Inception network of the published figures, from the extra ``metrics``. A number
holds for one extractor only, so each carries a name and a digest.
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, one_hot, pad

from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event, Support
from unsup.core.machine import fast_cpu
from unsup.core.storage import load_tensors

SIDE = 32
CHUNK = 500
"""Examples in one pass through an extractor."""
PLANS: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {
    "grey": (1, ((32, 2), (64, 2), (96, 1), (128, 2), (128, 1))),
    "colour": (3, ((32, 1), (64, 2), (96, 2), (128, 1), (128, 2))),
}
"""Channels of the image, then (channels, stride) of each 3×3 convolution."""
_MOST_COLUMNS = 4096  # of raw features: the covariance of more takes minutes
NAMES = ("auto", *PLANS, "raw", "inception")


@dataclass(frozen=True, eq=False)
class Features:
    """One pass over a set of examples.

    Attributes:
        points: ``(N, D)``, float32, on the CPU.
        logits: ``(N, K)``, float32, of the extractor's classes; None where it has none.
    """

    points: Tensor
    logits: Tensor | None

    def __len__(self) -> int:
        return len(self.points)


class Extractor(ABC):
    """Maps raw examples of one event to features.

    Attributes:
        name: what ``--extractor`` calls it.
        digest: SHA-256 of what the features depend on besides the examples.
        input: how an example is brought to the extractor, in words.
    """

    name: str
    digest: str
    input: str

    @abstractmethod
    def compute(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Points ``(B, D)`` and logits ``(B, K)``, or None, of raw examples ``(B, *event.shape)``."""

    @torch.no_grad()
    def __call__(self, x: Tensor, *, on_chunk: Callable[[int], None] | None = None) -> Features:
        """Features of raw examples ``(N, *event.shape)``; ``on_chunk`` is told how many more are done."""
        points, logits = [], []
        with fast_cpu(torch.device("cpu")):
            for chunk in x.split(CHUNK):
                p, q = self.compute(chunk.cpu())
                points.append(p.float())
                if q is not None:
                    logits.append(q.float())
                if on_chunk is not None:
                    on_chunk(len(chunk))
        return Features(torch.cat(points), torch.cat(logits) if logits else None)


class ConvNet(nn.Module):
    """3×3 convolutions with ReLU, the mean over positions, one linear layer: ``(B, C, 32, 32)`` → points, logits."""

    def __init__(self, channels: int, plan: tuple[tuple[int, int], ...], classes: int) -> None:
        super().__init__()
        sizes = (channels, *(width for width, _ in plan))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(sizes[i], width, 3, stride, padding=1) for i, (width, stride) in enumerate(plan)
        )
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for convolution in self.convolutions:
            x = convolution(x).relu()
        points = x.mean((2, 3))  # (B, D)
        return points, self.head(points)


class ConvExtractor(Extractor):
    """``grey`` or ``colour``: the shipped weights, held as float16 and computed in float32."""

    input = "levels to [0, 1], centred on a black square, then bilinear with antialiasing to 32×32 unless within 25…32"

    def __init__(self, name: str, event: Event, span: tuple[float, float], weights: Path | None = None) -> None:
        path = weights or weights_path(name)
        tensors, self.record = load_tensors(path)
        channels, plan = PLANS[name]
        if not event.is_image or event.shape[0] not in {1, channels}:
            raise InputError(
                f"the extractor {name!r} takes images of {channels} channel{'s' * (channels > 1)}; this data is {event}"
                "; leave the extractor out, or give 'raw'"
            )
        self.name, self.digest = name, hashlib.sha256(path.read_bytes()).hexdigest()
        self.classes: tuple[str, ...] = tuple(self.record["classes"])
        self.channels, self.span = channels, span
        self.net = ConvNet(channels, plan, len(self.classes))
        self.net.load_state_dict({k: v.float() for k, v in tensors.items()})
        self.net.eval()

    def compute(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        square = to_square(to_unit(x, self.span))
        points, logits = self.net(square.expand(-1, self.channels, -1, -1))
        return points, logits


class RawExtractor(Extractor):
    """The flattened data, standardised with the training split; categories become one column each.

    Constant columns are centred only.
    """

    name = "raw"
    input = "flattened, categories as indicators, each column standardised with the training split"

    def __init__(self, event: Event, train: Tensor) -> None:
        self.event = event
        if (size := sum(s.levels if s.kind == "nominal" else 1 for s in event.columns)) > _MOST_COLUMNS:
            raise InputError(
                f"the extractor 'raw' would make {size:,} columns of {event}; expected at most {_MOST_COLUMNS:,}"
            )
        flat = torch.cat([self._columns(part) for part in train.split(CHUNK)])
        self.mean, std = flat.mean(0), flat.std(0, correction=0)
        self.std = torch.where(std > 0, std, torch.ones_like(std))
        self.digest = hashlib.sha256(torch.stack([self.mean, self.std]).numpy().tobytes()).hexdigest()

    def compute(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return (self._columns(x) - self.mean) / self.std, None

    def _columns(self, x: Tensor) -> Tensor:
        """``(B, *event.shape)`` → ``(B, D)``, float64."""
        flat = x.flatten(1)
        if all(s.kind != "nominal" for s in set(self.event.columns)):
            return flat.double()
        columns = [
            one_hot(flat[:, d].long(), s.levels) if s.kind == "nominal" else flat[:, d : d + 1]
            for d, s in enumerate(self.event.columns)
        ]
        return torch.cat([c.double() for c in columns], 1)


class InceptionExtractor(Extractor):
    """The 2048 pool features and the logits without bias of the TF-2015 Inception network, through torch-fidelity."""

    name = "inception"
    input = "levels to 0…255 by rounding, grey repeated thrice, TF1 bilinear to 299×299 by torch-fidelity"

    def __init__(self, event: Event, span: tuple[float, float]) -> None:
        if not event.is_image or event.shape[0] not in {1, 3}:
            raise InputError(f"the extractor 'inception' takes grey or colour images; this data is {event}; give 'raw'")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except (ImportError, RuntimeError, AttributeError) as error:  # torchvision of another torch raises the latter
            reason = " ".join(str(error).split())
            raise CapabilityError(
                f"the extractor 'inception' needs the extra metrics ({reason}); install it with pip install "
                "'unsup[metrics]', or leave the extractor out"
            ) from error
        self.span = span
        try:
            self.net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
        except OSError as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"the weights of the extractor 'inception' cannot be downloaded ({reason}); go online once, or leave "
                "the extractor out"
            ) from error
        self.digest = digest_of(self.net.state_dict())

    def compute(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        levels = (255 * to_unit(x, self.span)).round().to(torch.uint8).expand(-1, 3, -1, -1)
        points, logits = self.net(levels)
        return points, logits


def choose_extractor(name: str, event: Event, train: Tensor) -> Extractor:
    """The extractor called ``name`` for raw data like ``train`` ``(N, *event.shape)``.

    ``auto`` is ``grey`` for images of one channel, ``colour`` for three, ``raw`` for all else.

    Raises:
        InputError: an unknown name, or one that does not take this data.
        CapabilityError: ``inception`` without its extra.

    >>> from unsup import load_data
    >>> moons = load_data("moons", n=100)
    >>> extractor = choose_extractor("auto", moons.event, moons.train.x)
    >>> extractor.name, tuple(extractor(moons.train.x).points.shape)
    ('raw', (100, 2))
    """
    if name == "auto":
        channels = event.shape[0] if event.is_image else 0
        name = {1: "grey", 3: "colour"}.get(channels, "raw")
    if name in PLANS:
        return ConvExtractor(name, event, span_of(event, train))
    if name == "raw":
        return RawExtractor(event, train)
    if name == "inception":
        return InceptionExtractor(event, span_of(event, train))
    raise InputError(f"there is no extractor {name!r}; known: {', '.join(NAMES)}")


def weights_path(name: str) -> Path:
    """Where the shipped weights of ``grey`` or ``colour`` lie."""
    return Path(str(resources.files("unsup.evaluate"))) / "weights" / f"{name}.safetensors"


def span_of(event: Event, train: Tensor) -> tuple[float, float]:
    """The values that become black and white: the ends of the support, or of the training data where it is real."""
    support = event.uniform
    if support is None or not support.is_discrete:
        return float(train.min()), float(train.max())
    return float(support.low), float(support.low + support.levels - 1)


def to_unit(x: Tensor, span: tuple[float, float]) -> Tensor:
    """Raw values to [0, 1]; what lies outside ``span`` is clamped."""
    low, high = span
    return ((x.float() - low) / max(high - low, 1e-12)).clamp(0, 1)


def to_square(x: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` in [0, 1] → ``(B, C, 32, 32)``.

    An image is centred on a black square of its longer side, or of 32 where that is 25 to 32; any other size is then
    resized, bilinear with antialiasing.

    >>> to_square(torch.ones(1, 1, 28, 28)).sum().item()
    784.0
    """
    longer = max(x.shape[2:])
    side = SIDE if 25 <= longer <= SIDE else longer
    down, right = side - x.shape[2], side - x.shape[3]
    x = pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
    if side == SIDE:
        return x
    return interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@functools.cache
def digit_reader() -> ConvExtractor:
    """The extractor ``grey`` for grey levels 0…255; its first ten classes are MNIST's digits."""
    return ConvExtractor("grey", Event((1, 28, 28), Support("ordinal", 256)), (0.0, 255.0))


def read_digits(x: Tensor, *, on_chunk: Callable[[int], None] | None = None) -> Tensor:
    """The digit that each grey image ``(N, 1, H, W)`` of levels 0…255 shows most likely: int64 ``(N,)``."""
    logits = digit_reader()(x, on_chunk=on_chunk).logits
    assert logits is not None
    return logits[:, :10].argmax(1)
