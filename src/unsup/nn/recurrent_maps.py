"""Two-dimensional LSTM layers over maps ``(B, F, H, W)`` (van den Oord, Kalchbrenner, Kavukcuoglu 2016,
https://arxiv.org/abs/1601.06759).

    (i, f, o) = σ(K_ss ∗ h_before + K_is ∗ x + b)      g = tanh(…)      gates of a site: eq. 3 of the paper
    c = f ⊙ c_before + i ⊙ g                           h = o ⊙ tanh(c)

Only the input-to-state convolution K_is sees the site itself, so it alone has a mask: what comes before a site in a
recurrence are earlier pixels, of which all colours are known (table 1 of the paper). States before the first are zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, max_pool1d, pad

from unsup.nn.causal import NOTHING, Causal, Context, Groups, Site
from unsup.nn.causal_conv import POINT, MaskedConv, Window

_GATES = 4
_Memory = dict[str, Any]


def cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Gates ``(…, 4 F)``, in the order i, f, g, o of PyTorch's kernels, and c ``(…, F)`` → h and c."""
    i, f, g, o = gates.chunk(_GATES, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def fused(x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """PyTorch's LSTM kernel along the first axis of x: ``(L, N, I)``, ``(N, F)`` twice → ``(L, N, F)``, h, c."""
    options = (weights, True, 1, 0.0, torch.is_grad_enabled(), False, False)
    out, h, c = torch.lstm(x, [h[None], c[None]], *options)
    return out, h[0], c[0]


def _input_to_state(inputs: int, width: int, groups: int, window: Window) -> MaskedConv:
    """K_is under mask B, with the forget gates open at first (bias 1; a choice of ours)."""
    conv = MaskedConv(inputs, _GATES * width, groups, window=window, parts=_GATES)
    with torch.no_grad():
        conv.bias[width : 2 * width] = 1
    return conv


def _state_to_state(width: int, taps: int) -> nn.Parameter:
    """K_ss as a matrix ``(4 F, taps F)``."""
    return nn.Parameter(nn.Linear(taps * width, _GATES * width).weight.detach())


class RowLSTM(Causal):
    """A row is computed from the row above, and a pixel from the three pixels above it.

    K_is covers the pixel and the one on its left (a kernel of 3 under mask B), K_ss three pixels of the row above. So a
    pixel sees a triangle above it, and in its own row one pixel to the left.

    Args:
        inputs: number of input features, grouped.
        width: number of cells F.
        groups: number of colour channels.
    """

    def __init__(self, inputs: int, width: int, groups: int = 1) -> None:
        super().__init__()
        self.inputs = _input_to_state(inputs, width, groups, Window(left=1))
        self.state = _state_to_state(width, 3)  # above on the left, above, above on the right
        self.width, self.out = width, Groups(width, groups)

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        return (self.by_fused_rows(h) if h.device.type == "cpu" else self.by_rows(h)).permute(1, 3, 0, 2)

    def by_rows(self, x: Tensor) -> Tensor:
        """``(B, I, H, W)`` → ``(H, B, W, F)``: K_is for the whole map at once, then row after row."""
        gates = self.inputs(x).permute(2, 0, 3, 1)
        h = c = gates.new_zeros(*gates.shape[1:3], self.width)
        found = []
        for row in gates:
            h, c = cell(row + linear(_with_neighbours(h), self.state), c)
            found.append(h)
        return torch.stack(found)

    def by_fused_rows(self, x: Tensor) -> Tensor:
        """The same by the kernel of an LSTM: a row is one step, in which the pixels of all examples are a batch."""
        x = pad(x, (1, 0)).permute(2, 0, 3, 1)  # (H, B, W + 1, I)
        left, above, right = self.state.chunk(3, 1)
        kernel = self.inputs.masked_weight()[:, :, 0]  # (4 F, I, 2)
        weight = torch.cat([kernel[:, :, 0], kernel[:, :, 1], left, right], 1)
        weights = [weight, above.contiguous(), self.inputs.bias, torch.zeros_like(self.inputs.bias)]
        n, width = x.shape[1], x.shape[2] - 1
        h = x.new_zeros(n, width, self.width)
        c = h.flatten(0, 1)
        found = []
        for row in x:
            beside = pad(h, (0, 0, 1, 1))
            features = torch.cat([row[:, :-1], row[:, 1:], beside[:, :-2], beside[:, 2:]], 2)
            h, c = fused(features.flatten(0, 1)[None], h.flatten(0, 1), c, weights)[1:]
            h = h.view(n, width, self.width)
            found.append(h)
        return torch.stack(found)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> _Memory:
        empty = self.state.new_zeros(n, size[1], self.width)
        return {
            "inputs": self.inputs.begin(n, size, context),
            "weight": self.inputs.out.sort(self.state),
            "h": empty,
            "c": torch.zeros_like(empty),
            "above": self.state.new_zeros(n, size[1], _GATES * self.width),
        }

    def step(self, memory: _Memory, site: Site, h: Tensor) -> Tensor:
        row, column, group = site
        if site.opens_row and row:
            memory["above"] = linear(_with_neighbours(memory["h"]), memory["weight"])
        gates = self.inputs.step(memory["inputs"], site, h)
        gates = gates + memory["above"][:, column, self.inputs.out.slices[group]]
        own = self.out.slices[group]
        h, c = cell(gates, memory["c"][:, column, own])
        memory["h"][:, column, own], memory["c"][:, column, own] = h, c
        return h

    def spread(self, seen: Tensor) -> Tensor:
        own, found = self.inputs.spread(seen), []
        above = torch.zeros_like(own[:, :1, 0])  # (N, 1, W): whatever any group of a pixel sees
        for row in own.unbind(2):
            found.append(torch.maximum(row, max_pool1d(above, 3, 1, 1)))
            above = found[-1].amax(1, keepdim=True)
        return torch.stack(found, 2)


def _with_neighbours(h: Tensor) -> Tensor:
    """``(B, W, F)`` → ``(B, W, 3 F)``: the features on the left, of the pixel, and on the right."""
    beside = pad(h, (0, 0, 1, 1))
    return torch.cat([beside[:, :-2], h, beside[:, 2:]], 2)


class DiagonalLSTM(nn.Module):
    """One direction of a Diagonal BiLSTM: a pixel is computed from the ones on its left and above it.

    h is that of both pixels, c that of the pixel on the left. The paper computes all pixels of a diagonal at once, as
    columns of a map that is skewed. On a CPU it is several times faster to give the rows, one after the other, to the
    kernel of an ordinary LSTM, whose inputs are x and the h above.
    """

    def __init__(self, inputs: int, width: int, groups: int) -> None:
        super().__init__()
        self.inputs = _input_to_state(inputs, width, groups, POINT)
        self.state = _state_to_state(width, 2)  # on the left, above
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """``(B, I, H, W)`` → ``(B, F, H, W)``."""
        return self.by_rows(x) if x.device.type == "cpu" else self.by_diagonals(x)

    def by_diagonals(self, x: Tensor) -> Tensor:
        """K_is for the whole map at once, then diagonal after diagonal."""
        gates = _skewed(self.inputs(x).permute(0, 2, 3, 1)).unbind(2)  # (B, H, 4 F) each
        h = c = gates[0].new_zeros(*gates[0].shape[:2], self.width)
        found = []
        for diagonal in gates:
            before = torch.cat([h, pad(h, (0, 0, 1, -1))], 2)
            h, c = cell(diagonal + linear(before, self.state), c)
            found.append(h)
        return _upright(torch.stack(found, 2)).permute(0, 3, 1, 2)

    def by_rows(self, x: Tensor) -> Tensor:
        """The same, row after row."""
        rows, weights = x.permute(2, 3, 0, 1), self.weights()  # (H, W, B, I)
        above = rows.new_zeros(*rows.shape[1:3], self.width)
        found = []
        for row in rows:
            above = self.row(row, above, weights)
            found.append(above)
        return torch.stack(found).permute(2, 3, 0, 1)

    def row(self, x: Tensor, above: Tensor, weights: list[Tensor]) -> Tensor:
        """h of a row from its inputs and the h of the row above: ``(W, B, I)``, ``(W, B, F)`` → ``(W, B, F)``."""
        zero = above.new_zeros(above.shape[1:])
        return fused(torch.cat([x, above], 2), zero, zero, weights)[0]

    def weights(self) -> list[Tensor]:
        """The weights of `row`, as the kernel takes them."""
        left, above = self.state.chunk(2, 1)
        weight = torch.cat([self.inputs.masked_weight()[:, :, 0, 0], above], 1)
        return [weight, left.contiguous(), self.inputs.bias, torch.zeros_like(self.inputs.bias)]

    def spread(self, seen: Tensor) -> Tensor:
        """As `Causal.spread`."""
        own = self.inputs.spread(seen)
        before = own.amax(1, keepdim=True).cummax(2).values.cummax(3).values
        left, above = pad(before, (1, -1)), pad(before, (0, 0, 1, -1))
        return torch.maximum(own, torch.maximum(left, above))


def _skewed(x: Tensor) -> Tensor:
    """Each row one column further to the right than the one above: ``(B, H, W, F)`` → ``(B, H, H + W − 1, F)``."""
    height, width = x.shape[1:3]
    line = pad(x, (0, 0, 0, height)).flatten(1, 2)
    return line[:, : height * (height + width - 1)].unflatten(1, (height, height + width - 1))


def _upright(x: Tensor) -> Tensor:
    """The inverse of `_skewed`."""
    height, width = x.shape[1], x.shape[2] - x.shape[1] + 1
    return pad(x.flatten(1, 2), (0, 0, 0, height)).unflatten(1, (height, height + width))[:, :, :width]


class DiagonalBiLSTM(Causal):
    """Two diagonal directions, which together see every earlier pixel.

    One comes from the upper left. The other comes from the upper right; it is shifted down by one row before the two
    are added, since in its own row it sees the pixels on the right.

    Args:
        inputs: number of input features, grouped.
        width: number of cells F of each direction.
        groups: number of colour channels.
    """

    def __init__(self, inputs: int, width: int, groups: int = 1) -> None:
        super().__init__()
        self.left, self.right = (DiagonalLSTM(inputs, width, groups) for _ in range(2))
        self.width, self.into, self.out = width, Groups(inputs, groups), Groups(width, groups)

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        return self.left(h) + pad(self.right(h.flip(3)).flip(3), (0, 0, 1, -1))

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> _Memory:
        empty = self.left.state.new_zeros(n, size[1], self.width)
        on_left, above = self.left.inputs.out.sort(self.left.state).chunk(2, 1)
        return {
            "inputs": self.left.inputs.begin(n, size, context),
            "on the left": on_left.T.contiguous(),
            "above": above,
            "h": empty,  # of the row; at pixels to come, of the row above
            "c": torch.zeros_like(empty[:, 0]),
            "from above": self.left.state.new_zeros(n, size[1], _GATES * self.width),
            "before": empty,
            "row": self.left.state.new_zeros(n, size[1], len(self.into.of)),
            "weights": self.right.weights(),
            "right": torch.zeros_like(empty).transpose(0, 1),  # of the row above, (W, B, F) from the right
            "added": torch.zeros_like(empty),
        }

    def step(self, memory: _Memory, site: Site, h: Tensor) -> Tensor:
        row, column, group = site
        if site.opens_row and row:
            self._open_row(memory)
        if group == 0:
            before = memory["from above"][:, column]
            if column:
                before = torch.addmm(before, memory["h"][:, column - 1], memory["on the left"])
            memory["before"] = before
        memory["row"][:, column, self.into.slices[group]] = h
        gates = self.left.inputs.step(memory["inputs"], site, h)
        own = self.out.slices[group]
        h, c = cell(gates + memory["before"][:, self.left.inputs.out.slices[group]], memory["c"][:, own])
        memory["h"][:, column, own], memory["c"][:, own] = h, c
        return h + memory["added"][:, column, own]

    def _open_row(self, memory: _Memory) -> None:
        """What depends on the rows above only: the h above of one direction, and all of the other one."""
        memory["from above"] = linear(memory["h"], memory["above"])
        memory["c"].zero_()
        x = memory["row"].flip(1).transpose(0, 1)
        memory["right"] = self.right.row(x, memory["right"], memory["weights"])
        memory["added"] = memory["right"].flip(0).transpose(0, 1)

    def spread(self, seen: Tensor) -> Tensor:
        right = self.right.spread(seen.flip(3)).flip(3)
        return torch.maximum(self.left.spread(seen), pad(right, (0, 0, 1, -1)))
