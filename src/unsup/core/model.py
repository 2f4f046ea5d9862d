"""The interfaces of models: `Model`, its capabilities, and the objectives that training minimises."""

from __future__ import annotations

import functools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeAlias, cast

import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch, Time
from unsup.core.config import check_value, normalise_options, options_of, shown
from unsup.core.errors import CapabilityError, InputError, kind_of, nearest
from unsup.core.event import Event, raw_tensor
from unsup.core.likelihood import Kind
from unsup.core.random import keyed_generator as keyed_generator  # defined there; many modules import it from here
from unsup.core.random import normal, uniform

Terms = dict[str, Tensor]
"""Named terms of a loss on one batch: ``(B,)``, one per example, or ``()``, one number for the whole batch."""


def reduced(terms: Terms, weight: Tensor | None = None, share: float = 1.0, total: float | None = None) -> Terms:
    """Reduce every term to one number: the mean over examples, or Σ w t / Σ w with weights.

    For a part of a batch, it is the contribution of the part to the mean over the whole batch; the parts add up to it.

    Args:
        terms: tensors ``(B,)`` or ``()``.
        weight: weights of the examples, ``(B,)``.
        share: fraction of the batch in this part.
        total: Σ w over the whole batch, if this is a part of it.

    Raises:
        InputError: weights are given, but ``loss`` is already a single number.

    >>> float(reduced({"loss": torch.tensor([1.0, 4.0])}, torch.tensor([2.0, 1.0]))["loss"])
    2.0
    """
    if weight is not None and terms["loss"].ndim == 0:
        raise InputError("examples have weights, but this loss is one number for the whole batch; remove the weights")

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
    """The loss of one player and the parameters that minimise it.

    A parameter may belong to several players (a trunk with two heads): each updates it by the gradient of its own loss.

    Attributes:
        name: name in logs, e.g. ``"critic"``.
        loss: ``loss(batch, generator=...)`` → `Terms`; the mean of ``"loss"`` is minimised.
        parameters: the tensors that its optimizer updates.
        repeats: consecutive updates within one step.
        every: the objective is used in steps divisible by this number.
        optimizer: settings of this player that override those of the run: ``optimizer``, ``lr``, ``betas``, ``eps``,
            ``weight_decay``.
        pace: factor of the learning rate.
        after: called after every update of this player, including repeats, e.g. to clip weights.
        during: the part of the run in which the player plays, as two shares of its steps; its schedule is that of this
            part. While the length of the run is not known, players with different parts play in turn.
        joins: uses the batch of the previous player (of its last repeat), which may have stored values with their
            graph in ``batch.shared``. The gradients of all players on a batch are taken at the same parameters, before
            any of them is updated. The player is used once, and only if the previous player is used.
    """

    name: str
    loss: Callable[..., Terms]
    parameters: tuple[nn.Parameter, ...]
    repeats: int = 1
    every: int = 1
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    pace: float = 1.0
    after: Callable[[], None] | None = None
    joins: bool = False
    during: tuple[float, float] = (0.0, 1.0)

    def steps(self, total: int) -> tuple[int, int]:
        """The first step in which the player plays, and the step after the last one, of a run of ``total`` steps.

        >>> Objective("second", dict, (), during=(0.25, 1.0)).steps(10)
        (2, 10)
        """
        first, end = (round(share * total) for share in self.during)
        return first, end


def playing_at(objectives: Sequence[Objective], step: int, total: int | None) -> list[Objective]:
    """The objectives in whose part of a run of ``total`` steps ``step`` is; None: the length is not known.

    >>> early, late = (Objective(str(d), dict, (), during=d) for d in ((0.0, 0.5), (0.5, 1.0)))
    >>> [[o.name for o in playing_at([early, late], step, 4)] for step in (1, 2)]
    [['(0.0, 0.5)'], ['(0.5, 1.0)']]
    """
    if total is None:
        parts = list(dict.fromkeys(o.during for o in objectives))
        return [o for o in objectives if o.during == parts[step % len(parts)]]
    found = []
    for objective in objectives:
        first, end = objective.steps(total)
        if first <= step < end:
            found.append(objective)
    return found


@dataclass(frozen=True)
class Symptom:
    """A problem in training that occurs although all numbers are finite.

    Attributes:
        name: e.g. ``"collapse"``. A symptom is reported when it appears, and again only after it has disappeared.
        advice: the observation with its numbers, and what to try.
    """

    name: str
    advice: str


