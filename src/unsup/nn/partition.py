"""log Z that is computed once for some parameters and stored with the model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Generator, Tensor

from unsup.core.errors import CapabilityError
from unsup.core.model import Model, NeedsPartition


class StoresPartition(Model, NeedsPartition):
    """log Z is a sum if the model is small enough, else an estimate that is stored with a checksum of the parameters.

    A subclass calls `take_partition` in its constructor.
    """

    log_partition: Tensor
    partition_of: Tensor

    def take_partition(self) -> None:
        """Register log Z, its standard error, and a checksum of the corresponding parameters (0 for none)."""
        self.register_buffer("log_partition", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("partition_of", torch.zeros((), dtype=torch.int64))

    @property
    @abstractmethod
    def partition_is_exact(self) -> bool:
        """Whether log Z is a sum."""

    @abstractmethod
    def partition_sum(self) -> Tensor:
        """log Z as a sum, with its gradient."""

    @abstractmethod
    def partition_estimate(self, effort: int, generator: Generator | None) -> tuple[float, float]:
        """An estimate of log Z and its standard error."""

    @abstractmethod
    def partition_parameters(self) -> Iterable[Tensor]:
        """The tensors on which log Z depends."""

    @abstractmethod
    def partition_sizes(self) -> str:
        """The units that are too many for a sum, in words."""

    @torch.no_grad()
    def estimate_log_partition(self, *, effort: int = 1, generator: Generator | None = None) -> tuple[float, float]:
        """Compute log Z and its standard error, and store them for `log_prob`.

        The sum over the states of the smaller layer if it has at most 20 units; else annealed importance sampling, with
        100 chains and 1,000 temperatures times ``effort``.
        """
        exact = self.partition_is_exact
        found = (float(self.partition_sum()), 0.0) if exact else self.partition_estimate(effort, generator)
        self.log_partition.copy_(torch.tensor(found, dtype=torch.float64))
        self.partition_of.copy_(self._checksum())
        return found

    @property
    def log_partition_error(self) -> float:
        return 0.0 if self.partition_is_exact else float(self._stored()[1])

    def log_z(self) -> Tensor:
        """log Z, float64: summed if that is possible and the stored one has not the gradient, else the stored one.

        Raises:
            CapabilityError: log Z must be estimated, but was not, or the parameters have changed since.
        """
        if not self.partition_is_exact:
            return self._stored()[0]
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        return self.partition_sum() if learns or not self._is_current() else self._stored()[0]

    def _is_current(self) -> bool:
        return bool(self.partition_of == self._checksum())

    def _stored(self) -> Tensor:
        if not self._is_current():
            when = "was not estimated" if not self.partition_of else "was estimated for other parameters"
            raise CapabilityError(
                f"log Z of this {type(self).__name__} {when}, and {self.partition_sizes()} are too many "
                "for an exact sum; call model.estimate_log_partition(effort=..., generator=...) first, or unsup eval"
            )
        return self.log_partition

    @torch.no_grad()
    def _checksum(self) -> Tensor:
        """A number, not 0, that changes with any bit of the parameters but not with their type or device."""
        total = torch.ones((), dtype=torch.int64, device=self.device)
        for p in self.partition_parameters():
            bits = p.detach().double().flatten().view(torch.int64)
            odd = 2 * torch.arange(len(bits), device=bits.device) + 1
            total = total * 6364136223846793005 + ((bits ^ (bits >> 29)) * odd).sum()
        return total | 1
