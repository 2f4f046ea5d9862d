"""PixelCNN: the wedge that it never sees, the sizes of the paper, the layout of its features.

What holds for every net over rasters is in ``test_raster_models.py``, its masks in ``tests/nn/test_causal.py``.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from entry_models import generator, random_model, seen_by_jacobian

import unsup
from unsup.core.batch import Batch
from unsup.core.event import BINARY, Event, Support, labels
from unsup.families.autoregressive.pixelcnn import PixelCNN
from unsup.nn.causal_conv import MaskedConv


@pytest.mark.parametrize(
    ("event", "options"),
    [
        (Event((1, 6, 6), BINARY), {"blocks": 1}),
        (Event((1, 6, 6), BINARY), {"blocks": 4}),
        (Event((1, 4, 7), BINARY), {"blocks": 0}),
        (Event((3, 3, 3), Support("ordinal", 4)), {"blocks": 1}),
        (Event((2, 3, 6), Support("nominal", 3)), {"blocks": 2}),
        (Event((1, 5, 6), BINARY), {"blocks": 1, "kernel": 5}),
    ],
    ids=str,
)
def test_jacobian_is_the_order_less_the_predicted_blind_spot(event: Event, options: dict[str, int]) -> None:
    model = random_model("pixelcnn", event, channels=8, **options)
    position = model.orders[0]
    allowed = (position[:, None] > position[None, :]) & ~model.blind_spot()
    assert torch.equal(seen_by_jacobian(model, draws=12), allowed)


def test_blind_spot_of_a_deep_net_is_the_wedge() -> None:
    """Through mask A one row up reaches 3 columns to the right, each further row one more; none is lost to the left."""
    height, width = 4, 12
    spot = PixelCNN(Event((1, height, width), BINARY), channels=1, head_channels=1, blocks=12).blind_spot()
    for (r, c), (above, right) in itertools.product(itertools.product(range(height), range(width)), repeat=2):
        rows_up = r - above
        in_wedge = rows_up >= 1 and right - c > rows_up + 2
        assert bool(spot[r * width + c, above * width + right]) == in_wedge


def test_paper_preset_has_the_layers_of_table_1() -> None:
    model = unsup.create("pixelcnn", Event((3, 32, 32), Support("ordinal", 256)), preset="paper")
    # The stored half of the 7×7 (4 rows of 7) 3→256; 15 × (256→128, half of the 3×3 (2 rows of 3) 128→128, 128→256);
    # 256→1024, 1024→1024, 1024→3·256; each with its bias.
    assert model.parameter_count == 21_760 + 15 * (32_896 + 98_432 + 33_024) + 263_168 + 1_049_600 + 787_200
    grey = unsup.create("pixelcnn", Event((1, 32, 32), Support("ordinal", 256)), preset="paper")
    free = sum(int(m.mask.sum()) for m in grey.modules() if isinstance(m, MaskedConv))
    # One channel: 24 of 49 taps, 5 of 9, and no mask on 1×1.
    assert free == 24 * 256 + 15 * (256 * 128 + 5 * 128 * 128 + 128 * 256) + 256 * 1024 + 1024 * 1024 + 1024 * 256


@pytest.mark.parametrize("channels", [1, 3])
def test_masked_weights_get_no_gradient(channels: int) -> None:
    event = Event((channels, 5, 5), Support("ordinal", 4))
    model = unsup.create("pixelcnn", event, preset="tiny", blocks=2, given=labels(2)).train()
    x = torch.randint(4, (16, *event.shape), generator=generator())
    model.loss(Batch(x, given=torch.arange(16) % 2))["loss"].mean().backward()
    for conv in model.modules():
        if isinstance(conv, MaskedConv):
            assert (conv.weight.grad[~conv.mask] == 0).all()
            assert conv.weight.grad[conv.mask].abs().sum() > 0


@pytest.mark.parametrize("channels", [1, 3])
def test_features_stay_channels_last(channels: int) -> None:
    model = unsup.create("pixelcnn", Event((channels, 6, 6), BINARY), preset="tiny", blocks=2)
    kept = []

    def note(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        both = (inputs[0], output)
        kept.append(all(h.is_contiguous(memory_format=torch.channels_last) for h in both))

    for conv in model.modules():
        if isinstance(conv, MaskedConv) and conv is not model.first:
            conv.register_forward_hook(note)
    model.log_prob(torch.zeros(2, channels, 6, 6))
    assert kept == [True] * 9  # three convolutions in each of two blocks, three in the head
