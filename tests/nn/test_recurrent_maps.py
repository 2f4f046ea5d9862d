"""Two-dimensional LSTM layers: a loop over pixels, stepping, receptive fields, and two ways to the same numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from test_causal import CONDITION, HEIGHT, WIDTH, inputs_of, moves, stepped
from torch import Tensor
from torch.nn.functional import pad

from unsup.families.autoregressive.pixelrnn import RecurrentBlock
from unsup.nn.causal import Causal, Groups
from unsup.nn.recurrent_maps import DiagonalBiLSTM, DiagonalLSTM, RowLSTM, _skewed, _upright

INPUTS, CELLS = 5, 4

LAYERS: dict[str, Callable[[], tuple[Causal, Groups, Groups]]] = {
    **{
        f"{cls.__name__}-{groups}": lambda cls=cls, groups=groups: (
            cls(INPUTS, CELLS, groups),
            Groups(INPUTS, groups),
            Groups(CELLS, groups),
        )
        for cls, groups in itertools.product((RowLSTM, DiagonalBiLSTM), (1, 3))
    },
    "block-row": lambda: (RecurrentBlock("row", 3, 2, 2), Groups(6, 2), Groups(6, 2)),
    "block-diagonal": lambda: (RecurrentBlock("diagonal", 3, 2, 2), Groups(6, 2), Groups(6, 2)),
}


def build(name: str, seed: int = 0) -> tuple[Causal, Groups, Groups]:
    layer, into, out = LAYERS[name]()
    with torch.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.copy_(0.5 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed + i)))
    return layer.double().eval(), into, out


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_stepping_is_forward(name: str) -> None:
    layer, into, out = build(name)
    h = inputs_of(layer, into)
    torch.testing.assert_close(stepped(layer, h, into, out), layer(h, CONDITION), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_spread_is_where_a_change_of_one_input_shows(name: str) -> None:
    layer, into, out = build(name)
    dims = into.count * HEIGHT * WIDTH
    told = layer.spread(torch.eye(dims).view(dims, into.count, HEIGHT, WIDTH))
    (seen,) = moves(layer, into, out, 0, 3)
    assert torch.equal(seen, told > 0)


def gates_at(layer: RowLSTM | DiagonalLSTM, x: Tensor, r: int, c: int, groups: int, left: int) -> Tensor:
    """K_is x + b at a pixel, a number at a time: mask B on the pixel itself, all groups of those on its left."""
    own = [f * groups // CELLS for f in range(CELLS)] * 4
    into = [f * groups // INPUTS for f in range(INPUTS)]
    found = layer.inputs.bias.clone()
    for f, i, back in itertools.product(range(4 * CELLS), range(INPUTS), range(left + 1)):
        if c >= back and (back or own[f] >= into[i]):
            found[f] += layer.inputs.weight[f, i, 0, left - back] * x[i, r, c - back]
    return found


def cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = gates.view(4, CELLS)
    c = c / (1 + (-f).exp()) + g.tanh() / (1 + (-i).exp())
    return c.tanh() / (1 + (-o).exp()), c


def row_by_loops(layer: RowLSTM, x: Tensor, groups: int) -> Tensor:
    (height, width), zero = x.shape[1:], torch.zeros(CELLS).double()
    h: dict[tuple[int, int], Tensor] = {}
    cells: dict[tuple[int, int], Tensor] = {}
    for r, c in itertools.product(range(height), range(width)):
        gates = gates_at(layer, x, r, c, groups, 1)
        for tap, side in enumerate((-1, 0, 1)):
            gates = gates + layer.state[:, tap * CELLS : (tap + 1) * CELLS] @ h.get((r - 1, c + side), zero)
        h[r, c], cells[r, c] = cell(gates, cells.get((r - 1, c), zero))
    return torch.stack([torch.stack([h[r, c] for c in range(width)], 1) for r in range(height)], 1)


def diagonal_by_loops(layer: DiagonalBiLSTM, x: Tensor, groups: int) -> Tensor:
    (height, width), zero = x.shape[1:], torch.zeros(CELLS).double()
    h: dict[tuple[int, int, int], Tensor] = {}
    cells: dict[tuple[int, int, int], Tensor] = {}
    for side, part in ((-1, layer.left), (1, layer.right)):
        columns = range(width) if side == -1 else range(width - 1, -1, -1)
        for r, c in itertools.product(range(height), columns):
            gates = gates_at(part, x, r, c, groups, 0)
            gates = gates + part.state[:, :CELLS] @ h.get((side, r, c + side), zero)
            gates = gates + part.state[:, CELLS:] @ h.get((side, r - 1, c), zero)
            h[side, r, c], cells[side, r, c] = cell(gates, cells.get((side, r, c + side), zero))
    found = torch.zeros(CELLS, height, width).double()
    for r, c in itertools.product(range(height), range(width)):
        found[:, r, c] = h[-1, r, c] + h.get((1, r - 1, c), zero)  # the other direction one row down
    return found


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("kind", ["RowLSTM", "DiagonalBiLSTM"])
@torch.no_grad()
def test_layers_are_the_equations_in_a_loop(kind: str, groups: int) -> None:
    layer, into, _ = build(f"{kind}-{groups}")
    h = inputs_of(layer, into)
    loop = row_by_loops if isinstance(layer, RowLSTM) else diagonal_by_loops
    torch.testing.assert_close(layer(h)[0], loop(layer, h[0], groups), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("shape", [(3, 5), (4, 2), (1, 3), (3, 1)])
def test_both_ways_to_compute_a_layer_agree_with_their_gradients(groups: int, shape: tuple[int, int]) -> None:
    row, diagonal = RowLSTM(INPUTS, CELLS, groups).double(), DiagonalLSTM(INPUTS, CELLS, groups).double()
    ways = ((row, row.by_rows, row.by_fused_rows), (diagonal, diagonal.by_diagonals, diagonal.by_rows))
    x = torch.randn(2, INPUTS, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for layer, *both in ways:
        found = []
        for way in both:
            out = way(x.requires_grad_())
            found.append([out, *torch.autograd.grad(out.sin().sum(), [x, *layer.parameters()])])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_skewing_moves_each_row_one_column_further() -> None:
    x = torch.arange(1.0, 13).view(1, 3, 4, 1)
    skewed = _skewed(x)
    assert skewed[0, :, :, 0].tolist() == [[1, 2, 3, 4, 0, 0], [0, 5, 6, 7, 8, 0], [0, 0, 9, 10, 11, 12]]
    assert torch.equal(_upright(skewed), x)


@torch.no_grad()
def test_the_shift_of_the_second_direction_keeps_it_causal() -> None:
    layer, _, _ = build("DiagonalBiLSTM-1")
    x = torch.zeros(1, INPUTS, 3, 4).double()
    changed = x.clone()
    changed[:, :, 1, 3] += 1
    moved = (layer(changed) != layer(x)).any(1)[0]
    assert moved.tolist() == [[False] * 4, [False, False, False, True], [True] * 4]
    without = [layer.left(v) + layer.right(v.flip(3)).flip(3) for v in (x, changed)]
    assert (without[0] != without[1]).any(1)[0, 1].all()  # pixels before it in its own row too
    shifted = pad(layer.right(x.flip(3)).flip(3), (0, 0, 1, -1))
    torch.testing.assert_close(layer(x), layer.left(x) + shifted)


def test_forget_gates_are_open_at_first() -> None:
    bias = RowLSTM(INPUTS, CELLS).inputs.bias
    assert bias[CELLS : 2 * CELLS].tolist() == [1.0] * CELLS
    assert (bias[:CELLS].abs() < 1).all()
