"""Weight norm: the paper's weight, and outputs that are standardised by the first batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import unsup
from unsup.core.batch import Batch
from unsup.core.event import REAL, Event, Support
from unsup.core.storage import load_state
from unsup.nn.causal import Sequential
from unsup.nn.causal_conv import MaskedConv, VerticalConv, Window
from unsup.nn.gated_residual import GatedResidual
from unsup.nn.weight_norm import DataDependent, WeightNorm, initialise


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def left(inputs: int, outputs: int, norm: WeightNorm) -> MaskedConv:
    return MaskedConv(inputs, outputs, window=Window(1, 1), norm=norm)


def point(inputs: int, outputs: int, norm: WeightNorm) -> MaskedConv:
    return MaskedConv(inputs, outputs, norm=norm)


def test_the_weight_is_that_of_torch() -> None:
    other = weight_norm(nn.Conv2d(3, 4, 2))
    norm = WeightNorm(4)
    with torch.no_grad():
        norm.gain.copy_(noise(4))
        other.parametrizations.weight.original0.copy_(norm.gain.view(4, 1, 1, 1))
        torch.testing.assert_close(norm.weight(other.parametrizations.weight.original1), other.weight)


def test_the_length_of_v_does_not_matter() -> None:
    layer, x = left(3, 4, WeightNorm(4)).eval(), noise(2, 3, 5, 5)
    with torch.no_grad():
        before = layer(x)
        layer.weight.mul_(7)
        torch.testing.assert_close(layer(x), before)
        layer.norm.gain.mul_(2)  # the product is not kept from before
        torch.testing.assert_close(layer(x) - layer.bias[:, None, None], 2 * (before - layer.bias[:, None, None]))


def test_the_first_batch_standardises_the_outputs_of_every_layer() -> None:
    layers = Sequential(
        left(3, 4, WeightNorm(4)),
        VerticalConv(4, 6, rows=2, reach=1, stride=2, norm=WeightNorm(6, scale=0.5)),
        GatedResidual(6, left, point, dropout=0.5),
    ).train()
    found: dict[str, Tensor] = {}
    for name, part in layers.named_modules():
        if isinstance(part, MaskedConv | VerticalConv):
            part.register_forward_hook(lambda _, x, y, name=name: found.update({name: y}))
    x = 3 + 2 * noise(20, 3, 8, 8)
    initialise(layers, lambda: layers(x))
    assert layers.training
    for scope in ("initialising", "afterwards"):
        if scope == "afterwards":
            with torch.no_grad():
                layers.eval()(x)
        for name, y in found.items():
            scale = {"1": 0.5, "2.second": 0.1}.get(name, 1.0)
            std, mean = torch.std_mean(y, (0, 2, 3), correction=0)
            torch.testing.assert_close(std, torch.full_like(std, scale), rtol=1e-3, atol=0)
            torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-4)
    assert set(found) == {"0", "1", "2.first", "2.second"}


def test_constant_outputs_are_centred_and_keep_their_gain() -> None:
    layer = left(3, 4, WeightNorm(4, scale=0.5))
    initialise(layer, lambda: layer(torch.ones(5, 3, 1, 1)))
    assert torch.equal(layer.norm.gain, torch.full((4,), 0.5))
    assert float(layer(torch.ones(5, 3, 1, 1)).detach().abs().max()) < 1e-6


STARTED = [("glow", Event((1, 4, 4), Support("ordinal", 8))), ("realnvp", Event((1, 4, 4), REAL))]


@pytest.mark.parametrize(("name", "event"), STARTED)
def test_layers_start_from_data_once(name: str, event: Event, tmp_path: Path) -> None:
    """A model that is trained again, also after saving it, keeps what it has learned."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(8, (64, 1, 4, 4), generator=generator).to(event.dtype)
    model = unsup.create(name, event, preset="tiny", seed=0)
    model.prepare(Batch(x), generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.save(str(tmp_path / "model"))
    for again in (model, unsup.load(str(tmp_path / "model"))):
        before = {key: value.clone() for key, value in again.state_dict().items() if "front" not in key}
        again.prepare(Batch(x), generator=generator)
        for key, value in before.items():
            assert torch.equal(again.state_dict()[key], value), key


def test_models_saved_before_it_was_recorded_have_started() -> None:
    model, other = (unsup.create("glow", STARTED[0][1], preset="tiny", seed=seed) for seed in (0, 1))
    saved = {key: value for key, value in model.state_dict().items() if not key.endswith("initialised")}
    load_state(other, saved, "old")
    assert all(m.initialised for m in other.modules() if isinstance(m, DataDependent))
