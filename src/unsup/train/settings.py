"""How to train: one record, checked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from unsup.core.config import check_value
from unsup.core.errors import InputError, nearest
from unsup.core.machine import Precision
from unsup.core.model import Model
from unsup.train.schedules import Schedule

OptimizerName = Literal["adam", "rmsprop", "sgd"]


@dataclass(frozen=True)
class Settings:
    """How to train. Of ``steps``, ``epochs`` and ``minutes`` one at most is given; with none it is 2,000 steps.

    Attributes:
        steps: updates.
        epochs: passes over the training split.
        minutes: time budget; the number of steps is fixed from the speed of the first twentieth of it, and should the
            machine slow down, training ends at one and a half times the budget. Learning by counting makes no further
            pass that would go beyond it.
        batch_size: examples a step, over all processes.
        optimizer: ``adam`` (AdamW), ``rmsprop``, or ``sgd`` with momentum.
        lr: peak learning rate.
        warmup: steps of linear warm-up.
        schedule: ``cosine``, ``linear`` or ``half-linear`` (constant, then linear) to 0, or ``constant``.
        weight_decay: decoupled with Adam (AdamW), else added to the gradient.
        betas: of Adam; the first is SGD's momentum, the second RMSprop's decay.
        eps: of Adam and RMSprop.
        clip: largest gradient norm, or 0 for no clipping.
        ema: decay of the averaged parameters that are validated and kept, or 0 for none. What is averaged is the
            model's to say: a GAN's generator, else everything.
        patience: stop after this many validations without gain, or 0 for never.
        validate_every: steps between validations, or 0 for twenty in a run.
        validation_limit: validation examples used while training.
        checkpoint_seconds: time between checkpoints.
        precision: ``auto`` is bfloat16 autocast where the machine is fast at it.
        compile: compile the loss with `torch.compile`.
        shard: spread parameters, gradients and optimizer state over the processes of ``torchrun``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: of everything random.
    """

    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    batch_size: int = 128
    optimizer: OptimizerName = "adam"
    lr: float = 1e-3
    warmup: int = 0
    schedule: Schedule = "cosine"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 0.0
    ema: float = 0.0
    patience: int = 0
    validate_every: int = 0
    validation_limit: int = 2000
    checkpoint_seconds: float = 30.0
    precision: Precision = "auto"
    compile: bool = False
    shard: bool = False
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        given = [k for k in ("steps", "epochs", "minutes") if getattr(self, k) is not None]
        if len(given) > 1:
            raise InputError(f"give one of steps, epochs and minutes; {' and '.join(given)} were given")
        for name in ("steps", "epochs", "minutes", "batch_size", "lr", "validation_limit"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name}={value} should be above 0")


def make_settings(model: Model | type[Model], given: dict[str, Any]) -> Settings:
    """`Settings` from the model's defaults and what was given; unknown names are refused with the nearest one."""
    fields = {f.name: f for f in dataclasses.fields(Settings)}
    for name in given:
        if name not in fields:
            raise InputError(f"there is no training setting {name!r}{nearest(name, fields)}")
    defaults = dict(model.fit_defaults)
    if any(given.get(k) is not None for k in ("steps", "epochs", "minutes")):
        for k in ("steps", "epochs", "minutes"):
            defaults.pop(k, None)
    hints = get_type_hints(Settings)
    checked = {k: check_value(k, v, hints[k]) for k, v in given.items()}
    return Settings(**(defaults | checked))
