"""A scheme: how raw examples become bytes with one kind of model. Encoder and decoder make the same computation."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from unsup.core.model import Model

Profile = Literal["portable", "native"]
"""``portable``: float64, on any machine. ``native``: the type of the model, in the same environment only."""


class Scheme(ABC):
    """Codes raw examples with a model.

    Args:
        model: its copy on the CPU, in float64 in the portable profile, computes what reaches the coder.

    Class attributes:
        name, version: of the stream. Any change of the bytes increases the version.
        capability: what models need for it; `reason_against` says what else.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    capability: ClassVar[type]

    spare = 0
    """Examples that the model computes in vain beside those of each batch: what is coded does not depend on this."""

    def __init__(self, model: Model, profile: Profile = "portable") -> None:
        own = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        self.model = own.double() if profile == "portable" else own
        self.event = model.event

    @classmethod
    @abstractmethod
    def reason_against(cls, model: Model) -> str | None:
        """Why this scheme does not code with ``model``, a clause; None if it does."""

    def type_for(self, dtype: torch.dtype) -> torch.dtype:
        """The type in which raw examples of a type are coded."""
        return self.event.dtype

    def takes(self, x: Tensor) -> Tensor:
        """Which raw examples of type `type_for`, all inside the event, are coded: ``(B, *event.shape)`` → ``(B,)``."""
        return torch.ones(len(x), dtype=torch.bool)

    @abstractmethod
    def encode(self, x: Tensor) -> bytes:
        """Code raw examples ``(B, *event.shape)`` of type `type_for`, all of which it `takes`; B is 1 or more."""

    @abstractmethod
    def decode(self, coded: bytes, n: int) -> Tensor:
        """The ``n`` raw examples that `encode` has coded.

        Raises:
            StreamError: the bytes were cut, damaged, or made with another model.
        """

    @abstractmethod
    def canary(self) -> bytes:
        """Integers that reach the coder for one fixed input: they differ where the model computes other numbers."""
