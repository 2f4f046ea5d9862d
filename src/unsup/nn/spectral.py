"""Spectral normalisation: weights of spectral norm one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

from unsup.core.errors import InputError

Layer = TypeVar("Layer", bound=nn.Linear | nn.Conv2d | nn.Embedding)


class SpectralNorm(nn.Module):
    """W ↦ W / σ(W), with σ(W) = uᵀWv by power iteration (Miyato et al. 2018, https://arxiv.org/abs/1802.05957).

    W is reshaped to (outputs, the rest). Each use in training mode makes one iteration, v ← Wᵀu / ‖Wᵀu‖ and
    u ← Wv / ‖Wv‖, from the stored u of the previous use. In evaluation mode, v is computed from the stored u, and the
    state is not changed. Gradients also flow through W in σ, but not through u and v.

    Everything is computed in the precision of the weight, independent of autocast.
    """

    u: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.holds = False
        self.held: Tensor | None = None
        self.register_buffer("u", normalize(torch.randn(len(weight), dtype=weight.dtype, device=weight.device), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        if self.held is not None:
            return self.held
        found = self._normalised(weight)
        if self.holds:
            self.held = found
        return found

    def _normalised(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            # σ does not depend on the order of the columns; this order is a view of a channels-last weight
            matrix = weight.movedim(1, -1).flatten(1)
            with torch.no_grad():
                u = self.u.clone()  # the graph must not refer to the buffer, which the next use overwrites
                v = normalize(matrix.mT @ u, dim=0)
                if self.training:
                    u = normalize(matrix @ v, dim=0)
                    self.u.copy_(u)
            return weight / (u @ (matrix @ v))


@contextmanager
def computed_once(module: nn.Module) -> Iterator[None]:
    """In this context, the normalised weights of ``module`` are computed at their first use and cached.

    `torch.nn.utils.parametrize.cached` has one cache for all threads, so that one thread may clear that of another.
    """
    before = {m: (m.holds, m.held) for m in module.modules() if isinstance(m, SpectralNorm)}
    for m in before:
        m.holds = True
    try:
        yield
    finally:
        for m, (holds, held) in before.items():
            m.holds, m.held = holds, held


def spectral_norm(module: Layer) -> Layer:
    """Normalise the weight of ``module`` to W / σ(W) with `SpectralNorm`; returns the same module.

    One forward pass in training mode is one power iteration, so a critic that sees data and samples in one batch
    makes one per step, and the step of the generator makes another one. Reading ``module.weight`` counts as a use.

    Args:
        module: `nn.Linear`, `nn.Conv2d` or `nn.Embedding`, with an initialised weight.

    Raises:
        InputError: a module of another kind.

    >>> layer = spectral_norm(nn.Linear(3, 2))
    >>> for _ in range(50):
    ...     y = layer(torch.ones(1, 3))
    >>> round(float(torch.linalg.matrix_norm(layer.eval().weight.detach(), 2)), 4)
    1.0
    """
    if not isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
        raise InputError(
            f"spectral_norm was given {type(module).__name__}; expected nn.Linear, nn.Conv2d or nn.Embedding"
        )
    # unsafe: the weight keeps shape and type, and skipping PyTorch's check of that saves an iteration
    parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight.detach()), unsafe=True)
    return module


class LargestSingularValues(nn.Module):
    """Σ σ(W) over linear and convolutional layers: the spectral penalty of NVAE (Vahdat, Kautz 2020, section 3.3).

    σ(W) = uᵀWv as in `SpectralNorm`, with u stored for each layer. Using it changes no state: `update` makes an
    iteration.

    Args:
        net: all its layers with weights of two axes or more, except masked ones.

    >>> value = LargestSingularValues(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)))
    >>> for _ in range(100):
    ...     value.update()
    >>> exact = sum(torch.linalg.matrix_norm(layer.weight, 2) for layer in value.layers)
    >>> bool((value() - exact).abs() < 1e-4)
    True
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]  # the net owns them
        for i, layer in enumerate(self.layers):
            u = torch.randn(len(layer.weight), dtype=layer.weight.dtype, device=layer.weight.device)
            self.register_buffer(f"u{i}", normalize(u, dim=0))

    def forward(self) -> Tensor:
        """The sum, ``()``."""
        found: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            with torch.autocast(layer.weight.device.type, enabled=False):
                matrix, u = layer.weight.flatten(1), self.get_buffer(f"u{i}")
                with torch.no_grad():
                    v = normalize(matrix.mT @ u, dim=0)
                found.append(u.clone() @ (matrix @ v))
        return torch.stack(found).sum()

    @torch.no_grad()
    def update(self) -> None:
        """One power iteration for every layer."""
        for i, layer in enumerate(self.layers):
            matrix, u = layer.weight.flatten(1), self.get_buffer(f"u{i}")
            u.copy_(normalize(matrix @ normalize(matrix.mT @ u, dim=0), dim=0))
