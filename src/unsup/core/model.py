"""The contracts every model keeps: `Model`, what it can do, and who minimises what."""

from __future__ import annotations

import functools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch, Time
from unsup.core.config import check_value, normalise_options, options_of
from unsup.core.errors import CapabilityError, InputError, nearest
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.random import keyed_generator as keyed_generator  # its home; many import it from here
from unsup.core.random import uniform

Terms = dict[str, Tensor]
"""Named numbers of one batch: ``(B,)``, one an example, or ``()``, a mean over the batch or of none of it."""


def reduced(terms: Terms, weight: Tensor | None = None, share: float = 1.0, total: float | None = None) -> Terms:
    """Every term as one number: the mean over examples, Σ w t / Σ w where there are weights.

    Of a part of a batch it is what the part adds to the mean over all of it, so that parts add up.

    Args:
        terms: ``(B,)`` or ``()`` each.
        weight: of the examples, ``(B,)``.
        share: of the batch that is here, where this is a part of it.
        total: Σ w over all of the batch, where this is a part of it.

    Raises:
        InputError: weights, and a ``loss`` that is a single number already.

    >>> float(reduced({"loss": torch.tensor([1.0, 4.0])}, torch.tensor([2.0, 1.0]))["loss"])
    2.0
    """
    if weight is not None and terms["loss"].ndim == 0:
        raise InputError("examples have weights, and this loss is one number for the whole batch; leave weights out")

    def mean(term: Tensor) -> Tensor:
        if term.ndim and weight is not None:
            return (term * weight).sum() / (weight.sum() if total is None else total)
        found = term.mean() if term.ndim else term
        return found if share == 1.0 else share * found

    return {name: mean(term) for name, term in terms.items()}


def _shown(value: Tensor) -> str:
    return str(value.tolist()) if value.numel() <= 6 else "…"


@dataclass(frozen=True)
class Objective:
    """One player's loss and the parameters that minimise it.

    A parameter may belong to several players (a trunk with two heads): each moves it by the gradient of its own loss.

    Attributes:
        name: shown in logs, e.g. ``"critic"``.
        loss: ``loss(batch, generator=...)`` → `Terms`; the mean of ``"loss"`` is minimised.
        parameters: the tensors its optimizer moves, no others.
        repeats: updates in a row within one step.
        every: the objective acts on steps divisible by this.
        optimizer: settings of this player that override the run's: ``optimizer``, ``lr``, ``betas``, ``eps``,
            ``weight_decay``.
        after: called after each of this player's updates, every repeat included: clipping of weights.
        joins: plays on the batch of the player before it (of its repeats the last), which may have left something in
            ``batch.shared``, with its graph: the gradients of all players of a batch are taken at the same parameters,
            before any of them moves. It plays once, and only when that player does.
    """

    name: str
    loss: Callable[..., Terms]
    parameters: tuple[nn.Parameter, ...]
    repeats: int = 1
    every: int = 1
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    after: Callable[[], None] | None = None
    joins: bool = False


@dataclass(frozen=True)
class Symptom:
    """Something that goes wrong while training, though every number is finite.

    Attributes:
        name: e.g. ``"collapse"``; a symptom is said when it appears, and again only after it had gone.
        advice: what was seen, with its numbers, and what to try.
    """

    name: str
    advice: str


