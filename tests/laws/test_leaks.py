"""The law of the order sees every single unit that sees one entry too many."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unsup.core.event import BINARY, Event
from unsup.core.model import Model
from unsup.families.autoregressive.made import MADE
from unsup.families.autoregressive.pixelcnn import PixelCNN
from unsup.testing import check_model, examples

LEAK = 0.05  # weight of what a unit should not see


def status(model: Model) -> str:
    (outcome,) = check_model(model, examples(model.event, 64), laws=["order"]).outcomes
    return outcome.status


def leaking(layer: nn.Module, unit: int, feature: int, *, right: int = 0) -> None:
    """From now on one unit of ``layer`` sees one feature more: in a picture, of the pixel so many to the right."""

    def hook(module, arguments, out):
        seen = arguments[0][:, feature]
        if right:
            seen = torch.cat([seen[..., right:], torch.zeros_like(seen[..., :right])], -1)
        seen = torch.zeros_like(out).index_copy(1, torch.tensor([unit]), (LEAK * seen)[:, None].to(out.dtype))
        return out + seen

    layer.register_forward_hook(hook)


def sees(model: Model, layer: nn.Module) -> torch.Tensor:
    """Which inputs each unit of a dense layer sees: bool ``(units, inputs)``."""
    kept = []
    handle = layer.register_forward_hook(lambda module, arguments, out: kept.append((arguments[0], out)))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.1)
    model.conditionals(torch.rand(1, *model.event.shape).requires_grad_())
    handle.remove()
    x, out = kept[0]
    rows = [torch.autograd.grad(out[:, u].sum(), x, retain_graph=True)[0][0] for u in range(out.shape[1])]
    return torch.stack(rows) != 0


@pytest.mark.parametrize("hidden", [(24,), (24, 24)])
def test_one_hidden_unit_of_made_that_sees_one_input_too_many(hidden: tuple[int, ...]) -> None:
    event, escaped = Event((6,), BINARY), []
    for seed in range(20):
        torch.manual_seed(seed)
        model = MADE(event, hidden=hidden, mask_seed=seed)
        dense = [m for m in model.modules() if getattr(getattr(m, "weight", None), "shape", (0,))[0] == hidden[-1]]
        layer = dense[-1]  # the last hidden one: whatever its units see reaches the first output they should not tell
        masked = (~sees(model, layer)).nonzero()
        unit, feature = masked[int(torch.randint(len(masked), ()))].tolist()
        torch.manual_seed(seed)
        model = MADE(event, hidden=hidden, mask_seed=seed)
        layer = [m for m in model.modules() if getattr(getattr(m, "weight", None), "shape", (0,))[0] == hidden[-1]][-1]
        if seed < 3:
            assert status(model) == "passed"
        leaking(layer, unit, feature)
        if status(model) != "failed":
            escaped.append((seed, unit, feature))
    assert not escaped


def spatial(model: Model) -> list[nn.Module]:
    """Convolutions that look around them."""
    found = [m for m in model.modules() if getattr(getattr(m, "weight", None), "ndim", 0) == 4]
    return [m for m in found if m.weight.shape[-1] > 1]


def test_one_feature_of_a_masked_convolution_that_sees_one_pixel_too_many() -> None:
    event, escaped = Event((1, 3, 3), BINARY), []
    for seed in range(20):
        torch.manual_seed(seed)
        model = PixelCNN(event, **PixelCNN.presets["tiny"])
        if seed < 3:
            assert status(model) == "passed"
        layers = spatial(model)
        layer = layers[seed % len(layers)]
        unit, feature = (int(torch.randint(n, ())) for n in layer.weight.shape[:2])
        # Mask A hides the pixel itself, mask B the next one.
        leaking(layer, unit, feature, right=0 if layer is layers[0] and seed % 4 == 0 else 1)
        if status(model) != "failed":
            escaped.append((seed, unit, feature))
    assert not escaped


def test_one_feature_of_a_masked_convolution_that_sees_one_channel_too_many() -> None:
    event, escaped = Event((3, 2, 2), BINARY), []
    for seed in range(20):
        torch.manual_seed(seed)
        model = PixelCNN(event, **PixelCNN.presets["tiny"])
        layers = spatial(model)
        layer = layers[seed % len(layers)]
        # Features are in groups of channels, one after another: the first is of the first, the last of the last.
        leaking(layer, 0, layer.weight.shape[1] - 1)
        if status(model) != "failed":
            escaped.append(seed)
    assert not escaped
