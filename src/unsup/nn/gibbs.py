"""Models of binary data whose samples are the ends of Gibbs chains: Boltzmann machines and deep belief networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from unsup.core.config import Count
from unsup.core.event import Event
from unsup.core.model import CanComplete, CanDecode, CanSample
from unsup.core.random import bits
from unsup.nn.partition import StoresPartition
from unsup.prob import boltzmann
from unsup.prob.boltzmann import Interaction

Watch = Callable[[int, Tensor], None]
"""Called after each sweep with its number and the units of the chains."""


class BinaryUnits(StoresPartition, CanSample, CanDecode):
    """Abstract: binary data as the first units of a network, sampled by Gibbs chains. A subclass sets ``burn_in``.

    Attributes:
        burn_in: Gibbs sweeps of `sample`.
    """

    not_in_half = "its free energies are sums that nearly cancel"
    burn_in: int

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return None if event.uniform is not None and event.uniform.kind == "binary" else "takes binary data only"

    @abstractmethod
    def chain_ends(self, n: int, sweeps: int, generator: Generator | None, watch: Watch | None) -> Tensor:
        """Units, those of x first, after Gibbs sweeps of ``n`` chains: bits ``(n, D, ...)``."""

    def shown(self, units: Tensor) -> Tensor:
        """Raw data that is shown of the units of chains, ``(n, *event.shape)``."""
        return self._raw(units)

    def _bits(self, x: Tensor) -> Tensor:
        """Raw data as units ``(B, D)``."""
        self.event.check_shape(x)
        return x.flatten(1).to(self.dtype)

    def _raw(self, units: Tensor) -> Tensor:
        """Raw data of units, those of x first."""
        return units[:, : self.event.dims].reshape(len(units), *self.event.shape).to(self.event.dtype)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        generator: Generator | None = None,
        burn_in: Count | None = None,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Draws at the last states of ``n`` chains, from persistent ones if there are any: ``(n, *event.shape)``.

        Args:
            burn_in: sweeps of the chains; None: as in the model.
            on_step: called after each sweep with the number of sweeps and the states of the chains as raw data.
        """
        watch = None if on_step is None else lambda step, units: on_step(step, self.shown(units))
        return self._raw(self.chain_ends(n, burn_in or self.burn_in, generator, watch))


class Undirected(BinaryUnits, CanComplete):
    """Abstract: p ∝ exp(bᵀv + cᵀh + vᵀWh) of two sides of units, where x is the first part of v."""

    base_bias: Tensor

    @abstractmethod
    def interaction(self) -> Interaction:
        """W ``(V, H)``, b ``(V,)`` and c ``(H,)`` of the plain form of the energy."""

    @abstractmethod
    def starting_means(self) -> Tensor:
        """The means of v from which completions start, ``(V,)``."""

    def partition_sum(self) -> Tensor:
        return boltzmann.enumerated_log_partition(*self.interaction())

    def partition_parameters(self) -> Iterator[Tensor]:
        yield from self.parameters()
        yield self.base_bias

    @torch.no_grad()
    def complete(
        self, x: Tensor, known: Tensor, *, generator: Generator | None = None, burn_in: Count | None = None
    ) -> Tensor:
        """Gibbs sweeps that do not change the known entries."""
        self.check_known(x, known)
        start = bits(self.starting_means().expand(len(x), -1), generator)
        further = (0, start.shape[1] - self.event.dims)
        fixed = pad(known.flatten(1), further)
        start = torch.where(fixed, pad(self._bits(x), further), start)
        return self._raw(boltzmann.gibbs(start, *self.interaction(), burn_in or self.burn_in, generator, fixed=fixed))

    def approximation(self, known: Tensor) -> str | None:
        return "by Gibbs sampling"