@dataclass(frozen=True)
class Advice:
    """What suits a model on some data where its defaults do not.

    Attributes:
        options: of the constructor.
        training: settings of `unsup.fit`.
        against: why it is not to be tried on such data at all, or None.
        turn: among the models of its family, in a contest that names no models: 1 takes part, higher ones where the
            minutes allow more than one of the family, None only where it is named.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    against: str | None = None
    turn: int | None = 1


class Model(nn.Module, ABC):
    """A model of one event. Subclasses are final; their keyword-only constructor arguments are their configuration.

    The constructor takes the `Event` first and typed keyword-only options after it, whose annotations state their
    ranges (`unsup.core.config`). The base class checks and records them, so that
    ``type(model)(model.event, **model.config)`` is the same model with fresh parameters.

    Class attributes:
        presets: option sets by name: ``tiny`` (for tests) and ``paper`` (the paper's architecture exactly).
        fit_defaults: the settings of `unsup.fit` that suit the model, where they differ from the trainer's. A model
            whose options change them sets ``self.fit_defaults`` in its constructor.
        autocast: whether the loss may run under bfloat16 autocast (its own sums stay in float32).
        not_in_half: why the model cannot compute with its parameters in float16 or bfloat16; empty where it can.
        takes_lengths: whether it takes events with an open first axis.
        streams: the further streams of data that its losses read, and how many of their examples go with one of ``x``:
            ``{"unlabelled": 7}``.
        packing: examples that a loss takes as one; the shares of several processes are multiples of it.
        needs_labels: whether its losses read ``batch.label``, so that data without labels is refused.
        validator: name of the validator that keeps its best parameters; empty for the usual one.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    fit_defaults: Mapping[str, Any] = {}
    autocast: ClassVar[bool] = True
    not_in_half: ClassVar[str] = ""
    takes_lengths: ClassVar[bool] = False
    streams: Mapping[str, int] = {}
    packing: int = 1
    needs_labels: bool = False
    validator: str = ""

    event: Event
    config: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "sample" in cls.__dict__ and issubclass(cls, CanSample):
            setattr(cls, "sample", _with_checked_knobs(cls.__dict__["sample"]))  # noqa: B010 - mypy forbids assigning
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
    def refusal(cls, event: Event) -> str | None:
        """`reason_against`, and what holds for all: examples have axes, and one length unless a model takes lengths."""
        if not isinstance(event, Event):
            raise InputError(f"{cls.__name__} was given a {type(event).__name__}; expected an Event: data.event")
        if not event.shape:
            return "takes examples with axes, not single numbers (give them an axis: x[:, None])"
        if event.open and not cls.takes_lengths:
            return "takes examples of one length only"
        return cls.reason_against(event)

    @classmethod
    def check_event(cls, event: Event) -> None:
        """Raise `InputError` when the model does not take ``event``."""
        reason = cls.refusal(event)
        if reason is not None:
            raise InputError(f"{cls.__name__} {reason}; this data is {event}")

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        """Options and settings that suit the model on so many training examples, where its defaults do not.

        It is asked about events that the model refuses, too.
        """
        return Advice()

    @abstractmethod
    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Named terms of one batch, ``(B,)`` or ``()``; the mean of ``"loss"`` is what training minimises."""

    def objectives(self) -> tuple[Objective, ...]:
        """Who minimises what. The default is one player that owns every parameter that is not frozen."""
        return (Objective("model", self.loss, tuple(p for p in self.parameters() if p.requires_grad)),)

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Data-dependent initialisation from training examples; called once before step 1."""

    def after_step(self, time: Time) -> None:
        """Called after every step: teachers, queues, clipping. `Part`s that are not frozen are called as well."""

    def undecayed(self) -> Iterable[nn.Parameter]:
        """The parameters that weight decay leaves alone: biases, gains and scales, all with fewer than two axes."""
        return (p for p in self.parameters() if p.ndim < 2)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """What the model says of raw data: `log_prob` where it has a density, else energy, translation or features."""
        if isinstance(self, HasDensity):
            return self.log_prob(*arguments, **options)
        if isinstance(self, HasEnergy):
            return self.energy(*arguments, **options)
        if isinstance(self, Translates):
            return self.translate(*arguments, **options)
        if isinstance(self, CanEncode):
            return self.encode(*arguments, **options)
        raise CapabilityError(f"{type(self).__name__} says nothing of raw data that a call could give")

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

    @property
    def mass_in_support(self) -> bool:
        """Whether p(x) sums to one over the support of the event.

        It sums to less where levels are dequantised: some mass of the density lies below the first or above the last.
        """
        return True

    def log_prob(
        self,
        x: Tensor,
        *,
        given: Tensor | None = None,
        lengths: Tensor | None = None,
        samples: int = 1,
        generator: Generator | None = None,
    ) -> Tensor:
        """log p(x), or the bound on it, of raw data in nats: ``(B, *event.shape)`` → ``(B,)``.

        An example outside the event's support (a value between levels, NaN, infinity) has log p = −∞. A model that is
        conditioned on a class and is asked without one gives log Σ_y p(y) p(x | y).

        The gradient is that of log p by the real entries of x and by the parameters; along discrete entries there is
        none. A result without a graph has none to give at all.

        Args:
            x: raw data.
            given: what each example is conditioned on, ``(B, *given.shape)``, for models built with ``given``.
            lengths: of the examples, ``(B,)``, where the event's first axis is open; None: all of it.
            samples: importance samples per example where the model is a bound; exact models do not use it.
            generator: of the noise behind a bound; exact models do not use it.

        Raises:
            InputError: another shape, or conditions that do not fit.
            CapabilityError: no condition is given, and the model cannot do without.
        """
        model = cast(Model, self)
        event = model.event
        inside = event.contains(x, lengths)
        if model.not_in_half and model.dtype in (torch.float16, torch.bfloat16):
            raise CapabilityError(f"{type(self).__name__} does not score in {model.dtype}: {model.not_in_half}")
        if x.requires_grad and not event.is_real:  # log p has no slope along entries between whose levels nothing lies
            real = torch.tensor([not s.is_discrete for s in event.columns], device=x.device).view(event.shape)
            x = torch.where(real, x, x.detach()) if real.any() else x.detach()
        all_inside = not torch.compiler.is_compiling() and bool(inside.all())
        if not all_inside:
            # What lies outside is scored at a value inside, so that no NaN comes back into a gradient.
            x = torch.where(inside.view(-1, *(1,) * len(event.shape)), x, event.lowest(x))
        batch = Batch(x, lengths=lengths)
        if isinstance(self, IsConditional) and self.given is not None:
            if given is None:
                found = self._marginal(batch, samples, generator)
            else:
                batch = replace(batch, given=self.condition(given, len(x)))
                found = self._log_prob(batch, samples=samples, generator=generator)
        elif given is not None:
            raise CapabilityError(f"this {type(self).__name__} was built without a condition; leave out given=")
        else:
            found = self._log_prob(batch, samples=samples, generator=generator)
        return found if all_inside else torch.where(inside, found, -math.inf)

    @abstractmethod
    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        """`log_prob` of examples of the right shape inside the support, ``batch.x`` and what goes with them."""


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
    """The model draws new examples.

    Further keyword-only arguments of a model's own `sample` are its knobs (a temperature, a truncation, a number of
    steps), which `knobs` lists and the command line offers as ``--sample.NAME``. A model that is conditioned takes
    ``given=``, one condition for each of the ``n``; one that draws along a path may take ``on_step``, called with the
    step and the state.
    """

    @abstractmethod
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """``n`` examples ``(n, *event.shape)`` in raw units and of type ``event.dtype``."""


def _with_checked_knobs(sample: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``sample`` with its number of examples and its knobs checked, as options of a constructor are."""

    @functools.wraps(sample)
    def checked(self: Model, n: int, **options: Any) -> Tensor:
        if operator.index(n) < 0:
            raise InputError(f"n={n} samples were asked for; expected 0 or more")
        types = _options_of(sample)
        for name in options.keys() - _NO_KNOBS:
            if name not in types:
                raise InputError(f"sample of {type(self).__name__} has no option {name!r}{nearest(name, types)}")
            options[name] = check_value(name, options[name], types[name][0])
        return sample(self, operator.index(n), **options)

    return checked


_options_of = functools.cache(options_of)
_NO_KNOBS = {"generator", "given", "lengths", "on_step"}


def knobs(model: Model | type[Model]) -> dict[str, tuple[Any, Any]]:
    """The options of a model's `sample`: name → (annotation, default); none where it draws no samples.

    >>> from unsup.core.registry import model_class
    >>> knobs(model_class("made"))
    {'temperature': (typing.Annotated[float, Above(low=0)], 1.0)}
    """
    cls = model if isinstance(model, type) else type(model)
    if not issubclass(cls, CanSample):
        return {}
    return {k: v for k, v in options_of(cls.sample).items() if k not in _NO_KNOBS}


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

    def check_codes(self, z: Tensor) -> None:
        """Raise `InputError` unless ``z`` is a tensor ``(B, F)``."""
        if not isinstance(z, Tensor):
            raise InputError(f"z is a {type(z).__name__}; expected a tensor of codes: torch.as_tensor(z)")
        if z.ndim != 2 or z.shape[1] != self.code_size:
            raise InputError(f"codes have shape {tuple(z.shape)}; expected (N, {self.code_size})")


class CanComplete(ABC):
    """The model fills in the unknown part of an example from its conditional distribution."""

    @abstractmethod
    def complete(self, x: Tensor, known: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Draw the entries where ``known`` (bool, shape of ``x``) is False given the others."""

    def check_known(self, x: Tensor, known: Tensor) -> None:
        """Raise `InputError` unless ``known`` is bool, of the shape of ``x``, and what is known lies in the event."""
        event = cast(Model, self).event
        event.check_shape(x)
        if known.dtype != torch.bool or known.shape != x.shape:
            raise InputError(
                f"known has type {known.dtype} and shape {tuple(known.shape)}; expected torch.bool and the shape of x, "
                f"{tuple(x.shape)}"
            )
        event.check(torch.where(known, x, event.lowest(x)))


class IsConditional(ABC):
    """The model may be built for a condition, with the option ``given``: it is then p(x | c).

    Every verb then takes ``given=``, one condition for each example. Class labels are conditions of the event
    ``Event((), Support("nominal", K))``; their frequencies p(y) are counted by `count_condition`, which makes
    p(x) = Σ_y p(y) p(x | y) known.

    Attributes:
        given: the event of the condition, or None for a model built without one.
        log_prior: log p(y) of class labels ``(K,)``, or None for other conditions.
    """

    given: Event | None
    log_prior: Tensor | None

    def take_condition(self, given: Event | None) -> None:
        """Called in the constructor: record the condition and hold p(y), uniform at first, where it is a class."""
        self.given = given
        prior = torch.full((self.classes,), 1 / self.classes).log() if self.classes else None
        cast(nn.Module, self).register_buffer("log_prior", prior)

    @property
    def classes(self) -> int:
        """How many classes the model is conditioned on; 0 where the condition is no class, or there is none."""
        given = self.given
        if given is None or given.shape or given.uniform is None or given.uniform.kind == "real":
            return 0
        return given.uniform.levels

    def count_condition(self, batch: Batch) -> None:
        """Set p(y) to the Laplace-smoothed frequencies of the labels in ``batch.given``."""
        if self.log_prior is not None:
            label = self.condition(batch.given, len(batch))
            counts = label.long().bincount(batch.weight, minlength=self.classes).to(self.log_prior.dtype) + 1
            self.log_prior.copy_((counts / counts.sum()).log())

    def log_class_prior(self) -> Tensor:
        """log p(y), normalised in the type the model computes in now (a float32 buffer sums to 1 in float32 only)."""
        if self.log_prior is None:
            raise CapabilityError(
                f"this {type(self).__name__} is conditioned on {self.given}, which has no known prior"
            )
        return self.log_prior.log_softmax(0)

    def condition(self, given: Tensor | None, n: int) -> Tensor:
        """The conditions of ``n`` examples, checked; a single one counts for all of them.

        Raises:
            CapabilityError: the model was built without a condition.
            InputError: there is none, or one of another shape, or outside the event of the condition.
        """
        if self.given is None:
            raise CapabilityError(
                f"this {type(self).__name__} was built without a condition; create it with given=EVENT (data.given)"
            )
        if given is None:
            raise InputError(
                f"this {type(self).__name__} is conditioned on {self.given}; say on which, with given= (in training "
                "by data with conditions: load_data(..., given=...))"
            )
        given = torch.as_tensor(given, device=cast(Model, self).device)
        if tuple(given.shape) == self.given.shape:
            given = given[None]
        if tuple(given.shape[1:]) != self.given.shape or not bool(self.given.contains(given).all()):
            raise InputError(
                f"given={_shown(given)} of shape {tuple(given.shape)} lies outside {self.given}, on which this "
                f"{type(self).__name__} is conditioned; expected one, or one for each of {n} examples"
            )
        if len(given) not in (1, n):
            raise InputError(f"{len(given)} conditions were given for {n} examples; give one, or one for each")
        return given.expand(n, *self.given.shape) if len(given) != n else given

    def condition_or_none(self, given: Tensor | None, n: int) -> Tensor | None:
        """`condition`; None where the model was built without one and is given none."""
        return None if self.given is None and given is None else self.condition(given, n)

    def condition_to_sample(self, given: Tensor | None, n: int, generator: Generator | None) -> Tensor | None:
        """The conditions of ``n`` samples: those given, else class labels from p(y); None without a condition."""
        if self.given is None or given is not None:
            return self.condition_or_none(given, n)
        return self.draw_condition(n, generator)

    def draw_condition(self, n: int, generator: Generator | None) -> Tensor:
        """``n`` class labels from p(y).

        Raises:
            CapabilityError: the condition is no class, so nothing says how it is distributed.
        """
        if self.log_prior is None:
            raise CapabilityError(
                f"this {type(self).__name__} is conditioned on {self.given}, which has no known prior; give given="
            )
        cumulative = self.log_class_prior().softmax(0).cumsum(0)
        noise = uniform((n, 1), generator, like=cumulative)
        return (cumulative < noise * cumulative[-1:]).sum(-1).clamp(max=self.classes - 1)

    def log_prob_each_class(self, batch: Batch, *, samples: int = 1, generator: Generator | None = None) -> Tensor:
        """log p(x | y) of every class y: ``(B, K)``."""
        density = cast(HasDensity, self)
        columns = []
        for y in range(self.classes):
            label = torch.full((len(batch),), y, dtype=torch.int64, device=batch.x.device)
            columns.append(density._log_prob(replace(batch, given=label), samples=samples, generator=generator))
        return torch.stack(columns, 1)

    def _marginal(self, batch: Batch, samples: int, generator: Generator | None) -> Tensor:
        if not self.classes:
            raise CapabilityError(
                f"this {type(self).__name__} is conditioned on {self.given}, over which it cannot sum; give given="
            )
        each = self.log_prob_each_class(batch, samples=samples, generator=generator)
        return (each + self.log_class_prior()).logsumexp(1)


class Classifies(ABC):
    """The model tells classes apart."""

    @abstractmethod
    def predict_proba(self, x: Tensor) -> Tensor:
        """p(y | x) of raw data: ``(B, *event.shape)`` → ``(B, K)``."""


class ClassifiesByBayes(IsConditional, Classifies):
    """A conditional density that tells classes apart by Bayes' rule: p(y | x) = p(y) p(x | y) / Σ_y p(y) p(x | y)."""

    def predict_proba(self, x: Tensor) -> Tensor:
        """p(y | x) of raw data: ``(B, *event.shape)`` → ``(B, K)``.

        Raises:
            CapabilityError: the model is not conditioned on a class.
            InputError: examples outside the event.
        """
        if not self.classes:
            raise CapabilityError(
                f"this {type(self).__name__} tells no classes apart; create it conditioned on one (given=labels(K))"
            )
        cast(Model, self).event.check(x)
        return (self.log_prob_each_class(Batch(x)) + self.log_class_prior()).softmax(1)


class HasLatents(ABC):
    """p(x) = ∫ p(x, z) dz with an approximate posterior q(z | x) that draws z."""

    @property
    @abstractmethod
    def latent_event(self) -> Event:
        """What one z is."""

    @abstractmethod
    def draw_latents(self, batch: Batch, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """One z ~ q(z | x) for each example, ``(B, *latent_event.shape)``, and log q(z | x), ``(B,)``."""

    @abstractmethod
    def log_joint(self, batch: Batch, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        """log p(x, z), ``(B,)``. ``generator`` is of the noise of dequantised entries."""


class HasNegatives(HasEnergy):
    """Learns by lowering the energy of data and raising that of negatives, which chains of its own find."""

    @abstractmethod
    def contrast(self, batch: Batch, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """The examples and the negatives that `loss` compares, as `point_energy` takes them, without gradient.

        With the same generator and state they are those of `loss`.
        """

    @abstractmethod
    def point_energy(self, points: Tensor) -> Tensor:
        """The energy whose difference `loss` is about, of points as `contrast` gives them: ``(N, ...)`` → ``(N,)``."""


class HasEntryConditionals(HasDensity):
    """log p(x_d | all other entries) is at hand for every entry."""

    @abstractmethod
    def log_given_rest(self, x: Tensor) -> Tensor:
        """In nats of raw data: ``(B, *event.shape)`` → ``(B, D)``. Discrete entries of continuous models are at the
        middle of a level.
        """


class Factorises(HasDensity):
    """log p(x) = Σ_d log p(x_d | the entries before it), with every term at hand."""

    @abstractmethod
    def log_conditionals(self, x: Tensor, *, generator: Generator | None = None) -> Tensor | None:
        """log p of each flattened entry given those before it, in nats: ``(B, *event.shape)`` → ``(B, D)``.

        A row sums to `log_prob` with one sample and the same noise; of a bound these are the terms of the bound. None
        where log p is no such sum: a mixture over different orders, in which no one entry comes first.
        """


class IsAutoregressive(Factorises, CanSample):
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


class IsFlow(HasDensity, CanSample, CanDecode):
    """An invertible map between continuous raw data and a base distribution."""

    @abstractmethod
    def transform(self, x: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Continuous raw data (noise already added to discrete entries) → z ``(B, D)`` and log|det dz/dx| ``(B,)``.

        ``generator`` is of an estimate of the log-determinant, where it is one (``likelihood_kind`` is then
        ``estimate``); other flows do not use it.
        """

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

    def parameter_log_prior(self) -> Tensor:
        """Log-density of the parameters, up to a constant: 0 where `maximize` goes by the likelihood alone.

        `maximize` maximises the expected log-likelihood plus this (MAP), so that no pass lowers the sum of the
        log-likelihood of all data and this; the log-likelihood alone may fall.
        """
        return torch.zeros((), dtype=torch.float64)
