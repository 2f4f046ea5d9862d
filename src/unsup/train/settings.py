"""The training settings: one validated record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict, get_type_hints

from unsup.core.config import Count, Positive, Seed, Weight, Whole, Within, check_value
from unsup.core.errors import InputError, nearest
from unsup.core.machine import Precision
from unsup.core.model import Model
from unsup.train.optimizers import OptimizerName
from unsup.train.schedules import Schedule

Decay = Annotated[float, Within(0, 1, below=True)]
"""The decay of a moving average per step."""


@dataclass(frozen=True)
class Settings:
    """Training settings. Give at most one of ``steps``, ``epochs`` and ``minutes``; the default is 2,000 steps.

    Models that learn by counting (histograms, mixtures) update their parameters once per pass: ``steps`` and
    ``epochs`` are then both the maximum number of passes, and settings of gradients (`BY_GRADIENTS`) are refused.

    Attributes:
        steps: number of updates.
        epochs: number of passes over the training split.
        minutes: time budget. The number of steps is fixed from the speed in the first twentieth of it. If the machine
            slows down, training ends at 1.5 times the budget. Learning by counting starts no pass that would
            exceed the budget.
        batch_size: examples per step, over all processes; the shares of processes may differ by one.
        accumulate: number of parts in which a batch is computed sequentially, to save memory. The step is the same
            for losses that are means over examples; batch statistics are then those of a part.
        optimizer: ``adam`` (AdamW), ``rmsprop``, ``sgd`` with momentum, ``adagrad``, ``adamax``, or ``lars`` for large
            batches.
        lr: peak learning rate.
        warmup: steps of linear warm-up.
        schedule: ``cosine``, ``linear`` or ``half-linear`` (constant, then linear) to 0, or ``constant``.
        weight_decay: decoupled for Adam (AdamW), else added to the gradient. Biases, gains and other parameters that
            the model names do not decay.
        betas: betas of Adam and Adamax; the first is the momentum of SGD and LARS, the second the decay of RMSprop.
        eps: epsilon of Adam, Adamax, RMSprop and Adagrad.
        clip: maximum gradient norm, or 0 for no clipping.
        ema: decay of the averaged parameters that are validated and kept, or 0 for none. The model determines which
            parameters are averaged: the generator of a GAN, all parameters of other models.
        patience: stop after this number of validations without improvement, or 0 for never.
        validator: the measure on validation examples that selects the best parameters (``unsup measures`` lists them),
            or ``newest``. ``auto`` uses the validator of the model, else the likelihood, else the newest parameters.
        validate_every: steps between validations, or 0 for twenty validations per run.
        validation_limit: maximum number of validation examples during training.
        checkpoint_seconds: time between checkpoints.
        precision: ``auto`` uses bfloat16 autocast if it is fast on this machine.
        compile: compile the loss with `torch.compile`.
        shard: shard parameters, gradients and optimizer state over the processes of ``torchrun``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: seed of all random numbers.

    Raises:
        InputError: a value of the wrong type or range, or two conflicting values.

    >>> Settings(steps=100, lr=1e-4).batch_size
    128
    """

    steps: Count | None = None
    epochs: Count | None = None
    minutes: Positive | None = None
    batch_size: Count = 128
    accumulate: Count = 1
    optimizer: OptimizerName = "adam"
    lr: Positive = 1e-3
    warmup: Whole = 0
    schedule: Schedule = "cosine"
    weight_decay: Weight = 0.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: Positive = 1e-8
    clip: Weight = 0.0
    ema: Decay = 0.0
    patience: Whole = 0
    validator: str = "auto"
    validate_every: Whole = 0
    validation_limit: Count = 2000
    checkpoint_seconds: Weight = 30.0
    precision: Precision = "auto"
    compile: bool = False
    shard: bool = False
    device: str = "auto"
    seed: Seed = 0

    def __post_init__(self) -> None:
        for name, annotation in get_type_hints(type(self), include_extras=True).items():
            object.__setattr__(self, name, check_value(name, getattr(self, name), annotation))
        given = [k for k in LENGTHS if getattr(self, k) is not None]
        if len(given) > 1:
            raise InputError(f"give one of steps, epochs and minutes; {' and '.join(given)} were given")


BY_GRADIENTS = (
    "batch_size",
    "accumulate",
    "optimizer",
    "lr",
    "warmup",
    "schedule",
    "weight_decay",
    "betas",
    "eps",
    "clip",
    "ema",
    "precision",
    "compile",
    "shard",
)
"""Settings without meaning for models that learn by counting."""
LENGTHS = ("steps", "epochs", "minutes")


class SettingsOptions(TypedDict, total=False):
    """The fields of `Settings`, as the keyword arguments of `fit`, for editors and type checkers."""

    steps: Count | None
    epochs: Count | None
    minutes: Positive | None
    batch_size: Count
    accumulate: Count
    optimizer: OptimizerName
    lr: Positive
    warmup: Whole
    schedule: Schedule
    weight_decay: Weight
    betas: tuple[Decay, Decay]
    eps: Positive
    clip: Weight
    ema: Decay
    patience: Whole
    validator: str
    validate_every: Whole
    validation_limit: Count
    checkpoint_seconds: Weight
    precision: Precision
    compile: bool
    shard: bool
    device: str
    seed: Seed


def make_settings(model: Model | type[Model], given: Mapping[str, Any]) -> Settings:
    """`Settings` from the defaults of the model and the given values; for unknown names, the nearest is suggested."""
    fields = {f.name: f for f in dataclasses.fields(Settings)}
    for name in given:
        if name not in fields:
            raise InputError(f"there is no training setting {name!r}{nearest(name, fields)}")
    defaults = dict(model.fit_defaults)
    if any(given.get(k) is not None for k in LENGTHS):
        for k in LENGTHS:
            defaults.pop(k, None)
    return Settings(**{**defaults, **given})
