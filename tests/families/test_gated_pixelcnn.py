"""Gated PixelCNN against its two stacks written as loops, its receptive field, and hand-counted sizes."""

from __future__ import annotations

import itertools

import pytest
import torch
from entry_models import generator, random_model, seen_by_jacobian
from torch import Tensor

import unsup
from unsup.core.event import BINARY, Event, Support, labels
from unsup.families.autoregressive.gated_pixelcnn import GatedPixelCNN
from unsup.nn.gated import GatedLayer


def loop_layer(
    layer: GatedLayer, v: Tensor, h: Tensor, colours: int, condition: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Equations of the module's docstring for one image, a number at a time: ``(I, H, W)`` each → ``(width, H, W)``."""
    (height, columns), width = v.shape[1:], len(layer.out.bias)
    reach = layer.vertical.reach
    group_in = [f * colours // len(h) for f in range(len(h))]
    group = [f * colours // width for f in range(width)]

    def shifted(shift: torch.nn.Module, a: Tensor) -> Tensor:
        return a if condition is None or shift.weight is None else a + shift.weight @ condition

    new_v, new_h = torch.zeros(width, height, columns).double(), torch.zeros(width, height, columns).double()
    for r, c in itertools.product(range(height), range(columns)):
        a, b = layer.vertical.bias.clone(), layer.horizontal.bias.clone()
        for f in range(2 * width):
            own = group[f % width]  # each half of what a gate takes is split into the colours
            # Rows r − reach, …, r of the vertical features; of the image, which is strict, the rows above r.
            for up, side, i in itertools.product(range(reach + 1), range(-reach, reach + 1), range(len(v))):
                row, column = r - up - int(layer.strict), c + side
                if row >= 0 and 0 <= column < columns:
                    a[f] += layer.vertical.weight[f, i, reach - up, side + reach] * v[i, row, column]
            for left, i in itertools.product(range(reach + 1), range(len(h))):
                seen = left > 0 or (group_in[i] < own if layer.strict else group_in[i] <= own)
                if seen and c - left >= 0:
                    b[f] += layer.horizontal.weight[f, i, 0, reach - left] * h[i, r, c - left]
        b = shifted(layer.horizontal_shift, b + layer.link.weight[:, :, 0, 0] @ a + layer.link.bias)
        a = shifted(layer.vertical_shift, a)
        new_v[:, r, c] = a[:width].tanh() * a[width:].sigmoid()
        gated = b[:width].tanh() * b[width:].sigmoid()
        for f, j in itertools.product(range(width), range(width)):
            if group[j] <= group[f]:
                new_h[f, r, c] += layer.out.weight[f, j, 0, 0] * gated[j]
        new_h[:, r, c] += layer.out.bias
        if not layer.strict:
            new_h[:, r, c] += h[:, r, c]
    return new_v, new_h


@pytest.mark.parametrize(
    ("event", "options"),
    [
        (Event((1, 3, 4), BINARY), {"layers": 3, "kernel": 3}),
        (Event((3, 3, 3), Support("ordinal", 4, low=1)), {"layers": 2, "kernel": 5, "given": labels(3)}),
        (Event((2, 4, 3), Support("nominal", 3)), {"layers": 1, "kernel": 3}),
    ],
    ids=str,
)
@torch.no_grad()
def test_stacks_are_the_papers_by_loops(event: Event, options: dict) -> None:
    model = random_model("gated-pixelcnn", event, channels=5, head_channels=6, **options)
    support, colours = event.uniform, event.shape[0]
    x = support.low + torch.randint(support.levels, event.shape, generator=generator(2))
    if support.kind == "nominal":
        image = torch.nn.functional.one_hot(x - support.low, 3).permute(0, 3, 1, 2).flatten(0, 1).double()
    else:
        image = 2 * (x - support.low).double() / (support.levels - 1) - 1
    condition = torch.tensor([0.0, 1.0, 0.0]).double() if options.get("given") else None
    v = h = image
    for layer in model.stacks:
        v, h = loop_layer(layer, v, h, colours, condition)
    for conv in list(model.head.children())[1::2]:  # ReLU and 1×1 over groups of colours
        into, out = ([f * colours // n for f in range(n)] for n in (conv.weight.shape[1], conv.weight.shape[0]))
        kept = torch.tensor([[g >= f for f in into] for g in out])
        h = torch.einsum("oi,ihw->ohw", conv.weight[:, :, 0, 0] * kept, h.clamp(min=0)) + conv.bias[:, None, None]
    logits = h.unflatten(0, (colours, -1)).permute(0, 2, 3, 1).flatten(0, 2)
    told = {} if condition is None else {"given": torch.tensor(1)}
    torch.testing.assert_close(model.conditionals(x[None], **told)[0], logits, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("event", "options"),
    [
        (Event((1, 5, 5), BINARY), {"layers": 4, "kernel": 3}),
        (Event((1, 4, 6), BINARY), {"layers": 3, "kernel": 5}),
        (Event((3, 3, 3), Support("ordinal", 4)), {"layers": 2, "kernel": 3}),
    ],
    ids=str,
)
def test_every_earlier_pixel_within_reach_counts(event: Event, options: dict[str, int]) -> None:
    """PixelCNN never sees the wedge to the upper right, however deep it is; here nothing earlier is left out."""
    model = random_model("gated-pixelcnn", event, channels=9, head_channels=12, **options)
    position = model.orders[0]
    assert not model.blind_spot().any()
    assert torch.equal(seen_by_jacobian(model, draws=6), position[:, None] > position[None, :])
    deep = unsup.create("pixelcnn", Event((1, 5, 9), BINARY), channels=1, head_channels=1, blocks=20)
    assert deep.blind_spot().any()


@pytest.mark.parametrize("layers", [1, 2])
def test_reach_of_a_shallow_net_is_the_predicted_one(layers: int) -> None:
    """With kernels of 3 the first layer sees two rows, each further one a row more, and a column more to each side."""
    height, width = 5, 8
    model = random_model(
        "gated-pixelcnn", Event((1, height, width), BINARY), channels=9, head_channels=12, layers=layers
    )
    spot = model.blind_spot()
    for (r, c), (above, column) in itertools.product(itertools.product(range(height), range(width)), repeat=2):
        up, right = r - above, column - c
        if up > 0:
            assert bool(spot[r * width + c, above * width + column]) == _is_out_of_reach(up, right, layers)
    position = model.orders[0]
    assert torch.equal(seen_by_jacobian(model, draws=12), (position[:, None] > position[None, :]) & ~spot)


def _is_out_of_reach(up: int, right: int, layers: int) -> bool:
    """By paths: n vertical layers reach 1 + n rows up and n columns to a side, the other layers go left in the row."""
    return not any(up <= 1 + n and -layers <= right <= n for n in range(1, layers + 1))


def test_paper_preset_has_the_papers_size() -> None:
    model = unsup.create("gated-pixelcnn", Event((3, 32, 32), Support("ordinal", 256)), preset="paper")
    assert isinstance(model, GatedPixelCNN)
    assert len(model.stacks) == 20
    p = 384

    def layer(inputs: int) -> int:
        vertical = inputs * 2 * p * 3 * 5 + 2 * p  # 3 rows of 5: the upper half of 5×5
        link = 2 * p * 2 * p + 2 * p
        horizontal = inputs * 2 * p * 3 + 2 * p  # 3 taps: the left half of 1×5
        return vertical + link + horizontal + p * p + p

    head = (p * 1024 + 1024) + (1024 * 1024 + 1024) + (1024 * 768 + 768)
    assert model.parameter_count == layer(3) + 19 * layer(p) + head
