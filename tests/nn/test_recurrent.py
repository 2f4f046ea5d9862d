"""Recurrent layers: the equations in a loop, PyTorch's modules, stepping, and truncated gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unsup.core.event import BINARY, REAL, Event, Support
from unsup.nn.causal import Causal, Context, Site
from unsup.nn.order import Order
from unsup.nn.raster import Raster
from unsup.nn.recurrent import Appended, Plain, Recurrent

N, LENGTH = 3, 7
CONDITION = Context(torch.randn(N, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64))
CELLS = ("lstm", "gru")
IMAGE = Event((1, 1, LENGTH), BINARY)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(
    cell: str, inputs: int = 4, width: int = 5, chunk: int | None = None, weight_dropout: float = 0.0
) -> Recurrent:
    layer = Recurrent(inputs, width, cell, chunk=chunk, weight_dropout=weight_dropout).double()
    with torch.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.copy_(0.7 * noise(*p.shape, seed=i))
    return layer


LAYERS: dict[str, Callable[[], Causal]] = {
    "lstm": lambda: made("lstm"),
    "gru": lambda: made("gru"),
    "chunked": lambda: made("lstm", chunk=3),
    "appended": lambda: Appended(Raster(IMAGE).coordinates(), 2).double(),
    "appended-places": lambda: Appended(Raster(IMAGE).coordinates()).double(),
    "appended-condition": lambda: Appended(None, 2),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_stepping_is_forward(name: str, training: bool) -> None:
    layer, h = LAYERS[name]().train(training), noise(N, LENGTH, 4)
    memory = layer.begin(N, (1, LENGTH), CONDITION)
    steps = torch.stack([layer.step(memory, Site(0, t), h[:, t]) for t in range(LENGTH)], 1)
    torch.testing.assert_close(layer(h, CONDITION), steps, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_spread_is_where_a_change_of_one_input_shows(name: str) -> None:
    layer, h = LAYERS[name](), noise(1, LENGTH, 4).repeat(LENGTH, 1, 1)
    context = Context(CONDITION.given[:1].expand(LENGTH, -1))
    moved = h.clone()
    moved[range(LENGTH), range(LENGTH)] += 1
    shown = (layer(moved, context) != layer(h, context)).any(2)
    assert torch.equal(layer.spread(torch.eye(LENGTH)) > 0, shown)


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_cells_are_their_equations(cell: str) -> None:
    layer, x = made(cell), noise(LENGTH, 4)
    weight, state, bias, state_bias = layer.net.all_weights[0]
    h = c = torch.zeros(5).double()
    found = []
    for t in range(LENGTH):
        a, b = (weight @ x[t] + bias).view(-1, 5), (state @ h + state_bias).view(-1, 5)
        if cell == "lstm":
            i, f, g, o = (u + v for u, v in zip(a, b, strict=True))
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        else:
            r, z = (a[0] + b[0]).sigmoid(), (a[1] + b[1]).sigmoid()
            h = (1 - z) * (a[2] + r * b[2]).tanh() + z * h
        found.append(h)
    torch.testing.assert_close(layer(x[None])[0], torch.stack(found), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_two_layers_are_the_module_of_two_layers(cell: str) -> None:
    both = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](4, 5, 2, batch_first=True).double()
    layers = made(cell), made(cell, 5)
    with torch.no_grad():
        for own, theirs in zip(layers, both.all_weights, strict=True):
            for p, q in zip(own.net.all_weights[0], theirs, strict=True):
                q.copy_(p)
    h = noise(N, LENGTH, 4)
    torch.testing.assert_close(layers[1](layers[0](h)), both(h)[0], rtol=1e-12, atol=1e-12)


def test_forget_gates_are_open_at_first() -> None:
    _, _, bias, state_bias = Recurrent(3, 4).net.all_weights[0]
    assert (bias + state_bias)[4:8].tolist() == [1.0] * 4
    assert (bias + state_bias)[[0, 9, 15]].abs().max() < 1


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("chunk", [1, 3, LENGTH, 100])
def test_chunks_change_gradients_as_truncated_back_propagation_does(cell: str, chunk: int) -> None:
    h, weight = noise(N, LENGTH, 4, seed=9), noise(N, LENGTH, 5, seed=10)

    def gradients(layers: list[Recurrent]) -> list[Tensor]:
        return [p.grad.clone() for layer in layers for p in layer.parameters()]

    def two(chunk: int | None) -> list[Recurrent]:
        return [made(cell, 4, chunk=chunk).train(), made(cell, 5, chunk=chunk).train()]

    told, whole, explicit = two(chunk), two(None), two(None)
    found, full = told[1](told[0](h)), whole[1](whole[0](h))
    assert torch.equal(found, full) or torch.allclose(found, full, rtol=1e-14, atol=0)
    (found * weight).sum().backward()
    (full * weight).sum().backward()
    states = [layer._zero(N) for layer in explicit]
    for start in range(0, LENGTH, chunk):  # by hand: a loss and a backward pass for each chunk, the states carried over
        part = h[:, start : start + chunk]
        for number, layer in enumerate(explicit):
            part, state = layer._run(part, states[number], layer._weights())
            states[number] = tuple(s.detach() for s in state)
        (part * weight[:, start : start + chunk]).sum().backward()
    for a, b in zip(gradients(told), gradients(explicit), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    same = all(torch.allclose(a, b) for a, b in zip(gradients(told), gradients(whole), strict=True))
    assert same == (chunk >= LENGTH)


def test_scores_have_the_whole_gradient_outside_training() -> None:
    one, other = made("lstm", chunk=2).eval(), made("lstm").eval()
    h, h2 = (noise(N, LENGTH, 4).requires_grad_() for _ in range(2))
    one(h)[:, -1].sum().backward()
    other(h2)[:, -1].sum().backward()
    assert torch.equal(h.grad, h2.grad)
    assert (h.grad != 0).all()


@pytest.mark.parametrize(
    ("event", "frame", "one_hot", "expected"),
    [
        (Event((2,), Support("nominal", 3), "sequence"), 1, True, [[0, 0, 0], [0, 0, 1]]),
        (Event((2,), BINARY, "sequence"), 1, False, [[0], [1]]),
        (Event((2, 2), Support("nominal", 3), "sequence"), 2, True, [[0] * 6, [0, 0, 1, 0, 1, 0]]),
        (Event((2, 2), BINARY, "sequence"), 2, False, [[0, 0], [1, -1]]),
        (Event((2, 2), REAL, "sequence"), 2, False, [[0, 0], [2.5, -1.5]]),
        (Event((2,), REAL, "sequence"), 1, False, [[0], [2.5]]),
    ],
    ids=str,
)
def test_plain_inputs_are_what_the_site_before_holds(
    event: Event, frame: int, one_hot: bool, expected: list[list[float]]
) -> None:
    layer = Plain(event, frame, one_hot=one_hot)
    if event.is_real:
        x = torch.tensor([[[2.5, -1.5][:frame], [9.0, 9.0][:frame]]])
    else:
        first = [2, 1] if event.uniform.levels == 3 else [1, 0]
        x = torch.tensor([[first[:frame], [0, 0][:frame]]])
        x = x.squeeze(2) if frame == 1 else x
    with torch.no_grad():
        assert layer(x)[0].tolist() == expected
        memory = layer.begin(1, (1, 2))
        assert layer.look(memory, Site(0, 0))[0].tolist() == expected[0]
        layer.put(memory, Site(0, 0), x[:, 0])
        assert layer.look(memory, Site(0, 1))[0].tolist() == expected[1]
    assert torch.equal(layer.spread(torch.eye(2)), torch.tensor([[0.0, 1.0], [0.0, 0.0]]))


def test_coordinates_are_those_of_the_entry_to_come() -> None:
    places = Raster(Event((3, 2, 4), BINARY)).coordinates()
    assert places.shape == (24, 3)  # channel, row, column
    assert places[0].tolist() == [-1, -1, -1]
    assert places[1].tolist() == [0, -1, -1]  # the channel is the fastest
    assert places[-1].tolist() == [1, 1, 1]
    frames = Event((5, 3), BINARY, "sequence")
    assert Order(frames).coordinates(3).tolist() == [[-1.0], [-0.5], [0.0], [0.5], [1.0]]


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_weights_between_states_are_dropped_at_all_sites_alike(cell: str, chunk: int | None) -> None:
    layer, h = made(cell, chunk=chunk, weight_dropout=0.4), noise(N, LENGTH, 4)
    found = layer(h, Context(generator=torch.Generator().manual_seed(1)))
    found.sum().backward()
    weight = layer.net.weight_hh_l0
    kept = torch.ge(torch.rand(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64), 0.4)
    assert weight.grad is not None
    assert 0 < kept.sum() < kept.numel()
    assert torch.equal(weight.grad != 0, kept)
    plain = made(cell)
    with torch.no_grad():
        plain.net.weight_hh_l0.copy_(weight * kept / 0.6)
    torch.testing.assert_close(found, plain(h), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.eval()(h), made(cell)(h), rtol=0, atol=0)
