"""A limited autoregressive decoder: the outputs of a decoder are corrected by the pixels next to each pixel.

    p(x|z) = Π_i p(x_i | z, the entries before x_i that are at most `window` rows above it and columns beside it)

(variational lossy autoencoder, Chen et al. 2017, https://arxiv.org/abs/1611.02731; PixelVAE, Gulrajani et al. 2017,
https://arxiv.org/abs/1611.05013.) The net of the papers is a PixelCNN; here the correction is a small one, so that it
sees what the window says and nothing else:

    outputs_i = d_i(z) + W_2 relu(W_1 relu(k ∗ x + V d(z))_i)

with a masked kernel k of `window` pixels in each direction; the other maps are 1 × 1. W_2 is 0 at first, so that the
model starts as the one without a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.nn.autoregressor import Choose, Steps, walk
from unsup.nn.causal import Causal, Context, Groups, Pointwise, through
from unsup.nn.causal_conv import MaskedConv, square
from unsup.nn.gated import Beside
from unsup.nn.inputs import Inputs
from unsup.nn.observation import Discrete
from unsup.nn.raster import Raster, RasterSteps


class LocalDecoder(nn.Module):
    """The correction of the outputs of a decoder of images.

    Args:
        event: complete images of discrete entries.
        observation: p(entry | outputs).
        window: number of rows above a pixel, and of columns on either side, that it depends on; at least 1.
        features: of the hidden layers.
        owner: name for errors.

    Attributes:
        features: the size of all hidden features of an example.

    Raises:
        InputError: other events.

    >>> from unsup.core.event import BINARY
    >>> from unsup.nn.observation import Bernoulli
    >>> event = Event((1, 4, 4), BINARY)
    >>> local = LocalDecoder(event, Bernoulli(event), window=1, features=8, owner="VAE")
    >>> local.outputs(torch.zeros(2, 16), torch.zeros(3, 2, 16, 1)).shape
    torch.Size([3, 2, 16, 1])
    """

    def __init__(self, event: Event, observation: Discrete, *, window: int, features: int, owner: str) -> None:
        super().__init__()
        if not event.is_image or event.missing or not event.is_discrete or event.uniform is None:
            raise InputError(
                f"{owner}: window={window} takes complete images of discrete entries; this data is {event}"
            )
        self.event, self.observation, self.raster = event, observation, Raster(event)
        self.inputs, self.each = Inputs(event), observation.outputs_each
        groups, made = event.shape[0], event.shape[0] * observation.outputs_each
        hidden = features * groups
        self.features = hidden * event.shape[1] * event.shape[2]
        self.first = MaskedConv(self.inputs.channels, hidden, groups, window=square(2 * window + 1), mask="A")
        self.shift = Beside(made, Groups(hidden, groups))
        self.middle, self.last = MaskedConv(hidden, hidden, groups), MaskedConv(hidden, made, groups)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def layers(self) -> Sequence[Causal]:
        return (self.first, *self._after())

    def _after(self) -> Sequence[Causal]:
        return (self.shift, Pointwise(relu), self.middle, Pointwise(relu), self.last)

    def outputs(self, levels: Tensor, plain: Tensor) -> Tensor:
        """The outputs of all entries given z and x.

        Args:
            levels: of the entries of x, counted from 0, ``(B, D)``; possibly between levels.
            plain: outputs of k draws of z, ``(k, B, D, outputs_each)``.
        """
        h = self.inputs.levels(levels.view(-1, *self.event.shape))
        seen = self.first(h.movedim(-1, 2).flatten(1, 2) if self.inputs.one_hot else h)  # once for all draws
        context = Context(pixels=self._maps(plain.flatten(0, 1)))
        found = through(self._after(), seen.repeat(len(plain), 1, 1, 1), context)
        return plain + self._entries(found).view(plain.shape)

    def walked(self, plain: Tensor, choose: Choose) -> Tensor:
        """Visit the entries in raster order; the targets that are chosen ``(B, D)`` as flattened.

        Args:
            plain: outputs of a z for each example, ``(B, D, outputs_each)``.
            choose: called with the number of a flattened entry and its outputs.
        """
        entries = self.raster.entries.tolist()
        steps = _Corrected(self, plain)
        targets = torch.zeros(len(plain), self.event.dims, dtype=torch.int64, device=plain.device)
        line = walk(steps, range(self.event.dims), lambda t, outputs: choose(entries[t], outputs), targets)
        return self.raster.grid(line).reshape(len(line), self.event.dims)

    def steps(self, plain: Tensor) -> RasterSteps:
        """The correction in a walk."""
        return RasterSteps(self.layers(), self.inputs, self.raster, len(plain), Context(pixels=self._maps(plain)))

    def _maps(self, plain: Tensor) -> Tensor:
        """Outputs ``(N, D, P)`` → maps ``(N, C P, H, W)``, those of a channel side by side."""
        maps = plain.to(self.last.weight.dtype).view(len(plain), *self.event.shape, self.each)
        return maps.permute(0, 1, 4, 2, 3).flatten(1, 2)

    def _entries(self, maps: Tensor) -> Tensor:
        """The inverse of `_maps`."""
        return maps.unflatten(1, (-1, self.each)).permute(0, 1, 3, 4, 2).reshape(len(maps), self.event.dims, self.each)


class _Corrected(Steps):
    def __init__(self, local: LocalDecoder, plain: Tensor) -> None:
        self.inner, self.entries = local.steps(plain), local.raster.entries.tolist()
        self.plain = plain

    def outputs(self, site: int) -> Tensor:
        return self.plain[:, self.entries[site]] + self.inner.outputs(site)

    def put(self, site: int, value: Tensor) -> None:
        self.inner.put(site, value)