@dataclass(frozen=True)
class Advice:
    """Recommended options and settings of a model for some data, if the defaults are unsuitable.

    Attributes:
        options: options of the constructor.
        training: settings of `unsup.fit`.
        against: the reason not to use the model on such data at all, or None.
        turn: rank within the family in a contest without named models: 1 takes part, higher ranks take part if the time
            allows more than one model of the family, None takes part only if named.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    against: str | None = None
    turn: int | None = 1


class Model(nn.Module, ABC):
    """Base class of models. Subclasses are final; their keyword-only constructor arguments are their configuration.

    The constructor takes the `Event`, followed by typed keyword-only options. Their annotations state the ranges
    (`unsup.core.config`). The base class checks and records the options, so that
    ``type(model)(model.event, **model.config)`` is the same model with fresh parameters.

    Class attributes:
        presets: option sets by name: ``tiny`` (for tests) and ``paper`` (the paper's architecture exactly).
        fit_defaults: settings of `unsup.fit` for this model, if they differ from the defaults of the trainer. A model
            whose options change them sets ``self.fit_defaults`` in its constructor.
        autocast: whether the loss may run under bfloat16 autocast (its sums remain in float32).
        not_in_half: the reason why the model cannot compute with float16 or bfloat16 parameters; empty if it can.
        takes_lengths: whether it supports events with an open first axis, and scores the beginnings of other sequences.
        data_defaults: options of the data for this model if they are not given, by the kind of the data: ``text``,
            ``sound``.
        takes_missing: whether it supports events with missing entries, and scores the entries that are there.
        marginalises: whether log p of an example with missing entries is that of the observed ones alone, i.e. the
            integral over the missing ones.
        streams: additional streams of data that its losses read, with the number of their examples per example of
            ``x``: ``{"unlabelled": 7}``.
        packing: number of examples that a loss combines; the shares of several processes are multiples of it.
        needs_labels: whether its losses read ``batch.label``, so that data without labels is refused.
        validator: name of the validator that selects its best parameters; empty for the default.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    fit_defaults: Mapping[str, Any] = {}
    autocast: ClassVar[bool] = True
    not_in_half: ClassVar[str] = ""
    takes_lengths: ClassVar[bool] = False
    data_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    takes_missing: ClassVar[bool] = False
    marginalises: ClassVar[bool] = False
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
            if (
                next(c for c in type(self).__mro__ if "__init__" in c.__dict__) is not cls
            ):  # called by the constructors of subclasses
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
        """Why this model does not support ``event`` (a clause, e.g. "takes images only"); None if it does."""
        return None

    @classmethod
    def refusal(cls, event: Event) -> str | None:
        """`reason_against`, after the checks of all models: examples have axes, and equal lengths unless supported."""
        if not isinstance(event, Event):
            raise InputError(f"{cls.__name__} was given {kind_of(event)}; expected an Event: data.event")
        if not event.shape:
            return "takes examples with axes, not single numbers (add an axis: x[:, None])"
        if event.open and not cls.takes_lengths:
            return "takes examples of equal length only"
        if event.missing and not cls.takes_missing:
            return 'does not support missing values (load the data with missing="drop" or missing="impute")'
        return cls.reason_against(event)

    @classmethod
    def check_event(cls, event: Event) -> None:
        """Raise `InputError` if the model does not support ``event``."""
        reason = cls.refusal(event)
        if reason is not None:
            raise InputError(f"{cls.__name__} {reason}; this data is {event}")

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        """Recommended options and settings for this number of training examples, if the defaults are unsuitable.

        It is also called for events that the model refuses.
        """
        return Advice()

    def reason_against_batch(self, count: int, whole: int) -> str | None:
        """Why the losses cannot be computed on such batches, a clause; None if they can.

        Training calls it before anything is written.

        Args:
            count: number of examples at once, those of all processes.
            whole: number of examples of a step, of which ``count`` are a part.
        """
        return None

    @abstractmethod
    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Named terms of one batch, ``(B,)`` or ``()``. Training minimises the mean of ``"loss"``."""

    def objectives(self) -> tuple[Objective, ...]:
        """The objectives of training. The default is one player with all parameters that are not frozen."""
        return (Objective("model", self.loss, tuple(p for p in self.parameters() if p.requires_grad)),)

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Data-dependent initialisation from training examples; called once before step 1."""

    def after_step(self, time: Time) -> None:
        """Called after every step, e.g. for teachers, queues or clipping; also on `Part`s that are not frozen."""

    def undecayed(self) -> Iterable[nn.Parameter]:
        """The parameters without weight decay: biases, gains and scales, i.e. those with fewer than two axes."""
        return (p for p in self.parameters() if p.ndim < 2)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """The natural function of raw data: `log_prob` of a density, else energy, translation or features."""
        if isinstance(self, HasDensity):
            return self.log_prob(*arguments, **options)
        if isinstance(self, HasEnergy):
            return self.energy(*arguments, **options)
        if isinstance(self, Translates):
            return self.translate(*arguments, **options)
        if isinstance(self, CanEncode):
            return self.encode(*arguments, **options)
        raise CapabilityError(f"{type(self).__name__} has no function of raw data to call")

    def averaged(self) -> tuple[nn.Module, ...]:
        """The modules whose parameters are averaged over steps (``ema``). The default is the whole model."""
        return (self,)

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        """A problem that the terms, averaged over the latest log points, indicate; None if there is none.

        With several objectives, the names are ``objective/term``, as in the log.
        """
        return None

    def findings(self, names: Sequence[str] | None = None, *, batch: Batch | None = None) -> tuple[str, ...]:
        """What it has learned and a reader can use, one line each, e.g. a structure; `unsup fit` shows it.

        Args:
            names: of the columns of a table; None for their numbers.
            batch: some validation examples.
        """
        return ()

    @property
    def device(self) -> torch.device:
        return next(self._tensors()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating type in which the model computes."""
        return next(t for t in self._tensors() if t.is_floating_point()).dtype

    def _tensors(self) -> Iterator[Tensor]:
        yield from self.parameters()
        yield from self.buffers()

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def save(self, folder: str) -> None:
        """Write ``config.json``, ``model.safetensors`` and a model card ``README.md`` to ``folder``."""
        from unsup.core.storage import save_model

        save_model(self, folder)


NO_WORDS = "takes no categories, which do not lie on a line (use made, vae, gaussian-mixture or histogram)"
"""`Model.reason_against` of models that scale or dequantise every entry, for events that `Event.has_words`."""


class HasDensity(ABC):
    """Capability: log-likelihood of raw data."""

    @property
    def likelihood_kind(self) -> Kind:
        """The kind of value that `log_prob` returns; ``exact`` by default."""
        return "exact"

    @property
    def uses_samples(self) -> bool:
        """Whether `log_prob` is of as many draws as ``samples`` says; else its value is the same for any number."""
        return self.likelihood_kind != "exact"

    @property
    def mass_in_support(self) -> bool:
        """Whether p(x) sums to one over the support of the event.

        With dequantised levels it sums to less: the density has mass below the first and above the last level.
        """
        return True

    def log_prob(
        self,
        x: Tensor | ArrayLike,
        *,
        given: Tensor | None = None,
        lengths: Tensor | None = None,
        samples: int = 1,
        generator: Generator | None = None,
    ) -> Tensor:
        """log p(x) of raw data, or a bound on it, in nats: ``(B, *event.shape)`` → ``(B,)``.

        An example outside the support of the event (a value between levels, NaN, infinity) has log p = −∞. A model that
        is conditioned on a class returns log Σ_y p(y) p(x | y) if no class is given.

        The gradient is that of log p with respect to the real entries of x and the parameters. Discrete entries have no
        gradient. If the gradient is not available, the result has no graph.

        Args:
            x: raw data: a tensor, an array or a list.
            given: condition of each example, ``(B, *given.shape)``, for models built with ``given``.
            lengths: lengths of the examples, ``(B,)``, for models that take lengths; None for full length.
            samples: importance samples per example of a bound; ignored by models without ``uses_samples``.
            generator: random generator of the noise of a bound; ignored by exact models.

        Raises:
            InputError: wrong shape, or conditions or lengths that do not fit.
            CapabilityError: no condition is given, but the model needs one; or the model takes no lengths.
        """
        model = cast(Model, self)
        event = model.event
        if samples < 1:
            raise InputError(f"samples={samples}; expected at least one importance sample")
        if not isinstance(x, Tensor):
            x = raw_tensor(x).to(model.device)
        if lengths is not None:
            if not model.takes_lengths:
                raise CapabilityError(f"{type(self).__name__} scores whole examples only; remove lengths=")
            lengths = torch.as_tensor(lengths, device=x.device)
            if not torch.compiler.is_compiling():
                event.check_lengths(lengths, len(x))
        inside = event.contains(x, lengths)
        if model.not_in_half and model.dtype in (torch.float16, torch.bfloat16):
            raise CapabilityError(f"{type(self).__name__} does not score in {model.dtype}: {model.not_in_half}")
        if x.requires_grad and not event.is_real:  # log p has no derivative along discrete entries
            real = torch.tensor([not s.is_discrete for s in event.columns], device=x.device).view(event.shape)
            x = torch.where(real, x, x.detach()) if real.any() else x.detach()
        all_inside = not torch.compiler.is_compiling() and bool(inside.all())
        if not all_inside:
            # Examples outside the support are scored at a value inside, so that no NaN enters a gradient.
            x = torch.where(inside.view(-1, *(1,) * len(event.shape)), x, event.lowest(x))
        batch = Batch(x, lengths=lengths)
        if isinstance(self, IsConditional) and self.given is not None:
            if given is None:
                found = self._marginal(batch, samples, generator)
            else:
                batch = replace(batch, given=self.condition(given, len(x)))
                found = self._log_prob(batch, samples=samples, generator=generator)
        elif given is not None:
            raise CapabilityError(f"this {type(self).__name__} was built without a condition; remove given=")
        else:
            found = self._log_prob(batch, samples=samples, generator=generator)
        return found if all_inside else torch.where(inside, found, -math.inf)

    @abstractmethod
    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        """`log_prob` of a batch whose examples have the right shape and are in the support."""


class HasEnergy(ABC):
    """Capability: an energy, p(x) = exp(−E(x)) / Z, where Z may be unknown."""

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:
        """E(x) of raw data: ``(B, *event.shape)`` → ``(B,)``. Differences are in nats; the zero is arbitrary."""


class HasScore(ABC):
    """Capability: the gradient of the log-density of continuous raw data."""

    @abstractmethod
    def score(self, x: Tensor) -> Tensor:
        """∇ₓ log p(x) = −∇ₓE(x), per unit of raw data: ``(B, *event.shape)`` → the same shape, floating."""


class NeedsPartition(HasDensity):
    """log p(x), or a bound on it, has an expensive log Z: enumeration, annealed importance sampling or quadrature.

    `estimate_log_partition` computes it and stores the result in buffers of the model. `log_prob` uses the result, and
    raises `CapabilityError` if it is missing or the parameters have changed since.
    """

    @abstractmethod
    def estimate_log_partition(self, *, effort: int = 1, generator: Generator | None = None) -> tuple[float, float]:
        """Compute log Z and its standard error (0 if it is exact), and store both for `log_prob`.

        Args:
            effort: amount of work, relative to the estimates during training.
        """

    @property
    @abstractmethod
    def log_partition_error(self) -> float:
        """Standard error of the stored log Z, in nats."""


class HasPartition(HasEnergy, NeedsPartition):
    """log p(x) = −E(x) − log Z."""


class Translates(ABC):
    """Capability: translation of examples from domain a to domain b and back."""

    @abstractmethod
    def translate(self, x: Tensor, *, to: Literal["a", "b"]) -> Tensor:
        """Raw examples of the other domain → raw examples of domain ``to``: ``(B, *event.shape)``, ``event.dtype``."""


class Colours(Translates):
    """Capability: colouring. Domain a has grey pictures, of three equal channels, and domain b colour pictures.

    Training needs colour pictures only, no second domain. `translate` to a takes the colour away; to b, it does the
    same before it predicts colours, so that pictures of both domains can be given. Both keep the lightness L.
    """

    @abstractmethod
    def chromaticity(self, x: Tensor) -> Tensor:
        """a and b of CIE Lab of raw pictures: ``(B, 3, H, W)`` → ``(B, 2, H, W)``."""


class CanSample(ABC):
    """Capability: sampling of new examples.

    Additional keyword-only arguments of the `sample` method of a model are its sampling options (a temperature, a
    truncation, a number of steps). `knobs` lists them, and the command line offers them as ``--sample.NAME``. A
    conditional model takes ``given=``, one condition for each of the ``n`` samples. A model that draws along a path may
    take ``on_step``, which is called with the step and the state.
    """

    @abstractmethod
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Draw ``n`` examples ``(n, *event.shape)`` in raw units, of type ``event.dtype``."""


def _with_checked_knobs(sample: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``sample`` with validation of its number of examples and its options, as in constructors."""

    @functools.wraps(sample)
    def checked(self: Model, n: int, **options: Any) -> Tensor:
        try:
            count = operator.index(n)
        except TypeError as error:
            raise InputError(f"n={shown(n)} should be the number of samples, an integer") from error
        if count < 0:
            raise InputError(f"n={n} samples were requested; expected 0 or more")
        generator = options.get("generator")
        if generator is not None and not isinstance(generator, Generator):
            raise InputError(f"generator={shown(generator)} should be a torch.Generator: {_SEEDED}")
        types = _options_of(sample)
        for name in options.keys() - _NO_KNOBS:
            if name == "seed" and name not in types:
                raise InputError(f"sample of {type(self).__name__} has no seed; pass generator={_SEEDED}")
            if name not in types:
                raise InputError(f"sample of {type(self).__name__} has no option {name!r}{nearest(name, types)}")
            options[name] = check_value(name, options[name], types[name][0])
        return sample(self, count, **options)

    return checked


_options_of = functools.cache(options_of)
_SEEDED = "torch.Generator().manual_seed(0)"
_NO_KNOBS = {"generator", "given", "lengths", "on_step"}


def knobs(model: Model | type[Model]) -> dict[str, tuple[Any, Any]]:
    """The options of the `sample` method of a model: name → (annotation, default); empty if it cannot sample.

    >>> from unsup.core.registry import model_class
    >>> knobs(model_class("realnvp"))
    {'temperature': (typing.Annotated[float, Above(low=0)], 1.0)}
    """
    cls = model if isinstance(model, type) else type(model)
    if not issubclass(cls, CanSample):
        return {}
    return {k: v for k, v in options_of(cls.sample).items() if k not in _NO_KNOBS}


class CanEncode(ABC):
    """Capability: encoding of examples as features."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Deterministic features of raw data: ``(B, *event.shape)`` → ``(B, F)``."""


class CanDecode(CanEncode):
    """Capability: decoding of features to examples."""

    @property
    @abstractmethod
    def code_size(self) -> int:
        """F, the number of entries of one code."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The most typical raw example for each code: ``(B, F)`` → ``(B, *event.shape)``, type ``event.dtype``."""

    def check_codes(self, z: Tensor) -> None:
        """Raise `InputError` unless ``z`` is a tensor ``(B, F)``."""
        if not isinstance(z, Tensor):
            raise InputError(f"z is {kind_of(z)}; expected a tensor of codes: torch.as_tensor(z)")
        if z.ndim != 2 or z.shape[1] != self.code_size:
            raise InputError(f"codes have shape {tuple(z.shape)}; expected (N, {self.code_size})")


class SamplesAnyLength(CanSample):
    """Capability: sampling of examples that are longer or shorter than those of the event, such as minutes of sound."""

    def reason_against_length(self) -> str | None:
        """Why this model only samples examples of the length of its event, a clause; None if it samples any."""
        return None

    @abstractmethod
    def sample_long(self, n: int, length: int, *, generator: Generator | None = None) -> Tensor:
        """Draw ``n`` examples ``(n, length, *event.shape[1:])``.

        The first entries are those of `sample` with the same generator and options.

        Raises:
            CapabilityError: the model does not support it, see `reason_against_length`.
        """


class CanComplete(ABC):
    """Capability: sampling the unknown entries of an example from their conditional distribution."""

    @abstractmethod
    def complete(self, x: Tensor, known: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Draw the entries where ``known`` (bool, shape of ``x``) is False, given the other entries."""

    def approximation(self, known: Tensor) -> str | None:
        """How `complete` approximates the conditional distribution given these entries, a clause; None if exact."""
        return None

    def check_known(self, x: Tensor, known: Tensor) -> None:
        """Raise `InputError` unless ``known`` is bool, has the shape of ``x``, and known entries are in the support."""
        event = cast(Model, self).event
        event.check_shape(x)
        if known.dtype != torch.bool or known.shape != x.shape:
            raise InputError(
                f"known has type {known.dtype} and shape {tuple(known.shape)}; expected torch.bool and the shape of x, "
                f"{tuple(x.shape)}"
            )
        event.check(torch.where(known, x, event.lowest(x)))

    def kept(self, x: Tensor, known: Tensor, drawn: Tensor) -> Tensor:
        """The entries of ``x`` where they are known, else the drawn ones, in a type that changes neither."""
        dtype = cast(Model, self).event.dtype
        wide = torch.promote_types(x.dtype, dtype) if x.is_floating_point() and dtype.is_floating_point else dtype
        return torch.where(known, x.to(wide), drawn.to(wide))


class HasLengths(CanSample, CanComplete):
    """Capability: sampling and completing examples with an open first axis, together with their lengths.

    Such a model also scores the beginnings of sequences whose first axis is not open: log p of the entries within
    ``lengths``, the sum over all others.

    Attributes:
        ends: whether p(x) is that of the length too, so that masses sum to one over all lengths; only if the first axis
            is open. Else p(x) is that given the length, and samples have full length.
    """

    ends: bool

    @abstractmethod
    def sample_with_lengths(self, n: int, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """The samples of `sample`, ``(n, *event.shape)``, and their lengths ``(n,)``; the rest is padding."""

    @abstractmethod
    def complete_with_lengths(
        self, x: Tensor, known: Tensor, *, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The examples of `complete` and their lengths ``(B,)``, at least those of the known beginnings."""


def has_ends(model: object) -> bool:
    """Whether examples that the model draws have different lengths."""
    return isinstance(model, HasLengths) and model.ends


class IsConditional(ABC):
    """Capability: a conditional model p(x | c), built with the option ``given``.

    All methods then take ``given=``, one condition for each example. Class labels are conditions with the event
    ``Event((), Support("nominal", K))``. `count_condition` counts their frequencies p(y), so that
    p(x) = Σ_y p(y) p(x | y) is known.

    Attributes:
        given: the event of the condition, or None for a model built without one.
        log_prior: log p(y) of class labels ``(K,)``, or None for other conditions.
    """

    given: Event | None
    log_prior: Tensor | None

    def take_condition(self, given: Event | None) -> None:
        """Called in the constructor: store the event of the condition, and a uniform p(y) if it is a class."""
        self.given = given
        prior = torch.full((self.classes,), 1 / self.classes).log() if self.classes else None
        cast(nn.Module, self).register_buffer("log_prior", prior)

    @property
    def classes(self) -> int:
        """The number of classes of the condition; 0 if the condition is not a class, or there is none."""
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
        """log p(y), normalised in the current type of the model (a float32 buffer sums to 1 only in float32)."""
        if self.log_prior is None:
            raise CapabilityError(
                f"this {type(self).__name__} is conditioned on {self.given}, which has no known prior"
            )
        return self.log_prior.log_softmax(0)

    def condition(self, given: Tensor | None, n: int) -> Tensor:
        """The validated conditions of ``n`` examples; a single condition is used for all of them.

        Raises:
            CapabilityError: the model was built without a condition.
            InputError: the condition is missing, has the wrong shape, or is outside its event.
        """
        if self.given is None:
            raise CapabilityError(
                f"this {type(self).__name__} was built without a condition; create it with given=EVENT (data.given)"
            )
        if given is None:
            raise InputError(
                f"this {type(self).__name__} is conditioned on {self.given}; pass it with given= (for training, "
                "load data with conditions: load_data(..., given=...))"
            )
        given = torch.as_tensor(given, device=cast(Model, self).device)
        if tuple(given.shape) == self.given.shape:
            given = given[None]
        if tuple(given.shape[1:]) != self.given.shape or not bool(self.given.contains(given).all()):
            raise InputError(
                f"given={_shown(given)} of shape {tuple(given.shape)} is outside {self.given}, on which this "
                f"{type(self).__name__} is conditioned; expected one, or one for each of {n} examples"
            )
        if len(given) not in (1, n):
            raise InputError(f"{len(given)} conditions were given for {n} examples; give one, or one for each")
        return given.expand(n, *self.given.shape) if len(given) != n else given

    def condition_or_none(self, given: Tensor | None, n: int) -> Tensor | None:
        """`condition`; None if the model was built without one and none is given."""
        return None if self.given is None and given is None else self.condition(given, n)

    def condition_to_sample(self, given: Tensor | None, n: int, generator: Generator | None) -> Tensor | None:
        """The conditions of ``n`` samples: as given, else class labels from p(y); None without a condition."""
        if self.given is None or given is not None:
            return self.condition_or_none(given, n)
        return self.draw_condition(n, generator)

    def draw_condition(self, n: int, generator: Generator | None) -> Tensor:
        """``n`` class labels from p(y).

        Raises:
            CapabilityError: the condition is not a class, so its distribution is unknown.
        """
        if self.log_prior is None:
            raise CapabilityError(
                f"this {type(self).__name__} is conditioned on {self.given}, which has no known prior; pass given="
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
                f"this {type(self).__name__} is conditioned on {self.given}, over which it cannot sum; pass given="
            )
        each = self.log_prob_each_class(batch, samples=samples, generator=generator)
        return (each + self.log_class_prior()).logsumexp(1)


class Classifies(ABC):
    """Capability: classification."""

    @abstractmethod
    def predict_proba(self, x: Tensor) -> Tensor:
        """p(y | x) of raw data: ``(B, *event.shape)`` → ``(B, K)``."""

    def class_probabilities(self, batch: Batch) -> Tensor:
        """`predict_proba` of a batch, ``(B, K)``."""
        return self.predict_proba(batch.x)


class ClassifiesByBayes(IsConditional, Classifies):
    """A conditional density that classifies by Bayes' rule: p(y | x) = p(y) p(x | y) / Σ_y p(y) p(x | y)."""

    def predict_proba(self, x: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """p(y | x) of raw data: ``(B, *event.shape)`` → ``(B, K)``.

        Args:
            x: raw data.
            lengths: of the examples, as in `HasDensity.log_prob`.

        Raises:
            CapabilityError: the model is not conditioned on a class.
            InputError: examples outside the event.
        """
        if not self.classes:
            raise CapabilityError(
                f"this {type(self).__name__} is not a classifier; create it with a class as condition (given=labels(K))"
            )
        event = cast(Model, self).event
        if lengths is not None:
            event.check_lengths(lengths, len(x))
        event.check(x, lengths)
        return (self.log_prob_each_class(Batch(x, lengths=lengths)) + self.log_class_prior()).softmax(1)

    def class_probabilities(self, batch: Batch) -> Tensor:
        return self.predict_proba(batch.x, lengths=batch.lengths)


class HasLatents(ABC):
    """Latent-variable model p(x) = ∫ p(x, z) dz with an approximate posterior q(z | x)."""

    @property
    @abstractmethod
    def latent_event(self) -> Event:
        """The event of one z."""

    @abstractmethod
    def draw_latents(self, batch: Batch, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """One z ~ q(z | x) for each example, ``(B, *latent_event.shape)``, and log q(z | x), ``(B,)``."""

    @abstractmethod
    def log_joint(self, batch: Batch, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        """log p(x, z), ``(B,)``. ``generator`` draws the noise of dequantised entries."""


VisitEntries: TypeAlias = Callable[["ChooseEntry"], None]
"""Visits all entries, and has each of them chosen."""

Moments: TypeAlias = tuple[Tensor, Tensor]
"""Mean and log-variance of a diagonal Gaussian, ``(B, L)`` each."""


class LayerCoder(ABC):
    """The stack of an entropy coder, as a model that `CodesLayers` uses it.

    Latents are in bins that have equal masses under a Gaussian, the *frame* of the layer. It is an argument, or fixed
    (None), see `CodesLayers.spread`.
    """

    @abstractmethod
    def pop(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> Tensor:
        """Latents ``(B, L)`` that the bits on the stack choose under a Gaussian; None is the frame itself."""

    @abstractmethod
    def push(self, layer: int, under: Moments | None = None, frame: Moments | None = None) -> None:
        """Put the latents of a layer, which `pop` has returned, on the stack."""

    @abstractmethod
    def entries(self, given: Tensor | VisitEntries) -> Tensor:
        """Push or pop the entries of raw examples ``(B, *event.shape)`` under p(x | z), and return them.

        Args:
            given: outputs of a model, or a visit of all entries, if `CodesByLatents.codes_in_turn`.
        """


class CodesByLatents(ABC):
    """Abstract: p(x | z) for bits-back coding, with discrete entries of x that are independent or visited in turn."""

    def reason_against_bits_back(self) -> str | None:
        """Why some of these masses are not known with the options of this model, a clause; None if they are."""
        return None

    @property
    @abstractmethod
    def latent_count(self) -> int:
        """The number of latents of an example."""

    @property
    def codes_in_turn(self) -> bool:
        """Whether each entry depends on earlier ones given z: the coder gets a visit of them."""
        return False

    @abstractmethod
    def log_masses(self, outputs: Tensor, columns: Tensor) -> Tensor:
        """log p of all levels of some flattened entries, which have the same number of levels: ``(B, n, levels)``.

        ``outputs`` are those that the coder of entries was given.
        """


class ChoiceCoder(ABC):
    """The stack of an entropy coder, as a model that `CodesChoices` uses it."""

    @abstractmethod
    def pop(self, layer: int, log_masses: Tensor) -> Tensor:
        """The values, from 0, of a layer of latents ``(B, n)``, that the bits on the stack choose under their
        ``log_masses``, ``(B, n, K)``.
        """

    @abstractmethod
    def push(self, layer: int, log_masses: Tensor) -> None:
        """Put the values of a layer, which `pop` has returned, on the stack."""

    @abstractmethod
    def entries(self, outputs: Tensor) -> Tensor:
        """Push or pop the entries of raw examples ``(B, *event.shape)`` under p(x | z), and return them."""


class CodesChoices(CodesByLatents):
    """Capability: bits-back coding with layers of discrete latents, q(z | x) = q(z_1 | x) Π q(z_{l+1} | z_l).

    `code` pushes x before z_2 is popped, z_1 before z_3, so that the initial bits are those of one layer (Kingma,
    Abbeel, Ho 2019, https://arxiv.org/abs/1905.06845).
    """

    @property
    @abstractmethod
    def choices(self) -> tuple[tuple[int, int], ...]:
        """The number of latents of each layer, and K."""

    @property
    def latent_count(self) -> int:
        return sum(count for count, _ in self.choices)

    @abstractmethod
    def code(self, batch: Batch, coder: ChoiceCoder) -> None:
        """Push a batch on the stack."""

    @abstractmethod
    def restore(self, n: int, coder: ChoiceCoder) -> None:
        """The steps of `code` for ``n`` examples in reverse order: what was popped is pushed under the same masses, and
        what was pushed is popped.
        """


class CodesLayers(HasLatents, CodesByLatents):
    """Capability: bits-back coding with one or more layers of latents, all of them diagonal Gaussians.

    The entries of x are discrete and independent given z. With layers that are drawn given x from the top, `code` pops
    all of them, pushes x, and pushes them under their priors. If q(z | x) = q(z_1 | x) Π q(z_{l+1} | z_l), it pushes x
    before z_2 is popped, and so on, so that the initial bits are those of one layer (Kingma, Abbeel, Ho 2019).
    """

    @property
    @abstractmethod
    def layer_sizes(self) -> tuple[int, ...]:
        """The number of latents of each layer; their sum is the size of `latent_event`."""

    @property
    def latent_count(self) -> int:
        return self.latent_event.dims

    def spread(self) -> list[Moments | None]:
        """Where the latents of each layer with a fixed frame are, ``(L,)`` each; None is N(0, I)."""
        return [None] * len(self.layer_sizes)

    @abstractmethod
    def code(self, batch: Batch, coder: LayerCoder) -> None:
        """Push a batch on the stack."""

    @abstractmethod
    def restore(self, n: int, given: Tensor | None, coder: LayerCoder) -> None:
        """The steps of `code` for ``n`` examples in reverse order: what was popped is pushed under the same Gaussian,
        and what was pushed is popped.
        """


class CodesLatents(CodesLayers):
    """Capability: p(z), q(z | x) and the masses of p(x | z) for entropy coding, with one layer of latents.

    p(z) is N(0, I) and q(z | x) a diagonal Gaussian (`posterior`), or the model is also one of
    `unsup.nn.posterior.CodesExactLatents`. The entries of x are discrete; given z they are independent, or visited in
    turn.
    """

    @property
    def has_standard_latents(self) -> bool:
        """Whether p(z) is N(0, I) and q(z | x) a diagonal Gaussian."""
        return True

    @abstractmethod
    def posterior(self, batch: Batch) -> Moments:
        """Mean and log-variance of q(z | x), ``(B, *latent_event.shape)`` each, if it is a diagonal Gaussian."""

    @abstractmethod
    def outputs(self, z: Tensor, given: Tensor | None = None) -> Tensor:
        """The parameters of p(x | z), from which `log_masses` computes: ``(B, *latent_event.shape)`` → ``(B, …)``."""

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        return (self.latent_event.dims,)

    def code(self, batch: Batch, coder: LayerCoder) -> None:
        z = coder.pop(0, self.posterior(batch))
        coder.entries(self._of_entries(z, batch.given))
        coder.push(0)

    def restore(self, n: int, given: Tensor | None, coder: LayerCoder) -> None:
        x = coder.entries(self._of_entries(coder.pop(0), given))
        coder.push(0, self.posterior(Batch(x, given=given)))

    def _of_entries(self, z: Tensor, given: Tensor | None) -> Tensor | VisitEntries:
        z = z.view(-1, *self.latent_event.shape)
        if self.codes_in_turn:
            return lambda choose: self.visit_entries(z, choose, given=given)
        return self.outputs(z, given)

    def visit_entries(self, z: Tensor, choose: ChooseEntry, *, given: Tensor | None = None) -> None:
        """Visit the entries of x given z ``(B, *latent_event.shape)``, as `CodesEntries.visit`."""
        raise NotImplementedError


class HasNegatives(HasEnergy):
    """Training lowers the energy of data and raises the energy of negatives, which Markov chains draw."""

    @abstractmethod
    def contrast(self, batch: Batch, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """The examples and negatives that `loss` compares, as inputs of `point_energy`, without gradient.

        With the same generator and state, they are equal to those of `loss`.
        """

    @abstractmethod
    def point_energy(self, points: Tensor) -> Tensor:
        """The energy in the difference that `loss` computes, of points from `contrast`: ``(N, ...)`` → ``(N,)``."""


class HasEntryConditionals(HasDensity):
    """log p(x_d | all other entries) is available for every entry."""

    @abstractmethod
    def log_given_rest(self, x: Tensor) -> Tensor:
        """In nats of raw data: ``(B, *event.shape)`` → ``(B, D)``. Discrete entries of continuous models are at the
        middle of a level.
        """


class LeavesOut(HasDensity):
    """Capability: log p under all training examples but one, for models that are made of their training examples.

    Such a model finds every training example likely, because of the example itself. Where training examples are
    ranked, each is scored without itself.
    """

    @abstractmethod
    def log_prob_without(self, x: Tensor, left_out: Tensor, *, generator: Generator | None = None) -> Tensor:
        """log p(x_i) in nats, if one copy of ``left_out[i]`` had not been a training example: ``(B,)``.

        Args:
            x: raw data, ``(B, *event.shape)``.
            left_out: raw data of the same shape; an example that was not a training example changes nothing.
            generator: random generator of the noise of a bound.
        """


class Factorises(HasDensity):
    """log p(x) = Σ_d log p(x_d | the entries before it), with access to every term."""

    @abstractmethod
    def log_conditionals(self, x: Tensor, *, generator: Generator | None = None) -> Tensor | None:
        """log p of each flattened entry given those before it, in nats: ``(B, *event.shape)`` → ``(B, D)``.

        A row sums to `log_prob` with one sample and the same noise; for a bound, these are the terms of the bound. None
        if log p is not such a sum, as for a mixture over different orders.
        """

    @property
    def positions(self) -> Tensor | None:
        """Position of each flattened entry in the order of the factorisation, int64 ``(D,)``; None: as flattened.

        A model that `IsAutoregressive` has `orders` instead.
        """
        return None


class IsAutoregressive(Factorises, CanSample):
    """log p(x) = Σᵢ log p(x_i | x_<i) in a known order, with all conditionals available at once."""

    @property
    @abstractmethod
    def orders(self) -> Tensor:
        """``(M, D)`` int64: position of each flattened dimension in the factorisation, one row per component."""

    @abstractmethod
    def conditionals(self, x: Tensor, *, order: int = 0) -> Tensor:
        """Parameters of every conditional: ``(B, *event.shape)`` → ``(B, D, P)``.

        A floating ``x`` between the levels allows derivatives: [b, i] depends on x[b, j] only if j comes before i.
        Real entries are in raw units, with noise already added.
        """

    def blind_spot(self, *, order: int = 0) -> Tensor:
        """``(D, D)`` bool: [i, j] is True if conditional i ignores the earlier dimension j by design."""
        dims = self.orders.shape[1]
        return torch.zeros(dims, dims, dtype=torch.bool)

    @abstractmethod
    def sample_naive(self, n: int, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        """`sample` with one full pass per dimension: the slow reference."""


class Intervals(ABC):
    """The distribution of one entry on the line, given earlier entries, for each of n examples."""

    @abstractmethod
    def log_masses(self, edges: Tensor) -> Tensor:
        """log P of the intervals between edges in ascending order: float64 ``(n, m + 1)`` → ``(n, m)``.

        Edges may be infinite. They are in raw units for a real entry; level v of a discrete entry, counted from 0,
        lies between v − ½ and v + ½. The result has full relative precision, however narrow an interval is: it is
        computed from the width, and not from a difference of two cumulative probabilities.
        """


class Located(Intervals):
    """A distribution on the line with a known mean and mode, in the units of its edges."""

    @abstractmethod
    def mean(self) -> Tensor:
        """The expected value, ``(n,)``."""

    @abstractmethod
    def mode(self) -> Tensor:
        """Where the density is highest, ``(n,)``."""


Conditional: TypeAlias = Tensor | Intervals
"""Of one entry given others: log p of every level, ``(n, levels)``, or a distribution on the line."""
Marginal: TypeAlias = Tensor | Located
"""A `Conditional` whose mean and mode are known."""
ChooseEntry: TypeAlias = Callable[[int, Conditional], Tensor]
"""Chooses what an entry is: see `CodesEntries.visit`."""


class KnowsMarginals(CanComplete):
    """Capability: the distribution of each unknown entry given the known ones, without draws.

    It is exact, except that known levels which the model dequantises are at the middle of their cells.
    """

    @abstractmethod
    def marginals(self, x: Tensor, known: Tensor) -> Iterator[tuple[int, Tensor, Marginal]]:
        """The numbers of flattened entries, the rows ``(n,)`` in which they are unknown, and their distributions there.

        Args:
            x: raw data ``(B, *event.shape)``; the values of unknown entries do not matter.
            known: bool, of the shape of ``x``. A known entry that is missing (NaN) is summed out.
        """

    def unknown_rows(self, known: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The entries that are unknown in some rows, and these rows ``(n,)``."""
        gaps = ~known.flatten(1)
        for entry in gaps.any(0).nonzero().flatten().tolist():
            yield entry, gaps[:, entry].nonzero().flatten()


class HasGraph(ABC):
    """Capability: a directed graph without cycles between the entries, which the page of a run shows."""

    @abstractmethod
    def links(self) -> list[tuple[int, int]]:
        """The edges, (parent, child), by the numbers of flattened entries from 0."""


class CodesEntries(ABC):
    """Capability: visiting the entries of examples one by one, each with its distribution, for entropy coding.

    The visit is the same computation for encoding and decoding, so that both see the same distributions.
    """

    def reason_against_coding(self) -> str | None:
        """Why these parameters do not code entries, a clause; None if they do."""
        return None

    @abstractmethod
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        """Visit all entries of ``n`` examples in the order of the factorisation.

        Args:
            choose: called with the number of a flattened entry and its distribution given the entries visited before.
                It returns what the entry is, float64 ``(n,)``: the number of the level, from 0, of a discrete entry,
                the raw value of a real one, and NaN where the entry is missing.
            gaps: which entries are missing, ``(n, D)``; None if none is.
            given: condition of each example.
        """


class CodesInOrders(CodesEntries):
    """Capability: a uniform mixture of M densities, each of which visits the entries in an order of its own.

    log p(x) = log (1/M) Σ_m p_m(x). Under the density with the largest p_m(x), an example takes at most log M more.
    """

    @property
    @abstractmethod
    def densities(self) -> int:
        """M; 1 if a visit has the conditionals of log p itself."""

    @abstractmethod
    def log_prob_each_order(self, batch: Batch) -> Tensor:
        """log p_m(x) of every density, in evaluation mode: ``(B, M)``."""

    @abstractmethod
    def visit(
        self,
        n: int,
        choose: ChooseEntry,
        *,
        gaps: Tensor | None = None,
        given: Tensor | None = None,
        order: int = 0,
    ) -> None:
        """As for `CodesEntries`, under the density ``order``."""


class CodesSplitEntries(CodesEntries):
    """Capability: each entry of an example is several, such as the digits of a number, which are not visited together.

    `visit` is that of `split_event`.
    """

    @property
    @abstractmethod
    def split_event(self) -> Event:
        """The event of split examples: discrete entries."""

    @abstractmethod
    def split_entries(self, x: Tensor) -> Tensor:
        """Raw data → raw data of `split_event`."""

    @abstractmethod
    def join_entries(self, y: Tensor) -> Tensor:
        """The inverse of `split_entries`, defined for all raw data of `split_event`."""


class IsFlow(HasDensity, CanSample, CanDecode):
    """An invertible map between continuous raw data and a base distribution.

    Class attributes:
        in_integers: whether its steps also have an exact form in integer arithmetic, by which discrete data is
            compressed.
    """

    in_integers: ClassVar[bool] = False

    @abstractmethod
    def transform(self, x: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Map continuous raw data (with noise on discrete entries) to z ``(B, D)`` and log|det dz/dx| ``(B,)``.

        ``generator`` is used if the log-determinant is an estimate (``likelihood_kind`` is then ``estimate``); other
        flows ignore it.
        """

    @abstractmethod
    def invert(self, z: Tensor) -> Tensor:
        """The inverse of `transform`: ``(B, D)`` → continuous raw data ``(B, *event.shape)``."""

    def base_log_prob(self, z: Tensor) -> Tensor:
        """Log-density of the base distribution, ``(B, D)`` → ``(B,)``; N(0, I) by default."""
        return -0.5 * (z**2 + math.log(2 * math.pi)).sum(1)

    def draw_base(self, n: int, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        """``n`` draws of z from the base, ``(n, D)``; ``temperature`` is a factor of their `base_scores`."""
        model = cast(Model, self)
        like = torch.zeros((), dtype=model.dtype, device=model.device)
        return temperature * normal((n, model.event.dims), generator, like=like)

    def jacobian_check(self, x: Tensor, *, given: Tensor | None = None) -> float:
        """The largest difference between the log-determinant of `transform` and that of the autograd Jacobian.

        It is in nats, and relative where the log-determinant is above 1.

        Args:
            x: continuous raw data ``(B, *event.shape)``, best in float64 with a model in float64; the Jacobian of one
                example has D² entries.
            given: condition of each example, or one for all, for models built with ``given``.

        Raises:
            InputError: wrong shape, no example, or conditions that do not fit.
        """
        model = cast(Model, self)
        model.event.check_shape(x)
        if not len(x):
            raise InputError("x has no examples; expected at least one, whose Jacobian is compared")
        if given is not None and given.shape[:1] != x.shape[:1]:
            given = given.expand(len(x), *given.shape)
        training = model.training
        model.eval()
        worst = 0.0
        try:
            for i, one in enumerate(x if x.is_floating_point() else x.double()):
                told: dict[str, Any] = {} if given is None else {"given": given[i : i + 1]}

                def code(v: Tensor, told: dict[str, Any] = told) -> Tensor:
                    return self.transform(v[None], **told)[0].flatten()

                matrix = torch.autograd.functional.jacobian(code, one).reshape(one.numel(), one.numel())
                exact = float(torch.linalg.slogdet(matrix.double()).logabsdet)
                said = float(self.transform(one[None], **told)[1].detach())
                difference = abs(said - exact) / max(1.0, abs(exact))
                worst = max(worst, difference) if math.isfinite(difference) else math.inf
        finally:
            model.train(training)
        return worst

    def base_scores(self, z: Tensor) -> Tensor:
        """Numbers on the line that a temperature multiplies, elementwise: z itself, if it is on the line."""
        return z


class LearnsByCounting(ABC):
    """The model learns from sums over the data (counting, EM) instead of gradients."""

    @property
    @abstractmethod
    def passes(self) -> int:
        """The maximum number of passes over the data; 0 means training by gradients."""

    @property
    def tolerance(self) -> float:
        """Stop when a pass increases the mean log-likelihood by less than this number of nats."""
        return 0.0

    @abstractmethod
    def statistics(self, batch: Batch, *, generator: Generator | None = None) -> dict[str, Tensor]:
        """Sums over the batch (additive over batches and processes), with ``count`` and, for EM, ``log_prob``."""

    @abstractmethod
    def maximize(self, statistics: Mapping[str, Tensor]) -> None:
        """Set the parameters from the sums over all data."""

    def parameter_log_prior(self) -> Tensor:
        """Log-density of the parameters, up to a constant; 0 if `maximize` uses the likelihood alone.

        `maximize` maximises the expected log-likelihood plus this term (MAP). No pass decreases the sum of the
        log-likelihood of all data and this term, but the log-likelihood alone may decrease.
        """
        return torch.zeros((), dtype=torch.float64)
