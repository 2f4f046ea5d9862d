"""The contracts every model keeps: `Model`, what it can do, and who minimises what."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch
from unsup.core.config import normalise_options
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.likelihood import Kind

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Objective:
    """One player's loss and the parameters that minimise it.

    Attributes:
        name: shown in logs, e.g. ``"critic"``.
        loss: ``loss(batch, generator=...)`` → named scalars; ``"loss"`` is minimised.
        parameters: the tensors its optimizer moves, no others.
        repeats: updates in a row within one step.
        every: the objective acts on steps divisible by this.
        optimizer: settings of this player that override the run's: ``lr``, ``betas``, ``eps``, ``weight_decay``.
        after: called after each of this player's updates, every repeat included: clipping of weights.
    """

    name: str
    loss: Callable[..., Terms]
    parameters: tuple[nn.Parameter, ...]
    repeats: int = 1
    every: int = 1
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    after: Callable[[], None] | None = None


@dataclass(frozen=True)
class Symptom:
    """Something that goes wrong while training, though every number is finite.

    Attributes:
        name: e.g. ``"collapse"``; a symptom is said when it appears, and again only after it had gone.
        advice: what was seen, with its numbers, and what to try.
    """

    name: str
    advice: str


class Model(nn.Module, ABC):
    """A model of one event. Subclasses are final; their keyword-only constructor arguments are their configuration.

    The constructor takes the `Event` first and simple typed keyword-only options after it. The base class checks
    and records them, so ``type(model)(model.event, **model.config)`` is the same model with fresh parameters.

    Class attributes:
        presets: option sets by name: ``tiny`` (for tests) and ``paper`` (the paper's architecture exactly).
        fit_defaults: the settings of `unsup.fit` that suit the model, where they differ from the trainer's. A model
            whose options change them sets ``self.fit_defaults`` in its constructor.
        autocast: whether the loss may run under bfloat16 autocast (its own sums stay in float32).
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    fit_defaults: Mapping[str, Any] = {}
    autocast: ClassVar[bool] = True

    event: Event
    config: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" not in cls.__dict__:
            return
        original = cls.__init__

        @functools.wraps(original)
        def init(self: Model, event: Event, **options: Any) -> None:
            if next(c for c in type(self).__mro__ if "__init__" in c.__dict__) is not cls:  # called by a subclass's own
                original(self, event, **options)
                return
            cls.check_event(event)
            config = normalise_options(cls.__name__, original, options)
            nn.Module.__init__(self)
            self.event, self.config = event, config
            original(self, event, **config)

        cls.__init__ = init  # type: ignore[method-assign,assignment]

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        """Why this model cannot take ``event`` (one clause, e.g. "takes images only"), or None when it can."""
        return None

    @classmethod
    def check_event(cls, event: Event) -> None:
        """Raise `InputError` when the model does not take ``event``."""
        reason = cls.reason_against(event)
        if reason is not None:
            raise InputError(f"{cls.__name__} {reason}; this data is {event}")

    @abstractmethod
    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Named scalars of one batch, means over its examples; ``"loss"`` is what training minimises."""

    def objectives(self) -> tuple[Objective, ...]:
        """Who minimises what. The default is one player that owns every parameter."""
        return (Objective("model", self.loss, tuple(self.parameters())),)

    def prepare(self, x: Tensor, label: Tensor | None, *, generator: Generator) -> None:
        """Data-dependent initialisation from training examples ``(N, *event.shape)``; called once before step 1."""

    def after_step(self, step: int) -> None:
        """Called after every step: teachers, queues, clipping."""

    def averaged(self) -> tuple[nn.Module, ...]:
        """The modules whose parameters an average over steps (``ema``) is kept of. The default is all of the model."""
        return (self,)

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        """What the terms, averaged over the latest log points, say is going wrong; None when nothing is.

        With several objectives the names are ``objective/term``, as in the log.
        """
        return None

    @property
    def device(self) -> torch.device:
        return next(self._tensors()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating type the model computes in."""
        return next(t for t in self._tensors() if t.is_floating_point()).dtype

    def _tensors(self) -> Iterator[Tensor]:
        yield from self.parameters()
        yield from self.buffers()

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def save(self, folder: str) -> None:
        """Write ``config.json``, ``model.safetensors`` and a ``README.md`` card to ``folder``."""
        from unsup.core.storage import save_model

        save_model(self, folder)


class HasDensity(ABC):
    """The model gives a log-likelihood of raw data."""

    @property
    def likelihood_kind(self) -> Kind:
        """What `log_prob` returns. ``exact`` unless a model says otherwise."""
        return "exact"

    @abstractmethod
    def log_prob(self, x: Tensor, *, samples: int = 1, generator: Generator | None = None) -> Tensor:
        """log p(x), or the bound on it, of raw data in nats: ``(B, *event.shape)`` → ``(B,)``.

        Args:
            x: raw data in the event's support.
            samples: importance samples per example where the model is a bound; exact models do not use it.
            generator: of the noise behind a bound; exact models do not use it.
        """


class HasEnergy(ABC):
    """p(x) = exp(−E(x)) / Z, where Z need not be known."""

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:
        """E(x) of raw data: ``(B, *event.shape)`` → ``(B,)``. Differences are in nats; the zero is arbitrary."""


class HasScore(ABC):
    """The model gives the gradient of its log-density on continuous raw data."""

    @abstractmethod
    def score(self, x: Tensor) -> Tensor:
        """∇ₓ log p(x) = −∇ₓE(x), per unit of raw data: ``(B, *event.shape)`` → the same shape, floating."""


class HasPartition(HasEnergy, HasDensity):
    """log p(x) = −E(x) − log Z with a log Z that takes work: enumeration, annealed importance sampling, quadrature.

    `estimate_log_partition` does the work and stores the outcome in buffers of the model; `log_prob` uses it and raises
    `CapabilityError` when there is none, or the parameters have moved since.
    """

    @abstractmethod
    def estimate_log_partition(self, *, effort: int = 1, generator: Generator | None = None) -> tuple[float, float]:
        """Find log Z and its standard error (0 where it is exact), and keep both for `log_prob`.

        Args:
            effort: 1 is what training watches; the work grows in proportion.
        """

    @property
    @abstractmethod
    def log_partition_error(self) -> float:
        """Standard error of the log Z in use, in nats."""


class Translates(ABC):
    """The model maps examples of domain a to domain b and back."""

    @abstractmethod
    def translate(self, x: Tensor, *, to: Literal["a", "b"]) -> Tensor:
        """Raw examples of the other domain → raw examples of domain ``to``: ``(B, *event.shape)``, ``event.dtype``."""


class CanSample(ABC):
    """The model draws new examples."""

    @abstractmethod
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """``n`` examples ``(n, *event.shape)`` in raw units and of type ``event.dtype``."""


class CanTemper(CanSample):
    """Sampling has a temperature: 1 is the model, below 1 is nearer its modes."""

    @abstractmethod
    def sample(self, n: int, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor: ...


class CanEncode(ABC):
    """The model maps examples to features."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Deterministic features of raw data: ``(B, *event.shape)`` → ``(B, F)``."""


class CanDecode(CanEncode):
    """The model maps features back to examples."""

    @property
    @abstractmethod
    def code_size(self) -> int:
        """F, the numbers in one code."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The most typical raw example of each code: ``(B, F)`` → ``(B, *event.shape)``, type ``event.dtype``."""


class CanComplete(ABC):
    """The model fills in the unknown part of an example from its conditional distribution."""

    @abstractmethod
    def complete(self, x: Tensor, known: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Draw the entries where ``known`` (bool, shape of ``x``) is False given the others."""


class IsConditional(ABC):
    """The model can be asked about, and drawn from, one class at a time. ``classes`` is 0 when built without labels."""

    classes: int

    @abstractmethod
    def log_prob_given(self, x: Tensor, label: Tensor) -> Tensor:
        """log p(x | label) in nats: ``(B, *event.shape)``, ``(B,)`` → ``(B,)``."""

    @abstractmethod
    def sample_given(self, label: Tensor, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        """One example of each class number in ``label`` ``(B,)``."""


class Factorises(HasDensity):
    """log p(x) = Σ_d log p(x_d | the entries before it), with every term at hand."""

    @abstractmethod
    def log_conditionals(self, x: Tensor, *, generator: Generator | None = None) -> Tensor | None:
        """log p of each flattened entry given those before it, in nats: ``(B, *event.shape)`` → ``(B, D)``.

        A row sums to `log_prob` with one sample and the same noise; of a bound these are the terms of the bound. None
        where log p is no such sum: a mixture over different orders, in which no one entry comes first.
        """


class IsAutoregressive(Factorises, CanTemper):
    """log p(x) = Σᵢ log p(x_i | x_<i) in a known order, with every conditional available at once."""

    @property
    @abstractmethod
    def orders(self) -> Tensor:
        """``(M, D)`` int64: position in the factorisation of each flattened dimension, one row a mixture component."""

    @abstractmethod
    def conditionals(self, x: Tensor, *, order: int = 0) -> Tensor:
        """Parameters of every conditional: ``(B, *event.shape)`` → ``(B, D, P)``.

        A floating ``x`` between the levels gives derivatives: [b, i] depends on x[b, j] only where j comes before i.
        Real entries are in raw units with their noise already added.
        """

    def blind_spot(self, *, order: int = 0) -> Tensor:
        """``(D, D)`` bool: [i, j] is True where conditional i ignores an earlier dimension j by design."""
        dims = self.orders.shape[1]
        return torch.zeros(dims, dims, dtype=torch.bool)

    @abstractmethod
    def sample_naive(self, n: int, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        """`sample` by one full pass for each dimension: the slow reference."""


class IsFlow(HasDensity, CanTemper, CanDecode):
    """An invertible map between continuous raw data and a base distribution."""

    @abstractmethod
    def transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Continuous raw data (noise already added to discrete entries) → z ``(B, D)`` and log|det dz/dx| ``(B,)``."""

    @abstractmethod
    def invert(self, z: Tensor) -> Tensor:
        """The inverse of `transform`: ``(B, D)`` → continuous raw data ``(B, *event.shape)``."""

    def base_log_prob(self, z: Tensor) -> Tensor:
        """Log-density of the base distribution, ``(B, D)`` → ``(B,)``; N(0, I) unless a model says otherwise."""
        return -0.5 * (z**2 + math.log(2 * math.pi)).sum(1)


class LearnsByCounting(ABC):
    """The model learns from sums over the data (counting, EM) instead of gradients."""

    @property
    @abstractmethod
    def passes(self) -> int:
        """The most passes over the data; 0 means that the model is to be trained by gradients."""

    @property
    def tolerance(self) -> float:
        """Stop when a pass raises the mean log-likelihood by less than this many nats."""
        return 0.0

    @abstractmethod
    def statistics(self, batch: Batch, *, generator: Generator | None = None) -> dict[str, Tensor]:
        """Sums over the batch (they add up over batches and processes), with ``count`` and, for EM, ``log_prob``."""

    @abstractmethod
    def maximize(self, statistics: Mapping[str, Tensor]) -> None:
        """Set the parameters from the sums over all data."""


def keyed_generator(seed: int, *position: int, device: torch.device | str = "cpu") -> Generator:
    """A generator keyed by ``(seed, *position)``: the same key gives the same noise whatever was drawn before.

    >>> a, b = keyed_generator(0, 3), keyed_generator(0, 3)
    >>> bool((torch.rand(2, generator=a) == torch.rand(2, generator=b)).all())
    True
    """
    key = seed & 0xFFFFFFFFFFFFFFFF
    for number in position:
        key = _mix(key ^ _mix(number + 0x9E3779B97F4A7C15))
    return Generator(device=device).manual_seed(key & 0x7FFFFFFFFFFFFFFF)


def _mix(key: int) -> int:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014)."""
    mask = 0xFFFFFFFFFFFFFFFF
    key = ((key & mask) ^ ((key & mask) >> 30)) * 0xBF58476D1CE4E5B9 & mask
    key = (key ^ (key >> 27)) * 0x94D049BB133111EB & mask
    return key ^ (key >> 31)
