"""Dilated layers: stepping is computing all sites at once, what is seen is what is declared, loops as reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unsup.core.event import BINARY, Event
from unsup.nn.causal import Causal, Context, Site
from unsup.nn.dilated import Coordinates, DilatedGate, DilatedStack, Number
from unsup.nn.order import Order
from unsup.nn.raster import Raster

N, WIDTH, LONG = 3, 4, 200


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CONDITION = Context(torch.randn(N, 2, generator=generator(5), dtype=torch.float64))
# A layer and the number of sites; a queue of more than 64 inputs is multiplied in parts.
LAYERS: dict[str, tuple[Callable[[], Causal], int]] = {
    "gate": (lambda: DilatedGate(WIDTH, 5, 1), 7),
    "gate-of-4": (lambda: DilatedGate(WIDTH, 5, 4), 11),
    "gate-of-70": (lambda: DilatedGate(WIDTH, 2, 70), LONG),
    "gate-of-128": (lambda: DilatedGate(WIDTH, 2, 128), LONG),
    "gate-of-all": (lambda: DilatedGate(WIDTH, 5, 7), 7),
    "gate-beyond": (lambda: DilatedGate(WIDTH, 5, 9), 7),
    "gate-given": (lambda: DilatedGate(WIDTH, 5, 2, 2), 7),
    "stack": (lambda: DilatedStack(WIDTH, 6, (1, 2, 4, 1, 2)), 12),
    "stack-given": (lambda: DilatedStack(WIDTH, 6, (2, 1), 2), 6),
    "stack-of-one": (lambda: DilatedStack(WIDTH, 6, (3,)), 6),
    "coordinates": (lambda: Coordinates(Raster(Event((2, 2, 3), BINARY)), WIDTH, is_image=True), 12),
    "channels": (lambda: Coordinates(Order(Event((3, 2), BINARY, "sequence")), WIDTH, is_image=False), 6),
}


def build(name: str, seed: int = 0) -> tuple[Causal, int]:
    layer, sites = LAYERS[name][0](), LAYERS[name][1]
    with torch.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.copy_(0.5 * torch.randn(p.shape, generator=generator(100 * seed + i)))
    return layer.double().eval(), sites


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_stepping_is_forward(name: str) -> None:
    layer, sites = build(name)
    h = torch.randn(N, sites, WIDTH, generator=generator(1), dtype=torch.float64)
    memory = layer.begin(N, (1, sites), CONDITION)
    found = [layer.step(memory, Site(0, t), h[:, t].clone()) for t in range(sites)]
    torch.testing.assert_close(torch.stack(found, 1), layer(h, CONDITION), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in LAYERS if LAYERS[name][1] < LONG])
@torch.no_grad()
def test_spread_is_where_a_change_of_one_input_shows(name: str) -> None:
    sites = LAYERS[name][1]
    context = Context(CONDITION.given[:1].expand(sites, -1))
    shown = torch.zeros(sites, sites, dtype=torch.bool)
    for seed in range(4):
        layer, _ = build(name, seed)
        h = torch.randn(1, sites, WIDTH, generator=generator(seed), dtype=torch.float64).repeat(sites, 1, 1)
        before = layer(h, context)
        h[torch.arange(sites), torch.arange(sites)] += 1.7
        shown |= (layer(h, context) != before).any(2)
    assert torch.equal(shown, layer.spread(torch.eye(sites)) > 0)


def test_number_is_scaled_and_shifted() -> None:
    layer = Number(5, WIDTH).double()
    levels = torch.tensor([[0, 4, 2, 1]])
    found = layer(levels)
    assert torch.equal(found[0, 0], layer.start)
    for t, scaled in ((1, -1.0), (2, 1.0), (3, 0.0)):
        torch.testing.assert_close(found[0, t], scaled * layer.map.weight[:, 0] + layer.map.bias)


def inputs(layer: Coordinates) -> list[list[float]]:
    return layer.inputs.tolist()


def test_coordinates_are_those_of_the_entry_that_comes_next() -> None:
    image = Coordinates(Raster(Event((2, 2, 3), BINARY)), WIDTH, is_image=True)
    expected = [
        [2 * row - 1, column - 1, float(channel == 0), float(channel == 1)]
        for row in range(2)
        for column in range(3)
        for channel in range(2)
    ]
    assert inputs(image) == expected
    line = Coordinates(Raster(Event((1, 1, 3), BINARY)), WIDTH, is_image=True)
    assert inputs(line) == [[-1.0], [0.0], [1.0]]
    stereo = Coordinates(Order(Event((9, 2), BINARY, "sequence")), WIDTH, is_image=False)
    assert inputs(stereo) == [[1.0, 0.0], [0.0, 1.0]]
    assert [Coordinates.has_any(shape, is_image=is_image) for shape, is_image in
            (((9,), False), ((9, 2), False), ((1, 2, 2), True))] == [False, True, True]  # fmt: skip


@torch.no_grad()
def test_a_stack_of_gates_by_loops() -> None:
    layer, sites = build("stack-given")
    h = torch.randn(N, sites, WIDTH, generator=generator(1), dtype=torch.float64)
    total: list[Tensor] = [layer.skip.bias for _ in range(N * sites)]
    for number, gate in enumerate(layer.gates):
        skip = layer.skip.weight[:, number * WIDTH : (number + 1) * WIDTH]
        new = h.clone()
        for b in range(N):
            for t in range(sites):
                past = h[b, t - gate.dilation] if t >= gate.dilation else torch.zeros(WIDTH, dtype=h.dtype)
                inside = gate.taps.weight @ torch.cat([past, h[b, t]]) + gate.taps.bias
                inside = inside + gate.condition.weight @ CONDITION.given[b]
                z = torch.tanh(inside[:WIDTH]) / (1 + torch.exp(-inside[WIDTH:]))
                total[b * sites + t] = total[b * sites + t] + skip @ z
                if number + 1 < len(layer.gates):
                    new[b, t] += layer.residual[number].weight @ z + layer.residual[number].bias
        h = new
    h = torch.randn(N, sites, WIDTH, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(layer(h, CONDITION), torch.stack(total).view(N, sites, -1), rtol=1e-12, atol=1e-12)
